"""The machine that follows a pickle of NumPy arrays, and runs nothing.

A pickle is a program for a stack machine. This one knows the steps that dictionaries, tuples, numbers, text and arrays
are written with, in protocols 2 to 5 (Python's pickletools.py documents each), and refuses any other. The data of
arrays is stepped over: only its place in the file is kept.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import CheckpointError
from .pickle_arrays import FUNCTIONS, Function, Span, Text, UnexpectedError, set_state

MAX_STEPS = 1 << 22
"""Steps of one pickle, at most; 100,000 arrays take 3 million. A step makes at most one object of some hundred bytes,
so this bounds the memory, whatever the pickle declares."""

MAX_TEXT = 4096
"""Bytes of a name, at most; longer text can only be an array's data, and is not read."""

DAMAGED = "The file is damaged or cut short: copy it again from where it came from."


def read_pickle(file: Path) -> Any:
    """What the pickle in `file` holds: dictionaries, tuples, lists, numbers, `Text`, `Span` and `Array`.

    Raises:
        CheckpointError: it is not a pickle of protocol 2 to 5, is damaged, or asks for anything else.
    """
    try:
        with open(file, "rb") as data:
            return _Machine(file, data).run()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error
    except UnexpectedError as error:
        raise CheckpointError(
            f"{file}: not a pickle of arrays: it has {error}. Nothing in it was run",
            hint="If you trust where it came from, load it there and save its state dict alone.",
        ) from error
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: not a sound pickle ({type(error).__name__}: {error})", hint=DAMAGED) from error


class _Machine:
    """The stack, the marks and the memory of one pickle. IndexError, KeyError, struct.error: it is damaged."""

    def __init__(self, file: Path, data: BinaryIO) -> None:
        self._file, self._data = file, data
        self._size = data.seek(0, 2)
        data.seek(0)
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        """The stacks that marks have set aside."""
        self._memory: dict[int, Any] = {}

    def run(self) -> Any:
        if self._data.read(1) != b"\x80" or self._data.read(1) not in (b"\x02", b"\x03", b"\x04", b"\x05"):
            raise UnexpectedError("no header of protocol 2 to 5")
        for _ in range(MAX_STEPS):
            step = self._data.read(1)
            if step == b".":
                return self._stack.pop()
            if step in _PLAIN:
                self._stack.append(_PLAIN[step]())
            elif step in _NUMBERS:
                self._stack.append(self._number(_NUMBERS[step]))
            elif step in _SPANS:
                form, text = _SPANS[step]
                self._stack.append(self._span(self._number(form), text))
            elif step in _OTHERS:
                _OTHERS[step](self)
            elif not step:
                raise IndexError("it ends in the middle")
            else:
                raise UnexpectedError(f"step {step!r}, which arrays do not need")
        raise UnexpectedError(f"more than {MAX_STEPS} steps")

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._data.read(struct.calcsize(form)))[0]

    def _span(self, length: int, text: bool) -> Span | Text:
        offset = self._data.tell()
        if length > self._size - offset:
            raise IndexError(f"{length} bytes declared at offset {offset} of {self._size}")
        span = Span(offset, length, text)
        if not text or length > MAX_TEXT:
            self._data.seek(length, 1)
            return span
        name = Text(self._data.read(length).decode("utf-8"))
        name.span = span
        return name

    def _frame(self) -> None:
        self._number("<Q")  # what follows stands in the file either way

    def _whole_number(self) -> None:
        length = self._number("<B")
        digits = self._data.read(length)
        if len(digits) < length:
            raise IndexError("it ends in the middle of a number")
        self._stack.append(int.from_bytes(digits, "little", signed=True))

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _tuple(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError("a tuple of more items than there are")
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _tuple_since_mark(self) -> None:
        items = self._since_mark()
        self._stack.append(tuple(items))

    def _append(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise UnexpectedError("items for what is no list")
        self._stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise UnexpectedError("items for what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise UnexpectedError("a key that is no name")
            if key in target:
                raise UnexpectedError(f"{key!r} twice")
            target[key] = value

    def _set_one(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def _remember(self, key: int) -> None:
        self._memory[key] = self._stack[-1]

    def _recall(self, key: int) -> None:
        self._stack.append(self._memory[key])

    def _name_function(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise UnexpectedError("a function whose name is no text")
        if f"{module} {name}" not in FUNCTIONS:
            raise CheckpointError(
                f"{self._file}: refused: it asks for {f'{module}.{name}'!r} to be loaded, and only arrays are. "
                "Nothing in it was run",
                hint="If you trust where it came from, load it there and save its state dict alone.",
            )
        self._stack.append(Function(FUNCTIONS[f"{module} {name}"]))

    def _named_in_lines(self) -> None:
        lines = [self._data.readline(MAX_TEXT).decode("utf-8") for _ in range(2)]
        if not all(line.endswith("\n") for line in lines):
            raise IndexError("it ends in the middle of a name")
        self._name_function(*(line[:-1] for line in lines))

    def _named_on_stack(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._name_function(module, name)

    def _reduce(self) -> None:
        values, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Function) or not isinstance(values, tuple):
            raise UnexpectedError("a call of what is no function")
        self._stack.append(function.means(values))

    def _build(self) -> None:
        state = self._stack.pop()
        set_state(self._stack[-1], state)


_PLAIN: dict[bytes, Callable[[], Any]] = {
    **{b"}": dict, b"]": list, b")": tuple},
    **{b"N": lambda: None, b"\x88": lambda: True, b"\x89": lambda: False},
}
"""Steps that push a value."""

_NUMBERS = {b"K": "<B", b"M": "<H", b"J": "<i", b"G": ">d"}
"""Steps that push a number, by its form in the file."""

_SPANS = {
    **{b"C": ("<B", False), b"B": ("<I", False), b"\x8e": ("<Q", False), b"\x96": ("<Q", False)},
    **{b"\x8c": ("<B", True), b"X": ("<I", True), b"\x8d": ("<Q", True)},
}
"""Steps that push bytes or text, by the form of their length."""

_OTHERS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x95": _Machine._frame,
    b"\x8a": _Machine._whole_number,
    b"(": _Machine._mark,
    b"t": _Machine._tuple_since_mark,
    b"\x85": lambda machine: machine._tuple(1),
    b"\x86": lambda machine: machine._tuple(2),
    b"\x87": lambda machine: machine._tuple(3),
    b"a": lambda machine: machine._append([machine._stack.pop()]),
    b"e": lambda machine: machine._append(machine._since_mark()),
    b"s": _Machine._set_one,
    b"u": lambda machine: machine._set(machine._since_mark()),
    b"q": lambda machine: machine._remember(machine._number("<B")),
    b"r": lambda machine: machine._remember(machine._number("<I")),
    b"\x94": lambda machine: machine._remember(len(machine._memory)),
    b"h": lambda machine: machine._recall(machine._number("<B")),
    b"j": lambda machine: machine._recall(machine._number("<I")),
    b"c": _Machine._named_in_lines,
    b"\x93": _Machine._named_on_stack,
    b"R": _Machine._reduce,
    b"b": _Machine._build,
}

STEPS = (*_PLAIN, *_NUMBERS, *_SPANS, *_OTHERS, b".")
"""Every step that is known."""
