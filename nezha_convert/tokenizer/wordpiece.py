"""Makes the tokenizer files of a converted folder from vocab.txt. The tokenizer gives the ids that Huawei's gives.

Source: NEZHA-TensorFlow/tokenization.py at commit 0598f02 (FullTokenizer); for byte BPE see `byte_bpe`.
`parity/oracle/wordpiece.py` checks this module, so neither uses the other's code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from ..checkpoint import Decision, Origin
from ..errors import MappingError
from ..files.given import in_utf8
from ..files.json import json_bytes, optional_object
from .byte_bpe import (
    FINAL_SIGMA,
    MAX_BYTES_PER_WORD,
    PREFIX,
    RULES,
    is_arabic,
    is_byte_bpe,
    name_tokens,
    pipeline,
    token_bytes,
)

MAX_CHARS_PER_WORD = 200
"""Longer words become [UNK]. Huawei's TensorFlow tokenizer has 200; transformers' own default is 100."""

SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}

WORDPIECE, BYTE_BPE = KINDS = ("wordpiece", "byte-bpe")
"""The kinds of a tokenizer, as `--tokenizer` names them."""

_MASK = SPECIAL_TOKENS["mask_token"]
_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]")

RULES_FIELD = "byte_bpe_rules"
"""The name of a field of tokenizer_config.json, and of a decision: the rules by which a byte BPE splits words."""


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is found in a text before words are cut, such as a marker of entities.

    Attributes:
        single_word: it is not found inside a word.
        lstrip, rstrip: it takes the spaces before it, or after it, along.
    """

    content: str
    special: bool
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a vocab.txt, in the order of their ids.

    Attributes:
        added: tokens that transformers' files beside the vocabulary add after its end.
        whole: tokens of the vocabulary that these files match as one piece, such as an [unused1] with a meaning.
        kind: the kind of tokenizer that the user asked for; None lets the tokens say.
        repeated: lines whose token is that of a later line, which has its id in the program's table.
    """

    path: Path
    tokens: tuple[str, ...]
    added: tuple[AddedToken, ...] = ()
    whole: tuple[AddedToken, ...] = ()
    kind: str | None = None
    repeated: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens) + len(self.added)

    @property
    def specials(self) -> dict[str, str]:
        """The special tokens, all but a [MASK] that the vocabulary lacks."""
        return {name: token for name, token in SPECIAL_TOKENS.items() if token in self.tokens}

    @property
    def byte_bpe(self) -> bool:
        """Whether the tokens are hexadecimal bytes, as in Huawei's multilingual and Arabic models."""
        return self.kind == BYTE_BPE if self.kind else is_byte_bpe(self.tokens)


def read_vocab(path: Path, *, strip: bool = False, kind: str | None = None) -> Vocabulary:
    """Read the vocabulary `path`, one token a line, and the tokens that transformers' files beside it add.

    Only a newline ends a line: U+2028 and U+0085 are tokens. A byte order mark, carriage returns, and empty lines at
    the end are ignored. A vocabulary without [MASK] is one of a classifier that was trained from nothing.

    Args:
        strip: take spaces off both ends of each line, as `load_vocab` of Huawei's programs does. If two lines then are
            one token, the later one has it, as there.
        kind: one of `KINDS`, whatever the tokens look like.

    Raises:
        MappingError: the file is not UTF-8, a token is there twice, a special token is missing, or added tokens have
            ids that do not follow the vocabulary's.
    """
    lines = read_lines(path)
    check_lines(path, lines)
    tokens, repeated = _stripped(lines) if strip else (lines, ())
    seen = set(tokens)
    lacking = [token for token in SPECIAL_TOKENS.values() if token not in seen and token != _MASK]
    if lacking:
        lacking += [_MASK] * (_MASK not in seen)
        raise MappingError(
            f"{path}: no WordPiece vocabulary of NEZHA: {', '.join(lacking)} not in its {len(tokens):,} lines",
            hint="Name another one: --vocab FILE",
        )
    listed = dict(sorted(_listed_tokens(path.parent), key=lambda item: item[1].special))
    new = {id: token for id, token in listed.items() if token.content not in seen}
    whole = (token for token in listed.values() if token.content in seen - set(SPECIAL_TOKENS.values()))
    return Vocabulary(path, tokens, in_order(path.parent, new, len(tokens)), tuple(whole), kind, repeated)


def read_lines(path: Path) -> tuple[str, ...]:
    """The lines of the vocabulary `path`, as they are.

    Raises:
        MappingError: it cannot be read, or it is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise MappingError(
            f"{path}: cannot be read ({error.strerror})", hint="Name the vocabulary: --vocab FILE"
        ) from error
    except UnicodeDecodeError as error:
        hint = in_utf8(path, "--vocab")
        raise MappingError(f"{path}: not a vocabulary: not UTF-8 text ({error})", hint=hint) from error
    return tuple(line.removesuffix("\r") for line in text.rstrip("\r\n").split("\n"))


def check_lines(path: Path, lines: tuple[str, ...]) -> None:
    """Raises MappingError if a line is there twice."""
    seen: dict[str, int] = {}
    for number, token in enumerate(lines):
        if seen.setdefault(token, number) != number:
            raise MappingError(
                f"{path}: {token!r} stands on line {seen[token] + 1} and again on line {number + 1}",
                hint="The programs give it the later line's id. In a copy, write another word on the first of these "
                "lines, then name the copy: --vocab COPY",
            )


def _stripped(lines: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """`lines` without spaces at their ends, and the numbers of those that a later line repeats.

    A repeated line gets a name that no text becomes, so that every id keeps a token.
    """
    tokens = [line.strip() for line in lines]
    last = {token: number for number, token in enumerate(tokens)}
    repeated = tuple(number for number, token in enumerate(tokens) if last[token] != number)
    for number in repeated:
        tokens[number] = f"[line {number + 1} again on {last[tokens[number]] + 1}]"
    return tuple(tokens), repeated


def in_order(folder: Path, added: dict[int, AddedToken], first: int) -> tuple[AddedToken, ...]:
    """`added`, the tokens by id that the files in `folder` add, in the order of their ids, which begin at `first`."""
    expected = range(first, first + len(added))
    if sorted(added) != list(expected):
        names = ", ".join(token.content for token in added.values())
        raise MappingError(
            f"{folder}: its tokenizer adds {names} by the ids {sorted(added)}; expected {list(expected)}",
            hint="Name the vocabulary that belongs to it: --vocab FILE, in a folder of its own to leave them out.",
        )
    return tuple(added[id] for id in expected)


def _listed_tokens(folder: Path) -> Iterator[tuple[int, AddedToken]]:
    """(id, token) from tokenizer.json, and from added_tokens.json, which older folders have."""
    listed = json_object(folder / "tokenizer.json").get("added_tokens")
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, dict) and isinstance(item.get("id"), int) and isinstance(item.get("content"), str):
            yield item["id"], AddedToken(item["content"], item.get("special") is True)
    for content, number in json_object(folder / "added_tokens.json").items():
        if isinstance(number, int):
            yield number, AddedToken(content, special=False)


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; empty if there is no file."""
    try:
        return optional_object(path)
    except (OSError, ValueError) as error:
        raise MappingError(f"{path}: not a JSON file ({error})", hint="Mend it or move it away.") from error


def decide_casing(vocab: Vocabulary, asked: bool | None) -> tuple[bool, Decision]:
    """Whether text is lower-cased, and why. The user decides, or tokenizer_config.json, or else the vocabulary.

    Args:
        asked: what the user asked for: True for lower case, False for cased, None for neither.
    """
    if asked is not None:
        return asked, Decision("do_lower_case", asked, "asked for", Origin.ASKED)
    stated = json_object(vocab.path.parent / "tokenizer_config.json").get("do_lower_case")
    if isinstance(stated, bool):
        reason = "tokenizer_config.json beside the vocabulary says so"
        return stated, Decision("do_lower_case", stated, reason, Origin.FILE)
    # Count single letters only: longer tokens in capitals, such as <S> and <T> in the Chinese vocabulary, do not help
    # to tokenize text.
    known = {token_bytes(token) for token in vocab.tokens} if vocab.byte_bpe else {t.encode() for t in vocab.tokens}
    letters = sum(letter.encode() in known for letter in ascii_uppercase)
    cased = letters > len(ascii_uppercase) // 2
    meaning = "so case is kept" if cased else "so capitals would become [UNK]"
    reason = f"{letters} of the 26 capital letters are tokens of the vocabulary, {meaning}"
    return not cased, Decision("do_lower_case", not cased, reason, Origin.DEFAULT)


def decide_added(vocab: Vocabulary) -> Decision | None:
    """The decision to keep the tokens that the files beside the vocabulary add or match as one piece."""
    names = [token.content for token in (*vocab.whole, *vocab.added)]
    if not names:
        return None
    listing = " ".join(names[:4]) + (" ..." if len(names) > 4 else "")
    reason = f"the tokenizer beside the vocabulary matches as one piece {listing}"
    return Decision("added_tokens", len(names), reason, Origin.FILE)


def decide_reading(vocab: Vocabulary) -> list[Decision]:
    """The decisions about what the vocabulary lacks or has twice, and about the kind that was asked for."""
    found = []
    if vocab.kind:
        found.append(Decision("tokenizer_kind", vocab.kind, "asked for", Origin.ASKED))
    if _MASK not in vocab.tokens:
        reason = f"the vocabulary has no {_MASK}, so the tokenizer has no mask token"
        found.append(Decision("mask_token", None, reason, Origin.FILE))
    if vocab.repeated:
        reason = (
            f"without the spaces around it, line {vocab.repeated[0] + 1} is the token of a later line, which has it"
        )
        found.append(Decision("repeated_tokens", len(vocab.repeated), reason, Origin.FILE))
    return found


def decide_words(vocab: Vocabulary) -> Decision | None:
    """How many whole Chinese words are tokens. No text becomes them, for each Chinese character is a word here."""
    if vocab.byte_bpe:
        return None
    whole = {token.content for token in vocab.whole}
    words = [token for token in vocab.tokens if is_chinese_word(token) and token not in whole]
    if not words:
        return None
    reason = (
        f"{len(words):,} words such as {max(words[:1000], key=len)[:20]} are never produced: "
        "WoNEZHA cuts words before it looks them up"
    )
    return Decision("words_never_produced", len(words), reason, Origin.FILE)


def is_chinese_word(token: str) -> bool:
    """Whether `token` is several characters, with a Chinese one among them, and begins a word."""
    return len(token) > 1 and not token.startswith(("##", "[")) and _CHINESE.search(token) is not None


def decide_language(vocab: Vocabulary) -> Decision | None:
    """Chinese or Arabic, if the tokens are; None if the vocabulary does not tell."""
    if vocab.byte_bpe:
        arabic = is_arabic(vocab.tokens)
        reason = "most tokens of several bytes hold Arabic letters"
        return Decision("language", "ar", reason, Origin.FILE) if arabic else None
    chinese = sum(len(token) == 1 and "\u4e00" <= token <= "\u9fff" for token in vocab.tokens)
    if 5 * chinese <= len(vocab.tokens):
        return None
    reason = f"{chinese:,} of the {len(vocab.tokens):,} tokens are Chinese characters"
    return Decision("language", "zh", reason, Origin.FILE)


def check_length(vocab: Vocabulary, rows: int, count: int | None = None) -> Decision | None:
    """Compare the number of tokens with the embedding's `rows`. Fewer tokens than rows are a decision, not an error.

    Args:
        count: the number, where the vocabulary is not all that the tokenizer has.

    Raises:
        MappingError: the vocabulary has more tokens than the embedding has rows.
    """
    count = len(vocab) if count is None else count
    if count > rows:
        raise MappingError(
            f"{vocab.path}: {count:,} tokens, but the embedding has {rows:,} rows: this vocabulary is of another model",
            hint="Name the right one: --vocab FILE",
        )
    if count < rows:
        reason = f"the embedding has {rows:,} rows; the last {rows - count:,} have no token"
        return Decision("vocabulary", f"{count:,} tokens", reason, Origin.FILE)
    return None


def decide_rules(vocab: Vocabulary) -> tuple[str | None, list[Decision]]:
    """The rules by which a byte BPE splits words, a key of ``byte_bpe.RULES``, and the decisions about it.

    Returns:
        None and no decision, if the vocabulary is no byte BPE.

    Raises:
        MappingError: no tokenizer.json can give this vocabulary's ids; or tokenizer_config.json beside it names unknown
            rules.
    """
    if not vocab.byte_bpe:
        return None, []
    stated = json_object(vocab.path.parent / "tokenizer_config.json").get(RULES_FIELD)
    if stated is not None and not (isinstance(stated, str) and stated in RULES):
        raise MappingError(
            f"{vocab.path.parent / 'tokenizer_config.json'}: {RULES_FIELD} is {stated!r}; expected {', '.join(RULES)}",
            hint=f"Mend it, or remove {RULES_FIELD}: then the vocabulary says.",
        )
    arabic = is_arabic(vocab.tokens)
    name = stated or ("jaber" if arabic else "multilingual")
    reason = "JABER's: most tokens hold Arabic letters" if arabic else "the multilingual model's: tokens of any script"
    reason = "tokenizer_config.json beside the vocabulary says so" if stated else reason
    origin = Origin.FILE if stated else Origin.DEFAULT
    decisions = [Decision(RULES_FIELD, name, f"{reason}; as {RULES[name].source} splits words", origin)]
    if unused := _byte_names(vocab)[1]:
        listing = " ".join(unused[:4]) + (" ..." if len(unused) > 4 else "")
        reason = f"Huawei's code makes no text into them, and neither does the tokenizer: {listing}"
        decisions.append(Decision("unused_tokens", len(unused), reason, Origin.FILE))
    return name, decisions


def tokenizer_files(vocab: Vocabulary, lower_case: bool, max_length: int, rules: str | None = None) -> dict[str, bytes]:
    """The files of the tokenizer by name: tokenizer.json, tokenizer_config.json, vocab.txt.

    Args:
        lower_case: from `decide_casing`.
        max_length: the most tokens that the model takes.
        rules: for a byte BPE, from `decide_rules`.
    """
    config = {
        # AutoTokenizer of transformers 5 needs a class. This one uses tokenizer.json as it is. BertTokenizer would
        # build another tokenizer from the vocabulary, without MAX_CHARS_PER_WORD.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "do_lower_case": lower_case,
        "tokenize_chinese_chars": RULES[rules].chinese if rules else True,
        "strip_accents": None,
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **vocab.specials,
    }
    if rules:
        # transformers 4.52 cleans up by default, and would remove spaces from decoded text.
        config |= {RULES_FIELD: rules, "clean_up_tokenization_spaces": False}
    return {
        "tokenizer.json": _tokenizer(vocab, lower_case, rules).to_str(pretty=True).encode(),
        "tokenizer_config.json": json_bytes(config),
        "vocab.txt": ("\n".join(vocab.tokens) + "\n").encode(),
    }


def _tokenizer(vocab: Vocabulary, lower_case: bool, rules: str | None) -> Any:
    """The tokenizer, an object of the tokenizers library."""
    from tokenizers import AddedToken as Token
    from tokenizers import Tokenizer, processors
    from tokenizers.models import WordPiece

    names, prefix, longest = list(vocab.tokens), "##", MAX_CHARS_PER_WORD
    if rules:
        names, prefix, longest = _byte_names(vocab)[0], PREFIX, MAX_BYTES_PER_WORD
    ids = {name: number for number, name in enumerate(names)}
    model = WordPiece(
        ids,
        unk_token="[UNK]",  # noqa: S106 (no secret)
        max_input_chars_per_word=longest,
        continuing_subword_prefix=prefix,
    )
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(list(vocab.specials.values()))
    added = (*vocab.whole, *vocab.added)
    tokenizer.add_tokens([Token(token.content, special=token.special, normalized=False) for token in added])
    steps = pipeline(RULES[rules], lower_case) if rules else _wordpiece_steps(lower_case)
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = steps
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    return tokenizer


def _wordpiece_steps(lower_case: bool) -> tuple[Any, Any, Any]:
    """The normalizer, the pre-tokenizer and the decoder of a WordPiece tokenizer."""
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    # Not BertNormalizer's own clean_text: it also drops private and unassigned characters. Its own lower case does not
    # know the final sigma.
    steps: list[Any] = [normalizers.Replace(Regex(r"(?![\t\n\r])[\p{Cc}\p{Cf}\x{FFFD}]"), "")]
    steps.append(normalizers.BertNormalizer(clean_text=False, lowercase=False))
    if lower_case:
        steps.append(normalizers.Replace(Regex(FINAL_SIGMA), "ς"))
        steps.append(normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, lowercase=True))
    return normalizers.Sequence(steps), pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(prefix="##")


def _byte_names(vocab: Vocabulary) -> tuple[list[str], list[str]]:
    """`name_tokens` for the vocabulary."""
    kept = (*vocab.specials.values(), *(token.content for token in (*vocab.whole, *vocab.added)))
    return name_tokens(vocab.path, vocab.tokens, dict.fromkeys(kept))
