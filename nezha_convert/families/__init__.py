"""Facts about the programs that write NEZHA checkpoints: one file a program, data only.

A program's file holds its names of tensors, its defaults, its heads, and what an export to it needs.
"""

from __future__ import annotations

from . import bert4torch, huawei_tf, huawei_torch, paddle, transformers
from .bert4keras import BERT4KERAS, BERT4KERAS_BUNDLE, BERT4KERAS_MODERN, BERT4KERAS_OBJECTS
from .bert4torch import BERT4TORCH, BERT4TORCH_SAVED
from .huawei_tf import HUAWEI_TF
from .huawei_torch import HUAWEI_TORCH, HUAWEI_TORCH_BASE, JABER
from .mindspore import MINDSPORE
from .paddle import PADDLE, PADDLE_BASE
from .transformers import TRANSFORMERS, TRANSFORMERS_BASE

__all__ = [
    "BERT4KERAS",
    "BERT4KERAS_BUNDLE",
    "BERT4KERAS_MODERN",
    "BERT4KERAS_OBJECTS",
    "BERT4TORCH",
    "BERT4TORCH_SAVED",
    "FAMILIES",
    "HUAWEI_TF",
    "HUAWEI_TORCH",
    "HUAWEI_TORCH_BASE",
    "JABER",
    "MINDSPORE",
    "PADDLE",
    "PADDLE_BASE",
    "PROGRAMS",
    "TRANSFORMERS",
    "TRANSFORMERS_BASE",
]

FAMILIES = (
    BERT4KERAS_BUNDLE,
    HUAWEI_TF,
    BERT4TORCH,
    BERT4TORCH_SAVED,
    JABER,
    HUAWEI_TORCH,
    PADDLE,
    PADDLE_BASE,
    TRANSFORMERS,
    TRANSFORMERS_BASE,
    BERT4KERAS,
    BERT4KERAS_MODERN,
    BERT4KERAS_OBJECTS,
    MINDSPORE,
)
"""In the order of recognition: the first that `fits`."""

PROGRAMS = {
    "huawei-tf": huawei_tf.PROGRAM,
    "huawei-torch": huawei_torch.PROGRAM,
    "transformers-4": transformers.PROGRAM,
    "paddle": paddle.PROGRAM,
    "bert4torch": bert4torch.PROGRAM,
}
"""What a model can be exported to, by the name that --to takes."""
