"""Stands in for `python3` and `pip` of somebody who reads a document: what pip would install comes as links.

`python3 -m venv FOLDER` makes a real virtual environment, whose `pip` is this program. `pip install` links the packages
that are asked for and all that they require, with their extras, from the environment that runs this program. So a
virtual environment has what the document installed and nothing else, within a second.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, EntryPoint, distribution
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
OURS = "nezha-convert"


def make_environment(folder: Path) -> None:
    """A virtual environment, with this program as its pip."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    write_script(folder / "bin" / "pip", f'exec {shlex.quote(sys.executable)} {shlex.quote(__file__)} pip "$0" "$@"')


def write_script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def install(environment: Path, words: list[str]) -> None:
    """`pip install WORDS` into `environment`. An option that the documents do not use is an error."""
    parser = argparse.ArgumentParser("pip")
    parser.add_argument("command", choices=["install"])
    parser.add_argument("-c", dest="constraints", type=argparse.FileType())
    parser.add_argument("-e", dest="editable", action="store_true")
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("-r", "--requirement", action="append", default=[], type=Path)
    for option in ("--no-deps", "--require-hashes", "--no-build-isolation"):
        parser.add_argument(option, action="store_true")
    parser.add_argument("--only-binary", choices=[":all:"])
    parser.add_argument("-U", action="store_true")
    parser.add_argument("--extra-index-url")
    parser.add_argument("-i", "--index-url")
    parser.add_argument("requirements", nargs="*")
    asked = parser.parse_intermixed_args(words)
    assert asked.requirements or asked.requirement, "nothing to install"
    (packages,) = environment.glob("lib/python*/site-packages")
    if asked.no_deps:
        for name in chain(map(_named, asked.requirements), *map(locked, asked.requirement)):
            link(distribution(name), packages, environment / "bin")
        return
    for requirement in asked.requirements:
        here, extras = re.fullmatch(r"(\.?)(?:.*?)(\[.*\])?(?:[=<>].*)?", requirement).groups()
        if here:
            text = Path("pyproject.toml").read_text("utf-8")  # fails if the reader is in another folder
            assert f'name = "{OURS}"' in text
            requirement = f"{OURS}{extras or ''}"
        for found in closure(Requirement(requirement)):
            link(found, packages, environment / "bin")


def _named(requirement: str) -> str:
    """The name of a requirement without its dependencies: a name, or the folder of this package."""
    return OURS if (Path(requirement) / "pyproject.toml").is_file() else requirement


def locked(path: Path) -> Iterator[str]:
    """The names of a lock file that are for this machine. Each version has its hashes."""
    for block in re.findall(r"^[A-Za-z].*(?:\n .*)*", path.read_text("utf-8"), re.MULTILINE):
        line, *hashes = block.split("--hash=")
        assert hashes, f"{line} has no hash, and pip would refuse it"
        requirement = Requirement(line.replace("\\", "").strip())
        if not requirement.marker or requirement.marker.evaluate():
            yield requirement.name


def closure(wanted: Requirement) -> Iterator[Distribution]:
    """`wanted` and everything that it requires."""
    queue, seen = [wanted], set()
    while queue:
        one = queue.pop()
        found = distribution(one.name)
        unknown = {canonicalize_name(extra) for extra in one.extras} - {
            canonicalize_name(extra) for extra in found.metadata.get_all("Provides-Extra") or ()
        }
        assert not unknown, f"{one.name} has no extra {unknown}"
        for extra in ("", *one.extras):
            if (canonicalize_name(one.name), extra) in seen:
                continue
            seen.add((canonicalize_name(one.name), extra))
            required = map(Requirement, found.requires or ())
            queue += [each for each in required if not each.marker or each.marker.evaluate({"extra": extra})]
        yield found


def link(found: Distribution, packages: Path, programs: Path) -> None:
    """Links to the files of a distribution, and scripts for its commands."""
    names = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}
    if canonicalize_name(found.name) == OURS:  # as installed it may be this very tree
        names = {name for name in names if name.endswith(".dist-info")} | {"nezha", "nezha_convert"}
    for name in names:
        source = ROOT / name if name in ("nezha", "nezha_convert") else Path(found.locate_file(name))
        if not (packages / name).exists():
            (packages / name).symlink_to(source)
    for script in found.entry_points:
        if script.group == "console_scripts":
            write_program(programs, script)


def write_program(programs: Path, script: EntryPoint) -> None:
    module, function = script.value.split(":")
    program = f"import sys; from {module} import {function}; sys.exit({function}())"
    python = shlex.quote(str(programs / "python"))
    write_script(programs / script.name, f'exec {python} -c {shlex.quote(program)} "$@"')


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["pip", script, *words]:
            install(Path(script).parents[1], words)
        case ["-m", "venv", folder]:
            make_environment(Path(folder))
        case words:
            os.execv(sys.executable, [sys.executable, *words])
