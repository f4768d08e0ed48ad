"""Whether pictures hold a few values in areas, as masks do and photographs do not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segtool.config import Limits
from segtool.data.facts import look_at_masks
from segtool.data.statistics import evenly

SAMPLE = 3
MOST_VALUES = 64
AREAS = 0.5
"""2x2 blocks of one value for each pixel; of photographs hardly any."""


def are_flat(files: Sequence[Path]) -> bool:
    """Whether some of the files, evenly spaced, can be read as masks and hold a few values in areas each."""
    sample = [files[place] for place in evenly(len(files), SAMPLE)]
    facts = look_at_masks(sample, max_pixels=Limits().max_pixels).values()
    return bool(sample) and all(
        not mask.error and len(mask.values) <= MOST_VALUES and mask.solid.sum() >= AREAS * mask.counts.sum()
        for mask in facts
    )
