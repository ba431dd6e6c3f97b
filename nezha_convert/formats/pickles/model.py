"""Which of a pickle's tensors are the model's: a dictionary of them, or the parameters of a module that was pickled."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...checkpoint import Decision, Origin
from ...errors import CheckpointError, UsageError
from ...text import quoted
from ..averages import COUNTER, FIELD, is_average, is_replaced, left_out
from .machine import Pickled
from .values import NOT_RUN, Array, Record, kind_of, shown

MAX_DEPTH = 3
"""How deep in nested dictionaries the model's is searched for."""

_MAX_MODULES = 64
"""How deep the modules of a model may lie in each other."""

_MAX_COST = 1 << 21
"""What the dictionaries and modules of a file may cost, in parts of them and characters of names; see `_Purse`. A
pickled NEZHA-large costs a twentieth of it."""

_MAX_LISTED = 20
"""The most things that a message lists."""

_TRAINING = re.compile(r"optim|sched|scaler|rng|callback|loops", re.IGNORECASE)
"""Keys that hold tensors of the training, not the model."""

_MAX_ITEMS = 100
"""The most items of a list that are looked at."""

_WRAPPED = "module."
"""What torch's AveragedModel and DataParallel put in front of names."""

TOP = "the top"
"""The name of the dictionary that the file itself is."""

_PLAIN = (
    "(lambda s, p='._packed_params': "
    "{{k: v.dequantize() if getattr(v, 'is_quantized', 0) else v.to_dense() if getattr(v, 'is_sparse', 0) else v "
    "for k, v in s.items() if p not in k and not "
    "(k.endswith(('.scale', '.zero_point')) and k.rpartition('.')[0] + 2 * p in s)}} | "
    "{{k.partition(p)[0] + n: v.dequantize() for k, parts in s.items() if k.endswith(2 * p) "
    "for n, v in zip(('.weight', '.bias'), parts) if v is not None}})"
    "(torch.load({!r}, map_location='cpu', weights_only=True)"
)
"""Python that makes plain tensors of a state dict's quantized and sparse ones. A module that is quantized dynamically
has its weight and bias packed under one name, and a scale and zero point of its output, which are not the weight's."""

_ROUNDED = (
    " A quantized weight stays rounded; what the quantized program computes also depends on how it rounds the states. "
    "Where there is the model from before it was quantized, convert that."
)

_SAVE = "Save the model's own state dict: torch.save(model.state_dict(), 'pytorch_model.bin')."


@dataclass(slots=True)
class _Purse:
    """What may still be spent on looking through `file`: where objects share others, their parts multiply."""

    file: Path
    left: int = _MAX_COST
    barren: set[tuple[int, int]] = field(default_factory=set)
    """The objects in which no model was found, each with its depth: they are searched once."""

    def spend(self, cost: int) -> None:
        self.left -= cost
        if self.left < 0:
            raise CheckpointError(f"{self.file}: its objects hold each other so often that there are millions of names")


def model_in(
    file: Path, pickled: Pickled, part: str | None = None, average: bool = False
) -> tuple[dict[str, Array], tuple[Decision, ...]]:
    """The model's tensors by name, and the decisions: which part of the file it is, what was stepped over.

    Args:
        part: the keys of the model's dictionary, joined by dots, where the user names it.
        average: the user wants the moving average that lies beside the model, if one does.

    Raises:
        CheckpointError: there is no dictionary of tensors, or one of them is no plain block of numbers.
        UsageError: there are several that may be the model's, or none at `part`.
    """
    purse = _Purse(file)
    path, content, decisions = _choose(purse, pickled.value, part, average)
    beside = [name for name in contents(pickled.value, purse) or () if path and name != path[0]]
    others = _listed([*beside, *(name for name, value in content.items() if not _named(name, value))])
    if path or others:
        reason = f"the file is a training's; it also holds {others}" if others else "the file holds nothing else"
        origin = Origin.ASKED if part else Origin.FILE
        decisions.append(Decision("tensors read from", _at(path), reason, origin))
    if wanted := sorted(pickled.wanted, key=lambda name: name.startswith("torch.")):
        names = ", ".join(wanted[:8]) + (f" and {len(wanted) - 8} more" if wanted[8:] else "")
        reason = "objects of these classes are in the pickle; they were stepped over, and nothing of them was run"
        decisions.append(Decision("stepped over", names[:1000], reason, Origin.FILE))
    for name, value in content.items():
        for item in value[:_MAX_LISTED] if isinstance(value, tuple | list) else (value,):
            if isinstance(item, Record) and item.is_tensor:
                at = "".join(f"[{key!r}]" for key in path).replace("{", "{{").replace("}", "}}")
                raise CheckpointError(
                    f"{file}: {name!r} is not a plain dense tensor ({item.name})",
                    hint=written_by_torch(file, f"{_PLAIN}{at})", "plain") + (_ROUNDED if "q" in item.name else ""),
                )
    return {str(name): value for name, value in content.items() if _named(name, value)}, tuple(decisions)


def has_model(file: Path, pickled: Pickled) -> bool:
    """Whether a dictionary in it may be a model's: there is none in a list of labels, or in a tensor alone."""
    purse = _Purse(file)
    top = contents(pickled.value, purse)
    if not top:
        return False
    return all(_named(name, value) for name, value in top.items()) or any(_models(top, purse))


def _at(path: tuple[str, ...]) -> str:
    return ".".join(path) or TOP


def _listed(keys: list[Any]) -> str:
    more = f" and {len(keys) - _MAX_LISTED:,} more" if keys[_MAX_LISTED:] else ""
    return ", ".join(map(shown, keys[:_MAX_LISTED])) + more


class _Chosen(NamedTuple):
    """The model's dictionary: its keys, what it holds, and what is decided about averages."""

    path: tuple[str, ...]
    content: Mapping[Any, Any]
    decisions: list[Decision]


def _choose(purse: _Purse, value: Any, part: str | None, average: bool) -> _Chosen:
    """The model's dictionary: `value` itself, or the one inside it that is asked for, or the only one."""
    file, top = purse.file, contents(value, purse)
    if top is None:
        raise CheckpointError(
            f"{file}: holds {kind_of(value)}, expected a dictionary of tensors. {NOT_RUN}", hint=_SAVE
        )
    strange = next((name for name, value in top.items() if not _named(name, value)), None)
    if strange is None and top and not part and isinstance(value, dict):
        return _Chosen((), top, [])
    every = dict(_models(top, purse))
    averages = {path: holder for path, holder in every.items() if _is_average(path, every)}
    models = {path: holder for path, holder in every.items() if part in (None, _at(path))}
    if average and averages and not part:
        models = averages
    if len(models) == 1:
        return _averaged(*next(iter(models.items())), every, averages, asked=average or bool(part))
    models = models or every
    if not top:
        raise CheckpointError(f"{file}: it holds an empty dictionary, expected tensors by name", hint=_SAVE)
    if not models:
        raise CheckpointError(
            f"{file}: {shown(strange)} is {kind_of(top.get(strange))}; expected a dictionary of tensors by "
            f"name, alone or under one key. {NOT_RUN}",
            hint=_SAVE,
        )
    listing = ", ".join(
        f"{_at(path):.200} ({len(_tensors(holder))} tensors{', a moving average' if path in averages else ''})"
        for path, holder in list(models.items())[:_MAX_LISTED]
    )
    asked = f", none of them at {part!r}" if part else ""
    raise UsageError(
        f"{file}: it holds {len(models)} dictionaries of tensors{asked}: {listing}",
        ways=tuple(("--average",) if [*averages] == [path] else ("--part", _at(path)) for path in models),
    )


def _is_average(path: tuple[str, ...], every: Mapping[tuple[str, ...], Mapping[Any, Any]]) -> bool:
    """Whether the dictionary at `path` is a moving average: by its keys, or by torch's counter in it.

    An object that keeps an average in `shadow` may hold the model and other weights, too.
    """
    in_shadow = any((*path[:at], "shadow") in every for at in range(len(path)))
    return COUNTER in every[path] or (is_average(_at(path)) and (not in_shadow or path[-1] == "shadow"))


def _averaged(
    path: tuple[str, ...],
    content: Mapping[Any, Any],
    every: Mapping[tuple[str, ...], Mapping[Any, Any]],
    averages: Collection[tuple[str, ...]],
    asked: bool,
) -> _Chosen:
    """What is chosen, whole: an average lacks what is not averaged, such as a table, which is the model's own.

    Numbers in an average count its steps.
    """
    if path not in averages:
        beside = ", ".join(map(_at, averages))
        return _Chosen(path, content, [left_out(beside)] if averages else [])
    own = {name.removeprefix(_WRAPPED): value for name, value in _tensors(content).items() if value.shape}
    fitting = []
    for other, holder in every.items():
        names = {name.removeprefix(_WRAPPED): name for name in _tensors(holder)}
        fits = own.keys() <= names.keys() and all(holder[names[n]].shape == own[n].shape for n in own)
        if fits and other not in averages and not is_replaced(_at(other)):
            fitting.append({**holder, **{names[name]: value for name, value in own.items()}})
    whole = fitting[0] if len(fitting) == 1 else content
    rest = len(_tensors(whole)) - len(own)
    reason = "asked for" if asked else "it is all that the file holds"
    if len(fitting) == 1 and rest:
        reason += f"; {rest} tensors that are not averaged are the model's"
    return _Chosen(path, whole, [Decision(FIELD, _at(path), reason, Origin.ASKED if asked else Origin.FILE)])


def contents(value: Any, purse: _Purse) -> Mapping[Any, Any] | None:
    """What `value` holds by name: a dictionary's items, a module's state dict, another object's attributes."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and any(isinstance(item, dict | Record) for item in value[:_MAX_ITEMS]):
        return {str(number): item for number, item in enumerate(value[:_MAX_ITEMS])}
    if not isinstance(value, Record):
        return None
    if is_module(value):
        return dict(_parameters(value, purse))
    return value.items or (value.state if isinstance(value.state, dict) else None)


def is_module(value: Any) -> bool:
    """Whether `value` is a pickled ``torch.nn.Module``."""
    state = value.state if isinstance(value, Record) else None
    return isinstance(state, dict) and all(isinstance(state.get(key), dict) for key in ("_parameters", "_modules"))


def _parameters(module: Record, purse: _Purse) -> Iterator[tuple[str, Any]]:
    """The parameters and persistent buffers of a pickled ``torch.nn.Module``, as its ``state_dict()`` names them."""
    todo: list[tuple[str, Record, tuple[Record, ...]]] = [("", module, ())]
    while todo:
        prefix, module, within = todo.pop()
        if len(within) > _MAX_MODULES or module in within:
            raise CheckpointError(f"{purse.file}: a pickled module holds itself, or modules {_MAX_MODULES} deep")
        state, modules = module.state, module.state["_modules"]
        passing, buffers = state.get("_non_persistent_buffers_set"), state.get("_buffers")
        listed = (passing.listed or ()) if isinstance(passing, Record) else ()
        own = [*state["_parameters"].items(), *(buffers.items() if isinstance(buffers, dict) else ())]
        purse.spend((64 + len(prefix)) * (1 + len(own) + len(modules)) + len(listed))
        left_out = {name for name in listed if isinstance(name, str)}
        for name, value in own:
            if value is not None and isinstance(name, str) and name not in left_out:
                yield f"{prefix}{name}", value
        inner = [(name, held) for name, held in modules.items() if is_module(held) and isinstance(name, str)]
        todo += [(f"{prefix}{name}.", held, (*within, module)) for name, held in reversed(inner)]


def _models(
    holder: Mapping[Any, Any], purse: _Purse, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """The dictionaries in `holder` that may be a model's, each with its keys: they hold a matrix by its name.

    Numbers and texts beside the tensors make no difference: an average may be free of them, and the model not. Beside
    a dictionary that may be the model's, a matrix alone is none.
    """
    inside = []
    for key, value in holder.items():
        at = (id(value), len(path))
        if not isinstance(key, str) or len(path) >= MAX_DEPTH or _TRAINING.search(key) or at in purse.barren:
            continue
        if (held := contents(value, purse)) is None:
            continue
        if found := list(_models(held, purse, (*path, key))):
            purse.spend(64 + len(held))
            inside += found
        else:
            purse.barren.add(at)
    matrices = sum(len(tensor.shape) > 1 for tensor in _tensors(holder).values())
    if matrices > bool(inside):
        yield path, holder
    yield from inside


def _tensors(holder: Mapping[Any, Any]) -> dict[str, Array]:
    return {name: value for name, value in holder.items() if _named(name, value)}


def _named(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Array)


def written_by_torch(file: Path, expression: str, ending: str) -> str:
    """A command that saves the value of `expression` as a state dict beside `file`, and what to do with that.

    Args:
        expression: Python in which ``{!r}`` stands for the name of `file`.
        ending: of the new file's name.
    """
    target = file.with_name(f"{file.stem}-{re.sub(r'[^A-Za-z0-9_-]', '_', ending)}.bin")
    code = f"import torch; torch.save({expression.format(str(file))}, {str(target)!r})"
    return f"Run: python -c {quoted(code)}, and name its file: {quoted(target)}"
