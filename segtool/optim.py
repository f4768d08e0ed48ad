"""The optimizer, the learning rate as a pure function of the step, and the averaged weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from segtool.config import Optim


def learning_rate(optim: Optim, step: int, steps: int) -> float:
    """Returns the learning rate of a step, 0 <= step < steps.

    Linear warm-up from lr / warmup to lr, over at most a tenth of the run; then, with t running from 0 to 1 over the
    rest, `poly` is lr (1 - t)^power, `cosine` is lr (1 + cos(pi t)) / 2 and `constant` is lr.
    """
    warmup = min(optim.warmup, steps // 10)
    if step < warmup:
        return optim.lr * (step + 1) / warmup
    t = (step - warmup) / max(steps - warmup, 1)
    if optim.schedule == "poly":
        return optim.lr * (1 - t) ** optim.power
    if optim.schedule == "cosine":
        return optim.lr * (1 + math.cos(math.pi * t)) / 2
    return optim.lr


def build_optimizer(model: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """Returns the optimizer; weights are decayed, norms and biases (everything of one dimension) are not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if optim.name == "sgd":
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=(optim.momentum, 0.999), fused=True)


class Ema:
    """The exponential moving average of a model's weights; what is not a parameter is copied.

    Source: the decay min(d, (1 + t) / (10 + t)) of TensorFlow's ExponentialMovingAverage, t counting updates from 0.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves the average towards the weights that stand after `step` (counted from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        mine: list[Tensor] = list(self.model.parameters())
        theirs: list[Tensor] = list(model.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        for averaged, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            averaged.copy_(buffer)
