"""Public weights, from the download to a sentence: `nox -s real` (docs/real.md).

Each model of models.yaml is pulled, inspected, converted, verified, loaded on the oldest and the newest release of
transformers, and fills in the words of Chinese sentences. A step that fails ends that model and no other. With
`--simulated` the models are tiny ones of the same form, on a Hub on loopback, and the page says so.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import upstream
import yaml
from hub_server import hub

import nezha_convert
from nezha_convert.files.hashing import sha256
from nezha_convert.releases import TRANSFORMERS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FIXTURES = ROOT / "fixtures"
PAGES = {"en": ROOT / "docs" / "real.md", "zh": ROOT / "docs" / "zh" / "real.md"}
ENDS = (TRANSFORMERS[0][0], TRANSFORMERS[-1][1])
MOST = 5
"""A word that is expected is among so many that the model finds most likely."""

LOADS = """
import json, sys
import torch, transformers
from transformers import AutoConfig, AutoTokenizer

folder, sentences = sys.argv[1], json.loads(sys.argv[2])
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
causal = config.architectures == ["NezhaForCausalLM"]
auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForMaskedLM
model, info = auto.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
assert not info["missing_keys"] and not info["mismatched_keys"], info
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
found = []
for text in [] if causal else sentences:
    inputs = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        logits = model.eval()(**inputs).logits
    (at,) = (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero().flatten().tolist()
    found.append(tokenizer.convert_ids_to_tokens(logits[0, at].topk(int(sys.argv[3])).indices.tolist()))
print(json.dumps({"release": transformers.__version__, "causal": causal, "found": found}))
"""

Loading = Callable[[Path, Sequence[str]], dict[str, Any]]
"""Loads a converted folder in a process of its own; what LOADS prints."""


class StepError(Exception):
    """A step ran, and its outcome is wrong."""


@dataclass(frozen=True)
class Row:
    """A model, and what came of each step that was begun, in order.

    Attributes:
        done: by step, what is to be said of it.
        failed: the step that failed; empty where all passed.
    """

    name: str
    done: Mapping[str, str]
    failed: str = ""


def read_models(path: Path = HERE / "models.yaml") -> dict[str, Any]:
    """The list."""
    content: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return content


def try_copy(
    entry: Mapping[str, Any],
    sentences: Sequence[Mapping[str, Any]],
    endpoint: str | None,
    loading: Mapping[str, Loading],
) -> Row:
    """Go the whole way with a copy on the Hub."""
    with TemporaryDirectory() as name:
        steps = _steps(entry, sentences, Path(name), loading)
        return _row(entry["address"], {"pull": lambda: _pull(entry, Path(name), endpoint), **steps})


def try_original(
    entry: Mapping[str, Any], sentences: Sequence[Mapping[str, Any]], folder: str | None, loading: Mapping[str, Loading]
) -> Row | None:
    """The same with a download of Huawei's; None where nobody has entered its files, or there is no folder of them."""
    if not entry["files"] or not folder:
        return None
    source = Path(folder, entry["name"])
    with TemporaryDirectory() as name:
        Path(name, "pulled").symlink_to(source.resolve())
        steps = _steps({"form": "original", "wrong": [], **entry}, sentences, Path(name), loading)
        return _row(entry["name"], {"pull": lambda: _hashes(entry["files"], source), **steps})


def _row(name: str, steps: Mapping[str, Callable[[], str]]) -> Row:
    done: dict[str, str] = {}
    for step, run in steps.items():
        try:
            done[step] = run()
        except Exception as error:  # whatever it is, it is this model's; the page and the exit code tell it
            done[step] = f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            return Row(name, done, step)
    return Row(name, done)


def _steps(
    entry: Mapping[str, Any], sentences: Sequence[Mapping[str, Any]], work: Path, loading: Mapping[str, Loading]
) -> dict[str, Callable[[], str]]:
    source, output = work / "pulled", work / "converted"
    return {
        "inspect": lambda: nezha_convert.inspect(source).title,
        "wrong": lambda: _wrong(entry, source),
        "convert": lambda: _convert(entry, source, output),
        "verify": lambda: _verify(source, output),
        **{release: (lambda load=load: _load(load, output, sentences)) for release, load in loading.items()},
    }


def _pull(entry: Mapping[str, Any], work: Path, endpoint: str | None) -> str:
    pulled = nezha_convert.pull(f"hf://{entry['address']}", work / "pulled", endpoint=endpoint)
    return f"{sum(size for _, size in pulled.files) / 1e6:,.1f} MB, commit {str(pulled.address).rpartition('@')[2][:7]}"


def _hashes(files: Iterable[Mapping[str, Any]], source: Path) -> str:
    for file in files:
        path = source / file["name"]
        found = (path.stat().st_size, sha256(path))
        if found != (file["bytes"], file["sha256"]):
            raise StepError(f"{file['name']}: {found}, entered {file['bytes']}, {file['sha256']}")
    return "as entered"


def _wrong(entry: Mapping[str, Any], source: Path) -> str:
    """The faults that `repair` finds. One that the list has and `repair` does not find is an error of the list."""
    if entry["form"] in ("bert4torch", "original"):
        return "not a copy that `repair` takes"
    found = [fault.kind for fault in nezha_convert.repair(source).faults]
    if gone := [kind for kind in entry["wrong"] if kind not in found]:
        raise StepError(f"not found any more: {', '.join(gone)}; found: {', '.join(found) or 'nothing'}")
    return ", ".join(found) or "nothing"


def _convert(entry: Mapping[str, Any], source: Path, output: Path) -> str:
    report = nezha_convert.convert(source, output, head=entry.get("head"))
    return f"{report.head}, {report.seconds:.0f} s"


def _verify(source: Path, output: Path) -> str:
    report = nezha_convert.verify(source, output)
    if not report.passed:
        raise StepError(report.verdict)
    return f"{report.comparisons[0].worst.relative_error:.1e} in {report.seconds:.0f} s"


def _load(load: Loading, output: Path, sentences: Sequence[Mapping[str, Any]]) -> str:
    said = load(output, [sentence["text"] for sentence in sentences])
    if said["causal"]:
        return "loads"
    for sentence, found in zip(sentences, said["found"], strict=True):
        if not {*sentence["words"]} & {*found}:
            raise StepError(f"{sentence['text']}: found {' '.join(found)}, expected {' '.join(sentence['words'])}")
    return "、".join(found[0] for found in said["found"])


def answer(printed: str) -> dict[str, Any]:
    """What LOADS said, among what a release of transformers prints besides."""
    (line,) = (line for line in printed.splitlines() if line.startswith('{"release": '))
    said: dict[str, Any] = json.loads(line)
    return said


def on_release(release: str) -> Loading:
    """Loads a folder on a release of transformers, which pip installs into a cache."""

    def load(folder: Path, texts: Sequence[str]) -> dict[str, Any]:
        printed = upstream.run_isolated(release, LOADS, str(folder), json.dumps(texts), str(MOST))
        said = answer(printed)
        if said["release"] != release:
            raise StepError(f"transformers {said['release']} ran in place of {release}")
        return said

    return load


# The simulated copies


def simulated_files(entry: Mapping[str, Any], sentences: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """A tiny model in the form of `entry`, with its faults, that finds the expected words in every sentence."""
    import torch

    fixture, weights, config = {
        "transformers": ("transformers-4.40.2-masked-lm", "pytorch_model.bin", "config.json"),
        "huawei-torch": ("huawei-torch-pretraining", "pytorch_model.bin", "bert_config.json"),
        "huawei-torch-config": ("huawei-torch-pretraining", "pytorch_model.bin", "bert_config.json"),
        "bert4torch": ("bert4torch-causal-lm", "pytorch_model.pt", "bert4torch_config.json"),
    }[entry["form"]]
    folder = FIXTURES / fixture
    settings = json.loads((folder / config).read_text("utf-8"))
    characters = dict.fromkeys("".join(one["text"].replace("[MASK]", "") + "".join(one["words"]) for one in sentences))
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters][: settings["vocab_size"]]
    tokens += [f"[unused{number}]" for number in range(settings["vocab_size"] - len(tokens))]
    tensors = torch.load(folder / weights, weights_only=True)
    for name in ("cls.predictions.bias", "cls.predictions.decoder.bias"):
        for word in (word for one in sentences for word in one["words"] if name in tensors):
            tensors[name][tokens.index(word)] = 50.0
    if "misspelt architecture" in entry["wrong"]:
        settings["architectures"] = [name.replace("Nezha", "NeZha") for name in settings["architectures"]]
    with TemporaryDirectory() as name:
        torch.save(tensors, Path(name, "weights"))
        saved = Path(name, "weights").read_bytes()
    own = "config.json" if entry["form"] == "huawei-torch-config" else config
    files = {
        "pytorch_model.bin": saved,
        own: json.dumps(settings).encode(),
        "vocab.txt": "".join(f"{token}\n" for token in tokens).encode(),
    }
    if entry["form"] == "transformers" and "missing tokenizer config" not in entry["wrong"]:
        files["tokenizer_config.json"] = b'{"do_lower_case": true, "tokenizer_class": "BertTokenizer"}'
    return files


@contextmanager
def simulated_hub(models: Mapping[str, Any]) -> Iterator[str]:
    """A Hub on loopback with a simulated copy of each model; its address."""
    with hub("hf_none") as server:
        for entry in models["copies"]:
            server.create(entry["address"], simulated_files(entry, models["sentences"]))
        yield server.endpoint


# The page


WORDS = {
    "en": {
        "title": "# Real weights\n\nEnglish | [简体中文](zh/real.md)",
        "what": "Written by `nox -s real` on {date} with nezha-convert {version}: each copy on the Hub was pulled, "
        "inspected, converted, verified, loaded on transformers {ends}, and asked for the words of Chinese sentences.",
        "simulated": "Written by `nox -s real -- --simulated` on {date} with nezha-convert {version}, on a machine "
        "without a network. **No real copy was downloaded, and nothing of this table is said of real weights.** In the "
        "place of each stood a tiny model of the same form and with the same faults, made by the run, on a Hub of its "
        "own. What it shows is that the steps run, on transformers {ends}, and that a failure is told.",
        "head": ("copy", "what it is", "downloaded", "program", "wrong with it", "converted", "verified"),
        "originals": "## Huawei's originals",
        "unchecked": "Not checked: nobody has entered the files, with sizes and hashes, into `tests/real/models.yaml`.",
        "sentences": "The sentences, with the words that a Chinese reader expects among the {most} most likely: ",
        "weekly": "`.github/workflows/real.yml` runs it every week and keeps the page as an artifact. A model that "
        "fails stops no other; the exit code is 1 if one failed.",
        "not begun": "not begun",
    },
    "zh": {
        "title": "# 真实的权重\n\n[English](../real.md) | 简体中文",
        "what": "由 `nox -s real` 于 {date} 用 nezha-convert {version} 写成：Hub 上的每个副本都经过下载、检查、"
        "转换、证明，在 transformers {ends} 上加载，并在中文句子里填词。",
        "simulated": "由 `nox -s real -- --simulated` 于 {date} 用 nezha-convert {version} 在没有网络的机器上写成。"
        "**没有下载任何真实的副本，这张表也不说明真实权重的任何情况。** 每个副本的位置上，是这次运行制作的同样形式、"
        "同样毛病的极小模型，放在本机自己的 Hub 上。它说明的是：这些步骤能在 transformers {ends} 上运行，"
        "失败会被报告。",
        "head": ("副本", "是什么", "下载", "程序", "毛病", "转换", "证明"),
        "originals": "## 华为的原始文件",
        "unchecked": "没有检查：还没有人把文件名、大小和哈希写进 `tests/real/models.yaml`。",
        "sentences": "句子，以及中文读者期待的、应在最可能的 {most} 个词之中的词：",
        "weekly": "`.github/workflows/real.yml` 每周运行一次，网页作为 artifact 保存。一个模型失败不影响其他模型；"
        "有失败时退出码是 1。",
        "not begun": "没有开始",
    },
}


def page(
    language: str, models: Mapping[str, Any], rows: Mapping[str, Row | None], loading: Sequence[str], simulated: bool
) -> str:
    """The document in a language; `rows` by the names of the list, None where a model was not tried."""
    words = WORDS[language]
    about = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "version": nezha_convert.__version__,
        "ends": ", ".join(loading),
    }
    steps = ("pull", "inspect", "wrong", "convert", "verify", *loading)
    what = "zh" if language == "zh" else "what"
    head = (*words["head"], *(f"transformers {release}" for release in loading))
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for entry in models["copies"]:
        name = f"[{entry['address']}]({entry['source']})"
        cells = (
            f"simulated: {name}" if simulated else name,
            entry[what],
            *_cells(rows[entry["address"]], steps, words),
        )
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    originals = []
    for entry in models["originals"]["models"]:
        row = rows[entry["name"]]
        said = "; ".join(f"{step}: {text}" for step, text in row.done.items()) if row else words["unchecked"]
        originals.append(f"- [{entry['name']}]({models['originals']['source']}): {said}")
    shown = ", ".join(f"{one['text']} ({' '.join(one['words'])})" for one in models["sentences"])
    paragraphs = [
        words["title"],
        words["simulated" if simulated else "what"].format(**about),
        "\n".join(lines),
        words["sentences"].format(most=MOST) + shown,
        words["originals"],
        "\n".join(originals),
        words["weekly"],
    ]
    return "\n\n".join(paragraphs) + "\n"


def _cells(row: Row | None, steps: Sequence[str], words: Mapping[str, Any]) -> Iterator[str]:
    for step in steps:
        yield row.done.get(step, words["not begun"]) if row else words["not begun"]


def run(models: Mapping[str, Any], endpoint: str | None, loading: Mapping[str, Loading]) -> dict[str, Row | None]:
    """Try every model, and say of each what came of it."""
    rows: dict[str, Row | None] = {}
    for entry in models["copies"]:
        rows[entry["address"]] = row = try_copy(entry, models["sentences"], endpoint, loading)
        print(f"{row.name}: {f'{row.failed}: {row.done[row.failed]}' if row.failed else 'passed'}", flush=True)
    for entry in models["originals"]["models"]:
        folder = os.environ.get("NEZHA_ORIGINALS")
        rows[entry["name"]] = original = try_original(entry, models["sentences"], folder, loading)
        print(f"{entry['name']}: {'not checked' if not original else original.failed or 'passed'}", flush=True)
    return rows


def main(arguments: Sequence[str] | None = None, loading: Mapping[str, Loading] | None = None) -> int:
    """Run it, write the pages, and return the exit code: 1 if a model failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", action="store_true", help="tiny models on a Hub on loopback")
    parser.add_argument("--models", type=Path, default=HERE / "models.yaml", help="another list")
    parser.add_argument("--pages", type=Path, default=ROOT / "docs", help="where real.md and zh/real.md are written")
    asked = parser.parse_args(arguments)
    models = read_models(asked.models)
    releases = loading or {release: on_release(release) for release in ENDS}
    with ExitStack() as stack:
        endpoint = stack.enter_context(simulated_hub(models)) if asked.simulated else None
        rows = run(models, endpoint, releases)
    for language in PAGES:
        path = asked.pages / PAGES[language].relative_to(ROOT / "docs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(language, models, rows, list(releases), asked.simulated), "utf-8")
    return int(any(row and row.failed for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
