"""MindSpore checkpoints (.ckpt): protocol buffers, one after the other, read without MindSpore.

A file is a Checkpoint (value 1: a Value with tag 1 and tensor 2); a TensorProto has dims 1, tensor_type 2 and
tensor_content 3. A tensor of more than 512 MB stands in several values of one name, each with the whole shape and its
share of the bytes. Since 2.3 a checksum may follow. Sources: mindspore/ccsrc/utils/checkpoint.proto and
mindspore/train/serialization.py (_exec_save, _load_ckpt_into_param_dict) of 2.10.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..checkpoint import TensorEntry
from ..errors import CheckpointError
from ..files.state import State, check_unchanged, state_of
from .blocks import file_blocks, is_shape
from .protobuf import Data, FormatError, Span, Window, after_name, fields, size_of_shape, span

_DTYPES = {
    **{
        name.capitalize(): name for name in ("int8", "int16", "int32", "int64", "float16", "float32", "float64", "bool")
    },
    **{"UInt8": "uint8", "UInt16": "uint16", "UInt32": "uint32", "UInt64": "uint64", "BFloat16": "bfloat16"},
}
_CHECKSUM, _CHECKSUM_BYTES = b"crc_num", 10
_PIECE = 1 << 20
_HEAD = 1024


class _Value(NamedTuple):
    """A value of the file: a tensor, or a share of one."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    content: Span


def is_mindspore(file: Path) -> bool:
    """Whether `file` is such a checkpoint: it begins with a name, then a tensor's dims or its type."""
    with open(file, "rb") as source:
        return after_name(source.read(_HEAD))[:1] in (b"\x08", b"\x12")


def read_mindspore(file: Path) -> dict[str, TensorEntry]:
    """The tensors of `file` by name.

    Raises:
        CheckpointError: it is damaged, encrypted or no such checkpoint.
    """
    try:
        seen = state_of(file.stat())
        with open(file, "rb") as source:
            data = Window(source, seen[0])
            end = _checked(data)
            groups: dict[str, list[_Value]] = {}
            last = None
            for number, place in fields(data, 0, end):
                if number != 1:
                    raise FormatError(f"it has field {number}, which no checkpoint of MindSpore has")
                value = _value(data, span(place))
                if value.name in groups and value.name != last:
                    raise FormatError(f"it holds {value.name!r} twice")
                last = value.name
                groups.setdefault(last, []).append(value)
        entries = {name: _entry(file, seen, values) for name, values in groups.items()}
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error
    except (FormatError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{file}: not a sound checkpoint of MindSpore: {error}",
            hint="Copy the checkpoint again from where it came from; a download cut short is the usual cause.",
        ) from error
    check_unchanged(file, seen)
    return entries


def _checked(data: Data) -> int:
    """Where the values end. A checksum after them is compared."""
    end = len(data) - len(_CHECKSUM) - _CHECKSUM_BYTES
    if end < 0 or data[end : end + len(_CHECKSUM)] != _CHECKSUM:
        return len(data)
    stored, found = int.from_bytes(data[end + len(_CHECKSUM) : len(data)], "big"), 0
    for start in range(0, end, _PIECE):
        found = zlib.crc32(data[start : min(start + _PIECE, end)], found)
    if stored != found:
        raise FormatError(f"its checksum is {found:08x}, expected {stored:08x}")
    return end


def _value(data: Data, place: Span) -> _Value:
    content = dict(fields(data, *place))
    name = data[slice(*span(content.get(1, 0)))].decode("utf-8")
    if 2 not in content:
        raise FormatError(f"{name!r} is no tensor but a table of keys and values")
    dims, dtype, values = [], "", list[Span]()
    for number, value in fields(data, *span(content[2])):
        if number == 1 and isinstance(value, int):
            dims.append(size_of_shape(value))
        elif number == 2:
            dtype = data[slice(*span(value))].decode("utf-8")
        elif number == 3:
            values.append(span(value))
    if len(values) != 1:
        raise FormatError(f"{name!r} has {len(values)} contents")
    if not is_shape(dims):
        raise FormatError(f"{name!r} has a shape that no array has: {len(dims)} dimensions, the first {dims[:4]}")
    return _Value(name, dtype, tuple(dims), values[0])


def _entry(file: Path, seen: State, values: list[_Value]) -> TensorEntry:
    """The tensor that `values` make up."""
    name, stored, dims, (start, _) = values[0]
    if any((value.dtype, value.dims) != (stored, dims) for value in values):
        raise FormatError(f"the {len(values)} shares of {name!r} differ in their shape or type")
    nbytes = sum(end - begin for _, _, _, (begin, end) in values)
    dtype = _DTYPES.get(stored, f"MindSpore's {stored}")
    shape = () if dims == (0,) and nbytes else dims  # so older releases wrote the shape of a number
    if stored in _DTYPES and nbytes != prod(shape) * np.dtype(dtype).itemsize:
        raise FormatError(f"{name!r} of shape {shape} and {dtype} cannot have {nbytes:,} bytes")
    stream = partial(_stream, file, seen, values, dtype, shape)
    return TensorEntry(name, dtype, shape, nbytes, stream, (0, start))


def _stream(
    file: Path, seen: State, values: list[_Value], dtype: str, shape: tuple[int, ...], limit: int
) -> Iterator[np.ndarray]:
    if dtype not in _DTYPES.values():
        raise CheckpointError(f"{file}: {values[0].name!r} is of {dtype}, which holds no numbers")
    kind, shares = np.dtype(dtype), [value.content for value in values]
    if len(shares) == 1:
        yield from file_blocks(file, shares[0][0], kind, shape, limit, seen)
        return
    row, rest = max(1, prod(shape[1:]) * kind.itemsize), np.empty(0, np.uint8)
    for start, end in shares:  # a share may end inside of a row, even of a number
        for block in file_blocks(file, start, np.dtype(np.uint8), (end - start,), max(row, limit - row), seen):
            found = np.concatenate([rest, block])
            whole = len(found) // row * row if shape else 0
            rest = found[whole:].copy()
            if whole:
                yield found[:whole].view(kind).reshape(-1, *shape[1:])
    if not shape:
        yield rest.view(kind)[0]
