"""What a card says of using its model: lines for each head, what they run, and limits; and the same in Chinese."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..families.heads import HEADS
from ..releases import TRANSFORMERS

CHINESE = "zh"

_TEXTS = {
    CHINESE: ("今天天气很[MASK]。", "这家店的菜很好吃。", "王明住在北京，在大学工作。", "王明住在哪里？",
              "房间很干净，也很安静。"),
    "": ("The weather is [MASK] today.", "The food here is very good.", "Wang Ming lives in Beijing and works there.",
         "Where does Wang Ming live?", "The room is clean and quiet."),
}  # fmt: skip
"""By language: a text with a mask, a review, a statement, a question on it, and another review."""

_PIPELINE = """\
from transformers import pipeline

{name} = pipeline("{task}", {address}, {options}trust_remote_code=True)
print({name}({text}))  # {prints}
"""

_ENCODE = """\
import torch

inputs = tokenizer([{review}, {other}], padding=True, return_tensors="pt")
with torch.no_grad():
    states = model(**inputs).last_hidden_state
print(states.shape)  # [2 texts, tokens, hidden size]
"""

_FOLLOWS = """\
import torch

inputs = tokenizer({statement}, {review}, return_tensors="pt")
with torch.no_grad():
    scores = model(**inputs).logits.softmax(-1)
print(float(scores[0, 0]))  # how likely the second text follows the first
"""

_CHOOSE = """\
import torch

choices = [{review}, {other}]
inputs = tokenizer([{statement}] * len(choices), choices, padding=True, return_tensors="pt")
with torch.no_grad():
    scores = model(**{{name: tensor[None] for name, tensor in inputs.items()}}).logits[0]
print(choices[int(scores.argmax())])  # the choice that fits best
"""

_ANSWER = """\
import torch

question, text = {question}, {statement}
inputs = tokenizer(question, text, return_offsets_mapping=True, return_tensors="pt")
offsets = inputs.pop("offset_mapping")[0]
with torch.no_grad():
    outputs = model(**inputs)
outside = torch.tensor([part != 1 for part in inputs.sequence_ids(0)])
start, end = (one[0].masked_fill(outside, -1e9) for one in (outputs.start_logits, outputs.end_logits))
scores = start[:, None] + end + torch.full((len(end), len(end)), -1e9).tril(-1)  # no end before its start
first, last = divmod(int(scores.argmax()), len(end))
print(text[offsets[first][0] : offsets[last][1]])  # the part of the text that answers
"""

_GENERATE = """\
inputs = tokenizer({statement}, return_tensors="pt")
reply = model.generate(**inputs, max_new_tokens=32, do_sample=True, top_k=5)
print(tokenizer.decode(reply[0, inputs.input_ids.shape[1] :], skip_special_tokens=True))  # what comes next
"""

_LINES = {
    "encoder": _ENCODE,
    "pretraining": _PIPELINE,
    "masked-lm": _PIPELINE,
    "causal-lm": _GENERATE,
    "prefix-lm": _GENERATE,
    "next-sentence-prediction": _FOLLOWS,
    "sequence-classification": _PIPELINE,
    "multiple-choice": _CHOOSE,
    "token-classification": _PIPELINE,
    "question-answering": _ANSWER,
}

_OF_PIPELINES = {
    "pretraining": ("fill", "fill-mask", "", "masked", "the words that fit best, each with its score"),
    "sequence-classification": ("classify", "text-classification", "", "review", '[{"label": ..., "score": ...}]'),
    "token-classification": (
        *("tag", "token-classification", 'aggregation_strategy="simple", ', "statement"),
        '[{"entity_group": ..., "word": ..., "start": ..., "end": ...}, ...]',
    ),
}
_OF_PIPELINES["masked-lm"] = _OF_PIPELINES["pretraining"]
"""By head: a name for the pipeline, its task, options, the text of `_TEXTS` and what it prints."""

_USES = {
    "encoder": ("features of texts, and fine-tuning", "提取文本特征，或在其上微调"),
    "pretraining": ("filling in masked words, and fine-tuning", "补全被遮住的词，或在其上微调"),
    "masked-lm": ("filling in masked words, and fine-tuning", "补全被遮住的词，或在其上微调"),
    "causal-lm": ("continuing a text, and fine-tuning", "续写文本，或在其上微调"),
    "prefix-lm": ("a text that follows a prefix, and fine-tuning", "根据前文生成文本，或在其上微调"),
    "next-sentence-prediction": ("whether one text follows another", "判断后一句是否紧接前一句"),
    "sequence-classification": ("the label of a text", "给文本分类"),
    "multiple-choice": ("the choice that fits a text", "从几个选项中选出合适的一个"),
    "token-classification": ("labels of parts of a text, such as names", "标注文本中的片段，例如命名实体"),
    "question-answering": ("the part of a text that answers a question", "从文本中找出问题的答案"),
}
"""By head: what the model is for, in English and in Chinese."""

_RELEASES = " and ".join(f"{first} to {last}" for first, last in reversed(TRANSFORMERS))


def loading(record: Mapping[str, Any], repo_id: str | None, language: str | None = None) -> str:
    """The lines of Python that load the model of the folder with the record `record`, and use it.

    Args:
        repo_id: the repository of the folder; None for a folder on this machine.
        language: of the model, as the Hub spells it.
    """
    code = f"```python\n{_loads(record, repo_id)}\n```"
    example = _example(record, repo_id, language)
    return (
        f"## Use\n\n{code}\n\n{example and f'It then computes, for example:{_BREAK}{example}{_BREAK}'}"
        "The model's code lies beside its weights (`modeling_nezha.py` and its neighbours); nothing else has to be "
        f"installed. It runs on transformers {_RELEASES}.\n\n"
        "`trust_remote_code=True` lets transformers run that code, which is in this repository, on your machine. It "
        'imports torch and transformers alone. Pin the commit that you have read: `revision="COMMIT"`. '
        "Where `nezha-convert[torch]` is installed, `import nezha` first, and leave the option out: then no code of "
        f"the repository runs.{_modules(record, repo_id)}"
    )


def _modules(record: Mapping[str, Any], repo_id: str | None) -> str:
    """How sentence-transformers loads the model with the modules that lie beside it; empty where none do."""
    if not any(file["name"] == "modules.json" for file in record["output_files"]):
        return ""
    loads = f"SentenceTransformer({_address(repo_id)}, trust_remote_code=True)"
    return f"{_BREAK}sentence-transformers loads it with its modules, listed in `modules.json`: `{loads}`."


_BREAK = "\n\n"


def _loads(record: Mapping[str, Any], repo_id: str | None) -> str:
    auto, address = HEADS[record["head"]].auto_class, _address(repo_id)
    tokenizer = has_tokenizer(record)
    lines = [f"from transformers import {auto}" + (", AutoTokenizer" if tokenizer else "")]
    lines.append(f"model = {auto}.from_pretrained({address}, trust_remote_code=True)")
    if tokenizer:  # without trust_remote_code transformers would ask, because of config.json
        lines.append(f"tokenizer = AutoTokenizer.from_pretrained({address}, trust_remote_code=True)")
    return "\n".join(lines)


def _example(record: Mapping[str, Any], repo_id: str | None, language: str | None) -> str:
    """Lines that give the model something and print what it makes of it; empty where the tokenizer cannot write it."""
    unmasked = any(one["field"] == "mask_token" and not one["value"] for one in record.get("decisions", ()))
    if not has_tokenizer(record) or (unmasked and _OF_PIPELINES.get(record["head"]) == _OF_PIPELINES["masked-lm"]):
        return ""
    quoted = [json.dumps(text, ensure_ascii=False) for text in _TEXTS[CHINESE if language == CHINESE else ""]]
    texts = dict(zip(("masked", "review", "statement", "question", "other"), quoted, strict=True))
    head = record["head"]
    if head in _OF_PIPELINES:
        name, task, options, text, prints = _OF_PIPELINES[head]
        texts |= {"name": name, "task": task, "options": options, "text": texts[text], "prints": prints}
    return f"```python\n{_LINES[head].format(address=_address(repo_id), **texts)}```"


def _address(repo_id: str | None) -> str:
    return json.dumps(repo_id or "path/to/this/folder")


def has_tokenizer(record: Mapping[str, Any]) -> bool:
    """Whether the folder with the record `record` has a tokenizer."""
    return any(file["name"] == "tokenizer.json" for file in record["output_files"])


def widget(head: str, language: str | None) -> list[dict[str, str]] | None:
    """The texts that the Hub's page offers to try; None where it has nothing to try."""
    masked, review, statement, question, _ = _TEXTS[CHINESE if language == CHINESE else ""]
    if head == "question-answering":
        return [{"text": question, "context": statement}]
    text = {
        "pretraining": masked,
        "masked-lm": masked,
        "sequence-classification": review,
        "token-classification": statement,
    }.get(head)
    return [{"text": text}] if text else None


def limits(head: str) -> str:
    """What the model is for, and what not."""
    return (
        f"## Intended use and limits\n\nIt is for {_USES[head][0]}. It computes what the original computes, and so has "
        "the original's faults: what its training texts said of people and things is in it, and nobody has measured "
        "that here. What it puts out is no statement of fact. Texts longer than those that it was trained on (512 "
        "tokens for the published models) are computed, and may be computed worse. A head that was not trained is "
        "random: fine-tune before you use it."
    )


CONVERTED = {
    True: "由原文件转换而来，已通过逐层比较，输出与原程序一致（见 Parity with the original）",
    False: "由原文件转换而来，与原程序的比较**没有通过**（见 Parity with the original）",
    None: "由原文件转换而来，尚未与原程序比较，可用 `nezha-convert verify` 验证",
}
"""What `in_chinese` says of a conversion that passed, that failed, and that was not compared."""

TRAINED = {
    True: "由一个转换来的模型微调而成，那次转换已通过逐层比较（见 Where it comes from）",
    False: "由一个转换来的模型微调而成，那次转换**没有得到证明**（见 Where it comes from）",
}
"""What it says of a training from a base that is proved, and from one that is not."""


def in_chinese(record: Mapping[str, Any], repo_id: str | None, origin: str) -> str:
    """The card's section for those who read Chinese.

    Args:
        origin: a sentence of `CONVERTED` or of `TRAINED`.
    """
    example = _example(record, repo_id, CHINESE)
    return (
        "## 中文说明\n\nNEZHA（哪吒）是华为诺亚方舟实验室的预训练模型：结构同 BERT，位置信息用函数式相对位置编码。"
        f"本仓库是它的 `{record['architecture']}`，用于{_USES[record['head']][1]}。它{origin}。\n\n"
        f"```python\n{_loads(record, repo_id)}\n```\n\n{example and f'{example}{_BREAK}'}"
        "* 模型代码随权重一起放在本仓库，除 torch 和 transformers 外不用安装别的。适用于 transformers "
        f"{_RELEASES.replace(' to ', ' 到 ').replace(' and ', '，')}。\n"
        '* `trust_remote_code=True` 会运行本仓库里的这些代码；请用 `revision="COMMIT"` 固定到你看过的版本。'
        "装了 `nezha-convert[torch]` 的话，先 `import nezha` 就不需要这个选项。\n"
        "* 模型保留了原模型的一切不足，包括训练语料中的偏见；输出不代表事实。超过训练长度（公开的模型为 512 个 token）"
        "也能计算，效果可能变差。"
        "没有训练过的任务头是随机的，要先微调。"
    )
