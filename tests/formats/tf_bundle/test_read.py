"""TensorFlow bundles: sound ones are read back, and a broken file raises a CheckpointError that names it."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import bundles
import google_crc32c
import numpy as np
import pytest
from bundles import entry, header, table, varint, write_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from nezha_convert.checkpoint import TensorEntry
from nezha_convert.errors import CheckpointError
from nezha_convert.formats.tf_bundle.read import read_bundle

FIXTURES = Path(__file__).parents[3] / "fixtures"
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
PREFIXED = st.builds("bert/encoder/layer_{}/{}".format, st.integers(0, 11), NAMES)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    dtype = draw(st.sampled_from(sorted(bundles.DTYPES)))
    shape = draw(SHAPES)
    count = int(np.prod(shape, dtype=int))
    if dtype == "bool":
        return np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool).reshape(shape)
    size = count * np.dtype(dtype).itemsize
    return np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype).reshape(shape)


TENSORS = st.dictionaries(NAMES | PREFIXED, arrays(), max_size=40)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Check that both are equal in type, shape and bits, also for NaN."""
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A sound bundle of two tensors in two shards."""
    path = tmp_path / "model.ckpt-7"
    write_bundle(path, [("a", np.arange(6, dtype="f4").reshape(2, 3)), ("b/bias", np.ones(5, "f4"))], shards=2)
    return path


def index_of(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")


def lone(folder: Path, records: bytes, data: bytes = b"\0" * 16) -> Path:
    """A bundle of one data file with the index `records`."""
    path = folder / "model.ckpt"
    index_of(path).write_bytes(records)
    (folder / "model.ckpt.data-00000-of-00001").write_bytes(data)
    return path


def refusal(prefix: Path, expected: str | None = None) -> CheckpointError:
    """The error of reading all of `prefix`. It must name the file."""
    with pytest.raises(CheckpointError, match=expected) as caught:
        read_whole(prefix)
    assert str(prefix.parent) in str(caught.value)
    assert len(str(caught.value)) < 1000
    return caught.value


def read_whole(prefix: Path) -> dict[str, np.ndarray]:
    return {name: tensor.read() for name, tensor in read_bundle(prefix)[1].items()}


# Sound bundles


@settings(max_examples=150, deadline=None)
@given(TENSORS, st.integers(1, 5), st.sampled_from([1, 64, 4096]))
def test_what_is_written_is_read_whatever_the_names_types_shapes_shards_and_blocks(
    tensors: dict[str, np.ndarray], shards: int, block_bytes: int
) -> None:
    with TemporaryDirectory() as folder:
        prefix = Path(folder) / "model.ckpt"
        write_bundle(prefix, tensors.items(), shards, block_bytes)
        files, entries, _ = read_bundle(prefix)
        assert [file.name for file in files] == [
            "model.ckpt.index",
            *(f"model.ckpt.data-{i:05d}-of-{shards:05d}" for i in range(shards)),
        ]
        assert entries.keys() == tensors.keys()
        for name, array in tensors.items():
            found = entries[name]
            assert (found.name, found.dtype, found.shape) == (name, str(array.dtype), array.shape)
            assert found.nbytes == array.nbytes
            assert same(found.read(), array)


@settings(max_examples=60, deadline=None)
@given(arrays(), st.integers(1, 40))
def test_blocks_are_the_rows_in_order_and_no_larger_than_the_limit(array: np.ndarray, limit: int) -> None:
    with TemporaryDirectory() as folder:
        prefix = Path(folder) / "model.ckpt"
        write_bundle(prefix, [("x", array)])
        found = read_bundle(prefix)[1]["x"]
        row_bytes = array[0].nbytes if array.ndim and len(array) else array.nbytes
        pieces = []
        for block in found.blocks(limit):
            assert block.nbytes <= max(limit, row_bytes)
            assert block.shape[1:] == array.shape[1:]
            pieces.append(np.array(block))
        assert b"".join(piece.tobytes() for piece in pieces) == array.tobytes()
        assert all(piece.dtype == array.dtype for piece in pieces)


def test_an_index_of_several_blocks_is_read_whole(tmp_path: Path) -> None:
    names = [f"bert/encoder/layer_{i}/{part}/kernel" for i in range(24) for part in ("query", "key", "value")]
    write_bundle(tmp_path / "m", [(name, np.full(2, i, "f4")) for i, name in enumerate(names)], block_bytes=200)
    found = read_whole(tmp_path / "m")
    assert [found[name][0] for name in names] == list(range(len(names)))


def test_positions_are_the_order_of_the_data_files(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m", [("z", np.zeros(4)), ("y", np.zeros(4)), ("a", np.zeros(4))], shards=2)
    entries = read_bundle(tmp_path / "m")[1]
    assert sorted(entries, key=lambda name: entries[name].position) == ["z", "a", "y"]


@pytest.mark.parametrize("fixture", sorted(path.name for path in FIXTURES.glob("huawei-tf-*")))
def test_every_tensor_that_tensorflow_wrote_is_read_and_its_checksum_agrees(fixture: str) -> None:
    files, entries, _ = read_bundle(FIXTURES / fixture / "model.ckpt-12345")
    arrays = {name: tensor.read() for name, tensor in entries.items()}
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert sum(array.nbytes for array in arrays.values()) == sum(file.stat().st_size for file in files[1:])
    assert arrays["global_step"].shape == ()
    assert arrays["global_step"].dtype == np.int64
    assert arrays["bert/embeddings/word_embeddings"].shape == (64, 32)
    assert arrays["bert/encoder/layer_1/intermediate/dense/kernel"].shape == (32, 48)


def test_a_bundle_without_tensors_is_read(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m", [])
    assert read_bundle(tmp_path / "m")[1] == {}


# Reading by offset


def test_the_bytes_of_optimizer_slots_are_never_read(tmp_path: Path) -> None:
    tensors = [
        ("w/kernel", np.ones((4, 4), "f4")),
        ("w/kernel/adam_m", np.ones((4, 4), "f4")),
        ("w/bias", np.ones(4, "f4")),
    ]
    write_bundle(tmp_path / "m", tensors)
    data = tmp_path / "m.data-00000-of-00001"
    damaged = bytearray(data.read_bytes())
    damaged[64:128] = b"\xff" * 64
    data.write_bytes(damaged)
    entries = read_bundle(tmp_path / "m")[1]
    assert same(entries["w/kernel"].read(), tensors[0][1])
    assert same(entries["w/bias"].read(), tensors[2][1])
    with pytest.raises(CheckpointError, match="'w/kernel/adam_m'"):
        entries["w/kernel/adam_m"].read()


def test_opening_reads_no_data_and_reading_one_tensor_keeps_the_others_out_of_memory(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m", [("large", np.zeros(4_000_000, "f4")), ("small", np.ones(9, "f4"))])
    tracemalloc.start()
    try:
        entries = read_bundle(tmp_path / "m")[1]
        assert entries["small"].read().sum() == 9
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_a_large_tensor_passes_in_blocks(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m", [("large", np.zeros((4000, 1000), "f4"))])
    tensor = read_bundle(tmp_path / "m")[1]["large"]
    tracemalloc.start()
    try:
        rows = sum(len(block) for block in tensor.blocks(1 << 20))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == 4000
    assert peak < 2 << 20


# Damaged files


def test_an_index_cut_short_anywhere_is_refused(prefix: Path) -> None:
    index = index_of(prefix)
    whole = index.read_bytes()
    for length in range(len(whole)):
        index.write_bytes(whole[:length])
        assert "index: not a sound TensorFlow checkpoint index" in str(refusal(prefix))


def test_every_single_flipped_bit_in_an_index_is_refused(prefix: Path) -> None:
    index = index_of(prefix)
    whole = index.read_bytes()
    unnoticed = []
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        index.write_bytes(damaged)
        try:
            read_bundle(prefix)
            unnoticed.append(bit)
        except CheckpointError as error:
            assert index.name in str(error)
    assert unnoticed == []


def test_a_flipped_bit_in_the_data_is_refused_and_the_tensor_named(prefix: Path) -> None:
    data = prefix.with_name(prefix.name + ".data-00001-of-00002")
    whole = data.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        data.write_bytes(damaged)
        entries = read_bundle(prefix)[1]
        entries["a"].read()  # of the other shard
        with pytest.raises(CheckpointError, match=r"'b/bias'.*checksum") as caught:
            entries["b/bias"].read()
        assert data.name in str(caught.value)


def test_a_damaged_tensor_is_noticed_at_its_last_block(prefix: Path) -> None:
    data = prefix.with_name(prefix.name + ".data-00000-of-00002")
    data.write_bytes(b"\x01" + data.read_bytes()[1:])
    stream = read_bundle(prefix)[1]["a"].blocks(12)
    assert len(next(stream)) == len(next(stream)) == 1
    with pytest.raises(CheckpointError, match="checksum"):
        next(stream)


def test_a_missing_data_file_is_named(prefix: Path) -> None:
    prefix.with_name(prefix.name + ".data-00001-of-00002").unlink()
    assert "model.ckpt-7.data-00001-of-00002 is not there" in str(refusal(prefix))


def test_many_missing_data_files_take_neither_an_endless_message_nor_memory(tmp_path: Path) -> None:
    path = lone(tmp_path, table({"": header(99_999)}))
    tracemalloc.start()
    try:
        refusal(path, r"names 99999 data file\(s\), but .*-of-99999, .* and more is not there")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_data_file_cut_short_is_refused_when_it_is_opened(prefix: Path) -> None:
    data = prefix.with_name(prefix.name + ".data-00001-of-00002")
    data.write_bytes(data.read_bytes()[:-1])
    error = refusal(prefix, "'b/bias'")
    assert data.name in str(error)
    assert "cut short" in error.hint


def test_a_data_file_that_shrinks_while_it_is_read_is_refused(prefix: Path) -> None:
    entries = read_bundle(prefix)[1]
    prefix.with_name(prefix.name + ".data-00000-of-00002").write_bytes(b"1234")
    with pytest.raises(CheckpointError, match="changed meanwhile"):
        entries["a"].read()


def test_a_data_file_that_vanishes_is_refused_when_it_is_read(prefix: Path) -> None:
    entries = read_bundle(prefix)[1]
    prefix.with_name(prefix.name + ".data-00000-of-00002").unlink()
    with pytest.raises(CheckpointError, match=r"data-00000-of-00002: cannot be read"):
        entries["a"].read()


def test_a_missing_index_is_named(tmp_path: Path) -> None:
    assert "no.ckpt.index: not there; it says where" in str(refusal(tmp_path / "no.ckpt"))


def test_an_index_larger_than_any_of_nezha_is_not_read(prefix: Path) -> None:
    with index_of(prefix).open("r+b") as file:
        file.truncate((1 << 30) + 1)
    refusal(prefix, "1,073,741,825 bytes")


# Sound files that say what cannot be


def block_of(*records: tuple[bytes, bytes], restarts: int | None = None) -> bytes:
    data = bundles.block(records)
    return data if restarts is None else data[:-4] + struct.pack("<I", restarts)


def raw_record(shared: int, key: bytes, value: bytes) -> bytes:
    return varint(shared) + varint(len(key)) + varint(len(value)) + key + value


def separated(*separators: bytes) -> bytes:
    """A table of the header and a, b and c, each in a block of its own, whose index block has these separators."""
    out = bytearray()
    blocks = [
        block_of((b"", header()), (b"a", FOUR_FLOATS)),
        block_of((b"b", FOUR_FLOATS)),
        block_of((b"c", FOUR_FLOATS)),
    ]
    handles = [bundles.append_block(out, data, 0) for data in blocks]
    return bundles.finished(out, bundles.block(zip(separators, handles, strict=True)), bundles.block([]))


def test_separators_may_lie_anywhere_between_the_keys_of_their_blocks(tmp_path: Path) -> None:
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(16))
    for separators in ((b"a", b"b", b"c"), (b"aa", b"bzz", b"d")):
        (tmp_path / "m.index").write_bytes(separated(*separators))
        assert [*read_bundle(tmp_path / "m")[1]] == ["a", "b", "c"]


ENDING = struct.pack("<2I", 0, 1)  # one restart, at 0
CRC_OF_16_ZEROS = bundles.masked(google_crc32c.value(bytes(16)))
FOUR_FLOATS = entry(1, (4,), 0, 0, 16, 0)
NEGATIVE = (1 << 64) - 1

INDEXES: dict[str, tuple[bytes, str]] = {
    "compressed in an unknown way": (bundles.table_of_block(block_of((b"", header())), compression=2), "is compressed"),
    "compressed, says its mark": (bundles.table_of_block(block_of((b"", header())), compression=1), "a packed block"),
    "big-endian": (table({"": header(endianness=1)}), "big-endian"),
    "no header": (table({"a": FOUR_FLOATS}), "no header"),
    "nothing at all": (table({}), "no header"),
    "no shards": (table({"": header(0)}), "names 0 data files"),
    "too many shards": (table({"": header(1 << 40)}), "names 1099511627776 data files"),
    "a part that is not there": (
        table({"": header(), "a": FOUR_FLOATS + bundles.message(7, bundles.message(1, bundles.number(2, 4)))}),
        "a part of 'a' is not there",
    ),
    "a restart count past the block": (
        bundles.table_of_block(block_of((b"", header()), restarts=1 << 31)),
        "claims 2,147,483,648 restarts",
    ),
    "a block too short for its restarts": (bundles.table_of_block(b"abc"), "does not fit"),
    "a prefix longer than the key before": (
        bundles.table_of_block(raw_record(1, b"", header()) + ENDING),
        "reaches past its end",
    ),
    "a key past the block": (bundles.table_of_block(varint(0) + varint(99) + varint(0) + ENDING), "past its end"),
    "a value past the block": (bundles.table_of_block(varint(0) + varint(0) + varint(99) + ENDING), "past its end"),
    "an endless number": (bundles.table_of_block(b"\xff" * 20 + ENDING), "too long"),
    "a number of 65 bits": (bundles.table_of_block(b"\xff" * 9 + b"\x02" + ENDING), "too long"),
    "a number with a byte of nothing": (bundles.table_of_block(b"\x80\x00" + b"\0" * 9 + ENDING), "too long"),
    "a handle outside the file": (bundles.table_of_handle(varint(1 << 20) + varint(64)), "does not fit"),
    "a handle past all files": (bundles.table_of_handle(varint(NEGATIVE) + varint(NEGATIVE)), "does not fit"),
    "a handle cut short": (bundles.table_of_handle(b"\x80"), "cut short"),
    "a key twice": (
        bundles.unsorted_table([(b"", header()), (b"a", FOUR_FLOATS), (b"a", FOUR_FLOATS)]),
        "keys must rise",
    ),
    "a header twice": (bundles.unsorted_table([(b"", header()), (b"", header())]), "keys must rise"),
    "falling keys": (
        bundles.unsorted_table([(b"", header()), (b"b", FOUR_FLOATS), (b"a", FOUR_FLOATS)]),
        "b'a' follows b'b'",
    ),
    "falling keys over two blocks": (
        bundles.unsorted_table([(b"", header()), (b"b", FOUR_FLOATS), (b"a", FOUR_FLOATS)], block_bytes=1),
        "b'a' follows b'b'",
    ),
    **{
        f"separators that {what}": (separated(*separators), words)
        for what, separators, words in (
            ("are swapped", (b"b", b"a", b"c"), "key b'b' is not above b'b', the separator"),
            ("are one", (b"a", b"a", b"c"), "separator b'a' of a block follows b'b'"),
            ("are below the block's last key", (b"a", b"", b"c"), "separator b'' of a block follows b'b'"),
            ("reach a later block's key", (b"bb", b"bbb", b"c"), "key b'b' is not above b'bb', the separator"),
            ("are a later block's key", (b"b", b"bb", b"c"), "key b'b' is not above b'b', the separator"),
        )
    },
    "a name that is not UTF-8": (bundles.unsorted_table([(b"", header()), (b"\xff\xfe", FOUR_FLOATS)]), "utf-8"),
    "a shard past their number": (table({"": header(), "a": entry(1, (4,), 1, 0, 16, 0)}), "'a' lies in shard 1"),
    "a negative shard": (table({"": header(), "a": entry(1, (4,), NEGATIVE, 0, 16, 0)}), "'a' lies in shard"),
    "a negative offset": (table({"": header(), "a": entry(1, (4,), 0, NEGATIVE, 16, 0)}), "'a' needs bytes"),
    "a size past the data": (table({"": header(), "a": entry(1, (4,), 0, 4, 16, 0)}), "'a' needs bytes 4 to 20"),
    "another size than the shape's": (table({"": header(), "a": entry(1, (3,), 0, 0, 16, 0)}), "cannot have 16 bytes"),
    "a huge dimension": (table({"": header(), "a": entry(1, (1 << 62,), 0, 0, 16, 0)}), "no array has"),
    "huge dimensions": (table({"": header(), "a": entry(1, (1 << 62,) * 8, 0, 0, 16, 0)}), "no array has"),
    "a huge and an empty dimension": (table({"": header(), "a": entry(1, (1 << 62, 0), 0, 0, 0, 0)}), "no array has"),
    "an empty and a huge dimension": (table({"": header(), "a": entry(1, (0, 1 << 61), 0, 0, 0, 0)}), "no array has"),
    "a large dimension": (table({"": header(), "a": entry(1, (1 << 50,), 0, 0, 16, 0)}), "cannot have 16 bytes"),
    "a metaindex": (
        bundles.table_of_block(block_of((b"", header())), metaindex=[(b"a", b"b")]),
        "more than a table",
    ),
    "a negative dimension": (table({"": header(), "a": entry(1, (NEGATIVE,), 0, 0, 16, 0)}), "a dimension of size"),
    "more dimensions than an array has": (table({"": header(), "a": entry(1, (1,) * 70, 0, 0, 4, 0)}), "dimensions"),
    "an unknown rank": (
        table({"": header(), "a": varint(1 << 3) + varint(1) + bundles.message(2, varint(3 << 3) + varint(1))}),
        "unknown rank",
    ),
    "a number for the shape": (table({"": header(), "a": varint(2 << 3) + varint(5)}), "where a message is expected"),
    "bytes for a dimension": (
        table({"": header(), "a": bundles.message(2, bundles.message(2, bundles.message(1, b"x")))}),
        "a dimension of size",
    ),
    "a field past the record": (table({"": header(), "a": varint(2 << 3 | 2) + varint(9)}), "past the record's end"),
    "a fixed field past the record": (table({"": header(), "a": varint(6 << 3 | 5) + b"ab"}), "past the record's end"),
    "an unknown wire type": (table({"": header(), "a": varint(1 << 3 | 3)}), "wire type 3"),
    "restarts that are none": (
        bundles.table_of_block(bundles.block([(b"", header())])[:-8] + struct.pack("<I", 0)),
        "claims 0 restarts",
    ),
    "restarts inside of a record": (
        bundles.table_of_block(bundles.block([(b"", header())])[:-8] + struct.pack("<3I", 0, 3, 2)),
        "not where its records begin",
    ),
    "restarts that do not begin with the first record": (
        bundles.table_of_block(bundles.block([(b"", header()), (b"a", FOUR_FLOATS)])[:-8] + struct.pack("<2I", 9, 1)),
        "not where its records begin",
    ),
    "a later version's readers": (
        table({"": bundles.number(1, 1) + bundles.message(3, bundles.number(2, 2))}),
        "a reader of version 2",
    ),
    "versions that are not to read it": (
        table({"": bundles.number(1, 1) + bundles.message(3, bundles.number(3, 1))}),
        "asks not to be read by version 1",
    ),
    "a text for the shards": (table({"": bundles.message(1, b"1")}), "data files"),
}


@pytest.mark.parametrize("records, expected", INDEXES.values(), ids=INDEXES)
def test_an_index_is_refused_for(records: bytes, expected: str, tmp_path: Path) -> None:
    path = lone(tmp_path, records)
    tracemalloc.start()
    try:
        error = refusal(path, expected)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error.exit_code == 3
    assert peak < 1 << 20


def test_a_shape_in_two_messages_is_their_sum_as_in_every_protocol_buffer(tmp_path: Path) -> None:
    more = bundles.message(2, bundles.message(2, bundles.number(1, 2)))
    path = lone(tmp_path, table({"": header(), "a": entry(1, (2,), 0, 0, 16, CRC_OF_16_ZEROS) + more}))
    assert read_whole(path)["a"].shape == (2, 2)


def test_a_data_file_that_links_out_of_its_folder_is_refused_and_one_within_is_read(prefix: Path) -> None:
    data = prefix.with_name(prefix.name + ".data-00001-of-00002")
    outside = prefix.parent.parent / "outside"
    data.rename(outside)
    data.symlink_to(outside)
    refusal(prefix, "outside of its folder")
    outside.rename(prefix.parent / "inside")
    data.unlink()
    data.symlink_to("inside")
    assert read_whole(prefix).keys() == {"a", "b/bias"}


def test_the_links_of_the_hubs_cache_are_read(prefix: Path) -> None:
    cache = prefix.parent / "models--a--b"
    snapshot, blobs = cache / "snapshots" / "0123", cache / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in prefix.parent.glob("model.ckpt-7.*"):
        file.rename(blobs / file.name)
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    assert read_whole(snapshot / prefix.name).keys() == {"a", "b/bias"}


@pytest.mark.parametrize("when", ["before", "between"])
def test_a_data_file_written_to_while_it_is_read_is_refused_though_its_size_is_the_same(
    prefix: Path, when: str
) -> None:
    entries = read_bundle(prefix)[1]
    data = prefix.with_name(prefix.name + ".data-00000-of-00002")
    stream = entries["a"].blocks(12)
    if when == "between":
        next(stream)
    os.utime(data, ns=(0, 0))
    with pytest.raises(CheckpointError, match="changed meanwhile"):
        list(stream)


def test_a_tensor_of_strings_is_listed_and_refused_when_it_is_read(tmp_path: Path) -> None:
    path = lone(tmp_path, table({"": header(), "names": entry(7, (2,), 0, 0, 16, 0)}))
    tensor = read_bundle(path)[1]["names"]
    assert (tensor.dtype, tensor.shape, tensor.nbytes) == ("TensorFlow dtype 7", (2,), 16)
    for read in (tensor.read, lambda: list(tensor.blocks())):
        with pytest.raises(CheckpointError, match=r"'names'.*TensorFlow dtype 7"):
            read()


def _fuzzed(make: Callable[[Path], None]) -> None:
    """Read what `make` wrote. Only arrays and CheckpointErrors are allowed, and little memory."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.ckpt"
        make(path)
        (path.parent / "model.ckpt.data-00000-of-00001").write_bytes(bytes(64))
        tracemalloc.start()
        try:
            try:
                entries: dict[str, TensorEntry] = read_bundle(path)[1]
            except CheckpointError:
                return
            for tensor in entries.values():
                try:
                    tensor.read()
                except CheckpointError:
                    continue
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 1 << 20


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_no_block_of_arbitrary_bytes_under_a_right_checksum_does_harm(data: bytes) -> None:
    _fuzzed(lambda path: index_of(path).write_bytes(bundles.table_of_block(data + ENDING)) and None)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=6))
def test_no_record_of_arbitrary_bytes_does_harm(record: bytes, head: bytes) -> None:
    records = table({"": header() + head, "a": record})
    _fuzzed(lambda path: index_of(path).write_bytes(records) and None)


NUMBERS = st.integers(0, 70) | st.integers(0, NEGATIVE)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 30), st.lists(NUMBERS, max_size=4), st.integers(0, 1), NUMBERS, NUMBERS)
def test_no_entry_of_arbitrary_numbers_does_harm(
    dtype: int, shape: list[int], shard: int, offset: int, size: int
) -> None:
    records = table({"": header(), "a": entry(dtype, shape, shard, offset, size, bundles.masked(0))})
    _fuzzed(lambda path: index_of(path).write_bytes(records) and None)
