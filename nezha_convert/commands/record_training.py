"""`record_training`: complete the folder of a trained model, and record how it was trained. `record` renews that.

A training script calls the first after it has saved the model.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..errors import MappingError, OutputError, UsageError
from ..families.heads import HEADS, head_of
from ..files.given import path_of
from ..files.hashing import sha256
from ..files.json import json_bytes, read_json
from ..files.staging import MARK, TRAINED, replace_file
from ..folder.base import base_folder, base_of, is_same_base, recorded_file, weights_of
from ..folder.card import CARD, LICENSES
from ..folder.model_code import MODEL_FILES, model_files
from ..folder.record import is_number, read_object
from ..folder.report import FileRecord
from ..folder.trained import TrainedFolder, is_name
from ..folder.training_card import HUB_DATASET, training_card
from ..formats.open import open_checkpoint
from ..mapping.config import AUTO_MAP, architecture_of, read_config
from ..text import quoted

if TYPE_CHECKING:
    from transformers import TrainingArguments

_BESIDE = (
    *("config.json", "generation_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"),
)
"""The files of a model besides weights and code. Checkpoints, optimizers and training_args.bin are not among them."""

_ARGUMENTS = (
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "warmup_ratio", "num_train_epochs", "max_steps"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "world_size"),
    *("optim", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "label_smoothing_factor"),
    *("bf16", "fp16", "seed", "data_seed"),
)
"""The TrainingArguments that change what a training computes."""

_LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "datasets", "pytorch-optimizer")


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Data that a model was trained with or measured on.

    Attributes:
        split: what the data was for, such as "train" or "validation". Metrics refer to it.
        name: the data set's name; its name on the Hub, if there are no files.
        files: your own files. Their names, sizes and hashes are recorded, their folders are not.
        rows: the number of examples.
        revision: the revision of a data set on the Hub.

    Example:
        >>> import nezha_convert
        >>> nezha_convert.TrainingData("validation", "ChnSenti", rows=1200).split
        'validation'
    """

    split: str
    name: str
    files: tuple[str | Path, ...] = ()
    rows: int | None = None
    revision: str | None = None


def record_training(
    folder: str | Path,
    *,
    base: str | Path,
    task: str,
    metrics: Mapping[str, Mapping[str, float]],
    data: Iterable[TrainingData],
    settings: Mapping[str, Any] | TrainingArguments,
    revision: str | None = None,
    language: str | None = None,
    license: str | None = None,
) -> TrainedFolder:
    """Complete `folder`, where a trained model and its tokenizer were saved, for others to load and for `push`.

    The folder gets the model's own code, so that it loads with ``trust_remote_code=True`` where this package is not
    installed; training.json; and a card. A README.md that you wrote stays. The same folder and arguments give the same
    files: the date is that of the weights. Call it in one process only, after ``trainer.save_model(folder)``.

    Args:
        folder: what ``save_pretrained`` wrote. It must be another folder than `base`.
        base: what the model was trained from: a folder, or OWNER/NAME on the Hub, as given to ``from_pretrained``.
        task: its name on the Hub (the "pipeline tag"), such as "text-classification".
        metrics: split -> name -> value, such as {"validation": {"accuracy": 0.95}}. The names are the Hub's.
        data: the data of training and measurement. Each split of `metrics` is among it.
        settings: the Trainer's arguments, or a dictionary of settings that JSON can hold.
        revision: the revision of `base` on the Hub.
        language: as the Hub spells it ("zh"); None takes what the conversion of `base` decided.
        license: of the weights, as the Hub spells it: "apache-2.0", "mit" and so on; None leaves it to `push`.

    Returns:
        The recorded folder. If `base` is not proved, its ``doubts()`` say so: verify the base, and record again.

    Raises:
        UsageError: an argument is not as described here.
        MappingError: there is no trained NEZHA in `folder`.
        CheckpointError: the weights of `folder` or of `base` cannot be read.
        HubError: `base` cannot be fetched.
        OutputError: `folder` cannot be written.

    Example:
        >>> import nezha_convert
        >>> recorded = nezha_convert.record_training(
        ...     "chnsenti/",
        ...     base="nezha-base/",
        ...     task="text-classification",
        ...     metrics={"validation": {"accuracy": 0.9533}},
        ...     data=[nezha_convert.TrainingData("validation", "ChnSenti", rows=1200)],
        ...     settings={"learning_rate": 3e-5},
        ... )
        >>> recorded.doubts()
        ()
    """
    folder, data = path_of(folder), tuple(data)
    _check_arguments(task, metrics, data, license)
    head, weights = _saved_model(folder)
    recorded_settings = _settings(settings)
    origin = base_of(base, revision, folder)
    record = {
        "version": __version__,
        "date": _date_of(weights),
        "head": head,
        "architecture": HEADS[head].architecture,
        "task": task,
        "language": language or _language(origin),
        "license": license,
        "metrics": {split: dict(values) for split, values in metrics.items()},
        "data": [{**asdict(part), "files": [recorded_file(Path(path)) for path in part.files]} for part in data],
        "settings": recorded_settings,
        "versions": {"python": platform.python_version(), **dict(_versions())},
        "base": origin,
    }
    _write(folder, record, weights)
    return TrainedFolder(folder)


def record(folder: str | Path, *, base: str | Path | None = None) -> TrainedFolder:
    """Renew what training.json and the card say of the base, which may have been verified since.

    Args:
        folder: what `record_training` recorded.
        base: the base's folder, or OWNER/NAME on the Hub; None looks for the recorded name in the current folder and
            beside `folder`.

    Returns:
        The recorded folder. If the base is still not proved, its ``doubts()`` say so.

    Raises:
        MappingError: a file of `folder` was changed since; the base is not found or is another one.
        CheckpointError: the weights of `folder` or of `base` cannot be read.
        HubError: `base` cannot be fetched.
        OutputError: `folder` cannot be written.

    Example:
        >>> import nezha_convert
        >>> options = {"task": "text-classification", "metrics": {}, "data": (), "settings": {}}
        >>> recorded = nezha_convert.record_training("chnsenti/", base="nezha-base/", **options)
        >>> nezha_convert.record("chnsenti/").doubts()
        ()
    """
    trained = TrainedFolder(path_of(folder))
    if changed := trained.changes():
        raise MappingError(
            f"{folder}: its metrics are of other files",
            problems=changed,
            hint="Bring them back. A model that was trained on is recorded by nezha_convert.record_training.",
        )
    found = base if base is not None else base_folder(trained)
    source = trained.record["base"]["source"]
    if found is None:
        raise MappingError(
            f"{folder}: trained from {source}, which is neither in the current folder nor beside it",
            hint=f"nezha-convert record {quoted(folder)} --base FOLDER",
        )
    origin = base_of(found, None, trained.path)
    if not is_same_base(origin, trained.record["base"]):
        raise MappingError(
            f"{found}: expected the weights of {source} from which {folder} was trained, found others",
            hint="Name the folder that it was trained from: --base FOLDER",
        )
    _write(trained.path, {**trained.record, "base": {**origin, "source": source}}, _safetensors_of(trained.path))
    return TrainedFolder(trained.path)


def _write(folder: Path, record: Mapping[str, Any], weights: list[Path]) -> None:
    try:
        _write_all(folder, record, weights)
    except OSError as error:
        raise OutputError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error})",
            hint="Make the folder writable, then record the training again.",
        ) from error


def _write_all(folder: Path, record: Mapping[str, Any], weights: list[Path]) -> None:
    """Write the files that are missing, the card, and last `record` with the hashes of all files."""
    for name, content in _missing_files(folder).items():
        replace_file(folder / name, content)
    # The last one is in folders of older versions, whose modeling_nezha.py does not load without it.
    beside = (folder / name for name in (*_BESIDE, *MODEL_FILES, "triton_nezha.py"))
    files = [recorded_file(path) for path in sorted({*weights, *filter(Path.is_file, beside)})]
    record = {**record, "output_files": files}
    card = training_card(record).encode()
    record["card"] = asdict(FileRecord(CARD, len(card), sha256(card)))
    if not _has_own_card(folder):
        replace_file(folder / CARD, card)
    replace_file(folder / TRAINED, json_bytes(record))


def _check_arguments(
    task: str,
    metrics: Mapping[str, Mapping[str, float]],
    data: tuple[TrainingData, ...],
    license: str | None,
) -> None:
    """Raises UsageError unless a record can hold the arguments."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", task):
        raise UsageError(f"task {task!r}: not one of the Hub's names", hint='It is spelt like "text-classification".')
    if license is not None and license not in LICENSES:
        raise UsageError(f"license {license!r}: the Hub does not know it", hint="Such as apache-2.0, mit, or other.")
    splits = {part.split for part in data}
    names = (*splits, *(part.name for part in data), *(name for values in metrics.values() for name in values))
    if unfit := [name for name in names if not is_name(name)]:
        raise UsageError(f"{unfit[0]!r}: not the name of a split, data set or metric; expected printable characters")
    for split, values in metrics.items():
        if split not in splits:
            raise UsageError(
                f"metrics are of {split!r}, and the data has {', '.join(sorted(splits)) or 'no split'}",
                hint=f"Add TrainingData({split!r}, NAME, files=...), or spell the split as it is there.",
            )
        if wrong := [f"{name} = {value!r}" for name, value in values.items() if not is_number(value)]:
            raise UsageError(f"metrics of {split}: {', '.join(wrong)}; expected finite numbers")
    for part in data:
        if not part.files and not HUB_DATASET.fullmatch(part.name):
            raise UsageError(
                f"data {part.name!r} ({part.split}): no files, and not the name of a data set on the Hub",
                hint="Name its files: TrainingData(split, name, files=(...,)).",
            )
        if absent := [str(path) for path in part.files if not Path(path).is_file()]:
            raise UsageError(f"data {part.name!r} ({part.split}): {', '.join(absent)} not there; expected files")


def _saved_model(folder: Path) -> tuple[str, list[Path]]:
    """The head of the trained model in `folder`, and its files of weights.

    Raises:
        MappingError: there is no model, or the folder is a converted one.
    """
    if (folder / MARK).is_file():
        raise MappingError(
            f"{folder}: {MARK} is in it: a conversion wrote this folder, and a training is recorded in its own",
            hint="Save the trained model to another folder.",
        )
    if not (folder / "config.json").is_file():
        raise MappingError(
            f"{folder}: no config.json in it; expected what save_pretrained wrote",
            hint="Save the model first: trainer.save_model(FOLDER)",
        )
    config = read_config(folder / "config.json", folder)
    architecture = architecture_of(config)
    head = head_of(architecture, config)
    if head is None:
        raise MappingError(
            f"{folder}: its config.json names {architecture!r}; expected one of "
            f"{', '.join(head.architecture for head in HEADS.values())}",
            hint="Save the model itself: trainer.save_model(FOLDER)",
        )
    return head.name, _safetensors_of(folder)


def _safetensors_of(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file() and index.is_file():  # save_pretrained leaves an older single file beside its shards
        raise MappingError(
            f"{folder}: {single.name} and {index.name} are both in it, and transformers loads the first",
            hint="Remove the one that is not of this training, or save the model to an empty folder.",
        )
    weights = list(open_checkpoint(weights_of(folder)).files)
    if weights[0].parent.resolve() != folder.resolve():  # a step of the training, in a folder below
        raise MappingError(
            f"{folder}: no checkpoint in it, only in {weights[0].parent.name}", hint="Save the model there."
        )
    if not all(path.name.endswith((".safetensors", ".safetensors.index.json")) for path in weights):
        raise MappingError(
            f"{folder}: its weights are {', '.join(path.name for path in weights)}; expected safetensors",
            hint="Save them by transformers' own default: trainer.save_model(FOLDER)",
        )
    return weights


def _missing_files(folder: Path) -> dict[str, bytes]:
    """The files that ``save_pretrained`` did not write, or wrote in a way that only its own release can load.

    Model code that is already there is the code that the training ran, so it stays.
    """
    config = read_object(folder / "config.json", {})
    files = {name: data for name, data in model_files().items() if not (folder / name).is_file()}
    files["config.json"] = json_bytes({**config, "auto_map": AUTO_MAP})
    tokenizer, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if not (tokenizer.is_file() and settings.is_file()):
        return files
    described = read_object(settings, {})
    if described.get("tokenizer_class") == "TokenizersBackend":  # transformers 5's name, unknown to version 4
        files[settings.name] = json_bytes({**described, "tokenizer_class": "PreTrainedTokenizerFast"})
    model = read_object(tokenizer, {"model": dict})["model"]
    if model.get("type") == "WordPiece" and not (folder / "vocab.txt").is_file():  # for other programs; see `export`
        files["vocab.txt"] = "".join(f"{token}\n" for token in sorted(model["vocab"], key=model["vocab"].get)).encode()
    return files


def _language(base: Mapping[str, Any]) -> str | None:
    """The language that the first conversion in the chain of bases decided."""
    if base["training"]:
        return _language(base["training"]["base"])
    decisions = (base["conversion"] or {"decisions": ()})["decisions"]
    return next((d["value"] for d in decisions if d["field"] == "language"), None)


def _settings(settings: Mapping[str, Any] | TrainingArguments) -> dict[str, Any]:
    if isinstance(settings, Mapping):
        content = dict(settings)
    else:
        arguments = {name: getattr(settings, name, None) for name in _ARGUMENTS}
        content = {name: getattr(value, "value", value) for name, value in arguments.items() if value is not None}
    try:
        json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"settings: JSON cannot hold them ({error})", hint="Give numbers, texts and lists.") from error
    return content


def _versions() -> Iterator[tuple[str, str]]:
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)


def _date_of(weights: Iterable[Path]) -> str:
    """The day, in UTC, on which the weights were saved."""
    saved = max(path.stat().st_mtime for path in weights)
    return datetime.fromtimestamp(saved, timezone.utc).date().isoformat()


def _has_own_card(folder: Path) -> bool:
    """Whether there is a README.md that this function did not write."""
    path = folder / CARD
    if not path.exists():
        return path.is_symlink()
    try:
        written = read_json(folder / TRAINED)["card"]["sha256"]
    except (OSError, ValueError, LookupError, TypeError):  # no record or a broken one: the file may be the user's
        return True
    return path.is_symlink() or sha256(path) != written
