"""Copies of a picture are found however they were saved, and pictures that merely have much in common are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import facts_of_pixels
from PIL import Image, ImageEnhance, ImageFilter

from segtool.check.likeness import looks_of, near_duplicates
from segtool.data.facts import ImageFacts
from segtool.data.outline import picture_maps, small_picture

SIZE = (96, 128)


def groups_alike(images: Sequence[ImageFacts]) -> list[list[int]]:
    """Returns the groups of two and more near-equal images, as their places, ascending; readable images only."""
    places = np.array([place for place, image in enumerate(images) if not image.error])
    if len(places) < 2:
        return []
    looks = looks_of([images[place] for place in places])
    every = np.arange(len(places))
    first = every.copy()  # of the group of each
    pairs = near_duplicates(looks, every, every)
    while True:
        before = first.copy()
        np.minimum.at(first, pairs[:, 0], first[pairs[:, 1]])
        np.minimum.at(first, pairs[:, 1], first[pairs[:, 0]])
        if np.array_equal(before, first):
            break
    groups: dict[int, list[int]] = {}
    for place, group in zip(places.tolist(), first.tolist(), strict=True):
        groups.setdefault(group, []).append(place)
    return [group for group in groups.values() if len(group) > 1]


def scene(seed: int) -> Image.Image:
    """A picture of soft blobs."""
    noise = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), np.uint8)
    return Image.fromarray(noise).resize(SIZE[::-1], Image.Resampling.BICUBIC)


def fundus(seed: int, light: float) -> Image.Image:
    """A lit disc on black, as all pictures of an eye are, with vessels of its own."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    radius = np.hypot(rows - SIZE[0] / 2, columns - SIZE[1] / 2)
    values = np.where(radius < 45, light * (200 - radius), 0.0)
    for _ in range(12):
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-30, 30)
        line = np.abs((rows - 48) * np.cos(angle) + (columns - 64) * np.sin(angle) - offset) < 1.5
        values[line] *= 0.6
    return Image.fromarray((values + rng.normal(0, 3, SIZE)).clip(0, 255).astype(np.uint8))


def facts(image: Image.Image) -> ImageFacts:
    return facts_of_pixels(Path("x.png"), np.atleast_3d(np.asarray(image)))


def saved(image: Image.Image, folder: Path, quality: int) -> Image.Image:
    image.save(folder / "a.jpg", quality=quality)
    with Image.open(folder / "a.jpg") as opened:
        opened.load()
        return opened


CHANGES = {
    "compressed": lambda image, folder: saved(image, folder, 30),
    "half as large": lambda image, folder: image.resize((SIZE[1] // 2, SIZE[0] // 2)),
    "of another shape": lambda image, folder: image.resize((100, 100)),
    "brighter": lambda image, folder: ImageEnhance.Brightness(image).enhance(1.15),
    "grey": lambda image, folder: image.convert("L"),
    "blurred": lambda image, folder: image.filter(ImageFilter.GaussianBlur(1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_is_found_however_it_was_changed(change: str, tmp_path: Path) -> None:
    images = [facts(scene(seed)) for seed in range(20)]
    images.append(facts(CHANGES[change](scene(5), tmp_path)))
    assert groups_alike(images) == [[5, 20]]


def test_other_pictures_of_the_same_kind_are_not_alike() -> None:
    assert groups_alike([facts(scene(seed)) for seed in range(60)]) == []
    eyes = [facts(fundus(seed, 0.6 + 0.4 * (seed % 7) / 6)) for seed in range(40)]
    assert groups_alike(eyes) == []
    assert groups_alike([*eyes, facts(fundus(3, 0.7))]) == [[3, 40]]


def test_flat_pictures_and_the_mirror_of_one_are_not_alike() -> None:
    flat = [
        facts(Image.fromarray(np.random.default_rng(seed).integers(100, 104, SIZE).astype(np.uint8)))
        for seed in (1, 1, 2, 3, 4, 5, 6, 7, 8)
    ]
    assert groups_alike(flat) == []
    mirrored = scene(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert groups_alike([facts(image) for image in [*map(scene, range(12)), mirrored]]) == []


TURNS = list(Image.Transpose)


@pytest.mark.parametrize("turn", TURNS, ids=lambda turn: turn.name)
def test_a_copy_that_was_mirrored_or_turned_is_found_and_no_other_picture(turn: Image.Transpose) -> None:
    images = [facts(scene(seed)) for seed in range(20)]
    images += [facts(scene(seed).transpose(turn)) for seed in range(6)]
    pairs = near_duplicates(looks_of(images, turned=True), np.arange(20), np.arange(20, 26))
    assert pairs.tolist() == [[seed, 20 + seed] for seed in range(6)]
    every = np.arange(20)
    assert near_duplicates(looks_of(images, turned=True), every, every).tolist() == []


def test_a_picture_as_it_was_is_left_to_the_comparison_of_pictures_as_they_are() -> None:
    looks = looks_of([*(facts(scene(seed)) for seed in range(10)), facts(scene(3))], turned=True)
    assert near_duplicates(looks, np.arange(10), np.arange(10, 11)).tolist() == []


def test_pairs_lie_between_two_groups_and_stand_once() -> None:
    looks = looks_of([facts(scene(seed)) for seed in (0, 1, 2, 3, 4, 5, 6, 7, 0, 1)])
    left, right = np.arange(8), np.arange(8, 10)
    assert near_duplicates(looks, left, right).tolist() == [[0, 8], [1, 9]]
    assert near_duplicates(looks, right, left).tolist() == [[8, 0], [9, 1]]
    every = np.arange(10)
    assert near_duplicates(looks, every, every).tolist() == [[0, 8], [1, 9]]
    assert near_duplicates(looks, every[:9], every[8:]).tolist() == [[0, 8], [1, 9]]


def test_what_cannot_be_read_takes_no_part() -> None:
    images = [ImageFacts(Path("bad.png"), error="is empty"), *(facts(scene(seed)) for seed in (0, 1, 0))]
    assert groups_alike(images) == [[1, 3]]
    assert groups_alike(images[:1]) == groups_alike([]) == []


def test_many_pictures_of_one_scene_are_one_group() -> None:
    assert groups_alike([facts(scene(seed)) for seed in (0, 1, 0, 0, 2, 0, 3, 4)]) == [[0, 2, 3, 5]]


@pytest.mark.parametrize("shape", [(40, 50), (200, 700), (330, 321), (640, 500)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_maps_of_a_decoded_picture_are_those_of_its_pixels(shape: tuple[int, int], mode: str) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (*shape, len(mode)), np.uint8)
    picture = Image.fromarray(pixels if mode == "RGB" else pixels[..., 0])
    assert np.array_equal(small_picture(pixels, picture), small_picture(pixels))


def test_maps_of_pictures_are_the_means_that_slow_loops_find() -> None:
    small = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    small[1, :8] = (255, 0, 0)
    maps = picture_maps(small)

    def mean(values: np.ndarray) -> int:
        return int(values.mean() + 0.5)

    for pixels, thumbnail, tints in zip(small, maps.thumbnails, maps.tints, strict=True):
        grey = np.asarray(Image.fromarray(pixels).convert("L"))
        for row, column in np.ndindex(32, 32):
            assert thumbnail[row, column] == mean(grey[2 * row : 2 * row + 2, 2 * column : 2 * column + 2])
        for row, column in np.ndindex(16, 16):
            cell = pixels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            red, green, blue = (mean(cell[..., band]) for band in range(3))
            more = [red - green, blue - (red + green) // 2]
            assert tints[row, column].tolist() == [min(value, 127) + 128 for value in more]
    assert picture_maps(small[..., :1]).tints.shape == (2, 0, 0, 2)
