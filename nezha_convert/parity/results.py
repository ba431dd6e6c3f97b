"""What a verification measured, as plain data: parts of a ParityReport."""

from __future__ import annotations

from dataclasses import dataclass

EXPONENTS = range(-60, 11)
"""The histogram's bins. Bin e counts the errors in [2^(e-1), 2^e) of their tensor's range; the outer bins, the rest."""


@dataclass(frozen=True, slots=True)
class Peak:
    """The place of a tensor's largest error, and both values there."""

    case: str
    index: tuple[int, ...]
    expected: float
    found: float

    def __str__(self) -> str:
        return f"{self.case}{list(self.index)}"


@dataclass(frozen=True, slots=True)
class TensorParity:
    """One tensor, over all cases.

    Attributes:
        name: `embeddings`, `layer_i`, `pooler`, or the logits' name in transformers.
        scale: the reference's range (largest minus smallest value) over the built-in cases; errors are relative to it.
        max_error: the largest absolute error.
        relative_error: `max_error` divided by `scale`; the tolerance limits this.
        cosine_distance: 1 - cosine of both tensors, where all cases together are one vector.
        argmax_agreement: the part of the rows (last axis) whose largest element is at the same place.
        nonfinite: how many values are NaN or infinite, in the converted model or the reference; one is a failure.
        values: how many values there are.
        peak: the place of the largest error.
        passed: whether the error is within the comparison's tolerance.
    """

    name: str
    scale: float
    max_error: float
    relative_error: float
    cosine_distance: float
    argmax_agreement: float
    nonfinite: int
    values: int
    peak: Peak
    passed: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """The converted model against one reference.

    Attributes:
        reference: what the model was compared with, in words.
        arithmetic: the element type that the converted model computed in.
        tolerance: the largest relative error allowed.
        reason: why the tolerance has this size.
        tensors: in the order in which the model computes them.
        histogram: how many values have an error in each bin of `EXPONENTS`.
    """

    reference: str
    arithmetic: str
    tolerance: float
    reason: str
    tensors: tuple[TensorParity, ...]
    histogram: tuple[int, ...]

    @property
    def first_departs(self) -> TensorParity | None:
        """The first tensor over the tolerance. The fault is in what computes it from the tensor before it."""
        return next((tensor for tensor in self.tensors if not tensor.passed), None)

    @property
    def departure(self) -> str:
        """Where it departs and how far, in words; empty where every tensor is within the tolerance."""
        tensor = self.first_departs
        if tensor is None:
            return ""
        size = f"{tensor.nonfinite:,} values not finite" if tensor.nonfinite else f"{tensor.relative_error:.1e}"
        return (
            f"first departs {tensor.name}: {size} of its range from {self.reference} in {self.arithmetic}, "
            f"at {tensor.peak}; allowed {self.tolerance:g}"
        )

    @property
    def worst(self) -> TensorParity:
        """The tensor with the largest relative error."""
        return max(self.tensors, key=lambda tensor: tensor.relative_error)

    @property
    def summary(self) -> str:
        """The largest error and what is allowed, in a line."""
        worst = self.worst
        return f"largest error {worst.relative_error:.1e} of the range of {worst.name}, allowed {self.tolerance:g}"


@dataclass(frozen=True, slots=True)
class Mistokenized:
    """A text whose tokens differ from the reference's, from token `at` on."""

    text: str
    at: int
    expected: tuple[str, ...]
    found: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TokenizerParity:
    """The converted tokenizer against a reference. It passed when `differing` is empty."""

    reference: str
    texts: int
    lower_case: bool
    differing: tuple[Mistokenized, ...]


@dataclass(frozen=True, slots=True)
class WeightStatistics:
    """All weights of one part of the converted model: `embeddings`, `layer_i`, `pooler` or `head`."""

    part: str
    values: int
    mean: float
    std: float
    low: float
    high: float
    nonfinite: int


@dataclass(frozen=True, slots=True)
class Case:
    """An input: its name, and the shape of its `input_ids`."""

    name: str
    shape: tuple[int, ...]


def shortened(text: str) -> str:
    """`text`, cut to fit into a line of a message."""
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"
