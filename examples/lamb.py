"""LAMB (arXiv 1904.00962) as NEZHA was trained with, based on pytorch-optimizer's class."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytorch_optimizer


class Lamb(pytorch_optimizer.Lamb):
    """The paper's update for each tensor, with the identity as its scaling function.

    r = m / (sqrt(v) + eps) + weight_decay w, then w -= lr |w| / |r| r; if a norm is 0, w -= lr r. Three things differ
    from the library's defaults. First, weight decay is a part of r, so that the trust ratio scales it. Second, |w| is
    not limited to 10: matrices of NEZHA-base have larger norms (the word embeddings about 80), so the limit would make
    their learning rate several times smaller than the one asked for; Huawei's optimization.py has no limit either.
    Third, the step is not divided by 1 - beta1^t: r is scaled to |w| already, so the first step would be ten times too
    long.

    The moments have no bias correction, as in the paper's third version. The trust ratio cancels their common factor,
    so only the weight decay of the first steps, during warm-up, differs.

    Args:
        params: tensors, or groups of them.
        lr: learning rate.
        betas: decay rates of the two moments.
        eps: added to sqrt(v).
        weight_decay: for the groups that do not set their own.
    """

    clamp = math.inf

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.8e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        # The library's `adam_debias` leaves the step's length as it is.
        options = {"weight_decay": weight_decay, "weight_decouple": False, "adam_debias": True}
        super().__init__(params, lr=lr, betas=betas, eps=eps, **options)
