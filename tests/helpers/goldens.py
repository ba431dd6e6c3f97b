"""The originals' small checkpoints and what the original programs computed on them (fixtures/README.md)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

HELPERS = Path(__file__).parent
FIXTURES = HELPERS.parents[1] / "fixtures"

TOLERANCE = {"huawei-tf": 5e-6} | dict.fromkeys(
    ("huawei-torch", "transformers", "paddle", "bert4keras", "bert4torch", "mindspore"), 3e-5
)
"""Largest error allowed, as a part of each tensor's range."""


@dataclass(frozen=True)
class Golden:
    """A checkpoint, the family and head that it is, and the head option that its conversion needs."""

    name: str
    family: str
    head: str
    optimizer_nbytes: int = 0
    asked: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def folder(self) -> Path:
        return FIXTURES / self.name

    @property
    def options(self) -> list[str]:
        return ["--head", self.head] if self.asked else []

    @property
    def tolerance(self) -> float:
        return TOLERANCE[self.family]

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / "expected.npz") as arrays:
            return dict(arrays)

    def cases(self) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
        """(case, its arrays by name)."""
        for case in sorted({key.split("/")[0] for key in self._arrays}):
            yield (
                case,
                {
                    key.split("/")[1]: torch.from_numpy(array)
                    for key, array in self._arrays.items()
                    if key.startswith(f"{case}/")
                },
            )


GOLDENS = [
    Golden("huawei-tf-pretraining", "huawei-tf", "pretraining", 155_920),
    Golden("huawei-tf-classifier", "huawei-tf", "sequence-classification", 146_712, asked=True),
    Golden("huawei-tf-ner", "huawei-tf", "token-classification", 148_824, asked=True),
    Golden("huawei-tf-squad", "huawei-tf", "question-answering"),
    Golden("huawei-torch-pretraining", "huawei-torch", "pretraining"),
    Golden("huawei-torch-mlm-rel127", "huawei-torch", "masked-lm"),
    Golden("huawei-torch-classifier", "huawei-torch", "sequence-classification"),
    Golden("huawei-torch-multiple-choice", "huawei-torch", "multiple-choice"),
    Golden("huawei-torch-qa", "huawei-torch", "question-answering"),
    Golden("jaber-token", "huawei-torch", "token-classification"),
    Golden("jaber-multilabel", "huawei-torch", "sequence-classification"),
    Golden("lonepatient-masked-lm", "huawei-torch", "masked-lm"),
    Golden("bert4torch-pretraining", "bert4torch", "pretraining"),
    Golden("bert4torch-0.2.7-masked-lm", "bert4torch", "masked-lm"),
    Golden("bert4torch-causal-lm", "bert4torch", "causal-lm"),
    Golden("bert4torch-prefix-lm", "bert4torch", "prefix-lm"),
    Golden("transformers-4.40.2-encoder", "transformers", "encoder"),
    Golden("transformers-4.40.2-pretraining", "transformers", "pretraining"),
    Golden("transformers-4.40.2-masked-lm", "transformers", "masked-lm"),
    Golden("transformers-4.40.2-causal-lm", "transformers", "causal-lm"),
    Golden("transformers-4.40.2-next-sentence-prediction", "transformers", "next-sentence-prediction"),
    Golden("transformers-4.40.2-sequence-classification", "transformers", "sequence-classification"),
    Golden("transformers-4.40.2-multiple-choice", "transformers", "multiple-choice"),
    Golden("transformers-4.40.2-token-classification", "transformers", "token-classification"),
    Golden("transformers-4.40.2-question-answering", "transformers", "question-answering"),
    Golden("paddlenlp-pretraining", "paddle", "pretraining"),
    Golden("paddlenlp-sequence-classification", "paddle", "sequence-classification"),
    Golden("paddlenlp-question-answering", "paddle", "question-answering"),
    Golden("bert4keras-pretraining", "bert4keras", "pretraining"),
    Golden("bert4keras-sequence-classification", "bert4keras", "sequence-classification", 45_076),
    Golden("bert4keras-masked-lm", "bert4keras", "masked-lm"),
    Golden("mindspore-pretraining", "mindspore", "pretraining", 48),
]

INPUTS = {
    "input_ids": "input_ids",
    "input_mask": "attention_mask",
    "attention_mask": "attention_mask",
    "segment_ids": "token_type_ids",
    "token_type_ids": "token_type_ids",
}
"""The originals' names of inputs by transformers'."""

LABELS = {
    "labels",
    "next_sentence_label",
    "start_positions",
    "end_positions",
    "mlm_labels",
    "mlm_weights",
    "nsp_labels",
}


def errors(golden: Golden, model: torch.nn.Module, case: str, expected: dict[str, torch.Tensor]) -> dict[str, float]:
    """The largest error of each tensor that the original recorded, as a part of its range."""
    inputs = {INPUTS[name]: tensor.long() for name, tensor in expected.items() if name in INPUTS}
    if golden.family == "transformers":  # these record the loss that transformers computed from the labels
        inputs |= {name: tensor for name, tensor in expected.items() if name in LABELS}
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True, output_attentions=True, return_dict=True)
    worst = {}
    for name, tensor in expected.items():
        if name in INPUTS or name in LABELS:
            continue
        if name != "pooled_output" or getattr(model, "nezha", model).pooler is not None:
            worst[name] = _error(_output(golden, model, outputs, inputs, expected, name), tensor)
    assert worst, f"{golden} {case} records no output"
    return worst


def _error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    assert actual.shape == expected.shape
    if not expected.is_floating_point():
        return 0.0 if torch.equal(actual, expected) else float("inf")
    # A loss has no range: it is measured against one nat, or itself if larger. Near 0 its float32 error is that of the
    # log-probabilities it is made of, whose range is several nats.
    spread = (expected.max() - expected.min()).item() if expected.dim() else max(expected.abs().item(), 1.0)
    return (actual.double() - expected.double()).abs().max().item() / spread


def _output(golden, model, outputs, inputs, expected, name) -> torch.Tensor:
    """What the converted model gives for the tensor that the original calls `name`."""
    stem, _, number = name.rpartition("_")
    if stem in ("hidden_state", "hidden_states"):
        return outputs.hidden_states[int(number)]
    if stem == "attentions":
        return outputs.attentions[int(number)]
    if stem == "layer":
        return outputs.hidden_states[int(number) + 1]
    if name in _DERIVED:
        return _DERIVED[name](model, outputs, inputs, expected)
    if name == "loss" and golden.family == "huawei-tf":
        reduction = "sum" if golden.head == "token-classification" else "mean"
        return cross_entropy(outputs.logits.flatten(0, -2), expected["labels"].flatten().long(), reduction=reduction)
    return outputs[name]


def _pooled(model, outputs, inputs, expected) -> torch.Tensor:
    backbone = getattr(model, "nezha", model)
    return backbone.pooler(outputs.hidden_states[-1])


def _masked_lm_loss(model, outputs, inputs, expected) -> torch.Tensor:
    logits, weights = outputs.prediction_logits.flatten(0, 1), expected["mlm_weights"].flatten()
    losses = cross_entropy(logits, expected["mlm_labels"].flatten().long(), reduction="none")
    return (losses * weights).sum() / (weights.sum() + 1e-5)


_DERIVED: dict[str, Callable[..., torch.Tensor]] = {
    "embedding_output": lambda model, outputs, inputs, expected: outputs.hidden_states[0],
    "sequence_output": lambda model, outputs, inputs, expected: outputs.hidden_states[-1],
    "pooled_output": _pooled,
    "mlm_log_probs": lambda model, outputs, inputs, expected: outputs.prediction_logits.log_softmax(-1),
    "nsp_log_probs": lambda model, outputs, inputs, expected: outputs.seq_relationship_logits.log_softmax(-1),
    "mlm_loss": _masked_lm_loss,
    "nsp_loss": lambda model, outputs, inputs, expected: cross_entropy(
        outputs.seq_relationship_logits, expected["nsp_labels"].flatten().long()
    ),
    "probabilities": lambda model, outputs, inputs, expected: outputs.logits.softmax(-1),
    "predictions": lambda model, outputs, inputs, expected: outputs.logits.argmax(-1),
}


def causal_bert4torch(folder: Path) -> Path:
    """`folder`, with the config of a bert4torch language model beside weights that have Huawei's names."""
    shutil.copytree(FIXTURES / "cases" / "causal-bert4torch", folder)
    shutil.copy(FIXTURES / "huawei-torch-mlm-rel127" / "pytorch_model.bin", folder)
    return folder
