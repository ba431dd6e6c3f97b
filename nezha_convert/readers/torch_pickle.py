"""PyTorch state dicts (.bin, .pt, .pth), zip or legacy, read by ``torch.load(weights_only=True)`` alone."""

from __future__ import annotations

import re
import warnings
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CheckpointError
from ..tensors import TensorEntry, row_blocks
from .torch_scan import check_torch_file

if TYPE_CHECKING:
    import torch

FORMAT = "torch"


def read_torch(files: tuple[Path, ...]) -> dict[str, TensorEntry]:
    """The tensors of `files` by name. A zip file is memory-mapped; a legacy one (torch < 1.6) is read whole.

    Raises:
        CheckpointError: a file is corrupt, asks for code to be run, or is not a flat dictionary of tensors.
    """
    entries: dict[str, TensorEntry] = {}
    for number, file in enumerate(files):
        for name, tensor in _state_dict(file).items():
            if name in entries:
                raise CheckpointError(f"{file}: {name!r} stands in another shard too")
            entries[name] = _entry(file, number, name, tensor)
    return entries


def _state_dict(file: Path) -> dict[str, torch.Tensor]:
    import torch

    try:
        with open(file, "rb") as head:
            is_zip = head.read(4) == b"PK\x03\x04"
        check_torch_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on old pickle protocols say nothing to our reader
            loaded: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
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
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{file}: holds a {type(loaded).__name__}, expected a dictionary of tensors")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{file}: {name!r} is a {type(value).__name__}; expected a flat dictionary of tensors by name",
                hint="Save the model's own state dict: torch.save(model.state_dict(), 'pytorch_model.bin').",
            )
    return loaded


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no more is said").splitlines()[0]


def _entry(file: Path, number: int, name: str, tensor: torch.Tensor) -> TensorEntry:
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
    stream = partial(row_blocks, array)
    position = (number, tensor.data_ptr())
    return TensorEntry(name, str(array.dtype), tuple(array.shape), array.nbytes, stream, position)
