"""Paddle's files, by Python's own unpickler, which may make nothing but arrays, dictionaries and texts."""

from __future__ import annotations

import codecs
import pickle
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CheckpointError
from ..oracle.formulas import Array
from .tensor import Tensor

_TYPES = {code: f"<{code}" for code in ("f8", "f4", "f2", "i8", "i4", "i2")} | {"i1": "i1", "u1": "u1", "b1": "?"}
_TYPES["u2"] = "bfloat16"
"""NumPy's types by the codes in the pickle. `paddle.load` takes uint16 for the bits of bfloat16."""


def read_paddle(file: Path) -> dict[str, Tensor]:
    """The arrays in `file` by name.

    Raises:
        CheckpointError: it is no dictionary of arrays.
    """
    try:
        with open(file, "rb") as opened:
            content = _Unpickler(opened).load()
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__}, expected a dictionary")
        values = {key: value[1] if isinstance(value, tuple) else value for key, value in content.items()}
        arrays = {key: value for key, value in values.items() if isinstance(value, _Array)}
        return {key: Tensor(key, value.shape, partial(value.values, file, key)) for key, value in arrays.items()}
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{file}: not a pickle of arrays ({error})") from error


class _Type:
    """Stands for numpy.dtype: a code such as "f4"; its state names the order of the bytes."""

    def __init__(self, code: str, *_: object) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class _Array:
    """Stands for numpy.ndarray: its state is (version, shape, type, by columns, data)."""

    shape: tuple[int, ...] = ()

    def __init__(self, *_: object) -> None:
        self._type, self._by_columns, self._data = _Type("f4"), False, b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self._type, self._by_columns, self._data = state

    def values(self, file: Path, name: str) -> Array:
        if self._type.order == ">" or self._type.code not in _TYPES:
            raise CheckpointError(f"{file}: {name!r} is of type {self._type.order}{self._type.code}")
        flat = np.frombuffer(self._data, _TYPES[self._type.code])
        return flat.reshape(self.shape, order="F" if self._by_columns else "C")


def _from_buffer(data: bytes, kind: _Type, shape: tuple[int, ...], order: str, *_: object) -> _Array:
    """NumPy's arrays in protocol 5."""
    array = _Array()
    array.__setstate__((1, shape, kind, order == "F", data))
    return array


def _encode(text: str, encoding: str) -> bytes:
    """Bytes in protocol 2 are Latin-1 text."""
    if encoding != "latin1":
        raise ValueError(f"text in {encoding}")
    return codecs.encode(text, "latin1")


def _evaluated(text: str, names: dict[str, Any]) -> Any:
    """Paddle's way to write an array, ``eval("data", {"data": array})``: the array, without an evaluation."""
    return names[text]


_MEANT = {
    ("multiarray", "_reconstruct"): _Array,
    ("numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
    **{(module, "bytes"): lambda: b"" for module in ("builtins", "__builtin__")},
    **{(module, "tuple"): tuple for module in ("builtins", "__builtin__")},
    **{(module, "eval"): _evaluated for module in ("builtins", "__builtin__")},
}
"""What is made instead of what the pickle asks for, by the last part of a module's name and a name."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _MEANT[module.split(".")[-1], name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None
