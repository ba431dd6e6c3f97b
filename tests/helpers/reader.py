"""A reader of a document: runs its blocks in order, in one shell, and compares what they print with what it says.

`blocks` finds the blocks. `Reader` is a folder and a shell in it, with nothing on the PATH but the system's programs
and `python3`. What the document installs comes as links into a virtual environment: the packages that pip would
install, of those of this environment, and no others. So a command whose extra is named too late fails here as well.
`Reader(..., fresh=True)` lets pip install them (`nox -s readme`).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSTALL = Path(__file__).with_name("install_by_links.py")
SYSTEM = ("/usr/bin", "/bin")
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LANGUAGES = ("sh", "python")
LEFT_OUT = "..."
"""What a document writes for a part of the output that differs from run to run, or does not matter."""


@dataclass(frozen=True)
class Block:
    """A block of a document.

    Attributes:
        line: the number of its first line.
        prints: what the document says that it prints: the text block right after it. None if it does not say.
    """

    document: Path
    line: int
    language: str
    text: str
    prints: str | None = None

    def __str__(self) -> str:
        return f"{self.document.name}:{self.line}"


def blocks(document: Path) -> list[Block]:
    """The shell and Python blocks of a document, in order."""
    text = document.read_text("utf-8")
    found = list(BLOCK.finditer(text))
    result = []
    for number, match in enumerate(found):
        if match[2] in LANGUAGES:
            shown = [other for other in found[number + 1 : number + 2] if other[2] == "text"]
            prints = [textwrap.dedent(one[3]) for one in shown if not text[match.end() : one.start()].strip()]
            line = text.count("\n", 0, match.start(3)) + 1
            result.append(Block(document, line, match[2], textwrap.dedent(match[3]), *prints))
    return result


def as_pattern(prints: str) -> re.Pattern[str]:
    """What an output has to look like: `...` stands for anything in a line; alone, for any lines."""
    lines = [
        r"(.*\n)*?" if line.strip() == LEFT_OUT else ".*".join(map(re.escape, line.rstrip().split(LEFT_OUT))) + r" *\n"
        for line in prints.splitlines()
    ]
    return re.compile("".join(lines))


class Reader:
    """Somebody who reads a document at a shell.

    Args:
        folder: where the shell starts. It need not exist.
        home: the reader's own files.
        environment: variables besides PATH and HOME.
        fresh: whether pip installs what the document installs.
    """

    def __init__(self, folder: Path, home: Path, environment: Mapping[str, str], fresh: bool = False) -> None:
        self.folder, self.home = folder, home
        self.seconds = 7200 if fresh else 900  # an index may be slow
        folder.mkdir(parents=True, exist_ok=True)
        programs = home / "bin"
        programs.mkdir(parents=True)
        python = Path(sys.base_prefix, "bin", "python3") if fresh else sys.executable
        words = f"{shlex.quote(str(python))} {'' if fresh else shlex.quote(str(INSTALL))}"
        (programs / "python3").write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (programs / "python3").chmod(0o755)
        self.environment = {
            "PATH": os.pathsep.join((str(programs), *SYSTEM)),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "COLUMNS": "200",
            **environment,
        }

    def read(self, todo: Sequence[Block], begin: str = ":") -> None:
        """Run `todo` in one shell, after the shell lines `begin`, and compare what is said to be printed.

        Raises:
            AssertionError: a block ended with an error, or printed something else; with what it printed.
        """
        script = ["set -e", "exec 3>&1", f"{{\n{begin}\n}} > {self._out(0)} 2>&1"]
        for number, block in enumerate(todo, 1):
            script.append(f"echo {number} >&3")
            script.append(f"{{\n{self._command(number, block)}\n}} > {self._out(number)} 2> {self._out(number)}.err")
        command = ["bash", "-c", "\n".join([*script, "echo done >&3"])]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=self.seconds,
        )
        last = done.stdout.split()[-1:] or ["0"]
        if last != ["done"]:
            number = int(last[0])
            what = f"{todo[number - 1]} stops:\n{todo[number - 1].text}" if number else f"what comes before:\n{begin}"
            raise AssertionError(f"{what}\n{done.stderr}{self._said(number)}")
        for number, block in enumerate(todo, 1):
            if block.prints is not None:
                said = Path(self._out(number)).read_text("utf-8")
                lines = "".join(f"{line.rstrip()}\n" for line in said.splitlines())
                assert as_pattern(block.prints).fullmatch(lines), (
                    f"{block} prints something else:\n{self._said(number)}"
                )

    def _out(self, number: int) -> str:
        return str(self.home / f"block-{number}.out")

    def _said(self, number: int) -> str:
        paths = (Path(self._out(number)), Path(f"{self._out(number)}.err"))
        return "\n".join(path.read_text("utf-8", "replace") for path in paths if path.exists())

    def _command(self, number: int, block: Block) -> str:
        if block.language == "sh":
            return block.text
        path = self.home / f"test_block_{number}.py"
        path.write_text(block.text, "utf-8")
        runner = "-m pytest -q -p no:cacheprovider" if re.search(r"^def test_", block.text, re.MULTILINE) else ""
        return f"python {runner} {shlex.quote(str(path))}"


def clone(folder: Path) -> Path:
    """A copy of this repository, as somebody has it who cloned it."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "dist", "build", "site")
    return Path(shutil.copytree(ROOT, folder, ignore=ignored, symlinks=True))
