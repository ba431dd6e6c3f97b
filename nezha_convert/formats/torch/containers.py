"""The containers of pickles: what a file holds, followed and not run, and where its storages lie.

Those of PyTorch, by torch/serialization.py and caffe2/serialize/inline_container.cc: a zip file (torch 1.6 and later);
five pickles and the data (legacy, torch 0.1 to 1.5); a tar file (torch up to 0.1.10).
"""

from __future__ import annotations

import os
import re
import zlib
from functools import partial
from io import BytesIO
from pathlib import Path
from struct import unpack
from typing import Any, BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from ...errors import CheckpointError
from ...files.state import State, check_unchanged, state_of
from ..blocks import MAX_RANK
from ..pickles.entries import DAMAGED, decoded
from ..pickles.machine import BROKEN, Pickled, follow
from ..pickles.meanings import as_key, storage_type, view, width
from ..pickles.model import written_by_torch
from ..pickles.values import NOT_RUN, Array, Compressed, Name, Span, Storage, UnexpectedError

MAX_INFLATION = 4
"""How many times a file's size its compressed members may have. Deflated weights take nine tenths of their size."""

_OLD = re.compile(rb"\(dp?\d+\n|\}q|c[\w.]+\n\w+\n(?:p\d+\n|q)")
"""How a pickle of protocol 0 or 1 begins: a dictionary, or a class. Its last byte is a full stop."""

_NEW = re.compile(rb"\x80[\x02-\x05]|L119547037146038801333356L\n\.")
"""How later ones begin, and a legacy file in protocol 1."""

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"x\x01", b"x\x9c", b"x\xda")
"""How files begin that joblib compressed."""

_ZIP, _MAGIC, _PROTOCOL = b"PK\x03\x04", 0x1950A86A20F9469CFC6C, 1001
_FOLDER, _UTF8, _ENCRYPTED = 0x10, 0x800, 1  # among a member's attributes (MS-DOS), and its flags
_HEADER_BYTES, _TAR_BLOCK = 30, 512
_TAR_PARTS = {"pickle", "storages", "tensors"}

_BROKEN = (*BROKEN, BadZipFile, NotImplementedError, RuntimeError, OverflowError, zlib.error)


def is_pickle(path: Path) -> bool:
    """Whether `path` is a file that PyTorch or Python's pickle wrote, by its content."""
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as data:
            head = data.read(_TAR_BLOCK)
            if head.startswith(_ZIP):
                with ZipFile(data) as archive:
                    return any(name.endswith("/data.pkl") for name in archive.namelist())
            if _OLD.match(head):
                data.seek(-1, os.SEEK_END)
                return data.read() == b"."
            return bool(_NEW.match(head)) or _tar_members(data).keys() >= _TAR_PARTS
    except (OSError, *_BROKEN):
        return False


def open_pickle(file: Path) -> tuple[Pickled, State]:
    """What the pickle in `file` holds, whatever its container, and the file's state.

    Raises:
        CheckpointError: it is damaged, or no pickle.
    """
    try:
        with open(file, "rb") as data:
            seen = state_of(os.fstat(data.fileno()))
            pickled = _read(data, seen)
            check_unchanged(file, seen, data.fileno())
            return pickled, seen
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error
    except UnexpectedError as error:
        raise CheckpointError(f"{file}: not a pickle of tensors: it has {error}. {NOT_RUN}", hint=DAMAGED) from error
    except _BROKEN as error:
        detail = (str(error).strip() or "no more is said").splitlines()[0]
        raise CheckpointError(
            f"{file}: cannot be read as a PyTorch file ({type(error).__name__}: {detail:.300})", hint=DAMAGED
        ) from error


def _read(data: BinaryIO, seen: State) -> Pickled:
    head, size = data.read(_HEADER_BYTES), seen[0]
    if head.startswith(_ZIP):
        with ZipFile(data) as archive:
            return _zip(archive, data, size)
    if head.startswith(_COMPRESSED):
        raise UnexpectedError("compressed data, which cannot be read by their place: write it without compression")
    if (members := _tar_members(data)).keys() >= _TAR_PARTS:
        return _tar(members, data, size)
    data.seek(0)
    # a pickle by itself: NumPy's arrays, or tensors that Python's pickle wrote, each storage as a legacy file in bytes
    pickled = follow(data, size, load_bytes=_Inner(data, seen).load)
    return _legacy(data, size) if _is_magic(pickled.value) else pickled


def _is_magic(value: Any) -> bool:
    return isinstance(value, int) and value == _MAGIC


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
        raise UnexpectedError("a storage without a name and a size")


def _zip(archive: ZipFile, data: BinaryIO, size: int) -> Pickled:
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
    for key, storage in storages.by_key.items():
        record, expected = members[f"{root}/data/{key}"], storage.count * width(storage.dtype)
        if record.file_size != expected:
            raise ValueError(f"record {record.filename} has {record.file_size:,} bytes, expected {expected:,}")
        if record.compress_type == ZIP_STORED:
            storage.place = Span(starts[record.filename], expected)
        else:
            storage.place = Compressed(expected, partial(_inflated, Path(data.name), record))
    return pickled


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
    starts, end = {}, 0
    for member in sorted(members, key=lambda member: member.header_offset):
        data.seek(member.header_offset)
        signature, flags, method, lengths = unpack("<4s2x2H16xI", data.read(_HEADER_BYTES))
        name = data.read(lengths & 0xFFFF).decode("utf-8" if flags & _UTF8 else "cp437")
        if signature != _ZIP or name != member.orig_filename or method != member.compress_type:
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
    if sum(member.file_size for member in members) > MAX_INFLATION * size:
        raise ValueError(
            "its members are compressed to a fourth or less; torch stores them as they are. Write it again: "
            "torch.save(torch.load(FILE), FILE)"
        )
    return starts


def _legacy(data: BinaryIO, size: int) -> Pickled:
    """What follows the magic number: its protocol, its system, the object, the storages' keys, and the storages."""
    storages = _Storages()
    protocol, _, pickled, keys = (follow(data, size, storages.resolve) for _ in range(4))
    if protocol.value != _PROTOCOL:
        raise UnexpectedError("another version than those of PyTorch's files")
    for key in keys.value:
        _lay_out(storages.by_key[key], data, size)
    if lacking := [key for key, storage in storages.by_key.items() if storage.place is None]:
        raise ValueError(f"it does not hold storage {min(lacking)!r:.40}, which a tensor lies in")
    return pickled


def _lay_out(storage: Storage, data: BinaryIO, size: int) -> None:
    """A storage as a legacy file has it: the number of its elements, and the elements."""
    (count,) = unpack("<q", data.read(8))
    storage.place = Span(data.tell(), storage.count * width(storage.dtype))
    if count != storage.count or storage.place.offset + storage.place.length > size:
        raise ValueError(f"storage {storage.key!r:.40} has {count:,} elements in {size:,} bytes, not {storage.count:,}")
    data.seek(storage.place.length, 1)


class _Inner:
    """Reads the legacy files that lie as bytes in a pickle of Python, one for each storage."""

    def __init__(self, data: BinaryIO, seen: State) -> None:
        self._data, self._file, self._seen = data, Path(data.name), seen
        self._storages: dict[int, Storage] = {}

    def load(self, span: Span) -> Storage:
        """The storage in the file at `span`."""
        if span.offset not in self._storages:
            position, content, start, end = self._data.tell(), self._data, span.offset, span.offset + span.length
            if span.text:
                content, start, end = BytesIO(text := self._text(span)), 0, len(text)
            content.seek(start)
            is_legacy = _is_magic(follow(content, end).value)
            storage = _legacy(content, end).value if is_legacy else None
            self._data.seek(position)
            if not isinstance(storage, Storage):
                raise UnexpectedError("a tensor without a storage")
            if span.text and isinstance(place := storage.place, Span):
                storage.place = Compressed(place.length, lambda: self._text(span)[place.offset :][: place.length])
            self._storages[span.offset] = storage
        return self._storages[span.offset]

    def _text(self, span: Span) -> bytes:
        return b"".join(decoded(self._file, span, self._seen))


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


def _tar(members: dict[str, int], data: BinaryIO, size: int) -> Pickled:
    """Storages, the tensors that lie in them, and a pickle that names the tensors by their keys."""
    storages: dict[Any, Storage] = {}
    data.seek(members["storages"])
    for _ in range(follow(data, size).value):
        key, _, kind = follow(data, size).value
        as_key(key)  # hashing another key could take for ever
        (count,) = unpack("<q", data.read(8))
        data.seek(-8, 1)
        storages[key] = Storage(storage_type(kind), str(key), max(0, count))
        _lay_out(storages[key], data, size)
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

    return follow(data, size, resolve)
