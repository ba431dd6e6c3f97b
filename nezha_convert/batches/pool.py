"""Warm worker processes: each imports once and does many rows. One that dies is one failed row, and is replaced.

A worker is a program of its own that reads a task a line and writes what happens a line, so neither the program that
calls us nor its threads are copied into it. It ends when its parent does, however that ends.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from ..files.child import python
from ..text import printable
from .needs import CONVERTING, PROVING, Needs
from .results import RowResult
from .row import Row, is_remote

DONE = "done"
"""The step of a row that has ended."""

GRACE = 10.0
"""Seconds in which a worker that is asked to end has to clean up."""

_START = "from importlib import import_module; import_module(sys.argv[1]).serve()"


@dataclass(frozen=True, slots=True)
class Task:
    """A row to be done.

    Attributes:
        row: the row.
        needs: what it needs.
        force: replace an output that is another conversion.
        trust: take a proof that the output records; not where the row asked for something else before.
        settings: the Hub's endpoint and token for it.
    """

    row: Row
    needs: Needs
    force: bool = False
    trust: bool = True
    settings: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The task as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Task:
        """The task that `to_dict` gave, after its way through JSON."""
        settings = tuple((name, value) for name, value in content["settings"])
        row, needs = Row(**content["row"]), Needs(**content["needs"])
        return cls(row, needs, content["force"], content["trust"], settings)


@dataclass(frozen=True, slots=True)
class Limits:
    """What all rows together may use: processes, bytes of memory, bytes of disk."""

    jobs: int
    memory: int
    disk: int


class Watch(Protocol):
    """Told what happens: a row's step ("converting", "verifying", "pushing"), or its result."""

    def __call__(self, row: Row, step: str, result: RowResult | None = None) -> None:
        """`row` is at `step`; `result` where it ended."""


def run_here(tasks: Sequence[Task], limits: Limits, work: str, watch: Watch) -> Iterator[RowResult]:
    """Do `tasks` in processes of this machine; the results in the order in which they come.

    Args:
        tasks: what to do.
        limits: a row starts only if what it needs fits beside the rows that run. One that never fits says so.
        work: the module whose `serve` a worker runs.
        watch: told of each step.
    """
    waiting, spent, workers = list(tasks), 0, list[_Worker]()
    downloads = {task.row.number: task.needs.download for task in tasks}  # they stay in the Hub's cache
    try:
        while waiting or any(worker.task for worker in workers):
            if not any(worker.task for worker in workers):
                for task in [one for one in waiting if not _fits(one, limits, spent)]:
                    waiting.remove(task)
                    yield _unfit(task, limits, spent)
            _start(waiting, workers, limits, spent, work)
            for result in _happened(workers, watch) if any(worker.task for worker in workers) else ():
                spent += downloads[result.number] + (0 if is_remote(result.output) else result.output_nbytes)
                yield result
        for worker in workers:
            worker.dismiss()
    finally:
        _end(workers)


def _fits(task: Task, limits: Limits, spent: int) -> bool:
    """Whether a task fits where nothing else runs: into all of the memory, and the disk that is left."""
    return task.needs.memory <= limits.memory and task.needs.disk <= limits.disk - spent


def _unfit(task: Task, limits: Limits, spent: int) -> RowResult:
    needs, left = task.needs, limits.disk - spent
    if needs.memory > limits.memory:
        what = f"memory, and {_gb(limits.memory)} are allowed"
        reason, hint = (
            f"it needs about {_gb(needs.memory)} of {what}",
            "Give it more: --memory SIZE, or a larger machine.",
        )
    else:
        reason = f"it needs about {_gb(needs.disk)} of disk, and {_gb(max(left, 0))} of {_gb(limits.disk)} are left"
        hint = "Free some room or give it more: --disk SIZE; then run the same command again."
    return RowResult.failed(task.row, reason, hint, needs.nbytes)


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:,.1f} GB" if nbytes >= 1e10 else f"{nbytes / 1e6:,.1f} MB"


def _start(waiting: list[Task], workers: list[_Worker], limits: Limits, spent: int, work: str) -> None:
    """Give each task that fits to an idle worker, or to a new one."""
    for task in list(waiting):
        running = [worker.task for worker in workers if worker.task]
        if len(running) >= limits.jobs:
            return
        memory = sum(one.needs.memory for one in running) + task.needs.memory
        disk = spent + sum(one.needs.disk for one in running) + task.needs.disk
        if memory > limits.memory or disk > limits.disk:
            continue
        idle = [worker for worker in workers if not worker.task]
        while len(idle) > 1 and memory + sum(worker.resting for worker in idle[1:]) > limits.memory:
            retired = idle.pop()
            retired.dismiss()
            workers.remove(retired)
        if not idle:
            idle.append(_Worker(work, limits.jobs))
            workers.append(idle[0])
        waiting.remove(task)
        idle[0].give(task)


def _happened(workers: list[_Worker], watch: Watch) -> list[RowResult]:
    """Wait until something happens; the rows that ended. A worker that died is taken from the list."""
    results = list[RowResult]()
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            if worker.task:
                selector.register(worker.output, selectors.EVENT_READ, worker)
        for key, _ in selector.select():
            worker = key.data
            task, lines = worker.task, worker.lines()
            for line in lines or ():
                if "step" in line:
                    watch(task.row, line["step"])
                else:
                    results.append(RowResult.from_dict(line["result"]))
                    worker.task = None
            if lines is None:
                workers.remove(worker)
                if worker.task:
                    results.append(_died(task, worker.end()))
    return results


def _died(task: Task, how: str) -> RowResult:
    reason = f"its process ended in the middle of it: {how}"
    hint = (
        "If the machine ran out of memory, allow fewer rows at once (--jobs 1) or less memory (--memory SIZE). "
        "Alone it may say more:"
    )
    return RowResult.failed(task.row, reason, hint, task.needs.nbytes)


def _end(workers: Sequence[_Worker]) -> None:
    """Ask the workers that still work to clean up and end; who does not is killed."""
    for worker in workers:
        worker.ask()
    until = time.monotonic() + GRACE
    for worker in workers:
        worker.end(max(0.0, until - time.monotonic()))


class _Worker:
    """A process that does one task after another."""

    def __init__(self, work: str, jobs: int) -> None:
        threads = str(max(1, (os.cpu_count() or 1) // jobs))
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
        self.task: Task | None = None
        self.resting = 0
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by end)
        self._process = subprocess.Popen(
            python(_START, work),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
        )
        assert self._process.stdout and self._process.stdin
        self.output, self._input = self._process.stdout, self._process.stdin
        self._rest = b""

    def give(self, task: Task) -> None:
        """Begin `task`. A worker that has died meanwhile is noticed when it is read."""
        self.task, self.resting = task, PROVING if task.row.verifies else max(self.resting, CONVERTING)
        with suppress(BrokenPipeError):
            self._input.write(json.dumps(task.to_dict()).encode() + b"\n")
            self._input.flush()

    def lines(self) -> list[dict[str, Any]] | None:
        """What it said since; None if it has ended."""
        data = os.read(self.output.fileno(), 1 << 16)
        if not data:
            return None
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in whole]

    def dismiss(self) -> None:
        """Let it end: it has nothing to do."""
        with suppress(BrokenPipeError):
            self._input.close()

    def ask(self) -> None:
        """Ask it to clean up and end."""
        if self.task and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        else:
            self.dismiss()

    def end(self, seconds: float = GRACE) -> str:
        """Wait until it has ended, and kill it after `seconds`; how it ended, in words."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        for stream in (self.output, self._input):
            with suppress(OSError):
                stream.close()
        if self._errors.closed:
            return ""
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - 2_000))
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        self._errors.close()
        last = f"; its last words: {printable(said[-1])}" if said else ""
        return (f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}") + last


Executor = Callable[[Sequence[Task], Limits, str, Watch], Iterator[RowResult]]
"""What does tasks: `run_here`, or Ray."""
