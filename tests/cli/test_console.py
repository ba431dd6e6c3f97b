"""The console: every result has its parts, and a progress bar moves where a person watches."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable

import pytest

import nezha_convert
from nezha_convert.cli import rows
from nezha_convert.cli.console import Console
from nezha_convert.errors import UsageError
from nezha_convert.hub import Address, Pulled
from nezha_convert.parity.results import Comparison, Peak, TensorParity


class Terminal(io.StringIO):
    """A stream that says that a person watches."""

    def isatty(self) -> bool:
        return True


def test_every_result_has_its_parts_and_a_document():
    results = rows.Result.split(" | ")
    assert set(results) == set(rows._PARTS)
    for result in results:
        assert callable(getattr(nezha_convert, result).to_dict)


def test_a_result_is_rows_for_a_person_and_one_document_for_a_program(capsys, tmp_path):
    pulled = Pulled(Address("owner/name"), tmp_path, (("config.json", 2000),))
    Console().show(pulled)
    shown = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert shown[0] == ["file", "config.json (2.0 kB)"]
    assert [label for label, _ in shown] == ["file", "address", "folder", "next"]
    Console(as_json=True).show(pulled)
    assert json.loads(capsys.readouterr().out) == pulled.to_dict()


def test_rows_lines_and_tables_are_shown_in_their_order(capsys, monkeypatch):
    parts = [("a", "1"), ("b", "2"), "line", ("c", "3"), "last"]
    monkeypatch.setitem(rows._PARTS, "str", lambda result: iter(parts))
    Console().show("anything")
    assert capsys.readouterr().out.splitlines() == ["a  1", "b  2", "line", "c  3", "last"]


@pytest.mark.parametrize(("as_json", "stream"), [(True, Terminal()), (False, io.StringIO())])
def test_there_is_no_bar_where_nobody_watches(as_json, stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    with Console(as_json).progress("converting", "bytes") as progress:
        assert progress is None
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("unit", "done"), [("bytes", "5.0/10.0 kB"), ("steps", "5000/10000")])
def test_a_bar_shows_how_far_the_work_is_and_what_it_does(unit, done, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Console().progress("the title", unit) as progress:
        progress(5000, 10000, "")
        progress(5000, 10000, "what it does now")
    shown = terminal.getvalue()
    assert done in shown and "what it does now" in shown


# What a person's terminal shows, by its width.


def shown_at(width: int, monkeypatch: pytest.MonkeyPatch, show: Callable[[], None]) -> tuple[str, str]:
    """What `show` prints on a terminal of `width` columns, on stdout and on stderr, without colors."""
    streams = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    show()
    out, err = (re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()) for stream in streams)
    return out, err


def test_an_error_breaks_at_spaces_and_a_command_does_not_break(monkeypatch):
    path = "/a/very/long/path/that/no/terminal/of/forty/columns/holds"
    error = UsageError(f"{path}: the tensors do not say which head this is", hint="", problems=("词汇" * 12 + " ok",))
    command = f"nezha-convert convert {path} out --head masked-lm"
    _, err = shown_at(40, monkeypatch, lambda: Console().error(error, commands=(command,)))
    assert err.splitlines() == [
        *(f"error: {path}:", "the tensors do not say which head this", "is"),
        *(f"  - {'词汇' * 12}", "ok", f"next: {command}"),
    ]


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_an_error_has_a_color_unless_one_asks_for_none(variable, value, monkeypatch):
    def printed() -> str:
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        Console().error(UsageError("wrong", hint="right"))
        return stream.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert printed() == "\x1b[31merror: wrong\x1b[0m\n\x1b[32mnext: right\x1b[0m\n"
    monkeypatch.setenv(variable, value)
    assert printed() == "error: wrong\nnext: right\n"


def test_what_to_type_next_stays_on_one_line_beside_the_other_rows(monkeypatch):
    parts = [("problem", "one that takes more than the width of it"), ("next", f"nezha-convert convert {'x' * 40}")]
    monkeypatch.setitem(rows._PARTS, "str", lambda result: iter(parts))
    out, _ = shown_at(30, monkeypatch, lambda: Console().show("anything"))
    assert out.splitlines()[-1] == f"next     nezha-convert convert {'x' * 40}"
    assert all(len(line) <= 30 for line in out.splitlines()[:-1]) and len(out.splitlines()) > 2


@pytest.mark.parametrize(("width", "stacked"), [(40, True), (80, True), (120, False)])
def test_a_comparison_is_whole_at_every_width(width, stacked, monkeypatch):
    peak = Peak("past 512", (0, 512, 28), 1.0, 1.0)
    tensor = TensorParity(
        *("seq_relationship_logits", 11.6, 2.9e-6, 2.5e-7, 2.1e-14, 1.0),
        nonfinite=0,
        values=8,
        peak=peak,
        passed=True,
    )
    comparison = Comparison("the oracle", "float32", 2e-5, "float32", (tensor,), ())
    monkeypatch.setitem(rows._PARTS, "str", lambda result: iter([comparison]))
    out, _ = shown_at(width, monkeypatch, lambda: Console().show("anything"))
    assert max(map(len, out.splitlines())) <= width
    words = " ".join(out.split())
    for cell in ("seq_relationship_logits", "2.9e-06", "2.5e-07", "2.1e-14", "100.0%", str(peak)):
        assert cell in words and "\u2026" not in words
    assert ("max error 2.9e-06" in words) == stacked


@pytest.mark.parametrize("unit", ["bytes", "steps"])
@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_bar_stays_on_one_line(width, unit, monkeypatch):
    def show() -> None:
        with Console().progress("converting huawei-tf-pretraining-of-a-long-name", unit) as progress:
            progress(5 * 10**8, 10**9, "converted in bfloat16: every type of token, past the clip distance, all masked")

    _, err = shown_at(width, monkeypatch, show)
    lines = [line for line in re.split(r"[\r\n]+", err) if line.strip()]
    assert lines and all(len(line) <= width for line in lines)
    assert all("convert" in line for line in lines), lines
