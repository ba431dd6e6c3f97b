"""The original's JSON -> the fields of NezhaConfig; every decision that the source left open, with its reason."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoint import Decision, Origin, TensorEntry
from ..errors import CheckpointError, MappingError, UsageError
from ..families import HUAWEI_TORCH, TRANSFORMERS
from ..families.heads import CLASSIFIER, GENERATING, HEADS, MLM, POOLER, Head
from ..families.rules import Default, Family, Op, layer_of
from ..families.transformers import ACTIVATIONS
from ..files.given import in_utf8, similar
from ..files.json import read_json
from ..formats.pickles.settings import CONFIG_FIELDS

AUTO_MAP = {
    "AutoConfig": "configuration_nezha.NezhaConfig",
    **{head.auto_class: f"modeling_nezha.{head.architecture}" for head in HEADS.values()},
}
"""Where transformers finds each class in the folder's own files, with trust_remote_code=True."""

LABELLED = ("sequence-classification", "token-classification")
"""The heads whose classifier's rows have names."""

_NUMBERS = {
    "hidden_dropout_prob": Default(0.1, "the originals' default"),
    "attention_probs_dropout_prob": Default(0.1, "the originals' default"),
    "initializer_range": Default(0.02, "the originals' default"),
    "max_position_embeddings": Default(512, "the length that NEZHA was trained with; the model takes any"),
    "max_relative_position": Default(64, "the originals' value, hard-coded in Huawei's TensorFlow code"),
    "layer_norm_eps": Default(1e-12, "hard-coded in the originals"),
}
"""What the originals do where their JSON is silent, and the family has no default of its own."""

_CARRIED = ("pad_token_id", "bos_token_id", "eos_token_id", "problem_type")
"""Fields of a transformers config that are copied as they are."""

_PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")


@dataclass(frozen=True, slots=True)
class Config:
    """The model's config, decided.

    Attributes:
        head: the class of the model.
        fields: of NezhaConfig, in the order in which config.json has them.
        decisions: what the source left open.
        ignored: the JSON's fields that change no output.
        unknown: its fields that the family's table does not know, with their values.
        dimensions: the sizes that shapes are made of.
    """

    head: Head
    fields: Mapping[str, Any]
    decisions: tuple[Decision, ...]
    ignored: tuple[str, ...]
    unknown: Mapping[str, Any]
    dimensions: Mapping[str, int]

    def to_json(self, tokenizer: Mapping[str, Any], dtype: str) -> dict[str, Any]:
        """config.json.

        Args:
            tokenizer: fields that the tokenizer tells, where the source's config does not.
            dtype: the weights' element type.
        """
        return {
            "architectures": [self.head.architecture],
            "auto_map": AUTO_MAP,
            "model_type": "nezha",
            **self.fields,
            **{name: value for name, value in tokenizer.items() if name not in self.fields and self._reads(name)},
            "torch_dtype": dtype,
        }

    def _reads(self, name: str) -> bool:
        """Whether the model is asked for the field `name`: only one that generates begins and ends a text."""
        return self.head.name in GENERATING or name not in ("bos_token_id", "eos_token_id")


@dataclass(frozen=True, slots=True)
class _Group:
    """Fields that were decided together, and the decisions that a report shows."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()

    def __add__(self, other: _Group) -> _Group:
        return _Group({**self.fields, **other.fields}, self.decisions + other.decisions)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What the tensors say: shapes by target, the number of layers, and what the classifier's name tells."""

    shapes: Mapping[str, tuple[int, ...]]
    layers: int
    classifier: tuple[Decision, ...]

    def rows(self, head: Head) -> int | None:
        """Rows of the classifier of `head`."""
        shape = self.shapes.get("classifier.weight", ())
        return shape[0] if CLASSIFIER in head.parts and shape else None


def held_config(settings: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, Any]] | None:
    """The config among the objects that a checkpoint holds, with the place where it stands; None if there is none.

    Raises:
        UsageError: there are several, and they differ.
    """
    configs = {where: dict(fields) for where, fields in settings.items() if fields.keys() >= CONFIG_FIELDS}
    if not configs:
        return None
    where, config = next(iter(configs.items()))
    if any(other != config for other in configs.values()):
        raise UsageError(
            f"the checkpoint holds {len(configs)} different configs: {', '.join(configs)}",
            hint="Write the right one as JSON, and name it: --config FILE",
        )
    return where, config


NOT_THE_MODEL_S = {"tokenizer_config.json", "generation_config.json"}
"""Files whose names look like the config's."""


def read_config(path: Path | None, where: Path, published: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON object in `path`.

    Args:
        path: the file; None where there is none.
        where: the checkpoint.
        published: the names of published models whose sizes the tensors have.

    Raises:
        CheckpointError: there is none beside `where`, or it is not a JSON object.
    """
    if path is None:
        lack = "no bert_config.json or config.json beside it; the number of attention heads stands nowhere else"
        folder = where if where.is_dir() else where.parent
        names = {path.name for path in folder.iterdir()} - NOT_THE_MODEL_S if folder.is_dir() else set()
        near = similar("config.json", names)
        found = [*(str(folder / name) for name in near), *published]
        sizes = f". Its shapes are those of {' or '.join(published)}" if published else ""
        raise CheckpointError(
            f"{where}: {lack}{sizes}",
            hint="" if found else "Name it: --config FILE",
            ways=tuple(("--config", name) for name in found),
        )
    try:
        raw = read_json(path)
    except (OSError, ValueError) as error:
        encoding = in_utf8(path, "--config") if isinstance(error, UnicodeDecodeError) else ""
        hint = encoding or "Name the config: --config FILE"
        raise CheckpointError(f"{path}: not a JSON file ({error})", hint=hint) from error
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
    names = raw.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None


def decide_config(
    raw: Mapping[str, Any],
    family: Family,
    head: Head,
    entries: Mapping[str, TensorEntry],
    *,
    activation: str | None = None,
    max_relative_position: int | None = None,
    labels: Sequence[str] | None = None,
    untied: bool = False,
    stored_clip: int | None = None,
) -> Config:
    """Decide every field of the config.

    Args:
        raw: the source's JSON.
        family: the source's family.
        head: what is converted to.
        entries: the source's tensors; their shapes fill in what the JSON does not say.
        activation, max_relative_position, labels: what the user asked for, instead of what the source says.
        untied: the masked-LM decoder is a tensor of its own.
        stored_clip: the clip distance of the tables of positions among the tensors; None where there are none.

    Raises:
        MappingError: a field says what no Nezha computes, has a value that no NEZHA has, or has none that the JSON or
            the tensors give.
        UsageError: an argument has a value that it cannot have.
    """
    evidence = _evidence(family.under(head.parts), head, entries)
    rows = evidence.rows(head)
    group = _sizes(raw, evidence)
    group += _numbers(raw, family, max_relative_position, stored_clip)
    group += _activation(raw, family, activation)
    group += _dropout(raw, family, head, group.fields["hidden_dropout_prob"])
    group += _labels(raw, family, head, rows, labels)
    group += _carried(raw)
    group += _notes((*family.defaults.notes, *evidence.classifier), group.fields)
    _check_padding(group.fields)
    if not isinstance(tied := raw.get("tie_word_embeddings", True), bool):  # programs differ in what they take for true
        raise _unexpected("tie_word_embeddings", tied, "true or false")
    epsilon, huawei = group.fields["layer_norm_eps"], _program(raw, family).name == HUAWEI_TORCH.name
    if huawei and MLM in head.parts and epsilon != _NUMBERS["layer_norm_eps"].value:
        raise _unexpected("layer_norm_eps", epsilon, "1e-12, which is hard-coded in Huawei's masked-LM head")
    group += _Group({"tie_word_embeddings": not untied}) + _pooler(head)
    group += _relative(raw, family) + _attention(raw, family, head)
    ignored, unknown = _account(raw, family, group.fields)
    names = ("vocab_size", "hidden_size", "intermediate_size", "type_vocab_size", "num_hidden_layers")
    return Config(
        head,
        group.fields,
        group.decisions,
        ignored,
        unknown,
        {name: group.fields[name] for name in names}
        | {"num_labels": {"multiple-choice": 1}.get(head.name) or rows or 2},
    )


def _evidence(family: Family, head: Head, entries: Mapping[str, TensorEntry]) -> _Evidence:
    shapes: dict[str, tuple[int, ...]] = {}
    layers = 0
    classifier: tuple[Decision, ...] = ()
    for name, entry in entries.items():
        if match := family.match(name):
            named = family.defaults.classifiers.get(match.rule.source)
            if named and named.head == head.name:
                classifier = named.decisions
            target = match.rule.target
            shapes[target] = entry.shape[::-1] if match.rule.op is Op.TRANSPOSE else entry.shape
            layers = max(layers, 1 + (layer_of(target) or 0))
    return _Evidence(shapes, layers, classifier)


def _decided(name: str, value: Any, reason: str, origin: Origin) -> _Group:
    return _Group({name: value}, (Decision(name, value, reason, origin),))


_FROM_TENSORS = ("vocab_size", "num_hidden_layers", "intermediate_size", "type_vocab_size")
"""Sizes that people change without the config: they add tokens, or cut layers. The tensors have the last word."""


def _is_outdated(name: str, configured: int, stored: int) -> bool:
    """Whether a size of the config is older than the tensors. Of more layers than the config has, programs load its."""
    return name in _FROM_TENSORS and (configured > stored if name == "num_hidden_layers" else configured != stored)


def _sizes(raw: Mapping[str, Any], evidence: _Evidence) -> _Group:
    """The sizes, from the JSON or the tensors' shapes."""
    embedding = evidence.shapes.get("nezha.embeddings.word_embeddings.weight", ())
    types = evidence.shapes.get("nezha.embeddings.token_type_embeddings.weight", ())
    dense = evidence.shapes.get("nezha.encoder.layer.0.intermediate.dense.bias", ())
    shapes = {
        "vocab_size": embedding[:1],
        "hidden_size": embedding[1:2],
        "num_hidden_layers": (evidence.layers,) if evidence.layers else (),
        "num_attention_heads": (),
        "intermediate_size": dense[:1],
        "type_vocab_size": types[:1],
    }
    group = _Group()
    for name, size in shapes.items():
        if name in raw and size and _is_outdated(name, _whole(name, raw[name]), size[0]):
            reason = f"the tensors have {size[0]:,}; the config's {raw[name]:,} is from before the model was changed"
            group += _decided(name, size[0], reason, Origin.TENSORS)
        elif name in raw:
            group += _Group({name: _whole(name, raw[name])})
        elif size:
            group += _decided(name, size[0], "the config does not say; the tensors do", Origin.TENSORS)
        else:
            raise MappingError(
                f"config: {name} is missing, and no tensor tells it",
                hint="Add it to the JSON, and name the JSON: --config FILE",
            )
    hidden, heads = group.fields["hidden_size"], group.fields["num_attention_heads"]
    if hidden % heads:
        raise MappingError(f"config: hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    return group


def _numbers(
    raw: Mapping[str, Any], family: Family, max_relative_position: int | None, stored_clip: int | None
) -> _Group:
    """Dropouts, epsilon, lengths and the clip distance: asked for, from the JSON, or the program's own."""
    group = _Group()
    if max_relative_position is not None:
        if not isinstance(max_relative_position, int) or max_relative_position < 1:
            raise UsageError(f"--max-relative-position {max_relative_position!r}: expected a positive whole number")
        group = _decided("max_relative_position", max_relative_position, "asked for", Origin.ASKED)
    defaults = _NUMBERS | {name: default for name, default in family.defaults.numbers.items() if name in _NUMBERS}
    origins = dict.fromkeys(defaults, Origin.DEFAULT)
    if stored_clip is not None:
        reason = f"the program computes with its stored table of positions, which is clipped at {stored_clip}"
        defaults["max_relative_position"] = Default(stored_clip, reason, fixed=True)
        origins["max_relative_position"] = Origin.TENSORS
    for name, default in defaults.items():
        if name in group.fields:
            continue
        value = (_whole if type(default.value) is int else _number)(name, raw[name]) if name in raw else None
        if value is None:
            group += _decided(name, default.value, f"the config does not say: {default.reason}", origins[name])
        elif default.fixed and value != default.value:
            reads = "it does not read" if origins[name] is Origin.TENSORS else "which does not read"
            reason = f"{default.reason}, {reads} the config's {value:g}"
            group += _decided(name, default.value, reason, origins[name])
        else:
            group += _Group({name: value})
    return group


def _whole(name: str, value: Any) -> int:
    """`value` if it is a positive whole number."""
    if _is_number(value) and 0 < value < 2**31 and value == int(value):
        return int(value)
    raise _unexpected(name, value, "a positive whole number")


def _number(name: str, value: Any) -> float:
    """`value` if it is a number from 0; of a dropout to 1."""
    limit = 1 if name.endswith(("_prob", "_dropout")) else 1e9
    if _is_number(value) and 0 <= value <= limit:
        return float(value)
    raise _unexpected(name, value, f"a number from 0 to {limit:g}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _unexpected(name: str, value: Any, expected: str) -> MappingError:
    return MappingError(f"config: {name} is {value!r}, expected {expected}", hint="Name another: --config FILE")


def _carried(raw: Mapping[str, Any]) -> _Group:
    """Ids of special tokens and the kind of problem, as transformers' config has them."""
    for name in _CARRIED:
        value = raw.get(name)
        if not (value is None or (value in _PROBLEMS if name == "problem_type" else type(value) is int)):
            expected = f"one of {', '.join(_PROBLEMS)}" if name == "problem_type" else "an id"
            raise MappingError(
                f"config: {name} is {value!r}, expected {expected} or null", hint="Correct it in the JSON."
            )
    return _Group({name: raw[name] for name in _CARRIED if name in raw})


def _notes(notes: Sequence[Decision], fields: Mapping[str, Any]) -> _Group:
    """What the report says of the family and of the classifier's name; a note may set a field that is still open."""
    opened = {note.field: note.value for note in notes if note.field in _CARRIED and note.field not in fields}
    return _Group(opened, tuple(notes))


def _check_padding(fields: Mapping[str, Any]) -> None:
    padding, size = fields.get("pad_token_id"), fields["vocab_size"]
    if padding is not None and not (isinstance(padding, int) and 0 <= padding < size):
        raise MappingError(f"config: pad_token_id is {padding!r}, expected an id below {size}")


def _activation(raw: Mapping[str, Any], family: Family, asked: str | None) -> _Group:
    """The activation by transformers' name: what a program calls "gelu" may be either of two functions."""
    if asked is not None:
        if asked not in ACTIVATIONS:
            raise UsageError(f"--activation {asked}: expected one of {', '.join(ACTIVATIONS)}")
        return _decided("hidden_act", asked, "asked for", Origin.ASKED)
    family = _program(raw, family)
    known = family.defaults.activations
    name = raw.get("hidden_act", "gelu")
    key = name.lower() if isinstance(name, str) and family.defaults.lower_case else name
    if not isinstance(key, str) or key not in known:
        raise MappingError(
            f"config: hidden_act is {name!r}, which {family.title} does not have; expected one of {', '.join(known)}",
            hint="If the model was trained by other code, say what it computes: --activation NAME",
        )
    reasons = [] if "hidden_act" in raw else ["the config does not say: GELU is the originals' default"]
    if key == "gelu" and family.defaults.gelu:
        reasons.append(family.defaults.gelu)
    elif family.defaults.gelu:
        reasons.append(f"{family.title} calls it {name!r}")
    if not reasons:
        return _Group({"hidden_act": known[key]})
    origin = Origin.FILE if "hidden_act" in raw else Origin.DEFAULT
    return _decided("hidden_act", known[key], "; ".join(reasons), origin)


def _program(raw: Mapping[str, Any], family: Family) -> Family:
    """Whose arithmetic it is. A copy on the Hub may have Huawei's prefix: then who wrote its config tells."""
    ported = family.name == HUAWEI_TORCH.name and {"architectures", "model_type"} & raw.keys()
    return TRANSFORMERS if ported else family


def _dropout(raw: Mapping[str, Any], family: Family, head: Head, hidden_dropout: float) -> _Group:
    """The dropout before a classifier."""
    if "classifier_dropout" in raw:
        value = raw["classifier_dropout"]
        return _Group({"classifier_dropout": None if value is None else _number("classifier_dropout", value)})
    if CLASSIFIER not in head.parts:
        return _Group()
    as_hidden = Default(hidden_dropout, "the originals use hidden_dropout_prob before a classifier")
    default = family.defaults.numbers.get("classifier_dropout", as_hidden)
    return _decided("classifier_dropout", default.value, default.reason, Origin.DEFAULT)


def _labels(
    raw: Mapping[str, Any], family: Family, head: Head, rows: int | None, labels: Sequence[str] | None
) -> _Group:
    """The names of the classifier's rows: from a file of labels, from the JSON, or made up as transformers does."""
    if head.name not in LABELLED or rows is None:
        if labels is not None:
            raise UsageError(f"--labels: the {head.name} model has no labels of its own")
        return _Group()
    reason, origin = "", Origin.FILE
    if labels is None:
        labels, reason = _labels_of_config(raw, rows)
        origin = Origin.DEFAULT
    elif len(labels) == rows - 1 and family.defaults.padding_label and head.name == "token-classification":
        labels = ["[PAD]", *labels]
        reason = "run_classifier_ner.py numbers labels from 1; id 0 is padding"
    if len(labels) != rows:
        raise MappingError(
            f"labels: {len(labels)} given, but the classifier has {rows} rows",
            hint="--labels FILE takes one label a line, in the order of the rows.",
        )
    fields = {
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
    }
    return _Group(fields, (Decision("id2label", f"{rows} labels", reason, origin),) if reason else ())


def _labels_of_config(raw: Mapping[str, Any], rows: int) -> tuple[list[str], str]:
    """The config's labels; or LABEL_0, LABEL_1, ... and why."""
    names = raw.get("id2label")
    if isinstance(names, dict) and sorted(names) == sorted(str(i) for i in range(rows)):
        return [str(names[str(i)]) for i in range(rows)], ""
    lack = f"the config names {len(names)}" if isinstance(names, dict) else "no labels were found"
    return [f"LABEL_{i}" for i in range(rows)], f"{lack}, the classifier has {rows} rows; name them with --labels"


def _pooler(head: Head) -> _Group:
    """That the folder has no pooler, for AutoModel, which would make one with random weights."""
    if POOLER in head.parts:
        return _Group()
    if not head.bare:
        return _Group({"add_pooling_layer": False})
    reason = "the checkpoint has no pooler, so the model has none: pooler_output is None"
    return _decided("add_pooling_layer", False, reason, Origin.TENSORS)


def _relative(raw: Mapping[str, Any], family: Family) -> _Group:
    """Huawei's programs have a switch for relative positions, which are known here by the tensors."""
    value = raw.get("use_relative_position")
    if value is True or not family.defaults.switch:
        return _Group()
    says = "does not say" if value is None else f"says {json.dumps(value)}"
    reason = f"the config {says}, but the checkpoint has no position embeddings, so it is relative"
    return _Group({}, (Decision("use_relative_position", True, reason, Origin.TENSORS),))


def language_model(raw: Mapping[str, Any], family: Family) -> str:
    """The head that a masked-LM part is of, by what the config says of attention."""
    if _prefix(raw, family):
        return "prefix-lm"
    return "causal-lm" if _causal(raw, family) else "masked-lm"


def _prefix(raw: Mapping[str, Any], family: Family) -> set[str]:
    return _saying(raw, {**family.defaults.prefix, **_program(raw, family).defaults.prefix})


def _causal(raw: Mapping[str, Any], family: Family) -> set[str]:
    return _saying(raw, {**family.defaults.causal, **_program(raw, family).defaults.causal})


def _saying(raw: Mapping[str, Any], keys: Mapping[str, tuple[Any, ...]]) -> set[str]:
    """The keys that say so. A program that asks whether one is true takes anything that Python calls true."""
    return {name for name, values in keys.items() if raw.get(name) in values or (True in values and raw.get(name))}


def _attention(raw: Mapping[str, Any], family: Family, head: Head) -> _Group:
    """Whether a token attends only to what is before it, and what a row does that is masked throughout."""
    group = _Group()
    before, prefix = "a token attends only to itself and to what is before it", "a prefix to all of itself"
    causal, prefixed = _causal(raw, family), _prefix(raw, family)
    for name in causal:
        reason = f"the config's {name} is {raw[name]!r}: {before}"
        group = _decided("is_decoder", True, reason, Origin.FILE)
    for name in prefixed:
        reason = f"the config's {name} is {raw[name]!r}: {before}, {prefix}"
        group = _Group({"is_decoder": True}) + _decided("prefix_lm", True, reason, Origin.FILE)
    if head.name == "prefix-lm" and causal and not prefixed:
        said = f"{causal.pop()!r}"
        raise MappingError(f"config: {said} says that {before}, a prefix, too", hint="Convert with --head causal-lm.")
    if head.name in GENERATING and not group.fields:
        group = _decided("is_decoder", True, f"--head {head.name} was asked for: {before}", Origin.ASKED)
        if head.name == "prefix-lm":
            group += _decided("prefix_lm", True, f"--head {head.name} was asked for: {prefix}", Origin.ASKED)
    # A converted folder says it. A JSON that says "causal" is of a program that adds the smallest number to a score.
    rows = raw.get("masked_rows", "even" if group.fields else _program(raw, family).defaults.masked_rows)
    if rows not in ("even", "unmasked"):
        raise MappingError(
            f'config: masked_rows is {rows!r}, expected "even" or "unmasked"', hint="Correct it in the JSON."
        )
    return group + _Group({"masked_rows": rows} if rows != "even" else {})


def _account(
    raw: Mapping[str, Any], family: Family, fields: Mapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The JSON's fields that change no output, and those that the family's table does not know.

    Raises:
        MappingError: a field says what no Nezha computes.
    """
    words, unknown, wrong = family.words, {}, []
    causal = _causal(raw, family) | _prefix(raw, family)
    for name, value in raw.items():
        if name in fields or name in causal:
            continue
        word = words.get(name)
        if word is None:
            unknown[name] = value
        elif word.harmless is not None and value not in word.harmless:
            wrong.append(f"{name} is {value!r}: {word.effect}; no Nezha computes that")
    if wrong:
        raise MappingError(
            f"config: {wrong[0]}" if len(wrong) == 1 else f"config: {len(wrong)} fields say what no Nezha computes",
            problems=tuple(wrong) if len(wrong) > 1 else (),
            hint="If the model was used without that, take it out of a copy of the JSON, and name it: --config COPY",
        )
    shown = [name for name in raw if name not in {*fields, *causal, *unknown, "use_relative_position"}]
    ignored = tuple(name for name in shown if name not in words or words[name].effect != "bookkeeping")
    return ignored, unknown
