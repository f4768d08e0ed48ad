"""What masks hold, counted: how often each value occurs, in blocks, in specks, and where the edges between them are.

Masks of one size are counted together, one below the other: of small ones each step takes longer to begin than to do.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from segtool.data.outline import outline_maps, sample_maps
from segtool.data.specks import are_alone, find_specks


class Histogram(NamedTuple):
    """Of one mask; each field as in `MaskFacts`."""

    values: np.ndarray
    counts: np.ndarray
    solid: np.ndarray
    specks: np.ndarray
    lonely: np.ndarray
    outline: np.ndarray
    sample: np.ndarray


def histograms(masks: np.ndarray) -> list[Histogram]:
    """Returns the histograms of N H W integers, one of each.

    Masks have a thirtieth as many runs of equal pixels as pixels: runs are counted, and blocks where they are mixed.
    A value has a key in each mask, all in one order; codes are the places of keys.
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
    mixed = lower.ravel().copy()  # begins no block of one value, as all in the last row and column
    mixed[:-1] |= lower.ravel()[1:]
    mixed[:-1] |= begins.ravel()[1:]  # where these three do not differ, the fourth does not either
    pixels = np.flatnonzero(mixed)
    if flat.dtype == np.uint8:
        least, span, keys = 0, 256, np.arange(256 * num_masks)
        codes, missing = flat[starts] + starts // size * span, flat[pixels] + pixels // size * span
    else:
        least = int(flat.min())
        span = int(flat.max()) - least + 1
        keys, codes = np.unique(flat[starts].astype(np.int64) - least + starts // size * span, return_inverse=True)
        missing = codes[np.searchsorted(starts, pixels, side="right") - 1]
    counts = np.bincount(codes, lengths, len(keys)).astype(np.int64)
    solid = counts - np.bincount(missing, minlength=len(keys))
    found_specks = find_specks(codes, starts, lengths, lower)
    alone = found_specks[are_alone(masks, starts[found_specks])]
    specks, lonely = (np.bincount(codes[runs], minlength=len(keys)) for runs in (found_specks, alone))
    begins[..., 0] = False
    begins[:, 1:] |= lower[:, :-1]
    outlines, samples = outline_maps(begins), sample_maps(masks)
    found = np.flatnonzero(counts)
    values = keys % span + least
    ends = np.searchsorted(keys[found], np.arange(num_masks + 1) * span).tolist()
    parts = [found[first:last] for first, last in pairwise(ends)]
    return [
        Histogram(values[part], counts[part], solid[part], specks[part], lonely[part], outline, sample)
        for part, outline, sample in zip(parts, outlines, samples, strict=True)
    ]
