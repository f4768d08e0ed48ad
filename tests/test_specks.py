"""Specks are the regions of up to 6 pixels, diagonals connected: against a slow flood."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from segtool.data import specks
from segtool.data.specks import SPECK_PIXELS, are_alone, find_specks


def counted(mask: np.ndarray) -> dict[int, int]:
    begins, lower = np.ones((2, *mask.shape), bool)
    begins[:, 1:] = mask[:, 1:] != mask[:, :-1]
    lower[:-1] = mask[1:] != mask[:-1]
    starts = np.flatnonzero(begins)
    values = mask.ravel()[starts]
    return Counter(values[find_specks(values, starts, np.diff(starts, append=mask.size), lower[None])].tolist())


def flooded(mask: np.ndarray) -> dict[int, int]:
    """Returns the same by walking through each region pixel by pixel."""
    left = {(int(y), int(x)) for y, x in np.ndindex(mask.shape)}
    counts: Counter[int] = Counter()
    while left:
        region = [left.pop()]
        for y, x in region:
            around = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            alike = [place for place in around if mask[place] == mask[y, x]]
            left -= set(alike)
            region += alike
        counts[int(mask[region[0]])] += len(region) <= SPECK_PIXELS
    return {value: count for value, count in counts.items() if count}


@pytest.mark.parametrize("seed", range(40))
def test_specks_are_those_of_a_slow_flood(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specks, "MAX_SHARE", 2)
    monkeypatch.setattr(specks, "FEW", 0)
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 14)), int(rng.integers(1, 14)))
    mask = rng.integers(0, 4, shape) if seed % 3 else rng.random(shape) < rng.random()
    assert counted(mask.astype(np.uint8)) == flooded(mask)


def test_a_thin_diagonal_line_is_no_speck_and_stray_pixels_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specks, "FEW", 0)
    mask = np.zeros((60, 60), np.uint8)
    mask[np.arange(60), np.arange(60)] = 1
    assert counted(mask) == {}
    mask[5, 40] = mask[30:32, 3:6] = mask[50, 2] = 2
    assert counted(mask) == {2: 3}


@pytest.mark.parametrize("turned", [False, True])
def test_the_arm_of_a_sign_is_no_speck_wherever_it_meets_the_post(
    turned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(specks, "FEW", 0)
    mask = np.zeros((30, 30), np.uint8)
    mask[10, 10:16] = mask[11:25, 12] = 1
    assert counted(mask[::-1] if turned else mask) == {}


def alone_slowly(mask: np.ndarray, y: int, x: int) -> bool:
    """Returns whether all that is seen around a speck's first pixel is its few pixels and one other value."""
    seen = [mask[min(max(y + dy, 0), mask.shape[0] - 1), min(max(x + dx, 0), mask.shape[1] - 1)]
            for dy in range(-2, 5) for dx in range(-3, 6)]  # fmt: skip
    own = [value for value in seen if value == mask[y, x]]
    return len(own) <= SPECK_PIXELS and len(set(seen)) == 2 and seen[0] != mask[y, x]


def test_specks_that_lie_alone_are_those_with_one_other_value_around(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    masks = np.zeros((3, 40, 50), np.uint8)
    masks[:, 20:, :] = 1
    places = np.flatnonzero(rng.random(masks.shape) < 0.02)
    masks.ravel()[places] = rng.integers(0, 3, len(places))
    expected = [alone_slowly(masks[n], *divmod(rest, 50)) for n, rest in (divmod(int(p), 2000) for p in places)]
    assert are_alone(masks, places).tolist() == expected
    monkeypatch.setattr(specks, "TOGETHER", 7)
    assert are_alone(masks, places).tolist() == expected
    assert 20 < sum(expected) < 0.9 * len(expected)
    assert are_alone(masks, places[:0]).tolist() == []


def test_of_a_mask_that_is_noise_nothing_is_told() -> None:
    assert counted(np.random.default_rng(0).integers(0, 9, (80, 80))) == {}
