"""What transformers' own files beside a vocabulary say about its tokenizer, as transformers 4.40.2 reads them.

Source: tokenization_utils_base.py (`_from_pretrained`) and models/bert of transformers 4.40.2, the last release that
has all of NEZHA.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import MappingError
from .wordpiece import RULES_FIELD, SPECIAL_TOKENS, AddedToken, json_object

WHOLE, CONFIG, SPECIALS, ADDED = FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)

FLAGS: Mapping[str, bool | None] = {
    "do_lower_case": True,
    "tokenize_chinese_chars": True,
    "strip_accents": None,
    "do_basic_tokenize": True,
}
"""BertTokenizer's settings and their defaults. A `strip_accents` of None goes with the lower case."""

ORDER = ("bos_token", "eos_token", *SPECIAL_TOKENS)
"""The special tokens in the order in which transformers appends those that a vocabulary lacks."""

CARRIED: Mapping[str, tuple[Any, ...]] = {
    "padding_side": ("right", "left"),
    "truncation_side": ("right", "left"),
    "clean_up_tokenization_spaces": (True, False),
}
"""Settings that are written as they are, and their values. None changes an id of a text that is encoded alone."""

_FURTHER = "additional_special_tokens"

WITHOUT_EFFECT = frozenset(
    (
        *("__type", "added_tokens_file", "auto_map", "backend", "full_tokenizer_file", "is_local", "local_files_only"),
        *("max_len", "max_length", "model_input_names", "name_or_path", "pad_to_multiple_of", "pad_token_type_id"),
        *("processor_class", "special_tokens_map_file", "stride", "tokenizer_file", "truncation_strategy", "use_fast"),
        "vocab_file",
    )
)
"""Names of files, classes of other code, and options of a call: none changes an id."""

_DECIDED = frozenset((*FLAGS, *ORDER, *CARRIED, _FURTHER, "added_tokens_decoder", "never_split"))
_DECIDED |= {"tokenizer_class", "split_special_tokens", "model_max_length", RULES_FIELD}
_CLASSES = ("BertTokenizer", "NezhaTokenizer", "NeZhaTokenizer")
_ALIKE = ("DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "PreTrainedTokenizer")
_OTHER_RULES = ("BertJapaneseTokenizer", "TapasTokenizer", "RoFormerTokenizer", "FunnelTokenizer")
"""Classes of transformers that do not take tokenizer.json, or not as it is: they have rules of their own."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a tokenizer.

    Attributes:
        flags: by the names of `FLAGS`; of those that a file states, `stated` has the names.
        specials: the special tokens by attribute, in the order of `ORDER`.
        additional: further special tokens.
        added: tokens by the id that a file gives them.
        whole: the document tokenizer.json; None if there is none that holds a model.
        named_class: the class that is to read them, without "Fast"; empty where no file names one.
        unknown: names of tokenizer_config.json that no program here knows, with their values.
    """

    folder: Path
    flags: Mapping[str, bool | None]
    stated: frozenset[str]
    specials: Mapping[str, AddedToken]
    additional: tuple[AddedToken, ...]
    added: Mapping[int, AddedToken]
    whole: Mapping[str, Any] | None
    named_class: str
    max_length: int | None
    carried: Mapping[str, Any]
    unknown: Mapping[str, Any]

    @property
    def bert(self) -> bool:
        """Whether transformers reads the files by BertTokenizer, which has settings of its own."""
        return self.named_class in ("", *_CLASSES)

    @property
    def lower_case(self) -> bool:
        """Whether text is lower-cased: BertTokenizer's setting, or what a tokenizer.json of another kind does."""
        if self.adjustable:
            return bool(self.flags["do_lower_case"])
        said = json.dumps((self.whole or {}).get("normalizer"))
        return '"lowercase": true' in said or '"Lowercase"' in said

    @property
    def adjustable(self) -> bool:
        """Whether the flags decide how text is normalized. A tokenizer.json may say it by itself."""
        state = (self.whole or {}).get("normalizer")
        return self.whole is None or (self.bert and isinstance(state, dict) and state.get("type") == "BertNormalizer")

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that say something."""
        return tuple(path for name in FILES if (path := self.folder / name).is_file())


def vocabulary_in(folder: Path) -> Path | None:
    """tokenizer.json in `folder`, where it holds a vocabulary. transformers 5 writes no vocab.txt beside it.

    Raises:
        MappingError: it is not JSON.
    """
    path = folder / WHOLE
    return path if isinstance(json_object(path).get("model"), dict) else None


def read_settings(folder: Path) -> Settings | None:
    """The settings of the tokenizer in `folder`; None if no file of transformers' is there.

    Raises:
        MappingError: a file is not JSON, a setting is of another type than transformers takes, or it cannot be carried.
    """
    config = json_object(folder / CONFIG)
    documents = [json_object(folder / name) for name in (WHOLE, SPECIALS, ADDED)]
    if not any(documents) and config.keys() <= {RULES_FIELD}:
        return None
    listed = {} if "added_tokens_decoder" in config else _with_map(config, documents[1])
    raw = config | listed
    where = {name: folder / (SPECIALS if name in listed else CONFIG) for name in (*ORDER, _FURTHER)}
    whole = documents[0] if isinstance(documents[0].get("model"), dict) else None
    named_class = str(raw.get("tokenizer_class") or "").removesuffix("Fast")
    _refuse_uncarried(folder / CONFIG, raw, whole is None, named_class)
    if named_class in _OTHER_RULES or (whole is None and named_class not in ("", *_CLASSES, *_ALIKE)):
        expected = "BertTokenizer, or a class that is known to tokenize as it does"
        raise _foreign(folder / CONFIG, "tokenizer_class", raw["tokenizer_class"], expected)
    stated = frozenset(raw.keys() & {*FLAGS, *ORDER})
    defaults = SPECIAL_TOKENS if whole is None or named_class in ("", *_CLASSES) else {}
    specials = {name: _token(where[name], name, raw.get(name, defaults.get(name)), special=True) for name in ORDER}
    found = {name: token for name, token in specials.items() if token}
    additional = _tokens(where[_FURTHER], _FURTHER, raw.get(_FURTHER))
    names = {token.content for token in (*found.values(), *additional)}
    added = dict(_added(folder, raw, documents, names, whole is None))
    length = raw.get("model_max_length")
    return Settings(
        folder=folder,
        flags={name: _flag(folder / CONFIG, name, raw.get(name, default)) for name, default in FLAGS.items()},
        stated=stated,
        specials=found,
        additional=additional,
        added=added,
        whole=whole,
        named_class=named_class,
        max_length=length if type(length) is int and 0 < length < 1_000_000 else None,
        carried={name: raw[name] for name in CARRIED if raw.get(name) is not None},
        unknown={k: v for k, v in config.items() if k not in _DECIDED | WITHOUT_EFFECT and v not in (None, [], {}, "")},
    )


def _with_map(raw: Mapping[str, Any], listed: Mapping[str, Any]) -> dict[str, Any]:
    """What special_tokens_map.json says, which wins over tokenizer_config.json; only a list is added to its list."""
    known = {name: listed[name] for name in (*ORDER, _FURTHER) if name in listed}
    if isinstance(known.get(_FURTHER), list) and isinstance(raw.get(_FURTHER), list):
        known[_FURTHER] = [*raw[_FURTHER], *(token for token in known[_FURTHER] if token not in raw[_FURTHER])]
    return known


def _added(
    folder: Path, raw: Mapping[str, Any], documents: list[dict[str, Any]], special: set[str], partial: bool
) -> Iterator[tuple[int, AddedToken]]:
    """(id, token) from `added_tokens_decoder` or, in older folders, from added_tokens.json and tokenizer.json."""
    if "added_tokens_decoder" in raw:
        listed = raw["added_tokens_decoder"]
        if not isinstance(listed, dict):
            raise _foreign(folder / CONFIG, "added_tokens_decoder", listed, "tokens by their ids")
        for number, value in listed.items():
            token = _token(folder / CONFIG, "added_tokens_decoder", value)
            if not str(number).isdecimal() or not str(number).isascii() or token is None or len(str(number)) > 9:
                raise _foreign(folder / CONFIG, "added_tokens_decoder", {number: value}, "an id and a token")
            yield int(number), token
        return
    for content, number in documents[2].items():
        if type(number) is int and number >= 0 and content:
            yield number, AddedToken(content, content in special)
    listed = documents[0].get("added_tokens")
    for item in listed if partial and isinstance(listed, list) else ():
        if (
            isinstance(item, dict)
            and type(item.get("id")) is int
            and (token := _token(folder / WHOLE, "added_tokens", item))
        ):
            yield item["id"], token


def _tokens(path: Path, name: str, values: Any) -> tuple[AddedToken, ...]:
    if values is not None and not isinstance(values, list):
        raise _foreign(path, name, values, "a list of tokens")
    return tuple(filter(None, (_token(path, name, value, special=True) for value in values or ())))


def _token(path: Path, name: str, value: Any, special: bool = False) -> AddedToken | None:
    """`value`, a text or an object that describes one, as a token; None for null."""
    if value is None:
        return None
    fields = value if isinstance(value, dict) else {"content": value}
    content = fields.get("content")
    if not isinstance(content, str) or not content:
        raise _foreign(path, name, value, "a text")
    flags = {flag: fields.get(flag) is True for flag in ("single_word", "lstrip", "rstrip")}
    return AddedToken(content, special or fields.get("special") is True, **flags)


def _flag(path: Path, name: str, value: Any) -> bool | None:
    if not (isinstance(value, bool) or (name == "strip_accents" and value is None)):
        raise _foreign(path, name, value, "true or false")
    return value


def _refuse_uncarried(path: Path, raw: Mapping[str, Any], from_vocabulary: bool, named_class: str) -> None:
    """Raises MappingError for the settings that no tokenizer.json can say, and for those of another type."""
    kept = raw.get("never_split")
    special = {str(raw.get(name, default)) for name, default in SPECIAL_TOKENS.items()}
    if kept and not (isinstance(kept, list) and {str(token) for token in kept} <= special):
        raise _foreign(path, "never_split", kept, "none: tokenizer.json has no words that are never split")
    if raw.get("split_special_tokens"):
        expected = "false: the tokenizer finds special tokens in a text"
        raise _foreign(path, "split_special_tokens", raw["split_special_tokens"], expected)
    if from_vocabulary and named_class not in ("", *_CLASSES, "PreTrainedTokenizer"):
        expected = "BertTokenizer: without a tokenizer.json, no other class's rules are known"
        raise _foreign(path, "tokenizer_class", raw["tokenizer_class"], expected)
    for name, known in CARRIED.items():
        if raw.get(name) is not None and raw[name] not in known:
            raise _foreign(path, name, raw[name], " or ".join(map(str, known)))


def _foreign(path: Path, name: str, found: Any, expected: str) -> MappingError:
    return MappingError(
        f"{path}: {name} is {str(found)[:200]!r}; expected {expected}",
        hint="Put vocab.txt and the other tokenizer files into a new folder, mend or remove the setting there, and "
        "name that vocabulary: --vocab FOLDER/vocab.txt",
    )
