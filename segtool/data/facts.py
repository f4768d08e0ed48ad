"""What one pass over the files tells: a small record for each image and mask, for `check` and `init`.

Nothing is raised for a bad file; its record carries the reason. Colours are packed into integers, 0xRRGGBB, so that
grey values, palette indices and colours are counted alike. `look_at_files` looks at nothing twice: what it finds
depends on the file alone, and is kept (`fact_cache`).
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from segtool.data.codes import pack, unpack
from segtool.data.fact_cache import FactCache, decode, encode
from segtool.data.images import IMAGE_FORMATS, has_usual_samples, read_image, read_opened
from segtool.data.masks import StoredMask, read_mask
from segtool.data.opening import Opened, open_image, read_orientation
from segtool.data.outline import outline_map, picture_maps
from segtool.data.specks import count_specks
from segtool.data.user_cache import Stamp, stamp
from segtool.errors import DataError, shown
from segtool.system.allocator import keep_freed_memory
from segtool.system.pools import each_in_processes

Facts: TypeAlias = "ImageFacts | MaskFacts"
Progress = Callable[[int, int], None]

KEPT_EVERY = 2.0  # seconds after which facts are entered into the cache, so that what is interrupted is not lost


def _empty() -> np.ndarray:
    return np.empty(0, np.int64)


def _no_map() -> np.ndarray:
    return np.empty((0, 0), np.uint8)


@dataclass(frozen=True)
class ImageFacts:
    """One image; where `error` is set, nothing else is known."""

    path: Path
    error: str | None = None
    size: tuple[int, int] = (0, 0)
    """H, W of the upright picture, whatever the config says of orientations."""
    mode: str = ""
    """Pillow's name of the stored pixel format."""
    orientation: int = 1
    """EXIF orientation, 1 where there is none."""
    digest: str = ""
    """Hash of the decoded pixels: equal pictures have equal digests, whatever their names and formats."""
    channels: int = 0
    """1 of grey, 3 of colour, 4 where it is not opaque; of a TIFF with other samples, their number."""
    exact: bool = False
    """The reader takes no other `data.channels` for it."""
    plain: bool = False
    """All pixels are equal."""
    thumbnail: np.ndarray = field(default_factory=_no_map)
    """The upright picture in grey, 32 32 uint8 whatever its shape."""
    edges: np.ndarray = field(default_factory=_no_map)
    """Where the upright picture has edges, 32 32 uint8, the square root of the mean slope in each cell."""
    deep: bool = False
    """Has 16 bits a sample, so that it is read as float32."""


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
    specks: np.ndarray = field(default_factory=_empty)
    """Number of regions of up to 6 pixels of each value, diagonals connected; 0 where they are few at any rate."""
    outline: np.ndarray = field(default_factory=_no_map)
    """The share of pixels at an edge between values in each cell of a grid of 32 32, uint8, 255 all."""
    digest: str = ""
    """Hash of the stored values."""
    veiled: int = 0
    """As in `StoredMask`."""
    alpha_values: np.ndarray = field(default_factory=_empty)
    """The distinct levels of opacity, ascending; none where the file has no channel of it."""
    alpha_counts: np.ndarray = field(default_factory=_empty)
    """Pixels of each."""
    alpha_solid: np.ndarray = field(default_factory=_empty)
    """2x2 blocks of each."""
    step: int = 1
    """As in `StoredMask`."""

    def as_alpha(self) -> MaskFacts:
        """Returns the facts of the opacity in place of the values, in mode A; no values where there is none."""
        kept = {"values": self.alpha_values, "counts": self.alpha_counts, "solid": self.alpha_solid}
        return replace(self, mode="A", colored=False, palette=None, veiled=0, specks=_empty(), step=1, **kept)

    def seen_by(self, encoding: str) -> MaskFacts:
        """Returns the facts of what `data.encoding` looks at."""
        return self.as_alpha() if encoding == "alpha" else self

    def stored(self, values: np.ndarray) -> StoredMask:
        """Returns a mask of one row with these (packed) values, in this mask's mode and palette."""
        row = unpack(values[None]) if self.colored else values[None]
        alpha = row.astype(np.uint8) if self.mode == "A" and len(self.alpha_values) else None
        return StoredMask(row, self.mode, self.palette, self.lossy, alpha, self.veiled, self.step)


def look_at_images(paths: Iterable[Path], *, max_pixels: int) -> dict[Path, ImageFacts]:
    """Returns the facts of images, as `look_at_files`."""
    return look_at_files(paths, [], max_pixels=max_pixels)[0]


def look_at_masks(paths: Iterable[Path], *, max_pixels: int) -> dict[Path, MaskFacts]:
    """Returns the facts of masks, as `look_at_files`."""
    return look_at_files([], paths, max_pixels=max_pixels)[1]


def look_at_files(
    images: Iterable[Path], masks: Iterable[Path], *, max_pixels: int, progress: Progress | None = None
) -> tuple[dict[Path, ImageFacts], dict[Path, MaskFacts]]:
    """Returns the facts of images, upright (see `as_read` for a config's), and of masks.

    They are those in the cache, where it has them, else of a look on all processors; errors are never kept.

    Args:
        progress: Called with the number of files done and their total after each.
    """
    keep_freed_memory()  # a decoded file is as large as the last one: a third of the time goes to the kernel else
    wanted: list[tuple[type[Facts], Path]] = [(ImageFacts, path) for path in dict.fromkeys(images)]
    wanted += [(MaskFacts, path) for path in dict.fromkeys(masks)]

    def look(file: tuple[type[Facts], Path]) -> tuple[Stamp | None, bytes | Facts]:
        """Returns the stamp of a file and what is kept of it, or the facts themselves where it cannot be read."""
        kind, path = file
        mark = stamp(path)
        facts = (look_at_picture if kind is ImageFacts else look_at_mask)(path, max_pixels=max_pixels)
        return mark, facts if facts.error else encode(facts)

    fresh: list[tuple[type[Facts], Path, Stamp, bytes]] = []
    kept = time.monotonic()
    with FactCache() as cache:
        found = cache.recall(wanted)
        left = [file for file in wanted if file not in found]
        if progress:
            for count in range(1, len(found) + 1):
                progress(count, len(wanted))
        for file, (mark, entry) in zip(left, each_in_processes(look, left), strict=True):
            found[file] = decode(*file, entry) if isinstance(entry, bytes) else entry
            if mark and isinstance(entry, bytes):
                fresh.append((*file, mark, entry))
            if time.monotonic() - kept >= KEPT_EVERY:
                cache.keep(fresh)
                fresh.clear()
                kept = time.monotonic()
            if progress:
                progress(len(found), len(wanted))
        if left:
            cache.keep(fresh)
            cache.forget_vanished()
    of_images = {path: found[kind, path] for kind, path in wanted if kind is ImageFacts}
    return of_images, {path: found[kind, path] for kind, path in wanted if kind is MaskFacts}


def look_at_picture(path: Path, *, max_pixels: int) -> ImageFacts:
    """Returns the facts of an image after decoding all of it, whatever a config makes of it."""
    try:
        with open_image(path, formats=IMAGE_FORMATS, max_pixels=max_pixels) as opened:
            mode, orientation = opened.image.mode, read_orientation(opened)
            channels, exact = _channels(opened)
            pixels = read_opened(opened, channels=channels, orientation=orientation)
            if channels == 4 and not exact and bool((pixels[..., 3] == 255).all()):
                pixels = pixels[..., : 1 if mode in ("L", "LA", "La") else 3]
            picture = opened.image if _is_picture(opened, pixels, orientation) else None
            return look_at_pixels(path, pixels, picture, mode=mode, orientation=orientation, exact=exact)
    except DataError as error:
        return ImageFacts(path, error=reason(error, path))


def look_at_pixels(
    path: Path,
    pixels: np.ndarray,
    picture: Image.Image | None = None,
    *,
    mode: str = "",
    orientation: int = 1,
    exact: bool = False,
) -> ImageFacts:
    """Returns the facts of an upright image H W C; `picture`: as in `picture_maps`."""
    thumbnail, edges, plain = picture_maps(pixels, picture)
    kind = (pixels.shape[:2], mode, orientation, _digest(pixels, thumbnail), pixels.shape[2], exact, plain)
    return ImageFacts(path, None, *kind, thumbnail, edges, pixels.dtype != np.uint8)


def as_read(facts: ImageFacts, *, channels: int, exif: str, max_pixels: int) -> ImageFacts:
    """Returns the facts of an image under a config: its size on the grid of `data.exif`, and what the reader refuses.

    The maps stay upright.
    """
    height, width = facts.size
    if facts.exact:
        fits = channels == facts.channels
    else:
        fits = channels in (1, 3, 4) and (channels == 4 or facts.channels < 4)
    if facts.error or not fits or height * width > max_pixels or (exif == "error" and facts.orientation != 1):
        try:
            read_image(facts.path, channels=channels, exif=exif, max_pixels=max_pixels)
        except DataError as error:
            return ImageFacts(facts.path, error=reason(error, facts.path))
    turned = exif == "ignore" and facts.orientation >= 5
    return replace(facts, size=(width, height)) if turned else facts


def _is_picture(opened: Opened, pixels: np.ndarray, orientation: int) -> bool:
    """Whether what Pillow has decoded is what was read."""
    channels = {"L": 1, "RGB": 3}.get(opened.image.mode)
    return orientation == 1 and channels == pixels.shape[2] and opened.format != "TIFF"


def _channels(opened: Opened) -> tuple[int, bool]:
    """Returns the number of channels that lose nothing, and whether no other one can be read."""
    mode = opened.image.mode
    if opened.format == "TIFF" and not has_usual_samples(opened):
        return opened.samples, True
    if mode in ("LA", "La", "RGBA", "PA") or opened.image.info.get("transparency") is not None:
        return 4, False
    return 1 if mode in ("1", "L") or mode.startswith("I;16") else 3, False


def _digest(values: np.ndarray, small: np.ndarray) -> str:
    """Returns 64 bits of an array and its small map: enough to tell files apart, in a fifth of the time of BLAKE2."""
    content = np.ascontiguousarray(values).data
    start = zlib.crc32(repr((values.shape, values.dtype.str)).encode())
    return f"{zlib.crc32(content, start):08x}{zlib.crc32(small.tobytes()):08x}"


def look_at_mask(path: Path, *, max_pixels: int) -> MaskFacts:
    """Returns the facts of a mask, its histogram included."""
    try:
        stored = read_mask(path, max_pixels=max_pixels)
    except DataError as error:
        return MaskFacts(path, error=reason(error, path))
    colored = stored.values.ndim == 3
    plain = np.ascontiguousarray(pack(stored.values) if colored else stored.values)
    kind = {"mode": stored.mode, "lossy": stored.lossy, "colored": colored, "palette": stored.palette}
    facts = look_at_values(path, plain, **kind)
    if stored.alpha is None:
        return facts if stored.step == 1 else replace(facts, step=stored.step)
    values, counts, solid = histogram(stored.alpha)
    kept = {"alpha_values": values, "alpha_counts": counts, "alpha_solid": solid}
    return replace(facts, veiled=stored.veiled, step=stored.step, **kept)


def look_at_values(
    path: Path,
    values: np.ndarray,
    *,
    mode: str = "L",
    lossy: bool = False,
    colored: bool = False,
    palette: bytes | None = None,
) -> MaskFacts:
    """Returns the facts of a mask H W of integers, colours packed."""
    kind = (mode, lossy, colored, palette)
    measured = _measure(values)
    return MaskFacts(path, None, values.shape[:2], *kind, *measured, _digest(values, measured[-1]))


def _measure(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns values, counts, solid, specks and outline of an H W array, as in `MaskFacts`.

    Masks have a thirtieth as many runs of equal pixels as pixels: runs are counted, and blocks where they are mixed.
    """
    flat, width = values.ravel(), values.shape[1]
    begins = np.empty(values.shape, bool)
    np.not_equal(flat[1:], flat[:-1], out=begins.ravel()[1:])
    begins[:, 0] = True
    lower = values[1:] != values[:-1]
    starts = np.flatnonzero(begins)
    lengths = np.append(starts[1:], flat.size) - starts
    of_runs = flat[starts]
    distinct, counts = _count(of_runs, lengths)
    mixed = np.ones(flat.size, bool)  # begins no block of one value, as all in the last row and column
    np.logical_or(lower.ravel()[:-1], lower.ravel()[1:], out=mixed[: -width - 1])
    mixed[: -width - 1] |= begins.ravel()[1:-width]  # where these three do not differ, the fourth does not either
    missing, number = _count(flat[np.flatnonzero(mixed)])
    solid, specks = counts.copy(), np.zeros_like(counts)
    solid[np.searchsorted(distinct, missing)] -= number
    for value, number in count_specks(of_runs, starts, lengths, lower).items():
        specks[np.searchsorted(distinct, value)] = number
    begins[:, 0] = False
    begins[1:] |= lower
    return distinct, counts, solid, specks, outline_map(begins)


def histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the distinct values of an H W array, their pixels and their 2x2 blocks, as int64."""
    distinct, counts, solid, _, _ = _measure(values)
    return distinct, counts, solid


def _count(values: np.ndarray, lengths: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct values, and how often each occurs; or the sums of what counts for each."""
    if values.dtype == np.uint8:
        places, distinct = values, None
    else:
        distinct, places = np.unique(values, return_inverse=True)
    counts = np.bincount(places, lengths)
    if distinct is None:
        distinct = counts.nonzero()[0]
        counts = counts[distinct]
    return distinct.astype(np.int64), counts.astype(np.int64)


def reason(error: DataError, path: Path) -> str:
    """Returns an error's message without the path at its front."""
    return str(error).removeprefix(f"{shown(path)}: ")
