"""Small pictures of images and masks, by which they are compared: a thumbnail, and where the edges are.

All are squares of `SIDE` x `SIDE`, whatever the shape of the picture, so that those of two files can be laid over each
other.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE = 32
_FINE, _COARSE = 4 * SIDE, 2 * SIDE  # sides of what slopes are taken of; of pictures below the first, the second
_ROOTS = np.sqrt(np.arange(256) * 255).astype(np.uint8)
_ENOUGH = 160  # rows and columns that are looked at, of larger pictures


def picture_maps(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Returns thumbnail and edge map of an image H W C, SIDE SIDE uint8 each, and whether all its pixels are equal."""
    step = max(1, min(pixels.shape[:2]) // _ENOUGH)
    fine = _small(pixels[::step, ::step])
    thumbnail = np.asarray(fine.convert("L").reduce(fine.width // SIDE))
    bands = fine.split()
    flat = all(low == high for low, high in (band.getextrema() for band in bands))
    plain = flat and bool((pixels == pixels[0, 0]).all())
    slopes = _slopes(np.stack([np.asarray(band) for band in bands]).astype(np.int16))
    steepest = slopes.max(axis=0)  # of the channels: red on blue may be equal in grey
    pooled = Image.fromarray(np.minimum(2 * steepest, 255).astype(np.uint8)).reduce(fine.width // SIDE)
    return thumbnail, _ROOTS[np.asarray(pooled)], plain


def _slopes(bands: np.ndarray) -> np.ndarray:
    """Returns by how much the pixels of C H W differ from those to the left and above."""
    slopes = np.zeros_like(bands)
    np.abs(bands[..., 1:] - bands[..., :-1], out=slopes[..., 1:])
    slopes[:, 1:] += np.abs(bands[:, 1:] - bands[:, :-1])
    return slopes


def outline_map(edges: np.ndarray) -> np.ndarray:
    """Returns the share of edge pixels in each cell, SIDE SIDE uint8, of H W bool."""
    image = Image.fromarray(edges.view(np.uint8) * np.uint8(255))
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))


def _small(pixels: np.ndarray) -> Image.Image:
    """Returns a picture of 128x128, or 64x64, in mode L or RGB; of many channels, the first."""
    if pixels.dtype != np.uint8:  # 16-bit pictures often fill little of their range
        low, high = float(pixels.min()), float(pixels.max())
        pixels = ((pixels - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    shown = pixels[..., :3] if pixels.shape[2] in (3, 4) else pixels[..., 0]
    side = _FINE if min(pixels.shape[:2]) >= _FINE else _COARSE
    return Image.fromarray(np.ascontiguousarray(shown)).resize((side, side), Image.Resampling.BOX)
