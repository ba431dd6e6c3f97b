"""TensorFlow's frozen graphs (.pb): programs whose weights have become constants. They are told, and not read."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..errors import CheckpointError
from .protobuf import after_name

_HEAD = 1024

_SAVE = "; ".join(
    (
        "import sys, tensorflow as tf",
        'graph = tf.compat.v1.GraphDef.FromString(open(sys.argv[1], "rb").read())',
        'read = {name for node in graph.node if node.op == "Identity" for name in node.input}',
        'ends = ("kernel", "bias", "gamma", "beta", "_embeddings", "output_weights")',
        'kept = [n for n in graph.node if n.op == "Const" and (n.name in read or n.name.endswith(ends))]',
        'values = [tf.make_ndarray(n.attr["value"].tensor) for n in kept]',
        'tf.raw_ops.SaveV2(prefix=sys.argv[2], tensor_names=[n.name for n in kept], shape_and_slices=[""] * len(kept), '
        "tensors=values)",
    )
)
"""Saves the constants that were variables, which are read by an Identity, as a checkpoint of the same names."""


def is_frozen(file: Path) -> bool:
    """Whether `file` is a graph of TensorFlow: its first record is a node, with a name and an operation."""
    with open(file, "rb") as source:
        return after_name(source.read(_HEAD))[:1].isupper()


def frozen(file: Path) -> CheckpointError:
    """The refusal of a frozen graph, with the command that makes a checkpoint of it."""
    command = shlex.join(["python", "-c", _SAVE, str(file), str(file.with_suffix(".ckpt"))])
    return CheckpointError(
        f"{file}: a frozen graph of TensorFlow, which is a program with its weights in it and no checkpoint",
        hint=f"Where TensorFlow is installed, this makes a checkpoint of it: {command}",
    )
