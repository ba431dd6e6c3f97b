"""vocab.txt -> the tokenizer files of a converted folder, with the same ids as Huawei's tokenizer gives.

Source: NEZHA-TensorFlow/tokenization.py at commit 0598f02 (FullTokenizer).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .config import Decision
from .errors import MappingError

MAX_CHARS_PER_WORD = 200
"""Longer words become [UNK]: 200 in Huawei's TensorFlow tokenizer; transformers' own default is 100."""

SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a vocab.txt, in the order of their ids, and the file's bytes."""

    path: Path
    data: bytes
    tokens: tuple[str, ...]


def read_vocab(path: Path) -> Vocabulary:
    """Read `path`: one token a line, lines ended by a newline and nothing else (U+2028 and U+0085 are tokens).

    Raises:
        MappingError: not UTF-8, a token twice, or a special token is missing.
    """
    try:
        data = path.read_bytes()
        lines = data.decode("utf-8-sig").split("\n")
    except OSError as error:
        raise MappingError(
            f"{path}: cannot be read ({error.strerror})", hint="Name the vocabulary: --vocab FILE"
        ) from error
    except UnicodeDecodeError as error:
        raise MappingError(f"{path}: not a vocabulary: not UTF-8 text ({error})") from error
    if lines and not lines[-1]:
        lines.pop()
    tokens = tuple(line.removesuffix("\r") for line in lines)
    seen: dict[str, int] = {}
    for number, token in enumerate(tokens):
        if seen.setdefault(token, number) != number:
            raise MappingError(f"{path}: {token!r} stands on line {seen[token] + 1} and again on line {number + 1}")
    lacking = [token for token in SPECIAL_TOKENS.values() if token not in seen]
    if lacking:
        raise MappingError(
            f"{path}: no WordPiece vocabulary of NEZHA: {', '.join(lacking)} not in its {len(tokens):,} lines",
            hint="Name another one: --vocab FILE",
        )
    return Vocabulary(path, data, tokens)


def decide_casing(vocab: Vocabulary, asked: bool | None) -> tuple[bool, Decision]:
    """Whether text is lower-cased, and why.

    Args:
        asked: True for lower case, False for cased, None to let the vocabulary say.
    """
    special = set(SPECIAL_TOKENS.values())
    capitals = [
        token
        for token in vocab.tokens
        if token not in special and not token.startswith("[") and any(c.isascii() and c.isupper() for c in token)
    ]
    if asked is not None:
        return asked, Decision("do_lower_case", asked, "asked for on the command line")
    if capitals:
        reason = f"the vocabulary holds capitals ({len(capitals):,} tokens such as {capitals[0]!r})"
        return False, Decision("do_lower_case", False, reason)
    reason = "the vocabulary holds no capitals, so every capital letter would become [UNK]"
    return True, Decision("do_lower_case", True, reason)


def decide_language(vocab: Vocabulary) -> Decision | None:
    """Chinese, where more than a fifth of the tokens are Chinese characters; else the vocabulary does not say."""
    chinese = sum(len(token) == 1 and "\u4e00" <= token <= "\u9fff" for token in vocab.tokens)
    if 5 * chinese <= len(vocab.tokens):
        return None
    return Decision("language", "zh", f"{chinese:,} of the {len(vocab.tokens):,} tokens are Chinese characters")


def check_length(vocab: Vocabulary, rows: int) -> Decision | None:
    """Compare the vocabulary with the embedding's `rows`; a shorter one is fit for use and reported.

    Raises:
        MappingError: it has more tokens than the embedding has rows.
    """
    count = len(vocab.tokens)
    if count > rows:
        raise MappingError(
            f"{vocab.path}: {count:,} tokens, but the embedding has {rows:,} rows: this vocabulary is of another model",
            hint="Name the right one: --vocab FILE",
        )
    if count < rows:
        reason = f"the embedding has {rows:,} rows; the last {rows - count:,} have no token"
        return Decision("vocabulary", f"{count:,} tokens", reason)
    return None


def tokenizer_files(vocab: Vocabulary, lower_case: bool, max_length: int) -> dict[str, bytes]:
    """The files by name: tokenizer.json, tokenizer_config.json, vocab.txt (the source's own bytes)."""
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece

    ids = {token: number for number, token in enumerate(vocab.tokens)}
    tokenizer = Tokenizer(
        WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=MAX_CHARS_PER_WORD)  # noqa: S106 (no secret)
    )
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS.values()))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lower_case
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    config = {
        # The class that takes tokenizer.json as it is; AutoTokenizer of transformers 5 needs one to be named. Its
        # BertTokenizer would build a tokenizer of its own from the vocabulary, and forget MAX_CHARS_PER_WORD.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "do_lower_case": lower_case,
        "tokenize_chinese_chars": True,
        "strip_accents": None,
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **SPECIAL_TOKENS,
    }
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode(),
        "vocab.txt": vocab.data,
    }
