"""A folder that sentence-transformers saved, converted, in sentence-transformers itself (`NEZHA_MATRIX=all`)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import upstream
from goldens import FIXTURES

from nezha_convert import convert, repair, verify

SAVE = """
import sys
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

torch.manual_seed(0)
encoder = Transformer(sys.argv[1], config_args={"trust_remote_code": True}, model_args={"trust_remote_code": True})
width = encoder.get_word_embedding_dimension()
modules = [encoder, Pooling(width, "mean"), Dense(width, 8), Normalize()]
model = SentenceTransformer(modules=modules)
model.save(sys.argv[2])
"""

LOAD = """
import json, sys
import sentence_transformers
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer(sys.argv[1], trust_remote_code=True, device="cpu").encode(["我们", "hello ab 我"])
print(json.dumps({"version": sentence_transformers.__version__, "vectors": vectors.tolist()}))
"""


@pytest.mark.skipif(os.environ.get("NEZHA_MATRIX") != "all", reason="installs sentence-transformers: NEZHA_MATRIX=all")
def test_a_converted_folder_gives_the_sentences_of_the_one_that_was_saved(tmp_path: Path) -> None:
    try:
        alone = ("sentence-transformers==6.2.0", "scikit-learn", "scipy", "joblib", "threadpoolctl", "narwhals")
        path = [upstream.installed_program("sentence-transformers-6.2.0", "idna", alone=alone)]
    except upstream.UnavailableError as reason:
        pytest.skip(str(reason))
    plain, saved, output = (tmp_path / name for name in ("plain", "saved", "output"))
    tokens = (FIXTURES / "tokenization" / "vocab.txt").read_text("utf-8").split("\n")[:64]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens), "utf-8")
    convert(FIXTURES / "transformers-4.40.2-encoder", plain, vocab=tmp_path / "vocab.txt")
    upstream.run_python(SAVE, str(plain), str(saved), path=path)
    convert(saved, output)
    assert verify(saved, output).passed
    assert repair(output).faults == ()
    expected, found = (json.loads(upstream.run_python(LOAD, str(folder), path=path)) for folder in (saved, output))
    assert found == expected and len(found["vectors"][0]) == 8
