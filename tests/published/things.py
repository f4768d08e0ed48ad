"""Of things, animals and people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scenes import crack, drive_along, field, nuclei, objects, portrait, skyline, soft

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
    with_palette,
)


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


@published({"train": 13, "test": 7}, "rgb", hexes([(0, 0, 0), (0, 255, 0), (255, 0, 0)]), masks="annotations")
def cwfid(root: Path) -> None:
    """CWFID: `images/001_image.png`, `annotations/001_annotation.png` in RGB, `masks/001_mask.png` is vegetation."""
    for index, (image, mask) in enumerate(pairs(field, 20, seed=41), 1):
        save(root / "images" / f"{index:03d}_image.png", image)
        save(root / "annotations" / f"{index:03d}_annotation.png", colored(mask, [(0, 0, 0), (0, 255, 0), (255, 0, 0)]))
        save(root / "masks" / f"{index:03d}_mask.png", binary(mask))
        text(root / "annotations" / f"{index:03d}_annotation.yaml", f"filename: {index:03d}_image.png\n")
    text(root / "train_test_split.yaml", f"train: {[*range(1, 14)]}\ntest: {[*range(14, 21)]}\n")


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


@published({"train": 24, "val": 8}, "rgb", hexes(FACE), nearest=True, warns="JPEG")
def face_parsing(root: Path) -> None:
    """Face parsing with JPEG masks in colour: thousands of strays around six colours."""
    for part, num in (("train", 24), ("val", 8)):
        for index, (image, mask) in enumerate(pairs(objects(5, least=4, most=7), num, seed=45 + num, size=(96, 96))):
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


@published({"train": 16, "val": 6}, "index", [0, 1, 2, 3, 4], masks="Category_ids")
def cihp(root: Path) -> None:
    """CIHP: `Training/Images`, `Category_ids` beside `Human_ids` and `Instance_ids`, a list of ids; names by number."""
    for part, num in (("Training", 16), ("Validation", 6)):
        base = root / "instance-level_human_parsing" / part
        stems = [f"{index * 3 + num:07d}" for index in range(num)]
        for stem, (image, mask) in zip(stems, pairs(objects(4, least=4, most=7), num, seed=840 + num), strict=True):
            save(base / "Images" / f"{stem}.jpg", image)
            save(base / "Category_ids" / f"{stem}.png", mask)
            save(base / "Human_ids" / f"{stem}.png", (mask > 0).astype(np.uint8))
            save(base / "Instance_ids" / f"{stem}.png", mask * np.uint8(3))
        text(base / f"{'train' if part == 'Training' else 'val'}_id.txt", stems)


@published(20, "index", [1, 2, 3, 4])
def cmp_facades(root: Path) -> None:
    """CMP facades: `base/cmp_b0001.jpg`, `.png` with a palette and `.xml` side by side; values from 1 on."""
    for index, (image, mask) in enumerate(pairs(objects(3, least=3, most=7), 20, seed=842), 1):
        save(root / "base" / f"cmp_b{index:04d}.jpg", image)
        save(root / "base" / f"cmp_b{index:04d}.png", with_palette(mask + 1, VOC_COLORS))
        text(root / "base" / f"cmp_b{index:04d}.xml", "<object/>")
    text(root / "label_names.txt", ["background 1 1", "facade 2 2", "window 3 3", "door 4 4"])


@published({"train": 18, "val": 6}, "index", [0, 1], apart=r"(bear|camel|kite|swan)")
def davis(root: Path) -> None:
    """DAVIS: `JPEGImages/480p/bear/00000.jpg`, `Annotations/480p/bear/00000.png`; lists of sequences' names."""
    frames = drive_along(objects(1, least=2, most=4))
    for number, name in enumerate(("bear", "camel", "kite", "swan")):
        for index, (image, mask) in enumerate(frames(np.random.default_rng([844, number]), SIZE, 6)):
            save(root / "DAVIS" / "JPEGImages" / "480p" / name / f"{index:05d}.jpg", image)
            save(root / "DAVIS" / "Annotations" / "480p" / name / f"{index:05d}.png", with_palette(mask, VOC_COLORS))
    text(root / "DAVIS" / "ImageSets" / "2017" / "train.txt", ["bear", "camel", "kite"])
    text(root / "DAVIS" / "ImageSets" / "2017" / "val.txt", ["swan"])


@published({"train": 18, "test": 8}, "index", [0, 255], masks="/GT/")
def cod10k(root: Path) -> None:
    """Camouflaged objects: `TrainDataset/Imgs`, `GT`, and `Edge` beside them."""
    for part, num in (("Train", 18), ("Test", 8)):
        for index, (image, mask) in enumerate(pairs(objects(1, most=2), num, seed=845 + num)):
            stem = f"COD10K-CAM-1-Aquatic-{index % 5}-{'Crab'}-{index + num * 10}"
            save(root / f"{part}Dataset" / "Imgs" / f"{stem}.jpg", image)
            save(root / f"{part}Dataset" / "GT" / f"{stem}.png", binary(mask))
            save(root / f"{part}Dataset" / "Edge" / f"{stem}.png", binary(rim(mask, 9) == 9))


@published({"train": 14, "test": 6}, "rgb", hexes(FACE), nearest=True, warns="JPEG")
def fasseg(root: Path) -> None:
    """FASSEG: `V2/Train_RGB/1.JPG`, `V2/Train_Labels/1.JPG`."""
    for part, num in (("Train", 14), ("Test", 6)):
        for index, (image, mask) in enumerate(
            pairs(objects(5, least=5, most=8), num, seed=847 + num, size=(112, 96)), 1
        ):
            save(root / "V2" / f"{part}_RGB" / f"{index}.JPG", image, format="JPEG")
            save(root / "V2" / f"{part}_Labels" / f"{index}.JPG", colored(mask, FACE), format="JPEG")


@published(24, "index", [0, "1..255"], masks="_label", images="_rgb")
def cvppp(root: Path) -> None:
    """CVPPP leaves: `A1/plant001_rgb.png`, `_label.png` with ids of leaves in a palette, `_centers.png`."""
    for index, (image, mask) in enumerate(pairs(nuclei, 24, seed=852), 1):
        save(root / "A1" / f"plant{index:03d}_rgb.png", image)
        save(
            root / "A1" / f"plant{index:03d}_label.png",
            with_palette(mask, [(i * 90 % 256, i * 37 % 256, i * 151 % 256) for i in range(32)]),
        )
        centers = np.zeros_like(mask)
        for number in range(1, int(mask.max()) + 1):
            place = np.argwhere(mask == number).mean(0).astype(int)
            centers[tuple(place)] = 255
        save(root / "A1" / f"plant{index:03d}_centers.png", centers)
    text(root / "A1" / "Leaf_counts.csv", ["plant001, 11"])


@published({"train": 12, "val": 4, "test": 5}, "index", [0, 255])
def dis5k(root: Path) -> None:
    """DIS5K: `DIS-TR`, `DIS-VD` and several sets for tests, of which the first is taken."""
    for number, (part, num) in enumerate((("DIS-TR", 12), ("DIS-VD", 4), ("DIS-TE1", 5), ("DIS-TE2", 5))):
        for index, (image, mask) in enumerate(pairs(objects(1), num, seed=1200 + number)):
            stem = f"{index}#Accessories#{number}#Bag#{4006 + 10 * number + index}_o"
            save(root / "DIS5K" / part / "im" / f"{stem}.jpg", image)
            save(root / "DIS5K" / part / "gt" / f"{stem}.png", binary(mask))


@published({"train": 12, "test": 5}, "index", [0, 1, 2], masks="/image-parse-v3/", images="/image/")
def try_on(root: Path) -> None:
    """VITON-HD: what people wear, masks of other pictures beside it, and lists of pairs of pictures."""
    for part, num in (("train", 12), ("test", 5)):
        base = root / "zalando-hd-resized" / part
        for index, (image, mask) in enumerate(pairs(portrait, num, seed=10 + num)):
            stem, (cloth, shape) = f"{index * 7:05d}_00", objects(1)(np.random.default_rng([num, index]), SIZE)
            save(base / "image" / f"{stem}.jpg", image)
            save(base / "image-parse-v3" / f"{stem}.png", with_palette(mask, VOC_COLORS))
            save(
                base / "image-parse-agnostic-v3.2" / f"{stem}.png",
                with_palette(np.where(mask == 2, 0, mask), VOC_COLORS),
            )
            save(base / "cloth" / f"{stem}.jpg", cloth)
            save(base / "cloth-mask" / f"{stem}.jpg", binary(shape))
        names = [f"{index * 7:05d}_00.jpg" for index in range(num)]
        text(
            root / "zalando-hd-resized" / f"{part}_pairs.txt",
            map(" ".join, zip(names, names[1:] + names[:1], strict=True)),
        )


@published(20, "index", [0, 255], masks="train/masks")
def people_with_collages(root: Path) -> None:
    """People, repacked for a contest: tables of bare names, collages that show image and mask, a test without masks."""
    for part, num in (("train", 20), ("test", 6)):
        rows = ["id,image_filename,mask_filename" if part == "train" else "id,image_filename"]
        for index, (image, mask) in enumerate(pairs(objects(1), num, seed=1760 + num)):
            name = f"ds{index % 4}_photo-{num * 100 + index * 7}"
            save(root / part / "images" / f"{name}.png", image)
            save(root / part / "collage" / f"{name}.jpg", np.where(mask[..., None] > 0, image // 2, image))
            if part == "train":
                save(root / part / "masks" / f"{name}.png", binary(mask))
            rows.append(f"{index},{name}.png,{name}.png" if part == "train" else f"{index},{name}.png")
        text(root / f"{part}.csv", rows)
