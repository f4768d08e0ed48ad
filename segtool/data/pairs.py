"""Which mask belongs to which image: by stem, and by nothing else.

Names are compared in Unicode's composed form (NFC), as one file system stores `é` as one character and the next as two.
No pattern is ever made of a name, and no order is relied on.
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from segtool.config import Pairing
from segtool.data.images import IMAGE_SUFFIXES, shown
from segtool.errors import DataError

MASK_SUFFIXES = IMAGE_SUFFIXES | {".gif"}
JPEG_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif"))


@dataclass(frozen=True)
class Record:
    """One image and its mask; absolute paths."""

    image: Path
    mask: Path | None
    stem: str
    """The image's path within its folder without the suffix, with `/` on every system: `seq1/0001`."""


@dataclass(frozen=True)
class Pairs:
    """What two folders give: the pairs, and the files that are left over."""

    records: tuple[Record, ...]
    """Sorted by stem."""
    images_without_mask: tuple[Path, ...]
    masks_without_image: tuple[Path, ...]
    ambiguous: tuple[tuple[Path, ...], ...]
    """Files that claim one place: two images of one stem, or two masks for one image."""
    unnamed: tuple[Path, ...] = ()
    """Files without the configured prefix or suffix, which are neither images nor masks of this set."""


def find_pairs(images: Path, masks: Path, pairing: Pairing) -> Pairs:
    """Returns the pairs of two folders, searched with their subfolders.

    An image and a mask belong together where their paths within the folders are the same once the suffixes (`.jpg`)
    and the configured prefixes and suffixes are taken off; upper and lower case differ. `masks` may lie within
    `images`, or be the same folder: then the files that carry the mask's prefix and suffix are the masks; where
    neither side has any, JPEG files are the images and the others the masks.

    Raises:
        DataError: one of the folders is not there or cannot be read.
    """
    one_folder = os.path.abspath(images) == os.path.abspath(masks)
    image_files = list_files(images, IMAGE_SUFFIXES, without=() if one_folder else (masks,))
    mask_files = list_files(masks, MASK_SUFFIXES, without=() if one_folder else (images,))
    if one_folder:
        image_files, mask_files = tell_apart(mask_files, pairing)
    image_keys, unnamed_images = _keyed(image_files, images, pairing.image_prefix, pairing.image_suffix)
    mask_keys, unnamed_masks = _keyed(mask_files, masks, pairing.mask_prefix, pairing.mask_suffix)
    both = [files for keys in (image_keys, mask_keys) for files in keys.values() if len(files) > 1]
    records = [
        Record(files[0], mask_keys[key][0], stem_of(files[0], images))
        for key, files in image_keys.items()
        if len(files) == 1 and len(mask_keys.get(key, ())) == 1
    ]
    return Pairs(
        records=tuple(sorted(records, key=lambda record: record.stem)),
        images_without_mask=_partnerless(image_keys, mask_keys),
        masks_without_image=_partnerless(mask_keys, image_keys),
        ambiguous=tuple(map(tuple, both)),
        unnamed=tuple(unnamed_images + unnamed_masks),
    )


def list_files(folder: Path, suffixes: frozenset[str], *, without: Iterable[Path] = ()) -> list[Path]:
    """Returns the files in a folder and its subfolders with one of `suffixes` (any case), sorted; absolute paths.

    Hidden files and folders and `__MACOSX` are passed over. A linked folder is searched once, after all others, unless
    it was searched already, so loops end. Whatever bears such a suffix is listed, folders and dead links too: that it
    cannot be read is for the reader to say.
    """
    found: list[Path] = []
    links = [Path(os.path.abspath(folder))]
    seen = {_identity(path) for path in without}
    while links:
        link = links.pop(0)
        if _identity(link) not in seen:
            links += sorted(_search(link, suffixes, found, seen))
    return sorted(found)


def _search(folder: Path, suffixes: frozenset[str], found: list[Path], seen: set[tuple[int, int]]) -> list[Path]:
    """Adds the files below a folder to `found`, and returns the linked folders."""
    links, folders = [], [folder]
    while folders:
        current = folders.pop()
        seen.add(_identity(current))
        for entry in _entries(current):
            path = current / entry.name
            if os.path.splitext(entry.name)[1].lower() in suffixes:
                found.append(path)
            elif entry.is_dir(follow_symlinks=False):
                folders += [] if _identity(path) in seen else [path]
            elif entry.is_symlink() and path.is_dir():  # of a link to itself, entry.is_dir() raises
                links.append(path)
    return links


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".") and entry.name != "__MACOSX"]
    except OSError as error:
        raise DataError(f"{shown(folder)}: the folder cannot be read ({error.strerror}); make it readable") from error


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{shown(path)}: no such folder ({error.strerror}); correct the path") from error
    return status.st_dev, status.st_ino


def stem_of(path: Path, folder: Path) -> str:
    """Returns a file's path within a folder, without its last suffix, with `/` on every system."""
    return PurePath(os.path.splitext(os.path.relpath(path, folder))[0]).as_posix()


def strip(stem: str, prefix: str, suffix: str) -> str | None:
    """Returns a stem in NFC without prefix and suffix of its last part; None where it does not carry them."""
    folder, slash, name = unicodedata.normalize("NFC", stem).rpartition("/")
    prefix, suffix = unicodedata.normalize("NFC", prefix), unicodedata.normalize("NFC", suffix)
    if len(name) <= len(prefix) + len(suffix) or not (name.startswith(prefix) and name.endswith(suffix)):
        return None if prefix or suffix else folder + slash + name
    return folder + slash + name[len(prefix) : len(name) - len(suffix)]


def name_twins(names: Sequence[str]) -> str:
    """Returns the names of files that share a stem, joined; escaped where the eye cannot tell `é` of one character
    from that of two."""
    alike = len({unicodedata.normalize("NFC", name) for name in names}) < len(names)
    return " and ".join(ascii(name)[1:-1] if alike else name for name in names)


def tell_apart(files: Iterable[Path], pairing: Pairing) -> tuple[list[Path], list[Path]]:
    """Returns the images and the masks among the files of one folder."""
    if pairing == Pairing():
        images = [file for file in files if file.suffix.lower() in JPEG_SUFFIXES]
        return images, [file for file in files if file.suffix.lower() not in JPEG_SUFFIXES]
    of_image = (pairing.image_prefix, pairing.image_suffix)
    of_mask = (pairing.mask_prefix, pairing.mask_suffix)
    images, masks = [], []
    for file in files:
        is_image, is_mask = (strip(file.stem, *affixes) is not None for affixes in (of_image, of_mask))
        if is_image and is_mask:  # the longer affixes are the more telling
            is_mask = sum(map(len, of_mask)) >= sum(map(len, of_image))
        (masks if is_mask else images).append(file)
    return images, masks


def _keyed(files: Iterable[Path], folder: Path, prefix: str, suffix: str) -> tuple[dict[str, list[Path]], list[Path]]:
    """Returns the files by the stem that is compared, and those that do not carry prefix and suffix."""
    keys: dict[str, list[Path]] = defaultdict(list)
    unnamed = []
    for file in files:
        key = strip(stem_of(file, folder), prefix, suffix)
        if key is None:
            unnamed.append(file)
        else:
            keys[key].append(file)
    return dict(keys), unnamed


def _partnerless(own: dict[str, list[Path]], others: dict[str, list[Path]]) -> tuple[Path, ...]:
    return tuple(file for key, files in sorted(own.items()) if key not in others for file in files)
