"""Small pictures of images and masks, by which they are compared: a thumbnail, and where the edges are.

All are squares of `SIDE` x `SIDE`, whatever the shape of the picture, so that those of two files can be laid over each
other.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE = 32
_FINE, _COARSE = 4 * SIDE, 2 * SIDE  # sides of what slopes are taken of; of pictures below the first, the second
_LUMINANCE = np.array([19595, 38470, 7471], np.uint32)[:, None, None]  # of ITU-R 601, in parts of 65536
_ROOTS = np.sqrt(np.arange(256) * 255).astype(np.uint8)
_ENOUGH = 160  # rows and columns that are looked at, of larger pictures


def picture_maps(pixels: np.ndarray, picture: Image.Image | None = None) -> tuple[np.ndarray, np.ndarray, bool]:
    """Returns thumbnail and edge map of an image H W C, SIDE SIDE uint8 each, and whether all its pixels are equal.

    Args:
        picture: The same in mode L or RGB, where there is one: Pillow takes rows and columns out of it sooner.
    """
    step = max(1, min(pixels.shape[:2]) // _ENOUGH)
    fine = np.atleast_3d(np.asarray(_small(pixels[::step, ::step] if picture is None else _every(picture, step))))
    bands = np.ascontiguousarray(fine.transpose(2, 0, 1))
    steepest = _slopes(bands).max(axis=0)  # of the channels: red on blue may be equal in grey
    plain = not steepest.any() and bool((pixels == pixels[0, 0]).all())
    maps = np.empty((2, *steepest.shape), np.uint16)
    maps[0] = _grey(bands)
    np.minimum(2 * steepest, 255, out=maps[1])
    thumbnail, pooled = _reduced(maps)
    return thumbnail, _ROOTS[pooled], plain


def _every(picture: Image.Image, step: int) -> Image.Image:
    """Returns every so many rows and columns of a picture, from the first on."""
    size, start = (-(-picture.width // step), -(-picture.height // step)), 0.5 - step / 2
    return picture.transform(size, Image.Transform.AFFINE, (step, 0, start, 0, step, start)) if step > 1 else picture


def _grey(bands: np.ndarray) -> np.ndarray:
    """Returns the luminance of C H W uint8 as Pillow works it out, H W uint16."""
    if len(bands) == 1:
        return bands[0].astype(np.uint16)
    return ((bands * _LUMINANCE).sum(axis=0, dtype=np.uint32) + 2**15 >> 16).astype(np.uint16)


def _slopes(bands: np.ndarray) -> np.ndarray:
    """Returns by how much the pixels of C H W uint8 differ from those to the left and above, uint16."""
    slopes = np.zeros(bands.shape, np.uint16)
    slopes[..., 1:] = distance(bands[..., 1:], bands[..., :-1])
    slopes[:, 1:] += distance(bands[:, 1:], bands[:, :-1])
    return slopes


def distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns how far two arrays of bytes or numbers are apart in each element, in their own type."""
    return np.maximum(one, other) - np.minimum(one, other)


def _reduced(maps: np.ndarray) -> np.ndarray:
    """Returns the rounded means of N squares in cells, N SIDE SIDE uint8; their sides are SIDE doubled some times."""
    cell = 1
    while maps.shape[1] > SIDE:
        rows = maps[:, ::2] + maps[:, 1::2]
        maps, cell = rows[..., ::2] + rows[..., 1::2], 4 * cell
    return ((maps + cell // 2) // cell).astype(np.uint8)


def outline_map(edges: np.ndarray) -> np.ndarray:
    """Returns the share of edge pixels in each cell, SIDE SIDE uint8, of H W bool."""
    height, width = edges.shape
    image = Image.frombuffer("L", (width, height), edges.view(np.uint8) * np.uint8(255), "raw", "L", 0, 1)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))


def _small(pixels: np.ndarray | Image.Image) -> Image.Image:
    """Returns a picture of 128x128, or 64x64, in mode L or RGB; of many channels, the first."""
    picture = pixels if isinstance(pixels, Image.Image) else as_picture(pixels)
    side = _FINE if min(picture.size) >= _FINE else _COARSE
    return picture.resize((side, side), Image.Resampling.BOX)


def as_picture(pixels: np.ndarray) -> Image.Image:
    """Returns H W C as a picture in mode L or RGB; of other channels, the first."""
    if pixels.dtype != np.uint8:  # 16-bit pictures often fill little of their range
        low, high = float(pixels.min()), float(pixels.max())
        pixels = ((pixels - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3] if pixels.shape[2] in (3, 4) else pixels[..., 0]))
