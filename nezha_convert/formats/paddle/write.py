"""PaddlePaddle state dicts (model_state.pdparams), written as ``paddle.save`` writes them: streamed, without Paddle.

A pickle of protocol 4: a dictionary of NumPy arrays, each as NumPy itself reduces it (paddle/framework/io.py,
_legacy_save, of PaddlePaddle 3.3.1). NumPy's modules are named as before version 2, so that every version reads them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from math import prod
from pathlib import Path

import numpy as np

from ..tensor import Tensor, raw

_CODES = {
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
"""Paddle writes bfloat16 as the uint16 of its bits, and reads that back as bfloat16."""

_MARK, _TUPLE, _REDUCE, _BUILD = b"(", b"t", b"R", b"b"


def write_paddle(file: Path, tensors: Iterable[Tensor]) -> None:
    """Write `tensors` as a state dict that ``paddle.load`` and PaddleNLP's ``from_pretrained`` read.

    Raises:
        KeyError: a type that Paddle does not have.
        OSError: the file cannot be written.
    """
    with open(file, "wb") as out:
        out.write(b"\x80\x04}" + _MARK)
        for tensor in tensors:
            out.write(_text(tensor.name) + _blank() + _MARK + _number(1) + _sizes(tensor.shape))
            out.write(_type(tensor.dtype) + _FALSE + b"\x8e" + struct.pack("<Q", _nbytes(tensor)))
            for block in tensor.blocks:
                out.write(raw(block))
            out.write(_TUPLE + _BUILD)
        out.write(b"u.")


_NONE, _FALSE, _TRUE = b"N", b"\x89", b"\x88"


def _nbytes(tensor: Tensor) -> int:
    return prod(tensor.shape) * np.dtype(tensor.dtype).itemsize


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
    """``_reconstruct(ndarray, (0,), b"b")``: an array that its state fills."""
    arguments = _named("numpy", "ndarray") + _sizes((0,)) + b"C\x01b" + b"\x87"
    return _named("numpy.core.multiarray", "_reconstruct") + arguments + _REDUCE


def _type(dtype: str) -> bytes:
    """``dtype(code, False, True)``, little-endian."""
    state = _MARK + _number(3) + _text("<") + 3 * _NONE + 2 * _number(-1) + _number(0) + _TUPLE
    return _named("numpy", "dtype") + _text(_CODES[dtype]) + _FALSE + _TRUE + b"\x87" + _REDUCE + state + _BUILD
