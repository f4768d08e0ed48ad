"""Sets laid out by chance in folders of names that people use, with what else lies in such folders."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scenes import objects, street

SIZE = (64, 96)
ROLES = (
    ("images", "masks"), ("img", "gt"), ("JPEGImages", "SegmentationClass"), ("x", "y"), ("input", "target"),
    ("input", "output"), ("image", "label"), ("raw", "seg"), ("rgb", "annotations"), ("img_dir", "ann_dir"),
    ("photos", "ground_truth"), ("src", "label_masks"), ("Original", "segmented"), ("A", "label"), ("slides", "GT"),
    ("ultrasound", "manual"), ("frames", "Ground Truth"), ("pictures", "semantic"),
)  # fmt: skip
SPLITS = (("train", "val", "test"), ("training", "", "testing"), ("Train", "Valid", ""), ("trn", "val", "tst"))
STRUCTURES = {
    "flat": ("{image}/{stem}", "{mask}/{stem}"),
    "nested": ("release 1.0/data/{image}/{stem}", "release 1.0/data/{mask}/{stem}"),
    "splits_around": ("{split}/{image}/{stem}", "{split}/{mask}/{stem}"),
    "splits_inside": ("{image}/{split}/{stem}", "{mask}/{split}/{stem}"),
    "splits_before": ("{split}_{image}/{stem}", "{split}_{mask}/{stem}"),
    "splits_behind": ("{image}_{split}/{stem}", "{mask}_{split}/{stem}"),
    "scenes_around": ("scene{scene}/{image}/{stem}", "scene{scene}/{mask}/{stem}"),
    "scenes_inside": ("{image}/scene{scene}/{stem}", "{mask}/scene{scene}/{stem}"),
    "one_folder": ("{stem}", "{stem}"),
    "one_folder_a_split": ("{split}/{stem}", "{split}/{stem}"),
    "one_folder_a_case": ("case_{scene:03}/{stem}", "case_{scene:03}/{stem}"),
}
"""Where image and mask lie, without suffix."""
STEMS = ("{}", "{:04}", "frame_{:05}", "{}TP_00{:03}", "plot {}", "scan ({})", "v1.{}.sample", "2021-03-{:02}_1010")
AFFIXES = (("", ""), ("", "_mask"), ("", "_label"), ("", "_GT"), ("gt_", ""), ("mask-", ""), ("", "_segmentation"))
"""What a mask's name has before and behind its image's."""
SUFFIXES = ((".jpg", ".png"), (".png", ".png"), (".tif", ".png"), (".JPG", ".png"), (".bmp", ".png"), (".png", ".tif"))
STORED = ("index", "from_one", "gaps", "palette", "colors", "255", "01", "bits")
BESIDE = ("depth", "edges", "instances", "overlays", "color", "thumbnails", "heatmaps", "challenge", "texts")
COLORS = np.array([[0, 0, 0], [128, 64, 128], [70, 70, 70], [153, 153, 153], [107, 142, 35], [70, 130, 180]], np.uint8)


@dataclass(frozen=True)
class Made:
    """An image and its mask, as they were laid out."""

    split: str
    image: Path
    mask: Path
    truth: np.ndarray


@dataclass(frozen=True)
class LaidOut:
    """A set by chance."""

    pairs: tuple[Made, ...]
    told: str
    """What was chosen, for messages."""
    lost: Path | None
    """A file that is not there, of the first pair."""


def lay_out(seed: int, root: Path) -> LaidOut:
    """Writes the set of a seed below a folder.

    Of some a file is missing, as one fault should not change how all others are read.
    """
    rng = random.Random(seed)
    structure, (image_place, mask_place) = rng.choice(list(STRUCTURES.items()))
    roles, splits, stem, affix = (rng.choice(options) for options in (ROLES, SPLITS, STEMS, AFFIXES))
    suffixes, stored = rng.choice(SUFFIXES), rng.choice(STORED)
    beside = rng.sample(BESIDE, rng.choice((0, 1, 1, 2)))
    missing = rng.choice(("", "", "image", "mask"))
    if "one_folder" in structure and affix == ("", ""):
        affix = ("", "_mask")
    names = [split for split in splits if split]
    pairs = []
    for number in range(24):
        held = number >= 14
        split = names[1 + number % (len(names) - 1)] if held else names[0]
        words = {"image": roles[0], "mask": roles[1], "split": split, "scene": number % 4 + 1}
        name = stem.format(*[number + 1] * stem.count("{"))
        folder, mask_folder = image_place.format(stem="", **words), mask_place.format(stem="", **words)
        image = root / folder / f"{name}{suffixes[0]}"
        mask = root / mask_folder / f"{affix[0]}{name}{affix[1]}{suffixes[1]}"
        told = {splits[0]: "train", splits[1]: "val", splits[2]: "test"}[split] if "split" in structure else "train"
        pairs.append(_write(seed, number, stored, told, image, mask))
    for kind in beside:
        _write_beside(kind, root, image_place, pairs, seed)
    told = (
        f"{structure}, {roles}, {splits}, {stem}, {affix}, {suffixes}, {stored}, {beside}, without {missing or 'none'}"
    )
    lost = {"image": pairs[0].image, "mask": pairs[0].mask}.get(missing)
    if lost:
        lost.unlink()
    return LaidOut(tuple(pairs), told, lost)


def _write(seed: int, number: int, stored: str, split: str, image: Path, mask: Path) -> Made:
    rng = np.random.default_rng([seed, number])
    pixels, truth = (objects(1) if stored in ("255", "01", "bits") else street)(rng, SIZE)
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(image, **({"quality": 95} if image.suffix.lower() == ".jpg" else {}))
    _picture(truth, stored).save(mask)
    return Made(split, image, mask, truth)


def _picture(truth: np.ndarray, stored: str) -> Image.Image:
    """Returns a mask as its set stores it."""
    if stored == "colors":
        return Image.fromarray(COLORS[truth])
    values = {
        "from_one": truth + 1,
        "gaps": np.array([0, 3, 7, 11, 24, 33])[truth],
        "255": truth * 255,
        "bits": truth * 255,
    }.get(stored, truth)
    picture = Image.fromarray(values.astype(np.uint8))
    if stored == "palette":
        picture.putpalette(COLORS.tobytes())
    return picture.convert("1") if stored == "bits" else picture


def _write_beside(kind: str, root: Path, place: str, pairs: list[Made], seed: int) -> None:
    """Writes what is neither image nor mask of the set: a picture for each image, or a few files."""
    if kind == "texts":
        for name in ("README.md", "LICENSE", "annotations.json", "notes.txt", ".DS_Store"):
            (root / name).write_text("{}" if name.endswith("json") else "what lies about\n")
        return
    for number, pair in enumerate(pairs):
        if kind == "challenge":  # images of a contest, whose masks are not given
            path = root / kind / f"q{number}.png"
        elif "{image}" not in place:
            path = pair.image.with_name(f"{pair.image.stem}_{kind.removesuffix('s')}.png")
        else:
            scene = [part for part in pair.image.parts if part.startswith("scene")]
            path = root.joinpath(kind, *scene, f"{pair.image.stem}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_drawn(kind, pair, np.random.default_rng([seed, number, len(kind)]))).save(path)


def _drawn(kind: str, pair: Made, rng: np.random.Generator) -> np.ndarray:
    pixels, truth = np.asarray(Image.open(pair.image).convert("RGB")), pair.truth
    match kind:
        case "depth":
            return pixels[..., 0].astype(np.uint16) * 90
        case "edges":
            return ((np.diff(truth.astype(int), axis=0, append=0) != 0) * 255).astype(np.uint8)
        case "instances":
            return truth.astype(np.uint16) * 1000 + (np.arange(SIZE[1]) // 24).astype(np.uint16)
        case "overlays":
            return pixels // 2 + COLORS[truth] // 2
        case "color":
            return np.roll(COLORS, 1, 1)[truth]
        case "thumbnails":
            return pixels[::4, ::4]
        case "heatmaps":
            return pixels[..., ::-1] // 2 + rng.integers(0, 90, (*SIZE, 3), np.uint8)
        case _:
            return street(rng, SIZE)[0]
