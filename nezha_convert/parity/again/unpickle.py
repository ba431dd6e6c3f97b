"""Python's own unpickler, which may make nothing but tensors, arrays and plain values."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np


class Inert:
    """Stands for an object of an unknown class. Whatever a pickle does with it changes it alone."""

    state: Any = None

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

    @property
    def fields(self) -> dict[Any, Any]:
        """What it holds by name; of a module, its tensors as its state dict names them."""
        state = self.state if isinstance(self.state, dict) else {}
        if "_modules" not in state:
            return {**self.pairs, **state}
        passing = getattr(state.get("_non_persistent_buffers_set"), "listed", state.get("_non_persistent_buffers_set"))
        fields = {**state["_parameters"], **state.get("_buffers", {})}
        fields = {name: value for name, value in fields.items() if value is not None and name not in (passing or ())}
        for name, inner in state["_modules"].items():
            fields |= {f"{name}.{key}": value for key, value in inner.fields.items()} if inner is not None else {}
        return fields


class Unpickler(pickle.Unpickler):
    """Makes plain tensors, arrays and containers, and of everything else `Inert`."""

    def __init__(self, data: Any, **_: Any) -> None:
        super().__init__(data, encoding="utf-8", errors="surrogateescape")

    def find_class(self, module: str, name: str) -> Any:
        """The class or function that stands for ``module.name``."""
        import torch

        if module == "torch" and isinstance(kind := getattr(torch, name, None), torch.dtype):
            return kind
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return getattr(torch, name, None) or getattr(torch.storage, name)
        return _safe().get((module.split(".")[0], name)) or type(name, (Inert,), {"__module__": module})


@cache
def _safe() -> dict[tuple[str, str], Any]:
    """What stands for a name, by the first part of its module: functions that make values of what they are given."""
    import torch
    from torch import Size, _utils

    rebuild = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")
    return {
        **{("torch", name): getattr(_utils, name) for name in rebuild},
        ("torch", "_rebuild_parameter_with_state"): lambda tensor, *_: tensor,
        ("torch", "_rebuild_from_type_v2"): lambda function, _, arguments, *__: function(*arguments),
        ("torch", "_load_from_bytes"): lambda data: torch.load(io.BytesIO(data), weights_only=True),
        ("torch", "Parameter"): lambda *values: values[0] if values else Inert(),
        ("torch", "Size"): Size,
        **_PLAIN,
    }


def _from_buffer(data: bytes, kind: np.dtype, shape: tuple[int, ...], order: Any, *_: object) -> np.ndarray:
    return np.frombuffer(data, kind).reshape(shape, order=order)


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
    ("numpy", "_reconstruct"): lambda *_: np.ndarray((0,), "b"),
    ("numpy", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "scalar"): lambda kind, data: np.frombuffer(data, kind)[0],
}

STAND_INS = SimpleNamespace(__name__=__name__, Unpickler=Unpickler, load=lambda data, **_: Unpickler(data).load())
"""What `torch.load` takes as its module for pickles."""
