"""Files that list a split: which images belong to it, or its pairs.

One entry a line, the cells separated by a comma, semicolon, tab or blanks, with a header or without. A list of images
names them by stem, file name or path, however its author's folders were called: what counts is that a name fits one
image only.
"""

from __future__ import annotations

import csv
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from segtool.config import Folders, Pairing
from segtool.data.opening import shown
from segtool.data.pairs import MASK_SUFFIXES, Pairs, Record, image_key, stem_of
from segtool.errors import DataError

FEW = 5
MAX_LIST_BYTES = 1 << 28
MAX_PATH = 4096  # characters, of Linux's longest path
_IMAGE_WORD = re.compile(r"im(a?ge?)|file|photo|input|sat|path|x$")
_MASK_WORD = re.compile(r"mask|label|annot|gt|seg|target|truth|y$")
_HEADER_WORDS = frozenset(("image", "images", "img", "file", "filename", "name", "names", "id", "ids", "stem", "path"))
_SPLIT_COLUMNS = ("split", "subset", "set", "fold", "phase", "usage", "partition")


@dataclass(frozen=True)
class _Row:
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
    rows = _of_part(header, rows, part.part, path)
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


@dataclass(frozen=True)
class Listed:
    """The part of two folders that a list names."""

    pairs: Pairs
    files: frozenset[Path] = frozenset()
    """All images that it names, with masks or without."""
    unknown: tuple[str, ...] = ()
    """A sentence about each line that names no image there."""


def pick(part: Folders, found: Pairs, pairing: Pairing, root: Path) -> Listed:
    """Returns what a split's list names among the pairs and lone files of its folders.

    Of several columns the one is read in which most cells name an image: by path, file name, stem, what is left of the
    stem once the pairing is taken off, or by its mask; the folders in front may be those of another computer. A mask
    without an image counts as named by its own name.

    Raises:
        DataError: the list is not there.
    """
    path = root / str(part.list)
    names = Names(found, root / str(part.images), pairing, root)
    header, rows = read_rows(path, header=says_image)
    rows = _of_part(header, rows, part.part, path)
    column = names.column([row.cells for row in rows])
    files, unknown = set(), []
    for row in rows:
        cell = row.cells[column] if column < len(row.cells) else row.cells[0]
        file = names.find(cell)
        if file is None:
            unknown.append(
                f"{shown(path)}:{row.number}: '{shown(cell)}' names no image in {shown(root / str(part.images))}"
            )
        else:
            files.add(file)
    return Listed(limit(found, files), frozenset(files), tuple(unknown))


def limit(found: Pairs, files: Iterable[Path], *, out: bool = False) -> Pairs:
    """Returns the pairs and lone files that are among some files, or with `out` those that are not."""
    known = set(files)

    def kept(paths: Iterable[Path]) -> tuple[Path, ...]:
        return tuple(path for path in paths if (path in known) != out)

    return replace(
        found,
        records=tuple(record for record in found.records if (record.image in known) != out),
        images_without_mask=kept(found.images_without_mask),
        masks_without_image=kept(found.masks_without_image) if not out else (),
        ambiguous=tuple(twins for twins in found.ambiguous if kept(twins)),
        unnamed=(),
    )


class Names:
    """By which names a list may call the images of a folder."""

    def __init__(self, found: Pairs, images: Path, pairing: Pairing, root: Path) -> None:
        self._files: dict[str, set[Path]] = {}
        self._by_path: dict[Path, Path] = {}
        self._by_real_path: dict[Path, Path] | None = None
        self._pairing = pairing
        self._bases = (root, images)
        for record in found.records:
            self._add(record.image, record.image, images, root)
            self._add(record.mask, record.image, images, root)
        for file in (*found.images_without_mask, *found.masks_without_image, *(f for t in found.ambiguous for f in t)):
            self._add(file, file, images, root)

    def _add(self, file: Path | None, image: Path, images: Path, root: Path) -> None:
        if file is None:
            return
        self._by_path[file] = image
        for folder in (root, images):
            stem = unicodedata.normalize("NFC", stem_of(file, folder))
            forms = {stem, stem.rpartition("/")[2]}
            if file == image and (key := image_key(stem, self._pairing)):
                forms |= {key, key.rpartition("/")[2]}
            for form in forms:
                self._files.setdefault(form, set()).add(image)

    def find(self, cell: str) -> Path | None:
        """Returns the one image that a cell of a list names; None where there is none or more than one.

        A path to a file that is there names that file, not another one of its name.
        """
        cell = cell.replace("\\", "/").strip("\"' ")
        paths = [Path(os.path.abspath(base / cell)) for base in self._bases] if "/" in cell[:MAX_PATH] else []
        for path in paths:
            if path in self._by_path:
                return self._by_path[path]
            if os.path.isfile(path):
                return self._behind_links(path)
        parts = unicodedata.normalize("NFC", cell).split("/")
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            stem, suffix = os.path.splitext(name)
            for form in (stem, name) if suffix.lower() in MASK_SUFFIXES else (name,):
                files = self._files.get(form, ())
                if len(files) == 1:
                    return next(iter(files))
        return None

    def _behind_links(self, path: Path) -> Path | None:
        if self._by_real_path is None:
            self._by_real_path = {_real(known): image for known, image in self._by_path.items()}
        return self._by_real_path.get(_real(path))

    def _is_path(self, cell: str) -> bool:
        path = cell.replace("\\", "/")
        return "/" in path[:MAX_PATH] and any(os.path.isfile(base / path) for base in self._bases)

    def column(self, rows: Sequence[Sequence[str]]) -> int:
        """Returns the column whose cells name the most images, the first of equal ones.

        Where a column holds paths to files that are there, it is that one: numbers in others may be of other images.
        """
        sample = rows[:: len(rows) // 50 + 1]
        there = Counter(place for cells in sample for place, cell in enumerate(cells) if self._is_path(cell))
        if there and 2 * max(there.values()) > len(sample):
            return min(there, key=lambda place: (-there[place], place))
        counts = Counter(column for cells in rows for column, cell in enumerate(cells) if cell and self.find(cell))
        return min(counts, key=lambda column: (-counts[column], column), default=0)


def _list_text(path: Path) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{shown(path)}: is no regular file, expected a list of pairs; correct data.*.list")
        if status.st_size > MAX_LIST_BYTES:
            raise DataError(f"{shown(path)}: larger than {MAX_LIST_BYTES >> 20} MiB, expected a list of pairs")
        return path.read_text("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"{shown(path)}: the list cannot be read ({error.strerror}); correct data.*.list") from error


def read_rows(path: Path, *, header: Callable[[Sequence[str]], bool] | None = None) -> tuple[Sequence[str], list[_Row]]:
    """Returns the cells of the header, none where there is no header, and the other rows.

    Args:
        header: Given for a list of images: whether a first line is one. Of several cells the first is then the whole
            line, for names that hold blanks or commas.
    """
    rows = _parse_rows(_list_text(path), whole=header is not None)
    is_header = header or (lambda cells: not any(map(is_image_name, cells)))
    return (rows[0].cells, rows[1:]) if rows and is_header(rows[0].cells) else ([], rows)


def _parse_rows(text: str, *, whole: bool) -> list[_Row]:
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    delimiter = next((mark for mark in "\t,;" if lines and mark in lines[0][1]), None)
    rows = [(number, line, _cells(line, delimiter) if delimiter else line.split()) for number, line in lines]
    return [_Row(number, [line, *cells] if whole and len(cells) > 1 else cells) for number, line, cells in rows]


def says_image(cells: Sequence[str]) -> bool:
    """Whether a first line is a header: its cells are words, one of which is what a list of images is headed by."""
    words = {word for cell in cells for word in re.findall(r"[a-z]+", cell.lower())}
    plain = not any(map(is_image_name, cells)) and not any(re.search(r"\d|/", cell) for cell in cells)
    return plain and bool(words & _HEADER_WORDS)


def _of_part(header: Sequence[str], rows: list[_Row], part: str | None, path: Path) -> list[_Row]:
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


def _columns(header: Sequence[str], rows: Sequence[_Row]) -> tuple[int, int]:
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


def _parse_row(row: _Row, columns: tuple[int, int], width: int, bases: tuple[Path, Path], root: Path) -> Record | str:
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


def _real(path: Path) -> Path:
    """Returns a file's path without links in its folders; the file itself may be one, to a store of files."""
    return Path(os.path.realpath(path.parent), path.name)


def _listed_stem(image: Path, root: Path) -> str:
    """Returns a stem that stays within any folder it is appended to, also for an image outside of `root`."""
    if image.is_relative_to(root):
        return stem_of(image, root)
    return PurePath(*image.with_suffix("").parts[1:]).as_posix()


def few(names: Iterable[str]) -> str:
    """Returns the first names, and how many more there are."""
    known = list(names)
    return ", ".join(map(shown, known[:FEW])) + (f" and {len(known) - FEW} more" if len(known) > FEW else "")
