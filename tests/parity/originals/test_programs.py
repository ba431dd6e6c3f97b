"""Running the original programs: the errors when they cannot run; when they can, they give the goldens.

The live tests need NEZHA_ORIGINAL_CLONE, the path of a clone of Huawei's repository. Those of NEZHA-TensorFlow need the
package's extra `tf` too. Those of transformers 4.40.2 need that release in the cache; the first run installs it.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm_python
from clones import CLONE, need
from poolers import POOLERLESS, without_pooler

from nezha_convert.checkpoint import Checkpoint
from nezha_convert.errors import CPU_INDEX, UsageError, pip_install
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.parity.oracle.model import Oracle
from nezha_convert.parity.originals import programs as originals
from nezha_convert.parity.originals.programs import TRANSFORMERS, run_original, run_original_all, tokenize_original

FIXTURES = Path(__file__).parents[3] / "fixtures"
TOLERANCE = 2e-6  # of a tensor's range: float32 on any machine
INPUTS = {"input_ids": np.array([[5, 6, 7, 8], [9, 10, 0, 0]]), "attention_mask": np.array([[1] * 4, [1, 1, 0, 0]])}
PRETRAINING = {"tensorflow": "huawei-tf-pretraining", "pytorch": "huawei-torch-pretraining"}


def _regenerate() -> Any:
    spec = importlib.util.spec_from_file_location("regenerate", FIXTURES / "regenerate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REGENERATE = _regenerate()


def source(name: str) -> tuple[Checkpoint, dict[str, Any]]:
    checkpoint = open_checkpoint(FIXTURES / name)
    assert checkpoint.config
    return checkpoint, json.loads(checkpoint.config.read_text())


def program_of(fixture: str) -> str:
    kinds = {"huawei-tf": "tensorflow", "huawei-torch": "pytorch", "transformers": "transformers"}
    return next(kind for prefix, kind in kinds.items() if fixture.startswith(prefix))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the files of a clone. Its programs print a word and end."""
    for name in ("NEZHA-TensorFlow/modeling.py", "NEZHA-PyTorch/modeling_nezha.py"):
        (tmp_path / "clone" / name).parent.mkdir(parents=True)
        (tmp_path / "clone" / name).write_text("raise RuntimeError('what the original says')\n")
    return tmp_path / "clone"


# Errors when an original cannot run.


@pytest.mark.parametrize("path", ["", "no/such/folder"])
def test_a_clone_that_is_not_there_is_told_how_to_get(path: str) -> None:
    with pytest.raises(UsageError, match="no such folder") as error:
        run_original(path, *source("huawei-torch-pretraining"), "pretraining", INPUTS)
    assert "git clone" in error.value.hint
    assert "--original CLONE" in error.value.hint
    assert TRANSFORMERS in error.value.message


def test_a_folder_that_is_no_clone_is_told_what_it_lacks(clone: Path) -> None:
    (clone / "NEZHA-PyTorch" / "modeling_nezha.py").unlink()
    with pytest.raises(UsageError, match=r"missing NEZHA-PyTorch/modeling_nezha\.py$"):
        run_original(str(clone), *source("huawei-torch-pretraining"), "pretraining", INPUTS)
    with pytest.raises(UsageError, match="is not a clone"):
        tokenize_original(str(clone / "NEZHA-TensorFlow"), FIXTURES / "tokenization" / "vocab.txt", [], lower_case=True)


@pytest.mark.parametrize("missing", [{"tf_slim"}, {"tensorflow", "tf_keras", "tf_slim"}])
def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    missing: set[str], clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else object())
    with pytest.raises(UsageError) as error:
        run_original(str(clone), *source("huawei-tf-pretraining"), "pretraining", INPUTS)
    assert "not installed: " + ", ".join(originals._TENSORFLOW[name] for name in sorted(missing)) in error.value.message
    assert "pip install 'nezha-convert[tf]'" in error.value.hint
    assert "pip install --no-deps tf-keras" in error.value.hint


@pytest.mark.parametrize("fixture", ["huawei-torch-pretraining", "transformers-4.40.2-encoder"])
def test_missing_torch_is_named(fixture: str, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, config = source(fixture)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    original = TRANSFORMERS if "transformers" in fixture else str(clone)
    with pytest.raises(UsageError, match="not installed: torch") as error:
        run_original(original, checkpoint, config, "encoder", INPUTS)
    assert error.value.hint == pip_install(f"torch {CPU_INDEX}")


def test_a_source_of_transformers_is_sent_there(clone: Path) -> None:
    with pytest.raises(UsageError, match="saved by transformers") as error:
        run_original(str(clone), *source("transformers-4.40.2-encoder"), "encoder", INPUTS)
    assert f"--original {TRANSFORMERS}" in error.value.hint


@pytest.mark.parametrize("fixture", PRETRAINING.values())
def test_a_source_of_huawei_is_sent_to_the_clone(fixture: str) -> None:
    with pytest.raises(UsageError, match="transformers cannot load this source") as error:
        run_original(TRANSFORMERS, *source(fixture), "encoder", INPUTS)
    assert "--original CLONE" in error.value.hint


def test_another_release_of_transformers_is_not_run() -> None:
    with pytest.raises(UsageError, match=r"'transformers==5\.0'.*transformers==4\.40\.2"):
        run_original("transformers==5.0", *source("transformers-4.40.2-encoder"), "encoder", INPUTS)


def test_without_a_package_index_pip_is_quoted_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(originals, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(UsageError, match=r"could not be installed into(?s:.*)pip said") as error:
        run_original(TRANSFORMERS, *source("transformers-4.40.2-encoder"), "encoder", INPUTS)
    assert f"pip install --target {tmp_path / 'cache'}" in error.value.hint
    assert not list((tmp_path / "cache").iterdir())


def test_the_constraints_of_another_environment_do_not_reach_its_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(originals, "cache_folder", lambda: tmp_path / "cache")
    (tmp_path / "none.txt").write_text("transformers==5.0\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "none.txt"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(UsageError, match="No matching distribution found"):  # not: cannot install what conflicts
        run_original(TRANSFORMERS, *source("transformers-4.40.2-encoder"), "encoder", INPUTS)


def test_transformers_runs_with_the_numpy_that_was_installed_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(originals, "_transformers", lambda program: tmp_path)
    (tmp_path / "numpy.py").write_text("raise RuntimeError('the one beside transformers')\n")
    with pytest.raises(UsageError, match="RuntimeError: the one beside transformers"):
        run_original(TRANSFORMERS, *source("transformers-4.40.2-encoder"), "encoder", INPUTS)


def test_a_failing_original_is_quoted(clone: Path) -> None:
    with pytest.raises(UsageError, match="RuntimeError: what the original says"):
        run_original(str(clone), *source("huawei-torch-pretraining"), "pretraining", INPUTS)


def test_what_an_original_cannot_do_is_refused(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(UsageError, match="no multiple-choice head"):
        run_original(str(clone), *source("huawei-tf-classifier"), "multiple-choice", INPUTS)
    with pytest.raises(UsageError, match="no token-classification head"):
        run_original(str(clone), *source("huawei-torch-classifier"), "token-classification", INPUTS)
    with pytest.raises(UsageError, match="513 tokens"):
        run_original(str(clone), *source("huawei-torch-classifier"), "encoder", {"input_ids": np.ones((1, 513), int)})
    checkpoint, config = source("huawei-tf-classifier")
    with pytest.raises(UsageError, match=r"the source has 3 labels; run_classifier_ner\.py is written for 11"):
        run_original(str(clone), checkpoint, config, "token-classification", INPUTS)
    with pytest.raises(UsageError, match="max_relative_position is 127"):
        run_original(str(clone), checkpoint, config | {"max_relative_position": 127}, "encoder", INPUTS)
    with pytest.raises(UsageError, match="'ner' is not known"):
        run_original(str(clone), checkpoint, config, "ner", INPUTS)


def test_regenerate_says_what_it_needs(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(FIXTURES.parent)}
    for arguments in (["--help"], [str(tmp_path), "--check", "huawei-torch-qa"], ["-", "no-such-fixture"]):
        done = warm_python.run([FIXTURES / "regenerate.py", *arguments], env=environment)
        said = done.stdout + done.stderr
        assert "Traceback" not in said
        assert any(word in said for word in ("pip install 'nezha-convert[tf]'", "is not a clone", "no such fixture"))


# The originals, live.


@pytest.mark.parametrize("fixture", REGENERATE.HEAD_OF)
def test_the_original_gives_its_golden_again(fixture: str, record_property: Any) -> None:
    need(program_of(fixture))
    error, place = REGENERATE.difference(fixture, REGENERATE.recomputed(fixture, CLONE))
    record_property("largest_error", error)
    assert error < TOLERANCE, place


def test_the_original_tokenizer_gives_its_golden_again() -> None:
    need("tensorflow")
    assert REGENERATE.recomputed_tokens(CLONE) == json.loads((FIXTURES / "tokenization/expected.json").read_text())


@pytest.mark.parametrize("head", ["encoder", "masked-lm", "next-sentence-prediction", "pretraining"])
@pytest.mark.parametrize("program", PRETRAINING)
def test_the_oracle_gives_what_the_original_gives_tensor_by_tensor(program: str, head: str) -> None:
    need(program)
    checkpoint, config = source(PRETRAINING[program])
    longer = {
        "input_ids": np.arange(1, 181).reshape(2, 90) % 64,
        "token_type_ids": np.tile([0] * 40 + [1] * 50, (2, 1)),
    }
    cases = [INPUTS, longer]
    expected = Oracle(checkpoint.entries, config, head).forward_all(cases)
    for ours, theirs in zip(expected, run_original_all(CLONE, checkpoint, config, head, cases), strict=True):
        assert set(ours) == set(theirs)
        for name, array in theirs.items():
            assert array.shape == ours[name].shape
            assert np.abs(array - ours[name]).max() < TOLERANCE * np.ptp(ours[name]), name


def test_the_oracle_gives_what_transformers_gives_past_its_positions_and_in_a_fully_masked_row() -> None:
    need("transformers")
    checkpoint, config = source("transformers-4.40.2-encoder")
    past = np.arange(1, 601).reshape(1, 600) % 64
    assert past.shape[1] > config["max_position_embeddings"]
    cases = [{"input_ids": past}, INPUTS | {"attention_mask": np.zeros((2, 4), int)}]
    expected = Oracle(checkpoint.entries, config, "encoder").forward_all(cases)
    for ours, theirs in zip(
        expected, run_original_all(TRANSFORMERS, checkpoint, config, "encoder", cases), strict=True
    ):
        assert set(ours) == set(theirs)
        for name, array in theirs.items():
            assert np.abs(array - ours[name]).max() < TOLERANCE * np.ptp(ours[name]), name


def test_nothing_is_written_beside_the_checkpoint_or_into_the_clone(tmp_path: Path) -> None:
    need("pytorch")
    mine = tmp_path / "source with a space"
    shutil.copytree(FIXTURES / "huawei-torch-qa", mine)

    def listing() -> list[tuple[str, int]]:
        folders = (mine, Path(CLONE) / "NEZHA-PyTorch", Path(CLONE) / "NEZHA-TensorFlow")
        return [(str(path), path.stat().st_mtime_ns) for folder in folders for path in sorted(folder.rglob("*"))]

    before = listing()
    _, config = source("huawei-torch-qa")
    assert "start_logits" in run_original(CLONE, open_checkpoint(mine), config, "question-answering", INPUTS)
    assert listing() == before


@pytest.mark.parametrize("program", PRETRAINING)
def test_a_weight_that_the_original_does_not_find_ends_it(program: str) -> None:
    need(program)
    checkpoint, config = source(PRETRAINING[program])
    with pytest.raises(UsageError, match=r"finds no values for 2 of its weights: (cls/squad/output|qa_outputs)"):
        run_original(CLONE, checkpoint, config, "question-answering", INPUTS)


@pytest.mark.parametrize("name", [*PRETRAINING.values(), "transformers-4.40.2-encoder"])
def test_a_pooler_that_nobody_has_is_left_random_and_not_compared(name: str, tmp_path: Path) -> None:
    if "transformers" not in name:
        need(program_of(name))
    golden = next(golden for golden in POOLERLESS if golden.name == name)
    checkpoint = open_checkpoint(without_pooler(golden, tmp_path / "source"))
    _, config = source(name)
    original = TRANSFORMERS if "transformers" in name else CLONE
    computed = run_original(original, checkpoint, config, "encoder", INPUTS)
    expected = Oracle(checkpoint.entries, config, "encoder").forward(**INPUTS)
    assert computed.keys() == expected.keys() and "pooler" not in computed
    for tensor, values in expected.items():
        assert np.abs(computed[tensor] - values).max() < TOLERANCE * np.ptp(values), tensor
    with pytest.raises(UsageError, match="finds no values for"):
        run_original(original, checkpoint, config, "next-sentence-prediction", INPUTS)


def test_old_torch_files_with_gamma_beta_and_module_run_too(tmp_path: Path) -> None:
    need("pytorch")
    torch = pytest.importorskip("torch")
    checkpoint, config = source("huawei-torch-qa")
    state = torch.load(checkpoint.path, weights_only=True)
    swaps = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for new, old in swaps.items():
        state = {name.replace(new, old): tensor for name, tensor in state.items()}
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "old.bin")
    renamed = dataclasses.replace(open_checkpoint(tmp_path / "old.bin"), config=checkpoint.config)
    expected = run_original(CLONE, checkpoint, config, "question-answering", INPUTS)
    actual = run_original(CLONE, renamed, config, "question-answering", INPUTS)
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)
