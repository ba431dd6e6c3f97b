"""Which files are the source: known by their content, their names and the names that the conversion recorded."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import CheckpointError, UsageError
from ...files.locks import TemporaryFolder
from ...formats import archive
from .table import MAGIC

BUNDLE, TORCH, SAFETENSORS, PADDLE, KERAS = "bundle", "torch", "safetensors", "paddle", "keras"
EXTRA = "extra.safetensors"
"""What a conversion kept beside a model, when its folder is converted again."""

V1, MINDSPORE = "tensorflow-v1", "mindspore"

_OLD_PICKLE = re.compile(rb"\(dp\d+\n|\}q|c[\w.]+\n\w+\n(p\d+\n|q)")
"""How pickles of protocols 0 and 1 begin: a dictionary or a class. They end with a full stop."""

_OLD_LEGACY = b"L119547037146038801333356L\n."
"""How PyTorch's files before 1.6 begin in protocol 1: a pickle of their magic number."""

_TAR_OF_TORCH = (b"sys_info", b"pickle", b"tensors", b"storages")
"""The members of PyTorch's tar files (up to 0.1.10), in any order."""

_MINDSPORE = re.compile(
    rb"\n[\x80-\xff]*[\x00-\x7f]\n[\x80-\xff]?[\x00-\x7f][ -~]+\x12[\x80-\xff]*[\x00-\x7f][\x08\x12]", re.DOTALL
)
"""How MindSpore's begin: a message (its length), a name in it (its length), and a tensor: dims or a type."""


_NUMBERED = re.compile(r"(.+)-(\d{5})-of-(\d{5})")
"""A shard of a checkpoint of TensorFlow's first format."""


@dataclass(frozen=True, slots=True)
class Files:
    """A source on the disk.

    Attributes:
        kind: one of the seven above.
        path: the bundle's prefix, the index of the shards, what TensorFlow calls all of its shards, or the file.
        files: every file that belongs to it.
        weights: those that hold tensors.
        holder: what must live as long as the files are needed, of an archive.
        named: the folder that the user named, where the checkpoint lies in one below.
    """

    kind: str
    path: Path
    files: tuple[Path, ...]
    weights: tuple[Path, ...]
    holder: TemporaryFolder | None = None
    named: Path | None = None

    @property
    def prefix(self) -> Path:
        """What a user of TensorFlow calls it, of several files."""
        return self.path.with_name(self.path.name.split("-?????-of-")[0])

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where the files beside it are: in its folder, in the one named, and above that of TensorFlow's SavedModel."""
        own, model = self.path.parent, self.path.parent.parent
        above: tuple[Path, ...] = ()
        if (model / "saved_model.pb").is_file():
            above = (model, model.parent) if re.fullmatch(r"\d+", model.name) else (model,)
        return (own, *above, *filter(None, (self.named,)))


def find_files(source: Path, recorded: Collection[str]) -> Files:
    """The files of the checkpoint `source`: a folder, an archive of one, a bundle's prefix, or any file of it.

    Args:
        recorded: the names of the files that were converted, which tell which of several in a folder is meant.

    Raises:
        CheckpointError: there is nothing that can be read.
        UsageError: several checkpoints have the names that were recorded.
    """
    holder = None
    if source.is_file() and (source.suffix in (".meta", ".txt", ".json") or source.name == "checkpoint"):
        source = source if source.name.endswith(".index.json") else source.parent
    folder = source if source.is_dir() else source.parent
    found: list[Files] = []
    if archive.is_archive(source) and _kind(source) is None:
        holder = archive.unpack(source)
        for folder in (holder.path, *sorted(path for path in holder.path.rglob("*") if path.is_dir())):
            found += _checkpoints(folder) if _is_encoder(folder) else ()
    elif folder.is_dir():
        found = list(_checkpoints(folder))
        for model in folder.glob("saved_model.pb"), folder.glob("*/saved_model.pb"):
            found += [one for file in model for one in _checkpoints(file.with_name("variables"))]
        if not found and source.is_dir():  # a checkpoint in a folder of its own means that
            folders = [below for below in sorted(source.iterdir()) if below.is_dir() and _is_encoder(below)]
            found = [one for below in folders for one in _checkpoints(below)]
    if not source.is_dir() and holder is None and source.name != "saved_model.pb":
        found = [one for one in found if source in (one.path, *one.files) or one.prefix == source]
    meant = [one for one in found if one.path == _pointed_at(folder)]
    meant = meant or [one for one in found if {file.name for file in one.files} <= set(recorded)] or found[:1]
    if not meant:
        if not source.exists():
            raise CheckpointError(f"{source}: no such file or folder", hint="Name what was converted.")
        raise CheckpointError(
            f"{source}: no checkpoint in it that can be read a second time", hint="nezha-convert inspect SOURCE"
        )
    if len(meant) > 1:
        names = ", ".join(str(one.path) for one in meant)
        raise UsageError(f"{source}: {len(meant)} checkpoints are there: {names}", hint="Name one of them.")
    named = source if source.is_dir() else None
    return Files(meant[0].kind, meant[0].path, meant[0].files, meant[0].weights, holder, named)


def _is_encoder(folder: Path) -> bool:
    """Whether `folder` may hold the model: no list above it names it as another module than the first."""
    try:
        listed = json.loads((folder.parent / "modules.json").read_bytes())
        return folder.name not in [module["path"] for module in listed[1:]]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return True


def find_config(files: Files) -> Path | None:
    """The JSON that the program reads: transformers and Paddle read config.json, Huawei's scripts bert_config.json."""
    return next(filter(None, (_config_in(folder, files.kind) for folder in files.folders)), None)


def _config_in(folder: Path, kind: str) -> Path | None:
    names = ["bert_config.json", "config.json", "model_config.json"]
    if kind not in (BUNDLE, V1) and _is_transformers(folder / "config.json"):
        names.insert(0, "config.json")
    others = [
        path.name
        for path in folder.glob("*config*.json")
        if path.name not in names and not path.name.startswith(("tokenizer", "generation"))
    ]
    names += others if len(others) == 1 else []
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _is_transformers(path: Path) -> bool:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and ("model_type" in content or "architectures" in content)


def _checkpoints(folder: Path) -> Iterator[Files]:
    """Every checkpoint in `folder`, by its content."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    sharded: set[Path] = set()
    for path in files:
        if path.name.endswith(".index.json"):
            shards = _shards(path)
            sharded |= set(shards)
            if shards and (kind := _kind(shards[0])):
                yield Files(kind, path, (path, *shards), shards)
        elif path.suffix == ".index":
            prefix = path.with_suffix("")
            data = re.compile(re.escape(prefix.name) + r"\.data-\d{5}-of-\d{5}")
            weights = tuple(other for other in files if data.fullmatch(other.name))
            yield Files(BUNDLE, prefix, (path, *weights), weights)
    for one in _sharded_tables(files):
        sharded |= set(one.files)
        yield one
    for path in files:
        if path not in sharded and path.name != EXTRA and (kind := _kind(path)):
            yield Files(kind, path, (path,), (path,))


def _sharded_tables(files: list[Path]) -> Iterator[Files]:
    """The whole ones of the first format's sharded checkpoints."""
    found: dict[Path, list[Path]] = {}
    for path in files:
        if (match := _NUMBERED.fullmatch(path.name)) and _kind(path) == V1:
            found.setdefault(path.with_name(f"{match[1]}-?????-of-{match[3]}"), []).append(path)
    for path, shards in found.items():
        if len(shards) == int(path.name[-5:]):
            yield Files(V1, path, tuple(shards), tuple(shards))


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
        return tuple(index.with_name(name) for name in sorted(names) if Path(name).name == name)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ()


def _kind(path: Path) -> str | None:
    """What a file holds, by its first bytes; None for what is no checkpoint."""
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        head = file.read(512)
    if head.startswith(b"PK\x03\x04"):
        return TORCH if _is_torch_zip(path) else None
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return KERAS
    is_tar = head[257:262] == b"ustar" and head[:100].rstrip(b"\0") in _TAR_OF_TORCH
    is_new = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    is_old = head.startswith(_OLD_LEGACY) or (_OLD_PICKLE.match(head) and _end(path, 1) == b".")
    if is_tar or is_new or is_old:
        return PADDLE if path.suffix == ".pdparams" else TORCH
    if path.suffix == ".safetensors":
        return SAFETENSORS
    if path.suffix != ".index" and _end(path, len(MAGIC)) == MAGIC:
        return V1
    return MINDSPORE if _MINDSPORE.match(head) else None


def _end(path: Path, length: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - length))
        return file.read()


def _is_torch_zip(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as opened:
            return any(name.split("/")[-1] == "data.pkl" for name in opened.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def _pointed_at(folder: Path) -> Path | None:
    """The bundle that TensorFlow's file `checkpoint` names as the latest; its folder may be another machine's."""
    pointer = folder / "checkpoint"
    if not pointer.is_file():
        return None
    for line in pointer.read_text("utf-8", "replace").splitlines():
        if line.startswith("model_checkpoint_path:") and line.count('"') >= 2:
            return folder / line.split('"')[1].replace("\\", "/").split("/")[-1]
    return None
