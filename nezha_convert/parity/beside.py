"""What a conversion keeps beside the model, compared with the source; and whether every tensor is accounted for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import MappingError
from ..folder.record import ConvertedFolder
from ..formats.safetensors import EXTRA
from .again.safetensors_file import as_array, read_safetensors
from .again.source import Reread

_LISTING = "modules.json"

_KIND = re.compile(r"(/\d+)/\w+$")
"""The kind of a weight after its number in a layer, in Keras' files: both readers know a weight by the number."""


def _compare_modules(folder: ConvertedFolder, encoder: Path) -> Iterator[str]:
    """Why sentence-transformers' modules beside the model are not those of the source, in words.

    Args:
        encoder: the folder of the source's encoder. The list of the modules lies in it, or above it.

    Raises:
        MappingError: a list of modules cannot be read.
    """
    root = next((path for path in (encoder, encoder.parent) if (path / _LISTING).is_file()), None)
    mine = _listed(folder.path)
    theirs = _listed(root) if root else []
    if root is None or (root / theirs[0]["path"]).resolve() != encoder.resolve():
        theirs = []
    if any(not module["type"].startswith("sentence_transformers.") for module in theirs):
        theirs = []  # code of its own, which is not kept
    if [one["type"] for one in mine] != [one["type"] for one in theirs] or mine[1:] != theirs[1:]:
        yield f"{_LISTING}: {[one['type'] for one in mine]}; the source has {[one['type'] for one in theirs]}"
        return
    for module in theirs[1:] if root else ():
        for path in sorted((root / module["path"]).rglob("*")):
            name = path.relative_to(root).as_posix()
            kept = path.suffix in (".json", ".txt", ".safetensors") or path.name == "pytorch_model.bin"
            if kept and not _is_kept(path, folder.path / name):
                yield f"{name} is not the source's"


def _listed(folder: Path) -> list[dict[str, Any]]:
    path = folder / _LISTING
    try:
        modules = json.loads(path.read_bytes()) if path.is_file() else []
        return [{key: module[key] for key in ("type", "path")} for module in modules]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise MappingError(f"{path}: no list of modules ({error!r})", hint="Convert again.") from error


def _is_kept(theirs: Path, mine: Path) -> bool:
    """Whether a file of a module is the same; of a pickle of tensors, whether safetensors holds the same."""
    if mine.is_file():
        return mine.read_bytes() == theirs.read_bytes()
    import torch

    mine = mine.with_name("model.safetensors")
    if theirs.name != "pytorch_model.bin" or not mine.is_file():
        return False
    one = {name: tensor.read() for name, tensor in read_safetensors(mine).items()}
    other = {name: as_array(tensor) for name, tensor in torch.load(theirs, weights_only=True).items()}
    return {n: (a.dtype, a.shape, a.tobytes()) for n, a in one.items()} == {
        n: (a.dtype, a.shape, a.tobytes()) for n, a in other.items()
    }


def compare_extras(folder: ConvertedFolder, source: Reread) -> Iterator[str]:
    """Why what lies beside the model is not what the source has, in words.

    Raises:
        MappingError: the record names tensors beside the model, and there is no file of them.
    """
    record, path = folder.record, folder.path / EXTRA
    kept = {tensor["target"]: tensor.get("source", tensor["target"]) for tensor in record.get("kept") or ()}
    if kept and not path.is_file():
        raise MappingError(f"{path}: missing; {len(kept)} tensors were written to it", hint="Convert again.")
    beside = read_safetensors(path) if kept else {}
    for name in sorted(kept.keys() | beside.keys()):
        own = kept.get(name, name)
        original = source.everything.get(own) or source.everything.get(_KIND.sub(r"\1", own))
        if name not in beside or not original:
            yield f"{name} is not in {'the source' if name in beside else EXTRA}"
            continue
        mine, theirs = beside[name].read(), original.read()
        if (mine.dtype, mine.shape, mine.tobytes()) != (theirs.dtype, theirs.shape, theirs.tobytes()):
            yield f"{EXTRA}: {name} is not the source's tensor"
    known = {tensor["source"] for tensor in (*record["written"], *(record.get("kept") or ()))}
    known |= {tensor["name"] for tensor in record["dropped"]}
    known |= {_KIND.sub(r"\1", name) for name in known}
    for name in sorted(source.everything.keys() - known):
        yield f"{name} of the source is neither in the model, nor beside it, nor left out for a reason"
    yield from _compare_modules(folder, source.path.parent)
