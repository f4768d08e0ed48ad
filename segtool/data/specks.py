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


def count_specks(values: np.ndarray, begins: np.ndarray) -> dict[int, int]:
    """Returns the number of specks of each value of a mask H W: regions of up to 6 pixels, diagonals connected.

    Args:
        begins: H W bool, whether a pixel differs from the one to its left; the first of a row does.
    """
    flat = values.ravel()
    starts = np.flatnonzero(begins)
    lengths = np.diff(np.append(starts, flat.size))
    short = np.flatnonzero(lengths <= SPECK_PIXELS)
    if not FEW <= len(short) <= MAX_SHARE * flat.size:
        return {}
    short = short[_is_low(flat, starts[short], values.shape)]
    if len(short) < FEW:
        return {}
    one, other = _touching(flat, starts, lengths, short, values.shape)
    place = np.full(len(starts), -1)
    place[short] = np.arange(len(short))
    large = np.zeros(len(short), bool)  # part of a region with a long run
    large[one[place[other] < 0]] = True
    inner = place[other] >= 0
    one, other = one[inner], place[other[inner]]
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


def _is_low(flat: np.ndarray, pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns for each pixel whether no more than a speck's pixels of its value stand above each other there."""
    height, width = shape
    tall = np.ones(len(pixels), int)
    for step in (-width, width):
        place, left = pixels, np.arange(len(pixels))
        for _ in range(SPECK_PIXELS):
            place = place + step
            inside = (place >= 0) & (place < height * width)
            place, left = place[inside], left[inside]
            alike = flat[place] == flat[pixels[left]]
            place, left = place[alike], left[alike]
            tall[left] += 1
    return tall <= SPECK_PIXELS


def _touching(
    flat: np.ndarray, starts: np.ndarray, lengths: np.ndarray, short: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns pairs of a short run (its place among them) and a run of its value that it touches above or below."""
    height, width = shape
    first, last = starts[short], starts[short] + lengths[short] - 1
    rows, left, right = first // width, first % width, last % width
    pairs = []
    for row in (rows - 1, rows + 1):
        for column in (left - 1, left, right, right + 1):
            inside = np.flatnonzero((row >= 0) & (row < height) & (column >= 0) & (column < width))
            pixels = row[inside] * width + column[inside]
            alike = flat[pixels] == flat[first[inside]]
            pairs.append((inside[alike], np.searchsorted(starts, pixels[alike], side="right") - 1))
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])
