"""What a checkpoint is: family -> head -> config -> plan. The only place that goes this way."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..checkpoint import Assumption, Checkpoint, Decision, Origin, TensorEntry
from ..errors import CheckpointError, MappingError, NezhaConvertError, UsageError
from ..families.heads import CLASSIFIER, DECODER, GENERATING, MLM, POOLER, TIES, Head
from ..families.rules import Drop, Family, Tie
from ..formats.averages import FIELD, is_average
from .averages import with_averages
from .config import LABELLED, Config, architecture_of, decide_config, held_config, language_model, read_config
from .labels import read_labels
from .plan import Plan, make_plan
from .positions import Table, config_clip, is_table, stored_clip
from .published import fitting, published
from .recognise import (
    MEANINGS,
    Inference,
    by_config,
    choose_head,
    family_of,
    foreign,
    infer_head,
    may_generate,
    nezha_beside,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user asked for, instead of what the source says; None where nothing was asked.

    Attributes:
        head: the kind of model, a name in ``families.heads.HEADS``.
        config, labels: files, where they do not lie beside the weights.
        activation: transformers' name of the activation.
        max_relative_position: the clip distance.
        prefix: what stands in front of the model's names inside a larger model.
        drop: globs of tensors to leave out.
        rename: beginnings of names, and what to put in their place: a tensor's whole name, or a layer's.
        average: the moving average of the weights instead of these.
        names: the labels' names, instead of a file.
    """

    head: str | None = None
    config: Path | None = None
    labels: Path | None = None
    activation: str | None = None
    max_relative_position: int | None = None
    prefix: str | None = None
    drop: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    average: bool = False
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Survey:
    """A checkpoint, understood: everything that is known before the first tensor is read.

    Attributes:
        checkpoint: what was opened.
        asked: what was asked for.
        family: the program that wrote it.
        inference: the heads that its tensors allow.
        head: the head to convert to.
        config: the model's config.
        plan: each tensor's way; ``plan.check()`` raises where the tensors do not map.
        decisions: what the source left open, from opening the files to the config.
        config_file, labels_file: what was read besides the tensors; None where there is none.
        assumptions: what is believed without evidence.
    """

    checkpoint: Checkpoint
    asked: Asked
    family: Family
    inference: Inference
    head: Head
    config: Config
    plan: Plan
    decisions: tuple[Decision, ...]
    config_file: Path | None
    labels_file: Path | None
    assumptions: tuple[Assumption, ...] = ()

    @property
    def head_reason(self) -> str:
        """Why it is this head."""
        return "asked for" if self.asked.head else self.inference.reason


@dataclass(frozen=True, slots=True)
class Unclear:
    """A checkpoint that is understood in part: what is known of it, and the error that says why it is no more."""

    checkpoint: Checkpoint
    family: Family | None
    inference: Inference
    error: NezhaConvertError


def understand(checkpoint: Checkpoint, asked: Asked | None = None) -> Survey:
    """What `checkpoint` is. No tensor is read, but for a decoder and what it may be tied to.

    Raises:
        CheckpointError: there is no readable config.
        MappingError: it is no NEZHA that is known here, or its config is none.
        UsageError: the head is not clear, or something was asked for that cannot be.

    Example:
        >>> from nezha_convert import open_checkpoint
        >>> understand(open_checkpoint("fixtures/huawei-tf-pretraining")).head.name
        'pretraining'
    """
    survey = look(checkpoint, asked)
    if isinstance(survey, Unclear):
        raise survey.error
    return survey


def look(checkpoint: Checkpoint, asked: Asked | None = None) -> Survey | Unclear:
    """As `understand`, for a caller who can use a part of the answer."""
    asked = asked or Asked()
    try:
        checkpoint = with_averages(_renamed(checkpoint, asked.rename), asked.average)
    except UsageError as error:
        return Unclear(checkpoint, None, Inference((), ""), error)
    family, inference = None, Inference((), "")
    try:
        family = _family(checkpoint, asked)
        inference = infer_head(family, checkpoint.entries)
        _refuse_foreign(checkpoint, asked)
        config_path = asked.config or checkpoint.config
        raw, config_path, notes = _config(checkpoint, family, config_path)
        family = by_config(family, raw)
        raw = _by_new_names(raw, family)
        inference = infer_head(family, checkpoint.entries, architecture_of(raw), language_model(raw, family))
        if not architecture_of(raw):
            own = checkpoint.path.absolute()
            inference = may_generate(inference, checkpoint.entries, (own.name, own.parent.name))
        checkpoint = replace(checkpoint, decisions=(*checkpoint.decisions, *notes))
        return _survey(checkpoint, asked, family, inference, config_path, raw)
    except (CheckpointError, MappingError, UsageError) as error:
        return Unclear(checkpoint, family, inference, error)


def _config(
    checkpoint: Checkpoint, family: Family, path: Path | None
) -> tuple[Mapping[str, Any], Path | None, tuple[Decision, ...]]:
    """The JSON's fields; its file, where it is in one; and what was decided to find it."""
    if known := published(path):
        return known[0], None, (known[1],)
    if path is None and (held := held_config(checkpoint.settings)):
        return held[1], None, (Decision("config", held[0], "the model's config is in the pickle itself", Origin.FILE),)
    return read_config(path, checkpoint.path, () if path else fitting(family, checkpoint.entries)), path, ()


def _by_new_names(raw: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """`raw` with the keys that the program also takes by an older name."""
    old = family.defaults.old_names
    return {**raw, **{new: raw.get(new) or raw[name] for name, new in old.items() if name in raw}}


def _renamed(checkpoint: Checkpoint, rename: Sequence[tuple[str, str]]) -> Checkpoint:
    """`checkpoint` with the names that the user gives its tensors.

    Raises:
        UsageError: no tensor has such a name, or two get the same.
    """
    if not rename:
        return checkpoint
    entries, decisions = dict(checkpoint.entries), []
    for old, new in rename:
        names = [name for name in entries if re.fullmatch(rf"{re.escape(old)}([./].*)?", name)]
        if not names:
            raise UsageError(
                f"--rename {old}={new}: no tensor is called {old} or begins with it",
                hint="nezha-convert inspect SOURCE --tensors",
            )
        given = {name: new + name[len(old) :] for name in names}
        if taken := [name for name in given.values() if name in entries and name not in given]:
            raise UsageError(f"--rename {old}={new}: {taken[0]} is there already", hint="Choose another name.")
        entries = {given.get(name, name): entry for name, entry in entries.items()}
        decisions.append(Decision("renamed", f"{old}={new}", "asked for", Origin.ASKED))
    entries = {name: replace(entry, name=name) for name, entry in entries.items()}
    return replace(checkpoint, entries=entries, decisions=(*checkpoint.decisions, *decisions))


def _family(checkpoint: Checkpoint, asked: Asked) -> Family:
    """The family; of a checkpoint of none, a known model of another kind is refused by its name."""
    try:
        return family_of(checkpoint.entries, asked.prefix)
    except UsageError as error:
        if not any(decision.field == FIELD for decision in checkpoint.decisions):
            raise
        ways = [("--average",) if is_average(way[-1]) else way for way in error.ways]
        raise UsageError(error.message, ways=tuple(dict.fromkeys(ways))) from error
    except MappingError:
        _refuse_foreign(checkpoint, asked)
        raise


def _refuse_foreign(checkpoint: Checkpoint, asked: Asked) -> None:
    entries = checkpoint.entries
    model = foreign({name: entry for name, entry in entries.items() if name.startswith(asked.prefix or "")})
    if model and not (model.encoder_converts and asked.head == "encoder"):
        inside = nezha_beside(entries)
        raise MappingError(
            model.message if not inside else f"a NEZHA stands beside another model here: {model.message}",
            hint="" if inside else model.hint,
            ways=tuple(("--prefix", prefix) for prefix in inside),
        )


def _survey(
    checkpoint: Checkpoint,
    asked: Asked,
    family: Family,
    inference: Inference,
    config_path: Path | None,
    raw: Mapping[str, Any],
) -> Survey:
    """The rest of the way, from the head to the plan."""
    head = _with_its_pooler(choose_head(asked.head, inference), family, checkpoint)
    labels_path = asked.labels or (checkpoint.labels if head.name in LABELLED else None)
    differ = _loaded_over(checkpoint, family)
    over = differ if MLM in head.parts else ()
    labels, labels_note = _labels(raw, _rows(checkpoint, family), asked, labels_path)
    untied = _is_untied(raw, family, head, over)
    config = decide_config(
        raw,
        family,
        head,
        checkpoint.entries,
        activation=asked.activation,
        max_relative_position=asked.max_relative_position,
        labels=labels,
        untied=untied,
        stored_clip=stored_clip(_tables(checkpoint, family, asked.drop), config_clip(raw, 64)),
    )
    if untied:  # the bias is one tensor even then
        over = tuple(pair for pair in over if pair.tie.target != DECODER)
    ties = [pair.tie for pair in (over if MLM in head.parts else differ)]
    plan = make_plan(
        family,
        head,
        checkpoint.entries,
        config.dimensions,
        untied,
        ties,
        asked.drop,
        checkpoint.beside,
        checkpoint.replaced,
    )
    return Survey(
        checkpoint,
        asked,
        family,
        inference,
        head,
        config,
        plan,
        (
            *checkpoint.decisions,
            *_prefix_decision(family, asked),
            *config.decisions,
            *labels_note,
            *_decoder_decisions(raw, family, untied, over),
        ),
        config_path,
        labels_path if labels and not asked.names else None,
        _assumptions(raw, family, head, config, checkpoint),
    )


def _with_its_pooler(head: Head, family: Family, checkpoint: Checkpoint) -> Head:
    """`head`; of a checkpoint without a pooler, an encoder without one."""
    has = any((match := family.match(name)) and match.part == POOLER for name in checkpoint.entries)
    return head if has or not head.bare else head.without(POOLER)


@dataclass(frozen=True, slots=True)
class _LoadedOver:
    """A tie whose two names both stand in the source, with different values, and these names."""

    tie: Tie
    last: str
    first: str


def _loaded_over(checkpoint: Checkpoint, family: Family) -> tuple[_LoadedOver, ...]:
    by_target: dict[str, TensorEntry] = {}
    for name, entry in checkpoint.entries.items():
        if match := family.match(name):
            by_target[match.rule.target] = entry
    pairs = [(tie, by_target.get(tie.target), by_target.get(tie.of)) for tie in TIES]
    return tuple(_LoadedOver(tie, a.name, b.name) for tie, a, b in pairs if a and b and not _equal(a, b))


def _equal(a: TensorEntry, b: TensorEntry) -> bool:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return all(x.tobytes() == y.tobytes() for x, y in zip(a.blocks(), b.blocks(), strict=True))


def _is_untied(raw: Mapping[str, Any], family: Family, head: Head, over: tuple[_LoadedOver, ...]) -> bool:
    """Whether the masked-LM decoder is a tensor of its own: as the JSON says; else by the program's default."""
    if "tie_word_embeddings" in raw or family.defaults.tied or MLM not in head.parts:
        return raw.get("tie_word_embeddings") is False
    return any(pair.tie.target == DECODER for pair in over)


def _prefix_decision(family: Family, asked: Asked) -> tuple[Decision, ...]:
    if not family.prefix:
        return ()
    if asked.prefix:
        return (Decision("prefix", family.prefix, "asked for", Origin.ASKED),)
    return (Decision("prefix", family.prefix, "what stands in front of the names of the whole model", Origin.TENSORS),)


def _decoder_decisions(
    raw: Mapping[str, Any], family: Family, untied: bool, over: tuple[_LoadedOver, ...]
) -> tuple[Decision, ...]:
    """What was decided about a decoder, or its bias, that differs from what it may be tied to."""
    decisions = [
        Decision(
            pair.tie.of,
            f"the values of {pair.last}",
            f"{pair.last} differs from {pair.first}; the original has one tensor for both and loads {pair.last} last",
            Origin.TENSORS,
        )
        for pair in over
    ]
    if untied and "tie_word_embeddings" not in raw:
        reason = f"the decoder differs from the word embeddings; {family.title} has a tensor for each"
        return (Decision("tie_word_embeddings", False, reason, Origin.TENSORS), *decisions)
    return tuple(decisions)


def _tables(checkpoint: Checkpoint, family: Family, drop: Sequence[str]) -> list[Table]:
    """The stored tables of relative positions, but for trained ones that the user leaves out."""
    meanings = [(name, entry, family.find(name)) for name, entry in checkpoint.entries.items()]
    tables = [(name, Table(entry, m.pattern, m.trained)) for name, entry, m in meanings if is_table(m)]
    return [table for name, table in tables if not (table.trained and any(fnmatchcase(name, glob) for glob in drop))]


def _rows(checkpoint: Checkpoint, family: Family) -> int | None:
    """Rows of the classifier."""
    matches = ((entry, family.match(name)) for name, entry in checkpoint.entries.items())
    return next((e.shape[0] for e, m in matches if m and m.rule.target == "classifier.bias" and e.shape), None)


def _labels(
    raw: Mapping[str, Any], rows: int | None, asked: Asked, found: Path | None
) -> tuple[list[str] | None, tuple[Decision, ...]]:
    """The names of the classifier's rows, unless the config has them; and what there is to say about two lists.

    A config that names its labels goes before a labels.txt beside it. LABEL_0, LABEL_1, ... are no names: transformers
    makes them up.
    """
    if asked.names:
        return list(asked.names), ()
    if found is None:
        return None, ()
    labels, names = read_labels(found), raw.get("id2label")
    stated = list(names.values()) if isinstance(names, dict) else []
    if asked.labels or len(stated) != rows or all(str(name).startswith("LABEL_") for name in stated):
        return labels, ()
    if stated == labels:
        return None, ()
    reason = f"the config's id2label; {found.name} beside it has others, which --labels takes"
    return None, (Decision("id2label", f"{len(stated)} labels", reason, Origin.FILE),)


def _assumptions(
    raw: Mapping[str, Any], family: Family, head: Head, config: Config, checkpoint: Checkpoint
) -> tuple[Assumption, ...]:
    """What neither a tensor nor a file of the source says, and no comparison can show."""
    names = [match.rule.source for name in checkpoint.entries if (match := family.match(name))]
    named = [tells for name in names if (tells := family.defaults.classifiers.get(name)) and tells.head == head.name]
    assumptions = list(named[0].assumptions) if named else []
    class_named = architecture_of(raw) is not None
    if CLASSIFIER in head.parts and not class_named and not named:
        pooled = POOLER in head.parts
        read = "the pooler's output" if pooled else "each token's last hidden state"
        other = "another pooling" if pooled else "one token alone"
        text = f"the classifier reads {read}; a classifier of {other} has the same shapes"
        assumptions.append(Assumption("classifier-input", text))
    labels = config.fields.get("id2label", {})
    if labels and "id2label" not in raw and list(labels.values()) == [f"LABEL_{i}" for i in range(len(labels))]:
        assumptions.append(Assumption("labels", f"the {len(labels)} labels have no names: LABEL_0, LABEL_1, ..."))
    if head.name == "masked-lm" and not config.fields.get("is_decoder") and not class_named:
        text = (
            f"{MEANINGS['masked-lm']}; no file says so, and others have the same tensors. With --head causal-lm "
            f"{MEANINGS['causal-lm']}; with --head prefix-lm {MEANINGS['prefix-lm']}"
        )
        assumptions.append(Assumption("both-sides", text))
    if head.name in GENERATING and language_model(raw, family) == "masked-lm":
        text = f"it was trained as a {head.name}, as --head says; no file of the source does"
        assumptions.append(Assumption("attention", text))
    if family.assumed and not any(isinstance(family.find(name), Drop) for name in checkpoint.entries):
        assumptions.append(family.assumed)
    if config.unknown:
        fields = ", ".join(
            f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in config.unknown.items()
        )
        text = f"these fields of the config, which are not understood, change no output: {fields}"
        assumptions.append(Assumption("unknown-fields", text))
    return tuple(assumptions)
