"""Sets whose images or masks are spread over several folders, which are not the same on both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scenes import aerial, drive_along, lesion, nuclei, objects, portrait, street

from published.registry import SIZE, VOC_COLORS, binary, colored, pairs, published, save, with_palette


@published(24, "index", [0, 255], masks="tschandl/")
def ham10000(root: Path) -> None:
    """HAM10000: images in two parts, all masks in one folder that was packed within itself."""
    around = "HAM10000_segmentations_lesion_tschandl"
    for index, (image, mask) in enumerate(pairs(lesion, 24, seed=1500)):
        stem = f"ISIC_00{24306 + index}"
        save(root / f"HAM10000_images_part_{1 + index // 12}" / f"{stem}.jpg", image)
        save(root / around / around / f"{stem}_segmentation.png", binary(mask))


@published(24, "index", [0, 255])
def masks_sorted_otherwise(root: Path) -> None:
    """Images by the day they were taken, masks by who drew them: names alone meet."""
    for index, (image, mask) in enumerate(pairs(lesion, 24, seed=1501)):
        save(root / "images" / f"day_{index // 8}" / f"IMG_{index:04d}.jpg", image)
        save(root / "masks" / "abc"[index % 3] / f"IMG_{index:04d}.png", binary(mask))


@published({"train": 16, "val": 8}, "index", [0, 255])
def images_alone_in_splits(root: Path) -> None:
    """`images/train`, `images/val`, and all masks in one folder."""
    for index, (image, mask) in enumerate(pairs(lesion, 24, seed=1502)):
        save(root / "images" / ("train" if index < 16 else "val") / f"IMG_{index:04d}.jpg", image)
        save(root / "masks" / f"IMG_{index:04d}.png", binary(mask))


@published(24, "index", [0, 255])
def two_parts(root: Path) -> None:
    """`images_1` and `masks_1`, `images_2` and `masks_2`."""
    for index, (image, mask) in enumerate(pairs(lesion, 24, seed=1503)):
        part = 1 + index // 12
        save(root / f"images_{part}" / f"IMG_{index:04d}.jpg", image)
        save(root / f"masks_{part}" / f"IMG_{index:04d}.png", binary(mask))


@published(24, "index", range(6), images="/data_rect/", masks="/semantic/")
def kitti_360(root: Path) -> None:
    """KITTI-360: `data_rect` and four kinds of masks below drives and cameras, and masks of a part of one camera."""
    for number in range(3):
        seq = f"2013_05_28_drive_{number:04d}_sync"
        frames = drive_along(street)(np.random.default_rng([1504, number]), SIZE, 10)
        for index, (image, mask) in enumerate(frames):
            name = f"{index:010d}.png"
            save(root / "data_2d_raw" / seq / "image_00" / "data_rect" / name, image)
            save(root / "data_2d_raw" / seq / "image_01" / "data_rect" / name, np.roll(image, 9, 1))
            truth = root / "data_2d_semantics" / "train" / seq / "image_00"
            if index > 1:
                save(truth / "semantic" / name, mask)
                save(truth / "semantic_rgb" / name, colored(mask, VOC_COLORS))
                save(truth / "instance" / name, mask.astype(np.uint16) * np.uint16(1000))
                save(truth / "confidence" / name, mask.astype(np.uint16) * np.uint16(7000))


@published(18, "index", range(5), images="/BDORTHO/", masks="/UrbanAtlas/")
def dfc2022(root: Path) -> None:
    """DFC2022: labels of some cities, in folders whose names say nothing."""
    for number, city in enumerate(("Nantes", "Nice", "Calais", "Lorient", "Marseille")):
        part = "labeled_train" if number < 2 else "unlabeled_train" if number < 4 else "val"
        for index, (image, mask) in enumerate(pairs(aerial, 9 if number < 2 else 4, seed=1505 + number)):
            stem = f"{44 + number}-2013-{index:04d}-LA93"
            save(root / part / city / "BDORTHO" / f"{stem}.tif", image)
            save(root / part / city / "RGEALTI" / f"{stem}_RGEALTI.tif", image[..., 0])
            if number < 2:
                save(root / part / city / "UrbanAtlas" / f"{stem}_UA2012.tif", mask)


@published({"train": 14, "val": 5}, "index", [0, "1..65535"], images="/im/")
def mitoem(root: Path) -> None:
    """MitoEM: `im`, and ids in folders of two splits; no name of a folder says masks."""
    scene = drive_along(lambda rng, size: nuclei(rng, size, num=160))
    for index, (image, mask) in enumerate(scene(np.random.default_rng(1510), SIZE, 24)):
        save(root / "EM30-R-im" / "im" / f"im{index:04d}.png", image[..., 0])
        split = "train" if index < 14 else "val"
        if index < 19:
            ids = mask.astype(np.uint16) * np.uint16(13)
            save(root / "EM30-R-mito-train-val-v2" / f"mito-{split}-v2" / f"seg{index:04d}.tif", ids)


@published(18, "index", [0, 255])
def segtrack(root: Path) -> None:
    """SegTrack v2: a mask for each object where there are two, in folders `1` and `2` further down."""
    for number, name in enumerate(("bmx", "frog", "girl", "worm")):
        frames = drive_along(objects(2, least=4))(np.random.default_rng([1511, number]), SIZE, 6)
        for index, (image, mask) in enumerate(frames):
            save(root / "JPEGImages" / name / f"{name}_{index:05d}.png", image)
            for value, folder in ((1, "1"), (2, "2")) if name == "bmx" else ((None, ""),):
                drawn = binary(mask if value is None else mask == value)
                save(root / "GroundTruth" / name / folder / f"{name}_{index:05d}.png", drawn)


@published(18, "index", [0, 255], images="/Pratheepan_Dataset/", masks="/Ground_Truth/GroundT_")
def skin(root: Path) -> None:
    """Pratheepan: the folders of the truth bear the names of those of images, which say photo."""
    for kind, num in (("FacePhoto", 10), ("FamilyPhoto", 8)):
        for index, (image, mask) in enumerate(pairs(portrait, num, seed=1513 + num)):
            save(root / "Pratheepan_Dataset" / kind / f"{kind[3]}{index * 37:03d}.jpg", image)
            save(root / "Ground_Truth" / f"GroundT_{kind}" / f"{kind[3]}{index * 37:03d}.png", binary(mask))


@published(20, "index", [0, 255], images="/natural/", masks="train_gt")
def cloud_channels(root: Path) -> None:
    """38-Cloud: a folder for each channel, and one in colour."""
    for index, (image, mask) in enumerate(pairs(objects(1, least=2), 20, seed=1512)):
        base, stem = root / "38-Cloud_training", f"patch_{index}_1_by_{index % 5}_LC08_0{2 + index // 10}053"
        for channel, name in enumerate(("red", "green", "blue")):
            save(base / f"train_{name}" / f"{name}_{stem}.TIF", image[..., channel].astype(np.uint16) * np.uint16(180))
        save(base / "natural" / f"{stem}.png", image)
        save(base / "train_gt" / f"gt_{stem}.TIF", binary(mask))


@published({"train": 12, "test": 6}, "index", [0, 255])
def partitioned(root: Path) -> None:
    """RIM-ONE DL: `training_set` and `test_set` of images, all masks in folders by diagnosis."""
    for index, (image, mask) in enumerate(pairs(lesion, 18, seed=1520)):
        part, kind = ("training_set", "test_set")[index % 3 == 2], ("glaucoma", "normal")[index % 2]
        save(root / "images" / "partitioned_randomly" / part / kind / f"r1_Im{index // 2:03d}.png", image)
        save(root / "reference_segmentations" / kind / f"r1_Im{index // 2:03d}-1-Disc-T.png", binary(mask))


@published(18, "index", range(6), images="_images/images/", masks="_labels/labels/")
def gta5(root: Path) -> None:
    """GTA5: archives of parts, each of images or of labels, numbered through."""
    for index, (image, mask) in enumerate(pairs(street, 18, seed=1530), 1):
        part = f"{1 + index // 10:02d}"
        save(root / f"{part}_images" / "images" / f"{index:05d}.png", image)
        save(root / f"{part}_labels" / "labels" / f"{index:05d}.png", with_palette(mask, VOC_COLORS))


@published(24, "rgb", ["#0000ff", "#00ff00", "#ff0000"], images="_images/", masks="_masks/")
def kits(root: Path) -> None:
    """A set that a team keeps by product: `kit/kit_images` and `kit/kit_masks`, the same names in each."""
    for number, kit in enumerate(("aconag", "flowflex", "sdbio")):
        for index, (image, mask) in enumerate(pairs(objects(2, least=2), 8, seed=1750 + number)):
            save(root / kit / f"{kit}_images" / f"IMG_0{254 + index}.jpg", image)
            colors = [(0, 0, 255), (255, 0, 0), (0, 255, 0)]
            save(root / kit / f"{kit}_masks" / f"IMG_0{254 + index}.png", colored(mask, colors))
