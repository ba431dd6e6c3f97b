"""The benchmarks of conversion: their checkpoints hold one model, and their figures are of what they name."""

from __future__ import annotations

import hashlib
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from nezha_convert import convert

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import checkpoints
from convert import KINDS, LIMIT, OURS, Run, _figures, measure, run


def test_the_checkpoints_of_all_kinds_hold_the_same_model(tmp_path: Path) -> None:
    for library in ("torch", "h5py"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    digests = set()
    for kind in KINDS:
        data = checkpoints.write_checkpoint(tmp_path / kind, kind, "tiny")
        report = convert(data.parent, tmp_path / f"{kind}-out")
        assert report.head == "pretraining"
        digests.add(hashlib.sha256((tmp_path / f"{kind}-out" / "model.safetensors").read_bytes()).hexdigest())
    assert tuple(checkpoints.KINDS) == KINDS and len(digests) == 1


def test_a_checkpoint_that_exists_is_kept_and_lamb_s_slots_make_it_three_times_as_large(tmp_path: Path) -> None:
    data = checkpoints.write_checkpoint(tmp_path / "a", "tensorflow", "tiny")
    seen = data.stat()
    assert checkpoints.write_checkpoint(tmp_path / "a", "tensorflow", "tiny").stat().st_mtime_ns == seen.st_mtime_ns
    assert checkpoints.write_checkpoint(tmp_path / "b", "tensorflow", "tiny+lamb").stat().st_size == 3 * seen.st_size


def test_a_checkpoint_has_a_row_for_each_command_and_nothing_of_their_outputs_is_left(tmp_path: Path) -> None:
    options = Namespace(folder=tmp_path, pairs=2, peer=None, transformers_python=None)
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in measure(tmp_path, "tensorflow:tiny", options)]
    assert [row[1] for row in rows] == [OURS, "cp", "cp, openssl", "the limit"]
    assert rows[0][3] == rows[0][5] == "1.00" and all(float(row[3]) > 1 for row in rows[1:])
    assert [path.name for path in tmp_path.iterdir()] == ["tensorflow-tiny"]


def test_a_ratio_is_the_median_of_those_of_neighbouring_runs() -> None:
    ours, theirs = [Run(2, 8, 70), Run(3, 9, 71), Run(9, 9, 70)], [Run(1, 2, 5), Run(1, 3, 6), Run(1, 9, 5)]
    assert _figures(ours, theirs) == "1.00 (1.00-1.00) | 3.00 | 3.00 (2.50-6.00) | 3.00 | 6"


def test_the_limit_copies_the_file(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(range(256)) * 40_000)  # more than a block
    figures = run([sys.executable, "-c", LIMIT, str(tmp_path / "source"), str(tmp_path / "copy")])
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "source").read_bytes()
    assert figures.processor > 0 and figures.clock > 0 and figures.peak > 16


def test_a_command_that_fails_ends_the_benchmark_with_its_message() -> None:
    with pytest.raises(SystemExit, match=r"exit code 3\nwhy"):
        run(["sh", "-c", "echo why >&2; exit 3"])
