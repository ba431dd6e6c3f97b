"""The converted tokenizer against the reference tokenizer, or against Huawei's own code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import Origin
from ..folder.record import ConvertedFolder
from ..tokenizer.wordpiece import SPECIAL_TOKENS, read_vocab
from .oracle import byte_bpe, wordpiece
from .originals.programs import BYTE_BPE, TRANSFORMERS, tokenize_original
from .report import Mistokenized, TokenizerParity
from .source import Source


@dataclass(frozen=True, slots=True)
class ComparedTokenizer:
    """What the comparison of a tokenizer gives.

    Attributes:
        parity: None when the folder has no tokenizer.
        casing: why the tokenizer's casing is wrong; empty when it is right.
        warnings: what a reader should know, in words.
    """

    parity: TokenizerParity | None = None
    casing: str = ""
    warnings: tuple[str, ...] = ()


def compare_tokenizers(
    folder: ConvertedFolder, tokenizer: Any, source: Source, lines: Sequence[str], original: str | None
) -> ComparedTokenizer:
    """Compare token by token, on the built-in texts and `lines`.

    Special tokens are taken out of the texts, for Huawei's tokenizer splits them.

    Args:
        tokenizer: the folder's, as transformers loads it; None when the folder has none.
        original: as for `run_original_all`. Huawei's code is used for byte BPE and for sources of its TensorFlow
            program; other originals have no tokenizer.
    """
    if tokenizer is None or source.vocab is None:
        return ComparedTokenizer()
    vocabulary = read_vocab(source.vocab).tokens
    rules, rules_warning = _rules(folder, vocabulary)
    ids = {token.strip() if rules else token: number for number, token in enumerate(vocabulary)}
    lower_case, problem, casing_warning = _casing(folder, ids, rules)
    special = re.compile("|".join(map(re.escape, SPECIAL_TOKENS.values())))
    built_in = byte_bpe.texts_for(ids) if rules else wordpiece.texts_for(ids)
    texts = [special.sub(" ", text) for text in (*built_in, *lines)]
    reference, expected = _reference(source, original, texts, ids, lower_case, rules)
    differing = (
        *_different_tokens(tokenizer, ids, texts, expected),
        *_different_vocabulary(tokenizer, ids, rules),
    )
    parity = TokenizerParity(reference, len(texts), lower_case, differing)
    return ComparedTokenizer(parity, problem, tuple(filter(None, (casing_warning, rules_warning))))


def _reference(
    source: Source,
    original: str | None,
    texts: Sequence[str],
    ids: Mapping[str, int],
    lower_case: bool,
    rules: str | None,
) -> tuple[str, list[list[str]]]:
    """What the tokenizer is compared with, in words, and its tokens of each text."""
    if original and original != TRANSFORMERS and source.vocab and (rules or source.program == "tensorflow"):
        name = Path(BYTE_BPE[rules][0]).name if rules else "tokenization.py"
        tokens = tokenize_original(original, source.vocab, texts, lower_case=lower_case, rules=rules)
        return f"Huawei's {name}", tokens
    if rules:
        return "the reference tokenizer of bytes", [byte_bpe.tokenize(text, ids, lower_case, rules) for text in texts]
    return "the reference tokenizer", [wordpiece.tokenize(text, ids, lower_case) for text in texts]


def _different_tokens(
    tokenizer: Any, ids: Mapping[str, int], texts: Sequence[str], expected: Sequence[Sequence[str]]
) -> list[Mistokenized]:
    """The texts of which `tokenizer` makes other tokens than `expected`."""
    differing = []
    tokens = {number: token for token, number in ids.items()}
    for text, wanted in zip(texts, expected, strict=True):
        numbers = tokenizer(text, add_special_tokens=False)["input_ids"]
        made = [tokens[number] if number in tokens else tokenizer.convert_ids_to_tokens(number) for number in numbers]
        if made != wanted:
            pairs = zip(made, wanted, strict=False)
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(made), len(wanted)))
            differing.append(Mistokenized(text, at, tuple(wanted[at : at + 8]), tuple(made[at : at + 8])))
    return differing


def _different_vocabulary(tokenizer: Any, ids: Mapping[str, int], rules: str | None) -> list[Mistokenized]:
    """One entry if the tokenizer's vocabulary gives other ids than `ids`."""
    names = tokenizer.get_vocab()
    if rules:  # only special tokens keep their names in a byte BPE's tokenizer.json
        same = sorted(names.values())[: len(ids)] == list(range(len(ids)))
        same &= all(names[token] == ids[token] for token in SPECIAL_TOKENS.values())
    else:
        same = names == ids
    if same:
        return []
    return [Mistokenized("(the whole vocabulary)", 0, (f"{len(ids)} tokens",), (f"{len(tokenizer)} tokens",))]


def _rules(folder: ConvertedFolder, vocabulary: Sequence[str]) -> tuple[str | None, str]:
    """The rules by which a byte BPE splits words, and a warning if the user chose them.

    They come from the vocabulary alone, as in `_casing`, unless the user chose them. None: the tokenizer is WordPiece.
    """
    expected = byte_bpe.rules_of(vocabulary)
    if expected and folder.origin("byte_bpe_rules") in (Origin.ASKED, Origin.FILE):
        asked = str(folder.decision("byte_bpe_rules"))
        return asked, f"the tokenizer splits words as {asked}, as it was told; the vocabulary looks like {expected}"
    return expected, ""


def _casing(folder: ConvertedFolder, ids: Mapping[str, int], rules: str | None) -> tuple[bool, str, str]:
    """Whether the reference lower-cases, a failure if the conversion decided otherwise, a warning if the user did.

    The vocabulary alone decides. A wrong decision of the conversion would otherwise be compared with itself.
    """
    decided, expected = folder.decision("do_lower_case"), (byte_bpe if rules else wordpiece).lower_cases(ids)
    words = {True: "lower-case", False: "cased"}
    why = f"the vocabulary is {words[expected]}: " + (
        "most capital letters are no tokens of it" if expected else "it has the capital letters as tokens"
    )
    if folder.origin("do_lower_case") in (Origin.ASKED, Origin.FILE):
        return bool(decided), "", f"the tokenizer is {words[bool(decided)]} as the conversion was told; {why}"
    if decided is not None and bool(decided) != expected:
        option = "--lower-case" if expected else "--cased"
        problem = f"the tokenizer was made {words[bool(decided)]}, but {why}; convert again with {option}"
        return expected, problem, ""
    return expected, "", ""
