"""The containers of pickles: what a file holds, followed and not run, and where its storages lie.

Those of PyTorch, by torch/serialization.py and caffe2/serialize/inline_container.cc: a zip file (torch 1.6 and later);
five pickles and the data (legacy, torch 0.1 to 1.5); a tar file (torch up to 0.1.10).
"""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from struct import unpack
from typing import Any, BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np

from ...errors import CheckpointError
from ...files.state import State, check_unchanged, state_of
from ..blocks import MAX_RANK
from ..pickles.entries import DAMAGED, Compressed, Place, text_bytes
from ..pickles.machine import BROKEN, Pickled, follow
from ..pickles.meanings import STORAGES, as_key, storage_type, view
from ..pickles.model import NOT_RUN, written_by_torch
from ..pickles.values import Array, Name, Span, Storage, UnexpectedError

MAX_INFLATION = 4
"""How many times a file's size its compressed members may have. Deflated weights take nine tenths of their size."""

_LEGACY = re.compile(
    rb"\x80[\x02-\x05](?:\x95.{8})?\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\.|L119547037146038801333356L\n\.", re.DOTALL
)
"""How a legacy file begins: a pickle of its magic number, from protocol 4 on in a frame; and in protocol 1."""

_OLD = re.compile(rb"\(dp?\d+\n|\}q|c[\w.]+\n\w+\n(?:p\d+\n|q)")
"""How a pickle of protocol 0 or 1 begins: a dictionary, or a class. Its last byte is a full stop."""

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"x\x01", b"x\x9c", b"x\xda")
"""How files begin that joblib compressed."""

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_FOLDER, _UTF8, _ENCRYPTED = 0x10, 0x800, 1  # among a member's attributes (MS-DOS), and its flags
_HEADER_BYTES, _TAR_BLOCK = 30, 512
_TAR_PARTS = {"pickle", "storages", "tensors"}
_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")
_QUANTIZED = {"QInt8Storage": 1, "QUInt8Storage": 1, "QUInt4x2Storage": 1, "QUInt2x4Storage": 1, "QInt32Storage": 4}
"""Bytes of an element of the storages that hold no plain numbers."""

_BROKEN = (*BROKEN, BadZipFile, NotImplementedError, RuntimeError, OverflowError, zlib.error)


@dataclass(frozen=True, slots=True)
class Container:
    """A file's pickle, and where its storages lie."""

    pickled: Pickled
    places: dict[str, Place]


def is_pickle(path: Path) -> bool:
    """Whether `path` is a file that PyTorch or Python's pickle wrote, by its content."""
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as data:
            head = data.read(_TAR_BLOCK)
            if head.startswith(b"PK\x03\x04"):
                with ZipFile(data) as archive:
                    return any(name.endswith("/data.pkl") for name in archive.namelist())
            if _OLD.match(head):
                data.seek(-1, os.SEEK_END)
                return data.read() == b"."
            is_new = head[:1] == b"\x80" and head[1:2] in _PROTOCOLS
            return is_new or bool(_LEGACY.match(head)) or _tar_members(data).keys() >= _TAR_PARTS
    except (OSError, *_BROKEN):
        return False


def open_pickle(file: Path) -> tuple[Container, State]:
    """What the pickle in `file` holds, whatever its container, and the file's state.

    Raises:
        CheckpointError: it is damaged, or no pickle.
    """
    try:
        with open(file, "rb") as data:
            seen = state_of(os.fstat(data.fileno()))
            container = _read(data, seen[0])
            check_unchanged(file, seen, data.fileno())
            return container, seen
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error
    except UnexpectedError as error:
        raise CheckpointError(f"{file}: not a pickle of tensors: it has {error}. {NOT_RUN}", hint=DAMAGED) from error
    except _BROKEN as error:
        detail = (str(error).strip() or "no more is said").splitlines()[0]
        raise CheckpointError(
            f"{file}: cannot be read as a PyTorch file ({type(error).__name__}: {detail:.300})", hint=DAMAGED
        ) from error


def _read(data: BinaryIO, size: int) -> Container:
    head = data.read(_HEADER_BYTES)
    if head.startswith(b"PK\x03\x04"):
        with ZipFile(data) as archive:
            return _zip(archive, data, size)
    if head.startswith(_COMPRESSED):
        raise UnexpectedError("compressed data, which cannot be read by their place: write it without compression")
    if (members := _tar_members(data)).keys() >= _TAR_PARTS:
        return _tar(members, data, size)
    data.seek(0)
    return _legacy(data, size) if _LEGACY.match(head) else _bare(data, size)


class _Storages:
    """Resolves the identities of storages in a pickle, and keeps what it says of each."""

    def __init__(self, big_endian: bool = False) -> None:
        self.by_key: dict[str, Storage] = {}
        self._big_endian = big_endian

    def resolve(self, identity: Any) -> Any:
        """The storage ("storage", type, key, location, number of elements[, view]); the class of a pickled module."""
        match identity:
            case ("storage", kind, str() as key, _, int() as count, *view) if count >= 0:
                if view not in ([], [None]):
                    raise UnexpectedError("a view of a storage, which torch has not written since 2018")
                storage = Storage(storage_type(kind), str(key), count, self._big_endian)
                known = self.by_key.setdefault(storage.key, storage)
                if (known.dtype, known.count) != (storage.dtype, count):  # torch takes the first
                    raise UnexpectedError(f"storage {key!r:.40} described in two ways")
                return known
            case ("module", Name() as kind, *_):  # with the source code of its class, which is not looked at
                return kind
        raise UnexpectedError("a storage without a size")


def _width(storage: Storage) -> int:
    """Bytes of an element."""
    if storage.dtype not in (*_QUANTIZED, *STORAGES.values()):
        raise UnexpectedError(f"a storage of type {storage.dtype:.40}")
    return _QUANTIZED.get(storage.dtype) or np.dtype(storage.dtype).itemsize


def _zip(archive: ZipFile, data: BinaryIO, size: int) -> Container:
    members = {member.filename: member for member in archive.infolist()}
    starts = _check_members(archive.infolist(), data, size)
    root = next(iter(members), "").partition("/")[0]
    if f"{root}/constants.pkl" in members:
        raise CheckpointError(
            f"{data.name}: a program of TorchScript; only state dicts and modules of Python are read",
            hint=written_by_torch(Path(data.name), "torch.jit.load({!r}).state_dict()", "weights"),
        )
    order = archive.read(members[f"{root}/byteorder"]) if f"{root}/byteorder" in members else b"little"
    if order not in (b"little", b"big"):
        raise UnexpectedError(f"bytes in the order {order[:20]!r}")
    storages, member = _Storages(order == b"big"), members[f"{root}/data.pkl"]
    if member.compress_type == ZIP_STORED:
        data.seek(starts[member.filename])
        pickled = follow(data, starts[member.filename] + member.file_size, storages.resolve, more=size)
    else:
        pickle = archive.read(member)
        pickled = follow(BytesIO(pickle), len(pickle), storages.resolve, base=size, more=size)
    places: dict[str, Place] = {}
    for key, storage in storages.by_key.items():
        record, expected = members[f"{root}/data/{key}"], storage.count * _width(storage)
        if record.file_size != expected:
            raise ValueError(f"record {record.filename} has {record.file_size:,} bytes, expected {expected:,}")
        if record.compress_type == ZIP_STORED:
            places[key] = Span(starts[record.filename], expected)
        else:
            places[key] = Compressed(expected, partial(_inflated, Path(data.name), record))
    return Container(pickled, places)


def _inflated(file: Path, record: ZipInfo) -> bytes:
    try:
        with ZipFile(file) as archive:
            return archive.read(record)
    except (*_BROKEN, OSError) as error:
        raise CheckpointError(f"{file}: {record.filename} cannot be unpacked ({error})", hint=DAMAGED) from error


def _check_members(members: list[ZipInfo], data: BinaryIO, size: int) -> dict[str, int]:
    """Where the data of each member begin. Their headers agree, and no two lie over each other."""
    if len({member.filename.lower() for member in members}) < len(members):  # torch does not look at the case
        raise ValueError("two of its members have the same name")
    if sum(member.file_size for member in members) > MAX_INFLATION * size:
        raise ValueError(
            "its members are compressed to a fourth or less; torch stores them as they are. Write it again: "
            "torch.save(torch.load(FILE), FILE)"
        )
    starts, end = {}, 0
    for member in sorted(members, key=lambda member: member.header_offset):
        data.seek(member.header_offset)
        signature, flags, method, lengths = unpack("<4s2x2H16xI", data.read(_HEADER_BYTES))
        name = data.read(lengths & 0xFFFF).decode("utf-8" if flags & _UTF8 else "cp437")
        if signature != b"PK\x03\x04" or name != member.orig_filename or method != member.compress_type:
            raise ValueError(f"the two headers of {member.filename!r:.80} differ")
        # torch reads nothing of a member that is marked as a folder, and leaves memory as it is
        if member.external_attr & _FOLDER or flags & _ENCRYPTED or method not in (ZIP_STORED, ZIP_DEFLATED):
            raise ValueError(f"{member.filename!r:.80} is marked as a folder, encrypted or compressed in another way")
        if method == ZIP_STORED and member.compress_size != member.file_size:
            raise ValueError(
                f"{member.filename!r:.80} is stored in {member.compress_size:,} bytes of {member.file_size:,}"
            )
        if member.header_offset < end:
            raise ValueError("its members overlap")
        starts[member.filename] = member.header_offset + _HEADER_BYTES + (lengths & 0xFFFF) + (lengths >> 16)
        end = starts[member.filename] + member.compress_size
    if end > size:
        raise ValueError("its members reach past its end")
    return starts


def _legacy(data: BinaryIO, size: int) -> Container:
    """Five pickles (magic number, protocol, system, the object, the storages' keys), and the storages."""
    storages = _Storages()
    magic, protocol, _, pickled, keys = (follow(data, size, storages.resolve) for _ in range(5))
    if magic.value != _MAGIC or protocol.value != _PROTOCOL:
        raise UnexpectedError("another beginning than PyTorch's files")
    places: dict[str, Place] = {}
    for key in keys.value:
        storage = storages.by_key[key]
        places[key] = _counted(data, size, storage)
    if lacking := storages.by_key.keys() - places:
        raise ValueError(f"it does not hold storage {min(lacking)!r:.40}, which a tensor lies in")
    return Container(pickled, places)


def _bare(data: BinaryIO, size: int) -> Container:
    """A pickle by itself: NumPy's arrays, or tensors that Python's pickle wrote, each storage as a legacy file."""
    file, seen = Path(data.name), state_of(os.fstat(data.fileno()))
    places: dict[str, Place] = {}
    storages: dict[int, Storage] = {}

    def load(span: Span) -> Storage:
        if span.offset not in storages:
            position = data.tell()
            content: BinaryIO = data
            start, end = span.offset, span.offset + span.length
            if span.text:
                text = text_bytes(file, span, seen)
                content, start, end = BytesIO(text), 0, len(text)
            content.seek(start)
            inner = _legacy(content, end)
            data.seek(position)
            if not isinstance(storage := inner.pickled.value, Storage):
                raise UnexpectedError("a tensor without a storage")
            storages[span.offset] = Storage(storage.dtype, str(span.offset), storage.count)
            place = inner.places[storage.key]
            if span.text and isinstance(place, Span):
                place = Compressed(place.length, partial(_in_text, file, span, seen, place))
            places[str(span.offset)] = place
        return storages[span.offset]

    return Container(follow(data, size, load_bytes=load), places)


def _in_text(file: Path, text: Span, seen: State, place: Span) -> bytes:
    return text_bytes(file, text, seen)[place.offset : place.offset + place.length]


def _counted(data: BinaryIO, size: int, storage: Storage) -> Span:
    """A storage as a legacy file has it: the number of its elements, and the elements."""
    (count,) = unpack("<q", data.read(8))
    span = Span(data.tell(), storage.count * _width(storage))
    if count != storage.count or span.offset + span.length > size:
        raise ValueError(f"storage {storage.key!r:.40} has {count:,} elements in {size:,} bytes, not {storage.count:,}")
    data.seek(span.length, 1)
    return span


def _tar_members(data: BinaryIO) -> dict[str, int]:
    """Where the data of each member of a tar file begin. Python's tarfile allocates what a header claims."""
    members, position = {}, 0
    while data.seek(position) == position and (block := data.read(_TAR_BLOCK))[257:262] == b"ustar":
        length = int(block[124:136].strip(b" \0") or b"0", 8)
        if length < 0:
            raise ValueError("a member of negative length")
        members[block[:100].partition(b"\0")[0].decode("latin-1")] = position + _TAR_BLOCK
        position += _TAR_BLOCK * (1 - -length // _TAR_BLOCK)
    return members


def _tar(members: dict[str, int], data: BinaryIO, size: int) -> Container:
    """Storages, the tensors that lie in them, and a pickle that names the tensors by their keys."""
    places: dict[str, Place] = {}
    storages: dict[Any, Storage] = {}
    data.seek(members["storages"])
    for _ in range(follow(data, size).value):
        key, _, kind = follow(data, size).value
        as_key(key)  # hashing another key could take for ever
        (count,) = unpack("<q", data.read(8))
        data.seek(-8, 1)
        storages[key] = Storage(storage_type(kind), str(key), max(0, count))
        places[str(key)] = _counted(data, size, storages[key])
    if follow(data, size).value:
        raise UnexpectedError("views of storages, which torch has not written since 2018")
    tensors: dict[int, Array] = {}
    data.seek(members["tensors"])
    for _ in range(follow(data, size).value):
        key, storage, _ = follow(data, size).value
        as_key(storage)
        (rank,) = unpack("<i4x", data.read(8))
        if not 0 <= rank <= MAX_RANK:
            raise ValueError(f"a tensor of {rank} dimensions")
        numbers = unpack(f"<{2 * rank + 1}q", data.read(8 * (2 * rank + 1)))
        tensors[int(key)] = view(storages[storage], numbers[-1], numbers[:rank], numbers[rank:-1])
    data.seek(members["pickle"])

    def resolve(identity: Any) -> Any:
        return identity[0] if isinstance(identity, tuple) else tensors[int(identity)]

    return Container(follow(data, size, resolve), places)
