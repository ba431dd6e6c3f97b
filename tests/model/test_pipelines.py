"""A converted folder in transformers' pipelines, from its path alone."""

from __future__ import annotations

import pytest
import torch
import transformers
from goldens import FIXTURES

from nezha_convert import convert

CHARACTERS = "我爱北京天安门上太阳升今年的人工智能大学生来到中国银行工作他说这本书很好看真不错了你是谁"
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(CHARACTERS), *"，。abcdefghijklmnop"][:64]
TEXT = "我爱北京天安门。"


@pytest.fixture
def pipeline(tmp_path):
    """A pipeline of a converted fixture."""

    def pipeline(task: str, fixture: str, head: str | None = None) -> transformers.Pipeline:
        assert len(TOKENS) == len(set(TOKENS)) == 64
        (tmp_path / "vocab.txt").write_text("\n".join(TOKENS) + "\n", "utf-8")
        convert(FIXTURES / fixture, tmp_path / "out", vocab=tmp_path / "vocab.txt", head=head)
        return transformers.pipeline(task, model=str(tmp_path / "out"), trust_remote_code=True)

    return pipeline


def class_of(pipe: transformers.Pipeline) -> str:
    return type(pipe.model).__name__


@pytest.mark.parametrize("fixture", ["huawei-tf-pretraining", "transformers-4.40.2-masked-lm"])
def test_fill_mask(pipeline, fixture):
    pipe = pipeline("fill-mask", fixture)
    assert class_of(pipe) == "NezhaForMaskedLM"
    found = pipe("我爱[MASK]京")
    assert len(found) == 5 and all(guess["token_str"] in TOKENS for guess in found)
    inputs = pipe.tokenizer("我爱[MASK]京", return_tensors="pt")
    with torch.no_grad():
        best = pipe.model(**inputs).logits[0, 3].softmax(-1).max()
    assert found[0]["score"] == pytest.approx(best.item(), rel=1e-5)


def test_text_classification(pipeline):
    pipe = pipeline("text-classification", "huawei-tf-classifier", "sequence-classification")
    assert class_of(pipe) == "NezhaForSequenceClassification"
    found = pipe(TEXT, top_k=None)
    assert {label["label"] for label in found} == set(pipe.model.config.id2label.values())
    assert sum(label["score"] for label in found) == pytest.approx(1)


def test_token_classification(pipeline):
    pipe = pipeline("token-classification", "huawei-tf-ner", "token-classification")
    assert class_of(pipe) == "NezhaForTokenClassification"
    assert [token["word"] for token in pipe(TEXT)] == list(TEXT)


def test_question_answering(pipeline, tmp_path):
    """transformers 5 has no such pipeline any more; there the model's own scores give the span."""
    question, context = "他是谁", TEXT
    if int(transformers.__version__.split(".")[0]) < 5:
        pipe = pipeline("question-answering", "huawei-tf-squad")
        assert class_of(pipe) == "NezhaForQuestionAnswering"
        assert pipe(question=question, context=context)["answer"] in context
        return
    with pytest.raises(KeyError, match="question-answering"):
        pipeline("question-answering", "huawei-tf-squad")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path / "out", trust_remote_code=True)
    inputs = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets, inside = inputs.pop("offset_mapping")[0], torch.tensor([s == 1 for s in inputs.sequence_ids(0)])
    with torch.no_grad():
        outputs = model.eval()(**inputs)
    start = outputs.start_logits[0].masked_fill(~inside, -torch.inf).argmax()
    end = outputs.end_logits[0].masked_fill(~inside | (torch.arange(len(inside)) < start), -torch.inf).argmax()
    assert context[offsets[start][0] : offsets[end][1]]


@pytest.mark.parametrize("fixture", ["transformers-4.40.2-encoder", "huawei-torch-pretraining"])
def test_feature_extraction(pipeline, fixture):
    pipe = pipeline("feature-extraction", fixture)
    assert class_of(pipe) == "NezhaModel"
    (states,) = pipe(TEXT)
    assert (len(states), len(states[0])) == (len(TEXT) + 2, pipe.model.config.hidden_size)


def test_text_generation(pipeline):
    pipe = pipeline("text-generation", "transformers-4.40.2-causal-lm")
    assert class_of(pipe) == "NezhaForCausalLM"
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    (found,) = pipe(TEXT, **options, return_full_text=False)
    inputs = pipe.tokenizer(TEXT, return_tensors="pt", return_token_type_ids=False)
    expected = pipe.model.generate(**inputs, **options)[0, inputs["input_ids"].shape[1] :]
    assert found["generated_text"].replace(" ", "") == pipe.tokenizer.decode(expected).replace(" ", "")
