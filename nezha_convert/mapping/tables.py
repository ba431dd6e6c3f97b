"""The tables: data only. Targets with their shapes, heads, and one table a family of checkpoints.

Sources: Huawei's NEZHA-TensorFlow (modeling.py, run_*.py) and NEZHA-PyTorch (modeling_nezha.py) at commit 0598f02;
transformers 4.40.2, models/nezha/modeling_nezha.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from .rules import Drop, Op, Rule, Table, Tie

HIDDEN, FEED_FORWARD, VOCAB, TYPES, LABELS = (
    "hidden_size",
    "intermediate_size",
    "vocab_size",
    "type_vocab_size",
    "num_labels",
)

_LAYER = "nezha.encoder.layer.{i}"

TARGETS: dict[str, dict[str, tuple[str | int, ...]]] = {
    "encoder": {
        "nezha.embeddings.word_embeddings.weight": (VOCAB, HIDDEN),
        "nezha.embeddings.token_type_embeddings.weight": (TYPES, HIDDEN),
        "nezha.embeddings.LayerNorm.weight": (HIDDEN,),
        "nezha.embeddings.LayerNorm.bias": (HIDDEN,),
        f"{_LAYER}.attention.self.query.weight": (HIDDEN, HIDDEN),
        f"{_LAYER}.attention.self.query.bias": (HIDDEN,),
        f"{_LAYER}.attention.self.key.weight": (HIDDEN, HIDDEN),
        f"{_LAYER}.attention.self.key.bias": (HIDDEN,),
        f"{_LAYER}.attention.self.value.weight": (HIDDEN, HIDDEN),
        f"{_LAYER}.attention.self.value.bias": (HIDDEN,),
        f"{_LAYER}.attention.output.dense.weight": (HIDDEN, HIDDEN),
        f"{_LAYER}.attention.output.dense.bias": (HIDDEN,),
        f"{_LAYER}.attention.output.LayerNorm.weight": (HIDDEN,),
        f"{_LAYER}.attention.output.LayerNorm.bias": (HIDDEN,),
        f"{_LAYER}.intermediate.dense.weight": (FEED_FORWARD, HIDDEN),
        f"{_LAYER}.intermediate.dense.bias": (FEED_FORWARD,),
        f"{_LAYER}.output.dense.weight": (HIDDEN, FEED_FORWARD),
        f"{_LAYER}.output.dense.bias": (HIDDEN,),
        f"{_LAYER}.output.LayerNorm.weight": (HIDDEN,),
        f"{_LAYER}.output.LayerNorm.bias": (HIDDEN,),
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

TIES = (
    Tie("cls.predictions.decoder.weight", "nezha.embeddings.word_embeddings.weight"),
    Tie("cls.predictions.decoder.bias", "cls.predictions.bias"),
)


@dataclass(frozen=True, slots=True)
class Head:
    """A model class: its name on the command line, in transformers, its Auto class, and the parts it is made of."""

    name: str
    architecture: str
    auto_class: str
    parts: tuple[str, ...]


HEADS = {
    head.name: head
    for head in (
        Head("encoder", "NezhaModel", "AutoModel", (ENCODER, POOLER)),
        Head("pretraining", "NezhaForPreTraining", "AutoModelForPreTraining", (ENCODER, POOLER, MLM, NSP)),
        Head("masked-lm", "NezhaForMaskedLM", "AutoModelForMaskedLM", (ENCODER, MLM)),
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
            Rule(f"{_TF}/attention/self/query/kernel", f"{_LAYER}.attention.self.query.weight", Op.TRANSPOSE),
            Rule(f"{_TF}/attention/self/query/bias", f"{_LAYER}.attention.self.query.bias"),
            Rule(f"{_TF}/attention/self/key/kernel", f"{_LAYER}.attention.self.key.weight", Op.TRANSPOSE),
            Rule(f"{_TF}/attention/self/key/bias", f"{_LAYER}.attention.self.key.bias"),
            Rule(f"{_TF}/attention/self/value/kernel", f"{_LAYER}.attention.self.value.weight", Op.TRANSPOSE),
            Rule(f"{_TF}/attention/self/value/bias", f"{_LAYER}.attention.self.value.bias"),
            Rule(f"{_TF}/attention/output/dense/kernel", f"{_LAYER}.attention.output.dense.weight", Op.TRANSPOSE),
            Rule(f"{_TF}/attention/output/dense/bias", f"{_LAYER}.attention.output.dense.bias"),
            Rule(f"{_TF}/attention/output/LayerNorm/gamma", f"{_LAYER}.attention.output.LayerNorm.weight"),
            Rule(f"{_TF}/attention/output/LayerNorm/beta", f"{_LAYER}.attention.output.LayerNorm.bias"),
            Rule(f"{_TF}/intermediate/dense/kernel", f"{_LAYER}.intermediate.dense.weight", Op.TRANSPOSE),
            Rule(f"{_TF}/intermediate/dense/bias", f"{_LAYER}.intermediate.dense.bias"),
            Rule(f"{_TF}/output/dense/kernel", f"{_LAYER}.output.dense.weight", Op.TRANSPOSE),
            Rule(f"{_TF}/output/dense/bias", f"{_LAYER}.output.dense.bias"),
            Rule(f"{_TF}/output/LayerNorm/gamma", f"{_LAYER}.output.LayerNorm.weight"),
            Rule(f"{_TF}/output/LayerNorm/beta", f"{_LAYER}.output.LayerNorm.bias"),
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


def _torch_rules(prefix: str, parts: tuple[str, ...]) -> dict[str, tuple[Rule, ...]]:
    """The targets' own names with `prefix` for "nezha."; layer norms also by the gamma and beta of 2018."""
    rules: dict[str, tuple[Rule, ...]] = {}
    for part in parts:
        named = [(prefix + t.removeprefix("nezha.") if t.startswith("nezha.") else t, t) for t in TARGETS[part]]
        aged = [
            (source.replace(modern, old), target)
            for modern, old in (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
            for source, target in named
            if source.endswith(modern)
        ]
        rules[part] = tuple(Rule(source, target) for source, target in named + aged)
    return rules


_BUFFERS = (
    Drop("*.relative_positions_encoding", "a table of positions that the model computes"),
    Drop("*.relative_positions_encoding.positions_encoding", "a table of positions that the model computes"),
    Drop("*embeddings.position_ids", "a buffer of 0, 1, 2, ..."),
    Drop("*embeddings.token_type_ids", "a buffer of zeros"),
)

HUAWEI_TORCH = Table(
    name="huawei-torch",
    title="Huawei's NEZHA-PyTorch",
    rules=_torch_rules("bert.", tuple(TARGETS)),
    drops=_BUFFERS,
    backbone=("bert.",),
    wrappers=("module.",),
)

TRANSFORMERS = Table(
    name="transformers",
    title="transformers up to 4.57",
    rules=_torch_rules("nezha.", tuple(TARGETS)),
    drops=_BUFFERS,
    backbone=("nezha.",),
    wrappers=("module.",),
)

TRANSFORMERS_BASE = Table(
    name="transformers",
    title="transformers up to 4.57, the model without a head",
    rules=_torch_rules("", (ENCODER, POOLER)),
    drops=_BUFFERS,
    backbone=("embeddings.", "encoder.", "pooler."),
    wrappers=("module.",),
)

FAMILIES = (HUAWEI_TF, HUAWEI_TORCH, TRANSFORMERS, TRANSFORMERS_BASE)


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
