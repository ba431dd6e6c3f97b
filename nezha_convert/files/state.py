"""Files of other people: has one changed since we looked at it, and does a link lead out of its folder?"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import CheckpointError

State = tuple[int, int, int]
"""A file's size, time of change and inode number: one of them differs once the file was written to or replaced."""


def state_of(file: os.stat_result) -> State:
    """A file's `State`."""
    return file.st_size, file.st_mtime_ns, file.st_ino


def check_unchanged(file: Path, seen: State, descriptor: int | None = None) -> None:
    """Check that `file` is still in the state in which it was `seen`.

    Args:
        descriptor: look at the file that is open under this number, not at the one that now has the name `file`.

    Raises:
        CheckpointError: the file was written to, replaced or removed.
    """
    try:
        same = state_of(file.stat() if descriptor is None else os.fstat(descriptor)) == seen
    except FileNotFoundError:
        same = False
    if not same:
        raise changed(file)


def changed(file: Path) -> CheckpointError:
    """The error about a file that changed while it was being read."""
    return CheckpointError(
        f"{file}: it was changed meanwhile, while it was being read",
        hint="Run the same command again when nothing writes to it.",
    )


def leads_outside(file: Path) -> bool:
    """Whether `file`, which must exist, is a link to a file outside its folder.

    Links of the Hub's cache are allowed: it keeps the data in ``blobs/``, beside the snapshots' folders.
    """
    folder, target = file.parent.resolve(), file.resolve()
    in_cache = target.parent.name == "blobs" and target.parent.parent in folder.parents
    return folder not in target.parents and not in_cache
