"""TensorFlow V2 checkpoints ("bundles"), read without TensorFlow.

``PREFIX.index`` is an SSTable whose values are protocol buffers; ``PREFIX.data-0000i-of-0000n`` holds the tensors'
bytes. A variable that was partitioned is stored in parts, which are joined. Layouts: tensorflow/core/protobuf/
tensor_bundle.proto (entries), tensorflow/core/util/tensor_bundle/tensor_bundle.cc (files, checksums and texts).
Every length is checked against the file before anything is read or allocated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np

from ...checkpoint import Decision, Origin, TensorEntry
from ...errors import CheckpointError
from ...files.state import State, state_of
from ..blocks import file_blocks, is_shape
from ..protobuf import Data, FormatError, Span, fields, size_of_shape, span, varint
from ..tensor import raw
from .objects import GRAPH, names_in
from .parts import Extents, Part, extents_of, files_of, joined
from .table import blocks_of, masked, opened, records, slice_key

_MAX_INDEX_BYTES = 1 << 30
DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    19: "float16",
    22: "uint32",
    23: "uint64",
}
"""The types of tensorflow/core/framework/types.proto that can be read. Tensors of others (strings) are only listed."""


_TEXT = 7
"""DT_STRING: of an object-based checkpoint, its graph and the settings of its layers."""


class _Slot(NamedTuple):
    """An entry of the index: where a tensor lies, and the checksum of its bytes."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    parts: tuple[Extents, ...] = ()


def read_bundle(prefix: Path) -> tuple[tuple[Path, ...], dict[str, TensorEntry], tuple[Decision, ...]]:
    """The files of the bundle `prefix`, its tensors by name, and what was decided about the names.

    Raises:
        CheckpointError: a file is missing, too short or not a bundle's, or a checksum of the index is wrong. The
            checksum of a tensor's data is checked when the tensor is read.
    """
    index = prefix.with_name(prefix.name + ".index")
    shards, slots = _read_index(index)
    said = f"the index names {shards} data file(s)"
    files = files_of(prefix.parent, lambda i: f"{prefix.name}.data-{i:05d}-of-{shards:05d}", shards, said)
    states = [state_of(file.stat()) for file in files]
    try:
        parts = {slice_key(key.decode(), extents) for key, slot in slots.items() for extents in slot.parts}
        named = {key.decode(): slot for key, slot in slots.items() if key not in parts}
        entries = {name: _whole(name, slot, slots, files, states) for name, slot in named.items()}
        if GRAPH not in named:
            return (index, *files), entries, ()
        graph = _text(files[named[GRAPH].shard], named[GRAPH])
        names = names_in(graph, {name: entry.shape for name, entry in entries.items()})
    except (FormatError, UnicodeDecodeError) as error:
        raise _unsound(index, error) from error
    found = {names[key]: replace(entry, name=names[key]) for key, entry in entries.items() if named[key].dtype != _TEXT}
    reason = "TensorFlow stored the variables by the objects that hold them"
    return (index, *files), found, (Decision("names", "those of the object graph", reason, Origin.FILE),)


def _unsound(index: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{index}: not a sound TensorFlow checkpoint index: {error}",
        hint="Copy the checkpoint again from where it came from; a download cut short is the usual cause.",
    )


def _read_index(index: Path) -> tuple[int, dict[bytes, _Slot]]:
    """The number of data files, and the entries by key: a tensor's name, or the code of a part of one."""
    try:
        size = index.stat().st_size
        if size > _MAX_INDEX_BYTES:
            raise FormatError(f"it has {size:,} bytes; an index of more than {_MAX_INDEX_BYTES:,} is not one of NEZHA")
        found = dict(_table(index.read_bytes()))
        shards = _header(found.pop(b"", None))
        slots = {key: _entry(value) for key, value in found.items()}
        for key, slot in slots.items():
            if slot.shard >= shards:
                name = key.decode("utf-8", "backslashreplace")
                raise FormatError(f"{name!r} lies in shard {slot.shard}, but there are {shards}")
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{index}: not there; it says where in the data file each tensor lies, and without it nothing does",
            hint=f"Copy {index.name} beside the data file from where that came from, then repeat the command.",
        ) from error
    except OSError as error:
        raise CheckpointError(f"{index}: cannot be read ({error.strerror or error})") from error
    except FormatError as error:
        raise _unsound(index, error) from error
    return shards, slots


def _whole(
    name: str, slot: _Slot, slots: Mapping[bytes, _Slot], files: tuple[Path, ...], states: list[State]
) -> TensorEntry:
    """The tensor `name`, joined if it is stored in parts."""
    if not slot.parts:
        return _tensor(name, slot, files[slot.shard], states[slot.shard])
    parts = []
    for extents in slot.parts:
        part = slots.get(slice_key(name, extents))
        if part is None or part.parts or part.dtype != slot.dtype:
            raise FormatError(f"a part of {name!r} is not there: {extents}")
        parts.append(Part(extents, _tensor(name, part, files[part.shard], states[part.shard])))
    return joined(name, slot.shape, parts)


def _tensor(name: str, slot: _Slot, file: Path, seen: State) -> TensorEntry:
    dtype = DTYPES.get(slot.dtype, f"TensorFlow dtype {slot.dtype}")
    if slot.offset + slot.size > seen[0]:
        raise CheckpointError(
            f"{file}: {name!r} needs bytes {slot.offset:,} to {slot.offset + slot.size:,}, "
            f"but the file has {seen[0]:,}",
            hint="The data file is cut short: copy it again.",
        )
    if slot.dtype in DTYPES and slot.size != prod(slot.shape) * np.dtype(dtype).itemsize:
        raise CheckpointError(f"{file}: {name!r} of shape {slot.shape} and {dtype} cannot have {slot.size:,} bytes")
    stream = partial(_stream, name, slot, file, dtype, seen)
    return TensorEntry(name, dtype, slot.shape, slot.size, stream, (slot.shard, slot.offset))


def _stream(name: str, slot: _Slot, file: Path, dtype: str, seen: State, limit: int) -> Iterator[np.ndarray]:
    if slot.dtype not in DTYPES:
        raise CheckpointError(f"{file}: {name!r} is of {dtype}, which holds no numbers")
    crc = 0
    for block in file_blocks(file, slot.offset, np.dtype(dtype), slot.shape, limit, seen):
        crc = google_crc32c.extend(crc, raw(block))  # where nothing is compiled, it takes no other arrays
        yield block
    if masked(crc) != slot.crc:
        raise CheckpointError(
            f"{file}: the bytes of {name!r} (from {slot.offset:,}, {slot.size:,} bytes) do not have the checksum that "
            f"the index records (expected {slot.crc:08x}, found {masked(crc):08x})",
            hint="The file is damaged: copy it again from where it came from.",
        )


def _text(file: Path, slot: _Slot) -> bytes:
    """A text: its length, a checksum of that, and its bytes. The entry's checksum covers the length as four bytes."""
    with open(file, "rb") as data:
        data.seek(slot.offset)
        found = data.read(slot.size)
    length, start = varint(found, 0, len(found))
    if slot.dtype != _TEXT or slot.shape or start + 4 + length != len(found):
        raise FormatError("its object graph is not one text")
    crc = google_crc32c.value(length.to_bytes(8, "little")[: 4 if length < 1 << 32 else 8])
    stored, text = found[start : start + 4], found[start + 4 :]
    whole = google_crc32c.extend(google_crc32c.extend(crc, stored), text)
    if masked(crc) != int.from_bytes(stored, "little") or masked(whole) != slot.crc:
        raise FormatError("its object graph does not have the checksum that is recorded")
    return text


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) pairs of the index, in order.

    TensorFlow finds a name by the separators of the blocks, so that it misses one whose block has another's.
    """
    last = above = None
    for separator, offset, size in blocks_of(data):
        contents, *place = opened(data, offset, size)
        if contents is not data:
            raise FormatError(f"the block at {offset:,} is compressed, which TensorFlow never writes here")
        for key, value in records(contents, *place):
            if last is not None and key <= last:
                raise FormatError(f"key {key!r} follows {last!r}; keys must rise")
            if above is not None and key <= above:
                raise FormatError(f"key {key!r} is not above {above!r}, the separator of the block before its own")
            last = key
            yield key, data[slice(*value)]
        if separator < (last or b"") or (above is not None and separator <= above):
            raise FormatError(f"separator {separator!r} of a block follows {max(last or b'', above or b'')!r}")
        above = separator


def _header(record: bytes | None) -> int:
    """The number of data files, from BundleHeaderProto."""
    if record is None:
        raise FormatError("it has no header record")
    content = dict(fields(record))
    shards, endianness = content.get(1, 0), content.get(2, 0)
    if endianness != 0:
        raise FormatError("it was written on a big-endian machine")
    numbers = list(fields(record, *span(content.get(3, (0, 0)))))
    version = dict(numbers)
    if any(number == 3 for number, _ in numbers):  # VersionDef's bad_consumers, which no writer has used
        raise FormatError(f"it asks not to be read by version {version[3]!r}; this one is of version 1")
    if version.get(2, 0) not in (0, 1):  # VersionDef's min_consumer against kTensorBundleVersion
        raise FormatError(f"it asks for a reader of version {version[2]!r}; this one is of version 1")
    if not isinstance(shards, int) or not 0 < shards <= 100_000:
        raise FormatError(f"it names {shards!r} data files")
    return shards


def _entry(record: bytes) -> _Slot:
    """BundleEntryProto: dtype 1, shape 2, shard 3, offset 4, size 5, crc32c 6, slices 7."""
    numbers: dict[int, int] = {}
    shape, parts = list[Span](), []
    for number, value in fields(record):
        if number == 7:
            parts.append(extents_of(record, span(value)))
        elif number == 2:
            shape.append(span(value))  # protocol buffers merge a message that occurs twice
        elif isinstance(value, int):
            numbers[number] = value
    shard, offset, size, crc = (numbers.get(number, 0) for number in (3, 4, 5, 6))
    return _Slot(numbers.get(1, 0), shape_of(record, shape), shard, offset, size, crc, tuple(parts))


def shape_of(data: Data, messages: list[Span]) -> tuple[int, ...]:
    """TensorShapeProto: dim 2 (size 1), unknown_rank 3."""
    sizes = []
    for message in messages:
        for number, value in fields(data, *message):
            if number == 2:
                size = dict(fields(data, *span(value))).get(1, 0)
                if not isinstance(size, int):
                    raise FormatError(f"a dimension of size {data[slice(*size)]!r}")
                sizes.append(size_of_shape(size))
            elif number == 3 and value:
                raise FormatError("a tensor of unknown rank")
    if not is_shape(sizes):
        raise FormatError(f"a shape that no array has: {len(sizes)} dimensions, the first {sizes[:4]}")
    return tuple(sizes)
