"""The real bert4torch writes a fixture again and reads a converted model; `NEZHA_MATRIX=all` runs it.

pip installs its release into the tests' cache. It uses the torch that runs the tests.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import upstream
from goldens import FIXTURES
from safetensors.torch import load_file

from nezha_convert import convert
from nezha_convert.families import BERT4TORCH
from nezha_convert.families.rules import numbered

pytestmark = pytest.mark.skipif(os.environ.get("NEZHA_MATRIX") != "all", reason="the nightly run: NEZHA_MATRIX=all")

RELEASES = {
    "bert4torch-pretraining": ("bert4torch==0.5.3", "torch4keras==0.2.6"),
    "bert4torch-0.2.7-masked-lm": ("bert4torch==0.2.7", "torch4keras==0.0.6"),
}
"""0.5.3 is the last release that imports with little more than torch."""

NEEDED = ("numpy", "packaging", "pillow", "requests", "six", "tqdm")

READ = """
import json, sys
from pathlib import Path
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
import make_bert4torch as maker

folder, name = Path(sys.argv[2]), sys.argv[3]
model = maker.build(folder / "bert4torch_config.json", 600, maker.FIXTURES[name][1])
weights = torch.load(folder / "back.pt", weights_only=True)
missing, unexpected = model.load_state_dict(weights, strict=False)
assert not unexpected and all(key.endswith("position_embeddings") for key in missing), (missing, unexpected)
worst = 0.0
with np.load(folder / "expected.npz") as golden, torch.no_grad():
    for case in {key.split("/")[0] for key in golden}:
        ids, types = (torch.from_numpy(golden[f"{case}/{key}"]) for key in ("input_ids", "token_type_ids"))
        outputs = model([ids, types])[1:]
        for key, output in zip(maker.OUTPUTS[name], outputs):
            if f"{case}/{key}" in golden:
                worst = max(worst, float(np.abs(output.numpy() - golden[f"{case}/{key}"]).max()))
print(json.dumps(worst))
"""


def program(name: str) -> Path:
    """A folder with the release of bert4torch that wrote the fixture `name`, and what it needs besides torch."""
    try:
        return upstream.installed_program(name, *NEEDED, alone=RELEASES[name])
    except upstream.UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("name", RELEASES)
def test_bert4torch_writes_the_fixture_again(name: str, tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "make_bert4torch.py", tmp_path)
    run = "import sys; sys.path.insert(0, sys.argv[1]); import make_bert4torch; make_bert4torch.main(sys.argv[2])"
    upstream.run_python(run, str(tmp_path), name, path=[program(name)])
    again, stored = (torch.load(at / name / "pytorch_model.pt", weights_only=True) for at in (tmp_path, FIXTURES))
    assert again.keys() == stored.keys()
    assert all(torch.equal(again[key], stored[key]) for key in stored)
    with np.load(tmp_path / name / "expected.npz") as found, np.load(FIXTURES / name / "expected.npz") as golden:
        for key in golden:
            assert np.abs(found[key] - golden[key]).max() <= 3e-5 * max(1.0, np.ptp(golden[key])), key


@pytest.mark.parametrize("name", RELEASES)
def test_bert4torch_computes_the_same_from_the_converted_model_s_tensors(name: str, tmp_path: Path) -> None:
    convert(FIXTURES / name, tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    stored = torch.load(FIXTURES / name / "pytorch_model.pt", weights_only=True)
    back = {}
    for rules in BERT4TORCH.rules.values():
        for rule in rules:
            for source, target in zip(numbered([rule.source], 2), numbered([rule.target], 2), strict=True):
                if source in stored and target in written:
                    back[source] = written[target]
    assert back.keys() == {key for key in stored if not key.endswith("position_embeddings")}
    assert all(torch.equal(back[key], stored[key]) for key in back)
    folder = tmp_path / "read"
    folder.mkdir()
    torch.save(back, folder / "back.pt")
    for file in ("bert4torch_config.json", "expected.npz"):
        shutil.copy(FIXTURES / name / file, folder)
    printed = upstream.run_python(READ, str(FIXTURES), str(folder), name, path=[program(name)])
    assert json.loads(printed.splitlines()[-1]) <= 3e-5
