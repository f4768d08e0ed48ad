"""Receptive fields: which pixels of the image a pixel of a map depends on, exactly and along one axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Field:
    """Along one axis, the input pixels that each pixel of a map depends on; height and width are alike.

    Behind an upsampling, neighbouring pixels see differently placed windows, but the pattern repeats: pixel
    `q * period + phase` depends on input pixels `q * span + low[phase]` to `q * span + high[phase]`, as if the image
    had no border. A pixel that depends on nothing (bed of nails) has low = inf and high = -inf.
    """

    jump: int
    """Input pixels from one pixel of the map to the next: its stride."""
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of_image(cls, period: int) -> Field:
        """Returns the field of the image itself: each pixel is its own."""
        own = tuple(float(pixel) for pixel in range(period))
        return cls(1, own, own)

    @property
    def extent(self) -> int:
        """The most input pixels that a pixel depends on, along one axis."""
        return int(max(high - low + 1 for low, high in zip(self.low, self.high, strict=True)))

    @property
    def reach(self) -> int:
        """At stride 1: how far from a pixel's own place the farthest input pixel is that it depends on."""
        sides = [
            max(phase - low, high - phase) for phase, (low, high) in enumerate(zip(self.low, self.high, strict=True))
        ]
        return int(max(sides))

    def union(self, other: Field) -> Field:
        """Returns the field of a map whose pixels depend on what those of both maps do."""
        low = tuple(map(min, self.low, other.low))
        return Field(self.jump, low, tuple(map(max, self.high, other.high)))

    def down(self, stride: int, reads: Callable[[int], Iterable[int]]) -> Field | None:
        """Returns the field of a map `stride` times smaller whose pixel v reads this one's pixels `reads(v)`.

        None where the period does not hold that stride: then the field is not known.
        """
        if len(self.low) % stride:
            return None
        return self._read(self.jump * stride, len(self.low) // stride, reads)

    def up(self, stride: int, reads: Callable[[int], Iterable[int]]) -> Field | None:
        """Returns the field of a map `stride` times larger whose pixel v reads this one's pixels `reads(v)`."""
        if self.jump % stride:
            return None
        return self._read(self.jump // stride, len(self.low) * stride, reads)

    def _read(self, jump: int, period: int, reads: Callable[[int], Iterable[int]]) -> Field:
        windows = [[self._at(pixel) for pixel in reads(phase)] for phase in range(period)]
        low = tuple(min((low for low, _ in window), default=math.inf) for window in windows)
        return Field(jump, low, tuple(max((high for _, high in window), default=-math.inf) for window in windows))

    def _at(self, pixel: int) -> tuple[float, float]:
        turns, phase = divmod(pixel, len(self.low))
        shift = turns * self.jump * len(self.low)
        return self.low[phase] + shift, self.high[phase] + shift
