"""What each reader here returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..oracle.formulas import Array


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the source; `read` gives its values in the source's own layout."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Array]
