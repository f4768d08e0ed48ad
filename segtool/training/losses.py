"""Losses. Each is a sum over the pixels or images at hand, divided by a denominator of the whole global batch.

The denominator is computed from the targets before the first backward pass and added up over accumulation steps and
processes. So however a batch is split, the parts add up to the loss of the whole.

The losses of pixels are here, those of whole regions in `region_losses`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtool.config import LossTerm
from segtool.config.registry import build, register
from segtool.data.codes import IGNORE
from segtool.data.statistics import ClassFrequencies
from segtool.errors import ConfigError, Problem
from segtool.system.terminal import counted

ClassWeights = Literal["median_frequency", "enet"] | tuple[float, ...] | None
MAX_WEIGHT = 1e12  # of a class; far above any use, and sums over the pixels of a batch stay finite


class Loss(nn.Module):
    """A loss of logits N K H W against a target N H W of class indices, IGNORE where a pixel does not count.

    A new loss registers itself, takes `(num_classes, frequencies)` and keyword options, and gives both methods. The
    tests then hold it to what every loss promises.
    """

    def denominator(self, target: Tensor) -> Tensor:
        """Returns what the sum is divided by, as a scalar that adds up over parts of a batch."""
        raise NotImplementedError

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the undivided sum over the batch at hand, as a scalar."""
        raise NotImplementedError


class ImageLoss(Loss):
    """A loss that is a mean over the images that have pixels that count."""

    def denominator(self, target: Tensor) -> Tensor:
        return (target != IGNORE).flatten(1).any(1).sum().float()


class ClassWeighted(Loss):
    """A sum over pixels, each weighted by its class; the denominator is the sum of the weights.

    Source: median_frequency: Eigen & Fergus 2015, section 6.3.2; enet: Paszke et al. 2016, section 5.2, with c = 1.02.

    Args:
        class_weights: null, one number a class, `median_frequency` (the median of the class frequencies over the
            class's own, both among the images that contain it) or `enet` (1 / ln(1.02 + share)); both are measured on
            the training masks.
        weight_exponent: power that the weights are raised to, 0 or more; 0.5 softens them.
    """

    weight: Tensor | None

    def __init__(
        self,
        num_classes: int,
        frequencies: ClassFrequencies | None,
        class_weights: ClassWeights,
        weight_exponent: float,
    ) -> None:
        super().__init__()
        weights = class_weight_values(class_weights, num_classes, frequencies)
        powered = None if weights is None else _powered(weights, weight_exponent)
        self.register_buffer("weight", powered, persistent=False)

    def denominator(self, target: Tensor) -> Tensor:
        if self.weight is None:
            return (target != IGNORE).sum().float()
        return self._weight_of(target.long()).sum()

    def _weight_of(self, target: Tensor) -> Tensor:
        """Returns each pixel's weight, 0 where it is ignored."""
        assert self.weight is not None
        return F.pad(self.weight, (0, IGNORE + 1 - len(self.weight)))[target]


@register("loss", "cross_entropy")
class CrossEntropy(ClassWeighted):
    """Cross-entropy per pixel, weighted by class.

    With weights w it is `sum w[y] * -log p[y] / sum w[y]` over the pixels that count; one whose class has weight 0
    does not.

    Args:
        label_smoothing: share of the target spread evenly over all classes, 0 to below 1.
    """

    def __init__(
        self,
        num_classes: int,
        frequencies: ClassFrequencies | None = None,
        *,
        class_weights: ClassWeights = None,
        weight_exponent: float = 1.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(num_classes, frequencies, class_weights, weight_exponent)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is {label_smoothing}; expected 0 to below 1")
        self.label_smoothing = label_smoothing

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


@register("loss", "focal")
class Focal(ClassWeighted):
    """Cross-entropy per pixel that counts the less, the surer the pixel is already.

    `sum w[y] * (1 - p[y])^gamma * -log p[y] / sum w[y]` over the pixels that count: with gamma 0 it is cross_entropy.

    Source: Lin et al. 2017, equation 5; the class weights are its alpha.

    Args:
        gamma: how steeply a pixel's part falls with its probability, 0 or more.
    """

    def __init__(
        self,
        num_classes: int,
        frequencies: ClassFrequencies | None = None,
        *,
        gamma: float = 2.0,
        class_weights: ClassWeights = None,
        weight_exponent: float = 1.0,
    ) -> None:
        super().__init__(num_classes, frequencies, class_weights, weight_exponent)
        if not 0 <= gamma < math.inf:
            raise ValueError(f"gamma is {gamma}; expected 0 or more")
        self.gamma = gamma

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        target = target.long()
        entropy = pixel_entropy(logits, target)  # N H W
        # 1 - p, exact for a p near 1; never 0, where the power has no finite slope for a gamma below 1.
        doubt = (-torch.expm1(-entropy)).clamp(min=torch.finfo(torch.float32).tiny)
        focused = doubt**self.gamma * entropy
        return focused.sum() if self.weight is None else (self._weight_of(target) * focused).sum()


@register("loss", "ohem")
class HardPixels(ImageLoss):
    """Cross-entropy of each image's hard pixels only (online hard example mining).

    Hard are the pixels whose probability of the true class is below `threshold`, and the `min_kept` of least
    probability in any case. The mean over an image's hard pixels, then over the images that have pixels that count.

    Source: Shrivastava et al. 2016, for boxes; for pixels: Wu et al. 2016, "High-performance Semantic Segmentation
    Using Very Deep Fully Convolutional Networks" (online bootstrapping).

    Args:
        threshold: probability of the true class below which a pixel is hard, 0 to 1.
        min_kept: share of an image's pixels that are hard at least, 0 to 1; one pixel always is. 1 keeps them all.
    """

    def __init__(
        self,
        num_classes: int,
        frequencies: ClassFrequencies | None = None,
        *,
        threshold: float = 0.7,
        min_kept: float = 1 / 16,
    ) -> None:
        super().__init__()
        for name, value in (("threshold", threshold), ("min_kept", min_kept)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; expected 0 to 1")
        self.threshold = threshold
        self.min_kept = min_kept

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        entropy = pixel_entropy(logits, target.long())  # N H W
        counted = [values[labels != IGNORE] for values, labels in zip(entropy, target, strict=True)]
        return torch.stack([self._mean_of_hard(values) for values in counted]).sum()

    def _mean_of_hard(self, entropy: Tensor) -> Tensor:
        """Returns the loss of one image, given the cross-entropies of its pixels that count; 0 where it has none."""
        if not len(entropy):
            return entropy.sum()
        least = max(1, math.ceil(self.min_kept * len(entropy)))
        values = entropy.detach()
        hard = (torch.exp(-values) < self.threshold) | (values >= values.topk(least).values[-1])
        return entropy[hard].mean()


class Criterion(nn.Module):
    """The weighted sum of a config's losses."""

    def __init__(
        self, terms: Sequence[LossTerm], num_classes: int, frequencies: ClassFrequencies | None = None
    ) -> None:
        """Raises ConfigError for unknown losses or options, of all terms at once."""
        super().__init__()
        losses: list[nn.Module] = []
        problems: list[str | Problem] = []
        for i, term in enumerate(terms):
            try:
                losses.append(build("loss", term, num_classes, frequencies, path=f"loss.{i}"))
            except ConfigError as error:
                problems += error.details
        if problems:
            raise ConfigError(*problems)
        # A buffer, since a tensor made from numbers in each step would have a GPU waited for.
        self.register_buffer("weights", torch.tensor([term.weight for term in terms]), persistent=False)
        self.losses = nn.ModuleList(losses)

    def denominators(self, target: Tensor) -> Tensor:
        """Returns each loss's denominator for a target N H W, one number a loss."""
        return torch.stack([loss.denominator(target) for loss in self._losses()])

    def forward(self, logits: Tensor, target: Tensor, denominators: Tensor) -> Tensor:
        """Returns this part's share of the loss: 0, with zero gradients, where nothing counts."""
        totals = torch.stack([loss.total(logits, target) for loss in self._losses()])
        # Where a denominator is 0 its total is too. By a tiny number instead of 1 the slope of a large weight, or of a
        # loss that is scaled, would be infinite, and the gradient not a number.
        return (self.weights * totals / torch.where(denominators > 0, denominators, 1)).sum()

    def _losses(self) -> list[Loss]:
        return [cast(Loss, loss) for loss in self.losses]


def pixel_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Returns the cross-entropy of each pixel, N H W float32, 0 where it is ignored; the target is int64."""
    return F.cross_entropy(logits.float(), target, ignore_index=IGNORE, reduction="none")


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
        if len(rule) != num_classes:
            raise ValueError(
                f"class_weights has {counted(len(rule), 'number')} for {num_classes} classes; expected one per class"
            )
        if min(rule) < 0 or not any(rule):
            raise ValueError(f"class_weights has {min(rule):g}; expected none below 0, and not all 0")
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
