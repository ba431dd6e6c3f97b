"""Keras weights in HDF5 (.h5, .hdf5, .weights, .weights.h5): h5py finds the tensors, their bytes are read as they lie.

Keras has two layouts, and a tensor's name here says which:

- `save_weights` of Keras 1 to tf.keras, and `save`, which keeps the same in the group ``model_weights``. Each layer has
  a list ``weight_names``. Keras numbers the unnamed layers within a layer ("dense_13") by how many the process had
  made before, so their order is what counts: ``LAYER/INDEX/KIND``, as in "Transformer-0-FeedForward/2/kernel".
- Keras 3, and tf.keras from 2.12 on for ``.weights.h5``: groups ``layers/CLASS_N[/SUBLAYER]/vars/INDEX`` count the
  layers of a class from 0. ``LAYER[/SUBLAYER]/INDEX``, as in "Transformer-0-FeedForward/o_dense/0": newer releases
  store the layer's name; without it, bert4keras' order of layers tells it (`_bert4keras`).

A ``dense_13`` without a fellow is called "dense": it is the classifier that somebody put on the model.
State of the optimizer begins with ``optimizer``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoint import State, TensorEntry, check_unchanged, file_blocks, is_shape, state_of
from ...errors import CheckpointError, UsageError

FORMAT = "keras"
SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""What every HDF5 file begins with."""

SECONDS = 0.8
"""Of CPU time, and one more for each megabyte, that HDF5's library may take to list the tensors: each takes 0.0002."""

PATIENCE = 60
"""Seconds on the clock, for a machine that is busy, or a process that sleeps."""

_TIME_IS_UP = getattr(signal, "SIGPROF", 0)
_TYPE = re.compile("[<>|]?[fiu][1248]|bfloat16")
_DAMAGED = "The file is damaged or cut short: copy it again from where it came from."
_CHILD = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from nezha_convert.formats.keras.contents import main; "
    "main(sys.argv[2], float(sys.argv[3]))"
)


def read_keras(file: Path) -> dict[str, TensorEntry]:
    """The tensors of `file` by the names that the module describes.

    Nothing is followed out of the file, and nothing is allocated by what it merely claims: soft and external links,
    external storage, virtual and chunked datasets are refused, and every size is checked against the file's. h5py runs
    in a process of its own, of which only `keras_contents`' list comes back.

    Raises:
        CheckpointError: not HDF5, corrupt, not Keras' layout, or refused for one of these reasons.
        UsageError: h5py is not installed.
    """
    if find_spec("h5py") is None:
        raise UsageError(
            f"{file}: Keras' files are HDF5, and the library h5py that reads it is not installed",
            hint="pip install 'nezha-convert[keras]'",
        )
    try:
        seen = state_of(file.stat())
        with open(file, "rb") as head:
            if head.read(len(SIGNATURE)) != SIGNATURE:
                raise CheckpointError(f"{file}: not an HDF5 file: it does not begin with HDF5's signature")
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error
    code, said = _ask(file, SECONDS + seen[0] / 1e6)
    try:
        if code == -_TIME_IS_UP:
            raise ValueError("HDF5's library found no end in it")
        if code:
            raise ValueError(f"the process of HDF5's library ended at it, by {code}")
        found = json.loads(said)
        if "refused" in found:
            message, hint = found["refused"]
            raise CheckpointError(message, hint=hint or _DAMAGED)
        entries = {item[0]: _entry(file, seen, *item) for item in found["tensors"]}
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{file}: cannot be read as an HDF5 file ({error})", hint=_DAMAGED) from error
    check_unchanged(file, seen)
    return entries


def _ask(file: Path, seconds: float) -> tuple[int, bytes]:
    """The exit code of the process that looks into `file`, and what it printed."""
    command = [sys.executable, "-c", _CHILD, json.dumps(sys.path), str(file), str(seconds)]
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each takes memory of its own
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE + 2 * seconds,
            env={**os.environ, **one_thread},
        )
    except subprocess.TimeoutExpired as error:
        raise CheckpointError(
            f"{file}: HDF5's library found no end in it in {error.timeout:.0f} s", hint=_DAMAGED
        ) from error
    return done.returncode, done.stdout


def _entry(file: Path, seen: State, name: str, code: str, shape: list[int], offset: int) -> TensorEntry:
    """The tensor of an item of the list, of which nothing is believed: who wrote it had met the file."""
    if not isinstance(name, str) or not _TYPE.fullmatch(code) or not _are_sizes([*shape, offset]):
        raise ValueError(f"{str(name)[:200]!r} is no tensor: type {str(code)[:20]}, shape {str(shape)[:100]}")
    name.encode()  # UnicodeEncodeError, a ValueError: h5py reads bytes that are no text as halves of surrogate pairs
    dtype = np.dtype(code)
    nbytes = prod(shape) * dtype.itemsize
    if nbytes and offset + nbytes > seen[0]:
        raise CheckpointError(
            f"{file}: {name!r} of shape {tuple(shape)} needs {nbytes:,} bytes, and the file has not got them",
            hint=_DAMAGED,
        )
    if not is_shape(shape):
        raise CheckpointError(f"{file}: {name!r} has a shape that no array has: {shape[:8]}")
    stream = partial(_stream, file, offset, dtype, tuple(shape), seen)
    return TensorEntry(name, dtype.name, tuple(shape), nbytes, stream, (0, offset))


def _are_sizes(values: list[Any]) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def _stream(
    file: Path, offset: int, dtype: np.dtype, shape: tuple[int, ...], seen: State, limit: int
) -> Iterator[np.ndarray]:
    native = dtype.newbyteorder("=")
    for block in file_blocks(file, offset, dtype, shape, limit, seen):
        yield block.astype(native, copy=False)
