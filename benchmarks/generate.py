"""Time the generation of text: NEZHA-base with and without a cache of keys and values, beside BERT-base with one.

    python benchmarks/generate.py [--rounds 5] [--words 32] [--prompts 64 256]

Random weights, 12 layers, float32, one sequence, greedy; CPU time of one thread, so that the figures repeat on a shared
machine. The models take turns, and each ratio is of neighbouring runs. Replaces its section of
``benchmarks/RESULTS.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import torch
import transformers
from results import machine, ratios, spread, write_section

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import nezha

TITLE = "Generating text"


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--words", type=int, default=32)
    parser.add_argument("--prompts", type=int, nargs="+", default=[64, 256])
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    ours = nezha.NezhaForCausalLM(nezha.NezhaConfig(is_decoder=True)).eval()
    bert = transformers.BertLMHeadModel(transformers.BertConfig(vocab_size=21128, is_decoder=True)).eval()
    subjects = {
        "NEZHA, with a cache": (ours, True),
        "NEZHA, without": (ours, False),
        "BERT, with a cache": (bert, True),
    }
    rows = []
    for length in options.prompts:
        seconds: dict[str, list[float]] = {name: [] for name in subjects}
        for number in range(options.rounds + 1):
            for name, (model, use_cache) in subjects.items():
                taken = run(model, use_cache, length, options.words)
                if number:  # the first round is a warm-up
                    seconds[name].append(taken)
        kept = seconds["NEZHA, with a cache"]
        rows += [
            f"| {length} + {options.words} | {name} | {spread([1000 * one / options.words for one in taken], 0)} "
            f"| {options.words / median(taken):.1f} | {spread(ratios(kept, taken))} |"
            for name, taken in seconds.items()
        ]
    lines = [
        f"`python benchmarks/generate.py`: base size, random weights, float32, one sequence, greedy; CPU time of one "
        f"thread, {options.rounds} interleaved rounds. {machine()}",
        "",
        "| prompt + new tokens | model | ms a new token, median (quartiles) | tokens a second "
        "| NEZHA with a cache / this |",
        "|---|---|---|---|---|",
        *rows,
    ]
    write_section(TITLE, lines)
    print("\n".join(lines))


def run(model: torch.nn.Module, use_cache: bool, length: int, words: int) -> float:
    """CPU seconds of one text."""
    ids = torch.randint(1000, 20000, (1, length), generator=torch.Generator().manual_seed(length))
    options = {"min_new_tokens": words, "max_new_tokens": words, "do_sample": False, "pad_token_id": 0}
    begun = time.process_time()
    out = model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=use_cache, **options)
    assert out.shape[1] == length + words
    return time.process_time() - begun


if __name__ == "__main__":
    main()
