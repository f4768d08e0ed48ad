"""Random changes of a crop's colours: what a camera, its exposure and its files do to a picture, never its shape.

Images are H W C, uint8 or float32 in 0..255, and come back as the same. The fourth of four channels is alpha, which
says where there is a picture and has no colour: all of these leave it as it is.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segtool.config import Augment
from segtool.errors import DataError, shown

# Luminance of ITU-R BT.601, as Pillow's conversion to grey has it.
LUMINANCE = np.array([0.299, 0.587, 0.114])
JPEG_CHANNELS = (1, 3)

Strength = TypeVar("Strength")
Change = Callable[[NDArray, np.random.Generator, Strength], NDArray]


def mean_color(image: NDArray) -> NDArray[np.float64]:
    """Returns the mean of each channel of an image H W C, as float64.

    NumPy's `mean` converts each value first: of an RGB crop of 352 x 480 it takes 3.7 ms, this 0.15.
    """
    wide = np.uint32 if image.dtype == np.uint8 else np.float64
    return image.sum(0, dtype=wide).sum(0, dtype=np.float64) / (image.shape[0] * image.shape[1])


def change_colors(image: NDArray, rng: np.random.Generator, augment: Augment) -> NDArray:
    """Returns the image after the changes that are on, in the order in which they come about; one that is off draws
    nothing."""
    if augment.color or augment.hue or augment.tint:
        image = jitter_color(image, rng, augment)
    if augment.gamma:
        image = jitter_gamma(image, rng, augment.gamma)
    if augment.blur:
        image = jitter_focus(image, rng, augment.blur)
    if augment.noise:
        image = add_noise(image, rng, augment.noise)
    if augment.jpeg is not None:
        image = compress(image, rng, augment.jpeg)
    return image


def _sparing_alpha(change: Change[Strength]) -> Change[Strength]:
    @functools.wraps(change)
    def changed(image: NDArray, rng: np.random.Generator, strength: Strength) -> NDArray:
        if image.shape[2] != 4:
            return change(image, rng, strength)
        colors = np.ascontiguousarray(image[..., :3])
        return np.concatenate([change(colors, rng, strength), image[..., 3:]], axis=2)

    return changed


@_sparing_alpha
def jitter_color(image: NDArray, rng: np.random.Generator, augment: Augment) -> NDArray:
    """Returns the image with brightness, contrast and saturation changed, the hue turned and the white shifted.

    Contrast is about the crop's own mean luminance; saturation mixes RGB with its luminance. All of it is one matrix.
    """
    channels = image.shape[2]
    grey = LUMINANCE if channels == 3 else np.full(channels, 1 / channels)
    matrix, shift = np.eye(channels), np.zeros(channels)
    if augment.color:
        brightness, contrast, saturation = rng.uniform(1 - augment.color, 1 + augment.color, size=3)
        if channels == 3:
            matrix = saturation * matrix + (1 - saturation) * LUMINANCE[None, :]
        matrix = contrast * brightness * matrix
        shift += (1 - contrast) * brightness * float(mean_color(image) @ grey)
    if augment.hue and channels == 3:
        matrix = hue_matrix(math.radians(rng.uniform(-augment.hue, augment.hue))) @ matrix
    if augment.tint and channels > 1:
        gains = rng.uniform(1 - augment.tint, 1 + augment.tint, size=channels)
        gains /= gains @ grey
        matrix, shift = gains[:, None] * matrix, gains * shift
    if image.dtype == np.uint8 and channels == 3:
        rows = np.column_stack([matrix, shift])
        return np.asarray(Image.fromarray(image).convert("RGB", tuple(rows.ravel().tolist())))
    return _stored(image @ matrix.T + shift, image.dtype)


def hue_matrix(angle: float) -> NDArray[np.float64]:
    """Returns the 3 3 matrix that turns the hue of RGB by an angle in radians, in the plane of equal luminance.

    The plane is that of U and V, ITU-R BT.601: U = 0.492 (B - Y), V = 0.877 (R - Y). Grey stays as it is.
    """
    blue, red = np.eye(3)[2] - LUMINANCE, np.eye(3)[0] - LUMINANCE
    yuv = np.stack([LUMINANCE, 0.492 * blue, 0.877 * red])
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.linalg.inv(yuv) @ np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) @ yuv


@_sparing_alpha
def jitter_gamma(image: NDArray, rng: np.random.Generator, strength: float) -> NDArray:
    """Returns 255 (v / 255)^g of each value v, with one g between 1 / (1 + s) and 1 + s, drawn log-uniformly."""
    limit = math.log1p(strength)
    exponent = math.exp(rng.uniform(-limit, limit))
    if image.dtype == np.uint8:
        table = _stored(255 * (np.arange(256) / 255) ** exponent, image.dtype)
        return np.frombuffer(bytearray(image).translate(table.tobytes()), np.uint8).reshape(image.shape)
    return _stored(255 * (image / 255) ** exponent, image.dtype)


@_sparing_alpha
def jitter_focus(image: NDArray, rng: np.random.Generator, largest: float) -> NDArray:
    """Returns the image blurred with a standard deviation of 0 to `largest` pixels."""
    return blur(image, rng.uniform(0, largest))


@_sparing_alpha
def add_noise(image: NDArray, rng: np.random.Generator, largest: float) -> NDArray:
    """Returns the image with Gaussian noise of its own in each value, of a standard deviation of 0 to 255 `largest`."""
    deviation = np.float32(255 * rng.uniform(0, largest))
    return _stored(image + deviation * rng.standard_normal(image.shape, dtype=np.float32), image.dtype)


def require_jpeg_holds(image: NDArray, path: Path, augment: Augment) -> None:
    """Raises DataError where an image has 16 bits and artefacts of JPEG are asked for."""
    if augment.jpeg is not None and image.dtype != np.uint8:
        raise DataError(f"{shown(path)}: 16 bits a pixel, which no JPEG file holds; set augment.jpeg: null")


def compress(image: NDArray, rng: np.random.Generator, lowest: float) -> NDArray:
    """Returns a uint8 image of 1 or 3 channels as a JPEG file of quality `lowest` to 100 keeps it.

    The file is as most programs write it: of RGB the colour has half the resolution.
    """
    assert image.dtype == np.uint8, "who reads the images refuses 16 bits"
    assert image.shape[2] in JPEG_CHANNELS, "a rule of the config refuses other channels"
    quality = int(rng.integers(int(lowest), 100, endpoint=True))
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(image.shape)


def blur(image: NDArray, deviation: float) -> NDArray:
    """Returns the image convolved with a Gaussian sampled at whole pixels and cut at 4 deviations; edges are repeated.

    Computed along one axis, then the other. Pillow's GaussianBlur, three box filters, is up to 19 of 255 off where the
    deviation is below half a pixel, rounds in between, and takes no floats. An RGB crop of 288 x 384 takes 2 to 9 ms
    for 0.3 to 4 pixels here, 5 ms there.
    """
    reach = int(4 * deviation + 0.5)
    if reach == 0:
        return image
    weights = np.exp(-0.5 * (np.arange(reach + 1) / deviation) ** 2)
    weights = (weights / (weights[0] + 2 * weights[1:].sum())).astype(np.float32)
    blurred = image.astype(np.float32)
    for axis in (0, 1):
        length = blurred.shape[axis]
        padding = [(reach, reach) if i == axis else (0, 0) for i in range(3)]
        lines = np.moveaxis(np.pad(blurred, padding, mode="edge"), axis, 0)
        total = weights[0] * lines[reach : reach + length]
        for away in range(1, reach + 1):
            before, after = reach - away, reach + away
            total += weights[away] * (lines[before : before + length] + lines[after : after + length])
        blurred = np.moveaxis(total, 0, axis)
    return _stored(blurred, image.dtype)


def _stored(values: NDArray[np.floating], dtype: np.dtype) -> NDArray:
    """Returns values as an image holds them: within 0..255, rounded where it is uint8."""
    clipped = values.clip(0, 255)
    return (clipped + 0.5).astype(np.uint8) if dtype == np.uint8 else clipped.astype(np.float32, copy=False)
