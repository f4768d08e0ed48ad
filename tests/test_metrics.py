"""Scores: the confusion matrix against a loop over pixels, and its ratios by hand."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from segtool.data.codes import IGNORE
from segtool.scoring.metrics import (
    ImageScore,
    Scores,
    confusion_matrix,
    dice,
    equal_runs,
    frequency_weighted_iou,
    iou,
    majority_baseline,
    mean,
    pixel_accuracy,
    precision,
    recall,
    standard_errors,
    weighted_confusion,
)

# Rows are truth, columns are prediction. Class 2 is in neither, 3 is only predicted, 4 is only in the truth.
MATRIX = np.array(
    [
        [50, 10, 0, 5, 0],
        [5, 20, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [10, 0, 0, 0, 0],
    ],
    np.int64,
)


def brute_force(target: np.ndarray, prediction: np.ndarray, num_classes: int) -> list[list[int]]:
    counts = [[0] * num_classes for _ in range(num_classes)]
    for truth, answer in zip(target.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if truth != IGNORE:
            counts[truth][answer] += 1
    return counts


def random_pair(num_classes: int, shape=(17, 23), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns truth with ignored pixels, and a prediction that is anything at all under them."""
    rng = np.random.default_rng(seed)
    target = rng.integers(num_classes, size=shape, dtype=np.uint8)
    prediction = rng.integers(num_classes, size=shape, dtype=np.uint8)
    target.ravel()[-1] = prediction.ravel()[-1] = num_classes - 1
    ignored = rng.random(shape) < 0.2
    target[ignored] = IGNORE
    prediction[ignored] = rng.integers(256, size=int(ignored.sum()), dtype=np.uint8)
    return target, prediction


def scores(matrix: np.ndarray, *, ignored: int = 0) -> Scores:
    names = [f"class {k}" for k in range(len(matrix))]
    return Scores.of(names, [ImageScore.of("only", matrix, ignored)])


@pytest.mark.parametrize("num_classes", [1, 2, 3, 14, 15, 16, 17, 254, 255])
def test_the_confusion_matrix_is_a_count_over_pixels(num_classes):
    target, prediction = random_pair(num_classes)
    counts = confusion_matrix(target, prediction, num_classes)
    assert counts.dtype == np.int64
    assert counts.tolist() == brute_force(target, prediction, num_classes)


@pytest.mark.parametrize("num_classes", [15, 16, 255])
def test_the_last_class_mistaken_for_itself_or_the_first_fits_the_codes(num_classes):
    last = num_classes - 1
    target = np.array([[last, last, 0, IGNORE]], np.uint8)
    prediction = np.array([[last, 0, last, last]], np.uint8)
    counts = confusion_matrix(target, prediction, num_classes)
    assert (counts[last, last], counts[last, 0], counts[0, last], counts.sum()) == (1, 1, 1, 3)


@pytest.mark.parametrize("prediction", [0, 1, 2, 255])
def test_a_pixel_whose_truth_is_ignored_never_counts(prediction):
    target = np.full((3, 3), IGNORE, np.uint8)
    assert not confusion_matrix(target, np.full((3, 3), prediction, np.uint8), 3).any()


def test_wider_types_and_any_shape_count_alike():
    target, prediction = random_pair(5, shape=(6, 4))
    wide: Any = prediction.astype(np.int64)
    wide = confusion_matrix(target.reshape(2, 3, 4), wide.reshape(2, 3, 4), 5)
    assert wide.tolist() == confusion_matrix(target, prediction, 5).tolist()


def test_an_empty_image_counts_nothing():
    assert confusion_matrix(np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8), 2).tolist() == [[0, 0], [0, 0]]


def test_a_run_ends_where_truth_or_prediction_changes():
    ends, lengths = equal_runs(np.array([1, 1, 1, 2, 2]), np.array([7, 7, 8, 8, 8]))
    assert ends.tolist() == [1, 2, 4]
    assert lengths.tolist() == [2, 1, 2]
    ends, lengths = equal_runs(np.array([1, 1, 1]), np.array([[0, 0, 5], [0, 0, 5], [0, 0, 6]]))
    assert ends.tolist() == [1, 2]
    assert lengths.tolist() == [2, 1]


@pytest.mark.parametrize("pixels", [0, 1, 7, 8, 9, 16, 63, 500])
@pytest.mark.parametrize("repeated", [1, 5, 20])
def test_runs_are_those_that_a_loop_over_the_pixels_finds(pixels, repeated):
    rng = np.random.default_rng(pixels)
    target, prediction = (rng.integers(0, 3, (pixels, 1)).repeat(repeated, 1).ravel()[:pixels] for _ in range(2))
    pairs = list(zip(target.tolist(), prediction.tolist(), strict=True))
    expected = [place for place in range(pixels) if pairs[place : place + 1] != pairs[place + 1 : place + 2]]
    ends, lengths = equal_runs(target, prediction)
    assert ends.tolist() == expected
    assert [pair for end, length in zip(ends, lengths, strict=True) for pair in [pairs[end]] * length] == pairs


def test_counting_changes_neither_truth_nor_prediction():
    target, prediction = random_pair(3)
    before = target.copy(), prediction.copy()
    confusion_matrix(target, prediction, 3)
    assert (target == before[0]).all()
    assert (prediction == before[1]).all()


def test_counts_beyond_32_bits_are_exact():
    image = ImageScore.of("big", np.array([[2**31 + 1, 1], [0, 3]], np.int64), 2**31)
    total = Scores.of(["a", "b"], [image] * 5)
    assert total.confusion.tolist() == [[5 * (2**31 + 1), 5], [0, 15]]
    assert total.ignored == 5 * 2**31
    assert iou(total.confusion)[0] == (5 * (2**31 + 1)) / (5 * (2**31 + 1) + 5)
    single = np.float32(2**31 + 1) * 5  # the negative control: what a float32 sum would have kept
    assert int(single) != 5 * (2**31 + 1)


def test_ratios_are_exact_where_a_product_of_counts_would_overflow():
    matrix = np.array([[2**61, 0], [2**61, 0]], np.int64)
    assert dice(matrix) == [pytest.approx(2 / 3), 0]
    assert frequency_weighted_iou(matrix) == pytest.approx(0.25)


def test_iou_by_hand():
    assert iou(MATRIX) == [50 / (65 + 65 - 50), 20 / (25 + 30 - 20), None, 0, 0]


def test_dice_by_hand():
    assert dice(MATRIX) == [100 / (65 + 65), 40 / (25 + 30), None, 0, 0]


def test_precision_by_hand_is_none_for_a_class_that_is_never_predicted():
    assert precision(MATRIX) == [50 / 65, 20 / 30, None, 0, None]


def test_recall_by_hand_is_none_for_a_class_that_is_not_in_the_truth():
    assert recall(MATRIX) == [50 / 65, 20 / 25, None, None, 0]


def test_dice_is_the_harmonic_mean_of_precision_and_recall():
    for found, p, r in zip(dice(MATRIX), precision(MATRIX), recall(MATRIX), strict=True):
        if p and r:
            assert found == pytest.approx(2 / (1 / p + 1 / r))


def test_the_summary_by_hand():
    first, second = 50 / 80, 20 / 35
    assert scores(MATRIX).summary == pytest.approx(
        {
            "miou": (first + second + 0 + 0) / 4,
            "pixel_accuracy": 70 / 100,
            "mean_accuracy": (50 / 65 + 20 / 25 + 0) / 3,
            "mean_dice": (100 / 130 + 40 / 55) / 4,
            "fw_iou": 0.65 * first + 0.25 * second + 0.1 * 0,
        }
    )


def test_a_mean_leaves_out_what_is_undefined_and_is_none_where_all_is():
    assert mean([0.5, None, 0.0]) == 0.25
    assert mean([None, None]) is None
    assert mean([]) is None


def test_a_perfect_prediction_of_some_of_the_classes_scores_one():
    summary = scores(np.diag(np.array([7, 0, 3], np.int64))).summary
    assert set(summary.values()) == {1.0}


def test_where_nothing_is_scored_every_score_is_none_rather_than_one():
    nothing = scores(np.zeros((3, 3), np.int64), ignored=9)
    assert set(nothing.summary.values()) == {None}
    assert nothing.miou is None
    assert majority_baseline(nothing)[1] is None
    assert all(row["iou"] is None and row["dice"] is None for row in nothing.to_json()["classes"])


def test_scores_without_images_are_none():
    empty = Scores.of(["a"], [])
    assert empty.to_json()["images"] == 0
    assert empty.miou is None


@pytest.mark.parametrize("num_classes", [2, 5, 19])
def test_ious_are_those_of_torchmetrics_where_they_are_defined(num_classes):
    classification = pytest.importorskip("torchmetrics.classification", reason="in the extra `bench`")
    metric = classification.MulticlassJaccardIndex(num_classes, average=None, ignore_index=IGNORE)
    images = []
    for seed in range(4):
        target, prediction = random_pair(num_classes, seed=seed)
        prediction[target == IGNORE] = 0  # torchmetrics looks at it
        prediction[prediction == 1] = 0
        target[target == 1] = 0  # class 1 is not there at all
        metric.update(torch.from_numpy(prediction), torch.from_numpy(target))
        images.append(ImageScore.of(str(seed), confusion_matrix(target, prediction, num_classes), 0))
    found = iou(Scores.of([str(k) for k in range(num_classes)], images).confusion)
    assert found[1] is None
    for ours, theirs in zip(found, metric.compute().tolist(), strict=True):
        assert ours is None or ours == pytest.approx(theirs, abs=1e-6)


def test_an_image_of_few_classes_takes_little_however_many_there_are():
    matrix = np.zeros((171, 171), np.int64)
    matrix[[3, 3, 170], [3, 8, 170]] = [5, 1, 2**40]
    image = ImageScore.of("image", matrix, 7)
    assert np.array_equal(image.confusion, matrix)
    assert len(pickle.dumps(image)) < 1000 < matrix.nbytes


def test_a_pixel_added_to_two_billion_is_not_lost():
    large = ImageScore.of("large", np.array([[2**20, 0], [0, 0]], np.int64), 0)
    one = ImageScore.of("one", np.array([[1, 0], [0, 0]], np.int64), 0)
    total = Scores.of("ab", [*[large] * 2**11, *[one] * 5]).confusion
    assert total.dtype == np.int64
    assert total[0, 0] == 2**31 + 5
    for narrow, lost in ((np.float32, 2**31), (np.int32, 5 - 2**31)):  # the negative controls
        counts = np.array([2**20] * 2**11 + [1] * 5)
        assert np.cumsum(counts, dtype=narrow)[-1] == lost
    ends = np.zeros(3, np.uint8)
    pixels = np.array([2**31 + 1, 2**31 + 1, 2**31 + 1])
    # As Python's numbers: NumPy rounds an int that it compares with a narrow float.
    assert int(weighted_confusion(ends, ends, pixels, 1)[0, 0]) == 3 * (2**31 + 1)


def test_the_score_is_the_data_set_s_and_not_a_mean_over_images():
    images = [random_pair(4, shape=(side, 9), seed=side) for side in (2, 7, 30)]
    counted = [ImageScore.of(str(i), confusion_matrix(*pair, 4), 0) for i, pair in enumerate(images)]
    whole = Scores.of("abcd", counted)
    target, prediction = (np.concatenate([pair[i] for pair in images]) for i in (0, 1))
    assert whole.confusion.tolist() == brute_force(target, prediction, 4)
    assert whole.confusion.tolist() == Scores.of("abcd", counted[::-1]).confusion.tolist()
    of_images = mean([mean(iou(image.confusion)) for image in counted])
    assert whole.miou != pytest.approx(of_images, abs=1e-4)  # the negative control


def of_images(*matrices: Any) -> Scores:
    images = [ImageScore.of(str(number), np.array(matrix, np.int64), 0) for number, matrix in enumerate(matrices)]
    return Scores.of([f"class {k}" for k in range(len(matrices[0]))], images)


def test_standard_errors_are_those_computed_by_hand():
    errors = standard_errors(of_images([[3, 1], [0, 4]], [[1, 1], [2, 4]]))
    # Class 0: 3 of 4 and 1 of 4, so 4 of 8; the images lie 1/8 above and below. Class 1: 4 of 5 and 4 of 7; 1/18.
    assert errors.iou == pytest.approx([2 / 8, 2 / 18])
    assert errors.miou == pytest.approx((2 / 8 + 2 / 18) / 2)
    assert errors.pixel_accuracy == pytest.approx(2 / 16)  # 7 and 5 of 8 pixels


def test_standard_errors_are_the_spread_of_scores_over_drawn_images():
    rng = np.random.default_rng(0)
    skill = rng.uniform(0.3, 0.95, size=(80, 3))  # by image and class
    matrices = [
        [[rng.binomial(size, good) if k == j else size // 40 for j in range(3)] for k, good in enumerate(of_image)]
        for of_image, size in zip(skill, rng.integers(100, 1000, 80).tolist(), strict=True)
    ]
    whole = of_images(*matrices)
    errors = standard_errors(whole)
    drawn = [sum(whole.images[number].confusion for number in rng.integers(80, size=80).tolist()) for _ in range(2000)]
    overlaps = np.array([iou(matrix) for matrix in drawn], float)
    assert errors.iou == pytest.approx(overlaps.std(0), rel=0.1)
    assert errors.miou == pytest.approx(overlaps.mean(1).std(), rel=0.1)
    assert errors.pixel_accuracy == pytest.approx(np.std([pixel_accuracy(matrix) for matrix in drawn]), rel=0.1)


def test_standard_errors_are_unknown_of_one_image_and_of_a_class_in_one_alone():
    plain, rare, nothing = [[5, 1, 0], [2, 2, 0], [0, 0, 0]], [[4, 0, 1], [0, 2, 0], [0, 0, 3]], np.zeros((3, 3))
    for alone in (of_images(rare), of_images(rare, nothing)):
        assert standard_errors(alone) == (None, None, [None] * 3)
    both = standard_errors(of_images(plain, rare))
    assert both.iou[2] is None
    assert None not in (both.iou[0], both.iou[1], both.miou)
    assert standard_errors(of_images(plain, rare, nothing)) == both
    absent = standard_errors(of_images(plain, plain))
    assert absent.iou == [0, 0, None]
    assert absent.miou == 0


def test_the_baseline_answers_the_most_frequent_true_class_everywhere():
    summary, name = majority_baseline(scores(MATRIX))
    assert name == "class 0"  # 65 of 100 true pixels
    # Everything is class 0: of it 65 are right and 35 too many; classes 1 and 4 are missed; 2 and 3 are in neither.
    assert summary == pytest.approx(
        {
            "miou": (65 / 100 + 0 + 0) / 3,
            "pixel_accuracy": 0.65,
            "mean_accuracy": (1 + 0 + 0) / 3,
            "mean_dice": (130 / 165 + 0 + 0) / 3,
            "fw_iou": 0.65 * 0.65,
        }
    )


def test_the_baseline_ignores_what_was_predicted():
    other = MATRIX[:, ::-1].copy()
    assert majority_baseline(scores(other)) == majority_baseline(scores(MATRIX))


def test_json_holds_what_the_contract_names():
    document = scores(MATRIX, ignored=12).to_json()
    wanted = {"images", "miou", "pixel_accuracy", "mean_accuracy", "mean_dice", "fw_iou", "confusion", "classes"}
    assert wanted <= set(document)
    assert document["images"] == 1
    assert document["ignored_pixels"] == 12
    assert document["confusion"] == MATRIX.tolist()
    assert all(type(count) is int for row in document["confusion"] for count in row)
    assert document["classes"][0] == {
        "name": "class 0",
        "iou": 50 / 80,
        "iou_standard_error": None,
        "dice": 100 / 130,
        "precision": 50 / 65,
        "recall": 50 / 65,
        "pixels": 65,
    }
    absent = dict.fromkeys(("iou", "iou_standard_error", "dice", "precision", "recall"))
    assert document["classes"][2] == {"name": "class 2", **absent, "pixels": 0}
    assert document["standard_error"] == {"miou": None, "pixel_accuracy": None}
    assert document["majority_baseline"]["class"] == "class 0"


def test_json_is_strict_json_of_plain_numbers():
    for matrix in (MATRIX, np.zeros((2, 2), np.int64)):
        document = scores(matrix).to_json()
        assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_pixel_accuracy_is_the_share_on_the_diagonal():
    assert pixel_accuracy(np.array([[3, 1], [0, 4]], np.int64)) == 7 / 8
