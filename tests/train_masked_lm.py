"""Train a masked LM by transformers' Trainer on fixed data; a script for `torchrun` and `accelerate launch`."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import HfArgumentParser, Trainer, TrainerCallback, TrainingArguments, set_seed

import nezha


@dataclass
class Arguments:
    """What the Trainer does not ask."""

    model: str
    kill_at: int | None = None


class MaskedSentences(Dataset):
    """64 sequences of one length, of which more or less is masked, and padded."""

    def __init__(self, vocab_size: int, length: int = 20) -> None:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(5, vocab_size, (64, length), generator=generator)
        real = torch.arange(length) < torch.randint(4, length + 1, (64, 1), generator=generator)
        masked = real & (torch.rand(ids.shape, generator=generator) < torch.rand(64, 1, generator=generator))
        masked[:, 1] = True
        self.columns = {
            "input_ids": ids.where(real, 0).masked_fill(masked, 4),
            "attention_mask": real.long(),
            "labels": ids.where(masked, -100),
        }

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: column[index] for name, column in self.columns.items()}


class Kill(TrainerCallback):
    """Ends the process at once when a step is done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train(argv: list[str]) -> Trainer:
    """One run; what `trainer.state.log_history` holds is in the output folder too."""
    arguments, settings = HfArgumentParser((Arguments, TrainingArguments)).parse_args_into_dataclasses(argv)
    set_seed(settings.seed)
    model = nezha.NezhaForMaskedLM.from_pretrained(arguments.model, dtype=torch.float32)
    callbacks = [] if arguments.kill_at is None else [Kill(arguments.kill_at)]
    trainer = Trainer(model, settings, train_dataset=MaskedSentences(model.config.vocab_size), callbacks=callbacks)
    trainer.train(resume_from_checkpoint=settings.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_state()
    return trainer


if __name__ == "__main__":
    train(sys.argv[1:])
