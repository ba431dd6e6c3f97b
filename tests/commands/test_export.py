"""The way back: what a program wrote comes back bit by bit, and what would compute other numbers is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clones import CLONE, need
from goldens import FIXTURES, GOLDENS, HELPERS, Golden
from safetensors.numpy import load_file, save_file
from upstream import run_isolated, run_python

import nezha_convert
from nezha_convert import convert, export, export_graph, families, open_checkpoint
from nezha_convert.cli.app import main
from nezha_convert.errors import MappingError, OutputError, UsageError
from nezha_convert.exports import onnx as onnx_export
from nezha_convert.exports.onnx import Measured, OnnxResult
from nezha_convert.families import PROGRAMS
from nezha_convert.families.rules import Family, Op
from nezha_convert.parity.oracle.model import Oracle

ROOT = Path(__file__).parents[2]
PROGRAM_OF = {"transformers": "transformers-4"} | {name: name for name in PROGRAMS}
"""The program that wrote each family."""

CASES = [
    (golden, PROGRAM_OF[golden.family])
    for golden in GOLDENS
    if golden.family in PROGRAM_OF and not golden.name.startswith(("jaber", "bert4torch-0.2"))  # other names, only read
]
CLASSIFYING = [to for to, program in PROGRAMS.items() if "sequence-classification" in program.heads]
Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


def by_name(name: str) -> Golden:
    return next(golden for golden in GOLDENS if golden.name == name)


def converted(golden: Golden | Path, folder: Path, **options: Any) -> dict[str, Any]:
    """Convert into `folder`; the report."""
    asked = {"head": golden.head} if isinstance(golden, Golden) and golden.asked else {}
    source = golden.folder if isinstance(golden, Golden) else golden
    return convert(source, folder, **(asked | options)).to_dict()


def tensors_of(source: Path) -> Tensors:
    return {n: (e.dtype, e.shape, e.read().tobytes()) for n, e in open_checkpoint(source).entries.items()}


def decisions(report: Any) -> dict[str, Any]:
    return {decision.field: decision.value for decision in report.decisions}


def differing(source: Path, exported: Path, dropped: set[str]) -> list[str]:
    """What an export lacks, has besides, or has otherwise; conversion.json excuses what was `dropped` on the way."""
    a, b = tensors_of(source), tensors_of(exported)
    return sorted(name for name in a.keys() | b.keys() if name not in dropped and a.get(name) != b.get(name))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every golden, converted."""
    folder = tmp_path_factory.mktemp("converted")
    for golden in GOLDENS:
        converted(golden, folder / golden.name)
    return folder


def edited(folder: Path, to: Path, tensors: dict[str, np.ndarray] | None = None, **fields: Any) -> Path:
    """A converted folder with other fields in its config, or other tensors."""
    to.mkdir()
    (to / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | fields))
    save_file(load_file(folder / "model.safetensors") | (tensors or {}), to / "model.safetensors")
    return to


# There and back


@pytest.mark.parametrize(("golden", "to"), CASES, ids=str)
def test_what_a_program_wrote_comes_back_in_names_types_shapes_and_bits(
    golden: Golden, to: str, tmp_path: Path
) -> None:
    report = converted(golden, tmp_path / "converted")
    done = export(tmp_path / "converted", tmp_path / "back", to)
    dropped = {dropped["name"] for dropped in report["dropped"]}
    if to != "transformers-4":  # safetensors, which holds no tensor twice; fixtures in .bin have the tied ones
        tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder_weight", "mlmDecoder.weight"}
        dropped -= tied
    assert differing(golden.folder, tmp_path / "back", dropped) == []
    assert len(done.written) == len(tensors_of(tmp_path / "back"))
    assert done.to == to


@pytest.mark.parametrize("to", PROGRAMS)
@pytest.mark.parametrize("golden", GOLDENS, ids=str)
def test_an_export_converts_to_the_same_model_or_is_refused(
    golden: Golden, to: str, folders: Path, tmp_path: Path
) -> None:
    model = folders / golden.name
    try:
        export(model, tmp_path / "back", to)
    except MappingError as error:
        assert to != "transformers-4" or golden.head == "prefix-lm"
        known = ("activation", "attention", "head", "max_rel", "layer_norm", "decoder")
        assert all(problem.startswith(known) for problem in error.problems)
        assert not list(tmp_path.iterdir())
        return
    converted(tmp_path / "back", tmp_path / "again", head=golden.head)
    assert (tmp_path / "again/model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    then, now = (json.loads((folder / "config.json").read_text()) for folder in (model, tmp_path / "again"))
    changed = {decision["field"] for decision in json.loads((tmp_path / "back/export.json").read_text())["decisions"]}
    assert (then.get("masked_rows") == now.get("masked_rows")) is ("masked_rows" not in changed)
    for config in (then, now):
        config.pop("masked_rows", None)
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "classifier_dropout", "problem_type"):
            # Huawei's JSON has none
            config.pop(name, None)
        if config["hidden_act"] == "gelu_new":  # another name of it
            config["hidden_act"] = "gelu_pytorch_tanh"
    assert now == then


def test_a_kernel_left_as_it_lies_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lazily(table: Family) -> Family:
        rules = {part: tuple(replace(rule, op=Op.COPY) for rule in rules) for part, rules in table.rules.items()}
        return inverse(replace(table, rules=rules))

    golden, inverse = by_name("huawei-tf-classifier"), Family.inverse
    report = converted(golden, tmp_path / "converted")
    monkeypatch.setattr(Family, "inverse", lazily)
    export(tmp_path / "converted", tmp_path / "back", "huawei-tf")
    wrong = differing(golden.folder, tmp_path / "back", {dropped["name"] for dropped in report["dropped"]})
    assert "bert/encoder/layer_0/attention/self/query/kernel" in wrong  # square: its shape tells nothing
    assert all(name.endswith("kernel") for name in wrong)


def test_half_precision_is_widened_for_tensorflow_without_a_change(tmp_path: Path) -> None:
    converted(FIXTURES / "huawei-tf-squad", tmp_path / "half", dtype="bfloat16")
    done = export(tmp_path / "half", tmp_path / "back", "huawei-tf")
    assert decisions(done)["dtype"] == "float32"
    assert {e.dtype for e in open_checkpoint(tmp_path / "back").entries.values()} == {"float32", "int64"}
    converted(tmp_path / "back", tmp_path / "again", dtype="bfloat16")
    assert tensors_of(tmp_path / "again") == tensors_of(tmp_path / "half")


@pytest.mark.parametrize(("dtype", "written"), [("float16", "float16"), ("bfloat16", "float32")])
def test_only_bfloat16_is_widened_for_torch_1_1(dtype: str, written: str, tmp_path: Path) -> None:
    converted(FIXTURES / "huawei-torch-pretraining", tmp_path / "half", dtype=dtype)
    done = export(tmp_path / "half", tmp_path / "back", "huawei-torch")
    assert decisions(done).get("dtype") == (written if written == "float32" else None)
    assert {e.dtype for e in open_checkpoint(tmp_path / "back").entries.values()} == {written}
    assert (tmp_path / "back" / "pytorch_model.bin").read_bytes()[:2] == b"\x80\x02"  # no zip file
    converted(tmp_path / "back", tmp_path / "again", dtype=dtype)
    assert tensors_of(tmp_path / "again") == tensors_of(tmp_path / "half")


@pytest.mark.parametrize("to", ["transformers-4", "paddle"])
def test_half_precision_stays_where_the_program_has_it(to: str, tmp_path: Path) -> None:
    converted(FIXTURES / "transformers-4.40.2-pretraining", tmp_path / "half", dtype="bfloat16")
    export(tmp_path / "half", tmp_path / "back", to)
    assert {e.dtype for e in open_checkpoint(tmp_path / "back").entries.values()} == {"bfloat16"}


# What goes with the weights


def test_a_pooler_that_the_model_lacks_is_zeros_and_said(folders: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders / "huawei-tf-squad", tmp_path / "folder"))
    own = export(folder, tmp_path / "own", "huawei-tf")  # the source's own was kept beside the model
    kernel = open_checkpoint(FIXTURES / "huawei-tf-squad").entries["bert/pooler/dense/kernel"].read()
    assert np.array_equal(open_checkpoint(tmp_path / "own").entries["bert/pooler/dense/kernel"].read(), kernel)
    assert "pooler" not in decisions(own)
    (folder / "extra.safetensors").unlink()
    done = export(folder, tmp_path / "back", "huawei-tf")
    entries = open_checkpoint(tmp_path / "back").entries
    assert entries["bert/pooler/dense/kernel"].shape == (32, 32)
    assert not entries["bert/pooler/dense/kernel"].read().any()
    assert entries["global_step"].read() == 0
    assert decisions(done)["pooler"] == "zeros"
    assert [tensor.target for tensor in done.written if tensor.source == "zeros"] == [
        "bert/pooler/dense/kernel",
        "bert/pooler/dense/bias",
        "global_step",
    ]


def test_each_layer_of_bert4torch_has_its_table_of_positions(folders: Path, tmp_path: Path) -> None:
    export(folders / "bert4torch-pretraining", tmp_path / "back", "bert4torch")
    theirs = open_checkpoint(FIXTURES / "bert4torch-pretraining").entries
    ours = open_checkpoint(tmp_path / "back").entries
    names = [name for name in theirs if name.endswith("position_embeddings")]
    assert len(names) == 2
    for name in names:
        assert (ours[name].dtype, ours[name].shape) == (theirs[name].dtype, theirs[name].shape)
        assert np.abs(ours[name].read() - theirs[name].read()).max() < 1e-6
    assert np.array_equal(ours[names[0]].read(), np.concatenate([block.copy() for block in ours[names[0]].blocks(100)]))


def test_labels_of_tokens_go_back_without_the_padding_and_come_again(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("".join(f"标签{i}\n" for i in range(1, 11)), "utf-8")
    options = {"head": "token-classification", "labels": tmp_path / "labels.txt"}
    converted(FIXTURES / "huawei-tf-ner", tmp_path / "ner", **options)
    export(tmp_path / "ner", tmp_path / "back", "huawei-tf")
    assert (tmp_path / "back/labels.txt").read_bytes() == (tmp_path / "labels.txt").read_bytes()
    converted(tmp_path / "back", tmp_path / "again", head="token-classification")
    assert (tmp_path / "again/config.json").read_bytes() == (tmp_path / "ner/config.json").read_bytes()


@pytest.mark.parametrize("to", CLASSIFYING)
def test_labels_of_sentences_go_to_every_program_and_come_again(to: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    source = FIXTURES / "huawei-torch-classifier"
    converted(source, tmp_path / "one", labels=tmp_path / "labels.txt")
    export(tmp_path / "one", tmp_path / "back", to, accept_activation=True)
    converted(tmp_path / "back", tmp_path / "again", head="sequence-classification")
    assert [*json.loads((tmp_path / "again/config.json").read_text())["id2label"].values()] == [*"abcde"]


def test_made_up_labels_become_no_file(folders: Path, tmp_path: Path) -> None:
    export(folders / "huawei-tf-classifier", tmp_path / "back", "huawei-tf")
    assert not (tmp_path / "back/labels.txt").exists()


def test_the_vocabulary_is_carried(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    converted(FIXTURES / "huawei-tf-squad", tmp_path / "one", vocab=tmp_path / "vocab.txt")
    export(tmp_path / "one", tmp_path / "back", "huawei-tf")
    assert (tmp_path / "back/vocab.txt").read_bytes() == (tmp_path / "vocab.txt").read_bytes()
    export(tmp_path / "one", tmp_path / "four", "transformers-4")
    assert (tmp_path / "four/tokenizer.json").read_bytes() == (tmp_path / "one/tokenizer.json").read_bytes()


def test_the_report_names_every_file_with_its_hash(folders: Path, tmp_path: Path) -> None:
    done = export(folders / "huawei-torch-qa", tmp_path / "back", "huawei-torch")
    kept = json.loads((tmp_path / "back/export.json").read_text())
    assert {file["name"] for file in kept["output_files"]} | {"export.json"} == {
        path.name for path in (tmp_path / "back").iterdir()
    }
    assert all(len(file["sha256"]) == 64 for file in kept["output_files"])
    assert not {"output", "seconds", "dry_run"} & kept.keys()
    assert done.output == str(tmp_path / "back")


def test_the_json_is_the_program_s_own(folders: Path, tmp_path: Path) -> None:
    export(folders / "huawei-tf-squad", tmp_path / "tf", "huawei-tf")
    config = json.loads((tmp_path / "tf/bert_config.json").read_text())
    assert config["hidden_act"] == "gelu"  # which is the tanh approximation there
    assert config["use_relative_position"] is True
    assert not {"layer_norm_eps", "max_relative_position"} & config.keys()  # hard-coded there
    export(folders / "huawei-torch-mlm-rel127", tmp_path / "torch", "huawei-torch")
    assert json.loads((tmp_path / "torch/bert_config.json").read_text())["max_relative_position"] == 127
    export(folders / "huawei-tf-squad", tmp_path / "four", "transformers-4")
    config = json.loads((tmp_path / "four/config.json").read_text())
    assert (config["hidden_act"], config["model_type"]) == ("gelu_pytorch_tanh", "nezha")
    assert "auto_map" not in config


# What is refused


def refused(folder: Path, to: str, tmp_path: Path, **options: Any) -> MappingError:
    with pytest.raises(MappingError) as caught:
        export(folder, tmp_path / "back", to, **options)
    assert not (tmp_path / "back").exists()
    return caught.value


def test_another_gelu_is_refused_with_what_it_would_change(folders: Path, tmp_path: Path) -> None:
    error = refused(folders / "huawei-tf-squad", "huawei-torch", tmp_path)
    assert error.exit_code == 4
    assert "--accept-activation" in error.hint
    (problem,) = error.problems
    assert "gelu_pytorch_tanh" in problem
    stated = float(problem.split(" by ")[1].split()[0])
    source = open_checkpoint(FIXTURES / "huawei-tf-squad")
    random = np.random.default_rng(2019).integers(0, 64, (3, 8))  # the first of the built-in inputs
    config = json.loads((folders / "huawei-tf-squad/config.json").read_text())
    entries = open_checkpoint(folders / "huawei-tf-squad").entries
    a = Oracle(source.entries, {"num_hidden_layers": 2, "num_attention_heads": 2}, "question-answering").forward(random)
    b = Oracle(entries, config | {"hidden_act": "gelu"}, "question-answering").forward(random)
    changes = [np.abs(a[name] - b[name]).max() / np.ptp(a[name]) for name in ("start_logits", "end_logits")]
    assert stated == pytest.approx(max(changes), rel=0.05)


def test_an_accepted_gelu_is_said(folders: Path, tmp_path: Path) -> None:
    done = export(folders / "huawei-tf-squad", tmp_path / "back", "huawei-torch", accept_activation=True)
    (decision,) = (decision for decision in done.decisions if decision.field == "hidden_act")
    assert decision.value == "gelu"
    assert "of its range" in decision.reason


def test_an_activation_without_a_counterpart_cannot_be_accepted(folders: Path, tmp_path: Path) -> None:
    folder = edited(folders / "huawei-tf-squad", tmp_path / "mish", hidden_act="mish")
    error = refused(folder, "huawei-tf", tmp_path, accept_activation=True)
    assert error.problems == (
        "activation: the model computes mish, Huawei's NEZHA-TensorFlow has gelu, relu, tanh, linear",
    )


@pytest.mark.parametrize(("own", "theirs"), [("silu", "swish"), ("swish", "swish"), ("relu", "relu")])
def test_another_name_of_the_same_function_is_no_matter(own: str, theirs: str, folders: Path, tmp_path: Path) -> None:
    folder = edited(folders / "huawei-torch-qa", tmp_path / "other", hidden_act=own)
    export(folder, tmp_path / "back", "huawei-torch")
    assert json.loads((tmp_path / "back/bert_config.json").read_text())["hidden_act"] == theirs


def test_every_reason_is_told_at_once(folders: Path, tmp_path: Path) -> None:
    folder = edited(
        folders / "huawei-torch-multiple-choice", tmp_path / "x", max_relative_position=127, layer_norm_eps=1e-5
    )
    problems = refused(folder, "huawei-tf", tmp_path).problems
    kinds = ("head", "layer_norm_eps", "max_relative_position", "activation")
    assert [problem.split(":")[0] for problem in problems] == list(kinds)
    assert "127" in problems[2]
    assert "1e-05" in problems[1]


@pytest.mark.parametrize("to", ["huawei-tf", "paddle"])
def test_bert4keras_s_epsilon_is_refused_where_another_is_hard_coded_with_what_it_would_change(
    to: str, folders: Path, tmp_path: Path
) -> None:
    error = refused(folders / "bert4keras-pretraining", to, tmp_path)
    problem = next(problem for problem in error.problems if problem.startswith("layer_norm_eps"))
    assert "the model has 1e-07" in problem and "computes with 1e-12 (hard-coded in" in problem
    changed = re.search(r"on a built-in input that changes \w+ by (\S+) of its range", problem)
    assert changed and 1e-9 < float(changed[1]) < 1
    assert "--to transformers-4" in error.hint
    export(folders / "bert4keras-pretraining", tmp_path / "back", "transformers-4")
    assert json.loads((tmp_path / "back/config.json").read_text())["layer_norm_eps"] == 1e-7


def test_an_activation_that_the_oracle_lacks_leaves_the_change_untold(folders: Path, tmp_path: Path) -> None:
    folder = edited(folders / "huawei-torch-qa", tmp_path / "mish", hidden_act="mish", layer_norm_eps=1e-5)
    problem = next(p for p in refused(folder, "huawei-tf", tmp_path).problems if p.startswith("layer_norm_eps"))
    assert problem.endswith("(hard-coded in Huawei's TensorFlow code)")


def test_an_epsilon_that_one_head_has_hard_coded_is_refused_for_that_head_alone(folders: Path, tmp_path: Path) -> None:
    folder = edited(folders / "huawei-torch-pretraining", tmp_path / "mlm", layer_norm_eps=1e-5)
    (problem,) = refused(folder, "huawei-torch", tmp_path).problems
    assert problem.startswith("layer_norm_eps: the model has 1e-05")
    folder = edited(folders / "huawei-torch-qa", tmp_path / "qa", layer_norm_eps=1e-5)
    export(folder, tmp_path / "back", "huawei-torch")
    assert json.loads((tmp_path / "back/bert_config.json").read_text())["layer_norm_eps"] == 1e-5


def test_a_decoder_of_its_own_goes_only_where_there_is_one(folders: Path, tmp_path: Path) -> None:
    rows, bias = np.ones((64, 32), "f4"), np.arange(64, dtype="f4")
    more = {"cls.predictions.decoder.weight": rows, "cls.predictions.decoder.bias": bias}
    folder = edited(folders / "transformers-4.40.2-masked-lm", tmp_path / "untied", more, tie_word_embeddings=False)
    (problem,) = refused(folder, "huawei-torch", tmp_path).problems
    assert problem.startswith("decoder")
    export(folder, tmp_path / "back", "transformers-4")
    bias_of_model = {"cls.predictions.decoder.bias": tensors_of(folder)["cls.predictions.bias"]}
    assert tensors_of(tmp_path / "back") == tensors_of(folder) | bias_of_model  # nezha reads no second bias


def test_double_precision_is_not_rounded_for_tensorflow(folders: Path, tmp_path: Path) -> None:
    doubles = {n: a.astype("f8") for n, a in load_file(folders / "huawei-tf-squad/model.safetensors").items()}
    folder = edited(folders / "huawei-tf-squad", tmp_path / "double", doubles)
    assert "float64" in refused(folder, "huawei-tf", tmp_path).problems[0]


@pytest.mark.parametrize("name", ["huawei-tf-squad", "huawei-torch-qa"])
def test_what_is_no_converted_folder_is_sent_to_convert(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a converted folder") as caught:
        export(FIXTURES / name, tmp_path / "back", "huawei-tf")
    assert "nezha-convert convert" in caught.value.hint


def test_an_unknown_program_is_told_which_there_are(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected one of huawei-tf"):
        export(folders / "huawei-tf-squad", tmp_path / "back", "tensorflow")


# A folder that appears complete or not at all


def test_only_an_export_is_replaced(folders: Path, tmp_path: Path) -> None:
    model = folders / "huawei-tf-squad"
    export(model, tmp_path / "back", "huawei-tf")
    with pytest.raises(OutputError, match="exists already"):
        export(model, tmp_path / "back", "huawei-tf")
    export(model, tmp_path / "back", "transformers-4", force=True)
    assert not list((tmp_path / "back").glob("model.ckpt*"))
    converted(by_name("huawei-torch-qa"), tmp_path / "other")
    for folder in (tmp_path / "other", model):
        before = sorted(path.name for path in folder.iterdir())
        with pytest.raises((OutputError, UsageError)):
            export(model, folder, "huawei-tf", force=True)
        assert sorted(path.name for path in folder.iterdir()) == before


def test_a_dry_run_of_a_graph_writes_nothing_and_says_what_is_decided(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    done = export_graph(folders / "huawei-tf-squad", tmp_path / "graph", precision="int8", dry_run=True)
    assert (done.head, done.dry_run, done.output_files, done.measured) == ("question-answering", True, (), ())
    assert decisions(done) == {"opset": 18, "precision": "int8"}
    with pytest.raises(SystemExit) as stop:
        main(["export", str(folders / "huawei-tf-squad"), str(tmp_path / "graph"), "--to", "onnx", "--dry-run"])
    assert stop.value.code == 0
    assert "nothing was written" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    with pytest.raises(MappingError, match=r"no conversion\.json"):
        export_graph(FIXTURES / "transformers-4.40.2-encoder", tmp_path / "graph", dry_run=True)


def test_a_dry_run_writes_nothing_and_says_everything(folders: Path, tmp_path: Path) -> None:
    done = export(folders / "huawei-tf-squad", tmp_path / "back", "huawei-tf", dry_run=True)
    assert (len(done.written), done.output_files) == (41, ())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", PROGRAMS)
@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt, OSError(28, "No space left on device")], ids=["ctrl-c", "full disk"]
)
def test_a_stop_in_the_middle_leaves_nothing(
    stop: Any, to: str, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = PROGRAMS[to].write

    def stopped(path: Path, tensors: Any) -> None:
        write(path, list(tensors)[:3])
        raise stop

    monkeypatch.setitem(families.PROGRAMS, to, replace(PROGRAMS[to], write=stopped))
    with pytest.raises((KeyboardInterrupt, OutputError)):
        export(folders / "huawei-torch-pretraining", tmp_path / "back", to, accept_activation=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["a byte", "a tensor lost", "a tensor more"])
@pytest.mark.parametrize("to", PROGRAMS)
def test_what_does_not_read_back_is_not_kept(
    damage: str, to: str, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = PROGRAMS[to].write

    def damaged(path: Path, tensors: Any) -> None:
        given = [tensor._replace(blocks=[block.copy() for block in tensor.blocks]) for tensor in tensors]
        if damage == "a byte":
            given[2].blocks[0].reshape(-1).view(np.uint8)[1] ^= 1
        if damage == "a tensor lost":
            del given[2]
        if damage == "a tensor more":
            given.append(given[2]._replace(name="more"))
        write(path, given)

    monkeypatch.setitem(families.PROGRAMS, to, replace(PROGRAMS[to], write=damaged))
    with pytest.raises(OutputError, match=r"does not read back|besides what was written"):
        export(folders / "huawei-torch-pretraining", tmp_path / "back", to, accept_activation=True)
    assert not list(tmp_path.iterdir())


# The command line


def test_the_command_prints_the_report_and_the_exit_code_says_why_not(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", str(folders / "huawei-tf-squad"), str(tmp_path / "back"), "--json", "--to"]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "huawei-tf"])
    assert stop.value.code == 0
    assert json.loads(capsys.readouterr().out)["to"] == "huawei-tf"
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "huawei-torch", "--force"])
    assert stop.value.code == 4
    assert "activation" in json.loads(capsys.readouterr().out)["problems"][0]


def test_a_person_is_told_what_was_decided_and_what_to_do_next(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["export", str(folders / "huawei-tf-squad"), str(tmp_path / "back"), "--to", "huawei-tf"])
    said = capsys.readouterr().out
    assert 'from beside = "2 tensors"' in said
    assert f"--init_checkpoint {tmp_path / 'back'}/model.ckpt" in said


@pytest.mark.parametrize("to", ["huawei-tf", "huawei-torch", "paddle", "transformers-4"])
def test_no_program_is_loaded_to_write_for_it(to: str, folders: Path, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "import nezha_convert\n"
        "nezha_convert.export(sys.argv[1], sys.argv[2], sys.argv[3], accept_activation=True)\n"
        "allowed = {'torch'} if sys.argv[3] == 'huawei-torch' else set()  # to read it back\n"
        "assert not {'torch', 'tensorflow', 'paddle', 'transformers'} & set(sys.modules) - allowed"
    )
    run_python(program, str(folders / "huawei-tf-classifier"), str(tmp_path / "back"), to, path=[ROOT])
    assert nezha_convert.export is export


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--to", "huawei-tf", "--fp16"], "--fp16 and --int8 are for --to onnx"),
        (["--to", "onnx", "--accept-activation"], "--accept-activation: not for --to onnx"),
    ],
    ids=" ".join,
)
def test_an_option_of_another_kind_of_export_is_refused(
    given: list[str], said: str, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", str(folders / "huawei-tf-squad"), str(tmp_path / "back"), *given])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_a_graph_is_staged_and_recorded_too(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def written(output: Path, stage: Path, *, precision: str, progress: Any) -> OnnxResult:
        (stage / "model.onnx").write_bytes(b"a graph")
        measured = (Measured("start_logits", 0.018, 0.1),)
        return OnnxResult(("model.onnx",), "question-answering", precision, 18, measured, ())

    monkeypatch.setattr(onnx_export, "export_onnx", written)
    with pytest.raises(SystemExit) as stop:
        main(["export", str(folders / "huawei-tf-squad"), str(tmp_path / "graph"), "--to", "onnx", "--int8"])
    assert stop.value.code == 0
    assert "start_logits: 1.8e-02 of its range from PyTorch" in capsys.readouterr().out
    kept = json.loads((tmp_path / "graph/export.json").read_text())
    assert (kept["to"], kept["measured"][0]["relative_error"]) == ("onnx", 0.018)
    assert [file["name"] for file in kept["output_files"]] == ["model.onnx"]

    def failing(*args: Any, **options: Any) -> OnnxResult:
        raise MappingError("the graph's outputs are not PyTorch's")

    monkeypatch.setattr(onnx_export, "export_onnx", failing)
    with pytest.raises(MappingError):
        export_graph(folders / "huawei-tf-squad", tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["graph"]


# The programs themselves


@pytest.mark.parametrize("name", [golden.name for golden in GOLDENS if golden.family == "huawei-tf"])
def test_huawei_s_own_program_computes_the_same_on_the_export(name: str, folders: Path, tmp_path: Path) -> None:
    need("tensorflow")
    golden = by_name(name)
    export(folders / name, tmp_path / "back", "huawei-tf")
    converted(tmp_path / "back", tmp_path / "again", head=golden.head)
    report = nezha_convert.verify(tmp_path / "back", tmp_path / "again", original=CLONE)
    assert report.passed
    assert any("Huawei" in comparison.reference for comparison in report.comparisons)


@pytest.mark.parametrize("name", ["huawei-torch-pretraining", "huawei-torch-qa", "huawei-torch-mlm-rel127"])
def test_huawei_s_torch_program_finds_a_value_for_each_of_its_weights(name: str, folders: Path, tmp_path: Path) -> None:
    need("pytorch")
    golden = by_name(name)
    export(folders / name, tmp_path / "back", "huawei-torch")
    converted(tmp_path / "back", tmp_path / "again", head=golden.head)
    report = nezha_convert.verify(tmp_path / "back", tmp_path / "again", original=CLONE)
    assert report.passed


LOADING = """
import json, sys
import transformers
from goldens import GOLDENS, errors
worst = {}
for golden in GOLDENS:
    cls = getattr(transformers, json.load(open(f"{sys.argv[1]}/{golden.name}/config.json"))["architectures"][0])
    short = json.load(open(f"{sys.argv[1]}/{golden.name}/config.json"))["max_position_embeddings"] < 512
    options = {"max_position_embeddings": 512} if short else {}  # a fixture that is short of positions, to be small
    model, info = cls.from_pretrained(f"{sys.argv[1]}/{golden.name}", output_loading_info=True, **options)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), (golden.name, info)
    assert cls.__module__.startswith("transformers.models.")
    for case, expected in golden.cases():
        if expected["input_ids"].shape[-1] <= model.config.max_position_embeddings:
            worst[golden.name] = max(worst.get(golden.name, 0), *errors(golden, model.eval(), case, expected).values())
print(json.dumps(worst))
"""


def test_transformers_4_loads_the_export_in_its_own_class_with_the_same_outputs(folders: Path, tmp_path: Path) -> None:
    if os.environ.get("NEZHA_MATRIX") != "all":
        pytest.skip("NEZHA_MATRIX=all runs it")
    for golden in GOLDENS:
        export(folders / golden.name, tmp_path / golden.name, "transformers-4")
    printed = run_isolated("4.40.2", LOADING, str(tmp_path), path=HELPERS)
    worst = json.loads(printed.splitlines()[-1])
    assert worst.keys() == {golden.name for golden in GOLDENS}
    assert all(error <= by_name(name).tolerance for name, error in worst.items()), worst
