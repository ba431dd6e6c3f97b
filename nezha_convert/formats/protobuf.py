"""Protocol buffer messages, read field by field: what the formats of TensorFlow and MindSpore have in common.

A message is a range of some bytes, which may lie in memory or in a file (`Window`), so the values of a large one need
not be read to find where they are. Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Protocol

Span = tuple[int, int]
"""Where a field's bytes begin and end."""


class FormatError(ValueError):
    """The bytes break the format. The caller adds the name of the file to the message."""


class Data(Protocol):
    """Bytes that a slice reads, as of `bytes`."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


class Window:
    """The bytes of a file, read where they are looked at. It reads ahead, because fields are short."""

    _AHEAD = 4096

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._start, self._ahead = 0, b""

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        start, stop = part.start, min(part.stop, self._size)
        if not (self._start <= start and stop <= self._start + len(self._ahead)):
            self._file.seek(start)
            self._start, self._ahead = start, self._file.read(max(stop - start, min(self._AHEAD, self._size - start)))
        found = self._ahead[start - self._start : stop - self._start]
        if len(found) < stop - start:
            raise FormatError("the file became shorter while it was read")
        return found


def varint(data: Data, position: int, end: int) -> Span:
    """A base-128 number at `position`, and the position after it."""
    value = 0
    for shift, byte in enumerate(data[position : min(position + 10, end)]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            if value >> 64 or (shift and not byte):  # no writer ends a number with a zero byte
                break
            return value, position + shift + 1
    raise FormatError("a variable-length number is cut short or too long")


def fields(data: Data, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int | Span]]:
    """The (field number, value) pairs of a message; a number, or where the bytes of a field lie that has a length."""
    position, end = start, len(data) if end is None else end
    while position < end:
        tag, position = varint(data, position, end)
        wire = tag & 7
        if wire == 0:
            value, position = varint(data, position, end)
            yield tag >> 3, value
            continue
        if wire == 2:
            size, position = varint(data, position, end)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise FormatError(f"a protocol buffer field has wire type {wire}")
        if position + size > end:
            raise FormatError("a protocol buffer field reaches past the record's end")
        place = (position, position + size)
        yield tag >> 3, place if wire == 2 else int.from_bytes(data[slice(*place)], "little")
        position += size


def after_name(head: bytes) -> bytes:
    """What a record holds after its name, of a file that begins with a record that begins with a name; else nothing.

    The record is field 1 of the file, the name field 1 of the record, and what follows field 2: so are the constants of
    a frozen graph (name, operation), and a checkpoint of MindSpore (name, tensor).
    """
    try:
        size, start = varint(head, 1, len(head))
        length, name = varint(head, start + 1, len(head))
        rest = name + length
        _, after = varint(head, rest + 1, len(head))
    except FormatError:
        return b""
    marks = head[:1] + head[start : start + 1] + head[rest : rest + 1]
    return head[after:] if marks == b"\n\n\x12" and rest - start < size else b""


def span(value: int | Span) -> Span:
    """`value`, where a field has a length."""
    if isinstance(value, int):
        raise FormatError("a number stands where a message is expected")
    return value


def size_of_shape(value: int) -> int:
    """`value`, where it can be the size of a dimension: an int64 that is not negative."""
    if value >> 63:
        raise FormatError(f"a dimension of size {value - (1 << 64)}")
    return value
