"""The config: what the source says is kept, what it leaves open is decided with a reason, nonsense is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nezha_convert import convert, families
from nezha_convert.checkpoint import Decision, Origin
from nezha_convert.errors import CheckpointError, MappingError, UsageError
from nezha_convert.families.heads import HEADS
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.mapping.config import AUTO_MAP, Config, architecture_of, decide_config, read_config
from nezha_convert.mapping.labels import read_labels
from nezha_convert.mapping.recognise import family_of

FIXTURES = Path(__file__).parents[2] / "fixtures"
TF, TF_NER, TF_PRETRAINING = "huawei-tf-classifier", "huawei-tf-ner", "huawei-tf-pretraining"
TORCH, ENGLISH = "huawei-torch-classifier", "huawei-torch-mlm-rel127"
HF, HF_TOKENS = "transformers-4.40.2-sequence-classification", "transformers-4.40.2-token-classification"
FAMILIES = pytest.mark.parametrize("fixture", [TF, TORCH, HF])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
ABSENT = object()


def build(fixture: str, head: str = "sequence-classification", options: Any = None, **changes: Any) -> Config:
    """The fixture's config, with fields changed or left out (ABSENT), decided."""
    checkpoint = open_checkpoint(FIXTURES / fixture)
    raw = read_config(checkpoint.config, checkpoint.path) | changes
    raw = {name: value for name, value in raw.items() if value is not ABSENT}
    return decide_config(raw, family_of(checkpoint.entries), HEADS[head], checkpoint.entries, **(options or {}))


def decision(config: Config, field: str) -> Decision | None:
    found = [decision for decision in config.decisions if decision.field == field]
    assert len(found) < 2
    return found[0] if found else None


# What the source says


@FAMILIES
def test_sizes_that_the_source_says_are_kept_without_a_decision(fixture: str) -> None:
    config = build(fixture)
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "type_vocab_size": 2,
    }
    assert {name: config.fields[name] for name in sizes} == sizes
    assert all(decision(config, name) is None for name in sizes)


def test_a_whole_config_of_transformers_leaves_nothing_to_decide() -> None:
    config = build(HF)
    raw = json.loads((FIXTURES / HF / "config.json").read_text("utf-8"))
    assert config.decisions == ()
    assert config.ignored == ()
    assert {name: raw[name] for name in config.fields if name in raw} == {
        name: value for name, value in config.fields.items() if name in raw
    }


def test_fields_that_say_nothing_about_a_nezha_are_listed() -> None:
    assert set(build(TF).ignored) == {"directionality", "pooler_fc_size", "pooler_type"}
    assert build(HF, my_field=1).unknown == {"my_field": 1}
    assert "my_field" not in build(HF, my_field=1).ignored


@pytest.mark.parametrize(
    "fields",
    [
        {"is_encoder_decoder": True},
        {"add_cross_attention": True},
        {"pruned_heads": {"0": [1]}},
        {"cross_attention_hidden_size": 64},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_no_nezha_computes_is_refused_and_its_absence_is_not(fields: dict[str, Any]) -> None:
    with pytest.raises(MappingError, match=f"{next(iter(fields))} is .*; no Nezha computes that") as caught:
        build(HF, **fields)
    assert "--config" in caught.value.hint
    for value in (None, False, 0, {}):
        assert build(HF, **dict.fromkeys(fields, value)).fields == build(HF).fields


@pytest.mark.parametrize(
    "fixture, field, value",
    [
        (HF, "is_decoder", True),
        (TORCH, "application", "lm"),
        ("bert4torch-pretraining", "application", "lm"),
    ],
)
def test_a_program_that_sees_only_what_is_before_makes_a_decoder(fixture: str, field: str, value: object) -> None:
    config = build(fixture, "pretraining" if "bert4torch" in fixture else "sequence-classification", **{field: value})
    assert config.fields["is_decoder"] is True
    assert field in decision(config, "is_decoder").reason
    assert field not in (*config.ignored, *config.unknown)
    for other in (None, False, "encoder" if field == "application" else 0):
        assert "is_decoder" not in build(fixture, **{field: other}).fields


@pytest.mark.parametrize("value", [1, 2, -1, "encoder", "false", [0]])
def test_whatever_python_calls_true_makes_a_decoder_as_it_does_in_transformers(value: object) -> None:
    assert build(HF, is_decoder=value).fields["is_decoder"] is True


def test_is_decoder_counts_by_who_wrote_it() -> None:
    assert build(TORCH, is_decoder=True, model_type="nezha").fields["is_decoder"] is True
    with pytest.raises(MappingError, match="is_decoder is True: Huawei's program does not read it"):
        build(TORCH, is_decoder=True)
    assert "is_decoder" not in build("bert4torch-pretraining", "pretraining", is_decoder=True).fields


@pytest.mark.parametrize("value", [None, 0, 2, "false", {}])
def test_whether_the_decoder_is_tied_is_said_by_true_or_false_alone(value: object) -> None:
    with pytest.raises(MappingError, match=r"tie_word_embeddings is .*, expected true or false"):
        build("bert4torch-pretraining", "pretraining", tie_word_embeddings=value)


def test_another_epsilon_than_that_of_huawei_s_masked_lm_head_is_refused() -> None:
    with pytest.raises(MappingError, match=r"layer_norm_eps is 0\.5, expected 1e-12"):
        build("huawei-torch-pretraining", "pretraining", layer_norm_eps=0.5)


def test_paddlenlp_without_relative_positions_is_refused() -> None:
    with pytest.raises(MappingError, match="use_relative_position is False"):
        build("paddlenlp-pretraining", "pretraining", use_relative_position=False)


def test_a_mask_that_no_nezha_has_is_refused() -> None:
    with pytest.raises(MappingError, match="application is 'LM'"):
        build(TORCH, application="LM")


@pytest.mark.parametrize("fixture", [TORCH, "bert4torch-pretraining"])
def test_unilm_s_mask_is_a_prefix_that_sees_itself(fixture: str) -> None:
    fields = build(fixture, "masked-lm", application="unilm").fields
    assert fields["is_decoder"] is fields["prefix_lm"] is True
    assert "prefix_lm" not in build(fixture, "masked-lm", application="lm").fields


@pytest.mark.parametrize("head", ["causal-lm", "prefix-lm"])
def test_a_head_that_generates_makes_a_decoder_where_no_file_says_so(head: str) -> None:
    config = build(TORCH, head)
    assert config.fields["is_decoder"] is True
    assert config.fields.get("prefix_lm", False) is (head == "prefix-lm")
    assert {d.origin for d in config.decisions if d.field in ("is_decoder", "prefix_lm")} == {Origin.ASKED}


def test_a_prefix_is_refused_where_the_config_says_that_it_sees_one_side() -> None:
    with pytest.raises(MappingError, match="'application' says that a token attends only to itself") as error:
        build("bert4torch-pretraining", "prefix-lm", application="lm")
    assert "--head causal-lm" in error.value.hint


def test_only_a_model_that_generates_is_told_how_a_text_begins_and_ends() -> None:
    ids = {"pad_token_id": 0, "bos_token_id": 4, "eos_token_id": 5}
    assert ids.items() <= build(TORCH, "causal-lm").to_json(ids, "float32").items()
    assert "eos_token_id" not in build(TORCH, "masked-lm").to_json(ids, "float32")


def test_every_family_has_a_table_of_words() -> None:
    assert all(family.words for family in families.FAMILIES)


@pytest.mark.parametrize("fixture, rows", [(TF, "unmasked"), (TORCH, "unmasked"), (HF, None)])
def test_rows_that_are_masked_throughout_do_what_they_do_in_the_program(fixture: str, rows: str | None) -> None:
    assert build(fixture).fields.get("masked_rows") == rows
    assert build(fixture, masked_rows="unmasked").fields["masked_rows"] == "unmasked"
    assert "masked_rows" not in build(fixture, masked_rows="even").fields
    with pytest.raises(MappingError, match="masked_rows is 'odd'"):
        build(fixture, masked_rows="odd")


def test_huawei_s_tensorflow_program_does_not_read_a_clip_distance() -> None:
    config = build(TF, max_relative_position=3)
    assert config.fields["max_relative_position"] == 64
    assert "does not read the config's 3" in decision(config, "max_relative_position").reason


@pytest.mark.parametrize("stated", [127, 64, None])
def test_a_stored_table_decides_the_clip_distance(stated: int | None) -> None:
    config = build(TORCH, options={"stored_clip": 127}, max_relative_position=stated or ABSENT)
    assert config.fields["max_relative_position"] == 127
    found = decision(config, "max_relative_position")
    assert found is None if stated == 127 else found.origin is Origin.TENSORS


@pytest.mark.parametrize("name, value", [("pad_token_id", 5), ("bos_token_id", 7), ("eos_token_id", None)])
def test_token_ids_are_carried_over(name: str, value: int | None) -> None:
    assert build(HF, **{name: value}).fields[name] == value
    assert name not in build(TF).fields


@pytest.mark.parametrize("untied", [True, False])
def test_ties_are_said(untied: bool) -> None:
    assert build(TF, options={"untied": untied}).fields["tie_word_embeddings"] is not untied


def test_whole_numbers_written_as_floats_are_whole_numbers() -> None:
    fields = build(TF, hidden_size=32.0, initializer_range=0).fields
    assert (fields["hidden_size"], type(fields["hidden_size"])) == (32, int)
    assert (fields["initializer_range"], type(fields["initializer_range"])) == (0.0, float)


# What it leaves open

TOLD_BY_TENSORS = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "type_vocab_size": 2,
}


@FAMILIES
@pytest.mark.parametrize("name", TOLD_BY_TENSORS)
def test_a_missing_size_is_the_tensors(name: str, fixture: str) -> None:
    config = build(fixture, **{name: ABSENT})
    assert config.fields[name] == TOLD_BY_TENSORS[name]
    assert decision(config, name) == Decision(
        name, TOLD_BY_TENSORS[name], "the config does not say; the tensors do", Origin.TENSORS
    )


@FAMILIES
def test_the_number_of_heads_stands_in_no_tensor(fixture: str) -> None:
    with pytest.raises(MappingError, match="num_attention_heads is missing, and no tensor tells it") as caught:
        build(fixture, num_attention_heads=ABSENT)
    assert "--config" in caught.value.hint


DEFAULTS = {
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "max_position_embeddings": 512,
    "max_relative_position": 64,
    "layer_norm_eps": 1e-12,
}


@FAMILIES
@pytest.mark.parametrize("name", DEFAULTS)
def test_a_missing_number_is_the_originals(name: str, fixture: str) -> None:
    config = build(fixture, **{name: ABSENT})
    found = decision(config, name)
    assert found is not None
    assert config.fields[name] == found.value == DEFAULTS[name]
    assert found.reason.startswith("the config does not say: ")


@FAMILIES
@pytest.mark.parametrize("name", DEFAULTS)
def test_a_number_that_the_source_says_is_not_decided(name: str, fixture: str) -> None:
    value = 3 if "position" in name else 0.25
    if fixture == TF:  # any other is not read there: see below
        value = {"layer_norm_eps": 1e-12, "max_relative_position": 64}.get(name, value)
    config = build(fixture, **{name: value})
    assert config.fields[name] == value
    assert decision(config, name) is None


def test_the_epsilon_of_tensorflows_code_is_not_the_jsons() -> None:
    config = build(TF, layer_norm_eps=1e-5)
    found = decision(config, "layer_norm_eps")
    assert found is not None
    assert config.fields["layer_norm_eps"] == found.value == 1e-12
    assert "does not read the config's 1e-05" in found.reason


def test_a_copy_with_huaweis_prefix_and_transformers_config_has_transformers_activations() -> None:
    config = build(TORCH, hidden_act="gelu_new", model_type="bert")
    assert config.fields["hidden_act"] == "gelu_new"
    assert decision(config, "hidden_act") is None


# The clip distance


def test_the_english_models_clip_distance_is_its_jsons() -> None:
    config = build(ENGLISH, "masked-lm")
    assert config.fields["max_relative_position"] == 127
    assert decision(config, "max_relative_position") is None


def test_a_tensorflow_config_does_not_say_the_clip_distance_which_is_64() -> None:
    found = decision(build(TF), "max_relative_position")
    assert found is not None
    assert found.value == 64
    assert "hard-coded" in found.reason


@FAMILIES
def test_the_clip_distance_asked_for_wins(fixture: str) -> None:
    config = build(fixture, options={"max_relative_position": 7}, max_relative_position=127)
    assert config.fields["max_relative_position"] == 7
    assert decision(config, "max_relative_position") == Decision("max_relative_position", 7, "asked for", Origin.ASKED)


@pytest.mark.parametrize("asked", [0, -1])
def test_a_clip_distance_below_one_is_no_request(asked: int) -> None:
    with pytest.raises(UsageError, match=f"max.relative.position.*{asked}"):
        build(TF, options={"max_relative_position": asked})


# The activation


@pytest.mark.parametrize(
    "fixture, said, expected, reason",
    [
        (TF, "gelu", "gelu_pytorch_tanh", "tanh approximation"),
        (TF, "GELU", "gelu_pytorch_tanh", "tanh approximation"),
        (TF, ABSENT, "gelu_pytorch_tanh", "tanh approximation"),
        (TF, "relu", "relu", "'relu'"),
        (TF, "tanh", "tanh", "'tanh'"),
        (TF, "linear", "linear", "'linear'"),
        (TORCH, "gelu", "gelu", "erf"),
        (TORCH, ABSENT, "gelu", "erf"),
        (TORCH, "relu", "relu", "'relu'"),
        (TORCH, "swish", "silu", "'swish'"),
        (HF, ABSENT, "gelu", "does not say"),
    ],
)
def test_the_activation_is_what_the_familys_code_computes(
    fixture: str, said: object, expected: str, reason: str
) -> None:
    config = build(fixture, hidden_act=said)
    found = decision(config, "hidden_act")
    assert found is not None
    assert config.fields["hidden_act"] == found.value == expected
    assert reason in found.reason


@pytest.mark.parametrize("said", ["gelu", "gelu_new", "gelu_pytorch_tanh", "silu"])
def test_the_activation_of_transformers_is_its_own(said: str) -> None:
    config = build(HF, hidden_act=said)
    assert config.fields["hidden_act"] == said
    assert decision(config, "hidden_act") is None


@pytest.mark.parametrize(
    "fixture, said",
    [(TF, "swish"), (TF, "gelu_new"), (TF, 3), (TF, None), (TORCH, "GELU"), (TORCH, "tanh"), (TORCH, []), (TORCH, {})],
)
def test_an_activation_that_the_family_does_not_have_is_refused_and_the_way_out_told(fixture: str, said: Any) -> None:
    with pytest.raises(MappingError, match="hidden_act is ") as caught:
        build(fixture, hidden_act=said)
    assert repr(said) in str(caught.value)
    assert "--activation" in caught.value.hint


@pytest.mark.parametrize("said", [3, None, [], {}, True])
def test_an_activation_that_is_no_name_is_refused(said: Any) -> None:
    with pytest.raises(MappingError, match="hidden_act is "):
        build(HF, hidden_act=said)


@FAMILIES
@pytest.mark.parametrize("said", ["nonsense", 3, "gelu"])
def test_the_activation_asked_for_wins(fixture: str, said: Any) -> None:
    config = build(fixture, options={"activation": "gelu_new"}, hidden_act=said)
    assert config.fields["hidden_act"] == "gelu_new"
    assert decision(config, "hidden_act") == Decision("hidden_act", "gelu_new", "asked for", Origin.ASKED)


# Dropout before a classifier


def test_dropout_before_a_tensorflow_classifier_is_that_of_the_scripts() -> None:
    config = build(TF, hidden_dropout_prob=0.3)
    assert config.fields["classifier_dropout"] == 0.1
    assert decision(config, "classifier_dropout") is not None


def test_dropout_before_a_pytorch_classifier_is_the_hidden_one() -> None:
    assert build(TORCH, hidden_dropout_prob=0.3).fields["classifier_dropout"] == 0.3


@FAMILIES
@pytest.mark.parametrize("value", [0.0, 0.4, None])
def test_dropout_that_the_source_says_is_kept(fixture: str, value: float | None) -> None:
    assert build(fixture, classifier_dropout=value).fields["classifier_dropout"] == value


def test_a_head_without_a_classifier_needs_no_such_dropout() -> None:
    assert "classifier_dropout" not in build(TF_PRETRAINING, "pretraining").fields


# use_relative_position


@pytest.mark.parametrize("fixture", [TF, TORCH])
@pytest.mark.parametrize("said, words", [(ABSENT, "does not say"), (False, "says false"), (None, "does not say")])
def test_the_tensors_decide_that_it_is_relative(fixture: str, said: Any, words: str) -> None:
    found = decision(build(fixture, use_relative_position=said), "use_relative_position")
    assert found is not None
    assert found.value is True
    assert words in found.reason
    assert "no position embeddings" in found.reason


def test_nothing_is_to_decide_where_the_config_says_relative_or_the_family_knows_no_other() -> None:
    assert decision(build(TF, use_relative_position=True), "use_relative_position") is None
    assert decision(build(HF), "use_relative_position") is None


def test_the_field_itself_is_not_written() -> None:
    config = build(TF)
    assert "use_relative_position" not in config.to_json({}, "float32")
    assert "use_relative_position" not in config.ignored


# Nonsense

NONSENSE = [0, -3, 1.5, "12", True, None, [], {}, float("inf"), float("nan"), 2**31, 10**400]


@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: str(value)[:12])
@pytest.mark.parametrize("name", ["hidden_size", "num_attention_heads", "max_relative_position"])
def test_a_size_that_is_no_positive_whole_number_is_refused(name: str, value: Any) -> None:
    with pytest.raises(MappingError, match=f"{name} is .*expected a positive whole number"):
        build(TORCH, **{name: value})


@pytest.mark.parametrize(
    "value", [-0.1, "0.1", True, None, [], float("inf"), float("nan"), 10**400], ids=lambda v: str(v)[:12]
)
@pytest.mark.parametrize("name", ["hidden_dropout_prob", "layer_norm_eps", "initializer_range"])
def test_a_rate_that_is_no_number_from_zero_is_refused(name: str, value: Any) -> None:
    with pytest.raises(MappingError, match=f"{name} is .*expected a number from 0"):
        build(TF, **{name: value})


@pytest.mark.parametrize("name", ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"])
@pytest.mark.parametrize("value", [1.5, 10, "half", "", [], False, True])
def test_a_dropout_that_is_no_probability_is_refused(name: str, value: Any) -> None:
    with pytest.raises(MappingError, match=f"{name} is "):
        build(HF, **{name: value})


def test_heads_that_do_not_divide_the_hidden_size_are_refused() -> None:
    with pytest.raises(MappingError, match="hidden_size 32 is not a multiple of num_attention_heads 5"):
        build(TF, num_attention_heads=5)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([TF, HF]),
    st.dictionaries(st.sampled_from([*DEFAULTS, *TOLD_BY_TENSORS, "hidden_act", "id2label"]), JSON),
)
def test_no_config_whatsoever_raises_anything_but_a_mapping_error(fixture: str, changes: dict[str, Any]) -> None:
    try:
        config = build(fixture, **changes)
    except MappingError as error:
        assert str(error)
    else:
        written = json.loads(json.dumps(config.to_json({}, "float32"), allow_nan=False))
        assert written["hidden_size"] % written["num_attention_heads"] == 0


# What is written


@pytest.mark.parametrize("head", HEADS)
def test_the_json_names_the_class_the_code_and_the_element_type(head: str) -> None:
    written = build(TF, head).to_json({}, "bfloat16")
    assert written["architectures"] == [HEADS[head].architecture]
    assert written["model_type"] == "nezha"
    assert written["torch_dtype"] == "bfloat16"
    assert written["auto_map"] == AUTO_MAP
    assert len(AUTO_MAP) == 10
    assert all(value.split(".")[0] in ("configuration_nezha", "modeling_nezha") for value in AUTO_MAP.values())


@FAMILIES
def test_the_json_makes_a_config_of_the_model_with_the_same_values(fixture: str) -> None:
    from nezha import NezhaConfig

    config = build(fixture)
    loaded = NezhaConfig.from_dict(json.loads(json.dumps(config.to_json({}, "float32"))))
    for name, value in config.fields.items():
        if name == "id2label":
            value = {int(key): label for key, label in value.items()}
        assert getattr(loaded, name) == value, name


def test_the_plans_dimensions_are_the_configs_and_the_classifiers_rows() -> None:
    assert build(TF).dimensions == {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "type_vocab_size": 2,
        "num_hidden_layers": 2,
        "num_labels": 3,
    }
    assert build(TF_NER, "token-classification").dimensions["num_labels"] == 11
    assert build(HF, "multiple-choice").dimensions["num_labels"] == 1


# Labels


@FAMILIES
def test_labels_given_are_the_rows_in_order(fixture: str) -> None:
    rows = 3 if fixture == TF else 5
    names = [f"类{i}" for i in range(rows)]
    config = build(fixture, options={"labels": names})
    assert config.fields["id2label"] == {str(i): name for i, name in enumerate(names)}
    assert config.fields["label2id"] == {name: i for i, name in enumerate(names)}
    assert decision(config, "id2label") is None


@pytest.mark.parametrize("fixture", [TF, TORCH])
def test_labels_that_nobody_names_are_numbered_and_that_is_said(fixture: str) -> None:
    config = build(fixture)
    rows = 3 if fixture == TF else 5
    assert config.fields["id2label"] == {str(i): f"LABEL_{i}" for i in range(rows)}
    found = decision(config, "id2label")
    assert found is not None
    assert f"the classifier has {rows} rows" in found.reason
    assert "--labels" in found.reason


def test_labels_of_the_config_are_kept() -> None:
    named = {str(i): name for i, name in enumerate("abcde")}
    config = build(HF, id2label=named)
    assert config.fields["id2label"] == named
    assert decision(config, "id2label") is None


def test_labels_of_an_original_config_are_kept_too() -> None:
    assert build(TF, id2label={"0": "x", "1": "y", "2": "z"}).fields["label2id"] == {"x": 0, "y": 1, "z": 2}


@pytest.mark.parametrize(
    "given", [{"0": "a"}, {"1": "a", "2": "b", "3": "c", "4": "d", "5": "e"}, {}, [], "abcde", None, {"x": "y"}]
)
def test_labels_of_a_config_that_do_not_fit_the_rows_are_replaced_and_that_is_said(given: Any) -> None:
    config = build(HF, id2label=given)
    assert config.fields["id2label"] == {str(i): f"LABEL_{i}" for i in range(5)}
    assert decision(config, "id2label") is not None


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_another_number_of_labels_than_rows_is_refused(count: int) -> None:
    with pytest.raises(MappingError, match=f"{count} given, but the classifier has 3 rows"):
        build(TF, options={"labels": [str(i) for i in range(count)]})


def test_the_padding_label_of_ner_is_added_and_that_is_said() -> None:
    names = [f"B-{i}" for i in range(10)]
    config = build(TF_NER, "token-classification", {"labels": names})
    assert list(config.fields["id2label"].values()) == ["[PAD]", *names]
    assert config.fields["label2id"]["B-0"] == 1
    found = decision(config, "id2label")
    assert found is not None
    assert "from 1" in found.reason


def test_a_label_for_every_row_of_ner_leaves_no_room_for_padding() -> None:
    names = [f"B-{i}" for i in range(11)]
    config = build(TF_NER, "token-classification", {"labels": names})
    assert list(config.fields["id2label"].values()) == names


@pytest.mark.parametrize(
    "fixture, head, rows", [(TF_NER, "sequence-classification", 11), (HF_TOKENS, "token-classification", 5)]
)
def test_nothing_else_has_a_padding_label(fixture: str, head: str, rows: int) -> None:
    with pytest.raises(MappingError, match=f"{rows - 1} given, but the classifier has {rows} rows"):
        build(fixture, head, {"labels": [str(i) for i in range(rows - 1)]})


def test_two_rows_of_one_name_in_a_config_are_kept_as_they_are() -> None:
    named = {str(i): "same" for i in range(5)}
    assert build(HF, id2label=named).fields["id2label"] == named


@pytest.mark.parametrize(
    "fixture, head",
    [
        (TF_PRETRAINING, "pretraining"),
        ("huawei-tf-squad", "question-answering"),
        (TF, "encoder"),
        (HF, "multiple-choice"),
    ],
)
def test_labels_for_a_head_without_any_are_refused(fixture: str, head: str) -> None:
    with pytest.raises(UsageError, match=f"the {head} model has no labels"):
        build(fixture, head, {"labels": ["a"]})
    assert "id2label" not in build(fixture, head).fields


# Files of labels

LABELS = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=6), min_size=1, unique=True
)


def labels_in(folder: Path, content: str | bytes, name: str = "labels.txt") -> list[str]:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_labels(folder / name)


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, bom=st.booleans(), ending=st.sampled_from(["\n", "\r\n", "\n\n"]), last=st.booleans())
def test_lines_of_text_are_labels(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str], bom: bool, ending: str, last: bool
) -> None:
    text = ending.join(labels) + (ending if last else "")
    folder = tmp_path_factory.getbasetemp()
    assert labels_in(folder, text.encode("utf-8-sig" if bom and text[0] != "\ufeff" else "utf-8")) == [
        label.removeprefix("\ufeff") if number == 0 else label for number, label in enumerate(labels)
    ]


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, form=st.integers(0, 2), bom=st.booleans(), shuffled=st.booleans())
def test_a_json_list_and_both_json_objects_are_labels(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str], form: int, bom: bool, shuffled: bool
) -> None:
    numbered = list(enumerate(labels))
    if shuffled:
        numbered.reverse()
    content = (
        labels,
        {str(i): label for i, label in numbered},
        {label: i for i, label in numbered},
    )[form]
    data = json.dumps(content).encode("utf-8-sig" if bom else "utf-8")
    assert labels_in(tmp_path_factory.getbasetemp(), data, "labels.json") == labels


@pytest.mark.parametrize("labels", [["1", "2", "3", "4", "5"], ["1", "2", "0"], ["-1", "0", "1"]])
def test_labels_that_are_numbers_themselves_are_read_rightly_both_ways(labels: list[str], tmp_path: Path) -> None:
    for content in (labels, dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}):
        assert labels_in(tmp_path, json.dumps(content), "labels.json") == labels


def test_blank_lines_and_spaces_around_are_no_labels(tmp_path: Path) -> None:
    assert labels_in(tmp_path, " a b \n\n\t\n c\n") == ["a b", "c"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "3",
        "null",
        '"a"',
        "[1, 2]",
        '["a", "b", "a"]',
        '["a", null]',
        '{"a": 1, "b": 2}',
        '{"0": "a", "2": "b"}',
        '{"a": 0, "b": 0}',
        '{"a": "x"}',
        '{"a": [0]}',
        '{"a": null}',
        '{"0": null}',
        '{"0": ["a"]}',
        '{"a": 0.5}',
        '{"a": true, "b": false}',
        "[" * 9**5,
        b"\xff\xfe",
    ],
    ids=lambda content: repr(content[:20]),
)
def test_json_that_is_no_list_of_labels_is_refused(content: str | bytes, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"labels\.json: not a file of labels"):
        labels_in(tmp_path, content, "labels.json")


def test_a_file_of_labels_that_is_no_text_or_not_there_or_has_one_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"labels\.txt: not a file of labels"):
        labels_in(tmp_path, b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"labels\.txt: not a file of labels \('a' is there twice\)"):
        labels_in(tmp_path, "a\nb\n a\n")
    with pytest.raises(UsageError, match=r"no\.txt: not a file of labels"):
        read_labels(tmp_path / "no.txt")


# The file


def test_a_missing_config_is_refused_and_the_way_out_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.ckpt: no bert_config\.json or config\.json beside it") as caught:
        read_config(None, tmp_path / "model.ckpt")
    assert "--config" in caught.value.hint
    with pytest.raises(CheckpointError, match=r"no\.json"):
        read_config(tmp_path / "no.json", tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\xff", b"{]", b"[" * 9**5], ids=range(5))
def test_a_config_that_is_no_json_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json: not a JSON file"):
        read_config(tmp_path / "config.json", tmp_path)


@pytest.mark.parametrize("content, kind", [("[]", "list"), ("3", "int"), ("null", "NoneType"), ('"a"', "str")])
def test_a_config_that_is_no_object_is_refused(content: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=f"holds a {kind}, expected an object"):
        read_config(tmp_path / "config.json", tmp_path)


def test_a_config_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes('{"哪": 1}'.encode("utf-8-sig"))
    assert read_config(tmp_path / "config.json", tmp_path) == {"哪": 1}


@pytest.mark.parametrize(
    "named, expected",
    [
        (["NeZhaForMaskedLM"], "NeZhaForMaskedLM"),
        (["A", "B"], "A"),
        ([], None),
        ([3], None),
        ([None, "A"], None),
        ("NezhaModel", None),
        (None, None),
        ({}, None),
    ],
)
def test_the_class_that_a_config_names(named: Any, expected: str | None) -> None:
    assert architecture_of({"architectures": named}) == expected


def test_a_config_may_name_no_class() -> None:
    assert architecture_of({}) is None


@pytest.mark.parametrize("name", ["bos_token_id", "eos_token_id"])
@pytest.mark.parametrize("value", ["1", True, 0.5, float("nan"), [1], {}])
def test_an_id_that_is_none_is_refused_before_it_is_written(name: str, value: object) -> None:
    with pytest.raises(MappingError, match=f"{name} is .*expected an id or null"):
        build(HF, **{name: value})
    assert build(HF, **{name: None}).fields[name] is None
    assert build(HF, **{name: 7}).fields[name] == 7


@pytest.mark.parametrize("value", ["classification", 1, [], ["regression"], {}])
def test_a_kind_of_problem_that_transformers_does_not_have_is_refused(value: object) -> None:
    with pytest.raises(MappingError, match=r"problem_type is .*regression"):
        build(HF, problem_type=value)
    assert build(HF, problem_type="regression").fields["problem_type"] == "regression"


def test_what_paddlenlp_writes_for_itself_is_not_reported_as_ignored() -> None:
    assert build(HF, paddlenlp_version="2.8.1", embedding_size=8).ignored == build(HF).ignored


@pytest.mark.parametrize("fixture", ["huawei-torch-pretraining", "paddlenlp-pretraining", "huawei-tf-pretraining"])
def test_layers_that_were_cut_are_told_and_layers_that_the_config_leaves_out_are_refused(fixture, tmp_path):
    """A program loads as many layers as its config says, so a smaller number is its own."""
    shutil.copytree(FIXTURES / fixture, tmp_path / "source")
    (config,) = (tmp_path / "source").glob("*config.json")
    raw = json.loads(config.read_text())
    config.write_text(json.dumps({**raw, "num_hidden_layers": 3}))
    decisions = convert(tmp_path / "source", tmp_path / "out", dry_run=True).decisions
    assert [decision.value for decision in decisions if decision.field == "num_hidden_layers"] == [2]
    config.write_text(json.dumps({**raw, "num_hidden_layers": 1}))
    with pytest.raises(MappingError) as caught:
        convert(tmp_path / "source", tmp_path / "out", dry_run=True)
    assert caught.value.problems[0] == "num_hidden_layers: the config says 1, the tensors have 2"
