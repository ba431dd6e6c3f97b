"""PyTorch state dicts (pytorch_model.bin), written as ``torch.save`` writes them, but streamed and without torch.

Since 1.6 the file is a zip file without compression. ``data.pkl`` is a pickle of the dictionary, in which each tensor
names its storage; each storage is a record whose data begins at a multiple of 64 bytes (torch/serialization.py;
caffe2/serialize/inline_container.cc). Before, it was a row of pickles and then the storages, which torch 1.1 reads, and
every later one (torch/serialization.py of 1.1.0, ``_save``).
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from itertools import accumulate
from math import prod
from operator import mul
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from ..pickles.meanings import STORAGES
from ..tensor import Tensor, raw

_ALIGNMENT = 64
_STORAGES = {dtype: kind for kind, dtype in reversed(STORAGES.items())}
"""The class of a storage by its element type; bytes have the first one of two."""

_LOCAL_HEADER_BYTES = 30
_ZIP64_BYTES = 20
"""The extra field for 64-bit sizes, which zipfile adds to every record with ``force_zip64``."""


def write_torch(file: Path, tensors: Iterable[Tensor]) -> None:
    """Write `tensors` as a state dict that ``torch.load(weights_only=True)`` reads, mapped into memory or not.

    Raises:
        KeyError: PyTorch does not have the type of a tensor.
        OSError: the file cannot be written.
    """
    tensors = list(tensors)
    with ZipFile(file, "w", ZIP_STORED, allowZip64=True) as archive:
        _store(archive, file.stem, "data.pkl", [np.frombuffer(_pickled(tensors), np.uint8)])
        _store(archive, file.stem, "byteorder", [np.frombuffer(b"little", np.uint8)])
        for number, tensor in enumerate(tensors):
            _store(archive, file.stem, f"data/{number}", tensor.blocks)
        _store(archive, file.stem, "version", [np.frombuffer(b"3\n", np.uint8)])


_LEGACY = (
    0x1950A86A20F9469CFC6C,  # what torch knows it by
    1001,
    {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}},
)
"""The first three pickles of a file before 1.6."""


def write_legacy(file: Path, tensors: Iterable[Tensor]) -> None:
    """Write `tensors` as a state dict in the format before 1.6, as torch 1.1 needs it.

    Raises:
        KeyError: PyTorch does not have the type of a tensor.
        OSError: the file cannot be written.
    """
    tensors = list(tensors)
    keys = [str(number) for number in range(len(tensors))]
    with open(file, "wb") as out:
        for value in _LEGACY:
            out.write(pickle.dumps(value, 2))
        out.write(_pickled(tensors, view=pickle.NONE) + pickle.dumps(keys, 2))
        for tensor in tensors:
            out.write(prod(tensor.shape).to_bytes(8, "little"))
            for block in tensor.blocks:
                out.write(raw(block))


def _store(archive: ZipFile, root: str, name: str, blocks: Iterable[np.ndarray]) -> None:
    record = ZipInfo(f"{root}/{name}")  # dated 1980, so that equal models give equal files
    assert archive.fp is not None
    position = archive.fp.tell() + _LOCAL_HEADER_BYTES + len(record.filename.encode()) + _ZIP64_BYTES + 4
    padding = -position % _ALIGNMENT
    record.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    with archive.open(record, "w", force_zip64=True) as data:
        for block in blocks:
            data.write(raw(block))


def _pickled(tensors: Iterable[Tensor], view: bytes = b"") -> bytes:
    """The pickled dictionary of the tensors, in protocol 2, as ``torch.save`` writes it; `view` ends each storage."""
    items = b"".join(_value(tensor.name) + _rebuilt(number, tensor, view) for number, tensor in enumerate(tensors))
    return pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS + pickle.STOP


def _rebuilt(number: int, tensor: Tensor, view: bytes) -> bytes:
    """torch._utils._rebuild_tensor_v2(storage, offset 0, shape, strides, requires_grad False, hooks OrderedDict())."""
    count = prod(tensor.shape)
    storage = _value("storage") + _name("torch", _STORAGES[tensor.dtype]) + _value(str(number)) + _value("cpu")
    sizes = [max(1, size) for size in tensor.shape[:0:-1]]  # torch counts an empty dimension as 1 in strides
    strides = tuple(accumulate(sizes, mul, initial=1))[::-1] if tensor.shape else ()
    return b"".join(
        (
            _name("torch._utils", "_rebuild_tensor_v2"),
            pickle.MARK,
            *(pickle.MARK, storage, _value(count), view, pickle.TUPLE, pickle.BINPERSID),
            *(_value(0), _value(tensor.shape), _value(strides), pickle.NEWFALSE),
            *(_name("collections", "OrderedDict"), pickle.EMPTY_TUPLE, pickle.REDUCE),
            pickle.TUPLE,
            pickle.REDUCE,
        )
    )


def _value(value: Any) -> bytes:
    """The steps of a number, a text or a tuple of numbers: a pickle without its header and STOP."""
    return pickle.dumps(value, 2)[2:-1]


def _name(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()
