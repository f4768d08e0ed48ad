"""What single values in masks stand for: class indices, or the grey levels of soft edges."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segtool.check.findings import num
from segtool.config.rules import MAX_CLASSES
from segtool.data.facts import MaskFacts
from segtool.errors import DataError, shown
from segtool.init.encoding_of_colors import guess_colors, palette_of
from segtool.init.evidence import (
    COMMON_SHARE,
    MANY_VALUES,
    MOSTLY_VOID,
    RARE_SHARE,
    SNAP,
    SOFT,
    VOID,
    Guess,
    Totals,
    dominant,
    guess_levels,
    listed,
    modes,
    refuse_picture,
    rounded_share,
    snapped,
    total,
)
from segtool.init.numbered import guess_numbered

VOIDS = (VOID, 2**16 - 1, 2**31 - 1, 2**32 - 1)
DARK = 20  # grey that nobody tells from black
FAR = 8  # times as large as the values of classes is a 65535 that is none of theirs, and no step of their scale
MUCH_VOID = 0.2  # share of void that may as well be a background
LOSSY_GAP = 32  # between grey values that JPEG does not mix up


def guess_values(masks: Sequence[MaskFacts]) -> Guess:
    """Returns what the grey values or palette indices of masks mean.

    Raises:
        DataError: they hold one value only, a number for each region, or a continuous picture.
    """
    totals = total(masks)
    if len(totals.values) == 1:
        raise DataError(
            f"all masks hold the one value {totals.values[0]}: there is nothing to tell apart; expected at least two "
            f"values. First: {shown(masks[0].path)}. Is this the right folder of masks?"
        )
    void, why = _find_void(masks, totals)
    lossy = [mask for mask in masks if mask.lossy]
    if not lossy and (instances := guess_numbered(masks, void, why)):
        return instances
    if lossy and (exact := _without_lossy(masks, lossy)):
        guess = guess_values(exact)
        told = f"{num(lossy, 'mask')} stored as JPEG cannot be told apart so: see `segtool check`"
        return replace(guess, notes=(*guess.notes, told))
    if lossy or _has_soft_edges(totals):
        palettes = any(mask.mode == "P" for mask in masks)
        return guess_colors(masks, "rgb", "soft-edged masks") if palettes else _guess_threshold(masks, totals)
    if _is_blur(totals) or _is_thin(totals):
        return _guess_blurred(masks, totals)
    return _guess_index(masks, totals, void, why)


def _guess_index(masks: Sequence[MaskFacts], totals: Totals, void: Sequence[int], why: str) -> Guess:
    slips = totals.slips(np.setdiff1d(totals.values, void))
    if slips:
        why = ". ".join(filter(None, [why, _slips_reason(masks, totals, slips)]))
    ignored = (*void, *slips)
    codes: tuple[tuple[int, ...], ...] = tuple((int(value),) for value in totals.values if value not in ignored)
    notes: tuple[str, ...] = ()
    if _two_spellings(masks, totals) and not ignored:
        codes, notes = ((0,), (1, VOID)), ("some masks write the object as 1, others as 255: both are one class",)
    if len(codes) > MAX_CLASSES:
        raise DataError(
            f"{num(masks, 'mask')}: {len(codes)} distinct values, as where each region has a number of its own; first: "
            f"{shown(masks[0].path)}. Expected at most {MAX_CLASSES}, a value for each class; export masks of classes, "
            "or of one class against the background"
        )
    reason = f"{len(totals.values)} distinct values in {num(masks, 'mask')} of mode {modes(masks)}"
    top = max(code for own in codes for code in own)
    if top <= DARK and not any(mask.mode in ("P", "1") for mask in masks):
        notes = (*notes, f"values up to {top} of 255 look black in a viewer, and are no less right for it")
    shares = tuple(map(totals.share, codes))
    colors = palette_of(masks)
    return Guess("index", reason, codes, shares, totals, ignore=ignored, ignore_reason=why, colors=colors, notes=notes)


def _slips_reason(masks: Sequence[MaskFacts], totals: Totals, slips: Sequence[int]) -> str:
    """Returns why values of a few pixels are no classes, with the file of each."""
    where = {value: next(mask for mask in masks if value in mask.values) for value in slips[:4]}
    told = [
        f"{value} is {num(int(totals.pixels[totals.values == value][0]), 'pixel')} in {shown(mask.path.name)}"
        for value, mask in where.items()
    ]
    more = f" and {len(slips) - len(where)} more such values" if len(slips) > len(where) else ""
    return f"{', '.join(told)}{more}: a slip of the pen, too few to learn from"


def _without_lossy(masks: Sequence[MaskFacts], lossy: Sequence[MaskFacts]) -> list[MaskFacts]:
    """Returns the masks that are not JPEG where they are most, and their values too close to be told apart in one."""
    rest = [mask for mask in masks if not mask.lossy]
    if len(rest) < 3 or len(lossy) > max(1, len(masks) // 10):
        return []
    values = total(rest).values
    return rest if len(values) <= MANY_VALUES and (np.diff(values) < LOSSY_GAP).any() else []


def _guess_threshold(masks: Sequence[MaskFacts], totals: Totals) -> Guess:
    lossy = any(mask.lossy for mask in masks)
    kept = dominant(totals, totals.values[:, None].astype(float), distance=LOSSY_GAP if lossy else 16)
    if len(kept) < 2 or totals.share(kept) < 0.3:
        refuse_picture(masks, totals)
    moved = rounded_share(1 - totals.share(kept))
    what = "JPEG" if lossy else "soft-edged"
    codes = snapped(kept) if lossy else kept
    halves = [f"from {-(-(low + high) // 2)} on" for low, high in itertools.pairwise(map(int, codes))]
    reason = (
        f"{what} masks: {listed(kept)} hold all but {moved} of the pixels, and each of those counts as the nearest; "
        f"{' and '.join(halves)} as the upper one"
    )
    return guess_levels(codes, totals, reason)


def _is_blur(totals: Totals) -> bool:
    """Whether there are many values, and all but the frequent ones form no areas."""
    few = totals.shares < COMMON_SHARE
    return len(totals.values) > MANY_VALUES and totals.solid[few].sum() < SOFT * totals.pixels[few].sum()


def _is_thin(totals: Totals) -> bool:
    """Whether several values between 0 and 255 form no areas: thin things, of which few pixels are whole."""
    is_full = totals.values[0] < SNAP and 255 - SNAP < totals.values[-1] <= 255
    return bool(is_full) and _is_soft_between(totals) and totals.share(totals.values[[0, -1]]) > 0.5


def _is_soft_between(totals: Totals) -> bool:
    """Whether there are three values or more between the lowest and the highest, none of which forms areas."""
    return len(totals.values) > 4 and bool((totals.solidity[1:-1] < SOFT).all())


def _guess_blurred(masks: Sequence[MaskFacts], totals: Totals) -> Guess:
    """Returns 0 and 255 where one of them is the background of thin things whose soft edges meet in the middle."""
    low, high = int(totals.values.min()), int(totals.values.max())
    background = totals.share([value for value in totals.values if value < SNAP or value > 255 - SNAP])
    if low >= SNAP or not 192 <= high <= 255 or background < 0.5 or any(mask.mode == "P" for mask in masks):
        refuse_picture(masks, totals)
    reason = (
        f"values {low} to {high}, all but {rounded_share(1 - background)} of the pixels near 0 or 255: taken as masks "
        "of 0 and 255 with soft edges, each pixel as the nearer of the two; look at a mask to see that it is so"
    )
    return guess_levels([0, 255], totals, reason)


def _has_soft_edges(totals: Totals) -> bool:
    """Whether most values form no areas and lie between few that do, far apart: an anti-aliased or rescaled mask."""
    stray = (totals.shares < COMMON_SHARE) & (totals.solidity < SOFT)
    if _has_specks(totals, stray) or _is_halved(totals):
        return True
    kept = totals.values[~stray]
    if stray.sum() < max(4, len(stray) / 2) or len(kept) < 2 or kept.max() - kept.min() < 32:
        return False
    between = (totals.values[stray] > kept.min() - 32) & (totals.values[stray] < kept.max() + 32)
    return bool(between.all()) and float(totals.shares[~stray].sum()) > 0.5


def _is_halved(totals: Totals) -> bool:
    """Whether the values are two and the quarters between them, without areas: a mask made smaller by half."""
    low, high = int(totals.values[0]), int(totals.values[-1])
    quarters = np.linspace(low, high, 5)
    is_stepped = len(totals.values) == 5 and bool((np.abs(totals.values - quarters) <= 1).all())
    return is_stepped and high - low >= 32 and _is_soft_between(totals)


def _has_specks(totals: Totals, stray: np.ndarray) -> bool:
    """Whether a few values of hardly any pixels stand close to others, which are far apart: 3 or 254 beside 0, 255."""
    kept = totals.values[~stray]
    if not stray.any() or len(kept) < 2 or np.diff(kept).min() < 64 or (totals.shares[stray] > RARE_SHARE).any():
        return False
    gaps = np.abs(totals.values[stray][:, None] - kept[None]).min(1)
    return bool((gaps <= 16).all()) and not bool((totals.files[stray] * 2 > totals.num_files).any())


def _find_void(masks: Sequence[MaskFacts], totals: Totals) -> tuple[tuple[int, ...], str]:
    """Returns 255 where it stands beside a small set of class values, as VOC and Cityscapes write what is not labelled.

    So do the largest values of 16 and 32 bits: what -1 becomes when it is stored without a sign. Pure {0, 255} is a
    binary mask; {0, 1} in some files and {0, 255} in others is one too, in two spellings.
    """
    negative = tuple(int(value) for value in totals.values if value < 0)
    if negative and len(totals.values) - len(negative) >= 2:
        return negative, f"negative values cover {rounded_share(totals.share(negative))} of the pixels: taken as void"
    *others, void = (int(value) for value in totals.values)
    small = MANY_VALUES if void == VOID else void / FAR
    if void not in VOIDS or len(others) < 2 or others[-1] >= small or _two_spellings(masks, totals):
        return (), ""
    files = sum(void in mask.values for mask in masks)
    share = totals.share([void])
    doubt = "; where it is the background, make it a class" if share >= MUCH_VOID else ""
    doubt = f". LOOK: it is most of the pixels{doubt}" if share >= MOSTLY_VOID else doubt
    return (void,), (
        f"{void} covers {rounded_share(share)} of the pixels in {files} of {num(masks, 'mask')} beside values "
        f"{listed(others)}: taken as void{doubt}"
    )


def _two_spellings(masks: Sequence[MaskFacts], totals: Totals) -> bool:
    """Whether 1 in some masks and 255 in others is the object, as some hold 0 and 255, and none holds 1 and 255."""
    with_void = [mask for mask in masks if VOID in mask.values]
    bound = any(0 in mask.values for mask in with_void) and not any(1 in mask.values for mask in with_void)
    return totals.values.tolist() == [0, 1, VOID] and bound
