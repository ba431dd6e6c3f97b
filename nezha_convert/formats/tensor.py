"""What the writers of all formats take: tensors whose values come in blocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Tensor(NamedTuple):
    """A tensor to write.

    Attributes:
        name: its name in the file.
        dtype: NumPy's name of its element type.
        shape: sizes in the file's layout.
        blocks: its values, row by row, in blocks that are valid until the next is asked for.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    blocks: Iterable[np.ndarray]


def raw(block: np.ndarray) -> np.ndarray:
    """The bytes of `block` in C order, as an array of uint8. Contiguous data is not copied."""
    return np.ascontiguousarray(block).reshape(-1).view(np.uint8)
