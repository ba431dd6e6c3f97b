"""A trained folder: a model that was trained from another one, with its training.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..files.staging import TRAINED
from ..text import quoted
from .record import DECISION, FILE, SIZED, ConvertedFolder, Form, OrNull, RecordedFolder, check, foreign
from .training_card import training_card

CONVERSION: Form = {
    **dict.fromkeys(("version", "source", "family", "title"), str),
    "source_files": [FILE],
    "decisions": [DECISION],
    "parity": OrNull(dict),
}
_BASE: Form = {
    "source": str,
    "weights": [SIZED],
    "doubts": [str],
    "conversion": OrNull(CONVERSION),
    "training": OrNull(dict),
}
TRAINING: Form = {
    **dict.fromkeys(("version", "date", "task"), str),
    "metrics": {str: {str: float}},
    **dict.fromkeys(("settings", "versions"), dict),
    "data": [{"split": str, "name": str, "revision": OrNull(str), "rows": OrNull(int), "files": [SIZED]}],
    "base": _BASE,
}


class TrainedFolder(RecordedFolder):
    """A trained folder with the training.json that ``record_training`` wrote.

    Args:
        path: the folder.
        record: what is taken in place of the file's content; None takes the file's.

    Example:
        >>> import nezha_convert
        >>> from pathlib import Path
        >>> nezha_convert.TrainedFolder(Path("nezha-base")).doubts()
        Traceback (most recent call last):
        nezha_convert.errors.MappingError: nezha-base: no training.json in it; ...
    """

    mark = TRAINED
    needed: ClassVar[Form] = {**TRAINING, "language": OrNull(str), "license": OrNull(str)}
    claim = "not all that its card says is proved"

    @property
    def remedy(self) -> str:
        """What to do about doubts."""
        if self.changes():
            return f"Bring {self.path} back to what was recorded, or record its training again (record_training)"
        base = self.record["base"]
        again = f"nezha-convert record {quoted(base['source'])}" if base["training"] else "push looks at it again"
        return f"{to_prove(base)} proves what it was trained from; then {again}"

    @property
    def title(self) -> str:
        """The model in a line."""
        return f"{self.record['architecture']}, trained from {self.record['base']['source']}"

    @property
    def summary(self) -> str:
        """The task, the base and the metrics, in a line."""
        metrics = [
            f"{split} {name} {value:.6g}"
            for split, values in self.record["metrics"].items()
            for name, value in values.items()
        ]
        task, base, date = self.record["task"], self.record["base"]["source"], self.record["date"]
        return f"{task}, trained from {base} on {date}: {', '.join(metrics)}"

    def to_dict(self) -> dict[str, Any]:
        """The document of ``--json``."""
        return {"folder": str(self.path), "record": self.record, "doubts": list(self.doubts())}

    def doubts(self) -> tuple[str, ...]:
        """Which files were changed since they were recorded, and why the base is not proved."""
        base = self.record["base"]
        return (*super().doubts(), *(f"trained from {base['source']}: {doubt}" for doubt in base["doubts"]))

    def card(self, license: str | None, repo_id: str | None, doubts: Sequence[str]) -> str:
        """The text of the model card; see ``training_card``."""
        return training_card(self.record, license=license, repo_id=repo_id, doubts=doubts, claim=self.claim)

    def _check_record(self, mark: Path) -> None:
        super()._check_record(mark)
        _check_training(mark, "", self.record)


def to_prove(base: Mapping[str, Any]) -> str:
    """The command that proves what is recorded as a base."""
    while base["training"]:
        base = base["training"]["base"]
    return f"nezha-convert verify SOURCE {quoted(base['source'])}"


def recorded_folder(path: Path) -> RecordedFolder:
    """`path` as a trained folder if it has a training.json, otherwise as a converted folder."""
    return TrainedFolder(path) if (path / TRAINED).is_file() else ConvertedFolder(path)


def _check_training(path: Path, where: str, record: Mapping[str, Any]) -> None:
    """Raises MappingError unless `record`, at `where` in training.json, has the form in which it is written.

    The record of a base that was itself trained is checked too, and so on down to the original.
    """
    check(path, where.rstrip("."), record, TRAINING)
    splits = {entry["split"] for entry in record["data"]}
    names = [*splits, *(entry["name"] for entry in record["data"])]
    for split, values in record["metrics"].items():
        if split not in splits:
            raise foreign(path, f"{where}metrics has {split!r}; expected one of {', '.join(sorted(splits))}")
        names += values
    if unfit := [name for name in names if not is_name(name)]:
        raise foreign(path, f"{where or 'it'} names {unfit[0]!r:.60}; expected a name of printable characters")
    if record["base"]["training"] is not None:
        _check_training(path, f"{where}base.training.", record["base"]["training"])


def is_name(value: str) -> bool:
    """Whether the metadata of a card can hold the name `value` unchanged."""
    return value.isprintable() and bool(value) and value == value.strip()
