"""`diff`: two checkpoints of any programs, tensor by tensor, in the names and the layout of converted folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import Checkpoint, Decision, TensorEntry
from ..errors import MappingError, UsageError
from ..families import FAMILIES
from ..families.heads import HEADS, TIES
from ..families.rules import Drop, Family, Match, Op
from ..folder.report import own_title
from ..formats.open import open_checkpoint
from ..hub import local_source
from ..mapping.plan import Step
from ..mapping.survey import Unclear, look
from ..weights.write import converted

EQUAL, UP_TO_DTYPE, DIFFERENT, SHAPE, ONLY_A, ONLY_B = (
    "equal",
    "equal up to dtype",
    "different",
    "other shape",
    "only in a",
    "only in b",
)


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """One tensor of two checkpoints.

    Attributes:
        name: as conversions call it.
        verdict: one of this module's six.
        a, b: the names in the sources; empty where there is none.
        dtypes, shapes: of both, in the layout that conversions have.
        count: elements that differ.
        largest: the largest difference; NaN where one is NaN or infinite and the other is not the same.
        relative: `largest` as a part of the range of a's values.
    """

    name: str
    verdict: str
    a: str
    b: str
    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    count: int = 0
    largest: float = 0.0
    relative: float = 0.0


@dataclass(frozen=True, slots=True)
class Difference:
    """What `diff` found.

    Attributes:
        a, b: the sources.
        families: the programs that they are of, or that nezha-convert wrote them.
        tensors: every tensor of either that is a weight.
        unknown: names of either that its family's table does not know, which nothing is compared with.
        left_out: how many names of each are no weights: optimizer state, buffers.
        decisions: how the checkpoint was found at each, where there was a choice: the step, the file.

    Example:
        >>> import nezha_convert
        >>> difference = nezha_convert.diff("NEZHA-Base/", "nezha-base/")
        >>> difference.families
        ("Huawei's NEZHA-TensorFlow", 'a folder of nezha-convert')
    """

    a: str
    b: str
    families: tuple[str, str]
    tensors: tuple[TensorDifference, ...]
    unknown: tuple[tuple[str, ...], tuple[str, ...]]
    left_out: tuple[int, int]
    decisions: tuple[tuple[Decision, ...], tuple[Decision, ...]] = ((), ())

    @property
    def same(self) -> bool:
        """Whether both hold the same numbers, the element type aside, and nothing unknown."""
        return not any(self.unknown) and all(t.verdict in (EQUAL, UP_TO_DTYPE) for t in self.tensors)

    def to_dict(self) -> dict[str, Any]:
        """The difference as ``--json`` prints it."""
        return {**asdict(self), "same": self.same}


def diff(a: str | Path, b: str | Path) -> Difference:
    """Compare the checkpoints `a` and `b`, each a source as `convert` takes it or a converted folder.

    Args:
        a: a source as `convert` takes it, or a converted folder.
        b: another one, perhaps of another program.

    Returns:
        Every tensor of either, under the model's names: equal, different and by how much, or only in one.

    Raises:
        CheckpointError: one cannot be read.
        MappingError: one is no NEZHA that is known here, or two of its tensors are one of the model.

    Example:
        >>> import nezha_convert
        >>> nezha_convert.diff("NEZHA-Base/", "nezha-base/").same
        True
    """
    left, right = _side(a), _side(b)
    both = left.unknown.keys() & right.unknown.keys()
    left, right = left.knowing(both), right.knowing(both)
    tensors = []
    for name in sorted({*left.steps, *right.steps}):
        x, y = left.steps.get(name), right.steps.get(name)
        # A tied tensor need not be stored: what it is tied to is its value.
        tied = next((tie.of for tie in TIES if tie.target == name), name)
        tensors.append(_compare(name, x or left.steps.get(tied), y or right.steps.get(tied)))
    return Difference(
        str(a),
        str(b),
        (left.title, right.title),
        tuple(tensors),
        (tuple(left.unknown), tuple(right.unknown)),
        (left.left_out, right.left_out),
        (left.checkpoint.decisions, right.checkpoint.decisions),
    )


@dataclass(frozen=True, slots=True)
class _Side:
    """One checkpoint's weights as steps of its conversion, by target, and what its family does not know."""

    checkpoint: Checkpoint
    family: Family
    steps: Mapping[str, Step]
    unknown: Mapping[str, TensorEntry]
    left_out: int

    @property
    def title(self) -> str:
        """What wrote it."""
        return own_title(self.checkpoint.path.parent) or self.family.title

    def knowing(self, names: Set[str]) -> _Side:
        """The same where tensors of unknown `names`, which the other side has too, are compared by these names."""
        own = {n: Step(e, n, Op.COPY, e.shape) for n, e in self.unknown.items() if n in names}
        rest = {name: entry for name, entry in self.unknown.items() if name not in names}
        return replace(self, steps={**self.steps, **own}, unknown=rest)


def _side(source: str | Path) -> _Side:
    survey = look(open_checkpoint(local_source(source)[0]))
    family, heads = survey.family, survey.inference.heads
    if family is None:
        assert isinstance(survey, Unclear)
        raise survey.error.about(str(source))
    if len(heads) == 1:  # a name that several heads have belongs to this one
        family = family.under(HEADS[heads[0]].parts)
    steps: dict[str, Step] = {}
    unknown, left_out = {}, 0
    for name, entry in survey.checkpoint.entries.items():
        match family.find(name):
            case Drop():
                left_out += 1
            case None:
                unknown[name] = entry
            case Match(rule=rule):
                if rule.target in steps:
                    raise MappingError(f"{source}: {steps[rule.target].entry.name} and {name} are both {rule.target}")
                shape = entry.shape[::-1] if rule.op is Op.TRANSPOSE else entry.shape
                steps[rule.target] = Step(entry, rule.target, rule.op, shape)
    for name, entry in survey.checkpoint.beside.items():  # by the names of the program that they come from
        match = next((match for other in FAMILIES if (match := other.match(name))), None)
        if match and match.rule.target not in steps:
            shape = entry.shape[::-1] if match.rule.op is Op.TRANSPOSE else entry.shape
            steps[match.rule.target] = Step(entry, match.rule.target, match.rule.op, shape)
        else:
            unknown[name] = entry
    return _Side(survey.checkpoint, family, steps, unknown, left_out)


def _compare(name: str, a: Step | None, b: Step | None) -> TensorDifference:
    both = [step for step in (a, b) if step]
    names = (a.entry.name if a else "", b.entry.name if b else "")
    dtypes, shapes = tuple(step.entry.dtype for step in both), tuple(step.shape for step in both)
    if not a or not b:
        return TensorDifference(name, ONLY_A if a else ONLY_B, *names, dtypes, shapes)
    if a.shape != b.shape:
        return TensorDifference(name, SHAPE, *names, dtypes, shapes)
    narrow = min(dtypes, key=_precision)
    equal = rounded = True
    count, largest, low, high = 0, 0.0, np.inf, -np.inf
    for x, y in _side_by_side(_flat(a), _flat(b)):
        if dtypes[0] == dtypes[1] and np.array_equal(x, y, equal_nan=True):
            low, high = _range(x, low, high)
            continue
        wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
        low, high = _range(wide_x, low, high)
        unequal = ~((wide_x == wide_y) | (np.isnan(wide_x) & np.isnan(wide_y)))
        if unequal.any():
            equal = False
            count += int(unequal.sum())
            # Infinities and NaN on one side alone have no difference: NaN says so.
            with np.errstate(invalid="ignore", over="ignore"):
                largest = float(np.maximum(largest, np.abs(wide_x - wide_y)[unequal].max()))
                rounded = rounded and np.array_equal(x.astype(narrow), y.astype(narrow), equal_nan=True)
    if equal and dtypes[0] == dtypes[1]:
        return TensorDifference(name, EQUAL, *names, dtypes, shapes)
    spread = high - low
    relative = largest / spread if spread > 0 else largest
    verdict = UP_TO_DTYPE if equal or (rounded and dtypes[0] != dtypes[1]) else DIFFERENT
    return TensorDifference(name, verdict, *names, dtypes, shapes, count, largest, relative)


def _precision(dtype: str) -> int:
    try:
        kind = np.dtype(dtype)
    except TypeError as error:
        raise UsageError(f"a tensor of type {dtype} cannot be compared: NumPy does not have it") from error
    # bfloat16 rounds more than float16, of the same size
    return 1 if dtype == "bfloat16" else kind.itemsize


def _range(x: np.ndarray, low: float, high: float) -> tuple[float, float]:
    finite = x[np.isfinite(x)]
    return (min(low, float(finite.min())), max(high, float(finite.max()))) if finite.size else (low, high)


def _flat(step: Step) -> Iterator[np.ndarray]:
    for block in converted(step, step.entry.dtype):
        yield np.array(block).reshape(-1)  # a copy: a block is only valid until the next


def _side_by_side(a: Iterator[np.ndarray], b: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Two streams of the same numbers, cut at the same places."""
    x = y = np.empty(0)
    while True:
        x = x if x.size else next(a, x)
        y = y if y.size else next(b, y)
        size = min(x.size, y.size)
        if not size:
            return
        yield x[:size], y[:size]
        x, y = x[size:], y[size:]
