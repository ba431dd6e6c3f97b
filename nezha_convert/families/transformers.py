"""transformers' own Nezha, up to 4.57 (models/nezha/modeling_nezha.py of 4.40.2)."""

from __future__ import annotations

from .heads import ENCODER, POOLER, TARGETS
from .rules import Habits, Table
from .torch_names import BUFFERS, torch_rules

ACTIVATIONS = (
    *("gelu", "gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_python", "gelu_10", "gelu_accurate", "quick_gelu"),
    *("relu", "relu2", "relu6", "leaky_relu", "silu", "swish", "mish", "laplace", "sigmoid", "tanh", "linear"),
)
"""transformers' names of activations, the same from 4.52 to 5.23."""

_HABITS = Habits(activations={name: name for name in ACTIVATIONS})

TRANSFORMERS = Table(
    name="transformers",
    title="transformers up to 4.57",
    rules=torch_rules("nezha.", tuple(TARGETS)),
    habits=_HABITS,
    drops=BUFFERS,
    backbone=("nezha.",),
    wrappers=("module.",),
)

TRANSFORMERS_BASE = Table(
    name="transformers",
    title="transformers up to 4.57, the model without a head",
    rules=torch_rules("", (ENCODER, POOLER)),
    habits=_HABITS,
    drops=BUFFERS,
    backbone=("embeddings.", "encoder.", "pooler."),
    wrappers=("module.",),
)
