"""Workers do many rows each, stay within the limits, and one that dies is one failed row."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from itertools import pairwise

import pytest

from nezha_convert.batches.needs import Needs
from nezha_convert.batches.pool import Limits, Task, run_here
from nezha_convert.batches.results import RowResult
from nezha_convert.batches.row import Row

WIDE = Limits(jobs=2, memory=1 << 40, disk=1 << 40)


def tasks(*sources: str, memory: int = 1, disk: int = 1) -> list[Task]:
    rows = [Row(n, f"line {n}", source, f"out/{n}") for n, source in enumerate(sources, 1)]
    return [Task(row, Needs(1, memory, disk)) for row in rows]


def run(todo: list[Task], limits: Limits = WIDE) -> list[RowResult]:
    return sorted(run_here(todo, limits, "row_work", lambda *_: None), key=lambda result: result.number)


def test_two_workers_do_twenty_rows():
    results = run(tasks(*["quick"] * 20))
    assert [result.number for result in results] == list(range(1, 21))
    assert {result.outcome for result in results} == {"converted"}
    assert len({result.reason for result in results}) <= 2


def test_the_steps_of_a_row_are_told_and_what_a_library_prints_is_none():
    told = []
    list(run_here(tasks("quick"), WIDE, "row_work", lambda row, step, result=None: told.append((row.number, step))))
    assert told == [(1, "converting")]


def test_a_worker_that_is_killed_is_one_failed_row_and_the_others_are_done():
    results = run(tasks("quick", "killed", "quick", "killed", "quick"))
    assert [result.outcome for result in results] == ["converted", "failed", "converted", "failed", "converted"]
    assert "SIGKILL" in results[1].reason and results[1].commands[0].startswith("nezha-convert convert killed out/2")


def test_rows_run_beside_each_other_only_where_their_memory_fits():
    results = run(tasks("sleeps:0.1", "sleeps:0.1", "sleeps:0.1", memory=60), Limits(2, 100, 1 << 40))
    spans = sorted((result.seconds["begun"], result.seconds["ended"]) for result in results)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_a_row_that_needs_more_memory_than_there_is_says_so_and_the_others_are_done():
    small, large = tasks("quick"), tasks("quick", "quick", memory=101_000_000)[1:]
    results = run([*large, *small], Limits(2, 100_000_000, 1 << 40))
    assert [result.outcome for result in results] == ["converted", "failed"]
    assert (
        "needs about 101.0 MB of memory, and 100.0 MB are allowed" in results[1].reason
        and "--memory" in results[1].hint
    )


def test_rows_end_where_the_disk_is_full_and_a_smaller_one_still_fits():
    todo = [*tasks("quick", "quick", disk=60), *tasks("a", "b", "quick", disk=30)[2:]]
    results = run(todo, Limits(1, 1 << 40, 100))
    assert [result.outcome for result in results] == ["converted", "failed", "converted"]
    assert "of disk" in results[1].reason and "--disk" in results[1].hint


def test_a_download_stays_on_the_disk_after_its_row():
    todo = [replace(task, needs=Needs(1, 1, 60, download=50)) for task in tasks("quick", "quick")]
    results = run(todo, Limits(1, 1 << 40, 100))
    assert [result.outcome for result in results] == ["converted", "failed"]


def test_a_batch_that_is_given_up_leaves_no_process(tmp_path):
    results = run_here(tasks("quick", "sleeps:60", "sleeps:60"), WIDE, "row_work", lambda *_: None)
    worker = int(next(results).reason)
    begun = time.monotonic()
    results.close()
    assert time.monotonic() - begun < 5
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_a_worker_that_cannot_start_is_told_with_its_last_words():
    (result,) = run_here(tasks("quick"), WIDE, "no_such_module", lambda *_: None)
    assert result.outcome == "failed" and "no_such_module" in result.reason


def test_a_file_of_the_current_folder_that_is_called_like_a_module_is_not_run(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('it was run')")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.chdir(tmp_path)
    assert run(tasks("quick"))[0].outcome == "converted"


def test_a_source_whose_name_is_not_utf_8_is_done():
    (result,) = run(tasks("quick:\udcc4\udce3"))
    assert result.outcome == "converted" and result.source == "quick:\udcc4\udce3"


def test_a_batch_of_which_no_row_fits_ends():
    results = run(tasks("quick", "quick", memory=2), Limits(1, 1, 1 << 40))
    assert [result.outcome for result in results] == ["failed", "failed"]
