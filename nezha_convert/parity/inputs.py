"""The inputs that both sides compute on: the built-in cases, and texts of the user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..files.given import in_utf8, path_of
from ..folder.record import ConvertedFolder
from .oracle.formulas import Array

Inputs = dict[str, Array]

LONG = 520
"""Tokens of the long case: more than 512, where the originals' tables and every BERT end."""

TOKENS_AT_ONCE = 4096
"""How many tokens the references compute on before their results are compared and released."""


def built_in_cases(config: Mapping[str, Any], clip: int, head: str) -> dict[str, Inputs]:
    """The cases that are always compared. They are the same each time; their ids come from the whole vocabulary.

    In "every type" stand the first and the last word of the vocabulary, the first where no padding is, and every type
    of token. In "all masked" one row has nothing to attend to: programs that add -10000 to each score attend there as
    if nothing were masked, those that add the smallest number attend to all keys alike.

    Args:
        config: the converted folder's config, for the numbers of words and of token types.
        clip: the source's clip distance.
        head: with multiple choice, each case is one example and its rows are the choices.
    """
    random = np.random.default_rng(2019)
    shapes = {
        "short": (3, 8),
        "past the clip": (2, clip + 26),
        "past 512": (1, LONG),
        "padded": (2, 40),
        "pair": (2, 30),
        "every type": (2, min(LONG, max(20, config["type_vocab_size"]))),
        "all masked": (2, 24),
    }
    cases = {}
    for name, shape in shapes.items():
        ids = random.integers(0, config["vocab_size"], shape)
        mask, types = np.ones(shape, np.int64), np.zeros(shape, np.int64)
        if name == "padded":
            mask[1, 16:], ids[1, 16:] = 0, 0
        if name == "pair":
            types[:, 12:] = min(1, config["type_vocab_size"] - 1)
        if name == "every type":
            types[:] = np.arange(shape[1]) % config["type_vocab_size"]
            ids[0, [3, 7]], ids[1, [5, 11]] = (0, config["vocab_size"] - 1), (config["vocab_size"] - 1, 0)
        if name == "all masked":
            mask[1] = 0
        cases[name] = _case(head, ids, mask, types)
    return cases


def list_texts(texts: str | Path | Sequence[str] | None, folder: ConvertedFolder, source: str | Path) -> list[str]:
    """The texts to compare: `texts` itself, or the lines of the file that it names; empty for None.

    Raises:
        UsageError: the file cannot be used, or `folder` has no tokenizer.
    """
    lines = read_texts(path_of(texts)) if isinstance(texts, (str, Path)) else list(texts or ())
    if lines and not folder.has_tokenizer:
        raise UsageError(
            f"{folder.path}: it has no tokenizer, so no texts can be compared",
            hint="Convert with a vocabulary: nezha-convert convert SOURCE OUTPUT --vocab FILE --force",
        )
    return lines


def read_texts(path: Path) -> list[str]:
    """The lines of `path` that are not blank.

    Raises:
        UsageError: the file is not readable as UTF-8, or every line is blank.
    """
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        encoding = in_utf8(path, "--texts") if isinstance(error, UnicodeDecodeError) else ""
        hint = encoding or "Name another: --texts FILE"
        raise UsageError(f"{path}: not readable as UTF-8 text ({error})", hint=hint) from error
    texts = [line.removesuffix("\r") for line in lines if line.strip()]
    if not texts:
        raise UsageError(f"{path}: no text in it; expected one a line", hint="Name another: --texts FILE")
    return texts


def text_cases(lines: Sequence[str], tokenizer: Any, head: str) -> dict[str, Inputs]:
    """One case a line, tokenized by the converted tokenizer; a tab separates a pair of segments."""
    cases = {}
    for number, line in enumerate(lines, 1):
        encoded = tokenizer(*line.split("\t", 1), return_attention_mask=True, return_token_type_ids=True)
        names = ("input_ids", "attention_mask", "token_type_ids")
        cases[f"text {number}"] = _case(head, *(np.array([encoded[name]]) for name in names))
    return cases


def grouped(cases: Mapping[str, Inputs], first: int) -> list[dict[str, Inputs]]:
    """The first `first` cases as one group, the others in groups of at most `TOKENS_AT_ONCE` tokens.

    A case of more tokens is a group of its own.
    """
    names = list(cases)
    groups = [{name: cases[name] for name in names[:first]}]
    size = TOKENS_AT_ONCE
    for name in names[first:]:
        tokens = cases[name]["input_ids"].size
        if size + tokens > TOKENS_AT_ONCE:
            groups.append({})
            size = 0
        groups[-1][name] = cases[name]
        size += tokens
    return groups


def check_memory(cases: Mapping[str, Inputs], config: Mapping[str, Any]) -> None:
    """Refuse a case that needs more memory than there is, before anything is computed.

    Raises:
        UsageError: it names the case, the memory that it needs, and the memory that there is.
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
    """The most bytes that the passes over one case take besides the weights. A test of `verify` measures them."""
    length = shape[-1]
    rows = int(np.prod(shape[:-1]))
    heads, width = config["num_attention_heads"], config["hidden_size"]
    # About four copies of the scores of 128 queries against all keys of one sequence: no pass holds more at a time.
    attention = 4 * 4 * heads * min(length, 128) * length
    states = 2 * 8 * rows * length * ((config["num_hidden_layers"] + 2) * width + config["vocab_size"])
    return int(attention + states)


def available_memory() -> int | None:
    """How many bytes a process can still allocate; None where the system does not tell."""
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
    """`arrays` of shape [B, L] as a case; for multiple choice their shape becomes [1, choices, L]."""
    shaped = (array[None] if head == "multiple-choice" else array for array in arrays)
    return dict(zip(("input_ids", "attention_mask", "token_type_ids"), shaped, strict=True))
