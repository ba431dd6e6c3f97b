"""A second implementation of Huawei's byte BPE, in plain Python: the reference for converted tokenizers.

It shares no code with `nezha_convert/tokenizer/byte_bpe.py` on purpose: a mistake there must not be repeated here.

JABER-PyTorch/tokenizationBBPE.py, and the versions before and after it: clean, split, write each word as the upper-case
hexadecimal digits of its UTF-8, take the longest piece first; a word of more than 1,000 digits is unknown.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Collection, Iterator
from itertools import pairwise

from .wordpiece import is_chinese, is_punctuation, pieces

LONGEST_WORD = 1000
TEXTS = (
    "الطقس جميل اليوم، والقطار يصل في الساعة ٩:٣٠ صباحًا. هل تأتي معنا؟",
    "The train leaves at 9.30; it costs 12,50 (or 3.14 × 4?) - don't be late!",
    "Der große Zug fährt über die Brücke. El niño comió piñas, ¿verdad? L'été dernier à Zürich — « très bien ».",
    "Kereta api bertolak pada pagi. Pociąg odjeżdża o świcie, żółć, źdźbło. Os comboios não são rápidos.",
    "Поезд уходит в 7:05. Ёлка, объём; «да»!",
    "รถไฟออกเดินทางตอนเช้า ๑๒๓ น้ำ",
    "火车在早上出发，到北京。電車は東京から出る。カタカナ ㍿ 기차는 아침에 떠납니다.",
    "रेलगाड़ी सुबह निकलती है। १२३ הרכבת יוצאת בבוקר: שָׁלוֹם. Το τρένο φεύγει, ΟΔΟΣ ΑΘΗΝΑΣ.",
    "İstanbul ılık; Tiếng Việt: tie\u0302\u0301ng e\u0323 ǅ ﬁ Å ẞ",
    "a\tb\nc\r\nd\u00a0e\u3000f\u200bg\u00adh\ufeffi\ufffdj\x00k\u2028l\u2029m\u0085n\x1co\ue000p\u0378q",
    "😀👍🏽👨‍👩‍👧🇲🇾 5. 1.5 1..5 ١.٢ ².³ 3:中 #1 ## [CLS 5B",
)
"""Every byte BPE is compared on these texts. `texts_for` adds the words of the vocabulary."""


def rules_of(vocabulary: Collection[str], asked: bool = False) -> str | None:
    """The rules that a vocabulary is for: `jaber` if it is Arabic, otherwise `multilingual`; None if it is no byte BPE.

    In UTF-8, letters from U+0600 to U+06FF begin with the bytes D8 to DB. Numbers alone are no bytes: without a piece
    that has a hexadecimal letter, they are the words of a vocabulary of numbers.

    Args:
        asked: it is taken for one, whatever it looks like.
    """
    hexadecimal = [
        digits
        for digits in (token.strip().removeprefix("##") for token in vocabulary)
        if digits and len(digits) % 2 == 0 and set(digits) <= set("0123456789ABCDEF")
    ]
    lettered = any(token.strip()[:2] == "##" and set(token.strip()[2:]) & set("ABCDEF") for token in vocabulary)
    if not asked and not (lettered and 2 * len(hexadecimal) > len(vocabulary)):
        return None
    longer = [bytes.fromhex(digits) for digits in hexadecimal if len(digits) > 2]
    arabic = [p for p in longer if any(0xD8 <= a < 0xDC and b >> 6 == 2 for a, b in pairwise(p))]
    return "jaber" if 2 * len(arabic) > len(longer) else "multilingual"


def tokenize(text: str, vocabulary: Collection[str], lower_case: bool, rules: str) -> list[str]:
    """The tokens that Huawei's `FullTokenizer` makes of `text`.

    Args:
        rules: `multilingual`; `jaber`, which does not split Chinese characters; `bbpe`, which keeps points in numbers.
    """
    text = "".join(c for c in text if c in "\t\n\r" or not (c == "\ufffd" or unicodedata.category(c)[0] == "C"))
    if rules != "jaber":
        text = "".join(f" {c} " if is_chinese(c) else c for c in text)
    tokens = []
    for word in text.split():
        if lower_case:
            word = "".join(c for c in unicodedata.normalize("NFD", word.lower()) if unicodedata.category(c) != "Mn")
        for part in _parts(word, rules == "bbpe"):
            tokens += pieces(part.encode().hex().upper(), vocabulary, LONGEST_WORD)
    return tokens


def texts_for(vocabulary: Collection[str]) -> Iterator[str]:
    """`TEXTS`; words of the greatest length and of one byte more; every token that is text, as a word and in a word."""
    yield from TEXTS
    letters = string.ascii_letters + string.digits
    letter = next((c for c in letters if {f"{ord(c):02X}", f"##{ord(c):02X}"} <= set(vocabulary)), "a")
    yield from (f"{letter * 500} {letter}", f"{letter * 501} {letter}", f"{'ب' * 250} {'ب' * 250}{letter}")
    words = []
    for token in vocabulary:
        try:
            words.append(bytes.fromhex(token.strip().removeprefix("##")).decode())
        except ValueError:  # a part of a character, or not hexadecimal
            continue
    for start in range(0, len(words), 64):
        yield " ".join(f"{word} {letter}{word}" for word in words[start : start + 64])


def lower_cases(vocabulary: Collection[str]) -> bool:
    """Whether a vocabulary is for lower-cased text. Then most capital letters are no tokens."""
    return sum(f"{ord(letter):02X}" in vocabulary for letter in string.ascii_uppercase) <= 13


def _parts(word: str, numbers: bool) -> Iterator[str]:
    """`word`, cut around punctuation. With `numbers`, a mark between digits, or after the last digit, does not cut."""
    part = ""
    for before, c, after in zip(f" {word}", word, [*word[1:], ""], strict=False):
        joined = numbers and before.isdigit() and (not after or after.isdigit())
        if is_punctuation(c) and not joined:
            yield from (part, c) if part else c
            part = ""
        else:
            part += c
    if part:
        yield part
