"""Masks of which several people drew each, stored as their mean: levels of grey between what lies behind and object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segtool.config import Limits
from segtool.data.facts import MaskFacts
from segtool.data.masks import read_mask
from segtool.data.statistics import evenly
from segtool.init.evidence import COMMON_SHARE, Guess, guess_levels, listed, rounded_share

FEWEST, MOST = 4, 17  # levels: of three people or more
SAMPLE = 20
MOST_DIFFER = 0.5
"""Of what all agree on, so much is the largest level between; what lies around a tumour's core is more."""
LEAST = 0.25
"""Of the neighbours of a level's pixels, so many are lower, and so many higher: classes beside a ground have none of
one kind."""


def guess_mean_of_people(guess: Guess, masks: Sequence[MaskFacts]) -> Guess:
    """Returns 0 and 255 in place of evenly spaced levels that always lie between lower and higher ones."""
    levels = [codes[0] for codes in guess.codes]
    inner = guess.shares[1:-1]
    if guess.encoding != "index" or guess.ignore or guess.spans or not FEWEST <= len(levels) <= MOST:
        return guess
    even = np.abs(np.array(levels) - np.linspace(0, 255, len(levels))).max() < 1
    most = min(COMMON_SHARE, MOST_DIFFER * min(guess.shares[0], guess.shares[-1]))
    if not even or max(inner) > most or not _lie_between(levels, masks):
        return guess
    reason = (
        f"{listed(levels)}: evenly spaced levels, each of which lies between a lower and a higher one, as in the mean "
        f"of what several people drew; each pixel counts as the nearer of 0 and 255, from 128 on as 255, which moves "
        f"{rounded_share(sum(inner))} of them"
    )
    return guess_levels([0, 255], guess.totals, reason)


def _lie_between(levels: Sequence[int], masks: Sequence[MaskFacts]) -> bool:
    lower, higher = np.zeros(256, np.int64), np.zeros(256, np.int64)
    readable = [mask.path for mask in masks if not mask.error and mask.values.max(initial=0) < 256]
    for index in evenly(len(readable), SAMPLE):
        values = read_mask(readable[index], max_pixels=Limits().max_pixels).values
        for one, other in ((values[1:], values[:-1]), (values[:, 1:], values[:, :-1])):
            differ = one != other
            small, large = np.minimum(one, other)[differ], np.maximum(one, other)[differ]
            higher += np.bincount(small.ravel(), minlength=256)
            lower += np.bincount(large.ravel(), minlength=256)
    inner = levels[1:-1]
    fewer, all_of_them = np.minimum(lower, higher)[inner], (lower + higher)[inner]
    return bool((all_of_them > 0).all() and (fewer >= LEAST * all_of_them).all())
