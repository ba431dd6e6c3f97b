"""Kill convert, export and repair by SIGKILL at chosen steps and at random moments, and check what is left.

    python tests/helpers/kill.py [--kills 100] [COMMAND ...]

A step is a system call such as open, write, fsync or rename. A child process counts its steps and kills itself before
the chosen one. After each kill the output is absent or complete: equal to that of an undisturbed run byte by byte, or
with --force to the old one. The source is unchanged, and the next run leaves nothing but the output.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from nezha_convert import convert, export  # noqa: E402
from nezha_convert.cli.app import main  # noqa: E402
from nezha_convert.families import PROGRAMS  # noqa: E402
from nezha_convert.folder.record import ConvertedFolder  # noqa: E402
from nezha_convert.formats.open import open_checkpoint  # noqa: E402

TF = ROOT / "fixtures/huawei-tf-pretraining"
COPY = ROOT / "fixtures/transformers-4.40.2-pretraining"

STEPS = {
    *("open", "write", "readinto", "truncate", "close", "fsync", "flock"),
    *("mkdir", "rmdir", "unlink", "rename", "replace"),
}
"""Names of the C functions that are counted, whatever module or object they belong to."""

NO_STEPS = (str, io.TextIOBase)
"""Their functions only have the same names: `str.replace`, and `write` for what is printed at the end."""

BY_TIME = 5
"""One kill in this many comes at a random time instead of at a step."""

Tree = dict[str, str]


@dataclass(frozen=True)
class Case:
    """A command that writes `output`. `prepare` makes its source, `old` the output that --force replaces."""

    prepare: Callable[[Path, Path], object]
    command: Callable[[Path, Path], None]
    mark: str = "conversion.json"
    old: Callable[[Path, Path], object] | None = None
    exact: bool = True
    """Whether equal runs give equal bytes."""


def cli(*arguments: object) -> None:
    main([*map(str, arguments), "--json"])


def archived(source: Path, work: Path) -> None:
    shutil.make_archive(str(source / "model"), "tar", TF)


def exporting(to: str, *options: str) -> Case:
    old = (lambda source, output: export(source, output, to, accept_activation=True)) if options else None
    return Case(
        lambda source, work: convert(TF, source),
        lambda source, output: cli("export", source, output, "--to", to, "--accept-activation", *options),
        "export.json",
        old,
    )


def record(source: Path, output: Path) -> None:
    ConvertedFolder(output).keep({"passed": True, "filler": "x" * 100_000})
    sys.exit(0)


CASES: dict[str, Case] = {
    "convert": Case(lambda source, work: shutil.copytree(TF, source), lambda s, o: cli("convert", s, o)),
    "convert --force": Case(
        lambda source, work: shutil.copytree(TF, source),
        lambda source, output: cli("convert", source, output, "--force"),
        old=lambda source, output: convert(source, output, dtype="float16"),
    ),
    "convert an archive": Case(
        lambda source, work: (source.mkdir(), archived(source, work)),
        lambda source, output: cli("convert", source / "model.tar", output),
    ),
    **{f"export --to {to}": exporting(to) for to in PROGRAMS},
    "export --force": Case(
        lambda source, work: convert(TF, source),
        lambda s, o: cli("export", s, o, "--to", "huawei-tf", "--force"),
        "export.json",
        lambda source, output: export(source, output, "huawei-torch", accept_activation=True),
    ),
    "export --to onnx": Case(
        lambda source, work: convert(TF, source),
        lambda source, output: main(["export", str(source), str(output), "--to", "onnx", "--json"]),
        "export.json",
        exact=False,
    ),
    "repair": Case(lambda source, work: shutil.copytree(COPY, source), lambda s, o: cli("repair", s, o)),
    "repair --force": Case(
        lambda source, work: shutil.copytree(COPY, source),
        lambda source, output: cli("repair", source, output, "--force"),
        old=lambda source, output: convert(source, output, dtype="float16"),
    ),
    "the record of verify": Case(
        lambda source, work: shutil.copytree(TF, source), record, old=lambda source, output: convert(source, output)
    ),
}


class WrongError(Exception):
    """A kill left something wrong."""


class Bench:
    """A case in a folder that holds its source, its output and its temporary files."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case = case
        self.source, self.place, self.temporary = folder / "source", folder / "place", folder / "tmp"
        self.output, self.kept = self.place / "out", folder / "kept"
        for made in (self.place, self.temporary):
            made.mkdir()
        tempfile.tempdir = str(self.temporary)
        case.prepare(self.source, folder)
        if case.old:
            case.old(self.source, self.kept)
        self.old, self.before = tree(self.kept), tree(self.source)
        self.reset()
        status, _ = self.run()
        self.new = tree(self.output)
        self.check(status == 0, f"the undisturbed run ended with {status}")
        self.check(bool(self.new) and self.new != self.old, "the undisturbed run wrote nothing")
        check_hashes(self.output, case.mark)
        if case.exact and case.mark in self.new and case.command is not record:
            for entry in open_checkpoint(self.output).entries.values():
                entry.read()
        self.reset()  # counted in a second run: by now all is imported, and children import nothing
        begun = time.monotonic()
        _, self.steps = self.run()
        self.seconds = time.monotonic() - begun

    def reset(self) -> None:
        shutil.rmtree(self.place)
        self.place.mkdir()
        if self.case.old:
            shutil.copytree(self.kept, self.output)

    def run(self, step: int = 0, seconds: float = 0.0) -> tuple[int, int]:
        """Run a child, killed before its `step` or after a time; its exit status (negative: the signal) and steps."""
        counted, report = os.pipe()
        child = os.fork()
        if not child:
            os.close(counted)
            self._child(step, report)
        os.close(report)
        if seconds:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with open(counted, "rb") as pipe:
            steps = int(pipe.read() or b"0")
        return status, steps

    def _child(self, step: int, report: int) -> None:
        """Never returns."""
        code = 99
        try:
            quiet = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(quiet, number)
            steps = itertools.count(1)
            done = 0

            def profile(frame: Any, event: str, function: Any) -> None:
                nonlocal done
                if event == "c_call" and function.__name__ in STEPS and not isinstance(function.__self__, NO_STEPS):
                    done = next(steps)
                    if done == step:
                        os.kill(os.getpid(), signal.SIGKILL)

            threading.setprofile(profile)
            sys.setprofile(profile)
            try:
                self.case.command(self.source, self.output)
            except SystemExit as exit:
                code = int(exit.code or 0)
            finally:
                sys.setprofile(None)
                os.write(report, str(done).encode())
        finally:
            os._exit(code)

    def kill(self, step: int = 0, seconds: float = 0.0) -> bool:
        """Kill a run and check what it left; False if the run had ended before."""
        self.reset()
        status, _ = self.run(step, seconds)
        self.check(status in (0, -signal.SIGKILL), f"it ended with {status}")
        self.check(self.is_whole(), f"the output is neither absent nor complete: {sorted(tree(self.output))}")
        exists = self.output.exists()
        again, _ = self.run()
        refused = exists and not self.case.old
        self.check(again == (5 if refused else 0), f"the next run ended with {again}")
        self.check(self.is_whole(new=True), "the next run left another output")
        left = [path.name for folder in (self.place, self.temporary, self.output) for path in folder.iterdir()]
        left = [name for name in left if name not in {"out", *self.new} and not name.startswith("torchinductor")]
        self.check(not left, f"the next run left {left}")
        return status != 0

    def is_whole(self, new: bool = False) -> bool:
        files = {name: digest for name, digest in tree(self.output).items() if not name.startswith(".")}
        if not files and os.path.lexists(self.output):  # an empty folder is not absent
            return False
        if files == self.new or (files == self.old and not new):
            return True
        return not self.case.exact and files.keys() == self.new.keys() and check_hashes(self.output, self.case.mark)

    def check(self, right: bool, what: str) -> None:
        if not right:
            raise WrongError(what)
        if tree(self.source) != self.before:
            raise WrongError("the source was changed")


def tree(folder: Path) -> Tree:
    """SHA-256 of each file of `folder`, hidden ones too; empty if there is no folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check_hashes(output: Path, mark: str) -> bool:
    """Raises WrongError unless the files are those that the report names, with their hashes."""
    report = json.loads((output / mark).read_text("utf-8"))
    files = [*report["output_files"], *([report["card"]] if report.get("card") else [])]
    recorded = {file["name"]: file["sha256"] for file in files}
    if recorded != {name: digest for name, digest in tree(output).items() if name != mark}:
        raise WrongError(f"{mark} does not have the hashes of what is beside it")
    return True


LAST = 40
"""Steps at the end of a run, where it renames and cleans up."""


def moments(steps: int, kills: int) -> list[int]:
    """Steps to kill at: half of them among the last steps, or all of those, and the others spread over those before."""
    last = min(steps, max(LAST, kills // 2))
    late = min(last, kills - kills // 2)
    early = min(steps - last, kills - late)
    spread = [1 + i * (steps - last) // early for i in range(early)]
    return spread + [steps - last + 1 + i * last // late for i in range(late)]


def run_case(name: str, kills: int) -> None:
    if name == "export --to onnx":
        import nezha_convert.exports.onnx  # noqa: F401  (once, not in every child)
    chance = random.Random(name)
    tempfile.tempdir = None
    with tempfile.TemporaryDirectory(prefix="kill-", dir=os.environ.get("KILL_FOLDER")) as folder:
        bench = Bench(CASES[name], Path(folder))
        by_time = kills // BY_TIME
        plan = moments(bench.steps, kills - by_time)
        early = 0
        for number in range(kills):
            step = plan[number] if number < len(plan) else 0
            seconds = 0.0 if step else chance.uniform(0.001, bench.seconds)
            try:
                while not bench.kill(step, seconds):  # it had ended: threads make some runs shorter
                    early += 1
                    step, seconds = step and max(1, step - chance.randint(1, 9)), seconds * 0.9
            except WrongError as error:
                moment = f"step {step} of {bench.steps}" if step else f"{seconds:.3f} s"
                raise SystemExit(f"{name}, killed at {moment}: {error}") from error
        print(f"{name}: {kills} of {kills} kills right, in {bench.steps} steps; {early} came too late", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="runs to kill, of each command")
    parser.add_argument("commands", nargs="*", metavar="COMMAND", default=list(CASES), help=", ".join(CASES))
    options = parser.parse_args()
    if unknown := set(options.commands) - set(CASES):
        parser.error(f"no such command: {', '.join(unknown)}; expected some of {', '.join(CASES)}")
    for command in options.commands:
        run_case(command, options.kills)
