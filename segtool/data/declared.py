"""What the header of a TIFF, JPEG or PNG declares, against what the file holds or can hold.

Decoders leave black or grey what a file lacks, without a word, and take the memory of what it declares. Each function
returns what is wrong and what to do, or None.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image, TiffImagePlugin
from PIL.JpegImagePlugin import JpegImageFile

IMAGE_DEPTH = 32997
LARGE_TILE = 2**24
"""Pixels that the tiles of a smaller image may have, which are decoded as a whole."""
UNCOMPRESSED, OLD_JPEG = 1, 6
"""Of TIFF; the data of the latter may lie elsewhere than in its strips."""
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
"""First column and row, and the steps from one to the next, of the passes of an interlaced PNG."""
PART = 2**16
"""Bytes that are unpacked at a time."""
ARITHMETIC = (b"\xff\xc9", b"\xff\xca")
"""Markers of the frames of a JPEG that are not in Huffman's codes."""


def tiff_tag(image: Image.Image, tag: int, default: int) -> int:
    """Returns the value of a TIFF's tag, the largest where it has several."""
    value = getattr(image, "tag_v2", {}).get(tag, default)
    value = max(value) if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else default


def fault_of_tiff(image: Image.Image) -> str | None:
    """Finds slices, tiles much larger than the image, and strips or tiles that are not there, or one too many."""
    if (depth := tiff_tag(image, IMAGE_DEPTH, 1)) != 1:
        return f"holds {depth} slices (ImageDepth), expected one; save each as a file"
    width, length = (tiff_tag(image, tag, 1) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH))
    if width * length > max(LARGE_TILE, image.width * image.height):
        return (
            f"tiles of {width} x {length} pixels in an image of {image.width} x {image.height}, expected none larger "
            "than the image; save it again"
        )
    found, expected, kind = _parts(image)
    compression = tiff_tag(image, TiffImagePlugin.COMPRESSION, UNCOMPRESSED)
    # Of more than there must be, those that are not compressed are laid over the first rows again.
    if (found < expected and compression != OLD_JPEG) or (found > expected and compression == UNCOMPRESSED):
        return (
            f"holds {found:,} {kind}, expected {expected:,} by its size, so that pixels are missing or out of place; "
            "export it again"
        )
    return None


def _parts(image: Image.Image) -> tuple[int, int, str]:
    """Returns how many strips or tiles a TIFF has (none at offset 0), how many it must have, and which of both."""
    width, height = (tiff_tag(image, tag, 1) for tag in (TiffImagePlugin.IMAGEWIDTH, TiffImagePlugin.IMAGELENGTH))
    tags = getattr(image, "tag_v2", {})
    if TiffImagePlugin.STRIPOFFSETS in tags:
        rows = tiff_tag(image, TiffImagePlugin.ROWSPERSTRIP, height)
        kind, offsets, expected = "strips", tags[TiffImagePlugin.STRIPOFFSETS], -(-height // max(rows, 1))
    else:
        across, down = (tiff_tag(image, tag, 1) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH))
        kind, offsets = "tiles", tags.get(TiffImagePlugin.TILEOFFSETS, ())
        expected = -(-width // max(across, 1)) * -(-height // max(down, 1))
    if tiff_tag(image, TiffImagePlugin.PLANAR_CONFIGURATION, 1) == 2:
        expected *= tiff_tag(image, TiffImagePlugin.SAMPLESPERPIXEL, 1)
    there = offsets if isinstance(offsets, tuple) else (offsets,)
    return sum(offset != 0 for offset in there), expected, kind


def fault_of_jpeg(image: JpegImageFile, file: BinaryIO) -> str | None:
    """Finds a file of fewer bytes than the shortest codes of its pixels take.

    Each block of 8 x 8 samples has a code of a bit at least, and where the frame is not progressive one for its end.

    Source: ITU-T T.81, F.1.2 and G.1.2.
    """
    wide, high = (max(layer[side] for layer in image.layer) for side in (1, 2))
    blocks = sum(
        -(-image.width * layer[1] // (8 * wide)) * -(-image.height * layer[2] // (8 * high)) for layer in image.layer
    )
    needed = blocks * (1 if "progressive" in image.info else 2) // 8
    found = os.fstat(file.fileno()).st_size
    if found >= needed or _is_arithmetic(file):
        return None
    return (
        f"{found:,} bytes, but {image.width} x {image.height} pixels take {needed:,} at least, so most of them are "
        "missing; export it again"
    )


def _is_arithmetic(file: BinaryIO) -> bool:
    """Whether a JPEG may be coded arithmetically, in which a block can take less than a bit."""
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    return any(marker in content for marker in ARITHMETIC)


def fault_of_png(image: Image.Image, file: BinaryIO, bits: int, samples: int) -> str | None:
    """Finds a PNG, decoded, whose data end in good order before all its pixels are there.

    They are unpacked once more to find out, but not where the last row is not empty, as what is missing is.
    """
    interlaced = "interlace" in image.info
    if not interlaced and _has_last_row(image):
        return None
    expected = 0
    for left, top, across, down in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        columns, rows = -(-(image.width - left) // across), -(-(image.height - top) // down)
        expected += rows * (1 + -(-columns * bits * samples // 8)) if columns > 0 else 0
    found = 0
    for part in _unpacked(file):
        found += part
        if found >= expected:
            return None
    return f"holds {found:,} of the {expected:,} bytes of its pixels, so that rows are missing; export it again"


def _has_last_row(image: Image.Image) -> bool:
    """Whether anything in the last row is not zero: first its middle, which is eight times as fast as the whole."""
    middle = image.getpixel((image.width // 2, image.height - 1))
    if any(middle) if isinstance(middle, tuple) else middle:
        return True
    return image.crop((0, image.height - 1, *image.size)).getbbox(alpha_only=False) is not None


def _unpacked(file: BinaryIO) -> Iterator[int]:
    """Yields how many bytes are in the parts of a PNG's data, unpacked one after the other."""
    place = file.tell()
    file.seek(8)
    unpack = zlib.decompressobj()
    while len(header := file.read(8)) == 8 and header[4:] != b"IEND":
        left = int.from_bytes(header[:4], "big")
        if header[4:] != b"IDAT":
            file.seek(left + 4, os.SEEK_CUR)
            continue
        packed = file.read(left)
        while packed and not unpack.eof:
            yield len(unpack.decompress(packed, PART))
            packed = unpack.unconsumed_tail
        file.seek(4, os.SEEK_CUR)
    file.seek(place)
