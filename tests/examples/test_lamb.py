"""LAMB against Huawei's recorded training, and the paper's form against its update, computed by NumPy in float64."""

import json
import subprocess
import sys
from pathlib import Path

import huawei_training as recorded
import lamb
import numpy as np
import pytest
import pytorch_optimizer
import torch
from clones import CLONE, need
from goldens import FIXTURES
from lamb import Lamb, PaperLamb
from transformers import get_linear_schedule_with_warmup

import nezha
from nezha_convert import convert

PRETRAINING = FIXTURES / "huawei-tf-pretraining"


def groups(named, decay=0.01):
    """As transformers' Trainer makes them: no weight decay for biases and layer norms."""
    excluded = [name for name in named if "bias" in name or "LayerNorm" in name]
    return [
        {"params": [named[name] for name in named if name not in excluded], "weight_decay": decay},
        {"params": [named[name] for name in excluded], "weight_decay": 0.0},
    ]


def steps(named, optimizer_class):
    """An optimizer step at a time, each with the gradients that are there, as the Trainer does it."""
    optimizer = optimizer_class(groups(named), lr=recorded.RATE, weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimizer, recorded.WARMUP, recorded.STEPS)
    for step in range(1, recorded.STEPS + 1):
        yield step
        torch.nn.utils.clip_grad_norm_(list(named.values()), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def of_invented_gradients(optimizer_class=Lamb):
    """The largest difference from Huawei's weights in each recorded step, in shares of the way that a tensor has come.

    Each weight may be off by the distance of two numbers of float32.
    """
    named = {name: torch.tensor(w, dtype=torch.float32, requires_grad=True) for name, w in recorded.WEIGHTS.items()}
    found = [weights(named)]
    for step in steps(named, optimizer_class):
        if step - 1 in recorded.KEPT:
            found.append(weights(named))
        for name, gradient in recorded.gradients(step).items():
            named[name].grad = torch.from_numpy(gradient)
    start, *found, last = [*found, weights(named)]
    tensor = np.repeat(np.arange(len(named)), [weight.numel() for weight in named.values()])
    differences = []
    for ours, theirs in zip([*found, last], np.load(FIXTURES / "training" / "lamb.npz")["weights"], strict=True):
        off = np.maximum(np.abs(ours - theirs) - np.spacing(np.abs(theirs)), 0)
        ways = [np.abs(theirs - start)[tensor == number].max() or 1 for number in range(len(named))]
        differences.append(float(max(off / np.take(ways, tensor))))
    return differences


def weights(named):
    return np.concatenate([weight.detach().numpy().ravel() for weight in named.values()])


def test_thirty_steps_are_those_of_huaweis_create_optimizer():
    """Also of a tensor whose trust ratio is cut, one of zeros, one without gradient; and gradients that are cut."""
    differences = of_invented_gradients()
    assert differences[0] == 0, "the first step has a rate of 0"
    assert max(differences[:2]) < 1e-5 and max(differences) < 1e-4, differences


@pytest.mark.parametrize(
    "line, instead",
    [
        ("(v + eps).sqrt()", "v.sqrt().add(eps)"),
        ('alpha=self.defaults["weight_decay"]', 'alpha=group["weight_decay"]'),
        (".clamp_(max=10)", ""),
        (" & (weight.grad.norm() > 0)", ""),
        ("(weight.norm() > 0) & ", ""),
        (' / (1 - beta1 ** state["step"])', ""),
        (' / (1 - beta2 ** state["step"])', ""),
        ("v.sqrt_().add_(eps)", "v.add_(eps).sqrt_()"),
        ('alpha=group["weight_decay"]', "alpha=0.01"),
    ],
)
def test_each_term_of_huaweis_update_counts(line, instead):
    source = Path(lamb.__file__).read_text("utf-8")
    assert source.count(line) == 1
    changed = {"__name__": "changed"}
    exec(compile(source.replace(line, instead), "changed", "exec"), changed)
    assert max(of_invented_gradients(changed["Lamb"])) > 1e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "nezha"
    convert(PRETRAINING, folder)
    return folder


def sketches(named, folder):
    """Which of Huawei's tensors count, and the sketch of ours for each, by Huawei's names [tensors, numbers].

    The biases of keys do not: they change no probability, and their gradients are rounding.
    """
    written = json.loads((folder / "conversion.json").read_text())["written"]
    sources = {row["source"]: row["target"] for row in written if row["target"] in named}
    assert len(sources) == len(named)
    tensors = {name: named[target].detach().numpy() for name, target in sorted(sources.items())}
    rows = [recorded.sketch(name, t.T if name.endswith("kernel") else t) for name, t in tensors.items()]
    return [not name.endswith("key/bias") for name in tensors], np.stack(rows)


def on_huaweis_inputs(model, case):
    """The losses of words and of pairs, as run_pretraining.py has them, of our model."""
    stored = np.load(PRETRAINING / "expected.npz")
    names = {"input_ids": "input_ids", "attention_mask": "input_mask", "token_type_ids": "segment_ids"}
    outputs = model(**{ours: torch.from_numpy(stored[f"{case}/{name}"]).long() for ours, name in names.items()})
    labels, pairs = (torch.from_numpy(stored[f"{case}/{name}_labels"]).long() for name in ("mlm", "nsp"))
    weight = torch.from_numpy(stored[f"{case}/mlm_weights"]).flatten()
    entropy = torch.nn.functional.cross_entropy
    words = entropy(outputs.prediction_logits.flatten(0, 1), labels.flatten(), reduction="none")
    return (words * weight).sum() / weight.sum(), entropy(outputs.seq_relationship_logits, pairs)


def as_huaweis_graph(folder, optimizer_class=Lamb, **config):
    """By name of what is recorded, our largest difference from it; that of `losses` by step."""
    dropout = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    model = nezha.NezhaForPreTraining.from_pretrained(folder, **dropout, **config)
    named = dict(model.named_parameters())
    before = {name: weight.detach().clone() for name, weight in named.items()}
    losses, found = [], {}
    for step in steps(named, optimizer_class):
        if step == 3:
            found["step_2"] = sketches({name: named[name] - before[name] for name in named}, folder)
        both = on_huaweis_inputs(model, recorded.CASES[(step - 1) % 2])
        sum(both).backward()
        losses.append(sum(both).item())
        if step == 1:
            found["gradients"] = sketches({name: weight.grad for name, weight in named.items()}, folder)
    found["step_30"] = sketches({name: named[name] - before[name] for name in named}, folder)
    stored = np.load(PRETRAINING / "training.npz")
    differences = {
        name: max(np.abs(sketch - stored[name])[rows].max(1) / stored[name][rows, 0])
        for name, (rows, sketch) in found.items()
    }
    return np.abs(losses / stored["losses"].sum(1) - 1), differences


def test_losses_gradients_and_thirty_steps_are_those_of_huaweis_graph(folder):
    losses, differences = as_huaweis_graph(folder)
    assert max(losses) < 1e-5, losses
    # After two steps of so low a rate, float32 rounds the ways of biases to 1e-5 of their lengths.
    assert differences["gradients"] < 5e-6 and differences["step_2"] < 5e-5 and differences["step_30"] < 1e-5


def test_the_other_gelu_and_the_papers_lamb_are_something_else(folder):
    losses, differences = as_huaweis_graph(folder, hidden_act="gelu")
    assert differences["gradients"] > 5e-5
    losses, differences = as_huaweis_graph(folder, PaperLamb)
    assert differences["gradients"] < 5e-6 and differences["step_2"] > 0.1 and max(losses) > 0.01


def test_what_is_recorded_is_what_huaweis_program_computes():
    need("tensorflow")
    command = [sys.executable, recorded.__file__, CLONE, "--check"]
    assert subprocess.run(command, check=False).returncode == 0


# The paper's form

STEPS, LEARNING_RATE, EPSILON, DECAY = 6, 0.02, 1e-6, 0.1
# Norms of 0.7, 25 (past the 10 at which the library cuts off), and 0.
WEIGHTS = {"small": 0.2 * np.ones((3, 4)), "large": np.full((5, 5), 5.0), "zero": np.zeros(4)}


def gradients(step):
    rng = np.random.default_rng(step)
    return {name: rng.normal(0, 3, weight.shape) for name, weight in WEIGHTS.items()}


def by_numpy(decay):
    """The weights after each step."""
    weights = dict(WEIGHTS)
    m = {name: np.zeros_like(weight) for name, weight in weights.items()}
    v = {name: np.zeros_like(weight) for name, weight in weights.items()}
    history = []
    for step in range(1, STEPS + 1):
        for name, gradient in gradients(step).items():
            m[name] = 0.9 * m[name] + 0.1 * gradient
            v[name] = 0.999 * v[name] + 0.001 * gradient**2
            update = m[name] / (np.sqrt(v[name]) + EPSILON) + decay * weights[name]
            norm = np.linalg.norm(weights[name])
            ratio = norm / np.linalg.norm(update) if norm else 1.0
            weights[name] = weights[name] - LEARNING_RATE * ratio * update
        history.append(dict(weights))
    return history


def by_class(optimizer_class, decay, dtype=torch.float64, **options):
    parameters = {name: torch.tensor(weight, dtype=dtype, requires_grad=True) for name, weight in WEIGHTS.items()}
    optimizer = optimizer_class(parameters.values(), lr=LEARNING_RATE, eps=EPSILON, weight_decay=decay, **options)
    history = []
    for step in range(1, STEPS + 1):
        for name, gradient in gradients(step).items():
            parameters[name].grad = torch.tensor(gradient, dtype=dtype)
        optimizer.step()
        history.append({name: value.detach().double().numpy().copy() for name, value in parameters.items()})
    return history


def distance(found, expected):
    """The largest difference of any weight at any step, in shares of a step's length."""
    return max(
        np.abs(one[name] - other[name]).max() / (LEARNING_RATE * max(np.linalg.norm(other[name]), 1))
        for one, other in zip(found, expected, strict=True)
        for name in WEIGHTS
    )


@pytest.mark.parametrize("decay", [0.0, DECAY])
def test_each_step_is_that_of_the_paper(decay):
    # The library adds its epsilon to the denominator of the trust ratio too.
    assert distance(by_class(PaperLamb, decay), by_numpy(decay)) < 1e-5
    assert distance(by_class(PaperLamb, decay, torch.float32), by_numpy(decay)) < 1e-4


@pytest.mark.parametrize(
    "change", [{"weight_decouple": True}, {"adam_debias": False}, {"grad_averaging": False}, {"betas": (0.9, 0.99)}]
)
def test_each_of_its_settings_counts(change):
    class Changed(PaperLamb):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            for group in self.param_groups:
                group.update(change)

    assert distance(by_class(Changed, DECAY), by_numpy(DECAY)) > 0.01


def test_long_tensors_are_not_cut_off():
    class Clamped(PaperLamb):
        clamp = 10.0

    assert distance(by_class(Clamped, DECAY), by_numpy(DECAY)) > 0.05


@pytest.mark.parametrize("options", [{}, {"weight_decouple": False}])
def test_the_librarys_defaults_are_something_else(options):
    assert distance(by_class(pytorch_optimizer.Lamb, DECAY, **options), by_numpy(DECAY)) > 1
