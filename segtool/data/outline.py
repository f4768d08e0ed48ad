"""Small pictures of images and masks, by which they are compared: a thumbnail, where the edges are, and the colours.

All are squares of `SIDE` x `SIDE`, colours of half of it, whatever the shape of the picture, so that those of two files
can be laid over each other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 32
TINTS = SIDE // 2
NO_TINT = 128
_FINE, _COARSE = 4 * SIDE, 2 * SIDE  # sides of what slopes are taken of; of pictures below the first, the second
_LUMINANCE = np.array([19595, 38470, 7471], np.uint32)[:, None, None]  # of ITU-R 601, in parts of 65536
_ROOTS = np.sqrt(np.arange(256) * 255).astype(np.uint8)
_ENOUGH = 160  # rows and columns that are looked at, of larger pictures


class PictureMaps(NamedTuple):
    """Of N pictures, uint8."""

    thumbnails: np.ndarray
    """In grey, N SIDE SIDE."""
    edges: np.ndarray
    """As of `ImageFacts`, N SIDE SIDE."""
    tints: np.ndarray
    """How much more red than green there is, and more blue than either; NO_TINT: as much. N TINTS TINTS 2; of grey
    pictures N 0 0 2."""

    def some(self, which: slice | np.ndarray) -> PictureMaps:
        """Returns those of some of the pictures."""
        return PictureMaps(*(maps[which] for maps in self))


def small_picture(pixels: np.ndarray, picture: Image.Image | None = None) -> np.ndarray:
    """Returns an image H W C of which maps are made: S S 1, or S S 3, uint8, with S 128, or 64 where it is smaller.

    Args:
        picture: The same in mode L or RGB, where there is one: Pillow takes rows and columns out of it sooner.
    """
    step = max(1, min(pixels.shape[:2]) // _ENOUGH)
    picture = as_picture(pixels[::step, ::step]) if picture is None else _every(picture, step)
    side = _FINE if min(picture.size) >= _FINE else _COARSE
    return np.atleast_3d(np.asarray(picture.resize((side, side), Image.Resampling.BOX)))


def is_plain(pixels: np.ndarray) -> bool:
    """Whether all pixels of H W C are equal."""
    return pixels[0, 0].tolist() == pixels[-1, -1].tolist() and bool((pixels == pixels[0, 0]).all())


def picture_maps(small: np.ndarray) -> PictureMaps:
    """Returns the maps of N of `small_picture`."""
    bands = np.ascontiguousarray(np.moveaxis(small, -1, 1))
    maps = np.empty((2, len(bands), *bands.shape[2:]), np.uint16)
    maps[0] = _grey(bands)
    np.minimum(2 * _slopes(bands).max(axis=1), 255, out=maps[1])  # of the channels: red on blue may be equal in grey
    thumbnails, pooled = _reduced(maps)
    return PictureMaps(thumbnails, _ROOTS[pooled], _tints(bands))


def _tints(bands: np.ndarray) -> np.ndarray:
    """Returns the tints of N C S S uint8, as of `PictureMaps`."""
    if bands.shape[1] == 1:
        return np.empty((len(bands), 0, 0, 2), np.uint8)
    red, green, blue = _reduced(bands, TINTS).astype(np.int16).swapaxes(0, 1)
    tints = np.stack([red - green, blue - (red + green) // 2], -1)
    return (tints.clip(-NO_TINT, NO_TINT - 1) + NO_TINT).astype(np.uint8)


def _every(picture: Image.Image, step: int) -> Image.Image:
    """Returns every so many rows and columns of a picture, from the first on."""
    size, start = (-(-picture.width // step), -(-picture.height // step)), 0.5 - step / 2
    return picture.transform(size, Image.Transform.AFFINE, (step, 0, start, 0, step, start)) if step > 1 else picture


def _grey(bands: np.ndarray) -> np.ndarray:
    """Returns the luminance of N C S S uint8 as Pillow works it out, N S S uint16."""
    if bands.shape[1] == 1:
        return bands[:, 0].astype(np.uint16)
    return ((bands * _LUMINANCE).sum(axis=1, dtype=np.uint32) + 2**15 >> 16).astype(np.uint16)


def _slopes(bands: np.ndarray) -> np.ndarray:
    """Returns by how much the pixels of ... S S uint8 differ from those to the left and above, uint16."""
    slopes = np.zeros(bands.shape, np.uint16)
    slopes[..., 1:] = distance(bands[..., 1:], bands[..., :-1])
    slopes[..., 1:, :] += distance(bands[..., 1:, :], bands[..., :-1, :])
    return slopes


def distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns how far two arrays of bytes or numbers are apart in each element, in their own type."""
    return np.maximum(one, other) - np.minimum(one, other)


def _reduced(maps: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Returns the rounded means of ... S S in cells, ... H H uint8 of this side H; S is H doubled some times."""
    cell = 1
    while maps.shape[-1] > side:
        rows = np.add(maps[..., ::2, :], maps[..., 1::2, :], dtype=np.uint16)
        maps, cell = rows[..., ::2] + rows[..., 1::2], 4 * cell
    return ((maps + cell // 2) // cell).astype(np.uint8)


def outline_maps(edges: np.ndarray) -> np.ndarray:
    """Returns the share of edge pixels in each cell, N SIDE SIDE uint8, of N H W bool."""
    count, height, width = edges.shape
    white = edges.view(np.uint8) * np.uint8(255)
    pictures = (Image.frombuffer("L", (width, height), one, "raw", "L", 0, 1) for one in white)
    small = b"".join(one.resize((SIDE, SIDE), Image.Resampling.BOX).tobytes() for one in pictures)
    return np.frombuffer(small, np.uint8).reshape(count, SIDE, SIDE)


def sample_maps(masks: np.ndarray) -> np.ndarray:
    """Returns the values in the middle of each cell, N SIDE SIDE, of N H W."""
    rows, columns = ((np.arange(SIDE) * 2 + 1) * length // (2 * SIDE) for length in masks.shape[1:])
    return masks[:, rows[:, None], columns]


def as_picture(pixels: np.ndarray) -> Image.Image:
    """Returns H W C as a picture in mode L or RGB; of other channels, the first."""
    if pixels.dtype != np.uint8:  # 16-bit pictures often fill little of their range
        low, high = float(pixels.min()), float(pixels.max())
        pixels = ((pixels - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3] if pixels.shape[2] in (3, 4) else pixels[..., 0]))
