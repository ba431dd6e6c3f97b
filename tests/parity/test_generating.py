"""Causal and prefix models: what says so is read, kept, exported and proved; what was lost is noticed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from goldens import FIXTURES, causal_bert4torch

from nezha_convert import convert, diff, export, repair, verify
from nezha_convert.errors import MappingError
from nezha_convert.families import BERT4TORCH, FAMILIES
from nezha_convert.mapping import recognise

HEADS = {
    "transformers-4.40.2-causal-lm": "causal-lm",
    "bert4torch-causal-lm": "causal-lm",
    "bert4torch-prefix-lm": "prefix-lm",
    "of Huawei's names": "causal-lm",
}
KERAS = FIXTURES / "bert4keras-masked-lm"


def source_of(name: str, folder: Path) -> Path:
    return FIXTURES / name if (FIXTURES / name).is_dir() else causal_bert4torch(folder / "source")


def config_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return content


def edited(folder: Path, **fields: object) -> None:
    (folder / "config.json").write_text(json.dumps(config_of(folder) | fields))


@pytest.mark.parametrize("name", HEADS)
def test_what_the_config_says_makes_the_head_and_a_conversion_that_forgot_it_fails(name: str, tmp_path: Path) -> None:
    source, head = source_of(name, tmp_path), HEADS[name]
    report = convert(source, tmp_path / "out")
    assert (report.head, report.architecture) == (head, "NezhaForCausalLM")
    said = config_of(tmp_path / "out")
    assert (said["is_decoder"], said.get("prefix_lm", False)) == (True, head == "prefix-lm")
    assert verify(source, tmp_path / "out").passed
    edited(tmp_path / "out", prefix_lm=head != "prefix-lm")
    assert not verify(source, tmp_path / "out").passed


@pytest.mark.parametrize(
    ("name", "mutation"),
    [
        ("bert4torch-causal-lm", {"causal": {}}),
        ("bert4torch-prefix-lm", {"prefix": {}, "causal": {"application": ("unilm",)}}),
        ("bert4torch-prefix-lm", {"prefix": {}}),
    ],
)
def test_a_family_that_reads_it_wrongly_is_noticed(
    name: str, mutation: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {key: word for key, word in BERT4TORCH.words.items() if key != "application"}  # else it would be refused
    wrong = replace(BERT4TORCH, defaults=replace(BERT4TORCH.defaults, **mutation), words=words)
    monkeypatch.setattr(recognise, "FAMILIES", tuple(wrong if one is BERT4TORCH else one for one in FAMILIES))
    source = shutil.copytree(FIXTURES / name, tmp_path / "model")  # a name that says "causal" would make it a question
    convert(source, tmp_path / "out")
    assert not verify(source, tmp_path / "out").passed


@pytest.mark.parametrize("head", ["causal-lm", "prefix-lm"])
def test_a_head_that_was_asked_for_is_an_assumption_where_no_file_says_it(head: str, tmp_path: Path) -> None:
    report = convert(KERAS, tmp_path / "out", head=head)
    assert [one.name for one in report.assumptions if "--head" in one.text] == ["attention"]
    proof = verify(KERAS, tmp_path / "out")
    assert proof.passed and "attention" in {one.name for one in proof.assumed}
    again = convert(tmp_path / "out", tmp_path / "again")
    assert again.head == head
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "out" / file).read_bytes()


def test_a_masked_lm_model_names_the_heads_that_it_may_be(tmp_path: Path) -> None:
    (assumed,) = (one for one in convert(KERAS, tmp_path / "out").assumptions if one.name == "both-sides")
    assert "--head causal-lm" in assumed.text and "--head prefix-lm" in assumed.text


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("transformers-4.40.2-causal-lm", "transformers-4"),
        ("transformers-4.40.2-causal-lm", "bert4torch"),
        ("bert4torch-causal-lm", "bert4torch"),
        ("bert4torch-prefix-lm", "bert4torch"),
    ],
)
def test_a_program_that_has_the_attention_takes_the_model_and_gives_it_back(name: str, to: str, tmp_path: Path) -> None:
    convert(FIXTURES / name, tmp_path / "out")
    export(tmp_path / "out", tmp_path / "back", to)
    assert convert(tmp_path / "back", tmp_path / "again").head == HEADS[name]
    assert diff(tmp_path / "out", tmp_path / "again").same
    if to == "transformers-4":
        assert config_of(tmp_path / "back")["architectures"] == ["NezhaForMaskedLM"]
        assert config_of(tmp_path / "back")["is_decoder"] is True


def test_a_program_without_it_refuses_and_names_one_that_has_it(tmp_path: Path) -> None:
    convert(FIXTURES / "bert4torch-prefix-lm", tmp_path / "out")
    for to in ("transformers-4", "huawei-torch"):
        with pytest.raises(MappingError) as error:
            export(tmp_path / "out", tmp_path / "back", to)
        assert "--to bert4torch" in error.value.hint


def test_a_copy_of_4_40_2_is_repaired_to_one_that_generates(tmp_path: Path) -> None:
    repair(FIXTURES / "transformers-4.40.2-causal-lm", tmp_path / "repaired")
    assert config_of(tmp_path / "repaired")["architectures"] == ["NezhaForCausalLM"]


def test_a_text_begins_and_ends_with_the_vocabulary_s_own_tokens(tmp_path: Path) -> None:
    source = causal_bert4torch(tmp_path / "source")
    tokens = (source / "vocab.txt").read_text("utf-8").split("\n")
    convert(source, tmp_path / "out")
    said = config_of(tmp_path / "out")
    assert (said["bos_token_id"], said["eos_token_id"]) == (tokens.index("[CLS]"), tokens.index("[SEP]"))
