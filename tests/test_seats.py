"""Masks laid over images pixel by pixel tell which sit on their image, on another, turned, or on none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from segtool.check.seats import Laid, Seats, lay_over, look_closely

COUNT = 12
Pair = tuple[np.ndarray, np.ndarray]


def drawn(seed: int) -> Pair:
    """Returns an image of blocks on noise and its mask, 150x150."""
    rng = np.random.default_rng(seed)
    image, mask = rng.normal(110, 12, (150, 150, 3)), np.zeros((150, 150), np.uint8)
    for number in range(45):
        y, x = rng.integers(0, 134, 2)
        height, width = rng.integers(8, 16, 2)
        image[y : y + height, x : x + width] = rng.normal(60 + 50 * (number % 3), 12, (height, width, 3))
        mask[y : y + height, x : x + width] = number % 3
    return image.clip(0, 255).astype(np.uint8), mask


def looked_at(pairs: Sequence[Pair], **given: dict) -> Seats:
    def look(places: Sequence[int]) -> list[Laid]:
        return [laid for place in places if (laid := lay_over(place, *pairs[place]))]

    everyone = range(len(pairs))
    return look_closely(everyone, everyone, look, count=len(pairs), **{"wrong": {}, "turned": {}, **given})


@pytest.fixture(scope="module")
def right() -> list[Pair]:
    return [drawn(seed) for seed in range(COUNT)]


def with_masks(pairs: Sequence[Pair], masks: dict[int, np.ndarray]) -> list[Pair]:
    return [(image, masks.get(place, mask)) for place, (image, mask) in enumerate(pairs)]


def test_of_masks_that_sit_on_their_images_nothing_is_told_and_alarms_are_denied(right: list[Pair]) -> None:
    assert looked_at(right) == Seats([], [], [], set())
    assert looked_at(right, wrong={2: 5, 5: 2}, turned={7: "upside down"}).denied == {2, 5, 7}


def test_exchanged_masks_are_told_with_the_images_that_they_sit_on(right: list[Pair]) -> None:
    two = with_masks(right, {2: right[5][1], 5: right[2][1]})
    assert looked_at(two) == Seats([(2, 5), (5, 2)], [], [], set())
    assert looked_at(two, wrong={2: 5, 5: 2}).denied == set()
    three = with_masks(right, {1: right[4][1], 4: right[9][1], 9: right[1][1]})
    assert looked_at(three).exchanged == [(1, 4), (4, 9), (9, 1)]


@pytest.mark.parametrize(
    ("turn", "told"),
    [
        (np.fliplr, "mirrored left to right"),
        (np.flipud, "mirrored top to bottom"),
        (np.rot90, "turned to the right"),
    ],
)
def test_a_turned_mask_is_told_with_how_it_lies(turn: Callable, told: str, right: list[Pair]) -> None:
    assert looked_at(with_masks(right, {3: turn(right[3][1]).copy()})) == Seats([], [(3, told)], [], set())


def test_a_mask_of_a_picture_that_is_not_there_sits_on_none(right: list[Pair]) -> None:
    assert looked_at(with_masks(right, {3: drawn(90)[1]})) == Seats([], [], [3], set())
    few_edges = np.zeros((150, 150), np.uint8)
    few_edges[20:60, 20:60] = 1
    assert looked_at(with_masks(right, {3: few_edges})).strange == []


@pytest.mark.parametrize("shift", [1, -1])
def test_masks_that_are_all_moved_on_by_one_are_told(shift: int, right: list[Pair]) -> None:
    moved = [(image, right[(place + shift) % COUNT][1]) for place, (image, _) in enumerate(right)]
    first = max(0, -shift)
    assert looked_at(moved).exchanged == [(place, place + shift) for place in range(first, first + COUNT - 1)]


def test_nothing_is_told_of_masks_that_follow_no_edges(right: list[Pair]) -> None:
    rng = np.random.default_rng(1)
    noise = [(rng.integers(0, 256, image.shape, np.uint8), mask) for image, mask in right]
    assert looked_at(with_masks(noise, {2: right[5][1], 5: right[2][1]})) == Seats([], [], [], set())
