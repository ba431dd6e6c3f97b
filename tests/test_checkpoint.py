"""Lazy tensors: the blocks put together are the tensor."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from nezha_convert.checkpoint import BLOCK_BYTES, TensorEntry
from nezha_convert.errors import CheckpointError
from nezha_convert.formats.blocks import row_blocks

SHAPES = st.just(()) | array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)
DTYPES = st.sampled_from(["float32", "float16", "bfloat16", "float64", "int64", "uint8", "bool"])


def array_of(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)


def entry_of(array: np.ndarray) -> TensorEntry:
    return TensorEntry("x", str(array.dtype), array.shape, array.nbytes, partial(row_blocks, array))


@given(SHAPES, DTYPES)
def test_reading_gives_the_array(shape: tuple[int, ...], dtype: str) -> None:
    array = array_of(shape, dtype)
    found = entry_of(array).read()
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_the_usual_limit_holds_unless_another_is_given() -> None:
    asked: list[int] = []

    def stream(limit: int) -> Iterator[np.ndarray]:
        asked.append(limit)
        yield np.zeros((2,), "f4")

    entry = TensorEntry("x", "float32", (2,), 8, stream)
    list(entry.blocks())
    list(entry.blocks(3))
    entry.read()
    assert asked == [BLOCK_BYTES, 3, BLOCK_BYTES]


def test_a_checksum_behind_the_last_block_is_waited_for() -> None:
    def stream(limit: int) -> Iterator[np.ndarray]:
        yield np.zeros((2,), "f4")
        raise CheckpointError("damaged")

    with pytest.raises(CheckpointError, match="damaged"):
        TensorEntry("x", "float32", (2,), 8, stream).read()


def test_a_block_may_be_reused_by_the_reader() -> None:
    def stream(limit: int) -> Iterator[np.ndarray]:
        block = np.empty((1, 2), "f4")
        for row in range(3):
            block[:] = row
            yield block

    assert TensorEntry("x", "float32", (3, 2), 24, stream).read().tolist() == [[0, 0], [1, 1], [2, 2]]
