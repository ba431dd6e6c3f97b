"""Finding a checkpoint and opening it: `FORMATS` says which reader takes which file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import NamedTuple

from ..checkpoint import Checkpoint, Contents, Decision, Origin
from ..errors import CheckpointError, NezhaConvertError, UsageError
from ..files.json import read_json
from ..files.state import leads_outside
from . import archive
from .frozen import frozen, is_frozen
from .keras.read import read_keras
from .mindspore import is_mindspore, read_mindspore
from .modules import LISTING, modules_in
from .paddle import read_paddle
from .safetensors import EXTRA, read_safetensors
from .tf_bundle.read import read_bundle
from .tf_v1 import is_table, read_v1, sharded, shards_of
from .torch.containers import is_pickle
from .torch.read import may_be_model, read_torch

__all__ = ["FORMATS", "Format", "open_checkpoint"]


class Format(NamedTuple):
    """A format that keeps whole tensors in a file.

    Attributes:
        name: what ``Checkpoint.format`` and reports call it.
        suffixes: how its files' names end.
        read: the tensors of some files by name, and the decisions that the reader made.
        sharded: whether an index (NAME.SUFFIX.index.json) may spread a checkpoint over several files.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[tuple[Path, ...]], Contents]
    sharded: bool = True


_SAFETENSORS = Format("safetensors", (".safetensors",), lambda files: Contents(read_safetensors(files)))

_TORCH = Format("torch", (".bin", ".pt", ".pth", ".ckpt"), read_torch)

_V1 = Format("tensorflow-v1", (), lambda files: Contents(read_v1(*files)), sharded=False)

FORMATS = (
    _TORCH,
    Format("paddle", (".pdparams",), read_paddle),
    Format("keras", (".h5", ".hdf5", ".weights"), lambda files: Contents(read_keras(*files)), sharded=False),
    _SAFETENSORS,
    Format("mindspore", (), lambda files: Contents(read_mindspore(*files)), sharded=False),
    _V1,
)
"""Every format but TensorFlow's bundle, whose name (a prefix) is not that of a file. To add one, add a line here."""

_TOLD = ((is_mindspore, FORMATS[-2]), (is_table, _V1))
"""Formats whose files have any name, and what tells them by their content."""

_SAVED_MODEL = "saved_model.pb"
"""Beside it, TensorFlow's SavedModel has its weights in variables/."""

_BY_SUFFIX = {suffix: format for format in FORMATS for suffix in format.suffixes}
_BUNDLE = "tensorflow-bundle"
_BUNDLE_DATA = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")
_INDEX = ".index.json"
_NO_WEIGHTS = re.compile(
    r"((training_)?args|optimizer|scheduler|scaler|rng_state|label2id|id2label|logits).*\.(bin|pt|pth|ckpt)"
)
"""Files that training programs leave beside a model."""

_COMPANIONS = (".json", ".txt", ".pbtxt")
"""How files beside the weights end: who names one means the folder. So does TensorFlow's file `checkpoint`."""

_CANONICAL = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model_state.pdparams")
"""What libraries call a model's weights, whatever lies beside them. model.safetensors may be another model's copy."""

_UNFINISHED = (".downloading", ".incomplete", ".crdownload", ".part", ".aria2")
"""How programs that download call a file until it is whole."""


class _Candidate(NamedTuple):
    """Something that could be opened: a file, an index, or a bundle's prefix. `format` is None for a bundle."""

    path: Path
    format: Format | None


def open_checkpoint(source: str | Path, part: str | None = None, average: bool = False) -> Checkpoint:
    """Open the checkpoint `source`: a folder, an archive of one, a TensorFlow prefix, or any file of a checkpoint.

    No tensor is read. An archive is unpacked to a temporary folder, which lives as long as the Checkpoint. If a folder
    holds several checkpoints, TensorFlow's ``checkpoint`` file decides; without one they are listed, not guessed.

    Args:
        source: where it is.
        part: which dictionary of tensors of a PyTorch file, by its keys joined by dots ("ema.shadow").
        average: of a PyTorch file, take the dictionary of the moving average. An average whose tensors lie among the
            model's is taken by ``understand``.

    Returns:
        The tensors' names with type, shape and how to read each; and the config, vocabulary and labels beside them.

    Raises:
        CheckpointError: there is nothing there, nothing to open, or a damaged file.
        UsageError: there are several candidates.
        OutputError: there is no room to unpack an archive.

    Example:
        >>> import nezha_convert
        >>> checkpoint = nezha_convert.open_checkpoint("NEZHA-Base")
        >>> checkpoint.entries["bert/pooler/dense/kernel"].read().shape
        (32, 32)
    """
    path = Path(source)
    if archive.is_archive(path) and not is_pickle(path):
        return _in_archive(path, part, average)
    if path.is_file() and _by_name(path) is None:
        path = _meant_by(path)
    candidate, choice = _in_folder(path) if path.is_dir() else (_by_name(path), ())
    if candidate is None:
        raise _nothing_at(path)
    checkpoint, places = _read(candidate, part, average), _beside(candidate.path)
    places = (*places, path) if path.is_dir() else places
    return replace(
        checkpoint,
        decisions=(*choice, *checkpoint.decisions),
        config=next(filter(None, (_config_in(place, checkpoint.format) for place in places)), None),
        vocab=next(filter(None, (_file(place / "vocab.txt") for place in places)), None),
        labels=next(filter(None, (_file(place / "labels.txt") for place in places)), None),
    )


def _meant_by(companion: Path) -> Path:
    """The checkpoint beside which a file lies; the file itself if it is no companion of one."""
    if companion.suffix == ".meta":  # the graph of a step
        step = companion.with_suffix("")
        return step if _by_name(step) else companion.parent
    return companion.parent if companion.suffix in _COMPANIONS or companion.name == "checkpoint" else companion


def _is_unfinished(path: Path) -> bool:
    """Whether a program still downloads `path`, or was ended while it did."""
    return path.suffix in _UNFINISHED or path.with_name(f"{path.name}.aria2").is_file()


def _nothing_at(path: Path) -> NezhaConvertError:
    """The error for a path at which there is no checkpoint."""
    if path.is_file():
        if is_frozen(path):
            return frozen(path)
        if _is_unfinished(path):
            return CheckpointError(f"{path}: a download that was not finished", hint="Download the file again.")
        what = "not a checkpoint of a known format"
    elif steps := _steps(path):
        names = ", ".join(step.name for step in steps)
        return UsageError(
            f"{path}: a prefix without its step; there are {names}", ways=tuple((str(step),) for step in steps)
        )
    else:
        what = "no such file or folder"
    return CheckpointError(
        f"{path}: {what}",
        hint=f"Name a folder, a .zip or .tar of one, a TensorFlow prefix (model.ckpt-12345), or an .index, "
        f"{_suffixes('')} file.",
    )


def _steps(prefix: Path) -> list[Path]:
    """TensorFlow's checkpoints whose names are `prefix` and a step."""
    files = (file for file in prefix.parent.glob(f"{escape(prefix.name)}-*") if file.is_file())
    found = {candidate for candidate in map(_by_name, files) if candidate}
    return sorted(path for path, format in found if format in (None, _V1))


def _read(candidate: _Candidate, part: str | None, average: bool) -> Checkpoint:
    path, format = candidate
    if part and format is not _TORCH:
        raise UsageError(f"{path}: it has no part {part!r}: only PyTorch's files have parts", hint="Leave out --part.")
    if format is None:
        bundle_files, bundle, notes = read_bundle(path)
        return Checkpoint(_BUNDLE, path, bundle_files, bundle, decisions=notes)
    is_index = path.name.endswith(_INDEX)
    files = _shards(path) if is_index else shards_of(path) if format is _V1 and not path.is_file() else (path,)
    entries, decisions, settings = read_torch(files, part, average) if format is _TORCH else format.read(files)
    files = (path, *files) if is_index else files
    extra = path.with_name(EXTRA)
    beside = read_safetensors((extra,)) if format is _SAFETENSORS and extra != path and extra.is_file() else {}
    files = (*files, extra) if beside else files
    return Checkpoint(format.name, path, files, entries, decisions=decisions, settings=settings, beside=beside)


def _by_name(path: Path, *, in_index: bool | None = None) -> _Candidate | None:
    """The checkpoint that `path` names or belongs to, if any.

    Args:
        in_index: False if the caller knows that no index names `path` as a shard; None to look for one.
    """
    if _is_unfinished(path):
        return None
    if path.name.endswith(_INDEX):
        format = _BY_SUFFIX.get(Path(path.name.removesuffix(_INDEX)).suffix, _SAFETENSORS)
        return _Candidate(path, format if format.sharded else _SAFETENSORS) if path.is_file() else None
    if match := _BUNDLE_DATA.fullmatch(path.name):
        return _Candidate(path.with_name(match[1]), None)
    if path.suffix == ".index" and path.is_file():
        return _Candidate(path.with_suffix(""), None)
    if path.with_name(path.name + ".index").is_file():
        return _Candidate(path, None)
    if path.name == _SAVED_MODEL and path.is_file():
        return _Candidate(path.parent / "variables" / "variables", None)
    if shards := sharded(path):
        return _Candidate(shards, _V1)
    told = next((format for tells, format in _TOLD if path.is_file() and tells(path)), None)
    if told:
        return _Candidate(path, told)
    if path.suffix not in _BY_SUFFIX or not path.is_file():
        return _Candidate(path, _TORCH) if is_pickle(path) else None
    for index in path.parent.glob(f"*{path.suffix}{_INDEX}") if in_index is None else ():
        if path.name in _weight_map(index).values():
            return _by_name(index)
    return _Candidate(path, _BY_SUFFIX[path.suffix])


def _beside(weights: Path) -> tuple[Path, ...]:
    """The folders in which a checkpoint's other files are looked for: its own; of a SavedModel also those above.

    TensorFlow exports into a folder that has the time, or a version, for a name.
    """
    model = weights.parent.parent
    if not (model / _SAVED_MODEL).is_file():
        return (weights.parent,)
    return (weights.parent, model, model.parent) if model.name.isdigit() else (weights.parent, model)


def _in_archive(path: Path, part: str | None, average: bool) -> Checkpoint:
    """The checkpoint in an archive, of which exactly one folder may hold any."""
    unpacked = archive.unpack(path)
    root = unpacked.path
    folders, seen = [], set[Path]()
    for folder in (root, *sorted(path for path in root.rglob("*") if path.is_dir())):
        listed = modules_in(folder.parent) if folder != root else None
        if listed and folder != listed.encoder:
            continue  # another module than the encoder
        more = _look_through(folder).candidates.keys() - seen  # a SavedModel is found from the folder above, too
        if more:
            folders.append(folder)
            seen |= more
    names = [str(folder.relative_to(root)) for folder in folders]
    if len(folders) != 1:
        what = f"checkpoints in {len(folders)} folders: {', '.join(names)}" if folders else "no checkpoint"
        kind = UsageError if folders else CheckpointError
        raise kind(f"{path}: it holds {what}", hint="Unpack it and name the folder that holds the weights.")
    where = f"folder {names[0]} of it" if folders[0] != root else "it"
    decision = Decision(
        "archive", path.name, f"unpacked to a temporary folder; the weights are in {where}", Origin.FILE
    )
    checkpoint = open_checkpoint(folders[0], part, average)
    return replace(checkpoint, decisions=(decision, *checkpoint.decisions), holder=unpacked)


class _Found(NamedTuple):
    """What is in a folder: its checkpoints, files that hold no model, and downloads that were not finished."""

    candidates: dict[Path, _Candidate]
    passed: tuple[str, ...]
    unfinished: tuple[str, ...]

    @property
    def notes(self) -> tuple[Decision, ...]:
        """What is said of files that are not read."""
        said = (
            ("passed over", self.passed, "no model in them: they are what a training program writes beside one"),
            ("unfinished", self.unfinished, "downloads that were not finished; not read"),
        )
        return tuple(Decision(field, ", ".join(names), why, Origin.FILE) for field, names, why in said if names)


def _look_through(folder: Path) -> _Found:
    """What is in `folder`. Each index is read once, because there may be thousands of shards and indexes."""
    candidates: dict[Path, _Candidate] = {}
    files = sorted(path for path in folder.iterdir() if not path.is_dir() and path.name != EXTRA)
    unfinished = [path.name for path in files if _is_unfinished(path)]
    passed = [path.name for path in files if _NO_WEIGHTS.fullmatch(path.name)]
    paths = [path for path in files if path.name not in (*passed, *unfinished)]
    paths += sorted(folder.glob(f"*/{_SAVED_MODEL}"))
    shards = {
        (Path(path.name.removesuffix(_INDEX)).suffix, name)
        for path in paths
        if path.name.endswith(_INDEX)
        for name in _weight_map(path).values()
    }
    for path in paths:
        candidate = None if (path.suffix, path.name) in shards else _by_name(path, in_index=False)
        if candidate:
            candidates[candidate.path] = candidate
    if len(candidates) > 1:
        empty = {path for path, candidate in candidates.items() if candidate.format is _TORCH and not _may_be(path)}
        if len(empty) < len(candidates):
            passed += [path.name for path in empty]
            candidates = {path: candidate for path, candidate in candidates.items() if path not in empty}
    return _Found(candidates, tuple(sorted(passed)), tuple(unfinished))


def _may_be(path: Path) -> bool:
    """Whether a candidate of PyTorch's may hold a model. Of shards, the reader says what is wrong."""
    return path.name.endswith(_INDEX) or may_be_model(path)


def _in_folder(folder: Path) -> tuple[_Candidate, tuple[Decision, ...]]:
    """The checkpoint in `folder`, and what was decided to find it."""
    if (modules := modules_in(folder)) and modules.encoder != folder and modules.encoder.is_dir():
        candidate, choice = _in_folder(modules.encoder)
        reason = f"{LISTING} names it as the encoder"
        return candidate, (Decision("folder", modules.encoder.name, reason, Origin.FILE), *choice)
    found = _look_through(folder)
    if not found.candidates:
        return _below(folder, found)
    candidate, choice = _chosen(folder, found.candidates)
    return candidate, (*choice, *found.notes)


def _below(folder: Path, found: _Found) -> tuple[_Candidate, tuple[Decision, ...]]:
    """The checkpoint of the only folder in `folder` that holds any."""
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir() and _look_through(path).candidates]
    if len(folders) > 1:
        names, ways = ", ".join(path.name for path in folders), tuple((str(path),) for path in folders)
        raise UsageError(f"{folder}: {len(folders)} folders in it hold checkpoints: {names}", ways=ways)
    if folders:
        candidate, choice = _in_folder(folders[0])
        reason = "the only folder there that holds a checkpoint"
        return candidate, (Decision("folder", folders[0].name, reason, Origin.FILE), *choice, *found.notes)
    if found.unfinished:
        raise CheckpointError(
            f"{folder}: no checkpoint in it; the download of {', '.join(found.unfinished[:8])} was not finished",
            hint="Download the file again.",
        )
    if graphs := [path for path in sorted(folder.glob("*.pb")) if path.is_file() and is_frozen(path)]:
        raise frozen(graphs[0])
    listing = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
    raise CheckpointError(
        f"{folder}: no checkpoint in it: expected PREFIX.index with PREFIX.data-*, {_suffixes('*')}, "
        f"found {listing or 'nothing at all'}",
        hint="Name the folder that holds the weights.",
    )


def _chosen(folder: Path, candidates: Mapping[Path, _Candidate]) -> tuple[_Candidate, tuple[Decision, ...]]:
    """The one of `candidates` that is meant, and why."""
    latest = _latest(folder)
    others = ", ".join(path.name for path in candidates if path != latest)
    if latest and latest in candidates:
        reason = f"the file checkpoint names it as the latest; beside it: {others}"
        return candidates[latest], (Decision("step", latest.name, reason, Origin.FILE),) if others else ()
    usual = [path for path in candidates if path.name in _CANONICAL]
    if len(candidates) > 1 and len(usual) == 1 and all(c.format is _TORCH for c in candidates.values()):
        others = ", ".join(path.name for path in candidates if path != usual[0])
        reason = f"the usual name of a model's weights; beside it: {others}"
        return candidates[usual[0]], (Decision("file", usual[0].name, reason, Origin.FILE),)
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates)
        ways = tuple((str(path),) for path in candidates)
        raise UsageError(f"{folder}: it holds {len(candidates)} checkpoints: {names}", ways=ways)
    return next(iter(candidates.values())), ()


def _latest(folder: Path) -> Path | None:
    """The prefix that TensorFlow's ``checkpoint`` file names. Its folder is ignored: it may be another machine's."""
    pointer = _file(folder / "checkpoint")
    if pointer is None:
        return None
    match = re.search(r'^model_checkpoint_path:\s*"(.+)"', pointer.read_text("utf-8", "replace"), re.MULTILINE)
    return folder / re.split(r"[/\\]", match[1])[-1] if match else None


def _suffixes(before: str) -> str:
    """All suffixes for a message, each with `before` in front of it."""
    *first, last = (before + suffix for suffix in _BY_SUFFIX)
    return f"{', '.join(first)} or {last}"


def _weight_map(index: Path) -> dict[str, str]:
    """The shard of each tensor, as `index` has them."""
    try:
        weight_map: dict[str, str] = read_json(index)["weight_map"]
        if not all(isinstance(name, str) for name in weight_map.values()):
            raise TypeError("weight_map holds something else than file names")
        if not weight_map:
            raise ValueError("it names no shard")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: not an index of shards ({type(error).__name__}: {error})") from error
    return weight_map


def _shards(index: Path) -> tuple[Path, ...]:
    """The shards that `index` names. All of them must lie in its own folder."""
    names = sorted(set(_weight_map(index).values()))
    for name in names:
        if name != Path(name).name or name in (".", ".."):
            raise CheckpointError(f"{index}: shard {name!r} lies outside of its folder; refused")
        if len(name.encode()) > 255 or not (index.parent / name).is_file():  # is_file fails for longer names
            raise CheckpointError(f"{index}: shard {name!r} is not there", hint="Copy the missing shard beside it.")
        if leads_outside(index.parent / name):
            raise CheckpointError(f"{index}: shard {name!r} is a link out of its folder; refused")
    return tuple(index.parent / name for name in names)


def _file(path: Path) -> Path | None:
    return path if path.is_file() else None


def _config_in(folder: Path, format: str) -> Path | None:
    """The model's config in `folder`.

    This is bert_config.json, config.json, PaddleNLP's older model_config.json, or the only other file that is called
    *config*.json. Beside weights that are not TensorFlow's, transformers' config.json comes before Huawei's.
    """
    names = ["bert_config.json", "config.json", "model_config.json"]
    if not format.startswith("tensorflow") and _saved_by_transformers(folder / "config.json"):
        names.insert(0, "config.json")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("*config*.json"))
    others = [path for path in others if not path.name.startswith(("tokenizer", "generation"))]
    return others[0] if len(others) == 1 else None


def _saved_by_transformers(config: Path) -> bool:
    try:
        raw = read_json(config)
    except (OSError, ValueError):
        return False  # the code that reads the config later reports what is wrong with it
    return isinstance(raw, dict) and bool({"architectures", "model_type"} & raw.keys())
