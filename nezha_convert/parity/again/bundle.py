"""TensorFlow's bundles, by a second small parser: LevelDB's table, its protocol buffers, and the data by offset.

Written from leveldb/doc/table_format.md and tensorflow/core/protobuf/tensor_bundle.proto. TensorFlow itself reads the
file where `verify --original` runs Huawei's program.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import google_crc32c
import numpy as np

from ...errors import CheckpointError
from ..oracle.formulas import Array
from .tensor import Tensor

_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 14: "bfloat16", 19: "<f2"}
"""NumPy's types by the numbers of types.proto. Tensors of others are no weights of a model."""

_FOOTER, _MAGIC = 48, bytes.fromhex("57fb808b247547db")


def read_bundle(prefix: Path) -> dict[str, Tensor]:
    """The tensors of the bundle `prefix` by name.

    Raises:
        CheckpointError: the index is damaged.
    """
    index = prefix.with_name(f"{prefix.name}.index")
    try:
        records = _records(index.read_bytes())
        shards = _Message(records.pop(b"")).number(1)
        data = [prefix.with_name(f"{prefix.name}.data-{i:05d}-of-{shards:05d}") for i in range(shards)]
        if missing := [file.name for file in data if not file.is_file()]:
            raise CheckpointError(
                f"{prefix.parent}: {', '.join(missing[:3])} is not there", hint="Copy it beside the index."
            )
        return {key.decode(): _tensor(key.decode(), _Message(value), data) for key, value in records.items()}
    except (IndexError, KeyError, ValueError) as error:
        raise CheckpointError(f"{index}: not a sound TensorFlow checkpoint index ({error!r})") from error


def _tensor(name: str, entry: _Message, data: list[Path]) -> Tensor:
    """A tensor by its BundleEntryProto: dtype 1, shape 2, shard 3, offset 4, size 5, crc32c 6."""
    shape = tuple(_Message(one).number(1) for part in entry.parts(2) for one in _Message(part).parts(2))
    places = entry.number(4), entry.number(5), entry.number(6)
    return Tensor(name, shape, partial(_read, data[entry.number(3)], name, entry.number(1), shape, *places))


def _read(file: Path, name: str, kind: int, shape: tuple[int, ...], offset: int, size: int, checksum: int) -> Array:
    if kind not in _TYPES:
        raise CheckpointError(f"{file}: {name!r} has TensorFlow's type {kind}; expected numbers of a model")
    with open(file, "rb") as opened:
        opened.seek(offset)
        found = opened.read(size)
    rotated = google_crc32c.value(found)
    if ((rotated >> 15 | rotated << 17) + 0xA282EAD8) & 0xFFFFFFFF != checksum:
        raise CheckpointError(f"{file}: the bytes of {name!r} do not have their checksum", hint="Copy the file again.")
    return np.frombuffer(found, _TYPES[kind]).reshape(shape)


def _records(table: bytes) -> dict[bytes, bytes]:
    """All keys and values of a table: its footer names the block that names the blocks of records."""
    footer = _Cursor(table[-_FOOTER:])
    if table[-8:] != _MAGIC:
        raise ValueError("another magic number")
    footer.varint(), footer.varint()  # the metaindex, which TensorFlow leaves empty
    blocks = _block(table, footer.varint(), footer.varint())
    handles = (_Cursor(handle) for _, handle in blocks)
    return {key: value for handle in handles for key, value in _block(table, handle.varint(), handle.varint())}


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The records of a block, whose keys are stored without what they share with the key before."""
    block = table[offset : offset + size]
    restarts = int.from_bytes(block[-4:], "little")
    cursor, key = _Cursor(block[: -4 - 4 * restarts]), b""
    while cursor.left:
        shared, added, length = cursor.varint(), cursor.varint(), cursor.varint()
        key = key[:shared] + cursor.take(added)
        yield key, cursor.take(length)


class _Cursor:
    """Bytes, taken from the front."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise IndexError(f"{count} bytes wanted, {self.left} left")
        self._at += count
        return self._data[self._at - count : self._at]

    def varint(self) -> int:
        """Seven bits a byte, the lowest first; the eighth bit says that more follow."""
        value, shift = 0, 0
        while (byte := self.take(1)[0]) & 0x80:
            value, shift = value | (byte & 0x7F) << shift, shift + 7
        return value | byte << shift


class _Message:
    """A protocol buffer: its fields by number, each a list of numbers or bytes."""

    def __init__(self, data: bytes) -> None:
        self._fields: dict[int, list[int | bytes]] = {}
        cursor = _Cursor(data)
        while cursor.left:
            number, wire = divmod(cursor.varint(), 8)
            value: int | bytes
            if wire == 0:
                value = cursor.varint()
            elif wire == 2:
                value = cursor.take(cursor.varint())
            else:
                value = int.from_bytes(cursor.take({1: 8, 5: 4}[wire]), "little")
            self._fields.setdefault(number, []).append(value)

    def number(self, field: int) -> int:
        """The last number of a field; 0 if there is none, as protocol buffers have it."""
        return next((value for value in reversed(self._fields.get(field, [])) if isinstance(value, int)), 0)

    def parts(self, field: int) -> list[bytes]:
        return [value for value in self._fields.get(field, []) if isinstance(value, bytes)]
