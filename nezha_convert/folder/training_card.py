"""The model card, README.md, of a trained model. It is made from training.json alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .card import CITATION, escaped, inline, joined, license_section, table, warning
from .use import CHINESE, TRAINED, in_chinese, limits, loading

HUB_DATASET = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
"""A data set's name on the Hub."""


def training_card(
    training: Mapping[str, Any],
    *,
    license: str | None = None,
    repo_id: str | None = None,
    doubts: Sequence[str] = (),
    claim: str = "",
) -> str:
    """The card of the folder whose training.json holds `training`.

    Args:
        license: one of ``card.LICENSES``. None takes the license of the record; if there is none, the card says why.
        repo_id: the repository that the folder is pushed to; None for a folder on this machine.
        doubts: why not everything is proved, when the folder is pushed all the same.
        claim: what the card then says does not hold.
    """
    license = license or training["license"]
    sections = (
        _introduction(training),
        warning(doubts, claim) if doubts else "",
        _results(training),
        loading(training, repo_id, training["language"]),
        limits(training["head"]),
        in_chinese(training, repo_id, TRAINED[not training["base"]["doubts"]])
        if training["language"] == CHINESE
        else "",
        _data(training),
        _settings(training),
        _chain(training),
        license_section(license),
        CITATION,
    )
    return joined(_metadata(training, license, repo_id), *sections)


def _metadata(training: Mapping[str, Any], license: str | None, repo_id: str | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=training["task"],
            dataset_type=names[0] if len(names) == 1 else split,
            dataset_name=", ".join(names),
            dataset_split=split,
            metric_type=name,
            metric_value=value,
        )
        for split, names, name, value in _measured(training)
    ]
    data = ModelCardData(
        language=training["language"],
        license=license,
        library_name="transformers",
        pipeline_tag=training["task"],
        base_model=_on_the_hub(training["base"]),
        datasets=sorted({data["name"] for data in training["data"] if _is_of_the_hub(data)}) or None,
        tags=["nezha", "bert", "nezha-convert", "arxiv:1909.00204"],
        model_name=repo_id.partition("/")[2] if repo_id else training["architecture"],
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _measured(training: Mapping[str, Any]) -> Iterator[tuple[str, list[str], str, float]]:
    """(split, names of its data, metric, value)."""
    for split, values in training["metrics"].items():
        names = [data["name"] for data in training["data"] if data["split"] == split]
        for name, value in values.items():
            yield split, names, name, value


def _is_of_the_hub(data: Mapping[str, Any]) -> bool:
    return not data["files"] and HUB_DATASET.fullmatch(data["name"]) is not None


def _on_the_hub(base: Mapping[str, Any]) -> str | None:
    """The base's name on the Hub; if the base is not there, the name of what the base was made from, and so on."""
    for step in (base, base["conversion"]):
        if step and (match := re.fullmatch(r"hf://([^@]+)(@.*)?", step["source"])):
            return match[1]
    return _on_the_hub(base["training"]["base"]) if base["training"] else None


def _introduction(training: Mapping[str, Any]) -> str:
    return (
        f"# {training['architecture']}, trained from {inline(training['base']['source'])}\n\n"
        "[NEZHA](https://arxiv.org/abs/1909.00204) is Huawei's BERT with functional relative position encoding. "
        f"This one was trained for {escaped(training['task'])} on {escaped(training['date'])}."
    )


def _results(training: Mapping[str, Any]) -> str:
    rows = [
        (escaped(split), escaped(", ".join(names)), escaped(name), f"{value:.6g}")
        for split, names, name, value in _measured(training)
    ]
    text = "Measured by whoever trained it, on the model in this folder." if rows else "Nothing was measured."
    return f"## Results\n\n{text}" + ("\n\n" + table(("split", "data", "metric", "value"), rows) if rows else "")


def _data(training: Mapping[str, Any]) -> str:
    rows = []
    for data in training["data"]:
        files = [(inline(file["name"]), inline(file["sha256"])) for file in data["files"]]
        places = files or [("the Hub", inline(data["revision"]) if data["revision"] else "no revision given")]
        count = "not counted" if data["rows"] is None else f"{data['rows']:,}"
        rows += [(escaped(data["split"]), escaped(data["name"]), count, *place) for place in places]
    header = ("split", "name", "rows", "file", "SHA-256 or revision")
    return "## Data\n\n" + table(header, rows) if rows else ""


def _settings(training: Mapping[str, Any]) -> str:
    rows = [(inline(name), inline(json.dumps(v, ensure_ascii=False))) for name, v in training["settings"].items()]
    versions = ", ".join(f"{escaped(name)} {escaped(str(number))}" for name, number in training["versions"].items())
    settings = [table(("setting", "value"), rows)] if rows else []
    return "\n\n".join(["## Settings", *settings, f"Trained with {versions}."])


def _chain(training: Mapping[str, Any]) -> str:
    """From this model back to the original: what each step started from, and whether it is proved."""
    lines, base = [], training["base"]
    while True:
        lines.append(f"* It was trained from {inline(base['source'])}: {_hashes(base['weights'])}.")
        if not base["training"]:
            break
        earlier = base["training"]
        lines.append(
            f"* That was trained for {escaped(earlier['task'])} on {escaped(earlier['date'])}, on "
            f"{escaped(', '.join(dict.fromkeys(data['name'] for data in earlier['data'])))}."
        )
        base = earlier["base"]
    if origin := base["conversion"]:
        lines.append(
            f"* That was converted by nezha-convert {escaped(origin['version'])} from {inline(origin['source'])}, a "
            f"checkpoint of {escaped(origin['title'])}: {_hashes(origin['source_files'])}."
        )
    doubts = training["base"]["doubts"]
    lines += [f"* **Not proved:** {escaped(doubt)}." for doubt in doubts]
    if not doubts:
        lines.append("* The conversion was compared with the original, layer by layer, and passed.")
    return "## Where it comes from\n\n" + "\n".join(lines)


def _hashes(files: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(f"{inline(file['name'])} (SHA-256 {inline(file['sha256'])})" for file in files)
