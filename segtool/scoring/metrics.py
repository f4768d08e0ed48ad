"""Scores: one int64 confusion matrix over a data set, and pure functions of it. No torch.

Rows of a confusion matrix are truth, columns are prediction; pixels whose truth is ignored are not in it. With
`TP = C[k, k]`, `FN = C[k].sum() - TP` and `FP = C[:, k].sum() - TP`:

    iou        TP / (TP + FP + FN)             precision  TP / (TP + FP)
    dice       2 TP / (2 TP + FP + FN)         recall     TP / (TP + FN)

A ratio whose denominator is 0 is undefined: None, and it takes no part in a mean. A class that is in neither truth nor
prediction is therefore None throughout; one that is only predicted, or only missed, has IoU 0.

A standard error tells how far a score lies, typically, from that of all images of the kind: the images are taken as
drawn one by one, independent of each other, and the score as a ratio of sums over them (W. G. Cochran, "Sampling
Techniques", 3rd edition, 1977, section 6.4). With each image i's share `I_i` in the intersection `I` and `U_i` in the
union `U` of a class, N images and `d_i = (I_i - I/U U_i) / U`, it is `sqrt(N / (N - 1) sum d_i^2)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segtool.data.codes import IGNORE

Confusion = NDArray[np.int64]
SUMMARY = ("miou", "pixel_accuracy", "mean_accuracy", "mean_dice", "fw_iou")


def confusion_matrix(target: NDArray[np.uint8], prediction: NDArray[np.uint8], num_classes: int) -> Confusion:
    """Returns the K K int64 counts of (truth, prediction) over the pixels whose truth is not ignored.

    Args:
        target: Class indices of any shape, IGNORE where the truth does not count.
        prediction: Class indices of the same shape, each below `num_classes` wherever the truth counts.
    """
    truth, answer = target.ravel(), prediction.ravel()
    ends, lengths = equal_runs(truth, answer)
    counted = truth[ends] != IGNORE
    ends = ends[counted]
    return weighted_confusion(truth[ends], answer[ends], lengths[counted], num_classes)


def equal_runs(target: np.ndarray, prediction: np.ndarray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Returns the last pixel of each run of equal pairs (truth, prediction), and its length.

    Masks are made of runs: a pair of CamVid's 480x360 pixels has 8,000. Finding them takes a fifth of the time of
    counting every pixel, and all that follows has a twentieth to do.

    Args:
        target: Values in row-major order, or colours N C.
        prediction: Values or colours of the same pixels.
    """
    length = len(target)
    last = np.zeros(-(-length // 8) * 8, bool)
    last[: length - 1] = _changes(target)
    last[: length - 1] |= _changes(prediction)
    last[length - 1 : length] = True
    eights = last.view(np.uint64)
    some = (eights != 0).nonzero()[0]  # looking into a fifth of them takes half as long as into all pixels
    within = eights[some].view(bool).nonzero()[0]
    ends = 8 * some[within >> 3] + (within & 7)
    lengths = ends + 1
    lengths[1:] -= lengths[:-1].copy()
    return ends, lengths


def weighted_confusion(target: np.ndarray, prediction: np.ndarray, pixels: np.ndarray, num_classes: int) -> Confusion:
    """Returns the K K int64 counts of pairs of indices below K, each of which stands for a number of pixels."""
    codes = target.astype(np.intp, copy=False) * num_classes + prediction
    # The sums are float64, which is exact up to 2^53 pixels.
    counts = np.bincount(codes, weights=pixels, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def _changes(values: np.ndarray) -> NDArray[np.bool_]:
    changed = values[1:] != values[:-1]
    return changed if values.ndim == 1 else changed.any(1)


@dataclass(frozen=True)
class ImageScore:
    """What one image adds to the scores: of its confusion matrix the cells that are not 0, which are few of many."""

    stem: str
    num_classes: int
    cells: NDArray[np.int64]
    """Their places in the matrix row by row, rising."""
    pixels: NDArray[np.int64]
    """What they hold."""
    ignored: int

    @classmethod
    def of(cls, stem: str, confusion: Confusion, ignored: int) -> ImageScore:
        """Returns what an image of this confusion matrix adds."""
        counts = confusion.ravel()
        cells = counts.nonzero()[0]
        return cls(stem, len(confusion), cells, counts[cells], ignored)

    @property
    def confusion(self) -> Confusion:
        """Its confusion matrix."""
        counts = np.zeros(self.num_classes**2, np.int64)
        counts[self.cells] = self.pixels
        return counts.reshape(self.num_classes, self.num_classes)


@dataclass(frozen=True)
class Scores:
    """The confusion matrix of a split with everything that follows from it."""

    names: tuple[str, ...]
    confusion: Confusion
    ignored: int
    images: tuple[ImageScore, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, names: Sequence[str], images: Sequence[ImageScore]) -> Scores:
        """Returns the scores of a data set: the sum over its images, not a mean over them."""
        total = np.zeros(len(names) ** 2, np.int64)
        for image in images:
            total[image.cells] += image.pixels
        return cls(tuple(names), total.reshape(len(names), -1), sum(image.ignored for image in images), tuple(images))

    @property
    def miou(self) -> float | None:
        """Mean IoU over the classes that are in truth or prediction."""
        return mean(iou(self.confusion))

    @property
    def summary(self) -> dict[str, float | None]:
        """The scores of the whole split, as `eval --json` has them."""
        matrix = self.confusion
        values = (
            mean(iou(matrix)),
            pixel_accuracy(matrix),
            mean(recall(matrix)),
            mean(dice(matrix)),
            frequency_weighted_iou(matrix),
        )
        return dict(zip(SUMMARY, values, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Returns what `eval --json` prints about the scores, undefined ones as None."""
        matrix = self.confusion
        errors = standard_errors(self)
        columns = (iou(matrix), errors.iou, dice(matrix), precision(matrix), recall(matrix), matrix.sum(1).tolist())
        keys = ("name", "iou", "iou_standard_error", "dice", "precision", "recall", "pixels")
        base, name = majority_baseline(self)
        return {
            "images": len(self.images),
            **self.summary,
            "standard_error": {"miou": errors.miou, "pixel_accuracy": errors.pixel_accuracy},
            "ignored_pixels": self.ignored,
            "classes": [dict(zip(keys, row, strict=True)) for row in zip(self.names, *columns, strict=True)],
            "majority_baseline": {"class": name, **base},
            "confusion": matrix.tolist(),
        }


class StandardErrors(NamedTuple):
    """How far scores lie, typically, from those of all images of their kind; None where it cannot be told."""

    miou: float | None
    pixel_accuracy: float | None
    iou: list[float | None]
    """By class; None of one that is in the truth or prediction of fewer than two images."""


def standard_errors(scores: Scores) -> StandardErrors:
    """Returns the standard errors over the images that have pixels that count; None of fewer than two images.

    A class of one image adds nothing to that of the mIoU, as how it varies is not known: it is too low then.
    """
    counted = [image for image in scores.images if len(image.cells)]
    if len(counted) < 2:
        return StandardErrors(None, None, [None] * len(scores.names))
    true, either = (np.empty((len(counted), len(scores.names))) for _ in range(2))
    for image, intersection, sums in zip(counted, true, either, strict=True):
        matrix = image.confusion
        intersection[:], sums[:] = matrix.diagonal(), matrix.sum(0) + matrix.sum(1)
    union = either - true
    deviations = _deviations(true, union)
    defined = union.any(0)
    several = (union > 0).sum(0) > 1
    by_class = zip(_error_of_sum(deviations).tolist(), several.tolist(), strict=True)
    pixels = np.array([image.pixels.sum() for image in counted], np.float64)
    return StandardErrors(
        float(_error_of_sum(deviations[:, defined].mean(1))),
        float(_error_of_sum(_deviations(true.sum(1), pixels))),
        [error if known else None for error, known in by_class],
    )


def _deviations(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns what each image adds to the deviation of a ratio of sums, N, or of K ratios, N K; 0 of undefined ones."""
    total = np.maximum(below.sum(0), 1)
    return (above - above.sum(0) / total * below) / total


def _error_of_sum(deviations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the standard error of the sum over images, N or N K, of what each adds."""
    images = len(deviations)
    return np.sqrt(images / (images - 1) * np.square(deviations).sum(0))


def iou(matrix: Confusion) -> list[float | None]:
    """Returns each class's intersection over union."""
    true = np.diag(matrix)
    return _ratio(true, matrix.sum(0) + matrix.sum(1) - true)


def dice(matrix: Confusion) -> list[float | None]:
    """Returns each class's Dice coefficient, which is its F1 score."""
    return _ratio(2 * np.diag(matrix), matrix.sum(0) + matrix.sum(1))


def precision(matrix: Confusion) -> list[float | None]:
    """Returns the share of the pixels predicted as each class that are of it; None where it is never predicted."""
    return _ratio(np.diag(matrix), matrix.sum(0))


def recall(matrix: Confusion) -> list[float | None]:
    """Returns the share of each class's pixels that are predicted as it (its accuracy); None where it has none."""
    return _ratio(np.diag(matrix), matrix.sum(1))


def pixel_accuracy(matrix: Confusion) -> float | None:
    """Returns the share of the scored pixels that are right; None where there are none."""
    total = int(matrix.sum())
    return int(matrix.trace()) / total if total else None


def frequency_weighted_iou(matrix: Confusion) -> float | None:
    """Returns the mean of the IoUs weighted by each class's share of the true pixels."""
    total = int(matrix.sum())
    if total == 0:
        return None
    pairs = zip(iou(matrix), matrix.sum(1).tolist(), strict=True)
    return sum(value * pixels for value, pixels in pairs if value is not None) / total


def mean(values: Sequence[float | None]) -> float | None:
    """Returns the mean of the defined values; None where there is none."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def majority_baseline(scores: Scores) -> tuple[dict[str, float | None], str | None]:
    """Returns the scores of answering the most frequent true class everywhere, and that class's name."""
    pixels = scores.confusion.sum(1)
    if not pixels.any():
        return Scores(scores.names, scores.confusion, scores.ignored).summary, None
    best = int(pixels.argmax())
    matrix = np.zeros_like(scores.confusion)
    matrix[:, best] = pixels
    return Scores(scores.names, matrix, scores.ignored).summary, scores.names[best]


def _ratio(above: NDArray[np.int64], below: NDArray[np.int64]) -> list[float | None]:
    return [a / b if b else None for a, b in zip(above.tolist(), below.tolist(), strict=True)]
