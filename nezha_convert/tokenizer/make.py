"""A converted folder's tokenizer: its files, what was decided about it, and what it tells the model's config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoint import Decision, Origin
from .wordpiece import (
    check_length,
    decide_added,
    decide_casing,
    decide_language,
    decide_rules,
    read_vocab,
    tokenizer_files,
)


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """The files by name, the decisions, and fields of config.json."""

    files: Mapping[str, bytes]
    decisions: tuple[Decision, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)


def make_tokenizer(vocab_file: Path | None, config: Mapping[str, Any], lower_case: bool | None = None) -> Tokenizer:
    """The tokenizer of the vocabulary `vocab_file`; none where there is no vocabulary.

    Args:
        vocab_file: vocab.txt, or None.
        config: the fields of the model's config.
        lower_case: whether text is lower-cased; None lets the files say.

    Raises:
        MappingError: the vocabulary cannot be read, or it is of another model.
    """
    if vocab_file is None:
        reason = "no vocab.txt beside the checkpoint; the folder is without a tokenizer. Add one with --vocab FILE"
        return Tokenizer({}, (Decision("tokenizer", None, reason, Origin.FILE),))
    vocab = read_vocab(vocab_file)
    shorter = check_length(vocab, config["vocab_size"])
    lower, casing = decide_casing(vocab, lower_case)
    rules, splitting = decide_rules(vocab)
    decisions = (shorter, casing, *splitting, decide_added(vocab), decide_language(vocab))
    return Tokenizer(
        tokenizer_files(vocab, lower, config["max_position_embeddings"], rules),
        tuple(decision for decision in decisions if decision),
        {"pad_token_id": vocab.tokens.index("[PAD]")},
    )
