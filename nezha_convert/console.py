"""The only file that prints. Data goes to stdout, talk to stderr; ``--json`` makes the data one JSON document."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .config import Decision
from .errors import NezhaConvertError
from .mapping.plan import Dropped
from .report import Inspection, Report
from .tensors import TensorEntry
from .writer import Progress

_SHOWN = 20
"""Problems in the text of an error; ``--json`` has all."""


class Console:
    """Shows results, errors and progress to a person, or as JSON to a program."""

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
        rows.append(("output", done))
        if not report.dry_run:
            rows.append(("checked", "every tensor read back and equal bit by bit; hashes are in conversion.json"))
            rows.append(("time", f"{report.seconds:.1f} s"))
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
    def progress(self, title: str) -> Iterator[tuple[Progress, Progress]]:
        """(started, progress): a bar over bytes on a terminal, silence elsewhere."""
        if self.as_json or not sys.stderr.isatty():
            yield (lambda nbytes: None), (lambda nbytes: None)
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
            yield (lambda nbytes: bar.update(task, total=nbytes)), (lambda nbytes: bar.update(task, advance=nbytes))

    def _document(self, content: dict[str, Any]) -> None:
        json.dump(content, sys.stdout, indent=2, ensure_ascii=False)
        print()

    def _table(self, rows: Iterable[tuple[str, str]]) -> None:
        from rich.console import Console as RichConsole
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for label, text in rows:
            style = {"problem": "red", "next": "green"}.get(label, "")
            table.add_row(Text(label, style=style or "bold"), Text(text, style=style))
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


def _decision_rows(decisions: Iterable[Decision]) -> list[tuple[str, str]]:
    return [("decided", f"{d.field} = {json.dumps(d.value, ensure_ascii=False)}: {d.reason}") for d in decisions]
