"""TensorFlow V2 bundles for tests and benchmarks: sound ones in several shards, and tables that break the format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import google_crc32c
import numpy as np

from nezha_convert.formats.tf_bundle.read import DTYPES as NAMES
from nezha_convert.formats.tf_bundle.table import MAGIC, masked
from nezha_convert.formats.tf_bundle.write import Block, append_block, entry, finished, header, message, number, varint
from nezha_convert.formats.tf_bundle.write import table as sorted_table

__all__ = ["MAGIC", "Block", "append_block", "entry", "finished", "header", "masked", "message", "number", "varint"]

DTYPES = {name: number for number, name in NAMES.items()}
BLOCK_BYTES = 4096


def write_bundle(
    prefix: Path, tensors: Iterable[tuple[str, np.ndarray]], shards: int = 1, block_bytes: int = BLOCK_BYTES
) -> None:
    """Write `tensors`, given in any order, as PREFIX.index and PREFIX.data-*; tensors go to shards in turn."""
    entries: dict[str, bytes] = {}
    files = [Path(f"{prefix}.data-{i:05d}-of-{shards:05d}").open("wb") for i in range(shards)]  # noqa: SIM115
    for place, (name, array) in enumerate(tensors):
        file = files[place % shards]
        data = np.ascontiguousarray(array).tobytes()
        crc = masked(google_crc32c.value(data))
        entries[name] = entry(DTYPES[str(array.dtype)], array.shape, place % shards, file.tell(), len(data), crc)
        file.write(data)
    for file in files:
        file.close()
    Path(f"{prefix}.index").write_bytes(table({"": header(shards), **entries}, block_bytes))


def table(records: Mapping[str, bytes], block_bytes: int = BLOCK_BYTES) -> bytes:
    """An SSTable of `records`, sorted by key."""
    return unsorted_table(sorted((key.encode(), value) for key, value in records.items()), block_bytes)


def unsorted_table(records: Iterable[tuple[bytes, bytes]], block_bytes: int = BLOCK_BYTES) -> bytes:
    """An SSTable of `records` as they come, which may break the format's order."""
    return sorted_table(records, block_bytes)


def table_of_block(data: bytes, compression: int = 0, metaindex: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """An SSTable of one block whose bytes are given, its checksum right whatever they are."""
    out = bytearray()
    handle = append_block(out, data, compression)
    return finished(out, block([(b"", handle)]), block(metaindex))


def table_of_handle(handle: bytes) -> bytes:
    """An SSTable whose index names one block by `handle`."""
    return finished(bytearray(), block([(b"", handle)]))


def block(records: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The records with shared prefixes left out, then the restart array."""
    built = Block()
    for key, value in records:
        built.add(key, value)
    return bytes(built)
