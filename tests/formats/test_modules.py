"""sentence-transformers' modules beside an encoder go where the encoder goes: their settings and tensors, no code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from goldens import FIXTURES
from safetensors.torch import load_file, save_file

import nezha_convert
from nezha_convert.errors import CheckpointError, MappingError

ENCODER = FIXTURES / "transformers-4.40.2-encoder"
TYPES = ("Transformer", "Pooling", "Dense", "Normalize")
POOLING = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
DENSE = {"in_features": 32, "out_features": 8, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}


def listing(encoder: str = "") -> list[dict[str, Any]]:
    places = [encoder, "1_Pooling", "2_Dense", "3_Normalize"]
    return [
        {"idx": number, "name": str(number), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for number, (place, kind) in enumerate(zip(places, TYPES, strict=True))
    ]


def saved(folder: Path, encoder: str = "", weights: str = "pytorch_model.bin") -> Path:
    """What sentence-transformers saves, up to 1.0 with the encoder in a folder of its own."""
    shutil.copytree(ENCODER, folder / encoder)
    (folder / "modules.json").write_text(json.dumps(listing(encoder)))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {}}))
    (folder / encoder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 128}))
    for place, config in (("1_Pooling", POOLING), ("2_Dense", DENSE)):
        (folder / place).mkdir()
        (folder / place / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    state = torch.nn.Linear(32, 8).state_dict()
    state = {f"linear.{name}": tensor for name, tensor in state.items()}
    write = torch.save if weights.endswith(".bin") else save_file
    write(state, str(folder / "2_Dense" / weights))
    return folder


KEPT = {
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
}


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("encoder", ["", "0_Transformer"])
def test_the_modules_are_kept_and_proved(encoder: str, weights: str, tmp_path: Path) -> None:
    source, output = saved(tmp_path / "模型 of'mine", encoder, weights), tmp_path / "out"
    report = nezha_convert.convert(source, output)
    assert {file.name for file in report.output_files} >= KEPT
    assert json.loads((output / "modules.json").read_text()) == listing()
    assert json.loads((output / "1_Pooling" / "config.json").read_text()) == POOLING
    dense = torch.nn.Linear(32, 8)
    torch.manual_seed(0)
    dense.reset_parameters()
    found = load_file(output / "2_Dense" / "model.safetensors")
    assert found.keys() == {"linear.weight", "linear.bias"} and not list(output.rglob("*.bin"))
    original = source / "2_Dense" / weights
    expected = load_file(original) if weights.endswith("s") else torch.load(original, weights_only=True)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    verified = nezha_convert.verify(source, output)
    assert verified.passed, verified.verdict
    pushed = nezha_convert.push(output, "owner/name", license="mit", dry_run=True)
    assert {file.name for file in pushed.files} >= KEPT and not pushed.left_out
    assert "SentenceTransformer" in (output / "README.md").read_text()
    again = nezha_convert.convert(output, tmp_path / "again")
    assert {file.name for file in again.output_files} >= KEPT
    done = nezha_convert.export(output, tmp_path / "old", "transformers-4")
    assert {file.name for file in done.output_files} >= KEPT
    other = nezha_convert.export(output, tmp_path / "huawei", "huawei-torch")
    assert ("modules.json", "left out") in [(one.field, one.value) for one in other.decisions]


def test_an_archive_of_such_a_folder_is_read(tmp_path: Path) -> None:
    saved(tmp_path / "packed" / "model", "0_Transformer")
    archive = shutil.make_archive(str(tmp_path / "model"), "zip", tmp_path / "packed")
    report = nezha_convert.convert(archive, tmp_path / "out")
    assert {file.name for file in report.output_files} >= KEPT
    assert nezha_convert.verify(archive, tmp_path / "out").passed


def test_a_repair_keeps_them(tmp_path: Path) -> None:
    source = saved(tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "architectures": ["NeZhaModel"]}))
    repaired = nezha_convert.repair(source, tmp_path / "out")
    assert repaired.report and {file.name for file in repaired.report.output_files} >= KEPT


@pytest.mark.parametrize("name", ["1_Pooling/config.json", "2_Dense/model.safetensors", "modules.json"])
def test_a_module_that_is_not_the_source_s_fails(name: str, tmp_path: Path) -> None:
    source, output = saved(tmp_path / "source"), tmp_path / "out"
    nezha_convert.convert(source, output)
    record = json.loads((output / "conversion.json").read_text())
    if name.endswith("safetensors"):
        state = load_file(output / name)
        state["linear.bias"][3] += 1e-6
        save_file(state, output / name)
    elif name == "modules.json":
        (output / name).write_text(json.dumps(listing()[:-1]))
    else:
        (output / name).write_text(json.dumps({**POOLING, "pooling_mode_cls_token": True}))
    for file in record["output_files"]:  # as a conversion with that mistake would have written it
        if file["name"] == name:
            file["sha256"] = nezha_convert_sha256(output / name)
    (output / "conversion.json").write_text(json.dumps(record))
    verified = nezha_convert.verify(source, output)
    assert not verified.passed and any(failure.startswith(name[:7]) for failure in verified.failures)


def nezha_convert_sha256(path: Path) -> str:
    from hashlib import sha256

    return sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("place", ["..", "../other", "/etc", "a/../../b", "C:\\x"])
def test_a_module_outside_of_its_folder_is_refused(place: str, tmp_path: Path) -> None:
    source = saved(tmp_path / "source")
    (source / "modules.json").write_text(json.dumps([*listing()[:1], {**listing()[1], "path": place}]))
    with pytest.raises(CheckpointError, match="lies outside of its folder"):
        nezha_convert.convert(source, tmp_path / "out")


def test_a_link_out_of_a_module_is_refused(tmp_path: Path) -> None:
    source = saved(tmp_path / "source")
    (tmp_path / "secret.json").write_text("{}")
    (source / "1_Pooling" / "other.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(CheckpointError, match="link out of its folder"):
        nezha_convert.convert(source, tmp_path / "out")


def test_code_of_its_own_is_not_copied_and_said_so(tmp_path: Path) -> None:
    source = saved(tmp_path / "source")
    (source / "1_Pooling" / "pooling.py").write_text("raise SystemExit")
    report = nezha_convert.convert(source, tmp_path / "out")
    assert not list((tmp_path / "out" / "1_Pooling").glob("*.py"))
    assert any("1_Pooling/pooling.py" in decision.reason for decision in report.decisions)
    (source / "modules.json").write_text(json.dumps([*listing()[:1], {**listing()[1], "type": "pooling.Pooling"}]))
    report = nezha_convert.convert(source, tmp_path / "other")
    assert not KEPT & {file.name for file in report.output_files}
    assert any("pooling.Pooling, code of its own" in decision.reason for decision in report.decisions)
    assert nezha_convert.verify(source, tmp_path / "other").passed


@pytest.mark.parametrize("content", ["", "[]", "{}", '[{"path": 3, "type": "x"}]', '[{"type": "x"}]', "[1]"])
def test_a_list_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    source = saved(tmp_path / "source")
    (source / "modules.json").write_text(content)
    with pytest.raises(CheckpointError, match="no list of modules"):
        nezha_convert.convert(source, tmp_path / "out")


def test_a_link_in_the_place_of_a_module_is_not_pushed(tmp_path: Path) -> None:
    nezha_convert.convert(saved(tmp_path / "source"), tmp_path / "out")
    shutil.move(tmp_path / "out" / "1_Pooling", tmp_path / "elsewhere")
    (tmp_path / "out" / "1_Pooling").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MappingError, match="link"):
        nezha_convert.push(tmp_path / "out", "owner/name", license="mit", dry_run=True, force=True)


def test_the_arithmetic_of_the_modules_is_left_as_it_was(tmp_path: Path) -> None:
    """By the fields of the files alone: mean pooling, a dense layer with tanh, and a norm of 1."""
    source, output = saved(tmp_path / "source"), tmp_path / "out"
    nezha_convert.convert(source, output)
    with np.load(ENCODER / "expected.npz") as arrays:
        states = torch.from_numpy(arrays[next(name for name in arrays if name.endswith("last_hidden_state"))])
    before, after = torch.load(source / "2_Dense/pytorch_model.bin"), load_file(output / "2_Dense/model.safetensors")
    vectors = [
        torch.nn.functional.normalize(
            torch.tanh(states.mean(1) @ state["linear.weight"].T + state["linear.bias"]), dim=-1
        )
        for state in (before, after)
    ]
    assert torch.equal(*vectors)
