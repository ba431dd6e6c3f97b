"""What a checkpoint is, by its tensors: every fixture is told, foreign models are refused, and doubt is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nezha_convert.checkpoint import TensorEntry
from nezha_convert.errors import MappingError, UsageError
from nezha_convert.families import (
    BERT4KERAS,
    BERT4KERAS_BUNDLE,
    BERT4KERAS_MODERN,
    BERT4KERAS_OBJECTS,
    BERT4TORCH,
    BERT4TORCH_SAVED,
    FAMILIES,
    HUAWEI_TF,
    HUAWEI_TORCH,
    JABER,
    MINDSPORE,
    PADDLE,
    TRANSFORMERS,
    TRANSFORMERS_BASE,
)
from nezha_convert.families.heads import HEADS
from nezha_convert.families.rules import Drop
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.mapping.config import architecture_of, language_model, read_config
from nezha_convert.mapping.recognise import Inference, choose_head, family_of, foreign, infer_head, may_generate
from nezha_convert.mapping.survey import look

FIXTURES = Path(__file__).parents[2] / "fixtures"
TWO = ("sequence-classification", "token-classification")
EXPECTED = {
    "huawei-tf-classifier": (HUAWEI_TF, TWO),
    "huawei-tf-ner": (HUAWEI_TF, TWO),
    "huawei-tf-pretraining": (HUAWEI_TF, ("pretraining",)),
    "huawei-tf-squad": (HUAWEI_TF, ("question-answering",)),
    "bert4keras-keras3": (BERT4KERAS_MODERN, ("masked-lm",)),
    "bert4keras-masked-lm": (BERT4KERAS_MODERN, ("masked-lm",)),
    "bert4keras-objects": (BERT4KERAS_OBJECTS, ("masked-lm",)),
    "bert4keras-pretraining": (BERT4KERAS, ("pretraining",)),
    "bert4keras-sequence-classification": (BERT4KERAS, ("sequence-classification",)),
    "bert4torch-0.2.7-masked-lm": (BERT4TORCH, ("masked-lm",)),
    "bert4torch-pretraining": (BERT4TORCH, ("pretraining",)),
    "bert4torch-causal-lm": (BERT4TORCH, ("causal-lm",)),
    "bert4torch-prefix-lm": (BERT4TORCH, ("prefix-lm",)),
    "huawei-torch-classifier": (HUAWEI_TORCH, ("sequence-classification",)),
    "huawei-torch-mlm-rel127": (HUAWEI_TORCH, ("masked-lm",)),
    "huawei-torch-multiple-choice": (HUAWEI_TORCH, ("multiple-choice",)),
    "huawei-torch-pretraining": (HUAWEI_TORCH, ("pretraining",)),
    "huawei-torch-qa": (HUAWEI_TORCH, ("question-answering",)),
    "jaber-multilabel": (JABER, ("sequence-classification",)),
    "jaber-token": (JABER, ("token-classification",)),
    "lonepatient-masked-lm": (HUAWEI_TORCH, ("masked-lm",)),
    "mindspore-pretraining": (MINDSPORE, ("pretraining",)),
    "paddlenlp-pretraining": (PADDLE, ("pretraining",)),
    "paddlenlp-question-answering": (PADDLE, ("question-answering",)),
    "paddlenlp-sequence-classification": (PADDLE, ("sequence-classification",)),
    **{
        f"tf-{kind}": (HUAWEI_TF, ("question-answering",)) for kind in ("partitioned", "savedmodel", "v1", "v1-sharded")
    },
    "transformers-4.40.2-encoder": (TRANSFORMERS_BASE, ("encoder",)),
} | {f"transformers-4.40.2-{head}": (TRANSFORMERS, (head,)) for head in HEADS if head not in ("encoder", "prefix-lm")}

WITHOUT_CONFIG = {
    "paddlenlp-question-answering": (*TWO, "question-answering"),
    "paddlenlp-sequence-classification": TWO,
    **dict.fromkeys(("bert4torch-causal-lm", "bert4torch-prefix-lm", "transformers-4.40.2-causal-lm"), ("masked-lm",)),
}
"""Where the config says what the tensors do not."""


def no_data(limit: int) -> Iterator[np.ndarray]:
    raise AssertionError("recognising reads no tensor")


def entries(*names: str, **shapes: tuple[int, ...]) -> dict[str, TensorEntry]:
    return {name: TensorEntry(name, "float32", shapes.get(name, (4, 4)), 64, no_data) for name in names}


def sized(name: str, shape: tuple[int, ...]) -> dict[str, TensorEntry]:
    """A tensor beside an encoder of hidden size 32."""
    norm = "bert.embeddings.LayerNorm.bias"
    shapes = {"bert.embeddings.word_embeddings.weight": (64, 32), norm: (32,), name: shape}
    return {n: TensorEntry(n, "float32", s, 64, no_data) for n, s in shapes.items()}


def classifier(shape: tuple[int, ...], *others: str) -> dict[str, TensorEntry]:
    found = entries("bert.embeddings.word_embeddings.weight", "classifier.weight", "classifier.bias", *others)
    for name, size in (("classifier.weight", shape), ("classifier.bias", shape[:1])):
        found[name] = TensorEntry(name, "float32", size, 64, no_data)
    return found


POOLER = ("bert.pooler.dense.weight", "bert.pooler.dense.bias")


def test_every_fixture_is_expected() -> None:
    folders = {path.name for path in FIXTURES.iterdir() if path.is_dir()}
    assert folders - {"tokenization", "byte-bpe", "training", "cases", "bert-tokenizer"} == EXPECTED.keys()


@pytest.mark.parametrize("fixture", EXPECTED)
@pytest.mark.parametrize("with_config", [True, False])
def test_the_family_and_the_heads_of_every_fixture(fixture: str, with_config: bool) -> None:
    checkpoint = open_checkpoint(FIXTURES / fixture)
    assert checkpoint.config
    table, heads = EXPECTED[fixture]
    raw = read_config(checkpoint.config, checkpoint.path) if with_config else {}
    assert family_of(checkpoint.entries) is table
    inference = infer_head(table, checkpoint.entries, architecture_of(raw), language_model(raw, table))
    assert inference.heads == (heads if with_config else WITHOUT_CONFIG.get(fixture, heads))
    assert inference.reason
    assert foreign(checkpoint.entries) is None


# Families


@pytest.mark.parametrize(
    "name, table",
    [
        ("bert/embeddings/word_embeddings", HUAWEI_TF),
        ("bert.embeddings.word_embeddings.weight", HUAWEI_TORCH),
        ("module.bert.embeddings.word_embeddings.weight", HUAWEI_TORCH),
        ("nezha.embeddings.word_embeddings.weight", TRANSFORMERS),
        ("module.nezha.embeddings.word_embeddings.weight", TRANSFORMERS),
        ("embeddings.word_embeddings.weight", TRANSFORMERS_BASE),
        ("module.embeddings.word_embeddings.weight", TRANSFORMERS_BASE),
    ],
)
def test_the_word_embeddings_name_is_the_family(name: str, table: object) -> None:
    assert family_of(entries("something.else", "bert/pooler/dense/bias", name)) is table


def test_unknown_names_are_refused_with_what_was_expected_and_found() -> None:
    with pytest.raises(MappingError) as caught:
        family_of(entries(*(f"gpt.h.{i}.weight" for i in range(9))))
    message = str(caught.value)
    assert "bert/embeddings/word_embeddings" in message
    assert "nezha.embeddings.word_embeddings.weight" in message
    assert "gpt.h.0.weight, gpt.h.1.weight, gpt.h.2.weight, gpt.h.3.weight, gpt.h.4.weight, ..." in message
    assert "inspect" in caught.value.hint


def test_a_checkpoint_of_nothing_is_refused() -> None:
    with pytest.raises(MappingError, match="found no tensor at all"):
        family_of({})


def test_optimizer_slots_alone_are_no_family() -> None:
    with pytest.raises(MappingError):
        family_of(entries("bert/embeddings/word_embeddings/adam_m"))


# A model inside a larger one


@pytest.mark.parametrize("prefix", ["model.", "_forward_module.model.", "student/"])
def test_what_stands_in_front_of_every_name_is_found(prefix: str) -> None:
    inner = "bert/embeddings/word_embeddings" if "/" in prefix else "bert.embeddings.word_embeddings.weight"
    table = family_of(entries(prefix + inner, f"{prefix}something"))
    assert table.prefix == prefix
    assert table.unwrapped(prefix + inner) == inner


def test_names_outside_of_a_found_prefix_stay_unknown_and_those_outside_of_a_named_one_are_left_out() -> None:
    found = entries("model.bert.embeddings.word_embeddings.weight", "loss.weight")
    assert family_of(found).find("loss.weight") is None
    dropped = family_of(found, "model.").find("loss.weight")
    assert isinstance(dropped, Drop)
    assert dropped.reason == "not inside model."


def test_two_models_in_one_checkpoint_are_listed() -> None:
    two = entries(*(f"{name}.embeddings.word_embeddings.weight" for name in ("teacher", "student")))
    with pytest.raises(UsageError, match=r"2 models .* student\., teacher\.") as caught:
        family_of(two)
    assert "--prefix student." in caught.value.hint
    assert family_of(two, "teacher.").unwrapped("teacher.encoder.x") == "encoder.x"


def test_a_prefix_that_no_nezha_has_is_refused() -> None:
    with pytest.raises(MappingError, match="not a NEZHA"):
        family_of(entries("bert.embeddings.word_embeddings.weight"), "model.")


# Foreign models


@pytest.mark.parametrize(
    "name",
    [
        "bert/embeddings/position_embeddings",
        "bert.embeddings.position_embeddings.weight",
        "embeddings.position_embeddings.weight",
    ],
)
def test_absolute_positions_are_a_plain_bert(name: str) -> None:
    model = foreign(entries("bert/embeddings/word_embeddings", "bert/pooler/dense/kernel", name))
    assert model is not None
    assert "plain BERT" in model.message
    assert not model.encoder_converts


def test_the_joint_lstm_model_is_known_and_its_encoder_converts() -> None:
    model = foreign(entries("bert.embeddings.word_embeddings.weight", "lstm.weight_ih_l0", "slot_classifier.weight"))
    assert model is not None
    assert "BertForJointLSTM" in model.message
    assert "--head encoder" in model.hint
    assert model.encoder_converts


@pytest.mark.parametrize("name", ["bert.embeddings.position_ids", "bert/embeddings/word_embeddings", "lstm.weight"])
def test_other_names_are_not_foreign(name: str) -> None:
    assert foreign(entries(name)) is None


# Heads


def test_a_root_classifier_of_tensorflow_is_two_heads_whatever_the_config_names() -> None:
    found = entries("bert/embeddings/word_embeddings", "bert/pooler/dense/kernel", "output_weights", "output_bias")
    inference = infer_head(HUAWEI_TF, found, "NezhaForTokenClassification")
    assert inference.heads == TWO
    assert "output_weights" in inference.reason
    assert "run_classifier_ner.py" in inference.reason


def test_a_classifier_of_bert4keras_is_clear_where_it_has_a_pooler() -> None:
    shapes = {"Embedding-Token/0/embeddings": (9, 4), "dense/0/kernel": (4, 5), "dense/1/bias": (5,)}
    found = {name: TensorEntry(name, "float32", shape, 0, lambda limit: iter(())) for name, shape in shapes.items()}
    inference = infer_head(BERT4KERAS, found)
    assert inference.heads == ("token-classification", "encoder")
    assert inference.reason.startswith("'dense/0/kernel' may classify each token")
    pooler = TensorEntry("Pooler-Dense/0/kernel", "float32", (4, 4), 0, lambda limit: iter(()))
    assert infer_head(BERT4KERAS, found | {pooler.name: pooler}).heads == ("sequence-classification",)


def test_what_is_nothing_known_is_told_the_tensor_that_tells_each_family() -> None:
    with pytest.raises(MappingError, match="not a NEZHA checkpoint") as refusal:
        family_of(entries("h.0.attn.weight"))
    message = refusal.value.message
    for table in FAMILIES:  # so whoever renames tensors knows which one to look at
        named = table.known_by or table.rules["encoder"][0].source
        assert message.count(f" {named},") + message.count(f" {named};") == 1, table.title
    assert "h.0.attn.weight" in message


def test_slots_of_a_classifier_are_no_classifier() -> None:
    assert infer_head(HUAWEI_TF, entries("output_weights/adam_m")).heads == ("encoder",)


@pytest.mark.parametrize(
    "architecture, head",
    [
        ("NezhaForTokenClassification", "token-classification"),
        ("NeZhaForTokenClassification", "token-classification"),
        ("NEZHAForTokenClassification", "token-classification"),
        ("BertForTokenClassification", "token-classification"),
        ("NezhaForMultipleChoice", "multiple-choice"),
        ("BertForMultipleChoice", "multiple-choice"),
        ("NeZhaForSequenceClassification", "sequence-classification"),
        ("BertForSequenceClassification", "sequence-classification"),
        ("NezhaForMaskedLM", "sequence-classification"),
        ("SomethingElse", "sequence-classification"),
        ("", "sequence-classification"),
        (None, "sequence-classification"),
    ],
)
def test_the_configs_class_however_spelt_decides_between_classifiers(architecture: str | None, head: str) -> None:
    assert infer_head(HUAWEI_TORCH, classifier((5, 4), *POOLER), architecture).heads == (head,)


def test_a_classifier_of_one_row_is_multiple_choice_unless_the_config_names_a_regression() -> None:
    found = classifier((1, 4), *POOLER)
    assert infer_head(HUAWEI_TORCH, found).heads == ("multiple-choice",)
    assert infer_head(HUAWEI_TORCH, found, "NezhaForSequenceClassification").heads == ("sequence-classification",)


def test_a_classifier_without_a_pooler_is_of_tokens() -> None:
    assert infer_head(HUAWEI_TORCH, classifier((5, 4))).heads == ("token-classification",)
    assert infer_head(HUAWEI_TORCH, classifier((1, 4))).heads == ("token-classification",)


def test_a_wrapped_classifier_is_one() -> None:
    found = {f"module.{name}": entry for name, entry in classifier((1, 4), *POOLER).items()}
    assert infer_head(HUAWEI_TORCH, found).heads == ("multiple-choice",)


def test_a_classifier_with_a_bias_alone_is_still_told() -> None:
    found = classifier((5, 4), *POOLER)
    del found["classifier.weight"]
    assert infer_head(HUAWEI_TORCH, found).heads == ("sequence-classification",)


@pytest.mark.parametrize(
    "names, head",
    [
        (("cls.predictions.bias", "cls.seq_relationship.bias"), "pretraining"),
        (("cls.predictions.bias",), "masked-lm"),
        (("cls.seq_relationship.bias",), "next-sentence-prediction"),
        (("qa_outputs.bias",), "question-answering"),
        (POOLER, "encoder"),
        ((), "encoder"),
    ],
)
def test_the_parts_that_are_there_say_the_head(names: tuple[str, ...], head: str) -> None:
    assert infer_head(HUAWEI_TORCH, entries("bert.embeddings.word_embeddings.weight", *names)).heads == (head,)


def test_a_layer_of_another_name_that_may_be_a_classifier_is_asked_about() -> None:
    inference = infer_head(HUAWEI_TORCH, sized("scorer.weight", (5, 32)) | sized("scorer.bias", (5,)))
    assert inference.heads == ()
    assert inference.layers == ("scorer",)
    assert "scorer.weight, scorer.bias" in inference.reason
    with pytest.raises(UsageError, match="scorer") as error:
        choose_head(None, inference)
    assert error.value.ways == (("--rename", "scorer=classifier"), ("--head", "encoder"))
    assert error.value.hint == "Add --rename scorer=classifier, or --head encoder."
    assert choose_head("encoder", inference) is HEADS["encoder"]


@pytest.mark.parametrize(
    "name, shape",
    [
        ("lstm.weight", (5, 16)),
        ("dense.weight", (32, 32)),
        ("wide.weight", (5, 64)),
        ("encoder.layer.0.a.weight", (5, 32)),
    ],
)
def test_layers_that_are_no_classifier_leave_an_encoder_and_are_kept_beside_it(name: str, shape: Any) -> None:
    bias = name.replace(".weight", ".bias")
    inference = infer_head(HUAWEI_TORCH, sized(name, shape) | sized(bias, shape[:1]))
    assert inference.heads == ("encoder",)
    assert f"kept beside the model: {name}, {bias}" in inference.reason


def test_a_classifier_and_a_crf_classify_tokens_whatever_the_pooler_says() -> None:
    crf = sized("classifier.weight", (5, 32)) | sized("classifier.bias", (5,)) | sized("crf.transitions", (5, 5))
    assert infer_head(HUAWEI_TORCH, crf | entries(*POOLER)).heads == ("token-classification",)


def test_a_classifier_over_more_than_one_state_is_kept_beside_the_encoder() -> None:
    inference = infer_head(HUAWEI_TORCH, sized("classifier.weight", (5, 128)) | sized("classifier.bias", (5,)))
    assert inference.heads == ("encoder",)
    assert "classifier.weight [5, 128] reads more than one state" in inference.reason


# Choosing


@pytest.mark.parametrize("name", HEADS)
def test_the_head_asked_for_is_taken_whatever_is_inferred(name: str) -> None:
    assert choose_head(name, Inference(TWO, "")) is HEADS[name]
    assert choose_head(name, Inference(("encoder",), "")) is HEADS[name]


def test_the_only_head_that_fits_is_taken() -> None:
    assert choose_head(None, Inference(("masked-lm",), "")) is HEADS["masked-lm"]


def test_of_two_heads_none_is_guessed_and_both_are_named() -> None:
    with pytest.raises(UsageError, match="do not say which head this is: because") as caught:
        choose_head(None, Inference(TWO, "because"))
    assert caught.value.hint == "Add --head sequence-classification, or --head token-classification."


@pytest.mark.parametrize("name", ["", "bert", "Encoder"])
def test_an_unknown_head_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match=r"no such head; expected one of encoder, pretraining"):
        choose_head(name, Inference(("encoder",), ""))


# The other torch programs

BERT4TORCH_TABLE = "encoderLayer.0.multiHeadAttention.relative_positions_encoding.position_embeddings"
STRANGERS = [
    ("JABERv2", ["bert.embeddings.word_embeddings.weight", "bert.embeddings.position_embeddings.weight"]),
    (
        "NEZHA-Gen",
        ["bert/embeddings/word_embeddings", "bert/embeddings/position_embeddings", "cls/predictions/output_bias"],
    ),
    ("RoFormer", ["roformer.embeddings.word_embeddings.weight", "roformer.encoder.embed_positions.weight"]),
    ("RoFormer", ["roformer/embeddings/word_embeddings"]),
    ("RoFormer", ["encoderLayer.0.multiHeadAttention.relative_positions_encoding.cos_position"]),
    ("RoFormer", ["embeddings.layerNorm.weight", "encoderLayer.0.multiHeadAttention.q.weight"]),
    ("RoFormer", ["Embedding-Token/0/embeddings", "Transformer-0-MultiHeadSelfAttention/0/kernel"]),
    ("plain BERT", ["embeddings.position_embeddings.weight", "encoderLayer.0.multiHeadAttention.q.weight"]),
    ("plain BERT", ["Embedding-Position/0/embeddings", "Transformer-0-MultiHeadSelfAttention/0/kernel"]),
    ("RoBERTa", ["roberta.embeddings.word_embeddings.weight", "roberta.embeddings.position_embeddings.weight"]),
    ("ALBERT", ["albert.encoder.albert_layer_groups.0.albert_layers.0.ffn.weight"]),
    ("ALBERT", ["bert/encoder/transformer/group_0/inner_group_0/ffn_1/intermediate/dense/kernel"]),
    ("ELECTRA", ["electra/embeddings/word_embeddings"]),
    ("ELECTRA", ["module.electra.embeddings.word_embeddings.weight"]),
    ("ERNIE", ["ernie.embeddings.word_embeddings.weight", "ernie.embeddings.task_type_embeddings.weight"]),
    ("DistilBERT", ["distilbert.embeddings.word_embeddings.weight"]),
    ("DeBERTa", ["deberta.embeddings.word_embeddings.weight"]),
]


@pytest.mark.parametrize("title, names", STRANGERS, ids=[f"{i}-{title}" for i, (title, _) in enumerate(STRANGERS)])
def test_what_is_not_nezha_is_refused_by_name(title: str, names: list[str]) -> None:
    model = foreign(entries(*names))
    assert model is not None
    assert title in model.message
    assert model.hint
    assert not model.encoder_converts


@pytest.mark.parametrize("folder", EXPECTED)
def test_no_nezha_is_taken_for_another_model(folder: str) -> None:
    assert foreign(open_checkpoint(FIXTURES / folder).entries) is None


@pytest.mark.parametrize("wrapper", ["", "module.", "bert.", "module.bert."])
def test_bert4torch_s_own_names_are_its_with_the_prefixes_that_its_users_give(wrapper: str) -> None:
    names = ["embeddings.word_embeddings.weight", "embeddings.layerNorm.weight", "encoderLayer.0.attnLayerNorm.bias"]
    table = family_of(entries(*(wrapper + name for name in names)))
    assert table is BERT4TORCH
    assert all(table.find(wrapper + name) for name in names)


def test_what_bert4torch_saves_for_transformers_is_told_by_the_name_that_it_leaves() -> None:
    table = family_of(entries("bert.embeddings.word_embeddings.weight", BERT4TORCH_TABLE))
    assert table is BERT4TORCH_SAVED
    assert not table.defaults.tied
    assert isinstance(table.find(BERT4TORCH_TABLE), Drop)


@pytest.mark.parametrize("name, head", [("dense", "token-classification"), ("linear", "sequence-classification")])
def test_jaber_s_classifiers_are_known_by_name_whatever_the_config_says(name: str, head: str) -> None:
    found = entries("bert.embeddings.word_embeddings.weight", f"{name}.weight", f"{name}.bias", *POOLER)
    assert family_of(found) is JABER
    inference = infer_head(JABER, found, "BertForSomethingElse")
    assert inference.heads == (head,)
    assert "JABER" in inference.reason


@pytest.mark.parametrize("name", ["dense", "linear"])
def test_beside_a_stored_table_of_positions_such_a_layer_is_not_jaber_s(name: str) -> None:
    table = "bert.encoder.layer.0.attention.self.relative_positions_encoding.positions_encoding"
    found = entries("bert.embeddings.word_embeddings.weight", f"{name}.weight", f"{name}.bias", table, *POOLER)
    assert family_of(found) is HUAWEI_TORCH
    inference = infer_head(HUAWEI_TORCH, found | sized(f"{name}.weight", (5, 32)) | sized(f"{name}.bias", (5,)))
    assert inference.heads == ()
    assert inference.layers == (name,)


@pytest.mark.parametrize(
    "more, table",
    [
        ((), BERT4KERAS_BUNDLE),
        (("cls/predictions/output_bias",), BERT4KERAS_BUNDLE),
        (("bert/pooler/dense/kernel",), HUAWEI_TF),
        (("global_step",), HUAWEI_TF),
        (("bert/embeddings/word_embeddings/adam_m",), HUAWEI_TF),
        (("bert/embeddings/word_embeddings/lamb_v",), HUAWEI_TF),
    ],
)
def test_a_bundle_without_pooler_and_without_a_trace_of_training_is_bert4keras(more, table) -> None:
    assert family_of(entries("bert/embeddings/word_embeddings", *more)) is table


def test_a_root_classifier_without_a_pooler_is_of_tokens_or_left_to_its_owner() -> None:
    names = ("bert/embeddings/word_embeddings", "global_step", "output_weights", "output_bias")
    inference = infer_head(HUAWEI_TF, entries(*names))
    assert inference.heads == ("token-classification", "encoder")
    assert "no pooler" in inference.reason


# Whether a masked-LM model generates


def masked_lm_called(name: str, tmp_path: Path, **fields) -> Path:
    folder = tmp_path / name
    shutil.copytree(FIXTURES / "huawei-torch-mlm-rel127", folder)
    config = json.loads((folder / "bert_config.json").read_text())
    (folder / "bert_config.json").write_text(json.dumps({**config, **fields}))
    return folder


@pytest.mark.parametrize(
    "name, heads",
    [
        ("nezha_gpt_dialog", ("causal-lm", "prefix-lm", "masked-lm")),
        ("CDial-GPT", ("causal-lm", "prefix-lm", "masked-lm")),
        ("nezha-UniLM", ("prefix-lm", "causal-lm", "masked-lm")),
        ("nezha-base-chinese", ("masked-lm",)),
    ],
)
def test_a_name_that_speaks_of_generation_makes_a_question(name: str, heads: tuple[str, ...], tmp_path: Path) -> None:
    survey = look(open_checkpoint(masked_lm_called(name, tmp_path)))
    assert survey.inference.heads == heads
    if len(heads) > 1:
        assert survey.error.ways == tuple(("--head", head) for head in heads)
        assert [problem.partition(":")[0] for problem in survey.error.problems] == list(heads)


def test_a_config_that_says_it_is_not_asked_again(tmp_path: Path) -> None:
    causal = look(open_checkpoint(masked_lm_called("gpt", tmp_path, model_type="nezha", is_decoder=True)))
    assert causal.inference.heads == ("causal-lm",)
    named = look(open_checkpoint(masked_lm_called("chat", tmp_path, architectures=["NezhaForMaskedLM"])))
    assert named.inference.heads == ("masked-lm",)


def test_a_table_of_cdial_s_makes_the_question_whatever_the_name(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(masked_lm_called("x", tmp_path))
    table = next(iter(checkpoint.entries.values()))
    name = "bert.encoder.layer.0.attention.self.relative_positions_embeddings.embeddings_table_tensor"
    inference = infer_head(HUAWEI_TORCH, checkpoint.entries)
    assert may_generate(inference, {**checkpoint.entries, name: table}, ()).heads[0] == "causal-lm"
    assert may_generate(inference, checkpoint.entries, ("x",)) is inference
