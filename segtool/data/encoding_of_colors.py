"""What the colours of masks stand for: exact ones, or the nearest of those that were drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from segtool.data.codes import pack, unpack
from segtool.data.evidence import (
    RARE_SHARE,
    ROUNDING,
    SNAP,
    SOFT,
    Guess,
    Totals,
    dominant,
    hex_color,
    nearest_shares,
    num_masks,
    percent,
    refuse_picture,
    snapped,
    total,
)
from segtool.data.facts import MaskFacts
from segtool.data.opening import shown
from segtool.errors import DataError


def guess_colors(masks: Sequence[MaskFacts], encoding: Literal["rgb", "palette"], what: str) -> Guess:
    """Returns what the colours of masks mean.

    Args:
        encoding: `rgb` or `palette`.
        what: the masks, for the reason.

    Raises:
        DataError: they hold one colour only, a colour for each object, or a continuous picture.
    """
    colored = [in_colors(mask) for mask in masks]
    totals = total(colored)
    lossy = any(mask.lossy for mask in masks)
    noisy = lossy or _is_noisy(totals)
    exact = np.setdiff1d(totals.values, _stray_colors(totals, noisy=noisy, lossy=lossy))
    if len(totals.values) == 1:
        raise DataError(
            f"all masks hold the one colour {hex_color(int(totals.values[0]))}: there is nothing to tell apart; "
            "expected at least two colours. Is this the right folder of masks?"
        )
    _refuse_instances(masks, totals)
    if len(exact) < 2 or len(exact) > 255 or totals.share(exact) < 0.3:
        refuse_picture(masks, totals)
    slips = np.intersect1d(exact, totals.values[totals.slips])
    slips = slips[:0] if noisy or len(exact) - len(slips) < 2 else slips
    exact = np.setdiff1d(exact, slips)
    nearest = len(exact) + len(slips) < len(totals.values) or lossy
    reason = f"{what}: {len(totals.values)} distinct colours in {num_masks(masks)}"
    notes: tuple[str, ...] = ()
    if nearest:
        moved = percent(1 - totals.share(exact))
        reason = (
            f"{what}: {len(totals.values)} distinct colours, {len(exact)} of which hold all but {moved} of the pixels"
        )
        notes = (f"{moved} of the mask pixels have a colour of no class and count as the nearest one",)
        exact = pack(snapped(unpack(exact), SNAP if lossy else ROUNDING)) if noisy else exact
    shares = nearest_shares(totals, unpack(totals.values), unpack(exact))
    codes = tuple((int(color),) for color in exact)
    ignore = tuple(int(color) for color in slips)
    why = f"{', '.join(map(hex_color, ignore[:8]))}: a few pixels in one mask, a slip of the pen" if ignore else ""
    return Guess(
        encoding, reason, codes, shares, totals, nearest=nearest, ignore=ignore, ignore_reason=why, notes=notes
    )


def _refuse_instances(masks: Sequence[MaskFacts], totals: Totals) -> None:
    """Raises DataError where each object of each mask has a colour of its own."""
    solid = totals.solidity > 0.5
    lone = solid & (totals.files == 1)
    if lone.sum() > 64 and lone.sum() > 0.8 * solid.sum():
        raise DataError(
            f"{num_masks(masks)}: {int(lone.sum())} colours that form areas in one mask only, as where each object has "
            f"a colour of its own; first: {shown(masks[0].path)}. Expected a colour for each class; export masks of "
            "classes, or of one class against the background"
        )


def _is_noisy(totals: Totals) -> bool:
    stray = (totals.shares < RARE_SHARE) & (totals.solidity < SOFT)
    many = len(stray) > 32 and stray.sum() > len(stray) / 2
    return many or len(stray) > 256


def _stray_colors(totals: Totals, *, noisy: bool, lossy: bool) -> np.ndarray:
    """Returns the colours that stand for no class: noise around the frequent ones, or mixtures on soft edges."""
    points = unpack(totals.values).astype(float)
    if noisy:
        return np.setdiff1d(totals.values, dominant(totals, points, distance=24 if lossy else 16, noisy=True))
    doubtful = (totals.shares < RARE_SHARE) & (totals.solidity < SOFT)
    everywhere = totals.files * 2 >= totals.num_files
    mixtures = doubtful.sum() >= max(4, (~doubtful).sum())
    sure = points[~doubtful]
    stray = [
        index
        for index in doubtful.nonzero()[0]
        if len(sure) and (mixtures or (_gap(points[index], sure) <= 48 and not everywhere[index]))
    ]
    return totals.values[stray]


def _gap(point: np.ndarray, others: np.ndarray) -> float:
    return float(np.linalg.norm(others - point, axis=1).min())


def in_colors(mask: MaskFacts) -> MaskFacts:
    """Returns the mask's facts with its values as packed colours."""
    if mask.colored:
        return mask
    steps = np.arange(256) * (255 if mask.mode == "1" else 1)
    table = pack(_table(mask.palette)) if mask.palette else steps * 0x010101
    values, inverse = np.unique(table[np.minimum(mask.values, len(table) - 1)], return_inverse=True)
    counts = np.bincount(inverse, mask.counts, len(values)).astype(np.int64)
    solid = np.bincount(inverse, mask.solid, len(values)).astype(np.int64)
    return MaskFacts(
        mask.path, None, mask.size, mask.mode, mask.lossy, True, None, values.astype(np.int64), counts, solid
    )


def palettes_disagree(masks: Sequence[MaskFacts]) -> bool:
    """Whether the colours tell the classes: an index has two of them, and there are hardly more colours than indices.

    Where there are many more, as with a random palette for each file, the indices tell them.
    """
    seen: dict[int, set[int]] = {}
    for mask in masks:
        colors = palette_of([mask])
        for value in mask.values.tolist() if colors else ():
            if value in colors:
                seen.setdefault(value, set()).add(colors[value])
    distinct = set().union(*seen.values())
    return any(len(own) > 1 for own in seen.values()) and len(distinct) <= 2 * len(seen)


def palette_of(masks: Sequence[MaskFacts]) -> dict[int, int]:
    """Returns the packed colour of each index in the palettes of the masks."""
    colors: dict[int, int] = {}
    for mask in masks:
        if mask.palette:
            colors.update(enumerate(pack(_table(mask.palette)).tolist()))
    return colors


def _table(palette: bytes) -> np.ndarray:
    return np.frombuffer(palette[: len(palette) // 3 * 3], np.uint8).reshape(-1, 3)
