"""PyTorch files that are written without PyTorch: torch reads what was written, mapped into memory or not."""

from __future__ import annotations

import tracemalloc
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
from nezha_convert.formats.torch.write import _STORAGES, write_torch

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
ROOT = Path(__file__).parents[3]


def write(file: Path, tensors: dict[str, np.ndarray]) -> None:
    write_torch(file, [Tensor(name, str(a.dtype), a.shape, row_blocks(a, 16)) for name, a in tensors.items()])


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(NAMES, arrays().filter(lambda a: str(a.dtype) in _STORAGES), min_size=1, max_size=20), st.booleans()
)
def test_torch_loads_what_was_written(tensors: dict[str, np.ndarray], mapped: bool) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "pytorch_model.bin"
        write(file, tensors)
        loaded = torch.load(file, weights_only=True, mmap=mapped)
        assert list(loaded) == list(tensors)
        for name, array in tensors.items():
            tensor = loaded[name]
            assert (tuple(tensor.shape), tensor.dtype) == (array.shape, getattr(torch, str(array.dtype)))
            assert tensor.stride() == torch.empty(array.shape).stride()
            assert bytes(tensor.untyped_storage()) == array.tobytes()
            assert not tensor.numel() or tensor.data_ptr() % 64 == 0
        found = open_checkpoint(file).entries
        assert {n: (e.dtype, e.shape, e.read().tobytes()) for n, e in found.items()} == {
            n: (str(a.dtype), a.shape, a.tobytes()) for n, a in tensors.items()
        }


def test_equal_models_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "pytorch_model.bin", {"x": np.arange(6, dtype="f4").reshape(2, 3)})
    assert (tmp_path / "a/pytorch_model.bin").read_bytes() == (tmp_path / "b/pytorch_model.bin").read_bytes()


def test_a_type_that_torch_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="complex64"):
        write(tmp_path / "x.bin", {"x": np.zeros(2, "complex64")})


def test_memory_does_not_grow_with_the_tensors(tmp_path: Path) -> None:
    def blocks() -> Iterator[np.ndarray]:
        for _ in range(16):
            yield np.ones((256, 1024), "f4")  # 1 MiB

    tracemalloc.start()
    write_torch(tmp_path / "x.bin", [Tensor(str(i), "float32", (16 * 256, 1024), blocks()) for i in range(2)])
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
