"""Scans, microscopes and documents, with their own habits of values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scenes import Pair, Rng, Size, field, ground, lesion, membranes, nuclei, objects, retina, roads, texture

from published.registry import VOC_COLORS, binary, pairs, published, save, text, with_palette


@published({"train": 16, "val": 6}, "index", [0, 128, 255])
def refuge(root: Path) -> None:
    """REFUGE: BMP masks of 0 for the cup, 128 for the disc and 255 for what lies around: 255 is no void."""
    for part, num in (("Training400", 16), ("Validation400", 6)):
        for index, (image, _) in enumerate(pairs(retina, num, seed=822 + num)):
            rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
            distance = np.hypot(rows - 32, columns - 40 - index)
            mask = np.where(distance < 4, 0, np.where(distance < 8, 128, 255)).astype(np.uint8)
            image[distance < 8], image[distance < 4] = (240, 190, 110), (255, 240, 190)
            save(root / f"REFUGE-{part}" / "Images" / f"{part[0].lower()}{index:04d}.jpg", image)
            save(root / f"REFUGE-{part}" / "Masks" / f"{part[0].lower()}{index:04d}.bmp", mask)


@published(30, "index", [0, 65535])
def tgs_salt(root: Path) -> None:
    """TGS salt: 101x101, masks of 16 bits with 0 and 65535, a third of them blank; `depths.csv`."""
    for index, (image, mask) in enumerate(pairs(lesion, 30, seed=825, size=(101, 101))):
        stem = f"{index * 7919:010x}"
        save(root / "train" / "images" / f"{stem}.png", image)
        save(root / "train" / "masks" / f"{stem}.png", (mask * (index % 3 > 0)).astype(np.uint16) * np.uint16(65535))
    text(root / "train.csv", ["id,rle_mask", *(f"{index * 7919:010x},1 1" for index in range(30))])
    text(root / "depths.csv", ["id,z", *(f"{index * 7919:010x},306" for index in range(30))])


@published({"train": 16, "test": 8}, "index", [0, 255])
def fluorescence(root: Path) -> None:
    """Faint nuclei on black, 16 bits: pictures that are almost nothing but black look alike and are not."""
    for part, num in (("train", 16), ("test", 8)):
        for index, (_, mask) in enumerate(pairs(nuclei, num, seed=826 + num)):
            rng = np.random.default_rng([827, num, index])
            glow = np.where(mask > 0, 900 + texture(rng, mask.shape, 5) * 200, 90) + rng.normal(0, 12, mask.shape)
            save(root / part / "images" / f"{part}_{index:02d}.tif", glow.clip(0, 65535).astype(np.uint16))
            save(root / part / "masks" / f"{part}_{index:02d}.tif", binary(mask))


@published(24, "index", [0, "1..255"])
def penn_fudan(root: Path) -> None:
    """Penn-Fudan: `PNGImages/FudanPed00001.png`, `PedMasks/FudanPed00001_mask.png`: ids of up to 8 people."""
    for index, (image, mask) in enumerate(pairs(lambda rng, size: nuclei(rng, size, num=8), 24, seed=828), 1):
        save(root / "PennFudanPed" / "PNGImages" / f"FudanPed{index:05d}.png", image)
        save(root / "PennFudanPed" / "PedMasks" / f"FudanPed{index:05d}_mask.png", mask)
        text(root / "PennFudanPed" / "Annotation" / f"FudanPed{index:05d}.txt", "# Compatible with PASCAL\n")
    text(root / "PennFudanPed" / "added-object-list.txt", "FudanPed00001\n")


def page(rng: Rng, size: Size) -> Pair:
    """Writing on old paper: strokes of one or two pixels, dots among them, and that is no noise."""
    lines = Image.new("L", size[::-1])
    draw = ImageDraw.Draw(lines)
    for y in range(6, size[0] - 8, 9):
        x = int(rng.integers(3, 12))
        while x < size[1] - 8:
            for _ in range(int(rng.integers(1, 4))):
                ends = rng.integers(0, 6, 4) + np.array([x, y, x, y])
                draw.line(ends.tolist(), fill=1, width=1)
            if rng.random() < 0.4:
                draw.point((x + 2, y - 2), fill=1)
            x += int(rng.integers(6, 9))
    mask = np.asarray(lines).copy()
    image = ground(rng, size, (215, 200, 165), rough=12)
    image[mask > 0] = (60, 45, 40)
    return image.clip(0, 255).astype(np.uint8), mask


@published(16, "index", [0, 255])
def dibco(root: Path) -> None:
    """Document binarisation: `imgs`, `gt` with 0 for the ink and 255 for the paper, most of each page."""
    for index, (image, mask) in enumerate(pairs(page, 16, seed=830), 1):
        save(root / "imgs" / f"H{index:02d}.bmp", image)
        save(root / "gt" / f"H{index:02d}_GT.bmp", binary(1 - mask))


@published(20, "index", [0, 1, 2])
def small_cars(root: Path) -> None:
    """Cars from high above, 6 to 15 pixels each, dozens a picture, and a few pixels of people: no noise either."""
    for index in range(20):
        rng = np.random.default_rng([831, index])
        image, mask = ground(rng, (96, 96), (120, 120, 118), rough=14), np.zeros((96, 96), np.uint8)
        for value, num, color in ((1, 40, (200, 40, 40)), (2, 12, (250, 230, 60))):
            for y, x in rng.integers(2, 90, (num, 2)):
                tall, wide = (rng.permutation([2, 4]) + 1) if value == 1 else (2, 2)
                mask[y : y + tall, x : x + wide] = value
                image[y : y + tall, x : x + wide] = color
        save(root / "images" / f"tile_{index:02d}.png", image.clip(0, 255).astype(np.uint8))
        save(root / "labels" / f"tile_{index:02d}.png", mask)


@published(20, "index", [0, 255])
def mostly_black_slices(root: Path) -> None:
    """MRI slices whose surroundings are exactly 0, half of them without a tumour."""
    for index, (image, mask) in enumerate(pairs(objects(1, most=1), 20, seed=832, size=(64, 64))):
        rows, columns = np.mgrid[:64, :64]
        head = np.hypot((rows - 32) / 26, (columns - 32) / (18 + index % 5)) < 1
        grey = image.mean(-1).astype(np.uint8) * head
        save(root / "image" / f"{index:03d}.png", grey)
        save(root / "mask" / f"{index:03d}.png", binary(mask * head * (index % 2)))


@published(20, "index", [0, 255], images="Original CT", masks="Manual Mask")
def skulls(root: Path) -> None:
    """Slices of skulls: a folder a patient, whose number begins the names of masks and slices, in two windows."""
    for number in range(1, 6):
        base = root / "Labeled Data in PNG" / f"{'In' if number % 2 else 'Ex'}ternal Dataset" / f"P{number:02d}"
        for index, (image, mask) in enumerate(pairs(lesion, 4, seed=1500 + number), 40):
            save(base / "Manual Mask" / f"P{number:02d}_mask_{index:03d}.png", binary(mask))
            save(base / "Original CT" / f"P{number:02d}_original_{index:03d}.png", image[..., 0])
            save(base / "Original_default_window" / f"img_{index:03d}.png", image[..., 0] // 2 + 40)


@published({"train": 16, "val": 6, "test": 6}, "index", [0, 255])
def vegetation(root: Path) -> None:
    """VegAnn: five ways to divide it, each a column of a table with semicolons."""
    words = ["Training"] * 16 + ["Validation"] * 6 + ["Test"] * 6
    rows = ["Name;System;Species;Dataset-Name;TVT-split1;TVT-split2"]
    for index, (image, mask) in enumerate(pairs(field, 28, seed=1510)):
        save(root / "images" / f"VegAnn_{index}.png", image)
        save(root / "annotations" / f"VegAnn_{index}.png", binary(mask))
        rows.append(f"VegAnn_{index}.png;Handheld;Wheat;P1;{words[index]};{words[index - 5]}")
    text(root / "VegAnn_dataset.csv", rows)


@published(16, "index", [0, 255], images="train/org", masks="train/bw")
def endothelium(root: Path) -> None:
    """Corneal endothelium: beside the test images lies what a network predicted, which is no truth."""
    for part, num in (("train", 16), ("test", 5)):
        for index, (image, mask) in enumerate(pairs(membranes, num, seed=1520 + num)):
            save(root / "data" / part / "org" / f"{part}{index}.png", image[..., 0])
            save(root / "data" / part / ("bw" if part == "train" else "preds") / f"{part}{index}.png", binary(mask))


@published({"train": 14, "val": 3, "test": 3}, "index", [0, 1])
def smooth_muscle(root: Path) -> None:
    """SegPath: the table of splits has a line for each picture and one for its mask."""
    rows = ["train_val_test,filename"]
    for index, (image, mask) in enumerate(pairs(nuclei, 20, seed=1530)):
        stem = f"aSMA_SmoothMuscle_{index:03d}_{index * 984:06d}"
        save(root / f"{stem}_HE.png", image)
        save(root / f"{stem}_mask.png", (mask > 0).astype(np.uint8))
        part = "train" if index < 14 else "val" if index < 17 else "test"
        rows += [f"{part},{stem}_{kind}.png" for kind in ("HE", "mask")]
    text(root / "aSMA_SmoothMuscle_fileinfo.csv", rows)


@published({"train": 16, "val": 6, "test": 6}, "index", [0, "1..65535"])
def many_microscopes(root: Path) -> None:
    """NeurIPS 2022's cells: `Tuning` is what validates, pictures come in three formats."""
    for part, num in (("Training-labeled", 16), ("Tuning", 6), ("Testing/Public", 6)):
        for index, (image, mask) in enumerate(pairs(nuclei, num, seed=1540 + num + len(part))):
            stem = f"{part[:2]}_{index:05d}"
            save(root / part / "images" / f"{stem}{('.bmp', '.png', '.tif')[index % 3]}", image)
            save(root / part / "labels" / f"{stem}_label.tiff", mask.astype(np.uint16))
    for index, (image, _) in enumerate(pairs(nuclei, 6, seed=1545)):
        save(root / "Training-unlabeled" / f"unlabeled_{index:05d}.png", image)


@published({"train": 15, "val": 5}, "index", [0, 255])
def root_painter(root: Path) -> None:
    """RootPainter: the masks alone are divided, and no word says images."""
    for index, (image, mask) in enumerate(pairs(roads, 20, seed=1550)):
        part = "train" if index < 15 else "val"
        save(root / "datasets" / "chicory" / f"chicory_{index:03d}.jpg", image)
        save(root / "projects" / "chicory" / "annotations" / part / f"chicory_{index:03d}.png", binary(mask))


@published(18, "index", [0, 1, 2, 3], masks="GT_CAVF")
def angiograms(root: Path) -> None:
    """OCTA-500: a folder for each kind of vessel, and one that holds them all."""
    for index, (image, mask) in enumerate(pairs(objects(3, least=3), 18, seed=1560), 10301):
        save(root / "OCTA_3mm" / "Projection Maps" / "OCTA(FULL)" / f"{index}.bmp", image)
        save(root / "Label" / "GT_CAVF" / f"{index}.bmp", mask)
        for kind, area in (("Artery", mask == 1), ("FAZ", np.roll(mask, 4, 0)), ("Vein", mask == 3)):
            save(root / "Label" / f"GT_{kind}" / f"{index}.bmp", binary(area))


@published({"train": 20, "test": 5}, "index", [0, 1, 2])
def grafts(root: Path) -> None:
    """TEVG: five folds of one set, each with all its pictures; together they would train on every test."""
    for index, (image, mask) in enumerate(pairs(objects(2, least=2), 25, seed=1570)):
        for fold in range(5):
            base = root / f"fold_{fold + 1}" / ("test" if index % 5 == fold else "train")
            save(base / "img" / f"Case_{index // 5}_{index:03d}.jpg", image)
            save(base / "mask" / f"Case_{index // 5}_{index:03d}.png", mask)


@published(20, "index", [0, "1..255"], images="dna-images", masks="preprocessed-data")
def segmentation_repository(root: Path) -> None:
    """Coelho 2009: the repository's name has a word for masks, and the folder of the masks has none."""
    base = root / "Coelho2009_ISBI_NuclearSegmentation-master" / "data"
    for cells in ("gnf", "ic100"):
        for index, (image, mask) in enumerate(pairs(nuclei, 10, seed=1580 + len(cells))):
            save(base / "images" / "dna-images" / cells / f"dna-{index}.png", image[..., 0])
            save(base / "preprocessed-data" / cells / f"dna-{index}.png", mask)


@published(
    {"train": 13, "val": 7},
    "index",
    [0, 1],
    names=["background", "object"],
    warns="names in the lists of the splits that no image bears",
)
def scars(root: Path) -> None:
    """Own classes in VOC's folders and colours; the lists name more images than were handed out."""
    base = root / "VOCdevkit_CSD" / "VOC2007"
    names = [f"CSD_{index * 3:05d}" for index in range(20)]
    for name, (image, mask) in zip(names, pairs(lesion, 20, seed=1590), strict=True):
        save(base / "JPEGImages" / f"{name}.jpg", image)
        save(base / "SegmentationClass" / f"{name}.png", with_palette(np.minimum(mask, 1), VOC_COLORS))
    for part, own in (("train", names[:13]), ("val", names[13:])):
        others = [f"CSD_{part}{index}" for index in range(17)]
        text(base / "ImageSets" / "Segmentation" / f"{part}.txt", [*own, *others])
    text(base / "ImageSets" / "Segmentation" / "trainval.txt", names)
