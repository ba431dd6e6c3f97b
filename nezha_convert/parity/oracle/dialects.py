"""How each original program names its tensors and computes with them, for the oracle.

This was written from the programs themselves. It shares nothing with the tables that convert (`families`), so that a
mistake there is not repeated here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .formulas import Function, gelu_erf, gelu_tanh, linear, relu, swish, tanh

_FLOAT32_MIN = float(np.finfo(np.float32).min)


@dataclass(frozen=True, slots=True)
class Dialect:
    """One program's checkpoints.

    Attributes:
        name: what the reports call the program.
        known_by: whether names of tensors and a JSON come from this program. The first match in `DIALECTS` counts.
        spelling: (regular expression, replacement), applied in order. They turn the program's names into those that
            the oracle uses: BERT's PyTorch names without a prefix.
        activations: the function that each of its names of activations means.
        in_out: the weights of linear layers are [in, out], not [out, in].
        classifiers_in_out: the weights of a head's last linear layer are [in, out].
        dense_heads: such a layer may be TensorFlow's own, whose "kernel" is [in, out] whatever else holds.
        masked: the number that is added to the scores of a masked key.
        epsilon: of every layer norm, if it is hard-coded; None reads ``layer_norm_eps``.
        head_epsilon: the same, for the layer norm in the masked-LM head.
        tied_to_decoder: with the masked-LM head, the program loads the decoder's rows over the word embeddings.
        decoder_bias_wins: the head's two biases are one parameter, and the decoder's is loaded last.
        unties: the program honours ``tie_word_embeddings: false``.
        tied_by: keys of its JSON that tie the decoder, if one is true.
        tied: if the JSON does not say, the decoder is the word embeddings.
        lower_case: the program reads names of activations in any case.
        causal: by key of its JSON, the values with which a token sees only itself and what is before it.
        prefix: the same of UniLM's mask: the sum of the types up to a key must not exceed that up to the query.
        clip: the clip distance where the program does not read it from the JSON; None reads max_relative_position.
        spans: the name of the last layer of question answering, after `spelling`.
    """

    name: str
    known_by: Callable[[Iterable[str], Mapping[str, Any]], bool]
    spelling: tuple[tuple[str, str], ...]
    activations: Mapping[str, Function]
    in_out: bool = False
    classifiers_in_out: bool = False
    dense_heads: bool = False
    masked: float = -10000.0
    epsilon: float | None = 1e-12
    head_epsilon: float | None = 1e-12
    tied_to_decoder: bool = False
    decoder_bias_wins: bool = False
    unties: bool = False
    tied_by: tuple[str, ...] = ("tie_word_embeddings",)
    tied: bool = True
    lower_case: bool = False
    causal: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    prefix: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    clip: int | None = None
    spans: str = "qa_outputs"

    def plain(self, name: str) -> str:
        """The name that the oracle uses for the tensor `name`."""
        for pattern, replacement in self.spelling:
            name = re.sub(pattern, replacement, name)
        return name


_TORCH_NAMES = (
    (r"^module\.", ""),
    (r"^(bert|nezha)\.", ""),
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
    # CDial-GPT-NEZHA has a table in each layer, as a parameter.
    (
        r"^encoder\.layer\.(\d+)\.attention\.self\.\w+\.embeddings_table_tensor$",
        r"encoder.layer.\1.relative_positions.weight",
    ),
)

_ACTIVATIONS = {
    "gelu": gelu_erf,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": relu,
    "silu": swish,
    "swish": swish,
    "tanh": tanh,
    "linear": linear,
}
"""The functions that transformers' names mean (its ACT2FN)."""

TENSORFLOW = Dialect(
    "tensorflow",  # Huawei's NEZHA-TensorFlow/modeling.py
    known_by=lambda names, config: any("/" in name for name in names),
    spelling=(
        ("/", "."),
        (r"^bert\.", ""),
        (r"\blayer_(\d+)", r"layer.\1"),
        (r"\.(kernel|gamma)$", ".weight"),
        (r"\.beta$", ".bias"),
        (r"_embeddings$", "_embeddings.weight"),
        (r"^cls\.predictions\.output_bias$", "cls.predictions.bias"),
        (r"^cls\.squad\.output_", "qa_outputs."),
        (r"^(classifier\.)?output_", "classifier."),  # classifiers of sentences and of tokens have no scope
        (r"^cls\.seq_relationship\.output_", "cls.seq_relationship."),
        (r"\.weights$", ".weight"),
    ),
    activations={"gelu": gelu_tanh, "relu": relu, "tanh": tanh, "linear": linear, "": linear},  # modeling.py:289-323
    lower_case=True,
    in_out=True,  # kernels only: output_weights are [out, in]
    dense_heads=True,
    clip=64,  # modeling.py:856 passes no other
)

PADDLE = Dialect(
    "paddle",  # PaddleNLP 2.8.1, paddlenlp/transformers/nezha/modeling.py
    known_by=lambda names, config: any("embeddings.layer_norm." in name for name in names),
    spelling=(
        (r"^nezha\.", ""),
        (r"^(encoder\.layer\.\d+)\.attention\.(query|key|value)\.", r"\1.attention.self.\2."),
        (r"^(encoder\.layer\.\d+)\.attention\.(dense|layer_norm)\.", r"\1.attention.output.\2."),
        (r"\.ffn\.", ".intermediate.dense."),
        (r"\.ffn_output\.", ".output.dense."),
        (r"^(encoder\.layer\.\d+)\.layer_norm\.", r"\1.output.layer_norm."),
        (r"^cls\.predictions\.(dense|layer_norm)\.", r"cls.predictions.transform.\1."),
        (r"^cls\.predictions\.decoder_weight$", "cls.predictions.decoder.weight"),
        (r"^cls\.predictions\.decoder_bias$", "cls.predictions.bias"),
        (r"\.layer_norm\.", ".LayerNorm."),
    ),
    activations={
        "gelu": gelu_erf,
        "gelu_python": gelu_erf,
        "gelu_new": gelu_tanh,
        "gelu_fast": gelu_tanh,
        "relu": relu,
        "silu": swish,
        "swish": swish,
        "tanh": tanh,
        "linear": linear,
    },
    in_out=True,
    classifiers_in_out=True,
    tied_to_decoder=True,
    spans="classifier",
)

PYTORCH = Dialect(
    "pytorch",  # Huawei's NEZHA-PyTorch/modeling_nezha.py, and JABER's copy of it
    known_by=lambda names, config: True,
    # JABER names its classifier of tokens "dense" and its classifier of several labels "linear".
    spelling=(*_TORCH_NAMES, (r"^(dense|linear)\.", "classifier.")),
    activations={"gelu": gelu_erf, "relu": relu, "swish": swish},  # modeling_nezha.py:57-70
    epsilon=None,
    # Huawei's program ties them, so it writes equal ones; bert_seq2seq, whose files look the same, has two tensors.
    unties=True,
    tied_by=("tie_word_embeddings", "tie_emb_prj_weight"),
    tied=False,
    causal={"application": ("lm",)},  # of bert4torch, which can write these names
    prefix={"application": ("unilm",)},
)

TRANSFORMERS = Dialect(
    "transformers",  # 4.40.2, models/nezha
    known_by=lambda names, config: (
        bool({"model_type", "architectures", "transformers_version"} & set(config))
        or any(name.startswith("nezha.") for name in names)
    ),
    spelling=_TORCH_NAMES,
    activations=_ACTIVATIONS,
    masked=_FLOAT32_MIN,
    epsilon=None,
    head_epsilon=None,
    tied_to_decoder=True,
    decoder_bias_wins=True,
    unties=True,
    causal={"is_decoder": (True,), "application": ("lm",)},  # the latter is of bert4torch
    prefix={"prefix_lm": (True,), "application": ("unilm",)},  # the former of nezha itself
)

BERT4TORCH = Dialect(
    "bert4torch",  # 0.1.1 to 0.5.7, models/bert.py; later versions do not divide the scores
    known_by=lambda names, config: any("encoderLayer." in name for name in names),
    spelling=(
        *_TORCH_NAMES,
        (r"^encoderLayer\.", "encoder.layer."),
        (r"\.multiHeadAttention\.q\.", ".attention.self.query."),
        (r"\.multiHeadAttention\.k\.", ".attention.self.key."),
        (r"\.multiHeadAttention\.v\.", ".attention.self.value."),
        (r"\.multiHeadAttention\.o\.", ".attention.output.dense."),
        (r"\.(attnLayerNorm|layerNorm1)\.", ".attention.output.LayerNorm."),
        (r"\.feedForward\.intermediateDense\.", ".intermediate.dense."),
        (r"\.feedForward\.outputDense\.", ".output.dense."),
        (r"\.(ffnLayerNorm|layerNorm2)\.", ".output.LayerNorm."),
        (r"^embeddings\.layerNorm\.", "embeddings.LayerNorm."),
        (r"^embeddings\.segment_", "embeddings.token_type_"),
        (r"^pooler\.(?!dense)", "pooler.dense."),
        (r"^nsp\.", "cls.seq_relationship."),
        (r"^mlm(Dense|LayerNorm)\.", r"cls.predictions.transform.\1."),
        (r"transform\.Dense", "transform.dense"),
        (r"^mlmBias$", "cls.predictions.bias"),
        (r"^mlmDecoder\.", "cls.predictions.decoder."),
    ),
    activations=_ACTIVATIONS,  # the same in its activations.py
    masked=_FLOAT32_MIN,
    epsilon=None,
    tied_to_decoder=True,
    decoder_bias_wins=True,
    unties=True,
    tied_by=("tie_word_embeddings", "tie_emb_prj_weight"),
    tied=False,
    causal={"application": ("lm",)},
    prefix={"application": ("unilm",)},  # models/base.py, UniLM_Mask
)

_INNER = ("q_dense", "k_dense", "v_dense", "o_dense"), ("i0_dense", "o_dense")

BERT4KERAS = Dialect(
    "bert4keras",  # 0.11.5, models.py NEZHA and BERT, layers.py, backend.py; names as formats.keras.read gives them
    known_by=lambda names, config: any("Embedding-Token/" in name for name in names),
    spelling=(
        (r"(/\d+)/(embeddings|kernel|bias|beta|gamma)$", r"\1"),  # the older layout repeats what the index says
        (r"/(embeddings|kernel|beta)$", "/0"),  # by objects, a name says it instead of an index
        (r"/(bias|gamma)$", "/1"),
        *(
            (
                rf"-{layer}/{2 * n + i}$",
                f"-{layer}/{dense}/{i}",
            )  # and counts the weights of inner layers through
            for layer, inner in zip(("MultiHeadSelfAttention", "FeedForward"), _INNER, strict=True)
            for n, dense in enumerate(inner)
            for i in (0, 1)
        ),
        (r"^Transformer-(\d+)-", r"encoder.layer.\1."),
        (r"MultiHeadSelfAttention-Norm/", "attention.output.LayerNorm/"),
        (r"FeedForward-Norm/", "output.LayerNorm/"),
        (r"MultiHeadSelfAttention/q_dense/", "attention.self.query/"),
        (r"MultiHeadSelfAttention/k_dense/", "attention.self.key/"),
        (r"MultiHeadSelfAttention/v_dense/", "attention.self.value/"),
        (r"MultiHeadSelfAttention/o_dense/", "attention.output.dense/"),
        (r"FeedForward/i0_dense/", "intermediate.dense/"),
        (r"FeedForward/o_dense/", "output.dense/"),
        (r"^Embedding-Token/", "embeddings.word_embeddings/"),
        (r"^Embedding-Segment/", "embeddings.token_type_embeddings/"),
        (r"^Embedding-Norm/", "embeddings.LayerNorm/"),
        (r"^Embedding-Position/", "embeddings.position_embeddings/"),
        (r"^Embedding-Relative-Position/", "embeddings.relative_positions/"),
        (r"^Pooler-Dense/", "pooler.dense/"),
        (r"^MLM-Dense/", "cls.predictions.transform.dense/"),
        (r"^MLM-Norm/", "cls.predictions.transform.LayerNorm/"),
        (r"^MLM-Bias/0$", "cls.predictions.bias"),
        (r"^NSP-Proba/", "cls.seq_relationship/"),
        (r"^dense/", "classifier/"),
        (r"LayerNorm/0$", "LayerNorm.bias"),  # beta is created first (layers.py:221-232)
        (r"LayerNorm/1$", "LayerNorm.weight"),
        (r"/0$", ".weight"),
        (r"/1$", ".bias"),
    ),
    activations={  # backend.py:511-523, and Keras' own
        **{"gelu": gelu_erf, "gelu_erf": gelu_erf, "gelu_tanh": gelu_tanh, "relu": relu, "swish": swish},
        **{"silu": swish, "tanh": tanh, "linear": linear},
    },
    in_out=True,
    classifiers_in_out=True,
    masked=_FLOAT32_MIN,  # -inf there
    epsilon=1e-7,  # NEZHA uses Keras' default, models.py:987; the head is BERT's, models.py:646
)

MINDSPORE = Dialect(
    "mindspore",  # mindspore-ai/models, official/nlp/Bert/src: bert_model.py, bert_for_pre_training.py
    known_by=lambda names, config: any("bert_embedding_lookup." in name for name in names),
    spelling=(
        (r"^bert\.bert_embedding_lookup\.embedding_table$", "embeddings.word_embeddings.weight"),
        (
            r"^bert\.bert_embedding_postprocessor\.(token_type_embedding\.)?embedding_table$",
            "embeddings.token_type_embeddings.weight",
        ),
        (r"^bert\.bert_embedding_postprocessor\.", "embeddings."),
        (
            r"^bert\.bert_encoder\.layers\.(\d+)\.[\w.]*_positions_embeddings\.\w+$",
            r"encoder.layer.\1.relative_positions.weight",
        ),
        (r"^bert\.bert_encoder\.layers\.", "encoder.layer."),
        (r"\.attention\.attention\.(query|key|value)_layer\.", r".attention.self.\1."),
        (r"\.intermediate\.", ".intermediate.dense."),
        (r"^bert\.dense\.", "pooler.dense."),
        (r"^cls1\.output_bias$", "cls.predictions.bias"),
        (r"^cls1\.", "cls.predictions.transform."),
        (r"^cls2\.dense\.", "cls.seq_relationship."),
        (r"^dense_1\.", "classifier."),
        (r"^dense1\.", "qa_outputs."),
        (r"\blayernorm\.gamma$", "LayerNorm.weight"),
        (r"\blayernorm\.beta$", "LayerNorm.bias"),
    ),
    # nn.Dense makes "gelu" nn.GELU(), which approximates; nn.LayerNorm's epsilon is 1e-7.
    activations={"gelu": gelu_tanh, "relu": relu, "tanh": tanh, "linear": linear},
    epsilon=1e-7,
    head_epsilon=1e-7,
    clip=16,
)

_TRAINING = re.compile(r"/(adam|lamb)_[mv]$|^global_step$|^bert/pooler/")

BERT4KERAS_BUNDLE = replace(
    TENSORFLOW,
    name="bert4keras",  # its save_weights_as_checkpoint writes Huawei's names, and no trace of an optimizer or pooler
    known_by=lambda names, config: (
        "bert/embeddings/word_embeddings" in names and not any(_TRAINING.search(name) for name in names)
    ),
    activations=BERT4KERAS.activations,
    lower_case=False,
    masked=BERT4KERAS.masked,
    epsilon=BERT4KERAS.epsilon,
    clip=None,
)

DIALECTS = (BERT4KERAS, BERT4KERAS_BUNDLE, TENSORFLOW, MINDSPORE, PADDLE, BERT4TORCH, TRANSFORMERS, PYTORCH)


def dialect_of(names: Iterable[str], config: Mapping[str, Any]) -> Dialect:
    """The program that a checkpoint with these tensors and this JSON belongs to."""
    names = tuple(names)
    return next(dialect for dialect in DIALECTS if dialect.known_by(names, config))
