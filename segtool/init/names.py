"""Class names that lie beside a data set, in the files that labelling tools and authors write.

A file's name says little, so every small text, CSV, JSON and YAML file is read in the usual shapes, and what fits the
masks decides (`meaning`). Only plain lists of names, which fit any masks of as many classes, need a telling name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segtool.data.files import decoded
from segtool.data.lists import plain_data
from segtool.data.words import meaning_of
from segtool.errors import shown
from segtool.init.names_in_tables import color_of, read_table

NEARLY_ALL = 0.8  # of the rows of a table of colours occur as values 0, 1, 2, … where these count them
MAX_BYTES = 1 << 20
MAX_FILES = 60
MAX_DEPTH = 4
_MAX_NESTING = 4
_TELLING = re.compile(
    r"[ck]las|label|name|categor|code|object|legend|colou?r|palette|meta|ontology|dataset|data\.ya?ml"
)
_VOID_NAMES = {"void", "ignore", "ignored", "unlabeled", "unlabelled", "dontcare", "nodata", "outsideroi"}
_VOID_NAMES |= {"unknown", "undefined", "unclassified"}
_NAME_KEYS = ("name", "title", "label", "classTitle", "class", "class_name", "category", "readable")
_COLOR_KEYS = ("color", "colour", "color_rgb", "rgb", "hex", "hexcolor")
_OTHER_KEYS = ("channel_names", "modality")
"""What else nnU-Net numbers and names."""
_VALUE_KEYS = ("value", "id", "index", "label_id", "class_id", "trainId", "pixel_value")


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
    of_colors_table: bool = False
    """Whether the order is that of a table of colours, which is less sure to be the one of the values."""

    def of_values(self, values: Sequence[int]) -> dict[int, str]:
        """Returns the names of the values (ascending); of a list, nothing where the counts do not agree."""
        if self.by_value:
            return {value: self.by_value[value] for value in values if value in self.by_value}
        num = len(self.by_order)
        if not values or not num:
            return {}
        if self.of_colors_table:
            nearly_all = values[0] >= 0 and values[-1] < num and len(values) >= NEARLY_ALL * num
            return {value: self.by_order[value] for value in values} if nearly_all else {}
        if len(values) == num:
            return dict(zip(values, self.by_order, strict=True))
        if values[0] >= 1 and values[-1] == num:
            return {value: self.by_order[value - 1] for value in values}
        return {value: self.by_order[value] for value in values} if values[-1] < num else {}


def find_names(root: Path) -> list[NamesFile]:
    """Returns what the files of class names in a folder, above it and below it say, the most telling first.

    Colours tell most, then values, then an order; of equals the one nearest to the folder.
    """
    found = [names for path in _files(root) for names in _read(path)]
    return sorted(found, key=lambda names: (not names.by_color, not names.by_value))


def _tells(name: str) -> bool:
    """Whether a file or a key of this name may hold names of classes."""
    return bool(_TELLING.search(name.lower()))


def is_void(name: str) -> bool:
    """Whether a class of this name means pixels that nobody labelled."""
    return re.sub(r"[\s_-]", "", name.lower()) in _VOID_NAMES


# --- files


def _files(root: Path) -> Iterator[Path]:
    """Yields the files that may hold names: telling ones in the folder and above it, then those below."""
    readable = (".txt", ".csv", ".tsv", ".json", ".emd", ".yaml", ".yml", ".names", "")
    for folder in (root, root.parent):
        for _, names in walk(folder, 0):
            told = (folder / name for name in names if Path(name).suffix.lower() in readable and _tells(name))
            yield from (path for path in told if is_small(path, MAX_BYTES))
    count = 0
    for folder, names in walk(root, MAX_DEPTH):
        paths = [folder / name for name in names if os.path.splitext(name)[1].lower() in readable[:-1]]
        for path in paths[:MAX_FILES]:  # more are outlines, a file for each image
            count += 1
            is_seen = path.parent == root and _tells(path.name)
            if not is_seen and count <= 4 * MAX_FILES and path.name[0] != "." and is_small(path, MAX_BYTES):
                yield path


def walk(root: Path, depth: int) -> Iterator[tuple[Path, list[str]]]:
    """Yields a root and the folders down to a depth below it, each with its files' names, the outer ones first.

    Folders that may not be listed, which is common above the data, are passed over.
    """
    for path, folders, files in os.walk(root):
        folder = Path(path)
        is_last = len(folder.relative_to(root).parts) == depth
        folders[:] = sorted(name for name in folders if not is_last and not name.startswith((".", "__MACOSX")))
        yield folder, sorted(files)


def is_small(path: Path, most: int) -> bool:
    """Whether a path is a file of 1 to `most` bytes; a link to nothing is none."""
    try:
        return path.is_file() and 0 < path.stat().st_size <= most
    except OSError:
        return False


def _read(path: Path) -> Iterator[NamesFile]:
    """Yields what a file says in each way in which it can be understood."""
    try:
        text = decoded(path.read_bytes()).encode(errors="replace").decode()
    except OSError:
        return
    suffix = path.suffix.lower()
    is_json = suffix in (".json", ".emd")  # ArcGIS describes a network's classes in .emd
    if is_json or suffix in (".yaml", ".yml") or text.lstrip().startswith("{"):  # `{0: "sky"}` in a text file
        yield from _of_data(path, plain_data(text, is_json=is_json), telling=_tells(path.name))
    else:
        yield from _of_text(path, text)


# --- text and tables


def _of_text(path: Path, text: str) -> Iterator[NamesFile]:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _is_comment(line)]
    if lines and lines[0] in ("__ignore__", "_ignore_"):  # labelme's name for the value -1, stored as 255
        lines = lines[1:]
    telling = _tells(path.name)
    by_color, by_value = read_table(lines)
    if colors := _cleaned(by_color):
        yield NamesFile(path, by_color=colors)
        if telling and not by_value and len(colors) >= len(lines) - 1:
            yield NamesFile(path, by_order=tuple(colors.values()), of_colors_table=True)
    if telling and (values := _cleaned(by_value)):
        yield NamesFile(path, by_value=values)
    if telling and not by_color and not by_value:
        names = tuple(_clean(line) for line in lines if line.lower() not in _NAME_KEYS)
        in_columns = any(mark in line for line in lines for mark in "\t|")
        in_columns |= any(all(mark in line for line in lines) for mark in ",;")
        if names and all(names) and not in_columns:
            yield NamesFile(path, by_order=names)


def _is_comment(line: str) -> bool:
    return bool(re.match(r"\s*#(?![0-9a-fA-F]{6}\b)", line))


# --- JSON and YAML


def _of_data(path: Path, data: Any, *, telling: bool, depth: int = 0) -> Iterator[NamesFile]:
    """Yields what plain data says: a mapping or a list of classes, itself or what it holds.

    Args:
        telling: Whether the name of the file, or the key that the data stands under, may be that of names of classes.
    """
    if depth > _MAX_NESTING:
        return
    if isinstance(data, Mapping):
        yield from _of_mapping(path, data)
        if data and all(isinstance(value, Mapping) for value in data.values()):
            numbered = all(re.fullmatch(r"\d{1,10}", str(key)) for key in data)
            own = [{"id": int(key)} if numbered else {"name": str(key)} for key in data]
            items = [{**keys, **value} for keys, value in zip(own, data.values(), strict=True)]
            yield from _of_list(path, items, telling=telling)
        children = [
            (value, _tells(str(key)))
            for key, value in data.items()
            if isinstance(value, Mapping | list) and key not in _OTHER_KEYS and not meaning_of(str(key)).split
        ]
    elif isinstance(data, list):
        yield from _of_list(path, data, telling=telling)
        children = [(value, telling) for value in data[:MAX_FILES] if isinstance(value, list)]
    else:
        return
    for child, tells in children[:MAX_FILES]:
        yield from _of_data(path, child, telling=tells, depth=depth + 1)


def _of_mapping(path: Path, data: Mapping[Any, Any]) -> Iterator[NamesFile]:
    by_color: dict[int, str] = {}
    by_value: dict[int, str] = {}
    for key, value in data.items():
        text = str(key)
        if type(value) is int:  # true is none
            by_value[value] = text
        elif isinstance(value, str) and re.fullmatch(r"\d{1,10}", text):
            by_value[int(text)] = value
        elif (color := color_of(value)) is not None:
            by_color[color] = text
        elif isinstance(value, str) and (color := color_of(text)) is not None:
            by_color[color] = value
        else:
            return
    yield from _filled(path, by_color, by_value)


def _of_list(path: Path, data: Sequence[Any], *, telling: bool) -> Iterator[NamesFile]:
    if telling and data and all(isinstance(item, str) for item in data):
        yield NamesFile(path, by_order=tuple(map(_clean, data)))
        return
    by_color: dict[int, str] = {}
    by_value: dict[int, str] = {}
    for item in data:
        name = _first(item, _NAME_KEYS) if isinstance(item, Mapping) else None
        if not isinstance(name, str):
            return
        if (color := color_of(_first(item, _COLOR_KEYS))) is not None:
            by_color[color] = name
        if type(value := _first(item, _VALUE_KEYS)) is int:
            by_value[value] = name
    yield from _filled(path, by_color, by_value)
    counts_from_one = any("title" in item for item in data)  # as Supervisely does
    in_order = len(by_color) == len(data) and not by_value and not counts_from_one
    if in_order and (colors := _cleaned(by_color)):
        yield NamesFile(path, by_order=tuple(colors.values()), of_colors_table=True)


def _filled(path: Path, by_color: dict[int, str], by_value: dict[int, str]) -> Iterator[NamesFile]:
    if colors := _cleaned(by_color):
        yield NamesFile(path, by_color=colors)
        if all(color == color % 256 * 0x010101 for color in colors):  # Supervisely's colours of masks for machines
            yield NamesFile(path, by_value={color % 256: name for color, name in colors.items()})
    if values := _cleaned(by_value):
        yield NamesFile(path, by_value=values)


def _first(item: Mapping[str, Any], keys: Sequence[str]) -> Any:
    given = {key.lower(): value for key, value in item.items() if isinstance(key, str)}
    return next((given[key.lower()] for key in keys if key.lower() in given), None)


def _cleaned(names: Mapping[int, str]) -> dict[int, str]:
    cleaned = {code: _clean(name) for code, name in names.items()}
    return cleaned if all(cleaned.values()) else {}


def _clean(name: str) -> str:
    """Returns a name as it may be printed, without the quotes or underscores around it (`_background_`)."""
    plain = shown(name.strip().strip("\"'").strip())
    return plain.strip("_") or plain
