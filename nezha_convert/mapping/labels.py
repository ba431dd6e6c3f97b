"""The names of a classifier's rows: labels.txt, or the JSON of somebody's script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files.json import read_json


def read_labels(path: Path) -> list[str]:
    """Labels in the order of their ids: lines of text, a JSON list, or a JSON object either way round.

    Raises:
        UsageError: not readable as any of these.
    """
    try:
        if path.suffix != ".json":
            labels = [line.strip() for line in path.read_text("utf-8-sig").split("\n") if line.strip()]
        else:
            content = read_json(path)
            labels = _in_order(content) if isinstance(content, dict) else content
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


def _in_order(content: Mapping[str, Any]) -> list[Any]:
    """The names of an object of ids by name, or of names by id, in the order of the ids."""
    by_name = all(type(value) is int for value in content.values())
    pairs = [(value, key) if by_name else (int(key), value) for key, value in content.items()]
    by_id = dict(pairs)
    if len(by_id) < len(pairs) or sorted(by_id) != list(range(len(by_id))):
        raise ValueError(f"ids must run from 0 to {len(pairs) - 1}, each once")
    return [by_id[i] for i in range(len(by_id))]
