"""Zip and tar files broken on purpose, in the fields of their headers. Checksums of tar headers are corrected."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import tarfile
import zlib
from collections.abc import Callable
from random import Random

from .broken_bundles import NUMBERS, flipped

CLAIMED = 1 << 20
"""The most bytes of a compressed tar that a mutation unpacks."""

CENTRAL, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
FIELDS = {
    CENTRAL: "HHHHHHIIIHHHHHII",
    LOCAL: "HHHHHIIIHH",
    END: "HHHHIIH",
}
"""What follows each signature of a zip file (.ZIP File Format Specification 6.3, sections 4.3.7, 4.3.12, 4.3.16)."""

WIDE = (b"\x01\0\x18\0", b"\x01\0\x10\0")
"""How the field for sizes and places of 64 bits begins, in the directory and before a member (4.5.3)."""

NAMES = (b"../x", b"/etc/x", b"a\\b", b"C:\\x", b".", b"", b"a//b", b"x/", b"\xff", b"a\0b", b"__MACOSX/x", b"data.pkl")

TAR_FIELDS = {
    **{"name": (0, 100), "mode": (100, 8), "size": (124, 12), "time": (136, 12), "sum": (148, 8), "kind": (156, 1)},
    **{"link": (157, 100), "magic": (257, 8), "owner": (265, 32), "device": (329, 8), "prefix": (345, 155)},
}
"""Offset and length of each field of a tar's header (POSIX ustar)."""

PAX = (
    *("path=../x", "path=/x", "path=model/vocab.txt", "linkpath=x", "size=-1", "size=99999999999999999999", "size=x"),
    *("GNU.sparse.major=1", "GNU.sparse.map=0,1", "GNU.sparse.size=9", "GNU.sparse.realsize=1", "hdrcharset=BINARY"),
    *("mtime=nan", "uid=x", "path=a\0b", "path=\x1b[2J", "path=" + "p" * 5000, "=", "x"),
)


def archive_mutated(random: Random, data: bytes) -> bytes:
    """`data` (a zip, tar or compressed tar) with something wrong, mostly inside sound compression."""
    if random.random() < 0.15:
        return flipped(random, data)
    if data.startswith(b"PK"):
        return zip_mutated(random, data)
    for magic, unpacked, packed in _COMPRESSIONS:
        if data.startswith(magic):
            if magic == b"\xfd7zXZ" and random.random() < 0.2:
                return _dictionary(random, data)
            try:
                return packed(tar_mutated(random, unpacked(data)))
            except (OSError, ValueError, zlib.error, lzma.LZMAError, EOFError):
                return flipped(random, data)
    return tar_mutated(random, data)


_COMPRESSIONS: tuple[tuple[bytes, Callable[[bytes], bytes], Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", lambda d: zlib.decompressobj(31).decompress(d, CLAIMED), lambda d: gzip.compress(d, mtime=0)),
    (b"BZh", lambda d: bz2.BZ2Decompressor().decompress(d, CLAIMED), bz2.compress),
    (
        b"\xfd7zXZ",
        lambda d: lzma.LZMADecompressor(memlimit=64 << 20).decompress(d, CLAIMED),
        lambda d: lzma.compress(d, preset=0),
    ),
)


def _dictionary(random: Random, data: bytes) -> bytes:
    """An xz file that declares a dictionary of another size, up to 4 GiB."""
    place = data.find(b"\x21\x01", 12, 40)
    if place < 0:
        return flipped(random, data)
    out = bytearray(data)
    out[place + 2] = random.randrange(42)
    end = 12 + 4 * (out[12] + 1) - 4
    out[end : end + 4] = struct.pack("<I", zlib.crc32(out[12:end]))
    return bytes(out)


def zip_mutated(random: Random, data: bytes) -> bytes:
    """Change a header's field, a name in one of its two places, or 64-bit sizes; or repeat or move a header."""
    kind = random.choice((CENTRAL, CENTRAL, LOCAL, END))
    places = [at for at in range(len(data)) if data.startswith(kind, at)]
    if not places:
        return flipped(random, data)
    at, out = random.choice(places), bytearray(data)
    forms = FIELDS[kind]
    wide = [at for at in range(len(data)) if data.startswith(WIDE, at)]
    what = random.random()
    if wide and what < 0.2:
        start = random.choice(wide) + 4 + 8 * random.randrange(3)
        number = random.choice((*NUMBERS, len(data), *places)) % 2**64
        out[start : start + 8] = number.to_bytes(8, "little")
    elif what < 0.6:
        number = random.randrange(len(forms))
        start, width = at + 4 + struct.calcsize("<" + forms[:number]), struct.calcsize("<" + forms[number])
        values = (*NUMBERS, 12, 14, 99, len(data), *places, 0xA1FF << 16, 0x41ED << 16)
        value = random.choice(values) % 256**width
        out[start : start + width] = value.to_bytes(width, "little")
    elif what < 0.8 and kind != END:
        start = at + 4 + struct.calcsize("<" + forms)
        name = random.choice(NAMES)
        out[start : start + len(name)] = name
    elif what < 0.9 and kind == CENTRAL:
        size = struct.calcsize("<" + forms) + 4 + 24
        out[at:at] = out[at : at + size] * random.choice((1, 2, 300))
    else:
        numbers = [random.choice(NUMBERS) % 2**64 for _ in range(4)]
        end = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, *numbers)
        locator = b"PK\x06\x07" + struct.pack("<IQI", 0, random.choice((at, *NUMBERS)) % 2**64, 1)
        out[at:at] = end + locator
    return bytes(out)


def tar_mutated(random: Random, data: bytes) -> bytes:
    """Change a header's field and correct the checksum, add a header of another kind, or repeat or drop a block."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)] or [b""]
    headers = [at for at, block in enumerate(blocks) if block[257:262] == b"ustar"]
    if not headers or random.random() < 0.1:
        return flipped(random, data)
    at, kind = random.choice(headers), random.randrange(10)
    if kind < 6:
        name = random.choice(list(TAR_FIELDS))
        start, width = TAR_FIELDS[name]
        value = {
            "kind": lambda: random.choice(b"\x000123456789xgLKSDVMNXA").to_bytes(1, "little"),
            "name": lambda: random.choice(NAMES),
            "size": lambda: random.choice((b"%o" % (random.choice(NUMBERS) % 8**11), _wide(random), b"-1", b"x", b"")),
        }.get(
            name, lambda: random.choice((*NAMES, b"%o" % (random.choice(NUMBERS) % 8**7), _wide(random), b"\xff" * 8))
        )
        block = bytearray(blocks[at])
        block[start : start + width] = value()[:width].ljust(width, b"\0")
        blocks[at] = bytes(block) if name == "sum" else _summed(block)
    elif kind == 6:
        blocks[at:at] = _pax(random)
    elif kind == 7:
        blocks[at:at] = blocks[at : at + random.choice((1, 2))] * random.choice((1, 1, 20))
    elif kind == 8:
        del blocks[at : at + random.choice((1, 1, 2))]
    else:
        blocks[at:at] = [_header(random, b"L", random.choice((0, 10, 512, 2**20, 2**21, 2**33)))] * random.choice(
            (1, 60)
        )
    return b"".join(blocks)


def _wide(random: Random) -> bytes:
    """A number of more than eleven octal digits, as GNU tar writes it."""
    return random.choice((b"\x80", b"\xff")) + (random.choice(NUMBERS) % 2**64).to_bytes(11, "big")


def _pax(random: Random) -> list[bytes]:
    """A pax header of one to three records, some of them with a wrong length."""
    content = b""
    for record in random.choices(PAX, k=random.choice((1, 1, 3))):
        text = f" {record}\n".encode()
        length = len(text) + len(str(len(text) + 2))
        claimed = random.choice((length, length, length, length, 0, 1, -1, 10**6, 10**20))
        content += b"%d" % claimed + text
    size = random.choice((len(content), len(content), len(content), 2**20, 2**40))
    padded = content.ljust(-(-len(content) // 512) * 512, b"\0")
    return [_header(random, random.choice((b"x", b"g", b"X")), size), padded]


def _header(random: Random, kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("././@Header")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def _summed(block: bytearray) -> bytes:
    start, width = TAR_FIELDS["sum"]
    block[start : start + width] = b" " * width
    block[start : start + width] = b"%06o\0 " % sum(block)
    return bytes(block)
