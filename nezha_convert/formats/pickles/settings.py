"""What the objects in a pickle say that hold no tensors: a config, a Namespace of settings."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from .model import MAX_DEPTH, is_module
from .values import Record

CONFIG_FIELDS = {"hidden_size", "num_attention_heads", "num_hidden_layers"}
"""Fields that make an object the config of a model like BERT."""

_MAX_SETTINGS, _MAX_PLAIN = 32, 1 << 18
"""The most objects whose fields are shown, and characters of all of these."""


def settings_in(value: Any) -> dict[str, dict[str, Any]]:
    """The plain fields of objects in a pickle that are no modules, by where they stand: a config, a Namespace.

    A dictionary counts if it has the fields of a config.
    """
    settings: dict[str, dict[str, Any]] = {}
    todo: list[tuple[tuple[str, ...], Any]] = [
        ((), dict(enumerate(value)) if isinstance(value, list | tuple) else value)
    ]
    visited: set[int] = set()
    left = [_MAX_PLAIN]
    while todo and len(settings) < _MAX_SETTINGS:
        path, holder = todo.pop()
        if id(holder) in visited or len(path) > 2 * MAX_DEPTH:
            continue
        visited.add(id(holder))
        if isinstance(holder, Record):
            fields = {**(holder.items or {}), **(holder.state if isinstance(holder.state, dict) else {})}
        else:
            fields = holder if isinstance(holder, dict) else {}
        inner = [(name, held) for name, held in fields.items() if isinstance(held, dict | Record)]
        todo += [((*path, str(name)), held) for name, held in reversed(inner) if isinstance(name, str | int)]
        if fields.keys() >= CONFIG_FIELDS or (isinstance(holder, Record) and not is_module(holder)):
            plain = _plain_fields(fields, left)
            kind = f" ({holder.name:.100})" if isinstance(holder, Record) else ""
            settings |= {f"{'.'.join(path):.200}{kind}".strip(): plain} if plain else {}
    return settings


class _NotPlainError(Exception):
    """JSON does not have the value, or not all of it is shown."""


def _plain_fields(fields: Mapping[Any, Any], left: list[int]) -> dict[str, Any]:
    """Those of `fields` that JSON has: numbers, texts, and lists and dictionaries of a few of them.

    Args:
        left: how many characters may still be shown.
    """
    plain = {}
    for name, value in fields.items():
        if isinstance(name, str):
            try:
                plain[_as_json(name, left, 0)] = _as_json(value, left, 0)
            except (_NotPlainError, UnicodeEncodeError):  # half of a surrogate pair
                continue
    return plain


def _as_json(value: Any, left: list[int], depth: int) -> Any:
    left[0] -= 8 + (len(value.encode()) if isinstance(value, str) else 0)  # with what stands between values
    if left[0] < 0 or depth > MAX_DEPTH:
        raise _NotPlainError
    if isinstance(value, list | tuple):
        return [_as_json(item, left, depth + 1) for item in value]
    if isinstance(value, dict):
        return {str(_as_json(key, left, MAX_DEPTH)): _as_json(item, left, depth + 1) for key, item in value.items()}
    if value is None or (isinstance(value, int) and value.bit_length() <= 64):
        return value
    if isinstance(value, float) and isfinite(value):
        return value
    if isinstance(value, str):
        return str(value)
    raise _NotPlainError
