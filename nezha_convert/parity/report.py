"""The result of a verification, as plain data. The table, the JSON, JUnit's XML and the HTML page show this alone."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from .._version import __version__
from ..checkpoint import Assumption
from ..errors import pip_install
from ..folder.record import ConvertedFolder
from ..folder.report import FileRecord
from ..text import screenful
from .charts import LIGHT, error_chart
from .inputs import Inputs
from .results import Case, Comparison, TokenizerParity, WeightStatistics

_NO_CHART = "A chart needs matplotlib: " + pip_install("'nezha-convert[html]'")
_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")


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

    def __repr__(self) -> str:
        rows = [("problem", failure) for failure in self.failures]
        rows += [(f"in {one.arithmetic}", f"against {one.reference}: {one.summary}") for one in self.comparisons]
        if tokenizer := self.tokenizer:
            rows += [("tokenizer", f"{tokenizer.texts} texts, {len(tokenizer.differing)} differ")]
        rows += [("warning", warning) for warning in self.warnings]
        rows += [("assumed", str(one)) for one in self.open_assumptions]
        return screenful(f"Parity of {self.output} with {self.source}: {'passed' if self.passed else 'FAILED'}", rows)

    def _repr_html_(self) -> str:
        """What a notebook shows: the same, and the chart of errors where matplotlib is installed."""
        style = f"{LIGHT} color: var(--ink); background: var(--card); padding: 8px; max-width: 520px"
        drawn = error_chart(self.comparisons) if find_spec("matplotlib") else f"<p>{escape(_NO_CHART)}</p>"
        text = f'<pre style="color: inherit; background: none; white-space: pre-wrap">{escape(repr(self))}</pre>'
        return f'<div style="{escape(style)}">{text}{drawn}</div>'

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
        return f"{self.output} passed: {self.comparisons[0].summary}"

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


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
