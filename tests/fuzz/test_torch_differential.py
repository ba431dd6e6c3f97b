"""Broken PyTorch files: what we read, torch.load without mmap reads too, and every byte is equal."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from fuzz import torch_differential as differential

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pattern of fresh memory is glibc's")


def test_torch_agrees_on_broken_files() -> None:
    verdicts = Counter(differential.compare(differential.mutant(number))[0] for number in range(250))
    assert [said for said in verdicts if said.startswith("DISAGREE")] == []
    assert verdicts["agree: both read the same"] > 20


def test_memory_that_nothing_has_filled_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A legacy file without a storage, past a reader that does not look for it."""
    whole = differential.SEEDS[1]
    at = whole.rindex(b"\x80\x02]")
    lacking = whole[:at] + b"\x80\x02]."
    assert differential.compare(lacking)[0].startswith("stricter")
    monkeypatch.setattr("nezha_convert.formats.torch.read.check_torch_file", lambda file: False)
    assert differential.compare(lacking)[0] == "DISAGREE: other tensors"


@pytest.mark.parametrize(
    "mine, other, expected",
    [
        ({"read": {"a": 1}}, {"read": {"a": 1}}, "agree: both read the same"),
        ({"read": {"a": 1}}, {"read": {"a": 2}}, "DISAGREE: other tensors"),
        ({"read": {}}, {"refused": "x"}, "DISAGREE: we alone read it"),
        ({"read": {}}, {"died": "SIGALRM"}, "DISAGREE: we alone read it"),
        ({"died": "SIGSEGV"}, {"refused": "x"}, "DISAGREE: our reader died"),
        ({"refused": "x"}, {"refused": "y"}, "agree: both refuse it"),
        ({"refused": "x"}, {"died": "SIGALRM"}, "agree: we refuse it, torch ends"),
        ({"refused": "x"}, {"read": {}}, "stricter: we alone refuse it"),
    ],
)
def test_a_verdict(mine: dict[str, object], other: dict[str, object], expected: str) -> None:
    assert differential.verdict(mine, other).startswith(expected)
