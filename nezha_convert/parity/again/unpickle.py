"""Python's own unpickler, which may make nothing but tensors, arrays and plain values.

It is the one of Python's library that is written in Python: joblib's arrays lie between the steps of the pickle.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np


class Inert:
    """Stands for an object of an unknown class. Whatever a pickle does with it changes it alone."""

    state: Any = None
    dump_patches = False  # torch asks classes whose source code it finds changed

    def __new__(cls, *arguments: Any, **_: Any) -> Inert:
        """Keep what the class would be called with."""
        made = super().__new__(cls)
        made.arguments, made.pairs, made.listed = arguments, {}, []
        return made

    arguments: tuple[Any, ...]
    pairs: dict[Any, Any]
    listed: list[Any]

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *arguments: Any) -> Inert:
        """What a call gives: another one."""
        return Inert(*arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.pairs[key] = value

    def append(self, value: Any) -> None:
        """Keep an item, for a class that is a kind of list or set."""
        self.listed.append(value)

    add = append

    def fields(self, left: list[int]) -> dict[Any, Any]:
        """What it holds by name; of a module, its tensors as its state dict names them.

        Args:
            left: how many characters of names there may still be: modules may hold each other many times.

        Raises:
            ValueError: there are more.
        """
        state = self.state if isinstance(self.state, dict) else {}
        return dict(self._tensors(left)) if "_modules" in state else {**self.pairs, **state}

    def _tensors(self, left: list[int], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
        parts = [getattr(self.state.get(name), "pairs", self.state.get(name)) for name in _PARTS]
        tensors, buffers, modules = (part if isinstance(part, dict) else {} for part in parts)
        passing = self.state.get("_non_persistent_buffers_set") or ()
        passing = passing if isinstance(passing, set | frozenset) else getattr(passing, "listed", ())
        left[0] -= (64 + len(prefix)) * (1 + len(tensors) + len(buffers) + len(modules)) + 8 * len(passing)
        if left[0] < 0 or depth > _MAX_DEPTH:
            raise ValueError("its modules hold each other too often")
        left_out = {name for name in passing if isinstance(name, str)}
        for name, value in (*tensors.items(), *buffers.items()):
            if value is not None and isinstance(name, str) and name not in left_out:
                yield f"{prefix}{name}", value
        for name, inner in modules.items():
            if isinstance(inner, Inert) and isinstance(inner.state, dict) and isinstance(name, str):
                yield from inner._tensors(left, f"{prefix}{name}.", depth + 1)


_PARTS, _MAX_DEPTH = ("_parameters", "_buffers", "_modules"), 64


class Unpickler(pickle._Unpickler):
    """Makes plain tensors, arrays and containers, and of everything else `Inert`."""

    def __init__(self, data: Any, is_bare: bool = False, **_: Any) -> None:
        super().__init__(data, encoding="utf-8", errors="surrogateescape")
        self._data, self._is_bare = data, is_bare

    def load_build(self) -> None:
        """Give an object its state. The data of joblib's array follow its state."""
        super().load_build()  # type: ignore[misc]
        if isinstance(wrapper := self.stack[-1], _Joblib):  # type: ignore[attr-defined]
            self.stack[-1] = wrapper.read(self._data)  # type: ignore[attr-defined]

    dispatch: ClassVar = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}  # type: ignore[dict-item]

    def find_class(self, module: str, name: str) -> Any:
        """The class or function that stands for ``module.name``."""
        import torch

        if module == "torch" and isinstance(kind := getattr(torch, name, None), torch.dtype):
            return kind
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return getattr(torch, name, None) or getattr(torch.storage, name)
        if name == "_load_from_bytes" and not self._is_bare:  # the first reader has not looked into that file
            return Inert
        return _safe().get((module.split(".")[0], name)) or type(name, (Inert,), {"__module__": module})


@cache
def _safe() -> dict[tuple[str, str], Any]:
    """What stands for a name, by the first part of its module: functions that make values of what they are given."""
    import torch
    from torch import Size

    rebuild = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
    return {
        **{("torch", name): _view for name in rebuild},
        ("torch", "_rebuild_parameter"): lambda tensor, *_: tensor,
        ("torch", "_rebuild_parameter_with_state"): lambda tensor, *_: tensor,
        ("torch", "_rebuild_from_type_v2"): lambda function, _, arguments, *__: function(*arguments),
        ("torch", "_load_from_bytes"): lambda data: torch.load(io.BytesIO(data), weights_only=True),
        ("torch", "Parameter"): lambda *values: values[0] if values else Inert(),
        ("torch", "Size"): Size,
        **_PLAIN,
    }


def _view(storage: Any, start: int, sizes: Any, strides: Any, *more: Any) -> Any:
    """A tensor in a storage. torch makes a storage larger, for a tensor that does not lie inside of it."""
    import torch

    if more[2:] and isinstance(more[-1], dict) and more[-1]:  # a conjugate or negative view
        return Inert()
    kind = next((one for one in more if isinstance(one, torch.dtype)), storage.dtype)
    held = getattr(storage, "_untyped_storage", storage)
    reach = start + 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if min(start, *sizes, *strides, 0) < 0 or (0 not in sizes and reach * kind.itemsize > held.nbytes()):
        raise ValueError("a tensor outside of its storage")
    return torch.empty(0, dtype=kind).set_(held, start, tuple(sizes), tuple(strides))


class _Type:
    """An element type of NumPy. NumPy's own would take any state, and one that no type has may do harm."""

    def __init__(self, code: Any, *_: Any) -> None:
        name = code if isinstance(code, str) else code.__name__
        self.dtype = np.dtype(name) if re.fullmatch(r"[<>|=]?[a-z]\w*", name, re.ASCII) else None

    def __setstate__(self, state: Any) -> None:
        if self.dtype and state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Array(np.ndarray):
    """An array that takes its data and no other state. One of objects or texts stays empty."""

    def __setstate__(self, state: Any, /) -> None:
        _, shape, kind, by_columns, data = state
        if kind.dtype:
            state = (1, shape, kind.dtype, bool(by_columns), _bytes(data))
            super().__setstate__(state)


class _Joblib(Inert):
    """joblib's NumpyArrayWrapper (joblib/numpy_pickle.py), whose array follows it in the file."""

    def read(self, data: Any) -> Any:
        """The array: bytes of padding, after their number where the file has one, then those of the elements."""
        kind, shape = self.state["dtype"], self.state["shape"]
        if not kind.dtype:
            raise ValueError("an array that holds no numbers")
        if self.state.get("numpy_array_alignment_bytes") is not None:
            data.read(data.read(1)[0])
        values = np.frombuffer(data.read(math.prod(shape) * kind.dtype.itemsize), kind.dtype)
        return values.reshape(shape, order=self.state["order"])


def _bytes(data: Any) -> Any:
    return data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data  # of Python 2


def _from_buffer(data: Any, kind: _Type, shape: Any, order: Any, *_: object) -> Any:
    return np.frombuffer(data, kind.dtype).reshape(shape, order=order) if kind.dtype else Inert()


def _scalar(kind: _Type, data: Any) -> Any:
    return np.frombuffer(_bytes(data), kind.dtype)[0] if kind.dtype else Inert()


_BUILTINS = ("builtins", "__builtin__")

_PLAIN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "Counter"): dict,
    ("collections", "defaultdict"): lambda *_: {},
    **{(module, "set"): set for module in _BUILTINS},
    **{(module, "frozenset"): frozenset for module in _BUILTINS},
    **{(module, "tuple"): lambda *values: tuple(*values) for module in _BUILTINS},
    **{(module, "bytes"): lambda: b"" for module in _BUILTINS},
    # Paddle's way to write an array, eval("data", {"data": array}): the array, without an evaluation
    **{(module, "eval"): lambda text, names: names[text] for module in _BUILTINS},
    ("_codecs", "encode"): lambda text, *_: text.encode("latin-1"),
    ("numpy", "_reconstruct"): lambda *_: _Array((0,), "b"),
    ("numpy", "_frombuffer"): _from_buffer,
    ("numpy", "dtype"): _Type,
    ("numpy", "scalar"): _scalar,
    ("joblib", "NumpyArrayWrapper"): _Joblib,
}

STAND_INS = SimpleNamespace(__name__=__name__, Unpickler=Unpickler, load=lambda data, **_: Unpickler(data).load())
"""What `torch.load` takes as its module for pickles."""
