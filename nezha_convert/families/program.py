"""A program that a model is exported to: what its folder holds, and what it can compute."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..formats.tensor import Tensor
from .heads import CLASSIFIER, ENCODER, MLM, NSP, POOLER, QA
from .rules import Default, Family

PRETRAINING = (ENCODER, POOLER, MLM, NSP)
CLASSIFIED = (ENCODER, POOLER, CLASSIFIER)

COMMON_HEADS = {
    "encoder": (ENCODER, POOLER),
    "pretraining": PRETRAINING,
    "next-sentence-prediction": PRETRAINING,
    "sequence-classification": CLASSIFIED,
    "question-answering": (ENCODER, POOLER, QA),
}
"""The parts of each head in Huawei's programs and PaddleNLP: every model has a pooler, and the next-sentence part comes
with the masked-LM part."""


@dataclass(frozen=True, slots=True)
class Program:
    """What an export needs to know about a program, besides the names and defaults of its family.

    Attributes:
        family: its names and defaults.
        base: those of its model without a head, where they differ.
        weights: the file of the weights, or how its name begins.
        write: writes them.
        config: the file of the model's JSON.
        heads: for each head that it has, the parts that its program needs to load it, used or not.
        loaded_by: what loads the folder, as a person would do it. {folder} stands for its path, {options} for the
            argument without which the program makes a pooler that the model does not have.
        classes: the class of each head, which its JSON names; empty where the JSON names none.
        carried: files of the converted folder that are copied.
        labels: a file of the classifier's labels, one a line, where the JSON does not hold them.
        ties: a decoder that is tied is in its files all the same, where its family has a name for it.
        unties: it can have a decoder of its own.
        lacks: floating-point types that it does not have. The half ones are written as float32.
        positions: the name by which each layer keeps its table of relative positions, [length, length, head size].
        says: fields of its JSON that are the same for every model.
        steps: the name of its counter of training steps, which it restores with the weights.
        causal: fields of its JSON that let a token see only what is before it; empty if it cannot.
        prefix: the same for a prefix that sees itself on both sides.
        fixed: by part, fields of NezhaConfig that this part does not read, besides its family's defaults.
    """

    family: Family
    weights: str
    write: Callable[[Path, Iterable[Tensor]], None]
    config: str
    heads: Mapping[str, tuple[str, ...]]
    loaded_by: str
    base: Family | None = None
    classes: Mapping[str, str] = field(default_factory=dict)
    carried: tuple[str, ...] = ("vocab.txt",)
    labels: str = ""
    ties: bool = True
    unties: bool = False
    lacks: tuple[str, ...] = ()
    positions: str = ""
    says: Mapping[str, Any] = field(default_factory=dict)
    steps: str = ""
    causal: Mapping[str, Any] = field(default_factory=dict)
    prefix: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Mapping[str, Default]] = field(default_factory=dict)
