import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from segtool import cli
from segtool.commands import demo
from segtool.commands.demo import BUILDING, CLASSES, FIELD, MEADOW, ROAD, TREE, WATER, draw_scene, make_dataset

ALL = set(range(len(CLASSES)))


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(0, "train", index) for index in range(40)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    make_dataset(root, sizes={"train": 6, "val": 4, "test": 5})
    return root


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def test_a_data_set_has_as_many_pairs_of_the_same_name_as_were_asked_for(dataset):
    for split, count in {"train": 6, "val": 4, "test": 5}.items():
        expected = [f"{index:04d}.png" for index in range(count)]
        for kind in ("images", "masks"):
            assert sorted(p.name for p in (dataset / split / kind).iterdir()) == expected


def test_images_are_rgb_and_masks_grey_png_of_one_size(dataset):
    for path in dataset.glob("*/*/*.png"):
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.size == (128, 96)
            assert picture.mode == ("RGB" if path.parent.name == "images" else "L")


def test_every_class_occurs_in_every_split_and_nothing_else_does(dataset):
    for split in ("train", "val", "test"):
        values = {value for path in (dataset / split / "masks").iterdir() for value in np.unique(pixels(path)).tolist()}
        assert values == ALL


def test_the_files_hold_what_draw_scene_returns(dataset):
    image, mask = draw_scene(0, "val", 3)
    assert np.array_equal(pixels(dataset / "val/images/0003.png"), image)
    assert np.array_equal(pixels(dataset / "val/masks/0003.png"), mask)


def test_the_names_stand_in_a_file_in_the_order_of_the_mask_values(dataset):
    names = (dataset / "classes.txt").read_text(encoding="utf-8").splitlines()
    assert names == ["meadow", "field", "water", "road", "building", "tree"]
    assert [names[value] for value in (MEADOW, FIELD, WATER, ROAD, BUILDING, TREE)] == names


def test_another_process_draws_the_same_scene():
    program = (
        "import zlib; from segtool.commands.demo import draw_scene;"
        "print(*(zlib.crc32(array.tobytes()) for array in draw_scene(3, 'val', 7)))"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    here = " ".join(str(zlib.crc32(array.tobytes())) for array in draw_scene(3, "val", 7))
    assert {digest.strip() for digest in digests} == {here}


@pytest.mark.parametrize("other", [(1, "train", 0), (0, "val", 0), (0, "train", 1)])
def test_seed_split_and_number_each_make_another_scene(other):
    image, mask = draw_scene(0, "train", 0)
    other_image, other_mask = draw_scene(*other)
    assert (image != other_image).any(axis=2).mean() > 0.9
    assert (mask != other_mask).mean() > 0.1


def test_a_larger_split_begins_with_the_pairs_of_the_smaller_one(dataset, tmp_path):
    make_dataset(tmp_path, sizes={"train": 2})
    for path in tmp_path.glob("train/*/*.png"):
        assert np.array_equal(pixels(path), pixels(dataset / path.relative_to(tmp_path)))
    assert {p.name for p in tmp_path.iterdir()} == {"train", "classes.txt"}


def test_no_class_is_rare_and_none_takes_all(scenes):
    counts = np.bincount(np.concatenate([mask.ravel() for _, mask in scenes]), minlength=len(CLASSES))
    shares = counts / counts.sum()
    assert (shares > 0.02).all()
    assert (shares < 0.75).all()


def test_roads_are_two_to_four_pixels_wide_where_nothing_hides_them(scenes):
    """By squares: nearly every road pixel lies in a 2x2 square of road, hardly any in one of 5x5."""

    def covered(road, side):
        windows = np.lib.stride_tricks.sliding_window_view(road, (side, side)).all(axis=(2, 3))
        inside = np.zeros(road.shape, bool)
        for y, x in np.argwhere(windows):
            inside[y : y + side, x : x + side] = True
        return inside.sum()

    roads = [mask == ROAD for _, mask in scenes]
    total = sum(road.sum() for road in roads)
    assert sum(covered(road, 2) for road in roads) > 0.85 * total
    assert sum(covered(road, 5) for road in roads) < 0.1 * total


def test_a_field_keeps_the_colour_of_the_meadow_under_it():
    for seed in range(10):
        scene = demo._Scene.empty(np.random.default_rng(seed), 96, 128)
        scene.draw_meadow()
        meadow = scene.canvas.color.copy()
        scene.draw_field()
        change = (scene.canvas.color - meadow)[scene.canvas.labels == FIELD]
        assert np.abs(change.mean(axis=0)).max() < 0.01
        assert change.std() > 0.06  # the furrows


def test_furrows_set_a_field_apart_in_the_photograph(scenes):
    contrasts = []
    for image, mask in scenes:
        if (mask == FIELD).sum() > 500:
            grey = image.astype(float).mean(axis=2)
            detail = np.abs(grey - sum(np.roll(grey, shift, axis) for shift in (-2, 2) for axis in (0, 1)) / 4)
            contrasts.append(np.median(detail[mask == FIELD]) / np.median(detail[mask == MEADOW]))
    assert len(contrasts) > 20
    assert np.median(contrasts) > 1.5


def test_the_mask_says_what_the_image_shows(scenes):
    """Water is the one blue thing: the colour alone finds it, to the pixel, where nothing else is near."""
    for image, mask in scenes:
        water = mask == WATER
        if water.sum() < 300:
            continue
        image = image.astype(int)
        blueness = image[..., 2] - image[..., 0]
        assert blueness[water].mean() > 15
        assert blueness[mask == MEADOW].mean() < 0


def test_shapes_are_smooth_in_the_image_and_exact_in_the_mask():
    canvas = demo._Canvas(
        np.arange(4)[:, None] + 0.5, np.arange(6)[None] + 0.5, np.zeros((4, 6, 3)), np.zeros((4, 6), np.uint8)
    )
    distance = np.broadcast_to(np.abs(canvas.x - 3.0) - 1.25, (4, 6))  # a bar from x = 1.75 to x = 4.25
    canvas.paint(distance, np.ones((4, 6, 3)), 5)
    assert canvas.labels[0].tolist() == [0, 0, 5, 5, 0, 0]
    assert canvas.color[0, :, 0].tolist() == [0, 0.25, 1, 1, 0.25, 0]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (37, 5), (96, 128), (200, 300)])
def test_any_size_can_be_drawn(height, width):
    image, mask = draw_scene(0, "train", 0, height=height, width=width)
    assert (image.shape, image.dtype) == ((height, width, 3), np.uint8)
    assert (mask.shape, mask.dtype) == ((height, width), np.uint8)
    assert set(np.unique(mask).tolist()) <= ALL


def test_a_large_scene_has_more_things_and_not_larger_ones():
    def trees(height, width):
        return [(draw_scene(0, "x", i, height=height, width=width)[1] == TREE).mean() for i in range(4)]

    assert 0.5 < np.mean(trees(288, 384)) / np.mean(trees(96, 128)) < 2


def test_names_and_colours_of_the_classes_are_distinct():
    assert len({name for name, _ in CLASSES}) == len({ImageColor.getrgb(color) for _, color in CLASSES}) == len(CLASSES)


def test_drawing_needs_no_torch():
    program = "import sys, segtool.commands.demo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_folder_whose_name_begins_with_a_dash_is_taken_for_no_option(monkeypatch, tmp_path):
    commands: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "make_dataset", lambda _: None)
    monkeypatch.setattr(cli, "app", lambda words, **_: commands.append(words))
    cli.demo(Path("-x"))
    assert commands[0] == ["init", "./-x/data", "--out", "./-x/config.yaml"]
    assert not [word for words in commands for word in words if word.startswith("-") and not word.startswith("--")]


def test_what_a_command_of_the_demo_prints_stands_below_it_in_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    with log.open("a") as results, log.open("a", buffering=1) as told:  # as `segtool demo > log 2>&1` opens them
        monkeypatch.setattr(sys, "stdout", results)
        monkeypatch.setattr(sys, "stderr", told)
        monkeypatch.setattr(demo, "make_dataset", lambda _: None)
        monkeypatch.setattr(cli, "app", lambda arguments, **_: print(f"result of {arguments[0]}"))
        cli.demo(tmp_path / "demo")
    words = [line.split()[2] for line in log.read_text().splitlines() if line.startswith(("$", "result"))]
    assert words == [word for command in ("init", "check", "train", "eval", "predict") for word in [command] * 2]
