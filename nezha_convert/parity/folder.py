"""A converted folder as evidence: is it of this source, is it as it was written, and what was proved about it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import MappingError, OutputError
from ..report import FileRecord
from ..staging import MARK
from ..strict_json import read_json
from .originals import CLASSES

_NEEDED = {
    **dict.fromkeys(("source", "head", "architecture", "family"), str),
    **dict.fromkeys(("source_files", "output_files", "decisions", "dropped"), list),
}
_ENTRIES: dict[str, dict[str, type]] = {
    "source_files": {"name": str, "sha256": str},
    "output_files": {"name": str, "sha256": str},
    "decisions": {"field": str, "value": object, "reason": str},
    "dropped": {"name": str, "nbytes": int, "reason": str},
}
_COUNTED = {"name": str, **dict.fromkeys(("nan", "infinite", "overflow"), int)}
_SIZES = dict.fromkeys(
    ("vocab_size", "type_vocab_size", "hidden_size", "num_attention_heads", "num_hidden_layers"), int
)
_KINDS = {str: "a text", int: "a number", list: "a list", object: "a value"}


class ConvertedFolder:
    """`path` with its conversion.json.

    Raises:
        MappingError: it has none, or one that is not a conversion's report, or a config.json that is no model's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        mark = path / MARK
        if not mark.is_file():
            raise MappingError(
                f"{path}: no {MARK} in it; expected a folder that nezha-convert wrote",
                hint="The order is: nezha-convert verify SOURCE OUTPUT",
            )
        self.record = _object(mark, _NEEDED)
        _check_record(mark, self.record)
        self.config = _object(self._present("config.json"), _SIZES)

    @property
    def dtype(self) -> str:
        """The weights' element type, as config.json says."""
        return str(self.config.get("dtype") or self.config.get("torch_dtype"))

    @property
    def has_tokenizer(self) -> bool:
        """Whether the conversion wrote one."""
        return any(file["name"] == "tokenizer.json" for file in self.record["output_files"])

    def decision(self, field: str) -> Any:
        """What the conversion decided for `field`; None when it decided nothing."""
        return next((d["value"] for d in self.record["decisions"] if d["field"] == field), None)

    def asked_for(self, field: str) -> bool:
        """Whether `field` was told to the conversion: by an option, or by transformers' own file."""
        told = ("asked for", "tokenizer_config.json")
        return any(d["field"] == field and d["reason"].startswith(told) for d in self.record["decisions"])

    def check_source(self, files: Iterable[Path]) -> None:
        """Raises MappingError unless every one of `files` is one that this folder was converted from."""
        recorded = {file["sha256"]: file["name"] for file in self.record["source_files"]}
        by_name = {name: digest for digest, name in recorded.items()}
        for path in files:
            found = sha256(path)
            if found not in recorded:
                expected = by_name.get(path.name)
                said = f"{path.name} with {expected}" if expected else f"only {', '.join(sorted(by_name))}"
                raise MappingError(
                    f"{self.path} is not a conversion of this source: {path} has SHA-256 {found}, {MARK} names {said}",
                    hint="Name the source it was made from, with the --config and --vocab it was made with; or convert "
                    f"this one: nezha-convert convert SOURCE {self.path} --force",
                )

    def files(self) -> list[tuple[FileRecord, str]]:
        """Each file as it is now, and the hash that it had when it was written.

        Raises:
            MappingError: one is missing.
        """
        found = []
        for file in self.record["output_files"]:
            path = self._present(file["name"])
            found.append((FileRecord(file["name"], path.stat().st_size, sha256(path)), file["sha256"]))
        return found

    def keep(self, summary: Mapping[str, Any]) -> None:
        """Write `summary` into conversion.json as `parity`, beside and renamed, so that no reader sees half of it.

        Raises:
            OutputError: it cannot be written.
        """
        beside = self.path / f".{MARK}.{secrets.token_hex(4)}.part"
        try:
            with open(beside, "w", encoding="utf-8", newline="\n") as file:
                json.dump({**self.record, "parity": summary}, file, indent=2, ensure_ascii=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path / MARK)
        except OSError as error:
            raise OutputError(
                f"{self.path / MARK}: cannot be written ({error.strerror or error})",
                hint="Make the folder writable, or leave it as it is: --no-record",
            ) from error
        finally:
            beside.unlink(missing_ok=True)

    def _present(self, name: str) -> Path:
        if len(name.encode()) > 255 or not (self.path / name).is_file():  # is_file raises at longer names
            raise MappingError(
                f"{self.path / name}: missing; the conversion wrote it",
                hint=f"Convert again: nezha-convert convert SOURCE {self.path} --force",
            )
        return self.path / name


def _object(path: Path, needed: Mapping[str, type]) -> dict[str, Any]:
    """The JSON object in `path`, which has the fields `needed`."""
    try:
        content: dict[str, Any] = read_json(path)
    except (OSError, ValueError) as error:
        raise MappingError(f"{path}: not readable ({error})", hint="Convert again.") from error
    _check(path, "", content, needed)
    return content


def _check_record(path: Path, record: Mapping[str, Any]) -> None:
    """Raises MappingError unless conversion.json is as a conversion writes it: all that reads it relies on that."""
    for field, needed in _ENTRIES.items():
        for number, entry in enumerate(record[field]):
            _check(path, f"{field}[{number}]", entry, needed)
    if (numbers := record.get("numbers")) is not None:  # the first conversions counted none
        _check(path, "numbers", numbers, {"tensors": list})
        for number, entry in enumerate(numbers["tensors"]):
            _check(path, f"numbers.tensors[{number}]", entry, _COUNTED)
    for file in record["output_files"]:
        if file["name"] in ("", ".", "..") or any(c in file["name"] for c in "/\\\0"):
            raise _foreign(path, f"output_files names {file['name']!r}; expected a file of the folder itself")
    head, architecture = record["head"], record["architecture"]
    if head not in CLASSES or architecture != f"Nezha{CLASSES[head]}":
        expected = f"Nezha{CLASSES[head]}" if head in CLASSES else f"a head among {', '.join(CLASSES)}"
        raise _foreign(path, f"head is {head!r}, architecture is {architecture!r}; expected {expected}")


def _check(path: Path, where: str, found: object, needed: Mapping[str, type]) -> None:
    """Raises MappingError unless `found`, at `where` in `path`, is a JSON object with the fields `needed`."""
    if not isinstance(found, dict):
        raise _foreign(path, f"{where or 'it'} is no JSON object")
    if missing := [name for name in needed if name not in found]:
        raise _foreign(path, f"no {', '.join(missing)} in {where or 'it'}")
    for name, kind in needed.items():
        if not isinstance(found[name], kind):
            place = f"{where}.{name}" if where else name
            raise _foreign(path, f"{place} is {found[name]!r:.40}; expected {_KINDS[kind]}")


def _foreign(path: Path, what: str) -> MappingError:
    return MappingError(
        f"{path}: not as a conversion writes it: {what}",
        hint=f"Convert again: nezha-convert convert SOURCE {path.parent} --force",
    )


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
