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
        flat: its pixels, row by row.
        starts: where its runs of equal pixels begin, each row's first one included.
        lengths: of the runs.
        lower: H-1 W bool, whether a pixel differs from the one below.
    """
    short = np.flatnonzero(lengths <= SPECK_PIXELS)
    if not FEW <= len(short) <= MAX_SHARE * flat.size:
        return {}
    short = short[~_stands_in_column(lower).ravel()[starts[short]]]
    if len(short) < FEW:
        return {}
    one, other = _touching(flat, starts, lengths, short, lower.shape[1])
    large = np.zeros(len(short), bool)  # part of a region with a long run
    large[one[other < 0]] = True
    inner = other >= 0
    one, other = one[inner], other[inner]
    one, other = np.concatenate([one, other]), np.concatenate([other, one])
    label = np.arange(len(short))
    for _ in range(SPECK_PIXELS):  # a speck has no more rows; what is not of one label by then is larger
        keep = ~(large[one] | large[other])
        large[one[large[other]]] = True
        one, other = one[keep], other[keep]
        np.minimum.at(label, one, label[other])
    large[one[label[one] != label[other]]] = True
    sizes = np.bincount(label, lengths[short], len(short))
    sizes[label[large]] = np.inf
    specks = (sizes > 0) & (sizes <= SPECK_PIXELS)
    found, counts = np.unique(flat[starts[short[specks]]], return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _stands_in_column(lower: np.ndarray) -> np.ndarray:
    """Returns for each pixel, H W, whether more than a speck's pixels of its value stand above each other there."""
    height = len(lower) + 1
    inside = np.zeros((height, lower.shape[1]), bool)
    if height > SPECK_PIXELS:
        beyond = height - SPECK_PIXELS
        equal = ~lower
        begins = equal[:beyond].copy()
        for step in range(1, SPECK_PIXELS):
            begins &= equal[step : step + beyond]
        for step in range(SPECK_PIXELS + 1):
            inside[step : step + beyond] |= begins
    return inside


def _touching(
    flat: np.ndarray, starts: np.ndarray, lengths: np.ndarray, short: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns pairs of runs of one value that touch, one above the other.

    The first is a short run, its place among them; the second too, or -1 where it is any other run.
    """
    wide = lengths[short] + 2  # with the pixels beside it
    owner = np.repeat(np.arange(len(short)), wide)
    steps = np.arange(len(owner)) - np.repeat(np.cumsum(wide) - wide + 1, wide)
    columns = (starts[short] % width)[owner] + steps
    inside = (columns >= 0) & (columns < width)
    owner, pixels = owner[inside], starts[short][owner[inside]] + steps[inside]
    value = flat[starts[short]][owner]
    place = np.full(flat.size, -1, np.int32)
    own = flat[pixels] == value
    place[pixels[own]] = owner[own]
    pairs = []
    for row in (-width, width):
        inside = (pixels + row >= 0) & (pixels + row < flat.size)
        one, there = owner[inside], pixels[inside] + row
        alike = flat[there] == value[inside]
        pairs.append((one[alike], place[there[alike]]))
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])
