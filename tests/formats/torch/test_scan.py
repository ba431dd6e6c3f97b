"""A PyTorch file that costs too much to load for its size is refused before torch loads it."""

from __future__ import annotations

from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from nezha_convert.errors import CheckpointError
from nezha_convert.formats.torch.read import read_torch
from nezha_convert.formats.torch.scan import check_torch_file

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
def test_a_file_as_torch_writes_it_passes(content: Any, is_zip: bool, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "m.bin", _use_new_zipfile_serialization=is_zip)
    check_torch_file(tmp_path / "m.bin")


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("*/*.bin")), ids=lambda file: file.parent.name)
def test_every_fixture_passes(file: Path) -> None:
    check_torch_file(file)


REFUSED = {
    "key-of-2-to-the-60-parts": "one object of 2,097,151 parts",
    "set-of-2-to-the-60-parts": "one object of 2,097,151 parts",
    "storage-of-terabytes": "storages of 1,099,511,627,776 elements in",
    "tensor-past-its-storage": r"a tensor of shape \[4294967296\] in a storage of 6 elements",
    "tensor-expanded-to-terabytes": r"a tensor of shape \[1099511627776\] in a storage of 6 elements",
    "bytearray-of-gigabytes": "a bytearray out of nothing but its size",
    "text-of-two-gigabytes": "expected 2147483647 bytes",
    "class-with-a-long-name": "a class whose name has 20,003 characters",
    "text-called": "it calls a text of 20,000 characters",
    "tuples-3000-deep": "more than 32 deep",
    "compressed-a-thousandfold": "its members are compressed",
}


CORPUS = sorted((FOLDER / "fuzz" / "corpus" / "torch").iterdir())
NOT_BY_THE_SCAN = "key-of-six-megabytes-of-text"


@pytest.mark.parametrize(
    "file", [f for f in CORPUS if not f.name.endswith(NOT_BY_THE_SCAN)], ids=lambda file: file.name
)
def test_a_file_is_refused_for(file: Path, tmp_path: Path) -> None:
    said = REFUSED[file.name.split("-", 1)[1]]
    with pytest.raises(ValueError, match=said):
        check_torch_file(file)
    (tmp_path / "m.bin").write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError, match=rf"m\.bin: cannot be read as a PyTorch file .*{said}"):
        read_torch((tmp_path / "m.bin",))


def test_a_key_whose_text_has_megabytes_is_shortened_before_it_is_a_text(tmp_path: Path) -> None:
    (file,) = (file for file in CORPUS if file.name.endswith(NOT_BY_THE_SCAN))
    check_torch_file(file)
    (tmp_path / "m.bin").write_bytes(file.read_bytes())
    with pytest.raises(
        CheckpointError, match=r"\(\.\.\.\).* is a NoneType; expected a dictionary of tensors"
    ) as caught:
        read_torch((tmp_path / "m.bin",))
    assert len(caught.value.message) < 3000


HEAD = b"\x80\x02"
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu%stQ"
STEPS = {
    "a step of another protocol": (b"\x8c\x01a.", "step SHORT_BINUNICODE"),
    "more taken than there is": (b"\x85.", "it takes more than there is"),
    "a mark that is not there": (b"t.", "it takes more than there is"),
    "a mark where a value is taken": (b"(\x85.", "it takes more than there is"),
    "what was not stored": (b"h\x05.", "it recalls 5"),
    "a storage that is none": (b")Q.", "a storage without a size"),
    "a storage whose size is a text": (STORAGE % b"X\x01\0\0\x001" + b".", "a storage without a size"),
    "a negative storage": (STORAGE % b"J\xff\xff\xff\xff" + b".", "storages of 0 elements"),
    "a codec of quadratic time": (b"c_codecs\nencode\nX\x01\0\0\0aX\x08\0\0\0punycode\x86R.", "encodes a text"),
    "a tensor of a class": (b"ctorch\nFloatTensor\nM\xff\xff\x85R.", "a FloatTensor out of nothing"),
    "negative strides": (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE % b"K\x02" + b"K\0K\x02\x85J\xff\xff\xff\xff\x85tR.",
        "not given by numbers",
    ),
    "a state past its storage": (
        b"ctorch\nTensor\n" + b"(" + STORAGE % b"K\x02" + b"K\0K\x09\x85K\x01\x85tb.",
        r"a tensor of shape \[9\] in a storage of 2",
    ),
}


@pytest.mark.parametrize("steps, expected", STEPS.values(), ids=STEPS)
def test_a_pickle_is_refused_for(steps: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(HEAD + steps)
    with pytest.raises(ValueError, match=expected):
        check_torch_file(tmp_path / "m.bin")


def test_keys_that_together_take_too_long_are_refused(tmp_path: Path) -> None:
    """Each key is within the limit, but they are hashed again and again."""
    key = b"K\x01" + b"q\0h\0\x86" * 9 + b"q\0"
    (tmp_path / "m.bin").write_bytes(HEAD + key + b"}h\0Ns" * 3000 + b".")
    with pytest.raises(ValueError, match="takes more steps than"):
        check_torch_file(tmp_path / "m.bin")
