"""Object-based checkpoints and SavedModels: TensorFlow's own files, and names by graphs that are made here."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from pathlib import Path

import bundles
import google_crc32c
import numpy as np
import pytest
from bundles import masked, message, number, varint
from goldens import FIXTURES
from hypothesis import given
from hypothesis import strategies as st

import nezha_convert
from nezha_convert.errors import CheckpointError
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.formats.protobuf import FormatError
from nezha_convert.formats.tf_bundle.objects import names_in
from nezha_convert.formats.tf_bundle.read import read_bundle
from nezha_convert.parity.again.objects import names_of

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
NUMBER = {"kernel": 0, "bias": 1, "beta": 0, "gamma": 1, "embeddings": 0}
INNER = {"FeedForward": ("i0_dense", "o_dense"), "MultiHeadSelfAttention": ("q_dense", "k_dense", "v_dense", "o_dense")}


def graph_of(variables: dict[str, str]) -> bytes:
    """A graph of objects by the paths of variables, and the name of each variable."""
    nodes: list[tuple[dict[str, int], list[bytes]]] = [({}, [])]
    for path, name in variables.items():
        at = 0
        for step in path.split("/"):
            if step not in nodes[at][0]:
                nodes[at][0][step] = len(nodes)
                nodes.append(({}, []))
            at = nodes[at][0][step]
        value = message(1, b"VARIABLE_VALUE") + message(2, name.encode()) + message(3, f"{path}{VALUE}".encode())
        nodes[at][1].append(message(2, value))
    return b"".join(
        message(1, b"".join(message(1, number(1, n) + message(2, s.encode())) for s, n in node.items()) + b"".join(own))
        for node, own in nodes
    )


def named(variables: dict[str, str], shapes: dict[str, tuple[int, ...]] | None = None) -> list[str]:
    """The names of `variables`, in their order, by both readers, which must agree."""
    by_key = {f"{path}{VALUE}": (shapes or {}).get(path, (2, 4)) for path in variables}
    first, second = names_in(graph_of(variables), by_key), names_of(graph_of(variables), by_key)
    assert first == second
    return list(first.values())


def hashes(entries) -> dict[str, str]:
    return {name: hashlib.sha256(entry.read().tobytes()).hexdigest()[:16] for name, entry in entries.items()}


def given_to(fixture: str) -> dict[str, str]:
    return json.loads((FIXTURES / fixture / "values.json").read_text())


def test_bert4keras_saved_by_objects_has_the_weights_of_each_layer() -> None:
    files, found, decisions = read_bundle(FIXTURES / "bert4keras-objects" / "best_model.weights")
    assert len(files) == 2 and decisions[0].field == "names"
    numbered = {}
    for name, value in hashes(found).items():
        layer, *inner, kind = name.split("/")
        place = (
            2 * INNER[layer.split("-")[-1]].index(inner[0]) if inner else 0
        )  # Keras numbers the weights of inner layers through
        numbered[f"{layer}/{place + NUMBER[kind]}"] = value
    assert numbered == given_to("bert4keras-objects") and len(found) == 42


@pytest.mark.parametrize("fixture", ["tf-partitioned", "tf-savedmodel"])
def test_parts_are_joined_and_a_saved_model_is_read_bit_by_bit(fixture: str) -> None:
    found = open_checkpoint(FIXTURES / fixture).entries
    assert hashes(found) == given_to("tf-v1")
    for entry in found.values():
        rows = [block.copy() for block in entry.blocks(50)]
        assert b"".join(block.tobytes() for block in rows) == entry.read().tobytes()


@pytest.mark.parametrize("name", ["", "1", "1/saved_model.pb", "1/variables", "1/variables/variables.index"])
def test_a_saved_model_is_opened_by_each_of_its_names_with_the_config_above_it(name: str) -> None:
    source = FIXTURES / "tf-savedmodel"
    checkpoint = open_checkpoint(source / name)
    assert checkpoint.path == source / "1" / "variables" / "variables"
    assert checkpoint.config == source / "bert_config.json"


@pytest.mark.parametrize("inner", ["", "1"])
def test_an_archive_of_a_saved_model_is_opened(inner: str, tmp_path: Path) -> None:
    source = Path(shutil.copytree(FIXTURES / "tf-savedmodel", tmp_path / "source"))
    (tmp_path / "bert_config.json").write_text("{}")  # beside the archive is not in it
    if inner:
        shutil.copy(source / "bert_config.json", source / inner)
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", source / inner)
    checkpoint = open_checkpoint(packed)
    assert hashes(checkpoint.entries) == given_to("tf-v1")
    assert checkpoint.config and checkpoint.config.read_bytes() == (source / "bert_config.json").read_bytes()
    nezha_convert.convert(packed, tmp_path / "out")
    assert nezha_convert.verify(packed, tmp_path / "out").passed


def test_an_index_that_is_gone_is_named_with_what_to_do(tmp_path: Path) -> None:
    source = Path(shutil.copytree(FIXTURES / "huawei-tf-squad", tmp_path / "source"))
    (source / "model.ckpt-12345.index").unlink()
    with pytest.raises(CheckpointError, match=r"model\.ckpt-12345\.index: not there; it says where") as caught:
        open_checkpoint(source)
    assert caught.value.hint.startswith("Copy model.ckpt-12345.index beside the data file")


def test_a_layer_s_name_begins_its_variables_names_and_paths_go_on() -> None:
    assert named(
        {
            "layer_with_weights-0/embeddings": "Embedding-Token/embeddings",
            "layer_with_weights-1/q_dense/kernel": "Transformer-0-MultiHeadSelfAttention/dense_12/kernel",
            "layer_with_weights-2/kernel": "dense_40/kernel",
            "layer_with_weights-3/transitions": "crf/transitions",
        }
    ) == [
        "Embedding-Token/embeddings",
        "Transformer-0-MultiHeadSelfAttention/q_dense/kernel",
        "dense/kernel",
        "crf/transitions",
    ]


def test_a_model_inside_of_the_saved_one_and_of_a_layer_is_found() -> None:
    assert named({"model/layer_with_weights-0/embeddings": "Embedding-Token/embeddings"}) == [
        "Embedding-Token/embeddings"
    ]
    assert named({"layer_with_weights-0/layer_with_weights-2/beta": "Embedding-Norm/beta"}) == ["Embedding-Norm/beta"]


def test_variables_without_layers_have_their_own_names_where_no_other_has() -> None:
    assert named({"model/a/0": "bert/pooler/dense/bias", "model/a/1": "output_bias", "b": "Variable", "c": "x"}) == [
        "bert/pooler/dense/bias",
        "output_bias",
        "b",
        "x",
    ]
    assert named({"a": "same", "b": "same"}) == ["a", "b"]
    assert named({"optimizer/iter": "Adam/iter", "save_counter": "save_counter"}) == ["optimizer/iter", "save_counter"]
    assert named({"keras_api/metrics/0/total": "total"}) == ["keras_api/metrics/0/total"]


def test_layers_without_names_have_bert4keras_s_by_their_order_and_shapes() -> None:
    parts = ["embeddings", "embeddings", "beta gamma", "embeddings"]
    for _ in range(2):
        inner = "q_dense k_dense v_dense o_dense"
        parts += [" ".join(f"{one}/{kind}" for one in inner.split() for kind in ("kernel", "bias")), "beta gamma"]
        parts += ["i0_dense/kernel i0_dense/bias o_dense/kernel o_dense/bias", "beta gamma"]
    parts += ["kernel bias", "beta gamma", "beta"]
    paths = [f"layer_with_weights-{i}/{one}" for i, part in enumerate(parts) for one in part.split()]
    shapes = {"layer_with_weights-0/embeddings": (9, 4), "layer_with_weights-3/embeddings": (129, 2)}
    found = named(dict.fromkeys(paths, "Variable"), shapes)
    expected = read_bundle(FIXTURES / "bert4keras-objects" / "best_model.weights")[1]
    assert set(found) == set(expected)
    assert found[:5] == [f"Embedding-{one}" for one in ("Token/embeddings", "Segment/embeddings", "Norm/beta")] + [
        "Embedding-Norm/gamma",
        "Embedding-Relative-Position/embeddings",
    ]


@given(data=st.binary(max_size=60))
def test_any_bytes_for_a_graph_are_read_or_refused(data: bytes) -> None:
    with suppress(FormatError):
        assert names_in(data, {"a": (2,)}).keys() == {"a"}


def with_graph(folder: Path, graph: bytes, spoil: int | None = None) -> Path:
    """A bundle of one tensor and a graph, whose stored bytes are changed at `spoil`."""
    lengths = varint(len(graph))
    crc = google_crc32c.value(len(graph).to_bytes(4, "little"))
    stored = masked(crc).to_bytes(4, "little")
    whole = google_crc32c.extend(google_crc32c.extend(crc, stored), graph)
    text, value = bytearray(lengths + stored + graph), np.ones(2, "f4").tobytes()
    if spoil is not None:
        text[spoil] ^= 1
    records = {
        "": bundles.header(),
        "_CHECKPOINTABLE_OBJECT_GRAPH": bundles.entry(7, (), 0, len(value), len(text), masked(whole)),
        f"a/b{VALUE}": bundles.entry(1, (2,), 0, 0, len(value), masked(google_crc32c.value(value))),
    }
    (folder / "m.index").write_bytes(bundles.table(records))
    (folder / "m.data-00000-of-00001").write_bytes(value + text)
    return folder / "m"


def test_a_graph_is_checked_by_its_checksum_and_its_length(tmp_path: Path) -> None:
    graph = graph_of({"a/b": "bert/x"})
    assert [*read_bundle(with_graph(tmp_path, graph))[1]] == ["bert/x"]
    for place in range(len(graph) + 5):
        with pytest.raises(CheckpointError, match="object graph"):
            read_bundle(with_graph(tmp_path, graph, place))


def test_a_graph_that_names_an_object_that_is_not_there_is_refused(tmp_path: Path) -> None:
    graph = message(1, message(1, number(1, 7) + message(2, b"layer_with_weights-0")))
    with pytest.raises(CheckpointError, match="names object 7 of 1"):
        read_bundle(with_graph(tmp_path, graph))


@pytest.mark.parametrize("fixture", ["tf-v1", "tf-partitioned", "tf-savedmodel", "bert4keras-objects"])
def test_it_is_converted_and_verified(fixture: str, tmp_path: Path) -> None:
    source = FIXTURES / fixture
    nezha_convert.convert(source, tmp_path / "out")
    assert nezha_convert.verify(source, tmp_path / "out").passed
