"""What `init` finds in a folder beyond two folders of one name: lists, names of classes, and what is no data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import check
from PIL import Image
from scenes import street
from test_scaffold import init, make_set, regions, write_image, write_mask

from segtool.config import Folders, Pairing
from segtool.data.folders import Tree
from segtool.data.formats import split_records
from segtool.data.wording import further_kinds
from segtool.errors import DataError
from segtool.init import split_lists
from segtool.init.discovery import discover
from segtool.init.names import find_names
from segtool.init.scaffold import scaffold


def numbers(config: object, root: Path) -> dict[str, int]:
    return {name: len(part) for name, part in split_records(config, root.parent).items()}  # type: ignore[arg-type]


def simple_set(root: Path, num: int = 12) -> Path:
    return make_set(root, [regions(i, [0, 1]) for i in range(num)])


# --- lists


@pytest.mark.parametrize(
    "line", ["p{}", "p{}.png", "images/p{}.png", "/home/me/set/images/p{}.png masks/p{}.png", "p{} 1 2"]
)
@pytest.mark.parametrize("folder", ["", "ImageSets/Segmentation/", "splits/"])
def test_lists_beside_or_below_divide_the_folders(tmp_path: Path, folder: str, line: str) -> None:
    root = simple_set(tmp_path / "set")
    (root / folder).mkdir(parents=True, exist_ok=True)
    for split, places in (("train", range(7)), ("val", range(7, 10)), ("trainval", range(10)), ("test", (10, 11))):
        (root / f"{folder}{split}.txt").write_text("".join(f"{line.replace('{}', str(i))}\n" for i in places))
    config = init(root)
    assert config.data.train.list == f"{folder}train.txt"
    assert numbers(config, root) == {"train": 7, "val": 3, "test": 2}


def test_pairs_that_no_list_names_are_told_of(tmp_path: Path) -> None:
    root = simple_set(tmp_path / "set")
    (root / "train.txt").write_text("".join(f"p{i}\n" for i in range(7)))
    (root / "val.txt").write_text("p7\np8\n")
    assert discover(root).notes == ("3 pairs that the lists do not name, such as p10, are not used",)
    (root / "val.txt").write_text("".join(f"p{i}\n" for i in range(7, 12)))
    assert discover(root).notes == ()


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("one_file", [False, True])
def test_lists_in_json_divide_the_folders_and_name_no_classes(tmp_path: Path, pairs: bool, one_file: bool) -> None:
    root = simple_set(tmp_path / "set")
    parts = {"train": range(7), "val": range(7, 10), "test": (10, 11)}
    entries = {
        split: [{"image": f"images/p{i}.png", "mask": f"masks/p{i}.png"} if pairs else f"p{i}" for i in places]
        for split, places in parts.items()
    }
    for name, content in {"split": entries}.items() if one_file else entries.items():
        (root / f"{name}.json").write_text(json.dumps(content))
    config = init(root)
    told = (config.data.train.list, config.data.train.part)
    assert told == (("split.json", "train") if one_file else ("train.json", None))
    assert numbers(config, root) == {"train": 7, "val": 3, "test": 2}
    assert [spec.name for spec in config.data.classes] == ["background", "object"]


@pytest.mark.parametrize(
    ("name", "text", "train", "val"),
    [
        ("split.yaml", "train: [p0, p1, p2, p3]\nval: [p4, p5]\n", ("split.yaml", "train"), ("split.yaml", "val")),
        ("data.yaml", "path: /far/set\ntrain: [images/a, images/b]\nval: images/c\nnames: {0: soil, 1: leaf}\n",
         ("data.yaml", "train"), ("data.yaml", "val")),
        ("data.yaml", "train: [images/a, images/b]\nval: images/c\ntest: images/c\n",  # no test of its own
         ("data.yaml", "train"), ("data.yaml", "val")),
        ("data.yml", "train: ../set/images/c\nval: ../set/images/c\nnc: 2\nnames: [soil, leaf]\n", None, None),
        ("data.yaml", "train: lists/one.txt\nvalid: ./lists/two.txt\n", ("lists/one.txt", None),
         ("lists/two.txt", None)),
        ("split.json", json.dumps({f"p{i}": "val" if i > 3 else "train" for i in range(6)}), ("split.json", "train"),
         ("split.json", "val")),
        ("splits.json", json.dumps([{"train": ["p0", "p1", "p2", "p3"], "val": ["p4", "p5"]}]),
         ("splits.json", "train"), ("splits.json", "val")),
        ("dataset.json", json.dumps([{"img": f"p{i}.png", "n": 0.5, "split": "val" if i > 3 else "train"}
                                     for i in range(6)]), ("dataset.json", "train"), ("dataset.json", "val")),
        ("dataset.json", json.dumps({"images": [{"file_name": f"p{i}.png", "split": "val" if i > 3 else "train"}
                                                for i in range(6)]}),
         ("dataset.json", "train"), ("dataset.json", "val")),
        ("meta.csv", "name,is_valid\n" + "".join(f"p{i}.png,{i > 3}\n" for i in range(6)), ("meta.csv", "False"),
         ("meta.csv", "True")),
        ("meta.csv", "name,is_valid\n" + "".join(f"p{i}.png,{i > 1}\n" for i in range(6)), None, None),
        ("folds.csv", "file,fold\n" + "".join(f"p{i},{(i + 2) % 3}\n" for i in range(6)), (None, None),
         ("folds.csv", "0")),
        ("meta.csv", "file,fold,split\n" + "".join(f"p{i},{i % 3},{'val' if i > 3 else 'train'}\n" for i in range(6)),
         ("meta.csv", "train"), ("meta.csv", "val")),
    ],
)  # fmt: skip
def test_splits_in_yaml_json_and_tables_divide_the_folders(
    tmp_path: Path, name: str, text: str, train: tuple[str | None, str | None] | None, val: tuple[str, str | None]
) -> None:
    root = tmp_path / "set"
    for i in range(6):
        for kind in ("images", "masks"):
            (root / kind / "aabbcc"[i]).mkdir(parents=True, exist_ok=True)
        write_image(root / "images" / "aabbcc"[i] / f"p{i}.png", i)
        write_mask(root / "masks" / "aabbcc"[i] / f"p{i}.png", regions(i, [0, 1]))
    (root / "lists").mkdir()
    for part, places in (("one", range(4)), ("two", (4, 5))):
        (root / f"lists/{part}.txt").write_text("".join(f"p{i}\n" for i in places))
    (root / name).write_text(text)
    config = init(root)
    told = None if config.data.val is None else (config.data.val.list, config.data.val.part)
    assert told == val
    assert config.data.test is None
    if told:
        assert (config.data.train.list, config.data.train.part) == train
        stems = [record.stem for record in split_records(config, root.parent)["val"]]
        assert stems == (["a/p1", "c/p4"] if name == "folds.csv" else ["c/p4", "c/p5"])
    if "names" in text:
        assert [spec.name for spec in config.data.classes] == ["soil", "leaf"]


@pytest.mark.parametrize(
    ("name", "text", "train", "held_out"),
    [
        ("valid.txt", "p3.png\np5.png\n", None, {"val": ("valid.txt", None, 2)}),
        (
            "metadata.csv",
            "image_id,split,age\n"
            + "".join(f"p{i},{'train' if i < 8 else 'valid' if i < 10 else 'test'},{i}\n" for i in range(12)),
            "metadata.csv",
            {"val": ("metadata.csv", "valid", 2), "test": ("metadata.csv", "test", 2)},
        ),
        (
            "info.csv",
            "fname,is_test\n" + "".join(f"p{i}.png,{int(i > 8)}\n" for i in range(12)),
            "info.csv",
            {"test": ("info.csv", "1", 3)},
        ),
    ],
)
def test_what_one_list_holds_out_is_held_out_and_the_rest_trained_on(
    tmp_path: Path, name: str, text: str, train: str | None, held_out: dict[str, tuple[str, str | None, int]]
) -> None:
    root = simple_set(tmp_path / "set")
    (root / name).write_text(text)
    config = init(root)
    assert config.data.train.list == train
    found = numbers(config, root)
    assert sum(found.values()) == 12
    for split, (file, part, num) in held_out.items():
        folders = config.data.parts[split]
        assert (folders.list, folders.part, found[split]) == (file, part, num)


def test_names_of_images_that_hold_words_of_splits_are_no_column_of_splits(tmp_path: Path) -> None:
    root = simple_set(tmp_path / "set")
    for kind in ("images", "masks"):
        for i in range(12):
            (root / kind / f"p{i}.png").rename(root / kind / f"{i}_{'train' if i < 8 else 'test'}_.png")
    for split, places in (("train", range(8)), ("test", range(8, 12))):
        rows = "".join(f"{i}_{split}_.png,{7 * i}\n" for i in places)
        (root / f"stage_1_{split}_images.csv").write_text(f"new_filename,id\n{rows}")
    config = init(root)
    assert config.data.test is not None
    assert (config.data.test.list, config.data.test.part) == ("stage_1_test_images.csv", None)
    assert len(split_records(config, root.parent)["test"]) == 4


def test_cocos_lists_of_images_divide_the_folders(tmp_path: Path) -> None:
    root = simple_set(tmp_path / "set")
    for split, places in (("train", range(9)), ("val", range(9, 12))):
        images = [{"id": i, "file_name": f"p{i}.png", "width": 8} for i in places]
        coco = {"info": {"year": 2020}, "images": images, "categories": [{"id": 1, "name": "leaf"}]}
        (root / f"instances_{split}.json").write_text(json.dumps(coco))
    config = init(root)
    assert numbers(config, root) == {"train": 9, "val": 3}
    assert [spec.name for spec in config.data.classes] == ["background", "leaf"]


def test_a_table_of_images_that_lost_their_zeros_is_not_mistaken_for_one_of_its_row_numbers(tmp_path: Path) -> None:
    root = simple_set(tmp_path / "set")
    for kind in ("images", "masks"):
        for i in range(12):
            (root / kind / f"p{i}.png").rename(root / kind / f"{i:04d}.png")
    rows = [f"{i},{'val' if i in (3, 10) else 'train'}\n" for i in range(12)]
    (root / "split.csv").write_text("id,split\n" + "".join(rows))
    config = init(root)
    assert [record.stem for record in split_records(config, root.parent)["val"]] == ["0003", "0010"]
    rows = [f"{11 - i},{i:04d}.png,{'val' if i in (3, 10) else 'train'}\n" for i in range(12)]
    (root / "split.csv").write_text("id,file,split\n" + "".join(rows))
    assert [record.stem for record in split_records(config, root.parent)["val"]] == ["0003", "0010"]


def test_lists_of_powershell_are_read(tmp_path: Path) -> None:
    root = simple_set(tmp_path / "set")
    for split, places in (("train", range(9)), ("val", range(9, 12))):
        (root / f"{split}.txt").write_bytes("".join(f"p{i}.png\r\n" for i in places).encode("utf-16"))
    (root / "classes.txt").write_bytes("soil\r\nleaf\r\n".encode("utf-16"))
    config = init(root)
    assert numbers(config, root) == {"train": 9, "val": 3}
    assert [spec.name for spec in config.data.classes] == ["soil", "leaf"]


def test_images_without_masks_that_no_list_names_do_not_stop_a_training(tmp_path: Path) -> None:
    root = simple_set(tmp_path / "set")
    for i in range(20):
        write_image(root / f"images/q{i}.png", 50 + i)
    (root / "train.txt").write_text("".join(f"p{i}\n" for i in range(9)))
    (root / "val.txt").write_text("".join(f"p{i}\n" for i in range(9, 12)))
    config = init(root)
    assert numbers(config, root) == {"train": 9, "val": 3}
    assert [f for f in check(config, tmp_path) if f.severity == "error"] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.txt", "other_1\nother_2\n"),
        ("cat_train.txt", "p0 -1\nq1 1\nq2 -1\nq3 1\n"),
        ("train.txt", "".join(f"p{i}\n" for i in range(12))),
        ("test.txt", ""),
        ("README.txt", "p1\n"),
    ],
)
def test_lists_of_something_else_divide_nothing(tmp_path: Path, name: str, text: str) -> None:
    root = simple_set(tmp_path / "set")
    (root / name).write_text(text)
    config = init(root)
    assert (config.data.train.list, config.data.val) == (None, None)


def test_folders_of_splits_win_over_lists(tmp_path: Path) -> None:
    for split, num in (("train", 6), ("val", 3)):
        make_set(tmp_path / "set" / split, [regions(i, [0, 1]) for i in range(num)])
        (tmp_path / f"set/{split}.txt").write_text("".join(f"/far/{split}/images/p{i}.png\n" for i in range(num)))
    config = init(tmp_path / "set")
    assert config.data.train.list is None
    assert numbers(config, tmp_path / "set") == {"train": 6, "val": 3}


def test_folders_of_masks_that_words_leave_out_are_named(tmp_path: Path) -> None:
    for place, part, num in ((place, part, num) for place in "ab" for part, num in (("train", 6), ("test", 3))):
        base = tmp_path / "set" / place / part
        for i in range(num):
            write_image(base / f"imgs/{place}{i}.png", ord(place) + 2 * i + num)
            write_mask(base / f"annos/masks/{place}{i}.png", regions(i, [0, 1]))
            write_mask(base / f"annos/int_maps/{place}{i}.png", regions(i, [0, 7]))
    text = " ".join(scaffold(tmp_path / "set", config_dir=tmp_path).replace("#", "").split())
    assert "*/annos/int_maps: looks like masks too, but is not used." in text


@pytest.mark.parametrize("place", ["{fold}/{split}/{kind}", "{fold}/{split}_{kind}"])
def test_of_folds_that_deal_the_same_pictures_anew_one_is_read(tmp_path: Path, place: str) -> None:
    for number, i in ((number, i) for number in range(3) for i in range(9)):
        split = "val" if i % 3 == number else "train"
        for kind, write in (("images", write_image), ("masks", write_mask)):
            folder = tmp_path / place.format(fold=f"fold_{number}", split=split, kind=kind)
            write(folder / f"{i}.png", i if kind == "images" else regions(i, [0, 1]))
    found = discover(tmp_path)
    assert {split: len(pairs.records) for split, pairs in found.pairs.items()} == {"train": 6, "val": 3}
    assert found.notes == (
        "fold_1: a copy of other files here, left out",
        "fold_2: a copy of other files here, left out",
    )


def test_further_kinds_of_pictures_that_words_leave_out_are_named() -> None:
    kinds = ("color_left", "color_right", "heights", "segmentation")
    stems = [f"{kind}/{place}/{i}" for kind in kinds for place in ("here", "there") for i in range(4)]
    pairing = Pairing(image_words="color left", mask_words="segmentation")
    assert further_kinds(stems, pairing) == ["color right", "heights"]


@pytest.mark.parametrize("scenes", [("",), ("a/", "b/", "c/")])
def test_a_word_for_colours_tells_the_pictures_beside_masks_and_other_channels(
    tmp_path: Path, scenes: tuple[str, ...]
) -> None:
    for seed, scene in enumerate(scenes):
        for i in range(6):
            write_mask(tmp_path / f"{scene}labels/{i}.png", regions(6 * seed + i, [0, 1]))
            for shift, kind in enumerate(("color_left", "color_right", "normals")):
                write_image(tmp_path / f"{scene}{kind}/{i}.png", 6 * seed + i + 100 * shift)
    found = discover(tmp_path)
    assert {record.image.parent.name for record in found.pairs["train"].records} == {"color_left"}
    assert len(found.pairs["train"].records) == 6 * len(scenes)
    assert len(scenes) > 1 or found.notes[0].startswith("color_right, normals: files of the images' names, not used")


@pytest.mark.parametrize("others", [[0, 255], [0, 1]], ids=["in other values", "the same again"])
def test_images_whose_masks_lie_with_those_of_others_are_named_wherever_they_lie(
    tmp_path: Path, others: list[int]
) -> None:
    for kind, seed in (("oil", 0), ("stain", 20)):
        for i in range(5):
            write_image(tmp_path / f"{kind}/{kind}_{i}.png", seed + i)
            for masks, values in (("truth_1", [0, 1]), ("truth_2", others)):
                write_mask(tmp_path / f"{masks}/{kind}_{i}.png", regions(seed + i, values))
    notes = discover(tmp_path).notes
    assert any(note.startswith("stain: 5 IMAGES WHOSE MASKS LIE IN truth_1 are left out") for note in notes)


@pytest.mark.parametrize("base", ["", "lists/"])
def test_a_table_of_pairs_is_taken_where_names_do_not_meet(tmp_path: Path, base: str) -> None:
    root = tmp_path / "set"
    rows = ["image,mask"]
    for i in range(8):
        write_image(root / f"{base}photos/{i}.png", i)
        write_mask(root / f"{base}drawn/z{(7 * i + 3) % 8}x.png", regions(i, [0, 1]))
        rows.append(f"photos/{i}.png,drawn/z{(7 * i + 3) % 8}x.png")
    (root / f"{base}pairs.csv").write_text("\n".join(rows))
    config = init(root)
    assert (config.data.format, config.data.train.list) == ("list", f"{base}pairs.csv")
    records = [record for part in split_records(config, tmp_path).values() for record in part]
    assert {(r.image.name, r.mask.name) for r in records if r.mask} == {
        (f"{i}.png", f"z{(7 * i + 3) % 8}x.png") for i in range(8)
    }


def test_a_table_of_bare_names_finds_them_in_the_folders_of_images_and_masks(tmp_path: Path) -> None:
    root = tmp_path / "set"
    rows = ["label,image"]
    for i in range(8):
        write_image(root / f"images/{i}.png", i)
        write_mask(root / f"masks/{(3 * i + 1) % 8}.png", regions(i, [0, 1]))
        rows.append(f"{(3 * i + 1) % 8}.png,{i}.png")
    (root / "pairs.csv").write_text("\n".join(rows))
    config = init(root)
    assert config.data.train == Folders(images="images", masks="masks", list="pairs.csv")
    records = [record for part in split_records(config, tmp_path).values() for record in part]
    assert {(r.image.stem, r.truth.stem) for r in records} == {(str(i), str((3 * i + 1) % 8)) for i in range(8)}


def test_a_table_of_names_that_every_folder_has_is_not_tried_with_each_two_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(20):
        write_image(tmp_path / f"{i}/img/image.png", i)
        write_mask(tmp_path / f"{i}/mask/mask.png", regions(i, [0, 1]))
    (tmp_path / "pairs.csv").write_text("image,mask\nimage.png,mask.png\n")
    read = []
    monkeypatch.setattr(split_lists, "pairs_there", lambda part, root: read.append(part) or ([], []))
    discover(tmp_path)
    assert 0 < len(read) <= split_lists.MAX_FOLDERS**2


def test_a_table_of_two_pictures_a_line_does_not_say_which_masks_are_theirs(tmp_path: Path) -> None:
    root = simple_set(tmp_path / "set")
    names = sorted(path.name for path in (root / "images").iterdir())
    (root / "stereo.csv").write_text("".join(f"{a},{b}\n" for a, b in zip(names, reversed(names), strict=True)))
    config = init(root)
    assert (config.data.format, config.data.train.list) == ("folders", None)


def test_scenes_are_found_whose_pictures_a_word_tells_that_colours_bear_too(tmp_path: Path) -> None:
    for i in range(9):
        write_image(tmp_path / f"set/{i // 3}/cam/left/{i:03}_rgb.png", i)
        write_mask(tmp_path / f"set/{i // 3}/lab/left/{i:03}_label.png", regions(i, [0, 1]))
    config = init(tmp_path / "set")
    assert config.data.pairing == Pairing(image_words="cam rgb", mask_words="lab label")
    assert sum(numbers(config, tmp_path / "set").values()) == 9


@pytest.mark.parametrize(("lone", "severity"), [(2, "error"), (5, "note")])
def test_many_images_without_masks_are_left_out_and_few_are_an_error(tmp_path: Path, lone: int, severity: str) -> None:
    root = simple_set(tmp_path / "set")
    for i in range(lone):
        write_image(root / f"images/q{i}.png", 50 + i)
    config = init(root)
    assert config.data.unpaired == ("skip" if severity == "note" else "error")
    (finding,) = [f for f in check(config, tmp_path) if f.code == "SEG103"]
    assert (finding.severity, finding.count, finding.files[0]) == (severity, lone, "images/q0.png")
    if severity == "note":
        assert sum(numbers(config, root).values()) == 12
    else:
        with pytest.raises(DataError, match="2 of 14 images"):
            numbers(config, root)


def test_names_that_do_not_meet_on_both_sides_stay_an_error(tmp_path: Path) -> None:
    root = simple_set(tmp_path / "set")
    for i in range(5):
        write_image(root / f"images/q{i}.png", 50 + i)
        write_mask(root / f"masks/r{i}.png", regions(i, [0, 1]))
    assert init(root).data.unpaired == "error"


def test_a_path_in_a_table_that_is_there_is_no_other_file_of_its_number(tmp_path: Path) -> None:
    root = tmp_path / "set"
    rows = ["image_id,split,sat_image_path,mask_path"]
    for i in range(6):
        write_image(root / f"train/{i}_sat.png", i)
        write_mask(root / f"train/{i}_mask.png", regions(i, [0, 1]))
        write_image(root / f"valid/{i}_sat.png", 20 + i)
        rows += [f"{i},train,train/{i}_sat.png,train/{i}_mask.png", f"{i},valid,valid/{i}_sat.png,"]
    (root / "metadata.csv").write_text("\n".join(rows))
    config = init(root)
    assert config.data.val is None
    assert sum(numbers(config, root).values()) == 6


# --- which masks


def test_other_kinds_of_files_beside_the_masks_are_named_in_a_comment(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(4):
        write_image(root / f"{i}_rgb.png", i)
        write_mask(root / f"{i}_label.png", regions(i, [0, 1]))
        write_mask(root / f"{i}_centers.png", regions(i + 9, [0, 1]))
    text = scaffold(root, config_dir=tmp_path)
    assert "files with _centers in their names stand beside the pairs" in " ".join(text.replace("#", " ").split())
    assert [f.code for f in check(init(root), tmp_path) if f.severity != "note" or f.code == "SEG108"] == ["SEG503"]


def test_what_is_left_out_is_called_what_it_is(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(8):
        write_image(root / f"train/images/train{i}.png", i)
        write_mask(root / f"train/masks/train{i}.png", regions(i, [0, 1]))
        write_image(root / f"test/images/test{i}.png", i + 20)
        write_image(root / f"other/images/train{i}.png", i + 80)
        write_mask(root / f"other/masks/train{i}.png", regions(i + 2, [0, 1]))
    assert sorted(discover(root).notes) == [
        "other/images: 8 images with masks in other/masks, left out: another set",
        "other/masks: looks like masks too, but is not used",
        "test/images: 8 images without masks, left out",
    ]


def test_folders_beside_each_other_that_no_split_uses_are_told_as_one(tmp_path: Path) -> None:
    for case, i in ((case, i) for case in range(3) for i in range(4)):
        write_image(tmp_path / f"set/TrainData/Frame/case{case}/c{case}_{i}.png", 4 * case + i)
        write_mask(tmp_path / f"set/TrainData/GT/case{case}/c{case}_{i}.png", regions(4 * case + i, [0, 1]))
        write_image(tmp_path / f"set/TrainData/Edge/case{case}/c{case}_{i}.png", 50 + 4 * case + i)
    (note,) = discover(tmp_path / "set").notes
    assert note.startswith("TrainData/Edge: files of the images' names, not used.")


def test_a_name_that_ends_with_that_of_its_folder_meets_one_that_does_not(tmp_path: Path) -> None:
    for i in range(1, 9):
        write_image(tmp_path / f"set/{i}/scan_{i}.png", i)
        write_mask(tmp_path / f"set/{i}/label.png", regions(i, [0, 1]))
    assert sum(numbers(init(tmp_path / "set"), tmp_path / "set").values()) == 8


@pytest.mark.parametrize("column", ["split", "fold_type"])
def test_a_table_of_pairs_from_another_computer_divides_them_by_any_column_of_splits(
    tmp_path: Path, column: str
) -> None:
    root, rows = tmp_path / "set", [f"image_path,mask_path,{column}"]
    for i in range(12):
        write_image(root / f"data/x/a{i}.png", i)
        write_mask(root / f"data/y/b{3 * i}.png", regions(i, [0, 1]))
        there = "/content/drive/My Drive/data"
        rows.append(f"{there}/x/a{i}.png,{there}/y/b{3 * i}.png,{'train' if i < 9 else 'valid'}")
    (root / "pairs.csv").write_text("".join(f"{row}\n" for row in rows))
    config = init(root)
    assert numbers(config, root) == {"train": 9, "val": 3}
    masks = [record.truth.name for record in split_records(config, root.parent)["val"]]
    assert masks == ["b30.png", "b33.png", "b27.png"]


def test_of_several_images_of_a_mask_one_is_taken_loudly(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(8):
        for light in ("noon", "dusk", "night"):
            write_image(root / f"images/p{i}_{light}.png", i)
        write_mask(root / f"masks/p{i}_mask.png", regions(i, [0, 1]))
    found = discover(root)
    assert found.data.pairing == Pairing(image_suffix="_dusk", mask_suffix="_mask")
    (note,) = found.notes
    assert note.startswith(
        "EACH MASK HAS 3 IMAGES, and those with _dusk alone are used: to train on the others (_night"
    )


@pytest.mark.parametrize("formats", [("png", "tif"), ("png", "bmp"), ("png", "gif"), ("bmp", "tif"), ("png", "jpg")])
def test_masks_of_a_format_that_is_usual_for_images_are_told_by_their_areas(
    tmp_path: Path, formats: tuple[str, str]
) -> None:
    for index in range(3):
        picture, mask = street(np.random.default_rng(index), (64, 96))
        Image.fromarray(picture).save(tmp_path / f"{index}.{formats[0]}")
        Image.fromarray(((mask > 2) * 255).astype(np.uint8)).save(tmp_path / f"{index}.{formats[1]}")
    found = discover(tmp_path)
    assert [record.image.suffix for record in found.pairs["train"].records] == 3 * [f".{formats[0]}"]
    assert len(found.guess.codes) == 2


def test_of_two_observers_in_one_folder_the_first_is_taken_and_the_other_named(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(8):
        write_image(root / f"images/eye{i}.png", i)
        for observer in ("OperatorA", "OperatorB"):
            write_mask(root / f"masks/{observer}_eye{i}.png", regions(i + (observer[-1] == "B"), [0, 1]))
    found = discover(root)
    assert found.data.pairing == Pairing(mask_prefix="OperatorA_")
    assert found.notes == ("files with OperatorB_ in their names stand beside the pairs and are not used",)


def test_folders_of_images_are_no_further_masks_where_words_tell_both(tmp_path: Path) -> None:
    for i in range(8):
        write_image(tmp_path / f"set/data/images/lab/rose/p{i}.png", i)
        write_mask(tmp_path / f"set/data/segmented/lab/rose/p{i}.png", regions(i, [0, 1]))
    assert discover(tmp_path / "set").notes == ()


def test_lists_of_pairs_in_files_of_telling_names_name_no_classes(tmp_path: Path) -> None:
    root = simple_set(tmp_path / "set")
    (root / "file_names").mkdir()
    for split, places in (("train", range(9)), ("val", range(9, 12))):
        lines = "".join(f"images/p{i}.png masks/p{i}.png\n" for i in places)
        (root / f"file_names/{split}_filenames.txt").write_text(lines)
    config = init(root)
    assert numbers(config, root) == {"train": 9, "val": 3}
    assert [spec.name for spec in config.data.classes] == ["background", "object"]


def test_images_of_a_second_folder_whose_masks_are_there_are_told_so(tmp_path: Path) -> None:
    for i in range(8):
        write_image(tmp_path / f"set/images_part_{1 + i // 4}/p{i}.png", i)
        write_image(tmp_path / f"set/others/p{i % 4}.png", i + 20)  # so that names alone do not tell
        write_mask(tmp_path / f"set/masks/p{i}.png", regions(i, [0, 1]))
    notes = " ".join(discover(tmp_path / "set").notes)
    assert "images_part_2: 4 IMAGES WHOSE MASKS LIE IN masks are left out" in notes


def test_what_lies_there_again_and_sets_beside_the_chosen_one_are_called_so(tmp_path: Path) -> None:
    for split, first, last in (("train", 0, 8), ("test", 8, 12)):
        for i in range(first, last):
            for folder in (".", split):
                write_image(tmp_path / f"again/{folder}/images/p{i}.png", i)
                write_mask(tmp_path / f"again/{folder}/masks/p{i}.png", regions(i, [0, 1]))
    assert "images: the same files again, left out" in discover(tmp_path / "again").notes
    for i in range(12):
        number = "" if i < 8 else "2"
        write_image(tmp_path / f"beside/imgs{number}/q{i}.png", i)
        write_mask(tmp_path / f"beside/masks{number}/q{i}.png", regions(i, [0, 1]))
    told = "imgs2: 4 images with masks in masks2, left out: another set"
    assert told in discover(tmp_path / "beside").notes


def test_channels_beside_the_images_are_no_images_without_masks(tmp_path: Path) -> None:
    for i in range(6):
        write_image(tmp_path / f"set/images/p{i}.png", i)
        write_image(tmp_path / f"set/frames_thermal/p{i}_thermal.png", 50 + i)
        write_image(tmp_path / f"set/frames_of_others/q{i}.png", 90 + i)
        write_mask(tmp_path / f"set/masks/p{i}.png", regions(i, [0, 1]))
        for folder, seed in (("images", 20), ("unlabelled/images", 40)):
            write_image(tmp_path / f"numbered/{folder}/{i}.png", seed + i)
        write_mask(tmp_path / f"numbered/masks/{i}.png", regions(i, [0, 1]))
    assert discover(tmp_path / "numbered").notes == ("unlabelled/images: 6 images without masks, left out",)
    notes = " ".join(discover(tmp_path / "set").notes)
    assert "frames_of_others: 6 images without masks, left out" in notes
    assert "frames_thermal: files of the images' names, not used." in notes


def test_masks_of_a_silent_name_beside_the_chosen_ones_are_told(tmp_path: Path) -> None:
    for i in range(6):
        write_image(tmp_path / f"set/images/p{i}.png", i)
        write_mask(tmp_path / f"set/vessel-masks/p{i}.png", regions(i, [0, 1]))
        write_mask(tmp_path / f"set/arteries-and-veins/p{i}.png", regions(i, [0, 1, 2]))
    assert discover(tmp_path / "set").notes == ("arteries-and-veins: looks like masks too, but is not used",)


def test_of_masks_by_several_people_those_of_the_first_are_taken(tmp_path: Path) -> None:
    for part, i in ((part, i) for part in ("Train", "Validation", "Test") for i in range(6)):
        seed = 10 * len(part) + i
        write_image(tmp_path / f"set/{part}/Images/{part}{i}.png", seed)
        for expert in "AB":
            drawn = regions(seed + ord(expert), [0, 1])
            write_mask(tmp_path / f"set/{part}/Annotations/Expert_{expert}/{part}{i}.png", drawn)
    found = discover(tmp_path / "set")
    assert {record.truth.parent.name for part in found.pairs.values() for record in part.records} == {"Expert_A"}
    assert "*/Annotations/Expert_B: look like masks too, but are not used" in found.notes


def test_folders_of_single_masks_are_not_told_as_unused_where_words_tell_masks(tmp_path: Path) -> None:
    for i in range(6):
        write_image(tmp_path / f"set/frames/street{i}.png", i)
        for kind in ("semantic", "semantic_color"):  # each picture has a folder of masks
            write_mask(tmp_path / f"set/frames/street{i}.labels/labels_{kind}.png", regions(i, [0, 1]))
    found = discover(tmp_path / "set")
    assert len(found.pairs["train"].records) == 6
    assert not [note for note in found.notes if "look" in note]


def test_an_end_of_the_images_and_a_beginning_of_the_masks_are_taken_off(tmp_path: Path) -> None:
    for i in range(6):
        write_image(tmp_path / f"set/Raw/stack{i % 2}_z{i}_ch00.png", i)
        write_mask(tmp_path / f"set/GroundTruth/GT_stack{i % 2}_z{i}.png", regions(i, [0, 1]))
    assert init(tmp_path / "set").data.pairing == Pairing(image_suffix="_ch00", mask_prefix="GT_")


def test_kinds_of_pictures_in_the_folders_of_each_patient_are_told(tmp_path: Path) -> None:
    for patient, i in ((patient, i) for patient in range(3) for i in range(4)):
        for seed, kind in enumerate(("FLAIR", "T1", "T2")):
            write_image(tmp_path / f"set/p{patient}/{kind}/{i}.png", 100 * seed + 10 * patient + i)
        write_mask(tmp_path / f"set/p{patient}/mask/{i}.png", regions(10 * patient + i, [0, 1]))
    (note,) = discover(tmp_path / "set").notes
    assert note.startswith("./*/T1, ./*/T2: files of the images' names, not used.")


def test_folders_of_splits_that_cannot_be_followed_are_told(tmp_path: Path) -> None:
    for name, part in ((name, part) for name in ("ebc", "super") for part in ("train", "val", "hard_val")):
        for i in range(4):
            seed = 100 * len(name) + 10 * len(part) + i
            write_image(tmp_path / f"set/{name}/{part}/{seed}.png", seed)
            write_mask(tmp_path / f"set/{name}/{part}_annot/{seed}_mask.png", regions(seed, [0, 1]))
    assert "FOLDERS OF SPLITS, SUCH AS ebc/hard_val, ARE NOT FOLLOWED" in " ".join(discover(tmp_path / "set").notes)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{1}/image.png", "{1}/mask.png"),
        ("{1}/images/{0}.png", "{1}/masks/{0}.png"),
        ("{1}/{0}.png", "{1}/{0}_label.png"),
        ("images/{1}/{0}.png", "masks/{1}/{0}.png"),
    ],
)
@pytest.mark.parametrize("num", [5, 40], ids=["few", "many"])
def test_numbered_folders_of_a_case_each_divide_the_set_by_their_words(
    tmp_path: Path, num: int, image: str, mask: str
) -> None:
    for case in range(num):
        folder = f"{'train' if case % 5 else 'val'}_{case:04}"
        write_image(tmp_path / "set" / image.format(case, folder), case)
        write_mask(tmp_path / "set" / mask.format(case, folder), regions(case, [0, 1]))
    pairs = discover(tmp_path / "set").pairs
    for split, rest in (("train", (1, 2, 3, 4)), ("val", (0,))):
        told = {image.format(case, f"{split}_{case:04}") for case in range(num) if case % 5 in rest}
        assert {record.image.relative_to(tmp_path / "set").as_posix() for record in pairs[split].records} == told


@pytest.mark.parametrize("named", ["train_{}", "mask_{}", "test_img_{}", "set/mask/train_{}"])
def test_many_numbered_folders_are_no_places_each(tmp_path: Path, named: str) -> None:
    def places(num: int) -> int:
        tree = Tree(tmp_path, [tmp_path / named.format(case) / f"{kind}.png" for case in range(num) for kind in "ab"])
        return len(tree.places) + len(tree.unknown())

    assert places(20) >= 20
    assert places(1000) < 10


def test_objects_of_other_patients_are_no_further_kinds_of_masks(tmp_path: Path) -> None:
    for patient in range(49):
        mask = np.zeros((64, 64), np.uint8)
        row, column = divmod(patient, 7)
        mask[9 * row : 9 * row + 5, 9 * column : 9 * column + 5] = 1
        write_image(tmp_path / f"set/patient{patient}/image.png", patient)
        write_mask(tmp_path / f"set/patient{patient}/mask.png", mask)
    assert sum(numbers(init(tmp_path / "set"), tmp_path / "set").values()) == 49


def test_two_sets_with_splits_of_their_own_are_told_to_be_taken_as_one(tmp_path: Path) -> None:
    for index, name in enumerate(("roofs", "fields")):
        for split, num in (("train", 5), ("val", 2)):
            for i in range(num):
                write_image(tmp_path / f"set/{name}/{split}/images/{name}{i}.png", 20 * index + 10 * num + i)
                write_mask(tmp_path / f"set/{name}/{split}/masks/{name}{i}.png", regions(i, [0, 1]))
    found = discover(tmp_path / "set")
    assert {split: len(part.records) for split, part in found.pairs.items()} == {"train": 10, "val": 4}
    assert "fields, roofs are taken as one data set" in " ".join(found.notes)


def test_one_mask_of_many_images_is_read_from_a_list_of_pairs(tmp_path: Path) -> None:
    rows = []
    for camera in (1, 2, 3):
        write_mask(tmp_path / f"set/masks/c{camera}.png", regions(camera, [0, 1]))
        for i in range(4):
            write_image(tmp_path / f"set/images/c{camera}/{i}.png", 10 * camera + i)
            rows.append(f"images/c{camera}/{i}.png,masks/c{camera}.png")
    (tmp_path / "set/pairs.csv").write_text("\n".join(rows))
    config = init(tmp_path / "set")
    assert sum(numbers(config, tmp_path / "set").values()) == 12
    assert [f.code for f in check(config, tmp_path) if f.severity == "error"] == []


def test_a_table_of_pairs_needs_no_telling_name_nor_all_of_its_files(tmp_path: Path) -> None:
    root = tmp_path / "set"
    rows = ["filename,label_file,fold", "raw/99.png,ann/none.png,0"]
    for i in range(11):
        write_image(root / f"raw/{i}.png", i)
        write_mask(root / f"ann/{'abcdefghijk'[i]}.png", regions(i, [0, 1]))
        rows.append(f"raw/{i}.png,ann/{'abcdefghijk'[i]}.png,{i % 2}")
    (root / "files.csv").write_text("\n".join(rows))
    config = init(root)
    assert config.data.train.list == "files.csv"
    (finding,) = [f for f in check(config, tmp_path) if f.severity == "error"]
    assert (finding.code, finding.files[0].endswith("files.csv:2")) == ("SEG107", True)


# --- names that meet in an unusual way


def test_numbers_meet_by_value_where_all_do(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(8, 14):
        write_image(root / f"images/img_{i:03}.png", i)
        write_mask(root / f"masks/{i}.png", regions(i, [0, 1]))
    config = init(root)
    assert (config.data.pairing.image_prefix, config.data.pairing.by_number) == ("img_", True)
    records = [record for part in split_records(config, tmp_path).values() for record in part]
    assert all(int(r.image.stem[4:]) == int(r.mask.stem) for r in records if r.mask)
    assert len(records) == 6


# --- masks that are none


def test_where_one_kind_of_masks_are_pictures_the_next_is_taken(tmp_path: Path) -> None:
    root = simple_set(tmp_path / "set")
    for i in range(12):
        write_image(root / f"labels/p{i}.png", 100 + i)
    assert init(root).data.train.masks == "masks"


def test_a_reading_of_a_few_files_does_not_stand_for_one_whose_masks_are_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(12):
        write_image(tmp_path / f"set/images/p{i}.png", i)
        path = tmp_path / f"set/masks/p{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (48, 64), np.uint8)).save(path)
        if i < 2:
            write_mask(tmp_path / f"set/labels/p{i}.png", regions(i, [0, 1]))
    with pytest.raises(DataError, match="masks"):
        discover(tmp_path / "set")


def test_a_test_split_of_one_value_is_left_out_and_named(tmp_path: Path) -> None:
    for split, values in (("train", [0, 1]), ("val", [0, 1]), ("test", [0])):
        make_set(tmp_path / "set" / split, [regions(i, values) for i in range(4)])
    text = scaffold(tmp_path / "set", config_dir=tmp_path)
    assert "test/masks: one value in all masks" in text
    assert init(tmp_path / "set").data.test is None


def test_a_validation_split_of_one_value_is_kept_and_told(tmp_path: Path) -> None:
    for split, values, size in (("train", [0, 1], (48, 64)), ("val", [0], (40, 56))):
        make_set(tmp_path / "set" / split, [regions(i, values, size) for i in range(6)])
    config = init(tmp_path / "set")
    assert config.data.val is not None
    assert [(f.code, f.severity) for f in check(config, tmp_path) if f.severity != "note"] == [("SEG402", "warning")]


# --- names


NAMES = {
    "legend.txt": "0 sky 1 2 3\n1 road 4 5 6\n2 traffic light 7 8 9\n",
    "a/class_names.txt": "sky\nroad\ntraffic light\n",
    "a/_classes.csv": "Pixel Value, Class\n0, sky\n1, road\n2, traffic light\n",
    "x_class_dict.csv": "name,r,g,b\nsky,0,0,0\nroad,255,0,0\ntraffic light,0,255,0\n",
    "colours.tsv": "id\tname\tred\tgreen\tblue\n0\tsky\t0\t0\t0\n1\troad\t255\t0\t0\n2\ttraffic light\t0\t255\t0\n",
    "any.txt": "0 0 0 sky\n255 0 0 road\n0 255 0 traffic light\n",
    "some.txt": "#000000 sky\n#ff0000 road\n#00ff00 traffic light\n",
    "labels.csv": ",label_list\n0,sky\n1,road\n2,traffic light\n",
    "objectInfo150.txt": "Idx\tRatio\tTrain\tName\n0\t0.1\t5\tsky\n1\t0.2\t7\troad\n2\t0.1\t9\ttraffic light\n",
    "a/b/meta.json": '{"classes": [{"title": "sky", "shape": "polygon", "color": "#000000"}, '
    '{"title": "road", "color": "#FF0000"}, {"title": "traffic light", "color": "#00ff00"}], "tags": []}',
    "a/labels.txt": "sky=0\nroad=1\ntraffic light=2\n",
    "a/colormap.txt": "sky: (0, 0, 0)\nroad: (255, 0, 0)\ntraffic light: (0, 255, 0)\n",
    "a/classes.txt": "0 - sky [0, 0, 0]\n1 - road [255, 0, 0]\n2 - traffic light [0, 255, 0]\n",
    "a/labelmap.txt": "0. sky\n1. road\n2. traffic light\n",
    "classes.txt": '{0: "sky", 1: "road", 2: "traffic light"}',
    "c.json": '{"sky": [0, 0, 0], "road": [255, 0, 0], "traffic light": [0, 255, 0]}',
    "d.json": '[{"name": "sky", "color": [0, 0, 0]}, {"name": "road", "color": "255,0,0"}, '
    '{"name": "traffic light", "color": "#00ff00"}]',
    "e.json": '{"0": "sky", "1": "road", "2": "traffic light"}',
    "f.json": '{"default": {"features": {"label": {"names": ["sky", "road", "traffic light"]}}}}',
    "g.json": '{"sky": {"id": 0, "color": [9, 9, 9]}, "road": {"id": 1}, "traffic light": {"id": 2}}',
    "dataset.json": '{"labels": {"sky": 0, "road": 1, "traffic light": 2}, "numTraining": 8}',
    "data.yaml": "train: ../train\nnc: 3\nnames: [sky, road, traffic light]\n",
    "class_names.txt": "__ignore__\nsky\nroad\ntraffic light",
    "clases.txt": "sky\r\nroad\r\ntraffic light\r\n",
    "codes.txt": "0 sky\n1 road\n2 traffic light\n",
    "labels.json": '{"labels": {"0": "sky", "1": "road", "2": "traffic light"}}',
}


SILENT = ("any.txt", "some.txt", "c.json", "d.json", "e.json", "f.json", "g.json")
"""Names that tell nothing, of which none counts above the data."""


@pytest.mark.parametrize(
    ("where", "file"),
    [(".", file) for file in NAMES] + [("..", file) for file in NAMES if "/" not in file and file not in SILENT],
)
def test_names_come_from_files_of_many_shapes_near_the_data(tmp_path: Path, where: str, file: str) -> None:
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]])
    masks = [regions(i, [0, 1, 2]) for i in range(8)]
    root = make_set(tmp_path / "set", masks, colors=colors, palette=True)
    path = root / where / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(NAMES[file], encoding="utf-8")
    assert [spec.name for spec in init(root).data.classes] == ["sky", "road", "traffic light"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("README.txt", "Sky set\nby me\n2020\n"),
        ("classes.txt", "sky\n"),
        ("meta.csv", "image;split;city\np0;train;x\np1;train;x\np2;train;x\n"),
        ("labels.json", '["p0.png", "p1.png", "p2.png"]'),
        ("train.txt", "p1\np2\np3\n"),
        ("notes.csv", "0,1.5\n1,2.5\n2,3.5\n"),
        ("dataset_info.json", '{"authors": ["Ann", "Bob", "Cid"], "license": "MIT"}'),
        ("annotators.json", '["Ann", "Bob", "Cid", "Dan"]'),
        ("sizes.csv", "p0,64,48,3\np1,64,48,3\np2,64,48,3\n"),
        (  # which count from 1
            "meta.json",
            '{"classes": [{"title": "crop", "color": "#FF0000"}, {"title": "weed", "color": "#00FF00"}, '
            '{"title": "grass", "color": "#0000FF"}]}',
        ),
        ("log.json", '{"epochs": 3, "seed": 0}'),
        ("metadata", "lesion_id,image_id,dx,age\nHAM_0,ISIC_7,bkl,80.0\nHAM_1,ISIC_8,bkl,75.0\n"),
    ],
)
def test_files_about_something_else_name_no_classes(tmp_path: Path, file: str, text: str) -> None:
    root = make_set(tmp_path / "set", [regions(i, [0, 1, 2]) for i in range(8)])
    (root / file).write_text(text)
    assert [spec.name for spec in init(root).data.classes] == ["class_0", "class_1", "class_2"]


@pytest.mark.parametrize(("num_rows", "palette"), [(3, False), (4, False), (3, True)])
def test_the_rows_of_a_table_of_colours_name_values_where_nearly_all_occur(
    tmp_path: Path, num_rows: int, palette: bool
) -> None:
    colors = np.array([[9, 9, 9], [8, 8, 8], [7, 7, 7]])
    masks = [regions(i, [0, 1, 2]) for i in range(8)]
    root = make_set(tmp_path / "set", masks, colors=colors if palette else None, palette=palette)
    rows = ["sky,0,0,0", "road,255,0,0", "tree,0,255,0", "void,0,0,9"][:num_rows]
    (root / "class_dict.csv").write_text("name,r,g,b\n" + "\n".join(rows))
    named = num_rows == 3 and not palette  # a palette has colours of its own, and three of four rows are too few
    expected = ["sky", "road", "tree"] if named else ["class_0", "class_1", "class_2"]
    assert [spec.name for spec in init(root).data.classes] == expected
    assert ("class_dict.csv, whose rows are taken as the values" in scaffold(root, config_dir=tmp_path)) is named


TABLE = "name,r,g,b\nsoil,255,0,0\nleaf,0,0,255\nstem,0,255,0\n"


def test_classes_come_in_the_order_in_which_a_file_names_their_colours(tmp_path: Path) -> None:
    colors = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 0]])
    root = make_set(tmp_path / "set", [regions(i, [0, 1, 2]) for i in range(8)], colors=colors[::-1])
    (root / "classes.csv").write_text(TABLE)
    assert [spec.name for spec in init(root).data.classes] == ["soil", "leaf", "stem"]


def test_a_colour_that_a_table_lacks_costs_the_others_no_name(tmp_path: Path) -> None:
    colors = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 0], [9, 99, 199]])
    root = make_set(tmp_path / "set", [regions(i, [0, 1, 2, 3]) for i in range(8)], colors=colors)
    (root / "classes.csv").write_text(TABLE)
    assert [spec.name for spec in init(root).data.classes] == ["soil", "leaf", "stem", "class_0963c7"]
    assert 'It does not name #0963c7: where that is no class, take its row out and have `ignore: ["#0963c7"]`' in (
        " ".join((tmp_path / "config.yaml").read_text().replace("#  ", "").replace("\n  # ", " ").split())
    )
    (root / "classes.csv").write_text(TABLE.replace("leaf,0,0,255\nstem,0,255,0\n", "leaf,1,1,1\nstem,2,2,2\n"))
    assert not {"soil", "leaf", "stem"} & {spec.name for spec in init(root).data.classes}


def test_colours_come_before_orders(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\n")
    (tmp_path / "z_labels.csv").write_text("a,0,0,0\nb,1,1,1\n")
    assert [bool(names.by_color) for names in find_names(tmp_path)] == [True, False, False]


# --- no data set


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "the folder is empty"),
        ({"a.jpg": b"", "coco.json": b'{"images": [], "annotations": [], "categories": []}'}, "COCO's format"),
        ({"a.jpg": b"", "a.json": b'{"shapes": [], "imagePath": "a.jpg"}'}, "labelme's JSON"),
        ({"images/a.jpg": b"", "labels/a.txt": b"0 0.1 0.2 0.3 0.4 0.5 0.6\n"}, "YOLO's text files"),
        ({"images/a.tif": b"", "annotations/a.xml": b"<a/>"}, "outlines in XML"),
        ({"a.jpg": b"", "b.jpg": b""}, "2 images, and nothing that says mask"),
        ({"images/a.png": b"", "masks/a.mat": b""}, "MATLAB files"),
        ({"imagesTr/a.nii.gz": b"", "labelsTr/a.nii.gz": b""}, "NIfTI volumes"),
        ({"train/a.png": b"", "train.csv": b"id,EncodedPixels\na,1 2 3 4\n"}, "run lengths"),
        ({"a.png": b"", "via.csv": b"filename,region_count,region_shape_attributes\na.png,0,{}\n"}, "VGG annotator"),
        ({"a.png": b"", "export.ndjson": b'{"data_row": {}}\n'}, "lines of JSON"),
        ({"voc-train.tfrecord-00000-of-00004": b"", "labels.pbtxt": b""}, "TFRecord"),
        ({"train/0.tfrec": b""}, "TFRecord"),
        ({"images/0a-7.jpg": b"", "masks/task-7-annotation-9-tag-crop-0.png": b""}, "a mask of Label Studio"),
        (
            {f"{i}/{name}": b"" for i in range(3) for name in (f"images/{i}.png", "masks/x.png", "masks/y.png")},
            "a mask for each class or object",
        ),
    ],
)
def test_what_is_no_set_of_masks_is_called_by_its_name_with_the_remedy(
    tmp_path: Path, files: dict[str, bytes], said: str
) -> None:
    root = tmp_path / "set"
    root.mkdir()
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        discover(root)
    assert len(str(caught.value)) < 900


@pytest.mark.parametrize(("width", "told"), [(64, True), (48, False)])
def test_images_of_two_squares_may_hold_image_and_mask(tmp_path: Path, width: int, told: bool) -> None:
    for i in range(3):
        write_image(tmp_path / f"set/{i}.png", i, (32, width))
    with pytest.raises(DataError, match="3 images, and nothing that says mask") as caught:
        discover(tmp_path / "set")
    assert ("side by side, cut it into images/ and masks/" in str(caught.value)) is told


def test_two_folders_of_the_same_names_are_told_though_an_archive_lies_beside(tmp_path: Path) -> None:
    for i in range(6):
        write_image(tmp_path / f"ultrasound/{i}.png", i)
        write_image(tmp_path / f"lesion/{i}.png", 50 + i)
    (tmp_path / "more.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="lesion and ultrasound hold pictures of the same names, but no name"):
        discover(tmp_path)


def test_a_stack_of_pages_is_told(tmp_path: Path) -> None:
    pages = [Image.new("L", (8, 8), i) for i in range(3)]
    for name in ("volume", "labels"):
        pages[0].save(tmp_path / f"{name}.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="a stack of 3 pages"):
        discover(tmp_path)


def test_words_tell_the_images_among_channels_though_one_of_them_is_missing(tmp_path: Path) -> None:
    for i in range(12):
        for seed, kind in ((0, "rgb"), (50, "dem")):
            write_image(tmp_path / f"{340 + i}_56{i}_{kind}.png", seed + i)
        write_mask(tmp_path / f"{340 + i}_56{i}_seg.png", regions(i, [0, 1]))
    assert discover(tmp_path).data.pairing == Pairing(image_suffix="_rgb", mask_suffix="_seg")
    (tmp_path / "343_563_rgb.png").unlink()
    found = discover(tmp_path)
    assert found.data.pairing == Pairing(image_suffix="_rgb", mask_suffix="_seg")
    assert found.alone == (0, 1)


# --- which words are names of their own


@pytest.mark.parametrize("header", ["", "image\n", "file_name\n", "table"])
def test_names_that_begin_with_a_word_of_headers_are_no_header(tmp_path: Path, header: str) -> None:
    root = tmp_path / "set"
    fruits = ["apple", "banana", "cherry", "date", "elder", "fig", "grape", "hazel", "iris", "juniper"]
    for i, fruit in enumerate(fruits):
        write_image(root / f"images/image_{fruit}.png", i)
        write_mask(root / f"masks/image_{fruit}.png", regions(i, [0, 1]))
    splits = (("train", fruits[:6]), ("val", fruits[6:]))
    if header == "table":
        rows = "".join(f"image_{fruit},{split}\n" for split, part in splits for fruit in part)
        (root / "splits.csv").write_text(f"image,split\n{rows}")
    for split, part in splits if header != "table" else ():
        (root / f"{split}.txt").write_text(header + "".join(f"image_{fruit}\n" for fruit in part))
    config = init(root)
    assert not [finding for finding in check(config, tmp_path) if finding.code == "SEG110"]
    assert numbers(config, root) == {"train": 6, "val": 4}


def test_masks_in_colour_are_no_pictures_of_scenes(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(12):
        mask = regions(i, [0, 1])
        write_image(root / f"scene{i // 4}/A/p{i}.png", i)
        write_mask(root / f"scene{i // 4}/label/mask-p{i}.png", mask)
        write_mask(root / f"scene{i // 4}/color/p{i}.png", mask, colors=np.array([[0, 0, 90], [90, 200, 0]]))
    records = split_records(init(root), root.parent).values()
    assert {record.image.parent.name for part in records for record in part} == {"A"}


@pytest.mark.parametrize("kind", ["edges", "instances"])
def test_edges_and_instances_elsewhere_are_not_taken_for_masks_beside_the_images(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "set"
    for i in range(15):
        split = "train" if i < 10 else "test"
        mask = regions(i, [0, 1])
        write_image(root / f"{split}/p{i}.png", i)
        write_mask(root / f"{split}/label_p{i}.png", mask)
        write_mask(root / f"{kind}/p{i}.png", 9 * mask)
    found = discover(root)
    assert {split: len(pairs.records) for split, pairs in found.pairs.items()} == {"train": 10, "test": 5}
    assert found.data.pairing == Pairing(mask_prefix="label_")


@pytest.mark.parametrize("kind", ["thumbnails", "heatmaps"])
def test_coloured_pictures_for_people_are_not_taken_for_grey_images_of_a_silent_name(tmp_path: Path, kind: str) -> None:
    for i in range(12):
        write_image(tmp_path / f"ultrasound/p{i}.png", i, mode="L")
        write_image(tmp_path / f"{kind}/p{i}.png", 50 + i, (12, 16))
        write_mask(tmp_path / f"gt/p{i}.png", regions(i, [0, 1]))
    found = discover(tmp_path)
    assert (found.data.train.images, found.data.train.masks) == ("ultrasound", "gt")


def test_one_image_without_the_prefix_of_the_others_costs_no_pair(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split, num in (("train", 8), ("test", 4)):
        for i in range(num):
            write_image(root / f"{split}/images/photo_{split}{i:02}.png", i)
            write_mask(root / f"{split}/masks/label_{split}{i:02}.png", regions(i, [0, 1]))
    write_image(root / "train/images/other.png", 50)
    found = discover(root)
    assert {split: len(pairs.records) for split, pairs in found.pairs.items()} == {"train": 8, "test": 4}
    assert [file.name for file in found.pairs["train"].unnamed] == ["other.png"]


def test_a_test_split_is_not_trained_on_where_the_training_set_does_not_pair(tmp_path: Path) -> None:
    for i in range(8):
        write_image(tmp_path / f"train/images/{'abcdefgh'[i]}.png", i)
        write_mask(tmp_path / f"train/masks/{'stuvwxyz'[i]}.png", regions(i, [0, 1]))
        write_image(tmp_path / f"test/images/{i}.png", i)
        write_mask(tmp_path / f"test/masks/{i}.png", regions(i, [0, 1]))
    with pytest.raises(DataError, match="no images with masks of the same names"):
        discover(tmp_path)


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("runs", "runs of segtool. Name one: .*/runs/cells-1$"),
        ("runs/cells-1", "a run of segtool.*cells-1/config.yaml"),
        ("runs/cells-1/checkpoints", "checkpoints of a run. Name the run: .*/runs/cells-1$"),
    ],
)
def test_what_training_wrote_is_told_where_it_is_named_in_place_of_the_data(
    tmp_path: Path, named: str, told: str
) -> None:
    run = tmp_path / "runs/cells-1"
    for name in ("run.json", "config.yaml", "metrics.jsonl", "checkpoints/step-00000007/manifest.json"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("{}")
    with pytest.raises(DataError, match=told.replace("$", r" \(there")):
        discover(tmp_path / named)


# --- what one fault does to the rest


def test_a_lost_image_does_not_make_images_of_the_coloured_masks(tmp_path: Path) -> None:
    for i in range(12):
        mask = regions(i, [0, 1])
        write_image(tmp_path / f"p{i:02}.png", i)
        write_mask(tmp_path / f"p{i:02}_label.png", mask)
        write_mask(tmp_path / f"p{i:02}_color.png", mask, colors=np.array([[0, 0, 90], [90, 200, 0]]))
    (tmp_path / "p07.png").unlink()
    found = discover(tmp_path)
    assert (found.data.pairing, len(found.pairs["train"].records)) == (Pairing(mask_suffix="_label"), 11)
    assert found.alone == (0, 1)


def test_a_lost_image_does_not_make_its_split_list_another_set_s(tmp_path: Path) -> None:
    root = simple_set(tmp_path / "set")
    for split, places in (("train", range(8)), ("val", range(8, 12))):
        (root / f"{split}.txt").write_text("".join(f"p{i}\n" for i in places))
    (root / "images/p9.png").unlink()
    found = discover(root)
    assert {split: len(pairs.records) for split, pairs in found.pairs.items()} == {"train": 8, "val": 3}
