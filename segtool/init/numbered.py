"""Masks that number objects instead of naming classes: background and object of them, and the evidence."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segtool.config import Limits
from segtool.config.rules import MAX_CLASSES
from segtool.data.codes import pack
from segtool.data.facts import MaskFacts
from segtool.data.masks import read_mask
from segtool.data.statistics import evenly
from segtool.init.evidence import MANY_VALUES, SOFT, Guess, total

CHANNELS = {"red": 0x010000, "green": 0x000100, "blue": 0x000001, "all three": 0x010101}
"""What a packed colour is a multiple of, by the channels that hold its number."""
FEWEST = 16  # numbers; as many may be classes
SAMPLE = 40
SINGLE = 0.5  # share of the numbers in each mask that are one region without bays; of classes hardly any
WIDE_SINGLE = 0.2  # the same in 16 bits, which are mostly used for ids
COUNTED = 0.9  # share of 1, 2, 3, … up to the highest number of each mask that it holds, where objects were counted
ALIKE = 0.8  # share of the numbers that have one size wherever they are whole
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
        evidence = _evidence([replace(mask, values=mask.values // unit) for mask in masks], (), unit)
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


def _evidence(masks: Sequence[MaskFacts], void: Sequence[int], unit: int = 1) -> str | None:
    """Returns what speaks for numbers of objects, or None.

    Args:
        unit: By which packed colours in the files are to be divided.
    """
    totals = total(masks)
    counted = (totals.values > 0) & ~np.isin(totals.values, void)
    ids = totals.values[counted]
    num = len(ids)
    if not num:
        return None
    what = f"{num} distinct values besides 0, up to {ids.max()}"
    if all(re.match(r"man_(seg|track)\d", mask.path.name) for mask in masks):
        return f"{what}; `man_seg` numbers cells, as the Cell Tracking Challenge does"
    wide = ids.max() > 255 or any(mask.mode.startswith("I") for mask in masks)
    if num > MAX_CLASSES and wide:
        return what
    others = [0, *void]
    held = [[value for value in mask.values.tolist() if value not in others] for mask in masks]
    if _counts_up(held):
        return f"{what}; each mask holds 1, 2, 3, … without a gap, up to another number"
    if num <= FEWEST or np.median(totals.solidity[counted]) < SOFT:  # the values of soft edges form no areas
        return None
    single, alike = _shape_of_numbers(masks, others, unit)
    if single >= SINGLE and _nearly_counts_up(held):
        return f"{what}; each mask holds most of 1, 2, 3, … up to another number, and most are one region of it"
    if num > MANY_VALUES and wide and single >= WIDE_SINGLE:
        return what
    if single >= SINGLE and alike >= ALIKE:
        return f"{what}; most are one region of a mask, and have one size wherever its edges do not cut them"
    return None


def _shape_of_numbers(masks: Sequence[MaskFacts], others: Sequence[int], unit: int) -> tuple[float, float]:
    """Returns the share of numbers that are one region of a mask, and of those that have one size where whole.

    Classes fall into pieces, and are larger in one picture than in the next. An object that several masks have is cut
    by their edges, as tiles of one picture cut it, or lies whole in each, where tiles overlap. The first is 0 where
    most masks hold one number alone.
    """
    single: list[bool] = []
    sizes: dict[int, set[int]] = defaultdict(set)
    seen = evenly(len(masks), SAMPLE)
    for index in seen:
        stored = read_mask(masks[index].path, max_pixels=Limits().max_pixels).values
        values = (pack(stored) if stored.ndim == 3 else stored) // unit
        edge = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
        found, pixels, tops = _regions(values)
        for place in np.flatnonzero(~np.isin(found, others)):
            single.append(tops[place] == 1)
            sizes[int(found[place])] |= set() if found[place] in edge else {int(pixels[place])}
    alike = [len(own) < 2 for own in sizes.values()]
    return float(np.mean(single)) * (len(single) >= 2 * len(seen)), float(np.mean(alike))


def _regions(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the values of a mask H W, their pixels, and how many of their runs along rows have none of them above.

    A region without bays has one such run.
    """
    begins = np.ones(values.shape, bool)
    begins[:, 1:] = values[:, 1:] != values[:, :-1]
    below = np.zeros(values.shape, bool)
    below[1:] = values[1:] == values[:-1]
    starts = np.flatnonzero(begins)
    found, owner = np.unique(values.ravel()[starts], return_inverse=True)
    lengths = np.diff(starts, append=values.size)
    tops = ~np.logical_or.reduceat(below.ravel(), starts)
    return found, np.bincount(owner, lengths), np.bincount(owner, tops)


def _counts_up(held: Sequence[list[int]]) -> bool:
    """Whether masks hold exactly 1..n, n differing: objects were counted. Classes leave gaps in some masks."""
    tops = [len(ids) for ids in held if len(ids)]
    gaps = sum(bool(ids) and (ids[0] != 1 or ids[-1] != len(ids)) for ids in held)
    if not tops or gaps > len(tops) // 20:
        return False
    if len(tops) == 1:
        return tops[0] > MANY_VALUES
    distinct = len(set(tops))
    return (max(tops) >= 10 and distinct >= len(tops) / 2) or (len(tops) >= 6 and max(tops) >= 6 and distinct >= 4)


def _nearly_counts_up(held: Sequence[list[int]]) -> bool:
    """Whether masks hold nearly all of 1..n, n differing much: of the objects counted some are hidden by others.

    Numbered teeth are mostly there too, but always up to about the same number.
    """
    tops = [max(ids) for ids in held if ids]
    differ = len(set(tops)) >= len(tops) / 2 and max(tops) >= 2 * min(tops)
    return differ and sum(map(len, held)) >= COUNTED * sum(tops)
