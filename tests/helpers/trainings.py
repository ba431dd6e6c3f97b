"""A tiny model, converted, verified and trained for a step, as a training script leaves it."""

from __future__ import annotations

from pathlib import Path

import torch
from goldens import FIXTURES
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

import nezha  # noqa: F401  (the Auto classes know it then)
from nezha_convert import TrainedFolder, TrainingData, convert, record_training, verify

SOURCE = FIXTURES / "huawei-tf-pretraining"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", *map(chr, range(0x4E00, 0x4E00 + 49))]
TEXTS = ["一丁", "七丄丅", "abc", "万丈三"]


def make_base(folder: Path) -> Path:
    """A converted and verified model in `folder`/base, from a source in `folder`."""
    vocab = folder / "vocab.txt"
    vocab.write_text("\n".join(VOCABULARY) + "\n", "utf-8")
    convert(SOURCE, folder / "base", vocab=vocab)
    assert verify(SOURCE, folder / "base", vocab=vocab).passed
    return folder / "base"


def train(base: Path, folder: Path) -> TrainingArguments:
    """Train a classifier from `base` for a step and save it, with all that a Trainer leaves there, in `folder`."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, ignore_mismatched_sizes=True)
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = [{**tokenizer(text), "labels": number % 2} for number, text in enumerate(TEXTS)]
    arguments = TrainingArguments(
        str(folder),
        max_steps=1,
        learning_rate=0.003,
        seed=7,
        report_to=[],
        save_steps=1,
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    trainer.save_model(str(folder))
    return arguments


def record(folder: Path, base: Path | str, **changes: object) -> TrainedFolder:
    """The training of `folder` from `base`, recorded; the data lies beside `folder`."""
    file = folder.parent / "train.tsv"
    file.write_text("label\ttext_a\n1\t一丁\n", "utf-8")
    settings: dict = {
        "base": base,
        "task": "text-classification",
        "metrics": {"validation": {"accuracy": 0.9533, "f1_macro": 0.95}},
        "data": [
            TrainingData("train", "ChnSenti", (file,), rows=1),
            TrainingData("validation", "owner/ChnSenti", rows=2, revision="0123"),
        ],
        "settings": {"learning_rate": 3e-5, "seed": 7, "optimizer": "lamb"},
    }
    return record_training(folder, **settings | changes)


def logits(folder: Path | str) -> torch.Tensor:
    """The logits of the model of `folder` for `TEXTS`, [texts, labels]."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    with torch.no_grad():
        return model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
