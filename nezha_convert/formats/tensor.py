"""The files of other programs, written without them: one file a format, each from tensors that come in blocks.

A conversion's own output is written by ``writer.py``; these are for the way back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Tensor(NamedTuple):
    """A tensor that is going to be written: NumPy's name of its type, and its values, row by row, in blocks."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    blocks: Iterable[np.ndarray]


def raw(block: np.ndarray) -> np.ndarray:
    """The bytes of `block` in C order, whatever its type; copied only if they do not lie so."""
    return np.ascontiguousarray(block).reshape(-1).view(np.uint8)
