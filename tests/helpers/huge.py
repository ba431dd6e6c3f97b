"""Checkpoints of many tensors, and sparse ones past 4 GiB, for tests and benchmarks."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from mindspore_files import value
from v1_tables import v1_table

from nezha_convert.checkpoint import TensorEntry
from nezha_convert.families import HUAWEI_TF
from nezha_convert.families.heads import MLM, NSP, TARGETS
from nezha_convert.families.rules import Op, numbered
from nezha_convert.formats.keras.read import read_keras
from nezha_convert.formats.mindspore import read_mindspore
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.formats.paddle import read_paddle, write_paddle
from nezha_convert.formats.safetensors import header, read_safetensors, write_safetensors
from nezha_convert.formats.tensor import Tensor, raw
from nezha_convert.formats.tf_bundle import write as tf_bundle
from nezha_convert.formats.tf_bundle.read import read_bundle
from nezha_convert.formats.tf_bundle.write import write_bundle
from nezha_convert.formats.tf_v1 import read_v1
from nezha_convert.formats.torch.read import read_torch
from nezha_convert.formats.torch.write import _pickled, write_torch

ELEMENTS = 2**31 + 4
"""Of the large tensor, float16: 4 GiB and 8 bytes, so that what lies behind it lies past 2^32."""

MARK = np.array([1, 2, 3], "u1")
"""The tensor that lies behind it."""

TENSORS_A_SHARD = 20

# Many tensors


def tensors(count: int, numbers: int = 1) -> Iterator[Tensor]:
    """`count` tensors of `numbers` numbers each."""
    ones = np.ones(numbers, "f4")
    return (Tensor(f"encoder.layer.{i}.weight", "float32", (numbers,), [ones]) for i in range(count))


def _legacy(file: Path, count: int) -> None:
    import torch

    state = {tensor.name: torch.ones(1) for tensor in tensors(count)}
    torch.save(state, file, _use_new_zipfile_serialization=False)


def _shards(index: Path, count: int) -> None:
    names = [f"{i:05d}.safetensors" for i in range(count // TENSORS_A_SHARD)]
    weight_map = {}
    for name in names:
        shard = [tensor._replace(name=f"{name}.{tensor.name}") for tensor in tensors(TENSORS_A_SHARD)]
        write_safetensors(index.with_name(name), shard)
        weight_map |= {tensor.name: name for tensor in shard}
    index.write_text(json.dumps({"weight_map": weight_map}))


def _keras(file: Path, count: int) -> None:
    import h5py

    with h5py.File(file, "w") as root:
        names = [f"w{i}:0".encode() for i in range(count)]
        root.attrs["layer_names"] = [b"layer"]
        layer = root.create_group("layer")
        for part, start in enumerate(range(0, count, 4000)):  # as Keras cuts a list that is longer than 64 KB
            layer.attrs[f"weight_names{part}"] = names[start : start + 4000]
        for name in names:
            layer[name.decode()] = np.ones(1, "f4")


def _v1(file: Path, count: int) -> None:
    arrays = {f"w{i}": np.ones(1, "f4") for i in range(count)}
    file.write_bytes(v1_table(arrays, block_bytes=256 << 10))


def _mindspore(file: Path, count: int) -> None:
    file.write_bytes(b"".join(value(f"w{i}", np.ones(1, "f4")) for i in range(count)))


MANY: Mapping[str, tuple[str, Callable[[Path, int], None], Callable[[Path], Mapping[str, TensorEntry]]]] = {
    "TensorFlow": (
        "model.ckpt",
        lambda file, count: write_bundle(file, tensors(count)),
        lambda file: read_bundle(file)[1],
    ),
    "safetensors": (
        "model.safetensors",
        lambda file, count: write_safetensors(file, tensors(count)),
        lambda file: read_safetensors((file,)),
    ),
    "safetensors, 20 a shard": (
        "model.safetensors.index.json",
        _shards,
        lambda file: open_checkpoint(file.parent).entries,
    ),
    "PyTorch": (
        "model.bin",
        lambda file, count: write_torch(file, tensors(count)),
        lambda file: read_torch((file,))[0],
    ),
    "PyTorch, legacy": ("model.pt", _legacy, lambda file: read_torch((file,))[0]),
    "PaddlePaddle": (
        "model.pdparams",
        lambda file, count: write_paddle(file, tensors(count, 256)),  # a pickle needs 16 bytes for each of its steps
        lambda file: read_paddle((file,))[0],
    ),
    "Keras": ("model.h5", _keras, read_keras),
    "TensorFlow's first format": ("model.ckpt-1", _v1, read_v1),
    "MindSpore": ("model.ckpt", _mindspore, read_mindspore),
}
"""By format: a file's name, a function that writes so many tensors, a function that reads them."""


def write_layers(folder: Path, layers: int) -> Path:
    """A pre-training checkpoint of TensorFlow with `layers` layers of width 2."""
    sizes = {"vocab_size": 8, "hidden_size": 2, "intermediate_size": 2, "type_vocab_size": 2}
    config = {**sizes, "num_hidden_layers": layers, "num_attention_heads": 1, "hidden_act": "gelu"}
    (folder / "bert_config.json").write_text(json.dumps({**config, "use_relative_position": True}))

    def all_tensors() -> Iterator[Tensor]:
        for part in (part for part in HUAWEI_TF.rules if part in ("encoder", "pooler", MLM, NSP)):
            for source, rule in {rule.source: rule for rule in HUAWEI_TF.rules[part]}.items():
                shape = [sizes[dim] if isinstance(dim, str) else dim for dim in TARGETS[part][rule.target]]
                if rule.op is Op.TRANSPOSE:
                    shape.reverse()
                for name in numbered([source], layers):
                    yield Tensor(name, "float32", tuple(shape), [np.ones(shape, "f4")])

    write_bundle(folder / "model.ckpt", all_tensors())
    return folder


# Past 4 GiB


def large_blocks() -> Iterator[np.ndarray]:
    """The large tensor's values: all zeros but the first and the last."""
    block, left = np.zeros(2**21, "f2"), ELEMENTS
    while left:
        part = block[: min(left, len(block))].copy() if left in (ELEMENTS, 4) else block[: min(left, len(block))]
        if left == ELEMENTS:
            part[0] = 1
        left -= len(part)
        if not left:
            part[-1] = 2
        yield part


def _hole(file: Path, before: bytes, behind: bytes) -> None:
    """`file` with the large tensor between `before` and `behind`; its zeros take no room on the disk."""
    with open(file, "wb") as out:
        out.write(before + np.float16(1).tobytes())
        out.seek(len(before) + 2 * ELEMENTS - 2)
        out.write(np.float16(2).tobytes() + behind)


def _sparse_safetensors(file: Path) -> Path:
    sizes = [("large", "float16", (ELEMENTS,)), ("mark", "uint8", MARK.shape)]
    _hole(file, header(sizes), MARK.tobytes())
    return file


def _sparse_bundle(prefix: Path) -> Path:
    import google_crc32c

    _hole(Path(f"{prefix}.data-00000-of-00001"), b"", MARK.tobytes())
    crc = tf_bundle.masked(google_crc32c.value(MARK.tobytes()))
    records = {
        b"": tf_bundle.header(),
        b"large": tf_bundle.entry(19, (ELEMENTS,), 0, 0, 2 * ELEMENTS, LARGE_CRC),
        b"mark": tf_bundle.entry(4, MARK.shape, 0, 2 * ELEMENTS, MARK.nbytes, crc),
    }
    Path(f"{prefix}.index").write_bytes(tf_bundle.table(records.items()))
    return prefix


LARGE_CRC = 0x74A7A0E4
"""Masked CRC-32C of the large tensor."""


def _sparse_torch(file: Path) -> Path:
    """As torch.save lays it out, every record in zip's 64-bit form, with gaps of zeros to multiples of 64."""
    kinds = [Tensor("large", "float16", (ELEMENTS,), []), Tensor("mark", "uint8", MARK.shape, [])]
    records = {"data.pkl": _pickled(kinds), "byteorder": b"little", "data/0": None, "data/1": MARK.tobytes()}
    central, count = b"", 0
    with open(file, "wb") as out:
        for name, data in {**records, "version": b"3\n"}.items():
            place, path = out.tell(), f"model/{name}".encode()
            size, crc = (2 * ELEMENTS, 0) if data is None else (len(data), zlib.crc32(data))
            padding = -(place + 30 + len(path) + 20 + 4) % 64
            extra = struct.pack("<HHQQ", 1, 16, size, size) + b"FB" + struct.pack("<H", padding) + bytes(padding)
            fields = struct.pack("<HHHHII", 0, 0, 0, 0x21, crc, 0xFFFFFFFF)
            fields += struct.pack("<IH", 0xFFFFFFFF, len(path))
            out.write(b"PK\3\4\x2d\0" + fields + struct.pack("<H", len(extra)) + path + extra)
            if data is None:
                begun = out.tell()
                out.write(np.float16(1).tobytes())
                out.seek(begun + size - 2)
                out.write(np.float16(2).tobytes())
            else:
                out.write(data)
            extra = struct.pack("<HHQQQ", 1, 24, size, size, place)
            central += b"PK\1\2\x2d\0\x2d\0" + fields + struct.pack("<HHHHII", len(extra), 0, 0, 0, 0, 0xFFFFFFFF)
            central += path + extra
            count += 1
        start = out.tell()
        end = struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(central), start)
        locator = struct.pack("<IQI", 0, start + len(central), 1)
        out.write(central + b"PK\6\6" + end + b"PK\6\7" + locator)
        out.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, count, count, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    return file


def _sparse_paddle(file: Path) -> Path:
    """Our writer's file of both, with a hole in place of the large one's zeros."""
    marked = file.with_suffix(".mark")
    write_paddle(marked, [Tensor("mark", "uint8", MARK.shape, [MARK])])
    behind = marked.read_bytes()[len(b"\x80\x04}(") :]
    write_paddle(marked, [Tensor("large", "float16", (ELEMENTS,), [])])
    before = marked.read_bytes().removesuffix(b"tbu.")
    marked.unlink()
    _hole(file, before, b"tb" + behind)
    return file


LARGE: Mapping[
    str,
    tuple[
        str, Callable[[Path], Path], Callable[[Path, list[Tensor]], None], Callable[[Path], Mapping[str, TensorEntry]]
    ],
] = {
    "TensorFlow": ("model.ckpt", _sparse_bundle, write_bundle, MANY["TensorFlow"][2]),
    "safetensors": ("model.safetensors", _sparse_safetensors, write_safetensors, MANY["safetensors"][2]),
    "PyTorch": ("model.bin", _sparse_torch, write_torch, MANY["PyTorch"][2]),
    "PaddlePaddle": ("model.pdparams", _sparse_paddle, write_paddle, MANY["PaddlePaddle"][2]),
}
"""By format: a file's name, a function that makes a sparse one, our writer, a function that reads it."""


def both() -> list[Tensor]:
    """The large tensor and the mark, for a writer."""
    return [Tensor("large", "float16", (ELEMENTS,), large_blocks()), Tensor("mark", "uint8", MARK.shape, [MARK])]


def check_large(entries: Mapping[str, TensorEntry]) -> None:
    """Read both to the end and compare every number."""
    large = entries["large"]
    assert large.shape == (ELEMENTS,)
    wanted = large_blocks()
    ahead = np.zeros(0, "f2")
    for block in large.blocks():
        while len(ahead) < len(block):
            ahead = np.concatenate([ahead, next(wanted)])
        assert raw(block).tobytes() == raw(ahead[: len(block)]).tobytes()
        ahead = ahead[len(block) :]
    assert not len(ahead)
    assert next(wanted, None) is None
    assert entries["mark"].read().tobytes() == MARK.tobytes()
