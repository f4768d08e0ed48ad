"""Augmentation: what becomes of an image and its mask on the way to a training crop, as a function of a generator.

All geometry is one resampling. It maps the pixels of the crop to places in the stored image: the image is read there
bilinearly, the mask at the nearest pixel; where a place lies outside the image the mask is IGNORE and the image has the
fill colour. Colours change after it (`photometry`), and a rectangle is erased last.

An upright window is a rectangle of whole pixels that is resized to one of whole pixels, so that what is not zoomed is
copied, and what shrinks is averaged.

What is off draws nothing from the generator, so that a new option leaves the crops of old configs as they were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from segtool.config import Augment
from segtool.data.codes import IGNORE
from segtool.data.photometry import change_colors, mean_color

SPACING = 64  # pixels of the crop between two control points of an elastic deformation
LONGEST_SIDE = 3  # of an erased rectangle, in lengths of its shorter one


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

    def covers(self, crop: tuple[int, int]) -> bool:
        """Whether it is all of a crop of this height and width."""
        return self.size == crop


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
        return self.upright is not None and self.upright.covers(self.size)


def augment_pair(
    image: NDArray,
    target: NDArray[np.uint8],
    rng: np.random.Generator,
    *,
    crop: tuple[int, int],
    augment: Augment,
    class_pixels: Sequence[int] | None = None,
) -> tuple[NDArray, NDArray[np.uint8]]:
    """Returns the crop of an image H W C and its class indices H W that training sees.

    Args:
        crop: Height and width in pixels.
        class_pixels: Pixels of each class in the training masks, which `augment.rare` needs.

    Raises:
        TypeError: the two are no arrays of these types and of one size, of which one could be moved without the other.
    """
    _require_pair(image, target)
    centre = None
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
    crop[0] = _typed(fill, image.dtype)
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
    image[rectangle] = _typed(mean_color(image), image.dtype)
    target[rectangle] = IGNORE
    return image, target


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
    crop: tuple[int, int],
    window: list[float],
    corner: tuple[float, float],
    angle: float,
    mirror: tuple[bool, bool],
) -> NDArray[np.float64]:
    zoom_y, zoom_x = window[0] / crop[0], window[1] / crop[1]
    centre = np.array([[1, 0, -crop[1] / 2], [0, 1, -crop[0] / 2], [0, 0, 1]])
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    stretch = np.diag([zoom_x * (-1 if mirror[0] else 1), zoom_y * (-1 if mirror[1] else 1), 1])
    place = np.array([[1, 0, corner[1] + window[1] / 2], [0, 1, corner[0] + window[0] / 2], [0, 0, 1]])
    return (place @ turn @ stretch @ centre)[:2]


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
    colors = _typed(fill, image.dtype)
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


def _bent(matrix: NDArray[np.float64], displacement: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the x and y in the image at which the displaced pixels of the crop lie, 2 H W."""
    _, height, width = displacement.shape
    x = displacement[0] + (np.arange(width, dtype=np.float32) + 0.5)
    y = displacement[1] + (np.arange(height, dtype=np.float32) + 0.5)[:, None]
    rows = matrix.astype(np.float32)
    return np.stack([xx * x + (xy * y + start) for xx, xy, start in rows])


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
    crop = read[0].numpy().transpose(1, 2, 0)
    crop = (crop + np.float32(0.5)).astype(np.uint8, order="C") if image.dtype == np.uint8 else crop.copy()
    crop[~_inside(places, size)] = _typed(fill, image.dtype)
    return crop


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


def _typed(fill: NDArray[np.float64], dtype: np.dtype) -> list[int | float]:
    return [int(value + 0.5) if dtype == np.uint8 else float(value) for value in fill]
