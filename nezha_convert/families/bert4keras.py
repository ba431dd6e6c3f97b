"""bert4keras' NEZHA, as Keras stores it in HDF5; names as `formats.keras.read` gives them.

Source: bert4keras 0.11.5, models.py (class NEZHA on BERT), layers.py and backend.py. Its `save_weights_as_checkpoint`
writes Huawei's TensorFlow names instead.
"""

from __future__ import annotations

from collections.abc import Iterator

from .heads import CLASSIFIER, ENCODER, LAYER, MLM, NSP, POOLER
from .rules import Drop, Habit, Habits, Op, Rule, Table, Unclear

_DENSE = (("kernel", "weight", Op.TRANSPOSE), ("bias", "bias", Op.COPY))
_NORM = (("beta", "bias", Op.COPY), ("gamma", "weight", Op.COPY))
_EMBEDDING = (("embeddings", "weight", Op.COPY),)
_BIAS = (("beta", "bias", Op.COPY),)

_AT = "Transformer-{i}"

_LAYERS = {
    ENCODER: (
        ("Embedding-Token", _EMBEDDING, "nezha.embeddings.word_embeddings"),
        ("Embedding-Segment", _EMBEDDING, "nezha.embeddings.token_type_embeddings"),
        ("Embedding-Norm", _NORM, "nezha.embeddings.LayerNorm"),
        (f"{_AT}-MultiHeadSelfAttention-Norm", _NORM, f"{LAYER}.attention.output.LayerNorm"),
        (f"{_AT}-FeedForward-Norm", _NORM, f"{LAYER}.output.LayerNorm"),
    ),
    POOLER: (("Pooler-Dense", _DENSE, "nezha.pooler.dense"),),
    MLM: (
        ("MLM-Dense", _DENSE, "cls.predictions.transform.dense"),
        ("MLM-Norm", _NORM, "cls.predictions.transform.LayerNorm"),
        ("MLM-Bias", _BIAS, "cls.predictions"),
    ),
    NSP: (("NSP-Proba", _DENSE, "cls.seq_relationship"),),
    CLASSIFIER: (("dense", _DENSE, "classifier"),),  # whose it is: Keras' automatic name, without its number
}
"""Each part's layers: name, weights in their order, target."""

_WITHIN = (
    (
        f"{_AT}-MultiHeadSelfAttention",
        (
            ("q_dense", f"{LAYER}.attention.self.query"),
            ("k_dense", f"{LAYER}.attention.self.key"),
            ("v_dense", f"{LAYER}.attention.self.value"),
            ("o_dense", f"{LAYER}.attention.output.dense"),
        ),
    ),
    (
        f"{_AT}-FeedForward",
        (("i0_dense", f"{LAYER}.intermediate.dense"), ("o_dense", f"{LAYER}.output.dense")),
    ),
)
"""The encoder's layers that hold dense layers, in the order in which they make them."""


def _legacy() -> Iterator[tuple[str, Rule]]:
    """(part, rule) for LAYER/INDEX/KIND: the weights of a layer's inner layers count on."""
    for part, layers in _LAYERS.items():
        for name, weights, target in layers:
            for index, (kind, ours, op) in enumerate(weights):
                yield part, Rule(f"{name}/{index}/{kind}", f"{target}.{ours}", op)
    for name, inner in _WITHIN:
        counted = [(kind, f"{target}.{ours}", op) for _, target in inner for kind, ours, op in _DENSE]
        for index, (kind, target, op) in enumerate(counted):
            yield ENCODER, Rule(f"{name}/{index}/{kind}", target, op)


def _modern() -> Iterator[tuple[str, Rule]]:
    """(part, rule) for LAYER[/SUBLAYER]/INDEX."""
    for part, layers in _LAYERS.items():
        for name, weights, target in layers:
            for index, (_, ours, op) in enumerate(weights):
                yield part, Rule(f"{name}/{index}", f"{target}.{ours}", op)
    for name, inner in _WITHIN:
        for attribute, target in inner:
            for index, (_, ours, op) in enumerate(_DENSE):
                yield ENCODER, Rule(f"{name}/{attribute}/{index}", f"{target}.{ours}", op)


def _by_part(rules: Iterator[tuple[str, Rule]]) -> dict[str, tuple[Rule, ...]]:
    parts: dict[str, tuple[Rule, ...]] = {}
    for part, rule in rules:
        parts[part] = (*parts.get(part, ()), rule)
    return parts


_HABITS = Habits(
    activations={
        **{"gelu": "gelu", "gelu_erf": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "swish": "silu", "silu": "silu"},
        **{name: name for name in ("relu", "sigmoid", "tanh", "linear")},  # Keras' own
    },
    gelu='bert4keras computes "gelu" by erf; a model trained after set_gelu("tanh") needs gelu_pytorch_tanh',
    numbers={
        "layer_norm_eps": Habit(
            1e-7,
            "Keras' own, as in every layer norm of bert4keras' NEZHA but the masked-LM head's, which has 1e-12",
            fixed=True,
        ),
        "hidden_dropout_prob": Habit(0.0, "bert4keras drops nothing then"),
        "attention_probs_dropout_prob": Habit(0.0, "bert4keras drops nothing then"),
        "classifier_dropout": Habit(0.1, "bert4keras has no classifier; this is usual before one put on it"),
    },
    positions="Embedding-Relative-Position/",
    unclear=Unclear(
        ("token-classification", "encoder"),
        "may classify each token, or [CLS] without a pooler, which is the first token's class",
        pooler_tells=True,
    ),
)

_DROPS = (
    Drop("Embedding-Relative-Position/*", "a table of positions that the model computes"),
    Drop("optimizer*", "the optimizer's state", optimizer=True),
)

_BACKBONE = ("Embedding-", "Transformer-", "Pooler-")

BERT4KERAS = Table(
    name="bert4keras",
    title="bert4keras",
    rules=_by_part(_legacy()),
    habits=_HABITS,
    drops=_DROPS,
    backbone=_BACKBONE,
)

BERT4KERAS_MODERN = Table(
    name="bert4keras",
    title="bert4keras, in the layout of Keras 3",
    rules=_by_part(_modern()),
    habits=_HABITS,
    drops=_DROPS,
    backbone=_BACKBONE,
)
