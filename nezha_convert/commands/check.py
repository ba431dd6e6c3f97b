"""`check`: the files of folders that this program wrote, compared with the hashes in their records."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import MappingError, UsageError
from ..files.given import path_of
from ..files.hashing import sha256
from ..files.staging import EXPORTED, MARK, TRAINED
from ..folder.record import anew, recorded_files
from ..folder.report import FileRecord

RECORDS = (TRAINED, MARK, EXPORTED)
"""The names of records. A trained folder may still have the record of the conversion that it began with."""

_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class CheckedFolder:
    """A folder beside its record.

    Attributes:
        folder: its path.
        record: the name of its record.
        files: how many files the record names.
        nbytes: their bytes, as recorded.
        problems: what is not as recorded, in words, a file each; empty when all is.
        hint: what writes the folder anew; empty when all is as recorded.
    """

    folder: str
    record: str
    files: int
    nbytes: int
    problems: tuple[str, ...]
    hint: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found.

    Attributes:
        folders: every folder with a record, in the order in which it was found.
        others: how many of the files that were named lie in no such folder.

    Example:
        >>> import nezha_convert
        >>> checked = nezha_convert.check("nezha-base/")
        >>> checked.same, checked.folders[0].record
        (True, 'conversion.json')
    """

    folders: tuple[CheckedFolder, ...]
    others: int = 0

    @property
    def same(self) -> bool:
        """Whether every file is as it was recorded."""
        return not any(folder.problems for folder in self.folders)

    def to_dict(self) -> dict[str, Any]:
        """The result as ``--json`` prints it."""
        return {"same": self.same, **asdict(self)}


def check(*paths: str | Path) -> Checked:
    """Compare the files of converted, trained and exported folders with the sizes and hashes in their records.

    It computes nothing, so it takes a second a gigabyte. That the recorded files compute what their source computes is
    what `verify` shows.

    Args:
        paths: folders with a record; folders of such folders; or files, each of which stands for the folder that it
            lies in. A file in no such folder is counted and passed over, so that a list of changed files can be given.

    Returns:
        What is not as recorded, by folder.

    Raises:
        UsageError: a path is not there, or none is given.
        MappingError: a folder has no record, in itself and below, or a record is not as it is written.

    Example:
        >>> import nezha_convert
        >>> nezha_convert.check("nezha-base/").same
        True
    """
    if not paths:
        raise UsageError("nothing to check", hint="Name a converted folder: nezha-convert check FOLDER")
    found: dict[Path, None] = {}
    others = 0
    for path in map(path_of, paths):
        folders = list(_folders(path))
        others += not folders
        found |= dict.fromkeys(folders)
    return Checked(tuple(map(_checked, found)), others)


def _folders(path: Path) -> Iterator[Path]:
    """The folders with a record that `path` stands for."""
    if path.is_dir():
        below = [path] if _record(path) else sorted(Path(at) for at, _, files in os.walk(path) if {*files} & {*RECORDS})
        if not below:
            raise MappingError(
                f"{path}: no {', '.join(RECORDS[:-1])} or {RECORDS[-1]} in it or below; expected a folder that "
                "nezha-convert wrote",
                hint="Name one: nezha-convert check FOLDER",
            )
        yield from below
    elif path.exists() or path.is_symlink():
        yield from [parent for parent in path.parents if _record(parent)][:1]
    else:
        raise UsageError(f"{path}: not there", hint="Name a folder or a file that is there.")


def _record(folder: Path) -> str | None:
    return next((name for name in RECORDS if (folder / name).is_file()), None)


def _checked(folder: Path) -> CheckedFolder:
    record = str(_record(folder))
    files = recorded_files(folder / record)
    problems = tuple(filter(None, (_problem(folder, file) for file in files)))
    hint = f"Bring the files back. {anew(folder / record)}" if problems else ""
    return CheckedFolder(str(folder), record, len(files), sum(file.nbytes for file in files), problems, hint)


def _problem(folder: Path, file: FileRecord) -> str:
    """What is wrong with a recorded file, in words; empty where it is as recorded."""
    path = folder / file.name
    if len(file.name.encode()) > 255 or not path.is_file():  # is_file raises OSError for a longer name
        return f"{path}: missing"
    if (size := path.stat().st_size) != file.nbytes:
        with open(path, "rb") as opened:
            pointer = opened.read(len(_POINTER)) == _POINTER
        said = "; it is a pointer of Git LFS, and `git lfs pull` brings the file" if pointer else ""
        return f"{path}: {size:,} bytes, recorded {file.nbytes:,}{said}"
    if (digest := sha256(path)) != file.sha256:
        return f"{path}: SHA-256 {digest}, recorded {file.sha256}"
    return ""
