"""Broken PyTorch files: what we read, torch.load without mmap reads too, and every byte is equal."""

from __future__ import annotations

import sys
from collections import Counter
from typing import BinaryIO

import pytest

from fuzz import torch_differential as differential
from nezha_convert.formats.pickles.machine import Pickled, follow
from nezha_convert.formats.pickles.values import Span
from nezha_convert.formats.torch.containers import _Storages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pattern of fresh memory is glibc's")


def test_torch_agrees_on_broken_files() -> None:
    verdicts = Counter(differential.compare(differential.mutant(number))[0] for number in range(250))
    assert [said for said in verdicts if said.startswith("DISAGREE")] == []
    assert verdicts["agree: we and torch read the same"] > 20


def test_memory_that_nothing_has_filled_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A legacy file without a storage, past a reader that does not look for it."""
    whole = differential.SEEDS[1]
    at = whole.rindex(b"\x80\x02]")
    lacking = whole[:at] + b"\x80\x02]."
    assert differential.compare(lacking)[0].startswith("we alone refuse it")
    monkeypatch.setattr("nezha_convert.formats.torch.containers._legacy", _careless)
    assert differential.compare(lacking)[0] == "DISAGREE: other tensors"


def _careless(data: BinaryIO, size: int) -> Pickled:
    """Storages that are not there lie where the file begins."""
    storages = _Storages()
    pickled = [follow(data, size, storages.resolve) for _ in range(3)][2]
    for storage in storages.by_key.values():
        storage.place = Span(0, 8 * storage.count)
    return pickled


@pytest.mark.parametrize(
    "mine, other, expected",
    [
        ({"read": {"a": 1}}, {"read": {"a": 1}, "by": "torch"}, "agree: we and torch read the same"),
        ({"read": {"a": 1}}, {"read": {"a": 2}}, "DISAGREE: other tensors"),
        ({"read": {}}, {"refused": "x"}, "DISAGREE: we alone read it"),
        ({"read": {}}, {"died": "SIGSEGV"}, "DISAGREE: we alone read it"),
        ({"read": {}}, {"died": "SIGALRM"}, "we alone read it: torch runs on"),
        ({"read": {}}, {"refused": "NEWOBJ"}, "we alone read it: an object"),
        ({"died": "SIGSEGV"}, {"refused": "x"}, "DISAGREE: our reader died"),
        ({"refused": "x"}, {"refused": "y"}, "agree: both refuse it"),
        ({"refused": "x"}, {"died": "SIGALRM"}, "agree: we refuse it, torch ends"),
        ({"refused": "the two headers of 'a' differ"}, {"read": {}, "by": "torch"}, "we alone refuse it: its zip file"),
        ({"refused": "x"}, {"read": {}, "by": "torch"}, "DISAGREE: we alone refuse it: x"),
        ({"refused": "x"}, {"read": {}, "by": "torch with stand-ins"}, "agree: torch's own list refuses it too"),
    ],
)
def test_a_verdict(mine: dict[str, object], other: dict[str, object], expected: str) -> None:
    assert differential.verdict(mine, other).startswith(expected)
