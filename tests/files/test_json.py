"""Strangers' JSON: a document that is read can be printed, walked and written again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nezha_convert.files.json import MAX_DEPTH, read_json


def written(folder: Path, data: bytes) -> Path:
    (folder / "x.json").write_bytes(data)
    return folder / "x.json"


@pytest.mark.parametrize("content", [{"a": [1, None, "哪", "😀", {"b": 2.5}]}, [], 0, "x", None])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_sound_document_is_read_as_it_is(content: object, ascii_only: bool, tmp_path: Path) -> None:
    assert read_json(written(tmp_path, json.dumps(content, ensure_ascii=ascii_only).encode())) == content


def test_a_byte_order_mark_is_no_part_of_it(tmp_path: Path) -> None:
    assert read_json(written(tmp_path, "[1]".encode("utf-8-sig"))) == [1]


@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"a":', "}")])
def test_documents_may_be_a_hundred_deep_and_no_deeper(opening: str, closing: str, tmp_path: Path) -> None:
    for depth in (1, MAX_DEPTH):
        read_json(written(tmp_path, (opening * (depth - 1) + "[]" + closing * (depth - 1)).encode()))
    for depth in (MAX_DEPTH + 1, 500, 990, 200_000):
        with pytest.raises(ValueError, match="deep"):
            read_json(written(tmp_path, (opening * (depth - 1) + "[]" + closing * (depth - 1)).encode()))


@pytest.mark.parametrize("data", [b'"\\ud800"', b'{"\\udc00": 1}', b'["a", "\\ud800x"]', b"\xff", b"{", b""])
def test_what_is_no_text_or_no_json_is_a_value_error(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        read_json(written(tmp_path, data))


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "no.json")
