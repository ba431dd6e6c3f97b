"""A job: a process of its own that works for one visitor. It is killed when it is cancelled, or takes too much."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .limits import Limits

Event = dict[str, Any]
"""One of: {"progress": [done, total, what]}, {"result": ...}, {"refusal": ...}, {"ended": why}, {"alive": bytes}."""

_TICK = 0.5
"""Seconds between two looks at the clock and the disk."""

_KEPT = (
    "PATH",
    "LANG",
    "LC_ALL",
    "PYTHONPATH",
    "HF_ENDPOINT",
    "HF_HUB_DISABLE_XET",
    "SSL_CERT_FILE",
    "LD_LIBRARY_PATH",
)
"""What a job sees of the server's environment. It sees no secret of the Space, such as its own HF_TOKEN."""


class Job:
    """Runs ``python -m page.work`` in `folder`.

    Args:
        order: what is to be done, for `work.TASKS`. A token goes through the process' standard input alone: arguments
            and environment can be read by other processes.
        folder: the visitor's private folder, which holds all that the job writes.
        shared: a folder for caches of libraries.
        limits: what it may use.
    """

    def __init__(self, order: Mapping[str, Any], folder: Path, shared: Path, limits: Limits) -> None:
        self._limits, self._folder = limits, folder
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._why = ""
        temporary = folder / "tmp"
        temporary.mkdir(exist_ok=True)
        here = Path(__file__).resolve().parents[1]
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= {
            "HOME": str(temporary),
            "TMPDIR": str(temporary),
            "HF_HOME": str(folder / "hub"),
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", str(shared)),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(here), environment.get("PYTHONPATH", "")))),
            "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // limits.jobs)),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "page.work"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries write there what they like; faults come in words, see `work`
            cwd=folder,
            env=environment,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(json.dumps(dict(order)),), daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def stop(self, why: str) -> None:
        """Kill the process and all that it has started; `why` is what `events` ends with."""
        self._why = self._why or why
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()

    def events(self) -> Iterator[Event]:
        """What the job tells, and a sign of life twice a second; the last event is a result, a refusal or an end."""
        begun = time.monotonic()
        last: Event | None = None
        while True:
            try:
                line = self._lines.get(timeout=_TICK)
            except queue.Empty:
                nbytes = size_of(self._folder)
                if why := self._too_much(time.monotonic() - begun, nbytes):
                    self.stop(why)
                else:
                    yield {"alive": nbytes}
                continue
            if line is None:
                break
            event: Event = json.loads(line)
            if "progress" in event:
                yield event
            elif "fault" in event:
                print(event["fault"], file=sys.stderr)
            else:
                last = event
        self._process.wait()
        yield {"ended": self._why} if self._why else last or {"ended": "killed"}

    def _too_much(self, seconds: float, nbytes: int) -> str:
        """The limit that the job has passed, as a word of `words`."""
        if seconds > self._limits.job_seconds:
            return "too_long"
        free = shutil.disk_usage(self._folder).free if self._folder.is_dir() else 0
        return "too_large" if nbytes > self._limits.folder_bytes or free < self._limits.free_bytes else ""

    def _read(self, order: str) -> None:
        """Give the order, and pass on what comes, line by line; None is the end."""
        assert self._process.stdin and self._process.stdout
        try:
            with self._process.stdin as stdin:
                stdin.write(order)
        except BrokenPipeError:
            self._why = self._why or "killed"
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)


def size_of(folder: Path) -> int:
    """Bytes of all files below `folder`, of which some may vanish meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118
            except FileNotFoundError:
                continue
    return total
