"""TensorFlow's first format of checkpoints (V1): one SSTable a file, in which the values are protocol buffers.

The record of the empty key lists the tensors; each other one holds a part of a tensor, which is all of it unless the
variable was partitioned. Until a tensor is read, only that list is. A sharded checkpoint has a table for each device
that held variables; each lists those of its own, and parts of one variable may lie in several. Sources:
tensorflow/core/util/saved_tensor_slice.proto, tensor_slice_writer.cc, framework/tensor.proto, and python/training/
saver.py for the names of shards.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from functools import partial
from glob import escape
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ..checkpoint import TensorEntry
from ..errors import CheckpointError
from ..files.state import check_unchanged, state_of
from .blocks import file_blocks, row_blocks, unchanged
from .protobuf import Data, FormatError, Span, Window, fields, span
from .tf_bundle.parts import Extents, Part, extents_of, files_of, joined
from .tf_bundle.read import DTYPES, shape_of
from .tf_bundle.table import FOOTER_BYTES, MAGIC, Block, blocks_of, opened, records, slice_key

_RAW = {"float32": 5, "float64": 6}
"""The fields of a TensorProto in which values stand as they are."""

_VARINTS = {
    **dict.fromkeys(("int32", "int16", "int8", "uint8", "uint16"), 7),
    **{"int64": 10, "bool": 11, "float16": 13, "bfloat16": 13, "uint32": 16, "uint64": 17},
}
"""Those in which each value is a number in base 128; of half precision, its bits."""

_CONTENT = 4
"""tensor_content: values of any type as they are."""


_PIECE = 1 << 20

_SHARD = re.compile(r"(.+)-(?:\d{5}|\?{5})-of-(\d{5})")
"""The name of a shard, or of all of them."""


class _Listed(NamedTuple):
    """A tensor as the first record lists it, and where its parts lie in it."""

    name: str
    shape: tuple[int, ...]
    dtype: int
    slices: list[Extents]


class _Own(NamedTuple):
    """What a file has of a tensor: all of its parts, or some of them."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    parts: list[Part]


class _Table:
    """The records of a file. Where they lie is kept, and the block that was unpacked last: small tensors share one."""

    def __init__(self, file: Path) -> None:
        self.file, self.seen = file, state_of(file.stat())
        self._plain: dict[int, dict[bytes, Span]] = {}
        self._packed: tuple[int, bytes, dict[bytes, Span]] = (-1, b"", {})
        with open(file, "rb") as source:
            self._blocks = list(blocks_of(Window(source, self.seen[0])))
        separators = [block.separator for block in self._blocks]
        if any(a >= b for a, b in pairwise(separators)):
            raise FormatError("its blocks are not in order")

    def block_of(self, key: bytes) -> Block:
        """The block that holds `key`, by the separators."""
        number = bisect_left(self._blocks, key, key=lambda block: block.separator)
        if number == len(self._blocks):
            raise FormatError(f"no block holds {key!r}")
        return self._blocks[number]

    def record(self, source: BinaryIO, key: bytes) -> tuple[Data, Span]:
        """Bytes that hold the record `key`, and where it lies in them: the file `source`, or an unpacked block."""
        check_unchanged(self.file, self.seen, source.fileno())
        data, block = Window(source, self.seen[0]), self.block_of(key)
        contents: Data = data
        offset, unpacked, places = self._packed  # taken once: another thread may read another tensor
        if offset == block.offset:
            contents = unpacked
        elif (plain := self._plain.get(block.offset)) is not None:
            places = plain
        else:
            contents, *place = opened(data, block.offset, block.size)
            places = dict(records(contents, *place))
            if isinstance(contents, bytes):
                self._packed = (block.offset, contents, places)
            else:
                self._plain[block.offset] = places
        if key not in places:
            raise FormatError(f"no record has the key {key!r}")
        return contents, places[key]


def is_table(file: Path) -> bool:
    """Whether `file` ends as an SSTable does. Only a bundle's index does so, too."""
    with open(file, "rb") as source:
        size = source.seek(0, 2)
        source.seek(max(0, size - 8))
        return size >= FOOTER_BYTES and source.read(8) == MAGIC.to_bytes(8, "little")


def sharded(path: Path) -> Path | None:
    """A sharded checkpoint, as TensorFlow's ``checkpoint`` file names it: "model.ckpt-5-?????-of-00002".

    Args:
        path: one of its shards, that name, or its beginning ("model.ckpt-5").

    Returns:
        None if `path` is nothing of a sharded checkpoint, or the beginning of several.
    """
    match = _SHARD.fullmatch(path.name)
    if path.is_file():
        shards = [path] if match else []
    else:
        stem, count = (match[1], match[2]) if match else (path.name, "?????")
        shards = sorted(path.parent.glob(f"{escape(stem)}-?????-of-{count}"))
    matches = [_SHARD.fullmatch(shard.name) for shard in shards if shard.is_file() and is_table(shard)]
    names = {f"{match[1]}-?????-of-{match[2]}" for match in matches if match}
    return path.with_name(names.pop()) if len(names) == 1 else None


def shards_of(checkpoint: Path) -> tuple[Path, ...]:
    """The shards of `checkpoint`, which `sharded` named.

    Raises:
        CheckpointError: one is not there.
    """
    stem, count = checkpoint.name.split("-?????-of-")
    said = f"the names of the shards say that there are {int(count)}"
    return files_of(checkpoint.parent, lambda i: f"{stem}-{i:05d}-of-{count}", int(count), said)


def read_v1(*files: Path) -> dict[str, TensorEntry]:
    """The tensors of a checkpoint by name.

    Args:
        files: the file that it is, or its shards.

    Raises:
        CheckpointError: one is damaged, or no such checkpoint. The checksums are compared when a tensor is read.
    """
    found: dict[str, list[_Own]] = {}
    for number, file in enumerate(files):
        for own in _tensors(file, number):
            found.setdefault(own.name, []).append(own)
    try:
        return {name: _joined(own) for name, own in found.items()}
    except FormatError as error:
        raise _unsound(files[0], error) from error


def _tensors(file: Path, number: int) -> list[_Own]:
    """What `file`, which is shard `number`, has of each tensor that it lists."""
    try:
        table = _Table(file)
        with open(file, "rb") as source:
            contents, record = table.record(source, b"")
            listed = [_listed(contents, place) for place in _messages(contents, record, 1, 1)]
        if len({one.name for one in listed}) < len(listed):
            raise FormatError("it lists a name twice")
        found = [_parts(table, one, number) for one in listed]
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error
    except (FormatError, UnicodeDecodeError) as error:
        raise _unsound(file, error) from error
    check_unchanged(file, table.seen)
    return found


def _joined(shares: list[_Own]) -> TensorEntry:
    """The tensor of which each shard has its share."""
    first = shares[0]
    for other in shares[1:]:
        if (other.shape, other.dtype) != (first.shape, first.dtype):
            raise FormatError(
                f"{first.name!r} is of {first.dtype} {list(first.shape)} in one shard, "
                f"and of {other.dtype} {list(other.shape)} in another"
            )
    return joined(first.name, first.shape, [part for own in shares for part in own.parts])


def _unsound(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{file}: not a sound checkpoint of TensorFlow's first format (V1): {error}",
        hint="Copy the checkpoint again from where it came from; a download cut short is the usual cause.",
    )


def _messages(data: Data, place: Span, *path: int) -> Iterator[Span]:
    """The messages in the fields `path`, one inside the other."""
    for number, value in fields(data, *place):
        if number == path[0]:
            yield from _messages(data, span(value), *path[1:]) if path[1:] else (span(value),)


def _listed(data: Data, place: Span) -> _Listed:
    """SavedSliceMeta: name 1, shape 2, type 3, slice 4."""
    name, dtype, shapes, slices = b"", 0, [], []
    for number, value in fields(data, *place):
        if number == 3 and isinstance(value, int):
            dtype = value
        elif number == 1:
            name = data[slice(*span(value))]
        elif number == 2:
            shapes.append(span(value))
        elif number == 4:
            slices.append(extents_of(data, span(value)))
    return _Listed(name.decode("utf-8"), shape_of(data, shapes), dtype, slices)


def _parts(table: _Table, listed: _Listed, number: int) -> _Own:
    """What the `table` of shard `number` has of a tensor."""
    name, shape, dtype, slices = listed
    kind = DTYPES.get(dtype, f"TensorFlow dtype {dtype}")
    parts = []
    for extents in slices:
        key = slice_key(name, extents)
        place = (size if length < 0 else length for (_, length), size in zip(extents, shape, strict=False))
        own = tuple(place)
        if prod(own) > 22 * table.seen[0]:  # no packing makes more of a byte
            raise FormatError(f"{name!r} of shape {own} does not fit into the file's {table.seen[0]:,} bytes")
        nbytes = prod(own) * np.dtype(kind).itemsize if dtype in DTYPES else 0
        stream = partial(_stream, table, key, name, kind, own)
        parts.append(Part(extents, TensorEntry(name, kind, own, nbytes, stream, (number, table.block_of(key).offset))))
    return _Own(name, shape, kind, parts)


def _stream(
    table: _Table, key: bytes, name: str, dtype: str, shape: tuple[int, ...], limit: int
) -> Iterator[np.ndarray]:
    file = table.file
    if dtype not in _RAW and dtype not in _VARINTS:
        raise CheckpointError(f"{file}: {name!r} is of {dtype}, which holds no numbers")
    try:
        with open(file, "rb") as source:
            data, record = table.record(source, key)
            start, end, coded = _values(data, record, key, dtype)
            there = not coded and not isinstance(data, bytes)
            found = b"" if there else data[start:end]
        array = _decoded(found, dtype) if coded else None
        count = len(array) if array is not None else (end - start) / np.dtype(dtype).itemsize
        if count != prod(shape):
            raise FormatError(f"{name!r} of shape {shape} has {count:,} values")
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error
    except FormatError as error:
        raise _unsound(file, error) from error
    if there:
        yield from file_blocks(file, start, np.dtype(dtype), shape, limit, table.seen)
    else:
        array = np.frombuffer(found, dtype) if array is None else array
        yield from unchanged(row_blocks(array.reshape(shape), limit), file, table.seen)


def _values(data: Data, record: Span, key: bytes, dtype: str) -> tuple[int, int, bool]:
    """Where a part's values begin and end, and whether each is a number in base 128.

    SavedTensorSlices: data 2 (SavedSlice: name 1, slice 2, data 3, a TensorProto).
    """
    found = []
    part = dict(pair for message in _messages(data, record, 2) for pair in fields(data, *message))
    name, place = data[slice(*span(part.get(1, (0, 0))))], extents_of(data, span(part.get(2, (0, 0))))
    if slice_key(name.decode("utf-8", "replace"), place) != key:
        raise FormatError(f"the record {key!r} holds a part of {name!r}")
    for number, value in fields(data, *span(part.get(3, (0, 0)))):
        if number in (_CONTENT, _RAW.get(dtype), _VARINTS.get(dtype)) and not isinstance(value, int):
            found.append((*value, number != _CONTENT and dtype in _VARINTS))
    if len(found) > 1:
        raise FormatError("the values of a tensor stand in several places")
    return found[0] if found else (record[1], record[1], False)


def _decoded(data: bytes, dtype: str) -> np.ndarray:
    """The numbers in base 128 that `data` holds one after the other."""
    pieces, kind = [np.empty(0, dtype)], np.dtype(dtype)
    start = 0
    while start < len(data):
        digits = np.frombuffer(data, np.uint8, min(_PIECE, len(data) - start), start)
        ends = np.flatnonzero(digits < 0x80)
        lengths = np.diff(ends, prepend=-1)
        if not len(ends) or lengths.max() > 10:
            raise FormatError("a variable-length number is cut short or too long")
        values = np.zeros(len(ends), np.uint64)
        for place in range(int(lengths.max())):
            has = lengths > place
            digit = digits[(ends - lengths + 1)[has] + place].astype(np.uint64) & np.uint64(0x7F)
            values[has] |= digit << np.uint64(7 * place)
        pieces.append(values.astype(f"u{kind.itemsize}").view(kind))
        start += int(ends[-1]) + 1
    return np.concatenate(pieces)
