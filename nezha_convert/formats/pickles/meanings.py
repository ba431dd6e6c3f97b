"""The meaning of the few classes and functions that a pickle of weights names.

A pickle asks for functions to be called. None is called: for each known name, `call` says how to interpret the
arguments. Whatever else a pickle asks for becomes a `Record`. Sources: the files that NumPy 1.26 and 2.4, PaddlePaddle
3.3, joblib 1.5 and torch 0.1 to 2.13 write; torch/_utils.py and torch/storage.py.
"""

from __future__ import annotations

import re
from dataclasses import fields
from itertools import accumulate
from math import prod
from operator import mul
from typing import Any

import numpy as np

from .values import Array, ArrayType, Key, Name, Record, Span, Storage, Text, UnexpectedError

_NUMPY_TYPES = {
    **{f"f{width}": f"float{8 * width}" for width in (2, 4, 8)},
    **{
        f"{kind}{width}": f"{name}{8 * width}" for kind, name in (("i", "int"), ("u", "uint")) for width in (1, 2, 4, 8)
    },
    **{"b1": "bool", "c8": "complex64", "c16": "complex128"},
}
"""NumPy's names of element types by their codes."""

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
    "QInt32Storage": "qint32",
}
"""Names of element types by the class of a torch storage: NumPy's, or torch's own for what holds no plain numbers."""

MAX_KEY, MAX_KEY_BITS = 32, 60
"""The most parts of a key, and of an item of a set; and the most bits of a number in it, as others may collide."""

MAX_SIZES = 128
"""The most dimensions of an array; NumPy has 64. Products of more sizes could fill the memory."""

JOBLIB = "joblib.numpy_pickle.NumpyArrayWrapper"

_PYTHON = ("numpy.", "_codecs.", "builtins.", "copyreg.", "collections.")
"""How the names begin that have a meaning, besides torch's."""

_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "numpy._core": "numpy.core"}
"""Modules that have had other names: Python 2's, and NumPy's from version 2 on."""


def name_of(module: str, name: str) -> Name:
    """The `Name` of something in a pickle, as today's programs call it."""
    for old, new in _MODULES.items():
        if module == old or module.startswith(f"{old}."):
            module = new + module[len(old) :]
    return Name(f"{module}.{name}")


def call(function: Any, arguments: Any) -> Any:
    """What calling `function` stands for: a value if it is known and its arguments fit, a `Record` if not."""
    if not isinstance(function, Name):
        return Record(f"a call of a {type(function).__name__}", arguments)
    if not isinstance(arguments, tuple):  # torch takes others as well
        raise UnexpectedError("a call whose arguments are not a tuple")
    match function, arguments:
        case Name("torch._tensor._rebuild_from_type_v2"), (Name() as function, Name(), inner, *_):  # of a subclass
            return _once(function, inner)
        case Name("copyreg.__newobj__"), (Name() as function, *inner):
            return _once(function, tuple(inner))
    if function.path.startswith("torch."):
        return _of_torch(function.path, arguments)
    return (
        _of_python(function.path, arguments) if function.path.startswith(_PYTHON) else Record(function.path, arguments)
    )


def _once(function: Name, arguments: Any) -> Any:
    """A call that another one makes; but not in turn: a thousand in each other would fill Python's stack."""
    if function.path in ("torch._tensor._rebuild_from_type_v2", "copyreg.__newobj__"):
        raise UnexpectedError("a call that makes a call that makes a call")
    return call(function, arguments)


def _of_python(path: str, arguments: tuple[Any, ...]) -> Any:
    match path, arguments:
        case "numpy.core.multiarray._reconstruct", (Name("numpy.ndarray"), tuple(), *_):
            return Array()
        case "numpy.core.numeric._frombuffer", (Span() as data, ArrayType() as kind, shape, str() as order, *_):
            if arguments[4:] not in ((), (None,)) or order not in ("C", "F"):  # NumPy 2.3 may add an order of axes
                raise UnexpectedError("an array whose axes are stored in another order")
            return Array(_sizes(shape), kind, data, 0, _by_columns(shape) if order == "F" else None)
        case "numpy.core.multiarray.scalar", (ArrayType(), value, *_):
            return value
        case "numpy.dtype", (Name(kind), *_):  # a type of ml_dtypes, which NumPy knows by its class
            return ArrayType(kind.rpartition(".")[2])
        case "numpy.dtype", (str() as code, *_):
            return ArrayType(_NUMPY_TYPES.get(code.lstrip("<>=|"), str(code)), code.startswith(">"))
        case "_codecs.encode", (Span() | Text() as text, "latin1" | "latin-1", *_):
            # bytes in protocol 2, which has none
            span = text.span if isinstance(text, Text) else text
            if span.text in ("utf-8", "escaped"):
                return span
        case "builtins.bytes", ():
            return Span(0, 0)
        case "builtins.tuple", ():
            return ()
        case "builtins.tuple", ([*items],):
            return tuple(items)
        case "builtins.set" | "builtins.frozenset", ():
            return set_of(())
        case "builtins.set" | "builtins.frozenset", ([*items],):
            return set_of(items)
        case "builtins.eval", ("data", {"data": Array() as array, **rest}) if not rest:  # Paddle's DenseTensor
            return array
        case "copyreg._reconstructor", (Name(kind), Name(), state, *_):  # an object in protocols 0 and 1
            return Record(kind, items=state if isinstance(state, dict) else None)
        case "collections.OrderedDict" | "collections.Counter" | "collections.defaultdict", _:
            return _dictionary(arguments)
    return Record(path, arguments)


def _of_torch(path: str, arguments: tuple[Any, ...]) -> Any:
    match path.removeprefix("torch."), arguments:
        case "Size", ():
            return ()
        case "Size", ([*sizes],):
            return tuple(sizes)
        case "_utils._rebuild_tensor" | "_utils._rebuild_tensor_v2", (Storage() as data, start, sizes, strides, *more):
            tensor = view(data, start, sizes, strides)
            if not any(more[2:3]):  # after whether it asks for gradients, and its hooks: a conjugate or negative view
                return tensor
        case "_utils._rebuild_tensor_v3", (Storage() as data, start, sizes, strides, _, _, Name(kind), *more):
            tensor = view(data, start, sizes, strides, ArrayType(kind.removeprefix("torch.")))
            if not any(more[:1]):
                return tensor
        case (
            "_utils._rebuild_parameter"
            | "_utils._rebuild_parameter_with_state"
            | "_utils._rebuild_device_tensor_from_numpy"
            | "_utils._rebuild_device_tensor_from_cpu_tensor"
            | "nn.parameter.Parameter"
            | "nn.Parameter"
            | "Tensor",
            (Array() as array, *_),
        ):
            return array
        case "nn.parameter.Parameter" | "nn.Parameter" | "Tensor", ():
            return Array()
    return Record(path, arguments)


def storage_type(kind: Any) -> str:
    """The element type of a storage of the class `kind`, by NumPy's name or else by torch's own."""
    if not isinstance(kind, Name):
        raise UnexpectedError("a storage without a class")
    name = kind.path.rpartition(".")[2]
    if name not in STORAGES:
        raise UnexpectedError(f"a storage of type {name:.40}")
    return STORAGES[name]


def width(name: str) -> int:
    """Bytes of an element; 1 for a type that NumPy does not have, of which no tensor is read."""
    kind = numpy_type("int32" if name == "qint32" else name)
    return kind.itemsize if kind else 1


def numpy_type(name: str) -> np.dtype | None:
    """NumPy's type of this name, if it has one. NumPy is asked for words alone: it evaluates parts of other texts."""
    try:
        return np.dtype(name) if re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) else None
    except (TypeError, ValueError):
        return None


def view(storage: Storage, start: Any, sizes: Any, strides: Any, kind: ArrayType | None = None) -> Array:
    """The tensor at a place in a storage, of the storage's element type or else of `kind`."""
    if type(start) is not int or start < 0 or len(_sizes(sizes)) != len(_sizes(strides)):
        raise UnexpectedError("a tensor whose place in its storage is not given by numbers")
    kind = kind or ArrayType(storage.dtype, storage.big_endian)
    reach = start + 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if 0 not in sizes and reach * width(kind.name) > storage.count * width(storage.dtype):
        raise UnexpectedError(f"a tensor of shape {list(sizes[:8])} in a storage of {storage.count:,} elements")
    return Array(sizes, kind, storage, start, strides)


def joblib_array(state: dict[Any, Any]) -> tuple[Array, int]:
    """The array of joblib's NumpyArrayWrapper, whose data come later, and how many bytes these are."""
    kind, shape = state.get("dtype"), state.get("shape")
    if not isinstance(kind, ArrayType):
        raise UnexpectedError("an array of joblib without a type")
    if (dtype := numpy_type(kind.name)) is None or dtype.kind not in "biufcV":  # a pickle of objects would follow
        raise UnexpectedError(f"an array of joblib of type {kind.name!r:.40}")
    strides = _by_columns(_sizes(shape)) if state.get("order") == "F" else None
    return Array(_sizes(shape), kind, strides=strides), prod(_sizes(shape)) * dtype.itemsize


def set_state(target: Any, state: Any) -> None:
    """Give an object its state: an array's or element type's parts, or the attributes of a `Record`."""
    match target, state:
        case Record(), _:
            target.state = state
        case Array(), tuple():
            made = _with_state(state)
            for field in fields(Array):
                setattr(target, field.name, getattr(made, field.name))
        case ArrayType(), tuple((_, order, *_)):
            target.big_endian = order == ">"
        case dict() | Array(), _:  # attributes of a dictionary or tensor, which change no number
            pass
        case _:
            raise UnexpectedError(f"a state for a {type(target).__name__}")


def _with_state(state: tuple[Any, ...]) -> Array:
    """NumPy's state (version, shape, type, by columns, data), or that of a tensor of torch before 0.2."""
    match state:
        case (int(), tuple() as shape, ArrayType() as kind, bool() | int() as by_columns, data):
            place = data if isinstance(data, Span) else data.span if isinstance(data, Text) else None
            return Array(_sizes(shape), kind, place, 0, _by_columns(shape) if by_columns else None)
        case (Storage() as storage, int() as start, tuple() as sizes, tuple() as strides):
            return view(storage, start, sizes, strides)
        case (Array() as inner, *_):
            return inner
    raise UnexpectedError("a state that is not an array's")


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple) or not all(type(size) is int and 0 <= size < 1 << 63 for size in value):
        raise UnexpectedError("an array whose shape is not a tuple of sizes")
    if len(value) > MAX_SIZES:
        raise UnexpectedError(f"an array of {len(value):,} dimensions")
    return value


def _by_columns(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(accumulate((max(1, size) for size in shape[:-1]), mul, initial=1)) if shape else ()


def _dictionary(values: tuple[Any, ...]) -> dict[Any, Any]:
    """OrderedDict() and OrderedDict([[key, value], ...]) of Python 2; Counter({...}); defaultdict(factory)."""
    content: dict[Any, Any] = {}
    given = values[0] if values and not isinstance(values[0], Name | None) else ()
    if isinstance(given, dict):
        return given
    for pair in given if isinstance(given, list | tuple) else ((),):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise UnexpectedError("a dictionary that is not made of pairs")
        content[as_key(pair[0])] = pair[1]
    return content


def set_of(items: Any) -> Record:
    """A set, or a frozen one."""
    for item in items:
        check_key(item)
    return Record("builtins.set", listed=list(items))


def as_key(value: Any) -> Any:
    """`value` as a key of a dictionary."""
    check_key(value)
    return value if value is None or isinstance(value, str | int | float) else Key(value)


def check_key(value: Any) -> None:
    """Refuse a key, or an item of a set, that holds too much: other programs hash a tuple with all that it holds."""
    todo, parts = [value], 0
    while todo:
        inner = todo.pop()
        todo += inner if isinstance(inner, tuple) else ()
        if isinstance(inner, int) and inner.bit_length() > MAX_KEY_BITS:
            raise UnexpectedError(f"a number of {inner.bit_length()} bits in a key")
        parts += 1
        if parts > MAX_KEY:
            raise UnexpectedError(f"a key of more than {MAX_KEY} parts")
