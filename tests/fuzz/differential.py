"""Our reader against TensorFlow's own on broken bundles: ``python -m fuzz.differential PYTHON_WITH_TENSORFLOW``."""

from __future__ import annotations

import argparse
import json
import subprocess
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from nezha_convert.errors import CheckpointError

from .broken_bundles import mutated
from .targets import SEPARATOR, TARGETS


def write(folder: Path, count: int) -> list[tuple[str, Path]]:
    """Write `count` bundles under `folder`, the same each time: (what is wrong with it, its prefix)."""
    target, written = TARGETS["bundle"], []
    seeds = [seed for seed in target.seeds() if b"_OBJECT_GRAPH" not in seed]  # whose tensors have other names here
    for number in range(count):
        random = Random(number)
        parts = random.choice(seeds).split(SEPARATOR)
        wrong, parts[0] = mutated(random, parts[0])
        place = folder / f"{number:05d}"
        place.mkdir()
        for name, part in zip(target.files, parts, strict=False):
            if part:
                (place / name).write_bytes(part)
        written.append((wrong, place / "model.ckpt"))
    return written


def ours(prefix: Path) -> dict[str, Any]:
    """The outcome of our reader, in the form of tf_side.py."""
    try:
        return {"read": json.loads(json.dumps(TARGETS["bundle"].read(prefix.parent)))}
    except CheckpointError as error:
        return {"refused": error.message}


def theirs(prefixes: list[Path], python: str) -> list[dict[str, Any]]:
    """The outcomes of TensorFlow, in the environment of `python`."""
    command = [python, str(Path(__file__).with_name("tf_side.py"))]
    lines = "".join(f"{prefix}\n" for prefix in prefixes)
    done = subprocess.run(
        command, input=lines, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


EXPLAINED = (
    ("is compressed", "a compressed block: TensorFlow's table reader inflates it, though its writer makes none"),
    ("a packed block", "a compressed block: TensorFlow's table reader inflates it, though its writer makes none"),
    ("part", "parts of a variable that are not those of its shape: TensorFlow reads those that fit"),
    ("more than a table", "bytes in the footer or the metaindex that no bundle has: TensorFlow does not look"),
    ("keys must rise", "keys out of order or twice: TensorFlow does not look, and finds some of them or others"),
    ("separator", "separators out of order: TensorFlow does not look, and finds the names that they lead to"),
    ("big-endian", "a big-endian bundle: TensorFlow swaps the bytes"),
    ("utf-8", "a name that is no text: TensorFlow's reader takes bytes"),
    ("variable-length number", "a number written longer than it is: TensorFlow takes it"),
    ("lies in shard", "a shard number past 32 bits: TensorFlow drops the upper bits"),
    ("data file(s), but", "a number of data files of which some are not there: TensorFlow opens those that it needs"),
    ("data files", "a number of data files past 32 bits, or of none: TensorFlow drops the upper bits"),
    ("wire type", "a field of another kind than the format's: TensorFlow skips it"),
    ("a message is expected", "a field of another kind than the format's: TensorFlow skips it"),
    ("cannot have", "a field of another kind than the format's: TensorFlow skips it"),
    ("a dimension of size", "a dimension of another kind than the format's: TensorFlow skips it"),
    ("no array has", "more than 32 dimensions"),
    (
        "restarts",
        "restarts that no block has: TensorFlow leaves the block's tensors out without a word, or finds them still",
    ),
    ("has checksum", "a block whose checksum is wrong: TensorFlow leaves the block's tensors out without a word"),
    (
        "does not fit into the file",
        "a block outside of the file: TensorFlow leaves the block's tensors out without a word",
    ),
    ("past its end", "a record past its block: TensorFlow leaves the block's tensors out without a word"),
    ("asks not to be read by", "versions that are not to read it, of which TensorFlow's is none"),
    ("asks for a reader of version", "a version past 31 bits: TensorFlow takes it for a negative one"),
    ("do not have the checksum", "a field of another kind than the format's: TensorFlow skips it"),
    ("holds no numbers", "a type that holds no numbers"),
)
"""Part of our message about a bundle that TensorFlow reads, and why we refuse it."""


def verdict(mine: dict[str, Any], other: dict[str, Any]) -> str:
    """ "agree: ...", "stricter: ..." if only we refuse it, for a known reason, or "DISAGREE: ..."."""
    if "read" in mine and "read" in other:
        return "agree: both read the same" if mine["read"] == other["read"] else "DISAGREE: other tensors"
    if "read" in mine:
        return f"DISAGREE: TensorFlow alone does not read it: {other}"
    if "died" in other:
        return f"agree: we refuse it, TensorFlow's process dies of it ({other['died']})"
    if "refused" in other:
        return "agree: both refuse it"
    for part, reason in EXPLAINED:
        if part in mine["refused"]:
            return f"stricter: {reason}"
    return f"DISAGREE: we alone refuse it: {mine['refused'][-200:]}"


def main() -> int:
    """Run the command. The exit code is 1 if an outcome is not explained."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.differential", description=__doc__)
    parser.add_argument("python", help="of an environment with TensorFlow")
    parser.add_argument("--bundles", type=int, default=500)
    options = parser.parse_args()
    verdicts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    with TemporaryDirectory() as folder:
        written = write(Path(folder), options.bundles)
        answers = theirs([prefix for _, prefix in written], options.python)
        for number, ((wrong, prefix), other) in enumerate(zip(written, answers, strict=True)):
            outcome = verdict(ours(prefix), other)
            verdicts[outcome] += 1
            examples.setdefault(outcome, f"{number} ({wrong})")
    for outcome, count in verdicts.most_common():
        print(f"{count:5}  {outcome}; first: {examples[outcome]}")
    return int(any(outcome.startswith("DISAGREE") for outcome in verdicts))


if __name__ == "__main__":
    raise SystemExit(main())
