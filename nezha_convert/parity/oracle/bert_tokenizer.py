"""BertTokenizer of transformers 4.40.2 in plain Python: the reference for folders with its files and no tokenizer.json.

It reads the files itself and shares no code with `nezha_convert/tokenizer` on purpose: a mistake there must not be
repeated here.

Source: tokenization_utils.py, tokenization_utils_base.py and models/bert/tokenization_bert.py of that release.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .wordpiece import is_chinese, is_punctuation, pieces

LONGEST_WORD = 100

_NAMES = {
    "bos_token": None,
    "eos_token": None,
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


@dataclass(frozen=True, slots=True)
class Marker:
    """A token that is found in a text before words are cut."""

    text: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    special: bool = False


class BertTokenizer:
    """The tokenizer of the vocabulary `path` and of the files beside it.

    Args:
        rows: the model's number of words. A special token that no file names and that would have an id past it is none.
        lower_case: what the user asked for, instead of what the files say.
    """

    def __init__(self, path: Path, rows: int, lower_case: bool | None = None) -> None:
        self.settings = settings = settings_of(path.parent)
        if lower_case is not None:
            settings["do_lower_case"] = lower_case
        with open(path, encoding="utf-8-sig") as file:
            self.ids = {line.rstrip("\n"): number for number, line in enumerate(file)}
        while "" in self.ids and self.ids[""] == len(self.ids) - 1:  # empty lines at the end are no tokens
            del self.ids[""]
        self.markers: dict[str, Marker] = {}
        self.specials: dict[str, str] = {}
        for number, marker in _added(path.parent, settings):
            self.ids[marker.text], self.markers[marker.text] = number, marker
        for name, marker in _special(settings):
            if marker.text not in self.ids and name not in settings and len(self.ids) >= rows:
                continue
            self.specials.setdefault(name, marker.text)
            self.ids.setdefault(marker.text, len(self.ids))
            self.markers.setdefault(marker.text, marker)
        special = [*self.specials.values(), *self.markers]
        self._kept = re.compile("(" + "|".join(map(re.escape, special)) + ")|(.+?)")
        self._found = re.compile("|".join(re.escape(text) for text in sorted(self.markers, key=len, reverse=True)))

    @property
    def lower_case(self) -> bool:
        """Whether text is lower-cased."""
        return bool(self.settings.get("do_lower_case", True))

    def encode(self, text: str, pair: str | None = None) -> list[int]:
        """The ids of a text, or of two, with the special tokens around them."""
        cls, sep = (self.ids[self.specials[name]] for name in ("cls_token", "sep_token"))
        second = [] if pair is None else [*self.tokenize(pair), sep]
        return [cls, *self.tokenize(text), sep, *second]

    def tokenize(self, text: str) -> list[int]:
        """The ids of `text` alone."""
        basic = self.settings.get("do_basic_tokenize", True)
        if self.lower_case and basic:
            text = self._kept.sub(lambda match: match[1] or match[2].lower(), text)
        found: list[int] = []
        for part in self._parts(text):
            if part in self.markers:
                found.append(self.ids[part])
                continue
            for word in self._words(part) if basic else part.split():
                cut = pieces(word, self.ids, LONGEST_WORD)
                unknown = self.specials["unk_token"]
                found += [self.ids[unknown if cut == ["[UNK]"] else piece] for piece in cut]
        return found

    def _parts(self, text: str) -> list[str]:
        """`text`, cut around the markers."""
        parts, start = [], 0
        for match in self._found.finditer(text):
            parts += [text[start : match.start()], match[0]]
            start = match.end()
        parts.append(text[start:])
        for at in range(1, len(parts), 2):
            marker, left, right = self.markers[parts[at]], parts[at - 1], parts[at + 1]
            if marker.rstrip:
                parts[at + 1] = right.lstrip()
            if marker.lstrip:
                parts[at - 1] = left.rstrip()
            if marker.single_word and left and left[-1] != " ":
                parts[at - 1], parts[at] = parts[at - 1] + parts[at], ""
            elif marker.single_word and right and right[0] != " ":
                parts[at], parts[at + 1] = "", parts[at] + parts[at + 1]
        return [part for part in parts if part]

    def _words(self, text: str) -> Iterator[str]:
        """The words of BasicTokenizer."""
        text = "".join(map(_clean, text))
        if self.settings.get("tokenize_chinese_chars", True):
            text = "".join(f" {c} " if is_chinese(c) else c for c in text)
        accents = self.settings.get("strip_accents")
        for word in unicodedata.normalize("NFC", text).split():
            lowered = word.lower() if self.lower_case else word
            if accents or (accents is None and self.lower_case):
                lowered = "".join(c for c in unicodedata.normalize("NFD", lowered) if unicodedata.category(c) != "Mn")
            yield from "".join(f" {c} " if is_punctuation(c) else c for c in lowered).split()


def is_beside(folder: Path) -> bool:
    """Whether files of transformers' in `folder` say how its tokenizer works."""
    said = _read(folder / "tokenizer_config.json").keys() - {"byte_bpe_rules"}
    others = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json")
    return bool(said) or any(_read(folder / name) for name in others)


def settings_of(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json; in older folders special_tokens_map.json wins over it."""
    settings = dict(_read(folder / "tokenizer_config.json"))
    if "added_tokens_decoder" in settings:
        return settings
    for name, value in _read(folder / "special_tokens_map.json").items():
        if name == "additional_special_tokens" and isinstance(value, list):
            before = settings.get(name) or []
            value = before + [token for token in value if token not in before]
        settings[name] = value
    return settings


def markers_of(folder: Path, defaults: bool) -> list[tuple[str, Marker, bool | None]]:
    """The added and the special tokens: their text, how they are found, and whether they are special.

    Args:
        defaults: with those that BertTokenizer has where the files name none; they have None for "special".
    """
    settings = settings_of(folder)
    special = [(name, marker) for name, marker in _special(settings) if defaults or name in settings]
    names = {marker.text for _, marker in special}
    found = [
        (marker.text, marker, marker.special or marker.text in names) for _, marker in _added(folder, settings, False)
    ]
    return [*found, *((marker.text, marker, True if name in settings else None) for name, marker in special)]


def _special(settings: dict[str, Any]) -> list[tuple[str, Marker]]:
    """The special tokens by the name of their setting, in the order in which missing ones are added."""
    values = [(name, settings.get(name, default)) for name, default in _NAMES.items()]
    further = "additional_special_tokens"
    values += [(further, value) for value in settings.get(further) or ()]
    return [(name, _marker(value)) for name, value in values if value is not None]


def _added(folder: Path, settings: dict[str, Any], listed_too: bool = True) -> list[tuple[int, Marker]]:
    """The added tokens by id. Those listed in tokenizer.json count where it is no whole tokenizer."""
    if "added_tokens_decoder" in settings:
        found = [(int(number), _marker(value)) for number, value in settings["added_tokens_decoder"].items()]
    else:
        found = [(number, Marker(text)) for text, number in _read(folder / "added_tokens.json").items()]
        if listed_too:
            listed = _read(folder / "tokenizer.json").get("added_tokens")
            items = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
            found += [(item["id"], _marker(item)) for item in items if type(item.get("id")) is int]
    return sorted(found, key=lambda item: item[0])


def _marker(value: Any) -> Marker:
    if isinstance(value, str):
        return Marker(value)
    flags = (value.get(name) is True for name in ("single_word", "lstrip", "rstrip", "special"))
    return Marker(value["content"], *flags)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_text("utf-8"))
    return content if isinstance(content, dict) else {}


def _clean(c: str) -> str:
    category = unicodedata.category(c)
    if c in " \t\n\r" or category == "Zs":
        return " "
    return "" if c == "\ufffd" or category.startswith("C") else c
