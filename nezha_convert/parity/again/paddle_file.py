"""Paddle's files, by Python's own unpickler, which may make nothing but arrays, dictionaries and texts."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import numpy as np

from ...errors import CheckpointError
from ..oracle.formulas import Array
from .tensor import Tensor
from .unpickle import Unpickler


def read_paddle(file: Path) -> dict[str, Tensor]:
    """The arrays in `file` by name.

    Raises:
        CheckpointError: it is no dictionary of arrays.
    """
    try:
        with open(file, "rb") as data:
            content = Unpickler(data, is_bare=True).load()
        values = {key: value[1] if isinstance(value, tuple) else value for key, value in content.items()}
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{file}: not a pickle of arrays ({error})") from error
    arrays = {key: value for key, value in values.items() if isinstance(value, np.ndarray)}
    return {key: Tensor(key, value.shape, partial(_values, value)) for key, value in arrays.items()}


def _values(array: Array) -> Array:
    """`paddle.load` takes uint16 for the bits of bfloat16."""
    return np.asarray(array).view("bfloat16") if array.dtype == np.uint16 else np.asarray(array)
