"""What a row of a manifest may say: each column is an option of `convert`, `verify` or `push`, and a kind of value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..families.heads import HEADS
from ..families.published import PUBLISHED
from ..families.transformers import ACTIVATIONS
from ..files.given import nbytes_of_size, pairs_of, path_of
from ..folder.card import LICENSES
from ..hub import Address
from ..tokenizer.wordpiece import KINDS

Value = Any
"""A plain value of JSON: a text, a number, true or false, or a list of texts."""

_YES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        verbs: the commands that have it as an option.
        read: makes its value of what stands in the manifest, beside the manifest's folder; raises UsageError.
        off: the option that says false, where there is one.
        on: whether there is an option that says true.
    """

    verbs: tuple[str, ...]
    read: Callable[[Value, Path], Value]
    off: str = ""
    on: bool = True


def _text(given: Value, base: Path) -> str:
    if not isinstance(given, str):
        raise UsageError(f"{given!r:.80}: expected a text")
    return given


def _file(given: Value, base: Path) -> str:
    path = path_of(base / path_of(_text(given, base)))
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    return str(path)


def _config(given: Value, base: Path) -> str:
    return given if _text(given, base) in PUBLISHED else _file(given, base)


def _flag(given: Value, base: Path) -> bool:
    value = given if isinstance(given, bool) else _YES.get(str(given).strip().lower())
    if value is None:
        raise UsageError(f"{given!r:.80}: expected true or false")
    return value


def _count(given: Value, base: Path) -> int:
    try:
        value = int(given) if isinstance(given, (str, int)) and not isinstance(given, bool) else 0
    except ValueError:
        value = 0
    if value < 1:
        raise UsageError(f"{given!r:.80}: expected a number from 1 on")
    return value


def _number(given: Value, base: Path) -> float:
    try:
        value = float(given) if isinstance(given, (str, int, float)) and not isinstance(given, bool) else 0.0
    except (ValueError, OverflowError):
        value = 0.0
    if not 0 < value < math.inf:
        raise UsageError(f"{given!r:.80}: expected a number over 0")
    return value


def _size(given: Value, base: Path) -> int:
    if isinstance(given, (bool, float)):
        raise UsageError(f"{given!r:.80}: expected a size, such as 2GB")
    return nbytes_of_size(given)


def _repository(given: Value, base: Path) -> str:
    return str(Address.parse(_text(given, base))).removeprefix("hf://")


def _choice(*choices: str) -> Callable[[Value, Path], str]:
    def read(given: Value, base: Path) -> str:
        if given not in choices:
            near = get_close_matches(str(given), choices, n=1)
            also = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"{given!r:.80}: expected one of {', '.join(choices)}{also}")
        return str(given)

    return read


def _several(given: Value, base: Path) -> list[str]:
    """Texts: a list, or one text with `;` between them."""
    each = given.split(";") if isinstance(given, str) else given
    if not isinstance(each, list) or not all(isinstance(one, str) for one in each):
        raise UsageError(f"{given!r:.80}: expected texts, with ; between them")
    return [one.strip() for one in each if one.strip()]


def _renames(given: Value, base: Path) -> list[str]:
    each = _several(given, base)
    pairs_of(each)
    return each


_BOTH = ("convert", "verify")

COLUMNS: Mapping[str, Column] = {
    "head": Column(("convert",), _choice(*HEADS)),
    "labels": Column(_BOTH, _file),
    "config": Column(_BOTH, _config),
    "vocab": Column(_BOTH, _file),
    "lower_case": Column(("convert",), _flag, off="--cased"),
    "tokenizer": Column(("convert",), _choice(*KINDS)),
    "activation": Column(("convert",), _choice(*ACTIVATIONS)),
    "max_relative_position": Column(("convert",), _count),
    "dtype": Column(("convert",), _choice(*_DTYPES)),
    "allow_overflow": Column(("convert",), _flag),
    "max_shard_size": Column(("convert",), _size),
    "prefix": Column(("convert",), _text),
    "part": Column(("convert",), _text),
    "average": Column(("convert",), _flag),
    "drop": Column(("convert",), _several),
    "rename": Column(("convert",), _renames),
    "texts": Column(("verify",), _file),
    "original": Column(("verify",), _text),
    "tolerance": Column(("verify",), _number),
    "assume": Column(("verify",), _several),
    "verify": Column((), _flag),
    "push": Column((), _repository),
    "license": Column(("push",), _choice(*LICENSES)),
    "private": Column(("push",), _flag),
    "revision": Column(("push",), _text),
    "create_pr": Column(("push",), _flag),
    "message": Column(("push",), _text),
    "card": Column(("push",), _flag, off="--no-card", on=False),
}
"""Every column besides `source` and `output`."""

_PARAMETERS = {"max_shard_size": "max_shard_bytes"}
"""Options whose argument in Python has another name."""


def read_value(name: str, given: Value, base: Path) -> Value:
    """The value of the column `name`.

    Raises:
        UsageError: there is no such column, or it cannot have this value.
    """
    if name not in COLUMNS:
        near = get_close_matches(name, ("source", "output", *COLUMNS), n=1)
        raise UsageError(
            f"no such column{f'; did you mean {near[0]}?' if near else f'; there are {known_columns()}'}",
        )
    return COLUMNS[name].read(given, base)


def known_columns() -> str:
    """Every column's name, for a message."""
    return ", ".join(("source", "output", *COLUMNS))


def arguments_of(verb: str, options: Mapping[str, Value]) -> dict[str, Value]:
    """The arguments in Python of the command `verb` among a row's `options`."""
    mine = {name: value for name, value in options.items() if verb in COLUMNS[name].verbs}
    return {_PARAMETERS.get(name, name): value for name, value in mine.items()}


def words_of(verb: str, options: Mapping[str, Value]) -> list[str]:
    """The same as words of a command line."""
    words = list[str]()
    for name, value in options.items():
        column, option = COLUMNS[name], f"--{name.replace('_', '-')}"
        if verb not in column.verbs:
            continue
        match value:
            case True:
                words += [option] if column.on else []
            case False:
                words += [column.off] if column.off else []
            case list():
                words += [word for one in value for word in (option, one)]
            case _:
                words += [option, f"{value}B" if name == "max_shard_size" else str(value)]
    return words
