"""Keras' HDF5 files: sound ones, and ones that h5py builds with something in them that weights never have.

They are built, not changed: taking a broken file apart would rely on the library under test.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from random import Random
from typing import Any

import h5py
import numpy as np

from .broken_bundles import flipped

LAYOUTS = ("weights", "whole model", "counted", "named")
"""What tf.keras writes by save_weights and by save, and what Keras 3 writes without and with the layers' names."""


def sound(layout: str) -> bytes:
    """The bytes of a small model's weights."""
    return _built(Random(0), layout, 0)


def hdf5_mutated(random: Random, data: bytes) -> bytes:
    """`data` with changed bytes, or another file with something in it that weights never have."""
    if random.random() < 0.6:
        return flipped(random, data)
    built = _built(random, random.choice(LAYOUTS), random.choice((1, 1, 2, 4)))
    return flipped(random, built) if random.random() < 0.2 else built


def _built(random: Random, layout: str, wrong: int) -> bytes:
    out = BytesIO()
    block = random.choice((512, 1024)) if wrong and random.random() < 0.05 else 0
    with h5py.File(
        out, "w", userblock_size=block, libver=random.choice(("earliest", "latest")) if wrong else None
    ) as root:
        groups = _modern(root, layout == "named") if layout in ("counted", "named") else _legacy(root, layout)
        for _ in range(wrong):
            try:
                random.choice(WRONG)(random, random.choice(groups))
            except (ValueError, OSError, RuntimeError, TypeError, KeyError):
                continue  # h5py cannot change what the mutation before has made of it
    return out.getvalue()


def _legacy(root: Any, layout: str) -> list[Any]:
    model = root.create_group("model_weights") if layout == "whole model" else root
    layers = {"Embedding-Token": {"embeddings": (4, 2)}, "dense_7": {"kernel": (2, 3), "bias": (3,)}}
    _listed(model, layers)
    if layout == "whole model":
        state = root.create_group("optimizer_weights")
        state.attrs["weight_names"] = [b"iteration:0"]
        state["iteration:0"] = np.int64(3)
    return [root, model, *(model[layer] for layer in layers)]


def _listed(model: Any, layers: dict[str, dict[str, tuple[int, ...]]]) -> None:
    model.attrs["layer_names"] = [layer.encode() for layer in layers]
    for layer, weights in layers.items():
        group = model.create_group(layer)
        group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in weights]
        for name, shape in weights.items():
            group[f"{layer}/{name}:0"] = np.ones(shape, "f4")


def _modern(root: Any, named: bool) -> list[Any]:
    groups = [root]
    for layer, shapes in {
        "embedding": [(4, 2)],
        "multi_head_attention/q_dense": [(2, 2), (2,)],
        "dense": [(2, 3)],
    }.items():
        group = root.create_group(f"layers/{layer}/vars")
        if named and "/" not in layer:
            group.attrs["name"] = {"embedding": "Embedding-Token"}.get(layer, layer)
        for number, shape in enumerate(shapes):
            group[str(number)] = np.ones(shape, "f4")
        groups += [group, group.parent]
    return groups


def _dataset(random: Random, group: Any) -> None:
    """Replace one of the group's datasets."""
    name = _any(random, group)
    if name in group:
        del group[name]
    random.choice(DATASETS)(group, name)


def _link(random: Random, group: Any) -> None:
    """Replace an object by a link: soft, external, or hard and leading back."""
    name = _any(random, group)
    if name in group:
        del group[name]
    group[name] = random.choice(
        (
            *(h5py.SoftLink("/"), h5py.SoftLink("/" + "x/" * 500), h5py.SoftLink("../x")),
            *(h5py.ExternalLink("/etc/passwd", "/x"), h5py.ExternalLink("", ""), group, group.file["/"]),
        )
    )


def _attribute(random: Random, group: Any) -> None:
    """Replace a list of names, or a name, by something else."""
    name = random.choice(
        ("layer_names", "weight_names", "name", "dtype", "layer_names0", "weight_names0", "weight_names1")
    )
    if random.random() < 0.2 and name[:-1] in ("layer_names", "weight_names"):
        group.attrs.pop(name[:-1], None)
    random.choice(ATTRIBUTES)(group, name)


def _deep(random: Random, group: Any) -> None:
    group.create_group("x/" * random.choice((3, 20, 200)))["0"] = np.ones(1)


def _many(random: Random, group: Any) -> None:
    for number in range(random.choice((5, 60))):
        group[random.choice(("", "dense_", "layer_normalization_", "multi_head_attention_")) + str(number)] = np.ones(1)


def _copied(random: Random, group: Any) -> None:
    group.file.copy(group.name, group.file, name=random.choice(("layers/dense_1", "copy", "layers/vars", "dense/vars")))


def _any(random: Random, group: Any) -> str:
    names: list[str] = []
    group.visit(names.append)
    return random.choice((*names, "0", "vars", "\u4e00", "a.b"))


WRONG: tuple[Callable[[Random, Any], None], ...] = (
    _dataset,
    _dataset,
    _link,
    _attribute,
    _attribute,
    _deep,
    _many,
    _copied,
)


def _external(group: Any, name: str) -> None:
    group.create_dataset(name, (4,), "f4", external=[("/etc/passwd", 0, 16)])


def _virtual(group: Any, name: str) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(".", name, (4,))
    group.create_virtual_dataset(name, layout)


def _compact(group: Any, name: str) -> None:
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_layout(h5py.h5d.COMPACT)
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((4,)), dcpl=how)


def _bfloat16(group: Any, name: str, said: Any = "bfloat16") -> None:
    group.create_dataset(name, data=np.zeros(3, "V2")).attrs["dtype"] = said


DATASETS: tuple[Callable[[Any, str], Any], ...] = (
    *(_external, _virtual, _compact, _bfloat16),
    lambda g, n: _bfloat16(g, n, ["bfloat16"]),
    lambda g, n: _bfloat16(g, n, 3),
    lambda g, n: g.create_dataset(n, (1 << 50, 1 << 8), "f4"),
    lambda g, n: g.create_dataset(n, (0, 1 << 60), "f4"),
    lambda g, n: g.create_dataset(n, (1,) * 32, "f4"),
    lambda g, n: g.create_dataset(n, (1 << 40,), "f4", chunks=(1 << 20,)),
    lambda g, n: g.create_dataset(n, (8,), "f4", maxshape=(None,)),
    lambda g, n: g.create_dataset(n, data=np.zeros(64), compression="gzip", shuffle=True, fletcher32=True),
    lambda g, n: g.create_dataset(n, data=np.zeros(64, "i4"), scaleoffset=2),
    lambda g, n: g.create_dataset(n, data=["a", "b" * 3000], dtype=h5py.string_dtype()),
    lambda g, n: g.create_dataset(n, (1,), h5py.ref_dtype),
    lambda g, n: g.create_dataset(n, (1,), h5py.vlen_dtype("f4")),
    lambda g, n: g.create_dataset(n, (2,), h5py.enum_dtype({"a": 0, "b": 1})),
    lambda g, n: g.create_dataset(n, data=np.zeros(2, "f4,f4")),
    lambda g, n: g.create_dataset(n, data=np.zeros(2, ">f8")),
    lambda g, n: g.create_dataset(n, data=np.zeros(2, "c8")),
    lambda g, n: g.create_dataset(n, data=np.zeros(2, bool)),
    lambda g, n: g.create_dataset(n, data=np.zeros((2, 2), "(3,)f4")),
    lambda g, n: g.create_dataset(n, data=h5py.Empty("f4")),
    lambda g, n: g.create_group(n),
)

ATTRIBUTES: tuple[Callable[[Any, str], Any], ...] = tuple(
    lambda g, n, value=value: g.attrs.create(n, value)
    for value in (
        *(b"", "", "x", 3, [1.5], [b"x"], [b""], [b"/"], [b"."], [b"a/b"], [b"/etc/passwd"], [b"\xff"], ["\u4e00"]),
        *([b"dense_7"] * 2, [b"dense_7"] * 500, [b"x" * 3000], h5py.Empty("f4"), np.array([], "S1")),
        np.array([[b"dense_7"], [b"Embedding-Token"]]),
        np.array(["a\0b"], dtype=h5py.string_dtype()),
        *("\x1b[2J", ["\x1b[2J"], "bfloat16", ["../.."]),
    )
)
