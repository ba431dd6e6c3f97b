"""Checkpoints of TensorFlow's first format for tests, and snappy's packing: written from the formats, apart from the
readers."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import bundles
import google_crc32c
import numpy as np
from bundles import Block, masked, message, number, varint

from nezha_convert.formats.tf_bundle.table import slice_key
from nezha_convert.parity.again.table import read_records

KINDS = {
    **{"float32": (1, 5), "float64": (2, 6), "int32": (3, 7), "uint8": (4, 7), "int16": (5, 7), "int8": (6, 7)},
    **{"int64": (9, 10), "bool": (10, 11), "bfloat16": (14, 13), "uint16": (17, 7), "float16": (19, 13)},
}
"""By NumPy's type: TensorFlow's number of it, and the field of a TensorProto that holds its values."""


def v1_table(
    arrays: Mapping[str, np.ndarray],
    *,
    snappy: bool = False,
    block_bytes: int = 200,
    cuts: Mapping[str, list[tuple[int, int]]] | None = None,
    boxes: Mapping[str, list[tuple[tuple[int, int], ...]]] | None = None,
    **change,
) -> bytes:
    """A file of `arrays`.

    Args:
        snappy: pack the blocks.
        cuts: the parts of some tensors along their first dimension: (start, length).
        boxes: those parts of some tensors that the file has: (start, length) of each dimension.
        change: what is wrong with what is listed (shape, kind), or with the key of each record (key).
    """
    listed, records = b"", {}
    for name, array in arrays.items():
        extents = [((0, -1),) * array.ndim]
        if name in (cuts or {}):
            extents = [((start, length), *((0, -1),) * (array.ndim - 1)) for start, length in cuts[name]]
        extents = (boxes or {}).get(name, extents)
        slices = b"".join(message(4, _slice(one)) for one in extents)
        kind = change.get("kind", KINDS[str(array.dtype)][0])
        shape = message(2, _shape(change.get("shape", array.shape)))
        listed += message(1, message(1, name.encode()) + shape + number(3, kind) + slices)
        for one in extents:
            part = array[tuple(slice(start, start + n if n >= 0 else None) for start, n in one)]
            record = message(2, message(1, name.encode()) + message(2, _slice(one)) + message(3, _tensor(part)))
            records[change.get("key", slice_key(name, one))] = record
    return table({b"": message(1, listed), **records}, snappy, block_bytes)


def _shape(sizes: tuple[int, ...]) -> bytes:
    return b"".join(message(2, number(1, size)) for size in sizes)


def _slice(extents) -> bytes:
    return b"".join(
        message(1, number(1, start) + (varint(2 << 3) + varint(length) if length >= 0 else b""))
        for start, length in extents
    )


def _tensor(array: np.ndarray) -> bytes:
    """A TensorProto with its values in the field of their type, as the writer fills it."""
    kind, field = KINDS[str(array.dtype)]
    if field in (5, 6):
        values = array.tobytes()
    elif field == 13:
        values = b"".join(varint(int(bits)) for bits in array.reshape(-1).view("uint16"))
    else:
        values = b"".join(varint(int(value) % 2**64) for value in array.reshape(-1))
    return number(1, kind) + message(2, _shape(array.shape)) + (message(field, values) if values else b"")


def table(records: Mapping[bytes, bytes], snappy: bool, block_bytes: int) -> bytes:
    """An SSTable, each block packed if `snappy`."""
    out, index, block = bytearray(), Block(1), Block()
    for key, value in sorted(records.items()):
        block.add(key, value)
        last = key
        if len(block) >= block_bytes:
            index.add(last, _append(out, bytes(block), snappy))
            block = Block()
    if len(block) > 8:
        index.add(last, _append(out, bytes(block), snappy))
    return bundles.finished(out, bytes(index))


def _append(out: bytearray, data: bytes, snappy: bool) -> bytes:
    data = packed(data) if snappy else data
    handle = varint(len(out)) + varint(len(data))
    data += bytes([snappy])
    out += data + struct.pack("<I", masked(google_crc32c.value(data)))
    return handle


def packed(data: bytes) -> bytes:
    """`data` in snappy's format: what stands in the last 2,000 bytes is copied, in each of the ways to say it."""
    out, start, literal = bytearray(varint(len(data))), 0, bytearray()
    while start < len(data):
        length = next(n for n in range(min(64, len(data) - start), -1, -1) if n < 4 or _found(data, start, n))
        back = start - data.rfind(data[start : start + length], max(0, start - 2000), start + length - 1)
        if length >= 4:
            out += _literal(literal)
            literal.clear()
            if length < 12:
                out += bytes([1 | length - 4 << 2 | back >> 8 << 5, back & 0xFF])
            elif length % 2:
                out += bytes([2 | length - 1 << 2]) + back.to_bytes(2, "little")
            else:
                out += bytes([3 | length - 1 << 2]) + back.to_bytes(4, "little")
            start += length
        else:
            literal.append(data[start])
            start += 1
    return bytes(out + _literal(literal))


def _found(data: bytes, start: int, length: int) -> bool:
    return data.rfind(data[start : start + length], max(0, start - 2000), start + length - 1) >= 0


def _literal(data: bytearray) -> bytes:
    if not data:
        return b""
    size = len(data) - 1
    if size < 60:
        return bytes([size << 2]) + bytes(data)
    extra = size.to_bytes((size.bit_length() + 7) // 8, "little")
    return bytes([59 + len(extra) << 2]) + extra + bytes(data)


def slices_of(file: Path) -> set[bytes]:
    """The keys of a table."""
    return set(read_records(file.read_bytes()))
