"""What bert4torch, lonePatient's port and JABER do that Huawei's PyTorch does not, in converted folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from goldens import FIXTURES
from safetensors.numpy import load_file

from nezha_convert import convert
from nezha_convert.errors import MappingError
from nezha_convert.families import BERT4TORCH, HUAWEI_TORCH

WORDS, DECODER = "nezha.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"


def copy_of(name: str, to: Path, **config: object) -> tuple[Path, dict[str, torch.Tensor]]:
    """A copy of a fixture with fields of its JSON changed, and its tensors."""
    folder = Path(shutil.copytree(FIXTURES / name, to / name))
    (json_file,) = folder.glob("*config.json")
    json_file.write_text(json.dumps(json.loads(json_file.read_text()) | config))
    return folder, torch.load(next(folder.glob("pytorch_model.*")), weights_only=True)


def save(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    torch.save(tensors, next(folder.glob("pytorch_model.*")))


def test_bert4torch_s_own_decoder_is_written_beside_the_word_embeddings(tmp_path: Path) -> None:
    folder, tensors = copy_of("bert4torch-pretraining", tmp_path)
    report = convert(folder, tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert np.array_equal(written[WORDS], tensors["embeddings.word_embeddings.weight"])
    assert np.array_equal(written[DECODER], tensors["mlmDecoder.weight"])
    assert not np.array_equal(written[WORDS], written[DECODER])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    assert "a tensor for each" in next(d.reason for d in report.decisions if d.field == "tie_word_embeddings")


def test_bert4torch_s_decoder_that_equals_the_word_embeddings_is_tied(tmp_path: Path) -> None:
    folder, tensors = copy_of("bert4torch-pretraining", tmp_path)
    save(folder, tensors | {"mlmDecoder.weight": tensors["embeddings.word_embeddings.weight"]})
    convert(folder, tmp_path / "out")
    assert DECODER not in load_file(tmp_path / "out" / "model.safetensors")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is True


def test_bert4torch_s_tables_of_positions_are_dropped_and_its_scores_spoken_of(tmp_path: Path) -> None:
    report = convert(FIXTURES / "bert4torch-pretraining", tmp_path / "out")
    assert [dropped.name.split(".")[-1] for dropped in report.dropped] == ["position_embeddings"] * 2
    assert "0.5.8 to 0.6.2" in next(d.reason for d in report.decisions if d.field == "attention scores")


def test_the_table_agrees_with_bert4torch_s_own_mapping() -> None:
    names = json.loads((FIXTURES / "bert4torch-pretraining" / "variable_mapping.json").read_text())
    ours = {name: BERT4TORCH.match(name) for name in names}
    theirs = {name: HUAWEI_TORCH.match(huawei) for name, huawei in names.items()}
    targets = [{name: found.rule.target for name, found in side.items() if found} for side in (ours, theirs)]
    assert targets[0] == targets[1]
    assert len(targets[0]) == 47


def test_what_bert4torch_saves_for_transformers_gives_the_same_weights(tmp_path: Path) -> None:
    folder, tensors = copy_of("bert4torch-pretraining", tmp_path)
    convert(folder, tmp_path / "own")
    names = json.loads((FIXTURES / "bert4torch-pretraining" / "variable_mapping.json").read_text())
    save(folder, {names.get(name, name): tensor for name, tensor in tensors.items()})
    assert convert(folder, tmp_path / "saved").family == "bert4torch"
    own, saved = (load_file(tmp_path / name / "model.safetensors") for name in ("own", "saved"))
    assert own.keys() == saved.keys()
    assert all(np.array_equal(own[name], saved[name]) for name in own)


def test_bert4torch_without_its_tables_of_positions_may_be_roformer_and_is_refused(tmp_path: Path) -> None:
    folder, tensors = copy_of("bert4torch-0.2.7-masked-lm", tmp_path)
    save(folder, {name: tensor for name, tensor in tensors.items() if "position" not in name})
    with pytest.raises(MappingError, match="RoFormer has the same names"):
        convert(folder, tmp_path / "out")


def test_lonepatient_s_buffers_and_tied_decoder_are_left_out_for_their_reasons(tmp_path: Path) -> None:
    report = convert(FIXTURES / "lonepatient-masked-lm", tmp_path / "out")
    reasons = {dropped.name: dropped.reason for dropped in report.dropped}
    tables = [name for name in reasons if name.endswith("relative_positions_encoding.positions_encoding")]
    assert len(tables) == 2
    assert all("positions" in reasons[name] for name in tables)
    assert "tied" in reasons["cls.predictions.decoder.weight"]
    assert "tied" in reasons["cls.predictions.decoder.bias"]
    assert len(reasons) == 4
    assert [kept.source for kept in report.kept] == ["bert.pooler.dense.bias", "bert.pooler.dense.weight"]


def test_jaber_s_several_labels_are_a_problem_type(tmp_path: Path) -> None:
    report = convert(FIXTURES / "jaber-multilabel", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert config["architectures"] == ["NezhaForSequenceClassification"]
    assert len(config["id2label"]) == 5
    assert "sigmoid" in next(d.reason for d in report.decisions if d.field == "problem_type")


def test_jaber_s_crossed_inputs_are_told(tmp_path: Path) -> None:
    report = convert(FIXTURES / "jaber-token", tmp_path / "out")
    assert report.head == "token-classification"
    assert "token types of 1" in next(d.reason for d in report.decisions if d.field == "inputs")
    assert "problem_type" not in json.loads((tmp_path / "out" / "config.json").read_text())
