"""Whole modules, and models beside objects of other programs, in every container: equal to what these load."""

from __future__ import annotations

import copy
import datetime
import enum
import io
import pickle
import sys
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from fuzz import hostile
from torch import nn

from nezha_convert.formats.torch.read import read_torch
from nezha_convert.parity.again import torch_file

Values = dict[str, np.ndarray]


class Net(nn.Module):
    """With all that a module may hold: a config, tied and frozen parameters, both kinds of buffers, lists of them."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Namespace(hidden_size=4, num_attention_heads=2, num_hidden_layers=1, labels={0: "a", 1: "b"})
        self.embeddings = nn.Embedding(5, 4, padding_idx=0)
        self.decoder = nn.Linear(4, 5, bias=False)
        self.decoder.weight = self.embeddings.weight
        self.norm = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.LayerNorm(4))
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(2)), nn.Parameter(torch.randn(3, 2).half())])
        self.named = nn.ParameterDict({"x": nn.Parameter(torch.randn(2, dtype=torch.bfloat16), requires_grad=False)})
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 2), "b": nn.ModuleList([nn.Linear(2, 2)])})
        self.register_buffer("ids", torch.arange(6).view(2, 3).T)
        self.register_buffer("mask", torch.ones(3), persistent=False)
        self.register_buffer("nothing", None)
        self.register_parameter("bias", None)
        self.steps, self.loss = defaultdict(list), nn.CrossEntropyLoss(weight=torch.ones(5))


def net() -> Net:
    torch.manual_seed(0)
    return Net()


MODULES: dict[str, Callable[[], nn.Module]] = {
    "a module": net,
    "DataParallel": lambda: nn.DataParallel(net()),
    "AveragedModel": lambda: torch.optim.swa_utils.AveragedModel(net()),
    "a weight norm": lambda: nn.utils.weight_norm(nn.Linear(3, 2)),
    "a recurrent one": lambda: nn.LSTM(2, 3, bidirectional=True),
}  # fmt: skip


def plain(value: Any) -> np.ndarray:
    """The bytes of a tensor or array, in the order of C, and its shape and type."""
    if isinstance(value, torch.Tensor):
        value = value.detach().contiguous()
        raw = value.reshape(-1).view(torch.uint8).numpy().tobytes()
        return np.array([str(value.dtype).removeprefix("torch."), str(tuple(value.shape)), raw.hex()])
    array = np.ascontiguousarray(value, value.dtype.newbyteorder("=")).reshape(np.shape(value))
    return np.array([array.dtype.name, str(array.shape), array.tobytes().hex()])


def assert_reads(file: Path, expected: dict[str, Any]) -> None:
    """Both readers give `expected`."""
    entries = read_torch((file,)).entries
    assert list(entries) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(plain(entries[name].read()), plain(value), name)
    objects = [fields for _, fields in torch_file._objects(file) if set(fields) >= expected.keys()]
    assert objects
    for name, value in expected.items():
        np.testing.assert_array_equal(plain(objects[0][name]), plain(value), name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.pt"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_a_whole_module_gives_its_state_dict(make: Any, protocol: int, is_zip: bool, file: Path) -> None:
    module = make()
    torch.save(module, file, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    assert_reads(file, module.state_dict())


@pytest.mark.filterwarnings("ignore")
def test_a_module_whose_source_code_has_changed_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.serialization.get_source_lines_and_file", lambda kind: (["class Old:\n"], 0, "old.py"))
    torch.save(nn.Linear(2, 3), file, _use_new_zipfile_serialization=False)
    monkeypatch.undo()
    assert_reads(file, torch.load(file, weights_only=False).state_dict())


@pytest.mark.parametrize("protocol", range(6))
def test_a_module_that_python_pickled_is_read(protocol: int, file: Path) -> None:
    module = net()
    file.write_bytes(pickle.dumps(module, protocol))
    assert_reads(file, module.state_dict())


def test_a_modules_config_is_found(file: Path) -> None:
    torch.save({"net": net()}, file)
    settings = read_torch((file,)).settings
    assert settings["net.config (argparse.Namespace)"] == {
        "hidden_size": 4, "num_attention_heads": 2, "num_hidden_layers": 1, "labels": {"0": "a", "1": "b"},
    }  # fmt: skip
    assert torch_file.config_in(file) == {
        "hidden_size": 4, "num_attention_heads": 2, "num_hidden_layers": 1, "labels": {0: "a", 1: "b"},
    }  # fmt: skip


STATE = {"encoder.layer.0.weight": torch.randn(3, 4), "encoder.layer.0.bias": torch.randn(3), "step": torch.tensor(7)}


class Color(enum.Enum):
    RED = 1


@dataclass
class Settings:
    rate: float = 1e-3
    path: Path = Path("a/b")


class AttributeDict(dict):
    """As Lightning's."""

    __getattr__ = dict.__getitem__


class HistoryBuffer:
    """As MMEngine's."""

    def __init__(self) -> None:
        self._log_history, self._statistics_methods = np.arange(3.0), OrderedDict(mean="mean")


def optimizer() -> dict[str, Any]:
    parameter = nn.Parameter(torch.ones(2, 2))
    adam = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    adam.step()
    return adam.state_dict()


BESIDE: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "Lightning": ("state_dict", lambda: {
        "epoch": 1, "global_step": 2, "pytorch-lightning_version": "2.0", "state_dict": OrderedDict(STATE),
        "hyper_parameters": AttributeDict(lr=1e-3, args=Namespace(x=1)), "hparams_name": "kwargs",
        "callbacks": {"ModelCheckpoint{}": {"best_model_score": torch.tensor(0.5), "dirpath": Path("a")}},
        "loops": {"fit_loop": {"state_dict": {}}}, "optimizer_states": [optimizer()], "lr_schedulers": [Counter()],
    }),
    "fairseq": ("model", lambda: {
        "args": Namespace(arch="x", seed=1), "cfg": {"_name": None, "common": {"seed": 1}, "model": Namespace(a=[1])},
        "model": STATE, "criterion": None, "optimizer_history": [{"optimizer_name": "FairseqAdam", "num_updates": 3}],
        "task_state": {}, "extra_state": {"train_iterator": {"epoch": 1}, "val_loss": 3.5, "best": np.float32(1)},
        "last_optimizer_state": optimizer(),
    }),
    "MMEngine": ("state_dict", lambda: {
        "meta": {"cfg": "x", "seed": np.int64(3), "time": datetime.datetime(2024, 1, 2)},
        "state_dict": OrderedDict(STATE),
        "message_hub": {"log_scalars": OrderedDict(loss=HistoryBuffer()), "resumed_keys": OrderedDict()},
        "optimizer": optimizer(), "param_schedulers": [{"last_step": 1, "milestones": Counter()}],
    }),
    "DeepSpeed": ("module", lambda: {
        "module": STATE, "buffer_names": [], "optimizer": None, "param_shapes": [OrderedDict(a=torch.Size([2, 3]))],
        "sparse_tensor_module_names": {"a"}, "ds_config": {"fp16": {"enabled": True}}, "ds_version": "0.14", "dp": 1,
    }),
    "objects of all kinds": ("model", lambda: {
        "model": defaultdict(list, STATE), "time": datetime.timedelta(1), "color": Color.RED, "settings": Settings(),
        "path": Path("a"), "score": np.float64(0.5), "flags": np.array([True]), "names": np.array(["a", "b"], object),
        "words": np.array(["a", "b"]), "types": [np.dtype("f4"), torch.float16, torch.device("cpu"), int],
        "slice": slice(2), "set": frozenset({1, ("a", 2)}),
        "complex": 1 + 2j, "range": range(3), "bytes": bytearray(b"x"), ("a", 1): None,
    }),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("key, make", BESIDE.values(), ids=BESIDE)
def test_the_model_is_found_beside_other_objects(key: str, make: Any, protocol: int, is_zip: bool, file: Path) -> None:
    torch.save(make(), file, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    found = read_torch((file,))
    assert found.decisions[0].value == key
    assert_reads(file, STATE)


def test_a_config_of_transformers_is_found(file: Path) -> None:
    from transformers import BertConfig

    torch.save({"model": STATE, "config": BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=3)}, file)
    (settings,) = read_torch((file,)).settings.values()
    assert (settings["hidden_size"], settings["num_hidden_layers"]) == (8, 3)
    again = torch_file.config_in(file)
    assert again and all(again[name] == settings[name] for name in ("hidden_size", "hidden_act", "vocab_size"))


BASE = torch.randn(6, 8)
TENSORS: dict[str, torch.Tensor] = {
    "float64": BASE.double(),
    "transposed": BASE.T,
    "a slice with a step": BASE[1:5:2, ::3],
    "of the same storage": BASE[2:4],
    "expanded": torch.randn(1, 3).expand(4, 3),
    "scalar": torch.tensor(3.5),
    "empty": torch.empty(0, 4),
    "complex": torch.randn(2, 3, dtype=torch.complex64),
    "complex128": torch.randn(3, dtype=torch.complex128),
    "bfloat16": torch.randn(3, 5).bfloat16(),
    "bool": torch.tensor([True, False]),
    "uint16": torch.tensor([1, 65535], dtype=torch.uint16),
    "uint32": torch.tensor([1, 2**32 - 1], dtype=torch.uint32),
    "uint64": torch.tensor([[1], [5]], dtype=torch.uint64),
    "float8_e4m3fn": torch.randn(2, 3).to(torch.float8_e4m3fn),
    "float8_e5m2": torch.randn(2, 3).to(torch.float8_e5m2),
    "parameter": nn.Parameter(torch.randn(2, 2)),
    "int8": torch.tensor([[-1, 2]], dtype=torch.int8),
}


OF_OLD_TYPES = {name: value for name, value in TENSORS.items() if not name.startswith(("uint", "float8"))}
"""Those that torch itself can write without a zip file."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_of_every_kind_are_equal_to_what_torch_loads(protocol: int, is_zip: bool, file: Path) -> None:
    tensors = TENSORS if is_zip else OF_OLD_TYPES
    torch.save(tensors, file, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    assert_reads(file, torch.load(file, weights_only=protocol == 2))


@pytest.mark.parametrize("protocol", range(6))
def test_tensors_that_python_pickled_are_equal_to_what_python_loads(protocol: int, file: Path) -> None:
    file.write_bytes(pickle.dumps(OF_OLD_TYPES, protocol))
    assert_reads(file, pickle.loads(file.read_bytes()))


ARRAYS: dict[str, np.ndarray] = {
    "float32": np.random.default_rng(0).normal(size=(3, 4)).astype("f4"),
    "by columns": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "big-endian": np.arange(6, dtype=">f4").reshape(2, 3),
    "big-endian complex": (np.arange(4) + 1j * np.arange(4)[::-1]).astype(">c8"),
    "complex128": (np.arange(4) + 1j).astype(">c16"),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 3), "i8"),
    "half": np.arange(5, dtype="f2"),
    "bool": np.array([[True], [False]]),
    "with a step": np.arange(20, dtype="i4")[::3],
    "large": np.random.default_rng(1).integers(0, 256, (40, 200)).astype("u1"),
}


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_that_python_pickled_are_equal_to_what_python_loads(protocol: int, file: Path) -> None:
    file.write_bytes(pickle.dumps(ARRAYS, protocol))
    assert_reads(file, ARRAYS)


def test_arrays_of_joblib_are_equal_to_what_joblib_loads(file: Path) -> None:
    joblib = pytest.importorskip("joblib")
    joblib.dump(ARRAYS, file)
    assert_reads(file, joblib.load(file))


def test_an_array_of_joblib_is_read_without_joblib(file: Path) -> None:
    file.write_bytes(hostile.sound_joblib())
    assert_reads(file, {"a": np.arange(6, dtype="f4").reshape(2, 3)})


def test_a_tar_of_torch_0_1_10_is_read(file: Path) -> None:
    file.write_bytes(hostile.sound_tar())
    expected = torch.load(file, weights_only=False)
    assert expected["b"].tolist() == [[1.0, 4.0], [2.0, 5.0]]
    assert_reads(file, expected)


def test_what_python_2_pickled_is_read(file: Path) -> None:
    """OrderedDict([[k, v]]), names as SHORT_BINSTRING, data as BINSTRING; and protocol 0 with a quoted line."""
    array = np.arange(6, dtype="<f4").reshape(2, 3) * 37.7
    raw = array.astype("<f4").tobytes()
    two = b"\x80\x02ccollections\nOrderedDict\n](](U\x01w" + hostile.ARRAY + b"(K\x01K\x02K\x03\x86" + hostile.TYPE
    two += hostile.sized(b"\x89T", "<i", len(raw), raw) + b"tbee\x85R."
    quoted = "".join(f"\\x{byte:02x}" if byte in b"'\\" or not 32 <= byte < 127 else chr(byte) for byte in raw)
    zero = b"(dp0\nS'w'\np1\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nI3\nt"
    zero += b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'" + quoted.encode() + b"'\ntbs."
    for data in (two, zero):
        file.write_bytes(data)
        loaded = pickle.loads(data, encoding="latin1")
        assert_reads(file, {"w": loaded["w"]})


def test_a_file_of_a_big_endian_machine_is_read(file: Path) -> None:
    state = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2]), "c": torch.randn(2, dtype=torch.complex64)}
    out = io.BytesIO()
    torch.save(state, out)
    import zipfile

    with zipfile.ZipFile(out) as old, zipfile.ZipFile(file, "w") as new:
        for member in old.infolist():
            data = b"big" if member.filename.endswith("byteorder") else old.read(member)
            new.writestr(zipfile.ZipInfo(member.filename), data)
    assert_reads(file, torch.load(file, weights_only=True))


def test_deflated_records_are_read(file: Path) -> None:
    import zipfile

    out = io.BytesIO()
    torch.save(TENSORS, out)
    with zipfile.ZipFile(out) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    assert_reads(file, torch.load(file, weights_only=False))


def test_a_class_that_is_nowhere_installed_is_no_obstacle(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = ModuleType("gone")
    gone.Net = type("Net", (Net,), {"__module__": "gone"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gone", gone)
    module = gone.Net()
    expected = copy.deepcopy(module.state_dict())
    torch.save(module, file)
    monkeypatch.delitem(sys.modules, "gone")
    assert_reads(file, expected)
    (stepped_over,) = [d for d in read_torch((file,)).decisions if d.field == "stepped over"]
    assert "gone.Net" in stepped_over.value
