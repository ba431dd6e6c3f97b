"""What people give as a path, a size or a text file, read in the way that they mean it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..text import quoted

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_ENCODINGS = (("utf-16", "UTF-16"), ("gb18030", "GB18030"), ("big5", "BIG5"))
"""What Chinese files were written in before UTF-8: Python's names and iconv's. GB18030 includes GBK and GB2312."""


def path_of(given: str | Path) -> Path:
    """The path `given`, with `~` as the home folder.

    Raises:
        UsageError: it is none: no text, a name that no drive takes, a circle of links, or the home of nobody.
    """
    if not isinstance(given, (str, os.PathLike)):
        raise UsageError(f"{given!r:.80}: expected a path, found {type(given).__name__}")
    try:
        path = Path(given).expanduser()
        os.lstat(path / "x")
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"{str(given)!r:.80}: not a path ({error})", hint="Check its name.") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise UsageError(f"{str(given)!r:.80}: not a path ({error.strerror})", hint="Check its name.") from error
    return path


def texts_of(given: str | Iterable[str] | None) -> tuple[str, ...]:
    """The texts that may be given one or several times; one alone may stand without a list."""
    return (given,) if isinstance(given, str) else tuple(given or ())


def pairs_of(given: str | Mapping[str, str] | Iterable[str | tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Names and other names: a dictionary, pairs, or texts such as "fc=classifier".

    Raises:
        UsageError: one of them is no pair.
    """
    each = given.items() if isinstance(given, Mapping) else [given] if isinstance(given, str) else given
    return tuple(_pair(one) for one in each)


def _pair(given: str | tuple[str, str]) -> tuple[str, str]:
    words = given.split("=", 1) if isinstance(given, str) else list(given) if isinstance(given, Iterable) else []
    if len(words) != 2 or not all(isinstance(word, str) and word for word in words):
        raise UsageError(f"{given!r:.80} is no OLD=NEW, such as fc=classifier")
    return words[0], words[1]


def one_of(option: str, given: Any, choices: Iterable[Any]) -> None:
    """Raises UsageError unless `given` is None or one of `choices`, which `option` takes."""
    listed = list(choices)
    if given is not None and not any(given is choice or given == choice for choice in listed):
        raise UsageError(f"{option} {given!r}: expected one of {', '.join(map(str, listed))}")


def nbytes_of_size(given: int | str) -> int:
    """Bytes, of a number of bytes or a text with a unit, such as "2GB".

    Raises:
        UsageError: it is neither. A text without a unit is none: nobody means five bytes by "5".
    """
    if isinstance(given, int):
        nbytes, unit = given, "B"
    else:
        match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", str(given).strip())
        nbytes, unit = (int(match[1]), match[2].upper()) if match else (0, "B")
    if nbytes < 1 or unit not in _UNITS:
        raise UsageError(f"{given!r} is not a size; expected a number with KB, MB or GB, such as 2GB")
    return nbytes * _UNITS[unit]


def in_utf8(path: Path, option: str) -> str:
    """What to do about a text file that is not UTF-8: the command that makes one of it. Empty if no encoding fits.

    Args:
        option: by which the new file is then named, such as "--vocab".
    """
    data = path.read_bytes()[: 1 << 20]
    for name, known in _ENCODINGS:
        if name == "utf-16" and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
            continue
        try:
            data.decode(name)
        except UnicodeDecodeError as error:
            if error.end < len(data) or len(data) < 1 << 20:  # not a character that the limit cut
                continue
        new = quoted(f"utf8-{path.name}")
        command = f"iconv -f {known} -t UTF-8 {quoted(path)} > {new}"
        return f"It looks like {known}. Make it UTF-8: {command}; then add {option} {new}"
    return ""


def similar(wanted: str, names: Iterable[str]) -> list[str]:
    """The names that somebody may have meant by `wanted`, such as vocab_zh.txt by vocab.txt; the closest first."""
    stem, dot, suffix = wanted.rpartition(".")
    of_kind = sorted(name for name in names if name != wanted and name.endswith(f"{dot}{suffix}"))
    held = [name for name in of_kind if stem.lower() in name.lower()]
    return held or get_close_matches(wanted, of_kind, n=3, cutoff=0.7)
