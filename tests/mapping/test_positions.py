"""Tables of relative positions that are parameters: left out if they are the computed ones, else refused by name."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import run
from goldens import FIXTURES

import nezha_convert
from nezha_convert.errors import MappingError
from nezha_convert.parity.oracle.formulas import relative_table

TORCH = FIXTURES / "huawei-torch-pretraining"
NAME = "bert.encoder.layer.{}.attention.self.relative_positions_embeddings.embeddings_table_tensor"
"""CDial-GPT-NEZHA's."""


def with_tables(folder: Path, trained: float, layer: int = 1) -> Path:
    """The fixture with CDial's tables; that of `layer` was trained and moved by up to `trained`."""
    source = Path(shutil.copytree(TORCH, folder / "模型 of'mine"))
    state = torch.load(source / "pytorch_model.bin", weights_only=True)
    heads = nezha_convert.inspect(TORCH).model["num_attention_heads"]
    size = state["bert.embeddings.word_embeddings.weight"].shape[1] // heads
    noise = np.random.default_rng(1).uniform(-trained, trained, (129, size))
    for number in range(2):
        table = relative_table(64, size) + noise * (number == layer)
        state[NAME.format(number)] = torch.tensor(table, dtype=torch.float32)
    torch.save(state, source / "pytorch_model.bin")
    return source


def test_a_table_that_was_not_trained_is_left_out(tmp_path: Path) -> None:
    source = with_tables(tmp_path, 0.0)
    report = nezha_convert.convert(source, tmp_path / "out")
    assert sum(dropped.name.endswith("embeddings_table_tensor") for dropped in report.dropped) == 2
    assert nezha_convert.verify(source, tmp_path / "out").passed


@pytest.mark.parametrize("trained", [1e-3, 0.5])
def test_a_trained_table_is_refused_by_what_it_is_and_how_far_it_departs(trained: float, tmp_path: Path) -> None:
    with pytest.raises(MappingError) as error:
        nezha_convert.convert(with_tables(tmp_path, trained), tmp_path / "out")
    message = error.value.message
    assert message.startswith(NAME.format(1)) and "a table of relative positions that its program trains" in message
    assert f"off by up to {trained:.1e}" in message and f"by {trained / 2:.0e}"[:4] in message


@pytest.mark.parametrize(("trained", "layer"), [(1e-3, 0), (0.5, 1)])
def test_its_advice_leads_to_the_other_weights_and_verify_says_what_that_changes(
    trained: float, layer: int, tmp_path: Path
) -> None:
    """The proof computes with each layer's own table: the outputs depart from that layer on."""
    source = with_tables(tmp_path, trained, layer)
    code, said = run(["convert", str(source), str(tmp_path / "out put")])
    assert code == 4
    command = shlex.split(said["hint"].partition(": ")[2].partition(". Until")[0])
    assert command[:3] == ["nezha-convert", "convert", str(source)]
    code, report = run(command[1:])
    assert code == 0 and {one["reason"][:17] for one in report["dropped"] if "table" in one["name"]} == {
        "asked for: --drop "[:17]
    }
    verified = nezha_convert.verify(source, tmp_path / "out put")
    assert not verified.passed and verified.first_departs == f"layer_{layer}"


def test_a_table_that_is_no_parameter_is_not_dropped(tmp_path: Path) -> None:
    """A buffer that is not the computed table is damaged, or another program's."""
    source = Path(shutil.copytree(TORCH, tmp_path / "source"))
    state = torch.load(source / "pytorch_model.bin", weights_only=True)
    name = "bert.encoder.layer.0.attention.self.relative_positions_encoding.positions_encoding"
    state[name] = torch.zeros(10, 10, 16)
    torch.save(state, source / "pytorch_model.bin")
    with pytest.raises(MappingError, match="row 0 is not what the model computes"):
        nezha_convert.convert(source, tmp_path / "out", drop=["*positions_encoding"])
