"""examples/tricks.py: each trick against its paper's formula on a tiny model, and a run of each beside one without."""

import shlex

import classify
import numpy as np
import pytest
import torch
import training
from goldens import FIXTURES
from safetensors.torch import load_file
from transformers import TrainerCallback, trainer
from tricks import Tricks, TricksTrainer

import nezha
from nezha_convert import convert
from nezha_convert.errors import UsageError

DATA = FIXTURES / "training"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "nezha-base"
    convert(FIXTURES / "huawei-tf-pretraining", folder, vocab=DATA / "vocab.txt")
    return folder


@pytest.fixture
def made(base, tmp_path):
    """Makes a Trainer in training mode, with labels of sequences or of tokens, and a batch of four rows."""

    def make(model_class=nezha.NezhaForSequenceClassification, dropout=0.0, **tricks):
        rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout, "classifier_dropout": dropout}
        torch.manual_seed(1)
        model = model_class.from_pretrained(base, num_labels=3, **rates)
        settings = training.Settings(output_dir=str(tmp_path), learning_rate=1.0, weight_decay=0.01, eval_strategy="no")
        ours = TricksTrainer(model, settings, tricks=Tricks(**tricks))
        ours.current_gradient_accumulation_steps = 1
        ids = torch.randint(5, 64, (4, 9), generator=torch.Generator().manual_seed(2))
        labels = ids[:, 0] % 3 if model_class is nezha.NezhaForSequenceClassification else ids % 3
        return ours, model.train(), {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    return make


def test_fgm_adds_the_gradient_at_embeddings_moved_along_each_sequences_gradient(made):
    ours, model, batch = made(fgm=0.7)
    loss = ours.training_step(model, batch)
    found = {name: parameter.grad for name, parameter in model.named_parameters()}

    words = model.get_input_embeddings().weight
    rest = {name: value for name, value in batch.items() if name != "input_ids"}
    plain = words[batch["input_ids"]]
    first = model(inputs_embeds=plain, **rest).loss
    (slope,) = torch.autograd.grad(first, plain, retain_graph=True)
    moved = plain + 0.7 * slope / slope.square().sum((1, 2), keepdim=True).sqrt()
    second = model(inputs_embeds=plain + (moved - plain).detach(), **rest).loss
    expected = torch.autograd.grad(first + second, list(model.parameters()))
    assert loss.item() == pytest.approx(first.item()) and second > first
    for (name, gradient), right in zip(found.items(), expected, strict=True):
        assert (gradient - right).abs().max() <= 1e-5 * right.abs().max() + 1e-8, name


@pytest.mark.parametrize("model_class", [nezha.NezhaForSequenceClassification, nezha.NezhaForTokenClassification])
@pytest.mark.parametrize("items", [None, 40])
def test_rdrop_is_both_losses_and_the_mean_divergence(made, model_class, items):
    ours, model, batch = made(model_class, dropout=0.3, rdrop=4.0)
    if batch["labels"].ndim == 2:
        batch["labels"][:, -2:] = -100
    torch.manual_seed(3)
    found = ours.compute_loss(model, dict(batch), num_items_in_batch=items).item()

    torch.manual_seed(3)
    twice = {name: torch.cat([value, value]) for name, value in batch.items() if name != "labels"}
    scores = model(**twice).logits.detach().double().numpy()
    shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    one, other = np.split(shares, 2)
    labels = batch["labels"].numpy()
    real = labels != -100
    picked = np.maximum(labels, 0)[..., None]
    losses = sum(-np.log(np.take_along_axis(half, picked, -1))[..., 0][real].sum() for half in (one, other))
    divergence = sum((a * np.log(a / b)).sum(-1)[real].sum() for a, b in ((one, other), (other, one))) / 2
    assert divergence > 0.01
    assert found == pytest.approx((losses + 4 * divergence) / (items or real.sum()), rel=1e-5)
    model.eval()
    assert ours.compute_loss(model, dict(batch)).item() == pytest.approx(model(**batch).loss.item())


def test_each_layers_rate_is_a_share_of_the_next_ones(made):
    ours, model, _ = made(layer_decay=0.5)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = ours.create_optimizer().param_groups
    rates = {names[parameter]: group["lr"] for group in groups for parameter in group["params"]}
    assert set(rates) == set(names.values())
    for name, rate in rates.items():
        assert rate == (0.25 if "embeddings" in name else 0.5 if "layer.0." in name else 1.0), name
    decays = {names[parameter]: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert {name for name, decay in decays.items() if not decay} == {
        name for name in decays if name.endswith("bias") or "LayerNorm" in name
    }


def run(base, output, options, **more):
    command = f"--model {base} --train {DATA / 'ChnSentiCorp/train.tsv'} --dev {DATA / 'ChnSentiCorp/dev.tsv'}"
    quick = "--learning_rate 5e-3 --disable_tqdm true --eval_strategy no --per_device_train_batch_size 16"
    return classify.train(shlex.split(f"{command} --output {output} {quick} {options}"))


def test_the_saved_weights_are_the_moving_average_also_of_a_resumed_run(base, tmp_path, monkeypatch):
    seen = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            seen.append({name: weight.detach().clone() for name, weight in model.state_dict().items()})

    monkeypatch.setattr(trainer, "DEFAULT_CALLBACKS", [*trainer.DEFAULT_CALLBACKS, Watch])
    options = "--ema 0.6 --max_steps 4 --save_strategy steps --save_steps 2 --save_total_limit 5"
    run(base, tmp_path / "whole", options)
    average = seen[0]
    for weights in seen[1:]:
        average = {name: 0.6 * average[name] + 0.4 * weights[name] for name in average}
    run(base, tmp_path / "resumed", f"{options} --resume_from_checkpoint {tmp_path / 'whole' / 'checkpoint-2'}")
    assert len(seen) == 6
    for output in ("whole", "resumed"):
        saved = load_file(tmp_path / output / "model.safetensors")
        for name, weight in saved.items():
            assert torch.allclose(weight, average[name], rtol=1e-5, atol=1e-7), name
    assert not torch.allclose(saved["classifier.weight"], seen[-1]["classifier.weight"], atol=1e-5)


@pytest.fixture(scope="module")
def without(base, tmp_path_factory):
    return run(base, tmp_path_factory.mktemp("without"), "--num_train_epochs 16 --save_strategy no")


@pytest.mark.parametrize("trick", ["--fgm 1.0", "--rdrop 4", "--layer_decay 0.95", "--ema 0.9"])
def test_a_run_with_each_trick_ends_no_worse_than_without(base, without, tmp_path, trick):
    metrics = run(base, tmp_path / "with", f"--num_train_epochs 16 --save_strategy no {trick}")
    assert metrics["dev_accuracy"] >= without["dev_accuracy"] > 0.9


def test_what_does_not_go_together_is_refused(made):
    with pytest.raises(UsageError, match="those of a step"):
        ours, model, _ = made()
        ours.args.load_best_model_at_end, ours.args.metric_for_best_model = True, "loss"
        TricksTrainer(model, ours.args, tricks=Tricks(ema=0.9))
