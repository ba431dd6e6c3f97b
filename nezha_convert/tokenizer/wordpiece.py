"""vocab.txt -> the tokenizer files of a converted folder, with the same ids as Huawei's tokenizer gives.

Source: NEZHA-TensorFlow/tokenization.py at commit 0598f02 (FullTokenizer); for byte BPE see `byte_bpe`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from ..checkpoint import Decision, Origin
from ..errors import MappingError
from ..files.json import json_bytes, read_json
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
"""Longer words become [UNK]: 200 in Huawei's TensorFlow tokenizer; transformers' own default is 100."""

SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


RULES_FIELD = "byte_bpe_rules"
"""The field of tokenizer_config.json, and the decision, that names how a byte BPE's words are split."""


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that was added to a tokenizer after its vocabulary, such as a marker of entities."""

    content: str
    special: bool


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a vocab.txt, in the order of their ids.

    Attributes:
        added: behind them, those that transformers' files beside it add.
        whole: those of its own that these files match as one piece, such as an [unused1] that marks something.
    """

    path: Path
    tokens: tuple[str, ...]
    added: tuple[AddedToken, ...] = ()
    whole: tuple[AddedToken, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens) + len(self.added)

    @property
    def byte_bpe(self) -> bool:
        """Whether the tokens are hexadecimal bytes, as of Huawei's multilingual and Arabic models."""
        return is_byte_bpe(self.tokens)


def read_vocab(path: Path) -> Vocabulary:
    """Read `path`: one token a line, lines ended by a newline and nothing else (U+2028 and U+0085 are tokens).

    A byte order mark, carriage returns and empty lines at the end are no part of it.

    Raises:
        MappingError: not UTF-8, a token twice, a special token is missing, or added tokens without their place.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise MappingError(
            f"{path}: cannot be read ({error.strerror})", hint="Name the vocabulary: --vocab FILE"
        ) from error
    except UnicodeDecodeError as error:
        raise MappingError(f"{path}: not a vocabulary: not UTF-8 text ({error})") from error
    tokens = tuple(line.removesuffix("\r") for line in text.rstrip("\r\n").split("\n"))
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
    said = dict(sorted(_said_added(path.parent), key=lambda item: item[1].special))
    added = _behind(path.parent, {number: token for number, token in said.items() if token.content not in seen}, seen)
    own = [token for token in said.values() if token.content in seen and token.content not in SPECIAL_TOKENS.values()]
    return Vocabulary(path, tokens, added, tuple(own))


def _behind(folder: Path, found: dict[int, AddedToken], known: dict[str, int]) -> tuple[AddedToken, ...]:
    """The tokens that transformers' files in `folder` add to the vocabulary `known`, in the order of their ids."""
    wanted = range(len(known), len(known) + len(found))
    if sorted(found) != list(wanted):
        names = ", ".join(token.content for token in found.values())
        raise MappingError(
            f"{folder}: its tokenizer adds {names} by the ids {sorted(found)}; expected {list(wanted)}",
            hint="Name the vocabulary that belongs to it: --vocab FILE, in a folder of its own to leave them out.",
        )
    return tuple(found[number] for number in wanted)


def _said_added(folder: Path) -> Iterator[tuple[int, AddedToken]]:
    """(id, token) of tokenizer.json, and of added_tokens.json, which older folders have."""
    listed = _json(folder / "tokenizer.json").get("added_tokens")
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, dict) and isinstance(item.get("id"), int) and isinstance(item.get("content"), str):
            yield item["id"], AddedToken(item["content"], item.get("special") is True)
    for content, number in _json(folder / "added_tokens.json").items():
        if isinstance(number, int):
            yield number, AddedToken(content, special=False)


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; nothing where the file is not there."""
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise MappingError(f"{path}: not a JSON file ({error})", hint="Mend it or move it away.") from error
    return content if isinstance(content, dict) else {}


def decide_casing(vocab: Vocabulary, asked: bool | None) -> tuple[bool, Decision]:
    """Whether text is lower-cased, and why: told by the user, by transformers' own file, or by the vocabulary.

    Args:
        asked: True for lower case, False for cased, None for neither.
    """
    if asked is not None:
        return asked, Decision("do_lower_case", asked, "asked for", Origin.ASKED)
    said = _json(vocab.path.parent / "tokenizer_config.json").get("do_lower_case")
    if isinstance(said, bool):
        return said, Decision("do_lower_case", said, "tokenizer_config.json beside the vocabulary says so", Origin.FILE)
    # By the letters: a few words with capitals, such as <S> and <T> in the Chinese vocabulary, make no text readable.
    known = {token_bytes(token) for token in vocab.tokens} if vocab.byte_bpe else {t.encode() for t in vocab.tokens}
    letters = sum(letter.encode() in known for letter in ascii_uppercase)
    cased = letters > len(ascii_uppercase) // 2
    meaning = "so case is kept" if cased else "so capitals would become [UNK]"
    reason = f"{letters} of the 26 capital letters are tokens of the vocabulary, {meaning}"
    return not cased, Decision("do_lower_case", not cased, reason, Origin.FILE)


def decide_added(vocab: Vocabulary) -> Decision | None:
    """The tokens that the files beside the vocabulary add to it or match as one piece, which are kept."""
    names = [token.content for token in (*vocab.whole, *vocab.added)]
    if not names:
        return None
    listing = " ".join(names[:4]) + (" ..." if len(names) > 4 else "")
    reason = f"the tokenizer beside the vocabulary matches as one piece {listing}"
    return Decision("added_tokens", len(names), reason, Origin.FILE)


def decide_language(vocab: Vocabulary) -> Decision | None:
    """Chinese or Arabic, where the tokens are; else the vocabulary does not say."""
    if vocab.byte_bpe:
        arabic = is_arabic(vocab.tokens)
        reason = "most tokens of several bytes hold Arabic letters"
        return Decision("language", "ar", reason, Origin.FILE) if arabic else None
    chinese = sum(len(token) == 1 and "\u4e00" <= token <= "\u9fff" for token in vocab.tokens)
    if 5 * chinese <= len(vocab.tokens):
        return None
    reason = f"{chinese:,} of the {len(vocab.tokens):,} tokens are Chinese characters"
    return Decision("language", "zh", reason, Origin.FILE)


def check_length(vocab: Vocabulary, rows: int) -> Decision | None:
    """Compare the vocabulary with the embedding's `rows`; a shorter one is fit for use and reported.

    Raises:
        MappingError: it has more tokens than the embedding has rows.
    """
    count = len(vocab)
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
    """How words are split if the vocabulary is byte BPE's, a name in ``byte_bpe.RULES``; and what of it has no use.

    Raises:
        MappingError: no tokenizer of today gives this vocabulary's ids; or tokenizer_config.json beside it names rules
            that are not known.
    """
    if not vocab.byte_bpe:
        return None, []
    said = _json(vocab.path.parent / "tokenizer_config.json").get(RULES_FIELD)
    if said is not None and not (isinstance(said, str) and said in RULES):
        raise MappingError(
            f"{vocab.path.parent / 'tokenizer_config.json'}: {RULES_FIELD} is {said!r}; expected {', '.join(RULES)}",
            hint=f"Mend it, or remove {RULES_FIELD}: then the vocabulary says.",
        )
    arabic = is_arabic(vocab.tokens)
    name = said or ("jaber" if arabic else "multilingual")
    reason = "JABER's: most tokens hold Arabic letters" if arabic else "the multilingual model's: tokens of any script"
    reason = "tokenizer_config.json beside the vocabulary says so" if said else reason
    decisions = [Decision(RULES_FIELD, name, f"{reason}; as {RULES[name].source} splits words", Origin.FILE)]
    if unused := _byte_names(vocab)[1]:
        listing = " ".join(unused[:4]) + (" ..." if len(unused) > 4 else "")
        reason = f"Huawei's code makes no text into them, and neither does the tokenizer: {listing}"
        decisions.append(Decision("unused_tokens", len(unused), reason, Origin.FILE))
    return name, decisions


def tokenizer_files(vocab: Vocabulary, lower_case: bool, max_length: int, rules: str | None = None) -> dict[str, bytes]:
    """The files by name: tokenizer.json, tokenizer_config.json, vocab.txt.

    Args:
        rules: for a byte BPE, what `decide_rules` says.
    """
    from tokenizers import AddedToken as Token
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece

    names, prefix, longest = list(vocab.tokens), "##", MAX_CHARS_PER_WORD
    if rules:
        names, prefix, longest = _byte_names(vocab)[0], PREFIX, MAX_BYTES_PER_WORD
    ids = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(
        WordPiece(
            ids,
            unk_token="[UNK]",  # noqa: S106 (no secret)
            max_input_chars_per_word=longest,
            continuing_subword_prefix=prefix,
        )
    )
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS.values()))
    more = (*vocab.whole, *vocab.added)
    tokenizer.add_tokens([Token(token.content, special=token.special, normalized=False) for token in more])
    if rules:
        tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = pipeline(RULES[rules], lower_case)
    else:
        # Its own clean_text would drop private and unassigned characters too, and its lower case knows no final sigma.
        steps: list[Any] = [normalizers.Replace(Regex(r"(?![\t\n\r])[\p{Cc}\p{Cf}\x{FFFD}]"), "")]
        steps.append(normalizers.BertNormalizer(clean_text=False, lowercase=False))
        if lower_case:
            steps.append(normalizers.Replace(Regex(FINAL_SIGMA), "ς"))
            steps.append(normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, lowercase=True))
        tokenizer.normalizer = normalizers.Sequence(steps)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(prefix=prefix)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    config = {
        # The class that takes tokenizer.json as it is; AutoTokenizer of transformers 5 needs one to be named. Its
        # BertTokenizer would build a tokenizer of its own from the vocabulary, and forget MAX_CHARS_PER_WORD.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "do_lower_case": lower_case,
        "tokenize_chinese_chars": RULES[rules].chinese if rules else True,
        "strip_accents": None,
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **SPECIAL_TOKENS,
    }
    if rules:
        # Of 4.52: else it would take spaces out of a decoded text.
        config |= {RULES_FIELD: rules, "clean_up_tokenization_spaces": False}
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": json_bytes(config),
        "vocab.txt": ("\n".join(vocab.tokens) + "\n").encode(),
    }


def _byte_names(vocab: Vocabulary) -> tuple[list[str], list[str]]:
    kept = (*SPECIAL_TOKENS.values(), *(token.content for token in (*vocab.whole, *vocab.added)))
    return name_tokens(vocab.path, vocab.tokens, dict.fromkeys(kept))
