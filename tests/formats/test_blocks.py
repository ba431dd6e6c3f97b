"""Tensors as blocks: whole rows in order, within a limit, from memory or from a file."""

from __future__ import annotations

from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from nezha_convert.errors import CheckpointError
from nezha_convert.files.state import state_of
from nezha_convert.formats.blocks import file_blocks, row_blocks, rows_within

SHAPES = st.just(()) | array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)
DTYPES = st.sampled_from(["float32", "float16", "bfloat16", "float64", "int64", "uint8", "bool"])


def array_of(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)


@given(SHAPES, DTYPES, st.integers(0, 64))
def test_blocks_are_whole_rows_in_order_within_the_limit(shape: tuple[int, ...], dtype: str, limit: int) -> None:
    array = array_of(shape, dtype)
    blocks = list(row_blocks(array, limit))
    row_bytes = array[0].nbytes if array.ndim and len(array) else array.nbytes
    assert all(block.nbytes <= max(limit, row_bytes) for block in blocks)
    assert b"".join(block.tobytes() for block in blocks) == array.tobytes()
    if array.ndim and array.size:
        assert np.array_equal(np.concatenate(blocks), array)


@given(array_shapes(max_side=9), st.integers(1, 8), st.integers(0, 300))
def test_as_many_rows_as_fit_and_at_least_one(shape: tuple[int, ...], itemsize: int, limit: int) -> None:
    rows = rows_within(shape, itemsize, limit)
    row_bytes = itemsize * int(np.prod(shape[1:], dtype=int))
    assert rows >= 1
    assert rows == 1 or rows * row_bytes <= limit
    assert (rows + 1) * row_bytes > limit


def test_rows_without_elements_fit_into_any_limit() -> None:
    assert rows_within((5, 0), 4, 0) == 1
    assert [len(block) for block in row_blocks(np.empty((5, 0)), 1 << 20)] == [5]


@given(SHAPES, DTYPES, st.integers(1, 64), st.integers(0, 9))
def test_a_tensor_in_a_file_comes_in_the_same_blocks_as_one_in_memory(
    shape: tuple[int, ...], dtype: str, limit: int, offset: int
) -> None:
    array = array_of(shape, dtype)
    with NamedTemporaryFile() as file:
        file.write(b"x" * offset + array.tobytes() + b"x")
        file.flush()
        path = Path(file.name)
        blocks = file_blocks(path, offset, array.dtype, shape, limit, state_of(path.stat()))
        read = [np.array(block) for block in blocks]
    held = [block for block in row_blocks(array, limit) if block.size]
    assert [(block.dtype, block.shape, block.tobytes()) for block in read] == [
        (block.dtype, block.shape, block.tobytes()) for block in held
    ]


def test_a_file_shorter_than_its_tensor_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(7))
    seen = state_of((tmp_path / "x").stat())
    with pytest.raises(CheckpointError, match="it was changed meanwhile"):
        list(file_blocks(tmp_path / "x", 4, np.dtype("f4"), (1,), 100, seen))
    with pytest.raises(CheckpointError, match="cannot be read"):
        list(file_blocks(tmp_path / "y", 4, np.dtype("f4"), (1,), 100, seen))
