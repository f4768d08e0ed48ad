"""Losses. Each is a sum over the pixels or images at hand, divided by a denominator of the whole global batch.

The denominator is computed from the targets before the first backward pass and added up over accumulation steps and
processes. So however a batch is split, the parts add up to the loss of the whole.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtool.config import LossTerm
from segtool.data.labels import IGNORE
from segtool.data.statistics import ClassFrequencies
from segtool.registry import build, register

MAX_WEIGHT = 1e12  # of a class; far above any use, and sums over the pixels of a batch stay finite


class Loss(nn.Module):
    """A loss of logits N K H W against a target N H W of class indices, IGNORE where a pixel does not count.

    A new loss registers itself here, takes `(num_classes, frequencies)` and keyword options, and gives both methods.
    """

    def denominator(self, target: Tensor) -> Tensor:
        """Returns what the sum is divided by, as a scalar that adds up over parts of a batch."""
        raise NotImplementedError

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the undivided sum over the batch at hand, as a scalar."""
        raise NotImplementedError


@register("loss", "cross_entropy")
class CrossEntropy(Loss):
    """Cross-entropy per pixel, weighted by class.

    With weights w it is `sum w[y] * -log p[y] / sum w[y]` over the pixels that count; one whose class has weight 0
    does not.

    Source: median_frequency: Eigen & Fergus 2015, section 6.3.2; enet: Paszke et al. 2016, section 5.2, with c = 1.02.

    Args:
        class_weights: null, one number a class, `median_frequency` (the median of the class frequencies over the
            class's own, both among the images that contain it) or `enet` (1 / ln(1.02 + share)); both are measured on
            the training masks.
        weight_exponent: power that the weights are raised to, 0 or more; 0.5 softens them.
        label_smoothing: share of the target spread evenly over all classes, 0 to below 1.
    """

    weight: Tensor | None

    def __init__(
        self,
        num_classes: int,
        frequencies: ClassFrequencies | None = None,
        *,
        class_weights: Literal["median_frequency", "enet"] | tuple[float, ...] | None = None,
        weight_exponent: float = 1.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is {label_smoothing}; expected 0 to below 1")
        self.label_smoothing = label_smoothing
        weights = class_weight_values(class_weights, num_classes, frequencies)
        powered = None if weights is None else _powered(weights, weight_exponent)
        self.register_buffer("weight", powered, persistent=False)

    def denominator(self, target: Tensor) -> Tensor:
        if self.weight is None:
            return (target != IGNORE).sum().float()
        return self._weight_of(target.long()).sum()

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        target = target.long()
        if self.weight is not None and self.label_smoothing:
            # Torch adds the smoothed part of every pixel, of a class of weight 0 too, which the denominator leaves out.
            target = torch.where(self._weight_of(target) > 0, target, IGNORE)
        return F.cross_entropy(
            logits.float(),
            target,
            weight=self.weight,
            ignore_index=IGNORE,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )

    def _weight_of(self, target: Tensor) -> Tensor:
        """Returns each pixel's weight, 0 where it is ignored."""
        assert self.weight is not None
        return F.pad(self.weight, (0, IGNORE + 1 - len(self.weight)))[target]


@register("loss", "dice")
class Dice(Loss):
    """One minus the soft Dice coefficient, per image, over the classes that are in its truth.

    For each image and each class in its truth, `1 - (2 sum p y + smooth) / (sum p + sum y + smooth)` over the pixels
    that count; the mean over those classes, then over the images that have any.

    Source: Milletari et al. 2016 (V-Net), with the plain instead of the squared sums below.

    Args:
        smooth: added above and below the fraction, in pixels; 0 or more.
    """

    def __init__(self, num_classes: int, frequencies: ClassFrequencies | None = None, *, smooth: float = 1.0) -> None:
        super().__init__()
        if smooth < 0:
            raise ValueError(f"smooth is {smooth}; expected 0 or more")
        self.num_classes = num_classes
        self.smooth = smooth

    def denominator(self, target: Tensor) -> Tensor:
        return (target != IGNORE).flatten(1).any(1).sum().float()

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        valid = (target != IGNORE).unsqueeze(1)  # N 1 H W
        truth = _one_hot(target, self.num_classes)  # N K H W, zero where ignored
        probability = logits.float().softmax(1) * valid
        both = (probability * truth).sum((2, 3))  # N K
        sizes = truth.sum((2, 3))
        score = (2 * both + self.smooth) / (probability.sum((2, 3)) + sizes + self.smooth)
        present = (sizes > 0).float()
        return ((1 - score) * present).sum(1).div(present.sum(1).clamp(min=1)).sum()


class Criterion(nn.Module):
    """The weighted sum of a config's losses."""

    def __init__(
        self, terms: Sequence[LossTerm], num_classes: int, frequencies: ClassFrequencies | None = None
    ) -> None:
        """Raises ConfigError for an unknown loss or option."""
        super().__init__()
        self.weights = [term.weight for term in terms]
        self.losses = nn.ModuleList(
            build("loss", term, num_classes, frequencies, path=f"loss.{i}") for i, term in enumerate(terms)
        )

    def denominators(self, target: Tensor) -> Tensor:
        """Returns each loss's denominator for a target N H W, one number a loss."""
        return torch.stack([loss.denominator(target) for loss in self._losses()])

    def forward(self, logits: Tensor, target: Tensor, denominators: Tensor) -> Tensor:
        """Returns this part's share of the loss: 0, with zero gradients, where nothing counts."""
        totals = torch.stack([loss.total(logits, target) for loss in self._losses()])
        weights = totals.new_tensor(self.weights)
        return (weights * totals / denominators.clamp(min=torch.finfo(torch.float32).tiny)).sum()

    def _losses(self) -> list[Loss]:
        return [loss for loss in self.losses if isinstance(loss, Loss)]


def needs_frequencies(terms: Sequence[LossTerm]) -> bool:
    """Whether a loss weighs classes by how often they occur in the training masks."""
    return any(isinstance(term.options.get("class_weights"), str) for term in terms)


def class_weight_values(
    rule: str | Sequence[float] | None, num_classes: int, frequencies: ClassFrequencies | None
) -> list[float] | None:
    """Returns one weight a class. A class that never occurs gets 0, since nothing is known about it.

    Without frequencies (a network being checked before any data is read) a named rule gives ones.
    """
    if rule is None:
        return None
    if not isinstance(rule, str):
        if len(rule) != num_classes or min(rule) < 0 or not any(rule):
            raise ValueError(
                f"class_weights has {len(rule)} numbers for {num_classes} classes; "
                "expected one per class, none below 0 and not all 0"
            )
        return list(rule)
    if frequencies is None:
        return [1.0] * num_classes
    if rule == "enet":
        total = max(sum(frequencies.pixels), 1)
        return [1 / math.log(1.02 + pixels / total) if pixels else 0.0 for pixels in frequencies.pixels]
    shares = [a / b if b else 0.0 for a, b in zip(frequencies.pixels, frequencies.present, strict=True)]
    median = statistics.median([share for share in shares if share] or [1.0])
    return [median / share if share else 0.0 for share in shares]


def _powered(weights: Sequence[float], exponent: float) -> Tensor:
    if exponent < 0:
        raise ValueError(f"weight_exponent is {exponent}; expected 0 or more")
    if any(weight and exponent * math.log(weight) > math.log(MAX_WEIGHT) for weight in weights):
        raise ValueError(
            f"class_weights has {max(weights):g} to the power {exponent:g} (weight_exponent); expected at most "
            f"{MAX_WEIGHT:g}"
        )
    return torch.tensor([weight**exponent for weight in weights])


def _one_hot(target: Tensor, num_classes: int) -> Tensor:
    padded = torch.zeros((target.shape[0], num_classes + 1, *target.shape[1:]), device=target.device)
    padded.scatter_(1, target.long().clamp(max=num_classes).unsqueeze(1), 1.0)
    return padded[:, :num_classes]
