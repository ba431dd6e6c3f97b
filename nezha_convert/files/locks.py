"""Who is at work where: a lock that the system takes back when its process ends, however that ends.

A lock, not a process's number with the time of its start: on a network drive the other process may be another
machine's, whose numbers mean nothing here. A lock file, not the folder itself: NFS locks only what is opened for
writing. What has no lock on it was left by a process that was killed, and the next run removes it.
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
    """The drive has no locks."""


def claim(file: Path) -> int | None:
    """Create `file` if it is not there, and lock it: a descriptor, whose closing gives it back; None if it is taken.

    Raises:
        NoLocksError: the drive has no locks; the file was created all the same.
        OSError: it cannot be created.
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
        os.close(descriptor)  # whoever had it has removed the file since: what is locked is nothing


class TemporaryFolder:
    """A folder in the system's temporary space, for this process alone.

    It is removed by ``remove``, at the end of a ``with``, with this object, when Python ends; and where the process is
    killed, by the next one that makes such a folder.
    """

    def __init__(self) -> None:
        remove_abandoned()
        while True:
            holder = Path(tempfile.mkdtemp(prefix=_PREFIX))
            try:
                lock = claim(holder / LOCK)
            except FileNotFoundError:  # taken for an abandoned one before it was locked
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
    """Remove `folder` and its `lock`, which is all that is in it. What cannot be removed is left to the next run."""
    try:
        with suppress(OSError):
            (folder / LOCK).unlink()
    finally:
        if lock is not None:
            os.close(lock)  # before the folder goes: NFS keeps an open file in it, by another name
        with suppress(OSError):  # not empty: another process has entered it
            folder.rmdir()


def remove_abandoned() -> None:
    """Remove the temporary folders of processes that were killed."""
    for holder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's; or it went meanwhile; or a drive without locks: there it stays
            if holds_only(holder, {LOCK, _FILES}) and (lock := claim(holder / LOCK)) is not None:
                _remove(holder, lock)


def holds_only(folder: Path, names: set[str]) -> bool:
    """Whether `folder` is one, no link to one, and nothing is in it but `names`: whatever else is there is not ours."""
    return not folder.is_symlink() and {path.name for path in folder.iterdir()} <= names
