"""Reads a record as its config says: the image, and with it what its mask means. Torch is not needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from segtool.config import Config
from segtool.data.images import read_views
from segtool.data.labels import Labels
from segtool.data.pairs import Record
from segtool.errors import DataError, shown


@dataclass(frozen=True)
class Reader:
    """Reads records as a config says."""

    labels: Labels
    channels: tuple[int, ...]
    """The numbers of channels that an image is read with, one after the other; several only for an ensemble."""
    exif: str
    max_pixels: int

    @classmethod
    def of(cls, config: Config) -> Self:
        """Returns the reader of a config."""
        data = config.data
        return cls(Labels.from_config(data), (data.channels,), data.exif, config.limits.max_pixels)

    def image(self, record: Record) -> np.ndarray:
        """Returns the image H W C."""
        return read_views(record.image, self.channels, exif=self.exif, max_pixels=self.max_pixels)

    def pair(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        """Returns image H W C and class indices H W. Raises DataError where their sizes differ."""
        image, target = self.image(record), self.labels.read(record.truth, max_pixels=self.max_pixels)
        if image.shape[:2] != target.shape:
            (height, width), (mask_height, mask_width) = image.shape[:2], target.shape
            raise DataError(
                f"{shown(record.truth)}: {mask_width}x{mask_height} pixels, but its image {shown(record.image)} has "
                f"{width}x{height}; a mask must have its image's size: run `segtool check`"
            )
        return image, target
