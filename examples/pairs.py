"""A Trainer for losses over words and over pairs of sentences."""

from __future__ import annotations

from typing import Any

from transformers import Trainer


class PairTrainer(Trainer):
    """Counts the pairs of sentences of an optimizer step, as transformers' Trainer counts its words.

    With both numbers, ``NezhaForPreTraining`` makes the loss of each accumulated batch its exact share of the step's
    loss: loss and gradients do not depend on how a step is cut into batches.
    """

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """The batches of a step, each with ``num_pairs_in_batch``, and the number of their words."""
        batches, words = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches and "next_sentence_label" in batches[0]:
            pairs = sum(batch["next_sentence_label"].ne(-100).sum() for batch in batches)
            if self.args.average_tokens_across_devices and self.args.world_size > 1:
                pairs = self.accelerator.gather(pairs.to(device)).sum()
            for batch in batches:
                batch["num_pairs_in_batch"] = int(pairs)
        return batches, words
