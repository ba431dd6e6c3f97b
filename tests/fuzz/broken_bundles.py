"""TensorFlow bundles broken on purpose, each part in its own way. All checksums are corrected.

A checksum catches a flipped bit before it reaches the code after the check. These mutations do reach it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import bundles
import google_crc32c
from bundles import masked, varint

from nezha_convert.formats import protobuf
from nezha_convert.formats.tf_bundle import read as tf_bundle
from nezha_convert.formats.tf_bundle import table

POWERS = (7, 8, 16, 31, 32, 33, 40, 56, 61, 62, 63, 64)
NUMBERS = sorted({0, 1, 2, 3, 5, 64, *(2**power - 1 for power in POWERS), *(2**power for power in POWERS[:-1])})
"""Sizes, offsets, types and counts at which a reader's arithmetic may fail. From 2^63 on, they are negative numbers."""

Fields = list[tuple[int, int | bytes]]


@dataclass
class Parts:
    """The parts of a bundle's index, which `index` puts together again."""

    records: list[tuple[bytes, bytes]]
    metaindex: list[tuple[bytes, bytes]] = field(default_factory=list)
    compression: int = 0
    block_bytes: int = bundles.BLOCK_BYTES
    edit_block: Callable[[bytes], bytes] = bytes
    edit_handle: Callable[[bytes], bytes] = bytes
    edit_separators: Callable[[list[bytes]], list[bytes]] = list
    edit_footer: Callable[[bytes], bytes] = bytes

    def index(self) -> bytes:
        """The bytes of PREFIX.index. Mutations edit the first block and the first handle."""
        out, handles = bytearray(), []
        for number, (last, data) in enumerate(self._blocks()):
            handle = bundles.append_block(out, data if number else self.edit_block(data), self.compression)
            handles.append((last, handle if number else self.edit_handle(handle)))
        separators = self.edit_separators([last for last, _ in handles])
        handles = [(separator, handle) for separator, (_, handle) in zip(separators, handles, strict=True)]
        whole = bundles.finished(out, bundles.block(handles), bundles.block(self.metaindex))
        return whole[:-48] + self.edit_footer(whole[-48:])

    def _blocks(self) -> list[tuple[bytes, bytes]]:
        blocks, pending = [], []
        for key, value in self.records:
            pending.append((key, value))
            if sum(len(key) + len(value) for key, value in pending) >= self.block_bytes:
                blocks.append((key, bundles.block(pending)))
                pending = []
        if pending or not blocks:
            blocks.append((pending[-1][0] if pending else b"", bundles.block(pending)))
        return blocks

    def edit(self, random: Random, change: Callable[[Fields], Fields]) -> None:
        """Apply `change` to the fields of one tensor's record."""
        numbers = [number for number, (key, _) in enumerate(self.records) if key] or [0]
        self.edit_record(random.choice(numbers), change)

    def edit_record(self, number: int, change: Callable[[Fields], Fields]) -> None:
        if number < len(self.records):
            key, value = self.records[number]
            try:
                self.records[number] = key, encoded(change(fields_of(value)))
            except ValueError:  # another mutation has broken the fields already
                return


def fields_of(message: bytes) -> Fields:
    return [(n, message[slice(*value)] if isinstance(value, tuple) else value) for n, value in protobuf.fields(message)]


def encoded(fields: Fields) -> bytes:
    """A protocol buffer. Of an entry's fields, only 6 has a fixed size."""
    out = b""
    for number, value in fields:
        if isinstance(value, bytes):
            out += bundles.message(number, value)
        elif number == 6 and value < 2**32:
            out += varint(6 << 3 | 5) + struct.pack("<I", value)
        else:
            out += varint(number << 3) + varint(value)
    return out


def mutated(random: Random, index: bytes) -> tuple[str, bytes]:
    """What is wrong with the index, and `index` with one or a few such faults."""
    try:
        records = list(tf_bundle._table(index))
    except ValueError:  # broken already: only correct its checksums
        return "bytes", resealed(flipped(random, index))
    parts = Parts(records, block_bytes=random.choice((1, 200, bundles.BLOCK_BYTES)))
    names = random.sample(sorted(MUTATIONS), random.choice((1, 1, 1, 2, 3)))
    for name in names:
        MUTATIONS[name](random, parts)
    whole = parts.index()
    return "+".join(sorted(names)), resealed(flipped(random, whole)) if random.random() < 0.1 else whole


def flipped(random: Random, data: bytes) -> bytes:
    """Overwrite, drop or add a few bytes."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5))):
        at = random.randrange(len(out) + 1)
        kind = random.randrange(4)
        if kind == 0:
            out[at : at + 1] = bytes([random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))])
        elif kind == 1:
            del out[at : at + random.choice((1, 2, 8))]
        elif kind == 2:
            out[at:at] = random.randbytes(random.choice((1, 2, 8)))
        elif at < len(out):
            out[at] ^= 1 << random.randrange(8)
    return bytes(out)


def resealed(index: bytes) -> bytes:
    """`index` with correct checksums for all blocks that can be found."""
    out = bytearray(index)
    try:
        *_, position = table._handle(index[-48:], 0)
        metaindex = table._handle(index[-48:], 0)[:2]
        offset, size, _ = table._handle(index[-48:], position)
        for place in (metaindex, (offset, size)):
            _seal(out, *place)
        for _, value in table.records(bytes(out), offset, offset + size):
            _seal(out, *table._handle(bytes(out[slice(*value)]), 0)[:2])
    except (ValueError, struct.error):
        pass
    return bytes(out)


def _seal(out: bytearray, offset: int, size: int) -> None:
    end = offset + size + 1
    if end + 4 <= len(out):
        struct.pack_into("<I", out, end, masked(google_crc32c.value(bytes(out[offset:end]))))


def _number(number: int) -> Callable[[Random, Parts], None]:
    """A mutation that sets field `number` of an entry."""

    def change(random: Random, parts: Parts) -> None:
        value = random.choice(NUMBERS)
        parts.edit(random, lambda fields: [f for f in fields if f[0] != number] + [(number, value)])

    return change


def _dimensions(random: Random, parts: Parts) -> None:
    def change(fields: Fields) -> Fields:
        shape = b"".join(value for number, value in fields if number == 2 and isinstance(value, bytes))
        dims = [value for number, value in fields_of(shape) if number == 2]
        dim = encoded([(1, random.choice(NUMBERS))])
        kind = random.randrange(4)
        if kind == 0 and dims:
            dims[random.randrange(len(dims))] = dim
        elif kind == 1 and dims:
            dims.pop(random.randrange(len(dims)))
        else:
            dims += [dim] * random.choice((1, 1, 9, 40, 300))
        return [f for f in fields if f[0] != 2] + [(2, encoded([(2, dim) for dim in dims]))]

    parts.edit(random, change)


def _agreeing(random: Random, parts: Parts) -> None:
    """A size that agrees with the shape, but not with the file."""
    count = random.choice((0, 1, 5, 1000, 2**20, 2**40, 2**60))
    shape = encoded([(2, encoded([(1, count)]))])
    parts.edit(random, lambda fields: [f for f in fields if f[0] not in (2, 5)] + [(2, shape), (5, 4 * count)])


def _recursive(random: Random, parts: Parts) -> None:
    deep = b""
    for _ in range(random.choice((3, 90, 120, 1200))):
        deep = bundles.message(2, deep)
    parts.edit(random, lambda fields: [*fields, (random.choice((2, 7, 99)), deep)])


def _slices(random: Random, parts: Parts) -> None:
    extent = encoded([(1, random.choice((0, 1, 2**63))), (2, random.choice((1, 2, 2**62)))])
    parts.edit(random, lambda fields: [*fields, *[(7, encoded([(1, extent)] * random.choice((1, 2))))] * 2])


def _repeated_field(random: Random, parts: Parts) -> None:
    parts.edit(random, lambda fields: [*fields, random.choice(fields or [(1, 1)])])


def _wire_type(random: Random, parts: Parts) -> None:
    """The right field, but with another kind of value."""
    kinds = ((1, bytes(8)), (5, b"\1\0\0\0"), (2, b"\2\1\1"), (3, b""), (6, b""))
    number, (wire, data) = random.randrange(1, 9), random.choice(kinds)
    position = random.randrange(len(parts.records) or 1)
    if parts.records:
        key, value = parts.records[position]
        parts.records[position] = key, value + varint(number << 3 | wire) + data


def _header(random: Random, parts: Parts) -> None:
    number = random.choice((1, 2, 3, 3))
    version = encoded([(random.choice((1, 2, 3)), random.choice((0, 1, 2, 3, 2**31, 2**63)))])
    value = version if number == 3 else random.choice(NUMBERS)
    parts.edit_record(0, lambda fields: [f for f in fields if f[0] != number] + [(number, value)])


def _keys(random: Random, parts: Parts) -> None:
    """A name that is not text, is empty or long, or hides another one."""
    number = random.randrange(len(parts.records) or 1)
    if parts.records:
        name = random.choice((b"\xff\xfe", b"a\0b", b"\xed\xa0\x80", b"\x1b[2J", b"k" * 5000, b"\xf4\x90\x80\x80", b""))
        parts.records[number] = name, parts.records[number][1]
        if random.random() < 0.8:
            parts.records.sort()


def _duplicates(random: Random, parts: Parts) -> None:
    number = random.randrange(len(parts.records) or 1)
    parts.records[number:number] = parts.records[number : number + 1]


def _unsorted(random: Random, parts: Parts) -> None:
    random.shuffle(parts.records)


def _missing(random: Random, parts: Parts) -> None:
    del parts.records[random.randrange(len(parts.records) or 1) :][:1]
    if parts.records:
        parts.records.pop(random.randrange(len(parts.records)))


def _value(random: Random, parts: Parts) -> None:
    number = random.randrange(len(parts.records) or 1)
    if parts.records:
        key, value = parts.records[number]
        parts.records[number] = key, flipped(random, value)


def _restarts(random: Random, parts: Parts) -> None:
    """Restarts past the block or between records, or a count of thousands."""
    count = random.choice((0, 1, 2, 1000, 2**16, 2**31, 2**32 - 1))
    places = struct.pack("<I", random.choice((0, 1, 5, 2**31, 2**32 - 1)))
    parts.edit_block = lambda data: data[:-8] + places * random.choice((0, 1, 3)) + struct.pack("<I", count)


def _lengths(random: Random, parts: Parts) -> None:
    """A record whose shared prefix, name or value is longer than the data, or whose numbers do not end."""
    lengths = [varint(random.choice((0, 1, 3, 200, 2**31, 2**32 - 1, 2**63))) for _ in range(3)]
    head = random.choice((b"".join(lengths), b"\xff" * 20, b"\x80" * 9 + b"\x01" + b"\0\0", b"\x80\0\0\0"))
    parts.edit_block = lambda data: head + data[random.randrange(4) :]


def _handles(random: Random, parts: Parts) -> None:
    """A block that lies outside the file, on another block, or nowhere."""
    numbers = (0, 1, 4, 40, 2**20, 2**31, 2**40, 2**63, 2**64 - 1)
    offset, size = random.choice(numbers), random.choice(numbers)
    parts.edit_handle = lambda handle: random.choice((varint(offset) + varint(size), handle[:-1], handle + b"\1", b""))


def _separators(random: Random, parts: Parts) -> None:
    """Separators of blocks out of order, below or above their blocks' keys, or twice."""

    def edit(separators: list[bytes]) -> list[bytes]:
        at, kind = random.randrange(len(separators)), random.randrange(5)
        if kind == 0:
            random.shuffle(separators)
        elif kind == 1:
            separators[at] = separators[at][: random.randrange(len(separators[at]) + 1)]
        elif kind == 2:
            separators[at] += random.choice((b"\0", b"\xff"))
        elif kind == 3:
            separators[at] = random.choice(separators)
        else:
            separators[at] = random.choice((b"", b"\xff\xff", b"cls", b"bert/encoder"))
        return separators

    parts.block_bytes = random.choice((1, 200, 200))
    parts.edit_separators = edit


def _compressed(random: Random, parts: Parts) -> None:
    """Blocks compressed by snappy, sound or damaged, or with an unknown type of compression."""
    parts.compression = random.choice((1, 1, 2, 255))
    claimed = random.choice((0, 0, 2**20, 2**31))
    parts.edit_block = lambda data: snappy(data, claimed)


def _footer(random: Random, parts: Parts) -> None:
    parts.edit_footer = lambda footer: (flipped(random, footer[:40]) + footer[40:])[-48:].rjust(48, b"\0")


def _metaindex(random: Random, parts: Parts) -> None:
    parts.metaindex = [(b"filter.x", varint(0) + varint(random.choice((0, 8, 2**40))))]


def snappy(data: bytes, claimed: int = 0) -> bytes:
    """`data` as a stream of snappy, in literals only. `claimed` is a length to write instead of the right one."""
    out = varint(claimed or len(data))
    for start in range(0, len(data), 60):
        piece = data[start : start + 60]
        out += bytes([len(piece) - 1 << 2]) + piece
    return out


MUTATIONS: dict[str, Callable[[Random, Parts], None]] = {
    "dtype": _number(1),
    "shard": _number(3),
    "offset": _number(4),
    "size": _number(5),
    "checksum": _number(6),
    "dimensions": _dimensions,
    "agreeing size": _agreeing,
    "recursive message": _recursive,
    "slices": _slices,
    "repeated field": _repeated_field,
    "wire type": _wire_type,
    "header": _header,
    "key": _keys,
    "duplicate key": _duplicates,
    "unsorted keys": _unsorted,
    "missing record": _missing,
    "record bytes": _value,
    "restarts": _restarts,
    "record lengths": _lengths,
    "handle": _handles,
    "separators": _separators,
    "compression": _compressed,
    "footer": _footer,
    "metaindex": _metaindex,
}
