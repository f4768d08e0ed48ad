"""Masks are told to fit another image, or another turn of theirs, where their outlines say so, and not otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import check, config_of, facts_of_pixels, facts_of_values, write_pair

from segtool.check import fit, of_fits
from segtool.check.fit import TURNS, choose_grid, contrary, fits_of_turns, turned_masks, votes_for_upright
from segtool.check.matches import Matches, match, strangers
from segtool.check.shift import common_shift, shift_surface, slopes_of
from segtool.data.facts import ImageFacts, MaskFacts
from segtool.data.images import apply_orientation
from segtool.data.outline import SIDE

SIZE = (64, 64)
COUNT = 16


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image of blocks on noise, half of them labelled, and its mask."""
    rng = np.random.default_rng(seed)
    image, mask = rng.normal(110, 7, (*SIZE, 3)), np.zeros(SIZE, np.uint8)
    for number in range(6):
        y, x = rng.integers(0, 48, 2)
        height, width = rng.integers(8, 16, 2)
        image[y : y + height, x : x + width] += rng.choice([-60, 60])
        mask[y : y + height, x : x + width] = number % 2
    return image.clip(0, 255).astype(np.uint8), mask


def pairs(count: int = COUNT) -> tuple[list[ImageFacts], list[MaskFacts]]:
    both = [drawn(seed) for seed in range(count)]
    return (
        [facts_of_pixels(Path(f"{n}.png"), image) for n, (image, _) in enumerate(both)],
        [facts_of_values(Path(f"{n}.png"), mask) for n, (_, mask) in enumerate(both)],
    )


def samples_of(masks: Sequence[MaskFacts]) -> tuple[np.ndarray, int]:
    """Returns their classes on small maps; those drawn here hold no others."""
    return np.stack([mask.sample if mask.sample.size else np.full((SIDE, SIDE), 2, np.uint8) for mask in masks]), 2


def matched(images: Sequence[ImageFacts], masks: Sequence[MaskFacts]) -> Matches:
    return match(images, masks, *samples_of(masks))


def lying_of(images: Sequence[ImageFacts], masks: Sequence[MaskFacts]) -> list[tuple[int, str]]:
    return turned_masks(images, masks, *samples_of(masks))


def strangers_of(images: list[ImageFacts], masks: list[MaskFacts]) -> list[int]:
    return strangers(matched(images, masks).own, masks)


def moved(masks: list[MaskFacts], places: list[int]) -> list[MaskFacts]:
    """Returns the masks with those of some places moved on to the next of these."""
    result = list(masks)
    for place, source in zip(places, [*places[1:], places[0]], strict=True):
        result[place] = masks[source]
    return result


def test_masks_that_fit_their_images_are_no_finding() -> None:
    images, masks = pairs(40)
    assert matched(images, masks).wrong == []
    for start in range(0, 32, 4):
        assert matched(images[start : start + 9], masks[start : start + 9]).wrong == []


@pytest.mark.parametrize("places", [[3, 11], [1, 4, 9], [0, 2, 5, 8, 13, 15]])
def test_masks_exchanged_in_pairs_and_rings_are_found_with_the_images_that_they_fit(places: list[int]) -> None:
    images, masks = pairs()
    wrong = matched(images, moved(masks, places)).wrong
    assert wrong == list(zip(places, [*places[1:], places[0]], strict=True))


@pytest.mark.parametrize("shift", [1, -1, 2])
def test_all_masks_moved_on_are_found(shift: int) -> None:
    images, masks = pairs()
    wrong = matched(images, [masks[(place + shift) % COUNT] for place in range(COUNT)]).wrong
    assert len(wrong) >= COUNT - abs(shift)
    assert all((j - i) == shift for i, j in wrong)


def test_masks_in_any_order_are_found_with_their_images_and_those_of_another_set_are_not() -> None:
    images, masks = pairs()
    order = np.random.default_rng(2).permutation(COUNT)
    wrong = matched(images, [masks[place] for place in order]).wrong
    assert len(wrong) >= 0.8 * COUNT
    assert all(order[i] == j for i, j in wrong)
    others = [facts_of_values(Path(f"{n}.png"), drawn(100 + n)[1]) for n in range(COUNT)]
    assert matched(images, others).wrong == []


def test_masks_of_one_folder_moved_on_are_found_without_those_that_lie_right() -> None:
    images, masks = pairs(30)
    moved_on = [*masks[1:20], masks[0], *masks[20:]]
    found = [replace(mask, path=Path("train" if n < 20 else "val", f"{n}.png")) for n, mask in enumerate(moved_on)]
    wrong = matched(images, found).wrong
    assert len(wrong) >= 18
    assert all(i < 20 and j == (i + 1) % 20 for i, j in wrong)


def test_nothing_is_told_where_masks_follow_no_edges_or_are_few() -> None:
    images, masks = pairs()
    rng = np.random.default_rng(1)
    noise = [facts_of_pixels(Path("x.png"), rng.integers(0, 256, (*SIZE, 3), np.uint8)) for _ in images]
    assert matched(noise, masks).wrong == []
    assert matched(images[:7], moved(masks[:7], [1, 4])).wrong == []
    blank = [facts_of_values(Path("x.png"), np.zeros(SIZE, np.uint8)) for _ in masks]
    assert matched(images, blank).wrong == []


def test_a_mask_of_another_size_is_not_told_to_fit_there() -> None:
    images, masks = pairs()
    other = [replace(image, size=(128, 128)) if n == 11 else image for n, image in enumerate(images)]
    assert matched(other, moved(masks, [3, 11])).wrong == []


def test_exchanged_masks_are_found_where_busy_and_quiet_parts_of_pictures_hide_their_edges() -> None:
    images, masks = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        labelled, busy = rng.normal(0, 40, (2, 4, 4)).repeat(8, 1).repeat(8, 2)
        lines = (labelled > 0) & (rng.random((32, 32)) < 0.2)
        edges = (110 + busy + rng.normal(0, 15, (32, 32)) + 30 * lines).clip(0, 255).astype(np.uint8)
        images.append(ImageFacts(Path("x.png"), size=SIZE, edges=edges, thumbnail=np.full((SIDE, SIDE), 110, np.uint8)))
        masks.append(MaskFacts(Path("x.png"), size=SIZE, outline=np.uint8(60) * lines))
    assert matched(images, masks).wrong == []
    assert matched(images, moved(masks, [3, 11])).wrong == [(3, 11), (11, 3)]
    wrong = matched(images, moved(masks, [3, 11])).own
    assert sorted(sorted(wrong, key=lambda place: wrong[place])[:2]) == [3, 11]


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_the_grid_of_the_masks_of_turned_photographs_is_found(orientation: int) -> None:
    images, upright = pairs()
    turned = [replace(image, orientation=orientation) for image in images]
    votes = votes_for_upright(turned, upright)
    assert choose_grid(votes) == "apply"
    assert contrary(votes) == []
    back = {6: 8, 8: 6}.get(orientation, orientation)
    stored = [facts_of_values(mask.path, apply_orientation(drawn(n)[1], back).copy()) for n, mask in enumerate(upright)]
    assert choose_grid(votes_for_upright(turned, stored)) == "ignore"
    mixed = [*upright[:12], *stored[12:]]
    assert {12, 13} <= set(contrary(votes_for_upright(turned, mixed))) <= {12, 13, 14, 15}


@pytest.mark.parametrize("orientation", [3, 6])
def test_the_grid_of_the_masks_of_turned_photographs_of_soft_spots_is_found_by_what_they_explain(
    orientation: int,
) -> None:
    images, upright = spots(depth=100)
    turned = [replace(image, orientation=orientation) for image in images[:20]]
    back = {6: 8}.get(orientation, orientation)
    stored = [facts_of_values(Path("m.png"), apply_orientation(spot(n)[1], back).copy()) for n in range(20)]
    assert choose_grid(votes_for_upright(turned, upright[:20])) == "apply"
    assert choose_grid(votes_for_upright(turned, stored)) == "ignore"
    assert choose_grid(votes_for_upright(turned, upright[20:])) is None
    many = [replace(mask, sample=np.arange(SIDE**2, dtype=np.uint16).reshape(SIDE, SIDE)) for mask in stored]
    assert choose_grid(votes_for_upright(turned, many)) is None  # edges alone


def test_votes_that_say_nothing_choose_no_grid() -> None:
    rng = np.random.default_rng(0)
    votes = rng.normal(0, 0.1, 1000)
    assert choose_grid(votes) is None
    assert contrary(votes) == []
    assert choose_grid(np.array([])) is None
    assert choose_grid(np.array([0.3])) is None
    assert choose_grid(np.full(4, 0.3)) == "apply"
    assert choose_grid(np.tile([0.9, -0.7], 20)) is None  # of two minds
    assert choose_grid(np.full(1000, 0.04)) is None  # hardly better, in however many


@pytest.mark.parametrize(
    ("against", "told"),
    [([-0.44], 0), ([-0.46], 1), ([-0.31, -0.31], 0), ([-0.33, -0.33, -0.13, -0.11], 3), ([-0.2], 0)],
)
def test_votes_against_all_others_are_told_where_they_are_sure_and_so_are_weaker_ones_beside_them(
    against: list[float], told: int
) -> None:
    assert contrary(np.array([*against, *[0.3] * 20])) == list(range(told))
    assert contrary(np.array([*against, *[0.1] * 20])) == []  # where votes tell hardly anything
    assert contrary(np.array([])) == []


def test_a_mask_of_a_picture_that_is_not_there_is_told_where_all_others_fit() -> None:
    images, masks = pairs(41)
    assert strangers_of(images[:40], masks[:40]) == []
    assert strangers_of(images[:40], [*masks[:7], masks[40], *masks[8:40]]) == [7]
    assert strangers_of(images[:19], [*masks[:7], masks[40], *masks[8:19]]) == []  # too few to stand out


@pytest.mark.parametrize(
    ("low", "others", "told"),
    [
        ([1.6], [5.0] * 20, 1),
        ([1.7], [5.0] * 20, 0),
        ([1.9], [8.0] * 20, 1),  # a quarter of what is usual
        ([2.1], [8.0] * 20, 0),
        ([1.6], [2.9, *[5.0] * 20], 1),
        ([1.6], [2.8, *[5.0] * 20], 0),  # the next one is near
        ([1.9], [4.0, *[8.0] * 20], 1),
        ([1.9], [3.8, *[8.0] * 20], 0),
        ([1.6] * 2, [5.0] * 18, 2),
        ([1.6] * 3, [5.0] * 17, 0),  # more than a tenth
        ([1.6], [5.0] * 18, 0),  # too few others
        ([0.1], [1.9] * 20, 0),  # which do not fit either
    ],
)
def test_strangers_fit_as_others_do_and_stand_out_below_all_the_rest(
    low: list[float], others: list[float], told: int
) -> None:
    fits = dict(enumerate([*low, *others]))
    masks = [MaskFacts(Path("m.png"), outline=np.ones((1, 4), np.uint8)) for _ in fits]
    assert strangers(fits, masks) == list(range(told))
    few = [replace(mask, outline=mask.outline * (n > 0)) for n, mask in enumerate(masks)]
    assert strangers(fits, few) == list(range(1, told))


def test_a_mask_of_few_edges_and_masks_that_fit_no_image_are_no_strangers() -> None:
    images, masks = pairs(40)
    speck = np.zeros(SIZE, np.uint8)
    speck[2:4, 2:4] = 1
    assert strangers_of(images, [*masks[:7], facts_of_values(Path("7.png"), speck), *masks[8:]]) == []
    assert strangers_of(images, masks[1:] + masks[:1]) == []


def road(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a street: busy above, below a smooth road of nearly one shape, whose edges are faint."""
    rng = np.random.default_rng(seed)
    image, mask = rng.normal(110, 2, (*SIZE, 3)), np.zeros(SIZE, np.uint8)
    for _ in range(40):
        y, x = rng.integers(0, 22), rng.integers(0, 58)
        image[y : y + 6, x : x + 6] += rng.choice([-60, 60])
    left = 20 + int(rng.integers(-8, 9))
    mask[40:, left : left + 26] = 1
    image[mask == 1] -= 14
    return image.clip(0, 255).astype(np.uint8), mask


def test_a_turned_mask_is_found_where_the_others_fit_and_only_there() -> None:
    images, masks = pairs()
    assert matched(images, masks).turned == {}
    _, mask = drawn(7)
    mirrored = facts_of_values(Path("7.png"), mask[::-1].copy())
    assert matched(images, [*masks[:7], mirrored, *masks[8:]]).turned == {7: "mirrored top to bottom"}
    fitting_nothing = [*masks[5:], *masks[:5]]
    fitting_nothing[7] = mirrored
    assert matched(images, fitting_nothing).turned == {}
    turned = facts_of_values(Path("7.png"), np.rot90(mask).copy())
    assert matched(images, [*masks[:7], turned, *masks[8:]]).turned == {7: "turned to the left"}
    wide = [replace(image, size=(64, 128)) for image in images]
    assert matched(wide, [replace(one, size=(64, 128)) for one in [*masks[:7], turned, *masks[8:]]]).turned == {}


def test_masks_that_all_lie_otherwise_are_told_with_how_those_of_square_pictures_may_be_turned() -> None:
    images, masks = pairs()
    assert lying_of(images, masks) == []
    lying = [facts_of_values(mask.path, np.rot90(drawn(n)[1]).copy()) for n, mask in enumerate(masks)]
    assert lying_of(images, lying) == [(place, "turned to the left") for place in range(COUNT)]
    assert lying_of(images[:7], lying[:7]) == []
    wide = [replace(image, size=(64, 128)) for image in images[:8]] + images[8:]
    assert lying_of(wide, lying) == [(place, "turned to the left") for place in range(8, COUNT)]
    assert lying_of(wide[:15], lying[:15]) == []
    below = [facts_of_values(mask.path, drawn(n)[1][::-1].copy()) for n, mask in enumerate(masks)]
    assert lying_of(wide, below) == [(place, "mirrored top to bottom") for place in range(COUNT)]


def spot(seed: int, depth: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Returns skin with hairs, which have all the edges, and a spot on it that darkens softly by so much; its mask."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    (y, x), (a, b) = rng.integers(16, 48, 2), rng.uniform(7, 14, 2)
    far = np.hypot((rows - y) / a, (columns - x) / b)
    image = rng.normal(150, 4, (*SIZE, 3)) - depth / (1 + np.exp(4 * (far[..., None] - 1)))
    for _ in range(6):
        at, by = rng.integers(0, 64), rng.integers(-20, 21)
        image[np.arange(64), np.linspace(at, at + by, 64).astype(int) % 64] -= 90
    return image.clip(0, 255).astype(np.uint8), (far < rng.uniform(0.9, 1.2)).astype(np.uint8)


def spots(depth: int = 50) -> tuple[list[ImageFacts], list[MaskFacts]]:
    both = [spot(seed, depth) for seed in range(40)]
    return (
        [facts_of_pixels(Path(f"{n}.png"), image) for n, (image, _) in enumerate(both)],
        [facts_of_values(Path(f"{n}.png"), mask) for n, (_, mask) in enumerate(both)],
    )


def test_masks_of_soft_spots_are_found_by_what_they_explain_where_edges_are_those_of_hairs() -> None:
    images, masks = spots()
    assert matched(images, masks).wrong == []
    found = [matched(images, moved(masks, [place, place + 1])).wrong for place in range(0, 40, 2)]
    right = [[(place, place + 1), (place + 1, place)] for place in range(0, 40, 2)]
    assert all(one in ([], both) for one, both in zip(found, right, strict=True))
    assert sum(map(bool, found)) >= 12
    moved_on = matched(images, masks[1:] + masks[:1]).wrong
    assert moved_on == [(place, place + 1) for place in range(39)]
    by_edges = [replace(mask, sample=np.full((SIDE, SIDE), 2, np.uint8)) for mask in masks[1:] + masks[:1]]
    assert matched(images, by_edges).wrong == []  # edges alone tell nothing


@pytest.mark.parametrize("how", ["mirrored left to right", "mirrored top to bottom", "upside down", "transposed"])
def test_masks_of_soft_spots_that_all_lie_otherwise_are_told(how: str) -> None:
    images, masks = spots()
    assert lying_of(images, masks) == []
    lying = [facts_of_values(mask.path, TURNS[how](spot(n)[1]).copy()) for n, mask in enumerate(masks)]
    assert lying_of(images, lying) == [(place, how) for place in range(40)]
    assert lying_of(images[:20], lying[20:]) == []  # of other images


def test_masks_are_not_said_to_lie_otherwise_by_their_edges_where_their_areas_lie_right() -> None:
    images, masks = spots()
    turned = [replace(mask, outline=mask.outline[:, ::-1]) for mask in masks]
    outlined = [
        replace(image, edges=np.sqrt(mask.outline * 255.0).astype(np.uint8))
        for image, mask in zip(images, masks, strict=True)
    ]
    assert lying_of(outlined, turned) == []
    foreign = [replace(mask, sample=masks[place - 5].sample) for place, mask in enumerate(turned)]
    assert lying_of(outlined, foreign) == [(place, "mirrored left to right") for place in range(40)]


@pytest.mark.parametrize("together", [4, 100])
def test_fits_of_turned_masks_are_those_of_a_slow_loop(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "TOGETHER", together)
    rng = np.random.default_rng(0)
    outlines, edges = rng.normal(size=(12, 8, 8)).astype(np.float32), rng.integers(0, 256, (12, 8, 8), np.uint8)
    among, ways = np.array([0, 1, 2, 3, 5, 7, 8, 9, 10, 11]), list(TURNS.values())
    below = [(one - one.mean()) / np.linalg.norm(one - one.mean()) for one in edges]
    for turn, (own, others) in zip(ways, fits_of_turns(outlines, edges, among, ways), strict=True):
        for place in range(10):
            fits = [(turn(outlines[among[(place - by) % 10]]) * below[among[place]]).sum() for by in (0, 2, 5, 7)]
            assert own[place] == pytest.approx(fits[0], abs=1e-5)
            assert others[place] == pytest.approx(np.mean(fits[1:]), abs=1e-5)


def test_roads_below_where_pictures_have_few_edges_are_not_taken_for_mirrored_ones() -> None:
    both = [road(seed) for seed in range(30)]
    images = [facts_of_pixels(Path(f"{n}.png"), image) for n, (image, _) in enumerate(both)]
    assert lying_of(images, [facts_of_values(Path("m.png"), mask) for _, mask in both]) == []


def test_shifted_masks_are_found_beside_an_image_that_is_too_small_to_be_looked_at(tmp_path: Path) -> None:
    for number in range(COUNT):
        image, mask = drawn(number)
        write_pair(tmp_path, "train", f"p{number:02}", image, np.roll(mask, (4, 3), (0, 1)))
    image, mask = drawn(99)
    write_pair(tmp_path, "train", "a", image[:20, :20], mask[:20, :20])
    assert "SEG210" in {
        finding.code for finding in check(config_of(tmp_path, data={"val": None, "test": None}), tmp_path)
    }


def test_the_border_of_what_is_ignored_is_no_edge_of_a_mask_that_holds_one_class(tmp_path: Path) -> None:
    for number in range(24):
        image, mask = drawn(number)
        if number in {4, 9, 17}:
            mask = np.where(np.arange(SIZE[0])[:, None] < 30, 255, 0).repeat(SIZE[1], 1).astype(np.uint8)
        write_pair(tmp_path, "train", f"p{number:02}", image, mask)
    config = config_of(tmp_path, data={"val": None, "test": None, "ignore": [255]})
    assert not {finding.code for finding in check(config, tmp_path)} & {
        "SEG109",
        "SEG111",
        "SEG209",
        "SEG210",
        "SEG309",
    }


@pytest.mark.parametrize("grown", [3, -3], ids=["around", "within"])
def test_masks_drawn_loosely_around_or_within_what_they_outline_are_not_shifted(grown: int) -> None:
    every = range(-abs(grown), abs(grown) + 1)
    grow = np.maximum if grown > 0 else np.minimum

    def loose(mask: np.ndarray) -> np.ndarray:
        return grow.reduce([np.roll(mask, (y, x), (0, 1)) for y in every for x in every])

    both = [drawn(number) for number in range(COUNT)]
    surfaces = [shift_surface(image, loose(mask)) for image, mask in both]
    assert common_shift([surface for surface in surfaces if surface is not None]) is None
    moved_on = [shift_surface(image, np.roll(mask, (0, 4), (0, 1))) for image, mask in both]
    assert common_shift([surface for surface in moved_on if surface is not None]) == (0, -4)


def test_no_pair_is_read_again_for_a_shift_where_too_few_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(COUNT):
        write_pair(tmp_path, "train", f"p{number:02}", *drawn(number))
    read: list[object] = []
    monkeypatch.setattr(of_fits, "_surface", lambda *given: read.append(given))
    monkeypatch.setattr(of_fits, "MOST_PIXELS", 7 * SIZE[0] * SIZE[1])
    check(config_of(tmp_path, data={"val": None, "test": None}), tmp_path)
    assert read == []


def test_slopes_of_storedare_those_of_their_numbers() -> None:
    stored = np.random.default_rng(0).choice(np.array([0, 7, 255], np.uint8), (9, 11, 3))
    assert slopes_of(stored).max() == 2 * 255
    assert (slopes_of(stored) == slopes_of(stored.astype(np.float32))).all()
