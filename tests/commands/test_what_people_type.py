"""What people type and give in Python is read as they mean it, or refused with the way to say it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from goldens import FIXTURES
from hub_fixtures import NAME

import nezha_convert
from nezha_convert.cli.app import main
from nezha_convert.errors import CheckpointError, MappingError, UsageError
from nezha_convert.files.given import in_utf8, nbytes_of_size, similar
from nezha_convert.hub import Address, is_address

TF, CLASSIFIER = FIXTURES / "huawei-tf-pretraining", FIXTURES / "huawei-tf-classifier"
VOCABULARY = FIXTURES / "training" / "vocab.txt"
SENTENCES = {"head": "sequence-classification", "dry_run": True}


def typed(*words: object) -> int:
    with pytest.raises(SystemExit) as exit:
        main([str(word) for word in words])
    return exit.value.code


# Addresses


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("hf://owner/name", "hf://owner/name"),
        ("owner/name", "hf://owner/name"),
        ("owner/name@v1", "hf://owner/name@v1"),
        ("https://huggingface.co/owner/name", "hf://owner/name"),
        ("https://huggingface.co/owner/name/", "hf://owner/name"),
        ("https://huggingface.co/owner/name/tree/main", "hf://owner/name@main"),
        ("https://huggingface.co/owner/name/tree/refs%2Fpr%2F1", "hf://owner/name@refs/pr/1"),
        ("https://huggingface.co/owner/name/resolve/v1/model.safetensors?download=true", "hf://owner/name@v1"),
        ("https://huggingface.co/owner/name/blob/main/config.json", "hf://owner/name@main"),
        ("https://huggingface.co/owner/name/discussions/3", "hf://owner/name"),
        ("https://huggingface.co/owner/name.git", "hf://owner/name"),
        ("https://hf-mirror.com/owner/name", "hf://owner/name"),
        ("http://hf.co/owner/name", "hf://owner/name"),
    ],
)
def test_an_address_is_what_people_paste(text, read):
    assert str(Address.parse(text)) == read


@pytest.mark.parametrize(
    "text",
    ["https://example.org/owner/name", "https://huggingface.co/datasets/owner/name", "https://huggingface.co/owner",
     "owner", "hf://owner", "owner/name@", "owner/name/more", "/owner/name"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_how_one_is_written(text):
    with pytest.raises(UsageError) as error:
        Address.parse(text)
    assert "OWNER/NAME" in error.value.hint or "hf://owner/name" in error.value.hint


def test_a_name_is_the_hub_s_only_where_nothing_of_its_owner_is_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_address("owner/name") and is_address("owner/nezha-1.0")
    assert not is_address("owner/model.bin") and not is_address("name") and not is_address("./owner/name")
    assert not is_address(Path("owner/name"))
    (tmp_path / "owner").mkdir()
    assert not is_address("owner/name") and is_address("hf://owner/name")


@pytest.mark.parametrize("form", ["{name}", "{endpoint}/{name}", "{endpoint}/{name}/tree/main", "hf://{name}"])
def test_push_takes_the_address_that_is_in_the_browser(form, run, server, folder, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    done = run("push", folder, form.format(name=NAME, endpoint=server.endpoint), "--license", "mit", "--dry-run")
    assert done.code == 0 and NAME in done.out, done.err


def test_pull_takes_the_address_that_is_in_the_browser(run, server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    source = FIXTURES / "transformers-4.40.2-masked-lm"
    server.create(NAME, {path.name: path.read_bytes() for path in source.iterdir() if path.suffix != ".npz"})
    for form in (NAME, f"{server.endpoint}/{NAME}"):
        done = run("pull", form)
        assert done.code == 0 and f"hf://{NAME}@" in done.out, done.err


# Paths


def test_a_path_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(TF, tmp_path / "NEZHA-Base")
    shutil.copy(VOCABULARY, tmp_path)
    report = nezha_convert.convert("~/NEZHA-Base", "~/out", vocab="~/vocab.txt")
    assert (tmp_path / "out" / "vocab.txt").is_file() and report.source == "NEZHA-Base"
    assert nezha_convert.inspect("~/out", config="~/out/config.json").family == "transformers"
    nezha_convert.export("~/out", "~/back", "huawei-tf")
    assert nezha_convert.diff("~/NEZHA-Base", "~/back").same


def test_a_vocabulary_and_a_config_of_another_name_are_offered(tmp_path):
    folder = Path(shutil.copytree(TF, tmp_path / "NEZHA Base"))
    shutil.copy(VOCABULARY, folder / "vocab_zh.txt")
    (reason,) = [one.reason for one in nezha_convert.inspect(folder).decisions if one.field == "tokenizer"] or [
        one.reason
        for one in nezha_convert.convert(folder, tmp_path / "out", dry_run=True).decisions
        if one.field == "tokenizer"
    ]
    assert f"--vocab '{folder}/vocab_zh.txt'" in reason
    for name in ("config_large.json", "config_base.json"):
        shutil.copy(folder / "bert_config.json", folder / name)
    (folder / "bert_config.json").unlink()
    with pytest.raises(CheckpointError) as error:
        nezha_convert.convert(folder, tmp_path / "out")
    assert [way[1] for way in error.value.ways][:2] == [f"{folder}/config_base.json", f"{folder}/config_large.json"]


def test_similar_names_are_of_the_same_kind():
    names = ["vocab_zh.txt", "labels.txt", "vocab.json", "my-vocab.txt"]
    assert similar("vocab.txt", names) == ["my-vocab.txt", "vocab_zh.txt"]
    assert similar("vocab.txt", ["vocba.txt", "readme.txt"]) == ["vocba.txt"]
    assert similar("vocab.txt", ["notes.txt"]) == []


# Sizes and types


@pytest.mark.parametrize(
    ("given", "nbytes"), [("2GB", 2 * 10**9), ("2 gb", 2 * 10**9), ("1GiB", 2**30), ("500MB", 5 * 10**8), (7, 7)]
)
def test_a_size_is_a_number_of_bytes_or_a_text_with_a_unit(given, nbytes):
    assert nbytes_of_size(given) == nbytes


@pytest.mark.parametrize("given", ["5", "5 parsecs", "", "GB", "0GB", 0, -1])
def test_a_size_without_a_unit_is_none(given, tmp_path):
    with pytest.raises(UsageError, match="is not a size"):
        nezha_convert.convert(TF, tmp_path / "out", max_shard_bytes=given)


def test_five_is_not_five_bytes_on_the_command_line(tmp_path, capsys):
    assert typed("convert", TF, tmp_path / "out", "--max-shard-size", "5") == 2
    assert "such as 2GB" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", ["float16", torch.float16, np.float16, np.dtype("float16"), "torch.float16"])
def test_an_element_type_may_be_torch_s_or_numpy_s(given, tmp_path):
    nezha_convert.convert(TF, tmp_path / "out", dtype=given)
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert "float16" in (config.get("dtype"), config.get("torch_dtype"))


@pytest.mark.parametrize("given", ["half", "int8", torch.int8, 16])
def test_another_element_type_is_a_usage_error(given, tmp_path):
    with pytest.raises(UsageError, match="expected one of float64, float32, float16, bfloat16"):
        nezha_convert.convert(TF, tmp_path / "out", dtype=given)


def test_a_graph_has_one_precision(tmp_path, capsys):
    assert typed("export", tmp_path, tmp_path / "out", "--to", "onnx", "--fp16", "--int8") == 2
    assert "expected one of them" in capsys.readouterr().err


# Labels


@pytest.mark.parametrize(
    "labels", [["坏", "中", "好"], ("坏", "中", "好"), {"坏": 0, "中": 1, "好": 2}, {0: "坏", 1: "中", 2: "好"}]
)
def test_labels_may_be_a_list_or_a_dictionary(labels, tmp_path):
    nezha_convert.convert(CLASSIFIER, tmp_path / "out", head="sequence-classification", labels=labels)
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert config["id2label"] == {"0": "坏", "1": "中", "2": "好"}


def test_labels_may_be_those_of_a_config(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "bert", "id2label": {"0": "a", "1": "b", "2": "c"}})
    )
    nezha_convert.convert(CLASSIFIER, tmp_path / "out", head="sequence-classification", labels=tmp_path / "config.json")
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert list(config["id2label"].values()) == ["a", "b", "c"]


@pytest.mark.parametrize("labels", [["a", "a", "b"], ["a", 1, "b"], {"a": 0, "b": 2}, ["a"]])
def test_labels_that_are_none_are_a_usage_error(labels, tmp_path):
    with pytest.raises((UsageError, MappingError)):
        nezha_convert.convert(CLASSIFIER, tmp_path / "out", labels=labels, **SENTENCES)


def test_the_labels_of_a_conversion_can_be_given_to_its_proof(tmp_path):
    labels = ["坏", "中", "好"]
    nezha_convert.convert(CLASSIFIER, tmp_path / "out", labels=labels, head="sequence-classification")
    assert nezha_convert.verify(CLASSIFIER, tmp_path / "out", labels=labels).passed
    report = nezha_convert.verify(CLASSIFIER, tmp_path / "out", labels=["坏", "好", "中"])
    assert "label 1 is '中'; the source calls it '好'" in report.failures


# What the command line would refuse


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tokenizer": "bpe"}, "--tokenizer 'bpe': expected one of wordpiece, byte-bpe"),
        ({"lower_case": "yes"}, "lower_case 'yes': expected one of True, False"),
        ({"max_relative_position": "64"}, "--max-relative-position '64': expected a positive whole number"),
        ({"max_relative_position": 64.5}, "--max-relative-position 64.5: expected a positive whole number"),
        ({"max_shard_bytes": None}, "None is not a size"),
        ({"max_shard_bytes": 1e9}, "1000000000.0 is not a size"),
        ({"rename": "fc"}, "'fc' is no OLD=NEW"),
        ({"rename": [("fc", "classifier", "x")]}, "is no OLD=NEW"),
        ({"rename": [3]}, "3 is no OLD=NEW"),
        ({"vocab": 3}, "3: expected a path, found int"),
    ],
)
def test_what_is_no_value_of_an_argument_is_a_usage_error(given, words, tmp_path):
    with pytest.raises(UsageError) as error:
        nezha_convert.convert(TF, tmp_path / "out", dry_run=True, **given)
    assert words in error.value.message


def test_what_is_no_path_is_a_usage_error(tmp_path):
    for source, output in ((None, "out"), (TF, None), (3, "out")):
        with pytest.raises(UsageError, match="expected a path, found"):
            nezha_convert.convert(source, output)


@pytest.mark.parametrize("tolerance", [0, -1, float("nan"), "1e-5"])
def test_a_tolerance_is_a_number_over_0(tolerance, tmp_path):
    with pytest.raises(UsageError, match="expected a number over 0"):
        nezha_convert.verify(TF, tmp_path, tolerance=tolerance)


def test_one_text_may_stand_without_a_list(tmp_path):
    source = FIXTURES / "huawei-torch-classifier"
    one, listed = (nezha_convert.convert(source, tmp_path, drop=drop, dry_run=True) for drop in ("x.*", ["x.*"]))
    assert one.decisions == listed.decisions
    for rename in ("classifier=classifier", ["classifier=classifier"], {"classifier": "classifier"}):
        assert nezha_convert.convert(source, tmp_path, rename=rename, dry_run=True).head == one.head
    nezha_convert.convert(TF, tmp_path / "out")
    with pytest.raises(UsageError, match="--assume labels: "):
        nezha_convert.verify(TF, tmp_path / "out", assume="labels")


def test_a_graph_asked_for_as_a_program_is_answered_by_its_function(tmp_path):
    with pytest.raises(UsageError) as error:
        nezha_convert.export(tmp_path, "graph", "onnx")
    assert error.value.hint == f"nezha_convert.export_graph({str(tmp_path)!r}, 'graph')"


# Encodings and vocabularies


@pytest.mark.parametrize(("encoding", "known"), [("gbk", "GB18030"), ("gb18030", "GB18030"), ("utf-16", "UTF-16")])
def test_a_vocabulary_of_another_encoding_is_answered_by_the_command_that_converts_it(encoding, known, tmp_path):
    path = tmp_path / "my vocab.txt"
    path.write_bytes(VOCABULARY.read_text("utf-8").encode(encoding))
    with pytest.raises(MappingError, match="not UTF-8") as error:
        nezha_convert.convert(TF, tmp_path / "out", vocab=path)
    assert f"iconv -f {known} -t UTF-8 '{path}' > 'utf8-my vocab.txt'; then add --vocab" in error.value.hint


def test_the_command_makes_the_file_that_was_meant(tmp_path):
    import subprocess

    path = tmp_path / "labels.txt"
    path.write_bytes("坏\n中\n好\n".encode("gbk"))
    with pytest.raises(UsageError) as error:
        nezha_convert.convert(CLASSIFIER, tmp_path / "out", labels=path, **SENTENCES)
    command = error.value.hint.partition(": ")[2].partition("; then")[0]
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert (tmp_path / "utf8-labels.txt").read_text("utf-8") == "坏\n中\n好\n"


def test_a_file_of_no_known_encoding_has_no_such_command(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xff\x80\x00\xff")
    assert in_utf8(tmp_path / "vocab.txt", "--vocab") == ""


def test_a_vocabulary_of_five_tokens_for_64_rows_is_told_as_an_assumption(tmp_path, capsys):
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n", "utf-8")
    assert typed("convert", TF, tmp_path / "out", "--vocab", vocab) == 0
    assert "assumed  vocabulary: vocab.txt is this model's vocabulary; it has 5 tokens" in capsys.readouterr().out
    report = nezha_convert.convert(TF, tmp_path / "whole", vocab=VOCABULARY)
    assert [one.name for one in report.assumptions if one.name == "vocabulary"] == []


# What comes next


def test_a_conversion_ends_with_the_commands_that_prove_and_load_it(tmp_path, capsys):
    output = tmp_path / "my model"
    assert typed("convert", TF, output, "--vocab", VOCABULARY) == 0
    *_, following, loading = capsys.readouterr().out.splitlines()
    assert following == f"next     nezha-convert verify {TF} '{output}' --vocab {VOCABULARY}"
    assert loading == f"load     AutoModelForPreTraining.from_pretrained('{output}', trust_remote_code=True)"


def test_a_plan_has_no_next_command(tmp_path, capsys):
    assert typed("convert", TF, tmp_path / "out", "--dry-run") == 0
    assert "verify" not in capsys.readouterr().out
