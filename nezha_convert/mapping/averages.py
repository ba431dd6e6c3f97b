"""Moving averages of the weights among the tensors: by TensorFlow's names, or of a second model beside the first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import replace

from ..checkpoint import Checkpoint, Decision, Origin, TensorEntry
from ..errors import UsageError
from ..families.rules import layer_of
from ..formats.averages import COUNTER, FIELD, is_average, left_out

_TENSORFLOW = "/ExponentialMovingAverage"
"""What tf.train.ExponentialMovingAverage puts behind a variable's name."""


def with_averages(checkpoint: Checkpoint, asked: bool) -> Checkpoint:
    """`checkpoint` with the averages in the places of their weights, if that was asked for; else it tells of them.

    Args:
        asked: the user wants the averages.

    Raises:
        UsageError: there are none.
    """
    entries = checkpoint.entries
    if any(decision.field == FIELD and decision.origin is Origin.ASKED for decision in checkpoint.decisions):
        return checkpoint  # its reader took it
    found = averages_of(entries)
    if not found:
        if any(name.rpartition(".")[2] == COUNTER for name in entries):
            reason = "the tensors are the mean that torch's AveragedModel made"
            origin = Origin.ASKED if asked else Origin.TENSORS
            return _telling(checkpoint, Decision(FIELD, "AveragedModel", reason, origin))
        if asked:
            raise UsageError(
                f"{checkpoint.path}: --average: there is no moving average in it that is known by its names",
                hint="Leave out --average; nezha-convert inspect SOURCE --tensors lists the tensors.",
            )
        return checkpoint
    example = min(found.values())
    if not asked:
        return _telling(checkpoint, left_out(f"{len(found)} names such as {example}"))
    taken = set(found.values())
    kept = {name: entry for name, entry in entries.items() if name not in taken}
    replaced = {name: kept[name] for name in found}
    checkpoint = replace(
        checkpoint, entries=kept | {name: entries[average] for name, average in found.items()}, replaced=replaced
    )
    return _telling(checkpoint, Decision(FIELD, f"{len(found)} tensors", f"asked for: {example}", Origin.ASKED))


def _telling(checkpoint: Checkpoint, decision: Decision) -> Checkpoint:
    return replace(checkpoint, decisions=(*checkpoint.decisions, decision))


def averages_of(entries: Mapping[str, TensorEntry]) -> dict[str, str]:
    """The name of the average of each weight, by the weight's.

    Example:
        >>> averages_of({"bert/pooler/dense/bias": ..., "bert/pooler/dense/bias/ExponentialMovingAverage": ...})
        {'bert/pooler/dense/bias': 'bert/pooler/dense/bias/ExponentialMovingAverage'}
    """
    weights = {name.removesuffix(_TENSORFLOW): name for name in entries if name.endswith(_TENSORFLOW)}
    found = {weight: name for weight, name in weights.items() if weight in entries}
    groups: dict[str, list[str]] = {}
    for name, entry in entries.items():
        if entry.shape and (root := _root(name)):
            groups.setdefault(root, []).append(name.removeprefix(root))
    groups = {root: rests for root, rests in groups.items() if any(layer_of(rest) is not None for rest in rests)}
    beginnings = _beginnings(entries, {rests[0] for rests in groups.values()})
    for root, rests in groups.items():
        models = [model for model in beginnings[rests[0]] if all(model + rest in entries for rest in rests)]
        if len(models) == 1:
            found |= {models[0] + rest: root + rest for rest in rests}
    return found


def _root(name: str) -> str:
    """What stands in front of the names of an average that is a module of its own; empty if `name` is none's."""
    parts = name.split(".")
    at = next((number for number, part in enumerate(parts[:-1]) if is_average(part)), None)
    if at is None:
        return ""
    at += parts[at + 1] == "module"
    return "".join(f"{part}." for part in parts[: at + 1])


def _beginnings(names: Iterable[str], rests: Set[str]) -> dict[str, list[str]]:
    """What stands in front of each of `rests` in those of `names` that are no average's."""
    found: dict[str, list[str]] = {rest: [] for rest in rests}
    for name in names if rests else ():
        at = 0
        while not _root(name):
            if name[at:] in found:
                found[name[at:]].append(name[:at])
            if not (at := name.find(".", at) + 1):
                break
    return found
