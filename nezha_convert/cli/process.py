"""What a command is to the system: its signals and its standard streams.

Imported before anything else of a command, so it imports nothing that takes time.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter, FileIO, TextIOWrapper
from types import FrameType
from typing import Any, NoReturn, TextIO

from ..errors import CancelledError

STOPS = (signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []), signal.SIGTERM)
"""Ctrl-C, a terminal that is closed, and whoever asks the process to end."""

ONE_REQUEST = 1.0
"""Seconds within which signals count as one: `timeout` and some shells send a second one to the whole group."""


class _Output(FileIO):
    """Standard output or error, which remembers that it could not be written to."""

    broken = False

    def write(self, data: Any) -> Any:
        try:
            return super().write(data)
        except OSError:
            self.broken = True
            raise


_ending: list[int] = []
"""The exit code of a process that was stopped."""


def prepare() -> None:
    """For the time of the imports: a signal ends the process at once, since nothing has been written yet.

    Standard streams that are closed become /dev/null. Otherwise the next file to be opened would get their number, and
    what a library prints would go into it.
    """
    atexit.register(_end)  # the first to be registered is the last to run
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = _opened(1, sys.stdout)
    sys.stderr = _opened(2, sys.stderr)
    for stop in STOPS:
        if signal.getsignal(stop) != signal.SIG_IGN:  # as nohup has it
            signal.signal(stop, _quit)


def end_with(code: int) -> int:
    """`code`, with which a process that was `prepare`d ends, come what may.

    Python would end by SIGINT, whatever code it is given, once a KeyboardInterrupt has passed through code that a
    library written in C runs.
    """
    _ending.append(code)
    return code


def _end() -> None:
    if _ending:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # nobody listens, and the code says the rest
                stream.flush()
        os._exit(_ending[-1])


def _opened(number: int, as_python_has_it: TextIO | None) -> TextIO:
    """The standard stream `number`: buffered whatever Python was told, since nothing is printed before the end."""
    raw = _Output(number, "w", closefd=False)
    encoding, errors = "utf-8", "backslashreplace"
    if as_python_has_it is not None:
        encoding, errors = as_python_has_it.encoding, as_python_has_it.errors or "strict"
    return TextIOWrapper(BufferedWriter(raw), encoding, errors, line_buffering=number == 2 or raw.isatty())


def _quit(number: int, frame: Any) -> NoReturn:
    error = CancelledError(number)
    if "--json" in sys.argv:
        os.write(1, json.dumps(error.to_dict(), indent=2).encode() + b"\n")
    else:
        os.write(2, error.message.encode() + b"\n")
    os._exit(error.exit_code)


class Stop:
    """The signal that has asked the process to end, if one has."""

    def __init__(self) -> None:
        self.asked = False
        self.number: int = signal.SIGINT
        self._at = -ONE_REQUEST
        self._lost = False

    @contextmanager
    def minded(self) -> Iterator[None]:
        """Until the end of the block, a signal of `STOPS` raises KeyboardInterrupt, so that whatever runs cleans up.

        In a process that was `prepare`d they change nothing after it: the outcome is known then.
        """
        before = {number: signal.getsignal(number) for number in STOPS}
        hook, sys.unraisablehook = sys.unraisablehook, self._swallowed
        try:
            for number, handler in before.items():
                if handler != signal.SIG_IGN:
                    signal.signal(number, self._stop)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if handler is _quit else handler)
            sys.unraisablehook = hook
            if self._lost:  # and did not come again in time: the command has ended
                signal.signal(signal.SIGALRM, signal.SIG_IGN)
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _stop(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if now >= self._at + ONE_REQUEST:
            self._at, self.number, self.asked = now, number, True
            raise KeyboardInterrupt

    def _swallowed(self, unraisable: Any) -> None:
        """Python's hook for errors that nobody can catch, as in a finalizer: what was to stop us comes again."""
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._lost = True
            signal.signal(signal.SIGALRM, self._again)
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.05)
        else:
            sys.__unraisablehook__(unraisable)

    def _again(self, number: int, frame: FrameType | None) -> None:
        outer = frame
        while outer:
            if outer.f_code is Stop._swallowed.__code__:  # still there, where it would be lost again: the next time
                return
            outer = outer.f_back
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise KeyboardInterrupt


def silence_broken() -> list[TextIO]:
    """The standard streams that could not be written to; what they still hold, and what comes, is thrown away."""
    broken = []
    for stream in (sys.stdout, sys.stderr):
        raw = getattr(getattr(stream, "buffer", None), "raw", None)
        if isinstance(raw, _Output) and raw.broken:
            os.dup2(os.open(os.devnull, os.O_WRONLY), raw.fileno())
            broken.append(stream)
    return broken
