"""Functional relative attention, against the formulas written out as loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from nezha.attention_nezha import expand_relative_positions, relative_attention, relative_position_table


def sinusoid(index: int, column: int, head_size: int) -> float:
    """One entry of the table, by the formula of Huawei's code."""
    if column == head_size - 1 and head_size % 2:
        return 0.0
    angle = index / 10000 ** (2 * (column // 2) / head_size)
    return math.cos(angle) if column % 2 else math.sin(angle)


def attention_by_loops(query, key, value, clip, mask):
    """[B, H, L, d] in, [B, H, L, d] and [B, H, L, L] out: every sum and every distance spelt out."""
    batches, heads, length, head_size = query.shape
    context = np.zeros(query.shape)
    probabilities = np.zeros((batches, heads, length, length))
    for b, h, i in np.ndindex(batches, heads, length):
        relation = np.zeros((length, head_size))
        score = np.zeros(length)
        for j in range(length):
            index = min(max(j - i, -clip), clip) + clip
            relation[j] = [sinusoid(index, column, head_size) for column in range(head_size)]
            score[j] = sum(query[b, h, i] * (key[b, h, j] + relation[j])) / math.sqrt(head_size)
        weight = np.where(mask[b, h, i], np.exp(score - score[mask[b, h, i]].max()), 0.0)
        probabilities[b, h, i] = weight / weight.sum()
        for j in range(length):
            context[b, h, i] += probabilities[b, h, i, j] * (value[b, h, j] + relation[j])
    return context, probabilities


def random_inputs(shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)]


def relations_for(length, head_size, clip, dtype=torch.float64):
    return expand_relative_positions(relative_position_table(clip, head_size, dtype=dtype), length)


@pytest.mark.parametrize(("clip", "head_size"), [(64, 64), (127, 64), (1, 2), (3, 7), (64, 5), (2, 1)])
def test_the_table_is_the_interleaved_sinusoid_of_the_shifted_index(clip, head_size):
    table = relative_position_table(clip, head_size, dtype=torch.float64)
    expected = [[sinusoid(p, column, head_size) for column in range(head_size)] for p in range(2 * clip + 1)]
    torch.testing.assert_close(table, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-13)


def test_an_odd_head_size_leaves_the_last_column_of_the_table_zero():
    table = relative_position_table(4, 7)
    assert table.shape == (9, 7)
    assert not table[:, 6].any()
    assert table[1:, :6].all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_table_is_built_in_float64_and_rounded_once(dtype):
    exact = relative_position_table(64, 64, dtype=torch.float64)
    assert torch.equal(relative_position_table(64, 64, dtype=dtype), exact.to(dtype))


def test_a_distance_beyond_the_clip_counts_as_the_clip():
    relations = relations_for(9, 4, clip=2)
    assert torch.equal(relations[0, 2], relations[0, 8])
    assert torch.equal(relations[8, 6], relations[8, 0])
    assert not torch.equal(relations[0, 1], relations[0, 2])


def test_a_distance_has_a_direction():
    table = relative_position_table(3, 4)
    relations = expand_relative_positions(table, 5)
    assert torch.equal(relations[1, 3], table[3 + 2]), "the key stands two tokens after the query"
    assert torch.equal(relations[3, 1], table[3 - 2]), "the key stands two tokens before the query"
    assert torch.equal(relations[2, 2], table[3])


def test_nothing_limits_the_length():
    assert relations_for(1500, 2, clip=64, dtype=torch.float32).shape == (1500, 1500, 2)


@settings(max_examples=25, deadline=None)
@given(
    batches=st.integers(1, 2),
    heads=st.integers(1, 3),
    length=st.integers(1, 12),
    head_size=st.integers(1, 7),
    clip=st.integers(1, 14),
    seed=st.integers(0, 2**16),
)
def test_attention_equals_the_formulas_written_as_loops(batches, heads, length, head_size, clip, seed):
    query, key, value = random_inputs((batches, heads, length, head_size), seed)
    mask = torch.rand(batches, heads, length, length, generator=torch.Generator().manual_seed(seed)) < 0.7
    mask = mask | torch.eye(length, dtype=torch.bool)
    relations = relations_for(length, head_size, clip)
    context, probabilities = relative_attention(query, key, value, relations, mask)
    arrays = [tensor.numpy() for tensor in (query, key, value)]
    expected_context, expected_probabilities = attention_by_loops(*arrays, clip, mask.numpy())
    np.testing.assert_allclose(context.numpy(), expected_context, rtol=0, atol=1e-12)
    np.testing.assert_allclose(probabilities.numpy(), expected_probabilities, rtol=0, atol=1e-12)


def test_a_mask_may_be_anything_that_broadcasts():
    query, key, value = random_inputs((2, 3, 5, 4))
    relations = relations_for(5, 4, clip=2)
    keys = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)
    narrow, _ = relative_attention(query, key, value, relations, keys[:, None, None, :])
    wide, _ = relative_attention(query, key, value, relations, keys[:, None, None, :].expand(2, 3, 5, 5))
    assert torch.equal(narrow, wide)


def test_masked_keys_get_no_probability_at_all():
    query, key, value = random_inputs((1, 2, 6, 4), dtype=torch.float32)
    mask = torch.tensor([1, 1, 1, 1, 0, 0], dtype=torch.bool)
    _, probabilities = relative_attention(query, key, value, relations_for(6, 4, 3, torch.float32), mask)
    assert not probabilities[..., 4:].any()
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(1, 2, 6))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_query_with_every_key_masked_attends_to_all_alike(dtype):
    query, key, value = random_inputs((1, 2, 4, 4), dtype=dtype)
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[2] = False
    context, probabilities = relative_attention(query, key, value, relations_for(4, 4, 2, dtype), mask)
    assert context.isfinite().all()
    assert torch.equal(probabilities[:, :, 2], torch.full((1, 2, 4), 0.25, dtype=dtype))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
def test_half_precision_stays_near_the_exact_result(dtype, tolerance):
    exact_inputs = random_inputs((2, 2, 40, 8))
    exact, _ = relative_attention(*exact_inputs, relations_for(40, 8, 16))
    half, _ = relative_attention(*(one.to(dtype) for one in exact_inputs), relations_for(40, 8, 16, dtype))
    assert half.dtype == dtype
    assert (half.double() - exact).abs().max() / (exact.max() - exact.min()) < tolerance


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_softmax_of_half_precision_is_computed_in_float32(dtype):
    seen = []

    class Record(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if "softmax" in getattr(function, "__name__", ""):
                seen.append(args[0].dtype)
            return function(*args, **(kwargs or {}))

    inputs = random_inputs((1, 1, 6, 4), dtype=dtype)
    with Record():
        relative_attention(*inputs, relations_for(6, 4, 2, dtype))
    assert seen == [torch.float32]


def test_dropout_falls_on_the_probabilities_that_weigh_values_and_relations_alike():
    query, key, value = random_inputs((1, 1, 6, 4))
    relations = relations_for(6, 4, 3)
    torch.manual_seed(1)
    context, dropped = relative_attention(query, key, value, relations, dropout=0.5)
    _, kept = relative_attention(query, key, value, relations)
    assert ((dropped == 0) | torch.isclose(dropped, 2 * kept)).all()
    assert 0 < (dropped == 0).sum() < dropped.numel()
    expected = dropped @ value + torch.einsum("bhij,ijd->bhid", dropped, relations)
    torch.testing.assert_close(context, expected)


def test_gradients_are_those_of_the_formulas():
    inputs = [one.requires_grad_() for one in random_inputs((1, 2, 5, 3))]
    relations = relations_for(5, 3, 2)
    mask = torch.tensor([1, 1, 1, 1, 0], dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda q, k, v: relative_attention(q, k, v, relations, mask)[0], inputs)
