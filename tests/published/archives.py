"""Archives with more in them than one set: formats, kinds of masks, tables and other sets beside what is meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scenes import aerial, drive_along, lesion, portrait, soft, street

from published.registry import SIZE, VOC_COLORS, binary, colored, pairs, published, rim, save, text, unsupported


@published({"train": 12, "val": 3, "test": 4}, "rgb", ["#000000", "#ffffff"], masks="png/", names=["rest", "building"])
def massachusetts_buildings(root: Path) -> None:
    """Massachusetts buildings of Kaggle: three splits as `png`, and the same again as `tiff`."""
    for part, num in (("train", 12), ("val", 3), ("test", 4)):
        for index, (image, mask) in enumerate(pairs(aerial, num, seed=960 + num)):
            stem = f"{22678915 + num * 1000 + index * 15}_15"
            for kind in ("png", "tiff"):
                save(root / kind / part / f"{stem}.{kind}", image)
                labels = root / kind / f"{part}_labels" / f"{stem}.{kind[:3]}"
                save(labels, colored((mask == 1) * 1, [(0,) * 3, (255,) * 3]))
    text(root / "label_class_dict.csv", ["name,r,g,b", "rest,0,0,0", "building,255,255,255"])


@published(32, "rgb", ["#323232", *(f"#{value:02x}{value:02x}{value:02x}" for value in (11, 12, 21, 22, 31))],
           masks="endo_mask", apart="(video[0-9]+)/")  # fmt: skip
def cholecseg8k(root: Path) -> None:
    """CholecSeg8k: clips of videos; three kinds of masks beside each frame, of which `_mask` alone pairs by its end."""
    for video in (1, 12, 17, 24):
        for clip in (80, 160):
            folder = root / f"video{video:02d}" / f"video{video:02d}_{clip:05d}"
            for index, (image, mask) in enumerate(drive_along(street)(np.random.default_rng([video, clip]), SIZE, 4)):
                grey = colored(mask, [(value,) * 3 for value in (50, 11, 21, 22, 31, 12)])
                save(folder / f"frame_{clip + index}_endo.png", image)
                for kind, stored in (("", grey), ("watershed_", grey + 1), ("color_", colored(mask, VOC_COLORS))):
                    save(folder / f"frame_{clip + index}_endo_{kind}mask.png", stored)


@published(12, "threshold", [0, 254], masks="/mask/")
def p3m_500(root: Path) -> None:
    """P3M-500-NP: mattes in `mask`, and their `trimap`, which is no truth where the matte is there."""
    for index, (image, mask) in enumerate(pairs(portrait, 12, seed=961)):
        folder, stem = root / "P3M-10k" / "validation" / "P3M-500-NP", f"p_{index * 7919:08x}"
        save(folder / "original_image" / f"{stem}.jpg", image)
        save(folder / "mask" / f"{stem}.png", soft(mask))
        save(folder / "trimap" / f"{stem}.png", np.where(rim(mask, 9) == 9, 128, binary(mask)).astype(np.uint8))


@published(18, "index", [0, 255])
def hc18(root: Path) -> None:
    """HC18: outlines; the table of the test images, which have no masks, names images as the training set does."""
    for index, (image, mask) in enumerate(pairs(lesion, 18, seed=962)):
        stem = f"{index // 2:03d}{'_2' if index % 2 else '_'}HC"
        save(root / "training_set" / f"{stem}.png", image[..., 0])
        save(root / "training_set" / f"{stem}_Annotation.png", binary(rim(mask, 9) == 9))
    for index, (image, _) in enumerate(pairs(lesion, 6, seed=963)):
        save(root / "test_set" / f"{index:03d}_HC.png", image[..., 0])
    for part, num in (("training_set_pixel_size_and_HC", 9), ("test_set_pixel_size", 6)):
        text(root / f"{part}.csv", ["filename,pixel size(mm)", *(f"{index:03d}_HC.png,0.069" for index in range(num))])


@published({"train": 10, "val": 4}, "index", [0, 255], masks="Foot Ulcer")
def wounds_repository(root: Path) -> None:
    """The repository of FUSeg: its test set has no labels, and another set beside it has some."""
    for name, *parts in (("Foot Ulcer Segmentation", ("train", 10), ("validation", 4), ("test", 3)),
                         ("Medetec_foot_ulcer_224", ("train", 6), ("test", 4))):  # fmt: skip
        for part, num in parts:
            for index, (image, mask) in enumerate(pairs(lesion, num, seed=len(name) + num), num * 10):
                save(root / "data" / name / part / "images" / f"{index:04d}.png", image)
                if (name[0], part) != ("F", "test"):
                    save(root / "data" / name / part / "labels" / f"{index:04d}.png", binary(mask))


@published({"train": 12, "val": 4}, "index", range(6))
def masks_of_each_split(root: Path) -> None:
    """All images in one folder, and masks in one for each split, which tells the images of it."""
    for index, (image, mask) in enumerate(pairs(street, 16, seed=964)):
        save(root / "images" / f"{index:03d}.jpg", image)
        save(root / "labels" / ("train" if index < 12 else "val") / f"{index:03d}.png", mask)


@unsupported("several masks of one image, a mask for each class")
def helen(root: Path) -> None:
    """HELEN of SmithCVPR2013: for each image a folder of its name, with a mask for each part of the face."""
    for index, (image, mask) in enumerate(pairs(portrait, 4, seed=965)):
        save(root / "images" / f"10003254{index}_1.jpg", image)
        for part in range(2):
            name = f"10003254{index}_1"
            save(root / "labels" / name / f"{name}_lbl{part:02d}.png", binary(mask == part))
