"""How far two computations are apart, tensor by tensor, and how far apart they may be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import MappingError, UsageError
from ..folder.record import ConvertedFolder
from .oracle.formulas import Array
from .results import EXPONENTS, Comparison, Peak, TensorParity

TOLERANCES: dict[str, tuple[float, str]] = {
    "float64": (1e-11, "float64 rounds to 1e-16; measured is up to 3e-15 of a range"),
    "float32": (
        2e-5,
        "float32 rounds to 6e-8; measured is up to 4e-6 of a range, erf in place of tanh makes 9e-5 and more",
    ),
    "float16": (3e-2, "float16 rounds to 5e-4; measured is up to 9e-3 of a range, in a next-sentence head"),
    "bfloat16": (0.25, "bfloat16 rounds to 4e-3; measured is up to 8e-2 of a range, in a next-sentence head"),
}
"""By the element type of the arithmetic: the largest error allowed, as a part of each tensor's range, and the reason.

Measured on every golden and on two NEZHA-base models with random weights: embeddings, layers, pooler and heads. The
limits for half precision leave a margin of three, for deeper models. `compare_model` adds a sharper comparison there.
"""

_BLOCK = 1 << 20
"""How many numbers are compared at a time. Logits over a vocabulary are large: no float64 copy of them all is made."""


def check_dtype(folder: ConvertedFolder) -> None:
    """Raises UsageError unless `TOLERANCES` has the element type of the folder's weights."""
    if folder.dtype not in TOLERANCES:
        raise UsageError(f"{folder.path}: its weights are {folder.dtype}; compared are {', '.join(TOLERANCES)}")


class Measurement:
    """One comparison: it takes the cases one by one, and then gives the result.

    Args:
        reference: what the converted model is compared with, in words.
        arithmetic: the element type that the converted model computes in.
        tolerance: the largest error allowed, instead of that of `TOLERANCES`.
    """

    def __init__(self, reference: str, arithmetic: str, tolerance: float | None = None) -> None:
        self.reference, self.arithmetic = reference, arithmetic
        self.tolerance, self.reason = TOLERANCES[arithmetic]
        if tolerance is not None:
            self.tolerance, self.reason = tolerance, "asked for"
        self._scales: dict[str, float] = {}
        self._tensors: dict[str, _Tensor] = {}
        self._histogram = np.zeros(len(EXPONENTS), np.int64)

    def scale_to(self, references: Sequence[Mapping[str, Array]]) -> None:
        """Take each tensor's range from these cases; later calls change nothing.

        One case can have almost equal values, and so a tiny range. The range over several cases is sound for each.
        """
        if self._scales:
            return
        for name in references[0]:
            finite = [outputs[name][np.isfinite(outputs[name])] for outputs in references]
            low = min(float(values.min(initial=np.inf)) for values in finite)
            high = max(float(values.max(initial=-np.inf)) for values in finite)
            low, high = (low, high) if low <= high else (0.0, 0.0)
            # A tensor of equal numbers has no range; then its magnitude is the scale.
            self._scales[name] = high - low or abs(high) or 1.0

    def add(
        self, case: str, expected: Mapping[str, Array], computed: Mapping[str, Array], *, whole: bool = False
    ) -> None:
        """Compare the tensors of one case.

        Args:
            whole: the model gives every tensor of the reference. Else one that only the reference has is skipped: a
                pooler that the head does not use.

        Raises:
            MappingError: a tensor has another shape, or one side does not have it.
        """
        shapes = [{name: list(array.shape) for name, array in tensors.items()} for tensors in (computed, expected)]
        for name in {**computed, **(expected if whole else {})}:
            own, shape = (side.get(name, "nothing") for side in shapes)
            if own != shape:
                raise MappingError(
                    f"{name} of case {case!r}: the converted model gives {own}, "
                    f"{self.reference} gives {shape}: the output is not a conversion of this source",
                    hint="Convert again, with the head that is wanted: nezha-convert convert SOURCE OUTPUT --head HEAD",
                )
        for name in computed:
            tensor = self._tensors.setdefault(name, _Tensor(name, self._scales[name]))
            self._histogram += tensor.add(case, expected[name], computed[name])

    def result(self) -> Comparison:
        """The comparison of all cases that were added."""
        tensors = tuple(tensor.result(self.tolerance) for tensor in self._tensors.values())
        histogram = tuple(int(count) for count in self._histogram)
        return Comparison(self.reference, self.arithmetic, self.tolerance, self.reason, tensors, histogram)


class _Tensor:
    """Adds up the errors of one tensor."""

    def __init__(self, name: str, scale: float) -> None:
        self.name, self.scale = name, scale
        self.max_error = -1.0
        self.peak: Peak | None = None
        self.products = np.zeros(3)  # expected . expected, computed . computed, expected . computed
        self.same = self.rows = self.nonfinite = self.values = 0

    def add(self, case: str, expected: Array, computed: Array) -> Array:
        """Compare one case and return the histogram of its errors."""
        histogram = np.zeros(len(EXPONENTS), np.int64)
        flat_expected, flat_computed = expected.reshape(-1), computed.reshape(-1)
        for start in range(0, flat_expected.size, _BLOCK):
            x = flat_expected[start : start + _BLOCK].astype(np.float64)
            y = flat_computed[start : start + _BLOCK].astype(np.float64)
            with np.errstate(invalid="ignore", over="ignore"):
                error = np.abs(y - x)
                self.products += x @ x, y @ y, x @ y
            bad = ~(np.isfinite(x) & np.isfinite(y))  # also where both are NaN: that is no agreement
            error[bad] = np.inf
            self.nonfinite += int(bad.sum())
            at = int(error.argmax())
            if error[at] > self.max_error:
                index = np.unravel_index(start + at, expected.shape)
                self.max_error = float(error[at])
                self.peak = Peak(case, tuple(int(i) for i in index), float(x[at]), float(y[at]))
            histogram += _histogram(error[~bad] / self.scale)
        self.values += expected.size
        agree = expected.argmax(-1) == computed.argmax(-1)
        self.same, self.rows = self.same + int(agree.sum()), self.rows + agree.size
        return histogram

    def result(self, tolerance: float) -> TensorParity:
        assert self.peak is not None  # every case has at least one value
        xx, yy, xy = (float(product) for product in self.products)
        relative = self.max_error / self.scale
        return TensorParity(
            name=self.name,
            scale=self.scale,
            max_error=self.max_error,
            relative_error=relative,
            cosine_distance=max(0.0, 1.0 - xy / math.sqrt(xx * yy)) if xx * yy > 0 else float(xx != yy),
            argmax_agreement=self.same / self.rows,
            nonfinite=self.nonfinite,
            values=self.values,
            peak=self.peak,
            passed=not self.nonfinite and relative <= tolerance,
        )


def _histogram(relative_errors: Array) -> Array:
    """How many errors are in each bin of `EXPONENTS`."""
    exponents = np.frexp(relative_errors)[1].clip(EXPONENTS[0], EXPONENTS[-1]) - EXPONENTS[0]
    exponents[relative_errors == 0] = 0  # frexp gives 0 the exponent of 1/2
    return np.bincount(exponents, minlength=len(EXPONENTS))
