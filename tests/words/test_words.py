"""A few words of transformers' config and tokenizer config against transformers 4.40.2; `nox -s words` tries all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import upstream
from words import MISSING, SUBJECTS, Change, Outcomes, measure

MODEL = (
    ("is_decoder", True, 1, 2, "encoder", False, "", None),
    ("hidden_act", "gelu_new", "GELU", None, MISSING),
    ("max_relative_position", 3, 65),
    ("layer_norm_eps", 0.5),
    ("tie_word_embeddings", False, 0),
    ("pruned_heads", {"0": [0]}),
    ("add_cross_attention", True),
    ("position_embedding_type", "absolute"),
    ("chunk_size_feed_forward", 1),
    ("no_such_key", 1),
)
TOKENIZER = (
    ("do_lower_case", False, None, 0, MISSING),
    ("tokenize_chinese_chars", False),
    ("strip_accents", True, False),
    ("never_split", ["word"]),
    ("do_basic_tokenize", False),
    ("cls_token", "[SEP]", "NEW"),
    ("tokenizer_class", "BertTokenizerFast", "BertJapaneseTokenizer"),
    ("no_such_key", 1),
)


def tried(name: str, table: Sequence[tuple[Any, ...]]) -> Outcomes:
    """The outcomes of the words of `table`, with the subject `name`."""
    only = [Change(key, value) for key, *values in table for value in values]
    try:
        return measure(SUBJECTS[name], only=only)
    except upstream.UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize(("name", "table"), [("transformers", MODEL), ("tokenizer", TOKENIZER)])
def test_what_a_word_does_in_transformers_it_does_in_the_converted_folder_or_we_refuse(name, table):
    found = tried(name, table)
    assert found.wrong == ()
    assert found.counts["agree"] >= len(table) / 2
