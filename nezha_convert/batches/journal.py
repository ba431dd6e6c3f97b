"""The journal of a batch: a line of JSON for each row that ended, on the disk before the next step.

It saves a second look at what is done. What it says is believed only of an output whose own record is still the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._version import __version__
from ..errors import OutputError
from ..files.locks import LOCK, NoLocksError, claim
from ..text import quoted
from .results import RowResult

JOURNAL, REPORT = "batch.jsonl", "report.json"
"""In the folder of the outputs: the journal, and the report of the last run."""

_HIDDEN = ".nezha-convert-batch"


class Journal:
    """The journal in `folder`.

    Args:
        folder: that of the outputs; it is created by the first line.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / JOURNAL
        self._last: dict[str, dict[str, Any]] = {entry["output"]: entry for entry in self._entries()}

    def _entries(self) -> Iterator[dict[str, Any]]:
        """Its lines. One that a kill cut short is passed over, and the row it was about is looked at again."""
        try:
            lines = self._file.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"{self._file}: not readable ({error.strerror or error})") from error
        for line in lines:
            try:
                entry = json.loads(line)
                RowResult.from_dict(entry["result"])
                if {"output", "fingerprint", "version"} <= entry.keys():
                    yield entry
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue

    def found(self, output: str, fingerprint: str) -> RowResult | None:
        """What became of the row, if it was the same row of the same source."""
        entry = self._last.get(output)
        return RowResult.from_dict(entry["result"]) if entry and entry["fingerprint"] == fingerprint else None

    def of_this_version(self, output: str) -> bool:
        """Whether this version of nezha-convert wrote the row's line: another one may decide otherwise."""
        return self._last.get(output, {}).get("version") == __version__

    def differs(self, output: str, fingerprint: str) -> bool:
        """Whether there was another row of this output."""
        entry = self._last.get(output)
        return entry is not None and entry["fingerprint"] != fingerprint

    def add(self, result: RowResult, fingerprint: str) -> None:
        """Write what became of a row, and put it on the disk.

        Raises:
            OutputError: it cannot be written.
        """
        entry = {
            "output": result.output,
            "fingerprint": fingerprint,
            "version": __version__,
            "result": result.to_dict(),
        }
        data = json.dumps(entry).encode() + b"\n"
        try:
            with open(self._file, "ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    data = data if file.read(1) == b"\n" else b"\n" + data  # the last line was cut short
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(
                f"{self._file}: cannot be written ({error.strerror or error})",
                hint="Free some room, then run the same command again: what is done is not done again.",
            ) from error
        self._last[result.output] = entry


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """In the block, no other batch writes into `folder`, which is created.

    Raises:
        OutputError: another one does, the folder cannot be made, or a file of another is called as ours are.
    """
    hidden = folder / _HIDDEN
    try:
        strange = [] if hidden.is_dir() else [folder / name for name in (JOURNAL, REPORT) if (folder / name).exists()]
        if strange:
            raise OutputError(
                f"{strange[0]}: is there, and no batch wrote it in this folder; it would be lost",
                hint="Name another --output, or move this file away.",
            )
        hidden.mkdir(parents=True, exist_ok=True)
        lock = claim(hidden / LOCK)
    except NoLocksError:
        yield  # such a drive lets each row's own hidden folder keep two runs apart
        return
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error})", hint="Name another --output."
        ) from error
    if lock is None:
        raise OutputError(
            f"{folder}: another batch is at work in it",
            hint=f"Wait until it is done, or name another --output. What it has done: {quoted(folder / JOURNAL)}",
        )
    try:
        yield
    finally:
        os.close(lock)
