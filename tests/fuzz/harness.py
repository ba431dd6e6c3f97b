"""One target under atheris: ``python -m fuzz.harness TARGET [libFuzzer's arguments]``. It ends at the first fault."""

from __future__ import annotations

import os
import sys
import tracemalloc
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")

import atheris

with atheris.instrument_imports(include=["nezha_convert"]):
    from . import check as limits
    from .check import check, limit_memory
    from .targets import TARGETS


def main() -> None:
    """Fuzz the target named by the first argument."""
    target = TARGETS[sys.argv[1]]
    limits.SECONDS *= 4  # instrumented code is slower; `python -m fuzz --replay` measures what is kept without it

    def mutate(data: bytes, limit: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.25:  # libFuzzer's own mutation, which knows what the code compared
            return atheris.Mutate(data, limit)
        for _ in range(random.choice((1, 1, 2, 4))):
            data = target.mutated(random, data)
        return data[:limit]

    for seed in target.seeds():
        if check(target, seed) not in ("read",):
            raise SystemExit(f"{sys.argv[1]}: a seed is refused: {check(target, seed)}")
    tracemalloc.start()  # only once: each start and stop leaks kilobytes, and ten minutes of them reach the limit
    limit_memory()
    atheris.Setup([sys.argv[0], *sys.argv[2:]], lambda data: check(target, data) and None, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
