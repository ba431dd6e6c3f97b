"""The tokenizer that a source has of its own: its tokenizer.json, or what its other files make of its vocabulary.

Source: models/bert and tokenization_utils*.py of transformers 4.40.2. Where a folder has tokenizer.json,
BertTokenizerFast reads it; where it has none, BertTokenizer's rules are the tokenizer.
`parity/oracle/bert_tokenizer.py` and `parity/tokenizer.py` check this module, so neither uses the other's code.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..checkpoint import Decision, Origin
from ..errors import MappingError
from ..files.json import json_bytes
from .settings import CONFIG, FLAGS, WHOLE, Settings
from .wordpiece import (
    AddedToken,
    Vocabulary,
    check_length,
    check_lines,
    decide_added,
    decide_language,
    decide_words,
    in_order,
    read_lines,
)

LONGEST_WORD = 100
"""BertTokenizer's own; longer words become the unknown token."""

_PROBES = ["", "a 我 e\u0301 ?!", "\U0001f9ff"]
"""Texts with known and unknown words: a tokenizer.json may be read and still fail on some."""

Made = tuple[dict[str, bytes], list[Decision], dict[str, Any]]
"""The files by name, the decisions, and fields of config.json."""


def own_tokenizer(vocab_file: Path, settings: Settings, config: Mapping[str, Any], lower_case: bool | None) -> Made:
    """The files of the source's own tokenizer, what was decided, and fields of config.json.

    Args:
        config: the fields of the model's config.
        lower_case: what the user asked for; None lets the files say.

    Raises:
        MappingError: a file cannot be used, or the tokenizer is of another model.
    """
    _check_asked(settings, lower_case)
    asked = lower_case if settings.adjustable else None
    stated = settings.adjustable or "do_lower_case" in settings.stated
    lower = settings.flags["do_lower_case"] if stated else settings.lower_case
    flags = {**settings.flags, "do_lower_case": lower if asked is None else asked}
    make = _from_vocabulary if settings.whole is None else _from_whole
    tokenizer, data, vocab, omitted, reason = make(vocab_file, settings, flags, config["vocab_size"])
    count = 1 + max(tokenizer.get_vocab().values(), default=-1)
    decisions = [
        Decision("tokenizer", WHOLE if settings.whole else "BertTokenizer", reason, Origin.FILE),
        check_length(vocab, config["vocab_size"], count),
        *_flag_decisions(settings, asked),
        *(
            Decision(name, None, f"{token} is no token of the vocabulary", Origin.FILE)
            for name, token in omitted.items()
        ),
        decide_added(_without_specials(vocab, settings)),
        decide_words(vocab) if flags["tokenize_chinese_chars"] and settings.whole is None else None,
        decide_language(vocab),
        _unknown(settings),
    ]
    specials = {name: token.content for name, token in settings.specials.items() if name not in omitted}
    files = {WHOLE: data, CONFIG: json_bytes(_config(settings, flags, specials, config["max_position_embeddings"]))}
    if all("\n" not in token for token in vocab.tokens):
        files["vocab.txt"] = ("\n".join(vocab.tokens) + "\n").encode()
    names = (("pad_token_id", "pad_token"), ("bos_token_id", "cls_token"), ("eos_token_id", "sep_token"))
    ids = {field: tokenizer.token_to_id(specials[token]) for field, token in names if token in specials}
    return files, [d for d in decisions if d], {field: number for field, number in ids.items() if number is not None}


def _check_asked(settings: Settings, lower_case: bool | None) -> None:
    """Raises MappingError if the casing that was asked for is neither stated nor what tokenizer.json does by itself."""
    known = [None, settings.lower_case]
    if "do_lower_case" in settings.stated:
        known.append(settings.flags["do_lower_case"])
    if not settings.adjustable and lower_case not in known:
        raise MappingError(
            f"{settings.folder / WHOLE}: its normalizer is no BertNormalizer, so --lower-case and --cased change "
            "nothing",
            hint="Convert without the option, or with vocab.txt in a folder of its own: --vocab FOLDER/vocab.txt",
        )


def _from_vocabulary(
    vocab_file: Path, settings: Settings, flags: Mapping[str, bool | None], rows: int
) -> tuple[Any, bytes, Vocabulary, dict[str, str], str]:
    """BertTokenizer's rules, as a tokenizer of the tokenizers library."""
    from tokenizers import Tokenizer, processors
    from tokenizers.models import WordPiece

    lines = read_lines(vocab_file)
    check_lines(vocab_file, lines)
    vocab, omitted = _complete(vocab_file, lines, settings, rows)
    ids = {token: number for number, token in enumerate(lines)}
    unknown = settings.specials.get("unk_token")
    if unknown is None or unknown.content not in ids:
        raise MappingError(
            f"{vocab_file}: no token for unknown words: {unknown.content if unknown else 'unk_token'} is not in its "
            f"{len(lines):,} lines",
            hint="Name another vocabulary: --vocab FILE",
        )
    longest = {"max_input_chars_per_word": LONGEST_WORD, "continuing_subword_prefix": "##"}
    tokenizer = Tokenizer(WordPiece(ids, unk_token=unknown.content, **longest))
    _set_steps(tokenizer, flags)
    for token in (*vocab.whole, *vocab.added):
        _add(tokenizer, token, normalized=_found_in_capitals(token.content, flags))
    framing = [_known(tokenizer, settings, name) for name in ("sep_token", "cls_token")]
    tokenizer.post_processor = processors.BertProcessing(*framing)
    reason = "the rules of transformers' BertTokenizer, with the settings of the files beside the vocabulary"
    return tokenizer, tokenizer.to_str(pretty=True).encode(), vocab, omitted, reason


def _complete(path: Path, lines: Sequence[str], settings: Settings, rows: int) -> tuple[Vocabulary, dict[str, str]]:
    """The vocabulary with its added tokens, and the special tokens that no file states and no row is left for."""
    places = {token: number for number, token in enumerate(lines)}
    misplaced = [f"{t.content}: {n}" for n, t in settings.added.items() if places.get(t.content, n) != n]
    if misplaced:
        raise MappingError(
            f"{settings.folder}: {len(misplaced)} added tokens are in {path.name} by other ids",
            problems=tuple(misplaced),
            hint="Name the vocabulary that belongs to it: --vocab FILE",
        )
    added = in_order(settings.folder, {n: t for n, t in settings.added.items() if t.content not in places}, len(lines))
    known = {token.content: token for token in (*settings.added.values(),)}
    further: dict[str, AddedToken] = {}
    omitted = {}
    for name, token in (*settings.specials.items(), *(("", token) for token in settings.additional)):
        if token.content in known or token.content in further:
            continue
        full = len(lines) + len(added) + sum(t not in places for t in further) >= rows
        if token.content not in places and full and name not in settings.stated and name:
            omitted[name] = token.content
        else:
            further[token.content] = token
    whole = [token for token in (*settings.added.values(), *further.values()) if token.content in places]
    more = [token for token in further.values() if token.content not in places]
    return Vocabulary(path, tuple(lines), (*added, *more), tuple(whole)), omitted


def _set_steps(tokenizer: Any, flags: Mapping[str, bool | None]) -> None:
    """Set the normalizer, the pre-tokenizer and the decoder of BertTokenizer's rules."""
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    tokenizer.decoder = decoders.WordPiece(prefix="##")
    if not flags["do_basic_tokenize"]:  # BertTokenizer cuts at what Python calls space, and does nothing else
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\x1c-\x1f\x85]+"), "removed")
        return
    lower, strip = bool(flags["do_lower_case"]), flags["strip_accents"]
    chinese = bool(flags["tokenize_chinese_chars"])

    def step(**does: bool) -> Any:
        alone = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
        return normalizers.BertNormalizer(**(alone | does))

    steps: list[Any] = [step(lowercase=True)] if lower else []  # before NFC: it joins capitals to other letters
    steps.append(normalizers.Replace(Regex(r"(?![\t\n\r])[\p{C}\x{FFFD}]"), ""))
    steps += [
        step(handle_chinese_chars=chinese),
        normalizers.NFC(),
        step(strip_accents=lower if strip is None else strip),
    ]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()


def _from_whole(
    vocab_file: Path, settings: Settings, flags: Mapping[str, bool | None], rows: int
) -> tuple[Any, bytes, Vocabulary, dict[str, str], str]:
    """The source's tokenizer.json, with what BertTokenizerFast changes in it when it is loaded."""
    path = settings.folder / WHOLE
    tokenizer = _loaded(path, settings.whole or {})
    _check_ids(path, tokenizer)
    before = tokenizer.to_str()
    if settings.adjustable:
        _override(tokenizer, settings.whole or {}, flags)
    found = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    omitted = {}
    for number, token in sorted(settings.added.items()):
        if token.content not in found:
            _add(tokenizer, token)
        if tokenizer.token_to_id(token.content) != number:
            raise MappingError(
                f"{path}: {token.content} is token {tokenizer.token_to_id(token.content)}; {CONFIG} says {number}",
                hint=f"Mend the one that is wrong, or move {CONFIG} away.",
            )
    for name, token in (*settings.specials.items(), *(("", token) for token in settings.additional)):
        missing = tokenizer.token_to_id(token.content) is None
        if missing and name and name not in settings.stated and _count(tokenizer) >= rows:
            omitted[name] = token.content
        elif token.content not in found:
            _add(tokenizer, token)
    _guarded(path, lambda: tokenizer.encode_batch(_PROBES))
    changed = tokenizer.to_str() != before
    data = tokenizer.to_str(pretty=True).encode() if changed else path.read_bytes()
    reason = "the source's own" + (", with the settings of its tokenizer_config.json" if changed else "")
    return tokenizer, data, _listed(vocab_file, tokenizer, found), omitted, reason


def _loaded(path: Path, document: Mapping[str, Any]) -> Any:
    from tokenizers import Tokenizer

    return _guarded(path, lambda: Tokenizer.from_str(json.dumps(document)))


def _guarded(path: Path, make: Callable[[], Any]) -> Any:
    """What `make` returns. The tokenizers library raises plain Exceptions, and panics, for files that it cannot use."""
    try:
        return make()
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise MappingError(
            f"{path}: the tokenizers library cannot read it ({str(error)[:200]})",
            hint="Move it away to make the tokenizer from vocab.txt.",
        ) from None


def _check_ids(path: Path, tokenizer: Any) -> None:
    """Refuse two tokens of one id, of which the library would write one, by chance; and ids far past all tokens.

    The library takes a step for each number up to the largest id.
    """
    vocabulary = tokenizer.get_vocab()
    ids = vocabulary.values()
    by_id = {number: token for token, number in sorted(vocabulary.items())}
    if len(by_id) < len(ids):
        first, number = next((t, n) for t, n in sorted(vocabulary.items()) if by_id[n] != t)
        raise MappingError(
            f"{path}: {first!r} and {by_id[number]!r} are both token {number:,}; expected an id for each",
            hint="Move it away to make the tokenizer from vocab.txt.",
        )
    if max(ids, default=-1) >= 2 * len(ids) + 1000:
        raise MappingError(
            f"{path}: {len(ids):,} tokens have ids up to {max(ids):,}; expected them without such gaps",
            hint="Move it away to make the tokenizer from vocab.txt.",
        )


def _override(tokenizer: Any, document: Mapping[str, Any], flags: Mapping[str, bool | None]) -> None:
    """Give the BERT normalizer of `document` the settings of `flags`."""
    from tokenizers.normalizers import BertNormalizer

    tokenizer.normalizer = BertNormalizer(
        clean_text=document["normalizer"].get("clean_text") is not False,
        handle_chinese_chars=bool(flags["tokenize_chinese_chars"]),
        strip_accents=flags["strip_accents"],
        lowercase=bool(flags["do_lower_case"]),
    )


def _listed(vocab_file: Path, tokenizer: Any, found: set[str]) -> Vocabulary:
    """The tokens of `tokenizer` by their ids."""
    names = {number: token for token, number in tokenizer.get_vocab(with_added_tokens=False).items()}
    count = 1 + max(names, default=-1)
    tokens = tuple(names.get(number, f"[unused {number}]") for number in range(count))
    added = [t for n, t in sorted(tokenizer.get_added_tokens_decoder().items()) if n >= count]
    return Vocabulary(vocab_file, tokens, tuple(AddedToken(token.content, token.special) for token in added))


def _count(tokenizer: Any) -> int:
    return 1 + max(tokenizer.get_vocab().values(), default=-1)


def _found_in_capitals(content: str, flags: Mapping[str, bool | None]) -> bool:
    """Whether BertTokenizer finds a token in capitals too: it has lower-cased the text when it looks for tokens."""
    plain = not any(unicodedata.category(c) == "Mn" for c in unicodedata.normalize("NFD", content))
    lowered = flags["do_lower_case"] and flags["do_basic_tokenize"]
    return bool(lowered) and plain and content == content.lower() != content.upper()


def _add(tokenizer: Any, token: AddedToken, normalized: bool = False) -> None:
    from tokenizers import AddedToken as Token

    flags = {"single_word": token.single_word, "lstrip": token.lstrip, "rstrip": token.rstrip, "normalized": normalized}
    add = tokenizer.add_special_tokens if token.special else tokenizer.add_tokens
    add([Token(token.content, special=token.special, **flags)])


def _known(tokenizer: Any, settings: Settings, name: str) -> tuple[str, int]:
    token = settings.specials.get(name)
    number = tokenizer.token_to_id(token.content) if token else None
    if token is None or number is None:
        raise MappingError(
            f"{settings.folder / CONFIG}: {name} is {token.content if token else None!r}; expected a token of the "
            "vocabulary",
            hint="Put vocab.txt and the other tokenizer files into a new folder, mend it there, and name that "
            "vocabulary: --vocab FOLDER/vocab.txt",
        )
    return token.content, number


def _without_specials(vocab: Vocabulary, settings: Settings) -> Vocabulary:
    """`vocab`, of whose added tokens only those are left that are no [CLS] and the like."""
    special = {token.content for token in settings.specials.values()}
    added, whole = (tuple(t for t in tokens if t.content not in special) for tokens in (vocab.added, vocab.whole))
    return replace(vocab, added=added, whole=whole)


def _flag_decisions(settings: Settings, asked: bool | None) -> list[Decision]:
    """The casing, and each other setting that is not transformers' default."""
    found = []
    for name, value in settings.flags.items():
        if name == "do_lower_case" and asked is not None:
            found.append(Decision(name, asked, "asked for", Origin.ASKED))
        elif name == "do_lower_case" and not settings.adjustable:
            found.append(Decision(name, settings.lower_case, f"{WHOLE} beside the vocabulary says so", Origin.FILE))
        elif name in settings.stated and (name == "do_lower_case" or value != FLAGS[name]):
            found.append(Decision(name, value, f"{CONFIG} beside the vocabulary says so", Origin.FILE))
        elif name == "do_lower_case":
            reason = f"no {CONFIG} says otherwise, and then transformers' BertTokenizer has lower case"
            found.append(Decision(name, value, reason, Origin.DEFAULT))
    return found


def _unknown(settings: Settings) -> Decision | None:
    if not settings.unknown:
        return None
    listing = ", ".join(f"{name} = {str(value)[:40]}" for name, value in list(settings.unknown.items())[:8])
    return Decision(CONFIG, len(settings.unknown), f"not understood and left out: {listing}", Origin.FILE)


def _config(
    settings: Settings, flags: Mapping[str, bool | None], specials: Mapping[str, str], positions: int
) -> dict[str, Any]:
    """tokenizer_config.json. Its class uses tokenizer.json as it is; see `tokenizer_files`."""
    further = [token.content for token in settings.additional]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: value for name, value in flags.items() if value is not True or name != "do_basic_tokenize"},
        "model_max_length": settings.max_length or positions,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **specials,
        **({"additional_special_tokens": further} if further else {}),
        **settings.carried,
    }
