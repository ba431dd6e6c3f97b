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
705-759, in huawei-noah/Pretrained-Language-Model). The weights know the code's table, so this is the code's.

R depends on positions alone: not on the input, the head or the layer. So a model needs one table of 2K + 1 rows (33 KB
for NEZHA-base), expanded to [L, L, d] once a forward pass and shared by all its layers; and nothing limits L.

The two terms with R are ordinary products, batched over the query's position i instead of over batch and head:

    q_i . R[p(i, j)]               for a fixed i:   [B H, d] x [d, L]
    sum over j of a(i, j) R[...]   for a fixed i:   [B H, L] x [L, d]
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def relative_position_table(
    max_relative_position: int, head_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """The sinusoids of every clipped distance: R above.

    Args:
        max_relative_position: K, in tokens, at least 1.
        head_size: d. With an odd d the last column has no partner and is 0, as in Huawei's code.
        device, dtype: of the result; torch's defaults when None.

    Shape:
        result: [2K + 1, d]; row p is the distance p - K.
    """
    # Built in float64 and cast: computed in float32, the angles alone are off by 4.5e-6. MPS has no float64.
    on = "cpu" if device is not None and device.type == "mps" else device
    index = torch.arange(2 * max_relative_position + 1, device=on, dtype=torch.float64)
    exponent = torch.arange(0, head_size - 1, 2, device=on, dtype=torch.float64) / head_size
    angle = index[:, None] / 10000.0**exponent
    table = torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)
    table = functional.pad(table, (0, head_size % 2))
    return table.to(device=device, dtype=dtype or torch.get_default_dtype())


def expand_relative_positions(table: Tensor, length: int) -> Tensor:
    """R[p(i, j)] for every pair of positions in a sequence.

    Shape:
        table: [2K + 1, d], of `relative_position_table`.
        result: [length, length, d], indexed by the query's position i, then the key's position j.
    """
    clip = table.shape[0] // 2
    position = torch.arange(length, device=table.device)
    return table[(position[None, :] - position[:, None]).clamp(-clip, clip) + clip]


def relative_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    relations: Tensor,
    mask: Tensor | None = None,
    *,
    dropout: float = 0.0,
    output_attentions: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Self-attention with relative positions in its scores and in its values.

    The softmax is computed in float32 whatever the inputs' precision. A query all of whose keys are masked attends to
    all of them alike: its output is finite and means nothing.

    Args:
        mask: True where a query may attend to a key; None lets every query attend to every key.
        dropout: probability of dropping an attention probability; 0 outside of training.
        output_attentions: whether to return the probabilities too.

    Shape:
        query, key, value: [B, H, L, d].
        relations: [L, L, d], of `expand_relative_positions`.
        mask: boolean, broadcastable to [B, H, L, L].
        result: [B, H, L, d], and the probabilities after dropout [B, H, L, L] or None.
    """
    query = query * query.shape[-1] ** -0.5
    scores = query @ key.transpose(-1, -2) + torch.einsum("bhid,ijd->bhij", query, relations)
    scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    if mask is not None:
        # The lowest finite value, not minus infinity, which would turn a fully masked row into NaN.
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    probabilities = functional.dropout(scores.softmax(dim=-1).to(value.dtype), dropout)
    context = probabilities @ value + torch.einsum("bhij,ijd->bhid", probabilities, relations)
    return context, probabilities if output_attentions else None
