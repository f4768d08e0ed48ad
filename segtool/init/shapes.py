"""Where the classes lie in the masks and how large their parts are, measured on some of the masks, for `init`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segtool.config import ClassSpec, Data, Limits
from segtool.data.facts import MaskFacts
from segtool.data.labels import Labels
from segtool.data.statistics import evenly
from segtool.errors import DataError
from segtool.init.evidence import Guess
from segtool.system.pools import in_threads

MAX_MASKS = 100
MAX_PIXELS = 200_000_000  # of all measured masks
BINS = 8  # bands of an image, from its top to its bottom
FEW_MASKS = 12  # fewer do not tell chance from an up and a down


@dataclass(frozen=True)
class Shapes:
    """What is measured of each class; the tuples have one item for each."""

    num_masks: int
    border: tuple[float, ...]
    """Share of the pixels on the outer frame of the masks."""
    smallest: tuple[float, ...]
    """Pixels in a row, or in a column where they are fewer, of the parts that hold the smallest tenth of the class."""
    longest: tuple[float, ...]
    """Pixels of the longest row or column of a mask: the median over the masks with the class."""
    between: int | None
    """The class that keeps the other two apart, as the border of a trimap does."""
    upright: bool | None
    """Whether up and down differ in the masks; None where there are too few to tell."""

    def of_classes(self, order: Sequence[int]) -> Shapes:
        """Returns the shapes of some of the classes, in this order."""
        border, smallest, longest = (
            tuple(values[index] for index in order) for values in (self.border, self.smallest, self.longest)
        )
        between = order.index(self.between) if self.between in order else None
        return replace(self, border=border, smallest=smallest, longest=longest, between=between)


@dataclass(frozen=True)
class _Mask:
    """What one mask adds; K classes."""

    frame: np.ndarray
    """K: pixels on the outer frame."""
    runs: tuple[list[np.ndarray], list[np.ndarray]]
    """Lengths of the rows' and of the columns' runs, of each class."""
    touching: np.ndarray
    """K K: neighbouring pixels of two classes."""
    bands: np.ndarray
    """BINS K: share of each class in each band from top to bottom."""


def measure_shapes(masks: Sequence[MaskFacts], guess: Guess) -> Shapes:
    """Returns the shapes of a guess's classes in up to 100 evenly spaced masks that it reads."""
    labels = labels_of(guess)
    readable = [mask for mask in masks if not mask.error]
    pixels = sorted(mask.size[0] * mask.size[1] for mask in readable)[len(readable) // 2]
    count = min(MAX_MASKS, max(4, MAX_PIXELS // max(1, pixels)))
    seen = in_threads(lambda index: _look(readable[index].path, labels), evenly(len(readable), count))
    found = [mask for mask in seen if mask is not None]
    return _summary(found, labels.num_classes)


def labels_of(guess: Guess) -> Labels:
    """Returns the labels that a config of this guess would give, its classes in the guess's order."""
    texts = [tuple(guess.text(code) for code in codes) for codes in guess.codes]
    if guess.key == "values":
        specs = [ClassSpec(str(index), values=own) for index, own in enumerate(texts)]
    else:
        specs = [ClassSpec(str(index), colors=tuple(map(str, own))) for index, own in enumerate(texts)]
    ignore = tuple(guess.text(code) for code in guess.ignore)
    return Labels.from_config(Data(encoding=guess.encoding, nearest=guess.nearest, classes=tuple(specs), ignore=ignore))


def _look(path: Path, labels: Labels) -> _Mask | None:
    try:
        indices = labels.read(path, max_pixels=Limits().max_pixels)
    except DataError:  # left to `check`
        return None
    num = labels.num_classes
    edge = np.concatenate([indices[0], indices[-1], indices[1:-1, 0], indices[1:-1, -1]])
    frame = np.bincount(edge, minlength=256)[:num]
    parts = np.array_split(indices, BINS) if len(indices) >= BINS else [indices] * BINS
    counts = np.array([np.bincount(part.ravel(), minlength=256)[:num] for part in parts])
    bands = counts / np.maximum(1, counts.sum(1, keepdims=True))
    return _Mask(frame, (_runs(indices, num), _runs(indices.T, num)), _touching(indices, num), bands)


def _runs(indices: np.ndarray, num: int) -> list[np.ndarray]:
    """Returns the lengths of the runs along the rows, of each class below `num`."""
    begins = np.ones(indices.shape, bool)
    begins[:, 1:] = indices[:, 1:] != indices[:, :-1]
    flat = np.ascontiguousarray(indices).ravel()
    starts = np.flatnonzero(begins.ravel())
    classes, lengths = flat[starts], np.diff(starts, append=flat.size)
    return [lengths[classes == index] for index in range(num)]


def _touching(indices: np.ndarray, num: int) -> np.ndarray:
    if num != 3:
        return np.zeros((num, num), np.int64)
    counts = np.zeros((256, 256), np.int64)
    for one, other in ((indices[1:], indices[:-1]), (indices[:, 1:], indices[:, :-1])):
        differ = one != other
        np.add.at(counts, (one[differ], other[differ]), 1)
    counts = counts[:num, :num]
    return counts + counts.T


def _summary(masks: Sequence[_Mask], num: int) -> Shapes:
    frame = np.sum([mask.frame for mask in masks], axis=0) if masks else np.zeros(num)
    border = frame / max(1, frame.sum())
    touching = np.sum([mask.touching for mask in masks], axis=0) if masks else np.zeros((num, num))
    return Shapes(
        len(masks),
        tuple(border.tolist()),
        tuple(_smallest(masks, index) for index in range(num)),
        tuple(_longest(masks, index) for index in range(num)),
        _between(touching),
        _upright(masks),
    )


def _smallest(masks: Sequence[_Mask], index: int) -> float:
    return min(_tenth([mask.runs[axis][index] for mask in masks]) for axis in (0, 1))


def _tenth(lengths: Sequence[np.ndarray]) -> float:
    """Returns the length below which the runs hold a tenth of all their pixels."""
    every = np.sort(np.concatenate(lengths)) if lengths else np.empty(0)
    if not every.size:
        return 0.0
    return float(every[np.searchsorted(np.cumsum(every), every.sum() / 10)])


def _longest(masks: Sequence[_Mask], index: int) -> float:
    longest = [np.concatenate([runs[index] for runs in mask.runs]).max(initial=0) for mask in masks]
    present = [length for length in longest if length]
    return float(np.median(present)) if present else 0.0


def _between(touching: np.ndarray) -> int | None:
    if len(touching) != 3:
        return None
    for index in range(3):
        one, other = (place for place in range(3) if place != index)
        if touching[one, other] < 0.02 * min(touching[one, index], touching[other, index]):
            return index
    return None


def _upright(masks: Sequence[_Mask]) -> bool | None:
    """Whether a class is more frequent in a band than in the one that is its mirror image, in most masks.

    The difference is to be a tenth of the band, or one that makes the class twice as frequent, and four standard errors
    of its mean: chance hardly ever makes one of some hundred comparisons so large. Slices of one stack, which resemble
    each other, pass the second alone.
    """
    if len(masks) < FEW_MASKS:
        return None
    bands = np.stack([mask.bands for mask in masks])  # N BINS K
    above, below = bands[:, : BINS // 2], bands[:, ::-1][:, : BINS // 2]
    differences = above - below
    mean = np.abs(differences.mean(0))
    error = differences.std(0, ddof=1) / np.sqrt(len(masks))
    both = (above + below).mean(0)
    large = (mean >= 0.1) | ((mean >= 0.01) & (mean >= both / 3))
    return bool((large & (mean > 4 * error)).any())
