"""Run the commands of the core on every fixture, in this process, and print what each said: `walk.py FOLDER`."""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from hub_server import hub

from nezha_convert.cli.app import main
from nezha_convert.families import PROGRAMS

FIXTURES = Path(__file__).parents[2] / "fixtures"
WEIGHTS = {".index", ".bin", ".pt", ".pdparams", ".safetensors", ".h5", ".weights"}
SOURCES = sorted({path.parent for path in FIXTURES.rglob("*") if path.suffix in WEIGHTS})
ASKED = {
    "cases/untied-decoder": "masked-lm",
    "huawei-tf-classifier": "sequence-classification",
    "huawei-tf-ner": "token-classification",
}
NAME, TOKEN = "owner/nezha-tiny", "hf_token"

Said = dict[str, tuple[int, str]]
"""Of each command and source: the exit code, and what was said on stderr."""


def local(source: Path, work: Path) -> Said:
    name, out = source.relative_to(FIXTURES).as_posix(), work / "out"
    head = ["--head", ASKED[name]] if name in ASKED else []
    commands = {
        "inspect": ["inspect", source],
        "convert": ["convert", source, out, *head],
        "check": ["check", out],
        "diff": ["diff", source, out],
        "repair": ["repair", out, work / "repaired"],
        "push": ["push", out, NAME, "--license", "mit", "--force", "--dry-run"],
    }
    commands |= {f"export {to}": ["export", out, work / to, "--to", to, "--accept-activation"] for to in PROGRAMS}
    return {f"{command} {name}": _run(words) for command, words in commands.items()}


def at_a_hub(work: Path) -> Said:
    """Push a converted folder to a Hub on loopback, pull it, and repair it there."""
    with hub(TOKEN) as server:
        at = ["--token", TOKEN, "--endpoint", server.endpoint]
        commands = {
            "convert": ["convert", FIXTURES / "huawei-tf-pretraining", work / "model"],
            "push": ["push", work / "model", NAME, "--license", "mit", "--force", *at],
            "pull": ["pull", f"hf://{NAME}", work / "pulled", *at],
            "repair": ["repair", f"hf://{NAME}", *at],
        }
        return {f"{command} at the Hub": _run(words) for command, words in commands.items()}


def _run(words: list[object]) -> tuple[int, str]:
    said = StringIO()
    with redirect_stdout(StringIO()), redirect_stderr(said):
        try:
            main([str(word) for word in words])
        except SystemExit as end:
            code = end.code
    return int(code or 0), said.getvalue()


def walk() -> None:
    said: Said = {}
    for source in SOURCES:
        with TemporaryDirectory(dir=sys.argv[1]) as work:
            said |= local(source, Path(work))
    print(json.dumps(said | at_a_hub(Path(sys.argv[1]))))


if __name__ == "__main__":
    os.environ |= {"HF_HOME": f"{sys.argv[1]}/home", "HF_HUB_DISABLE_XET": "1", "OPENBLAS_NUM_THREADS": "1"}
    walk()
