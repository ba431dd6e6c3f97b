"""PyTorch files that are written without PyTorch: torch reads what was written, mapped into memory or not."""

from __future__ import annotations

import pickle
import tracemalloc
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import arrays
from upstream import run_python

from nezha_convert.formats.blocks import row_blocks
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.formats.tensor import Tensor
from nezha_convert.formats.torch.write import _STORAGES, write_legacy, write_torch

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
ROOT = Path(__file__).parents[3]


def write(file: Path, tensors: dict[str, np.ndarray], writer=write_torch) -> None:
    writer(file, [Tensor(name, str(a.dtype), a.shape, row_blocks(a, 16)) for name, a in tensors.items()])


HOWS = {"mapped": (write_torch, True), "zip": (write_torch, False), "legacy": (write_legacy, False)}


@pytest.mark.parametrize("how", HOWS)
@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, arrays().filter(lambda a: str(a.dtype) in _STORAGES), min_size=1, max_size=20))
def test_torch_loads_what_was_written(how: str, tensors: dict[str, np.ndarray]) -> None:
    writer, mapped = HOWS[how]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "pytorch_model.bin"
        write(file, tensors, writer)
        loaded = torch.load(file, weights_only=True, mmap=mapped)
        assert list(loaded) == list(tensors)
        for name, array in tensors.items():
            tensor = loaded[name]
            assert (tuple(tensor.shape), tensor.dtype) == (array.shape, getattr(torch, str(array.dtype)))
            assert tensor.stride() == torch.empty(array.shape).stride()
            assert bytes(tensor.untyped_storage()) == array.tobytes()
            assert how == "legacy" or not tensor.numel() or tensor.data_ptr() % 64 == 0
        found = open_checkpoint(file).entries
        assert {n: (e.dtype, e.shape, e.read().tobytes()) for n, e in found.items()} == {
            n: (str(a.dtype), a.shape, a.tobytes()) for n, a in tensors.items()
        }


def test_the_format_before_1_6_has_the_fields_that_torch_1_1_reads(tmp_path: Path) -> None:
    """torch/serialization.py of 1.1.0: four pickles, the last of them with identities of storages; keys; storages."""
    arrays = {"x": np.arange(6, dtype="f4").reshape(2, 3), "n": np.array(7, "i8")}
    write(tmp_path / "m.bin", arrays, write_legacy)
    identities = []

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str):
            if name == "_rebuild_tensor_v2":
                return lambda *arguments: arguments
            return name if module == "torch" else super().find_class(module, name)

        def persistent_load(self, identity):
            identities.append(identity)

    with open(tmp_path / "m.bin", "rb") as file:
        assert pickle.load(file) == 0x1950A86A20F9469CFC6C
        assert pickle.load(file) == 1001
        sizes = {"short": 2, "int": 4, "long": 4}
        assert pickle.load(file) == {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
        assert Reader(file).load() == {
            "x": (None, 0, (2, 3), (3, 1), False, OrderedDict()),
            "n": (None, 0, (), (), False, OrderedDict()),
        }
        assert identities == [
            ("storage", "FloatStorage", "0", "cpu", 6, None),
            ("storage", "LongStorage", "1", "cpu", 1, None),
        ]
        assert pickle.load(file) == ["0", "1"]
        for array in arrays.values():
            assert int.from_bytes(file.read(8), "little") == array.size
            assert file.read(array.nbytes) == array.tobytes()
        assert file.read() == b""


def test_equal_models_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "pytorch_model.bin", {"x": np.arange(6, dtype="f4").reshape(2, 3)})
    assert (tmp_path / "a/pytorch_model.bin").read_bytes() == (tmp_path / "b/pytorch_model.bin").read_bytes()


def test_a_type_that_torch_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="uint32"):
        write(tmp_path / "x.bin", {"x": np.zeros(2, "uint32")})


@pytest.mark.parametrize("writer", [write_torch, write_legacy])
def test_memory_does_not_grow_with_the_tensors(writer, tmp_path: Path) -> None:
    def blocks() -> Iterator[np.ndarray]:
        for _ in range(16):
            yield np.ones((256, 1024), "f4")  # 1 MiB

    tracemalloc.start()
    writer(tmp_path / "x.bin", [Tensor(str(i), "float32", (16 * 256, 1024), blocks()) for i in range(2)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "x.bin").stat().st_size > 32 << 20
    assert peak < 8 << 20


def test_torch_is_not_loaded_to_write_for_it(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from nezha_convert.formats.tensor import Tensor\n"
        "from nezha_convert.formats.torch.write import write_torch\n"
        "write_torch(Path(sys.argv[1]), [Tensor('x', 'float32', (2,), [np.zeros(2, 'f4')])])\n"
        "assert 'torch' not in sys.modules"
    )
    run_python(program, str(tmp_path / "x.bin"), path=[ROOT])
    assert torch.load(tmp_path / "x.bin", weights_only=True)["x"].tolist() == [0, 0]
