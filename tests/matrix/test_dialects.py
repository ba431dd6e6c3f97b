"""Exports in the real programs, each in its own environment: `NEZHA_MATRIX=all` (or `nox -s matrix`) runs it.

Every fixture is converted, exported, loaded by the program that wrote it, and saved by that program once more.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import upstream
from goldens import FIXTURES, GOLDENS

from nezha_convert import convert, export
from nezha_convert.formats.open import open_checkpoint

pytestmark = pytest.mark.skipif(
    os.environ.get("NEZHA_MATRIX") != "all", reason="it installs other programs: NEZHA_MATRIX=all runs it"
)


def run(path: Path, program: str, *arguments: str) -> dict[str, float]:
    """The last line that `program` prints, run with the packages in `path`."""
    printed = upstream.run_python(program, *arguments, path=[path])
    result: dict[str, float] = json.loads(printed.splitlines()[-1])
    return result


# PaddleNLP

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
        path = upstream.installed_program("paddlenlp-2.8.1", *upstream.PADDLE_REQUIREMENTS, alone=("paddlenlp==2.8.1",))
    except upstream.UnavailableError as reason:
        pytest.skip(str(reason))
    converted, exported, saved = (tmp_path / name for name in ("converted", "exported", "saved"))
    convert(golden.folder, converted)
    export(converted, exported, to="paddle")
    assert run(path, PADDLE_PROGRAM, str(exported), str(golden.folder), str(saved))["worst"] <= golden.tolerance
    source, again = open_checkpoint(golden.folder).entries, open_checkpoint(saved).entries
    assert source.keys() == again.keys()
    for name, entry in source.items():
        if not (name.startswith("nezha.pooler.") and golden.head == "question-answering"):  # this head has none
            assert again[name].read().tobytes() == entry.read().tobytes(), name


# bert4keras

KERAS_PROGRAM = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import make_bert4keras as maker

maker.modern_keras()
maker.FIXTURES = Path(sys.argv[2])
import numpy as np
from bert4keras.models import build_transformer_model

fixture, source, saved = map(Path, sys.argv[3:])
model = build_transformer_model(str(fixture / "bert_config.json"), model="nezha", with_nsp=True, with_mlm="linear")
model.load_weights(str(source))
for suffix in (".h5", ".weights.h5"):
    model.save_weights(str(saved / f"again{suffix}"))
expected, worst = np.load(fixture / "expected.npz"), 0.0
for case in ("short", "long"):
    mlm, nsp = sorted(
        model.predict([expected[f"{case}/{name}"] for name in ("input_ids", "segment_ids")], verbose=0),
        key=lambda output: -output.ndim,
    )
    found = {"prediction_logits": mlm, "nsp_log_probs": np.log(nsp)}
    for name, output in found.items():
        if f"{case}/{name}" in expected:
            wanted = expected[f"{case}/{name}"]
            worst = max(worst, float(np.abs(output - wanted).max() / np.ptp(wanted)))
print(f'{{"worst": {worst}}}')
"""


def test_bert4keras_loads_the_fixture_and_saves_it_in_both_layouts(tmp_path):
    golden = next(golden for golden in GOLDENS if golden.name == "bert4keras-pretraining")
    if sys.version_info[:2] > (3, 11):
        pytest.skip("tensorflow 2.15, the last whose own Keras bert4keras runs on, has no release for this Python")
    try:
        path = upstream.installed_program(
            "bert4keras-0.11.5", *upstream.KERAS_REQUIREMENTS, alone=("bert4keras==0.11.5",)
        )
    except upstream.UnavailableError as reason:
        pytest.skip(str(reason))
    source = tmp_path / "source.h5"  # this Keras recognises HDF5 only by the suffix
    source.write_bytes((golden.folder / "best_model.weights").read_bytes())
    arguments = FIXTURES, tmp_path, golden.folder, source, tmp_path
    assert run(path, KERAS_PROGRAM, *map(str, arguments))["worst"] <= golden.tolerance
    convert(golden.folder, tmp_path / "converted")
    for suffix in (".h5", ".weights.h5"):
        (tmp_path / suffix[1:]).mkdir()
        again = tmp_path / suffix[1:] / f"again{suffix}"
        (tmp_path / again.name).rename(again)
        (again.parent / "bert_config.json").write_bytes((golden.folder / "bert_config.json").read_bytes())
        convert(again.parent, again.parent / "converted")
        weights = (again.parent / "converted/model.safetensors").read_bytes()
        assert weights == (tmp_path / "converted/model.safetensors").read_bytes()
