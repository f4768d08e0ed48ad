"""Ways of naming, storing and listing that no one set stands for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scenes import aerial, drive_along, finish, membranes, nuclei, objects, skyline, street

from published.registry import (
    SIZE,
    VOC_COLORS,
    binary,
    pairs,
    published,
    rim,
    save,
    text,
    with_palette,
)


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


@published(20, "threshold", [0, 255], masks="figure_ground", warns="JPEG")
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


@published(32, "index", [0, 255])
def bursts(root: Path) -> None:
    """Four nearly equal shots in a row, numbered through: they must not be parted, or the split leaks."""
    for scene in range(8):
        image, mask = objects(1, least=2)(np.random.default_rng([5, scene]), (70, 100))
        for shot in range(4):
            rng = np.random.default_rng([6, scene, shot])
            y, x = rng.integers(0, 3, 2)
            window = np.s_[y : y + 64, x : x + 96]
            save(root / "images" / f"{scene * 4 + shot:03d}.jpg", finish(image[window] + rng.normal(0, 3, (64, 96, 1))))
            save(root / "masks" / f"{scene * 4 + shot:03d}.png", binary(mask[window]))


@published(40, "index", [0, 255], apart=r"(cam[0-9])")
def fixed_cameras(root: Path) -> None:
    """Five cameras that never move, in all kinds of light: a folder each."""
    for camera in range(5):
        image, mask = skyline(np.random.default_rng([897, camera]), SIZE)
        for hour in range(8):
            rng = np.random.default_rng([898, camera, hour])
            light = finish(image * rng.uniform(0.6, 1.1) + rng.normal(0, 4, (*SIZE, 1)))
            save(root / "images" / f"cam{camera}" / f"{hour:04d}.jpg", light)
            save(root / "masks" / f"cam{camera}" / f"{hour:04d}.png", binary(mask))


@published(40, "index", [0, 255], apart="(im[0-9]+)_")
def turned_copies(root: Path) -> None:
    """Someone has augmented the set beforehand: four turns of each image."""
    for index in range(10):
        image, mask = objects(1, least=2)(np.random.default_rng([899, index]), (64, 64))
        for turn in range(4):
            save(root / "images" / f"im{index}_aug{turn}.png", np.rot90(image, turn).copy())
            save(root / "masks" / f"im{index}_aug{turn}.png", np.rot90(binary(mask), turn).copy())


@published(40, "index", [0, 38], apart="([0-9]{5})(_[0-9])?$")
def copies_beside(root: Path) -> None:
    """Leaf disease of Kaggle: the set in `data`, and in `aug_data` all of it again, with two turns of each image."""
    for index in range(10):
        image, mask = objects(1, least=2)(np.random.default_rng([908, index]), (64, 64))
        for number, folder, turn in ((0, "data", 0), (0, "aug_data", 0), (1, "aug_data", 1), (2, "aug_data", 2)):
            name = f"{index:05d}_{number}" if number else f"{index:05d}"
            save(root / folder / folder / "images" / f"{name}.jpg", np.rot90(image, turn).copy())
            save(root / folder / folder / "masks" / f"{name}.png", np.rot90(mask * 38, turn).copy())


@published(12, "index", [0, 255])
def a_folder_an_image(root: Path) -> None:
    """`000/image.png`, `000/mask.png`."""
    for index, (image, mask) in enumerate(pairs(objects(1), 12, seed=901)):
        save(root / f"{index:03d}" / "image.png", image)
        save(root / f"{index:03d}" / "mask.png", binary(mask))


@published(12, "index", [0, 255])
def zeros_before_numbers(root: Path) -> None:
    """`img_007.jpg` and `7.png`."""
    for index, (image, mask) in enumerate(pairs(objects(1), 12, seed=902)):
        save(root / "images" / f"img_{index:03d}.jpg", image)
        save(root / "masks" / f"{index}.png", binary(mask))
