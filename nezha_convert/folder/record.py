"""A folder and its record: which files were changed since, what was proved, and which files may be published."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from ..checkpoint import Origin
from ..errors import MappingError, OutputError, UsageError
from ..families.heads import HEADS
from ..files.hashing import sha256
from ..files.json import json_bytes, read_json
from ..files.staging import EXPORTED, MARK, TRAINED, check_writable, replace_file
from ..text import quoted
from .card import conversion_card
from .report import FileRecord

Form: TypeAlias = Any
"""The form of a value in JSON, as data: a type; [form] for a list of such items; {str: form} for an object of any
names; or {name: form} for an object of these fields, and maybe of others. A field whose name ends in "?" may be missing
or null."""


@dataclass(frozen=True, slots=True)
class OrNull:
    """The form of a value that is `form` or null."""

    form: Form


FILE: Form = {"name": str, "sha256": str}
SIZED: Form = {**FILE, "nbytes": int}
DECISION: Form = {"field": str, "value": object, "reason": str, "origin?": str}
_COMMON: Form = {"head": str, "architecture": str, "output_files": [SIZED], "card?": {"sha256": str}}
_PARITY: Form = {
    "passed": bool,
    "failures": [str],
    "comparisons": [
        {
            **dict.fromkeys(("reference", "arithmetic", "worst_tensor", "worst_at"), str),
            "tolerance": float,
            "worst_error": OrNull(float),
        }
    ],
    "tokenizer?": {"reference": str, "texts": int},
    "assumed?": [{"name": str, "text": str}],
    "accepted?": [str],
    "versions": {str: str},
    "verified": [FILE],
}
_CONVERSION: Form = {
    **dict.fromkeys(("source", "head", "architecture", "family", "version", "title", "head_reason"), str),
    "source_files": [SIZED],
    "decisions": [DECISION],
    "assumptions?": [{"name": str, "text": str}],
    "dropped": [{"name": str, "nbytes": int, "reason": str}],
    "written": [{"source?": str, "target": str, "shape": [int]}],
    "kept?": [{"source?": str, "target": str, "dtype": str, "shape": [int]}],
    "numbers?": {"tensors": [{"name": str, **dict.fromkeys(("nan", "infinite", "overflow"), int)}]},
    "parity?": _PARITY,
}
_SIZES: Form = dict.fromkeys(
    ("vocab_size", "type_vocab_size", "hidden_size", "num_attention_heads", "num_hidden_layers"), int
)
_KINDS: dict[Any, str] = {
    **{str: "a text", int: "a number", float: "a finite number", bool: "true or false"},
    **{list: "a list", dict: "an object", object: "a value"},
}
_KEEP = "Make the folder writable, or leave it as it is: --no-record"
_WRITTEN_BY = {
    MARK: ("a conversion", "nezha-convert convert SOURCE {folder} --force", "Convert again"),
    TRAINED: ("record_training", "nezha_convert.record_training({folder}, ...)", "Record the training again"),
    EXPORTED: ("an export", "nezha-convert export OUTPUT {folder} --to PROGRAM --force", "Export again"),
}
"""By record: what writes it, the command or call, and what to do in words."""


class RecordedFolder(ABC):
    """The folder `path` with its record.

    Raises:
        MappingError: the record or config.json is missing, or does not have the fields that it is written with.
    """

    mark: ClassVar[str]
    """The file name of the record."""

    needed: ClassVar[Form]
    """The form of the record, besides its head, architecture and output files."""

    claim: ClassVar[str]
    """What to say when there are doubts: which claim does not hold."""

    def __init__(self, path: Path, record: Mapping[str, Any] | None = None) -> None:
        """Take `record` in place of what the file says, or None."""
        self.path = path
        mark = path / self.mark
        if not mark.is_file():
            raise self._absent()
        self.record = read_object(mark, {**self.needed, **_COMMON}) if record is None else record
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
    def remedy(self) -> str:
        """What to do about doubts."""

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
            within = [self.path.joinpath(*name.split("/")[:depth]) for depth in range(1, 2 + name.count("/"))]
            if any(path.is_symlink() for path in within):
                raise MappingError(
                    f"{self.path / self.mark}: it names {name!r}, a link that may lead out of the folder; refused",
                    hint=f"{_WRITTEN_BY[self.mark][2]}, from what you trust.",
                )
        return names

    def doubts(self) -> tuple[str, ...]:
        """Why the folder may not be what its record says, in words; empty when every file is as recorded."""
        return self.changes()

    def changes(self) -> tuple[str, ...]:
        """The files that were changed since they were recorded, in words."""
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
            hint=f"Convert it first: {self._converting()}; a model that was trained is recorded first: "
            "nezha_convert.record_training",
        )

    def _converting(self) -> str:
        """The command that makes a converted folder: this one, or one beside it of the checkpoint that is here."""
        path = quoted(self.path)
        beside = quoted(self.path.with_name(f"{self.path.resolve().name}-converted"))
        return f"nezha-convert convert {f'{path} {beside}' if self.path.exists() else f'SOURCE {path}'}"

    def _check_record(self, mark: Path) -> None:
        """Raises MappingError unless the record has the form in which it is written. Later code relies on that form."""
        _check_names(mark, self.record["output_files"])
        try:
            json.dumps(self.record, allow_nan=False)
        except ValueError:
            raise foreign(mark, "it holds NaN or an infinity, which are no JSON") from None
        head = HEADS.get(self.head)
        if head is None or head.architecture != self.architecture:
            expected = head.architecture if head else f"a head among {', '.join(HEADS)}"
            raise foreign(mark, f"head is {self.head!r}, architecture is {self.architecture!r}; expected {expected}")

    def _present(self, name: str) -> Path:
        if len(name.encode()) > 255 or not (self.path / name).is_file():  # is_file raises OSError for a longer name
            writer, how, again = _WRITTEN_BY[self.mark]
            raise MappingError(
                f"{self.path / name}: missing; {writer} wrote it",
                hint=f"{again}: {how.format(folder=quoted(self.path))}",
            )
        return self.path / name


class ConvertedFolder(RecordedFolder):
    """A converted folder with its conversion.json; see ``RecordedFolder``.

    Raises:
        UsageError: a trained model is in the folder. It has no original to be compared with.
    """

    mark = MARK
    needed: ClassVar[Form] = _CONVERSION
    claim = "it is not proved to be the original's equal"

    @property
    def remedy(self) -> str:
        """What to do about doubts."""
        return f"nezha-convert verify SOURCE {quoted(self.path)} proves it"

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
                    "this one: nezha-convert convert SOURCE OUTPUT --force",
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

    def check_keep(self) -> None:
        """Raises OutputError where `keep` could not write."""
        check_writable(self.path / MARK, _KEEP)

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
                hint=_KEEP,
            ) from error

    def _absent(self) -> Exception:
        if not (self.path / TRAINED).is_file():
            return super()._absent()
        return UsageError(
            f"{self.path}: a trained model ({TRAINED} is in it): there is no original that it should be equal to",
            hint=f"What it was trained from can be compared: nezha-convert verify SOURCE BASE; its own files are "
            f"compared with {TRAINED} by: nezha-convert push {quoted(self.path)} OWNER/NAME "
            "--dry-run --no-card",
        )

    def _check_record(self, mark: Path) -> None:
        super()._check_record(mark)
        for number, decision in enumerate(self.record["decisions"]):
            if decision.get("origin") not in (*Origin, None):
                raise foreign(
                    mark, f"decisions[{number}].origin is {decision['origin']!r}; expected one of {', '.join(Origin)}"
                )
            if decision["field"] == "language" and not isinstance(decision["value"], str):
                raise foreign(mark, f"decisions[{number}].value is {decision['value']!r:.40}; expected a language")


def recorded_files(path: Path) -> tuple[FileRecord, ...]:
    """The files that the record at `path` names, as they were recorded.

    Raises:
        MappingError: it cannot be read, or is not as it is written.
    """
    files = read_object(path, {"output_files": [SIZED]})["output_files"]
    _check_names(path, files)
    return tuple(FileRecord(file["name"], file["nbytes"], file["sha256"]) for file in files)


def _check_names(path: Path, files: Iterable[Mapping[str, Any]]) -> None:
    """Raises MappingError where the record at `path` names a file outside of its folder."""
    for file in files:
        if {"", ".", ".."} & {*file["name"].split("/")} or any(c in file["name"] for c in "\\\0"):
            raise foreign(path, f"output_files names {file['name']!r}; expected a file of the folder itself")


def read_object(path: Path, needed: Form) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        MappingError: the file cannot be read, or it does not have the form `needed`.
    """
    try:
        content: dict[str, Any] = read_json(path)
    except (OSError, ValueError) as error:
        raise MappingError(
            f"{path}: not readable ({error})", hint="Convert again: nezha-convert convert SOURCE OUTPUT --force"
        ) from error
    check(path, "", content, needed)
    return content


def check(path: Path, where: str, value: Any, form: Form) -> None:
    """Raises MappingError unless `value`, at `where` in `path`, has the form `form`."""
    if isinstance(form, dict):
        if not isinstance(value, dict):
            raise foreign(path, f"{where or 'it'} is no JSON object")
        _check_fields(path, where, value, form)
        return
    if isinstance(form, OrNull) and (value is None or not isinstance(form.form, type)):
        if value is not None:
            check(path, where, value, form.form)
        return
    kind, null = (form.form, " or null") if isinstance(form, OrNull) else (form, "")
    kind = list if isinstance(kind, list) else kind
    if not _is(value, kind):
        raise foreign(path, f"{where or 'it'} is {value!r:.40}; expected {_KINDS[kind]}{null}")
    if isinstance(form, list):
        for number, item in enumerate(value):
            check(path, f"{where}[{number}]", item, form[0])


def _check_fields(path: Path, where: str, value: Mapping[str, Any], form: Form) -> None:
    if missing := [name for name in form if isinstance(name, str) and name[-1:] != "?" and name not in value]:
        raise foreign(path, f"no {', '.join(missing)} in {where or 'it'}")
    for name, item in form.items():
        fields = [*value] if name is str else [name.rstrip("?")]
        for field in fields:
            if name is str or name == field or value.get(field) is not None:
                check(path, f"{where}.{field}" if where else field, value[field], item)


def _is(value: Any, kind: type) -> bool:
    """Whether `value` is of the type `kind`. True is no number, and a number is one that can be shown."""
    if kind is float:
        return is_number(value)
    if kind is int:
        return type(value) is int and abs(value) < 1 << 63
    return isinstance(value, kind)


def is_number(value: object) -> bool:
    """Whether `value` is a number that JSON can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def foreign(path: Path, what: str) -> MappingError:
    """The error for a file in a folder of ours that does not have the form in which it is written."""
    mark = path.name if path.name in _WRITTEN_BY else TRAINED if (path.parent / TRAINED).is_file() else MARK
    return MappingError(f"{path}: not as {_WRITTEN_BY[mark][0]} writes it: {what}", hint=anew(path.with_name(mark)))


def anew(path: Path) -> str:
    """What writes the folder of the record at `path` anew: what to do, and the command or call."""
    _, how, again = _WRITTEN_BY[path.name]
    return f"{again}: {how.format(folder=quoted(path.parent))}"
