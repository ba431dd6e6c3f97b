"""Safetensors files: what the library writes is read lazily, and whatever is wrong is a CheckpointError."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from strategies import arrays

from nezha_convert.errors import CheckpointError
from nezha_convert.formats import safetensors as reader
from nezha_convert.formats.safetensors import read_safetensors

FIXTURES = Path(__file__).parents[2] / "fixtures"


TENSORS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9), arrays())


def container(header: dict[str, object], data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@settings(max_examples=150, deadline=None)
@given(TENSORS, st.sampled_from([1, 7, 64, 1 << 20]))
def test_what_the_library_writes_is_read_whatever_the_names_types_and_shapes(
    tensors: dict[str, np.ndarray], limit: int
) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_file(tensors, file)
        entries = read_safetensors((file,))
        assert entries.keys() == tensors.keys()
        for name, array in tensors.items():
            found = entries[name]
            assert (found.name, found.dtype, found.shape, found.nbytes) == (
                name,
                str(array.dtype),
                array.shape,
                array.nbytes,
            )
            whole = found.read()
            assert (whole.dtype, whole.shape, whole.tobytes()) == (array.dtype, array.shape, array.tobytes())
            row_bytes = array[0].nbytes if array.ndim and len(array) else array.nbytes
            blocks = [np.array(block) for block in found.blocks(limit)]
            assert all(block.nbytes <= max(limit, row_bytes) for block in blocks)
            assert b"".join(block.tobytes() for block in blocks) == array.tobytes()


def test_several_files_are_one_checkpoint(tmp_path: Path) -> None:
    files = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    save_file({"b": np.ones(2, "f4")}, files[0])
    save_file({"a": np.full(3, 2, "f4")}, files[1])
    entries = read_safetensors(files)
    assert sorted(entries, key=lambda name: entries[name].position) == ["b", "a"]
    assert entries["a"].read().tolist() == [2, 2, 2]


def test_a_name_in_two_files_is_refused(tmp_path: Path) -> None:
    files = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    for file in files:
        save_file({"same": np.ones(2, "f4")}, file)
    with pytest.raises(CheckpointError, match=r"2\.safetensors: 'same' is in another shard too"):
        read_safetensors(files)


def test_positions_are_the_order_in_the_file(tmp_path: Path) -> None:
    save_file({"a": np.ones(2, "f2"), "b": np.ones(2, "f4"), "c": np.ones(2, "f8")}, tmp_path / "m.safetensors")
    entries = read_safetensors((tmp_path / "m.safetensors",))
    assert sorted(entries, key=lambda name: entries[name].position) == ["c", "b", "a"]


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("*/*.safetensors")), ids=lambda path: path.parent.name)
def test_every_tensor_that_transformers_wrote_is_read(file: Path) -> None:
    arrays = {name: tensor.read() for name, tensor in read_safetensors((file,)).items()}
    assert arrays["nezha.embeddings.word_embeddings.weight"].shape == (64, 32)
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_a_large_tensor_passes_in_blocks(tmp_path: Path) -> None:
    save_file({"x": np.zeros((4000, 1000), "f4")}, tmp_path / "m.safetensors")
    tensor = read_safetensors((tmp_path / "m.safetensors",))["x"]
    tracemalloc.start()
    try:
        rows = sum(len(block) for block in tensor.blocks(1 << 20))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == 4000
    assert peak < 4 << 20


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    save_file({"x": np.ones(3, "f4"), "y": np.ones((2, 2), "f2")}, file)
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"m\.safetensors: not a sound safetensors file") as caught:
            read_safetensors((file,))
        assert "copy it again" in caught.value.hint


BROKEN = {
    "no JSON": b"\x04\0\0\0\0\0\0\0{{{{",
    "a header longer than the file": (1 << 40).to_bytes(8, "little") + b"{}",
    "offsets past the end": container({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, bytes(8)),
    "offsets against the shape": container({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 16]}}, bytes(16)),
    "a hole": container({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)),
    "a huge shape": container({"x": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 16]}}, bytes(16)),
    "a negative size": container({"x": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}, bytes(16)),
    "an unknown type": container({"x": {"dtype": "Z99", "shape": [4], "data_offsets": [0, 16]}}, bytes(16)),
    "nothing": b"",
}

SHAPES = {
    "an empty and a huge dimension": container({"x": {"dtype": "I64", "shape": [0, 1 << 61], "data_offsets": [0, 0]}}),
    "more dimensions than an array has": container(
        {"x": {"dtype": "U8", "shape": [1] * 70, "data_offsets": [0, 1]}}, b"a"
    ),
}


@pytest.mark.parametrize("data", SHAPES.values(), ids=SHAPES)
def test_a_shape_that_no_array_has_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"m\.safetensors: 'x' has a shape that no array has"):
        read_safetensors((tmp_path / "m.safetensors",))


def test_a_file_replaced_or_written_to_while_it_is_read_is_refused_though_its_size_is_the_same(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    save_file({"x": np.ones((4, 3), "f4")}, file)
    tensor = read_safetensors((file,))["x"]
    stream = tensor.blocks(12)
    next(stream)
    os.utime(file, ns=(0, 0))
    for read in (lambda: list(stream), tensor.read):
        with pytest.raises(CheckpointError, match="changed meanwhile"):
            read()


def test_a_file_replaced_while_its_header_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "m.safetensors"
    save_file({"x": np.ones(3, "f4")}, file)
    checked = reader.safe_open

    def replacing(path: Path, framework: str) -> object:
        found = checked(path, framework=framework)
        save_file({"y": np.ones(9, "f4")}, file)
        return found

    monkeypatch.setattr(reader, "safe_open", replacing)
    with pytest.raises(CheckpointError, match="changed meanwhile"):
        read_safetensors((file,))


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_file_is_refused_for(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"m\.safetensors: not a sound safetensors file"):
        read_safetensors((tmp_path / "m.safetensors",))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no\.safetensors"):
        read_safetensors((tmp_path / "no.safetensors",))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_no_damage_raises_anything_but_a_checkpoint_error(position: int, damage: bytes) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "m.safetensors"
        save_file({"x": np.ones(3, "f4"), "y": np.ones((2, 2), "f2"), "z": np.array(1)}, file)
        data = bytearray(file.read_bytes())
        position %= len(data)
        data[position : position + len(damage)] = damage
        file.write_bytes(data)
        try:
            for tensor in read_safetensors((file,)).values():
                tensor.read()
        except CheckpointError as error:
            assert "m.safetensors" in str(error)


@pytest.mark.parametrize("shape", [[4], [], [0]], ids=["rows", "scalar", "empty"])
@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_a_type_that_numpy_does_not_have_is_refused(shape: list[int], dtype: str, tmp_path: Path) -> None:
    size = int(np.prod(shape, dtype=int))
    header = {"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}
    (tmp_path / "m.safetensors").write_bytes(container(header, bytes(size)))
    with pytest.raises(CheckpointError, match=rf"m\.safetensors: 'x' is of type {dtype}"):
        read_safetensors((tmp_path / "m.safetensors",))


def test_a_file_that_shrinks_or_vanishes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    save_file({"x": np.ones(3, "f4")}, file)
    tensor = read_safetensors((file,))["x"]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"m\.safetensors: it was changed meanwhile"):
        tensor.read()
    file.unlink()
    with pytest.raises(CheckpointError, match=r"m\.safetensors: cannot be read"):
        tensor.read()
