"""Finds the lists that divide a data set: `train.txt` and `val.txt`, VOC's ImageSets, a column or keys of splits.

A list counts for what its lines name, whatever its own name: nine in ten of them must be images of the set that have
masks. So a list of other files, or of labels for classification, is none.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

from segtool.config import Folders, Pairing
from segtool.data.listed_images import ImageNames
from segtool.data.lists import (
    DATA_SUFFIXES,
    FLAGS,
    is_image_name,
    locate,
    pairs_there,
    read_rows,
    says_image,
    split_columns,
    split_of,
)
from segtool.data.pairs import Pairs
from segtool.data.words import SPLITS, meaning_of, roles_in
from segtool.errors import DataError
from segtool.init.names import is_small, walk

SUFFIXES = (".txt", ".csv", ".tsv", ".lst")
MAX_BYTES = 1 << 26
MAX_DATA = 1 << 21  # larger ones are outlines
MAX_FILES = 400
MAX_DEPTH = 5
MAX_COLUMNS = 64
MAX_FOLDERS = 8  # that hold what a list names, which each with each of the others is read by
ENOUGH = 0.9
SOME = 0.1  # of the lines of a list name images that are here
FEWEST_FOLDS, MOST_FOLDS = 3, 20


@dataclass(frozen=True)
class _Part:
    """The lines of a list that may be a split: all, or those with one word in a column."""

    path: str
    part: str | None
    cells: tuple[tuple[str, ...], ...]
    header: tuple[str, ...] = ()


def find_split_lists(root: Path, train: Folders, pairs: Pairs, pairing: Pairing) -> dict[str, Folders]:
    """Returns the parts into which lists divide the training folders; empty where none do.

    A split that no list names is what the others leave over, where that is less than half.
    """
    names = ImageNames(pairs, root / str(train.images), pairing, root)
    paired = {record.image for record in pairs.records}
    best: tuple[float, ...] = (0.0,)
    chosen: dict[str, _Part] = {}
    groups = list(_groups(root))
    for group in [*groups, *_completed(groups, names)]:
        lines = {split: [file & paired for file in _lines(part, names)] for split, part in group.items()}
        files = {split: set().union(*named) for split, named in lines.items()}
        held_out = {file for split in ("val", "test") for file in files.get(split, ())}
        if files.get("train") and files["train"] <= held_out:  # as where a config names one folder for all
            continue
        if files.get("test") and files["test"] == files.get("val"):
            group = {split: part for split, part in group.items() if split != "test"}
        if not _cover_all(group, lines, len(paired)):
            told = {split: sum(map(bool, lines[split])) for split in group}
            group = {split: part for split, part in group.items() if _are_enough(told[split], len(part.cells))}
        covered = sum(len(files[split]) for split in group)
        if not _divides(group, covered, len(paired)) or _is_of_others(root, train, group):
            continue
        named = any("masks" in roles_in(part.path) for part in group.values())  # SegmentationContext beside Main
        length = -sum(len(part.path) for part in group.values())
        if (score := (float(covered), float(len(group)), float(named), float(length))) > best:
            best, chosen = score, group
    found = {split: replace(train, list=part.path, part=part.part) for split, part in chosen.items()}
    return {split: found[split] for split in SPLITS if split in found}


def find_pair_lists(root: Path) -> tuple[dict[str, Folders], int]:
    """Returns the lists that name images with their masks, by split, and the number of pairs that are there."""
    best: tuple[dict[str, Folders], int] = ({}, 0)
    for group in _groups(root, whole=True):
        found: dict[str, Folders] = {}
        count = 0
        for split, part in group.items():
            listed, there = max((_of_one_base(root, part), _of_two_bases(root, part)), key=lambda found: found[1])
            if not _are_enough(there, len(part.cells)):
                break
            found[split] = listed
            count += there
        else:
            if "train" in found and count > best[1]:
                best = ({split: found[split] for split in SPLITS if split in found}, count)
    return best


def _are_enough(found: int, named: int) -> bool:
    """Whether a list is one of the images there: all it names but a tenth are found, or but one of a few."""
    return found >= max(1, min(ENOUGH * named, named - 1))


# --- lists


def _groups(root: Path, *, whole: bool = False) -> Iterator[dict[str, _Part]]:
    """Yields the lists that belong together, by split: of one folder and one name but for the word of the split.

    Args:
        whole: Also lists whose names tell no split, as the training set.
    """
    groups: dict[tuple[str, str], dict[str, _Part]] = defaultdict(dict)
    for path in _list_files(root):
        try:
            header, rows = read_rows(root / path, header=None if whole else says_image)
        except DataError:
            continue
        cells = [tuple(row.cells[:MAX_COLUMNS]) for row in rows if row.cells]
        ways = [_by_column(path, cells, tuple(header), place) for place in split_columns(header, cells)]
        divided = max(ways, key=len, default={})
        if divided and ("train" in divided or not whole):
            yield {split: _followed(root, part) for split, part in divided.items()}
            continue
        stem = Path(path).stem
        split = meaning_of(stem).split or ("train" if whole else None)
        if split and cells:
            key = (os.path.dirname(path), _WORD.sub("*", stem.lower(), count=1))
            groups[key][split] = _Part(path, None, tuple(cells), tuple(header))
    yield from groups.values()


_WORD = re.compile(r"train(ing)?|trn|val(id(ation)?)?|test(ing)?|tst|dev(elopment)?|eval")
_TELLING = re.compile(rf"{_WORD.pattern}|split|subset|partition|dataset|fold|^data\.")
"""Names of JSONs and YAMLs that may be lists."""


def _by_column(path: str, cells: Sequence[tuple[str, ...]], header: tuple[str, ...], column: int) -> dict[str, _Part]:
    """Returns the parts of a list whose column names splits."""
    found: dict[str, _Part] = {}
    words = sorted({row[column] for row in cells if column < len(row)})
    for word in words:
        split = split_of(word, header[column])
        if split and split not in found:
            rows = tuple(row for row in cells if column < len(row) and row[column] == word)
            found[split] = _Part(path, word, rows, header)
    name = header[column].strip().lower()
    if name in FLAGS and 2 * sum(len(part.cells) for split, part in found.items() if split != "train") > len(cells):
        return {}  # is_valid may say of most that they are no broken ones
    is_numbered = name == "fold" and all(word.isdecimal() for word in words)
    if is_numbered and not found and FEWEST_FOLDS <= len(words) <= MOST_FOLDS:  # the first validates
        found["val"] = _Part(path, words[0], tuple(row for row in cells if row[column:][:1] == (words[0],)), header)
    return found


def _followed(root: Path, part: _Part) -> _Part:
    """Returns the list that a part names in place of images, as `train: lists/a.txt` does; else the part itself."""
    around = (root / part.path).parent
    named = [around / cell for cell in part.cells[0] if cell.lower().endswith(SUFFIXES)] if len(part.cells) == 1 else []
    path = next((path for path in named if path.is_relative_to(root) and is_small(path, MAX_BYTES)), None)
    if path is None:
        return part
    header, rows = read_rows(path, header=says_image)
    cells = tuple(tuple(row.cells[:MAX_COLUMNS]) for row in rows if row.cells)
    return _Part(path.relative_to(root).as_posix(), None, cells, tuple(header))


def _list_files(root: Path) -> list[str]:
    """Returns the files below a root that may be lists, relative to it."""
    found = []
    for folder, files in walk(root, MAX_DEPTH):
        for name in files:
            path = folder / name
            is_data = name.lower().endswith(DATA_SUFFIXES) and _TELLING.search(name.lower())
            most = MAX_DATA if is_data else MAX_BYTES if name.lower().endswith(SUFFIXES) else 0
            if most and name[0] != "." and is_small(path, most):
                found.append(path.relative_to(root).as_posix())
        if len(found) > MAX_FILES:
            break  # a file of outlines for each image, and no list
    return found if len(found) <= MAX_FILES else [path for path in found if meaning_of(Path(path).stem).split]


# --- evidence


def _completed(groups: Sequence[dict[str, _Part]], names: ImageNames) -> Iterator[dict[str, _Part]]:
    """Yields lists of training alone with what others of their folder hold out: `train_aug.txt` with `val.txt`."""
    for group in (group for group in groups if set(group) == {"train"}):
        train = set().union(*_lines(group["train"], names))
        for other in groups:
            held = {split: part for split, part in other.items() if split != "train"}
            around = {os.path.dirname(part.path) for part in (*group.values(), *held.values())}
            named = [line for part in held.values() for line in _lines(part, names)]
            if held and len(around) == 1 and all(map(train.isdisjoint, named)):
                yield {**held, **group}


def _lines(part: _Part, names: ImageNames) -> list[set[Path]]:
    """Returns the images that each line names; an image and its mask may stand on lines of their own."""
    column = names.column(part.cells)
    return [names.all_of(row[column]) if column < len(row) else set() for row in part.cells]


def _cover_all(group: Mapping[str, _Part], lines: Mapping[str, Sequence[set[Path]]], num_paired: int) -> bool:
    """Whether lists divide nearly all images among them, and name others: those of a set that is here in part."""
    files = [set().union(*lines[split]) for split in group]
    some = all(sum(map(bool, lines[split])) >= SOME * len(part.cells) for split, part in group.items())
    return some and ENOUGH * num_paired <= len(set().union(*files)) == sum(map(len, files))


def _divides(group: Mapping[str, _Part], covered: int, num_paired: int) -> bool:
    """Whether lists that name so many of the images leave something to train on and hold something out."""
    if set(group) == {"train"}:
        return False
    return bool(group) and ("train" in group or 2 * covered < num_paired)


def _is_of_others(root: Path, train: Folders, group: Mapping[str, _Part]) -> bool:
    """Whether lists are of images in folders of other splits, which bear the same names: `test.csv` beside `test`."""
    for folder, files in walk(root, MAX_DEPTH) if "train" not in group else ():
        split = meaning_of(folder.name).split
        if split in group and not folder.is_relative_to(root / str(train.images)):
            stems = {os.path.splitext(name)[0] for name in files}
            names = [{os.path.splitext(os.path.basename(cell))[0] for cell in row} for row in group[split].cells]
            if sum(not stems.isdisjoint(row) for row in names) >= ENOUGH * len(names):
                return True
    return False


def _of_one_base(root: Path, part: _Part) -> tuple[Folders, int]:
    """Returns a list of pairs with the folder that its names are relative to, and how many pairs are there.

    That is the root, the list's own folder, or the first below the root in which the paths of the first line are.
    """
    folders = dict.fromkeys((".", Path(part.path).parent.as_posix()))
    paths = [cell for cell in part.cells[0] if is_image_name(cell) and "/" in cell]
    if len(paths) > 1 and not any(_both_there(root / folder, paths) for folder in folders):
        first = next((folder for folder, _ in walk(root, MAX_DEPTH) if _both_there(folder, paths)), root)
        folders[first.relative_to(root).as_posix()] = None
    counts = {folder: sum(_both_there(root / folder, row) for row in part.cells) for folder in folders}
    best = max(counts, key=lambda folder: counts[folder])
    base = None if best == "." else best
    return Folders(images=base, masks=base, list=part.path, part=part.part), counts[best]


def _of_two_bases(root: Path, part: _Part) -> tuple[Folders, int]:
    """Returns a list of pairs with the folders in which images and masks bear its names, and how many are there.

    Where a name of an image may be that of a mask too, the header must say which column holds masks: two pictures a
    line may be those of two cameras.
    """
    listed = Folders(list=part.path, part=part.part)
    names = [cell for row in part.cells[:1] for cell in row if is_image_name(cell) and not os.path.isabs(cell)]
    if len(names) < 2:
        return listed, 0
    there = {
        folder.relative_to(root).as_posix(): {name for name in names if os.path.isfile(folder / name)}
        for folder, _ in walk(root, MAX_DEPTH)
    }
    told = any("masks" in roles_in(cell) for cell in part.header)
    choices = [
        replace(listed, images=images, masks=masks)
        for images, masks in permutations([folder for folder in there if there[folder]][:MAX_FOLDERS], 2)
        if meaning_of(Path(masks).name).role == "masks" != meaning_of(Path(images).name).role
        and (told or not there[images] & there[masks])
    ]
    counted = [(choice, len(pairs_there(choice, root)[0])) for choice in choices]
    return max(counted, key=lambda found: found[1], default=(listed, 0))


def _both_there(folder: Path, row: Sequence[str]) -> bool:
    files = [cell for cell in row if is_image_name(cell)]
    return len(files) >= 2 and all(os.path.isfile(locate(file, folder)) for file in files[:2])
