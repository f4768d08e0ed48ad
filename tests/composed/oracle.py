"""What masks mean under a config, and how predictions score: written slowly, of Pillow, NumPy and the YAML alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from composed.storing import IGNORED

UNKNOWN = 254


@dataclass(frozen=True)
class Meaning:
    """What the stored codes of a config mean."""

    encoding: str
    nearest: bool
    ranges: tuple[tuple[int, int, int], ...]
    """Lowest and highest code and the class of each entry, in the order of the config, the ignored ones last."""
    first: tuple[int, ...]
    """What each class is written with."""

    @classmethod
    def of(cls, data: dict[str, Any]) -> Meaning:
        """Returns the meaning of the section `data` of a config."""
        ranges, first = [], []
        for index, item in enumerate(data["classes"]):
            own = [_range(entry) for entry in (item.get("values") or item.get("colors"))]
            first.append(own[0][0])
            ranges += [(low, high, index) for low, high in own]
        ranges += [(*_range(entry), IGNORED) for entry in data.get("ignore", [])]
        return cls(data.get("encoding", "index"), bool(data.get("nearest", False)), tuple(ranges), tuple(first))

    def codes(self, path: Path) -> np.ndarray:
        """Returns H W int64: the values, opacity or packed colours that a mask's file holds."""
        with Image.open(path) as image:
            if self.encoding in ("rgb", "palette"):
                red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")).astype(np.int64), -1, 0)
                return red * 65536 + green * 256 + blue
            if self.encoding == "alpha":
                return np.asarray(image.getchannel("A")).astype(np.int64)
            return np.asarray(image).astype(np.int64)

    def truth(self, path: Path) -> np.ndarray:
        """Returns H W uint8: class, IGNORED or UNKNOWN of each pixel of a mask."""
        codes = self.codes(path)
        meant = {int(code): self._class_of(int(code)) for code in np.unique(codes)}
        return np.vectorize(meant.__getitem__, otypes=[np.uint8])(codes)

    def prediction(self, path: Path) -> np.ndarray:
        """Returns H W uint8: class of each pixel of a predicted mask, UNKNOWN for all but the first code of a class."""
        codes = self.codes(path)
        indices = np.full(codes.shape, UNKNOWN, np.uint8)
        for index, code in enumerate(self.first):
            indices[codes == code] = index
        return indices

    def _class_of(self, code: int) -> int:
        if self.encoding in ("threshold", "alpha"):  # halfway between two, the upper one
            return min(self.ranges, key=lambda own: (_outside(code, own), -own[0]))[2]
        if self.nearest:
            return min(self.ranges, key=lambda own: _distance(code, own[0]))[2]
        return next((index for low, high, index in self.ranges if low <= code <= high), UNKNOWN)


def confusion(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns how many pixels of each class (rows) were predicted as each (columns), ignored ones aside."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    for row in range(num_classes):
        for column in range(num_classes):
            counts[row, column] = int(((truth == row) & (prediction == column)).sum())
    return counts


def _range(entry: str | int) -> tuple[int, int]:
    if isinstance(entry, int):
        return entry, entry
    if entry.startswith("#"):
        return int(entry[1:], 16), int(entry[1:], 16)
    low, _, high = entry.partition("..")
    return int(low), int(high or low)


def _outside(code: int, own: tuple[int, int, int]) -> int:
    return max(own[0] - code, code - own[1], 0)


def _distance(one: int, another: int) -> int:
    return sum(((one >> shift & 255) - (another >> shift & 255)) ** 2 for shift in (16, 8, 0))
