"""What a network does with images rather than by its layout: how much of its field it uses, and whether its answer
moves with the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

SHIFTS = tuple(range(1, 9))
SHARES = (0.5, 0.95)


@dataclass(frozen=True)
class EffectiveField:
    """How far from an output pixel the input pixels lie that it answers to."""

    half: int
    """Side in pixels of the square, centred on the output pixel, that holds 50 % of the gradient's absolute value."""
    most: int
    """Side of the one that holds 95 %."""


@dataclass(frozen=True)
class Shift:
    """Whether the predicted classes move with the image."""

    pixels: int
    """By how many the image is shifted, up and to the left."""
    consistency: float
    """Share of the pixels, of those in both images, whose class is the same."""
    inside: float | None
    """That share of the pixels at least `margin` from every border; null where there are none."""
    whole: bool
    """Whether the shift is a multiple of the network's stride, so that only the borders can make a difference."""


def effective_field(model: nn.Module, images: Sequence[Tensor]) -> EffectiveField | None:
    """Returns the effective receptive field of a network in evaluation mode; None where no gradient comes through.

    It is the gradient of a random projection of the centre pixel's logits by the image, in absolute value, summed over
    channels; each image has its own projection, and counts as much as any other.

    Source: Luo et al. 2016, "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks".

    Args:
        images: Each C H W, normalised, on the network's device.
    """
    generator = torch.Generator().manual_seed(0)
    longest = max(max(image.shape[-2:]) for image in images)
    mass = np.zeros(longest + 1)  # by distance from the centre, the larger of the distances along the two axes
    for image in images:
        rings = _gradient_by_distance(model, image, generator)
        if rings.sum() > 0:
            mass[: len(rings)] += rings / rings.sum()
    if mass.sum() == 0:
        return None
    cumulative = np.cumsum(mass) / mass.sum()
    # A rounding error above the sum is no pixel further out.
    half, most = (2 * int(np.searchsorted(cumulative, share - 1e-9)) + 1 for share in SHARES)
    return EffectiveField(half, most)


def shift_consistency(
    model: nn.Module, images: Sequence[Tensor], *, shifts: Sequence[int] = SHIFTS, stride: int, margin: int
) -> list[Shift]:
    """Returns, for each shift d, how alike a network's answers to `image` and to `image[:, d:, d:]` are.

    Source: Zhang 2019, "Making Convolutional Networks Shift-Invariant Again", section 4, on consistency.

    Args:
        images: Each C H W, normalised, on the network's device, larger than any shift.
        margin: Pixels from the borders that `inside` leaves out.
    """
    counts = np.zeros((len(shifts), 2, 2))  # shift; everywhere, inside; same, all
    for image in images:
        answer = _classes(model, image)
        for number, d in enumerate(shifts):
            same = _classes(model, image[:, d:, d:]) == answer[d:, d:]
            inner = same[margin : same.shape[0] - margin, margin : same.shape[1] - margin]
            counts[number] += [[int(part.sum()), part.numel()] for part in (same, inner)]
    return [
        Shift(d, float(same / total), float(same_inside / inside) if inside else None, d % stride == 0)
        for d, ((same, total), (same_inside, inside)) in zip(shifts, counts, strict=True)
    ]


@torch.no_grad()
def settle_norms(model: nn.Module, images: Sequence[Tensor]) -> None:
    """Gives the BatchNorms of an untrained network the statistics that these images have, so that it answers in
    evaluation mode as at the first step of a training, and leaves it in that mode."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all that come
    model.train()
    for image in images if norms else ():
        model(image.unsqueeze(0))
    model.eval()
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


def _gradient_by_distance(model: nn.Module, image: Tensor, generator: torch.Generator) -> np.ndarray:
    x = image.unsqueeze(0).clone().requires_grad_()
    logits = model(x)
    row, column = image.shape[-2] // 2, image.shape[-1] // 2
    projection = torch.randn(logits.shape[1], generator=generator).to(logits)
    (gradient,) = torch.autograd.grad(logits[0, :, row, column] @ projection, x)
    strength = gradient[0].abs().sum(0).double().cpu().numpy()
    rows, columns = np.ogrid[: strength.shape[0], : strength.shape[1]]
    distance = np.maximum(abs(rows - row), abs(columns - column))
    return np.bincount(distance.ravel(), strength.ravel())


@torch.inference_mode()
def _classes(model: nn.Module, image: Tensor) -> Tensor:
    return model(image.unsqueeze(0))[0].argmax(0)
