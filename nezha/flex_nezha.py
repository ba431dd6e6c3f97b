"""NEZHA's attention for GPUs by torch's FlexAttention: no kernel of our own, and no tensor [B, H, L, L].

Notation as in `attention_nezha.py`. With T = R - R[0], and since the weights of a query sum up to 1,

    s(i, j) = (q_i . k_j + q_i . R[p(i, j)]) / sqrt(d)
    out_i   = R[0]
            + sum over j of a(i, j) v_j
            + sum over |j - i| < K of a(i, j) T[p(i, j)]
            + T[2K] sum over j >= i + K of a(i, j)

FlexAttention computes the first of these sums. Its `score_mod` adds the relative scores: one product gives those with
all 2K + 1 rows of R. It also returns the logarithm of each softmax's sum. With that, a block of m queries computes the
weights of the m + 2K - 2 keys around it once more. From those come the second sum and the part of the third that lies
in this window. For the keys beyond a block's window, the values have one more column a block: 1 for these keys, else 0.

So besides what plain attention stores, there are 2K + 1 and m + 2K - 2 scores for each query, and L / m columns of
values. docs/performance.md counts the operations.

NOT YET RUN ON A GPU. So nothing uses it until you call `enable()`, and converted folders do not carry this file. Tests
check its numbers and gradients on the CPU, where FlexAttention computes without being compiled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention
from torch.utils.weak import WeakTensorKeyDictionary

from . import attention_nezha

BLOCK, COLUMNS = 128, 64
"""Queries in a block, m above; it grows where the values would get more than this many columns."""

_block_masks: MutableMapping[Tensor, BlockMask] = WeakTensorKeyDictionary()
"""FlexAttention's form of each mask that is in use: the layers of a pass share it."""


def enable() -> None:
    """Let every NEZHA of the package `nezha` use FlexAttention on NVIDIA GPUs, wherever it fits.

    Models loaded with `trust_remote_code` run their folder's own code and do not see it.
    """
    attention_nezha.fused_attention = flex_relative_attention


def flex_relative_attention(
    query: Tensor, key: Tensor, value: Tensor, relations: Tensor, mask: Tensor | None = None, *, dropout: float = 0.0
) -> tuple[Tensor, Tensor | None]:
    """`relative_attention` by FlexAttention. That has no dropout: where there is some, the reference form computes.

    Args:
        mask: True where a query may attend to a key. The outputs of a sequence whose keys are all masked are finite and
            meaningless, as the reference form's, but others.

    Shape:
        query, key, value: [B, H, L, d].
        relations: the table [2K + 1, d].
        mask: [B or 1, 1, 1, L]; or None.
        result: [B, H, L, d]; and None where the reference form has probabilities.
    """
    batch, heads, length, size = query.shape
    if dropout:
        expanded = attention_nezha.expand_relative_positions(relations, length)
        return attention_nezha.relative_attention(query, key, value, expanded, mask, dropout=dropout)
    clip, scale = relations.shape[0] // 2, size**-0.5
    block = max(BLOCK, -(-length // COLUMNS))
    position = torch.arange(length, device=query.device)
    window_ends = position[::block] + block + clip - 1
    beyond = (position[:, None] >= window_ends).to(value.dtype).expand(batch, heads, -1, -1)
    scaled = query * scale
    relative = scaled @ relations.T

    def with_relative(score: Tensor, item: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        own: Tensor = relative[item, head, i, (j - i).clamp(-clip, clip) + clip]
        return score.add(own)

    output, auxiliary = _fused(flex_attention, query.device.type)(
        query,
        key,
        torch.cat((value, beyond), -1),
        score_mod=with_relative,
        block_mask=None if mask is None else _block_mask(mask, length),
        scale=scale,
        return_aux=AuxRequest(lse=True),
    )
    near, after = _fused(_near_weights, query.device.type)(scaled, key, relative, auxiliary.lse, mask, block)
    own_block = (position // block)[:, None].expand(batch, heads, -1, -1)
    weights = torch.cat((near, after + output[..., size:].gather(-1, own_block)), -1)
    first, rest = relations.to(weights.dtype).split((1, 2 * clip))
    return (output[..., :size] + first + weights @ (rest - first)).to(value.dtype), None


def _near_weights(
    query: Tensor, key: Tensor, relative: Tensor, log_sums: Tensor, mask: Tensor | None, block: int
) -> tuple[Tensor, Tensor]:
    """The weights of each query's near keys, and the sum of those of later keys in its block's window.

    Shape:
        query: [B, H, L, d], scaled.
        key: [B, H, L, d].
        relative: [B, H, L, 2K + 1].
        log_sums: [B, H, L], minus infinity where every key is masked.
        result: [B, H, L, 2K - 1] and [B, H, L, 1], in float32 or better.
    """
    batch, heads, length, _ = query.shape
    clip = relative.shape[-1] // 2
    window = block + 2 * clip - 2
    rest = -length % block

    def blocks(tensor: Tensor) -> Tensor:
        return functional.pad(tensor, (0, 0, 0, rest)).view(batch, heads, -1, block, tensor.shape[-1])

    def windows(tensor: Tensor) -> Tensor:
        return functional.pad(tensor, (0, 0, clip - 1, rest + clip - 1)).unfold(2, window, block)

    present = query.new_ones(1, 1, length, 1) if mask is None else mask.transpose(2, 3).to(query.dtype)
    row, column = (torch.arange(count, device=query.device) for count in (block, window))
    distance = column - row[:, None] - (clip - 1)

    def per_score(index: Tensor) -> Tensor:
        return index.expand(batch, heads, (length + rest) // block, -1, -1)

    own = blocks(relative).gather(-1, per_score(distance.clamp(-clip, clip) + clip))
    log_sums = blocks(log_sums.masked_fill(log_sums.isneginf(), 0)[..., None])
    weights = ((blocks(query) @ windows(key) + own).to(log_sums.dtype) - log_sums).exp() * windows(present)
    near = weights.gather(-1, per_score(row[:, None] + torch.arange(2 * clip - 1, device=query.device)))
    after = (weights * (distance >= clip)).sum(-1, keepdim=True)
    return near.flatten(2, 3)[:, :, :length], after.flatten(2, 3)[:, :, :length]


@functools.cache
def _fused(function: Callable[..., tuple[Tensor, Any]], device: str) -> Callable[..., tuple[Tensor, Any]]:
    """The function compiled, so that its steps share a pass over memory; on the CPU, itself.

    What torch compiles of FlexAttention for the CPU has no backward pass.
    """
    return function if device == "cpu" else torch.compile(function)


def _block_mask(mask: Tensor, length: int) -> BlockMask:
    if mask not in _block_masks:
        present = mask[:, 0, 0].clone()  # a view would keep the mask alive, and with it this entry

        def is_present(item: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return present[item if len(present) > 1 else 0, j]

        _block_masks[mask] = create_block_mask(is_present, len(present), None, length, length, device=mask.device)
    return _block_masks[mask]
