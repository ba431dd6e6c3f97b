"""A short fuzzing of every reader, with the same inputs each time. `python -m fuzz` is the long one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.broken_bundles import MUTATIONS
from fuzz.check import FaultError, check
from fuzz.targets import TARGETS, Target
from nezha_convert.errors import CheckpointError

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*/*"))
EACH = pytest.mark.parametrize("name", TARGETS)


@pytest.fixture(scope="session", autouse=True)
def seeds() -> dict[str, list[bytes]]:
    """The seeds of every target. Each is read once, so that imports and caches are not measured."""
    found = {name: target.seeds() for name, target in TARGETS.items()}
    for name, inputs in found.items():
        for data in inputs:
            assert check(TARGETS[name], data) == "read"
    return found


@EACH
@settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(number=st.integers(0, 2**32), steps=st.integers(1, 3))
def test_whatever_is_wrong_with_a_file_it_is_read_right_or_refused_with_a_message(
    name: str, number: int, steps: int, seeds: dict[str, list[bytes]]
) -> None:
    random = Random(number)
    data = random.choice(seeds[name])
    for _ in range(steps):
        data = TARGETS[name].mutated(random, data)
    check(TARGETS[name], data)


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_what_was_once_a_fault_is_none_any_more(file: Path) -> None:
    check(TARGETS[file.parent.name], file.read_bytes())


def test_every_mutation_changes_some_bundle(seeds: dict[str, list[bytes]]) -> None:
    from fuzz.broken_bundles import Parts
    from nezha_convert.formats.tf_bundle.read import _table

    index = seeds["bundle"][0].split(b"\n--- next file ---\n")[0]
    for name, mutation in MUTATIONS.items():
        changed = 0
        for number in range(20):
            parts = Parts(list(_table(index)))
            before = parts.index()
            mutation(Random(number), parts)
            changed += parts.index() != before
        assert changed, name


def hungry(_: Path) -> Any:
    return len(bytearray(30 << 20))


def slow(_: Path) -> Any:
    begun = time.process_time()
    while time.process_time() < begun + 1.2:
        pass


def refusing(message: str) -> Callable[[Path], Any]:
    def read(_: Path) -> Any:
        error = CheckpointError("x")
        error.message = message
        raise error

    return read


def wrong(_: Path) -> Any:
    raise KeyError("x")


@pytest.mark.parametrize(
    "read, kind",
    [
        (hungry, FaultError),
        (slow, FaultError),
        (refusing(" "), FaultError),
        (refusing("x" * 20_000), FaultError),
        (refusing("\x1b[2J"), FaultError),
        (lambda _: "\ud800", UnicodeEncodeError),
        (wrong, KeyError),
    ],
)
def test_the_check_notices(read: Callable[[Path], Any], kind: type[Exception]) -> None:
    target: Target = replace(TARGETS["labels"], read=read, refusals=(CheckpointError,))
    with pytest.raises(kind):
        check(target, b"x")
