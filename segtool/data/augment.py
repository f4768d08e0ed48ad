"""Augmentation: all geometry is one resampling of image and mask together, all photometry one matrix.

A geometry maps the pixels of the training crop to places in the stored image. The image is read there bilinearly, the
mask at the nearest pixel; where a place lies outside the image the mask is IGNORE and the image has the fill colour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segtool.config import Augment
from segtool.data.labels import IGNORE

# Luminance of ITU-R BT.601, as Pillow's conversion to grey has it.
LUMINANCE = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Geometry:
    """Where the crop lies in the image: `source = matrix @ (x, y, 1)` with pixel centres at half-integers.

    `box` is (left, top, right, bottom) in the image's pixels where the crop is an upright part of it, else None.
    """

    size: tuple[int, int]
    matrix: NDArray[np.float64]
    mirror: tuple[bool, bool] = (False, False)
    box: tuple[float, float, float, float] | None = None


def draw_geometry(
    rng: np.random.Generator, image_size: tuple[int, int], crop: tuple[int, int], augment: Augment
) -> Geometry:
    """Returns a random geometry for an image of `image_size` (H W), giving a crop of `crop` (H W) pixels.

    The window lies within the image where it fits, and covers it where it does not.
    """
    low, high = augment.scale
    zoom = math.exp(rng.uniform(math.log(low), math.log(high)))
    angle = math.radians(rng.uniform(-augment.rotate, augment.rotate)) if augment.rotate else 0.0
    mirror = tuple(augment.flip in (axis, "both") and rng.random() < 0.5 for axis in ("horizontal", "vertical"))
    window = [side / zoom for side in crop]
    top, left = (_offset(rng, whole, part) for whole, part in zip(image_size, window, strict=True))
    matrix = _affine(crop, window, (top, left), angle, mirror)
    box = (left, top, left + window[1], top + window[0])
    inside = not angle and min(top, left) >= 0 and box[2] <= image_size[1] and box[3] <= image_size[0]
    return Geometry(crop, matrix, (mirror[0], mirror[1]), box if inside else None)


def warp_image(image: NDArray, geometry: Geometry, fill: NDArray[np.float64]) -> NDArray:
    """Returns the crop of an image H W C (uint8 or float32 in 0..255), outside filled with `fill` (C, 0..255)."""
    if image.dtype == np.uint8 and image.shape[2] in (1, 3):
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        color = tuple(int(value + 0.5) for value in fill)
        warped = np.asarray(_warp(picture, geometry, Image.Resampling.BILINEAR, color if len(color) > 1 else color[0]))
        return warped.reshape(*geometry.size, image.shape[2])
    bands = [
        np.asarray(_warp(Image.fromarray(np.ascontiguousarray(band)), geometry, Image.Resampling.BILINEAR, value))
        for band, value in zip(np.moveaxis(image, 2, 0), _typed(fill, image.dtype), strict=True)
    ]
    return np.stack(bands, axis=2)


def warp_mask(mask: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
    """Returns the crop of class indices H W, IGNORE outside of the image."""
    return np.asarray(_warp(Image.fromarray(mask), geometry, Image.Resampling.NEAREST, IGNORE))


def jitter_color(image: NDArray, rng: np.random.Generator, strength: float) -> NDArray:
    """Returns the image H W C with brightness, contrast and saturation changed by factors of 1 - s to 1 + s.

    Contrast is about the crop's own mean luminance; saturation mixes RGB with its luminance. Values stay in 0..255.
    """
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, size=3)
    channels = image.shape[2]
    grey = LUMINANCE if channels == 3 else np.full(channels, 1 / channels)
    middle = float(image.mean((0, 1)) @ grey)
    mix = np.eye(channels)
    if channels == 3:
        mix = saturation * mix + (1 - saturation) * LUMINANCE[None, :]
    matrix = contrast * brightness * mix
    shift = (1 - contrast) * brightness * middle
    if image.dtype == np.uint8 and channels == 3:
        rows = np.column_stack([matrix, np.full(3, shift)])
        return np.asarray(Image.fromarray(image).convert("RGB", tuple(rows.ravel().tolist())))
    changed = (image @ matrix.T + shift).clip(0, 255)
    return (changed + 0.5).astype(np.uint8) if image.dtype == np.uint8 else changed.astype(np.float32)


def _offset(rng: np.random.Generator, whole: float, part: float) -> float:
    slack = whole - part
    return rng.uniform(min(slack, 0.0), max(slack, 0.0))


def _affine(
    crop: tuple[int, int],
    window: list[float],
    corner: tuple[float, float],
    angle: float,
    mirror: tuple[bool, ...],
) -> NDArray[np.float64]:
    zoom_y, zoom_x = window[0] / crop[0], window[1] / crop[1]
    centre = np.array([[1, 0, -crop[1] / 2], [0, 1, -crop[0] / 2], [0, 0, 1]])
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    stretch = np.diag([zoom_x * (-1 if mirror[0] else 1), zoom_y * (-1 if mirror[1] else 1), 1])
    place = np.array([[1, 0, corner[1] + window[1] / 2], [0, 1, corner[0] + window[0] / 2], [0, 0, 1]])
    return (place @ turn @ stretch @ centre)[:2]


def _warp(
    picture: Image.Image, geometry: Geometry, resampling: Image.Resampling, fill: int | float | tuple[int, ...]
) -> Image.Image:
    height, width = geometry.size
    if geometry.box is None:
        data = tuple(geometry.matrix.ravel().tolist())
        return picture.transform((width, height), Image.Transform.AFFINE, data, resampling, fillcolor=fill)
    # An upright part is resized: `resize` averages when it shrinks, where `transform` would skip pixels.
    part = picture.resize((width, height), resampling, box=geometry.box)
    for flip, axis in zip(geometry.mirror, ("FLIP_LEFT_RIGHT", "FLIP_TOP_BOTTOM"), strict=True):
        part = part.transpose(Image.Transpose[axis]) if flip else part
    return part


def _typed(fill: NDArray[np.float64], dtype: np.dtype) -> list[int | float]:
    return [int(value + 0.5) if dtype == np.uint8 else float(value) for value in fill]
