"""The inputs that both sides compute on."""

from __future__ import annotations

import numpy as np

from nezha_convert.parity import inputs


def test_inputs_hold_every_kind_of_case():
    cases = inputs.built_in_cases({"vocab_size": 64, "type_vocab_size": 2}, 64, "encoder")
    assert cases["past the clip"]["input_ids"].shape[1] > 64
    assert cases["past 512"]["input_ids"].shape[1] > 512
    assert not cases["padded"]["attention_mask"].all() and (cases["padded"]["input_ids"][1, 16:] == 0).all()
    assert set(cases["pair"]["token_type_ids"].flat) == {0, 1}
    every, masked = cases["every type"], cases["all masked"]
    assert {0, 63} <= set(every["input_ids"][0, 1:-1]) and every["attention_mask"].all()
    assert masked["attention_mask"].any(1).tolist() == [True, False]
    many = inputs.built_in_cases({"vocab_size": 64, "type_vocab_size": 16}, 64, "encoder")["every type"]
    assert set(many["token_type_ids"].flat) == set(range(16))
    claimed = inputs.built_in_cases({"vocab_size": 64, "type_vocab_size": 1 << 40}, 64, "encoder")["every type"]
    assert claimed["input_ids"].shape[1] == inputs.LONG
    again = inputs.built_in_cases({"vocab_size": 64, "type_vocab_size": 2}, 64, "multiple-choice")
    assert all((again[name]["input_ids"][0] == case["input_ids"]).all() for name, case in cases.items())


def test_cases_are_grouped_by_their_tokens_behind_the_first_group(monkeypatch):
    monkeypatch.setattr(inputs, "TOKENS_AT_ONCE", 10)
    cases = {
        name: {"input_ids": np.ones((1, tokens), int)}
        for name, tokens in zip("abcdef", (9, 9, 4, 6, 12, 1), strict=True)
    }
    assert [list(group) for group in inputs.grouped(cases, 2)] == [["a", "b"], ["c", "d"], ["e"], ["f"]]
