"""Tensors as blocks of whole rows, in the form that ``TensorEntry.stream`` yields them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from pathlib import Path

import numpy as np

from ..errors import CheckpointError
from ..files.state import State, changed, check_unchanged

MAX_RANK = 32
"""The most dimensions that every version of NumPy allows."""

MAX_ELEMENTS = 1 << 56
"""The most elements of a shape in which a size of 0 counts as 1. NumPy limits empty arrays too."""


def is_shape(sizes: Sequence[int]) -> bool:
    """Whether an array can have the shape `sizes`."""
    return len(sizes) <= MAX_RANK and prod(max(1, size) for size in sizes) <= MAX_ELEMENTS


def rows_within(shape: Sequence[int], itemsize: int, limit: int) -> int:
    """How many rows of a tensor of `shape` fit into `limit` bytes; at least one."""
    return max(1, limit // max(1, itemsize * prod(shape[1:])))


def row_blocks(array: np.ndarray, limit: int) -> Iterator[np.ndarray]:
    """The rows of `array` in blocks of at most `limit` bytes (at least one row); a scalar comes whole."""
    if array.ndim == 0:
        yield array
        return
    rows = rows_within(array.shape, array.itemsize, limit)
    for start in range(0, array.shape[0], rows):
        yield array[start : start + rows]


def unchanged(blocks: Iterable[np.ndarray], file: Path, seen: State) -> Iterator[np.ndarray]:
    """`blocks`, which a library has mapped or read from `file`, as long as the file stays in the state `seen`.

    Raises:
        CheckpointError: the file changed. This is checked before each block, because reading a mapped file that was
            cut short kills the process, and once more after the last block.
    """
    for block in blocks:
        check_unchanged(file, seen)
        yield block
    check_unchanged(file, seen)


def file_blocks(
    file: Path, offset: int, dtype: np.dtype, shape: tuple[int, ...], limit: int, seen: State
) -> Iterator[np.ndarray]:
    """The rows of the tensor that lies at `offset` of `file`. All blocks share one buffer.

    The file is read, not mapped: the pages of a mapping count as this process's memory until it is closed.

    Args:
        limit: bytes of a block, at most; see ``row_blocks``.
        seen: the file's state when the tensor's place in it was found.

    Raises:
        CheckpointError: the file cannot be read, is shorter than the tensor, or has changed.
    """
    nbytes = prod(shape) * dtype.itemsize
    row_bytes = nbytes // max(1, shape[0]) if shape else nbytes
    size = min(nbytes, rows_within(shape, dtype.itemsize, limit) * row_bytes) if shape else nbytes
    buffer = np.empty(size, np.uint8)
    try:
        with open(file, "rb", buffering=0) as data:
            check_unchanged(file, seen, data.fileno())
            data.seek(offset)
            for start in range(0, nbytes, max(1, size)):
                block = buffer[: min(size, nbytes - start)]
                filled = 0
                while filled < len(block):
                    count = data.readinto(block[filled:])
                    if not count:
                        raise changed(file)
                    filled += count
                # Check before the last block is handed out: a caller may stop there and not run this code again.
                if start + len(block) == nbytes:
                    check_unchanged(file, seen, data.fileno())
                yield block.view(dtype).reshape(-1, *shape[1:]) if shape else block.view(dtype)[0]
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error
