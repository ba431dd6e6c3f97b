"""The converted tokenizer against a reference, or against Huawei's own code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..folder.record import ConvertedFolder
from ..tokenizer.wordpiece import SPECIAL_TOKENS, read_vocab
from .oracle import byte_bpe, wordpiece
from .originals.programs import BYTE_BPE, TRANSFORMERS, tokenize_original
from .report import Mistokenized, TokenizerParity


def compare_tokenizers(
    folder: ConvertedFolder, loaded: Any, vocab: Path, lines: Sequence[str], original: str | None, tensorflow: bool
) -> tuple[TokenizerParity, str, list[str]]:
    """Id by id, on the built-in texts and `lines`; without special tokens, which Huawei's tokenizer splits.

    Args:
        loaded: the folder's tokenizer.
        vocab: the source's vocabulary.
        original: of `run_original_all`; it has no tokenizer but for byte BPE and for a `tensorflow` source.

    Returns:
        What was found; why the conversion's casing is wrong, if it is; warnings.
    """
    vocabulary = read_vocab(vocab).tokens
    rules, said = _rules(folder, vocabulary)
    ids = {token.strip() if rules else token: number for number, token in enumerate(vocabulary)}
    lower_case, problem, warning = _casing(folder, ids, rules)
    special = re.compile("|".join(map(re.escape, SPECIAL_TOKENS.values())))
    built_in = byte_bpe.texts_for(ids) if rules else wordpiece.texts_for(ids)
    texts = [special.sub(" ", text) for text in (*built_in, *lines)]
    if original and original != TRANSFORMERS and (rules or tensorflow):
        reference = f"Huawei's {Path(BYTE_BPE[rules][0]).name if rules else 'tokenization.py'}"
        expected = tokenize_original(original, vocab, texts, lower_case=lower_case, rules=rules)
    elif rules:
        reference = "the reference tokenizer of bytes"
        expected = [byte_bpe.tokenize(text, ids, lower_case, rules) for text in texts]
    else:
        reference = "the reference tokenizer"
        expected = [wordpiece.tokenize(text, ids, lower_case) for text in texts]
    differing = []
    tokens = {number: token for token, number in ids.items()}
    for text, wanted in zip(texts, expected, strict=True):
        numbers = loaded(text, add_special_tokens=False)["input_ids"]
        found = [tokens[number] if number in tokens else loaded.convert_ids_to_tokens(number) for number in numbers]
        if found != wanted:
            pairs = zip(found, wanted, strict=False)
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(found), len(wanted)))
            differing.append(Mistokenized(text, at, tuple(wanted[at : at + 8]), tuple(found[at : at + 8])))
    names = loaded.get_vocab()
    if rules:  # its tokens have other names there, but for the special ones
        same = sorted(names.values())[: len(ids)] == list(range(len(ids)))
        same &= all(names[token] == ids[token] for token in SPECIAL_TOKENS.values())
    else:
        same = names == ids
    if not same:
        differing.append(Mistokenized("(the whole vocabulary)", 0, (f"{len(ids)} tokens",), (f"{len(loaded)} tokens",)))
    parity = TokenizerParity(reference, len(texts), lower_case, tuple(differing))
    return parity, problem, [text for text in (warning, said) if text]


def _rules(folder: ConvertedFolder, vocabulary: Sequence[str]) -> tuple[str | None, str]:
    """How a byte BPE splits words, by the vocabulary alone as in `_casing`; a warning if the conversion was told."""
    expected = byte_bpe.rules_of(vocabulary)
    if expected and folder.asked_for("byte_bpe_rules"):
        told = str(folder.decision("byte_bpe_rules"))
        return told, f"the tokenizer splits words as {told}, as it was told; the vocabulary looks like {expected}"
    return expected, ""


def _casing(folder: ConvertedFolder, ids: Mapping[str, int], rules: str | None) -> tuple[bool, str, str]:
    """Whether the tokenizer has to lower-case; a failure if the conversion has it otherwise; a warning if it was asked.

    By the vocabulary alone: were it the conversion's own decision, a wrong one would be compared with itself.
    """
    decided, expected = folder.decision("do_lower_case"), (byte_bpe if rules else wordpiece).lower_cases(ids)
    words = {True: "lower-case", False: "cased"}
    why = f"the vocabulary is {words[expected]}: " + (
        "most capital letters are no tokens of it" if expected else "it has the capital letters as tokens"
    )
    if folder.asked_for("do_lower_case"):
        return bool(decided), "", f"the tokenizer is {words[bool(decided)]} as the conversion was told; {why}"
    if decided is not None and bool(decided) != expected:
        option = "--lower-case" if expected else "--cased"
        problem = f"the tokenizer was made {words[bool(decided)]}, but {why}; convert again with {option}"
        return expected, problem, ""
    return expected, "", ""
