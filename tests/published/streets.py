"""Of streets and rooms, with many classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scenes import (
    drive_along,
    objects,
    street,
)

from published.registry import (
    SIZE,
    VOC_COLORS,
    colored,
    hexes,
    pairs,
    published,
    rim,
    save,
    text,
    with_palette,
)

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


@published(
    {"train": 18, "val": 8},
    "index",
    [23, 11, 7, 26, 24, 21],
    ignore=[1, 3],
    names=["sky", "building", "road", "car", "person", "vegetation"],
    masks="labelIds",
)
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
                stored = rim(ids[mask], 3)
                stored[-4:] = 1  # the car that the camera stands on
                save(base / f"{stem}_gtFine_labelIds.png", stored * np.uint8(1 - dummy))
                save(base / f"{stem}_gtFine_instanceIds.png", (ids[mask] * np.uint16(1 - dummy) * np.uint16(1000)))
                rgba = np.dstack([colored(mask, colors), np.full(mask.shape, 255, np.uint8)])
                save(base / f"{stem}_gtFine_color.png", rgba * np.uint8(1 - dummy))
                text(base / f"{stem}_gtFine_polygons.json", json.dumps({"imgHeight": 1024, "objects": []}))


@published({"train": 16, "val": 6}, "index", [0, 2, 8, 10, 11, 13], ignore=[255], masks="/labels/",
           names=["road", "building", "vegetation", "sky", "person", "car"])  # fmt: skip
def bdd100k_of_2018(root: Path) -> None:
    """BDD100K as first handed out: `_train_id` and `_train_color`, whose numbers are those of Cityscapes."""
    base = root / "bdd100k" / "seg"
    for part, num in (("train", 16), ("val", 6), ("test", 4)):
        for index, (image, mask) in enumerate(pairs(street, num, seed=1400 + num)):
            stem = f"{index * 7919:08x}-{num:08x}"
            save(base / "images" / part / f"{stem}.jpg", image)
            if part != "test":
                ids = np.array([10, 2, 0, 13, 11, 8])[mask]
                save(
                    base / "labels" / part / f"{stem}_train_id.png", np.where(rim(mask, 9) == 9, 255, ids).astype("u1")
                )
                save(base / "color_labels" / part / f"{stem}_train_color.png", colored(mask, VOC_COLORS))


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


@published(
    {"train": 24},
    "rgb",
    hexes(color for name, color in CAMVID if name != "Void"),
    ignore=["#000000"],
    names=["sky", "building", "road", "car", "pedestrian", "tree"],
    apart="(creek|park|trail|village)",
)
def rugd(root: Path) -> None:
    """RUGD: videos as folders in two trees of equal names, a text of `number name r g b`."""
    frames = drive_along(street)
    colors = [color for _, color in CAMVID]
    for number, name in enumerate(("creek", "park", "trail", "village")):
        for index, (image, mask) in enumerate(frames(np.random.default_rng([860, number]), SIZE, 6)):
            stem = f"{name}_{index * 5 + 1:05d}.png"
            save(root / "RUGD_frames-with-annotations" / name / stem, image)
            save(root / "RUGD_annotations" / name / stem, colored(rim(mask, 6), colors))
    rows = [f"{number} {name.lower()} {r} {g} {b}" for number, (name, (r, g, b)) in enumerate(CAMVID)]
    text(root / "RUGD_annotations" / "RUGD_annotation-colormap.txt", rows)


@published(16, "index", range(6), names=["sky", "building", "road", "car", "person", "tree"], masks="uint8")
def railsem19(root: Path) -> None:
    """RailSem19: `jpgs/rs19_val` beside `uint8/rs19_val`; names in the order of the values, with colours."""
    for index, (image, mask) in enumerate(pairs(street, 16, seed=909)):
        save(root / "jpgs" / "rs19_val" / f"rs{index:05d}.jpg", image)
        save(root / "uint8" / "rs19_val" / f"rs{index:05d}.png", mask)
        text(root / "jsons" / "rs19_val" / f"rs{index:05d}.json", json.dumps({"frame": index, "objects": []}))
    names = ["sky", "building", "road", "car", "person", "tree"]
    labels = [{"color": [128, 10 * place, 64], "name": name, "evaluate": True} for place, name in enumerate(names)]
    text(root / "rs19-config.json", json.dumps({"version": "1.0", "labels": labels}))


@published({"train": 12, "val": 6}, "index", range(6), masks="_labelTrainIds")
def acdc(root: Path) -> None:
    """ACDC: the splits below each weather, six kinds of truth side by side; no truth for the test."""
    ids = np.array([7, 8, 11, 12, 13, 17], np.uint8)
    kinds = {"labelIds": ids, "labelTrainIds": np.arange(6), "labelColor": np.array(VOC_COLORS[:6]), "invIds": ids}
    kinds |= {"invTrainIds": np.arange(6), "invGray": np.arange(6) * 40}
    for weather in ("fog", "night", "rain"):
        for part, num in (("train", 4), ("val", 2), ("test", 2)):
            for index, (image, mask) in enumerate(pairs(street, num, seed=920 + num + ord(weather[0]))):
                folder, stem = Path(weather) / part / f"GOPR0{num}", f"GOPR0{num}_frame_{index:06d}"
                save(root / "rgb_anon" / folder / f"{stem}_rgb_anon.png", image)
                for kind, stored in kinds.items() if part != "test" else ():
                    save(root / "gt" / folder / f"{stem}_gt_{kind}.png", stored.astype(np.uint8)[mask])


@published({"train": 12, "val": 5}, "index", range(6), ignore=[255])
def idd_lite(root: Path) -> None:
    """IDD Lite: `_image`, `_label`, and `_inst_label` beside it."""
    for part, num in (("train", 12), ("val", 5)):
        for index, (image, mask) in enumerate(pairs(street, num, seed=921 + num)):
            stem = f"{index * 997:06d}"
            save(root / "idd20k_lite" / "leftImg8bit" / part / str(index % 3) / f"{stem}_image.jpg", image)
            for kind in ("label", "inst_label"):
                path = root / "idd20k_lite" / "gtFine" / part / str(index % 3) / f"{stem}_{kind}.png"
                save(path, rim(mask, 255))


@published({"train": 12, "val": 5}, "index", range(6), images="_vis", masks="_labelids")
def goose(root: Path) -> None:
    """GOOSE: `_windshield_vis` beside `_windshield_nir`, and three kinds of masks beside each other."""
    for part, num in (("train", 12), ("val", 5)):
        for index, (image, mask) in enumerate(pairs(street, num, seed=961 + num)):
            drive = f"2022-0{7 + index % 2}-{num}_flight"
            frame = f"{part}/{drive}/{drive}__{index:04d}_{1658494234334310308 + 997 * index}"
            save(root / f"images/{frame}_windshield_vis.png", image)
            save(root / f"images/{frame}_windshield_nir.png", image[..., 0])
            save(root / f"labels/{frame}_labelids.png", mask)
            save(root / f"labels/{frame}_instanceids.png", (mask == 3) * mask)
            save(root / f"labels/{frame}_color.png", colored(mask, VOC_COLORS))


@published({"train": 16, "val": 6}, "index", range(4), ignore=[255], masks="SegmentationClassAug/")
def voc_augmented(root: Path) -> None:
    """VOC with SBD's masks: `train_aug.txt` names pairs by paths that begin at /, fewer masks and lists beside."""
    names = [f"2007_{index * 37:06d}" for index in range(22)]
    for index, (image, mask) in enumerate(pairs(objects(3, least=3), 22, seed=970)):
        save(root / "JPEGImages" / f"{names[index]}.jpg", image)
        save(root / "SegmentationClassAug" / f"{names[index]}.png", rim(mask, 255))
        if index % 2:
            save(root / "SegmentationClass" / f"{names[index]}.png", with_palette(rim(mask, 255), VOC_COLORS))
    for part, chosen in (("train", names[1:16:2]), ("val", names[16:]), ("trainval", names[1::2])):
        text(root / "ImageSets" / "Segmentation" / f"{part}.txt", chosen)
    lines = [f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png" for name in names[:16]]
    text(root / "ImageSets" / "Segmentation" / "train_aug.txt", lines)


@published(
    {"train": 12, "test": 6}, "index", [0, 1], ignore=[255], masks="_labelTrainIds", names=["background", "object"]
)
def lost_and_found(root: Path) -> None:
    """Lost and Found: the names of Cityscapes' files, but 0 is road and 1 an obstacle."""
    for part, num in (("train", 12), ("test", 6)):
        for index, (image, mask) in enumerate(pairs(street, num, seed=13 + num)):
            place = ("01_Hanns_Klemm_Str_45", "02_Hanns_Klemm_Str_44")[index % 2]
            stem = f"{place}_{index // 2:06d}_{part[1]}{index * 10:06d}"
            save(root / "leftImg8bit" / part / place / f"{stem}_leftImg8bit.png", image)
            ids = np.array([255, 255, 0, 1, 1, 255], np.uint8)[mask]
            save(root / "gtCoarse" / part / place / f"{stem}_gtCoarse_labelTrainIds.png", ids)
            save(root / "gtCoarse" / part / place / f"{stem}_gtCoarse_color.png", colored(mask, VOC_COLORS))


@published({"train": 12, "val": 5}, "rgb", hexes(VOC_COLORS[:6]), masks="/cls/",
           names=["sky", "building", "road", "car", "person", "tree"])  # fmt: skip
def viper(root: Path) -> None:
    """VIPER: `img`, `cls` and `inst` in each split, with a folder for each sequence, and a table of classes."""
    for part, num in (("train", 12), ("val", 5)):
        for index, (image, mask) in enumerate(pairs(street, num, seed=20 + num)):
            sequence = f"{1 + index // 4 + num:03d}"
            name = f"{sequence}/{sequence}_{10 * index + 1:05d}"
            save(root / part / "img" / f"{name}.jpg", image)
            save(root / part / "cls" / f"{name}.png", colored(mask, VOC_COLORS))
            save(root / part / "inst" / f"{name}.png", np.dstack([mask, np.full_like(mask, index), mask]))
    names = ("sky", "building", "road", "car", "person", "tree")
    rows = [
        f"{value},{name},0,{r},{g},{b}" for value, (name, (r, g, b)) in enumerate(zip(names, VOC_COLORS, strict=False))
    ]
    text(root / "classes.csv", ["id,classname,instance_eval,red,green,blue", *rows])


@published({"train": 10, "val": 5}, "index", [7, 11, 21, 23, 24, 26], images="_beta_0.01.png", masks="_labelIds")
def foggy_cityscapes(root: Path) -> None:
    """Foggy Cityscapes: each image in three densities of fog, which share a mask; colours beside the masks."""
    for part, num in (("train", 10), ("val", 5)):
        for index, (image, mask) in enumerate(pairs(street, num, seed=6 + num)):
            stem = f"aachen/aachen_{num}{index:05d}_000019"
            for density in ("0.005", "0.01", "0.02"):
                foggy = image + (255 - image) * (20 * float(density))
                name = f"{stem}_leftImg8bit_foggy_beta_{density}.png"
                save(root / "leftImg8bit_foggy" / part / name, foggy.astype(np.uint8))
            ids = np.array([23, 11, 7, 26, 24, 21], np.uint8)[mask]
            save(root / "gtFine" / part / f"{stem}_gtFine_labelIds.png", ids)
            save(root / "gtFine" / part / f"{stem}_gtFine_color.png", colored(mask, VOC_COLORS))
