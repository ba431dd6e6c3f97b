"""What a row needs follows from its files; its fingerprint from them and from what was asked."""

from __future__ import annotations

import os
from dataclasses import replace

from nezha_convert.batches.estimate import CONVERT, VERIFY, estimate
from nezha_convert.batches.needs import FOLD, PROVING, Needs, needs_of
from nezha_convert.batches.results import RowResult
from nezha_convert.batches.row import Row, derived_names


def test_a_row_needs_memory_and_disk_by_the_size_of_its_files(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"x" * 1000)
    (tmp_path / "config.json").write_bytes(b"{}")
    row = Row(1, "line 1", str(tmp_path), "out")
    found = needs_of(row, None)
    assert found.nbytes == 1002 and found.memory == PROVING + int(FOLD * 1002) and found.download == 0
    assert needs_of(replace(row, options={"verify": False}), None).memory < PROVING
    (tmp_path / "model.bin").write_bytes(b"x" * 10)
    by_prefix = replace(row, source=str(tmp_path / "model"))
    assert (
        needs_of(by_prefix, None).nbytes == 12
        and needs_of(replace(row, source=str(tmp_path / "no" / "m")), None).nbytes == 0
    )


def test_a_fingerprint_changes_with_the_source_the_options_and_the_files_that_they_name(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.bin").write_bytes(b"1")
    labels = tmp_path / "labels.txt"
    labels.write_text("a")
    row = Row(1, "line 1", str(tmp_path / "model"), "out", {"labels": str(labels)})
    prints = [needs_of(row, None).fingerprint, needs_of(replace(row, number=2, place="line 9"), None).fingerprint]
    assert prints[0] == prints[1]
    prints.append(needs_of(replace(row, options={}), None).fingerprint)
    labels.write_text("ab")
    prints.append(needs_of(row, None).fingerprint)
    os.utime(tmp_path / "model" / "a.bin", ns=(1, 1))
    prints.append(needs_of(row, None).fingerprint)
    assert len(set(prints)) == 4


def test_a_long_message_is_no_file_and_no_error():
    row = Row(1, "line 1", "no-such", "out", {"message": "x" * 400})
    assert needs_of(row, None).fingerprint


def test_an_estimate_is_by_measured_rates_until_rows_of_this_folder_ran():
    needs = [Needs(10**9, 1, 10**9)] * 4
    first = estimate(needs, (), 2, [True] * 4)
    one = CONVERT.row + CONVERT.gigabyte + VERIFY.row + VERIFY.gigabyte
    assert 2 * one <= first.seconds <= 2 * one + 20 and first.output_nbytes >= 4 * 10**9 and "measured" in first.rates
    ran = RowResult(1, "m", "o", "verified", seconds={"converting": 1.0, "verifying": 9.0}, source_nbytes=10**9)
    later = estimate(needs, (ran,), 2, [True] * 4)
    assert 20 <= later.seconds <= 40 and "by the 1 rows that ran" in later.rates
    assert estimate((), (), 2, ()).seconds == 0


def test_a_source_that_may_not_be_read_has_no_files_and_is_no_error(tmp_path, monkeypatch):
    def refused(path, *more, **other):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return asked(path, *more, **other)

    asked = os.stat

    row = Row(1, "line 1", str(tmp_path / "closed"), "out")
    monkeypatch.setattr("os.stat", refused)
    assert needs_of(row, None).nbytes == 0 and derived_names([row.source]) == ["closed"]
