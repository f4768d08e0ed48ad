"""Files that list a split: which images belong to it, or its pairs.

One entry a line, the cells separated by a comma, semicolon, tab or blanks, with a header or without; or the entries of
a JSON or YAML. What a list of images names is for `listed_images` to find; here are its rows, and lists of pairs.
"""

from __future__ import annotations

import csv
import json
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from segtool.config import Folders
from segtool.config.yaml_io import load
from segtool.data.files import MASK_SUFFIXES, decoded, stem_of
from segtool.data.pairs import Record
from segtool.data.words import meaning_of
from segtool.errors import DataError, SegtoolError, few, shown

MAX_LIST_BYTES = 1 << 28
MAX_PATH = 4096  # characters, of Linux's longest path
_IMAGE_WORD = re.compile(r"im(a?ge?)|file|photo|input|sat|path|x$")
_MASK_WORD = re.compile(r"mask|label|annot|gt|seg|target|truth|y$")
_HEADER_WORDS = frozenset(("image", "images", "img", "file", "filename", "name", "names", "id", "ids", "stem", "path"))
_SPLIT_COLUMNS = ("split", "subset", "set", "fold", "phase", "usage", "partition")
FLAGS = ("is_train", "is_valid", "is_val", "is_test")
"""Columns that say of each image whether it is in the split of that name, as fastai's tables do."""
DATA_SUFFIXES = (".json", ".yaml", ".yml")
MOST_PARTS = 6
MAX_NESTING = 3  # of mappings around the one of splits


@dataclass(frozen=True)
class Row:
    """A line of a list, or an entry, with all of its text."""

    number: int
    cells: list[str]
    text: str


def read_list(part: Folders, root: Path) -> list[Record]:
    """Returns the pairs that a split's list names, sorted by stem.

    An image and its mask a line; empty lines and lines that begin with `#` are passed over. A first line in which no
    cell is the name of an image file is a header. Of more than two columns those that hold names of image files are
    read, the mask's being the one whose header says so, else the second. Paths are relative to the split's folders,
    else to `root`.

    Raises:
        DataError: the list is not there, or lines that name no pair or files that are not there, each with its number.
    """
    records, problems = pairs_there(part, root)
    if problems:
        raise DataError(*problems[:20], *([f"… and {len(problems) - 20} more lines"] if len(problems) > 20 else []))
    return records


def pairs_there(part: Folders, root: Path) -> tuple[list[Record], list[str]]:
    """Returns the pairs of a split's list whose files are there, sorted by stem, and what is wrong with other lines."""
    path = root / str(part.list)
    header, rows = read_rows(path, part=part.part)
    columns = _columns(header, rows)
    bases = (root / (part.images or "."), root / (part.masks or "."))
    records: list[Record] = []
    problems: list[str] = []
    lines: dict[Path, int] = {}
    for row in rows:
        result = _parse_row(row, columns, len(header) or 2, bases, root)
        if isinstance(result, Record) and result.image in lines:
            result = f"{shown(result.image)} is listed in line {lines[result.image]} already; keep one of them"
        if isinstance(result, Record):
            records.append(result)
            lines[result.image] = row.number
        else:
            problems.append(f"{shown(path)}:{row.number}: {result}")
    if not rows:
        problems.append(f"{shown(path)}: names no pair; expected an image and a mask a line")
    return sorted(records, key=lambda record: record.stem), problems


def _list_text(path: Path) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{shown(path)}: is no regular file, expected a list of pairs; correct data.*.list")
        if status.st_size > MAX_LIST_BYTES:
            raise DataError(f"{shown(path)}: larger than {MAX_LIST_BYTES >> 20} MiB, expected a list of pairs")
        return decoded(path.read_bytes())
    except OSError as error:
        raise DataError(f"{shown(path)}: the list cannot be read ({error.strerror}); correct data.*.list") from error


def read_rows(
    path: Path, *, part: str | None = None, header: Callable[[Sequence[str]], bool] | None = None
) -> tuple[Sequence[str], list[Row]]:
    """Returns the cells of the header, none where there is no header, and the other rows.

    Args:
        part: The word in a column of splits that rows must have; None: all rows.
        header: Given for a list of images: whether a first line is one. Of several cells the first is then the whole
            line, for names that hold blanks or commas.
    """
    text = _list_text(path)
    suffix = path.suffix.lower()
    rows = _table_of(plain_data(text, is_json=suffix == ".json")) if suffix in DATA_SUFFIXES else _parse_rows(text)
    if header:
        rows = [replace(row, cells=[row.text, *row.cells]) if len(row.cells) > 1 else row for row in rows]
    is_header = header or (lambda cells: not any(map(is_image_name, cells)))
    if header and all(len(row.cells) == 1 and header(row.cells) for row in rows[:2]):  # image_apple, image_bear
        is_header = _holds_header_words_alone
    names, rows = (rows[0].cells, rows[1:]) if rows and is_header(rows[0].cells) else ([], rows)
    return names, rows if part is None else _rows_of_part(names, rows, part, path)


def plain_data(text: str, *, is_json: bool) -> Any:
    """Returns what a JSON or YAML holds, nothing of what is none."""
    try:
        return json.loads(text) if is_json else load(text, where=lambda line: f"{line}").data
    except (ValueError, RecursionError, SegtoolError):
        return None


def _table_of(data: Any) -> list[Row]:
    """Returns the entries of plain data as rows below their keys: of one list, or of each split.

    An entry is a name, or names and numbers by keys such as `image` and `mask`; of entries with other keys, as COCO has
    them, those that name most images.
    """
    tables: dict[tuple[str, ...], list[list[Any]]] = defaultdict(list)
    division = _division(data)
    if division and all(meaning_of(str(part)).split for part in division.values()):  # {"0001": "train", …}
        tables["name", "split"] = [[name, part] for name, part in division.items()]
    else:
        parts = division or (data if isinstance(data, dict) else {"": data})
        for part, entries in parts.items():
            for entry in entries if isinstance(entries, list) else [entries]:
                names = entry if isinstance(entry, dict) else {"name": entry}
                if all(isinstance(name, str | int | float) for name in names.values()):
                    cells = {"split": part, **names} if part else names
                    tables[tuple(cells)].append(list(cells.values()))
    rows = [[[str(cell).strip() for cell in row] for row in (keys, *entries)] for keys, entries in tables.items()]
    most = max(rows, key=lambda table: sum(any(map(is_image_name, row)) for row in table[1:]), default=[])
    return [Row(number, cells, ",".join(cells)) for number, cells in enumerate(most, 1)]


def _division(data: Any, depth: int = 0) -> dict[str, Any]:
    """Returns the first mapping with a key or a value for each split, itself or within others; empty without one."""
    if isinstance(data, dict):
        words = [str(value) for value in data.values() if isinstance(value, str)]
        keys = [key for key, value in data.items() if meaning_of(key).split and isinstance(value, list | str)]
        if keys or (data and len(words) == len(data) and all(meaning_of(word).split for word in words)):
            return data
    within = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    inner = (_division(value, depth + 1) for value in within if depth < MAX_NESTING and isinstance(value, dict | list))
    return next(filter(None, inner), {})


def _parse_rows(text: str) -> list[Row]:
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    delimiter = next((mark for mark in "\t,;" if lines and mark in lines[0][1]), None)
    return [Row(number, _cells(line, delimiter) if delimiter else line.split(), line) for number, line in lines]


def says_image(cells: Sequence[str]) -> bool:
    """Whether a first line is a header: its cells are words, one of which is what images or splits are headed by.

    Beside such a word a column may be one of several of a kind, `split1`.
    """
    cells = cells[1:] or cells  # of several the first is the whole line
    words = {word for cell in cells if not re.search(r"\d", cell) for word in re.findall(r"[a-z]+", cell.lower())}
    plain = all(re.fullmatch(r"[^\d/]*|[^\d/]+\d", cell) for cell in cells) and not any(map(is_image_name, cells))
    names_splits = len(cells) > 1 and any(cell.strip().lower() in (*_SPLIT_COLUMNS, *FLAGS) for cell in cells)
    return plain and (bool(words & _HEADER_WORDS) or names_splits)


def _holds_header_words_alone(cells: Sequence[str]) -> bool:
    return all(set(re.findall(r"[a-z]+", cell.lower())) <= _HEADER_WORDS for cell in cells)


def _rows_of_part(header: Sequence[str], rows: list[Row], part: str, path: Path) -> list[Row]:
    """Returns the rows in whose column of splits the part's name stands."""
    columns = split_columns(header, [row.cells for row in rows])
    if not columns:
        raise DataError(
            f"{shown(path)}: no column named {', '.join(_SPLIT_COLUMNS)}, which data.*.part is looked for in; "
            "add one, or remove data.*.part"
        )
    for column in columns:
        mine = [row for row in rows if row.cells[column : column + 1] == [part]]
        if mine:
            return mine
    there = few(name for name in dict.fromkeys(cell for row in rows for cell in row.cells[columns[0] :][:1]) if name)
    raise DataError(
        f"{shown(path)}: the column {shown(header[columns[0]])} has {there or 'nothing'}, but data.*.part is "
        f"{shown(part)}; correct it"
    )


def split_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Returns the columns of a list that name splits: as their headers say, then those that hold nothing else."""
    named = [i for i, name in enumerate(header) if name.strip().lower() in (*_SPLIT_COLUMNS, *FLAGS)]
    held = [{cells[i] for cells in rows if i < len(cells)} for i in range(len(header))]
    return [*named, *(i for i, words in enumerate(held) if i not in named and _are_splits(words))]


def _are_splits(words: set[str]) -> bool:
    """Whether words are those of splits, training among them, and no names that hold such a word: `0_test_1.png`."""
    if not 1 < len(words) <= MOST_PARTS or not all(re.fullmatch("[A-Za-z_]+", word) for word in words):
        return False
    told = {meaning_of(word).split for word in words}
    return "train" in told and len(told) > 1 and None not in told


def split_of(word: str, column: str) -> str | None:
    """Returns the split that a word in a column of splits tells: `valid`, or True in the column `is_valid`."""
    column = column.strip().lower()
    if column not in FLAGS or word.lower() not in ("true", "false", "1", "0"):
        return meaning_of(word).split
    own = meaning_of(column).split
    return own if word.lower() in ("true", "1") else "train" if own != "train" else "val"


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
    except csv.Error:  # a cell of 128 KiB, or a carriage return within the line: no path, which the caller tells
        return [line]


def is_image_name(cell: str) -> bool:
    """Whether a cell ends as the names of images and masks do."""
    return os.path.splitext(cell)[1].lower() in MASK_SUFFIXES


def _columns(header: Sequence[str], rows: Sequence[Row]) -> tuple[int, int]:
    """Returns the columns of images and masks: those that hold names of image files, told apart by the header."""
    counts = Counter(i for row in rows for i, cell in enumerate(row.cells) if is_image_name(cell))
    named = sorted(column for column, count in counts.items() if 2 * count > max(counts.values()))
    if len(named) < 2:
        named = list(range(max(2, len(header))))
    words = [header[i].lower() if i < len(header) else "" for i in named]
    mask = next((i for i, name in zip(named, words, strict=True) if _MASK_WORD.search(name)), None)
    image = next((i for i, name in zip(named, words, strict=True) if i != mask and _IMAGE_WORD.search(name)), None)
    if mask is None:
        return (0, 1) if len(named) < 2 or image is None else (image, next(i for i in named if i != image))
    return next(i for i in named if i != mask) if image is None else image, mask


def _parse_row(row: Row, columns: tuple[int, int], width: int, bases: tuple[Path, Path], root: Path) -> Record | str:
    """Returns the record of a line, or what is wrong with it."""
    if len(row.cells) != width or width < 2:
        return (
            f"expected {'an image and a mask' if width == 2 else f'{max(width, 2)} cells'}, found {len(row.cells)} "
            f"({few(row.cells)}); put names that hold blanks or commas into a CSV with quotes"
        )
    if max(map(len, row.cells)) > MAX_PATH:
        return f"a cell of {max(map(len, row.cells)):,} characters, which is no path; correct the line"
    if not all(row.cells[column] for column in columns):
        return "an empty cell, expected an image and a mask; complete the line or remove it"
    located = (locate(row.cells[column], base) for column, base in zip(columns, bases, strict=True))
    image, mask = (_below(path, root) for path in located)
    missing = [shown(path) for path in (image, mask) if not os.path.exists(path)]  # False for a name too long
    if missing:
        return f"no such file: {', '.join(missing)}; paths are relative to data.root"
    return Record(image, mask, _listed_stem(image, root))


def locate(cell: str, root: Path) -> Path:
    """Returns the file that a cell names, by what of its path is there: lists are written on other computers.

    A file keeps the folder that it is said to lie in: `left/0.png` is not `0.png`, nor `right/0.png`.
    """
    path = root / cell
    if not os.path.exists(path):
        parts = cell.replace("\\", "/").split("/")
        ends = (
            root.joinpath(*parts[start:])
            for start in range(max(1, len(parts) - 1))
            if parts[start] not in ("", ".", "..")
        )
        path = next(filter(os.path.exists, ends), path)
    return Path(os.path.abspath(path))


def _below(path: Path, root: Path) -> Path:
    """Returns a path as one below the root, where it leads there by way of a link."""
    if path.is_relative_to(root) or not (os.path.exists(path) and os.path.exists(root)):
        return path
    same = next((folder for folder in path.parents if os.path.samefile(folder, root)), None)
    return root / path.relative_to(same) if same else path


def _listed_stem(image: Path, root: Path) -> str:
    """Returns a stem that stays within any folder it is appended to, also for an image outside of `root`."""
    if image.is_relative_to(root):
        return stem_of(image, root)
    return PurePath(*image.with_suffix("").parts[1:]).as_posix()
