"""What docs/ci.md and the READMEs show of CI is what the action, the plugin and the hook take, in both languages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import nezha_convert
from nezha_convert.pytest_plugin import NAME

ROOT = Path(__file__).parents[2]
TAG = f"v{nezha_convert.__version__}"
PAGES = ("docs/ci.md", "docs/zh/ci.md")
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))


def shown(page: str) -> list[Any]:
    text = (ROOT / page).read_text("utf-8")
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


@pytest.mark.parametrize("page", PAGES)
def test_the_workflow_uses_the_action_with_inputs_that_it_has(page):
    workflow, _ = shown(page)
    step = workflow["jobs"]["parity"]["steps"][-1]
    assert step["uses"] == f"nezha-convert/nezha-convert@{TAG}"
    required = {name for name, one in ACTION["inputs"].items() if one.get("required")}
    assert required <= set(step["with"]) <= set(ACTION["inputs"])


@pytest.mark.parametrize("page", PAGES)
def test_every_input_and_output_of_the_action_is_explained(page):
    text = (ROOT / page).read_text("utf-8")
    inputs = {name for row in re.findall(r"^\| (`[a-z-]+`.*?) \|", text, re.MULTILINE) for name in row.split("`")[1::2]}
    assert inputs == set(ACTION["inputs"])
    assert all(f"`{name}`" in text for name in ACTION["outputs"])


@pytest.mark.parametrize("page", PAGES)
def test_the_hook_is_one_of_this_repository_at_this_version(page):
    _, config = shown(page)
    (repo,) = config["repos"]
    assert repo["rev"] == TAG and [hook["id"] for hook in repo["hooks"]] == [hook["id"] for hook in HOOKS]


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readme_has_a_row_with_its_line_for_each_of_the_three_uses(readme):
    text = (ROOT / readme).read_text("utf-8")
    table = re.search(r"\n\| (?:use|用途) \|.*?\n\n", text, re.DOTALL)[0]
    lines = re.findall(r"^\| [^|`-]+ \| `([^`]+)` \|", table, re.MULTILINE)
    assert lines[0].startswith("nezha-convert convert ") and "&& nezha-convert verify " in lines[0]
    (step,) = yaml.safe_load(lines[1])
    assert step["uses"] == f"nezha-convert/nezha-convert@{TAG}" and set(step["with"]) == {"source", "output"}
    assert lines[-1].startswith("nezha-convert push ")
    assert f"`{NAME}`" in text and "nezha-convert check" in text
