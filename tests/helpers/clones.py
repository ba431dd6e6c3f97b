"""The user's clone of Huawei's repository, for tests that run the original programs."""

from __future__ import annotations

import importlib.util
import os

import pytest

CLONE = os.environ.get("NEZHA_ORIGINAL_CLONE", "")


def need(program: str) -> None:
    """Skip, saying why, unless the original of `program` can run here."""
    if not CLONE:
        pytest.skip("NEZHA_ORIGINAL_CLONE does not name a clone of Huawei's repository")
    modules = {"tensorflow": ("tensorflow", "tf_keras", "tf_slim")}.get(program, ("torch",))
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
