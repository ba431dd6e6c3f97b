"""Measure a batch of many small checkpoints beside as many separate commands, and kill it in the middle.

    python benchmarks/batch.py [--rows 1000] [--commands 60] [--kills 10] [--folder DIR]

The checkpoints are copies of the fixtures, of many programs; of each hundred one is no NEZHA and one needs a decision.
Replaces its section of ``benchmarks/RESULTS.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from results import machine, write_section
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[1]
KINDS = (
    *("huawei-tf-pretraining", "transformers-4.40.2-pretraining", "huawei-torch-qa", "paddlenlp-pretraining"),
    *("transformers-4.40.2-masked-lm", "huawei-torch-classifier", "bert4torch-pretraining", "jaber-token"),
    *("huawei-tf-squad", "transformers-4.40.2-token-classification"),
)
QUESTION = "huawei-tf-classifier"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
TOOL = (sys.executable, "-m", "nezha_convert")


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--commands", type=int, default=60, help="separate commands: half convert, half verify")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, help="where the files are made; a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nezha-batch-", dir=options.folder) as place:
        folder = Path(place)
        models = make(folder / "models", options.rows)
        by_command, cpu = separate(models, folder / "alone", options.commands // 2)
        lines, counts = [], {}
        for jobs in options.jobs:
            seconds, spent, peak, counts = batch(models, folder / f"out-{jobs}", jobs)
            lines.append(line(f"batch, `--jobs {jobs}`", seconds, spent, options.rows, by_command, cpu, f"{peak:,.0f}"))
            shutil.rmtree(folder / f"out-{jobs}")
        killed = kills(models, folder / "killed", options.kills)
    measured = options.commands // 2
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())
    alone = f"`convert` and `verify` for each, one after the other (computed from {measured} of each)"
    table = [
        f"`python benchmarks/batch.py`: {options.rows:,} checkpoints of {len(KINDS)} kinds, 60 to 400 KB each, "
        f"converted and verified; a thread a process. {outcomes}.",
        "",
        "| how | clock s | processor s | a row: clock | processor | commands / this: clock | processor | peak MiB |",
        "|---|---|---|---|---|---|---|---|",
        line(alone, by_command * options.rows, cpu * options.rows, options.rows, by_command, cpu, ""),
        *lines,
        "",
        f"Killed (SIGKILL, all processes) at {options.kills} moments and begun again, `--jobs 2 --no-verify`:",
        killed,
        "",
        machine(),
    ]
    print("\n".join(table))
    write_section("Batch", table)


def line(how: str, seconds: float, spent: float, rows: int, by_command: float, cpu: float, peak: str) -> str:
    """A line of the table; `by_command` and `cpu` are what separate commands take for a row."""
    per_row = f"{seconds / rows:.2f} | {spent / rows:.2f}"
    ratios = f"{by_command * rows / seconds:.1f} | {cpu * rows / spent:.1f}"
    return f"| {how} | {seconds:,.0f} | {spent:,.0f} | {per_row} | {ratios} | {peak} |"


def make(folder: Path, rows: int) -> Path:
    """The checkpoints."""
    for number in range(rows):
        place = folder / f"model-{number:04}"
        if number % 100 == 50:
            place.mkdir(parents=True)
            table = {"bert.embeddings.position_embeddings.weight": np.zeros((4, 4), "f4")}
            save_file(table, place / "model.safetensors")
        else:
            kind = QUESTION if number % 100 == 75 else KINDS[number % len(KINDS)]
            shutil.copytree(ROOT / "fixtures" / kind, place, ignore=shutil.ignore_patterns("*.npz"))
    return folder


def separate(models: Path, out: Path, count: int) -> tuple[float, float]:
    """Seconds on the clock and of the processor that one row takes by two commands of their own."""
    every = [path for path in sorted(models.iterdir()) if int(path.name[-4:]) % 100 not in (50, 75)]
    chosen, begun, before = every[:count], time.monotonic(), _spent()
    for path in chosen:
        for verb in ("convert", "verify"):
            command = [*TOOL, verb, str(path), str(out / path.name)]
            subprocess.run(command, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.monotonic() - begun) / len(chosen), (_spent() - before) / len(chosen)


def _spent() -> float:
    """Processor seconds of the processes that have ended, and of those that they waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def start(models: Path, out: Path, jobs: int, stdout: int, *more: str) -> subprocess.Popen[str]:
    """A batch that runs."""
    command = [*TOOL, "batch", str(models), "--output", str(out), "--jobs", str(jobs), "--json", *more]
    return subprocess.Popen(
        command, env=ENVIRONMENT, stdout=stdout, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )


def batch(models: Path, out: Path, jobs: int) -> tuple[float, float, float, dict[str, int]]:
    """Seconds on the clock and of the processor, peak MiB of all processes, and how many rows have each outcome."""
    begun, before, peak = time.monotonic(), _spent(), [0.0]
    process = start(models, out, jobs, subprocess.PIPE)
    watcher = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    watcher.start()
    said, _ = process.communicate()
    return time.monotonic() - begun, _spent() - before, peak[0], json.loads(said)["counts"]


def _watch(process: subprocess.Popen[str], peak: list[float]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], sum(map(_resident, _group(process.pid))))
        time.sleep(0.2)


def _group(leader: int) -> Iterable[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if os.getpgid(int(entry.name)) == leader:
                    yield int(entry.name)


def _resident(process: int) -> float:
    """MiB, of which pages that processes share are counted once (PSS)."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def kills(models: Path, out: Path, count: int) -> str:
    """Kill a batch `count` times, each time some rows further on; what became of what was whole."""
    chance = random.Random(21)  # noqa: S311  (no secret)
    rows, whole, at = len(list(models.iterdir())), dict[str, int](), list[int]()
    for number in range(count):
        process = start(models, out, 2, subprocess.DEVNULL, "--no-verify")
        target = len(whole) + rows // (count + 2)
        while len(list(out.glob("*/conversion.json"))) < target and process.poll() is None:
            time.sleep(0.05)
        time.sleep(chance.random())
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(1)
        now = _whole(out)
        changed = {name for name, inode in whole.items() if now.get(name) != inode}
        assert not changed, f"kill {number}: written twice or lost: {changed}"
        whole = now
        at.append(len(whole))
    said, _ = start(models, out, 2, subprocess.PIPE, "--no-verify").communicate()
    report, after = json.loads(said), _whole(out)
    again = {name for name, inode in whole.items() if after.get(name) != inode}
    open_ = [row for row in report["rows"] if row["outcome"] == "failed"]
    left = list(out.glob(".*.part"))
    assert not again and not open_ and not left, (again, open_[:3], left)
    outcomes = ", ".join(f"{number:,} {outcome}" for outcome, number in report["counts"].items())
    return f"with {', '.join(f'{n:,}' for n in at)} outputs whole; none was written twice, none was lost. {outcomes}."


def _whole(out: Path) -> dict[str, int]:
    """The outputs that are there, and the inode of their weights: another one would be written anew."""
    return {
        path.parent.name: path.with_name("model.safetensors").stat().st_ino for path in out.glob("*/conversion.json")
    }


if __name__ == "__main__":
    main()
