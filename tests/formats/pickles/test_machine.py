"""Pickles are followed and not run; what costs more than its size may is refused before it costs anything."""

from __future__ import annotations

import contextlib
import pickle
import pickletools
import tracemalloc
from collections import Counter, OrderedDict
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nezha_convert.errors import CheckpointError, UsageError
from nezha_convert.formats.pickles.machine import BROKEN, follow
from nezha_convert.formats.pickles.machine import STEPS as STEPS_KNOWN
from nezha_convert.formats.pickles.values import UnexpectedError
from nezha_convert.formats.torch.containers import open_pickle
from nezha_convert.formats.torch.read import read_torch

FOLDER = Path(__file__).parents[2]
FIXTURES = FOLDER.parent / "fixtures"
FORMATS = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])

BASE = torch.arange(24.0)
SOUND: dict[str, Any] = {
    "tensors": {
        "a": torch.ones(2, 3),
        "b": torch.tensor(1),
        "c": torch.ones(0, 5),
        "d": torch.ones(2, dtype=torch.bool),
    },
    "views of one storage": {"a": BASE[:6].view(2, 3), "b": BASE[6:].view(3, 6).T, "c": BASE[::2]},
    "parameters": OrderedDict(a=torch.nn.Parameter(torch.ones(2))),
    "an expanded tensor": {"a": torch.ones(1).expand(8)},
    "a training's": {
        "model": {"w": torch.ones(2, 2)},
        "optimizer": {"state": {0: {"step": 1, "exp_avg": torch.ones(2)}}, "param_groups": [{"betas": (0.9, 0.99)}]},
        "scheduler": {"milestones": Counter({1: 1}), "names": {"a", "b"}, "note": None, "last": -1, "long": 2**40},
    },
    "bytes": {"a": b"\x00\xff"},
    "many names": {f"layer.{i}.weight": torch.ones(2) for i in range(3000)},
}


@FORMATS
@pytest.mark.parametrize("content", SOUND.values(), ids=SOUND)
def test_a_file_as_torch_writes_it_is_followed(content: Any, is_zip: bool, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "m.bin", _use_new_zipfile_serialization=is_zip)
    assert open_pickle(tmp_path / "m.bin")[0].wanted == ()


def read_all(file: Path) -> dict[str, Any]:
    return {name: entry.read() for name, entry in read_torch((file,)).entries.items()}


REFUSED = {
    "key-of-2-to-the-60-parts": "a key of more than 32 parts",
    "set-of-2-to-the-60-parts": "a key of more than 32 parts",
    "storage-of-terabytes": "it does not hold storage",
    "tensor-past-its-storage": r"a tensor of shape \[4294967296\] in a storage of 6 elements",
    "tensor-expanded-to-terabytes": r"has shape \[1099511627776\] of float32|does not hold storage",
    "text-of-two-gigabytes": "2,147,483,647 bytes declared",
    "compressed-a-thousandfold": "its members are compressed",
}
"""Why a file of the corpus is refused. The others ask for things that are stepped over, whatever they would cost."""


@pytest.mark.parametrize(
    "file", sorted((FOLDER / "fuzz" / "corpus" / "torch").iterdir()), ids=lambda file: str(file.name)
)
def test_a_file_that_would_cost_more_than_its_size_costs_nothing(file: Path) -> None:
    tracemalloc.start()
    reason = REFUSED.get(file.name.split("-", 1)[1])
    if reason:
        with pytest.raises(CheckpointError, match=reason):
            read_all(file)
    else:
        try:
            assert read_all(file)
        except (CheckpointError, UsageError) as error:
            assert len(error.message) < 3000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (4 << 20) + 24 * file.stat().st_size


LEGACY = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {}, [])]


def legacy(steps: bytes, path: Path) -> Path:
    """A legacy file whose object is made by `steps`, and which holds no storage."""
    path.write_bytes(b"".join(LEGACY[:3]) + b"\x80\x02" + steps + LEGACY[3])
    return path


STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu%stQ"
STEPS = {
    "a step that no pickle has": (b"\xff.", "step b'.xff'"),
    "a buffer outside of the file": (b"\x97.", "step b'.x97'"),
    "a later protocol": (b"\x80\x06.", "protocol 6"),
    "more taken than there is": (b"\x85.", "1 values taken where there are 0"),
    "a mark that is not there": (b"t.", "IndexError"),
    "a mark where a value is taken": (b"(\x85.", "1 values taken where there are 0"),
    "what was not stored": (b"h\x05.", "KeyError: 5"),
    "a storage that is none": (b")Q.", "a storage without a name and a size"),
    "a storage whose size is a text": (STORAGE % b"X\x01\0\0\x001" + b".", "a storage without a name and a size"),
    "a negative storage": (STORAGE % b"J\xff\xff\xff\xff" + b".", "a storage without a name and a size"),
    "a codec of quadratic time": (b"c_codecs\nencode\nX\x01\0\0\0aX\x08\0\0\0punycode\x86R.", "holds a _codecs.encode"),
    "a tensor of a class": (b"ctorch\nFloatTensor\nM\xff\xff\x85R.", "holds a torch.FloatTensor"),
    "a number of a megabyte": (b"\x8b\x00\x00\x10\x00" + bytes(1 << 20) + b".", "a number of 1048576 bytes"),
    "a line of a megabyte": (b"I" + b"1" * (1 << 20) + b"\n.", "a line without an end"),
    "a name that is a number": (b"K\x01K\x02\x93.", "a function whose name is not text"),
    "items for a number": (b"K\x01K\x02a.", "items for something that is not a list"),
    "a state for a class": (b"ctorch\nTensor\nNb.", "a state for a Name"),
    "a state for a number": (b"K\x01Nb.", "a state for a int"),
    "a key twice": (b"}(K\x01NK\x01Nu.", "1 twice"),
    "negative strides": (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE % b"K\x02" + b"K\0K\x02\x85J\xff\xff\xff\xff\x85tR.",
        "shape is not a tuple of sizes",
    ),
    "a state past its storage": (
        b"ctorch\nTensor\n)R" + b"(" + STORAGE % b"K\x02" + b"K\0K\x09\x85K\x01\x85tb.",
        r"a tensor of shape \[9\] in a storage of 2",
    ),
}


@pytest.mark.parametrize("steps, expected", STEPS.values(), ids=STEPS)
def test_a_pickle_is_refused_for(steps: bytes, expected: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=expected):
        read_torch((legacy(steps, tmp_path / "m.bin"),))


def test_every_step_of_every_protocol_is_known() -> None:
    outside = {"NEXT_BUFFER", "READONLY_BUFFER"}  # for buffers that are not in the file
    assert {opcode.code.encode("latin-1") for opcode in pickletools.opcodes if opcode.name not in outside} == {
        *STEPS_KNOWN
    }


VALUES = [None, True, 3, -(2**70), 0.5, "text", "中文", "\ud800", [1, [2]], {"a": {"b": 1}}, (), (1,), (1, 2, 3, 4)]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_are_what_pickle_makes_of_them(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    assert follow(BytesIO(data), len(data)).value == value


@given(st.binary(max_size=60))
def test_any_bytes_end_in_a_value_or_in_an_error_that_is_expected(data: bytes) -> None:
    with contextlib.suppress(UnexpectedError, *BROKEN):
        follow(BytesIO(data), len(data))


@given(st.lists(st.sampled_from(STEPS_KNOWN), max_size=40), st.binary(max_size=20))
def test_any_steps_end_in_a_value_or_in_an_error_that_is_expected(steps: list[bytes], tail: bytes) -> None:
    data = b"".join(steps) + tail
    with contextlib.suppress(UnexpectedError, *BROKEN):
        follow(BytesIO(data), len(data))
