"""Keras' HDF5 files: both layouts are read as the real programs wrote them, and hostile files are refused."""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from goldens import FIXTURES
from hypothesis import given, settings
from hypothesis import strategies as st

from nezha_convert import convert
from nezha_convert.errors import CheckpointError, MappingError, UsageError, pip_install
from nezha_convert.families import BERT4KERAS, BERT4KERAS_MODERN
from nezha_convert.formats.keras import read as keras_h5
from nezha_convert.formats.keras.read import read_keras
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.mapping.recognise import family_of
from nezha_convert.parity.again import keras_file
from nezha_convert.parity.oracle.model import Oracle

h5py = pytest.importorskip("h5py", reason="Keras' files are read by h5py: pip install 'nezha-convert[keras]'")

from fuzz import forked  # noqa: E402  (it needs h5py)

LEGACY = FIXTURES / "bert4keras-pretraining/best_model.weights"
WHOLE = FIXTURES / "bert4keras-sequence-classification/best_model.h5"
UNNAMED = FIXTURES / "bert4keras-masked-lm/best_model.weights.h5"
NAMED = FIXTURES / "bert4keras-keras3/best_model.weights.h5"


IN_A_NEW_PROCESS = keras_h5._ask


@pytest.fixture(scope="module", autouse=True)
def forks() -> Iterator[None]:
    """Fork instead of starting a process for each file, which takes a third of a second; some tests start one."""
    with patch.object(keras_h5, "_ask", forked.ask):
        yield


def saved(file: Path, layers: dict[str, dict[str, Any]]) -> Path:
    """Write weights by layer as Keras' save_weights does. A value that is a function creates its own dataset."""
    with h5py.File(file, "w") as root:
        root.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer, weights in layers.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in weights]
            for name, value in weights.items():
                if callable(value):
                    value(group, name)
                else:
                    group.create_dataset(name, data=value)
    return file


# What the programs wrote


def test_weights_of_a_layer_are_in_its_own_order_whatever_their_automatic_numbers(tmp_path):
    names = {"a/dense_9/kernel:0": np.full((2, 2), 1.0), "a/dense_10/kernel:0": np.full((2, 2), 2.0)}
    entries = read_keras(saved(tmp_path / "m.h5", {"a": names}))
    assert [(name, entry.read()[0, 0]) for name, entry in entries.items()] == [("a/0/kernel", 1), ("a/1/kernel", 2)]


@pytest.mark.parametrize(("file", "table"), [(LEGACY, BERT4KERAS), (WHOLE, BERT4KERAS), (UNNAMED, BERT4KERAS_MODERN)])
def test_every_tensor_that_bert4keras_saved_has_a_place(file, table):
    entries = read_keras(file)
    assert family_of(entries) is table
    assert all(table.find(name) for name in entries)
    with h5py.File(file) as root:
        arrays: list[int] = []
        root.visititems(lambda _, found: arrays.append(found.size) if isinstance(found, h5py.Dataset) else None)
    training = 1 if file == WHOLE else 0  # the optimizer's counter
    assert sorted(arrays) == sorted(int(np.prod(entry.shape)) for entry in entries.values())
    assert sum(entry.dtype == "int64" for entry in entries.values()) == training


def test_keras_3_stores_layers_names_and_its_elder_s_are_told_by_their_order():
    unnamed, named = read_keras(UNNAMED), read_keras(NAMED)
    assert unnamed.keys() == named.keys()
    for name, entry in named.items():
        assert unnamed[name].read().tobytes() == entry.read().tobytes(), name


def test_the_values_are_those_that_h5py_reads(monkeypatch):
    monkeypatch.setattr(keras_h5, "_ask", IN_A_NEW_PROCESS)
    entries = read_keras(LEGACY)
    with h5py.File(LEGACY) as root:
        layer = root["Transformer-1-MultiHeadSelfAttention"]
        for index, name in enumerate(layer.attrs["weight_names"]):
            kind = "bias" if index % 2 else "kernel"
            found = entries[f"Transformer-1-MultiHeadSelfAttention/{index}/{kind}"].read()
            assert np.array_equal(found, layer[name][()])


def test_a_lone_dense_layer_is_the_classifier_and_several_keep_their_numbers(tmp_path):
    one = saved(tmp_path / "one.h5", {"dense_73": {"dense_73/kernel:0": np.ones((2, 3), "f4")}})
    assert list(read_keras(one)) == ["dense/0/kernel"]
    layers = {f"dense_{i}": {f"dense_{i}/kernel:0": np.ones((2, 3), "f4")} for i in (73, 74)}
    assert list(read_keras(saved(tmp_path / "two.h5", layers))) == ["dense_73/0/kernel", "dense_74/0/kernel"]


def test_a_list_of_names_that_keras_cut_into_chunks_is_one(tmp_path):
    file = saved(tmp_path / "m.h5", {layer: {f"{layer}/w:0": np.ones(1, "f4")} for layer in "abc"})
    with h5py.File(file, "r+") as root:
        del root.attrs["layer_names"]
        root.attrs["layer_names0"], root.attrs["layer_names1"] = [b"a", b"b"], [b"c"]
    assert list(read_keras(file)) == ["a/0/w", "b/0/w", "c/0/w"]


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", ">f8", "<i8", "u1"])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (7, 3)])
def test_every_type_and_byte_order_is_read_in_blocks(dtype, shape, tmp_path):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    entry = read_keras(saved(tmp_path / "m.h5", {"a": {"w:0": array}}))["a/0/w"]
    assert (entry.dtype, entry.shape, entry.nbytes) == (array.dtype.name, shape, array.nbytes)
    assert np.array_equal(entry.read(), array)
    assert entry.read().dtype.isnative
    rows = [np.array(block) for block in entry.blocks(1)]
    assert sum(row.nbytes for row in rows) == array.nbytes


def test_keras_3_s_bfloat16_is_known_by_its_mark(tmp_path):
    import ml_dtypes

    values = np.arange(4).astype(ml_dtypes.bfloat16)

    def marked(group, name):
        group.create_dataset(name, data=values).attrs["dtype"] = "bfloat16"

    entry = read_keras(saved(tmp_path / "m.h5", {"a": {"w:0": marked}}))["a/0/w"]
    assert entry.dtype == "bfloat16"
    assert entry.read().tobytes() == values.tobytes()


@pytest.mark.parametrize("name", ["m.h5", "m.hdf5", "m.weights", "m.weights.h5"])
def test_files_are_opened_by_keras_suffixes_with_the_config_beside_them(name, tmp_path):
    (tmp_path / name).write_bytes(LEGACY.read_bytes())
    (tmp_path / "bert_config.json").write_text("{}")
    for source in (tmp_path, tmp_path / name):
        checkpoint = open_checkpoint(source)
        assert checkpoint.format == "keras"
        assert checkpoint.config == tmp_path / "bert_config.json"


def test_without_h5py_the_way_to_get_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match="h5py") as caught:
        read_keras(LEGACY)
    assert caught.value.hint == pip_install("'nezha-convert[keras]'")


# What the table of relative positions tells


def changed(folder: Path, change: Callable[[Any], None]) -> Path:
    """The fixture of both heads with a changed file."""
    for name in (LEGACY.name, "bert_config.json"):
        (folder / name).write_bytes((LEGACY.parent / name).read_bytes())
    with h5py.File(folder / LEGACY.name, "r+") as root:
        change(root)
    return folder


def replaced(root: Any, table: np.ndarray) -> None:
    del root[POSITIONS]
    root[POSITIONS] = table


POSITIONS = "Embedding-Relative-Position/Embedding-Relative-Position/embeddings:0"


def test_its_rows_are_the_clip_distance_whatever_the_config_says(tmp_path):
    source = changed(tmp_path, lambda root: replaced(root, root[POSITIONS][:65]))
    config = json.loads((source / "bert_config.json").read_text())
    (source / "bert_config.json").write_text(json.dumps(config | {"max_relative_position": 64}))
    report = convert(source, tmp_path / "out").to_dict()
    assert json.loads((tmp_path / "out/config.json").read_text())["max_relative_position"] == 32
    assert "clipped at 32" in next(d["reason"] for d in report["decisions"] if d["field"] == "max_relative_position")


def test_without_it_the_same_names_are_a_roformer_s(tmp_path):
    source = changed(tmp_path, lambda root: root["Embedding-Relative-Position"].attrs.create("weight_names", []))
    with pytest.raises(MappingError, match="but not its NEZHA"):
        convert(source, tmp_path / "out")


def test_the_oracle_computes_with_one_that_was_trained(tmp_path):
    outputs = []
    for change in (0.0, 0.02):
        (folder := tmp_path / str(change)).mkdir()
        source = changed(folder, lambda root, change=change: replaced(root, root[POSITIONS][()] + np.float32(change)))
        config = json.loads((source / "bert_config.json").read_text())
        oracle = Oracle(open_checkpoint(source).entries, config, "pretraining")
        outputs.append(oracle.forward(np.arange(8)[None])["prediction_logits"])
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-4


# Hostile files


def _external_storage(group, name):
    group.create_dataset(name, (4,), "f4", external=[("/etc/passwd", 0, 16)])


def _virtual(group, name):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    group.create_virtual_dataset(name, layout)


def _soft_link(group, name):
    group[name] = h5py.SoftLink("/layer/other")


def _external_link(group, name):
    group[name] = h5py.ExternalLink("/etc/passwd", "/x")


HOSTILE: dict[str, tuple[Callable[[Any, str], None], str]] = {
    "values in another file": (_external_storage, "keeps its values in another file; refused"),
    "a view of another file": (_virtual, "as a view of other datasets"),
    "a soft link": (_soft_link, "is a soft link; refused"),
    "a link to another file": (_external_link, "is a link to another file; refused"),
    "a huge shape": (lambda g, n: g.create_dataset(n, (1 << 50, 1 << 8), "f4"), "which the file does not have"),
    "huge chunks": (lambda g, n: g.create_dataset(n, (1 << 40,), "f4", chunks=(1 << 20,)), "is stored in chunks"),
    "compressed": (lambda g, n: g.create_dataset(n, data=np.zeros(1 << 16), compression="gzip"), "is stored in chunks"),
    "texts": (
        lambda g, n: g.create_dataset(n, data=["a"], dtype=h5py.string_dtype()),
        "not one of NumPy's number types",
    ),
    "references": (lambda g, n: g.create_dataset(n, (1,), h5py.ref_dtype), "not one of NumPy's number types"),
    "arrays of any length": (
        lambda g, n: g.create_dataset(n, (1,), h5py.vlen_dtype("f4")),
        "not one of NumPy's number types",
    ),
    "a record": (lambda g, n: g.create_dataset(n, data=np.zeros(1, "f4,f4")), "not one of NumPy's number types"),
    "a group": (lambda g, n: g.create_group(n), "is not an array"),
    "nothing": (lambda g, n: g.create_dataset(n, data=h5py.Empty("f4")), "is not an array"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_plain_array_in_this_file_is_refused_and_costs_nothing(case, tmp_path):
    make, message = HOSTILE[case]
    file = saved(tmp_path / "m.h5", {"layer": {"w:0": make}})
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=message):
            read_keras(file)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("link", [h5py.SoftLink("/b"), h5py.ExternalLink("/etc/passwd", "/")])
def test_a_layer_that_is_a_link_is_refused(link, tmp_path):
    file = saved(tmp_path / "m.h5", {"b": {"w:0": np.ones(1)}})
    with h5py.File(file, "r+") as root:
        root.attrs["layer_names"] = [b"a"]
        root["a"] = link
    with pytest.raises(CheckpointError, match="refused"):
        read_keras(file)


def test_a_cycle_of_groups_is_refused(tmp_path):
    with h5py.File(tmp_path / "m.weights.h5", "w") as root:
        root["layers/dense/vars/0"] = np.ones(1)
        root["layers/dense/again"] = root["layers"]
    with pytest.raises(CheckpointError, match="leads back"):
        read_keras(tmp_path / "m.weights.h5")


def test_groups_within_groups_without_end_are_refused(tmp_path):
    with h5py.File(tmp_path / "m.weights.h5", "w") as root:
        root.create_group("layers/" + "x/" * 500)
    with pytest.raises(CheckpointError, match="too deep"):
        read_keras(tmp_path / "m.weights.h5")


def test_a_list_that_names_what_is_not_there_is_refused(tmp_path):
    file = saved(tmp_path / "m.h5", {"a": {"w:0": np.ones(1)}})
    with h5py.File(file, "r+") as root:
        del root["a/w:0"]
    with pytest.raises(CheckpointError, match="cannot be read as an HDF5 file"):
        read_keras(file)


def test_other_files_are_not_taken_for_keras(tmp_path):
    (tmp_path / "m.h5").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(CheckpointError, match="does not begin with HDF5's signature"):
        read_keras(tmp_path / "m.h5")
    with h5py.File(tmp_path / "n.h5", "w") as root:
        root["x"] = np.ones(1)
    with pytest.raises(CheckpointError, match=r"no weights of Keras in it: .* found x"):
        read_keras(tmp_path / "n.h5")


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    whole, file = LEGACY.read_bytes(), tmp_path / "m.h5"
    for length in range(0, len(whole) - 1, 997):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            read_keras(file)


@pytest.mark.parametrize(
    ("does", "patience", "message"),
    [
        ("import os; os.abort()", 60, "ended with code -6"),
        ("while True: pass", 60, r"did not finish reading it\)"),
        ("import time; time.sleep(60)", 0, "did not finish reading it in [0-9]+ s"),
        ("bytearray(2 << 30)", 60, "ended with code 1"),
    ],
)
def test_whatever_the_library_does_at_a_file_it_is_refused_and_the_process_lives(
    does, patience, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(keras_h5, "_ask", IN_A_NEW_PROCESS)
    monkeypatch.setattr(keras_h5, "PATIENCE", patience)
    instead = (
        f"import nezha_convert.formats.keras.contents as child; child.contents = lambda file: exec({does!r}); main("
    )
    monkeypatch.setattr(keras_h5, "_CHILD", keras_h5._CHILD.replace("main(", instead))
    with pytest.raises(CheckpointError, match=message):
        read_keras(saved(tmp_path / "m.h5", {"a": {"w:0": np.ones(1)}}))


@pytest.mark.parametrize("read", [read_keras, keras_file.read_keras])
def test_a_file_of_the_current_folder_that_is_called_like_a_module_is_not_run(read, tmp_path, monkeypatch):
    monkeypatch.setattr(keras_h5, "_ask", IN_A_NEW_PROCESS)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    (tmp_path / "json.py").write_text("raise SystemExit('it was run')")
    monkeypatch.chdir(tmp_path)
    assert read(LEGACY)


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"[]", b"{}", b'{"tensors": 3}', b'{"tensors": [["a"]]}', b'{"refused": 1}', b"\xff"),
        *(b'{"tensors": [["a", "<f4", [-1], 0]]}', b'{"tensors": [["a", "O", [1], 0]]}'),
        *(b'{"tensors": [["a", "<f4", [1], -8]]}', b'{"tensors": [["a", "<f4", [1], 999999]]}'),
        *(b'{"tensors": [["\\ud800", "<f4", [1], 0]]}', b'{"tensors": [[3, "<f4", [1], 0]]}'),
        b'{"tensors": [["a", "<f4", [0, 4611686018427387904], 0]]}',
    ],
)
def test_an_answer_of_the_process_that_no_sound_file_gives_is_refused(answer, tmp_path, monkeypatch):
    monkeypatch.setattr(keras_h5, "_ask", lambda file, seconds: (0, answer))
    with pytest.raises(CheckpointError):
        read_keras(saved(tmp_path / "m.h5", {"a": {"w:0": np.ones(1)}}))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([LEGACY, NAMED]),
    st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 255)), min_size=1, max_size=8),
)
def test_damage_is_a_checkpoint_error_or_goes_into_values(source: Path, flips: list[tuple[int, int]]) -> None:
    content = bytearray(source.read_bytes())
    for position, bits in flips:
        content[position % len(content)] ^= bits
    with TemporaryDirectory() as folder:
        file = Path(folder) / "m.h5"
        file.write_bytes(content)
        tracemalloc.start()
        try:
            for entry in read_keras(file).values():
                for block in entry.blocks():
                    assert block.nbytes <= len(content)
        except CheckpointError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert peak < 8 << 20
