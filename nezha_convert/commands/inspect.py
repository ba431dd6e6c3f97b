"""`inspect`: say what a checkpoint is."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..checkpoint import Checkpoint, Decision, Origin, TensorEntry
from ..errors import CheckpointError, MappingError, UsageError
from ..families.rules import Drop, Family
from ..files.given import path_of
from ..files.staging import MARK, TRAINED
from ..folder.record import ConvertedFolder
from ..folder.report import FileRecord, own_title
from ..folder.trained import TrainedFolder
from ..formats.averages import FIELD
from ..formats.open import open_checkpoint
from ..hub import is_address, local_source
from ..mapping.plan import Dropped
from ..mapping.survey import Asked, Survey, Unclear, look
from ..text import quoted, screenful


@dataclass(frozen=True, slots=True)
class TensorListing:
    """A tensor of a checkpoint: its name, element type and shape in the source."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a checkpoint is, as far as can be told without reading a tensor.

    Attributes:
        source: what was asked for.
        format: "tensorflow-bundle", "torch", "safetensors" or another of ``formats.open.FORMATS``.
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
        kept: what would be kept beside the model, in extra.safetensors.
        training: how it was trained, where a training.json says so.
        settings: the plain fields of objects that the checkpoint holds besides tensors, by where they stand in it.
        entries: every tensor, where they were asked for.

    Example:
        >>> import nezha_convert
        >>> found = nezha_convert.inspect("NEZHA-Base/")
        >>> found.family, found.model["hidden_size"], found.optimizer_tensors > 0
        ('huawei-tf', 32, True)
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
    kept: tuple[TensorListing, ...] = ()
    training: str = ""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    entries: tuple[TensorListing, ...] | None = None

    def __repr__(self) -> str:
        heads = f"{' or '.join(self.heads)}: {self.reason}" if self.heads else "unknown"
        rows = [("family", self.title), ("head", heads), ("model", self.sizes)]
        rows += [("trained", self.training)] if self.training else []
        rows += [("tensors", f"{self.tensors:,}, {len(self.dropped):,} to drop, {len(self.kept):,} to keep beside")]
        rows += [("problem", problem) for problem in self.problems]
        rows += [("next", line) for line in self.hint.splitlines()]
        rows += [("decided", str(decision)) for decision in self.decisions]
        return screenful(f"Inspection of {self.source} ({self.format})", rows)

    @property
    def sizes(self) -> str:
        """The sizes of the model, in a line."""
        if not self.model:
            return "unknown"
        return (
            "{num_hidden_layers} layers, hidden {hidden_size}, {num_attention_heads} heads, vocabulary {vocab_size:,}, "
            "clip distance {max_relative_position}, {hidden_act}"
        ).format_map(self.model)

    def to_dict(self) -> dict[str, Any]:
        """The inspection as ``--json`` prints it: with ``entries`` only where they were asked for."""
        content = asdict(self)
        if self.entries is None:
            del content["entries"]
        return content


def inspect(
    source: str | Path,
    *,
    config: str | Path | None = None,
    prefix: str | None = None,
    part: str | None = None,
    average: bool = False,
    tensors: bool = False,
) -> Inspection:
    """Tell what `source` is. No tensor is read, but for a decoder and what it may be tied to.

    Args:
        source: a folder, a TensorFlow prefix, any one file of a checkpoint, or an address of the Hub.
        config: the model's JSON, where it does not lie beside the weights; or, where it is lost, the published model
            that has its sizes: "huawei/nezha-cn-base", "huawei/nezha-cn-large", "huawei/nezha-base-wwm",
            "huawei/nezha-large-wwm", "huawei/nezha-en-base" or "huawei/nezha-base-vocab-100503".
        prefix: what stands in front of the model's names inside a larger model.
        part: which dictionary of tensors of a PyTorch file, by its keys joined by dots ("ema.shadow").
        average: look at the moving average of the weights instead of these.
        tensors: list every tensor, too.

    Returns:
        What the checkpoint is, and what stands in the way of a conversion.

    Raises:
        CheckpointError: there is nothing to read, or it is damaged.
        HubError: it cannot be downloaded.
        UsageError: there are several checkpoints.

    Example:
        >>> import nezha_convert
        >>> found = nezha_convert.inspect("NEZHA-Base/")
        >>> found.heads, found.problems
        (('pretraining',), ())
    """
    checkpoint = open_checkpoint(local_source(source)[0], part, average)
    survey = _look(checkpoint, Asked(config=path_of(config) if config else None, prefix=prefix, average=average))
    asked = {"--config": config, "--prefix": prefix, "--part": part}
    words = ["nezha-convert", "convert", str(source), "OUTPUT"]
    words += [str(word) for option, value in asked.items() if value for word in (option, value)]
    training, problems, hint = _outcome(survey, source, shlex.join([*words, *(["--average"] if average else [])]))
    full = survey if isinstance(survey, Survey) else None
    plan = full.plan if full else None
    optimizer = [entry for entry in checkpoint.entries.values() if _is_optimizer(survey.family, entry.name)]
    return Inspection(
        source=str(source),
        format=checkpoint.format,
        family=survey.family.name if survey.family else None,
        title=_title(survey.family, checkpoint),
        heads=survey.inference.heads,
        reason=survey.inference.reason,
        model=dict(full.config.fields) if full else {},
        decisions=full.decisions if full else (),
        problems=problems,
        hint=hint,
        files=tuple(FileRecord(file.name, file.stat().st_size) for file in checkpoint.files),
        tensors=len(checkpoint.entries),
        nbytes=sum(entry.nbytes for entry in checkpoint.entries.values()),
        weight_nbytes=sum(step.entry.nbytes for step in plan.steps) if plan else 0,
        optimizer_tensors=len(optimizer),
        optimizer_nbytes=sum(entry.nbytes for entry in optimizer),
        dropped=plan.dropped if plan else (),
        kept=tuple(TensorListing(s.target, s.entry.dtype, s.shape) for s in plan.kept) if plan else (),
        training=training,
        settings=checkpoint.settings,
        entries=_listed(checkpoint.entries.values()) if tensors else None,
    )


def _title(family: Family | None, checkpoint: Checkpoint) -> str:
    if family is None:
        return "no NEZHA that is known here"
    return own_title(checkpoint.path.parent) or family.title


def _listed(entries: Iterable[TensorEntry]) -> tuple[TensorListing, ...]:
    return tuple(TensorListing(entry.name, entry.dtype, entry.shape) for entry in entries)


def _look(checkpoint: Checkpoint, asked: Asked) -> Survey | Unclear:
    """As the checkpoint is; where several heads fit, as the first of them."""
    survey = look(checkpoint, asked)
    heads = survey.inference.heads
    if isinstance(survey, Unclear) and len(heads) > 1:
        return look(checkpoint, replace(asked, head=heads[0]))
    return survey


def _outcome(survey: Survey | Unclear, source: str | Path, command: str) -> tuple[str, tuple[str, ...], str]:
    """How the model was trained, what stands in the way of a conversion, and what to do next."""
    if isinstance(survey, Unclear):
        hint = "\n".join(f"{command} {shlex.join(way)}" for way in survey.error.ways) or survey.error.hint
        return "", (survey.error.message, *survey.error.problems), hint
    folder = survey.checkpoint.path.parent
    try:
        training = TrainedFolder(folder).summary if (folder / TRAINED).is_file() else ""
        own = ConvertedFolder(folder).record if not training and (folder / MARK).is_file() else None
    except (MappingError, CheckpointError, UsageError) as error:
        return "", (error.message, *error.problems), error.hint
    problems = survey.plan.problems()
    if problems:
        hint = "Name the right --config, or the right --head of convert."
        return training, problems, survey.plan.hint if survey.plan.unfit else hint
    if own and is_address(source):
        return "", (), f"nezha-convert pull {quoted(source)} FOLDER"
    if own and not (own.get("parity") or {}).get("passed"):
        return "", (), f"nezha-convert verify SOURCE {quoted(source)}"
    if training or own:
        return training, (), f"nezha-convert push {quoted(source)} OWNER/NAME"
    heads = survey.inference.heads
    commands = [f"{command} --head {head}" for head in heads] if len(heads) > 1 else [command]
    if any(d.field == FIELD and d.origin is Origin.DEFAULT for d in survey.decisions):
        commands.append(f"{command} --average")
    return "", (), "\n".join(commands)


def _is_optimizer(family: Family | None, name: str) -> bool:
    meaning = family.find(name) if family else None
    return isinstance(meaning, Drop) and meaning.optimizer
