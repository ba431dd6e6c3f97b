"""Shared by the benchmarks: sections of RESULTS.md, medians with quartiles, a description of the machine."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import quantiles

RESULTS = Path(__file__).parent / "RESULTS.md"


def write_section(title: str, lines: Iterable[str]) -> None:
    """Replace the section `## title` of RESULTS.md, or append it; other sections stay as they are."""
    head, *sections = re.split(r"^(?=## )", RESULTS.read_text() if RESULTS.exists() else "# Results\n\n", flags=re.M)
    section = "\n".join([f"## {title}", "", *lines]).rstrip() + "\n"
    titles = [other.splitlines()[0] for other in sections]
    if f"## {title}" in titles:
        sections[titles.index(f"## {title}")] = section
    else:
        sections.append(section)
    RESULTS.write_text("\n".join(part.rstrip() + "\n" for part in (head, *sections)))


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and quartiles: `1.05 (1.02-1.09)`."""
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """A ratio for each pair of neighbouring runs: what slows down both cancels out."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def processor() -> str:
    """The processor and what it multiplies bfloat16 with: `AMD EPYC with AVX512-BF16`."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", cpuinfo.read_text() if cpuinfo.exists() else "", re.M)
    name = re.sub(r"\(\w+\)| (Processor|CPU)\b", "", names[0]) if names else platform.machine()
    has = getattr(torch.cpu, "get_capabilities", dict)()
    units = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "bf16": "BF16"}
    return f"{name} with {next((unit for field, unit in units.items() if has.get(field)), 'no unit for bfloat16')}"


def machine() -> str:
    """Cores, memory, system, load and versions, in one line."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end, "
        f"{memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}."
    )
