"""The published sizes instead of a config: by the name that the user says, and which of them the tensors may be of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoint import Decision, Origin, TensorEntry
from ..families.published import PUBLISHED
from ..families.rules import Family, Op, layer_of

_WORDS, _FEED_FORWARD = "nezha.embeddings.word_embeddings.weight", "nezha.encoder.layer.0.intermediate.dense.bias"


def published(path: Path | None) -> tuple[Mapping[str, Any], Decision] | None:
    """The published config that `path` names, and that it was asked for; None where it names a file."""
    name = path.as_posix() if path else ""
    if path is None or name not in PUBLISHED or path.is_file():
        return None
    return PUBLISHED[name], Decision("config", name, "asked for: the published model's", Origin.ASKED)


def fitting(family: Family, entries: Mapping[str, TensorEntry]) -> tuple[str, ...]:
    """The names of the published models whose sizes the tensors have; of equal ones, the first.

    People add tokens and cut layers. So the width decides, and the vocabulary where it is a published one's.
    """
    targets = {}
    for source, entry in entries.items():
        if match := family.match(source):
            shape = entry.shape[::-1] if match.rule.op is Op.TRANSPOSE else entry.shape
            targets[match.rule.target] = shape
    layers = 1 + max((layer_of(target) or 0 for target in targets), default=0)
    words, inner = targets.get(_WORDS, ()), targets.get(_FEED_FORWARD, ())
    found: dict[str, Mapping[str, Any]] = {}
    for name, fields in PUBLISHED.items():
        wide = words[1:] == (fields["hidden_size"],) and inner in ((), (fields["intermediate_size"],))
        if wide and layers <= fields["num_hidden_layers"] and fields not in found.values():
            found[name] = fields
    exact = tuple(name for name, fields in found.items() if words[:1] == (fields["vocab_size"],))
    return exact or tuple(found)
