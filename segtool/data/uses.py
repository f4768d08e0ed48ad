"""What masks mean under a config, told by their histograms: no mask is decoded again for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segtool.config import Config
from segtool.data.codes import IGNORE
from segtool.data.facts import MaskFacts, look_at_masks
from segtool.data.labels import Labels


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
        self._known: dict[tuple[object, ...], tuple[int, int]] = {}
        self._indices: dict[tuple[object, ...], np.ndarray] = {}

    def use(self, mask: MaskFacts) -> Use:
        """Returns what a readable mask means."""
        mask = mask.seen_by(self.labels.data.encoding)
        kind = (mask.mode, mask.step, mask.lossy, mask.colored, mask.palette, mask.veiled > 0)
        key = (*kind, mask.values.tobytes())
        if key in self._indices:  # another mask of the same values, all known
            pixels = np.bincount(self._indices[key], mask.counts, self.labels.num_classes + 1).astype(np.int64)
            return Use(pixels[:-1], int(pixels[-1]))
        return self._use(mask, key)

    def _use(self, mask: MaskFacts, key: tuple[object, ...]) -> Use:
        pixels = np.zeros(self.labels.num_classes + 1, np.int64)  # the last: ignored
        if reason := self.labels.misfit(mask.stored(mask.values)):
            return Use(pixels[:-1], error=reason)
        unknown = np.zeros(len(mask.values), bool)
        if mask.colored or self.labels.data.encoding == "index":  # what is stored is what is looked up
            unknown = np.isin(mask.values, list(self.labels.unknown(mask.stored(mask.values))))
        elif self.labels.unknown(mask.stored(mask.values)):
            return self._use_by_value(mask, pixels)
        indices = self.labels.decode(mask.stored(mask.values[~unknown]), mask.path)[0]
        places = np.where(indices == IGNORE, self.labels.num_classes, indices)
        if not unknown.any():
            self._indices[key] = places
        np.add.at(pixels, places, mask.counts[~unknown])
        strange = dict(zip(mask.values[unknown].tolist(), mask.counts[unknown].tolist(), strict=True))
        return Use(pixels[:-1], int(pixels[-1]), strange)

    def _use_by_value(self, mask: MaskFacts, pixels: np.ndarray) -> Use:
        """Returns the same for grey and palette masks that are read by colour: at most 256 values."""
        unknown: dict[int, int] = {}
        for value, count in zip(mask.values.tolist(), mask.counts.tolist(), strict=True):
            index, code = self._decode(mask, value)
            if index < 0:
                unknown[code] = unknown.get(code, 0) + count
            else:
                pixels[self.labels.num_classes if index == IGNORE else index] += count
        return Use(pixels[:-1], int(pixels[-1]), unknown)

    def _decode(self, mask: MaskFacts, value: int) -> tuple[int, int]:
        """Returns a value's class index, or -1 and the value or packed colour that is no class."""
        key = (value, mask.mode, mask.step, mask.colored, mask.palette)
        if key not in self._known:
            stored = mask.stored(np.array([value]))
            unknown = self.labels.unknown(stored)
            index = -1 if unknown else int(self.labels.decode(stored, mask.path)[0, 0])
            self._known[key] = index, next(iter(unknown), value)
        return self._known[key]


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
