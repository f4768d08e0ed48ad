"""What `init` concludes from the pixels of the masks: encodings, names, and how to train."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import check
from PIL import Image
from test_scaffold import REAL, init, make_set, problems, regions, write_image, write_mask

from segtool.data.facts import facts_of_masks
from segtool.data.formats import split_records
from segtool.data.labels import Labels
from segtool.data.splits import class_presence
from segtool.errors import DataError
from segtool.init.encoding import guess_encoding
from segtool.init.evidence import snapped
from segtool.init.recipe import (
    ACTIVATIONS,
    MODELS,
    USUAL_CROP,
    choose_batch,
    choose_channels,
    choose_crop,
    choose_length,
)
from segtool.init.sequences import find_sequences
from segtool.init.shapes import measure_shapes
from segtool.init.standards import CITYSCAPES, voc_color
from segtool.models.layers import describe
from segtool.models.segmenter import build_model


def text(tmp_path: Path) -> str:
    """Returns the config that `init` wrote, comments joined to one line."""
    lines = (tmp_path / "config.yaml").read_text(encoding="utf-8").splitlines()
    return " ".join(line.strip().removeprefix("# ") for line in lines)


def disc(radius: int, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """Returns H W, 1 within a circle in the middle and 0 around it."""
    y, x = np.mgrid[: size[0], : size[1]]
    return ((y - size[0] / 2) ** 2 + (x - size[1] / 2) ** 2 < radius**2).astype(np.int64)


# ------------------------------------------------------------------------------------------------- instances


def grids() -> list[np.ndarray]:
    """Returns 6 masks of numbers 1 to 40 that stand apart, in each of another size."""
    cells = [np.pad(np.ones((4 + i, 8), np.int64), ((2, 6 - i), (2, 2))) for i in range(6)]
    return [np.kron(np.arange(1, 41).reshape(5, 8), cell) for cell in cells]


@pytest.mark.parametrize(
    "kind",
    ["lone ids", "many ids", "counted from 1", "with a border of 255", "with a border of 255 in 16 bits", "hidden ids"],
)
def test_instance_ids_become_background_and_object_with_a_loud_comment(tmp_path: Path, kind: str) -> None:
    masks = [regions(i, list(range(12 + i)), (64, 96)) for i in range(6)]
    if kind == "many ids":
        masks = [np.kron(np.arange(100).reshape(10, 10) * 7, np.ones((4, 4), np.int64)) for _ in range(2)]
    if kind == "counted from 1":  # of many masks with few objects each
        masks = [regions(i, list(range(1 + (5 * i + 3) % 8))) for i in range(24)]
    if kind == "hidden ids":  # behind others that were numbered later, in most masks
        masks = [np.where((grid <= 12 + 4 * i) & (grid != 4 + i), grid, 0) for i, grid in enumerate(grids())]
    if kind.startswith("with a border of 255"):
        for mask in masks:
            mask[40:44, 50:60] = 255
    root = make_set(tmp_path / "set", masks)
    for i, mask in enumerate(masks if kind.endswith("16 bits") else ()):
        Image.fromarray(mask.astype(np.uint16)).save(root / f"masks/p{i}.png")
    config = init(root)
    labels = Labels.from_config(config.data)
    assert labels.names == ("background", "object")
    assert "THE VALUES LOOK LIKE INSTANCE IDS" in text(tmp_path)
    assert [f.code for f in check(config, tmp_path) if f.severity == "error"] == []
    expected = np.where(masks[1] == 255, 255, masks[1] > 0)
    assert np.array_equal(labels.read(root / "masks/p1.png", max_pixels=10**8), expected)
    assert set(np.unique(np.asarray(labels.encode(np.array([[0, 1]], np.uint8)))).tolist()) == {0, 1}


def test_numbered_teeth_some_of_which_are_lost_are_classes(tmp_path: Path) -> None:
    masks = [np.where((grid <= 32 - i) & (grid != 4 + i), grid, 0) for i, grid in enumerate(grids())]
    assert len(init(make_set(tmp_path / "set", masks)).data.classes) == 33


def test_classes_that_leave_gaps_in_some_masks_are_no_instance_ids(tmp_path: Path) -> None:
    masks = [regions(i, sorted({0, *(1 + (i + k) % 8 for k in range(1 + i % 6))})) for i in range(24)]
    assert len(init(make_set(tmp_path / "set", masks)).data.classes) == 9


def blobs(num: int, size: tuple[int, int]) -> np.ndarray:
    """Returns H W, discs of 1 to `num` at places of their own."""
    rng, mask, (y, x) = np.random.default_rng(0), np.zeros(size, np.int64), np.mgrid[: size[0], : size[1]]
    places = rng.permutation(np.argwhere(np.ones((size[0] // 16, size[1] // 16))))[:num] * 16 + 8
    for number, (row, column) in enumerate(places, 1):
        mask[(y - row) ** 2 + (x - column) ** 2 < rng.uniform(3, 7) ** 2] = number
    return mask


@pytest.mark.parametrize(("rows", "columns", "overlap"), [(2, 4, 0), (2, 4, 12), (4, 4, 12), (1, 3, 0)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_ids_in_few_tiles_of_one_picture_are_objects(
    tmp_path: Path, rows: int, columns: int, overlap: int, mode: str
) -> None:
    whole = blobs(65, (192, 192))
    height, width = 192 // rows, 192 // columns
    corners = [(row * height, column * width) for row in range(rows) for column in range(columns)]
    root = make_set(tmp_path / "set", [whole[y : y + height + overlap, x : x + width + overlap] for y, x in corners])
    for path in (root / "masks").iterdir() if mode == "RGB" else ():
        red = Image.open(path)
        Image.merge("RGB", [red, Image.new("L", red.size), Image.new("L", red.size)]).save(path)
    assert Labels.from_config(init(root).data).names == ("background", "object")


@pytest.mark.parametrize("wide", [False, True])
def test_many_classes_that_few_masks_have_are_classes(tmp_path: Path, wide: bool) -> None:
    """Each class is in one mask of eight alone, in pieces."""
    rng = np.random.default_rng(0)
    masks = [np.kron(rng.integers(9 * i, 9 * i + 10, (12, 16)), np.ones((5, 5), np.int64)) for i in range(8)]
    root = make_set(tmp_path / "set", masks)
    for i, mask in enumerate(masks if wide else ()):
        Image.fromarray(mask.astype(np.uint16)).save(root / f"masks/p{i}.png")
    assert len(init(root).data.classes) == 73


def test_the_values_of_soft_edges_are_no_objects(tmp_path: Path) -> None:
    """In small masks each value between 0 and 255 is a pixel or two, one region in most of them."""
    y, x = np.mgrid[:36, :48]
    places = np.random.default_rng(0).uniform((10, 10, 5), (26, 38, 9), (12, 3))
    masks = [np.uint8(255 * np.clip(r - np.hypot(y - row, x - column), 0, 1)) for row, column, r in places]
    assert len(np.unique(masks)) > 100
    data = init(make_set(tmp_path / "set", masks)).data
    assert (data.encoding, [c.values for c in data.classes]) == ("threshold", [(0,), (255,)])


def test_real_instance_ids_are_objects() -> None:
    folder = REAL / "samples/tif16/masks"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    guess = guess_encoding([*facts_of_masks(sorted(folder.iterdir()), max_pixels=10**8)])
    assert (guess.codes, guess.spans) == (((0,), (1,)), {1: 65535})


def test_a_number_for_each_region_without_a_background_is_refused(tmp_path: Path) -> None:
    regions_of_4 = np.kron(np.arange(1, 301).reshape(15, 20), np.ones((4, 4), np.int64))
    with pytest.raises(DataError, match=r"3 masks: 300 distinct values, .* Expected at most 255"):
        init(make_set(tmp_path / "set", [regions_of_4] * 3))


def test_a_colour_for_each_object_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    root = tmp_path / "set"
    for i in range(6):
        blocks = rng.integers(0, 256, (6, 8, 3)) * (rng.random((6, 8, 1)) < 0.5)
        write_image(root / f"images/p{i}.png", i)
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.kron(blocks, np.ones((8, 8, 1))).astype(np.uint8)).save(root / f"masks/p{i}.png")
    with pytest.raises(DataError, match="each object has a colour of its own"):
        init(root)


# ------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("rare", "listed", "names", "is_class"),
    [
        (77, "classes.txt", "soil leaf stem", False),
        (77, "classes.csv", "soil leaf stem", False),
        (3, "classes.txt", "soil leaf stem root", True),
        (3, "classes.txt", "leaf stem root", True),
        (77, "classes.csv", "soil leaf stem root", True),
        (77, "", "", True),
    ],
)
def test_a_few_pixels_of_one_mask_are_a_slip_where_all_but_their_value_have_names(
    tmp_path: Path, rare: int, listed: str, names: str, is_class: bool
) -> None:
    masks = [regions(i, [0, 1, 2]) for i in range(8)]
    masks[3][10:17, 20:27] = rare
    root = make_set(tmp_path / "set", masks)
    if listed == "classes.txt":
        (root / listed).write_text("\n".join(names.split()))
    elif listed:
        rows = [f"{value},{name}" for value, name in zip((0, 1, 2, rare), names.split(), strict=False)]
        (root / listed).write_text("\n".join(["value,name", *rows]))
    config = init(root)
    assert len(config.data.classes) == 3 + is_class
    assert config.data.ignore == (() if is_class else (rare,))
    found = [spec.name for spec in config.data.classes]
    assert found[-len(names.split()) :] == names.split() if names else "take its row out" in text(tmp_path)
    assert ("77: a few pixels in one mask, and no name for it: a slip" in text(tmp_path)) != is_class


@pytest.mark.parametrize("values", [(0, 255), (0, 1), (1, 2)])
def test_of_two_values_the_higher_is_the_object(tmp_path: Path, values: tuple[int, int]) -> None:
    config = init(make_set(tmp_path / "set", [np.array(values)[disc(10 + i)] for i in range(8)]))
    assert [(spec.name, spec.values) for spec in config.data.classes] == [
        ("background", (values[0],)),
        ("object", (values[1],)),
    ]
    assert f"{values[1]} is taken as the object" in text(tmp_path)


def test_the_higher_of_two_values_is_background_where_it_surrounds_most_of_what_there_is(tmp_path: Path) -> None:
    config = init(make_set(tmp_path / "set", [255 * (1 - disc(10 + i)) for i in range(8)]))
    assert [(spec.name, spec.values) for spec in config.data.classes] == [("background", (255,)), ("object", (0,))]
    large = [255 * disc(29) for i in range(8)]  # most of the image, but not at its edges
    config = init(make_set(tmp_path / "set", large))
    assert [(spec.name, spec.values) for spec in config.data.classes] == [("background", (0,)), ("object", (255,))]


def test_rgb_masks_of_0_and_1_get_names_and_colours_that_can_be_seen(tmp_path: Path) -> None:
    colors = np.array([[0, 0, 0], [1, 1, 1]])
    root = make_set(tmp_path / "set", [disc(8 + i) for i in range(8)], colors=colors)
    config = init(root)
    assert config.data.encoding == "rgb"
    assert [(spec.name, spec.colors) for spec in config.data.classes] == [
        ("background", ("#000000",)),
        ("object", ("#010101",)),
    ]
    shown_as = Labels.from_config(config.data).colors.astype(int)
    assert np.abs(shown_as[0] - shown_as[1]).max() > 60
    assert problems(config, root) == []


def test_small_values_are_said_to_look_black(tmp_path: Path) -> None:
    init(make_set(tmp_path / "set", [regions(i, [0, 1, 2]) for i in range(8)]))
    assert "alues up to 2 of 255 look black in a viewer" in text(tmp_path)
    init(make_set(tmp_path / "set2", [regions(i, [0, 255]) for i in range(8)]))
    assert "look black" not in text(tmp_path)


@pytest.mark.parametrize(("names", "values"), [("polyp\n", [0, 255]), ("cat\ndog\n", [0, 1, 2])])
def test_a_list_of_names_without_the_background_leaves_0_to_it(tmp_path: Path, names: str, values: list[int]) -> None:
    root = make_set(tmp_path / "set", [regions(i, values) for i in range(8)])
    (root / "classes.txt").write_text(names)
    assert [spec.name for spec in init(root).data.classes] == ["background", *names.split()]


def test_a_palette_of_near_blacks_is_not_what_overlays_show(tmp_path: Path) -> None:
    greys = np.repeat(np.arange(256)[:, None], 3, axis=1)
    root = make_set(tmp_path / "set", [regions(i, [0, 1, 2]) for i in range(8)], colors=greys, palette=True)
    assert [spec.color for spec in init(root).data.classes] == ["#e69f00", "#56b4e9", "#009e73"]


def test_the_border_of_a_trimap_is_pointed_out(tmp_path: Path) -> None:
    inside = [disc(12 + i) for i in range(8)]
    trimaps = [np.where(one, 1, np.where(disc(15 + i), 3, 2)) for i, one in enumerate(inside)]
    config = init(make_set(tmp_path / "set", trimaps))
    assert [spec.values for spec in config.data.classes] == [(1,), (2,), (3,)]
    assert "3 always lies between the other two" in text(tmp_path)
    init(make_set(tmp_path / "colors", trimaps, colors=255 * np.eye(4, 3, -1)))
    assert 'have `ignore: ["#0000ff"]` below' in text(tmp_path)
    init(make_set(tmp_path / "set2", [regions(i, [1, 2, 3]) for i in range(8)]))
    assert "always lies between" not in text(tmp_path)
    apart = [np.where(disc(5 + i), 1, np.where(np.roll(disc(6), 20, 1), 2, 0)) for i in range(8)]
    init(make_set(tmp_path / "set3", apart))
    assert "always lies between" not in text(tmp_path)


def test_cityscapes_masks_have_its_names_and_leave_out_what_it_leaves_out(tmp_path: Path) -> None:
    root = tmp_path / "set"
    values = [0, 1, 3, 7, 8, 11, 21, 23, 26]
    for i in range(8):
        write_image(root / f"leftImg8bit/train/aachen/a_{i}_leftImg8bit.png", i)
        write_mask(root / f"gtFine/train/aachen/a_{i}_gtFine_labelIds.png", regions(i, values))
    config = init(root)
    known = {value: name for value, name, _ in CITYSCAPES}
    assert [(spec.name, spec.values) for spec in config.data.classes] == [(known[v], (v,)) for v in values[3:]]
    assert config.data.ignore == (0, 1, 3)
    assert problems(config, root) == []


def test_one_class_of_cityscapes_against_the_rest_is_no_cityscapes_of_one_class(tmp_path: Path) -> None:
    for i in range(8):
        write_image(tmp_path / f"set/images/p{i}.png", i)
        write_mask(tmp_path / f"set/masks/p{i}_labelIds.png", regions(i, [0, 24]))
    assert [spec.values for spec in init(tmp_path / "set").data.classes] == [(0,), (24,)]


def test_voc_masks_have_its_names_where_folder_palette_and_values_say_so(tmp_path: Path) -> None:
    palette = np.array([[voc_color(i) >> shift & 255 for shift in (16, 8, 0)] for i in range(256)])
    assert palette[:3].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    assert palette[15].tolist() == [192, 128, 128]
    for place, named in (("VOC2012", True), ("mine", False)):
        root = tmp_path / place
        for i in range(8):
            write_image(root / f"JPEGImages/p{i}.png", i)
            write_mask(root / f"SegmentationClass/p{i}.png", regions(i, [0, 1, 15, 255]), colors=palette, palette=True)
        names = [spec.name for spec in init(root).data.classes]
        assert names == (["background", "aeroplane", "person"] if named else ["class_0", "class_1", "class_15"])


# ------------------------------------------------------------------------------------------------- mixtures


def test_jpeg_has_moved_only_what_is_near_0_or_255() -> None:
    assert snapped([2, 128, 251, 258, 1000]).tolist() == [0, 128, 255, 255, 1000]


def test_one_coloured_mask_among_index_masks_is_left_to_check(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", [regions(i, [0, 1, 2]) for i in range(12)])
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]])
    write_mask(root / "masks/p3.png", regions(3, [0, 1, 2]), colors=colors)
    config = init(root)
    assert config.data.encoding == "index"
    assert "1 mask of mode RGB among them cannot be read so" in text(tmp_path)
    (error,) = [f for f in check(config, tmp_path) if f.severity == "error"]
    assert any("p3.png" in str(file) for file in error.files)


@pytest.mark.parametrize("kind", ["grey", "palette"])
def test_masks_of_the_same_colours_stored_in_two_ways_are_read_together(tmp_path: Path, kind: str) -> None:
    colors = np.array([[0, 0, 0], [255, 255, 255] if kind == "grey" else [255, 0, 0]])
    root = make_set(tmp_path / "set", [disc(8 + i) for i in range(10)], colors=colors)
    if kind == "grey":
        write_mask(root / "masks/p3.png", 255 * disc(9))
    else:
        write_mask(root / "masks/p3.png", disc(9), colors=colors, palette=True)
    config = init(root)
    assert config.data.encoding == "rgb"
    assert "cannot be read so" not in text(tmp_path)
    assert problems(config, root) == []


def test_random_palettes_over_the_same_indices_are_read_by_index(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(8):
        write_image(root / f"images/p{i}.png", i)
        palette = np.random.default_rng(i).integers(0, 256, (3, 3))
        write_mask(root / f"masks/p{i}.png", regions(i, [0, 1, 2]), colors=palette, palette=True)
    config = init(root)
    assert config.data.encoding == "index"
    assert [spec.values for spec in config.data.classes] == [(0,), (1,), (2,)]


def test_one_jpeg_among_index_masks_does_not_blur_the_others(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", [regions(i, [0, 1, 2]) for i in range(12)])
    (root / "masks/p5.png").unlink()
    Image.fromarray(regions(5, [0, 1, 2]).astype(np.uint8)).save(root / "masks/p5.jpg", quality=60)
    config = init(root)
    assert config.data.encoding == "index"
    assert [spec.values for spec in config.data.classes] == [(0,), (1,), (2,)]


# ------------------------------------------------------------------------------------------------- what is held out


def names_of(kind: str) -> list[str]:
    """Returns stems as published sets have them."""
    return {
        "frames": [f"seq{s:02}_frame_{5 * f:04}" for s in range(5) for f in range(8)],
        "slices": [f"patient{p}_slice{s}" for p in (3, 12, 45, 7) for s in range(9)],
        "drives": [f"{d}TP_{6690 * d + 30 * f:06}" for d in range(3) for f in range(9)],
        "tiles": [f"img{i}_{y}_{x}" for i in range(5) for y in (0, 512, 1024) for x in (0, 512)],
        "areas": [f"x{x}_y{y}_area{i}" for i in range(4) for y in (0, 512, 1024) for x in (0, 512)],
        "rows and columns": [f"scene_{i}_r{y}_c{x}" for i in range(5) for y in range(3) for x in range(3)],
        "sites": [f"{site}-{i}" for site in ("siteA", "siteB", "site_C", "siteD") for i in range(12)],
        "views": [f"{i * 7919:08x}a_{v:02}" for i in range(1, 6) for v in range(1, 9)],
        "folders": [f"TCGA_{p}/TCGA_{p}_{s}" for p in (4941, 4942, 5393, 6186) for s in range(1, 8)],
        "videos": [f"{name}/{name}_{1 + 5 * f:05}" for name in ("creek", "park", "trail", "village") for f in range(6)],
        "species": [f"{name}/{name}_{i:03}" for name in ("rose", "tulip", "lily", "iris") for i in range(10)],
        "fish": [f"{name}/{i:05}" for name in ("Red Mullet", "Sea Bass", "Shrimp", "Trout") for i in range(1, 11)],
        "copies": [f"IMG_{i}_jpg.rf.{i * 7 + c:032x}" for i in range(12) for c in range(3)],
        "photographs": [f"IMG_20190801_{120000 + 37 * i + i * i % 11}" for i in range(40)],
        "numbers": [f"{i:04}" for i in range(40)],
        "years": [f"{year}_{number:06}" for year in (2007, 2008, 2009) for number in range(17, 900, 61)],
        "classes": [f"{name}_{i}" for name in ("rose", "tulip", "lily", "iris") for i in range(10)],
        "lesions": [f"ISIC_{i * 13 + i * i % 11:07}" for i in range(40)],
        "scenes": [f"scene_{s:05}/2D/{s * 7}/{i}/rgb" for s in range(4) for i in range(3)],
        "fruits": [f"{box}/{name}" for box in ("a1", "a2", "a3", "rest") for name in ("apple", "pear", "plum")],
    }[kind]


@pytest.mark.parametrize(
    ("kind", "group", "num"),
    [
        ("frames", "^([^_]+)_", 5),
        ("slices", "^([^_]+)_", 4),
        ("drives", "^([^_]+)_", 3),
        ("tiles", "^([^_]+)_", 5),
        ("areas", "_([^_]+)$", 4),
        ("rows and columns", "^(.+)_[^_]*_", 5),
        ("sites", r"^([^\-]+)\-", 4),
        ("views", "^([^_]+)_", 5),
        ("folders", "^(.+)/", 4),
        ("videos", "^(.+)/", 4),
        ("scenes", "^([^/]+)/", 4),
        ("copies", "^(.+)_", 12),
    ],
)
def test_names_of_sequences_give_a_group(kind: str, group: str, num: int) -> None:
    stems = names_of(kind)
    found = find_sequences(stems, None, parts=2)
    assert found is not None
    assert found.pattern == group
    assert len({stem_group(stem, group) for stem in stems}) == num


def stem_group(stem: str, pattern: str) -> str:
    match = re.search(pattern, stem)
    assert match is not None
    return match[1]


@pytest.mark.parametrize("kind", ["photographs", "numbers", "years", "classes", "species", "fish", "lesions", "fruits"])
@pytest.mark.parametrize("seen", [True, False])
def test_names_that_only_number_images_give_no_group(kind: str, seen: bool) -> None:
    stems = names_of(kind)
    noise = np.random.default_rng(0).normal(size=(len(stems), 64))
    pictures = noise / np.linalg.norm(noise, axis=1, keepdims=True) if seen else None
    assert find_sequences(stems, pictures, parts=2) is None


def walk(num: int, *, step: float) -> np.ndarray:
    """Returns small pictures, N 1024, each a little different from the one before."""
    rng = np.random.default_rng(0)
    pictures = np.cumsum([rng.normal(size=1024), *(step * rng.normal(size=(num - 1, 1024)))], axis=0)
    return pictures / np.linalg.norm(pictures, axis=1, keepdims=True)


def test_frames_of_one_video_are_held_out_in_blocks() -> None:
    stems = [f"frame_{i}" for i in range(120)]
    found = find_sequences(stems, walk(120, step=0.3), parts=3)
    assert found is not None
    groups = [stem_group(stem, found.pattern) for stem in stems]
    assert len(set(groups)) == 12
    assert sum(one != other for one, other in itertools.pairwise(groups)) == 11  # each block is in one piece


@pytest.mark.parametrize("name", ["{:05}", "v_{:05}"])
def test_frames_that_do_not_look_alike_are_held_out_in_blocks_where_their_numbers_go_in_steps(name: str) -> None:
    stems = [name.format(30 * i) for i in range(120)]
    found = find_sequences(stems, None, parts=3)
    assert found is not None
    assert len({stem_group(stem, found.pattern) for stem in stems}) == 36
    assert find_sequences([name.format(30 * i + i * i % 7) for i in range(120)], None, parts=3) is None


@pytest.mark.parametrize("word", ["tile_", "patch", "Slice-", "z"])
def test_parts_of_pictures_that_only_a_word_tells_are_held_out_in_blocks(word: str) -> None:
    stems = [f"{word}{i:04}" for i in range(120)]
    found = find_sequences(stems, None, parts=3)
    assert found is not None
    assert len({stem_group(stem, found.pattern) for stem in stems}) == 12
    assert find_sequences([f"photo_{i:04}" for i in range(120)], None, parts=3) is None


def test_of_few_large_groups_no_more_are_held_out_than_comes_nearest_to_the_share(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for place in range(64):
        write_image(root / f"images/patient{place // 8}_slice{place % 8}.png", place)
        write_mask(root / f"masks/patient{place // 8}_slice{place % 8}.png", regions(place, [0, 1]))
    parts = split_records(init(root), tmp_path)
    assert {name: len(part) for name, part in parts.items()} == {"train": 48, "val": 8, "test": 8}


def test_equal_pictures_under_unlike_names_are_kept_in_one_part(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", [regions(i, [0, 1]) for i in range(12)])
    twins = [("p0", "p7"), ("p3", "p9"), ("p5", "p11")]
    for one, other in twins:
        Image.open(root / f"images/{one}.png").save(root / f"images/{other}.png")
        Image.open(root / f"masks/{one}.png").save(root / f"masks/{other}.png")
    config = init(root)
    parts = split_records(config, tmp_path)
    val = {record.stem for record in parts["val"]}
    assert all((one in val) == (other in val) for one, other in twins)
    assert config.data.split.seed > 0  # which seed 0 does not do


def test_classes_that_not_all_images_show_are_stratified(tmp_path: Path) -> None:
    masks = [regions(i, [0, 1, 2] if i % 3 == 0 else [0, 1]) for i in range(18)]
    config = init(make_set(tmp_path / "set", masks))
    assert config.data.split.stratify
    rare = [sum(int(record.stem[1:]) % 3 == 0 for record in part) for part in split_records(config, tmp_path).values()]
    assert rare == [5, 1]
    assert not init(make_set(tmp_path / "set2", [regions(i, [0, 1]) for i in range(18)])).data.split.stratify


# ------------------------------------------------------------------------------------------------- how it trains


@pytest.mark.parametrize(
    ("size", "crop", "levels"),
    [
        ((360, 480), (352, 384), 5),
        ((2000, 3000), (384, 384), 5),
        ((64, 64), (64, 64), 5),
        ((32, 40), (32, 32), 4),
        ((20, 300), (24, 288), 3),
        ((5, 5), (8, 8), 2),
        ((28, 28), (32, 32), 4),
        ((400, 500), (384, 384), 5),
    ],
)
def test_crop_and_depth_follow_the_median_size(size: tuple[int, int], crop: tuple[int, int], levels: int) -> None:
    assert choose_crop(size, largest=USUAL_CROP) == crop
    assert len(choose_channels(crop, 0)) == levels
    assert min(crop) % 2 ** (levels - 1) == 0


@pytest.mark.parametrize(
    ("sizes", "crop", "told"),
    [
        ([(64, 96)] * 6, (64, 96), "All images are 96x64"),
        ([(64, 96), (96, 64)] * 3, (64, 64), "Images are 96x64 or 64x96"),
        ([(64, 96), (32, 250), (96, 96)] * 2, (64, 96), "Images are 96x64 to 96x96, 250x32 in the middle"),
    ],
)
def test_the_crop_lies_within_images_that_lie_or_stand(
    tmp_path: Path, sizes: list[tuple[int, int]], crop: tuple[int, int], told: str
) -> None:
    config = init(make_set(tmp_path / "set", [disc(10, size) for size in sizes]))
    assert config.augment.crop == crop
    assert f"Height and width. {told}." in text(tmp_path)


def test_long_regions_add_a_level_where_the_crop_has_room() -> None:
    assert len(choose_channels((384, 384), 300)) == 6
    assert len(choose_channels((384, 384), 190)) == 5
    assert len(choose_channels((64, 384), 300)) == 5


def test_the_memory_told_is_that_of_the_network(tmp_path: Path) -> None:
    config = init(make_set(tmp_path / "set", [regions(i, [0, 1], (128, 128)) for i in range(8)]))
    kept = describe(build_model(config.model, 2, 3).train(), 128, 128).kept
    assert kept / 128**2 == pytest.approx(ACTIVATIONS, rel=0.05)


@pytest.mark.parametrize("model", MODELS)
def test_no_network_leaves_a_pattern_on_an_even_image(tmp_path: Path, model: str) -> None:
    config = init(make_set(tmp_path / "set", [regions(i, [0, 1], (128, 128)) for i in range(8)]), model=model)
    network = build_model(config.model, 2, 3).eval()
    with torch.no_grad():
        inner = network(torch.full((1, 3, 512, 512), 0.5))[..., 240:272, 240:272]  # whose fields end in the image
    assert torch.allclose(inner, inner[..., :1, :1].expand_as(inner), atol=1e-6)


@pytest.mark.parametrize(
    ("num", "crop", "batch"),
    [
        (367, (352, 384), 4),
        (2, (64, 64), 2),
        (24, (512, 512), 2),
        (24, (448, 448), 4),
        (24, (256, 256), 4),
        (60, (160, 224), 4),
        (60, (128, 160), 8),
        (1000, (96, 128), 16),
        (1000, (32, 32), 16),
    ],
)
def test_the_batch_follows_the_crop_memory_and_the_number_of_crops(num: int, crop: tuple[int, int], batch: int) -> None:
    assert choose_batch(num, crop, 2) == batch
    assert choose_batch(num, crop, 150) <= batch


@pytest.mark.parametrize(
    ("num", "batch", "steps"),
    [(367, 4, 3000), (24, 4, 2400), (8, 8, 1000), (1, 1, 1000), (10_000, 4, 40_000), (40_000, 4, 40_000)],
)
def test_the_length_follows_the_number_of_images(num: int, batch: int, steps: int) -> None:
    length = choose_length(num, batch, pixels=4 * 384 * 384, val_share=0)
    assert abs(length.steps - steps) <= 0.05 * steps
    assert length.steps == -(-length.epochs * num // batch)


@pytest.mark.parametrize(("side", "steps"), [(448, 3000), (384, 3000), (320, 4320), (256, 6000), (64, 6000)])
def test_small_steps_are_more(side: int, steps: int) -> None:
    assert choose_length(300, 4, pixels=4 * side**2, val_share=0).steps == pytest.approx(steps, rel=0.05)


def test_validations_take_no_more_than_a_quarter_of_the_time() -> None:
    quick, slow = (choose_length(24, 4, pixels=4 * 384 * 384, val_share=share) for share in (1.0, 100.0))
    assert slow.every > quick.every
    assert slow.epochs / slow.every * 100 <= 0.75 * slow.steps * 1.2


def test_few_large_images_are_drawn_from_many_times_and_the_length_is_in_steps(tmp_path: Path) -> None:
    config = init(make_set(tmp_path / "set", [np.kron(regions(i, [0, 1]), np.ones((24, 24), int)) for i in range(3)]))
    assert config.train.batch_size == 4
    assert config.train.steps == 1000
    assert config.train.epochs is None
    assert config.augment.crop == (384, 384)


def test_rare_classes_of_large_images_are_looked_for(tmp_path: Path) -> None:
    masks = []
    for i in range(4):
        mask = np.zeros((700, 900), np.int64)
        mask[100 * i : 100 * i + 30, 50:90] = 1
        masks.append(mask)
    config = init(make_set(tmp_path / "set", masks))
    assert config.augment.rare == 0.33
    assert config.loss[0].options["class_weights"] == "median_frequency"
    small = init(make_set(tmp_path / "set2", [regions(i, [0, 1]) for i in range(4)]))
    assert small.augment.rare == 0


@pytest.mark.parametrize("kind", ["sky above", "anything anywhere", "few"])
def test_the_flip_follows_whether_the_masks_have_an_up(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    masks = []
    for _ in range(4 if kind == "few" else 16):
        mask = np.zeros((48, 64), np.int64)
        if kind == "sky above":
            mask[: rng.integers(10, 30)] = 1
        else:
            y, x = rng.integers(0, 36), rng.integers(0, 52)
            mask[y : y + 12, x : x + 12] = 1
        masks.append(mask)
    augment = init(make_set(tmp_path / "set", masks)).augment
    assert (augment.flip, augment.rotate) == (("both", 30) if kind == "anything anywhere" else ("horizontal", 10))


def test_thin_parts_are_not_made_smaller(tmp_path: Path) -> None:
    lines = [np.zeros((64, 64), np.int64) for _ in range(6)]
    for i, mask in enumerate(lines):
        mask[10 + i : 12 + i] = 1
    assert init(make_set(tmp_path / "set", lines)).augment.scale == (1.0, 1.5)
    assert init(make_set(tmp_path / "set2", [disc(15 + i) for i in range(6)])).augment.scale == (0.75, 1.5)


def test_shapes_are_what_a_slow_count_gives(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), np.int64)
    mask[0:5, 0:3] = 1
    mask[10:12, 10:28] = 2
    root = make_set(tmp_path / "set", [mask])
    facts = [*facts_of_masks([root / "masks/p0.png"], max_pixels=10**6)]
    shapes = measure_shapes(facts, guess_encoding(facts))
    edge = [mask[y, x] for y in range(20) for x in range(30) if y in (0, 19) or x in (0, 29)]
    assert shapes.border == tuple(edge.count(value) / len(edge) for value in range(3))
    assert shapes.longest == (30, 5, 18)
    assert shapes.smallest[1:] == (3, 2)
    assert shapes.upright is None


# ------------------------------------------------------------------------------------------------- opacity


@pytest.mark.parametrize("kind", ["cut out", "white", "told by colour", "nearly opaque"])
def test_opacity_is_the_mask_where_the_colours_are_not(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "set"
    for i in range(8):
        write_image(root / f"images/p{i}.png", i, (64, 64))
        alpha = (disc(10 + i) * 255).astype(np.uint8)
        picture = np.asarray(Image.open(root / f"images/p{i}.png"))
        if kind == "white":
            picture = np.full_like(picture, 255)
        if kind == "told by colour":
            picture = np.repeat(alpha[..., None], 3, axis=2) // np.uint8(2)
        if kind == "nearly opaque":
            picture, alpha = np.repeat(alpha[..., None], 3, axis=2), np.full_like(alpha, 254)
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.dstack([picture, alpha])).save(root / f"masks/p{i}.png")
    config = init(root)
    assert config.data.encoding == ("alpha" if kind in ("cut out", "white") else "rgb")
    assert [spec.name for spec in config.data.classes] == ["background", "object"]
    labels = Labels.from_config(config.data)
    assert np.array_equal(labels.read(root / "masks/p3.png", max_pixels=10**8), disc(13))
    assert not config.data.split.stratify  # both classes are in all masks
    everywhere = class_presence(config)(split_records(config, tmp_path)["train"])
    assert everywhere.all()
    assert problems(config, root) == []


# ------------------------------------------------------------------------------------------------- lossy colours


def test_small_regions_of_lossy_colours_are_found_under_the_noise(tmp_path: Path) -> None:
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255]], np.uint8)
    root = tmp_path / "set"
    y, x = np.mgrid[:96, :128]
    for i in range(12):
        rng = np.random.default_rng(i)
        mask = np.zeros((96, 128), np.int64)
        for value in range(1, 6):  # discs of a few pixels, in no grid that JPEG knows
            mask[(y - rng.integers(10, 86)) ** 2 + (x - rng.integers(10, 118)) ** 2 < rng.integers(8, 12) ** 2] = value
        write_image(root / f"images/p{i}.png", i, (96, 128))
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(colors[mask]).save(root / f"masks/p{i}.jpg", quality=70)
    config = init(root)
    assert (config.data.encoding, config.data.nearest) == ("rgb", True)
    expected = {f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colors}
    assert {spec.colors[0] for spec in config.data.classes} == expected
    (root / "class_dict.csv").write_text(
        "name,r,g,b\nback,8,0,0\na,255,9,0\nb,0,255,0\nc,0,5,255\nd,250,250,0\ne,255,0,255\n"
    )
    assert {(spec.name, spec.colors[0]) for spec in init(root).data.classes} >= {("back", "#080000"), ("d", "#fafa00")}
    assert "of the mask pixels count as the nearest class" in text(tmp_path)


def test_slices_of_one_stack_have_no_up_for_a_small_difference_that_all_share(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = rng.random((48, 64)) < 0.3
    first[:24] &= rng.random((24, 64)) < 0.9  # a little less above, in all slices alike
    masks = [np.where(rng.random((48, 64)) < 0.05, 1 - first, first).astype(np.int64) for _ in range(20)]
    assert init(make_set(tmp_path / "set", masks)).augment.flip == "both"


def test_levels_and_zoom_follow_what_does_not_lie_behind(tmp_path: Path) -> None:
    masks = []
    for i in range(4):
        mask = np.zeros((512, 512), np.int64)
        mask[100 + i : 103 + i] = 1  # thin, before what is as long as the image
        masks.append(mask)
    config = init(make_set(tmp_path / "set", masks))
    assert config.augment.scale == (1.0, 1.5)
    for mask in masks:
        mask[200:440, 100:340] = 2
    config = init(make_set(tmp_path / "set2", masks))
    assert config.augment.scale == (0.75, 1.5)
    assert len(config.model.encoder.options["channels"]) == 6


def test_bursts_of_nearly_equal_shots_are_held_out_in_blocks_of_their_numbers(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(60):
        write_image(root / f"images/{i:03}.png", i // 4)
        write_mask(root / f"masks/{i:03}.png", regions(i // 4, [0, 1]))
    config = init(root)
    assert config.data.split.group
    parts = [{int(record.stem) // 4 for record in part} for part in split_records(config, tmp_path).values()]
    assert sum(len(one & other) for one, other in itertools.combinations(parts, 2)) <= 2


@pytest.mark.parametrize("step", [1, 30])
def test_frames_of_which_some_resemble_the_next_are_held_out_in_blocks_that_hold_them(
    step: int, tmp_path: Path
) -> None:
    root = tmp_path / "set"
    for i in range(60):
        scene = i - i % 2 if 20 <= i < 40 else i
        write_image(root / f"images/v_{i * step:05}.png", scene)
        write_mask(root / f"masks/v_{i * step:05}.png", regions(scene, [0, 1]))
    config = init(root)
    assert config.data.split.group == (r"^(.*?)\d$" if step == 1 else r"^(.*?)\d{1,2}$")


def test_a_photograph_cut_out_on_black_is_no_mask(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(8):
        rng = np.random.default_rng(i)
        shade = (150 + np.arange(64) + rng.integers(-12, 12, (64, 64)))[..., None] * np.array([1.0, 0.4, 0.3])
        picture = (shade * disc(20 + i)[..., None]).clip(0, 255).astype(np.uint8)
        write_image(root / f"images/p{i}.png", i, (64, 64))
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(picture).save(root / f"masks/p{i}.png")
    with pytest.raises(DataError, match="as in photographs"):
        init(root)
