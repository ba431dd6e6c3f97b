"""transformers' own Nezha, up to 4.57 (models/nezha/modeling_nezha.py of 4.40.2)."""

from __future__ import annotations

from ..formats.safetensors import write_safetensors
from .heads import HEADS, TARGETS
from .program import Program
from .rules import Defaults, Family
from .torch_names import BUFFERS, torch_rules
from .words import TRANSFORMERS_WORDS

ACTIVATIONS = (
    *("gelu", "gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_python", "gelu_10", "gelu_accurate", "quick_gelu"),
    *("relu", "relu2", "relu6", "leaky_relu", "silu", "swish", "mish", "laplace", "sigmoid", "tanh", "linear"),
)
"""transformers' names of activations that each supported release has."""

_DEFAULTS = Defaults(
    activations={name: name for name in ACTIVATIONS}, causal={"is_decoder": (True,)}, prefix={"prefix_lm": (True,)}
)

TRANSFORMERS = Family(
    name="transformers",
    title="transformers up to 4.57",
    known_by="nezha.embeddings.word_embeddings.weight",
    rules=torch_rules("nezha.", tuple(TARGETS)),
    defaults=_DEFAULTS,
    drops=BUFFERS,
    backbone=("nezha.",),
    wrappers=("module.",),
    words=TRANSFORMERS_WORDS,
)

TRANSFORMERS_BASE = Family(
    name="transformers",
    title="transformers up to 4.57, the model without a head",
    known_by="embeddings.word_embeddings.weight",
    rules=torch_rules("", tuple(TARGETS)),
    defaults=_DEFAULTS,
    drops=BUFFERS,
    backbone=("embeddings.", "encoder.", "pooler."),
    wrappers=("module.",),
    words=TRANSFORMERS_WORDS,
)

PROGRAM = Program(
    TRANSFORMERS,
    base=TRANSFORMERS_BASE,
    weights="model.safetensors",
    write=write_safetensors,
    config="config.json",
    heads={head.name: head.parts for head in HEADS.values() if head.name != "prefix-lm"},
    classes={head.name: head.architecture for head in HEADS.values()} | {"causal-lm": "NezhaForMaskedLM"},
    loaded_by="transformers.AutoModel.from_pretrained('{folder}'{options}), up to 4.57",
    carried=("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    ties=False,
    unties=True,
    causal={"is_decoder": True},
)
