"""Finds splits that are told by names: `train_1.bmp` and `testA_1.bmp`; `Class1/Train/1.png`, `Class2/Train/1.png`."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from itertools import takewhile
from pathlib import Path, PurePosixPath

from segtool.config import Folders, Pairing
from segtool.data.pairs import Pairs, find_pairs, strip, words_and_numbers
from segtool.data.words import SPLITS, meaning_of

_HEAD = re.compile(r"((?i:train(?:ing)?|val(?:id(?:ation)?)?|dev(?:elopment)?|test(?:ing)?))(?![a-z])")


def find_split_names(train: Folders, pairs: Pairs, pairing: Pairing) -> dict[str, Folders]:
    """Returns the parts into which the names of the training folders divide it; empty where one name tells none."""
    if pairing.image_words or pairing.mask_words or pairing.image_folder or pairing.mask_folder:
        return {}
    names: dict[str, list[str]] = defaultdict(list)
    for record in pairs.records:
        key = strip(record.stem, pairing.image_prefix, pairing.image_suffix) or record.stem
        head = _HEAD.match(key.rpartition("/")[2])
        split = meaning_of(head[1]).split if head else None
        if split is None:
            return {}
        names[split].append(key.rpartition("/")[2])
    if "train" not in names or len(names) == 1:
        return {}
    return {split: _part(train, pairing, names[split]) for split in SPLITS if split in names}


def find_split_folders(root: Path, train: Folders, pairs: Pairs, pairing: Pairing) -> dict[str, Folders]:
    """Returns the parts into which folders in the midst of paths divide the training folders; empty where one has none.

    Each part takes the words of one folder more off both sides, so that the files without them are none of its own.
    Where names alone are compared, each part has that folder's images, and all have the masks.
    """
    by_words = _in_words(pairing)
    if by_words is None and not pairing.by_name:
        return {}
    folders: dict[str, set[str]] = defaultdict(set)
    for record in pairs.records:
        around = record.stem.split("/")[:-1]
        told = [
            (split, "/".join(around[: place + 1]) if pairing.by_name else name)
            for place, name in enumerate(around)
            if (split := meaning_of(name).split)
        ]
        if len({split for split, _ in told}) != 1:
            return {}
        split, name = told[0]
        folders[split].add(name if pairing.by_name else _without_numbers(name))
    if "train" not in folders or len(folders) == 1 or any(len(names) > 1 for names in folders.values()):
        return {}
    names = {split: name for split in SPLITS if split in folders for name in folders[split]}
    if by_words is None:
        images = PurePosixPath(str(train.images))
        parts = {split: replace(train, images=(images / name).as_posix()) for split, name in names.items()}
    else:
        parts = {split: _part_of_folder(train, by_words, name) for split, name in names.items()}
    found = [find_pairs(root / str(p.images), root / str(p.masks), p.pairing or pairing) for p in parts.values()]
    return parts if sum(len(part.records) for part in found) == len(pairs.records) else {}


def _in_words(pairing: Pairing) -> Pairing | None:
    """Returns what tells images from masks as words; None where something else does."""
    if pairing.image_words or pairing.mask_words:
        return pairing
    if pairing.by_number or pairing.by_name or pairing.mask_format:
        return None
    images = " ".join([pairing.image_folder, pairing.image_prefix, pairing.image_suffix])
    masks = " ".join([pairing.mask_folder, pairing.mask_prefix, pairing.mask_suffix])
    return Pairing(image_words=" ".join(words_and_numbers(images)), mask_words=" ".join(words_and_numbers(masks)))


def _without_numbers(name: str) -> str:
    """Returns the words of a folder's name, `train` of `train_0001`; all of it where it has none."""
    return " ".join(word for word in words_and_numbers(name) if not word.isdigit()) or name


def _part_of_folder(train: Folders, pairing: Pairing, name: str) -> Folders:
    images = pairing.image_words.split()
    words = [word for word in words_and_numbers(name) if word not in images]  # `val` of `org_val` beside `label_val`
    own = replace(
        pairing,
        image_words=" ".join([*images, *words]),
        mask_words=" ".join([*pairing.mask_words.split(), *words]),
    )
    return replace(train, pairing=own)


def _part(train: Folders, pairing: Pairing, names: list[str]) -> Folders:
    """Returns the folders with the pairing of the names that begin as these do: `train_`, `test` of testA and testB."""
    letters = takewhile(lambda column: len(set(column)) == 1, zip(*names, strict=False))
    shared = "".join(column[0] for column in letters)
    head = re.match(r"[^\W\d_]+[\W_]?", shared)
    begin = head[0] if head else shared
    own = replace(pairing, image_prefix=pairing.image_prefix + begin, mask_prefix=pairing.mask_prefix + begin)
    return replace(train, pairing=own)
