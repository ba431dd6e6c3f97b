"""SSTables in LevelDB's layout, in which both of TensorFlow's formats keep records by key.

Source: tensorflow/core/lib/io/format.cc and block.cc. Every length is checked against the file before it is used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import google_crc32c

from ..protobuf import Data, FormatError, Span, varint
from .snappy import decompressed

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
_TRAILER_BYTES = 5  # after every block: one byte of compression, four of checksum
_PIECE = 1 << 20


class Block(NamedTuple):
    """A block by its place, and its separator: no key of the block is above it, and every later key is."""

    separator: bytes
    offset: int
    size: int


def masked(crc: int) -> int:
    """`crc` as LevelDB stores it beside the data that it covers: rotated and offset."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def blocks_of(data: Data) -> Iterator[Block]:
    """The blocks of a table, in their order, which the caller checks."""
    if len(data) < FOOTER_BYTES:
        raise FormatError(f"it has {len(data)} bytes, fewer than the footer's {FOOTER_BYTES}")
    footer = data[len(data) - FOOTER_BYTES : len(data)]
    magic = struct.unpack("<Q", footer[-8:])[0]
    if magic != MAGIC:
        raise FormatError(f"the footer's magic number is {magic:016x}, expected {MAGIC:016x}")
    *metaindex, position = _handle(footer, 0)
    offset, size, position = _handle(footer, position)
    if any(records(*opened(data, *metaindex))) or any(footer[position:-8]):
        raise FormatError("it holds more than a table of TensorFlow's does")
    contents, *place = opened(data, offset, size)
    for separator, value in records(contents, *place):
        yield Block(separator, *_handle(contents[slice(*value)], 0)[:2])


def opened(data: Data, offset: int, size: int) -> tuple[Data, int, int]:
    """Bytes that hold the block at `offset`, unpacked, and where it begins and ends in them.

    Its checksum is compared. Only a block that is packed, or an index, is held in memory.
    """
    end = offset + size
    if end + _TRAILER_BYTES > len(data) - FOOTER_BYTES or size < 4:
        raise FormatError(f"a block of {size:,} bytes at {offset:,} does not fit into the file's {len(data):,}")
    found = 0
    for start in range(offset, end + 1, _PIECE):
        found = google_crc32c.extend(found, data[start : min(start + _PIECE, end + 1)])
    packing, crc = struct.unpack("<BI", data[end : end + _TRAILER_BYTES])
    if crc != masked(found):
        raise FormatError(f"the block at {offset:,} has checksum {masked(found):08x}, expected {crc:08x}")
    if packing == 0:
        return data, offset, end
    if packing != 1:
        raise FormatError(f"the block at {offset:,} is compressed (type {packing}), which TensorFlow never writes here")
    unpacked = decompressed(data[offset:end])
    return unpacked, 0, len(unpacked)


def records(data: Data, start: int, end: int) -> Iterator[tuple[bytes, Span]]:
    """The keys of the block that lies from `start` to `end` of `data`, and where their values lie."""
    if end - start < 4:
        raise FormatError(f"a block has {end - start} bytes")
    count = struct.unpack("<I", data[end - 4 : end])[0]
    limit = end - 4 - 4 * count
    if limit < start or not count:
        raise FormatError(f"the block at {start:,} claims {count:,} restarts")
    restarts = struct.unpack(f"<{count}I", data[limit : end - 4])
    whole_keys = {0}  # where records begin that store their whole key
    position, key = start, b""
    while position < limit:
        record = position - start
        shared, position = varint(data, position, limit)
        if not shared:
            whole_keys.add(record)
        unshared, position = varint(data, position, limit)
        length, position = varint(data, position, limit)
        if shared > len(key) or position + unshared + length > limit:
            raise FormatError(f"a record in the block at {start:,} reaches past its end")
        key = key[:shared] + data[position : position + unshared]
        position += unshared
        yield key, (position, position + length)
        position += length
    if restarts[0] or list(restarts) != sorted(whole_keys.intersection(restarts)):  # TensorFlow looks names up by them
        raise FormatError(f"the restarts of the block at {start:,} are not where its records begin")


def _handle(data: bytes, position: int) -> tuple[int, int, int]:
    """A block's offset and size, and the position after them."""
    offset, position = varint(data, position, len(data))
    size, position = varint(data, position, len(data))
    return offset, size, position


def slice_key(name: str, extents: tuple[tuple[int, int], ...]) -> bytes:
    """The key of a part of a tensor (tensorflow/core/util/saved_tensor_slice_util.cc): its name, and for each dimension
    where it begins and its length, -1 for all of it; in a code whose order is that of the numbers."""
    escaped = name.encode().replace(b"\xff", b"\xff\x00").replace(b"\x00", b"\x00\xff")
    return (
        b"\0" + escaped + b"\x00\x01" + _unsigned(len(extents)) + b"".join(_signed(n) for one in extents for n in one)
    )


def _unsigned(value: int) -> bytes:
    digits = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(digits)]) + digits


def _signed(value: int) -> bytes:
    """Seven bits a byte, high bits first; as many high bits as there are bytes are turned over."""
    size = (~value if value < 0 else value).bit_length() // 7 + 1
    marks = ((1 << size) - 1) << (8 * size - size)
    return ((value & (1 << 8 * size) - 1) ^ marks).to_bytes(size, "big")
