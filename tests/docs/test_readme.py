"""The documents do not rot: their commands, files and options exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from nezha_convert.cli.app import cli
from nezha_convert.errors import CPU_INDEX
from nezha_convert.families import PROGRAMS
from nezha_convert.releases import TORCH, TRANSFORMERS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "README.zh-CN.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "fixtures" / "README.md",
    ROOT / "tests" / "fuzz" / "README.md",
    *sorted((ROOT / "docs").glob("**/*.md")),
]
RELEASES_IN = ("README.md", "docs/tokenizers.md", "docs/verify.md")
REPOSITORY = "https://github.com/nezha-convert/nezha-convert"
RAW = "https://raw.githubusercontent.com/nezha-convert/nezha-convert"


def blocks(language: str, documents: Sequence[Path] = DOCUMENTS) -> list[str]:
    return [
        block
        for path in documents
        for block in re.findall(rf"```{language}\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    ]


def test_the_readme_has_one_command_that_converts_and_one_that_tests():
    one_liners = [block for block in blocks("sh", DOCUMENTS[:1]) if block.count("\n") == 1]
    for command in ("nezha-convert convert fixtures/", "python -m pytest"):
        (line,) = (block for block in one_liners if command in block)
        assert "-m venv .venv" in line and "-c constraints.txt" in line


def test_the_readme_s_first_command_installs_the_core_and_the_next_adds_the_proof():
    first, second = blocks("sh", DOCUMENTS[:1])[:2]
    assert "pip install -c constraints.txt . &&" in first and "nezha-convert convert" in first
    assert f"pip install -c constraints.txt {CPU_INDEX} '.[torch]' &&" in second and "nezha-convert verify" in second
    fixture, folder = first.split()[-2:]
    assert second.split()[-2:] == [fixture, folder]


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_what_the_first_command_needs_is_said_before_it(name):
    """A Python that is too old is refused by pip with a riddle about constraints.txt."""
    before = (ROOT / name).read_text("utf-8").partition("```sh")[0]
    lowest = re.findall(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert re.findall(r"Python ([\d.]+\d)", before) == lowest
    assert f"`git clone {REPOSITORY} && cd {REPOSITORY.rpartition('/')[2]}`" in before


def test_both_languages_say_where_each_shell_s_line_of_completion_goes():
    """In zsh the line needs what compinit defines."""
    rows = [
        re.findall(r"^\| (bash|zsh|fish)\b.*?\| (`.+?`) \| (.+) \|$", (ROOT / name).read_text("utf-8"), re.MULTILINE)
        for name in ("README.md", "README.zh-CN.md")
    ]
    english, chinese = ([(shell, line, re.findall("`[^`]+`", where)) for shell, line, where in one] for one in rows)
    assert english == chinese and [shell for shell, *_ in english] == ["bash", "zsh", "fish"]
    assert ["`~/.zshrc`", "`compinit`"] in [where for *_, where in english]


def test_the_documents_name_the_releases_that_the_tests_have_shown():
    readme, tokenizers, verify = ((ROOT / name).read_text("utf-8") for name in RELEASES_IN)
    first_and_last = [[".".join(end.split(".")[:2]) for end in series] for series in reversed(TRANSFORMERS)]
    assert f"| {', '.join(' to '.join(ends) for ends in first_and_last)} |" in readme
    ends = [end for series in TRANSFORMERS for end in series]
    for text in (readme, tokenizers):
        assert f"4.40.2, {', '.join(ends[:-1])} and {ends[-1]}" in text
    assert f"torch {TORCH[0]} to {TORCH[1]}" in readme
    assert f"torch {TORCH[0]} 到 {TORCH[1]}" in (ROOT / "README.zh-CN.md").read_text("utf-8")
    assert f"torch has to be {TORCH[0]} or newer" in verify
    for path in DOCUMENTS:  # in English or Chinese
        last = re.findall(r"\b5\.0(?:\.0)? (?:to|and|到|和) (5\.\d+)", path.read_text("utf-8"))
        assert set(last) <= {first_and_last[0][1]}, path


def test_what_people_expect_is_counted_as_it_is():
    """The table of docs/index.md and of its translation: releases, targets of exports, libraries."""
    docs = ROOT / "docs"
    libraries = len(re.findall(r"^\| \[", (docs / "libraries.md").read_text("utf-8"), re.MULTILINE))
    releases = 1 + sum(map(len, TRANSFORMERS))  # and 4.40.2
    numbers = {5: ("five", "五"), 6: ("six", "六"), 11: ("eleven", "十一")}
    claims = (
        ("tested on {} releases", "在{}个版本上测试", releases),
        ("[`export`](export.md), {} targets", "[`export`](../export.md)，{}种目标", len(PROGRAMS) + 1),
        ("[{}, compared](libraries.md)", "[{}个，逐个比较](libraries.md)", libraries),
    )
    for name, language in (("index.md", 0), ("zh/index.md", 1)):
        text = (docs / name).read_text("utf-8")
        for claim in claims:
            assert claim[language].format(numbers[claim[2]][language]) in text, claim
        rows = [line.count("|") for line in text.splitlines() if line.startswith("| ")]
        assert len(rows) >= 14 and {*rows} == {5}
        for page in re.findall(r"`?\]\(([\w./-]+\.md)", text):
            assert (docs / name).parent.joinpath(page).is_file(), page


def test_every_command_of_the_documents_parses():
    count = 0
    for block in blocks("sh"):
        for words in (
            shlex.split(part) for line in block.replace("\\\n", " ").splitlines() for part in line.split("&&")
        ):
            if words and words[0].endswith("nezha-convert"):
                count += 1
                command = cli.commands[words[1]]
                try:
                    command.make_context(words[1], words[2:])  # raises click.UsageError where an argument is wrong
                except click.BadParameter as error:
                    assert "does not exist" in str(error)  # the example's own files
                for word in words[2:]:
                    assert not word.startswith("fixtures/") or (ROOT / word).exists()
    assert count >= 3


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


def links(text: str) -> tuple[set[str], set[str]]:
    """The targets of a document's links, and its names of targets that are defined elsewhere in it."""
    prose = re.sub(r"```.*?```|`[^`\n]+`", "", text, flags=re.DOTALL)
    targets = {*re.findall(r"\]\(([^)]+)\)", prose), *re.findall(r"^\[[\w-]+\]: (\S+)$", prose, re.MULTILINE)}
    return targets, set(re.findall(r"\]\[([\w-]+)\]", prose))


@pytest.mark.parametrize("path", DOCUMENTS[:2], ids=lambda path: path.name)
def test_every_link_of_the_readme_works_where_there_is_no_repository(path):
    """A package index shows the README alone, so its links and pictures are whole addresses, of files in this tree."""
    text = path.read_text("utf-8")
    targets, names = links(text)
    assert len(targets) > 9 and all(target.startswith("https://") for target in targets), targets
    for target in targets:
        if target.startswith((REPOSITORY, RAW)):
            path = re.fullmatch(rf"{REPOSITORY}/blob/main/(.+)|{RAW}/main/(.+)", target)
            assert path and (ROOT / (path[1] or path[2])).is_file(), target
    assert names == set(re.findall(r"^\[([\w-]+)\]: ", text, re.MULTILINE))


def test_a_link_within_the_repository_is_noticed_in_the_readme():
    assert links("See [a](docs/a.md), `[b](c.md)` and [d][e].\n\n[e]: f.md\n") == ({"docs/a.md", "f.md"}, {"e"})


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_section_leads_to_one(path):
    for file, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", path.read_text("utf-8")):
        headings = re.findall(r"^#+ (.+)$", (path.parent / file if file else path).read_text("utf-8"), re.MULTILINE)
        anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert anchor in anchors, f"{path.name}: {file}#{anchor}"


def test_the_fixtures_are_small():
    total = sum(path.stat().st_size for path in (ROOT / "fixtures").rglob("*") if path.is_file())
    assert total < 5_000_000
