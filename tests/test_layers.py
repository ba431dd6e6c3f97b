"""Imports run one way, and a TensorFlow conversion stays light."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from goldens import FIXTURES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "nezha_convert"

LAYERS = [
    {"_version", "errors"},
    {"process"},
    {"tensors", "strict_json", "claims"},
    {"readers", "mapping", "staging"},
    {"config", "writers", "byte_bpe", "numbers"},
    {"tokenizer", "writer", "programs"},
    {"report"},
    {"card", "hub"},
    {"parity", "training_card"},
    {"trained"},
    {"conversion", "upload", "differences"},
    {"training_record", "repairs", "way_back", "onnx_graph"},
    {"onnx_export"},
    {"exports"},
    {"console"},
    {"cli"},
    {"__main__"},
]
"""Each may import those above it; `__init__` imports lazily and stands outside."""

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def modules(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names that `path` imports, anywhere in it; its own package's ones from the package's root."""
    found = set()
    here = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level]) + "." if node.level else ""
            found |= {f"{base}{node.module or alias.name}".strip(".") for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(PACKAGE), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    unit = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if unit == "__init__":
        return
    for name in imports(path):
        if name.startswith("nezha_convert."):
            other = name.split(".")[1]
            assert other == unit or LEVEL[other] < LEVEL[unit], f"{unit} must not import {other}"


def test_the_model_imports_torch_transformers_and_itself_alone():
    for path in modules(ROOT / "nezha"):
        allowed = {"nezha", "torch", "transformers", *(["triton"] if path.name == "triton_nezha.py" else [])}
        for name in imports(path):
            top = name.split(".")[0]
            assert top in allowed or top in sys.stdlib_module_names, f"{path.name}: {name}"


def test_only_the_command_line_knows_click_and_only_the_console_prints():
    for path in modules(PACKAGE):
        assert ("click" in imports(path)) == (path.name == "cli.py")
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        prints = any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls)
        assert not prints or path.name == "console.py"


def converting(fixture: str) -> str:
    return (
        "from nezha_convert.cli.app import main\n"
        f"try: main(['convert', {str(FIXTURES / fixture)!r}, 'out', '--json'])\n"
        "except SystemExit as exit: assert not exit.code"
    )


@pytest.mark.parametrize(
    "code",
    [
        "import nezha_convert",
        "import nezha_convert.cli.app",
        converting("huawei-tf-pretraining"),
        converting("transformers-4.40.2-pretraining"),
    ],
    ids=["importing the package", "importing the command line", "a TensorFlow conversion", "a safetensors conversion"],
)
def test_neither_torch_nor_transformers_nor_tensorflow_nor_the_hub_s_client_is_loaded_by(code, tmp_path):
    named = {"torch", "transformers", "tensorflow", "huggingface_hub"}
    heavy = f"import sys, json; json.dump(sorted({named} & set(sys.modules)), sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{heavy}"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stderr) == []
