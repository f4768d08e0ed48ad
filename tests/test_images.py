"""The image reader: every mode and format, orientation, limits, and files that are broken or something else."""

from __future__ import annotations

import ast
import io
import os
import resource
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pngs import chunk, png
from reading import image_size, read_image

import segtool.data
from segtool.errors import DataError

SHARED = Path(__file__).parents[2] / "shared" / "data"
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), np.uint8)
GREY = RNG.integers(0, 256, (5, 7), np.uint8)
WIDE = RNG.integers(0, 65536, (5, 7), np.uint16)


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)  # type: ignore[arg-type]
    return path


def luminance(rgb: np.ndarray) -> np.ndarray:
    """ITU-R 601-2 in Pillow's fixed point."""
    red, green, blue = (rgb[..., i].astype(np.int64) for i in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_rgb_is_read_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", RGB, **({"lossless": True} if suffix == ".webp" else {}))
    pixels = read_image(path, channels=3)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, RGB)
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


def test_jpeg_is_read_as_pillow_decodes_it(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", RGB)
    with Image.open(path) as image:
        assert np.array_equal(read_image(path, channels=3), np.asarray(image))


def test_the_content_tells_the_format_not_the_name(tmp_path: Path) -> None:
    path = save(tmp_path / "a.bmp", RGB)
    os.rename(path, tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", channels=3), RGB)


def test_grey_and_colour_become_the_channels_that_are_asked_for(tmp_path: Path) -> None:
    grey, color = save(tmp_path / "g.png", GREY), save(tmp_path / "c.png", RGB)
    opaque = np.full((5, 7, 1), 255, np.uint8)
    repeated = np.repeat(GREY[..., None], 3, axis=2)
    assert np.array_equal(read_image(grey, channels=1), GREY[..., None])
    assert np.array_equal(read_image(grey, channels=3), repeated)
    assert np.array_equal(read_image(grey, channels=4), np.concatenate([repeated, opaque], axis=2))
    assert np.array_equal(read_image(color, channels=1), luminance(RGB)[..., None])
    assert np.array_equal(read_image(color, channels=4), np.concatenate([RGB, opaque], axis=2))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits = GREY > 127
    for name in ("a.png", "a.bmp", "a.tif"):
        assert np.array_equal(read_image(save(tmp_path / name, bits), channels=1)[..., 0], bits * np.uint8(255))


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(GREY % 3)
    image.putpalette([1, 2, 3, 40, 50, 60, 255, 0, 7])
    image.save(tmp_path / "a.png")
    table = np.array([[1, 2, 3], [40, 50, 60], [255, 0, 7]], np.uint8)
    assert np.array_equal(read_image(tmp_path / "a.png", channels=3), table[GREY % 3])


def test_opaque_alpha_is_dropped_and_kept_where_asked_for(tmp_path: Path) -> None:
    rgba = np.dstack([RGB, np.full((5, 7), 255, np.uint8)])
    path = save(tmp_path / "a.png", rgba)
    assert np.array_equal(read_image(path, channels=3), RGB)
    assert np.array_equal(read_image(path, channels=4), rgba)
    grey_alpha = np.dstack([GREY, rgba[..., 3]])
    assert np.array_equal(read_image(save(tmp_path / "la.png", grey_alpha), channels=1)[..., 0], GREY)


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "RGB", "L"])
def test_alpha_that_is_not_opaque_is_refused_unless_there_is_a_channel_for_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    alpha = np.full((5, 7), 255, np.uint8)
    alpha[0, 0] = alpha[3, 2] = 9
    if kind == "RGBA":
        save(path, np.dstack([RGB, alpha]))
    elif kind == "LA":
        save(path, np.dstack([GREY, alpha]))
    else:
        values = np.where(alpha == 255, np.uint8(1), np.uint8(0))
        image = Image.fromarray(values if kind != "RGB" else np.dstack([values] * 3))
        if kind == "P":
            image.putpalette([0, 0, 0, 9, 9, 9])
        image.save(path, transparency=(0, 0, 0) if kind == "RGB" else 0)
    for channels in (1, 3):
        with pytest.raises(DataError, match=r"2 pixels are not opaque.*data.channels to 4"):
            read_image(path, channels=channels)
    kept = read_image(path, channels=4)[..., 3]
    assert np.array_equal(kept == 255, alpha == 255)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_grey_is_scaled_exactly_and_never_clipped(tmp_path: Path, suffix: str, channels: int) -> None:
    pixels = read_image(save(tmp_path / f"a{suffix}", WIDE), channels=channels)
    assert pixels.dtype == np.float32
    assert pixels.shape == (5, 7, channels)
    expected = (WIDE.astype(np.float64) * 255 / 65535).astype(np.float32)
    assert np.array_equal(pixels[..., 0], expected)
    assert channels < 4 or (pixels[..., 3] == 255).all()


def test_big_endian_16_bit_tiff_is_read_too(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", WIDE, byteorder=">")
    expected = (WIDE.astype(np.float64) * 255 / 65535).astype(np.float32)
    assert np.array_equal(read_image(tmp_path / "a.tif", channels=1)[..., 0], expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_scale_does_not_depend_on_the_content(tmp_path: Path, dtype: type) -> None:
    top = np.iinfo(dtype).max
    for value, expected in ((1, 255 / top), (top, 255.0)):
        path = save(tmp_path / f"{value}.png", np.full((2, 2), value, dtype))
        assert read_image(path, channels=1).max() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "mode", "found"),
    [
        ("a.tif", "F", "32-bit floating-point"),
        ("b.tif", "I", "32-bit integer"),
        ("c.jpg", "CMYK", "CMYK.*with its colour profile"),
        ("d.tif", "CMYK", "CMYK.*with its colour profile"),
        ("e.tif", "LAB", "LAB"),
        ("f.tif", "YCbCr", "YCbCr"),
    ],
)
def test_modes_without_an_exact_meaning_are_refused_with_a_remedy(
    tmp_path: Path, name: str, mode: str, found: str
) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}(?=.*; (save|convert) it).*{found}"):
        read_image(tmp_path / name, channels=3)


@pytest.mark.parametrize(
    ("dtype", "options", "found"),
    [
        (np.uint16, {"photometric": "miniswhite"}, "16-bit grey TIFF with white as zero"),
        (np.uint16, {"bitspersample": 12}, "12-bit grey TIFF"),
        (np.int8, {}, "signed 8-bit samples"),
    ],
)
def test_grey_tiffs_that_would_come_inverted_or_too_dark_are_refused(
    tmp_path: Path, dtype: type, options: dict, found: str
) -> None:
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    tifffile.imwrite(tmp_path / "a.tif", np.full((2, 4), 100, dtype), **options)
    with pytest.raises(DataError, match=f"a.tif: TIFF, {found}, cannot be read exactly"):
        read_image(tmp_path / "a.tif", channels=1)


@pytest.mark.parametrize(
    ("color", "samples", "what"), [(2, 3, "16-bit RGB"), (4, 2, "16-bit grey with alpha"), (6, 4, "16-bit RGBA")]
)
def test_16_bit_colour_png_is_refused_and_not_reduced(tmp_path: Path, color: int, samples: int, what: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(2, 1, 16, color, b"\0" + bytes(2 * 2 * samples)))
    Image.open(path).load()  # Pillow alone takes it without a word
    with pytest.raises(DataError, match=f"{what}.*8-bit RGB"):
        read_image(path, channels=3)


def test_a_transparent_value_of_16_bit_grey_is_refused_and_not_dropped(tmp_path: Path) -> None:
    rows = b"\0" + WIDE[0, :3].astype(">u2").tobytes()
    (tmp_path / "a.png").write_bytes(png(3, 1, 16, 0, rows, (b"tRNS", WIDE[0, 1].astype(">u2").tobytes())))
    for channels in (1, 3, 4):
        with pytest.raises(DataError, match=r"a\.png: PNG, 16-bit grey with a transparent value.*; save"):
            read_image(tmp_path / "a.png", channels=channels)


def test_a_tiff_of_many_or_wide_samples_is_read_exactly(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    five, wide = RNG.integers(0, 256, (4, 6, 5), np.uint8), RNG.integers(0, 65536, (4, 6, 3), np.uint16)
    tifffile.imwrite(tmp_path / "five.tif", five, photometric="minisblack", planarconfig="contig")
    tifffile.imwrite(
        tmp_path / "planar.tif", np.moveaxis(five, 2, 0), photometric="minisblack", planarconfig="separate"
    )
    tifffile.imwrite(tmp_path / "wide.tif", wide, photometric="rgb")
    assert np.array_equal(read_image(tmp_path / "five.tif", channels=5), five)
    assert np.array_equal(read_image(tmp_path / "planar.tif", channels=5), five)
    expected = (wide.astype(np.float64) * 255 / 65535).astype(np.float32)
    assert np.array_equal(read_image(tmp_path / "wide.tif", channels=3), expected)
    with pytest.raises(DataError, match=r"5 samples.*data.channels is 3.*data.channels to 5"):
        read_image(tmp_path / "five.tif", channels=3)
    with pytest.raises(DataError, match=r"data.channels is 5"):
        read_image(save(tmp_path / "rgb.png", RGB), channels=5)


@pytest.mark.parametrize("bands", [7, 13, 40])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}], ids=str)
def test_a_tiff_of_more_bands_than_pillow_counts_is_read_exactly(tmp_path: Path, bands: int, options: dict) -> None:
    tifffile = pytest.importorskip("tifffile")
    pixels = RNG.integers(0, 256, (4, 6, bands), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig", **options)
    tifffile.imwrite(
        tmp_path / "b.tif", np.moveaxis(pixels, 2, 0), photometric="minisblack", planarconfig="separate", **options
    )
    for name in ("a.tif", "b.tif"):
        assert np.array_equal(read_image(tmp_path / name, channels=bands), pixels)
        with pytest.raises(DataError, match=rf"{bands} samples.*data.channels is 3.*data.channels to {bands}"):
            read_image(tmp_path / name, channels=3)


def test_a_pixel_of_very_many_samples_counts_as_several(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pixels = np.zeros((4, 6, 40), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig")
    assert read_image(tmp_path / "a.tif", channels=40, max_pixels=72).shape == (4, 6, 40)
    with pytest.raises(DataError, match=r"6 x 4 = 24 pixels of 40 samples, which count as 72, but .* is 71;"):
        read_image(tmp_path / "a.tif", channels=40, max_pixels=71)


def test_a_fourth_tiff_sample_that_is_no_alpha_is_not_dropped(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    four = RNG.integers(0, 256, (4, 6, 4), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", four, photometric="rgb", extrasamples=["unspecified"])
    assert np.array_equal(read_image(tmp_path / "a.tif", channels=4), four)
    with pytest.raises(DataError, match="4 samples"):
        read_image(tmp_path / "a.tif", channels=3)


# --- orientation


def oriented(path: Path, upright: np.ndarray, orientation: int) -> np.ndarray:
    """Saves a picture stored so that `orientation` turns it upright; returns the stored grid."""
    undo = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: np.swapaxes(a, 0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    stored = np.ascontiguousarray(undo[orientation](upright))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}}.get(path.suffix, {})
    Image.fromarray(stored).save(path, exif=exif.tobytes(), **options)  # type: ignore[arg-type]
    return stored


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_or_ignored_or_refused(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"a{suffix}"
    stored = oriented(path, RGB, orientation)
    near = 60 if suffix == ".jpg" else 0

    def distance(pixels: np.ndarray, expected: np.ndarray) -> int:
        assert pixels.shape == expected.shape
        return int(abs(pixels.astype(int) - expected).max())

    assert distance(read_image(path, channels=3, exif="apply"), RGB) <= near
    assert distance(read_image(path, channels=3, exif="ignore"), stored) <= near
    assert image_size(path, exif="apply") == RGB.shape[:2]
    assert image_size(path, exif="ignore") == stored.shape[:2]
    if orientation > 1:
        with pytest.raises(DataError, match=f"EXIF orientation {orientation}.*data.exif"):
            read_image(path, channels=3, exif="error")
    else:
        assert distance(read_image(path, channels=3, exif="error"), RGB) <= near


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_grey_tiff_of_raw_pixels_is_turned_as_a_whole(tmp_path: Path, orientation: int, dtype: type) -> None:
    upright = np.arange(60, dtype=dtype).reshape(6, 10)
    stored = oriented(tmp_path / "a.tif", upright, orientation)
    scale = 255 / 65535 if dtype is np.uint16 else 1
    for exif, expected in (("apply", upright), ("ignore", stored)):
        pixels = read_image(tmp_path / "a.tif", channels=1, exif=exif)[..., 0]
        assert np.allclose(pixels, expected * scale)


def test_an_exif_chunk_behind_the_pixels_counts(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = png(3, 2, 8, 0, b"\0\1\2\3\0\4\5\6")
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    (tmp_path / "a.png").write_bytes(data[:-12] + chunk(b"eXIf", block) + data[-12:])
    assert image_size(tmp_path / "a.png") == (3, 2)
    assert read_image(tmp_path / "a.png", channels=1)[..., 0].tolist() == [[4, 1], [5, 2], [6, 3]]


def test_an_orientation_that_is_none_is_taken_as_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif.tobytes())
    assert np.array_equal(read_image(tmp_path / "a.png", channels=3, exif="error"), RGB)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_broken_exif_block_counts_as_none(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", RGB, exif=b"Exif\0\0junk and more junk")
    for exif in ("apply", "ignore", "error"):
        assert read_image(path, channels=3, exif=exif).shape == (5, 7, 3)


# --- what is no image


def test_files_that_are_no_usable_image_are_named_with_what_was_found(tmp_path: Path) -> None:
    full = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(full, "PNG")
    cases = {
        "empty.png": (b"", "empty"),
        "page.png": (b"<!DOCTYPE html><html></html>", "web page"),
        "text.png": (b"hello there", "begins with"),
        "truncated.png": (full.getvalue()[:3000], "truncated"),
        "header.png": (full.getvalue()[:20], "decoded"),
        "eps.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS"),
        "pdf.png": (b"%PDF-1.4", "PDF"),
        "psd.png": (b"8BPS\0\1", "PSD"),
        "ico.png": (b"\0\0\1\0\1\0", "ICO"),
        "fits.png": (b"SIMPLE  =", "FITS"),
        "wmf.png": (b"\xd7\xcd\xc6\x9a\0\0", "begins with"),
        "photo.jpg": (b"\0\0\0\x18ftypheic", "HEIF"),
    }
    for name, (content, found) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}.*{found}") as caught:
            read_image(tmp_path / name, channels=3)
        assert ";" in str(caught.value)  # a remedy


def test_folders_pipes_and_missing_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "dir.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "dead.png").symlink_to(tmp_path / "gone.png")
    for name, found in (("dir", "folder"), ("pipe", "regular"), ("dead", "link"), ("none", "no such file")):
        with pytest.raises(DataError, match=found):
            read_image(tmp_path / f"{name}.png", channels=3)


def test_a_file_that_may_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", RGB)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        read_image(path, channels=3)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.webp"])
def test_several_frames_are_an_error_that_counts_them(tmp_path: Path, name: str) -> None:
    frames = [Image.fromarray(RNG.integers(0, 256, (9, 9, 3), np.uint8)) for _ in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="3 frames"):
        read_image(tmp_path / name, channels=3)


def test_gif_is_no_image_format(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not PNG, JPEG, TIFF, BMP or WebP \(found GIF\)"):
        read_image(save(tmp_path / "a.gif", GREY), channels=3)


@pytest.mark.parametrize("side", [15_000, 30_000, 60_000])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(side, side, 8, 2, b"\0" * 1000))
    with pytest.raises(DataError, match=r"limits.max_pixels is 200,000,000"):
        read_image(path, channels=3)
    with pytest.raises(DataError, match=r"limits.max_pixels"):
        image_size(path)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.bmp"])
def test_our_limit_holds_in_place_of_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = save(tmp_path / name, RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path, channels=3, max_pixels=35).shape == (5, 7, 3)
    assert Image.MAX_IMAGE_PIXELS == 10
    with pytest.raises(DataError, match=r"7 x 5 = 35 pixels, but limits.max_pixels is 34"):
        read_image(path, channels=3, max_pixels=34)


def test_mutated_files_give_pixels_or_a_data_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    originals = []
    for suffix, options in (
        (".png", {}),
        (".jpg", {}),
        (".tif", {"compression": "tiff_lzw"}),
        (".bmp", {}),
        (".webp", {}),
    ):
        originals.append(save(tmp_path / f"o{suffix}", RGB, **options).read_bytes())
    path = tmp_path / "m.png"
    outcomes = {"read": 0, "refused": 0}
    for _ in range(400):
        content = bytearray(originals[rng.integers(len(originals))])
        for _ in range(rng.integers(1, 6)):
            content[rng.integers(len(content))] = rng.integers(256)
        path.write_bytes(bytes(content[: rng.integers(1, len(content) + 1)] if rng.random() < 0.3 else content))
        try:
            pixels = read_image(path, channels=3, max_pixels=10_000)
            assert pixels.ndim == 3
            outcomes["read"] += 1
        except DataError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20


def test_no_file_stays_open(tmp_path: Path) -> None:
    good, bad, tiff = save(tmp_path / "a.png", RGB), tmp_path / "b.png", save(tmp_path / "c.tif", RGB)
    bad.write_bytes(good.read_bytes()[:60])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 8, hard))
    try:
        for _ in range(30):
            read_image(good, channels=3)
            read_image(tiff, channels=3)
            image_size(tiff)
            with pytest.raises(DataError):
                read_image(bad, channels=3)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_threads_read_the_same_and_leave_the_warning_filters_alone(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", RGB)
    before = list(warnings.filters)
    wrong: list[int] = []

    def work() -> None:
        for index in range(40):
            if not np.array_equal(read_image(path, channels=3), RGB):
                wrong.append(index)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert warnings.filters == before


def test_truncated_images_are_never_switched_on() -> None:
    for source in Path(segtool.data.__file__).parent.rglob("*.py"):
        names = {node.attr for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Attribute)}
        assert "LOAD_TRUNCATED_IMAGES" not in names


@pytest.mark.parametrize(
    ("name", "shape"),
    [("camvid/train/images/0001TP_006690.png", (360, 480, 3)), ("samples/tif16/images/pkg2d.tif", (512, 512, 3))],
)
def test_real_images_are_read(name: str, shape: tuple[int, int, int]) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not here")
    pixels = read_image(SHARED / name, channels=3)
    assert pixels.shape == shape
    assert image_size(SHARED / name) == shape[:2]
