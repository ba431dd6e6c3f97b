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

import nezha_convert
from nezha_convert.errors import CheckpointError, UsageError
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.formats.tf_bundle.table import slice_key
from nezha_convert.formats.tf_v1 import read_v1
from nezha_convert.parity.again.bundle import read_v1 as reread_v1
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


SHARDS = FIXTURES / "tf-v1-sharded"
NAMES = (
    "",
    "checkpoint",
    "model.ckpt-12345",
    "model.ckpt-12345-?????-of-00002",
    "model.ckpt-12345-00000-of-00002",
    "model.ckpt-12345-00001-of-00002",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_sharded_checkpoint_of_tensorflow_s_own_is_whole_by_each_of_its_names(name: str, tmp_path: Path) -> None:
    given = json.loads((WHOLE.parent / "values.json").read_text())
    found = open_checkpoint(SHARDS / name)
    hashes = {key: hashlib.sha256(entry.read().tobytes()).hexdigest()[:16] for key, entry in found.entries.items()}
    assert hashes == {key: value for key, value in given.items() if "layer_1" not in key} and len(hashes) == 25
    assert found.path == SHARDS / "model.ckpt-12345-?????-of-00002" and len(found.files) == 2
    report = nezha_convert.convert(SHARDS / name, tmp_path / "out")
    assert {file.name for file in report.source_files} > {file.name for file in found.files}
    assert nezha_convert.verify(SHARDS / name, tmp_path / "out").passed


def shards(folder: Path, *contents: dict[str, np.ndarray], **change) -> list[Path]:
    """A sharded checkpoint of `contents`; `change` is what v1_table takes, for the last of them."""
    files = [folder / f"m-{i:05d}-of-{len(contents):05d}" for i in range(len(contents))]
    for file, arrays in zip(files, contents, strict=True):
        file.write_bytes(v1_table(arrays, **(change if file == files[-1] else {})))
    return files


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    files = shards(tmp_path, {"a": np.ones(2)}, {"b": np.ones(2)}, {"c": np.ones(2)})
    files[1].unlink()
    with pytest.raises(CheckpointError, match=r"there are 3, but m-00001-of-00003 is not there") as caught:
        open_checkpoint(tmp_path)
    assert caught.value.hint.startswith("Copy the missing data file beside the others")
    shards(tmp_path, {"a": np.ones(2)}, {"b": np.ones(2)})
    with pytest.raises(UsageError, match=r"there are m-\?{5}-of-00002, m-\?{5}-of-00003") as asked:
        open_checkpoint(tmp_path / "m")
    assert [open_checkpoint(*way).files for way in asked.value.ways[:1]] == [
        (tmp_path / "m-00000-of-00002", tmp_path / "m-00001-of-00002")
    ]


def test_a_shard_that_is_a_link_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    files = shards(tmp_path / "in", {"a": np.ones(2)}, {"b": np.ones(2)})
    files[1].rename(tmp_path / "out")
    files[1].symlink_to(tmp_path / "out")
    with pytest.raises(CheckpointError, match="outside of its folder; refused"):
        open_checkpoint(tmp_path / "in")


def test_parts_of_a_tensor_in_two_shards_that_overlap_are_refused(tmp_path: Path) -> None:
    files = shards(tmp_path, {"a": np.ones(2)}, {"a": np.ones(2)})
    with pytest.raises(CheckpointError, match="lie in one place"):
        read_v1(*files)
    files[1].write_bytes(v1_table({"a": np.ones(2, "f4")}))
    with pytest.raises(CheckpointError, match=r"'a' is of float64 \[2\] in one shard, and of float32 \[2\] in another"):
        read_v1(*files)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), shape=st.tuples(*[st.integers(1, 5)] * 3), limit=st.integers(1, 400), shared=st.booleans())
def test_a_tensor_cut_along_all_dimensions_is_joined_wherever_its_parts_lie(
    tmp_path_factory, data, shape, limit, shared
) -> None:
    """Slabs along the first dimension, each cut along the second, each of these along the third."""
    array = np.arange(np.prod(shape), dtype="f4").reshape(shape)
    parts, folder = list(boxes(data.draw, shape)), tmp_path_factory.mktemp("v1")
    half = len(parts) // 2 if shared else 0
    cut = (parts[:half], parts[half:]) if half else (parts,)
    for number, own in enumerate(cut):
        (folder / f"m-{number:05d}-of-{len(cut):05d}").write_bytes(v1_table({"a": array}, boxes={"a": own}))
    entry = open_checkpoint(folder / "m").entries["a"]
    blocks = [block.copy() for block in entry.blocks(limit)]
    assert np.array_equal(np.concatenate(blocks), array) and entry.nbytes == array.nbytes
    assert np.array_equal(reread_v1(sorted(folder.iterdir()))["a"].read(), array)


def boxes(draw, shape: tuple[int, ...]):
    """Where the parts of an array of `shape` lie: (start, length) of each dimension."""
    if not shape:
        yield ()
        return
    ends = sorted({*draw(st.lists(st.integers(1, shape[0]), max_size=2)), shape[0]})
    for start, end in zip([0, *ends], ends, strict=False):
        for rest in boxes(draw, shape[1:]):
            yield ((start, end - start), *rest)


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
