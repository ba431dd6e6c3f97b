"""The training scripts as a user runs them: the README's commands, and what they say of wrong data."""

from __future__ import annotations

import json
import os
import re
import shlex
from importlib import import_module
from pathlib import Path

import answer
import choose
import classify
import cmrc
import datafiles
import datasets
import numpy as np
import pytest
import tag
import training
import transformers
import warm_python
from goldens import FIXTURES
from hypothesis import given, settings
from hypothesis import strategies as st

from nezha_convert import convert
from nezha_convert.cli.app import main
from nezha_convert.errors import UsageError

ROOT = Path(__file__).parents[2]
DATA = FIXTURES / "training"
SCRIPTS = {"classify": classify, "tag": tag, "answer": answer, "choose": choose}

SETS = ("ChnSentiCorp", "LCQMC", "XNLI", "PeoplesDaily", "CMRC2018", "C3")
LEARN = re.search(r"`\.\.\. (--learning_rate \S+ --num_train_epochs .*?)`", (ROOT / "README.md").read_text("utf-8"))[1]
"""What README adds for a model of 2 layers with 32 units and the invented data; the defaults are for whole models."""

ALL = "--learning_rate 5e-3 --disable_tqdm true --save_strategy no --eval_strategy no"

COMMANDS = re.findall(
    r"^\|.*`python examples/(\w+)\.py (.*?)` \|", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE
)
COMMANDS = [(script, options) for script, options in COMMANDS if script in SCRIPTS]

MEASURES = {"classify": ("accuracy", 1), "tag": ("f1", 1), "answer": ("f1", 100), "choose": ("accuracy", 1)}
"""The metric of each script, and what is perfect."""


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A converted tiny checkpoint with the vocabulary of the fixtures' data."""
    folder = tmp_path_factory.mktemp("model") / "nezha-base"
    convert(FIXTURES / "huawei-tf-pretraining", folder, vocab=DATA / "vocab.txt")
    return folder


@pytest.fixture
def home(base, tmp_path, monkeypatch) -> Path:
    """The folder that the README's commands are for: the model and the data sets by their names."""
    for path in (base, *(path for path in DATA.iterdir() if path.is_dir())):
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(script: str, options: str) -> dict[str, float]:
    return SCRIPTS[script].train(shlex.split(options))


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def fails(script: str, options: str) -> str:
    """The whole message, on one line."""
    with pytest.raises(UsageError) as caught:
        run(script, options)
    assert caught.value.hint
    return f"{caught.value} | {caught.value.hint}"


def test_the_readme_has_a_command_for_each_script_and_each_data_set():
    assert {script for script, _ in COMMANDS} == set(SCRIPTS)
    assert {name for _, options in COMMANDS for name in SETS if f"{name}/" in options} == set(SETS)


@pytest.mark.parametrize(("script", "options"), COMMANDS, ids=[options.split()[-1] for _, options in COMMANDS])
def test_each_command_of_the_readme_learns_its_task_and_the_model_loads(home, script, options):
    (name,) = (name for name in SETS if f"{name}/" in options)
    train = Path(re.search(r"--train (\S+)", options)[1])
    metrics = run(script, f"{options} --test {train} {ALL} {LEARN}")
    measure, perfect = MEASURES[script]
    assert metrics[f"test_{measure}"] > 0.95 * perfect  # of the training data
    assert metrics[f"dev_{measure}"] > 0.95 * perfect

    output = home / options.split()[-1]
    assert json.loads((output / "metrics.json").read_text()) == metrics
    assert json.loads((output / "trainer_state.json").read_text())["log_history"]
    record = json.loads((output / "training.json").read_text())
    assert record["metrics"]["validation"][measure] == metrics[f"dev_{measure}"]
    assert record["data"][0]["rows"] == {"LCQMC": 120, "PeoplesDaily": 60, "CMRC2018": 80}.get(name, 120)
    check = {"classify": reload_classifier, "tag": reload_tagger, "answer": reload_reader, "choose": reload_chooser}
    check[script](output, lines_of(output / "predictions.jsonl"))


def reload_classifier(output: Path, predicted: list[dict]) -> None:
    pipe = transformers.pipeline("text-classification", str(output), trust_remote_code=True)
    for row in predicted[:10]:
        (found,) = pipe([{"text": row["text"], "text_pair": row.get("pair")}])
        assert found["label"] == row["label"] and found["score"] == pytest.approx(row["score"], abs=1e-5)


def reload_tagger(output: Path, predicted: list[dict]) -> None:
    pipe = transformers.pipeline("token-classification", str(output), ignore_labels=[])
    for row in predicted[:10]:
        assert [token["entity"] for token in pipe("".join(row["tokens"]))] == row["tags"]
    pipe = transformers.pipeline("token-classification", str(output), aggregation_strategy="simple")
    lengths = set()
    for row in predicted[:10]:
        entities: list[list[str]] = []
        for character, label in zip(row["tokens"], row["tags"], strict=True):
            if label.startswith("B-"):
                entities.append([label[2:], ""])
            if label != "O":
                entities[-1][1] += character
        assert [[e["entity_group"], e["word"].replace(" ", "")] for e in pipe("".join(row["tokens"]))] == entities
        lengths |= {len(text) for _, text in entities}
    assert lengths & {2, 3, 4}, "entities of several characters are whole"


def reload_reader(output: Path, predicted: list[dict]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(output).eval()
    rows = [row.fields for row in answer.squad(DATA / "CMRC2018" / "train.json")]
    for row, found in list(zip(rows, predicted, strict=True))[:10]:
        inputs = tokenizer(row["question"], row["context"], return_tensors="pt", return_offsets_mapping=True)
        offsets = inputs.pop("offset_mapping")[0].numpy()
        offsets[[part != 1 for part in inputs.sequence_ids(0)]] = 0
        scores = model(**inputs)
        first, last = answer.best_span(
            offsets, scores.start_logits[0].detach().numpy(), scores.end_logits[0].detach().numpy(), 30
        )[1]
        assert row["context"][first:last] == found["answer"] and row["id"] == found["id"]


def reload_chooser(output: Path, predicted: list[dict]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    model = transformers.AutoModelForMultipleChoice.from_pretrained(output).eval()
    rows = [row.fields for row in choose.c3(DATA / "C3" / "train.json")]
    assert {len(row["choice"]) for row in rows} == {2, 3, 4}
    for row, found in list(zip(rows, predicted, strict=True))[:10]:
        asked = [row["question"] + choice for choice in row["choice"]]
        inputs = tokenizer(["\n".join(row["context"])] * len(asked), asked, return_tensors="pt", padding=True)
        scores = model(**{name: tensor[None] for name, tensor in inputs.items()}).logits
        assert row["choice"][scores.argmax()] == found["answer"] == row["answer"]


def test_convert_train_and_push_lead_on_by_their_own_messages(home, capsys):
    """In README's order, without the proof; then each message's next command, with the source in place of SOURCE."""

    def tool(command: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(command))
        return ended.value.code, capsys.readouterr().err

    source = FIXTURES / "huawei-tf-pretraining"
    (home / "nezha-base").unlink()
    assert tool(f"convert {source} nezha-base --vocab {DATA / 'vocab.txt'}")[0] == 0
    run("classify", f"--model nezha-base --train ChnSentiCorp/train.tsv --output sentiment --max_steps 1 {ALL}")
    said = capsys.readouterr().err
    assert "refuse the result, since of nezha-base its parity with the original was never measured" in said
    assert "would refuse sentiment: trained from nezha-base: its parity" in said
    (start, end) = re.findall(r"^next: (.*?)(?: proves .*)?$", said, re.MULTILINE)
    push = "push sentiment owner/name --license apache-2.0 --dry-run"
    code, told = tool(push)
    assert code == 6 and start in told and start == end == "nezha-convert verify SOURCE nezha-base"
    verify = start.removeprefix("nezha-convert ").replace("SOURCE", str(source))
    assert tool(f"{verify} --vocab {DATA / 'vocab.txt'}")[0] == 0
    assert tool(push)[0] == 0 and tool("record sentiment")[0] == 0

    run("classify", f"--model nezha-base --train ChnSentiCorp/train.tsv --output again --max_steps 1 {ALL}")
    (push,) = re.findall(r"^next: nezha-convert (.*)$", capsys.readouterr().err, re.MULTILINE)
    push = push.replace("OWNER/NAME", "owner/name").replace("ID", "apache-2.0")
    assert tool(f"{push} --dry-run")[0] == 0


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory) -> Path:
    """A model of each script, hardly trained."""
    folder = tmp_path_factory.mktemp("trained")
    for script, train, more in (
        ("classify", "ChnSentiCorp/train.tsv", ""),
        ("tag", "PeoplesDaily/train.txt", ""),
        ("answer", "CMRC2018/train.json", "--max_length 64 --doc_stride 16 --max_question_length 16"),
        ("choose", "C3/train.json", ""),
    ):
        run(script, f"--model {base} --train {DATA / train} --output {folder / script} --max_steps 2 {more} {ALL}")
    return folder


@pytest.mark.parametrize("letters", ["IES", "MES"], ids=["BIOES", "BMES"])
def test_other_schemes_become_bio_or_are_kept(base, tmp_path, letters):
    """The same sentences in BIO, whose model finds whole entities, give the same tags."""
    inside, end, single = letters
    lines = (DATA / "PeoplesDaily" / "train.txt").read_text("utf-8").split("\n")
    other = []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        character, _, name = line.partition("\t")
        last = after.partition("\t")[2][:2] != "I-"
        letter = {"B": single if last else "B", "I": end if last else inside}.get(name[:1], name[:1])
        other.append(f"{character} {letter}{name[1:]}".rstrip())
    (tmp_path / "other.txt").write_text("\n".join(other), "utf-8")
    original, changed = (list(tag.bio(path)) for path in (DATA / "PeoplesDaily" / "train.txt", tmp_path / "other.txt"))
    assert {t[0] for row in changed for t in row.fields["ner_tags"]} - {"O", "B"} <= set(letters)
    arguments = tag.Arguments(model="")
    pick = [[row["tags"] for row in tag.sentences(rows, arguments)] for rows in (original, changed)]
    assert pick[0] == pick[1]
    alone = datafiles.Row("", {"tokens": ["王"], "ner_tags": [f"{single}-PER"]})
    assert tag.sentences([alone], arguments)[0]["tags"] == ["B-PER"]
    command = f"--model {base} --train {tmp_path / 'other.txt'} --output {tmp_path / 'out'} --max_steps 1 {ALL}"
    run("tag", f"{command} --scheme own")
    kept = transformers.AutoConfig.from_pretrained(tmp_path / "out").id2label.values()
    assert {f"{letter}-PER" for letter in letters[1:] if letter != single} <= set(kept)


def test_windows_of_long_sentences_are_tagged_whole(trained, tmp_path):
    sentence = "王明在上海大学工作。" * 5
    (tmp_path / "test.txt").write_text("".join(f"{c} O\n" for c in [*sentence, "\u200b", "明"]), "utf-8")
    for length in (8, 128):
        options = (
            f"--model {trained / 'tag'} --test {tmp_path / 'test.txt'} --output {tmp_path} --max_length {length} {ALL}"
        )
        assert run("tag", options)["test_accuracy"] >= 0
        (row,) = lines_of(tmp_path / "predictions.jsonl")
        assert len(row["tags"]) == len(sentence) + 2
        assert row["tags"][-2] == "O"  # the tokenizer drops the character


@pytest.mark.parametrize(("better", "expected"), [(1, "。"), (-1, "第")])
def test_windows_of_a_long_text_all_have_their_say(trained, tmp_path, monkeypatch, better, expected):
    """Where the score is the place in the text, the answer is its very end, or with the sign turned its start."""

    def best_span(offsets, start, end, longest):
        first, last = max((span for span in offsets if span[1]), key=lambda span: better * span[1])
        return better * last, (first, last)

    monkeypatch.setattr(answer, "best_span", best_span)
    contexts = ["第" + "店" * length + "。" for length in (5, 60, 20)]
    data = [{"paragraphs": [{"context": c, "qas": [{"question": "谁在？", "id": "q"}]} for c in contexts]}]
    (tmp_path / "test.json").write_text(json.dumps({"data": data}), "utf-8")
    run(
        "answer",
        f"--model {trained / 'answer'} --test {tmp_path / 'test.json'} --output {tmp_path} --max_length 32"
        f" --doc_stride 8 --max_question_length 8 {ALL}",
    )
    assert [row["answer"] for row in lines_of(tmp_path / "predictions.jsonl")] == [expected] * 3


def test_choices_that_a_row_does_not_have_take_no_part(trained):
    """The loss of rows with two and four choices together is the mean of their losses alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained / "choose")
    model = transformers.AutoModelForMultipleChoice.from_pretrained(trained / "choose").eval()
    sequences = [dict(tokenizer("房间很好", word)) for word in ("也很差", "也很好好", "脏", "吵也")]
    rows = [{**{name: [s[name] for s in sequences[:count]] for name in sequences[0]}, "labels": 1} for count in (2, 4)]
    alone = []
    for row in rows:
        batch = choose.Collator(tokenizer, len(row["input_ids"]))([row])
        alone.append(model(**batch).loss.item())
    model.register_forward_hook(choose.leave_out_missing, with_kwargs=True)
    batch = choose.Collator(tokenizer, 4)(rows)
    labels = batch.pop("labels")
    outputs = model(**batch)
    assert outputs.logits.argmax(-1)[0] < 2
    assert choose.loss(outputs, labels).item() == pytest.approx(sum(alone) / 2, rel=1e-5)
    assert choose.loss(outputs, labels, 8).item() == pytest.approx(sum(alone) / 8, rel=1e-5)


def test_a_dataset_of_the_library_is_read_by_its_columns_and_class_names(base, home):
    features = datasets.Features(
        {"title": datasets.Value("string"), "mood": datasets.ClassLabel(names=["bad", "good"])}
    )
    table = datasets.Dataset.from_dict({"title": ["房间很好", "房间很差"] * 4, "mood": [1, 0] * 4}, features)
    (home / "reviews").mkdir()
    table.to_parquet(home / "reviews" / "train.parquet")
    command = f"--model {base} --dataset {home / 'reviews'} --max_steps 1 {ALL}"
    run("classify", f"{command} --train train --text title --label mood --output out")
    assert transformers.AutoConfig.from_pretrained("out").id2label == {0: "bad", 1: "good"}
    message = fails("classify", f"{command} --train training --text title --label mood --output no")
    assert "split training" in message and "reviews" in message
    assert "no such column" in fails("classify", f"{command} --train train --text title --label rating --output no")


def test_a_model_keeps_its_labels_and_refuses_others_without_a_new_head(trained, tmp_path):
    (tmp_path / "words.tsv").write_text("label\ttext\n" + "good\t很好\nbad\t很差\nso\t是\n" * 4, "utf-8")
    command = f"--model {trained / 'classify'} --output {tmp_path / 'out'} --max_steps 1 {ALL}"
    message = fails("classify", f"{command} --train {tmp_path / 'words.tsv'}")
    assert "3 labels (bad, good, so)" in message and "--new_head" in message
    run("classify", f"{command} --train {tmp_path / 'words.tsv'} --new_head --labels so good bad")
    assert list(transformers.AutoConfig.from_pretrained(tmp_path / "out").id2label.values()) == ["so", "good", "bad"]
    assert datafiles.choose_labels([], [("", "10"), ("", "9"), ("", "a")], ["9", "10"]) == ["9", "10", "a"]
    assert datafiles.choose_labels([], [("", "0"), ("", "1")], ["1", "0"]) == ["1", "0"]


def test_xnli_of_all_languages_is_read_for_one(tmp_path):
    header = "language\tgold_label\tsentence1\tsentence2"
    (tmp_path / "xnli.tsv").write_text(f"{header}\nfr\tneutral\ta\tb\nzh\tcontradictory\t天\t很好\n", "utf-8")
    (tmp_path / "xnli.jsonl").write_text(
        '{"language": "zh", "gold_label": "contradiction", "sentence1": "天", "sentence2": "很好"}\n', "utf-8"
    )
    for name in ("xnli.tsv", "xnli.jsonl"):
        (row,) = classify.examples(classify.Arguments(model="", train=str(tmp_path / name)))["train"]
        assert (row["text"], row["pair"], row["label"]) == ("天", "很好", "contradiction")


GOOD_LINES = "1\t房间很好\n0\t房间很差\n" * 6

# fmt: off
WRONG = [
    # script, file, content, more options, what the message has
    ("classify", "a.tsv", GOOD_LINES + "房间", "",
     ("a.tsv, line 13", "2 tab-separated columns", "found 1: [\"房间\"]")),
    ("classify", "a.tsv", "评价\t文字\n" + GOOD_LINES, "",
     ("line 1", "label that other lines have", "'评价'", "--label")),
    ("classify", "a.tsv", GOOD_LINES, "--label mood",
     ("line 1", "--label mood", "label, text", "no such column")),
    ("classify", "a.tsv", "text\tname\n好\tx\n", "--text text",
     ("line 2", "label or gold_label", "text, name", "--label")),
    ("classify", "a.tsv", "".join(f"第{i}行\t1\n" for i in range(30)), "",
     ("line 1", "30 different on 30 rows", "--columns")),
    ("classify", "a.tsv", "房间\n", "", ("line 1", "a header, or two columns", "1 columns", "--columns")),
    ("classify", "a.tsv", "", "", ("a.tsv", "at least one row", "none")),
    ("classify", "a.tsv", GOOD_LINES.encode("gb18030"), "",
     ("a.tsv, line 1", "UTF-8", "0xb7 at column 3", "iconv")),
    ("classify", "a.tsv", GOOD_LINES.encode("utf-16"), "",
     ("a.tsv: expected UTF-8, found UTF-16, by its byte-order mark", "iconv -f UTF-16 -t UTF-8")),
    ("classify", "a.jsonl", '{"text": "好", "label": 1}\n{"text": 2}\n', "",
     ("line 2", "'text' with a str", "found 2")),
    ("classify", "a.jsonl", '{"text": "好", "label": 1}\n{"label": 0}\n', "",
     ("line 2", "'text'", "only 'label'")),
    ("classify", "a.jsonl", '{"text": "好"\n', "", ("a.jsonl, line 1", "a JSON object", "JSON Lines")),
    ("classify", "a.json", '[{"text": "好", "label": "a"}, 3]', "",
     ("a.json, item 2", "an object of columns", "found 3")),
    ("classify", "a.csv", 'label,text\n1,"好,很"\n0,a,b\n', "",
     ("a.csv, line 3", "2 comma-separated", "found 3")),
    ("tag", "a.txt", "王 B-PER\n明\n", "", ("a.txt, line 2", "a character, a tab or space, and a tag", "'明'")),
    ("tag", "a.txt", "王 B-PER\n明 PER\n", "", ("a.txt, line 2", "B-PER or I-PER", "'明 PER'")),
    ("tag", "a.jsonl", '{"tokens": ["王"], "ner_tags": ["O", "O"]}\n', "",
     ("line 1", "each of 1 characters", "2 tags")),
    ("tag", "a.jsonl", '{"tokens": ["王"], "ner_tags": [3]}\n', "", ("line 1", "tags of BIO", "found 3")),
    ("tag", "a.jsonl", '{"words": ["王"], "labels": "O"}\n', "", ("line 1", "'labels' with a list", "found O")),
    ("tag", "a.jsonl", "3\n", "", ("line 1", "an object of columns", "found 3")),
    ("answer", "a.json", '[{"context_text": ""}]', "",
     ("a.json", "SQuAD's JSON", "type list", "squad-style-data")),
    ("answer", "a.json", '{"data": [{"paragraphs": [{"qas": []}, 1]}]}', "",
     ("article 1, paragraph 2", "'qas'", "type int")),
    ("answer", "a.json", '{"data": [{"paragraphs": [{"context": "好", "qas": ["谁"]}]}]}', "",
     ("article 1, paragraph 1, question 1", "'question'", "type str")),
    ("answer", "a.json", '{"data": [{"paragraphs": [{"context": "好", "qas": [{"question": "谁", "answers": [3]}]}]}]}',
     "", ("article 1, paragraph 1, question 1", "'text'", "type int")),
    ("answer", "a.json", '{"data": [{"paragraphs": [{"context": "好", "qas": [{"question": "谁"}]}]}]}', "",
     ("paragraph 1, question 1", "an answer", "none")),
    ("answer", "a.json", '{"data": [{"paragraphs": [{"context": "好", "qas": [{"question": "谁", "answers": '
     '[{"text": "差", "answer_start": 0}]}]}]}]}', "", ("question 1", "a part of its context", "1 of 1 rows")),
    ("answer", "a.json", '{"data": [}', "", ("a.json, line 1", "JSON", '{"data": [}')),
    ("answer", "a.json", '{"data": []}', "", ("a.json", "at least one row", "none")),
    ("choose", "a.json", '[[["好"], [{"question": "谁", "choice": ["a", "b"], "answer": "c"}], "1"]]', "",
     ("item 1, question 1", "one of the choices a, b", "'c'")),
    ("choose", "a.json", '[[["好"], {"question": "谁"}]]', "",
     ("item 1", "[[line, ...], [{question", "{'question'")),
    ("choose", "a.jsonl", '{"context": "好", "question": "谁", "choices": ["a"], "answer": 0}\n', "",
     ("line 1", "at least two choices", "['a']")),
    ("choose", "a.jsonl", '{"context": "好", "question": "谁", "choices": ["a", "b"], "answer": 2}\n', "",
     ("line 1", "or its number from 0", "found 2")),
    ("choose", "a.jsonl", '{"context": "好", "question": "谁", "choices": ["a", "b"]}\n', "",
     ("line 1", "a column answer or label", "only context, question, choices")),
]
# fmt: on


@pytest.mark.parametrize(("script", "name", "content", "more", "parts"), WRONG)
def test_wrong_data_is_one_message_with_place_expected_found_and_next_step(
    base, tmp_path, script, name, content, more, parts
):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    message = fails(script, f"--model {base} --train {tmp_path / name} --output {tmp_path / 'out'} {more} {ALL}")
    for part in (*parts, "expected", "found"):
        assert part in message, message
    assert not (tmp_path / "out").exists()


def test_a_label_that_only_the_dev_file_has_is_named_with_its_line(base, tmp_path):
    (tmp_path / "train.tsv").write_text(GOOD_LINES, "utf-8")
    (tmp_path / "dev.tsv").write_text(GOOD_LINES + "2\t房间很好\n2\t房间很差\n", "utf-8")
    (tmp_path / "pairs.tsv").write_text("房间很好\t房间很好\t1\n" * 3, "utf-8")
    command = f"--model {base} --train {tmp_path / 'train.tsv'} --output {tmp_path / 'out'} {ALL}"
    message = fails("classify", f"{command} --dev {tmp_path / 'dev.tsv'}")
    assert 'dev.tsv, line 13: expected one of the labels ["0", "1"], found \'2\'' in message and "--labels" in message
    message = fails("classify", f"{command} --dev {tmp_path / 'pairs.tsv'}")
    assert "pairs.tsv, line 1: expected one text as in" in message and "found two texts" in message


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (
            "--model nowhere --train a",
            ("--model nowhere", "expected a converted folder or owner/name", "nezha-convert convert"),
        ),
        ("--model {huawei} --train a", ("huawei-tf-pretraining", "no config.json", "nezha-convert convert")),
        ("--model {base} --train nowhere.tsv", ("--train nowhere.tsv", "expected a file, found none", "--dataset")),
        ("--model {base}", ("no data", "--train, --dev and --test", "--help")),
        ("--model {base} --train {train} --bf16 --fp16", ("Trainer's options", "16")),
        ("--model {base} --train {train} --optimizer sgd", ("--optimizer", "adamw, lamb, lamb-paper", "'sgd'")),
        ("--model {base} --train {train} --resume_from_checkpoint last", ("expected a checkpoint", "found none")),
        ("--model {base} --test {train}", ("does not name its labels", "--labels")),
    ],
)
def test_a_wrong_model_or_option_is_one_message(base, tmp_path, options, parts):
    options = options.format(
        huawei=FIXTURES / "huawei-tf-pretraining", base=base, train=DATA / "ChnSentiCorp/train.tsv"
    )
    with pytest.raises(UsageError) as caught:
        run("classify", f"{options} --output {tmp_path} {ALL}")
    message = f"{caught.value} | {caught.value.hint}"
    assert all(part in message for part in parts), message


def test_a_run_is_not_written_over_another_nor_over_its_model(trained, base, tmp_path):
    train, output = DATA / "ChnSentiCorp/train.tsv", trained / "classify"
    options = f"--train {train} --max_steps 1 {ALL}"
    for split in ("--train", "--test"):
        command = f"--model {base} {options} --output {output}".replace("--train", split)
        assert "holds a run already (config.json)" in fails("classify", command)
    assert "is the folder of --model" in fails("classify", f"--model {output} {options} --output {output}")
    run("classify", f"--model {base} {options} --output {output} --overwrite")
    run("classify", f"--model {output} --test {train} --output {tmp_path / 'new' / 'folder'} {ALL}")
    assert not (tmp_path / "new" / "folder" / "config.json").exists()


def test_texts_that_are_cut_are_counted_and_a_new_head_explains_itself(base, tmp_path, capsys):
    (tmp_path / "a.tsv").write_text("1\t房间很好很好很好很好\n0\t房间很差\n1\t好\n0\t差\n", "utf-8")
    run(
        "classify",
        f"--model {base} --train {tmp_path / 'a.tsv'} --output {tmp_path / 'a'} --max_length 7 --max_steps 1 {ALL}",
    )
    said = capsys.readouterr().err
    assert "note: 1 of 4 texts are longer than --max_length and were cut" in said
    assert f"note: classifier of {base} starts from random numbers and is trained" in said
    assert f"cls.seq_relationship of {base} is not used in this task" in said and "LOAD REPORT" not in said
    test = DATA / "ChnSentiCorp/dev.tsv"
    message = fails("classify", f"--model {base} --test {test} --labels 0 1 --output {tmp_path / 'b'} {ALL}")
    assert "expected a model that was trained for this task, found none of its classifier" in message


def test_windows_without_room_are_refused(base):
    train = DATA / "CMRC2018/train.json"
    message = fails("answer", f"--model {base} --train {train} --output x --max_length 100 --doc_stride 40")
    assert "--doc_stride 40: expected less than 33" in message and "--max_question_length 64" in message


def test_a_script_ends_with_one_message_and_its_exit_code(tmp_path):
    command = [ROOT / "examples/classify.py", "--model", "nowhere", "--output", tmp_path / "out"]
    ended = warm_python.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-2].startswith("error: --model nowhere: expected")
    assert ended.stderr.splitlines()[-1].startswith("next: nezha-convert convert")


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_example_of_the_help_parses(script, capsys):
    module = import_module(script)
    with pytest.raises(SystemExit, match="0"):
        module.train(["--help"])
    shown = capsys.readouterr().out
    (line,) = re.findall(rf"^  python examples/{script}\.py (.*)$", shown, re.MULTILINE)
    arguments, settings = training.parse(shlex.split(line), module.DESCRIPTION, module.Arguments)
    assert arguments.model == "nezha-base" and settings.learning_rate == 3e-5 and settings.warmup_steps == 0.1


def test_the_defaults_are_the_scripts_and_options_override_them():
    command = ["--model", "m", "--output", "o"]
    for more, epochs in (([], 5), (["--num_train_epochs", "2"], 2)):
        arguments, settings = training.parse([*command, *more], "", classify.Arguments, defaults=classify.DEFAULTS)
        assert (arguments.max_length, settings.per_device_train_batch_size) == (128, 32)
        assert settings.num_train_epochs == epochs
    assert settings.metric_for_best_model is None
    _, settings = training.parse([*command, "--load_best_model_at_end"], "", classify.Arguments, best="accuracy")
    assert (settings.metric_for_best_model, settings.greater_is_better) == ("accuracy", True)


TEXT = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]), min_size=1)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("01"), TEXT), min_size=1))
def test_any_text_of_a_table_comes_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("table") / "a.tsv"
    path.write_text("label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in rows), "utf-8", newline="\n")
    read = [(row.fields["label"], row.fields["text"]) for row in datafiles.table(path, [], ["label"])]
    assert read == rows


@given(
    st.lists(
        st.lists(st.tuples(TEXT.filter(str.strip), st.sampled_from(["O", "B-PER", "I-PER"])), min_size=1), min_size=1
    )
)
def test_any_sentence_in_bio_form_comes_back(tmp_path_factory, sentences):
    path = tmp_path_factory.mktemp("bio") / "a.txt"
    text = "\n".join("".join(f"{token}\t{tag}\n" for token, tag in sentence) for sentence in sentences)
    path.write_text("\ufeff" + text, "utf-8", newline="\n")
    read = [list(zip(row.fields["tokens"], row.fields["ner_tags"], strict=True)) for row in tag.bio(path)]
    assert [[(t.rstrip(" "), label) for t, label in s] for s in read] == [
        [(t.rstrip(" "), label) for t, label in s] for s in sentences
    ]


@given(st.data())
def test_the_best_span_of_clear_scores_is_the_answer(data):
    """span_of finds an answer's tokens, best_span its characters again; a window that lacks a part has neither."""
    ends = np.cumsum(data.draw(st.lists(st.integers(1, 3), min_size=3, max_size=12)))
    offsets = [(0, 0), (0, 0), *zip([0, *ends[:-1]], ends, strict=True), (0, 0)]
    first = data.draw(st.integers(2, len(offsets) - 2))
    last = data.draw(st.integers(first, len(offsets) - 2))
    start, end = int(offsets[first][0]), int(offsets[last][1])
    assert answer.span_of(offsets, start, end) == (first, last)
    logits = np.zeros((2, len(offsets) + 3))  # and padding
    logits[0, [0, first]], logits[1, [0, last]] = (9, 5), (9, 5)  # [CLS] scores higher and is no answer
    logits[1, 2:first] = 9  # so do ends before the start
    for longest in (last - first + 1, len(offsets)):
        assert answer.best_span(np.array(offsets), *logits, longest=longest) == (10, (start, end))
    if last > first:
        assert answer.best_span(np.array(offsets), *logits, longest=last - first)[0] < 10
    cut = [(0, 0), (0, 0), *offsets[first + 1 : -1], (0, 0)]
    assert answer.span_of(cut, start, end) == (0, 0)


CMRC = [
    # answer, prediction, exact match, F1 by CMRC's own definitions with NLTK's tokenizer
    ("北京大学", "北京大学", 1, 1),
    ("北京大学", "“北京大学”。", 1, 1),
    ("北京大学", "北京的大学", 0, 2 * 2 / 9),
    ("1949年10月1日", "1949年", 0, 2 * 2 / 8),
    ("NBA 总冠军", "nba总冠军", 0, 1),
    ("3.5%", "3.5", 0, 2 / 3),
    ("1,000人", "1000人", 0, 1 / 2),
    ("上海", "北京", 0, 0),
    ("iPhone 5s", "iphone", 0, 2 / 3),
    ("他说：好……", "他说好", 0, 6 / 7),
]


@pytest.mark.parametrize(("true", "found", "exact", "f1"), CMRC)
def test_answers_are_measured_as_cmrc_does(true, found, exact, f1):
    assert cmrc.exact_match([true], found) == exact
    assert cmrc.f1([true], found) == pytest.approx(f1)
    assert cmrc.f1([true, found], found) == 1.0


def test_the_fixtures_data_is_what_its_script_writes(tmp_path):
    make = (DATA / "make_training.py").read_text("utf-8")
    (tmp_path / "make_training.py").write_text(make, "utf-8")
    assert warm_python.run([tmp_path / "make_training.py"]).returncode == 0
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*") if path.suffix != ".py")
    assert len(written) >= 13
    for path in written:
        assert (tmp_path / path).read_bytes() == (DATA / path).read_bytes(), path
