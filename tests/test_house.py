"""What the house promises of its code holds; each check finds what it is for."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import house
import pytest

HOUSE = house.sources()


def source(text: str, name: str = "nezha_convert/commands/planted.py") -> list[house.Source]:
    return [house.Source(name, text, ast.parse(text))]


def test_no_function_is_longer_than_sixty_lines() -> None:
    assert "\n".join(house.long_functions(HOUSE)) == ""


def test_family_head_config_and_plan_are_decided_in_the_survey_alone() -> None:
    assert "\n".join(house.decisions(HOUSE)) == ""


def test_every_decider_is_defined_in_the_mapping() -> None:
    """Else the check above looks for names that nobody has."""
    mapping = [source.tree for source in HOUSE if source.name.startswith(f"{house.MAPPING}/")]
    defined = {node.name for tree in mapping for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert house.DECIDERS - defined == set()


def test_no_match_is_known_by_being_a_tuple() -> None:
    assert "\n".join(house.tuple_checks(HOUSE)) == ""


@pytest.mark.parametrize("lines", [60, 61])
def test_a_longer_function_is_found(lines: int) -> None:
    text = "@decorated\ndef long():\n" + "    pass\n" * (lines - 1)
    assert len([*house.long_functions(source(text))]) == lines - 60
    method = "class A:\n    async def long(self):\n" + "        pass\n" * (lines - 1)
    assert len([*house.long_functions(source(method))]) == lines - 60


@pytest.mark.parametrize("name", sorted(house.DECIDERS))
def test_a_decision_outside_the_survey_is_found(name: str) -> None:
    text = f"def f():\n    return mapping.{name}(1)\n{name}(2)\n"
    assert len([*house.decisions(source(text))]) == 2
    assert len([*house.decisions(source(f"def {name}(): ...\n{text}"))]) == 2  # its own is no excuse
    for there in ("survey", "recognise"):
        assert not [*house.decisions(source(f"def {name}(): ...\n{text}", f"{house.MAPPING}/{there}.py"))]


@pytest.mark.parametrize("kinds", ["tuple", "(list, tuple)", "tuple | list"])
def test_a_match_that_is_known_by_being_a_tuple_is_found(kinds: str) -> None:
    assert len([*house.tuple_checks(source(f"isinstance(found, {kinds})"))]) == 1
    assert not [*house.tuple_checks(source(f"isinstance(found, {kinds})", "nezha_convert/formats/pickles/arrays.py"))]


def test_the_table_is_printed_with_the_lines_of_both_packages() -> None:
    done = subprocess.run([sys.executable, house.__file__], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    for package in house.PACKAGES:
        assert f"{house.lines(HOUSE, package):,}  lines of {package}/\n" in done.stdout


def test_no_test_module_is_imported_by_another() -> None:
    """What several need is in tests/helpers."""
    tests = Path(house.__file__).parent
    for path in sorted(tests.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(part.startswith("test_") for name in names for part in name.split(".")[-1:]), path
