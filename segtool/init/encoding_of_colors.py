"""What the colours of masks stand for: exact ones, or the nearest of those that were drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np

from segtool.check.findings import num
from segtool.data.codes import pack, unpack
from segtool.data.facts import MaskFacts
from segtool.errors import DataError, shown
from segtool.init.evidence import (
    MANY_VALUES,
    RARE_SHARE,
    ROUNDING,
    SOFT,
    Guess,
    Totals,
    hex_color,
    is_mixture,
    nearest_shares,
    refuse_picture,
    rounded_share,
    snapped,
    total,
)

MOST_TRIED = 20_000  # colours from which on nothing of an area is left
CHROMA = 16  # by less than which JPEG, which keeps colours coarsely, moves a flat 0 or 255
RADIUS = 24  # of what JPEG spreads a colour over
CROWDED = 0.6  # share within a radius of what lies within twice of it; of colours spread along a line it is a half
CLOSE = 32  # of colours that may be one, moved by a lossy format
MANY_STEPS = 16  # of a channel: more than palettes made of a few levels of each channel have
FEW_MASKS, MANY_LONE = 3, 12  # all colours but one in one of so many masks each, so many of them, are no classes
MOST_STEPS = 15  # between two colours, of a mask that was made smaller: those of a quarter of its size


def guess_colors(masks: Sequence[MaskFacts], encoding: Literal["rgb", "palette"], what: str) -> Guess:
    """Returns what the colours of masks mean.

    Args:
        encoding: `rgb` or `palette`.
        what: The masks, for the reason.

    Raises:
        DataError: they hold one colour only, a colour for each object, or a continuous picture.
    """
    totals = total([in_colors(mask) for mask in masks])
    if len(totals.values) == 1:
        raise DataError(
            f"all masks hold the one colour {hex_color(int(totals.values[0]))}: there is nothing to tell apart; "
            f"expected at least two colours. First: {shown(masks[0].path)}. Is this the right folder of masks?"
        )
    _refuse_instances(masks, totals)
    lossy = any(mask.lossy for mask in masks)
    noisy = lossy or _is_noisy(totals)
    exact = _peaks(totals) if noisy else _sure_colors(totals)
    held = _held_around(totals, exact) if noisy else totals.share(exact)
    if not 2 <= len(exact) <= 255 or held < 0.3 or _run_into_each_other(totals, exact):
        refuse_picture(masks, totals)
    slips: list[int] = [] if noisy else totals.slips(exact)
    nearest = noisy or len(exact) < len(totals.values)
    exact = np.setdiff1d(exact, slips)
    moved = rounded_share(1 - totals.share(exact))
    reason = f"{what}: {len(totals.values)} distinct colours"
    notes: tuple[str, ...] = ()
    if noisy:
        reason += f", around {len(exact)} that were drawn"
        far = rounded_share(1 - held)
        notes = (f"{moved} of the mask pixels count as the nearest class, {far} from more than {CLOSE} away",)
        exact = np.unique(pack(snapped(unpack(exact), CHROMA if lossy else ROUNDING)))
    elif nearest:
        reason += f", {len(exact)} of which hold all but {moved} of the pixels"
        notes = (f"{moved} of the mask pixels have a colour of no class and count as the nearest one",)
    else:
        reason += f" in {num(masks, 'mask')}"
    shares = nearest_shares(totals, unpack(totals.values), unpack(exact))
    codes = tuple((int(color),) for color in exact)
    why = f"{', '.join(map(hex_color, slips[:8]))}: a few pixels in one mask, a slip of the pen" if slips else ""
    return Guess(encoding, reason, codes, shares, totals, nearest, tuple(slips), why, notes=notes)


def _refuse_instances(masks: Sequence[MaskFacts], totals: Totals) -> None:
    """Raises DataError where each object of each mask has a colour of its own."""
    solid = totals.solidity > 0.5
    lone = solid & (totals.files == 1)
    if lone.sum() > MANY_VALUES and lone.sum() > 0.5 * solid.sum() and (counts := _counting(totals.values[solid])):
        raise DataError(
            f"{num(masks, 'mask')}: {int(solid.sum())} colours, most of which differ from others in {counts} alone and "
            f"occur in one mask, as where {counts} numbers the objects and the other channels hold the class; first: "
            f"{shown(masks[0].path)}. Expected a colour for each class: write the class alone as PNG of 8 or 16 bits "
            "(of the full ADE20K, red // 10 * 256 + green)"
        )
    nearly_all = totals.num_files >= FEW_MASKS and lone.sum() > MANY_LONE and lone.sum() >= solid.sum() - 1
    if nearly_all or (lone.sum() > 64 and lone.sum() > 0.8 * solid.sum()):
        raise DataError(
            f"{num(masks, 'mask')}: {int(lone.sum())} colours that form areas in one mask only, as where each object "
            f"has a colour of its own; first: {shown(masks[0].path)}. Expected a colour for each class; export masks "
            "of classes, or of one class against the background"
        )


def _counting(colors: np.ndarray) -> str:
    """Returns the channel of many values without which half of the colours are left at most; "" where there is none."""
    points = unpack(colors)
    for channel, name in enumerate(("red", "green", "blue")):
        rest = np.unique(np.delete(points, channel, 1), axis=0)
        if len(np.unique(points[:, channel])) > MANY_STEPS and 2 * len(rest) <= len(points):
            return name
    return ""


def _run_into_each_other(totals: Totals, colors: np.ndarray) -> bool:
    """Whether many colours that form no areas are each near another, as the shades of a picture cut out on one."""
    held = np.isin(totals.values, colors)
    held[totals.pixels.argmax()] = False
    points = unpack(totals.values[held]).astype(float)
    if not 8 <= len(points) <= 1000 or totals.solid[held].sum() > SOFT * totals.pixels[held].sum():
        return False
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(gaps, np.inf)
    return float(np.median(gaps.min(1))) < 1.5 * RADIUS


def _held_around(totals: Totals, exact: np.ndarray) -> float:
    """Returns the share of the pixels that hold some colours or noise around them."""
    points = unpack(totals.values).astype(np.float32)
    gaps = np.min([_distances(points, color) for color in unpack(exact).astype(np.float32)], axis=0, initial=np.inf)
    return float(totals.shares[gaps < CLOSE].sum())


def _is_noisy(totals: Totals) -> bool:
    stray = (totals.shares < RARE_SHARE) & (totals.solidity < SOFT)
    many = len(stray) > 32 and stray.sum() > len(stray) / 2
    return many or len(stray) > 256


def _peaks(totals: Totals) -> np.ndarray:
    """Returns the colours that others crowd around, ascending: those that were drawn, under the noise of JPEG.

    From the most frequent colour on that is not yet near one, the median of what lies within the radius may be a peak.
    It is one where a frequent colour there forms areas; or where most of what lies within twice the radius lies within
    the radius, and it is not on the way between two peaks, as the colours of soft edges are.
    """
    points = unpack(totals.values).astype(np.float32)
    shares = totals.shares
    areas = (shares >= RARE_SHARE) & (totals.solidity >= SOFT)
    left = np.ones(len(points), bool)
    solid: list[np.ndarray] = []
    crowded: list[tuple[float, np.ndarray]] = []
    for index in np.argsort(-totals.pixels, kind="stable")[:MOST_TRIED]:
        if not left[index]:
            continue
        near = _distances(points, points[index]) < RADIUS
        left &= ~near
        centre = _median(points[near], shares[near])
        distances = _distances(points, centre)
        inside = float(shares[distances < RADIUS].sum())
        if inside < RARE_SHARE or any(np.linalg.norm(centre - peak) < RADIUS for peak in solid):
            continue
        if areas[near].any():
            solid.append(centre)
        elif inside >= CROWDED * float(shares[distances < 2 * RADIUS].sum()):
            crowded.append((inside, centre))
    peaks = solid
    for _, centre in sorted(crowded, key=lambda item: -item[0]):
        far = all(np.linalg.norm(centre - peak) >= RADIUS for peak in peaks)
        if far and not (len(peaks) > 1 and is_mixture(centre, np.array(peaks), gap=2 * RADIUS)):
            peaks.append(centre)
    tops = [int(np.where(_distances(points, peak) < RADIUS, shares, 0).argmax()) for peak in peaks]
    return totals.values[sorted(set(tops))]


def _distances(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return np.sqrt(((points - centre) ** 2).sum(1))


def _median(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the weighted median of each channel of n 3 points."""
    middle = []
    for channel in points.T:
        order = np.argsort(channel, kind="stable")
        sums = np.cumsum(weights[order])
        middle.append(channel[order][np.searchsorted(sums, sums[-1] / 2)])
    return np.array(middle)


def _sure_colors(totals: Totals) -> np.ndarray:
    """Returns the colours that are no mixtures on soft edges."""
    points = unpack(totals.values).astype(float)
    between, ends = _averaged(points, totals.solidity < SOFT)
    doubtful = (totals.shares < RARE_SHARE) & (totals.solidity < SOFT) & ~ends | between
    everywhere = totals.files * 2 >= totals.num_files
    mixtures = between.any() or doubtful.sum() >= max(4, (~doubtful).sum())
    sure = points[~doubtful]
    if not mixtures:
        gaps = np.min([_distances(points, color) for color in sure], axis=0, initial=np.inf)
        doubtful &= (gaps <= 48) & ~everywhere
    return totals.values[~doubtful] if len(sure) else totals.values


def _averaged(points: np.ndarray, thin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns which colours lie between two others as steps of one edge, and which are the ends of such edges.

    A mask that was made smaller by half has three such steps: quarters of the way from one colour to another. A quarter
    of the size has fifteen; more are the shades of a photograph that was cut out.

    Args:
        points: n 3, the colours.
        thin: Which of them form no areas. One end does; of thin things the other does not.
    """
    between, ends = np.zeros_like(thin), np.zeros_like(thin)
    if not 3 <= thin.sum() <= 255:
        return between, ends
    for start in points[~thin]:
        for index, way in enumerate(points - start):
            length = float(np.linalg.norm(way))
            if length < 64:
                continue
            place = (points - start) @ way / length
            gaps = np.linalg.norm(points - start - place[:, None] * way / length, axis=1)
            steps = thin & (gaps < 2) & (place > 2) & (place < length - 2)
            if 3 <= steps.sum() <= MOST_STEPS:
                between |= steps
                ends[index] = True
    return between, ends & ~between


def in_colors(mask: MaskFacts) -> MaskFacts:
    """Returns the mask's facts with its values as packed colours."""
    if mask.colored:
        return mask
    steps = np.arange(256) * mask.step
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
    seen: dict[int, set[int]] = defaultdict(set)
    for mask in masks:
        colors = palette_of([mask])
        for value in colors.keys() & mask.values.tolist():
            seen[value].add(colors[value])
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
