"""What the pixels of all masks say about their encoding, for `init`: the figures, and what is concluded of them.

The histograms decide, over every mask: how many values there are, how much area each covers, in how many files it
occurs, and whether it forms areas at all (2x2 blocks) or only the soft edges between areas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Never

import numpy as np

from segtool.check.findings import num
from segtool.data.facts import MaskFacts
from segtool.data.specks import SLIP_MASKS, SLIP_PIXELS
from segtool.errors import DataError, shown

VOID = 255
MOSTLY_VOID = 0.5  # share of void from which on what is left is no object and its background
RARE_SHARE = 1e-3  # a class of an inexact mask covers at least this share of all pixels
COMMON_SHARE = 0.05  # no single grey of a soft edge covers as much
SOFT = 0.25  # values with fewer 2x2 blocks per pixel than this form no areas
MANY_VALUES = 64
SNAP = 6  # JPEG moves a flat 0 or 255 by less
ROUNDING = 3  # and its change of colour space alone by less: PNGs that once were JPEGs


@dataclass(frozen=True)
class Totals:
    """Histogram over a set of masks: one entry for each distinct stored value (or packed colour), ascending."""

    values: np.ndarray
    pixels: np.ndarray
    solid: np.ndarray
    files: np.ndarray
    """In how many masks each value occurs."""
    num_files: int

    @property
    def shares(self) -> np.ndarray:
        """Share of all pixels, of each value."""
        return self.pixels / max(1, int(self.pixels.sum()))

    @property
    def solidity(self) -> np.ndarray:
        """2x2 blocks per pixel, of each value."""
        return self.solid / np.maximum(1, self.pixels)

    def slips(self, kept: np.ndarray) -> list[int]:
        """Returns those of some values that are a few pixels in one mask of many, if two others are left at least."""
        few = (self.files == 1) & (self.pixels <= SLIP_PIXELS) & (self.num_files >= SLIP_MASKS)
        slips: list[int] = np.intersect1d(kept, self.values[few]).tolist()
        return slips if len(kept) - len(slips) >= 2 else []

    def share(self, values: Sequence[int] | np.ndarray) -> float:
        """Returns the share of all pixels that some of the values hold."""
        return float(self.shares[np.isin(self.values, list(values))].sum())


@dataclass(frozen=True)
class Guess:
    """An encoding and the classes that the masks hold."""

    encoding: Literal["index", "threshold", "palette", "rgb", "alpha"]
    """As in `data.encoding`."""
    reason: str
    """The figures behind it, for a comment."""
    codes: tuple[tuple[int, ...], ...]
    """Of each class, the stored values or packed colours that mean it."""
    shares: tuple[float, ...]
    """Of all pixels, by class, as the encoding reads them."""
    totals: Totals
    nearest: bool = False
    ignore: tuple[int, ...] = ()
    ignore_reason: str = ""
    spans: dict[int, int] = field(default_factory=dict)
    """Where a class is a range of values: its first one, and its last."""
    colors: dict[int, int] = field(default_factory=dict)
    """Packed colour of a stored value, where a palette gives one."""
    notes: tuple[str, ...] = ()
    """What the user should look at."""

    @property
    def key(self) -> Literal["values", "colors"]:
        """What `data.classes` lists of each class."""
        return "colors" if self.encoding in ("rgb", "palette") else "values"

    def text(self, code: int) -> int | str:
        """Returns a code as the config holds it: `7`, `1..255` or `#rrggbb`."""
        if self.key == "colors":
            return hex_color(code)
        return f"{code}..{self.spans[code]}" if code in self.spans else code


def total(masks: Sequence[MaskFacts]) -> Totals:
    """Returns the histogram over several masks."""
    values, inverse = np.unique(np.concatenate([mask.values for mask in masks]), return_inverse=True)
    size = len(values)
    pixels = np.bincount(inverse, np.concatenate([mask.counts for mask in masks]), size).astype(np.int64)
    solid = np.bincount(inverse, np.concatenate([mask.solid for mask in masks]), size).astype(np.int64)
    return Totals(values, pixels, solid, np.bincount(inverse, minlength=size), len(masks))


def refuse_picture(masks: Sequence[MaskFacts], totals: Totals) -> Never:
    """Raises DataError about masks whose values are those of a continuous picture, or of small ids in a JPEG."""
    lossy = [mask for mask in masks if mask.lossy and not mask.colored]
    if lossy and totals.values.max() <= MANY_VALUES:
        raise DataError(
            f"{len(lossy)} of {num(masks, 'mask')} stored as JPEG, which changes each value by a few, and all lie in "
            f"0 to {totals.values.max()}, so which class was meant is lost; export the masks again, as PNG. First: "
            f"{shown(lossy[0].path)}"
        )
    kind, given = "values", "values, with data.encoding: threshold"
    if any(mask.colored for mask in masks):
        kind, given = "colours", "colors, with data.encoding: rgb and data.nearest: true"
    raise DataError(
        f"{num(masks, 'mask')}: {len(totals.values)} distinct {kind} without a few that hold most pixels, as in "
        "photographs or probability maps; expected a few values that stand for classes. First: "
        f"{shown(masks[0].path)}. Is this the right folder of masks? If it is, give each class its {given} in a "
        "config by hand"
    )


def dominant(totals: Totals, points: np.ndarray, *, distance: float) -> list[int]:
    """Returns the values that hold area and are no mixture, the most frequent of each neighbourhood, ascending.

    Args:
        points: n d, what distances are measured between.
    """
    frequent = (totals.shares >= RARE_SHARE) | ((totals.solidity > 0.5) & (totals.files * 2 >= totals.num_files))
    order = [int(index) for index in np.argsort(-totals.pixels, kind="stable") if frequent[index]]
    ends = points[order[:64]]
    kept: list[int] = []
    for index in order:
        near = kept and np.linalg.norm(points[kept] - points[index], axis=1).min() < distance
        soft = totals.solidity[index] < SOFT
        if not near and not (soft and is_mixture(points[index], ends)):
            kept.append(index)
    return sorted(int(totals.values[index]) for index in kept)


def is_mixture(point: np.ndarray, ends: np.ndarray, *, gap: float = 12) -> bool:
    """Whether a point lies on the way between two of the ends, as the colours of a soft edge do.

    Args:
        gap: Distance to the way within which it does.
    """
    starts, ways = ends[:, None], ends[None] - ends[:, None]  # n 1 d, n n d
    lengths = (ways**2).sum(-1)
    place = ((point - starts) * ways).sum(-1) / np.maximum(lengths, 1)
    gaps = np.linalg.norm(starts + place[..., None] * ways - point, axis=-1)
    return bool(((place > 0.05) & (place < 0.95) & (gaps < gap)).any())


def snapped(values: Sequence[int] | np.ndarray, reach: int = SNAP) -> np.ndarray:
    """Returns values with those that JPEG has moved off 0 or 255, by less than `reach`, put back."""
    numbers = np.asarray(values)
    moved = np.abs(numbers[..., None] - [0, 255]) < reach
    return np.where(moved[..., 0], 0, np.where(moved[..., 1], 255, numbers)).astype(numbers.dtype)


def nearest_shares(totals: Totals, points: np.ndarray, centres: np.ndarray) -> tuple[float, ...]:
    """Returns the share of all pixels that is nearest to each centre, K d, among the totals' points, n d."""
    best = np.full(len(points), np.inf)
    owner = np.zeros(len(points), np.intp)
    for index, centre in enumerate(centres.astype(float)):
        distance = ((points - centre) ** 2).sum(-1)
        owner[distance < best] = index
        best = np.minimum(best, distance)
    return tuple(np.bincount(owner, totals.shares, len(centres)).tolist())


def guess_levels(levels: Sequence[int] | np.ndarray, totals: Totals, reason: str) -> Guess:
    """Returns the guess that each pixel counts as the nearest of some grey levels."""
    shares = nearest_shares(totals, totals.values[:, None], np.array(levels)[:, None])
    return Guess("threshold", reason, tuple((int(level),) for level in levels), shares, totals)


# ------------------------------------------------------------------------------------------------- words


def rounded_share(share: float) -> str:
    """Returns a share for people: `5.2 %`, `0.03 %`, `<0.001 %`."""
    if share <= 0:
        return "0 %"
    if share < 1e-5:
        return "<0.001 %"
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.1f} %"


def hex_color(packed: int) -> str:
    """Returns a packed colour as `#rrggbb`."""
    return f"#{packed:06x}"


def modes(masks: Sequence[MaskFacts]) -> str:
    """Returns Pillow's names of the masks' pixel formats: `L and P`."""
    return " and ".join(sorted({mask.mode for mask in masks}))


def listed(values: Sequence[int] | np.ndarray) -> str:
    """Returns values as `0..20` where they have no gap, else one by one, shortened."""
    numbers = [int(value) for value in values]
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]}..{numbers[-1]}"
    return ", ".join(map(str, numbers[:12])) + (", …" if len(numbers) > 12 else "")
