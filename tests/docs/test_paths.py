"""Every path, test and link that a document names exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    *sorted(path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"),  # which also tells of what was
    *sorted((ROOT / "docs").glob("**/*.md")),
    ROOT / "fixtures" / "README.md",
    ROOT / "tests" / "fuzz" / "README.md",
)
EVERY_DOCUMENT = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())

PLACEHOLDER = re.compile(r"NAME|TARGET|FIXTURE|FILE\b")
"""A part of a path that stands for any name."""

OTHERS = re.compile(
    r"(.*/)?(NEZHA-(TensorFlow|PyTorch)|JABER-PyTorch|BBPE|paddlenlp)/.*"  # files of the original programs
    r"|(run_[\w*]+|modeling|tokenization|optimization|layers|models|backend|create_pretraining_data|generate_data)\.py"
    r"|(setup|make)\.py"  # what the wheel does not have
)
"""Files that are not of this repository."""

TOP = ("nezha", "nezha_convert", "tests", "fixtures", "examples", "benchmarks", "docs", ".ci", ".github")
FOLDERS = {*TOP, *(path.name for path in (ROOT / "nezha_convert").iterdir() if path.is_dir())}
FILES = {path.name for folder in TOP for path in (ROOT / folder).rglob("*.*")} | {path.name for path in ROOT.iterdir()}


def words(text: str) -> Iterator[str]:
    """The words of inline code and of code blocks, without the punctuation around them."""
    for block, inline in re.findall(r"```\w*\n(.*?)```|`([^`\n]+)`", text, re.DOTALL):
        for word in re.split(r"[\s\"'()=,:;]+", block or inline):
            yield word.strip(".") if word.endswith(".") else word


def is_ours(word: str) -> bool:
    """Whether `word` looks like a path of this repository."""
    if not re.fullmatch(r"[\w.*-]+(/[\w.*-]+)*/?", word) or PLACEHOLDER.search(word) or OTHERS.fullmatch(word):
        return False
    first, slash, _ = word.partition("/")
    return bool(slash and first in FOLDERS) or re.search(r"[\w*-]\.(py|yml|lock|toml)$", word) is not None


def missing(text: str, folder: Path) -> list[str]:
    """The paths in `text` that are not there: seen from the root, the package, tests/ or the document's own folder."""
    places = (ROOT, ROOT / "nezha_convert", ROOT / "tests", folder)
    return sorted(
        word
        for word in {word for word in words(text) if is_ours(word)}
        if not (word in FILES or any(next(place.glob(word.rstrip("/")), None) for place in places))
    )


@EVERY_DOCUMENT
def test_every_path_that_a_document_names_exists(path):
    assert missing(path.read_text("utf-8"), path.parent) == []


@pytest.mark.parametrize(
    "planted",
    ["`nezha_convert/mapping/tables.py`", "`mapping/tables.py`", "`strict_json.py`", "`tests/nothing/`",
     "`.ci/*.locks`", "```sh\npytest tests/test_claims.py\n```", "`python tests/kill.py \"a\"`", "`docs/gone.md`"],
)  # fmt: skip
def test_a_path_that_does_not_exist_is_noticed(planted):
    assert missing(f"Look at {planted}.", ROOT)


@EVERY_DOCUMENT
def test_every_test_that_a_document_selects_exists(path):
    """`pytest FILES -k "one or another"`: each word is in the name of a test of these files."""
    for files, single, several in re.findall(r"pytest ([\w/. ]+?) -k (?:(\w+)|\"([^\"]+)\")", path.read_text("utf-8")):
        text = "\n".join((ROOT / file).read_text("utf-8") for file in files.split())
        names = re.findall(r"def (test_\w+)", text)
        for word in re.split(r" or ", single or several):
            assert any(word.lower() in name for name in names), f"{files}: no test is called {word}"
