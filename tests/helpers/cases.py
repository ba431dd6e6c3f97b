"""Walk the checkpoints in a folder as their holder would, and print what becomes of each: `cases.py [--json] FOLDER`.

Names behind FOLDER are those of it that are walked. With --json each line is an object.

Each is converted; where that is refused, the first command of the advice is followed, as it stands. What was converted
is verified, and each tensor of the source is looked for by its value in the model or beside it.
"""

from __future__ import annotations

import io
import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from nezha_convert.checkpoint import Checkpoint
from nezha_convert.cli.app import main
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.formats.safetensors import read_safetensors

HOPS = 2
"""The most commands of advice from a refusal to a result."""


@dataclass(frozen=True, slots=True)
class Walked:
    """What became of a source.

    Attributes:
        commands: what was run, from the first conversion on.
        report: of the conversion; None where it ended in a refusal.
        errors: the refusals on the way.
        verdict: of verify.
        lost: names of the source's tensors whose values are nowhere, although no reason is given.
    """

    commands: tuple[list[str], ...]
    report: Mapping[str, Any] | None
    errors: tuple[Mapping[str, Any], ...]
    verdict: str = ""
    lost: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """It as an object for a program: what was asked, done and found."""
        report, commands = self.report or {}, [shlex.join(["nezha-convert", *words]) for words in self.commands]
        return {
            "source": Path(self.commands[0][1]).name,
            "hops": len(self.commands) - 1,
            "commands": commands,
            "converted": self.report is not None,
            "head": report.get("head"),
            "family": report.get("family"),
            "kept": [tensor["target"] for tensor in report.get("kept", ())],
            "dropped": sorted({tensor["reason"] for tensor in report.get("dropped", ())}),
            "verdict": self.verdict,
            "lost": list(self.lost),
            "refused": self.errors[-1]["message"] if self.report is None else "",
            "hint": self.errors[-1]["hint"] if self.report is None else "",
        }

    def row(self) -> str:
        """A line of the table."""
        source, hops = self.commands[0][1], len(self.commands) - 1
        added = shlex.join(word for word in self.commands[-1] if word not in self.commands[0])
        if self.report is None:
            error = self.errors[-1]
            return f"{Path(source).name} | {hops} {added} | refused: {error['message'][:200]} >> {error['hint'][:200]}"
        kept = ", ".join(tensor["target"] for tensor in self.report["kept"])
        dropped = ", ".join(sorted({tensor["reason"] for tensor in self.report["dropped"]}))
        what = f"{self.report['head']} ({self.report['family']})" + (f"; beside: {kept[:120]}" if kept else "")
        what += f"; left out: {dropped[:150]}" if dropped else ""
        return f"{Path(source).name} | {hops} {added} | {what} | {self.verdict} | {self.lost or 'all accounted for'}"


def run(words: list[str]) -> tuple[int, Mapping[str, Any]]:
    """The exit code and the document of a command."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        try:
            main([*words, "--json"])
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    return code, json.loads(out.getvalue())


def walk(source: Path, work: Path, *, verified: bool = True) -> Walked:
    """Convert `source`, by its advice where it is refused."""
    output = work / "out"
    commands, errors = [["convert", str(source), str(output)]], []
    while True:
        code, said = run(commands[-1])
        if code == 0:
            return _proved(Walked(tuple(commands), said, tuple(errors)), output, verified)
        errors.append(said)
        following = [shlex.split(command)[1:] for command in said["next"]]
        fresh = [words for words in following if words[0] == "convert" and words not in commands]
        if not fresh or len(commands) > HOPS:
            return Walked(tuple(commands), None, tuple(errors))
        commands.append(fresh[0])


def _proved(walked: Walked, output: Path, verified: bool) -> Walked:
    source, words = walked.commands[-1][1], walked.commands[-1]
    extra = [word for option in ("--config", "--vocab") if option in words for word in words[words.index(option) :][:2]]
    verdict = "not verified"
    if verified:
        code, said = run(["verify", source, str(output), *extra])
        verdict = "passed" if code == 0 else f"FAILED: {said.get('failures') or said.get('message')}"
        if assumed := [one["name"] for one in said.get("assumed", ())]:
            verdict += f" (assumed: {', '.join(assumed)})"
    part = words[words.index("--part") + 1] if "--part" in words else None
    lost = tuple(unaccounted(open_checkpoint(source, part, "--average" in words), output, walked.report or {}))
    return Walked(walked.commands, walked.report, walked.errors, verdict, lost)


def unaccounted(checkpoint: Checkpoint, output: Path, report: Mapping[str, Any]) -> Iterator[str]:
    """Names of the source whose values stand nowhere in `output`, although no reason is given."""
    files = tuple(output.glob("*.safetensors"))
    values = {_bytes(entry.read()) for file in files for entry in read_safetensors((file,)).values()}
    reasons = {tensor["name"] for tensor in report["dropped"]}
    for name, entry in checkpoint.entries.items():
        array = entry.read()
        if name not in reasons and not values & {_bytes(array), _bytes(array.T)}:
            yield name


def _bytes(array: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    return array.shape, np.ascontiguousarray(array).tobytes()


if __name__ == "__main__":
    as_json, (root, *names) = "--json" in sys.argv, [word for word in sys.argv[1:] if word != "--json"]
    walked = []
    for path in sorted(Path(root).iterdir()):
        if path.is_dir() and (not names or path.name in names):
            with TemporaryDirectory() as folder:
                one = walk(path, Path(folder))
            walked.append(one)
            print(json.dumps(one.to_dict(), ensure_ascii=False) if as_json else one.row(), flush=True)
    converted = [one for one in walked if one.report]
    proved = sum(one.verdict.startswith("passed") for one in converted)
    lost = sum(bool(one.lost) for one in converted)
    print(
        f"{len(walked)} sources: {len(converted)} converted, {proved} of them passed, {len(walked) - len(converted)} "
        f"refused, {lost} with a tensor that was lost",
        file=sys.stderr,
    )
