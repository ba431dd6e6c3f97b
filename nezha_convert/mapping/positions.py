"""Stored tables of relative positions: they say with which clip distance the program that saved them computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from ..checkpoint import TensorEntry
from ..errors import MappingError
from ..families.rules import Drop, Match
from ..text import quoted

_LONGEST = 2048
"""The largest clip distance that is looked for. Released models have 64 and 127."""

_SPACING = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
"""The distance of two numbers near 1, in types in which the sines are rounded visibly."""


def table(clip: int, size: int) -> np.ndarray:
    """R, [2 * clip + 1, size]: row p has sin(p / 10000^(2m / size)) in column 2m and the cosine in column 2m + 1."""
    angles = np.arange(2 * clip + 1)[:, None] * 10000.0 ** (-2.0 * np.arange(size // 2) / size)
    rows = np.zeros((2 * clip + 1, size))
    rows[:, 0 : 2 * (size // 2) : 2], rows[:, 1::2] = np.sin(angles), np.cos(angles)
    return rows


class Table(NamedTuple):
    """A stored table of relative positions.

    Attributes:
        entry: [2K + 1, d], or expanded to [L, L, d].
        pattern: a glob of the names of such tables.
        trained: its program has it as a parameter, which may have been trained.
    """

    entry: TensorEntry
    pattern: str
    trained: bool = False


def is_table(meaning: Match | Drop | None) -> TypeGuard[Drop]:
    """Whether a name is that of a table of relative positions."""
    return isinstance(meaning, Drop) and meaning.positions


def stored_clip(tables: Iterable[Table], expected: int) -> int | None:
    """The clip distance with which `tables` were made; None if there are none.

    Every number of every table is compared with what the model computes.

    Args:
        tables: of any layers.
        expected: the clip distance to try first.

    Raises:
        MappingError: a table is none of NEZHA's, or two have different clip distances.
    """
    clip: int | None = None
    for table in tables:
        own = _clip_of(table, expected if clip is None else clip)
        if clip not in (None, own):
            raise MappingError(
                f"{table.entry.name}: a table of positions clipped at {own}; another layer's is at {clip}"
            )
        clip = own
    return clip


def _clip_of(stored: Table, expected: int) -> int:
    """The clip distance of one table."""
    entry = stored.entry
    expanded = len(entry.shape) == 3 and entry.shape[0] == entry.shape[1]
    compact = len(entry.shape) == 2 and entry.shape[0] % 2 == 1
    if not (expanded or compact) or not all(entry.shape):
        raise MappingError(
            f"{entry.name}: its shape is {list(entry.shape)}, expected a table of positions [2K + 1, head size] or "
            "[L, L, head size]",
            hint="nezha-convert inspect SOURCE --tensors shows what the checkpoint holds.",
        )
    first = next(iter(entry.blocks()))[0].astype(np.float64)
    clips = [entry.shape[0] // 2] if compact else _candidates(first[0], expected, entry) or [expected]
    for clip in clips:
        rows = table(clip, entry.shape[-1])
        computed = rows[0] if compact else rows[np.clip(np.arange(entry.shape[1]), 0, clip) + clip]
        if clip == clips[-1] or np.abs(first - computed).max() <= _allowed(entry, clip):
            break
    if departure := _departure(entry, rows, clip, compact):
        raise _departing(stored, clip, departure)
    return clip


def _candidates(nearest: np.ndarray, expected: int, entry: TensorEntry) -> list[int]:
    """The clip distances K, `expected` first, whose row R[K] is `nearest`: what a token has for itself."""
    rows = table(_LONGEST // 2, len(nearest))  # rows 0 to _LONGEST
    errors = np.abs(rows - nearest).max(-1)
    clips = [clip for clip in range(1, _LONGEST + 1) if errors[clip] <= _allowed(entry, clip)]
    return sorted(clips, key=lambda clip: clip != expected)


def _allowed(entry: TensorEntry, clip: int) -> float:
    """The largest error of a stored number. Angles go up to 2K, and the programs compute them in float32."""
    return max(2 * clip * 2.0**-23, 2.0**-22, _SPACING.get(entry.dtype, 0.0))


class _Departure(NamedTuple):
    """How far a table is from the computed one: the first row that is, and the largest and mean errors of all."""

    row: int
    largest: float
    mean: float


def _departure(entry: TensorEntry, rows: np.ndarray, clip: int, compact: bool) -> _Departure | None:
    """None if every row of `entry` is as it is computed."""
    single = rows.astype(np.float32)
    columns = np.arange(entry.shape[1])
    wrong: int | None = None
    row, largest, total = 0, 0.0, 0.0
    for block in entry.blocks():
        for stored in block:
            computed = single[row] if compact else single[np.clip(columns - row, -clip, clip) + clip]
            errors = np.abs(stored.astype(np.float64) - computed)
            error = float(errors.max())
            if not error <= _allowed(entry, clip):  # NaN is none
                wrong = row if wrong is None else wrong
            largest, total, row = max(largest, error), total + float(errors.mean()), row + 1
    return None if wrong is None else _Departure(wrong, largest, total / row)


def _departing(stored: Table, clip: int, departure: _Departure) -> MappingError:
    """The error for a table that is not what the model computes."""
    entry, allowed = stored.entry, _allowed(stored.entry, clip)
    what = (
        f"{entry.name}: a table of relative positions that its program trains; NEZHA computes its own, clipped at "
        f"{clip}, and has no parameter for another. Row"
        if stored.trained
        else f"{entry.name}: row"
    )
    far = f"off by up to {departure.largest:.1e}, by {departure.mean:.1e} on average, allowed {allowed:.0e}"
    further = (
        f"To train the other weights further without it: nezha-convert convert SOURCE OUTPUT --drop "
        f"{quoted(stored.pattern)}. Until then the outputs are others; nezha-convert verify SOURCE OUTPUT says by "
        "how much."
    )
    return MappingError(
        f"{what} {departure.row} is not what the model computes ({far}), so its outputs would change without it",
        hint=further if stored.trained else "nezha-convert inspect SOURCE --tensors shows what the checkpoint holds.",
    )


def config_clip(raw: Mapping[str, Any], default: int) -> int:
    """The clip distance that a config says, to begin the search with."""
    clip = raw.get("max_relative_position", default)
    return clip if type(clip) is int and 0 < clip <= _LONGEST else default
