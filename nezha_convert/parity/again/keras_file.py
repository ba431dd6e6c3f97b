"""Keras' files, by h5py in a process of its own, which copies the arrays themselves into an .npz file.

The process that reads for `convert` gives only the places of arrays. This one gives the values that HDF5's library
reads, under the names that the oracle knows: LAYER[/SUBLAYER]/INDEX.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CheckpointError
from ...files.child import python
from ...files.locks import TemporaryFolder
from ..oracle.formulas import Array
from .tensor import Tensor

PATIENCE = 120
"""Seconds that the other process may take."""

_CHILD = "from nezha_convert.parity.again.keras_file import copy; copy(*sys.argv[1:])"
_LIST = "list"
"""The key in the .npz file of a JSON list: name, shape, and whether the array is the bits of a bfloat16."""


def read_keras(file: Path) -> tuple[dict[str, Tensor], TemporaryFolder]:
    """The tensors of `file` by name, and the folder that must live as long as they are needed.

    Raises:
        CheckpointError: HDF5's library cannot read it.
    """
    folder = TemporaryFolder()
    try:
        arrays = folder.path / "arrays.npz"
        command = python(_CHILD, file, arrays)
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise CheckpointError(f"{file}: HDF5's library did not finish reading it in {PATIENCE} s") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise CheckpointError(f"{file}: cannot be read by h5py ({' '.join(said) or f'code {done.returncode}'})")
        with np.load(arrays) as stored:
            listed = json.loads(str(stored[_LIST]))
    except BaseException:
        folder.remove()
        raise
    tensors = {
        name: Tensor(name, tuple(shape), partial(_read, arrays, f"a{i}", bfloat16))
        for i, (name, shape, bfloat16) in enumerate(listed)
    }
    return tensors, folder


def _read(arrays: Path, key: str, bfloat16: bool) -> Array:
    with np.load(arrays) as stored:
        array: Array = stored[key]
    return array.view("bfloat16") if bfloat16 else array


def copy(file: str, arrays: str) -> None:
    """Copy the tensors of `file` into the .npz file `arrays`. This runs in the other process."""
    import h5py

    with h5py.File(file, "r", locking=False) as root:
        weights = list(_renamed(list(_datasets(root, h5py))))
        if sum(dataset.nbytes for _, dataset in weights) > Path(file).stat().st_size:
            raise ValueError("its arrays are larger than the file")
        listed, found = [], dict[str, Any]()
        for i, (name, dataset) in enumerate(weights):
            bfloat16 = dataset.dtype.kind == "V" and dataset.dtype.itemsize == 2
            listed.append((name, dataset.shape, bfloat16))
            found[f"a{i}"] = np.asarray(dataset).view("<u2") if bfloat16 else np.asarray(dataset)
        np.savez(arrays, **found | {_LIST: np.array(json.dumps(listed))})


Weight = tuple[str, str, str, Any]
"""A layer's group, its name if the file says it, the rest of a weight's name, and its dataset."""


def _datasets(root: Any, h5py: Any) -> Iterator[Weight]:
    """The weights of both layouts: lists of names as attributes, or groups called `vars`."""
    model = root.get("model_weights", root)
    if "layer_names" in model.attrs or "layer_names0" in model.attrs:
        for layer in _list(model, "layer_names"):
            for i, weight in enumerate(_list(model[layer], "weight_names")):
                yield layer, layer, str(i), model[layer][weight]
        return
    layers = root.get("layers", root.get("_layer_checkpoint_dependencies"))
    for group in layers:
        said = layers[group].get("vars", root).attrs.get("name", "")
        paths: list[str] = []
        layers[group].visit(paths.append)
        for path in paths:
            if isinstance(layers[group][path], h5py.Dataset):
                rest = "/".join(part for part in path.split("/") if part != "vars")
                yield group, said.decode() if isinstance(said, bytes) else said, rest, layers[group][path]


def _list(group: Any, name: str) -> list[str]:
    """A list of names among the attributes; Keras cuts one that is too long for HDF5 into NAME0, NAME1, ..."""
    parts = [name] if name in group.attrs else [f"{name}{i}" for i in range(len(group.attrs))]
    items = (item for part in parts if part in group.attrs for item in group.attrs[part])
    return [item.decode() if isinstance(item, bytes) else str(item) for item in items]


def _renamed(weights: list[Weight]) -> Iterator[tuple[str, Any]]:
    """Each weight by its full name. Groups without a layer's name get that of bert4keras' order of layers."""
    said = {group: name or group for group, name, _, _ in weights}
    if not any(name.startswith("Embedding-Token") for name in said.values()):
        said |= in_order({group: data.shape for group, _, rest, data in weights if rest == "0"}, said)
    denses = [group for group, name in said.items() if re.fullmatch(r"dense(_\d+)?", name)]
    if len(denses) == 1:  # Keras numbers the user's classifier by what else was built in the session
        said[denses[0]] = "dense"
    for group, _, rest, dataset in weights:
        yield f"{said[group]}/{rest}", dataset


def in_order(first: Mapping[str, tuple[int, ...]], groups: Iterable[str]) -> dict[str, str]:
    """bert4keras' names, where a file numbers the layers of each class in the order of their making.

    Its NEZHA makes the embeddings, then for each block attention, norm, feed forward, norm; then the pooler, and the
    head of the masked LM (models.py, `apply_embeddings` to `apply_final_layers`).

    Args:
        first: the shape of each group's first weight.
    """

    def made(kind: str) -> list[str]:
        """The groups of a class, in the order of their making."""
        return sorted((g for g in groups if re.fullmatch(rf"{kind}(_\d+)?", g)), key=lambda g: (len(g), g))

    blocks = range(len(made("multi_head_attention")))
    predicts = bool(made("scale_offset"))
    denses = made("dense")
    rest = denses[predicts:]
    pools = len(rest) > 1 or [len(set(first[dense])) for dense in rest] == [1]
    last = "NSP-Proba" if predicts else "dense"
    order = {
        "embedding": ["Embedding-Token", "Embedding-Segment"],
        "relative_position_embedding": ["Embedding-Relative-Position"],
        "multi_head_attention": [f"Transformer-{i}-MultiHeadSelfAttention" for i in blocks],
        "feed_forward": [f"Transformer-{i}-FeedForward" for i in blocks],
        "layer_normalization": [
            "Embedding-Norm",
            *(f"Transformer-{i}-{of}-Norm" for i in blocks for of in ("MultiHeadSelfAttention", "FeedForward")),
            "MLM-Norm",
        ],
        "scale_offset": ["MLM-Bias"],
        "dense": [*["MLM-Dense"][: int(predicts)], *["Pooler-Dense"][: int(pools)], last],
    }
    return {group: name for kind, names in order.items() for group, name in zip(made(kind), names, strict=False)}
