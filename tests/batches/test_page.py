"""The page of a batch shows every row, runs nothing of a stranger's, and needs no network."""

from __future__ import annotations

import json
import re

from nezha_convert.batches.page import page
from nezha_convert.batches.results import OUTCOMES, BatchReport, RowResult

EVIL = "</script><b>\x1b[31m&"


def report(*rows: RowResult) -> BatchReport:
    return BatchReport("0.1.0", EVIL, "out", rows, where="2 processes of this machine")


def test_each_outcome_is_shown_and_what_is_open_has_its_commands():
    rows = [RowResult(n, f"m{n}", f"out/{n}", outcome, reason="why") for n, outcome in enumerate(OUTCOMES, 1)]
    rows[2] = RowResult(3, "m3", "out/3", OUTCOMES[2], reason="which?", commands=("do this", "or that"))
    text = page(report(*rows))
    assert all(f">{outcome}</span>" in text for outcome in OUTCOMES)
    assert "<pre>do this\nor that</pre>" in text and "2 to look at" in text
    assert not re.search(r'(src|href)="(?!data:)', text)


def test_text_of_a_stranger_is_text_and_the_json_is_whole():
    text = page(report(RowResult(1, EVIL, EVIL, "failed", reason=EVIL, hint=EVIL, commands=(EVIL,))))
    assert "<b>\x1b" not in text and "\x1b" not in text
    (data,) = re.findall(r'<script type="application/json" id="report">(.*?)</script>', text, re.DOTALL)
    assert json.loads(data)["rows"][0]["source"] == EVIL


def test_a_report_in_which_all_is_right_says_so():
    text = page(report(RowResult(1, "m", "out/m", "verified", head="encoder", family="huawei-tf", worst_error=1e-7)))
    assert '<span class="badge">all right</span>' in text and "encoder (huawei-tf)" in text and "1.0e-07" in text
