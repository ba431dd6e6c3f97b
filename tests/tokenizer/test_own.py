"""The tokenizer of a folder with transformers' files gives the ids that transformers 4.40.2 gave there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from goldens import FIXTURES
from transformers import AutoTokenizer

from nezha_convert.checkpoint import Origin
from nezha_convert.errors import MappingError
from nezha_convert.parity.oracle.bert_tokenizer import BertTokenizer
from nezha_convert.tokenizer.make import Tokenizer, make_tokenizer

FOLDER = FIXTURES / "bert-tokenizer"
EXPECTED = json.loads((FOLDER / "expected.json").read_text("utf-8"))
TEXTS = EXPECTED["texts"]
EACH = pytest.mark.parametrize("case", EXPECTED["cases"], ids=lambda case: case["name"])
ROWS = {"vocab_size": 70, "max_position_embeddings": 128}


def source(folder: Path, files: dict[str, Any], vocab: str | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    shutil.copy(FOLDER / "vocab.txt", folder)
    if vocab is not None:
        (folder / "vocab.txt").write_text(vocab, "utf-8")
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), "utf-8")
    return folder / "vocab.txt"


def loaded(made: Tokenizer, folder: Path) -> Any:
    folder.mkdir()
    for name, data in made.files.items():
        (folder / name).write_bytes(data)
    return AutoTokenizer.from_pretrained(folder)


@EACH
def test_the_converted_tokenizer_gives_the_ids_of_the_source_s(case: dict[str, Any], tmp_path: Path) -> None:
    tokenizer = loaded(make_tokenizer(source(tmp_path / "in", case["files"]), ROWS), tmp_path / "out")
    for text, alone, framed in zip(TEXTS, case["alone"], case["framed"], strict=True):
        assert tokenizer(text, add_special_tokens=False).input_ids == alone, text
        assert tokenizer(text).input_ids == framed, text
    assert tokenizer(TEXTS[0], TEXTS[2]).input_ids == case["pair"]
    assert len(tokenizer) == case["size"]


@EACH
def test_the_reference_gives_the_ids_of_the_source_s(case: dict[str, Any], tmp_path: Path) -> None:
    if "tokenizer.json" in case["files"]:
        pytest.skip("the tokenizers library is the reference for a tokenizer.json")
    reference = BertTokenizer(source(tmp_path, case["files"]), 70)
    for text, alone, framed in zip(TEXTS, case["alone"], case["framed"], strict=True):
        assert reference.tokenize(text) == alone, text
        assert reference.encode(text) == framed, text
    assert reference.encode(TEXTS[0], TEXTS[2]) == case["pair"]
    assert len(reference.ids) == case["size"]
