"""The tables: data only. One file a program, with its names and its habits; `FAMILIES` in the order of recognition."""

from __future__ import annotations

from .bert4keras import BERT4KERAS, BERT4KERAS_MODERN
from .bert4torch import BERT4TORCH, BERT4TORCH_SAVED
from .foreign import FOREIGN, Foreign
from .heads import CLASSIFIER, DECODER, ENCODER, HEADS, MLM, NSP, POOLER, QA, TARGETS, TIES, Head
from .huawei import HUAWEI_TF, HUAWEI_TORCH
from .paddle import PADDLE, PADDLE_BASE
from .transformers import ACTIVATIONS, TRANSFORMERS, TRANSFORMERS_BASE

__all__ = [
    "ACTIVATIONS",
    "BERT4KERAS",
    "BERT4KERAS_MODERN",
    "BERT4TORCH",
    "BERT4TORCH_SAVED",
    "CLASSIFIER",
    "DECODER",
    "ENCODER",
    "FAMILIES",
    "FOREIGN",
    "HEADS",
    "HUAWEI_TF",
    "HUAWEI_TORCH",
    "MLM",
    "NSP",
    "PADDLE",
    "PADDLE_BASE",
    "POOLER",
    "QA",
    "TARGETS",
    "TIES",
    "TRANSFORMERS",
    "TRANSFORMERS_BASE",
    "Foreign",
    "Head",
]

FAMILIES = (
    HUAWEI_TF,
    BERT4TORCH,
    BERT4TORCH_SAVED,
    HUAWEI_TORCH,
    PADDLE,
    PADDLE_BASE,
    TRANSFORMERS,
    TRANSFORMERS_BASE,
    BERT4KERAS,
    BERT4KERAS_MODERN,
)
