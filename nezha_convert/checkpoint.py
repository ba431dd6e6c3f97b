"""What every reader returns: tensors that are read when they are needed, and the decisions that it made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (makes "bfloat16" a NumPy dtype name)
import numpy as np

BLOCK_BYTES = 1 << 20
"""How many bytes of a tensor are in memory at a time. So memory does not grow with the model."""


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

    def __str__(self) -> str:
        return f"{self.field} = {json.dumps(self.value, ensure_ascii=False)}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Assumption:
    """What a conversion relies on although no tensor and no file of the source says it, and no comparison can show it.

    Attributes:
        name: its short name, which ``verify --assume`` takes.
        text: what is assumed, as a sentence.
    """

    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a checkpoint, not yet read.

    Attributes:
        name: the name in the source.
        dtype: NumPy's name of the element type ("float32", "bfloat16"), or the format's own where NumPy has none.
        shape: sizes in the source's layout.
        nbytes: size of the data in the file.
        stream: ``stream(limit)`` yields the tensor's rows in order, as arrays of shape [rows, *shape[1:]] of at most
            ``limit`` bytes (at least one row; a scalar comes whole). A block is only valid until the next is asked for.
            After the last row, a format that has checksums raises CheckpointError if the tensor's is wrong.
        position: (file number, offset). Reading tensors in this order reads the files from front to back.
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
            CheckpointError: the data is short, its checksum is wrong, or NumPy does not have its type.
        """
        array: np.ndarray | None = None
        row = 0
        for block in self.blocks():  # do not stop early: the checksum is checked after the last block
            if array is None:  # not before the first block: the reader refuses types that NumPy does not have
                array = np.empty(self.shape, block.dtype)
            if not self.shape:
                array[()] = block
            else:
                array[row : row + len(block)] = block
                row += len(block)
        return np.empty(self.shape, np.dtype(self.dtype)) if array is None else array


class Contents(NamedTuple):
    """What a reader finds in the files of a checkpoint.

    Attributes:
        entries: the tensors by name.
        decisions: what the reader decided.
        settings: the configs among the objects that a pickle holds, by where they stand in it.
    """

    entries: Mapping[str, TensorEntry]
    decisions: tuple[Decision, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint's tensors and the files beside it.

    Attributes:
        format: the name of one of ``formats.open.FORMATS``, or "tensorflow-bundle".
        path: what was opened: the bundle's prefix, the file or the index.
        files: every file that the tensors come from.
        entries: the tensors by name.
        config: the model's JSON beside it, if there is one.
        vocab: vocab.txt beside it, if there is one.
        labels: labels.txt beside it, if there is one.
        decisions: what its reader decided, such as which part of a wrapped file holds the model.
        settings: the configs among the objects in it, by where they stand; see `Contents`.
        beside: what a conversion kept beside the model, of a converted folder.
        replaced: weights whose moving averages stand among the entries by their names.
        holder: an object that must live as long as the files are needed, such as the temporary folder of an archive.
    """

    format: str
    path: Path
    files: tuple[Path, ...]
    entries: Mapping[str, TensorEntry]
    config: Path | None = None
    vocab: Path | None = None
    labels: Path | None = None
    decisions: tuple[Decision, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    beside: Mapping[str, TensorEntry] = field(default_factory=dict)
    replaced: Mapping[str, TensorEntry] = field(default_factory=dict)
    holder: object = None
