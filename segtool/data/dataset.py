"""Samples: what a record becomes on its way to the network, as a pure function of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from segtool.config import Augment
from segtool.data.augment import augment_pair
from segtool.data.cache import Cache
from segtool.data.pairs import Record
from segtool.data.photometry import require_jpeg_holds
from segtool.data.reader import Reader
from segtool.data.statistics import ClassFrequencies
from segtool.errors import DataError


class Sample(NamedTuple):
    """One image with its target, or a batch of them; `indices` says which records they are."""

    image: Tensor  # C H W, uint8, or float32 in 0..255 from a 16-bit file
    target: Tensor  # H W, uint8 class indices, IGNORE where it does not count
    indices: Tensor  # scalar int64


class TrainingSet(Dataset[Sample | DataError]):
    """Augmented crops by (epoch, index). A file that cannot be used comes back as its DataError.

    An exception would reach the main process with a worker's traceback around it; `loader.batches` raises it there.
    """

    def __init__(
        self,
        records: Sequence[Record],
        reader: Reader,
        augment: Augment,
        crop: tuple[int, int],
        seed: int,
        frequencies: ClassFrequencies | None = None,
        *,
        cache: Cache | None = None,
    ) -> None:
        """Holds what makes the samples; `frequencies` are needed where `augment.rare` is above 0.

        With a `cache` each file is decoded once, as long as there is room; it changes no sample.
        """
        self.records = records
        self.reader = reader
        self.augment = augment
        self.crop = crop
        self.seed = seed
        self.class_pixels = None if frequencies is None else frequencies.pixels
        self.cache = cache

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: tuple[int, int]) -> Sample | DataError:
        epoch, number = index
        try:
            image, target = self._pair(number)
            require_jpeg_holds(image, self.records[number].image, self.augment)
        except DataError as error:
            return error
        rng = np.random.default_rng([self.seed, epoch, number])
        image, target = augment_pair(
            image, target, rng, crop=self.crop, augment=self.augment, class_pixels=self.class_pixels
        )
        return to_sample(image, target, number)

    def _pair(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns image H W C and class indices H W, which may be those in the cache."""
        kept = self.cache.get(number) if self.cache else None
        if kept is not None:
            return kept
        pair = self.reader.pair(self.records[number])
        if self.cache:
            self.cache.put(number, *pair)
        return pair


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
    """Returns the tensors of an image H W C and a target H W; the image's pixels stay where they are, channels last."""
    # Pillow's pixels are read-only: tensors must own what they hold.
    pixels, target = (np.require(array, requirements=["C", "W"]) for array in (image, target))
    return Sample(torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(target), torch.tensor(index))


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
