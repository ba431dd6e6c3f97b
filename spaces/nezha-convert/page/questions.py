"""What a refusal asks, and what an answer is in arguments of the public API.

A way of a `NezhaConvertError` is what the command line would take: an option and its value, or another source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Way = tuple[str, ...]

REPEATED = ("rename", "drop")
"""Arguments that take a list, to which each answer adds."""

OF_INSPECT = ("config", "prefix", "part", "average")
"""The arguments that `inspect` takes, too."""

SOURCE = "source"
"""The argument of a way that is no option: the path of another checkpoint."""


def arguments(ways: Iterable[Sequence[str]]) -> dict[str, Any]:
    """The keyword arguments of `convert` that `ways` are; a later answer replaces an earlier one.

    Example:
        >>> arguments([("--head", "masked-lm"), ("--average",), ("--rename", "fc=classifier")])
        {'head': 'masked-lm', 'average': True, 'rename': ['fc=classifier']}
    """
    found: dict[str, Any] = {}
    for way in ways:
        if not way[0].startswith("--"):
            found[SOURCE] = way[0]
            continue
        name = way[0].removeprefix("--").replace("-", "_")
        if name in REPEATED:
            found.setdefault(name, []).append(way[1])
        else:
            found[name] = way[1] if len(way) > 1 else True
    return found


def ways_of(refusal: Mapping[str, Any] | None) -> tuple[Way, ...]:
    """What answers the question of a refusal, as `NezhaConvertError.to_dict` has it; nothing where it asks none."""
    return tuple(tuple(way) for way in (refusal or {}).get("ways", ()))
