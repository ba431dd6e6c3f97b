"""PaddlePaddle's state dicts (model_state.pdparams): pickles of NumPy arrays.

They are read without running anything in the pickle, and written as ``paddle.save`` writes them, without Paddle.
Sources: paddle/framework/io.py and io_utils.py of PaddlePaddle 3.3.1, and the files that it writes in protocols 2 to 4.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Iterable, Iterator
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import Decision, Origin, TensorEntry
from ..errors import CheckpointError
from ..files.state import State
from .blocks import file_blocks, is_shape, rows_within
from .pickles.arrays import Array, Span
from .pickles.machine import DAMAGED, read_pickle
from .tensor import Tensor, raw

_NAMES = "StructuredToParameterName@@"
"""The key under which `paddle.save` keeps Paddle's own names of the parameters. It holds no tensor."""

_SLICES = "UnpackBigParamInfor@@"
"""The key that lists the tensors over 1 GiB, which protocols 2 and 3 cut up (io_utils.py, _unpack_saved_dict)."""

DTYPES = {
    "f8": "float64",
    "f4": "float32",
    "f2": "float16",
    "i8": "int64",
    "i4": "int32",
    "i2": "int16",
    "i1": "int8",
    "u2": "bfloat16",
    "u1": "uint8",
    "b1": "bool",
}
"""Element types by NumPy's codes. NumPy has no bfloat16: Paddle writes its bits as "u2", and reads "u2" as bfloat16."""


def read_paddle(files: tuple[Path, ...]) -> tuple[dict[str, TensorEntry], tuple[Decision, ...]]:
    """The tensors of `files` by name, and the decisions on keys and types that need one.

    Raises:
        CheckpointError: a file is damaged, asks for code to be run, or is not a flat dictionary of arrays.
    """
    entries: dict[str, TensorEntry] = {}
    named = 0
    for number, file in enumerate(files):
        loaded, seen = read_pickle(file)
        state = _state_dict(file, loaded)
        named += _NAMES in state
        state.pop(_NAMES, None)
        for name, value in state.items():
            if name in entries:
                raise CheckpointError(f"{file}: {name!r} is in another shard too")
            entries[name] = _entry(file, number, name, _array(file, name, value), seen)
    decisions = []
    if named:
        decisions.append(
            Decision(_NAMES, "left out", "Paddle's own names of the parameters, which no model needs", Origin.FILE)
        )
    if half := sum(entry.dtype == "bfloat16" for entry in entries.values()):
        reason = (
            f"{half} tensors are stored as NumPy's uint16, which is how Paddle writes and reads the bits of bfloat16"
        )
        decisions.append(Decision("uint16", "bfloat16", reason, Origin.FILE))
    return entries, tuple(decisions)


def _state_dict(file: Path, loaded: Any) -> dict[str, Any]:
    """`loaded`, if it is a dictionary whose tensors are whole."""
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{file}: holds a {type(loaded).__name__}, expected a dictionary of arrays")
    if _SLICES in loaded:
        raise CheckpointError(
            f"{file}: some of its tensors are cut into slices of 1 GiB, as pickle protocols 2 and 3 need",
            hint="Write it again from Paddle: paddle.save(paddle.load(FILE), FILE, protocol=4)",
        )
    return loaded


def _array(file: Path, name: str, value: Any) -> Array:
    """The array in `value`. Paddle 2.1 and later may write a tensor as (its own name, its array)."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]
    if not isinstance(value, Array):
        raise CheckpointError(
            f"{file}: {name!r} is a {type(value).__name__}; expected a flat dictionary of arrays by name",
            hint="Save the model's own state dict: paddle.save(model.state_dict(), 'model_state.pdparams').",
        )
    return value


def _entry(file: Path, number: int, name: str, array: Array, seen: State) -> TensorEntry:
    if array.type is None or array.data is None:
        raise CheckpointError(f"{file}: {name!r} is an array without data", hint=DAMAGED)
    code, order, data, shape = array.type.code, array.type.order, array.data, array.shape
    if code not in DTYPES or order not in ("<", "=", "|"):
        raise CheckpointError(f"{file}: {name!r} is of type {order + code!r}; expected one of {', '.join(DTYPES)}")
    if array.by_columns and len(shape) > 1:
        raise CheckpointError(f"{file}: {name!r} is stored by columns, which Paddle does not do")
    if not is_shape(shape):
        raise CheckpointError(f"{file}: {name!r} has a shape that no array has: {list(shape[:8])}")
    dtype = np.dtype(DTYPES[code])
    nbytes = prod(shape) * dtype.itemsize
    # As text, a byte takes one byte or two: the exact number is only known once the text is read.
    if data.length != nbytes if not data.text else not nbytes <= data.length <= 2 * nbytes:
        raise CheckpointError(
            f"{file}: {name!r} has shape {list(shape)} of {dtype}, {nbytes} bytes; the file has {data.length} for it",
            hint=DAMAGED,
        )
    if data.text:
        stream = partial(_text_blocks, file, data, dtype, shape, seen=seen)
    else:
        stream = partial(file_blocks, file, data.offset, dtype, shape, seen=seen)
    return TensorEntry(name, dtype.name, shape, nbytes, stream, (number, data.offset))


def _text_blocks(
    file: Path, data: Span, dtype: np.dtype, shape: tuple[int, ...], limit: int, seen: State
) -> Iterator[np.ndarray]:
    """Like `file_blocks`, for data that protocol 2 has written as text.

    Raises:
        CheckpointError: the file cannot be read, or the text is not that of the tensor's bytes.
    """
    left = nbytes = prod(shape) * dtype.itemsize
    size = rows_within(shape, dtype.itemsize, limit) * (nbytes // max(1, shape[0])) if shape else nbytes
    decoder = codecs.getincrementaldecoder("utf-8")()
    ready = bytearray()
    try:
        for part in file_blocks(file, data.offset, np.dtype("uint8"), (data.length,), max(1, min(size, nbytes)), seen):
            ready += decoder.decode(part.tobytes()).encode("latin-1")
            while left and len(ready) >= min(size, left):
                block = np.frombuffer(bytes(ready[: min(size, left)]), dtype)
                del ready[: block.nbytes]
                left -= block.nbytes
                yield block.reshape(-1, *shape[1:]) if shape else block[0]
        decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise CheckpointError(f"{file}: cannot be read ({error})", hint=DAMAGED) from error
    if left or ready:
        raise CheckpointError(f"{file}: the text of a tensor has another length than its shape", hint=DAMAGED)


_CODES = {name: code for code, name in DTYPES.items()}
_MARK, _TUPLE, _REDUCE, _BUILD = b"(", b"t", b"R", b"b"
_NONE, _FALSE, _TRUE = b"N", b"\x89", b"\x88"


def write_paddle(file: Path, tensors: Iterable[Tensor]) -> None:
    """Write `tensors` as a state dict that ``paddle.load`` and PaddleNLP's ``from_pretrained`` read.

    It is a pickle of protocol 4: a dictionary of NumPy arrays, each as NumPy itself reduces it (io.py, _legacy_save).
    NumPy's modules have their names from before version 2, which every version reads.

    Raises:
        KeyError: Paddle does not have the type of a tensor.
        OSError: the file cannot be written.
    """
    with open(file, "wb") as out:
        out.write(b"\x80\x04}" + _MARK)
        for tensor in tensors:
            nbytes = prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
            out.write(_text(tensor.name) + _blank() + _MARK + _number(1) + _sizes(tensor.shape))
            out.write(_type(tensor.dtype) + _FALSE + b"\x8e" + struct.pack("<Q", nbytes))
            for block in tensor.blocks:
                out.write(raw(block))
            out.write(_TUPLE + _BUILD)
        out.write(b"u.")


def _text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _number(value: int) -> bytes:
    digits = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(digits)]) + digits


def _sizes(shape: tuple[int, ...]) -> bytes:
    return _MARK + b"".join(map(_number, shape)) + _TUPLE


def _named(module: str, name: str) -> bytes:
    return _text(module) + _text(name) + b"\x93"


def _blank() -> bytes:
    """``_reconstruct(ndarray, (0,), b"b")``: an empty array, which its state fills."""
    arguments = _named("numpy", "ndarray") + _sizes((0,)) + b"C\x01b" + b"\x87"
    return _named("numpy.core.multiarray", "_reconstruct") + arguments + _REDUCE


def _type(dtype: str) -> bytes:
    """``dtype(code, False, True)``, little-endian."""
    state = _MARK + _number(3) + _text("<") + 3 * _NONE + 2 * _number(-1) + _number(0) + _TUPLE
    return _named("numpy", "dtype") + _text(_CODES[dtype]) + _FALSE + _TRUE + b"\x87" + _REDUCE + state + _BUILD
