"""Small pictures of images and masks, by which they are compared: a thumbnail, and where the edges are.

All are squares of `SIDE` x `SIDE`, whatever the shape of the picture, so that those of two files can be laid over each
other.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE = 32
_FINE = 4 * SIDE
_ROOTS = np.sqrt(np.arange(256) * 255).astype(np.uint8)
_ENOUGH = 160  # rows and columns that are looked at, of larger pictures


def picture_maps(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Returns thumbnail and edge map of an image H W C, SIDE SIDE uint8 each, and whether all its pixels are equal."""
    step = max(1, min(pixels.shape[:2]) // _ENOUGH)
    grey = _grey(pixels[::step, ::step])
    low, high = grey.getextrema()
    plain = low == high and bool((pixels == pixels[0, 0]).all())
    fine = grey.resize((_FINE, _FINE), Image.Resampling.BOX)
    thumbnail = np.asarray(fine.reduce(_FINE // SIDE))
    values = np.asarray(fine).astype(np.int16)
    slopes = np.zeros_like(values)
    np.abs(values[:, 1:] - values[:, :-1], out=slopes[:, 1:])
    slopes[1:] += np.abs(values[1:] - values[:-1])
    pooled = Image.fromarray(np.minimum(2 * slopes, 255).astype(np.uint8)).reduce(_FINE // SIDE)
    return thumbnail, _ROOTS[np.asarray(pooled)], plain


def outline_map(edges: np.ndarray) -> np.ndarray:
    """Returns the share of edge pixels in each cell, SIDE SIDE uint8, of H W bool."""
    image = Image.fromarray(edges.view(np.uint8) * np.uint8(255))
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))


def _grey(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8:  # 16-bit pictures often fill little of their range
        low, high = float(pixels.min()), float(pixels.max())
        pixels = ((pixels - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    if pixels.shape[2] in (3, 4):
        return Image.fromarray(np.ascontiguousarray(pixels[..., :3])).convert("L")
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0]))
