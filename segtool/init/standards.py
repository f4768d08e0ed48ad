"""Classes of published data sets whose masks hold well-known numbers, named only where file names and values agree."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segtool.init.evidence import Guess

CITYSCAPES = (
    (7, "road", 0x804080),
    (8, "sidewalk", 0xF423E8),
    (11, "building", 0x464646),
    (12, "wall", 0x66669C),
    (13, "fence", 0xBE9999),
    (17, "pole", 0x999999),
    (19, "traffic light", 0xFAAA1E),
    (20, "traffic sign", 0xDCDC00),
    (21, "vegetation", 0x6B8E23),
    (22, "terrain", 0x98FB98),
    (23, "sky", 0x4682B4),
    (24, "person", 0xDC143C),
    (25, "rider", 0xFF0000),
    (26, "car", 0x00008E),
    (27, "truck", 0x000046),
    (28, "bus", 0x003C64),
    (31, "train", 0x005064),
    (32, "motorcycle", 0x0000E6),
    (33, "bicycle", 0x770B20),
)
"""The 19 evaluated classes: value in `labelIds`, name, colour. In `labelTrainIds` they are 0 to 18 in this order.
Source: Cordts et al., "The Cityscapes Dataset", CVPR 2016; cityscapesScripts, labels.py."""
FEWEST = 4  # classes: 0 and 1 under such names may be road and obstacle
_IDS = re.compile("label(train)?ids$|train_?ids?$", re.IGNORECASE)  # BDD100K's end in `train_id`
_VOC_NAME = re.compile(r"20\d\d_\d{6}")
VOC = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Source: Everingham et al., "The PASCAL Visual Object Classes Challenge", 2012, development kit."""


@dataclass(frozen=True)
class Standard:
    """What a data set's own documentation says of its mask values."""

    source: str
    """The data set, as a comment names it, and how it was recognised."""
    names: dict[int, str]
    """By stored value; what has none is left out of its scores."""
    colors: dict[int, int]
    """Packed, by stored value; may be empty."""


def find_standard(guess: Guess, masks: Sequence[Path]) -> Standard | None:
    """Returns the well-known meaning of index masks, where their files' names and all their values fit it."""
    if guess.encoding != "index" or guess.spans or not masks:
        return None
    used = [code for codes in guess.codes for code in codes]
    ends = [match[0] for path in masks if (match := _IDS.search(path.stem))]
    if len(ends) == len(masks):
        return _cityscapes(used, ends[0], trained=all("train" in end.lower() for end in ends))
    if all("SegmentationClass" in path.parts[-3:-1] and re.search("VOC20|VOCdevkit", str(path)) for path in masks):
        fits = set(used) <= set(range(len(VOC))) and all(guess.colors.get(code) == voc_color(code) for code in used)
        own = len(used) < len(VOC) and set(used) == set(range(len(used)))  # 0, 1, 2, as somebody's own classes
        fits &= not own or all(_VOC_NAME.fullmatch(path.stem) for path in masks)
        return Standard("PASCAL VOC, by folder and palette", dict(enumerate(VOC)), {}) if fits else None
    return None


def _cityscapes(used: Sequence[int], end: str, *, trained: bool) -> Standard | None:
    rows = {index if trained else value: (name, color) for index, (value, name, color) in enumerate(CITYSCAPES)}
    known = [value for value in used if value in rows]
    fits = len(known) == len(used) >= FEWEST if trained else set(used) <= set(range(-1, 34))
    if not fits or len(known) < 2:
        return None
    names = {value: name for value, (name, _) in rows.items()}
    colors = {value: color for value, (_, color) in rows.items()}
    return Standard(f"Cityscapes, by the ending `{end}`", names, colors)


def voc_color(index: int) -> int:
    """Returns the packed colour of an index in VOC's palette: bit 3i + c of the index is bit 7 - i of channel c."""
    bits = np.array([[index >> (3 * place + channel) & 1 for place in range(3)] for channel in range(3)])
    red, green, blue = (bits << np.array([7, 6, 5])).sum(1).tolist()
    return red << 16 | green << 8 | blue
