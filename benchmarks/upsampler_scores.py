"""What mean IoU does not show of an upsampler: whether thin structures survive, and the pattern that it leaves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

THICK = 5
"""Side in pixels of the square that a structure of 4 pixels or less has no room for."""
CLEAR = 2
"""Pixels next to a thick part that are never thin: the corners of a field are none."""
BAND = 3
"""Pixels around a thin structure in which a false positive counts."""


class Hits(NamedTuple):
    """Pixels of thin structures; sums of them over images give the IoU of the images together."""

    intersection: int
    union: int


class Energy(NamedTuple):
    """Mean squares of fine detail in logits, summed over classes."""

    pattern: float
    """Of what repeats with the period; its expectation is 0 where nothing does, so an estimate may be below 0."""
    rest: float
    """Of all other detail."""


def thin_pixels(truth: NDArray[np.integer], label: int) -> NDArray[np.bool_]:
    """Returns the pixels of a class, H W, that have no 5x5 square of that class within 2 pixels of them.

    Such a square is what morphological opening with it would leave. Outside the image every class goes on, so that what
    the border cuts is not thin for that.
    """
    inside = truth == label
    reach = THICK // 2
    padded = np.pad(inside, 2 * reach, constant_values=True)
    centres = sliding_window_view(padded, (THICK, THICK)).all((-2, -1))  # H+4 W+4: where a square fits
    side = 2 * (reach + CLEAR) + 1
    near_thick = sliding_window_view(np.pad(centres, CLEAR), (side, side)).any((-2, -1))  # H W
    return inside & ~near_thick


def thin_hits(truth: NDArray[np.integer], prediction: NDArray[np.integer], num_classes: int) -> Hits:
    """Returns intersection and union on the thin structures of every class, for masks H W.

    The intersection is the thin pixels that are predicted as their class. The union is all thin pixels, and for each
    class the pixels of other classes within 3 pixels of its thin ones (in rows and columns) that are predicted as it.
    """
    intersection = union = 0
    for label in range(num_classes):
        thin = thin_pixels(truth, label)
        side = 2 * BAND + 1
        band = sliding_window_view(np.pad(thin, BAND), (side, side)).any((-2, -1))
        predicted = prediction == label
        intersection += int(np.count_nonzero(thin & predicted))
        union += int(np.count_nonzero(thin)) + int(np.count_nonzero(predicted & band & (truth != label)))
    return Hits(intersection, union)


def pattern_energy(logits: NDArray[np.floating], period: int = 8) -> Energy:
    """Returns how much of the fine detail of logits K H W is a pattern that repeats every `period` pixels.

    A period along each border is left out, where padding leaves marks of its own. The mean over classes is taken away,
    which no prediction depends on, then the mean over the period around each pixel. What is left is sorted by the
    pixel's place (y mod period, x mod period) into groups, and its variance is split as in a one-way analysis with
    random effects: between the places (the pattern) and within them (the rest). The split is unbiased for detail that
    knows nothing of the grid. Whole periods count, from the upper left; there must be two of them.

    Source: Shrout and Fleiss 1979, "Intraclass correlations", ICC(1, 1), whose ratio the checkerboard score is.
    """
    centred = (logits.astype(np.float64) - logits.mean(0))[:, period:-period, period:-period]
    detail = centred[:, period // 2 :, period // 2 :]
    smooth = _moving_mean(
        _moving_mean(centred, period, axis=-1), period, axis=-2
    )  # K h w, half a period less on each side
    detail = detail[:, : smooth.shape[1], : smooth.shape[2]] - smooth
    rows, columns = detail.shape[1] // period, detail.shape[2] // period
    cells = detail[:, : rows * period, : columns * period].reshape(-1, rows, period, columns, period)
    places, count = period * period, rows * columns
    means = cells.mean((1, 3), keepdims=True)  # K 1 period 1 period
    within = float(((cells - means) ** 2).sum() / (places * (count - 1)))
    between = float(count * means.var((2, 4), ddof=1).sum())
    return Energy((between - within) / count, within)


def checkerboard(energies: list[Energy]) -> float:
    """Returns the share, 0 to 1, of the detail that is pattern, over images; about 0 where an output has none."""
    pattern, rest = (sum(values) for values in zip(*energies, strict=True))
    return pattern / (pattern + rest) if pattern + rest > 0 else 0.0


def _moving_mean(values: NDArray[np.float64], period: int, *, axis: int) -> NDArray[np.float64]:
    """Returns the mean over a period around each pixel, whose two outermost pixels count half; no border is filled."""
    weights = np.full(period + 1, 1 / period)
    weights[[0, -1]] /= 2
    return sliding_window_view(values, period + 1, axis=axis) @ weights
