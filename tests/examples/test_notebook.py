"""The notebook: its cells run in order, as in `examples/`, and end with a proof and a model that has learnt."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = json.loads((ROOT / "examples" / "nezha.ipynb").read_text("utf-8"))
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def shown(cell: str, names: dict[str, object]) -> object:
    """Run a cell as a notebook does: the value of its last line is what it shows."""
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


def test_the_notebook_runs_from_a_checkpoint_to_a_model_that_has_learnt(monkeypatch):
    monkeypatch.chdir(ROOT / "examples")
    names: dict[str, object] = {}
    inspected, converted, parity, guesses, accuracy, classified = [shown(cell, names) for cell in CELLS]
    assert "Huawei's NEZHA-TensorFlow" in repr(inspected) and "45 used" in repr(converted)
    assert parity.passed and "<svg" in parity._repr_html_()
    assert len(guesses) == 5 and accuracy > 0.9
    assert [label["label"] for label in classified] == ["LABEL_0", "LABEL_1"]


def test_the_notebook_is_kept_without_outputs():
    assert [cell for cell in NOTEBOOK["cells"] if cell.get("outputs") or cell.get("execution_count")] == []
    assert NOTEBOOK["nbformat"] == 4 and len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])


def test_a_cell_that_fails_is_noticed():
    with pytest.raises(NameError):
        shown("1\nnothing", {})
