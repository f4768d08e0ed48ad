"""Scores of a network on a split."""

from __future__ import annotations

import numpy as np

from segtool.data.dataset import EvaluationSet
from segtool.data.labels import IGNORE
from segtool.data.loader import evaluation_batches
from segtool.distributed import World
from segtool.inference import Predictor
from segtool.metrics import ImageScore, Scores, confusion_matrix
from segtool.terminal import Reporter


def evaluate(
    predictor: Predictor,
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
