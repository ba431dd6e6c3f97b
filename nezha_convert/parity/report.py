"""The result of a verification, as plain data. The table, the JSON, JUnit's XML and the HTML page show this alone."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from .._version import __version__
from ..checkpoint import Assumption
from ..folder.record import ConvertedFolder
from ..folder.report import FileRecord
from .inputs import Inputs

EXPONENTS = range(-60, 11)
"""The histogram's bins. Bin e counts the errors in [2^(e-1), 2^e) of their tensor's range; the outer bins, the rest."""

_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")


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
    def worst(self) -> TensorParity:
        """The tensor with the largest relative error."""
        return max(self.tensors, key=lambda tensor: tensor.relative_error)


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


@dataclass(frozen=True, slots=True)
class ParityReport:
    """A verification: what was compared with what, how far apart it is, and the verdict.

    Attributes:
        versions: of nezha-convert and of the libraries that computed.
        source, output: their names.
        family, head, architecture, dtype: of the converted model.
        cases: the inputs.
        comparisons: one a reference; the verdict quotes the first.
        tokenizer: None when the output has no tokenizer.
        changed: the names of the output's files that were changed since the conversion.
        failures: every reason why the output did not pass, in words; empty when it passed.
        warnings: what else a reader should know, in words.
        assumed: what the verdict rests on, although neither the source nor a comparison shows it.
        accepted: the names of those among them that the user accepted by ``--assume``; they are not shown to a person.
        weights: statistics by part.
        decisions, dropped: as the conversion recorded them.
        verified: the files of weights and their hashes.
        seconds: how long the verification took.
        read: the name of the checkpoint that was read, of several in the source.

    Example:
        >>> import nezha_convert
        >>> report = nezha_convert.verify("NEZHA-Base/", "nezha-base/", record=False)
        >>> report.passed, report.first_departs, report.comparisons[0].tolerance
        (True, None, 2e-05)
    """

    versions: Mapping[str, str]
    source: str
    output: str
    family: str
    head: str
    architecture: str
    dtype: str
    cases: tuple[Case, ...]
    comparisons: tuple[Comparison, ...]
    tokenizer: TokenizerParity | None
    changed: tuple[str, ...]
    failures: tuple[str, ...]
    warnings: tuple[str, ...]
    assumed: tuple[Assumption, ...]
    accepted: tuple[str, ...]
    weights: tuple[WeightStatistics, ...]
    decisions: tuple[Mapping[str, Any], ...]
    dropped: tuple[Mapping[str, Any], ...]
    verified: tuple[FileRecord, ...]
    seconds: float = 0.0
    read: str = ""

    @classmethod
    def of(cls, folder: ConvertedFolder, cases: Mapping[str, Inputs], **measured: Any) -> ParityReport:
        """The report on `folder`; `measured` are the attributes that neither the folder nor `cases` tells."""
        record = folder.record
        return cls(
            versions={
                "nezha-convert": __version__,
                "python": platform.python_version(),
                **{name: version(name) for name in _LIBRARIES},
            },
            source=str(record["source"]),
            output=folder.path.resolve().name,
            family=record["family"],
            head=folder.head,
            architecture=folder.architecture,
            dtype=folder.dtype,
            cases=tuple(Case(name, case["input_ids"].shape) for name, case in cases.items()),
            decisions=tuple(record["decisions"]),
            dropped=tuple(record["dropped"]),
            **measured,
        )

    @property
    def passed(self) -> bool:
        """Whether the output computes what the source computes."""
        return not self.failures

    @property
    def open_assumptions(self) -> tuple[Assumption, ...]:
        """What is assumed and was not accepted."""
        return tuple(one for one in self.assumed if one.name not in self.accepted)

    @property
    def first_departs(self) -> str | None:
        """The first tensor over its tolerance, in the first comparison that has such a tensor."""
        departing = (comparison.first_departs for comparison in self.comparisons)
        return next((tensor.name for tensor in departing if tensor), None)

    @property
    def verdict(self) -> str:
        """One line for a log: that it passed, or why it failed."""
        if not self.passed:
            return f"{self.output} failed: {'; '.join(self.failures)}"
        first = self.comparisons[0]
        return (
            f"{self.output} passed: largest error {first.worst.relative_error:.1e} of the range of {first.worst.name}, "
            f"allowed {first.tolerance:g}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as ``--json`` prints it. NaN and infinity become null, for JSON lacks them."""
        judged = {"passed": self.passed, "first_departs": self.first_departs, "verdict": self.verdict}
        content: dict[str, Any] = _finite({**judged, **asdict(self)})
        for entry, comparison in zip(content["comparisons"], self.comparisons, strict=True):
            entry["first_departs"] = comparison.first_departs.name if comparison.first_departs else None
        return content

    def summary(self) -> dict[str, Any]:
        """What conversion.json keeps. It has no date and no duration, so that equal proofs give equal files."""
        return {
            "passed": self.passed,
            "failures": list(self.failures),
            "assumed": [asdict(one) for one in self.assumed],
            "accepted": list(self.accepted),
            "comparisons": [
                _finite(
                    {
                        "reference": comparison.reference,
                        "arithmetic": comparison.arithmetic,
                        "tolerance": comparison.tolerance,
                        "worst_error": comparison.worst.relative_error,
                        "worst_tensor": comparison.worst.name,
                        "worst_at": str(comparison.worst.peak),
                    }
                )
                for comparison in self.comparisons
            ],
            "tokenizer": self.tokenizer and {"reference": self.tokenizer.reference, "texts": self.tokenizer.texts},
            "versions": dict(self.versions),
            "verified": [asdict(file) for file in self.verified],
        }

    def to_json(self) -> str:
        """The report as one JSON document."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)


def shortened(text: str) -> str:
    """`text`, cut to fit into a line of a message."""
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
