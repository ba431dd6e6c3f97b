"""PaddleNLP's NEZHA (paddlenlp/transformers/nezha/modeling.py and configuration.py of 2.8.1).

Every layer of Paddle keeps its weight as [in, out], the last of a head included. Every model has a pooler, and every
head but pretraining calls its last layer `classifier`: the class tells them apart, which the config names.
"""

from __future__ import annotations

from .heads import CLASSIFIER, ENCODER, LAYER, MLM, NSP, POOLER, QA
from .rules import Habit, Habits, Op, Rule, Table

_OWN = "nezha.encoder.layer.{i}"


def _linear(source: str, target: str) -> tuple[Rule, Rule]:
    return Rule(f"{source}.weight", f"{target}.weight", Op.TRANSPOSE), Rule(f"{source}.bias", f"{target}.bias")


def _norm(source: str, target: str) -> tuple[Rule, Rule]:
    return Rule(f"{source}.weight", f"{target}.weight"), Rule(f"{source}.bias", f"{target}.bias")


_EMBEDDINGS = (
    # The layer norm first: the family is known by it, for the word embedding is called as in transformers.
    *_norm("nezha.embeddings.layer_norm", "nezha.embeddings.LayerNorm"),
    Rule("nezha.embeddings.word_embeddings.weight", "nezha.embeddings.word_embeddings.weight"),
    Rule("nezha.embeddings.token_type_embeddings.weight", "nezha.embeddings.token_type_embeddings.weight"),
)

_LAYERS = (
    *_linear(f"{_OWN}.attention.query", f"{LAYER}.attention.self.query"),
    *_linear(f"{_OWN}.attention.key", f"{LAYER}.attention.self.key"),
    *_linear(f"{_OWN}.attention.value", f"{LAYER}.attention.self.value"),
    *_linear(f"{_OWN}.attention.dense", f"{LAYER}.attention.output.dense"),
    *_norm(f"{_OWN}.attention.layer_norm", f"{LAYER}.attention.output.LayerNorm"),
    *_linear(f"{_OWN}.ffn", f"{LAYER}.intermediate.dense"),
    *_linear(f"{_OWN}.ffn_output", f"{LAYER}.output.dense"),
    *_norm(f"{_OWN}.layer_norm", f"{LAYER}.output.LayerNorm"),
)

_POOLER = _linear("nezha.pooler.dense", "nezha.pooler.dense")

_ACTIVATIONS = (
    *("gelu", "gelu_10", "gelu_fast", "gelu_new", "gelu_python", "linear", "mish", "quick_gelu"),
    *("relu", "relu6", "sigmoid", "silu", "swish", "tanh"),
)
"""paddlenlp/transformers/activations.py: transformers' names, with the same meaning."""

_HABITS = Habits(
    activations={name: name for name in _ACTIVATIONS},
    gelu='PaddleNLP computes "gelu" by erf, as transformers does',
    numbers={
        "layer_norm_eps": Habit(1e-12, "hard-coded in PaddleNLP's NeZhaPretrainedModel._init_weights", fixed=True),
        "max_relative_position": Habit(64, "the default of PaddleNLP's NeZhaConfig"),
        "classifier_dropout": Habit(0.1, "the default of PaddleNLP's NeZhaConfig"),
    },
    switch=True,
)

PADDLE = Table(
    name="paddle",
    title="PaddleNLP",
    rules={
        ENCODER: _EMBEDDINGS + _LAYERS,
        POOLER: _POOLER,
        MLM: (
            *_linear("cls.predictions.dense", "cls.predictions.transform.dense"),
            *_norm("cls.predictions.layer_norm", "cls.predictions.transform.LayerNorm"),
            Rule("cls.predictions.decoder_bias", "cls.predictions.bias"),
            Rule("cls.predictions.decoder_weight", "cls.predictions.decoder.weight"),
        ),
        NSP: _linear("cls.seq_relationship", "cls.seq_relationship"),
        CLASSIFIER: _linear("classifier", "classifier"),
        QA: _linear("classifier", "qa_outputs"),
    },
    habits=_HABITS,
    backbone=("nezha.",),
)


def _without_head(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    return tuple(Rule(rule.source.removeprefix("nezha."), rule.target, rule.op) for rule in rules)


PADDLE_BASE = Table(
    name="paddle",
    title="PaddleNLP, the model without a head",
    rules={ENCODER: _without_head(_EMBEDDINGS + _LAYERS), POOLER: _without_head(_POOLER)},
    habits=_HABITS,
    backbone=("embeddings.", "encoder.", "pooler."),
)
