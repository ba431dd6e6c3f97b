"""PyTorch files, by `torch.load` without a memory map: so PyTorch itself compares each record with its storage."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import MappingError
from ...formats.torch.scan import check_torch_file
from .safetensors_file import as_array
from .tensor import Tensor

_LAYER = re.compile(r"(^|\.)(encoder\.layer|encoderLayer)\.0\.")
"""Part of the names of a first layer, in every program that writes PyTorch files."""

_NOT_THE_MODEL = re.compile(r"ema|average|avg|swa|shadow|teacher|optim", re.IGNORECASE)
"""Keys under which training programs keep a second model beside the one that they save."""

_MAX_DEPTH = 6
"""How deep dictionaries are searched. A pickle may put one into itself."""


def read_torch(file: Path, asked: str | None) -> dict[str, Tensor]:
    """The model's tensors in `file` by name.

    Args:
        asked: the key, such as "folds.0", that the user named; None to find the model's dictionary.

    Raises:
        MappingError: it holds no model, or several.
    """
    import torch

    check_torch_file(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on old pickles
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    tensors = _model_of(file, loaded, asked)
    return {name: Tensor(name, tuple(one.shape), partial(as_array, one.detach())) for name, one in tensors.items()}


def _model_of(file: Path, loaded: Any, asked: str | None) -> dict[str, Any]:
    """The dictionary of the model's tensors. What else lies in it (a step, a loss) is no tensor of the model."""
    found = dict(_dictionaries(loaded))
    if asked is not None:
        found = {key: tensors for key, tensors in found.items() if key == asked}
    first_choice = {key: tensors for key, tensors in found.items() if not _NOT_THE_MODEL.search(key)}
    found = first_choice or found
    if len(found) != 1:
        listed = f"{len(found)}: {', '.join(map(repr, found))}" if found else "none"
        raise MappingError(
            f"{file}: expected one dictionary with the tensors of a NEZHA, found {listed}",
            hint="Save the model's alone, convert and verify that: torch.save(model.state_dict(), 'pytorch_model.bin')",
        )
    return next(iter(found.values()))


def _dictionaries(value: Any, at: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """The dictionaries in `value` that hold an encoder's tensors, each by its keys joined by dots."""
    import torch

    if not isinstance(value, Mapping) or depth > _MAX_DEPTH:
        return
    tensors = {key: one for key, one in value.items() if isinstance(key, str) and isinstance(one, torch.Tensor)}
    if any(_LAYER.search(name) for name in tensors):
        yield at, tensors
        return
    for key, inner in value.items():
        yield from _dictionaries(inner, f"{at}.{key}" if at else str(key), depth + 1)
