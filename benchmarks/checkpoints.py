"""Write checkpoints of NEZHA's sizes with random weights, for the benchmarks.

    python benchmarks/checkpoints.py FOLDER KIND base|large|base+lamb|large+lamb

KIND is one of KINDS; TensorFlow's alone has LAMB's slots. Prints the file of the weights. One that exists is kept. All
kinds of a size hold the same pre-training model. PyTorch's files are written by torch, Keras' by h5py.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nezha_convert.families import BERT4KERAS, HUAWEI_TF, PADDLE, TRANSFORMERS
from nezha_convert.families.heads import TARGETS, TIES
from nezha_convert.families.program import PRETRAINING
from nezha_convert.families.rules import Family, Op, numbered
from nezha_convert.formats.paddle import write_paddle
from nezha_convert.formats.safetensors import write_safetensors
from nezha_convert.formats.tensor import Tensor
from nezha_convert.formats.tf_bundle.write import write_bundle

SIZES = {
    "tiny": (64, 32, 2, 2, 48),
    "base": (21128, 768, 12, 12, 3072),
    "large": (21128, 1024, 24, 16, 4096),
}
"""Vocabulary, width, layers, heads, width of the feed-forward layer."""

_FIELDS = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


class Kind(NamedTuple):
    """A program's checkpoint: its names, the files of its JSON and its weights, and what writes these."""

    family: Family
    config: str
    weights: str
    write: Callable[[Path, Iterable[Tensor]], None]


def _torch(zipped: bool, file: Path, tensors: Iterable[Tensor]) -> None:
    import torch

    state = {tensor.name: torch.from_numpy(block) for tensor in tensors for block in tensor.blocks}
    state |= {tie.target: state[tie.of] for tie in TIES}  # one storage, as in a model's state dict
    torch.save(state, file, _use_new_zipfile_serialization=zipped)


def _keras(file: Path, tensors: Iterable[Tensor]) -> None:
    """As tf.keras' `save_weights`: a group for each layer, and lists of the names."""
    import h5py

    with h5py.File(file, "w") as root:
        layers = []
        for layer, weights in groupby(sorted(tensors, key=_place), lambda tensor: tensor.name.split("/")[0]):
            layers.append(layer)
            names = []
            for tensor in weights:
                _, index, kind = tensor.name.split("/")
                names.append(f"{layer}/weight_{index}/{kind}:0")
                root[f"{layer}/{names[-1]}"] = next(iter(tensor.blocks))
            root[layer].attrs["weight_names"] = names
        root.attrs["layer_names"] = layers


def _place(tensor: Tensor) -> tuple[str, int]:
    layer, index, _ = tensor.name.split("/")
    return layer, int(index)


KINDS = {
    "tensorflow": Kind(HUAWEI_TF, "bert_config.json", "model.ckpt-1", write_bundle),
    "torch-zip": Kind(TRANSFORMERS, "config.json", "pytorch_model.bin", partial(_torch, True)),
    "torch-legacy": Kind(TRANSFORMERS, "config.json", "pytorch_model.bin", partial(_torch, False)),
    "safetensors": Kind(TRANSFORMERS, "config.json", "model.safetensors", write_safetensors),
    "paddle": Kind(PADDLE, "config.json", "model_state.pdparams", write_paddle),
    "keras": Kind(BERT4KERAS, "bert_config.json", "model.h5", _keras),
}


def write_checkpoint(folder: Path, kind: str, size: str) -> Path:
    """Write a pre-training checkpoint, with LAMB's slots if `size` ends in +lamb; return the file of its weights."""
    name, _, lamb = size.partition("+")
    sizes: dict[str, int] = {**dict(zip(_FIELDS, SIZES[name], strict=True)), "type_vocab_size": 2}
    family, config, weights, write = KINDS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    says = {"hidden_act": "gelu", "use_relative_position": True, "model_type": "nezha", "max_relative_position": 64}
    (folder / config).write_text(json.dumps(sizes | says))
    file = folder / weights
    data = file.with_name(f"{weights}.data-00000-of-00001") if kind == "tensorflow" else file
    if not data.exists():
        slots = ("", "/lamb_m", "/lamb_v") if lamb else ("",)
        positions = [_positions(sizes)] if kind == "keras" else []
        write(file, [*_tensors(family, sizes, slots), *positions])
    return data


def _tensors(family: Family, sizes: dict[str, int], slots: Iterable[str]) -> Iterator[Tensor]:
    tied = {tie.target for tie in TIES}
    rules = family.inverse().rules
    for part in PRETRAINING:
        for rule in rules[part]:
            if rule.source in tied:
                continue
            shape = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in TARGETS[part][rule.source])
            stored = shape[::-1] if rule.op is Op.TRANSPOSE else shape
            layers = sizes["num_hidden_layers"]
            for ours, name in zip(numbered([rule.source], layers), numbered([rule.target], layers), strict=True):
                for slot in slots:
                    yield Tensor(name + slot, "float32", stored, map(_values, [ours + slot], [shape], [rule.op]))


def _values(seed: str, shape: tuple[int, ...], op: Op) -> np.ndarray:
    """The same for every kind, since they depend on our own name."""
    values = np.random.default_rng(zlib.crc32(seed.encode())).standard_normal(shape, dtype=np.float32)
    values *= np.float32(0.02)
    return np.ascontiguousarray(values.T) if op is Op.TRANSPOSE else values


def _positions(sizes: dict[str, int], clip: int = 64) -> Tensor:
    """bert4keras' table of relative positions, by which its NEZHA is known."""
    size = sizes["hidden_size"] // sizes["num_attention_heads"]
    angles = np.arange(2 * clip + 1)[:, None] / 10000 ** (np.arange(0, size, 2) / size)
    table = np.stack([np.sin(angles), np.cos(angles)], -1).reshape(-1, size).astype(np.float32)
    return Tensor("Embedding-Relative-Position/0/embeddings", "float32", table.shape, [table])


if __name__ == "__main__":
    print(write_checkpoint(Path(sys.argv[1]), *sys.argv[2:]))
