"""The tokenizer's files give Huawei's ids, both in the tokenizers library and in transformers."""

from __future__ import annotations

import json
import unicodedata
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from clones import CLONE, need
from hypothesis import given, settings
from hypothesis import strategies as st
from languages import strings
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from nezha_convert.checkpoint import Decision, Origin
from nezha_convert.errors import MappingError
from nezha_convert.parity.oracle import wordpiece
from nezha_convert.parity.originals.programs import tokenize_original
from nezha_convert.tokenizer.wordpiece import (
    MAX_CHARS_PER_WORD,
    SPECIAL_TOKENS,
    Vocabulary,
    check_length,
    decide_added,
    decide_casing,
    decide_reading,
    decide_words,
    read_vocab,
    tokenizer_files,
)

FOLDER = Path(__file__).parents[2] / "fixtures" / "tokenization"
EXPECTED = json.loads((FOLDER / "expected.json").read_text("utf-8"))
SPECIALS = list(SPECIAL_TOKENS.values())
CASES = [
    pytest.param(casing == "lower", case["text"], case["tokens"], case["ids"], id=f"{casing}-{number}")
    for casing, cases in EXPECTED.items()
    for number, case in enumerate(cases)
    if not any(token in case["text"] for token in SPECIALS)  # today's tokenizers match these as special tokens
]


def vocabulary(tokens: list[str], path: Path = Path("vocab.txt")) -> Vocabulary:
    return Vocabulary(path, tuple(tokens))


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "vocab.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@cache
def loaded(lower_case: bool) -> tuple[Tokenizer, Any]:
    """The fixture's files, loaded by the tokenizers library and by transformers."""
    folder = Path(mkdtemp())
    for name, data in tokenizer_files(read_vocab(FOLDER / "vocab.txt"), lower_case, 512).items():
        (folder / name).write_bytes(data)
    return Tokenizer.from_file(str(folder / "tokenizer.json")), AutoTokenizer.from_pretrained(folder)


# The same ids as Huawei's


@pytest.mark.parametrize("lower_case, text, tokens, ids", CASES)
def test_every_text_has_the_ids_of_huaweis_tokenizer_in_both_libraries(
    lower_case: bool, text: str, tokens: list[str], ids: list[int]
) -> None:
    library, transformers = loaded(lower_case)
    encoded = library.encode(text, add_special_tokens=False)
    assert (encoded.tokens, encoded.ids) == (tokens, ids)
    assert transformers.tokenize(text) == tokens
    assert transformers(text, add_special_tokens=False).input_ids == ids


def everything(folder: Path) -> Vocabulary:
    """A vocabulary of all characters of the random strings, in both cases and without accents."""
    characters = {v for text in strings(10_000) for c in text for v in (c, c.lower(), c.upper())}
    letters = sorted({c for v in characters for c in unicodedata.normalize("NFD", v) + v if not c.isspace()})
    return read_vocab(written(folder, "\n".join([*SPECIALS, *letters, *(f"##{c}" for c in letters)])))


def tokens_of(vocab: Vocabulary, lower_case: bool, texts: list[str]) -> list[list[str]]:
    library = Tokenizer.from_str(tokenizer_files(vocab, lower_case, 512)["tokenizer.json"].decode())
    return [encoded.tokens for encoded in library.encode_batch(texts, add_special_tokens=False)]


@pytest.mark.parametrize("lower_case", [True, False])
def test_random_strings_in_11_languages_have_the_reference_s_tokens(lower_case: bool, tmp_path: Path) -> None:
    vocab, texts = everything(tmp_path), [*strings(10_000)[:2000], *wordpiece.TEXTS]
    known = set(vocab.tokens)
    expected = [wordpiece.tokenize(text, known, lower_case) for text in texts]
    assert tokens_of(vocab, lower_case, texts) == expected
    assert any("##ς" in tokens for tokens in expected) and any("\ue000" in tokens for tokens in expected)


@pytest.mark.skipif(not CLONE, reason="NEZHA_ORIGINAL_CLONE names no clone of Huawei's repository")
@pytest.mark.parametrize("lower_case", [True, False])
def test_10_000_random_strings_in_11_languages_have_the_tokens_of_huawei_s_code(
    lower_case: bool, tmp_path: Path
) -> None:
    need("tensorflow")
    vocab, texts = everything(tmp_path), strings(10_000)
    assert tokens_of(vocab, lower_case, texts) == tokenize_original(CLONE, vocab.path, texts, lower_case=lower_case)


def test_all_but_the_texts_with_special_tokens_are_compared() -> None:
    assert len(CASES) == sum(map(len, EXPECTED.values())) - 2


def test_a_special_token_written_literally_is_read_as_one() -> None:
    """Huawei's tokenizer splits it; no tokenizer of today does."""
    for lower_case in (True, False):
        library, transformers = loaded(lower_case)
        assert library.encode("[CLS] 我 [MASK]", add_special_tokens=False).tokens == ["[CLS]", "我", "[MASK]"]
        assert transformers.tokenize("[CLS] 我 [MASK]") == ["[CLS]", "我", "[MASK]"]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40), st.booleans())
def test_both_libraries_agree_on_any_text(text: str, lower_case: bool) -> None:
    library, transformers = loaded(lower_case)
    assert library.encode(text).ids == transformers(text).input_ids


@pytest.mark.parametrize("lower_case", [True, False])
@pytest.mark.parametrize("length", [100, 101, 199, 200, 201])
def test_a_word_of_200_characters_is_split_and_a_longer_one_is_unknown(length: int, lower_case: bool) -> None:
    expected = ["a", *["##a"] * (length - 1)] if length <= MAX_CHARS_PER_WORD == 200 else ["[UNK]"]
    library, transformers = loaded(lower_case)
    assert library.encode("a" * length, add_special_tokens=False).tokens == expected
    assert transformers.tokenize("a" * length) == expected


def test_a_text_and_a_pair_are_framed_and_told_apart() -> None:
    library, transformers = loaded(True)
    for encoded in (library.encode("我们", "中国"), transformers("我们", "中国").encodings[0]):
        assert encoded.tokens == ["[CLS]", "我", "们", "[SEP]", "中", "国", "[SEP]"]
        assert encoded.type_ids == [0, 0, 0, 0, 1, 1, 1]
    assert library.encode("我").tokens == ["[CLS]", "我", "[SEP]"]
    assert set(transformers("我")) == {"input_ids", "token_type_ids", "attention_mask"}


def test_transformers_knows_the_special_tokens_and_the_length() -> None:
    _, tokenizer = loaded(True)
    for name, token in SPECIAL_TOKENS.items():
        assert getattr(tokenizer, name) == token
        assert tokenizer.convert_ids_to_tokens(getattr(tokenizer, f"{name}_id")) == token
    assert tokenizer.model_max_length == 512
    assert len(tokenizer) == len(read_vocab(FOLDER / "vocab.txt").tokens)
    padded = tokenizer(["我", "我们在"], padding=True)
    assert padded.attention_mask[0] == [1, 1, 1, 0, 0]
    assert padded.input_ids[0][-1] == tokenizer.pad_token_id


def test_ids_go_back_to_text() -> None:
    library, transformers = loaded(True)
    ids = library.encode("unaffable 我们").ids
    assert library.decode(ids, skip_special_tokens=True) == "unaffable 我 们"
    assert transformers.decode(ids, skip_special_tokens=True) == "unaffable 我 们"


def test_saving_from_transformers_and_loading_again_changes_no_id(tmp_path: Path) -> None:
    _, tokenizer = loaded(True)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for case in EXPECTED["lower"]:
        assert again(case["text"]).input_ids == tokenizer(case["text"]).input_ids


def test_no_token_changes_its_id() -> None:
    vocab = read_vocab(FOLDER / "vocab.txt")
    library, transformers = loaded(False)
    assert [library.id_to_token(number) for number in range(library.get_vocab_size())] == list(vocab.tokens)
    assert transformers.convert_tokens_to_ids(list(vocab.tokens)) == list(range(len(vocab.tokens)))


def test_special_tokens_may_stand_anywhere_in_the_vocabulary() -> None:
    vocab = vocabulary(["我", "[MASK]", "们", "[SEP]", "[UNK]", "x", "[CLS]", "[PAD]"])
    tokenizer = Tokenizer.from_str(tokenizer_files(vocab, True, 512)["tokenizer.json"].decode())
    assert tokenizer.encode("我们 q").ids == [6, 0, 2, 4, 3]
    assert tokenizer.get_vocab_size() == 8


def test_the_vocabulary_is_copied_byte_by_byte_and_equal_sources_give_equal_files() -> None:
    vocab = read_vocab(FOLDER / "vocab.txt")
    files = tokenizer_files(vocab, True, 512)
    assert set(files) == {"tokenizer.json", "tokenizer_config.json", "vocab.txt"}
    assert files["vocab.txt"] == (FOLDER / "vocab.txt").read_bytes()
    assert tokenizer_files(vocab, True, 512) == files
    config = json.loads(files["tokenizer_config.json"])
    assert (config["do_lower_case"], config["model_max_length"]) == (True, 512)
    assert json.loads(tokenizer_files(vocab, False, 99)["tokenizer_config.json"])["model_max_length"] == 99


# Reading vocab.txt


def test_the_fixtures_vocabulary_is_read() -> None:
    vocab = read_vocab(FOLDER / "vocab.txt")
    assert len(vocab.tokens) == 648
    assert vocab.tokens[:5] == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


TOKENS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), min_size=1, max_size=5), unique=True
)


@settings(max_examples=80, deadline=None)
@given(TOKENS, st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_one_token_a_line_whatever_the_characters(tokens: list[str], last: bool, ending: str) -> None:
    tokens = [*SPECIALS, *(token for token in tokens if token not in SPECIALS)]
    path = Path(mkdtemp()) / "vocab.txt"
    path.write_bytes((ending.join(tokens) + (ending if last else "")).encode())
    assert read_vocab(path).tokens == tuple(tokens)


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    tokens = [*SPECIALS, "\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "a\u2028b", "\u3000"]
    vocab = read_vocab(written(tmp_path, "\n".join(tokens) + "\n"))
    assert vocab.tokens == tuple(tokens)
    tokenizer = Tokenizer.from_str(tokenizer_files(vocab, True, 512)["tokenizer.json"].decode())
    assert [tokenizer.token_to_id(token) for token in tokens] == list(range(len(tokens)))


def test_an_empty_line_inside_keeps_the_ids_behind_it(tmp_path: Path) -> None:
    assert read_vocab(written(tmp_path, "\n".join([*SPECIALS, "", "a"]))).tokens == (*SPECIALS, "", "a")


def test_a_token_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match=r"vocab\.txt: 'x' stands on line 6 and again on line 8"):
        read_vocab(written(tmp_path, "\n".join([*SPECIALS, "x", "y", "x"])))


def test_a_vocabulary_without_mask_is_read_and_it_is_said(tmp_path: Path) -> None:
    vocab = read_vocab(written(tmp_path, "\n".join([*SPECIALS[:-1], "1", "2"])))
    (said,) = decide_reading(vocab)
    assert (said.field, said.value) == ("mask_token", None) and "has no [MASK]" in said.reason
    files = tokenizer_files(vocab, True, 512)
    assert "mask_token" not in json.loads(files["tokenizer_config.json"])
    assert Tokenizer.from_str(files["tokenizer.json"].decode()).get_vocab_size() == 6


def test_lines_are_stripped_where_the_program_does_so_and_the_later_of_two_has_the_token(tmp_path: Path) -> None:
    path = written(tmp_path, "\n".join([*SPECIALS, " a", "b\t", "\u3000c\u2028", "b", "\u2028", "\u3000"]))
    vocab = read_vocab(path, strip=True)
    assert vocab.tokens[5:] == ("a", "[line 7 again on 9]", "c", "b", "[line 10 again on 11]", "")
    tokenizer = Tokenizer.from_str(tokenizer_files(vocab, True, 512)["tokenizer.json"].decode())
    assert tokenizer.encode("a b c", add_special_tokens=False).ids == [5, 8, 7]
    (said,) = decide_reading(vocab)
    assert (said.field, said.value) == ("repeated_tokens", 2)


def test_whole_chinese_words_are_counted(tmp_path: Path) -> None:
    words = [f"中{c}" for c in "abcdefghij"]
    vocab = read_vocab(written(tmp_path, "\n".join([*SPECIALS, "中", "##中国", "[中国]", "北京大学", *words])))
    said = decide_words(vocab)
    assert said and said.value == 11
    assert said.reason == ("11 words such as 北京大学 are never produced: WoNEZHA cuts words before it looks them up")
    assert decide_words(read_vocab(FOLDER / "vocab.txt")) is None


@pytest.mark.parametrize("missing", [token for token in SPECIALS if token != "[MASK]"])
def test_a_vocabulary_without_a_special_token_is_refused_and_it_is_named(missing: str, tmp_path: Path) -> None:
    tokens = [token for token in SPECIALS if token != missing]
    with pytest.raises(MappingError) as caught:
        read_vocab(written(tmp_path, "\n".join(tokens)))
    assert f"no WordPiece vocabulary of NEZHA: {missing} not in its 4 lines" in str(caught.value)
    assert "--vocab" in caught.value.hint


@pytest.mark.parametrize("content", ["", "\n", "hello"])
def test_a_file_that_is_no_vocabulary_is_refused(content: str, tmp_path: Path) -> None:
    with pytest.raises(MappingError, match=r"\[UNK\], \[SEP\], \[PAD\], \[CLS\], \[MASK\] not in its"):
        read_vocab(written(tmp_path, content))


def test_a_vocabulary_with_a_byte_order_mark_is_read_without_it(tmp_path: Path) -> None:
    vocab = read_vocab(written(tmp_path, "\n".join(SPECIALS).encode("utf-8-sig")))
    assert vocab.tokens == tuple(SPECIALS)


def test_a_vocabulary_that_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match=r"vocab\.txt: not a vocabulary: not UTF-8"):
        read_vocab(written(tmp_path, "我\n".encode("gb18030")))
    with pytest.raises(MappingError, match=r"no\.txt: cannot be read"):
        read_vocab(tmp_path / "no.txt")
    with pytest.raises(MappingError, match="cannot be read"):
        read_vocab(tmp_path)


# Casing


@pytest.mark.parametrize("tokens", [[], ["<S>", "<T>"], ["Hello", "##A", "iPhone"], ["A", "B"]], ids=str)
def test_a_few_words_with_capitals_do_not_make_a_cased_vocabulary(tokens: list[str]) -> None:
    """Huawei's Chinese vocabulary has <S> and <T> and not one capital letter."""
    lower, decision = decide_casing(vocabulary([*SPECIALS, "[UNUSED2]", "hello", "##ing", "我", *tokens]), None)
    assert (lower, decision.field, decision.value) == (True, "do_lower_case", True)
    assert f"{len([t for t in tokens if len(t) == 1])} of the 26 capital letters" in decision.reason


def test_a_vocabulary_with_the_capital_letters_is_cased() -> None:
    lower, decision = decide_casing(vocabulary([*SPECIALS, "hello", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]), None)
    assert (lower, decision.value) == (False, False)
    assert decision.reason.startswith("26 of the 26 capital letters")


@pytest.mark.parametrize("said", [True, False])
def test_transformers_own_file_says_the_casing(said: bool, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": said}))
    lower, decision = decide_casing(read_vocab(written(tmp_path, "\n".join(SPECIALS))), None)
    assert lower is said and "tokenizer_config.json" in decision.reason


@pytest.mark.parametrize("token", ["hello", "Hello"])
@pytest.mark.parametrize("asked", [True, False])
def test_the_casing_asked_for_wins(asked: bool, token: str) -> None:
    assert decide_casing(vocabulary([*SPECIALS, token]), asked) == (
        asked,
        Decision("do_lower_case", asked, "asked for", Origin.ASKED),
    )


def test_the_chinese_fixture_is_lower_cased() -> None:
    assert decide_casing(read_vocab(FOLDER / "vocab.txt"), None)[0] is True


@pytest.mark.parametrize("lower_case, expected", [(True, ["cafe", "[UNK]"]), (False, ["[UNK]", "Q"])])
def test_the_casing_decides_capitals_and_accents(lower_case: bool, expected: list[str]) -> None:
    vocab = vocabulary([*SPECIALS, "cafe", "Q"])
    tokenizer = Tokenizer.from_str(tokenizer_files(vocab, lower_case, 512)["tokenizer.json"].decode())
    assert tokenizer.encode("Café Q", add_special_tokens=False).tokens == expected


# Added tokens


def test_tokens_added_behind_the_vocabulary_keep_their_ids_and_their_meaning(tmp_path: Path) -> None:
    vocab_path = written(tmp_path, "\n".join([*SPECIALS, "e", "1"]))
    added = [{"id": 0, "content": "[PAD]", "special": True}, {"id": 7, "content": "[E1]", "special": True}]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[E1]": 7, "<name>": 8}))
    vocab = read_vocab(vocab_path)
    assert [token.content for token in vocab.added] == ["[E1]", "<name>"]
    tokenizer = Tokenizer.from_str(tokenizer_files(vocab, True, 512)["tokenizer.json"].decode())
    assert tokenizer.encode("[E1] e <name>", add_special_tokens=False).ids == [7, 5, 8]
    decision = decide_added(vocab)
    assert decision is not None and decision.value == 2 and "[E1] <name>" in decision.reason
    assert check_length(vocab, 9) is None
    with pytest.raises(MappingError, match="9 tokens, but the embedding has 8 rows"):
        check_length(vocab, 8)


def test_a_token_of_the_vocabulary_that_is_matched_as_one_piece_stays_so(tmp_path: Path) -> None:
    vocab_path = written(tmp_path, "\n".join([*SPECIALS, "[unused1]", "[", "]"]))
    added = [{"id": 5, "content": "[unused1]", "special": True}]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    vocab = read_vocab(vocab_path)
    tokenizer = Tokenizer.from_str(tokenizer_files(vocab, True, 512)["tokenizer.json"].decode())
    assert tokenizer.encode("[unused1]", add_special_tokens=False).ids == [5]
    assert (len(vocab), tokenizer.get_vocab_size()) == (8, 8)
    decision = decide_added(vocab)
    assert decision is not None and "[unused1]" in decision.reason


def test_no_added_tokens_are_no_decision(tmp_path: Path) -> None:
    assert decide_added(read_vocab(written(tmp_path, "\n".join(SPECIALS)))) is None


def test_added_tokens_that_do_not_follow_the_vocabulary_are_refused(tmp_path: Path) -> None:
    vocab_path = written(tmp_path, "\n".join(SPECIALS))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[E1]": 9}))
    with pytest.raises(MappingError, match=r"adds \[E1\] by the ids \[9\]; expected \[5\]"):
        read_vocab(vocab_path)


def test_what_is_written_has_neither_byte_order_mark_nor_empty_lines_at_its_end(tmp_path: Path) -> None:
    vocab = read_vocab(written(tmp_path, ("\r\n".join(SPECIALS) + "\r\n\r\n").encode("utf-8-sig")))
    assert vocab.tokens == tuple(SPECIALS)
    assert tokenizer_files(vocab, True, 512)["vocab.txt"].decode() == "\n".join(SPECIALS) + "\n"


# Length


def test_a_vocabulary_of_the_embeddings_length_needs_no_word() -> None:
    assert check_length(vocabulary(["a"] * 64), 64) is None


def test_a_shorter_vocabulary_is_fit_for_use_and_reported() -> None:
    decision = check_length(vocabulary(["a"] * 60), 64)
    assert decision == Decision(
        "vocabulary", "60 tokens", "the embedding has 64 rows; the last 4 have no token", Origin.FILE
    )


def test_a_longer_vocabulary_is_of_another_model() -> None:
    with pytest.raises(MappingError, match=r"vocab\.txt: 65 tokens, but the embedding has 64 rows") as caught:
        check_length(vocabulary(["a"] * 65), 64)
    assert "--vocab" in caught.value.hint
