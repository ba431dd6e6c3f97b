"""Functional relative attention: what makes NEZHA of a BERT.

For a head of size d, a clip distance K, and i, j the positions of a query and a key:

    p(i, j)     = clip(j - i, -K, K) + K                                   in [0, 2K]
    R[p, 2m]    = sin(p / 10000^(2m / d))
    R[p, 2m+1]  = cos(p / 10000^(2m / d))                                  fixed, never trained
    s(i, j)     = (q_i . k_j + q_i . R[p(i, j)]) / sqrt(d)                 minus infinity where masked
    a(i, .)     = softmax of s(i, .)
    out_i       = sum over j of a(i, j) (v_j + R[p(i, j)])

This is section 3.1 of arXiv 1909.00204 with one difference: the paper writes the sinusoid of the signed distance j - i,
while the code that trained the released weights takes it of the shifted index p (NEZHA-TensorFlow/modeling.py, lines
705-759, in huawei-noah/Pretrained-Language-Model). The weights were trained with the code's table, so it is used here.

R depends on positions alone: not on the input, the head or the layer. So a model needs one table of 2K + 1 rows (33 KB
for NEZHA-base), expanded to [L, L, d] once a forward pass and shared by all its layers; and nothing limits L.

Four forms compute the same numbers; `choose_attention` picks one for a forward pass. They need R for two linear
maps only. Each is the other's adjoint, and both the forward and the backward pass use both:

    scores(X, Y)_ij = x_i . (y_j + R[p(i, j)])                   of queries, keys; of the output's gradient, values
    mix(W, Y)_i     = sum over j of w_ij (y_j + R[p(i, j)])      of probabilities, values; of the scores' gradient, keys

Reference. It expands R to [L, L, d] and computes the formulas as written. It can return the probabilities, and torch
can trace it.

Gathered. Of a query's product with all rows of R, each key takes its own row's number. For the values, each row has the
weight of its keys: of one key for 0 < p < 2K, of all keys from i + K on for p = 2K, and of the rest for p = 0. It is
for programs of `torch.export`: a compiler merges the taking with the softmax.

Short. It expands R too. For a fixed i, the terms with R are ordinary matrix products, batched over the position i
instead of batch and head. With the sequence first in memory, batch and head merge into B H without a copy:

    x_i . R[p(i, j)]                       [B H, d] x [d, L]
    sum over j of w_ij R[p(i, j)]          [B H, L] x [L, d]

Long. Expanded, R would have L rows for each query, and all but 2K - 1 of them would be R[0] (keys far to the left) or
R[2K] (keys far to the right). Take a block of queries i = s + r,
0 <= r < m <= 2K. With T = R - R[0] and t = T[2K], shift the rows of Y:

    y'_j             = y_j + R[0] + [j >= s + K] t
    y_j + R[p(i, j)] = y'_j + T[p(i, j)] - [j >= s + K] t

What is added to y'_j is 0 for j <= i - K, where T[0] = 0 and j < s + K, and for j >= i + K, where T[2K] = t and
j >= s + K. A band remains, j = i - K + 1 + c with 0 <= c < 2K, and in it T[c + 1] - [r + c >= 2K - 1] t. For scores it
is one product with T[1:], 2K wide, less a fixed triangle of that product's last column; `mix` is the adjoint. In memory
the band lies along a diagonal: its row r + 1 starts L + 1 entries after its row r, so a strided view selects it. At
both ends of the sequence this view runs into neighbouring rows; those entries are neither changed nor used. The blocks
run from last to first, so that t is added to each row of Y only once.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

BLOCK = 128
"""Queries that the long form takes at a time: few enough for their scores to stay in cache."""

GROUP = 2**22
"""Bytes for the scores of a block. The long form takes as many sequences at once as fit into it: fewer and larger
operations, whose results still stay in cache."""

IN_HARDWARE = {
    torch.bfloat16: ("avx512_bf16", "amx_bf16", "bf16"),
    torch.float16: ("avx512_fp16", "amx_fp16", "fp16_arith"),
}
"""What a processor has, by its names in `torch.cpu.get_capabilities`, if it multiplies matrices of a type at least as
fast as those of float32."""

Attention = Callable[..., tuple[Tensor, Tensor | None]]
"""A form of attention: takes what `relative_attention` takes, returns what it returns."""

fused_attention: Attention | None = None
"""A kernel for NVIDIA GPUs to use instead of the reference form; `nezha.triton_nezha.enable()` sets it."""


def relative_position_table(
    max_relative_position: int, head_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """The sinusoids of every clipped distance: R above.

    Args:
        max_relative_position: K, in tokens, at least 1.
        head_size: d. With an odd d the last column has no partner and is 0, as in Huawei's code.
        device, dtype: those of the result; None means torch's defaults.

    Shape:
        result: [2K + 1, d]; row p is the distance p - K.
    """
    # Computed in float64, then cast: in float32 the angles alone would be off by 4.5e-6. MPS has no float64.
    computed_on = torch.device("cpu") if device is not None and device.type == "mps" else device
    index = torch.arange(2 * max_relative_position + 1, device=computed_on, dtype=torch.float64)
    exponent = torch.arange(0, head_size - 1, 2, device=computed_on, dtype=torch.float64) / head_size
    angle = index[:, None] / 10000.0**exponent
    table = torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)
    table = functional.pad(table, (0, head_size % 2))
    return table.to(device=device, dtype=dtype or torch.get_default_dtype())


def expand_relative_positions(table: Tensor, length: int, past: int = 0) -> Tensor:
    """R[p(i, j)] for every query and key of a sequence whose first `past` tokens are keys alone.

    Shape:
        table: [2K + 1, d], of `relative_position_table`.
        result: [length, past + length, d], indexed by the query's position i - past, then the key's position j.
    """
    clip = table.shape[0] // 2
    position = torch.arange(past + length, device=table.device)
    return table[(position[None, :] - position[past:, None]).clamp(-clip, clip) + clip]


def multiplied_as(dtype: torch.dtype) -> torch.dtype:
    """The type in which the fast forms multiply tensors of `dtype`: itself, or float32 where it is faster."""
    # torch 2.10 does not tell what the processor has.
    has: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    in_hardware = any(has.get(name) for name in IN_HARDWARE.get(dtype, ()))
    return dtype if in_hardware else torch.promote_types(dtype, torch.float32)


def type_of_products(tensor: Tensor) -> torch.dtype:
    """The type in which linear layers give their results for `tensor`: its own, or autocast's."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


def is_traced() -> bool:
    """Whether torch records this pass, to run it again on other inputs."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_exported() -> bool:
    """Whether `torch.export` records this pass: its program runs where there are no operators of ours."""
    # Before torch 2.7 nothing tells it from `torch.compile`, which is the one that needs gradients.
    is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: not torch.is_grad_enabled())
    return torch.compiler.is_compiling() and is_exporting()


def is_compiled_for_inference() -> bool:
    """Whether `torch.compile` records this pass, and without gradients."""
    return torch.compiler.is_compiling() and not is_exported() and not torch.is_grad_enabled()


def choose_attention(
    table: Tensor,
    length: int,
    mask: Tensor | None = None,
    *,
    dtype: torch.dtype | None = None,
    past: int = 0,
    reference: bool = False,
) -> tuple[Attention, Tensor]:
    """Choose the form of attention for a forward pass, and prepare R for it.

    Args:
        table: [2K + 1, d], of `relative_position_table`, on the device of the pass; in float32 where `dtype` has fewer
            bits, since the long form takes differences of its rows.
        length: L, of its sequences.
        mask: of the pass, [B or 1, H or 1, L or 1, past + L].
        dtype: of queries, keys and values; None means the table's.
        past: how many keys come before the L queries and their own keys.
        reference: True demands the reference form, as `output_attentions` does.

    Returns:
        `relative_attention`, `fast_relative_attention`, `compiled_relative_attention`, `gathered_relative_attention` or
        `fused_attention`; and R as this form takes it: the expanded table for the reference and the short form, the
        table for the others.
    """
    # The fast forms take boolean masks. A traced program cannot contain strided diagonals; `torch.compile` makes of the
    # reference form what is as fast as the short form, and can call the long one.
    dtype = dtype or table.dtype
    if is_exported() and not reference:
        return gathered_relative_attention, table
    rounded = table.to(dtype)
    added = mask is not None and mask.dtype != torch.bool
    if not (past or reference or added):
        on_cpu = table.device.type == "cpu"
        if is_traced():
            if on_cpu and is_compiled_for_inference() and _is_long(length, table):
                return compiled_relative_attention, table
        elif on_cpu:
            if _is_long(length, table):
                return fast_relative_attention, table
            return fast_relative_attention, expand_relative_positions(rounded.to(multiplied_as(dtype)), length)
        elif fused_attention and _fits_kernel(rounded, mask):
            return fused_attention, rounded
    return relative_attention, expand_relative_positions(rounded, length, past)


def _is_long(length: int, table: Tensor) -> bool:
    # In shorter sequences the long form's blocks would be small, and it would not save any products.
    return length >= max(table.shape[0] - 1, BLOCK) + BLOCK // 2


def _fits_kernel(table: Tensor, mask: Tensor | None) -> bool:
    by_key = mask is None or mask.shape[1:3] == (1, 1)
    return by_key and table.is_cuda and table.dtype != torch.float64 and table.shape[1] <= 128


def relative_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    relations: Tensor,
    mask: Tensor | None = None,
    *,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Self-attention with relative positions in its scores and in its values: the reference form.

    The softmax is computed in float32 or better. If every key of a query is masked, the query attends to all keys
    equally; its output is finite but meaningless.

    Args:
        mask: True where a query may attend to a key; None lets every query attend to every key. A floating mask is
            added to the scores.
        dropout: probability of dropping an attention probability; 0 outside of training.

    Shape:
        query: [B, H, L, d].
        key, value: [B, H, past + L, d].
        relations: [L, past + L, d], of `expand_relative_positions`.
        mask: broadcastable to [B, H, L, past + L].
        result: [B, H, L, d], and the probabilities after dropout [B, H, L, past + L].
    """
    query = query * query.shape[-1] ** -0.5
    scores = query @ key.transpose(-1, -2) + torch.einsum("bhid,ijd->bhij", query, relations)
    probabilities = functional.dropout(_softmax(scores, mask).to(value.dtype), dropout)
    context = probabilities @ value + torch.einsum("bhij,ijd->bhid", probabilities, relations)
    return context, probabilities


def gathered_relative_attention(
    query: Tensor, key: Tensor, value: Tensor, table: Tensor, mask: Tensor | None = None, *, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """`relative_attention` in the gathered form, for programs of `torch.export`.

    Shape:
        the same, with the table [2K + 1, d] for `relations`.
    """
    length, keys, clip = query.shape[2], key.shape[2], table.shape[0] // 2
    position = torch.arange(keys, device=query.device)
    own = position[keys - length :, None]
    distance, inner = position - own, own + torch.arange(1 - clip, clip, device=query.device)

    def of_each(tensor: Tensor, index: Tensor) -> Tensor:
        return tensor.gather(-1, index.expand(*tensor.shape[:2], -1, -1))

    query = query * query.shape[-1] ** -0.5
    with_rows = query @ table.to(query.dtype).T
    scores = query @ key.transpose(-1, -2) + of_each(with_rows, distance.clamp(-clip, clip) + clip)
    weights = functional.dropout(_softmax(scores, mask), dropout)
    near = of_each(weights, inner.clamp(0, keys - 1)).masked_fill((inner < 0) | (inner >= keys), 0)
    after = weights.masked_fill(distance < clip, 0).sum(-1, keepdim=True)
    before = weights.sum(-1, keepdim=True) - near.sum(-1, keepdim=True) - after
    of_rows = (torch.cat((before, near, after), -1) @ table).to(value.dtype)
    probabilities = weights.to(value.dtype)
    return probabilities @ value + of_rows, probabilities


def _softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """The softmax of scores [B, H, L, past + L] where `mask` allows it, in float32 or better."""
    scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    if mask is not None and mask.dtype != torch.bool:
        scores = (scores + mask).clamp_min(torch.finfo(scores.dtype).min)  # minus infinity would give NaN
    elif mask is not None:
        # The lowest finite value, not minus infinity, which would turn a fully masked row into NaN.
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1)


def fast_relative_attention(
    query: Tensor, key: Tensor, value: Tensor, relations: Tensor, mask: Tensor | None = None, *, dropout: float = 0.0
) -> tuple[Tensor, None]:
    """`relative_attention` in the short or the long form, with its own backward pass.

    It multiplies what `multiplied_as` says; sums and exponentials are in float32 or better. Dropout draws from torch's
    generator, but in another way than `functional.dropout`: for the same seed it drops other probabilities.

    Shape:
        query, key, value: [B, H, L, d]; best as views of [L, B, H, d].
        relations: [L, L, d] for the short form, the table [2K + 1, d] for the long one; both of `choose_attention`.
        mask: boolean, broadcastable to [B, H, L, L].
        result: [B, H, L, d], a view of [L, B, H, d]; and None where the reference has probabilities.
    """
    dtype = multiplied_as(query.dtype)
    needs_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    if mask is not None:
        mask = None if mask.all() else mask[(None,) * (4 - mask.dim())]
    if dtype == torch.float16 and mask is not None and not mask.any(-1).all():
        dtype = torch.float32  # the lowest float16 is too near to swallow every score of a query without keys
    with torch.autocast("cpu", enabled=False):
        inputs = (tensor.to(dtype) for tensor in (query, key, value))
        return _FastAttention.apply(*inputs, relations, mask, dropout, needs_grad).to(query.dtype), None


def compiled_relative_attention(
    query: Tensor, key: Tensor, value: Tensor, relations: Tensor, mask: Tensor | None = None, *, dropout: float = 0.0
) -> tuple[Tensor, None]:
    """`fast_relative_attention` in the long form, as one operator of a compiled program, without gradients.

    Shape:
        the same, with the table [2K + 1, d] as `relations`.
    """
    return _long_form(query, key, value, relations, mask, dropout), None


@torch.library.custom_op(
    # Each copy of this file has an operator of its own: converted folders bring one, from folders of any name.
    f"nezha_{zlib.crc32(__name__.encode()):08x}::long_form",
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor value, Tensor table, Tensor? mask, float dropout) -> Tensor",
)
def _long_form(query: Tensor, key: Tensor, value: Tensor, table: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    return fast_relative_attention(query, key, value, table, mask, dropout=dropout)[0]


@_long_form.register_fake
def _like_long_form(
    query: Tensor, key: Tensor, value: Tensor, table: Tensor, mask: Tensor | None, dropout: float
) -> Tensor:
    return _sequence_first(query)


class _FastAttention(torch.autograd.Function):
    """Softmax attention by the `scores` and `mix` of a form, one block of queries at a time.

    For the backward pass it saves all B H L^2 probabilities; a negative sign marks one that dropout dropped.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        relations: Tensor,
        mask: Tensor | None,
        dropout: float,
        needs_grad: bool,
    ) -> Tensor:
        form, scale = _form(relations, query), query.shape[-1] ** -0.5
        saved: list[Tensor] = []
        bias = None
        if mask is not None:
            # Adding the lowest finite value swallows the score: if every key is masked, all keys get the same weight.
            lowest = torch.finfo(query.dtype).min
            bias = torch.zeros(mask.shape, dtype=query.dtype).masked_fill_(~mask, lowest)
        output = _sequence_first(query)
        for biases, (queries, keys, values, outputs) in form.groups(bias, query, key, value, output):
            # What is the same for all keys of a query changes no probability.
            keys, values = form.rows(keys, up_to_a_constant=True), form.rows(values)
            for block in form.blocks:
                form.shift(block, keys, values)
                probabilities = form.memory("saved" if needs_grad else "scores", block, len(queries))
                bias = None if biases is None else _queries(biases, block)
                form.scores(queries[:, block], keys, block, bias, scale, out=probabilities)
                torch.softmax(probabilities, dim=-1, out=probabilities)
                weights = probabilities
                if dropout:
                    _drop_by_sign(probabilities, dropout)
                    weights = torch.clamp(probabilities, min=0, out=form.memory("weights", block, len(queries)))
                form.mix(weights, values, block, out=outputs[:, block])
                if needs_grad:
                    saved.append(probabilities)
        if dropout:
            output *= _scale_of_kept(dropout)
        ctx.dropout = dropout
        ctx.save_for_backward(query, key, value, relations, mask, *saved)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, relations, mask, *saved = ctx.saved_tensors
        form, unused = _form(relations, query), iter(saved)
        scale, scale_of_kept = query.shape[-1] ** -0.5, _scale_of_kept(ctx.dropout)
        # If every key of a query is masked, its scores are constant and pass no gradient.
        dead = None if mask is None or mask.any(-1).all() else ~mask.any(-1, keepdim=True)
        by_query, by_key, by_value = (_sequence_first(query) for _ in range(3))
        tensors = (query, key, value, gradient, by_query, by_key, by_value)
        with torch.autocast("cpu", enabled=False):
            for deads, group in form.groups(dead, *tensors):
                queries, keys, values, gradients, for_query, for_key, for_value = group
                # The gradients of a query's scores have the sum 0, so a constant changes no gradient of the query.
                keys, values = form.rows(keys, up_to_a_constant=True), form.rows(values)
                of_keys, of_values = torch.zeros_like(keys), torch.zeros_like(values)
                for block in form.blocks:
                    form.shift(block, keys, values)
                    probabilities = next(unused)
                    weights, by_scores = (form.memory(use, block, len(queries)) for use in ("weights", "scores"))
                    of_block = _packed(gradients[:, block])
                    torch.clamp(probabilities, min=0, out=weights)
                    of_values.baddbmm_(weights.transpose(1, 2), of_block, alpha=scale_of_kept)
                    form.scores(of_block, values, block, None, scale_of_kept, out=by_scores)
                    if ctx.dropout:
                        by_scores.masked_fill_(probabilities.signbit(), 0)
                        torch.abs(probabilities, out=weights)
                    torch.ops.aten._softmax_backward_data.out(
                        by_scores, weights, -1, by_scores.dtype, grad_input=by_scores
                    )
                    if deads is not None:
                        by_scores.masked_fill_(_queries(deads, block), 0)
                    form.mix(by_scores, keys, block, out=for_query[:, block])
                    of_keys.baddbmm_(by_scores.transpose(1, 2), _packed(queries[:, block]), alpha=scale)
                for_key.copy_(of_keys)
                for_value.copy_(of_values)
        return by_query.mul_(scale), by_key, by_value, None, None, None, None


class _Form(Protocol):
    """The short or the long form: how it groups heads, blocks queries, and computes `scores` and `mix` for a block."""

    blocks: list[slice]
    """The queries of each block, in the order to compute them."""

    def groups(self, optional: Tensor | None, *tensors: Tensor) -> Iterable[tuple[Tensor | None, list[Tensor]]]:
        """Views of what broadcasts to [B, H, ...], one group of heads at a time."""

    def rows(self, tensor: Tensor, *, up_to_a_constant: bool = False) -> Tensor:
        """Keys or values of a group, as `shift`, `scores` and `mix` take them; perhaps less a constant vector."""

    def shift(self, block: slice, *rows: Tensor) -> None:
        """Prepare `rows` in place for `block`; called for the blocks in order."""

    def memory(self, use: str, block: slice, heads: int) -> Tensor:
        """Uninitialised scores of a block of a group; what is "saved" shares no memory with others."""

    def scores(
        self, vectors: Tensor, rows: Tensor, block: slice, bias: Tensor | None, scale: float, out: Tensor
    ) -> None:
        """Write bias + scale x scores(vectors, rows) to `out`, which is of `memory`."""

    def mix(self, weights: Tensor, rows: Tensor, block: slice, out: Tensor) -> None:
        """Write mix(weights, rows) to `out`; the weights are of `memory`."""


class _Short:
    """The short form: one group of B H heads, one block of L queries."""

    def __init__(self, relations: Tensor, query: Tensor) -> None:
        self.relations = relations.to(query.dtype)
        self.batch, self.heads, self.length, _ = query.shape
        self.blocks = [slice(0, self.length)]

    def groups(self, optional: Tensor | None, *tensors: Tensor) -> Iterable[tuple[Tensor | None, list[Tensor]]]:
        """What broadcasts to [B, H, ...], as one group [B H, ...]."""

        def merged(tensor: Tensor) -> Tensor:
            return tensor.expand(self.batch, self.heads, -1, -1).flatten(0, 1)

        yield None if optional is None else merged(optional), [merged(tensor) for tensor in tensors]

    def rows(self, tensor: Tensor, *, up_to_a_constant: bool = False) -> Tensor:
        """Keys or values [B H, L, d]."""
        return _packed(tensor)

    def shift(self, block: slice, *rows: Tensor) -> None:
        """Does nothing: the short form uses unshifted rows."""

    def memory(self, use: str, block: slice, heads: int) -> Tensor:
        """New memory for scores [B H, L, L]."""
        return self.relations.new_empty(heads, self.length, self.length)

    def scores(
        self, vectors: Tensor, rows: Tensor, block: slice, bias: Tensor | None, scale: float, out: Tensor
    ) -> None:
        """Vectors and rows [B H, L, d] to bias + scale x scores [B H, L, L]."""
        relative = torch.bmm(vectors.transpose(0, 1), self.relations.transpose(1, 2)).transpose(0, 1)
        if bias is None:  # a copy is faster than a sum
            beta = scale
            out.copy_(relative)
        else:
            beta = 1.0
            torch.add(bias, relative, alpha=scale, out=out)
        out.baddbmm_(_packed(vectors), rows.transpose(1, 2), beta=beta, alpha=scale)

    def mix(self, weights: Tensor, rows: Tensor, block: slice, out: Tensor) -> None:
        """Weights [B H, L, L] and rows [B H, L, d] to [B H, L, d]."""
        mixed = out.transpose(0, 1)
        mixed.copy_(torch.bmm(weights, rows).transpose(0, 1))
        mixed.baddbmm_(weights.transpose(0, 1), self.relations)


class _Long:
    """The long form: groups of whole sequences, blocks of m queries. The names are those of the derivation above."""

    def __init__(self, table: Tensor, query: Tensor) -> None:
        self.batch, self.heads, self.length, _ = query.shape
        # Widen a smaller K to BLOCK / 2: the added rows repeat the outermost ones, so no score changes.
        clip = table.shape[0] // 2
        self.clip = max(clip, BLOCK // 2)
        table = table[torch.arange(-self.clip, self.clip + 1).clamp(-clip, clip) + clip]
        # Rounded last: differences of rounded rows would be rounded twice.
        self.first, self.band = table[0].to(query.dtype), (table[1:] - table[0]).to(query.dtype)
        # In longer blocks, the band of one head would run into that of the next.
        size = min(BLOCK, self.length + 1 - 2 * self.clip)
        self.blocks = [slice(start, min(start + size, self.length)) for start in range(0, self.length, size)][::-1]
        row, column = torch.arange(size)[:, None], torch.arange(2 * self.clip)
        self.triangle = (row + column >= 2 * self.clip - 1).to(query.dtype)
        self.inside: dict[int, Tensor] = {}
        self.scratch: dict[str, Tensor] = {}
        for block in self.blocks:
            position = block.start - self.clip + 1 + row[: block.stop - block.start] + column
            inside = (position >= 0) & (position < self.length)
            if not inside.all():
                self.inside[block.start] = inside.to(query.dtype)

    def groups(self, optional: Tensor | None, *tensors: Tensor) -> Iterable[tuple[Tensor | None, list[Tensor]]]:
        """What broadcasts to [B, H, ...], as groups [G, ...] of the heads of some sequences."""
        scores = self.heads * self.triangle.shape[0] * self.length * self.band.element_size()
        count = max(1, GROUP // scores)

        def of(start: int, tensor: Tensor) -> Tensor:
            return tensor.expand(self.batch, self.heads, -1, -1)[start : start + count].flatten(0, 1)

        for start in range(0, self.batch, count):
            yield None if optional is None else of(start, optional), [of(start, tensor) for tensor in tensors]

    def rows(self, tensor: Tensor, *, up_to_a_constant: bool = False) -> Tensor:
        """Keys or values y [G, L, d] as a new tensor y + R[0], or y, which `shift` changes in place."""
        rows = tensor.clone(memory_format=torch.contiguous_format)
        return rows if up_to_a_constant else rows.add_(self.first)

    def shift(self, block: slice, *rows: Tensor) -> None:
        """Turn y' for the following block (for the last block: the result of `rows`) into y' for `block`."""
        size = self.triangle.shape[0]
        for tensor in rows:
            tensor[:, block.start + self.clip : block.start + self.clip + size] += self.band[-1]

    def memory(self, use: str, block: slice, heads: int) -> Tensor:
        """Memory for scores [G, m, L], with room on both sides for the diagonal's view.

        All blocks of all groups share the memory of one use, unless the use is "saved". The first group is the largest.
        """
        slack, rows = 2 * self.clip, block.stop - block.start
        size = heads * rows * self.length
        if use == "saved" or use not in self.scratch:
            most = heads * self.triangle.shape[0] * self.length
            memory = self.scratch[use] = self.band.new_empty(slack + most + slack)
            memory[:slack], memory[slack + size :] = 0, 0  # `_inside` multiplies what the view finds there
        return self.scratch[use][slack : slack + size].view(heads, rows, self.length)

    def scores(
        self, vectors: Tensor, rows: Tensor, block: slice, bias: Tensor | None, scale: float, out: Tensor
    ) -> None:
        """Vectors [G, m, d] and shifted rows [G, L, d] to bias + scale x scores [G, m, L], in `memory`."""
        vectors = vectors.contiguous()
        torch.baddbmm(out, vectors, rows.transpose(1, 2), beta=0, alpha=scale, out=out)
        band = vectors @ self.band.T
        band.addcmul_(band[..., -1:].clone(), self.triangle[: band.shape[1]], value=-1)
        self._diagonal(out, block).add_(self._inside(band, block), alpha=scale)
        if bias is not None:
            out += bias

    def mix(self, weights: Tensor, rows: Tensor, block: slice, out: Tensor) -> None:
        """Weights [G, m, L], in `memory`, and shifted rows [G, L, d] to [G, m, d]."""
        band = self._inside(self._diagonal(weights, block).clone(), block)
        band[..., -1] -= (band * self.triangle[: band.shape[1]]).sum(-1)
        out.copy_((band @ self.band).baddbmm_(weights, rows))

    def _diagonal(self, scores: Tensor, block: slice) -> Tensor:
        """The band [G, m, 2K] of scores [G, m, L], as a view."""
        heads, rows, length = scores.shape
        start = scores.storage_offset() + block.start - self.clip + 1
        return scores.as_strided((heads, rows, 2 * self.clip), (rows * length, length + 1, 1), start)

    def _inside(self, band: Tensor, block: slice) -> Tensor:
        """The band, with zeros where it leaves the sequence."""
        inside = self.inside.get(block.start)
        return band if inside is None else band.mul_(inside)  # takes half as long as `masked_fill_`


def _form(relations: Tensor, query: Tensor) -> _Form:
    return _Short(relations, query) if relations.dim() == 3 else _Long(relations, query)


def _sequence_first(like: Tensor) -> Tensor:
    """Uninitialised memory for a result [B, H, L, d] whose L comes first in memory, as the next layer needs it."""
    batch, heads, length, size = like.shape
    return like.new_empty(length, batch, heads, size).permute(1, 2, 0, 3)


def _packed(vectors: Tensor) -> Tensor:
    """`vectors` as products take them. oneDNN, which multiplies half precision, copies what has other strides."""
    return vectors if vectors.dtype in (torch.float32, torch.float64) else vectors.contiguous()


def _queries(tensor: Tensor, block: slice) -> Tensor:
    """The rows of a block, of a tensor [heads, L or 1, ...]."""
    return tensor if tensor.shape[1] == 1 else tensor[:, block]


def fast_dropout(tensor: Tensor, rate: float) -> Tensor:
    """`functional.dropout` of a tensor on the CPU, four times faster: torch's own takes 3 % of a training step."""
    return tensor * (_uniform(tensor) >= _threshold(rate)).to(tensor.dtype).mul_(_scale_of_kept(rate))


def _drop_by_sign(probabilities: Tensor, rate: float) -> None:
    """Give each probability a negative sign, independently, with the chance `rate`."""
    kept = torch.ge(_uniform(probabilities), _threshold(rate), out=torch.empty_like(probabilities))
    torch.copysign(probabilities, kept.sub_(0.5), out=probabilities)


def _uniform(like: Tensor) -> Tensor:
    """Independent random integers from -2^15 to 2^15 - 1. It is fast because each draw of 64 bits gives four."""
    draws = torch.empty((like.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    return draws.view(torch.int16)[: like.numel()].view(like.shape)


def _threshold(rate: float) -> int:
    """The number that a share `rate` of `_uniform`'s numbers is below; the rate is rounded to a multiple of 2^-16."""
    return round(rate * 2**16) - 2**15


def _scale_of_kept(rate: float) -> float:
    """What dropout multiplies kept values by, so that the expected sum stays the same; 0 if it drops everything."""
    dropped = round(rate * 2**16) / 2**16
    return 0.0 if dropped == 1 else 1 / (1 - dropped)
