"""bert4keras' NEZHA, as Keras stores it; names as `formats.keras.read` gives them, or `formats.tf_bundle.objects`.

Source: bert4keras 0.11.5, models.py (class NEZHA on BERT), layers.py and backend.py. Its `save_weights_as_checkpoint`
writes Huawei's TensorFlow names instead.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from .heads import CLASSIFIER, ENCODER, LAYER, MLM, NSP, POOLER
from .huawei_tf import HUAWEI_TF
from .rules import Default, Defaults, Drop, Family, Rule, Unclear, linear, norm
from .words import BERT4KERAS_WORDS

_AT = "Transformer-{i}"
_ATTENTION, _FEED_FORWARD = f"{_AT}-MultiHeadSelfAttention", f"{_AT}-FeedForward"
_INNER = {
    _ATTENTION: (
        ("q_dense", f"{LAYER}.attention.self.query"),
        ("k_dense", f"{LAYER}.attention.self.key"),
        ("v_dense", f"{LAYER}.attention.self.value"),
        ("o_dense", f"{LAYER}.attention.output.dense"),
    ),
    _FEED_FORWARD: (("i0_dense", f"{LAYER}.intermediate.dense"), ("o_dense", f"{LAYER}.output.dense")),
}
"""The encoder's layers that hold dense layers, in the order in which they make them."""


def _rules(layout: str) -> dict[str, tuple[Rule, ...]]:
    """The rules of one layout.

    Keras numbers a layer's weights in the order in which it makes them. In the legacy layout a name is
    LAYER/NUMBER/KIND, and the numbers run on over the dense layers inside a layer; in that of Keras 3 it is
    LAYER/NUMBER or LAYER/DENSE LAYER/NUMBER; in TensorFlow's object-based checkpoints LAYER/KIND or LAYER/DENSE
    LAYER/KIND. A dense layer makes its kernel first, a layer norm its beta.
    """

    def weight(number: int, kind: str) -> str:
        return {"legacy": f"/{number}/{kind}", "modern": f"/{number}", "objects": f"/{kind}"}[layout]

    _linear = partial(linear, weight=weight(0, "kernel"), bias=weight(1, "bias"), transposed=True)
    _norm = partial(norm, weight=weight(1, "gamma"), bias=weight(0, "beta"))

    def inner(layer: str) -> tuple[Rule, ...]:
        rules: tuple[Rule, ...] = ()
        for n, (dense, target) in enumerate(_INNER[layer]):
            if layout == "legacy":
                rules += linear(layer, target, f"/{2 * n}/kernel", f"/{2 * n + 1}/bias", transposed=True)
            else:
                rules += _linear(f"{layer}/{dense}", target)
        return rules

    embeddings = "nezha.embeddings"
    return {
        ENCODER: (
            Rule(f"Embedding-Token{weight(0, 'embeddings')}", f"{embeddings}.word_embeddings.weight"),
            Rule(f"Embedding-Segment{weight(0, 'embeddings')}", f"{embeddings}.token_type_embeddings.weight"),
            *_norm("Embedding-Norm", f"{embeddings}.LayerNorm"),
            *inner(_ATTENTION),
            *_norm(f"{_ATTENTION}-Norm", f"{LAYER}.attention.output.LayerNorm"),
            *inner(_FEED_FORWARD),
            *_norm(f"{_FEED_FORWARD}-Norm", f"{LAYER}.output.LayerNorm"),
        ),
        POOLER: _linear("Pooler-Dense", "nezha.pooler.dense"),
        MLM: (
            *_linear("MLM-Dense", "cls.predictions.transform.dense"),
            *_norm("MLM-Norm", "cls.predictions.transform.LayerNorm"),
            Rule(f"MLM-Bias{weight(0, 'beta')}", "cls.predictions.bias"),
        ),
        NSP: _linear("NSP-Proba", "cls.seq_relationship"),
        # Keras' automatic name of somebody's own layer, without its number.
        CLASSIFIER: _linear("dense", "classifier"),
    }


_DEFAULTS = Defaults(
    activations={
        **{"gelu": "gelu", "gelu_erf": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "swish": "silu", "silu": "silu"},
        **{name: name for name in ("relu", "sigmoid", "tanh", "linear")},  # Keras' own
    },
    gelu='bert4keras computes "gelu" by erf; a model trained after set_gelu("tanh") needs gelu_pytorch_tanh',
    numbers={
        "layer_norm_eps": Default(
            1e-7,
            "Keras' own, as in every layer norm of bert4keras' NEZHA but the masked-LM head's, which has 1e-12",
            fixed=True,
        ),
        "hidden_dropout_prob": Default(0.0, "bert4keras drops nothing then"),
        "attention_probs_dropout_prob": Default(0.0, "bert4keras drops nothing then"),
        "classifier_dropout": Default(0.1, "bert4keras has no classifier; this is usual before one put on it"),
    },
    unclear=Unclear(
        ("token-classification", "encoder"),
        "may classify each token, or [CLS] without a pooler, which is the first token's class",
        pooler_tells=True,
    ),
)

_DROPS = (
    Drop("Embedding-Relative-Position/*", "a table of positions that the model computes", positions=True),
    Drop("optimizer*", "the optimizer's state", optimizer=True),
    Drop("save_counter", "TensorFlow's counter of saved checkpoints"),
    Drop("keras_api/metrics/*", "the training's metrics"),
)

_BACKBONE = ("Embedding-", "Transformer-", "Pooler-")

BERT4KERAS = Family(
    name="bert4keras",
    title="bert4keras",
    known_by="Embedding-Token/0/embeddings",
    rules=_rules("legacy"),
    defaults=_DEFAULTS,
    drops=_DROPS,
    backbone=_BACKBONE,
    words=BERT4KERAS_WORDS,
)

BERT4KERAS_MODERN = Family(
    name="bert4keras",
    title="bert4keras, in the layout of Keras 3",
    known_by="Embedding-Token/0",
    rules=_rules("modern"),
    defaults=_DEFAULTS,
    drops=_DROPS,
    backbone=_BACKBONE,
    words=BERT4KERAS_WORDS,
)

BERT4KERAS_OBJECTS = replace(
    BERT4KERAS_MODERN,
    title="bert4keras on tf.keras, saved by the objects that hold the weights",
    known_by="Embedding-Token/embeddings",
    rules=_rules("objects"),
)

BERT4KERAS_BUNDLE = Family(
    name="bert4keras",
    title="bert4keras, saved by save_weights_as_checkpoint",
    known_by=HUAWEI_TF.known_by,
    rules=HUAWEI_TF.rules,
    defaults=replace(_DEFAULTS, unclear=HUAWEI_TF.defaults.unclear),
    drops=HUAWEI_TF.drops,
    backbone=HUAWEI_TF.backbone,
    # Huawei's program always makes a pooler, and leaves its optimizer's state and a counter of steps.
    lacks=("bert/pooler/*", "*/adam_[mv]", "*/lamb_[mv]", "global_step"),
    words=BERT4KERAS_WORDS,
)
"""A TensorFlow bundle with Huawei's names and bert4keras' own arithmetic."""
