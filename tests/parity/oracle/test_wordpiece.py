"""The reference tokenizer against the tokens that Huawei's own code made."""

from __future__ import annotations

import json
import string

import pytest
from goldens import FIXTURES

from nezha_convert.parity.oracle import wordpiece


@pytest.mark.parametrize("casing", ["lower", "cased"])
def test_the_reference_tokenizer_is_huawei_s(casing):
    tokens = (FIXTURES / "tokenization" / "vocab.txt").read_text("utf-8").split("\n")
    for row in json.loads((FIXTURES / "tokenization" / "expected.json").read_text("utf-8"))[casing]:
        assert wordpiece.tokenize(row["text"], set(tokens), casing == "lower") == row["tokens"], row["text"]


def test_the_built_in_texts_pin_the_longest_word():
    at_101, at_150, at_200, at_201 = wordpiece.texts_for(["a", "##a"])[-4:]
    lengths = [len(wordpiece.tokenize(text, ["a", "##a"], True)) for text in (at_101, at_150, at_200, at_201)]
    assert lengths == [102, 151, 201, 2]


@pytest.mark.parametrize(
    ("tokens", "lower"),
    [
        (["a", "<S>", "[CLS]", "##AB"], True),
        (["a", "A"], True),
        ([*string.ascii_uppercase], False),
        (["[unused1]"], True),
    ],
)
def test_a_vocabulary_is_cased_where_capital_letters_are_tokens(tokens, lower):
    assert wordpiece.lower_cases(tokens) is lower
