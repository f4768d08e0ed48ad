"""Lists of pairs, and lists of what belongs to a split, on empty files: only names matter here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import check
from test_formats import config, numbered, touch

from segtool.config import ClassSpec, Config, Data, Folders
from segtool.data import lists
from segtool.data.formats import Places, split_records
from segtool.data.pairs import Record
from segtool.errors import DataError


def read_list(path: Path, root: Path, **more: str) -> list[Record]:
    return lists.read_list(Folders(list=str(path), **more), root)


def write_list(root: Path, text: str | bytes) -> Path:
    path = root / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "i/a.jpg,m/x.png\ni/b.jpg,m/y.png\n",
        "image,mask\ni/a.jpg,m/x.png\ni/b.jpg,m/y.png",
        "\ufeffimage,mask\r\ni/a.jpg,m/x.png\r\ni/b.jpg,m/y.png\r\n",
        "# pairs\n\ni/a.jpg m/x.png\ni/b.jpg   m/y.png\n",
        "i/a.jpg\tm/x.png\ni/b.jpg\tm/y.png\n",
        "i/a.jpg;m/x.png\ni/b.jpg;m/y.png\n",
        'id,mask_path,image_path\n1,m/x.png,"i/a.jpg"\n2,m/y.png,i/b.jpg\n',
        "i\\a.jpg,m\\x.png\ni/b.jpg,./m/y.png\n",
    ],
)
def test_a_list_names_pairs_in_csv_or_text(tmp_path: Path, text: str) -> None:
    touch(tmp_path, "i/a.jpg", "i/b.jpg", "m/x.png", "m/y.png")
    records = read_list(write_list(tmp_path, text), tmp_path)
    assert [(r.image, r.mask, r.stem) for r in records] == [
        (tmp_path / "i/a.jpg", tmp_path / "m/x.png", "i/a"),
        (tmp_path / "i/b.jpg", tmp_path / "m/y.png", "i/b"),
    ]


def test_every_wrong_line_of_a_list_is_told_with_its_number(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.png")
    path = write_list(tmp_path, "image,mask\na.jpg,a.png\na.jpg\n# note\nno.jpg,a.png\na.jpg,a.png\n")
    with pytest.raises(DataError) as caught:
        read_list(path, tmp_path)
    one, two, three = caught.value.problems
    assert one.startswith(f"{path}:3: ")
    assert two.startswith(f"{path}:5: no such file: {tmp_path / 'no.jpg'}")
    assert three.startswith(f"{path}:6: ")
    assert "line 2" in three


def test_a_list_that_is_missing_or_empty_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_list(tmp_path / "none.csv", tmp_path)
    with pytest.raises(DataError, match="names no pair"):
        read_list(write_list(tmp_path, "image,mask\n"), tmp_path)


def test_the_stem_of_a_listed_image_outside_the_root_stays_inside_any_folder(tmp_path: Path) -> None:
    touch(tmp_path, "out/a.jpg", "root/a.png")
    (record,) = read_list(write_list(tmp_path, "../out/a.jpg,a.png\n"), tmp_path / "root")
    assert not Path(record.stem).is_absolute()
    assert ".." not in record.stem


def test_a_list_of_absolute_paths_needs_no_root(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.png")
    path = write_list(tmp_path, f"{tmp_path}/a.jpg,{tmp_path}/a.png\n")
    assert [record.image for record in read_list(path, tmp_path / "gone")] == [tmp_path / "a.jpg"]


def test_a_listed_training_set_is_split_too(tmp_path: Path) -> None:
    numbered(tmp_path, 10)
    (tmp_path / "all.txt").write_text("".join(f"images/{i:03}.jpg masks/{i:03}.png\n" for i in range(10)))
    parts = split_records(config(tmp_path, format="list", train=Folders(list="all.txt")), tmp_path)
    assert {name: len(part) for name, part in parts.items()} == {"train": 8, "val": 2}


def test_of_many_columns_those_of_image_files_are_read(tmp_path: Path) -> None:
    touch(tmp_path, "t/1_sat.jpg", "t/1_mask.png")
    text = "image_id,split,sat_image_path,mask_path\n1,train,t/1_sat.jpg,t/1_mask.png\n2,valid,t/2_sat.jpg,\n"
    (record,) = read_list(write_list(tmp_path, text), tmp_path, part="train")
    assert (record.image.name, record.mask and record.mask.name) == ("1_sat.jpg", "1_mask.png")
    with pytest.raises(DataError, match="no column named split"):
        read_list(write_list(tmp_path, "image,mask\nt/1_sat.jpg,t/1_mask.png\n"), tmp_path, part="train")


def test_the_names_in_a_list_of_pairs_may_be_relative_to_the_folders(tmp_path: Path) -> None:
    touch(tmp_path, "i/1.jpg", "m/7.png")
    (record,) = read_list(write_list(tmp_path, "image,mask\n1.jpg,7.png\n"), tmp_path, images="i", masks="m")
    assert (record.image, record.mask) == (tmp_path / "i/1.jpg", tmp_path / "m/7.png")


# --- what belongs to a split


def listed(root: Path, text: str, **more: str) -> list[str]:
    """Returns the stems of the training split that a list names."""
    (root / "train.txt").write_text(text)
    places = Places(config(root, train=Folders("images", "masks", list="train.txt", **more)).data, root)
    return [record.stem for record in places.of("train").pairs.records]


@pytest.mark.parametrize(
    "text",
    [
        "001\n003\n",
        "001.jpg\n003.jpg\n",
        "001.png\r\n003.png\r\n",
        "images/001.jpg\nimages/003.jpg\n",
        "./images/001.jpg masks/001.png\n./images/003.jpg masks/003.png\n",
        "/home/somebody/set/images/001.jpg\n/home/somebody/set/images/003.jpg\n",
        "images\\001.jpg\nimages\\003.jpg\n",
        "001 1 1 2\n003 7 1 2\n",
        "id,name\n0,001\n1,003\n",
        "image\n001\n003\n",
        "masks/001.png\nmasks/003.png\n",
    ],
)
def test_a_list_names_the_images_of_a_split_in_any_usual_way(tmp_path: Path, text: str) -> None:
    assert listed(numbered(tmp_path, 6), text) == ["001", "003"]


@pytest.mark.parametrize(
    "text",
    ["my cat 1\ndog\n", "dog\nmy cat 1\n", "my cat 1.jpg\ndog.jpg\n", "images/my cat 1.jpg\nimages/dog.jpg\n"],
)
@pytest.mark.parametrize("mark", [" ", ", ", ";"])
def test_names_in_a_list_of_images_may_hold_blanks_and_commas(tmp_path: Path, text: str, mark: str) -> None:
    for kind in ("images", "masks"):
        touch(tmp_path / kind, f"my{mark}cat{mark}1.jpg", "dog.jpg", "my.jpg", "1.jpg")
    assert listed(tmp_path, text.replace(" ", mark)) == ["dog", f"my{mark}cat{mark}1"]


def test_a_name_in_a_list_in_json_is_no_comment(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        touch(tmp_path / kind, "#1.png", "2.png", "3.png")
    (tmp_path / "train.json").write_text('["#1.png", "3.png"]')
    places = Places(config(tmp_path, train=Folders("images", "masks", list="train.json")).data, tmp_path)
    assert [record.stem for record in places.of("train").pairs.records] == ["#1", "3"]


def test_images_that_no_list_names_need_no_masks(tmp_path: Path) -> None:
    numbered(tmp_path, 4)
    touch(tmp_path / "images", "alone.jpg")
    assert listed(tmp_path, "000\n001\n") == ["000", "001"]
    settings = config(tmp_path, train=Folders("images", "masks", list="train.txt"))
    assert len(split_records(settings, tmp_path)["train"]) == 1
    (tmp_path / "train.txt").write_text("000\n001\nalone\n")
    with pytest.raises(DataError, match=r"1 of 3 images in \S+ without a mask.*alone"):
        split_records(settings, tmp_path)


@pytest.mark.parametrize("root", ["real", "link"])
@pytest.mark.parametrize("named", ["real", "link"])
def test_absolute_paths_in_lists_may_lead_through_links(tmp_path: Path, root: str, named: str) -> None:
    numbered(tmp_path / "real", 3)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real/images").rename(tmp_path / "elsewhere")
    (tmp_path / "real/images").symlink_to(tmp_path / "elsewhere")
    images = [f"{tmp_path}/{named}/images/{name}.jpg" for name in ("000", "002")]
    assert listed(tmp_path / root, "".join(f"{path}\n" for path in images)) == ["000", "002"]
    path = tmp_path / "pairs.csv"
    path.write_text("".join(f"{path},{tmp_path}/{named}/masks/001.png\n" for path in images))
    assert [record.stem for record in read_list(path, tmp_path / root)] == ["images/000", "images/002"]


def test_a_name_that_fits_two_images_names_none(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        touch(tmp_path / kind, "s1/a.png", "s2/a.png", "s1/b.png")
    assert listed(tmp_path, "s1/a\nb\na\n") == ["s1/a", "s1/b"]


def test_a_column_of_splits_divides_one_list(tmp_path: Path) -> None:
    text = "file,split\n000.jpg,train\n001.jpg,valid\n002.jpg,train\n"
    assert listed(numbered(tmp_path, 4), text, part="train") == ["000", "002"]
    assert listed(tmp_path, text, part="valid") == ["001"]
    with pytest.raises(DataError, match=r"the column split has train, valid, but data\.\*\.part is val; correct it"):
        listed(tmp_path, text, part="val")


@pytest.mark.parametrize("images", ["images", "./images", "images/"])
def test_a_split_without_a_list_is_what_no_other_lists(tmp_path: Path, images: str) -> None:
    numbered(tmp_path, 5)
    (tmp_path / "valid.txt").write_text("001.jpg\n003.jpg\n")
    settings = config(tmp_path, val=Folders(images, "masks", list="valid.txt"))
    parts = split_records(settings, tmp_path)
    assert {name: [r.stem for r in part] for name, part in parts.items()} == {
        "train": ["000", "002", "004"],
        "val": ["001", "003"],
    }


def test_listed_names_without_images_are_told_with_their_lines(tmp_path: Path) -> None:
    numbered(tmp_path, 5)
    (tmp_path / "train.txt").write_text("000\n001\n9\n")
    data = Data(root=str(tmp_path), train=Folders("images", "masks", list="train.txt"))
    assert len(split_records(Config(data=data), tmp_path)["train"]) == 1
    settings = Config(data=replace(data, classes=(ClassSpec("a", (0,)), ClassSpec("b", (1,)))))
    (finding,) = [f for f in check(settings, tmp_path) if f.code == "SEG110"]
    assert (finding.severity, finding.count) == ("warning", 1)
    assert "train.txt:3: '9' names no image" in finding.example
    (tmp_path / "train.txt").write_text("7\n8\n9\n")
    with pytest.raises(DataError, match=r"train\.txt:1: '7' names no image"):
        split_records(settings, tmp_path)
    assert [f.severity for f in check(settings, tmp_path) if f.code == "SEG110"] == ["error"]


def test_a_root_in_the_home_of_nobody_is_a_folder_that_is_not_there(tmp_path: Path) -> None:
    settings = Config(data=Data(root="~nobody-of-that-name/set", train=Folders("images", "masks")))
    with pytest.raises(DataError, match="~nobody-of-that-name/set"):
        split_records(settings, tmp_path)


def test_a_list_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    settings = config(numbered(tmp_path, 5), train=Folders("images", "masks", list="no.txt"))
    with pytest.raises(DataError, match="the list cannot be read"):
        split_records(settings, tmp_path)


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("left/0.png", "left/0.png"),
        ("/home/ann/set/left/0.png", "left/0.png"),
        ("D:\\set\\left\\0.png", "left/0.png"),
        ("../left/0.png", "left/0.png"),
        ("right/0.png", None),
        ("/home/ann/set/right/0.png", None),
    ],
)
def test_a_file_of_a_list_is_found_by_its_path_on_another_computer_but_in_no_other_folder(tmp_path, cell, found):
    for name in ("0.png", "left/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    located = lists.locate(cell, tmp_path)
    assert located.exists() == (found is not None)
    assert found is None or located == tmp_path / found
