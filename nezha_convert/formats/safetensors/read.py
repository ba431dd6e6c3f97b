"""Safetensors files, single or sharded: validated by the safetensors library, read in blocks."""

from __future__ import annotations

import json
import os
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ...checkpoint import State, TensorEntry, check_unchanged, file_blocks, is_shape, state_of
from ...errors import CheckpointError

FORMAT = "safetensors"

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
"""The format's element types by NumPy's names, in the order in which its serializer places tensors."""


def read_safetensors(files: tuple[Path, ...]) -> dict[str, TensorEntry]:
    """The tensors of `files` by name.

    Raises:
        CheckpointError: a file is not a sound safetensors file, or two files hold the same name.
    """
    entries: dict[str, TensorEntry] = {}
    for number, file in enumerate(files):
        start, header, seen = _header(file)
        for name, info in header.items():
            if name in entries:
                raise CheckpointError(f"{file}: {name!r} stands in another shard too")
            if info["dtype"] not in DTYPES:
                raise CheckpointError(f"{file}: {name!r} is of type {info['dtype']}, which NumPy does not have")
            if not is_shape(info["shape"]):
                raise CheckpointError(f"{file}: {name!r} has a shape that no array has: {info['shape'][:8]}")
            dtype, shape = np.dtype(DTYPES[info["dtype"]]), tuple(info["shape"])
            offset = start + info["data_offsets"][0]
            stream = partial(file_blocks, file, offset, dtype, shape, seen=seen)
            entries[name] = TensorEntry(name, dtype.name, shape, prod(shape) * dtype.itemsize, stream, (number, offset))
    return entries


def _header(file: Path) -> tuple[int, dict[str, Any], State]:
    """Where the data begins, each tensor's type, shape and place in it, and the file's state at that."""
    try:
        with open(file, "rb") as data:
            seen = state_of(os.fstat(data.fileno()))
            with safe_open(file, framework="np"):  # checks every length and offset of the header against the file
                pass
            check_unchanged(file, seen)  # or else, of the bytes that are read below, nothing would be known
            size = int.from_bytes(data.read(8), "little")
            header: dict[str, Any] = json.loads(data.read(size))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file}: not a sound safetensors file ({error})",
            hint="The file is damaged or cut short: copy it again from where it came from.",
        ) from error
    header.pop("__metadata__", None)
    return 8 + size, header, seen
