"""The programs that a model goes back to: data only. What their folders hold, and what they can compute."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..formats.paddle import write_paddle
from ..formats.safetensors import write_safetensors
from ..formats.tensor import Tensor
from ..formats.tf_bundle.write import write_bundle
from ..formats.torch.write import write_torch
from . import (
    BERT4TORCH,
    CLASSIFIER,
    ENCODER,
    HEADS,
    HUAWEI_TF,
    HUAWEI_TORCH,
    MLM,
    NSP,
    PADDLE,
    PADDLE_BASE,
    POOLER,
    QA,
    TRANSFORMERS,
    TRANSFORMERS_BASE,
)
from .rules import Habit, Table


@dataclass(frozen=True, slots=True)
class Program:
    """A program's folder and habits, beyond those of its table.

    Attributes:
        table: its names and habits; base: those of its model without a head, where they differ.
        weights: the file of the weights, or what its name begins with.
        write: writes them.
        config: the file of the model's JSON.
        heads: by each head that it has, the parts that its program needs to load it, used or not.
        classes: the class of each head, which its JSON names; empty where the JSON names none.
        carried: files of the converted folder that go over as they are.
        labels: a file of the classifier's labels, one a line, where the JSON does not hold them.
        ties: a decoder that is tied is in its files all the same, where its table has a name for it.
        unties: it can have a decoder of its own.
        float32: it has no other floating-point type.
        positions: the name by which each layer keeps its table of relative positions, [length, length, head size].
        says: fields of its JSON that are the same for every model.
        steps: its counter of training steps, which it restores with the weights.
        fixed: fields of NezhaConfig that one part of it does not read, as its table's habits have them for all.
        loaded_by: what loads the folder, as a person would do it.
    """

    table: Table
    weights: str
    write: Callable[[Path, Iterable[Tensor]], None]
    config: str
    heads: Mapping[str, tuple[str, ...]]
    loaded_by: str
    base: Table | None = None
    classes: Mapping[str, str] = field(default_factory=dict)
    carried: tuple[str, ...] = ("vocab.txt",)
    labels: str = ""
    ties: bool = True
    unties: bool = False
    float32: bool = False
    positions: str = ""
    says: Mapping[str, Any] = field(default_factory=dict)
    steps: str = ""
    fixed: Mapping[str, Mapping[str, Habit]] = field(default_factory=dict)


_CLASSIFIER = (ENCODER, POOLER, CLASSIFIER)
_PRETRAINING = (ENCODER, POOLER, MLM, NSP)
_EVERYWHERE = {
    "encoder": (ENCODER, POOLER),
    "pretraining": _PRETRAINING,
    "next-sentence-prediction": _PRETRAINING,
    "sequence-classification": _CLASSIFIER,
    "question-answering": (ENCODER, POOLER, QA),
}
"""In every program but transformers the model below a head has a pooler, and the next sentence comes with the rest."""

PROGRAMS = {
    "huawei-tf": Program(
        HUAWEI_TF,
        weights="model.ckpt",
        write=write_bundle,
        config="bert_config.json",
        # run_pretraining.py builds the masked-LM and the next-sentence head, always both.
        heads=_EVERYWHERE | {"masked-lm": _PRETRAINING, "token-classification": _CLASSIFIER},
        loaded_by="--init_checkpoint {folder}/model.ckpt --bert_config_file {folder}/bert_config.json",
        labels="labels.txt",
        float32=True,
        steps="global_step",
    ),
    "huawei-torch": Program(
        HUAWEI_TORCH,
        weights="pytorch_model.bin",
        write=write_torch,
        config="bert_config.json",
        heads=_EVERYWHERE | {"masked-lm": (ENCODER, POOLER, MLM), "multiple-choice": _CLASSIFIER},
        loaded_by="BertModel.from_pretrained('{folder}'), or another class of modeling_nezha.py",
        labels="labels.txt",
        fixed={MLM: {"layer_norm_eps": Habit(1e-12, "hard-coded in its masked-LM head", fixed=True)}},
    ),
    "transformers-4": Program(
        TRANSFORMERS,
        base=TRANSFORMERS_BASE,
        weights="model.safetensors",
        write=write_safetensors,
        config="config.json",
        heads={head.name: head.parts for head in HEADS.values()},
        classes={head.name: head.architecture for head in HEADS.values()},
        loaded_by="transformers.AutoModel.from_pretrained('{folder}'), up to 4.57",
        carried=("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
        ties=False,
        unties=True,
    ),
    "paddle": Program(
        PADDLE,
        base=PADDLE_BASE,
        weights="model_state.pdparams",
        write=write_paddle,
        config="config.json",
        heads=_EVERYWHERE
        | {"masked-lm": _PRETRAINING, "multiple-choice": _CLASSIFIER, "token-classification": _CLASSIFIER},
        classes={
            "encoder": "NeZhaModel",
            **dict.fromkeys(("pretraining", "masked-lm", "next-sentence-prediction"), "NeZhaForPretraining"),
            "sequence-classification": "NeZhaForSequenceClassification",
            "multiple-choice": "NeZhaForMultipleChoice",
            "token-classification": "NeZhaForTokenClassification",
            "question-answering": "NeZhaForQuestionAnswering",
        },
        loaded_by="paddlenlp.transformers.NeZhaModel.from_pretrained('{folder}'), or another of its classes",
    ),
    "bert4torch": Program(
        BERT4TORCH,
        weights="pytorch_model.pt",
        write=write_torch,
        config="bert4torch_config.json",
        # Each part is an option of build_transformer_model: with_pool, with_mlm, with_nsp.
        heads={
            "encoder": (ENCODER, POOLER),
            "pretraining": _PRETRAINING,
            "masked-lm": (ENCODER, MLM),
            "next-sentence-prediction": (ENCODER, POOLER, NSP),
        },
        loaded_by="build_transformer_model('{folder}/bert4torch_config.json', model='nezha', with_...=True)"
        ".load_state_dict(torch.load('{folder}/pytorch_model.pt')), up to bert4torch 0.5.7",
        positions="encoderLayer.{i}.multiHeadAttention.relative_positions_encoding.position_embeddings",
        says={"model": "nezha"},
        unties=True,
    ),
}
"""By the name that --to takes."""
