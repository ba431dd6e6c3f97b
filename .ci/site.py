"""A hook of MkDocs: links of a page that lead out of docs/ go to the repository's own pages."""

from __future__ import annotations

import posixpath
import re
from typing import Any

BLOB = "https://github.com/nezha-convert/nezha-convert/blob/main/"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """`](../README.md)` is a file of the repository, and none of the site."""
    folder = posixpath.dirname(posixpath.join("docs", page.file.src_uri))

    def outside(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[1]))
        return match[0] if path.startswith("docs/") else f"]({BLOB}{path}{match[2]})"

    return re.sub(r"\]\((\.\.[^)#]*)(#[^)]*)?\)", lambda match: outside(match).replace("None)", ")"), markdown)
