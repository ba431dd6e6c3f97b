"""What both sides compute on: deterministic inputs, and texts of the user's own, if they fit into memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from .oracle.formulas import Array

Inputs = dict[str, Array]

LONG = 520
"""Tokens of the long case: past 512, where the originals' tables and every BERT end."""

TOKENS_AT_ONCE = 4096
"""Tokens that the references compute on before their results are compared and dropped."""


def built_in_cases(config: Mapping[str, Any], clip: int, head: str) -> dict[str, Inputs]:
    """The cases that are always compared, the same each time: ids from everywhere in the vocabulary.

    Args:
        config: the converted folder's; says how many words and token types there are.
        clip: the source's clip distance.
        head: for multiple choice each case is one example, its rows are the choices.
    """
    random = np.random.default_rng(2019)
    shapes = {
        "short": (3, 8),
        "past the clip": (2, clip + 26),
        "past 512": (1, LONG),
        "padded": (2, 40),
        "pair": (2, 30),
    }
    cases = {}
    for name, shape in shapes.items():
        ids = random.integers(0, config["vocab_size"], shape)
        mask, types = np.ones(shape, np.int64), np.zeros(shape, np.int64)
        if name == "padded":
            mask[1, 16:], ids[1, 16:] = 0, 0
        if name == "pair":
            types[:, 12:] = min(1, config["type_vocab_size"] - 1)
        cases[name] = _case(head, ids, mask, types)
    return cases


def text_cases(lines: Sequence[str], tokenizer: Any, head: str) -> dict[str, Inputs]:
    """One case a line, tokenized by the converted tokenizer; a tab parts a pair of segments."""
    cases = {}
    for number, line in enumerate(lines, 1):
        encoded = tokenizer(*line.split("\t", 1), return_attention_mask=True, return_token_type_ids=True)
        names = ("input_ids", "attention_mask", "token_type_ids")
        cases[f"text {number}"] = _case(head, *(np.array([encoded[name]]) for name in names))
    return cases


def read_texts(path: Path) -> list[str]:
    """The lines of `path` that hold something.

    Raises:
        UsageError: not readable as UTF-8, or there are none.
    """
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not readable as UTF-8 text ({error})", hint="Name another: --texts FILE") from error
    texts = [line.removesuffix("\r") for line in lines if line.strip()]
    if not texts:
        raise UsageError(f"{path}: no text in it; expected one a line", hint="Name another: --texts FILE")
    return texts


def groups(cases: Mapping[str, Inputs], first: int) -> Iterable[list[str]]:
    """The cases' names in groups of at most `TOKENS_AT_ONCE` tokens; the first `first` of them in one group."""
    names = list(cases)
    group, size = names[:first], TOKENS_AT_ONCE
    for name in names[first:]:
        tokens = cases[name]["input_ids"].size
        if size + tokens > TOKENS_AT_ONCE:
            yield group
            group, size = [], 0
        group.append(name)
        size += tokens
    yield group


def check_memory(cases: Mapping[str, Inputs], config: Mapping[str, Any]) -> None:
    """Refuse a case whose forward pass would not fit, before anything is computed.

    Raises:
        UsageError: naming the case, what it takes and what there is.
    """
    available = available_memory()
    for name, case in cases.items():
        needed = memory_of(case["input_ids"].shape, config)
        if available is not None and needed > available:
            raise UsageError(
                f"{name}: {case['input_ids'].shape[-1]:,} tokens need about {needed / 1e9:,.1f} GB for all that is "
                f"compared; {available / 1e9:,.1f} GB are available",
                hint="Shorten the text, or verify on a machine with more memory.",
            )


def memory_of(shape: Sequence[int], config: Mapping[str, Any]) -> int:
    """Bytes that the passes over one case take at most, next to the weights; tests/test_compare.py measures them."""
    length = shape[-1]
    rows = int(np.prod(shape[:-1]))
    heads, width = config["num_attention_heads"], config["hidden_size"]
    # The scores of one sequence's block of 128 queries against all its keys, in some four copies; never all of them.
    attention = 4 * 4 * heads * min(length, 128) * length
    states = 2 * 8 * rows * length * ((config["num_hidden_layers"] + 2) * width + config["vocab_size"])
    return int(attention + states)


def available_memory() -> int | None:
    """Bytes that a process can have now; None where the system does not say."""
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        limits.append(1024 * int(fields["MemAvailable"].split()[0]))
    elif "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and (most := limit.read_text().strip()) != "max":  # a container may have less than its machine
        limits.append(int(most) - int(used.read_text()))
    return min(limits, default=None)


def _case(head: str, *arrays: Array) -> Inputs:
    """Inputs [B, L], for multiple choice [1, choices, L]."""
    shaped = (array[None] if head == "multiple-choice" else array for array in arrays)
    return dict(zip(("input_ids", "attention_mask", "token_type_ids"), shaped, strict=True))
