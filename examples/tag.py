"""Fine-tune NEZHA to tag characters: named entities of the People's Daily corpus."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import clue
import datafiles
import numpy as np
import training
from datafiles import Row
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from transformers import (
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    EvalPrediction,
    PreTrainedTokenizerBase,
)
from transformers.hf_argparser import HfArg

DESCRIPTION = """Fine-tune NEZHA to tag the characters of sentences, such as named entities.

example:
  python examples/tag.py --model nezha-base --train train.txt --dev dev.txt --output entities

Data: one character and its tag a line, a tab or space between them, a blank line after a sentence (People's Daily NER);
JSON Lines with tokens and ner_tags; or --dataset NAME. Metrics: precision, recall and F1 of whole entities by seqeval.
"""

DEFAULTS = {"per_device_train_batch_size": 16, "max_length": 256, "num_train_epochs": 10.0}
"""Huawei's settings: NEZHA-TensorFlow/scripts/run_seq_labelling.sh."""

TOKENS = ("tokens", "words")
TAGS = ("ner_tags", "tags", "labels")
TAG = re.compile(r"O|[BIMES]-\S+")
BIO = {"S": "B", "M": "I", "E": "I"}
"""What the letters of BIOES and BMES are in BIO."""
SCORES = {"precision": precision_score, "recall": recall_score, "f1": f1_score, "accuracy": accuracy_score}
IGNORED = -100
"""The label that the loss ignores: that of special tokens, and of all but a word's first piece."""


@dataclass
class Arguments(training.Arguments):
    """The arguments of this script."""

    tokens: str | None = HfArg(default=None, help=f"column of the characters; default: {', '.join(TOKENS)}")
    tags: str | None = HfArg(default=None, help=f"column of the tags; default: {', '.join(TAGS)}")
    scheme: Literal["bio", "own"] = HfArg(
        default="bio", help="bio turns tags of BIOES and BMES into BIO; own keeps the data's"
    )
    labels: list[str] = HfArg(default_factory=list, help="the tags in the order of their numbers; default: sorted")


def train(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run the script with a command line; return the content of metrics.json."""
    arguments, settings = training.parse(argv, DESCRIPTION, Arguments, defaults=DEFAULTS, best="f1")
    tokenizer = training.load_tokenizer(arguments)
    splits = {split: sentences(rows, arguments) for split, rows in datafiles.read(arguments, bio).items()}
    labelled = [(row["where"], tag) for row in splits.get("train", ()) for tag in row["tags"]]
    labels = datafiles.choose_labels(arguments.labels, labelled, training.labels_of_model(arguments))
    numbers = {label: number for number, label in enumerate(labels)}

    encode = partial(windows_of, tokenizer=tokenizer, max_length=arguments.max_length, numbers=numbers)
    windows = {split: training.tokenized(rows, encode) for split, rows in splits.items()}

    def tagged(split: str, best: np.ndarray) -> list[list[str]]:
        """The tags of whole sentences; O for a character that the tokenizer drops."""
        tags = [["O"] * len(row["tokens"]) for row in splits[split]]
        for sentence, words, numbers in zip(windows[split]["sentence"], windows[split]["word"], best, strict=True):
            for word, number in zip(words, numbers, strict=False):  # batches are padded
                if word != IGNORED:
                    tags[sentence][word] = labels[number]
        return tags

    def metrics(split: str, predicted: EvalPrediction) -> dict[str, float]:
        true, found = [row["tags"] for row in splits[split]], tagged(split, predicted.predictions)
        return {name: float(score(true, found)) for name, score in SCORES.items()}

    def predictions(split: str, best: np.ndarray) -> Iterator[dict[str, Any]]:
        for row, tags in zip(splits[split], tagged(split, best), strict=True):
            yield {**({"id": row["id"]} if "id" in row else {}), "tokens": row["tokens"], "tags": tags}

    task = training.Task(
        name="token-classification",
        data=windows,
        collator=DataCollatorForTokenClassification(tokenizer),
        metrics=metrics,
        predictions=predictions,
        rows={split: len(rows) for split, rows in splits.items()},
        shrink=lambda logits, labels: logits.argmax(-1),
    )
    model = training.load_model(AutoModelForTokenClassification, arguments, settings, labels=labels)
    return training.run(task, model, tokenizer, arguments, settings)


def windows_of(
    rows: dict[str, list[Any]], tokenizer: PreTrainedTokenizerBase, max_length: int, numbers: dict[str, int]
) -> dict[str, Any]:
    """Cut sentences into windows of at most `max_length` tokens, one after the other."""
    encoded = tokenizer(
        rows["tokens"],
        is_split_into_words=True,
        truncation=True,
        max_length=max_length,
        return_overflowing_tokens=True,
    )
    sources = encoded.pop("overflow_to_sample_mapping")
    firsts = [first_pieces(encoded.word_ids(window)) for window in range(len(sources))]
    tags = [
        [datafiles.number_of(tag, numbers, where) for tag in tags]
        for tags, where in zip(rows["tags"], rows["where"], strict=True)
    ]
    labels = [
        [IGNORED if word is None else tags[source][word] for word in words]
        for words, source in zip(firsts, sources, strict=True)
    ]
    words = [[IGNORED if word is None else word for word in words] for words in firsts]
    return {**encoded, "labels": labels, "sentence": [rows["number"][source] for source in sources], "word": words}


def first_pieces(words: Sequence[int | None]) -> list[int | None]:
    """The word of each token; None for special tokens and for all but the first piece of a word."""
    return [word if word != before else None for word, before in zip(words, [None, *words], strict=False)]


def bio(path: Path) -> Iterator[Row]:
    """Sentences of a file in BIO form, or of JSON Lines.

    Raises:
        UsageError: a line is not a character and a tag.
    """
    if path.suffix in (".json", ".jsonl"):
        yield from (clue.columns(row, "cluener") for row in datafiles.json_rows(path))
        return
    tokens: list[str] = []
    tags: list[str] = []
    start = 1
    for number, line in [*datafiles.lines(path), (0, "")]:
        if line.strip():
            start = start if tokens else number
            # The tag follows the last separator: the character may be a space itself.
            match = re.fullmatch(r"(.+?)[ \t]+(\S+)[ \t]*", line)
            if not match or not TAG.fullmatch(match[2]):
                raise datafiles.wrong(
                    f"{path}, line {number}",
                    "a character, a tab or space, and a tag such as O, B-PER or I-PER",
                    repr(line[:80]),
                    "Mend the line; sentences are separated by blank lines.",
                )
            tokens.append(match[1])
            tags.append(match[2])
        elif tokens:
            yield Row(f"{path}, line {start}", {"tokens": tokens, "ner_tags": tags})
            tokens, tags = [], []


def sentences(rows: list[Row], arguments: Arguments) -> list[dict[str, Any]]:
    """Tokens and tags of each row.

    Raises:
        UsageError: a column is missing; a row has not as many tags as tokens, or tags of another scheme.
    """
    checked = []
    token_column = datafiles.column(rows, "--tokens", arguments.tokens, TOKENS)
    tag_column = datafiles.column(rows, "--tags", arguments.tags, TAGS)
    for number, row in enumerate(rows):
        tokens, tags = (datafiles.value(row, name, list) for name in (token_column, tag_column))
        if len(tokens) != len(tags):
            expected, hint = f"a tag for each of {len(tokens)} characters", f"Mend {token_column} and {tag_column}."
            raise datafiles.wrong(row.where, expected, f"{len(tags)} tags", hint)
        for tag in tags:
            if not isinstance(tag, str) or not TAG.fullmatch(tag):
                raise datafiles.wrong(
                    row.where,
                    "tags of BIO, BIOES or BMES, such as O, B-PER or I-PER",
                    repr(tag),
                    "Numbers of tags need their names: write them as words.",
                )
        if arguments.scheme == "bio":
            tags = [BIO.get(tag[0], tag[0]) + tag[1:] for tag in tags]
        identity = {"id": row.fields["id"]} if "id" in row.fields else {}
        checked.append({"where": row.where, "number": number, "tokens": tokens, "tags": tags, **identity})
    return checked


if __name__ == "__main__":
    sys.exit(training.main(train))
