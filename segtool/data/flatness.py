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


def are_flat(files: Sequence[Path]) -> bool:
    """Whether some of the files, evenly spaced, can be read as masks and hold values in areas each.

    Those are a few, or ids of objects: where there are many, all but the most frequent one lie in areas by themselves.
    """
    sample = sample_of(files)
    facts = look_at_masks(sample, max_pixels=Limits().max_pixels).values()
    return bool(sample) and all(not mask.error and _holds_areas(mask) for mask in facts)


def sample_of(files: Sequence[Path]) -> list[Path]:
    """Returns a few of the files, evenly spaced."""
    return [files[place] for place in evenly(len(files), SAMPLE)]


def _holds_areas(mask: MaskFacts) -> bool:
    counts, solid = mask.counts, mask.solid
    if len(mask.values) > MOST_VALUES:
        counts, solid = (np.delete(numbers, mask.counts.argmax()) for numbers in (counts, solid))
    return bool(solid.sum() >= AREAS * counts.sum())
