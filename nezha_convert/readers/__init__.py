"""Finding and opening a checkpoint: one file a format, `open_checkpoint` says which."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..errors import CheckpointError, UsageError
from ..strict_json import read_json
from ..tensors import Checkpoint, TensorEntry, leads_outside
from . import safetensors, tf_bundle, torch_pickle

__all__ = ["open_checkpoint"]

_BUNDLE_DATA = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")
_TORCH_SUFFIXES = (".bin", ".pt", ".pth")
_NO_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state).*\.(bin|pt|pth)")
"""Files that transformers' Trainer leaves beside a model."""

_HINT = "Name one of them: nezha-convert inspect FOLDER/NAME"


class _Candidate(NamedTuple):
    """Something in a folder that could be opened: its path and its reader."""

    path: Path
    read: Callable[[Path], tuple[str, tuple[Path, ...], dict[str, TensorEntry]]]


def open_checkpoint(source: str | Path) -> Checkpoint:
    """Open the checkpoint `source`: a folder, a TensorFlow prefix, or any one of a checkpoint's files.

    No tensor is read. In a folder that holds several checkpoints, TensorFlow's own ``checkpoint`` file decides;
    otherwise they are listed, not guessed.

    Raises:
        CheckpointError: nothing there, nothing to open, or a damaged file.
        UsageError: several candidates.
    """
    path = Path(source)
    if path.is_dir():
        candidate = _in_folder(path)
    elif (named := _by_name(path)) is not None:
        candidate = named
    else:
        raise CheckpointError(
            f"{path}: {'not a checkpoint that is known here' if path.is_file() else 'no such file or folder'}",
            hint="SOURCE is a folder, a TensorFlow prefix (model.ckpt-12345), or an .index, .bin, .pt, .pth or "
            ".safetensors file.",
        )
    format, files, entries = candidate.read(candidate.path)
    folder = candidate.path.parent
    return Checkpoint(
        format,
        candidate.path,
        files,
        entries,
        config=_config_in(folder, format),
        vocab=_file(folder / "vocab.txt"),
        labels=_file(folder / "labels.txt"),
    )


def _by_name(path: Path) -> _Candidate | None:
    """What `path` names, if it names a checkpoint or a file of one."""
    if path.name.endswith(".index.json"):
        torch = any(path.name.endswith(f"{suffix}.index.json") for suffix in _TORCH_SUFFIXES)
        return _Candidate(path, _sharded_torch if torch else _sharded_safetensors) if path.is_file() else None
    shard = _BUNDLE_DATA.fullmatch(path.name)
    if shard:
        return _Candidate(path.with_name(shard[1]), _bundle)
    if path.suffix == ".index" and path.is_file():
        return _Candidate(path.with_suffix(""), _bundle)
    if path.with_name(path.name + ".index").is_file():
        return _Candidate(path, _bundle)
    if path.suffix == ".safetensors" or path.suffix in _TORCH_SUFFIXES:
        if not path.is_file():
            return None
        for index in path.parent.glob(f"*{path.suffix}.index.json"):
            if path.name in _weight_map(index).values():
                return _by_name(index)
        return _Candidate(path, _single_safetensors if path.suffix == ".safetensors" else _single_torch)
    return None


def _in_folder(folder: Path) -> _Candidate:
    found: dict[Path, _Candidate] = {}
    for path in sorted(folder.iterdir()):
        candidate = None if _NO_WEIGHTS.fullmatch(path.name) or path.is_dir() else _by_name(path)
        if candidate:
            found[candidate.path] = candidate
    if not found:
        listing = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
        raise CheckpointError(
            f"{folder}: no checkpoint in it: expected PREFIX.index with PREFIX.data-*, *.bin, *.pt, *.pth or "
            f"*.safetensors, found {listing or 'nothing at all'}",
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


def _bundle(path: Path) -> tuple[str, tuple[Path, ...], dict[str, TensorEntry]]:
    return tf_bundle.FORMAT, *tf_bundle.read_bundle(path)


def _single_safetensors(path: Path) -> tuple[str, tuple[Path, ...], dict[str, TensorEntry]]:
    return safetensors.FORMAT, (path,), safetensors.read_safetensors((path,))


def _sharded_safetensors(path: Path) -> tuple[str, tuple[Path, ...], dict[str, TensorEntry]]:
    shards = _shards(path)
    return safetensors.FORMAT, (path, *shards), safetensors.read_safetensors(shards)


def _single_torch(path: Path) -> tuple[str, tuple[Path, ...], dict[str, TensorEntry]]:
    return torch_pickle.FORMAT, (path,), torch_pickle.read_torch((path,))


def _sharded_torch(path: Path) -> tuple[str, tuple[Path, ...], dict[str, TensorEntry]]:
    shards = _shards(path)
    return torch_pickle.FORMAT, (path, *shards), torch_pickle.read_torch(shards)


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
    """bert_config.json, config.json, or the only other JSON whose name says config.

    Beside weights that are not TensorFlow's, a config.json of transformers goes before Huawei's.
    """
    names = ["bert_config.json", "config.json"]
    if format != tf_bundle.FORMAT and _saved_by_transformers(folder / "config.json"):
        names.reverse()
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
