"""The goldens' checkpoints without their poolers and heads, each in its own program's names and format.

What they compute is the oracle's: the goldens record few hidden states.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from goldens import GOLDENS, INPUTS, Golden
from mindspore_files import value
from v1_tables import v1_table

from nezha_convert.families.heads import ENCODER
from nezha_convert.families.rules import Drop
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.formats.paddle import write_paddle
from nezha_convert.formats.safetensors import write_safetensors
from nezha_convert.formats.tensor import Tensor
from nezha_convert.formats.tf_bundle.write import write_bundle
from nezha_convert.formats.torch.write import write_legacy, write_torch
from nezha_convert.mapping.config import read_config
from nezha_convert.mapping.recognise import family_of
from nezha_convert.parity.oracle.model import Oracle

Write = Callable[[Path, Sequence[Tensor]], None]


def _write_v1(file: Path, tensors: Sequence[Tensor]) -> None:
    file.write_bytes(v1_table({tensor.name: _whole(tensor) for tensor in tensors}))


def _write_mindspore(file: Path, tensors: Sequence[Tensor]) -> None:
    file.write_bytes(b"".join(value(tensor.name, _whole(tensor)) for tensor in tensors))


def _whole(tensor: Tensor) -> np.ndarray:
    (array,) = tensor.blocks
    return array


_WRITERS: dict[str, tuple[Write, str]] = {
    "tensorflow-bundle": (write_bundle, "model.ckpt"),
    "torch": (write_torch, "pytorch_model.bin"),
    "paddle": (write_paddle, "model_state.pdparams"),
    "safetensors": (write_safetensors, "model.safetensors"),
    "mindspore": (_write_mindspore, "bert_nezha.ckpt"),
}

OTHERS: dict[str, tuple[str, Write, str]] = {
    "TensorFlow V1": ("huawei-tf-pretraining", _write_v1, "model.ckpt"),
    "PyTorch before 1.6": ("huawei-torch-pretraining", write_legacy, "pytorch_model.bin"),
    "Huawei's names in safetensors": ("huawei-torch-pretraining", write_safetensors, "model.safetensors"),
    "transformers' names in PyTorch's": ("transformers-4.40.2-pretraining", write_torch, "pytorch_model.bin"),
}
"""By format, a golden whose names are also written in it."""
NAMES = (
    *("huawei-tf-pretraining", "huawei-torch-pretraining", "jaber-token", "lonepatient-masked-lm"),
    *("bert4torch-pretraining", "bert4torch-0.2.7-masked-lm", "transformers-4.40.2-encoder"),
    *("transformers-4.40.2-pretraining", "paddlenlp-pretraining", "bert4keras-pretraining", "bert4keras-masked-lm"),
    "mindspore-pretraining",
)
"""One of each family, names and format."""

POOLERLESS = [replace(golden, head="encoder", asked=True) for golden in GOLDENS if golden.name in NAMES]


def without_pooler(golden: Golden, folder: Path, other: tuple[Write, str] | None = None) -> Path:
    """The encoder of `golden` alone, as its own program would have written it, in the new `folder`.

    `other` writes another format, to a file of that name.
    """
    folder.mkdir(parents=True)
    checkpoint = open_checkpoint(golden.folder)
    for path in golden.folder.glob("*.json"):
        shutil.copy(path, folder)
    if checkpoint.format == "keras":
        _strip_keras(checkpoint.path, folder)
        return folder
    family = family_of(checkpoint.entries)
    meanings = {name: family.find(name) for name in checkpoint.entries}
    kept = [n for n, m in meanings.items() if isinstance(m, Drop) or (m is not None and m.part == ENCODER)]
    write, name = other or _WRITERS[checkpoint.format]
    entries = [checkpoint.entries[name] for name in kept]
    write(folder / name, [Tensor(e.name, e.dtype, e.shape, [e.read()]) for e in entries])
    return folder


def _strip_keras(source: Path, folder: Path) -> None:
    import h5py

    shutil.copy(source, folder)
    with h5py.File(folder / source.name, "r+") as file:
        names = [name.decode() if isinstance(name, bytes) else name for name in file.attrs.get("layer_names", ())]
        if not names:  # the layout of Keras 3, where groups have no names; bert4keras made no pooler for this golden
            for group in ("dense", "layer_normalization_5", "scale_offset"):  # the masked-LM head
                del file["layers"][group]
            return
        heads = [name for name in names if name.startswith(("Pooler", "MLM", "NSP"))]
        for name in heads:
            del file[name]
        file.attrs["layer_names"] = [name.encode() for name in names if name not in heads]


def computed(golden: Golden, folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """By case of `golden`, its inputs and what the oracle computes of them on the source in `folder`."""
    checkpoint = open_checkpoint(folder)
    oracle = Oracle(checkpoint.entries, read_config(checkpoint.config, folder), "encoder")
    cases = {}
    for case, recorded in golden.cases():
        given = {name: np.zeros(recorded["input_ids"].shape, int) for name in ("attention_mask", "token_type_ids")}
        given["attention_mask"] += 1
        given |= {INPUTS[name]: tensor.long().numpy() for name, tensor in recorded.items() if name in INPUTS}
        outputs = oracle.forward(**given, record=False)
        assert "pooler" not in outputs
        cases[case] = given | {"last_hidden_state": [*outputs.values()][-1]}
    return cases
