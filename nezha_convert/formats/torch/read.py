"""PyTorch state dicts (.bin, .pt, .pth, .ckpt), zip or legacy, read by ``torch.load(weights_only=True)`` alone."""

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

from ...checkpoint import Decision, Origin, State, TensorEntry, check_unchanged, row_blocks, state_of, unchanged
from ...errors import CheckpointError, UsageError
from .scan import check_torch_file

if TYPE_CHECKING:
    import torch

FORMAT = "torch"

MAX_DEPTH = 3
"""Dictionaries inside of one another in which a model's is looked for."""

_TRAINING = re.compile(r"optim|sched|scaler|rng|callback|loops", re.IGNORECASE)
"""Keys beside a model's that hold tensors of the training."""


def read_torch(files: tuple[Path, ...]) -> tuple[dict[str, TensorEntry], tuple[Decision, ...]]:
    """The tensors of `files` by name, and which part of a file they are where it holds more than them.

    A zip file is memory-mapped; a legacy one (torch < 1.6) is read whole.

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
                raise CheckpointError(f"{file}: {name!r} stands in another shard too")
            entries[name] = _entry(file, number, name, tensor, seen)
    return entries, tuple(decisions)


def _load(file: Path) -> tuple[Any, State]:
    """What `file` holds: tensors, numbers, strings and containers of them, nothing else is ever loaded; its state."""
    import torch

    try:
        with open(file, "rb") as head:
            seen = state_of(os.fstat(head.fileno()))
            is_zip = head.read(4) == b"PK\x03\x04"
        check_torch_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on old pickle protocols say nothing to our reader
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
    except Exception as error:  # torch.load answers corrupt bytes with errors of many unrelated types
        raise CheckpointError(
            f"{file}: cannot be read as a PyTorch file ({type(error).__name__}: {_first_line(error)})",
            hint="The file is damaged or cut short: copy it again from where it came from.",
        ) from error


def _state_dict(file: Path, loaded: Any) -> tuple[dict[str, torch.Tensor], Decision | None]:
    """The model's dictionary of tensors in `loaded`: itself, or the only one inside of it."""
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{file}: holds a {type(loaded).__name__}, expected a dictionary of tensors")
    strange = next((name for name, value in loaded.items() if not _is_tensor(name, value)), None)
    if strange is None:
        return loaded, None
    found = dict(_inside(loaded))
    if len(found) > 1:
        listing = ", ".join(f"{key} ({len(tensors)} tensors)" for key, tensors in found.items())
        first = "".join(f"[{part!r}]" for part in next(iter(found)).split("."))
        raise UsageError(
            f"{file}: it holds {len(found)} dictionaries of tensors: {listing}",
            hint="Save the one you mean by itself, in a folder with the config: "
            f"torch.save(torch.load({file.name!r}){first}, 'pytorch_model.bin')",
        )
    for key, tensors in found.items():
        others = ", ".join(_shown(name) for name in loaded if name != key.split(".")[0])
        reason = f"the file is a training's; it also holds {others}" if others else "the file holds nothing else"
        return tensors, Decision("tensors read from", key, reason, Origin.FILE)
    raise CheckpointError(
        f"{file}: {_shown(strange)} is a {type(loaded[strange]).__name__}; expected a dictionary of tensors by name, "
        "alone or under one key",
        hint="Save the model's own state dict: torch.save(model.state_dict(), 'pytorch_model.bin').",
    )


def _inside(holder: dict[Any, Any], at: str = "", depth: int = 1) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """The dictionaries in `holder` that may be a model's, by their keys: of tensors alone, one of them a matrix."""
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
    """`key` for a message: sixty bytes of pickle make a key of tuples whose whole text has megabytes."""
    return repr(key) if isinstance(key, str) else reprlib.repr(key)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no more is said").splitlines()[0]


def _entry(file: Path, number: int, name: str, tensor: torch.Tensor, seen: State) -> TensorEntry:
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise CheckpointError(f"{file}: {name!r} is no plain dense tensor ({tensor.layout}, {tensor.device})")
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
