"""Predictions in the form that CLUE's site takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seqeval.metrics.sequence_labeling import get_entities


def submission(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | dict[str, Any] | None:
    """What CLUE's site takes: a list is written as JSON Lines, a dictionary as one object. None if rows have no id.

    Args:
        rows: predictions; with ``tags`` of tokens, ``label``, or ``answer``, the text of one.
    """
    if not rows or any(row.get("id") is None for row in rows):
        return None
    if "tags" in rows[0]:
        return [{"id": row["id"], "label": spans(row["tokens"], row["tags"])} for row in rows]
    if "label" not in rows[0] or str(rows[0]["id"]).startswith("#idiom"):
        return {row["id"]: row.get("label", row.get("answer")) for row in rows}
    return [{"id": row["id"], "label": row["label"]} for row in rows]


def spans(tokens: Sequence[str], tags: Sequence[str]) -> dict[str, dict[str, list[list[int]]]]:
    """CLUENER's {type: {entity: [[first, last]]}} of BIO tags."""
    found: dict[str, dict[str, list[list[int]]]] = {}
    for kind, first, last in get_entities(list(tags)):
        found.setdefault(kind, {}).setdefault("".join(tokens[first : last + 1]), []).append([first, last])
    return found
