"""Stored codes of classes: single values, ranges and colours, taken from a config and looked up in arrays.

A colour is packed into an integer, 0xRRGGBB, so that grey values, palette indices and colours are looked up alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segtool.config import Data
from segtool.config.rules import interval

IGNORE = 255
"""Index of pixels that are neither trained on nor scored; so there are at most 255 classes."""
UNKNOWN = -1
"""Index of stored values that are neither a class nor ignored."""


@dataclass(frozen=True, eq=False)
class Codes:
    """Disjoint intervals of stored integers, ascending, and the index that each means."""

    lowest: np.ndarray
    highest: np.ndarray
    indices: np.ndarray

    def intervals(self) -> list[tuple[int, int]]:
        """Returns the lowest and the highest code of each interval."""
        return list(zip(self.lowest.tolist(), self.highest.tolist(), strict=True))

    def exact(self, values: np.ndarray) -> np.ndarray:
        """Returns the int16 index of each value, UNKNOWN outside of all intervals."""
        place = np.searchsorted(self.lowest, values, side="right") - 1
        inside = (place >= 0) & (values <= self.highest[place])
        return np.where(inside, self.indices[place], UNKNOWN).astype(np.int16)

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """Returns the int16 index of the interval nearest to each value; halfway between two, the upper one."""
        wide = values.astype(np.int64)
        below = np.clip(np.searchsorted(self.lowest, wide, side="right") - 1, 0, None)
        above = np.clip(below + 1, None, len(self.lowest) - 1)
        beyond = wide - self.highest[below]
        up = (beyond > 0) & (self.lowest[above] - wide <= beyond)
        return self.indices[np.where(up, above, below)].astype(np.int16)

    def nearest_color(self, colors: np.ndarray, order: Sequence[int]) -> np.ndarray:
        """Returns the int16 index of the packed colour nearest to each; of equally near ones the first in `order`."""
        distinct, inverse = np.unique(colors, return_inverse=True)
        known = np.array(order)
        best = np.zeros(len(distinct), np.intp)
        least = np.full(len(distinct), np.iinfo(np.int32).max, np.int32)
        for place, color in enumerate(known):
            distance = ((unpack(distinct).astype(np.int32) - unpack(color)) ** 2).sum(-1)
            best[distance < least] = place
            least = np.minimum(least, distance)
        return self.exact(known[best])[inverse].reshape(colors.shape)


def pack(colors: np.ndarray) -> np.ndarray:
    """Returns ... 3 uint8 colours as ... int32, 0xRRGGBB."""
    packed = colors[..., 0].astype(np.int32)
    for channel in (1, 2):
        packed <<= 8
        packed |= colors[..., channel]
    return packed


def unpack(packed: np.ndarray | np.integer) -> np.ndarray:
    """Returns ... integers 0xRRGGBB as ... 3 uint8 colours."""
    wide = np.asarray(packed)
    return np.stack([(wide >> shift) & 255 for shift in (16, 8, 0)], axis=-1).astype(np.uint8)


def code_interval(data: Data, code: int | str) -> tuple[int, int]:
    """Returns the lowest and the highest stored integer that a value, a range or a colour of a config means."""
    if data.by_color:
        color = int(str(code)[1:], 16)
        return color, color
    bounds, problem = interval(code)
    assert not problem, problem  # a rule of the config has seen it
    return bounds


def unpack_palette(text: str) -> list[int]:
    """Returns the packed colours of `data.palette`."""
    return [int(text[start : start + 6], 16) for start in range(0, len(text), 6)]
