"""A folder that appears complete or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OutputError
from .locks import LOCK, NoLocksError, claim, holds_only, leave, remove_abandoned

MARK = "conversion.json"
"""The report in every converted folder."""

TRAINED = "training.json"
"""The record in every folder of a model that was trained from a converted one."""

_NEW, _OLD = "new", "old"

_NOREPLACE, _EXCHANGE = 1, 2
"""Flags of Linux' renameat2."""


@contextmanager
def staged(output: Path, force: bool, nbytes: int, mark: str = MARK) -> Iterator[Path]:
    """A temporary folder that becomes `output` if the block ends well, and vanishes if it does not.

    It lies beside `output`, in a hidden folder that one process at a time may have. What a killed one left there is
    removed; an old output that it had moved aside goes back.

    Args:
        output: the folder to appear. It must not exist, unless `force` is given and it is a folder with `mark`.
        nbytes: what is going to be written, so that a full disk is noticed first.
        mark: the report in every folder of its kind; a folder without it is never replaced.

    Raises:
        OutputError: it exists, another process is writing it, there is not enough room, or it cannot be written.
    """
    check_output(output, force, mark)
    with _as_output_error(output):
        place = output.resolve()  # "." has no name, and a working folder may change
        place.parent.mkdir(parents=True, exist_ok=True)
        with _workplace(place) as folder:
            _check(place, force, mark)
            free = shutil.disk_usage(place.parent).free
            if nbytes > free:
                raise OutputError(
                    f"{output}: it needs {nbytes:,} bytes, and the disk has {free:,} free",
                    hint="Free some room, or name an output on another disk.",
                )
            stage = folder / _NEW
            stage.mkdir()
            yield stage
            _check(place, force, mark)  # again: another program may have been faster
            for path in (*stage.rglob("*"), stage):
                _sync(path)
            _rename_into_place(stage, place)
            _sync(place.parent)


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`: beside it and renamed, so that no reader sees half of it, and on the disk before that.

    Raises:
        OutputError: another process is writing it.
        OSError: it cannot be written; what was there before is there still.
    """
    with _workplace(path) as folder:
        (folder / _NEW).mkdir()
        new = folder / _NEW / path.name
        new.write_bytes(data)
        _sync(new)
        new.replace(path)
        _sync(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write a file where the user wants it, as `replace_file` does; what a link names, and what no file is, stays that.

    Raises:
        OutputError: it cannot be written; what was there before is there still.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or a device
            path.write_bytes(data)
        else:
            replace_file(path.resolve(), data)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error})", hint="Name another file."
        ) from error


def check_output(output: Path, force: bool, mark: str = MARK) -> None:
    """Raises OutputError unless `output` may be written. What a killed process left beside it is removed anyway."""
    remove_abandoned()
    with _as_output_error(output):
        place = output.resolve()
        if os.path.lexists(_hidden(place)):
            with _workplace(place):
                pass
        _check(output, force, mark)


def _check(output: Path, force: bool, mark: str) -> None:
    if not os.path.lexists(output):
        return
    if not force:
        raise OutputError(f"{output}: exists already", hint="Name another output, or add --force to replace it.")
    ours = output.is_dir() and not output.is_symlink() and ((output / mark).is_file() or not any(output.iterdir()))
    if not ours:
        raise OutputError(
            f"{output}: exists and is not a folder that nezha-convert wrote (no {mark} in it); not replaced",
            hint="Name another output, or remove it yourself.",
        )


@contextmanager
def _workplace(place: Path) -> Iterator[Path]:
    """The hidden folder beside `place`, for this process alone and without what another has left in it."""
    folder = _hidden(place)
    lock = _entered(folder, place)
    try:
        _clean_up(folder, place)
        yield folder
    finally:
        try:
            _clean_up(folder, place)
        except KeyboardInterrupt:  # it came only now, in the midst of this
            _clean_up(folder, place)
            raise
        finally:
            leave(folder, lock)


def _hidden(place: Path) -> Path:
    return place.with_name(f".{place.name}.part")


def _entered(folder: Path, place: Path) -> int | None:
    """Make and lock `folder`: the lock, None on a drive without locks, where the one who makes it has it.

    Raises:
        OutputError: another process has it, or it is none of ours.
    """
    while True:
        made = True
        try:
            folder.mkdir()
        except FileExistsError:
            made = False
        try:
            if not holds_only(folder, {LOCK, _NEW, _OLD}):
                raise OutputError(
                    f"{folder}: exists, and nezha-convert needs a folder of that name while it writes {place.name}",
                    hint="Name another output, or move it away.",
                )
            lock = claim(folder / LOCK)
        except FileNotFoundError:  # whoever had it has just left
            continue
        except NoLocksError as error:
            if made:
                return None
            raise OutputError(
                f"{place}: another process is writing it, or was killed while it did: the drive has no locks to tell",
                hint=f"If none is at work on it: mv {folder / _OLD} {place} if that is there, then rm -r {folder}",
            ) from error
        if lock is not None:
            return lock
        raise OutputError(
            f"{place}: another process is writing it", hint="Wait until it is done, or name another output."
        )


def _clean_up(folder: Path, place: Path) -> None:
    """Remove what is not in its place; but an old output goes back, unless there is one."""
    old = folder / _OLD
    if old.exists() and not os.path.lexists(place):
        old.rename(place)
    for path in (folder / _NEW, old):
        shutil.rmtree(path, ignore_errors=True)


def _rename_into_place(stage: Path, output: Path) -> None:
    """Move `stage` to `output`, in one step where Linux and the drive can; what was there stays beside it.

    Where they cannot, an old output is away for a moment, and an empty folder of that moment is replaced.
    """
    exists = os.path.lexists(output)
    if _renamed(stage, output, _EXCHANGE if exists else _NOREPLACE):
        return
    if exists:
        output.rename(stage.with_name(_OLD))
    stage.rename(output)


def _renamed(source: Path, target: Path, flag: int) -> bool:
    """Linux' renameat2, which replaces nothing or exchanges two folders; False where there is no such thing."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    here = -100  # AT_FDCWD: relative to the working folder
    if rename is None:
        return False
    if not rename(here, os.fsencode(source), here, os.fsencode(target), flag):
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(target))


def _sync(path: Path) -> None:
    """Put a file or a folder's names on the disk, so that a rename never reveals less after a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # network drives that do not sync folders
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _as_output_error(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OutputError(
            f"{error.filename2 or error.filename or output}: cannot be written ({error.strerror or error})",
            hint="Free some room, or name an output on another disk."
            if full
            else "Name an output that can be written.",
        ) from error
