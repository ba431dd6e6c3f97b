"""One thread a process, the slowest modules first, and cheap garbage collections.

pytest-xdist already keeps the cores busy, and tiny models only get slower with more threads. Triton's interpreter is
asked for before anything imports Triton: the fused kernel is tested without a GPU.
"""

from __future__ import annotations

import gc
import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRITON_INTERPRET", "1")

pytest_plugins = ["hub_fixtures"]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection has to look at a million objects of torch's again."""
    gc.collect()
    gc.freeze()
