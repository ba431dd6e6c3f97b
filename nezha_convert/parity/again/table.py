"""LevelDB's tables and protocol buffers, by a second small parser.

Written from leveldb/doc/table_format.md, snappy's format_description.txt and protobuf.dev's page on the encoding.
"""

from __future__ import annotations

from collections.abc import Iterator

_FOOTER, MAGIC = 48, bytes.fromhex("57fb808b247547db")


def read_records(table: bytes) -> dict[bytes, bytes]:
    """All keys and values of a table: its footer names the block that names the blocks of records."""
    footer = Cursor(table[-_FOOTER:])
    if table[-8:] != MAGIC:
        raise ValueError("another magic number")
    footer.varint(), footer.varint()  # the metaindex, which TensorFlow leaves empty
    blocks = _block(table, footer.varint(), footer.varint())
    handles = (Cursor(handle) for _, handle in blocks)
    return {key: value for handle in handles for key, value in _block(table, handle.varint(), handle.varint())}


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The records of a block, whose keys are stored without what they share with the key before."""
    block = table[offset : offset + size]
    if table[offset + size]:
        block = _unpacked(Cursor(block))
    restarts = int.from_bytes(block[-4:], "little")
    cursor, key = Cursor(block[: -4 - 4 * restarts]), b""
    while cursor.left:
        shared, added, length = cursor.varint(), cursor.varint(), cursor.varint()
        key = key[:shared] + cursor.take(added)
        yield key, cursor.take(length)


def _unpacked(packed: Cursor) -> bytes:
    """A block that was packed by snappy: pieces that stand there, and pieces that repeat what came before."""
    size, out = packed.varint(), bytearray()
    while packed.left:
        tag = packed.take(1)[0]
        kind, length = tag & 3, (tag >> 2) + 1
        if kind == 0:
            if length > 60:
                length = int.from_bytes(packed.take(length - 60), "little") + 1
            out += packed.take(length)
            continue
        back = int.from_bytes(packed.take((1, 2, 4)[kind - 1]), "little")
        if kind == 1:
            back, length = back | (tag & 0xE0) << 3, (length - 1) % 8 + 4
        if not 0 < back <= len(out):
            raise IndexError(f"{back} bytes back of {len(out)}")
        for _ in range(length):
            out.append(out[-back])
    if len(out) != size:
        raise ValueError(f"{len(out)} bytes unpacked, {size} expected")
    return bytes(out)


class Cursor:
    """Bytes, taken from the front."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        """How many are left."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
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


class Message:
    """A protocol buffer: its fields by number, each a list of numbers or bytes."""

    def __init__(self, data: bytes) -> None:
        self._fields: dict[int, list[int | bytes]] = {}
        cursor = Cursor(data)
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

    def numbers(self, field: int) -> list[int]:
        """All numbers of a field."""
        return [value for value in self._fields.get(field, []) if isinstance(value, int)]

    def parts(self, field: int) -> list[bytes]:
        """All texts, bytes or messages of a field."""
        return [value for value in self._fields.get(field, []) if isinstance(value, bytes)]
