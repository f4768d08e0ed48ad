"""Masks: stored values exactly, their meaning under each encoding, and predictions written back."""

from __future__ import annotations

import io
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pngs import png
from reading import read_mask

from segtool.config import ClassSpec, Config, Data
from segtool.data.codes import IGNORE
from segtool.data.facts import look_at_masks
from segtool.data.labels import Labels, resolve
from segtool.data.masks import StoredMask
from segtool.data.pairs import find_pairs
from segtool.data.uses import class_pixels
from segtool.errors import ConfigError, DataError
from segtool.init.encoding_of_colors import in_colors

SHARED = Path(__file__).parents[2] / "shared" / "data"
SMALL = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
RED, GREEN, BLUE, WHITE = "#ff0000", "#00ff00", "#0000ff", "#ffffff"
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)


def data(*codes: Any, encoding: Any = "index", **options: Any) -> Data:
    """Returns a section whose classes a, b, … have these codes, each one or a tuple."""
    several = [code if isinstance(code, tuple) else (code,) for code in codes]
    classes = [
        ClassSpec(chr(97 + i), colors=code) if encoding in ("palette", "rgb") else ClassSpec(chr(97 + i), values=code)
        for i, code in enumerate(several)
    ]
    return Data(encoding=encoding, classes=tuple(classes), **options)


def save(path: Path, array: np.ndarray, **options: Any) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def save_palette(path: Path, indices: np.ndarray, palette: list[int], **options: Any) -> Path:
    image = Image.fromarray(indices)
    image.putpalette(palette)
    image.save(path, **options)
    return path


def stored(*rows: list[int], mode: str = "L", dtype: Any = np.uint8) -> StoredMask:
    return StoredMask(np.array(rows, dtype), mode, step=255 if mode == "1" else 1)


# --- reading


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".gif"])
def test_grey_values_are_read_exactly(tmp_path: Path, suffix: str) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    mask = read_mask(save(tmp_path / f"a{suffix}", values))
    assert np.array_equal(mask.values, values)
    assert (mask.mode, mask.palette, mask.lossy) == ("L", None, False)


def test_palette_indices_are_read_not_their_grey(tmp_path: Path) -> None:
    colors = [128, 0, 0, 0, 128, 0, 128, 128, 0]
    for name in ("a.png", "a.bmp", "a.gif", "a.tif"):
        mask = read_mask(save_palette(tmp_path / name, SMALL, colors))
        assert mask.values.tolist() == SMALL.tolist()
        assert mask.mode == "P"
        assert mask.palette is not None
        assert list(mask.palette[:9]) == colors


def test_one_bit_masks_hold_0_and_1(tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp", "a.tif"):
        mask = read_mask(save(tmp_path / name, SMALL > 0))
        assert mask.values.tolist() == (SMALL > 0).astype(int).tolist()
        assert (mask.mode, mask.values.dtype) == ("1", np.uint8)


def save_bits(path: Path, values: np.ndarray, bits: int) -> Path:
    """Writes grey values as a PNG of 1, 2, 4 or 8 bits a pixel."""
    height, width = values.shape
    length = -(-width * bits // 8)
    rows = b""
    for row in values:
        packed = 0
        for value in row:
            packed = packed << bits | int(value)
        rows += b"\0" + (packed << (length * 8 - width * bits)).to_bytes(length, "big")
    path.write_bytes(png(width, height, bits, 0, rows))
    return path


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_few_bits_is_not_stretched(tmp_path: Path, bits: int) -> None:
    path = save_bits(tmp_path / "b.png", SMALL, bits)
    assert read_mask(path).values.tolist() == SMALL.tolist()
    assert Labels.from_config(data(0, 1, 2)).read(path, max_pixels=10**8).tolist() == SMALL.tolist()


@pytest.mark.parametrize("order", [(1, 2, 4, 8), (8, 4, 2, 1)])
def test_grey_levels_and_colours_are_those_of_the_picture_whatever_bits_hold_them(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    drawn = SMALL > 0
    paths = [save_bits(tmp_path / f"{bits}.png", drawn * (2**bits - 1), bits) for bits in order]
    for path in paths:
        os.utime(path, (0, 0))  # what was left alone for long is kept in the cache
    for section in (
        data(0, 255, encoding="threshold"),
        data("#000000", WHITE, encoding="rgb"),
        data("#000000", WHITE, encoding="rgb", nearest=True),
    ):
        labels = Labels.from_config(section)
        for path in paths:
            stored_mask = read_mask(path)
            assert labels.read(path, max_pixels=10**8).tolist() == drawn.astype(int).tolist()
            assert labels.look_up(stored_mask).tolist() == drawn.astype(int).tolist()
            assert labels.places(stored_mask).tolist() == drawn.astype(int).tolist()
        for _ in range(2):  # anew, and from the cache
            counted = class_pixels(Config(data=section), paths)
            assert [counts.tolist() for counts in counted.values()] == [[(~drawn).sum(), drawn.sum()]] * 4
    for facts in look_at_masks(paths, max_pixels=100).values():
        assert in_colors(facts).values.tolist() == [0, 0xFFFFFF]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_masks_are_exact(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 255, 256], [1000, 65534, 65535]], np.uint16)
    mask = read_mask(save(tmp_path / f"a{suffix}", values))
    assert np.array_equal(mask.values, values)
    assert (mask.mode, mask.values.dtype) == ("I;16", np.uint16)


def test_32_bit_and_signed_tiffs_are_exact(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    for dtype, values in (
        (np.int32, [-5, 0, 2**31 - 1]),
        (np.uint32, [0, 7, 2**32 - 1]),
        (np.int16, [-300, 0, 300]),
        (np.int8, [-1, 0, 100]),
    ):
        tifffile.imwrite(tmp_path / "a.tif", np.array([values], dtype))
        assert read_mask(tmp_path / "a.tif").values.tolist() == [values]


def test_big_endian_16_bit_masks_are_exact(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", np.array([[1, 258]], np.uint16), byteorder=">")
    assert read_mask(tmp_path / "a.tif").values.tolist() == [[1, 258]]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_colours_are_read_as_they_are(tmp_path: Path, suffix: str) -> None:
    mask = read_mask(save(tmp_path / f"a{suffix}", COLORS[SMALL]))
    assert np.array_equal(mask.values, COLORS[SMALL])
    assert mask.mode == "RGB"


def test_opaque_alpha_is_dropped_and_other_alpha_refused(tmp_path: Path) -> None:
    opaque = np.full((2, 3), 255, np.uint8)
    assert read_mask(save(tmp_path / "a.png", np.dstack([COLORS[SMALL], opaque]))).mode == "RGB"
    assert read_mask(save(tmp_path / "b.png", np.dstack([SMALL, opaque]))).values.tolist() == SMALL.tolist()
    labels = Labels.from_config(data(0, 1, 2))
    half = opaque.copy()
    half[0, :2] = 0
    path = save(tmp_path / "c.png", np.dstack([np.zeros_like(SMALL), half]))
    with pytest.raises(DataError, match="2 pixels that are not opaque"):
        labels.read(path, max_pixels=10**8)


def test_alpha_that_each_colour_has_one_of_says_no_more_than_the_colours(tmp_path: Path) -> None:
    opaque = np.full((2, 3), 255, np.uint8)
    for picture in (np.dstack([COLORS[SMALL], opaque * (SMALL > 0)]), np.dstack([COLORS[SMALL], opaque * 0])):
        mask = read_mask(save(tmp_path / "c.png", picture))
        assert np.array_equal(mask.values, COLORS[SMALL])
        assert mask.veiled == 0


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_opacity_is_read_and_written_as_the_classes(tmp_path: Path, mode: str) -> None:
    alpha = np.array([[0, 255, 130], [90, 255, 0]], np.uint8)
    bands = [np.full_like(alpha, 200)] * (len(mode) - 1)
    path = save(tmp_path / "a.png", np.dstack([*bands, alpha]))
    resolved = resolve(data(0, 255, encoding="alpha"), read_mask(path))
    assert resolved.mask_mode == mode
    labels = Labels.from_config(resolved)
    indices = labels.read(path, max_pixels=10**8)
    assert indices.tolist() == [[0, 1, 1], [0, 1, 0]]
    labels.encode(indices).save(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as written:
        assert written.mode == mode
    assert np.array_equal(labels.read(tmp_path / "b.png", max_pixels=10**8), indices)
    with pytest.raises(DataError, match="without a channel of opacity"):
        labels.read(save(tmp_path / "c.png", alpha), max_pixels=10**8)


def test_float_wide_colour_and_several_frames_are_refused(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "f.tif", SMALL.astype(np.float32))
    tifffile.imwrite(tmp_path / "w.tif", COLORS[SMALL].astype(np.uint16), photometric="rgb")
    tifffile.imwrite(tmp_path / "z.tif", SMALL, photometric="miniswhite")
    frames = [Image.fromarray(SMALL * np.uint8(n + 1)) for n in range(3)]
    frames[0].save(tmp_path / "g.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "l.webp", lossless=True)
    expected = {
        "f.tif": "floating",
        "w.tif": "16 bits",
        "z.tif": "white as zero",
        "g.gif": "3 frames",
        "l.webp": "WebP",
    }
    for name, found in expected.items():
        with pytest.raises(DataError, match=f"{name}.*{found}.*;"):
            read_mask(tmp_path / name)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_mask_with_an_orientation_is_refused(tmp_path: Path, suffix: str) -> None:
    for orientation in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(tmp_path / f"{orientation}{suffix}", SMALL, exif=exif.tobytes())
    assert read_mask(tmp_path / f"1{suffix}").values.shape == (2, 3)
    with pytest.raises(DataError, match="mask with EXIF orientation 6"):
        read_mask(tmp_path / f"6{suffix}")


def test_the_limit_on_pixels_holds_for_masks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"limits.max_pixels is 5"):
        read_mask(save(tmp_path / "a.png", SMALL), max_pixels=5)


def test_mutated_masks_give_values_or_a_data_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    originals = [save(tmp_path / f"o{suffix}", SMALL).read_bytes() for suffix in (".png", ".bmp", ".tif", ".gif")]
    originals.append(save_palette(tmp_path / "p.png", SMALL, [1, 2, 3] * 3).read_bytes())
    outcomes = {"read": 0, "refused": 0}
    for _ in range(400):
        content = bytearray(originals[rng.integers(len(originals))])
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(len(content))] = rng.integers(256)
        (tmp_path / "m").write_bytes(content)
        try:
            mask = read_mask(tmp_path / "m", max_pixels=10_000)
            assert mask.values.ndim in (2, 3)
            outcomes["read"] += 1
        except DataError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20


# --- decoding


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        (data(0, 1, 2), [0, 1, 2], [0, 1, 2]),
        (data(0, 255), [0, 255], [0, 1]),
        (data(255, 0), [0, 255], [1, 0]),
        (data(3, (7, 9), ignore=(11,)), [3, 7, 9, 11], [0, 1, 1, IGNORE]),
        (data(0, "1..65535"), [0, 1, 65535], [0, 1, 1]),
        (data(0, "1..9", ignore=("200..255", 100)), [0, 1, 9, 200, 255, 100], [0, 1, 1, *[IGNORE] * 3]),
        (data("-5..-1", 0), [-5, -1, 0], [0, 0, 1]),
        (data(5, "0..4"), [0, 4, 5], [1, 1, 0]),
    ],
)
def test_values_ranges_and_ignored_values_become_indices(section: Data, values: list[int], expected: list[int]) -> None:
    labels = Labels.from_config(section)
    for dtype, mode in ((np.uint8, "L"), (np.uint16, "I;16"), (np.int32, "I")):
        if np.iinfo(dtype).min <= min(values) and max(values) <= np.iinfo(dtype).max:
            found = labels.decode(stored(values, mode=mode, dtype=dtype), Path("m.png"))
            assert found.tolist() == [expected]
            assert found.dtype == np.uint8


@settings(deadline=None)
@given(
    edges=st.lists(st.integers(-50, 300), min_size=2, max_size=12, unique=True),
    values=arrays(np.int32, (3, 5), elements=st.integers(-60, 310)),
)
def test_lookup_agrees_with_a_loop_over_the_classes(edges: list[int], values: np.ndarray) -> None:
    ordered = sorted(edges)
    ranges = [(ordered[i], ordered[i + 1] - 1) for i in range(0, len(ordered) - 1, 2)]
    labels = Labels.from_config(data(*(f"{low}..{high}" for low, high in ranges)))
    lost = labels.unknown(StoredMask(values, "I"))
    for (y, x), value in np.ndenumerate(values):
        owners = [i for i, (low, high) in enumerate(ranges) if low <= value <= high]
        assert (int(value) in lost) == (not owners)
        if owners:
            one = StoredMask(values[y : y + 1, x : x + 1], "I")
            assert labels.decode(one, Path("m"))[0, 0] == owners[0]


def test_the_nearest_grey_value_counts_and_ties_go_up() -> None:
    labels = Labels.from_config(data(0, 100, "200..220", encoding="threshold", ignore=(255,)))
    values = [0, 49, 50, 51, 149, 150, 199, 210, 220, 237, 238, 255]
    expected = [0, 0, 1, 1, 1, 2, 2, 2, 2, 2, IGNORE, IGNORE]
    assert labels.decode(stored(values), Path("m")).tolist() == [expected]
    below = Labels.from_config(data(50, 100, encoding="threshold"))
    assert below.decode(stored([0, 50, 255]), Path("m")).tolist() == [[0, 0, 1]]


def test_one_bit_masks_under_threshold_are_black_and_white() -> None:
    labels = Labels.from_config(data(0, 255, encoding="threshold"))
    assert labels.decode(stored([0, 1], mode="1"), Path("m")).tolist() == [[0, 1]]


def test_colours_are_exact_unless_nearest() -> None:
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [250, 3, 2]]], np.uint8)
    section = data(RED, GREEN, encoding="rgb", ignore=("#000000",))
    with pytest.raises(DataError, match=r"colour #fa0302 at \(2, 0\)"):
        Labels.from_config(section).decode(StoredMask(pixels, "RGB"), Path("m"))
    near = Labels.from_config(replace(section, nearest=True))
    assert near.decode(StoredMask(pixels, "RGB"), Path("m")).tolist() == [[0, 1, 0]]
    dark = np.array([[[9, 9, 9]]], np.uint8)
    assert near.decode(StoredMask(dark, "RGB"), Path("m")).tolist() == [[IGNORE]]


@settings(deadline=None)
@given(arrays(np.uint8, (2, 4, 3)))
def test_the_nearest_colour_is_the_least_squared_distance_first_class_first(pixels: np.ndarray) -> None:
    table = np.array([[200, 0, 0], [0, 200, 0], [200, 200, 0], [0, 0, 0]])
    names = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in table]
    labels = Labels.from_config(data(*names[:3], encoding="rgb", nearest=True, ignore=(names[3],)))
    distance = ((pixels[:, :, None].astype(int) - table) ** 2).sum(-1)
    expected = np.array([0, 1, 2, IGNORE])[distance.argmin(-1)]  # argmin takes the first of equals
    assert np.array_equal(labels.decode(StoredMask(pixels, "RGB"), Path("m")), expected)


def test_the_same_index_means_another_class_under_another_palette(tmp_path: Path) -> None:
    one = save_palette(tmp_path / "1.png", SMALL, [255, 0, 0, 0, 255, 0, 0, 0, 255])
    two = save_palette(tmp_path / "2.png", SMALL, [0, 0, 255, 255, 0, 0, 0, 255, 0])
    colors = save(tmp_path / "3.png", COLORS[SMALL])
    for encoding in ("palette", "rgb"):
        labels = Labels.from_config(data(RED, GREEN, BLUE, encoding=encoding))
        assert labels.read(one, max_pixels=10**8).tolist() == SMALL.tolist()
        assert labels.read(two, max_pixels=10**8).tolist() == np.array([2, 0, 1])[SMALL].tolist()
    assert labels.read(colors, max_pixels=10**8).tolist() == SMALL.tolist()


def test_a_palette_colour_that_is_no_class_matters_only_where_it_is_used(tmp_path: Path) -> None:
    palette = [255, 0, 0, 0, 255, 0, 9, 9, 9]
    labels = Labels.from_config(data(RED, GREEN, encoding="palette"))
    known = save_palette(tmp_path / "a.png", SMALL % 2, palette)
    assert labels.read(known, max_pixels=10**8).tolist() == (SMALL % 2).tolist()
    with pytest.raises(DataError, match=r"#090909 at \(2, 0\) and 2 pixels"):
        labels.read(save_palette(tmp_path / "b.png", SMALL, palette), max_pixels=10**8)


def test_grey_masks_have_colours_too() -> None:
    labels = Labels.from_config(data("#000000", WHITE, encoding="rgb"))
    assert labels.decode(stored([0, 255]), Path("m")).tolist() == [[0, 1]]
    assert labels.decode(stored([0, 1], mode="1"), Path("m")).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("section", "mask", "remedy"),
    [
        (data(0, 1), StoredMask(COLORS[SMALL], "RGB"), r"data\.encoding: rgb"),
        (data(0, 255, encoding="threshold"), StoredMask(COLORS[SMALL], "RGB"), r"data\.encoding: rgb"),
        (data(0, 255, encoding="threshold"), StoredMask(SMALL, "P", b"\0" * 9), r"data\.encoding: index"),
        (data(RED, encoding="palette"), StoredMask(COLORS[SMALL], "RGB"), r"data\.encoding: rgb"),
        (data(RED, encoding="rgb"), StoredMask(SMALL.astype(np.uint16), "I;16"), r"data\.encoding: index"),
    ],
)
def test_a_mask_of_another_kind_is_refused_with_the_encoding_that_reads_it(
    section: Data, mask: StoredMask, remedy: str
) -> None:
    labels = Labels.from_config(section)
    assert labels.misfit(mask)
    with pytest.raises(DataError, match=rf"dir/m.png: .*{remedy}"):
        labels.decode(mask, Path("dir/m.png"))


def test_jpeg_masks_need_nearest_or_threshold(tmp_path: Path) -> None:
    blocks = np.kron(np.array([[0, 1], [1, 0]], np.uint8), np.ones((8, 8), np.uint8))
    grey = save(tmp_path / "g.jpg", blocks * np.uint8(255), quality=60)
    color = save(tmp_path / "c.jpg", COLORS[blocks], quality=60, subsampling=0)
    for section, path in ((data(0, 255), grey), (data(RED, GREEN, encoding="rgb"), color)):
        with pytest.raises(DataError, match=r"lossy.*PNG"):
            Labels.from_config(section).read(path, max_pixels=10**8)
    assert np.array_equal(Labels.from_config(data(0, 255, encoding="threshold")).read(grey, max_pixels=10**8), blocks)
    near = Labels.from_config(data(RED, GREEN, encoding="rgb", nearest=True))
    assert np.array_equal(near.read(color, max_pixels=10**8), blocks)


def test_a_value_that_is_no_class_is_told_with_pixel_count_and_classes() -> None:
    labels = Labels.from_config(data(0, 1, ignore=(11,)))
    with pytest.raises(DataError) as caught:
        labels.decode(stored([0, 1, 4], [4, 4, 7]), Path("masks/cat.png"))
    text = str(caught.value)
    assert text.startswith("masks/cat.png: value 4 at (2, 0) and 3 pixels in all, and 7 elsewhere")
    assert "values 0, 1, 11; " in text
    assert "data.ignore" in text.split("; ")[1]
    assert labels.unknown(stored([0, 1, 4], [4, 4, 7])) == {4: (3, (2, 0)), 7: (1, (2, 1))}


def test_values_outside_of_where_are_not_looked_at() -> None:
    labels = Labels.from_config(data(0, 1))
    where = np.array([[True, False, True]])
    assert labels.decode(stored([0, 9, 1]), Path("m"), where=where).tolist() == [[0, IGNORE, 1]]
    with pytest.raises(DataError, match=r"value 8 at \(2, 0\) and 1 pixel in all, but"):
        labels.decode(stored([0, 9, 8]), Path("m"), where=where)


@pytest.mark.parametrize(
    ("section", "mask", "hint"),
    [
        (data(0, 1), stored([0, 255]), r"0/255.*values: \[255\]"),
        (data(0, 1), StoredMask(np.arange(400, dtype=np.uint16)[None], "I;16"), r"instance ids.*1\.\.65535"),
        (data(0, 1), StoredMask(np.arange(184, dtype=np.uint16)[None], "I;16"), r"instance ids.*1\.\.65535"),
        (data(0, 255), stored(list(range(256))), "encoding: threshold"),
        (
            data(RED, encoding="rgb"),
            StoredMask(np.arange(60, dtype=np.uint8).reshape(1, 20, 3), "RGB"),
            "nearest: true",
        ),
    ],
)
def test_usual_mistakes_get_their_own_remedy(section: Data, mask: StoredMask, hint: str) -> None:
    with pytest.raises(DataError, match=hint):
        Labels.from_config(section).decode(mask, Path("m.png"))


def test_negative_and_wide_values_are_no_class(tmp_path: Path) -> None:
    labels = Labels.from_config(data(0, 1))
    for value, dtype, mode in ((-1, np.int32, "I"), (256, np.uint16, "I;16"), (2, np.uint8, "L")):
        assert labels.unknown(stored([0, value], mode=mode, dtype=dtype)) == {value: (1, (1, 0))}


# --- configs


def test_display_colours_are_given_or_stored_or_from_the_palette() -> None:
    classes = (
        ClassSpec("a", colors=(RED, BLUE), color=WHITE),
        ClassSpec("b", colors=(GREEN,)),
    )
    labels = Labels.from_config(Data(encoding="rgb", classes=classes))
    assert labels.colors.tolist() == [[255, 255, 255], [0, 255, 0]]
    many = Labels.from_config(data(*range(200)))
    assert many.colors.shape == (200, 3)
    assert len(np.unique(many.colors[:24], axis=0)) == 24
    assert many.names[:2] == ("a", "b")
    assert many.num_classes == 200


# --- writing


def through_file(image: Image.Image, tmp: io.BytesIO, path: Path) -> StoredMask:
    image.save(tmp, "PNG")
    path.write_bytes(tmp.getvalue())
    return read_mask(path)


SECTIONS = {
    "index": data(0, 1, 2),
    "gaps": data(3, (200, 7), 9, ignore=(255,)),
    "binary": data(0, 255),
    "bits": data(1, 0, mask_mode="1"),
    "wide": data(0, "300..400", 65535),
    "palette indices": data(0, 5, 2, mask_mode="P"),
    "palette indices, own palette": data(0, 5, 2, mask_mode="P", palette="010203" * 4),
    "forced 16 bits": data(0, 1, mask_mode="I;16"),
    "threshold": data(0, 128, 255, encoding="threshold"),
    "wide threshold": data(0, 1000, encoding="threshold"),
    "rgb": data(RED, (GREEN, WHITE), BLUE, encoding="rgb", ignore=("#000000",)),
    "rgb nearest": data(RED, GREEN, encoding="rgb", nearest=True),
    "rgb as palette": data(RED, GREEN, encoding="rgb", mask_mode="P"),
    "palette": data(RED, GREEN, BLUE, encoding="palette"),
    "palette, own": data(RED, GREEN, encoding="palette", palette="0000ff00ff00123456ff0000"),
}


@pytest.mark.parametrize("name", SECTIONS)
def test_what_is_written_reads_back_as_it_was(tmp_path: Path, name: str) -> None:
    labels = Labels.from_config(SECTIONS[name])
    rng = np.random.default_rng(0)
    choices = [*range(labels.num_classes), *([IGNORE] if SECTIONS[name].ignore else [])]
    for shape in ((1, 1), (5, 9), (64, 48)):
        indices = rng.choice(choices, shape).astype(np.uint8)
        image = labels.encode(indices)
        assert image.mode == labels.writer.mode
        again = through_file(image, io.BytesIO(), tmp_path / "m.png")
        assert np.array_equal(labels.decode(again, tmp_path / "m.png"), indices)


def test_a_mask_in_colour_is_written_with_little_more_memory_than_it_takes() -> None:
    labels = Labels.from_config(data("#ff0000", "#0000ff", encoding="rgb"))
    indices = np.zeros((500, 400), np.uint8)
    labels.encode(indices)  # makes its tables
    tracemalloc.start()
    labels.encode(indices)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 * indices.size


@settings(deadline=None)
@given(
    codes=st.lists(st.integers(0, 65535), min_size=1, max_size=30, unique=True),
    picks=arrays(np.uint8, (3, 4), elements=st.integers(0, 29)),
    encoding=st.sampled_from(["index", "threshold", "rgb", "palette"]),
)
def test_decoding_undoes_encoding_for_any_codes(codes: list[int], picks: np.ndarray, encoding: str) -> None:
    named = [f"#{code:06x}" for code in codes] if encoding in ("rgb", "palette") else codes
    labels = Labels.from_config(data(*named, encoding=encoding))
    indices = picks % np.uint8(len(codes))
    image = labels.encode(indices)
    palette = bytes(image.getpalette("RGB") or ()) if image.mode == "P" else None
    again = StoredMask(np.asarray(image), image.mode, palette)
    assert np.array_equal(labels.decode(again, Path("m")), indices)


def test_predictions_bear_the_first_value_and_colour() -> None:
    assert np.asarray(Labels.from_config(data(3, (200, 7))).encode(np.array([[0, 1]], np.uint8))).tolist() == [[3, 200]]
    ranged = Labels.from_config(data(0, "7..99"))
    assert np.asarray(ranged.encode(np.array([[1]], np.uint8))).tolist() == [[7]]
    color = Labels.from_config(data((GREEN, RED), encoding="rgb"))
    assert np.asarray(color.encode(np.array([[0]], np.uint8))).tolist() == [[[0, 255, 0]]]


def test_palette_indices_show_the_class_colours() -> None:
    labels = Labels.from_config(data(0, 4, mask_mode="P"))
    image = labels.encode(np.array([[0, 1]], np.uint8))
    assert np.array_equal(np.asarray(image.convert("RGB"))[0], labels.colors)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        (data(0, 255, mask_mode="1"), "data.mask_mode"),
        (data(0, 256, mask_mode="L"), "data.mask_mode"),
        (data(-1, 0), "data.mask_mode"),
        (data(0, 1, mask_mode="RGB"), "data.mask_mode"),
        (data(RED, encoding="rgb", mask_mode="L"), "data.mask_mode"),
        (data(RED, encoding="palette", mask_mode="RGB"), "data.mask_mode"),
        (data(RED, encoding="palette", palette="00ff00"), "data.palette"),
    ],
)
def test_a_mode_that_cannot_hold_the_classes_is_a_config_error(section: Data, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        Labels.from_config(section).encode(np.zeros((1, 1), np.uint8))


@pytest.mark.parametrize(
    ("section", "remedy"),
    [
        (data(0, 300, mask_mode="L", ignore=(1, 2)), r"no mask has, as in `values: \[3, 300\]`, which"),
        (data(0, 1, 2, mask_mode="1"), "within the range that no mask has, which .*, or choose a wider mode"),
    ],
)
def test_a_mode_too_narrow_is_told_with_a_value_that_nothing_means_if_there_is_one(section: Data, remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        Labels.from_config(section)


def test_ignored_pixels_need_a_value_to_be_written_with() -> None:
    with pytest.raises(ConfigError, match=r"data\.ignore"):
        Labels.from_config(data(0, 1)).encode(np.full((1, 1), IGNORE, np.uint8))


@pytest.mark.parametrize(
    ("section", "mask", "mode"),
    [
        (data(0, 1), stored([0]), "L"),
        (data(0, 1), stored([0], mode="1"), "1"),
        (data(0, 255), stored([0], mode="1"), "L"),
        (data(0, 1), stored([0], mode="I;16", dtype=np.uint16), "I;16"),
        (data(0, 1), stored([0], mode="I", dtype=np.int32), "I;16"),
        (data(0, 300), stored([0]), "I;16"),
        (data(0, 1), StoredMask(SMALL, "P", bytes(range(9))), "P"),
        (data(0, 255, encoding="threshold"), stored([0], mode="1"), "L"),
        (data(RED, encoding="rgb"), StoredMask(SMALL, "P", bytes(range(9))), "RGB"),
        (data(RED, encoding="palette"), StoredMask(SMALL, "P", bytes(range(9))), "P"),
        (data(0, 1, mask_mode="L"), StoredMask(SMALL, "P", bytes(range(9))), "L"),
    ],
)
def test_predictions_take_the_mode_of_the_first_training_mask(section: Data, mask: StoredMask, mode: str) -> None:
    resolved = resolve(section, mask)
    assert resolved.mask_mode == mode
    assert Labels.from_config(resolved).encode(np.zeros((1, 1), np.uint8)).mode == mode
    assert resolve(resolved, mask) == resolved


def test_predictions_take_the_palette_of_the_first_training_mask() -> None:
    mask = StoredMask(SMALL, "P", bytes([1, 2, 3, 255, 0, 0]))
    assert resolve(data(0, 1), mask).palette == "010203ff0000"
    assert resolve(data(RED, GREEN, encoding="palette"), mask).palette == "010203ff000000ff00"
    given = data(RED, encoding="palette", palette="ff0000")
    assert resolve(given, mask).palette == "ff0000"


@pytest.mark.parametrize("nodata", [-9999, 100_000])
def test_ignored_values_that_no_file_of_predictions_can_hold_are_never_written(nodata: int) -> None:
    mask = stored([0, 1, nodata], mode="I", dtype=np.int32)
    labels = Labels.from_config(resolve(data(0, 1, ignore=(nodata,)), mask))
    assert labels.decode(mask, Path("m.tif")).tolist() == [[0, 1, IGNORE]]
    assert np.asarray(labels.encode(np.array([[0, 1]], np.uint8))).tolist() == [[0, 1]]
    with pytest.raises(ConfigError, match="lists nothing that ignored pixels can be written with"):
        labels.encode(np.array([[IGNORE]], np.uint8))


def test_a_value_that_no_prediction_holds_is_told_with_a_config_that_works() -> None:
    mask = stored([0, 1, 70_000], mode="I", dtype=np.int32)
    with pytest.raises(ConfigError, match=r"I;16 holds 0 to 65535, .* 70000; list first .*`values: \[2, 70000\]`"):
        resolve(data(0, 1, 70_000), mask)
    labels = Labels.from_config(resolve(data(0, 1, (2, 70_000)), mask))
    assert labels.decode(mask, Path("m.tif")).tolist() == [[0, 1, 2]]
    assert np.asarray(labels.encode(np.array([[0, 1, 2]], np.uint8))).tolist() == [[0, 1, 2]]


def test_classes_that_cannot_be_written_are_told_before_training() -> None:
    with pytest.raises(ConfigError, match=r"data\.mask_mode"):
        resolve(data(-1, 0), stored([0], mode="I", dtype=np.int32))


# --- real data


def real(name: str) -> Path:
    if not (SHARED / name).is_dir():
        pytest.skip(f"{name} is not here")
    return SHARED / name


@pytest.mark.parametrize(
    ("name", "section", "present"),
    [
        ("crackforest", data(1, 2, 3, 4), {0, 1}),
        ("em_membrane", data(0, 255), {0, 1}),
        ("samples/voc_palette", data(*range(21), ignore=(255,)), {0}),
        ("samples/tif16", data(0, "1..65535"), {0, 1}),
    ],
)
def test_real_masks_decode_and_are_written_back(tmp_path: Path, name: str, section: Data, present: set[int]) -> None:
    root = real(name)
    records = find_pairs(root / "images", root / "masks", section.pairing).records[:3]
    first = read_mask(records[0].mask)  # type: ignore[arg-type]
    labels = Labels.from_config(resolve(section, first))
    for record in records:
        assert record.mask is not None
        indices = labels.read(record.mask, max_pixels=10**8)
        assert present <= set(np.unique(indices).tolist())
        labels.encode(indices).save(tmp_path / "p.png")
        again = read_mask(tmp_path / "p.png")
        assert np.array_equal(labels.decode(again, tmp_path / "p.png"), indices)
        assert again.mode == first.mode


def test_real_colour_masks_decode_exactly() -> None:
    root = real("samples/suim")
    names = [f"#{r}{g}{b}" for r in ("00", "ff") for g in ("00", "ff") for b in ("00", "ff")]
    labels = Labels.from_config(data(*names, encoding="rgb"))
    for path in sorted((root / "masks").iterdir())[:3]:
        indices = labels.read(path, max_pixels=10**8)
        with Image.open(path) as image:
            bits = np.asarray(image) // 255
        assert np.array_equal(indices, bits @ np.array([4, 2, 1]))


def test_real_instance_ids_are_told_how_to_be_mapped() -> None:
    root = real("samples/tif16")
    with pytest.raises(DataError, match=r"instance ids.*values: \[1\.\.65535\]"):
        Labels.from_config(data(0, 1)).read(root / "masks" / "pkg2d.tif", max_pixels=10**8)


@pytest.mark.parametrize("count", [3, 254, 255])
def test_bytes_are_read_as_every_other_value_is_up_to_the_most_classes(count):
    labels = Labels.from_config(Data(classes=tuple(ClassSpec(f"c{v}", values=(v,)) for v in range(count))))
    values = np.arange(count, dtype=np.uint8).reshape(1, -1)
    for kind in (np.uint8, np.uint16):
        decoded = labels.decode(StoredMask(values.astype(kind), "L"), Path("a.png"))
        np.testing.assert_array_equal(decoded, values)
        assert decoded.dtype == np.uint8
    with pytest.raises(DataError, match=r"value 255 at \(1, 0\) and 1 pixel in all"):
        labels.decode(StoredMask(np.array([[0, 255]], np.uint8), "L"), Path("a.png"))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16])
@pytest.mark.parametrize("count", [3, 254, 255])
def test_places_are_the_indices_with_ignored_and_unknown_ones_after_the_classes(count, dtype):
    labels = Labels.from_config(data(*range(1, count), 2000, ignore=(0,)))
    values = np.arange(-128, 128).astype(dtype).reshape(16, 16)
    expected = []
    for value in values.ravel().tolist():
        expected.append(count if value == 0 else value - 1 if 0 < value < count else count + 1)
    places = labels.places(StoredMask(values, "L"))
    assert places.dtype == np.intp
    assert places.ravel().tolist() == expected


def test_places_of_a_palette_are_those_of_its_own_colours():
    labels = Labels.from_config(data(RED, GREEN, encoding="palette", ignore=(WHITE,)))
    for colors, expected in (((RED, GREEN, WHITE), [0, 1, 2]), ((BLUE, WHITE, RED), [3, 2, 0])):
        palette = bytes.fromhex("".join(color[1:] for color in colors))
        mask = StoredMask(np.arange(3, dtype=np.uint8)[None], "P", palette)
        assert labels.places(mask).tolist() == [expected]
