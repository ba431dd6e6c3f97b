"""Measure time and memory for checkpoints of many tensors, many layers or many gigabytes.

    python benchmarks/scale.py [--folder DIR]

Each figure is of its own process: CPU seconds of the work alone, and peak memory of the whole process. Files past 4 GiB
are sparse if they are only read, and real if they are written, which takes 5 GB of disk. Replaces its sections of
``benchmarks/RESULTS.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results import machine, write_section

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

COUNTS = (10_000, 100_000)
LAYERS = (200, 500, 2_000)
FORMATS = (
    "TensorFlow",
    "safetensors",
    "safetensors, 20 a shard",
    "PyTorch",
    "PyTorch, legacy",
    "PaddlePaddle",
    "Keras",
)
LARGE = ("TensorFlow", "safetensors", "PyTorch", "PaddlePaddle")


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the files are made; a temporary folder")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), help="of the sections")
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        name, *arguments = options.work
        json.dump(WORK[name](*arguments), sys.stdout)
        return
    with tempfile.TemporaryDirectory(prefix="nezha-scale-", dir=options.folder) as folder:
        tables = {title: SECTIONS[title][1](Path(folder)) for title in options.only}
    for title, table in tables.items():  # last: `machine` loads torch, and a process's peak memory starts at ours
        lines = [f"`python benchmarks/scale.py`: {SECTIONS[title][0]}", "", *table, "", machine()]
        print("\n".join(lines))
        write_section(f"Scale: {title}", lines)


def _run(name: str, *arguments: object) -> tuple[dict[str, Any], float]:
    """The result of the work, and the peak MiB of its process and of those that it started."""
    command = [sys.executable, __file__, "--work", name, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout
    document = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command}: exit code {os.waitstatus_to_exitcode(status)}")
    result: dict[str, Any] = json.loads(document)
    print(name, *arguments, result, file=sys.stderr)
    return result, max(usage.ru_maxrss, result.get("child_kib", 0)) / 1024


def _many(folder: Path) -> list[str]:
    rows = list(_table("format", *(f"µs a tensor, of {n:,} | peak MiB" for n in COUNTS), "slower by"))
    for format in FORMATS:
        cells, times = [], []
        for count in COUNTS:
            with tempfile.TemporaryDirectory(dir=folder) as place:
                _run("make", format, count, place)
                result, memory = _run("open", format, place)
            assert result["tensors"] == count
            times.append(result["seconds"] / count * 1e6)
            cells += [f"{times[-1]:.1f}", f"{memory:.0f}"]
        rows.append(_row(format, *cells, f"{times[1] / times[0]:.2f}"))
    return rows


def _layers(folder: Path) -> list[str]:
    rows = list(_table("layers", "tensors", "CPU seconds", "ms a tensor", "peak MiB"))
    for layers in LAYERS:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            _run("layers", layers, place)
            result, memory = _run("convert", place)
        each = 1000 * result["seconds"] / result["tensors"]
        rows.append(
            _row(f"{layers:,}", f"{result['tensors']:,}", f"{result['seconds']:.1f}", f"{each:.2f}", f"{memory:.0f}")
        )
    return rows


def _large(folder: Path) -> list[str]:
    rows = list(_table("format", "open, ms", "read, s", "peak MiB", "written and read, s", "peak MiB"))
    for format in LARGE:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            result, memory = _run("sparse", format, place)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            written, peak = _run("written", format, place)
        ms = f"{1000 * result['open']:.1f}"
        cells = (ms, f"{result['seconds']:.1f}", f"{memory:.0f}", f"{written['seconds']:.1f}", f"{peak:.0f}")
        rows.append(_row(format, *cells))
    return rows


def _table(*titles: str) -> tuple[str, str]:
    head = _row(*titles)
    return head, "|" + "---|" * (head.count("|") - 1)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


SECTIONS: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "many tensors": (
        "the list of tensors of a checkpoint is read, of one number each (PaddlePaddle's: 256).",
        _many,
    ),
    "many layers": ("`convert` of a TensorFlow checkpoint with layers of width 2.", _layers),
    "past 4 GiB": (
        "a tensor of 2^31 + 4 numbers of 16 bits, and three bytes behind it, past 2^32. A sparse file, opened and read "
        "to the end, every number compared; and a real one, written by our writer and read the same way. "
        "PyTorch maps its file: pages that were read count as memory, which the system takes back when it needs it.",
        _large,
    ),
}
"""For each section, what is measured, and the function that does it."""

# The work of the processes


def _seconds() -> float:
    return sum(os.times()[:4])


def _make(format: str, count: str, place: str) -> dict[str, Any]:
    import huge

    name, write, _ = huge.MANY[format]
    write(Path(place) / name, int(count))
    return {}


def _open(format: str, place: str) -> dict[str, Any]:
    import resource

    import huge

    if format.startswith("PyTorch"):
        import torch  # noqa: F401  (so that its import does not count)
    name, _, read = huge.MANY[format]
    begun = _seconds()
    entries = read(Path(place) / name)
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"seconds": _seconds() - begun, "tensors": len(entries), "child_kib": child}


def _make_layers(layers: str, place: str) -> dict[str, Any]:
    import huge

    huge.write_layers(Path(place), int(layers))
    return {}


def _convert(place: str) -> dict[str, Any]:
    import nezha_convert

    begun = _seconds()
    report = nezha_convert.convert(place, Path(place) / "output")
    return {"seconds": _seconds() - begun, "tensors": len(report.written)}


def _sparse(format: str, place: str) -> dict[str, Any]:
    import huge

    if format == "PyTorch":
        import torch  # noqa: F401
    name, make, _, read = huge.LARGE[format]
    file = make(Path(place) / name)
    begun, clock = _seconds(), time.perf_counter()
    entries = read(file)
    opened = time.perf_counter() - clock
    huge.check_large(entries)
    return {"open": opened, "seconds": _seconds() - begun}


def _written(format: str, place: str) -> dict[str, Any]:
    import huge

    name, _, write, read = huge.LARGE[format]
    begun = _seconds()
    write(Path(place) / name, huge.both())
    huge.check_large(read(Path(place) / name))
    return {"seconds": _seconds() - begun}


WORK: dict[str, Callable[..., dict[str, Any]]] = {
    "make": _make,
    "open": _open,
    "layers": _make_layers,
    "convert": _convert,
    "sparse": _sparse,
    "written": _written,
}

if __name__ == "__main__":
    main()
