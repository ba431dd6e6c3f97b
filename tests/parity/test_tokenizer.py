"""The comparison of tokenizers: right ones pass, and a mistake in the converter's reading fails it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bert_tokenizers import CASES, TEXTS, source
from goldens import FIXTURES

import nezha_convert
from nezha_convert.commands import convert as converting
from nezha_convert.folder.record import ConvertedFolder
from nezha_convert.parity.converted import load_tokenizer
from nezha_convert.parity.source import read_source
from nezha_convert.parity.tokenizer import ComparedTokenizer, compare_tokenizers
from nezha_convert.tokenizer import make, own, settings, wordpiece

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SPACES = "\n".join([*SPECIALS, " ab", "我\t", "们", "hello ", "##ing", "\u2028", "\u3000", "们 "]) + "\n"


def checkpoint(name: str, tmp_path: Path, files: dict[str, Any], vocab: str | None = None) -> Path:
    """The fixture `name` with 64 words, and a tokenizer's files."""
    folder = tmp_path / "in"
    shutil.copytree(FIXTURES / name, folder)
    source(folder, files, vocab)
    return folder


def transformers_source(tmp_path: Path, case: str, vocab: str | None = None) -> Path:
    return checkpoint("transformers-4.40.2-masked-lm", tmp_path, CASES[case]["files"], vocab)


def compared(folder: Path, output: Path, texts: list[str] | None = None, **options: Any) -> ComparedTokenizer:
    nezha_convert.convert(folder, output, **options)
    return again(folder, output, texts)


def again(folder: Path, output: Path, texts: list[str] | None = None) -> ComparedTokenizer:
    converted = ConvertedFolder(output)
    read = read_source(folder, converted, None, None)
    return compare_tokenizers(converted, load_tokenizer(output), read, texts or [], None)


def differs(result: ComparedTokenizer) -> bool:
    assert result.parity
    return bool(result.parity.differing)


# Sources with transformers' files


@pytest.mark.parametrize("case", CASES)
def test_a_source_s_own_tokenizer_passes(case: str, tmp_path: Path) -> None:
    result = compared(transformers_source(tmp_path, case), tmp_path / "out", TEXTS)
    assert result.parity and not result.parity.differing, result.parity.differing[:2]
    assert not result.casing and not result.warnings
    own_file = "tokenizer.json" in CASES[case]["files"]
    assert ("tokenizer.json" if own_file else "BertTokenizer") in result.parity.reference


def test_tokens_that_a_trainer_added_are_counted_with_the_others(tmp_path: Path) -> None:
    folder = transformers_source(tmp_path, "tokens added by a Trainer")
    result = compared(folder, tmp_path / "out")
    assert not differs(result)
    assert len(load_tokenizer(tmp_path / "out")) == 62


def dropped(change: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """A converter that reads other settings than the files have."""
    return lambda patch: patch.setattr(make, "read_settings", lambda folder: change(settings.read_settings(folder)))


def swapped(lines: tuple[str, ...]) -> tuple[str, ...]:
    at, to = lines.index("ab"), lines.index("ing") if "ing" in lines else lines.index("hello")
    changed = list(lines)
    changed[at], changed[to] = changed[to], changed[at]
    return tuple(changed)


def two_tokens_swapped(patch: pytest.MonkeyPatch) -> None:
    for module in (own, wordpiece):
        patch.setattr(module, "read_lines", lambda path, read=wordpiece.read_lines: swapped(read(path)))


def flags(**values: bool | None) -> Callable[[pytest.MonkeyPatch], None]:
    return dropped(lambda found: replace(found, flags={**found.flags, **values}))


def no_names(found: Any) -> Any:
    return replace(found, specials={n: wordpiece.AddedToken(t, True) for n, t in wordpiece.SPECIAL_TOKENS.items()})


@pytest.mark.parametrize(
    ("case", "mutation"),
    [
        ("cased", flags(do_lower_case=True)),
        ("nothing but the defaults", flags(do_lower_case=False)),
        ("no Chinese characters alone", flags(tokenize_chinese_chars=True)),
        ("accents kept", flags(strip_accents=None)),
        ("cased without accents", flags(strip_accents=None)),
        ("words cut at spaces alone", flags(do_basic_tokenize=True)),
        ("other special tokens", dropped(no_names)),
        ("a map of special tokens", dropped(no_names)),
        ("added tokens by id", dropped(lambda found: replace(found, added={}))),
        ("tokens added by a Trainer", dropped(lambda found: replace(found, added={}))),
        ("more special tokens", dropped(lambda found: replace(found, additional=()))),
        ("nothing but the defaults", dropped(lambda found: None)),
        ("nothing but the defaults", two_tokens_swapped),
        ("nothing but the defaults", lambda patch: patch.setattr(own, "LONGEST_WORD", 200)),
        ("a tokenizer.json that differs from vocab.txt", dropped(lambda found: replace(found, whole=None))),
        ("a tokenizer.json and another casing", flags(do_lower_case=False)),
        ("a tokenizer.json and another casing", flags(strip_accents=None)),
        ("a tokenizer.json and other special tokens", dropped(no_names)),
    ],
)
def test_a_setting_that_the_converter_drops_fails(
    case: str, mutation: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = transformers_source(tmp_path, case)
    mutation(monkeypatch)
    assert differs(compared(folder, tmp_path / "out"))


def test_a_carried_tokenizer_json_that_was_changed_fails(tmp_path: Path) -> None:
    folder = transformers_source(tmp_path, "a tokenizer.json that differs from vocab.txt")
    assert not differs(compared(folder, tmp_path / "out"))
    path = tmp_path / "out" / "tokenizer.json"
    changed = json.loads(path.read_text("utf-8"))
    ids = changed["model"]["vocab"]
    ids["我"], ids["你"] = ids["你"], ids["我"]
    path.write_text(json.dumps(changed), "utf-8")
    assert differs(again(folder, tmp_path / "out"))


def test_a_tokenizer_json_without_vocab_txt_is_carried_and_compared(tmp_path: Path) -> None:
    case = "a tokenizer.json that differs from vocab.txt"
    folder = transformers_source(tmp_path, case)
    (folder / "vocab.txt").unlink()
    assert not differs(compared(folder, tmp_path / "out", TEXTS))
    tokenizer = load_tokenizer(tmp_path / "out")
    assert [tokenizer(text).input_ids for text in TEXTS] == CASES[case]["framed"]
    assert (tmp_path / "out" / "vocab.txt").is_file()


# The vocabulary as the program reads it


def test_huawei_s_programs_strip_the_lines_of_a_vocabulary(tmp_path: Path) -> None:
    folder = checkpoint("huawei-tf-pretraining", tmp_path, {}, SPACES)
    assert not differs(compared(folder, tmp_path / "out", ["hello 我们 ab"]))
    tokenizer = load_tokenizer(tmp_path / "out")
    assert tokenizer("hello 我们 ab", add_special_tokens=False).input_ids == [8, 6, 12, 5]  # the later of two lines
    record = ConvertedFolder(tmp_path / "out")
    assert record.decision("repeated_tokens") == 2  # 们, and one of the two that are nothing but a space


def test_transformers_keeps_the_spaces_of_a_line(tmp_path: Path) -> None:
    files = {"tokenizer_config.json": {"do_lower_case": True}}
    folder = checkpoint("transformers-4.40.2-masked-lm", tmp_path, files, SPACES)
    assert not differs(compared(folder, tmp_path / "out", ["hello 我们 ab"]))
    tokenizer = load_tokenizer(tmp_path / "out")
    assert tokenizer("hello 我们 ab", add_special_tokens=False).input_ids == [1, 1, 7, 1]


def test_a_strip_that_is_left_out_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint("huawei-tf-pretraining", tmp_path, {}, SPACES)
    monkeypatch.setattr(converting, "_KEEPS_SPACES", ("huawei-tf",))
    assert differs(compared(folder, tmp_path / "out"))


def test_two_tokens_swapped_in_huawei_s_vocabulary_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint("huawei-torch-pretraining", tmp_path, {})
    two_tokens_swapped(monkeypatch)
    assert differs(compared(folder, tmp_path / "out"))


# Vocabularies of numbers


@pytest.mark.parametrize("first", [0, 10])
def test_a_vocabulary_of_numbers_is_wordpiece(first: int, tmp_path: Path) -> None:
    vocab = "\n".join([*SPECIALS, *map(str, range(first, first + 59))])
    folder = checkpoint("huawei-torch-pretraining", tmp_path, {}, vocab)
    assert not differs(compared(folder, tmp_path / "out", ["10 12 58 9999"]))
    assert load_tokenizer(tmp_path / "out")("10 58").input_ids == [2, 15 - first, 63 - first, 3]


def test_numbers_taken_for_bytes_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocab = "\n".join([*SPECIALS, *map(str, range(10, 69))])
    folder = checkpoint("huawei-torch-pretraining", tmp_path, {}, vocab)
    for module in (make, wordpiece):
        monkeypatch.setattr(module, "is_byte_bpe", lambda tokens: True)
    assert differs(compared(folder, tmp_path / "out"))


def test_a_vocabulary_without_mask_is_converted_and_it_is_said(tmp_path: Path) -> None:
    vocab = "\n".join([*SPECIALS[:4], *map(str, range(60))])
    folder = checkpoint("huawei-torch-classifier", tmp_path, {}, vocab)
    assert not differs(compared(folder, tmp_path / "out"))
    record = ConvertedFolder(tmp_path / "out").record
    (said,) = [d["reason"] for d in record["decisions"] if d["field"] == "mask_token"]
    assert said == "the vocabulary has no [MASK], so the tokenizer has no mask token"
    assert load_tokenizer(tmp_path / "out").mask_token is None


@pytest.mark.parametrize("kind", ["wordpiece", "byte-bpe"])
def test_the_kind_that_is_asked_for_wins_and_verify_knows_it(kind: str, tmp_path: Path) -> None:
    pieces = [f"{prefix}{byte:02X}" for byte in range(0x41, 0x5B) for prefix in ("", "##")]
    plain = [f"{byte:02X}" for byte in range(0x30, 0x3A)]
    vocab = "\n".join([*SPECIALS, *(plain if kind == "byte-bpe" else pieces)])
    folder = checkpoint("huawei-torch-pretraining", tmp_path, {}, vocab)
    result = compared(folder, tmp_path / "out", ["41 AB 5A", "123"], tokenizer=kind)
    assert not differs(result)
    assert f"the tokenizer is {kind}, as the conversion was told" in result.warnings
    wanted = [2, 5, 3] if kind == "wordpiece" else [2, 6, 1, 3]
    found = load_tokenizer(tmp_path / "out")("41" if kind == "wordpiece" else "1 A").input_ids
    assert found == wanted


# Words that no text becomes


def test_whole_words_that_are_never_produced_are_counted_and_shown(tmp_path: Path) -> None:
    vocab = "\n".join([*SPECIALS, "北", "京", "大", "学", "北京", "北京大学", "##京", "abc"])
    folder = checkpoint("huawei-torch-pretraining", tmp_path, {}, vocab)
    result = compared(folder, tmp_path / "out")
    assert not differs(result)
    (warning,) = result.warnings
    assert warning.startswith("2 words such as 北京大学 are tokens that the tokenizer never produces")
    (said,) = [d for d in ConvertedFolder(tmp_path / "out").record["decisions"] if d["field"] == "words_never_produced"]
    assert said["value"] == 2
    assert said["reason"].startswith("2 words such as 北京大学 are never produced: WoNEZHA cuts words before")
