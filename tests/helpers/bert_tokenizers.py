"""The fixture of transformers 4.40.2's tokenizers: tokenizer files, texts, and the ids that were made there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from goldens import FIXTURES

FOLDER = FIXTURES / "bert-tokenizer"
_EXPECTED = json.loads((FOLDER / "expected.json").read_text("utf-8"))
TEXTS: list[str] = _EXPECTED["texts"]
CASES: dict[str, dict[str, Any]] = {case["name"]: case for case in _EXPECTED["cases"]}


def source(folder: Path, files: dict[str, Any], vocab: str | None = None) -> Path:
    """Write `files` and a vocabulary, the fixture's unless it is given, into `folder`; the vocabulary's path."""
    folder.mkdir(exist_ok=True)
    path = folder / "vocab.txt"
    if vocab is None:
        shutil.copy(FOLDER / "vocab.txt", path)
    else:
        path.write_text(vocab, "utf-8")
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), "utf-8")
    return path
