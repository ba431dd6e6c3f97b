"""A converted model's way into another program: the tensors that it needs, its JSON, and what stands in the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import Checkpoint, Decision, TensorEntry
from ..errors import MappingError, UsageError
from ..families import ENCODER, HEADS, MLM, POOLER, TARGETS, TIES, TRANSFORMERS
from ..families.programs import Program
from ..families.rules import Habit, Op, numbered, pattern_of
from ..files.json import json_bytes
from ..formats.blocks import row_blocks, rows_within
from ..formats.tensor import Tensor
from ..mapping.config import LABELLED, ConfigBuilder, architecture_of, read_config
from ..mapping.plan import Step, make_plan
from ..mapping.recognise import family_of
from ..parity import inputs
from ..parity.oracle import dialects
from ..parity.oracle.formulas import gelu_erf, gelu_tanh, relative_table
from ..parity.oracle.model import Oracle
from ..weights.write import Progress, converted

_FIELDS = (
    *("attention_probs_dropout_prob", "hidden_act", "hidden_dropout_prob", "hidden_size", "initializer_range"),
    *("intermediate_size", "layer_norm_eps", "max_position_embeddings", "max_relative_position"),
    *("num_attention_heads", "num_hidden_layers", "type_vocab_size", "vocab_size"),
)
"""Fields that every program's JSON has by these names, unless it has the value hard-coded."""

_MEANT = dialects.TRANSFORMERS.activations
_GELUS = (gelu_erf, gelu_tanh)


class ConvertedModel:
    """What is in a converted folder.

    Raises:
        UsageError: it is none.
        MappingError: its tensors are not those of its head.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        folder = checkpoint.path.parent
        raw_config = read_config(checkpoint.config, checkpoint.path)
        architecture = architecture_of(raw_config)
        heads = [head for head in HEADS.values() if head.architecture == architecture]
        if checkpoint.format != "safetensors" or raw_config.get("model_type") != "nezha" or not heads:
            raise UsageError(
                f"{folder}: not a converted folder: expected safetensors and a config.json with model_type nezha and "
                f"one of its classes, found {checkpoint.format}, {raw_config.get('model_type')!r}, {architecture!r}",
                hint=f"Convert it first: nezha-convert convert {folder} OUTPUT",
            )
        self.config, self.head = raw_config, heads[0]
        self.untied = raw_config.get("tie_word_embeddings") is False and MLM in self.head.parts
        table = family_of(checkpoint.entries)
        builder = ConfigBuilder(raw_config, table, self.head, checkpoint.entries)
        builder.build(untied=self.untied)
        plan = make_plan(table, self.head, checkpoint.entries, builder.dimensions(), self.untied)
        plan.check()
        self.fields, self.dimensions = builder.fields, builder.dimensions()
        prefix = "nezha." if self.head.parts == (ENCODER, POOLER) else ""
        self.steps = {f"{prefix}{step.target}": step for step in plan.steps}
        self.dtype = plan.steps[0].entry.dtype

    def companion(self, name: str) -> Path | None:
        """The file `name` of the folder, if it is there."""
        path = self.checkpoint.path.parent / name
        return path if path.is_file() else None

    def effect(self, **fields: Any) -> str:
        """What other `fields` of its config would change, in words."""
        cases = inputs.built_in_cases(self.fields, self.fields["max_relative_position"], self.head.name)
        own, other = (
            Oracle(self.checkpoint.entries, self.config | changed, self.head.name).forward(
                **cases["short"], record=False
            )
            for changed in ({}, fields)
        )
        name, change = _largest_change(own, other)
        return f"on a built-in input that changes {name} by {change:.1e} of its range"


class WayBack:
    """A model's way into a program: steps, decisions, and what stands in the way."""

    def __init__(self, program: Program, model: ConvertedModel) -> None:
        self.program, self.model = program, model
        self.steps: list[Step] = []
        self.decisions: list[Decision] = []
        self._problems: list[str] = []
        self._activation = ""
        self._title = program.table.title

    def check(self, accept_activation: bool) -> None:
        """Find the steps and everything that is in the way.

        Raises:
            MappingError: with all of it.
        """
        head = self.model.head
        if head.name not in self.program.heads:
            self._problems.append(f"head: {self._title} has no {head.name} model")
        elif self.model.untied and not self.program.unties:
            self._problems.append(f"decoder: the model has one of its own, {self._title} ties it to the embeddings")
        else:
            self._find_steps()
        self._check_numbers()
        wrong = len(self._problems)
        self._check_activation(accept_activation)
        if self._problems:
            hint = "transformers-4 holds every model: --to transformers-4"
            if not wrong and self._activation:
                hint = "If that much is acceptable, add --accept-activation."
            raise MappingError(
                f"{self._title} cannot compute what this model computes: {len(self._problems)} problem(s)",
                problems=tuple(self._problems),
                hint=hint,
            )

    def dtype(self, step: Step) -> str:
        """The type in which a step is written."""
        widened = self.program.float32 and step.entry.dtype in ("float16", "bfloat16")
        return "float32" if widened else step.entry.dtype

    def tensors(self, progress: Progress) -> Iterator[Tensor]:
        """What the program's writer takes."""
        for step in self.steps:
            dtype = self.dtype(step)
            yield Tensor(step.target, dtype, step.shape, watched(converted(step, dtype), progress))

    def files(self) -> dict[str, bytes]:
        """What lies beside the weights, by name."""
        program, model = self.program, self.model
        files = {program.config: json_bytes(self._config())}
        for name in program.carried:
            if path := model.companion(name):
                files[name] = path.read_bytes()
        if "vocab.txt" not in files:
            self._decide("vocab.txt", None, "the converted folder has none, and the program's tokenizer needs one")
        labels = self._labels() if program.labels else []
        if labels:
            files[program.labels] = "".join(f"{label}\n" for label in labels).encode()
        return files

    def _find_steps(self) -> None:
        """One step for each tensor that the program needs; zeros for one that the model does not have."""
        model, program = self.model, self.program
        base = program.base if model.head.parts == (ENCODER, POOLER) else None
        back = (base or program.table).inverse()
        ties = {} if model.untied else {tie.target: tie.of for tie in TIES}
        for part in program.heads[model.head.name]:
            lacking = part not in model.head.parts
            for name in numbered(TARGETS[part], model.fields["num_hidden_layers"]):
                found = back.find(name)
                if name in ties and (not program.ties or not isinstance(found, tuple)):
                    continue
                if not isinstance(found, tuple):
                    self._problems.append(f"tensors: {self._title} has none for {name}")
                    continue
                step = model.steps.get(ties.get(name, name))
                entry = step.entry if step else self._zeros(part, name)
                shape = entry.shape[::-1] if found[1].op is Op.TRANSPOSE else entry.shape
                self.steps.append(Step(entry, found[1].target, found[1].op, shape))
            if lacking:
                self._decide(part, "zeros", f"the {model.head.name} model has none, {self._title} restores one with it")
        if program.positions:
            self._write_positions()
        if program.steps:
            counter = TensorEntry("zeros", "int64", (), 8, partial(row_blocks, np.zeros((), np.int64)))
            self.steps.append(Step(counter, program.steps, Op.COPY, ()))
            self._decide(program.steps, 0, "a training's counter, restored with the weights; a new one begins at 0")

    def _write_positions(self) -> None:
        """The table that each layer keeps, though it is the same in all and no weight: R[clip(j - i, -K, K) + K]."""
        fields, dtype = self.model.fields, self.model.dtype
        length, clip = fields["max_position_embeddings"], fields["max_relative_position"]
        table = relative_table(clip, fields["hidden_size"] // fields["num_attention_heads"]).astype(np.dtype(dtype))
        shape = (length, length, table.shape[1])

        def stream(limit: int) -> Iterator[np.ndarray]:
            rows = rows_within(shape, table.itemsize, limit)
            for top in range(0, length, rows):
                distance = np.arange(length) - np.arange(top, min(top + rows, length))[:, None]
                yield table[np.clip(distance, -clip, clip) + clip]

        entry = TensorEntry("positions", dtype, shape, prod(shape) * table.itemsize, stream)
        names = numbered([self.program.positions], fields["num_hidden_layers"])
        self.steps += [Step(entry, name, Op.COPY, shape) for name in names]
        self._decide("positions", f"{len(names)} tables", f"{self._title} keeps one in each layer, for {length} tokens")

    def _zeros(self, part: str, name: str) -> TensorEntry:
        dims = TARGETS[part][pattern_of(name)]
        shape = tuple(self.model.dimensions[dim] if isinstance(dim, str) else dim for dim in dims)
        array = np.zeros(shape, np.dtype(self.model.dtype))
        return TensorEntry("zeros", self.model.dtype, shape, array.nbytes, partial(row_blocks, array))

    def _check_numbers(self) -> None:
        """What the program has hard-coded, against what the model has."""
        fixed = dict(self.program.table.habits.numbers)
        for part in self.model.head.parts:
            fixed |= self.program.fixed.get(part, {})
        for name, habit in fixed.items():
            value = self.model.fields.get(name)
            if habit.fixed and value != habit.value:
                told = f"{name}: the model has {value:g}, {self._title} computes with {habit.value:g} ({habit.reason})"
                if name in self.program.table.habits.numbers and self.model.fields["hidden_act"] in _MEANT:
                    told += f": {self.model.effect(**{name: habit.value})}"
                self._problems.append(told)
        dropout, hidden = self.model.fields.get("classifier_dropout"), self.model.fields["hidden_dropout_prob"]
        habit = fixed.get("classifier_dropout", Habit(hidden, "it takes hidden_dropout_prob"))
        if not self.program.classes and dropout not in (None, habit.value):
            reason = f"{habit.reason}; the model's {dropout:g} would matter in training alone"
            self._decide("classifier_dropout", habit.value, reason)
        doubles = sorted(step.entry.name for step in self.steps if step.entry.dtype == "float64")
        if doubles and self.program.float32:
            self._problems.append(f"types: {doubles[0]} is of float64, {self._title} has float32 alone")
        elif any(self.dtype(step) != step.entry.dtype for step in self.steps):
            self._decide("dtype", "float32", f"{self._title} has no other; no value is changed by that")

    def _check_activation(self, accept: bool) -> None:
        """The program's name for the model's activation; if it has none but another GELU, what that would change."""
        own, known = self.model.fields["hidden_act"], self.program.table.habits.activations
        exact = [name for name, meant in known.items() if meant == own or (meant in _MEANT and _same(meant, own))]
        if exact:
            self._activation = own if own in exact else exact[0]
            return
        near = [name for name, meant in known.items() if _MEANT.get(meant) in _GELUS and _MEANT.get(own) in _GELUS]
        if not near:
            told = f"activation: the model computes {own}, {self._title} has {', '.join(known)}"
            self._problems.append(told)
            return
        self._activation, meant = near[0], known[near[0]]
        told = (
            f"the model computes {own}, and {self._title}'s {near[0]!r} is {meant}: "
            f"{self.model.effect(hidden_act=meant)}"
        )
        if accept:
            self._decide("hidden_act", near[0], f"accepted: {told}")
        else:
            self._problems.append(f"activation: {told}")

    def _config(self) -> dict[str, Any]:
        """The program's JSON."""
        program, fields = self.program, self.model.fields
        fixed = {name for name, habit in program.table.habits.numbers.items() if habit.fixed}
        config = dict(program.says)
        if program.classes:
            config |= {"architectures": [program.classes[self.model.head.name]], "model_type": "nezha"}
        names = fields if program.classes else _FIELDS
        config |= {name: fields[name] for name in names if name not in fixed} | {"hidden_act": self._activation}
        if program.table.habits.switch:
            config["use_relative_position"] = True
        if program.table is TRANSFORMERS:
            config["torch_dtype"] = self.model.dtype
        return config

    def _labels(self) -> list[str]:
        """The names of the classifier's rows, unless transformers made them up."""
        head, named = self.model.head.name, self.model.fields.get("id2label")
        if head not in LABELLED or not named:
            return []
        labels = [named[str(i)] for i in range(len(named))]
        if labels == [f"LABEL_{i}" for i in range(len(labels))]:
            return []
        if self.program.table.habits.padding_label and head == "token-classification" and labels[0] == "[PAD]":
            self._decide(self.program.labels, f"{len(labels) - 1} labels", "its ids count from 1; 0 is padding")
            return labels[1:]
        return labels

    def _decide(self, field: str, value: Any, reason: str) -> None:
        self.decisions.append(Decision(field, value, reason))


def _largest_change(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> tuple[str, float]:
    """The output that changes most between `a` and `b`, and by how much of its range in `a`."""
    changes = {name: float(np.abs(a[name] - b[name]).max() / (np.ptp(a[name]) or 1)) for name in a}
    name = max(changes, key=lambda name: changes[name])
    return name, changes[name]


def _same(a: str, b: str) -> bool:
    """Whether two of transformers' names are of one function."""
    return _MEANT.get(a) is _MEANT.get(b)


def watched(blocks: Iterable[np.ndarray], progress: Progress) -> Iterator[np.ndarray]:
    """`blocks`, each told to `progress` once it is done with."""
    for block in blocks:
        yield block
        progress(block.nbytes)
