"""Runs one input against one target. It must be read or refused with a reason, in bounded memory and time."""

from __future__ import annotations

import json
import os
import resource
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from nezha_convert.errors import NezhaConvertError

from . import forked
from .targets import SEPARATOR, Target

MEMORY = 24
"""Bytes that Python and NumPy may allocate for each byte of input, in addition to the target's own allowance."""

MEMORY_DISK = "/dev/shm" if Path("/dev/shm").is_dir() else None

SECONDS = 1.0
"""CPU time for an input of up to a megabyte, and for each further megabyte.

An input that takes more is timed again without the tracer of memory, which makes Python two to three times slower.
"""

MESSAGE = 10_000
"""The most characters of a message."""


class FaultError(AssertionError):
    """An outcome that no input may have."""


def check(target: Target, data: bytes) -> str:
    """Run `target` on `data`: "read", or the message of its refusal.

    Raises:
        FaultError: it took too much memory or time, or its message cannot be shown.
        Exception: the reader raised something else than its refusals.
    """
    with TemporaryDirectory(prefix="fuzz-", dir=MEMORY_DISK) as name:
        folder = Path(name)
        for file, part in zip(target.files, data.split(SEPARATOR), strict=False):
            if part or file == target.files[0]:
                (folder / file).write_bytes(part)
        begun = _cpu_seconds()
        with _bounded_memory(len(data), target.memory):
            outcome = _outcome(target, folder)
        allowed = SECONDS * (1 + len(data) / 1e6)
        if _cpu_seconds() - begun > allowed:
            begun = _cpu_seconds()
            _outcome(target, folder)
            seconds = _cpu_seconds() - begun
            if seconds > allowed:
                raise FaultError(f"{seconds:.1f} s for {len(data):,} bytes")
        return outcome


def _outcome(target: Target, folder: Path) -> str:
    try:
        json.dumps(target.read(folder), ensure_ascii=False).encode()
    except target.refusals as error:
        _check_message(error)
        return error.message
    return "read"


@contextmanager
def _bounded_memory(size: int, free: int) -> Iterator[None]:
    traced = tracemalloc.is_tracing()
    if not traced:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1] - before
        if not traced:
            tracemalloc.stop()
    if peak > free + MEMORY * size:
        raise FaultError(f"{peak:,} bytes of memory for {size:,} of input")


def _cpu_seconds() -> float:
    """CPU time of this process, of its children that have ended, and of the forks for HDF5."""
    return sum(os.times()[:4]) + forked.spent


def _check_message(error: NezhaConvertError) -> None:
    text = "\n".join((error.message, error.hint, *error.problems))
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, MemoryError) or "allocate" in str(cause):
            raise FaultError(f"an allocation failed: {cause}")
        cause = cause.__cause__
    if not error.message.strip() or len(text) > MESSAGE:
        raise FaultError(f"a message of {len(text):,} characters: {text[:200]}")
    if not all(letter.isprintable() or letter == "\n" for letter in text):
        raise FaultError(f"a message that a terminal would obey: {text[:400]!r}")


def limit_memory() -> None:
    """Let this process map no more than `forked.ADDRESS_SPACE` in addition to what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + forked.ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
