"""Safetensors files, single or sharded.

They are validated by the safetensors library, read in blocks, and written as the library's own serializer writes them,
byte for byte: tensors ordered by alignment and name, compact JSON padded to eight bytes (safetensors/src/tensor.rs,
`prepare`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ..checkpoint import TensorEntry
from ..errors import CheckpointError
from ..files.state import State, check_unchanged, state_of
from .blocks import file_blocks, is_shape
from .tensor import Tensor, raw

DTYPES = {
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "F32": "float32",
    "U32": "uint32",
    "I32": "int32",
    "BF16": "bfloat16",
    "F16": "float16",
    "U16": "uint16",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""NumPy's name of each element type of the format, in the order in which the serializer places tensors."""

EXTRA = "extra.safetensors"
"""What a conversion keeps beside the model: tensors without a place in it, by the source's names."""

NAMES = {numpy_name: name for name, numpy_name in DTYPES.items()}
ORDER = {name: number for number, name in enumerate(NAMES)}
"""The place of each element type in that order, by NumPy's name."""


def read_safetensors(files: tuple[Path, ...]) -> dict[str, TensorEntry]:
    """The tensors of `files` by name.

    Raises:
        CheckpointError: a file is not a sound safetensors file, or two files hold the same name.
    """
    entries: dict[str, TensorEntry] = {}
    for number, file in enumerate(files):
        start, tensors, seen = _read_header(file)
        for name, info in tensors.items():
            if name in entries:
                raise CheckpointError(f"{file}: {name!r} is in another shard too")
            if info["dtype"] not in DTYPES:
                raise CheckpointError(f"{file}: {name!r} is of type {info['dtype']}, which NumPy does not have")
            if not is_shape(info["shape"]):
                raise CheckpointError(f"{file}: {name!r} has a shape that no array has: {info['shape'][:8]}")
            dtype, shape = np.dtype(DTYPES[info["dtype"]]), tuple(info["shape"])
            offset = start + info["data_offsets"][0]
            stream = partial(file_blocks, file, offset, dtype, shape, seen=seen)
            entries[name] = TensorEntry(name, dtype.name, shape, prod(shape) * dtype.itemsize, stream, (number, offset))
    return entries


def _read_header(file: Path) -> tuple[int, dict[str, Any], State]:
    """The offset of the data, the header's tensors by name, and the file's state when they were read."""
    try:
        with open(file, "rb") as data:
            seen = state_of(os.fstat(data.fileno()))
            with safe_open(file, framework="np"):  # checks every length and offset of the header against the file
                pass
            check_unchanged(file, seen)  # otherwise the library has checked other bytes than those read below
            size = int.from_bytes(data.read(8), "little")
            tensors: dict[str, Any] = json.loads(data.read(size))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file}: not a sound safetensors file ({error})",
            hint="The file is damaged or cut short: copy it again from where it came from.",
        ) from error
    tensors.pop("__metadata__", None)
    return 8 + size, tensors, seen


def write_safetensors(file: Path, tensors: Iterable[Tensor]) -> None:
    """Write `tensors` as `file`.

    Raises:
        KeyError: safetensors does not have the type of a tensor.
        OSError: the file cannot be written.
    """
    ordered = sorted(tensors, key=lambda tensor: (ORDER[tensor.dtype], tensor.name))
    with open(file, "wb") as out:
        out.write(header((tensor.name, tensor.dtype, tensor.shape) for tensor in ordered))
        for tensor in ordered:
            for block in tensor.blocks:
                out.write(raw(block))


def header(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> bytes:
    """The bytes before the data.

    Args:
        tensors: (name, NumPy's name of the type, shape), in the order of their data.
    """
    content: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape in tensors:
        start, end = end, end + prod(shape) * np.dtype(dtype).itemsize
        content[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
