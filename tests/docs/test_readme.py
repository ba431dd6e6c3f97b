"""The documents do not rot: their commands, files and options exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from nezha_convert.cli.app import cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "fixtures" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def blocks(language: str) -> list[str]:
    return [
        block
        for path in DOCUMENTS
        for block in re.findall(rf"```{language}\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    ]


def test_the_readme_has_one_command_that_converts_and_one_that_tests():
    one_liners = [block for block in blocks("sh") if block.count("\n") == 1]
    for command in ("nezha-convert convert fixtures/", "python -m pytest"):
        (line,) = (block for block in one_liners if command in block)
        assert "-m venv .venv" in line and "-c constraints.txt" in line


def test_every_command_of_the_documents_parses():
    found = 0
    for block in blocks("sh"):
        for words in (
            shlex.split(part) for line in block.replace("\\\n", " ").splitlines() for part in line.split("&&")
        ):
            if words and words[0].endswith("nezha-convert"):
                found += 1
                command = cli.commands[words[1]]
                try:
                    command.make_context(words[1], words[2:])  # raises click.UsageError where an argument is wrong
                except click.BadParameter as error:
                    assert "does not exist" in str(error)  # the example's own files
                for word in words[2:]:
                    assert not word.startswith("fixtures/") or (ROOT / word).exists()
    assert found >= 3


def test_every_example_of_the_help_parses():
    for name, command in cli.commands.items():
        lines = re.findall(r"^\s+nezha-convert (.*)$", command.help, re.MULTILINE)
        assert lines, f"{name} --help has no example"
        for line in lines:
            words = shlex.split(line)
            try:
                cli.commands[words[0]].make_context(words[0], words[1:])
            except click.BadParameter as error:
                assert "does not exist" in str(error)  # the example's own files


def test_every_option_that_the_documents_name_exists():
    known = {
        option
        for command in cli.commands.values()
        for param in command.params
        for option in (*param.opts, *param.secondary_opts)
    }
    text = "\n".join(path.read_text("utf-8") for path in DOCUMENTS[:1])
    for option in re.findall(r"`(--[a-z-]+)", text):
        assert option in known | {"--help"}, option


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(path):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), target


def test_the_fixtures_are_small():
    total = sum(path.stat().st_size for path in (ROOT / "fixtures").rglob("*") if path.is_file())
    assert total < 5_000_000
