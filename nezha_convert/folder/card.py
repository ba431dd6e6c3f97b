"""The model card, README.md, of a converted folder. It is made from conversion.json alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..families.heads import HEADS
from ..families.rules import layer_of
from ..formats.safetensors import EXTRA
from ..text import printable
from .use import CHINESE, CONVERTED, has_tokenizer, in_chinese, limits, loading, widget

CARD = "README.md"

# fmt: off
LICENSES = (
    "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0",
    "bigcode-openrail-m", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-sharing-1.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1",
    "eupl-1.2", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "isc", "h-research",
    "intel-research", "lppl-1.3c", "ms-pl", "apple-ascl", "apple-amlr", "mpl-2.0", "odc-by", "odbl", "openmdw-1.0",
    "openrail++", "osl-3.0", "postgresql", "ofl-1.1", "ncsa", "unlicense", "zlib", "pddl", "lgpl-lr",
    "deepfloyd-if-license", "fair-noncommercial-research-license", "llama2", "llama3", "llama3.1", "llama3.2",
    "llama3.3", "llama4", "grok2-community", "gemma", "unknown", "other",
)
# fmt: on
"""The identifiers that the Hub accepts (the page "Licenses" of its documentation)."""

_PIPELINES = {
    "encoder": "feature-extraction",
    "pretraining": "fill-mask",
    "masked-lm": "fill-mask",
    "causal-lm": "text-generation",
    "prefix-lm": "text-generation",
    "sequence-classification": "text-classification",
    "token-classification": "token-classification",
    "question-answering": "question-answering",
    "multiple-choice": "multiple-choice",
}
"""By head, the Hub's name of its task. The Hub has none for next-sentence prediction."""

_COLUMNS = (
    "CMRC EM/F1 (dev)",
    "XNLI dev/test",
    "LCQMC dev/test",
    "PD-NER dev/test",
    "ChnSenti dev/test",
)
_AUTHORS = {
    (768, 12): (
        ("NEZHA-base", "67.07/86.35", "81.37/79.32", "89.98/87.41", "97.22/98.58", "94.74/95.17"),
        ("NEZHA-base-WWM", "67.04/86.65", "81.08/80.68", "90.07/87.37", "97.34/98.58", "95.50/95.58"),
    ),
    (1024, 24): (
        ("NEZHA-large", "68.10/87.20", "81.53/80.44", "90.18/87.20", "97.51/97.87", "95.92/95.83"),
        ("NEZHA-large-WWM", "67.32/86.62", "82.21/81.17", "90.87/87.94", "97.26/97.63", "95.75/96.00"),
    ),
}
"""By hidden size and number of layers: arXiv 1909.00204v3, table 4."""

_CHINESE_VOCABULARY = 21128
_PRETRAINED = ("encoder", "pretraining", "masked-lm")

CITATION = """\
## Citation

```bibtex
@article{wei2019nezha,
  title   = {NEZHA: Neural Contextualized Representation for Chinese Language Understanding},
  author  = {Junqiu Wei and Xiaozhe Ren and Xiaoguang Li and Wenyong Huang and Yi Liao and Yasheng Wang and
             Jiashu Lin and Xin Jiang and Xiao Chen and Qun Liu},
  journal = {arXiv preprint arXiv:1909.00204},
  year    = {2019}
}
```"""


def conversion_card(
    conversion: Mapping[str, Any],
    *,
    license: str | None = None,
    repo_id: str | None = None,
    doubts: Sequence[str] = (),
) -> str:
    """The card of the folder whose conversion.json holds `conversion`.

    Args:
        license: one of `LICENSES`; with None the card says why no license is stated.
        repo_id: the repository that the folder is pushed to; None for a folder on this machine.
        doubts: why the folder is not proved, when it is pushed all the same.
    """
    sections = (
        _introduction(conversion, doubts),
        loading(conversion, repo_id, _decided(conversion, "language")),
        limits(conversion["head"]),
        _chinese(conversion, repo_id),
        _beside(conversion, repo_id),
        _not_finite(conversion),
        _provenance(conversion),
        _decisions(conversion),
        _dropped(conversion),
        _parity(conversion),
        _authors(conversion),
        license_section(license),
        CITATION,
    )
    return joined(_metadata(conversion, license), *sections)


def joined(*sections: str) -> str:
    """The text of a card. YAML reads the escapes of `printable` in its metadata, too."""
    return printable("\n\n".join(filter(None, sections)), keep="\n") + "\n"


def warning(doubts: Sequence[str], claim: str = "it is not proved to be the original's equal") -> str:
    """The warning on the card of a folder that was pushed with --force: `claim`, and the reasons."""
    listed = "\n".join(f"* {escaped(doubt)}" for doubt in doubts)
    return f"**Pushed with `--force`, although {claim}:**\n\n{listed}"


def _metadata(conversion: Mapping[str, Any], license: str | None) -> str:
    base = re.fullmatch(r"hf://([^@]+)(@.*)?", conversion["source"])
    fields = {
        "language": _decided(conversion, "language"),
        "license": license,
        "library_name": "transformers",
        "pipeline_tag": _PIPELINES.get(conversion["head"]),
        "base_model": base[1] if base else None,
        "widget": widget(conversion["head"], _decided(conversion, "language")) if has_tokenizer(conversion) else None,
        "tags": ["nezha", "bert", "nezha-convert", "arxiv:1909.00204"],
    }
    # JSON is also YAML, so no YAML library is needed and nothing has to be quoted by hand.
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items() if value]
    return "\n".join(["---", *lines, "---"])


def _introduction(conversion: Mapping[str, Any], doubts: Sequence[str]) -> str:
    text = (
        f"# {conversion['architecture']}, converted from {inline(conversion['source'])}\n\n"
        "[NEZHA](https://arxiv.org/abs/1909.00204) is Huawei's BERT with functional relative position encoding. "
        f"This is a checkpoint of {escaped(conversion['title'])}, converted by nezha-convert "
        f"{escaped(conversion['version'])} for today's transformers."
    )
    return f"{text}\n\n{warning(doubts)}" if doubts else text


def _beside(conversion: Mapping[str, Any], repo_id: str | None) -> str:
    """What was trained and has no place in the model, and how to use it in a module of one's own."""
    kept = conversion.get("kept") or ()
    if not kept:
        return ""
    rows = [(inline(t["target"]), escaped(t["dtype"]), str(t["shape"])) for t in kept]
    code = "\n".join(_own_module(conversion, repo_id))
    return (
        f"## Beside the model\n\n`{EXTRA}` holds what the source has besides the model, bit for bit and under the "
        "source's names: layers of its own program, which have no place in a class of transformers.\n\n"
        f"{table(('tensor', 'type', 'shape'), rows)}\n\nIn your own module, the encoder stands in the place that it "
        f"had there:\n\n```python\n{code}\n```"
    )


def _own_module(conversion: Mapping[str, Any], repo_id: str | None) -> list[str]:
    """Lines of Python that load the model and what lies beside it into a module of PyTorch; of others, as arrays."""
    auto = HEADS[conversion["head"]].auto_class
    begin = [f"from transformers import {auto}", "from safetensors.torch import load_file", ""]
    where = f"snapshot_download({json.dumps(repo_id)})" if repo_id else '"path/to/this/folder"'
    if repo_id:
        begin.insert(0, "from huggingface_hub import snapshot_download")
    begin += [
        f"folder = {where}",
        f"loaded = {auto}.from_pretrained(folder, trust_remote_code=True)",
        f'tensors = load_file(folder + "/{EXTRA}")',
    ]
    sources = {
        tensor["target"]: _before_renaming(tensor.get("source", ""), conversion) for tensor in conversion["written"]
    }
    words = next((source for target, source in sources.items() if target.endswith("word_embeddings.weight")), "")
    place = re.fullmatch(r"((?:module\.)?)((?:[A-Za-z_]\w*\.)+)embeddings\.word_embeddings\.weight", words)
    if not place:
        return begin
    outer, attribute = place[1], place[2].rstrip(".")
    heads = [(s.removeprefix(outer), t) for t, s in sources.items() if not s.startswith(outer + place[2])]
    lines = [f"tensors[{json.dumps(s)}] = loaded.state_dict()[{json.dumps(t)}]" for s, t in heads if "nezha." not in t]
    if outer:
        lines.insert(0, 'tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}')
    return [
        *begin,
        *lines,
        "module = YourModule()  # the class of your own code",
        f"module.{attribute} = loaded.base_model",
        "missing, unexpected = module.load_state_dict(tensors, strict=False)",
        f'assert all(name.startswith("{attribute}.") for name in missing), missing',
    ]


def _before_renaming(name: str, conversion: Mapping[str, Any]) -> str:
    """The name that a tensor has in the source, whatever the user called it."""
    for decision in reversed(conversion["decisions"]):
        old, _, new = str(decision["value"]).partition("=")
        if decision["field"] == "renamed" and re.fullmatch(rf"{re.escape(new)}([./].*)?", name):
            name = old + name[len(new) :]
    return name


def _chinese(conversion: Mapping[str, Any], repo_id: str | None) -> str:
    """The section for those who read Chinese, of a model that does."""
    parity = conversion.get("parity")
    passed = bool(parity["passed"]) if parity else None
    return in_chinese(conversion, repo_id, CONVERTED[passed]) if _decided(conversion, "language") == CHINESE else ""


def _not_finite(conversion: Mapping[str, Any]) -> str:
    """A warning, if some weights are NaN or infinite."""
    tensors = (conversion.get("numbers") or {}).get("tensors", ())
    counts = ("nan", "infinite", "overflow")
    rows = [(inline(t["name"]), *(f"{t[count]:,}" for count in counts)) for t in tensors if any(t[c] for c in counts)]
    if not rows:
        return ""
    text = "**What these weights reach is not a number.** NaN and infinite values are the source's own, bit for bit;"
    text += " those that became infinite were finite there, and too large for the element type that was asked for."
    listed = table(("tensor", "NaN", "infinite", "became infinite"), rows)
    return f"## Values that are not finite\n\n{text}\n\n{listed}"


def _provenance(conversion: Mapping[str, Any]) -> str:
    weights = [file for file in conversion["output_files"] if file["name"].endswith(".safetensors")]
    rows = [
        (role, inline(file["name"]), f"{file['nbytes']:,}", inline(file["sha256"]))
        for role, files in (("read", conversion["source_files"]), ("written", weights))
        for file in files
    ]
    head = f"As `{conversion['head']}`: {escaped(conversion['head_reason'])}."
    return f"## What was converted from what\n\n{head}\n\n" + table(("", "file", "bytes", "SHA-256"), rows)


def _decisions(conversion: Mapping[str, Any]) -> str:
    rows = [
        (inline(d["field"]), inline(json.dumps(d["value"], ensure_ascii=False)), escaped(d["reason"]))
        for d in conversion["decisions"]
    ]
    text = "What the source did not say by itself, and what was taken."
    return f"## Decisions\n\n{text}\n\n" + table(("field", "value", "why"), rows) if rows else ""


def _dropped(conversion: Mapping[str, Any]) -> str:
    groups: dict[str, list[int]] = {}
    for tensor in conversion["dropped"]:
        groups.setdefault(tensor["reason"], []).append(tensor["nbytes"])
    rows = [(f"{len(sizes):,}", f"{sum(sizes):,}", escaped(reason)) for reason, sizes in groups.items()]
    return "## Left out\n\n" + table(("tensors", "bytes", "why"), rows) if rows else ""


def _parity(conversion: Mapping[str, Any]) -> str:
    parity = conversion.get("parity")
    title = "## Parity with the original\n\n"
    if not parity:
        text = title + "Not measured: `nezha-convert verify SOURCE OUTPUT` was not run on this folder."
        return text + _assumed(conversion.get("assumptions", ()))
    rows = [
        (
            escaped(c["reference"]),
            escaped(c["arithmetic"]),
            f"{c['tolerance']:g}",
            "not finite" if c["worst_error"] is None else f"{c['worst_error']:.1e}",
            f"{inline(c['worst_tensor'])} at {escaped(c['worst_at'])}",
        )
        for c in parity["comparisons"]
    ]
    text = title + ("**Passed.**" if parity["passed"] else "**Failed.**")
    text += " Errors are parts of the range of each tensor; the largest of all tensors is shown.\n\n"
    text += table(("compared with", "computed in", "allowed", "largest error", "where"), rows)
    if parity.get("tokenizer"):
        reference, texts = parity["tokenizer"]["reference"], parity["tokenizer"]["texts"]
        text += f"\n\nThe tokenizer was compared with {escaped(reference)} on {texts:,} texts."
    text += _assumed(parity.get("assumed", ()), parity.get("accepted", ()))
    if parity["failures"]:
        text += "\n\n" + "\n".join(f"* {escaped(failure)}" for failure in parity["failures"])
    versions = ", ".join(f"{escaped(name)} {escaped(number)}" for name, number in parity["versions"].items())
    return f"{text}\n\nMeasured with {versions}."


def _assumed(assumptions: Sequence[Mapping[str, str]], accepted: Sequence[str] = ()) -> str:
    """What the conversion rests on; what ``verify --assume`` accepted is named as such."""
    lines = [
        f"* {inline(one['name'])}: {escaped(one['text'])}{' (accepted)' if one['name'] in accepted else ''}"
        for one in assumptions
    ]
    title = "Assumed, because neither the source nor a comparison shows it:"
    return "\n\n" + "\n".join([title, "", *lines]) if lines else ""


def _authors(conversion: Mapping[str, Any]) -> str:
    """The paper's figures, for a pre-trained model that has one of the paper's sizes and the Chinese vocabulary."""
    shapes = {tensor["target"]: tensor["shape"] for tensor in conversion["written"]}
    embedding = next((s for name, s in shapes.items() if name.endswith("embeddings.word_embeddings.weight")), (0, 0))
    layers = 1 + max((number for name in shapes if (number := layer_of(name)) is not None), default=-1)
    rows = _AUTHORS.get((embedding[-1], layers)) if len(embedding) == 2 else None
    if rows is None or embedding[0] != _CHINESE_VOCABULARY or conversion["head"] not in _PRETRAINED:
        return ""
    return (
        "## The authors' figures for their originals\n\n"
        f"This model has the sizes of {rows[0][0]}. Its authors report the following for their own checkpoints, "
        "fine-tuned on each task ([arXiv 1909.00204v3](https://arxiv.org/abs/1909.00204v3), table 4). **These are not "
        "measurements of this conversion.** Whether a checkpoint was trained with whole-word masking (WWM) cannot be "
        "told from its tensors, so both rows are given.\n\n" + table(("model", *_COLUMNS), rows)
    )


def license_section(license: str | None) -> str:
    """The section on the license."""
    if license:
        text = f"`{license}`, as stated by whoever pushed this copy."
    else:
        text = (
            "Not stated here. Huawei's code is under Apache-2.0; the files of a checkpoint do not say what holds for "
            "its weights, and copies of NEZHA on the Hub disagree. `nezha-convert push --license ID` states it."
        )
    return f"## License\n\n{text}"


def _decided(conversion: Mapping[str, Any], field: str) -> Any:
    return next((d["value"] for d in conversion["decisions"] if d["field"] == field), None)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table. The cells are Markdown already."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def escaped(text: str) -> str:
    """`text` as one line of Markdown, with everything escaped that Markdown would read as markup."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def inline(text: str) -> str:
    """`text` as inline code that is safe inside a table.

    Markdown cannot escape a grave accent in code, so an apostrophe replaces it. A bar would end the table's cell, so it
    is escaped; backslashes before the bar are doubled, otherwise they would escape the backslash that is added.
    """
    return "`" + re.sub(r"(\\*)\|", r"\1\1\|", " ".join(text.split()).replace("`", "'")) + "`"
