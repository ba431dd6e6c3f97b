"""A second implementation of Huawei's tokenizer, in plain Python: the reference for converted tokenizers.

It shares no code with `nezha_convert/tokenizer/wordpiece.py` on purpose: a mistake there must not be repeated here.

NEZHA-TensorFlow/tokenization.py: clean, space out Chinese characters, lower-case and strip accents, split punctuation,
take the longest piece first; a word of more than 200 characters is unknown.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path

LONGEST_WORD = 200
UNKNOWN = "[UNK]"

_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
_ASCII_PUNCTUATION = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")

TEXTS = (
    "我们在中国学习,使用哪吒模型。",
    "NEZHA (2019)是一个中文模型;Hello, World!",
    "Café déjà vu — naïve Ångström İstanbul ẞtraße",
    "全角ＡＢＣ１２３，。！？、；：“引号”《书名》",
    "a\tb\nc\r\nd\u00a0e\u3000f\u200bg\u00adh\ufeffi\ufffdj\x00k\u2028l\u0085m",
    "𠀀𪜀㐀豈龥 カタカナ ひらがな 한국어 ไทย العربية עברית",
    "e-mail: user@example.com, https://example.org/?q=1&x=2#top $3.14 50% 10^2 `code` ~|{}",
    "😀👍🏽👨‍👩‍👧 ① Ⅳ ½ ² ℃ № ™ ﬁ",
    "ALLCAPS MixedCase lower12345 1234567890",
    "ΟΔΟΣ Σ ΣΑΣ'Α ΑΣ. ΌΣΟΣ 中ΑΣ \ue000 a\ue000b",
    "0 7 10 42 365 2024 1,000.50 -3.14 1/2 6:30 ±5% ≤≥≠∞ √2 → ★ ¥100 €20 £3 §4 10²³ ٣٤ ४२ ⅷ",
    "THE QUICK BROWN FOX Naïve CAFÉ cafe\u0301 résumé ŒUVRE Ｆｕｌｌ－ｗｉｄｔｈ ２０２４ ＡＢ，ｃｄ",
)
"""Every tokenizer is compared on these texts. `texts_for` adds words of the vocabulary itself."""

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS_AT_ONCE = 64


def read_vocabulary(path: Path, strip: bool) -> tuple[dict[str, int], int]:
    """The ids by token of the vocabulary `path`, and the number of its lines.

    Args:
        strip: as `load_vocab` of Huawei's programs, which strips each line; transformers' removes the newline alone.
            Of two lines with one token, the later one has it in both.
    """
    ids: dict[str, int] = {}
    count = 0
    with path.open("rb") as file:
        for number, line in enumerate(file):
            word = line.decode("utf-8-sig" if number == 0 else "utf-8").rstrip("\r\n")
            count = number + 1 if word else count
            ids[word.strip() if strip else word] = number
    return {token: number for token, number in ids.items() if number < count}, count


def tokenize(text: str, vocabulary: Collection[str], lower_case: bool, kept: Collection[str] = ()) -> list[str]:
    """The tokens that Huawei's `FullTokenizer` makes of `text`.

    Args:
        kept: words that are never split, as the special tokens in NEZHA-PyTorch's code.
    """
    spaced = "".join(f" {c} " if is_chinese(c) else c for c in map(_clean, text))
    tokens = []
    for word in spaced.split():
        if word in kept:
            tokens.append(word)
            continue
        if lower_case:
            word = "".join(c for c in unicodedata.normalize("NFD", word.lower()) if unicodedata.category(c) != "Mn")
        for part in "".join(f" {c} " if is_punctuation(c) else c for c in word).split():
            tokens += pieces(part, vocabulary, LONGEST_WORD)
    return tokens


def texts_for(vocabulary: Collection[str]) -> list[str]:
    """`TEXTS`, the vocabulary's tokens, and texts of one of its letters: a capital, accents, words of 101 to 201.

    Words of up to 200 characters do not become [UNK] if the letter is also a piece. In Huawei's vocabularies it is.
    """
    letter = next((c for c in "abcdefghijklmnopqrstuvwxyz0123456789" if {c, f"##{c}"} <= set(vocabulary)), "a")
    words = (f"{letter * length} {letter}" for length in (101, 150, LONGEST_WORD, LONGEST_WORD + 1))
    changed = f"{letter.upper()} {letter}\u0301 {letter}{letter.upper()}"
    return [*TEXTS, *words_of(vocabulary, letter), " ".join(("我", *SPECIALS, "们")), changed, *words]


def words_of(vocabulary: Collection[str], letter: str) -> Iterator[str]:
    """Texts of all tokens: a word as it is, a piece behind `letter`. And some words in capitals, with accents, wide."""
    tokens = [token for token in vocabulary if token.strip() and token not in SPECIALS]
    for start in range(0, len(tokens), WORDS_AT_ONCE):
        part = tokens[start : start + WORDS_AT_ONCE]
        yield " ".join(f"{letter}{token[2:]}" if token.startswith("##") else token for token in part)
    latin = [token for token in tokens if token.isascii() and token.isalpha() and len(token) > 1][:WORDS_AT_ONCE]
    if latin:
        yield " ".join(form for word in latin for form in (word.upper(), word.title(), f"{word}\u0301", _wide(word)))


def _wide(word: str) -> str:
    """`word` in the full-width forms of its letters."""
    return "".join(chr(ord(c) + 0xFEE0) for c in word)


def lower_cases(vocabulary: Collection[str]) -> bool:
    """Whether a vocabulary is for lower-cased text. Then most capital letters are no tokens.

    Only tokens of one letter count: Huawei's Chinese vocabulary has longer ones in capitals, such as [CLS] and <S>.
    """
    return sum(letter in vocabulary for letter in string.ascii_uppercase) <= 13


def is_chinese(c: str) -> bool:
    """Whether Huawei's code makes the character `c` a word of its own."""
    return bool(c) and any(low <= ord(c) <= high for low, high in _CHINESE)


def is_punctuation(c: str) -> bool:
    """Whether Huawei's code splits words at `c`."""
    return c in _ASCII_PUNCTUATION or unicodedata.category(c).startswith("P")


def pieces(word: str, vocabulary: Collection[str], longest: int) -> list[str]:
    """`word` cut into the longest pieces from the left. [UNK] if no piece fits somewhere, or if `word` is too long."""
    tokens: list[str] = []
    start = 0
    while start < len(word) <= longest:
        prefix = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if prefix + word[start:end] in vocabulary), None)
        if end is None:
            return [UNKNOWN]
        tokens.append(prefix + word[start:end])
        start = end
    return tokens or [UNKNOWN]


def _clean(c: str) -> str:
    category = unicodedata.category(c)
    if c in " \t\n\r" or category == "Zs":
        return " "
    return "" if c in "\0\ufffd" or category in ("Cc", "Cf") else c
