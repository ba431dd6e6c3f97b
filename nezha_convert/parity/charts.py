"""The three charts of a verification, as SVG. Their colours are CSS variables, which the page around them sets."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from .results import EXPONENTS, Comparison, WeightStatistics

FLOAT32_NOISE = 2.0**-24
"""The relative error of rounding one number to float32. Few float32 computations have smaller errors."""

LIGHT = """--letters: system-ui, "Segoe UI", Roboto, "Noto Sans CJK SC", sans-serif;
  --paper: #f6f7f9; --card: #ffffff; --ink: #1a2029; --muted: #5b6675; --line: #dfe3e9; --band: #e4e9f1;
  --good: #13703f; --bad: #c02626; --note: #8a5a00;
  --series-1: #1f5fbf; --series-2: #b2570a; --series-3: #7a3fb0;"""
"""The variables on light paper, and those of the page around the charts."""

DARK = """--paper: #12161c; --card: #1a2029; --ink: #e8ecf2; --muted: #9aa6b6; --line: #303946; --band: #27303d;
  --good: #4cc38a; --bad: #ff7a73; --note: #e5b454;
  --series-1: #77adff; --series-2: #f0a04b; --series-3: #c79bf2;"""

_INK, _MUTED, _GRID, _BAD, _BAND = "#010101", "#020202", "#030303", "#040404", "#050505"
_SERIES = ("#060606", "#070707", "#080808")
_VARIABLES = {_INK: "ink", _MUTED: "muted", _GRID: "line", _BAD: "bad", _BAND: "band"} | dict(
    zip(_SERIES, ("series-1", "series-2", "series-3"), strict=True)
)
_MARKERS = ("o", "s", "D")
_WIDTH = 4.1  # inches: on a phone the chart has the full width, and letters keep their size

_STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "path.simplify": False,
}


def error_chart(comparisons: Sequence[Comparison]) -> str:
    """The largest error of each tensor, in the order in which the model computes them, and the tolerances."""
    names = [tensor.name for tensor in max((c.tensors for c in comparisons), key=len)]

    def draw(axes: Any) -> None:
        errors = [t.relative_error for c in comparisons for t in c.tensors if 0 < t.relative_error < math.inf]
        allowed = [comparison.tolerance for comparison in comparisons]
        low = min([FLOAT32_NOISE, *errors]) / 4
        high = 4 * max([*allowed, *errors])
        axes.axvspan(low, FLOAT32_NOISE, color=_BAND, linewidth=0, label="float32 noise floor, 6e-08")
        for number, comparison in enumerate(comparisons):
            color, marker = _SERIES[number % 3], _MARKERS[number % 3]
            label = f"{_short(comparison.reference)}, in {comparison.arithmetic}"
            axes.plot([], [], marker, color=color, label=label, markersize=5)
            for tensor in comparison.tensors:
                at = min(max(tensor.relative_error, low), high)  # zero and infinite errors are drawn at the edges
                style = {"color": color, "markersize": 5} if tensor.passed else {"color": _BAD, "markersize": 8}
                axes.plot(at, names.index(tensor.name), marker if tensor.passed else "X", clip_on=False, **style)
        _allowed(axes, comparisons)
        axes.set(
            xscale="log", xlim=(low, high), ylim=(len(names) - 0.4, -0.6), xlabel="largest error / range of tensor"
        )
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), handletextpad=0.6, labelspacing=0.3)

    legend = 1 + len(comparisons) + len({comparison.tolerance for comparison in comparisons})
    return _svg("Largest error of each tensor", draw, 0.8 + 0.19 * (len(names) + legend))


def histogram_chart(comparisons: Sequence[Comparison]) -> str:
    """How many values have an error of each size."""

    def draw(axes: Any) -> None:
        seen = [i for c in comparisons for i, count in enumerate(c.histogram) if count]
        first, last = min(seen, default=0), max(seen, default=0)
        edges = [2.0 ** (exponent - 1) for exponent in EXPONENTS[first : last + 1]]
        edges.append(2 * edges[-1])
        for number, comparison in enumerate(comparisons):
            color = _SERIES[number % 3]
            label = f"{_short(comparison.reference)}, in {comparison.arithmetic}"
            counts = comparison.histogram[first : last + 1]
            axes.stairs(counts, edges, color=color, fill=number == 0, alpha=0.75 if number == 0 else 1, label=label)
        _allowed(axes, comparisons)
        axes.set(xscale="log", yscale="log", xlabel="error / range of tensor", ylabel="values")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), handletextpad=0.6, labelspacing=0.3)

    return _svg("How many values have an error of which size", draw, 2.6 + 0.19 * 2 * len(comparisons))


def weights_chart(parts: Sequence[WeightStatistics]) -> str:
    """Standard deviation and largest magnitude of each part's weights. A damaged layer differs from its neighbours."""
    from matplotlib.ticker import LogLocator, NullFormatter

    def draw(axes: Any) -> None:
        rows = range(len(parts))
        largest = [max(abs(part.low), abs(part.high)) for part in parts]
        axes.hlines(rows, [part.std for part in parts], largest, color=_GRID, linewidth=2.5)
        axes.plot([part.std for part in parts], rows, "o", color=_SERIES[0], markersize=5, label="standard deviation")
        axes.plot(largest, rows, "D", color=_SERIES[1], markersize=5, label="largest magnitude")
        axes.set(xscale="log", ylim=(len(parts) - 0.4, -0.6), xlabel="weight")
        # Over a small range, ticks at powers of ten alone could leave the axis without a number.
        few = max(largest) < 50 * min(part.std for part in parts)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_yticks(rows, [part.part for part in parts])
        axes.tick_params(axis="y", length=0)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), handletextpad=0.6, labelspacing=0.3)

    return _svg("Weights by part", draw, 0.8 + 0.19 * (len(parts) + 2))


def _allowed(axes: Any, comparisons: Sequence[Comparison]) -> None:
    """A line at each tolerance. If there are several, each has the colour of its comparison."""
    colors = {comparison.tolerance: _SERIES[i % 3] for i, comparison in reversed([*enumerate(comparisons)])}
    for tolerance, color in sorted(colors.items()):
        color = color if len(colors) > 1 else _BAD
        axes.axvline(tolerance, color=color, linestyle="--", linewidth=1.2, label=f"allowed, {tolerance:g}")


def _short(reference: str) -> str:
    return reference.replace("the oracle with weights rounded to", "oracle, weights in").replace("the oracle", "oracle")


def _svg(title: str, draw: Callable[[Any], None], height: float) -> str:
    """What `draw` draws, as SVG that takes the width, the font and the colours of the page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # With the salt, ids are the same in each run and differ between charts.
    style: Any = {**_STYLE, "svg.hashsalt": title}
    with rc_context(style):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)
    svg = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', f' role="img" aria-label="{title}"', svg, count=1)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 var(--letters)", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    return svg
