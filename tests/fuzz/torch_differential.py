"""Our reader of PyTorch's files against ``torch.load(weights_only=True, mmap=False)`` on broken ones.

``python -m fuzz.torch_differential``. What we read, torch must read, and every byte must be equal. Both run in a fork,
in which fresh memory is filled with a pattern, another one for each, so that memory that nothing has filled differs.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import re
import resource
import signal
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from pickle import UnpicklingError
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, TextIO

import numpy as np
import torch

from nezha_convert.errors import CheckpointError, UsageError
from nezha_convert.formats.torch.read import read_torch
from nezha_convert.parity.again.unpickle import STAND_INS, Inert

from . import seeds
from .check import MEMORY_DISK
from .targets import TARGETS

Outcome = dict[str, Any]

SECONDS, MEMORY = 5, 4 << 30
"""What torch may take for a file. Some of those that we refuse would run on for years."""

LENIENT = {
    "a member that no tensor needs lies outside of the folder": "file in archive is not in a subdirectory",
    "its version or alignment is damaged": "hasRecord.*version|parse the version|literal for int|with version \\d+",
    "a part of its zip file that no tensor needs is damaged": (
        "failed reading zip archive|retrieving file meta|file \\.data/serialization_id"
    ),
    "an object that is no tensor of the model cannot be made": (
        "TypeError|AttributeError|to unpack|argument list|must be a bool|extension code|NEWOBJ"
    ),
    "a text that is not UTF-8": "UnicodeDecodeError",
    "a tensor of whole numbers asks for gradients": "can require gradients",
    "torch runs on": "SIGALRM",
}
"""What torch refuses a file for that we read: explained in docs/reliability.md."""

STRICT = {
    "its zip file says one thing in two ways, or names no place of a member": (
        "two headers|central directory|multiple disks|zip file version|marked as a folder|same name|overlap|past its"
        " end|stored in|Corrupt extra field"
    ),
    "a record beside the tensors has a wrong checksum": "Bad CRC-32",
    "a protocol that no pickle has": "protocol [0-9]+",
    "a name that is not UTF-8": "UnicodeDecodeError",
    "a name twice": "twice",
    "a storage that is described in two ways, or has another size than its record": "in two ways|has .* expected",
    "a tensor outside of its storage": "in a storage of",
    "a storage that is not there": "does not hold storage|KeyError",
    "a storage without a name and a size": "without a name and a size",
    "a shape that no array has": "shape is not a tuple of sizes",
    "a view of a storage": "a view of a storage",
    "more than its size may cost": "steps in|parts|bits|dimensions|compressed to|far behind|so often|a number of",
    "it holds no dictionary of tensors": "expected a dictionary of tensors|an empty dictionary",
}
"""What we refuse a file for that torch reads: explained in docs/reliability.md."""

BATCH = 200
"""How many files a fork reads."""

PERTURB, MMAP_THRESHOLD = -6, -3
"""Parameters of glibc's mallopt: the pattern of fresh memory, and the size from which it comes as zeros from Linux."""


def mutant(number: int) -> bytes:
    """The mutant `number`, the same each time."""
    random, target = Random(number), TARGETS["torch"]
    data = random.choice(SEEDS)
    for _ in range(random.choice((1, 1, 2, 3))):
        data = target.mutated(random, data)
    return data


SEEDS = seeds.torch()


def ours(file: Path) -> Outcome:
    """The tensors that our reader gives, and the place of their dictionary."""
    try:
        entries, decisions, _ = read_torch((file,))
        found = {name: [e.dtype, list(e.shape), _digest(e.read())] for name, e in entries.items()}
    except (CheckpointError, UsageError) as error:
        return {"refused": error.message}
    return {"read": found, "at": next((d.value for d in decisions if d.field == "tensors read from"), "the top")}


def theirs(file: Path, at: str) -> Outcome:
    """The tensors that torch gives, in the dictionary at `at`."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.alarm(SECONDS)
    try:
        warnings.simplefilter("ignore")
        try:
            loaded, reader = torch.load(file, map_location="cpu", weights_only=True, mmap=False), "torch"
        except UnpicklingError:
            arguments: dict[str, Any] = {"weights_only": False, "mmap": False, "pickle_module": STAND_INS}
            loaded, reader = torch.load(file, map_location="cpu", **arguments), "torch with stand-ins"
        for key in at.split(".") if at != "the top" else ():
            loaded = loaded[key]
        loaded = loaded.fields([1 << 24]) if isinstance(loaded, Inert) else loaded
        items = dict.items(loaded) if isinstance(loaded, dict) else ()
        tensors = {name: value for name, value in items if isinstance(value, torch.Tensor) and type(name) is str}
        return {"by": reader, "read": {name: _described(value) for name, value in tensors.items()}}
    except Exception as error:  # any error of torch is an answer
        return {"refused": f"{type(error).__name__}: {error}"[:300]}
    finally:
        signal.alarm(0)


def _described(tensor: torch.Tensor) -> list[Any]:
    tensor = torch.Tensor.detach(tensor)
    if tensor.layout != torch.strided:
        return [str(tensor.dtype), list(tensor.shape), "not strided"]
    values = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return [kind := str(tensor.dtype).removeprefix("torch."), list(tensor.shape), _digest(values, kind == "bool")]


def _digest(values: np.ndarray, truth: bool = False) -> str:
    """Of the bytes; of bools whether each is true, since a byte of 7 is true, and NumPy copies it as 1."""
    truth = truth or values.dtype == bool
    return hashlib.sha256((np.asarray(values).reshape(-1).view("u1") != 0 if truth else values).tobytes()).hexdigest()


def pairs(files: Sequence[bytes]) -> Iterator[tuple[Outcome, Outcome]]:
    """Our outcome and torch's for each of `files`, from a fork, and from another one after each that kills it."""
    done = 0
    while done < len(files):
        readable, writable = os.pipe()
        child = os.fork()
        if not child:
            os.close(readable)
            with os.fdopen(writable, "w") as out:
                _answer(files[done:], out)
            os._exit(0)
        os.close(writable)
        with os.fdopen(readable) as result:
            answers: list[Outcome] = [json.loads(line) for line in result]
        _, status = os.waitpid(child, 0)
        if status:
            died = {"died": signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else str(status)}
            answers += [died] * (2 - len(answers) % 2)
        yield from zip(answers[::2], answers[1::2], strict=True)
        done += len(answers) // 2


def _answer(files: Sequence[bytes], out: TextIO) -> None:
    """Print both outcomes for each of `files`, with another pattern in fresh memory for each."""
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(MMAP_THRESHOLD, 1 << 30)
    with TemporaryDirectory(prefix="fuzz-", dir=MEMORY_DISK) as folder:
        file = Path(folder) / "pytorch_model.bin"
        for data in files:
            file.write_bytes(data)
            mallopt(PERTURB, 0x5A)
            mine = ours(file)
            print(json.dumps(mine), file=out, flush=True)
            mallopt(PERTURB, 0xC3)
            print(json.dumps(theirs(file, mine.get("at", "the top"))), file=out, flush=True)


def verdict(mine: Outcome, other: Outcome) -> str:
    """ "agree: ...", "we alone ...", or "DISAGREE: ..."."""
    if "died" in mine:
        return f"DISAGREE: our reader died ({mine['died']})"
    if "read" in mine and "read" in other:
        same = mine["read"] == other["read"]
        return f"agree: we and {other.get('by')} read the same" if same else "DISAGREE: other tensors"
    if "read" in mine:
        kind = next((kind for kind, pattern in LENIENT.items() if re.search(pattern, str(other))), "")
        return f"we alone read it: {kind}" if kind else f"DISAGREE: we alone read it: torch {json.dumps(other)[:200]}"
    if "read" in other:
        if other.get("by") != "torch":
            return "agree: torch's own list refuses it too"
        kind = next((kind for kind, pattern in STRICT.items() if re.search(pattern, mine["refused"])), "")
        return f"we alone refuse it: {kind}" if kind else f"DISAGREE: we alone refuse it: {mine['refused'][:200]}"
    return "agree: both refuse it" if "refused" in other else f"agree: we refuse it, torch ends ({other['died']})"


def compare(data: bytes) -> tuple[str, Outcome]:
    """The verdict on the file `data`, and our outcome."""
    ((mine, other),) = pairs([data])
    return verdict(mine, other), mine


def main() -> int:
    """Run the command. The exit code is 1 if something differs, or if only one reads it for an unknown reason."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.torch_differential", description=__doc__)
    parser.add_argument("--mutants", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first mutant")
    options = parser.parse_args()
    torch.set_num_threads(1)
    verdicts: Counter[str] = Counter()
    numbers = range(options.first, options.first + options.mutants)
    batches = (list(map(mutant, numbers[at : at + BATCH])) for at in range(0, len(numbers), BATCH))
    for number, (mine, other) in zip(numbers, chain.from_iterable(map(pairs, batches)), strict=True):
        outcome = verdict(mine, other)
        if not verdicts[outcome] or outcome.startswith("DISAGREE"):
            print(f"{outcome}; mutant {number}: {str(mine.get('refused', 'read'))[:200]}", flush=True)
        verdicts[outcome] += 1
    for outcome, count in verdicts.most_common():
        print(f"{count:6,}  {outcome}")
    return int(any(outcome.startswith("DISAGREE") for outcome in verdicts))


if __name__ == "__main__":
    raise SystemExit(main())
