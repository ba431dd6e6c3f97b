"""The orchestrator: what it hands from one part to the next, from Python."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from goldens import FIXTURES
from safetensors.torch import load_file

import nezha
from nezha_convert import CheckpointError, MappingError, OutputError, UsageError, check, convert, inspect, verify
from nezha_convert.commands import convert as conversion_module
from nezha_convert.folder.model_code import MODEL_FILES

TF = FIXTURES / "huawei-tf-pretraining"
TORCH = FIXTURES / "huawei-torch-pretraining"


def decisions(report) -> dict[str, object]:
    return {decision.field: decision.value for decision in report.decisions}


def torch_source(folder: Path, change, name: str = "huawei-torch-pretraining", **config: object) -> Path:
    """A PyTorch checkpoint with changed tensors and config."""
    folder.mkdir()
    state = torch.load(FIXTURES / name / "pytorch_model.bin", weights_only=True)
    state = {key: tensor.clone() for key, tensor in state.items()}
    change(state)
    torch.save(state, folder / "pytorch_model.bin")
    raw = json.loads((FIXTURES / name / "bert_config.json").read_text())
    (folder / "bert_config.json").write_text(json.dumps(raw | config))
    return folder


def pretraining_logits(folder: Path) -> torch.Tensor:
    model, info = transformers.AutoModelForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        return model.eval()(torch.arange(5, 25)[None]).prediction_logits


def test_progress_counts_each_byte_once_written_and_once_hashed(tmp_path):
    calls = []
    report = convert(TF, tmp_path / "out", progress=lambda done, total, what: calls.append((done, total)))
    size = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert {total for _, total in calls} == {report.weight_nbytes + size}
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert calls[-1][0] == calls[-1][1]


def test_every_source_tensor_is_written_once_or_dropped_for_a_reason(tmp_path):
    report = convert(TF, tmp_path / "out", dry_run=True)
    written = [tensor.source for tensor in report.written]
    dropped = [tensor.name for tensor in report.dropped]
    assert sorted(written + dropped) == sorted(conversion_module.open_checkpoint(TF).entries)
    assert all(tensor.reason for tensor in report.dropped)
    assert report.weight_nbytes + sum(tensor.nbytes for tensor in report.dropped) == report.source_nbytes


def test_fields_of_the_config_without_a_meaning_are_named(tmp_path):
    assert convert(TF, tmp_path / "out", dry_run=True).ignored_fields == (
        "directionality",
        "pooler_fc_size",
        "pooler_type",
    )


def test_a_decoder_equal_to_the_embedding_is_tied_and_dropped_for_that_reason(tmp_path):
    report = convert(TORCH, tmp_path / "out")
    assert {tie.target for tie in report.tied} == {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    (dropped,) = report.dropped
    assert (dropped.name, "tied" in dropped.reason) == ("cls.predictions.decoder.weight", True)
    assert "cls.predictions.decoder.weight" not in load_file(tmp_path / "out" / "model.safetensors")


def test_a_decoder_that_differs_is_loaded_over_the_embedding_as_transformers_does(tmp_path):
    """transformers 4.40.2 has one parameter for both, and loads the decoder's values last."""
    source = Path(shutil.copytree(FIXTURES / "transformers-4.40.2-masked-lm", tmp_path / "source"))
    state = torch.load(source / "pytorch_model.bin", weights_only=True)
    state["cls.predictions.decoder.weight"] = state["nezha.embeddings.word_embeddings.weight"] + 1
    torch.save(state, source / "pytorch_model.bin")
    report = convert(source, tmp_path / "out")
    word_embedding = "nezha.embeddings.word_embeddings.weight"
    assert "decoder.weight" in decisions(report)[word_embedding]
    assert word_embedding in {drop.name for drop in report.dropped}
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(weights[word_embedding], state["cls.predictions.decoder.weight"])
    assert "cls.predictions.decoder.weight" not in weights


def test_a_decoder_of_bert_names_that_differs_is_a_tensor_of_its_own(tmp_path):
    """bert_seq2seq trains it so. Huawei's program cannot write two that differ."""

    def change(state):
        state["cls.predictions.decoder.weight"] += 1

    report = convert(torch_source(tmp_path / "source", change), tmp_path / "out")
    assert decisions(report)["tie_word_embeddings"] is False
    weights = load_file(tmp_path / "out" / "model.safetensors")
    source = torch.load(tmp_path / "source" / "pytorch_model.bin", weights_only=True)
    for name in ("cls.predictions.decoder.weight", "nezha.embeddings.word_embeddings.weight"):
        assert torch.equal(weights[name], source[name.replace("nezha.", "bert.")])
    assert verify(tmp_path / "source", tmp_path / "out").passed


def test_an_encoder_keeps_its_own_embedding_beside_another_decoder(tmp_path):
    def change(state):
        state["cls.predictions.decoder.weight"] += 1

    convert(torch_source(tmp_path / "source", change), tmp_path / "out", head="encoder")
    source = torch.load(tmp_path / "source" / "pytorch_model.bin", weights_only=True)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(weights["embeddings.word_embeddings.weight"], source["bert.embeddings.word_embeddings.weight"])


def test_an_untied_decoder_is_kept(tmp_path):
    def change(state):
        state["cls.predictions.decoder.weight"] += 1

    convert(torch_source(tmp_path / "source", change, tie_word_embeddings=False), tmp_path / "out")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    source = torch.load(tmp_path / "source" / "pytorch_model.bin", weights_only=True)
    assert torch.equal(weights["cls.predictions.decoder.weight"], source["cls.predictions.decoder.weight"])
    assert torch.equal(weights["cls.predictions.decoder.bias"], source["cls.predictions.bias"])
    tied = pretraining_logits(_converted(TORCH, tmp_path / "tied"))
    assert not torch.allclose(tied, pretraining_logits(tmp_path / "out"))


def _converted(source: Path, output: Path) -> Path:
    convert(source, output)
    return output


def test_untied_by_its_config_stays_untied_even_with_equal_values(tmp_path):
    source = torch_source(tmp_path / "source", lambda state: None, tie_word_embeddings=False)
    report = convert(source, tmp_path / "out")
    assert report.tied == ()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    assert torch.equal(pretraining_logits(tmp_path / "out"), pretraining_logits(_converted(TORCH, tmp_path / "tied")))


def test_untied_by_its_config_without_a_decoder_is_refused(tmp_path):
    def change(state):
        del state["cls.predictions.decoder.weight"]

    source = torch_source(tmp_path / "source", change, tie_word_embeddings=False)
    with pytest.raises(MappingError) as error:
        convert(source, tmp_path / "out")
    assert "missing: cls.predictions.decoder.weight" in error.value.problems


def test_labels_beside_a_classifier_are_used(tmp_path):
    source = Path(shutil.copytree(FIXTURES / "huawei-tf-classifier", tmp_path / "source"))
    (source / "labels.txt").write_text("a\nb\nc\n")
    convert(source, tmp_path / "out", head="sequence-classification")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["label2id"] == {"a": 0, "b": 1, "c": 2}


def test_labels_beside_a_model_without_labels_are_no_matter(tmp_path):
    source = Path(shutil.copytree(TF, tmp_path / "source"))
    (source / "labels.txt").write_text("a\n")
    convert(source, tmp_path / "out", dry_run=True)
    with pytest.raises(UsageError, match="no labels of its own"):
        convert(source, tmp_path / "out", labels=source / "labels.txt")


def test_ner_labels_start_at_one(tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"L{i}" for i in range(1, 11)))
    convert(FIXTURES / "huawei-tf-ner", tmp_path / "out", head="token-classification", labels=labels)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["id2label"]["0"], config["id2label"]["1"], len(config["id2label"])) == ("[PAD]", "L1", 11)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_dtype_reaches_weights_and_config_and_the_loaded_model(tmp_path, dtype):
    convert(TF, tmp_path / "out", dtype=dtype)
    expected = getattr(torch, dtype)
    original = load_file(_converted(TF, tmp_path / "full") / "model.safetensors")
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        assert torch.equal(tensor, original[name].to(expected))
    # torch_dtype is the name in transformers 4.52; later releases still accept it
    assert transformers.AutoModel.from_pretrained(tmp_path / "out", torch_dtype="auto").dtype == expected


def test_a_value_too_large_for_float16_is_refused_and_named(tmp_path):
    def change(state):
        state["bert.pooler.dense.weight"][0, 0] = 1e6

    source = torch_source(tmp_path / "source", change)
    with pytest.raises(MappingError, match=r"bert.pooler.dense.weight: 1 of its values .* float16 .*1e\+06"):
        convert(source, tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()


def test_shards_load_as_one(tmp_path):
    convert(TF, tmp_path / "out", max_shard_bytes=20_000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    assert torch.equal(pretraining_logits(tmp_path / "out"), pretraining_logits(_converted(TF, tmp_path / "whole")))


def test_a_vocabulary_beside_the_checkpoint_becomes_the_tokenizer(tmp_path):
    source = Path(shutil.copytree(TF, tmp_path / "source"))
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcde", "中", "文"]
    (source / "vocab.txt").write_text("\n".join(lines) + "\n", "utf-8")
    report = convert(source, tmp_path / "out")
    assert decisions(report)["do_lower_case"] is True and decisions(report)["vocabulary"] == "12 tokens"
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("A中")["input_ids"] == [2, 5, 10, 3]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["pad_token_id"] == 0


def test_a_vocabulary_longer_than_the_embedding_is_refused(tmp_path):
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(60))]))
    with pytest.raises(MappingError, match="65 tokens, but the embedding has 64 rows"):
        convert(TF, tmp_path / "out", vocab=vocab)


def test_the_source_is_never_written_to(tmp_path):
    source = Path(shutil.copytree(TF, tmp_path / "source"))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in source.iterdir()}
    convert(source, tmp_path / "out")
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in source.iterdir()} == before


def test_optimizer_slots_are_never_read(tmp_path):
    """Their bytes may be damaged: the weights still convert, because only they are looked at."""
    source = Path(shutil.copytree(TF, tmp_path / "source"))
    entries = conversion_module.open_checkpoint(source).entries
    data = source / "model.ckpt-12345.data-00000-of-00001"
    damaged = bytearray(data.read_bytes())
    for name, entry in entries.items():
        if name.endswith(("lamb_m", "lamb_v")):
            damaged[entry.position[1] : entry.position[1] + entry.nbytes] = bytes(entry.nbytes)
    data.write_bytes(damaged)
    convert(source, tmp_path / "out")
    whole = load_file(_converted(TF, tmp_path / "whole") / "model.safetensors")
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        assert torch.equal(tensor, whole[name])


def test_the_model_s_files_go_along_unmodified(tmp_path):
    convert(TF, tmp_path / "out")
    package = Path(nezha.__file__).parent
    for name in MODEL_FILES:
        assert (tmp_path / "out" / name).read_bytes() == (package / name).read_bytes()
    auto_map = json.loads((tmp_path / "out" / "config.json").read_text())["auto_map"]
    assert len(auto_map) == 10
    for target in auto_map.values():
        module, _, name = target.partition(".")
        assert f"class {name}" in (tmp_path / "out" / f"{module}.py").read_text()


def test_a_write_that_does_not_read_back_is_noticed(tmp_path, monkeypatch):
    from nezha_convert.weights import write as writer

    write_all = writer._write_all

    def faulty(file, block):
        block = np.array(block)
        block.reshape(-1)[-1] += 1
        write_all(file, block)

    monkeypatch.setattr(writer, "_write_all", faulty)
    with pytest.raises(OutputError, match="does not read back"):
        convert(TF, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_s_name_that_is_not_utf_8_is_recorded_and_a_file_s_is_refused(tmp_path):
    source = tmp_path / "\udcc4\udce3"
    shutil.copytree(FIXTURES / "transformers-4.40.2-pretraining", source)
    convert(source, tmp_path / "out")
    assert check(tmp_path / "out").same
    (source / "model.safetensors").rename(source / "\udcc4.safetensors")
    with pytest.raises(CheckpointError, match="its name is not UTF-8"):
        convert(source, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_inspect_and_convert_agree(tmp_path):
    found, done = inspect(TF), convert(TF, tmp_path / "out", dry_run=True)
    assert found.dropped == done.dropped
    assert found.weight_nbytes == done.weight_nbytes
    assert found.optimizer_nbytes == done.optimizer_nbytes


def test_inspect_raises_where_nothing_can_be_read(tmp_path):
    with pytest.raises(CheckpointError):
        inspect(tmp_path)


@pytest.mark.parametrize("prefix, asked", [("model.", None), ("tagger.encoder.", "tagger.encoder.")])
def test_a_model_inside_a_larger_one_gives_the_outputs_of_the_model_itself(prefix, asked, tmp_path):
    def wrap(state):
        inner = dict(state)
        state.clear()
        state.update({prefix + name: tensor for name, tensor in inner.items()})
        if asked:
            state["tagger.crf.transitions"] = torch.ones(3, 3)

    source = torch_source(tmp_path / "source", wrap)
    report = convert(source, tmp_path / "out", prefix=asked)
    convert(TORCH, tmp_path / "plain")
    assert torch.equal(pretraining_logits(tmp_path / "out"), pretraining_logits(tmp_path / "plain"))
    assert decisions(report)["prefix"] == prefix
    assert not [tensor.name for tensor in report.dropped if not tensor.name.startswith(prefix)]
    assert [kept.source for kept in report.kept] == (["tagger.crf.transitions"] if asked else [])
    assert verify(source, tmp_path / "out").passed
