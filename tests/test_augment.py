"""Augmentation: image and mask move together, nothing appears that was not there, and padding is ignored."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segtool.config import Augment
from segtool.data.augment import LUMINANCE, Geometry, draw_geometry, jitter_color, warp_image, warp_mask
from segtool.data.labels import IGNORE

FLIPS = ["none", "horizontal", "vertical", "both"]
KINDS = [(np.uint8, 1), (np.uint8, 3), (np.uint8, 4), (np.uint8, 5), (np.float32, 1), (np.float32, 3)]
sides = st.integers(1, 24)
sizes = st.tuples(sides, sides)
augments = st.builds(
    Augment,
    scale=st.tuples(st.floats(0.4, 1), st.floats(1, 2.5)),
    flip=st.sampled_from(FLIPS),
    rotate=st.sampled_from([0.0, 0.0, 10.0, 180.0]),
)
seeds = st.integers(0, 2**32)


def draw(size, crop, augment=None, *, seed=0) -> Geometry:
    return draw_geometry(np.random.default_rng(seed), size, crop, augment or Augment())


def random_mask(size, seed=0, classes=5) -> np.ndarray:
    return np.random.default_rng(seed).integers(classes, size=size, dtype=np.uint8)


def random_image(size, dtype: type = np.uint8, channels=3, seed=0) -> np.ndarray:
    image = np.random.default_rng(seed).integers(256, size=(*size, channels), dtype=np.uint8)
    return image if dtype is np.uint8 else (image / np.float32(1.7)).astype(np.float32)


def marker(mask: np.ndarray) -> np.ndarray:
    """Returns an image that tells each pixel's class, 3 channels that differ."""
    return np.stack([mask * 50, 250 - mask * 50, mask * 10], axis=2).astype(np.uint8)


def fill(channels=3, value=77.0) -> np.ndarray:
    return np.full(channels, value)


def places(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Returns the x and y in the image that each pixel of the crop is read at, from the matrix alone."""
    y, x = np.mgrid[: geometry.size[0], : geometry.size[1]] + 0.5
    (xx, xy, x0), (yx, yy, y0) = geometry.matrix
    return xx * x + xy * y + x0, yx * x + yy * y + y0


def step(geometry: Geometry) -> float:
    """Returns how many pixels of the image one of the crop is wide."""
    return math.sqrt(abs(np.linalg.det(geometry.matrix[:, :2])))


def uniform(mask: np.ndarray, reach: int) -> np.ndarray:
    """Returns where all pixels up to `reach` away are of one class."""
    padded = np.pad(mask, reach, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1,) * 2)
    return windows.min(axis=(2, 3)) == windows.max(axis=(2, 3))


def slow_mask(mask: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Returns the crop of a mask pixel by pixel, and where a place is so near an edge that rounding decides."""
    crop, edges = np.full(geometry.size, IGNORE, np.uint8), np.zeros(geometry.size, bool)
    xs, ys = places(geometry)
    for at in np.ndindex(geometry.size):
        x, y = float(xs[at]), float(ys[at])
        edges[at] = min(abs(x - round(x)), abs(y - round(y))) < 0.01
        if 0 <= x < mask.shape[1] and 0 <= y < mask.shape[0]:
            crop[at] = mask[int(y), int(x)]
    return crop, edges


@settings(deadline=None, max_examples=40)
@given(size=sizes, crop=sizes, augment=augments, seed=seeds)
def test_the_mask_is_read_at_the_nearest_pixel_of_each_place(size, crop, augment, seed):
    mask = random_mask(size)
    geometry = draw(size, crop, augment, seed=seed)
    wanted, edges = slow_mask(mask, geometry)
    found = warp_mask(mask, geometry)
    assert found.dtype == np.uint8
    assert found.shape == crop
    assert ((found == wanted) | edges).all()


@settings(deadline=None, max_examples=40)
@given(size=st.tuples(st.integers(8, 60), st.integers(8, 60)), crop=sizes, augment=augments, seed=seeds)
def test_the_image_is_read_at_the_places_of_the_mask(size, crop, augment, seed):
    """Each pixel of the image holds its own place, and reading a linear function between pixels keeps it."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32) + np.float32(0.5)
    geometry = draw(size, crop, augment, seed=seed)
    found = warp_image(np.stack([x, y], axis=2), geometry, fill(2, -100))
    reach = max(step(geometry), 1)
    xs, ys = places(geometry)
    inner = (xs > reach) & (xs < size[1] - reach) & (ys > reach) & (ys < size[0] - reach)
    error = np.abs(found - np.stack([xs, ys], axis=2)).max(axis=2)
    assert error[inner].max(initial=0) < 0.01 + 0.1 * (step(geometry) > 1)


@settings(deadline=None, max_examples=40)
@given(size=sizes, crop=sizes, augment=augments, seed=seeds)
def test_an_image_that_tells_the_mask_still_tells_it_away_from_the_edges_of_classes(size, crop, augment, seed):
    blocks = random_mask((size[0] // 8 + 1, size[1] // 8 + 1), seed % 1000)
    mask = np.kron(blocks, np.ones((8, 8), np.uint8))[: size[0], : size[1]]
    geometry = draw(size, crop, augment, seed=seed)
    found, image = warp_mask(mask, geometry), warp_image(marker(mask), geometry, fill())
    xs, ys = (place.astype(int) for place in places(geometry))
    seen = (found != IGNORE) & uniform(mask, round(step(geometry)) + 2)[
        ys.clip(0, size[0] - 1), xs.clip(0, size[1] - 1)
    ]
    assert np.abs(image[seen].astype(int) - marker(found)[seen]).max(initial=0) <= 1


def test_the_oracle_sees_a_mask_that_was_flipped_alone():
    """The negative control of the tests above."""
    mask = random_mask((9, 9))
    geometry = draw((9, 9), (9, 9))
    wanted, edges = slow_mask(mask, geometry)
    assert not ((warp_mask(mask, geometry)[:, ::-1] == wanted) | edges).all()


@settings(deadline=None, max_examples=40)
@given(size=sizes, crop=sizes, augment=augments, seed=seeds)
def test_the_labels_of_a_crop_are_labels_of_the_mask(size, crop, augment, seed):
    mask = random_mask(size, classes=100) * np.uint8(2)  # even labels only: an average of two could be odd
    found = warp_mask(mask, draw(size, crop, augment, seed=seed))
    assert set(found.ravel().tolist()) <= {*mask.ravel().tolist(), IGNORE}


@settings(deadline=None, max_examples=40)
@given(size=sizes, crop=sizes, augment=augments, seed=seeds, kind=st.sampled_from(KINDS))
def test_the_image_is_filled_exactly_where_the_mask_is_ignored(size, crop, augment, seed, kind):
    dtype, channels = kind
    geometry = draw(size, crop, augment, seed=seed)
    image = np.full((*size, channels), 200, dtype)
    found = warp_image(image, geometry, fill(channels))
    mask = warp_mask(np.zeros(size, np.uint8), geometry)
    xs, ys = places(geometry)
    edges = np.minimum(np.abs(xs - np.round(xs)), np.abs(ys - np.round(ys))) < 0.01
    wanted = np.where(mask == IGNORE, 77, 200)[..., None]
    assert (np.isclose(found, wanted, atol=0.01) | edges[..., None]).all()


@settings(deadline=None, max_examples=40)
@given(size=sizes, crop=sizes, augment=augments, seed=seeds)
def test_a_window_lies_within_the_image_or_covers_it(size, crop, augment, seed):
    upright = Augment(scale=augment.scale, flip=augment.flip)
    geometry = draw(size, crop, upright, seed=seed)
    corners = np.array([[0, crop[1]], [0, crop[0]], [1, 1]])
    for whole, (low, high) in zip(size[::-1], np.sort(geometry.matrix @ corners, axis=1), strict=True):
        slack = 1e-9 * whole
        assert (low >= -slack and high <= whole + slack) or (low <= slack and high >= whole - slack)


@settings(deadline=None, max_examples=40)
@given(size=sizes, crop=sizes, augment=augments, seed=seeds)
def test_zoom_and_angle_stay_within_what_the_config_says(size, crop, augment, seed):
    geometry = draw(size, crop, augment, seed=seed)
    linear = geometry.matrix[:, :2]
    assert augment.scale[0] - 1e-9 <= 1 / step(geometry) <= augment.scale[1] + 1e-9
    mirrored = np.linalg.det(linear) < 0
    assert not mirrored or augment.flip != "none"
    if augment.flip == "none":
        assert abs(math.degrees(math.atan2(linear[1, 0], linear[0, 0]))) <= augment.rotate + 1e-9


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@pytest.mark.parametrize("size", [(1, 1), (7, 12), (32, 32)])
def test_without_any_change_image_and_mask_come_back_exactly(size, dtype, channels):
    image, mask = random_image(size, dtype, channels), random_mask(size)
    geometry = draw(size, size)
    found = warp_image(image, geometry, fill(channels))
    assert found.dtype == image.dtype
    assert np.array_equal(found, image)
    assert np.array_equal(warp_mask(mask, geometry), mask)


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@pytest.mark.parametrize("flip", FLIPS)
def test_a_flip_alone_mirrors_exactly(flip, dtype, channels):
    image, mask = random_image((6, 9), dtype, channels), random_mask((6, 9))
    for seed in range(8):
        geometry = draw((6, 9), (6, 9), Augment(flip=flip), seed=seed)
        steps = tuple(-1 if flipped else 1 for flipped in geometry.mirror)
        assert np.array_equal(warp_image(image, geometry, fill(channels)), image[:: steps[1], :: steps[0]])
        assert np.array_equal(warp_mask(mask, geometry), mask[:: steps[1], :: steps[0]])


@pytest.mark.parametrize(("flip", "axes"), [("horizontal", (1, 0)), ("vertical", (0, 1)), ("both", (1, 1))])
def test_a_named_axis_is_mirrored_half_of_the_time_and_the_other_never(flip, axes):
    drawn = np.array([draw((4, 4), (4, 4), Augment(flip=flip), seed=seed).mirror for seed in range(400)])
    for share, named in zip(drawn.mean(0), axes, strict=True):
        assert (0.4 < share < 0.6) if named else share == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_crop_larger_than_the_image_holds_all_of_it_with_ignored_pixels_around(dtype):
    mask = random_mask((5, 7))
    image = np.repeat(mask[..., None], 3, axis=2).astype(dtype)
    for seed in range(20):
        geometry = draw((5, 7), (12, 16), seed=seed)
        found = warp_mask(mask, geometry)
        inside = found != IGNORE
        top, left = np.argwhere(inside)[0]
        assert np.array_equal(found[top : top + 5, left : left + 7], mask)
        assert inside.sum() == mask.size
        assert (warp_image(image, geometry, fill())[~inside] == 77).all()


def test_a_crop_that_is_larger_one_way_and_smaller_the_other_is_ignored_only_outside():
    found = warp_mask(np.zeros((20, 5), np.uint8), draw((20, 5), (8, 9)))
    assert ((found == 0).sum(axis=1) == 5).all()


def test_a_rotation_ignores_the_corners_that_the_image_does_not_reach():
    geometry = next(
        g for g in (draw((30, 30), (30, 30), Augment(rotate=45), seed=s) for s in range(50)) if g.matrix[0, 0] < 0.8
    )
    found = warp_mask(np.zeros((30, 30), np.uint8), geometry)
    assert {int(found[y, x]) for y in (0, -1) for x in (0, -1)} == {IGNORE}
    assert found[15, 15] == 0


def test_an_image_that_is_shrunk_is_averaged():
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::2] = 200
    geometry = draw((16, 16), (4, 4), Augment(scale=(0.25, 0.25)))
    assert np.abs(warp_image(stripes, geometry, fill()).astype(int) - 100).max() <= 30


def test_ignored_pixels_of_the_mask_stay_ignored():
    mask = np.full((10, 10), IGNORE, np.uint8)
    assert (warp_mask(mask, draw((10, 10), (6, 6), Augment(rotate=30, scale=(0.5, 2)))) == IGNORE).all()


@settings(deadline=None)
@given(size=sizes, crop=sizes, augment=augments, seed=seeds)
def test_a_geometry_is_a_function_of_the_generator(size, crop, augment, seed):
    first, second = (draw(size, crop, augment, seed=seed) for _ in range(2))
    assert np.array_equal(first.matrix, second.matrix)
    assert (first.mirror, first.box, first.size) == (second.mirror, second.box, second.size)


def slow_jitter(image: np.ndarray, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """Returns the changed image by the definitions, before rounding."""
    channels = image.shape[2]
    weights = LUMINANCE if channels == 3 else np.full(channels, 1 / channels)
    middle = (image.reshape(-1, channels).astype(float) @ weights).mean()
    changed = np.empty(image.shape)
    for at in np.ndindex(image.shape[:2]):
        pixel = image[at].astype(float)
        if channels == 3:
            pixel = saturation * pixel + (1 - saturation) * (LUMINANCE @ pixel)
        changed[at] = brightness * (contrast * pixel + (1 - contrast) * middle)
    return changed.clip(0, 255)


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_colors_change_by_the_three_factors_drawn(strength, dtype, channels):
    image = random_image((5, 6), dtype, channels)
    for seed in range(10):
        factors = np.random.default_rng(seed).uniform(1 - strength, 1 + strength, size=3)
        found = jitter_color(image, np.random.default_rng(seed), strength)
        assert found.dtype == image.dtype
        assert np.abs(found - slow_jitter(image, *factors)).max() <= (0.51 if dtype == np.uint8 else 1e-3)


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_a_strength_of_zero_changes_nothing(dtype, channels):
    image = random_image((8, 8), dtype, channels)
    assert np.array_equal(jitter_color(image, np.random.default_rng(0), 0.0), image)


@given(seed=seeds, strength=st.floats(0, 1), kind=st.sampled_from(KINDS))
def test_changed_colors_stay_in_range_and_a_grey_picture_stays_grey(seed, strength, kind):
    dtype, channels = kind
    image = np.repeat(random_image((4, 4), dtype, 1), channels, axis=2)
    before = image.copy()
    found = jitter_color(image, np.random.default_rng(seed), strength)
    assert np.array_equal(image, before)
    assert found.min() >= 0
    assert found.max() <= 255
    assert np.ptp(found.astype(float), axis=2).max() <= 1e-3
