"""The one reader of masks: stored values exactly as they are, never as a picture of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segtool.data.codes import pack
from segtool.data.images import has_usual_samples
from segtool.data.opening import Opened, load_pixels, open_image, photometric, read_orientation, sample_format
from segtool.errors import DataError, shown

MASK_FORMATS = ("PNG", "BMP", "TIFF", "GIF", "JPEG")
MOST_COLORS = 256  # of a mask; a picture that is cut out has more


@dataclass(frozen=True, eq=False)
class StoredMask:
    """What a mask file holds, before it is known what that means."""

    values: np.ndarray
    """H W integers (grey values, bits as 0 and 1, palette indices), or H W 3 uint8 colours."""
    mode: str
    """Pillow's name of the pixel format, without alpha: 1, L, P, I;16, I or RGB."""
    palette: bytes | None = None
    """RGB triples, of mode P."""
    lossy: bool = False
    """Stored as JPEG: near edges the values are not those that were drawn."""
    alpha: np.ndarray | None = None
    """H W uint8: the opacity, where the file has a channel of it."""
    veiled: int = 0
    """Pixels that are not opaque, in a mask where the same value is more and less opaque in places: what transparent
    ones mean is not certain then. 0 where opacity says no more than the value does."""
    step: int = 1
    """What grey values 0 and 1 differ by as a picture of 8 bits: 255, 85 and 17 where they have 1, 2 and 4 bits."""

    @property
    def grey(self) -> np.ndarray:
        """The values as those of a picture of 8 bits, where they have fewer."""
        return self.values if self.step == 1 else self.values * np.uint8(self.step)


def read_mask(path: Path, *, max_pixels: int) -> StoredMask:
    """Returns the stored values of a PNG, BMP, TIFF, single-frame GIF or JPEG.

    Grey of 1, 2 and 4 bits comes as its small integers, 0 to 1, 3 or 15; whether JPEG is acceptable is the encoding's
    business (`Labels.decode`). A mask has no orientation of its own: it is drawn on the grid it is stored on, and a
    tag that says otherwise is an error, as nobody can tell for which of the two grids it was drawn.

    Raises:
        DataError: an unreadable file, an orientation tag, floating-point or CMYK samples, or 16-bit colour.
    """
    with open_image(path, formats=MASK_FORMATS, max_pixels=max_pixels) as opened:
        if opened.format not in ("BMP", "GIF") and (orientation := read_orientation(opened)) != 1:
            raise DataError(
                f"{shown(path)}: a mask with EXIF orientation {orientation}; turn it upright where it does not fit its "
                f"image, and save it without the tag"
            )
        _refuse_inexact(opened)
        image = load_pixels(opened)
        alpha = None
        if image.mode in ("LA", "RGBA"):
            alpha = np.asarray(image.getchannel("A"))
            image = image.convert(image.mode[:-1])
        palette = bytes(image.getpalette("RGB") or ()) if image.mode == "P" else None
        mode = "I;16" if image.mode.startswith("I;16") else image.mode
        step = _step(image, opened)
        values = _values(image, opened, step)
        return StoredMask(values, mode, palette, opened.format == "JPEG", alpha, _count_veiled(values, alpha), step)


def _refuse_inexact(opened: Opened) -> None:
    mode, found = opened.image.mode, ""
    if (opened.format == "PNG" and opened.bits == 16 and opened.samples > 1) or not has_usual_samples(opened):
        found = f"{opened.samples} samples of {opened.bits} bits a pixel"
    elif mode == "F":
        found = "floating-point values"
    elif mode not in ("1", "L", "LA", "P", "I", "RGB", "RGBA") and not mode.startswith("I;16"):
        found = f"{opened.bits}-bit samples (mode {mode})"
    elif photometric(opened) == 0 and opened.bits > 1:
        found = "grey with white as zero"  # readers disagree about whether to invert it
    if found:
        raise DataError(
            f"{shown(opened.path)}: {opened.format} mask with {found}; save it as PNG with one integer a pixel "
            f"(8 or 16 bits), a palette, or 8-bit RGB colours"
        )


def _count_veiled(values: np.ndarray, alpha: np.ndarray | None) -> int:
    if alpha is None or alpha.min() == alpha.max():
        return 0
    plain = (pack(values) if values.ndim == 3 else values).astype(np.int64)
    colors = len(np.unique(plain))
    if colors <= MOST_COLORS and len(np.unique(plain << 8 | alpha)) == colors:
        return 0
    return int((alpha < 255).sum())


def _step(image: Image.Image, opened: Opened) -> int:
    if image.mode == "1":
        return 255
    return {2: 85, 4: 17}.get(opened.bits, 1) if image.mode == "L" and opened.format in ("PNG", "TIFF") else 1


def _values(image: Image.Image, opened: Opened, step: int) -> np.ndarray:
    values = np.asarray(image)
    if image.mode == "1":
        return values.astype(np.uint8)
    if step > 1:
        return values // step  # Pillow has stretched them to 0..255
    if image.mode == "L" and sample_format(opened) == 2:
        return values.view(np.int8)
    if image.mode == "I" and opened.bits == 32 and sample_format(opened) == 1:
        return values.view(np.uint32).astype(np.int64)
    return values.astype(np.uint16, copy=False) if image.mode.startswith("I;16") else values
