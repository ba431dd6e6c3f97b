"""Each visitor's private folder: nobody else's, outside of what is served, deleted when the visitor has gone."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .jobs import Job
from .limits import Limits
from .questions import Way

_PREFIX = "nezha-page-"


class Full(Exception):  # noqa: N818
    """There is no room: for another visitor, for more files, or on the disk. `word` is the message's key in `words`."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


@dataclass
class Visitor:
    """One visitor's folders and what is known so far.

    Attributes:
        folder: the private folder; nothing in it is served.
        served: the folder of the visitor's own downloads, under a name that nobody can guess.
        limits: what it may use.
        found: what the last look at the source has found, as `work.look` returns it.
        answers: the ways that the visitor has chosen.
        settings: the arguments that the visitor has set, besides.
        made: what the last conversion has made, as `work.convert` returns it.
        job: what runs, or has run last.
        seen: when the visitor last did something.
    """

    folder: Path
    served: Path
    limits: Limits
    found: dict[str, Any] | None = None
    answers: list[Way] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] | None = None
    job: Job | None = None
    seen: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def given(self) -> Path:
        """Where uploaded files lie."""
        return self.folder / "given"

    def files(self) -> list[Path]:
        """What was uploaded."""
        return sorted(self.given.iterdir()) if self.given.is_dir() else []

    def take(self, paths: Iterable[str]) -> None:
        """Move uploaded files out of the folder that is served, into the private one. One of the same name is replaced.

        Raises:
            Full: they are too many or too large together; none of them is kept then.
        """
        self.given.mkdir(exist_ok=True)
        for path in map(Path, paths):
            path.replace(self.given / path.name)
            with suppress(OSError):  # gradio has a folder for each content; files of other names may still lie in it
                path.parent.rmdir()
        files = self.files()
        if len(files) > self.limits.files or sum(file.stat().st_size for file in files) > self.limits.upload_bytes:
            shutil.rmtree(self.given)
            raise Full("too_many")

    def forget(self, source: bool = False) -> None:
        """Delete what was made of the source; with `source`, also what was found of it and fetched from the Hub."""
        self.made = None
        paths = [self.folder / "out", self.folder / "tmp", self.served]
        if source:
            self.found, self.answers, self.settings = None, [], {}
            paths.append(self.folder / "hub")
        for path in paths:
            shutil.rmtree(path, ignore_errors=True)

    def stop(self) -> None:
        """Kill what runs, and delete what it has begun."""
        if self.job and self.job.running:
            self.job.stop("cancelled")

    def leave(self) -> None:
        """Stop, and delete everything."""
        self.stop()
        for path in (self.served, self.folder):
            shutil.rmtree(path, ignore_errors=True)


class Visitors:
    """The visitors of this server, by their sessions.

    Args:
        limits: what each may use.

    Attributes:
        root: the folder of all; only this server's user may enter it.
        uploads: the one folder in it that is served: uploads on their way, and downloads.
        shared: caches of libraries, which hold nothing of a visitor's.
    """

    def __init__(self, limits: Limits) -> None:
        _remove_abandoned()
        self.limits = limits
        self.root = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self.uploads, self.shared = self.root / "served", self.root / "shared"
        self._private = self.root / "private"
        for path in (self.uploads, self.shared, self._private):
            path.mkdir()
        self._visitors: dict[str, Visitor] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep_for_ever, daemon=True)
        self._sweeper.start()

    def of(self, session: str | None) -> Visitor:
        """The visitor of a session, who gets a folder with the first call.

        Raises:
            Full: there are too many.
        """
        if not session:
            raise Full("full")
        with self._lock:
            visitor = self._visitors.get(session)
            if visitor is None:
                if len(self._visitors) >= self.limits.visitors:
                    raise Full("full")
                name = secrets.token_hex(16)
                visitor = Visitor(self._private / name, self.uploads / name, self.limits)
                visitor.folder.mkdir()
                self._visitors[session] = visitor
            visitor.seen = time.monotonic()
            return visitor

    def leave(self, session: str | None) -> None:
        """The session has ended: kill its job and delete its folders."""
        with self._lock:
            visitor = self._visitors.pop(session or "", None)
        if visitor:
            visitor.leave()

    def sweep(self) -> None:
        """Delete what belongs to visitors who have not been seen for long, and uploads that nobody took."""
        now = time.monotonic()
        with self._lock:
            gone = [
                session
                for session, visitor in self._visitors.items()
                if now - visitor.seen > self.limits.kept_seconds and not (visitor.job and visitor.job.running)
            ]
            kept = {visitor.served.name for session, visitor in self._visitors.items() if session not in gone}
        for session in gone:
            self.leave(session)
        for path in self.uploads.iterdir():
            with suppress(FileNotFoundError):  # its visitor has taken it meanwhile, or gradio has deleted it
                if path.name not in kept and time.time() - path.stat().st_ctime > self.limits.kept_seconds:
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()

    def close(self) -> None:
        """Kill every job and delete every folder."""
        self._closed.set()
        for session in list(self._visitors):
            self.leave(session)
        shutil.rmtree(self.root, ignore_errors=True)

    def _sweep_for_ever(self) -> None:
        while not self._closed.wait(self.limits.sweep_seconds):
            self.sweep()


def _remove_abandoned() -> None:
    """Delete the folders of servers of this user that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        number = re.match(rf"{_PREFIX}(\d+)-", path.name)
        if number and not path.is_symlink() and path.stat().st_uid == os.getuid() and not _is_alive(int(number[1])):
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process has the number now; the folder is no live server's of ours
        return False
    return True
