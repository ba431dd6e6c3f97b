"""A word of a config is changed: the original program and the converted model agree, or somebody refuses.

    python tests/helpers/words.py [FAMILY ...]      # all that can run here; `nox -s words` runs this

Each key that a program knows, or that the table of its family knows, gets each kind of other value, one at a time.
The original reads the changed folder in a process of its own (`original_words.py`), and the folder is converted. It
prints a table, and every fault: both read it, and they compute something else.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import upstream
from goldens import FIXTURES

from nezha_convert import convert
from nezha_convert.errors import NezhaConvertError
from nezha_convert.families import BERT4KERAS, BERT4TORCH, HUAWEI_TF, HUAWEI_TORCH, PADDLE, TRANSFORMERS
from nezha_convert.families.rules import Family
from nezha_convert.parity.again.files import find_files
from nezha_convert.parity.again.source import reread
from nezha_convert.parity.oracle.formulas import relative_table
from nezha_convert.parity.oracle.model import Oracle

HARNESS = Path(__file__).resolve().parents[2] / "nezha_convert" / "parity" / "originals" / "process.py"
WORKER = Path(__file__).with_name("original_words.py")
TOLERANCE = 1e-4
"""Of the range: the originals compute in float32 and round otherwise than we; the smallest fault known is over 1e-3."""

MISSING = "<missing>"
CHANGES: tuple[Any, ...] = (
    *(MISSING, None, True, False, 0, 2, -1, 0.5, "", "0", "gelu_new", "lm", "encoder", [], {}, {"0": [0]}),
)
"""A key's other values: missing, of every type, and the words that some program knows."""

TEXTS = (
    ["Wort (ÄÖÜ) hello, WORLD!"],
    ["中国人 word 中", "b [MASK] a"],
    ["ＡＢＣ [SEP] ﬁx\tthe  unbelievable Ångström"],
    ["[UNK] [unused1] un##able don't  <s> zzz"],
    ["a" * 120],
)

TOKENIZER_KEYS = (
    *("do_lower_case", "do_basic_tokenize", "never_split", "unk_token", "sep_token", "pad_token", "cls_token"),
    *("mask_token", "tokenize_chinese_chars", "strip_accents", "additional_special_tokens", "model_max_length"),
    *("tokenizer_class", "clean_up_tokenization_spaces", "added_tokens_decoder", "padding_side", "truncation_side"),
    *("name_or_path", "special_tokens_map_file", "tokenizer_file", "vocab_file", "model_input_names"),
    *("split_special_tokens", "init_inputs", "bos_token", "eos_token", "add_prefix_space", "wordpieces_prefix"),
    *("clean_text", "use_fast", "chat_template", "max_len", "extra_special_tokens", "truncation", "padding"),
)
"""transformers 4.40.2: arguments of BertTokenizer, BertTokenizerFast and their base classes, and keys of files."""

TOKENIZER_CHANGES: tuple[Any, ...] = (
    *(MISSING, None, True, False, 0, 1, 8, -1, 0.5, "", "0", "true", "[SEP]", "[CLS]", "left", "right", "word", "NEW"),
    *("BertTokenizer", "BertTokenizerFast", "BertJapaneseTokenizer", "no_such_file.json", [], ["word"], ["NEW"]),
    *({}, {"5": {"content": "word", "special": True}}, {"__type": "AddedToken", "content": "[SEP]"}),
)

VOCABULARY = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] hello world word wort Wort WORLD ä ö ü a o u ( ) , ! . ' ## un "
    "##able ##bel ##ie ##vable ##word "
    "中 国 人 ##国 ##人 中国人 fix the abc ABC ångström angstrom Ångström ##a b c [ ] mask sep unk "
    "don t < s > z ##z ##1 unused ＡＢＣ ﬁx # able"
)

CLASSES = tuple(
    f"{name}Tokenizer{fast}"
    for name in ("DistilBert", "Electra", "MobileBert", "RoFormer", "Tapas", "Funnel", "Splinter", "GPT2", "PreTrained")
    for fast in ("", "Fast")
)
"""Classes of tokenizers, some of which read a vocab.txt."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A family whose program reads a checkpoint.

    Attributes:
        title: for the table.
        program: of `original_words.READERS`.
        fixture: the checkpoint that is changed.
        config: its file that is changed.
        family: whose words are tried besides the program's own.
        head: what it is converted to.
        python, path: what runs the program, and where it imports from; an UnavailableError says why it cannot.
        code: a clone, for Huawei's.
        model_class: the program's class.
        keys: only these.
        tokenizer: ids are compared, not outputs.
        whole: the tokenizer has a tokenizer.json.
    """

    title: str
    program: str
    fixture: str
    config: str
    family: Family
    head: str
    python: Callable[[], str] = lambda: sys.executable
    path: Callable[[], list[Path]] = list
    code: Callable[[], str] = str
    model_class: str = ""
    keys: tuple[str, ...] = ()
    tokenizer: bool = False
    whole: bool = False


def _clone() -> str:
    if not (clone := os.environ.get("NEZHA_ORIGINAL_CLONE")):
        raise upstream.UnavailableError("NEZHA_ORIGINAL_CLONE names no clone of Huawei's repository")
    return clone


def _python_of(variable: str, *modules: str) -> Callable[[], str]:
    """The Python that the environment variable names; else this one, where it has the modules."""

    def find() -> str:
        python = os.environ.get(variable) or sys.executable
        code = f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {modules!r})))"
        if subprocess.run([python, "-c", code], check=False).returncode:
            raise upstream.UnavailableError(f"{', '.join(modules)} not installed; {variable} names a Python with them")
        return python

    return find


def _release() -> list[Path]:
    return [upstream.installed_release("4.40.2")]


def _bert4torch() -> list[Path]:
    needed = ("numpy", "packaging", "pillow", "requests", "six", "tqdm")
    alone = ("bert4torch==0.5.3", "torch4keras==0.2.6")  # the last that imports with little more than torch
    return [upstream.installed_program("bert4torch-pretraining", *needed, alone=alone)]


def _paddlenlp() -> list[Path]:
    return [upstream.installed_program("paddlenlp-2.8.1", *upstream.PADDLE_REQUIREMENTS, alone=("paddlenlp==2.8.1",))]


def _bert4keras() -> list[Path]:
    if sys.version_info[:2] > (3, 11):
        raise upstream.UnavailableError(
            "TensorFlow 2.15, on whose Keras bert4keras runs, has no release for this Python"
        )
    alone = ("bert4keras==0.11.5",)
    return [upstream.installed_program("bert4keras-0.11.5", *upstream.KERAS_REQUIREMENTS, alone=alone)]


_MASKED, _CLASSES = "transformers-4.40.2-masked-lm", "transformers-4.40.2-sequence-classification"
_HUAWEI_KEYS = (
    *("attention_probs_dropout_prob", "directionality", "hidden_act", "hidden_dropout_prob", "hidden_size"),
    *("initializer_range", "intermediate_size", "max_position_embeddings", "max_relative_position", "layer_norm_eps"),
    *("num_attention_heads", "num_hidden_layers", "type_vocab_size", "use_relative_position", "vocab_size"),
    *("is_decoder", "tie_word_embeddings", "pooler_type", "num_labels", "no_such_key"),
)
_LABEL_KEYS = (
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "classifier_dropout",
    "finetuning_task",
    "is_decoder",
)

SUBJECTS = {
    "transformers": Subject(
        "transformers 4.40.2, masked LM",
        "transformers",
        _MASKED,
        "config.json",
        TRANSFORMERS,
        "masked-lm",
        path=_release,
        model_class="NezhaForMaskedLM",
    ),
    "transformers-labels": Subject(
        "transformers 4.40.2, classifier",
        "transformers",
        _CLASSES,
        "config.json",
        TRANSFORMERS,
        "sequence-classification",
        path=_release,
        model_class="NezhaForSequenceClassification",
        keys=_LABEL_KEYS,
    ),
    "tokenizer": Subject(
        "transformers 4.40.2, vocab.txt",
        "tokenizer",
        _MASKED,
        "tokenizer_config.json",
        TRANSFORMERS,
        "masked-lm",
        path=_release,
        keys=TOKENIZER_KEYS,
        tokenizer=True,
    ),
    "tokenizer-whole": Subject(
        "transformers 4.40.2, tokenizer.json",
        "tokenizer",
        _MASKED,
        "tokenizer_config.json",
        TRANSFORMERS,
        "masked-lm",
        path=_release,
        keys=TOKENIZER_KEYS,
        tokenizer=True,
        whole=True,
    ),
    "huawei-torch": Subject(
        "Huawei's NEZHA-PyTorch",
        "huawei-torch",
        "huawei-torch-pretraining",
        "bert_config.json",
        HUAWEI_TORCH,
        "pretraining",
        code=_clone,
        keys=_HUAWEI_KEYS,
    ),
    "huawei-tf": Subject(
        "Huawei's NEZHA-TensorFlow",
        "huawei-tf",
        "huawei-tf-pretraining",
        "bert_config.json",
        HUAWEI_TF,
        "pretraining",
        python=_python_of("NEZHA_TF_PYTHON", "tensorflow", "tf_keras", "tf_slim"),
        code=_clone,
        keys=_HUAWEI_KEYS,
    ),
    "bert4torch": Subject(
        "bert4torch 0.5.3",
        "bert4torch",
        "bert4torch-pretraining",
        "bert4torch_config.json",
        BERT4TORCH,
        "pretraining",
        path=_bert4torch,
    ),
    "bert4keras": Subject(
        "bert4keras 0.11.5",
        "bert4keras",
        "bert4keras-pretraining",
        "bert_config.json",
        BERT4KERAS,
        "pretraining",
        path=_bert4keras,
    ),
    "paddlenlp": Subject(
        "PaddleNLP 2.8.1",
        "paddlenlp",
        "paddlenlp-pretraining",
        "config.json",
        PADDLE,
        "pretraining",
        path=_paddlenlp,
        model_class="NeZhaForPretraining",
    ),
}


@dataclass(frozen=True, slots=True)
class Change:
    """A key of a config and its other value."""

    key: str
    value: Any

    def apply(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """`config` with it."""
        rest = {key: value for key, value in config.items() if key != self.key}
        return rest if self.value == MISSING else rest | {self.key: self.value}


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What came of all changes of one subject: counts by kind, and the faults in words."""

    keys: int
    counts: Counter[str]
    wrong: tuple[str, ...] = ()
    details: tuple[tuple[Change, str, str], ...] = field(default=(), repr=False)


def run_original(subject: Subject, work: Path, **request: Any) -> list[Any]:
    """What the program says of each folder of the request."""
    asked = {
        "program": subject.program,
        "code": subject.code(),
        "class": subject.model_class,
        "harness": str(HARNESS),
        "maker": str(FIXTURES / "make_bert4keras.py"),
        "texts": TEXTS,
        **request,
    }
    (work / "request.json").write_text(json.dumps(asked))
    quiet = {
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_USE_LEGACY_KERAS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "USE_TF": "0",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(work),
        "PYTHONPATH": os.pathsep.join(map(str, subject.path())),  # before all of this Python's own
        "OMP_NUM_THREADS": "1",
    }
    command = [subject.python(), "-B", str(WORKER), str(work / "request.json")]
    done = subprocess.run(command, env=os.environ | quiet, capture_output=True, text=True, check=False, cwd=work)
    assert done.returncode == 0, f"{subject.title}: {done.stderr[-2000:]}"
    results: list[Any] = json.loads((work / "results.json").read_text())
    return results


def source(subject: Subject, folder: Path) -> dict[str, Any]:
    """Lay the checkpoint into `folder` without its config, which is returned."""
    folder.mkdir()
    for file in (FIXTURES / subject.fixture).iterdir():
        if file.name not in ("expected.npz", subject.config, "variable_mapping.json"):
            os.link(file, folder / file.name) if file.stat().st_dev == folder.stat().st_dev else (
                folder / file.name
            ).write_bytes(file.read_bytes())
    if subject.tokenizer:
        lay_tokenizer(folder, subject.whole)
        return {
            "do_lower_case": True,
            "unk_token": "[UNK]",
            "model_max_length": 512,
            "tokenizer_class": "BertTokenizer",
        }
    config: dict[str, Any] = json.loads((FIXTURES / subject.fixture / subject.config).read_text())
    if subject.program == "bert4torch":
        config["max_position_embeddings"] = 96
        longer_tables(folder / "pytorch_model.pt", 96, config["max_relative_position"])
    return config


def longer_tables(path: Path, length: int, clip: int) -> None:
    """Give a file of bert4torch tables of `length` positions, as the program builds them; the fixture's are short."""
    import torch

    weights = torch.load(path, weights_only=True)
    path.unlink()
    places = np.arange(length)
    distances = np.clip(places[None, :] - places[:, None], -clip, clip) + clip
    for name, tensor in weights.items():
        if name.endswith("position_embeddings"):
            table = relative_table(clip, tensor.shape[-1])[distances].astype(np.float32)
            assert np.allclose(table[: len(tensor), : len(tensor)], tensor.numpy(), atol=1e-6)
            weights[name] = torch.from_numpy(table)
    torch.save(weights, path)


def lay_tokenizer(folder: Path, whole: bool) -> None:
    """A vocabulary of the model's 64 rows, with words, pieces, capitals and accents; and a tokenizer.json of it."""
    words = VOCABULARY.split(" ")
    words += [f"[unused{i}]" for i in range(64 - len(words))]
    assert len(words) == len(set(words)) == 64
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    if whole:
        from tokenizers import BertWordPieceTokenizer

        tokenizer = BertWordPieceTokenizer({word: i for i, word in enumerate(words)}, lowercase=True)
        tokenizer.save(str(folder / "tokenizer.json"))


def changes(subject: Subject, work: Path, config: Mapping[str, Any], every: int) -> list[Change]:
    """Every change of every key; of a number in the config also its neighbours.

    Of a key that the config lacks and our table calls harmless or does not have, only one value in `every`.
    """
    known: Iterable[str] = subject.keys
    if not known:
        own = run_original(subject, work, keys=True)
        known = sorted({*own, *subject.family.words, *subject.family.defaults.causal, *config, "no_such_key"})
    found = []
    for key in known:
        value = config.get(key, MISSING)
        values = list(TOKENIZER_CHANGES if subject.tokenizer else CHANGES)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            values += [1, value * 2, value / 2, float(value), 1e-12, str(value)]
        elif isinstance(value, str) and value != MISSING:
            values += ["gelu", "GELU", "relu", "bert", "typical_relative", " " + value]
        if value == MISSING and not may_change(subject, key):
            values = values[sum(map(ord, key)) % every :: every]  # other ones for each key
        values += CLASSES if key == "tokenizer_class" else ()
        seen = {json.dumps(value)}
        for other in values:
            if json.dumps(other) not in seen:
                seen.add(json.dumps(other))
                found.append(Change(key, other))
    return found


def may_change(subject: Subject, key: str) -> bool:
    """Whether our table says that the key may change what is computed."""
    word = subject.family.words.get(key)
    return (
        bool(subject.keys)
        or key in ("tie_word_embeddings", "is_decoder", *subject.family.defaults.causal)
        or bool(word and word.harmless)
    )


def tokens_of(folder: Path) -> list[list[int]]:
    """The ids that the converted folder's tokenizer makes of the texts."""
    import transformers

    import nezha  # noqa: F401  (it tells AutoTokenizer the model's type)

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return [tokenizer(*texts)["input_ids"] for texts in TEXTS]


def outputs_of(subject: Subject, folder: Path, inputs: Mapping[str, Any], seen: dict[str, Any]) -> Any:
    """What the converted folder computes, and its labels. Their weights are the same where they are tied the same."""
    import torch

    import nezha

    text = (folder / "config.json").read_text()
    if text in seen:
        return seen[text]
    config = json.loads(text)
    model = getattr(nezha, config["architectures"][0]).from_pretrained(folder).eval()
    with torch.no_grad():
        output = model(**{name: torch.from_numpy(array) for name, array in inputs.items()}, return_dict=True)
    names = config.get("id2label") if "classification" in subject.head else None
    labels = None if names is None else [names[i] for i in sorted(names, key=int)]
    seen[text] = {key: output[key].numpy() for key in output if key.endswith("logits")}, labels
    return seen[text]


def distance(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """The worst error, of an output's range; infinite where outputs are of other names or shapes, or not numbers."""
    if found.keys() != expected.keys() or any(found[key].shape != expected[key].shape for key in expected):
        return float("inf")
    worst = [float(np.abs(found[key] - expected[key]).max() / (np.ptp(expected[key]) or 1)) for key in expected]
    return max(worst) if np.isfinite(worst).all() else float("inf")


def inputs_for(subject: Subject) -> dict[str, Any]:
    """A batch longer than the clip distances, padded, of two segments; bert4torch masks the id 0."""
    generator = np.random.default_rng(15)
    length = 90
    mask = (np.arange(length) < np.array([[length], [50]])).astype(np.int64)
    ids = generator.integers(1, 64, (2, length)) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": (np.arange(length) >= 40) * mask}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    import transformers

    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.set_verbosity(before)


def judge(
    subject: Subject,
    folder: Path,
    out: Path,
    original: Mapping[str, Any],
    expected: Mapping[str, Any],
    inputs: Mapping[str, Any],
    entries: Mapping[str, Any],
    seen: dict[str, Any],
) -> tuple[str, str]:
    """The kind of outcome of one folder, and more of it in words."""
    if "error" in original:
        return "original refuses", original["error"]
    try:
        convert(folder, out, head=subject.head)
    except NezhaConvertError as error:
        return "we refuse", str(error)
    if subject.tokenizer:
        found = tokens_of(out)
        return ("agree", "") if found == original["said"] else ("wrong", f"{found} instead of {original['said']}")
    outputs, labels = outputs_of(subject, out, inputs, seen)
    error = distance(outputs, expected)
    if error > TOLERANCE or labels != original["said"]:
        return "wrong", f"{error:.1e} of the range" if error > TOLERANCE else f"labels {labels}, not {original['said']}"
    try:
        config = json.loads((folder / subject.config).read_text())
        oracle = Oracle(entries, config, subject.head).forward(**inputs, record=False)
    except NezhaConvertError as refusal:
        return "oracle differs", str(refusal)
    except (TypeError, ValueError) as crash:
        return "oracle differs", repr(crash)
    error = distance({key: oracle[key] for key in expected}, expected)
    return ("oracle differs", f"{error:.1e} of the range") if error > TOLERANCE else ("agree", "")


def measure(subject: Subject, only: Sequence[Change] = (), every: int = 1) -> Outcomes:
    """Try every change, or `only` these; `every` as for `changes`."""
    memory = Path("/dev/shm")  # thousands of folders, each flushed to the disk otherwise
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as temporary, _quiet():
        work = Path(temporary)
        base = work / "base"
        config = source(subject, base)
        tried = [Change("", MISSING), *(only or changes(subject, work, config, every))]  # the first changes nothing
        inputs = inputs_for(subject)
        np.savez(work / "inputs.npz", **inputs)
        folders = []
        for number, change in enumerate(tried):
            folder = work / str(number)
            folder.mkdir()
            for file in base.iterdir():
                os.link(file, folder / file.name)
            (folder / subject.config).write_text(json.dumps(change.apply(config)))
            folders.append(folder)
        results = run_original(subject, work, folders=[str(f) for f in folders], inputs=str(work / "inputs.npz"))
        names = {file.name for file in base.iterdir() if file.suffix not in (".json", ".txt")}
        again = reread(find_files(base, names), None, None)  # kept: its entries read from a folder that goes with it
        details, seen = [], {}
        with np.load(work / "outputs.npz") as stored:
            computed: list[dict[str, Any]] = [{} for _ in tried]
            for key in stored:
                number, name = key.split("/")
                computed[int(number)][name] = stored[key]
        for number, (change, folder, result) in enumerate(zip(tried, folders, results, strict=True)):
            kind, more = judge(
                subject, folder, work / f"{number}-out", result, computed[number], inputs, again.entries, seen
            )
            details.append((change, kind, more))
            shutil.rmtree(work / f"{number}-out", ignore_errors=True)
    assert details[0][1] == "agree", f"{subject.title}, unchanged: {details[0][1:]}"
    wrong = tuple(
        f"{c.key} = {json.dumps(c.value)}: {k}: {m}" for c, k, m in details if k in ("wrong", "oracle differs")
    )
    counts = Counter(kind for _, kind, _ in details[1:])
    return Outcomes(len({change.key for change in tried[1:]}), counts, wrong, tuple(details[1:]))


def main(names: Sequence[str]) -> int:
    """Print the table; 1 if something is wrong."""
    every = int(os.environ.get("NEZHA_WORDS_EVERY", "1"))
    print("| program and file | keys | values tried | agree | we refuse | original refuses | wrong |")
    print("|---|---|---|---|---|---|---|", flush=True)
    faults, left = [], []
    for name in names or SUBJECTS:
        subject, begun = SUBJECTS[name], time.monotonic()
        try:
            found = measure(subject, every=every)
        except upstream.UnavailableError as reason:
            left.append(f"{subject.title}: left out: {reason}")
            continue
        counts = found.counts
        row = (
            found.keys,
            counts.total(),
            counts["agree"],
            counts["we refuse"],
            counts["original refuses"],
            len(found.wrong),
        )
        print(f"| {subject.title} | " + " | ".join(f"{number:,}" for number in row) + " |", flush=True)
        faults += [f"{subject.title}: {fault}" for fault in found.wrong]
        print(f"{subject.title}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    print("\n".join(["", *left, *faults]))
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
