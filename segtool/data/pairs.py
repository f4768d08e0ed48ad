"""Which mask belongs to which image: by stem, and by nothing else.

Names are compared in Unicode's composed form (NFC), as one file system stores `é` as one character and the next as two.
No pattern is ever made of a name, and no order is relied on.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePath

from segtool.config import Pairing
from segtool.data.files import JPEG_SUFFIXES, MASK_SUFFIXES, UNREAD_PICTURES, apart, list_files, stem_of
from segtool.data.images import IMAGE_SUFFIXES
from segtool.data.predictions import without_predictions
from segtool.errors import DataError, shown

_KINDS = (JPEG_SUFFIXES, {".webp"}, {".tif", ".tiff"}, {".bmp", ".dib"}, {".png", ".gif"})
_NUMBER = re.compile(r"(?<!\d)0+(\d)")
_WORD = re.compile(r"\d+|[^\W\d_]+")
_MOST = 0.5  # share of the paired files that have another beside them where that is a kind of its own
_SHARED = 0.1  # a tail that as many images' names have with another file's is no chance


@dataclass(frozen=True)
class Record:
    """One image and its mask; absolute paths."""

    image: Path
    mask: Path | None
    stem: str
    """The image's path within its folder without the suffix, with `/` on every system: `seq1/0001`."""

    @property
    def truth(self) -> Path:
        """The mask, where it is needed. Raises DataError where there is none."""
        if self.mask is None:
            raise DataError(f"{shown(self.image)}: has no mask; add one, or remove the image")
        return self.mask


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
    kinds: tuple[str, ...] = ()
    """What the names of further files have that many images have beside their masks: `_color`, `_2ndHO`, `second_`."""


def find_pairs(images: Path, masks: Path, pairing: Pairing) -> Pairs:
    """Returns the pairs of two folders, searched with their subfolders.

    An image and a mask belong together where their paths within the folders, or their names alone (`by_name`), are the
    same once the suffixes (`.jpg`) and what `pairing` takes off are gone; upper and lower case differ. A file that
    lacks the configured prefix or suffix still finds the one whose name it bears. `masks` may lie within `images`, or
    be the same folder: then the files that carry the mask's prefix and suffix, or its format, are the masks; where
    nothing is given, JPEG files (without any, WebP, then TIFF, then BMP) are the images and the others the masks.
    Further files of a paired image in such a folder (`a_mask_1.png`) are nobody's, and so is what was predicted into a
    folder among the images: it is an image only where all of them are.

    Raises:
        DataError: one of the folders is not there or cannot be read.
    """
    one_folder = os.path.abspath(images) == os.path.abspath(masks)
    image_files = list_files(images, MASK_SUFFIXES if one_folder else IMAGE_SUFFIXES, without=apart(images, masks))
    mask_files = list_files(masks, MASK_SUFFIXES, without=apart(masks, images))
    image_files, mask_files = sort_out(image_files, mask_files, images, masks, pairing)
    image_files = list(without_predictions(image_files)) or image_files
    image_keys, unnamed_images = keyed(image_files, images, pairing, image=True)
    mask_keys, unnamed_masks = keyed(mask_files, masks, pairing, image=False)
    unnamed_images = adopt(unnamed_images, images, pairing, image_keys, mask_keys, image=True)
    unnamed_masks = adopt(unnamed_masks, masks, pairing, mask_keys, image_keys, image=False)
    if one_folder:
        unnamed_images += [file for key in _further(image_keys, mask_keys, pairing) for file in image_keys.pop(key)]
    else:
        beside = [*_deeper(image_keys, mask_keys), *_beside(mask_keys, image_keys)]
        unnamed_masks += [file for key in dict.fromkeys(beside) for file in mask_keys.pop(key)]
        unnamed_images += [file for key in _beside(image_keys, mask_keys) for file in image_keys.pop(key)]
    both = [files for keys in (image_keys, mask_keys) for files in keys.values() if len(files) > 1]
    records = [
        Record(files[0], mask_keys[key][0], stem_of(files[0], images))
        for key, files in image_keys.items()
        if len(files) == 1 and len(mask_keys.get(key, ())) == 1
    ]
    alone = (_partnerless(image_keys, mask_keys), _partnerless(mask_keys, image_keys))
    kinds, unnamed = _kinds([*unnamed_images, *unnamed_masks], image_keys.keys() & mask_keys.keys(), pairing)
    return Pairs(
        records=tuple(sorted(records, key=lambda record: record.stem)),
        images_without_mask=without_predictions(alone[0]),
        masks_without_image=without_predictions(alone[1]) if one_folder else alone[1],
        ambiguous=tuple(map(tuple, both)),
        unnamed=tuple(unnamed),
        kinds=tuple(kinds),
    )


def unread_partners(pairs: Pairs, images: Path, masks: Path, pairing: Pairing) -> dict[Path, Path]:
    """Returns, of the files without a partner, those whose partner is there as a picture of a kind that is not read."""
    found: dict[Path, Path] = {}
    sides = (
        (pairs.images_without_mask, images, masks, UNREAD_PICTURES - MASK_SUFFIXES),
        (pairs.masks_without_image, masks, images, UNREAD_PICTURES),
    )
    for alone, own, other, suffixes in sides:
        if alone:
            is_image = own is images
            unread, _ = keyed(list_files(other, suffixes), other, pairing, image=not is_image)
            keys, _ = keyed(alone, own, pairing, image=is_image)
            found |= {file: unread[key][0] for key, files in keys.items() if key in unread for file in files}
    return found


def strip(stem: str, prefix: str, suffix: str) -> str | None:
    """Returns a stem in NFC without prefix and suffix of its last part; None where it does not carry them."""
    stem = unicodedata.normalize("NFC", stem)
    if not (prefix or suffix):
        return stem
    folder, slash, name = stem.rpartition("/")
    prefix, suffix = unicodedata.normalize("NFC", prefix), unicodedata.normalize("NFC", suffix)
    taken = len(prefix) + len(suffix)  # all of the name only where a folder is left: 001/image, 001/mask
    if len(name) < taken + (not folder) or not (name.startswith(prefix) and name.endswith(suffix)):
        return None
    return folder + slash + name[len(prefix) : len(name) - len(suffix)]


def image_key(stem: str, pairing: Pairing) -> str | None:
    """Returns what is compared of an image's stem; None where it does not carry the prefix and suffix, or the words."""
    if _by_words(pairing):
        return _comparable(words_left(stem, pairing.image_words), "", pairing)
    return _comparable(strip(stem, pairing.image_prefix, pairing.image_suffix), pairing.image_folder, pairing)


def mask_key(stem: str, pairing: Pairing) -> str | None:
    """Returns what is compared of a mask's stem; None where it does not carry the prefix and suffix, or the words."""
    if _by_words(pairing):
        return _comparable(words_left(stem, pairing.mask_words), "", pairing)
    return _comparable(strip(stem, pairing.mask_prefix, pairing.mask_suffix), pairing.mask_folder, pairing)


def _by_words(pairing: Pairing) -> bool:
    return bool(pairing.image_words or pairing.mask_words)


def words_and_numbers(stem: str) -> list[str]:
    """Returns the words and numbers of a path: `7`, `camera`, `001` of `7/camera_001`."""
    return _WORD.findall(unicodedata.normalize("NFC", stem))


def words_left(stem: str, words: str) -> str | None:
    """Returns the words and numbers of a path but those given, with blanks between; None where it lacks one of them.

    A name that begins or ends with that of a folder around it, `07/07_frame_1`, `3/scan_3`, does not say it twice.
    """
    there, without = _said_once(stem), set(words.split())
    return " ".join(word for word in there if word not in without) if without <= set(there) else None


@lru_cache(1 << 16)
def _said_once(stem: str) -> tuple[str, ...]:
    """Returns the words and numbers of a path, those of its folders that its name begins or ends with once."""
    *folders, name = stem.split("/")
    around, own = [words_and_numbers(folder) for folder in folders], words_and_numbers(name)
    again = next((words for words in around if own[: len(words)] == words), [])
    at_end = next((words for words in around if words and not again and own[-len(words) :] == words), [])
    return (*(word for words in around for word in words), *own[len(again) : len(own) - len(at_end)])


def _comparable(key: str | None, folder: str, pairing: Pairing) -> str | None:
    if key is None:
        return None
    if folder:
        key = without_folder(key, folder)
    if pairing.by_name:
        key = key.rpartition("/")[2]
    if not key:  # all of 001/image, where folders do not count
        return None
    return _NUMBER.sub(r"\1", key) if pairing.by_number else key


def without_folder(stem: str, folder: str) -> str:
    """Returns a stem without the folders of a name that the file lies in."""
    *parents, name = stem.split("/")
    return "/".join([*(part for part in parents if part != folder), name])


def name_twins(names: Sequence[str]) -> str:
    """Returns the names of files that share a stem, joined; escaped where the eye cannot tell `é` of one character
    from that of two."""
    alike = len({unicodedata.normalize("NFC", name) for name in names}) < len(names)
    return " and ".join(ascii(name)[1:-1] if alike else name for name in names)


def sort_out(
    image_files: list[Path], mask_files: list[Path], images: Path, masks: Path, pairing: Pairing
) -> tuple[list[Path], list[Path]]:
    """Returns which of the files in two folders, which may be one, are images and which are masks."""
    if _by_words(pairing):
        image_files = [file for file in image_files if image_key(stem_of(file, images), pairing) is not None]
        mask_files = [file for file in mask_files if mask_key(stem_of(file, masks), pairing) is not None]
        others = set(mask_files if pairing.mask_words else image_files)
        kept = [[file for file in files if file not in others] for files in (image_files, mask_files)]
        return (kept[0], mask_files) if pairing.mask_words else (image_files, kept[1])
    if pairing.image_folder or pairing.mask_folder:
        own, other = pairing.image_folder, pairing.mask_folder
        image_files = [
            f for f in image_files if (in_folder(f, images, own) if own else not in_folder(f, images, other))
        ]
        return image_files, [file for file in mask_files if in_folder(file, masks, other)]
    return tell_apart(mask_files, pairing) if apart(images, masks) == () else (image_files, mask_files)


def in_folder(file: Path, root: Path, name: str) -> bool:
    """Whether a file lies in a folder of this name below the root; any does below the root itself, ""."""
    return not name or name in PurePath(os.path.relpath(file, root)).parts[:-1]


def tell_apart(files: Iterable[Path], pairing: Pairing) -> tuple[list[Path], list[Path]]:
    """Returns the images and the masks among the files of one folder."""
    if pairing.mask_format:
        masks, images = [], []
        for file in files:
            (masks if file.suffix.lower() == f".{pairing.mask_format}" else images).append(file)
        return images, masks
    if replace(pairing, by_number=False, by_name=False) == Pairing():
        return _by_kind(files)
    of_image = (pairing.image_prefix, pairing.image_suffix)
    of_mask = (pairing.mask_prefix, pairing.mask_suffix)
    images, masks = [], []
    for file in files:
        name = f"{file.parent.name}/{file.stem}"
        is_image, is_mask = (strip(name, *affixes) is not None for affixes in (of_image, of_mask))
        if is_image and is_mask:  # the longer affixes are the more telling
            is_mask = sum(map(len, of_mask)) >= sum(map(len, of_image))
        (masks if is_mask else images).append(file)
    return images, masks


def _by_kind(files: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Returns the files of the kind that photographs are stored in most of all, and the others."""
    ranks = {file: next(i for i, kind in enumerate(_KINDS) if file.suffix.lower() in kind) for file in files}
    first = min(ranks.values(), default=0)
    return [file for file in ranks if ranks[file] == first], [file for file in ranks if ranks[file] > first]


def keyed(
    files: Iterable[Path], folder: Path, pairing: Pairing, *, image: bool
) -> tuple[dict[str, list[Path]], list[Path]]:
    """Returns the files of a folder by the stem that is compared, and those that do not carry prefix and suffix."""
    keys: dict[str, list[Path]] = defaultdict(list)
    unnamed = []
    for file in files:
        key = (image_key if image else mask_key)(stem_of(file, folder), pairing)
        if key is None:
            unnamed.append(file)
        else:
            keys[key].append(file)
    return dict(keys), unnamed


def adopt(
    unnamed: Iterable[Path],
    folder: Path,
    pairing: Pairing,
    own: dict[str, list[Path]],
    others: dict[str, list[Path]],
    *,
    image: bool,
) -> list[Path]:
    """Adds the files to `own` whose whole name is that of one without a partner; returns those that are left."""
    left = []
    lonely = others.keys() - own.keys()
    within = pairing.image_folder if image else pairing.mask_folder
    for file in unnamed:
        key = _comparable(unicodedata.normalize("NFC", stem_of(file, folder)), within, pairing)
        if key in lonely:
            own.setdefault(key, []).append(file)
        else:
            left.append(file)
    return left


def _further(images: dict[str, list[Path]], masks: dict[str, list[Path]], pairing: Pairing) -> list[str]:
    """Returns the keys of files that are no images but further files of what has a mask.

    Their names are a mask's with a tail: the mask's suffix and more, or one that many images share.
    """
    paired = images.keys() & masks.keys()
    tails = _tails((key for key in images if key not in masks), masks.keys())
    counts = Counter(tails.values())
    common = {tail for tail, count in counts.items() if count >= max(2, _SHARED * len(paired))}
    suffix = pairing.mask_suffix
    return [key for key, tail in tails.items() if tail in common or (suffix and tail.startswith(suffix))]


def _beside(own: dict[str, list[Path]], others: dict[str, list[Path]]) -> list[str]:
    """Returns the keys of files that most of the paired ones have beside them in the same folder: `7_superpixels`."""
    paired = own.keys() & others.keys()
    tails = _tails((key for key in own if key not in others), paired)
    counts = Counter(tails.values())
    return [key for key, tail in tails.items() if counts[tail] >= _MOST * len(paired) and not re.search(r"\d", tail)]


def _tails(keys: Iterable[str], owners: Collection[str]) -> dict[str, str]:
    """Returns what follows an owner's name in those of the keys that begin with one and go on with another word."""
    tails: dict[str, str] = {}
    for key in keys:
        cuts = (match.start() for match in re.finditer(r"[\W_]", key))
        if owner := next((key[:cut] for cut in cuts if key[:cut] in owners), None):
            tails[key] = key[len(owner) :]
    return tails


def _kinds(files: Sequence[Path], paired: Iterable[str], pairing: Pairing) -> tuple[list[str], list[Path]]:
    """Returns the ends or beginnings of names that tell kinds of files beside the paired ones, and all other files."""
    owners = {key.rpartition("/")[2] for key in paired}
    tails: dict[Path, str] = {}
    for file in files:
        name = unicodedata.normalize("NFC", file.stem)
        marks = [match.start() for match in re.finditer(r"[\W_]", name)]
        told = [name[mark:] for mark in marks if _comparable(name[:mark], "", pairing) in owners]
        told += [name[: mark + 1] for mark in marks if _comparable(name[mark + 1 :], "", pairing) in owners]
        if told:
            tails[file] = told[0]
    counts = Counter(tails.values())
    more = pairing.mask_suffix  # x_mask_1 beside x_mask holds another object, which is missed
    kinds = {
        tail
        for tail, count in counts.items()
        if count >= max(2, _SHARED * len(owners)) and not (more and tail.startswith(more))
    }
    return sorted(kinds), [file for file in files if tails.get(file) not in kinds]


def _deeper(images: dict[str, list[Path]], masks: dict[str, list[Path]]) -> list[str]:
    """Returns the keys of masks that lie deeper than a paired one of their name, in folders that hold no images."""
    shallow = {"", *(key.rpartition("/")[0] for key in images)}
    paired = {key for key in images.keys() & masks.keys() if "/" not in key}
    return [
        key
        for key in masks
        if key not in images and key.rpartition("/")[2] in paired and key.rpartition("/")[0] not in shallow
    ]


def _partnerless(own: dict[str, list[Path]], others: dict[str, list[Path]]) -> tuple[Path, ...]:
    return tuple(file for key, files in sorted(own.items()) if key not in others for file in files)
