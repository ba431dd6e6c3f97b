"""What a measurement says of two computations."""

from __future__ import annotations

import numpy as np
import pytest

from nezha_convert.errors import MappingError
from nezha_convert.parity.measure import Measurement
from nezha_convert.parity.results import EXPONENTS


def test_each_measure_is_what_it_says():
    expected = {"x": np.array([[0.0, 1.0, 3.0], [4.0, 2.0, 0.0]])}
    found = {"x": np.array([[0.0, 1.5, 1.0], [4.0, 2.0, 0.0]])}
    measurement = Measurement("the reference", "float32")
    measurement.scale_to([expected])
    measurement.add("case", expected, found)
    (tensor,) = measurement.result().tensors
    cosine = (expected["x"] * found["x"]).sum() / np.linalg.norm(expected["x"]) / np.linalg.norm(found["x"])
    assert (tensor.scale, tensor.max_error, tensor.relative_error) == (4.0, 2.0, 0.5)
    assert tensor.cosine_distance == pytest.approx(1 - cosine)
    assert tensor.argmax_agreement == 0.5
    assert (str(tensor.peak), tensor.peak.expected, tensor.peak.found) == ("case[0, 2]", 3.0, 1.0)
    bins = {e: count for e, count in zip(EXPONENTS, measurement.result().histogram, strict=True) if count}
    assert bins == {EXPONENTS[0]: 4, -2: 1, 0: 1}  # exact, 1/8 and 1/2 of the range
    assert sum(bins.values()) == tensor.values == 6


def test_ranges_are_pooled_so_that_a_case_of_like_values_is_not_fragile():
    measurement = Measurement("the reference", "float32")
    wide, narrow = {"x": np.array([[0.0, 100.0]])}, {"x": np.array([[1.0, 1.0 + 1e-6]])}
    measurement.scale_to([wide, narrow])
    measurement.add("narrow", narrow, {"x": narrow["x"] + 1e-4})
    assert measurement.result().tensors[0].passed


def test_a_tensor_of_another_shape_is_no_conversion_of_this_source():
    measurement = Measurement("the oracle", "float32")
    measurement.scale_to([{"x": np.zeros((1, 3))}])
    with pytest.raises(MappingError, match=r"gives \[1, 2\], the oracle gives \[1, 3\].*not a conversion"):
        measurement.add("short", {"x": np.zeros((1, 3))}, {"x": np.zeros((1, 2))})
