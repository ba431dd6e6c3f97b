"""The tokenizer of a folder with transformers' files gives the ids that transformers 4.40.2 gave there."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from bert_tokenizers import CASES, TEXTS, source
from languages import strings
from tokenizers import Tokenizer as Library
from transformers import AutoTokenizer

from nezha_convert.checkpoint import Origin
from nezha_convert.errors import MappingError
from nezha_convert.parity.oracle.bert_tokenizer import BertTokenizer
from nezha_convert.tokenizer.make import Tokenizer, make_tokenizer

EACH = pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case["name"])
ROWS = {"vocab_size": 70, "max_position_embeddings": 128}


def loaded(made: Tokenizer, folder: Path) -> Any:
    folder.mkdir()
    for name, data in made.files.items():
        (folder / name).write_bytes(data)
    return AutoTokenizer.from_pretrained(folder)


@EACH
def test_the_converted_tokenizer_gives_the_ids_of_the_source_s(case: dict[str, Any], tmp_path: Path) -> None:
    tokenizer = loaded(make_tokenizer(source(tmp_path / "in", case["files"]), ROWS), tmp_path / "out")
    for text, alone, framed in zip(TEXTS, case["alone"], case["framed"], strict=True):
        assert tokenizer(text, add_special_tokens=False).input_ids == alone, text
        assert tokenizer(text).input_ids == framed, text
    assert tokenizer(TEXTS[0], TEXTS[2]).input_ids == case["pair"]
    assert len(tokenizer) == case["size"]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "tokenizer.json" not in case["files"]])
def test_the_reference_gives_the_ids_of_the_source_s(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    reference = BertTokenizer(source(tmp_path, case["files"]), 70)
    for text, alone, framed in zip(TEXTS, case["alone"], case["framed"], strict=True):
        assert reference.tokenize(text) == alone, text
        assert reference.encode(text) == framed, text
    assert reference.encode(TEXTS[0], TEXTS[2]) == case["pair"]
    assert len(reference.ids) == case["size"]


@pytest.mark.parametrize(
    "config",
    [
        {"do_lower_case": True},
        {"do_lower_case": False},
        {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False},
        {"do_basic_tokenize": False},
        {"do_lower_case": True, "additional_special_tokens": ["<E1>"], "cls_token": "<s>"},
    ],
    ids=str,
)
def test_random_strings_in_11_languages_have_the_reference_s_ids(config: dict[str, Any], tmp_path: Path) -> None:
    """The reference gave the ids of transformers 4.40.2 on 3,000 such strings for each of these settings."""
    marks = ("[MASK]", "[mask]", "<E1>", "<s>", " ")
    texts = [f"{text[:3]}{marks[i % 5]}{text[3:]}" for i, text in enumerate(strings(3000)[:1000])]
    characters = {v for text in texts for c in text for v in (c, c.lower(), c.upper())}
    forms = {c for v in characters for form in ("NFC", "NFD") for c in unicodedata.normalize(form, v)}
    letters = sorted(c for c in forms if not c.isspace())
    vocab = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", *letters, *(f"##{c}" for c in letters)])
    path = source(tmp_path, {"tokenizer_config.json": config}, vocab)
    rows = {**ROWS, "vocab_size": 100_000}
    tokenizer = Library.from_str(make_tokenizer(path, rows).files["tokenizer.json"].decode())
    reference = BertTokenizer(path, 100_000)
    for text, made in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert made.ids == reference.encode(text), text


@pytest.mark.parametrize(
    ("case", "text", "ids"),
    [
        ("other special tokens", "abc", [43, 37, 44]),
        ("no Chinese characters alone", "hello 我们 ab", [2, 45, 47, 36, 3]),
        ("accents kept", "aé 我 sing", [2, 5, 42, 38, 23, 46, 3]),
    ],
)
def test_the_ids_that_were_once_wrong_are_right(case: str, text: str, ids: list[int], tmp_path: Path) -> None:
    made = make_tokenizer(source(tmp_path / "in", CASES[case]["files"]), ROWS)
    assert loaded(made, tmp_path / "out")(text).input_ids == ids


def decisions(made: Tokenizer) -> dict[str, Any]:
    return {decision.field: decision for decision in made.decisions}


# What is decided


def test_a_setting_that_changes_ids_is_a_decision(tmp_path: Path) -> None:
    config = {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False, "tokenizer_file": "x"}
    said = decisions(make_tokenizer(source(tmp_path, {"tokenizer_config.json": config}), ROWS))
    assert [said[name].value for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars")] == [
        False,
        True,
        False,
    ]
    assert said["do_lower_case"].origin is Origin.FILE
    assert said["tokenizer"].value == "BertTokenizer"
    assert "tokenizer_config.json" not in said


def test_the_casing_that_is_asked_for_wins_over_the_files(tmp_path: Path) -> None:
    for case in ("cased", "a tokenizer.json that differs from vocab.txt"):
        made = make_tokenizer(source(tmp_path / case, CASES[case]["files"]), ROWS, True)
        assert (decisions(made)["do_lower_case"].value, decisions(made)["do_lower_case"].origin) == (True, Origin.ASKED)
        assert loaded(made, tmp_path / f"{case} out")("HELLO").input_ids == [2, 45, 3]


def test_a_casing_that_a_tokenizer_json_cannot_take_is_refused(tmp_path: Path) -> None:
    first = make_tokenizer(source(tmp_path / "in", CASES["cased"]["files"]), ROWS)
    loaded(first, tmp_path / "out")
    again = make_tokenizer(tmp_path / "out" / "vocab.txt", ROWS, False)
    assert again.files["tokenizer.json"] == first.files["tokenizer.json"]
    assert json.loads(again.files["tokenizer_config.json"])["do_lower_case"] is False
    with pytest.raises(MappingError, match=r"no BertNormalizer, so --lower-case and --cased change nothing"):
        make_tokenizer(tmp_path / "out" / "vocab.txt", ROWS, True)


def test_a_setting_that_nobody_knows_is_named_with_its_value(tmp_path: Path) -> None:
    config = {"do_lower_case": True, "word_splitter": "jieba", "name_or_path": "x", "extra": None}
    said = decisions(make_tokenizer(source(tmp_path, {"tokenizer_config.json": config}), ROWS))
    assert said["tokenizer_config.json"].value == 1
    assert said["tokenizer_config.json"].reason == "not understood and left out: word_splitter = jieba"


def test_the_source_s_tokenizer_json_is_carried_byte_by_byte_and_vocab_txt_follows_it(tmp_path: Path) -> None:
    path = source(tmp_path, CASES["a tokenizer.json that differs from vocab.txt"]["files"])
    made = make_tokenizer(path, ROWS)
    assert made.files["tokenizer.json"] == (tmp_path / "tokenizer.json").read_bytes()
    lines = made.files["vocab.txt"].decode().split("\n")
    assert (lines[38], lines[40]) == ("你", "我")
    assert {file.name for file in made.sources} == {"tokenizer.json", "tokenizer_config.json"}


def test_a_converted_folder_keeps_its_tokenizer_when_it_is_converted_again(tmp_path: Path) -> None:
    first = make_tokenizer(source(tmp_path / "in", CASES["added tokens by id"]["files"]), ROWS)
    loaded(first, tmp_path / "out")
    again = make_tokenizer(tmp_path / "out" / "vocab.txt", ROWS)
    assert again.files["tokenizer.json"] == first.files["tokenizer.json"]
    for name in ("cls_token", "additional_special_tokens"):
        configs = [json.loads(made.files["tokenizer_config.json"]) for made in (first, again)]
        assert configs[0][name] == configs[1][name]


def test_a_mask_for_which_no_row_is_left_is_left_out_and_said(tmp_path: Path) -> None:
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "1", "2"]
    path = source(tmp_path / "in", {"tokenizer_config.json": {"do_lower_case": True}}, "\n".join(lines) + "\n")
    made = make_tokenizer(path, {**ROWS, "vocab_size": 6})
    assert decisions(made)["mask_token"].reason == "[MASK] is no token of the vocabulary"
    assert loaded(made, tmp_path / "out")("1 2").input_ids == [2, 4, 5, 3]
    assert BertTokenizer(path, 6).encode("1 2") == [2, 4, 5, 3]
    with_room = make_tokenizer(path, {**ROWS, "vocab_size": 7})
    assert loaded(with_room, tmp_path / "wide")("1 [MASK]").input_ids == [2, 4, 6, 3]


# What is refused


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"never_split": ["ab"]}, "never_split is \"['ab']\"; expected none"),
        ({"split_special_tokens": True}, "split_special_tokens is 'True'; expected false"),
        ({"tokenizer_class": "RoFormerTokenizer"}, "tokenizer_class is 'RoFormerTokenizer'; expected BertTokenizer"),
        ({"padding_side": "top"}, "padding_side is 'top'; expected right or left"),
        ({"do_lower_case": "yes"}, "do_lower_case is 'yes'; expected true or false"),
        ({"strip_accents": 1}, "strip_accents is '1'; expected true or false"),
        ({"cls_token": 7}, "cls_token is '7'; expected a text"),
        ({"cls_token": None}, "cls_token is None; expected a token of the vocabulary"),
        ({"additional_special_tokens": "<e>"}, "additional_special_tokens is '<e>'; expected a list of tokens"),
        ({"added_tokens_decoder": {"x": {"content": "<e>"}}}, "expected an id and a token"),
    ],
)
def test_a_setting_that_cannot_be_carried_is_refused_with_a_way_out(
    config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(MappingError) as caught:
        make_tokenizer(source(tmp_path, {"tokenizer_config.json": config}), ROWS)
    assert f"{tmp_path / 'tokenizer_config.json'}: " in str(caught.value) and said in str(caught.value)
    assert "--vocab FOLDER/vocab.txt" in caught.value.hint


@pytest.mark.parametrize("fast", ["", "Fast"])
@pytest.mark.parametrize("name", ["BertJapanese", "Tapas", "RoFormer", "Funnel"])
def test_a_class_with_rules_of_its_own_is_refused_beside_a_tokenizer_json_too(
    name: str, fast: str, tmp_path: Path
) -> None:
    """It does not take that file, or not as it is; a class that does is no obstacle."""
    named = f"{name}Tokenizer{fast}"
    files = CASES["a tokenizer.json that differs from vocab.txt"]["files"]
    config = files.get("tokenizer_config.json", {})
    for known in ("BertTokenizer", "ElectraTokenizer"):
        kept = source(tmp_path / known, files | {"tokenizer_config.json": config | {"tokenizer_class": known + fast}})
        assert "tokenizer.json" in make_tokenizer(kept, ROWS).files
    path = source(tmp_path / "in", files | {"tokenizer_config.json": config | {"tokenizer_class": named}})
    with pytest.raises(MappingError, match=f"tokenizer_class is '{named}'; expected BertTokenizer") as caught:
        make_tokenizer(path, ROWS)
    assert "--vocab FOLDER/vocab.txt" in caught.value.hint


def test_the_file_that_says_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match=r"special_tokens_map\.json: sep_token is '7'; expected a text"):
        make_tokenizer(source(tmp_path, {"special_tokens_map.json": {"sep_token": 7}}), ROWS)


def test_never_split_of_nothing_or_of_special_tokens_is_no_obstacle(tmp_path: Path) -> None:
    for number, kept in enumerate((None, [], ["[MASK]", "[CLS]"])):
        made = make_tokenizer(source(tmp_path / str(number), {"tokenizer_config.json": {"never_split": kept}}), ROWS)
        assert "never_split" not in decisions(made) and "tokenizer.json" in made.files


def test_added_tokens_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match=r"1 added tokens are in vocab\.txt by other ids"):
        make_tokenizer(source(tmp_path, {"added_tokens.json": {"hello": 7}}), ROWS)
    with pytest.raises(MappingError, match=r"adds <e> by the ids \[99\]; expected \[60\]"):
        make_tokenizer(source(tmp_path / "b", {"added_tokens.json": {"<e>": 99}}), ROWS)
    with pytest.raises(MappingError, match="61 tokens, but the embedding has 60 rows"):
        make_tokenizer(source(tmp_path / "c", {"added_tokens.json": {"<e>": 60}}), {**ROWS, "vocab_size": 60})


def test_a_tokenizer_json_that_cannot_encode_a_text_is_refused(tmp_path: Path) -> None:
    whole = json.loads(json.dumps(CASES["a tokenizer.json and another casing"]["files"]["tokenizer.json"]))
    whole["model"]["unk_token"] = "unknown"
    with pytest.raises(MappingError, match=r"cannot read it .*Missing"):
        make_tokenizer(source(tmp_path, {"tokenizer.json": whole}), ROWS)


def test_a_tokenizer_json_that_the_library_cannot_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="the tokenizers library cannot read it") as caught:
        make_tokenizer(source(tmp_path, {"tokenizer.json": {"model": {"type": "Other"}}}), ROWS)
    assert "Move it away" in caught.value.hint


def test_a_token_of_an_enormous_id_is_refused_at_once(tmp_path: Path) -> None:
    """The library would write a line for each number up to it: 2,785 bytes took a second, others would never end."""
    case = next(case for case in CASES.values() if "tokenizer.json" in case["files"])
    folder = source(tmp_path / "in", case["files"])
    document = json.loads((folder.parent / "tokenizer.json").read_text("utf-8"))
    document["model"]["vocab"]["enormous"] = 4_294_967_290
    (folder.parent / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    with pytest.raises(MappingError, match="have ids up to 4,294,967,290"):
        make_tokenizer(folder, ROWS)


def test_two_tokens_of_one_id_are_refused(tmp_path: Path) -> None:
    """The library keeps both and writes one of them, another one each time."""
    case = next(case for case in CASES.values() if "tokenizer.json" in case["files"])
    folder = source(tmp_path / "in", case["files"])
    document = json.loads((folder.parent / "tokenizer.json").read_text("utf-8"))
    document["model"]["vocab"]["double"] = document["model"]["vocab"]["[UNK]"]
    (folder.parent / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    with pytest.raises(MappingError, match=r"'\[UNK\]' and 'double' are both token \d+"):
        make_tokenizer(folder, ROWS)
