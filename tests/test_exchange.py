"""Masks whose ids stand for other classes than in the rest of their set are told, with what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import check, config_of, facts_of_pixels
from PIL import Image
from scenes import (
    Pair,
    Rng,
    Scene,
    Size,
    aerial,
    crack,
    ellipse,
    finish,
    ground,
    lesion,
    membranes,
    paint,
    skyline,
    street,
)

from segtool.check.exchange import Regions, _judge, maps_of, misread_masks, regions_of, turned_instead
from segtool.check.fit import TURNS
from segtool.data.outline import SIDE, TINTS, PictureMaps, sample_maps

SIZE = (72, 96)
RED = (205, 70, 50)
BINARY: list[Scene] = [lesion, skyline, crack, membranes]


def drawn(draw: Callable[[Rng, Size], Pair], count: int = 24) -> list[Pair]:
    return [draw(np.random.default_rng([1, number]), SIZE) for number in range(count)]


def small(rng: Rng, size: Size, *, radius: tuple[float, float] = (0.1, 0.25)) -> Pair:
    """One object of a colour on any ground."""
    image, mask = ground(rng, size), ellipse(rng, size, radius).astype(np.uint8)
    paint(image, mask, 1, np.array(RED, float), rng)
    return finish(image), mask


def close_up(rng: Rng, size: Size) -> Pair:
    """An object that leaves only corners."""
    return small(rng, size, radius=(0.8, 1.2))


def berries(rng: Rng, size: Size) -> Pair:
    """Objects of two colours that are equal in grey, anywhere."""
    image, mask = ground(rng, size, (120, 120, 120), rough=8), np.zeros(size, np.uint8)
    for value, color in ((1, (160, 70, 70)), (2, (70, 107, 110))):
        mask[ellipse(rng, size, (0.15, 0.3)) & (mask == 0)] = value
        paint(image, mask, value, np.array(color, float), rng)
    return finish(image), mask


def read(pairs: list[Pair], meant: Sequence[int], *places: int) -> list[Pair]:
    """Returns the pairs with ids that stand for others in some masks: class k is stored as `meant[k]`."""
    return [(image, np.array(meant)[mask] if place in places else mask) for place, (image, mask) in enumerate(pairs)]


def seen(pairs: list[Pair], num_classes: int, how: str = "") -> Regions:
    samples = sample_maps(np.stack([mask for _, mask in pairs]))
    pictures = maps_of([facts_of_pixels(Path(), image) for image, _ in pairs])
    return regions_of(TURNS[how](samples) if how else samples, pictures, num_classes)


def told(pairs: list[Pair], num_classes: int) -> list[tuple[list[int], dict[int, int]]]:
    return [(reading.masks.tolist(), reading.meant) for reading in misread_masks(seen(pairs, num_classes))]


def test_classes_that_differ_in_colour_alone_are_told_when_they_are_exchanged() -> None:
    pairs = read(drawn(berries), [0, 2, 1], 7)
    assert told(pairs, 3) == [([7], {1: 2, 2: 1})]
    grey = [(image.mean(2, keepdims=True).astype(np.uint8), mask) for image, mask in pairs]
    assert told(grey, 3) == []


@pytest.mark.parametrize("draw", BINARY)
def test_masks_with_two_classes_exchanged_are_told_be_it_one_or_a_third(draw: Scene) -> None:
    pairs = drawn(draw)
    assert told(pairs, 2) == []
    assert told(read(pairs, [1, 0], 5), 2) == [([5], {0: 1, 1: 0})]
    assert told(read(pairs, [1, 0], *range(8)), 2) == [([*range(8)], {0: 1, 1: 0})]


def test_half_of_the_masks_may_have_another_list_of_classes() -> None:
    pairs = drawn(street)
    assert told(pairs, 6) == []
    ((masks, meant),) = told(read(pairs, [0, 2, 3, 4, 5, 1], *range(12)), 6)
    assert masks in ([*range(12)], [*range(12, 24)])
    forth, back = {2: 1, 3: 2, 4: 3, 5: 4, 1: 5}, {1: 2, 2: 3, 3: 4, 4: 5, 5: 1}
    assert meant.items() <= (forth if masks[0] == 0 else back).items()


def test_ids_that_are_all_one_higher_in_some_masks_are_told_with_what_they_mean() -> None:
    pairs = drawn(aerial)
    ((masks, meant),) = told(read(pairs, [1, 2, 3, 4, 5], 3, 7, 20), 6)
    assert masks == [3, 7, 20]
    assert {1: 0, 2: 1}.items() <= meant.items() <= {1: 0, 2: 1, 3: 2, 4: 3, 5: 4}.items()


def test_two_groups_with_lists_of_their_own_are_told_each() -> None:
    pairs = read(read(drawn(street, 32), [0, 2, 1, 3, 4, 5], 4), [3, 1, 2, 0, 4, 5], 20, 21, 22)
    readings = {tuple(masks): meant for masks, meant in told(pairs, 6)}
    assert set(readings) == {(4,), (20, 21, 22)}
    assert readings[4,] == {1: 2, 2: 1}


def test_a_class_that_few_masks_hold_and_ignored_pixels_tell_nothing() -> None:
    pairs = drawn(skyline)
    for number in (2, 9):
        pairs[number][1][:20, :30] = 2  # a class that stands in two masks alone
    assert told([(image, np.where(mask == 1, 9, mask)) for image, mask in pairs], 3) == []  # 9: ignored
    assert told(read(pairs, [1, 0, 2], 5), 3) == [([5], {0: 1, 1: 0})]


def test_close_ups_have_the_shares_of_exchanged_masks_and_are_not_told() -> None:
    for count in (1, 3):
        assert told([*drawn(small), *drawn(close_up, count)], 2) == []


def test_a_night_among_days_has_its_sky_above_and_is_not_told() -> None:
    pairs = drawn(skyline)
    pairs[5] = (255 - pairs[5][0], pairs[5][1])
    assert told(pairs, 2) == []


def test_masks_that_lie_upside_down_are_told_from_those_whose_classes_are_exchanged() -> None:
    pairs = read(drawn(street), [1, 0, 2, 3, 4, 5], 9)
    ways = dict(zip((4, 15), ("mirrored top to bottom", "upside down"), strict=True))
    for place, how in ways.items():
        pairs[place] = (pairs[place][0], TURNS[how](pairs[place][1]))
    regions, turned, masks = seen(pairs, 6), {}, set()
    for reading in misread_masks(regions):
        some = [pairs[place] for place in reading.masks]
        turned |= turned_instead(regions, reading, {how: seen(some, 6, how) for how in ways.values()})
        masks |= {*reading.masks.tolist()}
    assert masks == {4, 9, 15}
    assert turned.keys() == ways.keys()


def test_classes_that_look_alike_and_lie_anywhere_are_never_told() -> None:
    rng = np.random.default_rng(0)
    pairs = [(image, mask * rng.permuted([1, 2])[0]) for image, mask in drawn(small)]
    assert told(pairs, 3) == []


def test_pictures_that_show_nothing_and_sets_of_few_masks_tell_nothing() -> None:
    pairs = read(drawn(skyline), [1, 0], 5)
    assert told(pairs[:7], 2) == []
    assert told([(np.full_like(image, 100), np.zeros_like(mask)) for image, mask in pairs], 2) == []


@pytest.mark.parametrize(
    ("one", "others", "is_told"),
    [
        (40, [40] * 9, True),
        (15, [15] * 9, False),  # little
        (25, [80] * 9, False),  # not as clear as what others lose
        (40, [40] * 7 + [5] * 2, False),  # some of which are in doubt
    ],
)
def test_masks_are_told_that_win_much_by_an_exchange_by_which_all_others_lose(
    one: int, others: list[int], is_told: bool
) -> None:
    regions = Regions(np.repeat(np.arange(10), 2), np.tile([0, 1], 10), (), 10, 2)
    fits = np.zeros((20, 2))
    fits[np.arange(20), 1 - regions.labels] = np.repeat([one, *(-other for other in others)], 2) / 2
    judged = _judge(regions, np.array([1, 0]), fits)
    assert (judged is not None) == is_told
    if judged:
        reading, won = judged
        assert (reading.masks.tolist(), reading.meant, won) == ([0], {0: 1, 1: 0}, one)


def test_what_is_seen_of_a_class_is_what_a_slow_loop_sees() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, (2, SIDE, SIDE))
    classes[1] = np.where(classes[1] == 1, 0, classes[1])  # holds 0 and 2; 2 counts nowhere
    bright, steep = rng.integers(0, 256, (2, 2, SIDE, SIDE))
    tints = rng.integers(0, 256, (2, TINTS, TINTS, 2))
    red, blue = (np.kron(tints[..., band], np.ones((2, 2), int)) for band in (0, 1))
    regions = regions_of(classes, PictureMaps(bright, steep, tints), 2)
    assert [*zip(regions.masks.tolist(), regions.labels.tolist(), strict=True)] == [(0, 0), (1, 0), (0, 1)]
    for row, (mask, label) in enumerate([(0, 0), (1, 0), (0, 1)]):
        pixels = [(y, x) for y in range(SIDE) for x in range(SIDE) if classes[mask, y, x] == label]
        share = len(pixels) / (classes[mask] < 2).sum()
        for column, values in enumerate((bright[mask], steep[mask], red[mask], blue[mask])):
            mean = np.mean([values[pixel] for pixel in pixels])
            contrast = (mean - values.mean()) / values.std() / max(1 - share, 0.01)
            assert regions.looks[0][row, column] == pytest.approx(contrast, abs=1e-4)
        ways = np.array([(2 * y / (SIDE - 1) - 1, abs(2 * x / (SIDE - 1) - 1)) for y, x in pixels])
        assert regions.looks[1][row] == pytest.approx([*ways.mean(0), (ways**2).sum(1).mean()], abs=1e-5)
        around = [(y + dy, x + dx) for y, x in pixels for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        inside = [0 <= y < SIDE and 0 <= x < SIDE and classes[mask, y, x] != label for y, x in around]
        border = np.reshape(inside, (-1, 4)).any(1).mean()
        frame = np.mean([y in (0, SIDE - 1) or x in (0, SIDE - 1) for y, x in pixels]) * len(pixels) / (4 * SIDE - 4)
        assert regions.looks[2][row] == pytest.approx([np.log(share), border, np.sqrt(frame)])


def stored(root: Path, pairs: list[Pair]) -> None:
    for number, (image, mask) in enumerate(pairs):
        for folder, array in (("images", image), ("masks", mask)):
            (root / "train" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / "train" / folder / f"{number:02d}.png")


def findings_of(root: Path, *names: str) -> dict[str, object]:
    classes = [{"name": name, "values": [value]} for value, name in enumerate(names)]
    config = config_of(root, data={"classes": classes, "val": None, "test": None})
    return {finding.code: finding for finding in check(config, Path("/"))}


def test_grey_pictures_beside_coloured_ones_and_ignored_rims_are_compared_too(tmp_path: Path) -> None:
    pairs = [
        (image if number % 2 else image.mean(-1).astype(np.uint8), mask)
        for number, (image, mask) in enumerate(read(drawn(lesion), [1, 0], 4))
    ]
    stored(
        tmp_path, [(image, np.pad(mask[2:-2, 2:-2].astype(np.uint8), 2, constant_values=255)) for image, mask in pairs]
    )
    finding = findings_of(tmp_path, "skin", "mole")["SEG311"]
    assert finding.files == ("train/masks/04.png",)
    assert finding.message == "1 mask of 24 in which classes look exchanged: skin for mole, mole for skin"
    assert finding.example == "train/masks/04.png: skin lies and looks like what the others have as mole"


def two_spots(rng: Rng, size: Size) -> Pair:
    """Two objects of one brightness, which tell nothing of each other."""
    (image, mask), (_, other) = small(rng, size), small(rng, size)
    return image, np.where(other > mask, 2, mask).astype(np.uint8)


@pytest.mark.parametrize("places", [[5], [2, 9, 17]], ids=len)
def test_ids_that_are_one_too_high_are_told_where_no_image_tells(tmp_path: Path, places: list[int]) -> None:
    stored(tmp_path, [(i, m + (n in places)) for n, (i, m) in enumerate(drawn(two_spots))])
    finding = findings_of(tmp_path, "ground", "one", "two", "more")["SEG311"]
    assert finding.files == tuple(f"train/masks/{place:02d}.png" for place in places)
    assert finding.message.endswith("of 24 with ids that look one too high")


def test_masks_without_the_first_class_are_not_one_too_high_where_others_have_the_last_too(tmp_path: Path) -> None:
    pairs = [(i, m + (n in (2, 9))) for n, (i, m) in enumerate(drawn(two_spots))]
    pairs[4][1][:3, :3] = 3
    stored(tmp_path, pairs)
    assert "too high" not in findings_of(tmp_path, "ground", "one", "two", "more")["SEG311"].message  # by their looks


def test_a_mask_that_lies_upside_down_is_told_to_be_turned_and_not_exchanged(tmp_path: Path) -> None:
    pairs = read(drawn(skyline), [1, 0], 9)
    pairs[4] = (pairs[4][0], pairs[4][1][::-1])
    stored(tmp_path, [(image, mask.astype(np.uint8)) for image, mask in pairs])
    findings = findings_of(tmp_path, "ground", "sky")
    assert "SEG212" not in findings  # SEG209 has told it
    assert findings["SEG209"].files == ("train/masks/04.png",)
    assert findings["SEG311"].files == ("train/masks/09.png",)


@pytest.mark.parametrize("encoding", ["rgb", "palette", "alpha"])
def test_masks_in_colours_are_compared_too_and_those_in_an_alpha_channel_are_not(tmp_path: Path, encoding: str) -> None:
    colors = np.array([[10, 200, 30], [90, 20, 250]], np.uint8)
    for number, (image, mask) in enumerate(read(drawn(lesion), [1, 0], 4)):
        stored = Image.fromarray(colors[mask])
        if encoding == "palette":
            stored = Image.fromarray((mask + 3 * (number % 2)).astype(np.uint8))  # one colour has two indices
            stored.putpalette([*colors.ravel().tolist(), 0, 0, 0, *colors.ravel().tolist()])
        elif encoding == "alpha":
            stored.putalpha(Image.fromarray(mask.astype(np.uint8) * 255))
        for folder, picture in (("images", Image.fromarray(image)), ("masks", stored)):
            (tmp_path / "train" / folder).mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / "train" / folder / f"{number:02d}.png")
    values = (
        [{"values": [0]}, {"values": [255]}]
        if encoding == "alpha"
        else [{"colors": ["#0ac81e"]}, {"colors": ["#5a14fa"]}]
    )
    classes = [{"name": name, **value} for name, value in zip(("skin", "mole"), values, strict=True)]
    config = config_of(
        tmp_path, data={"classes": classes, "encoding": encoding, "ignore": [], "val": None, "test": None}
    )
    found = {finding.code: finding.files for finding in check(config, Path("/"))}
    assert "SEG302" not in found
    assert found.get("SEG311") == (None if encoding == "alpha" else ("train/masks/04.png",))


def test_what_is_seen_of_many_masks_in_parts_is_what_is_seen_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    classes, thumbnails, edges = rng.integers(0, (3, 256, 256), (11, SIDE, SIDE, 3)).transpose(3, 0, 1, 2)
    classes[4] = 1
    pictures = PictureMaps(thumbnails, edges, rng.integers(0, 256, (11, TINTS, TINTS, 2)))
    at_once = regions_of(classes, pictures, 2)
    monkeypatch.setattr("segtool.check.exchange.TOGETHER", 3)
    in_parts = regions_of(classes, pictures, 2)
    assert at_once.masks.tolist() == [*(place for place in range(11) if place != 4), *range(11)]
    for one, other in ((at_once.masks, in_parts.masks), (at_once.labels, in_parts.labels)):
        assert np.array_equal(one, other)
    for one, other in zip(at_once.looks, in_parts.looks, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_where_edges_tell_nothing_a_mask_upside_down_is_told_by_its_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = []
    for image, mask in drawn(street):
        hazy = np.asarray(Image.fromarray(image).resize((8, 6)).resize(SIZE[::-1]))
        pairs.append(((hazy * 0.5 + rng.integers(0, 128, image.shape)).astype(np.uint8), mask))
    pairs[4] = (pairs[4][0], pairs[4][1][::-1, ::-1])
    stored(tmp_path, pairs)
    findings = findings_of(tmp_path, *"abcdef")
    assert findings["SEG212"].files == ("train/masks/04.png",)
    assert findings.keys().isdisjoint({"SEG209", "SEG311"})
