"""Faults that ruin trainings on real data sets, each planted alone into a set that is otherwise clean.

A trap is a clean set, what is done to it, and what must be told: not a code, but how grave it is at least, which files
are named, and what the words are about. `config` says whose config the check reads: `own`, the one that `init` writes
for the trapped set, as a stranger to the set would have; or `clean`, the one it wrote before, as where files change.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from published.registry import VOC_COLORS, binary, colored, pairs, save, text, with_palette
from scenes import drive_along, ground, lesion, objects, polyp, portrait, skyline, soft, street

Plant = Callable[[Path], None]
SEVERITIES = ("note", "warning", "error")


@dataclass(frozen=True)
class Trap:
    """A fault, and what must be told of it."""

    name: str
    base: Callable[[Path], None]
    plant: Plant
    severity: Literal["note", "warning", "error"]
    """At least."""
    files: tuple[str, ...] = ()
    """Each must be named by the one finding that tells the fault, relative to the set; folders excepted."""
    words: tuple[str, ...] = ()
    """Patterns, each found in the message, the example or the remedy."""
    config: Literal["own", "clean"] = "own"
    silent: tuple[str, ...] = ()
    """Files that no error or warning names."""
    overrides: tuple[str, ...] = ()
    """As with `--set`."""


TRAPS: dict[str, Trap] = {}


def trap(
    base: Callable[[Path], None],
    severity: Literal["note", "warning", "error"],
    *files: str,
    words: tuple[str, ...] = (),
    config: Literal["own", "clean"] = "own",
    silent: tuple[str, ...] = (),
    overrides: tuple[str, ...] = (),
) -> Callable[[Plant], Plant]:
    """Enters what plants a fault into `TRAPS`."""

    def enter(plant: Plant) -> Plant:
        name = plant.__name__
        TRAPS[name] = Trap(name, base, plant, severity, files, words, config, silent, overrides)
        return plant

    return enter


# ------------------------------------------------------------------------------------------------- clean sets


def plain(root: Path) -> None:
    """24 photographs of three classes: `images/p00.jpg`, `masks/p00.png`."""
    for index, (image, mask) in enumerate(pairs(objects(2, least=2, most=5), 24, seed=500)):
        mask[2:14, 2:14], image[2:14, 2:14] = 1, (205, 70, 50)
        mask[2:14, 20:32], image[2:14, 20:32] = 2, (60, 110, 215)
        save(root / "images" / f"p{index:02d}.jpg", image)
        save(root / "masks" / f"p{index:02d}.png", mask)


def in_splits(root: Path) -> None:
    """`train`, `val`, `test` with 20, 8 and 8 photographs of three classes."""
    for split, num in (("train", 20), ("val", 8), ("test", 8)):
        for index, (image, mask) in enumerate(pairs(objects(2, least=2, most=5), num, seed=510 + len(split) + num)):
            mask[2:14, 2:14], image[2:14, 2:14] = 1, (205, 70, 50)
            mask[2:14, 20:32], image[2:14, 20:32] = 2, (60, 110, 215)
            save(root / split / "images" / f"{split}{index:02d}.jpg", image)
            save(root / split / "masks" / f"{split}{index:02d}.png", mask)


def wounds(root: Path) -> None:
    """`train`, `validation`, `test` with 24, 8 and 8 wounds, masks of 0 and 255."""
    for split, num in (("train", 24), ("validation", 8), ("test", 8)):
        for index, (image, mask) in enumerate(pairs(lesion, num, seed=520 + len(split) + num)):
            save(root / split / "images" / f"{split}_{index:02d}.png", image)
            save(root / split / "labels" / f"{split}_{index:02d}.png", binary(mask))


def skies(root: Path) -> None:
    """32 landscapes, masks of 0 and 255."""
    for index, (image, mask) in enumerate(pairs(skyline, 32, seed=530)):
        save(root / "images" / f"{index:02d}.jpg", image)
        save(root / "masks" / f"{index:02d}.png", binary(mask))


def tiles(root: Path) -> None:
    """24 photographs, masks of three colours."""
    for index, (image, mask) in enumerate(pairs(objects(2, least=2, most=5), 24, seed=535)):
        save(root / "images" / f"t{index:02d}.png", image)
        save(root / "masks" / f"t{index:02d}.png", colored(mask, VOC_COLORS))


def scans(root: Path) -> None:
    """24 pictures of one scanner, whose bright middle all of them have."""
    for index, (image, mask) in enumerate(pairs(objects(1), 24, seed=537)):
        rows, columns = np.mgrid[-1 : 1 : image.shape[0] * 1j, -1 : 1 : image.shape[1] * 1j]
        lit = np.clip(1.2 - np.hypot(rows, columns), 0, 1)[..., None]
        save(root / "images" / f"{index:02d}.png", (image * (0.3 + 0.4 * lit) + 60 * lit).astype(np.uint8))
        save(root / "masks" / f"{index:02d}.png", binary(mask))


def portraits(root: Path) -> None:
    """40 portraits."""
    for index, (image, mask) in enumerate(pairs(portrait, 40, seed=540, size=(96, 72))):
        save(root / "images" / f"{index:02d}.jpg", image)
        save(root / "masks" / f"{index:02d}.png", binary(mask))


def streets(root: Path) -> None:
    """Frames of four videos, one of them for validation, 255 ignored."""
    frames = drive_along(street)
    for video in range(4):
        split = "val" if video == 3 else "train"
        for index, (image, mask) in enumerate(frames(np.random.default_rng([550, video]), (64, 96), 8)):
            mask[-3:] = 255
            mask[34:42, 4:12], image[34:42, 4:12] = 5, (50, 110, 50)
            save(root / split / "images" / f"v{video}_{index:04d}.png", image)
            save(root / split / "masks" / f"v{video}_{index:04d}.png", mask)


def photographs(size: tuple[int, int] = (64, 96)) -> Callable[[Path], None]:
    """Returns a maker of 30 photographs of a camera that was held upright."""

    def make(root: Path) -> None:
        for index, (image, mask) in enumerate(pairs(polyp, 30, seed=560, size=size)):
            save(root / "images" / f"DSC_{index:04d}.jpg", image)
            save(root / "masks" / f"DSC_{index:04d}.png", binary(mask))

    return make


def listed(root: Path) -> None:
    """Lists of pairs."""
    for index, (image, mask) in enumerate(pairs(objects(1), 24, seed=570)):
        save(root / "images" / f"{index:03d}.jpg", image)
        save(root / "masks" / f"{index:03d}.png", mask)
    for split, numbers in (("train", range(16)), ("val", range(16, 20)), ("test", range(20, 24))):
        text(root / f"{split}.txt", [f"images/{number:03d}.jpg masks/{number:03d}.png" for number in numbers])


def stems(root: Path) -> None:
    """Lists of stems, as of VOC."""
    for index, (image, mask) in enumerate(pairs(objects(1), 24, seed=571)):
        save(root / "JPEGImages" / f"2007_{index:06d}.jpg", image)
        save(root / "SegmentationClass" / f"2007_{index:06d}.png", with_palette(mask, VOC_COLORS))
    for split, numbers in (("train", range(16)), ("val", range(16, 24))):
        text(root / "ImageSets" / "Segmentation" / f"{split}.txt", [f"2007_{number:06d}" for number in numbers])


# ------------------------------------------------------------------------------------------------- changes


def load(path: Path) -> np.ndarray:
    """Returns the stored pixels."""
    with Image.open(path) as picture:
        return np.array(picture)


def edit(path: Path, change: Callable[[np.ndarray], np.ndarray | None]) -> None:
    """Rewrites a picture with what `change` returns, or does in place; a palette stays."""
    with Image.open(path) as picture:
        palette, array = picture.getpalette() if picture.mode == "P" else None, np.array(picture)
    changed = change(array)
    result = Image.fromarray(array if changed is None else changed)
    if palette:
        result.putpalette(palette)
    save(path, result)


def rotated(image: np.ndarray, orientation: int) -> np.ndarray:
    """Returns what a camera stores that an EXIF orientation turns into the image."""
    return np.rot90(image, {3: 2, 6: 1, 8: 3}[orientation]).copy()


def with_exif(path: Path, image: np.ndarray, orientation: int) -> None:
    """Writes a JPEG whose EXIF turns what is stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(path, image, exif=exif)


def turn_photographs(
    root: Path, numbers: range, orientation: int, *, masks: Literal["upright", "stored"], tag: bool = True
) -> None:
    """Stores some photographs as a camera does that is held otherwise; masks drawn on one of the two grids."""
    for number in numbers:
        path = root / "images" / f"DSC_{number:04d}.jpg"
        stored = rotated(load(path), orientation)
        with_exif(path, stored, orientation if tag else 1)
        if masks == "stored":
            edit(root / "masks" / f"DSC_{number:04d}.png", lambda mask: rotated(mask, orientation))


def names(pattern: str, numbers: range | list[int]) -> tuple[str, ...]:
    """Returns the names of several files."""
    return tuple(pattern.format(number) for number in numbers)


# ------------------------------------------------------------------------------------------------- which files


@trap(plain, "warning", "images/p05.jpg", words=("without a mask",))
def image_without_mask(root: Path) -> None:
    """A mask is missing."""
    (root / "masks" / "p05.png").unlink()


@trap(plain, "warning", "masks/p05.png", words=("without an image",))
def mask_without_image(root: Path) -> None:
    """An image is missing."""
    (root / "images" / "p05.jpg").unlink()


@trap(plain, "error", "images/p05.jpg", "images/p05.png")
def two_images_of_one_name(root: Path) -> None:
    """`p05.jpg` and another `p05.png`."""
    save(root / "images" / "p05.png", pairs(objects(1), 1, seed=600)[0][0])


@trap(plain, "error", "masks/p05.png", "masks/p05.bmp")
def two_masks_of_one_name(root: Path) -> None:
    """`p05.png` and another `p05.bmp`."""
    save(root / "masks" / "p05.bmp", np.roll(load(root / "masks" / "p05.png"), 9, 1))


@trap(
    skies,
    "warning",
    *names("masks/{:02d}.png", [4, 9, 15, 20, 26, 31]),
    words=("another image|other image|pair",),
    silent=names("masks/{:02d}.png", [0, 1, 2, 3, 5]),
)
def sorted_order_pairs_six_of_32_wrong(root: Path) -> None:
    """Six masks stand under each other's names."""
    numbers = [4, 9, 15, 20, 26, 31]
    found = [load(root / "masks" / f"{number:02d}.png") for number in numbers]
    for number, mask in zip(numbers, found[1:] + found[:1], strict=True):
        save(root / "masks" / f"{number:02d}.png", mask)


@trap(plain, "warning", "masks/p03.png", "masks/p17.png", words=("another image|other image|pair",))
def two_masks_exchanged(root: Path) -> None:
    """Two masks of one size stand under each other's names, with all classes in both."""
    one, other = (load(root / "masks" / f"{name}.png") for name in ("p03", "p17"))
    save(root / "masks" / "p03.png", other)
    save(root / "masks" / "p17.png", one)


@trap(plain, "warning", "images/p05.jpg", "images/p11.jpg", words=("nothing but the areas of the mask",))
def masks_saved_over_two_images(root: Path) -> None:
    """A tool saved into the folder of images what belongs into that of masks."""
    for name in ("p05", "p11"):
        mask = load(root / "masks" / f"{name}.png")
        save(root / "images" / f"{name}.jpg", np.repeat((mask * (255 // mask.max()))[..., None], 3, -1))


@trap(plain, "warning", *names("masks/p{:02d}.png", range(24)), words=("another image",))
def all_masks_in_disorder(root: Path) -> None:
    """Masks were numbered in the order in which they were drawn."""
    found = [load(path) for path in sorted((root / "masks").iterdir())]
    for number, path in enumerate(sorted((root / "masks").iterdir())):
        save(path, found[(5 * number + 7) % 24])


@trap(
    in_splits,
    "warning",
    *names("train/masks/train{:02d}.png", range(19)),
    words=("another image",),
    silent=names("val/masks/val{:02d}.png", range(8)),
)
def masks_of_one_split_moved_on_by_one(root: Path) -> None:
    """A list began with a heading."""
    found = [load(path) for path in sorted((root / "train/masks").iterdir())]
    for path, mask in zip(sorted((root / "train/masks").iterdir()), found[1:] + found[:1], strict=True):
        save(path, mask)


@trap(plain, "warning", words=("pair|fit|another image",))
def all_masks_moved_on_by_one(root: Path) -> None:
    """Every mask is the next image's."""
    found = [load(path) for path in sorted((root / "masks").iterdir())]
    for path, mask in zip(sorted((root / "masks").iterdir()), found[1:] + found[:1], strict=True):
        save(path, mask)


# ------------------------------------------------------------------------------------------------- reading


@trap(plain, "warning", "masks/p03.png", words=("mirrored top to bottom", "24 masks"))
def all_masks_mirrored(root: Path) -> None:
    """Exported with the origin below, as MATLAB and some plots do."""
    for path in (root / "masks").iterdir():
        save(path, np.asarray(Image.open(path))[::-1])


@trap(plain, "warning", "masks/p03.png", words=("mirrored left to right", "1 mask of"))
def one_mask_mirrored(root: Path) -> None:
    """Edited in another program and saved the wrong way round."""
    path = root / "masks/p03.png"
    save(path, np.asarray(Image.open(path))[:, ::-1])


@trap(plain, "warning", "masks/p00.png", words=("4 up and 3 to the left",))
def all_masks_shifted(root: Path) -> None:
    """Cut from pictures with a frame around them."""
    for path in (root / "masks").iterdir():
        save(path, np.roll(np.asarray(Image.open(path)), (4, 3), (0, 1)))


@trap(
    plain,
    "warning",
    "masks/p05.png",
    "masks/p11.png",
    words=("equal in every pixel; it follows the edges of images/p05",),
)
def one_mask_copied_over_another(root: Path) -> None:
    """Saved under the next name."""
    shutil.copy(root / "masks/p05.png", root / "masks/p11.png")


@trap(scans, "warning", "masks/05.png", "masks/11.png", words=("equal in every pixel",))
def one_mask_copied_over_another_of_pictures_that_look_alike(root: Path) -> None:
    """The same, where all pictures have much in common."""
    shutil.copy(root / "masks/05.png", root / "masks/11.png")


@trap(plain, "error", "images/p05.jpg", words=("truncated|ends early|cut|incomplete|broken",))
def truncated_image(root: Path) -> None:
    """Half of a JPEG."""
    path = root / "images" / "p05.jpg"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@trap(plain, "error", "masks/p05.png", words=("truncated|ends early|cut|incomplete|broken",))
def truncated_mask(root: Path) -> None:
    """Half of a PNG."""
    path = root / "masks" / "p05.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@trap(plain, "error", "images/p05.jpg", words=("empty|0 bytes",))
def empty_image(root: Path) -> None:
    """A download that never came."""
    (root / "images" / "p05.jpg").write_bytes(b"")


@trap(plain, "error", "images/p05.jpg", words=("web page|HTML",))
def web_page_for_an_image(root: Path) -> None:
    """A download that was refused."""
    (root / "images" / "p05.jpg").write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")


@trap(plain, "error", "masks/p05.png", words=("LFS|pointer",))
def git_lfs_pointer(root: Path) -> None:
    """A repository cloned without git-lfs."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 12345\n"
    (root / "masks" / "p05.png").write_text(pointer)


@trap(plain, "error", "images/p05.jpg", words=("CMYK",))
def cmyk_image(root: Path) -> None:
    """A photograph made for printing."""
    Image.fromarray(load(root / "images" / "p05.jpg")).convert("CMYK").save(root / "images" / "p05.jpg")


@trap(plain, "error", "masks/p05.tif", words=("frame|page",))
def stack_for_a_mask(root: Path) -> None:
    """A TIFF of two pages."""
    mask = Image.fromarray(load(root / "masks" / "p05.png"))
    (root / "masks" / "p05.png").unlink()
    mask.save(root / "masks" / "p05.tif", save_all=True, append_images=[mask])


@trap(plain, "error", "masks/p05.png", words=("photo|RGB|colour|values|picture",))
def photograph_for_a_mask(root: Path) -> None:
    """An image was copied into the folder of masks."""
    Image.fromarray(load(root / "images" / "p05.jpg")).save(root / "masks" / "p05.png")


@trap(tiles, "error", "masks/t05.png", words=("pictures among the masks", "colour of any class"))
def photograph_for_a_mask_in_colour(root: Path) -> None:
    """The image again, among masks whose classes are colours: each of its pixels is near to one of these."""
    shutil.copy(root / "images" / "t05.png", root / "masks" / "t05.png")


@trap(plain, "error", "masks/p05.png", words=("pictures among the masks", "value of any class"))
def grey_picture_for_a_mask(root: Path) -> None:
    """The image in grey, as a scanner has it: its greys are no classes."""
    save(root / "masks" / "p05.png", load(root / "images" / "p05.jpg").mean(-1).astype(np.uint8))


@trap(plain, "error", "masks/p05.png", "masks/p06.png", words=("pictures among the masks", "value of any class"))
def pictures_of_little_contrast_for_masks(root: Path) -> None:
    """Pictures in grey again, of hardly 60 greys, as many as masks may have classes."""
    for name, contrast in (("p05", 0.6), ("p06", 1.0)):
        grey = load(root / "images" / f"{name}.jpg").mean(-1) * contrast + 40
        save(root / "masks" / f"{name}.png", grey.astype(np.uint8))


@trap(
    tiles,
    "warning",
    "masks/t05.png",
    words=("pictures among the masks", "more than 32 from the colour"),
    config="clean",
    overrides=("data.nearest=true",),
)
def photograph_read_by_the_nearest_colour(root: Path) -> None:
    """What is read by the nearest colour is never an error."""
    shutil.copy(root / "images" / "t05.png", root / "masks" / "t05.png")


# ------------------------------------------------------------------------------------------------- sizes and grids


@trap(
    portraits,
    "error",
    *names("masks/{:02d}.png", [0, 1, 2]),
    words=("size", "scaled|nearest"),
    silent=("masks/39.png",),
)
def masks_smaller_than_their_images(root: Path) -> None:
    """27 of 40 masks of a portrait set have 3/4 of the size."""
    for number in range(27):
        path = root / "masks" / f"{number:02d}.png"
        with Image.open(path) as mask:
            save(path, mask.resize((54, 72), Image.Resampling.NEAREST))


@trap(plain, "error", "masks/p05.png", words=("size", "crop"))
def mask_cropped(root: Path) -> None:
    """A mask without its last rows."""
    edit(root / "masks" / "p05.png", lambda mask: mask[:-7])


@trap(plain, "error", "masks/p05.png", words=("size", "rotat|turn|transpos"))
def mask_transposed(root: Path) -> None:
    """Rows and columns exchanged."""
    edit(root / "masks" / "p05.png", lambda mask: mask.T.copy())


@trap(photographs(), "error", *names("DSC_{:04d}", [0, 1]), words=("EXIF|exif",), config="clean")
def photographs_turned_after_masks_were_drawn_on_the_stored_grid(root: Path) -> None:
    """22 of 30 photographs are turned by EXIF, their masks drawn on what is stored, `exif: apply`."""
    turn_photographs(root, range(22), 6, masks="stored")


@trap(
    photographs((64, 64)),
    "error",
    *names("DSC_{:04d}", [0, 1]),
    words=("EXIF|exif", "ignore"),
    config="clean",
    silent=("images/DSC_0029.jpg", "masks/DSC_0029.png"),
)
def square_photographs_turned_and_masks_on_the_stored_grid(root: Path) -> None:
    """The same where no size tells: only the edges of mask and image do."""
    turn_photographs(root, range(22), 8, masks="stored")


@trap(photographs(), "error", *names("DSC_{:04d}", [0, 1]), words=("EXIF|exif", "ignore"), config="clean")
def photographs_upside_down_and_masks_on_the_stored_grid(root: Path) -> None:
    """A half turn: the size is the same."""
    turn_photographs(root, range(22), 3, masks="stored")


@trap(
    photographs(),
    "error",
    *names("DSC_{:04d}", [0, 1]),
    words=("EXIF|exif", "apply"),
    config="clean",
    overrides=("data.exif=ignore",),
)
def photographs_upside_down_and_masks_on_the_upright_grid_ignored(root: Path) -> None:
    """Masks fit the turned picture, and the config says `exif: ignore`."""
    turn_photographs(root, range(22), 3, masks="upright")


@trap(photographs(), "error", *names("DSC_{:04d}", [22, 23, 24]), words=("EXIF|exif",), silent=("images/DSC_0000.jpg",))
def some_masks_on_either_grid(root: Path) -> None:
    """20 masks were drawn on the upright picture, 6 on the stored one: no setting is right for all."""
    turn_photographs(root, range(20), 3, masks="upright")
    turn_photographs(root, range(20, 26), 3, masks="stored")


# ------------------------------------------------------------------------------------------------- modes, values


@trap(plain, "note", "images/p05.png", words=("grey|L\\b|mode",))
def grey_image_among_coloured_ones(root: Path) -> None:
    """One image was stored without its colours."""
    (root / "images" / "p05.jpg").rename(root / "images" / "p05.png")
    edit(root / "images" / "p05.png", lambda image: image.mean(-1).astype(np.uint8))


@trap(plain, "note", "images/p05.tif", words=("16",))
def deep_image_among_others(root: Path) -> None:
    """One image of 16 bits beside those of 8."""
    image = load(root / "images" / "p05.jpg").mean(-1).astype(np.uint16) * 256
    (root / "images" / "p05.jpg").unlink()
    save(root / "images" / "p05.tif", image)


@trap(plain, "note", "masks/p05.png", words=("palette|mode|RGB|P\\b",))
def palette_mask_among_grey_ones(root: Path) -> None:
    """One mask came from another program."""
    save(root / "masks" / "p05.png", with_palette(load(root / "masks" / "p05.png"), VOC_COLORS))


@trap(skies, "note", "masks/08.png", words=("0/1, not 0/255",))
def mask_of_0_and_1_among_those_of_0_and_255(root: Path) -> None:
    """One mask was written with indices; `init` reads both."""
    edit(root / "masks" / "08.png", lambda mask: mask // 255)


@trap(plain, "warning", "masks/p08.png", words=("255 at", "an ignored value, which no other mask holds"))
def mask_of_0_and_255_among_those_of_ids(root: Path) -> None:
    """Saved as a picture for people: init takes 255 for ignored pixels."""
    edit(root / "masks" / "p08.png", lambda mask: np.where(mask > 0, 255, 0).astype(np.uint8))


@trap(skies, "note", "masks/08.png", words=("soft edges, not 0/255",))
def soft_mask_among_exact_ones(root: Path) -> None:
    """One mask was smoothed: its greys are no numbers of objects."""
    edit(root / "masks" / "08.png", lambda mask: soft(mask // 255))


@trap(tiles, "note", "masks/t08.png", words=("blended colours, not exact colours",))
def mask_in_colour_that_was_scaled_among_exact_ones(root: Path) -> None:
    """One mask was made smaller and larger again, so that its edges are mixtures of two colours."""
    with Image.open(root / "masks" / "t08.png") as mask:
        small = mask.resize((mask.width // 2, mask.height // 2), Image.Resampling.BILINEAR)
        save(root / "masks" / "t08.png", np.asarray(small.resize(mask.size, Image.Resampling.BILINEAR)))


@trap(plain, "error", "masks/p05.png", words=("RGB|colour",), config="clean")
def colour_mask_among_grey_ones(root: Path) -> None:
    """One mask was exported in colour."""
    save(root / "masks" / "p05.png", colored(load(root / "masks" / "p05.png"), VOC_COLORS))


@trap(stems, "warning", "SegmentationClass/2007_000005.png", words=("palette", "colou?r"), config="clean")
def palette_in_another_order(root: Path) -> None:
    """One mask has the colours of the others at other indices, and the config reads indices."""
    path = root / "SegmentationClass" / "2007_000005.png"
    order = np.array([1, 0, *range(2, len(VOC_COLORS))])
    save(path, with_palette(order[load(path)].astype(np.uint8), [VOC_COLORS[place] for place in order]))


@trap(skies, "note", "masks/00.jpg", words=("JPEG", "lossy|nearest"))
def masks_as_jpeg(root: Path) -> None:
    """All masks were saved as JPEG."""
    for path in sorted((root / "masks").iterdir()):
        save(path.with_suffix(".jpg"), load(path), quality=80)
        path.unlink()


@trap(plain, "error", "masks/p05.png", words=(r"\b7\b", r"\(11, 6\)"), config="clean")
def value_that_is_no_class(root: Path) -> None:
    """A slip of the brush: the first pixel of 7 is at x 11, y 6."""

    def slip(mask: np.ndarray) -> None:
        mask[6:9, 11:14] = 7

    edit(root / "masks" / "p05.png", slip)


@trap(
    wounds,
    "error",
    words=("0/255|255",),
    config="clean",
    overrides=("data.classes=[{name: a, values: [0]}, {name: b, values: [1]}]",),
)
def masks_of_0_and_255_in_a_config_of_0_and_1(root: Path) -> None:
    """The classic: nothing is changed, the config is wrong."""


@trap(plain, "warning", "masks/p05.png", words=("ignored|255",), config="clean", overrides=("data.ignore=[255]",))
def mask_ignored_as_a_whole(root: Path) -> None:
    """Nobody labelled this one."""
    edit(root / "masks" / "p05.png", lambda mask: np.full_like(mask, 255))


@trap(wounds, "note", "train/labels/train_00.png", words=("one class|blank|nothing",))
def blank_masks(root: Path) -> None:
    """12 of 24 masks were never drawn."""
    for number in range(12):
        edit(root / "train" / "labels" / f"train_{number:02d}.png", np.zeros_like)


@trap(
    streets,
    "warning",
    "train/masks/v1_0002.png",
    "train/masks/v1_0003.png",
    words=("tiny|speck|small|noise|region",),
    silent=("train/masks/v0_0000.png",),
)
def specks_of_label_noise(root: Path) -> None:
    """Two masks are strewn with single pixels of other classes."""
    for number in (2, 3):
        rng = np.random.default_rng(number)

        def strew(mask: np.ndarray, rng: np.random.Generator = rng) -> None:
            spots = rng.random(mask.shape) < 0.02
            mask[spots] = rng.integers(0, 6, int(spots.sum()))

        edit(root / "train" / "masks" / f"v1_{number:04d}.png", strew)


@trap(plain, "warning", "images/p05.jpg", words=("constant|one colour|single colour|uniform|flat",))
def black_image(root: Path) -> None:
    """A camera with its lid on."""
    edit(root / "images" / "p05.jpg", np.zeros_like)


# ------------------------------------------------------------------------------------------------- classes


@trap(in_splits, "warning", words=("train", "class_2|never"), config="clean")
def class_absent_from_training(root: Path) -> None:
    """Class 2 occurs in validation and test alone."""
    for path in (root / "train" / "masks").iterdir():
        edit(path, lambda mask: np.where(mask == 2, 1, mask))


@trap(in_splits, "warning", words=("val", "class_2|never"))
def class_absent_from_validation(root: Path) -> None:
    """Class 2 is never validated."""
    for path in (root / "val" / "masks").iterdir():
        edit(path, lambda mask: np.where(mask == 2, 1, mask))


@trap(in_splits, "note", words=("0\\.1 %|rare",))
def rare_class(root: Path) -> None:
    """Class 2 covers less than a thousandth."""

    def shrink(mask: np.ndarray) -> np.ndarray:
        rest = np.where(mask == 2, 0, mask)
        rest[3:5, 21:23] = 2
        return rest

    for split in ("train", "val", "test"):
        for path in (root / split / "masks").iterdir():
            edit(path, shrink)


# ------------------------------------------------------------------------------------------------- splits


@trap(wounds, "warning", *names("test/images/test_{:02d}.png", [0, 1]), words=("split|train",))
def all_test_images_are_in_training(root: Path) -> None:
    """All 8 test images are also in train, under other names."""
    for number in range(8):
        for kind in ("images", "labels"):
            shutil.copy(
                root / "train" / kind / f"train_{number:02d}.png", root / "test" / kind / f"test_{number:02d}.png"
            )


@trap(wounds, "warning", "validation/images/validation_02.png", "train/images/train_07.png")
def one_validation_image_is_in_training(root: Path) -> None:
    """One of 8."""
    for kind in ("images", "labels"):
        to = root / "validation" / kind / "validation_02.png"
        shutil.copy(root / "train" / kind / "train_07.png", to)


@trap(
    in_splits, "warning", "val/images/val03.jpg", "train/images/train11.jpg", words=("near|similar|alike|almost|same",)
)
def near_duplicate_across_splits(root: Path) -> None:
    """Stored again as a worse JPEG, half the size."""
    with Image.open(root / "train" / "images" / "train11.jpg") as image:
        smaller = image.resize((48, 32), Image.Resampling.BICUBIC)
    smaller.save(root / "val" / "images" / "val03.jpg", quality=60)
    with Image.open(root / "train" / "masks" / "train11.png") as mask:
        mask.resize((48, 32), Image.Resampling.NEAREST).save(root / "val" / "masks" / "val03.png")


@trap(in_splits, "warning", "val/images/val03.jpg", "train/images/train11.jpg", words=("mirrored",))
def mirrored_copy_in_another_split(root: Path) -> None:
    """As an augmentation that was stored beside what it was made of."""
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        mirrored = load(root / "train" / kind / f"train11.{suffix}")[:, ::-1]
        save(root / "val" / kind / f"val03.{suffix}", mirrored)


@trap(in_splits, "warning", "val/images/val03.jpg", "train/images/train11.jpg", words=("margins",))
def copy_without_its_margins_in_another_split(root: Path) -> None:
    """Without its first columns and last rows, as after a second look at what it should show."""
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        save(root / "val" / kind / f"val03.{suffix}", load(root / "train" / kind / f"train11.{suffix}")[:-6, 9:])


@trap(in_splits, "warning", "val/images/val03.jpg", "train/images/train11.jpg", words=("mirrored or turned, but",))
def mirrored_copy_without_its_margins_in_another_split(root: Path) -> None:
    """As a random crop and a flip leave it, stored beside what it was made of."""
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        part = load(root / "train" / kind / f"train11.{suffix}")[3:-4, 5:-6, ...]
        save(root / "val" / kind / f"val03.{suffix}", part[:, ::-1])


@trap(streets, "warning", words=("near|similar|alike|almost|frame",))
def frames_of_one_video_in_both_splits(root: Path) -> None:
    """Every other frame of a slow video is validated."""
    frames = drive_along(street)(np.random.default_rng(601), (64, 96), 60)
    for index, (image, mask) in enumerate(frames[:24]):
        split = "val" if index % 2 else "train"
        save(root / split / "images" / f"v9_{index:04d}.png", image)
        save(root / split / "masks" / f"v9_{index:04d}.png", mask)


@trap(wounds, "warning", "train/labels/train_11.png", words=("another picture",))
def mask_of_a_picture_that_is_not_there(root: Path) -> None:
    """One of 24 masks was drawn on what is not in the set, so no other image has it."""
    _, mask = lesion(np.random.default_rng([603, 1]), (64, 96))
    save(root / "train" / "labels" / "train_11.png", binary(mask))


@trap(wounds, "warning", "train/labels/train_05.png", "train/labels/train_17.png", words=("exchanged",))
def object_and_background_exchanged(root: Path) -> None:
    """Two of 24 masks hold 255 where there is no wound."""
    for number in (5, 17):
        path = root / "train" / "labels" / f"train_{number:02d}.png"
        with Image.open(path) as mask:
            stored = 255 - np.asarray(mask)
        save(path, stored)


@trap(skies, "warning", "masks/08.png", words=("exchanged",))
def sky_and_ground_exchanged(root: Path) -> None:
    """One of 32 masks holds 255 for the ground, where the sky is half of all pictures: no share tells."""
    with Image.open(root / "masks" / "08.png") as mask:
        stored = 255 - np.asarray(mask)
    save(root / "masks" / "08.png", stored)


@trap(plain, "note", "images/p05.jpg", "images/p20.jpg", words=("same|equal|duplicate|twice",))
def one_picture_twice(root: Path) -> None:
    """Within one folder, with the same mask."""
    shutil.copy(root / "images" / "p05.jpg", root / "images" / "p20.jpg")
    shutil.copy(root / "masks" / "p05.png", root / "masks" / "p20.png")


@trap(plain, "warning", "masks/p05.png", "masks/p20.png", words=("disagree|differ",))
def one_picture_twice_with_masks_that_disagree(root: Path) -> None:
    """Two people drew."""
    shutil.copy(root / "images" / "p05.jpg", root / "images" / "p20.jpg")


@trap(in_splits, "note", words=("shared_name", "split"))
def one_name_in_two_splits(root: Path) -> None:
    """`shared_name` is another picture in train than in val."""
    for split, number in (("train", 3), ("val", 5)):
        for kind, suffix in (("images", "jpg"), ("masks", "png")):
            path = root / split / kind / f"{split}{number:02d}.{suffix}"
            path.rename(path.with_stem("shared_name"))


@trap(listed, "warning", words=("images/003|003",))
def one_id_in_two_lists(root: Path) -> None:
    """`images/003.jpg` stands in train.txt and in val.txt."""
    with (root / "val.txt").open("a") as file:
        file.write("images/003.jpg masks/003.png\n")


@trap(stems, "warning", words=("2007_000003",))
def one_stem_in_two_lists(root: Path) -> None:
    """`2007_000003` stands in both lists of VOC."""
    with (root / "ImageSets" / "Segmentation" / "val.txt").open("a") as file:
        file.write("2007_000003\n")


@trap(listed, "warning", "train.txt", words=("images/099|099",))
def listed_file_is_not_there(root: Path) -> None:
    """A line names no file."""
    with (root / "train.txt").open("a") as file:
        file.write("images/099.jpg masks/099.png\n")


@trap(stems, "warning", words=("2007_009999",))
def listed_stem_is_not_there(root: Path) -> None:
    """A stem without files."""
    with (root / "ImageSets" / "Segmentation" / "train.txt").open("a") as file:
        file.write("2007_009999\n")


@trap(in_splits, "note", words=("val", "differ|distribution|share"))
def validation_shows_something_else(root: Path) -> None:
    """Class 1 fills most of each validation picture, hardly anything of the others."""
    for index, path in enumerate(sorted((root / "val" / "masks").iterdir())):
        rng = np.random.default_rng([602, index])
        image = ground(rng, (64, 96), (205, 70, 50))
        mask = np.ones((64, 96), np.uint8)
        mask[2:14, 20:32], image[2:14, 20:32] = 2, (60, 110, 215)
        mask[50:, :20], image[50:, :20] = 0, rng.integers(0, 255, 3)
        save(root / "val" / "images" / f"{path.stem}.jpg", image.clip(0, 255).astype(np.uint8))
        save(path, mask)


# ------------------------------------------------------------------------------------------------- config


@trap(in_splits, "error", "val/images", words=("not found|not there|no such",), config="clean")
def folder_of_the_config_is_gone(root: Path) -> None:
    """A folder was renamed."""
    (root / "val" / "images").rename(root / "val" / "pictures")
