"""`check` finds each planted fault, names file, pixel and value, and says nothing of a clean set."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import check
from PIL import Image
from rich.console import Console

from segtool.check.findings import CHECKS, Finding
from segtool.check.report import examine, render, to_json
from segtool.config import Augment, ClassSpec, Config, Data, Folders, Limits, Pairing, Split, load_config
from segtool.data.labels import Labels
from segtool.errors import ConfigError, DataError
from segtool.system import pools

REAL = Path(__file__).parent.parent.parent / "shared" / "data"
SIZE = (24, 32)
CLASSES = (ClassSpec("soil", (0,)), ClassSpec("leaf", (1,)), ClassSpec("pod", (2,)))


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


def truth(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Returns a mask in which each class has at least 1 % of the pixels."""
    mask = np.random.default_rng(seed).integers(0, 2, size).astype(np.uint8)
    mask[:3, :4] = 2
    return mask


def make(root: Path, *, train: int = 8, val: int = 3, test: int = 2) -> Config:
    """Writes a clean set with split folders and returns its config; the base directory is `root`'s parent."""
    seed = 0
    for split, num in (("train", train), ("val", val), ("test", test)):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
        for index in range(num):
            seed += 1
            picture(seed).save(root / split / "images" / f"{split}_{index}.png")
            Image.fromarray(truth(seed)).save(root / split / "masks" / f"{split}_{index}.png")
    folders = {s: Folders(images=f"{s}/images", masks=f"{s}/masks") for s in ("train", "val", "test")}
    return Config(data=Data(root=root.name, classes=CLASSES, **folders))


def found(config: Config, base: Path) -> dict[str, Finding]:
    """Returns the findings by code; each code is told once."""
    findings = check(config, base)
    codes = [finding.code for finding in findings]
    assert len(codes) == len(set(codes)), codes
    return {finding.code: finding for finding in findings}


def edit(path: Path, change: Callable[[np.ndarray], None]) -> None:
    """Changes a mask's pixels in place."""
    mask = np.array(Image.open(path))
    change(mask)
    Image.fromarray(mask).save(path)


def test_a_clean_set_gives_no_finding_at_all(tmp_path: Path) -> None:
    assert check(make(tmp_path / "set"), tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
def test_checks_in_several_processes_tell_what_they_tell_in_one(tmp_path: Path, monkeypatch) -> None:
    config = make(tmp_path / "set")
    edit(tmp_path / "set/train/masks/train_4.png", lambda mask: mask[3:5].fill(9))
    shutil.copy(tmp_path / "set/train/images/train_0.png", tmp_path / "set/val/images/val_0.png")
    (tmp_path / "set/test/masks/test_1.png").write_bytes(b"nothing")
    alone = check(config, tmp_path)
    assert len(alone) > 2
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(pools, "num_cores", lambda: 2)
    monkeypatch.setattr(pools.threading, "active_count", lambda: 1)  # whatever idles since another test
    monkeypatch.setattr("segtool.check.report.MANY", 0)
    number = tmp_path / "number of a process"
    monkeypatch.setattr("segtool.check.report.CHECKS", [*CHECKS, lambda _: number.write_text(str(os.getpid())) and []])
    assert check(config, tmp_path) == alone
    assert int(number.read_text()) != os.getpid()


def test_a_value_outside_the_classes_is_told_with_file_pixel_and_count(tmp_path: Path) -> None:
    config = make(tmp_path / "set")

    def plant(mask: np.ndarray) -> None:
        mask[7, 19] = mask[9, 3] = 9

    edit(tmp_path / "set/train/masks/train_4.png", plant)
    finding = found(config, tmp_path)["SEG302"]
    assert finding.severity == "error"
    assert finding.files == ("train/masks/train_4.png",)
    assert finding.example == "train/masks/train_4.png: 9 at (19, 7), 2 pixels in this file"
    assert "9 (2 pixels in 1 file, train/masks/train_4.png)" in finding.message
    assert "data.ignore" in finding.remedy


def test_unknown_values_of_many_files_are_one_finding_with_a_table(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    for index in range(7):
        edit(tmp_path / f"set/train/masks/train_{index}.png", lambda mask: mask[3:5].fill(9))
    edit(tmp_path / "set/val/masks/val_0.png", lambda mask: mask[5, 5:6].fill(8))
    finding = found(config, tmp_path)["SEG302"]
    assert (finding.count, len(finding.files)) == (8, 8)
    assert "9 (448 pixels in 7 files, first train/masks/train_0.png), 8 (1 pixel in 1 file, val/" in finding.message


def test_masks_of_0_and_255_under_classes_0_and_1_get_the_hint(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    for path in (tmp_path / "set").glob("*/masks/*.png"):
        Image.fromarray(np.where(truth(1) > 0, 255, 0).astype(np.uint8)).save(path)
    config = replace(config, data=replace(config.data, classes=CLASSES[:2]))
    assert "values: [255]" in found(config, tmp_path)["SEG302"].remedy


def test_a_mask_of_0_and_255_among_others_of_0_and_1_is_not_told_to_be_ignored(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    masks = sorted((tmp_path / "set").glob("*/masks/*.png"))
    for index, path in enumerate(masks):
        Image.fromarray((truth(1) > 0).astype(np.uint8) * np.uint8(1 if index else 255)).save(path)
    config = replace(config, data=replace(config.data, classes=CLASSES[:2]))
    assert "values: [1, 255]" in found(config, tmp_path)["SEG302"].remedy
    edit(masks[1], lambda mask: mask[0].fill(255))  # here 1 and 255 are two things
    assert found(config, tmp_path)["SEG302"].remedy.startswith("255 often marks what nobody labelled")


def test_instance_ids_and_soft_edges_get_their_hints(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    ids = np.arange(SIZE[0] * SIZE[1] // 4, dtype=np.uint16).reshape(SIZE[0] // 2, SIZE[1] // 2) + 200
    ids = ids.repeat(2, 0).repeat(2, 1)
    Image.fromarray(ids).save(tmp_path / "set/train/masks/train_0.png")
    assert "[1..65535]" in found(config, tmp_path)["SEG302"].remedy
    Image.fromarray((ids % 256).astype(np.uint8)).save(tmp_path / "set/train/masks/train_0.png")
    assert "threshold" in found(config, tmp_path)["SEG302"].remedy


def test_many_values_that_form_no_areas_are_told_as_a_picture(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    grey = np.random.default_rng(0).integers(30, 220, SIZE, np.uint8)
    Image.fromarray(grey).save(tmp_path / "set/train/masks/train_0.png")
    findings = found(config, tmp_path)
    assert "SEG302" not in findings
    assert (findings["SEG313"].severity, findings["SEG313"].files) == ("error", ("train/masks/train_0.png",))
    assert "100.0 % of the pixels are not the value of any class" in findings["SEG313"].example
    edit(tmp_path / "set/train/masks/train_1.png", lambda mask: mask[3:5].fill(9))
    assert found(config, tmp_path)["SEG302"].files == ("train/masks/train_1.png",)


def test_values_between_0_and_255_are_told_as_soft_edges(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    for path in (tmp_path / "set").glob("*/masks/*.png"):
        Image.fromarray(((truth(1) > 0) * 255).astype(np.uint8)).save(path)
    steps = Image.fromarray(np.resize(np.array([0, 64, 128, 191, 255], np.uint8), SIZE))
    steps.save(tmp_path / "set/train/masks/train_0.png")
    classes = tuple(replace(spec, values=(value,)) for spec, value in zip(CLASSES[:2], (0, 255), strict=True))
    config = replace(config, data=replace(config.data, classes=classes))
    assert "threshold" in found(config, tmp_path)["SEG302"].remedy
    with pytest.raises(DataError, match="threshold"):
        Labels.from_config(config.data).read(tmp_path / "set/train/masks/train_0.png", max_pixels=10_000)


def test_unknown_colours_are_told_as_colours(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    table = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    for path in (tmp_path / "set").glob("*/masks/*.png"):
        Image.fromarray(table[np.array(Image.open(path))]).save(path)
    classes = tuple(ClassSpec(n, colors=(c,)) for n, c in (("a", "#000000"), ("b", "#ff0000"), ("c", "#0000ff")))
    config = replace(config, data=replace(config.data, encoding="rgb", classes=classes))
    assert check(config, tmp_path) == []
    edit(tmp_path / "set/val/masks/val_1.png", lambda mask: mask[4, 6:7].fill(17))
    finding = found(config, tmp_path)["SEG302"]
    assert finding.example == "val/masks/val_1.png: #111111 at (6, 4), 1 pixel in this file"
    nearest = replace(config, data=replace(config.data, nearest=True))
    assert "SEG302" not in found(nearest, tmp_path)


def test_rgb_masks_under_index_are_one_finding_that_names_the_encoding(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    for path in (tmp_path / "set/train/masks").iterdir():
        picture(1).save(path)
    findings = found(config, tmp_path)
    assert findings["SEG301"].count == 8
    assert "rgb" in findings["SEG301"].remedy
    assert "SEG302" not in findings


def test_a_mask_that_is_seen_through_in_places_is_told_to_be_filled(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    path = tmp_path / "set/train/masks/train_3.png"
    mask = Image.open(path).convert("LA")
    mask.putalpha(picture(3).convert("L"))
    mask.save(path)
    finding = found(config, tmp_path)["SEG301"]
    assert finding.files == ("train/masks/train_3.png",)
    assert finding.remedy.startswith("fill the transparent parts")


def test_jpeg_masks_are_refused_and_under_threshold_a_note(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    Image.fromarray(truth(5) * 100).save(tmp_path / "set/train/masks/train_0.jpg")
    (tmp_path / "set/train/masks/train_0.png").unlink()
    finding = found(config, tmp_path)["SEG301"]
    assert "lossy" in finding.example
    for path in (tmp_path / "set").glob("*/masks/*.png"):
        Image.fromarray(np.array(Image.open(path)) * 100).save(path)
    soft = tuple(ClassSpec(spec.name, (100 * index,)) for index, spec in enumerate(CLASSES))
    config = replace(config, data=replace(config.data, encoding="threshold", classes=soft))
    assert {code: f.severity for code, f in found(config, tmp_path).items()} == {"SEG303": "note"}


def test_files_without_a_partner_are_told_by_kind(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    (tmp_path / "set/train/masks/train_2.png").unlink()
    (tmp_path / "set/train/images/train_3.png").unlink()
    (tmp_path / "set/val/images/val_1.png").unlink()
    findings = found(config, tmp_path)
    assert findings["SEG103"].files == ("train/images/train_2.png",)
    assert findings["SEG104"].files == ("train/masks/train_3.png", "val/masks/val_1.png")
    assert {findings[code].severity for code in ("SEG103", "SEG104")} == {"error"}
    assert "SEG106" not in findings


def test_a_partner_of_a_kind_that_is_not_read_is_named(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    train = tmp_path / "set/train"
    (train / "images/train_3.png").rename(train / "images/train_3.HEIC")
    (train / "images/train_4.png").unlink()
    (train / "images/train_5.png").rename(train / "images/other.gif")
    (train / "masks/train_2.png").rename(train / "masks/train_2.psd")
    findings = found(config, tmp_path)
    lost = {code: findings[code].example for code in ("SEG103", "SEG104")}
    assert lost == {
        "SEG103": "train/images/train_2.png: no mask of that stem but train/masks/train_2.psd, which is of a kind that "
        "is not read",
        "SEG104": "train/masks/train_3.png: no image of that stem but train/images/train_3.HEIC, which is of a kind "
        "that is not read",
    }
    assert findings["SEG104"].count == 3
    assert findings["SEG104"].remedy.startswith("convert 1 image (.heic) to PNG or TIFF; add the images, or move")
    (train / "images/train_3.HEIC").unlink()
    assert found(config, tmp_path)["SEG104"].example == "train/masks/train_3.png: no image of that stem"


def test_files_without_the_configured_suffix_are_told_as_a_note(tmp_path: Path) -> None:
    config = make(tmp_path / "set", val=0, test=0)
    data = replace(config.data, val=None, test=None, pairing=Pairing(mask_suffix="_m"))
    for path in list((tmp_path / "set/train/masks").iterdir()):
        path.rename(path.with_name(f"{path.stem}_m.png"))
    picture(3).save(tmp_path / "set/train/masks/preview.png")
    findings = found(replace(config, data=data), tmp_path)
    assert {code: f.severity for code, f in findings.items()} == {"SEG108": "note"}
    assert findings["SEG108"].files == ("train/masks/preview.png",)


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "empty"), (b"<html>404</html>", "web page"), (b"%PDF-1.4 x", "PDF")]
)
def test_foreign_files_are_unreadable_and_nothing_else_stops(tmp_path: Path, content: bytes, word: str) -> None:
    config = make(tmp_path / "set")
    (tmp_path / "set/train/images/train_1.png").write_bytes(content)
    (tmp_path / "set/train/masks/train_5.png").write_bytes(content)
    findings = found(config, tmp_path)
    assert findings["SEG201"].files == ("train/images/train_1.png",)
    assert findings["SEG202"].files == ("train/masks/train_5.png",)
    assert word in findings["SEG201"].example


def test_every_file_that_cannot_be_read_is_named_in_one_go(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    for kind in ("images", "masks"):
        for path in (tmp_path / "set/train" / kind).iterdir():
            path.write_bytes(path.read_bytes()[:60])
    findings = found(config, tmp_path)
    for code, kind in (("SEG201", "images"), ("SEG202", "masks")):
        assert findings[code].files == tuple(f"train/{kind}/train_{index}.png" for index in range(8))


def test_what_the_config_excludes_is_looked_at_no_more_and_told_in_a_note(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    names = "train/images/train_1.png", "train/masks/train_5.png"
    for name in names:
        (tmp_path / "set" / name).write_bytes(b"")
    findings = found(config, tmp_path)
    named = [name for finding in findings.values() for name in finding.files]
    assert sorted(named) == list(names)
    assert all("data.exclude" in finding.remedy for finding in findings.values())
    without = found(replace(config, data=replace(config.data, exclude=tuple(named))), tmp_path)
    assert {code: finding.severity for code, finding in without.items()} == {"SEG112": "note"}
    assert without["SEG112"].count == 2


def test_a_folder_named_like_an_image_is_unreadable(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    (tmp_path / "set/train/images/train_1.png").unlink()
    (tmp_path / "set/train/images/train_1.png").mkdir()
    assert "folder" in found(config, tmp_path)["SEG201"].example


def test_files_that_need_different_remedies_are_told_apart(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    images = tmp_path / "set/train/images"
    for index in (0, 1):
        (images / f"train_{index}.png").write_bytes(b"")
    picture(1).convert("RGBA").resize(SIZE[::-1]).save(images / "train_2.png")
    clear = picture(1).convert("RGBA")
    clear.putalpha(0)
    clear.save(images / "train_3.png")
    findings = [finding for finding in check(config, tmp_path) if finding.code == "SEG201"]
    assert [finding.count for finding in findings] == [2, 1]
    assert "0 bytes" in findings[0].example
    assert findings[0].remedy.startswith("copy it again")
    assert "not opaque" in findings[1].example
    assert "data.channels to 4" in findings[1].remedy
    assert "data.channels to 4" not in findings[1].example


def test_an_image_above_the_limit_is_told_without_being_decoded(tmp_path: Path) -> None:
    config = replace(make(tmp_path / "set"), limits=Limits(max_pixels=SIZE[0] * SIZE[1]))
    picture(1, (40, 40)).save(tmp_path / "set/train/images/train_1.png")
    assert "limits.max_pixels" in found(config, tmp_path)["SEG201"].example


@pytest.mark.parametrize(
    ("size", "hint"),
    [
        ((32, 24), "rotated?"),
        ((12, 16), "scaled by 0.5?"),
        ((23, 32), "cropped"),
        ((48, 64), "scaled by 2?"),
        ((1, 1), "cropped"),
    ],
)
def test_sizes_that_differ_are_told_with_both_and_a_guess(tmp_path: Path, size: tuple[int, int], hint: str) -> None:
    config = make(tmp_path / "set")
    Image.fromarray(truth(3, size)).save(tmp_path / "set/train/masks/train_3.png")
    finding = found(config, tmp_path)["SEG203"]
    assert f"{size[1]}x{size[0]}" in finding.example
    assert "32x24" in finding.example
    assert hint in finding.example
    assert finding.files == ("train/masks/train_3.png",)


def test_a_mask_with_a_row_more_than_a_large_image_is_not_called_scaled(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    picture(3, (240, 320)).save(tmp_path / "set/train/images/train_3.png")
    Image.fromarray(truth(3, (241, 320))).save(tmp_path / "set/train/masks/train_3.png")
    finding = found(config, tmp_path)["SEG203"]
    assert "cropped" in finding.example
    assert "drawn on it" in finding.remedy


def test_masks_that_differ_in_size_in_several_ways_get_a_remedy_each(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    for index, size in enumerate([(12, 16), (48, 64), (32, 24), (23, 30)]):
        Image.fromarray(truth(3, size)).save(tmp_path / f"set/train/masks/train_{index}.png")
    findings = [finding for finding in check(config, tmp_path) if finding.code == "SEG203"]
    assert [finding.count for finding in findings] == [2, 1, 1]
    for finding, word in zip(findings, ("nearest-neighbour", "turn the image", "drawn on it"), strict=True):
        assert word in finding.remedy


def test_a_mask_on_the_stored_grid_of_a_turned_photograph_mentions_exif(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "set/train/images/train_3.png").unlink()
    picture(3).save(tmp_path / "set/train/images/train_3.jpg", exif=exif)
    finding = found(config, tmp_path)["SEG203"]
    assert "EXIF orientation 6" in finding.example
    assert "data.exif to ignore" in finding.remedy
    assert "SEG203" not in found(replace(config, data=replace(config.data, exif="ignore")), tmp_path)


def turned(path: Path, orientation: int, size: tuple[int, int]) -> None:
    """Replaces an image by a photograph of another orientation, stored at `size`."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.unlink()
    picture(3, size).save(path.with_suffix(".jpg"), exif=exif)


@pytest.mark.parametrize(("orientation", "size"), [(2, SIZE), (3, SIZE), (4, SIZE), (6, (24, 24)), (8, (24, 24))])
def test_a_turned_photograph_whose_size_does_not_tell_the_grid_of_its_mask_is_a_note(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    config = make(tmp_path / "set")
    turned(tmp_path / "set/train/images/train_3.png", orientation, size)
    Image.fromarray(truth(3, size)).save(tmp_path / "set/train/masks/train_3.png")
    finding = found(config, tmp_path)["SEG205"]
    assert (finding.severity, finding.files) == ("note", ("train/images/train_3.jpg",))
    assert f"EXIF orientation {orientation}; its mask is taken to be drawn on the upright picture" in finding.example
    assert "data.exif to ignore" in finding.remedy
    config = replace(config, data=replace(config.data, exif="ignore"))
    assert "drawn on the stored picture" in found(config, tmp_path)["SEG205"].example


def test_a_photograph_that_lay_on_its_side_tells_the_grid_for_the_others(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    turned(tmp_path / "set/train/images/train_3.png", 3, SIZE)
    turned(tmp_path / "set/train/images/train_4.png", 6, SIZE[::-1])
    assert check(config, tmp_path) == []


def test_missing_folders_are_told_with_the_place_that_was_looked_at(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    gone = replace(config, data=replace(config.data, val=Folders(images="vall/images", masks="val/masks")))
    finding = found(gone, tmp_path)["SEG101"]
    assert finding.files == ("vall/images",)
    nowhere = replace(config, data=replace(config.data, root="elsewhere"))
    finding = found(nowhere, tmp_path)["SEG101"]
    assert finding.count == 6
    assert "data.root" in finding.example
    assert "--set data.root=" in finding.remedy


def test_empty_folders_are_told(tmp_path: Path) -> None:
    config = make(tmp_path / "set", val=0)
    (tmp_path / "set/val/masks/notes.md").write_text("")
    finding = found(config, tmp_path)["SEG102"]
    assert finding.message.startswith("val: no pair")
    assert "data.val.images: no image file" in finding.example
    assert "found .md" in finding.example


@pytest.mark.parametrize(
    ("rename", "remedy"), [("{}_mask", "data.pairing: {mask_suffix: _mask} would make 8 pairs"), ("{}", "")]
)
def test_names_that_do_not_meet_are_one_finding_with_the_pairing_that_would(
    tmp_path: Path, rename: str, remedy: str
) -> None:
    config = make(tmp_path / "set")
    for path in sorted((tmp_path / "set/train/masks").iterdir()):
        path.rename(path.with_stem(rename.format(path.stem if remedy else path.stem.upper())))
    findings = found(config, tmp_path)
    assert [code for code, finding in findings.items() if finding.severity == "error"] == ["SEG102"]
    assert findings["SEG102"].remedy == (remedy or "some names differ by upper and lower case only: make them equal")


def test_a_share_that_cannot_be_held_out_is_an_error(tmp_path: Path) -> None:
    config = make(tmp_path / "set", train=1, val=0, test=0)
    config = replace(config, data=replace(config.data, val=None, test=None, split=Split(val=0.2)))
    findings = found(config, tmp_path)
    assert findings["SEG106"].severity == "error"


def test_a_list_with_bad_lines_is_told_by_line(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    rows = [f"train/images/train_{i}.png,train/masks/train_{i}.png" for i in range(8)]
    (tmp_path / "set/train.csv").write_text("\n".join(rows))
    parts = {"train": Folders(list="train.csv"), "val": None, "test": None}
    listed = replace(config, data=replace(config.data, format="list", **parts))
    assert {f.severity for f in check(listed, tmp_path)} <= {"note"}
    (tmp_path / "set/train.csv").write_text("\n".join([*rows, "train/images/no.png,train/masks/no.png"]))
    finding = found(listed, tmp_path)["SEG107"]
    assert "train.csv:9" in finding.example
    assert finding.files == (f"{tmp_path}/set/train.csv:9",)


def test_a_pipe_gets_whole_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make(tmp_path / "set")
    (tmp_path / "set/train/masks/train_2.png").unlink()
    report = examine(config, tmp_path)
    render(Console(width=40), report.findings, report.summary)
    assert report.findings[0].remedy in capsys.readouterr().out


def test_a_split_without_its_folders_is_told_with_the_line_of_the_config(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("data:\n  classes: [{name: a, values: [0]}, {name: b, values: [1]}]\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:1: data\.train\.images: is not given"):
        check(load_config(path), tmp_path)


def test_a_pixel_format_that_predictions_cannot_have_is_told_with_the_line_of_the_config(tmp_path: Path) -> None:
    make(tmp_path / "set", val=0, test=0)
    path = tmp_path / "c.yaml"
    path.write_text(
        "data:\n  root: set/train\n  train: {images: images, masks: masks}\n  mask_mode: RGB\n"
        "  classes: [{name: a, values: [0]}, {name: b, values: [1]}]\n"
    )
    with pytest.raises(ConfigError, match=r"c\.yaml:4: data\.mask_mode: RGB cannot hold data\.encoding index"):
        check(load_config(path), tmp_path)


def test_classes_that_never_occur_are_told_for_each_split(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    config = replace(config, data=replace(config.data, classes=(*CLASSES, ClassSpec("root", (3,)))))
    for path in (tmp_path / "set/val/masks").iterdir():
        edit(path, lambda mask: mask[:3].fill(1))
    findings = found(config, tmp_path)
    assert findings["SEG401"].message == "1 class never occurs in the train masks: root"
    assert findings["SEG402"].message == "1 class never occurs in the val masks: pod"
    assert {findings["SEG401"].severity, findings["SEG402"].severity} == {"warning"}


def test_a_class_that_few_masks_alone_have_is_told_with_their_files(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    config = replace(config, data=replace(config.data, classes=(*CLASSES, ClassSpec("slip", (3,)))))
    edit(tmp_path / "set/train/masks/train_4.png", lambda mask: mask[:1, :3].fill(3))
    findings = check(config, tmp_path)
    assert [finding.code for finding in findings] == ["SEG402", "SEG402", "SEG403"]
    for finding in findings:
        assert finding.files == ("train/masks/train_4.png",)
        assert "all that there are in train/masks/train_4.png" in finding.example
    many = make(tmp_path / "many", train=18)
    many = replace(many, data=replace(many.data, classes=config.data.classes))
    for stem in ("train_4", "train_7"):
        edit(tmp_path / f"many/train/masks/{stem}.png", lambda mask: mask[:1, :3].fill(3))
    told = next(finding for finding in check(many, tmp_path) if finding.code == "SEG402")
    assert told.files == ("train/masks/train_4.png", "train/masks/train_7.png")
    assert "all that there are in train/masks/train_4.png and 1 other" in told.example
    few = make(tmp_path / "few", train=3, val=1, test=0)
    few = replace(few, data=replace(few.data, test=None, classes=config.data.classes))
    edit(tmp_path / "few/train/masks/train_1.png", lambda mask: mask[:1, :3].fill(3))
    findings = check(few, tmp_path)
    assert [finding.files for finding in findings if finding.code == "SEG402"] == [()]  # of four masks, one is many


def test_a_rare_class_is_a_note_with_its_share(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    for split in ("train", "val", "test"):
        for index, path in enumerate(sorted((tmp_path / f"set/{split}/masks").iterdir())):
            edit(path, lambda mask: mask[:3, :4].fill(0))
            if index == 0:
                edit(path, lambda mask: mask[0, :1].fill(2))
    findings = found(config, tmp_path)
    assert list(findings) == ["SEG403"]
    assert "pod 0.016 %" in findings["SEG403"].message  # 1 of 8 * 768


def test_of_many_rare_classes_the_rarest_are_named(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    rare = tuple(ClassSpec(f"rare {value}", (value,)) for value in range(3, 13))
    config = replace(config, data=replace(config.data, classes=(*CLASSES, *rare)))
    row = np.repeat(np.arange(12, 2, -1), [1] + 9 * [2])
    for name in ("train/masks/train_0", "val/masks/val_0", "test/masks/test_0"):
        edit(tmp_path / f"set/{name}.png", lambda mask: np.copyto(mask[5, : len(row)], row, casting="unsafe"))
    finding = found(config, tmp_path)["SEG403"]
    assert finding.count == 10
    named = "rare 12 0.016 %, " + ", ".join(f"rare {value} 0.033 %" for value in range(3, 10))
    assert finding.message == f"10 classes under 0.1 % of the training pixels: {named}, …"


def test_masks_ignored_as_a_whole_are_a_warning_and_blank_ones_a_note(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    config = replace(config, data=replace(config.data, ignore=(255,)))
    edit(tmp_path / "set/train/masks/train_0.png", lambda mask: mask.fill(255))
    edit(tmp_path / "set/train/masks/train_1.png", lambda mask: mask.fill(1))
    edit(tmp_path / "set/train/masks/train_2.png", lambda mask: mask.fill(255))
    edit(tmp_path / "set/train/masks/train_2.png", lambda mask: mask[0].fill(7))
    findings = found(config, tmp_path)
    assert {code: (f.severity, f.files) for code, f in findings.items()} == {
        "SEG302": ("error", ("train/masks/train_2.png",)),
        "SEG304": ("warning", ("train/masks/train_0.png",)),
        "SEG305": ("note", ("train/masks/train_1.png",)),
    }


def test_training_masks_that_are_all_ignored_as_a_whole_are_an_error(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    config = replace(config, data=replace(config.data, ignore=(255,)))
    masks = sorted((tmp_path / "set/train/masks").iterdir())
    for path in masks[1:]:
        edit(path, lambda mask: mask.fill(255))
    assert found(config, tmp_path)["SEG304"].severity == "warning"
    edit(masks[0], lambda mask: mask.fill(255))
    finding = found(config, tmp_path)["SEG304"]
    assert finding.severity == "error"
    assert finding.message == f"{len(masks)} masks ignored in every pixel, all training masks among them"


def test_one_picture_in_two_splits_is_told_even_when_stored_in_another_format(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    (tmp_path / "set/val/images/val_0.png").unlink()
    Image.open(tmp_path / "set/train/images/train_5.png").save(tmp_path / "set/val/images/val_0.bmp")
    finding = found(config, tmp_path)["SEG501"]
    assert (finding.severity, finding.count) == ("warning", 1)
    assert finding.files == ("train/images/train_5.png", "val/images/val_0.bmp")


def test_one_picture_under_one_name_in_two_splits_is_told_once(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    for split in ("train", "val"):
        shutil.copy(tmp_path / "set/test/images/test_0.png", tmp_path / f"set/{split}/images/site.png")
        shutil.copy(tmp_path / "set/test/masks/test_0.png", tmp_path / f"set/{split}/masks/site.png")
    (tmp_path / "set/test/images/test_0.png").unlink()
    (tmp_path / "set/test/masks/test_0.png").unlink()
    findings = found(config, tmp_path)
    assert "SEG502" not in findings
    assert findings["SEG501"].example == "train/images/site.png (train) = val/images/site.png (val)"


def test_pictures_of_one_colour_are_no_picture_in_two_splits(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    for split in ("train", "val"):
        Image.new("RGB", (32, 32)).save(tmp_path / f"set/{split}/images/{split}_0.png")
    assert "SEG501" not in found(config, tmp_path)


def rename(root: Path, pattern: str) -> None:
    for split in ("train", "val", "test"):
        for kind in ("images", "masks"):
            for index, path in enumerate(sorted((root / split / kind).iterdir())):
                path.rename(path.with_name(pattern.format(index, "abcdefghijk"[index]) + ".png"))


def test_numbering_that_starts_again_in_each_split_is_no_finding(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    rename(tmp_path / "set", "frame_{0:04d}")
    assert check(config, tmp_path) == []


def test_a_single_number_in_two_splits_whose_numbers_go_on_is_a_note(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    for kind in ("images", "masks"):
        for split, first in (("train", 0), ("val", 100), ("test", 200)):
            for index, path in enumerate(sorted((tmp_path / "set" / split / kind).iterdir())):
                path.rename(path.with_name(f"frame_{first + index:04d}.png"))
        (tmp_path / f"set/val/{kind}/frame_0101.png").rename(tmp_path / f"set/val/{kind}/frame_0002.png")
    assert [(f.code, f.severity, f.files) for f in check(config, tmp_path)] == [("SEG502", "note", ("frame_0002",))]


def test_the_same_words_for_different_pictures_are_a_note(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    rename(tmp_path / "set", "site_{1}")
    findings = found(config, tmp_path)
    assert {code: f.severity for code, f in findings.items()} == {"SEG502": "note"}
    assert findings["SEG502"].count == 3


def test_few_training_pairs_and_too_large_a_crop_are_told(tmp_path: Path) -> None:
    config = make(tmp_path / "set", train=4)
    assert {code: f.severity for code, f in found(config, tmp_path).items()} == {"SEG503": "warning"}
    (tmp_path / "b").mkdir()
    config = replace(make(tmp_path / "b/set"), augment=Augment(crop=(32, 32)))
    assert check(config, tmp_path / "b") == []
    config = replace(config, augment=Augment(crop=(64, 32)))
    assert {code: f.severity for code, f in found(config, tmp_path / "b").items()} == {"SEG601": "note"}


def test_jpeg_artefacts_in_images_of_16_bits_are_an_error(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    config = replace(config, data=replace(config.data, channels=1), augment=Augment(jpeg=50))
    assert "SEG602" not in found(config, tmp_path)
    deep = np.asarray(picture(50).convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "set/train/images/train_2.png")
    finding = found(config, tmp_path)["SEG602"]
    assert (finding.severity, finding.count, finding.files) == ("error", 1, ("train/images/train_2.png",))
    assert "SEG602" not in found(replace(config, augment=Augment()), tmp_path)


def test_a_class_that_no_prediction_can_be_written_with_is_an_error_before_training(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    *others, last = config.data.classes
    large = replace(last, values=(70_000, *last.values))
    finding = found(replace(config, data=replace(config.data, classes=(*others, large))), tmp_path)["SEG603"]
    assert (finding.severity, finding.count) == ("error", 1)
    assert "predictions would need 70000" in finding.example
    assert "as in `values: [" in finding.remedy
    small = replace(last, values=(*last.values, 70_000))
    assert found(replace(config, data=replace(config.data, classes=(*others, small))), tmp_path) == {}


def test_jpeg_artefacts_in_colour_of_16_bits_are_an_error_too(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    config = replace(make(tmp_path / "set"), augment=Augment(jpeg=50))
    path = tmp_path / "set/train/images/train_2.tif"
    tifffile.imwrite(path, np.asarray(picture(50)).astype(np.uint16) * 257, photometric="rgb")
    path.with_suffix(".png").unlink()
    os.utime(path, (0, 0))  # what was left alone for long is kept in the cache
    for _ in range(2):
        finding = found(config, tmp_path)["SEG602"]
        assert (finding.severity, finding.count, finding.files) == ("error", 1, ("train/images/train_2.tif",))


def test_a_mixture_of_pixel_formats_is_a_note(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    picture(50).convert("L").save(tmp_path / "set/train/images/train_2.png")
    finding = found(config, tmp_path)["SEG204"]
    assert finding.severity == "note"
    assert finding.files == ("train/images/train_2.png",)
    picture(50).quantize(256).save(tmp_path / "set/train/images/train_2.png")
    assert check(config, tmp_path) == []  # a palette is one way of storing colours


def test_errors_come_first_and_every_finding_says_what_to_do(tmp_path: Path) -> None:
    config = make(tmp_path / "set", train=4)
    (tmp_path / "set/train/images/train_0.png").write_bytes(b"")
    edit(tmp_path / "set/train/masks/train_1.png", lambda mask: mask.fill(1))
    findings = check(config, tmp_path)
    order = [("error", "warning", "note").index(finding.severity) for finding in findings]
    assert order == sorted(order)
    assert len(set(order)) == 3
    assert all(finding.message and finding.example and finding.remedy and finding.count for finding in findings)


def test_a_new_check_is_a_decorated_function() -> None:
    assert len(CHECKS) >= 30
    assert all(function.__doc__ and "SEG" in function.__doc__ for function in CHECKS)


def test_every_code_is_in_the_documentation_with_its_severities() -> None:
    here = Path(__file__).parent.parent
    source = "".join(path.read_text() for path in (here / "segtool/check").glob("of_*.py"))
    page = (here / "docs/checks.md").read_text()
    listed = {code: set(severities.split(", ")) for code, severities in re.findall(r"\| (SEG\d+) \| (.*?) \|", page)}
    told = {code for function in CHECKS for code in re.findall(r"SEG\d{3}", function.__doc__ or "")}
    assert set(listed) == told
    assert set(re.findall(r"SEG\d{3}", source)) == told
    assert list(listed) == sorted(listed)
    given: dict[str, set[str]] = {}
    for code, severity in re.findall(r'"(SEG\d{3})",\s+("\w+"(?: if .+ else "\w+")?),', source):
        if severities := re.findall(r'"(error|warning|note)"', severity):
            given.setdefault(code, set()).update(severities)
    assert {code: listed[code] for code in given} == given
    assert len(given) >= 30


def test_the_summary_counts_as_a_slow_loop_counts(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    config = replace(config, data=replace(config.data, ignore=(255,)))
    picture(70, (30, 40)).save(tmp_path / "set/train/images/train_0.png")
    large = truth(70, (30, 40))
    large[-2:] = 255
    Image.fromarray(large).save(tmp_path / "set/train/masks/train_0.png")
    figures = examine(config, tmp_path).summary
    masks = [np.array(Image.open(path)) for path in (tmp_path / "set/train/masks").iterdir()]
    train = figures.splits["train"]
    assert train.pixels == {n: sum(int((m == k).sum()) for m in masks) for k, n in enumerate(figures.classes)}
    assert train.ignored == 80
    assert train.sizes == {"smallest": (24, 32), "median": (24, 32), "largest": (30, 40)}
    assert {name: part.pairs for name, part in figures.splits.items()} == {"train": 8, "val": 3, "test": 2}


def test_an_ignored_value_of_a_few_pixels_in_one_mask_alone_is_told_with_file_and_pixel(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    config = replace(config, data=replace(config.data, ignore=(7, 255)))
    for index in range(8):  # a border of void, as in many sets
        edit(tmp_path / f"set/train/masks/train_{index}.png", lambda mask: mask.__setitem__((slice(None), 31), 255))
    assert "SEG310" not in found(config, tmp_path)
    slip = tmp_path / "set/train/masks/train_4.png"
    edit(slip, lambda mask: mask.__setitem__((9, slice(11, 14)), 7))
    finding = found(config, tmp_path)["SEG310"]
    assert (finding.severity, finding.count, finding.files) == ("note", 1, ("train/masks/train_4.png",))
    assert finding.example == "train/masks/train_4.png: 7 at (11, 9), 3 pixels in this file"
    edit(slip, lambda mask: mask.__setitem__((slice(12, 15), slice(6)), 7))  # 21 pixels in all: an area
    assert "SEG310" not in found(config, tmp_path)
    edit(slip, lambda mask: mask.__setitem__((slice(12, 15), slice(6)), 0))
    edit(tmp_path / "set/val/masks/val_1.png", lambda mask: mask.__setitem__((0, 0), 7))
    assert "SEG310" not in found(config, tmp_path)  # two masks have it: it means something


def test_an_ignored_colour_of_one_pixel_is_told_as_a_colour(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    colors = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8)
    for path in (tmp_path / "set").rglob("masks/*.png"):
        Image.fromarray(colors[np.array(Image.open(path))]).save(path)
    classes = tuple(
        ClassSpec(c.name, colors=(f"#{r:02x}{g:02x}{b:02x}",)) for c, (r, g, b) in zip(CLASSES, colors, strict=True)
    )
    config = replace(config, data=replace(config.data, classes=classes, encoding="rgb", ignore=("#0a0b0c",)))
    assert "SEG310" not in found(config, tmp_path)
    edit(tmp_path / "set/test/masks/test_1.png", lambda mask: mask.__setitem__((3, 5), (10, 11, 12)))
    assert found(config, tmp_path)["SEG310"].example == "test/masks/test_1.png: #0a0b0c at (5, 3), 1 pixel in this file"


def test_json_holds_findings_counts_and_splits_as_plain_data(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    (tmp_path / "set/train/images/train_0.png").write_bytes(b"")
    report = examine(config, tmp_path)
    document = json.loads(json.dumps(to_json(report.findings, report.summary)))
    assert set(document["findings"][0]) == {"code", "severity", "message", "count", "files", "example", "remedy"}
    assert document["findings"][0]["files"] == ["train/images/train_0.png"]
    assert document["counts"] == {"error": 1, "warning": 0, "note": 0}
    assert document["splits"]["val"]["pairs"] == 3
    assert sum(document["splits"]["val"]["pixels"].values()) == 3 * 24 * 32


def test_people_are_told_the_first_files_and_json_names_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    names = tuple(f"a{number:02d}.png" for number in range(30))
    for severity, most in (("error", 20), ("warning", 20), ("note", 5)):
        finding = Finding("SEG501", severity, "told", 30, names, "first", "do it")
        render(Console(width=2000), [finding])
        printed = capsys.readouterr().out
        assert "files a00.png, a01.png, " in printed
        assert f"a{most - 1:02d}.png, … (--json names 30)\n" in printed
        assert f"a{most:02d}.png" not in printed
        assert to_json([finding])["findings"][0]["files"] == list(names)
    render(Console(width=2000), [Finding("SEG501", "note", "told", 5, names[:5], "first", "do it")])
    assert "a04.png\n" in capsys.readouterr().out


def test_masks_of_other_images_are_not_told_as_turned_besides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make(tmp_path / "set")
    for turned, told in ((("a.png",), ["SEG109"]), (("a.png", "c.png"), ["SEG109", "SEG209"])):
        named = {"SEG109": ("a.png", "b.png"), "SEG209": turned}
        found = [Finding(code, "warning", "told", len(names), names, "first", "do it") for code, names in named.items()]
        monkeypatch.setattr("segtool.check.report.CHECKS", [lambda _, found=found: iter(found)])
        monkeypatch.setattr("segtool.check.report.fingerprint", lambda *_: "")
        assert [finding.code for finding in examine(config, tmp_path).findings] == told


def test_progress_counts_every_file_once(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    examine(make(tmp_path / "set"), tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 26) for done in range(1, 27)]


def test_file_names_are_printed_as_text_without_control_characters(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    name = "[red]x[bold]\x1b[2J.png"
    picture(60).save(tmp_path / "set/train/images" / name)
    report = examine(config, tmp_path)
    console = Console(width=200, record=True, force_terminal=False, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        render(console, report.findings, report.summary)
    text = console.export_text()
    assert "[red]x[bold]\\x1b[2J.png" in text
    assert "\x1b" not in text
    assert "\x1b" not in json.dumps(to_json(report.findings))


@pytest.mark.parametrize(
    ("name", "classes", "ignore"),
    [("camvid", range(11), (11,)), ("em_membrane", (0, 255), ()), ("samples/suim", (), ())],
)
def test_real_sets_under_a_right_config_give_no_error_and_no_untrue_warning(
    name: str, classes: tuple[int, ...], ignore: tuple[int, ...]
) -> None:
    root = REAL / name
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    specs = tuple(ClassSpec(f"c{value}", (value,)) for value in classes)
    data = Data(root=str(root), train=Folders("images", "masks"), classes=specs, ignore=ignore)
    if name == "camvid":  # the test images double as training images here, to keep this test short
        data = replace(data, train=Folders("val/images", "val/masks"))
    if name == "samples/suim":
        colors = ("#000000", "#0000ff", "#00ffff", "#ff0000", "#ff00ff", "#ffff00")
        data = replace(data, encoding="rgb", classes=tuple(ClassSpec(c, colors=(c,)) for c in colors))
    findings = check(Config(data=data), Path("/"))
    assert [f for f in findings if f.severity == "error"] == []
    warnings = [f.code for f in findings if f.severity == "warning"]
    assert warnings == (["SEG506"] if name == "camvid" else [])  # frames of one video, divided by chance


def test_palette_masks_read_by_colour_tell_colours_that_are_no_class(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    for path in (tmp_path / "set").glob("*/masks/*.png"):
        image = Image.fromarray(np.array(Image.open(path)))
        image.putpalette(bytes([0, 0, 0, 255, 0, 0, 0, 0, 255, 9, 8, 7]))
        image.save(path)
    classes = tuple(ClassSpec(n, colors=(c,)) for n, c in (("a", "#000000"), ("b", "#ff0000"), ("c", "#0000ff")))
    config = replace(config, data=replace(config.data, encoding="palette", classes=classes))
    assert check(config, tmp_path) == []
    path = tmp_path / "set/val/masks/val_1.png"
    image = Image.open(path)
    image.putpixel((6, 4), 3)
    image.save(path)
    assert found(config, tmp_path)["SEG302"].example == "val/masks/val_1.png: #090807 at (6, 4), 1 pixel in this file"


def test_thousands_of_stray_colours_are_one_finding(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    for seed, path in enumerate(sorted((tmp_path / "set").glob("*/masks/*.png"))):
        picture(seed, (100, 100)).save(path)
        picture(100 + seed, (100, 100)).save(path.parent.parent / "images" / path.name)
    classes = (ClassSpec("a", colors=("#000000",)), ClassSpec("b", colors=("#ffffff",)))
    config = replace(config, data=replace(config.data, encoding="rgb", classes=classes))
    finding = found(config, tmp_path)["SEG302"]
    assert finding.count == 13
    assert "more" in finding.message
    assert "data.nearest" in finding.remedy
