"""The published sizes, by name, for a checkpoint whose config is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import run
from goldens import FIXTURES
from safetensors.numpy import save_file

import nezha_convert
from nezha_convert.checkpoint import Origin, TensorEntry
from nezha_convert.errors import CheckpointError, MappingError
from nezha_convert.families import HUAWEI_TF, HUAWEI_TORCH
from nezha_convert.families.published import PUBLISHED
from nezha_convert.mapping import published as by_name
from nezha_convert.mapping.published import fitting
from nezha_convert.parity.again.config_file import published as again


def shaped(name: str, shape: tuple[int, ...]) -> TensorEntry:
    def unread(limit: int) -> Iterator[np.ndarray]:
        raise AssertionError(f"{name} is read")

    return TensorEntry(name, "float32", shape, 4, unread)


def torch_model(words: int, width: int, layers: int, inner: int | None = None) -> dict[str, TensorEntry]:
    shapes: dict[str, tuple[int, ...]] = {"bert.embeddings.word_embeddings.weight": (words, width)}
    for layer in range(layers):
        shapes[f"bert.encoder.layer.{layer}.intermediate.dense.bias"] = (inner or 4 * width,)
    return {name: shaped(name, shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("sizes", "names"),
    [
        ((21128, 768, 12), ["huawei/nezha-cn-base"]),
        ((21128, 1024, 24), ["huawei/nezha-cn-large"]),
        ((28996, 768, 12), ["huawei/nezha-en-base"]),
        ((100503, 768, 12), ["huawei/nezha-base-vocab-100503"]),
        ((21128, 768, 6), ["huawei/nezha-cn-base"]),  # cut
        ((21130, 1024, 24), ["huawei/nezha-cn-large"]),  # with two tokens more
        ((9000, 768, 12), ["huawei/nezha-cn-base", "huawei/nezha-en-base", "huawei/nezha-base-vocab-100503"]),
        ((21128, 768, 24), []),
        ((21128, 768, 12, 1024), []),
        ((21128, 512, 8), []),
    ],
)
def test_the_published_models_that_tensors_may_be_of(sizes: Any, names: list[str]) -> None:
    assert fitting(HUAWEI_TORCH, torch_model(*sizes)) == tuple(names)


def test_shapes_are_compared_in_the_targets_layout() -> None:
    table = "bert/embeddings/word_embeddings"
    assert fitting(HUAWEI_TF, {table: shaped(table, (21128, 768))}) == ("huawei/nezha-cn-base",)


def test_the_proofs_own_table_says_the_same() -> None:
    for name, fields in PUBLISHED.items():
        other = again(name)
        assert other and {key: fields[key] for key in other} == other
    assert again("huawei/nezha") is None


def cut_model(folder: Path) -> Path:
    """The first layer of a base model whose config is lost, with a vocabulary of its own."""
    rng, width, inner, state = np.random.default_rng(3), 768, 3072, {}
    shapes = {"embeddings.word_embeddings.weight": (30, width), "embeddings.token_type_embeddings.weight": (2, width)}
    layer = "encoder.layer.0."
    for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
        shapes |= {f"{layer}{name}.weight": (width, width), f"{layer}{name}.bias": (width,)}
    shapes |= {f"{layer}intermediate.dense.weight": (inner, width), f"{layer}intermediate.dense.bias": (inner,)}
    shapes |= {f"{layer}output.dense.weight": (width, inner), f"{layer}output.dense.bias": (width,)}
    for name in ("embeddings.", f"{layer}attention.output.", f"{layer}output."):
        shapes |= {f"{name}LayerNorm.weight": (width,), f"{name}LayerNorm.bias": (width,)}
    for name, shape in shapes.items():
        state[f"bert.{name}"] = (rng.standard_normal(shape) * 0.1).astype(np.float32)
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cut_model(tmp_path_factory.mktemp("published") / "模型 of'mine")


def test_a_missing_config_is_answered_by_a_whole_command(lost: Path, tmp_path: Path) -> None:
    words = ["convert", str(lost), str(tmp_path / "out"), "--dry-run"]
    code, said = run(words)
    assert code == 3 and "Its shapes are those of huawei/nezha-cn-base" in said["message"]
    assert "--config huawei/nezha-cn-base" in said["next"][0]
    code, report = run([*words, "--config", "huawei/nezha-cn-base"])
    assert code == 0
    decided = {one["field"]: (one["value"], one["origin"]) for one in report["decisions"]}
    assert decided["config"] == ("huawei/nezha-cn-base", "asked")
    assert decided["vocab_size"] == (30, "tensors") and decided["num_hidden_layers"] == (1, "tensors")


def test_the_inspection_offers_the_same(lost: Path) -> None:
    inspection = nezha_convert.inspect(lost)
    assert "--config huawei/nezha-cn-base" in inspection.hint.splitlines()[0]
    named = nezha_convert.inspect(lost, config="huawei/nezha-cn-base")
    assert not named.problems and named.model["num_attention_heads"] == 12
    assert named.hint.endswith("--config huawei/nezha-cn-base")


def test_a_model_of_a_published_size_is_proved_and_a_mistake_in_the_table_fails(
    lost: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nezha_convert.convert(lost, tmp_path / "out", config="huawei/nezha-cn-base")
    assert nezha_convert.verify(lost, tmp_path / "out").passed
    wrong = {**PUBLISHED, "huawei/nezha-cn-base": {**PUBLISHED["huawei/nezha-cn-base"], "num_attention_heads": 16}}
    monkeypatch.setattr(by_name, "PUBLISHED", wrong)
    nezha_convert.convert(lost, tmp_path / "wrong", config="huawei/nezha-cn-base")
    assert nezha_convert.verify(lost, tmp_path / "wrong").first_departs == "layer_0"


def test_tensors_of_another_width_contradict_a_published_size() -> None:
    with pytest.raises(MappingError, match="do not map") as error:
        nezha_convert.convert(
            FIXTURES / "huawei-torch-pretraining", "unused", config="huawei/nezha-cn-base", dry_run=True
        )
    assert any(problem.startswith("hidden_size: the config says 768") for problem in error.value.problems)


def test_a_file_of_that_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "huawei").mkdir()
    config = json.loads((FIXTURES / "huawei-torch-pretraining" / "bert_config.json").read_text())
    (tmp_path / "huawei" / "nezha-cn-base").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    source = FIXTURES / "huawei-torch-pretraining"
    report = nezha_convert.convert(source, "unused", config="huawei/nezha-cn-base", dry_run=True)
    assert report.decisions and all(decision.field != "config" for decision in report.decisions)


def test_an_unknown_name_lists_the_names(lost: Path, tmp_path: Path) -> None:
    code, said = run(["convert", str(lost), str(tmp_path / "out"), "--config", "huawei/nezha"])
    assert code == 2 and "huawei/nezha-cn-base" in said["message"]
    with pytest.raises(CheckpointError):
        nezha_convert.convert(lost, tmp_path / "out", config="huawei/nezha")


def test_origin_of_the_choice_is_the_user() -> None:
    found = by_name.published(Path("huawei/nezha-large-wwm"))
    assert found and found[1].origin is Origin.ASKED and found[0]["num_attention_heads"] == 16
