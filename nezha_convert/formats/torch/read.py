"""PyTorch files (.bin, .pt, .pth, .ckpt) and other pickles of tensors, read without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...checkpoint import Contents, Decision, TensorEntry
from ...errors import CheckpointError
from ..pickles.entries import entry_of
from ..pickles.model import model_in, settings_in
from .containers import open_pickle


def read_torch(files: tuple[Path, ...], part: str | None = None, average: bool = False) -> Contents:
    """The model's tensors in `files`.

    Args:
        part: the keys of the model's dictionary, joined by dots, where a file holds several.
        average: take the moving average that lies beside the model, if one does.

    Raises:
        CheckpointError: a file is corrupt, or holds no dictionary of tensors.
        UsageError: a file holds several dictionaries that may be the model's.
    """
    entries: dict[str, TensorEntry] = {}
    decisions: dict[Decision, None] = {}
    settings: dict[str, dict[str, Any]] = {}
    for number, file in enumerate(files):
        container, seen = open_pickle(file)
        tensors, decided = model_in(file, container.pickled, part, average)
        decisions |= dict.fromkeys(decided)
        settings |= settings_in(container.pickled.value)
        for name, tensor in tensors.items():
            if name in entries:
                raise CheckpointError(f"{file}: {name!r} is in another shard too")
            entries[name] = entry_of(file, number, name, tensor, container.places, seen)
    return Contents(entries, tuple(decisions), settings)
