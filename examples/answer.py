"""Fine-tune NEZHA to answer questions by a span of a text: CMRC 2018."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cmrc
import datafiles
import numpy as np
import training
from datafiles import Row
from transformers import (
    AutoModelForQuestionAnswering,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedTokenizerBase,
)
from transformers.hf_argparser import HfArg

DESCRIPTION = """Fine-tune NEZHA to answer questions by a span of a text.

example:
  python examples/answer.py --model nezha-base --train cmrc2018_train.json --dev cmrc2018_dev.json --output reader

Data: SQuAD's JSON, as in CMRC 2018's squad-style-data; or --dataset NAME with SQuAD's columns.
Metrics: exact match and F1 of CMRC 2018, in percent.
"""

DEFAULTS = {"per_device_train_batch_size": 4, "max_length": 512, "num_train_epochs": 1.0}
"""Huawei's settings: NEZHA-TensorFlow/scripts/run_reading.sh, and the lengths of run_squad.py."""


@dataclass
class Arguments(training.Arguments):
    """The arguments of this script."""

    doc_stride: int = HfArg(default=128, help="tokens that two neighbouring windows of a long text share")
    max_question_length: int = HfArg(default=64, help="characters of a question; longer ones are cut")
    max_answer_length: int = HfArg(default=30, help="tokens of the longest answer to predict")


def train(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run the script with a command line; return the content of metrics.json."""
    arguments, settings = training.parse(argv, DESCRIPTION, Arguments, defaults=DEFAULTS, best="f1")
    tokenizer = training.load_tokenizer(arguments)
    splits = {split: questions(split, rows) for split, rows in datafiles.read(arguments, squad).items()}
    check_window(arguments)

    encode = partial(windows_of, tokenizer=tokenizer, arguments=arguments)
    windows = {split: training.tokenized(rows, encode) for split, rows in splits.items()}

    def answered(split: str, logits: tuple[np.ndarray, np.ndarray]) -> list[str]:
        """The best span of each question, over all windows of its text."""
        best: dict[int, tuple[float, str]] = {}
        rows = zip(windows[split]["number"], windows[split]["offsets"], *logits, strict=True)
        for number, offsets, start, end in rows:
            score, (first, last) = best_span(np.array(offsets), start, end, arguments.max_answer_length)
            if number not in best or score > best[number][0]:
                best[number] = score, splits[split][number]["context"][first:last]
        return [best[number][1] for number in range(len(splits[split]))]

    def metrics(split: str, predicted: EvalPrediction) -> dict[str, float]:
        pairs = list(zip(splits[split], answered(split, predicted.predictions), strict=True))
        return {
            "exact_match": 100 * float(np.mean([cmrc.exact_match(row["answers"], answer) for row, answer in pairs])),
            "f1": 100 * float(np.mean([cmrc.f1(row["answers"], answer) for row, answer in pairs])),
        }

    def predictions(split: str, logits: tuple[np.ndarray, np.ndarray]) -> Iterator[dict[str, Any]]:
        for row, answer in zip(splits[split], answered(split, logits), strict=True):
            yield {"id": row["id"], "question": row["question"], "answer": answer}

    task = training.Task(
        name="question-answering",
        data=windows,
        collator=DataCollatorWithPadding(tokenizer),
        metrics=metrics,
        predictions=predictions,
        rows={split: len(rows) for split, rows in splits.items()},
    )
    model = training.load_model(AutoModelForQuestionAnswering, arguments, settings)
    return training.run(task, model, tokenizer, arguments, settings)


def windows_of(rows: dict[str, list[Any]], tokenizer: PreTrainedTokenizerBase, arguments: Arguments) -> dict[str, Any]:
    """Cut each question's text into windows, and find the tokens where the answer starts and ends in each."""
    encoded = tokenizer(
        [question[: arguments.max_question_length] for question in rows["question"]],
        rows["context"],
        truncation="only_second",
        max_length=arguments.max_length,
        stride=arguments.doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    sources = encoded.pop("overflow_to_sample_mapping")
    offsets = [
        [offset if part == 1 else (0, 0) for offset, part in zip(window, encoded.sequence_ids(i), strict=True)]
        for i, window in enumerate(encoded.pop("offset_mapping"))
    ]
    encoded |= {"number": [rows["number"][source] for source in sources], "offsets": offsets}
    if "start" in rows:
        spans = [span_of(offsets[i], rows["start"][s], rows["end"][s]) for i, s in enumerate(sources)]
        encoded["start_positions"], encoded["end_positions"] = map(list, zip(*spans, strict=True))
    return encoded


def check_window(arguments: Arguments) -> None:
    """Refuse windows that the question, three special tokens and the shared tokens would fill.

    Raises:
        UsageError: the windows are too short; it names the three options.
    """
    room = arguments.max_length - arguments.max_question_length - 3
    if arguments.doc_stride >= room:
        raise datafiles.wrong(
            f"--doc_stride {arguments.doc_stride}",
            f"less than {room}, which --max_length {arguments.max_length} leaves beside a question of "
            f"--max_question_length {arguments.max_question_length} and 3 special tokens",
            str(arguments.doc_stride),
            "Raise --max_length, or lower the other two.",
        )


def span_of(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """The first and last token of the characters from `start` to `end`.

    Args:
        offsets: for each token of the text, its first character and the one after its last; (0, 0) for other tokens.
        start, end: the answer's characters in the text; -1 if the text has no answer.

    Returns:
        (0, 0), the place of [CLS], if the window does not hold the whole answer.
    """
    text = [token for token, (first, last) in enumerate(offsets) if last > first]
    inside = [token for token in text if offsets[token][0] < end and offsets[token][1] > start]
    if start < 0 or not inside or offsets[text[0]][0] > start or offsets[text[-1]][1] < end:
        return 0, 0
    return inside[0], inside[-1]


def best_span(offsets: np.ndarray, start: np.ndarray, end: np.ndarray, longest: int) -> tuple[float, tuple[int, int]]:
    """The score and the characters of the best span: the one with the highest sum of start logit and end logit.

    Args:
        offsets: as in :func:`span_of`, [tokens, 2].
        start, end: logits [tokens]; padding may follow.
        longest: tokens of the longest span allowed.
    """
    tokens = len(offsets)
    text = offsets[:, 1] > offsets[:, 0]
    allowed = np.triu(np.ones((tokens, tokens), bool)) & ~np.triu(np.ones((tokens, tokens), bool), longest)
    allowed &= text[:, None] & text[None, :]
    scores = np.where(allowed, start[:tokens, None] + end[None, :tokens], -np.inf)
    first, last = np.unravel_index(scores.argmax(), scores.shape)
    return float(scores[first, last]), (int(offsets[first, 0]), int(offsets[last, 1]))


def squad(path: Path) -> Iterator[Row]:
    """The questions of a file in SQuAD's form, with the columns that SQuAD has in `datasets`.

    Raises:
        UsageError: it has another form.
    """
    content = datafiles.whole_json(path)
    document = Row(str(path), content if isinstance(content, dict) else {})
    if not isinstance(document.fields.get("data"), list):
        raise datafiles.wrong(
            str(path),
            'SQuAD\'s JSON, {"data": [{"paragraphs": [...]}]}',
            f"type {type(content).__name__}" + (f" with {', '.join(content)}" if isinstance(content, dict) else ""),
            "CMRC 2018 has this form in its folder squad-style-data.",
        )
    for article in _items(document, "data", "article"):
        for paragraph in _items(article, "paragraphs", "paragraph"):
            for number, row in enumerate(_items(paragraph, "qas", "question"), 1):
                question = datafiles.value(row, "question")
                answers = [Row(row.where, answer) for answer in row.fields.get("answers", [])]
                columns = {
                    "id": str(row.fields.get("id", number)),
                    "context": datafiles.value(paragraph, "context"),
                    "question": question,
                    "answers": {
                        "text": [datafiles.value(answer, "text") for answer in answers],
                        "answer_start": [datafiles.value(answer, "answer_start", int) for answer in answers],
                    },
                }
                yield Row(row.where, columns)


def _items(holder: Row, name: str, what: str) -> list[Row]:
    found = datafiles.value(holder, name, list)
    return [Row(f"{holder.where}, {what} {number}", item) for number, item in enumerate(found, 1)]


def questions(split: str, rows: list[Row]) -> list[dict[str, Any]]:
    """Id, question, context, answers, and the first answer's place in the context, for each row.

    If an answer is not at the place that the row names, as in some rows of CMRC, the context is searched for it. A
    training question whose answer is not in the context is left out.

    Raises:
        UsageError: a column is missing; a question outside a test split has no answer; most answers are not found.
    """
    examples, lost = [], []
    for row in rows:
        context = datafiles.value(row, "context")
        answers = row.fields.get("answers") or {"text": [], "answer_start": []}
        example = {
            "id": str(row.fields.get("id", len(examples))),
            "question": datafiles.value(row, "question"),
            "context": context,
            "answers": list(answers["text"]),
        }
        if not context.strip():
            raise datafiles.wrong(row.where, "a text", "an empty context", "Leave the row out.")
        if answers["text"]:
            text, start = answers["text"][0].strip(), answers["answer_start"][0]
            start += len(answers["text"][0]) - len(answers["text"][0].lstrip())
            if start < 0 or not text or context[start : start + len(text)] != text:
                start = context.find(text) if text else -1
            if start < 0:
                lost.append(row.where)
                if split == "train":
                    continue
            example |= {"start": start, "end": start + len(text)}
        elif split != "test" or (examples and examples[0]["answers"]):
            raise datafiles.wrong(row.where, "an answer", "none", "Only a test split may do without, and then wholly.")
        examples.append({**example, "number": len(examples)})
    if lost and split == "train":
        if len(lost) > len(rows) // 2:
            expected, hint = "an answer that is a part of its context", "Check that the file is for span extraction."
            raise datafiles.wrong(lost[0], expected, f"another text, as in {len(lost)} of {len(rows)} rows", hint)
        training.say(f"{len(lost)} of {len(rows)} answers are not in their texts, left out: first {lost[0]}")
    return examples


if __name__ == "__main__":
    sys.exit(training.main(train))
