"""PaddlePaddle's state dicts (model_state.pdparams): pickles of NumPy arrays.

They are read without running anything in the pickle, and written as ``paddle.save`` writes them, without Paddle.
Sources: paddle/framework/io.py and io_utils.py of PaddlePaddle 3.3.1, and the files that it writes in protocols 2 to 4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import Contents, Decision, Origin
from ..errors import CheckpointError
from .pickles.machine import Pickled
from .pickles.values import NOT_RUN, Array, ArrayType, kind_of, shown
from .tensor import Tensor, raw
from .torch.read import read_pickles

_NAMES = "StructuredToParameterName@@"
"""The key under which `paddle.save` keeps Paddle's own names of the parameters. It holds no tensor."""

_SLICES = "UnpackBigParamInfor@@"
"""The key that lists the tensors over 1 GiB, which protocols 2 and 3 cut up (io_utils.py, _unpack_saved_dict)."""


def read_paddle(files: tuple[Path, ...]) -> Contents:
    """The tensors of `files` by name, and the decisions on keys and types that need one.

    Raises:
        CheckpointError: a file is damaged, or is not a flat dictionary of arrays.
    """
    entries, decided, _ = read_pickles(files, _arrays)
    decisions = [*decided]
    if half := sum(entry.dtype == "bfloat16" for entry in entries.values()):
        reason = (
            f"{half} tensors are stored as NumPy's uint16, which is how Paddle writes and reads the bits of bfloat16"
        )
        decisions.append(Decision("uint16", "bfloat16", reason, Origin.FILE))
    return Contents(entries, tuple(decisions))


def _arrays(file: Path, pickled: Pickled) -> tuple[dict[str, Array], tuple[Decision, ...]]:
    """The arrays by name, and that Paddle's names are left out."""
    state = _state_dict(file, pickled.value)
    arrays = {str(name): _array(file, name, value) for name, value in state.items() if name != _NAMES}
    reason = "Paddle's own names of the parameters, which no model needs"
    return arrays, (Decision(_NAMES, "left out", reason, Origin.FILE),) if _NAMES in state else ()


def _state_dict(file: Path, value: Any) -> dict[Any, Any]:
    """`value`, if it is a dictionary whose tensors are whole."""
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: holds {kind_of(value)}, expected a dictionary of arrays. {NOT_RUN}")
    if _SLICES in value:
        raise CheckpointError(
            f"{file}: some of its tensors are cut into slices of 1 GiB, as pickle protocols 2 and 3 need",
            hint="Write it again from Paddle: paddle.save(paddle.load(FILE), FILE, protocol=4)",
        )
    return value


def _array(file: Path, name: Any, value: Any) -> Array:
    """The array in `value`. Paddle 2.1 and later may write a tensor as (its own name, its array)."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]
    if not isinstance(value, Array) or not isinstance(name, str):
        raise CheckpointError(
            f"{file}: {shown(name)} is {kind_of(value)}; expected a flat dictionary of arrays by name. {NOT_RUN}",
            hint="Save the model's own state dict: paddle.save(model.state_dict(), 'model_state.pdparams').",
        )
    if value.type and value.type.name == "uint16":  # NumPy has no bfloat16, so Paddle keeps its bits in this type
        return replace(value, type=ArrayType("bfloat16", value.type.big_endian))
    return value


DTYPES = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint8": "u1",
    "bool": "b1",
}
"""NumPy's codes of the element types that Paddle has."""

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
    return _named("numpy", "dtype") + _text(DTYPES[dtype]) + _FALSE + _TRUE + b"\x87" + _REDUCE + state + _BUILD
