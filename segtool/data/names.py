"""Class names that lie beside a data set, in the files that common labelling tools write."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segtool.data.opening import shown

LIST_FILES = ("classes.txt", "class_names.txt", "labels.txt", "codes.txt", "names.txt")
COLOR_FILES = ("labelmap.txt", "label_colors.txt", "class_dict.csv", "classes.csv")
JSON_FILES = ("dataset.json",)
MAX_BYTES = 1 << 20
VOID_NAMES = {"void", "ignore", "ignored", "__ignore__", "_ignore_", "unlabeled", "unlabelled", "dontcare"}


@dataclass(frozen=True)
class NamesFile:
    """What a file of names says; exactly one of the three is filled."""

    path: Path
    by_order: tuple[str, ...] = ()
    """Names in the order of the class values."""
    by_color: dict[int, str] = field(default_factory=dict)
    """Names by packed colour."""
    by_value: dict[int, str] = field(default_factory=dict)
    """Names by stored value."""

    def of_values(self, values: Sequence[int]) -> dict[int, str]:
        """Returns a name for each of the values (ascending), or nothing where the counts do not agree."""
        if self.by_value:
            return {value: self.by_value[value] for value in values} if set(values) <= set(self.by_value) else {}
        num = len(self.by_order)
        if not values or not num:
            return {}
        if len(values) == num:
            return dict(zip(values, self.by_order, strict=True))
        if values[0] >= 1 and values[-1] == num:
            return {value: self.by_order[value - 1] for value in values}
        return {value: self.by_order[value] for value in values} if values[-1] < num else {}

    def of_colors(self, colors: Sequence[int]) -> dict[int, str]:
        """Returns a name for each of the packed colours, or nothing where one is not in the file."""
        return {color: self.by_color[color] for color in colors} if set(colors) <= set(self.by_color) else {}


def find_names(root: Path) -> NamesFile | None:
    """Returns the first file of class names in the folder or its parent that can be understood."""
    readers = (
        *((name, _read_colors) for name in COLOR_FILES),
        *((name, _read_list) for name in LIST_FILES),
        *((name, _read_json) for name in JSON_FILES),
    )
    for folder in (root, root.parent):
        for name, read in readers:
            path = folder / name
            if path.is_file() and path.stat().st_size <= MAX_BYTES and (found := read(path)):
                return found
    return None


def is_void(name: str) -> bool:
    """Whether a class of this name means pixels that nobody labelled."""
    return re.sub(r"[\s-]", "", name.lower()) in VOID_NAMES


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _read_list(path: Path) -> NamesFile | None:
    lines = _lines(path)
    if lines and lines[0] in ("__ignore__", "_ignore_"):  # labelme's name for the value -1, stored as 255
        lines = lines[1:]
    numbered = [re.fullmatch(r"(\d{1,10})\s*[:,\t ]\s*(\D.*)", line) for line in lines]
    if lines and all(numbered):
        return NamesFile(path, by_value={int(m[1]): _clean(m[2]) for m in numbered if m})
    names = tuple(_clean(line) for line in lines)
    return NamesFile(path, by_order=names) if all(names) and names else None


def _read_colors(path: Path) -> NamesFile | None:
    """Reads CVAT's `name:r,g,b::`, `name,r,g,b` with a header, and CamVid's `r g b name`."""
    found: dict[int, str] = {}
    for line in _lines(path):
        if match := re.match(r"(.+?)\s*[:,;]\s*(\d{1,10})\s*[,; ]\s*(\d{1,10})\s*[,; ]\s*(\d{1,10})", line):
            name, *channels = match.groups()
        elif match := re.match(r"(\d{1,10})[\s,;]+(\d{1,10})[\s,;]+(\d{1,10})[\s,;]+(\D.*)", line):
            *channels, name = match.groups()
        else:
            continue
        red, green, blue = (int(channel) for channel in channels)
        if max(red, green, blue) <= 255:
            found[red << 16 | green << 8 | blue] = _clean(name)
    return NamesFile(path, by_color=found) if found else None


def _read_json(path: Path) -> NamesFile | None:
    """Reads `labels` of nnU-Net's dataset.json: names to values, or in its first version values to names."""
    try:
        labels = json.loads(path.read_text(encoding="utf-8-sig", errors="replace")).get("labels")
        pairs = labels.items()
    except (ValueError, AttributeError, RecursionError):
        return None
    found: dict[int, str] = {}
    for key, item in pairs:
        if isinstance(item, int) and not isinstance(item, bool):
            found[item] = _clean(str(key))
        elif isinstance(item, str) and re.fullmatch(r"\d{1,10}", str(key)):
            found[int(key)] = _clean(item)
    return NamesFile(path, by_value=found) if found else None


def _clean(name: str) -> str:
    """Returns a name as it may be printed, without the quotes or underscores around it (`_background_`)."""
    plain = shown(name.strip().strip("\"'").strip())
    return plain.strip("_") or plain
