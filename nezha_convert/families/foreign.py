"""What is not NEZHA, or has no counterpart here.

Sources: the programs' own names of tensors. Huawei's NEZHA-Gen-TensorFlow (interactive_conditional_generation.py,
poetry.py) has BERT's names, a table of positions and no pooler; every BERT of TensorFlow has one. JABERv2 is BERT as
transformers has it (JABER-PyTorch/run_alue.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Foreign:
    """A model that is not NEZHA, or that has no counterpart here.

    Attributes:
        pattern: a glob that one of its names matches.
        message: what it is.
        hint: what to do.
        encoder_converts: its encoder is NEZHA's.
        without: a glob that none of its names matches; empty where the pattern says it all.
    """

    pattern: str
    message: str
    hint: str
    encoder_converts: bool = False
    without: str = ""


_BY_ITSELF = "transformers loads {} by itself; this tool converts NEZHA alone."
_ROTARY = "a model with rotary positions, which turn queries and keys instead of adding to them"
_BERT = "this is a plain BERT: it has a table of absolute position embeddings, and NEZHA has none"
_BERT_HINT = "transformers loads a BERT by itself; for TensorFlow checkpoints see its BERT documentation."

FOREIGN = (
    *(
        Foreign(f"*{pattern}", f"this is {title}, not NEZHA", _BY_ITSELF.format(title))
        for pattern, title in (
            ("albert[./]*", "ALBERT"),
            ("albert_layer*", "ALBERT"),
            ("encoder/transformer/group_*", "ALBERT"),
            ("roberta[./]*", "RoBERTa"),
            ("electra[./]*", "ELECTRA"),
            ("discriminator_predictions[./]*", "ELECTRA"),
            ("distilbert.*", "DistilBERT"),
            ("deberta.*", "DeBERTa"),
            ("ernie.*", "ERNIE"),
            ("task_type_embeddings.*", "ERNIE"),
        )
    ),
    Foreign("*roformer[./]*", f"this is RoFormer, {_ROTARY}", _BY_ITSELF.format("RoFormer")),
    Foreign("*encoder.embed_positions.*", f"this is RoFormer, {_ROTARY}", _BY_ITSELF.format("RoFormer")),
    Foreign(
        "*relative_positions_encoding.cos_position",
        f"this is bert4torch's RoFormer, {_ROTARY}",
        "In transformers it is RoFormer; bert4torch's save_pretrained writes its names.",
    ),
    Foreign(
        "bert/embeddings/position_embeddings",
        "this is NEZHA-Gen, Huawei's GPT: it has BERT's names, absolute positions, and no pooler",
        "It generates text from left to right; there is nothing in NEZHA that it could become.",
        without="bert/pooler/*",
    ),
    Foreign(
        "*bert.embeddings.position_embeddings.weight",
        f"{_BERT}. JABERv2, the successor of the Arabic JABER, is one too",
        "transformers loads it by itself: BertModel.from_pretrained(FOLDER).",
    ),
    Foreign("*embeddings[./]position_embeddings*", _BERT, _BERT_HINT),
    Foreign("Embedding-Position*", _BERT, _BERT_HINT),
    Foreign(
        "*bert_embedding_lookup.embedding_table",
        "this is BERT of MindSpore's model zoo: its layers have no tables of relative positions, and NEZHA's have them",
        "If it is NEZHA, save all of it with MindSpore: mindspore.save_checkpoint(network, 'bert_nezha.ckpt')",
        without="*._generate_relative_positions_embeddings.*",
    ),
    Foreign(
        "*encoderLayer.*.multiHeadAttention.q.weight",
        "this is bert4torch's, but not its NEZHA, which saves a table of relative positions with each layer; without "
        "one its RoFormer has the same names, and other outputs",
        "If it is NEZHA, save it once more with bert4torch: model.save_pretrained(FOLDER).",
        without="*.relative_positions_encoding.position_embeddings",
    ),
    Foreign(
        "Transformer-*-MultiHeadSelfAttention*",
        "this is bert4keras', but not its NEZHA, which saves a table of relative positions; without one its RoFormer "
        "has the same names, and other outputs",
        "If it is NEZHA, save it once more with bert4keras: model.save_weights(FILE).",
        without="Embedding-Relative-Position*",
    ),
    Foreign(
        "*slot_classifier.*",
        "this is Huawei's joint intent and slot model (BertForJointLSTM), whose LSTM head has no counterpart in "
        "transformers and whose forward pass does not run in the original either",
        "Convert the encoder alone: add --head encoder.",
        encoder_converts=True,
    ),
)
"""The first that fits is it."""
