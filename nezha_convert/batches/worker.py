"""A worker's side: reads a task a line, writes what happens a line. `commands/batch_row.py` says what a task is."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

Do = Callable[[dict[str, Any], Callable[[str], None]], dict[str, Any]]
"""Does a task, tells its steps, and returns its result; all as plain data."""


def serve_tasks(do: Do) -> None:
    """Do tasks until there are no more. If the parent ends in the middle of one, end at once, too.

    What libraries print goes to standard error, so that it is no line of ours. Ctrl-C is the parent's: it asks by
    SIGTERM, upon which the running row cleans up.
    """
    for number in (signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    said = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    tasks: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
    busy = Event()
    Thread(target=_read, args=(tasks, busy), daemon=True).start()

    def tell(**what: object) -> None:
        said.write(json.dumps(what).encode() + b"\n")
        said.flush()

    while (task := tasks.get()) is not None:
        result = do(task, lambda step: tell(step=step))
        busy.clear()  # before the next task can come
        tell(result=result)
    os._exit(0)  # without the seconds that torch takes to go


def _read(tasks: SimpleQueue[dict[str, Any] | None], busy: Event) -> None:
    for line in sys.stdin.buffer:
        busy.set()
        tasks.put(json.loads(line))
    if busy.is_set():  # the parent was killed; its next run begins this row again
        os._exit(1)
    tasks.put(None)


def _stop(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: a second one would break into the cleanup
    raise KeyboardInterrupt
