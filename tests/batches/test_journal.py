"""The journal says what became of a row, whatever else is in its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nezha_convert.batches.journal import JOURNAL, REPORT, Journal, alone
from nezha_convert.batches.results import RowResult
from nezha_convert.errors import OutputError

RESULT = RowResult(1, "模型", "out/a", "verified", commands=("x",), assumed=("y",), worst_error=1e-7)


def test_the_last_line_of_an_output_counts_for_its_own_fingerprint(tmp_path):
    journal = Journal(tmp_path)
    journal.add(RESULT, "one")
    journal.add(RESULT, "two")
    for read in (journal, Journal(tmp_path)):
        assert read.found("out/a", "two") == RESULT and read.found("out/a", "one") is None
        assert read.differs("out/a", "one") and not read.differs("out/a", "two") and not read.differs("out/b", "one")
        assert read.of_this_version("out/a") and not read.of_this_version("out/b")


@settings(max_examples=40)
@given(st.binary(max_size=80))
def test_bytes_that_are_no_lines_of_ours_are_passed_over(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("journal")
    (folder / JOURNAL).write_bytes(data)
    Journal(folder).add(RESULT, "one")
    assert Journal(folder).found("out/a", "one") == RESULT


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_line_that_a_kill_cut_short_is_not_believed(cut, tmp_path):
    journal = Journal(tmp_path)
    journal.add(RESULT, "one")
    file = tmp_path / JOURNAL
    whole = file.read_bytes()
    file.write_bytes(whole[: -1 - cut])
    assert Journal(tmp_path).found("out/a", "one") is None
    Journal(tmp_path).add(RESULT, "one")
    assert Journal(tmp_path).found("out/a", "one") == RESULT


def test_a_folder_is_one_batch_s_alone_and_the_lock_goes_with_it(tmp_path: Path):
    with alone(tmp_path / "out"), pytest.raises(OutputError, match="another batch"), alone(tmp_path / "out"):
        pass
    with alone(tmp_path / "out"):
        pass


@pytest.mark.parametrize("name", [JOURNAL, REPORT])
def test_a_file_of_another_that_is_called_as_ours_is_not_lost(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match="no batch wrote it"), alone(tmp_path):
        pass
    assert (tmp_path / name).read_text() == "mine" and [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_is_not_utf_8_is_written_and_found(tmp_path):
    result = RowResult(1, "models/\udcc4\udce3", "out/a", "failed")
    with alone(tmp_path):
        Journal(tmp_path).add(result, "f")
    assert Journal(tmp_path).found("out/a", "f") == result
