"""What areas explain of images tells whose masks they are, in sets where it tells anything."""

from __future__ import annotations

import numpy as np
import pytest

from segtool.check.areas import MOST_EXPLAINED, SIDE, areas_of, fits_of_areas
from segtool.check.shift import slopes_of
from segtool.data.outline import SIDE as MAP_SIDE
from segtool.data.outline import TINTS, PictureMaps

COUNT = 12
Pair = tuple[np.ndarray, np.ndarray]


def drawn(seed: int, *, apart: float = 8, size: tuple[int, int] = (120, 160)) -> Pair:
    """Returns an image of noise in which the classes of its mask differ by so many grey levels."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    for number in range(12):
        y, x = (rng.uniform(0, 0.8, 2) * size).astype(int)
        mask[y : y + 30, x : x + 40] = number % 3
    image = rng.normal(110, 25, (*size, 3)) + apart * mask[..., None]
    return image.clip(0, 255).astype(np.uint8), mask


@pytest.fixture(scope="module")
def right() -> dict[int, Pair]:
    return {10 * seed: drawn(seed) for seed in range(COUNT)}


def with_mask(pairs: dict[int, Pair], place: int, mask: np.ndarray) -> dict[int, Pair]:
    return pairs | {place: (pairs[place][0], mask)}


def test_a_share_is_that_of_the_variance_between_classes() -> None:
    pairs = {place: drawn(place, size=(SIDE, SIDE)) for place in range(8)}
    areas = areas_of(pairs)
    assert areas is not None
    image, mask = pairs[3][0], pairs[5][1]
    shares = []
    for values in (*np.moveaxis(image.astype(float), -1, 0), slopes_of(image).astype(float)):
        means = np.zeros(values.shape)
        for value in np.unique(mask):
            means[mask == value] = values[mask == value].mean()
        shares.append(means.var() / values.var())
    assert areas.shares[5, 3] == pytest.approx(np.mean(shares), rel=1e-3)


def test_right_masks_explain_their_images_and_a_foreign_one_does_not(right: dict[int, Pair]) -> None:
    areas = areas_of(right)
    assert areas is not None
    assert (areas.own, areas.lost) == (set(right), set())
    for seed in range(90, 94):
        areas = areas_of(with_mask(right, 30, drawn(seed)[1]))
        assert areas is not None
        assert areas.own == set(right) - {30}
        assert areas.lost <= {30}
    found = [areas_of(with_mask(right, 30, drawn(seed)[1])) for seed in range(90, 106)]
    assert sum(bool(areas and areas.lost) for areas in found) >= 10  # 3 in 4 of 16


def test_a_mask_is_told_to_explain_the_image_that_it_was_drawn_on_and_no_other(right: dict[int, Pair]) -> None:
    exchanged = with_mask(with_mask(right, 30, right[70][1]), 70, right[30][1])
    areas = areas_of(exchanged)
    assert areas is not None
    for place in (30, 70):
        told = {other for other in right if areas.explained(place, right[other][1])}
        assert told == {place}
    assert not any(areas.explained(50, right[other][1]) for other in right)  # which has its own


def test_areas_that_do_not_differ_tell_nothing_and_few_pairs_neither(right: dict[int, Pair]) -> None:
    assert areas_of({place: drawn(place, apart=0) for place in range(COUNT)}) is None
    assert areas_of({place: right[place] for place in list(right)[:7]}) is None
    moved_on = dict(zip(right, [*list(right.values())[1:], right[0]], strict=True))
    assert areas_of({place: (right[place][0], mask) for place, (_, mask) in moved_on.items()}) is None


def test_masks_of_other_sizes_are_laid_over_as_they_are(right: dict[int, Pair]) -> None:
    larger = right | {40: tuple(array.repeat(2, 0).repeat(2, 1) for array in right[40])}
    areas = areas_of(larger)
    assert areas is not None
    assert areas.own == set(right)


@pytest.mark.parametrize("tinted", [True, False])
def test_fits_of_areas_are_those_of_a_slow_loop(*, tinted: bool) -> None:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 5, (6, TINTS, TINTS))
    classes = coarse.repeat(2, 1).repeat(2, 2)  # 3 of them, and what is none
    classes[2] = 4
    thumbnails, edges = rng.integers(0, 256, (2, 6, MAP_SIDE, MAP_SIDE), np.uint8)
    edges[4] = 9
    tints = rng.integers(0, 256, (6, TINTS, TINTS, 2), np.uint8)
    tints[5, :, :, 0] = 40 * coarse[0]  # which mask 0 explains in full but for what is none
    pictures = PictureMaps(thumbnails, edges, tints if tinted else tints[:, :0, :0])
    fits = fits_of_areas(classes, pictures, 3)
    for j in range(6):
        maps = [one[j].reshape(TINTS, 2, TINTS, 2).mean((1, 3)) for one in (thumbnails, edges)]
        maps += [tints[j, ..., band].astype(float) for band in (0, 1)] if tinted else []
        for i in range(6):
            told = 0.0
            for values in maps:
                off = values - values.mean()
                between = sum(
                    (coarse[i] == k).sum() * off[coarse[i] == k].mean() ** 2 for k in range(3) if k in coarse[i]
                )
                told -= np.log1p(-min(between / max((off**2).sum(), 1e-9), MOST_EXPLAINED))
            assert fits[i, j] == pytest.approx(0 if i == 2 else told**0.5, abs=2e-3)
    assert fits_of_areas(classes, pictures, 3, own=True) == pytest.approx(np.diag(fits), abs=1e-5)
