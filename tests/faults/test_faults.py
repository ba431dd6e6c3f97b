"""Writing when things go wrong: killed, full, read-only, forbidden, stopped, unheard."""

from __future__ import annotations

import errno
import gc
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

import pytest
from goldens import FIXTURES
from kill import check_hashes, tree

from nezha_convert import convert
from nezha_convert.cli import console
from nezha_convert.cli.app import main
from nezha_convert.commands import inspect as inspect_verb
from nezha_convert.errors import OutputError
from nezha_convert.files import staging
from nezha_convert.files.locks import LOCK, claim

ROOT = Path(__file__).parents[2]
TF = FIXTURES / "huawei-tf-pretraining"
COPY = FIXTURES / "transformers-4.40.2-pretraining"
MOMENTS = int(os.environ.get("NEZHA_FAULTS", 0))
"""How many moments of a command are tried; without it a few."""

ROOT_ALONE = pytest.mark.skipif(os.geteuid() != 0, reason="mounting and changing the user needs root")


def command(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    settings: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    return subprocess.Popen([sys.executable, "-m", "nezha_convert", *map(str, arguments)], **settings | options)


def process(*arguments: object, **options: Any) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process of its own."""
    running = command(*arguments, **options)
    out, err = running.communicate()
    assert "Traceback" not in (err or "")
    return running.returncode, out, err


@pytest.fixture
def run(capsys) -> Callable[..., tuple[int, str, str]]:
    """The same in this process, which is faster."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return exit.value.code, out, err

    return run


def assert_refused(result: tuple[int, str, str], *words: str) -> None:
    code, out, err = result
    assert (code, out, err.count("error: ")) == (5, "", 1), err
    assert all(word in err for word in words), err


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "converted"
    convert(TF, folder)
    return folder


def writing(to: str, converted: Path, output: Path) -> list[object]:
    """A command that writes `output`: an export, or a conversion."""
    if not to:
        return ["convert", TF, output]
    return ["export", converted, output, "--to", to, "--accept-activation"]


# Killed


@pytest.mark.parametrize("name", ["convert --force", "export --to huawei-tf", "repair", "convert an archive"])
def test_a_killed_command_leaves_all_or_nothing_and_the_next_one_cleans_up(name: str, tmp_path: Path) -> None:
    """All commands, a hundred times each: python tests/helpers/kill.py."""
    arguments = [sys.executable, ROOT / "tests/helpers/kill.py", "--kills", str(MOMENTS or 15), name]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert f"{MOMENTS or 15} of {MOMENTS or 15} kills right" in done.stdout


# Disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount small file systems of their own."""
    mounted = []

    def mount(name: str, *options: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        done = subprocess.run(["mount", *options, folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted[::-1]:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def unforeseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program fills the disk after we have looked."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(1 << 40))


@ROOT_ALONE
@pytest.mark.usefixtures("unforeseen")
@pytest.mark.parametrize("to", ["", "huawei-tf", "huawei-torch", "transformers-4", "paddle", "bert4torch"])
def test_a_disk_that_fills_up_is_said_and_left_as_it_was(to: str, run, converted: Path, disk) -> None:
    small = disk("small", "-t", "tmpfs", "-o", "size=40k", "none")
    assert_refused(run(*writing(to, converted, small / "out")), os.strerror(errno.ENOSPC), "Free some room")
    assert list(small.iterdir()) == []


@ROOT_ALONE
def test_a_disk_too_small_is_noticed_before_anything_is_written(run, disk) -> None:
    small = disk("small", "-t", "tmpfs", "-o", "size=40k", "none")
    assert_refused(run("convert", TF, small / "out"), "bytes, and the disk has")
    assert list(small.iterdir()) == []


@pytest.mark.parametrize("nbytes", [0, 1000, 60_000])
def test_a_quota_is_said_and_nothing_is_left(nbytes: int, run, tmp_path: Path) -> None:
    """RLIMIT_FSIZE: no file may be larger. Unlike a small disk it needs no root."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        with pytest.raises(OutputError, match=os.strerror(errno.EFBIG)) as caught:
            convert(TF, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.exit_code == 5
    assert list(tmp_path.iterdir()) == []


@ROOT_ALONE
def test_a_read_only_target_is_said(run, disk) -> None:
    fixed = disk("fixed", "-t", "tmpfs", "-o", "ro", "none")
    assert_refused(run("convert", TF, fixed / "out"), os.strerror(errno.EROFS))


@ROOT_ALONE
@pytest.mark.parametrize("force", [True, False])
def test_a_target_that_may_not_be_written_is_said(force: bool, run, converted: Path) -> None:
    """As nobody, into a folder of root's."""
    with TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        if force:
            shutil.copytree(converted, place / "out")
        before = tree(place)
        os.seteuid(65534)
        try:
            result = run("convert", TF, place / "out", *(["--force"] if force else []))
        finally:
            os.seteuid(0)
        assert_refused(result, os.strerror(errno.EACCES), "out")
        assert tree(place) == before


@ROOT_ALONE
def test_source_target_and_temporary_space_may_be_three_file_systems(run, disk, tmp_path: Path, monkeypatch) -> None:
    """The source read-only: nothing is ever written beside it."""
    shutil.make_archive(str(tmp_path / "source/model"), "tar", TF)
    source = disk("source", "--bind", tmp_path / "source")
    subprocess.run(["mount", "-o", "remount,ro,bind", source], check=True)
    place, space = (disk(name, "-t", "tmpfs", "-o", "size=8m", "none") for name in ("place", "space"))
    monkeypatch.setattr(tempfile, "tempdir", str(space))
    assert run("convert", source / "model.tar", place / "out")[0] == 0
    assert check_hashes(place / "out", "conversion.json")
    assert run("export", place / "out", place / "back", "--to", "huawei-tf", "--accept-activation")[0] == 0
    gc.collect()  # the archive's checkpoint, which holds its folder
    assert list(space.iterdir()) == [] and sorted(place.iterdir()) == [place / "back", place / "out"]


@ROOT_ALONE
@pytest.mark.usefixtures("unforeseen")
def test_no_room_to_unpack_an_archive_is_said(run, disk, tmp_path: Path, monkeypatch) -> None:
    shutil.make_archive(str(tmp_path / "model"), "tar", TF)
    space = disk("space", "-t", "tmpfs", "-o", "size=40k", "none")
    monkeypatch.setattr(tempfile, "tempdir", str(space))
    assert_refused(run("convert", tmp_path / "model.tar", tmp_path / "out"), "no room", "TMPDIR")
    assert list(space.iterdir()) == [] and not (tmp_path / "out").exists()


# Several at once


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_of_two_conversions_into_one_folder_one_wins_and_the_other_says_so(force: list[str], tmp_path: Path) -> None:
    for _ in range(1 + MOMENTS // 10):
        both = [command("convert", TF, tmp_path / "out", *force) for _ in range(2)]
        ended = [(running.communicate()[1], running.returncode) for running in both]
        codes = sorted(code for _, code in ended)
        assert codes == [0, 5] or (force and codes == [0, 0])  # with --force, one after the other is right too
        assert all("another process is writing it" in err or "exists already" in err for err, code in ended if code)
        assert check_hashes(tmp_path / "out", "conversion.json") and list(tmp_path.iterdir()) == [tmp_path / "out"]
        shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_what_another_process_is_writing_is_not_touched(force: list[str], run, tmp_path: Path) -> None:
    (tmp_path / ".out.part/new").mkdir(parents=True)
    lock = claim(tmp_path / ".out.part" / LOCK)
    assert lock is not None
    assert_refused(run("convert", TF, tmp_path / "out", *force), "another process is writing it")
    assert (tmp_path / ".out.part/new").is_dir()
    os.close(lock)  # as its death would
    assert run("convert", TF, tmp_path / "out")[0] == 0
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


# Stopped

STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
COMMANDS = {
    "convert": ("convert", TF, "out"),
    "export": ("export", "converted", "out", "--to", "huawei-tf", "--accept-activation"),
    "repair": ("repair", COPY, "out"),
    "diff": ("diff", TF, "converted"),
}
if MOMENTS:  # half a minute each
    COMMANDS["verify"] = ("verify", TF, "converted", "--no-record")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_stopped_command_cleans_up_and_says_one_line(name: str, converted: Path, tmp_path: Path) -> None:
    """At random moments, from the first import to the last byte; the interpreter's own start is not ours."""
    places = {"out": tmp_path / "out", "converted": converted}
    arguments = [places.get(part, part) for part in COMMANDS[name]]
    chance, before, counts = random.Random(name), tree(converted), 0
    begun = time.monotonic()
    assert process(*arguments)[0] == 0
    took = time.monotonic() - begun
    for moment in range(10 * (MOMENTS or 3)):
        if moment >= (MOMENTS or 3) and counts:  # a command that ended before its moment tells nothing
            break
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        number = chance.choice(list(STOPPED))
        running = command(*arguments)
        wait_until_prepared(running)
        time.sleep(chance.uniform(0, took))
        running.send_signal(number)
        _, err = running.communicate()
        if running.returncode:
            counts += 1
            said = "interrupted; nothing half-written was left behind\n"
            assert (running.returncode, err) == (STOPPED[number], said)
        assert {path.name for path in tmp_path.iterdir()} <= {"out"} and tree(converted) == before
        if (tmp_path / "out").exists():
            check_hashes(tmp_path / "out", "export.json" if name == "export" else "conversion.json")
    assert counts


def wait_until_prepared(running: subprocess.Popen[str]) -> None:
    """Until SIGTERM has a handler, which is the first thing that a command does."""
    status = Path(f"/proc/{running.pid}/status")
    while not int(status.read_text().split("SigCgt:")[1].split()[0], 16) >> (signal.SIGTERM - 1) & 1:
        assert running.poll() is None


def test_a_command_that_is_stopped_while_it_is_loaded_gives_json_too() -> None:
    running = command("inspect", TF, "--json")
    wait_until_prepared(running)
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate()
    assert json.loads(out)["exit_code"] == running.returncode == 143 and err == ""


SWALLOWED = """
import os, signal, sys, time
from nezha_convert.cli.process import Stop
class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
stop = Stop()
try:
    with stop.interrupting():
        Last()
        time.sleep(60)
except KeyboardInterrupt:
    print("stopped")
"""


def test_a_signal_that_comes_while_a_finalizer_runs_is_not_lost() -> None:
    """Python prints and forgets what is raised there."""
    done = subprocess.run([sys.executable, "-c", SWALLOWED], capture_output=True, text=True, cwd=ROOT, timeout=50)
    assert (done.stdout, done.stderr) == ("stopped\n", "")


THROUGH_C = """
import ctypes, sys
from nezha_convert import __main__
from nezha_convert.commands import inspect
def stopped(*_, **__):
    run = ctypes.pythonapi.PyRun_String
    run.restype, run.argtypes = ctypes.py_object, [ctypes.c_char_p, ctypes.c_int, ctypes.py_object, ctypes.py_object]
    run(b"import os, signal, time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(1)", 257, {}, {})
inspect.inspect = stopped
sys.argv = ["nezha-convert", "inspect", "x"]
__main__.main()
"""


def test_a_signal_that_comes_while_a_library_written_in_c_runs_python_keeps_its_code(tmp_path: Path) -> None:
    (tmp_path / "stopped.py").write_text(THROUGH_C)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run([sys.executable, "-m", "stopped"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (143, "interrupted; nothing half-written was left behind\n")


def test_a_command_that_is_stopped_while_it_prints_its_document_prints_no_second_one(run, monkeypatch) -> None:
    def stopped(text: str, file: TextIO | None = None) -> None:
        if file is None:
            sys.stdout.write(text[:1])
            raise KeyboardInterrupt
        file.write(f"{text}\n")

    monkeypatch.setattr(console, "print", stopped, raising=False)
    assert run("inspect", TF, "--json") == (130, "{", "interrupted; nothing half-written was left behind\n")


@pytest.mark.parametrize("error", [SystemError("error return without exception set"), OutputError("x")], ids=repr)
def test_an_error_that_a_library_makes_of_a_signal_is_none_of_ours(error: Exception, run, monkeypatch) -> None:
    def stopped(*arguments: object, **options: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except KeyboardInterrupt:
            raise error from None

    monkeypatch.setattr(inspect_verb, "inspect", stopped)
    assert run("inspect", TF) == (143, "", "interrupted; nothing half-written was left behind\n")


def test_what_was_started_to_be_ignored_is_ignored() -> None:
    """As nohup does."""
    running = command("inspect", TF, "--json", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    wait_until_prepared(running)
    running.send_signal(signal.SIGHUP)
    assert json.loads(running.communicate()[0])["heads"] and running.returncode == 0


# Unheard


@pytest.mark.parametrize("json_option", [[], ["--json"]])
def test_a_reader_of_stdout_that_has_gone_is_141_and_no_traceback(json_option: list[str]) -> None:
    running = command("inspect", TF, "--tensors", *json_option)
    running.stdout.close()
    assert (running.stderr.read(), running.wait()) == ("", 141)


@pytest.mark.parametrize("arguments", [["inspect", TF], ["inspect", TF, "--tensors", "--json"], ["--help"]])
def test_a_full_stdout_is_5_and_said(arguments: list[object]) -> None:
    with open("/dev/full", "w") as target:
        code, _, err = process(*arguments, stdout=target)
    assert (code, err) == (5, f"error: stdout: cannot be written ({os.strerror(errno.ENOSPC)})\n")


@pytest.mark.parametrize("json_option", [[], ["--json"]])
def test_an_error_that_nobody_hears_keeps_its_code(json_option: list[str]) -> None:
    with open("/dev/full", "w") as target:
        assert process("inspect", "nowhere", *json_option, stdout=target, stderr=target)[0] == 3
        code, _, err = process("inspect", "nowhere", "--json", stdout=target)
    assert code == 3 and err.startswith("error: nowhere: no such file")


def test_closed_streams_let_nothing_into_the_output(tmp_path: Path) -> None:
    """Without standard streams the weights would be descriptor 1 or 2, into which any library may print."""
    closed = {"preexec_fn": lambda: os.closerange(0, 3), "stdout": None, "stderr": None}
    assert process("convert", TF, tmp_path / "out", **closed)[0] == 0
    assert check_hashes(tmp_path / "out", "conversion.json")
    assert process("convert", TF, tmp_path / "out", **closed)[0] == 5


# To the disk


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize("to", ["", "huawei-tf"])
def test_every_file_and_folder_is_on_the_disk_before_the_rename_and_the_rename_after(
    to: str, force: bool, run, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = writing(to, converted, tmp_path / "out")
    if force:
        assert run(*arguments)[0] == 0
        arguments.append("--force")
    synced, missing = set(), []
    fsync, rename = os.fsync, staging._renamed

    def counted(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def renamed(stage: Path, target: Path, flag: int) -> bool:
        missing.append([path for path in (stage, *stage.rglob("*")) if path.stat().st_ino not in synced])
        synced.clear()
        return rename(stage, target, flag)

    monkeypatch.setattr(os, "fsync", counted)
    monkeypatch.setattr(staging, "_renamed", renamed)
    assert run(*arguments)[0] == 0
    assert missing == [[]] and tmp_path.stat().st_ino in synced
