"""Pictures of validation images with their truth and their prediction, which show what a score is made of."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from segtool.data.dataset import EvaluationSet
from segtool.data.draw import png
from segtool.data.draw import sample as draw_sample
from segtool.data.statistics import evenly
from segtool.prediction.inference import Predictor
from segtool.system import disk

LONGEST_NAME = 251  # bytes of a sample's name before its suffix: file systems take 255
KEPT = 2**27  # bytes of predictions


class Samples:
    """Up to `count` evenly spaced images of a data set; what a validation predicts of them is kept till it is drawn."""

    def __init__(self, dataset: EvaluationSet, count: int) -> None:
        self.dataset = dataset
        chosen = evenly(len(dataset), count)
        names = sample_names([dataset.records[index].stem for index in chosen])
        self.names = dict(zip(chosen, names, strict=True))
        """Of the pictures, by the index of the image."""
        self._predictions: dict[int, NDArray[np.uint8]] = {}

    def require_places(self, directory: Path) -> None:
        """Raises DiskError where something else than a file is in the place of a picture."""
        for name in self.names.values():
            disk.require_plain(directory / name)

    def note(self, index: int, prediction: NDArray[np.uint8]) -> None:
        """Keeps the predicted classes H W of an image, if it is one of the samples and they are not too large."""
        if index in self.names:
            self._predictions.pop(index, None)
            if prediction.nbytes + sum(kept.nbytes for kept in self._predictions.values()) <= KEPT:
                self._predictions[index] = prediction

    def draw(self, predictor: Predictor, directory: Path) -> None:
        """Writes a picture of each; one whose prediction was not kept, or made by another process, is predicted."""
        for name, picture in self.pictures(predictor):
            disk.make_folder(directory)
            disk.write_atomically(directory / name, picture)

    def pictures(self, predictor: Predictor) -> Iterator[tuple[str, bytes]]:
        """Yields name and PNG file of each: image, truth and prediction side by side."""
        reader = self.dataset.reader
        for index, name in self.names.items():
            image, truth = reader.pair(self.dataset.records[index])
            prediction = self._predictions.get(index)
            if prediction is None:
                prediction = predictor.classes(torch.from_numpy(image).permute(2, 0, 1))
            yield name, png(draw_sample(image, truth, prediction, reader.labels.colors, reader.labels.names))


def sample_names(stems: Sequence[str]) -> list[str]:
    """Returns names of files in one folder, which end in a hash of the stem where they would be too long or alike."""
    joined = [stem.replace("/", "_") for stem in stems]
    hashed = [
        f"{os.fsencode(name)[: LONGEST_NAME - 9].decode(errors='ignore')}-{zlib.crc32(os.fsencode(stem)):08x}"
        for stem, name in zip(stems, joined, strict=True)
    ]
    fits = [len(os.fsencode(name)) <= LONGEST_NAME and joined.count(name) == 1 for name in joined]
    return [f"{name if fit else other}.png" for name, other, fit in zip(joined, hashed, fits, strict=True)]
