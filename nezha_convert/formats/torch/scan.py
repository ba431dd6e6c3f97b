"""Adds up what a PyTorch file would cost to load, before ``torch.load`` loads it.

``torch.load(weights_only=True)`` runs no foreign code, but it does what the pickle says: sixty bytes are enough for a
key that takes years to hash, for a storage of terabytes, or for a tensor that grows its storage. This scan follows the
same steps as torch's _weights_only_unpickler.py, and keeps of each value only its weight (how many objects it has).
"""

from __future__ import annotations

import pickletools
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple
from zipfile import ZIP_STORED, ZipFile, ZipInfo

MAX_DEPTH = 32
"""How deep tuples may be nested."""

MAX_NAME = 200
"""The most characters of a class's name. If torch refuses it, the time that takes grows with their square."""

MAX_INFLATION = 4
"""How many times a file's size its compressed members may have. Deflated weights take nine tenths of their size."""

_FOLDER = 0x10  # among a member's attributes (MS-DOS)
_LEGACY_PICKLES = 5  # magic number, protocol, system, the object, its storages' keys (torch/serialization.py)
_CODECS = ("latin1", "latin-1", "utf-8", "ascii")  # pickle writes bytes with these; others take quadratic time
_CONSTANTS = ("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "LONG1")
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_WIDTHS = {
    **dict.fromkeys(("Char", "Byte", "Bool", "Untyped", "QInt8", "QUInt8", "QUInt4x2", "QUInt2x4"), 1),
    **dict.fromkeys(("Half", "BFloat16", "Short"), 2),
    **dict.fromkeys(("Float", "Int", "QInt32"), 4),
    **dict.fromkeys(("Double", "Long", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}
"""Bytes of an element, by the name of its storage's class without "Storage"."""

_TYPES = {
    **dict.fromkeys(("uint8", "int8", "bool"), 1),
    **dict.fromkeys(("uint16", "int16", "float16", "bfloat16"), 2),
    **dict.fromkeys(("uint32", "int32", "float32"), 4),
    **dict.fromkeys(("uint64", "int64", "float64", "complex64"), 8),
    "complex128": 16,
}
"""The same by the name of torch's dtype; all others take a byte, or are not read anyway."""


class _Storage(NamedTuple):
    """A storage of `numel` elements of `width` bytes each. `kind` is its class."""

    kind: str
    numel: int
    width: int


class _Item:
    """A value on the unpickler's stack: how large it is, and what the checks need to know of it.

    Attributes:
        weight: how many objects a walk through it meets; an object that is met twice counts twice.
        depth: how deep its tuples are nested.
        constant: the number, text or GLOBAL, if it is one.
        items: the items of a tuple.
        storage: what it is, if it is a storage.
        listed: the constants that were appended to it, if it is a list.
    """

    __slots__ = ("constant", "depth", "items", "listed", "storage", "weight")

    def __init__(self, constant: Any = None, items: tuple[_Item, ...] = (), storage: _Storage | None = None) -> None:
        self.constant, self.items, self.storage = constant, items, storage
        self.listed: list[Any] = []
        self.weight: int = 1 + sum(item.weight for item in items)
        self.depth: int = 1 + max((item.depth for item in items), default=0)


def check_torch_file(file: Path) -> bool:
    """Check that the cost of loading `file` is in proportion to its size, and that it holds all of its storages.

    ``torch.load(mmap=True)`` takes a storage's bytes from where its record begins, whatever the record's size and
    compression are; and a storage that a legacy file does not hold is memory that nothing has filled.

    Returns:
        Whether all storages lie in the file as they are, so that it can be mapped into memory.

    Raises:
        ValueError: it does not pass.
        Exception: the file is damaged; the types are many.
    """
    size = file.stat().st_size
    with open(file, "rb") as data:
        if data.read(4) == b"PK\x03\x04":
            with ZipFile(data) as archive:
                return _check_zip(archive, size)
        data.seek(0)
        scan, bounded = _Scan(size), _Bounded(data, size)
        *_, keys = [scan.run(bounded) for _ in range(_LEGACY_PICKLES)]
        if lacking := scan.storages.keys() - {*keys.listed}:
            raise ValueError(f"it does not hold storage {min(lacking)!r:.40}, which a tensor lies in")
    return False


def _check_zip(archive: ZipFile, size: int) -> bool:
    """`check_torch_file` for the zip file `archive` of `size` bytes."""
    members = archive.infolist()
    if len({member.filename.lower() for member in members}) < len(members):  # torch does not look at the case
        raise ValueError("two of its members have the same name")
    if any(
        member.external_attr & _FOLDER for member in members
    ):  # torch reads nothing of it, and leaves memory as it is
        raise ValueError("one of its members is marked as a folder")
    if sum(member.compress_size for member in members) > size:
        raise ValueError("its members overlap")
    if sum(member.file_size for member in members) > MAX_INFLATION * size:
        raise ValueError(
            "its members are compressed to a fourth or less; torch stores them as they are. Write it again: "
            "torch.save(torch.load(FILE), FILE)"
        )
    root = members[0].filename.partition("/")[0]
    pickle = archive.getinfo(f"{root}/data.pkl")
    scan = _Scan(max(size, pickle.file_size))
    with archive.open(pickle) as steps:
        scan.run(_Bounded(steps, pickle.file_size))
    records = [_record(archive, f"{root}/data/{key}", storage) for key, storage in scan.storages.items()]
    return all(record.compress_type == ZIP_STORED for record in records)


def _record(archive: ZipFile, name: str, storage: _Storage) -> ZipInfo:
    """The record `name`, which must have the size of `storage`."""
    record, expected = archive.getinfo(name), storage.numel * storage.width
    if record.file_size != expected:
        raise ValueError(f"record {name} has {record.file_size:,} bytes, expected {expected:,}")
    if record.compress_type == ZIP_STORED and record.compress_size != record.file_size:
        raise ValueError(f"record {name} is stored in {record.compress_size:,} bytes, and has {expected:,}")
    archive.open(record).close()  # compares its two headers
    return record


class _Bounded:
    """A file of `size` bytes. ``read`` asks for no more than is left: Python allocates as much as is asked for."""

    def __init__(self, data: IO[bytes], size: int) -> None:
        self._data, self._left = data, size

    def read(self, count: int) -> bytes:
        return self._count(self._data.read(min(count, self._left)))

    def readline(self) -> bytes:
        return self._count(self._data.readline())

    def _count(self, data: bytes) -> bytes:
        self._left -= len(data)
        return data


class _Scan:
    """Follows the pickles of a file of `size` bytes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._most = self._budget = (1 << 20) + 8 * size
        self.storages: dict[Any, _Storage] = {}
        self._elements = 0  # in all storages

    def run(self, data: _Bounded) -> _Item:
        """Follow the pickle that begins at the position of `data` to its end, and return what it holds."""
        stack: list[_Item | None] = []  # None is a mark
        memory: dict[Any, _Item] = {}
        for step, argument, _ in pickletools.genops(data):  # type: ignore[arg-type]  # it needs only read and readline
            name = step.name
            if name in ("PROTO", "STOP"):
                continue
            if name == "MARK":
                stack.append(None)
            elif name in _CONSTANTS or name in ("SHORT_BINSTRING", "GLOBAL"):
                if name == "GLOBAL" and len(str(argument)) > MAX_NAME:
                    raise ValueError(f"it asks for a class whose name has {len(str(argument)):,} characters")
                stack.append(_Item(argument))
            elif name in ("EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"):
                stack.append(_Item())
            elif name in _TUPLES:
                self._tuple(stack, [_pop(stack) for _ in range(_TUPLES[name])][::-1])
            elif name == "TUPLE":
                self._tuple(stack, _since_mark(stack))
            elif name in ("BINPUT", "LONG_BINPUT"):
                memory[argument] = _top(stack)
            elif name in ("BINGET", "LONG_BINGET"):
                if argument not in memory:
                    raise ValueError(f"it recalls {argument}, which it did not store")
                stack.append(memory[argument])
            elif name in ("APPEND", "APPENDS"):
                self._into(stack, [_pop(stack)] if name == "APPEND" else _since_mark(stack), keys=False)
            elif name in ("SETITEM", "SETITEMS"):
                self._into(
                    stack, [_pop(stack), _pop(stack)][::-1] if name == "SETITEM" else _since_mark(stack), keys=True
                )
            elif name in ("REDUCE", "NEWOBJ"):
                arguments, function = _pop(stack), _pop(stack)
                self._call(str(function.constant), arguments)
                stack.append(_Item(items=(arguments,)))
            elif name == "BUILD":
                state = _pop(stack)
                self._tensor(state)  # torch before 0.2 sets a tensor's storage and shape this way
                _top(stack).weight += state.weight
            elif name == "BINPERSID":
                stack.append(self._storage(_pop(stack)))
            else:
                raise ValueError(f"step {name}, which a state dict does not need")
        return _top(stack)

    def _spend(self, weight: int) -> None:
        self._budget -= weight
        if self._budget < 0:
            raise ValueError(f"loading it takes more steps than {self._size:,} bytes can need")

    def _tuple(self, stack: list[_Item | None], items: list[_Item]) -> None:
        made = _Item(items=tuple(items))
        if made.depth > MAX_DEPTH:
            raise ValueError(f"tuples nested more than {MAX_DEPTH} deep")
        self._limit(made)
        stack.append(made)

    def _into(self, stack: list[_Item | None], items: list[_Item], *, keys: bool) -> None:
        target = _top(stack)
        target.weight += sum(item.weight for item in items)
        self._limit(target)
        target.listed += [] if keys else [item.constant for item in items]
        if keys:
            self._spend(sum(key.weight for key in items[::2]))  # each is hashed

    def _limit(self, item: _Item) -> None:
        if item.weight > self._most:
            raise ValueError(f"one object of {item.weight:,} parts in {self._size:,} bytes")

    def _call(self, function: str, arguments: _Item) -> None:
        self._spend(arguments.weight)
        if len(function) > MAX_NAME:
            raise ValueError(f"it calls a text of {len(function):,} characters")
        name = function.split(" ")[-1].split(".")[-1]
        if name == "bytearray" or name.endswith(("Tensor", "Storage")):
            raise ValueError(f"it makes a {name} out of nothing but its size")
        if name == "encode" and not (len(arguments.items) == 2 and arguments.items[1].constant in _CODECS):
            raise ValueError("it encodes a text in a way that pickle does not")
        if name.startswith("_rebuild_tensor"):
            self._tensor(arguments)

    def _storage(self, identity: _Item) -> _Item:
        """A storage by ("storage", type, key, location, number of elements[, view])."""
        if identity.items and identity.items[0].constant == "module":  # a pickled module, which torch refuses by name
            return _Item()
        if (
            len(identity.items) not in (5, 6)
            or identity.items[0].constant != "storage"
            or type(identity.items[4].constant) is not int
        ):
            raise ValueError("a storage without a size")
        kind, key, numel = (item.constant for item in (*identity.items[1:3], identity.items[4]))
        width = _WIDTHS.get(str(kind).split(" ")[-1].removesuffix("Storage"))
        if width is None or not isinstance(key, str):
            raise ValueError(f"a storage of type {kind!r:.40} under the key {key!r:.40}")
        if any(item.constant is not None or item.items for item in identity.items[5:]):
            raise ValueError("a view of a storage, which torch has not written since 2018")
        storage = _Storage(str(kind), numel, width)
        if key not in self.storages:
            self._elements += max(0, numel)
        if self.storages.setdefault(key, storage) != storage:  # torch takes the first, whatever the others say
            raise ValueError(f"storage {key!r:.40} is described in two ways")
        if numel < 0 or self._elements > self._size:
            raise ValueError(f"storages of {self._elements:,} elements in {self._size:,} bytes")
        return _Item(storage=storage)

    def _tensor(self, arguments: _Item) -> None:
        """Check a tensor, if `arguments` are its (storage, offset, sizes, strides, ...[, dtype, ...])."""
        if len(arguments.items) < 4 or arguments.items[0].storage is None:
            return
        storage = arguments.items[0].storage
        offset, sizes, strides = arguments.items[1:4]
        dtype = str(arguments.items[6].constant).split(" ")[-1] if len(arguments.items) > 6 else ""
        width = _TYPES.get(dtype, storage.width)
        shape, steps = ([item.constant for item in values.items] for values in (sizes, strides))
        numbers = [offset.constant, *shape, *steps]
        if len(shape) != len(steps) or not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("a tensor whose place in its storage is not given by numbers")
        reach = offset.constant + sum((size - 1) * step for size, step in zip(shape, steps, strict=True)) + 1
        past = all(shape) and reach * width > storage.numel * storage.width
        if prod(max(1, size) for size in shape) > self._size or past:
            raise ValueError(f"a tensor of shape {shape[:8]} in a storage of {storage.numel:,} elements")


def _pop(stack: list[_Item | None]) -> _Item:
    item = stack.pop() if stack else None
    if item is None:
        raise ValueError("it takes more than there is")
    return item


def _top(stack: list[_Item | None]) -> _Item:
    stack.append(item := _pop(stack))
    return item


def _since_mark(stack: list[_Item | None]) -> list[_Item]:
    items: list[_Item] = []
    while stack:
        item = stack.pop()
        if item is None:
            return items[::-1]
        items.append(item)
    raise ValueError("it takes more than there is")
