"""Compare whole-word masking with transformers' own collator, in tokens a second of one process.

    python benchmarks/masking.py [--pairs 15] [--text FILE]

Both take the same sequences of 128 tokens in batches of 32 and of 256 and return padded tensors. The examples contain
the word boundaries: word starts for ours, character offsets for theirs, as each documents it. The two take turns; each
ratio is of neighbouring runs. Time is CPU time of the process, so that other programs matter little. The table also
shows how long the masked words are, and the text below it what finding the boundaries costs. Replaces its section of
``benchmarks/RESULTS.md``.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

import jieba  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from results import machine, ratios, spread, write_section  # noqa: E402
from transformers import BertTokenizer, DataCollatorForLanguageModeling  # noqa: E402
from whole_word_masking import WholeWordMasking, encode  # noqa: E402

TITLE = "Whole-word masking"
LENGTH, SEQUENCES = 128, 2048


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument(
        "--text", type=Path, help="Chinese text; default: words of jieba's dictionary, drawn by frequency"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = options.text.read_text("utf-8") if options.text else invented()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({*text} - {*" \n"})]
    tokenizer = BertTokenizer({token: number for number, token in enumerate(vocabulary)})
    started = time.process_time()
    ours, theirs = examples(text, tokenizer)
    encoding = SEQUENCES * LENGTH / (time.process_time() - started)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it replaces by [MASK] only
        upstream = DataCollatorForLanguageModeling(tokenizer, whole_word_mask=True, seed=0)
    contenders = {"this collator": (WholeWordMasking(tokenizer), ours), "transformers'": (upstream, theirs)}
    rows = []
    for batch in (32, 256):
        seconds = measure(contenders, batch, options.pairs)
        for name, times in seconds.items():
            collator, data = contenders[name]
            rate = [SEQUENCES * LENGTH / 1e6 / second for second in times]
            share, word = masked(collator, data, batch)
            rows.append(
                f"| {batch} | {name} | {spread(rate)} | {spread(ratios(seconds['this collator'], times))} "
                f"| {100 * share:.1f} % | {word:.1f} |"
            )
    lines = [
        f"`python benchmarks/masking.py`: sequences of {LENGTH} tokens, one process, CPU time; {options.pairs} "
        f"interleaved rounds of {SEQUENCES * LENGTH:,} tokens. transformers {transformers.__version__}. {machine()}",
        "",
        "| batch | collator | million tokens/s (quartiles) | time, ours / this | masked | tokens a masked run |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "transformers' collator takes tokens without a gap between them for one word, so of running Chinese it masks a "
        "whole row or nothing, and it replaces by [MASK] alone. Ours masks jieba's words, 80/10/10.",
        "",
        f"Finding the boundaries, once in `map`: {encoding / 1e3:.0f} thousand tokens/s a process, with tokenizer and "
        "jieba.",
    ]
    write_section(TITLE, lines)
    print("\n".join(lines))


def invented() -> str:
    """Lines of twenty words of jieba's dictionary, drawn by frequency, with a comma in the middle."""
    jieba.initialize()
    words = [word for word, count in jieba.dt.FREQ.items() if count and all("\u4e00" <= c <= "\u9fa5" for c in word)]
    rng = random.Random(0)  # noqa: S311  not for secrets
    drawn = rng.choices(words, [jieba.dt.FREQ[word] for word in words], k=SEQUENCES * LENGTH)
    lines = ("".join(drawn[i : i + 10]) + "，" + "".join(drawn[i + 10 : i + 20]) for i in range(0, len(drawn), 20))
    return "。\n".join(lines)


def examples(text: str, tokenizer: BertTokenizer) -> tuple[list[dict], list[dict]]:
    """The same sequences in the form of our collator and in that of transformers'."""
    ids = np.concatenate(encode(text.split("\n"), tokenizer), 1)
    width = LENGTH - 2
    ours, theirs = [], []
    for number in range(SEQUENCES):
        tokens, starts = ids[:, number * width % (ids.shape[1] - width) :][:, :width].tolist()
        tokens = [tokenizer.cls_token_id, *tokens, tokenizer.sep_token_id]
        ours.append({"input_ids": tokens, "token_type_ids": [0] * LENGTH, "word_starts": [1, *starts, 1]})
        # The offsets of running text: one character a token, no spaces.
        offsets = [(0, 0), *((i, i + 1) for i in range(width)), (0, 0)]
        special = [1, *[0] * width, 1]
        theirs.append(
            {
                "input_ids": tokens,
                "token_type_ids": [0] * LENGTH,
                "offset_mapping": offsets,
                "special_tokens_mask": special,
            }
        )
    return ours, theirs


def measure(contenders: dict[str, tuple[Callable, list[dict]]], batch: int, pairs: int) -> dict[str, list[float]]:
    """Seconds of every round by contender; the first round is a warm-up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(pairs + 1):
        for name, (collator, data) in contenders.items():
            started = time.process_time()
            for start in range(0, len(data), batch):
                collator(data[start : start + batch])
            if number:
                seconds[name].append(time.process_time() - started)
    return seconds


def masked(collator: Callable, data: list[dict], batch: int) -> tuple[float, float]:
    """The share of the tokens to predict, and the mean length of the runs of such tokens."""
    chosen = np.concatenate(
        [collator(data[i : i + batch])["labels"].numpy() != -100 for i in range(0, len(data), batch)]
    )
    runs = chosen[:, 0].sum() + (chosen[:, 1:] & ~chosen[:, :-1]).sum()
    return chosen.sum() / (len(chosen) * (LENGTH - 2)), chosen.sum() / max(runs, 1)


if __name__ == "__main__":
    main()
