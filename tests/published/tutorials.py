"""Sets that come with tutorials and toolboxes, in those toolboxes' folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scenes import drive_along, membranes, objects, retina, street

from published.registry import SIZE, VOC_COLORS, binary, colored, hexes, pairs, published, rim, save, text


@published({"train": 20, "test": 8}, "index", [0, 1, 2, 3, 4, 5])
def keras_dataset1(root: Path) -> None:
    """The first set of image-segmentation-keras: `images_prepped_train`, `annotations_prepped_train`."""
    frames = drive_along(street)
    for part, num, prefix in (("train", 20, "0001TP"), ("test", 8, "0016E5")):
        for index, (image, mask) in enumerate(frames(np.random.default_rng([800, num]), SIZE, num)):
            stem = f"{prefix}_{6690 + 30 * index:06d}.png"
            save(root / "dataset1" / f"images_prepped_{part}" / stem, image)
            save(root / "dataset1" / f"annotations_prepped_{part}" / stem, mask)


@published(20, "index", [0, 255])
def unet_membrane(root: Path) -> None:
    """zhixuhao's U-Net: `train/image`, `train/label`; `test` holds images and a net's `_predict` beside each."""
    for index, (image, mask) in enumerate(pairs(membranes, 20, seed=801, size=(64, 64))):
        save(root / "membrane" / "train" / "image" / f"{index}.png", image[..., 0])
        save(root / "membrane" / "train" / "label" / f"{index}.png", binary(mask))
    for index, (image, mask) in enumerate(pairs(membranes, 6, seed=802, size=(64, 64))):
        rng = np.random.default_rng(index)
        save(root / "membrane" / "test" / f"{index}.png", image[..., 0])
        guess = mask * 215 + 20 + rng.normal(0, 9, mask.shape)
        save(root / "membrane" / "test" / f"{index}_predict.png", guess.clip(0, 255).astype(np.uint8))


@published(
    {"train": 20, "val": 8},
    "index",
    [0, 1, 2, 3, 4, 5],
    names=["Sky", "Building", "Road", "Car", "Pedestrian", "Tree"],
)
def fastai_camvid(root: Path) -> None:
    """fastai's CamVid: `images/x.png`, `labels/x_P.png`, `codes.txt` in order, `valid.txt` lists what is validated."""
    frames = drive_along(street)
    stems = []
    for prefix, num in (("0001TP", 20), ("0016E5", 8)):
        for index, (image, mask) in enumerate(frames(np.random.default_rng([803, num]), SIZE, num)):
            stem = f"{prefix}_{6690 + 30 * index:06d}"
            stems.append(stem)
            save(root / "images" / f"{stem}.png", image)
            save(root / "labels" / f"{stem}_P.png", mask)
    text(root / "codes.txt", ["Sky", "Building", "Road", "Car", "Pedestrian", "Tree", "Animal", "Archway"])
    text(root / "valid.txt", [f"{stem}.png" for stem in stems if stem.startswith("0016E5")])


@published({"train": 20, "val": 6, "test": 6}, "index", [0, 1, 2, 3, 4, 5], ignore=[11])
def segnet_camvid(root: Path) -> None:
    """SegNet's CamVid: `train`, `trainannot`; lists whose paths begin at someone else's root; 11 is unlabelled."""
    frames = drive_along(street)
    for part, num in (("train", 20), ("val", 6), ("test", 6)):
        lines = []
        for index, (image, mask) in enumerate(frames(np.random.default_rng([804, num, len(part)]), SIZE, num)):
            name = f"000{len(part)}TP_{6690 + 30 * index:06d}.png"
            save(root / part / name, image)
            save(root / f"{part}annot" / name, rim(mask, 11))
            lines.append(f"/SegNet/CamVid/{part}/{name} /SegNet/CamVid/{part}annot/{name}")
        text(root / f"{part}.txt", lines)
    rows = ["sky", "building", "road", "car", "pedestrian", "tree", "sign", "fence", "pole", "pavement", "bicyclist"]
    text(root / "class_names.txt", [*rows, "unlabelled"])


@published({"train": 14, "val": 6}, "index", [0, 1])
def stare_mmseg(root: Path) -> None:
    """STARE as mmsegmentation converts it: `images/training/im0001.png`, `annotations/training/im0001.ah.png`."""
    for part, num in (("training", 14), ("validation", 6)):
        for index, (image, mask) in enumerate(pairs(retina, num, seed=805 + num)):
            save(root / "STARE" / "images" / part / f"im{index + num * 10:04d}.png", image)
            save(root / "STARE" / "annotations" / part / f"im{index + num * 10:04d}.ah.png", mask)


@published({"train": 20, "val": 8}, "rgb", hexes(VOC_COLORS[:4]))
def pspnet_colors(root: Path) -> None:
    """A blog's own folders: `dataset/x_train`, `y_train`, `x_val`, `y_val`, RGB masks with the image's name."""
    for part, num in (("train", 20), ("val", 8)):
        for index, (image, mask) in enumerate(pairs(objects(3, least=3, most=6), num, seed=806 + num)):
            save(root / "dataset" / f"x_{part}" / f"img-{index}-{part}.png", image)
            save(root / "dataset" / f"y_{part}" / f"img-{index}-{part}.png", colored(mask, VOC_COLORS))
