"""Folders with a record as evidence: is each file as it was recorded, what was proved, and what may go to others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar

from ..errors import MappingError, OutputError, UsageError
from ..files.hashing import sha256
from ..files.json import json_bytes, read_json
from ..files.staging import MARK, TRAINED, replace_file
from ..parity.originals.programs import CLASSES
from .card import render
from .report import FileRecord

Fields = Mapping[str, type | UnionType]

FILE: Fields = {"name": str, "sha256": str}
DECISION: Fields = {"field": str, "value": object, "reason": str}
_COUNTED: Fields = {"name": str, **dict.fromkeys(("nan", "infinite", "overflow"), int)}
_COMMON: Fields = {"head": str, "architecture": str, "output_files": list}
_SIZES = dict.fromkeys(
    ("vocab_size", "type_vocab_size", "hidden_size", "num_attention_heads", "num_hidden_layers"), int
)
_KINDS: dict[type | UnionType, str] = {
    **{str: "a text", int: "a number", list: "a list", dict: "an object", object: "a value"},
    **{str | None: "a text or null", int | None: "a number or null", dict | None: "an object or null"},
}
_WRITTEN_BY = {
    MARK: ("a conversion", "nezha-convert convert SOURCE {folder} --force", "Convert again"),
    TRAINED: ("record_training", "nezha_convert.record_training({folder}, ...)", "Record the training again"),
}
"""By record: what writes it, how, and in words."""


class RecordedFolder(ABC):
    """`path` with its record: which files are meant for others, and why one of them may not be what it should be.

    Raises:
        MappingError: it has none, or one that is not as it is written, or a config.json that is no model's.
    """

    mark: ClassVar[str]
    """The record's name."""

    needed: ClassVar[Fields]
    """The record's fields, besides its head, architecture and output files."""

    claim: ClassVar[str]
    """What is not so where there are doubts."""

    remedy: ClassVar[str]
    """What to do about doubts; {folder} stands for the path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        mark = path / self.mark
        if not mark.is_file():
            raise self._absent()
        self.record = read_object(mark, {**self.needed, **_COMMON})
        self._check_record(mark)
        self.config = read_object(self._present("config.json"), _SIZES)

    @property
    def dtype(self) -> str:
        """The weights' element type, as config.json says."""
        return str(self.config.get("dtype") or self.config.get("torch_dtype"))

    @property
    def has_tokenizer(self) -> bool:
        """Whether one is recorded."""
        return any(file["name"] == "tokenizer.json" for file in self.record["output_files"])

    @property
    @abstractmethod
    def title(self) -> str:
        """The model in a line."""

    def files(self) -> list[tuple[FileRecord, str]]:
        """Each file as it is now, and the hash that it had when it was recorded.

        Raises:
            MappingError: one is missing.
        """
        found = []
        for file in self.record["output_files"]:
            path = self._present(file["name"])
            found.append((FileRecord(file["name"], path.stat().st_size, sha256(path)), file["sha256"]))
        return found

    def names(self) -> list[str]:
        """The files that are meant for others: the recorded ones, and the record.

        Raises:
            MappingError: one is a link: in a stranger's folder it could lead to a secret, which would be published.
        """
        names = [*(file["name"] for file in self.record["output_files"]), self.mark]
        for name in names:
            if (self.path / name).is_symlink():
                raise MappingError(
                    f"{self.path / self.mark}: it names {name!r}, a link that may lead out of the folder; refused",
                    hint=f"{_WRITTEN_BY[self.mark][2]}, from what you trust.",
                )
        return names

    def doubts(self) -> tuple[str, ...]:
        """Why the folder may not be what its record says, in words; nothing where it is."""
        return tuple(
            f"{file.name} was changed since it was written: SHA-256 {file.sha256}, recorded {written}"
            for file, written in self.files()
            if file.sha256 != written
        )

    @abstractmethod
    def card(self, license: str | None, repo_id: str | None, doubts: Sequence[str]) -> str:
        """The model card; see ``card.render``."""

    def _absent(self) -> Exception:
        return MappingError(
            f"{self.path}: no {self.mark} in it; expected a folder that nezha-convert wrote",
            hint="The order is: nezha-convert verify SOURCE OUTPUT. A model that was trained is recorded first: "
            "nezha_convert.record_training",
        )

    def _check_record(self, mark: Path) -> None:
        """Raises MappingError unless the record is as it is written: all that reads it relies on that."""
        check_all(mark, "output_files", self.record["output_files"], FILE)
        for file in self.record["output_files"]:
            if file["name"] in ("", ".", "..") or any(c in file["name"] for c in "/\\\0"):
                raise foreign(mark, f"output_files names {file['name']!r}; expected a file of the folder itself")
        head, architecture = self.record["head"], self.record["architecture"]
        if head not in CLASSES or architecture != f"Nezha{CLASSES[head]}":
            expected = f"Nezha{CLASSES[head]}" if head in CLASSES else f"a head among {', '.join(CLASSES)}"
            raise foreign(mark, f"head is {head!r}, architecture is {architecture!r}; expected {expected}")

    def _present(self, name: str) -> Path:
        if len(name.encode()) > 255 or not (self.path / name).is_file():  # is_file raises at longer names
            writer, how, again = _WRITTEN_BY[self.mark]
            raise MappingError(
                f"{self.path / name}: missing; {writer} wrote it", hint=f"{again}: {how.format(folder=self.path)}"
            )
        return self.path / name


class ConvertedFolder(RecordedFolder):
    """`path` with its conversion.json; see ``RecordedFolder``.

    Raises:
        UsageError: it is a trained one, which has no original.
    """

    mark = MARK
    needed: ClassVar[Fields] = {
        **dict.fromkeys(("source", "head", "architecture", "family"), str),
        **dict.fromkeys(("source_files", "decisions", "dropped"), list),
    }
    claim = "it is not proved to be the original's equal"
    remedy = "nezha-convert verify SOURCE {folder} proves it"

    @property
    def title(self) -> str:
        """The model in a line."""
        return f"{self.record['architecture']}, converted by nezha-convert {self.record['version']}"

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

    def doubts(self) -> tuple[str, ...]:
        """Why the folder is not proved to be the original's equal, in words; nothing where it is."""
        parity: dict[str, Any] | None = self.record.get("parity")
        if not parity:
            return ("its parity with the original was never measured", *super().doubts())
        found = []
        if not parity["passed"]:
            found.append(f"it failed the comparison with the original: {'; '.join(parity['failures'])}")
        verified = {file["name"]: file["sha256"] for file in parity["verified"]}
        for file, written in self.files():
            if file.sha256 == written and file.name.endswith(".safetensors") and verified.get(file.name) != written:
                found.append(f"{file.name} is not the file that was compared with the original")
        return (*found, *super().doubts())

    def card(self, license: str | None, repo_id: str | None, doubts: Sequence[str]) -> str:
        """The model card; see ``card.render``."""
        return render(self.record, license=license, repo_id=repo_id, doubts=doubts)

    def keep(self, summary: Mapping[str, Any]) -> None:
        """Write `summary` into conversion.json as `parity`, beside and renamed, so that no reader sees half of it.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            replace_file(self.path / MARK, json_bytes({**self.record, "parity": summary}))
        except OSError as error:
            raise OutputError(
                f"{self.path / MARK}: cannot be written ({error.strerror or error})",
                hint="Make the folder writable, or leave it as it is: --no-record",
            ) from error

    def _absent(self) -> Exception:
        if not (self.path / TRAINED).is_file():
            return super()._absent()
        return UsageError(
            f"{self.path}: a trained model ({TRAINED} is in it): there is no original that it should be equal to",
            hint=f"What it was trained from can be compared: nezha-convert verify SOURCE BASE; its own files are "
            f"compared with {TRAINED} by: nezha-convert push {self.path} OWNER/NAME --dry-run --no-card",
        )

    def _check_record(self, mark: Path) -> None:
        super()._check_record(mark)
        check_all(mark, "source_files", self.record["source_files"], FILE)
        check_all(mark, "decisions", self.record["decisions"], DECISION)
        check_all(mark, "dropped", self.record["dropped"], {"name": str, "nbytes": int, "reason": str})
        if (numbers := self.record.get("numbers")) is not None:  # the first conversions counted none
            check(mark, "numbers", numbers, {"tensors": list})
            check_all(mark, "numbers.tensors", numbers["tensors"], _COUNTED)


def read_object(path: Path, needed: Fields) -> dict[str, Any]:
    """The JSON object in `path`, which has the fields `needed`."""
    try:
        content: dict[str, Any] = read_json(path)
    except (OSError, ValueError) as error:
        raise MappingError(f"{path}: not readable ({error})", hint="Convert again.") from error
    check(path, "", content, needed)
    return content


def check_all(path: Path, where: str, entries: Iterable[object], needed: Fields) -> None:
    """Raises MappingError unless each of `entries`, a list at `where` in `path`, is such an object."""
    for number, entry in enumerate(entries):
        check(path, f"{where}[{number}]", entry, needed)


def check(path: Path, where: str, found: object, needed: Fields) -> None:
    """Raises MappingError unless `found`, at `where` in `path`, is a JSON object with the fields `needed`."""
    if not isinstance(found, dict):
        raise foreign(path, f"{where or 'it'} is no JSON object")
    if missing := [name for name in needed if name not in found]:
        raise foreign(path, f"no {', '.join(missing)} in {where or 'it'}")
    for name, kind in needed.items():
        if not isinstance(found[name], kind):
            place = f"{where}.{name}" if where else name
            raise foreign(path, f"{place} is {found[name]!r:.40}; expected {_KINDS[kind]}")


def foreign(path: Path, what: str) -> MappingError:
    """The error about a file that is not as it is written in its folder."""
    writer, how, again = _WRITTEN_BY[TRAINED if (path.parent / TRAINED).is_file() else MARK]
    return MappingError(f"{path}: not as {writer} writes it: {what}", hint=f"{again}: {how.format(folder=path.parent)}")
