"""Pairing, splits, lists and layouts, on empty files: only names matter here."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection
from itertools import product
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segtool.config import Config, Data, Folders, Pairing, Split
from segtool.data.affixes import guess_pairing
from segtool.data.files import MASK_SUFFIXES, list_files
from segtool.data.folders import Tree
from segtool.data.formats import split_records
from segtool.data.layout import Layout, find_layout
from segtool.data.pairs import Record, find_pairs, name_twins
from segtool.data.predictions import MADE_BY
from segtool.data.splits import hold_out
from segtool.errors import ConfigError, DataError

SHARED = Path(__file__).parents[2] / "shared" / "data"
NONE = Pairing()


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def folders(root: Path, images: tuple[str, ...], masks: tuple[str, ...]) -> tuple[Path, Path]:
    touch(root / "images", *images)
    touch(root / "masks", *masks)
    return root / "images", root / "masks"


def config(root: Path, **data: object) -> Config:
    given: dict[str, object] = {"train": Folders("images", "masks"), **data}
    return Config(data=Data(root=str(root), **given))  # type: ignore[arg-type]


def numbered(root: Path, count: int, images: str = "images", masks: str = "masks") -> Path:
    touch(root / images, *(f"{i:03}.jpg" for i in range(count)))
    touch(root / masks, *(f"{i:03}.png" for i in range(count)))
    return root


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a.jpg", "a.png"),
        ("a.JPG", "a.png"),
        ("a.jpg", "a.PNG"),
        ("a.b.c.jpg", "a.b.c.png"),
        ("seq1/deep/a.jpg", "seq1/deep/a.png"),
        ("img[1].png", "img[1].png"),
        ("a*?.png", "a*?.png"),
        ("with space .jpg", "with space .png"),
        (unicodedata.normalize("NFC", "café.jpg"), unicodedata.normalize("NFD", "café.png")),
        (os.fsdecode(b"bad\xff.jpg"), os.fsdecode(b"bad\xff.png")),
    ],
)
def test_an_image_finds_the_mask_of_its_stem(tmp_path: Path, image: str, mask: str) -> None:
    images, masks = folders(tmp_path, (image, "other.jpg"), (mask, "other.png"))
    pairs = find_pairs(images, masks, NONE)
    assert {(r.image, r.mask) for r in pairs.records} == {
        (images / image, masks / mask),
        (images / "other.jpg", masks / "other.png"),
    }
    assert (pairs.images_without_mask, pairs.masks_without_image, pairs.ambiguous) == ((), (), ())


def test_a_stem_is_the_path_within_the_folder_without_its_suffix(tmp_path: Path) -> None:
    images, masks = folders(tmp_path, ("seq1/a.b.jpg",), ("seq1/a.b.png",))
    assert find_pairs(images, masks, NONE).records[0].stem == "seq1/a.b"


@pytest.mark.parametrize(
    ("image", "mask", "pairing"),
    [
        ("a.jpg", "a_mask.png", Pairing(mask_suffix="_mask")),
        ("s/a.jpg", "s/mask_a.png", Pairing(mask_prefix="mask_")),
        ("a_leftImg8bit.png", "a_gtFine.png", Pairing(image_suffix="_leftImg8bit", mask_suffix="_gtFine")),
        ("img_1.png", "1.png", Pairing(image_prefix="img_")),
        ("a.jpg", "a.jpg.png", Pairing(mask_suffix=".jpg")),
    ],
)
def test_configured_prefixes_and_suffixes_are_taken_off(
    tmp_path: Path, image: str, mask: str, pairing: Pairing
) -> None:
    images, masks = folders(tmp_path, (image,), (mask,))
    pairs = find_pairs(images, masks, pairing)
    assert [(r.image.name, r.mask.name) for r in pairs.records if r.mask] == [(Path(image).name, Path(mask).name)]
    assert not find_pairs(images, masks, NONE).records


def test_one_does_not_match_ten(tmp_path: Path) -> None:
    images, masks = folders(tmp_path, ("1.jpg", "10.jpg"), ("10.png", "11.png"))
    pairs = find_pairs(images, masks, NONE)
    assert [r.stem for r in pairs.records] == ["10"]
    assert [p.name for p in pairs.images_without_mask] == ["1.jpg"]
    assert [p.name for p in pairs.masks_without_image] == ["11.png"]


def test_hidden_and_foreign_files_are_passed_over(tmp_path: Path) -> None:
    junk = (".a.jpg", "._b.jpg", "Thumbs.db", "__MACOSX/c.jpg", ".cache/d.jpg", "notes.txt")
    images, masks = folders(tmp_path, ("a.jpg", *junk), ("a.png", *junk))
    assert [r.stem for r in find_pairs(images, masks, NONE).records] == ["a"]


def test_two_files_of_one_stem_are_ambiguous_and_both_named(tmp_path: Path) -> None:
    folders(tmp_path, ("a.jpg", "a.png", "b.jpg"), ("a.png", "b.png", "b.bmp"))
    with pytest.raises(DataError) as caught:
        split_records(config(tmp_path), tmp_path)
    text = str(caught.value)
    assert all(name in text for name in ("images/a.jpg", "images/a.png", "masks/b.png", "masks/b.bmp"))


def test_of_many_names_that_several_files_share_the_first_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    names = [f"{number}{suffix}" for number in range(9) for suffix in (".png", ".tif")]
    folders(tmp_path, tuple(names), tuple(names[::2]))
    with pytest.raises(DataError) as caught:
        split_records(config(tmp_path), tmp_path)
    assert len(caught.value.problems) == 6
    assert "4 more names" in caught.value.problems[-1]


def test_names_that_look_alike_are_told_apart_by_their_characters(tmp_path: Path) -> None:
    images, _ = folders(tmp_path, ("\xe9.png", "e\u0301.png"), ("\xe9.png",))
    if len(list(images.iterdir())) < 2:
        pytest.skip("this file system takes both for one name")
    with pytest.raises(DataError, match=r"images/e\\u0301\.png and \S*images/\\xe9\.png have one stem"):
        split_records(config(tmp_path), tmp_path)
    assert name_twins(["é.png", "é.jpg"]) == "é.png and é.jpg"


def test_all_missing_and_extra_files_are_told_at_once_with_counts(tmp_path: Path) -> None:
    folders(tmp_path, ("a.jpg", "b.jpg", "c.jpg"), ("a.png", "z.png"))
    with pytest.raises(DataError) as caught:
        split_records(config(tmp_path), tmp_path)
    text = str(caught.value)
    assert "2 of 3 images" in text
    assert "b, c" in text
    assert "1 of 2 masks" in text
    assert "z" in text
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("images", "masks", "pairing", "remedy"),
    [
        (("a.jpg", "b.jpg"), ("a_gt.png", "b_gt.png"), NONE, "data.pairing: {mask_suffix: _gt} would make 2 pairs"),
        (
            ("img_001.jpg", "img_010.jpg"),
            ("img_1.png", "img_10.png"),
            NONE,
            "data.pairing: {image_prefix: img_, mask_prefix: img_, by_number: true} would make 2 pairs",
        ),
        (("IMG_1.jpg",), ("img_1.png",), NONE, "some names differ by upper and lower case only"),
        (
            ("p1.jpg", "p2.jpg"),
            ("p1.png", "p2.png"),
            Pairing(image_prefix="p"),
            "; leaving out data.pairing would make 2 pairs",
        ),
    ],
    ids=["suffix", "numbers", "case", "too much"],
)
def test_an_error_about_names_tells_what_would_pair(
    tmp_path: Path, images: tuple[str, ...], masks: tuple[str, ...], pairing: Pairing, remedy: str
) -> None:
    folders(tmp_path, images, masks)
    with pytest.raises(DataError, match=re.escape(remedy)):
        split_records(config(tmp_path, pairing=pairing), tmp_path)


def test_names_that_are_no_utf8_are_printed_escaped(tmp_path: Path) -> None:
    folders(tmp_path, (os.fsdecode(b"bad\xff.jpg"), "a\x1b]0;x.jpg"), ("b.png",))
    with pytest.raises(DataError) as caught:
        split_records(config(tmp_path), tmp_path)
    str(caught.value).encode("utf-8")
    assert "bad\\udcff" in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_missing_folders_are_all_told_with_key_and_absolute_path(tmp_path: Path) -> None:
    touch(tmp_path, "pictures/a.jpg")
    with pytest.raises(DataError) as caught:
        split_records(config(tmp_path, val=Folders("v/images", "pictures")), tmp_path)
    text = str(caught.value)
    assert f"data.train.images: no folder {tmp_path / 'images'}" in text
    assert "data.train.masks" in text
    assert "data.val.images" in text
    assert "has pictures" in text


def test_a_root_that_is_not_there_is_told_once_with_how_to_name_another(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        split_records(config(tmp_path / "gone", val=Folders("v/images", "v/masks")), tmp_path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"data.root: no folder {tmp_path / 'gone'};")
    assert "--set data.root=" in problem


def test_a_folder_without_images_is_told_with_what_it_holds(tmp_path: Path) -> None:
    folders(tmp_path, ("a.heic",), ("a.png",))
    with pytest.raises(DataError, match=r"no image file in .*found .heic"):
        split_records(config(tmp_path), tmp_path)


def test_a_split_without_folders_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.train\.masks"):
        split_records(config(tmp_path, train=Folders("images")), tmp_path)


def test_linked_folders_are_searched_once_and_loops_end(tmp_path: Path) -> None:
    images, masks = folders(tmp_path, ("s/a.jpg",), ("s/a.png", "far/b.png"))
    touch(tmp_path / "elsewhere", "b.jpg")
    (images / "far").symlink_to(tmp_path / "elsewhere")
    (images / "s" / "loop").symlink_to(images)
    (images / "alias").symlink_to(images / "s")
    pairs = find_pairs(images, masks, NONE)
    assert [r.stem for r in pairs.records] == ["far/b", "s/a"]
    assert not pairs.images_without_mask


def test_a_folder_or_dead_link_named_like_an_image_is_left_to_the_reader(tmp_path: Path) -> None:
    images, masks = folders(tmp_path, ("a.jpg",), ("a.png", "b.png", "c.png"))
    (images / "b.png").mkdir()
    (images / "c.png").symlink_to(tmp_path / "nowhere.png")
    assert [r.stem for r in find_pairs(images, masks, NONE).records] == ["a", "b", "c"]


def test_masks_within_the_folder_of_images_are_no_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "masks/a.png")
    pairs = find_pairs(tmp_path, tmp_path / "masks", NONE)
    assert [r.stem for r in pairs.records] == ["a"]
    assert not pairs.images_without_mask


@pytest.mark.parametrize(
    ("image", "mask", "pairing"),
    [
        ("a.jpg", "a_mask.png", Pairing(mask_suffix="_mask")),
        ("a.jpg", "m_a.jpg", Pairing(mask_prefix="m_")),
        ("a.png", "a.TIF", Pairing(mask_format="tif")),
        ("a.jpg", "a.tif", Pairing(mask_format="tif")),
        ("a.tif", "a.png", Pairing(mask_format="png")),
        ("a.png", "a.gif", Pairing(mask_format="gif")),
        *((f"a.{suffix}", "a.png", NONE) for suffix in ("bmp", "tif", "webp", "jpg")),
    ],
)
def test_images_and_masks_may_lie_in_one_folder(tmp_path: Path, image: str, mask: str, pairing: Pairing) -> None:
    """Told by a prefix or suffix, by the format of the masks, or by that of photographs."""
    touch(tmp_path, image, mask)
    (record,) = find_pairs(tmp_path, tmp_path, pairing).records
    assert (record.image.name, record.mask and record.mask.name) == (image, mask)


def test_every_ending_of_masks_is_a_format_of_masks() -> None:
    assert {f".{name}" for name in get_args(get_type_hints(Pairing)["mask_format"]) if name} == MASK_SUFFIXES


def test_pictures_of_a_run_within_the_folder_of_images_are_no_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.png", "runs/set-1/samples/a.png", "runs/set-1/run.json", "runs/set-1/checkpoints/x")
    pairs = find_pairs(tmp_path, tmp_path, Pairing(mask_suffix="_mask"))
    assert [path.name for path in pairs.images_without_mask] == ["a.jpg", "a.png"]
    (tmp_path / "runs/set-1/run.json").unlink()
    assert len(find_pairs(tmp_path, tmp_path, Pairing(mask_suffix="_mask")).images_without_mask) == 3


def test_predictions_within_a_folder_of_images_and_masks_are_neither(tmp_path: Path) -> None:
    """Of the same files that segtool has not made, each is told."""
    touch(tmp_path, "a.jpg", "a.png", "b.jpg", "out/a.png", "out/overlays/a.png", "own/a.png", "own/c.jpg")
    for name in ("out/a.png", "out/overlays/a.png"):
        (tmp_path / name).write_bytes(b"\x89PNG segtool predict")
    pairs = find_pairs(tmp_path, tmp_path, NONE)
    assert [record.stem for record in pairs.records] == ["a"]
    assert pairs.images_without_mask == (tmp_path / "b.jpg", tmp_path / "own/c.jpg")
    assert pairs.masks_without_image == (tmp_path / "own/a.png",)


def test_predictions_among_the_masks_are_masks_without_an_image_and_among_the_images_nothing(tmp_path: Path) -> None:
    images, masks = folders(tmp_path, ("a.jpg", "out/a.png"), ("a.png", "b.png"))
    for path in (images / "out/a.png", masks / "b.png"):
        path.write_bytes(b"\x89PNG segtool predict")
    pairs = find_pairs(images, masks, NONE)
    assert pairs.images_without_mask == ()
    assert pairs.masks_without_image == (masks / "b.png",)


def test_files_without_the_configured_suffix_are_told_apart(tmp_path: Path) -> None:
    images, masks = folders(tmp_path, ("a.jpg",), ("a_labelIds.png", "a_color.png"))
    pairs = find_pairs(images, masks, Pairing(mask_suffix="_labelIds"))
    assert len(pairs.records) == 1
    assert [p.name for p in pairs.unnamed] == ["a_color.png"]
    assert not pairs.masks_without_image


def test_folders_named_alike_further_down_hold_the_images_and_the_masks(tmp_path: Path) -> None:
    for sequence in ("seq1", "seq2/b"):
        touch(tmp_path / sequence, "Images/000.png", "Labels/000.png", "Depth/000.png")
    pairs = find_pairs(tmp_path, tmp_path, Pairing(image_folder="Images", mask_folder="Labels"))
    assert [(r.stem, r.mask) for r in pairs.records] == [
        ("seq1/Images/000", tmp_path / "seq1/Labels/000.png"),
        ("seq2/b/Images/000", tmp_path / "seq2/b/Labels/000.png"),
    ]
    assert (pairs.images_without_mask, pairs.masks_without_image, pairs.unnamed) == ((), (), ())


def test_masks_further_down_beside_their_images(tmp_path: Path) -> None:
    touch(tmp_path, "p1/a.jpg", "p1/gt/a.png", "p2/a.jpg")
    pairs = find_pairs(tmp_path, tmp_path, Pairing(mask_folder="gt"))
    assert [r.stem for r in pairs.records] == ["p1/a"]
    assert pairs.images_without_mask == (tmp_path / "p2/a.jpg",)


def test_numbers_are_compared_by_value_only_where_asked(tmp_path: Path) -> None:
    images, masks = folders(tmp_path, ("img_001.png", "img_010.png", "img_100.png"), ("1.png", "10.png", "0.png"))
    assert not find_pairs(images, masks, Pairing(image_prefix="img_")).records
    pairs = find_pairs(images, masks, Pairing(image_prefix="img_", by_number=True))
    assert [(r.image.name, r.mask.name) for r in pairs.records if r.mask] == [
        ("img_001.png", "1.png"),
        ("img_010.png", "10.png"),
    ]
    touch(masks, "01.png")
    assert find_pairs(images, masks, Pairing(image_prefix="img_", by_number=True)).ambiguous


def test_folders_count_for_nothing_only_where_asked(tmp_path: Path) -> None:
    images, masks = folders(tmp_path, ("x/a.png", "y/b.png", "y/c.png"), ("a_m.png", "z/b_m.png", "z/d_m.png"))
    assert not find_pairs(images, masks, Pairing(mask_suffix="_m")).records
    pairs = find_pairs(images, masks, Pairing(mask_suffix="_m", by_name=True))
    assert [(r.stem, r.mask.name) for r in pairs.records if r.mask] == [("x/a", "a_m.png"), ("y/b", "b_m.png")]
    assert (pairs.images_without_mask, pairs.masks_without_image) == ((images / "y/c.png",), (masks / "z/d_m.png",))
    touch(images, "z/a.png")
    assert find_pairs(images, masks, Pairing(mask_suffix="_m", by_name=True)).ambiguous == (
        (images / "x/a.png", images / "z/a.png"),
    )


def test_a_file_that_lacks_the_suffix_pairs_by_its_whole_name(tmp_path: Path) -> None:
    images, masks = folders(tmp_path, ("a.png", "b.png"), ("a_mask.png", "b.png", "a_color.png"))
    pairs = find_pairs(images, masks, Pairing(mask_suffix="_mask"))
    assert [(r.image.name, r.mask.name) for r in pairs.records if r.mask] == [
        ("a.png", "a_mask.png"),
        ("b.png", "b.png"),
    ]
    assert [path.name for path in pairs.unnamed] == ["a_color.png"]


def test_further_files_of_an_image_beside_it_are_nobodys_but_images_without_masks_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "a (1).png", "a (1)_mask.png", "a (1)_mask_1.png", "a (2).png", "a (2)_mask.png", "a (3).png")
    pairs = find_pairs(tmp_path, tmp_path, Pairing(mask_suffix="_mask"))
    assert [r.stem for r in pairs.records] == ["a (1)", "a (2)"]
    assert [path.name for path in pairs.unnamed] == ["a (1)_mask_1.png"]
    assert [path.name for path in pairs.images_without_mask] == ["a (3).png"]
    touch(tmp_path, "a (1)_b.png")
    pairs = find_pairs(tmp_path, tmp_path, Pairing(mask_suffix="_mask"))
    assert [path.name for path in pairs.images_without_mask] == ["a (1)_b.png", "a (3).png"]


def test_the_second_of_two_observers_is_passed_over(tmp_path: Path) -> None:
    for eye in ("01L", "01R", "02L"):
        touch(tmp_path, f"I_{eye}.jpg", f"I_{eye}_1stHO.png", f"I_{eye}_2ndHO.png")
    pairs = find_pairs(tmp_path, tmp_path, Pairing(mask_suffix="_1stHO"))
    assert (len(pairs.records), pairs.unnamed, pairs.kinds) == (3, (), ("_2ndHO",))
    assert not pairs.images_without_mask


def test_a_split_may_name_its_files_in_its_own_way(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"{s}/{k}/{i}_{n}.png" for s in ("train", "test") for k, n in (("i", s), ("m", "gt")) for i in range(3)),
    )
    settings = config(
        tmp_path,
        train=Folders("train/i", "train/m"),
        test=Folders("test/i", "test/m", pairing=Pairing(image_suffix="_test", mask_suffix="_gt")),
        pairing=Pairing(image_suffix="_train", mask_suffix="_gt"),
    )
    parts = split_records(settings, tmp_path)
    assert {name: len(part) for name, part in parts.items()} == {"train": 2, "val": 1, "test": 3}


# --- splits


def stems(records: list[Record]) -> set[str]:
    return {record.stem for record in records}


def make_records(names: list[str]) -> list[Record]:
    return [Record(Path(f"/i/{name}.png"), Path(f"/m/{name}.png"), name) for name in names]


def test_six_of_thirty_pairs_are_held_out_by_a_fifth(tmp_path: Path) -> None:
    parts = split_records(config(numbered(tmp_path, 30)), tmp_path)
    assert list(parts) == ["train", "val"]
    assert {name: len(part) for name, part in parts.items()} == {"train": 24, "val": 6}
    expected = np.random.default_rng(0).permutation(30)[:6]
    assert stems(parts["val"]) == {f"{i:03}" for i in expected}


def test_given_folders_are_the_splits(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        numbered(tmp_path / split, count)
    places = {split: Folders(f"{split}/images", f"{split}/masks") for split in ("train", "val", "test")}
    parts = split_records(config(tmp_path, **places), tmp_path)
    assert {name: len(part) for name, part in parts.items()} == {"train": 5, "val": 2, "test": 3}
    assert [r.stem for r in parts["train"]] == ["000", "001", "002", "003", "004"]


def test_the_root_is_relative_to_the_config(tmp_path: Path) -> None:
    numbered(tmp_path / "data", 4)
    (tmp_path / "configs").mkdir()
    settings = Config(data=Data(root="../data", train=Folders("images", "masks")))
    assert len(split_records(settings, tmp_path / "configs")["train"]) == 3


@settings(deadline=None)
@given(
    count=st.integers(3, 60),
    val=st.floats(0.01, 0.9),
    test=st.floats(0.01, 0.9),
    seed=st.integers(0, 99),
)
def test_held_out_shares_are_a_partition_that_leaves_something_to_train(
    count: int, val: float, test: float, seed: int
) -> None:
    records = make_records([f"{i}" for i in range(count)])
    parts = hold_out(records, {"val": val, "test": test}, Split(seed=seed))
    assert sorted(r.stem for part in parts.values() for r in part) == sorted(r.stem for r in records)
    assert all(parts.values())
    assert parts == hold_out(records[::-1], {"val": val, "test": test}, Split(seed=seed))


def test_a_share_for_the_test_leaves_the_validation_share_as_it_was() -> None:
    records = make_records([f"{i}" for i in range(20)])
    alone = hold_out(records, {"val": 0.25}, Split())
    both = hold_out(records, {"val": 0.25, "test": 0.25}, Split())
    assert alone["val"] == both["val"]
    assert len(both["test"]) == 5


@pytest.mark.parametrize(("count", "share", "size"), [(7, 0.25, 2), (30, 0.05, 2), (25, 0.1, 2), (30, 0.01, 1)])
def test_a_share_is_rounded_to_the_next_number_of_pairs_and_at_least_one(count: int, share: float, size: int) -> None:
    assert len(hold_out(make_records([f"{i}" for i in range(count)]), {"val": share}, Split())["val"]) == size


def test_another_seed_holds_out_others() -> None:
    records = make_records([f"{i}" for i in range(40)])
    assert hold_out(records, {"val": 0.5}, Split(seed=0)) != hold_out(records, {"val": 0.5}, Split(seed=1))


def test_a_group_is_on_one_side() -> None:
    records = make_records([f"video{v}_{i}" for v in range(6) for i in range(5)])
    parts = hold_out(records, {"val": 0.2}, Split(group=r"(video\d+)_"))
    sides = [{stem.split("_")[0] for stem in stems(part)} for part in parts.values()]
    assert not sides[0] & sides[1]
    assert len(parts["val"]) == 10  # 6 wanted: two groups of five


def test_stems_that_the_group_does_not_match_are_an_error() -> None:
    with pytest.raises(DataError, match=r"data.split.group.*1 of 3 stems: c"):
        hold_out(make_records(["a1", "b1", "c"]), {"val": 0.2}, Split(group=r"\w(\d)"))


def test_too_few_pairs_to_hold_out_are_an_error_with_the_remedy() -> None:
    with pytest.raises(DataError, match=r"data.split.val: 0"):
        hold_out(make_records(["a"]), {"val": 0.2}, Split())


# --- layouts


def lay_out(root: Path, places: dict[tuple[str, str], tuple[str, str]], count: int = 4) -> None:
    for (images, masks), (image, mask) in places.items():
        touch(root / images, *(image.format(i) for i in range(count)))
        touch(root / masks, *(mask.format(i) for i in range(count)))


PLAIN = ("{}.jpg", "{}.png")


def layout_of(root: Path, *, without: Collection[str] = ()) -> Layout:
    layout = find_layout(root, without=without)
    assert layout is not None
    return layout


def splits_of(layout: Layout) -> dict[str, tuple[str | None, str | None]]:
    return {split: (part.images, part.masks) for split, part in layout.splits.items()}


@pytest.mark.parametrize(
    ("places", "train", "val"),
    [
        (("fatigue tests", "static tests", "creep"), ".", None),
        (("test site", "harbour"), ".", None),
        (("dev board", "main board"), ".", None),
        (("train set", "dev set"), "train set/images", "dev set/images"),
        (("DIS-TR", "DIS-VD"), "DIS-TR/images", "DIS-VD/images"),
    ],
)
def test_a_word_for_a_split_in_the_name_of_a_thing_tells_none(
    tmp_path: Path, places: tuple[str, ...], train: str, val: str | None
) -> None:
    lay_out(tmp_path, {(f"{place}/images", f"{place}/masks"): PLAIN for place in places})
    layout = layout_of(tmp_path)
    assert {split: images for split, (images, _) in splits_of(layout).items()} == {"train": train} | (
        {"val": val} if val else {}
    )


@pytest.mark.parametrize("number", [3, 9])
def test_folders_named_for_predictions_are_set_aside_unless_they_are_most_of_what_there_is(
    tmp_path: Path, number: int
) -> None:
    lay_out(tmp_path, {("new/images", "new/masks"): ("n{}.jpg", "n{}.png")}, 6)
    lay_out(tmp_path, {("crack prediction/images", "crack prediction/masks"): PLAIN}, number)
    layout = layout_of(tmp_path)
    images, masks = splits_of(layout)["train"]
    assert len(find_pairs(tmp_path / images, tmp_path / masks, layout.pairing).records) == (15 if number == 9 else 6)


@pytest.mark.parametrize(
    "split_folders",
    [
        {"train": ("images", "masks")},
        {"train": ("img", "labels")},
        {"train": ("Imgs", "Annotations")},
        {"train": ("JPEGImages", "SegmentationClass")},
        {"train": ("x", "y")},
        {"train": ("pictures", "ground_truth")},
        {"train": ("photos", "GT")},
        {"train": ("inputs", "targets")},
        {"train": ("data/images", "data/masks")},
        {"train": ("my-set/images", "my-set/masks")},
        {"train": (".", "masks")},
        {"train": ("scans2019", "masks")},
        {"train": ("data", "masks")},
        {"train": ("512x512/images", "512x512/masks")},
        {"train": ("tiles/train/rgb", "tiles/train/gt"), "val": ("tiles/val/rgb", "tiles/val/gt")},
        {"train": ("images", "tissue")},
        {"train": ("train_images", "train_masks"), "val": ("val_images", "val_masks")},
        {"train": ("imagesTr", "labelsTr"), "test": ("imagesTs", "labelsTs")},
        {"train": ("images_train", "masks_train"), "val": ("images_valid", "masks_valid")},
        {"train": ("train", "trainannot"), "val": ("val", "valannot"), "test": ("test", "testannot")},
        {"train": ("train", "train_labels"), "val": ("val", "val_labels"), "test": ("test", "test_labels")},
        {"train": ("images/training", "annotations/training"), "val": ("images/validation", "annotations/validation")},
        {"train": ("train2017/img", "train2017/gt"), "val": ("val2017/img", "val2017/gt")},
        {"train": ("set/Train/Images", "set/Train/Labels"), "test": ("set/Testing/Images", "set/Testing/Labels")},
        {"train": ("training/images", "training/masks"), "val": ("dev/images", "dev/masks")},
        {"train": ("x_train", "y_train"), "val": ("x_val", "y_val")},
        {"train": ("train_img", "train_lab"), "test": ("test_img", "test_lab")},
        {
            "train": ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
            "val": ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
        },
        {
            "train": ("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask"),
            "test": ("DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask"),
        },
        {
            "train": ("images/10k/train", "labels/sem_seg/masks/train"),
            "val": ("images/10k/val", "labels/sem_seg/masks/val"),
        },
        {"train": ("701_StillsRaw_full", "LabeledApproved_full")},
        {"train": ("2_Ortho_RGB", "5_Labels_all")},
        {"train": ("original_images", "label_images_semantic")},
        {"train": ("frames-with-annotations", "annotations")},
        {"train": ("Original", "Ground Truth")},
    ],
    ids=lambda value: " ".join("+".join(pair) for pair in value.values()),
)
def test_usual_folder_names_are_found(tmp_path: Path, split_folders: dict[str, tuple[str, str]]) -> None:
    lay_out(tmp_path, dict.fromkeys(split_folders.values(), PLAIN))
    layout = layout_of(tmp_path)
    assert splits_of(layout) == split_folders
    assert layout.pairing == NONE


@pytest.mark.parametrize(
    ("image", "mask", "pairing"),
    [
        ("{}.jpg", "{}_mask.png", Pairing(mask_suffix="_mask")),
        ("{}.jpg", "{}_GT.png", Pairing(mask_suffix="_GT")),
        ("{}.jpg", "mask_{}.png", Pairing(mask_prefix="mask_")),
        ("{}.jpg", "{}.jpg.png", Pairing(mask_suffix=".jpg")),
        ("img{}.jpg", "{}.png", Pairing(image_prefix="img")),
        ("{}_sat.jpg", "{}_mask.png", Pairing(image_suffix="_sat", mask_suffix="_mask")),
        ("image_{}.png", "label_{}.png", Pairing(image_prefix="image_", mask_prefix="label_")),
        (
            "s/{}_leftImg8bit.png",
            "s/{}_gt_labelIds.png",
            Pairing(image_suffix="_leftImg8bit", mask_suffix="_gt_labelIds"),
        ),
    ],
)
@pytest.mark.parametrize("folders_", [("images", "masks"), ("train/images", "train/masks"), (".", ".")])
def test_prefixes_and_suffixes_are_guessed_by_what_pairs(
    tmp_path: Path, image: str, mask: str, pairing: Pairing, folders_: tuple[str, str]
) -> None:
    lay_out(tmp_path, {folders_: (image, mask)}, count=12)
    layout = layout_of(tmp_path)
    assert splits_of(layout) == {"train": folders_}
    pairs = find_pairs(tmp_path / folders_[0], tmp_path / folders_[1], layout.pairing)
    expected = {(image.format(i), mask.format(i)) for i in range(12)}
    found = {
        (r.image.relative_to(tmp_path / folders_[0]).as_posix(), r.mask.relative_to(tmp_path / folders_[1]).as_posix())
        for r in pairs.records
        if r.mask
    }
    assert found == expected
    if folders_ != (".", "."):
        assert layout.pairing == pairing


@pytest.mark.parametrize(
    "names", [PLAIN, ("{}.jpg", "{}_mask.png"), ("{}.tif", "{}_mask.tif"), ("p{0}/{0}.tif", "p{0}/{0}_mask.tif")]
)
def test_images_and_masks_side_by_side_are_found_in_splits_too(tmp_path: Path, names: tuple[str, str]) -> None:
    lay_out(tmp_path, {("train", "train"): names, ("test", "test"): names})
    layout = layout_of(tmp_path)
    assert splits_of(layout) == {"train": ("train", "train"), "test": ("test", "test")}
    assert len(find_pairs(tmp_path / "train", tmp_path / "train", layout.pairing).records) == 4


def predict(root: Path, out: Path) -> None:
    """Leaves what `segtool predict ROOT --out OUT --overlay` does: all is an image to it, masks too."""
    for path in [path for path in root.rglob("*.png") if out not in path.parents]:
        stem = path.relative_to(root).with_suffix(".png")
        touch(out, str(stem), f"overlays/{stem}")
        for made in (out / stem, out / "overlays" / stem):
            made.write_bytes(b"PNG, by " + MADE_BY.encode())


@pytest.mark.parametrize(
    ("lies", "names"),
    [
        (("images", "masks"), ("{}.png", "{}.png")),
        (("train/images", "train/masks"), ("{}.png", "{}.png")),
        ((".", "."), ("{}.png", "{}_mask.png")),
        (("images", "annotations"), ("{}.png", "{}_mask.png")),
    ],
)
@pytest.mark.parametrize("out", ["pred", "masks2", "labels", "images/pred"])
def test_what_was_predicted_within_a_data_set_is_no_part_of_it(tmp_path, lies, names, out):
    lay_out(tmp_path, {lies: names}, count=6)
    before = layout_of(tmp_path)
    pairs = find_pairs(tmp_path / lies[0], tmp_path / lies[1], before.pairing)
    predict(tmp_path, tmp_path / out)
    after = layout_of(tmp_path)
    assert (after.splits, after.pairing) == (before.splits, before.pairing)
    assert find_pairs(tmp_path / lies[0], tmp_path / lies[1], before.pairing) == pairs


def test_masks_that_were_predicted_are_labels_where_there_are_no_others_or_they_lie_among_them(tmp_path):
    predict(touch(tmp_path / "images", "0.png", "1.png", "2.png"), tmp_path / "labels")
    layout = layout_of(tmp_path)
    assert splits_of(layout) == {"train": ("images", "labels")}
    assert len(find_pairs(tmp_path / "images", tmp_path / "labels", NONE).records) == 3
    (tmp_path / "labels" / "2.png").write_bytes(b"drawn by a person")
    for name in ("0", "1", "2"):
        touch(tmp_path / "masks_old", f"{name}.png")
    layout = layout_of(tmp_path)
    assert splits_of(layout) == {"train": ("images", "labels")}
    assert len(find_pairs(tmp_path / "images", tmp_path / "labels", NONE).records) == 3


def test_images_that_were_all_predicted_are_images_where_the_config_says_so(tmp_path):
    folders(tmp_path, (), ("0.png", "1.png"))
    predict(touch(tmp_path / "first", "0.png", "1.png"), tmp_path / "images")
    assert [record.stem for record in find_pairs(tmp_path / "images", tmp_path / "masks", NONE).records] == ["0", "1"]


@pytest.mark.parametrize(("days", "kinds"), [(3, 3), (30, 0)])
def test_names_that_come_again_in_several_places_are_kinds_where_they_are_few(
    tmp_path: Path, days: int, kinds: int
) -> None:
    files = touch(tmp_path, *(f"{city}/day{day}/0.png" for city in ("oslo", "rome") for day in range(days)))
    places = Tree(tmp_path, list_files(files, MASK_SUFFIXES)).places
    assert len([place for place in places if place.inner]) == kinds


@pytest.mark.parametrize("mask", ["{}_silhouette", "silhouette_{}"])
def test_few_masks_among_many_images_are_told_by_any_word_for_them(tmp_path: Path, mask: str) -> None:
    touch(tmp_path, *(f"i{i}.png" for i in range(100)), mask.format("i3") + ".png", mask.format("i7") + ".png")
    layout = layout_of(tmp_path)
    assert len(find_pairs(tmp_path, tmp_path, layout.pairing).records) == 2


def test_the_masks_that_pair_are_chosen_and_the_others_named(tmp_path: Path) -> None:
    lay_out(tmp_path, {("images", "masks"): PLAIN})
    touch(tmp_path / "masks_mat", *(f"{i}.mat" for i in range(4)))
    touch(tmp_path / "gt_old", "0.png")
    layout = layout_of(tmp_path)
    assert splits_of(layout) == {"train": ("images", "masks")}
    assert layout.unused == ("gt_old",)  # a folder without pictures is none of masks


@pytest.mark.parametrize(
    ("truth", "others"),
    [
        ("1st_manual", ["mask", "2nd_manual"]),
        ("manual1", ["mask"]),
        ("annotations", ["masks"]),
        ("masks_machine", ["masks_human", "masks_instances"]),
        ("SegmentationClass", ["SegmentationObject", "SegmentationClassVisualization"]),
        ("Category_ids", ["Instance_ids", "Human_ids"]),
        ("label_images_semantic", ["RGB_color_image_masks"]),
        ("labels_all", ["labels_all_noBoundary"]),
        ("masks", ["jpg_masks"]),
    ],
)
def test_of_several_kinds_of_masks_the_truth_is_taken_and_the_others_named(
    tmp_path: Path, truth: str, others: list[str]
) -> None:
    for folder in (truth, *others):
        suffix = "jpg" if "jpg" in folder else "png"
        lay_out(tmp_path, {("images", folder): ("{}.tif", "{}." + suffix)})
    layout = layout_of(tmp_path)
    assert splits_of(layout) == {"train": ("images", truth)}
    assert set(layout.unused) == set(others)
    assert splits_of(layout_of(tmp_path, without=[truth]))["train"][1] in others


def test_what_is_no_truth_in_train_is_none_in_test(tmp_path: Path) -> None:
    lay_out(tmp_path, {("train/images", "train/1st_manual"): ("{}_training.tif", "{}_manual1.gif")})
    touch(tmp_path / "train/mask", *(f"{i}_training_mask.gif" for i in range(4)))
    lay_out(tmp_path, {("test/images", "test/mask"): ("{}_test.tif", "{}_test_mask.gif")})
    layout = layout_of(tmp_path)
    assert splits_of(layout) == {"train": ("train/images", "train/1st_manual")}
    lay_out(tmp_path, {("test/images", "test/1st_manual"): ("{}_test.tif", "{}_manual1.gif")})
    layout = layout_of(tmp_path)
    assert splits_of(layout)["test"] == ("test/images", "test/1st_manual")
    pairings = [part.pairing or layout.pairing for part in layout.splits.values()]
    assert pairings == [Pairing(image_suffix=suffix, mask_suffix="_manual1") for suffix in ("_training", "_test")]


@pytest.mark.parametrize(
    ("files", "place", "inner"),
    [
        ("{split}/seq{i}/Images/{j}.png {split}/seq{i}/Labels/{j}.png", "{split}", ("Images", "Labels")),
        ("{split}/p{i}/img_png/{j}.png {split}/p{i}/masks_png/{j}.png", "{split}", ("img_png", "masks_png")),
    ],
)
def test_images_and_masks_below_many_folders_are_one_set(
    tmp_path: Path, files: str, place: str, inner: tuple[str, str]
) -> None:
    for split, i, j in product(("train", "val"), range(3), range(4)):
        touch(tmp_path, *files.format(split=split, i=i, j=j).split())
    layout = layout_of(tmp_path)
    assert splits_of(layout) == {split: (place.format(split=split),) * 2 for split in ("train", "val")}
    assert layout.pairing == Pairing(image_folder=inner[0], mask_folder=inner[1])
    for images, masks in splits_of(layout).values():
        assert len(find_pairs(tmp_path / images, tmp_path / masks, layout.pairing).records) == 12


def test_a_copy_of_the_files_in_another_folder_is_left_out(tmp_path: Path) -> None:
    for folder in ("kaggle", "set/kaggle"):
        for i in range(4):
            for name in (f"{i}.tif", f"{i}_mask.tif"):
                touch(tmp_path, f"{folder}/{name}").joinpath(f"{folder}/{name}").write_text(name)
    layout = layout_of(tmp_path)
    assert splits_of(layout) == {"train": ("kaggle", "kaggle")}
    assert any(note.startswith("set/kaggle: a copy") for note in layout.notes)


def test_masks_of_the_parts_in_deeper_folders_are_passed_over(tmp_path: Path) -> None:
    images, masks = folders(tmp_path, ("a.jpg", "s/b.jpg"), ("a.bmp", "RO/a.bmp", "s/b.bmp", "s/a.bmp"))
    pairs = find_pairs(images, masks, NONE)
    assert [r.stem for r in pairs.records] == ["a", "s/b"]
    assert [p.relative_to(masks).as_posix() for p in pairs.unnamed] == ["RO/a.bmp"]
    assert [p.relative_to(masks).as_posix() for p in pairs.masks_without_image] == ["s/a.bmp"]


def test_files_that_are_passed_over_keep_their_order(tmp_path: Path) -> None:
    names = [f"{letter}.png" for letter in "abcdefgh"]
    images, masks = folders(tmp_path, names, (*names, *(f"RO/{name}" for name in names)))
    assert [path.name for path in find_pairs(images, masks, NONE).unnamed] == names


@pytest.mark.parametrize(
    "names", [(), ("a.txt",), ("images/a.jpg",), ("images/a.jpg", "masks/b.png"), ("a.jpg", "b.jpg")]
)
def test_nothing_that_pairs_is_no_layout(tmp_path: Path, names: tuple[str, ...]) -> None:
    touch(tmp_path, *names)
    assert find_layout(tmp_path) is None


def test_guessing_takes_nothing_off_where_that_pairs_as_many() -> None:
    names = [f"2011_{i:04}" for i in range(30)]
    assert guess_pairing(names, names[:20]) == (NONE, 20)


def test_of_equally_good_guesses_every_process_makes_the_same():
    images = [f"{index:02d}" for index in range(40)]
    prefixes = [one + other for one in "abcdefgh" for other in "klmno"]
    masks = [prefix + stem for prefix, stem in zip(prefixes, images, strict=True)]
    assert guess_pairing(images, masks) == (Pairing(mask_prefix="ak"), 1)


@pytest.mark.parametrize("name", ["camvid", "crackforest", "em_membrane", "samples/suim", "samples/voc_palette"])
def test_real_data_sets_are_laid_out_and_pair_completely(name: str) -> None:
    root = SHARED / name
    if not root.is_dir():
        pytest.skip(f"{root} is not here")
    layout = layout_of(root)
    for images, masks in splits_of(layout).values():
        pairs = find_pairs(root / images, root / masks, layout.pairing)
        assert pairs.records
        assert (pairs.images_without_mask, pairs.masks_without_image, pairs.ambiguous) == ((), (), ())


def test_words_in_the_midst_of_paths_tell_images_from_masks_and_other_files(tmp_path: Path) -> None:
    names = ("7/camera/7_camera_001", "7/label/7_label_001", "7/lidar/7_lidar_001", "8/camera/8_camera_001")
    touch(tmp_path, *(f"{name}.png" for name in names))
    pairs = find_pairs(tmp_path, tmp_path, Pairing(image_words="camera", mask_words="label"))
    assert [(record.image, record.mask) for record in pairs.records] == [
        (tmp_path / "7/camera/7_camera_001.png", tmp_path / "7/label/7_label_001.png")
    ]
    assert pairs.images_without_mask == (tmp_path / "8/camera/8_camera_001.png",)
    assert pairs.masks_without_image == ()


# --- what is left out


def all_stems(config: Config) -> list[str]:
    """The names of all pairs, of whatever split."""
    return sorted(record.stem for records in split_records(config, Path("/")).values() for record in records)


@pytest.mark.parametrize("name", ["images/001.jpg", "masks/001.png", "./images/../images/001.jpg"])
def test_a_pair_is_left_out_by_the_name_of_either_file(tmp_path: Path, name: str) -> None:
    assert all_stems(config(numbered(tmp_path, 4), exclude=(name,))) == ["000", "002", "003"]


def test_files_without_a_partner_are_left_out_too(tmp_path: Path) -> None:
    touch(numbered(tmp_path, 4), "images/alone.jpg", "masks/alone_too.png")
    whole = config(tmp_path, exclude=("images/alone.jpg", "masks/alone_too.png"))
    assert all_stems(whole) == ["000", "001", "002", "003"]
    with pytest.raises(DataError, match="alone_too"):
        split_records(config(tmp_path, exclude=("images/alone.jpg",)), tmp_path)


def test_a_line_of_a_list_is_left_out(tmp_path: Path) -> None:
    numbered(tmp_path, 3)
    (tmp_path / "pairs.csv").write_text("".join(f"images/{i:03}.jpg,masks/{i:03}.png\n" for i in range(3)))
    listed = config(tmp_path, format="list", train=Folders(list="pairs.csv"), exclude=("masks/002.png",))
    assert all_stems(listed) == ["images/000", "images/001"]


def test_a_name_to_leave_out_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.exclude: no file images/O01\.jpg"):
        split_records(config(numbered(tmp_path, 3), exclude=("images/O01.jpg",)), tmp_path)
