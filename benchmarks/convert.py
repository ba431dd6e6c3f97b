"""Measure a conversion's time and memory, and compare them with the least that any conversion must do.

    python benchmarks/convert.py [--checkpoints tensorflow:base ...] [--pairs 7] [--folder DIR]
        [--peer CLONE --peer-python PYTHON] [--transformers-python PYTHON] [--section TITLE]

Whole processes that take turns (A, B, C, A, B, C, ...): medians with quartiles, and the median of the pairs' ratios.
Processor seconds are user and system together, and hardly depend on what else runs; those on the clock do.

``cp`` of the file of the weights reads and writes every byte once. ``cp, openssl`` also hashes both files side by side.
``the limit`` does that in one process, with blocks of 8 MiB in two threads, and puts the copy on the disk. A conversion
besides checks, transposes, counts and compares.

Peers, from a clone of huawei-noah/Pretrained-Language-Model, by a Python that has tensorflow and torch: Huawei's own
converter, and its copy in JABER-PyTorch. Their downloads and ``.cuda()``, and in the former what keeps it from starting
(the name of a module, an argument of argparse), are replaced in memory. For PyTorch and safetensors: `from_pretrained`
and `save_pretrained` of transformers 4.57, the last that has NEZHA. Replaces its section of ``benchmarks/RESULTS.md``;
a run of some checkpoints alone has a section of its own by ``--section``.
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
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import NamedTuple

from results import ratios, spread, write_section

HERE = Path(__file__).parent

KINDS = ("tensorflow", "torch-zip", "torch-legacy", "safetensors", "paddle", "keras")

OURS = "nezha-convert convert"

LIMIT = """
import hashlib, os, sys, threading
BLOCK = 8 << 20
def hashed(path):
    digest, block = hashlib.sha256(), memoryview(bytearray(BLOCK))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
source, copy = sys.argv[1:]
other = threading.Thread(target=hashed, args=(source,))
other.start()
with open(source, "rb") as read, open(copy, "wb") as written:
    while os.sendfile(written.fileno(), read.fileno(), None, BLOCK):
        pass
    hashed(copy)
    os.fsync(written.fileno())
other.join()
"""

PEER = """
import argparse, importlib, runpy, sys, torch
from unittest.mock import MagicMock
# They are for downloads, which a local conversion does not need.
sys.modules.update(dict.fromkeys(("boto3", "botocore", "botocore.exceptions", "requests", "tqdm"), MagicMock()))
torch.Tensor.cuda = lambda tensor, *args, **kwargs: tensor
sys.path.insert(0, sys.argv[1])
if "JABER" not in sys.argv[1]:
    named = sys.modules["pytorch_modeling"] = importlib.import_module("modeling_nezha")
    named.ALBertConfig = named.ALBertForPreTraining = None
    made = argparse._StoreTrueAction.__init__
    argparse._StoreTrueAction.__init__ = lambda self, *args, type=None, **kwargs: made(self, *args, **kwargs)
sys.argv[:2] = [sys.argv[1] + "/convert_tf_checkpoint_to_pytorch.py"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

TRANSFORMERS = """
import sys
from transformers.models.deprecated.nezha.modeling_nezha import NezhaForPreTraining
NezhaForPreTraining.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])
"""


class Run(NamedTuple):
    """One run of a command: seconds of the processor and on the clock, peak MiB."""

    processor: float
    clock: float
    peak: float


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made = ["tensorflow:base", "tensorflow:base+lamb", "tensorflow:large", *(f"{kind}:base" for kind in KINDS[1:])]
    parser.add_argument("--checkpoints", nargs="+", default=made, metavar="KIND:SIZE", help=" ".join(made))
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument(
        "--folder", type=Path, help="where checkpoints are made and kept, 5 GB for all; a temporary folder"
    )
    parser.add_argument("--peer", type=Path, help="a clone of huawei-noah/Pretrained-Language-Model")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python with tensorflow and torch")
    parser.add_argument("--transformers-python", help="a Python with transformers 4.57 and torch")
    parser.add_argument("--section", default="Conversion", help="of benchmarks/RESULTS.md, which this run replaces")
    options = parser.parse_args()
    if options.pairs < 2:
        parser.error("--pairs: quartiles need at least 2")
    with tempfile.TemporaryDirectory(prefix="nezha-bench-") as temporary:
        rows = [
            row for name in options.checkpoints for row in measure(options.folder or Path(temporary), name, options)
        ]
    lines = [*_head(options.pairs), *rows]
    write_section(options.section, lines)
    print("\n".join(lines))


def measure(folder: Path, name: str, options: argparse.Namespace) -> list[str]:
    """The table's rows for one checkpoint, KIND:SIZE."""
    kind, size = name.split(":")
    # In another process: a child's peak memory starts at its parent's, so this process stays small.
    made = [sys.executable, str(HERE / "checkpoints.py"), str(folder / f"{kind}-{size}"), kind, size]
    data = Path(subprocess.run(made, check=True, capture_output=True, text=True).stdout.strip())
    with tempfile.TemporaryDirectory(prefix="output-", dir=folder) as place:
        commands = _commands(kind, size, data, place, options)
        runs: dict[str, list[Run]] = {command: [] for command in commands}
        for number in range(options.pairs + 1):
            for command, words in commands.items():
                figures = run(words)
                if number:  # the first round warms the page cache
                    runs[command].append(figures)
                for path in Path(place).iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            print(f"{name}: {number} of {options.pairs}", file=sys.stderr)
    title = f"{kind} {size}, {data.stat().st_size / 1e6:,.0f} MB"
    if not options.folder:
        shutil.rmtree(data.parent)
    return [f"| {title} | {command} | {_figures(runs[OURS], figures)} |" for command, figures in runs.items()]


def _commands(kind: str, size: str, data: Path, place: str, options: argparse.Namespace) -> dict[str, list[str]]:
    """What takes turns. Each writes into `place`, which is empty before."""
    copy, source = f"{place}/copy", str(data.parent)
    hash_both = 'cp "$0" "$1" && { openssl dgst -sha256 "$0" & openssl dgst -sha256 "$1" && wait $!; }'
    commands = {
        OURS: [sys.executable, "-m", "nezha_convert", "convert", source, f"{place}/output", "--json"],
        "cp": ["cp", str(data), copy],
        "cp, openssl": ["sh", "-c", hash_both, str(data), copy],
        "the limit": [sys.executable, "-c", LIMIT, str(data), copy],
    }
    if options.peer and kind == "tensorflow":
        arguments = ["--tf_checkpoint_path", str(data).split(".data")[0], "--pytorch_dump_path", copy]
        arguments += ["--bert_config_file", f"{source}/bert_config.json"]
        for title, program in (("Huawei's converter", "NEZHA-PyTorch"), ("JABER's", "JABER-PyTorch/NEZHA_PyTorch")):
            if "+" in size and "JABER" not in title:
                continue  # it stops at LAMB's slots
            commands[title] = [options.peer_python, "-c", PEER, str(options.peer.resolve() / program), *arguments]
    if options.transformers_python and kind in ("torch-zip", "torch-legacy", "safetensors"):
        commands["transformers 4.57"] = [options.transformers_python, "-c", TRANSFORMERS, source, f"{place}/output"]
    return commands


def _figures(ours: list[Run], runs: list[Run]) -> str:
    """A row's cells: seconds of the processor and on the clock, how many times those of this row ours are, peak MiB."""
    cells = []
    for mine, theirs in zip(list(zip(*ours, strict=True))[:2], list(zip(*runs, strict=True))[:2], strict=True):
        cells += [spread(theirs), f"{median(ratios(mine, theirs)):.2f}"]
    return " | ".join([*cells, f"{max(one.peak for one in runs):.0f}"])


def run(command: list[str]) -> Run:
    """Run a command, with what it imports compiled and the disk at rest."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    os.sync()
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    assert process.stderr
    messages = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    clock = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command}: exit code {process.returncode}\n{messages.decode()}")
    return Run(usage.ru_utime + usage.ru_stime, clock, usage.ru_maxrss / 1024)


def _head(pairs: int) -> list[str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        f"`python benchmarks/convert.py`, {pairs} interleaved rounds, page cache warm, whole processes. "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end, {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}, NumPy {version('numpy')}.",
        "",
        "| checkpoint | command | processor s (quartiles) | ours / this | s on the clock | ours / this | peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]


if __name__ == "__main__":
    main()
