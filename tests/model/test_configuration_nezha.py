"""NezhaConfig: its defaults, what it reads, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nezha import NezhaConfig

FIXTURES = sorted((Path(__file__).parents[2] / "fixtures").glob("transformers-4.40.2-*"))


def test_the_defaults_are_those_of_nezha_base_in_transformers_4_40_2():
    config = NezhaConfig()
    assert {
        "vocab_size": 21128,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": 512,
        "max_relative_position": 64,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "classifier_dropout": 0.1,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "tie_word_embeddings": True,
    }.items() <= vars(config).items()
    assert config.model_type == "nezha"


@pytest.mark.parametrize("folder", FIXTURES, ids=lambda folder: folder.name)
def test_a_config_that_transformers_4_40_2_wrote_keeps_every_field_it_defines(folder):
    written = json.loads((folder / "config.json").read_text())
    config = NezhaConfig.from_pretrained(folder)
    defined = set(NezhaConfig().to_dict()) - {"transformers_version", "dtype", "torch_dtype"}
    read = json.loads(config.to_json_string(use_diff=False))
    assert {field: read[field] for field in written if field in defined} == {
        field: value for field, value in written.items() if field in defined
    }
    assert config.tie_word_embeddings, "4.40.2 leaves it out of config.json, and means true"


def test_a_config_comes_back_from_its_own_file(tmp_path):
    config = NezhaConfig(max_relative_position=127, tie_word_embeddings=False, classifier_dropout=None, num_labels=5)
    config.save_pretrained(tmp_path)
    read = NezhaConfig.from_pretrained(tmp_path)
    for field in ("max_relative_position", "tie_word_embeddings", "classifier_dropout", "num_labels", "pad_token_id"):
        assert getattr(read, field) == getattr(config, field), field


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hidden_size": 770}, r"hidden_size must be a multiple of num_attention_heads \(12\), found 770"),
        ({"max_relative_position": 0}, "max_relative_position must be at least 1, found 0"),
        ({"max_relative_position": -64}, "max_relative_position must be at least 1, found -64"),
        ({"num_attention_heads": 0}, "num_attention_heads must be at least 1, found 0"),
        ({"vocab_size": 0}, "vocab_size must be at least 1, found 0"),
        ({"type_vocab_size": 0}, "type_vocab_size must be at least 1, found 0"),
        ({"masked_rows": "odd"}, "masked_rows must be"),
        ({"add_cross_attention": True}, "add_cross_attention must be false"),
    ],
)
def test_a_value_no_nezha_can_have_is_refused_by_name(given, message):
    with pytest.raises(ValueError, match=message):
        NezhaConfig(**given)
