"""PyTorch files that are refused with a command that makes one that is read: it is run here as it stands."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from nezha_convert.errors import CheckpointError
from nezha_convert.formats.open import open_checkpoint

EMBEDDINGS = torch.arange(32.0).reshape(4, 8)
LINEAR = torch.nn.Linear(8, 8)
ROUNDED = {"rtol": 0, "atol": float(LINEAR.weight.detach().abs().max()) / 127}


def quantized() -> dict[str, Any]:
    """Two linear layers, one without bias, quantized dynamically, beside a table that is not."""
    model = torch.nn.Sequential()
    model.add_module("query", LINEAR)
    model.add_module("key", torch.nn.Linear(8, 8, bias=False))
    model.load_state_dict({"key.weight": LINEAR.weight}, strict=False)
    torch.backends.quantized.engine = torch.backends.quantized.supported_engines[-1]
    state = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}).state_dict()
    return {"words.weight": EMBEDDINGS, **state}


def sparse_module() -> dict[str, Any]:
    """A sparse linear layer, quantized dynamically: its packed parameters have the blocks' sizes, too."""
    from torch.ao.nn.sparse.quantized.dynamic import Linear

    layer = torch.nn.Linear(8, 8)
    layer.load_state_dict(LINEAR.state_dict())
    layer.sparse_params = {"sparse_block_shape": (1, 4)}
    layer.qconfig = torch.ao.quantization.default_dynamic_qconfig
    torch.backends.quantized.engine = torch.backends.quantized.supported_engines[-1]
    state = Linear.from_float(layer).state_dict()
    return {"words.weight": EMBEDDINGS, **{f"query.{name}": value for name, value in state.items()}}


def sparse_tensor() -> dict[str, Any]:
    return {"words.weight": EMBEDDINGS, "query.weight": LINEAR.weight.detach().to_sparse(), "query.bias": LINEAR.bias}


CASES = {
    "quantized": (quantized, {"words.weight", "query.weight", "query.bias", "key.weight"}),
    "quantized, under a key": (lambda: {"the {model}": quantized(), "epoch": 3}, None),
    "a sparse module": (sparse_module, None),
    "a sparse tensor": (sparse_tensor, None),
}


def run_as_pasted(said: CheckpointError) -> Path:
    """Run the command of the hint; returns the file that it names."""
    command, _, rest = said.hint.removeprefix("Run: ").partition(", and name its file: ")
    words = shlex.split(command)
    assert words[:2] == ["python", "-c"] and len(words) == 3
    exec(words[2], {})
    return Path(shlex.split(rest.replace(". ", " "))[0]) if "'" in rest[:1] else Path(rest.split(". ")[0])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")
def test_the_command_of_the_hint_makes_plain_weights(case: str, tmp_path: Path) -> None:
    make, names = CASES[case]
    folder = tmp_path / "模型 of'mine"
    folder.mkdir()
    torch.save(make(), folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="is not a plain dense tensor") as caught:
        open_checkpoint(folder)
    found = open_checkpoint(run_as_pasted(caught.value)).entries
    assert names in (None, set(found))
    assert torch.equal(torch.from_numpy(found["words.weight"].read()), EMBEDDINGS)
    torch.testing.assert_close(torch.from_numpy(found["query.weight"].read()), LINEAR.weight.detach(), **ROUNDED)
    assert torch.equal(torch.from_numpy(found["query.bias"].read()), LINEAR.bias.detach())
    assert ("stays rounded" in caught.value.hint) == (case != "a sparse tensor")


@pytest.mark.filterwarnings("ignore")
def test_the_command_of_the_hint_saves_a_program_s_weights(tmp_path: Path) -> None:
    file = tmp_path / "模型 of'mine.pt"
    torch.jit.save(torch.jit.script(LINEAR), str(file))
    with pytest.raises(CheckpointError, match="a program of TorchScript") as caught:
        open_checkpoint(file)
    found = open_checkpoint(run_as_pasted(caught.value)).entries
    assert torch.equal(torch.from_numpy(found["weight"].read()), LINEAR.weight.detach())
