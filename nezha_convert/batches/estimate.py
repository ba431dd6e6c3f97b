"""How long the rows of a batch will take: by what this folder's rows took, else by rates that were measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from .needs import BESIDE, Needs
from .results import CONVERTED, VERIFIED, Estimate, RowResult

START = 10.0
"""Seconds until a new worker has imported torch and transformers."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Seconds of a step: for each row, and for each GB of its source."""

    row: float
    gigabyte: float


CONVERT, VERIFY, DOWNLOAD = Rate(0.06, 3.3), Rate(0.17, 50.0), Rate(0.5, 10.0)
"""Processor seconds of one core, measured (benchmarks/RESULTS.md, "Batch" and "Conversion"); a download is taken to
have 100 MB a second, which nobody measured here."""


def estimate(needs: Sequence[Needs], done: Iterable[RowResult], jobs: int, verifies: Sequence[bool]) -> Estimate:
    """What the rows with these `needs` will take.

    Args:
        needs: of the open rows.
        done: rows that ran before, whose own seconds are better rates.
        jobs: how many run at once.
        verifies: of each open row, whether it is proved.
    """
    total = sum(
        CONVERT.row + CONVERT.gigabyte * one.nbytes / 1e9
        + ((VERIFY.row + VERIFY.gigabyte * one.nbytes / 1e9) if proved else 0)
        + ((DOWNLOAD.row + DOWNLOAD.gigabyte * one.download / 1e9) if one.download else 0)
        for one, proved in zip(needs, verifies, strict=True)
    )  # fmt: skip
    rates = (
        f"measured, a core a row: convert {CONVERT.row} s a row and {CONVERT.gigabyte} s a GB, verify {VERIFY.row} s a "
        f"row and {VERIFY.gigabyte:g} s a GB, {START:g} s to start a worker; downloads assumed at 100 MB/s"
    )
    ran = [row for row in done if row.outcome in (VERIFIED, CONVERTED) and row.seconds]
    if ran:
        spent, size = sum(sum(row.seconds.values()) for row in ran), sum(row.source_nbytes for row in ran)
        mean = spent / len(ran)
        by_size = spent / size if size else 0.0
        total = sum(max(mean / 2, by_size * one.nbytes) for one in needs) if size else mean * len(needs)
        rates = f"by the {len(ran):,} rows that ran in this folder: {mean:.2f} s a row"
    workers = max(1, min(jobs, len(needs)))
    longest = ceil(len(needs) / workers) / len(needs) if needs else 0
    return Estimate(
        rows=len(needs),
        seconds=(START if needs and any(verifies) else 0) + total * longest,
        download_nbytes=sum(one.download for one in needs),
        output_nbytes=sum(one.nbytes + BESIDE for one in needs if not one.missing),
        rates=rates,
    )
