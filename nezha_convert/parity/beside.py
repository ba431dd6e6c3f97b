"""What a conversion keeps beside the model, compared with the source; and whether every tensor is accounted for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..errors import MappingError
from ..folder.record import ConvertedFolder
from ..formats.safetensors import EXTRA
from .again.safetensors_file import read_safetensors
from .again.source import Reread

_KIND = re.compile(r"(/\d+)/\w+$")
"""The kind of a weight after its number in a layer, in Keras' files: both readers know a weight by the number."""


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
