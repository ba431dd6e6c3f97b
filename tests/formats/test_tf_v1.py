"""TensorFlow's first format: TensorFlow's own file, tables that are made here, and what breaks them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import bundles
import numpy as np
import pytest
from goldens import FIXTURES
from hypothesis import given, settings
from hypothesis import strategies as st
from v1_tables import KINDS, packed, slices_of, table, v1_table

from nezha_convert.errors import CheckpointError
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.formats.tf_bundle.table import slice_key
from nezha_convert.formats.tf_v1 import read_v1
from nezha_convert.parity.again.table import read_records

WHOLE = FIXTURES / "tf-v1" / "model.ckpt-12345"
CUT = ((0, 7), (7, 7), (14, 6))
"""Where the parts of its word embeddings begin, and how many rows they have."""


def test_tensorflow_s_own_file_gives_the_values_that_it_was_given_bit_by_bit() -> None:
    given = json.loads((WHOLE.parent / "values.json").read_text())
    found = read_v1(WHOLE)
    hashes = {name: hashlib.sha256(entry.read().tobytes()).hexdigest()[:16] for name, entry in found.items()}
    assert given == {name: value for name, value in hashes.items() if name in given} and len(given) == 41
    assert found["global_step"].dtype == "int64" and found["global_step"].read() == 12345
    slots = {name: entry for name, entry in found.items() if name not in given}
    assert len(slots) == 4 and not any(entry.read().any() for entry in slots.values())


def test_blocks_of_rows_are_as_small_as_asked_for_also_of_packed_and_of_joined_tensors() -> None:
    for entry in read_v1(WHOLE).values():
        blocks = [block.copy() for block in entry.blocks(256)]
        assert all(block.nbytes <= max(256, entry.nbytes // entry.shape[0]) for block in blocks if block.ndim)
        assert b"".join(block.tobytes() for block in blocks) == entry.read().tobytes()


def test_it_is_found_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    for name in ("model.ckpt-12345", "weights", "nezha.ckpt", "model.bin"):
        folder = tmp_path / name
        shutil.copytree(WHOLE.parent, folder)
        (folder / WHOLE.name).rename(folder / name)
        assert open_checkpoint(folder).format == open_checkpoint(folder / name).format == "tensorflow-v1"


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("snappy", [False, True])
def test_every_type_is_read(dtype: str, snappy: bool, tmp_path: Path) -> None:
    values = np.arange(-3, 9).reshape(3, 4).astype(dtype)
    (tmp_path / "m").write_bytes(v1_table({"a": values, "b": values[:0], "c": values[1, 2]}, snappy=snappy))
    for name, expected in (("a", values), ("b", values[:0]), ("c", values[1, 2])):
        found = read_v1(tmp_path / "m")[name].read()
        assert (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


@settings(max_examples=60, deadline=None)
@given(
    values=st.dictionaries(
        st.text(min_size=1, max_size=8), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20), max_size=6
    ),
    snappy=st.booleans(),
    block=st.integers(1, 300),
)
def test_what_is_written_is_read_whatever_the_names_numbers_and_blocks(tmp_path_factory, values, snappy, block) -> None:
    arrays = {name: np.array(numbers, "int64") for name, numbers in values.items()}
    file = tmp_path_factory.mktemp("v1") / "m"
    file.write_bytes(v1_table(arrays, snappy=snappy, block_bytes=block))
    found = read_v1(file)
    assert {name: entry.read().tolist() for name, entry in found.items()} == values


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300) | st.lists(st.sampled_from([b"abc", b"ab", bytes(70)]), max_size=60).map(b"".join))
def test_snappy_gives_back_what_was_packed(data: bytes) -> None:
    from nezha_convert.formats.tf_bundle.snappy import decompressed

    assert decompressed(packed(data)) == data


def test_two_parts_with_a_gap_between_them_are_refused(tmp_path: Path) -> None:
    values = np.ones((4, 2), "f4")
    (tmp_path / "m").write_bytes(v1_table({"a": values}, cuts={"a": [(0, 2), (3, 1)]}))
    with pytest.raises(CheckpointError, match="leave a gap or overlap at 3"):
        read_v1(tmp_path / "m")


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    whole = v1_table({"a": np.ones((2, 3), "f4"), "b": np.arange(3)})
    for length in range(len(whole)):
        (tmp_path / "m").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="not a sound checkpoint of TensorFlow's first format"):
            read_v1(tmp_path / "m")


def test_every_flipped_bit_is_refused(tmp_path: Path) -> None:
    whole = v1_table({"a": np.ones((2, 3), "f4"), "b": np.arange(3)}, snappy=True)
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "m").write_bytes(damaged)
        with pytest.raises(CheckpointError):
            for entry in read_v1(tmp_path / "m").values():
                entry.read()


def test_a_record_of_another_name_than_its_key_s_is_refused(tmp_path: Path) -> None:
    whole = v1_table({"a": np.ones((2, 3), "f4")}, key=slice_key("b", ((0, -1), (0, -1))))
    renamed = v1_table({"b": np.ones((2, 3), "f4")})
    (tmp_path / "m").write_bytes(table(read_records(renamed) | read_records(whole) | first(renamed), False, 200))
    with pytest.raises(CheckpointError, match="holds a part of b'a'"):
        read_v1(tmp_path / "m")["b"].read()


def first(file: bytes) -> dict[bytes, bytes]:
    """The record that lists the tensors."""
    return {b"": read_records(file)[b""]}


BROKEN = {
    "more values than its shape": ({"shape": (2, 2)}, "has 6"),
    "a shape that no file holds": ({"shape": (1 << 40,)}, "does not fit into the file"),
    "text": ({"kind": 7}, "holds no numbers"),
    "another type than its values'": ({"kind": 2}, "has 0"),
    "values that are not there": ({"key": b"x"}, "no record has the key"),
}


@pytest.mark.parametrize("change, message", BROKEN.values(), ids=BROKEN)
def test_a_tensor_is_refused_that_has(change: dict, message: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(v1_table({"a": np.ones((2, 3), "f4")}, **change))
    with pytest.raises(CheckpointError, match=message):
        for entry in read_v1(tmp_path / "m").values():
            entry.read()


def test_a_bundle_s_index_is_no_checkpoint_of_the_first_format(tmp_path: Path) -> None:
    index = bundles.table({"": bundles.header(), "a": bundles.entry(1, (1,), 0, 0, 4, 0)})
    (tmp_path / "m").write_bytes(index)
    with pytest.raises(CheckpointError, match="first format"):
        read_v1(tmp_path / "m")


def test_the_keys_of_parts_are_tensorflow_s() -> None:
    found = slices_of(WHOLE)
    assert {slice_key("bert/embeddings/word_embeddings", ((start, rows), (0, 8))) for start, rows in CUT} <= found
    assert slice_key("global_step", ()) in found


@given(value=st.integers(-(2**63), 2**63 - 1), more=st.integers(-(2**63), 2**63 - 1))
def test_the_order_of_keys_is_that_of_the_places(value: int, more: int) -> None:
    assert (slice_key("a", ((value, -1),)) < slice_key("a", ((more, -1),))) == (value < more)
