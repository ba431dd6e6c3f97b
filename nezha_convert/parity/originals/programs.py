"""Runs the original programs, unmodified, on a source checkpoint.

None of their code is here. Huawei's two programs run from the user's clone of Huawei's repository, and transformers
4.40.2 from a folder of its own in the user's cache. Each runs in its own process (`process.py`) on the CPU. Nothing is
written beside the checkpoint or into the clone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CPU_INDEX, UsageError, pip_install
from ...files.locks import TemporaryFolder
from ...text import quoted
from ..again.source import Reread
from ..oracle.dialects import dialect_of
from ..oracle.formulas import Array
from ..oracle.model import HEADS

__all__ = ["TRANSFORMERS", "run_original", "run_original_all", "tokenize_original"]

TRANSFORMERS = "transformers==4.40.2"
"""The last release that has all of NEZHA."""

_CLONE_HOLDS = ("NEZHA-TensorFlow/modeling.py", "NEZHA-PyTorch/modeling_nezha.py")
_CLONE_HINT = "git clone https://github.com/huawei-noah/Pretrained-Language-Model CLONE, then pass: --original CLONE"
_TORCH_HINT = pip_install(f"torch {CPU_INDEX}")
_TENSORFLOW_HINT = f"{pip_install(repr('nezha-convert[tf]'))} && {pip_install('--no-deps tf-keras')}"
_TENSORFLOW = {"tensorflow": "tensorflow-cpu", "tf_keras": "tf-keras", "tf_slim": "tf-slim"}
_LACKING = {
    "tensorflow": ("multiple-choice", "causal-lm", "prefix-lm"),
    "pytorch": ("token-classification", "causal-lm", "prefix-lm"),
    "transformers": ("prefix-lm",),
}
"""By original, the heads that it does not have."""

PYTORCH_POSITIONS = 512
"""The longest sequence that NEZHA-PyTorch takes; its table of positions ends there."""

BYTE_BPE: dict[str, tuple[str, dict[str, bool]]] = {
    "multilingual": ("JABER-PyTorch/tokenizationBBPE.py", {"CJK_tokenize": False}),
    "jaber": ("JABER-PyTorch/tokenizationBBPE.py", {}),
    "bbpe": ("BBPE/bbpe/tokenization.py", {}),
}
"""By rules, the tokenizer's file and options.

The multilingual model's own file, BBPE/tokenizationBBPE.py, was deleted after commit 8b60ffe. With the option here,
JABER's file does the same.
"""

CLASSES = {
    "encoder": "Model",
    "pretraining": "ForPreTraining",
    "masked-lm": "ForMaskedLM",
    "causal-lm": "ForMaskedLM",  # whose config says is_decoder
    "prefix-lm": "",
    "next-sentence-prediction": "ForNextSentencePrediction",
    "sequence-classification": "ForSequenceClassification",
    "multiple-choice": "ForMultipleChoice",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
}
"""By head, its class in transformers without the prefix "Nezha"."""


def run_original(
    original: str, checkpoint: Reread, config: Mapping[str, Any], head: str, inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """What the original program computes for one batch. For several batches, `run_original_all` starts it only once."""
    return run_original_all(original, checkpoint, config, head, [inputs])[0]


def run_original_all(
    original: str,
    checkpoint: Reread,
    config: Mapping[str, Any],
    head: str,
    cases: Sequence[Mapping[str, Array | None]],
) -> list[dict[str, Array]]:
    """What the original program computes for several batches, in float32, by the oracle's names.

    Args:
        original: a clone of Huawei's repository, or `TRANSFORMERS`.
        checkpoint: the source. The names of its tensors tell which program runs.
        config: the source's own JSON, unchanged.
        head: one of the oracle's `HEADS`.
        cases: as for `Oracle.forward_all`. A case may also have labels, by the original's names (`labels`;
            `mlm_labels`, `mlm_weights`, `nsp_labels` for TensorFlow; `next_sentence_label`, `start_positions`,
            `end_positions`, `output_attentions` for transformers). Then the original's losses are returned too.

    Raises:
        UsageError: `original` is neither; a package has to be installed; the original lacks the head, the length or
            the clip distance; or it failed, and the message ends with its last lines.
    """
    program = dialect_of(checkpoint.entries, config).name
    code = _transformers(program) if original == TRANSFORMERS else _clone(original, program)
    _check_request(program, checkpoint, config, head, cases)
    request = {
        "program": program,
        "code": str(code),
        "checkpoint": str(checkpoint.path.resolve()),
        "files": [str(file.resolve()) for file in checkpoint.files],
        "config": dict(config),
        "head": head,
        "class": CLASSES[head],
        "num_labels": _num_labels(checkpoint),
        "cases": len(cases),
    }
    with TemporaryFolder() as folder:
        _write_inputs(folder / "inputs.npz", cases)
        _run_process(folder, request)
        return _read_outputs(folder / "outputs.npz", len(cases))


def _write_inputs(path: Path, cases: Sequence[Mapping[str, Array | None]]) -> None:
    """Write the arrays of all cases, named CASE/NAME, with the mask and the token types that a case leaves out."""
    inputs: dict[str, Array] = {}
    for i, case in enumerate(cases):
        ids = np.asarray(case["input_ids"])
        complete = {"attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        complete |= {name: np.asarray(array) for name, array in case.items() if array is not None}
        inputs |= {f"{i}/{name}": array for name, array in complete.items()}
    np.savez(path, **inputs)  # type: ignore[arg-type]


def _read_outputs(path: Path, cases: int) -> list[dict[str, Array]]:
    results: list[dict[str, Array]] = [{} for _ in range(cases)]
    with np.load(path) as stored:
        for key in stored:
            index, name = key.split("/")
            results[int(index)][name] = stored[key]
    return results


def tokenize_original(
    original: str, vocab: Path, texts: Sequence[str], *, lower_case: bool, rules: str | None = None
) -> list[list[str]]:
    """The tokens that NEZHA-TensorFlow's `FullTokenizer` makes of each text.

    Args:
        rules: use Huawei's byte BPE with these rules, those of `byte_bpe.tokenize`, instead.

    Raises:
        UsageError: as in `run_original_all`.
    """
    request: dict[str, Any] = {"program": "tokenizer", "vocab": str(vocab.resolve())}
    if rules:
        name, options = BYTE_BPE[rules]
        code = _clone(original, "byte BPE", (name,)) / name
        request |= {"program": "byte BPE", "code": str(code), "options": options}
    else:
        request["code"] = str(_clone(original, "tensorflow"))
    with TemporaryFolder() as folder:
        _run_process(folder, request | {"texts": list(texts), "lower_case": lower_case})
        tokens: list[list[str]] = json.loads((folder / "outputs.json").read_text("utf-8"))
    return tokens


def _run_process(folder: Path, request: dict[str, Any]) -> None:
    """Run the original on the inputs in `folder`, without a GPU, the network, or bytecode written to the clone."""
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_USE_LEGACY_KERAS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder),
        "USE_TF": "0",
        "USE_FLAX": "0",
    }
    if request["program"] == "transformers":  # before all others: its numpy must not meet files of another one
        path = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join((request["code"], path)) if path else request["code"]
    script = Path(__file__).with_name("process.py")
    command = [sys.executable, "-B", str(script), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise UsageError(
            f"the original {request['program']} program ended with {done.returncode}:\n{_last_lines(done.stderr)}",
            hint="The program's own error is above. The oracle needs no original: leave --original out.",
        )


def _clone(original: str, program: str, holds: tuple[str, ...] = _CLONE_HOLDS) -> Path:
    """The folder of the clone.

    Raises:
        UsageError: it is no clone, or a package that `program` needs is not installed.
    """
    clone = Path(original).expanduser()
    if not original or not clone.is_dir():
        raise UsageError(
            f"--original {original!r}: no such folder; expected a clone of Huawei's repository, or {TRANSFORMERS}",
            hint=_CLONE_HINT,
        )
    missing = [name for name in holds if not (clone / name).is_file()]
    if missing:
        raise UsageError(
            f"{clone} is not a clone of Huawei's repository: expected {' and '.join(holds)} in it, "
            f"missing {' and '.join(missing)}",
            hint=f"If it is a folder inside a clone, name the clone's top folder. Otherwise: {_CLONE_HINT}",
        )
    if program == "transformers":
        raise UsageError(
            f"the source was saved by transformers; the clone at {clone} has no program for it",
            hint=f"Pass: --original {TRANSFORMERS}",
        )
    needed = {"tensorflow": _TENSORFLOW, "byte BPE": {}}.get(program, {"torch": "torch"})
    lacking = [name for module, name in needed.items() if importlib.util.find_spec(module) is None]
    if lacking:
        raise UsageError(
            f"running the original {program} program needs {', '.join(needed.values())}; "
            f"not installed: {', '.join(lacking)}",
            hint=_TENSORFLOW_HINT if program == "tensorflow" else _TORCH_HINT,
        )
    return clone.resolve()


def _transformers(program: str) -> Path:
    """The folder with transformers 4.40.2 and what it needs except torch. pip installs it the first time.

    Raises:
        UsageError: the source is not of transformers, or torch or a package index is missing.
    """
    if program != "transformers":
        raise UsageError(
            f"transformers cannot load this source: it was written by Huawei's {program} program", hint=_CLONE_HINT
        )
    if importlib.util.find_spec("torch") is None:
        raise UsageError(f"running {TRANSFORMERS} needs torch; not installed: torch", hint=_TORCH_HINT)
    name = f"{TRANSFORMERS.replace('==', '-')}-{sys.implementation.cache_tag}-{platform.machine()}"
    home = cache_folder() / name
    if home.is_dir():
        return home
    _install_transformers(home)
    return home


def _install_transformers(home: Path) -> None:
    """Install into a folder beside `home`, and rename it once it is complete."""
    home.parent.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--target"]
    with tempfile.TemporaryDirectory(prefix="installing-", dir=home.parent) as staging:
        target = Path(staging) / home.name
        # The user's constraints are of another environment: they may name another release.
        environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
        done = subprocess.run(
            [*pip, str(target), TRANSFORMERS],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=environment,
        )
        if done.returncode:
            raise UsageError(
                f"{TRANSFORMERS} could not be installed into {home}; pip said:\n{_last_lines(done.stderr)}",
                hint="It needs a package index once. Where there is one: "
                f"pip install --target {quoted(home)} {TRANSFORMERS}",
            )
        try:
            target.rename(home)
        except OSError:
            if not home.is_dir():  # if it is there, another process installed the same meanwhile
                raise


def cache_folder() -> Path:
    """The folder in which this user's programs cache their data, for this package."""
    places = {"win32": os.environ.get("LOCALAPPDATA", "~/AppData/Local"), "darwin": "~/Library/Caches"}
    return (
        Path(places.get(sys.platform) or os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nezha-convert"
    )


def _check_request(
    program: str,
    checkpoint: Reread,
    config: Mapping[str, Any],
    head: str,
    cases: Sequence[Mapping[str, Array | None]],
) -> None:
    """Refuse what the original would fail on, and what it would compute in another way than the source's JSON says.

    Raises:
        UsageError: it says what the original lacks.
    """
    if head not in HEADS:
        raise UsageError(f"head {head!r} is not known", hint=f"One of: {', '.join(HEADS)}")
    if head in _LACKING[program]:
        raise UsageError(
            f"Huawei's {program} program has no {head} head", hint="Leave --original out: the oracle has it."
        )
    longest = max(np.asarray(case["input_ids"]).shape[-1] for case in cases)
    if program == "pytorch" and longest > PYTORCH_POSITIONS:
        raise UsageError(
            f"an input has {longest} tokens; NEZHA-PyTorch's table of positions ends at {PYTORCH_POSITIONS}",
            hint="Leave it out of the cases for this original; the oracle takes any length.",
        )
    clip = config.get("max_relative_position", 64)
    if program == "tensorflow" and clip != 64:
        raise UsageError(
            f"max_relative_position is {clip} in the source's JSON; NEZHA-TensorFlow is written for 64 alone",
            hint="Leave --original out: the oracle takes the JSON's.",
        )
    labels = _num_labels(checkpoint)
    if program == "tensorflow" and head == "token-classification" and labels != 11:
        raise UsageError(
            f"the source has {labels} labels; run_classifier_ner.py is written for 11 and no other number",
            hint="Leave --original out: the oracle takes any number.",
        )


def _num_labels(checkpoint: Reread) -> int:
    """The length of the classifier's bias; 2 if there is no classifier."""
    for name, entry in checkpoint.entries.items():
        if name.removeprefix("module.") in ("output_bias", "classifier.bias"):
            return entry.shape[0]
    return 2


def _last_lines(text: str, count: int = 12) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-count:])
