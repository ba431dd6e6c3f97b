"""Safetensors files, single or sharded, read through the safetensors library (memory-mapped, validated)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError
from ..tensors import TensorEntry, rows_within

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
        with _opened(file) as data:
            for offset, name in enumerate(data.offset_keys()):
                if name in entries:
                    raise CheckpointError(f"{file}: {name!r} stands in another shard too")
                part = data.get_slice(name)
                shape, dtype = tuple(part.get_shape()), DTYPES.get(part.get_dtype(), part.get_dtype())
                itemsize = np.dtype(dtype).itemsize if part.get_dtype() in DTYPES else 1
                stream = partial(_stream, file, name, shape, itemsize)
                entries[name] = TensorEntry(name, dtype, shape, prod(shape) * itemsize, stream, (number, offset))
    return entries


def _stream(file: Path, name: str, shape: tuple[int, ...], itemsize: int, limit: int) -> Iterator[np.ndarray]:
    with _opened(file) as data:
        if not shape:
            yield data.get_tensor(name)
            return
        part = data.get_slice(name)
        if part.get_dtype() not in DTYPES:
            raise CheckpointError(f"{file}: {name!r} is of type {part.get_dtype()}, which NumPy does not have")
        rows = rows_within(shape, itemsize, limit)
        for start in range(0, shape[0], rows):
            yield part[start : min(start + rows, shape[0])]


def _opened(file: Path) -> Any:
    with ExitStack() as stack:
        try:
            data = stack.enter_context(safe_open(file, framework="np"))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{file}: not a sound safetensors file ({error})",
                hint="The file is damaged or cut short: copy it again from where it came from.",
            ) from error
        stack.pop_all()
        return data
