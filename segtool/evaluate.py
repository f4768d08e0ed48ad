"""Scores of a network on a split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segtool.config import Config
from segtool.data.dataset import EvaluationSet
from segtool.data.formats import Record
from segtool.data.labels import IGNORE
from segtool.data.loader import evaluation_batches
from segtool.data.reader import Reader
from segtool.distributed import World
from segtool.ensemble import read_views
from segtool.inference import BandPredictor
from segtool.metrics import ImageScore, Scores, confusion_matrix
from segtool.terminal import Reporter


def evaluate(
    predictor: BandPredictor,
    dataset: EvaluationSet,
    world: World,
    *,
    workers: int,
    reporter: Reporter,
    tile: int | None = None,
) -> Scores:
    """Returns the scores over a data set, each image at its own size.

    Raises:
        DataError: an image or a mask cannot be used.
    """
    labels = dataset.reader.labels
    images = []
    batches = evaluation_batches(dataset, world, workers=workers)
    for batch in reporter.track(batches, total=len(dataset), unit="image", label="scoring"):
        prediction = predictor.classes(batch.image[0], tile)
        target = batch.target[0].numpy()
        stem = dataset.records[int(batch.indices[0])].stem
        matrix = confusion_matrix(target, prediction, labels.num_classes)
        images.append(ImageScore(stem, matrix, int(np.count_nonzero(target == IGNORE))))
    assert world.size == 1, "the distributed run gathers the images' matrices here"
    return Scores.of(labels.names, images)


@dataclass(frozen=True)
class ViewsReader(Reader):
    """Reads a record with its image once for each number of channels that a predictor takes."""

    views: tuple[int, ...] = ()

    def image(self, record: Record) -> np.ndarray:
        """Returns the image H W C, all its views one after the other along C."""
        return read_views(record.image, self.views, exif=self.exif, max_pixels=self.max_pixels)


def reader_for(predictor: BandPredictor, config: Config) -> Reader:
    """Returns what reads records for `evaluate`: the masks as the config says, the images as the predictor needs."""
    return ViewsReader(**vars(Reader.of(config)), views=predictor.channels)
