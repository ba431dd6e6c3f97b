"""The only file that prints. Data goes to stdout, talk to stderr; ``--json`` makes the data one JSON document."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import NezhaConvertError
from ..files.progress import Progress
from ..text import printable, printable_json
from .rows import SHOWN, Result, Row, parts

if TYPE_CHECKING:
    from ..parity.report import Comparison


class Console:
    """Shows results, errors and progress to a person, or as JSON to a program.

    Attributes:
        began: whether this command has begun to print its document. It prints one at most.
    """

    began: ClassVar[bool] = False

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    def show(self, result: Result, *more: Row) -> None:
        """Print what a command returned; for a person, with `more` rows at its end."""
        if self.as_json:
            self._document(result.to_dict())
            return
        for _, neighbours in groupby((*parts(result), *more), type):
            rows = []
            for part in neighbours:
                match part:
                    case str():
                        print(printable(part))
                    case (_, _):
                        rows.append(part)
                    case _:
                        self._comparison(part)
            if rows:
                self._rows(rows)

    def error(self, error: NezhaConvertError, hint: str | None = None, commands: tuple[str, ...] = ()) -> None:
        """Print an error and what to do next: one of `commands`, or `hint`, or the error's own."""
        hint = error.hint if hint is None else hint
        if self.as_json:
            self._document({**error.to_dict(), "hint": hint, "next": list(commands)})
            return
        self.say(f"error: {error.message}")
        for problem in error.problems[:SHOWN]:
            self.say(f"  - {problem}")
        if len(error.problems) > SHOWN:
            self.say(f"  - and {len(error.problems) - SHOWN} more; --json has all")
        for line in commands or filter(None, (hint,)):
            self.say(f"next: {line}")

    def say(self, text: str) -> None:
        """Print a remark, of one line or several, on stderr."""
        print(printable(text, keep="\n"), file=sys.stderr)

    @property
    def bars(self) -> bool:
        """Whether a person watches, so that progress bars make sense."""
        return not self.as_json and sys.stderr.isatty()

    @property
    def asks(self) -> bool:
        """Whether a person is there who can answer a question."""
        return self.bars and sys.stdin.isatty()

    @contextmanager
    def progress(self, title: str, unit: Literal["bytes", "steps"]) -> Iterator[Progress | None]:
        """A callable that moves a progress bar; None when nobody watches.

        Args:
            title: the bar's text, until the work names what it does.
            unit: of what the work counts.
        """
        if not self.bars:
            yield None
            return
        from rich.console import Console as RichConsole
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            ProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Bar

        text = TextColumn("{task.description}", markup=False)
        columns: dict[str, tuple[ProgressColumn, ...]] = {
            "bytes": (text, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()),
            "steps": (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), text),
        }
        with Bar(*columns[unit], console=RichConsole(stderr=True), transient=True) as bar:
            task = bar.add_task(title := printable(title), total=None)
            yield lambda done, total, what: bar.update(
                task, completed=done, total=total, description=printable(what) or title
            )

    def _document(self, content: dict[str, Any]) -> None:
        Console.began = True
        print(printable_json(content))

    def _rows(self, rows: Iterable[Row]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for label, text in rows:
            style = {"problem": "red", "warning": "yellow", "next": "green"}.get(label, "")
            table.add_row(Text(printable(label), style=style or "bold"), Text(printable(text), style=style))
        self._table(table)

    def _comparison(self, comparison: Comparison) -> None:
        from rich.table import Table
        from rich.text import Text

        title = f"in {comparison.arithmetic}, against {comparison.reference}; allowed: {comparison.tolerance:g}"
        table = Table(
            box=None, title=Text(printable(title)), title_justify="left", pad_edge=False, padding=(0, 2, 0, 0)
        )
        for heading in ("tensor", "max error", "of range", "cosine", "argmax", "peak"):
            table.add_column(heading, no_wrap=True, justify="left" if heading in ("tensor", "peak") else "right")
        for tensor in comparison.tensors:
            errors = (tensor.max_error, tensor.relative_error, tensor.cosine_distance)
            numbers = (*(f"{error:.1e}" for error in errors), f"{tensor.argmax_agreement:.1%}", str(tensor.peak))
            row = (Text(printable(cell)) for cell in (tensor.name, *numbers))
            table.add_row(*row, style="" if tensor.passed else "red")
        self._table(table)
        print()

    def _table(self, table: Any) -> None:
        from rich.console import Console as RichConsole

        console = RichConsole()
        if not console.is_terminal:  # a pipe has no width: keep each row on one line
            console.width = 10_000
        with console.capture() as captured:
            console.print(table)
        print("\n".join(line.rstrip() for line in captured.get().splitlines()))
