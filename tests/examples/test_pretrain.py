"""examples/pretrain.py from a converted folder: trains, evaluates, saves, and the saved model predicts."""

import json
import math
import re
import shutil
from pathlib import Path

import datasets
import numpy as np
import pretrain
import pytest
import torch
import training
import whole_word_masking
from transformers import AutoModelForPreTraining, AutoTokenizer, pipeline

import nezha_convert
from nezha_convert.errors import UsageError

FIXTURES = Path(__file__).parents[2] / "fixtures"
CORPUS = FIXTURES / "training" / "corpus"
BATCH = "--per_device_train_batch_size 16"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, session_cache):
    """A tiny converted checkpoint with the vocabulary of the training fixtures and no dropout."""
    base = tmp_path_factory.mktemp("pretrain")
    shutil.copytree(FIXTURES / "huawei-tf-pretraining", base / "source")
    shutil.copy(FIXTURES / "training" / "vocab.txt", base / "source")
    config = json.loads((base / "source" / "bert_config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (base / "source" / "bert_config.json").write_text(json.dumps(config))
    nezha_convert.convert(base / "source", base / "tiny")
    return base / "tiny"


@pytest.fixture(scope="module")
def session_cache(tmp_path_factory):
    """datasets' cache, and no other place of the user's."""
    patch = pytest.MonkeyPatch()
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    yield
    patch.undo()


def run(folder, output, *options, train=CORPUS / "train.txt", dev=CORPUS / "train.txt"):
    common = "--eval_strategy no --save_strategy no --report_to none --dataloader_num_workers 0 --disable_tqdm true"
    files = ["--model", str(folder), "--train", str(train), "--dev", str(dev), "--output", str(output)]
    return pretrain.train([*files, *common.split(), *options])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, session_cache):
    """By README's row, with what README adds to it."""
    home = tmp_path_factory.mktemp("trained")
    nezha_convert.convert(FIXTURES / "huawei-tf-pretraining", home / "tiny", vocab=FIXTURES / "training" / "vocab.txt")
    text = (FIXTURES.parent / "README.md").read_text("utf-8")
    row = re.search("`python examples/pretrain.py (.*?)`", text)[1].replace("corpus/", f"{CORPUS}/").split()
    row[row.index("--model") + 1], row[row.index("--output") + 1] = str(home / "tiny"), str(home / "model")
    options = re.search(r"`\.\.\. (--learning_rate .*?)`", text)[1]
    options = options.replace("epochs 20", f"epochs {re.search('With ([0-9]+) epochs instead of 20', text)[1]}")
    quick = "--report_to none --dataloader_num_workers 0 --disable_tqdm true --save_strategy no --eval_strategy no"
    return home / "model", pretrain.train([*row, *options.split(), *quick.split(), "--logging_steps", "1"])


def test_the_readmes_command_learns_its_corpus_and_the_saved_model_fills_masks(trained):
    output, metrics = trained
    assert metrics["dev_masked_accuracy"] > 0.9 and metrics["dev_perplexity"] < 1.5
    assert json.loads((output / "metrics.json").read_text()) == metrics
    assert json.loads((output / "training.json").read_text())["task"] == "fill-mask"
    fill = pipeline("fill-mask", model=str(output), trust_remote_code=False)
    for text, words in [("王明住在[MASK][MASK]。也去大学。", "北京"), ("张红的菜店很新。在[MASK][MASK]。", "广州")]:
        assert "".join(found[0]["token_str"] for found in fill(text)) == words


def test_a_hundred_steps_of_the_defaults_learn_for_held_out_text_too(folder, tmp_path):
    """Three layers of 128 units, fresh; at 1e-4, which is for 768 units, the loss falls by half as much."""
    shutil.copytree(folder, tmp_path / "shape")
    shape = json.loads((folder / "config.json").read_text())
    shape |= {"num_hidden_layers": 3, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512}
    (tmp_path / "shape" / "config.json").write_text(json.dumps(shape))
    steps = ["--from_scratch", "--max_steps", "100", "--logging_steps", "1"]
    metrics = run(tmp_path / "shape", tmp_path / "out", *steps, dev=CORPUS / "dev.txt")
    history = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert len(losses) == 100 and np.mean(losses[:5]) - np.mean(losses[-5:]) > 0.8
    assert losses[0] - math.log(metrics["dev_perplexity"]) > 0.8


@pytest.mark.parametrize("units, rate", [(768, 1e-4), (1024, 7.5e-5), (128, 6e-4)])
def test_the_rate_is_berts_for_its_width_and_goes_down_as_width_goes_up(tmp_path, units, rate):
    shape = {"model_type": "nezha", "hidden_size": units, "num_attention_heads": units // 64}
    (tmp_path / "config.json").write_text(json.dumps(shape))
    for options, expected in (([], rate), (["--learning_rate", "3e-4"], 3e-4)):
        command = ["--model", str(tmp_path), "--output", str(tmp_path / "out"), *options]
        _, settings = training.parse(command, "", pretrain.Arguments, rate=pretrain.rate)
        assert settings.learning_rate == pytest.approx(expected)


def test_the_rate_rises_linearly_and_falls_linearly(trained):
    state = json.loads((trained[0] / "trainer_state.json").read_text())
    rates = {entry["step"]: entry["learning_rate"] for entry in state["log_history"] if "learning_rate" in entry}
    # The Trainer logs the rate of the step that is done; a tenth of the steps are warm-up.
    last = state["max_steps"]
    expected = {step: 5e-3 * min((step - 1) / (last / 10), (last + 1 - step) / (last * 0.9)) for step in rates}
    assert len(rates) > 290 and rates == pytest.approx(expected)


def test_lamb_leaves_biases_and_layer_norms_without_weight_decay_and_its_rate_grows_with_the_batch(
    folder, monkeypatch, tmp_path, capsys
):
    seen = {}

    class StopError(Exception):
        pass

    class Watched(training.TricksTrainer):
        def train(self, *arguments, **options):
            names = {parameter: name for name, parameter in self.model.named_parameters()}
            self.create_optimizer()
            seen["class"], seen["rate"] = type(self.optimizer).__name__, self.optimizer.defaults["lr"]
            for group in self.optimizer.param_groups:
                seen.update({names[parameter]: group["weight_decay"] for parameter in group["params"]})
            raise StopError

    monkeypatch.setattr(training, "TricksTrainer", Watched)
    for name, steps, rate, warns in (
        ("lamb", 1, 1.8e-4 * (32 / 14_400) ** 0.5, True),
        ("lamb", 450, 1.8e-4, False),
        ("lamb-paper", 16, 6.25e-4, False),
    ):
        with pytest.raises(StopError):
            options = f"--max_steps 1 --optimizer {name} --gradient_accumulation_steps {steps}"
            run(folder, tmp_path / "out", *options.split())
        assert seen.pop("class") == {"lamb": "Lamb", "lamb-paper": "PaperLamb"}[name]
        assert seen.pop("rate") == pytest.approx(rate)
        said = capsys.readouterr().err
        assert ("these have 32" in said and "--gradient_accumulation_steps 16" in said) == warns
    excluded = {name for name, decay in seen.items() if not decay}
    assert excluded == {name for name in seen if name.endswith("bias") or "LayerNorm" in name}
    assert {seen[name] for name in seen if name not in excluded} == {0.01}


def test_next_sentence_prediction_trains_both_heads_from_a_stream(folder, tmp_path):
    options = f"--next_sentence --streaming --max_length 32 {BATCH} --max_steps 150 --learning_rate 1e-2"
    metrics = run(folder, tmp_path / "out", *options.split())
    assert metrics["dev_next_sentence_accuracy"] > 0.85  # two of three pairs do not follow
    assert 1 < metrics["dev_perplexity"] < 64
    before = AutoModelForPreTraining.from_pretrained(folder).state_dict()
    after = AutoModelForPreTraining.from_pretrained(tmp_path / "out").state_dict()
    assert {name for name in before if torch.equal(before[name], after[name])} <= {
        name for name in before if name.endswith(("position_ids", "positions_encoding"))
    }


def test_a_resumed_run_goes_on_with_the_same_masks_and_losses(folder, tmp_path):
    """Four steps are an epoch: it is resumed in the middle of one and goes on into the next."""
    steps = f"--max_length 32 {BATCH} --max_steps 7 --logging_steps 1 --save_strategy steps --save_steps 3"
    losses = []
    for options in ("--save_total_limit 5", f"--resume_from_checkpoint {tmp_path / '0' / 'checkpoint-3'}"):
        output = tmp_path / str(len(losses))
        run(folder, output, *steps.split(), *options.split())
        history = json.loads((output / "trainer_state.json").read_text())["log_history"]
        losses.append([entry["loss"] for entry in history if "loss" in entry])
    assert len(losses[0]) == len(set(losses[0])) == 7
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_from_scratch_takes_the_shape_and_not_the_weights(folder, tmp_path):
    run(folder, tmp_path / "out", "--from_scratch", "--next_sentence", "--max_steps", "1", "--learning_rate", "0")
    original = AutoModelForPreTraining.from_pretrained(folder)
    fresh = AutoModelForPreTraining.from_pretrained(tmp_path / "out")
    assert fresh.config.hidden_size == original.config.hidden_size
    name = "nezha.encoder.layer.0.intermediate.dense.weight"
    weight = fresh.state_dict()[name]
    assert not torch.equal(weight, original.state_dict()[name]) and 0.01 < weight.std() < 0.03
    AutoTokenizer.from_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / "training.json").exists(), "it does not come from the original's weights"


def test_the_evaluation_is_the_same_each_time_and_whatever_the_metric_counts(folder, tmp_path):
    options = ["--learning_rate", "0", "--max_steps", "1"]
    first, second = (run(folder, tmp_path / str(i), *options, dev=CORPUS / "dev.txt") for i in range(2))
    same = ("dev_perplexity", "dev_masked_accuracy", "dev_masked_tokens")
    assert [first[name] for name in same] == [second[name] for name in same]
    assert first["dev_masked_tokens"] > 5


def test_perplexity_and_accuracies_are_over_all_tokens_of_all_rows():
    words = torch.randn(3, 5, 7)
    order = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    labels = torch.full((3, 5), -100)
    labels[0, 1], labels[2, 2], labels[2, 4] = 3, 5, words[2, 4].argmax()
    table = pretrain.shrink((words, order), (labels, torch.tensor([0, 0, 0])))
    found = pretrain.metrics("dev", type("Predicted", (), {"predictions": table.numpy()}))
    scores = words.log_softmax(-1)
    loss = -(scores[0, 1, 3] + scores[2, 2, 5] + scores[2, 4].max()) / 3
    right = [words[0, 1].argmax() == 3, words[2, 2].argmax() == 5, True]
    assert found["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
    assert found["masked_accuracy"] == pytest.approx(np.mean(right))
    assert found["next_sentence_accuracy"] == pytest.approx(2 / 3) and found["masked_tokens"] == 3
    alone = pretrain.metrics("dev", type("Predicted", (), {"predictions": pretrain.shrink(words, labels).numpy()}))
    assert "next_sentence_accuracy" not in alone


def documents(pattern):
    arguments = pretrain.Arguments(model="", train=str(pattern))
    return [row["text"] for row in pretrain.of_files("train", arguments, streamed=True)]


def test_documents_of_plain_text_json_lines_and_patterns(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeff一。\r\n二。\r\n \r\n\r\n三。\u2028四。\n", "utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "五。六。"}\n{"text": "七\\n八"}\n', "utf-8")
    first, second = [["一。", "二。"], ["三。\u2028四。"]], [["五。", "六。"], ["七", "八"]]
    assert documents(tmp_path / "a.txt") == first
    assert documents(tmp_path / "b.jsonl") == second
    assert documents(tmp_path / "*") == first + second


def test_a_file_that_changed_is_read_again(tmp_path, session_cache):
    file, arguments = tmp_path / "a.txt", pretrain.Arguments(model="", train=str(tmp_path / "a.txt"))
    for text in ("一。", "二二。"):
        file.write_text(text, "utf-8")
        assert pretrain.of_files("train", arguments, streamed=False)["text"][0] == [text]


def test_a_data_set_by_name_is_split_into_sentences(tmp_path, session_cache):
    (tmp_path / "train.json").write_text('{"content": "今天很好。我去了！"}\n', "utf-8")
    arguments = pretrain.Arguments(model="", dataset=str(tmp_path), train="train", text="content")
    for streamed in (True, False):
        assert list(pretrain.of_datasets("train", arguments, streamed)) == [{"text": ["今天很好。", "我去了！"]}]
    with pytest.raises(UsageError, match="expected the column text, found content"):
        pretrain.of_datasets("train", pretrain.Arguments(model="", dataset=str(tmp_path), train="train"), False)
    with pytest.raises(UsageError, match="split nowhere"):
        pretrain.of_datasets("train", pretrain.Arguments(model="", dataset=str(tmp_path), train="nowhere"), False)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--streaming"], "--max_steps"),
        (["--mask_probability", "1.5"], "a share under 1, found 1.5"),
        (["--max_length", "7"], "at least 8 tokens, found 7"),
        (["--train", "nowhere*.txt"], "nowhere.*expected a file, found none"),
        (["--next_sentence", "--train", "ONE"], "at least two documents"),
        (["--train", "EMPTY"], "expected text, found none"),
        (["--train", "EMPTY", "--streaming", "--max_steps", "1"], "expected text, found none"),
    ],
)
def test_what_cannot_be_trained_is_one_message(folder, tmp_path, options, message):
    (tmp_path / "one.txt").write_text("王明住在北京。\n也去大学。\n", "utf-8")
    (tmp_path / "empty.txt").write_text("\n\n", "utf-8")
    names = {"ONE": str(tmp_path / "one.txt"), "EMPTY": str(tmp_path / "empty.txt")}
    with pytest.raises(UsageError) as error:
        run(folder, tmp_path / "out", *(names.get(option, option) for option in options))
    text = f"{error.value} {error.value.hint}"
    assert re.search(message, text), text


def test_words_of_a_user_dictionary_are_words_and_a_changed_file_is_read_again(folder, tmp_path, session_cache):
    (tmp_path / "text.txt").write_text("王明在上海大学。\n\n今天很好。\n", "utf-8")
    words, files = tmp_path / "words.txt", f"--train {tmp_path / 'text.txt'} --user_dict {tmp_path / 'words.txt'}"
    starts = []
    for content in ("王明在\n", "在上海大学 9 n\n"):
        words.write_text(content, "utf-8")
        whole_word_masking.segmenter.cache_clear()
        arguments, settings = training.parse(
            ["--model", str(folder), "--output", str(tmp_path / "out"), *files.split()], "", pretrain.Arguments
        )
        packed = pretrain.sequences("train", arguments, settings, training.load_tokenizer(arguments))
        starts.append(packed[0]["word_starts"])
    assert starts[0][1:4] == [1, 0, 0] and starts[1][3:8] == [1, 0, 0, 0, 0]
    words.write_bytes("王明\n".encode("gb18030"))
    whole_word_masking.segmenter.cache_clear()
    with pytest.raises(UsageError, match=r"--user_dict .*words.txt: expected jieba's dictionary, .* must be utf-8"):
        run(folder, tmp_path / "out", "--user_dict", str(words))
    with pytest.raises(UsageError, match="--user_dict nowhere"):
        run(folder, tmp_path / "out", "--user_dict", "nowhere")
