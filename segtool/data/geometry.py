"""Where a training crop lies in its image, drawn at random: all of an augmentation's geometry as one map.

It maps the pixels of the crop to places in the stored image. An upright window is a rectangle of whole pixels that
becomes one of whole pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segtool.config import Augment

SPACING = 64  # pixels of the crop between two control points of an elastic deformation


@dataclass(frozen=True)
class Upright:
    """A rectangle of the image that becomes one of the crop, each as its rows and columns."""

    source: tuple[slice, slice]
    target: tuple[slice, slice]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in the crop."""
        rows, columns = self.target
        return rows.stop - rows.start, columns.stop - columns.start


@dataclass(frozen=True)
class Geometry:
    """Where the crop lies in the image: `source = matrix @ (x, y, 1)` with pixel centres at half-integers.

    `upright` is what of the image becomes what of the crop where nothing is turned or bent, else None.
    `places` are the x and y in the image that each pixel of the crop is read at, 2 H W, where an elastic deformation
    has moved them away from the matrix's, else None.
    """

    size: tuple[int, int]
    matrix: NDArray[np.float64]
    mirror: tuple[bool, bool] = (False, False)
    upright: Upright | None = None
    places: NDArray[np.float32] | None = None

    @property
    def within(self) -> bool:
        """Whether the image surely reaches everywhere."""
        return self.upright is not None and self.upright.size == self.size


def draw_geometry(
    rng: np.random.Generator,
    image_size: tuple[int, int],
    crop: tuple[int, int],
    augment: Augment,
    *,
    centre: tuple[float, float] | None = None,
) -> Geometry:
    """Returns a random geometry for an image of `image_size` (H W), giving a crop of `crop` (H W) pixels.

    The window lies within the image where it fits, and covers it where it does not. An upright one is rounded to whole
    pixels.

    Args:
        centre: y and x in the image that the window's centre is to be as near to as that allows; None: anywhere.
    """
    low, high = augment.scale
    zoom = math.exp(rng.uniform(math.log(low), math.log(high)))
    angle = math.radians(rng.uniform(-augment.rotate, augment.rotate)) if augment.rotate else 0.0
    across, down = (augment.flip in (axis, "both") and rng.random() < 0.5 for axis in ("horizontal", "vertical"))
    mirror = across, down
    window = [side / zoom for side in crop]
    slack = [whole - part for whole, part in zip(image_size, window, strict=True)]
    if centre is None:
        top, left = (rng.uniform(min(over, 0.0), max(over, 0.0)) for over in slack)
    else:
        wanted = [at - part / 2 for at, part in zip(centre, window, strict=True)]
        top, left = (min(max(at, min(over, 0.0)), max(over, 0.0)) for at, over in zip(wanted, slack, strict=True))
    if not angle and not augment.elastic:
        return _upright(image_size, crop, window, (top, left), mirror)
    matrix = _affine(crop, window, (top, left), angle, mirror)
    places = _bent(matrix, draw_displacement(rng, crop, augment.elastic)) if augment.elastic else None
    return Geometry(crop, matrix, mirror, places=places)


def draw_displacement(rng: np.random.Generator, crop: tuple[int, int], deviation: float) -> NDArray[np.float32]:
    """Returns a smooth random displacement in x and y of each pixel of the crop, 2 H W, in its pixels.

    At control points `SPACING` pixels apart, from the upper left corner on, it is normal with this deviation; in
    between it is interpolated bicubically.

    Source: Ronneberger, Fischer and Brox, U-Net (2015), section 3.1, with control points at a fixed distance in place
    of 3 x 3. Keys, Cubic Convolution Interpolation (1981), with a = -1/2.
    """
    height, width = crop
    rows, columns = (-(-side // SPACING) + 3 for side in crop)
    # One more row and column on each side: four points along each axis have a part in each pixel.
    box = (1.5, 1.5, 1.5 + width / SPACING, 1.5 + height / SPACING)
    points = rng.normal(0, deviation, size=(2, rows, columns)).astype(np.float32)
    planes = [Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC, box=box) for plane in points]
    return np.stack([np.asarray(plane) for plane in planes])


def _upright(
    image_size: tuple[int, int],
    crop: tuple[int, int],
    window: list[float],
    corner: tuple[float, float],
    mirror: tuple[bool, bool],
) -> Geometry:
    """Returns the geometry of an upright window, rounded to whole pixels."""
    rows, columns = (
        _paired(*axis) for axis in zip(image_size, crop, window, corner, (mirror[1], mirror[0]), strict=True)
    )
    matrix = np.zeros((2, 3))
    for axis, (source, target), mirrored in ((0, columns, mirror[0]), (1, rows, mirror[1])):
        step = (source.stop - source.start) / (target.stop - target.start)
        matrix[axis, axis] = -step if mirrored else step
        matrix[axis, 2] = source.stop + target.start * step if mirrored else source.start - target.start * step
    return Geometry(crop, matrix, mirror, Upright((rows[0], columns[0]), (rows[1], columns[1])))


def _paired(whole: int, crop: int, window: float, start: float, mirrored: bool) -> tuple[slice, slice]:
    """Returns along one axis the pixels of the image that a window holds, and the pixels of the crop they become."""
    if window <= whole:
        length = min(max(round(window), 1), whole)
        first = min(round(start), whole - length)
        return slice(first, first + length), slice(0, crop)
    length = min(max(round(whole / window * crop), 1), crop)
    first = min(round(-start / window * crop), crop - length)
    first = crop - length - first if mirrored else first
    return slice(0, whole), slice(first, first + length)


def _affine(
    crop: tuple[int, int], window: list[float], corner: tuple[float, float], angle: float, mirror: tuple[bool, bool]
) -> NDArray[np.float64]:
    zoom_y, zoom_x = window[0] / crop[0], window[1] / crop[1]
    centre = np.array([[1, 0, -crop[1] / 2], [0, 1, -crop[0] / 2], [0, 0, 1]])
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    stretch = np.diag([zoom_x * (-1 if mirror[0] else 1), zoom_y * (-1 if mirror[1] else 1), 1])
    place = np.array([[1, 0, corner[1] + window[1] / 2], [0, 1, corner[0] + window[0] / 2], [0, 0, 1]])
    return (place @ turn @ stretch @ centre)[:2]


def _bent(matrix: NDArray[np.float64], displacement: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the x and y in the image at which the displaced pixels of the crop lie, 2 H W."""
    _, height, width = displacement.shape
    x = displacement[0] + (np.arange(width, dtype=np.float32) + 0.5)
    y = displacement[1] + (np.arange(height, dtype=np.float32) + 0.5)[:, None]
    rows = matrix.astype(np.float32)
    return np.stack([xx * x + (xy * y + start) for xx, xy, start in rows])
