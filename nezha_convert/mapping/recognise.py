"""What a checkpoint is, told by its tensors: the family, and the heads that it can be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ..checkpoint import TensorEntry
from ..errors import MappingError, UsageError
from ..families import FAMILIES, HUAWEI_TORCH_BASE, TRANSFORMERS_BASE
from ..families.foreign import FOREIGN, Foreign
from ..families.heads import CLASSIFIER, HEADS, MLM, NSP, POOLER, QA, Head
from ..families.rules import Drop, Family, Match, Op, layer_of

_CDIAL = ".embeddings_table_tensor"
"""The end of the name of CDial-GPT-NEZHA's tables of positions. All of its models generate."""

_GENERATES = re.compile(r"gpt|dialog|chat|unilm|seq2seq|s2s|generat|causal|summar", re.IGNORECASE)
_HAS_PREFIX = re.compile(r"unilm|seq2seq|s2s|summar", re.IGNORECASE)
"""Of these the ones whose models read a prefix on both sides."""

MEANINGS = {
    "causal-lm": "a word sees what is before it: the model goes on with a text, word by word",
    "prefix-lm": "the question, of segment 0, sees all of itself, and the answer what is before it: UniLM",
    "masked-lm": "each word sees both sides: the model fills in [MASK]",
}
"""What the heads mean that have the same tensors."""

_DECODER = "cls.predictions.decoder.weight"
"""What the word embeddings are tied to, and can be made of."""

_WIDTH = "nezha.embeddings.LayerNorm.bias"
"""A target of one dimension, the hidden size."""


@dataclass(frozen=True, slots=True)
class Inference:
    """The heads that fit the tensors, and why: one when the tensors say it, several when they do not.

    Attributes:
        layers: layers of unknown names that may be a classifier.
    """

    heads: tuple[str, ...]
    reason: str
    layers: tuple[str, ...] = ()


def foreign(entries: Mapping[str, TensorEntry]) -> Foreign | None:
    """The known model without a counterpart here that `entries` are, if they are one."""

    def has(pattern: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in entries)

    return next((m for m in FOREIGN if has(m.pattern) and not (m.without and has(m.without))), None)


def nezha_beside(entries: Mapping[str, TensorEntry]) -> tuple[str, ...]:
    """The prefixes under which a NEZHA stands beside another model."""
    known_by = f".{TRANSFORMERS_BASE.known_by}"
    prefixes = [name.removesuffix(known_by[1:]) for name in entries if name.endswith(known_by)]
    inside = {prefix: {n: e for n, e in entries.items() if n.startswith(prefix)} for prefix in prefixes}
    return tuple(prefix for prefix, names in inside.items() if len(prefixes) > 1 and not foreign(names))


def family_of(entries: Mapping[str, TensorEntry], prefix: str | None = None) -> Family:
    """The family whose names `entries` have: the one whose landmark is among them.

    Args:
        entries: the source's tensors.
        prefix: what stands in front of the model's names inside a larger one, whose other tensors are left out; None
            finds the prefix that a training program put in front, and leaves nothing out.

    Raises:
        MappingError: none does.
        UsageError: several models stand in the checkpoint, by several prefixes.
    """
    if prefix:
        inside = {name.removeprefix(prefix): entry for name, entry in entries.items() if name.startswith(prefix)}
        return family_of(inside).within(prefix, Drop("*", f"not inside {prefix}"))
    if len(several := nezha_beside(entries)) > 1:
        raise _several(several)
    for family in FAMILIES:
        if family.fits(entries):
            return family
    for family in FAMILIES:
        inside_of = (f".{family.known_by}", f"/{family.known_by}")
        prefixes = sorted({name.removesuffix(family.known_by) for name in entries if name.endswith(inside_of)})
        if len(prefixes) > 1:
            raise _several(prefixes)
        within = family.within(prefixes[0]) if prefixes else family
        if prefixes and within.fits([name for name in entries if name.startswith(prefixes[0])]):
            return within
    listing = ", ".join(sorted(entries)[:5]) or "no tensor at all"
    expected = ", ".join(dict.fromkeys(family.known_by for family in FAMILIES))
    raise MappingError(
        f"not a NEZHA checkpoint that is known here: expected a tensor by one of the names {expected}; "
        f"found {listing}{', ...' if len(entries) > 5 else ''}",
        hint="nezha-convert repair SOURCE mends a copy that lost its word embeddings."
        if any(name.endswith(_DECODER) for name in entries)
        else "nezha-convert inspect SOURCE --tensors lists the tensors.",
    )


def _several(found: Sequence[str]) -> UsageError:
    prefixes = sorted(found)
    return UsageError(
        f"{len(prefixes)} models stand in this checkpoint, by the prefixes {', '.join(prefixes)}",
        ways=tuple(("--prefix", prefix) for prefix in prefixes),
    )


def may_generate(inference: Inference, entries: Mapping[str, TensorEntry], names: Iterable[str]) -> Inference:
    """`inference` of a masked-LM model whose config says nothing of attention; a question if something speaks of text
    that is generated: a tensor of CDial-GPT-NEZHA's, or one of `names`, of the file and its folder."""
    if inference.heads != ("masked-lm",):
        return inference
    hint = next((name for name in entries if name.endswith(_CDIAL)), "")
    hint = hint or next((name for name in names if _GENERATES.search(name)), "")
    if not hint:
        return inference
    heads = ("prefix-lm", "causal-lm") if _HAS_PREFIX.search(hint) else ("causal-lm", "prefix-lm")
    return Inference(
        (*heads, "masked-lm"), f"{hint!r} speaks of text that is generated, for which the tensors are the same"
    )


def by_config(family: Family, raw: Mapping[str, Any]) -> Family:
    """The family once its JSON is known: a model without a head has the same names in Huawei's program."""
    of_transformers = {"model_type", "architectures", "transformers_version"} & raw.keys()
    if family.known_by != HUAWEI_TORCH_BASE.known_by or of_transformers:
        return family
    return HUAWEI_TORCH_BASE.within(family.prefix, family.rest)


def infer_head(
    family: Family,
    entries: Mapping[str, TensorEntry],
    architecture: str | None = None,
    language_model: str = "masked-lm",
) -> Inference:
    """The heads that `entries` can be.

    Args:
        family: their family.
        architecture: the class that the config names, which only decides between heads of the same tensors.
        language_model: the head that a masked-LM part is of, by the config.
    """
    parts: set[str] = set()
    unknown = []
    for name in entries:
        match family.find(name):
            case Match(part=part):
                parts.add(part)
            case None if not name.startswith(family.prefix) or not family.unwrapped(name).startswith(family.backbone):
                unknown.append(name)
    width, weight = _width(family, entries), _weight(family, entries) if CLASSIFIER in parts else ""
    if weight and width and width not in entries[weight].shape:
        shape = list(entries[weight].shape)
        return Inference(
            ("encoder",), f"its classifier {weight} {shape} reads more than one state: kept beside the model"
        )
    if CLASSIFIER in parts:
        if any("crf" in name.lower() for name in unknown):
            return Inference(
                ("token-classification",), "it has a classifier, and a CRF that reads a class for each token"
            )
        return _classifier(family, weight, entries[weight].shape, POOLER in parts, architecture)
    for present, head in (
        ({MLM, NSP}, "pretraining"),
        ({MLM}, language_model),
        ({NSP}, "next-sentence-prediction"),
        ({QA}, "question-answering"),
    ):
        if present <= parts:
            return Inference((head,), f"it has the tensors of the {' and the '.join(sorted(present))}")
    if unknown:
        listing = ", ".join(unknown[:4]) + (", ..." if len(unknown) > 4 else "")
        layers = _like_a_classifier(family, entries, unknown)
        if layers:
            return Inference((), f"its head is none that is known here: {listing}", layers)
        return Inference(("encoder",), f"its head is none that is known here, and is kept beside the model: {listing}")
    return Inference(("encoder",), "it has no tensors of a head")


def _like_a_classifier(family: Family, entries: Mapping[str, TensorEntry], unknown: Iterable[str]) -> tuple[str, ...]:
    """Layers of names that are not known, which have the shapes of a classifier over the hidden states."""
    hidden = _width(family, entries)
    layers = []
    for name in unknown:
        layer, _, last = name.rpartition("/" if "/" in name else ".")
        bias = {"weight": ".bias", "kernel": "/bias", "output_weights": "/output_bias"}.get(last)
        shape = entries[name].shape
        wide = len(shape) == 2 and max(shape) == hidden > min(shape)
        if bias and wide and layer + bias in entries and layer_of(name) is None:
            layers.append(layer)
    return tuple(layers)


def _width(family: Family, entries: Mapping[str, TensorEntry]) -> int:
    """The hidden size."""
    matches = ((entry, family.match(name)) for name, entry in entries.items())
    return next((entry.shape[0] for entry, m in matches if m and m.rule.target == _WIDTH and entry.shape), 0)


def _weight(family: Family, entries: Mapping[str, TensorEntry]) -> str:
    """The name of the classifier's weight: of its two tensors the one with more dimensions."""
    sources = {rule.source for rule in family.rules[CLASSIFIER]}
    names = [name for name in entries if family.unwrapped(name) in sources]
    return max(names, key=lambda name: len(entries[name].shape))


def _classifier(
    family: Family, weight: str, shape: tuple[int, ...], pooled: bool, architecture: str | None
) -> Inference:
    """The heads that a classifier can be of, by its weight's name, the config's class, its shape and the pooler."""
    named = family.defaults.classifiers.get(family.unwrapped(weight))
    if named:
        return Inference((named.head,), named.reason)
    unclear = family.defaults.unclear
    if unclear and not (pooled and unclear.pooler_tells):
        heads = tuple(name for name in unclear.heads if name == "encoder" or pooled or POOLER not in HEADS[name].parts)
        if heads == unclear.heads:
            return Inference(heads, f"{weight!r} {unclear.reason}")
        without = "it has no pooler, which a classifier of sentences needs"
        return Inference((*heads, "encoder"), f"{weight!r} {unclear.reason}; {without}")
    possible = family.parts_of(weight)
    fitting = [
        head.name
        for head in HEADS.values()
        if possible.intersection(head.parts) and architecture and _task(head.architecture) == _task(architecture)
    ]
    if fitting:
        return Inference((fitting[0],), f"it has a classifier, and the config names {architecture}")
    match = family.match(weight)
    rows = shape[-1 if match and match.rule.op is Op.TRANSPOSE else 0]
    if QA in possible and rows > 1:
        heads = ("sequence-classification", "token-classification", *(("question-answering",) if rows == 2 else ()))
        return Inference(heads, f"{family.title} has a pooler in all of them, and calls the last layer {weight!r}")
    if not pooled:
        return Inference(("token-classification",), "it has a classifier and no pooler")
    if rows == 1:
        reason = (
            "its classifier has one row, the score of a choice; for a regression, say --head sequence-classification"
        )
        return Inference(("multiple-choice",), reason)
    reason = "it has a pooler and a classifier of several rows; for tokens, say --head token-classification"
    return Inference(("sequence-classification",), reason)


def _task(architecture: str) -> str:
    """What a class is for, whatever the model is called: NeZhaFor..., and BertFor... in ports of Huawei's code."""
    return architecture.lower().removeprefix("nezha").removeprefix("bert")


def choose_head(asked: str | None, inference: Inference) -> Head:
    """The head to convert to: the one asked for, or the only one that fits.

    Raises:
        UsageError: there is no such head, or several fit and none was asked for.
    """
    if asked is not None:
        if asked not in HEADS:
            raise UsageError(f"--head {asked}: no such head; expected one of {', '.join(HEADS)}")
        return HEADS[asked]
    if len(inference.heads) != 1:
        layers = () if inference.heads else inference.layers
        heads = inference.heads or ("encoder",)
        raise UsageError(
            f"the tensors do not say which head this is: {inference.reason}",
            problems=tuple(f"{head}: {MEANINGS[head]}" for head in heads if {*heads} >= {*MEANINGS}),
            ways=(*(("--rename", f"{layer}=classifier") for layer in layers), *(("--head", head) for head in heads)),
        )
    return HEADS[inference.heads[0]]
