"""PaddleNLP's NEZHA (paddlenlp/transformers/nezha/modeling.py and configuration.py of 2.8.1).

Every layer of Paddle keeps its weight as [in, out], the last one of a head included. Every model has a pooler. Every
head but pretraining calls its last layer `classifier`: the class that the config names tells them apart.
"""

from __future__ import annotations

from functools import partial

from ..formats.paddle import write_paddle
from .heads import CLASSIFIER, ENCODER, LAYER, MLM, NSP, POOLER, QA
from .program import CLASSIFIED, COMMON_HEADS, PRETRAINING, Program
from .rules import Default, Defaults, Family, Rule, linear, norm
from .words import PADDLE_WORDS

_linear = partial(linear, transposed=True)

_SOURCE = "nezha.encoder.layer.{i}"

_ENCODER = (
    *norm("nezha.embeddings.layer_norm", "nezha.embeddings.LayerNorm"),
    Rule("nezha.embeddings.word_embeddings.weight", "nezha.embeddings.word_embeddings.weight"),
    Rule("nezha.embeddings.token_type_embeddings.weight", "nezha.embeddings.token_type_embeddings.weight"),
    *_linear(f"{_SOURCE}.attention.query", f"{LAYER}.attention.self.query"),
    *_linear(f"{_SOURCE}.attention.key", f"{LAYER}.attention.self.key"),
    *_linear(f"{_SOURCE}.attention.value", f"{LAYER}.attention.self.value"),
    *_linear(f"{_SOURCE}.attention.dense", f"{LAYER}.attention.output.dense"),
    *norm(f"{_SOURCE}.attention.layer_norm", f"{LAYER}.attention.output.LayerNorm"),
    *_linear(f"{_SOURCE}.ffn", f"{LAYER}.intermediate.dense"),
    *_linear(f"{_SOURCE}.ffn_output", f"{LAYER}.output.dense"),
    *norm(f"{_SOURCE}.layer_norm", f"{LAYER}.output.LayerNorm"),
)

_POOLER = _linear("nezha.pooler.dense", "nezha.pooler.dense")

_ACTIVATIONS = (
    *("gelu", "gelu_10", "gelu_fast", "gelu_new", "gelu_python", "linear", "mish", "quick_gelu"),
    *("relu", "relu6", "sigmoid", "silu", "swish", "tanh"),
)
"""paddlenlp/transformers/activations.py: transformers' names, with the same meaning."""

_DEFAULTS = Defaults(
    activations={name: name for name in _ACTIVATIONS},
    gelu='PaddleNLP computes "gelu" by erf, as transformers does',
    numbers={
        "layer_norm_eps": Default(1e-12, "hard-coded in PaddleNLP's NeZhaPretrainedModel._init_weights", fixed=True),
        "max_relative_position": Default(64, "the default of PaddleNLP's NeZhaConfig"),
        "classifier_dropout": Default(0.1, "the default of PaddleNLP's NeZhaConfig"),
    },
    masked_rows="unmasked",
    switch=True,
)

PADDLE = Family(
    name="paddle",
    title="PaddleNLP",
    known_by="nezha.embeddings.layer_norm.weight",  # the word embedding is called as in transformers
    rules={
        ENCODER: _ENCODER,
        POOLER: _POOLER,
        MLM: (
            *_linear("cls.predictions.dense", "cls.predictions.transform.dense"),
            *norm("cls.predictions.layer_norm", "cls.predictions.transform.LayerNorm"),
            Rule("cls.predictions.decoder_bias", "cls.predictions.bias"),
            Rule("cls.predictions.decoder_weight", "cls.predictions.decoder.weight"),
        ),
        NSP: _linear("cls.seq_relationship", "cls.seq_relationship"),
        CLASSIFIER: _linear("classifier", "classifier"),
        QA: _linear("classifier", "qa_outputs"),
    },
    defaults=_DEFAULTS,
    backbone=("nezha.",),
    words=PADDLE_WORDS,
)


def _without_head(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    return tuple(Rule(rule.source.removeprefix("nezha."), rule.target, rule.op) for rule in rules)


PADDLE_BASE = Family(
    name="paddle",
    title="PaddleNLP, the model without a head",
    known_by="embeddings.layer_norm.weight",
    rules={ENCODER: _without_head(_ENCODER), POOLER: _without_head(_POOLER)},
    defaults=_DEFAULTS,
    backbone=("embeddings.", "encoder.", "pooler."),
    words=PADDLE_WORDS,
)

PROGRAM = Program(
    PADDLE,
    base=PADDLE_BASE,
    weights="model_state.pdparams",
    write=write_paddle,
    config="config.json",
    heads=COMMON_HEADS | {"masked-lm": PRETRAINING, "multiple-choice": CLASSIFIED, "token-classification": CLASSIFIED},
    classes={
        "encoder": "NeZhaModel",
        **dict.fromkeys(("pretraining", "masked-lm", "next-sentence-prediction"), "NeZhaForPretraining"),
        "sequence-classification": "NeZhaForSequenceClassification",
        "multiple-choice": "NeZhaForMultipleChoice",
        "token-classification": "NeZhaForTokenClassification",
        "question-answering": "NeZhaForQuestionAnswering",
    },
    loaded_by="paddlenlp.transformers.NeZhaModel.from_pretrained('{folder}'), or another of its classes",
)
