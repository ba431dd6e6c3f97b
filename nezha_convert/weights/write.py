"""Safetensors out: laid out, streamed, re-read and compared.

The bytes are those of safetensors' own serializer for the same tensors; see formats/safetensors.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from io import FileIO
from math import prod
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np

from ..checkpoint import BLOCK_BYTES, Decision, Origin, TensorEntry
from ..errors import CheckpointError, MappingError, OutputError, UsageError
from ..families.rules import Op
from ..files.hashing import sha256
from ..files.staging import sync
from ..formats import safetensors
from ..formats.blocks import row_blocks
from ..formats.safetensors import EXTRA
from ..mapping.plan import Step
from ..text import quoted
from .numbers import Tally, TensorNumbers, bits, refuse_overflow

THREADS = 3
"""How many hash and sync beside the one that writes."""

AHEAD = 2
"""Blocks that may wait to be hashed."""

TURNED_BYTES = 9 << 20
"""Bytes of a transposed tensor that are in memory at a time. All of a NEZHA-base's fit; larger ones are read again."""

_LATER = 10
"""How nice the thread is that hashes the sources, so that on two cores the one that writes does not wait for it."""

_TILE = 128
"""Rows and columns that are transposed at a time, so that they stay in the processor's cache."""

WEIGHTS = "model.safetensors"

_FLOATS = ("float64", "float32", "float16", "bfloat16")

Advance = Callable[[int], None]
"""Called with the number of bytes just done, from any thread."""

Blocks = Queue["tuple[Any, np.ndarray] | None"]
"""What was written, in order: the file and what was read back from it. None ends it."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A step and where its bytes go: the file, the element type, the offset."""

    step: Step
    file: str
    dtype: str
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in the file."""
        return prod(self.step.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything about the weights' files but their data.

    Attributes:
        files: (name, header bytes, size of the file) in order.
        placed: every step with its place, in the files' order; last those of `EXTRA`.
        index: model.safetensors.index.json, when there are several files.
        decisions: what was asked for.
    """

    files: tuple[tuple[str, bytes, int], ...]
    placed: tuple[Placed, ...]
    index: bytes | None
    decisions: tuple[Decision, ...] = ()

    @property
    def weights(self) -> tuple[Placed, ...]:
        """The model's tensors."""
        return tuple(placed for placed in self.placed if placed.file != EXTRA)

    @property
    def dtype(self) -> str:
        """The element type of most of the weights."""
        sizes: dict[str, int] = {}
        for placed in self.weights:
            sizes[placed.dtype] = sizes.get(placed.dtype, 0) + placed.nbytes
        return max(sizes, key=lambda name: sizes[name])

    @property
    def nbytes(self) -> int:
        """Size of all files together."""
        return sum(size for _, _, size in self.files)


def element_type(given: Any) -> str | None:
    """The name of an element type that weights are written in, of its name or of torch's or NumPy's type.

    Raises:
        UsageError: it is none of these.
    """
    if given is None:
        return None
    text = given if isinstance(given, str) else getattr(given, "__name__", str(given))
    name = text.removeprefix("torch.")
    if name not in _FLOATS:
        raise UsageError(f"dtype {text}: expected one of {', '.join(_FLOATS)}")
    return name


def lay_out(steps: Sequence[Step], dtype: str | None, max_shard_bytes: int, kept: Sequence[Step] = ()) -> Layout:
    """Decide each tensor's place; nothing is read.

    Args:
        steps: what is written.
        kept: what is written beside the model, as it is.
        dtype: element type of the floating-point output; None keeps the source's.
        max_shard_bytes: size of the data that a file may have before another is begun.
    """
    typed = _sorted((step, dtype if dtype and step.entry.dtype in _FLOATS else step.entry.dtype) for step in steps)
    beside = _sorted((step, step.entry.dtype) for step in kept)
    shards: list[list[Placed]] = [[]]
    filled = 0
    for step, name in typed:
        placed = Placed(step, "", name, filled)
        if filled and filled + placed.nbytes > max_shard_bytes:
            shards.append([])
            filled = 0
            placed = Placed(step, "", name, 0)
        shards[-1].append(placed)
        filled += placed.nbytes
    names = [WEIGHTS]
    if len(shards) > 1:
        names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    files, placed_all, weight_map = [], [], {}
    for file, shard in zip(names, shards, strict=True):
        header = safetensors.header((p.step.target, p.dtype, p.step.shape) for p in shard)
        files.append((file, header, len(header) + sum(placed.nbytes for placed in shard)))
        placed_all += [Placed(p.step, file, p.dtype, len(header) + p.offset) for p in shard]
        weight_map.update({p.step.target: file for p in shard})
    index = None
    if beside:
        header = safetensors.header((step.target, name, step.shape) for step, name in beside)
        offset = len(header)
        for step, name in beside:
            placed_all.append(Placed(step, EXTRA, name, offset))
            offset += placed_all[-1].nbytes
        files.append((EXTRA, header, offset))
    if len(shards) > 1:
        total = sum(p.nbytes for p in placed_all if p.file != EXTRA)
        content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        index = (json.dumps(content, indent=2) + "\n").encode()
    decisions = (Decision("dtype", dtype, "asked for", Origin.ASKED),) if dtype else ()
    return Layout(tuple(files), tuple(placed_all), index, decisions)


def _sorted(typed: Iterable[tuple[Step, str]]) -> list[tuple[Step, str]]:
    """Steps with their element types, in the order of safetensors."""
    steps = list(typed)
    for step, name in steps:
        if name not in safetensors.NAMES:
            raise MappingError(
                f"{step.entry.name} is of {name}, which safetensors cannot hold",
                hint=f"Leave it out: --drop {quoted(step.entry.name)}",
            )
    return sorted(steps, key=lambda item: (safetensors.ORDER[item[1]], item[0].target))


def converted(step: Step, dtype: str, tally: Tally | None = None) -> Iterator[np.ndarray]:
    """The target's values in order, in blocks of at most BLOCK_BYTES; a block is valid until the next is asked for.

    A transposed tensor is read once for each TURNED_BYTES of target rows, so that memory stays bounded.

    Args:
        tally: counts the values, those among them that `dtype` cannot hold.

    Raises:
        MappingError: `dtype` cannot hold a finite value, and there is no `tally`.
    """
    blocks = step.entry.blocks() if step.op is Op.COPY else _transposed(step.entry)
    counting = tally or (Tally(step.entry.dtype, dtype) if dtype != step.entry.dtype else None)
    for block in blocks:
        before = np.ascontiguousarray(block)
        after = _cast(before, dtype)
        if counting:
            counting.add(before, after)
            if not tally:
                refuse_overflow([counting.result(step.target, step.entry.name, len(step.shape))])
        yield after


def _transposed(entry: TensorEntry) -> Iterator[np.ndarray]:
    rows, columns = entry.shape
    dtype = np.dtype(entry.dtype)
    width = max(1, TURNED_BYTES // max(1, rows * dtype.itemsize))
    out = np.empty((min(width, columns), rows), dtype)
    tile = np.empty((_TILE, _TILE + 16), dtype)  # wider than a power of two, or the rows would compete for cache lines
    for left in range(0, columns, width):
        target = out[: min(width, columns - left)]
        top = 0
        for block in entry.blocks(BLOCK_BYTES):
            for row in range(0, len(block), _TILE):
                for column in range(0, len(target), _TILE):
                    part = block[row : row + _TILE, left + column : left + min(column + _TILE, len(target))]
                    height, breadth = part.shape
                    tile[:height, :breadth] = part
                    target[column : column + breadth, top + row : top + row + height] = tile[:height, :breadth].T
            top += len(block)
        yield from row_blocks(target, BLOCK_BYTES)


def _cast(block: np.ndarray, dtype: str) -> np.ndarray:
    if block.dtype == np.dtype(dtype):
        return block
    with np.errstate(over="ignore", invalid="ignore"):  # both are counted
        return block.astype(np.dtype(dtype))


def write_weights(
    folder: Path, layout: Layout, sources: Sequence[Path], progress: Advance, allow_overflow: bool = False
) -> tuple[dict[Path, str], tuple[TensorNumbers, ...]]:
    """Write the weights into `folder`, read every block back and compare it bit by bit, and hash all files.

    Three things go on side by side: this thread writes the tensors, in the order of the files, and reads them back; one
    hashes what was read back; others hash the `sources`, and put what is written on the disk, from the first tensor on.

    Args:
        progress: told of each byte of a tensor twice, when it is written and when it is hashed.
        allow_overflow: write what does not fit into the output's element type as infinity.

    Returns:
        The SHA-256 of each source and of each written file, and what the values of each tensor are.

    Raises:
        CheckpointError: a tensor cannot be read, or its checksum is wrong.
        MappingError: values do not fit into the output's element type; every tensor that has some.
        OutputError: what was written does not read back.
    """
    tensors: dict[str, list[Placed]] = {name: [] for name, _, _ in layout.files}
    for placed in layout.placed:
        tensors[placed.file].append(placed)
    np.empty(TURNED_BYTES, np.uint8)  # once glibc has freed as much, it keeps the memory of a block for the next
    numbers: list[TensorNumbers] = []
    written: Blocks = Queue(AHEAD)
    stop = threading.Event()
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            targets = pool.submit(_hash, written, progress)
            hashes = {path: pool.submit(sha256, _bytes(path, stop)) for path in sources}
            work: list[Future[Any]] = [targets, *hashes.values()]
            syncing: Future[None] = Future()
            syncing.set_result(None)
            for name, header, size in layout.files:
                with open(folder / name, "w+b", buffering=0) as file:
                    file.truncate(size)
                    written.put((file.name, _write(file, np.frombuffer(header, np.uint8), "the header")))
                    for placed in tensors[name]:
                        numbers.append(_write_tensor(file, placed, written, progress))
                        for future in filter(Future.done, work):
                            future.result()  # if one has failed, stop now
                        if syncing.done():
                            syncing.result()  # a disk tells a fault once
                            syncing = pool.submit(sync, folder / name)
                work += [syncing, pool.submit(sync, folder / name)]
            written.put(None)
            for future in as_completed(work):
                future.result()
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            written.put(None)
    if not allow_overflow:
        refuse_overflow(numbers)
    _check_headers(folder, layout)
    return {path: future.result() for path, future in hashes.items()} | targets.result(), tuple(numbers)


def _write_tensor(file: FileIO, placed: Placed, written: Blocks, progress: Advance) -> TensorNumbers:
    """Write a tensor at the end of `file`, and count its values while they are in the cache."""
    step = placed.step
    tally = Tally(step.entry.dtype, placed.dtype)
    for block in converted(step, placed.dtype, tally):
        written.put((file.name, _write(file, bits(block), step.target)))
        progress(block.nbytes)
    if file.tell() != placed.offset + placed.nbytes:
        count = file.tell() - placed.offset
        raise OutputError(f"{file.name}: {step.target} has {count:,} bytes, planned {placed.nbytes:,}")
    return tally.result(step.target, step.entry.name, len(step.shape))


def _write(file: FileIO, wanted: np.ndarray, what: str) -> np.ndarray:
    """Write a block at the end of `file`, while it is in the cache; what reads back, which is compared with it."""
    position = file.tell()
    _write_all(file, wanted)
    file.seek(position)
    found = np.empty_like(wanted)
    _read_all(file, found)
    if not np.array_equal(found, wanted):
        raise OutputError(
            f"{file.name}: {what} does not read back as it was written",
            hint="The disk or memory is at fault: check them, and convert again.",
        )
    return found


def _hash(written: Blocks, advance: Advance) -> dict[Path, str]:
    """The SHA-256 of each file, of what was read back from it."""
    digests: dict[str, Any] = {}
    try:
        for name, block in iter(written.get, None):
            digests.setdefault(name, hashlib.sha256()).update(block)
            advance(block.nbytes)
    except BaseException:
        for _ in iter(written.get, None):  # or the writer would wait for room
            pass
        raise
    return {Path(name): digest.hexdigest() for name, digest in digests.items()}


def _check_headers(folder: Path, layout: Layout) -> None:
    """Read the files as anyone would, and compare names, types, shapes and places with the plan.

    The safetensors library sees to it that the places do not overlap, so no tensor can lie over another's bytes.
    """
    try:
        entries = [
            (name, entry)
            for name, _, _ in layout.files
            for entry in safetensors.read_safetensors((folder / name,)).values()
        ]
    except CheckpointError as error:
        raise OutputError(f"what was written does not read back: {error.message}") from error
    found = {(file, e.name): (e.position[1], e.dtype, e.shape) for file, e in entries}
    if found != {(p.file, p.step.target): (p.offset, p.dtype, p.step.shape) for p in layout.placed}:
        raise OutputError(f"{folder}: the files hold other tensors than planned")


def _write_all(file: Any, array: np.ndarray) -> None:
    data = memoryview(array).cast("B")
    while data:
        data = data[file.write(data) :]


def _read_all(file: Any, array: np.ndarray) -> None:
    data = memoryview(array).cast("B")
    while data and (count := file.readinto(data)):
        data = data[count:]


def _bytes(path: Path, stop: threading.Event) -> Iterator[memoryview]:
    """A file's bytes, until `stop` is set. The other threads go first, for theirs is the longer way."""
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LATER)
    buffer = memoryview(bytearray(BLOCK_BYTES))
    try:
        with open(path, "rb", buffering=0) as file:
            while (count := file.readinto(buffer)) and not stop.is_set():
                yield buffer[:count]
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: it went while it was to be hashed") from error
