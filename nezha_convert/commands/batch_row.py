"""One row of a batch: inspect, convert, verify, push. Every way that it can end is a result, and none an exception."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..batches.columns import arguments_of
from ..batches.places import at_hand, keep, nbytes_in
from ..batches.pool import Task
from ..batches.results import CONVERTED, DECISION, FAILED, FOREIGN, VERIFIED, RowResult
from ..batches.row import Row
from ..batches.worker import serve_tasks
from ..errors import HubError, MappingError, NezhaConvertError
from ..files.hashing import sha256
from ..files.staging import MARK
from ..folder.record import ConvertedFolder
from ..formats.open import open_checkpoint
from ..hub import Address, Hub, Pushed, is_address, seconds_to_wait
from ..mapping.recognise import foreign
from ..mapping.survey import Asked, Unclear, look
from ..text import with_names
from .convert import convert
from .push import push
from .verify import verify

PATIENT = 12
"""How often a row waits for the Hub's limit of requests: an hour of its windows of five minutes."""

_SAME = ("format", "family", "head", "architecture", "decisions", "dropped", "written", "kept", "tied")
"""What two conversions of one source have in common in their records, if they were asked for the same."""


def serve() -> None:
    """Do the tasks that standard input names; see `batches/pool.py`."""
    serve_tasks(do_task)


def do_task(task: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """`do_row`, from plain data to plain data."""
    return do_row(Task.from_dict(task), tell).to_dict()


@dataclass(slots=True)
class _Clock:
    """Tells the steps of a row, and how long each took."""

    tell: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self.tell(name)
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun


def do_row(task: Task, tell: Callable[[str], None]) -> RowResult:
    """Do a row.

    Args:
        task: the row. What it has done before, as its output's own record says, is not done again.
        tell: told of each step.

    Returns:
        What became of it.
    """
    row, clock = task.row, _Clock(tell)
    path: Path | None = None
    try:
        if task.needs.missing:
            return RowResult.of(row, FOREIGN, reason=task.needs.missing)
        path, name = _fetched(task, clock)
        with at_hand(row.output) as output:
            return replace(
                _done(task, path, name, output, clock), seconds=clock.seconds, source_nbytes=task.needs.nbytes
            )
    except NezhaConvertError as error:
        refused = _refused(row, error, path)
    except OSError as error:
        refused = _failed(
            row, f"{error.filename or row.source}: {error.strerror or error}", "Make it readable or writable."
        )
    except MemoryError:
        refused = _failed(row, "there is not enough memory", "Allow fewer rows at once: --jobs 1")
    except Exception as error:  # a fault of ours in one row must not end the others
        what = f"a fault of nezha-convert: {type(error).__name__}: {error}"
        refused = _failed(row, what, "Please report it with the output of the first command under NEZHA_DEBUG=1.")
    return replace(refused, seconds=clock.seconds, source_nbytes=task.needs.nbytes)


def _fetched(task: Task, clock: _Clock) -> tuple[Path, str]:
    """Where the source lies on this machine, and its name. Of the Hub, the commit at which it was looked at."""
    row = task.row
    if not is_address(row.source):
        path = Path(row.source)
        return path, path.resolve().name
    address = replace(Address.parse(row.source), revision=task.needs.commit or Address.parse(row.source).revision)
    settings = dict(task.settings)
    with clock.step("downloading"):
        pulled = _patiently(lambda: Hub(settings.get("endpoint"), settings.get("token")).fetch(address), clock)
    return pulled.source, str(pulled.address)


def _patiently(ask: Callable[[], Any], clock: _Clock) -> Any:
    """What `ask` returns. Where the Hub's limit of requests is reached, wait as long as it says, and ask again."""
    for _ in range(PATIENT):
        try:
            return ask()
        except HubError as error:
            seconds = seconds_to_wait(error)
            if seconds is None:
                raise
            with clock.step("waiting for the Hub"):
                time.sleep(seconds + 1)
    return ask()


def _done(task: Task, path: Path, name: str, output: Path, clock: _Clock) -> RowResult:
    """The row once it is converted and, if that was asked for, proved and pushed."""
    row = task.row
    proved = False
    if _stands(row, path, output):
        proved = task.trust and not ConvertedFolder(output).doubts()
    elif (output / MARK).is_file() and not task.force:
        return RowResult.of(
            row,
            FAILED,
            reason=f"{row.output}: exists already, and is not a whole conversion of this source with these options",
            hint="The first command replaces it, and --force all such outputs; or give the row another output.",
            commands=row.commands("--force"),
        )
    else:
        with clock.step("converting"):
            convert(path, output, source_name=name, force=task.force, **arguments_of("convert", row.options))
        if not row.verifies:
            keep(output, row.output)
    if row.verifies and not proved:
        with clock.step("verifying"):
            report = verify(path, output, **arguments_of("verify", row.options))
        if not report.passed:
            reason = f"it does not compute what the source computes: {'; '.join(report.failures)}"
            return _failed(row, reason, "The second command shows where they part.")
        keep(output, row.output)
    result = _result(row, output)
    return replace(result, pushed=_pushed(task, output, clock)) if row.repository else result


def _result(row: Row, output: Path) -> RowResult:
    """What the output's record says."""
    record = ConvertedFolder(output).record
    parity = record.get("parity") if row.verifies else None
    errors = [comparison["worst_error"] for comparison in parity["comparisons"]] if parity else []
    assumed = parity.get("assumed", ()) if parity else ()
    return RowResult.of(
        row,
        VERIFIED if parity else CONVERTED,
        family=record["family"],
        head=record["head"],
        worst_error=max((error for error in errors if error is not None), default=None),
        assumed=tuple(one["text"] for one in assumed if one["name"] not in parity.get("accepted", ()))
        if parity
        else (),
        output_nbytes=nbytes_in(output),
        record=sha256(output / MARK),
    )


def _pushed(task: Task, output: Path, clock: _Clock) -> str:
    """The address of the repository or pull request that has the output. What is there already is not sent again."""
    settings: dict[str, Any] = dict(task.settings)
    arguments = {**settings, **arguments_of("push", task.row.options)}
    with clock.step("pushing"):
        done: Pushed = _patiently(lambda: push(output, task.row.repository, **arguments), clock)
    return done.pull_request or done.url


def _stands(row: Row, path: Path, output: Path) -> bool:
    """Whether `output` is a whole conversion of the source at `path` as the row asks for it."""
    if not (output / MARK).is_file():
        return False
    try:
        folder = ConvertedFolder(output)
        if folder.changes() or not _is_of(folder, row, path):
            return False
        arguments = arguments_of("convert", row.options)
        planned = json.loads(convert(path, output, dry_run=True, **arguments).to_json())
    except NezhaConvertError as error:
        return bool(error.ways)  # a question, and somebody has answered it by a command of their own
    files = [[(file["name"], file["nbytes"]) for file in one["output_files"]] for one in (planned, folder.record)]
    return files[0] == files[1] and all(planned[key] == folder.record.get(key) for key in _SAME)


def _is_of(folder: ConvertedFolder, row: Row, path: Path) -> bool:
    """Whether each file that `folder` was converted from is there, by its name and hash."""
    checkpoint = open_checkpoint(path, row.options.get("part"), bool(row.options.get("average")))
    beside = checkpoint.path.parent
    named = [Path(str(row.options[name])) for name in ("config", "vocab", "labels") if name in row.options]
    there = [*checkpoint.files, *named, *beside.glob("*"), *beside.glob("*/*"), *path.glob("*")]
    by_name: dict[str, set[Path]] = {}
    for file in there:
        if file.is_file():
            by_name.setdefault(file.name, set()).add(file)
    return all(
        any(sha256(file) == recorded["sha256"] for file in by_name.get(recorded["name"], ()))
        for recorded in folder.record["source_files"]
    )


def _refused(row: Row, error: NezhaConvertError, path: Path | None) -> RowResult:
    """What an error makes of a row: a question, a model that is no NEZHA, or a failure."""
    reason = "; ".join((error.message, *error.problems))
    if error.ways:
        hint = "Choose one of these commands, or say it in the manifest; then run the batch again."
        return RowResult.of(row, DECISION, reason=reason, hint=hint, commands=tuple(_answers(row, error.ways)))
    if isinstance(error, MappingError) and path is not None and (kind := _foreign(row, path)):
        if kind.startswith("-"):
            return RowResult.of(row, DECISION, reason=reason, hint=error.hint, commands=row.commands(*kind.split())[:1])
        return RowResult.of(row, FOREIGN, reason=error.message, hint=_about(row, error.hint))
    return _failed(row, reason, error.hint)


def _answers(row: Row, ways: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    """A command for each answer: convert's, with the answer in place of what the row said."""
    for way in ways:
        if not way[0].startswith("-"):
            yield replace(row, source=way[0]).commands()[0]
            continue
        column = way[0].removeprefix("--").replace("-", "_")
        said = {name: value for name, value in row.options.items() if name != column or isinstance(value, list)}
        yield replace(row, options=said).commands(*way)[0]


def _foreign(row: Row, path: Path) -> str:
    """Why the source is no NEZHA: "foreign"; an answer, where its encoder is one; empty where it is one."""
    options = row.options
    checkpoint = open_checkpoint(path, options.get("part"), bool(options.get("average")))
    found = look(checkpoint, Asked(prefix=options.get("prefix")))
    prefix = options.get("prefix") or ""
    model = foreign({name: entry for name, entry in checkpoint.entries.items() if name.startswith(prefix)})
    if model and model.encoder_converts and options.get("head") != "encoder":
        return "--head encoder"
    return "foreign" if model or (isinstance(found, Unclear) and found.family is None) else ""


def _failed(row: Row, reason: str, hint: str) -> RowResult:
    return RowResult.failed(row, reason, _about(row, hint))


def _about(row: Row, hint: str) -> str:
    """`hint` with the row's own names."""
    return with_names(hint, SOURCE=row.source, OUTPUT=row.output)
