"""Staging: an output appears whole or not at all, and an existing one is only replaced when asked for."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from nezha_convert.errors import CheckpointError, OutputError
from nezha_convert.files import staging
from nezha_convert.files.locks import LOCK
from nezha_convert.files.staging import MARK, check_output, replace_file, staged, write_file

ROOT = Path(__file__).parents[2]
INTERRUPTIONS = pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), RuntimeError("x")], ids=repr)
Usage = namedtuple("Usage", "total used free")


def fill(stage: Path, text: str = "new") -> None:
    (stage / "model.safetensors").write_text(text)
    (stage / MARK).write_text("{}")


def converted(path: Path) -> Path:
    """An output of an earlier conversion."""
    path.mkdir()
    fill(path, "old")
    (path / "extra").touch()
    return path


def content(path: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in path.iterdir()}


OLD = {"model.safetensors": "old", MARK: "{}", "extra": ""}
NEW = {"model.safetensors": "new", MARK: "{}"}


# A new output


def test_the_output_appears_at_the_end_and_not_before(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with staged(output, False, 10) as stage:
        fill(stage)
        assert not os.path.lexists(output)
        assert stage.parent == tmp_path / ".out.part"
    assert content(output) == NEW
    assert list(tmp_path.iterdir()) == [output]


def test_a_missing_parent_is_created(tmp_path: Path) -> None:
    with staged(tmp_path / "a" / "b" / "out", False, 10) as stage:
        fill(stage)
    assert content(tmp_path / "a" / "b" / "out") == NEW


@pytest.mark.parametrize("name", ["out", "./out", "out/", "a/../out"])
def test_a_relative_output_is_of_the_working_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    with staged(Path(name), False, 10) as stage:
        fill(stage)
    assert content(tmp_path / "out") == NEW


@INTERRUPTIONS
def test_whatever_goes_wrong_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, staged(tmp_path / "out", False, 10) as stage:
        fill(stage)
        (stage / "sub").mkdir()
        raise error
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_two_conversions_at_once_do_not_meet(tmp_path: Path) -> None:
    with staged(tmp_path / "a", False, 10) as first, staged(tmp_path / "b", False, 10) as second:
        assert first != second
        fill(first)
        fill(second)
    assert content(tmp_path / "a") == content(tmp_path / "b") == NEW


def test_an_output_that_another_program_wrote_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(OutputError, match="exists already"), staged(output, False, 10) as stage:
        fill(stage)
        converted(output)
    assert content(output) == OLD
    assert list(tmp_path.iterdir()) == [output]


def test_ctrl_c_while_it_cleans_up_leaves_nothing_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rmtree, left = shutil.rmtree, [1]

    def interrupted(path: Path, **options: bool) -> None:
        if path.exists() and left:
            left.pop()
            raise KeyboardInterrupt
        rmtree(path, **options)

    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "out", False, 10) as stage:
        fill(stage)
        monkeypatch.setattr(shutil, "rmtree", interrupted)
        raise OSError(errno.EIO, "Input/output error")
    assert not left
    assert list(tmp_path.iterdir()) == []


# An output that exists


@pytest.mark.parametrize("kind", ["converted", "empty", "other", "file", "symlink", "dangling"])
def test_without_force_nothing_that_exists_is_touched(kind: str, tmp_path: Path) -> None:
    output = existing(tmp_path, kind)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    replaceable = kind in ("converted", "empty")
    said = "out: exists already" if replaceable else "out: exists and is not a folder that nezha-convert wrote"
    with pytest.raises(OutputError, match=said) as caught, staged(output, False, 10):
        raise AssertionError("the block never runs")
    assert ("--force" in caught.value.hint) == replaceable  # it is named where it works
    assert caught.value.exit_code == 5
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def existing(folder: Path, kind: str) -> Path:
    output = folder / "out"
    if kind == "converted":
        converted(output)
    elif kind == "empty":
        output.mkdir()
    elif kind == "other":
        output.mkdir()
        (output / "thesis.txt").write_text("mine")
    elif kind == "file":
        output.write_text("mine")
    elif kind == "symlink":
        output.symlink_to(converted(folder / "real"))
    elif kind == "dangling":
        output.symlink_to(folder / "nowhere")
    elif kind == "marked by a folder":
        (output / MARK).mkdir(parents=True)
    return output


@pytest.mark.parametrize("kind", ["converted", "empty"])
def test_force_replaces_what_an_earlier_conversion_wrote_and_what_is_empty(kind: str, tmp_path: Path) -> None:
    output = existing(tmp_path, kind)
    before = content(output)
    with staged(output, True, 10) as stage:
        fill(stage)
        assert content(output) == before
    assert content(output) == NEW
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o2775, 0o755, 0o1777])
@pytest.mark.parametrize("kind", ["converted", "empty"])
def test_force_keeps_the_mode_of_the_folder_and_of_its_files(kind: str, mode: int, tmp_path: Path) -> None:
    output = existing(tmp_path, kind)
    output.chmod(mode)
    if kind == "converted":
        (output / MARK).chmod(0o640)
    with staged(output, True, 10) as stage:
        fill(stage)
        (stage / "another").write_text("x")
        usual = (stage / "another").stat().st_mode
    assert output.stat().st_mode & 0o7777 == mode
    assert (output / "another").stat().st_mode == usual
    assert kind == "empty" or (output / MARK).stat().st_mode & 0o7777 == 0o640


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give a file to another user")
def test_force_keeps_the_owner_and_the_group(tmp_path: Path) -> None:
    output = converted(tmp_path / "out")
    os.chown(output, 4242, 4343)
    os.chown(output / MARK, 4244, 4345)
    output.chmod(0o2750)
    with staged(output, True, 10) as stage:
        fill(stage)
        (stage / "another").write_text("x")
    states = {name: (output / name).stat() for name in ("", MARK, "another")}
    assert {name: (state.st_uid, state.st_gid) for name, state in states.items()} == {
        "": (4242, 4343),
        MARK: (4244, 4345),
        "another": (4242, 4343),
    }
    assert states[""].st_mode & 0o7777 == 0o2750


def test_an_owner_that_cannot_be_kept_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, owner: int, group: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", refused)
    output = converted(tmp_path / "out")
    output.chmod(0o700)
    with staged(output, True, 10) as stage:
        fill(stage)
    assert output.stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("kind", ["other", "file", "symlink", "dangling", "marked by a folder"])
def test_force_replaces_nothing_else(kind: str, tmp_path: Path) -> None:
    output = existing(tmp_path, kind)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with (
        pytest.raises(OutputError, match=r"not a folder that nezha-convert wrote.*not replaced"),
        staged(output, True, 1),
    ):
        raise AssertionError("the block never runs")
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_force_does_not_need_anything_to_be_there(tmp_path: Path) -> None:
    with staged(tmp_path / "out", True, 10) as stage:
        fill(stage)
    assert content(tmp_path / "out") == NEW


@INTERRUPTIONS
def test_with_force_a_failure_leaves_the_old_output_as_it_was(error: BaseException, tmp_path: Path) -> None:
    output = converted(tmp_path / "out")
    with pytest.raises(type(error)), staged(output, True, 10) as stage:
        fill(stage)
        raise error
    assert content(output) == OLD
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("which", ["retiring", "placing"])
def test_the_old_output_is_never_lost_while_the_new_one_takes_its_place(
    which: str, error: BaseException, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C or a failing disk, before or after each of the two renames, on a drive that cannot exchange folders."""
    output = converted(tmp_path / "out")
    rename = Path.rename
    left = [1]

    def interrupted(path: Path, target: Path) -> Path:
        now = left and (path.name == "new") == (which == "placing")
        if now:
            left.pop()
        if now and moment == "before":
            raise error
        result = rename(path, target)
        if now:
            raise error
        return result

    monkeypatch.setattr(staging, "_renamed", lambda source, target, flag: False)
    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises((OutputError, KeyboardInterrupt)), staged(output, True, 10) as stage:
        fill(stage)
    assert not left
    assert content(output) == (NEW if (which, moment) == ("placing", "after") else OLD)
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()], ids=repr)
def test_the_old_output_and_the_new_one_change_places_in_one_step(
    error: BaseException, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = converted(tmp_path / "out")
    exchange = staging._renamed

    def interrupted(source: Path, target: Path, flag: int) -> bool:
        done = moment == "after" and exchange(source, target, flag)
        if done:
            assert (content(target), content(source)) == (NEW, OLD)
        raise error

    monkeypatch.setattr(staging, "_renamed", interrupted)
    with pytest.raises((OutputError, KeyboardInterrupt)), staged(output, True, 10) as stage:
        fill(stage)
    assert content(output) == (NEW if moment == "after" else OLD)
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("kind", ["empty", "other", "file", "symlink", "dangling"])
def test_what_appears_at_the_very_last_moment_is_not_replaced(
    kind: str, exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It appears after the last check. A rename that cannot refuse replaces an empty folder, as any rename does."""
    rename = staging._renamed

    def late(source: Path, target: Path, flag: int) -> bool:
        existing(tmp_path, kind)
        return exchanges and rename(source, target, flag)

    monkeypatch.setattr(staging, "_renamed", late)
    if kind == "empty" and not exchanges:
        with staged(tmp_path / "out", False, 10) as stage:
            fill(stage)
        return
    with pytest.raises(OutputError, match="out: cannot be written"), staged(tmp_path / "out", False, 10) as stage:
        fill(stage)
    kept = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    existing(tmp_path, kind)
    assert kept == {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}


def test_force_may_replace_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = converted(tmp_path / "out")
    monkeypatch.chdir(output)
    with staged(Path(), True, 10) as stage:
        fill(stage)
    assert content(output) == NEW
    assert list(tmp_path.iterdir()) == [output]


def test_checking_alone_changes_nothing(tmp_path: Path) -> None:
    check_output(tmp_path / "new", False)
    check_output(converted(tmp_path / "out"), True)
    assert content(tmp_path / "out") == OLD
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


# Disks


def test_too_little_room_is_noticed_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2000, 1001, 999))
    with (
        pytest.raises(OutputError, match=r"out: it needs 1,000 bytes, and the disk has 999 free"),
        staged(tmp_path / "out", False, 1000),
    ):
        raise AssertionError("the block never runs")
    assert list(tmp_path.iterdir()) == []


def test_just_enough_room_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2000, 1000, 1000))
    with staged(tmp_path / "out", False, 1000) as stage:
        fill(stage)
    assert content(tmp_path / "out") == NEW


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_meanwhile_is_an_output_error_and_leaves_nothing(number: int, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=os.strerror(number)) as caught, staged(tmp_path / "out", False, 1) as stage:
        fill(stage)
        raise OSError(number, os.strerror(number), str(stage / "model.safetensors"))
    assert "Free some room" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO])
def test_a_place_that_cannot_be_written_is_an_output_error(number: int, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=f"out.*{os.strerror(number)}") as caught, staged(tmp_path / "out", False, 1):
        raise OSError(number, os.strerror(number))
    assert "can be written" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"), staged(tmp_path / "file" / "out", False, 1):
        raise AssertionError("the block never runs")


def test_a_name_that_no_disk_takes_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"), staged(tmp_path / ("x" * 300), False, 1):
        raise AssertionError("the block never runs")


def test_errors_of_the_source_stay_what_they_are(tmp_path: Path) -> None:
    error = CheckpointError("damaged")
    with pytest.raises(CheckpointError) as caught, staged(tmp_path / "out", False, 1):
        raise error
    assert caught.value is error


# What a killed process left


def abandoned(tmp_path: Path, *names: str) -> Path:
    """The hidden folder of a dead run."""
    folder = tmp_path / ".out.part"
    (folder / "new").mkdir(parents=True)
    fill(folder / "new", "half")
    (folder / LOCK).touch()
    for name in names:
        converted(folder / name)
    return folder


@pytest.mark.parametrize("force", [True, False])
def test_it_is_removed_by_the_next_run(force: bool, tmp_path: Path) -> None:
    abandoned(tmp_path)
    with staged(tmp_path / "out", force, 10) as stage:
        assert not list(stage.iterdir())
        fill(stage)
    assert content(tmp_path / "out") == NEW
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_it_is_removed_by_a_run_that_is_refused_too(tmp_path: Path) -> None:
    abandoned(tmp_path, "old")
    converted(tmp_path / "out")
    with pytest.raises(OutputError, match="exists already"):
        check_output(tmp_path / "out", False)
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_an_old_output_that_it_had_moved_aside_goes_back(tmp_path: Path) -> None:
    abandoned(tmp_path, "old")
    with pytest.raises(OutputError, match="exists already"):
        check_output(tmp_path / "out", False)
    assert content(tmp_path / "out") == OLD
    abandoned(tmp_path, "old")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(KeyError), staged(tmp_path / "out", True, 10):
        raise KeyError
    assert content(tmp_path / "out") == OLD
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


@pytest.mark.parametrize("name", ["thesis.txt", "out", "older"])
def test_a_folder_of_that_name_that_is_somebody_else_s_is_not_touched(name: str, tmp_path: Path) -> None:
    folder = tmp_path / ".out.part"
    (folder / "new").mkdir(parents=True)
    (folder / name).touch()
    with pytest.raises(OutputError, match=r"\.out\.part: exists"), staged(tmp_path / "out", True, 10):
        raise AssertionError("the block never runs")
    assert sorted(path.name for path in folder.iterdir()) == sorted(["new", name])


def test_a_link_of_that_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine/new").mkdir(parents=True)
    (tmp_path / ".out.part").symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match="exists"), staged(tmp_path / "out", False, 10):
        raise AssertionError("the block never runs")
    assert (tmp_path / "mine/new").is_dir()


def test_without_locks_a_folder_that_is_there_is_another_s_and_the_hint_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks available")))
    with staged(tmp_path / "out", False, 10) as stage:
        with pytest.raises(OutputError, match="the drive has no locks") as caught, staged(tmp_path / "out", True, 10):
            raise AssertionError("the block never runs")
        fill(stage)
    assert content(tmp_path / "out") == NEW
    assert "rm -r" in caught.value.hint and str(tmp_path / ".out.part") in caught.value.hint
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


# One file


def test_a_file_is_replaced_once_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / MARK
    file.write_text("old")
    rename = Path.replace

    def late(new: Path, target: Path) -> Path:
        assert (file.read_text(), new.read_text()) == ("old", "new")
        with pytest.raises(OutputError, match="another process is writing it"):
            replace_file(file, b"other")
        return rename(new, target)

    monkeypatch.setattr(Path, "replace", late)
    replace_file(file, b"new")
    assert content(tmp_path) == {MARK: "new"}


@pytest.mark.parametrize("mode", [0o600, 0o444, 0o664])
def test_a_file_that_is_replaced_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "file").chmod(mode)
    for replace in (replace_file, write_file):
        replace(tmp_path / "file", b"new")
        assert (tmp_path / "file").stat().st_mode & 0o7777 == mode
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_file_that_cannot_be_replaced_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / MARK).write_text("old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"):
        replace_file(tmp_path / MARK, b"half")
    assert content(tmp_path) == {MARK: "old"}


def test_a_file_that_was_asked_for_is_written_whole_or_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "report", b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OutputError, match=r"report: cannot be written \(No space left"):
        write_file(tmp_path / "report", b"half")
    assert content(tmp_path) == {"report": "old"}


def test_a_link_stays_one_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "new"


def test_a_pipe_takes_a_file_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_file(tmp_path / "pipe", b"report")
    assert os.read(reader, 100) == b"report" and (tmp_path / "pipe").is_fifo()
    os.close(reader)


@pytest.mark.parametrize("name", ["folder", "nowhere/report", "x" * 300])
def test_a_file_that_cannot_be_written_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=f"{name}: cannot be written"):
        write_file(tmp_path / name, b"")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


# Killed

SCRIPT = """
import sys, time
from pathlib import Path
from nezha_convert.files.staging import staged
with staged(Path(sys.argv[1]), sys.argv[2] == "force", 10) as stage:
    (stage / "model.safetensors").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("force", [True, False])
def test_a_killed_program_leaves_no_output_and_an_old_one_as_it_was(force: bool, tmp_path: Path) -> None:
    output = converted(tmp_path / "out") if force else tmp_path / "out"
    command = [sys.executable, "-c", SCRIPT, str(output), "force" if force else "no"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    if force:
        assert content(output) == OLD
    else:
        assert not os.path.lexists(output)
    assert {path.name for path in tmp_path.iterdir()} <= {"out", ".out.part"}
    with staged(output, force, 10) as stage:  # the files of the killed process are in nobody's way
        fill(stage)
    assert content(output) == NEW
    assert list(tmp_path.iterdir()) == [output]
