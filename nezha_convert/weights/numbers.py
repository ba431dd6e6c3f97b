"""Counts special values of the converted tensors: NaN, infinite, too large for their type, subnormal, all the same.

They are counted by their bits while the writer has a block in memory, so no tensor is read a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import MappingError

_FORMATS = {
    "float16": (0x7C00, 0x0400),
    "bfloat16": (0x7F80, 0x0080),
    "float32": (0x7F80_0000, 0x0080_0000),
    "float64": (0x7FF0 << 48, 0x0010 << 48),
}
"""The bits of infinity and of the smallest normal number (IEEE 754; bfloat16 is the upper half of a float32)."""

_CHUNK = 1 << 16
"""How many values are counted at a time. So few stay in the processor's cache."""

_WIDER = {"float16": "--dtype bfloat16 or --dtype float32", "bfloat16": "--dtype float32"}
_NORM_WEIGHT, _NORM_BIAS = ".LayerNorm.weight", ".LayerNorm.bias"


@dataclass(frozen=True, slots=True)
class TensorNumbers:
    """One written tensor.

    Attributes:
        name, source: its name in the output and in the source.
        dtype: the element type in which it is written.
        rank: its number of dimensions.
        values: how many elements it has.
        nan, infinite: values of the source that are not finite. They are written as they are.
        overflow: finite values of the source that are too large for `dtype`. They are written as infinities.
        largest: the largest magnitude of these.
        underflow: values of the source that become 0 in `dtype`, without those that are 0 already.
        subnormal: written values that are smaller than the smallest normal number of `dtype`, without 0.
        constant: the finite value that all elements have, if there is more than one element.
    """

    name: str
    source: str
    dtype: str
    rank: int
    values: int
    nan: int = 0
    infinite: int = 0
    overflow: int = 0
    largest: float = 0.0
    underflow: int = 0
    subnormal: int = 0
    constant: float | None = None

    @property
    def notable(self) -> bool:
        """Whether it has anything to report."""
        counts = (self.nan, self.infinite, self.overflow, self.underflow, self.subnormal)
        return any(counts) or self.constant is not None


@dataclass(frozen=True, slots=True)
class Numbers:
    """All written tensors together.

    Attributes:
        values: how many elements they have together.
        nan, infinite, overflow, underflow, subnormal: the tensors' counts, added up.
        warnings: the findings that a reader should know, in words.
        tensors: those that have anything to report.
    """

    values: int
    nan: int
    infinite: int
    overflow: int
    underflow: int
    subnormal: int
    warnings: tuple[str, ...]
    tensors: tuple[TensorNumbers, ...]

    @property
    def summary(self) -> str:
        """The counts in one line."""
        vectors = [t for t in self.tensors if t.constant is not None and t.rank < 2]
        zeros = sum(t.constant == 0 for t in vectors)
        counts = [
            (self.nan, "NaN"),
            (self.infinite, "infinite in the source"),
            (self.overflow, "became infinite"),
            (self.underflow, "became 0"),
            (self.subnormal, "subnormal"),
            (zeros, f"vector{'s' * (zeros > 1)} of zeros"),
            (others := len(vectors) - zeros, f"vector{'s' * (others > 1)} of one other value"),
        ]
        finite = [] if self.nan or self.infinite or self.overflow else ["all finite"]
        return ", ".join(
            [f"{self.values:,} values", *finite, *(f"{count:,} {what}" for count, what in counts if count)]
        )


class Tally:
    """Counts one tensor, block by block.

    Args:
        source: the element type that is read.
        dtype: the element type that is written.
    """

    def __init__(self, source: str, dtype: str) -> None:
        self._source, self._dtype = source, dtype
        self._values = self._nan = self._infinite = self._overflow = self._underflow = self._subnormal = self._zeros = 0
        self._largest = 0.0
        self._first: np.ndarray | None = None
        self._same = True

    def add(self, before: np.ndarray, after: np.ndarray) -> None:
        """Count a block, as it was read (`before`) and as it is written (`after`)."""
        written = bits(after)
        self._values += written.size
        self._compare(written)
        if self._dtype not in _FORMATS:
            return
        new = old = _count(written, self._dtype)
        if self._source != self._dtype:
            old = _count(bits(before), self._source)
            if new.infinite > old.infinite:
                self._overflow += new.infinite - old.infinite
                with np.errstate(invalid="ignore"):
                    self._largest = max(self._largest, float(np.abs(before[np.isfinite(before)]).max()))
        self._nan += old.nan
        self._infinite += old.infinite
        self._underflow += new.zeros - old.zeros
        self._subnormal += new.subnormal
        self._zeros += new.zeros

    def _compare(self, bits: np.ndarray) -> None:
        """Keep track of whether all values so far are the same."""
        if not (self._same and bits.size):
            return
        if self._first is None:
            self._first = bits[:1].copy()  # a copy, for the block is only valid until the next
        # Compare the last one first: then hardly any block of an ordinary tensor is compared in full.
        self._same = bool(bits[-1] == self._first[0]) and bool((bits == self._first).all())

    def result(self, name: str, source: str, rank: int) -> TensorNumbers:
        """The counts, for the tensor `name` that was made of `source`."""
        constant = None
        if self._values > 1 and self._first is not None and not (self._nan or self._infinite or self._overflow):
            if self._zeros == self._values:
                constant = 0.0  # of either sign
            elif self._same:
                constant = float(self._first.view(np.dtype(self._dtype))[0])
        return TensorNumbers(
            name,
            source,
            self._dtype,
            rank,
            self._values,
            self._nan,
            self._infinite,
            self._overflow,
            self._largest,
            self._underflow,
            self._subnormal,
            constant,
        )


@dataclass(slots=True)
class _Counts:
    nan: int = 0
    infinite: int = 0
    subnormal: int = 0
    zeros: int = 0


def bits(block: np.ndarray) -> np.ndarray:
    """The elements as unsigned integers, in one dimension. Equal bits mean equal numbers, also for NaN."""
    return np.ascontiguousarray(block).reshape(-1).view(f"u{block.dtype.itemsize}")


def _count(bits: np.ndarray, dtype: str) -> _Counts:
    """Count the numbers of `dtype` with these bits. A chunk without special values takes three passes in the cache."""
    infinity, normal = (2 * bound for bound in _FORMATS[dtype])
    counts = _Counts()
    scratch = np.empty(min(_CHUNK, bits.size), bits.dtype)
    for start in range(0, bits.size, _CHUNK):
        chunk = bits[start : start + _CHUNK]
        twice = np.left_shift(chunk, 1, out=scratch[: chunk.size])  # without the sign
        np.subtract(twice, normal, out=twice)  # 0 and subnormal numbers become larger than all others
        if twice.max() < infinity - normal:
            continue
        np.add(twice, normal, out=twice)
        counts.nan += int(np.count_nonzero(twice > infinity))
        counts.infinite += int(np.count_nonzero(twice == infinity))
        small, zeros = np.count_nonzero(twice < normal), chunk.size - np.count_nonzero(twice)
        counts.zeros += int(zeros)
        counts.subnormal += int(small - zeros)
    return counts


def refuse_overflow(tensors: Iterable[TensorNumbers]) -> None:
    """Check that no finite value became infinite.

    Raises:
        MappingError: some did, in these tensors.
    """
    overflown = {t.source: t for t in tensors if t.overflow}
    if not overflown:
        return
    problems = tuple(_overflow(source, t) for source, t in sorted(overflown.items()))
    dtype = next(iter(overflown.values())).dtype
    message = f"{len(problems)} tensors have values that do not fit into {dtype}" if problems[1:] else problems[0]
    raise MappingError(
        message,
        problems=problems if problems[1:] else (),
        hint=f"Use {_WIDER.get(dtype, 'no --dtype')}, or --allow-overflow, which writes infinities.",
    )


def _overflow(name: str, t: TensorNumbers) -> str:
    return f"{name}: {t.overflow:,} of its values do not fit into {t.dtype} (largest {t.largest:.6g})"


def add_up(tensors: Iterable[TensorNumbers]) -> Numbers:
    """The sum of the counts of all written tensors, with warnings."""
    ordered = sorted(tensors, key=lambda t: t.name)
    notable = tuple(t for t in ordered if t.notable)

    def total(count: Callable[[TensorNumbers], int]) -> int:
        return sum(map(count, ordered))

    return Numbers(
        values=total(lambda t: t.values),
        nan=total(lambda t: t.nan),
        infinite=total(lambda t: t.infinite),
        overflow=total(lambda t: t.overflow),
        underflow=total(lambda t: t.underflow),
        subnormal=total(lambda t: t.subnormal),
        warnings=(*_not_finite(notable), *_constant(ordered)),
        tensors=notable,
    )


def _not_finite(tensors: Iterable[TensorNumbers]) -> Iterable[str]:
    for t in tensors:
        counts = [f"{count:,} {what}" for count, what in ((t.nan, "NaN"), (t.infinite, "infinite")) if count]
        if counts:
            yield f"{t.name}: {' and '.join(counts)} of {t.values:,} values, as in the source"
        if t.overflow:
            yield f"{_overflow(t.name, t)}; they are infinite now"


def _constant(tensors: Iterable[TensorNumbers]) -> Iterable[str]:
    """Warn of matrices and layer norms' weights that have one value throughout: they have not been trained.

    A bias may well be 0 throughout.
    """
    by_name = {t.name: t for t in tensors}
    norms = [name.removesuffix(_NORM_WEIGHT) for name in by_name if name.endswith(_NORM_WEIGHT)]
    first = [
        name
        for name in norms
        if by_name[name + _NORM_WEIGHT].constant == 1
        and (bias := by_name.get(name + _NORM_BIAS))
        and bias.constant == 0
    ]
    if first:
        yield (
            f"{len(first):,} of {len(norms):,} layer norms have weight 1 and bias 0 throughout, as before training: "
            f"{', '.join(first[:3])}{', ...' if first[3:] else ''}"
        )
    untrained = {name + _NORM_WEIGHT for name in first}
    for t in by_name.values():
        if t.constant is not None and (t.rank > 1 or t.name.endswith(_NORM_WEIGHT)) and t.name not in untrained:
            yield f"{t.name}: each of its {t.values:,} values is {t.constant:g}"
