"""Fine-tune NEZHA to classify one text (ChnSenti) or two (LCQMC, XNLI)."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clue
import datafiles
import numpy as np
import training
from datafiles import Row
from scipy.special import expit, softmax
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding
from transformers.hf_argparser import HfArg

DESCRIPTION = """Fine-tune NEZHA to classify one text or a pair of texts.

example:
  python examples/classify.py --model nezha-base --train train.tsv --dev dev.tsv --output sentiment

Data: tab-separated label, text (ChnSenti) or text, text, label (LCQMC); with a header also XNLI's and others;
CSV, JSON, JSON Lines; or --dataset NAME. Metrics: accuracy and macro F1.
"""

DEFAULTS = {"per_device_train_batch_size": 32, "max_length": 128, "num_train_epochs": 5.0}
"""Huawei's settings for LCQMC and XNLI: NEZHA-TensorFlow/scripts/run_clf.sh. For ChnSenti they take 16 and 10."""

TEXT = ("text", "text_a", "premise", "sentence1", "sentence", "review")
PAIR = ("pair", "text_b", "hypo", "hypothesis", "sentence2")
LABEL = ("label", "gold_label")
SAME = {"contradictory": "contradiction"}
"""XNLI's training file spells one label differently than its dev and test files."""


@dataclass
class Arguments(training.Arguments):
    """The arguments of this script."""

    columns: list[str] = HfArg(default_factory=list, help="all columns of a file without a header, in their order")
    text: str | None = HfArg(default=None, help=f"column of the text; default: {', '.join(TEXT)}")
    pair: str | None = HfArg(default=None, help=f"column of the second text; default: {', '.join(PAIR)}")
    label: str | None = HfArg(default=None, help=f"column of the label; default: {', '.join(LABEL)}")
    labels: list[str] = HfArg(default_factory=list, help="the labels in the order of their numbers; default: sorted")
    regression: bool = HfArg(default=False, help="labels are numbers to be predicted, as of STS-B")
    language: str = HfArg(default="zh", help="rows to take if there is a column `language` (XNLI)")


def train(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run the script with a command line; return the content of metrics.json."""
    arguments, settings = training.parse(argv, DESCRIPTION, Arguments, defaults=DEFAULTS, best="accuracy")
    tokenizer = training.load_tokenizer(arguments)
    splits = examples(arguments)
    labelled = [(row["where"], label) for row in splits.get("train", ()) for label in as_list(row["label"])]
    several = any(isinstance(row["label"], list) for row in splits.get("train", ()))
    problem = "multi_label_classification" if several else "single_label_classification"
    problem = (
        "regression" if arguments.regression else problem if labelled else training.config_of(arguments).problem_type
    )
    kind = KINDS[problem or "single_label_classification"]
    labels = [] if problem == "regression" else choose_labels(arguments, labelled)
    numbers, target = {label: number for number, label in enumerate(labels)}, kind.target

    def encode(rows: dict[str, list[Any]]) -> dict[str, Any]:
        tokens = tokenizer(rows["text"], rows.get("pair"), truncation=True, max_length=arguments.max_length)
        encoded = {**tokens, "cut": [bool(row.overflowing) for row in tokens.encodings]}
        if "label" in rows:
            pairs = zip(rows["label"], rows["where"], strict=True)
            encoded["labels"] = [target(label, numbers, where) for label, where in pairs]
        return encoded

    def predictions(split: str, logits: np.ndarray) -> list[dict[str, Any]]:
        answers = kind.answers(logits, labels)
        texts = [{name: row[name] for name in ("id", "text", "pair") if name in row} for row in splits[split]]
        return [{**text, **answer} for text, answer in zip(texts, answers, strict=True)]

    task = training.Task(
        name="text-classification",
        data={split: training.tokenized(rows, encode) for split, rows in splits.items()},
        collator=DataCollatorWithPadding(tokenizer),
        metrics=lambda split, predicted: kind.metrics(predicted.predictions, predicted.label_ids),
        predictions=predictions,
        rows={split: len(rows) for split, rows in splits.items()},
    )
    head = {"problem_type": problem} | ({"num_labels": 1} if problem == "regression" else {})
    model = training.load_model(AutoModelForSequenceClassification, arguments, settings, labels=labels or None, **head)
    return training.run(task, model, tokenizer, arguments, settings)


@dataclass(frozen=True)
class Kind:
    """A kind of label, by transformers' ``problem_type``.

    Args:
        target: makes the number or numbers that the loss takes of a label, the labels' numbers and its place.
        metrics: makes named numbers of logits [rows, labels] and targets.
        answers: makes what is predicted of each row, of logits and the labels' names.
    """

    target: Callable[[Any, dict[str, int], str], Any]
    metrics: Callable[[np.ndarray, np.ndarray], dict[str, float]]
    answers: Callable[[np.ndarray, list[str]], list[dict[str, Any]]]


def several_targets(label: list[str], numbers: dict[str, int], where: str) -> list[float]:
    """1 for each label that a row has, 0 for the others."""
    found = {datafiles.number_of(one, numbers, where) for one in as_list(label)}
    return [float(number in found) for number in range(len(numbers))]


def number(label: str, numbers: dict[str, int], where: str) -> float:
    """The label as a number.

    Raises:
        UsageError: it is none.
    """
    try:
        return float(label)
    except (TypeError, ValueError) as error:
        raise datafiles.wrong(where, "a number, for --regression", repr(label), "Leave the option out.") from error


def f1(targets: np.ndarray, best: np.ndarray) -> dict[str, float]:
    """Accuracy and macro F1."""
    return {
        "accuracy": float(accuracy_score(targets, best)),
        "macro_f1": float(f1_score(targets, best, average="macro", zero_division=0)),
    }


def several_metrics(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Besides, micro F1; a row is right if all its labels are."""
    best = (logits > 0).astype(int)
    return {**f1(targets, best), "micro_f1": float(f1_score(targets, best, average="micro", zero_division=0))}


def number_metrics(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Correlations by value and by rank, as of STS-B, and the mean squared error."""
    found = logits[:, 0]
    by_value, by_rank = pearsonr(found, targets), spearmanr(found, targets)
    measured = {"pearson": by_value.statistic, "spearman": by_rank.statistic, "mse": np.mean((found - targets) ** 2)}
    return {name: float(value) for name, value in measured.items()}


def best_answers(logits: np.ndarray, labels: list[str]) -> list[dict[str, Any]]:
    """The most probable label, and its probability."""
    scores = softmax(logits, -1)
    return [{"label": labels[row.argmax()], "score": round(float(row.max()), 6)} for row in scores]


def several_answers(logits: np.ndarray, labels: list[str]) -> list[dict[str, Any]]:
    """All labels that are more probable than not, and the probability of each."""
    found = []
    for row in expit(logits):
        scores = dict(zip(labels, row.round(6).tolist(), strict=True))
        found.append({"label": [label for label, score in scores.items() if score > 0.5], "scores": scores})
    return found


KINDS = {
    "single_label_classification": Kind(datafiles.number_of, lambda z, y: f1(y, z.argmax(-1)), best_answers),
    "multi_label_classification": Kind(several_targets, several_metrics, several_answers),
    "regression": Kind(number, number_metrics, lambda logits, _: [{"label": float(row[0])} for row in logits]),
}


def as_list(label: Any) -> list[Any]:
    """The labels of a row that has one or several."""
    return label if isinstance(label, list) else [label]


def choose_labels(arguments: Arguments, labelled: list[tuple[str, str]]) -> list[str]:
    """The labels in the order of their numbers."""
    labels = datafiles.choose_labels(arguments.labels, labelled, training.labels_of_model(arguments))
    if not arguments.labels:
        check_labels(labels, labelled)
    return labels


def examples(arguments: Arguments) -> dict[str, list[dict[str, Any]]]:
    """Text, place in its file, and if present second text and label, for each row of each split."""
    named_columns = [name for name in (arguments.text, arguments.pair, arguments.label) if name]

    def file(path: Path) -> list[Row]:
        rows = [
            clue.columns(row, "csl", "wsc") for row in datafiles.table(path, arguments.columns, named_columns or LABEL)
        ]
        if not arguments.columns and not named_columns and not path.suffix.startswith(".json"):
            check_header(rows)
        return rows

    splits = {split: _examples(split, rows, arguments) for split, rows in datafiles.read(arguments, file).items()}
    firsts = [rows[0] for rows in splits.values()]
    for first in firsts[1:]:
        if ("pair" in first) != ("pair" in firsts[0]):
            one, two = ("one text", "two texts") if "pair" in first else ("two texts", "one text")
            raise datafiles.wrong(first["where"], f"{one} as in {firsts[0]['where']}", two, "Name a column by --pair.")
    return splits


def _examples(split: str, rows: list[Row], arguments: Arguments) -> list[dict[str, Any]]:
    text = datafiles.column(rows, "--text", arguments.text, TEXT)
    pair = datafiles.column(rows, "--pair", arguments.pair, PAIR, needed=False)
    label = datafiles.column(rows, "--label", arguments.label, LABEL, needed=split != "test")
    examples, without = [], 0
    for row in rows:
        if row.fields.get("language", arguments.language) != arguments.language:
            continue
        example = {"where": row.where, "text": datafiles.value(row, text)}
        if pair is not None:
            example["pair"] = datafiles.value(row, pair)
        identity = row.fields.get("id", row.fields.get("idx"))
        example |= {} if identity is None else {"id": identity}
        if label is not None and row.fields.get(label) is not None:
            found = as_list(datafiles.value(row, label, (str, int, float, list)))
            names = [SAME.get(str(one), str(one)) for one in found]
            if names == ["-"]:  # OCNLI's, where its annotators did not agree
                without += 1
                continue
            example["label"] = names if isinstance(row.fields[label], list) else names[0]
        examples.append(example)
    if without:
        training.say(f"note: {without} of {len(rows)} rows of {split} have the label - and are left out")
    if not examples:
        raise datafiles.wrong(rows[0].where, f"rows with the language {arguments.language}", "none", "See --language.")
    unlabelled = next((row["where"] for row in examples if "label" not in row), None)
    if unlabelled and (split != "test" or any("label" in row for row in examples)):
        raise datafiles.wrong(unlabelled, "a label", "none", "Only a test split may do without, and then wholly.")
    return examples


def check_header(rows: list[Row]) -> None:
    """Refuse a first line that was read as data but looks like a header: its label occurs on no other line."""
    if not rows or "label" not in rows[0].fields:
        return
    counted = Counter(row.fields["label"] for row in rows)
    if len(rows) >= 10 and [label for label, count in counted.items() if count == 1] == [rows[0].fields["label"]]:
        raise datafiles.wrong(
            rows[0].where,
            f"a label that other lines have too ({', '.join(map(str, list(counted)[1:6]))})",
            f"{rows[0].fields['label']!r}, which looks like the name of a column",
            "Name the columns of a header by --text, --pair and --label, or say by --columns that there is none.",
        )


def check_labels(labels: list[str], labelled: list[tuple[str, str]]) -> None:
    """Refuse labels that cannot be right: a single one, or nearly as many as there are rows."""
    if labelled and (len(labels) < 2 or len(labels) > max(20, len(labelled) // 2)):
        where, label = labelled[0]
        raise datafiles.wrong(
            where,
            "labels, at least two and each on several rows",
            f"{len(labels)} different on {len(labelled)} rows, the first one {label[:40]!r}",
            "Name the column by --label, or all columns of a file without a header by --columns.",
        )


if __name__ == "__main__":
    sys.exit(training.main(train))
