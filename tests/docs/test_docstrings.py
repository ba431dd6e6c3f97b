"""The docstrings of the public names say everything, and their examples run."""

from __future__ import annotations

import doctest
import inspect
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import docstrings
import pytest
from goldens import FIXTURES
from hub_fixtures import CANARY
from torch import Tensor

import nezha
import nezha_convert
from nezha_convert.exports.onnx import PRECISIONS
from nezha_convert.families import PROGRAMS
from nezha_convert.families.heads import HEADS
from nezha_convert.families.published import PUBLISHED
from nezha_convert.tokenizer.wordpiece import KINDS

DOCS = Path(__file__).parents[2] / "docs"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PUBLIC = dict(docstrings.objects())
OF_THE_MODEL = [name for name in PUBLIC if name.startswith("nezha.")]
OF_THE_TOOL = [name for name in PUBLIC if name.startswith("nezha_convert.")]


def test_every_public_docstring_says_arguments_shapes_returns_raises_and_an_example():
    table, missing = docstrings.count()
    assert missing == []
    assert table["arguments"][1] > 300 and table["shapes"][1] > 80 and table["example"][1] > 45


@pytest.mark.parametrize(
    ("function", "argument", "values"),
    [
        (nezha_convert.convert, "head", HEADS),
        (nezha_convert.convert, "config", PUBLISHED),
        (nezha_convert.inspect, "config", PUBLISHED),
        (nezha_convert.convert, "tokenizer", KINDS),
        (nezha_convert.export, "to", PROGRAMS),
        (nezha_convert.export_graph, "precision", PRECISIONS),
    ],
)
def test_a_docstring_lists_the_values_of_an_argument(function, argument, values):
    text = docstrings.documented(docstrings.sections(function.__doc__)["Args"])[argument]
    assert [value for value in values if f'"{value}"' not in text] == []


def test_the_reference_shows_every_public_name():
    for package, page, base in ((nezha, "reference", {"NezhaPreTrainedModel"}), (nezha_convert, "tool", set())):
        shown = re.findall(r"^::: [\w.]+\.(\w+)$", (DOCS / f"{page}.md").read_text("utf-8"), re.MULTILINE)
        assert sorted({*shown} | base) == sorted(name for name in package.__all__ if not name.startswith("__"))


ARGUMENTS = {("arguments", "a"), ("shapes", "a")}


@pytest.mark.parametrize(
    ("doc", "missing"),
    [
        ("Args:\n    a: one [B].\n    b: two [B].\nReturns:\n    c\nRaises:\n    E: e.\nExample:\n    >>> 1", set()),
        (
            "Args:\n    a: one.\n    b: two [B].\nReturns:\n    c\nRaises:\n    E: e.\nExample:\n    >>> 1",
            {("shapes", "a")},
        ),
        ("Args:\n    b: two [B].\nReturns:\n    c", {*ARGUMENTS, ("raises", ""), ("example", "")}),
        ("Args:\n    b: two [B].\nRaises:\n    E: e.", {*ARGUMENTS, ("returns", ""), ("example", "")}),
    ],
)
def test_what_a_docstring_lacks_is_noticed(doc, missing):
    def planted(a: Tensor, b: Tensor) -> int:
        return len(a) + len(b)

    planted.__doc__ = f"Do.\n\n{doc}\n"
    assert {(kind, what) for kind, what, there in docstrings.wanted(planted) if not there} == missing


def run_example(name: str) -> None:
    public = PUBLIC[name]
    test = doctest.DocTestParser().get_doctest(inspect.cleandoc(public.__doc__), {}, name, None, None)
    said: list[str] = []
    outcome = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append)
    assert outcome.attempted and not outcome.failed, "".join(said)


@pytest.mark.parametrize("name", OF_THE_MODEL)
def test_the_example_of_the_model_runs(name):
    run_example(name)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with what the examples name: a checkpoint, its verified conversion, and a model trained from it."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    place = tmp_path_factory.mktemp("examples")
    shutil.copytree(FIXTURES / "huawei-tf-pretraining", place / "NEZHA-Base")
    shutil.copy(FIXTURES / "training" / "vocab.txt", place / "NEZHA-Base")
    shutil.copytree(FIXTURES / "huawei-tf-pretraining", place / "models" / "NEZHA-Base")
    nezha_convert.convert(place / "NEZHA-Base", place / "nezha-base")
    assert nezha_convert.verify(place / "NEZHA-Base", place / "nezha-base").passed
    for auto in (AutoModelForSequenceClassification, AutoTokenizer):
        auto.from_pretrained(place / "nezha-base", trust_remote_code=True).save_pretrained(place / "chnsenti")
    return place


@pytest.fixture
def there(prepared, server, tmp_path, monkeypatch) -> Iterator[None]:
    """The tests' folder is a copy of that, and the Hub has two models."""
    place = Path(shutil.copytree(prepared, tmp_path / "examples"))
    copy = FIXTURES / "transformers-4.40.2-masked-lm"
    for name, source in (("owner/nezha-base", place / "nezha-base"), ("owner/name", copy)):
        files = {path.name: path.read_bytes() for path in source.iterdir() if path.suffix != ".npz"}
        server.create(name, files)
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.setenv("HF_TOKEN", CANARY)
    for constant, path in (
        ("ENDPOINT", ""),
        ("HUGGINGFACE_CO_URL_TEMPLATE", "/{repo_id}/resolve/{revision}/{filename}"),
    ):
        monkeypatch.setattr(f"huggingface_hub.constants.{constant}", server.endpoint + path)
    yield


@pytest.mark.parametrize("name", OF_THE_TOOL)
def test_the_example_of_the_tool_runs(name, there):
    run_example(name)
