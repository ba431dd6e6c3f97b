"""LAMB (arXiv 1904.00962) as NEZHA was trained with it, from pytorch-optimizer's class."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytorch_optimizer


class Lamb(pytorch_optimizer.Lamb):
    """The paper's update for each tensor, with the identity for its scaling function.

    r = m / (sqrt(v) + eps) + weight_decay w, then w -= lr |w| / |r| r; where a norm is 0, w -= lr r. Three things
    differ from the library's defaults. Weight decay is a part of r, so that the trust ratio scales it. |w| is not cut
    off at 10: a matrix of NEZHA-base is longer (the word embeddings about 80), so its learning rate would be several
    times smaller than the one that is asked for; Huawei's optimization.py does not cut it either. And the step is not
    divided by 1 - beta1^t, which would make the first one ten times as long, as r is scaled to |w| already.

    The moments have no bias correction, as in the paper's third version. The trust ratio takes out their common factor,
    so what is left of the difference is the weight decay of the first steps, during warm-up.

    Args:
        params: tensors, or groups of them.
        lr: learning rate.
        betas: decay rates of the two moments.
        eps: added to sqrt(v).
        weight_decay: of the groups that do not say their own.
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
        # `adam_debias` is the library's name for leaving the step's length alone.
        options = {"weight_decay": weight_decay, "weight_decouple": False, "adam_debias": True}
        super().__init__(params, lr=lr, betas=betas, eps=eps, **options)
