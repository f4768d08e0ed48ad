"""Scores of a network on a split."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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

IGNORED = -1  # stands for a cell of the confusion matrix


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
    mine = [np.empty((0, 3), np.int64)]  # rows of index, cell of its matrix, pixels; one of IGNORED for each image
    for batch in reporter.track(batches, total=share, unit="image", label="scoring"):
        target = batch.target[0].numpy()
        image = dataset.records[int(batch.indices[0])].image
        with shortage_told(partial(advise, image, target.shape)):
            prediction = predictor.classes(batch.image[0], tile)
        counts = confusion_matrix(target, prediction, labels.num_classes).ravel()
        index, cells = int(batch.indices[0]), counts.nonzero()[0]
        if note:
            note(index, prediction)
        rows = np.empty((1 + len(cells), 3), np.int64)
        rows[0] = index, IGNORED, np.count_nonzero(target == IGNORE)
        rows[1:, 0], rows[1:, 1], rows[1:, 2] = index, cells, counts[cells]
        mine.append(rows)
    found = world.gather(torch.from_numpy(np.concatenate(mine))).numpy()
    begins = (found[:, 1] == IGNORED).nonzero()[0]
    assert len(begins) == len(dataset)
    images = [
        ImageScore(dataset.records[rows[0, 0]].stem, labels.num_classes, rows[1:, 1], rows[1:, 2], int(rows[0, 2]))
        for rows in sorted(np.split(found, begins)[1:], key=lambda rows: rows[0, 0])
    ]
    return Scores.of(labels.names, images)
