"""The names of a classifier's rows: labels.txt, or the JSON of somebody's script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files.given import in_utf8
from ..files.json import read_json


def read_labels(path: Path) -> list[str]:
    """Labels in the order of their ids: lines; or JSON: a list, an object either way round, a config's id2label.

    Raises:
        UsageError: not readable as any of these.
    """
    try:
        if path.suffix != ".json":
            return _checked([line.strip() for line in path.read_text("utf-8-sig").split("\n") if line.strip()])
        content = read_json(path)
        return _checked(content.get("id2label", content) if isinstance(content, dict) else content)
    except (OSError, ValueError) as error:
        encoding = in_utf8(path, "--labels") if isinstance(error, UnicodeDecodeError) else ""
        hint = encoding or "One label a line, in the order of ids."
        raise UsageError(f"{path}: not a file of labels ({error})", hint=hint) from error


def given_labels(labels: Sequence[str] | Mapping[Any, Any]) -> tuple[str, ...]:
    """Labels in the order of their ids: a list of them, or a dictionary either way round, as a program gives them.

    Raises:
        UsageError: they are none.
    """
    try:
        return tuple(_checked(dict(labels) if isinstance(labels, Mapping) else list(labels)))
    except ValueError as error:
        raise UsageError(f"labels: {error}", hint="Give a list of names in the order of ids.") from error


def _checked(content: Any) -> list[str]:
    """The names that `content` says, each once."""
    labels = _in_order(content) if isinstance(content, dict) else content
    if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
        raise ValueError("expected a list of names, or an object of ids and names")
    twice = [name for name, count in Counter(labels).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is there twice")
    return labels


def _in_order(content: Mapping[str, Any]) -> list[Any]:
    """The names of an object of ids by name, or of names by id, in the order of the ids."""
    by_name = all(type(value) is int for value in content.values())
    pairs = [(value, key) if by_name else (int(key), value) for key, value in content.items()]
    by_id = dict(pairs)
    if len(by_id) < len(pairs) or sorted(by_id) != list(range(len(by_id))):
        raise ValueError(f"ids must run from 0 to {len(pairs) - 1}, each once")
    return [by_id[i] for i in range(len(by_id))]
