"""A model's first training losses, on data made by rule: run by the tests and, unchanged, on transformers 4.40.2."""

from __future__ import annotations

from typing import Any

import torch

STEPS = 50
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0}
LENGTHS = (12, 80, 20, 16, 30, 70, 14, 24, 18, 192)
"""Of the batches: within the fixtures' clip distance, 64, past it, and long enough for the long form of attention."""

HEADS = {
    "pretraining": "NezhaForPreTraining",
    "masked-lm": "NezhaForMaskedLM",
    "next-sentence-prediction": "NezhaForNextSentencePrediction",
    "sequence-classification": "NezhaForSequenceClassification",
    "multiple-choice": "NezhaForMultipleChoice",
    "token-classification": "NezhaForTokenClassification",
    "question-answering": "NezhaForQuestionAnswering",
}
"""Every head that has a loss, and its class."""


def batch(head: str, config: Any, rows: int, length: int) -> dict[str, torch.Tensor]:
    """Inputs and labels, always the same: two segments, padding, and from row to row more or fewer labels."""
    generator = torch.Generator().manual_seed(length)
    choices = 3 if head == "multiple-choice" else 1
    shape = (rows * choices, length)
    ids = torch.randint(5, config.vocab_size, shape, generator=generator)
    real = torch.arange(length) < torch.randint(length // 2, length + 1, (len(ids), 1), generator=generator)
    chosen = torch.rand(shape, generator=generator) < torch.rand(len(ids), 1, generator=generator)
    chosen[:, 1] = True
    ids = ids.where(real, 0)
    inputs = {
        "input_ids": ids,
        "attention_mask": real.long(),
        "token_type_ids": ((torch.arange(length) > length // 3) & real).long(),
    }
    if choices > 1:
        inputs = {name: tensor.unflatten(0, (rows, choices)) for name, tensor in inputs.items()}
    first, words = ids[:rows, 1], ids.where(real & chosen, -100)
    labels = {
        "pretraining": {"labels": words, "next_sentence_label": first % 2},
        "masked-lm": {"labels": words},
        "next-sentence-prediction": {"labels": first % 2},
        "sequence-classification": {"labels": first % config.num_labels},
        "multiple-choice": {"labels": first % choices},
        "token-classification": {"labels": (words % config.num_labels).where(words != -100, -100)},
        "question-answering": {"start_positions": first % 3, "end_positions": 3 + first % 3},
    }
    return {**inputs, **labels[head]}


def losses(head: str, model: Any) -> list[float]:
    """The loss of each of STEPS steps of AdamW in training mode, over and over a batch of each length."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    batches = [batch(head, model.config, 4, length) for length in LENGTHS]
    values = []
    for inputs in batches * (STEPS // len(batches)):
        loss = model(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    return values
