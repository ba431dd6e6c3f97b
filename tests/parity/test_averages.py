"""A moving average that lies beside the weights: offered, taken when it is asked for, and proved."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from goldens import FIXTURES

import nezha_convert
from nezha_convert.checkpoint import Checkpoint, Decision, Origin
from nezha_convert.errors import UsageError
from nezha_convert.folder.record import ConvertedFolder
from nezha_convert.formats.averages import is_average
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.formats.pickles import model as pickled
from nezha_convert.formats.safetensors import read_safetensors
from nezha_convert.formats.tensor import Tensor
from nezha_convert.formats.tf_bundle.write import write_bundle
from nezha_convert.mapping import survey
from nezha_convert.mapping.averages import averages_of
from nezha_convert.parity.oracle.formulas import relative_table
from nezha_convert.parity.source import read_source

State = dict[str, Any]
TORCH, TENSORFLOW = FIXTURES / "huawei-torch-classifier", FIXTURES / "huawei-tf-pretraining"


class EMA:
    """As competitors write it: the average in `shadow`, and in `backup` what it has taken the place of."""

    def __init__(self, model: State, average: State) -> None:
        self.decay, self.shadow, self.backup, self.weights = 0.999, average, model, SimpleNamespace(model=model)


def inside(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def mean(average: State) -> State:
    """The state dict of torch's AveragedModel."""
    return {"n_averaged": torch.tensor(3), **inside("module.", average)}


DICTIONARIES: dict[str, Callable[[State, State], Any]] = {
    "shadow": lambda model, average: {"model": model, "ema": {"decay": 0.999, "shadow": average, "backup": {}}},
    "shadow while it is applied": lambda model, average: {
        "model": average,
        "ema": {"shadow": average, "backup": model},
    },
    "an object": lambda model, average: {"state_dict": model, "ema": EMA(model, average)},
    "MMEngine": lambda model, average: {
        "state_dict": model,
        "ema_state_dict": {"steps": torch.tensor(9), **inside("module.", average)},
    },
    "timm": lambda model, average: {"state_dict": model, "state_dict_ema": average, "epoch": 3},
    "AveragedModel": lambda model, average: {"net": inside("module.", model), "second": mean(average)},
    "swa": lambda model, average: {"model": {**model, "step": 3}, "swa_state_dict": average},
    "beside tensors at the top": lambda model, average: {**model, "ema": average},
}
"""By who writes it: a file with a dictionary of its own for the average."""

NAMES: dict[str, Callable[[State, State], State]] = {
    "ema-pytorch": lambda model, average: {
        "initted": torch.tensor(True),
        **inside("online_model.", model),
        **inside("ema_model.", average),
    },
    "Lightning": lambda model, average: inside("model.", model) | inside("swa_model.", mean(average)),
    "a second module": lambda model, average: model | inside("ema.module.", average),
}
"""The same where the average's tensors lie among the model's."""


def averaged(state: State) -> State:
    return {name: tensor * 0.9 for name, tensor in state.items()}


def of_torch(make: Callable[[State, State], Any], folder: Path) -> Path:
    source = Path(shutil.copytree(TORCH, folder / "source"))
    model = torch.load(source / "pytorch_model.bin", weights_only=True)
    torch.save(make(model, averaged(model)), source / "pytorch_model.bin")
    return source


def of_tensorflow(folder: Path) -> Path:
    """A bundle whose classes' bias is not averaged, as a variable is that is not trained."""
    source = Path(shutil.copytree(TENSORFLOW, folder / "source"))
    found = open_checkpoint(TENSORFLOW)
    tensors = {name: entry.read() for name, entry in found.entries.items() if name.startswith(("bert/", "cls/"))}
    tensors["crf/transitions"] = np.ones((4, 4), np.float32)
    means = {f"{name}/ExponentialMovingAverage": np.float32(0.9) * array for name, array in tensors.items()}
    del means["cls/seq_relationship/output_bias/ExponentialMovingAverage"]
    every = sorted({**tensors, **means}.items())
    written = [Tensor(name, array.dtype.name, array.shape, iter([array])) for name, array in every]
    write_bundle(source / found.path.name, written)
    return source


SOURCES: dict[str, Callable[[Path], Path]] = {
    **{name: lambda folder, make=make: of_torch(make, folder) for name, make in {**DICTIONARIES, **NAMES}.items()},
    "TensorFlow": of_tensorflow,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_an_average_is_taken_when_it_is_asked_for_and_proved(kind: str, tmp_path: Path) -> None:
    source, output = SOURCES[kind](tmp_path), tmp_path / "out"
    report = nezha_convert.convert(source, output, average=True)
    (decision,) = [one for one in report.decisions if one.field == "average"]
    assert decision.origin is Origin.ASKED
    plain = TENSORFLOW if kind == "TensorFlow" else TORCH
    nezha_convert.convert(plain, tmp_path / "plain")
    weights, means = (read_safetensors((tmp_path / name / "model.safetensors",)) for name in ("plain", "out"))
    untouched = {"cls.seq_relationship.bias"} if kind == "TensorFlow" else set()
    for name, entry in weights.items():
        expected = entry.read() if name in untouched else entry.read() * np.float32(0.9)
        assert means[name].read().tobytes() == expected.tobytes(), name
    verified = nezha_convert.verify(source, output)
    assert verified.passed, verified.verdict


def test_an_average_of_what_is_kept_beside_the_model_lies_there_by_its_weights_name(tmp_path: Path) -> None:
    nezha_convert.convert(of_tensorflow(tmp_path), tmp_path / "out", average=True)
    beside = read_safetensors((tmp_path / "out" / "extra.safetensors",))
    assert np.array_equal(beside["crf/transitions"].read(), np.full((4, 4), 0.9, np.float32))
    exported = nezha_convert.export(tmp_path / "out", tmp_path / "back", "huawei-tf")
    assert "crf/transitions" in {tensor.target for tensor in exported.written}


@pytest.mark.parametrize("kind", DICTIONARIES)
def test_an_average_beside_the_model_is_offered_as_an_answer(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a moving average") as error:
        nezha_convert.convert(SOURCES[kind](tmp_path), tmp_path / "out")
    assert ("--average",) in error.value.ways
    (other, *_) = [way for way in error.value.ways if way != ("--average",)]
    report = nezha_convert.convert(tmp_path / "source", tmp_path / "out", part=other[1])
    (decision,) = [one for one in report.decisions if one.field == "average"]
    assert decision.origin is Origin.DEFAULT and "--average" in decision.reason
    assert nezha_convert.verify(tmp_path / "source", tmp_path / "out").passed


@pytest.mark.parametrize("kind", [*NAMES, "TensorFlow"])
def test_inspect_tells_of_an_average_among_the_tensors(kind: str, tmp_path: Path) -> None:
    inspection = nezha_convert.inspect(SOURCES[kind](tmp_path))
    assert "--average" in inspection.hint
    taken = nezha_convert.inspect(tmp_path / "source", average=True)
    assert not taken.problems and "--average" in taken.hint.splitlines()[0]


def not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter that says that it took the average, and takes the weights."""
    choose, place = pickled._averaged, survey.with_averages

    def dictionary(path: Any, content: Any, every: Any, averages: Any, asked: bool) -> Any:
        chosen = choose(path, content, every, averages, asked)
        weights = next(holder for other, holder in every.items() if other not in averages)
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
        raw = every.get(("ema", "backup")) or weights
        return chosen._replace(content=raw) if path in averages else chosen

    def names(checkpoint: Checkpoint, asked: bool) -> Checkpoint:
        placed = place(checkpoint, asked)
        return replace(placed, entries={**placed.entries, **placed.replaced})

    monkeypatch.setattr(pickled, "_averaged", dictionary)
    monkeypatch.setattr(survey, "with_averages", names)


WORDS = re.compile(r".*word_embeddings(\.weight)?")


@pytest.mark.parametrize("kind", SOURCES)
def test_the_weights_taken_for_the_average_fail(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    not_taken(monkeypatch)
    source, output = SOURCES[kind](tmp_path), tmp_path / "out"
    nezha_convert.convert(source, output, average=True)
    again = read_source(source, ConvertedFolder(output), None, None).checkpoint.entries
    (words,) = (tensor.read() for name, tensor in again.items() if WORDS.fullmatch(name))
    written = read_safetensors((output / "model.safetensors",))["nezha.embeddings.word_embeddings.weight"].read()
    assert np.allclose(words, 0.9 * written, atol=1e-6) and not np.allclose(words, written)
    if kind in ("shadow", "TensorFlow"):  # the others differ in what is read, which costs less to see
        assert nezha_convert.verify(source, output).first_departs == "embeddings"


def test_what_is_not_averaged_is_the_models(tmp_path: Path) -> None:
    """The table is a buffer, which no average of parameters has, and the clip distance stands nowhere else."""
    source = Path(shutil.copytree(TORCH, tmp_path / "source"))
    model = torch.load(source / "pytorch_model.bin", weights_only=True)
    average = averaged(model)
    width = model["bert.embeddings.word_embeddings.weight"].shape[1]
    heads = nezha_convert.inspect(TORCH).model["num_attention_heads"]
    table, at = relative_table(5, width // heads), np.arange(40)
    name = "bert.encoder.layer.{}.attention.self.relative_positions_encoding.positions_encoding"
    expanded = torch.tensor(table[np.clip(at - at[:, None], -5, 5) + 5], dtype=torch.float32)
    model |= {name.format(layer): expanded for layer in range(2)}
    torch.save({"model": model, "ema": {"shadow": average}}, source / "pytorch_model.bin")
    report = nezha_convert.convert(source, tmp_path / "out", average=True)
    assert ("max_relative_position", 5) in [(one.field, one.value) for one in report.decisions]
    assert nezha_convert.verify(source, tmp_path / "out").passed


def test_a_file_that_is_an_average_alone_says_so(tmp_path: Path) -> None:
    source = of_torch(lambda model, average: mean(average), tmp_path)
    report = nezha_convert.convert(source, tmp_path / "out")
    assert Decision(
        "average", "AveragedModel", "the tensors are the mean that torch's AveragedModel made", Origin.TENSORS
    ) in (report.decisions)
    assert nezha_convert.verify(source, tmp_path / "out").passed


def test_an_average_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no moving average") as error:
        nezha_convert.convert(TORCH, tmp_path / "out", average=True)
    assert error.value.hint.startswith("Leave out --average")


def test_which_of_two_averages_is_meant_is_asked(tmp_path: Path) -> None:
    source = of_torch(lambda model, average: {"model": model, "ema": average, "swa": {**average}}, tmp_path)
    with pytest.raises(UsageError, match="2 dictionaries") as error:
        nezha_convert.convert(source, tmp_path / "out", average=True)
    assert error.value.ways == (("--part", "ema"), ("--part", "swa"))
    nezha_convert.convert(source, tmp_path / "out", part="swa")
    assert nezha_convert.verify(source, tmp_path / "out").passed


@pytest.mark.parametrize(
    ("key", "is_one"),
    [
        ("ema", True),
        ("ema.shadow", True),
        ("model_ema", True),
        ("modelEMA", True),
        ("swa_state_dict", True),
        ("averaged_model", True),
        ("ema.backup", False),
        ("schema", False),
        ("embeddings", False),
        ("model", False),
        ("online_model", False),
    ],
)
def test_an_average_is_known_by_its_key(key: str, is_one: bool) -> None:
    assert is_average(key) is is_one


def test_a_layer_called_as_an_average_is_none() -> None:
    entries = open_checkpoint(TORCH).entries
    bias = entries["classifier.bias"]
    assert averages_of({**entries, "ema.classifier.bias": bias, "swa.weight": entries["classifier.weight"]}) == {}
