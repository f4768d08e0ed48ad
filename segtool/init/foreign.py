"""What lies in a folder where no images and masks pair, and what to do about it."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from segtool.check.findings import num
from segtool.data.files import MASK_SUFFIXES, stem_of
from segtool.data.flatness import are_flat
from segtool.data.words import mask_rank, meaning_of, roles_in
from segtool.errors import few, shown
from segtool.runs.run_directory import CONFIG, typed

MAX_FOLDERS = 6
MAX_LOOKED_AT = 24
MAX_NAME = 40
MAX_BYTES = 1 << 26
HEAD = 1 << 16
ROUGH, SMOOTH = 0.6, 0.7  # share of equal neighbours, of photographs at most and of masks at least, as JPEG too
_MASKS = "export or draw one PNG a picture, of its size, that holds each pixel's class"
MERGE = (
    "segtool takes one mask an image: merge the masks of each image into one whose pixels hold the class (255 for "
    "objects of one kind), of the image's name, in one folder"
)
_OR_ONE = "; where one of these folders has all classes, call it masks/"
_EXPECTED = (
    "Expected images/ and masks/, or train/images, train/masks, val/images, val/masks, with one stem for each pair "
    "(a.jpg, a.png); for other folders write `train: {images: FOLDER, masks: FOLDER}` under `data:` in a config by "
    "hand, and `pairing:` where names differ"
)
_OTHER_PICTURES = {
    "MATLAB files": (".mat",),
    "NumPy arrays": (".npy", ".npz"),
    "NIfTI volumes": (".nii", ".nii.gz"),
    "MetaImage volumes": (".mha", ".mhd"),
    "NRRD volumes": (".nrrd",),
    "DICOM files": (".dcm",),
    "PGM images": (".pgm",),
    "PPM images": (".ppm",),
    "PBM images": (".pbm",),
    "HDF5 files": (".h5", ".hdf5"),
    "TFRecord files": (".tfrecord", ".tfrec"),
    "raw or Analyze images": (".img",),
    "outlines on a map": (".geojson", ".shp"),
    "compressed files": (".gz",),
    "archives": (".zip", ".tar", ".tgz", ".7z", ".rar"),
    "Parquet tables": (".parquet",),
    "labels as lines of JSON": (".ndjson", ".jsonl"),
    "pickles": (".pkl",),
    "microscope files": (".czi", ".nd2", ".lif"),
    "whole-slide images": (".svs",),
    "JPEG 2000 images": (".jp2",),
    "HEIC photographs": (".heic",),
    "videos": (".webm", ".mp4", ".avi"),
}
_PACKED = ("compressed files", "archives")
_IN_JSON = (
    (('"annotations"', '"categories"'), "outlines in COCO's format", _MASKS),
    (('"segmentation"', '"bbox"'), "outlines in COCO's format", _MASKS),
    (('"annotations"', '"result"'), "labels of Label Studio", f"export brush labels to PNG, or {_MASKS}"),
    (('"shapes"', '"imagePath"'), "outlines in labelme's JSON", f"labelme's labelme2voc.py writes them, or {_MASKS}"),
    (('"regions"', '"shape_attributes"'), "outlines of the VGG annotator", _MASKS),
    (('"classTitle"',), "outlines in Supervisely's JSON", f"export masks_machine, or {_MASKS}"),
    (('"geometryType"',), "outlines in Supervisely's JSON", f"export masks_machine, or {_MASKS}"),
    *(((f'"{key}"',), "outlines", _MASKS) for key in ("polygon", "polygons", "points", "vertices", "segmentation")),
)
"""Keys that a JSON has beside each other, what it holds then, and how masks are made of that."""
_RUNS = re.compile(r"EncodedPixels|\brle\b|rle_mask|[,;\t\"]\d+ \d+( \d+ \d+){2,}", re.IGNORECASE)
"""Starts and lengths, or a header that says so."""


@dataclass
class _Look:
    """The files below a root: folder -> names, suffix -> some paths."""

    folders: dict[str, list[str]] = field(default_factory=dict)
    by_suffix: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))


def explain(root: Path) -> str:
    """Returns what a folder without pairs holds, as one message."""
    look = _look(root)
    what = _sentence(root, look)
    there = f"(there: {_contents(look)})"
    if what:
        return f"{shown(root)}: no images with masks: {what} {there}"
    firsts = [shown(f"{folder}/{names[0]}") for folder, names in look.folders.items() if names]
    such = f", such as {', '.join(firsts[:MAX_FOLDERS])}" if len(firsts) > 1 else ""
    return f"{shown(root)}: no images with masks of the same names found{such} {there}. {_EXPECTED}"


def _sentence(root: Path, look: _Look) -> str:
    """Returns what is known of such a folder; "" where nothing is."""
    images = [path for suffix in MASK_SUFFIXES for path in look.by_suffix.get(suffix, ())]
    if not look.folders:
        return f"the folder is empty. {_EXPECTED}"
    return (
        _runs_of_segtool(root)
        or _kind_of_json(look)
        or _masks_by_task(images)
        or _masks_by_class(root, images)
        or _masks_by_image(images)
        or _kind_of_text(look, images)
        or _flat_folders(root, images)
        or _two_folders_of_one_set_of_names(look)
        or _kind_of_other_pictures(look)
        or _stack(images)
        or _images_alone(root, images)
    )


def _runs_of_segtool(root: Path) -> str:
    """Returns a sentence where a run, its checkpoints, or a folder of runs is named in place of the data."""
    if (root / "run.json").is_file() and (root / CONFIG).is_file():
        return f"it is a run of segtool, whose config says where its data lies: {typed(root / CONFIG)}"
    if any(root.glob("step-*/manifest.json")):
        return f"it holds the checkpoints of a run. Name the run: {typed(root.parent)}"
    runs = sorted(path.parent for path in root.glob("*/run.json"))
    return f"it holds runs of segtool. Name one: {few(map(typed, runs))}" if runs else ""


def other_pictures(root: Path) -> str:
    """Returns a message on files beside the images of a set that may be its pictures and are not read; "" without."""
    kind = _kind_of_other_pictures(_look(root))
    return f"{shown(root)}: {kind}" if kind else ""


def _kind_of_other_pictures(look: _Look) -> str:
    for name, suffixes in _OTHER_PICTURES.items():
        suffix = next(filter(look.by_suffix.get, suffixes), None)
        if suffix and name in _PACKED:
            return f"{name} ({suffix}). Unpack them, and come again"
        if suffix:
            return (
                f"{name} ({suffix}) are not read. Convert them: images to PNG or TIFF, masks to PNG that hold each "
                "pixel's class"
            )
    return ""


def _images_alone(root: Path, images: list[Path]) -> str:
    if not images or any("masks" in roles_in(stem_of(path, root)) for path in images):
        return ""
    told = f"{num(images, 'image')}, and nothing that says mask or label. segtool learns from masks: {_MASKS}"
    if _is_double(images[0]):
        told += ". Where each file holds image and mask side by side, cut it into images/ and masks/, masks as PNG"
    return told


def _is_double(path: Path) -> bool:
    """Whether a picture is twice as wide as it is high, or one half holds areas and the other one does not."""
    try:
        with Image.open(path) as image:
            if image.width == 2 * image.height:
                return True
            even = np.diff(np.asarray(image.convert("L"), np.int16)) == 0
    except Exception:  # whatever Pillow raises on a broken file: it says nothing of its shape
        return False
    rough, smooth = sorted(float(half.mean()) for half in np.array_split(even, 2, axis=1))
    return rough < ROUGH and smooth > SMOOTH


def _kind_of_json(look: _Look) -> str:
    for path in islice(look.by_suffix.get(".json", ()), 20):
        text = _head(path)
        for keys, what, how in _IN_JSON:
            if all(key in text for key in keys):
                return f"{shown(path.name)} holds {what}. segtool trains on masks: {how}"
    return ""


def _kind_of_text(look: _Look, images: list[Path]) -> str:
    stems = {path.stem for path in images}
    for path in islice((path for path in look.by_suffix.get(".txt", ()) if path.stem in stems), 20):
        rows = [line.split() for line in _head(path).splitlines()[:20] if line.strip()]
        if rows and all(re.fullmatch(r"\d+", row[0]) and len(row) >= 5 and "." in "".join(row[1:]) for row in rows):
            return f"outlines or boxes in YOLO's text files. segtool trains on masks: {_MASKS}"
    for path in islice(look.by_suffix.get(".txt", ()), 20):
        rows = [line.split() for line in _head(path).splitlines()[:6]]
        if len(rows) > 4 and len({len(row) for row in rows[:-1]}) == 1 and len(rows[0]) > 16:
            return (
                f"{shown(path.name)} holds labels as a table of numbers. segtool reads masks from images: save each as "
                "PNG (`Image.fromarray(np.loadtxt(path).astype('uint8')).save(…)`; mind values below 0)"
            )
    for path in islice(look.by_suffix.get(".csv", ()), 20):
        if "region_shape_attributes" in _head(path):
            return f"{shown(path.name)} holds outlines of the VGG annotator. segtool trains on masks: {_MASKS}"
        if _RUNS.search(_head(path)):
            return f"{shown(path.name)} holds masks as run lengths. segtool reads masks from images: {_MASKS}"
    if look.by_suffix.get(".xml"):
        return f"outlines in XML files. segtool trains on masks: {_MASKS}"
    return ""


def _masks_by_task(images: list[Path]) -> str:
    """Returns a sentence where Label Studio has named masks by the number of its task, and not by the image."""
    for path in images:
        if re.match(r"task-\d+-annotation-\d+-", path.name):
            return (
                f"{shown(path.name)} is a mask of Label Studio, named by the number of its task, one for each label. "
                "segtool takes one mask an image, of the image's name: merge the masks of each task into one whose "
                "pixels hold the class, and name it as the image that the JSON export gives for the task"
            )
    return ""


def _masks_by_class(root: Path, images: list[Path]) -> str:
    """Returns a sentence where each image has a mask for each class: in folders of their own, or by names.

    `masks/heart/7.gif` and `masks/lung/7.gif`; `7_hair.png` and `7_skin.png`; `gtpolyp/7.bmp` and `gtlumen/7.bmp`.
    """
    kinds: dict[Path, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in images:
        number = " ".join(re.findall(r"\d+", path.stem))
        of_truth = re.match(r"gt[^\W\d_]", path.parent.name, re.IGNORECASE)
        beside = (
            "masks" in roles_in(stem_of(path.parent.parent, root)) and meaning_of(path.parent.name).role != "images"
        )
        if of_truth or beside:
            kinds[path.parent.parent][path.parent.name].add(number or path.stem)
        kind = re.sub(r"\d+", "#", path.stem)
        if "masks" in roles_in(stem_of(path, root)) and mask_rank(kind) >= 0:  # ids of objects are no class
            kinds[path.parent][kind].add(number)
    for folder, names in kinds.items():
        most = max(names.values(), key=len)
        named = {name: stems for name, stems in names.items() if re.search(r"[^\W\d_]|#", name)}  # 001 is an image's
        alike = sorted(name for name, stems in named.items() if 2 * len(stems & most) > len(most) > 1)
        if len(alike) > 1:
            or_one = _OR_ONE if (folder / alike[0]).is_dir() else ""
            return (
                f"{shown(folder.name)} holds several masks of one image, a mask for each class or object "
                f"({', '.join(map(shown, alike[:MAX_FOLDERS]))}). {MERGE}{or_one}"
            )
    return ""


def _masks_by_image(images: list[Path]) -> str:
    """Returns a sentence where the masks of each image lie in a folder of its name, or the images of each mask do.

    `labels/7/7_hair.png` of `images/7.png`; `images/camera7/1.jpg`, `2.jpg` of `masks/camera7.png`.
    """
    owners = {path.stem: path for path in images}
    held = Counter(folder for path in images for folder in path.parents if folder.name in owners)
    several = [
        folder
        for folder, count in held.items()
        if count > 1 and owners[folder.name].parent.parent != folder.parent  # 1/2.png and 2/1.png are numbered alike
    ]
    if len(several) < 2:
        return ""
    owner = owners[several[0].name]
    if meaning_of(owner.parent.name).role == "masks" != meaning_of(several[0].parent.name).role:
        return (
            f"{shown(owner.name)} seems to be the mask of all images in {shown(several[0].name)}. segtool takes one "
            "mask an image: write a file pairs.csv with a line `IMAGE,MASK` for each image, paths from this folder, "
            "and come again"
        )
    return f"{shown(several[0].name)} holds several masks of one image, a mask for each class or object. {MERGE}"


def _two_folders_of_one_set_of_names(look: _Look) -> str:
    """Returns a sentence where two folders hold pictures of the same names, and no word tells which are the masks."""
    held: dict[frozenset[str], list[str]] = defaultdict(list)
    for folder, names in look.folders.items():
        held[frozenset(os.path.splitext(name)[0] for name in names if _suffix(name) in MASK_SUFFIXES)].append(folder)
    alike = [folders for stems, folders in held.items() if len(stems) > 1 and len(folders) == 2]
    roles = [meaning_of(folder).role for folders in alike for folder in folders]
    if len(alike) != 1 or "masks" in roles or roles == ["images", "images"]:
        return ""
    one, other = map(shown, alike[0])
    return (
        f"{one} and {other} hold pictures of the same names, but no name says which are masks. Call the folder of the "
        "masks masks/, or write `train: {images: FOLDER, masks: FOLDER}` under `data:` in a config by hand"
    )


def _flat_folders(root: Path, images: list[Path]) -> str:
    """Returns a sentence where several folders beside each other may be masks, by their pixels: of several people."""
    held: dict[Path, list[Path]] = defaultdict(list)
    for path in images:
        held[path.parent].append(path)
    flat = [folder for folder in sorted(held)[:MAX_LOOKED_AT] if are_flat(held[folder])]
    beside = [folder for folder in flat if folder.parent == flat[0].parent]
    if len(beside) < 2 or len(flat) == len(held):
        return ""
    names = ", ".join(shown(folder.relative_to(root).as_posix()) for folder in beside[:MAX_FOLDERS])
    return (
        f"{names} hold a few values in areas, as masks do, and nothing says which of them is the truth: as several "
        "people drew it, or a part of the classes in each. Name the folder of the truth masks/, or merge those of each "
        "image into one"
    )


def _stack(images: list[Path]) -> str:
    for path in islice((path for path in images if path.suffix.lower() in (".tif", ".tiff")), 4):
        try:
            with Image.open(path) as image:
                pages = getattr(image, "n_frames", 1)
        except Exception:  # whatever Pillow raises on a broken file: it is no stack
            continue
        if pages > 1:
            return (
                f"{shown(path.name)} is a stack of {pages} pages. segtool takes one picture a file: save the pages of "
                "images and masks as single files of the same names"
            )
    return ""


def _head(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(HEAD)
            if path.suffix.lower() == ".json" and os.path.getsize(path) > HEAD:
                file.seek(-HEAD, os.SEEK_END)
                start += file.read(HEAD)
    except OSError:
        return ""
    return start.decode("utf-8", errors="replace")


def _look(root: Path) -> _Look:
    found = _Look()
    for path, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        relative = Path(path).relative_to(root)
        names = sorted(name for name in files if name[0] != ".")
        for name in names:
            found.by_suffix[_suffix(name)].append(Path(path) / name)
        if names or (relative.parts and not folders):
            found.folders[relative.as_posix()] = names
    return found


def _suffix(name: str) -> str:
    ending = re.search(r"\.nii\.gz$|\.tfrecord(?=-\d+-of-\d+$)", name.lower())
    return ending[0] if ending else os.path.splitext(name)[1].lower()


def _contents(look: _Look) -> str:
    """Returns the folders, each with the kinds of its files: `images (6 .png)`, `masks (6 .json)`."""
    told = []
    for name, files in list(look.folders.items())[:MAX_FOLDERS]:
        kinds = Counter(_suffix(file) or "without suffix" for file in files).most_common(3)
        short = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"
        told.append(f"{shown(short)} ({', '.join(f'{count} {shown(kind)}' for kind, count in kinds) or 'empty'})")
    more = len(look.folders) - MAX_FOLDERS
    return (", ".join(told) or "nothing") + (f" and {more} more folders" if more > 0 else "")
