"""What every reader gives: lazy tensors, and the checkpoint that holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes  # noqa: F401  (makes "bfloat16" a NumPy dtype name)
import numpy as np

BLOCK_BYTES = 8 << 20
"""Bytes of one tensor that are in memory at a time; what keeps the peak independent of the model's size."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a checkpoint, not yet read.

    Attributes:
        name: the name in the source.
        dtype: NumPy's name of the element type ("float32", "bfloat16"), or the format's own where NumPy has none.
        shape: sizes in the source's layout.
        nbytes: size of the data in the file.
        stream: ``stream(limit)`` yields the tensor's rows in order, as arrays of shape [rows, *shape[1:]] of at most
            ``limit`` bytes (at least one row; a scalar comes whole), and raises CheckpointError if the format's
            checksum does not agree once the last row is read. A block is only valid until the next is asked for.
        position: (file number, offset), the order in which reading is sequential.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    stream: Callable[[int], Iterator[np.ndarray]]
    position: tuple[int, int] = (0, 0)

    def blocks(self, limit: int = BLOCK_BYTES) -> Iterator[np.ndarray]:
        """The tensor's rows in order, in blocks of at most `limit` bytes; see ``stream``."""
        return self.stream(limit)

    def read(self) -> np.ndarray:
        """The whole tensor, checked as far as the format allows.

        Raises:
            CheckpointError: the data is short or its checksum is wrong.
        """
        array = np.empty(self.shape, np.dtype(self.dtype))
        row = 0
        for block in self.blocks():  # to the end: the checksum is checked behind the last block
            if not self.shape:
                array[()] = block
            else:
                array[row : row + len(block)] = block
                row += len(block)
        return array


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint's tensors and what lies beside it.

    Attributes:
        format: "tensorflow-bundle", "torch" or "safetensors".
        path: what was opened: the bundle's prefix, the file or the index.
        files: every file that the tensors come from.
        entries: the tensors by name.
        config: the model's JSON beside it, if there is one.
        vocab: vocab.txt beside it, if there is one.
        labels: labels.txt beside it, if there is one.
    """

    format: str
    path: Path
    files: tuple[Path, ...]
    entries: Mapping[str, TensorEntry]
    config: Path | None = None
    vocab: Path | None = None
    labels: Path | None = None


def row_blocks(array: np.ndarray, limit: int) -> Iterator[np.ndarray]:
    """`array` as the blocks of ``TensorEntry.stream``: for formats whose library gives the array itself."""
    if array.ndim == 0:
        yield array
        return
    rows = rows_within(array.shape, array.itemsize, limit)
    for start in range(0, array.shape[0], rows):
        yield array[start : start + rows]


def rows_within(shape: tuple[int, ...], itemsize: int, limit: int) -> int:
    """How many rows of a tensor of `shape` fit into `limit` bytes; at least one."""
    row_bytes = itemsize
    for size in shape[1:]:
        row_bytes *= size
    return max(1, limit // max(1, row_bytes))
