"""Huawei's NEZHA-PyTorch, and JABER's copy of it, which adds two heads.

Sources: NEZHA-PyTorch/modeling_nezha.py (ACT2FN) and JABER-PyTorch (NeZhaForTokenClassification,
BertForMultiLabelSequenceClassification) of huawei-noah/Pretrained-Language-Model at commit 0598f02.
"""

from __future__ import annotations

from dataclasses import replace

from ..checkpoint import Assumption, Decision, Origin
from ..formats.torch.write import write_legacy
from .heads import CLASSIFIER, ENCODER, MLM, POOLER, TARGETS
from .program import CLASSIFIED, COMMON_HEADS, Program
from .rules import Default, Defaults, Family, NamedHead, linear
from .torch_names import BUFFERS, torch_rules
from .words import HUAWEI_TORCH_WORDS

_RULES = torch_rules("bert.", tuple(TARGETS), only_read=("cls.predictions.decoder.bias",))
_JABER = (*linear("dense", "classifier", written=False), *linear("linear", "classifier", written=False))

HUAWEI_TORCH = Family(
    name="huawei-torch",
    title="Huawei's NEZHA-PyTorch",
    known_by="bert.embeddings.word_embeddings.weight",
    rules=_RULES,
    defaults=Defaults(
        activations={"gelu": "gelu", "relu": "relu", "swish": "silu"},
        gelu='Huawei\'s PyTorch code computes "gelu" by erf, as transformers does',
        masked_rows="unmasked",
        switch=True,
        old_names={"tie_emb_prj_weight": "tie_word_embeddings"},  # of bert4torch, with this prefix
        tied=False,  # Huawei's program ties them; bert_seq2seq, which has the same names, does not
        causal={"application": ("lm",)},  # of bert4torch, with this prefix
        prefix={"application": ("unilm",)},
    ),
    drops=BUFFERS,
    backbone=("bert.",),
    wrappers=("module.",),
    words=HUAWEI_TORCH_WORDS,
)

HUAWEI_TORCH_BASE = replace(
    HUAWEI_TORCH,
    title="Huawei's NEZHA-PyTorch, the model without a head",
    known_by="embeddings.word_embeddings.weight",
    rules=torch_rules("", tuple(TARGETS)),
    backbone=("embeddings.", "encoder.", "pooler."),
)
"""The names are those of transformers' model without a head, too: only the JSON tells them apart."""

JABER = replace(
    HUAWEI_TORCH,
    rules=_RULES | {CLASSIFIER: (*_RULES[CLASSIFIER], *_JABER)},
    # Its program stores no table of positions, as ports do, whose `dense` may be any layer.
    needs=("dense.weight", "linear.weight"),
    lacks=("*.relative_positions*",),
    defaults=replace(
        HUAWEI_TORCH.defaults,
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
                        Origin.TENSORS,
                    ),
                ),
                (Assumption("jaber-inputs", "token types are 1 and nothing is masked, as in JABER's program"),),
            ),
            "linear.weight": NamedHead(
                "sequence-classification",
                "JABER calls the classifier of several labels linear",
                (
                    Decision(
                        "problem_type",
                        "multi_label_classification",
                        "JABER's multi-label head: a sigmoid for each label, which transformers leaves to the caller",
                        Origin.TENSORS,
                    ),
                ),
                (Assumption("jaber-labels", "a sequence may have several labels, as in JABER's program"),),
            ),
        },
    ),
)
"""Huawei's Arabic JABER: the same program with two heads more."""

PROGRAM = Program(
    HUAWEI_TORCH,
    weights="pytorch_model.bin",
    write=write_legacy,  # Huawei's README asks for torch 1.1, which reads no other
    lacks=("bfloat16",),  # torch 1.1 cannot load it
    config="bert_config.json",
    heads=COMMON_HEADS | {"masked-lm": (ENCODER, POOLER, MLM), "multiple-choice": CLASSIFIED},
    loaded_by="BertModel.from_pretrained('{folder}'), or another class of modeling_nezha.py",
    labels="labels.txt",
    fixed={MLM: {"layer_norm_eps": Default(1e-12, "hard-coded in its masked-LM head", fixed=True)}},
)
