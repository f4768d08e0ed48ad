"""What of a data set no split uses, in the notes of its layout."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from segtool.config import Pairing
from segtool.data.files import stem_of
from segtool.data.folders import Place, Tree, are_same, holds, looks_like_masks, parent_of, stamp, within
from segtool.data.pairs import image_key, mask_key, words_and_numbers, words_left
from segtool.data.words import meaning_of
from segtool.system.terminal import counted

MOST = 200  # files of a folder that are looked at
SEVERAL = 3  # folders beside each other that are told as one


def listed_folders(folders: Sequence[str]) -> str:
    """Returns folders as a note lists them, several of one name and depth as one: `*/*/infection masks`."""
    alike: dict[tuple[int, str], list[list[str]]] = {}
    for folder in folders:
        parts = folder.split("/")
        alike.setdefault((len(parts), parts[-1]), []).append(parts)
    told = []
    for paths in alike.values():
        columns = [set(column) for column in zip(*paths, strict=True)]
        whole = "/".join("*" if len(column) > 1 else min(column) for column in columns)
        told += [whole] if len(paths) >= SEVERAL else ["/".join(path) for path in paths]
    return ", ".join(told)


def unused_masks(tree: Tree, used: Sequence[Place], *, apart_from: str | None = None) -> Iterator[str]:
    """Yields the folders with pictures whose own name has a word for masks and that no split uses.

    Args:
        apart_from: A folder all of whose paths are masks if they have the words that tell masks.
    """
    masks = sorted((place for place in tree.places if place.role == "masks"), key=lambda place: -len(place.path))
    told: set[str] = set()
    for folder in sorted(tree.files):
        place = next((place for place in masks if holds(place, folder)), None)
        by_words = apart_from is not None and within(folder, apart_from)
        if place and not by_words and not any(holds(p, folder) or within(p.path, place.path) for p in used):
            told.add(place.shown)
    yield from sorted(told)


def unused_by_words(tree: Tree, masks: Place, pairing: Pairing) -> Iterator[str]:
    """Yields the folders of masks below a place in which no path has the words that tell the masks, those of one name
    once: `*/annos/int_maps`."""
    told: dict[str, list[str]] = {}
    for folder in sorted(folder for folder in tree.files if within(folder, masks.path)):
        parts = folder.split("/")
        first = next((place for place, part in enumerate(parts) if meaning_of(part).role == "masks"), len(parts))
        stems = [stem_of(file, tree.root / masks.path) for file in tree.files[folder][:MOST]]
        used = [words for words in (pairing.image_words, pairing.mask_words) if words]
        if first < len(parts) and all(words_left(stem, words) is None for stem in stems for words in used):
            told.setdefault("/".join(parts[first:]), []).append(folder)
    yield from (folders[0] if len(folders) == 1 else f"*/{tail}" for tail, folders in told.items())


def unlabelled_images(
    tree: Tree, used: Sequence[tuple[Place, Place, Pairing]], *, without: Collection[str] = ()
) -> list[str]:
    """Returns notes on the folders of images in places of their own that no split uses.

    Args:
        used: Images and masks of each split, and how they pair.
        without: What is told already.
    """
    paths = [place.path for images, masks, _ in used for place in (images, masks)]
    unknown = [place for place in tree.unknown() if place.path != "."]
    silent = [place for place in unknown if any(_shows_again(tree, place, *part) for part in used)]
    spare = [
        place
        for place in (*tree.places, *silent)
        if place.role != "masks"
        and not looks_like_masks(place.path)
        and all(_is_apart(place, images, masks) for images, masks, _ in used)
    ]
    innermost = [p for p in spare if not any(p.path != other.path and within(other.path, p.path) for other in spare)]
    innermost = _as_one([p for p in innermost if not any(within(p.path, told) for told in without)], paths)
    known = {stamp(file): file for images, _, _ in used for file in tree.files_of(images)} if innermost else {}
    unused = [p for p in tree.places if p.role == "masks" and not any(within(path, p.path) for path in paths)]
    others = [p for p in unused if not any(meet(tree, images, p, pairing) for images, _, pairing in used)]
    elsewhere = [p for p in unused if parent_of(p.path) not in map(parent_of, paths)]
    copies, again, notes = [], [], []
    for place in innermost:
        count = len(tree.files_of(place))
        theirs = next(
            (masks for images, masks, pairing in used if _has_masks(tree, place, images, masks, pairing)), None
        )
        near = [*(p for p in elsewhere if parent_of(p.path) == parent_of(place.path)), *others]
        own = next((masks.shown for masks in near if meet(tree, place, masks, used[0][2])), "")
        if _are_known(tree.files_of(place), known):
            copies.append(place.shown)
        elif theirs:
            notes.append(
                f"{place.shown}: {count} IMAGES WHOSE MASKS LIE IN {theirs.path} are left out, as a split has one "
                "folder of images: to train on them too, put all images into one"
            )
        elif own:
            notes.append(f"{place.shown}: {counted(count, 'image')} with masks in {own}, left out: another set")
        elif any(_shows_again(tree, place, *part) for part in used):
            again.append(place.shown)
        else:
            notes.append(f"{place.shown}: {counted(count, 'image')} without masks, left out")
    if copies:
        notes.insert(0, f"{listed_folders(copies)}: the same files again, left out")
    if again:
        notes.append(
            f"{', '.join(again)}: files of the images' names, not used. Where they are further channels, up to 4 can "
            "be written as those of one picture"
        )
    return list(dict.fromkeys(notes))


def _is_apart(place: Place, images: Place, masks: Place) -> bool:
    """Whether a place shares no folder with either; folders of two names below one are apart, `*/T1` and `*/T2`."""
    if place.inner and images.inner and place.path == images.path:
        return place.inner != images.inner and (place.inner != masks.inner or masks.path != images.path)
    return not any(within(place.path, used.path) or within(used.path, place.path) for used in (images, masks))


def _as_one(places: Sequence[Place], used: Sequence[str]) -> list[Place]:
    """Returns the places, those of several that lie beside each other as the folder around them if it holds no used."""
    beside = Counter(parent_of(place.path) for place in places)
    around = {
        folder for folder, count in beside.items() if count >= SEVERAL and not any(within(p, folder) for p in used)
    }
    whole = {parent: p._replace(path=parent, inner="") for p in places if (parent := parent_of(p.path)) in around}
    return sorted([*(p for p in places if parent_of(p.path) not in around), *whole.values()])


def _are_known(files: Sequence[Path], known: Mapping[tuple[str, int], Path]) -> bool:
    """Whether all files are the same as known ones of their names and sizes."""
    others = [known.get(stamp(file)) for file in files]
    return all(others) and are_same(files, [other for other in others if other])


def meet(
    tree: Tree, images: Place, masks: Place, pairing: Pairing, *, taken: Collection[str | None] = frozenset()
) -> bool:
    """Whether most images of a place have a mask in another one that is not `taken`."""
    keys = {mask_key(stem, pairing) for stem in tree.stems(masks)}.difference(taken, [None])
    stems = tree.stems(images)[:MOST]
    return 2 * sum(image_key(stem, pairing) in keys for stem in stems) > len(stems)


def _shows_again(tree: Tree, place: Place, images: Place, _: Place, pairing: Pairing) -> bool:
    """Whether most files of a place bear the names of the images, but for words that their folders say too."""
    if place.split and place.split != images.split:
        return False
    told = {_told(stem, images) for stem in tree.stems(images)}
    stems = tree.stems(place)[:MOST]
    if parent_of(place.path) != parent_of(images.path) and not any(re.search(r"[^\W\d_]", stem) for stem in stems):
        return False  # numbers alone are the same in any folder
    return 2 * sum(_told(stem, place) in told for stem in stems) > len(stems)


def _told(stem: str, place: Place) -> tuple[str, ...]:
    """Returns the words and numbers of a file's name without those of its folder: `red_7` in `train_red` is `7`."""
    said = {word.lower() for word in words_and_numbers(f"{place.path}/{place.inner}")}
    return tuple(word for word in words_and_numbers(stem.rpartition("/")[2]) if word.lower() not in said)


def _has_masks(tree: Tree, place: Place, images: Place, masks: Place, pairing: Pairing) -> bool:
    """Whether most files of a place are images of masks that lie there, and that the images of the split have not."""
    taken = {image_key(stem, pairing) for stem in tree.stems(images)}
    return images != masks and meet(tree, place, masks, pairing, taken=taken)
