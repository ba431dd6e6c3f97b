"""The oracle's mathematics in NumPy float64: relative attention and activations, as the original graphs have them.

Shapes: B batch, L length, N heads, d head size, K clip distance. `modeling.py` is NEZHA-TensorFlow's and
`modeling_nezha.py` NEZHA-PyTorch's, both of Huawei's repository.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Function = Callable[[Array], Array]

_BLOCK = 1 << 21
"""How many numbers one temporary array of a row block holds (16 MB). It bounds the memory at any length."""


def relative_table(clip: int, size: int) -> Array:
    """The fixed sinusoids R, [2K + 1, d] (modeling.py:756-759), of the shifted index and not of the signed distance.

    With an odd size the last column stays 0, because the originals loop over d // 2.
    """
    table = np.zeros((2 * clip + 1, size))
    angles = np.arange(2 * clip + 1)[:, None] / np.power(10000.0, 2 * np.arange(size // 2) / size)
    table[:, 0 : 2 * (size // 2) : 2] = np.sin(angles)
    table[:, 1::2] = np.cos(angles)
    return table


def attention(query: Array, key: Array, value: Array, mask: Array, table: Array) -> Array:
    """NEZHA's self-attention, [B, L, N * d], computed by blocks of rows i (modeling.py:940-1020).

    s(i,j) = (q_i . k_j + q_i . R[p(i,j)]) / sqrt(d) + mask_j,  out_i = sum_j softmax(s)(i,j) (v_j + R[p(i,j)]),
    p(i,j) = clip(j - i, -K, K) + K.

    Args:
        query, key, value: [B, N, L, d].
        mask: [B, L], added to every score of a key.
        table: R, [2K + 1, d].
    """
    batch, heads, length, size = query.shape
    clip = len(table) // 2
    context = np.empty((batch, length, heads, size))
    positions = np.arange(length)
    rows = max(1, _BLOCK // (length * max(batch * heads, size)))
    for start in range(0, length, rows):
        block = query[:, :, start : start + rows]  # [B, N, rows, d]
        index = np.clip(positions - positions[start : start + rows, None], -clip, clip) + clip  # [rows, L]
        scores = block @ key.swapaxes(2, 3)
        scores += np.take_along_axis(block @ table.T, index[None, None], axis=-1)
        scores /= math.sqrt(size)
        scores += mask[:, None, None, :]
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        relative = np.einsum("bnij,ijd->bnid", weights, table[index], optimize=True)
        context[:, start : start + rows] = (weights @ value + relative).transpose(0, 2, 1, 3)
    return context.reshape(batch, length, heads * size)


def layer_norm(x: Array, scale: Array, shift: Array, epsilon: float) -> Array:
    """Layer norm over the last axis, epsilon inside the root (modeling.py:482-494; modeling_nezha.py:187-191)."""
    centred = x - x.mean(-1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + epsilon) * scale + shift)


def erf(x: Array) -> Array:
    """The error function, number by number by the C library: correct but for the last bit or two, 60 ns a number."""
    numbers = np.ascontiguousarray(x, dtype=np.float64).reshape(-1).data  # yields Python floats without a list of them
    return np.fromiter(map(math.erf, numbers), np.float64, x.size).reshape(x.shape)


def gelu_erf(x: Array) -> Array:
    """The exact GELU of both torch originals (modeling_nezha.py:63)."""
    return np.asarray(0.5 * x * (1.0 + erf(x / math.sqrt(2.0))))


def gelu_tanh(x: Array) -> Array:
    """The approximation of TensorFlow's original (modeling.py:284-286)."""
    return np.asarray(0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x))))


def swish(x: Array) -> Array:
    """x * sigmoid(x), the sigmoid by tanh, which does not overflow."""
    return np.asarray(0.5 * x * (1.0 + np.tanh(0.5 * x)))


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.asarray(np.maximum(x, 0.0))


def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return np.asarray(np.tanh(x))


def linear(x: Array) -> Array:
    """No activation."""
    return x
