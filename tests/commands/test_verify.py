"""`verify`: each right conversion passes, each mistake fails and is named, bad input is refused with a reason."""

from __future__ import annotations

import hashlib
import html
import importlib.util
import json
import os
import shutil
import string
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import warm_python
from goldens import FIXTURES, GOLDENS, Golden
from safetensors.torch import load_file, save_file

import nezha_convert
from nezha_convert.cli.app import cli
from nezha_convert.cli.console import Console
from nezha_convert.cli.run import run
from nezha_convert.commands import verify as verifying
from nezha_convert.errors import MappingError, OutputError, UsageError
from nezha_convert.files import staging
from nezha_convert.folder.card import conversion_card
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.parity import compare, inputs
from nezha_convert.parity import tokenizer as tokenizing
from nezha_convert.parity.measure import TOLERANCES, Measurement
from nezha_convert.parity.oracle import wordpiece
from nezha_convert.parity.originals import programs as originals
from nezha_convert.parity.render.junit import write_junit
from nezha_convert.parity.report import ParityReport

TF = next(golden for golden in GOLDENS if golden.name == "huawei-tf-pretraining")
VOCAB = FIXTURES / "tokenization" / "vocab.txt"
CLONE = os.environ.get("NEZHA_ORIGINAL_CLONE", "")
CASES = ["short", "past the clip", "past 512", "padded", "pair", "every type", "all masked"]
TINY_VOCAB = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "##a",
    "b",
    "##b",
    "我",
    "们",
    ",",
    "。",
    "n",
    "##e",
    "α",
    "##ς",
    "##σ",
]


def converted(golden: Golden, output: Path, **options: object) -> Path:
    nezha_convert.convert(golden.folder, output, head=golden.head if golden.asked else None, **options)
    return output


@pytest.fixture
def vocab(tmp_path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(TINY_VOCAB) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    return converted(TF, tmp_path / "out")


@pytest.fixture
def with_tokenizer(tmp_path, vocab) -> Path:
    return converted(TF, tmp_path / "out", vocab=vocab)


# Right conversions pass.


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("golden", GOLDENS, ids=str)
def test_the_conversion_of_every_golden_passes(golden, dtype, tmp_path):
    output = converted(golden, tmp_path / "out", dtype=dtype)
    report = nezha_convert.verify(golden.folder, output)
    assert report.passed, report.verdict
    names = [tensor.name for tensor in report.comparisons[0].tensors]
    assert names[:3] == ["embeddings", "layer_0", "layer_1"]
    assert [case.name for case in report.cases] == CASES
    # The margin is wide, so no tolerance is too close; and each tolerance is that of the table.
    for comparison in report.comparisons:
        margin = {"float32": 10, "float16": 3, "bfloat16": 3}[comparison.arithmetic]
        assert comparison.worst.relative_error < comparison.tolerance / margin
        assert comparison.tolerance == TOLERANCES[comparison.arithmetic][0]


def test_the_conversion_of_a_converted_folder_passes(folder, tmp_path):
    nezha_convert.convert(folder, tmp_path / "again")
    report = nezha_convert.verify(folder, tmp_path / "again")
    assert report.passed, report.verdict


def test_a_half_precision_folder_is_compared_in_float32_too(tmp_path):
    report = nezha_convert.verify(TF.folder, converted(TF, tmp_path / "out", dtype="bfloat16"))
    assert [(c.reference, c.arithmetic) for c in report.comparisons] == [
        ("the oracle", "bfloat16"),
        ("the oracle with weights rounded to bfloat16", "float32"),
    ]


def test_the_outcome_goes_into_conversion_json_and_nothing_else_changes(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    report = nezha_convert.verify(TF.folder, folder)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"conversion.json"}
    record = json.loads(after["conversion.json"])
    parity = record.pop("parity")
    assert record == json.loads(before["conversion.json"])
    assert parity["passed"] and parity["comparisons"][0]["worst_error"] == report.comparisons[0].worst.relative_error
    assert parity["verified"][0]["sha256"] == hashlib.sha256(after["model.safetensors"]).hexdigest()
    assert parity["versions"]["nezha-convert"] == nezha_convert.__version__
    assert "seconds" not in str(parity)
    nezha_convert.verify(TF.folder, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == after


def test_no_record_leaves_the_folder_untouched(folder):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    nezha_convert.verify(TF.folder, folder, record=False)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before


def test_progress_counts_every_step_once(folder):
    seen = []
    nezha_convert.verify(TF.folder, folder, progress=lambda done, steps, what: seen.append((done, steps)))
    steps = 2 + len(CASES)  # the layers, the cases
    assert list(dict.fromkeys(seen)) == [(i, steps) for i in range(steps + 1)]


# Each mistake fails. After a mutation the hashes are updated, so that only the numbers can show it.


def rehash(folder: Path) -> None:
    record = json.loads((folder / "conversion.json").read_text())
    for file in record["output_files"]:
        file["sha256"] = hashlib.sha256((folder / file["name"]).read_bytes()).hexdigest()
    (folder / "conversion.json").write_text(json.dumps(record))


def rewrite(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def mutate(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        tensors = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return mutate


def swap(*names: str) -> Callable[[Path], None]:
    return rewrite(lambda tensors: tensors.update(zip(names, [tensors[name] for name in reversed(names)], strict=True)))


def reconfigure(**fields: object) -> Callable[[Path], None]:
    def mutate(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | fields))

    return mutate


def _transpose(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{LAYER}.1.attention.output.dense.weight"] = tensors[f"{LAYER}.1.attention.output.dense.weight"].T


def _neighbour(tensors: dict[str, torch.Tensor]) -> None:
    tensors.update({name: tensors[name.replace(".1.", ".0.")] for name in tensors if f"{LAYER}.1." in name})


def _flip_exponent(tensors: dict[str, torch.Tensor]) -> None:
    weight = tensors[f"{LAYER}.0.output.LayerNorm.weight"].numpy()
    weight.view(np.uint32)[3] ^= 1 << 23  # the lowest bit of the exponent: the value doubles or halves


def _not_a_number(tensors: dict[str, torch.Tensor]) -> None:
    tensors["nezha.pooler.dense.bias"][5] = float("nan")


LAYER = "nezha.encoder.layer"
MUTATIONS = {
    "query and key swapped": (
        swap(f"{LAYER}.1.attention.self.query.weight", f"{LAYER}.1.attention.self.key.weight"),
        "layer_1",
    ),
    "key and value swapped": (
        swap(f"{LAYER}.0.attention.self.key.weight", f"{LAYER}.0.attention.self.value.weight"),
        "layer_0",
    ),
    "a square kernel untransposed": (rewrite(_transpose), "layer_1"),
    "erf for tanh": (reconfigure(hidden_act="gelu"), "layer_0"),
    "clip 63 for 64": (reconfigure(max_relative_position=63), "layer_0"),
    "clip 65 for 64": (reconfigure(max_relative_position=65), "layer_0"),
    "a layer's weights from its neighbour": (rewrite(_neighbour), "layer_1"),
    "a bit of a layer norm's exponent": (rewrite(_flip_exponent), "layer_0"),
    "the padding row zeroed": (
        rewrite(lambda tensors: tensors["nezha.embeddings.word_embeddings.weight"][0].zero_()),
        "embeddings",
    ),
    "token types swapped": (
        rewrite(
            lambda t: t.update(
                {(n := "nezha.embeddings.token_type_embeddings.weight"): t[n].flip(0)},
            )
        ),
        "embeddings",
    ),
    "the epsilon of another BERT": (reconfigure(layer_norm_eps=1e-2), "embeddings"),
    "a row that is masked throughout attends to all alike": (reconfigure(masked_rows="even"), "layer_0"),
    "the last word zeroed": (
        rewrite(lambda tensors: tensors["nezha.embeddings.word_embeddings.weight"][-1].zero_()),
        "embeddings",
    ),
    "the last token type zeroed": (
        rewrite(lambda tensors: tensors["nezha.embeddings.token_type_embeddings.weight"][-1].zero_()),
        "embeddings",
    ),
    "a NaN": (rewrite(_not_a_number), "pooler"),
    "the last bias of the head": (
        rewrite(lambda tensors: tensors["cls.seq_relationship.bias"].add_(1e-2)),
        "seq_relationship_logits",
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutation_fails_and_the_first_tensor_that_departs_is_named(mutation, dtype, tmp_path):
    mutate, first = MUTATIONS[mutation]
    folder = converted(TF, tmp_path / "out", dtype=dtype)
    if mutation == "a bit of a layer norm's exponent" and dtype != "float32":
        mutate = rewrite(lambda tensors: tensors[f"{LAYER}.0.output.LayerNorm.weight"][3].mul_(2))
    mutate(folder)
    rehash(folder)
    report = nezha_convert.verify(TF.folder, folder)
    assert not report.passed
    sharpest = min(report.comparisons, key=lambda comparison: comparison.tolerance)
    assert sharpest.first_departs.name == first
    assert f"first departs {first}: " in report.verdict
    assert json.loads((folder / "conversion.json").read_text())["parity"]["passed"] is False
    json.loads(report.to_json(), parse_constant=pytest.fail)  # NaN is not JSON


def test_a_value_that_is_not_finite_fails_whatever_is_allowed(folder):
    MUTATIONS["a NaN"][0](folder)
    rehash(folder)
    report = nezha_convert.verify(TF.folder, folder, tolerance=1e30)
    pooler = next(tensor for tensor in report.comparisons[0].tensors if tensor.name == "pooler")
    assert (pooler.nonfinite, pooler.passed, report.passed) == (14, False, False)  # one value in each row of the inputs
    assert "14 values not finite" in report.verdict
    assert not any(tensor.nonfinite for tensor in report.comparisons[0].tensors[:3])


def test_a_file_changed_since_the_conversion_fails_even_where_no_number_departs(folder):
    config = folder / "config.json"
    config.write_text(config.read_text() + "\n")
    report = nezha_convert.verify(TF.folder, folder)
    assert report.first_departs is None
    assert "config.json was changed since it was converted" in report.verdict


def test_another_tolerance_moves_the_verdict(folder):
    reconfigure(hidden_act="gelu")(folder)
    rehash(folder)
    assert not nezha_convert.verify(TF.folder, folder).passed
    assert nezha_convert.verify(TF.folder, folder, tolerance=1e-2).passed
    assert not nezha_convert.verify(TF.folder, folder, tolerance=1e-12).passed


def test_the_model_s_own_code_is_not_run_but_its_difference_is_told(folder):
    (folder / "modeling_nezha.py").write_text("raise SystemExit('run!')\n")
    rehash(folder)
    report = nezha_convert.verify(TF.folder, folder)
    assert report.passed
    assert any("modeling_nezha.py is not the installed package's" in warning for warning in report.warnings)


def test_an_option_that_overrode_the_source_is_told(tmp_path):
    report = nezha_convert.verify(TF.folder, converted(TF, tmp_path / "out", activation="gelu"))
    assert report.first_departs == "layer_0"
    (warning,) = report.warnings
    assert "asked for hidden_act = 'gelu'" in warning and "convert and verify with --config COPY" in warning


def test_the_way_out_of_an_overridden_source_passes(tmp_path):
    report = nezha_convert.verify(TF.folder, converted(TF, tmp_path / "out", max_relative_position=5))
    assert not report.passed and "put max_relative_position into a copy of the JSON" in report.warnings[0]
    raw = json.loads((TF.folder / "bert_config.json").read_text())
    config = tmp_path / "copy.json"
    config.write_text(json.dumps(raw | {"max_relative_position": 5}))
    report = nezha_convert.verify(TF.folder, converted(TF, tmp_path / "again", config=config), config=config)
    assert report.passed and not report.warnings


# What the verdict rests on.


@pytest.fixture
def assuming(tmp_path) -> tuple[Path, Path]:
    """A source that names neither its program nor its labels, and its conversion, which assumes something more."""
    source = FIXTURES / "huawei-torch-classifier"
    nezha_convert.convert(source, tmp_path / "assuming")
    record = json.loads((tmp_path / "assuming" / "conversion.json").read_text())
    record["assumptions"] = [{"name": "pooler", "text": "the classifier reads the pooler's output"}]
    (tmp_path / "assuming" / "conversion.json").write_text(json.dumps(record))
    return source, tmp_path / "assuming"


def test_what_is_assumed_stands_under_passed_and_in_every_report(assuming, tmp_path, capsys):
    source, folder = assuming
    files = ["--junit", str(tmp_path / "x.xml"), "--html", str(tmp_path / "x.html")]
    assert run(cli, ["verify", str(source), str(folder), *files], Console()) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "verdict passed assumed program: the original is Huawei's NEZHA-PyTorch; " in said
    text = "the classifier reads the pooler's output"
    assert f"assumed pooler: {text}" in said and "assumed labels: the labels' names are LABEL_0 to LABEL_" in said
    assert html.escape(text) in (tmp_path / "x.html").read_text("utf-8")
    properties = ElementTree.parse(tmp_path / "x.xml").findall("testsuite/properties/property")
    assert {one.get("name"): one.get("value") for one in properties}["assumed: pooler"] == text
    report = nezha_convert.verify(source, folder)
    assert [one["name"] for one in report.to_dict()["assumed"]] == ["program", "labels", "pooler"]
    card = conversion_card(json.loads((folder / "conversion.json").read_text()))
    assert f"* `pooler`: {text}" in card and "(accepted)" not in card


def test_what_is_accepted_is_not_shown_but_recorded(assuming, tmp_path, capsys):
    source, folder = assuming
    command = ["verify", str(source), str(folder), "--junit", str(tmp_path / "x.xml"), "--assume", "pooler"]
    assert run(cli, [*command, "--assume", "program"], Console()) == 0
    assert "pooler:" not in (said := capsys.readouterr().out) and "labels:" in said
    assert "pooler" not in (tmp_path / "x.xml").read_text("utf-8").split("</properties>")[0]
    parity = json.loads((folder / "conversion.json").read_text())["parity"]
    assert parity["accepted"] == ["pooler", "program"] and len(parity["assumed"]) == 3
    assert "the pooler's output (accepted)" in conversion_card(json.loads((folder / "conversion.json").read_text()))


def test_an_assumption_that_is_not_made_cannot_be_accepted(assuming, folder):
    source, output = assuming
    with pytest.raises(UsageError, match=r"--assume poler: .* assumed are program, labels, pooler") as error:
        nezha_convert.verify(source, output, assume=["poler"])
    assert error.value.hint == "One of them: --assume program"
    with pytest.raises(UsageError, match="nothing is assumed at all"):
        nezha_convert.verify(TF.folder, folder, assume=["program"])


def test_a_folder_that_was_not_verified_shows_what_its_conversion_assumes(assuming):
    card = conversion_card(json.loads((assuming[1] / "conversion.json").read_text()))
    assert "Not measured" in card and "* `pooler`: the classifier reads" in card


@pytest.mark.parametrize("assumptions", [{}, [5], [{"name": "x"}], [{"name": 5, "text": ""}]])
def test_assumptions_that_are_none_are_refused(assumptions, assuming):
    source, folder = assuming
    record = json.loads((folder / "conversion.json").read_text())
    (folder / "conversion.json").write_text(json.dumps(record | {"assumptions": assumptions}))
    with pytest.raises(MappingError, match=r"not as a conversion writes it: .*assumptions"):
        nezha_convert.verify(source, folder)


# Labels.


def test_labels_are_compared_with_their_file(tmp_path):
    source = FIXTURES / "huawei-torch-classifier"
    rows = len(torch.load(source / "pytorch_model.bin", weights_only=True)["classifier.bias"])
    labels, other = tmp_path / "labels.txt", tmp_path / "other.json"
    labels.write_text("\n".join(f"name {i}" for i in range(rows)))
    other.write_text(json.dumps({f"name {i}": i for i in range(rows)}))
    nezha_convert.convert(source, tmp_path / "out", labels=labels)
    (unnamed,) = (one for one in nezha_convert.verify(source, tmp_path / "out").assumed if one.name == "labels")
    assert "--labels FILE compares them" in unnamed.text
    report = nezha_convert.verify(source, tmp_path / "out", labels=labels)
    assert report.passed and "labels" not in {one.name for one in report.assumed}
    with pytest.raises(MappingError, match=r"other\.json has SHA-256"):
        nezha_convert.verify(source, tmp_path / "out", labels=other)


# Models whose decoder is not tied.


@pytest.fixture
def untied(tmp_path) -> Path:
    golden = next(golden for golden in GOLDENS if golden.name == "transformers-4.40.2-pretraining")
    folder = Path(shutil.copytree(golden.folder, tmp_path / "untied"))
    tensors, random = load_file(folder / "model.safetensors"), torch.Generator().manual_seed(5)
    tensors["cls.predictions.decoder.weight"] = torch.randn((64, 32), generator=random)
    tensors["cls.predictions.decoder.bias"] = torch.randn(64, generator=random)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_an_untied_model_passes_and_its_decoder_is_compared(untied, tmp_path):
    reconfigure(tie_word_embeddings=False)(untied)
    nezha_convert.convert(untied, tmp_path / "out")
    assert nezha_convert.verify(untied, tmp_path / "out").passed
    rewrite(lambda tensors: tensors["cls.predictions.decoder.weight"][3].zero_())(tmp_path / "out")
    rehash(tmp_path / "out")
    assert nezha_convert.verify(untied, tmp_path / "out").first_departs == "prediction_logits"


@pytest.mark.parametrize("tie", [{}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False}], ids=str)
def test_the_oracle_unties_where_transformers_does(tie, untied):
    if not any(originals.cache_folder().glob("transformers-4.40.2-*")):
        pytest.skip("transformers 4.40.2 is not installed in the cache")
    reconfigure(**tie)(untied)
    checkpoint, raw = open_checkpoint(untied), json.loads((untied / "config.json").read_text())
    case = inputs.built_in_cases({"vocab_size": 64, "type_vocab_size": 2}, 64, "pretraining")["padded"]
    live = originals.run_original(originals.TRANSFORMERS, checkpoint, raw, "pretraining", case)
    expected = compare.Oracle(checkpoint.entries, raw, "pretraining").forward(**case)
    for name, array in expected.items():
        assert np.abs(live[name] - array).max() < 2e-6 * np.ptp(array), name


# The tokenizer.


def test_a_right_tokenizer_passes(with_tokenizer, vocab):
    report = nezha_convert.verify(TF.folder, with_tokenizer, vocab=vocab)
    assert report.passed, report.verdict
    assert report.tokenizer.texts == len(wordpiece.texts_for(TINY_VOCAB))


def _limit(characters: int) -> Callable[[dict], None]:
    return lambda tokenizer: tokenizer["model"].update(max_input_chars_per_word=characters)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_limit(100), "aaaaaaaaaaaaaaaaaaaa... (103 characters)"),
        (_limit(199), "aaaaaaaaaaaaaaaaaaaa... (202 characters)"),
        (_limit(201), "aaaaaaaaaaaaaaaaaaaa... (203 characters)"),
        (lambda tokenizer: tokenizer["normalizer"]["normalizers"][-1].update(lowercase=False), "ΟΔΟΣ"),
        (lambda tokenizer: tokenizer["normalizer"]["normalizers"].pop(2), "ΟΔΟΣ"),
        (lambda tokenizer: tokenizer["normalizer"]["normalizers"][1].update(clean_text=True), "ΟΔΟΣ"),
        (lambda tokenizer: tokenizer["model"]["vocab"].update({"我": 10, "们": 9}), "我们"),
    ],
    ids=[
        "100 characters a word",
        "199",
        "201",
        "cased",
        "no final sigma",
        "a private character dropped",
        "two ids swapped",
    ],
)
def test_another_tokenizer_fails(change, text, with_tokenizer, vocab):
    path = with_tokenizer / "tokenizer.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    change(tokenizer)
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    rehash(with_tokenizer)
    report = nezha_convert.verify(TF.folder, with_tokenizer, vocab=vocab)
    assert report.first_departs is None
    assert "tokenizer: " in report.verdict and text in report.verdict


@pytest.mark.parametrize("more", [string.ascii_uppercase, ""], ids=["a cased vocabulary", "a lower-case vocabulary"])
def test_the_wrong_casing_fails_by_the_vocabulary_alone(more, tmp_path):
    vocab, output = tmp_path / "vocab.txt", tmp_path / "out"
    vocab.write_text("\n".join([*TINY_VOCAB, *more, "<S>"]) + "\n", encoding="utf-8")
    converted(TF, output, vocab=vocab, lower_case=bool(more))
    report = nezha_convert.verify(TF.folder, output, vocab=vocab)
    made, is_ = ("lower-case", "cased") if more else ("cased", "lower-case")
    assert report.passed and f"{made} as the conversion was told; the vocabulary is {is_}" in report.warnings[-1]

    record = json.loads((output / "conversion.json").read_text())
    for decision in record["decisions"]:  # as if the converter had decided so
        if decision["field"] == "do_lower_case":
            decision |= {"reason": "a mistake", "origin": "default"}
    (output / "conversion.json").write_text(json.dumps(record))
    report = nezha_convert.verify(TF.folder, output, vocab=vocab)
    assert not report.passed and report.first_departs is None and report.tokenizer.differing
    assert f"the tokenizer was made {made}, but the vocabulary is {is_}" in report.verdict
    assert f"convert again with --{is_}" in report.verdict


def test_texts_are_compared_beside_the_built_in_inputs(with_tokenizer, vocab, tmp_path):
    (tmp_path / "texts.txt").write_text("我们,a\n\n我们。\tab [MASK] a\n", encoding="utf-8")
    report = nezha_convert.verify(TF.folder, with_tokenizer, vocab=vocab, texts=tmp_path / "texts.txt")
    assert report.passed, report.verdict
    assert [(case.name, case.shape) for case in report.cases[len(CASES) :]] == [("text 1", (1, 6)), ("text 2", (1, 10))]
    assert report.tokenizer.texts == len(wordpiece.texts_for(TINY_VOCAB)) + 2
    as_list = nezha_convert.verify(TF.folder, with_tokenizer, vocab=vocab, texts=["我们,a", "我们。\tab [MASK] a"])
    assert as_list.cases == report.cases


def test_many_texts_are_computed_in_groups_and_give_the_same(with_tokenizer, vocab, monkeypatch):
    texts = ["我们" * count for count in range(1, 9)]
    whole = nezha_convert.verify(TF.folder, with_tokenizer, vocab=vocab, texts=texts, record=False)
    monkeypatch.setattr(inputs, "TOKENS_AT_ONCE", 20)
    seen = []

    class Counted(Measurement):
        def scale_to(self, references):
            seen.append(len(references))
            super().scale_to(references)

    monkeypatch.setattr(compare, "Measurement", Counted)
    parted = nezha_convert.verify(TF.folder, with_tokenizer, vocab=vocab, texts=texts, record=False)
    assert seen == [len(CASES), 3, 1, 1, 1, 1, 1]  # the built-in cases, then texts of 4 to 18 tokens
    assert whole.comparisons[0].tensors == parted.comparisons[0].tensors
    assert [c.name for c in parted.cases] == [c.name for c in whole.cases]


# Bad input.


def test_the_conversion_of_another_source_is_refused_by_its_hash(folder, tmp_path):
    other = Path(shutil.copytree(TF.folder, tmp_path / "other"))
    data = other / "model.ckpt-12345.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1] + b"\0")
    with pytest.raises(MappingError, match=r"not a conversion of this source: .*data-00000.* has SHA-256") as error:
        nezha_convert.verify(other, folder)
    assert error.value.exit_code == 4
    assert f"names {data.name} with " in error.value.message and "convert SOURCE" in error.value.hint
    with pytest.raises(MappingError, match=r"pytorch_model\.bin has SHA-256 .* names only bert_config"):
        nezha_convert.verify(FIXTURES / "huawei-torch-pretraining", folder)


def test_another_config_or_vocabulary_than_the_conversion_s_is_refused(with_tokenizer, vocab, tmp_path):
    config = tmp_path / "config.json"
    config.write_text((TF.folder / "bert_config.json").read_text() + " ")
    with pytest.raises(MappingError, match=r"config\.json has SHA-256"):
        nezha_convert.verify(TF.folder, with_tokenizer, vocab=vocab, config=config)
    with pytest.raises(MappingError, match=r"vocab\.txt has SHA-256"):
        nezha_convert.verify(TF.folder, with_tokenizer, vocab=VOCAB)
    with pytest.raises(UsageError, match="not beside") as error:
        nezha_convert.verify(TF.folder, with_tokenizer)
    assert "--vocab FILE" in error.value.hint


def test_weights_that_do_not_fit_their_config_are_listed(folder):
    reconfigure(num_hidden_layers=3, intermediate_size=56)(folder)
    with pytest.raises(MappingError, match=r"do not fit its config\.json") as error:
        nezha_convert.verify(TF.folder, folder)
    problems = "\n".join(error.value.problems)
    assert "no weight: nezha.encoder.layer.2.output.dense.weight" in problems
    assert "wrong shape: " in problems and "intermediate.dense.weight" in problems


def test_a_folder_that_no_conversion_wrote_is_refused(tmp_path):
    with pytest.raises(MappingError, match=r"no conversion\.json in it"):
        nezha_convert.verify(TF.folder, tmp_path)
    (tmp_path / "conversion.json").write_text("{}")
    with pytest.raises(MappingError, match="not as a conversion writes it: no source, head"):
        nezha_convert.verify(TF.folder, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record["output_files"].append({"name": "setup.py"}), r"no sha256, nbytes in output_files\["),
        (lambda record: record["source_files"].append("model.bin"), r"source_files\[\d\] is no JSON object"),
        (
            lambda record: record["output_files"][0].update(name="../x.py"),
            r"names '\.\./x\.py'; expected a file of the",
        ),
        (lambda record: record["output_files"][0].update(sha256=5), r"sha256 is 5; expected a text"),
        (lambda record: record["decisions"].append({"field": "x"}), r"no value, reason in decisions"),
        (lambda record: record["dropped"].append({"name": "x", "nbytes": "1", "reason": ""}), "expected a number"),
        (lambda record: record.update(output_files={}), r"output_files is \{\}; expected a list"),
        (lambda record: record.update(head="ner"), "head is 'ner'.*expected a head among encoder"),
        (lambda record: record.update(architecture="BertModel"), "expected NezhaForPreTraining"),
    ],
    ids=range(9),
)
def test_a_foreign_conversion_json_is_refused_and_says_what_is_wrong(change, words, folder):
    record = json.loads((folder / "conversion.json").read_text())
    change(record)
    (folder / "conversion.json").write_text(json.dumps(record))
    with pytest.raises(MappingError, match=rf"conversion\.json: not as a conversion writes it: .*{words}") as error:
        nezha_convert.verify(TF.folder, folder)
    assert "convert SOURCE" in error.value.hint


def test_a_conversion_json_that_is_no_object_is_refused(folder):
    (folder / "conversion.json").write_text("[]")
    with pytest.raises(MappingError, match="it is no JSON object"):
        nezha_convert.verify(TF.folder, folder)


def test_code_that_the_installed_package_does_not_have_is_told(folder):
    (folder / "more.py").write_text("")
    record = json.loads((folder / "conversion.json").read_text())
    record["output_files"].append({"name": "more.py", "nbytes": 0, "sha256": hashlib.sha256(b"").hexdigest()})
    (folder / "conversion.json").write_text(json.dumps(record))
    assert any("more.py is not the installed package's" in w for w in nezha_convert.verify(TF.folder, folder).warnings)


@pytest.mark.parametrize("option", ["--junit", "--html"])
@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("{folder}/nowhere/x", "there is no folder"),
        ("/proc/x", "no file can be made in /proc"),  # where root may not write either
        ("{folder}/" + "x" * 300, "File name too long"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_computed(
    option, place, problem, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(verifying, "verify", lambda *args, **options: pytest.fail("it went on"))
    command = ["verify", str(TF.folder), str(folder), option, place.format(folder=tmp_path)]
    assert run(cli, command, Console()) == OutputError.exit_code
    said = capsys.readouterr().err
    assert problem in said and "next: " in said


def test_a_folder_that_cannot_keep_the_outcome_is_refused_before_anything_is_computed(folder, monkeypatch):
    def full(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(staging, "TemporaryFile", full)
    monkeypatch.setattr(verifying, "read_source", lambda *args: pytest.fail("it went on"))
    with pytest.raises(OutputError, match=r"conversion\.json: cannot be written: .*\(Permission denied\)") as error:
        nezha_convert.verify(TF.folder, folder)
    assert "--no-record" in error.value.hint


def test_the_table_is_shown_though_a_report_cannot_be_written(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(staging, "check_writable", lambda path: None)  # as if the disk changed later
    (tmp_path / "taken").touch()
    command = ["verify", str(TF.folder), str(folder), "--junit", str(tmp_path / "taken" / "parity.xml")]
    assert run(cli, command, Console()) == OutputError.exit_code
    assert "verdict" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "words"), [("{", "not readable"), ('{"vocab_size": 64}', "no type_vocab_size")])
def test_a_config_that_is_no_model_s_is_refused(text, words, folder):
    (folder / "config.json").write_text(text)
    with pytest.raises(MappingError, match=rf"config\.json: .*{words}"):
        nezha_convert.verify(TF.folder, folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "modeling_nezha.py"])
def test_a_missing_file_is_named(name, folder):
    (folder / name).unlink()
    with pytest.raises(MappingError, match=f"{name}: missing"):
        nezha_convert.verify(TF.folder, folder)


def test_texts_without_a_tokenizer_are_refused(folder):
    with pytest.raises(UsageError, match="has no tokenizer") as error:
        nezha_convert.verify(TF.folder, folder, texts=["a"])
    assert "--vocab FILE" in error.value.hint


@pytest.mark.parametrize(("data", "words"), [(b"\n \n", "no text in it"), (b"\xff\xfe\xff", "UTF-8")])
def test_texts_that_are_none_are_refused(data, words, with_tokenizer, vocab, tmp_path):
    (tmp_path / "texts.txt").write_bytes(data)
    with pytest.raises(UsageError, match=words):
        nezha_convert.verify(TF.folder, with_tokenizer, vocab=vocab, texts=tmp_path / "texts.txt")


def test_a_text_longer_than_memory_allows_is_refused_before_anything_is_computed(with_tokenizer, vocab, monkeypatch):
    monkeypatch.setattr(verifying, "LoadedModel", lambda *args: pytest.fail("it went on"))
    monkeypatch.setattr(inputs, "available_memory", lambda: 10**9)
    with pytest.raises(UsageError, match=r"text 2: 300,002 tokens need about [\d,.]+ GB .* are available") as error:
        nezha_convert.verify(TF.folder, with_tokenizer, vocab=vocab, texts=["a", "我" * 300_000])
    assert "Shorten" in error.value.hint


def test_the_memory_that_a_pass_takes_is_what_is_estimated(tmp_path):
    """The peak memory for a long text minus that for a short one, each in its own process."""
    script = """
import json, re, sys
import numpy as np
from nezha_convert.parity.converted import LoadedModel
from nezha_convert.parity.oracle.model import Oracle
from nezha_convert.folder.card import conversion_card
from nezha_convert.formats.open import open_checkpoint
source, folder, length = sys.argv[1:]
checkpoint = open_checkpoint(source)
case = {name: np.ones((1, int(length)), int) for name in ("input_ids", "attention_mask", "token_type_ids")}
Oracle(checkpoint.entries, json.loads(checkpoint.config.read_text()), "pretraining").forward_all([case])
LoadedModel(__import__("pathlib").Path(folder), "NezhaForPreTraining", "pretraining").run(case, "float32")
# Not ru_maxrss: in a child it begins with its parent's value.
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""
    output = converted(TF, tmp_path / "out")
    config = json.loads((output / "config.json").read_text())

    def peak(length: int) -> int:
        done = warm_python.run(["-c", script, TF.folder, output, length])
        assert done.returncode == 0, done.stderr
        return 1024 * int(done.stdout)

    if sys.platform != "linux":
        pytest.skip("only Linux tells a process's own peak")
    taken = peak(4000) - peak(8)
    estimated = inputs.memory_of((1, 4000), config)
    assert taken < estimated < 3 * taken


# Reports for CI.


def test_junit_has_a_case_for_every_tensor_and_a_failure_for_every_departure(folder, tmp_path):
    reconfigure(max_relative_position=63)(folder)
    report = nezha_convert.verify(TF.folder, folder)
    write_junit(report, tmp_path / "parity.xml")
    suite = ElementTree.parse(tmp_path / "parity.xml").getroot().find("testsuite")
    cases = {case.get("name"): case.find("failure") for case in suite}
    assert [*cases][:-1] == [tensor.name for tensor in report.comparisons[0].tensors]
    failing = {name for name, failure in cases.items() if failure is not None}
    assert failing == {t.name for t in report.comparisons[0].tensors if not t.passed} | {"as they were written"}
    assert (int(suite.get("tests")), int(suite.get("failures"))) == (len(cases), len(failing))
    assert cases["embeddings"] is None and "layer_0: " in cases["layer_0"].get("message")


def test_the_documented_example_fails_when_the_folder_stops_matching(tmp_path):
    """The three lines of docs/ci.md, run by pytest as in a user's CI."""
    text = (FIXTURES.parent / "docs" / "ci.md").read_text("utf-8")
    [example] = [block.split("```")[0] for block in text.split("```python\n")[1:] if "nezha_convert.verify(" in block]
    assert len([line for line in example.splitlines() if line and not line.startswith("import")]) == 3
    shutil.copytree(TF.folder, tmp_path / "NEZHA-Base")
    converted(TF, tmp_path / "nezha-base")
    (tmp_path / "test_parity.py").write_text(example, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")  # a folder above may be ours, with our options

    def outcome() -> tuple[int, str]:
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        done = warm_python.run(["-m", "pytest", *options, "test_parity.py"], cwd=tmp_path)
        return done.returncode, done.stdout

    assert outcome()[0] == 0
    MUTATIONS["query and key swapped"][0](tmp_path / "nezha-base")
    code, said = outcome()
    assert code == 1 and "first departs layer_1" in said


# The original programs, live.


@pytest.mark.parametrize(
    "name", ["huawei-tf-pretraining", "huawei-tf-ner", "huawei-torch-pretraining", "huawei-torch-multiple-choice"]
)
def test_the_original_program_is_a_second_reference(name, tmp_path):
    golden = next(golden for golden in GOLDENS if golden.name == name)
    modules = ("tensorflow", "tf_keras", "tf_slim") if golden.family == "huawei-tf" else ("torch",)
    if not CLONE or any(importlib.util.find_spec(module) is None for module in modules):
        pytest.skip("NEZHA_ORIGINAL_CLONE does not name a clone of Huawei's repository, or the extra tf is missing")
    output = converted(golden, tmp_path / "out")
    report = nezha_convert.verify(golden.folder, output, original=CLONE)
    assert report.passed, report.verdict
    oracle, original = report.comparisons
    assert original.reference.startswith("Huawei's ")
    assert [tensor.name for tensor in original.tensors] == [tensor.name for tensor in oracle.tensors]
    assert any("ends at 512" in warning for warning in report.warnings) == (golden.family == "huawei-torch")
    MUTATIONS["query and key swapped"][0](output)
    assert [c.first_departs.name for c in nezha_convert.verify(golden.folder, output, original=CLONE).comparisons] == [
        "layer_1",
        "layer_1",
    ]


def test_the_original_tokenizer_is_compared_where_it_is_given(with_tokenizer, vocab, monkeypatch):
    """Checks what is passed to the original and what comes back. tests/parity/originals runs it live."""
    asked = SimpleNamespace()

    def tokenize(clone: str, path: Path, texts: list[str], *, lower_case: bool, rules: object) -> list[list[str]]:
        asked.clone, asked.texts, asked.lower_case = clone, texts, lower_case
        return [wordpiece.tokenize(text, TINY_VOCAB, lower_case) for text in texts]

    def run(original: str, checkpoint: object, raw: dict, head: str, cases: list) -> list:
        return compare.Oracle(checkpoint.entries, raw, head).forward_all(cases)

    monkeypatch.setattr(tokenizing, "tokenize_original", tokenize)
    monkeypatch.setattr(compare, "run_original_all", run)
    report = nezha_convert.verify(TF.folder, with_tokenizer, vocab=vocab, original="a clone")
    assert report.passed and report.tokenizer.reference == "Huawei's tokenization.py"
    assert (asked.clone, asked.lower_case, len(asked.texts)) == ("a clone", True, report.tokenizer.texts)
    assert [c.reference for c in report.comparisons] == ["the oracle", "Huawei's tensorflow program"]


def test_the_report_is_plain_data(folder):
    report = nezha_convert.verify(TF.folder, folder)
    assert isinstance(report, nezha_convert.ParityReport) and nezha_convert.ParityReport is ParityReport
    content = json.loads(report.to_json())
    assert content["passed"] is True and content["first_departs"] is None
    assert [tensor["name"] for tensor in content["comparisons"][0]["tensors"]][-1] == "seq_relationship_logits"
    assert [part["part"] for part in content["weights"]] == ["embeddings", "layer_0", "layer_1", "pooler", "head"]
    assert sum(part["values"] for part in content["weights"]) == sum(
        tensor.numel() for tensor in load_file(folder / "model.safetensors").values()
    )
