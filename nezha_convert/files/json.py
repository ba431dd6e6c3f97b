"""JSON files: strangers' files read safely, and our own written in one style."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..text import printable_json

MAX_DEPTH = 100
"""How deep lists and objects may be nested. Python's own limit is about a thousand, and any code may run into it."""


def read_json(path: Path) -> Any:
    """The document in `path`. It can be walked, printed and written again without an error.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, it is nested more than MAX_DEPTH deep, or a text in it holds half of a surrogate
            pair.
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
    json.dumps(content, ensure_ascii=False).encode()  # half of a surrogate pair raises UnicodeEncodeError, a ValueError
    return content


def optional_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; empty if there is no file, or something else in it.

    Raises:
        OSError, ValueError: as `read_json`.
    """
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """`content` as a JSON file in our style: indented, in UTF-8, with a newline at the end."""
    return f"{printable_json(content)}\n".encode()


def _children(node: Any) -> list[Any]:
    return list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
