"""What one pass over the files tells: a small record for each image and mask, for `check` and `init`.

Nothing is raised for a bad file; its record carries the reason. Colours are packed into integers, 0xRRGGBB, so that
grey values, palette indices and colours are counted alike. `look_at_files` looks at nothing twice: what it finds
depends on the file alone, and is kept (`fact_cache`).
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from segtool.data.codes import pack, unpack
from segtool.data.fact_cache import FactCache, decode, encode
from segtool.data.histograms import histograms
from segtool.data.images import IMAGE_FORMATS, has_usual_samples, read_image, read_opened
from segtool.data.masks import StoredMask, read_mask
from segtool.data.opening import Opened, open_image, read_orientation
from segtool.data.outline import is_plain, picture_maps, small_picture
from segtool.data.user_cache import Stamp, stamp
from segtool.errors import DataError, shown
from segtool.system.memory import keep_freed_memory
from segtool.system.pools import SHARE, each_in_processes

Facts: TypeAlias = "ImageFacts | MaskFacts"
Progress = Callable[[int, int], None]
_Read: TypeAlias = "tuple[dict[str, Any], np.ndarray]"
"""The fields that a file tells by itself, and the array that the others are made of; empty where it cannot be read."""

STACKED = 1 << 18  # elements of the arrays that are worked on at once, which stay in the processor's cache
PARTS = 128  # of all files, which go to processes one by one
MOST = 64  # files of a part
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
    tints: np.ndarray = field(default_factory=_no_map)
    """How much more red than green the upright picture is, and more blue than either, 16 16 2 uint8, 128 as much; of a
    grey one 0 0 2."""
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
    lonely: np.ndarray = field(default_factory=_empty)
    """Those of them that lie within one other value, with nothing else two pixels around them."""
    outline: np.ndarray = field(default_factory=_no_map)
    """The share of pixels at an edge between values in each cell of a grid of 32 32, uint8, 255 all."""
    sample: np.ndarray = field(default_factory=_no_map)
    """The stored value in the middle of each cell, 32 32."""
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
        gone = {"specks": _empty(), "lonely": _empty(), "sample": _no_map()}
        return replace(self, mode="A", colored=False, palette=None, veiled=0, step=1, **gone, **kept)

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

    def look(files: Sequence[tuple[type[Facts], Path]]) -> list[tuple[Stamp | None, bytes | Facts]]:
        """Returns of each of some files of one kind its stamp and what is kept, or the facts where it is unreadable."""
        paths = [path for _, path in files]
        marks = [stamp(path) for path in paths]
        facts = (facts_of_images if files[0][0] is ImageFacts else facts_of_masks)(paths, max_pixels=max_pixels)
        return [(mark, one if one.error else encode(one)) for mark, one in zip(marks, facts, strict=True)]

    fresh: list[tuple[type[Facts], Path, Stamp, bytes]] = []
    kept = time.monotonic()
    with FactCache() as cache:
        found = cache.recall(wanted)
        left = [file for file in wanted if file not in found]
        if progress:
            for count in range(1, len(found) + 1):
                progress(count, len(wanted))
        size = min(MOST, 1 + len(left) // PARTS)
        kinds = [[file for file in left if file[0] is kind] for kind in (ImageFacts, MaskFacts)]
        parts = [files[first : first + size] for files in kinds for first in range(0, len(files), size)]
        for part, entries in zip(parts, each_in_processes(look, parts, share=SHARE // size), strict=True):
            for file, (mark, entry) in zip(part, entries, strict=True):
                found[file] = decode(*file, entry) if isinstance(entry, bytes) else entry
                if mark and isinstance(entry, bytes):
                    fresh.append((*file, mark, entry))
                if progress:
                    progress(len(found), len(wanted))
            if time.monotonic() - kept >= KEPT_EVERY:
                cache.keep(fresh)
                fresh.clear()
                kept = time.monotonic()
        if left:
            cache.keep(fresh)
            cache.forget_vanished()
    of_images = {path: found[kind, path] for kind, path in wanted if kind is ImageFacts}
    return of_images, {path: found[kind, path] for kind, path in wanted if kind is MaskFacts}


def facts_of_images(paths: Iterable[Path], *, max_pixels: int) -> Iterator[ImageFacts]:
    """Yields the facts of images after decoding all of each, whatever a config makes of it."""
    for files, pictures in _stacks(_read_image(path, max_pixels) for path in paths):
        if not pictures.size:
            yield from (ImageFacts(**known) for known in files)
            continue
        for known, thumbnail, edges, tints in zip(files, *picture_maps(pictures), strict=True):
            known["digest"] += _checksum(thumbnail)
            yield ImageFacts(**known, thumbnail=thumbnail, edges=edges, tints=tints)


def facts_of_masks(paths: Iterable[Path], *, max_pixels: int) -> Iterator[MaskFacts]:
    """Yields the facts of masks, their histograms included."""
    for files, masks in _stacks(_read_mask(path, max_pixels) for path in paths):
        if not masks.size:
            yield from (MaskFacts(**known) for known in files)
            continue
        for known, counted in zip(files, histograms(masks), strict=True):
            known["digest"] += _checksum(counted.outline)
            yield MaskFacts(**known, **counted._asdict())


def _read_image(path: Path, max_pixels: int) -> _Read:
    """Returns the facts of an image but its maps, and the picture that those are made of."""
    try:
        with open_image(path, formats=IMAGE_FORMATS, max_pixels=max_pixels) as opened:
            mode, orientation = opened.image.mode, read_orientation(opened)
            channels, exact = _channels(opened)
            pixels = read_opened(opened, channels=channels, orientation=orientation)
            if channels == 4 and not exact and bool((pixels[..., 3] == 255).all()):
                pixels = pixels[..., : 1 if mode in ("L", "LA", "La") else 3]
            small = small_picture(pixels, opened.image if _is_picture(opened, pixels, orientation) else None)
    except DataError as error:
        return {"path": path, "error": reason(error, path)}, _no_map()
    known = {
        "path": path,
        "size": pixels.shape[:2],
        "mode": mode,
        "orientation": orientation,
        "digest": _digest(pixels),
        "channels": pixels.shape[2],
        "exact": exact,
        "plain": is_plain(small) and is_plain(pixels),
        "deep": pixels.dtype != np.uint8,
    }
    return known, small


def _read_mask(path: Path, max_pixels: int) -> _Read:
    """Returns the facts of a mask but its histogram, and its values."""
    try:
        stored = read_mask(path, max_pixels=max_pixels)
    except DataError as error:
        return {"path": path, "error": reason(error, path)}, _no_map()
    colored = stored.values.ndim == 3
    values = np.ascontiguousarray(pack(stored.values) if colored else stored.values)
    known: dict[str, Any] = {
        "path": path,
        "size": values.shape,
        "mode": stored.mode,
        "lossy": stored.lossy,
        "colored": colored,
        "palette": stored.palette,
        "digest": _digest(values),
        "step": stored.step,
    }
    if stored.alpha is not None:
        opacity = histograms(stored.alpha[None])[0]
        known |= {"alpha_values": opacity.values, "alpha_counts": opacity.counts, "alpha_solid": opacity.solid}
        known["veiled"] = stored.veiled
    return known, values


def _stacks(read: Iterable[_Read]) -> Iterator[tuple[list[dict[str, Any]], np.ndarray]]:
    """Yields files with those that follow, their arrays as one, as long as these are of one kind and not too large."""
    files: list[dict[str, Any]] = []
    arrays: list[np.ndarray] = []
    for known, array in read:
        if arrays and (array.shape, array.dtype) != (arrays[0].shape, arrays[0].dtype):
            yield files, _joined(arrays)
            files, arrays = [], []
        files.append(known)
        arrays.append(array)
        if (len(arrays) + 1) * array.size > STACKED:
            yield files, _joined(arrays)
            files, arrays = [], []
    if arrays:
        yield files, _joined(arrays)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Returns arrays as one; not a copy of one alone, which may be large."""
    return np.stack(arrays) if len(arrays) > 1 else arrays[0][None]


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


def _digest(values: np.ndarray) -> str:
    """Returns 32 bits of an array, with as many of its map enough to tell files apart, sooner than BLAKE2 by far."""
    return _checksum(np.ascontiguousarray(values), zlib.crc32(repr((values.shape, values.dtype.str)).encode()))


def _checksum(array: np.ndarray, start: int = 0) -> str:
    return f"{zlib.crc32(array.data, start):08x}"


def reason(error: DataError, path: Path) -> str:
    """Returns an error's message without the path at its front."""
    return str(error).removeprefix(f"{shown(path)}: ")
