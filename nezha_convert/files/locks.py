"""Locks on folders, and temporary folders that a later run removes if their process was killed.

The operating system releases a lock when its process ends, even when the process is killed. So a folder whose lock file
nobody holds was left behind, and the next run removes it.

Why not write down a process number? On a network drive the other process may run on another machine, where the number
means nothing. Why a lock file, and not a lock on the folder? NFS locks only files that are open for writing.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = "lock"

_PREFIX, _FILES = "nezha-convert-tmp-", "files"
_WITHOUT_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class NoLocksError(OSError):
    """The drive does not support locks."""


def claim(file: Path) -> int | None:
    """Lock `file`, which is created if it is not there.

    Returns:
        An open descriptor: closing it releases the lock. None if another process holds the lock.

    Raises:
        NoLocksError: the drive does not support locks; the file was created all the same.
        OSError: the file cannot be created.
    """
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(file.stat(), os.fstat(descriptor)):
                    return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            if error.errno in _WITHOUT_LOCKS:
                raise NoLocksError(error.errno, error.strerror, str(file)) from error
            raise
        os.close(descriptor)  # the file that we locked has been removed since: try again


class TemporaryFolder:
    """A folder in the system's temporary directory, for this process alone.

    It is removed by ``remove()``, at the end of a ``with`` block, when this object is deleted, or when Python ends. If
    the process is killed, the next process that creates such a folder removes it.

    Example:
        >>> with TemporaryFolder() as folder:
        ...     (folder / "file").write_bytes(b"abc")
    """

    def __init__(self) -> None:
        remove_abandoned()
        while True:
            holder = Path(tempfile.mkdtemp(prefix=_PREFIX))
            try:
                lock = claim(holder / LOCK)
            except FileNotFoundError:  # another process took it for an abandoned one before we locked it
                continue
            except NoLocksError:
                lock = None
            else:
                if lock is None:
                    continue
            break
        self.path = holder / _FILES
        self.path.mkdir()
        self.remove = weakref.finalize(self, _remove, holder, lock)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.remove()


def _remove(holder: Path, lock: int | None) -> None:
    shutil.rmtree(holder / _FILES, ignore_errors=True)
    leave(holder, lock)


def leave(folder: Path, lock: int | None) -> None:
    """Release `lock`, and remove `folder` with its lock file. The next run removes what cannot be removed now.

    Args:
        folder: holds nothing but the lock file.
        lock: the descriptor from `claim`; None on a drive without locks.
    """
    try:
        with suppress(OSError):
            (folder / LOCK).unlink()
    finally:
        if lock is not None:
            os.close(lock)  # before removing the folder: NFS keeps an open file in it, under another name
        with suppress(OSError):  # not empty: another process has entered it
            folder.rmdir()


def remove_abandoned() -> None:
    """Remove the temporary folders of processes that were killed."""
    for holder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, already removed, or on a drive without locks: leave it
            if holds_only(holder, {LOCK, _FILES}) and (lock := claim(holder / LOCK)) is not None:
                _remove(holder, lock)


def holds_only(folder: Path, names: set[str]) -> bool:
    """Whether `folder` is a real folder, not a link, and holds nothing but `names`. If not, it is not ours."""
    return not folder.is_symlink() and {path.name for path in folder.iterdir()} <= names
