"""MindSpore's checkpoints: MindSpore's own file, messages that are made here, and what breaks them."""

from __future__ import annotations

import json
import shutil
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from bundles import message, number, varint
from goldens import FIXTURES
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore_files import NAMES, value

import nezha_convert
from nezha_convert.errors import CheckpointError, MappingError
from nezha_convert.formats.mindspore import is_mindspore, read_mindspore
from nezha_convert.formats.open import open_checkpoint

WHOLE = FIXTURES / "mindspore-pretraining"
TABLE = "bert.bert_encoder.layers.{}.attention.attention._generate_relative_positions_embeddings.embeddings_table"


def read(folder: Path, content: bytes) -> dict[str, np.ndarray]:
    (folder / "m.ckpt").write_bytes(content)
    return {name: entry.read() for name, entry in read_mindspore(folder / "m.ckpt").items()}


def test_mindspore_s_own_file_has_the_tables_that_the_script_put_in() -> None:
    found = read_mindspore(WHOLE / "bert_nezha.ckpt")
    angles = np.arange(33)[:, None] * 10000.0 ** (-2.0 * np.arange(3) / 6)
    table = np.stack([np.sin(angles), np.cos(angles)], -1).reshape(33, 6).astype("float32")
    for layer in (0, 1):
        assert found[TABLE.format(layer)].read().tobytes() == table.tobytes()
    assert found["global_step"].shape == () and found["global_step"].read() == 7


@pytest.mark.parametrize("dtype", NAMES)
def test_every_type_is_read(dtype: str, tmp_path: Path) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    found = read(tmp_path, value("a", array) + value("b", array[:0]) + value("c", array[1, 1]))
    for name, expected in (("a", array), ("b", array[:0]), ("c", array[1, 1])):
        assert (found[name].shape, found[name].tobytes()) == (expected.shape, expected.tobytes())


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(0, 6),
    width=st.integers(1, 4),
    cuts=st.lists(st.integers(0, 96), max_size=5),
    limit=st.integers(1, 60),
)
def test_a_tensor_in_several_shares_is_joined_wherever_they_end(tmp_path_factory, rows, width, cuts, limit) -> None:
    array = np.arange(rows * width, dtype="f4").reshape(rows, width)
    data, ends = array.tobytes(), sorted({0, array.nbytes, *(cut for cut in cuts if cut < array.nbytes)})
    shares = [data[a:b] for a, b in pairwise(ends)] or [b""]
    file = tmp_path_factory.mktemp("m") / "m.ckpt"
    file.write_bytes(b"".join(value("a", array, share) for share in shares) + value("b", array[:1]))
    entry = read_mindspore(file)["a"]
    assert entry.read().tobytes() == data and entry.nbytes == array.nbytes
    blocks = [block.copy() for block in entry.blocks(limit)]
    assert b"".join(block.tobytes() for block in blocks) == data
    assert all(block.nbytes <= max(limit, 4 * width) for block in blocks)


def test_the_shape_0_of_older_releases_is_a_number(tmp_path: Path) -> None:
    tensor = number(1, 1) + message(2, b"Int32") + message(3, b"\7\0\0\0")
    content = message(1, message(1, b"step") + message(2, tensor.replace(number(1, 1), varint(8) + b"\0")))
    assert read(tmp_path, content)["step"] == 7


def test_a_checksum_is_compared(tmp_path: Path) -> None:
    content = value("a", np.ones(3, "f4"))
    sealed = content + b"crc_num" + zlib.crc32(content).to_bytes(10, "big")
    assert read(tmp_path, sealed)["a"].tolist() == [1, 1, 1]
    with pytest.raises(CheckpointError, match="its checksum is"):
        read(tmp_path, sealed[:-1] + bytes([sealed[-1] ^ 1]))


ONE = np.ones((2, 2), "f4")
BROKEN = {
    "a field of another number": (value("a", ONE) + number(2, 5), "field 2"),
    "a name twice": (value("a", ONE) + value("b", ONE) + value("a", ONE), "holds 'a' twice"),
    "shares of two shapes": (value("a", ONE, b"1234") + value("a", ONE[0], b"1234"), "differ in their shape"),
    "fewer bytes than its shape": (value("a", ONE, b"1234"), "cannot have 4 bytes"),
    "a shape of no array": (value("a", np.empty((0, 1 << 40, 1 << 20), "i1")), "no array has"),
    "a name that is not UTF-8": (value("a", ONE).replace(b"\n\1a", b"\n\1\xff"), "utf-8"),
    "a table of keys and values": (message(1, message(1, b"a") + message(3, b"")), "no tensor but a table"),
    "no content": (message(1, message(1, b"a") + message(2, message(2, b"Float32"))), "0 contents"),
    "a number for its name": (message(1, number(1, 5)), "a message is expected"),
    "a value past the end": (b"\n\x7f\n\1a", "past the record's end"),
}


@pytest.mark.parametrize("content, message", BROKEN.values(), ids=BROKEN)
def test_a_file_is_refused_with(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path, content)


def test_a_file_cut_short_anywhere_is_refused_or_lacks_whole_tensors(tmp_path: Path) -> None:
    first, second = value("a", ONE), value("b", ONE)
    for length in range(1, len(first + second)):
        if length == len(first):
            continue  # as long as a sound file of one tensor: nothing says that there were two
        with pytest.raises(CheckpointError):
            read(tmp_path, (first + second)[:length])


def test_text_is_listed_and_not_read(tmp_path: Path) -> None:
    tensor = varint(8) + b"\0" + message(2, b"str") + message(3, b"n\0\0\0")
    (tmp_path / "m.ckpt").write_bytes(message(1, message(1, b"note") + message(2, tensor)))
    with pytest.raises(CheckpointError, match="holds no numbers"):
        read_mindspore(tmp_path / "m.ckpt")["note"].read()


def test_it_is_told_by_its_content_from_torch_s_ckpt_and_tensorflow_s_graphs(tmp_path: Path) -> None:
    assert is_mindspore(WHOLE / "bert_nezha.ckpt")
    graph = message(1, message(1, b"a/b") + message(2, b"Const"))
    for content in (graph, b"", b"\n", b"PK\3\4", b"\x80\2}", b"\n\x03\n\1a", bytes(40)):
        (tmp_path / "m.ckpt").write_bytes(content)
        assert not is_mindspore(tmp_path / "m.ckpt"), content
    assert open_checkpoint(WHOLE).format == "mindspore"


def with_tables(tmp_path: Path, change) -> Path:
    """The fixture with other tables of positions."""
    folder = Path(shutil.copytree(WHOLE, tmp_path / "changed"))
    file = folder / "bert_nezha.ckpt"
    entries, data = read_mindspore(file), bytearray(file.read_bytes()[:-17])
    for layer in (0, 1):
        entry = entries[TABLE.format(layer)]
        data[entry.position[1] :][: entry.nbytes]
        table = change(layer, entry.read())
        data[entry.position[1] : entry.position[1] + entry.nbytes] = table.astype("f4").tobytes()
    file.write_bytes(data)
    return folder


def test_the_names_of_the_cell_that_trains_it_have_a_prefix(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(WHOLE, tmp_path / "trained"))
    entries = read_mindspore(folder / "bert_nezha.ckpt")
    (folder / "bert_nezha.ckpt").write_bytes(b"".join(value(f"bert.{n}", e.read()) for n, e in entries.items()))
    nezha_convert.convert(folder, tmp_path / "out")
    assert nezha_convert.verify(folder, tmp_path / "out").passed


@pytest.mark.parametrize("layer", [0, 1])
def test_a_table_of_positions_that_was_trained_is_refused_by_its_name(layer: int, tmp_path: Path) -> None:
    folder = with_tables(tmp_path, lambda i, table: table + 0.01 * (i == layer))
    with pytest.raises(
        MappingError, match=rf"layers\.{layer}\..*that its program trains.*off by up to 1\.0e-02"
    ) as error:
        nezha_convert.convert(folder, tmp_path / "out")
    assert "--drop '*._generate_relative_positions_embeddings.*'" in error.value.hint


def test_the_model_zoo_s_bert_without_relative_positions_is_refused(tmp_path: Path) -> None:
    tensors = {"bert.bert.bert_embedding_lookup.embedding_table": np.ones((5, 4), "f4")}
    (tmp_path / "bert.ckpt").write_bytes(b"".join(value(name, array) for name, array in tensors.items()))
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 4}))
    with pytest.raises(MappingError, match="have no tables of relative positions"):
        nezha_convert.convert(tmp_path, tmp_path / "out")
