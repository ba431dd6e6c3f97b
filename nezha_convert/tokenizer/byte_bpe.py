"""Huawei's byte BPE, a vocabulary of upper-case hexadecimal UTF-8, as a tokenizer that gives the same ids.

Huawei's code writes each word as the hexadecimal digits of its UTF-8 bytes. Then it takes the longest token from the
left; all but a word's first token begin with `##`. Here each byte is one character of the alphabet of byte-level BPE.

`parity/oracle/byte_bpe.py` checks this module, so neither uses the other's code.

Source: JABER-PyTorch/tokenizationBBPE.py and BBPE/bbpe/tokenization.py at commit 0598f02, BBPE/tokenizationBBPE.py at
8b60ffe (later deleted, and still what the README of NEZHA-TensorFlow names).
"""

from __future__ import annotations

import re
import unicodedata
from codecs import getincrementaldecoder
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import punctuation
from typing import Any

from ..errors import MappingError

PREFIX = "…"
"""Takes the place of `##`, which is also the text of the bytes 23 23. The alphabet of bytes lacks this character."""

MAX_BYTES_PER_WORD = 500
"""Longer words become [UNK]: 1,000 hexadecimal digits in Huawei's code."""

_PAIRS = re.compile("(##)?((?:[0-9A-F]{2})+)")
_ODD = re.compile("(##)?((?:[0-9A-F]{2})*[0-9A-F])")
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = [byte for byte in range(0x100) if byte not in _PRINTABLE]
_ALPHABET = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(0x100 + i) for i, byte in enumerate(_OTHERS)}
"""GPT-2's alphabet: a printable byte stands for itself; the others get the characters from U+0100 on."""
_BYTES = {character: byte for byte, character in _ALPHABET.items()}

_CHINESE = "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f]"
_PUNCTUATION = r"[!-/:-@\[-`{-~\p{P}]"
_DIGIT = (
    r"[\p{Nd}²³¹፩-፱᧚⁰⁴-⁹₀-₉①-⑨⑴-⑼⒈-⒐⓪⓵-⓽⓿❶-❾➀-➈➊-➒"
    "\U00010a40-\U00010a43\U00010e60-\U00010e68\U00011052-\U0001105a\U0001f100-\U0001f10a]"
)
"""The characters for which Python's `str.isdigit` is true."""

_CASED, _IGNORABLE = r"[\p{Cased}&&\P{Case_Ignorable}]", r"\p{Case_Ignorable}*"
FINAL_SIGMA = rf"{_CASED}{_IGNORABLE}\KΣ(?!{_IGNORABLE}{_CASED})"
"""The capital sigma at the end of a word. Python's `str.lower` makes it ς; the tokenizers library would make it σ."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How a version of Huawei's code splits words.

    Attributes:
        chinese: each Chinese character is a word of its own.
        numbers: punctuation after a digit does not split, if a digit or the word's end follows.
    """

    name: str
    source: str
    chinese: bool
    numbers: bool


RULES = {
    rules.name: rules
    for rules in (
        Rules("multilingual", "BBPE/tokenizationBBPE.py at 8b60ffe", chinese=True, numbers=False),
        Rules("jaber", "JABER-PyTorch/tokenizationBBPE.py", chinese=False, numbers=False),
        Rules("bbpe", "BBPE/bbpe/tokenization.py", chinese=True, numbers=True),
    )
}


def is_byte_bpe(tokens: Sequence[str]) -> bool:
    """Whether more than half of `tokens` are upper-case hexadecimal bytes, with `##` pieces that have a letter.

    In a Chinese vocabulary hardly any are. Decimal numbers alone are the words of an anonymised competition.
    """
    found = [token.strip() for token in tokens if token_bytes(token) is not None]
    pieces = any(token.startswith("##") and not token[2:].isdecimal() for token in found)
    return pieces and 2 * len(found) > len(tokens)


def token_bytes(token: str) -> bytes | None:
    """The bytes that a token stands for, with or without `##`; None if it is not hexadecimal."""
    match = _PAIRS.fullmatch(token.strip())  # Huawei's code strips lines too
    return bytes.fromhex(match[2]) if match else None


def is_arabic(tokens: Sequence[str]) -> bool:
    """Whether more than half of the tokens of several bytes contain an Arabic letter, as in JABER's vocabulary."""
    several = [piece for piece in map(token_bytes, tokens) if piece and len(piece) > 1]
    arabic = sum(any("\u0600" <= c <= "\u06ff" for c in piece.decode(errors="ignore")) for piece in several)
    return 2 * arabic > len(several)


def name_tokens(path: Path, tokens: Sequence[str], kept: Collection[str]) -> tuple[list[str], list[str]]:
    """Each token's name in the new tokenizer, in the order of their ids; and the tokens that no text becomes.

    Args:
        path: the vocabulary's file, for messages.
        tokens: the vocabulary's lines.
        kept: tokens that are matched before words are split, such as the special ones. They keep their names.

    Raises:
        MappingError: Huawei's code could take a token that ends inside a byte; or two tokens would get one name.
    """
    lines = [token.strip() for token in tokens]
    present = set(lines)
    if odd := [token for token in lines if token not in kept and _ends_inside_a_byte(token, present)]:
        raise MappingError(
            f"{path}: {len(odd):,} tokens of an odd number of hexadecimal digits, which Huawei's code could take; "
            "expected two digits a byte",
            problems=tuple(f"{token}: {len(token.removeprefix('##'))} digits" for token in odd),
            hint="No tokenizer.json gives these ids. Move the vocabulary away to convert without a tokenizer, and "
            "tokenize with Huawei's own code.",
        )
    reached = [token if token in kept else _name(token) for token in lines]
    unused = [token for token, name in zip(lines, reached, strict=True) if name is None]
    names = [
        name or (token if _is_split(token) else f"[unused {token}]") for token, name in zip(lines, reached, strict=True)
    ]
    added = [token for token in kept if token not in present]
    _check_names(path, [*names, *added], [*lines, *added])
    return names, unused


def _check_names(path: Path, names: Sequence[str], tokens: Sequence[str]) -> None:
    """Raises MappingError if two of `tokens` have the same name."""
    first: dict[str, int] = {}
    pairs = [(first[name], i) for i, name in enumerate(names) if first.setdefault(name, i) != i]
    if pairs:
        raise MappingError(
            f"{path}: {len(pairs):,} pairs of tokens have the same text; expected each once",
            problems=tuple(f"{tokens[i]!r} and {tokens[j]!r}" for i, j in pairs),
            hint="Name another vocabulary: --vocab FILE",
        )


def spelled_out(name: str) -> str:
    """The reverse of `name_tokens`: the vocabulary's token that has this name."""
    if name.startswith("[unused ") and name.endswith("]"):
        return name[len("[unused ") : -1]
    text = name.removeprefix(PREFIX)
    if _is_split(name) or not _BYTES.keys() >= set(text):
        return name
    return "##" * (text != name) + bytes(_BYTES[c] for c in text).hex().upper()


def pipeline(rules: Rules, lower_case: bool) -> tuple[Any, Any, Any]:
    """The normalizer, the pre-tokenizer and the decoder, of the tokenizers library.

    The library classifies characters by its own version of Unicode, Huawei's code by that of Python.
    """
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    steps: list[Any] = [normalizers.Replace(Regex(r"(?![\t\n\r])[\p{C}\x{FFFD}]"), "")]
    if lower_case:  # like Python's `lower`, which treats a sigma at the end of a word; then drop accents
        steps += [normalizers.Replace(Regex(FINAL_SIGMA), "ς"), normalizers.Lowercase(), normalizers.NFD()]
        steps.append(normalizers.Replace(Regex(r"\p{Mn}"), ""))
    punctuation_alone = rf"(?<!{_DIGIT}){_PUNCTUATION}|{_PUNCTUATION}(?!\z|{_DIGIT})"
    splits: list[Any] = [pre_tokenizers.Split(Regex(r"[\t\n\r\p{Z}]+"), "removed")]
    if rules.chinese:
        splits.append(pre_tokenizers.Split(Regex(_CHINESE), "isolated"))
    splits.append(pre_tokenizers.Split(Regex(punctuation_alone if rules.numbers else _PUNCTUATION), "isolated"))
    splits.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    # ByteLevel decodes only characters of the alphabet of bytes, so the space between words is written in it.
    joined = [decoders.WordPiece(PREFIX, cleanup=False), decoders.Replace(" ", _ALPHABET[0x20]), decoders.ByteLevel()]
    return normalizers.Sequence(steps), pre_tokenizers.Sequence(splits), decoders.Sequence(joined)


def _name(token: str) -> str | None:
    """The name of `token`; None if no text becomes this token."""
    name = PREFIX * token.startswith("##") + "".join(_ALPHABET[byte] for byte in token_bytes(token) or b"")
    return None if name in ("", PREFIX) or _is_split(name) else name


def _is_split(name: str) -> bool:
    """Whether `name` is punctuation and more. That makes two words, so no word begins with such a token."""
    return len(name) > 1 and name[0] in punctuation


def _ends_inside_a_byte(token: str, vocabulary: Collection[str]) -> bool:
    """Whether `token` has an odd number of digits, and there is text in which no longer token matches."""
    match = _ODD.fullmatch(token)
    return match is not None and any(
        token + digit not in vocabulary and _occurs(bytes.fromhex(match[2] + digit), within=bool(match[1]))
        for digit in "0123456789ABCDEF"
    )


def _occurs(piece: bytes, within: bool) -> bool:
    """Whether `piece` can begin a word or, with `within`, be inside one: UTF-8 without control characters or spaces.

    A character may be cut off at its end and, with `within`, at its beginning.
    """
    if within:
        cut = next((i for i, byte in enumerate(piece[:3]) if not 0x80 <= byte < 0xC0), min(3, len(piece)))
        piece = piece[cut:]
    try:
        text = getincrementaldecoder("utf-8")().decode(piece)
    except UnicodeDecodeError:
        return False
    return not any(c.isspace() or unicodedata.category(c) == "Cc" for c in text)
