"""What is kept beside a model: it is all there, verify compares it, and the card's lines load it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from goldens import FIXTURES
from safetensors.torch import load_file, save_file

from nezha import NezhaConfig, NezhaModel
from nezha_convert import convert, diff, export, push, repair, verify
from nezha_convert.errors import MappingError
from nezha_convert.families import FAMILIES, PROGRAMS
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.formats.safetensors import read_safetensors, write_safetensors
from nezha_convert.formats.tensor import Tensor
from nezha_convert.weights.write import EXTRA

CONFIG = {
    **dict.fromkeys(("hidden_size", "vocab_size"), 32),
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "type_vocab_size": 2,
    "max_position_embeddings": 16,
    "max_relative_position": 64,
    "use_relative_position": True,
}
IDS = torch.arange(14).view(2, 7)


class Tagger(torch.nn.Module):
    """A BiLSTM and the scores of a CRF over NEZHA, as competitors write it."""

    def __init__(self, last: str = "classifier") -> None:
        super().__init__()
        self.bert = NezhaModel(NezhaConfig(**CONFIG))
        self.lstm = torch.nn.LSTM(32, 8, bidirectional=True, batch_first=True)
        self.last = last
        setattr(self, last, torch.nn.Linear(16, 5))
        self.transitions = torch.nn.Parameter(torch.randn(5, 5))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.bert(ids)[0])
        scores = getattr(self, self.last)(states)
        return scores[:, 1:] + scores[:, :-1] @ self.transitions


class Plain(torch.nn.Module):
    """A classifier of tokens whose classes a CRF reads."""

    def __init__(self) -> None:
        super().__init__()
        self.bert = NezhaModel(NezhaConfig(**CONFIG))
        self.classifier = torch.nn.Linear(32, 5)
        self.crf = torch.nn.Module()
        self.crf.transitions = torch.nn.Parameter(torch.randn(5, 5))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        scores = self.classifier(self.bert(ids)[0])
        return scores[:, 1:] + scores[:, :-1] @ self.crf.transitions


class Renamed(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.fc = self.classifier
        del self.classifier

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        scores = self.fc(self.bert(ids)[0])
        return scores[:, 1:] + scores[:, :-1] @ self.crf.transitions


def saved(module: torch.nn.Module, folder: Path, wrapper: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({wrapper + name: tensor for name, tensor in module.state_dict().items()}, folder / "pytorch_model.bin")
    (folder / "bert_config.json").write_text(json.dumps(CONFIG))
    return folder


def lines_of(card: str, folder: Path) -> str:
    code = re.search(r"## Beside the model.*?```python\n(.*?)```", card, re.DOTALL)
    assert code
    return code[1].replace('"path/to/this/folder"', repr(str(folder)))


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    torch.manual_seed(0)
    work = tmp_path_factory.mktemp("tagger")
    source = saved(Tagger("fc"), work / "source")
    convert(source, work / "out")
    return source, work / "out"


@pytest.fixture
def converted(tagger: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    return tagger[0], Path(shutil.copytree(tagger[1], tmp_path / "out"))


@pytest.mark.parametrize(
    "module, wrapper, asked, head",
    [
        (Tagger, "", {}, "encoder"),
        (Tagger, "module.", {}, "encoder"),
        (Tagger, "model.", {}, "encoder"),
        (Plain, "", {}, "token-classification"),
        (Plain, "module.", {}, "token-classification"),
        (Renamed, "", {"rename": {"fc": "classifier"}}, "token-classification"),
        (Renamed, "", {"head": "encoder"}, "encoder"),
    ],
)
def test_the_cards_ten_lines_give_the_outputs_of_the_original_module(
    module: Any, wrapper: str, asked: dict[str, Any], head: str, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    original = module().eval()
    report = convert(saved(original, tmp_path / "源 码", wrapper), tmp_path / "out", **asked)
    assert report.head == head
    code = lines_of((tmp_path / "out" / "README.md").read_text(), tmp_path / "out")
    assert len([line for line in code.splitlines() if line]) <= 12

    class YourModule(module):  # type: ignore[misc]
        """Their own class; in a wrapped file, the attribute that the wrapper adds is a module of theirs."""

    made = YourModule
    if wrapper == "model.":

        class Wrapped(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = module()

            def forward(self, ids: torch.Tensor) -> torch.Tensor:
                return self.model(ids)

        made = Wrapped
    space: dict[str, Any] = {"YourModule": made}
    exec(code, space)
    with torch.no_grad():
        np.testing.assert_allclose(space["module"].eval()(IDS).numpy(), original(IDS).numpy(), atol=1e-5)


def _exchanged(extra: dict[str, torch.Tensor]) -> None:
    """The two directions of the LSTM."""
    for name in [name for name in extra if name.endswith("_l0")]:
        extra[name], extra[f"{name}_reverse"] = extra[f"{name}_reverse"], extra[name]


def _transposed(extra: dict[str, torch.Tensor]) -> None:
    extra["transitions"] = extra["transitions"].T.contiguous()


def _negated(extra: dict[str, torch.Tensor]) -> None:
    extra["fc.bias"] = -extra["fc.bias"]


@pytest.mark.parametrize("mistake", [_exchanged, _transposed, _negated])
def test_a_mistake_in_what_is_kept_changes_what_the_ten_lines_compute(mistake: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    original, output = Tagger("fc").eval(), tmp_path / "out"
    convert(saved(original, tmp_path / "source"), output, head="encoder")
    extra = load_file(output / EXTRA)
    mistake(extra)
    save_file(extra, output / EXTRA)
    space: dict[str, Any] = {"YourModule": lambda: Tagger("fc")}
    exec(lines_of((output / "README.md").read_text(), output), space)
    with torch.no_grad():
        difference = (space["module"].eval()(IDS) - original(IDS)).abs().max()
    assert difference > 1e-2


def test_what_is_kept_is_bit_for_bit_the_sources(tagger: tuple[Path, Path]) -> None:
    source, output = tagger
    originals, kept = torch.load(source / "pytorch_model.bin"), load_file(output / EXTRA)
    assert sorted(kept) == sorted(name for name in originals if not name.startswith("bert."))
    assert all(torch.equal(kept[name], originals[name]) for name in kept)
    record = json.loads((output / "conversion.json").read_text())
    assert [tensor["target"] for tensor in record["kept"]] == sorted(kept)
    assert EXTRA in {file["name"] for file in record["output_files"]}
    assert not record["dropped"]


def test_verify_passes_and_records_the_file(converted: tuple[Path, Path]) -> None:
    source, output = converted
    assert not verify(source, output).failures
    record = json.loads((output / "conversion.json").read_text())
    assert EXTRA in {file["name"] for file in record["parity"]["verified"]}


def changed(tensors: dict[str, torch.Tensor]) -> None:
    tensors["transitions"][1, 1] += 1e-6


def missing(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["transitions"]


def additional(tensors: dict[str, torch.Tensor]) -> None:
    tensors["more"] = torch.zeros(3)


def of_another_shape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["transitions"] = tensors["transitions"].reshape(1, 25)


def of_another_type(tensors: dict[str, torch.Tensor]) -> None:
    tensors["transitions"] = tensors["transitions"].double()


@pytest.mark.parametrize(
    "mutation, said",
    [
        (changed, "transitions is not the source's tensor"),
        (missing, f"transitions is not in {EXTRA}"),
        (additional, "more is not in the source"),
        (of_another_shape, "transitions is not the source's tensor"),
        (of_another_type, "transitions is not the source's tensor"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_the_sources_beside_the_model_fails(converted: Any, mutation: Any, said: str) -> None:
    source, output = converted
    tensors = load_file(output / EXTRA)
    mutation(tensors)
    save_file(tensors, output / EXTRA)
    assert any(said in failure for failure in verify(source, output, record=False).failures)


def test_a_tensor_of_the_source_that_is_in_no_list_fails(converted: tuple[Path, Path]) -> None:
    source, output = converted
    tensors = load_file(output / EXTRA)
    del tensors["transitions"]
    save_file(tensors, output / EXTRA)
    path = output / "conversion.json"
    record = json.loads(path.read_text())
    record["kept"] = [tensor for tensor in record["kept"] if tensor["target"] != "transitions"]
    path.write_text(json.dumps(record))
    said = "transitions of the source is neither in the model, nor beside it, nor left out for a reason"
    assert any(said in failure for failure in verify(source, output, record=False).failures)


def test_a_missing_file_of_what_was_kept_is_refused(converted: tuple[Path, Path]) -> None:
    source, output = converted
    (output / EXTRA).unlink()
    with pytest.raises(MappingError, match=EXTRA):
        verify(source, output, record=False)


def test_what_was_renamed_and_dropped_is_recorded_and_verified(tmp_path: Path) -> None:
    source = saved(Renamed(), tmp_path / "source")
    report = convert(source, tmp_path / "out", rename={"fc": "classifier"}, drop=["crf.*"])
    assert report.head == "token-classification"
    assert [kept.source for kept in report.kept] == ["bert.pooler.dense.bias", "bert.pooler.dense.weight"]
    assert {d.name: d.reason for d in report.dropped} == {"crf.transitions": "asked for: --drop crf.*"}
    assert ("renamed", "fc=classifier") in {(d.field, d.value) for d in report.decisions}
    assert not verify(source, tmp_path / "out").failures


def test_a_wrong_name_for_a_renamed_tensor_fails(tmp_path: Path) -> None:
    module = Renamed()
    module.other = torch.nn.Linear(32, 5)
    source = saved(module, tmp_path / "source")
    convert(source, tmp_path / "out", rename={"fc": "classifier"})
    path = tmp_path / "out" / "conversion.json"
    path.write_text(path.read_text().replace("fc=classifier", "other=classifier"))
    assert verify(source, tmp_path / "out", record=False).failures


def test_a_head_outside_of_the_encoders_prefix_is_the_models(tmp_path: Path) -> None:
    module = Plain()
    tensors = {("model." if name.startswith("bert.") else "") + name: t for name, t in module.state_dict().items()}
    source = saved(module, tmp_path / "source")
    torch.save(tensors, source / "pytorch_model.bin")
    report = convert(source, tmp_path / "out")
    assert report.head == "token-classification"
    pooler = ["model.bert.pooler.dense.bias", "model.bert.pooler.dense.weight"]
    assert [kept.target for kept in report.kept] == ["crf.transitions", *pooler]
    assert not verify(source, tmp_path / "out").failures


# What comes after: the other commands keep it


def test_a_repaired_copy_and_a_second_conversion_keep_what_lies_beside(converted: Any, tmp_path: Path) -> None:
    _, output = converted
    config = json.loads((output / "config.json").read_text())
    (output / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    originals = load_file(output / EXTRA)
    assert repair(output, tmp_path / "repaired").faults
    convert(output, tmp_path / "again", dtype="float32")
    for folder in ("repaired", "again"):
        kept = load_file(tmp_path / folder / EXTRA)
        assert kept.keys() == originals.keys()
        assert all(torch.equal(kept[name], originals[name]) for name in kept)
        assert not verify(output, tmp_path / folder).failures


def test_an_export_to_the_program_that_it_came_from_has_it_all(converted: Any, tmp_path: Path) -> None:
    source, output = converted
    export(output, tmp_path / "back", to="huawei-torch")
    original, back = (torch.load(folder / "pytorch_model.bin") for folder in (source, tmp_path / "back"))
    assert original.keys() == back.keys()
    assert all(torch.equal(original[name], back[name]) for name in original)


OWN = {
    "huawei-tf": ("huawei-tf-pretraining", "tagger/{}"),
    "huawei-torch": ("huawei-torch-pretraining", "tagger.{}"),
    "transformers-4": ("transformers-4.40.2-pretraining", "tagger.{}"),
    "paddle": ("paddlenlp-pretraining", "tagger.{}"),
    "bert4torch": ("bert4torch-pretraining", "tagger.{}"),
}
"""By program: a checkpoint of its family, and how the family names what people put beside the model."""

LEFT = {"bert4keras", "mindspore"}
"""Families whose programs an export does not write for: what was kept stays beside the model."""


def test_every_family_is_exported_to_or_stays() -> None:
    assert {program.family.name for program in PROGRAMS.values()} | LEFT == {family.name for family in FAMILIES}


@pytest.mark.parametrize("to", PROGRAMS)
def test_what_was_kept_goes_back_under_its_names_value_by_value(to: str, tmp_path: Path) -> None:
    fixture, pattern = OWN[to]
    source, program = Path(shutil.copytree(FIXTURES / fixture, tmp_path / "source")), PROGRAMS[to]
    checkpoint = open_checkpoint(FIXTURES / fixture)
    arrays = {name: entry.read() for name, entry in checkpoint.entries.items()}
    rng = np.random.default_rng(5)
    kinds = {"matrix": ((5, 5), "f4"), "cube": ((2, 3, 4), "f4"), "wide": ((3, 7), "f8"), "counter": ((), "i8")}
    kinds |= {"lengths": ((6,), "i4"), "empty": ((0, 3), "f4")}
    added = {
        pattern.format(name): (rng.standard_normal(shape) * 9).astype(kind) for name, (shape, kind) in kinds.items()
    }
    if to == "huawei-tf":
        del added["tagger/wide"]  # Huawei's program has float32 alone, and a double is refused
    written = [Tensor(name, a.dtype.name, a.shape, [a]) for name, a in {**arrays, **added}.items()]
    if checkpoint.format == "safetensors":
        write_safetensors(source / checkpoint.path.name, written)
    else:
        program.write(source / checkpoint.path.name, written)
    convert(source, tmp_path / "out")
    assert {name: a.tobytes() for name, a in added.items()} == {
        name: entry.read().tobytes() for name, entry in read_safetensors((tmp_path / "out" / EXTRA,)).items()
    }
    assert verify(source, tmp_path / "out").passed
    export(tmp_path / "out", tmp_path / "back", to=to, accept_activation=True)
    back = open_checkpoint(tmp_path / "back").entries
    for name, array in added.items():
        found = back[name].read()
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes()), name
    convert(tmp_path / "back", tmp_path / "again")
    assert (tmp_path / "again" / EXTRA).read_bytes() == (tmp_path / "out" / EXTRA).read_bytes()


def test_an_export_to_another_program_says_what_it_leaves_out(converted: Any, tmp_path: Path) -> None:
    _, output = converted
    report = export(output, tmp_path / "other", to="transformers-4")
    assert ("left out", "11 tensors") in {(d.field, d.value) for d in report.decisions}


def test_what_lies_beside_is_pushed_and_pulled(converted: tuple[Path, Path]) -> None:
    source, output = converted
    verify(source, output)
    planned = push(output, "owner/tagger", license="mit", dry_run=True)
    assert EXTRA in {file.name for file in planned.files}


def test_diff_tells_of_another_tensor_beside_the_model(converted: tuple[Path, Path], tmp_path: Path) -> None:
    _, output = converted
    other = Path(shutil.copytree(output, tmp_path / "other"))
    assert diff(output, other).same
    assert diff(converted[0], other).same
    tensors = load_file(other / EXTRA)
    tensors["transitions"] += 1
    save_file(tensors, other / EXTRA)
    assert not diff(output, other).same
