"""Text on its way out: to a terminal, a report, a card. Names come from strangers' files, and may hold anything.

Control characters command a terminal and break XML; a bidirectional override turns the rest of a line around. They are
shown as escapes, as is everything else that Python does not call printable. Whatever this program shows passes here.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from typing import Any
from unicodedata import east_asian_width

SCREEN = 24, 100
"""Lines and columns that a screen shows at once."""

_NOT_ASCII = re.compile(r"[^ -~\n]")


def quoted(word: object) -> str:
    """`word`, such as a path, as a shell takes it.

    Example:
        >>> quoted("a b")
        "'a b'"
    """
    return shlex.quote(str(word))


def with_names(hint: str, **names: object) -> str:
    """`hint` with `names` in place of the words that stand for them. A word whose name is None stays.

    Example:
        >>> with_names("nezha-convert convert SOURCE OUTPUT", SOURCE="my model", OUTPUT=None)
        "nezha-convert convert 'my model' OUTPUT"
    """
    known = {word: quoted(name) for word, name in names.items() if name}
    return re.sub(r"\b[A-Z]+\b", lambda match: known.get(match[0], match[0]), hint)


def duration(seconds: float) -> str:
    """Seconds as people read them.

    Example:
        >>> duration(8.04), duration(600), duration(9000)
        ('8.0 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def printable(text: str, keep: str = "") -> str:
    r"""`text` with an escape such as \x1b in place of each character that is not printable, but for those in `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def printable_json(content: Any) -> str:
    """`content` as indented JSON. What is not printable is escaped as JSON escapes it, so nothing is lost."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return _NOT_ASCII.sub(lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text)


def cell_width(text: str) -> int:
    """How many cells of a terminal `text` takes: a Chinese character takes two."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def screenful(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """What Python shows of an object: its title and its rows, each a label and a text, cut to what a screen holds.

    Example:
        >>> print(screenful("Report of out", [("head", "masked-lm"), ("tensors", "45 used")]))
        Report of out
          head     masked-lm
          tensors  45 used
    """
    lines, columns = SCREEN
    listed = list(rows)
    labels = max((len(label) for label, _ in listed), default=0)
    shown = [title, *(f"  {label:{labels}}  {text}" for label, text in listed)]
    if len(shown) > lines:
        shown[lines - 1 :] = [f"  ... {len(shown) - lines + 1} more rows; to_dict() has all"]
    return "\n".join(_cut(printable(line), columns) for line in shown)


def _cut(line: str, columns: int) -> str:
    if cell_width(line) <= columns:
        return line
    while cell_width(line) > columns - 3:
        line = line[:-1]
    return f"{line}..."
