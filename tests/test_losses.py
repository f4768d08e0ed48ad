"""Losses: each against a slow loop over pixels, with denominators that add up however a batch is split."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from segtool.config import LossTerm, registry
from segtool.data.codes import IGNORE
from segtool.data.statistics import ClassFrequencies
from segtool.errors import ConfigError
from segtool.training.losses import Criterion, CrossEntropy, Focal, HardPixels, class_weight_values, needs_frequencies
from segtool.training.region_losses import Dice, Lovasz, Tversky

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


def slow_pixels(logits: Tensor, target: Tensor) -> list[list[tuple[int, list[Tensor]]]]:
    """Returns of each image the pixels that count: their class, and their softmax written out in double precision."""
    images: list[list[tuple[int, list[Tensor]]]] = [[] for _ in target]
    for n, y, x in torch.cartesian_prod(*(torch.arange(side) for side in target.shape)).tolist():
        if int(target[n, y, x]) != IGNORE:
            values = logits[n, :, y, x].double()
            powers = torch.exp(values - values.detach().max())
            images[n].append((int(target[n, y, x]), list(powers / powers.sum())))
    return images


def mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


def slow_cross_entropy(logits, target, class_weights=(1, 1, 1), label_smoothing=0.0, weight_exponent=1.0) -> Tensor:
    above, below = torch.zeros((), dtype=torch.float64), 0.0
    for label, p in (pixel for image in slow_pixels(logits, target) for pixel in image):
        for k in range(len(p)):
            wanted = (1 - label_smoothing) * (k == label) + label_smoothing / len(p)
            above = above + wanted * class_weights[k] ** weight_exponent * -torch.log(p[k])
        below += class_weights[label] ** weight_exponent
    return above / below


def slow_focal(logits, target, gamma=2.0, class_weights=(1, 1, 1), weight_exponent=1.0) -> Tensor:
    terms, below = [], 0.0
    for label, p in (pixel for image in slow_pixels(logits, target) for pixel in image):
        weight = class_weights[label] ** weight_exponent
        terms.append(-weight * (1 - p[label]) ** gamma * torch.log(p[label]))
        below += weight
    return torch.stack(terms).sum() / below


def slow_ohem(logits, target, threshold=0.7, min_kept=1 / 16) -> Tensor:
    images = []
    for image in slow_pixels(logits, target):
        sure = sorted((p[label] for label, p in image), key=Tensor.item)  # the hardest pixel first
        least = max(1, math.ceil(min_kept * len(sure)))
        hard = [p for place, p in enumerate(sure) if place < least or p < threshold]
        if hard:
            images.append(mean([-torch.log(p) for p in hard]))
    return mean(images)


def slow_of_classes(logits, target, loss_of_class) -> Tensor:
    """Returns the mean over images of the mean over the classes in an image's truth."""
    images = []
    for image in slow_pixels(logits, target):
        losses = [loss_of_class(image, k) for k in range(logits.shape[1]) if any(label == k for label, _ in image)]
        if losses:
            images.append(mean(losses))
    return mean(images)


def slow_dice(logits, target, smooth=1.0) -> Tensor:
    def loss(image, k):
        both = torch.stack([p[k] * (label == k) for label, p in image]).sum()
        predicted = torch.stack([p[k] for _, p in image]).sum()
        true = sum(label == k for label, _ in image)
        return 1 - (2 * both + smooth) / (predicted + true + smooth)

    return slow_of_classes(logits, target, loss)


def slow_tversky(logits, target, alpha=0.3, beta=0.7, smooth=1.0, gamma=1.0) -> Tensor:
    def loss(image, k):
        both = 2 * torch.stack([p[k] * (label == k) for label, p in image]).sum() + smooth
        added = 2 * torch.stack([p[k] * (label != k) for label, p in image]).sum()
        missed = 2 * torch.stack([(1 - p[k]) * (label == k) for label, p in image]).sum()
        return (1 - both / (both + alpha * added + beta * missed)) ** (1 / gamma)

    return slow_of_classes(logits, target, loss)


def slow_lovasz(logits, target) -> Tensor:
    """The Lovász extension as it is defined, from one minus the IoU as a function of the set of wrong pixels."""

    def loss(image, k):
        true = {i for i, (label, _) in enumerate(image) if label == k}
        errors = [1 - p[k] if i in true else p[k] for i, (_, p) in enumerate(image)]
        order = sorted(range(len(image)), key=lambda i: -errors[i].item())
        total = torch.zeros((), dtype=torch.float64)
        for place, i in enumerate(order):
            before, after = set(order[:place]), set(order[: place + 1])
            total = total + errors[i] * (jaccard_loss(true, after) - jaccard_loss(true, before))
        return total

    return slow_of_classes(logits, target, loss)


def jaccard_loss(true: set[int], wrong: set[int]) -> float:
    return 1 - len(true - wrong) / len(true | wrong)


SLOW = {
    "cross_entropy": slow_cross_entropy,
    "focal": slow_focal,
    "ohem": slow_ohem,
    "dice": slow_dice,
    "tversky": slow_tversky,
    "lovasz": slow_lovasz,
}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "cross_entropy": [{"class_weights": [1, 4, 0.25]}, {"label_smoothing": 0.1}],
    "focal": [{"gamma": 0.5}, {"gamma": 1.0, "class_weights": [1, 4, 0.25], "weight_exponent": 0.5}],
    "ohem": [{"threshold": 0.2}, {"threshold": 0.0, "min_kept": 0.5}, {"min_kept": 1.0}],
    "dice": [{"smooth": 0.0}],
    "tversky": [{"alpha": 0.9, "beta": 0.2, "smooth": 0.0}, {"alpha": 0.0, "beta": 1.0}, {"gamma": 4 / 3}],
}
CASES = [(name, options) for name in LOSSES for options in ({}, *OPTIONS.get(name, []))]
every_loss = pytest.mark.parametrize(("name", "options"), CASES, ids=str)


def value(loss, logits: Tensor, target: Tensor) -> float:
    return float((loss.total(logits, target) / loss.denominator(target)).detach())


def loss_of(terms: list[LossTerm], logits: Tensor, target: Tensor) -> tuple[float, Tensor]:
    """Returns the criterion's loss of a whole batch, and its gradient."""
    criterion = Criterion(terms, logits.shape[1])
    loss = criterion(logits, target, criterion.denominators(target))
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.item(), gradient


# --- what every loss promises


@every_loss
def test_a_loss_and_its_gradient_are_those_of_a_slow_loop_over_the_pixels(name, options):
    logits, target = batch(size=(3, 4), ignored=0.4)
    found, gradient = loss_of([LossTerm(name, options)], logits, target)
    slow = SLOW[name](logits, target, **options)
    (wanted,) = torch.autograd.grad(slow, logits)
    assert found == pytest.approx(slow.item(), rel=1e-5)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_the_slow_loops_tell_wrong_options_and_a_wrong_target(name):
    """The negative control: what the losses are compared with must be able to tell them apart."""
    logits, target = batch(size=(3, 4), ignored=0.4)
    right = SLOW[name](logits, target).item()
    for options in OPTIONS.get(name, []):
        assert SLOW[name](logits, target, **options).item() != pytest.approx(right, rel=1e-3)
    assert SLOW[name](logits, torch.where(target == 0, 1, target)).item() != pytest.approx(right, rel=1e-3)


@every_loss
def test_an_image_without_a_class_and_one_without_any_pixel_that_counts_are_as_in_the_slow_loop(name, options):
    logits, target = batch(images=4, size=(3, 4), ignored=0.2)
    target[0][target[0] == 2] = 1
    target[1][target[1] != IGNORE] = 0
    target[2] = IGNORE
    found, gradient = loss_of([LossTerm(name, options)], logits, target)
    assert found == pytest.approx(SLOW[name](logits, target, **options).item(), rel=1e-5)
    assert not gradient[2].any()


@pytest.mark.parametrize("weight", [1.0, 2.0**16], ids=["", "scaled as in fp16"])
@every_loss
def test_a_batch_in_which_nothing_counts_has_loss_zero_and_gradients_of_zero(name, options, weight):
    logits, target = batch()
    target[:] = IGNORE
    loss, gradient = loss_of([LossTerm(name, options, weight)], logits, target)
    assert loss == 0
    assert torch.equal(gradient, torch.zeros_like(logits))


def test_the_mean_of_torch_is_not_a_number_where_nothing_counts():
    """The negative control: what the criterion must not do."""
    logits, _ = batch()
    target = torch.full((3, 4, 5), IGNORE)
    assert torch.nn.functional.cross_entropy(logits, target, ignore_index=IGNORE).isnan()


@every_loss
def test_what_is_ignored_changes_neither_the_loss_nor_gets_a_gradient(name, options):
    logits, target = batch()
    ignored = (target == IGNORE).unsqueeze(1).expand_as(logits)
    loss, gradient = loss_of([LossTerm(name, options)], logits, target)
    changed = torch.where(ignored, torch.randn(logits.shape) * 50, logits)
    other, _ = loss_of([LossTerm(name, options)], changed, target)
    assert other == pytest.approx(loss, rel=1e-6)
    assert not gradient[ignored].any()


ALL = [LossTerm(name, options, weight=0.3 + i) for i, (name, options) in enumerate(CASES)]


@pytest.mark.parametrize("parts", [[1, 1, 1, 1, 1], [2, 3], [4, 1]], ids=str)
@pytest.mark.parametrize("terms", [*([term] for term in ALL), ALL], ids=[*map(str, CASES), "all"])
def test_parts_of_a_batch_add_up_to_the_loss_and_gradient_of_the_whole(terms, parts):
    logits, target = batch(images=5, ignored=0.6)
    target[2] = IGNORE
    whole, wanted = loss_of(terms, logits, target)
    criterion = Criterion(terms, 3)
    pieces = list(zip(logits.split(parts), target.split(parts), strict=True))
    denominators = torch.stack([criterion.denominators(piece) for _, piece in pieces]).sum(0)
    losses = torch.stack([criterion(*piece, denominators) for piece in pieces])
    (found,) = torch.autograd.grad(losses.sum(), logits)
    assert losses.sum().item() == pytest.approx(whole, rel=1e-5)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-7)


def test_a_mean_over_the_means_of_the_parts_is_another_number():
    """The negative control: what a trainer that divides each part by itself would minimise."""
    logits, target = batch(images=4, ignored=0.6)
    loss = CrossEntropy(3)
    means = [value(loss, *piece) for piece in zip(logits.split(1), target.split(1), strict=True)]
    assert sum(means) / 4 != pytest.approx(value(loss, logits, target), rel=1e-3)


@every_loss
def test_a_loss_of_half_precision_logits_is_computed_in_single(name, options):
    logits, target = batch(images=1, size=(8, 8))
    halved = logits.detach().bfloat16()
    criterion = Criterion([LossTerm(name, options)], 3)
    loss = criterion(halved, target, criterion.denominators(target))
    assert loss.dtype == torch.float32
    assert torch.equal(loss, criterion(halved.float(), target, criterion.denominators(target)))


@pytest.mark.parametrize("answer", ["random", "right", "wrong"])
@every_loss
def test_huge_logits_give_a_finite_loss_and_gradient(name, options, answer):
    logits, target = batch()
    target[0][target[0] == 2] = 1  # class 2 is absent, and its probability 0 throughout
    if answer == "right":
        logits = one_hot(target)
    elif answer == "wrong":
        logits = -one_hot(target)
    logits = (1e4 * logits.detach()).requires_grad_()
    loss, gradient = loss_of([LossTerm(name, options)], logits, target)
    assert math.isfinite(loss)
    assert gradient.isfinite().all()


def one_hot(target: Tensor) -> Tensor:
    """Returns 1 for the true class and -1 for the others, N 3 H W."""
    return 2 * torch.nn.functional.one_hot(target.long().clamp(max=2), 3).movedim(3, 1).float() - 1


@pytest.mark.parametrize("name", LOSSES)
def test_255_classes_leave_room_for_what_is_ignored(name):
    logits, target = batch(images=1, classes=255, size=(3, 3), ignored=0)
    target[0, 0] = torch.tensor([254, IGNORE, 0], dtype=torch.uint8)
    options = {"class_weights": [1.0] * 255} if name in ("cross_entropy", "focal") else {}
    found, _ = loss_of([LossTerm(name, options)], logits, target)
    assert found == pytest.approx(SLOW[name](logits, target, **options).item(), rel=1e-5)


# --- cross-entropy and its kin


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
    assert value(loss, logits, target) == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_pixels_of_a_class_of_weight_zero_do_not_count_even_with_label_smoothing(smoothing):
    logits, target = batch(ignored=0)
    loss = CrossEntropy(3, class_weights=(0, 1, 2), label_smoothing=smoothing)
    without = target.clone()
    without[target == 0] = IGNORE
    assert value(loss, logits, target) == pytest.approx(
        slow_cross_entropy(logits, without, [0, 1, 2], smoothing).item()
    )


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


def test_focal_with_a_gamma_of_zero_is_cross_entropy():
    logits, target = batch()
    for options in ({}, {"class_weights": [1, 4, 0.25], "weight_exponent": 0.5}):
        found, gradient = loss_of([LossTerm("focal", {"gamma": 0.0, **options})], logits, target)
        loss, wanted = loss_of([LossTerm("cross_entropy", options)], logits, target)
        assert found == pytest.approx(loss, rel=1e-6)
        torch.testing.assert_close(gradient, wanted)


def test_focal_of_one_pixel_is_as_computed_by_hand():
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 2, 1, 1)  # probabilities 1/4 and 3/4
    target = torch.zeros((1, 1, 1), dtype=torch.uint8)
    assert value(Focal(2), logits, target) == pytest.approx((3 / 4) ** 2 * math.log(4))
    assert value(Focal(2, gamma=0.5), logits, target) == pytest.approx((3 / 4) ** 0.5 * math.log(4))


@pytest.mark.parametrize("rule", ["median_frequency", "enet"])
def test_a_named_rule_weighs_focal_too(rule):
    logits, target = batch(ignored=0.2)
    given = class_weight_values(rule, 3, FREQUENCIES)
    wanted = slow_focal(logits, torch.where(target == 2, IGNORE, target), class_weights=given)
    assert value(Focal(3, FREQUENCIES, class_weights=rule), logits, target) == pytest.approx(wanted.item(), rel=1e-5)


def row_of(probabilities: list[float]) -> tuple[Tensor, Tensor]:
    """Returns logits and target of one row of pixels with these probabilities of their class, which is 0 of 2."""
    p = torch.tensor(probabilities)
    logits = torch.stack([p.log(), (1 - p).log()]).reshape(1, 2, 1, -1)
    return logits, torch.zeros((1, 1, len(p)), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [0.6, 0.2]),
        ({"threshold": 0.5}, [0.2]),
        ({"threshold": 0.1}, [0.2]),
        ({"threshold": 0.0, "min_kept": 0.0}, [0.2]),
        ({"min_kept": 0.75}, [0.2, 0.6, 0.8]),
        ({"min_kept": 0.7}, [0.2, 0.6, 0.8]),
        ({"min_kept": 1.0}, [0.2, 0.6, 0.8, 0.9]),
        ({"threshold": 0.85, "min_kept": 0.25}, [0.2, 0.6, 0.8]),
    ],
    ids=str,
)
def test_ohem_keeps_the_pixels_below_the_threshold_and_at_least_a_share(options, kept):
    logits, target = row_of([0.9, 0.6, 0.8, 0.2])
    wanted = sum(-math.log(p) for p in kept) / len(kept)
    assert value(HardPixels(2, **options), logits, target) == pytest.approx(wanted, rel=1e-5)


def test_ohem_gives_the_pixels_that_are_not_hard_no_gradient():
    logits, target = row_of([0.9, 0.6, 0.8, 0.2])
    _, gradient = loss_of([LossTerm("ohem")], logits.requires_grad_(), target)
    assert gradient[0, 0, 0].ne(0).tolist() == [False, True, False, True]


def test_the_share_that_ohem_keeps_is_of_the_pixels_that_count():
    logits, target = row_of([0.9, 0.8, 0.8, 0.75])
    target[0, 0, 2:] = IGNORE
    wanted = -math.log(0.8)  # half of the two; half of the four would be both
    assert value(HardPixels(2, min_kept=0.5), logits, target) == pytest.approx(wanted, rel=1e-5)


def test_every_image_chooses_its_own_hard_pixels():
    easy, target = row_of([0.99, 0.98])
    hard, _ = row_of([0.1, 0.2])
    both = torch.cat([easy, hard]), torch.cat([target, target])
    wanted = (-math.log(0.98) - (math.log(0.1) + math.log(0.2)) / 2) / 2
    assert value(HardPixels(2), *both) == pytest.approx(wanted, rel=1e-5)


def test_median_frequency_is_the_median_over_each_class_s_own_frequency():
    # Shares among the images that have the class: 10/12 and 2/8; their median is 13/24.
    weights = class_weight_values("median_frequency", 3, FREQUENCIES)
    assert weights == pytest.approx([(13 / 24) / (10 / 12), (13 / 24) / (2 / 8), 0])


def test_the_median_of_three_frequencies_is_the_middle_one():
    frequencies = ClassFrequencies(pixels=(8, 2, 5), present=(10, 8, 10))
    assert class_weight_values("median_frequency", 3, frequencies) == pytest.approx([0.5 / 0.8, 0.5 / 0.25, 1])


@pytest.mark.parametrize(
    ("given", "words"),
    [([1, 2], "has 2 numbers for 3 classes"), ([1, -6, 2], "has -6; expected none below 0"), ([0, 0, 0], "not all 0")],
)
def test_class_weights_that_cannot_be_say_what_is_wrong_with_them(given, words):
    with pytest.raises(ValueError, match=words):
        class_weight_values(given, 3, None)


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
    assert value(loss, logits, target) == pytest.approx(wanted.item(), rel=1e-5)


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


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("focal", {"gamma": -1}, "gamma is -1"),
        ("focal", {"class_weights": [1, 2]}, "2 numbers for 3 classes"),
        ("ohem", {"threshold": 1.5}, "threshold is 1.5"),
        ("ohem", {"min_kept": 100_000}, "min_kept is 100000"),
        ("dice", {"smooth": -1}, "smooth is -1"),
        ("tversky", {"smooth": -1}, "smooth is -1"),
        ("tversky", {"alpha": -0.1}, "alpha is -0.1"),
        ("tversky", {"beta": 0}, "beta is 0"),
        ("tversky", {"gamma": 0}, "gamma is 0"),
        ("lovasz", {"smooth": 1}, "smooth"),
    ],
    ids=str,
)
def test_options_that_make_no_loss_are_config_errors(name, options, named):
    with pytest.raises(ConfigError) as error:
        Criterion([LossTerm("cross_entropy"), LossTerm(name, options)], 3)
    assert named in str(error.value)
    assert "loss.1" in str(error.value)


def test_what_is_wrong_with_several_losses_is_told_at_once():
    with pytest.raises(ConfigError) as error:
        Criterion([LossTerm("focal", {"gama": 2}), LossTerm("cross_entropy"), LossTerm("dise")], 3)
    told = str(error.value).splitlines()
    assert [line.partition(":")[0] for line in told] == ["loss.0.gama", "loss.2"]


# --- regions


@pytest.mark.parametrize("smooth", [1.0, 0.0, 10.0])
def test_tversky_with_halves_is_dice(smooth):
    logits, target = batch(images=4, ignored=0.3)
    target[0][target[0] == 2] = 1
    found, gradient = loss_of([LossTerm("tversky", {"alpha": 0.5, "beta": 0.5, "smooth": smooth})], logits, target)
    loss, wanted = loss_of([LossTerm("dice", {"smooth": smooth})], logits, target)
    assert found == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(gradient, wanted)


def test_tversky_of_one_row_is_as_computed_by_hand():
    """Of class 0 there are 2 pixels: TP 0.9 + 0.5, FN 0.1 + 0.5, FP 0.2."""
    p = torch.tensor([0.9, 0.5, 0.2])
    logits = torch.stack([p.log(), (1 - p).log()]).reshape(1, 2, 1, 3)
    target = torch.tensor([0, 0, 1], dtype=torch.uint8).reshape(1, 1, 3)
    first = 1 - 1.4 / (1.4 + 0.3 * 0.2 + 0.7 * 0.6)
    second = 1 - 0.8 / (0.8 + 0.3 * 0.6 + 0.7 * 0.2)  # class 1: TP 0.8, FN 0.2, FP 0.1 + 0.5
    assert value(Tversky(2, smooth=0), logits, target) == pytest.approx((first + second) / 2, rel=1e-5)
    focal = (first**0.5 + second**0.5) / 2
    assert value(Tversky(2, smooth=0, gamma=2), logits, target) == pytest.approx(focal, rel=1e-5)


def test_lovasz_of_a_sure_answer_is_one_minus_the_mean_iou_of_the_classes_in_the_truth():
    target = torch.tensor([0, 0, 0, 1, 1, 1], dtype=torch.uint8).reshape(1, 2, 3)
    answer = torch.tensor([0, 0, 1, 1, 1, 2], dtype=torch.uint8).reshape(1, 2, 3)
    iou = (2 / 3 + 2 / 4) / 2  # class 2 is predicted, but not in the truth
    assert value(Lovasz(3), 100 * one_hot(answer), target) == pytest.approx(1 - iou)


def test_lovasz_of_one_row_is_as_computed_by_hand():
    """Class 0 has pixels 0 and 1; its errors in falling order are 0.7 (pixel 1), 0.4 (pixel 2) and 0.1 (pixel 0).

    One minus the IoU with pixel 1 wrong is 1/2, with pixel 2 wrong too 2/3, with all wrong 1. Class 1 has pixel 2, with
    the same errors: 1 - 0/2 where pixel 1 is wrong is 1/2, and 1 with pixel 2 wrong.
    """
    p = torch.tensor([0.9, 0.3, 0.4])
    logits = torch.stack([p.log(), (1 - p).log()]).reshape(1, 2, 1, 3)
    target = torch.tensor([0, 0, 1], dtype=torch.uint8).reshape(1, 1, 3)
    first = 0.7 * 1 / 2 + 0.4 * (2 / 3 - 1 / 2) + 0.1 * (1 - 2 / 3)
    second = 0.7 * 1 / 2 + 0.4 * (1 - 1 / 2)
    assert value(Lovasz(2), logits, target) == pytest.approx((first + second) / 2, rel=1e-5)


def test_the_slopes_of_lovasz_keep_their_digits_on_a_large_image():
    logits, target = batch(images=1, classes=2, size=(512, 512), ignored=0)
    _, gradient = loss_of([LossTerm("lovasz")], logits, target)
    double = logits.detach().double().requires_grad_()
    p = double.softmax(1)[0].flatten(1)
    losses = []
    for k in (0, 1):
        truth = (target.flatten() == k).double()
        errors, order = (truth - p[k]).abs().sort(descending=True)
        left = truth.sum() - truth[order].cumsum(0)
        jaccard = 1 - left / (truth.sum() + (1 - truth[order]).cumsum(0))
        losses.append((errors * jaccard.diff(prepend=jaccard.new_zeros(1))).sum())
    (wanted,) = torch.autograd.grad(mean(losses), double)
    torch.testing.assert_close(gradient.double(), wanted, rtol=1e-3, atol=1e-12)


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


def test_a_criterion_is_the_weighted_sum_of_its_losses():
    logits, target = batch()
    criterion = Criterion([LossTerm("cross_entropy", weight=0.5), LossTerm("dice", weight=3.0)], 3)
    wanted = 0.5 * slow_cross_entropy(logits, target) + 3 * slow_dice(logits, target)
    assert criterion(logits, target, criterion.denominators(target)).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_weights_are_no_part_of_what_a_checkpoint_holds():
    assert not Criterion([LossTerm("cross_entropy", {"class_weights": [1, 2]})], 2).state_dict()


@pytest.mark.parametrize(
    ("options", "needed"), [({}, False), ({"class_weights": [1, 2]}, False), ({"class_weights": "enet"}, True)]
)
def test_class_frequencies_are_measured_only_for_a_rule_that_needs_them(options, needed):
    for name in ("cross_entropy", "focal"):
        assert needs_frequencies([LossTerm("dice"), LossTerm(name, options)]) is needed
