"""The meaning of the few classes and functions that a pickle of weights names.

A pickle asks for functions to be called. None is called: for each known name, `MEANINGS` says how to interpret the
arguments. Whatever else a pickle asks for becomes a `Record`. Sources: the files that NumPy 1.26 and 2.4, PaddlePaddle
3.3, joblib 1.5 and torch 0.1 to 2.13 write; torch/_utils.py and torch/storage.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import accumulate
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
}
"""NumPy's names of element types by the class of a torch storage."""

MAX_KEY, MAX_KEY_BITS = 32, 60
"""The most parts of a key, and of an item of a set; and the most bits of a number in it, as others may collide."""

MAX_SIZES = 128
"""The most dimensions of an array; NumPy has 64. Products of more sizes could fill the memory."""

_Values = tuple[Any, ...]


class UnfitError(Exception):
    """The arguments are not those of the known function: it becomes a `Record`, as an unknown one does."""


def storage_type(kind: Any) -> str:
    """The element type of a storage of the class `kind`, by NumPy's name or else by the class's own."""
    if not isinstance(kind, Name):
        raise UnexpectedError("a storage without a class")
    last = kind.path.rpartition(".")[2]
    return STORAGES.get(last, last)


def _take(values: Any, *kinds: type) -> _Values:
    """The first of `values`, which must be of these kinds."""
    if not isinstance(values, tuple) or len(values) < len(kinds) or not all(map(isinstance, values, kinds)):
        raise UnfitError
    return values


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple) or not all(type(size) is int and 0 <= size < 1 << 63 for size in value):
        raise UnexpectedError("an array whose shape is not a tuple of sizes")
    if len(value) > MAX_SIZES:
        raise UnexpectedError(f"an array of {len(value):,} dimensions")
    return value


def _by_columns(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(accumulate((max(1, size) for size in shape[:-1]), mul, initial=1)) if shape else ()


def _blank_array(values: _Values) -> Array:
    (kind, *_) = _take(values, Name, tuple)
    if kind.path != "numpy.ndarray":
        raise UnfitError
    return Array()


def _array_type(values: _Values) -> ArrayType:
    code = values[0] if values else None
    if isinstance(code, Name):  # a type of ml_dtypes, which NumPy knows by its class
        return ArrayType(code.path.rpartition(".")[2])
    if not isinstance(code, str):
        raise UnfitError
    return ArrayType(_NUMPY_TYPES.get(code.lstrip("<>=|"), str(code)), code.startswith(">"))


def _array_of_buffer(values: _Values) -> Array:
    """NumPy's arrays in protocol 5."""
    data, kind, shape, order, *axes = _take(values, Span, ArrayType, tuple, str)
    if axes not in ([], [None]) or order not in ("C", "F"):  # NumPy 2.3 and later may add an order of axes
        raise UnexpectedError("an array whose axes are stored in another order")
    return Array(_sizes(shape), kind, data, 0, _by_columns(shape) if order == "F" else None)


def _encoded_text(values: _Values) -> Span:
    """Bytes in protocol 2, which has none: Python writes them as Latin-1 text and the name of the encoding."""
    text, encoding = _take(values, object, str)
    span = text.span if isinstance(text, Text) else text
    if not isinstance(span, Span) or encoding not in ("latin1", "latin-1") or span.text not in ("utf-8", "escaped"):
        raise UnfitError
    return span


def _no_bytes(values: _Values) -> Span:
    if values:
        raise UnfitError
    return Span(0, 0)


def _dictionary(values: _Values) -> dict[Any, Any]:
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


def _inner_tuple(values: _Values) -> _Values:
    (inner,) = values if len(values) == 1 else ((),)
    if not isinstance(inner, tuple | list):
        raise UnfitError
    return tuple(inner)


def _named_data(values: _Values) -> Array:
    """The array in Paddle's DenseTensor, ``eval("data", {"data": array})``. Nothing is evaluated."""
    name, variables = _take(values, str, dict)
    if name != "data" or list(variables) != ["data"] or not isinstance(variables["data"], Array):
        raise UnfitError
    return variables["data"]


def _scalar(values: _Values) -> Any:
    return _take(values, ArrayType, object)[1]


def _tensor(values: _Values) -> Array:
    """_rebuild_tensor(storage, offset, sizes, strides), and _v2, which adds (requires_grad, hooks[, metadata])."""
    storage, start, sizes, strides, *more = _in_storage(values)
    tensor = view(storage, start, sizes, strides)
    if len(more) > 2 and more[2]:  # metadata: a conjugate or negative view
        raise UnfitError
    return tensor


def _typed_tensor(values: _Values) -> Array:
    """_rebuild_tensor_v3(storage, offset, sizes, strides, requires_grad, hooks, dtype[, metadata])."""
    storage, start, sizes, strides, *more = _in_storage(values)
    _, _, kind, *metadata = _take(tuple(more), object, object, Name)
    tensor = view(storage, start, sizes, strides, ArrayType(kind.path.removeprefix("torch.")))
    if metadata and metadata[0]:
        raise UnfitError
    return tensor


def _in_storage(values: _Values) -> _Values:
    """Arguments that begin with (storage, start, sizes, strides). torch makes room for those that it takes as well."""
    if not isinstance(_take(values, object)[0], Storage):
        raise UnfitError
    if len(values) < 4 or not all(isinstance(part, tuple) for part in values[2:4]):
        raise UnexpectedError("a tensor whose sizes are not given as a tuple")
    return values


def view(storage: Storage, start: Any, sizes: Any, strides: Any, kind: ArrayType | None = None) -> Array:
    """The tensor at a place in a storage, of the storage's element type or else of `kind`."""
    if type(start) is not int or start < 0 or len(_sizes(sizes)) != len(_sizes(strides)):
        raise UnexpectedError("a tensor whose place in its storage is not given by numbers")
    widths = (1, 1) if kind is None else (_width(kind.name), _width(storage.dtype))
    reach = start + 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if 0 not in sizes and reach * widths[0] > storage.count * widths[1]:
        raise UnexpectedError(f"a tensor of shape {list(sizes[:8])} in a storage of {storage.count:,} elements")
    return Array(sizes, kind or ArrayType(storage.dtype, storage.big_endian), storage, start, strides)


def _width(name: str) -> int:
    """Bytes of an element; 1 for a type that NumPy does not have, of which no tensor is read."""
    kind = numpy_type(name)
    return kind.itemsize if kind else 1


def numpy_type(name: str) -> np.dtype | None:
    """NumPy's type of this name, if it has one. NumPy is asked for words alone: it evaluates parts of other texts."""
    try:
        return np.dtype(name) if re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) else None
    except (TypeError, ValueError):
        return None


def _inner_array(values: _Values) -> Array:
    """_rebuild_parameter(data, ...) and its kin: the array."""
    array: Array = _take(values, Array)[0]
    return array


def _blank_or_inner(values: _Values) -> Array:
    return _inner_array(values) if values else Array()


def _of_subclass(values: _Values) -> Any:
    """_rebuild_from_type_v2(function, class, arguments, attributes)."""
    function, _, arguments, *_ = _take(values, Name, Name, object)
    if not isinstance(arguments, tuple):
        raise UnexpectedError("a call whose arguments are not a tuple")
    return call(function, arguments)


def _reconstructed(values: _Values) -> Record:
    """copyreg._reconstructor(class, base, state): an object in protocols 0 and 1."""
    kind, _, state, *_ = _take(values, Name, Name, object)
    return Record(kind.path, items=state if isinstance(state, dict) else None)


def _new_object(values: _Values) -> Any:
    return call(_take(values, Name)[0], values[1:])


def _set(values: _Values) -> Record:
    items = _inner_tuple(values)
    for item in items:
        check_key(item)
    return Record("builtins.set", listed=list(items))


_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "numpy._core": "numpy.core"}
"""Modules that have had other names: Python 2's, and NumPy's from version 2 on."""

MEANINGS: dict[str, Callable[[_Values], Any]] = {
    "numpy.core.multiarray._reconstruct": _blank_array,
    "numpy.core.numeric._frombuffer": _array_of_buffer,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.dtype": _array_type,
    "_codecs.encode": _encoded_text,
    "builtins.bytes": _no_bytes,
    "builtins.tuple": _inner_tuple,
    **dict.fromkeys(("builtins.set", "builtins.frozenset"), _set),
    "builtins.eval": _named_data,
    "copyreg._reconstructor": _reconstructed,
    "copyreg.__newobj__": _new_object,
    **dict.fromkeys(("collections.OrderedDict", "collections.Counter", "collections.defaultdict"), _dictionary),
    "torch.Size": _inner_tuple,
    **dict.fromkeys(("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"), _tensor),
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._tensor._rebuild_from_type_v2": _of_subclass,
    **dict.fromkeys(
        (
            "torch._utils._rebuild_parameter",
            "torch._utils._rebuild_parameter_with_state",
            "torch._utils._rebuild_device_tensor_from_numpy",
            "torch._utils._rebuild_device_tensor_from_cpu_tensor",
        ),
        _inner_array,
    ),
    **dict.fromkeys(("torch.nn.parameter.Parameter", "torch.nn.Parameter", "torch.Tensor"), _blank_or_inner),
}
"""What each known function makes of its arguments, by "module.name"."""


def name_of(module: str, name: str) -> Name:
    """The `Name` of something in a pickle, as today's programs call it."""
    for old, new in _MODULES.items():
        if module == old or module.startswith(f"{old}."):
            module = new + module[len(old) :]
    return Name(f"{module}.{name}")


def call(function: Any, arguments: Any) -> Any:
    """What calling `function` stands for: a value if it is known and fits, a `Record` if not."""
    if not isinstance(function, Name):
        return Record(f"a call of a {type(function).__name__}", arguments)
    meaning = MEANINGS.get(function.path)
    try:
        return meaning(arguments) if meaning and isinstance(arguments, tuple) else Record(function.path, arguments)
    except UnfitError:
        return Record(function.path, arguments)


def set_state(target: Any, state: Any) -> None:
    """Give an object its state: an array's or element type's parts, or the attributes of a `Record`."""
    if isinstance(target, Record):
        target.state = state
    elif isinstance(target, Array) and isinstance(state, tuple):
        _set_array(target, state)
    elif isinstance(target, ArrayType) and isinstance(state, tuple) and len(state) > 1:
        target.big_endian = state[1] == ">"
    elif not isinstance(target, dict | Array):  # attributes of a dictionary or tensor, which change no number
        raise UnexpectedError(f"a state for a {type(target).__name__}")


def _set_array(target: Array, state: _Values) -> None:
    """NumPy's state (version, shape, type, by columns, data), or that of a tensor of torch before 0.2."""
    match state:
        case (int(), tuple() as shape, ArrayType() as kind, bool() | int() as by_columns, data):
            target.shape, target.type = _sizes(shape), kind
            target.strides = _by_columns(shape) if by_columns else None
            target.data = data if isinstance(data, Span) else data.span if isinstance(data, Text) else None
        case (Storage() as storage, int() as start, tuple() as sizes, tuple() as strides):
            _become(target, view(storage, start, sizes, strides))
        case (Array() as inner, *_):
            _become(target, inner)
        case _:
            raise UnexpectedError("a state that is not an array's")


def _become(target: Array, other: Array) -> None:
    target.shape, target.type, target.data = other.shape, other.type, other.data
    target.start, target.strides = other.start, other.strides
