"""What a model was trained from: its weights by their hashes, its own record, and what is not proved of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import MappingError, UsageError
from ..files.hashing import sha256
from ..files.staging import MARK, TRAINED
from ..formats.open import open_checkpoint
from ..hub import SCHEME, Address, local_source
from .record import RecordedFolder, check
from .report import FileRecord
from .trained import CONVERSION, TRAINING, TrainedFolder, recorded_folder


def base_of(base: str | Path, revision: str | None, folder: Path) -> dict[str, Any]:
    """The record of the base: its weights, its own record, and why it is not proved, if it is not."""
    address = str(base)
    if not Path(base).is_dir():
        address = address if address.startswith(SCHEME) else f"{SCHEME}{address}"
        address = str(Address.parse(f"{address}@{revision}" if revision else address))
    path, name = local_source(address)
    place = path if path.is_dir() else path.parent
    if place.resolve() == folder.resolve():
        raise UsageError(f"{folder}: the trained model cannot be its own base", hint="Save it to another folder.")
    files = open_checkpoint(weights_of(path) if path.is_dir() else path).files
    return {"source": name, "weights": [recorded_file(file) for file in files], **proof(place)}


def proof(folder: Path) -> dict[str, Any]:
    """What a base's own record says, and the doubts about it. A broken record proves as little as none."""
    unknown = {"conversion": None, "training": None}
    if not any((folder / mark).is_file() for mark in (MARK, TRAINED)):
        return {"doubts": ["it has no conversion.json: its parity with an original was never measured"], **unknown}
    try:
        recorded = recorded_folder(folder)
        doubts = recorded.doubts()
        kind, fields = ("training", TRAINING) if recorded.mark == TRAINED else ("conversion", CONVERSION)
        content = {name: recorded.record.get(name) for name in fields}
        check(folder / recorded.mark, "", content, fields)
    except MappingError as error:
        return {"doubts": [error.message], **unknown}
    return {"doubts": list(doubts), **unknown, kind: content}


def base_folder(trained: TrainedFolder) -> Path | None:
    """The folder of the recorded name with the recorded weights: in the current folder, or beside `trained`."""
    recorded: dict[str, Any] = trained.record["base"]
    for place in (Path(), trained.path.resolve().parent):
        folder: Path = place / recorded["source"]
        files = [folder / file["name"] for file in recorded["weights"]]
        inside = folder.parent == place and all(file.parent == folder and file.is_file() for file in files)
        if inside and is_same_base({"weights": [recorded_file(file) for file in files]}, recorded):
            return folder
    return None


def is_same_base(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records of a base are of the same weights, whatever its folder is called."""
    hashes = [sorted(file["sha256"] for file in base["weights"]) for base in (one, other)]
    return hashes[0] == hashes[1]


def looked_again(recorded: RecordedFolder) -> RecordedFolder:
    """A trained folder with what its base says of itself today, if it was in doubt and is found. No file is written."""
    if not isinstance(recorded, TrainedFolder) or not recorded.record["base"]["doubts"]:
        return recorded
    base, folder = recorded.record["base"], base_folder(recorded)
    return TrainedFolder(recorded.path, {**recorded.record, "base": {**base, **proof(folder)}}) if folder else recorded


def weights_of(folder: Path) -> Path:
    """The weights that transformers would load: a folder may have several formats of them."""
    for name in ("model.safetensors", "model.safetensors.index.json"):
        if (folder / name).is_file():
            return folder / name
    return folder


def recorded_file(path: Path) -> dict[str, Any]:
    """Name, size and hash of a file, as a record has them."""
    return asdict(FileRecord(path.name, path.stat().st_size, sha256(path)))
