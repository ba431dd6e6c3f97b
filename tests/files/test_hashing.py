"""Hashes of files, bytes and parts are those of hashlib and of git."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from nezha_convert.files import hashing
from nezha_convert.files.hashing import git_blob, sha256


@pytest.mark.parametrize("size", [0, 1, hashing.CHUNK_BYTES, hashing.CHUNK_BYTES + 1])
def test_a_file_its_bytes_and_its_parts_have_one_sha_256(size: int, tmp_path: Path) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    (tmp_path / "file").write_bytes(data)
    assert sha256(tmp_path / "file") == sha256(data) == hashlib.sha256(data).hexdigest()
    assert sha256(memoryview(data)[i : i + 1000] for i in range(0, size, 1000)) == sha256(data)


def test_a_file_and_its_bytes_have_the_name_that_git_gives_them(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello\n")
    expected = "ce013625030ba8dba906f756967f9e9ca394464a"  # echo hello | git hash-object --stdin
    assert git_blob(tmp_path / "file") == git_blob(b"hello\n") == expected
