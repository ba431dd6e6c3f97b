"""Protocol buffers broken on purpose, field by field, alone and in the records of a table."""

from __future__ import annotations

from random import Random

from bundles import message, varint
from v1_tables import table

from nezha_convert.formats.protobuf import FormatError, fields
from nezha_convert.parity.again.table import read_records

from .broken_bundles import NUMBERS, flipped

Fields = list[tuple[int, int | bytes]]


def message_mutated(random: Random, data: bytes, depth: int = 5) -> bytes:
    """Change, drop, repeat or move a field, at some depth."""
    try:
        found: Fields = [(n, data[slice(*v)] if isinstance(v, tuple) else v) for n, v in fields(data)]
    except FormatError:
        return flipped(random, data)
    if not found:
        return random.choice((data, flipped(random, data), message(1, b""), b"\x08\x01"))
    at, kind = random.randrange(len(found)), random.randrange(9)
    number, value = found[at]
    if kind == 0:
        del found[at]
    elif kind == 1:
        found.insert(random.randrange(len(found) + 1), found[at])
    elif kind == 2:
        found[at] = random.choice((1, 2, 3, 4, 5, 7, 13, 2**28)), value
    elif isinstance(value, int):
        found[at] = number, random.choice((*NUMBERS, value + 1))
    elif kind == 3:
        found[at] = number, flipped(random, value)
    elif kind == 4:
        found[at] = number, random.choice((*NUMBERS, b"", b"\xff", b"x" * 70))
    elif depth and len(value) < 1 << 16:
        found[at] = number, message_mutated(random, value, depth - 1)
    return b"".join(message(n, v) if isinstance(v, bytes) else varint(n << 3) + varint(v % 2**64) for n, v in found)


def v1_mutated(random: Random, data: bytes) -> bytes:
    """Change records of a table, and lay it out anew: with other blocks, packed or not, its checksums right."""
    try:
        records = read_records(data)
    except (ValueError, IndexError, KeyError):
        records = {}
    if not records:
        return flipped(random, data)
    for _ in range(random.choice((1, 1, 2))):
        key = random.choice([*records])
        if random.random() < 0.2:
            records[flipped(random, key)] = records.pop(key)
        else:
            records[key] = message_mutated(random, records[key])
    return table(records, random.random() < 0.5 and len(data) < 5000, random.choice((1, 200, 1 << 18)))
