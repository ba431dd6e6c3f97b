"""The Markdown of a verification: every tensor has its row, and no text of a stranger's is more than text."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hub_fixtures import TF
from swapped import swap

import nezha_convert
from nezha_convert.errors import OutputError
from nezha_convert.parity.render.markdown import text
from nezha_convert.parity.report import ParityReport


@pytest.fixture(scope="module")
def report(verified) -> ParityReport:
    return nezha_convert.verify(TF, verified, record=False)


def written(report: ParityReport, folder: Path) -> str:
    nezha_convert.write_markdown(report, folder / "parity.md")
    return (folder / "parity.md").read_text("utf-8")


def test_every_tensor_has_a_row_with_its_error(report, tmp_path):
    shown = written(report, tmp_path)
    assert shown.startswith("## nezha-tiny: parity passed\n\nNezhaForPreTraining in float32, converted from ")
    (comparison,) = report.comparisons
    rows = [line.strip("| ").split(" | ") for line in shown.splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in rows] == [tensor.name for tensor in comparison.tensors]
    assert [row[2] for row in rows] == [f"{tensor.relative_error:.2e}" for tensor in comparison.tensors]
    assert {len(row) for row in rows} == {8} and "**" not in shown.replace("**Assumed**", "")


def test_what_departs_is_named_and_bold(folder, tmp_path):
    shown = written(nezha_convert.verify(TF, swap(folder), record=False), tmp_path)
    assert shown.startswith("## nezha-tiny: parity FAILED\n")
    assert "**What failed**\n\n- first departs layer_1&#58; " in shown
    assert "| layer_0 |" in shown and "| **layer_1** |" in shown


HOSTILE = (
    *("<script>alert(1)</script>", "a | b", "[click](https://example.org)", "![x](https://example.org/x.png)"),
    *(
        "`code`",
        "**bold**",
        "www.example.org",
        "https://example.org",
        "a@example.org",
        "line\nbreak\n## heading",
        "$x$",
    ),
    *("&lt;b&gt;", "\\|", "\u202etxt.exe", "\x1b[31mred"),
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_of_a_stranger_is_text_alone(name, report, tmp_path):
    hostile = dataclasses.replace(report, output=name, failures=(name,), warnings=(name,), source=name)
    lines = written(hostile, tmp_path).splitlines()
    honest = written(dataclasses.replace(report, output="x", failures=("x",), warnings=("x",), source="x"), tmp_path)
    assert [line[:1] for line in lines] == [line[:1] for line in honest.splitlines()]  # no line, cell or mark is added
    assert [line.count("|") for line in lines] == [line.count("|") for line in honest.splitlines()]
    shown = text(name)
    assert not re.search(r"[<>\[\]`*|@$\\]|www\.|://|&(?!#\d+;)", shown) and shown.isprintable()


def test_honest_names_stay_readable():
    assert text("first departs layer_1 (模型 一), 3.5e-01 of its range") == (
        "first departs layer_1 (模型 一), 3.5e-01 of its range"
    )


def test_a_file_that_cannot_be_written_is_refused(report, tmp_path):
    with pytest.raises(OutputError):
        nezha_convert.write_markdown(report, tmp_path / "nowhere" / "parity.md")
