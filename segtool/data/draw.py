"""Pictures for people: overlays with a legend, image beside truth beside prediction, and sheets of pictures.

No picture is resampled: a pixel of the image is a pixel (or, enlarged, a square of pixels) of the picture.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from segtool.data.codes import IGNORE

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
Indices: TypeAlias = NDArray[np.integer]
Rgb: TypeAlias = tuple[int, int, int]
Entry: TypeAlias = tuple[str, Rgb | None]
"""Name and colour of a legend's entry; None: hatched, as what is ignored."""
Window: TypeAlias = tuple[float, float]

_PAPER, _INK, _FRAME = (255, 255, 255), (32, 32, 32), (120, 120, 120)
_HATCH = ((64, 64, 64), (112, 112, 112))
_LONGEST_NAME = 32  # characters
_UNPRINTABLE = ("Cc", "Cs", "Cf", "Cn", "Co")  # categories of Unicode
_NARROW = 64  # of 255: what 14 bits fill of 16
_LOOKED_AT = 1 << 20  # pixels of an image, about, that tell what is dark and bright in it
_SHARE = 0.5  # of a class's colour in a picture under it
_BAND = 1 << 20  # pixels blended at a time: a picture of 200 million takes no float copy of itself


def overlay(image: NDArray[np.generic], indices: Indices, colors: ArrayLike, names: Sequence[str]) -> Image.Image:
    """Returns the image under the colours of its classes, with a legend of the classes that occur.

    The image keeps its size and lies in the upper left corner: `picture.crop((0, 0, W, H))` is the overlay alone. The
    legend lies below it, so the picture is higher than the image, and wider where the image is narrower than a name.
    Where classes meet, the pixels above and left of the border bear the full colour. Ignored pixels show the image.

    Args:
        image: H W C; uint8, or floats in 0 to 255. Of two channels the first is shown, of more the first three.
        indices: H W, class indices; 255 where ignored.
        colors: K 3, 0 to 255.
        names: K names.
    """
    blended = Image.fromarray(_blend(_rgb(image), indices, _color_table(colors)))
    present = [entry for entry in entries(indices, colors, names) if entry[1] is not None]
    if not present:
        return blended
    return _stacked(blended, legend(present, width=blended.width))


def sample(
    image: NDArray[np.generic], truth: Indices, prediction: Indices, colors: ArrayLike, names: Sequence[str]
) -> Image.Image:
    """Returns image, truth and prediction side by side, each with its caption below, and a legend of what occurs.

    Ignored pixels are hatched.

    Args:
        image: As in `overlay`.
        truth: H W, class indices; 255 where ignored.
        prediction: H W, class indices.
        colors: K 3, 0 to 255.
        names: K names.
    """
    table, font = _color_table(colors), _font(image.shape[1])
    colored = [_hatched(table[indices], indices) for indices in (truth, prediction)]
    named = zip(("image", "truth", "prediction"), (_rgb(image), *colored), strict=True)
    captioned = [_stacked(Image.fromarray(panel), _caption(name, font)) for name, panel in named]
    sheet = contact_sheet(captioned, columns=len(captioned), gap=max(2, round(0.4 * _size(font))))
    present = entries(np.union1d(truth, prediction), colors, names)
    return _stacked(sheet, legend(present, width=sheet.width, letters=image.shape[1]))


def entries(indices: Indices, colors: ArrayLike, names: Sequence[str]) -> list[Entry]:
    """Returns a legend's entries for the classes that occur, in their order, and last for what is ignored."""
    table = _color_table(colors)
    present = np.unique(indices).tolist()
    return [("ignored", None) if k == IGNORE else (names[k], tuple(table[k].tolist())) for k in present]


def legend(entries: Sequence[Entry], *, width: int, letters: int | None = None) -> Image.Image:
    """Returns swatches with names, in as many columns as fit; wider than `width` only where one name is.

    Args:
        entries: A name that is long is cut, what cannot be printed becomes a box.
        width: Of the picture it belongs to, in pixels.
        letters: Width of a picture with which the letters grow; None: `width`.
    """
    font = _font(letters or width)
    size = _size(font)
    room = max(width - 3 * size, 7 * size)
    labels = [_fitted(name, font, room) for name, _ in entries]
    cell_width = 3 * size + max((round(font.getlength(label)) for label in labels), default=0)
    cell_height = round(1.6 * size)
    columns = max(1, min(len(entries), (width - size // 2) // cell_width))
    rows = -(-len(entries) // columns)
    picture = Image.new("RGB", (max(width, columns * cell_width), rows * cell_height + size // 2), _PAPER)
    pen = ImageDraw.Draw(picture)
    for position, (label, (_, color)) in enumerate(zip(labels, entries, strict=True)):
        row, column = divmod(position, columns)
        x, y = column * cell_width + size // 2, row * cell_height + size // 2
        if color is None:
            swatch = np.full((size, round(1.4 * size)), IGNORE)
            picture.paste(Image.fromarray(_hatched(np.zeros((*swatch.shape, 3), np.uint8), swatch)), (x, y))
        pen.rectangle((x, y, x + round(1.4 * size), y + size), fill=color, outline=_FRAME)
        pen.text((x + 2 * size, y + size // 2), label, fill=_INK, font=font, anchor="lm")
    return picture


def contact_sheet(images: Sequence[Image.Image], columns: int, *, gap: int) -> Image.Image:
    """Returns the pictures in rows on white, each in the upper left corner of its cell, `gap` pixels apart."""
    rows = -(-len(images) // columns)
    cell_width, cell_height = max(i.width for i in images), max(i.height for i in images)
    sheet = Image.new("RGB", (columns * (cell_width + gap) - gap, rows * (cell_height + gap) - gap), _PAPER)
    for position, picture in enumerate(images):
        row, column = divmod(position, columns)
        sheet.paste(picture, (column * (cell_width + gap), row * (cell_height + gap)))
    return sheet


def window(image: NDArray[np.generic]) -> Window:
    """Returns the values of an image that pictures show as black and as white: 0 and 255.

    Cameras of 12 bits fill a sixteenth of 16, which would all be black: of floats that fill less than a quarter of the
    range it is the values that all pixels but a thousandth at each end lie between.
    """
    if image.dtype.kind != "f":
        return 0.0, 255.0
    step = max(1, round((image.shape[0] * image.shape[1] / _LOOKED_AT) ** 0.5))
    low, high = np.quantile(_channels(image)[::step, ::step].astype(np.float32), (0.001, 0.999)).tolist()
    return (low, high) if 0 < high - low < _NARROW else (0.0, 255.0)


def panel(
    image: NDArray[np.generic],
    indices: Indices | None,
    colors: ArrayLike,
    *,
    scale: int = 1,
    shown: Window | None = None,
) -> Image.Image:
    """Returns the image, and below it, where there are indices, itself under the colours of its classes.

    Ignored pixels are hatched there.

    Args:
        image: As in `overlay`.
        indices: H W, class indices; 255 where ignored.
        colors: K 3, 0 to 255.
        scale: Side, in pixels of the picture, of the square that a pixel of the image becomes.
        shown: What is black and white; None: the image's own `window`.
    """
    rgb = _rgb(image, shown)
    if indices is None:
        return Image.fromarray(_enlarged(rgb, scale))
    blended = _hatched(_blend(rgb, indices, _color_table(colors)), indices)
    return Image.fromarray(_enlarged(np.concatenate([rgb, blended]), scale))


def gallery(
    title: str, note: str, rows: Sequence[Sequence[tuple[str, Image.Image]]], *, classes: Sequence[Entry] = ()
) -> Image.Image:
    """Returns rows of equally many pictures, each with its caption below, under a title, and a legend at the end.

    Args:
        note: A line in smaller letters below the title.
        rows: Caption and picture of each.
        classes: The entries of the legend.
    """
    width = rows[0][0][1].width
    font = _font(2 * width)
    gap = max(4, round(0.6 * _size(font)))
    cells = [
        _stacked(picture, _caption(_fitted(caption, font, picture.width - _size(font)), font))
        for row in rows
        for caption, picture in row
    ]
    sheet = contact_sheet(cells, columns=len(rows[0]), gap=gap)
    if classes:
        sheet = _stacked(sheet, legend(classes, width=2 * width))
    head = _stacked(_caption(title, _font(3 * width)), _caption(note, font))
    return _stacked(head, sheet)


def png(picture: Image.Image) -> bytes:
    """Returns a picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _rgb(image: NDArray[np.generic], shown: Window | None = None) -> NDArray[np.uint8]:
    """Returns what of an image can be shown, from its `window` or what else is shown as black and white."""
    pixels = _channels(image)
    if pixels.dtype != np.uint8:
        low, high = shown or window(image)
        pixels = np.clip((pixels.astype(np.float32) - low) * np.float32(255 / (high - low)), 0, 255).round()
    whole = pixels if pixels.shape[2] == 3 else np.repeat(pixels.astype(np.uint8, copy=False), 3, axis=2)
    return np.ascontiguousarray(whole, dtype=np.uint8)


def _channels(image: NDArray[np.generic]) -> NDArray[np.generic]:
    """Returns what is shown of an image, H W C: the first three channels, of one or two the first."""
    return image[..., :3] if image.shape[2] >= 3 else image[..., :1]


def _color_table(colors: ArrayLike) -> NDArray[np.uint8]:
    """Returns a colour for each value of a byte, 256 3; those after the last class are never shown."""
    given = np.asarray(colors, np.uint8)
    return np.pad(given, ((0, 256 - len(given)), (0, 0)))


def _blend(rgb: NDArray[np.uint8], indices: Indices, table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    borders = _borders(indices, thickness=max(1, round(min(indices.shape) / 500)))
    blended = np.empty_like(rgb)
    step = max(1, _BAND // rgb.shape[1])
    for top in range(0, len(rgb), step):
        rows = slice(top, top + step)
        share = np.where(borders[rows], 1.0, _SHARE).astype(np.float32)
        share[indices[rows] == IGNORE] = 0.0
        below = rgb[rows].astype(np.float32)
        blended[rows] = np.rint(below + share[..., None] * (table[indices[rows]] - below))
    return blended


def _borders(indices: Indices, *, thickness: int) -> NDArray[np.bool_]:
    """Returns where another class lies at most `thickness` pixels further right or further down."""
    borders = np.zeros(indices.shape, bool)
    for reach in range(1, thickness + 1):
        borders[:, :-reach] |= indices[:, :-reach] != indices[:, reach:]
        borders[:-reach] |= indices[:-reach] != indices[reach:]
    return borders


def _hatched(rgb: NDArray[np.uint8], indices: Indices) -> NDArray[np.uint8]:
    """Returns the picture, which is changed, with ignored pixels hatched."""
    y, x = np.nonzero(indices == IGNORE)
    rgb[y, x] = np.asarray(_HATCH, np.uint8)[(y + x) // 3 % 2]
    return rgb


def _enlarged(pixels: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def _stacked(above: Image.Image, below: Image.Image) -> Image.Image:
    picture = Image.new("RGB", (max(above.width, below.width), above.height + below.height), _PAPER)
    picture.paste(above, (0, 0))
    picture.paste(below, (0, above.height))
    return picture


def _caption(text: str, font: Font) -> Image.Image:
    size = _size(font)
    picture = Image.new("RGB", (round(font.getlength(text)) + size, round(1.6 * size)), _PAPER)
    ImageDraw.Draw(picture).text((size // 4, picture.height // 2), text, fill=_INK, font=font, anchor="lm")
    return picture


def _font(width: int) -> Font:
    """Returns Pillow's own font for a picture of this width: readable at 100 pixels, and when a wide one is shrunk."""
    return ImageFont.load_default(size=min(max(11, width // 40), 256))


def _size(font: Font) -> int:
    return round(getattr(font, "size", 11))


def _fitted(name: str, font: Font, room: int) -> str:
    """Returns the name on one line, cut so that it takes at most `room` pixels."""
    text = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _UNPRINTABLE else c for c in " ".join(name.split())
    )
    fits = len(text) <= _LONGEST_NAME and font.getlength(text) <= room
    if fits:
        return text
    text = text[: _LONGEST_NAME - 3]
    while text and font.getlength(f"{text}...") > room:
        text = text[:-1]
    return f"{text.rstrip()}..."
