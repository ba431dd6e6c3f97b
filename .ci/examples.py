"""An extension of Griffe: it knows the section of a docstring with doctests as `Examples`, in the plural alone."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Calls the section `Example` by that name, so that its doctests are shown as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each object, once its docstring is read."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
