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
    first, size = starts[short], lengths[short]
    wide = size + 2  # with the pixels beside it
    owner = np.repeat(np.arange(len(short)), wide)
    steps = np.arange(len(owner)) - np.repeat(np.cumsum(wide) - wide + 1, wide)
    columns = (first % width)[owner] + steps
    inside = (columns >= 0) & (columns < width)
    owner, pixels = owner[inside], first[owner[inside]] + steps[inside]
    value = flat[first][owner]
    ones, others = [], []
    for row in (-width, width):
        there = pixels + row
        inside = np.flatnonzero((there >= 0) & (there < flat.size))
        alike = inside[flat[there[inside]] == value[inside]]
        run = np.searchsorted(first, there[alike], side="right") - 1  # -1 before all of them
        ones.append(owner[alike])
        others.append(np.where(there[alike] < first[run] + size[run], run, -1))
    one, other = np.concatenate(ones), np.concatenate(others)
    again = np.zeros(len(one), bool)  # the same two as in the pixel before
    again[1:] = (one[1:] == one[:-1]) & (other[1:] == other[:-1])
    return one[~again], other[~again]
