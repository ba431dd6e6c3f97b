"""A source that is changed while it is read is noticed, by every reader and by the conversion."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from goldens import FIXTURES
from mindspore_files import value
from safetensors.numpy import save_file
from v1_tables import v1_table

from nezha_convert import convert
from nezha_convert.commands import convert as conversion
from nezha_convert.errors import CheckpointError
from nezha_convert.formats.open import open_checkpoint

OTHERS = ("mindspore", "tensorflow v1", "tensorflow packed")
ARRAYS = {"x": np.arange(64, dtype="f4").reshape(16, 4), "y": np.ones((3, 3), "f4")}


def written(folder: Path, kind: str) -> Path:
    """A checkpoint of `ARRAYS`."""
    if kind == "keras":
        h5py = pytest.importorskip("h5py", reason="the extra keras is not installed")
        file = folder / "m.h5"
        with h5py.File(file, "w") as root:
            root.attrs["layer_names"] = [b"a"]
            group = root.create_group("a")
            group.attrs["weight_names"] = [name.encode() for name in ARRAYS]
            for name, array in ARRAYS.items():
                group.create_dataset(name, data=array)
        return file
    if kind == "safetensors":
        save_file(ARRAYS, folder / "m.safetensors")
        return folder / "m.safetensors"
    if kind.startswith("paddle"):
        file = folder / "m.pdparams"
        file.write_bytes(pickle.dumps(ARRAYS, int(kind[-1])))
        return file
    if kind == "mindspore":
        (folder / "m.ckpt").write_bytes(b"".join(value(name, array) for name, array in ARRAYS.items()))
        return folder / "m.ckpt"
    if kind.startswith("tensorflow"):
        (folder / "m.ckpt-1").write_bytes(v1_table(ARRAYS, snappy=kind == "tensorflow packed"))
        return folder / "m.ckpt-1"
    tensors = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    torch.save(tensors, folder / "m.bin", _use_new_zipfile_serialization=kind == "torch zip")
    return folder / "m.bin"


def replaced(file: Path) -> None:
    """By another of the same bytes, as a download does that starts anew."""
    shutil.copyfile(file, file.with_suffix(".new"))
    file.with_suffix(".new").replace(file)


CHANGES: dict[str, Callable[[Path], object]] = {
    "written to": lambda file: os.utime(file, ns=(0, 0)),
    "cut short": lambda file: os.truncate(file, 100),
    "grown": lambda file: os.truncate(file, file.stat().st_size + 1),
    "replaced": replaced,
    "removed": lambda file: file.unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["torch zip", "torch legacy", "paddle 2", "paddle 4", "keras", "safetensors", *OTHERS])
def test_a_file_that_changes_between_two_blocks_or_tensors_is_noticed(kind: str, change: str, tmp_path: Path) -> None:
    file = written(tmp_path, kind)
    entries = list(open_checkpoint(file).entries.values())
    stream = entries[0].blocks(16)
    assert len(next(stream)) and [entry.read().size for entry in entries]  # unchanged, it is read
    CHANGES[change](file)
    if change not in ("replaced", "removed"):  # one that is open stays what it was
        with pytest.raises(CheckpointError, match="changed meanwhile"):
            list(stream)
    for entry in entries:
        with pytest.raises(CheckpointError, match=r"changed meanwhile|cannot be read \(No such file"):
            entry.read()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["bert_config.json", "vocab.txt", "labels.txt", "model.ckpt-12345.index"])
def test_a_file_that_changes_while_its_tensors_are_converted_is_noticed(
    name: str, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the hashes in the report are of the bytes that were converted."""
    source = Path(shutil.copytree(FIXTURES / "huawei-tf-ner", tmp_path / "source"))
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(chr(0x4E00 + i) for i in range(59))]
    (source / "vocab.txt").write_text("\n".join(lines) + "\n", "utf-8")
    labels = open_checkpoint(source).entries["output_weights"].shape[0]
    (source / "labels.txt").write_text("".join(f"label {i}\n" for i in range(labels)))
    file = source / name if (source / name).exists() else next(source.glob("*.index"))
    write_weights = conversion.write_weights

    def late(*arguments: object) -> dict[Path, str]:
        CHANGES[change](file)
        return write_weights(*arguments)

    monkeypatch.setattr(conversion, "write_weights", late)
    with pytest.raises(CheckpointError, match=r"changed meanwhile|it went while"):
        convert(source, tmp_path / "out", head="token-classification")
    assert {path.name for path in tmp_path.iterdir()} == {"source"}
