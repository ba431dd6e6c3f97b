"""The converted model beside its references."""

from __future__ import annotations

import numpy as np
from goldens import GOLDENS

import nezha_convert
from nezha_convert.parity import compare
from nezha_convert.parity.oracle.model import Oracle


def test_an_input_that_the_original_cannot_take_is_left_out_and_told(tmp_path, monkeypatch):
    golden = next(golden for golden in GOLDENS if golden.name == "huawei-torch-pretraining")
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n", encoding="utf-8")
    nezha_convert.convert(golden.folder, tmp_path / "out", vocab=vocab)
    lengths = []

    def run(original: str, checkpoint: object, config: dict, head: str, cases: list) -> list:
        lengths.append([np.shape(case["input_ids"])[-1] for case in cases])
        return Oracle(checkpoint.entries, config, head).forward_all(cases)

    monkeypatch.setattr(compare, "run_original_all", run)
    monkeypatch.setattr("nezha_convert.parity.inputs.TOKENS_AT_ONCE", 600)
    report = nezha_convert.verify(
        golden.folder, tmp_path / "out", vocab=vocab, texts=["a", "a " * 598], original="transformers", record=False
    )
    assert report.passed, report.verdict
    assert lengths == [[8, 90, 40, 30, 20, 24], [3]]  # the group of 600 tokens has nothing for the original
    assert [warning.partition(":")[0] for warning in report.warnings] == ["past 512", "text 2"]
    assert all("left out for NEZHA-PyTorch" in warning for warning in report.warnings)
