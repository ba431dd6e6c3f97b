"""A trained folder: a model that was trained from another one, with its training.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..files.staging import TRAINED
from .record import DECISION, FILE, ConvertedFolder, Fields, RecordedFolder, check, check_all, foreign
from .training_card import training_card

_SIZED: Fields = {**FILE, "nbytes": int}
TRAINING: Fields = {
    **dict.fromkeys(("version", "date", "task"), str),
    **dict.fromkeys(("metrics", "settings", "versions", "base"), dict),
    "data": list,
}
_DATA: Fields = {"split": str, "name": str, "revision": str | None, "rows": int | None, "files": list}
_BASE: Fields = {"source": str, "weights": list, "doubts": list, "conversion": dict | None, "training": dict | None}
CONVERSION: Fields = {
    **dict.fromkeys(("version", "source", "family", "title"), str),
    **dict.fromkeys(("source_files", "decisions"), list),
    "parity": dict | None,
}


class TrainedFolder(RecordedFolder):
    """A trained folder with the training.json that ``record_training`` wrote; see ``RecordedFolder``."""

    mark = TRAINED
    needed: ClassVar[Fields] = {**TRAINING, "language": str | None, "license": str | None}
    claim = "not all that its card says is proved"
    remedy = (
        "Bring {folder} back to what was recorded, or verify what it was trained from; then record the training again "
        "(nezha_convert.record_training)"
    )

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

    def doubts(self) -> tuple[str, ...]:
        """Which files were changed since they were recorded, and why the base is not proved."""
        base = self.record["base"]
        return (*super().doubts(), *(f"trained from {base['source']}: {doubt}" for doubt in base["doubts"]))

    def card(self, license: str | None, repo_id: str | None, doubts: Sequence[str]) -> str:
        """The text of the model card; see ``training_card``."""
        return training_card(self.record, license=license, repo_id=repo_id, doubts=doubts, claim=self.claim)

    def _check_record(self, mark: Path) -> None:
        super()._check_record(mark)
        check_all(mark, "output_files", self.record["output_files"], _SIZED)
        _check_training(mark, "", self.record)
        try:
            json.dumps(self.record, allow_nan=False)
        except ValueError:
            raise foreign(mark, "it holds NaN or an infinity, which are no JSON") from None


def recorded_folder(path: Path) -> RecordedFolder:
    """`path` as a trained folder if it has a training.json, otherwise as a converted folder."""
    return TrainedFolder(path) if (path / TRAINED).is_file() else ConvertedFolder(path)


def _check_training(path: Path, where: str, record: Mapping[str, Any]) -> None:
    """Raises MappingError unless `record`, at `where` in training.json, has the form in which it is written.

    The record of a base that was itself trained is checked too, and so on down to the original.
    """
    check(path, where.rstrip("."), record, TRAINING)
    check_all(path, f"{where}data", record["data"], _DATA)
    for number, entry in enumerate(record["data"]):
        check_all(path, f"{where}data[{number}].files", entry["files"], _SIZED)
    splits = {entry["split"] for entry in record["data"]}
    names = (*splits, *(entry["name"] for entry in record["data"]))
    for split, values in record["metrics"].items():
        if split not in splits:
            raise foreign(path, f"{where}metrics has {split!r}; expected one of {', '.join(sorted(splits))}")
        if not isinstance(values, dict) or not all(map(is_number, values.values())):
            raise foreign(path, f"{where}metrics.{split} is {values!r:.60}; expected finite numbers by name")
        names = (*names, *values)
    if unfit := [name for name in names if not is_name(name)]:
        raise foreign(path, f"{where or 'it'} names {unfit[0]!r:.60}; expected a name of printable characters")
    _check_base(path, where, record["base"])


def _check_base(path: Path, where: str, base: Mapping[str, Any]) -> None:
    """`_check_training` for the part of the record that describes the base."""
    check(path, f"{where}base", base, _BASE)
    check_all(path, f"{where}base.weights", base["weights"], _SIZED)
    if not all(isinstance(doubt, str) for doubt in base["doubts"]):
        raise foreign(path, f"{where}base.doubts is {base['doubts']!r:.60}; expected texts")
    if base["conversion"] is not None:
        check(path, f"{where}base.conversion", base["conversion"], CONVERSION)
        check_all(path, f"{where}base.conversion.source_files", base["conversion"]["source_files"], FILE)
        check_all(path, f"{where}base.conversion.decisions", base["conversion"]["decisions"], DECISION)
    if base["training"] is not None:
        _check_training(path, f"{where}base.training.", base["training"])


def is_name(value: str) -> bool:
    """Whether the metadata of a card can hold the name `value` unchanged."""
    return value.isprintable() and bool(value) and value == value.strip()


def is_number(value: object) -> bool:
    """Whether `value` is a number that JSON can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
