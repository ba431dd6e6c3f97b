"""Huawei's NEZHA-TensorFlow.

Sources: modeling.py, get_activation and run_*.py of huawei-noah/Pretrained-Language-Model, NEZHA-TensorFlow, at commit
0598f02. Kernels are [in, out]; the `output_weights` of a head are not.
"""

from __future__ import annotations

from functools import partial

from ..checkpoint import Assumption
from ..formats.tf_bundle.write import write_bundle
from .heads import CLASSIFIER, ENCODER, LAYER, MLM, NSP, POOLER, QA
from .program import CLASSIFIED, COMMON_HEADS, PRETRAINING, Program
from .rules import Default, Defaults, Drop, Family, Rule, Unclear, linear, norm
from .words import PRETRAINED_WORDS

_linear = partial(linear, weight="/kernel", bias="/bias", transposed=True)
_norm = partial(norm, weight="/gamma", bias="/beta")
_output = partial(linear, weight="/output_weights", bias="/output_bias")

_SOURCE = "bert/encoder/layer_{i}"

HUAWEI_TF = Family(
    name="huawei-tf",
    title="Huawei's NEZHA-TensorFlow",
    known_by="bert/embeddings/word_embeddings",
    rules={
        ENCODER: (
            Rule("bert/embeddings/word_embeddings", "nezha.embeddings.word_embeddings.weight"),
            Rule("bert/embeddings/token_type_embeddings", "nezha.embeddings.token_type_embeddings.weight"),
            *_norm("bert/embeddings/LayerNorm", "nezha.embeddings.LayerNorm"),
            *_linear(f"{_SOURCE}/attention/self/query", f"{LAYER}.attention.self.query"),
            *_linear(f"{_SOURCE}/attention/self/key", f"{LAYER}.attention.self.key"),
            *_linear(f"{_SOURCE}/attention/self/value", f"{LAYER}.attention.self.value"),
            *_linear(f"{_SOURCE}/attention/output/dense", f"{LAYER}.attention.output.dense"),
            *_norm(f"{_SOURCE}/attention/output/LayerNorm", f"{LAYER}.attention.output.LayerNorm"),
            *_linear(f"{_SOURCE}/intermediate/dense", f"{LAYER}.intermediate.dense"),
            *_linear(f"{_SOURCE}/output/dense", f"{LAYER}.output.dense"),
            *_norm(f"{_SOURCE}/output/LayerNorm", f"{LAYER}.output.LayerNorm"),
        ),
        POOLER: _linear("bert/pooler/dense", "nezha.pooler.dense"),
        MLM: (
            *_linear("cls/predictions/transform/dense", "cls.predictions.transform.dense"),
            *_norm("cls/predictions/transform/LayerNorm", "cls.predictions.transform.LayerNorm"),
            Rule("cls/predictions/output_bias", "cls.predictions.bias"),
        ),
        NSP: _output("cls/seq_relationship", "cls.seq_relationship"),
        CLASSIFIER: (
            *linear("output", "classifier", "_weights", "_bias"),
            *_linear("classifier", "classifier", written=False),  # of people's scripts, by --rename
            *_output("classifier", "classifier", written=False),
        ),
        QA: _output("cls/squad", "qa_outputs"),
    },
    defaults=Defaults(
        activations={"gelu": "gelu_pytorch_tanh", "relu": "relu", "tanh": "tanh", "linear": "linear"},
        gelu='Huawei\'s TensorFlow code computes "gelu" by the tanh approximation',
        numbers={
            "layer_norm_eps": Default(1e-12, "hard-coded in Huawei's TensorFlow code", fixed=True),
            "max_relative_position": Default(64, "hard-coded in Huawei's TensorFlow code", fixed=True),
            "classifier_dropout": Default(0.1, "Huawei's run_*.py keep 0.9 before a classifier"),
        },
        lower_case=True,
        switch=True,
        masked_rows="unmasked",
        padding_label=True,
        unclear=Unclear(
            ("sequence-classification", "token-classification"),
            "is what run_classifier.py (sentences) and run_classifier_ner.py (tokens) both call it",
        ),
    ),
    drops=(
        Drop("*/adam_m", "Adam's first moment", optimizer=True),
        Drop("*/adam_v", "Adam's second moment", optimizer=True),
        Drop("*/lamb_m", "LAMB's first moment", optimizer=True),
        Drop("*/lamb_v", "LAMB's second moment", optimizer=True),
        Drop("*/Adam", "Adam's first moment", optimizer=True),
        Drop("*/Adam_1", "Adam's second moment", optimizer=True),
        Drop("*/Momentum", "the optimizer's momentum", optimizer=True),
        Drop("*/AdamWeightDecayOptimizer*", "the optimizer's moments", optimizer=True),
        Drop("*/ExponentialMovingAverage", "a moving average of the weights, kept for evaluation", optimizer=True),
        Drop("*accum*/*", "sums of gradients between two steps", optimizer=True),
        Drop("accum*", "sums of gradients between two steps", optimizer=True),
        Drop("*/shadow", "float32 master copy of mixed-precision training", optimizer=True),
        Drop("beta1_power", "Adam's running power", optimizer=True),
        Drop("beta2_power", "Adam's running power", optimizer=True),
        Drop("global_step", "the training's step counter"),
        Drop("save_counter", "TensorFlow's counter of saved checkpoints"),
        Drop("keras_api/metrics/*", "the training's metrics"),
        Drop("optimizer/*", "the optimizer's state, by its object", optimizer=True),
        Drop("loss_scale", "loss scaling's state"),
        Drop("current_loss_scale", "loss scaling's state"),
        Drop("good_steps", "loss scaling's state"),
        Drop("bad_steps", "loss scaling's state"),
    ),
    backbone=("bert/",),
    words=PRETRAINED_WORDS,
    assumed=Assumption(
        "program",
        "Huawei's own program wrote it, whose GELU is the tanh approximation; bert4keras, which can write the same "
        "names, computes it by erf",
    ),
)

PROGRAM = Program(
    HUAWEI_TF,
    weights="model.ckpt",
    write=write_bundle,
    config="bert_config.json",
    # run_pretraining.py builds the masked-LM and the next-sentence head, always both.
    heads=COMMON_HEADS | {"masked-lm": PRETRAINING, "token-classification": CLASSIFIED},
    loaded_by="--init_checkpoint {folder}/model.ckpt --bert_config_file {folder}/bert_config.json",
    labels="labels.txt",
    lacks=("float16", "bfloat16", "float64"),
    steps="global_step",
)
