"""Every golden, converted by the command line, gives the original program's outputs; each mutation is noticed."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import warm_python
from goldens import GOLDENS, Golden, errors
from safetensors.torch import load_file, save_file
from stranger import WITHOUT_PACKAGES

import nezha
from nezha import attention_nezha
from nezha_convert.cli.app import main
from nezha_convert.families.heads import HEADS

every_golden = pytest.mark.parametrize("golden", GOLDENS, ids=str)
TF = next(golden for golden in GOLDENS if golden.name == "huawei-tf-pretraining")


def converted(golden: Golden, output: Path, *options: str) -> Path:
    with pytest.raises(SystemExit) as exit:
        main(["convert", str(golden.folder), str(output), *golden.options, *options])
    assert exit.value.code == 0
    return output


def loaded(golden: Golden, folder: Path) -> torch.nn.Module:
    auto = getattr(transformers, HEADS[golden.head].auto_class)
    model, info = auto.from_pretrained(folder, output_loading_info=True, attn_implementation="eager")
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert type(model) is getattr(nezha, HEADS[golden.head].architecture)
    return model.eval()


def worst(golden: Golden, model: torch.nn.Module) -> float:
    return max(max(errors(golden, model, case, expected).values()) for case, expected in golden.cases())


@every_golden
def test_a_converted_golden_gives_the_outputs_of_the_original(golden, tmp_path):
    model = loaded(golden, converted(golden, tmp_path / "out"))
    for case, expected in golden.cases():
        for name, error in errors(golden, model, case, expected).items():
            assert error <= golden.tolerance, f"{case}/{name}: {error:.2e} of its range"


@pytest.mark.parametrize("name", ["huawei-torch-mlm-rel127", "huawei-torch-qa"])
def test_a_pooler_that_the_head_leaves_out_goes_with_the_encoder(name, tmp_path):
    golden = next(golden for golden in GOLDENS if golden.name == name)
    encoder = dataclasses.replace(golden, head="encoder", asked=True)
    model = loaded(encoder, converted(encoder, tmp_path / "out"))
    for case, expected in golden.cases():
        assert errors(encoder, model, case, backbone_only(expected))["pooled_output"] <= golden.tolerance


@every_golden
def test_converting_a_converted_folder_changes_nothing(golden, tmp_path):
    first = converted(golden, tmp_path / "first")
    with pytest.raises(SystemExit) as exit:
        main(["convert", str(first), str(tmp_path / "second")])
    assert exit.value.code == 0
    for name in ("model.safetensors", "config.json"):
        assert (first / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_an_encoder_of_any_checkpoint_gives_the_hidden_states_of_the_original(tmp_path):
    encoder = dataclasses.replace(TF, head="encoder", asked=True)
    model = loaded(encoder, converted(encoder, tmp_path / "out"))
    for case, expected in TF.cases():
        assert max(errors(encoder, model, case, backbone_only(expected)).values()) <= TF.tolerance


def backbone_only(expected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    states = re.compile(
        r"input_(ids|mask)|segment_ids|embedding_output|sequence_output|pooled_output|layer_\d|hidden_.*"
    )
    return {name: tensor for name, tensor in expected.items() if states.fullmatch(name)}


def test_a_converted_folder_loads_where_no_package_is_installed(tmp_path):
    folder = converted(TF, tmp_path / "out")
    script = f"""{WITHOUT_PACKAGES}
import numpy, torch
from transformers import AutoModelForPreTraining
model, info = AutoModelForPreTraining.from_pretrained({str(folder)!r}, trust_remote_code=True, output_loading_info=True)
assert not info["missing_keys"] and not info["unexpected_keys"], info
expected = numpy.load({str(TF.folder / "expected.npz")!r})
names = ("input_ids", "input_mask", "segment_ids")
ids, mask, types = (torch.from_numpy(expected["clipped/" + name]).long() for name in names)
with torch.no_grad():
    states = model.eval()(ids, mask, types, output_hidden_states=True).hidden_states
numpy.save({str(tmp_path / "states.npy")!r}, states[-1].numpy())
"""
    environment = {
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "PATH": "",
        "HOME": str(tmp_path),
    }
    done = warm_python.run(["-c", script], cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    wanted = dict(TF.cases())["clipped"]["sequence_output"].numpy()
    error = np.abs(np.load(tmp_path / "states.npy") - wanted).max() / (wanted.max() - wanted.min())
    assert error <= TF.tolerance


# Mutations: the comparison above must notice each mistake.


@pytest.fixture
def folder(tmp_path) -> Path:
    return converted(TF, tmp_path / "out")


def rewrite(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )


def assert_noticed(folder: Path) -> None:
    assert worst(TF, loaded(TF, folder)) > 10 * TF.tolerance


def test_an_untransposed_square_kernel_is_noticed(folder):
    name = "nezha.encoder.layer.1.attention.output.dense.weight"
    rewrite(folder, lambda tensors: tensors.update({name: tensors[name].T}))
    assert_noticed(folder)


def test_a_swapped_query_and_key_are_noticed(folder):
    query, key = (f"nezha.encoder.layer.0.attention.self.{name}.weight" for name in ("query", "key"))
    rewrite(folder, lambda tensors: tensors.update({query: tensors[key], key: tensors[query]}))
    assert_noticed(folder)


def test_a_zeroed_padding_row_is_noticed(folder):
    rewrite(folder, lambda tensors: tensors["nezha.embeddings.word_embeddings.weight"][0].zero_())
    assert_noticed(folder)


@pytest.mark.parametrize(
    ("field", "value"), [("hidden_act", "gelu"), ("max_relative_position", 63), ("max_relative_position", 65)]
)
def test_a_wrong_field_of_the_config_is_noticed(folder, field, value):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {field: value}))
    assert_noticed(folder)


def test_a_table_of_the_signed_distance_is_noticed(folder, monkeypatch):
    from nezha import modeling_nezha

    def signed(max_relative_position, head_size, *, device=None, dtype=None):
        angle = torch.arange(-max_relative_position, max_relative_position + 1, dtype=torch.float64)[:, None]
        angle = angle / 10000 ** (torch.arange(0, head_size - 1, 2, dtype=torch.float64) / head_size)
        return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).to(dtype)

    assert modeling_nezha.relative_position_table is attention_nezha.relative_position_table
    monkeypatch.setattr(modeling_nezha, "relative_position_table", signed)
    assert_noticed(folder)


def test_no_mutation_is_no_error(folder):
    assert worst(TF, loaded(TF, folder)) <= TF.tolerance
