"""Follows a pickle without running anything in it.

A pickle is a program for a stack machine (Python's pickletools.py documents each step). This machine knows the steps
of protocols 0 to 5. It skips the data of arrays and keeps only its place in the file; see `values.py` for what it
makes of the rest.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from struct import Struct
from typing import Any, BinaryIO

from .meanings import as_key, call, check_key, name_of, numpy_type, set_state
from .values import Array, ArrayType, Name, Record, Span, Text, UnexpectedError

MAX_STEPS = 1 << 22
"""The most steps of a pickle; 100,000 arrays take 3 million. A step creates at most one object of some hundred bytes,
so this bounds the memory, whatever the pickle claims."""

FREE_STEPS, STEP_BYTES = 1 << 15, 10
"""How many steps any pickle may have, and how many bytes the file must have for each further step. So time and memory
are bounded by the size of the file. An array takes 10 to 30 steps: 1,000 arrays may be of any size, and further arrays
need 300 bytes each on average, of which 150 are names and types. NEZHA's arrays have thousands."""

MAX_TEXT = 4096
"""The most bytes of a name, a number or a line. Longer text can only be an array's data, and is skipped."""

MAX_GAP = 1 << 16
"""How many places of the memory may be left out: other programs make room for all up to the highest."""

_JOBLIB, _BYTES = "joblib.numpy_pickle.NumpyArrayWrapper", "torch.storage._load_from_bytes"

_NO_TEXT = Text()
_NO_TEXT.offset, _NO_TEXT.length, _NO_TEXT.text = 0, 0, "utf-8"

BROKEN = (IndexError, KeyError, struct.error, ValueError, TypeError, EOFError)
"""What following a damaged pickle raises, besides `UnexpectedError`."""


@dataclass(frozen=True, slots=True)
class Pickled:
    """What a pickle holds, and the classes and functions that it wanted and that have no meaning here."""

    value: Any
    wanted: tuple[str, ...]


def follow(
    data: BinaryIO,
    size: int,
    persistent: Callable[[Any], Any] | None = None,
    load_bytes: Callable[[Span], Any] | None = None,
    base: int = 0,
    more: int = 0,
) -> Pickled:
    """Follow the pickle that begins at the position of `data`, up to its end.

    Args:
        data: a seekable stream.
        size: where the stream ends.
        persistent: what an identity stands for that the program resolves by itself, such as a torch storage.
        load_bytes: what a torch file stands for that lies in the pickle as bytes.
        base: the offset of the stream in its file, for the places of arrays.
        more: bytes that the file has besides, such as the data of the arrays.

    Raises:
        UnexpectedError: it takes more steps than a file of that size may have, or does what no writer does.
        BROKEN: it is damaged.
    """
    return _Machine(data, size, persistent, load_bytes, base).run(
        min(MAX_STEPS, FREE_STEPS + (size + more) // STEP_BYTES)
    )


class _Machine:
    """The stack, the marks and the memory of one pickle. A damaged one raises one of `BROKEN`."""

    def __init__(
        self,
        data: BinaryIO,
        size: int,
        persistent: Callable[[Any], Any] | None,
        load_bytes: Callable[[Span], Any] | None,
        base: int,
    ) -> None:
        self._data, self._size, self._load_bytes, self._base = data, size, load_bytes, base
        self._resolve = persistent or (lambda identity: Record("a persistent id", identity))
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        """The stacks below the marks."""
        self._memory: dict[int, Any] = {}
        self._wanted: dict[str, None] = {}

    def run(self, limit: int) -> Pickled:
        read, left = self._data.read, limit
        while left:
            step = read(1)
            left -= step not in _SMALL
            if step == b"." and self._data.tell() <= self._size:
                return Pickled(self._stack.pop(), tuple(self._wanted))
            action = _STEPS.get(step)
            if action is None:
                if step in (b"", b"."):
                    raise EOFError("it ends in the middle")
                raise UnexpectedError(f"step {step!r}, which no pickle has")
            action(self)
        raise UnexpectedError(f"more than {limit} steps in {self._size} bytes")

    # Numbers and texts

    def _push(self, make: Callable[[], Any]) -> None:
        self._stack.append(make())

    def _push_number(self, form: Struct) -> None:
        self._stack.append(self._number(form))

    def _number(self, form: Struct) -> Any:
        return form.unpack(self._data.read(form.size))[0]

    def _push_long(self, form: Struct) -> None:
        length = self._number(form)
        if not 0 <= length <= MAX_TEXT:
            raise UnexpectedError(f"a number of {length} bytes")
        digits = self._data.read(length)
        if len(digits) < length:
            raise EOFError("it ends in the middle of a number")
        self._stack.append(int.from_bytes(digits, "little", signed=True))

    def _push_span(self, form: Struct, encoding: str | None) -> None:
        """Skip bytes or text of a declared length, but read a text that is short enough to be a name.

        Args:
            encoding: "utf-8" for text; "python 2" for its strings, which may be text or bytes; None for bytes.
        """
        length, offset = self._number(form), self._data.tell()
        stored = "utf-8" if encoding == "utf-8" else ""
        if not 0 <= length <= self._size - offset:
            raise EOFError(f"{length} bytes declared at offset {offset} of {self._size}")
        if encoding and not length:
            self._stack.append(_NO_TEXT)
        elif encoding and length <= MAX_TEXT:
            text = Text(_decoded(self._data.read(length), encoding))
            text.offset, text.length, text.text = self._base + offset, length, stored
            self._stack.append(text)
        else:
            self._stack.append(Span(self._base + offset, length, stored))
            self._data.seek(length, 1)

    def _line(self) -> bytes:
        line = self._data.readline(MAX_TEXT)
        if not line.endswith(b"\n"):
            raise EOFError("a line without an end")
        return line[:-1]

    def _push_line(self, read: Callable[[bytes], Any]) -> None:
        self._stack.append(read(self._line()))

    def _push_text_line(self, read: Callable[[bytes], str], stored: str) -> None:
        """A text of protocol 0. As in `_push_span`, a longer one can only be an array's data."""
        quotes = stored == "quoted"
        offset, line = self._data.tell(), self._data.readline(MAX_TEXT)
        length = len(line)
        while line and not line.endswith(b"\n"):
            line = self._data.readline(1 << 16)
            length += len(line)
        if not line:
            raise EOFError("a line without an end")
        span = Span(self._base + offset + quotes, length - 1 - 2 * quotes, stored)
        if length > len(line):
            self._stack.append(span)
        else:
            text = Text(read(line[:-1]))
            text.offset, text.length, text.text = span.offset, span.length, stored
            self._stack.append(text)

    # The stack, its marks and the memory

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _push_since_mark(self, make: Callable[[list[Any]], Any] | None) -> None:
        items = self._since_mark()
        if make:
            self._stack.append(make(items))

    def _tuple(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError("a tuple of more items than there are")
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _pop(self) -> None:
        if not self._stack:  # a mark lies on top
            self._since_mark()
        else:
            self._stack.pop()

    def _remember(self, key: int) -> None:
        if not 0 <= key <= len(self._memory) + MAX_GAP:
            raise UnexpectedError("a place in the memory far behind all others")
        self._memory[key] = self._stack[-1]

    def _recall(self, key: int) -> None:
        self._stack.append(self._memory[key])

    # Containers

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Record):
            for item in items if target.name == "builtins.set" else ():
                check_key(item)
            target.listed = target.listed or []
            target = target.listed
        if not isinstance(target, list):
            raise UnexpectedError("items for something that is not a list")
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Record):
            target.items = {} if target.items is None else target.items
            target = target.items
        if not isinstance(target, dict) or len(items) % 2:
            raise UnexpectedError("items for something that is not a dictionary")
        _fill(target, items)

    def _set_one(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    # Names and what they would make

    def _named_in_lines(self) -> None:
        module, name = self._line().decode("utf-8"), self._line().decode("utf-8")
        self._stack.append(name_of(module, name))

    def _named_on_stack(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise UnexpectedError("a function whose name is not text")
        self._stack.append(name_of(module, name))

    def _call(self, function: Any, arguments: Any) -> None:
        result = call(function, arguments)
        if isinstance(result, Record) and result.name == _BYTES and self._load_bytes:
            match result.arguments:
                case (Span() as span,):
                    result = self._load_bytes(span)
        if isinstance(result, Record) and not result.is_tensor and result.name != "builtins.set":
            self._wanted[result.name] = None
        self._stack.append(result)

    def _reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._call(function, arguments)

    def _new_with_keywords(self) -> None:
        keywords, arguments, kind = self._stack.pop(), self._stack.pop(), self._stack.pop()
        self._call(kind, (arguments, keywords) if keywords else arguments)

    def _instance_in_lines(self) -> None:
        self._named_in_lines()
        kind = self._stack.pop()
        self._call(kind, tuple(self._since_mark()))

    def _instance(self) -> None:
        kind, *arguments = self._since_mark() or [None]
        self._call(kind, tuple(arguments))

    def _build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        set_state(target, state)
        if isinstance(target, Record) and target.name == _JOBLIB and isinstance(state, dict):
            self._stack[-1] = self._joblib_array(state)

    def _joblib_array(self, state: dict[Any, Any]) -> Array:
        """joblib's NumpyArrayWrapper: the array's data follow this step, after a number of bytes of padding."""
        kind, shape = state.get("dtype"), state.get("shape")
        if not isinstance(kind, ArrayType) or not isinstance(shape, tuple):
            raise UnexpectedError("an array of joblib without a type or a shape")
        if state.get("numpy_array_alignment_bytes") is not None:
            self._data.seek(self._number(_BYTE), 1)
        array, offset = Array(), self._data.tell()
        set_state(array, (1, shape, kind, state.get("order") == "F", Span(self._base + offset, 0)))
        if (dtype := numpy_type(kind.name)) is None or dtype.kind not in "biufcV":  # a pickle of objects would follow
            raise UnexpectedError(f"an array of joblib of type {kind.name!r:.40}")
        length = prod(shape) * dtype.itemsize
        if length > self._size - offset:
            raise EOFError(f"an array of {length:,} bytes at offset {offset} of {self._size}")
        array.data = Span(self._base + offset, length)
        self._data.seek(length, 1)
        return array

    def _persistent(self, identity: Any) -> None:
        self._stack.append(self._resolve(identity))

    def _extension(self, form: Struct) -> None:
        self._call(name_of("extension", str(self._number(form))), ())

    def _frame(self) -> None:
        """The length of what follows, which other programs read at once."""
        if (length := self._number(_EIGHT_BYTES)) > self._size - self._data.tell():
            raise EOFError(f"a frame of {length:,} bytes at offset {self._data.tell()} of {self._size}")

    def _protocol(self) -> None:
        if (version := self._number(_BYTE)) > 5:
            raise UnexpectedError(f"protocol {version}, and 5 is the latest")


def _fill(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    for key, value in zip(map(as_key, items[::2]), items[1::2], strict=True):
        if key in target:
            raise UnexpectedError(f"{key!r} twice")
        target[key] = value
    return target


def _decoded(data: bytes, encoding: str) -> str:
    if encoding == "utf-8":
        return data.decode("utf-8", "surrogatepass")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _whole_number(line: bytes) -> int | bool:
    """Protocols 0 and 1 write True and False as 01 and 00."""
    return {b"01": True, b"00": False}[line] if line in (b"00", b"01") else int(line)


def _quoted(line: bytes) -> str:
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError("a text without quotes")
    return codecs.escape_decode(line[1:-1])[0].decode("latin-1")  # as pickle itself


_BYTE, _TWO_BYTES, _FOUR_BYTES, _EIGHT_BYTES = map(Struct, ("<B", "<H", "<I", "<Q"))
_SIGNED = Struct("<i")

_VALUES: dict[bytes, Callable[[], Any]] = {
    **{b"}": dict, b"]": list, b")": tuple, b"\x8f": partial(Record, "builtins.set")},
    **{b"N": lambda: None, b"\x88": lambda: True, b"\x89": lambda: False},
}

_NUMBERS = {b"K": _BYTE, b"M": _TWO_BYTES, b"J": _SIGNED, b"G": Struct(">d")}

_SPANS: dict[str | None, dict[bytes, Struct]] = {
    None: {b"C": _BYTE, b"B": _FOUR_BYTES, b"\x8e": _EIGHT_BYTES, b"\x96": _EIGHT_BYTES},
    "utf-8": {b"\x8c": _BYTE, b"X": _FOUR_BYTES, b"\x8d": _EIGHT_BYTES},
    "python 2": {b"U": _BYTE, b"T": _SIGNED},
}

_LINES: dict[bytes, Callable[[bytes], Any]] = {
    b"I": _whole_number,
    b"L": lambda line: int(line.removesuffix(b"L")),
    b"F": float,
}

_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    **{step: partial(_Machine._push, make=make) for step, make in _VALUES.items()},
    **{step: partial(_Machine._push_number, form=form) for step, form in _NUMBERS.items()},
    **{step: partial(_Machine._push_line, read=read) for step, read in _LINES.items()},
    **{
        step: partial(_Machine._push_span, form=form, encoding=encoding)
        for encoding, forms in _SPANS.items()
        for step, form in forms.items()
    },
    b"S": partial(_Machine._push_text_line, read=_quoted, stored="quoted"),
    b"V": partial(_Machine._push_text_line, read=lambda line: line.decode("raw-unicode-escape"), stored="escaped"),
    b"\x8a": partial(_Machine._push_long, form=_BYTE),
    b"\x8b": partial(_Machine._push_long, form=_SIGNED),
    b"\x80": _Machine._protocol,
    b"\x95": _Machine._frame,
    b"(": _Machine._mark,
    b"0": _Machine._pop,
    b"1": partial(_Machine._push_since_mark, make=None),
    b"2": lambda machine: machine._stack.append(machine._stack[-1]),
    b"t": partial(_Machine._push_since_mark, make=tuple),
    b"l": partial(_Machine._push_since_mark, make=list),
    b"d": partial(_Machine._push_since_mark, make=lambda items: _fill({}, items)),
    b"\x91": partial(_Machine._push_since_mark, make=lambda items: call(Name("builtins.set"), (items,))),
    b"\x85": partial(_Machine._tuple, count=1),
    b"\x86": partial(_Machine._tuple, count=2),
    b"\x87": partial(_Machine._tuple, count=3),
    b"a": lambda machine: machine._append([machine._stack.pop()]),
    **dict.fromkeys((b"e", b"\x90"), lambda machine: machine._append(machine._since_mark())),
    b"s": _Machine._set_one,
    b"u": lambda machine: machine._set(machine._since_mark()),
    b"p": lambda machine: machine._remember(int(machine._line())),
    b"q": lambda machine: machine._remember(machine._number(_BYTE)),
    b"r": lambda machine: machine._remember(machine._number(_FOUR_BYTES)),
    b"\x94": lambda machine: machine._remember(len(machine._memory)),
    b"g": lambda machine: machine._recall(int(machine._line())),
    b"h": lambda machine: machine._recall(machine._number(_BYTE)),
    b"j": lambda machine: machine._recall(machine._number(_FOUR_BYTES)),
    b"c": _Machine._named_in_lines,
    b"\x93": _Machine._named_on_stack,
    **dict.fromkeys((b"R", b"\x81"), _Machine._reduce),
    b"\x92": _Machine._new_with_keywords,
    b"i": _Machine._instance_in_lines,
    b"o": _Machine._instance,
    b"b": _Machine._build,
    b"Q": lambda machine: machine._persistent(machine._stack.pop()),
    b"P": lambda machine: machine._persistent(machine._line().decode("ascii")),
    b"\x82": partial(_Machine._extension, form=_BYTE),
    b"\x83": partial(_Machine._extension, form=_TWO_BYTES),
    b"\x84": partial(_Machine._extension, form=_SIGNED),
}

_SMALL = frozenset((b"N", b"\x88", b"\x89", b")", b"K", b"h", b"j"))
"""Steps that create nothing, so that they are not counted: a constant, a byte, what is in the memory."""

STEPS = (*_STEPS, b".")
"""All known steps. Those for buffers outside of the file (protocol 5) are not among them: no file has them."""
