"""Tensors that TensorFlow stored in parts, as it does with partitioned variables (tensor_slice.proto)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from ...checkpoint import TensorEntry
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


def joined(name: str, shape: tuple[int, ...], parts: list[Part]) -> TensorEntry:
    """The tensor of `shape` that `parts` make up. They must divide it along one dimension and leave nothing out.

    Raises:
        FormatError: they don't.
    """
    places = []
    for extents, entry in parts:
        place = [(start, size if length < 0 else length) for (start, length), size in zip(extents, shape, strict=False)]
        if len(extents) != len(shape) or tuple(length for _, length in place) != entry.shape:
            raise FormatError(f"a part of {name!r} of shape {entry.shape} is to lie at {extents} of {shape}")
        places.append(place)
    order = sorted(range(len(parts)), key=lambda i: places[i])
    cut = [axis for axis in range(len(shape)) if any(place[axis] != (0, shape[axis]) for place in places)]
    ends = [0]
    for i in order if len(cut) == 1 else ():
        start, length = places[i][cut[0]]
        if start != ends[-1]:
            raise FormatError(f"the parts of {name!r} leave a gap or overlap at {start} of dimension {cut[0]}")
        ends.append(start + length)
    if len(cut) > 1 or (cut and ends[-1] != shape[cut[0]]) or (not cut and len(parts) != 1):
        raise FormatError(f"the {len(parts)} parts of {name!r} do not make up its shape {shape} along one dimension")
    entries = [parts[i].entry for i in order]
    stream = partial(_stream, entries, cut[0] if cut else 0)
    size = sum(entry.nbytes for entry in entries)
    return TensorEntry(name, entries[0].dtype, shape, size, stream, entries[0].position)


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
