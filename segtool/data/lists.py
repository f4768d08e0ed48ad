"""Files that list a split: which images belong to it, or its pairs.

One entry a line, the cells separated by a comma, semicolon, tab or blanks, with a header or without; or the entries of
a JSON. What a list of images names is for `listed_images` to find; here are its rows, and lists of pairs.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from segtool.config import Folders
from segtool.data.files import MASK_SUFFIXES, decoded, stem_of
from segtool.data.pairs import Record
from segtool.errors import DataError, few, shown

MAX_LIST_BYTES = 1 << 28
MAX_PATH = 4096  # characters, of Linux's longest path
_IMAGE_WORD = re.compile(r"im(a?ge?)|file|photo|input|sat|path|x$")
_MASK_WORD = re.compile(r"mask|label|annot|gt|seg|target|truth|y$")
_HEADER_WORDS = frozenset(("image", "images", "img", "file", "filename", "name", "names", "id", "ids", "stem", "path"))
_SPLIT_COLUMNS = ("split", "subset", "set", "fold", "phase", "usage", "partition")


@dataclass(frozen=True)
class Row:
    """A line of a list."""

    number: int
    cells: list[str]


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
    header, rows = read_rows(path)
    rows = rows_of_part(header, rows, part.part, path)
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


def read_rows(path: Path, *, header: Callable[[Sequence[str]], bool] | None = None) -> tuple[Sequence[str], list[Row]]:
    """Returns the cells of the header, none where there is no header, and the other rows.

    Args:
        header: Given for a list of images: whether a first line is one. Of several cells the first is then the whole
            line, for names that hold blanks or commas.
    """
    text = _list_text(path)
    rows = _parse_rows(_table_of(text) if path.suffix.lower() == ".json" else text, whole=header is not None)
    is_header = header or (lambda cells: not any(map(is_image_name, cells)))
    return (rows[0].cells, rows[1:]) if rows and is_header(rows[0].cells) else ([], rows)


def _table_of(text: str) -> str:
    """Returns the entries of a JSON as CSV: of one list, or of a list for each split, with a column of these.

    An entry is a name, or names by keys such as `image` and `mask`. What holds no such entries gives an empty text.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    table: list[list[str]] = []
    for part, entries in data.items() if isinstance(data, dict) else [("", data)]:
        for entry in entries if isinstance(entries, list) else ():
            names = {"name": entry} if isinstance(entry, str) else entry
            if isinstance(names, dict) and all(isinstance(name, str) for name in names.values()):
                cells = names | {"split": part} if part else names
                table = table or [list(cells)]
                table += [list(cells.values())] if list(cells) == table[0] else []
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(table)
    return out.getvalue()


def _parse_rows(text: str, *, whole: bool) -> list[Row]:
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    delimiter = next((mark for mark in "\t,;" if lines and mark in lines[0][1]), None)
    rows = [(number, line, _cells(line, delimiter) if delimiter else line.split()) for number, line in lines]
    return [Row(number, [line, *cells] if whole and len(cells) > 1 else cells) for number, line, cells in rows]


def says_image(cells: Sequence[str]) -> bool:
    """Whether a first line is a header: its cells are words, one of which is what a list of images is headed by."""
    words = {word for cell in cells for word in re.findall(r"[a-z]+", cell.lower())}
    plain = not any(map(is_image_name, cells)) and not any(re.search(r"\d|/", cell) for cell in cells)
    return plain and bool(words & _HEADER_WORDS)


def rows_of_part(header: Sequence[str], rows: list[Row], part: str | None, path: Path) -> list[Row]:
    """Returns the rows in whose column of splits the part's name stands; all without a part."""
    if part is None:
        return rows
    column = split_column(header)
    if column is None:
        raise DataError(
            f"{shown(path)}: no column named {', '.join(_SPLIT_COLUMNS)}, which data.*.part is looked for in; "
            "add one, or remove data.*.part"
        )
    parts = [row.cells[column] if column < len(row.cells) else "" for row in rows]
    if part not in parts:
        there = few(name for name in dict.fromkeys(parts) if name) or "nothing"
        name = shown(header[column])
        raise DataError(f"{shown(path)}: the column {name} has {there}, but data.*.part is {shown(part)}; correct it")
    return [row for row, mine in zip(rows, parts, strict=True) if mine == part]


def split_column(header: Sequence[str]) -> int | None:
    """Returns the column of a list whose header says that it names splits."""
    return next((i for i, name in enumerate(header) if name.strip().lower() in _SPLIT_COLUMNS), None)


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
    located = (_locate(row.cells[column], base) for column, base in zip(columns, bases, strict=True))
    image, mask = (_below(path, root) for path in located)
    missing = [shown(path) for path in (image, mask) if not os.path.exists(path)]  # False for a name too long
    if missing:
        return f"no such file: {', '.join(missing)}; paths are relative to data.root"
    return Record(image, mask, _listed_stem(image, root))


def _locate(cell: str, root: Path) -> Path:
    path = root / cell
    if "\\" in cell and not os.path.exists(path):  # a list written on Windows
        path = root / cell.replace("\\", "/")
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
