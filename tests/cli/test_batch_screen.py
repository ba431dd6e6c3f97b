"""A running batch is a live table on a terminal, and a line for each row elsewhere."""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import pytest

from nezha_convert.batches.results import RowResult
from nezha_convert.batches.row import Row
from nezha_convert.cli.batch_screen import BatchScreen
from nezha_convert.cli.console import Console
from nezha_convert.text import printable

ROW = Row(1, "line 1", "models/a\x1b[31m", "out/a")
RESULT = RowResult(1, ROW.source, ROW.output, "verified", seconds={"converting": 0.5, "verifying": 1.0})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_row_that_ended_is_a_line_and_one_of_an_earlier_run_is_none(capsys):
    with BatchScreen(Console(), ["nezha-convert", "batch"]) as screen:
        screen.watch(ROW, "converting")
        screen.watch(ROW, "done", RESULT)
        screen.watch(ROW, "done", RowResult(2, "b", "out/b", "verified", resumed=True))
    assert capsys.readouterr().err == "     1  verified: models/a\\x1b[31m (1.5 s)\n"


def test_a_terminal_sees_what_runs_and_what_ended(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with BatchScreen(Console(), ["nezha-convert", "batch"]) as screen:
        screen.watch(ROW, "verifying")
        screen._live.refresh()
        assert "verifying" in terminal.getvalue()
        screen.watch(ROW, "done", RESULT)
        screen._live.refresh()
    shown = terminal.getvalue()
    assert "1 verified" in shown and "models/a\\x1b[31m" in shown


def test_ctrl_c_is_answered_by_the_command_that_goes_on(capsys):
    with pytest.raises(KeyboardInterrupt), BatchScreen(Console(), ["nezha-convert", "batch", "a b"]) as screen:
        screen.watch(ROW, "done", RESULT)
        raise KeyboardInterrupt
    assert capsys.readouterr().err.endswith("next: nezha-convert batch 'a b'\n")


@pytest.mark.parametrize("token", [["--token", "hf_secret"], ["--token=hf_secret"]])
def test_ctrl_c_shows_no_token(token, capsys):
    with pytest.raises(KeyboardInterrupt), BatchScreen(Console(), ["nezha-convert", "batch", *token, "a"]):
        raise KeyboardInterrupt
    said = capsys.readouterr().err
    assert "with --token as before" in said and "next: nezha-convert batch a" in said and "secret" not in said


def test_a_name_of_two_lines_is_one_line(capsys):
    with BatchScreen(Console(), []) as screen:
        screen.watch(Row(1, "line 1", "a\nnext: b", "out/a"), "done", RESULT)
    assert capsys.readouterr().err == "     1  verified: a\\nnext: b (1.5 s)\n"


def test_rows_may_end_while_the_table_is_drawn(monkeypatch):
    screen = BatchScreen(Console(), [])
    for outcome in ("verified", "failed"):
        screen.watch(ROW, "done", replace(RESULT, outcome=outcome))
    shown = printable

    def ends(text):
        screen.watch(ROW, "done", replace(RESULT, outcome="converted", resumed=True))
        return shown(text)

    monkeypatch.setattr("nezha_convert.cli.batch_screen.printable", ends)
    assert screen._table()
