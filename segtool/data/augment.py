"""Augmentation: what becomes of an image and its mask on the way to a training crop, as a function of a generator.

All geometry is drawn first (`geometry`) and is one resampling of both (`warp`). Colours change after it (`photometry`),
and a rectangle is erased last.

What is off draws nothing from the generator, so that a new option leaves the crops of old configs as they were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segtool.config import Augment
from segtool.data.codes import IGNORE
from segtool.data.geometry import Geometry, draw_geometry
from segtool.data.photometry import change_colors, mean_color
from segtool.data.warp import as_stored, warp_image, warp_mask

LONGEST_SIDE = 3  # of an erased rectangle, in lengths of its shorter one


def augment_pair(
    image: NDArray,
    target: NDArray[np.uint8],
    rng: np.random.Generator,
    *,
    crop: tuple[int, int],
    augment: Augment,
    class_pixels: Sequence[int] | None = None,
    centre: tuple[float, float] | None = None,
) -> tuple[NDArray, NDArray[np.uint8]]:
    """Returns the crop of an image H W C and its class indices H W that training sees.

    Args:
        crop: Height and width in pixels.
        class_pixels: Pixels of each class in the training masks, which `augment.rare` needs.
        centre: As of `draw_geometry`; with `augment.rare` it is drawn.

    Raises:
        TypeError: the two are no arrays of these types and of one size, of which one could be moved without the other.
    """
    _require_pair(image, target)
    if augment.rare:
        assert class_pixels is not None, "augment.rare needs the class frequencies"
        centre = draw_centre(rng, target, class_pixels, augment.rare)
    geometry = draw_geometry(rng, (target.shape[0], target.shape[1]), crop, augment, centre=centre)
    return cut(image, target, rng, geometry, augment)


def _require_pair(image: NDArray, target: NDArray[np.uint8]) -> None:
    if not (isinstance(image, np.ndarray) and isinstance(target, np.ndarray)):
        raise TypeError(f"expected two NumPy arrays, found {type(image).__name__} and {type(target).__name__}")
    fits = image.ndim == 3 and image.shape[:2] == target.shape
    if not fits or image.dtype not in (np.uint8, np.float32) or target.dtype != np.uint8:
        raise TypeError(
            f"expected an image H W C of uint8 or float32 and class indices H W of uint8, found {image.shape} of "
            f"{image.dtype} and {target.shape} of {target.dtype}"
        )


def cut(
    image: NDArray, target: NDArray[np.uint8], rng: np.random.Generator, geometry: Geometry, augment: Augment
) -> tuple[NDArray, NDArray[np.uint8]]:
    """Returns the crop that a geometry gives of image and mask, with its colours changed and a rectangle erased."""
    fill = np.zeros(image.shape[2]) if geometry.within else mean_color(image)
    image = change_colors(warp_image(image, geometry, fill), rng, augment)
    target = warp_mask(target, geometry)
    if augment.erase:
        return erase(image, target, draw_rectangle(rng, geometry.size, augment.erase))
    return image, target


def draw_centre(
    rng: np.random.Generator, target: NDArray[np.uint8], class_pixels: Sequence[int], share: float
) -> tuple[float, float] | None:
    """Returns y and x of the centre of a pixel of a rare class, in `share` of the cases; else None.

    The class is drawn from those in the mask, each with a probability proportional to 1 / `class_pixels`, the pixel
    from those of the class. None too where every pixel is ignored.
    """
    if rng.random() >= share:
        return None
    weights = (np.bincount(target.ravel(), minlength=256)[: len(class_pixels)] > 0) / np.maximum(class_pixels, 1)
    if not weights.any():
        return None
    drawn = rng.choice(len(weights), p=weights / weights.sum())
    pixels = np.flatnonzero(target == drawn)
    row, column = divmod(int(pixels[rng.integers(len(pixels))]), target.shape[1])
    return row + 0.5, column + 0.5


def draw_rectangle(rng: np.random.Generator, size: tuple[int, int], largest: float) -> tuple[slice, slice]:
    """Returns rows and columns of a rectangle anywhere in a crop of `size` (H W).

    Its share of the crop is drawn uniformly from 0 to `largest`, height over width log-uniformly from 1/3 to 3; one
    that would be longer than the crop is as long, and wider for it.
    """
    area = rng.uniform(0, largest) * size[0] * size[1]
    longest = math.log(LONGEST_SIDE)
    height = min(math.sqrt(area * math.exp(rng.uniform(-longest, longest))), size[0])
    width = min(area / height, size[1]) if height else 0.0
    height = area / width if width else 0.0
    sides = (round(height), round(width))
    top, left = (int(rng.integers(whole - side, endpoint=True)) for whole, side in zip(size, sides, strict=True))
    return slice(top, top + sides[0]), slice(left, left + sides[1])


def erase(
    image: NDArray, target: NDArray[np.uint8], rectangle: tuple[slice, slice]
) -> tuple[NDArray, NDArray[np.uint8]]:
    """Returns image H W C and class indices H W with a rectangle that has the image's mean colour and is IGNORE."""
    image, target = image.copy(), target.copy()
    image[rectangle] = as_stored(mean_color(image), image.dtype)
    target[rectangle] = IGNORE
    return image, target
