"""MindSpore's checkpoints, read a second time: the whole file in memory, by a parser of all of its messages."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ..oracle.formulas import Array
from .table import Message
from .tensor import Tensor

_TYPES = {"Float32": "<f4", "Float64": "<f8", "Float16": "<f2", "BFloat16": "bfloat16", "Int32": "<i4", "Int64": "<i8"}


def read_mindspore(file: Path) -> dict[str, Tensor]:
    """The tensors of `file` by name (checkpoint.proto: value 1; tag 1, tensor 2; dims 1, tensor_type 2, content 3)."""
    content = file.read_bytes()
    if content[-17:-10] == b"crc_num":
        content = content[:-17]
    found: dict[str, list[Message]] = {}
    for value in map(Message, Message(content).parts(1)):
        found.setdefault(value.parts(1)[0].decode(), []).append(Message(value.parts(2)[0]))
    return {name: _tensor(name, shares) for name, shares in found.items()}


def _tensor(name: str, shares: list[Message]) -> Tensor:
    shape = tuple(shares[0].numbers(1))
    return Tensor(name, () if shape == (0,) else shape, partial(_read, shares, shape))


def _read(shares: list[Message], shape: tuple[int, ...]) -> Array:
    content = b"".join(part for share in shares for part in share.parts(3))
    return np.frombuffer(content, _TYPES[shares[0].parts(2)[0].decode()]).reshape(() if shape == (0,) else shape)
