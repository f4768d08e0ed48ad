"""Miniatures of published data sets and exports: folders, names, modes and encodings as they are handed out.

Each function writes one set. What `init` should make of it stands in its decorator: the pairs of each split (`train`
alone where the set has no split of its own), the encoding, the stored codes of the classes, what is ignored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scenes import (
    Pair,
    Scene,
    aerial,
    crack,
    drive_along,
    field,
    lesion,
    membranes,
    nuclei,
    objects,
    polyp,
    portrait,
    retina,
    roads,
    skyline,
    soft,
    street,
)

SIZE = (64, 96)
VOC_COLORS = [
    (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128),
]  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A set and what is right about it."""

    name: str
    make: Callable[[Path], None]
    pairs: dict[str, int]
    encoding: str
    classes: tuple[int | str | tuple[int, ...], ...]
    """The first stored value or `#rrggbb` of each class, in any order."""
    ignore: tuple[int | str, ...] = ()
    names: tuple[str, ...] = ()
    """Names of classes that the set's own files tell."""
    nearest: bool = False
    masks: str = ""
    """What the path of every mask holds, where several folders offer themselves."""
    apart: str = ""
    """A pattern on stems whose first group is a video, a patient or a picture: it must not be cut by a split."""


PUBLISHED: dict[str, Published] = {}
UNSUPPORTED: dict[str, tuple[Callable[[Path], None], str]] = {}
"""Sets that hold no semantic masks as they are, and a pattern of the words that say so."""


def published(
    pairs: int | dict[str, int],
    encoding: str,
    classes: Iterable[int | str],
    *,
    ignore: Iterable[int | str] = (),
    names: Iterable[str] = (),
    nearest: bool = False,
    masks: str = "",
    apart: str = "",
) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Enters a maker into `PUBLISHED` with what `init` should find."""

    def enter(make: Callable[[Path], None]) -> Callable[[Path], None]:
        name = make.__name__
        parts = {"train": pairs} if isinstance(pairs, int) else pairs
        PUBLISHED[name] = Published(
            name,
            make,
            parts,
            encoding,
            tuple(classes),
            tuple(ignore),
            tuple(names),
            nearest=nearest,
            masks=masks,
            apart=apart,
        )
        return make

    return enter


def unsupported(words: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Enters a maker into `UNSUPPORTED`."""

    def enter(make: Callable[[Path], None]) -> Callable[[Path], None]:
        UNSUPPORTED[make.__name__] = (make, words)
        return make

    return enter


# ------------------------------------------------------------------------------------------------- writing


def pairs(scene: Scene, num: int, *, seed: int = 0, size: tuple[int, int] = SIZE) -> list[Pair]:
    """Returns pictures of a scene, each another."""
    return [scene(np.random.default_rng([seed, index]), size) for index in range(num)]


def save(path: Path, array: np.ndarray | Image.Image, **options: object) -> None:
    """Writes an array, or a picture, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    if path.suffix.lower() in (".jpg", ".jpeg"):
        options = {"quality": 92, **options}
    picture.save(path, **options)


def text(path: Path, content: str | Iterable[str]) -> None:
    """Writes a text, or lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else "".join(f"{line}\n" for line in content))


def binary(mask: np.ndarray) -> np.ndarray:
    """Returns 255 where there is something."""
    return ((mask > 0) * 255).astype(np.uint8)


def colored(mask: np.ndarray, colors: Iterable[tuple[int, int, int]]) -> np.ndarray:
    """Returns H W 3."""
    return np.array(list(colors), np.uint8)[mask]


def with_palette(mask: np.ndarray, colors: Iterable[tuple[int, int, int]]) -> Image.Image:
    """Returns a palette picture."""
    picture = Image.fromarray(mask.astype(np.uint8), "P")
    picture.putpalette([channel for color in colors for channel in color])
    return picture


def rim(mask: np.ndarray, value: int) -> np.ndarray:
    """Returns a mask whose borders between classes hold another value."""
    edge = np.zeros(mask.shape, bool)
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    edge[1:] |= mask[1:] != mask[:-1]
    return np.where(edge, value, mask).astype(np.uint8)


def hexes(colors: Iterable[tuple[int, int, int]]) -> list[str]:
    """Returns `#rrggbb` of each."""
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colors]


# ------------------------------------------------------------------------------------------------- eyes


@published({"train": 12, "test": 8}, "index", [0, 255], masks="1st_manual")
def drive(root: Path) -> None:
    """DRIVE: `training`, `test`; vessels by two people; `mask` is the field of view and no truth. GIF masks."""
    for part, first, num in (("training", 21, 12), ("test", 1, 8)):
        for index, (image, mask) in enumerate(pairs(retina, num, seed=first), first):
            save(root / part / "images" / f"{index:02d}_{part}.tif", image)
            save(root / part / "1st_manual" / f"{index:02d}_manual1.gif", binary(mask), optimize=False)
            save(root / part / "mask" / f"{index:02d}_{part}_mask.gif", binary(image.max(-1) > 40), optimize=False)
            if part == "test":
                save(
                    root / part / "2nd_manual" / f"{index:02d}_manual2.gif", binary(np.roll(mask, 1, 1)), optimize=False
                )


@published(20, "index", [0, 1], masks="_1stHO")
def chase_db1(root: Path) -> None:
    """CHASE_DB1: all in one folder, 1-bit PNG, two observers."""
    for index, (image, mask) in enumerate(pairs(retina, 20, seed=2)):
        stem = f"Image_{index // 2 + 1:02d}{'LR'[index % 2]}"
        save(root / f"{stem}.jpg", image)
        save(root / f"{stem}_1stHO.png", Image.fromarray(binary(mask)).convert("1"))
        save(root / f"{stem}_2ndHO.png", Image.fromarray(binary(np.roll(mask, 1, 1))).convert("1"))


@published(15, "index", [0, 255], masks="manual1")
def hrf(root: Path) -> None:
    """HRF: `images` with two spellings of .jpg, `manual1` TIFF, `mask` is the field of view."""
    for index, (image, mask) in enumerate(pairs(retina, 15, seed=3)):
        kind = ("dr", "g", "h")[index % 3]
        stem = f"{index // 3 + 1:02d}_{kind}"
        save(root / "images" / f"{stem}.{'JPG' if kind == 'dr' else 'jpg'}", image)
        save(root / "manual1" / f"{stem}.tif", binary(mask))
        save(root / "mask" / f"{stem}_mask.tif", np.repeat(binary(image.max(-1) > 40)[..., None], 3, -1))


# ------------------------------------------------------------------------------------------------- medicine


@published(24, "rgb", ["#000000", "#ffffff"], nearest=True)
def kvasir_seg(root: Path) -> None:
    """Kvasir-SEG: JPEG masks with three equal channels, one folder further down, boxes beside them."""
    for index, (image, mask) in enumerate(pairs(polyp, 24, seed=4)):
        stem = f"cju0{index * 7919 % 9973:04d}qxvo8vxwc5h8ex"
        save(root / "Kvasir-SEG" / "images" / f"{stem}.jpg", image)
        save(root / "Kvasir-SEG" / "masks" / f"{stem}.jpg", np.repeat(binary(mask)[..., None], 3, -1))
    text(root / "Kvasir-SEG" / "kavsir_bboxes.json", json.dumps({"cju0": {"height": 529, "bbox": []}}))


@published(24, "index", [0, 255])
def cvc_clinicdb(root: Path) -> None:
    """CVC-ClinicDB: `Original` and `Ground Truth`, TIFF, numbered frames of several videos."""
    frames = drive_along(polyp)
    number = 1
    for video in range(4):
        for image, mask in frames(np.random.default_rng([5, video]), SIZE, 6):
            save(root / "Original" / f"{number}.tif", image)
            save(root / "Ground Truth" / f"{number}.tif", binary(mask))
            number += 1


@published({"train": 20, "val": 6, "test": 6}, "index", [0, 255])
def isic2018(root: Path) -> None:
    """ISIC 2018 task 1: long names of folders, `_segmentation`, licences beside the pictures, many sizes."""
    for part, num in (("Training", 20), ("Validation", 6), ("Test", 6)):
        for index in range(num):
            rng = np.random.default_rng([6, num, index])
            image, mask = lesion(rng, (int(rng.integers(60, 90)), int(rng.integers(90, 130))))
            stem = f"ISIC_{index * 3 + num * 100:07d}"
            save(root / f"ISIC2018_Task1-2_{part}_Input" / f"{stem}.jpg", image)
            save(root / f"ISIC2018_Task1_{part}_GroundTruth" / f"{stem}_segmentation.png", binary(mask))
        text(root / f"ISIC2018_Task1-2_{part}_Input" / "ATTRIBUTION.txt", "HAM10000\n")
        text(root / f"ISIC2018_Task1_{part}_GroundTruth" / "LICENSE.txt", "CC-0\n")


@published(24, "index", [0, 255])
def montgomery_xray(root: Path) -> None:
    """Shenzhen chest X-rays: `CXR_png`, `masks` with `_mask`; grey."""
    for index, (image, mask) in enumerate(pairs(objects(1, least=2), 24, seed=7)):
        stem = f"CHNCXR_{index + 1:04d}_{index % 2}"
        save(root / "CXR_png" / f"{stem}.png", image.mean(-1).astype(np.uint8))
        save(root / "masks" / f"{stem}_mask.png", binary(mask))
        text(root / "ClinicalReadings" / f"{stem}.txt", "male 45yrs\nnormal\n")


@published(36, "index", [0, 255], apart=r"(TCGA_CS_[0-9]+)")
def brain_mri_lgg(root: Path) -> None:
    """LGG MRI: a folder a patient, TIFF, `_mask` beside each slice, two thirds of them blank."""
    for patient in range(6):
        folder = root / "kaggle_3m" / f"TCGA_CS_{4941 + patient}_1996090{patient}"
        frames = drive_along(lesion)(np.random.default_rng([8, patient]), (64, 64), 6)
        for index, (image, mask) in enumerate(frames, 1):
            save(folder / f"{folder.name}_{index}.tif", image)
            save(folder / f"{folder.name}_{index}_mask.tif", binary(mask * (index > 3)))
    text(root / "kaggle_3m" / "data.csv", ["Patient,RNASeqCluster,death01", "TCGA_CS_4941,2,1"])
    text(root / "kaggle_3m" / "README.md", "# LGG\n")


@published(30, "index", [0, 255])
def busi(root: Path) -> None:
    """BUSI: a folder a diagnosis, `benign (1).png` and `benign (1)_mask.png`; normal ones are blank."""
    for kind, num in (("benign", 14), ("malignant", 10), ("normal", 6)):
        for index, (image, mask) in enumerate(pairs(lesion, num, seed=ord(kind[0])), 1):
            folder = root / "Dataset_BUSI_with_GT" / kind
            save(folder / f"{kind} ({index}).png", image)
            save(folder / f"{kind} ({index})_mask.png", binary(mask * (kind != "normal")))


@published({"train": 20, "test": 10}, "index", [0, 255])
def polyps_pranet(root: Path) -> None:
    """The polyp benchmark of PraNet: `TrainDataset/image`, `mask`; test sets in folders of their own."""
    for part, num in (("TrainDataset", 20), ("TestDataset/CVC-300", 5), ("TestDataset/Kvasir", 5)):
        names = ("images", "masks") if "Test" in part else ("image", "mask")
        for index, (image, mask) in enumerate(pairs(polyp, num, seed=len(part)), 1):
            save(root / part / names[0] / f"{index}.png", image)
            save(root / part / names[1] / f"{index}.png", binary(mask))


@published(20, "index", [0, 255])
def em_isbi(root: Path) -> None:
    """ISBI 2012 as pictures: grey, 0 is the membrane."""
    for index, (image, mask) in enumerate(pairs(membranes, 20, seed=9)):
        save(root / "images" / f"{index}.png", image[..., 0])
        save(root / "labels" / f"{index}.png", binary(mask))


@published({"train": 20, "test": 12}, "index", [0, 1])
def glas(root: Path) -> None:
    """GlaS: one folder, BMP, `train_1.bmp` and `train_1_anno.bmp`; ids of glands, so that every id is an object."""
    for part, num in (("train", 20), ("testA", 8), ("testB", 4)):
        for index, (image, mask) in enumerate(pairs(nuclei, num, seed=num), 1):
            save(root / f"{part}_{index}.bmp", image)
            save(root / f"{part}_{index}_anno.bmp", mask)
    text(root / "Grade.csv", ["name,patient ID, grade (GlaS)", "testA_1,2, benign"])


@published({"train": 16, "val": 6, "test": 6}, "index", [0, 255])
def monuseg_unet(root: Path) -> None:
    """MoNuSeg as UCTransNet hands it out: `Train_Folder/img`, `Train_Folder/labelcol`."""
    for part, num in (("Train", 16), ("Val", 6), ("Test", 6)):
        for index, (image, mask) in enumerate(pairs(nuclei, num, seed=num + len(part))):
            save(root / f"{part}_Folder" / "img" / f"TCGA-{part[:2]}-{index}.png", image)
            save(root / f"{part}_Folder" / "labelcol" / f"TCGA-{part[:2]}-{index}.png", binary(mask))


@published({"train": 16}, "index", [0, 1, 2], names=["background", "organ", "tumor"])
def nnunet(root: Path) -> None:
    """nnU-Net v2 with pictures: `_0000` on the images, `dataset.json` with names; unlabelled `imagesTs`."""
    folder = root / "Dataset101_Organs"
    for index, (image, mask) in enumerate(pairs(objects(2), 16, seed=12)):
        save(folder / "imagesTr" / f"case_{index:03d}_0000.png", image[..., 0])
        save(folder / "labelsTr" / f"case_{index:03d}.png", mask)
    for index, (image, _) in enumerate(pairs(objects(2), 4, seed=13)):
        save(folder / "imagesTs" / f"test_{index:03d}_0000.png", image[..., 0])
    named = {"background": 0, "organ": 1, "tumor": 2}
    described = {"channel_names": {"0": "CT"}, "labels": named, "numTraining": 16, "file_ending": ".png"}
    text(folder / "dataset.json", json.dumps(described))


@published({"train": 18, "val": 6}, "index", [0, 255])
def fuseg_wounds(root: Path) -> None:
    """FUSeg: `train`, `validation` with labels, `test` without."""
    base = root / "Foot Ulcer Segmentation Challenge"
    number = 1
    for part, num in (("train", 18), ("validation", 6), ("test", 4)):
        for image, mask in pairs(lesion, num, seed=20 + num, size=(64, 64)):
            save(base / part / "images" / f"{number:04d}.png", image)
            if part != "test":
                save(base / part / "labels" / f"{number:04d}.png", binary(mask))
            number += 1


# ------------------------------------------------------------------------------------------------- streets

CAMVID = [
    ("Sky", (128, 128, 128)), ("Building", (128, 0, 0)), ("Road", (128, 64, 128)), ("Car", (64, 0, 128)),
    ("Pedestrian", (64, 64, 0)), ("Tree", (128, 128, 0)), ("Void", (0, 0, 0)),
]  # fmt: skip


@published(
    {"train": 24, "val": 8, "test": 8},
    "rgb",
    hexes(color for name, color in CAMVID if name != "Void"),
    ignore=["#000000"],
    names=[name for name, _ in CAMVID if name != "Void"],
)
def camvid_colors(root: Path) -> None:
    """CamVid of Kaggle: `train`, `train_labels` with `_L`, RGB, `class_dict.csv` with 32 names, few of them in use."""
    frames = drive_along(street)
    for part, num, prefix in (("train", 24, "0001TP"), ("val", 8, "0016E5"), ("test", 8, "Seq05VD")):
        for index, (image, mask) in enumerate(frames(np.random.default_rng([14, num, len(part)]), SIZE, num)):
            stem = f"{prefix}_{'f' if part == 'test' else ''}{6690 + 30 * index:06d}"
            save(root / "CamVid" / part / f"{stem}.png", image)
            colors = [color for _, color in CAMVID]
            save(root / "CamVid" / f"{part}_labels" / f"{stem}_L.png", colored(rim(mask, 6), colors))
    rows = [f"{name},{r},{g},{b}" for name, (r, g, b) in CAMVID]
    rows += ["Animal,64,128,64", "Archway,192,0,128", "Train,192,64,128"]
    text(root / "CamVid" / "class_dict.csv", ["name,r,g,b", *sorted(rows)])


@published({"train": 20, "val": 8}, "index", [0, 1, 2, 3, 4, 5], ignore=[255], masks="SegmentationClass/")
def voc2012(root: Path) -> None:
    """PASCAL VOC: lists in `ImageSets/Segmentation`, palette masks with a rim of 255, more images than masks."""
    base = root / "VOCdevkit" / "VOC2012"
    colors = VOC_COLORS + [(0, 0, 0)] * 247 + [(224, 224, 192)]
    names = [f"2007_{index * 37:06d}" for index in range(28)]
    for name, (image, mask) in zip(names, pairs(objects(5), 28, seed=15), strict=True):
        save(base / "JPEGImages" / f"{name}.jpg", image)
        save(base / "SegmentationClass" / f"{name}.png", with_palette(rim(mask, 255), colors))
        save(base / "SegmentationObject" / f"{name}.png", with_palette(rim((mask > 0) * 1, 255), colors))
        text(base / "Annotations" / f"{name}.xml", "<annotation/>")
    for index, (image, _) in enumerate(pairs(objects(5), 10, seed=16)):
        save(base / "JPEGImages" / f"2008_{index:06d}.jpg", image)
    for split, part in (("train", names[:20]), ("val", names[20:]), ("trainval", names)):
        text(base / "ImageSets" / "Segmentation" / f"{split}.txt", part)
        text(base / "ImageSets" / "Main" / f"{split}.txt", [*part, "2008_000001"])
        text(base / "ImageSets" / "Main" / f"cat_{split}.txt", [f"{name} -1" for name in part])


@published({"train": 18, "val": 8}, "index", [23, 11, 7, 26, 24, 21], masks="labelIds")
def cityscapes(root: Path) -> None:
    """Cityscapes: cities, `_leftImg8bit`, and four kinds of annotation beside each other; the test's are dummies."""
    ids = np.array([23, 11, 7, 26, 24, 21], np.uint8)
    colors = [(70, 130, 180), (70, 70, 70), (128, 64, 128), (0, 0, 142), (220, 20, 60), (107, 142, 35)]
    for part, cities in (
        ("train", ("aachen", "bochum", "bremen")),
        ("val", ("lindau", "munster")),
        ("test", ("berlin",)),
    ):
        for number, city in enumerate(cities):
            num = 6 if part == "train" else 4
            for index, (image, mask) in enumerate(pairs(street, num, seed=100 + len(part) * 10 + number)):
                stem = f"{city}_{index:06d}_000019"
                save(root / "leftImg8bit" / part / city / f"{stem}_leftImg8bit.png", image)
                base = root / "gtFine" / part / city
                dummy = part == "test"
                save(base / f"{stem}_gtFine_labelIds.png", ids[mask] * np.uint8(1 - dummy))
                save(base / f"{stem}_gtFine_instanceIds.png", (ids[mask] * np.uint16(1 - dummy) * np.uint16(1000)))
                rgba = np.dstack([colored(mask, colors), np.full(mask.shape, 255, np.uint8)])
                save(base / f"{stem}_gtFine_color.png", rgba * np.uint8(1 - dummy))
                text(base / f"{stem}_gtFine_polygons.json", json.dumps({"imgHeight": 1024, "objects": []}))


@published({"train": 16, "val": 6}, "index", [0, 1, 2, 3, 4, 5], ignore=[255], masks="sem_seg/masks")
def bdd100k(root: Path) -> None:
    """BDD100K: `images/10k/train`, `labels/sem_seg/masks/train`, and colour maps beside them."""
    for part, num in (("train", 16), ("val", 6), ("test", 4)):
        for index, (image, mask) in enumerate(pairs(street, num, seed=140 + num)):
            stem = f"{index * 7919:08x}-{num:08x}"
            save(root / "bdd100k" / "images" / "10k" / part / f"{stem}.jpg", image)
            if part != "test":
                base = root / "bdd100k" / "labels" / "sem_seg"
                save(base / "masks" / part / f"{stem}.png", rim(mask, 255))
                save(base / "colormaps" / part / f"{stem}.png", colored(mask, VOC_COLORS))


@published(20, "index", [0, 1, 2, 3, 4], masks="semantic/")
def kitti_semantics(root: Path) -> None:
    """KITTI: `training/image_2`, `semantic`, `semantic_rgb`, `instance`; `testing/image_2` without labels."""
    for index, (image, mask) in enumerate(pairs(street, 20, seed=17)):
        mask = np.minimum(mask, 4)
        save(root / "training" / "image_2" / f"{index:06d}_10.png", image)
        save(root / "training" / "semantic" / f"{index:06d}_10.png", mask)
        save(root / "training" / "semantic_rgb" / f"{index:06d}_10.png", colored(mask, VOC_COLORS))
        save(root / "training" / "instance" / f"{index:06d}_10.png", mask * np.uint16(256))
    for index, (image, _) in enumerate(pairs(street, 6, seed=18)):
        save(root / "testing" / "image_2" / f"{index:06d}_10.png", image)


@published({"train": 20, "val": 8}, "index", [0, 1, 2, 3, 4, 5])
def ade20k(root: Path) -> None:
    """ADE20K challenge: `images/training`, `annotations/training`; 0 is what is none of 150 classes."""
    base = root / "ADEChallengeData2016"
    for part, short, num in (("training", "train", 20), ("validation", "val", 8)):
        for index, (image, mask) in enumerate(pairs(objects(5, least=3, most=7), num, seed=19 + num), 1):
            save(base / "images" / part / f"ADE_{short}_{index:08d}.jpg", image)
            save(base / "annotations" / part / f"ADE_{short}_{index:08d}.png", mask)
    text(base / "sceneCategories.txt", ["ADE_train_00000001 airport_terminal"])
    text(base / "objectInfo150.txt", ["Idx\tRatio\tTrain\tVal\tName", "1\t0.1576\t11664\t1172\twall"])


# ------------------------------------------------------------------------------------------------- exports


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


@published(16, "index", [0, 1, 2], names=["_background_", "cat", "dog"], masks="SegmentationClassPNG")
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


# ------------------------------------------------------------------------------------------------- from above


@published(24, "rgb", ["#000000", "#ffffff"])
def deepglobe_roads(root: Path) -> None:
    """DeepGlobe roads: `1_sat.jpg` and `1_mask.png` in one folder; `valid` and `test` without masks; metadata.csv."""
    rows = ["image_id,split,sat_image_path,mask_path"]
    for part, num in (("train", 24), ("valid", 5), ("test", 5)):
        for index, (image, mask) in enumerate(pairs(roads, num, seed=27 + len(part), size=(64, 64))):
            number = 100034 + index * 7 + len(part) * 1000
            save(root / part / f"{number}_sat.jpg", image)
            if part == "train":
                save(root / part / f"{number}_mask.png", np.repeat(binary(mask)[..., None], 3, -1))
            rows.append(f"{number},{part},{part}/{number}_sat.jpg,{f'{part}/{number}_mask.png' * (part == 'train')}")
    text(root / "metadata.csv", rows)
    text(root / "class_dict.csv", ["name,r,g,b", "road,255,255,255", "background,0,0,0"])


@published({"train": 20, "val": 4, "test": 6}, "rgb", ["#000000", "#ffffff"])
def massachusetts_roads(root: Path) -> None:
    """Massachusetts roads of Kaggle: `tiff/train` .tiff and `tiff/train_labels` .tif, RGB."""
    for part, num in (("train", 20), ("val", 4), ("test", 6)):
        for index, (image, mask) in enumerate(pairs(roads, num, seed=30 + num, size=(96, 96))):
            stem = f"{10078660 + index * 15}_15"
            save(root / "tiff" / part / f"{stem}.tiff", image)
            save(root / "tiff" / f"{part}_labels" / f"{stem}.tif", np.repeat(binary(mask)[..., None], 3, -1))
    text(root / "label_class_dict.csv", ["name,r,g,b", "background,0,0,0", "road,255,255,255"])


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


@published({"train": 20, "val": 10}, "index", [1, 2, 3, 4, 5], ignore=[0])
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


@published(16, "index", [0, 255])
def inria(root: Path) -> None:
    """Inria buildings: `train/images`, `train/gt`, `test/images` alone."""
    for city in ("austin", "chicago", "kitsap", "vienna"):
        for index, (image, mask) in enumerate(pairs(aerial, 4, seed=400 + ord(city[0]), size=(128, 128)), 1):
            save(root / "AerialImageDataset" / "train" / "images" / f"{city}{index}.tif", image)
            save(root / "AerialImageDataset" / "train" / "gt" / f"{city}{index}.tif", binary(mask == 1))
    for index, (image, _) in enumerate(pairs(aerial, 4, seed=33, size=(128, 128)), 1):
        save(root / "AerialImageDataset" / "test" / "images" / f"tyrol-e{index}.tif", image)


@published(24, "threshold", [0, 255])
def water_bodies(root: Path) -> None:
    """Satellite water bodies: JPEG masks in grey, many sizes."""
    for index in range(24):
        rng = np.random.default_rng([34, index])
        image, mask = aerial(rng, (int(rng.integers(50, 90)), int(rng.integers(50, 120))))
        mask[5:20, 5:40] = 3
        image[5:20, 5:40] = (40, 70, 130)
        save(root / "Water Bodies Dataset" / "Images" / f"water_body_{index}.jpg", image)
        save(root / "Water Bodies Dataset" / "Masks" / f"water_body_{index}.jpg", binary(mask == 3))


@published(24, "index", [0, 1, 2, 3, 4], masks="label_images_semantic")
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


@published({"train": 16, "val": 6, "test": 6}, "index", [0, 255])
def whu_building(root: Path) -> None:
    """WHU buildings: `train/Image`, `train/Mask`; some tiles without a building."""
    for part, num in (("train", 16), ("val", 6), ("test", 6)):
        for index, (image, mask) in enumerate(pairs(aerial, num, seed=36 + num + len(part), size=(64, 64))):
            save(root / "WHU" / part / "Image" / f"{index + num * 10}.tif", image)
            save(root / "WHU" / part / "Mask" / f"{index + num * 10}.tif", binary(mask == 1) * (index % 5 > 0))


@published(16, "threshold", [0, 255])
def flood_area(root: Path) -> None:
    """Flood area: `Image/0.jpg`, `Mask/0.png` with soft edges, `metadata.csv` of both."""
    for index, (image, mask) in enumerate(pairs(skyline, 16, seed=37)):
        save(root / "Image" / f"{index}.jpg", image)
        save(root / "Mask" / f"{index}.png", soft(1 - mask))
    text(root / "metadata.csv", ["Image,Mask", *(f"{index}.jpg,{index}.png" for index in range(16))])


# ------------------------------------------------------------------------------------------------- things, people


@published(32, "index", [0, 1], apart=r"([0-9a-f]{12})_")
def carvana(root: Path) -> None:
    """Carvana: `train/…_01.jpg`, `train_masks/…_01_mask.gif`; 8 views of each car; CSVs beside."""
    rows = ["img,rle_mask"]
    for car in range(4):
        frames = drive_along(objects(1, least=3, most=5))(np.random.default_rng([38, car]), SIZE, 8)
        for view, (image, mask) in enumerate(frames, 1):
            stem = f"{car * 7919:012x}_{view:02d}"
            save(root / "train" / f"{stem}.jpg", image)
            save(root / "train_masks" / f"{stem}_mask.gif", Image.fromarray(binary(mask)))
            rows.append(f"{stem}.jpg,1 2 3 4")
    text(root / "train_masks.csv", rows)
    text(root / "sample_submission.csv", ["img,rle_mask", "0004d4463b50_01.jpg,1 1"])
    for index, (image, _) in enumerate(pairs(objects(1), 6, seed=39)):
        save(root / "test" / f"{index:012x}_01.jpg", image)


@published(24, "index", [1, 2, 3])
def oxford_pets(root: Path) -> None:
    """Oxford pets: `annotations/trimaps` 1 pet, 2 background, 3 border; Mac's `._` files; boxes as XML; lists."""
    names = []
    for index, (image, mask) in enumerate(pairs(objects(1, most=2), 24, seed=40)):
        stem = f"{('Abyssinian', 'beagle', 'Egyptian_Mau')[index % 3]}_{index // 3 + 1}"
        names.append(stem)
        save(root / "images" / f"{stem}.jpg", image)
        stored = rim(np.where(mask > 0, 1, 2), 3)
        save(root / "annotations" / "trimaps" / f"{stem}.png", stored)
        (root / "annotations" / "trimaps" / f"._{stem}.png").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
        text(root / "annotations" / "xmls" / f"{stem}.xml", "<annotation/>")
    text(root / "annotations" / "list.txt", ["#Image CLASS-ID SPECIES BREED ID", *(f"{name} 1 1 1" for name in names)])
    text(root / "annotations" / "README", "The Oxford-IIIT Pet Dataset\n")
    (root / "images" / "Abyssinian_100.mat").write_bytes(b"MATLAB 5.0 MAT-file")


@published(20, "rgb", hexes([(0, 0, 0), (0, 255, 0), (255, 0, 0)]), masks="annotations")
def cwfid(root: Path) -> None:
    """CWFID: `images/001_image.png`, `annotations/001_annotation.png` in RGB, `masks/001_mask.png` is vegetation."""
    for index, (image, mask) in enumerate(pairs(field, 20, seed=41), 1):
        save(root / "images" / f"{index:03d}_image.png", image)
        save(root / "annotations" / f"{index:03d}_annotation.png", colored(mask, [(0, 0, 0), (0, 255, 0), (255, 0, 0)]))
        save(root / "masks" / f"{index:03d}_mask.png", binary(mask))
        text(root / "annotations" / f"{index:03d}_annotation.yaml", f"filename: {index:03d}_image.png\n")
    text(root / "train_test_split.yaml", "train: [1, 2]\ntest: [3]\n")


SUIM = [(0, 0, 0), (0, 0, 255), (0, 255, 0), (0, 255, 255), (255, 0, 0), (255, 0, 255)]


@published({"train": 20, "test": 8}, "rgb", hexes(SUIM))
def suim(root: Path) -> None:
    """SUIM: `train_val/images`, `masks` as BMP; `TEST/masks` also has a folder of binary masks for each class."""
    for part, num in (("train_val", 20), ("TEST", 8)):
        for index, (image, mask) in enumerate(pairs(objects(5, least=3, most=7), num, seed=42 + num)):
            stem = f"{'dfnw'[index % 4]}_r_{index * 13 + num}_"
            save(root / part / "images" / f"{stem}.jpg", image)
            save(root / part / "masks" / f"{stem}.bmp", colored(mask, SUIM))
            if part == "TEST":
                for value, short in ((1, "HD"), (4, "RO"), (5, "FV")):
                    save(root / part / "masks" / short / f"{stem}.bmp", binary(mask == value))


FACE = [(0, 0, 0), (0, 255, 0), (255, 0, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255)]


@published({"train": 24, "val": 8}, "rgb", hexes(FACE), nearest=True)
def face_parsing(root: Path) -> None:
    """Face parsing with JPEG masks in colour: thousands of strays around six colours."""
    for part, num in (("train", 24), ("val", 8)):
        for index, (image, mask) in enumerate(pairs(objects(5, least=4, most=7), num, seed=45 + num)):
            save(root / part / "images" / f"{index + num * 100}.jpg", image)
            save(root / part / "labels" / f"{index + num * 100}.jpg", colored(mask, FACE), quality=85)


@published({"train": 20, "test": 10}, "index", [0, 255])
def deepcrack(root: Path) -> None:
    """DeepCrack: `train_img`, `train_lab`, `test_img`, `test_lab`; two ways of naming."""
    for part, num in (("train", 20), ("test", 10)):
        for index, (image, mask) in enumerate(pairs(crack, num, seed=46 + num)):
            stem = f"{11111 + index}" if index % 2 else f"7Q3A{9060 + index}-{index + 1}"
            save(root / f"{part}_img" / f"{stem}.jpg", image)
            save(root / f"{part}_lab" / f"{stem}.png", binary(mask))


@published({"train": 20, "val": 6, "test": 6}, "index", [0, 255])
def crack500(root: Path) -> None:
    """CRACK500: image and mask of one stem in one folder, and lists of pairs beside them; tiles of photographs."""
    for part, num in (("train", 20), ("val", 6), ("test", 6)):
        lines = []
        for index, (image, mask) in enumerate(pairs(crack, num, seed=50 + num + len(part))):
            stem = f"{part}crop/20160{num:03d}_{index * 31 % 60:06d}_1281_721"
            save(root / f"{stem}.jpg", image)
            save(root / f"{stem}.png", binary(mask))
            lines.append(f"{stem}.jpg {stem}.png")
        text(root / f"{part}.txt", lines)


@published(24, "index", [0, 255])
def sky(root: Path) -> None:
    """A sky set whose names do not sort alike: `2.jpg`, `10.jpg` against `sky_02_mask.png`."""
    for index, (image, mask) in enumerate(pairs(skyline, 24, seed=51), 1):
        save(root / "images" / f"sky_{index}.jpg", image)
        save(root / "ground_truth" / f"sky_{index}_gt.png", binary(mask))


@published({"train": 20, "test": 8}, "threshold", [0, 255])
def duts(root: Path) -> None:
    """DUTS: `DUTS-TR/DUTS-TR-Image`, `DUTS-TR-Mask`, soft edges."""
    for part, num in (("TR", 20), ("TE", 8)):
        for index, (image, mask) in enumerate(pairs(objects(1, most=2), num, seed=52 + num)):
            stem = f"ILSVRC2012_test_{index * 71 + num:08d}"
            save(root / f"DUTS-{part}" / f"DUTS-{part}-Image" / f"{stem}.jpg", image)
            save(root / f"DUTS-{part}" / f"DUTS-{part}-Mask" / f"{stem}.png", soft((mask > 0).astype(np.uint8), 0.7))


@published(20, "index", [0, 255])
def ecssd(root: Path) -> None:
    """ECSSD: `images/0001.jpg`, `ground_truth_mask/0001.png`."""
    for index, (image, mask) in enumerate(pairs(objects(1, most=2), 20, seed=54), 1):
        save(root / "images" / f"{index:04d}.jpg", image)
        save(root / "ground_truth_mask" / f"{index:04d}.png", binary(mask))


@published({"train": 20, "test": 6}, "threshold", [0, 255])
def portraits(root: Path) -> None:
    """Portraits: `training/00001.png` and `00001_matte.png` side by side; mattes."""
    for part, num in (("training", 20), ("testing", 6)):
        for index, (image, mask) in enumerate(pairs(portrait, num, seed=55 + num, size=(96, 72)), 1):
            save(root / part / f"{index:05d}.png", image)
            save(root / part / f"{index:05d}_matte.png", soft((mask > 0).astype(np.uint8), 1.2))


@published(20, "rgb", ["#000000", "#010101"])
def full_body(root: Path) -> None:
    """Full body: RGB masks of 0 and 1 that look black."""
    for index, (image, mask) in enumerate(pairs(portrait, 20, seed=58)):
        save(root / "images" / f"HipHop_HipHop1_C0_{index * 90:05d}.png", image)
        save(
            root / "masks" / f"HipHop_HipHop1_C0_{index * 90:05d}.png",
            np.repeat((mask > 0)[..., None] * np.uint8(1), 3, -1),
        )
    text(root / "df.csv", ["images,masks,collages"])


@published(20, "index", [1, 2, 3, 4])
def no_zero(root: Path) -> None:
    """Labels 1 to 4 with no 0."""
    for index, (image, mask) in enumerate(pairs(objects(3, least=2, most=6), 20, seed=59)):
        save(root / "images" / f"{index:03d}.jpg", image)
        save(root / "labels" / f"{index:03d}.png", mask + 1)


@published(20, "index", [0, 255])
def sixteen_bit(root: Path) -> None:
    """16-bit grey TIFF of a camera that uses 12 of them, binary TIFF masks."""
    for index, (image, mask) in enumerate(pairs(nuclei, 20, seed=60)):
        save(root / "raw" / f"t{index:03d}.tif", ((255 - image[..., 1]).astype(np.uint16) * 16))
        save(root / "truth" / f"t{index:03d}.tif", binary(mask))


@published({"train": 20, "val": 6}, "index", [0, 1, 2, 3, 4, 5], ignore=[255])
def coco_stuff(root: Path) -> None:
    """COCO-Stuff: `images/train2017`, `annotations/train2017`, 255 unlabelled."""
    for part, num in (("train2017", 20), ("val2017", 6)):
        for index, (image, mask) in enumerate(pairs(objects(5, least=3, most=7), num, seed=61 + num)):
            save(root / "images" / part / f"{index * 49 + num:012d}.jpg", image)
            save(root / "annotations" / part / f"{index * 49 + num:012d}.png", rim(mask, 255))
    text(root / "labels.txt", ["0: unlabeled", "1: person", "2: bicycle"])


@published(20, "threshold", [0, 255], masks="figure_ground")
def weizmann_horses(root: Path) -> None:
    """Weizmann horses: `rgb/horse001.jpg`, `figure_ground/horse001.jpg`."""
    for index, (image, mask) in enumerate(pairs(objects(1, most=2), 20, seed=63), 1):
        save(root / "weizmann_horse_db" / "rgb" / f"horse{index:03d}.jpg", image)
        save(root / "weizmann_horse_db" / "figure_ground" / f"horse{index:03d}.jpg", binary(mask))
        save(root / "weizmann_horse_db" / "gray" / f"horse{index:03d}.jpg", image[..., 1])


@published(20, "index", [0, 1, 2, 3])
def transparent(root: Path) -> None:
    """Cut-outs: RGBA images that are opaque, palette masks whose palette has transparency."""
    for index, (image, mask) in enumerate(pairs(objects(3, least=2, most=6), 20, seed=64)):
        save(root / "images" / f"item {index}.png", Image.fromarray(image).convert("RGBA"))
        save(root / "masks" / f"item {index}.png", with_palette(mask, VOC_COLORS))


@published({"train": 16, "val": 4, "test": 4}, "index", [0, 1, 2, 3, 4, 5])
def stems_in_lists(root: Path) -> None:
    """`images`, `masks` and lists of stems in `splits`."""
    for index, (image, mask) in enumerate(pairs(street, 24, seed=65)):
        save(root / "images" / f"{index:04d}.jpg", image)
        save(root / "masks" / f"{index:04d}.png", mask)
    for split, numbers in (("train", range(16)), ("val", range(16, 20)), ("test", range(20, 24))):
        text(root / "splits" / f"{split}.txt", [f"{number:04d}" for number in numbers])


@published(40, "index", [0, 1, 2, 3, 4, 5], apart=r"(seq[0-9]+)")
def video_frames(root: Path) -> None:
    """Frames of four videos in one folder: neighbours must stay on one side of the split."""
    for video in range(4):
        frames = drive_along(street)(np.random.default_rng([66, video]), SIZE, 10)
        for index, (image, mask) in enumerate(frames):
            save(root / "images" / f"seq{video + 1:02d}_frame_{index * 5:04d}.png", image)
            save(root / "masks" / f"seq{video + 1:02d}_frame_{index * 5:04d}.png", mask)


@published(48, "index", [0, 1, 2, 3, 4], apart=r"(img[0-9]+)_")
def tiles(root: Path) -> None:
    """Overlapping tiles of six large pictures, named by their corner."""
    for scene in range(6):
        image, mask = aerial(np.random.default_rng([67, scene]), (128, 160))
        for y in (0, 64):
            for x in (0, 32, 64, 96):
                save(root / "images" / f"img{scene:02d}_{y}_{x}.png", image[y : y + 64, x : x + 64])
                save(root / "masks" / f"img{scene:02d}_{y}_{x}.png", mask[y : y + 64, x : x + 64])


@published(24, "index", [0, 1])
def umlauts(root: Path) -> None:
    """Names with spaces, dots, brackets and umlauts; upper-case suffixes; litter of operating systems."""
    for index, (image, mask) in enumerate(pairs(objects(1), 24, seed=68)):
        stem = f"Größe {index}.v2 [neu]"
        save(root / "Bilder und Masken" / "Images" / f"{stem}.JPG", image, format="JPEG")
        save(root / "Bilder und Masken" / "Masks" / f"{stem}.PNG", mask, format="PNG")
    (root / "Bilder und Masken" / "Images" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (root / "Bilder und Masken" / "Images" / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
    (root / "Bilder und Masken" / "Masks" / "desktop.ini").write_bytes(b"[.ShellClassInfo]")
    save(root / "__MACOSX" / "Images" / "._x.png", mask)
    save(root / "Bilder und Masken" / "Images" / ".ipynb_checkpoints" / "Größe 0-checkpoint.JPG", image, format="JPEG")


@published(20, "index", [0, 255])
def membrane_volume_slices(root: Path) -> None:
    """Slices of a volume, each much like the next."""
    frames = drive_along(membranes, wide=2)(np.random.default_rng(69), (64, 64), 20)
    for index, (image, mask) in enumerate(frames):
        save(root / "train" / "image" / f"{index}.png", image[..., 0])
        save(root / "train" / "label" / f"{index}.png", binary(mask))


# ------------------------------------------------------------------------------------------------- no masks as they are


@unsupported(r"one mask (for|per|of) (each|every|an) object|mask (for|per|of) (each|every|an|one) object")
def dsb2018(root: Path) -> None:
    """Data Science Bowl 2018: a folder an image, a mask an object."""
    for index, (image, mask) in enumerate(pairs(nuclei, 6, seed=70)):
        name = f"{index * 104729:064x}"
        save(root / "stage1_train" / name / "images" / f"{name}.png", image)
        for number in range(1, int(mask.max()) + 1):
            save(root / "stage1_train" / name / "masks" / f"{number * 7919:064x}.png", binary(mask == number))


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


@unsupported(r"\.xml|XML")
def monuseg_xml(root: Path) -> None:
    """MoNuSeg as published: outlines in XML."""
    for index, (image, _) in enumerate(pairs(nuclei, 6, seed=72)):
        save(root / "Tissue Images" / f"TCGA-18-{index}.tif", image)
        text(root / "Annotations" / f"TCGA-18-{index}.xml", "<Annotations/>")


@unsupported(r"COCO")
def coco_json(root: Path) -> None:
    """COCO: polygons in one JSON."""
    for index, (image, _) in enumerate(pairs(objects(2), 6, seed=73)):
        save(root / "train" / f"{index:012d}.jpg", image)
    text(root / "train" / "_annotations.coco.json", json.dumps({"images": [], "annotations": [], "categories": []}))


@unsupported(r"labelme")
def labelme_json(root: Path) -> None:
    """labelme before its export: a JSON beside each image."""
    for index, (image, _) in enumerate(pairs(objects(2), 6, seed=74)):
        save(root / f"IMG_{index}.jpg", image)
        text(root / f"IMG_{index}.json", json.dumps({"shapes": [], "imagePath": f"IMG_{index}.jpg"}))


@unsupported(r"YOLO|polygons|\.txt")
def yolo_txt(root: Path) -> None:
    """YOLO: polygons in text files."""
    for index, (image, _) in enumerate(pairs(objects(2), 6, seed=75)):
        save(root / "train" / "images" / f"{index}.jpg", image)
        text(root / "train" / "labels" / f"{index}.txt", "0 0.1 0.1 0.2 0.1 0.2 0.2\n")
    text(root / "data.yaml", "names: [cat, dog]\n")


@unsupported(r"several masks|masks of one image|a mask (for|per|of) (each|every) (part|object)")
def celebamask(root: Path) -> None:
    """CelebAMask-HQ as published: a mask for each part of each face."""
    for index, (image, mask) in enumerate(pairs(objects(3, least=3), 6, seed=76)):
        save(root / "CelebA-HQ-img" / f"{index}.jpg", image)
        for value, part in ((1, "skin"), (2, "hair"), (3, "nose")):
            save(root / "CelebAMask-HQ-mask-anno" / "0" / f"{index:05d}_{part}.png", binary(mask == value))
