"""Locks on folders, and temporary folders that do not outlive their process for long."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nezha_convert.files import locks as claims
from nezha_convert.files.locks import NoLocksError, TemporaryFolder, claim

ROOT = Path(__file__).parents[2]


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary directory."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def without_locks(*_: object) -> None:
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


def test_a_claim_holds_until_it_is_given_back(tmp_path: Path) -> None:
    first = claim(tmp_path / "lock")
    assert first is not None and claim(tmp_path / "lock") is None
    os.close(first)
    second = claim(tmp_path / "lock")
    assert second is not None
    os.close(second)


def test_a_claim_of_a_file_that_was_removed_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its holder removes it between our opening and locking: we would lock a file that nobody else can see."""
    flock, left = fcntl.flock, [1]

    def late(descriptor: int, how: int) -> None:
        if left:
            left.pop()
            (tmp_path / "lock").unlink()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    lock = claim(tmp_path / "lock")
    assert lock is not None and os.path.samestat(os.fstat(lock), (tmp_path / "lock").stat())
    assert claim(tmp_path / "lock") is None
    os.close(lock)


def test_a_drive_without_locks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", without_locks)
    with pytest.raises(NoLocksError):
        claim(tmp_path / "lock")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="lock"):
        claim(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("locks", [True, False])
def test_a_temporary_folder_goes_with_its_block_and_with_its_object(
    locks: bool, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not locks:
        monkeypatch.setattr(fcntl, "flock", without_locks)
    with TemporaryFolder() as folder:
        (folder / "x").touch()
    assert list(space.iterdir()) == []
    held = TemporaryFolder()
    assert held.path.is_dir() and not list(held.path.iterdir())
    del held
    gc.collect()
    assert list(space.iterdir()) == []


KILLED = """
import os, signal, tempfile
from nezha_convert.files.locks import TemporaryFolder
folder = TemporaryFolder()
(folder.path / "large").write_bytes(bytes(1000))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_that_of_a_killed_process_goes_with_the_next_and_that_of_a_living_one_stays(space: Path) -> None:
    living = TemporaryFolder()
    environment = os.environ | {"TMPDIR": str(space)}
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, env=environment)
    assert done.returncode == -signal.SIGKILL
    assert len(list(space.iterdir())) == 2
    with TemporaryFolder():
        assert len(list(space.iterdir())) == 2
        assert living.path.is_dir()
    assert list(space.iterdir()) == [living.path.parent]
    living.remove()


@pytest.mark.parametrize("name", [".git", "files.zip", "src"])
def test_a_folder_that_is_only_called_so_is_not_touched(name: str, space: Path) -> None:
    clone = space / "nezha-convert-tmp-main"
    (clone / name).mkdir(parents=True)
    (space / "nezha-convert-tmp-notes").write_text("mine")
    (space / "nezha-convert-tmp-link").symlink_to(clone)
    with TemporaryFolder():
        pass
    assert [path.name for path in clone.iterdir()] == [name] and (
        space / "nezha-convert-tmp-notes"
    ).read_text() == "mine"


def test_without_locks_nothing_is_taken_for_abandoned(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (space / "nezha-convert-tmp-other/files").mkdir(parents=True)
    monkeypatch.setattr(claims.fcntl, "flock", without_locks)
    with TemporaryFolder():
        pass
    assert (space / "nezha-convert-tmp-other/files").is_dir()
