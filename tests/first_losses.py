"""A model's first training losses, on data made by rule: run by the tests and, unchanged, on transformers 4.40.2."""

from __future__ import annotations

from collections.abc import Iterator
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


def batches(head: str, config: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of 4, one of each length, always the same: with two segments, padding, and labels."""
    generator = torch.Generator().manual_seed(0)
    choices = 3 if head == "multiple-choice" else 1
    rows = 4 * choices
    for length in LENGTHS:
        ids = torch.randint(5, config.vocab_size, (rows, length), generator=generator)
        real = torch.arange(length) < torch.randint(length // 2, length + 1, (rows, 1), generator=generator)
        ids = ids.where(real, 0)
        segments = ((torch.arange(length) > length // 3) & real).long()
        inputs = {"input_ids": ids, "attention_mask": real.long(), "token_type_ids": segments}
        inputs = {name: one.unflatten(0, (4, choices)) if choices > 1 else one for name, one in inputs.items()}
        yield {**inputs, **_labels(head, config, ids, real, generator)}


def _labels(
    head: str, config: Any, ids: torch.Tensor, real: torch.Tensor, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    masked = real & (torch.rand(ids.shape, generator=generator) < 0.3)
    second = ids[:, 1]
    if head == "pretraining":
        return {"labels": ids.where(masked, -100), "next_sentence_label": second % 2}
    if head == "question-answering":
        return {"start_positions": second % 10, "end_positions": 10 + second % 10}
    by_head = {
        "masked-lm": ids.where(masked, -100),
        "next-sentence-prediction": second % 2,
        "sequence-classification": second % config.num_labels,
        "multiple-choice": second[:4] % 3,
        "token-classification": (ids % config.num_labels).where(real, -100),
    }
    return {"labels": by_head[head]}


def losses(head: str, model: Any) -> list[float]:
    """The loss of each of STEPS steps of AdamW, in training mode, over and over the batches."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    found = []
    for batch in list(batches(head, model.config)) * (STEPS // len(LENGTHS)):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found
