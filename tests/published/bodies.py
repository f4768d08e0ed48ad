"""Of eyes, tissue and patients."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from scenes import (
    drive_along,
    lesion,
    nuclei,
    objects,
    polyp,
    retina,
)

from published.registry import (
    SIZE,
    binary,
    pairs,
    published,
    save,
    text,
)


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


@published(24, "rgb", ["#000000", "#ffffff"], nearest=True, warns="JPEG")
def kvasir_seg(root: Path) -> None:
    """Kvasir-SEG: JPEG masks with three equal channels, one folder further down, boxes beside them."""
    for index, (image, mask) in enumerate(pairs(polyp, 24, seed=4)):
        stem = f"cju0{index * 7919 % 9973:04d}qxvo8vxwc5h8ex"
        save(root / "Kvasir-SEG" / "images" / f"{stem}.jpg", image)
        save(root / "Kvasir-SEG" / "masks" / f"{stem}.jpg", np.repeat(binary(mask)[..., None], 3, -1))
    text(root / "Kvasir-SEG" / "kavsir_bboxes.json", json.dumps({"cju0": {"height": 529, "bbox": []}}))


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


@published({"train": 20, "test": 12}, "index", [0, "1..255"])
def glas(root: Path) -> None:
    """GlaS: one folder, BMP, `train_1.bmp` and `train_1_anno.bmp`; ids of glands, testA and testB.

    Every id is an object.
    """
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


@published(18, "index", [0, 255], masks="/masks/")
def lungs_of_two_hospitals(root: Path) -> None:
    """Shenzhen and Montgomery: `Lung Segmentation` around all; some masks have `_mask`, others have not."""
    base = root / "data" / "Lung Segmentation"
    for index, (image, mask) in enumerate(pairs(objects(1, least=2), 18, seed=910)):
        stem = f"{'CHNCXR' if index % 3 else 'MCUCXR'}_{index + 1:04d}_{index % 2}"
        save(base / "CXR_png" / f"{stem}.png", image[..., 0])
        save(base / "masks" / f"{stem}{'_mask' if index % 3 else ''}.png", binary(mask))
    save(base / "test" / "CHNCXR_0900_0.png", image[..., 0])


@published({"train": 12, "val": 5}, "index", [0, 255])
def isic2017(root: Path) -> None:
    """ISIC 2017: `_superpixels.png` beside each image, which are neither images nor masks."""
    for part, num in (("Training", 12), ("Validation", 5)):
        for index, (image, mask) in enumerate(pairs(lesion, num, seed=911 + num)):
            stem = f"ISIC_{index * 3 + num:07d}"
            save(root / f"ISIC-2017_{part}_Data" / f"{stem}.jpg", image)
            save(root / f"ISIC-2017_{part}_Data" / f"{stem}_superpixels.png", image // 64 * 64)
            save(root / f"ISIC-2017_{part}_Part1_GroundTruth" / f"{stem}_segmentation.png", binary(mask))


@published(16, "index", [0, 85, 170, 255])
def tumours(root: Path) -> None:
    """Slices of a brain: swelling, tumour and its core, which lie within each other, at equal steps of grey."""
    for index in range(16):
        rng = np.random.default_rng(1540 + index)
        middle = rng.integers(16, [SIZE[0] - 16, SIZE[1] - 16])
        far = np.hypot(*(np.indices(SIZE) - middle[:, None, None]))
        mask = 85 * sum((far < radius).astype(np.uint8) for radius in (12, 8, 5))
        save(root / "images" / f"slice_{index:03d}.png", (60 + mask / 2 + rng.integers(0, 20, SIZE)).astype(np.uint8))
        save(root / "masks" / f"slice_{index:03d}.png", mask.astype(np.uint8))


@published({"train": 16, "val": 5, "test": 5}, "index", [0, 85, 170, 255], masks="_seg_", apart=r"case_([0-9]+)_slice")
def oasis(root: Path) -> None:
    """OASIS as slices: `keras_png_slices_train` and `keras_png_slices_seg_train`, `validate`, two endings in a name."""
    base = root / "keras_png_slices_data"
    for part, num in (("train", 16), ("validate", 5), ("test", 5)):
        for index, (image, mask) in enumerate(pairs(objects(3, least=3), num, seed=1610 + len(part))):
            stem = f"{10 * len(part) + index // 2:03d}_slice_{index % 2}.nii"
            save(base / f"keras_png_slices_{part}" / f"case_{stem}.png", image.mean(-1).astype(np.uint8))
            levels = np.array([0, 85, 170, 255], np.uint8)[mask]
            save(base / f"keras_png_slices_seg_{part}" / f"seg_{stem}.png", levels)


@published({"train": 20, "test": 8}, "index", [0, 85, 170, 255], images="org_", masks="label_")
def jsrt(root: Path) -> None:
    """JSRT's segmentation02: `org_train` and `label_train` within `segmentation`, the test beside them."""
    for part, num in (("train", 20), ("test", 8)):
        for index, (image, mask) in enumerate(pairs(objects(3, least=3, color=(90, 90, 90)), num, seed=1720 + num)):
            base, stem = root / "segmentation02" / "segmentation", f"case{index + num * 3:03d}"
            save(base / f"org_{part}" / f"{stem}.bmp", image.mean(-1).astype(np.uint8))
            save(base / f"label_{part}" / f"{stem}.png", np.array([0, 85, 170, 255], np.uint8)[mask])


@published({"train": 14, "val": 5, "test": 5}, "index", [0, 255])
def nuclei_with_development(root: Path) -> None:
    """Nuclei of a screen: what validates is called development."""
    for part, num in (("training", 14), ("development", 5), ("test", 5)):
        for index, (image, mask) in enumerate(pairs(nuclei, num, seed=1795 + num + len(part))):
            save(root / f"{part}_nuclei" / "images" / f"{part}_{index}.png", image.mean(-1).astype(np.uint8))
            save(root / f"{part}_nuclei" / "annotations" / f"{part}_{index}.png", binary(mask))
