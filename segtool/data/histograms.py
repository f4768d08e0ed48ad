"""What masks hold, counted: how often each value occurs, in blocks, in specks, and where the edges between them are.

Masks of one size are counted together, one below the other: of small ones each step takes longer to begin than to do.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from segtool.data.outline import outline_maps, sample_maps
from segtool.data.specks import find_specks


class Histogram(NamedTuple):
    """Of one mask; each field as in `MaskFacts`."""

    values: np.ndarray
    counts: np.ndarray
    solid: np.ndarray
    specks: np.ndarray
    outline: np.ndarray
    sample: np.ndarray


def histograms(masks: np.ndarray) -> list[Histogram]:
    """Returns the histograms of N H W integers, one of each.

    Masks have a thirtieth as many runs of equal pixels as pixels: runs are counted, and blocks where they are mixed.
    """
    num_masks, height, width = masks.shape
    flat, size = masks.ravel(), height * width
    begins = np.empty(masks.shape, bool)
    np.not_equal(flat[1:], flat[:-1], out=begins.ravel()[1:])
    begins[..., 0] = True
    lower = np.empty(masks.shape, bool)  # differs from the pixel below
    np.not_equal(flat[:-width], flat[width:], out=lower.ravel()[:-width])
    lower[:, -1] = True
    starts = np.flatnonzero(begins)
    lengths = np.append(starts[1:], flat.size) - starts
    values = np.arange(256) if flat.dtype == np.uint8 else np.unique(flat[starts])

    def codes_of(pixels: np.ndarray) -> np.ndarray:
        """Returns a number for each mask and value, as dense as the values."""
        places = flat[pixels] if flat.dtype == np.uint8 else np.searchsorted(values, flat[pixels])
        return places + pixels // size * len(values)

    codes, most = codes_of(starts), num_masks * len(values)
    counts = np.bincount(codes, lengths, most).astype(np.int64)
    mixed = lower.ravel().copy()  # begins no block of one value, as all in the last row and column
    mixed[:-1] |= lower.ravel()[1:]
    mixed[:-1] |= begins.ravel()[1:]  # where these three do not differ, the fourth does not either
    solid = counts - np.bincount(codes_of(np.flatnonzero(mixed)), minlength=most)
    specks = np.bincount(find_specks(codes, starts, lengths, lower), minlength=most)
    begins[..., 0] = False
    begins[:, 1:] |= lower[:, :-1]
    outlines, samples = outline_maps(begins), sample_maps(masks)
    found = np.flatnonzero(counts)
    every = np.tile(values.astype(np.int64), num_masks)
    ends = np.searchsorted(found, np.arange(num_masks + 1) * most // num_masks).tolist()
    parts = [found[first:last] for first, last in pairwise(ends)]
    return [
        Histogram(every[part], counts[part], solid[part], specks[part], outline, sample)
        for part, outline, sample in zip(parts, outlines, samples, strict=True)
    ]
