"""Ways of storing pictures and masks: EXIF, bits, alpha, spellings of values, sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scenes import field, objects, polyp

from published.registry import SIZE, VOC_COLORS, binary, colored, hexes, pairs, published, rim, save


def photograph(path: Path, image: np.ndarray, orientation: int) -> None:
    """Writes a JPEG as a camera does that is held so: stored turned, with the EXIF orientation that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(path, stored_grid(image, orientation), exif=exif)


def stored_grid(array: np.ndarray, orientation: int) -> np.ndarray:
    """Returns a picture as it is stored under an EXIF orientation."""
    return np.rot90(array, {1: 0, 3: 2, 6: 1, 8: 3}[orientation]).copy()


@published(39, "index", [0, 1, 2])
def phone_photographs(root: Path) -> None:
    """31 of 39 photographs are stored turned, and the masks were drawn on what viewers show."""
    for index, (image, mask) in enumerate(pairs(field, 39, seed=880)):
        photograph(root / "images" / f"IMG_{index:04d}.JPG", image, (6, 8, 3, 6)[index % 4] if index < 31 else 1)
        save(root / "masks" / f"IMG_{index:04d}.png", mask)


@published(39, "index", [0, 255], exif="ignore")
def phone_photographs_stored(root: Path) -> None:
    """The same with masks drawn by a program that knows no EXIF, on what is stored."""
    for index, (image, mask) in enumerate(pairs(polyp, 39, seed=881)):
        orientation = (6, 8, 3, 6)[index % 4] if index < 31 else 1
        photograph(root / "images" / f"IMG_{index:04d}.JPG", image, orientation)
        save(root / "masks" / f"IMG_{index:04d}.png", stored_grid(binary(mask), orientation))


@published(30, "index", [0, 255])
def square_photographs(root: Path) -> None:
    """Square photographs, half of them turned, whose masks fit what viewers show: no size tells."""
    for index, (image, mask) in enumerate(pairs(polyp, 30, seed=882, size=(64, 64))):
        photograph(root / "images" / f"IMG_{index:04d}.JPG", image, (6, 8, 3, 1)[index % 4])
        save(root / "masks" / f"IMG_{index:04d}.png", binary(mask))


@published(30, "index", [0, 255], exif="ignore")
def square_photographs_stored(root: Path) -> None:
    """The same with masks that fit what is stored."""
    for index, (image, mask) in enumerate(pairs(polyp, 30, seed=883, size=(64, 64))):
        orientation = (6, 8, 3, 1)[index % 4]
        photograph(root / "images" / f"IMG_{index:04d}.JPG", image, orientation)
        save(root / "masks" / f"IMG_{index:04d}.png", stored_grid(binary(mask), orientation))


@published(24, "index", [0, 1, 2])
def alpha_beside(root: Path) -> None:
    """RGBA images whose alpha is the same everywhere, L masks with an alpha of 255."""
    for index, (image, mask) in enumerate(pairs(objects(2, most=5), 24, seed=884)):
        opaque = Image.new("L", SIZE[::-1], 255)
        save(root / "images" / f"{index:03d}.png", Image.fromarray(image).convert("RGBA"))
        save(root / "masks" / f"{index:03d}.png", Image.merge("LA", [Image.fromarray(mask), opaque]))


@published(24, "rgb", hexes(VOC_COLORS[:3]))
def opaque_colors(root: Path) -> None:
    """RGBA masks, all opaque, as browsers' canvases and paint programs save them."""
    for index, (image, mask) in enumerate(pairs(objects(2, most=5), 24, seed=885)):
        save(root / "images" / f"{index:03d}.png", image)
        save(root / "masks" / f"{index:03d}.png", Image.fromarray(colored(mask, VOC_COLORS)).convert("RGBA"))


@published(24, "index", [0, 85, 170, 255])
def spread_greys(root: Path) -> None:
    """Four classes as 0, 85, 170, 255: 255 is a class, and no void."""
    for index, (image, mask) in enumerate(pairs(objects(3, least=2, most=6), 24, seed=886)):
        save(root / "images" / f"{index:03d}.png", image)
        save(root / "masks" / f"{index:03d}.png", mask * np.uint8(85))


@published(24, "index", [0, 1])
def one_bit(root: Path) -> None:
    """Masks of one bit a pixel."""
    for index, (image, mask) in enumerate(pairs(objects(1), 24, seed=887)):
        save(root / "images" / f"{index:03d}.png", image)
        save(root / "masks" / f"{index:03d}.png", Image.fromarray(binary(mask)).convert("1"))


@published(24, "index", [0, 1, 2])
def sixteen_bit_masks(root: Path) -> None:
    """Classes 0, 1, 2 stored in 16 bits."""
    for index, (image, mask) in enumerate(pairs(objects(2, most=5), 24, seed=888)):
        save(root / "images" / f"{index:03d}.png", image)
        save(root / "masks" / f"{index:03d}.png", mask.astype(np.uint16))


@published(24, "index", [0, 1])
def two_spellings(root: Path) -> None:
    """Some masks write the object as 1, others as 255."""
    for index, (image, mask) in enumerate(pairs(objects(1), 24, seed=889)):
        save(root / "images" / f"{index:03d}.png", image)
        save(root / "masks" / f"{index:03d}.png", mask if index % 2 else binary(mask))


@published(24, "rgb", hexes(VOC_COLORS[:4]), nearest=True)
def scaled_colors(root: Path) -> None:
    """RGB masks that were scaled with interpolation: mixtures of colours on all edges."""
    for index, (image, mask) in enumerate(pairs(objects(3, least=2, most=6), 24, seed=890, size=(96, 96))):
        small = Image.fromarray(colored(mask, VOC_COLORS)).resize((128, 128), Image.Resampling.BICUBIC)
        save(root / "images" / f"{index:03d}.png", Image.fromarray(image).resize((128, 128)))
        save(root / "masks" / f"{index:03d}.png", small)


@published(20, "index", [0, 300], ignore=[65535])
def far_void(root: Path) -> None:
    """16 bits that hold 0 and 300, and 65535 where nobody decided."""
    for index, (image, mask) in enumerate(pairs(objects(1), 20, seed=895)):
        save(root / "images" / f"{index}.png", image)
        save(root / "masks" / f"{index}.png", np.array([0, 300, 65535], np.uint16)[rim(mask, 2)])


@published(4, "index", [0, 1], warns="too few")
def four_pairs(root: Path) -> None:
    """Hardly anything."""
    for index, (image, mask) in enumerate(pairs(objects(1), 4, seed=891)):
        save(root / "images" / f"{index}.png", image)
        save(root / "masks" / f"{index}.png", mask)


@published(40, "index", [0, 1, 2, 3])
def tiny_pictures(root: Path) -> None:
    """28x28 pixels."""
    for index, (image, mask) in enumerate(pairs(objects(3, least=2), 40, seed=892, size=(28, 28))):
        save(root / "images" / f"{index}.png", image)
        save(root / "masks" / f"{index}.png", mask)


@published(12, "index", [0, 255])
def many_sizes(root: Path) -> None:
    """Wide, tall, small and large."""
    for index in range(12):
        rng = np.random.default_rng([893, index])
        image, mask = objects(1)(rng, (int(rng.integers(40, 200)), int(rng.integers(40, 200))))
        save(root / "data" / f"{index}.jpg", image)
        save(root / "data" / f"{index}.png", binary(mask))


@published(24, "alpha", [0, 255])
def cut_outs(root: Path) -> None:
    """Masks as the photograph with all but the object transparent: the opacity is the mask."""
    for index, (image, mask) in enumerate(pairs(objects(1, most=2), 24, seed=894)):
        save(root / "images" / f"{index:03d}.jpg", image)
        save(root / "masks" / f"{index:03d}.png", np.dstack([image, binary(mask)]))
