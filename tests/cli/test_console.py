"""The console: every result has its parts, and a progress bar moves where a person watches."""

from __future__ import annotations

import io
import json
import sys

import pytest

import nezha_convert
from nezha_convert.cli import rows
from nezha_convert.cli.console import Console
from nezha_convert.hub import Address, Pulled


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
