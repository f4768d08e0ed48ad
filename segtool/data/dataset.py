"""Samples: what a record becomes on its way to the network, as a pure function of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from segtool.config import Augment, Config
from segtool.data.augment import draw_geometry, jitter_color, warp_image, warp_mask
from segtool.data.formats import Record
from segtool.data.images import read_image
from segtool.data.labels import Labels
from segtool.data.opening import shown
from segtool.errors import DataError


class Sample(NamedTuple):
    """One image with its target, or a batch of them; `indices` says which records they are."""

    image: Tensor  # C H W, uint8, or float32 in 0..255 from a 16-bit file
    target: Tensor  # H W, uint8 class indices, IGNORE where it does not count
    indices: Tensor  # scalar int64


@dataclass(frozen=True)
class Reader:
    """Reads records as a config says."""

    labels: Labels
    channels: int
    exif: str
    max_pixels: int

    @classmethod
    def of(cls, config: Config) -> Reader:
        """Returns the reader of a config."""
        data = config.data
        return cls(Labels.from_config(data), data.channels, data.exif, config.limits.max_pixels)

    def image(self, record: Record) -> np.ndarray:
        """Returns the image H W C."""
        return read_image(record.image, channels=self.channels, exif=self.exif, max_pixels=self.max_pixels)

    def pair(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        """Returns image H W C and class indices H W. Raises DataError where their sizes differ."""
        if record.mask is None:
            raise DataError(f"{shown(record.image)}: has no mask")
        image, target = self.image(record), self.labels.read(record.mask, max_pixels=self.max_pixels)
        if image.shape[:2] != target.shape:
            (height, width), (mask_height, mask_width) = image.shape[:2], target.shape
            raise DataError(
                f"{shown(record.mask)}: {mask_width}x{mask_height} pixels, but its image {shown(record.image)} has "
                f"{width}x{height}; a mask must have its image's size: run `segtool check`"
            )
        return image, target


class TrainingSet(Dataset[Sample | DataError]):
    """Augmented crops by (epoch, index). A file that cannot be used comes back as its DataError.

    An exception would reach the main process with a worker's traceback around it; `loader.batches` raises it there.
    """

    def __init__(
        self, records: Sequence[Record], reader: Reader, augment: Augment, crop: tuple[int, int], seed: int
    ) -> None:
        self.records = records
        self.reader = reader
        self.augment = augment
        self.crop = crop
        self.seed = seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: tuple[int, int]) -> Sample | DataError:
        epoch, number = index
        try:
            image, target = self.reader.pair(self.records[number])
        except DataError as error:
            return error
        rng = np.random.default_rng([self.seed, epoch, number])
        geometry = draw_geometry(rng, target.shape, self.crop, self.augment)
        fill = image.mean((0, 1), dtype=np.float64) if geometry.box is None else np.zeros(image.shape[2])
        image = warp_image(image, geometry, fill)
        if self.augment.color:
            image = jitter_color(image, rng, self.augment.color)
        return to_sample(image, warp_mask(target, geometry), number)


class EvaluationSet(Dataset[Sample | DataError]):
    """Whole images by index, at their own size."""

    def __init__(self, records: Sequence[Record], reader: Reader) -> None:
        self.records = records
        self.reader = reader

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample | DataError:
        try:
            return to_sample(*self.reader.pair(self.records[index]), index)
        except DataError as error:
            return error


def to_sample(image: np.ndarray, target: np.ndarray, index: int) -> Sample:
    """Returns the tensors of an image H W C and a target H W."""
    # Pillow's pixels are read-only, and with one channel they are contiguous already: tensors must own what they hold.
    chw = np.require(np.moveaxis(image, 2, 0), requirements=["C", "W"])
    return Sample(torch.from_numpy(chw), torch.from_numpy(np.array(target)), torch.tensor(index))


def permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    """Returns the order of the training images in an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(length)


def stream_keys(seed: int, length: int, start: int, stop: int) -> list[tuple[int, int]]:
    """Returns the keys (epoch, index) at the positions start..stop of the endless stream of permutations."""
    keys = []
    for epoch in range(start // length, (stop - 1) // length + 1):
        order = permutation(seed, epoch, length)
        first, last = max(start - epoch * length, 0), min(stop - epoch * length, length)
        keys += [(epoch, int(index)) for index in order[first:last]]
    return keys
