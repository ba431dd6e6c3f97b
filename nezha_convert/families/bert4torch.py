"""bert4torch's NEZHA: its own state dict, and what its ``save_pretrained`` writes, which is spelt as Huawei's.

Sources: bert4torch 0.1.1 to 0.6.2 (models/bert.py ``variable_mapping``, layers/attention.py, activations.py). Its MLM
decoder is a parameter of its own unless the model was built with ``tie_word_embeddings``.
"""

from __future__ import annotations

from ..checkpoint import Decision, Origin
from ..formats.torch.write import write_torch
from .heads import ENCODER, LAYER, MLM, NSP, POOLER
from .program import PRETRAINING, Program
from .rules import Default, Defaults, Family, Rule, linear, norm
from .torch_names import BUFFERS, torch_rules
from .words import BERT4TORCH_WORDS

_SOURCE = "encoderLayer.{i}"
_POSITIONS = "multiHeadAttention.relative_positions_encoding.position_embeddings"
_ACTIVATIONS = (
    *("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "quick_gelu"),
    *("relu", "silu", "mish", "tanh", "sigmoid", "linear"),
)

_DEFAULTS = Defaults(
    activations={name: name for name in _ACTIVATIONS} | {"swish": "silu"},
    gelu='bert4torch computes "gelu" by erf, as transformers does',
    numbers={
        "max_relative_position": Default(64, "bert4torch's NEZHA takes 64"),
        "layer_norm_eps": Default(1e-12, "bert4torch's default"),
    },
    tied=False,
    old_names={"tie_emb_prj_weight": "tie_word_embeddings"},
    causal={"application": ("lm",)},
    prefix={"application": ("unilm",)},
    notes=(
        Decision(
            "attention scores",
            "divided by the root of the head size",
            "NEZHA was trained so, and bert4torch computes so up to 0.5.7; 0.5.8 to 0.6.2 leave it out, and what "
            "was trained with these is another model",
            Origin.DEFAULT,
        ),
    ),
)

BERT4TORCH = Family(
    name="bert4torch",
    title="bert4torch",
    known_by="embeddings.layerNorm.weight",  # the word embedding is called as in transformers
    rules={
        ENCODER: (
            Rule("embeddings.word_embeddings.weight", "nezha.embeddings.word_embeddings.weight"),
            Rule("embeddings.segment_embeddings.weight", "nezha.embeddings.token_type_embeddings.weight"),
            *norm("embeddings.layerNorm", "nezha.embeddings.LayerNorm"),
            *linear(f"{_SOURCE}.multiHeadAttention.q", f"{LAYER}.attention.self.query"),
            *linear(f"{_SOURCE}.multiHeadAttention.k", f"{LAYER}.attention.self.key"),
            *linear(f"{_SOURCE}.multiHeadAttention.v", f"{LAYER}.attention.self.value"),
            *linear(f"{_SOURCE}.multiHeadAttention.o", f"{LAYER}.attention.output.dense"),
            *norm(f"{_SOURCE}.attnLayerNorm", f"{LAYER}.attention.output.LayerNorm"),
            *linear(f"{_SOURCE}.feedForward.intermediateDense", f"{LAYER}.intermediate.dense"),
            *linear(f"{_SOURCE}.feedForward.outputDense", f"{LAYER}.output.dense"),
            *norm(f"{_SOURCE}.ffnLayerNorm", f"{LAYER}.output.LayerNorm"),
            # The names up to bert4torch 0.3.
            *norm(f"{_SOURCE}.layerNorm1", f"{LAYER}.attention.output.LayerNorm", written=False),
            *norm(f"{_SOURCE}.layerNorm2", f"{LAYER}.output.LayerNorm", written=False),
        ),
        POOLER: linear("pooler", "nezha.pooler.dense"),
        MLM: (
            *linear("mlmDense", "cls.predictions.transform.dense"),
            *norm("mlmLayerNorm", "cls.predictions.transform.LayerNorm"),
            Rule("mlmBias", "cls.predictions.bias"),
            *linear("mlmDecoder", "cls.predictions.decoder"),
        ),
        NSP: linear("nsp", "cls.seq_relationship"),
    },
    defaults=_DEFAULTS,
    drops=BUFFERS,
    backbone=("embeddings.", "encoderLayer.", "pooler."),
    wrappers=("module.", "bert."),
    words=BERT4TORCH_WORDS,
)

BERT4TORCH_SAVED = Family(
    name="bert4torch",
    title="bert4torch, saved for transformers by save_pretrained",
    known_by=f"encoderLayer.0.{_POSITIONS}",  # this one keeps its own name
    rules=torch_rules("bert.", (ENCODER, POOLER, MLM, NSP)),
    defaults=_DEFAULTS,
    drops=BUFFERS,
    backbone=("bert.",),
    words=BERT4TORCH_WORDS,
)

PROGRAM = Program(
    BERT4TORCH,
    weights="pytorch_model.pt",
    write=write_torch,
    config="bert4torch_config.json",
    # Each part is an option of build_transformer_model: with_pool, with_mlm, with_nsp.
    heads={
        "encoder": (ENCODER, POOLER),
        "pretraining": PRETRAINING,
        **dict.fromkeys(("masked-lm", "causal-lm", "prefix-lm"), (ENCODER, MLM)),
        "next-sentence-prediction": (ENCODER, POOLER, NSP),
    },
    loaded_by="build_transformer_model('{folder}/bert4torch_config.json', model='nezha', with_...=True)"
    ".load_state_dict(torch.load('{folder}/pytorch_model.pt')), up to bert4torch 0.5.7",
    positions=f"{_SOURCE}.{_POSITIONS}",
    says={"model": "nezha"},
    causal={"application": "lm"},
    prefix={"application": "unilm"},
    unties=True,
)
