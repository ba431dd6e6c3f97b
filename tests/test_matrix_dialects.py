"""The way back in the real programs, each in its own environment: `NEZHA_MATRIX=all` (or `nox -s matrix`) runs it.

Every fixture is converted, exported, loaded by the program that wrote it, and saved by that program once more.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import upstream
from goldens import GOLDENS

from nezha_convert import convert, export
from nezha_convert.readers import open_checkpoint

pytestmark = pytest.mark.skipif(
    os.environ.get("NEZHA_MATRIX") != "all", reason="it installs other programs: NEZHA_MATRIX=all runs it"
)


def run(path: Path, program: str, *arguments: str) -> dict[str, float]:
    """What `program` printed last, with the packages in `path`."""
    printed = upstream.run_python(program, *arguments, path=[path])
    result: dict[str, float] = json.loads(printed.splitlines()[-1])
    return result


# PaddleNLP

PADDLE_REQUIREMENTS = (
    *("paddlepaddle==3.3.1", "huggingface-hub==0.25.2", "aistudio-sdk==0.2.6", "datasets==2.21.0", "setuptools<70"),
    *("colorlog", "tqdm", "safetensors", "jinja2", "rich", "sentencepiece", "regex", "requests", "dill"),
    *("multiprocess", "jieba", "seqeval", "fastapi", "uvicorn", "typer"),
)

PADDLE_PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np, paddle
from paddlenlp import transformers

exported, fixture, saved = map(Path, sys.argv[1:])
(architecture,) = json.loads((exported / "config.json").read_text())["architectures"]
model = getattr(transformers, architecture).from_pretrained(str(exported))
model.eval()
model.save_pretrained(str(saved))
expected, worst = np.load(fixture / "expected.npz"), 0.0
for case in {key.split("/")[0] for key in expected}:
    given = {name: expected[f"{case}/{name}"] for name in ("input_ids", "attention_mask", "token_type_ids")}
    with paddle.no_grad():
        outputs = model(**{name: paddle.to_tensor(array) for name, array in given.items()}, return_dict=True)
    for key in expected:
        name = key.split("/")[1]
        if key.startswith(f"{case}/") and name.endswith("logits"):
            error = np.abs(outputs[name].numpy() - expected[key]).max() / np.ptp(expected[key])
            worst = max(worst, float(error))
print(json.dumps({"worst": worst}))
"""


@pytest.mark.parametrize("golden", [golden for golden in GOLDENS if golden.family == "paddle"], ids=str)
def test_paddlenlp_loads_what_is_exported_and_saves_the_same(golden, tmp_path):
    try:
        path = upstream.installed_program("paddlenlp-2.8.1", *PADDLE_REQUIREMENTS, alone=("paddlenlp==2.8.1",))
    except upstream.UnavailableError as reason:
        pytest.skip(str(reason))
    converted, exported, saved = (tmp_path / name for name in ("converted", "exported", "saved"))
    convert(golden.folder, converted)
    export(converted, exported, to="paddle")
    assert run(path, PADDLE_PROGRAM, str(exported), str(golden.folder), str(saved))["worst"] <= golden.tolerance
    source, again = open_checkpoint(golden.folder).entries, open_checkpoint(saved).entries
    assert source.keys() == again.keys()
    for name, entry in source.items():
        if not (name.startswith("nezha.pooler.") and golden.head == "question-answering"):  # dropped: the head has none
            assert again[name].read().tobytes() == entry.read().tobytes(), name
