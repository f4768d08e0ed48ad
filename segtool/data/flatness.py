"""Whether pictures hold values in areas, as masks do and photographs do not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segtool.config import Limits
from segtool.data.facts import MaskFacts, look_at_masks
from segtool.data.statistics import evenly

SAMPLE = 3
MOST_VALUES = 64
AREAS = 0.5
"""2x2 blocks of one value for each pixel; of photographs hardly any."""


def sample_of(files: Sequence[Path]) -> list[MaskFacts]:
    """Returns what a few of the files, evenly spaced, hold as masks."""
    sample = [files[place] for place in evenly(len(files), SAMPLE)]
    return list(look_at_masks(sample, max_pixels=Limits().max_pixels).values())


def are_flat(files: Sequence[Path]) -> bool:
    """Whether some of the files hold values in areas each, as `hold_areas`."""
    return hold_areas(sample_of(files))


def hold_areas(sample: Sequence[MaskFacts]) -> bool:
    """Whether files can be read as masks, and hold values in areas each.

    Those are a few, or ids of objects: where there are many, all but the most frequent one lie in areas by themselves.
    """
    return bool(sample) and all(not mask.error and _holds_areas(mask) for mask in sample)


def _holds_areas(mask: MaskFacts) -> bool:
    counts, solid = mask.counts, mask.solid
    if len(mask.values) > MOST_VALUES:
        counts, solid = (np.delete(numbers, mask.counts.argmax()) for numbers in (counts, solid))
    return bool(solid.sum() >= AREAS * counts.sum())
