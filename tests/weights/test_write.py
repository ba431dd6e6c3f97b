"""The writer: the safetensors library's bytes, streamed, compared while written, hashed, stopped by the first error."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save
from strategies import arrays

from nezha_convert.checkpoint import TensorEntry
from nezha_convert.errors import CheckpointError, MappingError, OutputError
from nezha_convert.families.rules import Op
from nezha_convert.formats.blocks import row_blocks
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.formats.safetensors import DTYPES
from nezha_convert.mapping.plan import Step
from nezha_convert.weights import write as writer
from nezha_convert.weights.write import Layout, converted, lay_out, write_weights

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9).filter(lambda s: s != "__metadata__")
LARGE = 10**9


TENSORS = st.dictionaries(NAMES, arrays(), min_size=1, max_size=12)


def entry_of(name: str, array: np.ndarray, stream: Callable[[int], Iterator[np.ndarray]] | None = None) -> TensorEntry:
    return TensorEntry(name, str(array.dtype), array.shape, array.nbytes, stream or partial(row_blocks, array))


def step_of(name: str, array: np.ndarray, op: Op = Op.COPY) -> Step:
    shape = array.shape[::-1] if op is Op.TRANSPOSE else array.shape
    return Step(entry_of(f"source/{name}", array), name, op, shape)


def steps_of(tensors: dict[str, np.ndarray]) -> list[Step]:
    return [step_of(name, array) for name, array in tensors.items()]


def write(folder: Path, steps: list[Step], dtype: str | None = None, limit: int = LARGE) -> dict[Path, str]:
    """Lay out and write."""
    return write_weights(folder, lay_out(steps, dtype, limit), (), lambda nbytes: None)[0]


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


# The bytes


@settings(max_examples=120, deadline=None)
@given(TENSORS)
def test_the_file_is_byte_by_byte_what_the_safetensors_library_writes(tensors: dict[str, np.ndarray]) -> None:
    with TemporaryDirectory() as folder:
        hashes = write(Path(folder), steps_of(tensors))
        data = (Path(folder) / "model.safetensors").read_bytes()
        assert data == save(tensors, {"format": "pt"})
        assert hashes == {Path(folder) / "model.safetensors": hashlib.sha256(data).hexdigest()}


def test_every_element_type_is_placed_as_the_library_places_it(tmp_path: Path) -> None:
    tensors = {f"{number} {dtype}": np.ones(3, dtype) for number, dtype in enumerate(sorted(DTYPES.values()))}
    write(tmp_path, steps_of(tensors))
    assert (tmp_path / "model.safetensors").read_bytes() == save(tensors, {"format": "pt"})


def test_the_order_of_the_source_does_not_matter(tmp_path: Path) -> None:
    tensors = {name: np.full(3, number, "f4") for number, name in enumerate("cab")}
    files = []
    for number, names in enumerate(("cab", "bca", "abc")):
        (tmp_path / str(number)).mkdir()
        write(tmp_path / str(number), steps_of({name: tensors[name] for name in names}))
        files.append((tmp_path / str(number) / "model.safetensors").read_bytes())
    assert files[0] == files[1] == files[2]


def test_values_that_are_no_numbers_are_written_bit_by_bit(tmp_path: Path) -> None:
    bits = np.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0x7F800000, 0x80000000, 1], "u4")
    write(tmp_path, [step_of("x", bits.view("f4"))])
    assert load_file(tmp_path / "model.safetensors")["x"].view("u4").tolist() == bits.tolist()


def test_one_source_may_fill_two_targets(tmp_path: Path) -> None:
    bias = np.arange(3, dtype="f4")
    write(tmp_path, [step_of("bias", bias), step_of("decoder.bias", bias)])
    found = load_file(tmp_path / "model.safetensors")
    assert same(found["bias"], bias)
    assert same(found["decoder.bias"], bias)


@pytest.mark.parametrize("dtype", ["complex64", "TensorFlow dtype 7", "object"])
def test_a_type_that_safetensors_does_not_have_is_refused_before_anything_is_written(dtype: str) -> None:
    entry = TensorEntry("names", dtype, (2,), 16, partial(row_blocks, np.zeros(2)))
    with pytest.raises(MappingError, match=f"names is of {dtype}"):
        lay_out([Step(entry, "x", Op.COPY, (2,))], None, LARGE)


# Shards


@settings(max_examples=60, deadline=None)
@given(TENSORS, st.integers(1, 200))
def test_shards_hold_every_tensor_once_and_no_more_than_the_limit(tensors: dict[str, np.ndarray], limit: int) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        layout = lay_out(steps_of(tensors), None, limit)
        hashes, _ = write_weights(folder, layout, (), lambda nbytes: None)
        files = sorted(folder.iterdir())
        assert [file.name for file in files] == sorted(file for file, _, _ in layout.files)
        assert layout.nbytes == sum(file.stat().st_size for file in files)
        assert hashes == {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
        found: dict[str, np.ndarray] = {}
        for file in files:
            part = load_file(file)
            assert not found.keys() & part.keys()
            sizes = [array.nbytes for array in part.values() if array.nbytes]
            assert len(sizes) < 2 or sum(sizes) <= limit
            found |= part
        assert found.keys() == tensors.keys()
        assert all(same(found[key], array) for key, array in tensors.items())


def test_each_shard_is_byte_by_byte_what_the_safetensors_library_writes(tmp_path: Path) -> None:
    tensors = {f"layer.{i}": np.full((4, 4), i, "f4") for i in range(5)}
    write(tmp_path, steps_of(tensors), limit=128)
    shards = [["layer.0", "layer.1"], ["layer.2", "layer.3"], ["layer.4"]]
    for number, names in enumerate(shards, 1):
        data = (tmp_path / f"model-{number:05d}-of-00003.safetensors").read_bytes()
        assert data == save({name: tensors[name] for name in names}, {"format": "pt"})


def test_shards_are_named_and_indexed_as_transformers_reads_them(tmp_path: Path) -> None:
    tensors = {f"layer.{i}": np.full((4, 4), i, "f4") for i in range(5)}
    layout = lay_out(steps_of(tensors), None, 128)
    write_weights(tmp_path, layout, (), lambda nbytes: None)
    assert layout.index is not None
    assert json.loads(layout.index) == {
        "metadata": {"total_size": 320},
        "weight_map": {
            "layer.0": "model-00001-of-00003.safetensors",
            "layer.1": "model-00001-of-00003.safetensors",
            "layer.2": "model-00002-of-00003.safetensors",
            "layer.3": "model-00002-of-00003.safetensors",
            "layer.4": "model-00003-of-00003.safetensors",
        },
    }
    (tmp_path / "model.safetensors.index.json").write_bytes(layout.index)
    entries = open_checkpoint(tmp_path).entries
    assert all(same(entries[name].read(), array) for name, array in tensors.items())


def test_one_file_needs_no_index_and_a_tensor_is_never_split() -> None:
    tensors = {"x": np.zeros(100, "f4")}
    layout = lay_out(steps_of(tensors), None, 1)
    assert layout.index is None
    assert [name for name, _, _ in layout.files] == ["model.safetensors"]
    assert lay_out(steps_of({"x": np.zeros(4, "f4"), "y": np.zeros(4, "f4")}), None, 32).index is None


# Transposes


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 70),
    st.integers(0, 40),
    st.sampled_from(["float32", "bfloat16", "float16", "float64", "int8"]),
    st.sampled_from([1, 64, 300, 1000, 1 << 20]),
    st.sampled_from([1, 7, 16, 128]),
)
def test_transposing_in_blocks_is_transposing(rows: int, columns: int, dtype: str, block_bytes: int, tile: int) -> None:
    array = np.random.default_rng(rows * 41 + columns).integers(0, 256, (rows, columns)).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "BLOCK_BYTES", block_bytes)
        patch.setattr(writer, "TURNED_BYTES", 3 * block_bytes)
        patch.setattr(writer, "_TILE", tile)
        blocks = [np.array(block) for block in converted(step_of("x", array, Op.TRANSPOSE), dtype)]
    row_bytes = rows * array.itemsize
    assert all(block.nbytes <= max(block_bytes, row_bytes) for block in blocks)
    assert b"".join(block.tobytes() for block in blocks) == array.T.tobytes()


def test_a_square_kernel_is_transposed_and_cast_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "TURNED_BYTES", 256)
    array = np.random.default_rng(0).normal(size=(33, 33)).astype("f4")
    write(tmp_path, [step_of("x", array, Op.TRANSPOSE), step_of("y", array)], "bfloat16")
    found = load_file(tmp_path / "model.safetensors")
    assert same(found["x"], array.T.astype(ml_dtypes.bfloat16))
    assert same(found["y"], array.astype(ml_dtypes.bfloat16))
    assert not np.array_equal(found["x"], found["y"])


# Element types

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**127), max_value=2.0**127)


@settings(max_examples=100, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=20), st.sampled_from(["bfloat16", "float32", "float16"]))
def test_casting_rounds_as_torch_does(values: list[float], dtype: str) -> None:
    array = np.array(values, "f4")
    if dtype == "float16":
        array = np.clip(array, -65504, 65504)
    (block,) = converted(step_of("x", array), dtype)
    wanted = torch.from_numpy(array).to(getattr(torch, dtype))
    assert str(block.dtype) == dtype
    assert block.tobytes() == wanted.view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("source", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_float_casts_to_every_other(source: str, dtype: str, tmp_path: Path) -> None:
    array = np.array([1.5, -2, 0.15625, 0], source)
    write(tmp_path, [step_of("x", array)], dtype)
    assert same(load_file(tmp_path / "model.safetensors")["x"], array.astype(dtype))


@pytest.mark.parametrize("kind", ["int64", "uint8", "bool", "int32"])
def test_whole_numbers_and_truths_keep_their_type(kind: str, tmp_path: Path) -> None:
    array = np.array([1, 0], kind)
    write(tmp_path, [step_of("x", array)], "bfloat16")
    assert same(load_file(tmp_path / "model.safetensors")["x"], array)


def test_without_a_type_asked_for_each_tensor_keeps_its_own(tmp_path: Path) -> None:
    tensors = {"a": np.ones(2, "f4"), "b": np.ones(2, "f2"), "c": np.ones(2, ml_dtypes.bfloat16)}
    write(tmp_path, steps_of(tensors))
    found = load_file(tmp_path / "model.safetensors")
    assert all(same(found[name], array) for name, array in tensors.items())


@pytest.mark.parametrize("dtype, value", [("float16", 65520.0), ("float16", -1e30), ("bfloat16", 3.4028235e38)])
@pytest.mark.parametrize("op", Op)
def test_a_value_that_does_not_fit_is_refused_and_its_tensor_named(
    dtype: str, value: float, op: Op, tmp_path: Path
) -> None:
    array = np.array([[1, value, 2], [value, 0, 0]], "f4")
    with pytest.raises(MappingError, match=rf"source/x: 2 of its values do not fit into {dtype}") as caught:
        write(tmp_path, [step_of("x", array, op)], dtype)
    assert f"{abs(value):.6g}" in str(caught.value)
    assert "--dtype" in caught.value.hint


@pytest.mark.parametrize("value", [65504.0, 65519.0, np.inf, -np.inf, np.nan])
def test_a_value_that_fits_or_is_no_finite_number_casts(value: float) -> None:
    (block,) = converted(step_of("x", np.array([value], "f4")), "float16")
    assert block.dtype == np.float16
    assert np.isnan(block[0]) == np.isnan(value)


def test_a_value_too_large_is_refused_beside_one_that_is_no_number(tmp_path: Path) -> None:
    array = np.array([np.nan, np.inf, 1e9, 1], "f4")
    with pytest.raises(MappingError, match="1 of its values do not fit into float16") as caught:
        write(tmp_path, [step_of("x", array)], "float16")
    assert "largest 1e+09" in str(caught.value)


# What is compared


@pytest.mark.parametrize(("what", "size"), [("the header", 1), ("x", 4)])
def test_a_byte_that_does_not_read_back_is_noticed(
    what: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(file: object, array: np.ndarray, write_all: Callable[..., None] = writer._write_all) -> None:
        damaged = array.copy()
        damaged[-1] ^= array.itemsize == size
        write_all(file, damaged)

    monkeypatch.setattr(writer, "_write_all", faulty)
    with pytest.raises(OutputError, match=rf"model\.safetensors: {what} does not read back as it was written"):
        write(tmp_path, [step_of("x", np.ones(5, "f4"))])


def layout_of(tensors: dict[str, np.ndarray]) -> Layout:
    return lay_out(steps_of(tensors), None, LARGE)


TWO = {"a": np.full(4, 1, "f4"), "b": np.full(4, 2, "f4")}


def test_two_tensors_in_each_others_place_are_noticed(tmp_path: Path) -> None:
    layout = layout_of(TWO)
    a, b = layout.placed
    swapped = (replace(a, offset=b.offset), replace(b, offset=a.offset))
    with pytest.raises(OutputError):
        write_weights(tmp_path, replace(layout, placed=swapped), (), lambda nbytes: None)


def test_a_tensor_beside_its_place_is_noticed(tmp_path: Path) -> None:
    layout = layout_of(TWO)
    a, b = layout.placed
    with pytest.raises(OutputError):
        write_weights(tmp_path, replace(layout, placed=(a, replace(b, offset=b.offset - 4))), (), lambda nbytes: None)


@pytest.mark.parametrize("old, new", [(b'"a"', b'"c"'), (b"F32", b"I32"), (b"[4]", b"[04]"), (b"{", b"[")])
def test_a_header_that_says_something_else_is_noticed(old: bytes, new: bytes, tmp_path: Path) -> None:
    layout = layout_of(TWO)
    ((name, header, size),) = layout.files
    damaged = header.replace(old, new, 1)
    with pytest.raises(OutputError, match=str(tmp_path)) as caught:
        write_weights(tmp_path, replace(layout, files=((name, damaged, size),)), (), lambda nbytes: None)
    assert caught.value.exit_code == 5


def test_a_missing_tensor_is_noticed(tmp_path: Path) -> None:
    layout = layout_of(TWO)
    with pytest.raises(OutputError, match="the files hold other tensors than planned"):
        write_weights(tmp_path, replace(layout, placed=layout.placed[:1]), (), lambda nbytes: None)


def test_a_source_that_gives_less_than_planned_is_noticed(tmp_path: Path) -> None:
    entry = entry_of("x", np.zeros(8, "f4"), partial(row_blocks, np.zeros(7, "f4")))
    with pytest.raises(OutputError, match="28 bytes, planned 32"):
        write(tmp_path, [Step(entry, "x", Op.COPY, (8,))])


# Hashes and progress


def test_sources_are_hashed_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    contents = {"empty": b"", "small": b"abc", "large": bytes(range(256)) * 9000, "pad": b"\0" * (1 << 20)}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    sources = [tmp_path / name for name in contents]
    hashes, _ = write_weights(out, layout_of(TWO), sources, lambda nbytes: None)
    wanted = {tmp_path / name: data for name, data in contents.items()}
    wanted[out / "model.safetensors"] = (out / "model.safetensors").read_bytes()
    assert hashes == {path: hashlib.sha256(data).hexdigest() for path, data in wanted.items()}


def test_progress_adds_up_to_what_is_written_and_hashed(tmp_path: Path) -> None:
    seen: list[int] = []
    tensors = {name: np.ones(1000, "f4") for name in "abc"}
    layout = lay_out(steps_of(tensors), None, 4000)
    write_weights(tmp_path, layout, (), seen.append)
    assert sum(seen) == 12_000 + layout.nbytes


def test_a_file_without_tensors_is_hashed_too(tmp_path: Path) -> None:
    hashes = write(tmp_path, [])
    assert hashes == {
        tmp_path / "model.safetensors": hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    }


# Errors and memory


def failing(error: BaseException) -> Callable[[int], Iterator[np.ndarray]]:
    def stream(limit: int) -> Iterator[np.ndarray]:
        yield np.zeros(2, "f4")
        raise error

    return stream


@pytest.mark.parametrize("error", [CheckpointError("damaged"), OSError(5, "Input/output error"), ValueError("odd")])
def test_an_error_in_a_worker_stops_everything_and_comes_out(error: Exception, tmp_path: Path) -> None:
    begun = []

    def slow(limit: int) -> Iterator[np.ndarray]:
        begun.append(1)
        time.sleep(0.002)
        yield np.zeros(4, "f4")

    array = np.zeros(4, "f4")
    steps = [Step(entry_of("bad", array, failing(error)), "a", Op.COPY, (4,))]
    steps += [Step(entry_of("slow", array, slow), f"b{i}", Op.COPY, (4,)) for i in range(300)]
    threads = threading.active_count()
    with pytest.raises(type(error)) as caught:
        write(tmp_path, steps, limit=160)
    assert caught.value is error
    assert len(begun) < 150
    assert threading.active_count() == threads


def test_an_error_stops_the_hashing_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    out.mkdir()
    with source.open("wb") as file:
        file.truncate(4 << 30)  # sparse: it takes no room
    hashed: list[int] = []

    class Counting:
        def update(self, data: memoryview) -> None:
            hashed.append(len(data))

        def hexdigest(self) -> str:
            return ""

    monkeypatch.setattr(hashlib, "sha256", Counting)
    layout = lay_out(
        [Step(entry_of("bad", np.zeros(4, "f4"), failing(CheckpointError("x"))), "a", Op.COPY, (4,))], None, LARGE
    )
    with pytest.raises(CheckpointError):
        write_weights(out, layout, [source], lambda nbytes: None)
    assert sum(hashed) < 4 << 30


def test_after_an_error_nothing_more_is_put_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk may take minutes for that. One thread hashes the source until then, the other what is written."""
    source, out = tmp_path / "source", tmp_path / "out"
    out.mkdir()
    with source.open("wb") as file:
        file.truncate(64 << 30)
    synced: list[Path] = []
    monkeypatch.setattr(writer, "sync", synced.append)
    monkeypatch.setattr(writer, "THREADS", 2)
    steps = [step_of("a", np.zeros(4, "f4"))]
    steps += [Step(entry_of("bad", np.zeros(4, "f4"), failing(CheckpointError("x"))), "b", Op.COPY, (4,))]
    with pytest.raises(CheckpointError):
        write_weights(out, lay_out(steps, None, 16), [source], lambda nbytes: None)
    assert not synced


def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    begun = []
    numbers = itertools.count(1)  # both writers count

    def progress(nbytes: int) -> None:
        begun.append(nbytes)
        if next(numbers) == 50:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.002)

    threads = threading.active_count()
    layout = lay_out(steps_of({f"{i}": np.zeros(4, "f4") for i in range(500)}), None, LARGE)
    with pytest.raises(KeyboardInterrupt):
        write_weights(tmp_path, layout, (), progress)
    assert len(begun) < 400
    assert threading.active_count() == threads


def test_a_source_that_cannot_be_hashed_stops_everything(tmp_path: Path) -> None:
    written = []

    def progress(nbytes: int) -> None:
        written.append(nbytes)
        time.sleep(0.002)

    layout = lay_out(steps_of({f"{i}": np.zeros(4, "f4") for i in range(500)}), None, LARGE)
    threads = threading.active_count()
    with pytest.raises(CheckpointError, match="it went while it was to be hashed"):
        write_weights(tmp_path, layout, [tmp_path / "no such file"], progress)
    assert len(written) < 400
    assert threading.active_count() == threads


def test_a_file_that_cannot_be_put_on_the_disk_stops_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(writer, "sync", full)
    threads = threading.active_count()
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, steps_of(TWO))
    assert threading.active_count() == threads


def test_every_file_is_put_on_the_disk_once_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(writer, "sync", lambda path: synced.append((path, path.read_bytes())))
    write(tmp_path, steps_of({f"{i}": np.full(4, 1 + i, "f4") for i in range(9)}), limit=32)
    files = list(tmp_path.iterdir())
    assert len(files) == 5 and all((path, path.read_bytes()) in synced for path in files)


def test_a_fault_that_the_disk_tells_once_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux reports that a page could not be written to the first who syncs the file, and to no one after."""
    faults = [OSError(5, "Input/output error")]

    def sync(path: Path) -> None:
        if faults:
            raise faults.pop()

    monkeypatch.setattr(writer, "sync", sync)
    with pytest.raises(OSError, match="Input/output error"):
        write(tmp_path, steps_of({f"{i}": np.zeros(4, "f4") for i in range(9)}))


def test_progress_that_fails_where_it_is_hashed_stops_everything(tmp_path: Path) -> None:
    def progress(nbytes: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("no terminal")

    threads = threading.active_count()
    layout = lay_out(steps_of({f"{i}": np.zeros(4, "f4") for i in range(50)}), None, LARGE)
    with pytest.raises(ValueError, match="no terminal"):
        write_weights(tmp_path, layout, (), progress)
    assert threading.active_count() == threads


@pytest.mark.parametrize("op", Op)
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_a_tensor_larger_than_memory_should_be_passes_in_blocks(op: Op, dtype: str | None, tmp_path: Path) -> None:
    shape = (4096, 2048)  # 32 MiB

    def stream(limit: int) -> Iterator[np.ndarray]:
        block = np.ones((max(1, limit // (4 * shape[1])), shape[1]), "f4")
        for _ in range(0, shape[0], len(block)):
            yield block

    entry = TensorEntry("x", "float32", shape, 4 * shape[0] * shape[1], stream)
    step = Step(entry, "x", op, shape[::-1] if op is Op.TRANSPOSE else shape)
    tracemalloc.start()
    try:
        write(tmp_path, [step], dtype)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "model.safetensors").stat().st_size > (16 << 20 if dtype else 32 << 20)
    assert peak < 16 << 20
