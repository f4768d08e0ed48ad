"""Aerial and satellite pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scenes import (
    aerial,
    drive_along,
    objects,
    roads,
    skyline,
    soft,
)

from published.registry import (
    SIZE,
    binary,
    colored,
    hexes,
    pairs,
    published,
    rim,
    save,
    text,
    with_palette,
)


@published(24, "rgb", ["#000000", "#ffffff"])
def deepglobe_roads(root: Path) -> None:
    """DeepGlobe roads: `1_sat.jpg` and `1_mask.png` in one folder; `valid` and `test` without masks; metadata.csv."""
    rows = ["image_id,split,sat_image_path,mask_path"]
    for part, num in (("train", 24), ("valid", 5), ("test", 4)):
        for index, (image, mask) in enumerate(pairs(roads, num, seed=27 + len(part), size=(64, 64))):
            number = 100034 + index * 7 + num * 1000
            save(root / part / f"{number}_sat.jpg", image)
            if part == "train":
                save(root / part / f"{number}_mask.png", np.repeat(binary(mask)[..., None], 3, -1))
            rows.append(f"{number},{part},{part}/{number}_sat.jpg,{f'{part}/{number}_mask.png' * (part == 'train')}")
    text(root / "metadata.csv", rows)
    text(root / "class_dict.csv", ["name,r,g,b", "road,255,255,255", "background,0,0,0"])


DUBAI = [("Land (unpaved area)", (132, 41, 246)), ("Building", (60, 16, 152)), ("Road", (110, 193, 228)),
         ("Water", (226, 169, 41)), ("Vegetation", (254, 221, 58)), ("Unlabeled", (155, 155, 155))]  # fmt: skip


@published(
    32,
    "rgb",
    hexes(color for name, color in DUBAI[:5]),
    ignore=["#9b9b9b"],
    names=[name for name, _ in DUBAI[:5]],
)
def dubai_aerial(root: Path) -> None:
    """Dubai tiles: `Tile 1/images`, RGB masks mixed with palette PNGs of many palettes, `classes.json`."""
    base = root / "Semantic segmentation dataset"
    colors = [color for _, color in DUBAI]
    for tile in range(1, 5):
        size = (64 + 8 * tile, 80 + 4 * tile)
        for index, (image, mask) in enumerate(pairs(aerial, 8, seed=200 + tile, size=size), 1):
            mask = rim(mask, 5)
            save(base / f"Tile {tile}" / "images" / f"image_part_{index:03d}.jpg", image)
            path = base / f"Tile {tile}" / "masks" / f"image_part_{index:03d}.png"
            if index % 4:
                save(path, colored(mask, colors))
            else:
                order = np.random.default_rng(tile).permutation(6)
                save(path, with_palette(np.argsort(order)[mask], [colors[place] for place in order]))
    rows = [
        {"title": name, "shape": "polygon", "color": code.upper()}
        for (name, _), code in zip(DUBAI, hexes(colors), strict=True)
    ]
    text(base / "classes.json", json.dumps({"classes": rows}))


UAVID = [(0, 0, 0), (128, 0, 0), (128, 64, 128), (0, 128, 0), (128, 128, 0)]


@published({"train": 18, "val": 8}, "rgb", hexes(UAVID))
def uavid(root: Path) -> None:
    """UAVid: `uavid_train/seq1/Images`, `Labels`; the same numbers in each sequence; the test has no labels."""
    frames = drive_along(aerial)
    for part, first, num in (("train", 1, 3), ("val", 16, 2), ("test", 21, 1)):
        for sequence in range(first, first + num):
            count = 6 if part == "train" else 4
            for index, (image, mask) in enumerate(frames(np.random.default_rng([31, sequence]), SIZE, count)):
                base = root / f"uavid_{part}" / f"seq{sequence}"
                save(base / "Images" / f"{index * 100:06d}.png", image)
                if part != "test":
                    save(base / "Labels" / f"{index * 100:06d}.png", colored(mask, UAVID))


@published({"train": 20, "val": 10}, "index", [0, 1, 2, 3, 4, 5])
def loveda(root: Path) -> None:
    """LoveDA: `Train/Rural/images_png`, `masks_png`; 0 is no data; test images alone."""
    for part, num in (("Train", 10), ("Val", 5), ("Test", 3)):
        for place, number in (("Rural", 0), ("Urban", 1000)):
            for index, (image, mask) in enumerate(pairs(aerial, num, seed=300 + num + number, size=(64, 64)), number):
                stem = f"{index + num * 100}"
                save(root / part / place / "images_png" / f"{stem}.png", image)
                stored = mask + 1
                if index % 5 == 0:
                    stored[:4] = 0
                if part != "Test":
                    save(root / part / place / "masks_png" / f"{stem}.png", stored)


POTSDAM = [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0)]


@published(12, "rgb", hexes(POTSDAM))
def potsdam(root: Path) -> None:
    """ISPRS Potsdam: `2_Ortho_RGB/…_RGB.tif`, `5_Labels_all/…_label.tif`."""
    for index, (image, mask) in enumerate(pairs(aerial, 12, seed=32, size=(160, 160))):
        stem = f"top_potsdam_{index // 4 + 2}_{index % 4 + 10}"
        save(root / "2_Ortho_RGB" / f"{stem}_RGB.tif", image)
        text(root / "2_Ortho_RGB" / f"{stem}_RGB.tfw", "0.05\n")
        save(root / "5_Labels_all" / f"{stem}_label.tif", colored(mask, POTSDAM))


@published(24, "threshold", [0, 255], warns="JPEG")
def water_bodies(root: Path) -> None:
    """Satellite water bodies: JPEG masks in grey, many sizes."""
    for index in range(24):
        rng = np.random.default_rng([34, index])
        image, mask = aerial(rng, (int(rng.integers(50, 90)), int(rng.integers(50, 120))))
        mask[5:20, 5:40] = 3
        image[5:20, 5:40] = (40, 70, 130)
        save(root / "Water Bodies Dataset" / "Images" / f"water_body_{index}.jpg", image)
        save(root / "Water Bodies Dataset" / "Masks" / f"water_body_{index}.jpg", binary(mask == 3))


@published(24, "index", [0, 1, 2, 3, 4], masks="label_images_semantic",
           names=["paved-area", "dirt", "grass", "gravel", "water"])  # fmt: skip
def semantic_drone(root: Path) -> None:
    """Semantic drone: the classes' numbers and their colours as two folders of masks, names with colours."""
    base = root / "dataset" / "semantic_drone_dataset"
    colors = [(128, 64, 128), (130, 76, 0), (0, 102, 0), (112, 103, 87), (28, 42, 168)]
    for index, (image, mask) in enumerate(pairs(aerial, 24, seed=35)):
        save(base / "original_images" / f"{index:03d}.jpg", image)
        save(base / "label_images_semantic" / f"{index:03d}.png", mask)
        again = root / "RGB_color_image_masks" / "RGB_color_image_masks" / f"{index:03d}.png"
        save(again, colored(mask, colors))
    names = ["paved-area", "dirt", "grass", "gravel", "water"]
    rows = [f"{name}, {r}, {g}, {b}" for name, (r, g, b) in zip(names, colors, strict=True)]
    text(root / "class_dict_seg.csv", ["name, r, g, b", *rows])


@published(16, "threshold", [0, 255])
def flood_area(root: Path) -> None:
    """Flood area: `Image/0.jpg`, `Mask/0.png` with soft edges, `metadata.csv` of both."""
    for index, (image, mask) in enumerate(pairs(skyline, 16, seed=37)):
        save(root / "Image" / f"{index}.jpg", image)
        save(root / "Mask" / f"{index}.png", soft(1 - mask))
    text(root / "metadata.csv", ["Image,Mask", *(f"{index}.jpg,{index}.png" for index in range(16))])


VAIHINGEN = [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0)]


@published(14, "rgb", hexes(VAIHINGEN), masks="gts_for_participants")
def vaihingen(root: Path) -> None:
    """ISPRS Vaihingen: the truth, and beside it the truth without borders, whose name says more of truth."""
    for index, (image, mask) in enumerate(pairs(aerial, 14, seed=930), 1):
        stem = f"top_mosaic_09cm_area{index}"
        save(root / "top" / f"{stem}.tif", image)
        save(root / "gts_for_participants" / f"{stem}.tif", colored(mask, VAIHINGEN))
        eroded = root / "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE"
        save(eroded / f"{stem}_noBoundary.tif", colored(rim(mask, 5), [*VAIHINGEN, (0, 0, 0)]))


@published(24, "index", [0, 1, 2, 3], apart=r"_([0-9]{8})_p")
def xview2(root: Path) -> None:
    """xView2: each place before and after, with masks of its own, which no split may part; outlines beside them."""
    for index, (image, mask) in enumerate(pairs(aerial, 12, seed=1640)):
        light = (0.8 * image.astype(float) + 12 * (index % 3)).astype(np.uint8)
        for when, picture, damage in (("pre", image, 1), ("post", light, 1 + index % 3)):
            stem = f"guatemala-volcano_{index:08d}_{when}_disaster"
            save(root / "train" / "images" / f"{stem}.png", picture)
            save(root / "train" / "targets" / f"{stem}_target.png", (mask == 1) * np.uint8(damage))
            text(root / "train" / "labels" / f"{stem}.json", '{"features": {"xy": []}}')


@published({"train": 20, "val": 6, "test": 6}, "index", [0, 64, 127, 254], images="sar_images", masks="zones")
def glaciers(root: Path) -> None:
    """CaFFe's patches: the kind of mask stands in the midst of names, of two kinds in folders of no such word."""
    for part, num in (("train", 20), ("val", 6), ("test", 6)):
        for index, (image, mask) in enumerate(pairs(objects(3, least=3), num, seed=1710 + num + len(part))):
            stem = (
                f"{('Crane', 'DBE', 'SI')[index % 3]}_20{10 + index // 3}-11-09_ERS_20_2_{num + len(part)}{index:02d}"
            )
            place = f"{('NE', 'SW')[index % 2]}_{index % 4}_0_{index * 3}.png"
            save(root / "caffe" / "sar_images" / part / f"{stem}_{place}", image.mean(-1).astype(np.uint8))
            zones = np.array([0, 64, 127, 254], np.uint8)[mask]
            save(root / "caffe" / "zones" / part / f"{stem}_zones_{place}", zones)
            save(root / "caffe" / "fronts" / part / f"{stem}_front_{place}", binary(rim(mask, 9) == 9))
