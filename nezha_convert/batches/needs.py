"""What a row needs before it starts: memory and disk, estimated from the sizes of its files; and its fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from glob import escape
from pathlib import Path
from typing import Any

from ..files.state import state_of
from ..hub import Address, Hub, is_address
from .row import Row

PROVING, CONVERTING = 500 << 20, 100 << 20
"""Bytes of a process that verifies, with torch and transformers in it, and of one that only converts: measured 450 and
60 MiB on small checkpoints (benchmarks/RESULTS.md, "Batch")."""

FOLD = 2.7
"""Bytes of memory for each byte of weights while a model is proved: measured 1,272 MiB for NEZHA-base's 392."""

BESIDE = 2 << 20
"""Bytes of a converted folder besides its weights: a tokenizer, the model's code, the report."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a row needs.

    Attributes:
        nbytes: of the source's files.
        memory: bytes of memory while it is done.
        disk: bytes that it adds to the disk.
        download: bytes to fetch from the Hub.
        fingerprint: differs if the source or what was asked for differs.
        commit: of a source on the Hub.
        missing: why it is no NEZHA, if that is known already.
    """

    nbytes: int
    memory: int
    disk: int
    download: int = 0
    fingerprint: str = ""
    commit: str = ""
    missing: str = ""


def needs_of(row: Row, hub: Hub | None) -> Needs:
    """What `row` needs; of a source on the Hub by one request of `hub`.

    Raises:
        HubError: the Hub refused or failed.
    """
    if row.known:
        return Needs(0, 0, 0, missing=row.known, fingerprint=_digest(row, [row.known]))
    if hub is not None and is_address(row.source):
        commit, sizes = hub.sizes(Address.parse(row.source))
        if not sizes:
            return Needs(0, 0, 0, missing="no weights of a known format are in it", fingerprint=_digest(row, [commit]))
        return _needs(row, sum(sizes.values()), sum(sizes.values()), [commit], commit)
    files = list(_files(Path(row.source)))
    states = [(path.name, *state_of(path.stat())) for path in files]
    return _needs(row, sum(size for _, size, *_ in states), 0, states)


def _needs(row: Row, nbytes: int, download: int, states: list[Any], commit: str = "") -> Needs:
    memory = PROVING + int(FOLD * nbytes) if row.verifies else CONVERTING
    # The output of a row that goes elsewhere lies here until it is there.
    return Needs(nbytes, memory, nbytes + BESIDE + download, download, _digest(row, states), commit)


def _digest(row: Row, states: Iterable[Any]) -> str:
    """Of the row as it was asked for, and of the files that it reads, by their sizes and times of change."""
    named = [
        Path(value)
        for value in row.options.values()
        if isinstance(value, str) and os.path.isfile(value)  # noqa: PTH113  (a long message is no file, nor an error)
    ]
    asked = {name: value for name, value in asdict(row).items() if name not in ("number", "place")}
    beside = [(path.name, *state_of(path.stat())) for path in named]
    text = json.dumps([asked, list(states), beside], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _files(source: Path) -> Iterable[Path]:
    """The files of a source, or more: all of its folder, or those beside it of its own name.

    None if it is missing or may not be read, of which its conversion has more to say. `os.path` raises nothing then.
    """
    if os.path.isdir(source):  # noqa: PTH112
        found: Iterable[Path] = (*source.glob("*"), *source.glob("*/*"))
    else:
        stem = source.name.split(".index")[0].split(".data-")[0]
        found = (*source.parent.glob(f"{escape(stem)}*"), *source.parent.glob("*.json"), *source.parent.glob("*.txt"))
    return sorted(path for path in set(found) if os.path.isfile(path) and not path.name.startswith("."))  # noqa: PTH113
