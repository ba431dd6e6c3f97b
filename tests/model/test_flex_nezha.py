"""The form by FlexAttention: its numbers and its gradients on the CPU, and when a model takes it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import flex_attention as torch_flex

import nezha
from nezha import attention_nezha, flex_nezha
from nezha.attention_nezha import expand_relative_positions, relative_attention, relative_position_table
from nezha.flex_nezha import flex_relative_attention


@pytest.fixture(autouse=True, scope="module")
def gradients_on_the_cpu():
    """FlexAttention computes gradients on the CPU by the formulas as written, but refuses to be asked for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_flex, "_validate_device", lambda *tensors: None)
        yield


def random_inputs(shape, dtype=torch.float64, seed=0):
    batch, heads, length, size = shape
    drawn = torch.randn(4, length, batch, heads, size, generator=torch.Generator().manual_seed(seed))
    return [one.permute(1, 2, 0, 3).to(dtype) for one in drawn]


def both(shape, clip, mask=None, dtype=torch.float64):
    """Output and gradients of this form in `dtype`, and of the reference form in float64."""
    *inputs, gradient = random_inputs(shape, dtype)
    found = []
    for attend, kind in ((flex_relative_attention, dtype), (relative_attention, torch.float64)):
        leaves = [one.to(kind).requires_grad_() for one in inputs]
        table = relative_position_table(clip, shape[-1], dtype=kind)
        relations = table if attend is flex_relative_attention else expand_relative_positions(table, shape[2])
        output = attend(*leaves, relations, mask)[0]
        found.append([output.detach(), *torch.autograd.grad(output, leaves, gradient.to(kind))])
    return list(zip(*found, strict=True))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_outputs_and_gradients_are_the_reference_forms(data):
    length = data.draw(st.integers(1, 70), "length")
    batch, clip, size = (data.draw(st.integers(1, most), name) for most, name in ((2, "B"), (20, "K"), (6, "d")))
    rows = data.draw(st.sampled_from([None, 1, batch]), "rows of the mask")
    mask = None
    if rows:
        mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=rows * length, max_size=rows * length)))
        mask = mask.view(rows, 1, 1, length)
        mask[..., data.draw(st.integers(0, length - 1), "a key that is there")] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex_nezha, "BLOCK", data.draw(st.integers(1, 40), "queries in a block"))
        patch.setattr(flex_nezha, "COLUMNS", data.draw(st.integers(1, 9), "columns"))
        for found, expected in both((batch, 2, length, size), clip, mask):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("part", "replaced"),
    [
        ("a clip distance that is one too small", lambda table: torch.cat((table[1:-1], table[:2]))),
        ("a table whose first row is off", lambda table: torch.cat((table[:1] + 1e-3, table[1:]))),
        ("a table whose last row is off", lambda table: torch.cat((table[:-1], table[-1:] + 1e-3))),
    ],
)
def test_another_table_gives_other_outputs(part, replaced):
    """So the comparison above sees each part of the table, the tails' rows, too."""
    *inputs, _ = random_inputs((1, 1, 60, 4))
    table = relative_position_table(8, 4, dtype=torch.float64)
    outputs = [flex_relative_attention(*inputs, one)[0] for one in (table, replaced(table))]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_errs_no_more_than_the_reference_form(dtype):
    shape, clip = (2, 2, 300, 16), 64
    *inputs, _ = random_inputs(shape, dtype)
    table = relative_position_table(clip, 16, dtype=dtype)
    reference = relative_attention(*inputs, expand_relative_positions(table, shape[2]))[0]
    (found, exact), *gradients = both(shape, clip, dtype=dtype)
    assert (found - exact).square().mean().sqrt() < 1.25 * (reference - exact).square().mean().sqrt()
    for gradient, expected in gradients:
        assert (gradient - expected).norm() < 0.02 * expected.norm()


def test_a_sequence_without_keys_has_finite_outputs_and_gradients():
    mask = torch.ones(2, 1, 1, 9, dtype=torch.bool)
    mask[1] = False
    found = both((2, 1, 9, 4), 3, mask)
    assert all(tensor.isfinite().all() for tensor, _ in found)
    for tensor, expected in found[:3]:
        torch.testing.assert_close(tensor[0], expected[0], rtol=0, atol=1e-12)


def test_the_mask_of_a_pass_is_prepared_once_and_forgotten_with_it():
    *inputs, _ = random_inputs((1, 1, 9, 4))
    table = relative_position_table(3, 4, dtype=torch.float64)
    before = len(flex_nezha._block_masks)
    mask = torch.arange(9)[None, None, None] < 5
    for _ in range(3):
        flex_relative_attention(*inputs, table, mask)
    assert len(flex_nezha._block_masks) == before + 1
    del mask
    assert len(flex_nezha._block_masks) == before


def test_dropout_is_the_reference_forms():
    *inputs, _ = random_inputs((1, 2, 9, 4))
    table = relative_position_table(3, 4, dtype=torch.float64)
    torch.manual_seed(1)
    found = flex_relative_attention(*inputs, table, dropout=0.5)
    torch.manual_seed(1)
    expected = relative_attention(*inputs, expand_relative_positions(table, 9), dropout=0.5)
    assert all(map(torch.equal, found, expected))


def test_a_whole_model_gives_the_same_with_it(monkeypatch):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 48}
    model = nezha.NezhaModel(nezha.NezhaConfig(vocab_size=50, max_relative_position=5, **sizes)).eval().double()
    ids = torch.randint(1, 50, (2, 40))
    mask = torch.arange(40)[None] < torch.tensor([[40], [23]])
    expected = model(ids, mask).last_hidden_state
    monkeypatch.setattr(attention_nezha, "fused_attention", None)
    flex_nezha.enable()
    assert attention_nezha.fused_attention is flex_relative_attention
    modeling = nezha.modeling_nezha
    calls = []

    def chosen(table, *args, **options):
        calls.append(table)
        return flex_relative_attention, table

    monkeypatch.setattr(modeling, "choose_attention", chosen)
    torch.testing.assert_close(model(ids, mask).last_hidden_state, expected, rtol=0, atol=1e-12)
    assert calls
