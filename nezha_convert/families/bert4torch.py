"""bert4torch's NEZHA: its own state dict, and what its ``save_pretrained`` writes, which is spelt as Huawei's.

Sources: bert4torch 0.1.1 to 0.6.2 (models/bert.py ``variable_mapping``, layers/attention.py, activations.py). Its MLM
decoder is a parameter of its own unless the model was built with ``tie_word_embeddings``.
"""

from __future__ import annotations

from ..checkpoint import Decision
from .heads import ENCODER, LAYER, MLM, NSP, POOLER
from .rules import Habit, Habits, Rule, Table
from .torch_names import BUFFERS, torch_rules

_OWN = "encoderLayer.{i}"
_LINEAR = {
    "multiHeadAttention.q": "attention.self.query",
    "multiHeadAttention.k": "attention.self.key",
    "multiHeadAttention.v": "attention.self.value",
    "multiHeadAttention.o": "attention.output.dense",
    "attnLayerNorm": "attention.output.LayerNorm",
    "feedForward.intermediateDense": "intermediate.dense",
    "feedForward.outputDense": "output.dense",
    "ffnLayerNorm": "output.LayerNorm",
}
_LINEAR_TO_0_3 = {"layerNorm1": "attention.output.LayerNorm", "layerNorm2": "output.LayerNorm"}
_ACTIVATIONS = (
    *("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "quick_gelu"),
    *("relu", "silu", "mish", "tanh", "sigmoid", "linear"),
)


def _both(source: str, target: str, written: bool = True) -> tuple[Rule, Rule]:
    """The rules of a module's weight and bias."""
    weight, bias = (Rule(f"{source}.{name}", f"{target}.{name}", written=written) for name in ("weight", "bias"))
    return weight, bias


_HABITS = Habits(
    activations={name: name for name in _ACTIVATIONS} | {"swish": "silu"},
    gelu='bert4torch computes "gelu" by erf, as transformers does',
    numbers={
        "max_relative_position": Habit(64, "bert4torch's NEZHA takes 64"),
        "layer_norm_eps": Habit(1e-12, "bert4torch's default"),
    },
    tied=False,
    notes=(
        Decision(
            "attention scores",
            "divided by the root of the head size",
            "NEZHA was trained so, and bert4torch computes so up to 0.5.7; 0.5.8 to 0.6.2 leave it out, and what "
            "was trained with these is another model",
        ),
    ),
)

BERT4TORCH = Table(
    name="bert4torch",
    title="bert4torch",
    rules={
        ENCODER: (
            Rule("embeddings.word_embeddings.weight", "nezha.embeddings.word_embeddings.weight"),
            Rule("embeddings.segment_embeddings.weight", "nezha.embeddings.token_type_embeddings.weight"),
            *_both("embeddings.layerNorm", "nezha.embeddings.LayerNorm"),
            *(rule for own, target in _LINEAR.items() for rule in _both(f"{_OWN}.{own}", f"{LAYER}.{target}")),
            *(
                rule
                for own, target in _LINEAR_TO_0_3.items()
                for rule in _both(f"{_OWN}.{own}", f"{LAYER}.{target}", written=False)
            ),
        ),
        POOLER: _both("pooler", "nezha.pooler.dense"),
        MLM: (
            *_both("mlmDense", "cls.predictions.transform.dense"),
            *_both("mlmLayerNorm", "cls.predictions.transform.LayerNorm"),
            Rule("mlmBias", "cls.predictions.bias"),
            *_both("mlmDecoder", "cls.predictions.decoder"),
        ),
        NSP: _both("nsp", "cls.seq_relationship"),
    },
    habits=_HABITS,
    drops=BUFFERS,
    backbone=("embeddings.", "encoderLayer.", "pooler."),
    wrappers=("module.", "bert."),
    known_by="embeddings.layerNorm.weight",  # for the word embedding is called as in transformers
)

BERT4TORCH_SAVED = Table(
    name="bert4torch",
    title="bert4torch, saved for transformers by save_pretrained",
    rules=torch_rules("bert.", (ENCODER, POOLER, MLM, NSP)),
    habits=_HABITS,
    drops=BUFFERS,
    backbone=("bert.",),
    known_by="encoderLayer.0.multiHeadAttention.relative_positions_encoding.position_embeddings",  # keeps its own name
)
