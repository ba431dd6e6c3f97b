"""What every reader gives: lazy tensors, the checkpoint that holds them, and what had to be decided to find them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (makes "bfloat16" a NumPy dtype name)
import numpy as np

from .errors import CheckpointError

BLOCK_BYTES = 4 << 20
"""Bytes of one tensor that are in memory at a time; what keeps the peak independent of the model's size."""


MAX_RANK = 32
"""Dimensions that every version of NumPy holds."""

MAX_ELEMENTS = 1 << 56
"""Of a shape, its empty dimensions counted as one: NumPy refuses an empty array of more."""


class Origin(str, Enum):
    """What a decision rests on: the user's request, a file of the source, its tensors, or the program's default."""

    ASKED = "asked"
    FILE = "file"
    TENSORS = "tensors"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Decision:
    """A choice that the source did not make by itself: what, which value, why, and what it rests on."""

    field: str
    value: Any
    reason: str
    origin: Origin


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
            CheckpointError: the data is short, its checksum is wrong, or it is of a type that NumPy does not have.
        """
        array: np.ndarray | None = None
        row = 0
        for block in self.blocks():  # to the end: the checksum is checked behind the last block
            if array is None:  # not sooner: the reader refuses a type that NumPy does not have
                array = np.empty(self.shape, block.dtype)
            if not self.shape:
                array[()] = block
            else:
                array[row : row + len(block)] = block
                row += len(block)
        return np.empty(self.shape, np.dtype(self.dtype)) if array is None else array


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint's tensors and what lies beside it.

    Attributes:
        format: "tensorflow-bundle", "torch", "paddle" or "safetensors".
        path: what was opened: the bundle's prefix, the file or the index.
        files: every file that the tensors come from.
        entries: the tensors by name.
        config: the model's JSON beside it, if there is one.
        vocab: vocab.txt beside it, if there is one.
        labels: labels.txt beside it, if there is one.
        decisions: what its reader decided, such as which part of a wrapped file holds the model.
        holder: what has to live as long as the files, such as the temporary folder of an archive.
    """

    format: str
    path: Path
    files: tuple[Path, ...]
    entries: Mapping[str, TensorEntry]
    config: Path | None = None
    vocab: Path | None = None
    labels: Path | None = None
    decisions: tuple[Decision, ...] = ()
    holder: object = None


def row_blocks(array: np.ndarray, limit: int) -> Iterator[np.ndarray]:
    """`array` as the blocks of ``TensorEntry.stream``: for formats whose library gives the array itself."""
    if array.ndim == 0:
        yield array
        return
    rows = rows_within(array.shape, array.itemsize, limit)
    for start in range(0, array.shape[0], rows):
        yield array[start : start + rows]


def is_shape(sizes: Sequence[int]) -> bool:
    """Whether an array can have the shape `sizes`."""
    return len(sizes) <= MAX_RANK and prod(max(1, size) for size in sizes) <= MAX_ELEMENTS


State = tuple[int, int, int]
"""What differs once a file was written to or replaced: its size, time of change and number."""


def state_of(file: os.stat_result) -> State:
    """A file's `State`."""
    return file.st_size, file.st_mtime_ns, file.st_ino


def check_unchanged(file: Path, seen: State, opened: int | None = None) -> None:
    """Raises CheckpointError unless `file`, or the descriptor by which it was opened, still is as it was `seen`."""
    try:
        same = state_of(file.stat() if opened is None else os.fstat(opened)) == seen
    except FileNotFoundError:
        same = False
    if not same:
        raise _changed(file)


def unchanged(blocks: Iterable[np.ndarray], file: Path, seen: State) -> Iterator[np.ndarray]:
    """`blocks`, as long as `file` is as it was `seen`: for data that a library has mapped or read.

    Raises:
        CheckpointError: it is not. Asked before each block, since what is mapped and cut off ends the process, and
            after the last.
    """
    for block in blocks:
        check_unchanged(file, seen)
        yield block
    check_unchanged(file, seen)


def leads_outside(file: Path) -> bool:
    """Whether `file`, which is there, is a link out of its folder. The Hub's cache keeps its files in blobs/ beside."""
    folder, real = file.parent.resolve(), file.resolve()
    in_cache = real.parent.name == "blobs" and real.parent.parent in folder.parents
    return folder not in real.parents and not in_cache


def file_blocks(
    file: Path,
    offset: int,
    dtype: np.dtype,
    shape: tuple[int, ...],
    limit: int,
    seen: State,
) -> Iterator[np.ndarray]:
    """The tensor at `offset` of `file` as the blocks of ``TensorEntry.stream``, through one buffer.

    Read, not mapped: pages of a mapping count as the process's memory until it is closed.

    Args:
        seen: the file's state when the tensor's place in it was learnt.

    Raises:
        CheckpointError: the file cannot be read, is shorter than the tensor, or is not as it was.
    """
    itemsize = dtype.itemsize
    nbytes = prod(shape) * itemsize
    size = nbytes if not shape else min(nbytes, rows_within(shape, itemsize, limit) * (nbytes // max(1, shape[0])))
    buffer = np.empty(size, np.uint8)
    try:
        with open(file, "rb", buffering=0) as data:
            check_unchanged(file, seen, data.fileno())
            data.seek(offset)
            for start in range(0, nbytes, max(1, size)):
                block = buffer[: min(size, nbytes - start)]
                got = 0
                while got < len(block):
                    count = data.readinto(block[got:])
                    if not count:
                        raise _changed(file)
                    got += count
                if start + len(block) == nbytes:  # before the last one: who reads no further has it checked too
                    check_unchanged(file, seen, data.fileno())
                yield block.view(dtype).reshape(-1, *shape[1:]) if shape else block.view(dtype)[0]
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error


def _changed(file: Path) -> CheckpointError:
    return CheckpointError(
        f"{file}: it was changed meanwhile, while it was being read",
        hint="Run the same command again when nothing writes to it.",
    )


def rows_within(shape: tuple[int, ...], itemsize: int, limit: int) -> int:
    """How many rows of a tensor of `shape` fit into `limit` bytes; at least one."""
    row_bytes = itemsize
    for size in shape[1:]:
        row_bytes *= size
    return max(1, limit // max(1, row_bytes))
