"""What holds no semantic masks as it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from scenes import membranes, nuclei, objects, polyp, retina, roads, street

from published.registry import (
    VOC_COLORS,
    binary,
    colored,
    pairs,
    rim,
    save,
    text,
    unsupported,
)


@unsupported(
    r"a mask for each class or object \(av, vessel\).*where one of these folders has all classes, call it masks/"
)
def rite(root: Path) -> None:
    """RITE: vessels alone, and arteries and veins, in folders beside each other of which no word says more."""
    for part in ("training", "test"):
        for index, (image, mask) in enumerate(pairs(retina, 6, seed=460 + len(part))):
            base = root / "AV_groundTruth" / part
            save(base / "images" / f"{index:02d}_{part}.tif", image)
            save(base / "vessel" / f"{index:02d}_{part}.png", binary(mask))
            save(base / "av" / f"{index:02d}_{part}.png", colored(mask, [(0, 0, 0), (255, 0, 0)]))


@unsupported(r"a mask for each class or object \(gtlumen, gtpolyp, gtvoid\)")
def two_endoscenes(root: Path) -> None:
    """EndoScene as a whole: the same in two sets beside each other."""
    for name in ("CVC-300", "CVC-612"):
        for index, (image, mask) in enumerate(pairs(polyp, 8, seed=1600 + int(name[4:]))):
            save(root / name / "bbdd" / f"{index:03d}.bmp", image)
            for kind, moved in (("polyp", 0), ("lumen", 30), ("void", 50)):
                save(root / name / f"gt{kind}" / f"{index:03d}.bmp", binary(np.roll(mask, moved, 1)))


@unsupported(r"several masks of one image, a mask for each class or object.*255 for objects of one kind")
def dsb2018(root: Path) -> None:
    """Data Science Bowl 2018: a folder an image, a mask an object."""
    for index, (image, mask) in enumerate(pairs(nuclei, 6, seed=70)):
        name = f"{index * 104729:064x}"
        save(root / "stage1_train" / name / "images" / f"{name}.png", image)
        for number in range(1, int(mask.max()) + 1):
            save(root / "stage1_train" / name / "masks" / f"{number * 7919:064x}.png", binary(mask == number))
    text(root / "stage1_train_labels.csv", ["ImageId,EncodedPixels", "0a,1 2 3 4"])


@unsupported(r"pages|frames|slices")
def isbi_stacks(root: Path) -> None:
    """ISBI 2012 as published: stacks of 30 slices."""
    frames = [membranes(np.random.default_rng([71, index]), (64, 64)) for index in range(4)]
    for name, slices in (
        ("train-volume", [image[..., 0] for image, _ in frames]),
        ("train-labels", [binary(mask) for _, mask in frames]),
    ):
        first, *rest = [Image.fromarray(part) for part in slices]
        root.mkdir(parents=True, exist_ok=True)
        first.save(root / f"{name}.tif", save_all=True, append_images=rest)


@unsupported(r"several masks|masks of one image|a mask (for|per|of) (each|every) (part|object)")
def celebamask(root: Path) -> None:
    """CelebAMask-HQ as published: a mask for each part of each face."""
    for index, (image, mask) in enumerate(pairs(objects(3, least=3), 6, seed=76)):
        save(root / "CelebA-HQ-img" / f"{index}.jpg", image)
        for value, part in ((1, "skin"), (2, "hair"), (3, "nose")):
            save(root / "CelebAMask-HQ-mask-anno" / "0" / f"{index:05d}_{part}.png", binary(mask == value))


@unsupported(r"text|\.txt")
def stanford_background(root: Path) -> None:
    """Stanford background: a matrix of numbers as text for each image."""
    for index, (image, mask) in enumerate(pairs(street, 6, seed=870)):
        save(root / "iccv09Data" / "images" / f"{index:07d}.jpg", image)
        rows = [" ".join(map(str, row)) for row in mask.tolist()]
        text(root / "iccv09Data" / "labels" / f"{index:07d}.regions.txt", rows)
    text(root / "iccv09Data" / "horizons.txt", ["0000001 320 240 92"])


@unsupported(r"gtlumen, gtpolyp")
def endoscene(root: Path) -> None:
    """EndoScene: `bbdd`, and a folder of masks for each class."""
    for index, (image, mask) in enumerate(pairs(polyp, 6, seed=960)):
        for folder, picture in (("bbdd", image), ("gtpolyp", binary(mask)), ("gtlumen", binary(mask * 0))):
            save(root / "CVC-300" / folder / f"{index}.bmp", picture)


@unsupported(r"1\. Microaneurysms, 2\. Haemorrhages")
def idrid(root: Path) -> None:
    """IDRiD: a folder of masks for each kind of lesion, whose names end in it."""
    for index, (image, mask) in enumerate(pairs(objects(2, least=4), 6, seed=961)):
        save(root / "1. Original Images" / "a. Training Set" / f"IDRiD_{index:02d}.jpg", image)
        truth = root / "2. All Segmentation Groundtruths" / "a. Training Set"
        save(truth / "1. Microaneurysms" / f"IDRiD_{index:02d}_MA.tif", binary(mask == 1))
        save(truth / "2. Haemorrhages" / f"IDRiD_{index:02d}_HE.tif", binary(mask == 2))


@unsupported("Label Studio")
def label_studio_json(root: Path) -> None:
    """Label Studio's own export: one JSON, strokes as run lengths."""
    for index, (image, _) in enumerate(pairs(objects(1), 4, seed=963)):
        save(root / "images" / f"{index}.png", image)
    task = {"annotations": [{"result": [{"type": "brushlabels"}]}], "data": {"image": "/data/upload/1.png"}}
    text(root / "project-1.json", json.dumps([task]))


@unsupported(r"train\.csv holds masks as run lengths")
def sartorius(root: Path) -> None:
    """Sartorius of Kaggle: run lengths in a column that does not say so."""
    rows = ["id,annotation,width,height,cell_type"]
    for index, (image, _) in enumerate(pairs(nuclei, 4, seed=964)):
        save(root / "train" / f"{index:012x}.png", image[..., 0])
        rows.append(f"{index:012x},118145 6 118849 7 119553 8 120257 8,704,520,shsy5y")
    text(root / "train.csv", rows)


@unsupported(r"Parquet tables \(\.parquet\)")
def parquet(root: Path) -> None:
    """As Hugging Face hands sets out."""
    (root / "data").mkdir(parents=True)
    (root / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1")


@unsupported(r"reference_segmentations: each image has several masks, one for each part or object")
def cup_and_disc(root: Path) -> None:
    """RIM-ONE DL: the optic cup and the disc around it, each in a mask of its own."""
    for index, (image, mask) in enumerate(pairs(objects(2, least=2), 12, seed=160)):
        stem = f"r{1 + index % 3}_Im{index:03d}"
        save(root / "images" / f"{stem}.png", image)
        for kind, area in (("Cup", mask == 2), ("Disc", mask > 0)):
            save(root / "reference_segmentations" / f"{stem}-1-{kind}-T.png", binary(area))


@unsupported("masks: each image has several masks, one for each part or object")
def edd2020(root: Path) -> None:
    """EDD2020: a mask for each of five findings, and only for those that are there."""
    for index, (image, mask) in enumerate(pairs(objects(3), 12, seed=130)):
        stem = f"EDD2020_ACB{index:04d}"
        save(root / "originalImages" / f"{stem}.jpg", image)
        for kind, value in (("BE", 1), ("HGD", 2), ("polyp", 3)):
            if (mask == value).any():
                save(root / "masks" / f"{stem}_{kind}.tif", binary(mask == value))
        text(root / "bbox" / f"{stem}.txt", "1 2 3 4 BE\n")


@unsupported("001 holds several masks of one image, a mask for each class or object")
def mvtec_loco(root: Path) -> None:
    """MVTec LOCO: a folder with the masks of each image's anomalies."""
    for kind, num in (("logical_anomalies", 8), ("structural_anomalies", 6)):
        for index, (image, mask) in enumerate(pairs(objects(1), num, seed=50 + num)):
            save(root / "breakfast_box" / "test" / kind / f"{index:03d}.png", image)
            for number in range(1 + index % 2):
                save(
                    root / "breakfast_box" / "ground_truth" / kind / f"{index:03d}" / f"{number:03d}.png", binary(mask)
                )
    for index, (image, _) in enumerate(pairs(objects(1), 6, seed=58)):
        save(root / "breakfast_box" / "train" / "good" / f"{index:03d}.png", image)


@unsupported(r"are masks both, of two kinds, and their images are not here")
def cityscapes_without_images(root: Path) -> None:
    """Cityscapes's masks alone: their colours are not the images."""
    for index, (_, mask) in enumerate(pairs(street, 10, seed=610)):
        stem = root / "gtFine" / "train" / "aachen" / f"aachen_{index:06d}_000019_gtFine"
        save(stem.with_name(f"{stem.name}_labelIds.png"), np.array([23, 11, 7, 26, 24, 21], np.uint8)[mask])
        save(stem.with_name(f"{stem.name}_color.png"), colored(mask, VOC_COLORS))


@unsupported("a few values each, as masks do|no images with masks of the same names found")
def ottawa(root: Path) -> None:
    """Ottawa: a folder for each place with three kinds of masks; the centre lines are not the image."""
    for number in range(1, 13):
        (image, mask), base = pairs(roads, 1, seed=1620 + number)[0], root / "Ottawa-Dataset" / str(number)
        save(base / f"Ottawa-{number}.tif", image)
        save(base / "segmentation.png", binary(mask))
        save(base / "edge.png", binary(rim(mask, 9) == 9))
        save(base / "centerline.png", binary(mask) // 2)


@unsupported("each image has several masks, one for each part or object")
def organelles(root: Path) -> None:
    """An EM stack as people cut it: a folder for each kind of organelle beside the slices, and no word for masks."""
    kinds = ("PSD", "axon", "membranes", "mitochondrial boundaries", "mitochondrion", "vesicles")
    for part, stem, num in (("epfl_train", "training", 12), ("epfl_test", "testing", 6)):
        for index, (image, mask) in enumerate(pairs(objects(6, least=6, most=9), num, seed=1730 + num)):
            name = f"{stem}{index * 3:04d}.png"
            save(root / part / "slices" / name, image.mean(-1).astype(np.uint8))
            for value, kind in enumerate(kinds, 1):
                save(root / part / kind / name, binary(mask == value))


@unsupported(r"JPEG 2000 images \(\.jp2\) are not read.*\n.*floating-point")
def geonrw(root: Path) -> None:
    """GeoNRW: a folder for each town, with pictures as JPEG 2000, heights in floating point, and masks."""
    for town in ("aachen", "bonn", "herne"):
        for index, (image, mask) in enumerate(pairs(street, 6, seed=1740 + len(town))):
            stem = f"{340 + index}_56{index}{len(town)}"
            text(root / town / f"{stem}_rgb.jp2", "no such picture")
            save(root / town / f"{stem}_dem.tif", image.mean(-1).astype(np.float32))
            save(root / town / f"{stem}_seg.tif", mask)


@unsupported("image01_poly.png shows what image01.png shows, as overlays and cut-outs do, and no classes")
def drawn_outlines(root: Path) -> None:
    """A contest of nuclei: masks as text, and beside them the pictures with the outlines drawn on."""
    for index, (image, mask) in enumerate(pairs(nuclei, 12, seed=1770), 1):
        stem = root / "Training" / f"image{index:02d}"
        save(stem.with_suffix(".png"), image)
        save(
            root / "Training" / f"{stem.name}_poly.png",
            np.where(rim(mask, 99)[..., None] == 99, (255, 255, 0), image).astype(np.uint8),
        )
        text(root / "Training" / f"{stem.name}_mask.txt", ["96 64", *map(str, mask.ravel())])


@unsupported("24 images, and nothing that says mask or label.*side by side")
def panels(root: Path) -> None:
    """AMD-SD: a folder for each patient, numbered as the files are, each of which holds the picture and its mask."""
    for patient in range(1, 9):
        for index, (image, mask) in enumerate(pairs(objects(3, least=3), 3, seed=1780 + patient), 1):
            save(root / "images" / str(patient) / f"{index}.png", np.hstack([image, colored(mask, VOC_COLORS)]))


@unsupported("colours that form areas in one mask only, as where each object")
def colored_nuclei(root: Path) -> None:
    """Nuclei in fluorescence, few pictures: each nucleus has a colour of its own."""
    rng = np.random.default_rng(1790)
    for index, (image, mask) in enumerate(pairs(nuclei, 5, seed=1790)):
        colors = rng.integers(30, 256, (20, 3)).astype(np.uint8)
        colors[0] = 0
        save(root / "images" / f"{index}.png", image.mean(-1).astype(np.uint8))
        save(root / "annotations" / f"{index}.png", colors[mask])
