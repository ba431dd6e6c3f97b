"""One thread a process, the longest modules first, and cheap garbage collections.

pytest-xdist already keeps the cores busy, and tiny models only get slower with more threads. Triton's interpreter is
asked for before anything imports Triton: the fused kernel is tested without a GPU.
"""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRITON_INTERPRET", "1")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` takes it away, and tests press Ctrl-C

pytest_plugins = ["hub_fixtures", "pytester"]
TESTS = Path(__file__).parent
LONGEST = (
    *("docs/test_blocks.py", "exports/test_onnx.py", "matrix/test_transformers.py", "examples/test_many_machines.py"),
    *("model/test_modeling_nezha.py", "model/test_first_losses.py", "test_supply.py", "commands/test_verify.py"),
    *("tokenizer/test_byte_bpe.py", "commands/test_push.py", "examples/test_examples.py"),
    "model/test_upstream_model_tester.py",
)
"""Modules that take longest or have the longest tests, in the order in which they are begun.

With --dist=worksteal a worker that has no tests left takes half of another's, from the end: a long test there would be
the last one, with every other worker idle.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {TESTS / name: place for place, name in enumerate(LONGEST)}
    assert all(path.is_file() for path in places), f"conftest.py names tests that are not there: {LONGEST}"
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection has to look at a million objects of torch's again."""
    gc.collect()
    gc.freeze()
