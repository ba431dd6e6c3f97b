"""Encoders without a pooler, of every program: they convert, load with nothing missing, verify, export and repair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from goldens import GOLDENS, Golden
from hub_fixtures import NAME, PUSH
from poolers import OTHERS, POOLERLESS, computed, without_pooler
from safetensors.torch import load_file, save_file

import nezha
from nezha_convert import convert, diff, export, export_graph, repair, verify
from nezha_convert.errors import MappingError
from nezha_convert.families import PROGRAMS
from nezha_convert.formats.open import open_checkpoint

every_program = pytest.mark.parametrize("golden", POOLERLESS, ids=str)
ENCODER = next(golden for golden in POOLERLESS if golden.name == "transformers-4.40.2-encoder")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for golden in POOLERLESS:
        without_pooler(golden, folder / golden.name)
    return folder


@pytest.mark.parametrize("format", OTHERS)
def test_another_format_of_the_same_names_gives_the_same_model(format: str, sources: Path, tmp_path: Path) -> None:
    name, *other = OTHERS[format]
    golden = next(golden for golden in POOLERLESS if golden.name == name)
    source = without_pooler(golden, tmp_path / "source", tuple(other))
    assert open_checkpoint(source).format != open_checkpoint(sources / name).format or "before" in format
    for folder, output in ((sources / name, "usual"), (source, "other")):
        convert(folder, tmp_path / output, head="encoder")
    usual, found = (tmp_path / output / "model.safetensors" for output in ("usual", "other"))
    assert found.read_bytes() == usual.read_bytes()
    configs = [json.loads((tmp_path / output / "config.json").read_text()) for output in ("usual", "other")]
    assert configs[0] == configs[1] and configs[0]["add_pooling_layer"] is False


@every_program
def test_it_loads_with_nothing_missing_and_computes_what_the_oracle_does(
    golden: Golden, sources: Path, tmp_path: Path
) -> None:
    report = convert(sources / golden.name, tmp_path / "out")
    assert (report.head, report.architecture) == ("encoder", "NezhaModel")
    assert {d.field: d.value for d in report.decisions}["add_pooling_layer"] is False
    model, info = transformers.AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(model) is nezha.NezhaModel and model.pooler is None
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    for case, arrays in computed(golden, sources / golden.name).items():
        inputs = {name: torch.from_numpy(array) for name, array in arrays.items() if name != "last_hidden_state"}
        with torch.inference_mode():
            outputs = model.eval()(**inputs)
        assert outputs.pooler_output is None
        expected = arrays["last_hidden_state"]
        error = np.abs(outputs.last_hidden_state.numpy() - expected).max() / np.ptp(expected)
        assert error <= golden.tolerance, case


@every_program
def test_it_passes_verify(golden: Golden, sources: Path, tmp_path: Path) -> None:
    convert(sources / golden.name, tmp_path / "out")
    report = verify(sources / golden.name, tmp_path / "out")
    assert report.passed
    assert not any(tensor.name == "pooler" for comparison in report.comparisons for tensor in comparison.tensors)


@pytest.mark.parametrize("to", PROGRAMS)
@every_program
def test_every_program_that_can_compute_it_takes_it_and_gives_it_back(
    golden: Golden, to: str, sources: Path, tmp_path: Path
) -> None:
    convert(sources / golden.name, tmp_path / "out")
    try:
        done = export(tmp_path / "out", tmp_path / "back", to)
    except MappingError as error:
        assert to != "transformers-4"
        assert all(problem.startswith(("activation", "max_rel", "layer_norm")) for problem in error.problems)
        return
    assert {d.field: d.value for d in done.decisions}["pooler"] is None
    assert not any("pool" in name.lower() for name in open_checkpoint(tmp_path / "back").entries)
    assert ("add_pooling_layer=False" in done.loaded_by) == (to == "transformers-4")
    convert(tmp_path / "back", tmp_path / "again")
    assert diff(tmp_path / "out", tmp_path / "back").same
    for name in ("model.safetensors", "modeling_nezha.py"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert json.loads((tmp_path / "again/config.json").read_text())["add_pooling_layer"] is False


def test_a_folder_says_for_every_head_whether_automodel_finds_a_pooler(tmp_path: Path) -> None:
    for golden in GOLDENS:
        if golden.family == "transformers":
            convert(golden.folder, tmp_path / golden.head)
            model, info = transformers.AutoModel.from_pretrained(tmp_path / golden.head, output_loading_info=True)
            assert not info["missing_keys"], golden.head
            assert (model.pooler is None) == (
                golden.head in ("masked-lm", "causal-lm", "token-classification", "question-answering")
            )


def test_a_pooler_lost_on_the_way_fails(tmp_path: Path) -> None:
    convert(ENCODER.folder, tmp_path / "out")
    weights = load_file(tmp_path / "out/model.safetensors")
    save_file({n: t for n, t in weights.items() if "pooler" not in n}, tmp_path / "out/model.safetensors")
    config = json.loads((tmp_path / "out/config.json").read_text())
    (tmp_path / "out/config.json").write_text(json.dumps(config | {"add_pooling_layer": False}))
    with pytest.raises(MappingError, match="pooler of case 'short': the converted model gives nothing, the oracle"):
        verify(ENCODER.folder, tmp_path / "out")


def test_a_config_that_forgot_it_fails(sources: Path, tmp_path: Path) -> None:
    convert(sources / ENCODER.name, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    del config["add_pooling_layer"]
    (tmp_path / "out/config.json").write_text(json.dumps(config))
    with pytest.raises(MappingError) as error:
        verify(sources / ENCODER.name, tmp_path / "out")
    assert error.value.problems == ("no weight: pooler.dense.bias", "no weight: pooler.dense.weight")


def test_a_pooler_without_its_bias_is_no_missing_pooler(sources: Path, tmp_path: Path) -> None:
    convert(ENCODER.folder, tmp_path / "out")
    weights = load_file(tmp_path / "out/model.safetensors")
    save_file({n: t for n, t in weights.items() if n != "pooler.dense.bias"}, tmp_path / "out/model.safetensors")
    with pytest.raises(MappingError) as error:
        convert(tmp_path / "out", tmp_path / "again")
    assert error.value.problems == ("missing: nezha.pooler.dense.bias",)


def test_a_copy_of_an_old_release_is_repaired_so_that_automodel_makes_no_random_pooler(
    sources: Path, tmp_path: Path
) -> None:
    done = repair(sources / ENCODER.name, tmp_path / "repaired")
    assert "missing pooler" in {fault.kind for fault in done.faults}
    assert transformers.AutoModel.from_pretrained(tmp_path / "repaired").pooler is None
    assert repair(tmp_path / "repaired").faults == ()


def test_it_is_pushed_with_what_says_so(run: Any, server: Any, sources: Path, tmp_path: Path) -> None:
    convert(sources / ENCODER.name, tmp_path / "out")
    verify(sources / ENCODER.name, tmp_path / "out")
    assert run("push", tmp_path / "out", NAME, *PUSH).code == 0
    assert json.loads(server.repositories[NAME].history()[0].files["config.json"])["add_pooling_layer"] is False


def test_a_graph_of_it_has_one_output(sources: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    convert(sources / ENCODER.name, tmp_path / "out")
    assert [m.output for m in export_graph(tmp_path / "out", tmp_path / "graph").measured] == ["last_hidden_state"]


def test_fine_tuning_makes_a_pooler_and_the_saved_model_is_loaded_with_it(sources: Path, tmp_path: Path) -> None:
    convert(sources / ENCODER.name, tmp_path / "out")
    model = nezha.NezhaForSequenceClassification.from_pretrained(tmp_path / "out")
    model.save_pretrained(tmp_path / "tuned")
    encoder, info = nezha.NezhaModel.from_pretrained(tmp_path / "tuned", output_loading_info=True)
    assert not info["missing_keys"]
    assert torch.equal(encoder.pooler.dense.weight, model.nezha.pooler.dense.weight)


def test_an_argument_goes_before_the_config() -> None:
    sizes = {"hidden_size": 12, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 9}
    config = nezha.NezhaConfig(**sizes, add_pooling_layer=False)
    assert nezha.NezhaModel(config).pooler is None
    assert nezha.NezhaModel(nezha.NezhaConfig(**sizes), add_pooling_layer=False).pooler is None
    assert nezha.NezhaModel(config, add_pooling_layer=True).pooler is not None
    assert config.add_pooling_layer, "what is saved is loaded again"
