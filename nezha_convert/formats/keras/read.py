"""Keras weights in HDF5 (.h5, .hdf5, .weights, .weights.h5): h5py finds the tensors, and we read their bytes.

Keras has two layouts. The names of tensors tell them apart:

- `save_weights` from Keras 1 to tf.keras, and `save`, which writes the same into the group ``model_weights``. Each
  layer has a list ``weight_names``. Keras numbers unnamed layers within a layer ("dense_13") by how many the process
  had created before. Such a number means nothing, so the place in the list goes into the name: ``LAYER/INDEX/KIND``, as
  in "Transformer-0-FeedForward/2/kernel".
- Keras 3, and tf.keras from 2.12 on for ``.weights.h5``. The groups ``layers/CLASS_N[/SUBLAYER]/vars/INDEX`` count the
  layers of a class from 0. The name is ``LAYER[/SUBLAYER]/INDEX``, as in "Transformer-0-FeedForward/o_dense/0". Newer
  releases store the layer's name; for older ones it follows from bert4keras' order of layers (`layers_in_order`).

If there is only one layer like ``dense_13``, it is called "dense": it is the classifier on top of the model.
The names of the optimizer's state begin with ``optimizer``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoint import TensorEntry
from ...errors import CheckpointError, UsageError, pip_install
from ...files.child import python
from ...files.state import State, check_unchanged, state_of
from ..blocks import file_blocks, is_shape

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""The first bytes of every HDF5 file."""

SECONDS = 0.8
"""CPU time that HDF5's library may take to list the tensors, plus 1 for each megabyte. A tensor takes 0.0002."""

PATIENCE = 60
"""Seconds on the clock, in case the machine is busy or the process sleeps."""

_TIME_IS_UP = getattr(signal, "SIGPROF", 0)
_TYPE = re.compile("[<>|]?[fiu][1248]|bfloat16")
_DAMAGED = "The file is damaged or cut short: copy it again from where it came from."
_CHILD = "from nezha_convert.formats.keras.contents import main; main(sys.argv[1], float(sys.argv[2]))"


def read_keras(file: Path) -> dict[str, TensorEntry]:
    """The tensors of `file` by the names that this module describes.

    Soft and external links, external storage, and virtual or chunked datasets are refused, so nothing outside the file
    is read. Every size is checked against the file's before memory is allocated. h5py runs in a separate process, which
    returns only a list of the tensors (see `contents.py`).

    Raises:
        CheckpointError: the file is not HDF5, is corrupt, does not have Keras' layout, or is refused as above.
        UsageError: h5py is not installed.
    """
    if find_spec("h5py") is None:
        raise UsageError(
            f"{file}: Keras' files are HDF5, and the library h5py that reads it is not installed",
            hint=pip_install("'nezha-convert[keras]'"),
        )
    try:
        seen = state_of(file.stat())
        with open(file, "rb") as head:
            if head.read(len(SIGNATURE)) != SIGNATURE:
                raise CheckpointError(f"{file}: not an HDF5 file: it does not begin with HDF5's signature")
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error
    code, answer = _ask(file, SECONDS + seen[0] / 1e6)
    try:
        if code == -_TIME_IS_UP:
            raise ValueError("HDF5's library did not finish reading it")
        if code:
            raise ValueError(f"HDF5's library crashed: its process ended with code {code}")
        contents = json.loads(answer)
        if "refused" in contents:
            message, hint = contents["refused"]
            raise CheckpointError(message, hint=hint or _DAMAGED)
        entries = {item[0]: _entry(file, seen, *item) for item in contents["tensors"]}
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{file}: cannot be read as an HDF5 file ({error})", hint=_DAMAGED) from error
    check_unchanged(file, seen)
    return entries


def _ask(file: Path, seconds: float) -> tuple[int, bytes]:
    """Run `contents.py` on `file`: its exit code and what it printed."""
    command = python(_CHILD, file, seconds)
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each further thread takes memory
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
            f"{file}: HDF5's library did not finish reading it in {error.timeout:.0f} s", hint=_DAMAGED
        ) from error
    return done.returncode, done.stdout


def _entry(file: Path, seen: State, name: str, code: str, shape: list[int], offset: int) -> TensorEntry:
    """The tensor of a listed item. All of it is checked, because the process that listed it may have been attacked."""
    if not isinstance(name, str) or not _TYPE.fullmatch(code) or not _are_sizes([*shape, offset]):
        raise ValueError(f"{str(name)[:200]!r} is not a tensor: type {str(code)[:20]}, shape {str(shape)[:100]}")
    name.encode()  # UnicodeEncodeError is a ValueError: h5py turns bytes that are not text into surrogates
    dtype = np.dtype(code)
    nbytes = prod(shape) * dtype.itemsize
    if nbytes and offset + nbytes > seen[0]:
        raise CheckpointError(
            f"{file}: {name!r} of shape {tuple(shape)} needs {nbytes:,} bytes, which the file does not have",
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
