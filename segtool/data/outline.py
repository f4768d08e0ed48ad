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


def picture_maps(pixels: np.ndarray, picture: Image.Image | None = None) -> tuple[np.ndarray, np.ndarray, bool]:
    """Returns thumbnail and edge map of an image H W C, SIDE SIDE uint8 each, and whether all its pixels are equal.

    Args:
        picture: the same in mode L or RGB, where there is one: Pillow takes rows and columns out of it sooner.
    """
    step = max(1, min(pixels.shape[:2]) // _ENOUGH)
    fine = _small(pixels[::step, ::step] if picture is None else _every(picture, step))
    factor = fine.width // SIDE
    thumbnail = np.asarray(fine.convert("L").reduce(factor))
    steepest = _slopes(np.asarray(fine))
    plain = not steepest.any() and bool((pixels == pixels[0, 0]).all())
    pooled = Image.fromarray(np.minimum(2 * steepest, 255).astype(np.uint8)).reduce(factor)
    return thumbnail, _ROOTS[np.asarray(pooled)], plain


def _every(picture: Image.Image, step: int) -> Image.Image:
    """Returns every so many rows and columns of a picture, from the first on."""
    size, start = (-(-picture.width // step), -(-picture.height // step)), 0.5 - step / 2
    return picture.transform(size, Image.Transform.AFFINE, (step, 0, start, 0, step, start)) if step > 1 else picture


def _slopes(pixels: np.ndarray) -> np.ndarray:
    """Returns by how much each pixel of H W or H W C differs from those to the left and above, H W uint16.

    The most of all channels counts: red on blue may be equal in grey.
    """
    steepest = np.zeros(pixels.shape[:2], np.uint16)
    for band in np.atleast_3d(pixels).transpose(2, 0, 1):
        band = np.ascontiguousarray(band)
        slopes = np.zeros(band.shape, np.uint16)
        slopes[:, 1:] = _distance(band[:, 1:], band[:, :-1])
        slopes[1:] += _distance(band[1:], band[:-1])
        np.maximum(steepest, slopes, out=steepest)
    return steepest


def _distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.maximum(one, other) - np.minimum(one, other)


def outline_map(edges: np.ndarray) -> np.ndarray:
    """Returns the share of edge pixels in each cell, SIDE SIDE uint8, of H W bool."""
    image = Image.fromarray(edges.view(np.uint8) * np.uint8(255))
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))


def _small(pixels: np.ndarray | Image.Image) -> Image.Image:
    """Returns a picture of 128x128, or 64x64, in mode L or RGB; of many channels, the first."""
    picture = pixels if isinstance(pixels, Image.Image) else _as_picture(pixels)
    side = _FINE if min(picture.size) >= _FINE else _COARSE
    return picture.resize((side, side), Image.Resampling.BOX)


def _as_picture(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8:  # 16-bit pictures often fill little of their range
        low, high = float(pixels.min()), float(pixels.max())
        pixels = ((pixels - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3] if pixels.shape[2] in (3, 4) else pixels[..., 0]))
