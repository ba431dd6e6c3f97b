"""PyTorch files and other pickles, by `torch.load` without a memory map: so PyTorch itself compares sizes.

Where a file holds objects besides tensors, torch's own list of safe names does not do. Then Python's unpickler reads
it, and every class but those of plain tensors and arrays is replaced by `Inert`, which does nothing.
"""

from __future__ import annotations

import io
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...errors import MappingError
from ...formats.torch.read import open_pickle
from .safetensors_file import as_array
from .tensor import Tensor

_LAYER = re.compile(r"(^|\.)(encoder\.layer|encoderLayer)\.0\.")
"""Part of the names of a first layer, in every program that writes PyTorch files."""

_NOT_THE_MODEL = re.compile(r"ema|average|avg|swa|shadow|teacher|optim", re.IGNORECASE)
"""Keys under which training programs keep a second model beside the one that they save."""

_MAX_DEPTH = 6
"""How deep dictionaries are searched. A pickle may put one into itself."""

_CONFIG = ("hidden_size", "num_attention_heads", "num_hidden_layers")


def read_torch(file: Path, asked: str | None) -> dict[str, Tensor]:
    """The model's tensors in `file` by name.

    Args:
        asked: the key, such as "folds.0", that the user named; None to find the model's dictionary.

    Raises:
        CheckpointError: loading it would cost more than its size may.
        MappingError: it holds no model, or several.
    """
    return {
        name: Tensor(name, tuple(value.shape), partial(_values, value))
        for name, value in _model_of(file, _load(file), asked).items()
    }


def config_in(file: Path) -> dict[str, Any] | None:
    """The fields of the model's config, where an object in `file` is one."""
    configs = (fields for _, fields in _everything(_load(file)) if all(name in fields for name in _CONFIG))
    return next(({str(name): value for name, value in fields.items()} for fields in configs), None)


def _values(value: Any) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else as_array(value.detach())


def _load(file: Path) -> Any:
    """What torch finds in `file`, or Python's unpickler where it is no file of torch's."""
    import torch

    wanted = open_pickle(file)[0].pickled.wanted  # the first reader bounds what loading the file may cost
    with open(file, "rb") as data, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on old pickles
        if not wanted:
            try:
                return torch.load(data, map_location="cpu", weights_only=True, mmap=False)
            except pickle.UnpicklingError:  # of a protocol that this list of torch's does not know, or no torch file
                data.seek(0)
        is_torch = data.read(2) == b"PK" or data.read(12) == _LEGACY[2:]
        data.seek(0)
        if not is_torch:
            return _Unpickler(data).load()
        inert = SimpleNamespace(__name__=__name__, Unpickler=_Unpickler, load=lambda data, **_: _Unpickler(data).load())
        return torch.load(data, map_location="cpu", weights_only=False, mmap=False, pickle_module=inert)


_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P"


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


class _Unpickler(pickle.Unpickler):
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


def _safe() -> dict[tuple[str, str], Any]:
    """What stands for a name, by the first part of its module: functions that make values of what they are given."""
    from torch import Size, _utils, load

    rebuild = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")
    return {
        **{("torch", name): getattr(_utils, name) for name in rebuild},
        ("torch", "_rebuild_parameter_with_state"): lambda tensor, *_: tensor,
        ("torch", "_rebuild_from_type_v2"): lambda function, _, arguments, *__: function(*arguments),
        ("torch", "_load_from_bytes"): lambda data: load(io.BytesIO(data), weights_only=True),
        ("torch", "Parameter"): lambda *values: values[0] if values else Inert(),
        ("torch", "Size"): Size,
        ("collections", "OrderedDict"): OrderedDict,
        ("collections", "Counter"): dict,
        ("collections", "defaultdict"): lambda *_: {},
        **{(module, "set"): set for module in ("builtins", "__builtin__")},
        **{(module, "frozenset"): frozenset for module in ("builtins", "__builtin__")},
        ("_codecs", "encode"): lambda text, *_: text.encode("latin-1"),
        ("numpy", "_reconstruct"): lambda *_: np.ndarray((0,), "b"),
        ("numpy", "_frombuffer"): lambda data, kind, shape, order, *_: np.frombuffer(data, kind).reshape(
            shape, order=order
        ),
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy", "scalar"): lambda kind, data: np.frombuffer(data, kind)[0],
    }


def _model_of(file: Path, loaded: Any, asked: str | None) -> dict[str, Any]:
    """The dictionary of the model's tensors. What else lies in it (a step, a loss) is no tensor of the model."""
    found = dict(_dictionaries(loaded))
    if asked is not None:
        found = {key: tensors for key, tensors in found.items() if (key or "the top") == asked}
    first_choice = {key: tensors for key, tensors in found.items() if not _NOT_THE_MODEL.search(key)}
    found = first_choice or found
    if len(found) != 1:
        listed = f"{len(found)}: {', '.join(map(repr, found))}" if found else "none"
        raise MappingError(
            f"{file}: expected one dictionary with the tensors of a NEZHA, found {listed}",
            hint="Save the model's alone, convert and verify that: torch.save(model.state_dict(), 'pytorch_model.bin')",
        )
    return next(iter(found.values()))


def _dictionaries(loaded: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The dictionaries in `loaded` that hold an encoder's tensors, each by its keys joined by dots."""
    import torch

    above: list[str] = []
    for path, fields in _everything(loaded):
        tensors = {
            key: value
            for key, value in fields.items()
            if isinstance(key, str) and isinstance(value, torch.Tensor | np.ndarray)
        }
        if any(_LAYER.search(name) for name in tensors) and not any(path.startswith(other) for other in above):
            above.append(f"{path}." if path else "")
            yield path, tensors


def _everything(value: Any, at: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The dictionaries in `value`, and the fields of objects, each by its keys joined by dots; outer ones first."""
    fields = value.fields if isinstance(value, Inert) else value
    if isinstance(fields, list | tuple):
        fields = {str(number): item for number, item in enumerate(fields)}
    if not isinstance(fields, Mapping) or depth > _MAX_DEPTH:
        return
    yield at, fields
    state = value.state if isinstance(value, Inert) else None
    inside = {**fields, **state} if isinstance(state, dict) else fields
    for key, inner in inside.items():
        yield from _everything(inner, f"{at}.{key}" if at else str(key), depth + 1)
