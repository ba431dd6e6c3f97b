"""The model's source in a converted folder: small, complete, and loaded where the package is not installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import upstream
from goldens import FIXTURES

import nezha_convert

LOAD = """
import sys
import torch
from transformers import AutoModelForPreTraining
sys.modules["nezha"] = None  # as if the package were not installed: importing it fails
ids, logits = torch.arange(8)[None], []
for folder in sys.argv[1:]:
    model, loading = AutoModelForPreTraining.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    assert "transformers_modules" in type(model).__module__, type(model)
    assert not any(loading.values()), loading
    logits.append(model.eval()(ids).prediction_logits)
assert torch.equal(*logits)
"""

OLD_IMPORT = """

def _fused_attention():
    try:
        from .triton_nezha import fused_relative_attention
    except ImportError:
        return None
    return fused_relative_attention
"""

OLD_KERNEL = """
try:
    import triton
except ImportError as error:
    raise ImportError("nezha's fused kernel needs the package triton") from error


def fused_relative_attention():
    pass
"""


def with_the_kernel(folder: Path, old: Path) -> Path:
    """`folder` as a version converted it that shipped `triton_nezha.py`, imported in a function."""
    shutil.copytree(folder, old)
    (old / "triton_nezha.py").write_text(OLD_KERNEL)
    with (old / "modeling_nezha.py").open("a") as file:
        file.write(OLD_IMPORT)
    return old


def test_a_folder_without_the_kernel_and_an_old_one_with_it_load_where_the_package_is_not_installed(tmp_path):
    folder = tmp_path / "new"
    report = nezha_convert.convert(FIXTURES / "huawei-tf-pretraining", folder)
    source = {path.name for path in folder.glob("*.py")}
    assert source == {"attention_nezha.py", "configuration_nezha.py", "modeling_nezha.py"}
    assert source <= {file.name for file in report.output_files}
    upstream.run_python(LOAD, str(folder), str(with_the_kernel(folder, tmp_path / "old")))
