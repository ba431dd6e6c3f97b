"""`batch`: the rows of a manifest, each inspected, converted, proved and, if asked, pushed; none of them twice."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from .._version import __version__
from ..batches.estimate import estimate
from ..batches.journal import REPORT, Journal, alone
from ..batches.manifest import Manifest, read_manifest
from ..batches.needs import CONVERTING, PROVING, Needs, needs_of
from ..batches.page import write_page
from ..batches.places import check_store, is_whole, record_of
from ..batches.pool import DONE, Executor, Limits, Task, Watch, run_here
from ..batches.results import CONVERTED, DECISION, FOREIGN, PLANNED, VERIFIED, BatchReport, RowResult
from ..batches.row import Row, is_remote
from ..errors import HubError, UsageError
from ..files.given import nbytes_of_size, path_of
from ..files.staging import check_writable, write_file
from ..hub import SCHEME, Hub, is_address
from ..parity.converted import need_torch
from ..parity.inputs import available_memory

WORK = "nezha_convert.commands.batch_row"
"""What a worker runs."""

ASKING = 8
"""Requests to the Hub at a time, when its rows are looked at."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """The rows of a batch, what each needs, and what is known of it already."""

    manifest: Manifest
    needs: Mapping[int, Needs]
    known: Mapping[int, RowResult]

    @property
    def open(self) -> list[Row]:
        """The rows that are to be done."""
        return [row for row in self.manifest.rows if row.number not in self.known]


def batch(
    manifest: str | Path | None,
    output: str | Path,
    *,
    family: str | None = None,
    limit: int | None = None,
    options: Mapping[str, Any] | None = None,
    verify: bool = True,
    push: str | None = None,
    create_pr: bool = False,
    license: str | None = None,
    jobs: int | None = None,
    memory: int | str | None = None,
    disk: int | str | None = None,
    force: bool = False,
    dry_run: bool = False,
    ray: str | None = None,
    html: str | Path | None = None,
    token: str | None = None,
    endpoint: str | None = None,
    watch: Watch | None = None,
) -> BatchReport:
    """Convert, prove and, if asked, push every row of `manifest`. What an earlier run did is not done again.

    Args:
        manifest: a .csv or .jsonl file, a folder of folders, "hf://OWNER/*" or "hf://OWNER/PREFIX*"; None with
            `family`.
        output: the folder in which each row gets its own, or the address of one in a store that fsspec knows, such as
            "s3://bucket/folder". The journal and report.json lie in the folder; of a store in ./NAME-batch.
        family: convert what the Hub finds by this tag, such as "nezha".
        limit: the most models of a search.
        options: values for the manifest's columns, of rows that do not say: {"dtype": "bfloat16"}.
        verify: prove each row; a row can say otherwise.
        push: the owner to push each row to, or "OWNER/{name}"; a row's own column `push` goes first.
        create_pr: open pull requests instead of changing branches: where `push` says, else at the source on the Hub.
        license: of the weights that are pushed.
        jobs: rows at a time; None takes one a core, and no more than fit into the memory.
        memory: bytes, or a size such as "16GB", that all rows together may use; None takes what is available.
        disk: bytes or a size for all outputs and downloads of this run; None takes what is free.
        force: replace outputs that are another conversion.
        dry_run: tell what would be done, how long it will take and how large it will be; write nothing.
        ray: do the rows on a Ray cluster: its address, or "auto".
        html: write the report as a web page, too.
        token, endpoint: of the Hub, as for `push`.
        watch: told of each step of each row.

    Returns:
        What became of each row, in the manifest's order.

    Raises:
        UsageError: the manifest or an argument says what cannot be; nothing was written. Or torch or Ray is missing.
        HubError: a search on the Hub failed.
        OutputError: another batch writes into `output`, or it cannot be written.

    Example:
        >>> import nezha_convert
        >>> report = nezha_convert.batch("models/", "converted/", verify=False)
        >>> [row.outcome for row in report.rows]
        ['converted']
    """
    begun = time.monotonic()
    if not str(output):
        raise UsageError(
            "--output: empty; expected a folder, or the address of one", hint="Name it: --output converted"
        )
    place = str(output) if is_remote(str(output)) else str(path_of(output))
    if dry_run and html is not None:
        raise UsageError("--html: a dry run writes nothing", hint="Leave out one of them; --json prints the plan.")
    page = _page(html)
    asked: dict[str, Any] = {"verify": None if verify else False, "create_pr": create_pr or None, "license": license}
    defaults = {**(options or {}), **{name: value for name, value in asked.items() if value is not None}}
    given = None if manifest is None else str(manifest)
    searching = family is not None or (given or "").startswith(SCHEME)
    finder = Hub(endpoint, token) if searching else None
    read = read_manifest(given, place, family=family, limit=limit, defaults=defaults, push=push, hub=finder)
    check_store(place)
    state = _state_of(place)
    executor, limits, where = _executor(ray, jobs, memory, disk, read.rows, state)
    report = BatchReport(__version__, read.name, place, (), read.skipped, dry_run, where=where)
    hub = Hub(endpoint, token) if any(is_address(row.source) for row in read.rows) else None
    if dry_run:
        return _planned(_look(read, Journal(state), hub), report, limits)
    with alone(state):
        journal = Journal(state)
        plan = _look(read, journal, hub)
        if any(row.verifies for row in plan.open):
            need_torch("batch proves each row, unless --no-verify says otherwise; verify")
        settings = tuple((name, value) for name, value in (("endpoint", endpoint), ("token", token)) if value)
        tasks = [_task(row, plan, journal, force, settings) for row in plan.open]
        rows = _run(plan, tasks, journal, watch or _nobody, lambda tell: executor(tasks, limits, WORK, tell))
        report = replace(report, rows=rows, seconds=time.monotonic() - begun)
        write_file(state / REPORT, report.to_json().encode())
    if page:
        write_page(report, page)
    return report


def _page(html: str | Path | None) -> Path | None:
    """Where the page goes; raises OutputError where it could not be written, before anything is done."""
    if html is None:
        return None
    check_writable(page := path_of(html))
    return page


def _state_of(output: str) -> Path:
    """The folder of the journal and the report: that of the outputs or, where they go to a store, one beside us."""
    return Path(f"{PurePosixPath(output).name or 'output'}-batch") if is_remote(output) else Path(output)


def _limits(
    jobs: int | None, memory: int | str | None, disk: int | str | None, rows: Sequence[Row], state: Path
) -> Limits:
    """The limits that were asked for, or those of this machine."""
    if jobs is not None and not (isinstance(jobs, int) and jobs > 0):
        raise UsageError(f"--jobs {jobs!r}: expected a number from 1 on")
    there = next(folder for folder in (state.absolute(), *state.absolute().parents) if folder.is_dir())
    available = available_memory() if memory is None else nbytes_of_size(memory)
    one = PROVING if any(row.verifies for row in rows) else CONVERTING
    most = sys.maxsize if available is None else available
    free = shutil.disk_usage(there).free if disk is None else nbytes_of_size(disk)
    return Limits(jobs or max(1, min(os.cpu_count() or 1, len(rows), most // one)), most, free)


def _executor(
    ray: str | None,
    jobs: int | None,
    memory: int | str | None,
    disk: int | str | None,
    rows: Sequence[Row],
    state: Path,
) -> tuple[Executor, Limits, str]:
    """What does the rows, within which limits, and its name."""
    limits = _limits(jobs, memory, disk, rows, state)
    if ray is None:
        return run_here, limits, f"{limits.jobs} process{'es' if limits.jobs > 1 else ''} of this machine"
    if (jobs, memory, disk) != (None, None, None):
        raise UsageError(
            "--jobs, --memory and --disk are of this machine; a cluster's machines say what they have to Ray",
            hint="Leave them out; what a machine gives is said to its `ray start`, as docs/batch.md shows.",
        )
    from ..batches.on_ray import connect

    executor, where = connect(ray)
    return executor, limits, where


def _look(manifest: Manifest, journal: Journal, hub: Hub | None) -> _Plan:
    """What each row needs, and what is known of it: from the journal, where the output's own record agrees."""
    needs, known = dict[int, Needs](), dict[int, RowResult]()

    def ask(row: Row) -> Needs | HubError:
        try:
            return needs_of(row, hub if is_address(row.source) else None)
        except HubError as error:
            return error

    with ThreadPoolExecutor(ASKING) as pool:
        for row, answer in zip(manifest.rows, pool.map(ask, manifest.rows), strict=True):
            if isinstance(answer, HubError):
                needs[row.number] = Needs(0, 0, 0)
                known[row.number] = RowResult.failed(row, answer.message, answer.hint)
                continue
            needs[row.number] = answer
            before = journal.found(row.output, answer.fingerprint)
            if before and _holds(before, journal.of_this_version(row.output)):
                known[row.number] = replace(before, number=row.number, resumed=True)
    return _Plan(manifest, needs, known)


def _holds(before: RowResult, same_version: bool) -> bool:
    """Whether a row's result still holds: its output is the same, or there is nothing that could have changed it."""
    if before.outcome in (VERIFIED, CONVERTED):
        return is_whole(before.output, before.record)
    return before.outcome in (FOREIGN, DECISION) and same_version and not record_of(before.output)


def _task(row: Row, plan: _Plan, journal: Journal, force: bool, settings: tuple[tuple[str, str], ...]) -> Task:
    needs = plan.needs[row.number]
    return Task(row, needs, force, not journal.differs(row.output, needs.fingerprint), settings)


def _run(
    plan: _Plan,
    tasks: Sequence[Task],
    journal: Journal,
    watch: Watch,
    start: Callable[[Watch], Iterator[RowResult]],
) -> tuple[RowResult, ...]:
    """Do `tasks`; the results of all rows. Each is in the journal before the next one is looked at."""
    rows, known = {row.number: row for row in plan.manifest.rows}, dict(plan.known)
    for number, result in known.items():
        watch(rows[number], DONE, result)
    results = start(watch) if tasks else iter(())
    try:
        for result in results:
            journal.add(result, plan.needs[result.number].fingerprint)
            known[result.number] = result
            watch(rows[result.number], DONE, result)
    finally:
        if isinstance(results, Generator):
            results.close()  # Ctrl-C: let the workers clean up
    return tuple(known[number] for number in rows)


def _planned(plan: _Plan, report: BatchReport, limits: Limits) -> BatchReport:
    """The report of a dry run."""
    rows = [
        plan.known.get(row.number)
        or RowResult.of(
            row, PLANNED, reason=_steps(row), commands=row.commands(), source_nbytes=plan.needs[row.number].nbytes
        )
        for row in plan.manifest.rows
    ]
    computed = estimate(
        [plan.needs[row.number] for row in plan.open],
        plan.known.values(),
        limits.jobs,
        [row.verifies for row in plan.open],
    )
    return replace(report, rows=tuple(rows), estimate=computed)


def _steps(row: Row) -> str:
    """What would be done with a row, in words."""
    steps = ["convert", *(["verify"] if row.verifies else [])]
    if row.repository:
        steps.append(f"{'open a pull request at' if row.options.get('create_pr') else 'push to'} {row.repository}")
    return ", ".join(steps)


def _nobody(row: Row, step: str, result: RowResult | None = None) -> None:
    """Watches nothing."""
