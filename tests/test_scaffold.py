"""`init` looks at a folder and writes a config that trains as it is; refused where it would guess."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import check
from PIL import Image, ImageDraw, ImageFilter

from segtool.config import Config, load_config
from segtool.data.formats import split_records
from segtool.data.labels import Labels
from segtool.errors import DataError, SegtoolError
from segtool.init.names import find_names
from segtool.init.scaffold import scaffold

REAL = Path(__file__).parent.parent.parent / "shared" / "data"


def regions(seed: int, values: list[int], size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Returns H W rectangles of the values on the first one; each value has at least one block of its own."""
    rng = np.random.default_rng(seed)
    mask = np.full(size, values[0], np.int64)
    for value in values[1:]:
        y, x = rng.integers(0, size[0] - 8), rng.integers(0, size[1] - 8)
        mask[y : y + 8, x : x + 8] = value
    for column, value in enumerate(values):  # none is covered by the others
        mask[:4, 4 * column : 4 * column + 4] = value
    return mask


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (48, 64), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*size, 3) if mode == "RGB" else size
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape, np.uint8)).save(path)


def write_mask(path: Path, mask: np.ndarray, *, colors: np.ndarray | None = None, palette: bool = False) -> None:
    """Writes values as L, or I;16 above 255; with colours as a palette image or RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if colors is None:
        image = Image.fromarray(mask.astype(np.uint16 if mask.max() > 255 else np.uint8))
    elif palette:
        image = Image.fromarray(mask.astype(np.uint8))
        image.putpalette(colors.astype(np.uint8).tobytes())
    else:
        image = Image.fromarray(colors.astype(np.uint8)[mask])
    image.save(path)


def make_set(root: Path, masks: list[np.ndarray], **options: object) -> Path:
    """Writes images/ and masks/ of the same stems."""
    for index, mask in enumerate(masks):
        write_image(root / f"images/p{index}.png", index, mask.shape)
        write_mask(root / f"masks/p{index}.png", mask, **options)  # type: ignore[arg-type]
    return root


def init(root: Path, **options: str) -> Config:
    """Returns the loaded config that init writes beside the data."""
    path = root.parent / "config.yaml"
    path.write_text(scaffold(root, config_dir=root.parent, **options), encoding="utf-8")
    return load_config(path)


def problems(config: Config, root: Path) -> list[str]:
    return [f"{f.code} {f.message}" for f in check(config, root.parent) if f.severity != "note"]


@pytest.mark.parametrize(
    ("values", "classes", "ignore"),
    [
        ([0, 255], [(0,), (255,)], ()),
        ([1, 2], [(1,), (2,)], ()),
        ([1, 255], [(1,), (255,)], ()),
        ([0, 3, 7, 200], [(0,), (3,), (7,), (200,)], ()),
        ([0, 128, 255], [(0,), (128,), (255,)], ()),
        ([0, 64, 128, 191, 255], [(0,), (64,), (128,), (191,), (255,)], ()),  # equal steps that form areas
        ([0, 1000, 60000], [(0,), (1000,), (60000,)], ()),
        ([0, 1, 2, 255], [(0,), (1,), (2,)], (255,)),
        ([0, 1, 2, 65535], [(0,), (1,), (2,)], (65535,)),
        ([0, None], [(0,), (1, 255)], ()),  # the object is 1 in some masks and 255 in others
    ],
)
def test_values_that_form_areas_are_classes_but_the_largest_beside_small_ones(
    tmp_path: Path, values: list[int | None], classes: list[tuple[int, ...]], ignore: tuple[int, ...]
) -> None:
    masks = [regions(i, [(1 if i % 2 else 255) if v is None else v for v in values]) for i in range(10)]
    root = make_set(tmp_path / "set", masks)
    config = init(root)
    assert (config.data.encoding, config.data.ignore) == ("index", ignore)
    assert [spec.values for spec in config.data.classes] == classes
    assert problems(config, root) == []


def test_a_mask_of_255_alone_among_masks_of_0_and_1_is_void_and_not_the_object(tmp_path: Path) -> None:
    masks = [regions(i, [0, 1]) for i in range(9)]
    config = init(make_set(tmp_path / "set", [*masks, np.full_like(masks[0], 255)]))
    assert [spec.values for spec in config.data.classes] == [(0,), (1,)]
    assert config.data.ignore == (255,)
    assert [problem.split()[0] for problem in problems(config, tmp_path / "set")] == ["SEG304"]


@pytest.mark.parametrize("num", [2, 3, 5, 8])
def test_tiny_sets_keep_a_validation_pair_and_a_batch_that_fits(tmp_path: Path, num: int) -> None:
    root = make_set(tmp_path / "set", [regions(i, [0, 1]) for i in range(num)])
    config = init(root)
    splits = split_records(config, tmp_path)
    assert len(splits["val"]) >= 1
    assert 1 <= config.train.batch_size <= len(splits["train"])
    assert len(splits["train"]) + len(splits["val"]) == num


def test_a_single_pair_trains_without_validation(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", [regions(0, [0, 1])])
    config = init(root)
    assert config.data.split.val == 0
    assert list(split_records(config, tmp_path)) == ["train"]


def test_many_pairs_without_a_test_folder_hold_out_a_test(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", [regions(i, [0, 1], (16, 16)) for i in range(60)])
    splits = split_records(init(root), tmp_path)
    assert {name: len(records) for name, records in splits.items()} == {"train": 42, "val": 9, "test": 9}


def test_the_seed_of_the_split_puts_every_class_into_train_and_val_where_one_does(tmp_path: Path) -> None:
    masks = [regions(i, [0, 1, 2] if i in (3, 4) else [0, 1]) for i in range(10)]
    root = make_set(tmp_path / "set", masks)
    config = init(root)
    splits = split_records(config, tmp_path)
    rare = {f"p{i}" for i in (3, 4)}
    assert all(rare & {record.stem for record in splits[name]} for name in ("train", "val"))


COLORS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [60, 60, 255]])


def test_palette_images_are_read_by_index_with_the_colours_of_the_palette(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", [regions(i, [0, 1, 2]) for i in range(8)], colors=COLORS, palette=True)
    config = init(root)
    assert config.data.encoding == "index"
    assert [(spec.values, spec.color) for spec in config.data.classes] == [
        ((0,), "#000000"),
        ((1,), "#ff0000"),
        ((2,), "#00ff00"),
    ]
    assert problems(config, root) == []


def test_palette_images_whose_palettes_disagree_are_read_by_colour(tmp_path: Path) -> None:
    root = tmp_path / "set"
    truth = {}
    for i in range(8):
        order = np.random.default_rng(i).permutation(3)
        indices = regions(i, [0, 1, 2])
        truth[f"p{i}"] = COLORS[order][indices]
        write_image(root / f"images/p{i}.png", i)
        write_mask(root / f"masks/p{i}.png", indices, colors=COLORS[order], palette=True)
    config = init(root)
    assert config.data.encoding == "palette"
    assert [spec.colors for spec in config.data.classes] == [("#000000",), ("#00ff00",), ("#ff0000",)]
    assert problems(config, root) == []
    labels = Labels.from_config(config.data)
    for stem, colors in truth.items():
        assert np.array_equal(labels.colors[labels.read(root / f"masks/{stem}.png", max_pixels=10**8)], colors)


def test_jpeg_masks_in_colour_become_nearest_with_the_true_number_of_classes(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(6):
        write_image(root / f"images/p{i}.png", i, (96, 128))
        big = np.kron(regions(i, [0, 1, 2, 3], (24, 32)), np.ones((4, 4), np.int64))
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(COLORS.astype(np.uint8)[big]).save(root / f"masks/p{i}.jpg", quality=85)
    config = init(root)
    assert (config.data.encoding, config.data.nearest) == ("rgb", True)
    found = np.array([[int(spec.colors[0][k : k + 2], 16) for k in (1, 3, 5)] for spec in config.data.classes])
    gaps = np.linalg.norm(found[:, None].astype(float) - COLORS[None], axis=-1)
    assert len(found) == 4
    assert gaps.min(0).max() < 12
    assert {"#000000", "#ff0000", "#00ff00"} < {spec.colors[0] for spec in config.data.classes}
    assert problems(config, root) == []


def test_png_masks_that_once_were_jpegs_get_the_colours_that_were_drawn(tmp_path: Path) -> None:
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]])
    root = make_set(tmp_path / "set", [regions(i, [0, 1, 2, 3]) for i in range(4)], colors=colors)
    for path in sorted((root / "masks").iterdir()):
        with io.BytesIO() as lossy:
            Image.open(path).resize((384, 288), Image.Resampling.NEAREST).save(lossy, "JPEG", quality=75)
            Image.open(lossy).save(path)
        write_image(root / "images" / path.name, size=(288, 384))
    config = init(root)
    assert config.data.nearest
    assert sorted(spec.colors[0] for spec in config.data.classes) == ["#000000", "#0000ff", "#00ff00", "#ff0000"]


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("colors", [["#000000", "#ffffff"], ["#000000", "#ff0000", "#00ff00"], None, "thin"])
def test_masks_made_smaller_by_few_pixels_keep_their_classes(
    tmp_path: Path, times: int, colors: list[str] | str | None
) -> None:
    root = tmp_path / "set"
    (root / "masks").mkdir(parents=True)
    for i in range(6):
        write_image(root / f"images/p{i}.png", i, (96, 128))
        mask = Image.new("RGB" if isinstance(colors, list) else "L", (128 * times, 96 * times))
        pen = ImageDraw.Draw(mask)
        for number, color in enumerate(colors[1:] if isinstance(colors, list) else ["#ffffff"]):
            x, y = times * (5 + 9 * i + 40 * number), times * (10 + 7 * i)
            if colors == "thin":
                pen.line([(x, 0), (times * 100, y + times * 30)], color, width=times)
            else:
                pen.ellipse([x, y, x + times * 30, y + times * 40], color)
        mask.reduce(times).save(root / f"masks/p{i}.png")
    config = init(root)
    kept = [(spec.values or spec.colors)[0] for spec in config.data.classes]
    assert sorted(map(str, kept)) == sorted(colors if isinstance(colors, list) else ["0", "255"])
    assert config.data.nearest or config.data.encoding == "threshold"
    assert not [line for line in problems(config, root) if "SEG3" in line]


def test_255_that_covers_much_is_void_and_may_be_a_background(tmp_path: Path) -> None:
    for width in (20, 64):  # of 64 columns, 0 and 1 in the others
        masks = [regions(i, [255, 0, 1]) for i in range(6)]
        for mask in masks:
            mask[8:, width:] = np.arange(48)[8:, None] % 16 < 8
        config = init(make_set(tmp_path / "set", masks))
        assert config.data.ignore == (255,)
        told = (tmp_path / "config.yaml").read_text().replace("\n  # ", " ")
        doubt = "; where it is the background, make it a class"
        assert f"taken as void{'. LOOK: it is most of the pixels' if width == 64 else ''}{doubt}" in told
        names = ["class_0", "class_1"] if width == 64 else ["background", "object"]
        assert [spec.name for spec in config.data.classes] == names


def test_close_colours_survive_soft_edges(tmp_path: Path) -> None:
    truck, car, bus = (0, 0, 70), (0, 0, 142), (0, 0, 110)
    colors = np.array([(128, 64, 128), truck, car, bus], np.uint8)
    root = tmp_path / "set"
    for i in range(8):
        blocks = np.random.default_rng(i).integers(0, 4, (6, 8))
        write_image(root / f"images/p{i}.png", i, (140, 170))
        (root / "masks").mkdir(exist_ok=True)
        small = Image.fromarray(colors[np.kron(blocks, np.ones((16, 16), np.int64))])
        small.resize((170, 140), Image.Resampling.BILINEAR).save(root / f"masks/p{i}.png")
    config = init(root)
    assert config.data.nearest
    assert {spec.colors[0] for spec in config.data.classes} == {"#804080", "#000046", "#00008e", "#00006e"}


def test_thin_blurred_lines_that_never_reach_255_are_two_classes(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(8):
        canvas = Image.new("L", (128, 96))
        rng = np.random.default_rng(i)
        for _ in range(6):
            ends = [tuple(map(int, rng.integers(0, [128, 96]))) for _ in range(2)]
            ImageDraw.Draw(canvas).line(ends, fill=255, width=2)
        write_image(root / f"images/p{i}.png", i, (96, 128))
        (root / "masks").mkdir(exist_ok=True)
        canvas.filter(ImageFilter.GaussianBlur(1)).save(root / f"masks/p{i}.png")
    config = init(root)
    assert config.data.encoding == "threshold"
    assert [spec.values for spec in config.data.classes] == [(0,), (255,)]


def test_a_few_specks_beside_0_and_255_do_not_become_a_class(tmp_path: Path) -> None:
    masks = [regions(i, [0, 255]) for i in range(8)]
    masks[2][40, 60] = 254
    masks[3][41, 5] = 3
    config = init(make_set(tmp_path / "set", masks))
    assert config.data.encoding == "threshold"
    assert [spec.values for spec in config.data.classes] == [(0,), (255,)]


def test_a_rare_value_far_from_the_others_is_a_class_unless_it_is_a_few_pixels_of_one_mask(tmp_path: Path) -> None:
    masks = [regions(i, [0, 255]) for i in range(8)]
    masks[2][40:45, 55:60] = 128
    config = init(make_set(tmp_path / "set", masks))
    assert [spec.values for spec in config.data.classes] == [(0,), (128,), (255,)]
    masks[2][40:45, 56:60] = 0
    config = init(make_set(tmp_path / "set", masks))
    assert [spec.values for spec in config.data.classes] == [(0,), (255,)]
    assert config.data.ignore == (128,)
    assert "# 128 is 5 pixels in p2.png: a slip of the pen" in (tmp_path / "config.yaml").read_text()


def test_thin_classes_that_form_no_areas_are_classes_nevertheless(tmp_path: Path) -> None:
    masks = [np.zeros((64, 64), np.int64) for _ in range(6)]
    for i, mask in enumerate(masks):
        mask[32:] = 1
        mask[10 + i, :] = 2
        mask[:, 20 + i] = 3
    config = init(make_set(tmp_path / "set", masks))
    assert config.data.encoding == "index"
    assert [spec.values for spec in config.data.classes] == [(0,), (1,), (2,), (3,)]


def test_a_hundred_and_fifty_classes_are_not_taken_for_instances_or_noise(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = []
    for _ in range(12):
        used = rng.choice(150, 40, replace=False)
        masks.append(np.kron(rng.choice(used, (8, 10)), np.ones((8, 8), np.int64)))
    config = init(make_set(tmp_path / "set", masks))
    assert config.data.encoding == "index"
    assert len(config.data.classes) == len(np.unique(masks))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_photographs_in_the_folder_of_masks_are_refused(tmp_path: Path, mode: str) -> None:
    root = tmp_path / "set"
    for i in range(4):
        write_image(root / f"images/p{i}.png", i)
        write_image(root / f"masks/p{i}.png", i + 50, mode=mode)
    with pytest.raises(DataError, match="as in photographs"):
        init(root)


@pytest.mark.parametrize("lossy", [["p1", "p4"], [f"p{number}" for number in range(8)]])
def test_ids_that_jpeg_has_changed_are_refused_with_the_first_such_mask(tmp_path: Path, lossy: list[str]) -> None:
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, number % 4 + 4, (8, 8)).repeat(8, 0).repeat(8, 1) for number in range(8)]
    root = make_set(tmp_path / "set", masks)
    for name in lossy:
        mask = root / f"masks/{name}.png"
        Image.open(mask).save(mask.with_suffix(".jpg"))
        mask.unlink()
    with pytest.raises(
        DataError, match=rf"{len(lossy)} of 8 masks stored as JPEG.*in 0 to \d+.*First: .*{lossy[0]}\.jpg"
    ):
        init(root)


def test_masks_of_one_value_are_refused(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", [np.zeros((32, 32), np.int64)] * 3)
    with pytest.raises(DataError, match="one value 0"):
        init(root)


def test_a_folder_without_pairs_says_what_was_found_and_expected(tmp_path: Path) -> None:
    (tmp_path / "set/stuff").mkdir(parents=True)
    with pytest.raises(DataError, match=r"there: stuff \(empty\)\)\. Expected images/ and masks/"):
        init(tmp_path / "set")
    write_image(tmp_path / "set/images/a.png")
    (tmp_path / "set/masks").mkdir()
    (tmp_path / "set/masks/a.json").write_text("{}")
    with pytest.raises(DataError, match=r"there: images \(1 \.png\), masks \(1 \.json\), stuff \(empty\)"):
        init(tmp_path / "set")
    with pytest.raises(DataError, match="is a file; expected a folder"):
        scaffold(tmp_path / "set/masks/a.json", config_dir=tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        scaffold(tmp_path / "nowhere", config_dir=tmp_path)


def test_folders_of_other_names_are_refused_with_a_name_of_each(tmp_path: Path) -> None:
    for index in range(4):
        write_image(tmp_path / f"set/images/street_{index}.png", index)
        write_mask(tmp_path / f"set/masks/truth{chr(97 + index)}.png", regions(index, [0, 1]))
    with pytest.raises(DataError, match=r"found, such as images/street_0\.png, masks/trutha\.png \(there: "):
        init(tmp_path / "set")


def test_broken_and_unpaired_files_are_left_to_check(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", [regions(i, [0, 1]) for i in range(8)])
    (root / "masks/p3.png").write_bytes(b"not an image")
    write_image(root / "images/alone.png")
    config = init(root)
    assert sorted({p.split()[0] for p in problems(config, root)}) == ["SEG103", "SEG202"]


def test_links_to_nothing_and_a_folder_above_that_may_not_be_listed_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_set(tmp_path / "set", [regions(i, [0, 1, 2]) for i in range(8)])
    for name in ("notes.txt", "classes.csv", "train.lst"):
        (root / name).symlink_to("nowhere")
    scandir = os.scandir

    def listed(path: str) -> Iterator[os.DirEntry[str]]:
        if Path(path) == root.parent:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", listed)
    assert [spec.name for spec in init(root).data.classes] == ["class_0", "class_1", "class_2"]


def test_names_by_colour_reach_rgb_and_palette_masks(tmp_path: Path) -> None:
    for palette in (False, True):
        root = make_set(
            tmp_path / f"set{palette}", [regions(i, [0, 1, 2]) for i in range(8)], colors=COLORS, palette=palette
        )
        (root / "labelmap.txt").write_text(
            "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:255,0,0::\ndog:0,255,0::\n"
        )
        names = {(*spec.values, *spec.colors)[0]: spec.name for spec in init(root).data.classes}
        keys = [0, 1, 2] if palette else ["#000000", "#ff0000", "#00ff00"]
        assert [names[key] for key in keys] == ["background", "cat", "dog"]


@pytest.mark.parametrize("void", ["Void", "_ignore_", "no-data", "outside_roi", "unknown"])
def test_a_class_named_void_is_ignored(tmp_path: Path, void: str) -> None:
    root = make_set(tmp_path / "set", [regions(i, [0, 1, 2]) for i in range(8)])
    (root / "codes.txt").write_text(f"Sky\nRoad\n{void}\n")
    config = init(root)
    assert [spec.name for spec in config.data.classes] == ["Sky", "Road"]
    assert config.data.ignore == (2,)
    assert problems(config, root) == []


def test_a_class_named_void_that_is_most_of_the_pixels_may_be_a_background(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", [regions(i, [0, 1, 2]) for i in range(8)])
    (root / "codes.txt").write_text("void\ncat\ndog\n")
    assert init(root).data.ignore == (0,)
    told = " ".join(line.strip(" #") for line in (tmp_path / "config.yaml").read_text().splitlines())
    assert "LOOK: it is most of the pixels; where it is what lies behind the objects, make it a class" in told


def test_names_that_yaml_would_misread_come_through(tmp_path: Path) -> None:
    names = ["no", "#1: a, b", 'quo"ted', "1e3", "null"]
    root = make_set(tmp_path / "set", [regions(i, [0, 1, 2, 3, 4]) for i in range(8)])
    (root / "classes.txt").write_text("\n".join(names).replace("#1", "\\#1"))
    (found,) = find_names(root)
    assert [spec.name for spec in init(root).data.classes] == list(found.by_order)
    assert len(found.by_order) == 5


def test_grey_images_give_one_channel_and_transparent_ones_four(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", [regions(i, [0, 1]) for i in range(6)])
    assert init(root).data.channels == 3
    for i in range(6):
        write_image(root / f"images/p{i}.png", i, mode="L")
    assert init(root).data.channels == 1
    for i in range(6):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (48, 64, 4), np.uint8)).save(
            root / f"images/p{i}.png"
        )
    config = init(root)
    assert config.data.channels == 4
    assert problems(config, root) == []


@pytest.mark.parametrize("bands", [2, 4, 5, 9])
def test_tiffs_of_many_bands_give_as_many_channels(tmp_path: Path, bands: int) -> None:
    tifffile = pytest.importorskip("tifffile")
    root = make_set(tmp_path / "set", [regions(i, [0, 1]) for i in range(6)])
    for i in range(6):
        (root / f"images/p{i}.png").unlink()
        pixels = np.random.default_rng(i).integers(0, 255, (48, 64, bands), np.uint8)
        tifffile.imwrite(root / f"images/p{i}.tif", pixels, photometric="minisblack", planarconfig="contig")
    config = init(root)
    assert config.data.channels == bands
    assert problems(config, root) == []
    written = (root.parent / "config.yaml").read_text(encoding="utf-8")
    assert f"# All images are TIFFs of {bands} samples a pixel, and read with no other.\n  channels: {bands}" in written


def test_fcn_is_written_on_request_and_nothing_else_is_known(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", [regions(i, [0, 1]) for i in range(6)])
    decoder = init(root, model="fcn").model.decoder
    assert (decoder.name, decoder.options["skips"]) == ("fcn", 2)
    with pytest.raises(SegtoolError, match="expected unet or fcn"):
        scaffold(root, model="segnet", config_dir=tmp_path)


def test_the_root_is_relative_to_the_config_or_absolute_where_nothing_is_shared(tmp_path: Path) -> None:
    root = make_set(tmp_path / "a/set", [regions(i, [0, 1]) for i in range(4)])
    (tmp_path / "b").mkdir()
    assert "root: ../a/set\n" in scaffold(root, config_dir=tmp_path / "b")
    assert f"root: {root}\n" in scaffold(root, config_dir=Path("/elsewhere"))


@pytest.mark.parametrize("name", ["camvid", "em_membrane", "crackforest", "samples/suim", "samples/voc_palette"])
def test_real_sets_give_a_config_that_loads_and_has_no_error(name: str, tmp_path: Path) -> None:
    root = REAL / name
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    path = tmp_path / "config.yaml"
    path.write_text(scaffold(root, config_dir=tmp_path), encoding="utf-8")
    config = load_config(path)
    masks = sorted((root / "masks" if (root / "masks").is_dir() else root / "val/masks").iterdir())[:8]
    labels = Labels.from_config(config.data)
    for mask in masks:
        labels.read(mask, max_pixels=10**8)
    if name == "samples/voc_palette":
        assert config.data.ignore == (255,)
        assert [spec.name for spec in config.data.classes][:2] == ["background", "bottle"]


def test_values_that_no_prediction_holds_get_one_before_them_that_no_mask_has(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(8):
        picture = np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8)
        mask = np.zeros((48, 64), np.int32)
        mask[8:30, 8:20], mask[8:30, 30:50] = 1, 70_000
        for kind, pixels in (("images", picture), ("masks", mask)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / kind / f"p{i}.tif")
    (tmp_path / "config.yaml").write_text(scaffold(root, config_dir=tmp_path))
    config = load_config(tmp_path / "config.yaml")
    assert {spec.values for spec in config.data.classes} == {(0,), (1,), (2, 70_000)}
    assert not [finding for finding in check(config, tmp_path) if finding.severity == "error"]


@pytest.mark.parametrize(("dtype", "void"), [(np.int32, -(2**31)), (np.uint32, 2**32 - 1)])
def test_the_ends_of_the_32_bit_integers_which_stand_for_no_data_make_a_config(
    tmp_path: Path, dtype: type, void: int
) -> None:
    tifffile = pytest.importorskip("tifffile")
    root = tmp_path / "set"
    (root / "masks").mkdir(parents=True)
    for i in range(8):
        write_image(root / "images" / f"p{i}.png", seed=i)
        mask = np.zeros((48, 64), dtype)
        mask[8:30, 8:20], mask[:4] = 1, void
        tifffile.imwrite(root / "masks" / f"p{i}.tif", mask)
    (tmp_path / "config.yaml").write_text(scaffold(root, config_dir=tmp_path))
    config = load_config(tmp_path / "config.yaml")
    assert void in {*config.data.ignore, *(value for spec in config.data.classes for value in spec.values)}
    assert not [finding for finding in check(config, tmp_path) if finding.severity == "error"]
