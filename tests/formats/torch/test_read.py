"""PyTorch files: both formats are read, only tensors are loaded, and nothing in them is run."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nezha_convert import convert
from nezha_convert.checkpoint import Origin, TensorEntry
from nezha_convert.errors import CheckpointError, UsageError
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.formats.torch.containers import is_pickle
from nezha_convert.formats.torch.read import read_torch

FIXTURES = Path(__file__).parents[3] / "fixtures"
FORMATS = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])


def save(value: Any, path: Path, is_zip: bool) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=is_zip)
    assert (path.read_bytes()[:2] == b"PK") == is_zip
    return path


def read(*files: Path) -> dict[str, TensorEntry]:
    return read_torch(files)[0]


TENSORS = {
    "float32": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "bfloat16": torch.tensor([1.5, float("nan"), -0.0]).bfloat16(),
    "float16": torch.tensor([[0.1, float("inf")]]).half(),
    "float64": torch.rand(3, dtype=torch.float64),
    "int64": torch.tensor([1, -(2**62)]),
    "bool": torch.tensor([True, False]),
    "scalar": torch.tensor(3.5),
    "scalar bfloat16": torch.tensor(3.5).bfloat16(),
    "empty": torch.empty(0, 4),
    "not contiguous": torch.arange(12.0).reshape(3, 4).t(),
    "not contiguous bfloat16": torch.arange(12.0).reshape(3, 4).bfloat16().t(),
    "a slice": torch.arange(12.0).reshape(3, 4)[1:, ::2],
    "a parameter": torch.nn.Parameter(torch.ones(2)),
    "a bfloat16 parameter": torch.nn.Parameter(torch.ones(2).bfloat16()),
    "an expanded tensor": torch.tensor([3.0]).expand(5),
    "an eight-bit float": torch.arange(6.0).to(torch.float8_e4m3fn),
    "an eight-bit float scalar": torch.tensor(1.0).to(torch.float8_e5m2),
    "uint16": torch.tensor([1, 65535], dtype=torch.uint16),
    "complex": torch.ones(2, dtype=torch.complex64),
}


@FORMATS
@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_is_read_as_torch_holds_it(name: str, is_zip: bool, tmp_path: Path) -> None:
    tensor = TENSORS[name].detach()
    found = read(save({name: TENSORS[name]}, tmp_path / "m.bin", is_zip))[name]
    assert f"torch.{found.dtype}" == str(tensor.dtype)
    assert (found.name, found.shape) == (name, tuple(tensor.shape))
    assert found.nbytes == tensor.numel() * tensor.element_size()
    wanted = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()  # also where NumPy lacks the type
    assert found.read().tobytes() == wanted
    assert b"".join(np.ascontiguousarray(block).tobytes() for block in found.blocks(5)) == wanted


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("*/*.bin")), ids=lambda path: path.parent.name)
def test_every_tensor_of_the_original_files_is_read(file: Path) -> None:
    arrays = {name: tensor.read() for name, tensor in read(file).items()}
    loaded = torch.load(file, weights_only=True)
    assert arrays.keys() == loaded.keys()
    assert all(np.array_equal(arrays[name], loaded[name].numpy()) for name in loaded)


def test_the_fixtures_hold_both_formats() -> None:
    assert {file.read_bytes()[:2] == b"PK" for file in FIXTURES.glob("huawei-torch-*/*.bin")} == {True, False}


@FORMATS
def test_neither_torch_nor_a_memory_map_is_needed(
    is_zip: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save({"w": torch.ones(2, 3), "v": torch.ones(3, 2).T}, tmp_path / "m.bin", is_zip)
    monkeypatch.setattr(torch, "load", None)
    monkeypatch.setattr(np, "memmap", None)
    assert [entry.read().tolist() for entry in read(file).values()] == [[[1, 1, 1], [1, 1, 1]]] * 2


def test_shared_tensors_keep_both_names(tmp_path: Path) -> None:
    shared = torch.ones(2, 2)
    assert read(save({"a": shared, "b": shared}, tmp_path / "m.bin", True)).keys() == {"a", "b"}


def test_an_ordered_state_dict_with_its_metadata_is_read(tmp_path: Path) -> None:
    state = torch.nn.Linear(2, 3).state_dict()
    assert isinstance(state, OrderedDict)
    assert hasattr(state, "_metadata")
    assert list(read(save(state, tmp_path / "m.bin", True))) == ["weight", "bias"]


def test_several_files_are_one_checkpoint_in_their_order(tmp_path: Path) -> None:
    files = [save({name: torch.ones(2)}, tmp_path / f"{name}.bin", True) for name in "ba"]
    entries = read(*files)
    assert sorted(entries, key=lambda name: entries[name].position) == ["b", "a"]


def test_a_name_in_two_files_is_refused(tmp_path: Path) -> None:
    files = [save({"same": torch.ones(2)}, tmp_path / f"{number}.bin", True) for number in range(2)]
    with pytest.raises(CheckpointError, match=r"1\.bin: 'same' is in another shard too"):
        read(*files)


# Files that want something run


class Hostile:
    """Runs a command when plain pickle loads it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@FORMATS
def test_an_object_that_wants_a_command_run_is_stepped_over_and_named(is_zip: bool, tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    file = save({"w": torch.ones(2, 2), "x": Hostile(f"touch '{mark}'")}, tmp_path / "m.bin", is_zip)
    contents = read_torch((file,))
    assert list(contents.entries) == ["w"]
    assert {decision.field: decision.value for decision in contents.decisions}["stepped over"] == f"{os.name}.system"
    assert not mark.exists()
    torch.load(file, weights_only=False)
    assert mark.exists()  # so the file does run the command when plain pickle loads it


@FORMATS
def test_a_file_of_nothing_but_a_command_is_refused_and_does_not_run_it(is_zip: bool, tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    file = save(Hostile(f"touch '{mark}'"), tmp_path / "m.bin", is_zip)
    with pytest.raises(CheckpointError, match=r"m\.bin: holds a posix\.system.*Nothing in it was run") as caught:
        read(file)
    assert not mark.exists()
    assert caught.value.exit_code == 3


def test_a_plain_pickle_is_not_run_either(tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    (tmp_path / "m.bin").write_bytes(pickle.dumps(Hostile(f"touch '{mark}'")))
    with pytest.raises(CheckpointError, match=r"m\.bin"):
        read(tmp_path / "m.bin")
    assert not mark.exists()


@FORMATS
def test_a_whole_pickled_model_gives_its_state_dict(is_zip: bool, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    model.register_buffer("passing", torch.ones(2, 2), persistent=False)
    entries, (decision,), _ = read_torch((save(model, tmp_path / "m.pth", is_zip),))
    assert {name: entry.read().tolist() for name, entry in entries.items()} == {
        name: tensor.tolist() for name, tensor in model.state_dict().items()
    }
    assert decision.field == "stepped over"
    assert "torch.nn.modules.linear.Linear" in decision.value


# Damaged files


@FORMATS
def test_a_file_cut_short_is_refused(is_zip: bool, tmp_path: Path) -> None:
    file = save({"w": torch.ones(40), "v": torch.ones(3)}, tmp_path / "m.bin", is_zip)
    whole = file.read_bytes()
    for length in (*range(0, len(whole), 97), len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"m\.bin") as caught:
            read(file)
        assert "\n" not in str(caught.value)


@FORMATS
def test_no_damage_raises_anything_but_a_checkpoint_error(is_zip: bool, tmp_path: Path) -> None:
    file = save({"w": torch.ones(8), "v": torch.ones(3)}, tmp_path / "m.bin", is_zip)
    whole = file.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for position in random.integers(len(whole), size=3):
            damaged[position] ^= 1 << random.integers(8)
        file.write_bytes(damaged)
        try:
            for tensor in read(file).values():
                tensor.read()
        except CheckpointError as error:
            assert "m.bin" in str(error)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"hello", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(100)])
def test_bytes_that_are_no_torch_file_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"m\.bin"):
        read(tmp_path / "m.bin")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no\.bin"):
        read(tmp_path / "no.bin")


# Sound files that are no state dict

OTHERS = {
    "a list": ([torch.ones(2)], "holds a list"),
    "a tensor": (torch.ones(2), "holds a tensor"),
    "nothing": ({}, "an empty dictionary"),
    "a nested dictionary": ({"model": {"w": torch.ones(2)}}, "'model' is a dictionary"),
    "numbers among the tensors": ({"w": torch.ones(2), "epoch": 3}, "'epoch' is a int"),
    "tuples for names": ({((1,) * 9, "x" * 99): torch.ones(2)}, r"\(\(1, 1, 1, 1, 1, 1, \.\.\.\), 'x+\.\.\.x+'\) is a"),
    "numbers for names": ({3: torch.ones(2)}, "3 is a tensor"),
    "a sparse tensor": ({"w": torch.eye(3).to_sparse()}, "'w' is a tensor that is not plain and dense"),
    "a conjugate": ({"w": torch.ones(2, dtype=torch.complex64).conj()}, "'w' is a tensor that is not plain and dense"),
}


@pytest.mark.parametrize("value, expected", OTHERS.values(), ids=OTHERS)
def test_what_is_no_flat_dictionary_of_plain_tensors_is_refused(value: Any, expected: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=expected) as caught:
        read(save(value, tmp_path / "m.bin", True))
    assert "m.bin" in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_a_quantized_tensor_is_refused(tmp_path: Path) -> None:
    quantized = torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)
    with pytest.raises(CheckpointError, match=r"m\.bin"):
        read(save({"w": quantized}, tmp_path / "m.bin", True))


def test_a_tensor_on_no_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="'w' is a tensor that is not plain and dense"):
        read(save({"w": torch.empty(3, device="meta")}, tmp_path / "m.bin", True))


# Files that hold more than a model

MODEL = {"bert.w": torch.arange(6.0).reshape(2, 3), "bert.b": torch.ones(3)}
OPTIMIZER = {
    "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2, 3)}},
    "param_groups": [{"lr": 1e-4, "params": [0, 1]}],
}
LIGHTNING = {
    "epoch": 3,
    "global_step": 120,
    "pytorch-lightning_version": "1.9.5",
    "state_dict": MODEL,
    "loops": {"fit_loop": {"state_dict": {"seen": torch.ones(2, 2)}}},
    "optimizer_states": [OPTIMIZER],
    "lr_schedulers": [{"last_epoch": 3}],
    "hyper_parameters": {"lr": 1e-4, "name": "nezha"},
}
WRAPPED = {
    "Lightning's": (LIGHTNING, "state_dict"),
    "a training loop's": ({"epoch": 1, "model": MODEL, "optimizer": OPTIMIZER, "loss": torch.tensor(0.5)}, "model"),
    "an optimizer's states by name": ({"model": MODEL, "optim": {"bert.w": {"exp_avg": torch.ones(2, 3)}}}, "model"),
    "alone under a key": ({"model_state_dict": MODEL}, "model_state_dict"),
    "twice": ({"net": {"module": MODEL, "version": 2}, "step": 5}, "net.module"),
    "beside vectors": ({"module": MODEL, "class_weights": {"w": torch.ones(3)}}, "module"),
}


@FORMATS
@pytest.mark.parametrize("saved, key", WRAPPED.values(), ids=WRAPPED)
def test_the_only_dictionary_of_tensors_is_taken_and_its_key_said(
    saved: dict[str, Any], key: str, is_zip: bool, tmp_path: Path
) -> None:
    entries, (decision,), _ = read_torch((save(saved, tmp_path / "m.ckpt", is_zip),))
    assert {name: entry.read().tolist() for name, entry in entries.items()} == {k: v.tolist() for k, v in MODEL.items()}
    assert (decision.field, decision.value) == ("tensors read from", key)
    others = [name for name in saved if name != key.split(".")[0]]
    assert all(name in decision.reason for name in others)
    assert others or "nothing else" in decision.reason


def test_a_file_of_tensors_alone_is_decided_nothing_about(tmp_path: Path) -> None:
    assert read_torch((save(MODEL, tmp_path / "m.bin", True),))[1] == ()


def test_several_dictionaries_are_listed_and_not_guessed_between(tmp_path: Path) -> None:
    file = save({"model": MODEL, "ema": {"shadow": MODEL}, "epoch": 1}, tmp_path / "m.pth", True)
    listed = r"m\.pth.*model \(2 tensors\), ema\.shadow \(2 tensors, a moving average\)"
    with pytest.raises(UsageError, match=listed) as caught:
        read(file)
    assert caught.value.ways == (("--part", "model"), ("--average",))
    with pytest.raises(UsageError, match=r"none of them at 'student': model \(2"):
        read_torch((file,), "student")


@pytest.mark.parametrize(
    "saved", [{"state_dict": {**MODEL, "step": 3}, "ema": MODEL}, [MODEL, {"ema": MODEL}]], ids=type
)
def test_the_part_that_is_asked_for_is_read(saved: Any, tmp_path: Path) -> None:
    part = "ema" if isinstance(saved, dict) else "1.ema"
    entries, (average, decision), _ = read_torch((save(saved, tmp_path / "m.pth", True),), part)
    assert entries.keys() == MODEL.keys()
    assert (average.field, average.value, average.origin) == ("average", part, Origin.ASKED)
    assert (decision.value, decision.origin) == (part, Origin.ASKED)


NUMBERED = {**MODEL, "step": 3, "note": "best", "score": None}
MODELS = {
    "a model with a number, and a clean average": {"state_dict": NUMBERED, "ema": MODEL},
    "a clean model, and an average with a number": {"model": MODEL, "ema": NUMBERED},
    "both with a number": {"model": NUMBERED, "ema": NUMBERED},
    "tensors at the top, and an average": {**MODEL, "v": torch.ones(2, 2), "ema": MODEL},
}


@FORMATS
@pytest.mark.parametrize("saved", MODELS.values(), ids=MODELS)
def test_of_two_models_none_is_taken_for_being_free_of_numbers(
    saved: dict[str, Any], is_zip: bool, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="2 dictionaries of tensors"):
        read(save(saved, tmp_path / "m.pth", is_zip))


@pytest.mark.parametrize("saved", [NUMBERED, {"model": NUMBERED}, {"model": NUMBERED, "centre": torch.ones(2, 2)}])
def test_numbers_beside_a_model_s_tensors_are_left_out_and_named(saved: dict[str, Any], tmp_path: Path) -> None:
    entries, (decision,), _ = read_torch((save(saved, tmp_path / "m.pth", True),))
    assert entries.keys() == MODEL.keys()
    assert all(f"'{name}'" in decision.reason for name in ("step", "note", "score"))
    assert "centre" not in saved or "'centre'" in decision.reason


# Storages that are not as the pickle says. torch.load(mmap=True) does not look.


def repacked(file: Path, *, number: int = 0, cut: int = 0, method: int = zipfile.ZIP_STORED, **more: bytes) -> None:
    """Write the zip file again, with storage `number` shorter, longer or compressed, and with `more` members."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(members)).partition("/")[0]
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in {**members, **{f"{root}/{name}": data for name, data in more.items()}}.items():
            chosen = name == f"{root}/data/{number}"
            archive.writestr(name, (data + bytes(8))[: len(data) - cut] if chosen else data, method if chosen else None)


LARGE = {"w": torch.rand(24, 64), "v": torch.rand(8)}


@pytest.mark.parametrize("cut", [1, 8, 4096, -8])
def test_a_record_that_is_not_as_long_as_its_storage_is_refused(cut: int, tmp_path: Path) -> None:
    file = save(LARGE, tmp_path / "m.bin", True)
    repacked(file, cut=cut)
    with pytest.raises(CheckpointError, match=r"record m/data/0 has [\d,]+ bytes, expected 6,144"):
        read(file)
    with pytest.raises(RuntimeError, match="record size"):
        torch.load(file, weights_only=True, mmap=False)


@pytest.mark.parametrize("number", [0, 1])
def test_a_compressed_record_is_read_as_torch_reads_it(number: int, tmp_path: Path) -> None:
    file = save(LARGE, tmp_path / "m.bin", True)
    repacked(file, number=number, method=zipfile.ZIP_DEFLATED)
    assert {name: entry.read().tolist() for name, entry in read(file).items()} == {
        name: tensor.tolist() for name, tensor in LARGE.items()
    }


def test_a_file_that_was_packed_by_a_zip_program_is_read(tmp_path: Path) -> None:
    file = save(LARGE, tmp_path / "m.bin", True)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    assert read(file)["w"].read().tolist() == LARGE["w"].tolist()


def test_a_big_endian_file_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    file = save({"w": torch.arange(8.0).reshape(2, 4), "i": torch.arange(3)}, tmp_path / "m.bin", True)
    repacked(file, byteorder=b"big")
    loaded = torch.load(file, weights_only=True, mmap=False)
    entries = read(file)
    assert all(entries[name].read().tobytes() == tensor.numpy().tobytes() for name, tensor in loaded.items())
    assert loaded["w"][0, 1] != 1


def test_a_record_twice_is_refused(tmp_path: Path) -> None:
    file = save(LARGE, tmp_path / "m.bin", True)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("M/DATA/0", bytes(6144))
    with pytest.raises(CheckpointError, match="two of its members have the same name"):
        read(file)


def test_a_record_that_is_marked_as_a_folder_is_refused(tmp_path: Path) -> None:
    file = save(LARGE, tmp_path / "m.bin", True)
    data = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        at = data.index(b"m/data/0", archive.start_dir)
    data[at - 8 : at - 4] = (0x10).to_bytes(4, "little")
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="marked as a folder"):
        read(file)


def test_a_legacy_file_that_lacks_a_storage_is_refused(tmp_path: Path) -> None:
    file = save({"w": torch.rand(4, 4), "v": torch.rand(4)}, tmp_path / "m.bin", False)
    data = file.read_bytes()
    at = data.rindex(b"\x80\x02]")  # the list of the storages' keys, before their data
    keys = pickle.loads(data[at:])
    end = at + data[at:].index(b".") + 1
    sizes = {key: int.from_bytes(data[end : end + 8], "little") for key in keys[:1]}
    (size,) = sizes.values()
    file.write_bytes(data[:at] + pickle.dumps(keys[:1], 2) + data[end : end + 8 + 4 * size])
    torch.load(file, weights_only=True)  # torch gives it memory that nothing has filled
    with pytest.raises(CheckpointError, match=f"does not hold storage '{keys[1]}'"):
        read(file)


# Values that hide what they are


class Dressed(OrderedDict[str, Any]):
    """Is pickled as an OrderedDict with an attribute `items`."""

    def __reduce__(self) -> Any:
        return OrderedDict, (), {"items": 3, "keys": 1, "values": 2}, None, iter(dict.items(self))


@FORMATS
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_dictionary_whose_attributes_hide_its_methods_is_read(wrapped: bool, is_zip: bool, tmp_path: Path) -> None:
    model = Dressed(MODEL)
    file = save({"model": model, "step": 3} if wrapped else model, tmp_path / "m.bin", is_zip)
    assert read(file).keys() == MODEL.keys()


@FORMATS
def test_a_tensor_whose_attributes_hide_its_methods_is_read(is_zip: bool, tmp_path: Path) -> None:
    tensor = torch.ones(2, 2)
    tensor.__dict__.update(dim=3, detach=4, view=5, numpy=6)
    assert read(save({"w": tensor}, tmp_path / "m.bin", is_zip))["w"].read().tolist() == [[1, 1], [1, 1]]


@FORMATS
def test_a_tensor_of_more_dimensions_than_numpy_has_is_refused(is_zip: bool, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="'w' has a shape that no array has: 65 dimensions"):
        read(save({"w": torch.ones((1,) * 65)}, tmp_path / "m.bin", is_zip))


def test_a_dictionary_too_deep_is_not_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="'a' is a dictionary"):
        read(save({"a": {"b": {"c": {"d": MODEL}}}}, tmp_path / "m.pth", True))


def test_lightning_s_file_converts_and_the_report_says_what_was_left(tmp_path: Path) -> None:
    source = FIXTURES / "huawei-torch-pretraining"
    state = torch.load(source / "pytorch_model.bin", weights_only=True)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bert_config.json").write_bytes((source / "bert_config.json").read_bytes())
    wrapped = {f"model.{name}": tensor for name, tensor in state.items()}
    save(LIGHTNING | {"state_dict": wrapped}, tmp_path / "in" / "epoch=3.ckpt", True)
    report = convert(tmp_path / "in", tmp_path / "out")
    assert report.head == "pretraining"
    decided = {decision.field: decision for decision in report.decisions}
    assert decided["tensors read from"].value == "state_dict"
    assert "optimizer_states" in decided["tensors read from"].reason
    assert decided["prefix"].value == "model."


def test_names_are_plain_texts_which_any_program_may_pickle(tmp_path: Path) -> None:
    """A text that knows its place in the file would be pickled as an object of ours."""
    torch.save({"bert.a.weight": torch.ones(2)}, tmp_path / "model.bin")
    entries = open_checkpoint(tmp_path / "model.bin").entries
    assert [type(name) for name in entries] == [str]
    assert [type(entry.name) for entry in entries.values()] == [str]


@pytest.mark.parametrize("protocol", [0, 1])
@pytest.mark.parametrize("content", [{"a": np.ones((2, 3))}, OrderedDict(a=torch.ones(2, 3))], ids=["plain", "ordered"])
def test_an_old_pickle_of_any_name_is_known_by_its_first_bytes(content: Any, protocol: int, tmp_path: Path) -> None:
    (tmp_path / "model.old").write_bytes(pickle.dumps(content, protocol))
    assert open_checkpoint(tmp_path / "model.old").entries["a"].shape == (2, 3)
    for text in (b"cat\ndog\npie\n", b"(d\n.", b"", b"}", b"cat\ndog\np1\nend"):
        (tmp_path / "vocab").write_bytes(text)
        assert not is_pickle(tmp_path / "vocab")


def test_a_legacy_file_of_protocol_1_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2, 3)}, tmp_path / "m.bin", pickle_protocol=1, _use_new_zipfile_serialization=False)
    assert is_pickle(tmp_path / "m.bin")
    assert read(tmp_path / "m.bin")["a"].read().tolist() == [[1, 1, 1]] * 2
