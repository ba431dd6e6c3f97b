"""nezha-convert: Huawei's NEZHA checkpoints for today's transformers, provably the same.

The Python API is what the command line calls: `inspect`, `convert`, `verify`, `push`, `pull`, `repair`, `export`,
`export_graph` and `diff`; and `record_training`, which a training script calls. Importing this package loads neither
torch, transformers nor tensorflow; a conversion from TensorFlow never does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import CheckpointError, HubError, MappingError, NezhaConvertError, OutputError, UsageError

if TYPE_CHECKING:
    from .conversion import convert, inspect
    from .differences import Difference, diff
    from .exports import ExportReport, export, export_graph
    from .hub import Pulled, Pushed, pull
    from .parity.compare import verify
    from .parity.report import ParityReport
    from .readers import open_checkpoint
    from .repairs import Repair, repair
    from .report import Inspection, Report
    from .trained import TrainedFolder
    from .training_record import TrainingData, record_training
    from .upload import push

_LAZY = {
    "convert": "conversion",
    "diff": "differences",
    "export": "exports",
    "export_graph": "exports",
    "inspect": "conversion",
    "open_checkpoint": "readers",
    "pull": "hub",
    "push": "upload",
    "record_training": "training_record",
    "repair": "repairs",
    "verify": "parity.compare",
    "Difference": "differences",
    "ExportReport": "exports",
    "Inspection": "report",
    "ParityReport": "parity.report",
    "Pulled": "hub",
    "Pushed": "hub",
    "Repair": "repairs",
    "Report": "report",
    "TrainedFolder": "trained",
    "TrainingData": "training_record",
}

__all__ = [
    "CheckpointError",
    "Difference",
    "ExportReport",
    "HubError",
    "Inspection",
    "MappingError",
    "NezhaConvertError",
    "OutputError",
    "ParityReport",
    "Pulled",
    "Pushed",
    "Repair",
    "Report",
    "TrainedFolder",
    "TrainingData",
    "UsageError",
    "__version__",
    "convert",
    "diff",
    "export",
    "export_graph",
    "inspect",
    "open_checkpoint",
    "pull",
    "push",
    "record_training",
    "repair",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
