"""What a conversion did, as plain data; conversion.json is a Report's JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .._version import __version__
from ..checkpoint import Assumption, Decision
from ..families.heads import HEADS
from ..families.rules import Tie
from ..files.json import json_bytes
from ..files.staging import MARK, TRAINED
from ..formats.safetensors import EXTRA
from ..mapping.plan import Dropped
from ..mapping.survey import Survey
from ..text import screenful
from ..weights.numbers import Numbers
from ..weights.write import Layout, Placed


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
class Report:
    """A conversion: what was read, decided, written, dropped, measured. conversion.json is its JSON.

    Attributes:
        version: of nezha-convert.
        source: the source's name or address.
        format: the format of its files, such as "tensorflow-bundle".
        family: the program that wrote them, such as "huawei-tf".
        title: the program in words.
        head: the kind of model, such as "pretraining".
        architecture: the model's class.
        head_reason: why it is this head.
        decisions: what the source left open, each with what was taken and why.
        assumptions: what no tensor and no file says, and no comparison shows.
        ignored_fields: fields of the source's config that change no output.
        unknown_fields: fields of it that no table knows, with their values.
        source_files: what was read, with sizes and hashes.
        output_files: what was written, likewise.
        source_nbytes: bytes of the source's tensors.
        weight_nbytes: bytes of the model's.
        optimizer_nbytes: bytes of the training's state among the source's.
        written: the model's tensors, each with its source.
        dropped: tensors that were left out, each with the reason.
        kept: tensors beside the model, in extra.safetensors.
        tied: names that share the values of another.
        numbers: NaN, infinite and other remarkable values; None of a dry run.
        card: the model card; None of a dry run.
        output: the folder that was written.
        dry_run: whether nothing was written.
        seconds: how long it took.

    Example:
        >>> import nezha_convert
        >>> report = nezha_convert.convert("NEZHA-Base/", "planned/", dry_run=True)
        >>> [decision.value for decision in report.decisions if decision.field == "hidden_act"]
        ['gelu_pytorch_tanh']
    """

    version: str
    source: str
    format: str
    family: str
    title: str
    head: str
    architecture: str
    head_reason: str
    decisions: tuple[Decision, ...]
    assumptions: tuple[Assumption, ...]
    ignored_fields: tuple[str, ...]
    unknown_fields: Mapping[str, Any]
    source_files: tuple[FileRecord, ...]
    output_files: tuple[FileRecord, ...]
    source_nbytes: int
    weight_nbytes: int
    optimizer_nbytes: int
    written: tuple[Written, ...]
    dropped: tuple[Dropped, ...]
    kept: tuple[Written, ...]
    tied: tuple[Tie, ...]
    numbers: Numbers | None = None
    card: FileRecord | None = None
    output: str = ""
    dry_run: bool = False
    seconds: float = field(default=0.0)

    def __repr__(self) -> str:
        counts = {"used": self.written, "dropped": self.dropped, "tied": self.tied, "kept beside": self.kept}
        rows = [("source", f"{self.source}: {self.title}"), ("head", f"{self.head}: {self.head_reason}")]
        rows += [("tensors", ", ".join(f"{len(tensors):,} {what}" for what, tensors in counts.items()))]
        rows += [("warning", warning) for warning in (self.numbers.warnings if self.numbers else ())]
        rows += [("assumed", str(assumption)) for assumption in self.assumptions]
        rows += [("decided", str(decision)) for decision in self.decisions]
        title = f"Plan for {self.output}; nothing was written" if self.dry_run else f"Conversion to {self.output}"
        return screenful(title, rows)

    @property
    def auto_class(self) -> str:
        """The Auto class of transformers that loads the folder."""
        return HEADS[self.head].auto_class

    @classmethod
    def of(
        cls,
        survey: Survey,
        layout: Layout,
        *,
        source: str,
        decisions: Iterable[Decision],
        assumptions: Iterable[Assumption],
        source_files: Iterable[Path],
        output: Path,
        files: Mapping[str, bytes],
        dry_run: bool,
    ) -> Report:
        """The report of a conversion that is planned, before anything is written.

        Args:
            survey, layout: what is converted, and where its weights go.
            source: what the source is called.
            decisions: all of them, in the order in which they are shown.
            assumptions: all of them, likewise.
            source_files: what was read.
            output: the folder to write.
            files: what it holds besides the weights.
            dry_run: nothing will be written.
        """
        sizes = {name: size for name, _, size in layout.files} | {name: len(data) for name, data in files.items()}
        return cls(
            version=__version__,
            source=source,
            format=survey.checkpoint.format,
            family=survey.family.name,
            title=own_title(survey.checkpoint.path.parent) or survey.family.title,
            head=survey.head.name,
            architecture=survey.head.architecture,
            head_reason=survey.head_reason,
            decisions=tuple(decisions),
            assumptions=tuple(assumptions),
            ignored_fields=survey.config.ignored,
            unknown_fields=survey.config.unknown,
            source_files=tuple(FileRecord(path.name, path.stat().st_size) for path in source_files),
            output_files=tuple(FileRecord(name, size) for name, size in sorted(sizes.items())),
            source_nbytes=sum(entry.nbytes for entry in survey.checkpoint.entries.values())
            + sum(entry.nbytes for entry in survey.checkpoint.replaced.values()),
            weight_nbytes=sum(placed.nbytes for placed in layout.weights),
            optimizer_nbytes=sum(dropped.nbytes for dropped in survey.plan.dropped if dropped.optimizer),
            written=_written(layout.weights),
            dropped=survey.plan.dropped,
            kept=_written(placed for placed in layout.placed if placed.file == EXTRA),
            tied=survey.plan.tied,
            output=str(output),
            dry_run=dry_run,
        )

    def done(self, source_hashes: Iterable[str], output_hashes: Mapping[str, str], numbers: Numbers) -> Report:
        """The report of the conversion once it is written.

        Args:
            source_hashes: of the source's files, in their order.
            output_hashes: by name.
            numbers: what the values of the weights are.
        """
        sources = zip(self.source_files, source_hashes, strict=True)
        return replace(
            self,
            source_files=tuple(replace(file, sha256=digest) for file, digest in sources),
            output_files=tuple(replace(file, sha256=output_hashes[file.name]) for file in self.output_files),
            numbers=numbers,
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as ``--json`` prints it."""
        return asdict(self)

    def to_json(self) -> str:
        """conversion.json: without what differs from run to run, so that equal sources give equal folders."""
        content = self.to_dict()
        for name in ("output", "dry_run", "seconds"):
            del content[name]
        return json_bytes(content).decode()


def own_title(folder: Path) -> str | None:
    """What to call `folder` if nezha-convert wrote it; its tensors have transformers' names. None if it did not."""
    if (folder / TRAINED).is_file():
        return "a model trained from a folder of nezha-convert"
    return "a folder of nezha-convert" if (folder / MARK).is_file() else None


def _written(placed: Iterable[Placed]) -> tuple[Written, ...]:
    return tuple(
        Written(p.step.entry.name, p.step.target, p.step.op.value, p.dtype, p.step.shape)
        for p in sorted(placed, key=lambda p: p.step.target)
    )
