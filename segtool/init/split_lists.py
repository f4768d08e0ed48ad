"""Finds the lists that divide a data set: `train.txt` and `val.txt`, VOC's ImageSets, a CSV with a column of splits.

A list counts for what its lines name, whatever its own name: nine in ten of them must be images of the set that have
masks. So a list of other files, or of labels for classification, is none.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segtool.config import Folders, Pairing
from segtool.data.lists import Names, is_image_name, read_rows, says_image, split_column
from segtool.data.pairs import Pairs
from segtool.data.words import SPLITS, meaning_of, roles_in
from segtool.errors import DataError
from segtool.init.names import is_small

SUFFIXES = (".txt", ".csv", ".tsv", ".lst")
MAX_BYTES = 1 << 26
MAX_FILES = 400
MAX_DEPTH = 5
MAX_COLUMNS = 64
ENOUGH = 0.9


@dataclass(frozen=True)
class _Part:
    """The lines of a list that may be a split: all, or those with one word in a column."""

    path: str
    part: str | None
    cells: tuple[tuple[str, ...], ...]


def find_split_lists(root: Path, train: Folders, pairs: Pairs, pairing: Pairing) -> dict[str, Folders]:
    """Returns the parts into which lists divide the training folders; empty where none do.

    A split that no list names is what the others leave over, where that is less than half.
    """
    names = Names(pairs, root / str(train.images), pairing, root)
    paired = {record.image for record in pairs.records}
    best: tuple[float, ...] = (0.0,)
    chosen: dict[str, _Part] = {}
    groups = list(_groups(root))
    for group in [*groups, *_completed(groups, names)]:
        counts = {split: _named(part, names, paired) for split, part in group.items()}
        group = {split: part for split, part in group.items() if counts[split][0] >= max(1, ENOUGH * counts[split][1])}
        if not _divides(group, counts, len(paired)):
            continue
        covered = sum(counts[split][0] for split in group)
        named = any("masks" in roles_in(part.path) for part in group.values())  # SegmentationContext beside Main
        length = -sum(len(part.path) for part in group.values())
        if (score := (float(covered), float(len(group)), float(named), float(length))) > best:
            best, chosen = score, group
    found = {split: replace(train, list=part.path, part=part.part) for split, part in chosen.items()}
    if chosen and "train" not in found:
        found["train"] = train
    return {split: found[split] for split in SPLITS if split in found}


def find_pair_lists(root: Path) -> tuple[dict[str, Folders], int]:
    """Returns the lists that name images with their masks, by split, and the number of pairs that are there."""
    best: tuple[dict[str, Folders], int] = ({}, 0)
    for group in _groups(root, whole=True):
        found: dict[str, Folders] = {}
        count = 0
        for split, part in group.items():
            base, there = _base(root, part)
            if there < max(1, ENOUGH * len(part.cells)):
                break
            folder = None if base == "." else base
            found[split] = Folders(images=folder, masks=folder, list=part.path, part=part.part)
            count += there
        else:
            if "train" in found and count > best[1]:
                best = ({split: found[split] for split in SPLITS if split in found}, count)
    return best


# --- lists


def _groups(root: Path, *, whole: bool = False) -> Iterator[dict[str, _Part]]:
    """Yields the lists that belong together, by split: of one folder and one name but for the word of the split.

    Args:
        whole: also lists whose names tell no split, as the training set.
    """
    groups: dict[tuple[str, str], dict[str, _Part]] = defaultdict(dict)
    for path in _list_files(root):
        try:
            header, rows = read_rows(root / path, header=None if whole else says_image)
        except DataError:
            continue
        cells = [tuple(row.cells[:MAX_COLUMNS]) for row in rows if row.cells]
        column = split_column(header)
        if column is not None and (parts := _by_column(path, cells, column)):
            yield parts
            continue
        stem = Path(path).stem
        split = meaning_of(stem).split or ("train" if whole else None)
        if split and cells:
            key = (os.path.dirname(path), _WORD.sub("*", stem.lower(), count=1))
            if "trainval" in stem.lower():
                groups[key].setdefault("train", _Part(path, None, tuple(cells)))
            else:
                groups[key][split] = _Part(path, None, tuple(cells))
    yield from groups.values()


_WORD = re.compile(r"train(ing)?|trn|val(id(ation)?)?|test(ing)?|tst|dev|eval")


def _by_column(path: str, cells: Sequence[tuple[str, ...]], column: int) -> dict[str, _Part]:
    """Returns the parts of a list whose column names splits."""
    found: dict[str, _Part] = {}
    for word in sorted({row[column] for row in cells if column < len(row)}):
        split = meaning_of(word).split
        if split and split not in found:
            rows = tuple(row for row in cells if column < len(row) and row[column] == word)
            found[split] = _Part(path, word, rows)
    return found


def _list_files(root: Path) -> list[str]:
    """Returns the files below a root that may be lists, relative to it."""
    found = []
    for folder, folders, files in os.walk(root):
        relative = os.path.relpath(folder, root)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        if relative.count(os.sep) + 1 >= MAX_DEPTH:
            folders.clear()
        for name in sorted(files):
            path = Path(folder) / name
            if name.lower().endswith(SUFFIXES) and name[0] != "." and is_small(path, MAX_BYTES):
                found.append(path.relative_to(root).as_posix())
        if len(found) > MAX_FILES:
            break  # a file of outlines for each image, and no list
    return found if len(found) <= MAX_FILES else [path for path in found if meaning_of(Path(path).stem).split]


# --- evidence


def _completed(groups: Sequence[dict[str, _Part]], names: Names) -> Iterator[dict[str, _Part]]:
    """Yields lists of training alone with what others of their folder hold out: `train_aug.txt` with `val.txt`."""
    for group in (group for group in groups if set(group) == {"train"}):
        train = _files(group["train"], names)
        for other in groups:
            held = {split: part for split, part in other.items() if split != "train"}
            around = {os.path.dirname(part.path) for part in (*group.values(), *held.values())}
            if held and len(around) == 1 and not any(train & _files(part, names) for part in held.values()):
                yield {**held, **group}


def _files(part: _Part, names: Names) -> set[Path]:
    """Returns the images that the lines name."""
    column = names.column(part.cells)
    return {file for row in part.cells if column < len(row) and (file := names.find(row[column]))}


def _named(part: _Part, names: Names, paired: set[Path]) -> tuple[int, int]:
    """Returns how many images with masks the lines name, and the number of lines."""
    return len(_files(part, names) & paired), len(part.cells)


def _divides(group: Mapping[str, _Part], counts: Mapping[str, tuple[int, int]], num_paired: int) -> bool:
    """Whether lists leave something to train on and hold something out."""
    covered = sum(counts[split][0] for split in group)
    if set(group) == {"train"}:
        return False
    return bool(group) and ("train" in group or 2 * covered < num_paired)


def _base(root: Path, part: _Part) -> tuple[str, int]:
    """Returns the folder that the names in a list of pairs are relative to, and how many pairs are there."""
    folders = dict.fromkeys((".", Path(part.path).parent.as_posix()))
    counts = {folder: sum(_both_there(root / folder, row) for row in part.cells) for folder in folders}
    best = max(counts, key=lambda folder: counts[folder])
    return best, counts[best]


def _both_there(folder: Path, row: Sequence[str]) -> bool:
    files = [cell.replace("\\", "/") for cell in row if is_image_name(cell)]
    return len(files) >= 2 and all(os.path.isfile(folder / file) for file in files[:2])
