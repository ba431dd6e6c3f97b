"""The heads under transformers' Trainer: accumulated gradients, a run that was killed, half precision."""

from __future__ import annotations

import math

import first_losses
import pytest
import torch
from first_losses import HEADS, NO_DROPOUT
from pairs import PairTrainer
from transformers import TrainerCallback, TrainingArguments

import nezha

HEADS_WITH_VARYING_LABELS = ("pretraining", "masked-lm", "token-classification")
"""Heads that learn from as many labels as a batch happens to have."""


def tiny_model(head: str, **changes) -> torch.nn.Module:
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = nezha.NezhaConfig(**sizes, intermediate_size=24, initializer_range=0.2, **NO_DROPOUT, **changes)
    return getattr(nezha, HEADS[head])(config)


class Gradients(TrainerCallback):
    """Keeps the gradients of the last optimizer step."""

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        self.found = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def run(model, rows, folder, batch_size, accumulated, trainer_class=PairTrainer, **settings):
    """Losses by step, and the gradients of the last step."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulated,
        max_grad_norm=0,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        use_cpu=True,
        **settings,
    )
    gradients = Gradients()
    trainer = trainer_class(model, arguments, train_dataset=rows, callbacks=[gradients])
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], gradients.found


def largest_difference(actual, expected):
    """Of losses, and of gradients in units of each tensor's largest.

    Some gradients are nothing but rounding: a bias of keys, or of the scores of choices, changes no probability. So a
    unit is at least a hundredth of the largest gradient of all.
    """
    (loss, gradients), (expected_loss, expected_gradients) = actual, expected
    assert gradients.keys() == expected_gradients.keys()
    units = {name: gradient.abs().max().item() for name, gradient in expected_gradients.items()}
    smallest = max(units.values()) / 100
    errors = [
        (gradients[name] - gradient).abs().max().item() / max(units[name], smallest)
        for name, gradient in expected_gradients.items()
    ]
    return max(abs(loss[0] / expected_loss[0] - 1), *errors)


def both_ways(head, folder, trainer_class=PairTrainer):
    """The difference between one batch of 32 and four of 8."""
    batch = first_losses.batch(head, tiny_model(head).config, 32, 20)
    rows = [{name: tensor[i] for name, tensor in batch.items()} for i in range(32)]
    whole = run(tiny_model(head), rows, folder, 32, 1, trainer_class, max_steps=1)
    parts = run(tiny_model(head), rows, folder, 8, 4, trainer_class, max_steps=1)
    return largest_difference(parts, whole)


@pytest.mark.parametrize("head", HEADS)
def test_four_accumulated_batches_of_8_give_the_loss_and_gradients_of_one_of_32(head, tmp_path):
    assert both_ways(head, tmp_path) < 1e-4


@pytest.mark.parametrize("head", HEADS_WITH_VARYING_LABELS)
def test_that_test_tells_a_mean_of_means(head, tmp_path, monkeypatch):
    monkeypatch.setattr(getattr(nezha, HEADS[head]), "accepts_loss_kwargs", False)
    assert both_ways(head, tmp_path) > 1e-2


def test_without_the_number_of_pairs_their_loss_is_a_weighted_mean_over_the_batches():
    model = tiny_model("pretraining").eval()
    whole = first_losses.batch("pretraining", model.config, 8, 20)
    parts = [{name: tensor[i : i + 4] for name, tensor in whole.items()} for i in (0, 4)]
    words = [int((part["labels"] != -100).sum()) for part in parts]
    assert words[0] != words[1]
    losses = [model(**part, num_items_in_batch=sum(words)).loss for part in parts]
    exact = [model(**part, num_items_in_batch=sum(words), num_pairs_in_batch=8).loss for part in parts]
    assert sum(exact).item() == pytest.approx(model(**whole).loss.item(), rel=1e-6)

    def order(one):
        logits = model(**one).seq_relationship_logits
        return torch.nn.functional.cross_entropy(logits, one["next_sentence_label"]).item()

    weighted = sum(order(part) * count for part, count in zip(parts, words, strict=True)) / sum(words)
    assert sum(losses).item() == pytest.approx(sum(exact).item() - order(whole) + weighted, rel=1e-6)


@pytest.mark.parametrize(
    ("problem", "labels"),
    [
        ("regression", torch.arange(8.0) / 4),
        ("multi_label_classification", (torch.arange(24).view(8, 3) % 2).float()),
    ],
    ids=["regression", "multi-label"],
)
def test_numbers_and_several_labels_have_their_share_of_the_loss_too(problem, labels):
    model = tiny_model("sequence-classification", problem_type=problem, num_labels=labels[0].numel()).eval()
    inputs = first_losses.batch("sequence-classification", model.config, 8, 20) | {"labels": labels}
    parts = [{name: tensor[i] for name, tensor in inputs.items()} for i in (slice(0, 3), slice(3, 8))]
    shares = [model(**part, num_items_in_batch=torch.tensor(labels.numel())).loss for part in parts]
    assert sum(shares).item() == pytest.approx(model(**inputs).loss.item(), rel=1e-6)


def test_a_sum_in_float16_does_not_leave_its_range():
    model = tiny_model("masked-lm").half().eval()
    batch = first_losses.batch("masked-lm", model.config, 4, 20)
    with torch.no_grad():
        model.cls.predictions.bias.copy_(torch.where(torch.arange(64) == 1, 60000.0, 0.0))
    loss = model(**batch, num_items_in_batch=(batch["labels"] != -100).sum()).loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(60000, rel=1e-3)


@pytest.mark.parametrize("head", HEADS)
def test_in_bfloat16_the_loss_is_finite_and_falls(head, tmp_path):
    batch = first_losses.batch(head, tiny_model(head).config, 8, 20)
    rows = [{name: tensor[i] for name, tensor in batch.items()} for i in range(8)]
    losses, gradients = run(tiny_model(head), rows, tmp_path, 8, 1, max_steps=8, learning_rate=1e-2, bf16=True)
    assert all(map(math.isfinite, losses))
    assert losses[-1] < 0.9 * losses[0]
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("head", HEADS)
def test_in_float16_with_a_gradient_scaler_the_loss_is_finite_and_falls(head):
    """accelerate refuses fp16 on the CPU, so here are its two parts: autocast and torch's scaler."""
    model = tiny_model(head).train()
    batch = first_losses.batch(head, model.config, 8, 20)
    optimizer, scaler = torch.optim.AdamW(model.parameters(), lr=1e-2), torch.amp.GradScaler("cpu")
    losses = []
    for _ in range(8):
        with torch.autocast("cpu", dtype=torch.float16):
            loss = model(**batch).loss
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert all(map(math.isfinite, losses))
    assert losses[-1] < 0.9 * losses[0]
    assert scaler.get_scale() >= 2**15  # no more than one step was left out
