"""PyTorch state dicts (.bin, .pt, .pth, .ckpt), zip or legacy, read only by ``torch.load(weights_only=True)``."""

from __future__ import annotations

import os
import re
import reprlib
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np

from ...checkpoint import Decision, Origin, TensorEntry
from ...errors import CheckpointError, UsageError
from ...files.state import State, check_unchanged, state_of
from ..blocks import row_blocks, unchanged
from .scan import check_torch_file

if TYPE_CHECKING:
    import torch

MAX_DEPTH = 3
"""How deep in nested dictionaries the model's is searched for."""

_TRAINING = re.compile(r"optim|sched|scaler|rng|callback|loops", re.IGNORECASE)
"""Keys that hold tensors of the training, not the model."""


def read_torch(files: tuple[Path, ...]) -> tuple[dict[str, TensorEntry], tuple[Decision, ...]]:
    """The tensors of `files` by name, and a decision for each file that holds more than them: which part was read.

    A zip file is memory-mapped; a legacy file (torch < 1.6) is read into memory.

    Raises:
        CheckpointError: a file is corrupt, asks for code to be run, or holds no dictionary of tensors.
        UsageError: a file holds several dictionaries that may be the model's.
    """
    entries: dict[str, TensorEntry] = {}
    decisions: dict[Decision, None] = {}
    for number, file in enumerate(files):
        loaded, seen = _load(file)
        tensors, decision = _state_dict(file, loaded)
        if decision:
            decisions[decision] = None
        for name, tensor in tensors.items():
            if name in entries:
                raise CheckpointError(f"{file}: {name!r} is in another shard too")
            entries[name] = _entry(file, number, name, tensor, seen)
    return entries, tuple(decisions)


def _load(file: Path) -> tuple[Any, State]:
    """What `file` holds, and its state. Only tensors, numbers, strings and containers of them are ever loaded."""
    import torch

    try:
        with open(file, "rb") as head:
            seen = state_of(os.fstat(head.fileno()))
            is_zip = head.read(4) == b"PK\x03\x04"
        check_torch_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's warnings about old pickle protocols do not help our users
            loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
        check_unchanged(file, seen)
        return loaded, seen
    except CheckpointError:
        raise
    except UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        if not wanted:
            raise CheckpointError(f"{file}: not a PyTorch state dict ({_first_line(error)})") from error
        raise CheckpointError(
            f"{file}: refused: it asks for {wanted[1]} to be loaded, and only tensors are. Nothing in it was run",
            hint="If you trust where it came from, load it there and save model.state_dict() alone.",
        ) from error
    except Exception as error:  # for corrupt files, torch.load raises errors of many unrelated types
        raise CheckpointError(
            f"{file}: cannot be read as a PyTorch file ({type(error).__name__}: {_first_line(error)})",
            hint="The file is damaged or cut short: copy it again from where it came from.",
        ) from error


def _state_dict(file: Path, loaded: Any) -> tuple[dict[str, torch.Tensor], Decision | None]:
    """The model's dictionary of tensors: `loaded` itself, or the only one inside it."""
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{file}: holds a {type(loaded).__name__}, expected a dictionary of tensors")
    strange = next((name for name, value in loaded.items() if not _is_tensor(name, value)), None)
    if strange is None:
        return loaded, None
    inner = dict(_inside(loaded))
    if len(inner) > 1:
        listing = ", ".join(f"{key} ({len(tensors)} tensors)" for key, tensors in inner.items())
        first = "".join(f"[{part!r}]" for part in next(iter(inner)).split("."))
        raise UsageError(
            f"{file}: it holds {len(inner)} dictionaries of tensors: {listing}",
            hint="Save the one you mean by itself, in a folder with the config: "
            f"torch.save(torch.load({file.name!r}){first}, 'pytorch_model.bin')",
        )
    for key, tensors in inner.items():
        others = ", ".join(_shown(name) for name in loaded if name != key.split(".")[0])
        reason = f"the file is a training's; it also holds {others}" if others else "the file holds nothing else"
        return tensors, Decision("tensors read from", key, reason, Origin.FILE)
    raise CheckpointError(
        f"{file}: {_shown(strange)} is a {type(loaded[strange]).__name__}; expected a dictionary of tensors by name, "
        "alone or under one key",
        hint="Save the model's own state dict: torch.save(model.state_dict(), 'pytorch_model.bin').",
    )


def _inside(holder: dict[Any, Any], at: str = "", depth: int = 1) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """The dictionaries in `holder` that may be a model's, by their keys: only tensors, and at least one matrix."""
    for key, value in holder.items():
        if not isinstance(key, str) or not isinstance(value, dict) or _TRAINING.search(key):
            continue
        if value and all(_is_tensor(name, tensor) for name, tensor in value.items()):
            if any(tensor.dim() > 1 for tensor in value.values()):
                yield at + key, value
        elif depth < MAX_DEPTH:
            yield from _inside(value, f"{at}{key}.", depth + 1)


def _is_tensor(name: Any, value: Any) -> bool:
    import torch

    return isinstance(name, str) and isinstance(value, torch.Tensor)


def _shown(key: Any) -> str:
    """`key` for a message, cut short: sixty bytes of pickle can make a key whose text has megabytes."""
    return repr(key) if isinstance(key, str) else reprlib.repr(key)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no more is said").splitlines()[0]


def _entry(file: Path, number: int, name: str, tensor: torch.Tensor, seen: State) -> TensorEntry:
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise CheckpointError(f"{file}: {name!r} is not a plain dense tensor ({tensor.layout}, {tensor.device})")
    tensor = tensor.detach()
    try:
        if tensor.dtype == torch.bfloat16:
            array = tensor.view(torch.uint16).numpy().view(np.dtype("bfloat16"))
        else:
            array = tensor.numpy()
    except (TypeError, RuntimeError) as error:  # eight-bit floats, half complex, conjugates
        raise CheckpointError(f"{file}: {name!r} is of type {tensor.dtype}, which NumPy does not have") from error
    stream = partial(_stream, array, file, seen)
    position = (number, tensor.data_ptr())
    return TensorEntry(name, str(array.dtype), tuple(array.shape), array.nbytes, stream, position)


def _stream(array: np.ndarray, file: Path, seen: State, limit: int) -> Iterator[np.ndarray]:
    return unchanged(row_blocks(array, limit), file, seen)
