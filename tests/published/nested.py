"""Sets of many places, books or products, each with folders of its own for splits and kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scenes import crack, field, lesion, objects, polyp, roads, street

from published.registry import (
    VOC_COLORS,
    binary,
    colored,
    hexes,
    pairs,
    published,
    rim,
    save,
    text,
    unsupported,
    with_palette,
)


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


@published(24, "index", range(6), images="/color_left/", masks="/segmentation/", apart="(trajectory_[0-9]+)")
def mid_air(root: Path) -> None:
    """Mid-Air: the left camera, which a word for colours tells, beside the right one, depth and normals."""
    for number in range(4):
        for index, (image, mask) in enumerate(pairs(street, 6, seed=1360 + number)):
            folder = f"trajectory_300{number}"
            for kind, shown in (("color_left", image), ("color_right", image[:, ::-1]), ("normals", image[::-1])):
                save(root / "Kite" / "cloudy" / kind / folder / f"{25 * index:06d}.png", np.ascontiguousarray(shown))
            save(root / "Kite" / "cloudy" / "segmentation" / folder / f"{25 * index:06d}.png", mask)
            depth = image[..., 0].astype(np.uint16) * 20 + 300
            save(root / "Kite" / "cloudy" / "depth" / folder / f"{25 * index:06d}.png", depth)


@published(24, "index", [0, 1, 2, 3], images="rgba_", masks="segmentation_", apart="^([0-9]+)/")
def kubric(root: Path) -> None:
    """Kubric: a folder for each film, `rgba_00000.png` among many other kinds of pictures."""
    for number in range(4):
        for index, (image, mask) in enumerate(pairs(objects(3, least=3), 6, seed=1370 + number)):
            base, opaque = root / str(number), np.full(mask.shape, 255, np.uint8)
            save(base / f"rgba_{index:05d}.png", np.dstack([image, opaque]))
            save(base / f"segmentation_{index:05d}.png", with_palette(mask, VOC_COLORS))
            save(base / f"normal_{index:05d}.png", image[::-1])
            save(base / f"forward_flow_{index:05d}.png", image[:, ::-1])
            save(base / f"object_coordinates_{index:05d}.png", image[::-1, ::-1])
            save(base / f"depth_{index:05d}.tiff", image[..., 0].astype(np.uint16) * 20)
        text(base / "metadata.json", "{}")


@published(24, "index", [0, 255], images="/rgb-imgs/", masks="/segmentation-masks/")
def clear_grasp(root: Path) -> None:
    """ClearGrasp: a folder for each object, all of them for training."""
    for number, name in enumerate(("cup-with-waves", "flower-bath-bomb", "heart-bath-bomb")):
        base = root / "cleargrasp-dataset-train" / f"{name}-train"
        for index, (image, mask) in enumerate(pairs(objects(1), 8, seed=1380 + number)):
            save(base / "rgb-imgs" / f"{index:09d}-rgb.jpg", image)
            save(base / "segmentation-masks" / f"{index:09d}-segmentation-mask.png", binary(mask))
            save(base / "outlines" / f"{index:09d}-outlineSegmentation.png", binary(rim(mask, 9) == 9))
            text(base / "json-files" / f"{index:09d}-masks.json", "{}")


@published(18, "index", [0, 255], images="/rgb/", masks="/gt/")
def mvtec_3d(root: Path) -> None:
    """MVTec 3D AD: places of points beside colours; masks lie in the test alone."""
    for number, product in enumerate(("bagel", "cable_gland")):
        for part, place in enumerate(("train/good", "validation/good", "test/good", "test/crack", "test/hole")):
            base = root / "mvtec_3d_anomaly_detection" / product / place
            for index, (image, mask) in enumerate(pairs(lesion, 3, seed=1390 + 10 * number + part)):
                mask = mask * np.uint8("good" not in place)
                save(base / "rgb" / f"{index:03d}.png", image)
                save(base / "xyz" / f"{index:03d}.tiff", image[..., 0].astype(np.uint16) * 20 + 300)
                if place.startswith("test"):
                    save(base / "gt" / f"{index:03d}.png", binary(mask))


@published({"train": 24, "test": 8}, "rgb", hexes(VOC_COLORS[:4]), apart="([0-9]+)$")
def corrosion(root: Path) -> None:
    """Corrosion of bridges: all pictures twice, in two sizes; folders and those within them say the split."""
    for part, num in (("Train", 12), ("Test", 4)):
        for index, (image, mask) in enumerate(pairs(objects(3), num, seed=1440 + num)):
            for size, name in (((96, 64), "original"), ((48, 48), "512x512")):
                base, end = root / "Corrosion States" / name / part, "_512" if size == (48, 48) else ""
                picture = Image.fromarray(image).resize(size)
                drawn = Image.fromarray(colored(mask, VOC_COLORS)).resize(size, Image.Resampling.NEAREST)
                save(base / f"images_{part}{end}" / f"{index + num}.jpeg", picture)
                save(base / f"masks_{part}{end}" / f"{index + num}.png", drawn)


@published({"train": 16, "val": 6}, "index", range(6), masks="/seg/")
def human36m(root: Path) -> None:
    """Human3.6M: lists whose names hold another word and a word for the split."""
    names = [f"s_{index % 5:02d}_act_02_{10 * index:06d}" for index in range(22)]
    for name, (image, mask) in zip(names, pairs(street, 22, seed=1450), strict=True):
        save(root / "protocol_1" / "rgb" / f"{name}.jpg", image)
        save(root / "protocol_1" / "seg" / f"{name}.png", mask)
    text(root / "flist_2hz_train.txt", [f"rgb/{name}.jpg" for name in names[:16]])
    text(root / "flist_2hz_eval.txt", [f"rgb/{name}.jpg" for name in names[16:]])


@published(16, "index", [0, 255], images="/images_448/")
def tunnel200(root: Path) -> None:
    """Cracks in tunnels: photographs, and smaller ones in a folder whose number the masks' folder has too."""
    for index, (image, mask) in enumerate(pairs(crack, 16, seed=1460)):
        save(root / "Tunnel200 dataset" / "images" / f"{index}.jpg", image.repeat(2, 0).repeat(2, 1))
        save(root / "Tunnel200 dataset" / "images_448" / f"{index}.png", image)
        save(root / "Tunnel200 dataset" / "masks_448" / f"{index}.png", binary(mask))


@published({"train": 14, "test": 6}, "index", range(6), images="/vis/", masks="/Segmentation_labels/")
def msrs(root: Path) -> None:
    """MSRS: visible light in `vis` beside infrared in `ir`, and the masks shown in colours."""
    for part, num in (("train", 14), ("test", 6)):
        for index, (image, mask) in enumerate(pairs(street, num, seed=1470 + num)):
            base, name = root / "MSRS" / part, f"{index + num:05d}{'DN'[index % 2]}.png"
            save(base / "vis" / name, image)
            save(base / "ir" / name, image[..., 0])
            save(base / "Segmentation_labels" / name, mask)
            save(base / "Segmentation_visualize" / name, colored(mask, VOC_COLORS))
