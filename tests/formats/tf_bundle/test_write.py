"""Written TensorFlow bundles have the bytes of TensorFlow's own Saver, and its reader accepts them."""

from __future__ import annotations

import json
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from goldens import FIXTURES
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import arrays
from upstream import run_python

from nezha_convert.formats.tensor import Tensor
from nezha_convert.formats.tf_bundle import write as writer
from nezha_convert.formats.tf_bundle.read import DTYPES, read_bundle
from nezha_convert.formats.tf_bundle.write import Block, write_bundle

KEYS = st.lists(st.binary(min_size=1, max_size=6), unique=True, max_size=40).map(sorted)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)

SAVER = """
import sys
import numpy as np
import tensorflow as tf
arrays = dict(np.load(sys.argv[1]))
slices = [""] * len(arrays)
tf.raw_ops.SaveV2(prefix=sys.argv[2], tensor_names=[*arrays], shape_and_slices=slices, tensors=[*arrays.values()])
"""
"""The operation that tf.train.Saver runs."""

READER = """
import json, sys
import tensorflow as tf
reader = tf.train.load_checkpoint(sys.argv[1])
shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
print(json.dumps({name: [dtypes[name].name, shapes[name], reader.get_tensor(name).tobytes().hex()] for name in shapes}))
"""


def need_tensorflow() -> None:
    if find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed: pip install 'nezha-convert[tf]'")


def write(prefix: Path, tensors: dict[str, np.ndarray]) -> None:
    write_bundle(prefix, [Tensor(name, str(array.dtype), array.shape, [array]) for name, array in tensors.items()])


def weights(layers: int) -> dict[str, np.ndarray]:
    """Tensors with the names of a model of so many layers."""
    random = np.random.default_rng(3)
    parts = ("attention/self/query/kernel", "attention/output/LayerNorm/beta", "intermediate/dense/bias", "output/x")
    names = [f"bert/encoder/layer_{i}/{part}" for i in range(layers) for part in parts]
    return {name: random.standard_normal((2, 3)).astype("f4") for name in ["global_step", "\u5b57", *names]}


def entries_of(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (e.dtype, e.shape, e.read().tobytes()) for name, e in read_bundle(path)[1].items()}


# The bytes of TensorFlow


@pytest.mark.parametrize("fixture", sorted(path.name for path in FIXTURES.glob("huawei-tf-*")))
def test_a_fixture_that_tensorflow_wrote_is_written_again_byte_for_byte(fixture: str, tmp_path: Path) -> None:
    entries = read_bundle(FIXTURES / fixture / "model.ckpt-12345")[1]
    tensors = [Tensor(e.name, e.dtype, e.shape, e.blocks(limit=100)) for e in entries.values()]
    write_bundle(tmp_path / "model.ckpt-12345", tensors)
    for name in ("model.ckpt-12345.index", "model.ckpt-12345.data-00000-of-00001", "checkpoint"):
        assert (tmp_path / name).read_bytes() == (FIXTURES / fixture / name).read_bytes(), name


def test_tensorflow_s_saver_writes_the_same_bytes_over_several_blocks_of_the_index(tmp_path: Path) -> None:
    need_tensorflow()
    tensors = {f"{i:04d}/{'name' * 80}": np.full((2, 3), i, "f4") for i in range(2000)}
    np.savez(tmp_path / "arrays.npz", **tensors)
    for folder in ("ours", "theirs"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "ours" / "model.ckpt", tensors)
    run_python(SAVER, str(tmp_path / "arrays.npz"), str(tmp_path / "theirs" / "model.ckpt"))
    assert (tmp_path / "ours" / "model.ckpt.index").stat().st_size > 2 * writer.BLOCK_BYTES
    for theirs in (tmp_path / "theirs").iterdir():
        assert theirs.read_bytes() == (tmp_path / "ours" / theirs.name).read_bytes(), theirs.name


def test_tensorflow_reads_every_type_and_shape_with_its_checksums(tmp_path: Path) -> None:
    need_tensorflow()
    random = np.random.default_rng(5)
    tensors = {
        f"{dtype}/{'x'.join(map(str, shape))}": random.integers(0, 2, shape).astype(dtype)
        for dtype in DTYPES.values()
        for shape in ((), (3,), (2, 3), (0, 4))
    }
    write(tmp_path / "model.ckpt", tensors)
    found = json.loads(run_python(READER, str(tmp_path / "model.ckpt")))
    expected = {name: [str(a.dtype), list(a.shape), a.tobytes().hex()] for name, a in tensors.items()}
    assert found == expected


@pytest.mark.parametrize("place", [5, 700])
def test_tensorflow_notices_a_byte_that_changed(place: int, tmp_path: Path) -> None:
    need_tensorflow()
    write(tmp_path / "model.ckpt", weights(layers=10))
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    damaged = bytearray(data.read_bytes())
    damaged[place] ^= 1
    data.write_bytes(damaged)
    with pytest.raises(AssertionError, match="Checksum does not match"):
        run_python(READER, str(tmp_path / "model.ckpt"))


# Without TensorFlow


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(NAMES, arrays().filter(lambda a: str(a.dtype) in DTYPES.values()), max_size=30))
def test_what_is_written_is_read(tensors: dict[str, np.ndarray]) -> None:
    with TemporaryDirectory() as folder:
        write(Path(folder) / "model.ckpt", tensors)
        expected = {name: (str(a.dtype), a.shape, a.tobytes()) for name, a in tensors.items()}
        assert entries_of(Path(folder) / "model.ckpt") == expected


def test_the_order_in_which_tensors_come_changes_nothing(tmp_path: Path) -> None:
    tensors = weights(layers=12)
    for folder, order in (("a", list(tensors)), ("b", list(tensors)[::-1])):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "model.ckpt", {name: tensors[name] for name in order})
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


@given(KEYS)
def test_a_shortened_key_parts_the_blocks(keys: list[bytes]) -> None:
    for key, following in pairwise(keys):
        between = writer._between(key, following)
        assert key <= between < following
        assert len(between) <= len(key)
    for key in keys:
        assert key <= writer._after(key)


@given(KEYS)
def test_a_block_knows_its_size(keys: list[bytes]) -> None:
    block = Block()
    for number, key in enumerate(keys):
        block.add(key, b"v" * (number % 5))
        assert len(block) == len(bytes(block))
