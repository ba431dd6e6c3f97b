"""Converted folders on the releases of transformers that they support, each in its own environment.

By default the oldest and the newest run; `NEZHA_MATRIX=all` (or `nox -s matrix`) runs all of RELEASES.
"""

from __future__ import annotations

import json
import os
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import upstream
from goldens import FIXTURES, GOLDENS, HELPERS
from poolers import POOLERLESS, computed, without_pooler

from nezha_convert import convert, export
from nezha_convert.parity.oracle import wordpiece
from nezha_convert.releases import TRANSFORMERS
from nezha_convert.tokenizer.wordpiece import read_vocab, tokenizer_files

RELEASES = ("4.40.2", *chain.from_iterable(TRANSFORMERS))
VOCAB = read_vocab(FIXTURES / "tokenization" / "vocab.txt")
TEXTS = wordpiece.texts_for(VOCAB.tokens)
ENDS = (RELEASES[0], RELEASES[1], RELEASES[-1])

PROGRAM = """
import json, sys
from pathlib import Path
import transformers
from goldens import GOLDENS, errors

own = transformers.__version__.startswith("4.40.")  # this release has its own Nezha and does not need ours
worst = {}
for golden in GOLDENS:
    folder = Path(sys.argv[1]) / golden.name.replace(".", "-")
    config = json.loads((folder / "config.json").read_text())
    if own and config.get("prefix_lm"):
        continue  # it computes no prefix
    (architecture,) = config["architectures"]
    (auto,) = (name for name, target in config["auto_map"].items() if target.endswith("." + architecture))
    if own and architecture == "NezhaForCausalLM":
        architecture = "NezhaForMaskedLM"  # which is_decoder makes causal
    cls = getattr(transformers, architecture if own else auto)
    options = {} if own else {"trust_remote_code": True}
    if own:
        # That class has no positions past its config's number, of which the fixtures have few, to be small. It builds a
        # table of them squared, which is slow: a table for the longest input is enough.
        most = max(512, config["max_position_embeddings"])
        lengths = [expected["input_ids"].shape[-1] for _, expected in golden.cases()]
        options["max_position_embeddings"] = max(length for length in lengths if length <= most)
    model, info = cls.from_pretrained(folder, output_loading_info=True, attn_implementation="eager", **options)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), (golden, info)
    assert type(model).__name__ == architecture
    assert type(model).__module__.startswith("transformers.models." if own else "transformers_modules."), type(model)
    for case, expected in golden.cases():
        if own and expected["input_ids"].shape[-1] > model.config.max_position_embeddings:
            continue  # that class has no further positions
        found = max(errors(golden, model.eval(), case, expected).values())
        worst[golden.name] = max(found, worst.get(golden.name, 0.0))
tokenizer = transformers.AutoTokenizer.from_pretrained(Path(sys.argv[1]) / "tokenizer")
texts = json.loads((Path(sys.argv[1]) / "texts.json").read_text())
ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
print(json.dumps({"transformers": transformers.__version__, "worst": worst, "ids": ids}))
"""

POOLERLESS_PROGRAM = """
import json, sys
from pathlib import Path
import numpy, torch, transformers

own = transformers.__version__.startswith("4.40.")  # it makes a pooler, unless it is told not to
worst = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    with numpy.load(folder / "expected.npz") as arrays:
        cases = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if own:
        longest = max(tensor.shape[1] for tensor in cases.values())
        options = {"add_pooling_layer": False, "max_position_embeddings": longest}
        folder /= "exported"
    else:
        options = {"trust_remote_code": True}
        folder /= "converted"
    model, info = transformers.AutoModel.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), (folder, info)
    assert type(model).__module__.startswith("transformers.models." if own else "transformers_modules."), type(model)
    for case in {name.split("/")[0] for name in cases}:
        inputs = {name: cases[f"{case}/{name}"] for name in ("input_ids", "attention_mask", "token_type_ids")}
        expected = cases[f"{case}/last_hidden_state"]
        with torch.no_grad():
            outputs = model.eval()(**inputs)
        assert outputs.pooler_output is None
        error = (outputs.last_hidden_state - expected).abs().max() / (expected.max() - expected.min())
        worst[folder.parent.name] = max(float(error), worst.get(folder.parent.name, 0.0))
print(json.dumps(worst))
"""


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    for golden in GOLDENS:
        # 4.52 loads no code from a folder with a dot in its name.
        convert(golden.folder, folder / golden.name.replace(".", "-"), head=golden.head if golden.asked else None)
    (folder / "tokenizer").mkdir()
    for name, data in tokenizer_files(VOCAB, True, 512).items():
        (folder / "tokenizer" / name).write_bytes(data)
    (folder / "texts.json").write_text(json.dumps(TEXTS))
    return folder


def in_matrix(release: str) -> None:
    if release not in ENDS and os.environ.get("NEZHA_MATRIX") != "all":
        pytest.skip("inside the range: NEZHA_MATRIX=all runs it")


@pytest.fixture(scope="module")
def poolerless(tmp_path_factory) -> Path:
    """By golden without its pooler: converted, exported for transformers 4, and what the oracle computes."""
    folder = tmp_path_factory.mktemp("poolerless")
    for golden in POOLERLESS:
        source = without_pooler(golden, tmp_path_factory.mktemp("source") / golden.name)
        own = folder / golden.name.replace(".", "-")
        convert(source, own / "converted")
        export(own / "converted", own / "exported", "transformers-4")
        cases = computed(golden, source).items()
        np.savez(
            own / "expected.npz", **{f"{case}/{n}": array for case, arrays in cases for n, array in arrays.items()}
        )
    return folder


@pytest.mark.parametrize("release", RELEASES)
def test_an_encoder_without_a_pooler_has_nothing_missing_and_the_oracle_s_outputs_on(release, poolerless):
    in_matrix(release)
    try:
        printed = upstream.run_isolated(release, POOLERLESS_PROGRAM, str(poolerless))
    except upstream.UnavailableError as reason:
        pytest.skip(str(reason))
    worst = json.loads(printed.splitlines()[-1])
    assert worst.keys() == {golden.name.replace(".", "-") for golden in POOLERLESS}
    for golden in POOLERLESS:
        assert worst[golden.name.replace(".", "-")] <= golden.tolerance, golden.name


@pytest.mark.parametrize("release", RELEASES)
def test_every_converted_golden_gives_the_original_s_outputs_on(release, converted):
    in_matrix(release)
    try:
        printed = upstream.run_isolated(release, PROGRAM, str(converted), path=HELPERS)
    except upstream.UnavailableError as reason:
        pytest.skip(str(reason))
    result = json.loads(printed.splitlines()[-1])
    assert result["transformers"] == release
    known = {token: number for number, token in enumerate(VOCAB.tokens)}
    expected = [wordpiece.tokenize(text, known, True, kept=wordpiece.SPECIALS) for text in TEXTS]
    assert result["ids"] == [[known[token] for token in tokens] for tokens in expected]
    compared = [golden for golden in GOLDENS if release != "4.40.2" or golden.head != "prefix-lm"]
    assert result["worst"].keys() == {golden.name for golden in compared}
    for golden in compared:
        assert result["worst"][golden.name] <= golden.tolerance, golden.name
