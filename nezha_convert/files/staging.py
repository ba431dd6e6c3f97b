"""Output folders and files that appear complete or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from ..errors import OutputError
from ..text import quoted
from .locks import LOCK, NoLocksError, claim, holds_only, leave, remove_abandoned

MARK = "conversion.json"
"""The report in every converted folder."""

TRAINED = "training.json"
"""The record in every folder of a model that was trained from a converted one."""

EXPORTED = "export.json"
"""The record in every folder that was exported for another program."""

_NEW, _OLD = "new", "old"
"""In the hidden folder: the output while it is written, and the output that it replaces."""

_NOREPLACE, _EXCHANGE = 1, 2
"""Flags of Linux's renameat2."""


@contextmanager
def staged(output: Path, force: bool, nbytes: int, mark: str = MARK) -> Iterator[Path]:
    """A temporary folder that becomes `output` if the block succeeds and is removed if it fails.

    The temporary folder lies beside `output`, in a hidden folder that only one process at a time can lock. If a killed
    process left files there, they are removed, and an old output that it had moved aside is moved back.

    Args:
        output: the folder to write. It must not exist, unless `force` is set and it is empty or holds the file `mark`.
        force: replace such a folder.
        nbytes: how much will be written. A disk with less free space is refused before anything is written.
        mark: the name of the report in every folder of this kind.

    Raises:
        OutputError: `output` exists, another process is writing it, the disk is too full, or it cannot be written.

    Example:
        >>> with staged(Path("output"), force=False, nbytes=3) as folder:
        ...     (folder / "file").write_bytes(b"abc")
    """
    check_output(output, force, mark)
    with _as_output_error(output):
        place = output.resolve()  # "." has no name, and the working folder may change
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
            _check(place, force, mark)  # again, for another program may have created it meanwhile
            _keep_permissions(place, stage)
            for path in (*stage.rglob("*"), stage):
                sync(path)
            _rename_into_place(stage, place)
            sync(place.parent)


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` to a new file, put it on the disk and rename it to `path`, so that no reader sees half of it.

    It gets the mode and, if we may give it away, the owner of the file that it replaces.

    Raises:
        OutputError: another process is writing it.
        OSError: it cannot be written; the old file is still there.
    """
    with _workplace(path) as folder:
        (folder / _NEW).mkdir()
        new = folder / _NEW / path.name
        new.write_bytes(data)
        _keep_mode(path, new)
        sync(new)
        new.replace(path)
        sync(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write a file that the user named, as `replace_file` does.

    A link stays a link: its target is replaced. A pipe or a device is written to, not replaced.

    Raises:
        OutputError: it cannot be written; the old file is still there.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            replace_file(path.resolve(), data)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error})", hint="Name another file."
        ) from error


def check_writable(path: Path, hint: str = "Name a file in another folder.") -> None:
    """Raises OutputError, with `hint`, where `write_file` could not write `path`: before anything is computed."""
    try:
        folder = path.resolve().parent
        if not folder.is_dir():
            raise OutputError(
                f"{path}: cannot be written: there is no folder {path.parent}",
                hint=f"Create it: mkdir -p {quoted(path.parent)}, or name another file.",
            )
        with suppress(FileNotFoundError):
            path.stat()  # raises for a name that is too long
        if path.is_file() or not path.exists():  # neither a pipe nor a device
            with TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: no file can be made in {path.parent} ({error.strerror or error})", hint=hint
        ) from error


def check_output(output: Path, force: bool | None, mark: str = MARK) -> None:
    """Check that `output` may be written, and remove what killed processes have left behind.

    Args:
        output, force, mark: as in `staged`.

    Raises:
        OutputError: it exists and may not be replaced, or another process is writing it.
    """
    remove_abandoned()
    with _as_output_error(output):
        place = output.resolve()
        if os.path.lexists(_hidden(place)):
            with _workplace(place):  # entering it cleans it up
                pass
        _check(output, force, mark)


def _check(output: Path, force: bool | None, mark: str) -> None:
    if not os.path.lexists(output):
        return
    ours = output.is_dir() and not output.is_symlink() and ((output / mark).is_file() or not any(output.iterdir()))
    if not ours:
        raise OutputError(
            f"{output}: exists and is not a folder that nezha-convert wrote (no {mark} in it); not replaced",
            hint="Name another output, or remove it yourself.",
        )
    if not force:
        or_force = "" if force is None else ", or add --force to replace it"
        raise OutputError(f"{output}: exists already", hint=f"Name another output{or_force}.")


@contextmanager
def _workplace(place: Path) -> Iterator[Path]:
    """The hidden folder beside `place`, locked for this process and emptied of what another one left in it."""
    folder = _hidden(place)
    lock = _enter(folder, place)
    try:
        _clean_up(folder, place)
        yield folder
    finally:
        try:
            _clean_up(folder, place)
        except KeyboardInterrupt:  # Ctrl-C in the middle of the cleanup: finish it first
            _clean_up(folder, place)
            raise
        finally:
            leave(folder, lock)


def _hidden(place: Path) -> Path:
    return place.with_name(f".{place.name}.part")


def _enter(folder: Path, place: Path) -> int | None:
    """Create and lock `folder`.

    Returns:
        The lock's descriptor; None on a drive without locks, where the folder belongs to the process that created it.

    Raises:
        OutputError: another process has it, or it holds files that are not ours.
    """
    while True:
        created = True
        try:
            folder.mkdir()
        except FileExistsError:
            created = False
        try:
            if not holds_only(folder, {LOCK, _NEW, _OLD}):
                raise OutputError(
                    f"{folder}: exists, and nezha-convert needs a folder of that name while it writes {place.name}",
                    hint="Name another output, or move it away.",
                )
            lock = claim(folder / LOCK)
        except FileNotFoundError:  # its owner has just removed it: try again
            continue
        except NoLocksError as error:
            if created:
                return None
            raise OutputError(
                f"{place}: another process is writing it, or was killed while it did: the drive has no locks to tell",
                hint=f"If none is at work on it: mv {quoted(folder / _OLD)} {quoted(place)} if that is there, "
                f"then rm -r {quoted(folder)}",
            ) from error
        if lock is not None:
            return lock
        raise OutputError(
            f"{place}: another process is writing it", hint="Wait until it is done, or name another output."
        )


def _clean_up(folder: Path, place: Path) -> None:
    """Move an old output back if `place` is empty, and remove everything else in the hidden `folder`."""
    old = folder / _OLD
    if old.exists() and not os.path.lexists(place):
        old.rename(place)
    for path in (folder / _NEW, old):
        shutil.rmtree(path, ignore_errors=True)


def _keep_permissions(old: Path, new: Path) -> None:
    """Give the folder `new` the owner, group and mode of the folder `old`, and each file those of its namesake there.

    A file without a namesake gets the folder's owner and group.
    """
    if old.is_dir():
        for path in (*new.rglob("*"), new):
            _keep_owner(old, path)
            _keep_mode(old / path.relative_to(new), path)


def _keep_mode(old: Path, new: Path) -> None:
    if old.is_file() or old.is_dir():
        _keep_owner(old, new)
        new.chmod(stat.S_IMODE(old.stat().st_mode))  # after the owner, whose change takes set-group-ID away


def _keep_owner(old: Path, new: Path) -> None:
    """Who may not give a file away (only root may) keeps it."""
    if not hasattr(os, "chown"):  # Windows
        return
    kept = old.stat()
    for owner, group in ((kept.st_uid, -1), (-1, kept.st_gid)):
        with suppress(PermissionError):
            os.chown(new, owner, group)


def _rename_into_place(stage: Path, output: Path) -> None:
    """Rename `stage` to `output`. An old output ends up in the hidden folder, where `_clean_up` removes it.

    Linux does this in one step if the drive can. Elsewhere the old output is missing for a moment; an empty folder that
    another program creates in that moment is replaced.
    """
    exists = os.path.lexists(output)
    if _renamed(stage, output, _EXCHANGE if exists else _NOREPLACE):
        return
    if exists:
        output.rename(stage.with_name(_OLD))
    stage.rename(output)


def _renamed(source: Path, target: Path, flag: int) -> bool:
    """Call Linux's renameat2, which exchanges two folders or refuses to replace one; False where it does not exist."""
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


def sync(path: Path) -> None:
    """Write a file's data or a folder's list of names to the disk itself.

    Called before a rename, so that after a power cut the new name never leads to an incomplete file.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # some network drives cannot sync folders
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
