"""TensorFlow V2 bundles, written for tests and benchmarks: what the reader reads, from the other side."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import google_crc32c
import numpy as np

MAGIC = 0xDB4775248B80FB57
DTYPES = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "int64": 9,
    "bool": 10,
    "bfloat16": 14,
    "uint16": 17,
    "float16": 19,
    "uint32": 22,
    "uint64": 23,
}
RESTART_INTERVAL = 16
BLOCK_BYTES = 4096


def write_bundle(
    prefix: Path, tensors: Iterable[tuple[str, np.ndarray]], shards: int = 1, block_bytes: int = BLOCK_BYTES
) -> None:
    """Write `tensors`, given in any order, as PREFIX.index and PREFIX.data-*; tensors go to shards in turn."""
    entries: dict[str, bytes] = {}
    files = [Path(f"{prefix}.data-{i:05d}-of-{shards:05d}").open("wb") for i in range(shards)]  # noqa: SIM115
    for number, (name, array) in enumerate(tensors):
        file = files[number % shards]
        data = np.ascontiguousarray(array).tobytes()
        entries[name] = entry(
            DTYPES[str(array.dtype)],
            array.shape,
            number % shards,
            file.tell(),
            len(data),
            masked(google_crc32c.value(data)),
        )
        file.write(data)
    for file in files:
        file.close()
    Path(f"{prefix}.index").write_bytes(table({"": header(shards), **entries}, block_bytes))


def header(shards: int = 1, endianness: int = 0) -> bytes:
    """BundleHeaderProto."""
    return _number(1, shards) + _number(2, endianness) + _message(3, _number(1, 1))


def entry(dtype: int, shape: Iterable[int], shard: int, offset: int, size: int, crc: int) -> bytes:
    """BundleEntryProto."""
    dims = b"".join(_message(2, _number(1, dim)) for dim in shape)
    return (
        _number(1, dtype)
        + _message(2, dims)
        + _number(3, shard)
        + _number(4, offset)
        + _number(5, size)
        + varint(6 << 3 | 5)
        + struct.pack("<I", crc)
    )


def table(records: Mapping[str, bytes], block_bytes: int = BLOCK_BYTES) -> bytes:
    """An SSTable of `records`, sorted by key."""
    return unsorted_table(sorted((key.encode(), value) for key, value in records.items()), block_bytes)


def unsorted_table(records: Iterable[tuple[bytes, bytes]], block_bytes: int = BLOCK_BYTES) -> bytes:
    """An SSTable of `records` as they come, which may break the format's order."""
    out = bytearray()
    index: list[tuple[bytes, bytes]] = []
    pending: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in records:
        pending.append((key, value))
        size += len(key) + len(value)
        if size >= block_bytes:
            index.append((key, _append(out, block(pending))))
            pending, size = [], 0
    if pending:
        index.append((pending[-1][0], _append(out, block(pending))))
    return _finished(out, index)


def table_of_block(data: bytes, compression: int = 0, metaindex: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """An SSTable of one block whose bytes are given, its checksum right whatever they are."""
    out = bytearray()
    return _finished(out, [(b"", _append(out, data, compression))], metaindex)


def table_of_handle(handle: bytes) -> bytes:
    """An SSTable whose index names one block by `handle`."""
    return _finished(bytearray(), [(b"", handle)])


def _finished(out: bytearray, index: list[tuple[bytes, bytes]], metaindex: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    handles = _append(out, block(metaindex)) + _append(out, block(index))
    return bytes(out) + handles.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def block(records: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The records with shared prefixes left out, then the restart array."""
    out = bytearray()
    restarts, last = [0], b""
    for number, (key, value) in enumerate(records):
        shared = 0
        if number % RESTART_INTERVAL:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        elif number:
            restarts.append(len(out))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return bytes(out) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def masked(crc: int) -> int:
    """LevelDB's mask over a CRC-32C."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    """Base-128, low bits first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _append(out: bytearray, data: bytes, compression: int = 0) -> bytes:
    """Add a block with its trailer; its handle."""
    offset = len(out)
    out += data + bytes([compression])
    out += struct.pack("<I", masked(google_crc32c.value(bytes(out[offset:]))))
    return varint(offset) + varint(len(data))


def _number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value) if value else b""


def _message(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data
