"""What is converted to: every tensor of every model, what is tied, and the heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .rules import Tie

HIDDEN, FEED_FORWARD, VOCAB, TYPES, LABELS = (
    "hidden_size",
    "intermediate_size",
    "vocab_size",
    "type_vocab_size",
    "num_labels",
)

LAYER = "nezha.encoder.layer.{i}"

TARGETS: dict[str, dict[str, tuple[str | int, ...]]] = {
    "encoder": {
        "nezha.embeddings.word_embeddings.weight": (VOCAB, HIDDEN),
        "nezha.embeddings.token_type_embeddings.weight": (TYPES, HIDDEN),
        "nezha.embeddings.LayerNorm.weight": (HIDDEN,),
        "nezha.embeddings.LayerNorm.bias": (HIDDEN,),
        f"{LAYER}.attention.self.query.weight": (HIDDEN, HIDDEN),
        f"{LAYER}.attention.self.query.bias": (HIDDEN,),
        f"{LAYER}.attention.self.key.weight": (HIDDEN, HIDDEN),
        f"{LAYER}.attention.self.key.bias": (HIDDEN,),
        f"{LAYER}.attention.self.value.weight": (HIDDEN, HIDDEN),
        f"{LAYER}.attention.self.value.bias": (HIDDEN,),
        f"{LAYER}.attention.output.dense.weight": (HIDDEN, HIDDEN),
        f"{LAYER}.attention.output.dense.bias": (HIDDEN,),
        f"{LAYER}.attention.output.LayerNorm.weight": (HIDDEN,),
        f"{LAYER}.attention.output.LayerNorm.bias": (HIDDEN,),
        f"{LAYER}.intermediate.dense.weight": (FEED_FORWARD, HIDDEN),
        f"{LAYER}.intermediate.dense.bias": (FEED_FORWARD,),
        f"{LAYER}.output.dense.weight": (HIDDEN, FEED_FORWARD),
        f"{LAYER}.output.dense.bias": (HIDDEN,),
        f"{LAYER}.output.LayerNorm.weight": (HIDDEN,),
        f"{LAYER}.output.LayerNorm.bias": (HIDDEN,),
    },
    "pooler": {
        "nezha.pooler.dense.weight": (HIDDEN, HIDDEN),
        "nezha.pooler.dense.bias": (HIDDEN,),
    },
    "masked-LM part": {
        "cls.predictions.transform.dense.weight": (HIDDEN, HIDDEN),
        "cls.predictions.transform.dense.bias": (HIDDEN,),
        "cls.predictions.transform.LayerNorm.weight": (HIDDEN,),
        "cls.predictions.transform.LayerNorm.bias": (HIDDEN,),
        "cls.predictions.bias": (VOCAB,),
        "cls.predictions.decoder.weight": (VOCAB, HIDDEN),
        "cls.predictions.decoder.bias": (VOCAB,),
    },
    "next-sentence part": {
        "cls.seq_relationship.weight": (2, HIDDEN),
        "cls.seq_relationship.bias": (2,),
    },
    "classifier": {
        "classifier.weight": (LABELS, HIDDEN),
        "classifier.bias": (LABELS,),
    },
    "question-answering part": {
        "qa_outputs.weight": (2, HIDDEN),
        "qa_outputs.bias": (2,),
    },
}
"""Every tensor of every model, by part, in transformers 4.40.2's names, with its shape in the config's terms."""

ENCODER, POOLER, MLM, NSP, CLASSIFIER, QA = TARGETS

DECODER = "cls.predictions.decoder.weight"

TIES = (
    Tie(DECODER, "nezha.embeddings.word_embeddings.weight"),
    Tie("cls.predictions.decoder.bias", "cls.predictions.bias"),
)


@dataclass(frozen=True, slots=True)
class Head:
    """A model class: its name on the command line, in transformers, its Auto class, and the parts it is made of."""

    name: str
    architecture: str
    auto_class: str
    parts: tuple[str, ...]

    @property
    def bare(self) -> bool:
        """Whether it is the model without a head, in which no name begins with "nezha."."""
        return self.auto_class == "AutoModel"

    def without(self, part: str) -> Head:
        """The same head of a checkpoint that does not have `part`."""
        return replace(self, parts=tuple(own for own in self.parts if own != part))


HEADS = {
    head.name: head
    for head in (
        Head("encoder", "NezhaModel", "AutoModel", (ENCODER, POOLER)),
        Head("pretraining", "NezhaForPreTraining", "AutoModelForPreTraining", (ENCODER, POOLER, MLM, NSP)),
        Head("masked-lm", "NezhaForMaskedLM", "AutoModelForMaskedLM", (ENCODER, MLM)),
        Head("causal-lm", "NezhaForCausalLM", "AutoModelForCausalLM", (ENCODER, MLM)),
        Head("prefix-lm", "NezhaForCausalLM", "AutoModelForCausalLM", (ENCODER, MLM)),
        Head(
            "next-sentence-prediction",
            "NezhaForNextSentencePrediction",
            "AutoModelForNextSentencePrediction",
            (ENCODER, POOLER, NSP),
        ),
        Head(
            "sequence-classification",
            "NezhaForSequenceClassification",
            "AutoModelForSequenceClassification",
            (ENCODER, POOLER, CLASSIFIER),
        ),
        Head(
            "multiple-choice",
            "NezhaForMultipleChoice",
            "AutoModelForMultipleChoice",
            (ENCODER, POOLER, CLASSIFIER),
        ),
        Head(
            "token-classification",
            "NezhaForTokenClassification",
            "AutoModelForTokenClassification",
            (ENCODER, CLASSIFIER),
        ),
        Head(
            "question-answering",
            "NezhaForQuestionAnswering",
            "AutoModelForQuestionAnswering",
            (ENCODER, QA),
        ),
    )
}

GENERATING = ("causal-lm", "prefix-lm")
"""The heads that generate text: one class, whose config says `prefix_lm`."""


def head_of(architecture: str | None, config: Mapping[str, Any]) -> Head | None:
    """The head of which a converted model's config names the class."""
    if architecture == HEADS["prefix-lm"].architecture and config.get("prefix_lm"):
        return HEADS["prefix-lm"]
    return next((head for head in HEADS.values() if head.architecture == architecture), None)
