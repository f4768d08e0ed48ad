"""Finds splits that are told by the beginnings of file names: `train_1.bmp` and `testA_1.bmp` in one folder."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from itertools import takewhile

from segtool.config import Folders, Pairing
from segtool.data.pairs import Pairs, strip
from segtool.data.words import SPLITS, meaning_of

_HEAD = re.compile(r"((?i:train(?:ing)?|val(?:id(?:ation)?)?|dev|test(?:ing)?))(?![a-z])")


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


def _part(train: Folders, pairing: Pairing, names: list[str]) -> Folders:
    """Returns the folders with the pairing of the names that begin as these do: `train_`, `test` of testA and testB."""
    letters = takewhile(lambda column: len(set(column)) == 1, zip(*names, strict=False))
    shared = "".join(column[0] for column in letters)
    head = re.match(r"[^\W\d_]+[\W_]?", shared)
    begin = head[0] if head else shared
    own = replace(pairing, image_prefix=pairing.image_prefix + begin, mask_prefix=pairing.mask_prefix + begin)
    return replace(train, pairing=own)
