"""MindSpore's checkpoints for tests, written from checkpoint.proto."""

from __future__ import annotations

import numpy as np
from bundles import message, varint

NAMES = {"int8": "Int8", "float16": "Float16", "float32": "Float32", "bool": "Bool", "bfloat16": "BFloat16"}
NAMES |= {"uint8": "UInt8", "int32": "Int32", "int64": "Int64", "uint64": "UInt64", "float64": "Float64"}


def value(name: str, array: np.ndarray, content: bytes | None = None) -> bytes:
    """One value of a file, with the whole shape and all or a share of the bytes."""
    dims = b"".join(varint(1 << 3) + varint(size) for size in array.shape)
    content = array.tobytes() if content is None else content
    tensor = dims + message(2, NAMES[str(array.dtype)].encode()) + message(3, content)
    return message(1, message(1, name.encode()) + message(2, tensor))
