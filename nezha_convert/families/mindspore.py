"""MindSpore's model zoo: its BERT with relative positions, which it calls `bert_nezha`.

Sources: official/nlp/Bert/src of mindspore-ai/models at eab643f (bert_model.py, bert_for_pre_training.py,
finetune_eval_model.py), and model_zoo/bert of MindSpore 0.5. Its table of positions is a parameter of each layer, drawn
at random and trained; NEZHA's is computed. So a file whose tables were trained is another model, and is refused.
"""

from __future__ import annotations

from .heads import CLASSIFIER, ENCODER, LAYER, MLM, NSP, POOLER, QA
from .rules import Default, Defaults, Drop, Family, Rule, Unclear, linear, norm
from .words import MINDSPORE_WORDS

_AFTER, _AT = "bert.bert_embedding_postprocessor", "bert.bert_encoder.layers.{i}"

MINDSPORE = Family(
    name="mindspore",
    title="MindSpore's model zoo",
    known_by="bert.bert_embedding_lookup.embedding_table",
    rules={
        ENCODER: (
            Rule("bert.bert_embedding_lookup.embedding_table", "nezha.embeddings.word_embeddings.weight"),
            Rule(f"{_AFTER}.token_type_embedding.embedding_table", "nezha.embeddings.token_type_embeddings.weight"),
            Rule(f"{_AFTER}.embedding_table", "nezha.embeddings.token_type_embeddings.weight", written=False),  # to 1.0
            *norm(f"{_AFTER}.layernorm", "nezha.embeddings.LayerNorm", ".gamma", ".beta"),
            *linear(f"{_AT}.attention.attention.query_layer", f"{LAYER}.attention.self.query"),
            *linear(f"{_AT}.attention.attention.key_layer", f"{LAYER}.attention.self.key"),
            *linear(f"{_AT}.attention.attention.value_layer", f"{LAYER}.attention.self.value"),
            *linear(f"{_AT}.attention.output.dense", f"{LAYER}.attention.output.dense"),
            *norm(f"{_AT}.attention.output.layernorm", f"{LAYER}.attention.output.LayerNorm", ".gamma", ".beta"),
            *linear(f"{_AT}.intermediate", f"{LAYER}.intermediate.dense"),
            *linear(f"{_AT}.output.dense", f"{LAYER}.output.dense"),
            *norm(f"{_AT}.output.layernorm", f"{LAYER}.output.LayerNorm", ".gamma", ".beta"),
        ),
        POOLER: linear("bert.dense", "nezha.pooler.dense"),
        MLM: (
            *linear("cls1.dense", "cls.predictions.transform.dense"),
            *norm("cls1.layernorm", "cls.predictions.transform.LayerNorm", ".gamma", ".beta"),
            Rule("cls1.output_bias", "cls.predictions.bias"),
        ),
        NSP: linear("cls2.dense", "cls.seq_relationship"),
        CLASSIFIER: linear("dense_1", "classifier"),
        QA: linear("dense1", "qa_outputs"),
    },
    defaults=Defaults(
        activations={"gelu": "gelu_pytorch_tanh", "relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid"},
        gelu='MindSpore\'s layer "gelu" is the tanh approximation',
        numbers={
            "layer_norm_eps": Default(1e-7, "MindSpore's own, which bert_model.py does not change", fixed=True),
            "max_relative_position": Default(16, "hard-coded in bert_model.py", fixed=True),
            "classifier_dropout": Default(0.1, "run_classifier.py of the model zoo drops 0.1 before a classifier"),
        },
        masked_rows="unmasked",
        unclear=Unclear(
            ("sequence-classification", "token-classification"),
            "is what BertCLSModel (sentences) and BertNERModel (tokens) both call it",
        ),
    ),
    drops=(
        Drop(
            "*._generate_relative_positions_embeddings.*",
            "a table of positions that the model computes",
            positions=True,
            trained=True,
        ),
        Drop(f"{_AFTER}.full_position_embedding*", "absolute positions, which are not read beside relative ones"),
        *(
            Drop(name, "the optimizer's state", optimizer=True)
            for name in ("moment[s12].*", "adam_[mv].*", "lamb_[mv].*", "accum.*", "beta[12]_power")
        ),
        *(
            Drop(name, "the training's counters and rates")
            for name in ("global_step", "learning_rate", "*loss_scale", "scale_sens", "epoch_num", "step_num", "*_step")
        ),
    ),
    backbone=("bert.",),
    words=MINDSPORE_WORDS,
)
