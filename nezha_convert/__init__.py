"""nezha-convert: Huawei's NEZHA checkpoints for today's transformers, provably the same.

The Python API is what the command line calls: `inspect` and `convert`. Importing this package loads neither torch,
transformers nor tensorflow; a conversion from TensorFlow never does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import CheckpointError, MappingError, NezhaConvertError, OutputError, UsageError

if TYPE_CHECKING:
    from .conversion import convert, inspect
    from .readers import open_checkpoint
    from .report import Inspection, Report

_LAZY = {
    "convert": "conversion",
    "inspect": "conversion",
    "open_checkpoint": "readers",
    "Inspection": "report",
    "Report": "report",
}

__all__ = [
    "CheckpointError",
    "Inspection",
    "MappingError",
    "NezhaConvertError",
    "OutputError",
    "Report",
    "UsageError",
    "__version__",
    "convert",
    "inspect",
    "open_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
