"""The export plan: what a converted model becomes in another program, decided before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import Checkpoint, Decision, Origin, TensorEntry
from ..errors import MappingError, UsageError
from ..families import TRANSFORMERS
from ..families.heads import MLM, TARGETS, TIES, head_of
from ..families.program import Program
from ..families.rules import Default, Op, numbered, pattern_of
from ..files.json import json_bytes, read_json
from ..files.staging import MARK
from ..formats.blocks import row_blocks, rows_within
from ..formats.modules import LISTING, modules_beside
from ..formats.safetensors import EXTRA
from ..formats.tensor import Tensor
from ..mapping.config import LABELLED, architecture_of, read_config
from ..mapping.plan import Step
from ..mapping.survey import Asked, Survey, understand
from ..parity import inputs
from ..parity.oracle import dialects
from ..parity.oracle.formulas import gelu_erf, gelu_tanh, relative_table
from ..parity.oracle.model import Oracle
from ..weights.write import Advance, converted

_FIELDS = (
    *("attention_probs_dropout_prob", "hidden_act", "hidden_dropout_prob", "hidden_size", "initializer_range"),
    *("intermediate_size", "layer_norm_eps", "max_position_embeddings", "max_relative_position"),
    *("num_attention_heads", "num_hidden_layers", "type_vocab_size", "vocab_size"),
)
"""Fields that every program's JSON has by these names, unless it has the value hard-coded."""

_FUNCTIONS = dialects.TRANSFORMERS.activations
_GELUS = (gelu_erf, gelu_tanh)


@dataclass(frozen=True, slots=True)
class ConvertedModel:
    """What is in a converted folder: its survey, and its config.json as it stands there."""

    survey: Survey
    config: Mapping[str, Any]

    @property
    def head(self) -> str:
        """The head's name."""
        return self.survey.head.name

    @property
    def fields(self) -> Mapping[str, Any]:
        """The fields of its config."""
        return self.survey.config.fields

    @property
    def untied(self) -> bool:
        """Whether it has a masked-LM decoder of its own."""
        return self.fields["tie_word_embeddings"] is False and MLM in self.survey.head.parts

    @property
    def dtype(self) -> str:
        """The element type of its first tensor."""
        return self.survey.plan.steps[0].entry.dtype

    @property
    def steps(self) -> dict[str, Step]:
        """Its tensors by the names that a model with a head has."""
        prefix = "nezha." if self.survey.head.bare else ""
        return {f"{prefix}{step.target}": step for step in self.survey.plan.steps}

    def companion(self, name: str) -> Path | None:
        """The file `name` of the folder, if it is there."""
        path = self.survey.checkpoint.path.parent / name
        return path if path.is_file() else None

    def effect(self, **fields: Any) -> str:
        """What other `fields` of its config would change, in words."""
        cases = inputs.built_in_cases(self.fields, self.fields["max_relative_position"], self.head)
        entries = self.survey.checkpoint.entries
        a, b = (
            Oracle(entries, {**self.config, **changed}, self.head).forward(**cases["short"], record=False)
            for changed in ({}, fields)
        )
        changes = {name: float(np.abs(a[name] - b[name]).max() / (np.ptp(a[name]) or 1)) for name in a}
        name = max(changes, key=lambda name: changes[name])
        return f"on a built-in input that changes {name} by {changes[name]:.1e} of its range"


def understand_converted(checkpoint: Checkpoint) -> ConvertedModel:
    """The model of a converted folder.

    Raises:
        UsageError: it is no converted folder.
        MappingError: its tensors are not those of its head.
    """
    folder = checkpoint.path.parent
    raw = read_config(checkpoint.config, checkpoint.path)
    architecture = architecture_of(raw)
    head = head_of(architecture, raw)
    if checkpoint.format != "safetensors" or raw.get("model_type") != "nezha" or not head:
        raise UsageError(
            f"{folder}: not a converted folder: expected safetensors and a config.json with model_type nezha and "
            f"one of its classes, found {checkpoint.format}, {raw.get('model_type')!r}, {architecture!r}",
            hint="Convert it first: nezha-convert convert SOURCE OUTPUT",
        )
    # Its labels stand in its config. The model has one bias for the decoder, and does not read a second one.
    entries = {name: entry for name, entry in checkpoint.entries.items() if name != "cls.predictions.decoder.bias"}
    survey = understand(replace(checkpoint, entries=entries, labels=None), Asked(head=head.name))
    survey.plan.check()
    return ConvertedModel(survey, raw)


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What is written for a program.

    Attributes:
        program: the program.
        model: what is exported.
        steps: its tensors, by the program's names.
        files: what lies beside the weights, by name.
        decisions: what the report tells.
    """

    program: Program
    model: ConvertedModel
    steps: tuple[Step, ...]
    files: Mapping[str, bytes]
    decisions: tuple[Decision, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the source's tensors that are written."""
        return sum({step.target: step.entry.nbytes for step in self.steps}.values())

    def dtype(self, step: Step) -> str:
        """The element type in which a step is written."""
        return _written_dtype(self.program, step)

    def tensors(self, advance: Advance) -> Iterator[Tensor]:
        """What the program's writer takes; `advance` is told the bytes of each block."""
        for step in self.steps:
            dtype = self.dtype(step)
            yield Tensor(step.target, dtype, step.shape, watched(converted(step, dtype), advance))


@dataclass(frozen=True, slots=True)
class _Finding:
    """A part of the plan, with what stands in the way of it."""

    steps: tuple[Step, ...] = ()
    files: tuple[tuple[str, bytes], ...] = ()
    decisions: tuple[Decision, ...] = ()
    problems: tuple[str, ...] = ()

    def __add__(self, other: _Finding) -> _Finding:
        return _Finding(
            self.steps + other.steps,
            self.files + other.files,
            self.decisions + other.decisions,
            self.problems + other.problems,
        )


def plan_export(program: Program, model: ConvertedModel, accept_activation: bool = False) -> ExportPlan:
    """Decide what `model` becomes in `program`.

    Args:
        program: a value of ``families.PROGRAMS``.
        model: a converted model.
        accept_activation: go on where the program has another GELU than the model.

    Raises:
        MappingError: the program cannot hold the model, or would compute other numbers; every reason at once.
    """
    title = program.family.title
    finding = _steps(program, model)
    finding += _numbers(program, model) + _dtypes(program, finding.steps)
    activation, about_activation = _activation(program, model, accept_activation)
    problems = finding.problems + about_activation.problems
    if problems:
        only_gelu = activation and not finding.problems
        raise MappingError(
            f"{title} cannot compute what this model computes: {len(problems)} problem(s)",
            problems=problems,
            hint="If that much is acceptable, add --accept-activation."
            if only_gelu
            else "bert4torch holds it: --to bert4torch"
            if model.fields.get("prefix_lm")
            else "transformers-4 holds every other model: --to transformers-4",
        )
    finding += about_activation
    finding += _config(program, model, activation) + _carried(program, model) + _labels(program, model)
    finding = _with_kept(program, model, finding)
    return ExportPlan(program, model, finding.steps, dict(finding.files), finding.decisions)


def _written_dtype(program: Program, step: Step) -> str:
    dtype = step.entry.dtype
    return "float32" if dtype in program.lacks and dtype != "float64" else dtype


def _decided(field: str, value: Any, reason: str, origin: Origin = Origin.DEFAULT) -> _Finding:
    return _Finding(decisions=(Decision(field, value, reason, origin),))


def _steps(program: Program, model: ConvertedModel) -> _Finding:
    """A step for each tensor that the program needs; zeros for one that the model does not have."""
    title, head = program.family.title, model.survey.head
    if head.name not in program.heads:
        return _Finding(problems=(f"head: {title} has no {head.name} model",))
    if model.untied and not program.unties:
        return _Finding(problems=(f"decoder: the model has one of its own, {title} ties it to the embeddings",))
    finding = _Finding()
    for part in program.heads[head.name]:
        if head.bare and part not in head.parts:
            reason = f"the model has none; {title} makes one with random weights, unless it is told to leave it out"
            finding += _decided(part, None, reason)
        else:
            finding += _part(program, model, part)
    if program.positions:
        finding += _positions(program, model)
    if program.steps:
        counter = TensorEntry("zeros", "int64", (), 8, partial(row_blocks, np.zeros((), np.int64)))
        reason = "a training's counter, restored with the weights; a new one begins at 0"
        finding += _Finding((Step(counter, program.steps, Op.COPY, ()),)) + _decided(program.steps, 0, reason)
    return finding


def _part(program: Program, model: ConvertedModel, part: str) -> _Finding:
    """The steps of one part of the model."""
    title, head = program.family.title, model.survey.head
    base = program.base if head.bare else None
    inverse = (base or program.family).inverse()
    ties = {} if model.untied else {tie.target: tie.of for tie in TIES}
    own, steps, problems = model.steps, [], []
    for name in numbered(TARGETS[part], model.fields["num_hidden_layers"]):
        match = inverse.match(name)
        if name in ties and not (program.ties and match):
            continue
        if match is None:
            problems.append(f"tensors: {title} has none for {name}")
            continue
        step = own.get(ties.get(name, name))
        entry = step.entry if step else _zeros(model, part, name)
        shape = entry.shape[::-1] if match.rule.op is Op.TRANSPOSE else entry.shape
        steps.append(Step(entry, match.rule.target, match.rule.op, shape))
    finding = _Finding(tuple(steps), problems=tuple(problems))
    if part in head.parts:
        return finding
    return finding + _decided(part, "zeros", f"the {head.name} model has none, {title} restores one with it")


def _zeros(model: ConvertedModel, part: str, name: str) -> TensorEntry:
    """Zeros for a tensor that the model does not have."""
    dims, dimensions = TARGETS[part][pattern_of(name)], model.survey.config.dimensions
    shape = tuple(dimensions[dim] if isinstance(dim, str) else dim for dim in dims)
    array = np.zeros(shape, np.dtype(model.dtype))
    return TensorEntry("zeros", model.dtype, shape, array.nbytes, partial(row_blocks, array))


def _positions(program: Program, model: ConvertedModel) -> _Finding:
    """The table R[clip(j - i, -K, K) + K] in each layer: the same in all, and no weight, but the program keeps it."""
    fields, dtype = model.fields, model.dtype
    length, clip = fields["max_position_embeddings"], fields["max_relative_position"]
    table = relative_table(clip, fields["hidden_size"] // fields["num_attention_heads"]).astype(np.dtype(dtype))
    shape = (length, length, table.shape[1])

    def stream(limit: int) -> Iterator[np.ndarray]:
        rows = rows_within(shape, table.itemsize, limit)
        for top in range(0, length, rows):
            distance = np.arange(length) - np.arange(top, min(top + rows, length))[:, None]
            yield table[np.clip(distance, -clip, clip) + clip]

    entry = TensorEntry("positions", dtype, shape, prod(shape) * table.itemsize, stream)
    names = numbered([program.positions], fields["num_hidden_layers"])
    reason = f"{program.family.title} keeps one in each layer, for {length} tokens"
    steps = tuple(Step(entry, name, Op.COPY, shape) for name in names)
    return _Finding(steps) + _decided("positions", f"{len(names)} tables", reason)


def _numbers(program: Program, model: ConvertedModel) -> _Finding:
    """What the program has hard-coded, against what the model has."""
    title, defaults = program.family.title, program.family.defaults.numbers
    fixed = dict(defaults)
    for part in model.survey.head.parts:
        fixed |= program.fixed.get(part, {})
    problems = []
    if model.fields.get("prefix_lm") and not program.prefix:
        problems.append(f"attention: the model's prefix sees itself on both sides, in {title} no token can")
    elif model.fields.get("is_decoder") and not program.causal:
        problems.append(f"attention: the model sees only what is before a token, {title} sees both sides")
    for name, default in fixed.items():
        value = model.fields.get(name)
        if default.fixed and value != default.value:
            problem = f"{name}: the model has {value:g}, {title} computes with {default.value:g} ({default.reason})"
            if name in defaults and model.fields["hidden_act"] in _FUNCTIONS:
                problem += f": {model.effect(**{name: default.value})}"
            problems.append(problem)
    finding = _Finding(problems=tuple(problems))
    rows, own_rows = program.family.defaults.masked_rows, model.fields.get("masked_rows", "even")
    if rows != own_rows:
        reason = f"what a sequence does that is masked throughout: the model has {own_rows!r}"
        finding += _decided("masked_rows", rows, reason)
    dropout, hidden = model.fields.get("classifier_dropout"), model.fields["hidden_dropout_prob"]
    default = fixed.get("classifier_dropout", Default(hidden, "it takes hidden_dropout_prob"))
    if program.classes or dropout in (None, default.value):
        return finding
    reason = f"{default.reason}; the model's {dropout:g} would matter in training alone"
    return finding + _decided("classifier_dropout", default.value, reason)


def _dtypes(program: Program, steps: Iterable[Step]) -> _Finding:
    """Element types that the program does not have."""
    title = program.family.title
    doubles = sorted(step.entry.name for step in steps if step.entry.dtype == "float64")
    if doubles and "float64" in program.lacks:
        return _Finding(problems=(f"types: {doubles[0]} is of float64, {title} has float32 alone",))
    widened = sorted({step.entry.dtype for step in steps if _written_dtype(program, step) != step.entry.dtype})
    if widened:
        reason = f"{title} has no {' and no '.join(widened)}; no value is changed by that"
        return _decided("dtype", "float32", reason)
    return _Finding()


def _activation(program: Program, model: ConvertedModel, accept: bool) -> tuple[str, _Finding]:
    """The program's name for the model's activation. If it has only another GELU: its name, and what that changes."""
    title, known = program.family.title, program.family.defaults.activations
    own = model.fields["hidden_act"]
    exact = [name for name, meaning in known.items() if meaning == own or _same(meaning, own)]
    if exact:
        return own if own in exact else exact[0], _Finding()
    gelus = [name for name, meaning in known.items() if _FUNCTIONS.get(meaning) in _GELUS]
    if not gelus or _FUNCTIONS.get(own) not in _GELUS:
        return "", _Finding(problems=(f"activation: the model computes {own}, {title} has {', '.join(known)}",))
    name, meaning = gelus[0], known[gelus[0]]
    change = f"the model computes {own}, and {title}'s {name!r} is {meaning}: {model.effect(hidden_act=meaning)}"
    if accept:
        return name, _decided("hidden_act", name, f"accepted: {change}", Origin.ASKED)
    return name, _Finding(problems=(f"activation: {change}",))


def _same(a: str, b: str) -> bool:
    """Whether two of transformers' names are of one function."""
    return a in _FUNCTIONS and _FUNCTIONS[a] is _FUNCTIONS.get(b)


def _config(program: Program, model: ConvertedModel, activation: str) -> _Finding:
    """The program's JSON."""
    fields = model.fields
    fixed = {name for name, default in program.family.defaults.numbers.items() if default.fixed}
    config = dict(program.says)
    if program.classes:
        config |= {"architectures": [program.classes[model.head]], "model_type": "nezha"}
    names = fields if program.classes else _FIELDS
    # Of add_pooling_layer, transformers 4 reads the argument alone, and not even that where the JSON has such a key.
    unread = {*fixed, "masked_rows", "is_decoder", "prefix_lm", "add_pooling_layer"}
    config |= {name: fields[name] for name in names if name not in unread} | {"hidden_act": activation}
    if fields.get("is_decoder"):
        config |= program.prefix if fields.get("prefix_lm") else program.causal
    if program.family.defaults.switch:
        config["use_relative_position"] = True
    if program.family is TRANSFORMERS:
        config["torch_dtype"] = model.dtype
    return _Finding(files=((program.config, json_bytes(config)),))


def _carried(program: Program, model: ConvertedModel) -> _Finding:
    """The converted folder's files that are copied."""
    paths = [path for name in program.carried if (path := model.companion(name))]
    finding = _Finding(files=tuple((path.name, path.read_bytes()) for path in paths))
    modules = modules_beside(model.survey.checkpoint.path.parent)
    if modules.listing and program.family is TRANSFORMERS:
        finding += _Finding(files=tuple(modules.contents().items()), decisions=modules.decisions)
    elif modules.listing:
        reason = f"{program.family.title} is not loaded by sentence-transformers; its modules stay in the folder"
        finding += _decided(LISTING, "left out", reason)
    if any(path.name == "vocab.txt" for path in paths):
        return finding
    reason = "the converted folder has none, and the program's tokenizer needs one"
    return finding + _decided("vocab.txt", None, reason)


def _with_kept(program: Program, model: ConvertedModel, finding: _Finding) -> _Finding:
    """What the conversion kept beside the model goes back, by its own names, to the program that it came from."""
    kept, record = {step.target: step.entry for step in model.survey.plan.kept}, model.companion(MARK)
    if not kept:
        return finding
    family = read_json(record).get("family") if record else None
    if family != program.family.name:
        reason = f"{program.family.title} has no place for what was kept beside the model; it stays in {EXTRA}"
        return finding + _decided("left out", f"{len(kept)} tensors", reason)
    # A part that the model lacks, and the program wants, was made of zeros: the source's own is better.
    steps = tuple(step for step in finding.steps if step.target not in kept or step.entry.name != "zeros")
    there = {step.target for step in steps}
    back = tuple(Step(entry, name, Op.COPY, entry.shape) for name, entry in kept.items() if name not in there)
    zeros = any(step.entry.name == "zeros" and step.target != program.steps for step in steps)
    decisions = tuple(decision for decision in finding.decisions if zeros or decision.value != "zeros")
    finding = replace(finding, steps=(*steps, *back), decisions=decisions)
    return finding + _decided("from beside", f"{len(back)} tensors", "they go back under their own names")


def _labels(program: Program, model: ConvertedModel) -> _Finding:
    """A file of the names of the classifier's rows, unless transformers made them up."""
    names = model.fields.get("id2label")
    if not program.labels or model.head not in LABELLED or not names:
        return _Finding()
    labels = [names[str(i)] for i in range(len(names))]
    if labels == [f"LABEL_{i}" for i in range(len(labels))]:
        return _Finding()
    finding = _Finding()
    if program.family.defaults.padding_label and model.head == "token-classification" and labels[0] == "[PAD]":
        labels = labels[1:]
        finding = _decided(program.labels, f"{len(labels)} labels", "its ids count from 1; 0 is padding")
    content = "".join(f"{label}\n" for label in labels).encode()
    return finding + _Finding(files=((program.labels, content),) if labels else ())


def watched(blocks: Iterable[np.ndarray], advance: Advance) -> Iterator[np.ndarray]:
    """`blocks`; `advance` is told the bytes of each one once it is done with."""
    for block in blocks:
        yield block
        advance(block.nbytes)
