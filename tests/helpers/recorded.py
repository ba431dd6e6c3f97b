"""The outputs that the original programs recorded, and how far the oracle departs from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from goldens import FIXTURES, GOLDENS

from nezha_convert.formats.open import open_checkpoint
from nezha_convert.mapping.config import read_config
from nezha_convert.parity.oracle.model import Oracle

TOLERANCE = 2e-6  # of a tensor's range: the originals' float32

HEAD_OF = {golden.name: golden.head for golden in GOLDENS}


def source(name: str, head: str | None = None, **config: Any) -> tuple[dict[str, Any], dict[str, Any], str]:
    """A fixture's tensors (mutable), its JSON and its head."""
    checkpoint = open_checkpoint(FIXTURES / name)
    assert checkpoint.config
    raw = read_config(checkpoint.config, checkpoint.path)
    return dict(checkpoint.entries), raw | config, head or HEAD_OF[name]


def goldens(name: str) -> dict[str, dict[str, np.ndarray]]:
    """The outputs of the original: case -> its name of the tensor -> array."""
    cases: dict[str, dict[str, np.ndarray]] = {}
    with np.load(FIXTURES / name / "expected.npz") as stored:
        for key in stored:
            case, tensor = key.split("/")
            cases.setdefault(case, {})[tensor] = stored[key]
    return cases


def inputs_of(golden: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    mask = golden["attention_mask" if "attention_mask" in golden else "input_mask"]
    types = golden["token_type_ids" if "token_type_ids" in golden else "segment_ids"]
    return {"input_ids": golden["input_ids"], "attention_mask": mask, "token_type_ids": types}


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def near(loss: np.ndarray, logits: np.ndarray) -> Any:
    """A loss is a difference of logits, so its error is relative to their range."""
    return pytest.approx(float(loss), rel=TOLERANCE, abs=TOLERANCE * float(np.ptp(logits)))


def cross_entropy(logits: np.ndarray, labels: np.ndarray, ignored: int = -100) -> float:
    """The mean over the labels that are not `ignored`."""
    labels, logits = labels.reshape(-1), logits.reshape(-1, logits.shape[-1])
    kept = labels != ignored
    return float(-log_softmax(logits)[kept, labels[kept]].mean())


NAMES = {
    "embedding_output": "embeddings",
    "pooled_output": "pooler",
    "pooler_output": "pooler",
    "sequence_output": "layer_1",
    "last_hidden_state": "layer_1",
} | {f"hidden_state{s}_{i}": "embeddings" if i == 0 else f"layer_{i - 1}" for s in ("", "s") for i in range(3)}
DERIVED: dict[str, Callable[[dict[str, np.ndarray]], np.ndarray]] = {
    "mlm_log_probs": lambda out: log_softmax(out["prediction_logits"]),
    "nsp_log_probs": lambda out: log_softmax(out["seq_relationship_logits"]),
    "probabilities": lambda out: np.exp(log_softmax(out["logits"])),
    "predictions": lambda out: out["logits"].argmax(-1),
}
NOT_OUTPUTS = {"input_ids", "input_mask", "attention_mask", "segment_ids", "token_type_ids", "mlm_weights"}


def departures(model: Oracle, golden: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest error of each recorded tensor, relative to its range."""
    outputs = model.forward(**inputs_of(golden))
    worst = {}
    for name, expected in golden.items():
        if name in NOT_OUTPUTS or name.startswith("attentions") or "label" in name or "loss" in name:
            continue
        if name in ("start_positions", "end_positions"):
            continue
        actual = DERIVED[name](outputs) if name in DERIVED else outputs[NAMES.get(name, name)]
        if name != "mlm_log_probs":  # TensorFlow flattens these
            assert actual.shape == expected.shape
        worst[name] = float(np.abs(actual.reshape(expected.shape) - expected).max() / np.ptp(expected))
    return worst
