"""JSON: of strangers, which can be printed, walked and written again once it is read; and as our files have it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_DEPTH = 100
"""Lists and objects inside of one another; Python ends at about a thousand, in whatever meets it first."""


def read_json(path: Path) -> Any:
    """The document in `path`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, is nested more than MAX_DEPTH deep, or has half of a surrogate pair for a character.
    """
    try:
        content = json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
    if level:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    json.dumps(content, ensure_ascii=False).encode()  # UnicodeEncodeError, a ValueError: no text
    return content


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """A JSON file of ours."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _children(node: Any) -> list[Any]:
    return list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
