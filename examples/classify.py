"""Fine-tune NEZHA to classify one text (ChnSenti) or two (LCQMC, XNLI)."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datafiles
import numpy as np
import training
from datafiles import Row
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, EvalPrediction

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

    columns: list[str] = field(
        default_factory=list, metadata={"help": "all columns of a file without a header, in their order"}
    )
    text: str | None = field(default=None, metadata={"help": f"column of the text; default: {', '.join(TEXT)}"})
    pair: str | None = field(default=None, metadata={"help": f"column of the second text; default: {', '.join(PAIR)}"})
    label: str | None = field(default=None, metadata={"help": f"column of the label; default: {', '.join(LABEL)}"})
    labels: list[str] = field(
        default_factory=list, metadata={"help": "the labels in the order of their numbers; default: sorted"}
    )
    language: str = field(default="zh", metadata={"help": "rows to take if there is a column `language` (XNLI)"})


def train(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run the script with a command line; return the content of metrics.json."""
    arguments, settings = training.parse(argv, DESCRIPTION, Arguments, defaults=DEFAULTS, best="accuracy")
    tokenizer = training.load_tokenizer(arguments)
    splits = examples(arguments)
    labelled = [(row["where"], row["label"]) for row in splits.get("train", ())]
    labels = datafiles.choose_labels(arguments.labels, labelled, training.labels_of_model(arguments))
    if not arguments.labels:
        check_labels(labels, labelled)
    numbers = {label: number for number, label in enumerate(labels)}

    def encode(rows: dict[str, list[Any]]) -> dict[str, Any]:
        encoded = dict(tokenizer(rows["text"], rows.get("pair"), truncation=True, max_length=arguments.max_length))
        if "label" in rows:
            pairs = zip(rows["label"], rows["where"], strict=True)
            encoded["labels"] = [datafiles.number_of(label, numbers, where) for label, where in pairs]
        return encoded

    def predictions(split: str, logits: np.ndarray) -> list[dict[str, Any]]:
        scores = np.exp(logits - logits.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        objects = []
        for row, score in zip(splits[split], scores, strict=True):
            texts = {name: row[name] for name in ("text", "pair") if name in row}
            objects.append({**texts, "label": labels[score.argmax()], "score": round(float(score.max()), 6)})
        return objects

    task = training.Task(
        name="text-classification",
        data={split: training.tokenized(rows, encode) for split, rows in splits.items()},
        collator=DataCollatorWithPadding(tokenizer),
        metrics=metrics,
        predictions=predictions,
        rows={split: len(rows) for split, rows in splits.items()},
    )
    model = training.load_model(AutoModelForSequenceClassification, arguments, settings, labels=labels)
    return training.run(task, model, tokenizer, arguments, settings)


def metrics(split: str, predicted: EvalPrediction) -> dict[str, float]:
    """Accuracy and macro F1 of logits [rows, labels], given the numbers of the right labels [rows]."""
    best, labels = predicted.predictions.argmax(-1), predicted.label_ids
    return {
        "accuracy": float(accuracy_score(labels, best)),
        "macro_f1": float(f1_score(labels, best, average="macro")),
    }


def examples(arguments: Arguments) -> dict[str, list[dict[str, Any]]]:
    """Text, place in its file, and if present second text and label, for each row of each split."""
    named_columns = [name for name in (arguments.text, arguments.pair, arguments.label) if name]

    def file(path: Path) -> list[Row]:
        rows = list(datafiles.table(path, arguments.columns, named_columns or LABEL))
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
    pair = datafiles.column(rows, "--pair", arguments.pair, PAIR)
    label = datafiles.column(rows, "--label", arguments.label, LABEL)
    if text is None or (label is None and split != "test"):
        missing, usual = ("--text", TEXT) if text is None else ("--label", LABEL)
        raise datafiles.wrong(
            rows[0].where,
            f"a column {' or '.join(usual)}",
            f"the columns {', '.join(rows[0].fields)}",
            f"Name the column by {missing}.",
        )
    examples = []
    for row in rows:
        if row.fields.get("language", arguments.language) != arguments.language:
            continue
        example = {"where": row.where, "text": datafiles.value(row, text)}
        if pair is not None:
            example["pair"] = datafiles.value(row, pair)
        if label is not None and row.fields.get(label) is not None:
            name = str(datafiles.value(row, label, (str, int)))
            example["label"] = SAME.get(name, name)
        examples.append(example)
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
