"""The values in a pickle of NumPy arrays, and the meaning of the few functions that it names.

A pickle asks for functions to be called. We call none of them: for each known name, `FUNCTIONS` says how to interpret
the arguments, and any other name is refused. Sources: the files that NumPy 1.26 and 2.4 and PaddlePaddle 3.3 write, in
protocols 2 to 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)  # not frozen, which takes three times as long to create: a hostile file has a million
class Span:
    """Where bytes lie in the file. `text`: they are stored as UTF-8 text, each byte as its character of Latin-1."""

    offset: int
    length: int
    text: bool = False


class Text(str):
    """A text short enough to be a name, and its offset in the file."""

    __slots__ = ("offset",)
    offset: int

    @property
    def span(self) -> Span:
        """Its bytes in the file."""
        return Span(self.offset, len(self.encode()), text=True)


@dataclass(slots=True)
class ArrayType:
    """An element type in NumPy's words: kind and size ("f4"), and the order of its bytes ("<", ">", "=" or "|")."""

    code: str
    order: str = "="


@dataclass(slots=True)
class Array:
    """An array whose data is not read. With `by_columns`, it is stored in Fortran's order."""

    shape: tuple[int, ...] = ()
    type: ArrayType | None = None
    data: Span | None = None
    by_columns: bool = False


class UnexpectedError(Exception):
    """The pickle has something that no pickle of arrays has. The message completes "it has ..."."""


def _take(values: tuple[Any, ...], *kinds: type) -> list[Any]:
    """`values`, if they are of these kinds."""
    if len(values) != len(kinds) or not all(isinstance(value, kind) for value, kind in zip(values, kinds, strict=True)):
        raise UnexpectedError("a function with other arguments than an array's")
    return list(values)


def _blank_array(values: tuple[Any, ...]) -> Array:
    _take(values, Function, tuple, Span)
    return Array()


def _array_type(values: tuple[Any, ...]) -> ArrayType:
    code, _, _ = _take(values, str, bool, bool)
    return ArrayType(code)


def _array_of_buffer(values: tuple[Any, ...]) -> Array:
    data, kind, shape, order = _take(values[:4], Span, ArrayType, tuple, str)
    if values[4:] not in ((), (None,)) or order not in ("C", "F"):  # NumPy 2.3 and later may add an order of axes
        raise UnexpectedError("an array whose axes are stored in another order")
    return Array(_shape(shape), kind, data, by_columns=order == "F")


def _encoded_text(values: tuple[Any, ...]) -> Span:
    """Bytes in protocol 2, which has none: Python writes them as Latin-1 text and the name of the encoding."""
    text, encoding = _take(values, object, str)
    span = text.span if isinstance(text, Text) else text
    if not isinstance(span, Span) or encoding != "latin1" or not span.text:
        raise UnexpectedError("text in another encoding than Latin-1")
    return span


def _no_bytes(values: tuple[Any, ...]) -> Span:
    _take(values)
    return Span(0, 0)


def _inner_tuple(values: tuple[Any, ...]) -> tuple[Any, ...]:
    inner: tuple[Any, ...] = _take(values, tuple)[0]
    return inner


def _empty_dictionary(values: tuple[Any, ...]) -> dict[str, Any]:
    _take(values)
    return {}


def _named_data(values: tuple[Any, ...]) -> Array:
    """The array in Paddle's DenseTensor, ``eval("data", {"data": array})``. Nothing is evaluated."""
    name, variables = _take(values, str, dict)
    if name != "data" or list(variables) != ["data"] or not isinstance(variables["data"], Array):
        raise UnexpectedError("an expression to evaluate")
    return variables["data"]


def _not_called(values: tuple[Any, ...]) -> Any:
    raise UnexpectedError("a class that is only named in a pickle of arrays")


@dataclass(frozen=True, slots=True)
class Function:
    """A function that a pickle may name. `means` turns the arguments into the value."""

    means: Callable[[tuple[Any, ...]], Any]


FUNCTIONS = {
    name: Function(means)
    for name, means in {
        **dict.fromkeys(("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"), _blank_array),
        **dict.fromkeys(("numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer"), _array_of_buffer),
        **dict.fromkeys(("builtins bytes", "__builtin__ bytes"), _no_bytes),
        **dict.fromkeys(("builtins tuple", "__builtin__ tuple"), _inner_tuple),
        **dict.fromkeys(("builtins eval", "__builtin__ eval"), _named_data),
        "numpy ndarray": _not_called,
        "numpy dtype": _array_type,
        "_codecs encode": _encoded_text,
        "collections OrderedDict": _empty_dictionary,
    }.items()
}
"""All functions that a pickle may name, by "module name"."""


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple) or not all(type(size) is int and size >= 0 for size in value):
        raise UnexpectedError("an array whose shape is not a tuple of sizes")
    return value


def set_state(target: Any, state: Any) -> None:
    """Complete an array by (version, shape, type, by columns, data), or a type by (version, order, six more values)."""
    if not isinstance(state, tuple):
        raise UnexpectedError("a state that is not a tuple")
    if isinstance(target, Array):
        _, shape, target.type, target.by_columns, target.data = _take(state, int, tuple, ArrayType, bool, Span)
        target.shape = _shape(shape)
    elif isinstance(target, ArrayType) and len(state) == 8 and isinstance(state[1], str):
        target.order = state[1]
    else:
        raise UnexpectedError(f"a state for a {type(target).__name__}")
