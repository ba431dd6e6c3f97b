"""Snappy's raw format, unpacked (github.com/google/snappy, format_description.txt)."""

from __future__ import annotations

from ..protobuf import FormatError, varint

_MOST = 22
"""Bytes that one byte can stand for, at most: a copy of 64 bytes takes three."""


def decompressed(data: bytes) -> bytes:
    """The bytes that `data` stands for. Memory is taken in proportion to `data` alone."""
    size, position = varint(data, 0, len(data))
    if size > _MOST * len(data):
        raise FormatError(f"a packed block of {len(data):,} bytes claims to hold {size:,}")
    out = bytearray()
    while position < len(data):
        tag = data[position]
        length, extra, back = _element(data, tag, position + 1)
        position += 1 + extra
        if tag & 3 == 0:
            piece = data[position : position + length]
            position += length
        elif 0 < back <= len(out):
            piece = bytes(out[len(out) - back : len(out) - back + length])
            piece = (piece * (length // len(piece) + 1))[:length]  # it may go on into what it has just written
        else:
            raise FormatError("a packed block copies from before its beginning")
        out += piece
        if len(piece) < length or len(out) > size:
            raise FormatError("a packed block holds more or less than it claims")
    if len(out) != size:
        raise FormatError(f"a packed block holds {len(out):,} bytes and claims {size:,}")
    return bytes(out)


def _element(data: bytes, tag: int, position: int) -> tuple[int, int, int]:
    """An element's length, the bytes of its head after the tag, and how far back it copies."""
    if tag & 3 == 0:
        length, extra = tag >> 2, max(0, (tag >> 2) - 59)
        return (int.from_bytes(data[position : position + extra], "little") if extra else length) + 1, extra, 0
    if tag & 3 == 1:
        near = data[position] if position < len(data) else 0
        return (tag >> 2 & 7) + 4, 1, tag >> 5 << 8 | near
    extra = 2 if tag & 3 == 2 else 4
    return (tag >> 2) + 1, extra, int.from_bytes(data[position : position + extra], "little")
