"""Runs HDF5's library in a fork of this process: as safe as in a new process, and a hundred times as fast."""

from __future__ import annotations

import os
import signal
import tracemalloc
from pathlib import Path

import h5py  # noqa: F401  (once, not in each fork)

from nezha_convert.formats.keras import contents as keras_contents

FATAL = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)


def ask(file: Path, seconds: float) -> tuple[int, bytes]:
    """Replaces ``formats.keras.read._ask``."""
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        tracemalloc.stop()
        for number in FATAL:
            signal.signal(number, signal.SIG_DFL)  # the fuzzer's handlers would report a fault
        signal.setitimer(signal.ITIMER_PROF, seconds)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with os.fdopen(writable, "w") as out:
            out.write(keras_contents.contents(file))
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as out:
        answer = out.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), answer
