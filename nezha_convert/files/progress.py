"""How far long work has come."""

from __future__ import annotations

import threading
from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called with (units done, units in all, what is being done). The units are bytes or steps. Calls come from any thread,
one at a time."""


class Counter:
    """Adds up what is done, in any thread, and tells `progress` the sum.

    Args:
        progress: whom to tell; None tells nobody.
        total: units of work in all.
        what: what is being done.

    Example:
        >>> counter = Counter(lambda done, total, what: print(f"{what}: {done} of {total}"), 10, "copying")
        >>> counter.add(4)
        copying: 4 of 10
    """

    def __init__(self, progress: Progress | None, total: int, what: str = "") -> None:
        self._progress, self._total, self._what = progress, total, what
        self._done = 0
        self._lock = threading.Lock()

    def add(self, units: int = 1, what: str | None = None) -> None:
        """Count `units` more as done; `what` names the work from now on."""
        with self._lock:
            self._done = min(self._done + units, self._total)
            self._what = self._what if what is None else what
            if self._progress:
                self._progress(self._done, self._total, self._what)
