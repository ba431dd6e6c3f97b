"""Texts of eleven languages, the same each time."""

from __future__ import annotations

import random
from functools import cache

LETTERS = {
    "Arabic": "\u0621-\u064a\u064b-\u0652\u0660-\u0669\u0671-\u06d3\u060c\u061b\u061f\ufe8d-\ufef4",
    "Chinese": "\u4e00-\u9fa5\u3400-\u3410\U00020000-\U00020010\uf900-\uf910\u3001\u3002\uff0c\uff01",
    "Japanese": "\u3041-\u3096\u30a1-\u30ff\u4e00-\u4e20\uff66-\uff9d\u3002\u3099\u309a",
    "Korean": "\uac00-\uac80\ud700-\ud7a3\u1100-\u1112\u1161-\u1175",
    "Hindi": "\u0904-\u0939\u093c-\u094d\u0964\u0966-\u096f",
    "Thai": "\u0e01-\u0e3a\u0e40-\u0e5b",
    "Russian": "\u0400-\u045f\u0451.,-",
    "Greek": "\u0370-\u0377\u0384-\u038a\u0391-\u03a1\u03a3-\u03c9\u03a3\u1f00-\u1f15\u037e",
    "Hebrew": "\u05d0-\u05ea\u05b0-\u05bd\u05be\u05c0\u05f3\ufb1d-\ufb36",
    "English": "a-zA-Z0-9'.,!?()$",
    "Turkish and Vietnamese": "a-z\u0130\u0131\u011e\u011f\u015e\u00c0-\u00ff\u1ea0-\u1ef9\u0300-\u0309\u031b\u0323",
}
"""Eleven languages: single characters and ranges of them, combining marks and punctuation included."""

ANYWHERE = (
    "".join(map(chr, range(0x21)))
    + "\x7f\x80\x85\x9f\xa0\xad\u1680\u180e\u2000\u2009\u200b\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
    + "\ufffd\ufffe\ue000\U000e0041\U0010ffff0123456789.,:-#[]<>|^~`$+=\u00b2\u0662\u2460\u2026\u00b7\u00bf\u2019\u20ac"
    + "\u2122\ufb01\U0001f600\U0001f44d\U0001f3fd\u200d\ufe0f\U0001f1f2\U0001f1fe\u0301\u0345\u02b0\u01c5\u1e9e\u0378"
)
"""Controls, spaces of every kind, private and unassigned characters, digits, symbols, emoji, marks."""


def letters(ranges: str) -> list[str]:
    """The characters of a class such as `a-z0-9`."""
    characters = []
    while ranges:
        last = ranges[2] if len(ranges) > 2 and ranges[1] == "-" else ranges[0]
        characters += [chr(c) for c in range(ord(ranges[0]), ord(last) + 1)]
        ranges = ranges[3 if last != ranges[0] else 1 :]
    return characters


@cache
def strings(count: int) -> list[str]:
    """`count` texts, the same each time: of each language in turn, some mixed, with what may stand anywhere."""
    chance = random.Random(2019)
    languages = [letters(ranges) for ranges in LETTERS.values()]
    texts = []
    for number in range(count):
        alphabet = languages[number % len(languages)]
        if chance.random() < 0.15:
            alphabet = alphabet + chance.choice(languages)
        rare = chance.choice([0.0, 0.03, 0.3])
        size = chance.randint(1, 30)
        drawn = ((chance.choice(ANYWHERE) if chance.random() < rare else chance.choice(alphabet)) for _ in range(size))
        texts.append("".join(" " + c if chance.random() < 0.15 else c for c in drawn))
    return texts
