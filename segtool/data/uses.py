"""What masks mean under a config, told by their histograms: no mask is decoded again for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segtool.config import Config
from segtool.data.facts import MaskFacts, look_at_masks
from segtool.data.labels import Labels

MOST_VALUES = 256  # of a mask whose classes are kept for others of the same values


@dataclass(frozen=True)
class Use:
    """What a mask means under the config."""

    pixels: np.ndarray
    """K: pixels of each class."""
    ignored: int = 0
    """Pixels that do not count."""
    unknown: dict[int, int] = field(default_factory=dict)
    """Pixels of each stored value (or packed colour) that is neither a class nor ignored."""
    error: str = ""
    """Why the encoding does not read this kind of mask at all."""


class Decoder:
    """Counts classes from histograms."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self._places: dict[tuple[object, ...], np.ndarray] = {}

    def use(self, mask: MaskFacts) -> Use:
        """Returns what a readable mask means."""
        mask, classes = mask.seen_by(self.labels.data.encoding), self.labels.num_classes
        places = self._places_of(mask)
        if isinstance(places, str):
            return Use(np.zeros(classes, np.int64), error=places)
        pixels = np.bincount(places, mask.counts, classes + 2).astype(np.int64)
        strange = places > classes
        unknown: Counter[int] = Counter()
        if strange.any():
            codes = self.labels.plain(mask.stored(mask.values[strange]))[0]  # of several palette indices it may be one
            for code, count in zip(codes.tolist(), mask.counts[strange].tolist(), strict=True):
                unknown[code] += count
        return Use(pixels[:classes], int(pixels[classes]), unknown)

    def sample(self, mask: MaskFacts) -> np.ndarray | None:
        """Returns the classes of a mask's `sample`, from K on what is none; None where it is not read or has none."""
        mask = mask.seen_by(self.labels.data.encoding)
        places = self._places_of(mask)
        if isinstance(places, str) or not mask.sample.size:
            return None
        return places[np.searchsorted(mask.values, mask.sample)]

    def _places_of(self, mask: MaskFacts) -> np.ndarray | str:
        """Returns the class of each value of a mask, as `Labels.places` has them, or why it is not read."""
        kind = (mask.mode, mask.step, mask.lossy, mask.colored, mask.palette, mask.veiled > 0)
        key = (*kind, mask.values.tobytes())
        if key in self._places:
            return self._places[key]
        stored = mask.stored(mask.values)
        if reason := self.labels.misfit(stored):
            return reason
        places = self.labels.places(stored)[0].astype(np.int16)  # a quarter of the memory of all samples
        if len(places) <= MOST_VALUES:
            self._places[key] = places
        return places


def class_pixels(config: Config, masks: Iterable[Path]) -> dict[Path, np.ndarray]:
    """Returns the pixels of each class in each mask, K int64; ignored ones count nowhere.

    Raises:
        DataError: a mask cannot be read, or holds a value that is neither a class nor ignored.
    """
    labels, max_pixels = Labels.from_config(config.data), config.limits.max_pixels
    decoder = Decoder(labels)
    found: dict[Path, np.ndarray] = {}
    for mask, facts in look_at_masks(masks, max_pixels=max_pixels).items():
        use = None if facts.error else decoder.use(facts)
        if use is None or use.error or use.unknown:
            indices = labels.read(mask, max_pixels=max_pixels)  # raises, with file and pixel
            found[mask] = np.bincount(indices.ravel(), minlength=256)[: labels.num_classes]
        else:
            found[mask] = use.pixels
    return found
