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
from struct import Struct
from typing import Any, BinaryIO

from .meanings import JOBLIB, as_key, call, check_key, joblib_array, name_of, set_of, set_state
from .values import Array, Name, Record, Span, Text, UnexpectedError

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

_LOAD_BYTES, _SET = "torch.storage._load_from_bytes", "builtins.set"

_NO_TEXT = Text.at(Span(0, 0, "utf-8"), "")

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
    machine = _Machine(data, size, base, load_bytes)
    machine.resolve = persistent or machine.resolve
    return machine.run(min(MAX_STEPS, FREE_STEPS + (size + more) // STEP_BYTES))


class _Machine:
    """The stack, the marks and the memory of one pickle. A damaged one raises one of `BROKEN`."""

    def __init__(self, data: BinaryIO, size: int, base: int, load_bytes: Callable[[Span], Any] | None) -> None:
        self.data, self.size, self.base, self.load_bytes = data, size, base, load_bytes
        self.resolve: Callable[[Any], Any] = lambda identity: Record("a persistent id", identity)
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        """The stacks below the marks."""
        self.memory: dict[int, Any] = {}
        self.wanted: dict[str, None] = {}

    def run(self, limit: int) -> Pickled:
        read, left = self.data.read, limit
        while left:
            step = read(1)
            left -= step not in _SMALL
            if step == b"." and self.data.tell() <= self.size:
                return Pickled(self.stack.pop(), tuple(self.wanted))
            action = _STEPS.get(step)
            if action is None:
                if step in (b"", b"."):
                    raise EOFError("it ends in the middle")
                raise UnexpectedError(f"step {step!r}, which no pickle has")
            action(self)
        raise UnexpectedError(f"more than {limit} steps in {self.size} bytes")

    # What a step reads from the file

    def number(self, form: Struct) -> Any:
        return form.unpack(self.data.read(form.size))[0]

    def long(self, form: Struct) -> int:
        length = self.number(form)
        if not 0 <= length <= MAX_TEXT:
            raise UnexpectedError(f"a number of {length} bytes")
        digits = self.data.read(length)
        if len(digits) < length:
            raise EOFError("it ends in the middle of a number")
        return int.from_bytes(digits, "little", signed=True)

    def skipped(self, length: int) -> Span:
        """The place of the next `length` bytes, which are skipped."""
        offset = self.data.tell()
        if not 0 <= length <= self.size - offset:
            raise EOFError(f"{length:,} bytes declared at offset {offset} of {self.size}")
        self.data.seek(length, 1)
        return Span(self.base + offset, length)

    def text(self, form: Struct, decode: Callable[[bytes], str], stored: str = "") -> Text | Span:
        """A text of a declared length, or its place, if it is too long for a name."""
        span = self.skipped(self.number(form))
        span.text = stored
        if not 0 < span.length <= MAX_TEXT:
            return span if span.length else _NO_TEXT
        self.data.seek(-span.length, 1)
        return Text.at(span, decode(self.data.read(span.length)))

    def line(self) -> bytes:
        line = self.data.readline(MAX_TEXT)
        if not line.endswith(b"\n"):
            raise EOFError("a line without an end")
        return line[:-1]

    def name(self) -> Name:
        return name_of(self.line().decode("utf-8"), self.line().decode("utf-8"))

    def text_line(self, decode: Callable[[bytes], str], stored: str) -> Text | Span:
        """A text of protocol 0, in quotes if it is stored as "quoted"; or its place, if it is too long for a name."""
        offset, line = self.data.tell(), self.data.readline(MAX_TEXT)
        length = len(line)
        while line and not line.endswith(b"\n"):
            line = self.data.readline(1 << 16)
            length += len(line)
        if not line:
            raise EOFError("a line without an end")
        quotes = stored == "quoted"
        span = Span(self.base + offset + quotes, length - 1 - 2 * quotes, stored)
        return span if length > len(line) else Text.at(span, decode(line[:-1]))

    # What it takes from the stack

    def top(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise IndexError(f"{count} values taken where there are {len(self.stack)}")
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        return values

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    # What it does with both

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def remember(self, key: int) -> None:
        if not 0 <= key <= len(self.memory) + MAX_GAP:
            raise UnexpectedError("a place in the memory far behind all others")
        self.memory[key] = self.stack[-1]

    def extend(self, items: list[Any]) -> None:
        """Add items to the list or set on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, Record):
            for item in items if target.name == _SET else ():
                check_key(item)
            target.listed = target.listed or []
            target = target.listed
        if not isinstance(target, list):
            raise UnexpectedError("items for something that is not a list")
        target.extend(items)

    def fill(self, items: list[Any] | tuple[Any, ...]) -> None:
        """Add keys and values by turns to the dictionary on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, Record):
            target.items = {} if target.items is None else target.items
            target = target.items
        if not isinstance(target, dict) or len(items) % 2:
            raise UnexpectedError("items for something that is not a dictionary")
        _fill(target, items)

    def call(self, function: Any, arguments: Any) -> None:
        result = call(function, arguments)
        if isinstance(result, Record) and result.name == _LOAD_BYTES and self.load_bytes:
            match result.arguments:
                case (Span() as span,):
                    result = self.load_bytes(span)
        if isinstance(result, Record) and not result.is_tensor and result.name != _SET:
            self.wanted[result.name] = None
        self.push(result)

    def call_first(self, kind: Any, *arguments: Any) -> None:
        self.call(kind, arguments)

    def call_with_keywords(self, kind: Any, arguments: Any, keywords: Any) -> None:
        self.call(kind, (arguments, keywords) if keywords else arguments)

    def build(self, state: Any) -> None:
        """Give the object on top of the stack its state."""
        target = self.stack[-1]
        set_state(target, state)
        if isinstance(target, Record) and target.name == JOBLIB and isinstance(state, dict):
            self.stack[-1] = self.joblib_array(state)

    def joblib_array(self, state: dict[Any, Any]) -> Array:
        """joblib's NumpyArrayWrapper: the array's data follow this step, after a number of bytes of padding."""
        array, nbytes = joblib_array(state)
        if state.get("numpy_array_alignment_bytes") is not None:
            self.skipped(self.number(_BYTE))
        array.data = self.skipped(nbytes)
        return array

    def check_frame(self, length: int) -> None:
        """Other programs read a frame at once."""
        if length > self.size - self.data.tell():
            raise EOFError(f"a frame of {length:,} bytes at offset {self.data.tell()} of {self.size}")


def _fill(target: dict[Any, Any], items: list[Any] | tuple[Any, ...]) -> dict[Any, Any]:
    for key, value in zip(map(as_key, items[::2]), items[1::2], strict=True):
        if key in target:
            raise UnexpectedError(f"{key!r} twice")
        target[key] = value
    return target


def _utf8(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _python2(data: bytes) -> str:
    """A string of Python 2, which may be text or bytes."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _quoted(line: bytes) -> str:
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError("a text without quotes")
    return codecs.escape_decode(line[1:-1])[0].decode("latin-1")  # as pickle itself


def _escaped(line: bytes) -> str:
    return line.decode("raw-unicode-escape")


def _whole_number(line: bytes) -> int | bool:
    """Protocols 0 and 1 write True and False as 01 and 00."""
    return line == b"01" if line in (b"00", b"01") else int(line)


def _named(module: Any, name: Any) -> Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise UnexpectedError("a function whose name is not text")
    return name_of(module, name)


def _check_protocol(version: int) -> None:
    if version > 5:
        raise UnexpectedError(f"protocol {version}, and 5 is the latest")


_BYTE, _TWO_BYTES, _FOUR_BYTES, _EIGHT_BYTES = map(Struct, ("<B", "<H", "<I", "<Q"))
_SIGNED, _FLOAT = map(Struct, ("<i", ">d"))

_STEPS: dict[bytes, Callable[[_Machine], object]] = {
    # constants, numbers
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"K": lambda m: m.push(m.number(_BYTE)),
    b"M": lambda m: m.push(m.number(_TWO_BYTES)),
    b"J": lambda m: m.push(m.number(_SIGNED)),
    b"G": lambda m: m.push(m.number(_FLOAT)),
    b"\x8a": lambda m: m.push(m.long(_BYTE)),
    b"\x8b": lambda m: m.push(m.long(_SIGNED)),
    b"I": lambda m: m.push(_whole_number(m.line())),
    b"L": lambda m: m.push(int(m.line().removesuffix(b"L"))),
    b"F": lambda m: m.push(float(m.line())),
    # bytes, texts
    b"C": lambda m: m.push(m.skipped(m.number(_BYTE))),
    b"B": lambda m: m.push(m.skipped(m.number(_FOUR_BYTES))),
    b"\x8e": lambda m: m.push(m.skipped(m.number(_EIGHT_BYTES))),
    b"\x96": lambda m: m.push(m.skipped(m.number(_EIGHT_BYTES))),
    b"\x8c": lambda m: m.push(m.text(_BYTE, _utf8, "utf-8")),
    b"X": lambda m: m.push(m.text(_FOUR_BYTES, _utf8, "utf-8")),
    b"\x8d": lambda m: m.push(m.text(_EIGHT_BYTES, _utf8, "utf-8")),
    b"U": lambda m: m.push(m.text(_BYTE, _python2)),
    b"T": lambda m: m.push(m.text(_SIGNED, _python2)),
    b"S": lambda m: m.push(m.text_line(_quoted, "quoted")),
    b"V": lambda m: m.push(m.text_line(_escaped, "escaped")),
    # tuples, lists, dictionaries, sets
    b")": lambda m: m.push(()),
    b"\x85": lambda m: m.push(m.top(1)),
    b"\x86": lambda m: m.push(m.top(2)),
    b"\x87": lambda m: m.push(m.top(3)),
    b"t": lambda m: m.push(tuple(m.since_mark())),
    b"]": lambda m: m.push([]),
    b"l": lambda m: m.push(m.since_mark()),
    b"a": lambda m: m.extend([m.stack.pop()]),
    b"e": lambda m: m.extend(m.since_mark()),
    b"}": lambda m: m.push({}),
    b"d": lambda m: m.push(_fill({}, m.since_mark())),
    b"s": lambda m: m.fill(m.top(2)),
    b"u": lambda m: m.fill(m.since_mark()),
    b"\x8f": lambda m: m.push(Record(_SET)),
    b"\x90": lambda m: m.extend(m.since_mark()),
    b"\x91": lambda m: m.push(set_of(m.since_mark())),
    # the stack, the memory
    b"(": lambda m: m.mark(),
    b"0": lambda m: m.stack.pop() if m.stack else m.since_mark(),  # a mark may lie on top
    b"1": lambda m: m.since_mark(),
    b"2": lambda m: m.push(m.stack[-1]),
    b"p": lambda m: m.remember(int(m.line())),
    b"q": lambda m: m.remember(m.number(_BYTE)),
    b"r": lambda m: m.remember(m.number(_FOUR_BYTES)),
    b"\x94": lambda m: m.remember(len(m.memory)),
    b"g": lambda m: m.push(m.memory[int(m.line())]),
    b"h": lambda m: m.push(m.memory[m.number(_BYTE)]),
    b"j": lambda m: m.push(m.memory[m.number(_FOUR_BYTES)]),
    # names, and what they would make
    b"c": lambda m: m.push(m.name()),
    b"\x93": lambda m: m.push(_named(*m.top(2))),
    b"R": lambda m: m.call(*m.top(2)),
    b"\x81": lambda m: m.call(*m.top(2)),
    b"\x92": lambda m: m.call_with_keywords(*m.top(3)),
    b"i": lambda m: m.call(m.name(), tuple(m.since_mark())),
    b"o": lambda m: m.call_first(*m.since_mark() or [None]),
    b"b": lambda m: m.build(m.stack.pop()),
    b"P": lambda m: m.push(m.resolve(m.line().decode("ascii"))),
    b"Q": lambda m: m.push(m.resolve(m.stack.pop())),
    b"\x82": lambda m: m.call(name_of("extension", str(m.number(_BYTE))), ()),
    b"\x83": lambda m: m.call(name_of("extension", str(m.number(_TWO_BYTES))), ()),
    b"\x84": lambda m: m.call(name_of("extension", str(m.number(_SIGNED))), ()),
    # what stands around a pickle
    b"\x80": lambda m: _check_protocol(m.number(_BYTE)),
    b"\x95": lambda m: m.check_frame(m.number(_EIGHT_BYTES)),
}
"""What each step does. Those for buffers outside of the file (protocol 5) are not among them: no file has them."""

_SMALL = frozenset((b"N", b"\x88", b"\x89", b")", b"K", b"h", b"j"))
"""Steps that create nothing, so that they are not counted: a constant, a byte, what is in the memory."""

STEPS = (*_STEPS, b".")
"""All known steps."""
