"""How pictures and masks are drawn and stored in the composed sets, by Pillow and tifffile alone."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

IGNORED = 255
"""Stands in a drawn truth where nothing counts."""

PAINTS = np.array([[40, 40, 45], [220, 80, 40], [60, 200, 90], [90, 110, 240]])
"""What the classes look like in a picture."""

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "tiff": ".tif", "bmp": ".bmp", "webp": ".webp", "gif": ".gif"}

CHANNELS = {
    "png_rgb": (3, 1, 4), "png_l": (1, 3), "png_p": (3, 1), "png_1": (1, 3), "png_16": (1, 3, 4),
    "png_rgba": (4,), "png_opaque": (3, 1, 4), "jpeg_rgb": (3, 1, 4), "jpeg_l": (1, 3), "tiff_rgb": (3, 1),
    "tiff_l": (1, 3), "tiff_16": (1, 3), "tiff_2": (2,), "tiff_5": (5,), "tiff_5x16": (5,),
    "tiff_planes": (7,), "tiff_rgb16": (3,), "bmp_rgb": (3, 1), "webp_rgb": (3, 4), "webp_rgba": (4,),
    "mixed": (3, 1, 4),
}  # fmt: skip
"""The ways of storing a picture, and what `data.channels` may then be."""


def draw(rng: np.random.Generator, size: tuple[int, int], num_classes: int, *, ignored: bool) -> np.ndarray:
    """Returns H W uint8, the classes of a picture: each of them occurs, and IGNORED on two rims if some shall be."""
    truth = np.zeros(size, np.uint8)
    rows, columns = np.mgrid[: size[0], : size[1]]
    for index in range(1, num_classes):
        for _ in range(2):
            y, x = rng.uniform(0.2, 0.8, 2) * size
            a, b = rng.uniform(0.15, 0.3, 2) * size
            truth[((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 < 1] = index
    for index in range(num_classes):  # whatever covered it
        truth[5 * index + 2 : 5 * index + 6, 2:8] = index
    if ignored:
        truth[:2] = IGNORED
        truth[:, -3:] = IGNORED
    return truth


def paint(rng: np.random.Generator, truth: np.ndarray) -> np.ndarray:
    """Returns the picture of a truth, H W 3 uint8."""
    colors = PAINTS[np.where(truth == IGNORED, 0, truth)]
    return (colors + rng.normal(0, 12, colors.shape)).clip(0, 255).astype(np.uint8)


def stored_grid(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Returns the pixels as they are stored under an EXIF orientation, so that a viewer shows them upright."""
    turned = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    return np.ascontiguousarray(turned)


def suffix_of(kind: str, number: int) -> str:
    """Returns the suffix of a picture's file."""
    return SUFFIXES[kind_of(kind, number).partition("_")[0]]


def kind_of(kind: str, number: int) -> str:
    """Returns how the picture of a number is stored: of `mixed` each in another way."""
    return ("png_rgb", "jpeg_rgb", "png_l", "bmp_rgb")[number % 4] if kind == "mixed" else kind


def save_image(path: Path, pixels: np.ndarray, kind: str, orientation: int = 1) -> None:
    """Writes H W 3 uint8 as a kind of image file, with an orientation tag where it is not 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = pixels.mean(axis=2).astype(np.uint8)
    deep = grey.astype(np.uint16) * 200 + pixels[..., 0]
    opacity = np.where(pixels[..., 1] > 90, 255, 180).astype(np.uint8)
    samples = {
        "tiff_2": np.stack([grey, pixels[..., 1]], -1),
        "tiff_5": np.concatenate([pixels, pixels[..., ::-2]], -1),
        "tiff_5x16": np.concatenate([pixels, pixels[..., ::-2]], -1).astype(np.uint16) * 256,
        "tiff_planes": np.concatenate([pixels, pixels[..., ::-1], grey[..., None]], -1),
        "tiff_rgb16": pixels.astype(np.uint16) * 257,
    }
    tags = [(274, "H", 1, orientation, True)] if orientation != 1 else []
    if kind == "tiff_planes":
        planes = np.moveaxis(samples[kind], -1, 0)
        tifffile.imwrite(path, planes, photometric="minisblack", planarconfig="separate", extratags=tags)
    elif kind in samples:
        photometric = "rgb" if kind == "tiff_rgb16" else "minisblack"
        tifffile.imwrite(path, samples[kind], photometric=photometric, planarconfig="contig", extratags=tags)
    else:
        depth = kind.partition("_")[2]
        image = {
            "rgb": lambda: Image.fromarray(pixels),
            "l": lambda: Image.fromarray(grey),
            "p": lambda: Image.fromarray(pixels).quantize(16),
            "1": lambda: Image.fromarray(grey > 100),
            "16": lambda: Image.fromarray(deep),
            "opaque": lambda: Image.fromarray(np.dstack([pixels, np.full_like(grey, 255)])),
            "rgba": lambda: Image.fromarray(np.dstack([pixels, opacity])),
        }[depth]()
        exif = Image.Exif()
        exif[0x0112] = orientation
        tagged = {"exif": exif} if orientation != 1 else {}
        image.save(path, **tagged, **({"lossless": True} if path.suffix.lower() == ".webp" else {}))


@dataclass(frozen=True)
class Encoding:
    """A way in which masks are stored, and how a config says it."""

    encoding: str
    mode: str
    """How the file is written: a mode of Pillow, or `palettes`, a palette of its own in each file."""
    codes: tuple[tuple[int, ...], ...]
    """What stands for each class: values, or colours as 0xRRGGBB; of several, each does in some places."""
    ignore: tuple[int, ...] = ()
    formats: tuple[str, ...] = ("png",)
    nearest: bool = False
    soft: bool = False
    """Whether edges hold what is between two classes."""
    listed: tuple[tuple[str | int, ...], ...] | None = None
    """What a config lists for each class, where that is not `codes`."""
    listed_ignore: tuple[str | int, ...] | None = None
    written: tuple[str, ...] = ()
    """Modes that a prediction may have; none: that of the masks' files."""
    inferred: bool = True
    """Whether `init` finds the same classes."""

    @property
    def colored(self) -> bool:
        """Whether the codes are colours."""
        return self.encoding in ("rgb", "palette")


_RED, _GREEN, _BLUE, _VOID = 0xC01010, 0x10B020, 0x2030D0, 0xF0F0E0
PALETTE = [0, 0, 0, 200, 30, 30, 30, 180, 40, 40, 60, 220] + [7, 7, 7] * 251 + [224, 224, 192]
ENCODINGS = {
    "gaps": Encoding("index", "L", ((0,), (3,), (7,)), (255,), ("png", "bmp", "tiff", "gif")),
    "no_zero": Encoding("index", "L", ((1,), (2,), (3,), (4,)), (255,), ("png", "bmp", "tiff")),
    "black_white": Encoding("index", "L", ((0,), (255,)), (), ("png", "bmp", "tiff", "gif")),
    "one_bit": Encoding("index", "1", ((0,), (1,)), (), ("png", "bmp", "tiff")),
    "sixteen": Encoding("index", "I;16", ((0,), (300,), (1000,)), (65535,), ("png", "tiff"), inferred=False),
    "palette_index": Encoding("index", "P", ((0,), (1,), (2,)), (255,), ("png", "bmp", "tiff", "gif")),
    "several": Encoding(
        "index", "L", ((0,), (4, 1), (10, 15, 20)), (200, 255), ("png", "bmp", "tiff"), inferred=False,
        listed=((0,), (4, 1), ("10..20",)), listed_ignore=("200..255",),
    ),
    "nodata": Encoding("index", "I", ((0,), (1,), (2,)), (-9999,), ("tiff",), written=("L", "I;16")),
    "rgb": Encoding("rgb", "RGB", ((_RED,), (_GREEN,), (_BLUE,)), (_VOID,), ("png", "bmp", "tiff"), inferred=False),
    "rgb_grey": Encoding("rgb", "RGB", ((0,), (0xFFFFFF,)), (), ("png", "bmp", "tiff")),
    "rgb_opaque": Encoding("rgb", "RGBA", ((_RED,), (0,), (_BLUE,)), (), ("png", "tiff"), written=("RGB",)),
    "rgb_several": Encoding("rgb", "RGB", ((0,), (_RED, 0xC01011), (_BLUE, _GREEN)), (_VOID,), inferred=False),
    "rgb_nearest": Encoding("rgb", "RGB", ((0,), (_RED,), (_BLUE,)), (), nearest=True, soft=True, inferred=False),
    "palette_color": Encoding(
        "palette", "palettes", ((0,), (_RED,), (_BLUE,)), (_VOID,), ("png", "gif"), written=("P",), inferred=False,
    ),
    "palette_rgb": Encoding(
        "rgb", "palettes", ((0,), (_RED,), (_BLUE,)), (_VOID,), written=("RGB", "P"), inferred=False,
    ),
    "threshold": Encoding("threshold", "L", ((0,), (255,)), (), ("png", "bmp", "tiff"), soft=True),
    "threshold_three": Encoding("threshold", "L", ((0,), (128,), (255,)), (), soft=True, inferred=False),
    "alpha": Encoding("alpha", "RGBA", ((0,), (255,)), (), ("png", "tiff")),
    "alpha_grey": Encoding("alpha", "LA", ((0,), (255,)), (), ("png",)),
    "jpeg_grey": Encoding("threshold", "L", ((0,), (255,)), (), ("jpeg",)),
    "jpeg_rgb": Encoding("rgb", "RGB", ((0,), (0xFF0000,), (0x0000FF,)), (), ("jpeg",), nearest=True, inferred=False),
}  # fmt: skip


def without_ignored(encoding: Encoding) -> Encoding:
    """Returns the encoding of masks in which everything counts."""
    return replace(encoding, ignore=(), listed_ignore=None)


def to_codes(rng: np.random.Generator, truth: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Returns H W int64: what is stored for the classes of a truth."""
    stored = np.zeros(truth.shape, np.int64)
    for index, codes in [*enumerate(encoding.codes), (IGNORED, encoding.ignore)]:
        if codes:
            bands = np.array(codes)[np.arange(truth.shape[1]) // 4 % len(codes)]
            stored[truth == index] = np.broadcast_to(bands, truth.shape)[truth == index]
    if encoding.soft:
        edges = (stored[:, :-1] != stored[:, 1:]) & (rng.random((truth.shape[0], truth.shape[1] - 1)) < 0.7)
        share = rng.uniform(0.1, 0.9, edges.shape)
        left, right = (_parts(part, encoding) for part in (stored[:, :-1], stored[:, 1:]))
        between = np.rint(left + (right - left) * share[..., None]).astype(np.int64)
        stored[:, :-1][edges] = _packed(between)[edges]
    return stored


def _parts(codes: np.ndarray, encoding: Encoding) -> np.ndarray:
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], -1) if encoding.colored else codes[..., None]


def _packed(parts: np.ndarray) -> np.ndarray:
    return parts[..., 0] << 16 | parts[..., 1] << 8 | parts[..., 2] if parts.shape[-1] == 3 else parts[..., 0]


def save_mask(path: Path, stored: np.ndarray, encoding: Encoding, rng: np.random.Generator) -> None:
    """Writes codes as a mask file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = (stored & 255).astype(np.uint8)
    colors = np.stack([stored >> 16 & 255, stored >> 8 & 255, small], -1).astype(np.uint8)
    opaque = np.full(stored.shape, 255, np.uint8)
    if encoding.mode == "palettes":
        image = _with_own_palette(stored, rng)
    elif encoding.mode == "P":
        image = Image.fromarray(small)
        image.putpalette(PALETTE)
    else:
        make: dict[str, Callable[[], Image.Image]] = {
            "L": lambda: Image.fromarray(small),
            "1": lambda: Image.fromarray(small.astype(bool)),
            "I;16": lambda: Image.fromarray(stored.astype(np.uint16)),
            "I": lambda: Image.fromarray(stored.astype(np.int32)),
            "RGB": lambda: Image.fromarray(colors),
            "LA": lambda: Image.fromarray(np.stack([opaque, small], -1)),
            "RGBA": lambda: Image.fromarray(
                np.dstack([colors, opaque]) if encoding.colored else np.dstack([opaque // 5, opaque, opaque, small])
            ),
        }
        image = make[encoding.mode]()
    options = {".jpg": {"quality": 90, "subsampling": 0}, ".gif": {"optimize": False}}
    image.save(path, **options.get(path.suffix.lower(), {}))


def _with_own_palette(stored: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Returns a palette image of colours, whose palette has them in an order of its own."""
    present = [int(color) for color in np.unique(stored)]
    order = [present[place] for place in rng.permutation(len(present))]
    indices = np.zeros(stored.shape, np.uint8)
    for index, color in enumerate(order):
        indices[stored == color] = index
    image = Image.fromarray(indices)
    image.putpalette([part for color in order for part in (color >> 16, color >> 8 & 255, color & 255)])
    return image


def decomposed(name: str) -> str:
    """Returns a name with its accents as characters of their own, as some file systems store it."""
    return unicodedata.normalize("NFD", name)
