"""The words in which a family's facts are written: rules, drops, ties, defaults, and the family that holds them.

A rule has two sides; its inverse is derived, never typed again. ``{i}`` stands for a layer's number on both sides.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

from ..checkpoint import Assumption, Decision
from .words import Word

MAX_LAYERS = 10_000
"""The most layers that a model can have: their numbers have four digits."""

_LAYER = re.compile(r"(?:\blayers?[._]|\bencoderLayer\.|\bTransformer-)(0|[1-9][0-9]{0,3})(?=[./-])")


class Op(Enum):
    """What happens to the values between source and target. Each is its own inverse."""

    COPY = "copy"
    TRANSPOSE = "transpose"


@dataclass(frozen=True, slots=True)
class Rule:
    """`source` becomes `target` by `op`. A rule that is not `written` is only read: exports use another name."""

    source: str
    target: str
    op: Op = Op.COPY
    written: bool = True

    def inverse(self) -> Rule:
        """The rule from the target back to the source."""
        return Rule(self.target, self.source, self.op)


def linear(
    source: str,
    target: str,
    weight: str = ".weight",
    bias: str = ".bias",
    *,
    transposed: bool = False,
    written: bool = True,
) -> tuple[Rule, Rule]:
    """The two rules of a linear layer.

    Args:
        source, target: the layer's names.
        weight, bias: how the source's names of its two tensors end.
        transposed: the source stores the weight as [in, out].
        written: exports use these names.
    """
    op = Op.TRANSPOSE if transposed else Op.COPY
    return (
        Rule(source + weight, f"{target}.weight", op, written),
        Rule(source + bias, f"{target}.bias", Op.COPY, written),
    )


def norm(
    source: str, target: str, weight: str = ".weight", bias: str = ".bias", *, written: bool = True
) -> tuple[Rule, Rule]:
    """The two rules of a layer norm; arguments as of `linear`."""
    return linear(source, target, weight, bias, written=written)


@dataclass(frozen=True, slots=True)
class Drop:
    """Names that match the glob `pattern` are left out for `reason`.

    Attributes:
        optimizer: it is state of the training.
        positions: it is a table of relative positions, which says with which clip distance the program computes.
        trained: it is a parameter of the program, which may have been trained.
    """

    pattern: str
    reason: str
    optimizer: bool = False
    positions: bool = False
    trained: bool = False


@dataclass(frozen=True, slots=True)
class Tie:
    """`target` shares the values of `of` and is not written."""

    target: str
    of: str


@dataclass(frozen=True, slots=True)
class Match:
    """The meaning of a source's name: its rule, with the layer's number filled in, and the rule's part of the model."""

    part: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class Default:
    """What a program computes with where its JSON does not say, and why.

    Attributes:
        value: of a field of NezhaConfig.
        reason: where that stands.
        fixed: the program does not read the field.
    """

    value: Any
    reason: str
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class NamedHead:
    """A head that the name of its classifier tells.

    Attributes:
        decisions: for the report, and fields of the config.
        assumptions: what is taken for granted with it.
    """

    head: str
    reason: str
    decisions: tuple[Decision, ...]
    assumptions: tuple[Assumption, ...] = ()


@dataclass(frozen=True, slots=True)
class Unclear:
    """A classifier that may be of several `heads`, for `reason`. A pooler decides between them if `pooler_tells`."""

    heads: tuple[str, ...]
    reason: str
    pooler_tells: bool = False


@dataclass(frozen=True, slots=True)
class Defaults:
    """How a family's program computes what its tensors do not say.

    Attributes:
        activations: its names of activations by transformers'.
        gelu: which GELU it means by "gelu", for reports; empty where it means transformers'.
        numbers: fields of NezhaConfig that the program sets otherwise than NezhaConfig, or not from its JSON.
        lower_case: names of activations are read in any case.
        switch: its JSON says ``use_relative_position``.
        padding_label: its token classifier numbers labels from 1; 0 is padding.
        tied: where its JSON does not say, the masked-LM decoder is the word embeddings.
        old_names: keys of its JSON by an older name that it also reads. If either is true, it is true.
        masked_rows: what a query does whose keys are all masked, as NezhaConfig calls it. A program that adds -10000 to
            each score attends as if none were masked.
        notes: what a report says of every model of the family.
        causal: by key of its JSON, the values with which a token attends only to itself and what is before it.
        prefix: the same of values with which a prefix sees itself on both sides.
        classifiers: the heads that a classifier's name tells, by its weight's name.
        unclear: the heads that a classifier of another name may be of; None lets its shape and the pooler tell.
    """

    activations: Mapping[str, str]
    gelu: str = ""
    numbers: Mapping[str, Default] = field(default_factory=dict)
    lower_case: bool = False
    switch: bool = False
    padding_label: bool = False
    tied: bool = True
    old_names: Mapping[str, str] = field(default_factory=dict)
    masked_rows: str = "even"
    notes: tuple[Decision, ...] = ()
    causal: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    prefix: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    classifiers: Mapping[str, NamedHead] = field(default_factory=dict)
    unclear: Unclear | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """All names of one family of checkpoints, and its defaults.

    Attributes:
        name: the family's short name, as reports show it.
        title: the family in words.
        known_by: the name of the tensor that tells the family.
        needs: globs of which the names match at least one, if there are any here.
        lacks: globs that no name matches.
        rules: the rules of each part of the model. Where several have one target, exports use the first. Where two
            parts have rules for one name, it belongs to the first part, or to that of the head (see `under`).
        defaults: how its program computes.
        drops: names that are no weights of any part.
        backbone: prefixes of the names that belong to the model below the heads.
        wrappers: prefixes that training programs put in front of every name.
        prefix: where the model lies inside a larger one; names without it are not its own.
        rest: what becomes of names without the prefix; None leaves them unknown.
        words: the keys of its config that NezhaConfig has no field for.
        assumed: what is assumed of a checkpoint of which nothing is dropped, so that no trace of its program is left.
    """

    name: str
    title: str
    known_by: str
    rules: Mapping[str, tuple[Rule, ...]]
    defaults: Defaults
    drops: tuple[Drop, ...] = ()
    backbone: tuple[str, ...] = ()
    wrappers: tuple[str, ...] = ()
    prefix: str = ""
    rest: Drop | None = None
    needs: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    words: Mapping[str, Word] = field(default_factory=dict)
    assumed: Assumption | None = None
    _by_source: Mapping[str, tuple[str, Rule]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index: dict[str, tuple[str, Rule]] = {}
        for part, rules in self.rules.items():
            for rule in rules:
                if rule.source in index and index[rule.source][0] == part:
                    raise ValueError(f"family {self.name}: {rule.source!r} stands in {part} twice")
                index.setdefault(rule.source, (part, rule))
        object.__setattr__(self, "_by_source", index)

    def find(self, name: str) -> Match | Drop | None:
        """The meaning of `name`: a match, a drop, or None where the family does not know it.

        Example:
            >>> from nezha_convert.families import HUAWEI_TF
            >>> HUAWEI_TF.find("bert/encoder/layer_3/output/dense/bias").rule.target
            'nezha.encoder.layer.3.output.dense.bias'
        """
        bare = self.unwrapped(name)
        for drop in self.drops:
            if fnmatchcase(bare, drop.pattern):
                return drop
        if not name.startswith(self.prefix):
            return self.rest or self._head_outside(name)
        pattern, layer = _split(bare)
        if pattern not in self._by_source or (layer is None and "{i}" in bare):
            return None
        part, rule = self._by_source[pattern]
        return Match(part, Rule(bare, _fill(rule.target, layer), rule.op))

    def _head_outside(self, name: str) -> Match | None:
        """The match of a tensor of a head that lies outside of the prefix, as where a program wraps the encoder."""
        part, rule = self._by_source.get(name, (None, None))
        is_head = part is not None and not name.startswith(self.backbone)
        return Match(part, rule) if is_head and part and rule else None

    def match(self, name: str) -> Match | None:
        """The match of `name`, or None where it is dropped or unknown."""
        meaning = self.find(name)
        return meaning if isinstance(meaning, Match) else None

    def fits(self, names: Collection[str]) -> bool:
        """Whether tensors with these names, without what stands in front of the model's, are of this family."""
        bare = [self.unwrapped(name) for name in names]

        def any_matches(patterns: Iterable[str]) -> bool:
            return any(fnmatchcase(name, pattern) for pattern in patterns for name in bare)

        known = self.known_by in bare
        return known and not any_matches(self.lacks) and (not self.needs or any_matches(self.needs))

    def unwrapped(self, name: str) -> str:
        """`name` without the model's prefix and without what a training program put in front."""
        for wrapper in (self.prefix, *self.wrappers):
            name = name.removeprefix(wrapper)
        return name

    def inverse(self) -> Family:
        """The rules of an export: from the targets to this family's own names."""
        rules: dict[str, tuple[Rule, ...]] = {}
        for part, forward in self.rules.items():
            firsts: dict[str, Rule] = {}
            for rule in forward:
                if rule.written:
                    firsts.setdefault(rule.target, rule.inverse())
            rules[part] = tuple(firsts.values())
        return Family(self.name, f"to {self.title}", "", rules, self.defaults)

    def under(self, parts: Iterable[str]) -> Family:
        """The family as a head of `parts` reads it: a name that several parts have belongs to one of these."""
        head = {part: self.rules[part] for part in parts if part in self.rules}
        return replace(self, rules={**head, **self.rules})

    def parts_of(self, name: str) -> set[str]:
        """The parts that have a rule for `name`."""
        pattern, _ = _split(self.unwrapped(name))
        return {part for part, rules in self.rules.items() if any(rule.source == pattern for rule in rules)}

    def within(self, prefix: str, rest: Drop | None = None) -> Family:
        """The family of the same model inside a larger one; `rest` as in the attribute."""
        return replace(self, prefix=prefix, rest=rest)


def numbered(patterns: Iterable[str], layers: int) -> list[str]:
    """Every name that `patterns` stand for in a model of `layers` layers."""
    return [_fill(pattern, str(i)) for pattern in patterns for i in (range(layers) if "{i}" in pattern else range(1))]


def layer_of(name: str) -> int | None:
    """The layer's number in `name`, if it has one."""
    layer = _split(name)[1]
    return None if layer is None else int(layer)


def pattern_of(name: str) -> str:
    """`name` with ``{i}`` for its layer's number."""
    return _split(name)[0]


def _split(name: str) -> tuple[str, str | None]:
    """`name` with ``{i}`` for its layer's number, and that number."""
    number = _LAYER.search(name)
    return (name[: number.start(1)] + "{i}" + name[number.end(1) :], number[1]) if number else (name, None)


def _fill(pattern: str, layer: str | None) -> str:
    return pattern if layer is None else pattern.replace("{i}", layer)
