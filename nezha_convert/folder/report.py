"""What was found and what was done, as plain data; conversion.json is a Report's JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from ..checkpoint import Decision
from ..families.rules import Tie
from ..mapping.plan import Dropped
from ..weights.numbers import Numbers


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file by name alone (folders of one's own machine are nobody's business), its size in bytes and its hash."""

    name: str
    nbytes: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A tensor of the output and where it came from."""

    source: str
    target: str
    op: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorListing:
    """A tensor of a source by name, element type and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a checkpoint is, as far as can be told without reading a tensor.

    Attributes:
        source: what was asked for.
        format: "tensorflow-bundle", "torch" or "safetensors".
        family: the family's short name; None when no NEZHA is known by these names.
        title: the family in words.
        heads: the heads that it can be, one when the tensors say it.
        reason: why these heads.
        model: the config's fields for the first of the heads, as they would be converted.
        decisions: what the source left open.
        problems: what stands in the way of a conversion.
        hint: what to do next.
        files: the files of the checkpoint.
        tensors: how many there are.
        nbytes: bytes of all of them.
        weight_nbytes: bytes that the first of the heads keeps.
        optimizer_tensors, optimizer_nbytes: the training's state among them.
        dropped: what that head would leave out.
        training: how it was trained, where a training.json says so.
        entries: every tensor, if `inspect` was asked to list them.
    """

    source: str
    format: str
    family: str | None
    title: str
    heads: tuple[str, ...]
    reason: str
    model: dict[str, Any]
    decisions: tuple[Decision, ...]
    problems: tuple[str, ...]
    hint: str
    files: tuple[FileRecord, ...]
    tensors: int
    nbytes: int
    weight_nbytes: int
    optimizer_tensors: int
    optimizer_nbytes: int
    dropped: tuple[Dropped, ...]
    training: str = ""
    entries: tuple[TensorListing, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The inspection as ``--json`` prints it; without `entries` unless they were asked for."""
        content = asdict(self)
        if self.entries is None:
            del content["entries"]
        return content


@dataclass(frozen=True, slots=True)
class Report:
    """A conversion: what was read, decided, written, dropped, measured; `numbers` is None of a dry run."""

    version: str
    source: str
    format: str
    family: str
    title: str
    head: str
    architecture: str
    head_reason: str
    decisions: tuple[Decision, ...]
    ignored_fields: tuple[str, ...]
    source_files: tuple[FileRecord, ...]
    output_files: tuple[FileRecord, ...]
    source_nbytes: int
    weight_nbytes: int
    optimizer_nbytes: int
    written: tuple[Written, ...]
    dropped: tuple[Dropped, ...]
    tied: tuple[Tie, ...]
    numbers: Numbers | None = None
    card: FileRecord | None = None
    output: str = ""
    dry_run: bool = False
    seconds: float = field(default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """The report as ``--json`` prints it."""
        return asdict(self)

    def to_json(self) -> str:
        """conversion.json: without what differs from run to run, so that equal sources give equal folders."""
        content = self.to_dict()
        for name in ("output", "dry_run", "seconds"):
            del content[name]
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
