"""Masks whose two classes are exchanged are told by shares, colours and the frame, and large objects are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import check, config_of
from PIL import Image
from scenes import Pair, Rng, Size, ellipse, finish, ground, lesion, paint, skyline

from segtool.check.exchange import CELLS, Contrast, contrast_of, exchanged_by_pictures, is_exchanged, suspects

SIZE = (48, 64)
RED = (205, 70, 50)


def drawn(draw: Callable[[Rng, Size], Pair], count: int = 16) -> list[Pair]:
    return [draw(np.random.default_rng([1, number]), SIZE) for number in range(count)]


def small(
    rng: Rng, size: Size, color: tuple[int, int, int] = RED, *, radius: tuple[float, float] = (0.1, 0.25)
) -> Pair:
    """One object of a colour on any ground."""
    image, mask = ground(rng, size), ellipse(rng, size, radius).astype(np.uint8)
    paint(image, mask, 1, np.array(color, float), rng)
    return finish(image), mask


def close_up(rng: Rng, size: Size) -> Pair:
    """An object that leaves only corners."""
    return small(rng, size, radius=(0.8, 1.2))


def any_color(rng: Rng, size: Size) -> Pair:
    red, green, blue = rng.integers(20, 235, 3).tolist()
    return small(rng, size, (red, green, blue))


def shares(pairs: list[Pair]) -> np.ndarray:
    return np.array([mask.mean() for _, mask in pairs])


def told(pairs: list[Pair]) -> list[int]:
    """Returns the suspects that the pictures convict."""
    suspected = suspects(shares(pairs)).tolist()
    contrasts = [contrast_of(image, mask) for image, mask in pairs]
    others = [contrast for place, contrast in enumerate(contrasts) if place not in suspected]
    return [place for place in suspected if is_exchanged(contrasts[place], others)]


def exchanged(pairs: list[Pair], *places: int) -> list[Pair]:
    return [(image, 1 - mask if place in places else mask) for place, (image, mask) in enumerate(pairs)]


def seen(color: float, *, frame: float, thinness: float = 0.0) -> Contrast:
    """The contrast of an image in one colour, whose mask has its object nowhere in particular."""
    return Contrast(np.array([color]), frame, np.zeros(CELLS**2), thinness)


@pytest.mark.parametrize("draw", [small, lesion])
def test_exchanged_masks_are_told_and_no_others(draw: Callable[[Rng, Size], Pair]) -> None:
    pairs = drawn(draw)
    assert told(pairs) == []
    assert told(exchanged(pairs, 3, 11)) == [3, 11]


def test_close_ups_are_suspected_and_not_told() -> None:
    sets = [[*drawn(small), pair] for pair in drawn(close_up, 6) if 0.85 < pair[1].mean() < 1]
    assert [suspects(shares(pairs)).tolist() for pairs in sets] == [[16]] * 4
    assert [told(pairs) for pairs in sets] == [[]] * 4


def test_where_colours_tell_nothing_a_background_cut_off_from_the_frame_does() -> None:
    pairs = drawn(any_color)
    inner = next(place for place, (_, mask) in enumerate(pairs) if not (mask[0].any() or mask[-1].any()))
    assert told(pairs) == []
    assert told(exchanged(pairs, inner)) == [inner]
    mixed = [seen(1.0 if number % 2 else -1.0, frame=0.0) for number in range(16)]
    assert is_exchanged(seen(0.0, frame=1.0), mixed)
    assert not is_exchanged(seen(0.0, frame=0.97), mixed)  # a corner is left of it beside a large object


def test_a_share_that_other_masks_come_near_is_not_suspected() -> None:
    usual = np.array([0.05, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.55])
    assert suspects(np.append(usual, 0.64)).tolist() == []
    assert suspects(np.append(usual, 0.9)).tolist() == [10]


def test_half_of_the_masks_are_no_mistake_of_a_few() -> None:
    assert told(exchanged(drawn(small), *range(7))) == []


def test_where_shares_tell_nothing_colours_do_if_all_others_agree() -> None:
    by_color = [contrast_of(image, mask) for image, mask in exchanged(drawn(skyline), 5)]
    assert suspects(shares(exchanged(drawn(skyline), 5))).tolist() == []
    usual = shares(drawn(skyline))
    assert exchanged_by_pictures(by_color, usual).tolist() == [5]
    assert exchanged_by_pictures(by_color, usual / 10).tolist() == []  # a speck, which no exchange makes usual
    assert exchanged_by_pictures([contrast_of(*pair) for pair in drawn(skyline)], usual).tolist() == []
    assert exchanged_by_pictures([contrast_of(*pair) for pair in drawn(any_color)], usual).tolist() == []


def test_a_night_among_days_has_its_sky_above_and_is_not_told() -> None:
    contrasts = [contrast_of(*pair) for pair in drawn(skyline)]
    contrasts[5] = contrasts[5]._replace(colors=-contrasts[5].colors)
    usual = shares(drawn(skyline))
    assert exchanged_by_pictures(contrasts, usual).tolist() == []
    assert not is_exchanged(contrasts[5], contrasts[6:])
    unplaced = [contrast._replace(places=np.zeros(64)) for contrast in contrasts]
    assert exchanged_by_pictures(unplaced, usual).tolist() == [5]
    assert is_exchanged(unplaced[5], unplaced[6:])


def test_where_shares_and_colours_tell_nothing_places_do_if_all_others_agree() -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, 256, image.shape, np.uint8), mask) for image, mask in drawn(skyline)]
    contrasts = [contrast_of(*pair) for pair in pairs]
    assert exchanged_by_pictures(contrasts, shares(pairs)).tolist() == []
    pairs = exchanged(pairs, 5)
    contrasts = [contrast_of(*pair) for pair in pairs]
    assert exchanged_by_pictures(contrasts, shares(pairs)).tolist() == [5]
    scattered = [contrast._replace(places=rng.random(64)) for contrast in contrasts]
    assert exchanged_by_pictures(scattered, shares(pairs)).tolist() == []


def test_a_background_as_thin_as_the_objects_of_others_is_told() -> None:
    mixed = [seen(1.0 if number % 2 else -1.0, frame=0.0, thinness=0.5) for number in range(16)]
    assert is_exchanged(seen(0.0, frame=0.97, thinness=0.5), mixed)
    assert not is_exchanged(seen(0.0, frame=0.97, thinness=0.1), mixed)  # an area in a corner


def test_pictures_that_show_nothing_tell_nothing() -> None:
    plain = [contrast_of(np.full_like(image, 100), mask) for image, mask in drawn(skyline)]
    assert exchanged_by_pictures(plain, shares(drawn(skyline))).tolist() == []


def test_grey_pictures_beside_coloured_ones_and_ignored_rims_are_compared_too(tmp_path: Path) -> None:
    for number, (image, mask) in enumerate(exchanged(drawn(lesion), 4)):
        for folder, array in (("images", image.mean(-1).astype(np.uint8) if number % 2 else image), ("masks", mask)):
            (tmp_path / "train" / folder).mkdir(parents=True, exist_ok=True)
            stored = array if folder == "images" else np.pad(array[2:-2, 2:-2], 2, constant_values=255)
            Image.fromarray(stored).save(tmp_path / "train" / folder / f"{number:02d}.png")
    classes = [{"name": "skin", "values": [0]}, {"name": "mole", "values": [1]}]
    config = config_of(tmp_path, data={"classes": classes, "val": None, "test": None})
    findings = {finding.code: finding for finding in check(config, Path("/"))}
    assert findings["SEG311"].files == ("train/masks/04.png",)
    assert "exchanged" in findings["SEG311"].message


def test_a_mask_that_lies_upside_down_is_told_to_be_turned_and_not_exchanged(tmp_path: Path) -> None:
    for number, (image, mask) in enumerate(drawn(skyline)):
        stored = {"images": image, "masks": mask[::-1] if number == 4 else 1 - mask if number == 9 else mask}
        for folder, array in stored.items():
            (tmp_path / "train" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "train" / folder / f"{number:02d}.png")
    classes = [{"name": "ground", "values": [0]}, {"name": "sky", "values": [1]}]
    config = config_of(tmp_path, data={"classes": classes, "val": None, "test": None})
    findings = {finding.code: finding.files for finding in check(config, Path("/"))}
    assert findings["SEG209"] == ("train/masks/04.png",)
    assert findings["SEG311"] == ("train/masks/09.png",)
