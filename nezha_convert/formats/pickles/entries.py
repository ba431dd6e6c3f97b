"""The tensors of a pickle, as a reader gives them: by their place in the file, and read when they are needed."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from ...checkpoint import TensorEntry
from ...errors import CheckpointError
from ...files.state import State, check_unchanged
from ..blocks import file_blocks, is_shape, row_blocks, rows_within
from .meanings import numpy_type
from .values import Array, ArrayType, Compressed, Place, Span, Storage

DAMAGED = "The file is damaged or cut short: copy it again from where it came from."

_WIDEST = {"": 1, "utf-8": 2, "quoted": 4, "escaped": 6}
"""How many bytes a byte may take, by the way in which it is stored."""

_BYTES = np.dtype("uint8")
_CHUNK = 1 << 20


def entry_of(file: Path, number: int, name: str, array: Array, seen: State) -> TensorEntry:
    """The entry of the tensor `name`.

    Args:
        number: of the file, for the order in which tensors are read.
        seen: the file's state when it was opened.

    Raises:
        CheckpointError: the tensor does not lie inside of its data, or its type or shape is none of NumPy's.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise CheckpointError(f"{file}: {name!a:.200} is a name with half of a surrogate pair, which no file can have")
    kind, shape, data = array.type, array.shape, array.data
    place = data.place if isinstance(data, Storage) else data
    if kind is None or place is None:
        raise CheckpointError(f"{file}: {name!r} is an array without data", hint=DAMAGED)
    dtype = _numpy_type(file, name, kind)
    if not is_shape(shape):
        raise CheckpointError(f"{file}: {name!r} has a shape that no array has: {len(shape)} dimensions {shape[:8]}")
    start, nbytes, strides = array.start * dtype.itemsize, prod(shape) * dtype.itemsize, array.strides
    if strides is None or _in_order(shape, strides):
        length, strides = nbytes, None
    else:
        length = dtype.itemsize * (1 + sum((size - 1) * step for size, step in zip(shape, strides, strict=True)))
    # As text, a byte takes one byte or two, or up to six: the exact number is only known once the text is read.
    least, most = (nbytes, nbytes * _WIDEST[data.text]) if isinstance(data, Span) else (start + length, place.length)
    if not least <= place.length <= most or nbytes > max(seen[0], place.length):
        raise CheckpointError(
            f"{file}: {name!r} has shape {list(shape)} of {dtype}, {nbytes:,} bytes from {start:,}; the file has "
            f"{place.length:,} for it",
            hint=DAMAGED,
        )
    stream: Callable[[int], Iterator[np.ndarray]]
    chunks = partial(_chunks, file, place, start, length, seen)
    if strides is not None:
        stream = partial(_gathered, chunks, dtype, shape, strides)
    elif isinstance(place, Span) and not place.text:
        stream = partial(file_blocks, file, place.offset + start, dtype, shape, seen=seen)
    else:
        stream = partial(_rows, chunks, dtype, shape)
    stream = partial(_swapped, stream) if kind.big_endian and dtype.itemsize > 1 else stream
    offset = place.offset + start if isinstance(place, Span) else start
    return TensorEntry(name, dtype.name, shape, nbytes, stream, (number, offset))


def _numpy_type(file: Path, name: str, kind: ArrayType) -> np.dtype:
    """NumPy's type. Those of ml_dtypes (bfloat16, eight-bit floats) are NumPy's too once that library is loaded."""
    dtype = numpy_type(kind.name)
    if dtype is None:
        raise CheckpointError(f"{file}: {name!r} is of type {kind.name:.100}, which NumPy does not have")
    if dtype.name != kind.name or dtype.kind not in "biufcV" or not dtype.itemsize:  # texts, objects, records
        raise CheckpointError(f"{file}: {name!r} is of type {kind.name:.100}, which holds no numbers")
    return dtype


def _in_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the elements lie one after the other in the order of C."""
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != step and 0 not in shape:
            return False
        step *= size
    return True


_Chunks = Callable[[int], Iterator[bytes | memoryview]]
"""Gives the bytes of a tensor in pieces of about as many as it is asked for."""


def _chunks(file: Path, place: Place, start: int, length: int, seen: State, limit: int) -> Iterator[bytes | memoryview]:
    """The `length` bytes from `start` of `place`. A text has those of one tensor."""
    parts: Iterator[bytes | memoryview]
    if isinstance(place, Compressed):
        check_unchanged(file, seen)
        whole = memoryview(place.read())[start : start + length]
        parts = (whole[at : at + limit] for at in range(0, length, limit))
    elif place.text:
        parts = decoded(file, place, seen, limit)
    else:
        parts = map(bytes, file_blocks(file, place.offset + start, _BYTES, (length,), limit, seen))
    left = length
    for part in parts:
        left -= len(part)
        if left < 0:
            break
        yield part
    if left:
        raise CheckpointError(f"{file}: the data of a tensor have another length than its shape", hint=DAMAGED)


def decoded(file: Path, place: Span, seen: State, limit: int = _CHUNK) -> Iterator[bytes]:
    """The bytes that `file` has as text at `place`, in the pieces in which it is read.

    Raises:
        CheckpointError: the file cannot be read, or it is no text of bytes.
    """
    parts = map(bytes, file_blocks(file, place.offset, _BYTES, (place.length,), limit, seen))
    try:
        if place.text == "quoted":
            yield codecs.escape_decode(b"".join(parts))[0]
            return
        decoder = codecs.getincrementaldecoder("raw-unicode-escape" if place.text == "escaped" else "utf-8")()
        for part in parts:
            yield decoder.decode(part).encode("latin-1")
        decoder.decode(b"", final=True)
    except ValueError as error:
        raise CheckpointError(f"{file}: cannot be read ({error})", hint=DAMAGED) from error


def _rows(chunks: _Chunks, dtype: np.dtype, shape: tuple[int, ...], limit: int) -> Iterator[np.ndarray]:
    """Like `file_blocks`, for what does not lie in the file as it is."""
    left = nbytes = prod(shape) * dtype.itemsize
    size = rows_within(shape, dtype.itemsize, limit) * (nbytes // max(1, shape[0])) if shape else nbytes
    ready = bytearray()
    for part in chunks(max(1, min(size, nbytes))):
        ready += part
        while left and len(ready) >= min(size, left):
            block = np.frombuffer(bytes(ready[: min(size, left)]), dtype)
            del ready[: block.nbytes]
            left -= block.nbytes
            yield block.reshape(-1, *shape[1:]) if shape else block[0]


def _gathered(
    chunks: _Chunks, dtype: np.dtype, shape: tuple[int, ...], strides: tuple[int, ...], limit: int
) -> Iterator[np.ndarray]:
    """The rows of a tensor whose elements are spread over memory: a transposed one, or each second row of another."""
    flat = np.frombuffer(b"".join(chunks(_CHUNK)), dtype)
    array = np.lib.stride_tricks.as_strided(flat, shape, [step * dtype.itemsize for step in strides])
    yield from row_blocks(array, limit)


def _swapped(stream: Callable[[int], Iterator[np.ndarray]], limit: int) -> Iterator[np.ndarray]:
    """The blocks of `stream` with the bytes of each element the other way round."""
    for block in stream(limit):
        values = np.asarray(block)
        width = values.itemsize // (1 + (values.dtype.kind == "c"))  # of each part of a complex number
        yield np.ascontiguousarray(values).view(f"u{width}").byteswap().view(values.dtype).reshape(values.shape)
