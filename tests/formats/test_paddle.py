"""PaddlePaddle's pickles: read without running them, written without Paddle, and converted to the same outputs."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from goldens import FIXTURES, GOLDENS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import SHAPES

from nezha_convert import convert
from nezha_convert.errors import CheckpointError
from nezha_convert.families import PADDLE, PADDLE_BASE
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.formats.paddle import DTYPES, read_paddle, write_paddle
from nezha_convert.formats.pickles import machine as pickle_machine
from nezha_convert.formats.tensor import Tensor
from nezha_convert.mapping.config import read_config
from nezha_convert.mapping.recognise import family_of, infer_head

PRETRAINING = next(golden for golden in GOLDENS if golden.name == "paddlenlp-pretraining")
FOLDER_IS_REUSED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
EVERY_PROTOCOL = pytest.mark.parametrize("protocol", [2, 3, 4, 5])


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    dtype, shape = draw(st.sampled_from(sorted(set(DTYPES) - {"bfloat16"}))), draw(SHAPES)
    size = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
    data = draw(st.binary(min_size=size, max_size=size))
    if dtype == "bool":
        return np.frombuffer(bytes(byte & 1 for byte in data), dtype).reshape(shape)
    return np.frombuffer(data, dtype).reshape(shape)


STATES = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), arrays(), max_size=4)


def pickled(tmp_path: Path, value: object, protocol: int = 4) -> Path:
    file = tmp_path / "model_state.pdparams"
    file.write_bytes(pickle.dumps(value, protocol))
    return file


def assembled(tmp_path: Path, steps: bytes) -> Path:
    file = tmp_path / "assembled.pdparams"
    file.write_bytes(b"\x80\x04" + steps)
    return file


def read(file: Path) -> dict[str, np.ndarray]:
    return {name: entry.read() for name, entry in read_paddle((file,))[0].items()}


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


# Reading


@FOLDER_IS_REUSED
@given(state=STATES, protocol=st.sampled_from([2, 3, 4, 5]))
def test_what_pickle_and_numpy_write_is_read_bit_by_bit(state, protocol, tmp_path):
    assert_equal(read(pickled(tmp_path, state, protocol)), state)


@FOLDER_IS_REUSED
@given(state=STATES, protocol=st.sampled_from([2, 4]), limit=st.integers(1, 40))
def test_blocks_of_any_size_make_the_tensor(state, protocol, limit, tmp_path):
    for name, entry in read_paddle((pickled(tmp_path, state, protocol),))[0].items():
        blocks = [block.copy() for block in entry.blocks(limit)]
        row = entry.nbytes // max(1, entry.shape[0]) if entry.shape else entry.nbytes
        assert all(block.nbytes <= max(limit, row) for block in blocks)
        assert b"".join(block.tobytes() for block in blocks) == state[name].tobytes()


class DenseTensor:
    """A tensor as Paddle writes it: ``eval("data", {"data": array})``."""

    def __init__(self, array):
        self.array = array

    def __reduce__(self):
        return eval, ("data", {"data": self.array})


class EagerTensor(DenseTensor):
    """A tensor as Paddle 2.1 and later write it: ``tuple((name, array))``."""

    def __reduce__(self):
        return tuple, (("linear_0.w_0", self.array),)


@EVERY_PROTOCOL
@pytest.mark.parametrize("wrapped", [np.asarray, DenseTensor, EagerTensor])
def test_every_form_of_paddle_s_tensors_is_read_as_its_array(protocol, wrapped, tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    state = OrderedDict({"w": wrapped(array), "StructuredToParameterName@@": {"w": "linear_0.w_0"}})
    assert_equal(read(pickled(tmp_path, state, protocol)), {"w": array})


ODD = [np.arange(6.0, dtype=">f4"), np.arange(6, dtype=">i2").reshape(2, 3).T, np.asfortranarray(np.ones((2, 3, 4)))]


@EVERY_PROTOCOL
@pytest.mark.parametrize("array", ODD, ids=lambda array: f"{array.dtype.str}{array.shape}")
def test_arrays_of_another_byte_order_or_stored_by_columns_are_read_as_numpy_reads_them(protocol, array, tmp_path):
    found = read(pickled(tmp_path, {"w": array}, protocol))["w"]
    assert found.dtype == array.dtype.newbyteorder("=")
    assert found.tolist() == array.tolist()


def test_the_bits_of_bfloat16_are_told_by_numpy_s_uint16_and_said(tmp_path):
    values = np.array([1.0, -2.5, 3e38], "bfloat16")
    entries, (decision,), _ = read_paddle((pickled(tmp_path, {"w": values.view(np.uint16), "i": np.arange(2)}),))
    assert entries["w"].dtype == "bfloat16"
    assert entries["w"].read().tolist() == values.tolist()
    assert (decision.field, decision.value) == ("uint16", "bfloat16")
    assert decision.reason.startswith("1 tensors are stored as NumPy's uint16")


def test_paddle_s_own_names_are_left_out_and_said(tmp_path):
    names = {"StructuredToParameterName@@": {"w": "linear_0.w_0"}}
    entries, (decision,), _ = read_paddle((pickled(tmp_path, {"w": np.ones(2), **names}),))
    assert list(entries) == ["w"]
    assert (decision.field, decision.value) == ("StructuredToParameterName@@", "left out")
    assert read_paddle((pickled(tmp_path, {"w": np.ones(2)}),))[1] == ()


def test_what_the_reader_decided_is_in_the_report(tmp_path):
    entries = open_checkpoint(PRETRAINING.folder).entries
    state = {str(n): e.read().astype("bfloat16").view(np.uint16) for n, e in entries.items()}
    pickled(tmp_path, state | {"StructuredToParameterName@@": {}})
    shutil.copy(PRETRAINING.folder / "config.json", tmp_path)
    report = convert(tmp_path, tmp_path / "out")
    assert {"StructuredToParameterName@@", "uint16"} <= {decision.field for decision in report.decisions}
    assert {tensor.dtype for tensor in report.written} == {"bfloat16"}


def test_shards_are_read_as_one_checkpoint(tmp_path):
    for i in (1, 2):
        write_paddle(tmp_path / f"model_state-0000{i}-of-00002.pdparams", [tensor(f"w{i}", np.ones((2, 3), "f4"))])
    index = '{"weight_map": {"w1": "model_state-00001-of-00002.pdparams", "w2": "model_state-00002-of-00002.pdparams"}}'
    (tmp_path / "model_state.pdparams.index.json").write_text(index)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format == "paddle"
    assert list(checkpoint.entries) == ["w1", "w2"]


# What is refused


class Hostile:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@EVERY_PROTOCOL
@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        (os.system, ("touch {}",), "system"),
        (exec, ("open({!r}, 'w')",), "exec"),
        (eval, ("open({!r}, 'w')",), "'w' is a builtins.eval"),
        (eval, ("open({!r}, 'w')", {"data": np.ones(2)}), "'w' is a builtins.eval"),
        (bytes, (1 << 62,), "'w' is a builtins.bytes"),
        (bytearray, (1 << 62,), "bytearray"),
        (np.zeros, (1 << 62,), "zeros"),
        (getattr, (os, "system"), "getattr"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_pickle_that_asks_for_anything_else_is_refused_and_nothing_is_run(
    protocol, function, arguments, said, tmp_path
):
    run = tmp_path / "run"
    arguments = tuple(part.format(str(run)) if isinstance(part, str) else part for part in arguments)
    if function is getattr:
        arguments = ("os", "system")
    file = pickled(tmp_path, {"w": Hostile(function, *arguments)}, protocol)
    with pytest.raises(CheckpointError, match=said) as refusal:
        read_paddle((file,))
    assert "Nothing in it was run" in refusal.value.message
    assert not run.exists()


def bomb(kind: str) -> bytes:
    many = 1 << 16
    return {
        "a long text": b"\x8d" + struct.pack("<Q", 1 << 62),
        "long bytes": b"\x8e" + struct.pack("<Q", 1 << 62),
        "a long bytearray": b"\x96" + struct.pack("<Q", 1 << 62),
        "a long frame": b"\x95" + struct.pack("<Q", 1 << 62) + b"N.",
        "a far place in the memory": b"Nr" + struct.pack("<I", 2**32 - 1) + b"0.",
        "marks": b"(" * many,
        "a tower of tuples": b")" + b"\x85" * many + b".",
        "tuples that double": b")"
        + b"\x94h\x00h\x00\x86"
        + b"".join(b"\x94h" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(1, 200)),
        "a list in itself": b"]\x94h\x00a.",
        "a dictionary in itself": b"}\x94X\x01\x00\x00\x00wh\x00s.",
        "a number of many digits": b"\x8a\xff" + b"\x7f" * 255 + b".",
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        *("a long text", "long bytes", "a long bytearray", "a long frame", "a far place in the memory", "marks"),
        *("a tower of tuples", "tuples that double", "a list in itself", "a dictionary in itself"),
        "a number of many digits",
    ],
)
def test_a_bomb_allocates_a_small_multiple_of_the_file(kind, tmp_path):
    file = assembled(tmp_path, bomb(kind))
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        read_paddle((file,))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 18 if file.stat().st_size < 1 << 12 else peak < 200 * file.stat().st_size


@pytest.mark.parametrize(
    "shape", [(1 << 62,), (1 << 31, 1 << 31), (3,), (2, 1, 3), (0, 1 << 62), (1,) * 40, (1 << 2000, 0), (-2, -1)]
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_shape_that_the_data_does_not_fill_is_refused_before_anything_is_allocated(shape, protocol, tmp_path):
    function, start, state = np.ones(2, np.float32).__reduce__()

    class Array:
        def __reduce__(self):
            return function, start, (state[0], shape, *state[2:])

    file = pickled(tmp_path, {"w": Array()}, protocol)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"shape|sizes"):
        read_paddle((file,))
    assert tracemalloc.get_traced_memory()[1] < 1 << 18
    tracemalloc.stop()


@EVERY_PROTOCOL
def test_a_file_that_ends_at_any_byte_is_refused(protocol, tmp_path):
    whole = pickled(tmp_path, {"w": np.arange(40, dtype=np.uint8), "i": np.arange(3)}, protocol).read_bytes()
    file = tmp_path / "cut.pdparams"
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        with pytest.raises(CheckpointError):
            read_paddle((file,))


@FOLDER_IS_REUSED
@given(
    protocol=st.sampled_from([2, 3, 4, 5]),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_changed_file_is_read_or_refused_and_nothing_else(protocol, changes, tmp_path):
    data = bytearray(pickle.dumps({"w": np.arange(40, dtype=np.float32), "n": {"w": "w"}}, protocol))
    for position, byte in changes:
        data[position % len(data)] = byte
    file = tmp_path / "changed.pdparams"
    file.write_bytes(data)
    try:
        read(file)
    except CheckpointError as error:
        assert error.message


@FOLDER_IS_REUSED
@given(steps=st.lists(st.sampled_from(sorted(pickle_machine.STEPS)), max_size=40), tail=st.binary(max_size=20))
def test_any_steps_are_read_or_refused_and_nothing_else(steps, tail, tmp_path):
    with pytest.raises(CheckpointError):
        read_paddle((assembled(tmp_path, b"".join(steps) + tail),))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.ones(2), "holds a tensor"),
        ({"epoch": 3, "w": np.ones(2)}, "'epoch' is a int"),
        ({"model": {"w": np.ones(2)}}, "'model' is a dictionary"),
        ({3: np.ones(2)}, "3 is a tensor; expected a flat dictionary of arrays by name"),
        ({"w": np.array(["a"])}, "'w' is of type U1, which holds no numbers"),
        ({"w": np.array([None])}, "'w' is an array without data"),
        ({"w": np.ones(2), "UnpackBigParamInfor@@": {}}, "cut into slices of 1 GiB"),
    ],
)
def test_what_is_no_state_dict_is_said_by_name(value, said, tmp_path):
    with pytest.raises(CheckpointError, match=said):
        read_paddle((pickled(tmp_path, value),))


def test_a_name_that_stands_twice_is_refused(tmp_path):
    text = b"X\x01\x00\x00\x00w"
    with pytest.raises(CheckpointError, match="'w' twice"):
        read_paddle((assembled(tmp_path, b"}(" + 2 * (text + b"N") + b"u."),))


def test_a_pickle_of_more_steps_than_any_model_needs_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(pickle_machine, "MAX_STEPS", 20)
    with pytest.raises(CheckpointError, match="more than 20 steps"):
        read_paddle((pickled(tmp_path, {"w": np.ones(2)}),))


@pytest.mark.parametrize(
    "step",
    [b"N", b"]", b"}", b"(", b")", b"]\x94", b"K\x00", b"C\x00", b"\x8c\x00", b"\x8c\x01a", b"(t", b"\x8a\x01\x01"],
    ids=repr,
)
def test_a_file_of_nothing_but_steps_ends_long_before_it_is_through(step, tmp_path):
    file = assembled(tmp_path, step * (1 << 16))
    size = file.stat().st_size
    tracemalloc.start()
    with pytest.raises(
        CheckpointError, match=f"more than {(1 << 15) + size // 10} steps in {size} bytes|it ends in the middle"
    ):
        read_paddle((file,))
    assert tracemalloc.get_traced_memory()[1] < (4 << 20) + 24 * size  # the limit of the fuzzing for every reader
    tracemalloc.stop()


def test_a_model_of_many_layers_has_steps_to_spare(tmp_path):
    state = {f"layer.{i}": np.ones(256, np.float32) for i in range(2000)}
    assert len(read(pickled(tmp_path, state, 4))) == 2000


def test_text_of_another_length_than_its_shape_is_noticed_when_it_is_read(tmp_path):
    data = pickle.dumps({"w": np.frombuffer(b"\x80" * 8, np.uint8)}, 2)
    file = tmp_path / "model_state.pdparams"
    file.write_bytes(data.replace("\x80".encode() * 8, b"a" * 16))  # 8 characters of two bytes -> 16 of one
    (entry,) = read_paddle((file,))[0].values()
    with pytest.raises(CheckpointError, match="another length than its shape"):
        entry.read()


# Writing


def tensor(name: str, array: np.ndarray) -> Tensor:
    return Tensor(name, str(array.dtype), array.shape, np.array_split(array, 3) if array.ndim else [array])


@FOLDER_IS_REUSED
@given(state=STATES)
def test_what_is_written_is_read_by_pickle_and_by_our_reader(state, tmp_path):
    file = tmp_path / "written.pdparams"
    write_paddle(file, [tensor(name, array) for name, array in state.items()])
    assert_equal(pickle.loads(file.read_bytes()), state)  # our own file
    assert_equal(read(file), state)


def test_bfloat16_is_written_as_paddle_writes_it(tmp_path):
    file, values = tmp_path / "written.pdparams", np.array([1.0, -2.5], "bfloat16")
    write_paddle(file, [tensor("w", values)])
    assert pickle.loads(file.read_bytes())["w"].tolist() == values.view(np.uint16).tolist()
    assert_equal(read(file), {"w": values})


# The program's own checkpoints


def test_safetensors_of_paddlenlp_are_known_by_their_names():
    checkpoint = open_checkpoint(FIXTURES / "paddlenlp-sequence-classification")
    assert checkpoint.format == "safetensors"
    assert family_of(checkpoint.entries) is PADDLE
    assert checkpoint.entries["classifier.weight"].shape == (32, 3)


def test_a_model_without_a_head_is_known_by_its_names():
    entries = open_checkpoint(FIXTURES / "paddlenlp-pretraining").entries
    bare = {name.removeprefix("nezha."): entry for name, entry in entries.items() if name.startswith("nezha.")}
    assert family_of(bare) is PADDLE_BASE
    assert infer_head(PADDLE_BASE, bare).heads == ("encoder",)


def test_the_older_config_is_read_as_the_program_flattens_it():
    folder = FIXTURES / "paddlenlp-question-answering"
    raw = read_config(folder / "model_config.json", folder)
    assert raw["architectures"] == ["NeZhaForQuestionAnswering"]
    assert raw["num_attention_heads"] == 2
    assert "init_class" not in raw and "init_args" not in raw


def test_a_name_in_two_shards_is_refused(tmp_path):
    one = pickled(tmp_path, {"w": np.ones(2)})
    other = one.rename(tmp_path / "other.pdparams")
    with pytest.raises(CheckpointError, match="'w' is in another shard too"):
        read_paddle((pickled(tmp_path, {"w": np.ones(2)}), other))


def test_an_array_without_data_is_refused(tmp_path):
    blank = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R"
    with pytest.raises(CheckpointError, match="'w' is an array without data"):
        read_paddle((assembled(tmp_path, b"}X\1\0\0\0w" + blank + b"s."),))


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_file_that_ends_or_goes_while_it_is_read_is_noticed(protocol, tmp_path):
    file = pickled(tmp_path, {"w": np.full(3000, 200, np.uint8)}, protocol)
    entry = read_paddle((file,))[0]["w"]
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="changed meanwhile"):
        entry.read()
    file.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        entry.read()
