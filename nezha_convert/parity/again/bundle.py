"""TensorFlow's checkpoints, read a second time: bundles, SavedModels, the first format, and the names of objects.

Written from tensorflow/core/protobuf/tensor_bundle.proto and tensorflow/core/util/saved_tensor_slice.proto.
TensorFlow itself reads the file where `verify --original` runs Huawei's program.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import google_crc32c
import numpy as np

from ...errors import CheckpointError
from ..oracle.formulas import Array
from .objects import names_of
from .table import Cursor, Message, read_records
from .tensor import Tensor

_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 14: "bfloat16", 19: "<f2"}
"""NumPy's types by the numbers of types.proto. Tensors of others are no weights of a model."""

_GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"

Place = tuple[slice, ...]


def read_bundle(prefix: Path) -> dict[str, Tensor]:
    """The tensors of the bundle `prefix` by name.

    Raises:
        CheckpointError: the index is damaged.
    """
    index = prefix.with_name(f"{prefix.name}.index")
    try:
        records = {key: Message(value) for key, value in read_records(index.read_bytes()).items()}
        shards = records.pop(b"").number(1)
        data = [prefix.with_name(f"{prefix.name}.data-{i:05d}-of-{shards:05d}") for i in range(shards)]
        if missing := [file.name for file in data if not file.is_file()]:
            raise CheckpointError(
                f"{prefix.parent}: {', '.join(missing[:3])} is not there", hint="Copy it beside the index."
            )
        parts: dict[str, list[tuple[Place, Tensor]]] = {}
        for key in [key for key in records if key[:1] == b"\0"]:
            name, place = _part(key)
            parts.setdefault(name, []).append((place, _tensor(name, records.pop(key), data)))
        graph = records.get(_GRAPH)
        found = {key.decode(): _tensor(key.decode(), entry, data) for key, entry in records.items()}
        found |= {name: _joined(found[name], pieces) for name, pieces in parts.items()}
        if graph is None:
            return found
        numbers = {name: one for name, one in found.items() if records[name.encode()].number(1) != 7}
        text = Cursor(data[graph.number(3)].read_bytes()[graph.number(4) :][: graph.number(5)])
        length, _ = text.varint(), text.take(4)  # and a checksum of the length
        names = names_of(text.take(length), {key: one.shape for key, one in numbers.items()})
        return {names[key]: one for key, one in numbers.items()}
    except (IndexError, KeyError, ValueError) as error:
        raise CheckpointError(f"{index}: not a sound TensorFlow checkpoint index ({error!r})") from error


def _shape(entry: Message, field: int = 2) -> tuple[int, ...]:
    return tuple(Message(one).number(1) for part in entry.parts(field) for one in Message(part).parts(2))


def _tensor(name: str, entry: Message, data: list[Path]) -> Tensor:
    """A tensor by its BundleEntryProto: dtype 1, shape 2, shard 3, offset 4, size 5, crc32c 6."""
    shape = _shape(entry)
    places = entry.number(4), entry.number(5), entry.number(6)
    return Tensor(name, shape, partial(_read, data[entry.number(3)], name, entry.number(1), shape, *places))


def _read(file: Path, name: str, kind: int, shape: tuple[int, ...], offset: int, size: int, checksum: int) -> Array:
    if kind not in _TYPES:
        raise CheckpointError(f"{file}: {name!r} has TensorFlow's type {kind}; expected numbers of a model")
    with open(file, "rb") as opened:
        opened.seek(offset)
        found = opened.read(size)
    rotated = google_crc32c.value(found)
    if ((rotated >> 15 | rotated << 17) + 0xA282EAD8) & 0xFFFFFFFF != checksum:
        raise CheckpointError(f"{file}: the bytes of {name!r} do not have their checksum", hint="Copy the file again.")
    return np.frombuffer(found, _TYPES[kind]).reshape(shape)


def _part(key: bytes) -> tuple[str, Place]:
    """The name in the key of a part, and its place: where it begins in each dimension, and its length, -1 for all."""
    name, _, rest = key[1:].partition(b"\x00\x01")
    cursor = Cursor(rest)
    dimensions = int.from_bytes(cursor.take(cursor.take(1)[0]), "big")
    place = []
    for _ in range(dimensions):
        start, length = _signed(cursor), _signed(cursor)
        place.append(slice(start, None if length < 0 else start + length))
    return name.replace(b"\x00\xff", b"\0").replace(b"\xff\x00", b"\xff").decode(), tuple(place)


def _signed(cursor: Cursor) -> int:
    """A number of as many bytes as its first has leading bits that are the same; these are turned over."""
    first = cursor.take(1)[0]
    bits = f"{first:08b}"
    size = len(bits) - len(bits.lstrip(bits[0]))
    whole = int.from_bytes(bytes([first]) + cursor.take(size - 1), "big") ^ ((1 << size) - 1) << 7 * size
    return whole - (1 << 8 * size) if bits[0] == "0" else whole


def _joined(whole: Tensor, parts: list[tuple[Place, Tensor]]) -> Tensor:
    return Tensor(whole.name, whole.shape, partial(_put_together, whole, parts))


def _put_together(whole: Tensor, parts: list[tuple[Place, Tensor]]) -> Array:
    read = [(place, part.read()) for place, part in parts]
    joined, filled = np.empty(whole.shape, read[0][1].dtype), np.zeros(whole.shape, int)
    for place, values in read:
        joined[place] = values
        filled[place] += 1
    if not (filled == 1).all():
        raise CheckpointError(f"{whole.name!r}: its {len(parts)} parts leave a gap or overlap")
    return joined


_VALUES = {1: (5, "<f4"), 2: (6, "<f8"), 3: (7, "i4"), 9: (10, "i8"), 14: (13, "bfloat16"), 19: (13, "f2")}
"""By type: the field of a TensorProto that holds its values, and NumPy's type."""


def read_v1(files: Iterable[Path]) -> dict[str, Tensor]:
    """The tensors of a checkpoint of TensorFlow's first format by name.

    Args:
        files: the file that it is, or its shards, each of which holds some tensors, or some parts of one.

    Raises:
        CheckpointError: one is damaged, or two say different things of one tensor.
    """
    wholes: dict[str, tuple[tuple[int, ...], int]] = {}
    parts: dict[str, list[tuple[Place, Tensor]]] = {}
    for file in files:
        try:
            records = read_records(file.read_bytes())
            for one in map(Message, Message(Message(records.pop(b"")).parts(1)[0]).parts(1)):
                name, said = one.parts(1)[0].decode(), (_shape(one), one.number(3))
                if wholes.setdefault(name, said) != said:
                    raise ValueError(f"{name} is another tensor in another shard")
            for key, record in records.items():
                name, place = _part(key)
                values = partial(_values, record, wholes[name][1])
                parts.setdefault(name, []).append((place, Tensor(name, (), values)))
        except (IndexError, KeyError, ValueError) as error:
            raise CheckpointError(f"{file}: not a sound checkpoint of TensorFlow's first format ({error!r})") from error
    return {name: Tensor(name, shape, partial(_fitted, shape, parts[name])) for name, (shape, _) in wholes.items()}


def _fitted(shape: tuple[int, ...], parts: list[tuple[Place, Tensor]]) -> Array:
    """The parts, each in the shape of its place, put together."""
    shaped: list[tuple[Place, Tensor]] = []
    for place, part in parts:
        own = tuple(len(range(*one.indices(size))) for one, size in zip(place, shape, strict=True))
        shaped.append((place, Tensor(part.name, own, partial(np.reshape, part.read(), own))))
    return _put_together(Tensor(parts[0][1].name, shape, parts[0][1].read), shaped)


def _values(record: bytes, kind: int) -> Array:
    """The values of a part: SavedTensorSlices, data 2, data 3: a TensorProto."""
    tensor = Message(Message(Message(record).parts(2)[0]).parts(3)[0])
    if kind not in _VALUES:
        raise CheckpointError(f"a tensor has TensorFlow's type {kind}; expected numbers of a model")
    field, dtype = _VALUES[kind]
    if whole := b"".join(tensor.parts(4)):
        return np.frombuffer(whole, dtype)
    stored = b"".join(tensor.parts(field))
    if dtype[0] == "<":
        return np.frombuffer(stored, dtype)
    cursor, numbers = Cursor(stored), []
    while cursor.left:
        numbers.append(cursor.varint())
    unsigned = np.array(numbers, np.uint64)
    width = np.dtype(dtype).itemsize
    return unsigned.astype(f"u{width}").view(dtype)
