"""Compare the forms of NEZHA's attention on a GPU with flash attention without relative positions, which is BERT's.

    python benchmarks/gpu.py [--rounds 20] [--shapes 8x128 1x4096 ...] [--dtype bfloat16] [--device cuda]

One call with NEZHA-base's 12 heads of size 64, K = 64; forward, and forward with backward. The subjects take turns, and
each ratio is of neighbouring runs. The peak is of what torch allocated beyond the inputs. The error is the root mean
square of the difference to the reference form in float64 (of outputs; of gradients together), over that of the result.
A subject that cannot compute a shape has what it said in its row. Replaces its section of ``benchmarks/RESULTS.md``.

Never run on a GPU yet. `--device cpu` shows that the script runs: there, FlexAttention is not compiled, and has no
backward pass.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from attention import CLIP, HEAD_SIZE, HEADS
from results import machine, ratios, spread, write_section
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from nezha.attention_nezha import expand_relative_positions, relative_attention, relative_position_table
from nezha.flex_nezha import flex_relative_attention

SHAPES = ["8x128", "8x512", "4x1024", "2x2048", "1x4096"]


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    rows = [row for shape in options.shapes for backward in (False, True) for row in compare(shape, backward, options)]
    device = torch.cuda.get_device_name() if options.device == "cuda" else "the CPU"
    lines = [
        f"`python benchmarks/gpu.py`: one call on {device}, {HEADS} heads of size {HEAD_SIZE}, K = {CLIP}, "
        f"{options.dtype}; {options.rounds} interleaved rounds. {machine()}",
        "",
        "| batch x length | | form | milliseconds, median (quartiles) | / plain SDPA | peak MiB | error |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]
    write_section("Attention on a GPU", lines)
    print("\n".join(lines))


def subjects(length: int, dtype: torch.dtype, device: str) -> dict[str, Callable[..., Tensor]]:
    """By name, what computes attention of queries, keys and values [B, H, L, d]."""
    table = relative_position_table(CLIP, HEAD_SIZE, dtype=dtype, device=torch.device(device))

    def triton(*inputs: Tensor) -> Tensor:
        from nezha import triton_nezha

        return triton_nezha.fused_relative_attention(*inputs, table)[0]

    return {
        "plain SDPA": scaled_dot_product_attention,
        "FlexAttention": lambda *inputs: flex_relative_attention(*inputs, table)[0],
        "Triton kernel": triton,
        "reference": lambda *inputs: relative_attention(*inputs, expand_relative_positions(table, length))[0],
    }


def compare(shape: str, backward: bool, options: argparse.Namespace) -> list[str]:
    """The rows of a shape."""
    batch, length = map(int, shape.split("x"))
    dtype = getattr(torch, options.dtype)
    torch.manual_seed(0)
    drawn = torch.randn(4, length, batch, HEADS, HEAD_SIZE, device=options.device).to(dtype)
    *inputs, gradient = (one.permute(1, 2, 0, 3) for one in drawn)
    calls = subjects(length, dtype, options.device)
    said: dict[str, str] = {}
    figures: dict[str, list[float]] = {name: [] for name in calls}
    peaks: dict[str, float] = {}
    for number in range(options.rounds + 3):  # the first rounds compile
        for name, call in calls.items():
            if name in said:
                continue
            try:
                seconds, peaks[name] = measure(call, inputs, gradient if backward else None)
            except (RuntimeError, ImportError) as error:
                said[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:100]}"
                continue
            if number >= 3:
                figures[name].append(seconds)
        print(f"{shape}{' backward' if backward else ''}: round {number} of {options.rounds + 2}", flush=True)
    in_float64 = subjects(length, torch.float64, options.device)["reference"]
    exact = result(in_float64, inputs, gradient, backward, double=True)
    rows = []
    for name, call in calls.items():
        start = f"| {shape} | {'forward and backward' if backward else 'forward'} | {name} |"
        if name in said:
            rows.append(f"{start} {said[name]} | | | |")
            continue
        error = "" if name == "plain SDPA" else errors(result(call, inputs, gradient, backward), exact)
        ratio = spread(ratios(figures[name], figures["plain SDPA"]))
        milliseconds = spread([1e3 * second for second in figures[name]], 3)
        rows.append(f"{start} {milliseconds} | {ratio} | {peaks[name]:.0f} | {error} |")
    return rows


def measure(call: Callable[..., Tensor], inputs: list[Tensor], gradient: Tensor | None) -> tuple[float, float]:
    """Seconds of a call, and the MiB that it had allocated at most; without a GPU, 0."""
    on_gpu = inputs[0].is_cuda
    leaves = [tensor.detach().requires_grad_(gradient is not None) for tensor in inputs]
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_gpu else 0
    started = time.perf_counter()
    with torch.set_grad_enabled(gradient is not None):
        output = call(*leaves)
        if gradient is not None:
            output.backward(gradient)
    if on_gpu:
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    return time.perf_counter() - started, (peak - before) / 2**20


def result(
    call: Callable[..., Tensor], inputs: list[Tensor], gradient: Tensor, backward: bool, *, double: bool = False
) -> list[Tensor]:
    """The output, and with `backward` the gradients of queries, keys and values, in float64; of one sequence."""
    kind = torch.float64 if double else inputs[0].dtype
    leaves = [tensor[:1].detach().to(kind).requires_grad_(backward) for tensor in inputs]
    with torch.set_grad_enabled(backward):
        output = call(*leaves)
        found = [output, *(torch.autograd.grad(output, leaves, gradient[:1].to(kind)) if backward else ())]
    return [one.detach().double() for one in found]


def errors(found: list[Tensor], exact: list[Tensor]) -> str:
    """Root mean squares of the differences, relative: of the output, and of the gradients if there are some."""

    def relative(some: list[Tensor], right: list[Tensor]) -> str:
        both = [torch.cat([one.flatten() for one in tensors]) for tensors in (some, right)]
        return f"{(both[0] - both[1]).norm() / both[1].norm():.1e}"

    return ", ".join(relative(found[part], exact[part]) for part in (slice(1), slice(1, None)) if found[part])


if __name__ == "__main__":
    main()
