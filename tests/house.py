"""What the house promises of its code, as a table: `python tests/house.py [--mypy]`.

With --mypy it also counts the errors of `mypy --strict` on both packages, which CI asks for itself.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("nezha", "nezha_convert")
LONGEST = 60
"""Lines of a function, its decorators left out."""

SURVEY = "nezha_convert/mapping/survey.py"
DECIDERS = {"family_of", "infer_head", "choose_head", "decide_config", "make_plan"}
"""They decide family, head, config and plan; the survey alone calls them, and they one another."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file of the packages, by its path from the root."""

    name: str
    text: str
    tree: ast.Module


def sources(root: Path = ROOT) -> list[Source]:
    paths = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    texts = {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in paths}
    return [Source(name, text, ast.parse(text)) for name, text in texts.items()]


def long_functions(house: list[Source]) -> Iterator[str]:
    for source in house:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1
                if lines > LONGEST:
                    yield f"{source.name}:{node.lineno} {node.name}: {lines} lines"


def decisions(house: list[Source]) -> Iterator[str]:
    """Calls of the deciders outside the survey and the modules that define them."""
    defining = {SURVEY, *(source.name for source in house if DECIDERS & set(_defined(source)))}
    for source in house:
        if source.name not in defining:
            for call in _calls(source):
                if _name(call.func) in DECIDERS:
                    yield f"{source.name}:{call.lineno} {ast.unparse(call.func)}"


def tuple_checks(house: list[Source]) -> Iterator[str]:
    """A match of the mapping that is told by being a tuple: `match` statements tell them by type."""
    for source in house:
        for call in _calls(source):
            if _name(call.func) == "isinstance" and "tuple" in {
                _name(node) for node in ast.walk(call.args[1]) if isinstance(node, ast.expr)
            }:
                yield f"{source.name}:{call.lineno} {ast.unparse(call)}"


def lines(house: list[Source], package: str) -> int:
    return sum(source.text.count("\n") for source in house if source.name.startswith(f"{package}/"))


def mypy_errors(root: Path = ROOT) -> list[str]:
    """What `mypy --strict` says of both packages, one error a line."""
    command = [sys.executable, "-m", "mypy", "--strict", *(f"--package={package}" for package in PACKAGES)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stdout + done.stderr)
    return [line for line in done.stdout.splitlines() if ": error:" in line]


def _defined(source: Source) -> Iterator[str]:
    return (node.name for node in source.tree.body if isinstance(node, ast.FunctionDef))


def _calls(source: Source) -> Iterator[ast.Call]:
    return (node for node in ast.walk(source.tree) if isinstance(node, ast.Call))


def _name(node: ast.expr) -> str:
    """The last part of a dotted name."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mypy", action="store_true", help="run mypy --strict on both packages")
    asked = parser.parse_args()
    house = sources()
    faults = {
        f"functions over {LONGEST} lines": list(long_functions(house)),
        "calls of family, head, config and plan outside mapping/survey.py": list(decisions(house)),
        "isinstance(..., tuple)": list(tuple_checks(house)),
        **({"errors of mypy --strict": mypy_errors()} if asked.mypy else {}),
    }
    counts = {what: len(found) for what, found in faults.items()}
    counts |= {f"lines of {package}/": lines(house, package) for package in PACKAGES}
    for what, count in counts.items():
        print(f"{count:6,}  {what}")
        for fault in faults.get(what, ()):
            print(f"        {fault}")
    sys.exit(any(faults.values()))


if __name__ == "__main__":
    main()
