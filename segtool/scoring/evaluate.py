"""Scores of a network on a split."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from segtool.data.codes import IGNORE
from segtool.data.dataset import EvaluationSet
from segtool.data.loader import evaluation_batches
from segtool.prediction.inference import BandPredictor, tile_advice
from segtool.scoring.metrics import ImageScore, Scores, confusion_matrix
from segtool.system.distributed import World
from segtool.system.shortage import shortage_told
from segtool.system.terminal import Reporter


def evaluate(
    predictor: BandPredictor,
    dataset: EvaluationSet,
    world: World,
    *,
    workers: int,
    reporter: Reporter,
    tile: int | None = None,
    advise: Callable[[Path, tuple[int, int]], str] | None = None,
    note: Callable[[int, NDArray[np.uint8]], object] | None = None,
) -> Scores:
    """Returns the scores over a data set, each image at its own size.

    Every process takes every world-th image and returns the scores of all of them, whatever their number.

    Args:
        advise: Returns what to say of an image, with its height and width, whose prediction takes too much memory;
            None: the tile to try.
        note: Called with the index of each image that this process takes, and its predicted classes H W.

    Raises:
        DataError: an image or a mask cannot be used.
        ShortageError: memory does not suffice.
    """
    labels = dataset.reader.labels
    advise = advise or partial(tile_advice, predictor, tile=tile)
    batches = evaluation_batches(dataset, world, workers=workers)
    share = len(range(world.rank, len(dataset), world.size))
    mine = np.empty((share, 2 + labels.num_classes**2), np.int64)  # index, ignored pixels, confusion
    for row, batch in zip(mine, reporter.track(batches, total=share, unit="image", label="scoring"), strict=True):
        target = batch.target[0].numpy()
        image = dataset.records[int(batch.indices[0])].image
        with shortage_told(partial(advise, image, target.shape)):
            prediction = predictor.classes(batch.image[0], tile)
        matrix = confusion_matrix(target, prediction, labels.num_classes)
        if note:
            note(int(batch.indices[0]), prediction)
        row[:2], row[2:] = (int(batch.indices[0]), np.count_nonzero(target == IGNORE)), matrix.ravel()
    images = [
        ImageScore(dataset.records[row[0]].stem, row[2:].reshape(labels.num_classes, -1), int(row[1]))
        for row in sorted(world.gather(torch.from_numpy(mine)).numpy(), key=itemgetter(0))
    ]
    return Scores.of(labels.names, images)
