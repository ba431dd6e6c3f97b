"""What a pickle holds once it was followed without running it: plain Python values, and the classes of this file."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

NOT_RUN = "Nothing in it was run"


class UnexpectedError(Exception):
    """The pickle does what no sound pickle of weights does. The message completes "it has ..."."""


# None of these but `Compressed` is frozen, which takes three times as long to create: a hostile file has a million.


@dataclass(slots=True)
class Span:
    """Where bytes lie in the file.

    Attributes:
        text: how they are stored, each as its character of Latin-1: as "utf-8" text; in protocol 0 as an "escaped"
            text or, from Python 2, as a "quoted" one. Empty for bytes as they are.
    """

    offset: int
    length: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Compressed:
    """Data that does not lie in the file as it is: its length, and what gives all of it."""

    length: int
    read: Callable[[], bytes]


Place = Span | Compressed
"""Where the data of an array lies."""


class Text(str):
    """A text short enough to be a name, and the place of its bytes in the file."""

    __slots__ = ("_length", "_offset", "_stored")  # a `Span` would take 40 bytes more
    _length: int
    _offset: int
    _stored: str

    @classmethod
    def at(cls, span: Span, text: str) -> Text:
        """The text that lies at `span`."""
        made = cls(text)
        made._offset, made._length, made._stored = span.offset, span.length, span.text
        return made

    @property
    def span(self) -> Span:
        """Its bytes in the file."""
        return Span(self._offset, self._length, self._stored)


@dataclass(slots=True)
class Name:
    """A class or function that the pickle names, as "module.name". It is never imported."""

    path: str


@dataclass(slots=True, eq=False)
class Key:
    """A key of a dictionary that is no plain number or text: hashing it could take for ever."""

    value: Any


@dataclass(slots=True, eq=False)
class Record:
    """An object of a class that has no meaning here: what the pickle gives to make it, and nothing of it was run.

    Attributes:
        name: its class, or the function that would make it.
        arguments: what that would be called with.
        state: its attributes, mostly a dictionary.
        items, listed: what it holds, if it is a kind of dictionary or list.
    """

    name: str
    arguments: Any = ()
    state: Any = None
    items: dict[Any, Any] | None = None
    listed: list[Any] | None = None

    TENSORS: ClassVar[tuple[str, ...]] = ("torch._utils._rebuild_", "torch._tensor._rebuild_")

    @property
    def is_tensor(self) -> bool:
        """Whether it is a tensor that is no plain block of numbers: sparse, quantized, on no device."""
        return self.name.startswith(self.TENSORS)


@dataclass(slots=True, eq=False)
class Storage:
    """A torch storage: its element type, its key, how many elements it has, and where they lie once that is known."""

    dtype: str
    key: str
    count: int
    big_endian: bool = False
    place: Place | None = None


@dataclass(slots=True, eq=False)
class ArrayType:
    """An element type by NumPy's name, or by the pickle's own where NumPy has none; and whether it is big-endian."""

    name: str
    big_endian: bool = False


@dataclass(slots=True, eq=False)
class Array:
    """An array or tensor whose data is not read.

    Attributes:
        shape: its sizes.
        type: its element type.
        data: where its elements lie; None for one that has none.
        start, strides: the first element's place there, and the steps from one to the next along each dimension, in
            elements; None for the order of C.
    """

    shape: tuple[int, ...] = ()
    type: ArrayType | None = None
    data: Span | Storage | None = None
    start: int = 0
    strides: tuple[int, ...] | None = None


_KINDS = {dict: "a dictionary", Text: "a text", Span: "bytes", Storage: "a storage", ArrayType: "an element type"}


def kind_of(value: Any) -> str:
    """What `value` is, for a message."""
    match value:
        case Record():
            return f"{'a tensor that is not plain and dense, made by ' if value.is_tensor else 'a '}{value.name:.200}"
        case Array():
            return "a tensor"
        case Key():
            return f"a {type(value.value).__name__}"
        case Name():
            return f"the class {value.path:.200}"
        case dict() | Text() | Span() | Storage() | ArrayType():
            return _KINDS[type(value)]
    return f"a {type(value).__name__}"


def shown(key: Any) -> str:
    """`key` for a message, cut short: sixty bytes of pickle can make a key whose text has megabytes."""
    if isinstance(key, Key):
        return reprlib.repr(key.value) if _is_plain(key.value) else kind_of(key)
    return repr(key) if isinstance(key, str) else reprlib.repr(key)


def _is_plain(key: Any) -> bool:
    return all(map(_is_plain, key)) if isinstance(key, tuple) else isinstance(key, str | int | float | None)
