"""Losses: each against a slow loop over pixels, with denominators that add up however a batch is split."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from segtool import registry
from segtool.config import LossTerm
from segtool.data.labels import IGNORE
from segtool.data.statistics import ClassFrequencies
from segtool.errors import ConfigError
from segtool.losses import Criterion, CrossEntropy, Dice, class_weight_values, needs_frequencies

LOSSES = registry.names("loss")
# Two images: one with 6 pixels of class 0 and 2 of class 1, one with 4 of class 0; class 2 is in neither.
FREQUENCIES = ClassFrequencies(pixels=(10, 2, 0), present=(12, 8, 0))


def batch(*, images: int = 3, classes: int = 3, size: tuple[int, int] = (4, 5), ignored: float = 0.3, seed: int = 0):
    """Returns random logits N K H W that want gradients, and a target N H W uint8 with ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((images, classes, *size), generator=generator).mul(3).requires_grad_()
    target = torch.randint(classes, (images, *size), generator=generator, dtype=torch.uint8)
    target[torch.rand(target.shape, generator=generator) < ignored] = IGNORE
    return logits, target


def probabilities(logits: Tensor, n: int, y: int, x: int) -> list[float]:
    """Returns the softmax of one pixel, written out."""
    values = logits[n, :, y, x].tolist()
    highest = max(values)
    powers = [math.exp(value - highest) for value in values]
    return [power / sum(powers) for power in powers]


def pixels(target: Tensor):
    """Yields image, row, column and class of each pixel that counts."""
    for n, y, x in torch.cartesian_prod(*(torch.arange(side) for side in target.shape)).tolist():
        if int(target[n, y, x]) != IGNORE:
            yield n, y, x, int(target[n, y, x])


def slow_cross_entropy(logits: Tensor, target: Tensor, weights: list[float], smoothing: float = 0.0) -> float:
    above = below = 0.0
    for n, y, x, label in pixels(target):
        p = probabilities(logits, n, y, x)
        for k in range(len(p)):
            wanted = (1 - smoothing) * (k == label) + smoothing / len(p)
            above += wanted * weights[k] * -math.log(p[k])
        below += weights[label]
    return above / below


def slow_dice(logits: Tensor, target: Tensor, smooth: float) -> float:
    images = []
    for n in range(len(target)):
        mine = [(y, x, label) for m, y, x, label in pixels(target) if m == n]
        losses = []
        for k in range(logits.shape[1]):
            both = sum(probabilities(logits, n, y, x)[k] for y, x, label in mine if label == k)
            predicted = sum(probabilities(logits, n, y, x)[k] for y, x, _ in mine)
            true = sum(label == k for _, _, label in mine)
            if true:
                losses.append(1 - (2 * both + smooth) / (predicted + true + smooth))
        if losses:
            images.append(sum(losses) / len(losses))
    return sum(images) / len(images)


def value(loss, logits: Tensor, target: Tensor) -> float:
    return float((loss.total(logits, target) / loss.denominator(target)).detach())


def test_cross_entropy_is_the_mean_over_the_pixels_that_count():
    logits, target = batch()
    assert value(CrossEntropy(3), logits, target) == pytest.approx(slow_cross_entropy(logits, target, [1, 1, 1]))


def test_the_oracle_of_cross_entropy_sees_a_wrong_class_weight():
    logits, target = batch()
    right = slow_cross_entropy(logits, target, [1, 2, 0.5])
    assert slow_cross_entropy(logits, target, [1, 2, 0.6]) != pytest.approx(right)


def test_cross_entropy_of_one_pixel_is_as_computed_by_hand():
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 2, 1, 1)  # probabilities 1/4 and 3/4
    target = torch.zeros((1, 1, 1), dtype=torch.uint8)
    assert value(CrossEntropy(2), logits, target) == pytest.approx(math.log(4))
    assert value(CrossEntropy(2, label_smoothing=0.2), logits, target) == pytest.approx(
        0.9 * math.log(4) + 0.1 * math.log(4 / 3)
    )


@pytest.mark.parametrize("exponent", [1.0, 0.5, 2.0, 0.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_weighs_each_pixel_by_its_class_and_divides_by_the_weights(smoothing, exponent):
    logits, target = batch()
    loss = CrossEntropy(3, class_weights=(1, 4, 0.25), weight_exponent=exponent, label_smoothing=smoothing)
    wanted = slow_cross_entropy(logits, target, [1, 4**exponent, 0.25**exponent], smoothing)
    assert value(loss, logits, target) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_pixels_of_a_class_of_weight_zero_do_not_count_even_with_label_smoothing(smoothing):
    logits, target = batch(ignored=0)
    loss = CrossEntropy(3, class_weights=(0, 1, 2), label_smoothing=smoothing)
    without = target.clone()
    without[target == 0] = IGNORE
    assert value(loss, logits, target) == pytest.approx(slow_cross_entropy(logits, without, [0, 1, 2], smoothing))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_batch_of_nothing_but_a_class_of_weight_zero_has_loss_zero(smoothing):
    logits, _ = batch()
    target = torch.zeros((3, 4, 5), dtype=torch.uint8)
    term = LossTerm("cross_entropy", {"class_weights": [0, 1, 2], "label_smoothing": smoothing})
    criterion = Criterion([term], 3)
    loss = criterion(logits, target, criterion.denominators(target))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_median_frequency_is_the_median_over_each_class_s_own_frequency():
    # Shares among the images that have the class: 10/12 and 2/8; their median is 13/24.
    weights = class_weight_values("median_frequency", 3, FREQUENCIES)
    assert weights == pytest.approx([(13 / 24) / (10 / 12), (13 / 24) / (2 / 8), 0])


def test_the_median_of_three_frequencies_is_the_middle_one():
    frequencies = ClassFrequencies(pixels=(8, 2, 5), present=(10, 8, 10))
    assert class_weight_values("median_frequency", 3, frequencies) == pytest.approx([0.5 / 0.8, 0.5 / 0.25, 1])


def test_enet_weights_are_one_over_the_logarithm_of_the_share():
    weights = class_weight_values("enet", 3, FREQUENCIES)
    assert weights == pytest.approx([1 / math.log(1.02 + 10 / 12), 1 / math.log(1.02 + 2 / 12), 0])


@pytest.mark.parametrize("rule", ["median_frequency", "enet"])
def test_a_named_rule_weighs_the_loss_by_its_powered_weights(rule):
    logits, target = batch(ignored=0.2)
    given = class_weight_values(rule, 3, FREQUENCIES)
    assert given is not None
    loss = CrossEntropy(3, FREQUENCIES, class_weights=rule, weight_exponent=0.5)
    seen = target.clone()
    seen[target == 2] = IGNORE  # a class that never occurs has weight 0
    wanted = slow_cross_entropy(logits, seen, [weight**0.5 for weight in given])
    assert value(loss, logits, target) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("rule", ["median_frequency", "enet"])
def test_masks_without_any_class_give_weights_of_zero_rather_than_a_division_by_it(rule):
    assert class_weight_values(rule, 2, ClassFrequencies((0, 0), (0, 0))) == [0, 0]


def test_a_named_rule_gives_ones_while_nothing_is_measured():
    assert class_weight_values("enet", 3, None) == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"class_weights": [1, 2]}, "2 numbers for 3 classes"),
        ({"class_weights": [1, 2, -1]}, "below 0"),
        ({"class_weights": [0, 0, 0]}, "all 0"),
        ({"class_weights": [1e300, 1, 1]}, "class_weights"),
        ({"class_weights": [1e300, 1, 1], "weight_exponent": 2}, "weight_exponent"),
        ({"class_weights": [0, 1, 1], "weight_exponent": -1}, "weight_exponent is -1"),
        ({"class_weights": "median"}, "median_frequency"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1"),
    ],
)
def test_options_of_cross_entropy_that_make_no_loss_are_config_errors(options, named):
    with pytest.raises(ConfigError) as error:
        Criterion([LossTerm("cross_entropy", options)], 3)
    assert named in str(error.value)
    assert "loss.0" in str(error.value)


def test_a_negative_smooth_of_dice_is_a_config_error():
    with pytest.raises(ConfigError, match="smooth is -1"):
        Criterion([LossTerm("dice", {"smooth": -1})], 3)


@pytest.mark.parametrize("smooth", [1.0, 0.0, 10.0])
def test_dice_is_the_mean_over_the_classes_in_each_image_s_truth(smooth):
    logits, target = batch(size=(3, 4), classes=4, ignored=0.4)
    assert value(Dice(4, smooth=smooth), logits, target) == pytest.approx(slow_dice(logits, target, smooth), rel=1e-5)


def test_dice_leaves_out_classes_that_are_not_in_the_truth():
    logits, _ = batch(images=1, classes=3)
    target = torch.ones((1, 4, 5), dtype=torch.uint8)
    p = logits.softmax(1)[0, 1]
    wanted = 1 - (2 * p.sum() + 1) / (p.sum() + 20 + 1)
    assert value(Dice(3), logits, target) == pytest.approx(wanted.item())


def test_dice_of_a_sure_and_right_answer_is_zero():
    _, target = batch(classes=3)
    logits = 100 * torch.nn.functional.one_hot(target.long().clamp(max=2), 3).movedim(3, 1).float()
    assert value(Dice(3, smooth=0), logits, target) == pytest.approx(0, abs=1e-6)


def test_an_image_without_any_pixel_that_counts_takes_no_part_in_dice():
    logits, target = batch(images=3, ignored=0.1)
    target[1] = IGNORE
    assert Dice(3).denominator(target) == 2
    assert value(Dice(3), logits, target) == pytest.approx(slow_dice(logits, target, 1.0), rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"class_weights": [1, 2, 3]}, {"label_smoothing": 0.1}], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_in_which_nothing_counts_has_loss_zero_and_gradients_of_zero(name, options):
    logits, target = batch()
    target[:] = IGNORE
    criterion = Criterion([LossTerm(name, options if name == "cross_entropy" else {})], 3)
    loss = criterion(logits, target, criterion.denominators(target))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_the_mean_of_torch_is_not_a_number_where_nothing_counts():
    """The negative control: what the criterion must not do."""
    logits, _ = batch()
    target = torch.full((3, 4, 5), IGNORE)
    assert torch.nn.functional.cross_entropy(logits, target, ignore_index=IGNORE).isnan()


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_ignored_changes_neither_the_loss_nor_gets_a_gradient(name):
    logits, target = batch()
    ignored = (target == IGNORE).unsqueeze(1)
    criterion = Criterion([LossTerm(name)], 3)
    loss = criterion(logits, target, criterion.denominators(target))
    loss.backward()
    changed = torch.where(ignored, torch.randn(logits.shape) * 50, logits.detach())
    assert criterion(changed, target, criterion.denominators(target)).item() == pytest.approx(loss.item(), rel=1e-6)
    assert logits.grad is not None
    assert not logits.grad[ignored.expand_as(logits)].any()


TERMS = [
    [LossTerm("cross_entropy")],
    [LossTerm("dice")],
    [
        LossTerm("cross_entropy", {"class_weights": [1, 4, 0.5], "label_smoothing": 0.1}),
        LossTerm("dice", {"smooth": 0.5}, weight=0.3),
    ],
]


@pytest.mark.parametrize("parts", [[1, 1, 1, 1, 1], [2, 3], [4, 1]], ids=str)
@pytest.mark.parametrize("terms", TERMS, ids=["cross_entropy", "dice", "both"])
def test_parts_of_a_batch_add_up_to_the_loss_and_gradient_of_the_whole(terms, parts):
    logits, target = batch(images=5, ignored=0.6)
    target[2] = IGNORE
    criterion = Criterion(terms, 3)
    whole = criterion(logits, target, criterion.denominators(target))
    (wanted,) = torch.autograd.grad(whole, logits)
    pieces = list(zip(logits.split(parts), target.split(parts), strict=True))
    denominators = torch.stack([criterion.denominators(piece) for _, piece in pieces]).sum(0)
    losses = torch.stack([criterion(*piece, denominators) for piece in pieces])
    (found,) = torch.autograd.grad(losses.sum(), logits)
    assert losses.sum().item() == pytest.approx(whole.item(), rel=1e-5)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-8)


def test_a_mean_over_the_means_of_the_parts_is_another_number():
    """The negative control: what a trainer that divides each part by itself would minimise."""
    logits, target = batch(images=4, ignored=0.6)
    loss = CrossEntropy(3)
    means = [value(loss, *piece) for piece in zip(logits.split(1), target.split(1), strict=True)]
    assert sum(means) / 4 != pytest.approx(value(loss, logits, target), rel=1e-3)


def test_a_criterion_is_the_weighted_sum_of_its_losses():
    logits, target = batch()
    criterion = Criterion([LossTerm("cross_entropy", weight=0.5), LossTerm("dice", weight=3.0)], 3)
    wanted = 0.5 * slow_cross_entropy(logits, target, [1, 1, 1]) + 3 * slow_dice(logits, target, 1.0)
    assert criterion(logits, target, criterion.denominators(target)).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_half_precision_logits_is_computed_in_single(name):
    logits, target = batch(images=1, size=(8, 8))
    halved = logits.detach().bfloat16()
    criterion = Criterion([LossTerm(name)], 3)
    loss = criterion(halved, target, criterion.denominators(target))
    assert loss.dtype == torch.float32
    assert torch.equal(loss, criterion(halved.float(), target, criterion.denominators(target)))


@pytest.mark.parametrize("name", LOSSES)
def test_huge_logits_give_a_finite_loss_and_gradient(name):
    logits, target = batch()
    logits = (logits.detach() * 1e4).requires_grad_()
    criterion = Criterion([LossTerm(name)], 3)
    loss = criterion(logits, target, criterion.denominators(target))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_255_classes_leave_room_for_what_is_ignored(name):
    logits, target = batch(images=1, classes=255, size=(3, 3), ignored=0)
    target[0, 0] = torch.tensor([254, IGNORE, 0], dtype=torch.uint8)
    term = LossTerm(name, {"class_weights": [1.0] * 255} if name == "cross_entropy" else {})
    criterion = Criterion([term], 255)
    slow = slow_dice(logits, target, 1.0) if name == "dice" else slow_cross_entropy(logits, target, [1.0] * 255)
    assert criterion(logits, target, criterion.denominators(target)).item() == pytest.approx(slow, rel=1e-5)


def test_weights_are_no_part_of_what_a_checkpoint_holds():
    assert not Criterion([LossTerm("cross_entropy", {"class_weights": [1, 2]})], 2).state_dict()


@pytest.mark.parametrize(
    ("options", "needed"), [({}, False), ({"class_weights": [1, 2]}, False), ({"class_weights": "enet"}, True)]
)
def test_class_frequencies_are_measured_only_for_a_rule_that_needs_them(options, needed):
    assert needs_frequencies([LossTerm("dice"), LossTerm("cross_entropy", options)]) is needed
