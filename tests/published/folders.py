"""Folders within folders: several versions, kinds and classes of masks, several files of one picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from scenes import aerial, drive_along, lesion, nuclei, objects, polyp, portrait, street

from published.registry import (
    SIZE,
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

ISAID = [(0, 0, 0), (0, 0, 63), (0, 63, 63), (0, 63, 0), (0, 63, 127)]


@published({"train": 14, "val": 6}, "rgb", hexes(ISAID), masks="Semantic_masks")
def isaid(root: Path) -> None:
    """iSAID: `Semantic_masks/images` holds masks, instances beside them, COCO's JSON too, no masks for `test`."""
    for part, num in (("train", 14), ("val", 6)):
        for index, (image, mask) in enumerate(pairs(objects(4, least=3), num, seed=900 + num)):
            stem = f"P{index + num * 7:04d}"
            save(root / "iSAID" / part / "images" / "images" / f"{stem}.png", image)
            masks = root / "iSAID" / part / "Semantic_masks" / "images"
            save(masks / f"{stem}_instance_color_RGB.png", colored(mask, ISAID))
            ids = root / "iSAID" / part / "Instance_masks" / "images" / f"{stem}_instance_id_RGB.png"
            save(ids, colored((mask > 0) * (index % 3 + 1), [(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)]))
        outlines = json.dumps({"images": [], "annotations": [], "categories": []})
        text(root / "iSAID" / part / "Annotations" / f"iSAID_{part}.json", outlines)
    save(root / "iSAID" / "test" / "images" / "P0900.png", image)


@published({"train": 12, "val": 5}, "index", range(6), masks="/labels/")
def mapillary(root: Path) -> None:
    """Mapillary Vistas: two versions of palette masks, 16-bit instances and polygons beside them."""
    names = ("sky", "building", "road", "car", "person", "tree")
    for part, num in (("training", 12), ("validation", 5)):
        for index, (image, mask) in enumerate(pairs(street, num, seed=902 + num)):
            stem = f"{index * 7919 + num:05d}_KcWe0v5lJm"
            save(root / part / "images" / f"{stem}.jpg", image)
            for version, shift in (("v1.2", 0), ("v2.0", 1)):
                labels = with_palette(mask, VOC_COLORS[shift:])
                save(root / part / version / "labels" / f"{stem}.png", labels)
                save(root / part / version / "instances" / f"{stem}.png", mask.astype(np.uint16) * 256 + shift)
            text(root / part / "v2.0" / "polygons" / f"{stem}.json", "{}")
    for version, shift in (("v1.2", 0), ("v2.0", 1)):
        labels = [{"name": name, "color": VOC_COLORS[i + shift]} for i, name in enumerate(names)]
        text(root / f"config_{version}.json", json.dumps({"labels": labels}))


@published(18, "index", [0, 255], images="test")
def mvtec(root: Path) -> None:
    """MVTec AD: `test/cut/000.png` and `ground_truth/cut/000_mask.png`; what is good has no mask."""
    base = root / "carpet"
    for index, (image, _) in enumerate(pairs(lesion, 10, seed=904)):
        save(base / ("train" if index < 6 else "test") / "good" / f"{index:03d}.png", image)
    for seed, defect in enumerate(("color", "cut", "hole")):
        for index, (image, mask) in enumerate(pairs(lesion, 6, seed=905 + seed)):
            save(base / "test" / defect / f"{index:03d}.png", image)
            save(base / "ground_truth" / defect / f"{index:03d}_mask.png", binary(mask))


@published(12, "index", [0, 1, 2], names=["background", "edema", "tumour"], images="_0000")
def nnunet_channels(root: Path) -> None:
    """nnU-Net with four files an image, one for each channel, which have names as the classes have."""
    folder = root / "Dataset001_BrainTumour"
    for index, (image, mask) in enumerate(pairs(objects(2, least=2), 12, seed=908)):
        for channel in range(4):
            path = folder / "imagesTr" / f"BRATS_{index:03d}_{channel:04d}.png"
            save(path, (image.mean(-1) * (0.6 + 0.1 * channel)).astype(np.uint8))
        save(folder / "labelsTr" / f"BRATS_{index:03d}.png", mask)
    channels = {"0": "FLAIR", "1": "T1w", "2": "t1gd"}
    named = {"background": 0, "edema": 1, "tumour": 2}
    text(folder / "dataset.json", json.dumps({"channel_names": channels, "labels": named, "numTraining": 12}))


@published({"train": 14, "val": 6}, "index", range(5), names=["background", "11", "12", "13", "14"])
def aeroscapes_lists(root: Path) -> None:
    """Lists named `trn.txt` and `val.txt` beside lists of another task; names with the greys of masks for machines."""
    stems = []
    for index, (image, mask) in enumerate(pairs(objects(4, least=5, most=7), 20, seed=909)):
        stems.append(f"{index // 6 + 1:06d}_{index % 6 + 1:03d}")
        save(root / "JPEGImages" / f"{stems[-1]}.jpg", image)
        save(root / "SegmentationClass" / f"{stems[-1]}.png", mask)
    for folder, first in (("Main", 10), ("Segmentation", 14)):
        text(root / "ImageSets" / folder / "trn.txt", stems[:first])
        text(root / "ImageSets" / folder / "val.txt", stems[first:])
    grey = {str(10 + value): [value] * 3 for value in range(1, 5)}
    text(root / "obj_class_to_machine_color.json", json.dumps(grey))


@unsupported("at another time")
def levir_cd(root: Path) -> None:
    """LEVIR-CD: two pictures for each mask, which holds what has changed."""
    for index, (image, mask) in enumerate(pairs(aerial, 6, seed=910)):
        save(root / "train" / "A" / f"train_{index}.png", image)
        save(root / "train" / "B" / f"train_{index}.png", image[::-1])
        save(root / "train" / "label" / f"train_{index}.png", binary(mask == 1))


@unsupported("at another time")
def s2looking(root: Path) -> None:
    """S2Looking: pictures of two times in numbered folders, and masks of what came, of what went, and of both."""
    for index, (image, mask) in enumerate(pairs(objects(2), 6, seed=911)):
        save(root / "train" / "Image1" / f"{index}.png", image)
        save(root / "train" / "Image2" / f"{index}.png", image[::-1])
        for name, drawn in (("label", mask), ("label1", mask == 1), ("label2", mask == 2)):
            save(root / "train" / name / f"{index}.png", binary(drawn))


@unsupported("several masks, one for each part")
def montgomery_halves(root: Path) -> None:
    """Montgomery chest X-rays: the left and the right lung in folders of their own."""
    for index, (image, mask) in enumerate(pairs(polyp, 6, seed=911)):
        save(root / "CXR_png" / f"MCUCXR_{index:04d}_0.png", image[..., 0])
        lung = np.where(np.arange(SIZE[1]) < SIZE[1] // 2, mask, 0)
        for side, half in (("left", lung), ("right", lung[:, ::-1])):
            save(root / "ManualMask" / f"{side}Mask" / f"MCUCXR_{index:04d}_0.png", binary(half))


@unsupported("several masks, one for each part")
def mhp(root: Path) -> None:
    """MHP: a mask for each person, told apart by numbers alone."""
    for index, (image, mask) in enumerate(pairs(portrait, 6, seed=913)):
        save(root / "train" / "images" / f"{index}.jpg", image)
        for person in (1, 2):
            save(root / "train" / "parsing_annos" / f"{index}_02_{person:02d}.png", np.roll(mask, 20 * person, 1))


@unsupported("nothing that says mask or label")
def kinds_of_photographs(root: Path) -> None:
    """Photographs whose names begin with one of two words: none is the mask of another."""
    for index, (image, _) in enumerate(pairs(street, 12, seed=914)):
        save(root / "image_2" / f"{('um', 'uu')[index % 2]}_{index // 2:06d}.png", image)


@unsupported(r"compressed files \(\.gz\). Unpack")
def stare_packed(root: Path) -> None:
    """STARE: each picture is packed."""
    for folder, end in (("stare-images", ""), ("labels-ah", ".ah")):
        (root / folder).mkdir(parents=True)
        for index in range(4):
            (root / folder / f"im{index:04d}{end}.ppm.gz").write_bytes(b"\x1f\x8b\x08\x00")


@published(10, "index", [0, "1..65535"], masks="_GT/SEG/")
def cell_tracking(root: Path) -> None:
    """Cell Tracking Challenge: `01/t000.tif` and `01_GT/SEG/man_seg000.tif`, few frames; markers of all in `TRA`."""
    for sequence in ("01", "02"):
        for index, (image, mask) in enumerate(drive_along(nuclei)(np.random.default_rng(int(sequence)), SIZE, 10)):
            save(root / "DIC-HeLa" / sequence / f"t{index:03d}.tif", image[..., 0])
            truth = root / "DIC-HeLa" / f"{sequence}_GT"
            save(truth / "TRA" / f"man_track{index:03d}.tif", (mask * (image[..., 0] > 120)).astype(np.uint16))
            if index % 2 == 0:
                save(truth / "SEG" / f"man_seg{index:03d}.tif", mask.astype(np.uint16) * 3)


@published(12, "rgb", ["#ff0000", "#ff00ff"], masks="_road_")
def kitti_road(root: Path) -> None:
    """KITTI road: `um_000001` and `um_road_000001`, lanes beside them, `testing` without masks."""
    folder = root / "data_road" / "training"
    for index, (image, mask) in enumerate(pairs(street, 12, seed=915)):
        kind, number = ("um", "umm", "uu")[index % 3], f"{index // 3:06d}"
        save(folder / "image_2" / f"{kind}_{number}.png", image)
        colors = colored((mask == 2).astype(int), [(255, 0, 0), (255, 0, 255)])
        for what in ("road", "lane") if kind == "um" else ("road",):
            save(folder / "gt_image_2" / f"{kind}_{what}_{number}.png", colors)
    save(root / "data_road" / "testing" / "image_2" / "um_000000.png", image[::-1])


@published(12, "index", [0, 1], masks="_lesion/")
def ph2(root: Path) -> None:
    """PH2: a folder for each kind of file of each case; regions with numbers beside the lesions."""
    for index, (image, mask) in enumerate(pairs(lesion, 12, seed=916), 2):
        name = f"IMD{index:03d}"
        folder = root / "PH2Dataset" / "PH2 Dataset images" / name
        save(folder / f"{name}_Dermoscopic_Image" / f"{name}.bmp", image)
        save(folder / f"{name}_lesion" / f"{name}_lesion.bmp", Image.fromarray(binary(mask)).convert("1"))
        if index % 2:
            save(folder / f"{name}_roi" / f"{name}_R1_Label3.bmp", Image.fromarray(binary(mask)).convert("1"))
    text(root / "PH2Dataset" / "PH2_dataset.txt", ["|| Name || Clinical Diagnosis ||"])


@published(14, "rgb", ["#000000", "#ffffff"], masks="PNG/Ground Truth", images="PNG/Original")
def two_formats(root: Path) -> None:
    """CVC-ClinicDB of Kaggle: all pictures twice, as `PNG` and as `TIF`, which would leak from one split to another."""
    for index, (image, mask) in enumerate(pairs(polyp, 14, seed=940), 1):
        for kind in ("PNG", "TIF"):
            save(root / kind / "Original" / f"{index}.{kind.lower()}", image)
            save(
                root / kind / "Ground Truth" / f"{index}.{kind.lower()}",
                colored((mask > 0) * 1, [(0,) * 3, (255,) * 3]),
            )


@published(12, "index", [0, 255], masks="masks/0")
def a_folder_a_class(root: Path) -> None:
    """As UNet++ trains: a folder for each class, of which there is one."""
    for index, (image, mask) in enumerate(pairs(lesion, 12, seed=941)):
        save(root / "inputs" / "moles" / "images" / f"m{index}.png", image)
        save(root / "inputs" / "moles" / "masks" / "0" / f"m{index}.png", binary(mask))


@published(15, "index", [0, 1, 2], images="/color/", masks="/label/")
def scannet(root: Path) -> None:
    """ScanNet: a folder for each scene, in it `color`, `depth`, `instance` and `label`."""
    for scene in range(3):
        for index, (image, mask) in enumerate(pairs(objects(2, least=3), 5, seed=942 + scene)):
            folder = root / "scannet_frames" / f"scene{scene:04d}_00"
            save(folder / "color" / f"{index * 100:06d}.jpg", image)
            save(folder / "label" / f"{index * 100:06d}.png", mask)
            save(folder / "instance" / f"{index * 100:06d}.png", mask.astype(np.uint16) * 1000)
            save(folder / "depth" / f"{index * 100:06d}.png", image[..., 0].astype(np.uint16) * 30)


@published(12, "index", [0, 1, 2], images="/rgb/", masks="/classSegmentation/")
def virtual_kitti(root: Path) -> None:
    """Virtual KITTI: `frames` around images and masks, whose names begin with their kind; two scenes."""
    for scene in ("Scene01", "Scene02"):
        for index, (image, mask) in enumerate(pairs(objects(2, least=3), 6, seed=945 + int(scene[-1]))):
            frames = root / scene / "clone" / "frames"
            save(frames / "rgb" / "Camera_0" / f"rgb_{index:05d}.jpg", image)
            save(frames / "classSegmentation" / "Camera_0" / f"classgt_{index:05d}.png", mask)
            save(frames / "instanceSegmentation" / "Camera_0" / f"instancegt_{index:05d}.png", mask)


@published({"train": 12, "val": 5}, "index", [0, 1, 2], ignore=[255], masks="stuffthingmaps")
def coco_pixelmaps(root: Path) -> None:
    """COCO with pixel maps: no folder says images or masks; photographs are JPEG, maps are not."""
    for part, num in (("train2017", 12), ("val2017", 5)):
        for index, (image, mask) in enumerate(pairs(objects(2, least=3), num, seed=950 + num)):
            save(root / part / f"{index * 49 + num:012d}.jpg", image)
            save(root / "stuffthingmaps_trainval2017" / part / f"{index * 49 + num:012d}.png", rim(mask, 255))
    text(root / "annotations" / "instances_val2017.json", '{"images": [], "annotations": [], "categories": []}')
