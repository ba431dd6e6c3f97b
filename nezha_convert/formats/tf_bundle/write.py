"""TensorFlow V2 checkpoints ("bundles"), written without TensorFlow: byte for byte what ``tf.train.Saver`` writes.

Layouts: see read.py and table.py; the table's blocks and shortened keys:
tensorflow/core/lib/io/table_builder.cc and block_builder.cc.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import google_crc32c

from ..tensor import Tensor, raw
from .read import DTYPES
from .table import FOOTER_BYTES, MAGIC, masked

BLOCK_BYTES = 256 << 10
RESTART_INTERVAL = 16
"""Every how many records a key is stored whole. Both numbers are from tensorflow/core/lib/io/table_options.h."""

_NUMBERS = {name: number for number, name in DTYPES.items()}


def write_bundle(prefix: Path, tensors: Iterable[Tensor]) -> None:
    """Write `tensors` as PREFIX.index and one PREFIX.data file, and name them in the folder's ``checkpoint`` file.

    Args:
        prefix: the checkpoint, such as FOLDER/model.ckpt.
        tensors: in any order. Their data is written in the order of their names, as TensorFlow does.

    Raises:
        KeyError: TensorFlow does not have the type of a tensor.
        OSError: a file cannot be written.
    """
    records = {b"": header()}
    with open(f"{prefix}.data-00000-of-00001", "wb") as file:
        for name, dtype, shape, blocks in sorted(tensors, key=lambda tensor: tensor.name.encode()):
            offset, crc = file.tell(), 0
            for block in blocks:
                data = raw(block)
                crc = google_crc32c.extend(crc, data)
                file.write(data)
            records[name.encode()] = entry(_NUMBERS[dtype], shape, 0, offset, file.tell() - offset, masked(crc))
    Path(f"{prefix}.index").write_bytes(table(sorted(records.items())))
    pointers = (f'{field}: "{prefix.name}"\n' for field in ("model_checkpoint_path", "all_model_checkpoint_paths"))
    prefix.with_name("checkpoint").write_text("".join(pointers), "utf-8")


def header(shards: int = 1, endianness: int = 0) -> bytes:
    """BundleHeaderProto: num_shards 1, endianness 2 (0: little), version 3 (producer 1)."""
    return number(1, shards) + number(2, endianness) + message(3, number(1, 1))


def entry(dtype: int, shape: Iterable[int], shard: int, offset: int, size: int, crc: int) -> bytes:
    """BundleEntryProto: dtype 1, shape 2 (dim 2: size 1), shard 3, offset 4, size 5, crc32c 6."""
    dims = b"".join(message(2, number(1, dim)) for dim in shape)
    numbers = number(3, shard) + number(4, offset) + number(5, size)
    return number(1, dtype) + message(2, dims) + numbers + varint(6 << 3 | 5) + struct.pack("<I", crc)


class Block:
    """A block of a table: records without the prefix that they share with the one before, and where whole keys are."""

    def __init__(self, restart_interval: int = RESTART_INTERVAL) -> None:
        self._interval = restart_interval
        self._data = bytearray()
        self._restarts = [0]
        self._count = 0
        self._last = b""

    def add(self, key: bytes, value: bytes) -> None:
        """Append a record."""
        shared = 0
        if self._count % self._interval:
            shared = _shared(self._last, key)
        elif self._count:
            self._restarts.append(len(self._data))
        self._data += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        self._count += 1
        self._last = key

    def __len__(self) -> int:
        return len(self._data) + 4 * (len(self._restarts) + 1)

    def __bytes__(self) -> bytes:
        return bytes(self._data) + struct.pack(f"<{len(self._restarts) + 1}I", *self._restarts, len(self._restarts))


def table(records: Iterable[tuple[bytes, bytes]], block_bytes: int = BLOCK_BYTES) -> bytes:
    """An SSTable of `records`, which come in the order of their keys."""
    out = bytearray()
    index, block = Block(restart_interval=1), Block()
    last, handle = b"", b""
    for key, value in records:
        if handle:  # the index needs a key between the last block and this one, which is only known now
            index.add(_between(last, key), handle)
            handle = b""
        block.add(key, value)
        last = key
        if len(block) >= block_bytes:
            handle, block = append_block(out, bytes(block)), Block()
    if not handle:
        handle = append_block(out, bytes(block))
    index.add(_after(last), handle)
    return finished(out, bytes(index))


def finished(out: bytearray, index: bytes, metaindex: bytes = bytes(Block())) -> bytes:
    """A whole table: the blocks `out`, the metaindex (empty in a bundle), the index, and where these two lie."""
    handles = append_block(out, metaindex) + append_block(out, index)
    return bytes(out) + handles.ljust(FOOTER_BYTES - 8, b"\0") + struct.pack("<Q", MAGIC)


def append_block(out: bytearray, data: bytes, compression: int = 0) -> bytes:
    """Append a block with its trailer to `out`, and return its handle: its offset and size."""
    handle = varint(len(out)) + varint(len(data))
    data += bytes([compression])
    out += data + struct.pack("<I", masked(google_crc32c.value(data)))
    return handle


def varint(value: int) -> bytes:
    """`value` in base 128, low bits first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(field: int, data: bytes) -> bytes:
    """A field of a protocol buffer that holds a message."""
    return message_start(field, len(data)) + data


def message_start(field: int, nbytes: int) -> bytes:
    """What stands before the `nbytes` bytes of such a field, or of one that holds bytes."""
    return varint(field << 3 | 2) + varint(nbytes)


def number(field: int, value: int) -> bytes:
    """A field of a protocol buffer that holds a number. For 0 it is left out, as protocol buffers do."""
    return varint(field << 3) + varint(value) if value else b""


def _shared(a: bytes, b: bytes) -> int:
    """How many bytes `a` and `b` have in common at their beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _between(key: bytes, following: bytes) -> bytes:
    """A short key that is not before `key`, but before `following`."""
    i = _shared(key, following)
    if i < min(len(key), len(following)) and key[i] + 1 < following[i]:
        return key[:i] + bytes([key[i] + 1])
    return key


def _after(key: bytes) -> bytes:
    """A short key that is not before `key`: it ends with the first byte that can be raised, plus 1."""
    i = next((i for i, byte in enumerate(key) if byte != 0xFF), None)
    return key if i is None else key[:i] + bytes([key[i] + 1])
