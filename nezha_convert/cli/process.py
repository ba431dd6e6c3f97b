"""A command as the operating system sees it: signals, standard streams, exit code.

`__main__` imports this before anything else, so it imports nothing that takes time.
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

from ..errors import CancelledError, NezhaConvertError, pip_install
from ..files.memory import address_space, need_addresses

STOPS = (signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []), signal.SIGTERM)
"""The signals that ask the process to end: Ctrl-C, a closed terminal, `kill`."""

ONE_REQUEST = 1.0
"""Seconds within which several signals count as one request: `timeout` and some shells send a second one to the whole
process group."""


LEAST_MEMORY, THREAD_MEMORY = 256 << 20, 64 << 20
"""Bytes of addresses that the imports need, and those for each thread of the library that NumPy calculates with. Where
a limit leaves less, that library ends the process by itself, with exit code 1 or by SIGINT."""

MORE_MEMORY = "Raise the limit, if there is one (ulimit -v unlimited), or use a machine that has more memory."


class _Output(FileIO):
    """Standard output or error; `broken` says whether a write has failed."""

    broken = False

    def write(self, data: Any) -> Any:
        try:
            return super().write(data)
        except OSError:
            self.broken = True
            raise


_exit_codes: list[int] = []
"""The codes given to `end_with`; the process ends with the last one."""


def prepare() -> None:
    """Set up streams and signals for the time of the imports.

    A signal ends the process at once, since nothing has been written yet. A closed standard stream becomes /dev/null:
    otherwise the next file that is opened would get its descriptor, and what a library prints would go into that file.
    """
    atexit.register(_end)  # Python runs the function that is registered first last
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = _reopen(1, sys.stdout)
    sys.stderr = _reopen(2, sys.stderr)
    for stop in STOPS:
        if signal.getsignal(stop) != signal.SIG_IGN:  # nohup ignores SIGHUP, and it stays ignored
            signal.signal(stop, _quit)


def end_with(code: int) -> int:
    """Make a process that was `prepare`d end with the exit code `code`, and return it.

    Without this, Python ends by SIGINT, whatever code it is given, once a KeyboardInterrupt has passed through Python
    code that a library written in C runs.
    """
    _exit_codes.append(code)
    return code


def _end() -> None:
    if _exit_codes:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # nobody reads it; the exit code still tells
                stream.flush()
        os._exit(_exit_codes[-1])


def _reopen(number: int, stream: TextIO | None) -> TextIO:
    """Python's standard stream `number` as an `_Output`. It is buffered even under `python -u`: a command prints at its
    end."""
    raw = _Output(number, "w", closefd=False)
    encoding, errors = "utf-8", "backslashreplace"
    if stream is not None:
        encoding, errors = stream.encoding, stream.errors or "strict"
    return TextIOWrapper(BufferedWriter(raw), encoding, errors, line_buffering=number == 2 or raw.isatty())


def _quit(number: int, frame: Any) -> NoReturn:
    _end_at_once(CancelledError(number))


def _end_at_once(error: NezhaConvertError) -> NoReturn:
    """End the process with `error`, before anything that could tell it is imported."""
    if "--json" in sys.argv:
        os.write(1, json.dumps(error.to_dict(), indent=2).encode() + b"\n")
    else:
        words = error.message if isinstance(error, CancelledError) else f"error: {error.message}\nnext: {error.hint}"
        os.write(2, f"{words}\n".encode())
    os._exit(error.exit_code)


@contextmanager
def starting() -> Iterator[None]:
    """In the block, imports that fail end the process in words. Python's own exit code 1 would mean failed parity."""
    try:
        _look_at_memory()
        yield
    except MemoryError as error:
        _end_at_once(no_memory(error))
    except Exception as error:
        if "failed to map segment" in str(error) or "allocate memory" in str(error):
            _end_at_once(no_memory(error))
        words = f"nezha-convert cannot be started ({type(error).__name__}: {error})"
        _end_at_once(NezhaConvertError(words, hint=pip_install("--force-reinstall nezha-convert")))


def no_memory(error: Exception) -> NezhaConvertError:
    """What to say where a machine or a limit leaves too little memory, as `error` tells."""
    return NezhaConvertError(f"there is not enough memory ({str(error) or type(error).__name__})", hint=MORE_MEMORY)


def _look_at_memory() -> None:
    """Raise MemoryError where the limit leaves too little, and let NumPy use one thread where it leaves little."""
    need_addresses(LEAST_MEMORY, "nezha-convert")
    limit = address_space()
    if limit is not None and limit < LEAST_MEMORY + THREAD_MEMORY * (os.cpu_count() or 1):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


class Stop:
    """Turns signals that ask the process to end into KeyboardInterrupt.

    Attributes:
        asked: whether a signal has asked.
        number: the signal that did.
    """

    def __init__(self) -> None:
        self.asked = False
        self.number: int = signal.SIGINT
        self._at = -ONE_REQUEST
        self._lost = False

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within the block, a signal of `STOPS` raises KeyboardInterrupt, so that the running code cleans up.

        After the block, a process that was `prepare`d ignores these signals: its outcome is known by then.
        """
        before = {number: signal.getsignal(number) for number in STOPS}
        hook, sys.unraisablehook = sys.unraisablehook, self._catch_lost
        try:
            for number, handler in before.items():
                if handler != signal.SIG_IGN:
                    signal.signal(number, self._interrupt)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if handler is _quit else handler)
            sys.unraisablehook = hook
            if self._lost:  # the command has ended before the timer: raise nothing any more
                signal.signal(signal.SIGALRM, signal.SIG_IGN)
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _interrupt(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if now >= self._at + ONE_REQUEST:
            self._at, self.number, self.asked = now, number, True
            raise KeyboardInterrupt

    def _catch_lost(self, unraisable: Any) -> None:
        """Raise a KeyboardInterrupt again, by a timer, if it was raised where nobody can catch it, as in a finalizer.

        This is Python's `unraisablehook`.
        """
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._lost = True
            signal.signal(signal.SIGALRM, self._raise_again)
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.05)
        else:
            sys.__unraisablehook__(unraisable)

    def _raise_again(self, number: int, frame: FrameType | None) -> None:
        outer = frame
        while outer:
            if outer.f_code is Stop._catch_lost.__code__:  # still in the hook, which loses it too: wait for the timer
                return
            outer = outer.f_back
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise KeyboardInterrupt


def silence_broken() -> list[TextIO]:
    """Point each standard stream that a write has failed on to /dev/null; return these streams."""
    broken = []
    for stream in (sys.stdout, sys.stderr):
        raw = getattr(getattr(stream, "buffer", None), "raw", None)
        if isinstance(raw, _Output) and raw.broken:
            os.dup2(os.open(os.devnull, os.O_WRONLY), raw.fileno())
            broken.append(stream)
    return broken
