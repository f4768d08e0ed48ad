"""Regions of a few pixels in a mask: what stray clicks and noise leave."""

from __future__ import annotations

import numpy as np

SPECK_PIXELS = 6
"""Pixels of the largest region that is a speck."""
SLIP_PIXELS = 16
"""Pixels that a value has in all, in one mask alone, where it is a slip of the pen, which no network learns."""
SLIP_MASKS = 5
"""Masks that there are at least, where a value of one of them alone may be one."""
FEW = 20
"""Runs that might be specks, below which none are counted: they are no label noise, and it takes time."""
MAX_SHARE = 0.1  # of the pixels that begin a short run, beyond which a mask is noise or a soft edge and nothing is told


def count_specks(flat: np.ndarray, starts: np.ndarray, lengths: np.ndarray, lower: np.ndarray) -> dict[int, int]:
    """Returns the number of specks of each value of a mask: regions of up to 6 pixels, diagonals connected.

    Args:
        flat: Its pixels, row by row.
        starts: Where its runs of equal pixels begin, each row's first one included.
        lengths: Of the runs.
        lower: H-1 W bool, whether a pixel differs from the one below.
    """
    short = np.flatnonzero(lengths <= SPECK_PIXELS)
    if not FEW <= len(short) <= MAX_SHARE * flat.size:
        return {}
    short = short[~_stand_in_column(starts[short], lower)]
    if len(short) < FEW:
        return {}
    one, other = _touching(flat, starts, lengths, short, lower.shape[1])
    large = np.zeros(len(short), bool)  # part of a region with a long run
    large[one[other < 0]] = True
    one, other = one[other >= 0], other[other >= 0]
    label = np.arange(len(short))
    for _ in range(SPECK_PIXELS):  # a speck has no more rows; what is not of one label by then is larger
        beside = large[other]
        large[one[beside]] = True
        keep = ~(beside | large[one])
        one, other = one[keep], other[keep]
        np.minimum.at(label, one, label[other])
    large[one[label[one] != label[other]]] = True
    sizes = np.bincount(label, lengths[short], len(short))
    sizes[label[large]] = np.inf
    specks = (sizes > 0) & (sizes <= SPECK_PIXELS)
    found, counts = np.unique(flat[starts[short[specks]]], return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _stand_in_column(pixels: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Returns for each of the pixels whether more of its value stand above and below it than a speck has."""
    width = lower.shape[1]
    borders = np.ones((len(lower) + 2 * SPECK_PIXELS, width), bool)  # above the first row and below the last one too
    borders[SPECK_PIXELS:-SPECK_PIXELS] = lower
    alike = np.zeros(len(pixels), np.uint8)
    for step, first in ((width, SPECK_PIXELS), (-width, SPECK_PIXELS - 1)):
        goes_on = np.ones(len(pixels), bool)
        for border in range(SPECK_PIXELS):
            goes_on &= ~borders.ravel()[pixels + first * width + border * step]
            alike += goes_on
    return alike >= SPECK_PIXELS


def _touching(
    flat: np.ndarray, starts: np.ndarray, lengths: np.ndarray, short: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns pairs of runs of one value that touch, one above the other, in both orders.

    The first is a short run, its place among them; the second too, or -1 where it is any other run.
    """
    place = np.full(len(starts), -1)
    place[short] = np.arange(len(short))
    values, first, size = flat[starts], starts[short], lengths[short]
    column = first % width
    left, right = first - (column > 0), first + size - (column + size == width)  # with the pixels beside it
    ones, others = [], []
    for row in (-width, width):
        one = np.flatnonzero((left + row >= 0) & (right + row < flat.size))
        begin = np.searchsorted(starts, left[one] + row, side="right") - 1
        end = np.searchsorted(starts, right[one] + row, side="right")
        count = end - begin
        one = np.repeat(one, count)
        run = np.arange(len(one)) - np.repeat(np.cumsum(count) - count - begin, count)
        alike = np.flatnonzero(values[run] == values[short[one]])
        ones.append(one[alike])
        others.append(place[run[alike]])
    return np.concatenate(ones), np.concatenate(others)
