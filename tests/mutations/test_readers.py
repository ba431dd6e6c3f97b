"""Each reader that converts, mistaken: `verify` reads the source by other code, and must fail.

A mistake is planted below both `convert` and whatever shares its reading, and stays there while `verify` runs.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz import hostile
from goldens import FIXTURES
from safetensors.torch import load_file, save_file

import nezha_convert
from nezha_convert.checkpoint import Checkpoint, TensorEntry
from nezha_convert.errors import CheckpointError
from nezha_convert.formats import open as opening
from nezha_convert.mapping import config, survey
from nezha_convert.tokenizer import make

Entries = dict[str, TensorEntry]

READERS = {
    "a bundle": ("huawei-tf-pretraining", "bert/encoder/layer_1/attention/self/{}/kernel", ("query", "value")),
    "a legacy PyTorch file": (
        "huawei-torch-pretraining",
        "bert.encoder.layer.1.attention.self.{}.weight",
        ("query", "value"),
    ),
    "a PyTorch file": ("transformers-4.40.2-encoder", "encoder.layer.1.attention.self.{}.weight", ("query", "value")),
    "safetensors": (
        "transformers-4.40.2-pretraining",
        "nezha.encoder.layer.1.attention.self.{}.weight",
        ("query", "value"),
    ),
    "Paddle": ("paddlenlp-pretraining", "nezha.encoder.layer.1.attention.{}.weight", ("query", "value")),
    "Keras 2": (
        "bert4keras-pretraining",
        "Transformer-1-MultiHeadSelfAttention/{}/kernel",
        ("0", "4"),
    ),
    "TensorFlow's first format": (
        "tf-v1",
        "bert/encoder/layer_1/attention/self/{}/kernel",
        ("query", "value"),
    ),
    "TensorFlow's first format, sharded": (
        "tf-v1-sharded",
        "bert/encoder/layer_0/attention/self/{}/kernel",
        ("query", "value"),
    ),
    "a bundle in parts": ("tf-partitioned", "bert/encoder/layer_1/attention/self/{}/kernel", ("query", "value")),
    "a SavedModel": ("tf-savedmodel", "bert/encoder/layer_1/attention/self/{}/kernel", ("query", "value")),
    "objects": (
        "bert4keras-objects",
        "Transformer-1-MultiHeadSelfAttention/{}/kernel",
        ("q_dense", "v_dense"),
    ),
    "MindSpore": (
        "mindspore-pretraining",
        "bert.bert_encoder.layers.1.attention.attention.{}_layer.weight",
        ("query", "value"),
    ),
    "Keras 3": ("bert4keras-keras3", "Transformer-1-MultiHeadSelfAttention/{}/0", ("q_dense", "v_dense")),
}
"""By format, a fixture and two of its square tensors."""


def arrays_of(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in state.items()}


WRITERS: dict[str, Callable[[dict[str, torch.Tensor], Path], object]] = {
    "joblib's": lambda state, file: pytest.importorskip("joblib").dump(arrays_of(state), file),
    "a tar of PyTorch 0.1.10": lambda state, file: file.write_bytes(hostile.tar_of(arrays_of(state))),
    "a legacy file of protocol 1": partial(torch.save, pickle_protocol=1, _use_new_zipfile_serialization=False),
    "arrays of protocol 0": lambda state, file: file.write_bytes(pickle.dumps(arrays_of(state), 0)),
    "tensors of protocol 1": lambda state, file: file.write_bytes(pickle.dumps(state, 1)),
}
"""Writers of formats that no fixture has. They write the tensors of Huawei's PyTorch."""

READERS |= dict.fromkeys(WRITERS, READERS["a legacy PyTorch file"])


def source_of(reader: str, folder: Path) -> Path:
    """A checkpoint in this format."""
    fixture = FIXTURES / READERS[reader][0]
    if reader not in WRITERS:
        return fixture
    folder.mkdir()
    shutil.copy(fixture / "bert_config.json", folder)
    WRITERS[reader](torch.load(fixture / "pytorch_model.bin", weights_only=True), folder / "model.pkl")
    return folder


def changed(entry: TensorEntry, change: Callable[[np.ndarray], np.ndarray]) -> TensorEntry:
    """`entry` as a reader would give it that makes a mistake."""
    array = np.ascontiguousarray(change(entry.read()))

    def stream(limit: int) -> Iterator[np.ndarray]:
        yield array

    return replace(entry, stream=stream)


def _eight_bytes_off(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(np.roll(np.frombuffer(array.tobytes(), np.uint8), -8).tobytes(), array.dtype).reshape(
        array.shape
    )


def _one(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Entries, str, str], Entries]:
    return lambda entries, first, second: entries | {first: changed(entries[first], change)}


def _exchanged(entries: Entries, first: str, second: str) -> Entries:
    one, other = entries[first].read(), entries[second].read()
    return entries | {
        first: changed(entries[first], lambda _: other),
        second: changed(entries[second], lambda _: one),
    }


MISTAKES = {
    "eight bytes off": _one(_eight_bytes_off),
    "transposed": _one(lambda array: array.T),
    "a sign": _one(lambda array: np.where(np.arange(array.size).reshape(array.shape) == 5, -array, array)),
    "two tensors exchanged": _exchanged,
}


def plant(monkeypatch: pytest.MonkeyPatch, mistake: Callable[[Entries], Entries]) -> None:
    """Make every opening of a checkpoint go wrong, but not that of the converted folder."""
    read = opening._read

    def mistaken(candidate: Any, *asked: Any) -> Checkpoint:
        checkpoint = read(candidate, *asked)
        return replace(checkpoint, entries=mistake(dict(checkpoint.entries)))

    monkeypatch.setattr(opening, "_read", mistaken)


@pytest.mark.parametrize("reader", READERS)
def test_nothing_fails_where_nothing_is_planted(reader, tmp_path, monkeypatch):
    plant(monkeypatch, lambda entries: entries)
    source = source_of(reader, tmp_path / "source")
    nezha_convert.convert(source, tmp_path / "out")
    report = nezha_convert.verify(source, tmp_path / "out")
    assert report.passed, report.verdict


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("reader", READERS)
def test_a_mistake_of_the_reader_that_converts_fails(reader, mistake, tmp_path, monkeypatch):
    _, pattern, parts = READERS[reader]
    names = [pattern.format(part) for part in parts]
    source = source_of(reader, tmp_path / "source")
    plant(monkeypatch, lambda entries: MISTAKES[mistake](entries, *names))
    nezha_convert.convert(source, tmp_path / "out")
    report = nezha_convert.verify(source, tmp_path / "out")
    assert not report.passed and report.first_departs == f"layer_{re.findall('[01]', pattern)[0]}"


# Which of several dictionaries is the model.


@pytest.fixture
def averaged(tmp_path) -> Path:
    """A training's file: the model, in whose dictionary lies a number, too, and its average."""
    folder = Path(shutil.copytree(FIXTURES / "huawei-torch-pretraining", tmp_path / "averaged"))
    model = torch.load(folder / "pytorch_model.bin", weights_only=True)
    average = {name: tensor * 0.9 for name, tensor in model.items()}
    torch.save({"state_dict": {**model, "step": 3}, "ema": average}, folder / "pytorch_model.bin")
    torch.save(average, tmp_path / "average.bin")
    return folder


def test_an_average_taken_for_the_model_fails(averaged, tmp_path, monkeypatch):
    average = dict(opening.open_checkpoint(tmp_path / "average.bin").entries)
    read = opening._read
    monkeypatch.setattr(
        opening,
        "_read",
        lambda candidate, *asked: (
            Checkpoint("torch", candidate.path, (candidate.path,), average)
            if candidate.path.suffix == ".bin"
            else read(candidate, *asked)
        ),
    )
    nezha_convert.convert(averaged, tmp_path / "out")
    assert nezha_convert.verify(averaged, tmp_path / "out").first_departs == "embeddings"


def test_another_dictionary_than_the_one_asked_for_by_part_fails(averaged, tmp_path, monkeypatch):
    read = opening.read_torch

    def mistaken(files, part=None, average=False):
        return read(files, part, average)._replace(entries=read(files, "state_dict").entries)

    nezha_convert.convert(averaged, tmp_path / "right", part="ema")
    assert nezha_convert.verify(averaged, tmp_path / "right").passed
    monkeypatch.setattr(opening, "read_torch", mistaken)
    nezha_convert.convert(averaged, tmp_path / "out", part="ema")
    assert nezha_convert.verify(averaged, tmp_path / "out").first_departs == "embeddings"


# The JSON and the labels.


@pytest.mark.parametrize(
    ("fixture", "field", "value"),
    [
        ("huawei-tf-pretraining", "hidden_act", "relu"),
        ("huawei-tf-pretraining", "num_attention_heads", 4),
        ("huawei-torch-mlm-rel127", "max_relative_position", 64),
        ("transformers-4.40.2-encoder", "layer_norm_eps", 1e-2),
        ("paddlenlp-question-answering", "num_attention_heads", 4),
    ],
)
def test_a_mistake_in_reading_the_json_fails(fixture, field, value, tmp_path, monkeypatch):
    read = config.read_json

    def mistaken(path: Path) -> Any:
        content = read(path)
        for one in (content, *(part for part in content.get("init_args", ()) if isinstance(part, dict))):
            if field in one:
                one[field] = value
        return content

    monkeypatch.setattr(config, "read_json", mistaken)
    nezha_convert.convert(FIXTURES / fixture, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())[field] == value
    report = nezha_convert.verify(FIXTURES / fixture, tmp_path / "out")
    assert report.first_departs == ("embeddings" if field == "layer_norm_eps" else "layer_0")


def test_labels_exchanged_fail(tmp_path, monkeypatch):
    source = Path(shutil.copytree(FIXTURES / "huawei-torch-classifier", tmp_path / "source"))
    rows = len(torch.load(source / "pytorch_model.bin", weights_only=True)["classifier.bias"])
    names = [f"name {i}" for i in range(rows)]
    (source / "labels.txt").write_text("\n".join(names))
    monkeypatch.setattr(survey, "read_labels", lambda path: [names[1], names[0], *names[2:]])
    nezha_convert.convert(source, tmp_path / "out")
    report = nezha_convert.verify(source, tmp_path / "out")
    assert report.verdict.endswith("label 0 is 'name 1'; the source calls it 'name 0'")


def test_labels_that_a_transformers_source_names_itself_are_the_right_ones(tmp_path):
    source = Path(shutil.copytree(FIXTURES / "transformers-4.40.2-sequence-classification", tmp_path / "source"))
    raw = json.loads((source / "config.json").read_text())
    rows = next(len(one) for one in _tensors(source).values() if one.dim() == 1 and len(one) < 8)
    raw["id2label"] = {str(i): f"class {i}" for i in range(rows)}
    (source / "config.json").write_text(json.dumps(raw))
    nezha_convert.convert(source, tmp_path / "out")
    assert nezha_convert.verify(source, tmp_path / "out").passed


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    if (folder / "model.safetensors").is_file():
        return load_file(folder / "model.safetensors")
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


# The vocabulary.


@pytest.mark.parametrize("mistake", ["two tokens exchanged", "a strip left out", "nothing"])
def test_a_mistake_in_reading_the_vocabulary_fails(mistake, tmp_path, monkeypatch):
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##a\nb \n##b\n我\n们\n", "utf-8")
    read = make.read_vocab

    def mistaken(path: Path, **options: Any) -> Any:
        if mistake == "a strip left out":
            options["strip"] = False
        vocabulary = read(path, **options)
        if mistake == "two tokens exchanged":
            *first, one, other = vocabulary.tokens
            return replace(vocabulary, tokens=(*first, other, one))
        return vocabulary

    monkeypatch.setattr(make, "read_vocab", mistaken)
    source = FIXTURES / "huawei-tf-pretraining"
    nezha_convert.convert(source, tmp_path / "out", vocab=vocab)
    report = nezha_convert.verify(source, tmp_path / "out", vocab=vocab)
    assert report.passed == (mistake == "nothing")
    assert report.passed or "tokenizer: " in report.verdict


# What the second readers must not miss.


@pytest.mark.parametrize(
    "name", ["", "model.ckpt-12345", "model.ckpt-12345.index", "model.ckpt-12345.data-00000-of-00001"]
)
def test_a_bundle_is_read_again_by_each_of_its_names(name, tmp_path):
    source = FIXTURES / "huawei-tf-pretraining"
    nezha_convert.convert(source, tmp_path / "out")
    assert nezha_convert.verify(source / name, tmp_path / "out").passed
    archive = shutil.make_archive(str(tmp_path / "packed"), "gztar", FIXTURES, source.name)
    assert name or nezha_convert.verify(archive, tmp_path / "out").passed


@pytest.mark.parametrize("asked", ["student.", "teacher."])
def test_the_model_that_was_asked_for_is_read_again(asked, tmp_path):
    source = Path(shutil.copytree(FIXTURES / "huawei-torch-pretraining", tmp_path / "source"))
    model = torch.load(source / "pytorch_model.bin", weights_only=True)
    both = {
        f"{prefix}{name}": tensor * scale
        for prefix, scale in (("student.", 1), ("teacher.", 2))
        for name, tensor in model.items()
    }
    torch.save({"epoch": 3, "net": both}, source / "pytorch_model.bin")
    nezha_convert.convert(source, tmp_path / "out", prefix=asked)
    assert nezha_convert.verify(source, tmp_path / "out").passed


def test_a_data_file_that_is_gone_is_named(tmp_path):
    source = Path(shutil.copytree(FIXTURES / "huawei-tf-pretraining", tmp_path / "source"))
    nezha_convert.convert(source, tmp_path / "out")
    (source / "model.ckpt-12345.data-00000-of-00001").unlink()
    with pytest.raises(CheckpointError, match="data-00000-of-00001 is not there"):
        nezha_convert.verify(source, tmp_path / "out")
    with pytest.raises(CheckpointError, match="no such file or folder"):
        nezha_convert.verify(tmp_path / "nowhere", tmp_path / "out")


def test_bfloat16_and_shards_are_read_again(tmp_path):
    source = Path(shutil.copytree(FIXTURES / "transformers-4.40.2-pretraining", tmp_path / "source"))
    tensors = {name: tensor.bfloat16() for name, tensor in _tensors(source).items()}
    (source / "model.safetensors").unlink()
    halves = [dict(list(tensors.items())[::2]), dict(list(tensors.items())[1::2])]
    shards = {f"model-{i}-of-2.safetensors": half for i, half in enumerate(halves, 1)}
    for name, half in shards.items():
        save_file(half, source / name, {"format": "pt"})
    index = {"weight_map": {name: shard for shard, half in shards.items() for name in half}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    nezha_convert.convert(source, tmp_path / "out")
    report = nezha_convert.verify(source, tmp_path / "out")
    assert report.passed and report.dtype == "bfloat16", report.verdict
