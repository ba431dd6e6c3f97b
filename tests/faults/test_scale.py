"""Many tensors, many layers, and files past 4 GiB: linear time, and offsets that no 32 bits hold."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import huge
import numpy as np
import pytest

from nezha_convert import convert, inspect
from nezha_convert.checkpoint import BLOCK_BYTES

pytest.importorskip("h5py", reason="Keras' files are read by h5py: pip install 'nezha-convert[keras]'")


def seconds(work: Callable[[], object]) -> float:
    """Of CPU, the better of two runs."""
    found = []
    for _ in range(2):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return min(found)


@pytest.mark.parametrize("format", huge.MANY)
def test_ten_times_the_tensors_take_about_ten_times_as_long(format: str, tmp_path: Path) -> None:
    name, write, read = huge.MANY[format]
    taken = []
    for count in (200, 2000):
        folder = tmp_path / str(count)
        folder.mkdir()
        write(folder / name, count)
        assert len(read(folder / name)) == count
        taken.append(seconds(lambda file=folder / name: read(file)))  # type: ignore[misc]
    assert taken[1] < 30 * taken[0] + 0.05  # a quadratic step would take a hundred times as long


def test_a_model_of_hundreds_of_layers_converts_in_linear_time(tmp_path: Path) -> None:
    taken = []
    for layers in (30, 300):
        (tmp_path / str(layers)).mkdir()
        source = huge.write_layers(tmp_path / str(layers), layers)
        begun = time.process_time()
        report = convert(source, tmp_path / f"out-{layers}")
        taken.append(time.process_time() - begun)
        assert json.loads((tmp_path / f"out-{layers}/config.json").read_text())["num_hidden_layers"] == layers
        assert len(report.written) == 16 * layers + 13
    assert taken[1] < 30 * taken[0]


@pytest.mark.parametrize("format", huge.LARGE)
def test_what_lies_behind_four_gigabytes_is_read_where_it_lies(format: str, tmp_path: Path) -> None:
    name, make, _, read = huge.LARGE[format]
    file = make(tmp_path / name)
    begun = time.process_time()
    entries = read(file)
    assert time.process_time() - begun < 1
    assert entries["large"].shape == (huge.ELEMENTS,)
    assert entries["large"].nbytes > 2**32
    first = next(iter(entries["large"].blocks()))
    assert first.nbytes <= BLOCK_BYTES
    assert first[0] == 1
    assert not first[1:].any()
    assert np.array_equal(entries["mark"].read(), huge.MARK)


@pytest.mark.parametrize("format", huge.LARGE)
def test_a_folder_with_four_gigabytes_is_looked_at_at_once(format: str, tmp_path: Path) -> None:
    name, make, _, _ = huge.LARGE[format]
    make(tmp_path / name)
    begun = time.process_time()
    assert inspect(tmp_path).nbytes == 2 * huge.ELEMENTS + huge.MARK.nbytes
    assert time.process_time() - begun < 1
