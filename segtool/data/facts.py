"""What one pass over the files tells: a small record for each image and mask, for `check` and `init`.

Nothing is raised for a bad file; its record carries the reason. Colours are packed into integers, 0xRRGGBB, so that
grey values, palette indices and colours are counted alike.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from segtool.data.codes import pack, unpack
from segtool.data.images import IMAGE_FORMATS, image_size, read_image
from segtool.data.masks import StoredMask, read_mask
from segtool.data.opening import open_image, read_orientation, shown
from segtool.errors import DataError

Facts = TypeVar("Facts")
Progress = Callable[[int, int], None]


def _empty() -> np.ndarray:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class ImageFacts:
    """One image; where `error` is set, nothing else is known."""

    path: Path
    error: str | None = None
    size: tuple[int, int] = (0, 0)
    """H, W as the training sees it, orientation applied where the config says so."""
    mode: str = ""
    """Pillow's name of the stored pixel format."""
    orientation: int = 1
    """EXIF orientation, 1 where there is none."""
    digest: str = ""
    """Hash of the decoded pixels: equal pictures have equal digests, whatever their names and formats."""


@dataclass(frozen=True)
class MaskFacts:
    """One mask; where `error` is set, nothing else is known."""

    path: Path
    error: str | None = None
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    """Pillow's name of the stored pixel format."""
    lossy: bool = False
    """Stored as JPEG."""
    colored: bool = False
    """`values` are packed colours."""
    palette: bytes | None = None
    values: np.ndarray = field(default_factory=_empty)
    """The distinct stored values, ascending."""
    counts: np.ndarray = field(default_factory=_empty)
    """Pixels of each value."""
    solid: np.ndarray = field(default_factory=_empty)
    """Number of 2x2 blocks of each value: near `counts` for areas, near 0 for noise and for the grey of soft edges."""

    def stored(self, values: np.ndarray) -> StoredMask:
        """Returns a mask of one row with these (packed) values, in this mask's mode and palette."""
        row = unpack(values[None]) if self.colored else values[None]
        return StoredMask(row, self.mode, self.palette, self.lossy)


def look_at_all(
    paths: Iterable[Path], look: Callable[[Path], Facts], progress: Progress | None = None
) -> dict[Path, Facts]:
    """Returns `look(path)` for each path, computed by threads (decoding releases the interpreter lock).

    Args:
        progress: called with the number of files done and their total after each.
    """
    known = list(dict.fromkeys(paths))
    found: dict[Path, Facts] = {}
    pool = ThreadPoolExecutor(num_threads())
    try:
        for path, facts in zip(known, pool.map(look, known), strict=True):
            found[path] = facts
            if progress:
                progress(len(found), len(known))
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def num_threads() -> int:
    """Returns the number of processors, no more than OMP_NUM_THREADS where that is set."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    count = os.cpu_count() or 1
    return min(count, int(limit)) if limit.isdigit() and int(limit) > 0 else count


def look_at_image(path: Path, *, channels: int, exif: str, max_pixels: int) -> ImageFacts:
    """Returns the facts of an image after decoding all of it."""
    try:
        pixels = read_image(path, channels=channels, exif=exif, max_pixels=max_pixels)
        mode, orientation = read_header(path, max_pixels=max_pixels)
    except DataError as error:
        return ImageFacts(path, error=reason(error, path))
    digest = hashlib.blake2b(repr((pixels.shape, pixels.dtype.str)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return ImageFacts(path, None, pixels.shape[:2], mode, orientation, digest.hexdigest())


def look_at_header(path: Path, *, exif: str, max_pixels: int) -> ImageFacts:
    """Returns the facts of an image that its header tells; the digest is empty."""
    try:
        size = image_size(path, exif=exif, max_pixels=max_pixels)
        mode, orientation = read_header(path, max_pixels=max_pixels)
    except DataError as error:
        return ImageFacts(path, error=reason(error, path))
    return ImageFacts(path, None, size, mode, orientation)


def look_at_mask(path: Path, *, max_pixels: int) -> MaskFacts:
    """Returns the facts of a mask, its histogram included."""
    try:
        stored = read_mask(path, max_pixels=max_pixels)
    except DataError as error:
        return MaskFacts(path, error=reason(error, path))
    colored = stored.values.ndim == 3
    plain = pack(stored.values) if colored else stored.values
    values, counts, solid = histogram(plain)
    height, width = plain.shape
    kind = (stored.mode, stored.lossy, colored, stored.palette)
    return MaskFacts(path, None, (height, width), *kind, values, counts, solid)


def histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the distinct values of an H W array, their pixels and their 2x2 blocks, as int64."""
    here = values[:-1, :-1]
    same = (here == values[1:, :-1]) & (here == values[:-1, 1:]) & (here == values[1:, 1:])
    distinct, counts = _count(values.ravel())
    block_values, block_counts = _count(here[same])
    solid = np.zeros_like(counts)
    solid[np.searchsorted(distinct, block_values)] = block_counts
    return distinct, counts, solid


def _count(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if values.dtype == np.uint8:
        counts = np.bincount(values, minlength=256)
        distinct = counts.nonzero()[0]
        return distinct.astype(np.int64), counts[distinct].astype(np.int64)
    distinct, counts = np.unique(values, return_counts=True)
    return distinct.astype(np.int64), counts.astype(np.int64)


def read_header(path: Path, *, max_pixels: int) -> tuple[str, int]:
    """Returns mode and EXIF orientation of an image that the reader has accepted."""
    with open_image(path, formats=IMAGE_FORMATS, max_pixels=max_pixels) as opened:
        return opened.image.mode, read_orientation(opened)


def reason(error: DataError, path: Path) -> str:
    """Returns an error's message without the path at its front."""
    return str(error).removeprefix(f"{shown(path)}: ")
