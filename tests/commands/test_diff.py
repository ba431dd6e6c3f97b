"""diff: the same model under two programs' names is the same, and what is not is said, by how much."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from goldens import FIXTURES, GOLDENS
from safetensors.torch import load_file, save_file

from nezha_convert import MappingError, convert, diff, export
from nezha_convert.cli.app import main
from nezha_convert.commands.diff import DIFFERENT, EQUAL, ONLY_A, ONLY_B, SHAPE, UP_TO_DTYPE, _side_by_side

TF, TORCH = FIXTURES / "huawei-tf-pretraining", FIXTURES / "huawei-torch-pretraining"
QUERY = "nezha.encoder.layer.1.attention.self.query.weight"


def verdicts(found) -> dict[str, str]:
    return {tensor.name: tensor.verdict for tensor in found.tensors}


def changed(folder: Path, tmp_path: Path, change) -> Path:
    """A copy of a converted folder with changed tensors."""
    copy = tmp_path / "changed"
    shutil.copytree(folder, copy)
    state = load_file(copy / "model.safetensors")
    change(state)
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()}, copy / "model.safetensors", {"format": "pt"}
    )
    return copy


@pytest.fixture
def folder(tmp_path) -> Path:
    convert(TF, tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("golden", GOLDENS, ids=str)
def test_every_source_is_the_same_as_its_conversion_but_for_what_the_head_left_out(golden, tmp_path):
    report = convert(golden.folder, tmp_path / "out", head=golden.head)
    found = diff(golden.folder, tmp_path / "out")
    left = {tensor.a for tensor in found.tensors if tensor.verdict != EQUAL}
    assert left <= {dropped.name for dropped in report.dropped}
    assert not any(found.unknown)


def test_one_changed_element_is_named_and_measured(folder, tmp_path):
    def change(state):
        state[QUERY][3, 5] += 0.25

    found = diff(TF, changed(folder, tmp_path, change))
    (tensor,) = [tensor for tensor in found.tensors if tensor.verdict != EQUAL]
    assert (tensor.name, tensor.verdict, tensor.count) == (QUERY, DIFFERENT, 1)
    assert tensor.largest == pytest.approx(0.25, rel=1e-5)
    assert 0 < tensor.relative < 1
    assert not found.same


def test_an_untransposed_square_kernel_is_different(folder, tmp_path):
    found = diff(TF, changed(folder, tmp_path, lambda state: state.update({QUERY: state[QUERY].T})))
    assert verdicts(found)[QUERY] == DIFFERENT


def test_half_precision_is_equal_up_to_dtype_and_says_by_how_much(tmp_path):
    convert(TF, tmp_path / "half", dtype="bfloat16")
    found = diff(TF, tmp_path / "half")
    assert found.same
    assert set(verdicts(found).values()) <= {EQUAL, UP_TO_DTYPE}
    assert max(tensor.largest for tensor in found.tensors) > 0


def test_half_precision_of_other_numbers_is_different(tmp_path):
    convert(TF, tmp_path / "half", dtype="float16")
    wrong = changed(tmp_path / "half", tmp_path, lambda state: state[QUERY].mul_(1.01))
    assert verdicts(diff(TF, wrong))[QUERY] == DIFFERENT


def test_other_shapes_and_missing_tensors_are_said(folder, tmp_path):
    def change(state):
        state["cls.predictions.bias"] = torch.zeros(3)
        state["classifier.bias"] = torch.zeros(2)
        del state[QUERY]

    found = verdicts(diff(folder, changed(folder, tmp_path, change)))
    assert found["cls.predictions.bias"] == SHAPE
    assert found["classifier.bias"] == ONLY_B
    assert found[QUERY] == ONLY_A


def test_not_a_number_equals_itself_and_nothing_else(folder, tmp_path):
    def change(state):
        state[QUERY][0, 0] = float("nan")

    with_nan = changed(folder, tmp_path, change)
    assert diff(with_nan, with_nan).same
    tensor = next(tensor for tensor in diff(folder, with_nan).tensors if tensor.name == QUERY)
    assert tensor.verdict == DIFFERENT
    assert np.isnan(tensor.largest)


def test_names_that_no_table_knows_make_a_difference(folder, tmp_path):
    found = diff(folder, changed(folder, tmp_path, lambda state: state.update({"adapter.weight": torch.ones(2)})))
    assert found.unknown == ((), ("adapter.weight",))
    assert not found.same


def test_what_is_no_nezha_is_refused(folder, tmp_path):
    torch.save({"gpt.weight": torch.ones(2)}, tmp_path / "gpt.bin")
    with pytest.raises(MappingError, match="not a NEZHA"):
        diff(folder, tmp_path / "gpt.bin")


def test_streams_of_other_blocks_are_cut_at_the_same_places():
    numbers = np.arange(10)
    pairs = list(_side_by_side(iter(np.split(numbers, [3, 4])), iter(np.split(numbers, [1, 6, 9]))))
    assert [x.tolist() for x, _ in pairs] == [y.tolist() for _, y in pairs]
    assert np.concatenate([x for x, _ in pairs]).tolist() == numbers.tolist()


def test_the_command_counts_one_name_as_one(tmp_path, capsys):
    """An export to Huawei's TensorFlow has one tensor that is no weight: the step counter."""
    convert(TF, tmp_path / "out")
    export(tmp_path / "out", tmp_path / "again", to="huawei-tf")
    with pytest.raises(SystemExit):
        main(["diff", str(TF), str(tmp_path / "again")])
    said = " ".join(capsys.readouterr().out.split())
    assert "; 94 names are no weights b " in said and "; 1 name is no weight tensors 45 equal" in said


def test_the_command_exits_with_0_for_the_same_and_1_for_others(folder, capsys):
    with pytest.raises(SystemExit) as same:
        main(["diff", str(TF), str(folder)])
    assert not same.value.code
    assert "the same" in capsys.readouterr().out
    with pytest.raises(SystemExit) as other:
        main(["diff", str(TF), str(TORCH), "--json"])
    assert other.value.code == 1
    content = json.loads(capsys.readouterr().out)
    assert not content["same"]
    assert {tensor["verdict"] for tensor in content["tensors"]} >= {DIFFERENT}
