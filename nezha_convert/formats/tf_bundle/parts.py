"""Tensors that TensorFlow stored in parts, as it does with partitioned variables (tensor_slice.proto)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...checkpoint import TensorEntry
from ...errors import CheckpointError
from ...files.state import leads_outside
from ..protobuf import Data, FormatError, Span, fields, span

Extents = tuple[tuple[int, int], ...]
"""Of each dimension, where a part begins and its length; -1 for all of it."""


class Part(NamedTuple):
    """A part of a tensor: where it lies in the whole, and its values."""

    extents: Extents
    entry: TensorEntry


def extents_of(data: Data, message: Span) -> Extents:
    """TensorSliceProto: extent 1 (start 1, length 2)."""
    found = []
    for number, value in fields(data, *message):
        if number == 1:
            extent = dict(fields(data, *span(value)))
            start, length = extent.get(1, 0), extent.get(2, -1)
            if not isinstance(start, int) or not isinstance(length, int) or max(start, length) >> 63:
                raise FormatError("a part has no place in its tensor")
            found.append((start, length))
    return tuple(found)


def files_of(folder: Path, name: Callable[[int], str], count: int, said: str) -> tuple[Path, ...]:
    """The numbered files of a checkpoint.

    Args:
        folder: where they are.
        name: of a file, by its number from 0.
        count: how many there are.
        said: what says so, for the message.

    Raises:
        CheckpointError: one is not there, or is a link out of the folder.
    """
    names = map(name, range(count))  # no list: a damaged file may claim very many
    missing = list(islice((one for one in names if not (folder / one).is_file()), 4))
    if missing:
        more = " and more" if len(missing) > 3 else ""
        raise CheckpointError(
            f"{folder}: {said}, but {', '.join(missing[:3])}{more} is not there",
            hint="Copy the missing data file beside the others from where they came from, then repeat the command.",
        )
    files = tuple(folder / name(number) for number in range(count))
    for file in files:
        if leads_outside(file):
            raise CheckpointError(
                f"{file}: a link to {file.resolve()}, outside of its folder; refused", hint="Put the file itself there."
            )
    return files


def joined(name: str, shape: tuple[int, ...], parts: list[Part]) -> TensorEntry:
    """The tensor of `shape` that `parts` make up: slabs along the first dimension, each of slabs along the next one.

    Raises:
        FormatError: they leave a gap or overlap.
    """
    placed = []
    for extents, entry in parts:
        place = tuple((start, size if n < 0 else n) for (start, n), size in zip(extents, shape, strict=False))
        if len(extents) != len(shape) or tuple(length for _, length in place) != entry.shape:
            raise FormatError(f"a part of {name!r} of shape {entry.shape} is to lie at {extents} of {shape}")
        placed.append(Part(place, entry))
    return replace(_slabs(name, shape, placed, 0), name=name)


def _slabs(name: str, shape: tuple[int, ...], parts: list[Part], axis: int) -> TensorEntry:
    """What `parts` make up, none of which is cut along a dimension before `axis`."""
    if axis == len(shape):
        if len(parts) != 1:
            raise FormatError(f"{len(parts)} parts of {name!r} lie in one place")
        return parts[0].entry
    slabs, end = list[TensorEntry](), 0
    for (start, length), slab in groupby(sorted(parts, key=lambda part: part.extents), lambda part: part.extents[axis]):
        if start != end:
            raise FormatError(f"the parts of {name!r} leave a gap or overlap at {start} of dimension {axis}")
        slabs.append(_slabs(name, (*shape[:axis], length, *shape[axis + 1 :]), list(slab), axis + 1))
        end = start + length
    if end != shape[axis] or not slabs:
        raise FormatError(f"the parts of {name!r} leave a gap or overlap at {end} of dimension {axis}")
    if len(slabs) == 1:
        return slabs[0]
    size = sum(slab.nbytes for slab in slabs)
    return TensorEntry(name, slabs[0].dtype, shape, size, partial(_stream, slabs, axis), slabs[0].position)


def _stream(entries: list[TensorEntry], axis: int, limit: int) -> Iterator[np.ndarray]:
    if axis == 0:
        for entry in entries:
            yield from entry.stream(limit)
        return
    filled = [entry for entry in entries if entry.nbytes]
    row = [entry.nbytes // entry.shape[0] for entry in filled]
    rows = max(1, limit // max(1, sum(row)))  # the same of every part, so that their blocks fit beside each other
    for blocks in zip(*(entry.stream(rows * size) for entry, size in zip(filled, row, strict=True)), strict=True):
        yield np.concatenate(blocks, axis)
