"""The converted model beside each of its references, on the same inputs, tensor by tensor."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..files.progress import Counter, Progress
from .converted import LoadedModel
from .inputs import Inputs
from .measure import Measurement
from .oracle.formulas import Array
from .oracle.model import Entry, Oracle
from .originals.programs import PYTORCH_POSITIONS, run_original_all
from .results import Comparison
from .source import Source

_HALVES = ("float16", "bfloat16")

_TABLE = re.compile("relative.position", re.IGNORECASE)
"""Part of the names of stored tables of positions. They are no weights: the converted model computes its own."""

Outputs = Mapping[str, Array]
"""What a model computes for one case: tensors by the oracle's names."""


@dataclass(frozen=True, slots=True)
class ModelParity:
    """The comparisons, one a reference; and the cases that a reference could not take, in words."""

    comparisons: tuple[Comparison, ...]
    warnings: tuple[str, ...]


def compare_model(
    model: LoadedModel,
    source: Source,
    groups: Sequence[Mapping[str, Inputs]],
    dtype: str,
    *,
    original: str | None = None,
    tolerance: float | None = None,
    progress: Progress | None = None,
) -> ModelParity:
    """Compare `model` with the oracle and, where one is given, with the original program.

    Rounding to half precision hides small mistakes. So a model in half precision is compared a second time in float32,
    with the source's weights rounded as the conversion rounds them: then only float32's own noise is left.

    Args:
        groups: the cases by name, in groups that are computed together; the first group sets the tensors' ranges.
        dtype: the element type of the model's weights.
        original: as for `run_original_all`.
        tolerance: the largest error allowed, instead of the element type's own.
        progress: called before and after every step.

    Raises:
        UsageError: the original program cannot run, or the model cannot take an input.
        MappingError: `source` lacks a tensor, or it has other tensors than `model`.
    """
    references: list[_Reference] = _oracles(source, model.head, dtype, tolerance)
    if original:
        references.append(_Original(original, source, model.head, dtype, tolerance))
    by_arithmetic: dict[str, list[_Reference]] = {}
    for reference in reversed(references):  # the original first: what it lacks is best said before the rest is computed
        by_arithmetic.setdefault(reference.measurement.arithmetic, []).append(reference)

    passes = sum(reference.passes(model.layers) for reference in references)
    cases = [case for group in groups for case in group.items()]
    counter = Counter(progress, passes * len(groups) + len(by_arithmetic) * len(cases))
    for group in groups:
        for together in by_arithmetic.values():
            _compare_group(model, group, together, counter)
    return ModelParity(
        tuple(reference.measurement.result() for reference in references),
        tuple(
            f"{name}: left out for NEZHA-PyTorch, whose table of positions ends at {PYTORCH_POSITIONS}"
            for name, case in cases
            if original and _too_long(source.program, case)
        ),
    )


def _compare_group(
    model: LoadedModel, cases: Mapping[str, Inputs], references: Sequence[_Reference], counter: Counter
) -> None:
    """Run `references`, all compared in the same arithmetic, on `cases`; then the model, once a case."""
    expected = [(reference.measurement, reference.run(cases, counter)) for reference in references]
    for measurement, outputs in expected:
        measurement.scale_to(list(outputs.values()))
    arithmetic = references[0].measurement.arithmetic
    for name, case in cases.items():
        counter.add(0, f"the converted model in {arithmetic}: {name}")
        computed = model.run(case, arithmetic)
        for measurement, outputs in expected:
            if name in outputs:
                measurement.add(name, outputs[name], computed, whole=model.head == "encoder")
        counter.add()


class _Reference(Protocol):
    """Something that computes what the converted model should compute."""

    measurement: Measurement

    def passes(self, layers: int) -> int:
        """How many steps `run` counts."""

    def run(self, cases: Mapping[str, Inputs], counter: Counter) -> dict[str, Outputs]:
        """The outputs of each case that the reference can take."""


class _OracleReference:
    """The oracle on the source's own weights, or on rounded ones."""

    def __init__(self, oracle: Oracle, measurement: Measurement) -> None:
        self._oracle, self.measurement = oracle, measurement

    def passes(self, layers: int) -> int:
        return layers

    def run(self, cases: Mapping[str, Inputs], counter: Counter) -> dict[str, Outputs]:
        name = self.measurement.reference
        counter.add(0, name)
        outputs = self._oracle.forward_all(
            list(cases.values()), progress=lambda done, layers, what: counter.add(1, f"{name}: {what}")
        )
        return dict(zip(cases, outputs, strict=True))


class _Original:
    """The original program itself."""

    def __init__(self, original: str, source: Source, head: str, dtype: str, tolerance: float | None) -> None:
        self._original, self._source, self._head = original, source, head
        name = original if original.startswith("transformers") else f"Huawei's {source.program} program"
        self.measurement = Measurement(name, dtype, tolerance)

    def passes(self, layers: int) -> int:
        return 1

    def run(self, cases: Mapping[str, Inputs], counter: Counter) -> dict[str, Outputs]:
        counter.add(0, f"running {self.measurement.reference}")
        short = {name: case for name, case in cases.items() if not _too_long(self._source.program, case)}
        outputs: list[dict[str, Array]] = []
        if short:
            outputs = run_original_all(
                self._original, self._source.checkpoint, self._source.config, self._head, list(short.values())
            )
        counter.add()
        return dict(zip(short, outputs, strict=True))


class _Rounded:
    """A tensor of the source, rounded as the conversion rounds it."""

    def __init__(self, entry: Entry, dtype: str) -> None:
        self._entry, self._dtype = entry, np.dtype(dtype)

    def read(self) -> Array:
        return self._entry.read().astype(self._dtype)


def _oracles(source: Source, head: str, dtype: str, tolerance: float | None) -> list[_Reference]:
    """The oracle; for a model in half precision also the oracle on rounded weights."""
    entries: Mapping[str, Entry] = source.checkpoint.entries
    exact = _OracleReference(Oracle(entries, source.config, head), Measurement("the oracle", dtype, tolerance))
    if dtype not in _HALVES:
        return [exact]
    rounded = {name: entry if _TABLE.search(name) else _Rounded(entry, dtype) for name, entry in entries.items()}
    measurement = Measurement(f"the oracle with weights rounded to {dtype}", "float32", tolerance)
    return [exact, _OracleReference(Oracle(rounded, source.config, head), measurement)]


def _too_long(program: str, case: Inputs) -> bool:
    return program == "pytorch" and bool(case["input_ids"].shape[-1] > PYTORCH_POSITIONS)
