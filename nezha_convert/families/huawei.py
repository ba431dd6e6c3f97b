"""Huawei's own programs.

Sources: NEZHA-TensorFlow (modeling.py, get_activation, run_*.py) and NEZHA-PyTorch (modeling_nezha.py, ACT2FN) of
huawei-noah/Pretrained-Language-Model at commit 0598f02; JABER-PyTorch's copy of the latter adds two heads
(NeZhaForTokenClassification, BertForMultiLabelSequenceClassification).
"""

from __future__ import annotations

from ..checkpoint import Decision
from .heads import CLASSIFIER, ENCODER, LAYER, MLM, NSP, POOLER, QA, TARGETS
from .rules import Drop, Habit, Habits, NamedHead, Op, Rule, Table, Unclear
from .torch_names import BUFFERS, torch_rules

_TF = "bert/encoder/layer_{i}"

HUAWEI_TF = Table(
    name="huawei-tf",
    title="Huawei's NEZHA-TensorFlow",
    rules={
        ENCODER: (
            Rule("bert/embeddings/word_embeddings", "nezha.embeddings.word_embeddings.weight"),
            Rule("bert/embeddings/token_type_embeddings", "nezha.embeddings.token_type_embeddings.weight"),
            Rule("bert/embeddings/LayerNorm/gamma", "nezha.embeddings.LayerNorm.weight"),
            Rule("bert/embeddings/LayerNorm/beta", "nezha.embeddings.LayerNorm.bias"),
            Rule(f"{_TF}/attention/self/query/kernel", f"{LAYER}.attention.self.query.weight", Op.TRANSPOSE),
            Rule(f"{_TF}/attention/self/query/bias", f"{LAYER}.attention.self.query.bias"),
            Rule(f"{_TF}/attention/self/key/kernel", f"{LAYER}.attention.self.key.weight", Op.TRANSPOSE),
            Rule(f"{_TF}/attention/self/key/bias", f"{LAYER}.attention.self.key.bias"),
            Rule(f"{_TF}/attention/self/value/kernel", f"{LAYER}.attention.self.value.weight", Op.TRANSPOSE),
            Rule(f"{_TF}/attention/self/value/bias", f"{LAYER}.attention.self.value.bias"),
            Rule(f"{_TF}/attention/output/dense/kernel", f"{LAYER}.attention.output.dense.weight", Op.TRANSPOSE),
            Rule(f"{_TF}/attention/output/dense/bias", f"{LAYER}.attention.output.dense.bias"),
            Rule(f"{_TF}/attention/output/LayerNorm/gamma", f"{LAYER}.attention.output.LayerNorm.weight"),
            Rule(f"{_TF}/attention/output/LayerNorm/beta", f"{LAYER}.attention.output.LayerNorm.bias"),
            Rule(f"{_TF}/intermediate/dense/kernel", f"{LAYER}.intermediate.dense.weight", Op.TRANSPOSE),
            Rule(f"{_TF}/intermediate/dense/bias", f"{LAYER}.intermediate.dense.bias"),
            Rule(f"{_TF}/output/dense/kernel", f"{LAYER}.output.dense.weight", Op.TRANSPOSE),
            Rule(f"{_TF}/output/dense/bias", f"{LAYER}.output.dense.bias"),
            Rule(f"{_TF}/output/LayerNorm/gamma", f"{LAYER}.output.LayerNorm.weight"),
            Rule(f"{_TF}/output/LayerNorm/beta", f"{LAYER}.output.LayerNorm.bias"),
        ),
        POOLER: (
            Rule("bert/pooler/dense/kernel", "nezha.pooler.dense.weight", Op.TRANSPOSE),
            Rule("bert/pooler/dense/bias", "nezha.pooler.dense.bias"),
        ),
        MLM: (
            Rule(
                "cls/predictions/transform/dense/kernel",
                "cls.predictions.transform.dense.weight",
                Op.TRANSPOSE,
            ),
            Rule("cls/predictions/transform/dense/bias", "cls.predictions.transform.dense.bias"),
            Rule("cls/predictions/transform/LayerNorm/gamma", "cls.predictions.transform.LayerNorm.weight"),
            Rule("cls/predictions/transform/LayerNorm/beta", "cls.predictions.transform.LayerNorm.bias"),
            Rule("cls/predictions/output_bias", "cls.predictions.bias"),
        ),
        NSP: (
            Rule("cls/seq_relationship/output_weights", "cls.seq_relationship.weight"),
            Rule("cls/seq_relationship/output_bias", "cls.seq_relationship.bias"),
        ),
        CLASSIFIER: (
            Rule("output_weights", "classifier.weight"),
            Rule("output_bias", "classifier.bias"),
        ),
        QA: (
            Rule("cls/squad/output_weights", "qa_outputs.weight"),
            Rule("cls/squad/output_bias", "qa_outputs.bias"),
        ),
    },
    habits=Habits(
        activations={"gelu": "gelu_pytorch_tanh", "relu": "relu", "tanh": "tanh", "linear": "linear"},
        gelu='Huawei\'s TensorFlow code computes "gelu" by the tanh approximation',
        numbers={
            "layer_norm_eps": Habit(1e-12, "hard-coded in Huawei's TensorFlow code", fixed=True),
            "max_relative_position": Habit(64, "hard-coded in Huawei's TensorFlow code", fixed=True, unless_said=True),
            "classifier_dropout": Habit(0.1, "Huawei's run_*.py keep 0.9 before a classifier"),
        },
        lower_case=True,
        switch=True,
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
        Drop("*/shadow", "float32 master copy of mixed-precision training", optimizer=True),
        Drop("beta1_power", "Adam's running power", optimizer=True),
        Drop("beta2_power", "Adam's running power", optimizer=True),
        Drop("global_step", "the training's step counter"),
        Drop("loss_scale", "loss scaling's state"),
        Drop("good_steps", "loss scaling's state"),
        Drop("bad_steps", "loss scaling's state"),
    ),
    backbone=("bert/",),
)

_JABER = tuple(
    Rule(f"{head}.{name}", f"classifier.{name}", written=False)
    for head in ("dense", "linear")
    for name in ("weight", "bias")
)
_TORCH_RULES = torch_rules("bert.", tuple(TARGETS), only_read=("cls.predictions.decoder.bias",))

HUAWEI_TORCH = Table(
    name="huawei-torch",
    title="Huawei's NEZHA-PyTorch",
    rules=_TORCH_RULES | {CLASSIFIER: (*_TORCH_RULES[CLASSIFIER], *_JABER)},
    habits=Habits(
        activations={"gelu": "gelu", "relu": "relu", "swish": "silu"},
        gelu='Huawei\'s PyTorch code computes "gelu" by erf, as transformers does',
        switch=True,
        classifiers={
            "dense.weight": NamedHead(
                "token-classification",
                "JABER calls the classifier of tokens dense",
                (
                    Decision(
                        "inputs",
                        "token types 1, no mask",
                        "JABER's token head hands its mask to the encoder as token types and its token types as mask: "
                        "on plain text it was trained with token types of 1, and 0 on padding, which it does not mask",
                    ),
                ),
            ),
            "linear.weight": NamedHead(
                "sequence-classification",
                "JABER calls the classifier of several labels linear",
                (
                    Decision(
                        "problem_type",
                        "multi_label_classification",
                        "JABER's multi-label head: a sigmoid for each label, which transformers leaves to the caller",
                    ),
                ),
            ),
        },
    ),
    drops=BUFFERS,
    backbone=("bert.",),
    wrappers=("module.",),
)
