"""A row: one checkpoint, where its folder goes, and what was asked for it. And where rows' folders go by themselves."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import UsageError
from ..files.given import path_of
from ..hub import SCHEME, is_address
from .columns import words_of

LONGEST_NAME = 200
"""Bytes of a derived folder name. A drive takes 255 bytes, and the hidden folder beside it has a longer name."""

_COMMON = re.compile(r"((pytorch_|bert_|tf_)?model|weights?|checkpoint|ckpt|best|last|final)\b.*", re.IGNORECASE)
"""What programs call a checkpoint, whatever it is. The folder around it has the better name."""

_SUFFIX = re.compile(
    r"\.(bin|pt|pth|ckpt|safetensors|pdparams|h5|hdf5|weights|index|data-\d+-of-\d+|zip|tar|tgz|gz|bz2|xz|json|pkl)$"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One checkpoint of a batch.

    Attributes:
        number: its place in the batch, from 1 on.
        place: where it stands in the manifest, in words.
        source: a path or an address of the Hub.
        output: the folder to write, or the address of one.
        options: by column, what was asked for.
        known: why it is no NEZHA, where the Hub's list has said so.
    """

    number: int
    place: str
    source: str
    output: str
    options: Mapping[str, Any] = field(default_factory=dict)
    known: str = ""

    @property
    def verifies(self) -> bool:
        """Whether its proof is asked for."""
        return bool(self.options.get("verify", True))

    @property
    def repository(self) -> str:
        """The repository to push to, OWNER/NAME[@REVISION]; empty where none was asked for."""
        return str(self.options.get("push", ""))

    def commands(self, *answer: str) -> tuple[str, ...]:
        """The commands that do this row alone; `answer` is added to the first."""
        output = PurePosixPath(self.output).name if is_remote(self.output) else self.output
        output = f"./{output}" if output.startswith("-") else output
        pair = [self.source, output]
        words = [["convert", *pair, *words_of("convert", self.options), *answer]]
        if self.verifies:
            words.append(["verify", *pair, *words_of("verify", self.options)])
        if self.repository:
            words.append(["push", output, self.repository, *words_of("push", self.options)])
        return tuple(shlex.join(["nezha-convert", *each]) for each in words)


def is_remote(output: str) -> bool:
    """Whether `output` is the address of a folder in a store that fsspec knows, such as s3://bucket/folder."""
    return re.match(r"[a-z][a-z0-9+.-]*://", output) is not None


def joined(root: str, name: str) -> str:
    """The output `name` inside `root`, a folder or the address of one."""
    return f"{root.rstrip('/')}/{name}" if is_remote(root) else str(Path(root) / name)


def derived_names(sources: Sequence[str]) -> list[str]:
    """A folder's name for each source: its own; where two are alike, with the folders around it, joined by `__`."""
    paths = [_parts(source) for source in sources]
    depths = [1] * len(paths)
    while True:
        names = [_named(path[-depth:]) for path, depth in zip(paths, depths, strict=True)]
        count = Counter(name.lower() for name in names)  # a drive may not tell capital letters apart
        longer = [
            count[name.lower()] > 1 and depth < len(path)
            for name, path, depth in zip(names, paths, depths, strict=True)
        ]
        if not any(longer):
            return names
        depths = [depth + more for depth, more in zip(depths, longer, strict=True)]


def _named(parts: Sequence[str]) -> str:
    name = re.sub(r"[^\w.+=@-]+", "_", "__".join(parts)).lstrip(".-")
    return name.encode()[-LONGEST_NAME:].decode(errors="ignore").lstrip(".-") or "model"


def _parts(source: str) -> list[str]:
    """The names from which a folder's name is made, the last one the best."""
    if is_address(source):
        return [source.removeprefix(SCHEME).replace("@", "/").replace("/", "__")]
    path = Path(source).absolute()
    parts = [part for part in path.parts if part not in ("/", "..")]
    if not os.path.isdir(path) and parts:  # noqa: PTH112  (no error where it may not be read)
        stem = _SUFFIX.sub("", _SUFFIX.sub("", path.name))
        parts = parts[:-1] if _COMMON.fullmatch(stem) and len(parts) > 1 else [*parts[:-1], stem]
    return parts or ["model"]


def check_apart(rows: Sequence[Row]) -> list[str]:
    """What is wrong with the rows' outputs: two rows share one, or one lies in another or in a source."""
    seen: dict[str, Row] = {}
    problems = []
    for row in rows:
        key = _place(row.output)
        if key in seen:
            problems.append(
                f"{row.place} and {seen[key].place}, column 'output': both write {row.output}; "
                "give one of them another output"
            )
        seen.setdefault(key, row)
    sources = {_place(row.source): row for row in rows if not is_address(row.source)}
    for key, row in seen.items():
        parents = PurePosixPath(key).parents
        of = next((sources[str(place)] for place in (key, *parents) if str(place) in sources), None)
        if of:
            problems.append(
                f"{row.place}, column 'output': {row.output} is, or lies in, {of.source}, the source of {of.place}"
            )
        inside = next((seen[str(parent)] for parent in parents if str(parent) in seen), None)
        if inside:
            problems.append(f"{row.place}, column 'output': {row.output} lies in {inside.output} of {inside.place}")
    return problems


def _place(output: str) -> str:
    return output.rstrip("/") if is_remote(output) else Path(output).resolve().as_posix()


def placed(root: str, given: str) -> str:
    """The output that a manifest calls `given`: inside `root`, or a whole path or address.

    Raises:
        UsageError: it is no path, or leaves `root` by "..".
    """
    if is_remote(given):
        return given
    if (path := path_of(given)).is_absolute():
        return str(path)
    if ".." in PurePosixPath(given.replace("\\", "/")).parts or given.strip("./ ") == "":
        raise UsageError(f"{given!r:.80}: expected a folder inside {root}, or a whole path")
    return joined(root, given) if is_remote(root) else str(path_of(joined(root, given)))
