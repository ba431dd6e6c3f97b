"""Hostile pickles run nothing, cost no more than their size may, and end in an error or in right tensors."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import signal
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import hostile

from nezha_convert.commands.inspect import inspect
from nezha_convert.errors import CheckpointError, NezhaConvertError
from nezha_convert.formats.torch.read import read_torch
from nezha_convert.parity.again import torch_file

FILES = hostile.files()
EACH = pytest.mark.parametrize("name", FILES)
ROOM = 512 << 20
"""Bytes of addresses that a reader may ask for."""

WRONG = {
    "zip-storage-whose-key-leads-out": "KeyError",
    "zip-keys-with-one-hash": "a number of 61 bits in a key",
    "zip-pairs-with-a-deep-key": "a key of more than 32 parts",
    "zip-texts-and-pairs-with-a-deep-key": "a dictionary that is not made of pairs",
    "zip-memory-at-2-to-the-32": "a place in the memory far behind all others",
    "zip-frame-of-terabytes": "a frame of 4,398,046,511,104 bytes",
    "zip-tensor-with-a-list-of-sizes": "an array whose shape is not a tuple of sizes",
    "zip-conjugate-tensor-past-its-storage": "in a storage of 6 elements",
    "zip-subclass-with-a-list-of-arguments": "a call whose arguments are not a tuple",
    "zip-module-in-itself": "a pickled module holds itself",
    "zip-modules-of-2-to-the-60-tensors": "its objects hold each other so often",
    "zip-module-with-names-of-kilobytes": "its objects hold each other so often",
    "zip-text-of-half-a-pair": "half of a surrogate pair",
    "zip-member-of-bzip2": "two headers of 'm/data/0' differ",
    "zip-member-encrypted": "encrypted or compressed in another way",
    "tar-with-a-negative-length": "a member of negative length",
    "tar-with-a-key-of-2-to-the-60-parts": "a key of more than 32 parts",
    "zip-build-on-a-function": "a state for a Name",
    "zip-build-on-a-storage": "a state for a Storage",
    "zip-build-on-a-parameter": r"a tensor of shape \[2147483647\] in a storage of 6 elements",
    "zip-call-of-a-call-of-a-call": "a call that makes a call that makes a call",
    "zip-new-objects-of-new-objects": "a call that makes a call that makes a call",
    "zip-call-with-a-list-of-arguments": "a call whose arguments are not a tuple",
    "zip-instances-of-tensors": r"a tensor of shape \[2147483647\] in a storage of 6 elements",
    "zip-storage-described-twice": "storage '0' described in two ways",
    "zip-storage-larger-than-its-record": "has 20 bytes, expected 24",
    "zip-storage-with-a-view": "a view of a storage",
    "zip-storage-in-a-storage": "a storage without a class",
    "zip-memory-at-a-negative-place": "a place in the memory far behind all others",
    "zip-array-of-a-buffer-out-of-band": "step .* which no pickle has",
    "zip64-record-of-terabytes": "its members reach past its end",
    "zip64-record-over-the-pickle": "two headers of 'm/data/0' differ",
    "zip64-field-cut-short": "BadZipFile",
    "bare-array-of-a-type-that-is-evaluated": "which NumPy does not have",
    "bare-array-of-many-dimensions": "whose shape is not a tuple of sizes",
    "bare-joblib-of-objects": "an array of joblib of type 'O8'",
    "bare-joblib-of-a-text-of-gigabytes": "whose shape is not a tuple of sizes",
    "bare-joblib-of-terabytes": "bytes declared at offset",
}
"""Why some of them are refused. Of the others that are read, the tensor beside the hostile object is right."""


@pytest.mark.parametrize("name", WRONG)
def test_the_refusal_says_what_is_wrong(name: str, tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(FILES[name])
    with pytest.raises(CheckpointError, match=WRONG[name]):
        read_torch((tmp_path / "m.bin",))


@EACH
def test_what_is_read_beside_a_hostile_object_is_right(name: str, tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(FILES[name])
    try:
        entries = read_torch((tmp_path / "m.bin",)).entries
    except NezhaConvertError as error:
        assert error.message
        return
    if name.startswith("zip"):
        np.testing.assert_array_equal(entries["w"].read(), np.arange(6, dtype="f4").reshape(2, 3))


def _reads(file: Path) -> list[Callable[[], Any]]:
    return [
        lambda: torch_file.read_torch(file, None),
        lambda: torch_file.config_in(file),
        lambda: json.dumps(inspect(str(file)).to_dict(), allow_nan=False).encode(),
    ]


def test_the_second_reader_and_inspect_end_in_an_error_of_ours_or_not_at_all(tmp_path: Path) -> None:
    """In a fork whose memory and time are limited. It writes the name of each file before it reads it."""
    import torch  # noqa: F401  (before the limit)

    log, file = tmp_path / "log", tmp_path / "m.bin"
    child = os.fork()
    if not child:
        with open(log, "w") as out:
            for name, data in FILES.items():
                print(name, end="", file=out, flush=True)
                signal.setitimer(signal.ITIMER_PROF, 20)  # of the processor's time
                file.write_bytes(data)
                size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, resource.RLIM_INFINITY))
                for read in _reads(file):
                    print(_outcome(read), end="", file=out, flush=True)
                print(file=out, flush=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    lines = log.read_text().splitlines()
    assert os.waitstatus_to_exitcode(status) == 0, lines[-1]
    assert lines == list(FILES)


def _outcome(read: Callable[[], Any]) -> str:
    """Nothing, if it reads or refuses the file in a second."""
    begun = time.process_time()
    try:
        read()
    except NezhaConvertError:
        pass
    except BaseException as error:
        return f": {type(error).__name__}: {error}"
    return ": slow" if time.process_time() - begun > 1 else ""


def test_nothing_that_a_hostile_file_names_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(os, "system", called.append)
    wanting, file = [data for data in FILES.values() if b"cos\nsystem" in data], tmp_path / "m.bin"
    for data in wanting:
        file.write_bytes(data)
        with contextlib.suppress(NezhaConvertError):
            read_torch((file,))
        with contextlib.suppress(NezhaConvertError):
            torch_file.config_in(file)
    assert called == [] and len(wanting) > 15


def _torch_storage(content: bytes) -> bytes:
    """A tensor as Python pickles it, whose storage is this file."""
    inner = hostile.sized(b"B", "<I", len(content), content)
    return b"\x80\x03}(X\x01\0\0\0wctorch.storage\n_load_from_bytes\n" + inner + b"\x85Ru."


BESIDE_THE_FORMAT = {
    "compressed by joblib": (b"x\x9c" + bytes(40), "compressed data"),
    "bytes in a middle order": (hostile.zipped(hostile.state(), order=b"middle"), "in the order b'middle'"),
    "a legacy file of another version": (
        hostile.legacy(hostile.state()).replace(b"M\xe9\x03.", b"M\xea\x03."),
        "another version than those of PyTorch's files",
    ),
    "bytes that are no torch file": (_torch_storage(pickle.dumps(3, 2)), "a tensor without a storage"),
    "views of storages in a tar": (
        hostile.tar(pickle.dumps(0, 2) + pickle.dumps([1], 2)),
        "views of storages, which torch has not written since 2018",
    ),
    "a tar's tensor of 99 dimensions": (
        hostile.tar(
            pickle.dumps(0, 2) + pickle.dumps([], 2),
            pickle.dumps(1, 2) + pickle.dumps((1, 2, None), 2) + struct.pack("<i4x", 99),
        ),
        "a tensor of 99 dimensions",
    ),
    "an array whose axes are in another order": (
        b"\x80\x05}(X\x01\0\0\0wcnumpy._core.numeric\n_frombuffer\n(C\x04abcd" + hostile.TYPE + b"K\x01\x85"
        + hostile.text("A") + b"tRu.",
        "axes are stored in another order",
    ),
    "a tensor that begins nowhere": (
        hostile.zipped(hostile.state(hostile.SOUND.replace(b"K\x00K\x02K\x03", b"NK\x02K\x03"))),
        "not given by numbers",
    ),
    "an array of joblib without a type": (
        b"\x80\x02}" + hostile.text("a") + hostile.joblib(b"K\x02\x85", b"N") + b"s.",
        "an array of joblib without a type",
    ),
    "an array of 999 dimensions": (
        b"\x80\x02}" + hostile.text("a") + hostile.array(b"(" + b"K\x01" * 999 + b"t") + b"s.",
        "an array of 999 dimensions",
    ),
}  # fmt: skip


@pytest.mark.parametrize("data, reason", BESIDE_THE_FORMAT.values(), ids=BESIDE_THE_FORMAT)
def test_what_no_writer_writes_is_refused_by_its_name(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(data)
    with pytest.raises(CheckpointError, match=reason):
        read_torch((tmp_path / "m.bin",))


def test_a_deflated_record_that_is_damaged_is_refused_when_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "m.bin"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (("data.pkl", hostile.state()), ("data/0", struct.pack("<6f", *range(6)))):
            archive.writestr(f"m/{name}", content)
    at = file.read_bytes().index(b"m/data/0") + len(b"m/data/0")
    file.write_bytes(file.read_bytes()[:at] + b"\xff" + file.read_bytes()[at + 1 :])
    with pytest.raises(CheckpointError, match="m/data/0 cannot be unpacked"):
        read_torch((file,)).entries["w"].read()


def test_empty_sets_and_sizes_are_what_they_are(tmp_path: Path) -> None:
    beside = b"cbuiltins\nset\n)R", b"ctorch\nSize\n)R", b"cbuiltins\ntuple\n)R", b"c__builtin__\nfrozenset\n)R"
    (tmp_path / "m.bin").write_bytes(hostile.zipped(hostile.state(*beside)))
    assert list(read_torch((tmp_path / "m.bin",)).entries) == ["w"]
