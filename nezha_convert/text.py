"""Text on its way out: to a terminal, a report, a card. Names come from strangers' files, and may hold anything.

Control characters command a terminal and break XML; a bidirectional override turns the rest of a line around. They are
shown as escapes, as is everything else that Python does not call printable. Whatever this program shows passes here.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

_NOT_ASCII = re.compile(r"[^ -~\n]")


def quoted(word: object) -> str:
    """`word`, such as a path, as a shell takes it.

    Example:
        >>> quoted("a b")
        "'a b'"
    """
    return shlex.quote(str(word))


def printable(text: str, keep: str = "") -> str:
    r"""`text` with an escape such as \x1b in place of each character that is not printable, but for those in `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def printable_json(content: Any) -> str:
    """`content` as indented JSON. What is not printable is escaped as JSON escapes it, so nothing is lost."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return _NOT_ASCII.sub(lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text)
