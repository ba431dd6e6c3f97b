"""A folder and its record: which files were changed since, what was proved, and which files may be published."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar

from ..checkpoint import Origin
from ..errors import MappingError, OutputError, UsageError
from ..families.heads import HEADS
from ..files.hashing import sha256
from ..files.json import json_bytes, read_json
from ..files.staging import MARK, TRAINED, replace_file
from .card import conversion_card
from .report import FileRecord

Fields = Mapping[str, type | UnionType]
"""The fields that a JSON object must have, and their types."""

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
"""By record: what writes it, the command or call, and what to do in words."""


class RecordedFolder(ABC):
    """The folder `path` with its record.

    Raises:
        MappingError: the record or config.json is missing, or does not have the fields that it is written with.
    """

    mark: ClassVar[str]
    """The file name of the record."""

    needed: ClassVar[Fields]
    """The fields of the record, besides its head, architecture and output files."""

    claim: ClassVar[str]
    """What to say when there are doubts: which claim does not hold."""

    remedy: ClassVar[str]
    """What to do about doubts. {folder} stands for the path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        mark = path / self.mark
        if not mark.is_file():
            raise self._absent()
        self.record = read_object(mark, {**self.needed, **_COMMON})
        self._check_record(mark)
        self.config = read_object(self._present("config.json"), _SIZES)

    @property
    def head(self) -> str:
        """The model's head, a key of ``families.HEADS``."""
        return str(self.record["head"])

    @property
    def architecture(self) -> str:
        """The model's class in the package `nezha`."""
        return str(self.record["architecture"])

    @property
    def dtype(self) -> str:
        """The weights' element type, as config.json has it."""
        return str(self.config.get("dtype") or self.config.get("torch_dtype"))

    @property
    def has_tokenizer(self) -> bool:
        """Whether the record lists a tokenizer."""
        return any(file["name"] == "tokenizer.json" for file in self.record["output_files"])

    @property
    @abstractmethod
    def title(self) -> str:
        """The model in a line."""

    def files(self) -> list[tuple[FileRecord, str]]:
        """Each recorded file as it is now, with the hash that the record has.

        Raises:
            MappingError: a file is missing.
        """
        files = []
        for recorded in self.record["output_files"]:
            path = self._present(recorded["name"])
            files.append((FileRecord(recorded["name"], path.stat().st_size, sha256(path)), recorded["sha256"]))
        return files

    def names(self) -> list[str]:
        """The files to publish: the recorded files and the record itself.

        Raises:
            MappingError: a file is a link. In a folder from a stranger, a link could lead to a secret of the user's.
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
        """Why the folder may not be what its record says, in words; empty when every file is as recorded."""
        return tuple(
            f"{file.name} was changed since it was written: SHA-256 {file.sha256}, recorded {written}"
            for file, written in self.files()
            if file.sha256 != written
        )

    @abstractmethod
    def card(self, license: str | None, repo_id: str | None, doubts: Sequence[str]) -> str:
        """The text of the model card. The arguments are those of ``conversion_card``."""

    def _absent(self) -> Exception:
        return MappingError(
            f"{self.path}: no {self.mark} in it; expected a folder that nezha-convert wrote",
            hint="The order is: nezha-convert verify SOURCE OUTPUT. A model that was trained is recorded first: "
            "nezha_convert.record_training",
        )

    def _check_record(self, mark: Path) -> None:
        """Raises MappingError unless the record has the form in which it is written. Later code relies on that form."""
        check_all(mark, "output_files", self.record["output_files"], FILE)
        for file in self.record["output_files"]:
            if file["name"] in ("", ".", "..") or any(c in file["name"] for c in "/\\\0"):
                raise foreign(mark, f"output_files names {file['name']!r}; expected a file of the folder itself")
        head = HEADS.get(self.head)
        if head is None or head.architecture != self.architecture:
            expected = head.architecture if head else f"a head among {', '.join(HEADS)}"
            raise foreign(mark, f"head is {self.head!r}, architecture is {self.architecture!r}; expected {expected}")

    def _present(self, name: str) -> Path:
        if len(name.encode()) > 255 or not (self.path / name).is_file():  # is_file raises OSError for a longer name
            writer, how, again = _WRITTEN_BY[self.mark]
            raise MappingError(
                f"{self.path / name}: missing; {writer} wrote it", hint=f"{again}: {how.format(folder=self.path)}"
            )
        return self.path / name


class ConvertedFolder(RecordedFolder):
    """A converted folder with its conversion.json; see ``RecordedFolder``.

    Raises:
        UsageError: a trained model is in the folder. It has no original to be compared with.
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
        """The value that the conversion decided for `field`; None when it decided nothing."""
        return next((d["value"] for d in self.record["decisions"] if d["field"] == field), None)

    def origin(self, field: str) -> Origin | None:
        """What the decision about `field` rests on; None where there was nothing to decide."""
        decision = next((d for d in self.record["decisions"] if d["field"] == field), None)
        if decision is None or "origin" in decision:
            return Origin(decision["origin"]) if decision else None
        # The first conversions recorded reasons alone.
        beginnings = {"asked for": Origin.ASKED, "tokenizer_config.json": Origin.FILE}
        return next((o for words, o in beginnings.items() if decision["reason"].startswith(words)), Origin.DEFAULT)

    def check_source(self, files: Iterable[Path]) -> None:
        """Raises MappingError unless this folder was converted from all of `files`."""
        recorded = {file["sha256"]: file["name"] for file in self.record["source_files"]}
        by_name = {name: digest for digest, name in recorded.items()}
        for path in files:
            digest = sha256(path)
            if digest not in recorded:
                expected = by_name.get(path.name)
                names = f"{path.name} with {expected}" if expected else f"only {', '.join(sorted(by_name))}"
                raise MappingError(
                    f"{self.path} is not a conversion of this source: {path} has SHA-256 {digest}, "
                    f"{MARK} names {names}",
                    hint="Name the source it was made from, with the --config and --vocab it was made with; or convert "
                    f"this one: nezha-convert convert SOURCE {self.path} --force",
                )

    def doubts(self) -> tuple[str, ...]:
        """Why the folder is not proved to be the original's equal, in words; empty when it is proved."""
        parity: dict[str, Any] | None = self.record.get("parity")
        if not parity:
            return ("its parity with the original was never measured", *super().doubts())
        reasons = []
        if not parity["passed"]:
            reasons.append(f"it failed the comparison with the original: {'; '.join(parity['failures'])}")
        verified = {file["name"]: file["sha256"] for file in parity["verified"]}
        for file, written in self.files():
            if file.sha256 == written and file.name.endswith(".safetensors") and verified.get(file.name) != written:
                reasons.append(f"{file.name} is not the file that was compared with the original")
        return (*reasons, *super().doubts())

    def card(self, license: str | None, repo_id: str | None, doubts: Sequence[str]) -> str:
        """The text of the model card; see ``conversion_card``."""
        return conversion_card(self.record, license=license, repo_id=repo_id, doubts=doubts)

    def keep(self, summary: Mapping[str, Any]) -> None:
        """Write `summary` into conversion.json as `parity`. The file is replaced whole: no reader sees half of it.

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
        for number, decision in enumerate(self.record["decisions"]):
            if decision.get("origin", Origin.ASKED) not in [*Origin]:
                raise foreign(
                    mark, f"decisions[{number}].origin is {decision['origin']!r}; expected one of {', '.join(Origin)}"
                )
        if (assumptions := self.record.get("assumptions")) is not None:  # early versions did not state them
            check(mark, "", self.record, {"assumptions": list})
            check_all(mark, "assumptions", assumptions, {"name": str, "text": str})
        check_all(mark, "dropped", self.record["dropped"], {"name": str, "nbytes": int, "reason": str})
        if (numbers := self.record.get("numbers")) is not None:  # early versions did not count them
            check(mark, "numbers", numbers, {"tensors": list})
            check_all(mark, "numbers.tensors", numbers["tensors"], _COUNTED)


def read_object(path: Path, needed: Fields) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        MappingError: the file cannot be read, or lacks one of the fields `needed`.
    """
    try:
        content: dict[str, Any] = read_json(path)
    except (OSError, ValueError) as error:
        raise MappingError(f"{path}: not readable ({error})", hint="Convert again.") from error
    check(path, "", content, needed)
    return content


def check_all(path: Path, where: str, entries: Iterable[object], needed: Fields) -> None:
    """`check` for each of `entries`, the list at `where` in `path`."""
    for number, entry in enumerate(entries):
        check(path, f"{where}[{number}]", entry, needed)


def check(path: Path, where: str, value: object, needed: Fields) -> None:
    """Raises MappingError unless `value`, at `where` in `path`, is a JSON object with the fields `needed`."""
    if not isinstance(value, dict):
        raise foreign(path, f"{where or 'it'} is no JSON object")
    if missing := [name for name in needed if name not in value]:
        raise foreign(path, f"no {', '.join(missing)} in {where or 'it'}")
    for name, kind in needed.items():
        if not isinstance(value[name], kind):
            place = f"{where}.{name}" if where else name
            raise foreign(path, f"{place} is {value[name]!r:.40}; expected {_KINDS[kind]}")


def foreign(path: Path, what: str) -> MappingError:
    """The error for a file in a folder of ours that does not have the form in which it is written."""
    writer, how, again = _WRITTEN_BY[TRAINED if (path.parent / TRAINED).is_file() else MARK]
    return MappingError(f"{path}: not as {writer} writes it: {what}", hint=f"{again}: {how.format(folder=path.parent)}")
