"""Measure a conversion's time and memory, and compare them with the least that any conversion must do.

    python benchmarks/convert.py [--sizes base large] [--pairs 7] [--folder DIR] [--peer CLONE --peer-python PYTHON]

Whole processes that take turns (A, B, C, A, B, C, ...): medians with quartiles, and the median of the pairs' ratios.
``cp`` of the data file reads and writes every byte once. ``cp, sync`` also puts it on the disk, as a conversion does.
``cp, sha256sum, cmp`` does with coreutils what a conversion promises: two hashes and a comparison.

The peer is Huawei's own converter (its copy in JABER-PyTorch, the only one that starts) from a clone of
huawei-noah/Pretrained-Language-Model, unmodified, run by a Python that has tensorflow and torch. Its ``.cuda()`` and
its downloads are replaced in memory. Replaces its section of ``benchmarks/RESULTS.md``.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

from results import spread, write_section

HERE = Path(__file__).parent

PEER = """
import runpy, sys, torch
from unittest.mock import MagicMock
# They are for downloads, which a local conversion does not need.
sys.modules.update(dict.fromkeys(("boto3", "botocore", "botocore.exceptions", "requests", "tqdm"), MagicMock()))
torch.Tensor.cuda = lambda tensor, *args, **kwargs: tensor
sys.path.insert(0, sys.argv[1])
sys.argv[:2] = [sys.argv[1] + "/convert_tf_checkpoint_to_pytorch.py"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["base", "base+lamb", "large"])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument(
        "--folder", type=Path, help="where checkpoints are made, 5 GB for all sizes; a temporary folder"
    )
    parser.add_argument("--peer", type=Path, help="a clone of huawei-noah/Pretrained-Language-Model")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python with tensorflow and torch")
    options = parser.parse_args()
    if options.pairs < 2:
        parser.error("--pairs: quartiles need at least 2")
    with tempfile.TemporaryDirectory(prefix="nezha-bench-") as temporary:
        folder = options.folder or Path(temporary)
        rows = [row for size in options.sizes for row in measure(folder, size, options)]
    lines = [*_head(options.pairs), *rows]
    write_section("Conversion from TensorFlow", lines)
    print("\n".join(lines))


def measure(folder: Path, size: str, options: argparse.Namespace) -> list[str]:
    """The table's rows for one checkpoint."""
    # In another process: a child's peak memory starts at its parent's, so this process stays small.
    made = [sys.executable, str(HERE / "checkpoints.py"), str(folder / size), size]
    prefix = Path(subprocess.run(made, check=True, capture_output=True, text=True).stdout.strip())
    data = Path(f"{prefix}.data-00000-of-00001")
    copy, output = folder / "copy", folder / "output"
    commands: dict[str, Callable[[], list[str]]] = {
        "nezha-convert convert": lambda: [
            *(sys.executable, "-m", "nezha_convert", "convert", str(prefix.parent), str(output)),
            "--json",
        ],
        "cp": lambda: ["cp", str(data), str(copy)],
        "cp, sync": lambda: ["sh", "-c", 'cp "$0" "$1" && sync "$1"', str(data), str(copy)],
        "cp, sha256sum, cmp": lambda: [
            *("sh", "-c", 'cp "$0" "$1" && sha256sum "$0" "$1" && cmp "$0" "$1"', str(data), str(copy)),
        ],
    }
    if options.peer:
        peer = options.peer.resolve() / "JABER-PyTorch" / "NEZHA_PyTorch"
        arguments = ["--tf_checkpoint_path", str(prefix), "--bert_config_file", str(prefix.parent / "bert_config.json")]
        arguments += ["--pytorch_dump_path", str(copy)]
        commands["Huawei's converter"] = lambda: [options.peer_python, "-c", PEER, str(peer), *arguments]
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(options.pairs + 1):
        for name, command in commands.items():
            shutil.rmtree(output, ignore_errors=True)
            copy.unlink(missing_ok=True)
            figures = run(command())
            if number:  # the first round warms the page cache
                runs[name].append(figures)
        print(f"{size}: {number} of {options.pairs}", file=sys.stderr)
    shutil.rmtree(output, ignore_errors=True)
    copy.unlink(missing_ok=True)
    ours = runs["nezha-convert convert"]
    rows = []
    for name, figures in runs.items():
        seconds = [second for second, _ in figures]
        ratio = median(mine / other for (mine, _), (other, _) in zip(ours, figures, strict=True))
        memory = max(mib for _, mib in figures)
        rows.append(
            f"| {size}, {data.stat().st_size / 1e6:,.0f} MB | {name} | {spread(seconds)} | {ratio:.2f} | {memory:.0f} |"
        )
    return rows


def run(command: list[str]) -> tuple[float, float]:
    """Wall-clock seconds and peak MiB of a command."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr
    messages = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command}: exit code {process.returncode}\n{messages.decode()}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def _head(pairs: int) -> list[str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        f"`python benchmarks/convert.py`, {pairs} interleaved rounds, page cache warm, whole processes. "
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}, "
        f"NumPy {version('numpy')}.",
        "",
        "| checkpoint | command | seconds, median (quartiles) | ours / this | peak MiB |",
        "|---|---|---|---|---|",
    ]


if __name__ == "__main__":
    main()
