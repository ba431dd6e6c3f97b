"""``python -m fuzz``: fuzzes each target for some seconds, or replays the inputs that were kept."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

from .targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


def main() -> int:
    """Run the command. The exit code is 1 if a fault was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all without any")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument(
        "--work", type=Path, default=Path("fuzz-work"), help="where inputs that reached new lines are kept"
    )
    parser.add_argument("--replay", action="store_true", help="only run the inputs that were kept, to measure coverage")
    options = parser.parse_args()
    names = options.targets or list(TARGETS)
    if unknown := {*names} - TARGETS.keys():
        parser.error(f"no target {', '.join(sorted(unknown))}; expected {', '.join(TARGETS)}")
    if options.replay:
        return sum(_replay(name, options.work) for name in names)
    if find_spec("atheris") is None:
        parser.error("atheris is not installed; pip install -e '.[test,fuzz]'")
    return max([_fuzz(name, options.seconds, options.work) for name in names])


def _fuzz(name: str, seconds: int, work: Path) -> int:
    folder, faults = work / name, work / "faults" / name
    for path in (folder, faults):
        path.mkdir(parents=True, exist_ok=True)
    for seed in TARGETS[name].seeds():
        (folder / sha256(seed).hexdigest()).write_bytes(seed)
    more = [str(CORPUS / name)] if (CORPUS / name).is_dir() else []
    command = [sys.executable, "-m", "fuzz.harness", name, str(folder), *more, f"-artifact_prefix={faults}/"]
    # libFuzzer's timeout is of the clock, for what never ends; `check` bounds the processor's time
    command += [f"-max_total_time={seconds}", "-max_len=65536", "-timeout=600", "-rss_limit_mb=4096"]
    command += ["-print_final_stats=1", "-use_value_profile=1"]
    begun = monotonic()
    with open(work / f"{name}.log", "w") as log:
        code = subprocess.run(command, cwd=Path(__file__).parents[1], stdout=log, stderr=log).returncode
    text = (work / f"{name}.log").read_text(errors="replace")
    runs = re.findall(r"number_of_executed_units: (\d+)|Done (\d+) runs", text)
    executed = int(next(filter(None, runs[-1]))) if runs else 0
    outcome = "no fault" if code == 0 else f"FAULT, see {work / f'{name}.log'} and {faults}"
    print(f"{name:12} {executed:>10,} executions in {monotonic() - begun:4.0f} s: {outcome}", flush=True)
    return int(code != 0)


def _replay(name: str, work: Path) -> int:
    from .check import check

    inputs = [
        *TARGETS[name].seeds(),
        *(p.read_bytes() for d in (work / name, CORPUS / name) for p in sorted(d.glob("*"))),
    ]
    outcomes = [check(TARGETS[name], data) for data in inputs]
    print(f"{name:12} {len(inputs):>6,} inputs, {outcomes.count('read'):,} read, the rest refused", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
