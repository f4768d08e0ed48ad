"""What a header declares and the file cannot hold is told; whatever is whole is read, of any layout."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pngs import assembled
from reading import read_image, read_mask

from segtool.data.declared import ADAM7
from segtool.errors import DataError

PICTURE = np.random.default_rng(0).integers(1, 256, (40, 48, 3), dtype=np.uint8)
OFFSETS, SIZES = (273, 324), (279, 325)


def tiff(**options: object) -> bytes:
    """Returns PICTURE as a TIFF; its planes apart where `planarconfig` says so."""
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    pixels = np.moveaxis(PICTURE, 2, 0).copy() if options.get("planarconfig") == "separate" else PICTURE
    tifffile.imwrite(buffer, pixels, photometric="rgb", **options)
    return buffer.getvalue()


LAYOUTS = {
    "strips": {"rowsperstrip": 16},
    "deflated strips": {"rowsperstrip": 16, "compression": "zlib"},
    "one strip": {},
    "tiles": {"tile": (16, 32)},
    "strips of planes": {"rowsperstrip": 16, "planarconfig": "separate"},
    "tiles of planes": {"tile": (16, 32), "planarconfig": "separate"},
}


def with_tags(content: bytes, change: Callable[[int, tuple[int, ...]], tuple[int, ...] | None]) -> bytes:
    """Returns a little-endian TIFF whose tags have the values that `change` gives; None drops one."""
    (place,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, place)
    entries, more = [], b""
    for index in range(count):
        tag, kind, length = struct.unpack_from("<HHI", content, place + 2 + 12 * index)
        letter = {1: "B", 2: "B", 3: "H", 4: "I", 5: "Q"}[kind]
        size = struct.calcsize(f"<{length}{letter}")
        inside = place + 2 + 12 * index + 8
        where = inside if size <= 4 else struct.unpack_from("<I", content, inside)[0]
        values = change(tag, struct.unpack_from(f"<{length}{letter}", content, where))
        if values is not None:
            entries.append((tag, kind, len(values), struct.pack(f"<{len(values)}{letter}", *values)))
    head = len(content) + 2 + 12 * len(entries) + 4
    table = struct.pack("<H", len(entries))
    for tag, kind, length, body in entries:
        far = len(body) > 4
        table += struct.pack("<HHI", tag, kind, length) + (
            struct.pack("<I", head + len(more)) if far else body[:4].ljust(4, b"\0")
        )
        more += body if far else b""
    return content[:4] + struct.pack("<I", len(content)) + content[8:] + table + bytes(4) + more


def without_the_last(tag: int, values: tuple[int, ...]) -> tuple[int, ...]:
    return values[:-1] if tag in (*OFFSETS, *SIZES) and len(values) > 1 else values


def with_a_hole(tag: int, values: tuple[int, ...]) -> tuple[int, ...]:
    return (0, *values[1:]) if tag in (*OFFSETS, *SIZES) else values


def of_more_rows(tag: int, values: tuple[int, ...]) -> tuple[int, ...]:
    """The fault that a file of 442 bytes of 200 million rows had."""
    return (4000,) if tag == 257 else values


def parts(layout: str) -> int:
    """Returns how many strips or tiles 40 x 48 pixels of a layout have."""
    return {"one strip": 1, "tiles": 6, "strips of planes": 9, "tiles of planes": 18}.get(layout, 3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tiff_that_lacks_strips_or_tiles_is_refused(tmp_path, layout):
    whole = tiff(**LAYOUTS[layout])
    path = tmp_path / "a.tif"
    for change in (without_the_last, with_a_hole):
        if change is without_the_last and parts(layout) == 1:
            continue
        path.write_bytes(with_tags(whole, change))
        kind = "tiles" if "tile" in layout else "strips"
        for read in (lambda path: read_image(path, channels=3), read_mask):
            with pytest.raises(DataError, match=f"holds {parts(layout) - 1} {kind}, expected {parts(layout)} by"):
                read(path)


def with_one_more(tag: int, values: tuple[int, ...]) -> tuple[int, ...]:
    return (*values, values[-1]) if tag in (*OFFSETS, *SIZES) else values


@pytest.mark.parametrize(
    ("change", "words"), [(of_more_rows, "holds 3 strips, expected 250"), (with_one_more, "holds 4 strips, expected 3")]
)
def test_a_tiff_of_more_or_fewer_rows_than_its_strips_hold_is_refused(tmp_path, change, words):
    (tmp_path / "a.tif").write_bytes(with_tags(tiff(rowsperstrip=16), change))
    with pytest.raises(DataError, match=words):
        read_image(tmp_path / "a.tif", channels=3)


def of_all_rows(tag: int, values: tuple[int, ...]) -> tuple[int, ...]:
    return (2**16 - 1,) if tag == 278 else values


def without_rows(tag: int, values: tuple[int, ...]) -> tuple[int, ...] | None:
    return None if tag == 278 else values


def as_it_is(_: int, values: tuple[int, ...]) -> tuple[int, ...]:
    return values


@pytest.mark.parametrize(
    ("layout", "change"),
    [
        *((layout, as_it_is) for layout in LAYOUTS),
        ("one strip", of_all_rows),
        ("one strip", without_rows),
        ("deflated strips", with_one_more),
    ],
)
def test_a_tiff_that_is_whole_is_read_whatever_its_layout(tmp_path, layout, change):
    """Negative control of the two tests above."""
    (tmp_path / "a.tif").write_bytes(with_tags(tiff(**LAYOUTS[layout]), change))
    assert np.array_equal(read_image(tmp_path / "a.tif", channels=3), PICTURE)


# --- JPEG


def emptiest(path: Path, mode: str, size: tuple[int, int], **options: object) -> int:
    """Writes a JPEG of one colour, in codes made for it, and returns its size in bytes."""
    Image.new(mode, size, 128 if mode == "L" else (128,) * 3).save(path, "JPEG", optimize=True, quality=5, **options)
    return path.stat().st_size


def declaring(content: bytes, side: int) -> bytes:
    """Returns a JPEG that declares `side` squared pixels."""
    place = next(content.index(marker) for marker in (b"\xff\xc0\0", b"\xff\xc2\0") if marker in content)
    return content[: place + 5] + struct.pack(">HH", side, side) + content[place + 9 :]


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_of_fewer_bytes_than_its_pixels_take_is_refused(tmp_path, mode, progressive):
    path = tmp_path / "a.jpg"
    emptiest(path, mode, (64, 64), progressive=progressive)
    path.write_bytes(declaring(path.read_bytes(), 14_000))
    with pytest.raises(DataError, match=r"bytes, but 14000 x 14000 pixels take .* at least"):
        read_image(path, channels=3)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(("mode", "subsampling"), [("L", 0), ("RGB", 0), ("RGB", 1), ("RGB", 2)])
def test_the_emptiest_jpeg_that_there_can_be_is_read(tmp_path, mode, subsampling, progressive):
    """Negative control: they are within 2 % of what is refused."""
    for size in ((1, 1), (17, 9), (1000, 501)):
        emptiest(tmp_path / "a.jpg", mode, size, subsampling=subsampling, progressive=progressive)
        assert read_image(tmp_path / "a.jpg", channels=3).shape == (*size[::-1], 3)


def test_a_jpeg_of_arithmetic_codes_may_be_smaller(tmp_path):
    emptiest(tmp_path / "a.jpg", "L", (64, 64))
    content = declaring((tmp_path / "a.jpg").read_bytes(), 2_000).replace(b"\xff\xc0\0", b"\xff\xc9\0")
    (tmp_path / "a.jpg").write_bytes(content)
    assert read_image(tmp_path / "a.jpg", channels=1).shape == (2_000, 2_000, 1)


# --- PNG


def png(pixels: np.ndarray, *, left_out: int = 0, interlaced: bool = False, bits: int = 8) -> bytes:
    """Returns a PNG, grey or colour, without its last rows, which are of the last pass where it is interlaced."""
    passes = [pixels[top::down, left::across] for left, top, across, down in (ADAM7 if interlaced else [(0, 0, 1, 1)])]
    rows = [np.packbits(row, axis=-1) if bits == 1 else row for part in passes if part.size for row in part]
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows[: len(rows) - left_out]))
    head = struct.pack(">IIBBBBB", *pixels.shape[1::-1], bits, 2 if pixels.ndim == 3 else 0, 0, 0, interlaced)
    half = len(packed) // 2
    return assembled((b"IHDR", head), (b"IDAT", packed[:half]), (b"IDAT", packed[half:]), (b"IEND", b""))


SIZES_OF_PNG = [(40, 48), (17, 9), (3, 2), (2, 1), (5, 1)]


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("height", "width"), SIZES_OF_PNG)
def test_a_png_whose_data_end_before_its_last_row_is_refused(tmp_path, height, width, interlaced):
    (tmp_path / "a.png").write_bytes(png(PICTURE[:height, :width], left_out=1, interlaced=interlaced))
    with pytest.raises(DataError, match=r"rows are missing|file is truncated"):
        read_image(tmp_path / "a.png", channels=3)
    (tmp_path / "a.png").write_bytes(png(PICTURE[:height, :width, 0] % 2, left_out=1, interlaced=interlaced, bits=1))
    with pytest.raises(DataError, match=r"rows are missing|file is truncated"):
        read_mask(tmp_path / "a.png")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("height", "width"), [*SIZES_OF_PNG, (1, 1)])
def test_a_png_that_is_whole_is_read_though_it_is_black(tmp_path, height, width, interlaced):
    """Negative control."""
    for pixels, bits in ((PICTURE * 0, 8), (PICTURE[..., 0] * 0, 8), (PICTURE[..., 0] * 0, 1), (PICTURE, 8)):
        part = pixels[:height, :width]
        (tmp_path / "a.png").write_bytes(png(part, interlaced=interlaced, bits=bits))
        expected = part if part.ndim == 3 else np.repeat(part[..., None], 3, axis=2)
        assert np.array_equal(read_image(tmp_path / "a.png", channels=3), expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("colors", [2, 16])
def test_an_empty_png_of_any_samples_is_whole(tmp_path, mode, colors):
    """Negative control: those that Pillow writes, palettes of 1 and 4 bits among them."""
    pixels = np.zeros((5, 11), np.uint16 if mode == "I;16" else np.uint8)
    bits = {"bits": {2: 1, 16: 4}[colors]} if mode == "P" else {}
    image = Image.fromarray(pixels) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "a.png", **bits)
    assert not read_mask(tmp_path / "a.png").values.any()
