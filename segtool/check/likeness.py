"""Pictures that show nearly the same: copies that were scaled, compressed or brightened, and frames of a still video.

Compared is what sets a picture apart from the mean of its data set: what all have in common (the dark corners of a
microscope, the disc of an eye, the bonnet of the car) says nothing. Only few pictures come near to each other then, and
those are compared in brightness and in slopes. Copies that were mirrored or turned are found once all pictures are
turned so that they are darkest at the left and above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segtool.data.facts import ImageFacts

MAX_BITS = 16  # of 64, in which the hashes of near-equal pictures may differ
ALIKE = 0.9  # least correlation of their thumbnails; neighbouring slices of an EM stack reach 0.6
ALIKE_SLOPES = 0.75  # least correlation of thumbnails' slopes; half the size in JPEG keeps 0.82, slices reach 0.44
TURNED_ALIKE, TURNED_SLOPES = 0.97, 0.9  # the same of pictures turned alike; two chests of one scanner reach 0.95, 0.87
FLAT = 3.0  # grey levels of deviation, below which a picture has nothing to compare
FEW = 8  # pictures, below which their mean is not taken away
MAX_CANDIDATES = 200_000
_ROWS = 512  # that are compared at a time, which bounds the memory


@dataclass(frozen=True)
class Looks:
    """What is compared of N pictures."""

    hashes: np.ndarray
    """N uint64."""
    thumbnails: np.ndarray
    """N D float32, of norm 1."""
    usable: np.ndarray
    """N bool."""
    turns: np.ndarray | None
    """Which way each was turned before, N, of those that are to be found in different ones; None: all as they are."""

    def alike(self, one: int, other: int) -> float:
        """Returns the correlation of two thumbnails."""
        return float(self.thumbnails[one] @ self.thumbnails[other])


def looks_of(images: Sequence[ImageFacts], *, turned: bool = False) -> Looks:
    """Returns what is compared of readable images.

    Args:
        turned: Of each as it is where it was mirrored or turned to be darkest at the left and above, for the copies of
            it that were mirrored or turned.
    """
    thumbnails = np.stack([image.thumbnail for image in images])
    usable = thumbnails.std(axis=(1, 2), dtype=np.float32) >= FLAT
    turns = None
    if turned:
        thumbnails, ways = turned_alike(thumbnails)
        turns = np.packbits(ways, axis=0)[0]
    residuals = standing_out(thumbnails, usable)
    return Looks(_hashes(residuals), residuals, usable, turns)


def turned_alike(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns maps N H H, each mirrored and transposed as its brightness leans, and the ways, as of `turn`."""
    ramp = np.arange(maps.shape[-1], dtype=np.float32) - (maps.shape[-1] - 1) / 2
    across, down = maps.sum(1, dtype=np.float32) @ ramp, maps.sum(2, dtype=np.float32) @ ramp
    ways = np.stack([across < 0, down < 0, abs(down) > abs(across)])
    return turn(maps, ways), ways


def turn(maps: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """Returns maps N H H, of which some are mirrored.

    Args:
        ways: Whether each is mirrored left to right, then top to bottom, then transposed, 3 N bool.
    """
    changes = (lambda part: part[..., ::-1], lambda part: part[:, ::-1], lambda part: part.swapaxes(1, 2))
    result = maps.copy()
    for way, change in zip(ways, changes, strict=True):
        result[way] = change(result[way])
    return result


def standing_out(maps: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Returns what sets each of N maps apart from the mean of the usable ones, N D float32, of norm 1."""
    flat = normed(np.array(maps, np.float32).reshape(len(maps), -1))
    if usable.sum() >= FEW:
        flat -= flat[usable].mean(0) if not usable.all() else flat.mean(0)
        flat = normed(flat)
    return flat


def near_duplicates(looks: Looks, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the pairs of near-equal pictures of two groups, given as their places: M 2, the first of `one`.

    A pair stands once where both groups hold both; no picture is a duplicate of itself.
    """
    one, other = one[looks.usable[one]], other[looks.usable[other]]
    pairs = _candidates(looks, one, other)
    least, least_slopes = ALIKE, ALIKE_SLOPES
    if looks.turns is not None:
        pairs = pairs[looks.turns[pairs[:, 0]] != looks.turns[pairs[:, 1]]]
        least, least_slopes = TURNED_ALIKE, TURNED_SLOPES
    found = [pairs[:0]]
    for start in range(0, len(pairs), _ROWS):
        left, right = pairs[start : start + _ROWS].T
        alike = np.einsum("nd,nd->n", looks.thumbnails[left], looks.thumbnails[right]) >= least
        if not alike.any():
            continue
        left, right = left[alike], right[alike]
        slopes = slopes_of_maps(looks.thumbnails[left]), slopes_of_maps(looks.thumbnails[right])
        steep = np.einsum("nd,nd->n", *slopes) >= least_slopes
        found.append(np.stack([left[steep], right[steep]], 1))
    return np.concatenate(found)


def _candidates(looks: Looks, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns pairs whose hashes differ in few bits: fewer bits where there are very many such pairs."""
    found: list[np.ndarray] = []
    bits = MAX_BITS
    for start in range(0, len(one), _ROWS):
        rows = one[start : start + _ROWS]
        differing = np.bitwise_count(looks.hashes[rows][:, None] ^ looks.hashes[other][None])
        left, right = np.nonzero(differing <= bits)
        distances = differing[left, right]
        pairs = np.stack([rows[left], other[right]], 1)
        twice = np.isin(pairs[:, 0], other) & np.isin(pairs[:, 1], one)
        found.append(np.column_stack([pairs, distances])[(pairs[:, 0] < pairs[:, 1]) | ~twice])
        while bits > 0 and sum(map(len, found)) > MAX_CANDIDATES:
            bits -= 2
            found = [part[part[:, 2] <= bits] for part in found]
    pairs = np.concatenate(found) if found else np.empty((0, 3), int)
    return pairs[pairs[:, 0] != pairs[:, 1], :2]


def _hashes(residuals: np.ndarray) -> np.ndarray:
    """Returns 64 bits of each of N maps: the signs of its lowest 8x8 frequencies against their median, as in pHash.

    Source: Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2.1.
    """
    side = int(residuals.shape[1] ** 0.5)
    waves = np.cos(np.pi * (np.arange(side)[:, None] + 0.5) * np.arange(8) / side).astype(np.float32)
    columns = residuals.reshape(-1, side) @ waves  # N*side 8
    frequencies = (columns.reshape(-1, side, 8).swapaxes(1, 2) @ waves).reshape(-1, 64)
    bits = frequencies > np.median(frequencies, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def slopes_of_maps(thumbnails: np.ndarray) -> np.ndarray:
    """Returns the differences of neighbouring cells, right and down, N D, of norm 1."""
    side = int(thumbnails.shape[1] ** 0.5)
    maps = thumbnails.reshape(-1, side, side)
    slopes = np.concatenate([np.diff(maps, axis=axis).reshape(-1, side * (side - 1)) for axis in (1, 2)], axis=1)
    return slopes / np.maximum(np.linalg.norm(slopes, axis=1, keepdims=True), 1e-6)


def normed(flat: np.ndarray) -> np.ndarray:
    """Returns N D float32 without the mean of each row, of norm 1; in its place."""
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.sqrt(np.einsum("nd,nd->n", flat, flat))[:, None], 1e-6)
    return flat
