"""The optimizer, the learning rate as a pure function of the step, and the averaged weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from segtool.config import Optim
from segtool.models.encoders import Encoder
from segtool.models.segmenter import Segmenter

# Of `one_cycle`, as in torch's OneCycleLR: share of the steps that rise, and what lr is divided by at both ends.
RISE = 0.3
START_DIVISOR, END_DIVISOR = 25.0, 25.0e4


def learning_rate(optim: Optim, step: int, steps: int) -> float:
    """Returns the learning rate of a step, 0 <= step < steps.

    Linear warm-up from lr / warmup to lr, over at most a tenth of the run; then, with t running from 0 to 1 over the
    rest, `poly` is lr (1 - t)^power, `cosine` is lr (1 + cos(pi t)) / 2 and `constant` is lr.

    `one_cycle` has its own warm-up: lr / 25 to lr over the first 30 % of the steps, then to lr / 250,000 at the last.
    Source: Smith & Topin 2018, "Super-Convergence", with the shape and the numbers of torch's OneCycleLR.
    """
    if optim.schedule == "one_cycle":
        return _one_cycle(optim.lr, step, steps)
    warmup = min(optim.warmup, steps // 10)
    if step < warmup:
        return optim.lr * (step + 1) / warmup
    t = (step - warmup) / max(steps - warmup, 1)
    if optim.schedule == "poly":
        return optim.lr * (1 - t) ** optim.power
    if optim.schedule == "cosine":
        return optim.lr * (1 + math.cos(math.pi * t)) / 2
    return optim.lr


def _one_cycle(lr: float, step: int, steps: int) -> float:
    peak = RISE * steps - 1  # in steps; mostly between two of them
    if step <= peak:
        return _along_cosine(lr / START_DIVISOR, lr, step / peak)
    return _along_cosine(lr, lr / END_DIVISOR, (step - peak) / (steps - 1 - peak))


def _along_cosine(start: float, end: float, t: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * t)) / 2


def build_optimizer(model: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """Returns the optimizer of all that is to be trained.

    Weights are decayed, norms and biases (everything of one dimension) are not. A group's `factor` is what the learning
    rate of its parameters is multiplied by.
    """
    encoder = model.encoder if isinstance(model, Segmenter) else None
    factors = dict.fromkeys(model.parameters(), 1.0) | (rate_factors(encoder, optim.layer_decay) if encoder else {})
    # In groups of its own, since the fused SGD takes no group in which only some have a momentum yet.
    frozen = set(encoder.parameters()) if encoder and encoder.freeze else set()
    kinds = {p: (p in frozen, factor) for p, factor in factors.items() if p.requires_grad}
    groups = []
    for kind in dict.fromkeys(kinds.values()):
        mine = [p for p in kinds if kinds[p] == kind]
        weights, others = [p for p in mine if p.ndim > 1], [p for p in mine if p.ndim <= 1]
        groups.append({"params": weights, "weight_decay": optim.weight_decay, "factor": kind[1]})
        groups.append({"params": others, "weight_decay": 0.0, "factor": kind[1]})
    groups = [group for group in groups if group["params"]]
    if optim.name == "sgd":
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=(optim.momentum, 0.999), fused=True)


def begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Gives SGD a momentum of 0 to begin with, which makes its first step the same.

    Without, the fused SGD allocates it in the first step and leaves it uninitialised where the device leaves that out.
    """
    for group in optimizer.param_groups:
        if isinstance(optimizer, torch.optim.SGD) and group["momentum"]:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def rate_factors(encoder: Encoder, layer_decay: float) -> dict[nn.Parameter, float]:
    """Returns the factor of each parameter's learning rate: `lr_factor * layer_decay^i` at the i-th level from below.

    Source: Clark et al. 2020, "ELECTRA", and Bao et al. 2022, "BEiT", for layer-wise decay.
    """
    stages = reversed(encoder.stages())
    return {p: encoder.lr_factor * layer_decay**depth for depth, stage in enumerate(stages) for p in stage}


class Ema:
    """The exponential moving average of a model's weights; what is not a parameter is copied.

    Source: the decay min(d, (1 + t) / (10 + t)) of TensorFlow's ExponentialMovingAverage, t counting updates from 0.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._weights: tuple[list[Tensor], list[Tensor]] = (list(self.model.parameters()), list(model.parameters()))
        self._buffers = list(self.model.buffers()), list(model.buffers())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the weights of the model as they stand after `step` (counted from 0)."""
        mine, theirs = self._weights
        torch._foreach_lerp_(mine, theirs, 1 - min(self.decay, (1 + step) / (10 + step)))
        mine, theirs = self._buffers
        if mine:
            torch._foreach_copy_(mine, theirs)
