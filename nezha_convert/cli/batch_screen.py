"""What a person sees while a batch runs: a live table on a terminal, elsewhere a line for each row that ends."""

from __future__ import annotations

import shlex
import time
from collections import Counter, deque
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from ..text import printable
from .console import Console

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

    from ..batches.results import RowResult
    from ..batches.row import Row

RECENT = 5
"""Rows that ended, of those that the live table shows."""

_STYLES = {"verified": "green", "converted": "green", "needs a decision": "yellow", "failed": "red"}


class BatchScreen:
    """Shows how far a batch has come.

    Args:
        console: for whom.
        again: the words of the command, which goes on where it was stopped. Its token is not shown.
    """

    def __init__(self, console: Console, again: Sequence[str]) -> None:
        self._console = console
        pairs = zip(["", *again], again, strict=False)
        self._again = [word for before, word in pairs if "--token" not in (before, word.partition("=")[0])]
        self._secret = ", with --token as before" if len(self._again) < len(again) else ""
        self._running: dict[int, tuple[Row, str, float]] = {}
        self._recent: deque[tuple[Row, RowResult]] = deque(maxlen=RECENT)
        self._count: Counter[str] = Counter()
        self._begun = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> BatchScreen:
        if self._console.bars:
            from rich.console import Console as RichConsole
            from rich.live import Live

            screen = RichConsole(stderr=True)
            self._live = Live(get_renderable=self._table, console=screen, transient=True, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        if isinstance(error, KeyboardInterrupt):
            done = sum(self._count.values())
            self._console.say(f"{done:,} rows have ended, and what is done is not done again. To go on{self._secret}:")
            self._console.say(f"next: {shlex.join(self._again)}")

    def watch(self, row: Row, step: str, result: RowResult | None = None) -> None:
        """Take note that `row` is at `step`, or has ended with `result`."""
        if result is None:
            begun = self._running[row.number][2] if row.number in self._running else time.monotonic()
            self._running[row.number] = (row, step, begun)
            return
        self._running.pop(row.number, None)
        self._count[result.outcome] += 1
        self._recent.append((row, result))
        if not self._live and not result.resumed:
            self._console.say(f"{sum(self._count.values()):>6,}  {_line(row, result)}")

    def _table(self) -> Group:
        """What is shown now. Another thread asks for it, so it goes through copies: rows end meanwhile."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for _ in range(3):
            table.add_column(no_wrap=True, overflow="ellipsis")
        now = time.monotonic()
        for row, result in list(self._recent):
            style = _STYLES.get(result.outcome, "dim")
            took = f"{sum(result.seconds.values()):.1f} s"
            table.add_row(Text(result.outcome, style=style), Text(printable(row.source)), Text(took))
        for row, step, begun in list(self._running.values()):
            table.add_row(Text(step, style="bold"), Text(printable(row.source)), Text(f"{now - begun:.0f} s"))
        counts = ", ".join(f"{count:,} {outcome}" for outcome, count in list(self._count.items()))
        return Group(table, Text(f"{counts or 'looking at the rows'}  ({now - self._begun:.0f} s)", style="bold"))


def _line(row: Row, result: RowResult) -> str:
    """A row that ended, in a line."""
    seconds = sum(result.seconds.values())
    return printable(f"{result.outcome}: {row.source}{f': {result.reason}' if result.reason else ''} ({seconds:.1f} s)")
