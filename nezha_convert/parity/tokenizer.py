"""The converted tokenizer against the source's own, a reference tokenizer, or Huawei's own code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import Origin
from ..errors import MappingError
from ..folder.record import ConvertedFolder
from .oracle import bert_tokenizer, byte_bpe, wordpiece
from .originals.programs import BYTE_BPE, TRANSFORMERS, tokenize_original
from .results import Mistokenized, TokenizerParity
from .source import Source

_KEEPS_SPACES = ("transformers", "paddle")
"""Programs whose vocabulary is read line by line as it is. The others strip the lines."""

_WORDS = {True: "lower-case", False: "cased"}

_SPLITS_SPECIALS = ("tensorflow", "bert4keras")
"""Programs that split a special token which a text has. The converted tokenizer needs it whole, as for a [MASK]."""


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


@dataclass(frozen=True, slots=True)
class _Reference:
    """What the tokenizer is compared with.

    Attributes:
        name: in words.
        vocabulary: ids by token.
        size: how many ids there are.
        encode: the ids of each text, without special tokens around it.
        frame: the ids of a text, or of a pair of texts, with them.
    """

    name: str
    vocabulary: Mapping[str, int]
    size: int
    encode: Callable[[Sequence[str]], list[list[int]]]
    frame: Callable[..., list[int]]
    lower_case: bool


def compare_tokenizers(
    folder: ConvertedFolder, tokenizer: Any, source: Source, lines: Sequence[str], original: str | None
) -> ComparedTokenizer:
    """Compare id by id, on the built-in texts and `lines`.

    Args:
        tokenizer: the folder's, as transformers loads it; None when the folder has none.
        original: as for `run_original_all`. Huawei's code is used for byte BPE and for sources of its TensorFlow
            program; other originals have no tokenizer.
    """
    if tokenizer is None or source.vocab is None:
        return ComparedTokenizer()
    vocabulary, _ = wordpiece.read_vocabulary(source.vocab, strip=source.program not in _KEEPS_SPACES)
    kind = folder.decision("tokenizer_kind") if folder.origin("tokenizer_kind") is Origin.ASKED else None
    rules, rules_warning = _rules(folder, vocabulary, kind)
    asked = f"the tokenizer is {kind}, as the conversion was told" if kind else ""
    if rules or not bert_tokenizer.is_beside(source.vocab.parent):
        return _compare_by_vocabulary(folder, tokenizer, source, lines, original, rules, (asked, rules_warning))
    lower = bool(folder.decision("do_lower_case")) if folder.origin("do_lower_case") is Origin.ASKED else None
    reference = _own(source.vocab, int(folder.config["vocab_size"]), lower)
    known = reference.vocabulary
    specials = " ".join(f"a{token}b {token.swapcase()}" for token in tokenizer.added_tokens_encoder)
    texts = [*wordpiece.texts_for(known), specials, *lines]
    differing = _differing(tokenizer, reference, texts)
    differing += [] if tokenizer.get_vocab() == known else _other_vocabulary(reference, len(tokenizer))
    told = "" if lower is None else f"the tokenizer is {_WORDS[lower]} as the conversion was told"
    parity = TokenizerParity(reference.name, len(texts), reference.lower_case, tuple(differing))
    return ComparedTokenizer(parity, "", tuple(filter(None, (told, asked))))


def _compare_by_vocabulary(
    folder: ConvertedFolder,
    tokenizer: Any,
    source: Source,
    lines: Sequence[str],
    original: str | None,
    rules: str | None,
    warnings: Sequence[str],
) -> ComparedTokenizer:
    """Compare with Huawei's rules on the vocabulary alone."""
    assert source.vocab is not None
    strip = rules is not None or source.program not in _KEEPS_SPACES
    ids, count = wordpiece.read_vocabulary(source.vocab, strip)
    lower_case, problem, casing_warning = _casing(folder, ids, rules)
    special = re.compile("|".join(map(re.escape, wordpiece.SPECIALS)))
    split = rules or source.program in _SPLITS_SPECIALS
    built_in = byte_bpe.texts_for(ids) if rules else wordpiece.texts_for(ids)
    texts = [
        special.sub(lambda match: " " if split or match[0] not in ids else f" {match[0]} ", text)
        for text in (*built_in, *lines)
    ]
    reference = _huawei(source, original, (ids, count), lower_case, rules)
    differing = _differing(tokenizer, reference, texts)
    if not _same_vocabulary(tokenizer.get_vocab(), reference, rules):
        differing += _other_vocabulary(reference, len(tokenizer))
    words = "" if rules else _never_produced(ids)
    parity = TokenizerParity(reference.name, len(texts), lower_case, tuple(differing))
    return ComparedTokenizer(parity, problem, tuple(filter(None, (casing_warning, *warnings, words))))


def _huawei(
    source: Source, original: str | None, vocabulary: tuple[Mapping[str, int], int], lower_case: bool, rules: str | None
) -> _Reference:
    """Huawei's own code where it is to run, and the reference tokenizers otherwise."""
    ids, count = vocabulary
    path = source.vocab
    assert path is not None

    def one(text: str) -> list[str]:
        if rules:
            return byte_bpe.tokenize(text, ids, lower_case, rules)
        return wordpiece.tokenize(text, ids, lower_case, [token for token in wordpiece.SPECIALS if token in ids])

    def encode(texts: Sequence[str]) -> list[list[int]]:
        live = original and original != TRANSFORMERS and (rules or source.program == "tensorflow")
        if original and live:
            made = tokenize_original(original, path, texts, lower_case=lower_case, rules=rules)
        else:
            made = [one(text) for text in texts]
        return [[ids[token] for token in tokens] for tokens in made]

    def frame(*texts: str) -> list[int]:
        return [ids["[CLS]"], *(n for text in texts for n in (*(ids[token] for token in one(text)), ids["[SEP]"]))]

    name = "the reference tokenizer of bytes" if rules else "the reference tokenizer"
    if original and original != TRANSFORMERS and (rules or source.program == "tensorflow"):
        name = f"Huawei's {Path(BYTE_BPE[rules][0]).name if rules else 'tokenization.py'}"
    return _Reference(name, ids, count, encode, frame, lower_case)


def _own(path: Path, rows: int, lower_case: bool | None) -> _Reference:
    """The tokenizer that the source has of its own: its tokenizer.json, or BertTokenizer's rules."""
    whole = path.parent / "tokenizer.json"
    document = json.loads(whole.read_bytes()) if whole.is_file() else {}
    if isinstance(document, dict) and document.get("model"):
        return _library(whole, document, rows, lower_case)
    own = bert_tokenizer.BertTokenizer(path, rows, lower_case)
    name = "the rules of transformers 4.40.2's BertTokenizer"
    return _Reference(
        name, own.ids, len(own.ids), lambda texts: list(map(own.tokenize, texts)), own.encode, own.lower_case
    )


def _library(path: Path, document: Mapping[str, Any], rows: int, lower_case: bool | None) -> _Reference:
    """The source's tokenizer.json, loaded by the tokenizers library and set as BertTokenizerFast sets it."""
    from tokenizers import AddedToken, Tokenizer

    settings = bert_tokenizer.settings_of(path.parent)
    bert = str(settings.get("tokenizer_class") or "Bert").startswith(("Bert", "Nezha", "NeZha"))
    state = document.get("normalizer") or {}
    if bert and state.get("type") == "BertNormalizer":
        state["lowercase"] = settings.get("do_lower_case", True) if lower_case is None else lower_case
        state["strip_accents"] = settings.get("strip_accents")
        state["handle_chinese_chars"] = settings.get("tokenize_chinese_chars", True)
    try:
        tokenizer = Tokenizer.from_str(json.dumps(document))
    except Exception as error:  # the library raises nothing more special
        raise MappingError(f"{path}: the tokenizers library cannot read it ({error})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for text, marker, special in bert_tokenizer.markers_of(path.parent, bert):
        full = len(tokenizer.get_vocab()) >= rows and tokenizer.token_to_id(text) is None
        if text not in known and not (full and special is None):
            flags = {"single_word": marker.single_word, "lstrip": marker.lstrip, "rstrip": marker.rstrip}
            token = AddedToken(text, normalized=False, special=special is not False, **flags)
            (tokenizer.add_tokens if special is False else tokenizer.add_special_tokens)([token])

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [encoded.ids for encoded in tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    vocabulary = tokenizer.get_vocab()
    lower = bool(state.get("lowercase"))
    return _Reference(
        "the source's own tokenizer.json",
        vocabulary,
        len(vocabulary),
        encode,
        lambda *t: tokenizer.encode(*t).ids,
        lower,
    )


def _differing(tokenizer: Any, reference: _Reference, texts: Sequence[str]) -> list[Mistokenized]:
    """The texts of which `tokenizer` makes other ids than `reference`, alone or between special tokens."""
    made = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    found = list(zip(texts, made, reference.encode(texts), strict=True))
    for framed in (texts[:1], texts[:2]):
        label = " / ".join(framed)
        found.append((label, tokenizer(*framed)["input_ids"], reference.frame(*framed)))
    names = {number: token for token, number in reference.vocabulary.items()}
    differing = []
    for text, ids, wanted in found:
        if ids != wanted:
            pairs = zip(ids, wanted, strict=False)
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ids), len(wanted)))
            shown = (tuple(names.get(n, f"#{n}") for n in numbers[at : at + 8]) for numbers in (wanted, ids))
            differing.append(Mistokenized(text, at, *shown))
    return differing


def _same_vocabulary(names: Mapping[str, int], reference: _Reference, rules: str | None) -> bool:
    """Whether the tokenizer's vocabulary gives the reference's ids."""
    ids = reference.vocabulary
    if rules:  # only special tokens keep their names in a byte BPE's tokenizer.json
        same = sorted(names.values())[: reference.size] == list(range(reference.size))
        return same and all(names[token] == ids[token] for token in wordpiece.SPECIALS if token in ids)
    return len(names) == reference.size and all(names.get(token) == number for token, number in ids.items())


def _other_vocabulary(reference: _Reference, count: int) -> list[Mistokenized]:
    return [Mistokenized("(the whole vocabulary)", 0, (f"{reference.size} tokens",), (f"{count} tokens",))]


def _never_produced(ids: Mapping[str, int]) -> str:
    """A warning where tokens are whole Chinese words, which no text becomes."""
    words = [
        token
        for token in ids
        if len(token) > 1 and not token.startswith(("##", "[")) and any(map(wordpiece.is_chinese, token))
    ]
    if not words:
        return ""
    return (
        f"{len(words):,} words such as {max(words[:1000], key=len)[:20]} are tokens that the tokenizer never produces: "
        "a program that cuts words before it looks them up, as WoNEZHA's, has other ids"
    )


def _rules(folder: ConvertedFolder, vocabulary: Mapping[str, int], kind: str | None) -> tuple[str | None, str]:
    """The rules by which a byte BPE splits words, and a warning if the user chose them.

    They come from the vocabulary alone, as in `_casing`, unless the user chose them. None: the tokenizer is WordPiece.
    """
    expected = None if kind == "wordpiece" else byte_bpe.rules_of(vocabulary, asked=kind == "byte-bpe")
    if expected and folder.origin("byte_bpe_rules") in (Origin.ASKED, Origin.FILE):
        asked = str(folder.decision("byte_bpe_rules"))
        return asked, f"the tokenizer splits words as {asked}, as it was told; the vocabulary looks like {expected}"
    return expected, ""


def _casing(folder: ConvertedFolder, ids: Mapping[str, int], rules: str | None) -> tuple[bool, str, str]:
    """Whether the reference lower-cases, a failure if the conversion decided otherwise, a warning if the user did.

    The vocabulary alone decides. A wrong decision of the conversion would otherwise be compared with itself.
    """
    decided, expected = folder.decision("do_lower_case"), (byte_bpe if rules else wordpiece).lower_cases(ids)
    why = f"the vocabulary is {_WORDS[expected]}: " + (
        "most capital letters are no tokens of it" if expected else "it has the capital letters as tokens"
    )
    if folder.origin("do_lower_case") in (Origin.ASKED, Origin.FILE):
        return bool(decided), "", f"the tokenizer is {_WORDS[bool(decided)]} as the conversion was told; {why}"
    if decided is not None and bool(decided) != expected:
        option = "--lower-case" if expected else "--cased"
        problem = f"the tokenizer was made {_WORDS[bool(decided)]}, but {why}; convert again with {option}"
        return expected, problem, ""
    return expected, "", ""
