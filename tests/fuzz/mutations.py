"""Mutations that know the format: JSON, safetensors, torch's zip files and lines of text."""

from __future__ import annotations

import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from copy import deepcopy
from io import BytesIO
from random import Random
from typing import Any

from .broken_bundles import NUMBERS, flipped
from .broken_pickles import pickle_mutated

DEEP = 'deep "JSON" of {} levels'
HOSTILE = (
    *(None, True, False, "", "x", [], {}, 0, -1, 1, 2, 0.5, -0.0, *NUMBERS),
    *(1e308, float("inf"), float("-inf"), float("nan"), 10**400, 2**53 + 1),
    *("\ud800", "\x1b[2J", "a\0b", "../x", "/etc/passwd", "..", "\u2028", "x" * 5000, "[PAD]", "0", "-1", "٣"),
    *([[]], [None], [{}], {"": None}, {"0": "a"}, {"a": 0}, ["a", "a"], [1, "a"]),
    *(DEEP.format(levels) for levels in (90, 200, 900, 990, 5000, 200_000)),
)


def json_mutated(random: Random, data: bytes) -> bytes:
    """Replace a value of the document, or rename, add or drop a field."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return flipped(random, data)
    for _ in range(random.choice((1, 1, 2))):
        document = _node(random, document)
    text = json.dumps(document)
    for levels in (90, 200, 900, 990, 5000, 200_000):
        text = text.replace(json.dumps(DEEP.format(levels)), "[" * levels + "]" * levels)
    return text.encode()


def _node(random: Random, node: Any) -> Any:
    """`node` with one part replaced."""
    if isinstance(node, (list, dict)) and node and random.random() < 0.8:
        keys = list(range(len(node))) if isinstance(node, list) else list(node)
        key, kind = random.choice(keys), random.randrange(8)
        if kind == 0:
            del node[key]
        elif kind == 1 and isinstance(node, dict):
            node[str(random.choice(HOSTILE))[:100]] = node[key]
        elif kind == 2 and isinstance(node, list):
            node.append(node[key])
        else:
            node[key] = _node(random, node[key])
        return node
    return deepcopy(random.choice(HOSTILE))


def safetensors_mutated(random: Random, data: bytes) -> bytes:
    """Change the header's JSON and correct its length, or change bytes."""
    size = int.from_bytes(data[:8], "little")
    if random.random() < 0.2 or size > len(data):
        return flipped(random, data)
    header = data[8 : 8 + size]
    kind = random.randrange(4)
    if kind == 0:
        header = flipped(random, header)
    elif kind == 1 and header.count(b'":') > 1:  # a name twice, which parsers of JSON read in different ways
        header = b"{" + header[1:-1] + b"," + header[1:]
    else:
        header = json_mutated(random, header)
    if random.random() < 0.1:
        size = random.choice(NUMBERS)
        return struct.pack("<Q", size % 2**64) + header + data[8:]
    return struct.pack("<Q", len(header)) + header + data[8 + int.from_bytes(data[:8], "little") :]


def torch_mutated(random: Random, data: bytes) -> bytes:
    """Change, cut, rename, compress or drop a member of the zip file, or change the bytes of a legacy file."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:  # a broken zip file fails in many ways
        return pickle_mutated(random, data)
    if not members or random.random() < 0.1:
        return flipped(random, data)
    number, kind = random.randrange(len(members)), random.randrange(8)
    pickled = next((at for at, (name, _) in enumerate(members) if name.endswith("data.pkl")), number)
    if kind == 0:
        name, content = members[number]
        members[number] = name, flipped(random, content)
    elif kind == 1:
        members[number] = random.choice(("archive/data.pkl", "../x", "/x", "archive/version")), members[number][1]
    elif kind == 2:
        del members[number]
    elif kind == 3:
        name, content = members[number]
        size = max(0, len(content) + random.choice((-8, -4, -1, 1, 4, 64)))
        members[number] = name, (content + bytes(64))[:size]
    elif kind < 7:
        name, content = members[pickled]
        members[pickled] = name, pickle_mutated(random, content)
    out = BytesIO()
    compression = zipfile.ZIP_DEFLATED if random.random() < 0.1 else zipfile.ZIP_STORED
    chosen = number if kind == 7 else -1
    with zipfile.ZipFile(out, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two members of one name are wanted here
        for place, (name, content) in enumerate(members):
            method = zipfile.ZIP_DEFLATED if place == chosen else compression
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, method)
    return out.getvalue()


def lines_mutated(random: Random, data: bytes) -> bytes:
    """Swap, repeat, drop or replace lines."""
    lines = data.split(b"\n")
    at, kind = random.randrange(len(lines)), random.randrange(5)
    if kind == 0:
        lines[at] = random.choice(
            (b"", b"\xff", b"[UNK]", b"\xe2\x80\xa8", b"\0", b"\x85", b"x" * 5000, b"\xef\xbb\xbf")
        )
    elif kind == 1:
        lines.insert(random.randrange(len(lines)), lines[at])
    elif kind == 2:
        del lines[at]
    elif kind == 3:
        return flipped(random, data)
    return random.choice((b"\n", b"\n", b"\n", b"\r\n", b"\r")).join(lines)


def byte_bpe_mutated(random: Random, data: bytes) -> bytes:
    """Change or replace a token of bytes: half a byte, no digits, punctuation, a cut character, a space."""
    if random.random() < 0.2:
        return lines_mutated(random, data)
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    digits = lines[at].removeprefix(b"##")
    lines[at] = random.choice((b"", b"##", b"####")) + random.choice(
        (
            *(digits[:-1], digits + b"0", digits.lower(), digits + b"41", b"2323", b"23", b"2F41", b"20", b"00", b"FF"),
            *(b"E4B", b"E4", b"B8AD", b"C2A0", b"F", b"", b" 41 ", b"E4B8AD" * 300, b"4" * 5001),
            b"%X" % random.getrandbits(random.choice((4, 8, 16, 24, 32))),
        )
    )
    return b"\n".join(lines)


def one_of(*mutations: Callable[[Random, bytes], bytes]) -> Callable[[Random, bytes], bytes]:
    """A mutation that picks one of `mutations` each time."""
    return lambda random, data: random.choice(mutations)(random, data)
