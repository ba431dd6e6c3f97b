"""PyTorch files (.bin, .pt, .pth, .ckpt) and other pickles of tensors, read without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...checkpoint import Contents, Decision, TensorEntry
from ...errors import CheckpointError
from ..pickles.entries import entry_of
from ..pickles.machine import Pickled
from ..pickles.model import has_model, model_in
from ..pickles.settings import settings_in
from ..pickles.values import Array
from .containers import open_pickle

Found = tuple[Mapping[str, Array], tuple[Decision, ...]]
"""A model's tensors by name, and the decisions that were made to find it."""


def read_torch(files: tuple[Path, ...], part: str | None = None, average: bool = False) -> Contents:
    """The model's tensors in `files`.

    Args:
        part: the keys of the model's dictionary, joined by dots, where a file holds several.
        average: take the moving average that lies beside the model, if one does.

    Raises:
        CheckpointError: a file is corrupt, or holds no dictionary of tensors.
        UsageError: a file holds several dictionaries that may be the model's.
    """
    return read_pickles(files, lambda file, pickled: model_in(file, pickled, part, average))


def may_be_model(file: Path) -> bool:
    """Whether a model may be in `file`. What is damaged may be one: its reader says what is wrong with it."""
    try:
        return has_model(file, open_pickle(file)[0])
    except CheckpointError:
        return True


def read_pickles(files: tuple[Path, ...], find: Callable[[Path, Pickled], Found]) -> Contents:
    """The tensors of several pickles, of which `find` gives those of one.

    Raises:
        CheckpointError: a file is corrupt, or a name is in two of them.
    """
    entries: dict[str, TensorEntry] = {}
    decisions: dict[Decision, None] = {}
    settings: dict[str, dict[str, Any]] = {}
    for number, file in enumerate(files):
        pickled, seen = open_pickle(file)
        tensors, decided = find(file, pickled)
        decisions |= dict.fromkeys(decided)
        settings |= settings_in(pickled.value)
        for name, tensor in tensors.items():
            if name in entries:
                raise CheckpointError(f"{file}: {name!r} is in another shard too")
            entries[name] = entry_of(file, number, name, tensor, seen)
    return Contents(entries, tuple(decisions), settings)
