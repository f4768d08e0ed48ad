"""The one reader of images: a closed list of formats and modes, and an error for everything else."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from segtool.data.opening import (
    UNKNOWN_MODE,
    Opened,
    guarded,
    load_pixels,
    open_image,
    photometric,
    read_orientation,
    sample_format,
)
from segtool.data.spool import release, spooled
from segtool.errors import DataError, shown

IMAGE_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WebP")
IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".dib", ".webp"))
"""Names that are taken for images when a folder is searched, in lower case."""

SPOOL_PIXELS = 2**25
"""Images of more pixels (100 MB in colour) go into a temporary file, where nothing else is asked for."""
BAND_PIXELS = 2**20
"""As many are taken from Pillow at a time: an image of more is never held there and as bytes and as an array."""

INVERSE_ORIENTATION = {6: 8, 8: 6}
"""Orientations whose turn another one takes back; the others take back their own."""


def read_image(
    path: Path, *, channels: int, exif: str = "apply", max_pixels: int, spool_pixels: int = SPOOL_PIXELS
) -> np.ndarray:
    """Returns the image as H W C, writable and contiguous.

    uint8, or float32 in 0..255 where the file holds 16 bits (`value * 255 / 65535`, nothing clipped, the scale
    independent of the content).

    Args:
        channels: 1 (colour becomes ITU-R 601 luminance), 3 (grey becomes three equal channels), 4 (with alpha, 255
            where the file has none); any number for a TIFF that stores just that many samples.
        exif: What becomes of an orientation tag: `apply`, `ignore` or `error`.
        max_pixels: The limit on height times width, checked before the pixels are decoded.
        spool_pixels: An 8-bit image of more pixels lies in a temporary file instead of memory.

    Raises:
        DataError: a file that cannot be read, or a format or mode that has no place above. Alpha that is not opaque is
            refused where `channels` has no room for it.
    """
    with open_image(path, formats=IMAGE_FORMATS, max_pixels=max_pixels) as opened:
        orientation = read_orientation(opened) if exif != "ignore" or opened.format == "TIFF" else 1
        if exif == "error" and orientation != 1:
            raise DataError(
                f"{shown(path)}: EXIF orientation {orientation}, but data.exif is 'error'; save the image upright, or "
                f"set data.exif to apply (as a viewer shows it) or ignore (the stored grid)"
            )
        upright = exif != "ignore"
        pixels = read_opened(
            opened, channels=channels, orientation=orientation, upright=upright, spool_pixels=spool_pixels
        )
    return np.require(pixels, requirements=["C", "W"])


def read_views(
    path: Path, channels: Sequence[int], *, exif: str, max_pixels: int, spool_pixels: int = SPOOL_PIXELS
) -> np.ndarray:
    """Returns an image as H W C, read (`read_image`) once for each number of channels, one after the other along C."""
    read = partial(read_image, path, exif=exif, max_pixels=max_pixels, spool_pixels=spool_pixels)
    views = [read(channels=count) for count in channels]
    return views[0] if len(views) == 1 else np.concatenate(views, axis=2)


def read_opened(
    opened: Opened, *, channels: int, orientation: int, upright: bool = True, spool_pixels: int = SPOOL_PIXELS
) -> np.ndarray:
    """Returns an image that is opened as H W C, perhaps a view, as `read_image` does.

    Args:
        orientation: The one that its file tells, 1 to 8.
        upright: Apply it.
    """
    if opened.format == "TIFF" and (not has_usual_samples(opened) or channels not in (1, 3, 4)):
        pixels = _read_samples(opened, channels)
    else:
        pixels = _to_channels(opened, channels, spool_pixels)
        if opened.format == "TIFF":  # Pillow has applied it while decoding
            pixels = apply_orientation(pixels, INVERSE_ORIENTATION.get(orientation, orientation))
    return apply_orientation(pixels, orientation) if upright else pixels


def image_size(path: Path, *, exif: str = "apply", max_pixels: int) -> tuple[int, int]:
    """Returns height and width as `read_image` would give them, from the header alone.

    Raises:
        DataError: the file cannot be opened, is of no accepted format, or has more than `max_pixels` pixels.
    """
    with open_image(path, formats=IMAGE_FORMATS, max_pixels=max_pixels) as opened:
        width, height = opened.image.size
        if opened.format == "TIFF":  # Pillow gives the size of the upright image
            turned = read_orientation(opened) >= 5 and exif == "ignore"
        else:
            turned = exif != "ignore" and read_orientation(opened) >= 5
    return (width, height) if turned else (height, width)


def value_bytes(path: Path, *, max_pixels: int) -> int:
    """Returns the bytes of each value of `read_image`: 4 where the file has 16 bits, else 1. Raises as `image_size`."""
    with open_image(path, formats=IMAGE_FORMATS, max_pixels=max_pixels) as opened:
        return 4 if opened.bits == 16 else 1


def apply_orientation(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Returns H W (C) pixels turned upright; a view.

    Source: Exif 2.32, tag 0x0112: where the stored first row and first column lie in the upright picture.
    """
    if orientation in (2, 3, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7):
        pixels = pixels[::-1]
    if orientation in (5, 7):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (6, 8):
        pixels = np.rot90(pixels, k=-1 if orientation == 6 else 1)
    return pixels


def _to_channels(opened: Opened, channels: int, spool_pixels: int) -> np.ndarray:
    if channels not in (1, 3, 4):
        raise DataError(
            f"{shown(opened.path)}: {opened.format} with {opened.samples} samples a pixel, but data.channels is "
            f"{channels}; only a TIFF holds that many: set data.channels to 1, 3 or 4"
        )
    _refuse_inexact(opened)
    image = load_pixels(opened)
    if image.mode.startswith("I;16"):
        return _spread(_scale_16(np.asarray(image)), channels)
    return _spread_8(_with_alpha_shown(image, opened), channels, opened, spool_pixels)


def _refuse_inexact(opened: Opened) -> None:
    """Raises DataError for what Pillow would reduce or reinterpret without a word."""
    mode, remedy = opened.image.mode, "save it as 8-bit RGB or grey, or as 16-bit grey"
    found = ""
    if opened.format == "PNG" and opened.bits == 16 and opened.samples > 1:
        found = {2: "16-bit grey with alpha", 3: "16-bit RGB", 4: "16-bit RGBA"}[opened.samples]
    elif mode.startswith("I;16") and opened.image.info.get("transparency") is not None:
        found = "16-bit grey with a transparent value"
    elif mode in ("I", "F", UNKNOWN_MODE):
        kind = "floating-point" if sample_format(opened) == 3 else "integer"
        found = f"{opened.bits}-bit {kind} samples (mode {mode})"
    elif opened.format == "TIFF" and sample_format(opened) != 1:
        found = "signed 8-bit samples"
    elif mode.startswith("I;16") and (opened.bits != 16 or photometric(opened) == 0):
        found = f"{opened.bits}-bit grey TIFF" + (" with white as zero" if photometric(opened) == 0 else "")
    elif mode == "CMYK":
        found, remedy = "CMYK", "convert it to RGB with its colour profile (any image editor does)"
    elif mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA") and not mode.startswith("I;16"):
        found = f"mode {mode}"
    if found:
        raise DataError(f"{shown(opened.path)}: {opened.format}, {found}, cannot be read exactly; {remedy}")


def _with_alpha_shown(image: Image.Image, opened: Opened) -> Image.Image:
    """Returns the image in mode L, LA, RGB or RGBA: palettes expanded, transparency as an alpha channel."""
    transparent = image.info.get("transparency") is not None
    target = {"1": "L", "La": "LA", "P": "RGB", "PA": "RGBA"}.get(image.mode, image.mode)
    if transparent and target in ("L", "RGB"):
        if image.mode == "L":  # Pillow converts L with transparency by way of LA only
            image = guarded(opened.path, lambda: image.convert("RGBA"))
            return guarded(opened.path, lambda: image.convert("LA"))
        target = "RGBA"
    return image if target == image.mode else guarded(opened.path, lambda: image.convert(target))


def _spread_8(image: Image.Image, channels: int, opened: Opened, spool_pixels: int) -> np.ndarray:
    target = {1: "L", 3: "RGB"}.get(channels, "RGBA")
    alpha = image.getchannel("A") if channels < 4 and image.mode in ("LA", "RGBA") else None
    if alpha and (veiled := alpha.width * alpha.height - alpha.histogram()[255]):
        raise DataError(
            f"{shown(opened.path)}: {veiled:,} pixels are not opaque, but data.channels is {channels}; set "
            "data.channels to 4 to train on the alpha channel too, or flatten the image onto a background"
        )
    return _pixels(image, target, spool_pixels)


def _pixels(image: Image.Image, mode: str, spool_pixels: int) -> np.ndarray:
    """Returns an image as H W C in a mode; a large one by bands of rows."""
    count = image.width * image.height
    if count <= BAND_PIXELS:
        return np.atleast_3d(np.asarray(_in_mode(image, mode)))
    shape = image.height, image.width, len(mode)
    pixels = spooled(shape) if count > spool_pixels else np.empty(shape, np.uint8)
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        pixels[top : top + rows] = np.atleast_3d(np.asarray(_in_mode(band, mode)))
        release(pixels)
    return pixels


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)


def _scale_16(values: np.ndarray) -> np.ndarray:
    # value * 255 is below 2**24, so float32 holds it exactly and the quotient is rounded once.
    return values.astype(np.float32) * np.float32(255) / np.float32(65535)


def _spread(grey: np.ndarray, channels: int) -> np.ndarray:
    pixels = np.repeat(grey[..., None], channels, axis=2)
    if channels == 4:
        pixels[..., 3] = 255
    return pixels


def has_usual_samples(opened: Opened) -> bool:
    """Whether Pillow reads all of a TIFF: it drops a fourth sample but alpha, and cuts colour to 8 bits."""
    if opened.format != "TIFF":
        return True
    extra = getattr(opened.image, "tag_v2", {}).get(TiffImagePlugin.EXTRASAMPLES, ())
    extra = extra if isinstance(extra, tuple) else (extra,)
    alpha = len(extra) == 1 and extra[0] in (1, 2)
    colors = {2: 3, 5: 4, 6: 3, 8: 3}.get(photometric(opened), 1)
    return opened.samples == colors + alpha and (opened.samples == 1 or opened.bits <= 8)


def _read_samples(opened: Opened, channels: int) -> np.ndarray:
    """Returns a TIFF's samples as they are, H W C; the count must be `channels`."""
    where = shown(opened.path)
    if opened.samples != channels:
        raise DataError(
            f"{where}: TIFF with {opened.samples} samples of {opened.bits} bits a pixel, but data.channels is "
            f"{channels}; set data.channels to {opened.samples}, or keep the channels that you want"
        )
    if opened.bits not in (8, 16) or sample_format(opened) != 1:
        kind = {1: "whole-number", 3: "floating-point"}.get(sample_format(opened), "signed")
        raise DataError(
            f"{where}: TIFF with {kind} samples of {opened.bits} bits, expected whole numbers of 8 or 16 bits from 0; "
            "save it so"
        )
    try:
        import tifffile
    except ImportError as error:
        raise DataError(
            f"{where}: TIFF with {opened.samples} samples of {opened.bits} bits a pixel needs tifffile; "
            f"install it with: pip install 'segtool[tiff]'"
        ) from error
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs to stderr what it raises as well
    values = guarded(opened.path, lambda: _first_page(tifffile, opened.path))
    if values.ndim != 3 or values.shape[2] != channels or values.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{where}: TIFF of {values.dtype} with shape {values.shape}, expected height x width x {channels} of "
            f"uint8 or uint16; save it so"
        )
    return values if values.dtype == np.uint8 else _scale_16(values)


def _first_page(tifffile: Any, path: Path) -> np.ndarray:
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        values = page.asarray()
        return np.moveaxis(values, 0, -1) if page.axes == "SYX" else values
