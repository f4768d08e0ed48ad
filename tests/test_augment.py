"""Augmentation: image and mask move together, nothing appears that was not there, and padding is ignored."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import random_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segtool.config import Augment
from segtool.data import augment as augmentation
from segtool.data.augment import augment_pair, draw_centre, draw_rectangle, erase
from segtool.data.codes import IGNORE
from segtool.data.geometry import SPACING, Geometry, draw_displacement, draw_geometry
from segtool.data.photometry import change_colors
from segtool.data.warp import warp_image, warp_mask

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


def ends(geometry: Geometry, size) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the first pixel and the one after the last that can be read, along x and y."""
    if geometry.upright is None:
        return (0, size[1]), (0, size[0])
    rows, columns = geometry.upright.source
    return (columns.start, columns.stop), (rows.start, rows.stop)


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
    reach = max(np.abs(geometry.matrix[:, :2]).max(), 1)
    xs, ys = places(geometry)
    (left, right), (top, bottom) = ends(geometry, size)
    inner = (xs > left + reach) & (xs < right - reach) & (ys > top + reach) & (ys < bottom - reach)
    error = np.abs(found - np.stack([xs, ys], axis=2)).max(axis=2)
    assert error[inner].max(initial=0) < 0.01 + 0.1 * (reach > 1)


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
    mirrored = np.linalg.det(linear) < 0
    assert not mirrored or augment.flip != "none"
    if geometry.upright is None:
        assert augment.scale[0] - 1e-9 <= 1 / step(geometry) <= augment.scale[1] + 1e-9
        if augment.flip == "none":
            assert abs(math.degrees(math.atan2(linear[1, 0], linear[0, 0]))) <= augment.rotate + 1e-9
        return
    assert augment.rotate == 0
    for source, target in zip(geometry.upright.source, geometry.upright.target, strict=True):
        read, made = source.stop - source.start, target.stop - target.start
        # One of the two is rounded to whole pixels, at least one.
        zooms = [(made + off) / (read + other) for off, other in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))]
        assert min(zooms) - 1e-9 <= augment.scale[1] or made == 1
        assert max(zooms) + 1e-9 >= augment.scale[0] or read == 1


@settings(deadline=None, max_examples=60)
@given(size=sizes, crop=sizes, augment=augments, seed=seeds)
def test_an_upright_window_is_whole_pixels_that_its_matrix_maps_onto_each_other(size, crop, augment, seed):
    geometry = draw(size, crop, replace(augment, rotate=0.0), seed=seed)
    assert geometry.upright is not None
    (rows, columns), (down, across) = geometry.upright.source, geometry.upright.target
    for part, whole in ((rows, size[0]), (columns, size[1]), (down, crop[0]), (across, crop[1])):
        assert 0 <= part.start < part.stop <= whole
    corners = geometry.matrix @ np.array([[across.start, across.stop], [down.start, down.stop], [1, 1]])
    assert np.allclose(np.sort(corners, axis=1), [(columns.start, columns.stop), (rows.start, rows.stop)])
    assert (columns.start == 0 and columns.stop == size[1]) or across == slice(0, crop[1])
    assert (rows.start == 0 and rows.stop == size[0]) or down == slice(0, crop[0])


@settings(deadline=None, max_examples=40)
@given(size=sizes, crop=sizes, flip=st.sampled_from(FLIPS), seed=seeds)
def test_what_is_not_zoomed_is_copied_pixel_by_pixel(size, crop, flip, seed):
    image, mask = random_image(size), random_mask(size)
    geometry = draw(size, crop, Augment(flip=flip), seed=seed)
    xs, ys = (np.floor(place).astype(int) for place in places(geometry))
    inside = (xs >= 0) & (xs < size[1]) & (ys >= 0) & (ys < size[0])
    found, target = warp_image(image, geometry, fill()), warp_mask(mask, geometry)
    assert np.array_equal(found[inside], image[ys[inside], xs[inside]])
    assert np.array_equal(target[inside], mask[ys[inside], xs[inside]])
    assert (target[~inside] == IGNORE).all()


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
def test_a_resized_window_is_what_pillow_makes_of_it(channels):
    image = random_image((40, 50), channels=channels)
    for seed in range(12):
        geometry = draw((40, 50), (33, 37), Augment(scale=(0.4, 2.5)), seed=seed)
        assert geometry.upright is not None
        found = warp_image(image, geometry, fill(channels))[geometry.upright.target]
        part = image[geometry.upright.source]
        for channel in range(channels):
            pillow = Image.fromarray(part[..., channel]).resize(found.shape[1::-1], Image.Resampling.BILINEAR)
            assert np.abs(found[..., channel].astype(int) - np.asarray(pillow)).max() <= 1


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
    assert (first.mirror, first.upright, first.size) == (second.mirror, second.upright, second.size)


@pytest.mark.parametrize("augment", [Augment(), Augment(scale=(0.7, 1.6), flip="both", rotate=20, color=0.3)])
@pytest.mark.parametrize("centre", [None, (9.5, 3.5)])
def test_what_is_off_draws_nothing_so_the_crops_of_old_configs_stay(augment, centre):
    """The draws that there were before the newer options, written out."""
    image, mask, crop = random_image((30, 40)), random_mask((30, 40)), (20, 24)
    found = augment_pair(image, mask, rng := np.random.default_rng(5), crop=crop, augment=augment)
    old = np.random.default_rng(5)
    zoom = math.exp(old.uniform(*np.log(augment.scale)))
    angle = old.uniform(-augment.rotate, augment.rotate) if augment.rotate else 0.0
    mirror = tuple(axis == augment.flip and old.random() < 0.5 for axis in ("both", "both"))
    slack = [whole - part / zoom for whole, part in zip((30, 40), crop, strict=True)]
    top, left = (old.uniform(min(0, over), max(0, over)) for over in slack)
    geometry = draw(image.shape[:2], crop, augment, seed=5)
    middle = geometry.matrix @ (crop[1] / 2, crop[0] / 2, 1)
    rounded = 0.0 if angle else 0.5  # an upright window to whole pixels
    assert np.allclose(middle, (left + crop[1] / zoom / 2, top + crop[0] / zoom / 2), rtol=0, atol=rounded + 1e-9)
    assert geometry.mirror == mirror
    assert np.allclose(step(geometry), 1 / zoom)
    assert np.allclose(abs(math.degrees(math.asin(geometry.matrix[1, 0] * zoom))), abs(angle))
    warped = warp_image(image, geometry, image.mean((0, 1)))
    assert np.array_equal(found[0], change_colors(warped, old, augment))
    assert np.array_equal(found[1], warp_mask(mask, geometry))
    assert rng.random() == old.random()


def keys(t: float) -> float:
    """Returns the weight of a point at a distance, by Keys' cubic with a = -1/2."""
    t = abs(t)
    if t <= 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0


def test_an_elastic_displacement_is_interpolated_between_random_points_64_pixels_apart():
    crop = (70, 150)
    found = draw_displacement(np.random.default_rng(4), crop, 6.0)
    points = np.random.default_rng(4).normal(0, 6.0, size=(2, 5, 6))
    for row, column in [(0, 0), (69, 149), (33, 64), (63, 127), (20, 100)]:
        at = [(place + 0.5) / SPACING + 1 for place in (row, column)]  # the first point lies outside, at -64
        wanted = sum(keys(at[0] - i) * keys(at[1] - j) * points[:, i, j] for i, j in np.ndindex(points.shape[1:]))
        assert np.allclose(found[:, row, column], wanted, atol=1e-4)


def test_an_elastic_displacement_has_the_deviation_asked_for_at_its_points():
    drawn = [draw_displacement(np.random.default_rng(seed), (64, 64), 5.0)[:, 0, 0] for seed in range(400)]
    assert 4.6 < np.std(drawn) < 5.4  # 800 values: four standard errors are 0.5
    assert abs(np.mean(drawn)) < 0.8


elastics = st.builds(
    Augment,
    scale=st.tuples(st.floats(0.6, 1), st.floats(1, 1.6)),
    flip=st.sampled_from(FLIPS),
    rotate=st.sampled_from([0.0, 20.0]),
    elastic=st.sampled_from([0.01, 3.0, 40.0]),
)


def bent_places(size, crop, augment, seed) -> tuple[Geometry, np.ndarray, np.ndarray]:
    """Returns a geometry, and the x and y of each pixel from its matrix and the displacement drawn after it."""
    straight = draw_geometry(rng := np.random.default_rng(seed), size, crop, replace(augment, elastic=0.0))
    dx, dy = draw_displacement(rng, crop, augment.elastic).astype(float)
    y, x = np.mgrid[: crop[0], : crop[1]] + 0.5
    bent = draw(size, crop, augment, seed=seed)
    assert np.allclose(bent.matrix, straight.matrix) or not augment.rotate  # an upright one is rounded
    (xx, xy, x0), (yx, yy, y0) = bent.matrix
    x, y = x + dx, y + dy
    return bent, xx * x + xy * y + x0, yx * x + yy * y + y0


@settings(deadline=None, max_examples=30)
@given(size=sizes, crop=sizes, augment=elastics, seed=seeds, kind=st.sampled_from(KINDS))
def test_an_elastic_crop_reads_the_displaced_places_of_image_and_mask(size, crop, augment, seed, kind):
    """Pixel by pixel: bilinearly in the image, the nearest in the mask, and outside of it fill and IGNORE."""
    dtype, channels = kind
    image, mask = random_image(size, dtype, channels), random_mask(size)
    geometry, xs, ys = bent_places(size, crop, augment, seed)
    found, target = warp_image(image, geometry, fill(channels)), warp_mask(mask, geometry)
    assert (found.dtype, found.shape, target.dtype, target.shape) == (image.dtype, (*crop, channels), np.uint8, crop)
    padded = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)), mode="edge")
    for at in np.ndindex(crop):
        x, y = float(xs[at]), float(ys[at])
        if min(abs(x - round(x)), abs(y - round(y))) < 0.001:
            continue  # rounding decides on which side it lies
        if not (0 <= x < size[1] and 0 <= y < size[0]):
            assert target[at] == IGNORE
            assert (found[at] == 77).all()
            continue
        assert target[at] == mask[int(y), int(x)]
        left, top = math.floor(x - 0.5), math.floor(y - 0.5)
        fx, fy = x - 0.5 - left, y - 0.5 - top
        four = padded[top + 1 : top + 3, left + 1 : left + 3]
        wanted = (1 - fy) * ((1 - fx) * four[0, 0] + fx * four[0, 1]) + fy * ((1 - fx) * four[1, 0] + fx * four[1, 1])
        assert np.abs(found[at] - wanted).max() <= (0.52 if dtype is np.uint8 else 0.05)


@pytest.mark.parametrize("seed", range(6))
def test_an_image_that_is_its_own_mask_stays_it_under_an_elastic_deformation(seed):
    mask = np.kron(random_mask((6, 8), seed), np.ones((16, 16), np.uint8))
    image = mask[..., None] * np.uint8(50)
    augment = Augment(elastic=6.0, rotate=15, scale=(0.8, 1.3), flip="both")
    rng = np.random.default_rng(seed)
    found, target = augment_pair(image, mask, rng, crop=(80, 100), augment=augment)
    inner = uniform(target, 2) & (target != IGNORE)
    inner[:2] = inner[-2:] = inner[:, :2] = inner[:, -2:] = False  # what lies beyond the crop is not known here
    assert inner.mean() > 0.3
    assert np.array_equal(found[..., 0][inner], 50 * target[inner])
    assert not np.array_equal(found[:, ::-1, 0][inner], 50 * target[inner]), "the negative control"


def test_a_tiny_deformation_changes_no_more_than_the_affine_path():
    image, mask = random_image((90, 90)), random_mask((90, 90))
    turned = Augment(rotate=20, scale=(0.9, 1.1))
    for seed in range(4):
        plain, bent = (
            draw((90, 90), (64, 64), turned, seed=seed),
            draw((90, 90), (64, 64), replace(turned, elastic=1e-6), seed=seed),
        )
        difference = np.abs(warp_image(image, plain, fill()).astype(int) - warp_image(image, bent, fill()))
        assert (difference <= 2).mean() > 0.995
        assert (warp_mask(mask, plain) == warp_mask(mask, bent)).mean() > 0.99


def test_a_displacement_beyond_the_image_gives_an_ignored_crop():
    geometry = replace(draw((9, 9), (5, 6), Augment(elastic=1.0)), places=np.full((2, 5, 6), 1e6, np.float32))
    for places in (geometry.places, -geometry.places):
        far = replace(geometry, places=places)
        assert (warp_mask(random_mask((9, 9)), far) == IGNORE).all()
        assert (warp_image(random_image((9, 9)), far, fill()) == 77).all()


@settings(deadline=None, max_examples=100)
@given(size=sizes, largest=st.floats(0.001, 0.999), seed=seeds)
def test_a_rectangle_lies_in_the_crop_and_takes_no_more_than_its_share(size, largest, seed):
    rows, columns = draw_rectangle(np.random.default_rng(seed), size, largest)
    assert 0 <= rows.start <= rows.stop <= size[0]
    assert 0 <= columns.start <= columns.stop <= size[1]
    height, width = rows.stop - rows.start, columns.stop - columns.start
    area = largest * size[0] * size[1]
    assert height * width <= area + (height + width + 1) / 2  # each side is rounded


def test_rectangles_have_every_share_and_shape_and_reach_every_edge():
    size = (100, 120)
    drawn = [draw_rectangle(np.random.default_rng(seed), size, 0.2) for seed in range(600)]
    sides = np.array([(r.stop - r.start, c.stop - c.start) for r, c in drawn])
    shares = sides.prod(axis=1) / (size[0] * size[1])
    assert np.allclose(np.quantile(shares, [0.25, 0.5, 0.75]), [0.05, 0.1, 0.15], atol=0.015)  # uniform
    large = sides[shares > 0.02]
    ratios = np.log(large[:, 0] / large[:, 1]) / math.log(3)
    assert np.allclose(np.quantile(ratios, [0.25, 0.5, 0.75]), [-0.5, 0, 0.5], atol=0.15)
    assert {0, 100} <= {edge for r, _ in drawn for edge in (r.start, r.stop)}
    assert {0, 120} <= {edge for _, c in drawn for edge in (c.start, c.stop)}


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_what_is_erased_has_the_mean_colour_and_is_ignored_and_nothing_else_changes(dtype, channels):
    image, mask = random_image((9, 12), dtype, channels), random_mask((9, 12))
    before = image.copy(), mask.copy()
    rectangle = (slice(2, 5), slice(4, 11))
    found, target = erase(image, mask, rectangle)
    assert np.array_equal(image, before[0])
    assert np.array_equal(mask, before[1])
    inside = np.zeros((9, 12), bool)
    inside[rectangle] = True
    mean = image.reshape(-1, channels).astype(float).mean(axis=0)
    assert np.abs(found[inside] - mean).max() <= (0.5 if dtype is np.uint8 else 1e-4)
    assert (target[inside] == IGNORE).all()
    assert np.array_equal(found[~inside], image[~inside])
    assert np.array_equal(target[~inside], mask[~inside])


def test_a_rare_class_is_drawn_by_its_scarcity_and_any_of_its_pixels():
    mask = np.full((10, 10), 0, np.uint8)
    mask[3, 4] = mask[7, 1] = 1
    mask[:, 9] = 2
    mask[0] = IGNORE
    pixels = (800, 100, 400, 1)  # class 3 is the rarest and not in this mask
    rng = np.random.default_rng(0)
    drawn = [draw_centre(rng, mask, pixels, 1.0) for _ in range(2000)]
    places = [(int(y), int(x)) for y, x in filter(None, drawn)]
    assert len(places) == 2000
    counts = Counter(int(mask[place]) for place in places)
    weights = np.array([1 / 800, 1 / 100, 1 / 400])
    assert np.allclose([counts[k] / 2000 for k in range(3)], weights / weights.sum(), atol=0.04)
    assert set(counts) == {0, 1, 2}
    ones = Counter(place for place in places if mask[place] == 1)
    assert 0.4 < ones[3, 4] / ones.total() < 0.6
    assert all(centre is not None and centre[0] % 1 == centre[1] % 1 == 0.5 for centre in drawn)


def test_a_share_of_the_crops_is_centred_and_none_where_all_is_ignored():
    rng = np.random.default_rng(0)
    drawn = [draw_centre(rng, np.zeros((3, 3), np.uint8), (9, 1), 0.3) for _ in range(1000)]
    assert 0.25 < sum(centre is not None for centre in drawn) / 1000 < 0.35
    assert draw_centre(rng, np.full((3, 3), IGNORE, np.uint8), (9, 1), 1.0) is None


@settings(deadline=None, max_examples=60)
@given(size=sizes, crop=sizes, augment=augments, seed=seeds, data=st.data())
def test_a_window_is_centred_as_far_as_the_image_allows(size, crop, augment, seed, data):
    y, x = (data.draw(st.integers(0, side - 1)) + 0.5 for side in size)
    geometry = draw_geometry(np.random.default_rng(seed), size, crop, augment, centre=(y, x))
    middle = geometry.matrix @ (crop[1] / 2, crop[0] / 2, 1)
    # An upright window is rounded to whole pixels, its place and its size, along each axis.
    upright = geometry.upright is not None
    steps = np.abs(np.diag(geometry.matrix)) if upright else np.full(2, step(geometry))
    windows = np.array(crop[::-1]) * steps
    for at, wanted, whole, part, pixel in zip(middle, (x, y), size[::-1], windows, steps, strict=True):
        ends = sorted((part / 2, whole - part / 2))  # where a window within, or around, the image has its centre
        rounded = max(1, pixel) + 1e-6 if upright else 1e-6
        assert at == pytest.approx(min(max(wanted, ends[0]), ends[1]), abs=rounded)


def test_what_is_rare_is_seen_in_every_crop_that_is_centred_on_it():
    mask = np.zeros((60, 80), np.uint8)
    mask[51:53, 7:9] = 1
    image = random_image((60, 80))
    augment = Augment(rare=1.0, flip="both", rotate=30)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        _, target = augment_pair(image, mask, rng, crop=(24, 24), augment=augment, class_pixels=(10**9, 1))
        assert (target == 1).any()
    _, target = augment_pair(
        image, mask, np.random.default_rng(0), crop=(24, 24), augment=Augment(), class_pixels=(10**9, 1)
    )
    assert not (target == 1).any(), "the negative control"


# --- the whole way, and the usual ways to get it wrong


BLOCKS = np.kron(np.random.default_rng(3).choice([1, 3], (5, 6)), np.ones((16, 16))).astype(np.uint8)
"""Labels 1 and 3 in squares of 16 pixels: a 0 can only be padding, and a 2 an average."""
GEOMETRIES = {
    "flip": Augment(flip="both"),
    "scale": Augment(scale=(0.4, 2.0)),
    "rotate": Augment(rotate=40),
    "elastic": Augment(elastic=5.0),
    "erase": Augment(erase=0.6),
    "rare": Augment(rare=1.0),
    "all": Augment(scale=(0.5, 1.6), flip="both", rotate=30, elastic=3.0, erase=0.3, rare=0.5),
}


def move_together(augment: Augment) -> None:
    """Asserts that the crop of an image that tells its mask still tells it, and that what is outside is ignored."""
    for seed in range(12):
        crop = (60, 130) if seed % 2 else (40, 40)
        rng = np.random.default_rng(seed)
        found, target = augment_pair(
            marker(BLOCKS), BLOCKS, rng, crop=crop, augment=augment, class_pixels=(0, 900, 500, 10)
        )
        assert (found.dtype, target.dtype, found.shape[:2], target.shape) == (np.uint8, np.uint8, crop, crop)
        assert set(target.ravel().tolist()) <= {1, 3, IGNORE}
        colors = marker(np.array([[1, 3]], np.uint8))[None].astype(int)
        distance = np.abs(found[:, :, None].astype(int) - colors).max(axis=3)
        clear = uniform(target, 4) & (target != IGNORE)  # what is ignored may have any colour
        clear = np.pad(clear[4:-4, 4:-4], 4)
        told = np.where(distance.min(axis=2) <= 1, 2 * distance.argmin(axis=2) + 1, IGNORE)
        assert np.array_equal(told[clear], target[clear])


@pytest.mark.parametrize("name", GEOMETRIES)
def test_image_and_mask_move_together_through_the_whole_augmentation(name):
    move_together(GEOMETRIES[name])


def bilinear(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    return warp_image(mask[..., None], geometry, np.array([float(IGNORE)]))[..., 0]


def warped(change):
    return lambda mask, geometry: change(warp_mask(mask, geometry), geometry)


BROKEN = {
    "the mask is read bilinearly": ("warp_mask", bilinear, "scale"),
    "the turned mask is read bilinearly": ("warp_mask", bilinear, "rotate"),
    "only the image is mirrored": ("warp_mask", lambda m, g: warp_mask(m, replace(g, mirror=(False, False))), "flip"),
    "the axes are exchanged": ("warp_mask", lambda m, g: warp_mask(m, replace(g, mirror=g.mirror[::-1])), "flip"),
    "only the image is turned": ("warp_mask", lambda m, g: warp_mask(m, draw(m.shape, g.size)), "rotate"),
    "only the image is bent": ("warp_mask", lambda m, g: warp_mask(m, replace(g, places=None)), "elastic"),
    "the mask is off by some pixels": ("warp_mask", warped(lambda m, _: np.roll(m, 6, axis=1)), "scale"),
    "what is outside is class 0": ("warp_mask", warped(lambda m, _: np.where(m == IGNORE, 0, m)), "rotate"),
    "the padding of a large crop is class 0": ("warp_mask", warped(lambda m, _: np.where(m == IGNORE, 0, m)), "flip"),
    "the padding is the nearest class": ("warp_mask", warped(lambda m, _: np.where(m == IGNORE, 1, m)), "flip"),
    "what is erased keeps its class": ("erase", lambda i, t, r: (erase(i, t, r)[0], t), "erase"),
    "the mask is of another type": ("warp_mask", warped(lambda m, _: m.astype(np.int64)), "scale"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_an_augmentation_that_moves_one_without_the_other_is_found(broken, monkeypatch):
    """The negative controls of the test above."""
    name, function, augment = BROKEN[broken]
    monkeypatch.setattr(augmentation, name, function)
    with pytest.raises(AssertionError):
        move_together(GEOMETRIES[augment])


PLAIN = random_image((20, 24)), random_mask((20, 24))


@pytest.mark.parametrize(
    "pair",
    [
        tuple(map(torch.from_numpy, PLAIN)),
        (torch.from_numpy(PLAIN[0]).permute(2, 0, 1), torch.from_numpy(PLAIN[1]).long()),
        (PLAIN[0], PLAIN[1].astype(np.int64)),
        (PLAIN[0], PLAIN[1].astype(np.float32)),
        (PLAIN[0], PLAIN[1] > 1),
        (PLAIN[0], PLAIN[1].T),
        (PLAIN[0][:10], PLAIN[1]),
        (PLAIN[0][..., 0], PLAIN[1]),
        PLAIN[::-1],
    ],
)
@pytest.mark.parametrize("augment", [Augment(), Augment(flip="both", rotate=20, elastic=2.0)])
def test_what_is_no_pair_of_arrays_is_refused_and_never_passed_by(pair, augment):
    with pytest.raises(TypeError, match="expected"):
        augment_pair(*pair, np.random.default_rng(0), crop=(12, 12), augment=augment)


ALL = Augment(
    scale=(0.7, 1.5),
    flip="both",
    rotate=20,
    color=0.3,
    gamma=0.5,
    blur=1.5,
    noise=0.1,
    elastic=4.0,
    erase=0.3,
    rare=0.5,
)


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@pytest.mark.parametrize("size", [(1, 1), (40, 30)])
def test_everything_together_keeps_type_shape_range_and_labels_and_is_a_function_of_the_generator(
    size, dtype, channels
):
    image, mask = random_image(size, dtype, channels), random_mask(size)
    before = image.copy()
    crops = []
    for _ in range(2):
        rng = np.random.default_rng(8)
        crops.append(augment_pair(image, mask, rng, crop=(21, 33), augment=ALL, class_pixels=(5, 4, 3, 2, 1)))
    (found, target), again = crops
    assert (found.dtype, found.shape, target.dtype, target.shape) == (
        image.dtype,
        (21, 33, channels),
        np.uint8,
        (21, 33),
    )
    assert found.min() >= 0
    assert found.max() <= 255
    assert set(target.ravel().tolist()) <= {*mask.ravel().tolist(), IGNORE}
    assert np.array_equal(found, again[0])
    assert np.array_equal(target, again[1])
    assert np.array_equal(image, before)


@pytest.mark.parametrize("name", ["gamma", "blur", "noise", "jpeg", "elastic", "erase", "rare"])
def test_each_option_changes_the_crop(name):
    image, mask = random_image((40, 50)), random_mask((40, 50))
    image[:, 25:] //= 2
    mask[:5, :5] = 5
    values = {**{f: getattr(ALL, f) for f in ("gamma", "blur", "noise", "elastic", "erase")}, "jpeg": 10, "rare": 1.0}
    plain, changed = (
        augment_pair(image, mask, np.random.default_rng(3), crop=(30, 30), augment=a, class_pixels=(99,) * 5 + (1,))
        for a in (Augment(), Augment(**{name: values[name]}))
    )
    assert not np.array_equal(plain[0], changed[0])
    assert np.array_equal(plain[1], changed[1]) == (name in ("gamma", "blur", "noise", "jpeg"))
