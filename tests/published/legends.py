"""Sets whose names of classes, or whose void, are written in a way of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scenes import objects, street

from published.registry import VOC_COLORS, colored, hexes, pairs, published, rim, save, text

CAMVID = [(128, 128, 128), (128, 0, 0), (128, 64, 128), (64, 0, 128), (64, 64, 0), (128, 128, 0)]
CAMVID_NAMES = ["Sky", "Building", "Road", "Car", "Pedestrian", "Tree"]
THINGS = ["person", "bicycle", "car", "motorcycle", "airplane"]


@published(16, "rgb", hexes(CAMVID), names=CAMVID_NAMES)
def camvid_of_cambridge(root: Path) -> None:
    """CamVid as published: colours before names, with one tab or two between them."""
    for index, (image, mask) in enumerate(pairs(street, 16, seed=1600)):
        save(root / "701_StillsRaw_full" / f"0016E5_{30 * index:05d}.png", image)
        save(root / "LabeledApproved_full" / f"0016E5_{30 * index:05d}_L.png", colored(mask, CAMVID))
    rows = [(" ".join(map(str, color)), name) for color, name in zip(CAMVID, CAMVID_NAMES, strict=True)]
    lines = [("\t" if len(name) % 2 else "\t\t").join((color, name)) for color, name in rows]
    text(root / "label_colors.txt", [*lines, "0 0 0\t\tVoid", "64 192 0\tWall"])


@published({"train": 12, "val": 6}, "index", range(5), ignore=[255], names=THINGS)
def coco_stuff_named(root: Path) -> None:
    """COCO-Stuff: its list begins with 0 for what nobody labelled; masks hold one less, and 255 for that."""
    for part, num in (("train2017", 12), ("val2017", 6)):
        for index, (image, mask) in enumerate(pairs(objects(4, least=5, most=9), num, seed=1601 + num)):
            save(root / "images" / part / f"{997 * index + num:012d}.jpg", image)
            save(root / "stuffthingmaps_pixelmaps" / part / f"{997 * index + num:012d}.png", rim(mask, 255))
    text(root / "labels.txt", [f"{value}: {name}" for value, name in enumerate(["unlabeled", *THINGS])])


@published({"train": 12, "val": 6}, "index", [7, 11, 21, 23, 24, 26], ignore=[1, 3], masks="labelIds")
def cityscapes_of_all_splits(root: Path) -> None:
    """Cityscapes with the masks of its test set, which hold the car's bonnet and nothing else."""
    ids = np.array([23, 11, 7, 26, 24, 21], np.uint8)
    for part, place, num in (("train", "aachen", 12), ("val", "lindau", 6), ("test", "berlin", 4)):
        for index, (image, mask) in enumerate(pairs(street, num, seed=1610 + num)):
            stored = ids[mask] if part != "test" else np.full_like(mask, 3)
            stored[-3:], stored[:2] = 1, 3
            stem = f"{place}_{index:06d}_000019"
            save(root / "leftImg8bit" / part / place / f"{stem}_leftImg8bit.png", image)
            save(root / "gtFine" / part / place / f"{stem}_gtFine_labelIds.png", stored)


@published({"train": 12, "val": 6}, "index", range(6), images="/images/", masks="/labels/")
def mapillary_2(root: Path) -> None:
    """Mapillary Vistas 2.0: masks of two versions, each with ids and segments beside them."""
    for part, num in (("training", 12), ("validation", 6)):
        for index, (image, mask) in enumerate(pairs(street, num, seed=1620 + num)):
            stem = f"Ab-{num}_{index}Kx"
            save(root / part / "images" / f"{stem}.jpg", image)
            for version, drawn in (("v1.2", mask), ("v2.0", np.roll(mask, 1, 0))):
                save(root / part / version / "labels" / f"{stem}.png", drawn)
                save(root / part / version / "instances" / f"{stem}.png", drawn.astype(np.uint16) * np.uint16(256))
                save(root / part / version / "panoptic" / f"{stem}.png", colored(drawn, VOC_COLORS))


@published({"train": 14, "test": 6}, "rgb", ["#000000", "#010000", "#020000", "#030000"],
           names=["background", "rice", "eels", "pilaf"])  # fmt: skip
def uec_foodpix(root: Path) -> None:
    """UECFoodPix Complete: the number of a class in the red channel, and a table of numbers and names."""
    for part, num in (("train", 14), ("test", 6)):
        for index, (image, mask) in enumerate(pairs(objects(3, least=4), num, seed=1630 + num)):
            nothing = np.zeros_like(mask)
            save(root / "data" / part / "img" / f"{index}{num}.jpg", image)
            save(root / "data" / part / "mask" / f"{index}{num}.png", np.dstack([mask, nothing, nothing]))
    text(root / "data" / "category.txt", ["id\tname", "1\trice", "2\teels", "3\tpilaf", "4\tsushi"])
