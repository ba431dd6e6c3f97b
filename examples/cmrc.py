"""CMRC 2018's two measures of an answer, as its evaluation script (version v5) defines them.

Exact match: the texts are equal once lower-cased and without punctuation. F1: the texts are cut into pieces, a Chinese
character or a word of anything else; what they share is the longest run of pieces that both contain.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
"""The characters that do not count. This is CMRC's list; it lacks ASCII's full stop and comma, and the ellipsis."""

_CHINESE = "\u4e00-\u9fa5"
_MARK = rf"""[;@#$%&?!()\[\]{{}}<>"]|,(?!\d)|\.(?=\s*(?:[{_CHINESE}]|$))"""
PIECE = re.compile(rf"[{_CHINESE}]|\.\.\.|{_MARK}|(?:(?!{_MARK}|\.\.\.)[^\s{_CHINESE}])+")
"""A Chinese character, a mark, or a run of anything else. CMRC cuts what is not Chinese by NLTK's English tokenizer.
These are that tokenizer's rules for marks; its rules for contractions (don't) and quotation marks are left out."""


def exact_match(answers: Sequence[str], prediction: str) -> float:
    """1 if the prediction is one of the answers, else 0."""
    return float(any(plain(answer) == plain(prediction) for answer in answers))


def f1(answers: Sequence[str], prediction: str) -> float:
    """The highest F1 of the prediction with any of the answers, from 0 to 1."""
    return max(_f1(pieces(answer), pieces(prediction)) for answer in answers)


def plain(text: str) -> str:
    """`text` in lower case, without punctuation."""
    return "".join(character for character in text.lower().strip() if character not in PUNCTUATION)


def pieces(text: str) -> list[str]:
    """`text` in Chinese characters, words, numbers and marks, in lower case and without punctuation."""
    return PIECE.findall(plain(text))


def _f1(answer: list[str], prediction: list[str]) -> float:
    matcher = SequenceMatcher(None, answer, prediction, autojunk=False)
    shared = matcher.find_longest_match(0, len(answer), 0, len(prediction)).size
    return 2 * shared / (len(answer) + len(prediction)) if shared else 0.0
