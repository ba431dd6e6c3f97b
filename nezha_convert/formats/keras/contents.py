"""Lists the tensors of Keras' HDF5 file: names, types, shapes and places. `read.py` runs this in a separate process.

HDF5's library is written in C and is not safe with strangers' files: within a minute, fuzzing finds files that make it
free memory that it does not own. In a separate process it may crash, hang or fill its memory without any harm.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, takewhile
from math import prod
from pathlib import Path
from typing import Any

from ...errors import CheckpointError

Placed = tuple[str, tuple[int, ...], int]
"""A tensor's place: NumPy's code of its type ("<f4") or "bfloat16", its shape, and its offset in the file."""

Listed = tuple[str, str, tuple[int, ...], int]
"""A tensor's name and its place."""

MAX_MEMORY = 1 << 30
"""Bytes of memory that this process may use, with h5py and NumPy. It reads no tensor."""

_MAX_DEPTH = 12
"""How deep groups may be nested. Keras needs six levels for a layer within a layer."""

_MODERN = ("layers", "_layer_checkpoint_dependencies")
"""The name of the group of all layers in the newer layout; the second is that of tf.keras 2.12 and 2.13."""

_REPACK = "Store it plainly: h5repack -f NONE -l CONTI FILE NEWFILE; or save the weights once more by Keras."


def main(file: str, seconds: float) -> None:
    """Print `contents(file)`, within limits of memory and of CPU time."""
    import h5py  # noqa: F401  (before the limits are set: loading it must not count)

    if sys.platform != "win32":
        import resource

        for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_DATA, MAX_MEMORY)):
            resource.setrlimit(limit, (value, resource.getrlimit(limit)[1]))
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF ends the process after this much CPU time
    sys.stdout.write(contents(Path(file)))


def contents(file: Path) -> str:
    """A JSON object with ``tensors``, a list of `Listed`, or with ``refused``, a message and a hint."""
    import h5py

    try:
        with h5py.File(file, "r", locking=False) as root:
            return json.dumps({"tensors": _Reader(file, file.stat().st_size, h5py).listed(root)})
    except CheckpointError as error:
        refused = [error.message, error.hint]
    except Exception as error:  # for corrupt files, h5py raises errors of many unrelated types
        refused = [
            f"{file}: cannot be read as an HDF5 file ({type(error).__name__}: {str(error)[:1000].split(chr(10))[0]})",
            "",
        ]
    return json.dumps({"refused": refused})


class _Reader:
    """One open file of `size` bytes, which bounds what the file may claim."""

    def __init__(self, file: Path, size: int, h5py: Any) -> None:
        self.file, self.size, self.h5py = file, size, h5py

    def listed(self, root: Any) -> list[Listed]:
        if root.userblock_size:
            raise CheckpointError(f"{self.file}: {root.userblock_size} bytes of another format stand before its data")
        names = {name.decode(): root.id.links.get_info(name) for name in root.id}
        if any(name in names for name in _MODERN):
            return self._modern(root)
        tensors: list[tuple[str, str, Placed]] = []
        whole = "model_weights" in names
        model = self._at(root, "model_weights") if whole else root
        for layer in self._listed(model, "layer_names"):
            tensors += self._weights(layer, self._at(model, layer))
        if "optimizer_weights" in names:
            tensors += self._weights("optimizer_weights", self._at(root, "optimizer_weights"))
        if not tensors:
            raise CheckpointError(
                f"{self.file}: no weights of Keras in it: expected a list layer_names or a group of layers, found "
                f"{', '.join(sorted(names)[:8]) or 'nothing'}"
            )
        return self._named(tensors, lone_dense(dict.fromkeys(layer for layer, _, _ in tensors)))

    def _weights(self, layer: str, group: Any) -> Iterator[tuple[str, str, Placed]]:
        """(layer, INDEX/KIND, place) of a layer's weights, in order. None stays open, for 10 KB each."""
        for index, name in enumerate(self._listed(group, "weight_names")):
            rest = f"{index}/{name.rsplit('/', 1)[-1].split(':')[0]}"
            yield layer, rest, self._place(f"{layer}/{rest}", self._at(group, name))

    def _modern(self, root: Any) -> list[Listed]:
        """The tensors of a file in the newer layout: all datasets, by a walk through the groups."""
        tensors: list[tuple[str, str, Placed]] = []
        stored: dict[str, str] = {}  # a layer's group -> its name
        seen = {self._address(root)}
        groups: list[tuple[tuple[str, ...], Any]] = [((), root)]
        while groups:
            path, group = groups.pop()
            if path[-1:] == ("vars",) and len(path) == 3 and "name" in group.attrs:
                stored[path[1]] = self._text(group, "name")
            for name in group.id:
                child, at = self._at(group, name.decode()), (*path, name.decode())
                if self._address(child) in seen or len(at) > _MAX_DEPTH:
                    raise CheckpointError(
                        f"{self.file}: {'/'.join(at)} leads back to another group, or is nested too deep; refused"
                    )
                seen.add(self._address(child))
                if isinstance(child, self.h5py.Group):
                    groups.append((at, child))
                    continue
                layer, rest = at[0], "/".join(at[1:])
                if layer in _MODERN and len(at) > 3:
                    layer, rest = at[1], "/".join(part for part in at[2:] if part != "vars")
                tensors.append((layer, rest, self._place(f"{layer}/{rest}", child)))
        layers = {layer: shape for layer, rest, (_, shape, _) in tensors if rest == "0"}
        layers |= {layer: () for layer, _, _ in tensors if layer not in layers}
        ordered = layers_in_order(layers) if "multi_head_attention" in layers else {}
        return self._named(tensors, lone_dense(stored) if stored else ordered)

    def _named(self, tensors: list[tuple[str, str, Placed]], layers: Mapping[str, str]) -> list[Listed]:
        """`tensors`, given as (group, rest of the name, place), by their full names; `layers` is by group."""
        listed: dict[str, Listed] = {}
        for group, rest, placed in tensors:
            name = f"{layers.get(group, group)}/{rest}"
            if name in listed:
                raise CheckpointError(f"{self.file}: two tensors are called {name!r}")
            listed[name] = (name, *placed)
        return list(listed.values())

    def _at(self, group: Any, path: str) -> Any:
        """The object at `path`. Soft and external links are refused."""
        for part in path.split("/"):
            if not isinstance(group, self.h5py.Group):
                raise CheckpointError(f"{self.file}: {path!r} leads through {group.name}, which is not a group")
            kind = group.id.links.get_info(part.encode()).type
            if kind != self.h5py.h5l.TYPE_HARD:
                names = {self.h5py.h5l.TYPE_SOFT: "a soft link", self.h5py.h5l.TYPE_EXTERNAL: "a link to another file"}
                raise CheckpointError(f"{self.file}: {part!r} is {names.get(kind, 'a user-defined link')}; refused")
            group = group[part]
        return group

    def _address(self, thing: Any) -> int:
        return int(self.h5py.h5o.get_info(thing.id).addr)

    def _listed(self, group: Any, name: str) -> list[str]:
        """A list of names among a group's attributes. Keras splits one of over 64 KB into `name`0, `name`1, ..."""
        parts: Iterable[str] = (name,)
        if name not in group.attrs:
            parts = takewhile(lambda part: part in group.attrs, (f"{name}{i}" for i in count()))
        names: list[str] = []
        for part in parts:
            attribute = group.attrs.get_id(part)
            claimed = prod(attribute.shape or ())
            if claimed * attribute.dtype.itemsize > self.size:
                raise CheckpointError(f"{self.file}: the list {part} of {group.name} claims to be larger than the file")
            if claimed and not isinstance(attribute.get_type(), self.h5py.h5t.TypeStringID):
                raise CheckpointError(f"{self.file}: {part} of {group.name} is of {attribute.dtype}, expected names")
            if claimed:
                names += (_text(item) for item in group.attrs[part].flat)
        return names

    def _text(self, group: Any, name: str) -> str:
        attribute = group.attrs.get_id(name)
        if attribute.shape != () or not isinstance(attribute.get_type(), self.h5py.h5t.TypeStringID):
            raise CheckpointError(f"{self.file}: {name} of {group.name} is not a text")
        return _text(group.attrs[name])

    def _place(self, name: str, dataset: Any) -> Placed:
        """Where the tensor lies. Its data is not read."""
        h5py, file = self.h5py, self.file
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            raise CheckpointError(f"{file}: {name!r} is not an array")
        storage = dataset.id.get_create_plist()
        if storage.get_external_count():
            raise CheckpointError(f"{file}: {name!r} keeps its values in another file; refused")
        if storage.get_layout() != h5py.h5d.CONTIGUOUS:
            layouts = {h5py.h5d.CHUNKED: "in chunks", h5py.h5d.COMPACT: "in its header"}
            where = layouts.get(storage.get_layout(), "as a view of other datasets")
            raise CheckpointError(
                f"{file}: {name!r} is stored {where}, expected in one piece, as by Keras", hint=_REPACK
            )
        stored = dataset.dtype
        if stored.kind == "V" and stored.itemsize == 2 and self._marked_bfloat16(dataset):
            code = "bfloat16"
        elif stored.kind in "fiu" and dataset.id.get_type().equal(h5py.h5t.py_create(stored)):
            code = stored.str
        else:
            raise CheckpointError(f"{file}: {name!r} is of type {stored}, which is not one of NumPy's number types")
        return code, tuple(map(int, dataset.shape)), dataset.id.get_offset() or 0

    def _marked_bfloat16(self, dataset: Any) -> bool:
        return "dtype" in dataset.attrs and self._text(dataset, "dtype") == "bfloat16"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def lone_dense(layers: Iterable[str] | Mapping[str, str]) -> dict[str, str]:
    """Each layer's name by its group's name. A single layer with a numbered name ("dense_13") is called "dense"."""
    names = dict(layers) if isinstance(layers, Mapping) else {layer: layer for layer in layers}
    names = {group: name or group for group, name in names.items()}
    dense = [group for group, name in names.items() if re.fullmatch(r"dense(_\d+)?", name)]
    return names | ({dense[0]: "dense"} if len(dense) == 1 else {})


def layers_in_order(layers: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """bert4keras' name of each layer, by the name of its group.

    The groups of one class are numbered in the order of the layers, which is known for bert4keras' NEZHA.

    Args:
        layers: the shape of each group's first weight.
    """
    depth = sum(layer.startswith("multi_head_attention") for layer in layers)
    norms = ["Embedding-Norm"]
    for i in range(depth):
        norms += [f"Transformer-{i}-MultiHeadSelfAttention-Norm", f"Transformer-{i}-FeedForward-Norm"]
    has_mlm = "scale_offset" in layers  # the bias of the masked-LM head
    dense = [layers[name] for name in _counted("dense", len(layers)) if name in layers]
    others = dense[1:] if has_mlm else dense
    has_pooler = len(others) > 1 or (len(others) == 1 and len(set(others[0])) == 1)  # a single square one
    ordered = {
        "embedding": ["Embedding-Token", "Embedding-Segment"],
        "relative_position_embedding": ["Embedding-Relative-Position"],
        "multi_head_attention": [f"Transformer-{i}-MultiHeadSelfAttention" for i in range(depth)],
        "feed_forward": [f"Transformer-{i}-FeedForward" for i in range(depth)],
        "layer_normalization": [*norms, "MLM-Norm"],
        "scale_offset": ["MLM-Bias"],
        "dense": [*["MLM-Dense"] * has_mlm, *["Pooler-Dense"] * has_pooler, "NSP-Proba" if has_mlm else "dense"],
    }
    return {
        group: name
        for kind, names in ordered.items()
        for group, name in zip(_counted(kind, len(names)), names, strict=True)
    }


def _counted(kind: str, number: int) -> list[str]:
    return [f"{kind}_{i}" if i else kind for i in range(number)]
