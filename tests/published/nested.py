"""Sets of many places, books or products, each with folders of its own for splits and kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scenes import field, lesion, objects, polyp, roads, street

from published.registry import VOC_COLORS, binary, colored, hexes, pairs, published, rim, save, text, unsupported


@published({"train": 18, "test": 9}, "index", range(6), masks="/masks/")
def sites_with_splits(root: Path) -> None:
    """`north/train/images`, `north/test/masks`: splits in a folder for each place."""
    for number, site in enumerate(("north", "south", "west")):
        for part, num in (("train", 6), ("test", 3)):
            for index, (image, mask) in enumerate(pairs(street, num, seed=980 + 10 * number + num)):
                save(root / site / part / "images" / f"{index}.jpg", image)
                save(root / site / part / "masks" / f"{index}.png", mask)


@published({"train": 16, "test": 6}, "rgb", hexes(VOC_COLORS[:4]), masks="/annos/masks/")
def trails(root: Path) -> None:
    """CaT: a folder for each place, then splits, and each mask as numbers and in colours."""
    for number, place in enumerate(("Brown_Field", "Main_Trail")):
        for part, num in (("Train", 8), ("Test", 3)):
            for index, (image, mask) in enumerate(pairs(street, num, seed=390 + 10 * number + num)):
                base, name = root / "CAT" / place / part, f"img_{number}{num}{index * 7:05d}.png"
                save(base / "imgs" / name, image)
                save(base / "annos" / "int_maps" / name, np.minimum(mask, 3))
                save(base / "annos" / "masks" / name, colored(np.minimum(mask, 3), VOC_COLORS))


@published({"train": 12, "val": 6, "test": 6}, "rgb", ["#000001", "#000002", "#000004", "#000008"], masks="-gt/")
def diva_hisdb(root: Path) -> None:
    """DIVA-HisDB: `CB55/img/training`, `CB55/pixel-level-gt/training`; classes as bits of the blue channel."""
    for number, book in enumerate(("CB55", "CSG18")):
        for part, num in (("training", 6), ("validation", 3), ("public-test", 3)):
            for index, (image, mask) in enumerate(pairs(objects(3, least=4), num, seed=1100 + 20 * number + len(part))):
                stem, nothing = f"e-codices_{book}_{len(part)}{index:03d}_max", np.zeros_like(mask)
                save(root / book / "img" / part / f"{stem}.jpg", image)
                bits = np.dstack([nothing, nothing, np.array([1, 2, 4, 8], np.uint8)[mask]])
                save(root / book / "pixel-level-gt" / part / f"{stem}.png", bits)


@published(30, "index", [0, 255], images="/test/", masks="/ground_truth/", warns="without a mask")
def mvtec_of_all_products(root: Path) -> None:
    """MVTec AD as a whole: fifteen products, of each more pictures of good ones than of any defect."""
    for number in range(15):
        base = root / f"product_{'abcdefghijklmno'[number]}"
        for index, (image, mask) in enumerate(pairs(lesion, 8, seed=1200 + number, size=(40, 48))):
            kind = "good" if index > 1 else f"flaw_{'xyz'[number % 3]}"
            save(base / ("train" if index > 2 else "test") / kind / f"{index:03d}.png", image)
            if index < 2:
                save(base / "ground_truth" / kind / f"{index:03d}_mask.png", binary(mask))


@published(16, "index", [0, 1, 2], images="/rgb/", masks="/iMapCleaned/")
def sugar_beets(root: Path) -> None:
    """Sugar beets: colour beside near infrared, indices beside colours, all of one name."""
    for index, (image, mask) in enumerate(pairs(field, 16, seed=1300)):
        base, stem = root / "CKA_160421", f"bonirob_2016-04-21-14-47-18_2_frame{7 * index}"
        save(base / "images" / "nir" / f"{stem}.png", image[..., 0])
        save(base / "images" / "rgb" / f"{stem}.png", image)
        save(base / "annotations" / "dlp" / "colorCleaned" / f"{stem}.png", colored(mask, VOC_COLORS))
        save(base / "annotations" / "dlp" / "iMapCleaned" / f"{stem}.png", mask)


@published(14, "index", [0, 1, 2], masks="_semantic.png", images=".jpg")
def segments(root: Path) -> None:
    """Segments.ai: ids, classes and colours beside each image, whose names begin alike."""
    for index, (image, mask) in enumerate(pairs(objects(2, least=2), 14, seed=1320)):
        ids = np.where(mask > 0, mask + 10 * np.uint8(index), 0).astype(np.uint16)
        save(root / f"p{index}.jpg", image)
        save(root / f"p{index}_label_ground-truth.png", ids)
        save(root / f"p{index}_label_ground-truth_semantic.png", mask)
        save(root / f"p{index}_label_ground-truth_colored.png", colored(rim(mask, 3), VOC_COLORS))


@published(24, "threshold", [0, 255], images="/images_C", masks="/masks_C")
def polypgen(root: Path) -> None:
    """PolypGen: a folder for each hospital, and its number in the names of all folders."""
    for number in range(1, 5):
        base = root / "PolypGen" / f"data_C{number}"
        for index, (image, mask) in enumerate(pairs(polyp, 6, seed=1330 + number)):
            save(base / f"images_C{number}" / f"{number}0{index}.jpg", image)
            save(base / f"masks_C{number}" / f"{number}0{index}_mask.jpg", binary(mask))


@published({"train": 12, "val": 4}, "index", [0, 1], masks="laneseg_label_w16/")
def culane(root: Path) -> None:
    """CULane: folders of drives, whose names have a word for images, within the masks too; lists with a first slash."""
    rows = []
    for number in (23, 37):
        for index, (image, mask) in enumerate(pairs(roads, 8, seed=1340 + number)):
            frame = f"driver_{number}_30frame/0515164{number}_0419.MP4/{30 * index:05d}"
            save(root / f"{frame}.jpg", image)
            save(root / "laneseg_label_w16" / f"{frame}.png", mask)
            rows.append(f"/{frame}.jpg /laneseg_label_w16/{frame}.png 1 1 1 0")
    text(root / "list" / "train_gt.txt", rows[:12])
    text(root / "list" / "val_gt.txt", rows[12:])


@unsupported("several masks, one for each part")
def palm(root: Path) -> None:
    """PALM: masks of two kinds of lesions, the second in some images only."""
    for index, (image, mask) in enumerate(pairs(objects(2, least=3), 8, seed=1350)):
        save(root / "PALM-Training400" / f"P{index:04d}.jpg", image)
        lesions = root / "PALM-Training400-Annotation-Lession" / "Lesion_Masks"
        save(lesions / "Atrophy" / f"P{index:04d}.bmp", binary(mask == 1))
        if index % 2:
            save(lesions / "Detachment" / f"P{index:04d}.bmp", binary(mask == 2))
