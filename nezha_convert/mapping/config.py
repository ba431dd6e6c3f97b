"""The original's JSON -> the fields of NezhaConfig; every decision that the source left open, with its reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoint import Decision, TensorEntry
from ..errors import CheckpointError, MappingError, UsageError
from ..families import ACTIVATIONS, CLASSIFIER, HEADS, HUAWEI_TORCH, TRANSFORMERS, Head
from ..families.rules import Habit, Op, Table, layer_of
from ..files.json import read_json

AUTO_MAP = {
    "AutoConfig": "configuration_nezha.NezhaConfig",
    **{head.auto_class: f"modeling_nezha.{head.architecture}" for head in HEADS.values()},
}
"""Where transformers finds each class in the folder's own files, with trust_remote_code=True."""

LABELLED = ("sequence-classification", "token-classification")
"""The heads whose classifier's rows have names."""

_DEFAULTS = {
    "hidden_dropout_prob": Habit(0.1, "the originals' default"),
    "attention_probs_dropout_prob": Habit(0.1, "the originals' default"),
    "initializer_range": Habit(0.02, "the originals' default"),
    "max_position_embeddings": Habit(512, "the length that NEZHA was trained with; the model takes any"),
    "max_relative_position": Habit(64, "the originals' value, hard-coded in Huawei's TensorFlow code"),
    "layer_norm_eps": Habit(1e-12, "hard-coded in the originals"),
}
"""What the originals do where their JSON is silent, and the family has no habit of its own."""

_CARRIED = ("pad_token_id", "bos_token_id", "eos_token_id", "problem_type")
"""Fields of a transformers config that go over as they are."""

_PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")

_BOOKKEEPING = {
    *("architectures", "model_type", "torch_dtype", "dtype", "transformers_version", "use_cache", "auto_map"),
    *("paddlenlp_version", "embedding_size"),
}
"""Fields of a transformers or PaddleNLP config that are written anew, or that NEZHA has no use for: PaddleNLP's program
does not read its embedding_size, and takes hidden_size."""


def read_config(path: Path | None, where: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        CheckpointError: there is none beside `where`, or it is not a JSON object.
    """
    if path is None:
        raise CheckpointError(
            f"{where}: no bert_config.json or config.json beside it; the number of attention heads stands nowhere else",
            hint="Name it: --config FILE",
        )
    try:
        raw = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a JSON file ({error})", hint="Name the config: --config FILE") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: holds a {type(raw).__name__}, expected an object of fields")
    return _flattened(raw)


def _flattened(raw: dict[str, Any]) -> dict[str, Any]:
    """PaddleNLP's ``model_config.json`` as a flat object: the head's arguments, and among them the model's.

    Source: paddlenlp/transformers/configuration_utils.py of 2.8.1, flatten_model_config: what stands outside wins.
    """
    inner = raw.get("init_args")
    if not isinstance(inner, list) or "init_class" not in raw:
        return raw
    flat = {name: value for name, value in raw.items() if name not in ("init_args", "init_class")}
    for arguments in inner:
        if isinstance(arguments, dict):
            flat = {name: value for name, value in arguments.items() if name != "init_class"} | flat
    return {**flat, "architectures": [raw["init_class"]]}


def architecture_of(raw: Mapping[str, Any]) -> str | None:
    """The class that a transformers config names."""
    named = raw.get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else None


def read_labels(path: Path) -> list[str]:
    """Labels in the order of their ids: lines of text, a JSON list, or a JSON object either way round.

    Raises:
        UsageError: not readable as any of these.
    """
    try:
        if path.suffix != ".json":
            labels = [line.strip() for line in path.read_text("utf-8-sig").split("\n") if line.strip()]
        else:
            loaded = read_json(path)
            labels = _in_order(loaded) if isinstance(loaded, dict) else loaded
        if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
            raise ValueError("expected a list of names, or an object of ids and names")
        twice = [name for name, count in Counter(labels).items() if count > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} is there twice")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}: not a file of labels ({error})", hint="One label a line, in the order of ids."
        ) from error
    return labels


def _in_order(loaded: Mapping[str, Any]) -> list[Any]:
    """The names of an object of ids by name, or of names by id, in the order of the ids."""
    by_name = all(type(value) is int for value in loaded.values())
    pairs = [(value, key) if by_name else (int(key), value) for key, value in loaded.items()]
    by_id = dict(pairs)
    if len(by_id) < len(pairs) or sorted(by_id) != list(range(len(by_id))):
        raise ValueError(f"ids must run from 0 to {len(pairs) - 1}, each once")
    return [by_id[i] for i in range(len(by_id))]


class ConfigBuilder:
    """Decides field by field; `fields` and `decisions` are the result.

    Args:
        raw: the source's JSON.
        table: the source's family.
        head: what is converted to.
        entries: the source's tensors; their shapes fill in what the JSON does not say.

    Raises:
        MappingError: a field has a value that no NEZHA has, or one that neither the JSON nor the tensors give.
    """

    def __init__(self, raw: Mapping[str, Any], table: Table, head: Head, entries: Mapping[str, TensorEntry]) -> None:
        self.raw, self.table, self.head = raw, table.under(head.parts), head
        self.fields: dict[str, Any] = {}
        self.decisions: list[Decision] = []
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._layers = 0
        self._told: tuple[Decision, ...] = ()
        self._positions: tuple[int, ...] = ()
        for name, entry in entries.items():
            if table.habits.positions and table.unwrapped(name).startswith(table.habits.positions):
                self._positions = entry.shape
            found = self.table.find(name)
            if isinstance(found, tuple):
                named = table.habits.classifiers.get(found[1].source)
                if named and named.head == head.name:
                    self._told = named.decisions
                self._shapes[found[1].target] = entry.shape[::-1] if found[1].op is Op.TRANSPOSE else entry.shape
                self._layers = max(self._layers, 1 + (layer_of(found[1].target) or 0))

    def build(
        self,
        *,
        activation: str | None = None,
        max_relative_position: int | None = None,
        labels: Sequence[str] | None = None,
        untied: bool = False,
    ) -> None:
        """Decide every field; the arguments override the source."""
        self._sizes()
        self._numbers(max_relative_position)
        self._activation(activation)
        self._dropout()
        self._labels(labels)
        for name in _CARRIED:
            if name in self.raw:
                self.fields[name] = self._carried(name, self.raw[name])
        for decision in (*self.table.habits.notes, *self._told):
            self.decisions.append(decision)
            if decision.field in _CARRIED:
                self.fields.setdefault(decision.field, decision.value)
        padding = self.fields.get("pad_token_id")
        if padding is not None and not (isinstance(padding, int) and 0 <= padding < self.fields["vocab_size"]):
            raise MappingError(f"config: pad_token_id is {padding!r}, expected an id below {self.fields['vocab_size']}")
        self.fields["tie_word_embeddings"] = not untied
        self._relative()

    @property
    def ignored(self) -> tuple[str, ...]:
        """The JSON's fields that say nothing about a Nezha."""
        used = {*self.fields, *_BOOKKEEPING, "use_relative_position"}
        return tuple(name for name in self.raw if name not in used)

    def dimensions(self) -> dict[str, int]:
        """What the plan takes shapes from."""
        rows = {"multiple-choice": 1}.get(self.head.name) or self._rows() or 2
        names = ("vocab_size", "hidden_size", "intermediate_size", "type_vocab_size", "num_hidden_layers")
        return {**{name: self.fields[name] for name in names}, "num_labels": rows}

    def to_json(self, dtype: str) -> dict[str, Any]:
        """config.json: fields, class, where the code is, and the weights' element type."""
        return {
            "architectures": [self.head.architecture],
            "auto_map": AUTO_MAP,
            "model_type": "nezha",
            **self.fields,
            "torch_dtype": dtype,
        }

    def decide(self, field: str, value: Any, reason: str) -> None:
        """Set `field` and record why."""
        self.fields[field] = value
        self.decisions.append(Decision(field, value, reason))

    def _sizes(self) -> None:
        embedding = self._shapes.get("nezha.embeddings.word_embeddings.weight", ())
        types = self._shapes.get("nezha.embeddings.token_type_embeddings.weight", ())
        dense = self._shapes.get("nezha.encoder.layer.0.intermediate.dense.bias", ())
        told = {
            "vocab_size": embedding[:1],
            "hidden_size": embedding[1:2],
            "num_hidden_layers": (self._layers,) if self._layers else (),
            "num_attention_heads": (),
            "intermediate_size": dense[:1],
            "type_vocab_size": types[:1],
        }
        for name, size in told.items():
            if name in self.raw:
                self.fields[name] = self._checked(name, int, self.raw[name])
            elif size:
                self.decide(name, size[0], "the config does not say; the tensors do")
            else:
                raise MappingError(
                    f"config: {name} is missing, and no tensor tells it",
                    hint="Add it to the JSON, and name the JSON: --config FILE",
                )
        hidden, heads = self.fields["hidden_size"], self.fields["num_attention_heads"]
        if hidden % heads:
            raise MappingError(f"config: hidden_size {hidden} is not a multiple of num_attention_heads {heads}")

    def _numbers(self, max_relative_position: int | None) -> None:
        if max_relative_position is not None:
            if max_relative_position < 1:
                raise UsageError(f"--max-relative-position {max_relative_position}: expected a positive whole number")
            self.decide("max_relative_position", max_relative_position, "asked for on the command line")
        numbers = dict(self.table.habits.numbers)
        if self.table.habits.positions:
            numbers["max_relative_position"] = self._own_clip()
        for name, habit in {name: numbers.get(name, default) for name, default in _DEFAULTS.items()}.items():
            if name in self.fields:
                continue
            said = self._checked(name, type(habit.value), self.raw[name]) if name in self.raw else None
            if said is None:
                self.decide(name, habit.value, f"the config does not say: {habit.reason}")
            elif habit.fixed and not habit.unless_said and said != habit.value:
                self.decide(name, habit.value, f"{habit.reason}, which does not read the config's {said:g}")
            else:
                self.fields[name] = said

    def _own_clip(self) -> Habit:
        """The clip distance K of a family whose files have the table of relative positions: it has 2K + 1 rows."""
        if len(self._positions) != 2 or self._positions[0] % 2 == 0:
            raise MappingError(f"{self.table.habits.positions} has shape {self._positions}, expected 2K + 1 rows")
        rows = self._positions[0]
        return Habit((rows - 1) // 2, f"its own table of relative positions has {rows} rows", fixed=True)

    def _checked(self, name: str, kind: type, value: Any) -> Any:
        """`value` if it is a number that `name` can have: a positive int, or a float from 0 (a dropout: to 1)."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if kind is int and number and 0 < value < 2**31 and value == int(value):
            return int(value)
        limit = 1 if name.endswith(("_prob", "_dropout")) else 1e9
        if kind is float and number and 0 <= value <= limit:
            return float(value)
        expected = "a positive whole number" if kind is int else f"a number from 0 to {limit:g}"
        raise MappingError(f"config: {name} is {value!r}, expected {expected}", hint="Name another: --config FILE")

    def _carried(self, name: str, value: Any) -> Any:
        """`value` if it is one that transformers has for `name`: a kind of problem, an id, or none."""
        if value is None or (value in _PROBLEMS if name == "problem_type" else type(value) is int):
            return value
        expected = f"one of {', '.join(_PROBLEMS)}" if name == "problem_type" else "an id"
        raise MappingError(f"config: {name} is {value!r}, expected {expected} or null", hint="Correct it in the JSON.")

    def _activation(self, asked: str | None) -> None:
        if asked is not None:
            if asked not in ACTIVATIONS:
                raise UsageError(f"--activation {asked}: expected one of {', '.join(ACTIVATIONS)}")
            self.decide("hidden_act", asked, "asked for on the command line")
            return
        # A copy on the Hub may have Huawei's prefix: who wrote its config says what the name means.
        ported = self.table.name == HUAWEI_TORCH.name and {"architectures", "model_type"} & self.raw.keys()
        family = TRANSFORMERS if ported else self.table
        habits = family.habits
        known = habits.activations
        named = self.raw.get("hidden_act", "gelu")
        key = named.lower() if isinstance(named, str) and habits.lower_case else named
        if not isinstance(key, str) or key not in known:
            raise MappingError(
                f"config: hidden_act is {named!r}, which {family.title} does not have; expected one of "
                f"{', '.join(known)}",
                hint="If the model was trained by other code, say what it computes: --activation NAME",
            )
        reasons = [] if "hidden_act" in self.raw else ["the config does not say: GELU is the originals' default"]
        if key == "gelu" and habits.gelu:
            reasons.append(habits.gelu)
        elif habits.gelu:
            reasons.append(f"{family.title} calls it {named!r}")
        self.fields["hidden_act"] = known[key]
        if reasons:
            self.decide("hidden_act", known[key], "; ".join(reasons))

    def _dropout(self) -> None:
        if "classifier_dropout" in self.raw:
            value = self.raw["classifier_dropout"]
            self.fields["classifier_dropout"] = (
                None if value is None else self._checked("classifier_dropout", float, value)
            )
        elif CLASSIFIER in self.head.parts:
            value = self.fields["hidden_dropout_prob"]
            as_hidden = Habit(value, "the originals use hidden_dropout_prob before a classifier")
            habit = self.table.habits.numbers.get("classifier_dropout", as_hidden)
            self.decide("classifier_dropout", habit.value, habit.reason)

    def _rows(self) -> int | None:
        """Rows of the classifier."""
        shape = self._shapes.get("classifier.weight", ())
        return shape[0] if CLASSIFIER in self.head.parts and shape else None

    def _labels(self, labels: Sequence[str] | None) -> None:
        rows = self._rows()
        if self.head.name not in LABELLED or rows is None:
            if labels is not None:
                raise UsageError(f"--labels: the {self.head.name} model has no labels of its own")
            return
        reason = ""
        if labels is None:
            labels, reason = self._own_labels(rows)
        elif len(labels) == rows - 1 and self.table.habits.padding_label and self.head.name == "token-classification":
            labels = ["[PAD]", *labels]
            reason = "run_classifier_ner.py numbers labels from 1; id 0 is padding"
        if len(labels) != rows:
            raise MappingError(
                f"labels: {len(labels)} given, but the classifier has {rows} rows",
                hint="--labels FILE takes one label a line, in the order of the rows.",
            )
        if reason:
            self.decisions.append(Decision("id2label", f"{rows} labels", reason))
        self.fields["id2label"] = {str(i): label for i, label in enumerate(labels)}
        self.fields["label2id"] = {label: i for i, label in enumerate(labels)}

    def _own_labels(self, rows: int) -> tuple[list[str], str]:
        given = self.raw.get("id2label")
        if isinstance(given, dict) and sorted(given) == sorted(str(i) for i in range(rows)):
            return [str(given[str(i)]) for i in range(rows)], ""
        says = f"the config names {len(given)}" if isinstance(given, dict) else "no labels were found"
        return [f"LABEL_{i}" for i in range(rows)], f"{says}, the classifier has {rows} rows; name them with --labels"

    def _relative(self) -> None:
        said = self.raw.get("use_relative_position")
        if said is not True and self.table.habits.switch:
            says = "does not say" if said is None else f"says {json.dumps(said)}"
            reason = f"the config {says}, but the checkpoint has no position embeddings, so it is relative"
            self.decisions.append(Decision("use_relative_position", True, reason))
