"""PyTorch files and other pickles, by `torch.load` without a memory map: so PyTorch itself compares sizes.

Where a file holds objects besides tensors, torch's own list of safe names does not do: then `Unpickler` reads it.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CheckpointError, MappingError
from ...formats.torch.containers import open_pickle
from .safetensors_file import as_array
from .tensor import Tensor
from .unpickle import STAND_INS, Inert, Unpickler

_LAYER = re.compile(r"(^|\.)(encoder\.layer|encoderLayer)\.0\.")
"""Part of the names of a first layer, in every program that writes PyTorch files."""

_NOT_THE_MODEL = re.compile(r"ema|average|avg|swa|shadow|teacher|optim", re.IGNORECASE)
"""Keys under which training programs keep a second model beside the one that they save."""

_MAX_DEPTH = 6
"""How deep dictionaries are searched. A pickle may put one into itself."""

_MAX_NAMES = 1 << 23
"""How many characters the names in a file's modules may have."""

_CONFIG = ("hidden_size", "num_attention_heads", "num_hidden_layers")


def read_torch(file: Path, asked: str | None, averaged: bool = False) -> dict[str, Tensor]:
    """The model's tensors in `file` by name.

    Args:
        asked: the key, such as "folds.0", that the user named; None to find the model's dictionary.
        averaged: the user wants the moving average that lies beside it.

    Raises:
        CheckpointError: loading it would cost more than its size may.
        MappingError: it holds no model, or several.
    """
    return {
        name: Tensor(name, tuple(value.shape), partial(_values, value))
        for name, value in _model_of(file, asked, averaged).items()
    }


def config_in(file: Path) -> dict[str, Any] | None:
    """The fields of the model's config, where an object in `file` is one."""
    for _, fields in _objects(file):
        if all(name in fields for name in _CONFIG):
            return {name: value for name, value in fields.items() if isinstance(name, str) and _is_plain(value)}
    return None


def _is_plain(value: Any) -> bool:
    items = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    parts = (value, *items) if isinstance(value, str | int | float | None) else items
    return isinstance(value, _PLAIN) and all(
        isinstance(part, str | float | None) or (isinstance(part, int) and part.bit_length() <= 64) for part in parts
    )


def _values(value: Any) -> np.ndarray:
    return np.asarray(value) if isinstance(value, np.ndarray) else as_array(value.detach())


def _load(file: Path) -> Any:
    """What torch finds in `file`, or Python's unpickler where it is no file of torch's."""
    import torch

    wanted = open_pickle(file)[0].wanted  # the first reader bounds what loading the file may cost
    with open(file, "rb") as data, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on old pickles
        head = data.read(512)
        is_tar = head[257:262] == b"ustar"
        data.seek(0)
        if not (is_tar or head.startswith(b"PK") or any(number in head[:64] for number in _LEGACY)):
            return Unpickler(data, is_bare=True).load()
        if not wanted and not is_tar:
            try:
                return torch.load(data, map_location="cpu", weights_only=True, mmap=False)
            except pickle.UnpicklingError:  # of a protocol that this list of torch's does not know
                data.seek(0)
        return torch.load(data, map_location="cpu", weights_only=False, mmap=False, pickle_module=STAND_INS)


_PLAIN = (str, int, float, type(None), list, tuple, dict)

_LEGACY = (b"\x8a\nl\xfc\x9cF\xf9 j\xa8P", b"L119547037146038801333356L\n")
"""The number with which a file of torch before 1.6 begins, as pickles of protocol 2 and later, and of 1."""


def _objects(file: Path) -> list[tuple[str, Mapping[Any, Any]]]:
    """Everything in `file` that holds things by name; see `_everything`.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    try:
        return list(_everything(_load(file)))
    except CheckpointError:
        raise
    except Exception as error:  # both libraries raise errors of many unrelated types for damaged files
        first_line = (str(error).strip() or "no more is said").splitlines()[0]
        raise CheckpointError(f"{file}: cannot be read a second time ({first_line:.300})") from error


def _model_of(file: Path, asked: str | None, averaged: bool) -> dict[str, Any]:
    """The dictionary of the model's tensors. What else lies in it (a step, a loss) is no tensor of the model."""
    objects = _objects(file)
    if averaged and (average := _average_in(objects, asked)):
        return average
    found = dict(_dictionaries(objects))
    if asked is not None:
        found = {key: tensors for key, tensors in found.items() if (key or "the top") == asked}
    first_choice = {key: tensors for key, tensors in found.items() if not _NOT_THE_MODEL.search(key)}
    found = first_choice or found
    if len(found) != 1:
        listed = f"{len(found)}: {', '.join(map(repr, found))}" if found else "none"
        raise MappingError(
            f"{file}: expected one dictionary with the tensors of a NEZHA, found {listed}",
            hint="Save the model's alone, convert and verify that: torch.save(model.state_dict(), 'pytorch_model.bin')",
        )
    return next(iter(found.values()))


def _average_in(objects: list[tuple[str, Mapping[Any, Any]]], asked: str | None) -> dict[str, Any] | None:
    """The average of the model's tensors, with those of the model that it lacks; None if no dictionary is one."""
    every = {path: tensors for path, fields in objects if (tensors := _tensors(fields))}
    means = {path for path in every if path and _NOT_THE_MODEL.search(path) and not _RAW.search(path)}
    means |= {path for path in every if "n_averaged" in every[path]}
    keepers = tuple(path.removesuffix("shadow") for path in every if path.split(".")[-1] == "shadow")
    means -= {path for path in means if path.startswith(keepers) and not path.endswith("shadow")}
    means = means & {asked} if asked else means
    if len(means) != 1 or means == {""}:
        return None
    mean = {_bare(name): value for name, value in every[means.pop()].items() if value.shape}
    models = [
        tensors
        for path, tensors in every.items()
        if not (_NOT_THE_MODEL.search(path) or _RAW.search(path) or "n_averaged" in tensors)
        and mean.keys() <= set(map(_bare, tensors))
    ]
    return {name: mean.get(_bare(name), value) for name, value in models[0].items()} if len(models) == 1 else mean


_RAW = re.compile("backup|collected|online|teacher|optim", re.IGNORECASE)
"""Keys of weights that are no average, although they lie beside or inside of one."""


def _bare(name: str) -> str:
    return name.removeprefix("module.")


def _tensors(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """The tensors among `fields`, if they are those of an encoder."""
    import torch

    kinds = torch.Tensor | np.ndarray
    tensors = {key: value for key, value in fields.items() if isinstance(key, str) and isinstance(value, kinds)}
    return tensors if any(map(_LAYER.search, tensors)) else {}


def _dictionaries(objects: list[tuple[str, Mapping[Any, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Those of `objects` that hold an encoder's tensors, each by its keys joined by dots."""
    above: list[str] = []
    for path, fields in objects:
        if (tensors := _tensors(fields)) and not any(path.startswith(other) for other in above):
            above.append(f"{path}." if path else "")
            yield path, tensors


def _everything(top: Any) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The dictionaries in `top`, and the fields of objects, each once and by its keys joined by dots; outer ones first.

    Raises:
        ValueError: modules hold each other so often that they would fill the memory.
    """
    todo: list[tuple[tuple[str, ...], Any]] = [((), top)]
    visited: set[int] = set()
    left = [_MAX_NAMES]
    for path, value in todo:
        if id(value) in visited or len(path) > _MAX_DEPTH:
            continue
        visited.add(id(value))
        fields = value.fields(left) if isinstance(value, Inert) else value
        if isinstance(fields, list | tuple):
            fields = {str(number): item for number, item in enumerate(fields)}
        if not isinstance(fields, Mapping):
            continue
        yield ".".join(path), fields
        state = value.state if isinstance(value, Inert) else None
        inside = {**fields, **state} if isinstance(state, dict) else fields
        todo += [
            ((*path, key), inner)
            for key, inner in inside.items()
            if isinstance(key, str) and isinstance(inner, Inert | Mapping | list | tuple)
        ]
