"""LAMB as in Huawei's optimization.py, by which NEZHA was trained, and as in its paper (arXiv 1904.00962)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytorch_optimizer
import torch


class Lamb(torch.optim.Optimizer):
    """Huawei's update of each tensor, from NEZHA-TensorFlow/optimization.py.

    With the moments m and v, both with bias correction, and the gradient g:

        ratio = |w| / |m / sqrt(v + eps) + decay w|, at most 10; 1 if w or g is zero
        w -= lr ratio (m / (sqrt(v) + eps) + decay w)

    Biases and layer norms have no decay in the second line, but have it in the first.

    Args:
        params: tensors, or groups of them. A group may set its own ``weight_decay``, that of the second line.
        lr: learning rate.
        betas: decay rates of the two moments.
        eps: within the root in the first line, beside it in the second.
        weight_decay: that of the first line for all tensors, and of the second for the groups that set none.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update all tensors that have gradients; returns the loss of `closure`, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            (beta1, beta2), eps = group["betas"], group["eps"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state |= {"step": 0, "m": torch.zeros_like(weight), "v": torch.zeros_like(weight)}
                state["step"] += 1
                m = state["m"].lerp_(weight.grad, 1 - beta1) / (1 - beta1 ** state["step"])
                v = state["v"].lerp_(weight.grad.square(), 1 - beta2) / (1 - beta2 ** state["step"])
                scale = (m / (v + eps).sqrt()).add_(weight, alpha=self.defaults["weight_decay"]).norm()
                moves = (weight.norm() > 0) & (weight.grad.norm() > 0)
                ratio = torch.where(moves, weight.norm() / scale, 1.0).clamp_(max=10)
                update = (m / v.sqrt_().add_(eps)).add_(weight, alpha=group["weight_decay"])
                weight.sub_(update.mul_(group["lr"] * ratio))
        return loss


class PaperLamb(pytorch_optimizer.Lamb):
    """The paper's update of each tensor, by pytorch-optimizer, with the identity as its scaling function.

    r = m / (sqrt(v) + eps) + weight_decay w, then w -= lr |w| / |r| r; if a norm is 0, w -= lr r. The moments have no
    bias correction, as in the paper's third version. Three things differ from the library's defaults: weight decay is a
    part of r, |w| is not cut off at 10 (NEZHA-base's word embeddings have about 80), and the step is not divided by
    1 - beta1^t, since r is scaled to |w| already.
    """

    clamp = math.inf

    def __init__(self, params: Iterable[Any], **options: Any) -> None:
        # The library's `adam_debias` leaves the step's length as it is.
        super().__init__(params, weight_decouple=False, adam_debias=True, **options)
