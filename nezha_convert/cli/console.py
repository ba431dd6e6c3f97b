"""The only file that prints. Data goes to stdout, talk to stderr; ``--json`` makes the data one JSON document."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from ..checkpoint import Decision, TensorEntry
from ..commands.diff import EQUAL, Difference
from ..commands.export import ExportReport
from ..commands.inspect import Inspection
from ..commands.repair import Repair
from ..errors import NezhaConvertError
from ..files.progress import Progress
from ..folder.report import Report
from ..hub import Pulled, Pushed
from ..mapping.plan import Dropped
from ..parity.report import Comparison, ParityReport

_SHOWN = 20
"""Problems in the text of an error; ``--json`` has all."""


class Console:
    """Shows results, errors and progress to a person, or as JSON to a program.

    Attributes:
        began: whether a document has begun to be printed, of which there is one a command.
    """

    began: ClassVar[bool] = False

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    def inspection(self, found: Inspection, tensors: Iterable[TensorEntry] | None = None) -> None:
        """What `inspect` found; with `tensors`, each one's name, type and shape as well."""
        if self.as_json:
            content = found.to_dict()
            if tensors is not None:
                content["entries"] = [{"name": t.name, "dtype": t.dtype, "shape": list(t.shape)} for t in tensors]
            self._document(content)
            return
        rows = [
            ("source", f"{found.source} ({found.format})"),
            ("files", ", ".join(f"{file.name} ({size(file.nbytes)})" for file in found.files)),
            ("family", found.title),
            ("head", f"{' or '.join(found.heads)}: {found.reason}" if found.heads else "unknown"),
            *([("trained", found.training)] if found.training else []),
            ("model", _model(found.model)),
            (
                "tensors",
                f"{found.tensors:,} of {size(found.nbytes)}: {size(found.weight_nbytes)} weights kept, "
                f"{size(found.optimizer_nbytes)} optimizer state in {found.optimizer_tensors:,}",
            ),
            *_dropped_rows(found.dropped),
            *_decision_rows(found.decisions),
            *(("problem", problem) for problem in found.problems[:_SHOWN]),
        ]
        if len(found.problems) > _SHOWN:
            rows.append(("", f"and {len(found.problems) - _SHOWN} more problems; --json has all"))
        rows.append(("next", found.hint))
        self._table(rows)
        for tensor in tensors or ():
            print(f"{tensor.name}  {tensor.dtype}  {list(tensor.shape)}")

    def report(self, report: Report) -> None:
        """What `convert` did, or would do."""
        if self.as_json:
            self._document(report.to_dict())
            return
        kept, dropped = len(report.written), len(report.dropped)
        if report.dry_run:
            done = f"would write {size(report.weight_nbytes)} of weights to {report.output}; nothing was written"
        else:
            done = f"{report.output} ({size(sum(file.nbytes for file in report.output_files))})"
        rows = [
            ("source", f"{report.source}: {report.title}"),
            ("head", f"{report.head}: {report.head_reason}"),
            ("tensors", f"{kept:,} used, {dropped:,} dropped, {len(report.tied):,} tied"),
            ("saved", f"{size(report.source_nbytes - report.weight_nbytes)} of {size(report.source_nbytes)}"),
            *_dropped_rows(report.dropped),
            *_decision_rows(report.decisions),
        ]
        if report.ignored_fields:
            rows.append(("ignored", f"fields of the config without a meaning here: {', '.join(report.ignored_fields)}"))
        if report.numbers:
            warnings = report.numbers.warnings
            rows.append(("numbers", report.numbers.summary))
            rows += [("warning", warning) for warning in warnings[:_SHOWN]]
            if len(warnings) > _SHOWN:
                rows.append(("warning", f"and {len(warnings) - _SHOWN} more; conversion.json has all"))
        rows.append(("output", done))
        if not report.dry_run:
            rows.append(("checked", "every tensor read back and equal bit by bit; hashes are in conversion.json"))
            rows.append(("time", f"{report.seconds:.1f} s"))
        self._table(rows)

    def difference(self, found: Difference) -> None:
        """What `diff` found: a line for each tensor that is not the same, then how many are."""
        if self.as_json:
            self._document(found.to_dict())
            return
        for t in found.tensors:
            if t.verdict == EQUAL:
                continue
            said = f"{t.verdict}: {' and '.join(map(str, map(list, t.shapes)))} {' and '.join(dict.fromkeys(t.dtypes))}"
            if t.count:
                said += f", {t.count:,} elements by up to {t.largest:.3g}, {t.relative:.3g} of the range"
            print(f"{t.name}  {said}")
        counts: dict[str, int] = {}
        for t in found.tensors:
            counts[t.verdict] = counts.get(t.verdict, 0) + 1
        rows = [
            (side, f"{name}: {family}; {left:,} names are no weights")
            for side, name, family, left in zip("ab", (found.a, found.b), found.families, found.left_out, strict=True)
        ]
        for side, names in zip("ab", found.unknown, strict=True):
            rows += [("unknown", f"only in {side}, in no table of its family: {name}") for name in names[:_SHOWN]]
            if len(names) > _SHOWN:
                rows.append(("unknown", f"and {len(names) - _SHOWN} more in {side}; --json has all"))
        rows.append(("tensors", ", ".join(f"{count:,} {verdict}" for verdict, count in counts.items())))
        rows.append(("verdict", "the same" if found.same else "DIFFERENT"))
        self._table(rows)

    def parity(self, report: ParityReport) -> None:
        """What `verify` found."""
        if self.as_json:
            self._document(report.to_dict())
            return
        for comparison in report.comparisons:
            self._comparison(comparison)
        tokenizer = report.tokenizer
        compared = f"{tokenizer.texts} texts against {tokenizer.reference}" if tokenizer else "none in the output"
        rows = [
            ("output", f"{report.output}: {report.architecture} in {report.dtype}, from {report.source}"),
            ("inputs", ", ".join(f"{case.name} {list(case.shape)}" for case in report.cases)),
            ("tokenizer", f"{compared}{f', {len(tokenizer.differing)} differ' if tokenizer else ''}"),
            *(("warning", warning) for warning in report.warnings),
            *(("problem", failure) for failure in report.failures),
            ("time", f"{report.seconds:.1f} s"),
            ("verdict", "passed" if report.passed else "FAILED"),
        ]
        self._table(rows)

    def _comparison(self, comparison: Comparison) -> None:
        from rich.table import Table
        from rich.text import Text

        title = f"in {comparison.arithmetic}, against {comparison.reference}; allowed: {comparison.tolerance:g}"
        table = Table(box=None, title=title, title_justify="left", pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("tensor", "max error", "of range", "cosine", "argmax", "peak"):
            table.add_column(heading, no_wrap=True, justify="left" if heading in ("tensor", "peak") else "right")
        for tensor in comparison.tensors:
            errors = (tensor.max_error, tensor.relative_error, tensor.cosine_distance)
            numbers = (*(f"{error:.1e}" for error in errors), f"{tensor.argmax_agreement:.1%}", str(tensor.peak))
            row = (Text(cell) for cell in (tensor.name, *numbers))
            table.add_row(*row, style="" if tensor.passed else "red")
        self._show(table)
        print()

    @property
    def bars(self) -> bool:
        """Whether a person is there to watch bars."""
        return not self.as_json and sys.stderr.isatty()

    @property
    def asks(self) -> bool:
        """Whether a person is there to be asked."""
        return self.bars and sys.stdin.isatty()

    def pushed(self, pushed: Pushed) -> None:
        """What `push` did, or would do."""
        if self.as_json:
            self._document(pushed.to_dict())
            return
        rows = [(file.state, f"{file.name} ({size(file.nbytes)})") for file in pushed.files]
        rows += [("left out", f"{name}: not of the record") for name in pushed.left_out]
        rows += [("warning", doubt) for doubt in pushed.doubts]
        if pushed.dry_run:
            what = "nothing was sent; its card would be:" if pushed.card else "nothing was sent"
            rows.append((pushed.repo_id, what))
        else:
            rows += self._outcome(pushed)
        self._table(rows)
        if pushed.dry_run and pushed.card:
            print(f"\n{pushed.card}", end="")

    def _outcome(self, pushed: Pushed) -> list[tuple[str, str]]:
        created = [("created", pushed.url)] if pushed.created else []
        if pushed.pull_request:
            return [*created, ("pull request", pushed.pull_request)]
        return [
            *created,
            ("commit", f"{pushed.url}/commit/{pushed.commit}" if pushed.commit else "none: nothing changed"),
        ]

    def pulled(self, pulled: Pulled) -> None:
        """What `pull` downloaded."""
        if self.as_json:
            self._document(pulled.to_dict())
            return
        rows = [("file", f"{name} ({size(nbytes)})") for name, nbytes in pulled.files]
        rows += [("address", str(pulled.address)), ("folder", str(pulled.folder))]
        self._table([*rows, ("next", f"nezha-convert inspect {pulled.folder}")])

    def repaired(self, repair: Repair) -> None:
        """What `repair` found and did."""
        if self.as_json:
            self._document(repair.to_dict())
            return
        rows = [("source", repair.source)]
        for fault in repair.faults:
            rows += [("problem", f"{fault.kind}: {fault.found}"), ("repair", fault.repair)]
        if not repair.faults:
            rows.append(("verdict", "nothing is wrong with it; it was left alone"))
        if repair.report:
            rows.append(("output", f"{repair.report.output}: every tensor read back and equal bit by bit"))
        if repair.pushed:
            rows += self._outcome(repair.pushed)
        if repair.faults and not (repair.report or repair.pushed):
            hint = f"nezha-convert repair {repair.source} "
            rows.append(("next", hint + ("OUTPUT, or --create-pr" if repair.source.startswith("hf://") else "OUTPUT")))
        self._table(rows)

    def exported(self, report: ExportReport) -> None:
        """What `export` did, or would do."""
        if self.as_json:
            self._document(report.to_dict())
            return
        zeros = sum(tensor.source == "zeros" for tensor in report.written)
        rows = [
            ("source", f"{report.source}: {report.head}"),
            ("program", report.title),
            *_decision_rows(report.decisions),
        ]
        if report.written:
            rows.append(
                ("tensors", f"{len(report.written):,} of {size(report.weight_nbytes)}, {zeros:,} of them zeros")
            )
        if report.dry_run:
            rows.append(("output", f"would be {report.output}; nothing was written"))
        else:
            files = ", ".join(f"{file.name} ({size(file.nbytes)})" for file in report.output_files)
            rows.append(("output", f"{report.output}: {files}"))
            rows += _checked_rows(report)
            rows += [("time", f"{report.seconds:.1f} s"), ("next", report.loaded_by)]
        self._table(rows)

    def error(self, error: NezhaConvertError) -> None:
        """An error and what to do next."""
        if self.as_json:
            self._document(error.to_dict())
            return
        print(f"error: {error.message}", file=sys.stderr)
        for problem in error.problems[:_SHOWN]:
            print(f"  - {problem}", file=sys.stderr)
        if len(error.problems) > _SHOWN:
            print(f"  - and {len(error.problems) - _SHOWN} more; --json has all", file=sys.stderr)
        if error.hint:
            print(f"next: {error.hint}", file=sys.stderr)

    def say(self, text: str) -> None:
        """A remark, on stderr."""
        print(text, file=sys.stderr)

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress | None]:
        """(started, progress): a bar over bytes on a terminal, silence elsewhere."""
        if self.as_json or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=RichConsole(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total, what: bar.update(task, completed=done, total=total)

    @contextmanager
    def steps(self) -> Iterator[Callable[[int, int, str], None]]:
        """progress(done, steps, what): a bar over steps on a terminal, silence elsewhere."""
        if self.as_json or not sys.stderr.isatty():
            yield lambda done, steps, what: None
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        with Bar(*columns, console=RichConsole(stderr=True), transient=True) as bar:
            task = bar.add_task("hashing, loading", total=None)
            yield lambda done, steps, what: bar.update(task, completed=done, total=steps, description=what)

    def _document(self, content: dict[str, Any]) -> None:
        Console.began = True
        json.dump(content, sys.stdout, indent=2, ensure_ascii=False)
        print()

    def _table(self, rows: Iterable[tuple[str, str]]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for label, text in rows:
            style = {"problem": "red", "warning": "yellow", "next": "green"}.get(label, "")
            table.add_row(Text(label, style=style or "bold"), Text(text, style=style))
        self._show(table)

    def _show(self, table: Any) -> None:
        from rich.console import Console as RichConsole

        console = RichConsole()
        if not console.is_terminal:  # a pipe has no width: keep each row on its line
            console.width = 10_000
        with console.capture() as captured:
            console.print(table)
        print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def size(nbytes: int) -> str:
    """Bytes for a person, in powers of 1000."""
    from rich.filesize import decimal

    return decimal(nbytes)


def _model(fields: dict[str, Any]) -> str:
    if not fields:
        return "unknown"
    return (
        f"{fields['num_hidden_layers']} layers, hidden {fields['hidden_size']}, {fields['num_attention_heads']} heads, "
        f"vocabulary {fields['vocab_size']:,}, clip distance {fields['max_relative_position']}, {fields['hidden_act']}"
    )


def _dropped_rows(dropped: Iterable[Dropped]) -> list[tuple[str, str]]:
    groups: dict[str, list[int]] = {}
    for tensor in dropped:
        groups.setdefault(tensor.reason, []).append(tensor.nbytes)
    return [("dropped", f"{len(sizes):,} ({size(sum(sizes))}): {reason}") for reason, sizes in groups.items()]


def _checked_rows(report: ExportReport) -> list[tuple[str, str]]:
    if not report.measured:
        return [("checked", "every tensor read back and equal bit by bit; hashes are in export.json")]
    return [
        (
            "checked",
            f"{m.output}: {m.relative_error:.1e} of its range from PyTorch, argmax differs in {m.argmax_differs:.1%}",
        )
        for m in report.measured
    ]


def _decision_rows(decisions: Iterable[Decision]) -> list[tuple[str, str]]:
    return [("decided", f"{d.field} = {json.dumps(d.value, ensure_ascii=False)}: {d.reason}") for d in decisions]
