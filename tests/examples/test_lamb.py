"""LAMB against the update of its paper (arXiv 1904.00962), computed by NumPy in float64."""

import numpy as np
import pytest
import pytorch_optimizer
import torch
from lamb import Lamb

STEPS, LEARNING_RATE, EPSILON, DECAY = 6, 0.02, 1e-6, 0.1
# Norms of 0.7, 25 (past the 10 at which the library cuts off), and 0.
WEIGHTS = {"small": 0.2 * np.ones((3, 4)), "large": np.full((5, 5), 5.0), "zero": np.zeros(4)}


def gradients(step):
    rng = np.random.default_rng(step)
    return {name: rng.normal(0, 3, weight.shape) for name, weight in WEIGHTS.items()}


def by_numpy(decay, *, corrected=False, ratio_limit=np.inf):
    """The weights after each step; `corrected` moments and a limit of the trust ratio are Huawei's."""
    weights = dict(WEIGHTS)
    first = {name: np.zeros_like(weight) for name, weight in weights.items()}
    second = {name: np.zeros_like(weight) for name, weight in weights.items()}
    history = []
    for step in range(1, STEPS + 1):
        for name, gradient in gradients(step).items():
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            m = first[name] / (1 - 0.9**step) if corrected else first[name]
            v = second[name] / (1 - 0.999**step) if corrected else second[name]
            update = m / (np.sqrt(v) + EPSILON) + decay * weights[name]
            norm = np.linalg.norm(weights[name])
            ratio = min(norm / np.linalg.norm(update), ratio_limit) if norm else 1.0
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
    assert distance(by_class(Lamb, decay), by_numpy(decay)) < 1e-5
    assert distance(by_class(Lamb, decay, torch.float32), by_numpy(decay)) < 1e-4


@pytest.mark.parametrize(
    "change", [{"weight_decouple": True}, {"adam_debias": False}, {"grad_averaging": False}, {"betas": (0.9, 0.99)}]
)
def test_each_of_its_settings_counts(change):
    class Changed(Lamb):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            for group in self.param_groups:
                group.update(change)

    assert distance(by_class(Changed, DECAY), by_numpy(DECAY)) > 0.01


def test_long_tensors_are_not_cut_off():
    class Clamped(Lamb):
        clamp = 10.0

    assert distance(by_class(Clamped, DECAY), by_numpy(DECAY)) > 0.05


@pytest.mark.parametrize("options", [{}, {"weight_decouple": False}])
def test_the_librarys_defaults_are_something_else(options):
    assert distance(by_class(pytorch_optimizer.Lamb, DECAY, **options), by_numpy(DECAY)) > 1


def test_bias_correction_makes_a_difference_to_the_weight_decay_alone():
    # Where a norm is 0 there is no trust ratio to take the factor out: that tensor is left out here.
    difference = {}
    for decay in (0.0, 0.01):
        plain, corrected = ([{**s, "zero": 0} for s in by_numpy(decay, corrected=c)] for c in (False, True))
        difference[decay] = distance(plain, corrected)
    assert difference[0.0] < 1e-3 < difference[0.01] < 0.1, difference
