"""What a refusal says next can be pasted, and leads to a result or to a question that names choices; never back."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import HOPS, run, walk
from goldens import FIXTURES

from nezha_convert.cli.advice import advice
from nezha_convert.cli.app import cli, main
from nezha_convert.errors import UsageError

State = dict[str, Any]
TORCH = FIXTURES / "huawei-torch-pretraining"
ENCODER = ("bert.embeddings.", "bert.encoder.", "bert.pooler.")


def encoder() -> State:
    state = torch.load(TORCH / "pytorch_model.bin", weights_only=True)
    return {name: tensor for name, tensor in state.items() if name.startswith(ENCODER)}


def of(content: Any) -> Callable[[Path], Path]:
    """A source whose file holds `content`."""

    def write(folder: Path) -> Path:
        shutil.copy(TORCH / "bert_config.json", folder)
        torch.save(content, folder / "best model.pt")
        return folder

    return write


def layer(name: str) -> State:
    return {f"{name}.weight": torch.randn(5, 32), f"{name}.bias": torch.randn(5)}


def two_files(folder: Path) -> Path:
    of(encoder())(folder)
    shutil.copy(folder / "best model.pt", folder / "last 模型.pt")
    return folder


def two_folders(folder: Path) -> Path:
    for name in ("fold 0", "折 1"):
        (folder / name).mkdir()
        of(encoder() | layer("fc"))(folder / name)
    return folder


def without_its_step(folder: Path) -> Path:
    shutil.copytree(FIXTURES / "huawei-tf-pretraining", folder, dirs_exist_ok=True)
    return folder / "model.ckpt"


def teacher_and_student() -> State:
    return {f"{side}{name.removeprefix('bert')}": t for side in ("teacher", "student") for name, t in encoder().items()}


@pytest.mark.parametrize(
    "source, hops",
    [
        (of(encoder()), 0),
        (of(encoder() | layer("fc")), 1),
        (of(encoder() | layer("head of tokens")), 1),
        (of({"model": encoder(), "ema": encoder(), "epoch": 3}), 1),
        (of([encoder(), encoder()]), 1),
        (of({"model": encoder() | layer("fc"), "ema": encoder(), "epoch": 3}), 2),
        (of(teacher_and_student()), 1),
        (two_files, 1),
        (two_folders, 2),
        (without_its_step, 1),
        (lambda folder: shutil.copytree(FIXTURES / "huawei-tf-ner", folder, dirs_exist_ok=True), 1),
    ],
)
def test_the_first_command_of_the_advice_leads_to_a_result(source: Any, hops: int, tmp_path: Path) -> None:
    folder = tmp_path / "模型 of'mine"
    folder.mkdir()
    walked = walk(source(folder), tmp_path, verified=False)
    assert walked.report, walked.errors
    assert len(walked.commands) - 1 == hops <= HOPS
    assert not walked.lost
    assert len({tuple(words) for words in walked.commands}) == len(walked.commands)


def test_every_choice_of_a_question_leads_on(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    source = of(encoder() | layer("a") | layer("b"))(tmp_path / "source")
    _, said = run(["convert", str(source), str(tmp_path / "out")])
    asked = said["ways"]
    assert asked == [["--rename", "a=classifier"], ["--rename", "b=classifier"], ["--head", "encoder"]]
    assert len(said["next"]) == 3
    for number, way in enumerate(asked):
        code, report = run(["convert", str(source), str(tmp_path / f"out{number}"), *way])
        assert code == 0, report


def test_an_option_that_was_typed_is_replaced_and_those_that_may_repeat_are_kept(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    source = of(encoder() | layer("fc"))(tmp_path / "source")
    _, said = run(["convert", str(source), str(tmp_path / "out"), "--drop", "x.*", "--prefix", ""])
    assert (
        f"nezha-convert convert {source} {tmp_path / 'out'} --drop 'x.*' --prefix '' --json --head encoder"
        in said["next"]
    )


def test_a_hint_names_the_source_that_was_typed(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    source = of({"x.weight": torch.zeros(2)})(tmp_path / "a b")
    _, said = run(["convert", str(source), str(tmp_path / "out")])
    assert f"nezha-convert inspect '{source}' --tensors" in said["hint"]


@pytest.mark.parametrize("name", ["bert_config.json", "checkpoint", "model.ckpt-12345.meta"])
def test_a_file_beside_the_weights_means_their_folder(name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FIXTURES / "huawei-tf-pretraining", tmp_path / "source"))
    (folder / name).touch()
    assert walk(folder / name, tmp_path, verified=False).report


@pytest.mark.parametrize("verb", ["inspect", "convert", "verify", "diff", "repair"])
def test_every_command_says_which_of_several_steps_it_took(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    fixture = "transformers-4.40.2-encoder" if verb == "repair" else "huawei-tf-squad"
    shutil.copytree(FIXTURES / fixture, source)
    if verb == "repair":
        (source / "pytorch_model.bin").rename(source / "best.bin")
        shutil.copy(source / "best.bin", source / "pytorch_model.bin")
        taken = "pytorch_model.bin"
    else:
        for file in list(source.glob("model.ckpt-12345.*")):
            shutil.copy(file, source / file.name.replace("12345", "1"))
        taken = "model.ckpt-12345"
    output = tmp_path / "out"
    if verb == "verify":
        run(["convert", str(source), str(output)])
    words = {"inspect": [], "repair": [], "diff": [str(source)]}.get(verb, [str(output)])
    with pytest.raises(SystemExit):
        main([verb, str(source), *words])
    said = capsys.readouterr().out
    assert re.search(rf"(decided|source|output) .*{re.escape(taken)}", said), said


def test_a_download_that_was_not_finished_is_named(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "pytorch_model.bin.downloading").write_bytes(b"PK")
    for source in (tmp_path / "source", tmp_path / "source" / "pytorch_model.bin.downloading"):
        _, said = run(["convert", str(source), str(tmp_path / "out")])
        assert "was not finished" in said["message"]
        assert said["hint"] == "Download the file again."


def test_a_source_called_like_a_word_of_the_hint_keeps_its_name():
    error = UsageError("no", hint="Convert again: nezha-convert convert SOURCE OUTPUT --force")
    said, _ = advice(cli, ["verify", "OUTPUT/m", "SOURCE/n"], error)
    assert said == "Convert again: nezha-convert convert OUTPUT/m SOURCE/n --force"
