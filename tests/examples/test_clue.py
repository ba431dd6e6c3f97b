"""CLUE's data sets in their published forms: the documented command of each reads, trains, measures and predicts."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import answer
import choose
import classify
import clue
import numpy as np
import pytest
import tag
from datafiles import Row
from goldens import FIXTURES
from submission import submission

from nezha_convert import convert
from nezha_convert.errors import UsageError

DATA = FIXTURES / "training"
SCRIPTS = {"classify": classify, "tag": tag, "answer": answer, "choose": choose}
GOOD, BAD = "这家的房间很好。", "这家的房间很差。"
PERSON = {"text": "王明在上海大学。", "label": {"name": {"王明": [[0, 1]]}, "organization": {"上海大学": [[3, 6]]}}}


def rows(*pairs) -> list[dict]:
    """A row of each pair of columns in turn, four of each, with ids."""
    return [{"id": number, **pairs[number % len(pairs)]} for number in range(4 * len(pairs))]


def squad(name: str) -> dict:
    asked = {"question": "谁在？", "id": f"{name}_0_QUERY_0", "answers": [{"text": "王明", "answer_start": 0}]}
    paragraphs = [{"id": f"{name}_0", "context": "王明在上海大学。", "qas": [asked]}]
    return {"version": "v1.0", "data": [{"paragraphs": paragraphs, "id": f"{name}_0", "title": ""}]}


def wsc(label: str) -> dict:
    target = {"span1_index": 0, "span1_text": "王明", "span2_index": 5, "span2_text": "他"}
    return {"target": target, "text": "王明很好，他在。", "label": label, "idx": 7}


C3_ROW = [
    ["王明在上海。"],
    [{"question": "王明在哪里？", "choice": ["上海", "北京", "广州"], "answer": "上海", "id": 0}],
    "m1-1",
]
IDIOMS = ["很好很好", "很差很差", *(f"今天{c}的" for c in "书店菜家我你他她")]

PUBLISHED = {
    "TNEWS": rows(
        {"label": "108", "label_desc": "news_edu", "sentence": GOOD, "keywords": "房间"},
        {"label": "104", "label_desc": "news_finance", "sentence": BAD, "keywords": ""},
    ),
    "IFLYTEK": rows(
        {"label": "11", "label_des": "薅羊毛", "sentence": GOOD}, {"label": "2", "label_des": "WIFI", "sentence": BAD}
    ),
    "AFQMC": rows(
        {"sentence1": GOOD, "sentence2": GOOD, "label": "1"}, {"sentence1": GOOD, "sentence2": BAD, "label": "0"}
    ),
    "CMNLI": rows(
        *({"sentence1": GOOD, "sentence2": BAD, "label": label} for label in ("neutral", "entailment", "contradiction"))
    ),
    "OCNLI": rows(
        {"level": "medium", "sentence1": GOOD, "sentence2": GOOD, "label": "entailment", "label0": "entailment"},
        {"level": "medium", "sentence1": GOOD, "sentence2": BAD, "label": "contradiction", "label0": "neutral"},
        {"level": "hard", "sentence1": BAD, "sentence2": BAD, "label": "-", "label0": "neutral"},
    ),
    "CSL": rows(
        {"abst": GOOD, "keyword": ["房间", "很好"], "label": "1"}, {"abst": BAD, "keyword": ["大学"], "label": "0"}
    ),
    "CLUEWSC2020": [wsc("true"), wsc("false")] * 4,
    "CLUENER": rows(PERSON, {"text": "今天很好。", "label": {}}),
    "CMRC2018": squad("TRAIN"),
    "C3": [C3_ROW] * 4,
    "ChID": [{"groupId": 0, "candidates": IDIOMS, "content": [f"今天#idiom{n:06}#。" for n in range(3)]}],
}
"""A few rows of each data set, with the columns that its files have."""

COMMANDS = dict(
    re.findall(
        r"^\| (\w+)[^|]*\| `python examples/(\w+\.py .*?)`",
        (Path(__file__).parents[2] / "docs/training.md").read_text("utf-8").split("#### CLUE\n")[1].split("\n#### ")[0],
        re.MULTILINE,
    )
)
QUICK = " --max_steps 1 --disable_tqdm true --save_strategy no --eval_strategy no --dataloader_pin_memory false"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The folder of the commands, with the model and every data set's three files."""
    home = tmp_path_factory.mktemp("clue")
    convert(FIXTURES / "huawei-tf-pretraining", home / "nezha-base", vocab=DATA / "vocab.txt")
    for name, content in PUBLISHED.items():
        (home / name).mkdir()
        for split in ("train", "dev", "test"):
            unknown = without_answers(name, content) if split == "test" else content
            whole = name in ("CMRC2018", "C3")
            lines = [unknown] if whole else unknown
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            (home / name / f"{split}.json").write_text(text, "utf-8")
        if name == "ChID":
            answers = json.dumps({f"#idiom{n:06}#": n for n in range(3)})
            for split in ("train", "dev"):
                (home / name / f"{split}_answer.json").write_text(answers, "utf-8")
    return home


def without_answers(name, content):
    """As the test files are published."""
    content = json.loads(json.dumps(content, ensure_ascii=False))
    if name == "CMRC2018":
        content["data"][0]["paragraphs"][0]["qas"][0].pop("answers")
    elif name == "C3":
        for item in content:
            item[1][0].pop("answer")
    else:
        content = [{key: value for key, value in row.items() if key not in ("label", "label0")} for row in content]
        content = [{"id": number, **row} for number, row in enumerate(content)] if name == "CLUEWSC2020" else content
    return content


def test_the_documents_have_a_command_for_each_data_set():
    assert set(COMMANDS) == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_data_set_is_read_measured_and_predicted_in_clues_form(home, name, monkeypatch, capsys):
    monkeypatch.chdir(home)
    script, options = COMMANDS[name].split(".py ", 1)
    measured = SCRIPTS[script].train(shlex.split(options + QUICK))
    metric = {"tag": "dev_f1", "answer": "dev_exact_match"}.get(script, "dev_accuracy")
    assert 0 <= measured[metric] <= 100
    output = Path(options.split()[options.split().index("--output") + 1])
    text = (output / "submission.json").read_text("utf-8")
    if name in ("CMRC2018", "ChID"):
        found = json.loads(text)
        assert list(found) == (["TRAIN_0_QUERY_0"] if name == "CMRC2018" else [f"#idiom{n:06}#" for n in range(3)])
        assert all(isinstance(value, str if name == "CMRC2018" else int) for value in found.values())
        return
    found = [json.loads(line) for line in text.splitlines()]
    assert all(set(row) == {"id", "label"} for row in found)
    test = without_answers(name, PUBLISHED[name])
    assert [row["id"] for row in found] == ([0] * 4 if name == "C3" else [row["id"] for row in test])
    if name == "C3":
        assert {row["label"] for row in found} <= {0, 1, 2}
    elif name == "CLUENER":
        assert all(isinstance(row["label"], dict) for row in found)
    else:
        assert {row["label"] for row in found} <= {row["label"] for row in PUBLISHED[name]} - {"-"}
    if name == "OCNLI":
        assert "4 of 12 rows of train have the label - and are left out" in capsys.readouterr().err


def test_columns_are_made_of_what_clue_has():
    assert clue.csl(PUBLISHED["CSL"][0])["pair"] == "房间；很好"
    assert clue.wsc(wsc("true"))["text"] == "_王明_很好，[他]在。"
    made = clue.cluener(PERSON)
    assert made["ner_tags"] == ["B-name", "I-name", "O", "B-organization", *["I-organization"] * 3, "O"]
    (back,) = submission([{"id": 3, "tokens": made["tokens"], "tags": made["ner_tags"]}])
    assert back == {"id": 3, "label": PERSON["label"]}
    assert submission([{"label": "1"}]) is None
    long = Row("here", {"candidates": IDIOMS, "content": ["前" * 300 + "#idiom000007#后#idiom000008#"]})
    first, second = clue.chid(long, Path("nowhere.json"))
    assert first.fields["context"] == "前" * 100 + "[MASK]后" and second.fields["context"] == "前" * 99 + "后[MASK]"
    with pytest.raises(UsageError, match=r"here: expected the form of CLUE's wsc, found KeyError"):
        clue.columns(Row("here", {"text": "", "target": {}}), "csl", "wsc")


def test_several_labels_and_numbers_are_learnt_and_predicted(home, monkeypatch):
    monkeypatch.chdir(home)
    several = [
        {"text": GOOD, "label": ["好", "房"]},
        {"text": BAD, "label": ["房"]},
        {"text": "今天。", "label": []},
    ] * 8
    numbers = [{"text": GOOD, "pair": GOOD, "label": 1.0}, {"text": GOOD, "pair": BAD, "label": 0.0}] * 8
    for name, content in (("several", several), ("numbers", numbers)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        Path(f"{name}.jsonl").write_text(lines, "utf-8")
    learn = "--learning_rate 5e-3 --max_steps 60 --per_device_train_batch_size 8 --disable_tqdm true"
    learn += " --save_strategy no --eval_strategy no"
    files = "--model nezha-base --train {0}.jsonl --test {0}.jsonl --output {0}"
    measured = classify.train(shlex.split(f"{files.format('several')} {learn}"))
    assert measured["test_micro_f1"] == measured["test_accuracy"] == 1
    predicted = [json.loads(line) for line in Path("several/predictions.jsonl").read_text("utf-8").splitlines()]
    assert [row["label"] for row in predicted] == [sorted(row["label"], key="好房".find) for row in several]
    alone = classify.train(shlex.split("--model several --test several.jsonl --output again --disable_tqdm true"))
    assert alone["test_micro_f1"] == 1

    measured = classify.train(shlex.split(f"{files.format('numbers')} --regression {learn}"))
    assert measured["test_pearson"] > 0.95 and measured["test_mse"] < 0.1
    predicted = [
        json.loads(line)["label"] for line in Path("numbers/predictions.jsonl").read_text("utf-8").splitlines()
    ]
    assert np.abs(np.array(predicted) - [row["label"] for row in numbers]).max() < 0.5
    with pytest.raises(UsageError, match="expected a number, for --regression, found '好'"):
        row = json.dumps({"text": GOOD, "label": "好"}, ensure_ascii=False)
        Path("words.jsonl").write_text(row + "\n", "utf-8")
        classify.train(shlex.split(f"{files.format('words')} --regression {learn}"))
