"""nezha-convert: Huawei's NEZHA checkpoints for today's transformers, provably the same.

The Python API is what the command line calls: `inspect`, `convert`, `verify`, `check`, `batch`, `push`, `pull`,
`record`, `repair`, `export`, `export_graph`, `diff` and `env`; `write_html`, `write_junit` and `write_markdown`, which
show what `verify` returned; and `record_training`, which a training script calls. Importing this package loads neither
torch, transformers nor tensorflow; a conversion from TensorFlow never does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import CheckpointError, HubError, MappingError, NezhaConvertError, OutputError, UsageError

if TYPE_CHECKING:
    from .batches.results import BatchReport, RowResult
    from .commands.batch import batch
    from .commands.check import Checked, check
    from .commands.convert import convert
    from .commands.diff import Difference, diff
    from .commands.env import Environment, env
    from .commands.export import ExportReport, export, export_graph
    from .commands.inspect import Inspection, inspect
    from .commands.pull import pull
    from .commands.push import push
    from .commands.record_training import TrainingData, record, record_training
    from .commands.repair import Repair, repair
    from .commands.verify import verify
    from .folder.report import Report
    from .folder.trained import TrainedFolder
    from .formats.open import open_checkpoint
    from .hub import Pulled, Pushed
    from .parity.render.html import write_html
    from .parity.render.junit import write_junit
    from .parity.render.markdown import write_markdown
    from .parity.report import ParityReport

_LAZY = {
    "batch": "commands.batch",
    "check": "commands.check",
    "convert": "commands.convert",
    "diff": "commands.diff",
    "env": "commands.env",
    "export": "commands.export",
    "export_graph": "commands.export",
    "inspect": "commands.inspect",
    "open_checkpoint": "formats.open",
    "pull": "commands.pull",
    "push": "commands.push",
    "record": "commands.record_training",
    "record_training": "commands.record_training",
    "repair": "commands.repair",
    "verify": "commands.verify",
    "write_html": "parity.render.html",
    "write_junit": "parity.render.junit",
    "write_markdown": "parity.render.markdown",
    "BatchReport": "batches.results",
    "Checked": "commands.check",
    "Difference": "commands.diff",
    "Environment": "commands.env",
    "ExportReport": "commands.export",
    "Inspection": "commands.inspect",
    "ParityReport": "parity.report",
    "Pulled": "hub",
    "Pushed": "hub",
    "Repair": "commands.repair",
    "Report": "folder.report",
    "RowResult": "batches.results",
    "TrainedFolder": "folder.trained",
    "TrainingData": "commands.record_training",
}

__all__ = [
    "BatchReport",
    "Checked",
    "CheckpointError",
    "Difference",
    "Environment",
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
    "RowResult",
    "TrainedFolder",
    "TrainingData",
    "UsageError",
    "__version__",
    "batch",
    "check",
    "convert",
    "diff",
    "env",
    "export",
    "export_graph",
    "inspect",
    "open_checkpoint",
    "pull",
    "push",
    "record",
    "record_training",
    "repair",
    "verify",
    "write_html",
    "write_junit",
    "write_markdown",
]


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
