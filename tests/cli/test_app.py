"""The command line: what it says, where it says it, and its exit codes."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import write_bundle
from goldens import FIXTURES, GOLDENS
from safetensors.torch import load_file

import nezha_convert
from nezha_convert.cli.app import cli, main
from nezha_convert.commands import inspect as inspect_verb
from nezha_convert.files import staging
from nezha_convert.weights import write as writer

ROOT = Path(__file__).parents[2]
TF = FIXTURES / "huawei-tf-pretraining"
TORCH = FIXTURES / "huawei-torch-pretraining"
PREFIX = "model.ckpt-12345"


@pytest.fixture
def run(capsys):
    """Run a command; its exit code, stdout and stderr."""
    Result = namedtuple("Result", "code out err")

    def run(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as exit:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(exit.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def source(tmp_path) -> Path:
    """A copy of a TensorFlow checkpoint, to be damaged."""
    return Path(shutil.copytree(TF, tmp_path / "source"))


def flip(path: Path, position: int) -> None:
    """Flip one bit."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def assert_refused(result, code: int, *words: str, folder: Path) -> None:
    """One clear message on stderr, the right code, and nothing written."""
    assert result.code == code
    assert result.out == ""
    assert result.err.count("error: ") == 1
    for word in words:
        assert word in result.err
    assert not [path for path in folder.iterdir() if path.name not in ("source", "kept")]


# inspect


@pytest.mark.parametrize("golden", GOLDENS, ids=str)
def test_inspect_names_family_heads_and_optimizer_bytes(golden, run):
    result = run("inspect", golden.folder, "--json")
    assert result.code == 0
    found = json.loads(result.out)
    assert found["family"] == golden.family
    assert golden.head in found["heads"]
    assert len(found["heads"]) == (2 if golden.asked else 1)
    assert found["optimizer_nbytes"] == golden.optimizer_nbytes
    assert found["problems"] == []
    kept = sum(4 * math.prod(tensor["shape"]) for tensor in found["kept"])
    assert found["weight_nbytes"] + sum(drop["nbytes"] for drop in found["dropped"]) + kept == found["nbytes"]

    text = run("inspect", golden.folder)
    assert text.code == 0 and text.err == ""
    lines = {line.split(maxsplit=1)[0]: line for line in text.out.splitlines()}
    assert found["title"] in lines["family"]
    assert all(head in lines["head"] for head in found["heads"])
    assert "optimizer state in " in lines["tensors"]
    assert f"nezha-convert convert {golden.folder} OUTPUT" in lines["next"]


def test_inspect_lists_every_tensor_on_request(run):
    names = [line.split()[0] for line in run("inspect", TF, "--tensors").out.splitlines()]
    assert {"bert/pooler/dense/kernel", "bert/pooler/dense/kernel/lamb_m", "global_step"} <= set(names)
    entries = json.loads(run("inspect", TF, "--tensors", "--json").out)["entries"]
    assert {"name": "bert/pooler/dense/kernel", "dtype": "float32", "shape": [32, 32]} in entries


def test_inspect_tells_what_a_checkpoint_without_a_config_is(run, source):
    (source / "bert_config.json").unlink()
    found = json.loads(run("inspect", source, "--json").out)
    assert found["heads"] == ["pretraining"]
    assert "no bert_config.json" in found["problems"][0]


def test_inspect_says_that_a_head_is_none_that_is_known(run, tmp_path):
    state = torch.load(FIXTURES / "huawei-torch-classifier" / "pytorch_model.bin", weights_only=True)
    state = {name.replace("classifier.", "tagger."): tensor for name, tensor in state.items()}
    torch.save(state, tmp_path / "model.bin")
    result = run("inspect", tmp_path / "model.bin", "--config", TORCH / "bert_config.json", "--json")
    found = json.loads(result.out)
    assert (result.code, found["family"], found["heads"]) == (0, "huawei-torch", [])
    assert "tagger.weight" in found["problems"][0] and "--head encoder" in found["hint"]


def test_inspect_says_what_is_not_nezha(run, tmp_path):
    torch.save({"encoder.weight": torch.ones(2)}, tmp_path / "other.bin")
    result = run("inspect", tmp_path / "other.bin")
    assert result.code == 0
    assert "not a NEZHA checkpoint" in result.out and "encoder.weight" in result.out


# convert


def test_convert_reports_what_it_did(run, tmp_path):
    result = run("convert", TF, tmp_path / "out")
    assert result.code == 0 and result.err == ""
    for words in ("45 used, 94 dropped, 2 tied", "LAMB's first moment", "gelu_pytorch_tanh", "bit by bit"):
        assert words in result.out


def test_convert_reports_the_same_as_json(run, tmp_path):
    result = run("convert", TF, tmp_path / "out", "--json")
    report = json.loads(result.out)
    assert result.err == ""
    assert (report["family"], report["head"], len(report["written"])) == ("huawei-tf", "pretraining", 45)
    assert len({tensor["source"] for tensor in report["written"]}) == 45
    kept = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert kept == {name: report[name] for name in kept}


def test_a_dry_run_writes_nothing_and_reads_no_tensor(run, source):
    data = source / f"{PREFIX}.data-00000-of-00001"
    data.write_bytes(bytes(data.stat().st_size))
    result = run("convert", source, source.parent / "out", "--dry-run")
    assert result.code == 0 and "nothing was written" in result.out
    assert not (source.parent / "out").exists()


def test_hashes_in_the_report_are_those_of_the_files(run, tmp_path):
    import hashlib

    report = json.loads(run("convert", TF, tmp_path / "out", "--json").out)
    for folder, files in ((TF, report["source_files"]), (tmp_path / "out", report["output_files"])):
        assert {file["name"] for file in files} <= {path.name for path in folder.iterdir()}
        for file in files:
            data = (folder / file["name"]).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (file["nbytes"], file["sha256"])


def test_two_conversions_are_the_same_byte_for_byte(run, tmp_path):
    for name in ("one", "two"):
        run("convert", TF, tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_labels_vocab_and_overrides_reach_the_folder(run, tmp_path):
    (tmp_path / "labels.txt").write_text("neg\nneutral\npos\n")
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "B"]) + "\n")
    options = ["--labels", tmp_path / "labels.txt", "--vocab", vocab, "--lower-case", "--max-relative-position", 32]
    options += [
        "--head",
        "sequence-classification",
        "--activation",
        "gelu",
        "--dtype",
        "bfloat16",
        "--max-shard-size",
        "20KB",
    ]
    result = run("convert", FIXTURES / "huawei-tf-classifier", tmp_path / "out", *options)
    assert result.code == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "neg", "1": "neutral", "2": "pos"}
    assert (config["hidden_act"], config["max_relative_position"], config["torch_dtype"]) == ("gelu", 32, "bfloat16")
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["do_lower_case"] is True
    assert (tmp_path / "out" / "vocab.txt").read_bytes() == vocab.read_bytes()
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 1
    assert "the last 57 have no token" in result.out


def test_the_kind_of_tokenizer_can_be_asked_for(run, tmp_path):
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "41", "##E4", "E4B8"]) + "\n")
    for kind in ("wordpiece", "byte-bpe"):
        options = ["--vocab", vocab, "--tokenizer", kind]
        assert run("convert", FIXTURES / "huawei-tf-pretraining", tmp_path / kind, *options).code == 0
        decisions = json.loads((tmp_path / kind / "conversion.json").read_text())["decisions"]
        (said,) = [decision for decision in decisions if decision["field"] == "tokenizer_kind"]
        assert (said["value"], said["origin"]) == (kind, "asked")
    assert run("convert", TF, tmp_path / "other", "--tokenizer", "unigram").code == 2


def test_an_encoder_comes_out_of_an_unknown_head(run, tmp_path):
    state = torch.load(TORCH / "pytorch_model.bin", weights_only=True)
    state["my_head.weight"] = torch.ones(3)
    (tmp_path / "kept").mkdir()
    torch.save(state, tmp_path / "kept" / "model.bin")
    config = ["--config", TORCH / "bert_config.json"]
    result = run("convert", tmp_path / "kept", tmp_path / "out", *config, "--head", "encoder")
    assert result.code == 0
    kept = load_file(tmp_path / "out" / "extra.safetensors")
    assert torch.equal(kept["my_head.weight"], state["my_head.weight"])
    tied = "cls.predictions.decoder.weight"
    assert sorted(kept) == sorted(name for name in state if not name.startswith("bert.") and name != tied)
    assert f"kept     {len(kept)} in extra.safetensors, beside the model: cls." in result.out


# Bad input: each with its exit code and one clear message, nothing written.


def test_a_source_that_is_not_there_is_3(run, tmp_path):
    assert_refused(
        run("convert", tmp_path / "nope", tmp_path / "out"), 3, "nope: no such file", "next: ", folder=tmp_path
    )


def test_an_empty_folder_is_3(run, tmp_path):
    (tmp_path / "kept").mkdir()
    result = run("convert", tmp_path / "kept", tmp_path / "out")
    assert_refused(result, 3, "no checkpoint in it", "nothing at all", folder=tmp_path)


def test_a_truncated_index_is_3(run, source):
    index = source / f"{PREFIX}.index"
    index.write_bytes(index.read_bytes()[:-100])
    assert_refused(run("convert", source, source.parent / "out"), 3, index.name, "magic", folder=source.parent)


def test_a_flipped_bit_in_the_index_is_3(run, source):
    flip(source / f"{PREFIX}.index", 700)
    assert_refused(run("convert", source, source.parent / "out"), 3, "checksum", "expected", folder=source.parent)


def test_a_flipped_bit_in_the_data_is_3(run, source):
    flip(source / f"{PREFIX}.data-00000-of-00001", 9_000)
    result = run("convert", source, source.parent / "out")
    assert_refused(result, 3, "checksum", "bert/embeddings/word_embeddings", folder=source.parent)


def test_a_missing_shard_is_3(run, source):
    (source / f"{PREFIX}.data-00000-of-00001").unlink()
    result = run("convert", source, source.parent / "out")
    assert_refused(result, 3, f"{PREFIX}.data-00000-of-00001 is not there", folder=source.parent)


def test_a_missing_config_is_3(run, source):
    (source / "bert_config.json").unlink()
    assert_refused(
        run("convert", source, source.parent / "out"), 3, "bert_config.json", "--config", folder=source.parent
    )


def test_a_config_that_disagrees_is_4_and_says_what_the_tensors_say(run, source):
    config = json.loads((source / "bert_config.json").read_text())
    config |= {"hidden_size": 64, "num_hidden_layers": 3}  # the latter is taken from the tensors
    (source / "bert_config.json").write_text(json.dumps(config))
    result = run("convert", source, source.parent / "out")
    assert_refused(result, 4, "hidden_size: the config says 64, the tensors say 32", folder=source.parent)
    del config["hidden_size"]
    (source / "bert_config.json").write_text(json.dumps(config))
    result = run("convert", source, source.parent / "out")
    assert "num_hidden_layers = 2: the tensors have 2; the config's 3 is from before" in result.out


def test_a_bert_with_absolute_positions_is_4(run, tmp_path):
    (tmp_path / "kept").mkdir()
    embeddings = (f"embeddings/{name}_embeddings" for name in ("word", "position", "token_type"))
    names = sorted([*embeddings, "pooler/dense/bias"])
    write_bundle(tmp_path / "kept" / "bert", [(f"bert/{name}", np.ones((4, 2), np.float32)) for name in names])
    (tmp_path / "kept" / "bert_config.json").write_text("{}")
    assert_refused(run("convert", tmp_path / "kept", tmp_path / "out"), 4, "plain BERT", folder=tmp_path)


def test_the_joint_model_is_4_by_name_and_its_encoder_converts(run, tmp_path):
    state = torch.load(TORCH / "pytorch_model.bin", weights_only=True)
    state = {name: tensor for name, tensor in state.items() if name.startswith("bert.")}
    joint = ("intent_classifier.weight", "lstm.weight_ih_l0", "slot_classifier.weight")
    (tmp_path / "kept").mkdir()
    torch.save(state | {name: torch.ones(2, 2) for name in joint}, tmp_path / "kept" / "joint.bin")
    arguments = ("convert", tmp_path / "kept", tmp_path / "out", "--config", TORCH / "bert_config.json")
    assert_refused(run(*arguments), 4, "BertForJointLSTM", "--head encoder", folder=tmp_path)
    assert run(*arguments, "--head", "encoder").code == 0


def test_a_pickle_that_runs_a_command_is_3_and_does_not_run(run, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    (tmp_path / "kept").mkdir()
    for legacy in (False, True):
        torch.save({"weight": Hostile()}, tmp_path / "kept" / "model.bin", _use_new_zipfile_serialization=not legacy)
        result = run("convert", tmp_path / "kept", tmp_path / "out", "--config", TORCH / "bert_config.json")
        assert_refused(result, 3, "system", "Nothing in it was run", folder=tmp_path)


def test_a_disk_without_room_is_5(run, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: usage(100, 0, 100))
    assert_refused(run("convert", TF, tmp_path / "out"), 5, "100 free", folder=tmp_path)


def test_a_disk_that_fills_up_meanwhile_is_5(run, tmp_path, monkeypatch):
    def full(file, block):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "_write_all", full)
    assert_refused(run("convert", TF, tmp_path / "out"), 5, "No space left", folder=tmp_path)


def test_an_output_that_exists_is_5_and_stays_as_it_was(run, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "mine.txt").write_text("mine")
    assert_refused(run("convert", TF, tmp_path / "kept"), 5, "not replaced", "remove it yourself", folder=tmp_path)
    assert_refused(run("convert", TF, tmp_path / "kept", "--force"), 5, "not replaced", folder=tmp_path)
    assert (tmp_path / "kept" / "mine.txt").read_text() == "mine"


def test_force_replaces_a_converted_folder(run, tmp_path):
    assert run("convert", TF, tmp_path / "out").code == 0
    (tmp_path / "out" / "stale.txt").touch()
    assert run("convert", TORCH, tmp_path / "out", "--force").code == 0
    assert not (tmp_path / "out" / "stale.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_output_over_the_source_is_2(run, source):
    (source / "conversion.json").write_text("{}")
    result = run("convert", source, source, "--force")
    assert result.code == 2 and "would replace the source" in result.err
    assert (source / f"{PREFIX}.index").is_file()


def test_a_root_classifier_without_a_head_is_2_and_names_both(run, tmp_path):
    result = run("convert", FIXTURES / "huawei-tf-ner", tmp_path / "out")
    command = f"next: nezha-convert convert {FIXTURES / 'huawei-tf-ner'} {tmp_path / 'out'} --head"
    assert_refused(result, 2, f"{command} sequence-classification", f"{command} token-classification", folder=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("convrt",), "convert"),
        (("convert", "only-a-source"), "OUTPUT"),
        (("convert", "a", "b", "--head", "ner"), "token-classification"),
        (("convert", "a", "b", "--max-shard-size", "2 parsecs"), "2GB"),
        (("convert", "a", "b", "--vocab", "nope.txt"), "nope.txt"),
        (("convert", "hf://name", "b"), "OWNER/NAME"),
    ],
)
def test_a_wrong_command_is_2_and_says_what_was_expected(run, arguments, words):
    result = run(*arguments)
    assert result.code == 2 and words in result.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("inspect", "nope"), 3), (("convert", "nope", "out"), 3), (("convert", "only-a-source"), 2)],
)
def test_a_failure_is_one_json_document_too(run, arguments, code):
    result = run(*arguments, "--json")
    document = json.loads(result.out)
    assert result.code == document["exit_code"] == code
    assert document["message"] and result.err == ""


# verify


@pytest.fixture
def output(run, tmp_path) -> Path:
    assert run("convert", TF, tmp_path / "out").code == 0
    return tmp_path / "out"


def change_clip(output: Path) -> None:
    config = (output / "config.json").read_text()
    (output / "config.json").write_text(config.replace('"max_relative_position": 64', '"max_relative_position": 63'))


def test_verify_shows_every_tensor_and_the_verdict(run, output):
    result = run("verify", TF, output)
    assert result.code == 0 and result.err == ""
    rows = {line.split()[0]: line for line in result.out.splitlines() if line}
    for tensor in ("embeddings", "layer_0", "layer_1", "pooler", "prediction_logits", "seq_relationship_logits"):
        assert "100.0%" in rows[tensor]
    assert "against the oracle; allowed: 2e-05" in result.out
    assert rows["verdict"].split() == ["verdict", "passed"]


def test_a_failed_verification_is_1_and_names_what_departs_first(run, output, tmp_path):
    change_clip(output)
    result = run("verify", TF, output, "--junit", tmp_path / "parity.xml")
    assert result.code == 1
    assert "first departs layer_0: " in result.out and "FAILED" in result.out
    assert "config.json was changed since it was converted" in result.out
    assert "<failure" in (tmp_path / "parity.xml").read_text()
    document = json.loads(run("verify", TF, output, "--json").out)
    assert (document["passed"], document["first_departs"]) == (False, "layer_0")
    assert run("verify", TF, output, "--json").code == 1


def test_verify_writes_a_page_whose_numbers_are_the_json_s(run, output, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra html is not installed")
    result = run("verify", TF, output, "--json", "--html", tmp_path / "parity.html")
    document, text = json.loads(result.out), (tmp_path / "parity.html").read_text("utf-8")
    assert result.code == 0 and document["passed"]
    embedded = json.loads(text.split('<script type="application/json" id="report">')[1].split("</script>")[0])
    assert embedded == document


def test_verify_leaves_the_folder_alone_on_request(run, output):
    before = (output / "conversion.json").read_bytes()
    assert run("verify", TF, output, "--no-record").code == 0
    assert (output / "conversion.json").read_bytes() == before
    assert run("verify", TF, output).code == 0
    assert json.loads((output / "conversion.json").read_text())["parity"]["passed"] is True


def test_the_options_of_verify_reach_it(run, tmp_path):
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a"]) + "\n")
    (tmp_path / "texts.txt").write_text("a aa\n")
    config = ["--config", TF / "bert_config.json", "--vocab", vocab]
    assert run("convert", TF, tmp_path / "out", *config).code == 0
    options = [*config, "--texts", tmp_path / "texts.txt", "--tolerance", "1e-3", "--json"]
    document = json.loads(run("verify", TF, tmp_path / "out", *options).out)
    assert document["passed"] and document["comparisons"][0]["tolerance"] == 1e-3
    assert document["cases"][-1] == {"name": "text 1", "shape": [1, 5]}
    refused = run("verify", TF, tmp_path / "out", *config, "--original", tmp_path / "no-clone")
    assert refused.code == 2 and "git clone" in refused.err


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        (TORCH, 4, "not a conversion of this source"),
        (FIXTURES / "nowhere", 3, "no such file"),
    ],
    ids=["another source", "no source"],
)
def test_verify_refuses_what_it_cannot_compare(run, output, source, code, words):
    result = run("verify", source, output)
    assert result.code == code and words in result.err and result.out == ""
    assert json.loads(run("verify", source, output, "--json").out)["exit_code"] == code


def test_verify_of_texts_without_a_tokenizer_is_2(run, output, tmp_path):
    (tmp_path / "texts.txt").write_text("a\n")
    result = run("verify", TF, output, "--texts", tmp_path / "texts.txt")
    assert result.code == 2 and "has no tokenizer" in result.err and "--vocab FILE" in result.err


def test_a_junit_file_that_cannot_be_written_is_5(run, output, tmp_path):
    result = run("verify", TF, output, "--junit", tmp_path / "nowhere" / "parity.xml")
    assert result.code == 5 and "parity.xml: cannot be written" in result.err


# A process of its own


def process(*arguments: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "nezha_convert", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture
def large(tmp_path) -> Path:
    """A checkpoint whose conversion takes long enough to be interrupted."""
    from nezha_convert.families import HUAWEI_TF
    from nezha_convert.families.heads import ENCODER, POOLER, TARGETS
    from nezha_convert.families.rules import Op, numbered

    config = json.loads((TF / "bert_config.json").read_text()) | {"hidden_size": 512, "intermediate_size": 2048}
    config |= {"num_hidden_layers": 12}
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "bert_config.json").write_text(json.dumps(config))
    tensors = []
    for part in (ENCODER, POOLER):
        for rule in HUAWEI_TF.rules[part]:
            shape = [config[dim] for dim in TARGETS[part][rule.target]]
            array = np.ones(shape[::-1] if rule.op is Op.TRANSPOSE else shape, np.float32)
            tensors += [(name, array) for name in numbered([rule.source], config["num_hidden_layers"])]
    write_bundle(folder / PREFIX, tensors)
    return folder


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)], ids=str
)
def test_a_stopped_conversion_leaves_no_output(large, number, code):
    """Stopped while it writes; cleaned up too, where the process is asked and not killed."""
    running = process("convert", large, large.parent / "out")
    while not list(large.parent.glob(".out.part/new/model.safetensors")):
        assert running.poll() is None, running.communicate()
        time.sleep(0.001)
    running.send_signal(number)
    _, err = running.communicate()
    assert running.returncode == code
    assert "Traceback" not in err
    left = {path.name for path in large.parent.iterdir()} - {"source"}
    assert "out" not in left
    assert number == signal.SIGKILL or not left


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=str)
def test_a_stopped_command_gives_one_json_document(large, number, code):
    running = process("convert", large, large.parent / "out", "--json")
    while not list(large.parent.glob(".out.part/new/model.safetensors")):
        assert running.poll() is None, running.communicate()
        time.sleep(0.001)
    running.send_signal(number)
    out, _ = running.communicate()
    document = json.loads(out)
    assert running.returncode == document["exit_code"] == code and "interrupted" in document["message"]


@pytest.mark.parametrize("debug", ["", "1"])
def test_a_fault_of_ours_is_not_taken_for_failed_parity(run, monkeypatch, debug):
    def faulty(*arguments, **options):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(inspect_verb, "inspect", faulty)
    monkeypatch.setenv("NEZHA_DEBUG", debug)
    result = run("inspect", TF, "--json")
    document = json.loads(result.out)
    assert result.code == document["exit_code"] == 70
    assert "a fault of nezha-convert: ZeroDivisionError: oops" in document["message"]
    assert ("Traceback" in result.err) == bool(debug)


def test_a_reader_that_goes_away_is_no_error():
    running = process("inspect", TF, "--tensors")
    running.stdout.close()
    assert running.wait() in (0, 141)
    assert running.stderr.read() == ""


def test_a_reader_that_goes_away_between_two_tables_is_no_error(tmp_path):
    """Tables, lines and tables again: nothing but the end of the command may write to a pipe that is closed."""
    nezha_convert.convert(TORCH, tmp_path / "out")
    running = process("diff", TF, tmp_path / "out")
    running.stdout.close()
    assert (running.wait(), running.stderr.read()) == (141, "")


def test_no_traceback_reaches_a_user_unless_asked(tmp_path):
    quiet = process("inspect", tmp_path / "nope").communicate()[1]
    loud = process("inspect", tmp_path / "nope", env=os.environ | {"NEZHA_DEBUG": "1"}).communicate()[1]
    assert "Traceback" not in quiet and "Traceback" in loud


def test_the_version_is_the_package_s():
    out, _ = process("--version").communicate()
    assert nezha_convert.__version__ in out


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["words", "json"])
@pytest.mark.parametrize("mebibytes", [40, 60, 120, 146, 200, 300, 500])
@pytest.mark.parametrize("name", ["huawei-tf-pretraining", "huawei-torch-classifier"])
def test_a_limit_of_memory_is_told_in_words_and_is_no_failed_parity(name, mebibytes, form):
    limited = (
        f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_AS, ({mebibytes << 20},) * 2)\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", limited, "-m", "nezha_convert", "inspect", str(FIXTURES / name), *form]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(nezha_convert.__file__).parents[1])
    assert done.returncode in (0, 70)
    if done.returncode and form:
        assert "not enough memory" in json.loads(done.stdout)["message"]
    elif done.returncode:
        assert done.stderr.startswith("error: there is not enough memory") and "\nnext: Raise the limit" in done.stderr
    assert done.returncode == 70 or mebibytes > 256


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["words", "json"])
def test_a_package_that_is_missing_is_told_in_words_and_is_no_failed_parity(form, tmp_path):
    (tmp_path / "click.py").write_text("raise ImportError('no click here')")
    command = [sys.executable, "-m", "nezha_convert", "inspect", str(TF), *form]
    root = Path(nezha_convert.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 70
    assert "cannot be started (ImportError: no click here)" in done.stdout + done.stderr
    assert not form or json.loads(done.stdout)["hint"]


def test_the_summary_of_a_command_is_a_whole_sentence_at_every_width(run, monkeypatch):
    for width in (50, 80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        listed = " ".join(run("--help").out.partition("\nCommands:\n")[2].split())
        for name, command in cli.commands.items():
            (sentence,) = re.findall(r"^(?:.(?!\. [A-Z]))+.\.?", " ".join(command.help.split("\n\n")[0].split()))
            assert f"{name} {sentence}" in listed, width


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script_of_completion(shell, monkeypatch, run):
    monkeypatch.setenv("_NEZHA_CONVERT_COMPLETE", f"{shell}_source")
    done = run()
    assert done.code == 0 and f"_NEZHA_CONVERT_COMPLETE={shell}_complete" in done.out


def test_another_shell_is_refused_with_the_names_of_those_that_are_known(monkeypatch, run):
    monkeypatch.setenv("_NEZHA_CONVERT_COMPLETE", "tcsh_source")
    done = run()
    assert done.code == 2 and "expected bash_source, zsh_source or fish_source" in done.err


COMPLETES = """
eval "$(_NEZHA_CONVERT_COMPLETE=bash_source nezha-convert)"
COMP_WORDS=(nezha-convert "$@"); COMP_CWORD=$#
compopt() { echo "files: $1 $2"; }
_nezha_convert_completion nezha-convert
echo "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (("conv",), "convert"),
        (("convert", "NEZHA"), "files: -o default"),
        (("verify", "NEZHA-Base", "nezha"), "files: -o default"),
        (("convert", "a", "b", "--head", "next"), "next-sentence-prediction"),
        (("export", "a", "b", "--to", "onn"), "onnx"),
        (("env", "--j"), "--json"),
    ],
)
def test_bash_completes_commands_files_options_and_their_values(words, completed, tmp_path):
    if not (bash := shutil.which("bash")):
        pytest.skip("there is no bash")
    command = tmp_path / "nezha-convert"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m nezha_convert "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([bash, "-c", COMPLETES, "bash", *words], env=environment, capture_output=True, text=True)
    assert (done.stdout.split("\n")[0].strip(), done.stderr) == (completed, "")


def test_inspect_and_diff_call_our_own_folder_by_its_name(run, tmp_path):
    nezha_convert.convert(TORCH, tmp_path / "own")
    assert "a folder of nezha-convert" in run("inspect", tmp_path / "own").out
    shown = run("diff", TORCH, tmp_path / "own").out
    assert "a folder of nezha-convert; " in shown and "transformers up to 4.57" not in shown
    assert "a folder of nezha-convert" in run("convert", tmp_path / "own", tmp_path / "again", "--dry-run").out
    (tmp_path / "own" / "conversion.json").unlink()
    assert "transformers up to 4.57" in run("inspect", tmp_path / "own").out


def test_inspect_offers_the_next_step_of_our_own_folder(run, tmp_path):
    own = tmp_path / "own"
    nezha_convert.convert(TORCH, own)
    assert run("inspect", own).out.splitlines()[-1] == f"next     nezha-convert verify SOURCE {own}"
    nezha_convert.verify(TORCH, own)
    assert run("inspect", own).out.splitlines()[-1] == f"next     nezha-convert push {own} OWNER/NAME"
