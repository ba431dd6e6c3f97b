"""Pre-train NEZHA on plain text, further or from scratch: on masked words and, optionally, the order of segments."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datafiles
import datasets
import numpy as np
import packing
import torch
import training
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.hf_argparser import HfArg
from whole_word_masking import IGNORED, WholeWordMasking, segmenter

from nezha_convert.errors import UsageError
from nezha_convert.files.hashing import sha256

DESCRIPTION = """Pre-train NEZHA on plain text by whole-word masking.

example:
  python examples/pretrain.py --model nezha-base --train corpus.txt --dev held-out.txt --bf16 --output my-nezha

Data: text with one sentence a line and an empty line between documents; JSON Lines with the column text, a document
each; patterns of such files in quotes; or --dataset NAME. Metrics: perplexity and accuracy of the masked tokens, with
--next_sentence also the accuracy of "does B follow A".
"""

DEFAULTS: dict[str, Any] = {
    "num_train_epochs": 1.0,
    "dataloader_num_workers": 1,
    "remove_unused_columns": False,
}
"""Batch 32, length 128 and a tenth of warm-up are run_pretraining.py's."""


@dataclass
class Arguments(training.Arguments):
    """The arguments of this script."""

    next_sentence: bool = HfArg(
        default=False, help="also learn whether the second segment follows the first, as BERT does"
    )
    from_scratch: bool = HfArg(default=False, help="take the config and tokenizer of --model, and draw new weights")
    text: str = HfArg(default="text", help="the column of the text in JSON Lines or --dataset")
    streaming: bool = HfArg(default=False, help="read --train during training, without storing it; needs --max_steps")
    preprocessing_workers: int | None = HfArg(
        default=None, help="processes that cut the text into words and sequences, without --streaming"
    )
    user_dict: str | None = HfArg(
        default=None, help="words for jieba: one a line, with a frequency and a part of speech or without"
    )
    mask_probability: float = HfArg(default=0.15, help="share of the tokens that are predicted")


def train(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run the script with a command line; return the content of metrics.json."""
    arguments, settings = training.parse(argv, DESCRIPTION, Arguments, defaults=DEFAULTS, rate=rate)
    check(arguments, settings)
    tokenizer = training.load_tokenizer(arguments)
    streamed = arguments.streaming
    masking = WholeWordMasking(
        tokenizer,
        arguments.mask_probability,
        settings.seed,
        # Processes that share one stream need rows of the same width.
        pad_to_multiple_of=arguments.max_length if streamed else 8,
    )
    with settings.main_process_first(desc="cutting the text into sequences"):
        data = {
            split: sequences(split, arguments, settings, tokenizer)
            for split in training.SPLITS
            if getattr(arguments, split) is not None
        }
    task = training.Task(
        name="fill-mask",
        data=data,
        collator=masking,
        metrics=metrics,
        shrink=shrink,
        rows={split: len(rows) for split, rows in data.items() if isinstance(rows, datasets.Dataset)},
        derived=not arguments.from_scratch,
        callbacks=[masking],
    )
    return training.run(task, load_model(arguments, settings), tokenizer, arguments, settings)


def rate(arguments: Arguments) -> float:
    """AdamW's learning rate: 1e-4 for the 768 units of NEZHA-base, as in BERT's paper; the wider a model, the less.

    A step of Adam moves each weight by about the rate, so a layer's outputs move by the rate times its width: the best
    rate goes as 1 / width (arXiv 2203.03466).
    """
    return 1e-4 * 768 / training.config_of(arguments).hidden_size


def check(arguments: Arguments, settings: training.Settings) -> None:
    """Refuse options that contradict each other."""
    if arguments.streaming and settings.max_steps <= 0:
        raise UsageError("--streaming: the length of a stream is not known", hint="Say how long to train: --max_steps.")
    if not 0 < arguments.mask_probability < 1:
        raise UsageError(f"--mask_probability: expected a share under 1, found {arguments.mask_probability}")
    if arguments.user_dict:
        try:
            segmenter(arguments.user_dict)
        except (OSError, ValueError) as error:
            hint = "A line is a word, or a word, its frequency and its part of speech, with spaces between them."
            raise datafiles.wrong(
                f"--user_dict {arguments.user_dict}", "jieba's dictionary", str(error), hint
            ) from error
    if arguments.max_length < 8:
        raise UsageError(f"--max_length: expected at least 8 tokens, found {arguments.max_length}")


def load_model(arguments: Arguments, settings: training.Settings) -> PreTrainedModel:
    """The model with the heads to train, from its weights or from its config alone."""
    auto = AutoModelForPreTraining if arguments.next_sentence else AutoModelForMaskedLM
    if not arguments.from_scratch:
        return training.load_model(auto, arguments, settings)
    set_seed(settings.seed)
    return auto.from_config(training.config_of(arguments), dtype=torch.float32)


def sequences(
    split: str, arguments: Arguments, settings: training.Settings, tokenizer: PreTrainedTokenizerBase
) -> datasets.Dataset | datasets.IterableDataset:
    """The examples of a split, as :class:`WholeWordMasking` takes them.

    Raises:
        UsageError: there is no such file or data set, or no example comes of it.
    """
    streamed = arguments.streaming and split == "train"
    documents = of_datasets(split, arguments, streamed) if arguments.dataset else of_files(split, arguments, streamed)
    pack = partial(
        packing.pack,
        tokenizer=tokenizer,
        max_length=arguments.max_length,
        next_sentence=arguments.next_sentence,
        seed=settings.seed,
        user_dict=(arguments.user_dict, sha256(Path(arguments.user_dict))) if arguments.user_dict else None,
    )
    options = {} if streamed else {"num_proc": arguments.preprocessing_workers}
    packed = documents.map(pack, batched=True, with_indices=True, remove_columns=["text"], **options)
    if streamed:
        return packed.shuffle(seed=settings.data_seed or settings.seed, buffer_size=10_000)
    if not len(packed):
        where = f"--{split} {getattr(arguments, split)}"
        raise datafiles.wrong(where, "at least two documents with sentences", "none", "See docs/training.md.")
    return packed


def of_files(split: str, arguments: Arguments, streamed: bool) -> datasets.Dataset | datasets.IterableDataset:
    """The documents of the files that a path or a pattern names."""
    pattern = getattr(arguments, split)
    files = training.matching_files(pattern)
    if not files:
        hint = "A pattern of several files goes in quotes: --train 'corpus/*.txt'."
        raise datafiles.wrong(f"--{split} {pattern}", "a file", "none", hint)
    # datasets caches what it read under a key; size and time of change are a part of it.
    keys = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    if next(documents_of(keys, arguments.text), None) is None:
        raise datafiles.wrong(f"--{split} {pattern}", "text", "none", "See the formats in docs/training.md.")
    kind = datasets.IterableDataset if streamed else datasets.Dataset
    features = datasets.Features({"text": datasets.List(datasets.Value("string"))})
    return kind.from_generator(documents_of, features=features, gen_kwargs={"files": keys, "column": arguments.text})


def documents_of(files: Sequence[tuple[str, int, int]], column: str) -> Iterator[dict[str, list[str]]]:
    """The sentences of each document of some files."""
    for name, _, _ in files:
        path = Path(name)
        if path.suffix in (".json", ".jsonl"):
            for row in datafiles.json_rows(path):
                yield {"text": packing.sentences(datafiles.value(row, column))}
            continue
        document: list[str] = []
        for _, line in datafiles.lines(path):
            if line.strip():
                document.append(line.strip())
            elif document:
                yield {"text": document}
                document = []
        if document:
            yield {"text": document}


def of_datasets(split: str, arguments: Arguments, streamed: bool) -> datasets.Dataset | datasets.IterableDataset:
    """The documents of a split of a data set that `datasets` loads."""
    name, text = getattr(arguments, split), arguments.text
    table = datafiles.of_the_library(arguments, name, streaming=streamed)
    columns = table.column_names or list(next(iter(table)))
    if text not in columns:
        where, hint = f"--dataset {arguments.dataset}, split {name}", "Name the column of the text by --text."
        raise datafiles.wrong(where, f"the column {text}", ", ".join(columns), hint)
    features = datasets.Features({"text": datasets.List(datasets.Value("string"))})
    return table.map(lambda row: {"text": packing.sentences(row[text])}, remove_columns=columns, features=features)


def shrink(logits: Any, labels: Any) -> torch.Tensor:
    """For each row [rows, 4]: masked tokens, the sum of their losses, how many are right; and 1 for the right order.

    The last column is NaN for a model that does not predict the order.
    """
    words, order = logits if isinstance(logits, tuple) else (logits, None)
    masked, follows = labels if isinstance(labels, tuple) else (labels, None)
    losses = torch.nn.functional.cross_entropy(
        words.float().transpose(1, 2), masked, ignore_index=IGNORED, reduction="none"
    )
    counts = [(masked != IGNORED).sum(1), losses.sum(1), (words.argmax(-1) == masked).sum(1)]
    right = torch.full_like(counts[1], math.nan) if order is None else order.argmax(-1) == follows
    return torch.stack([*(count.float() for count in counts), right.float()], 1)


def metrics(split: str, predicted: EvalPrediction) -> dict[str, float]:
    """Perplexity and accuracy over all masked tokens, and if there are pairs, the accuracy over them."""
    table = np.asarray(predicted.predictions, np.float64)
    tokens, loss, right, order = table.sum(0)
    measured = {"perplexity": math.exp(loss / tokens), "masked_accuracy": right / tokens, "masked_tokens": tokens}
    return measured if math.isnan(order) else {**measured, "next_sentence_accuracy": order / len(table)}


if __name__ == "__main__":
    sys.exit(training.main(train))
