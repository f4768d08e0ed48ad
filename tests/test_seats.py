"""Masks laid over images pixel by pixel tell which sit on their image, on another, turned, or on none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import check, config_of, write_pair

from segtool.check import of_matches
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


def looked_at(pairs: Sequence[Pair], **given: object) -> Seats:
    def look(places: Sequence[int]) -> list[Laid]:
        return [laid for place in places if (laid := lay_over(place, *pairs[place]))]

    everyone = range(len(pairs))
    return look_closely(
        everyone, everyone, look, count=len(pairs), **{"wrong": {}, "turned": {}, "strange": [], **given}
    )


@pytest.fixture(scope="module")
def right() -> list[Pair]:
    return [drawn(seed) for seed in range(COUNT)]


def with_masks(pairs: Sequence[Pair], masks: dict[int, np.ndarray]) -> list[Pair]:
    return [(image, masks.get(place, mask)) for place, (image, mask) in enumerate(pairs)]


def test_of_masks_that_sit_on_their_images_nothing_is_told_and_alarms_are_denied(right: list[Pair]) -> None:
    assert looked_at(right) == Seats([], [], [], set())
    suspected = looked_at(right, wrong={2: 5, 5: 2}, turned={7: "upside down"}, strange=[3])
    assert suspected == Seats([], [], [], {2, 5, 7})


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
        (np.rot90, "turned to the left"),
    ],
)
def test_a_turned_mask_is_told_with_how_it_lies(turn: Callable, told: str, right: list[Pair]) -> None:
    assert looked_at(with_masks(right, {3: turn(right[3][1]).copy()})) == Seats([], [(3, told)], [], set())


def test_a_mask_of_a_picture_that_is_not_there_sits_on_none(right: list[Pair]) -> None:
    assert looked_at(with_masks(right, {3: drawn(90)[1]})) == Seats([], [], [3], set())
    few_edges = np.zeros((150, 150), np.uint8)
    few_edges[20:60, 20:60] = 1
    assert looked_at(with_masks(right, {3: few_edges})).strange == [3]
    assert looked_at(with_masks(right, {3: few_edges}), strange=[3, 5]).strange == [3]  # 5 sits
    rng = np.random.default_rng(2)
    faint = {place: (rng.integers(0, 256, right[place][0].shape, np.uint8), right[place][1]) for place in (5, 8)}
    some_faint = [faint.get(place, pair) for place, pair in enumerate(right)]
    assert looked_at(with_masks(some_faint, {3: few_edges})).strange == []  # a faint object too, perhaps
    aside = with_masks(right, {3: np.roll(right[3][1], 2, 1)})
    assert looked_at(aside).strange == []
    assert looked_at(aside, strange=[3]).strange == [3]


@pytest.mark.parametrize("by", [(0, 8), (-20, 5), (4, 4)])
def test_a_mask_that_lies_beside_what_it_outlines_is_told_with_the_pixels_to_move_by(
    by: tuple[int, int], right: list[Pair]
) -> None:
    aside = np.roll(right[3][1], by, (0, 1))
    back = (-by[0], -by[1])
    assert looked_at(with_masks(right, {3: aside})) == Seats([], [], [], set(), ((3, back),))
    assert looked_at(with_masks(right, {3: np.roll(right[3][1], 3, 0)})).aside == ()


def test_a_mask_of_a_large_image_is_told_to_be_moved_by_pixels_of_the_file(right: list[Pair]) -> None:
    rng = np.random.default_rng(3)
    masks = [mask.repeat(5, 0).repeat(5, 1) for _, mask in right]
    large = [(rng.normal(60 + 50 * mask[..., None], 12).clip(0, 255).astype(np.uint8), mask) for mask in masks]
    assert looked_at(with_masks(large, {3: np.roll(masks[3], 40, 1)})).aside == ((3, (0, -40)),)


def faint(seed: int) -> Pair:
    """Returns an image of noise, whose classes differ by less than it, and its mask: no edge is seen."""
    rng = np.random.default_rng(seed)
    _, mask = drawn(seed)
    return (rng.normal(110, 25, (150, 150, 3)) + 8 * mask[..., None]).clip(0, 255).astype(np.uint8), mask


def test_where_no_edges_are_seen_areas_tell_whose_masks_they_are() -> None:
    pairs = [faint(seed) for seed in range(COUNT)]
    assert looked_at(pairs) == Seats([], [], [], set())
    two = with_masks(pairs, {2: pairs[5][1], 5: pairs[2][1]})
    assert looked_at(two).exchanged == [(2, 5), (5, 2)]
    assert looked_at(with_masks(pairs, {3: pairs[3][1][:, ::-1]})).turned == [(3, "mirrored left to right")]
    assert looked_at(with_masks(pairs, {3: drawn(93)[1]})) == Seats([], [], [3], set())
    nothing = [(drawn(seed + 50)[0], mask) for seed, (_, mask) in enumerate(pairs)]
    assert looked_at(with_masks(nothing, {2: pairs[5][1], 5: pairs[2][1]})) == Seats([], [], [], set())


@pytest.mark.parametrize("shift", [1, -1])
def test_masks_that_are_all_moved_on_by_one_are_told(shift: int, right: list[Pair]) -> None:
    moved = [(image, right[(place + shift) % COUNT][1]) for place, (image, _) in enumerate(right)]
    first = max(0, -shift)
    assert looked_at(moved).exchanged == [(place, place + shift) for place in range(first, first + COUNT - 1)]


def test_nothing_is_told_of_masks_that_follow_no_edges(right: list[Pair]) -> None:
    rng = np.random.default_rng(1)
    noise = [(rng.integers(0, 256, image.shape, np.uint8), mask) for image, mask in right]
    assert looked_at(with_masks(noise, {2: right[5][1], 5: right[2][1]})) == Seats([], [], [], set())


def found(pairs: Sequence[Pair], root: Path) -> dict[str, tuple[str, ...]]:
    """Returns the files of each finding of a check of these pairs that are in the folder."""
    for number, pair in enumerate(pairs):
        write_pair(root, "train", f"{number:02}", *pair)
    classes = [{"name": str(value), "values": [value]} for value in range(3)]
    findings = check(config_of(root, data={"classes": classes, "val": None, "test": None}), Path("/"))
    return {finding.code: finding.files for finding in findings}


def test_a_check_tells_exchanged_turned_and_strange_masks_each_once(right: list[Pair], tmp_path: Path) -> None:
    pairs = [*right, *map(drawn, range(COUNT, 2 * COUNT))]
    assert found(pairs, tmp_path / "right") == {}
    wrong = {2: pairs[5][1], 5: pairs[2][1], 7: np.fliplr(pairs[7][1]).copy(), 9: drawn(90)[1]}
    assert found(with_masks(pairs, wrong), tmp_path / "wrong") == {
        "SEG109": ("train/masks/02.png", "train/masks/05.png"),
        "SEG111": ("train/masks/09.png",),
        "SEG209": ("train/masks/07.png",),
    }


def test_of_what_small_maps_say_only_what_a_closer_look_leaves_is_told(
    right: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [*right, *map(drawn, range(COUNT, 2 * COUNT))]
    match = of_matches.match
    said = {"wrong": [(2, 5), (7, 3)], "turned": {4: "mirrored top to bottom"}}
    monkeypatch.setattr(of_matches, "match", lambda *both: match(*both)._replace(**said))
    mirrored = with_masks(pairs, {7: np.fliplr(pairs[7][1]).copy()})
    assert found(mirrored, tmp_path) == {"SEG209": ("train/masks/07.png",)}


def test_a_picture_that_is_too_large_to_be_looked_at_takes_nothing_of_what_the_others_may(
    right: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (large, mask), *others = right
    pairs = [(large.repeat(4, 0).repeat(4, 1), mask.repeat(4, 0).repeat(4, 1)), *others]
    seen: list[int] = []

    def look_at_some(*given: object, **_: object) -> Seats:
        look = given[2]
        assert callable(look)
        seen.extend(one.place for one in look(range(COUNT)))
        return Seats([], [], [], set())

    monkeypatch.setattr(of_matches, "look_closely", look_at_some)
    monkeypatch.setattr(of_matches, "MOST_PIXELS", len(others) * mask.size)
    found(pairs, tmp_path)
    assert len(seen) == len(others)


def test_usual_pairs_are_looked_at_however_many_pixels_the_suspected_ones_take(
    right: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [*right, *map(drawn, range(COUNT, 2 * COUNT))]
    monkeypatch.setattr(of_matches, "MOST_PIXELS", 5 * right[0][1].size)
    match = of_matches.match
    monkeypatch.setattr(of_matches, "match", lambda *both: match(*both)._replace(turned={}))
    mirrored = with_masks(pairs, {7: np.fliplr(pairs[7][1]).copy()})
    assert found(mirrored, tmp_path / "five") == {"SEG209": ("train/masks/07.png",)}
    monkeypatch.setattr(of_matches, "MOST_PIXELS", 1)  # an eighth of all: 3 of each kind, and no fewer tell anything
    assert found(mirrored, tmp_path / "eighth") == {"SEG209": ("train/masks/07.png",)}
    assert "SEG209" not in found(mirrored[:23], tmp_path / "less")


def test_a_turn_that_small_maps_speak_against_is_not_told(
    right: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [(4, "mirrored left to right"), (7, "mirrored left to right")]
    monkeypatch.setattr(of_matches, "look_closely", lambda *_, **__: Seats([], turns, [], set()))
    mirrored = with_masks(right, {7: np.fliplr(right[7][1]).copy()})
    assert found(mirrored, tmp_path) == {"SEG209": ("train/masks/07.png",)}


def test_small_maps_that_call_all_masks_turned_are_believed_where_these_sit_so(
    right: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [(place, "mirrored left to right") for place in range(COUNT)]
    monkeypatch.setattr(of_matches, "turned_masks", lambda *_: every)
    assert found(right, tmp_path / "right") == {}
    mirrored = [(image, mask[:, ::-1].copy()) for image, mask in right]
    assert list(found(mirrored, tmp_path / "mirrored")) == ["SEG209"]


def test_a_check_tells_a_mask_that_was_moved(right: list[Pair], tmp_path: Path) -> None:
    pairs = [*right, *map(drawn, range(COUNT, 2 * COUNT))]
    moved = with_masks(pairs, {7: np.roll(pairs[7][1], (5, -12), (0, 1))})
    assert found(moved, tmp_path) == {"SEG210": ("train/masks/07.png",)}


def test_a_mask_whose_border_lies_in_the_haze_is_not_told_as_turned(right: list[Pair]) -> None:
    rng = np.random.default_rng(7)
    image, mask = rng.normal(110, 2, (150, 150, 3)), np.zeros((150, 150), np.uint8)
    image[75:] = rng.normal(110, 40, (75, 150, 3))  # what is near has edges everywhere
    mask[40:] = 1
    mask[40 : 40 + 5, 30:90] = 0
    hazy = [*right[:3], (image.clip(0, 255).astype(np.uint8), mask), *right[4:]]
    assert looked_at(hazy, turned={3: "upside down"}).denied == {3}
