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
FOLDERS = (*PACKAGES, "spaces")
LONGEST = 60
"""Lines of a function, without its decorators and its docstring."""

MAPPING = "nezha_convert/mapping"
DECIDERS = {"family_of", "infer_head", "choose_head", "decide_config", "make_plan"}
"""They decide family, head, config and plan. MAPPING/survey.py alone calls them, and the modules that define them."""

OF_FILES = ("nezha_convert/formats/", "nezha_convert/parity/", "nezha/")
"""Here a tuple is a value of somebody's file, or what a model returns. Elsewhere it would be a match in disguise."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file of the packages or of a Space, by its path from the root."""

    name: str
    text: str
    tree: ast.Module


def sources(root: Path = ROOT) -> list[Source]:
    paths = sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py"))
    texts = {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in paths}
    return [Source(name, text, ast.parse(text)) for name, text in texts.items()]


def long_functions(house: list[Source]) -> Iterator[str]:
    for source in house:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1 - _docstring_lines(node)
                if lines > LONGEST:
                    yield f"{source.name}:{node.lineno} {node.name}: {lines} lines"


def decisions(house: list[Source]) -> Iterator[str]:
    """Calls of the deciders outside the survey and the modules of MAPPING that define them."""
    for source in house:
        defines = source.name.startswith(f"{MAPPING}/") and DECIDERS & set(_defined(source))
        if source.name != f"{MAPPING}/survey.py" and not defines:
            for call in _calls(source):
                if _name(call.func) in DECIDERS:
                    yield f"{source.name}:{call.lineno} {ast.unparse(call.func)}"


def tuple_checks(house: list[Source]) -> Iterator[str]:
    """A match of a rule that is known by being a tuple: a `match` statement knows it by its type."""
    for source in house:
        for call in () if source.name.startswith(OF_FILES) else _calls(source):
            if _name(call.func) == "isinstance" and "tuple" in map(_name, ast.walk(call.args[1])):
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


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    if ast.get_docstring(node) is None:
        return 0
    first = node.body[0]
    return (first.end_lineno or first.lineno) - first.lineno + 1


def _defined(source: Source) -> Iterator[str]:
    return (node.name for node in source.tree.body if isinstance(node, ast.FunctionDef))


def _calls(source: Source) -> Iterator[ast.Call]:
    return (node for node in ast.walk(source.tree) if isinstance(node, ast.Call))


def _name(node: ast.AST) -> str:
    """The last part of a dotted name."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mypy", action="store_true", help="run mypy --strict on both packages")
    asked = parser.parse_args()
    house = sources()
    faults = {
        f"functions over {LONGEST} lines": list(long_functions(house)),
        "calls that decide a family, head, config or plan outside mapping/survey.py": list(decisions(house)),
        "matches known by isinstance(..., tuple)": list(tuple_checks(house)),
        **({"errors of mypy --strict": mypy_errors()} if asked.mypy else {}),
    }
    for what, places in faults.items():
        print(f"{len(places):6,}  {what}")
        for place in places:
            print(f"        {place}")
    for package in PACKAGES:
        print(f"{lines(house, package):6,}  lines of {package}/")
    sys.exit(any(faults.values()))


if __name__ == "__main__":
    main()
