"""A converted folder's tokenizer: its files, what was decided about it, and what it tells the model's config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoint import Assumption, Decision, Origin
from ..files.given import similar
from ..text import quoted
from .byte_bpe import is_byte_bpe
from .own import own_tokenizer
from .settings import read_settings
from .wordpiece import (
    BYTE_BPE,
    Vocabulary,
    check_length,
    decide_added,
    decide_casing,
    decide_language,
    decide_reading,
    decide_rules,
    decide_words,
    read_lines,
    read_vocab,
    tokenizer_files,
)


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """The files by name, the decisions, fields of config.json, and the source's files beside the vocabulary."""

    files: Mapping[str, bytes]
    decisions: tuple[Decision, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[Path, ...] = ()
    assumptions: tuple[Assumption, ...] = ()


def make_tokenizer(
    vocab_file: Path | None,
    config: Mapping[str, Any],
    lower_case: bool | None = None,
    *,
    kind: str | None = None,
    strip: bool = False,
    beside: Path | None = None,
) -> Tokenizer:
    """The tokenizer of the vocabulary `vocab_file`; none where there is no vocabulary.

    Where transformers' own files lie beside the vocabulary, it is the tokenizer that they describe.

    Args:
        vocab_file: vocab.txt, or None.
        config: the fields of the model's config.
        lower_case: whether text is lower-cased; None lets the files say.
        kind: one of ``wordpiece.KINDS``, whatever the tokens look like; None lets the tokens say.
        strip: the program's `load_vocab` strips lines, as Huawei's does.
        beside: where a vocabulary of another name is looked for if there is none, to be named.

    Raises:
        MappingError: the vocabulary cannot be read, or it is of another model.
    """
    if vocab_file is None:
        near = similar("vocab.txt", (path.name for path in beside.iterdir())) if beside else []
        file = quoted(beside / near[0]) if beside and near else "FILE"
        reason = f"no vocab.txt beside the checkpoint; the folder is without a tokenizer. Add one with --vocab {file}"
        return Tokenizer({}, (Decision("tokenizer", None, reason, Origin.FILE),))
    settings = read_settings(vocab_file.parent)
    bytes_alone = kind == BYTE_BPE if kind else is_byte_bpe(read_lines(vocab_file))
    if settings and not bytes_alone:
        files, found, fields = own_tokenizer(vocab_file, settings, config, lower_case)
        asked = [Decision("tokenizer_kind", kind, "asked for", Origin.ASKED)] if kind else []
        return Tokenizer(files, (*asked, *found), fields, settings.files)
    vocab = read_vocab(vocab_file, strip=strip, kind=kind)
    shorter = check_length(vocab, config["vocab_size"])
    lower, casing = decide_casing(vocab, lower_case)
    rules, splitting = decide_rules(vocab)
    further = (*splitting, decide_added(vocab), decide_words(vocab), decide_language(vocab))
    return Tokenizer(
        tokenizer_files(vocab, lower, config["max_position_embeddings"], rules),
        tuple(decision for decision in (*decide_reading(vocab), shorter, casing, *further) if decision),
        {
            name: vocab.tokens.index(token)
            for name, token in (("pad_token_id", "[PAD]"), ("bos_token_id", "[CLS]"), ("eos_token_id", "[SEP]"))
        },
        settings.files if settings else (),
        _few(vocab, config["vocab_size"]),
    )


def _few(vocab: Vocabulary, rows: int) -> tuple[Assumption, ...]:
    """A vocabulary of less than half as many tokens as the embedding has rows fits, and may be another model's."""
    if 2 * len(vocab) >= rows:
        return ()
    text = f"{vocab.path.name} is this model's vocabulary; it has {len(vocab):,} tokens, the embedding {rows:,} rows"
    return (Assumption("vocabulary", text),)
