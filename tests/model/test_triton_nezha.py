"""The fused kernel: its numbers in Triton's interpreter, and that it compiles for GPUs that are not there.

conftest.py asks for the interpreter; with TRITON_INTERPRET=0 and an NVIDIA GPU, the same tests run on that.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import upstream

from nezha import attention_nezha
from nezha.attention_nezha import expand_relative_positions, relative_attention, relative_position_table

triton = pytest.importorskip("triton")
from triton import language as tl  # noqa: E402

from nezha import triton_nezha  # noqa: E402

DEVICE = torch.device("cpu" if os.environ["TRITON_INTERPRET"] == "1" else "cuda")


@triton.jit
def kept_kernel(out, seed, length, dropout, BLOCK: tl.constexpr):  # noqa: N803
    head = tl.program_id(0)
    row = tl.arange(0, BLOCK)
    kept = triton_nezha._kept(seed, head, row, row, length, dropout)
    inside = (row[:, None] < length) & (row[None, :] < length)
    tl.store(out + (head * length + row[:, None]) * length + row[None, :], kept.to(tl.float32), mask=inside)


def random_inputs(shape, dtype=torch.float32, seed=0):
    batch, heads, length, size = shape
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(4, length, batch, heads, size, generator=generator).to(DEVICE, dtype)
    return [one.permute(1, 2, 0, 3) for one in drawn]


def both(shape, clip, dtype=torch.float32, mask=None):
    """Outputs and gradients, of the kernel and of the reference in float64."""
    *inputs, gradient = random_inputs(shape, dtype)
    found = []
    for convert, attend in (
        (lambda one: one, lambda *given: triton_nezha.fused_relative_attention(*given)[0]),
        (lambda one: one.double(), lambda *given: relative_attention(*given)[0]),
    ):
        leaves = [convert(one).detach().clone().requires_grad_() for one in inputs]
        table = relative_position_table(
            clip, shape[-1], device=DEVICE, dtype=torch.promote_types(leaves[0].dtype, torch.float32)
        )
        exact = table.dtype == torch.float64
        output = attend(*leaves, expand_relative_positions(table, shape[2]) if exact else table, mask)
        found.append((output, *torch.autograd.grad(output, leaves, convert(gradient))))
    return zip(*found, strict=True)


SHAPES = [  # B, H, L, d; K
    ((2, 2, 1, 16), 3),
    ((1, 2, 70, 16), 4),
    ((1, 1, 150, 64), 64),
    ((1, 1, 200, 33), 20),  # an odd head size, padded to 64
    ((1, 1, 100, 5), 1),
    ((1, 1, 130, 128), 100),  # no key is far from its query
]


@pytest.mark.parametrize("padding", ["none", "right", "scattered", "everything"])
@pytest.mark.parametrize(("shape", "clip"), SHAPES)
def test_outputs_and_gradients_are_those_of_the_reference(shape, clip, padding):
    position = torch.arange(shape[2], device=DEVICE)
    mask = {
        "none": None,
        "right": position < max(1, shape[2] * 2 // 3),
        "scattered": position * 37 % 11 < 7,
        "everything": position < 0,
    }[padding]
    mask = None if mask is None else mask[None, None, None]
    for number, (actual, expected) in enumerate(both(shape, clip, mask=mask)):
        tolerance = 2e-6 if number == 0 else 3e-6 * max(1.0, expected.abs().max().item())
        torch.testing.assert_close(actual.double(), expected, rtol=0, atol=tolerance)


def test_half_precision_stays_near_the_exact_result():
    for actual, expected in both((1, 2, 150, 32), 20, dtype=torch.float16):
        assert actual.dtype == torch.float16
        torch.testing.assert_close(actual.double(), expected, rtol=5e-3, atol=5e-3)


def test_dropout_drops_at_its_rate_and_gradients_go_through_what_it_left():
    rate, clip, (batch, heads, length, size) = 0.3, 20, (1, 2, 100, 16)
    torch.manual_seed(4)
    seed = int(torch.randint(2**31 - 1, ()))
    kept = torch.zeros(batch * heads, length, length, device=DEVICE)
    kept_kernel[(batch * heads,)](kept, seed, length, rate, BLOCK=128)
    count = kept.numel()
    assert abs(kept.double().mean() - (1 - rate)) < 4 * (rate * (1 - rate) / count) ** 0.5

    *inputs, gradient = random_inputs((batch, heads, length, size))
    leaves = [one.detach().clone().requires_grad_() for one in inputs]
    table = relative_position_table(clip, size, device=DEVICE)
    torch.manual_seed(4)
    actual = triton_nezha.fused_relative_attention(*leaves, table, dropout=rate)[0]

    exact = [one.detach().double().requires_grad_() for one in inputs]
    relations = expand_relative_positions(
        relative_position_table(clip, size, device=DEVICE, dtype=torch.float64), length
    )
    weights = relative_attention(*exact, relations)[1] * kept.double().view(batch, heads, length, length) / (1 - rate)
    expected = weights @ exact[2] + torch.einsum("bhij,ijd->bhid", weights, relations)
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=3e-6)
    found = torch.autograd.grad(actual, leaves, gradient)
    wanted = torch.autograd.grad(expected, exact, gradient.double())
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=3e-6 * max(1.0, other.abs().max().item()))


def test_it_is_off_until_it_is_enabled(monkeypatch):
    assert attention_nezha.fused_attention is None
    monkeypatch.setattr(attention_nezha, "fused_attention", None)  # and so again after the test
    triton_nezha.enable()
    assert attention_nezha.fused_attention is triton_nezha.fused_relative_attention


COMPILE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton
from nezha import triton_nezha
capability = int(sys.argv[1])
for kernel in (triton_nezha._forward, triton_nezha._by_query, triton_nezha._by_key_and_value):
    constants = {"CLIP": 64, "SIZE": 64, "BLOCK": 64, "DROPOUT": True}
    kinds = dict.fromkeys(("q", "k", "v", "o", "g", "dk", "dv"), "*bf16")
    kinds |= dict.fromkeys(("table", "sinusoids", "cosines", "sines", "highests", "totals", "inners"), "*fp32")
    kinds |= {"present": "*i8", "scale": "fp32", "dropout": "fp32", **dict.fromkeys(constants, "constexpr")}
    signature = {name: kinds.get(name, "i32") for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_stages": 1})
    assert compiled.asm["cubin"]
    print(kernel.__name__, compiled.metadata.shared)
"""


@pytest.mark.parametrize("capability", [80, 90])
def test_it_compiles_for_a_gpu_within_the_shared_memory_of_a_small_one(capability, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    folders = [Path(triton.__file__).parents[1], Path(__file__).parents[2]]
    lines = upstream.run_python(COMPILE, str(capability), path=folders).splitlines()
    assert len(lines) == 3
    for line in lines:
        assert int(line.split()[-1]) <= 99 * 1024, line
