"""Compare NEZHA's attention with attention without relative positions, which is what BERT has.

    python benchmarks/attention.py [--pairs 15] [--threads 2] [--shapes 8x128 4x512 ...]

One call with NEZHA-base's 12 heads of size 64, K = 64; in training, forward and backward with dropout 0.1. The bound
is torch's `scaled_dot_product_attention` on the same shapes; the reference is the form that `"eager"` selects. All run
in one process, in turns; each ratio is of neighbouring runs. Replaces its section of ``benchmarks/RESULTS.md``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from results import machine, ratios, spread, write_section
from torch.nn.functional import scaled_dot_product_attention

from nezha.attention_nezha import (
    choose_attention,
    expand_relative_positions,
    relative_attention,
    relative_position_table,
)

HEADS, HEAD_SIZE, CLIP, DROPOUT = 12, 64, 64, 0.1


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shapes", nargs="+", default=["8x64", "8x128", "4x256", "4x512", "1x1024", "1x2048"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [
        row(shape, training, options.pairs)
        for training in (False, True)
        for shape in options.shapes
        if not (training and shape == "1x2048")  # the reference's expanded gradients take minutes
    ]
    lines = [
        f"`python benchmarks/attention.py`: one call, {HEADS} heads of size {HEAD_SIZE}, K = {CLIP}, float32, "
        f"{options.threads} threads; {options.pairs} interleaved rounds. {machine()}",
        "",
        "| | batch x length | form | milliseconds, median (quartiles) | / plain SDPA | reference / this |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    write_section("Attention", lines)
    print("\n".join(lines))


def row(shape: str, training: bool, pairs: int) -> str:
    """One line of the table."""
    batch, length = map(int, shape.split("x"))
    # Laid out as in the models: the sequence first in NEZHA, the batch first in BERT.
    ours = [torch.randn(length, batch, HEADS, HEAD_SIZE).permute(1, 2, 0, 3) for _ in range(3)]
    plain = [torch.randn(batch, length, HEADS, HEAD_SIZE).transpose(1, 2) for _ in range(3)]
    table = relative_position_table(CLIP, HEAD_SIZE)
    attend, relations = choose_attention(table, length)
    expanded = expand_relative_positions(table, length)
    rate = DROPOUT if training else 0.0
    calls: dict[str, Callable[[], float]] = {
        "fast": lambda: timed(lambda q, k, v: attend(q, k, v, relations, dropout=rate)[0], ours, training),
        "plain": lambda: timed(lambda q, k, v: scaled_dot_product_attention(q, k, v, dropout_p=rate), plain, training),
        "reference": lambda: timed(
            lambda q, k, v: relative_attention(q, k, v, expanded, dropout=rate)[0], ours, training
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(pairs + 1):
        for name, call in calls.items():
            second = call()
            if number:
                seconds[name].append(second)
    form = "long" if relations.dim() == 2 else "short"
    print(f"{shape} {'training' if training else 'inference'}", flush=True)
    return (
        f"| {'training' if training else 'inference'} | {shape} | {form} "
        f"| {spread([1e3 * second for second in seconds['fast']], 1)} "
        f"| {spread(ratios(seconds['fast'], seconds['plain']))} "
        f"| {spread(ratios(seconds['reference'], seconds['fast']), 1)} |"
    )


def timed(attention: Callable[..., torch.Tensor], inputs: list[torch.Tensor], training: bool) -> float:
    """Seconds that a call takes, in training with its backward pass."""
    inputs = [tensor.detach().requires_grad_(training) for tensor in inputs]
    started = time.perf_counter()
    with torch.set_grad_enabled(training):
        output = attention(*inputs)
        if training:
            output.backward(output.detach())
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
