"""NEZHA's attention as one fused kernel for NVIDIA GPUs: flash attention with relative positions, forward and backward.

Notation as in `attention_nezha.py`. The kernel stores nothing of size L^2 and does not expand R. Let a block of queries
start at s, i = s + r, and let w_m be the frequency of columns 2m and 2m + 1. Where |j - i| <= K,

    R[j - i + K, 2m]     = sin((j - s + K) w_m - r w_m)
    R[j - i + K, 2m + 1] = cos((j - s + K) w_m - r w_m)

so a vector's product with R is the product of the vector, rotated by r w_m in each pair of columns, with a row of

    S[j - s + K, 2m] = sin((j - s + K) w_m),   S[j - s + K, 2m + 1] = cos((j - s + K) w_m)

whose angles stay small, since j is counted from the block's start: S covers the distance K and a block on either side.
Sums over j are the adjoint: they are accumulated against S and rotated back once at the end. Where |j - i| > K, R is
one of two rows, and its product is one number for each query. So a block of keys near the queries costs one more
product than plain attention in the scores and one in the sums; a block far from them costs none.

NOT YET RUN ON A GPU. So nothing uses it until you call `enable()`, and converted folders do not carry this file. Tests
check its numbers in Triton's interpreter, in float32 and float16, and that it compiles for compute capabilities 8.0 and
9.0, bfloat16 too.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import attention_nezha


def enable() -> None:
    """Let every NEZHA of the package `nezha` use this kernel on NVIDIA GPUs, wherever it fits.

    Models loaded with `trust_remote_code` run their folder's own code and do not see it.
    """
    attention_nezha.fused_attention = fused_relative_attention


def fused_relative_attention(
    query: Tensor, key: Tensor, value: Tensor, relations: Tensor, mask: Tensor | None = None, *, dropout: float = 0.0
) -> tuple[Tensor, None]:
    """`relative_attention` as one kernel.

    Shape:
        query, key, value: [B, H, L, d], d at most 128.
        relations: the table [2K + 1, d].
        mask: True where a query may attend to a key, [B or 1, 1, 1, L]; or None.
        result: [B, H, L, d], a view of [L, B, H, d]; and None where the reference has probabilities.
    """
    batch, _, length, _ = query.shape
    present = torch.ones(1, 1, 1, length, device=query.device) if mask is None else mask
    present = present.to(torch.int8).expand(batch, 1, 1, length)[:, 0, 0].contiguous()
    seed = int(torch.randint(2**31 - 1, ())) if dropout else 0
    return _FusedAttention.apply(query, key, value, relations, present, dropout, seed), None


class _FusedAttention(torch.autograd.Function):
    """For the backward pass it saves its inputs, its output, and each softmax's highest score and sum."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        relations: Tensor,
        present: Tensor,
        dropout: float,
        seed: int,
    ) -> Tensor:
        batch, heads, length, size = query.shape
        output = _sequence_first(query)
        # Not the sum's logarithm plus the highest score: if every key is masked, that score would swallow the sum.
        highest, total = torch.empty(2, batch * heads, length, device=query.device, dtype=torch.float32)
        options = _options(relations, query, dropout)
        tables = _tables(relations, size, options["BLOCK"])
        grid = (triton.cdiv(length, options["BLOCK"]), batch * heads)
        _forward[grid](
            *_with_strides(query, key, value, output),
            *tables,
            *(present, highest, total, seed, length, heads, size),
            **options,
        )
        ctx.save_for_backward(query, key, value, relations, present, output, highest, total)
        ctx.dropout, ctx.seed = dropout, seed
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, relations, present, output, highest, total = ctx.saved_tensors
        batch, heads, length, size = query.shape
        inner = (gradient.float() * output.float()).sum(-1).flatten(0, 1).contiguous()
        by_query, by_key, by_value = (_sequence_first(query) for _ in range(3))
        options = _options(relations, query, ctx.dropout)
        tables = _tables(relations, size, options["BLOCK"])
        grid = (triton.cdiv(length, options["BLOCK"]), batch * heads)
        shared = (present, highest, total, inner, ctx.seed, length, heads, size)
        _by_query[grid](*_with_strides(query, key, value, gradient, by_query), *tables, *shared, **options)
        pointers = _with_strides(query, key, value, gradient, by_key, by_value)
        _by_key_and_value[grid](*pointers, *tables, *shared, **options)
        return by_query, by_key, by_value, None, None, None, None


def _sequence_first(like: Tensor) -> Tensor:
    batch, heads, length, size = like.shape
    return like.new_empty(length, batch, heads, size).permute(1, 2, 0, 3)


def _with_strides(*tensors: Tensor) -> list[Any]:
    """Each tensor [B, H, L, d], followed by its strides."""
    return [argument for tensor in tensors for argument in (tensor, *tensor.stride())]


def _options(relations: Tensor, query: Tensor, dropout: float) -> dict[str, Any]:
    size = max(16, triton.next_power_of_2(query.shape[-1]))
    return {
        "scale": query.shape[-1] ** -0.5,
        "dropout": dropout,
        "CLIP": relations.shape[0] // 2,
        "SIZE": size,
        # Queries (and keys) that a program holds at a time. They fit a small GPU's 99 KiB of shared memory.
        "BLOCK": 64 if size * query.element_size() <= 128 else 32,
        "DROPOUT": dropout > 0,
        "num_stages": 1,
    }


def _tables(relations: Tensor, size: int, block: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """R [2K + 1, d]; S [2K + 4 m, d] from the index -2 m on; the rotations' cosines and signed sines [m, d].

    m is the block size. Angles are computed in float64, as in `relative_position_table`. With an odd size, the last
    column is not rotated.
    """
    clip, device = relations.shape[0] // 2, relations.device
    pairs = torch.arange(0, size - 1, 2, device=device, dtype=torch.float64)
    frequency = 10000.0 ** -(pairs / size)
    angle = torch.arange(-2 * block, 2 * clip + 2 * block, device=device)[:, None] * frequency
    turn = torch.arange(block, device=device)[:, None] * frequency

    def columns(even: Tensor, odd: Tensor, last: float) -> Tensor:
        table = torch.stack((even, odd), dim=-1).flatten(1)
        return torch.nn.functional.pad(table, (0, size % 2), value=last).float().contiguous()

    return (
        relations.float().contiguous(),
        columns(angle.sin(), angle.cos(), 0.0),
        columns(turn.cos(), turn.cos(), 1.0),
        columns(turn.sin(), -turn.sin(), 0.0),
    )


@triton.jit
def _load(pointer, start, column, length, size, stride_l, stride_d, BLOCK: tl.constexpr):  # noqa: N803
    """Rows start .. start + BLOCK - 1 of one head; zero outside the sequence."""
    row = start + tl.arange(0, BLOCK)
    inside = (row[:, None] < length) & (column[None, :] < size)
    return tl.load(pointer + row[:, None] * stride_l + column[None, :] * stride_d, mask=inside, other=0.0)


@triton.jit
def _rotations(cosines, sines, size, BLOCK: tl.constexpr, SIZE: tl.constexpr):  # noqa: N803
    row, column = tl.arange(0, BLOCK)[:, None], tl.arange(0, SIZE)[None, :]
    inside = column < size
    cosine = tl.load(cosines + row * size + column, mask=inside, other=0.0)
    return cosine, tl.load(sines + row * size + column, mask=inside, other=0.0)


@triton.jit
def _sinusoids(table, start, size, CLIP: tl.constexpr, BLOCK: tl.constexpr, SIZE: tl.constexpr):  # noqa: N803
    """S for a block of keys that starts `start` after the block of queries."""
    row = start + CLIP + 2 * BLOCK + tl.arange(0, BLOCK)[:, None]
    column = tl.arange(0, SIZE)[None, :]
    inside = (row >= 0) & (row < 2 * CLIP + 4 * BLOCK) & (column < size)
    return tl.load(table + row * size + column, mask=inside, other=0.0)


@triton.jit
def _one_row(table, index, size, SIZE: tl.constexpr):  # noqa: N803
    column = tl.arange(0, SIZE)
    return tl.load(table + index * size + column, mask=column < size, other=0.0)[None, :]


@triton.jit
def _scores(vectors, rotated, left, right, rows, sinusoid, distance, near, CLIP: tl.constexpr):  # noqa: N803
    """x_i . (y_j + R[p(i, j)]) for a block of queries and a block of keys."""
    scores = tl.dot(vectors, tl.trans(rows), input_precision="ieee")
    if near:
        relative = tl.dot(rotated, tl.trans(sinusoid).to(rotated.dtype), input_precision="ieee")
        scores += tl.where(distance < -CLIP, left, tl.where(distance > CLIP, right, relative))
    else:
        scores += tl.where(distance < 0, left, right)
    return scores


@triton.jit
def _back(gathered, cosine, sine, lefts, rights, first, last, BLOCK: tl.constexpr, SIZE: tl.constexpr):  # noqa: N803
    """The sums over R: what was gathered against S, rotated back, plus the two far rows."""
    even, odd = tl.split(tl.reshape(gathered, (BLOCK, SIZE // 2, 2)))
    swapped = tl.reshape(tl.join(odd, even), (BLOCK, SIZE))
    return gathered * cosine - swapped * sine + lefts * first + rights * last


@triton.jit
def _kept(seed, head, query, key, length, dropout):
    """Which probabilities dropout keeps: one random number for each head, query and key."""
    offset = (head.to(tl.int64) * length + query[:, None]) * length + key[None, :]
    return tl.rand(seed, offset) >= dropout


@triton.jit
def _forward(
    q, q_b, q_h, q_l, q_d, k, k_b, k_h, k_l, k_d, v, v_b, v_h, v_l, v_d, o, o_b, o_h, o_l, o_d,
    table, sinusoids, cosines, sines, present, highests, totals, seed, length, heads, size, scale, dropout,
    CLIP: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr,  # noqa: N803
):  # fmt: skip
    start, head = tl.program_id(0) * BLOCK, tl.program_id(1)
    batch, column = head // heads, tl.arange(0, SIZE)
    q += batch * q_b + head % heads * q_h
    k += batch * k_b + head % heads * k_h
    v += batch * v_b + head % heads * v_h
    o += batch * o_b + head % heads * o_h
    first, last = _one_row(table, 0, size, SIZE), _one_row(table, 2 * CLIP, size, SIZE)
    cosine, sine = _rotations(cosines, sines, size, BLOCK, SIZE)

    queries = _load(q, start, column, length, size, q_l, q_d, BLOCK)
    rotated = (queries * cosine + _load(q, start, column ^ 1, length, size, q_l, q_d, BLOCK) * sine).to(queries.dtype)
    left, right = tl.sum(queries * first, 1)[:, None], tl.sum(queries * last, 1)[:, None]
    query = start + tl.arange(0, BLOCK)

    highest = tl.full((BLOCK,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    sums, gathered = tl.zeros((BLOCK, SIZE), tl.float32), tl.zeros((BLOCK, SIZE), tl.float32)
    lefts, rights = tl.zeros((BLOCK, 1), tl.float32), tl.zeros((BLOCK, 1), tl.float32)
    for key_start in range(0, length, BLOCK):
        key = key_start + tl.arange(0, BLOCK)
        distance = key[None, :] - query[:, None]
        near = (key_start - start < CLIP + BLOCK) & (start - key_start < CLIP + BLOCK)
        keys = _load(k, key_start, column, length, size, k_l, k_d, BLOCK)
        values = _load(v, key_start, column, length, size, v_l, v_d, BLOCK)
        sinusoid = _sinusoids(sinusoids, key_start - start, size, CLIP, BLOCK, SIZE)
        scores = _scores(queries, rotated, left, right, keys, sinusoid, distance, near, CLIP) * scale
        seen = tl.load(present + batch * length + key, mask=key < length, other=0) != 0
        # Masked keys get a finite score, as in the other forms: if all are masked, all weigh the same. Keys past the
        # end of the sequence get minus infinity.
        scores = tl.where(seen[None, :], scores, -3.0e38)
        scores = tl.where(key[None, :] < length, scores, -float("inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        shrink = tl.exp(highest - higher)
        weights = tl.exp(scores - higher[:, None])
        total = total * shrink + tl.sum(weights, 1)
        highest = higher
        if DROPOUT:
            weights = tl.where(_kept(seed, head, query, key, length, dropout), weights / (1 - dropout), 0.0)
        sums = sums * shrink[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="ieee")
        far_left = tl.where(distance < -CLIP, weights, 0.0)
        far_right = tl.where(distance > CLIP, weights, 0.0)
        lefts = lefts * shrink[:, None] + tl.sum(far_left, 1)[:, None]
        rights = rights * shrink[:, None] + tl.sum(far_right, 1)[:, None]
        gathered = gathered * shrink[:, None]
        if near:
            close = (weights - far_left - far_right).to(values.dtype)
            gathered += tl.dot(close, sinusoid.to(values.dtype), input_precision="ieee")
    output = (sums + _back(gathered, cosine, sine, lefts, rights, first, last, BLOCK, SIZE)) / total[:, None]
    inside = (query[:, None] < length) & (column[None, :] < size)
    tl.store(o + query[:, None] * o_l + column[None, :] * o_d, output.to(queries.dtype), mask=inside)
    tl.store(highests + head * length + query, highest, mask=query < length)
    tl.store(totals + head * length + query, total, mask=query < length)


@triton.jit
def _by_scores(
    scores, by_weights, highest, total, inner, seen, seed, head, query, key, length, dropout,
    DROPOUT: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """The weights after dropout and the gradient of the scores, for a block of queries and keys."""
    scores = tl.where(seen, scores, -3.0e38)
    inside = (key[None, :] < length) & (query[:, None] < length)
    weights = tl.where(inside, tl.exp(scores - highest[:, None]) / total[:, None], 0.0)
    dropped = weights
    if DROPOUT:
        kept = _kept(seed, head, query, key, length, dropout)
        dropped = tl.where(kept, weights / (1 - dropout), 0.0)
    # A masked score is a constant, even if every key is masked and its weight is not zero.
    return dropped, tl.where(seen, dropped * by_weights - weights * inner[:, None], 0.0)


@triton.jit
def _by_query(
    q, q_b, q_h, q_l, q_d, k, k_b, k_h, k_l, k_d, v, v_b, v_h, v_l, v_d, g, g_b, g_h, g_l, g_d, o, o_b, o_h, o_l, o_d,
    table, sinusoids, cosines, sines, present, highests, totals, inners, seed, length, heads, size, scale, dropout,
    CLIP: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr,  # noqa: N803
):  # fmt: skip
    start, head = tl.program_id(0) * BLOCK, tl.program_id(1)
    batch, column = head // heads, tl.arange(0, SIZE)
    q += batch * q_b + head % heads * q_h
    k += batch * k_b + head % heads * k_h
    v += batch * v_b + head % heads * v_h
    g += batch * g_b + head % heads * g_h
    o += batch * o_b + head % heads * o_h
    first, last = _one_row(table, 0, size, SIZE), _one_row(table, 2 * CLIP, size, SIZE)
    cosine, sine = _rotations(cosines, sines, size, BLOCK, SIZE)

    queries = _load(q, start, column, length, size, q_l, q_d, BLOCK)
    rotated = (queries * cosine + _load(q, start, column ^ 1, length, size, q_l, q_d, BLOCK) * sine).to(queries.dtype)
    left, right = tl.sum(queries * first, 1)[:, None], tl.sum(queries * last, 1)[:, None]
    grads = _load(g, start, column, length, size, g_l, g_d, BLOCK)
    turned = (grads * cosine + _load(g, start, column ^ 1, length, size, g_l, g_d, BLOCK) * sine).to(grads.dtype)
    g_left, g_right = tl.sum(grads * first, 1)[:, None], tl.sum(grads * last, 1)[:, None]
    query = start + tl.arange(0, BLOCK)
    highest = tl.load(highests + head * length + query, mask=query < length, other=0.0)
    total = tl.load(totals + head * length + query, mask=query < length, other=1.0)
    inner = tl.load(inners + head * length + query, mask=query < length, other=0.0)

    sums, gathered = tl.zeros((BLOCK, SIZE), tl.float32), tl.zeros((BLOCK, SIZE), tl.float32)
    lefts, rights = tl.zeros((BLOCK, 1), tl.float32), tl.zeros((BLOCK, 1), tl.float32)
    for key_start in range(0, length, BLOCK):
        key = key_start + tl.arange(0, BLOCK)
        distance = key[None, :] - query[:, None]
        near = (key_start - start < CLIP + BLOCK) & (start - key_start < CLIP + BLOCK)
        keys = _load(k, key_start, column, length, size, k_l, k_d, BLOCK)
        values = _load(v, key_start, column, length, size, v_l, v_d, BLOCK)
        sinusoid = _sinusoids(sinusoids, key_start - start, size, CLIP, BLOCK, SIZE)
        scores = _scores(queries, rotated, left, right, keys, sinusoid, distance, near, CLIP) * scale
        by_weights = _scores(grads, turned, g_left, g_right, values, sinusoid, distance, near, CLIP)
        seen = (tl.load(present + batch * length + key, mask=key < length, other=0) != 0)[None, :]
        _, by_scores = _by_scores(
            scores, by_weights, highest, total, inner, seen, seed, head, query, key, length, dropout, DROPOUT
        )
        sums += tl.dot(by_scores.to(keys.dtype), keys, input_precision="ieee")
        far_left = tl.where(distance < -CLIP, by_scores, 0.0)
        far_right = tl.where(distance > CLIP, by_scores, 0.0)
        lefts += tl.sum(far_left, 1)[:, None]
        rights += tl.sum(far_right, 1)[:, None]
        if near:
            close = (by_scores - far_left - far_right).to(keys.dtype)
            gathered += tl.dot(close, sinusoid.to(keys.dtype), input_precision="ieee")
    output = (sums + _back(gathered, cosine, sine, lefts, rights, first, last, BLOCK, SIZE)) * scale
    inside = (query[:, None] < length) & (column[None, :] < size)
    tl.store(o + query[:, None] * o_l + column[None, :] * o_d, output.to(queries.dtype), mask=inside)


@triton.jit
def _by_key_and_value(
    q, q_b, q_h, q_l, q_d, k, k_b, k_h, k_l, k_d, v, v_b, v_h, v_l, v_d, g, g_b, g_h, g_l, g_d,
    dk, dk_b, dk_h, dk_l, dk_d, dv, dv_b, dv_h, dv_l, dv_d,
    table, sinusoids, cosines, sines, present, highests, totals, inners, seed, length, heads, size, scale, dropout,
    CLIP: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr,  # noqa: N803
):  # fmt: skip
    key_start, head = tl.program_id(0) * BLOCK, tl.program_id(1)
    batch, column = head // heads, tl.arange(0, SIZE)
    q += batch * q_b + head % heads * q_h
    k += batch * k_b + head % heads * k_h
    v += batch * v_b + head % heads * v_h
    g += batch * g_b + head % heads * g_h
    dk += batch * dk_b + head % heads * dk_h
    dv += batch * dv_b + head % heads * dv_h
    first, last = _one_row(table, 0, size, SIZE), _one_row(table, 2 * CLIP, size, SIZE)
    cosine, sine = _rotations(cosines, sines, size, BLOCK, SIZE)

    keys = _load(k, key_start, column, length, size, k_l, k_d, BLOCK)
    values = _load(v, key_start, column, length, size, v_l, v_d, BLOCK)
    key = key_start + tl.arange(0, BLOCK)
    seen = (tl.load(present + batch * length + key, mask=key < length, other=0) != 0)[None, :]

    by_key, by_value = tl.zeros((BLOCK, SIZE), tl.float32), tl.zeros((BLOCK, SIZE), tl.float32)
    for start in range(0, length, BLOCK):
        query = start + tl.arange(0, BLOCK)
        distance = key[None, :] - query[:, None]
        near = (key_start - start < CLIP + BLOCK) & (start - key_start < CLIP + BLOCK)
        queries = _load(q, start, column, length, size, q_l, q_d, BLOCK)
        rotated = queries * cosine + _load(q, start, column ^ 1, length, size, q_l, q_d, BLOCK) * sine
        rotated = rotated.to(queries.dtype)
        left, right = tl.sum(queries * first, 1)[:, None], tl.sum(queries * last, 1)[:, None]
        grads = _load(g, start, column, length, size, g_l, g_d, BLOCK)
        turned = (grads * cosine + _load(g, start, column ^ 1, length, size, g_l, g_d, BLOCK) * sine).to(grads.dtype)
        g_left, g_right = tl.sum(grads * first, 1)[:, None], tl.sum(grads * last, 1)[:, None]
        highest = tl.load(highests + head * length + query, mask=query < length, other=0.0)
        total = tl.load(totals + head * length + query, mask=query < length, other=1.0)
        inner = tl.load(inners + head * length + query, mask=query < length, other=0.0)
        sinusoid = _sinusoids(sinusoids, key_start - start, size, CLIP, BLOCK, SIZE)
        scores = _scores(queries, rotated, left, right, keys, sinusoid, distance, near, CLIP) * scale
        by_weights = _scores(grads, turned, g_left, g_right, values, sinusoid, distance, near, CLIP)
        weights, by_scores = _by_scores(
            scores, by_weights, highest, total, inner, seen, seed, head, query, key, length, dropout, DROPOUT
        )
        by_value += tl.dot(tl.trans(weights).to(grads.dtype), grads, input_precision="ieee")
        by_key += tl.dot(tl.trans(by_scores).to(queries.dtype), queries, input_precision="ieee")
    inside = (key[:, None] < length) & (column[None, :] < size)
    tl.store(dk + key[:, None] * dk_l + column[None, :] * dk_d, (by_key * scale).to(keys.dtype), mask=inside)
    tl.store(dv + key[:, None] * dv_l + column[None, :] * dv_d, by_value.to(values.dtype), mask=inside)
