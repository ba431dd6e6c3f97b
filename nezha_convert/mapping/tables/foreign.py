"""What is not NEZHA, or has no counterpart here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Foreign:
    """A model that is not NEZHA, or that has no counterpart here: known by a glob that one of its names matches."""

    pattern: str
    message: str
    hint: str
    encoder_converts: bool = False


FOREIGN = (
    Foreign(
        "*position_embeddings*",
        "this is a plain BERT: it has a table of absolute position embeddings, and NEZHA has none",
        "transformers loads a BERT by itself; for TensorFlow checkpoints see its BERT documentation.",
    ),
    Foreign(
        "*slot_classifier.*",
        "this is Huawei's joint intent and slot model (BertForJointLSTM), whose LSTM head has no counterpart in "
        "transformers and whose forward pass does not run in the original either",
        "Convert the encoder alone: add --head encoder.",
        encoder_converts=True,
    ),
)
