"""The original programs themselves, unmodified, on a source checkpoint: what its weights were made by and for.

None of their code is here. Huawei's two are run from the user's clone of their repository, transformers 4.40.2 from an
environment of its own in the user's cache folder, each in a process of its own (`original_process.py`), on the CPU.
Nothing is written beside the checkpoint or into the clone.
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

from ...checkpoint import Checkpoint
from ...errors import UsageError
from ...files.locks import TemporaryFolder
from ..oracle.dialects import dialect_of
from ..oracle.formulas import Array
from ..oracle.model import HEADS

__all__ = ["TRANSFORMERS", "run_original", "run_original_all", "tokenize_original"]

TRANSFORMERS = "transformers==4.40.2"
"""The last release that has NEZHA fully in it."""

_CLONE_HOLDS = ("NEZHA-TensorFlow/modeling.py", "NEZHA-PyTorch/modeling_nezha.py")
_CLONE_HINT = "git clone https://github.com/huawei-noah/Pretrained-Language-Model CLONE, then pass: --original CLONE"
_TENSORFLOW = {"tensorflow": "tensorflow-cpu", "tf_keras": "tf-keras", "tf_slim": "tf-slim"}
_LACKING = {"tensorflow": ("multiple-choice",), "pytorch": ("token-classification",), "transformers": ()}
"""The heads that an original does not have."""

BYTE_BPE: dict[str, tuple[str, dict[str, bool]]] = {
    "multilingual": ("JABER-PyTorch/tokenizationBBPE.py", {"CJK_tokenize": False}),
    "jaber": ("JABER-PyTorch/tokenizationBBPE.py", {}),
    "bbpe": ("BBPE/bbpe/tokenization.py", {}),
}
"""By rules: the tokenizer's file and options. With that option JABER's does what the multilingual model's own file did:
BBPE/tokenizationBBPE.py, as it was at commit 8b60ffe before it was deleted."""

CLASSES = {
    "encoder": "Model",
    "pretraining": "ForPreTraining",
    "masked-lm": "ForMaskedLM",
    "next-sentence-prediction": "ForNextSentencePrediction",
    "sequence-classification": "ForSequenceClassification",
    "multiple-choice": "ForMultipleChoice",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
}
"""Each head's class in transformers and in `nezha`, without its Nezha."""


def run_original(
    original: str, checkpoint: Checkpoint, config: Mapping[str, Any], head: str, inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """What the original program computes for one batch; see `run_original_all`, which starts it once for several."""
    return run_original_all(original, checkpoint, config, head, [inputs])[0]


def run_original_all(
    original: str,
    checkpoint: Checkpoint,
    config: Mapping[str, Any],
    head: str,
    cases: Sequence[Mapping[str, Array | None]],
) -> list[dict[str, Array]]:
    """What the original program computes for several batches, in float32, under the oracle's names.

    Args:
        original: a clone of Huawei's repository, or `TRANSFORMERS`.
        checkpoint: the source; which program it belongs to is read off its names.
        config: the source's own JSON, as it is.
        head: one of the oracle's `HEADS`.
        cases: as for `Oracle.forward_all`. A case may also hold what the original takes a loss of, under the original's
            names (`labels`; `mlm_labels`, `mlm_weights`, `nsp_labels` for TensorFlow; `next_sentence_label`,
            `start_positions`, `end_positions`, `output_attentions` for transformers): its losses then come back too.

    Raises:
        UsageError: `original` is neither; something has to be installed; the original has no such head, length or clip
            distance; or it failed, and the message ends with what it said.
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
    inputs: dict[str, Array] = {}
    for i, case in enumerate(cases):
        ids = np.asarray(case["input_ids"])
        complete = {"attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        complete |= {name: np.asarray(array) for name, array in case.items() if array is not None}
        inputs |= {f"{i}/{name}": array for name, array in complete.items()}
    with TemporaryFolder() as folder:
        np.savez(folder / "inputs.npz", **inputs)  # type: ignore[arg-type]
        _run_process(folder, request)
        results: list[dict[str, Array]] = [{} for _ in cases]
        with np.load(folder / "outputs.npz") as stored:
            for key in stored:
                index, name = key.split("/")
                results[int(index)][name] = stored[key]
    return results


def tokenize_original(
    original: str, vocab: Path, texts: Sequence[str], *, lower_case: bool, rules: str | None = None
) -> list[list[str]]:
    """The tokens that NEZHA-TensorFlow's `FullTokenizer` makes of each text.

    Args:
        rules: of `byte_bpe.tokenize`, for Huawei's byte BPE in its stead.

    Raises:
        UsageError: as `run_original_all`.
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
    """Run the original on what lies in `folder`, without a GPU, the network, or bytecode written into the clone."""
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
    script = Path(__file__).with_name("original_process.py")
    command = [sys.executable, "-B", str(script), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise UsageError(
            f"the original {request['program']} program ended with {done.returncode}:\n{_last_lines(done.stderr)}",
            hint="Its own words are above. The oracle needs no original: leave --original out.",
        )


def _clone(original: str, program: str, holds: tuple[str, ...] = _CLONE_HOLDS) -> Path:
    """The clone's folder, once it is one and what `program` runs on is installed."""
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
            hint=f"If it lies inside of one, name the repository's own folder. Else: {_CLONE_HINT}",
        )
    if program == "transformers":
        raise UsageError(
            f"the source was saved by transformers; the clone at {clone} has no program for it",
            hint=f"Pass: --original {TRANSFORMERS}",
        )
    needed = {"tensorflow": _TENSORFLOW, "byte BPE": {}}.get(program, {"torch": "torch"})
    lacking = [name for module, name in needed.items() if importlib.util.find_spec(module) is None]
    if lacking:
        install = "pip install 'nezha-convert[tf]' && pip install --no-deps tf-keras" if program == "tensorflow" else ""
        raise UsageError(
            f"running the original {program} program needs {', '.join(needed.values())}; "
            f"not installed: {', '.join(lacking)}",
            hint=install or "pip install torch",
        )
    return clone.resolve()


def _transformers(program: str) -> Path:
    """The folder that holds transformers 4.40.2 and what it needs but torch; installed by pip when it is not there."""
    if program != "transformers":
        raise UsageError(
            f"transformers cannot load this source: it was written by Huawei's {program} program", hint=_CLONE_HINT
        )
    if importlib.util.find_spec("torch") is None:
        raise UsageError(f"running {TRANSFORMERS} needs torch; not installed: torch", hint="pip install torch")
    name = f"{TRANSFORMERS.replace('==', '-')}-{sys.implementation.cache_tag}-{platform.machine()}"
    home = cache_folder() / name
    if home.is_dir():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--target"]
    with tempfile.TemporaryDirectory(prefix="installing-", dir=home.parent) as staging:
        target = Path(staging) / name
        done = subprocess.run(
            [*pip, str(target), TRANSFORMERS], capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            raise UsageError(
                f"{TRANSFORMERS} could not be installed into {home}; pip said:\n{_last_lines(done.stderr)}",
                hint=f"It needs a package index once. With one in reach: pip install --target {home} {TRANSFORMERS}",
            )
        try:
            target.rename(home)
        except OSError:
            if not home.is_dir():  # else another process was faster: its copy is as good
                raise
    return home


def cache_folder() -> Path:
    """Where this user's programs keep what they can fetch again."""
    places = {"win32": os.environ.get("LOCALAPPDATA", "~/AppData/Local"), "darwin": "~/Library/Caches"}
    return (
        Path(places.get(sys.platform) or os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nezha-convert"
    )


def _check_request(
    program: str,
    checkpoint: Checkpoint,
    config: Mapping[str, Any],
    head: str,
    cases: Sequence[Mapping[str, Array | None]],
) -> None:
    """Refuse what the original would fail on, or answer in another way than the source's JSON says."""
    if head not in HEADS:
        raise UsageError(f"head {head!r} is not known", hint=f"One of: {', '.join(HEADS)}")
    if head in _LACKING[program]:
        raise UsageError(
            f"Huawei's {program} program has no {head} head", hint="Leave --original out: the oracle has it."
        )
    longest = max(np.asarray(case["input_ids"]).shape[-1] for case in cases)
    if program == "pytorch" and longest > 512:
        raise UsageError(
            f"an input has {longest} tokens; NEZHA-PyTorch's table of positions ends at 512",
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


def _num_labels(checkpoint: Checkpoint) -> int:
    """Rows of the classifier's bias, 2 without one."""
    for name, entry in checkpoint.entries.items():
        if name.removeprefix("module.") in ("output_bias", "classifier.bias"):
            return entry.shape[0]
    return 2


def _last_lines(text: str, count: int = 12) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-count:])
