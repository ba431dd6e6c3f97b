"""Reads a pickle of NumPy arrays without running anything in it.

A pickle is a program for a stack machine. This machine knows the steps for dictionaries, tuples, numbers, text and
arrays in protocols 2 to 5 (Python's pickletools.py documents each), and refuses any other step. It skips the data of
arrays and keeps only its place in the file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from functools import partial
from itertools import repeat
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO

from ...errors import CheckpointError
from ...files.state import State, state_of
from .arrays import FUNCTIONS, Function, Span, Text, UnexpectedError, set_state

MAX_STEPS = 1 << 22
"""The most steps of a pickle; 100,000 arrays take 3 million. A step creates at most one object of some hundred bytes,
so this bounds the memory, whatever the pickle claims."""

FREE_STEPS, STEP_BYTES = 1 << 15, 16
"""How many steps any pickle may have, and how many bytes the file must have for each further step. So time and memory
are bounded by the size of the file. An array takes 20 to 45 steps: 700 arrays (40 layers) may be of any size, and
further arrays need 720 bytes each on average, of which 150 are names and types. NEZHA's arrays have thousands."""

MAX_TEXT = 4096
"""The most bytes of a name. Longer text can only be an array's data, and is skipped."""

DAMAGED = "The file is damaged or cut short: copy it again from where it came from."


def read_pickle(file: Path) -> tuple[Any, State]:
    """What the pickle in `file` holds, and the file's state.

    Returns:
        Dictionaries, tuples, lists, numbers, `Text`, `Span` and `Array`; the state in which the file was read.

    Raises:
        CheckpointError: it is not a pickle of protocol 2 to 5, is damaged, or asks for anything else.
    """
    try:
        with open(file, "rb") as data:
            seen = state_of(os.fstat(data.fileno()))
            return _Machine(file, data).run(), seen
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
    """The stack, the marks and the memory of one pickle. A damaged one raises IndexError, KeyError or struct.error."""

    def __init__(self, file: Path, data: BinaryIO) -> None:
        self._file, self._data = file, data
        self._size = data.seek(0, 2)
        data.seek(0)
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        """The stacks below the marks."""
        self._memory: dict[int, Any] = {}

    def run(self) -> Any:
        if self._data.read(1) != b"\x80" or self._data.read(1) not in (b"\x02", b"\x03", b"\x04", b"\x05"):
            raise UnexpectedError("no header of protocol 2 to 5")
        read, limit = self._data.read, min(MAX_STEPS, FREE_STEPS + self._size // STEP_BYTES)
        for _ in repeat(None, limit):  # unlike range, it allocates no number for each step
            step = read(1)
            if step == b".":
                return self._stack.pop()
            if step not in _STEPS:
                if not step:
                    raise IndexError("it ends in the middle")
                raise UnexpectedError(f"step {step!r}, which arrays do not need")
            _STEPS[step](self)
        raise UnexpectedError(f"more than {limit} steps in {self._size} bytes")

    def _push(self, make: Callable[[], Any]) -> None:
        self._stack.append(make())

    def _push_number(self, form: Struct) -> None:
        self._stack.append(self._number(form))

    def _push_span(self, form: Struct, text: bool) -> None:
        """Skip bytes or text of a declared length, but read a text that is short enough to be a name."""
        length, offset = self._number(form), self._data.tell()
        if length > self._size - offset:
            raise IndexError(f"{length} bytes declared at offset {offset} of {self._size}")
        if text and length <= MAX_TEXT:
            name = Text(self._data.read(length).decode("utf-8"))
            name.offset = offset
            self._stack.append(name)
        else:
            self._stack.append(Span(offset, length, text))
            self._data.seek(length, 1)

    def _number(self, form: Struct) -> Any:
        return form.unpack(self._data.read(form.size))[0]

    def _frame(self) -> None:
        self._number(_EIGHT_BYTES)  # the length of the frame, which is not needed to read it

    def _whole_number(self) -> None:
        length = self._number(_BYTE)
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
            raise UnexpectedError("items for something that is not a list")
        self._stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise UnexpectedError("items for something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise UnexpectedError("a key that is not a name")
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
            raise UnexpectedError("a function whose name is not text")
        function = FUNCTIONS.get(f"{module} {name}")
        if function is None:
            raise CheckpointError(
                f"{self._file}: refused: it asks for {f'{module}.{name}'!r} to be loaded, and only arrays are. "
                "Nothing in it was run",
                hint="If you trust where it came from, load it there and save its state dict alone.",
            )
        self._stack.append(function)

    def _named_in_lines(self) -> None:
        module, name = self._line(), self._line()
        self._name_function(module, name)

    def _line(self) -> str:
        line = self._data.readline(MAX_TEXT)
        if not line.endswith(b"\n"):
            raise IndexError("it ends in the middle of a name")
        return line[:-1].decode("utf-8")

    def _named_on_stack(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._name_function(module, name)

    def _reduce(self) -> None:
        values, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Function) or not isinstance(values, tuple):
            raise UnexpectedError("a call of something that is not a function")
        self._stack.append(function.means(values))

    def _build(self) -> None:
        state = self._stack.pop()
        set_state(self._stack[-1], state)


_BYTE, _TWO_BYTES, _FOUR_BYTES, _EIGHT_BYTES = map(Struct, ("<B", "<H", "<I", "<Q"))

_VALUES: dict[bytes, Callable[[], Any]] = {
    **{b"}": dict, b"]": list, b")": tuple},
    **{b"N": lambda: None, b"\x88": lambda: True, b"\x89": lambda: False},
}

_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    **{step: partial(_Machine._push, make=make) for step, make in _VALUES.items()},
    **{
        step: partial(_Machine._push_number, form=form)
        for step, form in {b"K": _BYTE, b"M": _TWO_BYTES, b"J": Struct("<i"), b"G": Struct(">d")}.items()
    },
    **{
        step: partial(_Machine._push_span, form=form, text=text)
        for text, forms in {
            False: {b"C": _BYTE, b"B": _FOUR_BYTES, b"\x8e": _EIGHT_BYTES, b"\x96": _EIGHT_BYTES},
            True: {b"\x8c": _BYTE, b"X": _FOUR_BYTES, b"\x8d": _EIGHT_BYTES},
        }.items()
        for step, form in forms.items()
    },
    b"\x95": _Machine._frame,
    b"\x8a": _Machine._whole_number,
    b"(": _Machine._mark,
    b"t": _Machine._tuple_since_mark,
    b"\x85": partial(_Machine._tuple, count=1),
    b"\x86": partial(_Machine._tuple, count=2),
    b"\x87": partial(_Machine._tuple, count=3),
    b"a": lambda machine: machine._append([machine._stack.pop()]),
    b"e": lambda machine: machine._append(machine._since_mark()),
    b"s": _Machine._set_one,
    b"u": lambda machine: machine._set(machine._since_mark()),
    b"q": lambda machine: machine._remember(machine._number(_BYTE)),
    b"r": lambda machine: machine._remember(machine._number(_FOUR_BYTES)),
    b"\x94": lambda machine: machine._remember(len(machine._memory)),
    b"h": lambda machine: machine._recall(machine._number(_BYTE)),
    b"j": lambda machine: machine._recall(machine._number(_FOUR_BYTES)),
    b"c": _Machine._named_in_lines,
    b"\x93": _Machine._named_on_stack,
    b"R": _Machine._reduce,
    b"b": _Machine._build,
}

STEPS = (*_STEPS, b".")
"""All known steps."""
