"""The only file that prints. Data goes to stdout, talk to stderr; ``--json`` makes the data one JSON document."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import StringIO
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import click

from ..errors import NezhaConvertError
from ..files.progress import Progress
from ..text import cell_width, printable, printable_json
from .rows import SHOWN, Result, Row, parts

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.table import Table

    from ..parity.results import Comparison


ENDLESS = 10_000
"""Columns of a screen that breaks no line."""

COPIED = ("next", "load")
"""Labels of rows that people copy."""

WIDE = 80
"""Columns of a terminal from which on a progress bar has all its parts."""


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
        self._say_in("red", f"error: {error.message}")
        for problem in error.problems[:SHOWN]:
            self._say_in("red", f"  - {problem}")
        if len(error.problems) > SHOWN:
            self.say(f"  - and {len(error.problems) - SHOWN} more; --json has all")
        for line in commands or filter(None, (hint,)):
            self._say_in("green", f"next: {line}", whole=True)

    def say(self, text: str) -> None:
        """Print a remark, of one line or several, on stderr."""
        print(printable(text, keep="\n"), file=sys.stderr)

    def _say_in(self, color: str, text: str, whole: bool = False) -> None:
        """`say`, in a color and broken at spaces where a person reads it. rich is not imported: memory may be short.

        Args:
            color: click's name of it.
            text: what to print.
            whole: break no line. A command that is copied from two lines would be two commands.
        """
        if not self.bars:
            self.say(text)
            return
        given = printable(text, keep="\n").split("\n")
        lines = given if whole else [part for line in given for part in broken(line, _width())]
        plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        for line in lines:
            print(line if plain else click.style(line, fg=color), file=sys.stderr)

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
        from rich.table import Column

        console, whole = RichConsole(stderr=True), Column(no_wrap=True)  # a second line would stay when the bar moves
        columns: dict[str, tuple[ProgressColumn, ...]] = {
            "bytes": (DownloadColumn(table_column=whole),),
            "steps": (MofNCompleteColumn(table_column=whole),),
        }
        if console.width >= WIDE:
            width = console.width // 4
            more = (TransferSpeedColumn(table_column=whole), TimeRemainingColumn(table_column=whole))
            columns["bytes"] = (BarColumn(width), *columns["bytes"], *more)
            columns["steps"] = (BarColumn(width), *columns["steps"], TimeElapsedColumn(table_column=whole))
        text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1))
        with Bar(*columns[unit], text, console=console, transient=True, expand=True) as bar:
            task = bar.add_task(title := printable(title), total=None)
            yield lambda done, total, what: bar.update(
                task, completed=done, total=total, description=printable(what) or title
            )

    def _document(self, content: dict[str, Any]) -> None:
        Console.began = True
        print(printable_json(content))

    def _rows(self, rows: Sequence[Row]) -> None:
        """Labels beside texts. What people copy stays on one line: copied from two, it would be two commands."""
        from rich.table import Table
        from rich.text import Text

        labels = max(cell_width(printable(label)) for label, _ in rows)
        for whole, group in groupby(rows, lambda row: row[0] in COPIED):
            table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
            table.add_column(no_wrap=True, min_width=labels)
            table.add_column(overflow="fold", no_wrap=whole)
            for label, text in group:
                style = {"problem": "red", "warning": "yellow", "next": "green"}.get(label, "")
                table.add_row(Text(printable(label), style=style or "bold"), Text(printable(text), style=style))
            console = _screen()
            if whole:
                console.width = ENDLESS
            _print_table(table, console)

    def _comparison(self, comparison: Comparison) -> None:
        """A table of numbers; on a terminal that is too narrow for it, a line or two for each tensor."""
        from rich.table import Table
        from rich.text import Text

        title = f"in {comparison.arithmetic}, against {comparison.reference}; allowed: {comparison.tolerance:g}"
        headings = ("tensor", "max error", "of range", "cosine", "argmax", "peak")
        table = Table(
            box=None, title=Text(printable(title)), title_justify="left", pad_edge=False, padding=(0, 2, 0, 0)
        )
        for heading in headings:
            table.add_column(heading, no_wrap=True, justify="left" if heading in ("tensor", "peak") else "right")
        stacked = Table(box=None, show_header=False, title=table.title, title_justify="left", pad_edge=False)
        for tensor in comparison.tensors:
            errors = (tensor.max_error, tensor.relative_error, tensor.cosine_distance)
            numbers = (*(f"{error:.1e}" for error in errors), f"{tensor.argmax_agreement:.1%}", str(tensor.peak))
            cells, style = [printable(cell) for cell in (tensor.name, *numbers)], "" if tensor.passed else "red"
            table.add_row(*map(Text, cells), style=style)
            named = ", ".join(f"{heading} {cell}" for heading, cell in zip(headings[1:], cells[1:], strict=True))
            stacked.add_row(Text(f"{cells[0]}\n  {named}"), style=style)
        console = _screen()
        fits = console.measure(table, options=console.options.update(max_width=ENDLESS)).maximum <= console.width
        _print_table(table if fits else stacked, console)
        print()


def broken(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` cells, broken at spaces alone: a longer word, such as a path, stays whole.

    The first word stays with the second one: it is the mark of a list or says what the line is.
    """
    lines = [""]
    for word in re.findall(r"^ *[^ ]+ +[^ ]+| *[^ ]+", text):
        if lines[-1] and cell_width(lines[-1] + word) > width:
            lines.append(word.lstrip())
        else:
            lines[-1] += word
    return lines


def _width() -> int:
    """Columns of the terminal that shows stderr."""
    with suppress(OSError, ValueError):  # not a terminal of the system's, or closed
        return int(os.environ.get("COLUMNS") or os.get_terminal_size(sys.stderr.fileno()).columns) or WIDE
    return WIDE


def _screen() -> RichConsole:
    """Makes text for stdout as it is, and writes none: rich would end the process where nobody reads its output."""
    from rich.console import Console as RichConsole

    console = RichConsole(file=StringIO(), force_terminal=sys.stdout.isatty() or None)
    if not console.is_terminal:  # a pipe has no width: keep each row on one line
        console.width = ENDLESS
    return console


def _print_table(table: Table, console: RichConsole) -> None:
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))
