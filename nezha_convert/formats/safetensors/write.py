"""One safetensors file, streamed. The bytes are those of safetensors' own serializer for the same tensors.

Header order by alignment and name, compact JSON padded to eight bytes (safetensors/src/tensor.rs, `prepare`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..tensor import Tensor, raw
from .read import DTYPES

NAMES = {numpy_name: name for name, numpy_name in DTYPES.items()}
ORDER = {name: number for number, name in enumerate(NAMES)}
"""Element types in the order in which their tensors lie."""


def write_safetensors(file: Path, tensors: Iterable[Tensor]) -> None:
    """Write `tensors` as `file`.

    Raises:
        KeyError: a type that safetensors does not have.
        OSError: the file cannot be written.
    """
    ordered = sorted(tensors, key=lambda tensor: (ORDER[tensor.dtype], tensor.name))
    with open(file, "wb") as out:
        out.write(header((tensor.name, tensor.dtype, tensor.shape) for tensor in ordered))
        for tensor in ordered:
            for block in tensor.blocks:
                out.write(raw(block))


def header(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> bytes:
    """What stands before the data of `tensors`, which are given as (name, NumPy's name of the type, shape)."""
    content: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape in tensors:
        start, end = end, end + prod(shape) * np.dtype(dtype).itemsize
        content[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
