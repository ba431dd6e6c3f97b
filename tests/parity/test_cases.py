"""Checkpoints as people left them: what the program that wrote each one computed, and what the conversion computes.

fixtures/README.md says where the recorded outputs are from.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from goldens import FIXTURES, GOLDENS, causal_bert4torch
from safetensors.torch import load_file

import nezha
from nezha_convert import convert, verify
from nezha_convert.errors import MappingError, UsageError
from nezha_convert.families import HUAWEI_TF
from nezha_convert.families.rules import Op
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.formats.tensor import Tensor
from nezha_convert.formats.tf_bundle.write import write_bundle
from nezha_convert.mapping.recognise import family_of

CASES = FIXTURES / "cases"
TOLERANCE = 5e-6
"""Of the logits' range: float32 on both sides."""


def recorded(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Ids, and the logits that the original computed of them."""
    with np.load(folder / "expected.npz") as file:
        return file["ids"], file["logits"]


def logits(folder: Path, ids: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return nezha.NezhaForMaskedLM.from_pretrained(folder).eval()(torch.from_numpy(ids)).logits.numpy()


def distance(folder: Path, ids: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(logits(folder, ids) - expected).max() / np.ptp(expected))


def edited(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_decoder_computes_what_transformers_4_40_2_computed(tmp_path: Path) -> None:
    source = FIXTURES / "transformers-4.40.2-causal-lm"
    with np.load(source / "expected.npz") as recorded:
        ids, expected = recorded["greedy/input_ids"], recorded["greedy/logits"]
    convert(source, tmp_path / "out")
    assert distance(tmp_path / "out", ids, expected) < TOLERANCE
    assert verify(source, tmp_path / "out").passed
    edited(tmp_path / "out", is_decoder=False)
    assert distance(tmp_path / "out", ids, expected) > 0.1, "the mutation shows"
    with pytest.raises(MappingError) as error:
        verify(source, tmp_path / "out")
    assert error.value.problems[0].startswith("is_decoder: false")


def test_bert4torch_s_language_model_is_a_decoder_and_a_conversion_that_forgot_it_fails(tmp_path: Path) -> None:
    source = causal_bert4torch(tmp_path / "source")
    report = convert(source, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["is_decoder"] is True
    assert "application" in next(d.reason for d in report.decisions if d.field == "is_decoder")
    assert verify(source, tmp_path / "out").passed
    convert(source, tmp_path / "out", head="masked-lm", force=True)
    edited(tmp_path / "out", is_decoder=False)
    parity = verify(source, tmp_path / "out")
    assert parity.first_departs == "layer_0"


def test_a_decoder_that_was_trained_untied_computes_what_bert_seq2seq_computed(tmp_path: Path) -> None:
    source = CASES / "untied-decoder"
    ids, expected = recorded(source)
    with pytest.raises(UsageError, match=r"'bert_model_generate\.bin' speaks of text that is generated"):
        convert(source, tmp_path / "out")
    convert(source, tmp_path / "out", head="masked-lm")
    assert distance(tmp_path / "out", ids, expected) < TOLERANCE
    assert verify(source, tmp_path / "out").passed


def expanded(length: int, size: int, clip: int) -> torch.Tensor:
    """A table as lonePatient's code builds it, in float32 with the exponential."""
    positions = torch.arange(2 * clip + 1).float()[:, None]
    angles = positions * torch.exp(torch.arange(0, size, 2).float() * (-math.log(10000.0) / size))
    table = torch.zeros(2 * clip + 1, size)
    table[:, 0::2], table[:, 1::2] = angles.sin(), angles.cos()
    places = torch.arange(length)
    return table[(places[None, :] - places[:, None]).clamp(-clip, clip) + clip]


@pytest.fixture
def of_lonepatient(tmp_path: Path) -> Path:
    """A model of lonePatient's code with a table of 300 positions clipped at 127, and a config that says 64."""
    source = Path(shutil.copytree(FIXTURES / "lonepatient-masked-lm", tmp_path / "source"))
    shutil.copy(CASES / "table-clipped-at-127" / "config.json", source)
    state = torch.load(source / "pytorch_model.bin", weights_only=True)
    tables = {name: expanded(300, 16, 127) for name in state if name.endswith("positions_encoding")}
    assert len(tables) == 2
    torch.save(state | tables, source / "pytorch_model.bin")
    return source


def test_a_stored_table_of_another_clip_distance_than_the_config_s_is_what_runs(
    of_lonepatient: Path, tmp_path: Path
) -> None:
    folder = CASES / "table-clipped-at-127"
    convert(of_lonepatient, tmp_path / "out")
    ids, expected = recorded(folder)
    assert distance(tmp_path / "out", ids, expected) < TOLERANCE
    assert verify(of_lonepatient, tmp_path / "out").passed
    edited(tmp_path / "out", max_relative_position=64)
    assert distance(tmp_path / "out", ids, expected) > 0.05, "the mutation shows"
    assert not verify(of_lonepatient, tmp_path / "out").passed


@pytest.mark.parametrize("layer, row, column", [(0, 0, 0), (0, 250, 7), (1, 299, 15)])
def test_a_stored_table_that_is_not_nezha_s_is_refused(of_lonepatient: Path, tmp_path, layer, row, column) -> None:
    state = torch.load(of_lonepatient / "pytorch_model.bin", weights_only=True)
    name = f"bert.encoder.layer.{layer}.attention.self.relative_positions_encoding.positions_encoding"
    state[name] = state[name].clone()
    state[name][row, 3, column] += 1e-3
    torch.save(state, of_lonepatient / "pytorch_model.bin")
    with pytest.raises(MappingError, match=f"layer.{layer}.*row {row} is not what the model computes"):
        convert(of_lonepatient, tmp_path / "out")


def test_layers_with_tables_of_two_clip_distances_are_refused(of_lonepatient: Path, tmp_path: Path) -> None:
    state = torch.load(of_lonepatient / "pytorch_model.bin", weights_only=True)
    state["bert.encoder.layer.1.attention.self.relative_positions_encoding.positions_encoding"] = expanded(300, 16, 64)
    torch.save(state, of_lonepatient / "pytorch_model.bin")
    with pytest.raises(MappingError, match="clipped at 64; another layer's is at 127"):
        convert(of_lonepatient, tmp_path / "out")


def test_a_clip_distance_in_a_tensorflow_json_is_not_read_as_huawei_s_program_does_not(tmp_path: Path) -> None:
    source = Path(shutil.copytree(FIXTURES / "huawei-tf-pretraining", tmp_path / "source"))
    path = source / "bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_relative_position": 3}))
    convert(source, tmp_path / "out")
    assert verify(source, tmp_path / "out").passed
    edited(tmp_path / "out", max_relative_position=3)
    assert not verify(source, tmp_path / "out").passed


def as_bundle(folder: Path) -> Path:
    """The bert4keras fixture as its `save_weights_as_checkpoint` writes it: Huawei's names in a TensorFlow bundle."""
    source = open_checkpoint(FIXTURES / "bert4keras-masked-lm")
    family, names = family_of(source.entries), HUAWEI_TF.inverse()
    tensors = []
    for name, entry in source.entries.items():
        if match := family.match(name):
            array = entry.read().T if match.rule.op is Op.TRANSPOSE else entry.read()
            there = names.match(match.rule.target)
            array = np.ascontiguousarray(array.T if there.rule.op is Op.TRANSPOSE else array)
            tensors.append(Tensor(there.rule.target, "float32", array.shape, [array]))
    folder.mkdir()
    write_bundle(folder / "bert_model.ckpt", tensors)
    shutil.copy(source.config, folder / "bert_config.json")
    return folder


def test_a_bundle_that_bert4keras_wrote_computes_what_bert4keras_computed(tmp_path: Path) -> None:
    (golden,) = [golden for golden in GOLDENS if golden.name == "bert4keras-masked-lm"]
    source = as_bundle(tmp_path / "source")
    report = convert(source, tmp_path / "out")
    assert report.family == "bert4keras"
    assert report.assumptions == convert(golden.folder, tmp_path / "h5").assumptions
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["hidden_act"], config["layer_norm_eps"]) == ("gelu", 1e-7)
    assert (
        load_file(tmp_path / "out" / "model.safetensors").keys() == load_file(tmp_path / "h5/model.safetensors").keys()
    )
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        assert torch.equal(tensor, load_file(tmp_path / "h5" / "model.safetensors")[name])
    assert config == json.loads((tmp_path / "h5" / "config.json").read_text()), "which test_goldens compares"
    assert verify(source, tmp_path / "out").passed


def test_the_config_s_own_labels_go_before_a_file_of_labels_beside_it(tmp_path: Path) -> None:
    folder = FIXTURES / "transformers-4.40.2-sequence-classification"
    source = Path(shutil.copytree(folder, tmp_path / "source"))
    rows = len(json.loads((source / "config.json").read_text()).get("id2label", {"0": "", "1": ""}))
    names = [f"class {i}" for i in range(rows)]
    edited(source, id2label={str(i): name for i, name in enumerate(names)})
    (source / "labels.txt").write_text("".join(f"other {i}\n" for i in range(rows)))
    report = convert(source, tmp_path / "out")
    assert list(json.loads((tmp_path / "out" / "config.json").read_text())["id2label"].values()) == names
    assert "labels.txt beside it has others" in next(d.reason for d in report.decisions if d.field == "id2label")
    convert(source, tmp_path / "asked", labels=source / "labels.txt")
    assert json.loads((tmp_path / "asked" / "config.json").read_text())["id2label"]["0"] == "other 0"
    edited(source, id2label={str(i): f"LABEL_{i}" for i in range(rows)})
    convert(source, tmp_path / "made up")
    assert json.loads((tmp_path / "made up" / "config.json").read_text())["id2label"]["0"] == "other 0"


@pytest.mark.parametrize(
    "fixture, head, names",
    [
        ("huawei-torch-classifier", None, {"classifier-input", "labels"}),
        ("huawei-tf-ner", "token-classification", {"classifier-input", "labels"}),
        ("transformers-4.40.2-sequence-classification", None, set()),
        ("transformers-4.40.2-masked-lm", None, set()),
        ("huawei-torch-mlm-rel127", None, {"both-sides"}),
        ("jaber-token", None, {"jaber-inputs", "labels"}),
        ("jaber-multilabel", None, {"jaber-labels", "labels"}),
        ("huawei-tf-pretraining", None, set()),
    ],
)
def test_what_no_file_says_and_no_comparison_shows_is_told_as_an_assumption(fixture, head, names, tmp_path) -> None:
    report = convert(FIXTURES / fixture, tmp_path / "out", head=head, dry_run=True)
    assert {assumption.name for assumption in report.assumptions} == names
    assert all(len(assumption.text) > 20 for assumption in report.assumptions)


def test_a_tensorflow_checkpoint_without_a_trace_of_its_program_is_assumed_to_be_huawei_s(tmp_path: Path) -> None:
    tensors = []
    for name, entry in open_checkpoint(FIXTURES / "huawei-tf-pretraining").entries.items():
        if HUAWEI_TF.match(name):
            tensors.append(Tensor(name, entry.dtype, entry.shape, [entry.read()]))
    (tmp_path / "source").mkdir()
    write_bundle(tmp_path / "source" / "model.ckpt", tensors)
    shutil.copy(FIXTURES / "huawei-tf-pretraining" / "bert_config.json", tmp_path / "source")
    report = convert(tmp_path / "source", tmp_path / "out", dry_run=True)
    assert [assumption.name for assumption in report.assumptions] == ["program"]


def test_a_field_that_no_table_knows_is_named_with_its_value_as_an_assumption(tmp_path: Path) -> None:
    source = Path(shutil.copytree(FIXTURES / "huawei-torch-pretraining", tmp_path / "source"))
    path = source / "bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"attention_style": "sparse"}))
    report = convert(source, tmp_path / "out", dry_run=True)
    (assumption,) = report.assumptions
    assert assumption.name == "unknown-fields"
    assert 'attention_style = "sparse"' in assumption.text
    assert report.unknown_fields == {"attention_style": "sparse"}
    assert "attention_style" not in report.ignored_fields


@pytest.mark.parametrize("field", ["tie_word_embeddings", "tie_emb_prj_weight"])
def test_bert4torch_ties_by_either_name_what_its_file_holds_twice(field: str, tmp_path: Path) -> None:
    source = Path(shutil.copytree(FIXTURES / "bert4torch-pretraining", tmp_path / "source"))
    path = source / "bert4torch_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: True}))
    convert(source, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is True
    assert verify(source, tmp_path / "out").passed
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: False}))
    convert(source, tmp_path / "untied")
    assert json.loads((tmp_path / "untied" / "config.json").read_text())["tie_word_embeddings"] is False
