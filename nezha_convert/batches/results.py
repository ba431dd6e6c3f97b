"""What became of the rows of a batch, as plain data. The table, the JSON and the HTML page show this alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..files.json import json_bytes
from ..text import screenful
from .row import Row

VERIFIED, CONVERTED, DECISION, FOREIGN, FAILED = "verified", "converted", "needs a decision", "not NEZHA", "failed"
PLANNED = "planned"
OUTCOMES = (VERIFIED, CONVERTED, DECISION, FOREIGN, FAILED, PLANNED)
"""In the order in which they are counted; `planned` is of a dry run."""

OPEN = (DECISION, FAILED)
"""The outcomes of which somebody has to do something."""


@dataclass(frozen=True, slots=True)
class RowResult:
    """What became of a row.

    Attributes:
        number: the row's place in the batch, from 1 on.
        source: what was converted.
        output: where it was written.
        outcome: "verified", "converted", "needs a decision", "not NEZHA", "failed", or of a dry run "planned".
        reason: why, in words.
        hint: what to do next.
        commands: of a row that needs a decision, one command for each answer; of one that failed, the commands that do
            it alone.
        family: the program that wrote the source.
        head: the kind of model.
        worst_error: the largest error of the proof, as a part of its tensor's range.
        assumed: what the proof rests on without evidence.
        source_nbytes: bytes of the source's files.
        output_nbytes: bytes of the output's files.
        pushed: the address of the commit or pull request.
        record: the SHA-256 of the output's conversion.json.
        seconds: how long each step took.
        resumed: whether an earlier run had done it.

    Example:
        >>> import nezha_convert
        >>> report = nezha_convert.batch("models/", "converted/", verify=False)
        >>> [(row.number, row.outcome, row.head) for row in report.rows]
        [(1, 'converted', 'pretraining')]
    """

    number: int
    source: str
    output: str
    outcome: str
    reason: str = ""
    hint: str = ""
    commands: tuple[str, ...] = ()
    family: str = ""
    head: str = ""
    worst_error: float | None = None
    assumed: tuple[str, ...] = ()
    source_nbytes: int = 0
    output_nbytes: int = 0
    pushed: str = ""
    record: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    resumed: bool = False

    @classmethod
    def of(cls, row: Row, outcome: str, **known: Any) -> RowResult:
        """The result of `row`."""
        return cls(row.number, row.source, row.output, outcome, **known)

    @classmethod
    def failed(cls, row: Row, reason: str, hint: str, source_nbytes: int = 0) -> RowResult:
        """The result of `row`, which failed, with the commands that do it alone."""
        return cls.of(row, FAILED, reason=reason, hint=hint, commands=row.commands(), source_nbytes=source_nbytes)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> RowResult:
        """The result that `to_dict` gave. A field that is not known here is passed over."""
        known = {one.name: content[one.name] for one in fields(cls) if one.name in content}
        known |= {name: tuple(known[name]) for name in ("commands", "assumed") if name in known}
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        """The row as ``--json`` prints it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the open rows of a batch will take: computed, from rates that were measured.

    Attributes:
        rows: how many there are.
        seconds: on the clock.
        download_nbytes: bytes to fetch from the Hub.
        output_nbytes: bytes to write.
        rates: what the seconds are computed from, in words.
    """

    rows: int
    seconds: float
    download_nbytes: int
    output_nbytes: int
    rates: str


@dataclass(frozen=True, slots=True)
class BatchReport:
    """A batch: what became of each row.

    Attributes:
        version: of nezha-convert.
        manifest: its name.
        output: the folder that holds the outputs, or the address of one.
        rows: in the manifest's order.
        skipped: folders of a folder that hold no weights.
        dry_run: whether nothing was written.
        estimate: of a dry run, what the rows will take.
        seconds: how long this run took.
        where: on what it ran.

    Example:
        >>> import nezha_convert
        >>> report = nezha_convert.batch("models/", "converted/", verify=False)
        >>> report.counts, report.right
        ({'converted': 1}, True)
    """

    version: str
    manifest: str
    output: str
    rows: tuple[RowResult, ...]
    skipped: tuple[str, ...] = ()
    dry_run: bool = False
    estimate: Estimate | None = None
    seconds: float = 0.0
    where: str = ""

    def __repr__(self) -> str:
        shown = [(row.outcome, f"{row.source}: {row.reason or row.head}") for row in self.open]
        title = ", ".join(f"{count:,} {outcome}" for outcome, count in self.counts.items())
        return screenful(f"Batch of {self.manifest}: {title}", shown)

    @property
    def counts(self) -> dict[str, int]:
        """How many rows have each outcome."""
        count = Counter(row.outcome for row in self.rows)
        return {outcome: count[outcome] for outcome in OUTCOMES if count[outcome]}

    @property
    def open(self) -> tuple[RowResult, ...]:
        """The rows that failed or need a decision."""
        return tuple(row for row in self.rows if row.outcome in OPEN)

    @property
    def right(self) -> bool:
        """Whether nobody has to do anything: every row is done, or is no NEZHA."""
        return not self.open

    def to_dict(self) -> dict[str, Any]:
        """The report as ``--json`` prints it."""
        return {"right": self.right, "counts": self.counts, **asdict(self)}

    def to_json(self) -> str:
        """report.json."""
        return json_bytes(self.to_dict()).decode()

    def without_timings(self) -> dict[str, Any]:
        """The report without what differs from run to run: two runs of one manifest are equal in it."""
        content = self.to_dict()
        for name in ("seconds", "where", "estimate"):
            del content[name]
        for row in content["rows"]:
            del row["seconds"], row["resumed"]
        return content
