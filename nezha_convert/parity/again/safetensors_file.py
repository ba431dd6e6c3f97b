"""Safetensors files, by the format's own library, which hands out whole tensors."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ..oracle.formulas import Array
from .tensor import Tensor


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of `file` by name. Each is read when it is asked for."""
    import torch  # noqa: F401  (NumPy has no bfloat16, so the library shall make PyTorch's tensors)
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    return {name: Tensor(name, shape, partial(_read, file, name)) for name, shape in shapes.items()}


def _read(file: Path, name: str) -> Array:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return as_array(opened.get_tensor(name))


def as_array(tensor: Any) -> Array:
    """A PyTorch tensor for NumPy. bfloat16, which NumPy lacks, becomes float32; no value changes by that."""
    import torch

    array: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array
