"""Masks that number objects instead of naming classes: background and object of them, and the evidence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segtool.data.facts import MaskFacts
from segtool.init.evidence import MANY_VALUES, Guess, rounded_share, total

CHANNELS = {"red": 0x010000, "green": 0x000100, "blue": 0x000001, "all three": 0x010101}
"""What a packed colour is a multiple of, by the channels that hold its number."""
_ONE_CLASS = "every number above 0 counts as the one class `object`, and objects that touch become one area"


def guess_numbered(masks: Sequence[MaskFacts], void: Sequence[int], why: str) -> Guess | None:
    """Returns background and object where values count objects instead of naming classes.

    Args:
        void: Values that are ignored.
        why: The reason of that.
    """
    totals = total(masks)
    evidence = _evidence(masks, void)
    if evidence is None or 0 not in totals.values:
        return None
    wide = any(mask.mode.startswith("I") for mask in masks)
    top = max(65535, int(totals.values.max())) if wide else 255
    top = min([top, *(value - 1 for value in void if value > 0)])
    background = totals.share([0])
    return Guess(
        "index",
        f"THE VALUES LOOK LIKE INSTANCE IDS, one number for each object ({evidence})",
        ((0,), (1,)),
        (background, 1 - background - totals.share(void)),
        totals,
        ignore=tuple(void),
        ignore_reason=why,
        spans={1: top},
        notes=(
            _ONE_CLASS,
            "predictions hold 0 and 1",
            "where the numbers are classes after all, list each as `{name: NAME, values: [NUMBER]}`",
        ),
    )


def guess_numbered_colors(masks: Sequence[MaskFacts]) -> Guess | None:
    """Returns the same where masks of colours hold the numbers in one channel, or one and the same in all three."""
    if not all(mask.colored for mask in masks):
        return None
    totals = total(masks)
    for channels, unit in CHANNELS.items():
        numbers, rest = np.divmod(totals.values, unit)
        if 0 not in numbers or rest.any() or numbers.max() > 255:
            continue
        evidence = _evidence([replace(mask, values=mask.values // unit) for mask in masks], ())
        if evidence is None:
            return None
        background = totals.share([0])
        return Guess(
            "rgb",
            f"THE COLOURS LOOK LIKE INSTANCE IDS in the {channels} channel{'s' * (unit == 0x010101)}, one number for "
            f"each object ({evidence})",
            ((0,), tuple(number * unit for number in range(1, int(numbers.max()) + 1))),
            (background, 1 - background),
            totals,
            notes=(
                _ONE_CLASS,
                "predictions hold black and the first of its colours",
                "where the numbers are classes after all, list each as `{name: NAME, colors: [COLOUR]}`",
            ),
        )
    return None


def _evidence(masks: Sequence[MaskFacts], void: Sequence[int]) -> str | None:
    totals = total(masks)
    counted = (totals.values > 0) & ~np.isin(totals.values, void)
    ids, files = totals.values[counted], totals.files[counted]
    num = len(ids)
    if not num:
        return None
    what = f"{num} distinct values besides 0, up to {ids.max()}"
    if all(re.match(r"man_(seg|track)\d", mask.path.name) for mask in masks):
        return f"{what}; `man_seg` numbers cells, as the Cell Tracking Challenge does"
    wide = ids.max() > 255 or any(mask.mode.startswith("I") for mask in masks)
    if num > MANY_VALUES and wide:
        return what
    lone = float((files == 1).mean())
    if num > 16 and len(masks) >= (3 if wide else 8) and lone > 0.8 and _are_spread(masks, ids, ids[files == 1]):
        return f"{what}, {rounded_share(lone)} of them in one file only"
    if _counts_up([np.setdiff1d(mask.values, [0, *void]) for mask in masks]):
        return f"{what}; each mask holds 1, 2, 3, … without a gap, up to another number"
    return None


def _are_spread(masks: Sequence[MaskFacts], ids: np.ndarray, lone: np.ndarray) -> bool:
    """Whether most masks with an object have a number of their own; the soft edges of one mask have them all."""
    holding, having_own = (sum(bool(np.isin(mask.values, some).any()) for mask in masks) for some in (ids, lone))
    return 2 * having_own > holding


def _counts_up(held: Sequence[np.ndarray]) -> bool:
    """Whether masks hold exactly 1..n, n differing: objects were counted. Classes leave gaps in some masks."""
    tops = [len(ids) for ids in held if len(ids)]
    gaps = sum(bool(len(ids)) and (ids[0] != 1 or ids[-1] != len(ids)) for ids in held)
    if not tops or gaps > len(tops) // 20:
        return False
    if len(tops) == 1:
        return tops[0] > MANY_VALUES
    distinct = len(set(tops))
    return (max(tops) >= 10 and distinct >= len(tops) / 2) or (len(tops) >= 6 and max(tops) >= 6 and distinct >= 4)
