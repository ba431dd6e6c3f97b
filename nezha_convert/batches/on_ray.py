"""The rows as tasks of a Ray cluster: Ray places them by what they need, and does those of a lost machine again.

A row may run twice in part, never in its outcome: what it finds whole and recorded it does not do again, and what a
lost machine left half-written was hidden beside the output.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import UsageError, pip_install
from .pool import Executor, Limits, Task, Watch
from .results import RowResult

RETRIES = 5
"""How often Ray does a row again whose worker or machine was lost."""

PATIENCE = 10.0
"""Seconds until a cluster's address has to answer."""

DISK = "disk"
"""The custom resource of a node that says its free bytes, as in: ray start --resources '{"disk": 2e11}'"""


def connect(address: str) -> tuple[Executor, str]:
    """Connect to the cluster at `address`: what does tasks there, and its name.

    Raises:
        UsageError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("--ray needs Ray, which is not installed", hint=pip_install("'nezha-convert[ray]'")) from error
    if not ray.is_initialized():
        try:
            _check_answers(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise UsageError(
                f"--ray {address}: no cluster answers ({type(error).__name__}: {' '.join(str(error).split())})",
                hint="Start one by `ray start` on each machine, as docs/batch.md shows; then run this again.",
            ) from error
    alive = [node for node in ray.nodes() if node["Alive"]]
    return run_on_ray, f"Ray: {len(alive)} machine{'s' if len(alive) > 1 else ''}"


def _check_answers(address: str) -> None:
    """Raises OSError where nothing listens at HOST:PORT. Ray itself would ask for minutes."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()


def run_on_ray(tasks: Sequence[Task], limits: Limits, work: str, watch: Watch) -> Iterator[RowResult]:
    """Do `tasks` on the cluster; the results in the order in which they come. As `run_here`, without limits of ours.

    Args:
        tasks: what to do.
        limits: of this machine, on which no row runs: not used.
        work: the module whose `do_task` does a task.
        watch: told of nothing: the steps happen elsewhere.
    """
    import ray

    remote = ray.remote(_do)
    memory, disk = _largest("memory"), _largest(DISK)
    running: dict[Any, Task] = {}
    for task in tasks:
        needs = task.needs
        if needs.memory > memory or (disk and needs.disk > disk):
            yield _unfit(task, memory, disk)
            continue
        asked = remote.options(
            num_cpus=1,
            memory=needs.memory,
            resources={DISK: needs.disk} if disk else None,
            max_retries=RETRIES,
        )
        running[asked.remote(task.to_dict(), work, str(Path.cwd()))] = task
    try:
        while running:
            ended, _ = ray.wait(list(running), num_returns=1)
            for reference in ended:
                yield _result(running.pop(reference), reference)
    finally:
        for reference in running:
            ray.cancel(reference)


def _do(task: dict[str, Any], work: str, folder: str) -> dict[str, Any]:
    """A task, on one of the machines. Relative paths are of the folder in which the batch was started."""
    if Path(folder).is_dir():
        os.chdir(folder)
    result: dict[str, Any] = import_module(work).do_task(task, lambda step: None)
    return result


def _result(task: Task, reference: Any) -> RowResult:
    import ray

    try:
        return RowResult.from_dict(ray.get(reference))
    except ray.exceptions.RayError as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        return RowResult.failed(
            task.row, f"Ray gave it up after {RETRIES} further attempts: {what}", "", task.needs.nbytes
        )


def _largest(resource: str) -> float:
    """The most of `resource` that a machine of the cluster has."""
    import ray

    return max((node["Resources"].get(resource, 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)


def _unfit(task: Task, memory: float, disk: float) -> RowResult:
    needs = task.needs
    name, wanted, most = ("memory", needs.memory, memory) if needs.memory > memory else (DISK, needs.disk, disk)
    reason = f"it needs about {wanted / 1e9:.1f} GB of {name}; the largest machine of the cluster has {most / 1e9:.1f}"
    hint = "Add a larger machine to the cluster, then run the same command again."
    return RowResult.failed(task.row, reason, hint, needs.nbytes)
