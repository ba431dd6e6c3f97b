"""Safetensors out: laid out, streamed, re-read and compared.

The bytes are those of safetensors' own serializer for the same tensors: header order by alignment and name, compact
JSON padded to eight bytes (safetensors/src/tensor.rs, `prepare`).
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .errors import MappingError, OutputError
from .mapping.plan import Step
from .mapping.rules import Op
from .readers.safetensors import DTYPES, read_safetensors
from .tensors import BLOCK_BYTES, TensorEntry

WORKERS = 3
"""Threads, one of which hashes. Each of the others holds a few blocks, so this bounds memory."""

WEIGHTS = "model.safetensors"

_NAMES = {numpy_name: name for name, numpy_name in DTYPES.items()}
_ORDER = {name: number for number, name in enumerate(_NAMES)}
_FLOATS = ("float64", "float32", "float16", "bfloat16")

Progress = Callable[[int], None]
"""Called with the number of bytes just done, from any thread."""


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
        placed: every step with its place, in the source's order.
        index: model.safetensors.index.json, when there are several files.
    """

    files: tuple[tuple[str, bytes, int], ...]
    placed: tuple[Placed, ...]
    index: bytes | None

    @property
    def nbytes(self) -> int:
        """Size of all files together."""
        return sum(size for _, _, size in self.files)


def lay_out(steps: Sequence[Step], dtype: str | None, max_shard_bytes: int) -> Layout:
    """Decide each tensor's place; nothing is read.

    Args:
        steps: what is written.
        dtype: element type of the floating-point output; None keeps the source's.
        max_shard_bytes: size of the data that a file may have before another is begun.
    """
    typed = [(step, dtype if dtype and step.entry.dtype in _FLOATS else step.entry.dtype) for step in steps]
    for step, name in typed:
        if name not in _NAMES:
            raise MappingError(f"{step.entry.name} is of {name}, which safetensors cannot hold")
    typed.sort(key=lambda item: (_ORDER[item[1]], item[0].target))
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
        header = _header(shard)
        files.append((file, header, len(header) + sum(placed.nbytes for placed in shard)))
        placed_all += [Placed(p.step, file, p.dtype, len(header) + p.offset) for p in shard]
        weight_map.update({p.step.target: file for p in shard})
    index = None
    if len(shards) > 1:
        total = sum(p.nbytes for p in placed_all)
        content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        index = (json.dumps(content, indent=2) + "\n").encode()
    placed_all.sort(key=lambda p: p.step.entry.position)
    return Layout(tuple(files), tuple(placed_all), index)


def _header(shard: Iterable[Placed]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for p in shard:
        header[p.step.target] = {
            "dtype": _NAMES[p.dtype],
            "shape": list(p.step.shape),
            "data_offsets": [p.offset, p.offset + p.nbytes],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def converted(step: Step, dtype: str) -> Iterator[np.ndarray]:
    """The target's values in order, in blocks of at most BLOCK_BYTES; a block is valid until the next is asked for.

    A transposed tensor larger than a block is read once for each block of target rows, so that memory stays bounded.

    Raises:
        MappingError: a finite value does not fit into float16.
    """
    blocks = step.entry.blocks() if step.op is Op.COPY else _transposed(step.entry)
    for block in blocks:
        yield _cast(block, dtype, step.entry.name)


def _transposed(entry: TensorEntry) -> Iterator[np.ndarray]:
    rows, columns = entry.shape
    width = max(1, BLOCK_BYTES // max(1, rows * np.dtype(entry.dtype).itemsize))
    band = 32  # source rows a copy: as many target elements lie side by side in cache
    out = np.empty((min(width, columns), rows), np.dtype(entry.dtype))
    for left in range(0, columns, width):
        target = out[: min(width, columns - left)]
        top = 0
        for block in entry.blocks(BLOCK_BYTES // 8):
            part = block[:, left : left + width]
            for row in range(0, len(part), band):
                rows_of_part = part[row : row + band]
                target[:, top + row : top + row + len(rows_of_part)] = rows_of_part.T
            top += len(block)
        yield target


def _cast(block: np.ndarray, dtype: str, name: str) -> np.ndarray:
    if block.dtype == np.dtype(dtype):
        return np.ascontiguousarray(block)
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(block).astype(np.dtype(dtype))
    lost = int(np.count_nonzero(np.isfinite(block))) - int(np.count_nonzero(np.isfinite(cast)))
    if lost:
        raise MappingError(
            f"{name}: {lost:,} of its values do not fit into {dtype} (largest {np.abs(block).max():.6g})",
            hint="Use --dtype bfloat16 or float32, whose range is wide enough.",
        )
    return cast


def write_weights(folder: Path, layout: Layout, sources: Sequence[Path], progress: Progress) -> dict[Path, str]:
    """Write the weights into `folder`, and hash `sources` meanwhile, so that each byte comes off the disk once.

    Returns:
        The SHA-256 of each source file.
    """
    for name, header, size in layout.files:
        with open(folder / name, "wb") as file:
            file.write(header)
            file.truncate(size)

    def write(placed: Placed) -> None:
        with open(folder / placed.file, "r+b", buffering=0) as file:
            file.seek(placed.offset)
            for block in converted(placed.step, placed.dtype):
                _write_all(file, block)
                progress(block.nbytes)

    return _together(write, layout.placed, sources)


def check_weights(folder: Path, layout: Layout, others: Sequence[Path], progress: Progress) -> dict[Path, str]:
    """Read the written files back through the safetensors library and compare each tensor, bit by bit, with the source;
    hash them, and `others`, meanwhile.

    Returns:
        The SHA-256 of each file.

    Raises:
        OutputError: a tensor is not what was to be written.
    """
    files = tuple(folder / name for name, _, _ in layout.files)
    for file in files:
        with open(file, "rb+") as handle:
            os.fsync(handle.fileno())
    written = read_safetensors(files)
    planned = {placed.step.target: placed for placed in layout.placed}
    if written.keys() != planned.keys():
        raise OutputError(f"{folder}: the files hold other tensors than planned")

    def check(placed: Placed) -> None:
        entry = written[placed.step.target]
        same = entry.dtype == placed.dtype and entry.shape == placed.step.shape
        found = _Bits(entry)
        for block in converted(placed.step, placed.dtype):
            wanted = _bits(block)
            at = 0
            while same and at < len(wanted):
                piece = found.take(len(wanted) - at)
                same = len(piece) > 0 and np.array_equal(piece, wanted[at : at + len(piece)])
                at += len(piece)
            progress(block.nbytes)
        if not same:
            raise OutputError(
                f"{folder / placed.file}: {placed.step.target} does not read back as it was written",
                hint="The disk or memory is at fault: check them, and convert again.",
            )

    return _together(check, layout.placed, (*files, *others))


class _Bits:
    """The elements of an entry as unsigned integers, taken in pieces of any size."""

    def __init__(self, entry: TensorEntry) -> None:
        self._blocks = entry.blocks()
        self._rest = np.empty(0, np.uint8)

    def take(self, count: int) -> np.ndarray:
        """At most `count` elements, at least one unless the tensor is at its end."""
        if not len(self._rest) and (block := next(self._blocks, None)) is not None:
            self._rest = _bits(block)
        piece, self._rest = self._rest[:count], self._rest[count:]
        return piece


def _bits(block: np.ndarray) -> np.ndarray:
    """The elements as unsigned integers, in one dimension: equal bits are equal numbers, NaN included."""
    return np.ascontiguousarray(block).reshape(-1).view(f"u{block.dtype.itemsize}")


def _write_all(file: Any, block: np.ndarray) -> None:
    data = memoryview(block.reshape(-1).view(np.uint8))
    while data:
        data = data[file.write(data) :]


def _together(work: Callable[[Placed], None], items: Sequence[Placed], files: Sequence[Path]) -> dict[Path, str]:
    """Do `work` on every item and hash every file, side by side; the first error stops all."""
    stop = threading.Event()
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="nezha-convert")
    try:
        hashes = {file: pool.submit(_sha256, file, stop) for file in files}
        tasks = [pool.submit(work, item) for item in items]
        futures: list[Future[Any]] = [*hashes.values(), *tasks]
        wait(futures, return_when=FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
        return {file: future.result() for file, future in hashes.items()}
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _sha256(file: Path, stop: threading.Event) -> str:
    digest = hashlib.sha256()
    buffer = bytearray(1 << 20)
    view = memoryview(buffer)
    with open(file, "rb", buffering=0) as data:
        while not stop.is_set() and (count := data.readinto(buffer)):
            digest.update(view[:count])
    return digest.hexdigest()
