"""Where outputs are kept: a folder here, or a store that fsspec knows, such as s3://bucket/folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import OutputError, UsageError, pip_install
from ..files.hashing import sha256
from ..files.locks import TemporaryFolder
from ..files.staging import MARK
from ..folder.record import recorded_files
from .row import is_remote


def nbytes_in(folder: Path) -> int:
    """Bytes of the files in `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def record_of(output: str) -> str:
    """The SHA-256 of the record at `output`; empty where there is none, or one of this machine may not be read.

    Raises:
        OutputError: the store cannot be read.
    """
    if not is_remote(output):
        mark = Path(output) / MARK
        return sha256(mark) if os.access(mark, os.R_OK) and mark.is_file() else ""
    with _store(output) as (store, path):
        return sha256(store.cat_file(f"{path}/{MARK}")) if store.exists(f"{path}/{MARK}") else ""


def is_whole(output: str, record: str) -> bool:
    """Whether the record at `output` is still the one of this SHA-256, and each of its files there in its size.

    A store is asked for the record alone: it was put there last.
    """
    if not record or record_of(output) != record:
        return False
    if is_remote(output):
        return True
    files = [(Path(output) / file.name, file.nbytes) for file in recorded_files(Path(output) / MARK)]
    return all(path.is_file() and path.stat().st_size == nbytes for path, nbytes in files)


def check_store(output: str) -> None:
    """Raises UsageError where the library of the store at `output` is missing, before anything is computed."""
    if is_remote(output):
        with _store(output):
            pass


@contextmanager
def at_hand(output: str) -> Iterator[Path]:
    """A folder of this machine for `output`: itself; of a store a temporary one, with what `keep` put there before."""
    if not is_remote(output):
        yield Path(output)
        return
    with TemporaryFolder() as folder:
        place = folder / (output.rstrip("/").rpartition("/")[2] or "output")
        with _store(output) as (store, path):
            if store.exists(f"{path}/{MARK}"):  # the last file of a whole output
                store.get(f"{path}/", f"{place}/", recursive=True)
        yield place


def keep(folder: Path, output: str) -> None:
    """Put what `at_hand` gave in the store. The record goes last: an output without it is not whole.

    Raises:
        OutputError: it cannot be written.
    """
    if not is_remote(output):
        return
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    with _store(output) as (store, path):
        if store.exists(f"{path}/{MARK}"):
            store.rm_file(f"{path}/{MARK}")  # while its files change, it is not whole
        for name in sorted(names, key=lambda name: name == MARK):
            parent = f"{path}/{name}".rpartition("/")[0]
            store.makedirs(parent, exist_ok=True)
            store.put_file(str(folder / name), f"{path}/{name}")


@contextmanager
def _store(output: str) -> Iterator[tuple[Any, str]]:
    """The store and the path in it of `output`; its errors become ours."""
    import fsspec

    try:
        store, path = fsspec.url_to_fs(output)
    except (ImportError, ValueError) as error:
        scheme = output.partition("://")[0]
        raise UsageError(
            f"{output}: {' '.join(str(error).split())}",
            hint=f"fsspec's own package for {scheme}://, such as: {pip_install('s3fs')} for s3://",
        ) from error
    try:
        yield store, path.rstrip("/")
    except (OutputError, UsageError):
        raise
    except Exception as error:  # each store has errors of its own
        raise OutputError(
            f"{output}: cannot be read or written ({type(error).__name__}: {' '.join(str(error).split())})",
            hint="Check the address and what the store's own library needs to log in.",
        ) from error
