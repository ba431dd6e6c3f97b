"""Finding and opening a checkpoint: one file a format, `open_checkpoint` says which."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..checkpoint import Checkpoint, Decision, Origin, leads_outside
from ..errors import CheckpointError, UsageError
from ..files.json import read_json
from . import archive
from .keras import read as keras_h5
from .paddle import read as paddle
from .safetensors import read as safetensors
from .tf_bundle import read as tf_bundle
from .torch import read as torch_pickle

__all__ = ["open_checkpoint"]

_BUNDLE_DATA = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")
_TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
_KERAS_SUFFIXES = (".h5", ".hdf5", ".weights")
_NO_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state).*\.(bin|pt|pth|ckpt)")
"""Files that transformers' Trainer leaves beside a model."""

_HINT = "Name one of them: nezha-convert inspect FOLDER/NAME"


class _Candidate(NamedTuple):
    """Something in a folder that could be opened: its path and its reader."""

    path: Path
    read: Callable[[Path], Checkpoint]


def open_checkpoint(source: str | Path) -> Checkpoint:
    """Open the checkpoint `source`: a folder, an archive of one, a TensorFlow prefix, or any file of a checkpoint.

    No tensor is read. An archive is unpacked to a temporary folder, which lives as long as the Checkpoint. In a folder
    that holds several checkpoints, TensorFlow's ``checkpoint`` file decides; otherwise they are listed, not guessed.

    Raises:
        CheckpointError: nothing there, nothing to open, or a damaged file.
        UsageError: several candidates.
        OutputError: no room to unpack an archive.
    """
    path = Path(source)
    if archive.is_archive(path):
        return _in_archive(path)
    if path.is_dir():
        candidate = _in_folder(path)
    elif (named := _by_name(path)) is not None:
        candidate = named
    else:
        raise CheckpointError(
            f"{path}: {'not a checkpoint that is known here' if path.is_file() else 'no such file or folder'}",
            hint="SOURCE is a folder, a .zip or .tar of one, a TensorFlow prefix (model.ckpt-12345), or an .index, "
            ".bin, .pt, .pth, .ckpt, .pdparams, .h5, .hdf5, .weights or .safetensors file.",
        )
    checkpoint, folder = candidate.read(candidate.path), candidate.path.parent
    return replace(
        checkpoint,
        config=_config_in(folder, checkpoint.format),
        vocab=_file(folder / "vocab.txt"),
        labels=_file(folder / "labels.txt"),
    )


def _by_name(path: Path, *, alone: bool = False) -> _Candidate | None:
    """What `path` names, if it names a checkpoint or a file of one; `alone`: it is known to be no shard of an index."""
    if path.name.endswith(".index.json"):
        read = _SHARDED.get(Path(path.name.removesuffix(".index.json")).suffix, _safetensors)
        return _Candidate(path, read) if path.is_file() else None
    shard = _BUNDLE_DATA.fullmatch(path.name)
    if shard:
        return _Candidate(path.with_name(shard[1]), _bundle)
    if path.suffix == ".index" and path.is_file():
        return _Candidate(path.with_suffix(""), _bundle)
    if path.with_name(path.name + ".index").is_file():
        return _Candidate(path, _bundle)
    if path.suffix in _SINGLE:
        if not path.is_file():
            return None
        for index in () if alone else path.parent.glob(f"*{path.suffix}.index.json"):
            if path.name in _weight_map(index).values():
                return _by_name(index)
        return _Candidate(path, _SINGLE[path.suffix])
    return None


def _in_archive(path: Path) -> Checkpoint:
    """The checkpoint in the only folder of an archive that holds one."""
    unpacked = archive.unpack(path)
    root = unpacked.path
    folders = [folder for folder in (root, *sorted(root.rglob("*"))) if folder.is_dir() and _candidates(folder)]
    names = [str(folder.relative_to(root)) for folder in folders]
    if len(folders) != 1:
        what = f"checkpoints in {len(folders)} folders: {', '.join(names)}" if folders else "no checkpoint"
        kind = UsageError if folders else CheckpointError
        raise kind(f"{path}: it holds {what}", hint="Unpack it and name the folder that holds the weights.")
    where = f"folder {names[0]} of it" if folders[0] != root else "it"
    decision = Decision(
        "archive", path.name, f"unpacked to a temporary folder; the weights are in {where}", Origin.FILE
    )
    checkpoint = open_checkpoint(folders[0])
    return replace(checkpoint, decisions=(decision, *checkpoint.decisions), holder=unpacked)


def _candidates(folder: Path) -> dict[Path, _Candidate]:
    """What `folder` holds. Indexes of shards are read once each: there may be thousands of both."""
    found: dict[Path, _Candidate] = {}
    paths = sorted(path for path in folder.iterdir() if not _NO_WEIGHTS.fullmatch(path.name) and not path.is_dir())
    indexes = [path for path in paths if path.name.endswith(".index.json")]
    shards = {
        (Path(i.name.removesuffix(".index.json")).suffix, name) for i in indexes for name in _weight_map(i).values()
    }
    for path in paths:
        candidate = None if (path.suffix, path.name) in shards else _by_name(path, alone=True)
        if candidate:
            found[candidate.path] = candidate
    return found


def _in_folder(folder: Path) -> _Candidate:
    found = _candidates(folder)
    if not found:
        listing = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
        raise CheckpointError(
            f"{folder}: no checkpoint in it: expected PREFIX.index with PREFIX.data-*, *.bin, *.pt, *.pth, "
            f"*.ckpt, *.pdparams, *.h5, *.hdf5, *.weights or *.safetensors, found {listing or 'nothing at all'}",
            hint="Name the folder that holds the weights.",
        )
    latest = _latest(folder)
    if latest in found:
        return found[latest]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UsageError(f"{folder}: it holds {len(found)} checkpoints: {names}", hint=_HINT)
    return next(iter(found.values()))


def _latest(folder: Path) -> Path | None:
    """The prefix that TensorFlow's ``checkpoint`` file names, by its last part: the path is of another machine."""
    pointer = _file(folder / "checkpoint")
    if pointer is None:
        return None
    named = re.search(r'^model_checkpoint_path:\s*"(.+)"', pointer.read_text("utf-8", "replace"), re.MULTILINE)
    return folder / re.split(r"[/\\]", named[1])[-1] if named else None


def _bundle(path: Path) -> Checkpoint:
    return Checkpoint(tf_bundle.FORMAT, path, *tf_bundle.read_bundle(path))


def _files(path: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The files of tensors that `path` is or names, and all files of the checkpoint."""
    if not path.name.endswith(".index.json"):
        return (path,), (path,)
    shards = _shards(path)
    return shards, (path, *shards)


def _safetensors(path: Path) -> Checkpoint:
    files, every = _files(path)
    return Checkpoint(safetensors.FORMAT, path, every, safetensors.read_safetensors(files))


def _torch(path: Path) -> Checkpoint:
    files, every = _files(path)
    entries, decisions = torch_pickle.read_torch(files)
    return Checkpoint(torch_pickle.FORMAT, path, every, entries, decisions=decisions)


def _paddle(path: Path) -> Checkpoint:
    files, every = _files(path)
    entries, decisions = paddle.read_paddle(files)
    return Checkpoint(paddle.FORMAT, path, every, entries, decisions=decisions)


def _keras(path: Path) -> Checkpoint:
    return Checkpoint(keras_h5.FORMAT, path, (path,), keras_h5.read_keras(path))


_SHARDED = {".safetensors": _safetensors, ".pdparams": _paddle, **dict.fromkeys(_TORCH_SUFFIXES, _torch)}
_SINGLE = {**_SHARDED, **dict.fromkeys(_KERAS_SUFFIXES, _keras)}
"""The readers of the shards of an index, and of single files, by the file's suffix."""


def _weight_map(index: Path) -> dict[str, str]:
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
    """The shards that `index` names, all of them in its own folder."""
    names = sorted(set(_weight_map(index).values()))
    for name in names:
        if name != Path(name).name or name in (".", ".."):
            raise CheckpointError(f"{index}: shard {name!r} lies outside of its folder; refused")
        if len(name.encode()) > 255 or not (index.parent / name).is_file():  # is_file raises at longer names
            raise CheckpointError(f"{index}: shard {name!r} is not there", hint="Copy the missing shard beside it.")
        if leads_outside(index.parent / name):
            raise CheckpointError(f"{index}: shard {name!r} is a link out of its folder; refused")
    return tuple(index.parent / name for name in names)


def _file(path: Path) -> Path | None:
    return path if path.is_file() else None


def _config_in(folder: Path, format: str) -> Path | None:
    """bert_config.json, config.json, PaddleNLP's older model_config.json, or the only other JSON so called.

    Beside weights that are not TensorFlow's, a config.json of transformers goes before Huawei's.
    """
    names = ["bert_config.json", "config.json", "model_config.json"]
    if format != tf_bundle.FORMAT and _saved_by_transformers(folder / "config.json"):
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
        return False  # whoever reads it next says what is wrong with it
    return isinstance(raw, dict) and bool({"architectures", "model_type"} & raw.keys())
