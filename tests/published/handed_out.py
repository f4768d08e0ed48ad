"""As sites and tools hand sets out: stored twice, sequence by sequence, with lists of another folder's paths."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scenes import aerial, drive_along, field, lesion, nuclei, objects, portrait, soft, street

from published.registry import SIZE, VOC_COLORS, binary, colored, hexes, pairs, published, save, text, unsupported


@published(14, "rgb", hexes(VOC_COLORS[:3]), masks="___fuse.png", names=["background", "cat", "dog"])
def superannotate(root: Path) -> None:
    """SuperAnnotate: `___fuse` holds the colours of classes, `___save` a blue of its own for each object."""
    for index, (image, mask) in enumerate(pairs(objects(2, least=2), 14, seed=1400), 1):
        stem, nothing = f"Frame 1  ({index}).jpg", np.zeros_like(mask)
        blues = np.dstack([nothing, mask * np.uint8(7 * index), mask * np.uint8(3 * index), nothing + 255])
        save(root / "images" / stem, image)
        save(root / "images" / f"{stem}___fuse.png", colored(mask, VOC_COLORS))
        save(root / "images" / f"{stem}___save.png", blues)
    classes = [{"id": 1, "name": "cat", "color": "#800000"}, {"id": 2, "name": "dog", "color": "#008000"}]
    text(root / "classes" / "classes.json", json.dumps(classes))
    text(root / "COCO_pixel.json", json.dumps({"images": [], "annotations": [], "categories": []}))


@published(16, "index", [0, 1, 2], masks="png_masks/", images="png_images/", names=["null", "skin", "coat"])
def clothing(root: Path) -> None:
    """Clothing of Kaggle: all of it as JPEG, which spoils indices, and again as PNG."""
    for index, (image, mask) in enumerate(pairs(portrait, 16, seed=1401), 1):
        for kind, suffix in (("jpeg", ".jpeg"), ("png", ".png")):
            save(root / f"{kind}_images" / "IMAGES" / f"img_{index:04d}{suffix}", image)
            save(root / f"{kind}_masks" / "MASKS" / f"seg_{index:04d}{suffix}", mask)
    text(root / "labels.csv", [",label_list", "0,null", "1,skin", "2,coat"])


@published(14, "index", range(6), images="jpg/", masks="png/")
def photographs_and_masks_by_format(root: Path) -> None:
    """Two folders named after formats are no copies of each other where one holds masks."""
    for index, (image, mask) in enumerate(pairs(street, 14, seed=1402)):
        save(root / "jpg" / f"{index}.jpg", image)
        save(root / "png" / f"{index}.png", mask)


@published({"train": 15, "val": 3, "test": 6}, "index", range(0, 18, 3), masks="_label_id/", images="_node/")
def rellis(root: Path) -> None:
    """RELLIS-3D: few sequences, folders of cameras whose names say nothing, lists with paths below another folder."""
    rows: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number in range(3):
        for index, (image, mask) in enumerate(pairs(street, 8, seed=1403 + number)):
            camera, stem = f"{number:05d}/pylon_camera_node", f"frame{5 * index:06d}-158162465{index}_750"
            save(root / "Rellis-3D" / camera / f"{stem}.jpg", image)
            save(root / "Rellis-3D" / f"{camera}_label_id" / f"{stem}.png", mask * 3)
            save(root / "Rellis-3D" / f"{camera}_label_color" / f"{stem}.png", colored(mask, VOC_COLORS))
            split = "train" if index < 5 else "val" if index < 6 else "test"
            rows[split].append(f"{camera}/{stem}.jpg {camera}_label_id/{stem}.png")
    for split, lines in rows.items():
        text(root / f"{split}.lst", lines)


@published(24, "index", range(6), masks="_label_id/", images="/camera/", apart="(000[0-9])/")
def sequences_of_a_camera(root: Path) -> None:
    """The same without lists."""
    for number in range(3):
        for index, (image, mask) in enumerate(pairs(street, 8, seed=1406 + number)):
            save(root / f"{number:04d}" / "camera" / f"{index}.jpg", image)
            save(root / f"{number:04d}" / "camera_label_id" / f"{index}.png", mask)
            save(root / f"{number:04d}" / "camera_label_color" / f"{index}.png", colored(mask, VOC_COLORS))


@published(15, "index", [0, 1, 2], images="/RGB/", masks="_iMap")
def weedmap(root: Path) -> None:
    """WeedMap: the folder's number again in the names of masks alone; channels beside RGB, colours beside indices."""
    for number in (0, 1, 3):
        for index, (image, mask) in enumerate(pairs(field, 5, seed=1410 + number)):
            base, stem = root / "RedEdge" / f"{number:03d}", f"frame{index:04d}"
            save(base / "tile" / "RGB" / f"{stem}.png", image)
            save(base / "tile" / "B" / f"{stem}.png", image[..., 2])
            truth = base / "groundtruth" / f"{number:03d}_{stem}_GroundTruth"
            save(truth.with_name(f"{truth.name}_color.png"), colored(mask, VOC_COLORS))
            save(truth.with_name(f"{truth.name}_iMap.png"), mask)


@published(15, "index", [0, 255], images="/test/", masks="/ground_truth/", warns="without a mask")
def btad(root: Path) -> None:
    """BTAD: three products, good pictures of the same numbers as the bad ones."""
    for number in (1, 2, 3):
        base = root / "BTech" / f"{number:02d}"
        for index, (image, mask) in enumerate(pairs(lesion, 8, seed=1420 + number)):
            save(base / "train" / "ok" / f"{index:04d}.png", image[::-1].copy())
            save(base / "test" / ("ko" if index < 5 else "ok") / f"{index % 5:04d}.png", image)
            if index < 5:
                save(base / "ground_truth" / "ko" / f"{index:04d}.png", binary(mask))
        for index, (image, _) in enumerate(pairs(lesion, 4, seed=1430 + number), 3):
            save(base / "test" / "ok" / f"{index:04d}.png", image)


@published({"train": 12, "val": 5, "test": 4}, "index", range(1, 7))
def street_hazards(root: Path) -> None:
    """StreetHazards: `train/images/training` and `train/images/validation`."""
    for part, inner, num in (("train", "training", 12), ("train", "validation", 5), ("test", "test", 4)):
        for index, (image, mask) in enumerate(pairs(street, num, seed=1440 + num)):
            save(root / part / "images" / inner / f"t{index % 3}" / f"{index}.png", image)
            save(root / part / "annotations" / inner / f"t{index % 3}" / f"{index}.png", mask + 1)


@published({"train": 15, "test": 10}, "threshold", [0, 255], images="/fgr/", masks="/pha/", warns="JPEG")
def video_mattes(root: Path) -> None:
    """VideoMatte: `fgr` and `pha` for each split, numbered videos in each."""
    for part, num in (("train", 3), ("test", 2)):
        for video in range(num):
            frames = drive_along(objects(1, least=3))(np.random.default_rng([1450, video, num]), SIZE, 5)
            for index, (image, mask) in enumerate(frames):
                save(root / "VideoMatte240K" / part / "fgr" / f"{video:04d}" / f"{index:05d}.jpg", image)
                save(root / "VideoMatte240K" / part / "pha" / f"{video:04d}" / f"{index:05d}.jpg", soft(mask))


@published({"train": 14}, "index", range(5), images="labeled_train/", masks="/UrbanAtlas/")
def labelled_part(root: Path) -> None:
    """DFC2022: `labeled_train` is a part of the set, and no folder of masks."""
    for index, (image, mask) in enumerate(pairs(aerial, 14, seed=1460)):
        stem = f"06-2014-09{index:02d}-LA93"
        save(root / "labeled_train" / "Nice" / "BDORTHO" / f"{stem}.tif", image)
        save(root / "labeled_train" / "Nice" / "UrbanAtlas" / f"{stem}_UA2012.tif", mask)
        save(root / "unlabeled_train" / "Nice" / "BDORTHO" / f"{stem}.tif", np.roll(image, 9, 1))


@unsupported(r"MATLAB files \(\.mat\)")
def consep(root: Path) -> None:
    """CoNSeP: MATLAB's files, and overlays, which show masks and are none."""
    for part, num in (("Train", 8), ("Test", 4)):
        for index, (image, mask) in enumerate(pairs(nuclei, num, seed=1470 + num), 1):
            save(root / part / "Images" / f"{index}.png", image)
            save(root / part / "Overlay" / f"{index}.png", image // 2 + colored((mask > 0) * 1, VOC_COLORS) // 2)
            text(root / part / "Labels" / f"{index}.mat", "MATLAB 5.0 MAT-file")


@unsupported(r"holds several masks of one image")
def drishti(root: Path) -> None:
    """Drishti-GS: a folder for each image with masks of disc and cup; one of them is not the set's truth."""
    for index, (image, mask) in enumerate(pairs(lesion, 8, seed=1480), 2):
        stem = f"drishtiGS_{index:03d}"
        save(root / "Training" / "Images" / f"{stem}.png", image)
        for kind in ("OD", "cup"):
            save(root / "Training" / "GT" / stem / "SoftMap" / f"{stem}_{kind}segSoftmap.png", binary(mask))


@unsupported(r"no images with masks of the same names")
def bbbc006(root: Path) -> None:
    """BBBC006: a random tail on each image's name, so that what one pair is told by fits no other."""
    for index, (image, mask) in enumerate(pairs(nuclei, 8, seed=1490)):
        stem = f"mcf-z-stacks-03212011_a{index:02d}_s1"
        for channel in (1, 2):
            tail = f"{(index + 1) * channel * 104729:08x}-23a2-4e28"
            save(root / "BBBC006_v1_images_z_16" / f"{stem}_w{channel}{tail}.tif", image[..., channel])
        save(root / "BBBC006_v1_labels" / f"{stem}.png", mask.astype(np.uint16))


@unsupported(r"each image has several masks, one for each part or object")
def endovis(root: Path) -> None:
    """EndoVis 2017: a folder of masks for each instrument, others in each video; their objects never overlap."""
    for video in (1, 2, 3):
        for index, (image, mask) in enumerate(pairs(field, 5, seed=1500 + video)):
            base, name = root / f"instrument_dataset_{video}", f"frame{index:03d}.png"
            save(base / "left_frames" / name, image)
            save(base / "ground_truth" / "Left_Prograsp_Forceps_labels" / name, (mask == 1) * np.uint8(10))
            save(base / "ground_truth" / f"Instrument_{video}_labels" / name, (mask == 2) * np.uint8(30))


@published(10, "index", [0, 255], masks="/first_observer_masks/")
def two_observers(root: Path) -> None:
    """Abdi's jaws: two people's masks of one object, which are no two classes."""
    for index, (image, mask) in enumerate(pairs(lesion, 10, seed=1510), 1):
        save(root / "Images" / f"{index}.png", image)
        save(root / "first_observer_masks" / f"{index}.png", binary(mask))
        save(root / "other_observer_masks" / f"{index}.png", np.roll(binary(mask), 2, 1))


@unsupported(r"Maps1_T, Maps2_T hold a few values in areas, as masks do")
def gleason(root: Path) -> None:
    """Gleason 2019: maps of several pathologists, and no word for masks."""
    for index, (image, mask) in enumerate(pairs(objects(3, least=3), 8, seed=1520)):
        save(root / "Train Imgs" / f"slide001_core{index:03d}.jpg", image)
        save(root / "Maps1_T" / f"slide001_core{index:03d}_classimg_nonconvex.png", mask)
        save(root / "Maps2_T" / f"slide001_core{index:03d}_classimg_nonconvex.png", np.roll(mask, 2, 1))


@unsupported(r"differ from others in blue alone .* \(of the full ADE20K, red // 10 \* 256 \+ green\)")
def ade20k_full(root: Path) -> None:
    """ADE20K in full: the class in red and green, the object in blue, and masks of single objects further down."""
    for part, num in (("training", 24), ("validation", 8)):
        for index, (image, mask) in enumerate(pairs(street, num, seed=1540 + num)):
            rng = np.random.default_rng([1541, num, index])
            classes, folder = np.array([2420, 312, 2131, 401, 1831, 2855]), root / "images" / "ADE" / part / "urban"
            channels = (classes // 256 * 10, classes % 256, rng.permutation(40)[:6])
            stem = f"ADE_{part}_{index + 1:08d}"
            save(folder / f"{stem}.jpg", image)
            save(folder / f"{stem}_seg.png", np.dstack([values[mask] for values in channels]).astype(np.uint8))
            for number in (2, 3):
                save(folder / stem / f"instance_{number:03d}_{stem}.png", binary(mask == number))


@unsupported(r"train.labels: each image has several masks")
def agriculture_vision(root: Path) -> None:
    """Agriculture-Vision: a folder for each class in `labels`; `masks` holds which pixels are there at all."""
    for index, (image, mask) in enumerate(pairs(objects(3, least=2), 12, seed=1542)):
        stem, columns = f"{37 * index:03d}ABC_{index}-{index + 512}-1-5", np.arange(mask.shape[1])[None]
        save(root / "train" / "images" / "rgb" / f"{stem}.jpg", image)
        save(root / "train" / "images" / "nir" / f"{stem}.jpg", image[..., 0])
        save(root / "train" / "masks" / f"{stem}.png", binary((mask == mask) & (columns >= 3 * (index % 4))))
        for number, kind in enumerate(("double_plant", "drydown", "weed_cluster"), 1):
            save(root / "train" / "labels" / kind / f"{stem}.png", binary(mask == number))


@unsupported(r"seems to be the mask of all images in \d+\. .*pairs\.csv")
def skyfinder(root: Path) -> None:
    """SkyFinder: one mask for all images of a camera."""
    for camera in (623, 684, 3297):
        for index, (image, mask) in enumerate(pairs(lesion, 4, seed=camera)):
            save(root / "images" / str(camera) / f"20130{index}01_123000.jpg", image)
            save(root / "masks" / f"{camera}.png", binary(mask))


@published(18, "threshold", [0, 255], masks="segmentations/")
def birds(root: Path) -> None:
    """CUB: five people drew each bird, and the mask is their mean, 0, 51, 102 to 255."""
    for number, kind in enumerate(("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")):
        for index, (image, mask) in enumerate(pairs(lesion, 6, seed=1530 + number)):
            stem = f"{kind[4:]}_{index:04d}_{7919 * number + 797 * index}"
            people = [np.roll(binary(mask) // 255, shift, (0, 1)) for shift in (-4, -2, 0, 2, 4)]
            save(root / "CUB_200_2011" / "images" / kind / f"{stem}.jpg", image)
            save(root / "segmentations" / kind / f"{stem}.png", (sum(people) * 51).astype(np.uint8))
