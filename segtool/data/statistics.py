"""What is measured on the training images before training, and how often each class occurs in their masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from segtool.config import Config
from segtool.config.sections import Seen
from segtool.data.labels import resolve
from segtool.data.masks import read_mask
from segtool.data.pairs import Record
from segtool.data.reader import Reader
from segtool.data.uses import class_pixels
from segtool.system.pools import in_threads

MAX_IMAGES = 500  # evenly spaced training images that mean and deviation are measured on
BLOCK = 1 << 20  # pixels that are summed at a time, which bounds the memory


def evenly(length: int, most: int) -> list[int]:
    """Returns up to `most` places of a sequence, evenly spaced from its first to its last."""
    return np.linspace(0, length - 1, min(length, most)).astype(int).tolist()


@dataclass(frozen=True)
class ClassFrequencies:
    """How often each class occurs in the training masks.

    `pixels[k]` counts class k; `present[k]` counts the pixels with a class in the images in which k occurs.
    """

    pixels: tuple[int, ...]
    present: tuple[int, ...]


def resolve_data(config: Config, records: Sequence[Record]) -> Config:
    """Returns the config with what its data leaves to the training files: mask format and palette, mean and
    deviation where it gives none, and what the images are like.

    Raises:
        DataError: an image or the first mask cannot be used.
    """
    data = config.data
    if records and records[0].mask is not None:
        data = resolve(data, read_mask(records[0].mask, max_pixels=config.limits.max_pixels))
    mean, std, seen = measure_images(config, records)
    return replace(config, data=replace(data, mean=data.mean or mean, std=data.std or std, seen=seen))


def measure_images(config: Config, records: Sequence[Record]) -> tuple[tuple[float, ...], tuple[float, ...], Seen]:
    """Returns mean and standard deviation of each channel in 0..1, over all pixels of up to 500 images, and what single
    ones of these have."""
    reader, some = Reader.of(config), [records[place] for place in evenly(len(records), MAX_IMAGES)]
    sizes, sums = zip(*in_threads(lambda record: _size_and_sums(reader.image(record)), some), strict=True)
    mean, std = mean_and_std(np.sum(sums, axis=0))
    # A constant channel has no deviation; 1/255, the step of 8-bit values, is the least that is divided by.
    std = std.clip(min=1 / 255)
    means, stds = np.stack([mean_and_std(one) for one in sums], axis=1)  # N C each
    seen = Seen(_ranges(means), _ranges(stds), tuple((min(side), max(side)) for side in zip(*sizes, strict=True)))
    return _rounded(mean), _rounded(std), seen


def _size_and_sums(image: np.ndarray) -> tuple[tuple[int, int], np.ndarray]:
    height, width, _ = image.shape
    return (height, width), channel_sums(image)


def _ranges(values: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Returns the least and the largest of each column."""
    return tuple(zip(_rounded(values.min(0)), _rounded(values.max(0)), strict=True))


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 5) for value in values)


def mean_and_std(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of each channel, of what `channel_sums` returns or several of it added."""
    count, total, squares = sums
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))


def channel_sums(image: np.ndarray) -> np.ndarray:
    """Returns the number, the sum and the sum of squares of each channel's values in 0..1, 3 C float64."""
    flat = image.reshape(-1, image.shape[2])
    sums = np.zeros((3, image.shape[2]))
    for start in range(0, len(flat), BLOCK):
        # float64 for 16-bit images too: a running sum in float32 stops growing at 2^24.
        block = flat[start : start + BLOCK].astype(np.float64) / 255
        sums += np.stack([np.full(block.shape[1], len(block)), block.sum(0), np.square(block).sum(0)])
    return sums


def class_frequencies(config: Config, records: Sequence[Record]) -> ClassFrequencies:
    """Returns how often each class occurs in the masks of `records`. Raises DataError where one cannot be used."""
    masks = [record.truth for record in records]
    counted = class_pixels(config, masks)
    pixels = np.stack([counted[mask] for mask in masks])  # N K
    present = np.where(pixels > 0, pixels.sum(axis=1, keepdims=True), 0)
    return ClassFrequencies(tuple(pixels.sum(axis=0).tolist()), tuple(present.sum(axis=0).tolist()))
