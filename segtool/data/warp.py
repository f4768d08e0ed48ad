"""Image and mask read at the places of a geometry, in one resampling each.

The image is read bilinearly, the mask at the nearest pixel; where a place lies outside the image the mask is IGNORE and
the image has the fill colour. In an upright window what is not zoomed is copied, and what shrinks is averaged.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from segtool.data.codes import IGNORE
from segtool.data.geometry import Geometry


def warp_image(image: NDArray, geometry: Geometry, fill: NDArray[np.float64]) -> NDArray:
    """Returns the crop of an image H W C (uint8 or float32 in 0..255), outside filled with `fill` (C, 0..255)."""
    if geometry.places is not None:
        return _read_between(image, geometry.places, fill)
    if geometry.upright is None:
        return _turned(image, geometry, fill)
    part = _resized(_mirrored(image[geometry.upright.source], geometry.mirror), geometry.upright.size)
    if geometry.within:
        return part
    crop = np.empty((*geometry.size, image.shape[2]), image.dtype)
    crop[0] = as_stored(fill, image.dtype)
    crop[1:] = crop[0]  # whole rows at a time
    crop[geometry.upright.target] = part
    return crop


def warp_mask(mask: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
    """Returns the crop of class indices H W, IGNORE outside of the image."""
    if geometry.places is not None:
        return _read_nearest(mask, geometry.places)
    if geometry.upright is None:
        return np.asarray(_affine_of(Image.fromarray(mask), geometry, Image.Resampling.NEAREST, IGNORE))
    part = _mirrored(mask[geometry.upright.source], geometry.mirror)
    height, width = geometry.upright.size
    resized = np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.NEAREST))
    if geometry.within:
        return resized
    crop = np.full(geometry.size, IGNORE, np.uint8)
    crop[geometry.upright.target] = resized
    return crop


def as_stored(fill: NDArray[np.float64], dtype: np.dtype) -> list[int | float]:
    """Returns a colour (C, 0..255) as pixels of a type hold it."""
    return [int(value + 0.5) if dtype == np.uint8 else float(value) for value in fill]


def _mirrored(pixels: NDArray, mirror: tuple[bool, bool]) -> NDArray:
    """Returns a copy of H W (C) pixels, in order, mirrored across and down."""
    part = pixels[:: -1 if mirror[1] else 1]
    if not mirror[0] or part.ndim == 2:
        return part[:, :: -1 if mirror[0] else 1].copy()
    return _interleaved(np.moveaxis(part[:, ::-1], 2, 0))


def _interleaved(planes: NDArray) -> NDArray:
    """Returns C H W pixels as H W C in order, in a quarter of the time that a copy of all channels at once takes."""
    pixels = np.empty((*planes.shape[1:], len(planes)), planes.dtype)
    for channel, plane in enumerate(planes):
        pixels[..., channel] = plane
    return pixels


def _resized(part: NDArray, size: tuple[int, int]) -> NDArray:
    """Returns H W C pixels bilinearly at another height and width, averaged where they shrink.

    Pillow's `resize` takes three times as long. Pixels in order are read without a second thread, which other loading
    threads would pay for.
    """
    if part.shape[:2] == size:
        return part
    chw = torch.from_numpy(part).permute(2, 0, 1)[None]
    return _interleaved(F.interpolate(chw, size=size, mode="bilinear", antialias=True)[0].numpy())


def _turned(image: NDArray, geometry: Geometry, fill: NDArray[np.float64]) -> NDArray:
    """Returns what the matrix of a geometry makes of an image H W C. `grid_sample` takes half as long again."""
    colors = as_stored(fill, image.dtype)
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(_affine_of(Image.fromarray(image), geometry, Image.Resampling.BILINEAR, tuple(colors)))
    bands = [
        np.asarray(_affine_of(Image.fromarray(np.ascontiguousarray(band)), geometry, Image.Resampling.BILINEAR, color))
        for band, color in zip(np.moveaxis(image, 2, 0), colors, strict=True)
    ]
    return np.stack(bands, axis=2)


def _affine_of(
    picture: Image.Image, geometry: Geometry, resampling: Image.Resampling, fill: float | tuple[float, ...]
) -> Image.Image:
    height, width = geometry.size
    data = tuple(geometry.matrix.ravel().tolist())
    return picture.transform((width, height), Image.Transform.AFFINE, data, resampling, fillcolor=fill)


def _read_between(image: NDArray, places: NDArray[np.float32], fill: NDArray[np.float64]) -> NDArray:
    """Returns the image at places 2 H W, bilinearly between the centres of its pixels; within half a pixel of its edge
    the outermost pixels count on."""
    size = (image.shape[1], image.shape[0])
    lows, highs = _reach(places, size)  # only what is read is made float
    part = np.moveaxis(image[lows[1] : highs[1], lows[0] : highs[0]], 2, 0).astype(np.float32, order="C")
    # What torch calls -1 and 1 are the outer edges of the outermost pixels.
    spans = [np.float32(2 / (high - low)) for low, high in zip(lows, highs, strict=True)]
    grid = np.stack([(axis - low) * span - 1 for axis, low, span in zip(places, lows, spans, strict=True)])
    read = F.grid_sample(
        torch.from_numpy(part)[None],
        torch.from_numpy(grid).permute(1, 2, 0)[None],
        padding_mode="border",
        align_corners=False,
    )
    planes = read[0].numpy()
    planes = (planes + np.float32(0.5)).astype(np.uint8) if image.dtype == np.uint8 else planes
    outside = ~_inside(places, size)
    for plane, color in zip(planes, as_stored(fill, image.dtype), strict=True):
        np.copyto(plane, color, where=outside)
    return _interleaved(planes)


def _read_nearest(mask: NDArray[np.uint8], places: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Returns the mask at places 2 H W, IGNORE outside of it."""
    height, width = mask.shape
    x, y = places.astype(np.int32)
    crop = mask.ravel().take(y * width + x, mode="clip")
    crop[~_inside(places, (width, height))] = IGNORE
    return crop


def _reach(places: NDArray[np.float32], size: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Returns the first pixel along x and y that has a part in what is read at the places, and the one after the last,
    within an image of `size` (W H)."""
    lows = [int(min(max(low - 1, 0), side - 1)) for low, side in zip(places.min((1, 2)), size, strict=True)]
    highs = [int(min(max(high + 2, 1), side)) for high, side in zip(places.max((1, 2)), size, strict=True)]
    return lows, highs


def _inside(places: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.bool_]:
    return (places[0] >= 0) & (places[0] < size[0]) & (places[1] >= 0) & (places[1] < size[1])
