"""Pickles broken on purpose: pickletools splits them into steps, and one or a few steps are changed."""

from __future__ import annotations

import pickle
import pickletools
import struct
from collections.abc import Iterator
from itertools import pairwise
from random import Random

from .broken_bundles import NUMBERS, flipped

SIZED = {b"U": "<B", b"T": "<i", b"X": "<I", b"\x8c": "<B", b"\x8d": "<Q"}
SIZED |= {b"C": "<B", b"B": "<I", b"\x8e": "<Q", b"\x96": "<Q", b"\x8a": "<B", b"\x8b": "<i"}
"""Steps that begin with a length, and the format of that length."""

NUMBERED = (b"K", b"M", b"J", b"\x8a")
"""Steps that hold a number."""

PIECES = (
    b"cos\nsystem\n(X\x04\0\0\0truetR",
    b"cbuiltins\neval\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ccollections\nOrderedDict\n)R",
    b"cnumpy\ndtype\nX\x02\0\0\0f4\x89\x88\x87R",
    b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R",
    b"c_codecs\nencode\nX\x02\0\0\0\xc3\xbfX\x06\0\0\0latin1\x86R",
    b"(" + b"(" * 3000 + b"t" * 3000,
    b")" + b"0" * 10,
    b")" + b"q\x00h\x00h\x00\x86" * 60,
    b"X\xff\xff\xff\x7f",
    b"\x8a\xff" + b"\x7f" * 255,
    b"\x8b\xff\xff\xff\x7f",
    b"N}N",
    b"r\xff\xff\xff\xff",
    b"j\xff\xff\xff\x7f",
    *(b"X" + struct.pack("<I", size) + b"n" * size for size in (4095, 4096, 4097, 20_000)),
)
"""Steps that no state dict has, or not at such a place."""


def pickle_mutated(random: Random, data: bytes) -> bytes:
    """`data`, one or several pickles, with one or a few steps changed, moved, added or dropped."""
    steps = list(_steps(data))
    for _ in range(random.choice((1, 1, 2, 4))):
        at, kind = random.randrange(len(steps)), random.randrange(8)
        if kind == 0 and len(steps) > 1:
            del steps[at]
        elif kind == 1:
            steps.insert(random.randrange(len(steps)), steps[at])
        elif kind == 2:
            other = random.randrange(len(steps))
            steps[at], steps[other] = steps[other], steps[at]
        elif kind == 3:
            steps[at:at] = [random.choice(PIECES)]
        elif kind == 4:
            steps[at] = random.choice(EVERY)
        elif kind == 5:
            steps[at] = flipped(random, steps[at])
        else:
            _numbered(random, steps)
    return b"".join(steps)


def _numbered(random: Random, steps: list[bytes]) -> None:
    """Replace the step's number or length by another one."""
    places = [at for at, step in enumerate(steps) if step[:1] in {*NUMBERED, *SIZED}]
    if not places:
        return
    at = random.choice(places)
    code, number = steps[at][:1], random.choice((-1, *NUMBERS))
    if code in NUMBERED and random.random() < 0.9:
        steps[at] = pickle.dumps(number, 2)[2:-1]
        return
    form = SIZED.get(code, "<B")
    width = struct.calcsize(form)
    steps[at] = code + (number % 256**width).to_bytes(width, "little") + steps[at][1 + width :]


def _steps(data: bytes) -> Iterator[bytes]:
    """The steps of the pickles at the beginning of `data`, then the rest in one piece."""
    start = 0
    while start < len(data):
        places = [start]
        try:
            for _, _, place in pickletools.genops(data[start:]):
                places.append(start + (place or 0))
            places.append(data.index(b".", places[-1]) + 1)
        except Exception:  # a broken pickle breaks pickletools in many ways
            places.append(len(data))
        yield from (data[a:b] for a, b in pairwise(places) if a < b)
        start = places[-1]
    if not data:
        yield data


def _every() -> Iterator[bytes]:
    """Every step that a pickle can have, with a small argument."""
    for step in pickletools.opcodes:
        code, argument = step.code.encode("latin-1"), step.arg
        if argument is None:
            yield code
        elif argument.n == pickletools.UP_TO_NEWLINE:
            yield code + (b"collections\nOrderedDict\n" if "pair" in argument.name else b"1\n")
        elif code in SIZED:
            yield code + struct.pack(SIZED[code], 1) + b"x"
        else:
            yield code + b"\x01" + bytes(max(0, argument.n - 1))


EVERY = tuple(_every())
