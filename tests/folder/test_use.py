"""What a card says of using its model runs, is true, and stands there in Chinese for a Chinese model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from goldens import FIXTURES
from huggingface_hub import ModelCard

from nezha_convert import convert
from nezha_convert.families.heads import HEADS
from nezha_convert.folder.card import conversion_card
from nezha_convert.folder.use import CONVERTED, TRAINED, in_chinese, limits, widget
from nezha_convert.releases import TRANSFORMERS

VOCABULARY = (FIXTURES / "training" / "vocab.txt").read_text("utf-8").split()
SOURCES = {
    "encoder": ("transformers-4.40.2-encoder", {}),
    "pretraining": ("huawei-tf-pretraining", {}),
    "masked-lm": ("transformers-4.40.2-masked-lm", {}),
    "causal-lm": ("bert4torch-causal-lm", {}),
    "prefix-lm": ("bert4torch-prefix-lm", {}),
    "next-sentence-prediction": ("transformers-4.40.2-next-sentence-prediction", {}),
    "sequence-classification": ("huawei-torch-classifier", {}),
    "multiple-choice": ("huawei-torch-multiple-choice", {}),
    "token-classification": ("huawei-tf-ner", {"head": "token-classification"}),
    "question-answering": ("huawei-torch-qa", {}),
}
PRINTED = {
    "encoder": r"torch\.Size\(\[2, \d+, \d+\]\)\n",
    "pretraining": r"\[\{'score': .*'token_str': .*\}\]\n",
    "masked-lm": r"\[\{'score': .*'token_str': .*\}\]\n",
    "causal-lm": r".*\n",
    "prefix-lm": r".*\n",
    "next-sentence-prediction": r"0\.\d+\n",
    "sequence-classification": r"\[\{'label': 'LABEL_\d', 'score': 0\.\d+\}\]\n",
    "multiple-choice": r"(这家店的菜很好吃。|房间很干净，也很安静。)\n",
    "token-classification": r"\[.*\]\n",
    "question-answering": r"[王明住在北京，大学工作。]+\n",
}
"""What the example of a head prints, of random weights."""


def converted(head: str, folder: Path, words: list[str] = VOCABULARY) -> Path:
    fixture, options = SOURCES[head]
    (config,) = (path for path in (FIXTURES / fixture).glob("*config.json") if "generation" not in path.name)
    vocab = folder / "vocab.txt"
    rows = json.loads(config.read_text("utf-8"))["vocab_size"]
    vocab.write_text("\n".join(words[:rows]) + "\n", "utf-8")
    convert(FIXTURES / fixture, folder / "out", vocab=vocab, **options)
    return folder / "out"


def test_every_head_has_its_lines():
    assert SOURCES.keys() == PRINTED.keys() == HEADS.keys()


@pytest.mark.parametrize("head", SOURCES)
def test_the_lines_of_a_card_run_and_print_what_they_say(head, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = converted(head, tmp_path)
    card = (folder / "README.md").read_text("utf-8")
    english, chinese = (card.partition(f"\n## {title}\n")[2].partition("\n## ")[0] for title in ("Use", "中文说明"))
    loads, uses = re.findall(r"```python\n(.*?)```", english, re.DOTALL)
    assert [loads, uses] == re.findall(r"```python\n(.*?)```", chinese, re.DOTALL)
    capsys.readouterr()
    exec((loads + uses).replace("path/to/this/folder", str(folder)), {})
    assert re.fullmatch(PRINTED[head], capsys.readouterr().out)


def test_the_question_s_answer_is_never_outside_of_the_text_nor_ends_before_it_begins(tmp_path, capsys):
    folder = converted("question-answering", tmp_path)
    _, code, *_ = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.DOTALL)
    import torch
    from transformers import AutoTokenizer

    import nezha  # noqa: F401

    class Model:
        """Likes the question, and an end before the start."""

        def __call__(self, **inputs):
            length = inputs["input_ids"].shape[1]
            falling = torch.arange(length, 0, -1.0)[None]
            return type("Outputs", (), {"start_logits": -falling, "end_logits": falling})

    exec(code, {"model": Model(), "tokenizer": AutoTokenizer.from_pretrained(folder)})
    assert capsys.readouterr().out.strip() in "王明住在北京，在大学工作。"


def test_a_model_that_is_not_chinese_has_no_chinese_section_and_english_texts(tmp_path):
    words = [*VOCABULARY[:5], *"abcdefghij", *(f"w{i}" for i in range(49))]
    card = (converted("sequence-classification", tmp_path, words) / "README.md").read_text("utf-8")
    assert "中文说明" not in card and "The food here is very good." in card


def test_without_a_tokenizer_and_without_a_mask_nothing_is_shown_that_cannot_run(tmp_path):
    convert(FIXTURES / "huawei-tf-pretraining", tmp_path / "bare")
    record = json.loads((tmp_path / "bare" / "conversion.json").read_text("utf-8"))
    card = conversion_card(record)
    assert card.count("```python") == 1 and "widget" not in card.partition("\n---\n")[0]
    words = [word for word in VOCABULARY if word != "[MASK]"] + ["1"]
    assert "pipeline(" not in (converted("masked-lm", tmp_path, words) / "README.md").read_text("utf-8")


def test_the_metadata_has_texts_to_try(tmp_path):
    card = ModelCard.load(converted("question-answering", tmp_path) / "README.md")
    assert card.data.widget == [{"text": "王明住在哪里？", "context": "王明住在北京，在大学工作。"}]
    assert widget("masked-lm", None) == [{"text": "The weather is [MASK] today."}] and widget("encoder", "zh") is None


def test_the_card_names_releases_what_runs_and_how_to_pin_it(tmp_path):
    card = (converted("masked-lm", tmp_path) / "README.md").read_text("utf-8")
    for first, last in TRANSFORMERS:
        assert f"{first} to {last}" in card and f"{first} 到 {last}" in card
    assert card.count('`revision="COMMIT"`') == 2 and "## Intended use and limits" in card


def test_the_chinese_section_says_whether_the_conversion_is_proved():
    record = {"head": "masked-lm", "architecture": "NezhaForMaskedLM", "output_files": []}
    for origin in (*CONVERTED.values(), *TRAINED.values()):
        assert origin in in_chinese(record, None, origin)
    assert all(limits(head) for head in HEADS)
