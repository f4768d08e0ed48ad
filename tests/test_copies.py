"""Pictures that are parts of others, and the closer look at what only seems to be a copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from test_likeness import SIZE, facts, fundus, scene

from segtool.check.copies import likely_parts, look_again
from segtool.check.fit import TURNS
from segtool.data.facts import ImageFacts

CUT = ((4, 3, 128, 96), (0, 0, 109, 96), (0, 9, 128, 96), (0, 14, 109, 96), (6, 5, 122, 91))
"""Left, top, right and bottom of what is left of 128x96 pixels: without 3 to 15 % at a corner, an edge, all around."""


def likely(wholes: Sequence[ImageFacts], parts: Sequence[ImageFacts]) -> dict[tuple[int, int], tuple[float, ...]]:
    """Returns the boxes of pictures that may be parts of others, by the places of the whole and of the part."""
    every = [*wholes, *parts]
    groups = [np.arange(len(wholes)), np.arange(len(wholes), len(every))]
    return {(found.whole, found.part): found.box for found in likely_parts(every, np.ones(len(every), bool), groups)}


@pytest.mark.parametrize("box", CUT)
def test_copies_without_a_margin_are_found_where_they_were_cut_out(box: tuple[int, int, int, int]) -> None:
    pictures = [scene(seed) for seed in range(20)]
    parts = [picture.crop(box) for picture in pictures[3:6]]
    found = likely([facts(picture) for picture in pictures], [facts(part) for part in parts])
    assert set(found) == {(3, 20), (4, 21), (5, 22)}
    left, top, right, bottom = box
    height, width = SIZE
    for shares in found.values():
        assert shares == pytest.approx((top / height, bottom / height, left / width, right / width), abs=0.02)


def test_copies_are_found_whichever_group_has_the_whole() -> None:
    pictures = [scene(seed) for seed in range(20)]
    parts = [facts(picture.crop(CUT[3])) for picture in pictures[:10]]
    rest = [facts(picture) for picture in pictures[10:]]
    found = likely([*parts, *rest], [facts(picture) for picture in pictures[:4]])
    assert set(found) == {(20, 0), (21, 1), (22, 2), (23, 3)}


@pytest.mark.parametrize("lying", list(TURNS))
def test_parts_that_were_mirrored_or_turned_are_found_with_how_they_lie(lying: str) -> None:
    pictures = [scene(seed) for seed in range(20)]
    cut = [pixels(picture.crop(CUT[4])) for picture in pictures[3:7]]
    parts = [np.moveaxis(TURNS[lying](np.moveaxis(part, 2, 0)), 0, 2) for part in cut]
    every = [facts(picture) for picture in (*pictures, *map(Image.fromarray, parts))]
    groups, usable = [np.arange(20), np.arange(20, 24)], np.ones(24, bool)
    found = likely_parts(every, usable, groups, turned=True)
    assert {(part.whole, part.part) for part in found} == {(3, 20), (4, 21), (5, 22), (6, 23)}
    for part in found:
        assert (part.turned(parts[part.part - 20]) == cut[part.part - 20]).all()
        assert part.box == pytest.approx((5 / 96, 91 / 96, 6 / 128, 122 / 128), abs=0.02)
        assert look_again(pixels(pictures[part.whole]), part.turned(parts[part.part - 20]), part.box).is_copy
        assert part.lacks_margins
    assert not likely_parts(every, usable, groups)  # none as they lie


def test_a_whole_picture_that_was_mirrored_is_found_in_another_light() -> None:
    pictures = [rough(seed) for seed in range(12)]
    mirrored = pictures[3].transpose(Image.Transpose.FLIP_LEFT_RIGHT).point(lambda value: value * 2 // 3)
    every = [facts(picture) for picture in (*pictures, mirrored)]
    found = likely_parts(every, np.ones(13, bool), [np.arange(12), np.arange(12, 13)], turned=True)
    assert {(part.whole, part.part) for part in found} == {(3, 12), (12, 3)}
    for part in found:
        assert not part.lacks_margins
        assert look_again(pixels(pictures[3]), part.turned(pixels(mirrored)), part.box).is_copy


def test_parts_that_lie_as_they_did_are_no_turned_ones() -> None:
    pictures = [scene(seed) for seed in range(20)]
    every = [facts(picture) for picture in (*pictures, *(picture.crop(CUT[4]) for picture in pictures[:5]))]
    assert not likely_parts(every, np.ones(25, bool), [np.arange(20), np.arange(20, 25)], turned=True)


def test_copies_are_not_looked_for_among_more_pairs_than_a_tenth_of_their_pixels() -> None:
    pictures = [scene(seed) for seed in range(20)]
    every = [facts(picture) for picture in (*pictures, *(picture.crop(CUT[0]) for picture in pictures[:5]))]
    groups = [np.arange(20), np.arange(20, 25)]
    usable = np.ones(25, bool)
    assert len(likely_parts(every, usable, groups)) == 5
    assert likely_parts([replace(image, size=(4, 10)) for image in every], usable, groups)
    assert not likely_parts([replace(image, size=(4, 9)) for image in every], usable, groups)


def test_pictures_of_one_kind_are_no_parts_of_each_other() -> None:
    assert not likely([facts(scene(seed)) for seed in range(20)], [facts(scene(seed)) for seed in range(20, 40)])
    fundi = [fundus(seed, 1 + seed % 3 / 10) for seed in range(40)]
    suspected = likely([facts(fundi[place]) for place in range(20)], [facts(fundi[place]) for place in range(20, 40)])
    assert not any(
        look_again(pixels(fundi[whole]), pixels(fundi[part]), box).is_copy for (whole, part), box in suspected.items()
    )


@pytest.mark.parametrize("box", CUT)
def test_a_part_is_that_of_its_whole_in_other_light_compressed_or_blurred(box: tuple[int, int, int, int]) -> None:
    whole, (left, top, right, bottom) = rough(1), box
    part = whole.crop(box)
    shares = (top / 96, bottom / 96, left / 128, right / 128)
    kept = BytesIO()
    part.save(kept, "JPEG", quality=60)
    changed = [
        part,
        Image.open(kept),
        part.filter(ImageFilter.GaussianBlur(0.7)),
        part.point(lambda value: value * 2 // 3),
    ]
    for picture in [*changed, part.convert("L")]:
        look = look_again(pixels(whole), pixels(picture), shares)
        assert look.is_copy
        assert look.is_nearer(look_again(pixels(rough(2)), pixels(picture), shares))


def test_another_picture_is_no_part() -> None:
    look = look_again(pixels(rough(1)), pixels(rough(2)), (0, 0.9, 0.1, 1))
    assert not look.is_copy
    assert not look.is_nearer(look_again(pixels(rough(3)), pixels(rough(2)), (0, 0.9, 0.1, 1)))


def rough(seed: int) -> Image.Image:
    """A scene with a texture on it."""
    grain = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8))
    return Image.blend(scene(seed), grain.resize(SIZE[::-1], Image.Resampling.BICUBIC), 0.3)


def grainy(seed: int, color: str, *, box: tuple[int, int, int, int] = (30, 24, 90, 70)) -> np.ndarray:
    """Returns a box on grey paper, each with a grain of its own."""
    picture = Image.new("RGB", SIZE[::-1], (205, 205, 200))
    ImageDraw.Draw(picture).rectangle(box, fill=color)
    return (pixels(picture) + np.random.default_rng(seed).normal(0, 3, (*SIZE, 3))).clip(0, 255).astype(np.uint8)


def test_things_that_lie_alike_are_others_by_their_grain() -> None:
    """Of 64 parts, those at the edges of the box agree."""
    look = look_again(grainy(1, "brown"), grainy(2, "brown"))
    assert not look.is_nearer(look_again(grainy(3, "brown", box=(20, 30, 80, 80)), grainy(2, "brown")))
    assert not look.is_copy
    same = grainy(1, "brown")
    assert look_again(same, same).is_copy


def test_things_that_lie_alike_on_white_are_others_by_their_colors() -> None:
    """White has no grain, so that all parts with any agree."""
    boxes = [Image.new("RGB", SIZE[::-1], "white") for _ in range(3)]
    for picture, color in zip(boxes, ("#a04040", "#4040a0", "#a05040"), strict=True):
        ImageDraw.Draw(picture).rectangle((30, 24, 90, 70), fill=color)
    red, blue, brown = (pixels(picture) for picture in boxes)
    usual = look_again(red, np.full_like(red, 255))
    assert not look_again(red, blue).is_nearer(usual)
    assert look_again(red, brown).is_nearer(usual)
    assert look_again(red, pixels(boxes[0].convert("L"))).is_nearer(usual)


def test_pictures_of_one_part_in_a_jig_are_not_nearer_to_each_other_than_to_any() -> None:
    rng = np.random.default_rng(5)
    part = np.repeat(np.asarray(rough(4).convert("L"), float)[..., None], 3, 2)
    one, other, any_other = (
        (np.roll(part, shift, (0, 1)) + rng.normal(0, 4, part.shape)).clip(0, 255).astype(np.uint8)
        for shift in ((0, 0), (0, 0), (1, 2))
    )
    assert look_again(one, other).is_copy
    assert not look_again(one, other).is_nearer(look_again(any_other, other))


def test_a_part_of_a_16_bit_picture_is_found_too() -> None:
    rng = np.random.default_rng(3)
    blocks = np.kron(rng.uniform(400, 900, (12, 16)), np.ones((8, 8))) + rng.normal(0, 20, SIZE)
    whole = (blocks / 257).astype(np.float32)[..., None]
    look = look_again(whole, np.ascontiguousarray(whole[9:, 12:]), (9 / 96, 1, 12 / 128, 1))
    assert look.is_copy


def pixels(picture: Image.Image) -> np.ndarray:
    return np.atleast_3d(np.asarray(picture))
