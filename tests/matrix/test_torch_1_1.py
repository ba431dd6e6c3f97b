"""Exports in torch 1.1, the release that Huawei's README asks for, where a Python 3.7 is there to run it.

Its wheels are for Python 3.7 at most. `python3.7` must be on the PATH and run.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
import upstream
from goldens import GOLDENS

from nezha_convert import convert, export
from nezha_convert.formats.open import open_checkpoint

PROGRAM = """
import hashlib, json, sys
import torch

assert torch.__version__ == "1.1.0", torch.__version__
found = {}
for name, tensor in torch.load(sys.argv[1]).items():
    assert tensor.is_contiguous() and not tensor.requires_grad
    digest = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
    found[name] = [str(tensor.dtype), list(tensor.shape), digest]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    try:
        path = upstream.installed_torch_1_1()
    except upstream.UnavailableError as reason:
        pytest.skip(str(reason))
    return {**os.environ, "PYTHONPATH": str(path)}


@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16"])
def test_torch_1_1_loads_what_is_exported(dtype: str | None, environment: dict[str, str], tmp_path: Path) -> None:
    golden = next(golden for golden in GOLDENS if golden.name == "huawei-torch-pretraining")
    convert(golden.folder, tmp_path / "converted", dtype=dtype)
    export(tmp_path / "converted", tmp_path / "out", to="huawei-torch")
    command = ["python3.7", "-c", PROGRAM, str(tmp_path / "out" / "pytorch_model.bin")]
    ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    entries = open_checkpoint(tmp_path / "out").entries
    kind = "float16" if dtype == "float16" else "float32"
    assert json.loads(ran.stdout) == {
        name: [f"torch.{kind}", list(entry.shape), hashlib.sha256(entry.read().tobytes()).hexdigest()]
        for name, entry in entries.items()
    }
