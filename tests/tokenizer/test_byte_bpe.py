"""Byte BPE: the ids are those of the reference and, with NEZHA_ORIGINAL_CLONE, those of Huawei's code."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from clones import CLONE
from goldens import GOLDENS
from hypothesis import given, settings
from hypothesis import strategies as st
from languages import letters, strings
from tokenizers import Tokenizer
from transformers import AutoTokenizer

import nezha  # noqa: F401  (it tells AutoTokenizer the model's type)
import nezha_convert
from nezha_convert.errors import MappingError, UsageError
from nezha_convert.parity.oracle import byte_bpe as reference
from nezha_convert.parity.originals.programs import BYTE_BPE, tokenize_original
from nezha_convert.tokenizer.byte_bpe import PREFIX, RULES, is_byte_bpe, name_tokens, spelled_out
from nezha_convert.tokenizer.wordpiece import (
    SPECIAL_TOKENS,
    Vocabulary,
    decide_casing,
    decide_language,
    decide_rules,
    read_vocab,
    tokenizer_files,
)

FOLDER = Path(__file__).parents[2] / "fixtures" / "byte-bpe"
VOCAB = read_vocab(FOLDER / "vocab.txt")
KNOWN = {token: number for number, token in enumerate(VOCAB.tokens)}
GOLDEN = json.loads((FOLDER / "expected.json").read_text("utf-8"))
SPECIALS = list(SPECIAL_TOKENS.values())
MODES = [(rules, lower) for rules in RULES for lower in (False, True)]
TF = next(golden for golden in GOLDENS if golden.folder.name == "huawei-tf-pretraining")


def vocabulary(*tokens: str, path: Path = Path("vocab.txt")) -> Vocabulary:
    return Vocabulary(path, (*SPECIALS, *tokens))


def tokenizer_of(vocab: Vocabulary, rules: str, lower: bool = False) -> Tokenizer:
    return Tokenizer.from_str(tokenizer_files(vocab, lower, 512, rules)["tokenizer.json"].decode())


@cache
def tokenizer(rules: str, lower: bool) -> Tokenizer:
    return tokenizer_of(VOCAB, rules, lower)


def ids_of(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [encoded.ids for encoded in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def expected_ids(texts: Sequence[str], rules: str, lower: bool) -> list[list[int]]:
    return [[KNOWN[token] for token in reference.tokenize(text, KNOWN, lower, rules)] for text in texts]


def unknown_to_python(text: str) -> bool:
    """Whether it has a character that Python's version of Unicode lacks. Huawei's code drops such characters."""
    return any(unicodedata.category(c) == "Cn" for c in text)


# The same ids as Huawei's


@pytest.mark.parametrize("rules, lower", MODES)
def test_the_recorded_ids_of_huawei_s_code_are_given_by_both_libraries_and_by_the_reference(rules, lower):
    golden = GOLDEN["ids"][f"{rules} {'lower' if lower else 'cased'}"]
    assert ids_of(tokenizer(rules, lower), GOLDEN["texts"]) == golden
    assert expected_ids(GOLDEN["texts"], rules, lower) == golden
    assert transformers(rules, lower)(GOLDEN["texts"], add_special_tokens=False)["input_ids"] == golden


@cache
def transformers(rules: str, lower: bool) -> Any:
    folder = Path(mkdtemp())
    for name, data in tokenizer_files(VOCAB, lower, 512, rules).items():
        (folder / name).write_bytes(data)
    return AutoTokenizer.from_pretrained(folder)


def test_each_of_the_rules_gives_ids_of_its_own():
    recorded = [GOLDEN["ids"][f"{rules} {casing}"] for rules in RULES for casing in ("cased", "lower")]
    assert len({json.dumps(ids) for ids in recorded}) == len(recorded)


@pytest.mark.parametrize("rules, lower", MODES)
def test_10_000_random_strings_in_11_languages_have_the_reference_s_ids(rules, lower):
    texts = strings(10_000 if not lower else 2_000)
    assert not any(unknown_to_python(c) for text in texts for c in text if c not in "\u0378\ufffe\U0010ffff")
    assert ids_of(tokenizer(rules, lower), texts) == expected_ids(texts, rules, lower)


@pytest.mark.parametrize("rules, lower", MODES)
def test_10_000_random_strings_in_11_languages_have_the_ids_of_huawei_s_code(rules, lower):
    if not CLONE:
        pytest.skip("NEZHA_ORIGINAL_CLONE does not name a clone of Huawei's repository")
    texts = strings(10_000)
    found = tokenize_original(CLONE, VOCAB.path, texts, lower_case=lower, rules=rules)
    assert ids_of(tokenizer(rules, lower), texts) == [[KNOWN[token] for token in tokens] for tokens in found]


@pytest.mark.parametrize("rules", BYTE_BPE)
def test_huawei_s_code_gives_its_golden_again(rules):
    if not CLONE:
        pytest.skip("NEZHA_ORIGINAL_CLONE does not name a clone of Huawei's repository")
    for casing in ("cased", "lower"):
        found = tokenize_original(CLONE, VOCAB.path, GOLDEN["texts"], lower_case=casing == "lower", rules=rules)
        assert [[KNOWN[token] for token in tokens] for tokens in found] == GOLDEN["ids"][f"{rules} {casing}"]


@pytest.mark.parametrize("rules, lower", [("bbpe", False), ("multilingual", True)])
def test_every_character_is_classed_as_in_huawei_s_code_but_those_newer_than_python(rules, lower):
    """Ids differ only for characters that one side's version of Unicode lacks or classifies differently."""
    parts = ((0, 0x3500), (0x9FF0, 0xAC10), (0xD790, 0xD800), (0xDFFF + 1, 0x11000), (0x11000, 0x20010))
    parts += ((0x2A6D0, 0x2A710), (0x2B730, 0x2B830), (0x2CEA0, 0x2CEC0), (0x2F7F0, 0x2FA30), (0xE0000, 0xE0200))
    characters = [chr(c) for low, high in parts for c in range(low, high)]
    texts = [f"a{c}1 2{c}3" for c in characters]
    wanted = expected_ids(texts, rules, lower)
    differing = [
        c for c, a, b in zip(characters, ids_of(tokenizer(rules, lower), texts), wanted, strict=True) if a != b
    ]
    changed = {"\U0001171e": "no mark without a width of its own any more, in Unicode 16"} if lower else {}
    if sys.version_info < (3, 11):
        changed["\u1734"] = "no mark without a width of its own any more, in Unicode 14; Python 3.10 has 13"
    changed |= {"\U00011938": "its decomposition is not known to the tokenizers library"} if lower else {}
    assert [hex(ord(c)) for c in differing if not unknown_to_python(c) and c not in changed] == []


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.sampled_from(MODES))
def test_any_text_has_the_reference_s_ids(text, mode):
    if not unknown_to_python(text) and not {"\U0001171e", "\U00011938"} & set(text):
        assert ids_of(tokenizer(*mode), [text]) == expected_ids([text], *mode)


BYTES = st.lists(st.sampled_from([0x41, 0x62, 0x2E, 0x33, 0xD8, 0xA7, 0xE4, 0xBD, 0xA0]), min_size=1, max_size=3)
TOKEN = st.builds(lambda prefix, piece: prefix + bytes(piece).hex().upper(), st.sampled_from(["", "##"]), BYTES)


@settings(max_examples=300, deadline=None)
@given(st.lists(TOKEN, min_size=5, max_size=60), st.text("AbAb.3 اا你你بE", max_size=12), st.sampled_from(MODES))
def test_any_vocabulary_of_bytes_gives_the_reference_s_ids(tokens, text, mode):
    vocab = vocabulary(*dict.fromkeys(tokens))
    ids = {token: number for number, token in enumerate(vocab.tokens)}
    expected = [ids[token] for token in reference.tokenize(text, ids, mode[1], mode[0])]
    assert ids_of(tokenizer_of(vocab, *mode), [text]) == [expected]


HALF = st.builds(lambda token, digit: token + digit, TOKEN, st.sampled_from("0123456789ABCDEF"))
ODD = HALF | st.sampled_from(["4", "##4", "##9E4", "9D8", "##D", "##A7D", "E4B", "##BDA"])


@settings(max_examples=500, deadline=None)
@given(
    st.lists(TOKEN, min_size=8, max_size=40), st.lists(ODD, min_size=1, max_size=2), st.text("AbK3. اس你ب", max_size=9)
)
def test_tokens_of_half_a_byte_are_refused_or_change_no_id(tokens, odd, text):
    """Each vocabulary that is accepted gives the ids of the code that takes half a byte where it can."""
    vocab = vocabulary(*dict.fromkeys([*tokens, *odd]), *(f"{p}{b:02X}" for b in range(0x100) for p in ("~", "##")))
    vocab = Vocabulary(vocab.path, tuple(dict.fromkeys(vocab.tokens)))
    ids = {token: number for number, token in enumerate(vocab.tokens)}
    try:
        ids_found = ids_of(tokenizer_of(vocab, "jaber"), [text])
    except MappingError:
        return
    assert ids_found == [[ids[token] for token in reference.tokenize(text, ids, False, "jaber")]]


# Mistakes are noticed


def without(step: int) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["normalizer"]["normalizers"].pop(step)


def without_split(step: int) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["pre_tokenizer"]["pretokenizers"].pop(step)


def renamed(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content["model"]["vocab"] = {name.replace(old, new): i for name, i in content["model"]["vocab"].items()}

    return change


@pytest.mark.parametrize(
    "change, lower",
    [
        (lambda content: content["model"].update(continuing_subword_prefix="##"), False),
        (lambda content: content["model"].update(max_input_chars_per_word=499), False),
        (lambda content: content["model"].update(max_input_chars_per_word=1000), False),
        (lambda content: content["pre_tokenizer"]["pretokenizers"][-1].update(add_prefix_space=True), False),
        (lambda content: content["pre_tokenizer"]["pretokenizers"][-1].update(use_regex=True), False),
        (renamed("Ø§", "Ø¨"), False),
        (without(0), False),
        (without(1), True),
        (without(2), True),
        (without(3), True),
        (without(4), True),
        (without_split(0), False),
        (without_split(1), False),
        (without_split(2), False),
    ],
    ids=[
        "Huawei's prefix",
        "shorter words",
        "longer words",
        "a space in front",
        "GPT-2's words",
        "two tokens exchanged",
        "controls stay",
        "no final sigma",
        "no lower case",
        "no decomposition",
        "accents stay",
        "spaces stay",
        "Chinese stays together",
        "punctuation stays",
    ],
)
def test_a_wrong_tokenizer_has_other_ids_than_the_reference(change, lower):
    content = json.loads(tokenizer("multilingual", lower).to_str())
    change(content)
    texts = [*strings(400), *reference.texts_for(KNOWN)]
    wrong = Tokenizer.from_str(json.dumps(content))
    assert ids_of(wrong, texts) != expected_ids(texts, "multilingual", lower)


# From ids to text


@pytest.mark.parametrize("rules, lower", MODES)
def test_ids_go_back_to_the_words_of_the_text(rules, lower):
    """One space is left between words and around punctuation."""
    for text in strings(1_000):
        encoded = tokenizer(rules, lower).encode(text, add_special_tokens=False)
        assert KNOWN["[UNK]"] not in encoded.ids  # every byte is a token
        every_byte = {f"{prefix}{byte:02X}" for byte in range(256) for prefix in ("", "##")}
        words: list[str] = []
        for piece in reference.tokenize(text, every_byte, lower, rules):
            words += [""] if not piece.startswith("##") else []
            words[-1] += piece.removeprefix("##")
        back = " ".join(bytes.fromhex(word).decode() for word in words)
        assert tokenizer(rules, lower).decode(encoded.ids) == back
        assert transformers(rules, lower).decode(encoded.ids) == back


def test_offsets_are_those_of_the_text_and_a_character_between_two_tokens_is_of_both():
    encoded = tokenizer("multilingual", False).encode("Zug, القطار", add_special_tokens=False)
    assert encoded.offsets == [(0, 1), (1, 3), (3, 4), (5, 9), (8, 11)]
    assert encoded.word_ids == [0, 0, 1, 2, 2]


# Special tokens


def test_special_tokens_keep_their_names_and_ids_and_frame_a_pair():
    loaded = transformers("multilingual", False)
    for name, token in SPECIAL_TOKENS.items():
        assert getattr(loaded, name) == token
        assert loaded.convert_tokens_to_ids(token) == KNOWN[token] == getattr(loaded, f"{name}_id")
    pair = loaded("Zug", "القطار")
    assert pair["input_ids"][0] == KNOWN["[CLS]"] and pair["input_ids"].count(KNOWN["[SEP]"]) == 2
    assert pair["token_type_ids"][0] == 0 and pair["token_type_ids"][-1] == 1
    assert loaded("a [MASK]", add_special_tokens=False)["input_ids"] == [KNOWN["61"], KNOWN["[MASK]"]]
    assert loaded.decode(pair["input_ids"], skip_special_tokens=True) == "Zug القطار"
    assert len(loaded) == len(VOCAB)


def test_saving_from_transformers_and_loading_again_changes_no_id(tmp_path):
    transformers("jaber", False).save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(GOLDEN["texts"])["input_ids"] == transformers("jaber", False)(GOLDEN["texts"])["input_ids"]
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["byte_bpe_rules"] == "jaber"


# Vocabularies


@pytest.mark.parametrize("first", [0, 10, 1000])
def test_numbers_alone_are_no_bytes(first: int) -> None:
    """Vocabularies of anonymised competitions, some with the pieces that a training of WordPiece makes."""
    numbers = [f"{number}" for number in range(first, first + 500)]
    for tokens in (numbers, [*numbers, *(f"##{number}" for number in numbers)]):
        assert not is_byte_bpe(tokens) and reference.rules_of(tokens) is None
    assert reference.rules_of(numbers, asked=True) == "multilingual"


def test_a_byte_vocabulary_is_known_by_its_tokens():
    assert is_byte_bpe(VOCAB.tokens) and reference.rules_of(VOCAB.tokens) == "multilingual"
    wordpiece = read_vocab(FOLDER.parent / "tokenization" / "vocab.txt")
    for tokens in (wordpiece.tokens, [*SPECIALS, "AB", "##CD", "hello", "##ing"], ["e4bda0", "61 ", "d8a7", "zz"]):
        assert not is_byte_bpe(tokens) and reference.rules_of(tokens) is None
    assert decide_rules(wordpiece) == (None, [])


ARABIC = [prefix + letter.encode().hex().upper() for letter in letters("\u0621-\u064a") for prefix in ("", "##")]


def test_an_arabic_vocabulary_is_split_by_jaber_s_rules_and_any_other_by_the_multilingual_model_s():
    arabic = vocabulary(*ARABIC, *(f"{byte:02X}" for byte in range(256)))
    rules, decisions = decide_rules(arabic)
    assert (rules, reference.rules_of(arabic.tokens)) == ("jaber", "jaber")
    assert "JABER-PyTorch/tokenizationBBPE.py" in decisions[0].reason
    assert decide_language(arabic).value == "ar"
    assert decide_casing(arabic, None)[0] is False and not reference.lower_cases(arabic.tokens)
    rules, decisions = decide_rules(VOCAB)
    assert rules == "multilingual" and decide_language(VOCAB) is None
    assert (decisions[1].field, decisions[1].value) == ("unused_tokens", 3)
    small = vocabulary(*(f"{ord(c):02X}" for c in "abcdefgh"))
    assert decide_casing(small, None)[0] is True and reference.lower_cases(small.tokens)


def test_the_file_beside_the_vocabulary_names_the_rules(tmp_path):
    vocab = Vocabulary(tmp_path / "vocab.txt", VOCAB.tokens)
    (tmp_path / "tokenizer_config.json").write_text('{"byte_bpe_rules": "bbpe"}')
    rules, decisions = decide_rules(vocab)
    assert rules == "bbpe" and "tokenizer_config.json beside" in decisions[0].reason
    (tmp_path / "tokenizer_config.json").write_text('{"byte_bpe_rules": "gpt2"}')
    with pytest.raises(MappingError, match="byte_bpe_rules is 'gpt2'; expected multilingual, jaber, bbpe"):
        decide_rules(vocab)


def test_the_prefix_is_no_byte_so_that_no_two_tokens_have_one_name():
    names, unused = name_tokens(Path("v"), ["23", "##23", "##2341", "41", "2341"], ())
    assert names == ["#", f"{PREFIX}#", f"{PREFIX}#A", "A", "[unused 2341]"] and unused == ["2341"]
    every = [f"{p}{a:02X}{b:02X}" for p in ("", "##") for a in range(256) for b in range(256)]
    names, _ = name_tokens(Path("v"), every, ())
    assert len(set(names)) == len(every) and [spelled_out(name) for name in names] == every


@pytest.mark.parametrize(
    "token", ["hello", "e4bda0", "[unused7]", "<S>", "##", "#", "", "##zz", "…A", "2323", "abc", "=NUMBER="]
)
def test_a_token_that_is_no_hexadecimal_is_kept_unused_and_no_text_becomes_it(token):
    vocab = vocabulary(*(f"{p}{byte:02X}" for byte in range(256) for p in ("", "##")), token)
    rules, decisions = decide_rules(vocab)
    assert decisions[-1].value == 1 and token in decisions[-1].reason
    ids = {token: number for number, token in enumerate(vocab.tokens)}
    texts = [token, f"a{token}", f"{token}b", token.removeprefix("##"), "A [unused A]"]
    found = ids_of(tokenizer_of(vocab, rules), texts)
    assert found == [[ids[t] for t in reference.tokenize(text, ids, False, rules)] for text in texts]
    assert tokenizer_of(vocab, rules).get_vocab_size() == len(vocab)


@pytest.mark.parametrize("token", ["##9E4", "4", "D8A", "##A7D8A", "##D", "##9"])
def test_a_token_of_half_a_byte_that_can_be_taken_is_refused_and_named(token):
    vocab = vocabulary("D8", "##A7", "##D8", "61", "##61", token)
    with pytest.raises(MappingError, match="1 tokens of an odd number of hexadecimal digits") as caught:
        tokenizer_of(vocab, "jaber")
    assert caught.value.problems == (f"{token}: {len(token.removeprefix('##'))} digits",)
    assert "Huawei's own code" in caught.value.hint


@pytest.mark.parametrize("token", ["9", "9D8A7", "##9D8A7D984", "0", "##1", "##FF6", "2", "8", "##9"])
def test_a_token_of_half_a_byte_that_no_text_reaches_is_kept_unused(token):
    """Either no UTF-8 contains it, or each continuation has a longer token, as when every byte is a token."""
    vocab = vocabulary(*(f"{p}{byte:02X}" for byte in range(256) for p in ("", "##")), token)
    _, decisions = decide_rules(vocab)
    assert (decisions[-1].field, decisions[-1].value) == ("unused_tokens", 1)


def test_two_tokens_with_one_text_are_refused_and_named():
    with pytest.raises(MappingError, match="1 pairs of tokens have the same text") as caught:
        name_tokens(Path("v"), ["41", "42", "41 "], ())
    assert "'41'" in caught.value.problems[0]
    with pytest.raises(MappingError) as caught:  # matched as one piece, but the same bytes have another id
        name_tokens(Path("v"), [*SPECIALS, "<E>", "4142"], [*SPECIALS, "<E>", "AB"])
    assert caught.value.problems == ("'4142' and 'AB'",)


def test_the_bytes_of_a_special_token_s_text_are_another_token():
    """`[` is a word of its own, so these bytes are never looked up. The token gets another name."""
    names, unused = name_tokens(Path("v"), [*SPECIALS, "5B434C535D"], SPECIALS)
    assert names == [*SPECIALS, "[unused 5B434C535D]"] and unused == ["5B434C535D"]


def test_names_are_spelled_out_as_the_vocabulary_that_they_were_made_of():
    names, _ = name_tokens(VOCAB.path, VOCAB.tokens, SPECIALS)
    assert [spelled_out(name) for name in names] == list(VOCAB.tokens)
    tokens = ["hello", "", "##zz", "2323", "##2323", "#", "[unused7]", "5B", "##5B43"]
    assert [spelled_out(name) for name in name_tokens(Path("v"), tokens, ())[0]] == tokens


# Conversion and verification


@pytest.fixture
def vocab(tmp_path) -> Path:
    """As many tokens as the fixture's embedding has rows, so only some of the bytes."""
    tokens = [*SPECIALS, *(f"{p}{ord(c):02X}" for c in "ABCDEFGHIJKLMNOPQRSTUVWX" for p in ("", "##")), "4142", "##D8"]
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(tokens) + "\n")
    return path


def test_a_checkpoint_with_a_byte_vocabulary_is_converted_and_verified(vocab, tmp_path):
    report = nezha_convert.convert(TF.folder, tmp_path / "out", vocab=vocab)
    decided = {decision.field: decision.value for decision in report.decisions}
    assert decided["byte_bpe_rules"] == "multilingual" and decided["do_lower_case"] is False
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert loaded("ABCz A", add_special_tokens=False)["input_ids"] == [0, 5]
    assert loaded("ABC", add_special_tokens=False)["input_ids"] == [53, 10]
    assert (tmp_path / "out" / "vocab.txt").read_bytes() == vocab.read_bytes()
    parity = nezha_convert.verify(TF.folder, tmp_path / "out", vocab=vocab, texts=["ABC", "DAB A"])
    assert parity.passed and parity.tokenizer.reference == "the reference tokenizer of bytes"
    assert parity.tokenizer.texts == len(list(reference.texts_for(read_vocab(vocab).tokens))) + 2


@pytest.mark.parametrize("field, value", [("continuing_subword_prefix", "##"), ("max_input_chars_per_word", 10)])
def test_a_wrong_tokenizer_fails_verification(field, value, vocab, tmp_path):
    nezha_convert.convert(TF.folder, tmp_path / "out", vocab=vocab)
    path = tmp_path / "out" / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    content["model"][field] = value
    path.write_text(json.dumps(content), encoding="utf-8")
    parity = nezha_convert.verify(TF.folder, tmp_path / "out", vocab=vocab)
    assert not parity.passed and parity.tokenizer.differing
    assert "texts differ from the reference tokenizer of bytes" in " ".join(parity.failures)


def test_a_folder_that_transformers_saved_without_the_vocabulary_is_repaired_with_the_same_ids(vocab, tmp_path):
    folder = tmp_path / "out"
    nezha_convert.convert(TF.folder, folder, vocab=vocab)
    loaded = AutoTokenizer.from_pretrained(folder)
    for name in ("vocab.txt", "modeling_nezha.py"):
        (folder / name).unlink()
    nezha_convert.repair(folder, tmp_path / "repaired")
    assert (tmp_path / "repaired" / "vocab.txt").read_bytes() == vocab.read_bytes()
    again = AutoTokenizer.from_pretrained(tmp_path / "repaired")
    assert again("ABC AXA [MASK]")["input_ids"] == loaded("ABC AXA [MASK]")["input_ids"]


def test_rules_that_were_told_are_verified_with_a_warning(vocab, tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"byte_bpe_rules": "bbpe"}')
    nezha_convert.convert(TF.folder, tmp_path / "out", vocab=vocab)
    parity = nezha_convert.verify(TF.folder, tmp_path / "out", vocab=vocab)
    assert parity.passed
    assert any("splits words as bbpe, as it was told" in warning for warning in parity.warnings)


def test_huawei_s_own_code_is_run_from_a_clone(tmp_path):
    clone = tmp_path / "clone"
    with pytest.raises(UsageError, match="no such folder"):
        tokenize_original(str(clone), VOCAB.path, [], lower_case=False, rules="jaber")
    clone.mkdir()
    with pytest.raises(UsageError, match=r"missing BBPE/bbpe/tokenization\.py"):
        tokenize_original(str(clone), VOCAB.path, [], lower_case=False, rules="bbpe")
    (clone / "BBPE/bbpe").mkdir(parents=True)
    (clone / "BBPE/bbpe/tokenization.py").write_text(
        "import six\n"
        "class FullTokenizer:\n"
        "    def __init__(self, vocab_file, do_lower_case): self.said = [str(do_lower_case), str(six.PY3)]\n"
        "    def tokenize(self, text): return [text, *self.said]\n"
    )
    assert tokenize_original(str(clone), VOCAB.path, ["é"], lower_case=True, rules="bbpe") == [["é", "True", "True"]]
