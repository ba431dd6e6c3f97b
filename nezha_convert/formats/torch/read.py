"""PyTorch state dicts (.bin, .pt, .pth, .ckpt), zip or legacy, read only by ``torch.load(weights_only=True)``."""

from __future__ import annotations

import os
import re
import reprlib
import shlex
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np

from ...checkpoint import Decision, Origin, TensorEntry
from ...errors import CheckpointError, UsageError
from ...files.memory import need_addresses
from ...files.state import State, check_unchanged, state_of
from ..blocks import row_blocks, unchanged
from .scan import check_torch_file

if TYPE_CHECKING:
    import torch

LEAST_MEMORY = 768 << 20
"""Bytes of addresses below which the import of torch ends the process."""

MAX_DEPTH = 3
"""How deep in nested dictionaries the model's is searched for."""

_TRAINING = re.compile(r"optim|sched|scaler|rng|callback|loops", re.IGNORECASE)
"""Keys that hold tensors of the training, not the model."""


def read_torch(files: tuple[Path, ...]) -> tuple[dict[str, TensorEntry], tuple[Decision, ...]]:
    """The tensors of `files` by name, and a decision for each file that holds more than them: which part was read.

    A zip file is memory-mapped, unless something in it is compressed; a legacy file (torch < 1.6) is read into memory.

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
    need_addresses(LEAST_MEMORY, "PyTorch")
    import torch

    try:
        with open(file, "rb") as head:
            seen = state_of(os.fstat(head.fileno()))
        mappable = check_torch_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's warnings about old pickle protocols do not help our users
            loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=mappable)
        check_unchanged(file, seen)
        return loaded, seen
    except (CheckpointError, MemoryError):
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
        if "allocate memory" in str(error) or "mmap" in str(error):
            raise MemoryError(_first_line(error)) from error
        raise CheckpointError(
            f"{file}: cannot be read as a PyTorch file ({type(error).__name__}: {_first_line(error)})",
            hint="The file is damaged or cut short: copy it again from where it came from.",
        ) from error


def _state_dict(file: Path, loaded: Any) -> tuple[dict[str, torch.Tensor], Decision | None]:
    """The model's dictionary of tensors: `loaded` itself, or the only one inside it."""
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{file}: holds a {type(loaded).__name__}, expected a dictionary of tensors")
    items = dict.items(loaded)  # not loaded.items(): a pickle can give an OrderedDict an attribute of that name
    strange = next((name for name, value in items if not _is_tensor(name, value)), None)
    if strange is None:
        return dict(items), None
    models = list(_models(loaded))
    if not models:
        raise CheckpointError(
            f"{file}: {_shown(strange)} is a {type(loaded[strange]).__name__}; expected a dictionary of tensors by "
            "name, alone or under one key",
            hint="Save the model's own state dict: torch.save(model.state_dict(), 'pytorch_model.bin').",
        )
    if len(models) > 1:
        listing = ", ".join(
            f"{'.'.join(path) or 'at its top'} ({len(_tensors(held))} tensors)" for path, held in models
        )
        raise UsageError(
            f"{file}: it holds {len(models)} dictionaries of tensors: {listing}",
            hint=_save_one(file, next(path for path, _ in models if path)),
        )
    ((path, model),) = models
    beside = [name for name in dict.keys(loaded) if path and name != path[0]]
    others = ", ".join(
        map(_shown, [*beside, *(name for name, value in dict.items(model) if not _is_tensor(name, value))])
    )
    reason = f"the file is a training's; it also holds {others}" if others else "the file holds nothing else"
    return _tensors(model), Decision("tensors read from", ".".join(path) or "the top", reason, Origin.FILE)


def _models(holder: dict[Any, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[Any, Any]]]:
    """The dictionaries in `holder` that may be a model's, each with its keys: they hold a matrix by its name.

    Numbers and texts beside the tensors make no difference: an average may be free of them, and the model not. Beside
    a dictionary that may be the model's, a matrix alone is none.
    """
    inside = [
        found
        for key, value in dict.items(holder)
        if isinstance(key, str) and isinstance(value, dict) and len(path) < MAX_DEPTH and not _TRAINING.search(key)
        for found in _models(value, (*path, key))
    ]
    matrices = sum(tensor.ndim > 1 for tensor in _tensors(holder).values())
    if matrices > bool(inside):
        yield path, holder
    yield from inside


def _tensors(holder: dict[Any, Any]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in dict.items(holder) if _is_tensor(name, value)}


def _save_one(file: Path, path: tuple[str, ...]) -> str:
    """How to save the dictionary at `path` alone, and what to do with it."""
    target = file.with_name(f"{file.stem}-{re.sub(r'[^A-Za-z0-9_-]', '_', path[-1])}.bin")
    keys = "".join(f"[{part!r}]" for part in path)
    code = f"import torch; torch.save(torch.load({str(file)!r}){keys}, {str(target)!r})"
    quoted = shlex.quote(code) if set(code) & set('"$`\\!') else f'"{code}"'
    return f"Save the one you mean by itself, such as: python -c {quoted}, and name its file: {target}"


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

    tensor = torch.Tensor.detach(tensor)  # of the class: a pickle can give a tensor attributes that hide its methods
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise CheckpointError(f"{file}: {name!r} is not a plain dense tensor ({tensor.layout}, {tensor.device})")
    try:
        if tensor.dtype == torch.bfloat16:
            array = tensor.view(torch.uint16).numpy().view(np.dtype("bfloat16"))
        else:
            array = tensor.numpy()
    except (TypeError, RuntimeError) as error:  # eight-bit floats, half complex, conjugates
        raise CheckpointError(f"{file}: {name!r} is of type {tensor.dtype}, which NumPy does not have") from error
    except ValueError as error:
        raise CheckpointError(f"{file}: {name!r} has {tensor.ndim} dimensions, which no weight has") from error
    stream = partial(_stream, array, file, seen)
    position = (number, tensor.data_ptr())
    return TensorEntry(name, str(array.dtype), tuple(array.shape), array.nbytes, stream, position)


def _stream(array: np.ndarray, file: Path, seen: State, limit: int) -> Iterator[np.ndarray]:
    return unchanged(row_blocks(array, limit), file, seen)
