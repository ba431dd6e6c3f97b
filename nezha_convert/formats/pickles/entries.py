"""The tensors of a pickle, as a reader gives them: by their place in the file, and read when they are needed."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from ...checkpoint import TensorEntry
from ...errors import CheckpointError
from ...files.state import State, check_unchanged
from ..blocks import file_blocks, is_shape, row_blocks, rows_within
from .meanings import numpy_type
from .values import Array, ArrayType, Span, Storage

DAMAGED = "The file is damaged or cut short: copy it again from where it came from."


@dataclass(frozen=True, slots=True)
class Compressed:
    """Data that is compressed in the file: its length, and what gives all of it."""

    length: int
    read: Callable[[], bytes]


_WIDEST = {"": 1, "utf-8": 2, "quoted": 4, "escaped": 6}
"""How many bytes a byte may take, by the way in which it is stored."""

Place = Span | Compressed
"""Where the data of an array lies."""


def entry_of(file: Path, number: int, name: str, array: Array, places: Mapping[str, Place], seen: State) -> TensorEntry:
    """The entry of the tensor `name`.

    Args:
        number: of the file, for the order in which tensors are read.
        places: where each storage lies, by its key.
        seen: the file's state when it was opened.

    Raises:
        CheckpointError: the tensor does not lie inside of its data, or its type or shape is none of NumPy's.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise CheckpointError(f"{file}: {name!a:.200} is a name with half of a surrogate pair, which no file can have")
    kind, shape, data = array.type, array.shape, array.data
    if kind is None or data is None:
        raise CheckpointError(f"{file}: {name!r} is an array without data", hint=DAMAGED)
    dtype = _numpy_type(file, name, kind)
    if not is_shape(shape):
        raise CheckpointError(f"{file}: {name!r} has a shape that no array has: {len(shape)} dimensions {shape[:8]}")
    place = places[data.key] if isinstance(data, Storage) else data
    nbytes, strides = prod(shape) * dtype.itemsize, array.strides
    if strides is None or _in_order(shape, strides):
        end, strides = array.start * dtype.itemsize + nbytes, None
    else:
        end = dtype.itemsize * (array.start + 1 + sum((a - 1) * b for a, b in zip(shape, strides, strict=True)))
    # As text, a byte takes one byte or two, or up to six: the exact number is only known once the text is read.
    least, most = (nbytes, nbytes * _WIDEST[data.text]) if isinstance(data, Span) else (end, place.length)
    fits = least <= place.length <= most
    if not fits or nbytes > max(seen[0], place.length):
        raise CheckpointError(
            f"{file}: {name!r} has shape {list(shape)} of {dtype}, {nbytes:,} bytes from {array.start:,}; the file has "
            f"{place.length:,} for it",
            hint=DAMAGED,
        )
    start = array.start * dtype.itemsize
    blocks = _blocks(file, place, start, end - start, dtype, shape, strides, seen)
    stream = partial(_swapped, blocks) if kind.big_endian and dtype.itemsize > 1 else blocks
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


def _blocks(
    file: Path,
    place: Place,
    start: int,
    length: int,
    dtype: np.dtype,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    seen: State,
) -> Callable[[int], Iterator[np.ndarray]]:
    """The stream of a tensor whose elements lie in `length` bytes from `start` of `place`."""
    if isinstance(place, Compressed):

        def load() -> np.ndarray:
            check_unchanged(file, seen)
            return np.frombuffer(place.read(), np.uint8, length, start)

    elif place.text in ("quoted", "escaped"):

        def load() -> np.ndarray:
            data = text_bytes(file, place, seen)
            if len(data) != length:
                raise CheckpointError(f"{file}: the text of a tensor has another length than its shape", hint=DAMAGED)
            return np.frombuffer(data, np.uint8)

    elif place.text:
        plain = shape if strides is None else (prod(shape),)
        text = partial(_text_blocks, file, place, dtype, plain, seen=seen)
        if strides is None:
            return text

        def load() -> np.ndarray:
            return np.concatenate([block.view(np.uint8) for block in text(1 << 20)])

    elif strides is None:
        return partial(file_blocks, file, place.offset + start, dtype, shape, seen=seen)
    else:

        def load() -> np.ndarray:
            (whole,) = file_blocks(file, place.offset + start, np.dtype("uint8"), (1, length), 1, seen)
            return whole.reshape(-1)

    return partial(_gathered, load, dtype, shape, strides)


def text_bytes(file: Path, place: Span, seen: State) -> bytes:
    """The bytes that `file` has as text at `place`.

    Raises:
        CheckpointError: it is no text of bytes.
    """
    data = b"".join(map(bytes, file_blocks(file, place.offset, np.dtype("uint8"), (place.length,), 1 << 20, seen)))
    try:
        if place.text == "quoted":
            return codecs.escape_decode(data)[0]
        return data.decode("raw-unicode-escape" if place.text == "escaped" else "utf-8").encode("latin-1")
    except ValueError as error:
        raise CheckpointError(f"{file}: cannot be read ({error})", hint=DAMAGED) from error


def _gathered(
    load: Callable[[], np.ndarray],
    dtype: np.dtype,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    limit: int,
) -> Iterator[np.ndarray]:
    """The rows of a tensor whose elements are spread over memory: a transposed one, or each second row of another."""
    flat = load().view(dtype)
    steps = None if strides is None else [stride * dtype.itemsize for stride in strides]
    array = flat.reshape(shape) if steps is None else np.lib.stride_tricks.as_strided(flat, shape, steps)
    yield from row_blocks(array, limit)


def _swapped(stream: Callable[[int], Iterator[np.ndarray]], limit: int) -> Iterator[np.ndarray]:
    """The blocks of `stream` with the bytes of each element the other way round."""
    for block in stream(limit):
        values = np.asarray(block)
        width = values.itemsize // (1 + (values.dtype.kind == "c"))  # of each part of a complex number
        yield np.ascontiguousarray(values).view(f"u{width}").byteswap().view(values.dtype).reshape(values.shape)


def _text_blocks(
    file: Path, data: Span, dtype: np.dtype, shape: tuple[int, ...], limit: int, seen: State
) -> Iterator[np.ndarray]:
    """Like `file_blocks`, for data that protocol 2 has written as text.

    Raises:
        CheckpointError: the file cannot be read, or the text is not that of the tensor's bytes.
    """
    left = nbytes = prod(shape) * dtype.itemsize
    size = rows_within(shape, dtype.itemsize, limit) * (nbytes // max(1, shape[0])) if shape else nbytes
    decoder = codecs.getincrementaldecoder("utf-8")()
    ready = bytearray()
    try:
        for part in file_blocks(file, data.offset, np.dtype("uint8"), (data.length,), max(1, min(size, nbytes)), seen):
            ready += decoder.decode(part.tobytes()).encode("latin-1")
            while left and len(ready) >= min(size, left):
                block = np.frombuffer(bytes(ready[: min(size, left)]), dtype)
                del ready[: block.nbytes]
                left -= block.nbytes
                yield block.reshape(-1, *shape[1:]) if shape else block[0]
        decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise CheckpointError(f"{file}: cannot be read ({error})", hint=DAMAGED) from error
    if left or ready:
        raise CheckpointError(f"{file}: the text of a tensor has another length than its shape", hint=DAMAGED)
