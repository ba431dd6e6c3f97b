"""Broken bundles: our reader and TensorFlow's read the same or both refuse, or the difference is explained."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from fuzz.differential import EXPLAINED, ours, theirs, verdict, write

PYTHON = os.environ.get("NEZHA_TF_PYTHON") or (sys.executable if find_spec("tensorflow") else None)


@pytest.mark.skipif(not PYTHON, reason="no TensorFlow: NEZHA_TF_PYTHON names a Python that has it")
def test_tensorflow_agrees_on_broken_bundles(tmp_path: Path) -> None:
    written = write(tmp_path, 500)
    answers = theirs([prefix for _, prefix in written], str(PYTHON))
    verdicts = [verdict(ours(prefix), other) for (_, prefix), other in zip(written, answers, strict=True)]
    assert [said for said in verdicts if said.startswith("DISAGREE")] == []
    assert sum(said.startswith("agree") for said in verdicts) > 400


def test_the_same_bundles_are_written_each_time(tmp_path: Path) -> None:
    outcomes = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        written = write(tmp_path / name, 40)
        outcomes.append([(wrong, "read" in ours(prefix)) for wrong, prefix in written])
    assert outcomes[0] == outcomes[1]
    assert 0 < sum(read for _, read in outcomes[0]) < 40


@pytest.mark.parametrize(
    "mine, other, expected",
    [
        ({"read": {"a": 1}}, {"read": {"a": 1}}, "agree: both read the same"),
        ({"read": {"a": 1}}, {"read": {"a": 2}}, "DISAGREE"),
        ({"read": {}}, {"refused": "x"}, "DISAGREE"),
        ({"read": {}}, {"died": "SIGABRT"}, "DISAGREE"),
        ({"refused": "x"}, {"refused": "y"}, "agree: both refuse it"),
        ({"refused": "x"}, {"died": "SIGABRT"}, "agree: we refuse it, TensorFlow's process dies of it"),
        ({"refused": "x"}, {"read": {}}, "DISAGREE: we alone refuse it"),
        ({"refused": EXPLAINED[0][0]}, {"read": {}}, "stricter: "),
    ],
)
def test_a_verdict(mine: dict[str, object], other: dict[str, object], expected: str) -> None:
    assert verdict(mine, other).startswith(expected)
