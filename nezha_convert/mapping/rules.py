"""The vocabulary of the tables: Rule, Drop, Tie, and the Table that finds what a name means.

A rule is two-sided: its inverse is derived, never typed again. ``{i}`` stands for a layer's number on both sides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase

MAX_LAYERS = 10_000
"""Layers of a model, at most: their numbers have four digits."""

_LAYER = re.compile(r"(?<=\blayer[._])(0|[1-9][0-9]{0,3})(?=[./])")


class Op(Enum):
    """What happens to the values between source and target. Each is its own inverse."""

    COPY = "copy"
    TRANSPOSE = "transpose"


@dataclass(frozen=True, slots=True)
class Rule:
    """`source` becomes `target` by `op`."""

    source: str
    target: str
    op: Op = Op.COPY

    def inverse(self) -> Rule:
        """The rule of the way back."""
        return Rule(self.target, self.source, self.op)


@dataclass(frozen=True, slots=True)
class Drop:
    """Names that match the glob `pattern` are left out for `reason`; `optimizer` marks state of the training."""

    pattern: str
    reason: str
    optimizer: bool = False


@dataclass(frozen=True, slots=True)
class Tie:
    """`target` shares the values of `of` and is not written."""

    target: str
    of: str


@dataclass(frozen=True, slots=True)
class Table:
    """All names of one family of checkpoints.

    Attributes:
        name: the family's short name, as reports show it.
        title: the family in words.
        rules: the rules of each part of the model. Where several have one target, the first is the way back.
        drops: names that are no weights of any part.
        backbone: prefixes of the names that belong to the model below the heads.
        wrappers: prefixes that training programs put in front of every name.
    """

    name: str
    title: str
    rules: Mapping[str, tuple[Rule, ...]]
    drops: tuple[Drop, ...] = ()
    backbone: tuple[str, ...] = ()
    wrappers: tuple[str, ...] = ()
    _by_source: Mapping[str, tuple[str, Rule]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index: dict[str, tuple[str, Rule]] = {}
        for part, rules in self.rules.items():
            for rule in rules:
                if rule.source in index:
                    raise ValueError(f"table {self.name}: {rule.source!r} stands in it twice")
                index[rule.source] = part, rule
        object.__setattr__(self, "_by_source", index)

    def find(self, name: str) -> tuple[str, Rule] | Drop | None:
        """The part and the rule of `name`, with the layer's number filled in; or its drop; or None if unknown."""
        for drop in self.drops:
            if fnmatchcase(name, drop.pattern):
                return drop
        bare = self.unwrapped(name)
        pattern, layer = _split(bare)
        found = self._by_source.get(pattern)
        if found is None or (layer is None and "{i}" in bare):
            return None
        part, rule = found
        return part, Rule(bare, _fill(rule.target, layer), rule.op)

    def unwrapped(self, name: str) -> str:
        """`name` without the prefix that a training program put in front."""
        for wrapper in self.wrappers:
            name = name.removeprefix(wrapper)
        return name

    def inverse(self) -> Table:
        """The table of the way back: from the targets to this family's own names."""
        rules: dict[str, tuple[Rule, ...]] = {}
        for part, forward in self.rules.items():
            firsts: dict[str, Rule] = {}
            for rule in forward:
                firsts.setdefault(rule.target, rule.inverse())
            rules[part] = tuple(firsts.values())
        return Table(self.name, f"to {self.title}", rules)


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
    found = _LAYER.search(name)
    return (name[: found.start()] + "{i}" + name[found.end() :], found[0]) if found else (name, None)


def _fill(pattern: str, layer: str | None) -> str:
    return pattern if layer is None else pattern.replace("{i}", layer)
