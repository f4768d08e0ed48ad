"""As tools of annotation hand them out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scenes import (
    objects,
)

from published.registry import (
    VOC_COLORS,
    colored,
    hexes,
    pairs,
    published,
    save,
    text,
    unsupported,
    with_palette,
)


@published(
    16,
    "rgb",
    hexes([(0, 0, 0), (250, 50, 83), (51, 221, 255)]),
    names=["background", "cat", "dog"],
    masks="SegmentationClass/",
)
def cvat_export(root: Path) -> None:
    """CVAT `Segmentation mask 1.1`: `labelmap.txt`, RGB masks, a list, objects beside them."""
    colors = [(0, 0, 0), (250, 50, 83), (51, 221, 255)]
    for index, (image, mask) in enumerate(pairs(objects(2), 16, seed=23)):
        save(root / "JPEGImages" / f"frame_{index:06d}.jpg", image)
        save(root / "SegmentationClass" / f"frame_{index:06d}.png", colored(mask, colors))
        save(root / "SegmentationObject" / f"frame_{index:06d}.png", colored((mask > 0) * 1, colors))
    text(root / "ImageSets" / "Segmentation" / "default.txt", [f"frame_{index:06d}" for index in range(16)])
    rows = ["# label:color_rgb:parts:actions", "background:0,0,0::", "cat:250,50,83::", "dog:51,221,255::"]
    text(root / "labelmap.txt", rows)


@published({"train": 16, "val": 6, "test": 4}, "index", [0, 1, 2], names=["background", "leaf", "rust"])
def roboflow(root: Path) -> None:
    """Roboflow semantic masks: `train`, `valid`, `test`, hashes in names, `_mask`, `_classes.csv`."""
    for part, num in (("train", 16), ("valid", 6), ("test", 4)):
        for index, (image, mask) in enumerate(pairs(objects(2, most=5), num, seed=24 + num)):
            stem = f"IMG_{index + num * 10}_JPG.rf.{index * 104729 + num:032x}"
            save(root / part / f"{stem}.jpg", image)
            save(root / part / f"{stem}_mask.png", mask)
        text(root / part / "_classes.csv", ["Pixel Value, Class", "0, background", "1, leaf", "2, rust"])
    text(root / "README.dataset.txt", "leaves > 2023-03-01\n")
    text(root / "README.roboflow.txt", "exported via roboflow\n")


@published(16, "index", range(4), names=["background", "building", "road", "water"])
def arcgis(root: Path) -> None:
    """ArcGIS's training data: world files beside all, `map.txt` with backslashes, classes from 1 on in an `.emd`."""
    rows = []
    for index, (image, mask) in enumerate(pairs(objects(3, least=3), 16, seed=34)):
        for kind, picture in (("images", image), ("labels", mask)):
            save(root / kind / f"{index:012d}.tif", picture)
            text(root / kind / f"{index:012d}.tfw", ["0.3"] * 6)
        rows.append(f"images\\{index:012d}.tif  labels\\{index:012d}.tif")
    text(root / "map.txt", rows)
    names = [(1, "building", [255, 0, 0]), (2, "road", [0, 255, 0]), (3, "water", [0, 0, 255])]
    classes = [{"Value": value, "Name": name, "Color": color} for value, name, color in names]
    text(root / "esri_model_definition.emd", json.dumps({"Framework": "PyTorch", "Classes": classes}))


@unsupported(r"are masks both, of two kinds, and their images are not here")
def cvat_export_without_images(root: Path) -> None:
    """The same where nobody asked CVAT for the images: classes and objects alone."""
    for index, (_, mask) in enumerate(pairs(objects(2), 8, seed=29)):
        save(root / "SegmentationClass" / f"frame_{index:06d}.png", colored(mask, VOC_COLORS))
        save(root / "SegmentationObject" / f"frame_{index:06d}.png", colored((mask > 0) * 2, VOC_COLORS))
    text(root / "ImageSets" / "Segmentation" / "default.txt", [f"frame_{index:06d}" for index in range(8)])


@published(16, "index", [0, 1, 2], names=["background", "cat", "dog"], masks="SegmentationClassPNG")
def labelme_voc(root: Path) -> None:
    """labelme's VOC export: arrays, palette masks and visualisations in folders beside each other."""
    base = root / "data_dataset_voc"
    for index, (image, mask) in enumerate(pairs(objects(2), 16, seed=25)):
        stem = f"2011_{index:06d}"
        save(base / "JPEGImages" / f"{stem}.jpg", image)
        save(base / "SegmentationClassPNG" / f"{stem}.png", with_palette(mask, VOC_COLORS))
        save(base / "SegmentationObjectPNG" / f"{stem}.png", with_palette((mask > 0) * 1, VOC_COLORS))
        save(base / "SegmentationClassVisualization" / f"{stem}.jpg", image // 2 + colored(mask, VOC_COLORS) // 2)
        save(base / "SegmentationObjectVisualization" / f"{stem}.jpg", image // 2 + colored(mask, VOC_COLORS) // 2)
        (base / "SegmentationClass").mkdir(exist_ok=True)
        np.save(base / "SegmentationClass" / f"{stem}.npy", mask)
    text(base / "class_names.txt", ["_background_", "cat", "dog"])


@published(16, "rgb", hexes([(0, 0, 0), (255, 77, 77), (77, 148, 255)]), masks="masks_machine")
def supervisely(root: Path) -> None:
    """Supervisely `images with masks`: `ds0/img`, `ann` JSON, `masks_machine`, `masks_human`, `meta.json`."""
    base = root / "project" / "ds0"
    colors = [(0, 0, 0), (255, 77, 77), (77, 148, 255)]
    for index, (image, mask) in enumerate(pairs(objects(2), 16, seed=26)):
        save(base / "img" / f"photo {index}.jpg", image)
        text(base / "ann" / f"photo {index}.jpg.json", json.dumps({"size": {"height": 64}, "objects": []}))
        save(base / "masks_machine" / f"photo {index}.png", colored(mask, colors))
        save(base / "masks_human" / f"photo {index}.png", image // 2 + colored(mask, colors) // 2)
    classes = [
        {"title": "car", "shape": "bitmap", "color": "#FF4D4D"},
        {"title": "bike", "shape": "bitmap", "color": "#4D94FF"},
    ]
    text(root / "project" / "meta.json", json.dumps({"classes": classes, "tags": []}))
