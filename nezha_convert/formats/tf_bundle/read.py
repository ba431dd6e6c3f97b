"""TensorFlow V2 checkpoints ("bundles"), read without TensorFlow.

``PREFIX.index`` is an SSTable in LevelDB's layout whose values are protocol buffers; ``PREFIX.data-0000i-of-0000n``
holds the tensors' bytes. Layouts: tensorflow/core/lib/io/format.cc (table), tensorflow/core/protobuf/
tensor_bundle.proto (entries), tensorflow/core/util/tensor_bundle/tensor_bundle.cc (files and checksums).
Every length is checked against the file before anything is read or allocated.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial
from itertools import islice
from math import prod
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np

from ...checkpoint import TensorEntry
from ...errors import CheckpointError
from ...files.state import State, leads_outside, state_of
from ..blocks import file_blocks, is_shape
from ..tensor import raw

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
_TRAILER_BYTES = 5  # after every block: one byte of compression, four of checksum
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


class _FormatError(ValueError):
    """The bytes break the format. The caller adds the name of the file to the message."""


class _Slot(NamedTuple):
    """An entry of the index: where a tensor lies, and the checksum of its bytes."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def read_bundle(prefix: Path) -> tuple[tuple[Path, ...], dict[str, TensorEntry]]:
    """The files of the bundle `prefix` and its tensors by name.

    Raises:
        CheckpointError: a file is missing, too short or not a bundle's, or a checksum of the index is wrong. The
            checksum of a tensor's data is checked when the tensor is read.
    """
    index = prefix.with_name(prefix.name + ".index")
    shards, slots = _read_index(index)
    files = _data_files(prefix, shards)
    states = [state_of(file.stat()) for file in files]
    return (index, *files), {
        name: _tensor(name, slot, files[slot.shard], states[slot.shard]) for name, slot in slots.items()
    }


def _read_index(index: Path) -> tuple[int, dict[str, _Slot]]:
    """The number of data files, and the entries by name."""
    try:
        size = index.stat().st_size
        if size > _MAX_INDEX_BYTES:
            raise _FormatError(f"it has {size:,} bytes; an index of more than {_MAX_INDEX_BYTES:,} is not one of NEZHA")
        records = dict(_table(index.read_bytes()))
        shards = _header(records.pop(b"", None))
        slots = {key.decode("utf-8"): _entry(value) for key, value in records.items()}
        for name, slot in slots.items():
            if slot.shard >= shards:
                raise _FormatError(f"{name!r} lies in shard {slot.shard}, but there are {shards}")
    except OSError as error:
        raise CheckpointError(f"{index}: cannot be read ({error.strerror or error})") from error
    except (_FormatError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{index}: not a sound TensorFlow checkpoint index: {error}",
            hint="Copy the checkpoint again from where it came from; a download cut short is the usual cause.",
        ) from error
    return shards, slots


def _data_files(prefix: Path, shards: int) -> tuple[Path, ...]:
    """The data files of a bundle. All of them must be there, in its own folder."""
    names = (f"{prefix.name}.data-{i:05d}-of-{shards:05d}" for i in range(shards))
    missing = list(islice((name for name in names if not prefix.with_name(name).is_file()), 4))
    if missing:
        more = " and more" if len(missing) > 3 else ""
        raise CheckpointError(
            f"{prefix.parent}: the index names {shards} data file(s), but {', '.join(missing[:3])}{more} is not there",
            hint="Copy the missing data file beside the index.",
        )
    files = tuple(prefix.with_name(f"{prefix.name}.data-{i:05d}-of-{shards:05d}") for i in range(shards))
    for file in files:
        if leads_outside(file):
            raise CheckpointError(
                f"{file}: a link to {file.resolve()}, outside of its folder; refused", hint="Put the file itself there."
            )
    return files


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


def masked(crc: int) -> int:
    """`crc` as LevelDB stores it beside the data that it covers: rotated and offset."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) pairs of an SSTable, in order.

    The index block names each block by a separator: no key of the block is above it, and every later key is.
    TensorFlow finds a name by these separators, so that it misses one whose block has another's.
    """
    if len(data) < FOOTER_BYTES:
        raise _FormatError(f"it has {len(data)} bytes, fewer than the footer's {FOOTER_BYTES}")
    footer = data[-FOOTER_BYTES:]
    magic = struct.unpack("<Q", footer[-8:])[0]
    if magic != MAGIC:
        raise _FormatError(f"the footer's magic number is {magic:016x}, expected {MAGIC:016x}")
    *metaindex, position = _handle(footer, 0)
    offset, size, position = _handle(footer, position)
    if any(_block(data, *metaindex)) or any(footer[position:-8]):
        raise _FormatError("it holds more than a bundle's index does")
    last = above = None
    for separator, value in _block(data, offset, size):
        for key, record in _block(data, *_handle(value, 0)[:2]):
            if last is not None and key <= last:
                raise _FormatError(f"key {key!r} follows {last!r}; keys must rise")
            if above is not None and key <= above:
                raise _FormatError(f"key {key!r} is not above {above!r}, the separator of the block before its own")
            last = key
            yield key, record
        if separator < (last or b"") or (above is not None and separator <= above):
            raise _FormatError(f"separator {separator!r} of a block follows {max(last or b'', above or b'')!r}")
        above = separator


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) pairs of the block at `offset`. Its checksum and every length are checked."""
    end = offset + size
    if end + _TRAILER_BYTES > len(data) - FOOTER_BYTES or size < 4:
        raise _FormatError(f"a block of {size:,} bytes at {offset:,} does not fit into the file's {len(data):,}")
    crc = struct.unpack_from("<I", data, end + 1)[0]
    computed = masked(google_crc32c.value(data[offset : end + 1]))
    if crc != computed:
        raise _FormatError(f"the block at {offset:,} has checksum {computed:08x}, expected {crc:08x}")
    if data[end] != 0:
        raise _FormatError(
            f"the block at {offset:,} is compressed (type {data[end]}), which TensorFlow never writes here"
        )
    count = struct.unpack_from("<I", data, end - 4)[0]
    limit = end - 4 - 4 * count
    if limit < offset or not count:
        raise _FormatError(f"the block at {offset:,} claims {count:,} restarts")
    restarts = struct.unpack_from(f"<{count}I", data, limit)
    whole_keys = {0}  # where records begin that store their whole key
    position, key = offset, b""
    while position < limit:
        start = position - offset
        shared, position = _varint(data, position)
        if not shared:
            whole_keys.add(start)
        unshared, position = _varint(data, position)
        length, position = _varint(data, position)
        if shared > len(key) or position + unshared + length > limit:
            raise _FormatError(f"a record in the block at {offset:,} reaches past its end")
        key = key[:shared] + data[position : position + unshared]
        position += unshared
        yield key, data[position : position + length]
        position += length
    if restarts[0] or list(restarts) != sorted(
        whole_keys.intersection(restarts)
    ):  # TensorFlow looks names up by the restarts
        raise _FormatError(f"the restarts of the block at {offset:,} are not where its records begin")


def _handle(data: bytes, position: int) -> tuple[int, int, int]:
    """A block's offset and size, and the position after them."""
    offset, position = _varint(data, position)
    size, position = _varint(data, position)
    return offset, size, position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A base-128 number at `position`, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64 or (shift and not byte):  # no writer ends a number with a zero byte
                break
            return value, position
    raise _FormatError("a variable-length number is cut short or too long")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The (field number, value) pairs of a protocol buffer message."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        wire = tag & 7
        if wire == 0:
            value: int | bytes
            value, position = _varint(data, position)
        else:
            if wire == 2:
                size, position = _varint(data, position)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
            else:
                raise _FormatError(f"a protocol buffer field has wire type {wire}")
            if position + size > len(data):
                raise _FormatError("a protocol buffer field reaches past the record's end")
            value = data[position : position + size]
            position += size
            if wire != 2:
                value = int.from_bytes(value, "little")
        yield tag >> 3, value


def _header(record: bytes | None) -> int:
    """The number of data files, from BundleHeaderProto."""
    if record is None:
        raise _FormatError("it has no header record")
    fields = dict(_fields(record))
    shards, endianness = fields.get(1, 0), fields.get(2, 0)
    if endianness != 0:
        raise _FormatError("it was written on a big-endian machine")
    numbers = list(_fields(_bytes(fields.get(3, b""))))
    version = dict(numbers)
    if any(number == 3 for number, _ in numbers):  # VersionDef's bad_consumers, which no writer has used
        raise _FormatError(f"it asks not to be read by version {version[3]!r}; this one is of version 1")
    if version.get(2, 0) not in (0, 1):  # VersionDef's min_consumer against kTensorBundleVersion
        raise _FormatError(f"it asks for a reader of version {version[2]!r}; this one is of version 1")
    if not isinstance(shards, int) or not 0 < shards <= 100_000:
        raise _FormatError(f"it names {shards!r} data files")
    return shards


def _entry(record: bytes) -> _Slot:
    """BundleEntryProto: dtype 1, shape 2, shard 3, offset 4, size 5, crc32c 6, slices 7."""
    fields: dict[int, int] = {}
    shape = b""
    for number, value in _fields(record):
        if number == 7:
            raise _FormatError("it holds a partitioned variable; save it whole with tf.train.Saver first")
        if number == 2:
            shape += _bytes(value)  # protocol buffers merge a message that occurs twice
        elif isinstance(value, int):
            fields[number] = value
    return _Slot(
        fields.get(1, 0), _shape(shape), fields.get(3, 0), fields.get(4, 0), fields.get(5, 0), fields.get(6, 0)
    )


def _shape(record: bytes) -> tuple[int, ...]:
    """TensorShapeProto: dim 2 (size 1), unknown_rank 3."""
    sizes = []
    for number, value in _fields(record):
        if number == 2:
            size = dict(_fields(_bytes(value))).get(1, 0)
            if not isinstance(size, int) or size >> 63:
                raise _FormatError(f"a dimension of size {size!r}")
            sizes.append(size)
        elif number == 3 and value:
            raise _FormatError("a tensor of unknown rank")
    if not is_shape(sizes):
        raise _FormatError(f"a shape that no array has: {len(sizes)} dimensions, the first {sizes[:4]}")
    return tuple(sizes)


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise _FormatError("a number stands where a message is expected")
    return value
