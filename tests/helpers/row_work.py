"""Work for the workers of `nezha_convert.batches.pool` that takes no time: what a row does, its source says."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from nezha_convert.batches.worker import serve_tasks


def serve() -> None:
    serve_tasks(do_task)


def do_task(task: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    row, begun = task["row"], time.monotonic()
    kind, _, value = row["source"].partition(":")
    print("a library prints")
    tell("converting")
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "sleeps":
        time.sleep(float(value))
    return {
        **{name: row[name] for name in ("number", "source", "output")},
        "outcome": "converted",
        "reason": str(os.getpid()),
        "output_nbytes": task["needs"]["disk"],
        "seconds": {"begun": begun, "ended": time.monotonic()},
    }
