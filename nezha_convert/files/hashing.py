"""Hashes of files, of bytes and of data that comes in parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CHUNK_BYTES = 1 << 20


def sha256(data: Path | bytes | Iterable[ReadableBuffer]) -> str:
    """The SHA-256 of a file, of bytes, or of parts put together, in hexadecimal.

    Example:
        >>> sha256(b"abc") == sha256([b"a", b"bc"])
        True

    Raises:
        OSError: the file cannot be read.
    """
    return _hexdigest(hashlib.sha256(), data)


def git_blob(data: Path | bytes) -> str:
    """The name that git gives to a file with this content: the SHA-1 of its size and its bytes."""
    size = len(data) if isinstance(data, bytes) else data.stat().st_size
    return _hexdigest(hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False), data)


def _hexdigest(digest: Any, data: Path | bytes | Iterable[ReadableBuffer]) -> str:
    parts = _chunks(data) if isinstance(data, Path) else [data] if isinstance(data, bytes) else data
    for part in parts:
        digest.update(part)
    return str(digest.hexdigest())


def _chunks(file: Path) -> Iterator[bytes]:
    with open(file, "rb") as opened:
        while chunk := opened.read(CHUNK_BYTES):
            yield chunk
