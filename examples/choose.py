"""Fine-tune NEZHA to choose one of several answers: multiple choice, C3."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clue
import datafiles
import numpy as np
import torch
import training
from datafiles import Row
from sklearn.metrics import accuracy_score
from transformers import AutoModelForMultipleChoice, EvalPrediction, PreTrainedTokenizerBase
from transformers.hf_argparser import HfArg

DESCRIPTION = """Fine-tune NEZHA to choose one of several answers.

example:
  python examples/choose.py --model nezha-base --train c3-m-train.json --dev c3-m-dev.json --output chooser

Data: C3's JSON, [[[line, ...], [{question, choice, answer}, ...], id], ...]; JSON Lines with context, question, choices
and answer, which is a choice's text or its number from 0; or --dataset NAME. Metric: accuracy.
"""

DEFAULTS = {"per_device_train_batch_size": 8, "max_length": 512, "num_train_epochs": 8.0}
"""Huawei published none for this task; these are ours."""

CHOICES = ("choices", "choice", "options")
ANSWER = ("answer", "label")


@dataclass
class Arguments(training.Arguments):
    """The arguments of this script."""

    context: str = HfArg(default="context", help="column of the text, a string or a list of lines")
    question: str = HfArg(default="question", help="column of the question")
    choices: str | None = HfArg(default=None, help=f"column of the choices; default: {', '.join(CHOICES)}")
    answer: str | None = HfArg(default=None, help=f"column of the answer; default: {', '.join(ANSWER)}")


def train(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run the script with a command line; return the content of metrics.json."""
    arguments, settings = training.parse(argv, DESCRIPTION, Arguments, defaults=DEFAULTS, best="accuracy")
    tokenizer = training.load_tokenizer(arguments)
    splits = {split: questions(split, rows, arguments) for split, rows in datafiles.read(arguments, c3).items()}

    def encode(rows: dict[str, list[Any]]) -> dict[str, Any]:
        """Make one sequence of each choice: the text, cut if it is too long, then the question and the choice."""
        counts = [len(choices) for choices in rows["choices"]]
        texts = [context for context, count in zip(rows["context"], counts, strict=True) for _ in range(count)]
        questions_and_choices = [
            question + choice
            for question, choices in zip(rows["question"], rows["choices"], strict=True)
            for choice in choices
        ]
        flat = tokenizer(texts, questions_and_choices, truncation="only_first", max_length=arguments.max_length)
        ends = np.cumsum(counts)
        encoded = {
            name: [values[end - count : end] for end, count in zip(ends, counts, strict=True)]
            for name, values in flat.items()
        }
        cut = [bool(row.overflowing) for row in flat.encodings]
        encoded["cut"] = [any(cut[end - count : end]) for end, count in zip(ends, counts, strict=True)]
        return {**encoded, "labels": rows["label"]} if "label" in rows else encoded

    def predictions(split: str, logits: np.ndarray) -> Iterator[dict[str, Any]]:
        for row, best in zip(splits[split], logits.argmax(-1), strict=True):
            yield {"id": row["id"], "question": row["question"], "label": int(best), "answer": row["choices"][best]}

    task = training.Task(
        name="multiple-choice",
        data={split: training.tokenized(rows, encode) for split, rows in splits.items()},
        collator=Collator(tokenizer, max(len(row["choices"]) for rows in splits.values() for row in rows)),
        metrics=metrics,
        predictions=predictions,
        rows={split: len(rows) for split, rows in splits.items()},
        loss=loss,
    )
    model = training.load_model(AutoModelForMultipleChoice, arguments, settings)
    model.register_forward_hook(leave_out_missing, with_kwargs=True)
    return training.run(task, model, tokenizer, arguments, settings)


def metrics(split: str, predicted: EvalPrediction) -> dict[str, float]:
    """Accuracy of logits [rows, choices], given the numbers of the right choices [rows]."""
    return {"accuracy": float(accuracy_score(predicted.label_ids, predicted.predictions.argmax(-1)))}


@dataclass(frozen=True)
class Collator:
    """Makes tensors [rows, choices, tokens]; a sequence of one token stands for a choice that a row does not have.

    Args:
        tokenizer: pads the sequences.
        choices: the largest number of choices of any row. All batches use it, so that their logits fit together.
    """

    tokenizer: PreTrainedTokenizerBase
    choices: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """One batch."""
        names = [name for name in rows[0] if name != "labels"]
        flat = [
            {name: row[name][choice] if choice < len(row[name]) else row[name][0][:1] for name in names}
            for row in rows
            for choice in range(self.choices)
        ]
        padded = self.tokenizer.pad(flat, return_tensors="pt")
        batch = {name: tensor.view(len(rows), self.choices, -1) for name, tensor in padded.items()}
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch


def leave_out_missing(model: Any, args: Any, inputs: dict[str, Any], outputs: Any) -> Any:
    """A forward hook: the lowest logit for choices that a row does not have, so that they get no probability."""
    missing = inputs["attention_mask"].sum(-1) <= 1
    outputs.logits = outputs.logits.masked_fill(missing, torch.finfo(outputs.logits.dtype).min)
    return outputs


def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None) -> torch.Tensor:
    """Cross entropy of the hook's logits, as a mean over all rows of an optimizer step."""
    if num_items_in_batch is None:
        return torch.nn.functional.cross_entropy(outputs.logits, labels)
    return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch


def c3(path: Path) -> Iterator[Row]:
    """The questions of a file in C3's form, or the rows of a JSON or JSON Lines file.

    Raises:
        UsageError: an item has neither form.
    """
    for item in datafiles.json_rows(path):
        if isinstance(item.fields, dict):
            yield from clue.chid(item, path) if {"content", "candidates"} <= set(item.fields) else [item]
            continue
        match item.fields:
            case [[*lines], [*asked], *rest] if all(isinstance(q, dict) for q in asked):
                for number, question in enumerate(asked, 1):
                    name = {"context": lines, "id": f"{rest[0] if rest else item.where}-{number}"}
                    yield Row(f"{item.where}, question {number}", {**name, **question})
            case _:
                raise datafiles.wrong(
                    item.where,
                    "[[line, ...], [{question, choice, answer}, ...], id] or an object of columns",
                    str(item.fields)[:80],
                    "See the formats in docs/training.md.",
                )


def questions(split: str, rows: list[Row], arguments: Arguments) -> list[dict[str, Any]]:
    """Context, question, choices, and the number of the right choice, for each row.

    Raises:
        UsageError: a column is missing; a row has fewer than two choices; the answer is not one of them.
    """
    choice_column = datafiles.column(rows, "--choices", arguments.choices, CHOICES)
    answer_column = datafiles.column(rows, "--answer", arguments.answer, ANSWER, needed=split != "test")
    examples = []
    for row in rows:
        context = datafiles.value(row, arguments.context, (str, list))
        choices = datafiles.value(row, choice_column, list)
        if len(choices) < 2 or not all(isinstance(choice, str) for choice in choices):
            raise datafiles.wrong(row.where, "at least two choices, each a text", str(choices)[:80], "Mend the row.")
        example = {
            "id": row.fields.get("id", len(examples)),
            "context": context if isinstance(context, str) else "\n".join(map(str, context)),
            "question": datafiles.value(row, arguments.question),
            "choices": choices,
        }
        if answer_column is not None:
            example["label"] = _label(datafiles.value(row, answer_column, (str, int)), choices, row.where)
        examples.append(example)
    return examples


def _label(answer: str | int, choices: list[str], where: str) -> int:
    if answer in choices:
        return choices.index(answer)
    if isinstance(answer, int) and 0 <= answer < len(choices):
        return answer
    raise datafiles.wrong(
        where,
        f"one of the choices {', '.join(choices)}, or its number from 0",
        repr(answer),
        "Mend the row, or name the column by --answer.",
    )


if __name__ == "__main__":
    sys.exit(training.main(train))
