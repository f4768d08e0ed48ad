"""From a config to records: which pairs train, validate and test.

Pairs come from two folders (`data.format: folders`, see `pairs`) or from a file that lists them (`list`). A split that
the config does not name is a share of the training pairs (see `splits`).
"""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from segtool.config import Config, Data, Folders, Pairing
from segtool.data.affixes import guess_pairing
from segtool.data.images import IMAGE_SUFFIXES
from segtool.data.layout import Layout, find_layout
from segtool.data.opening import shown
from segtool.data.pairs import MASK_SUFFIXES, Pairs, Record, find_pairs, list_files, name_twins, stem_of
from segtool.data.splits import class_presence, divide, hold_out
from segtool.data.words import SPLITS
from segtool.errors import ConfigError, DataError, Problem

__all__ = [
    "SPLITS",
    "Layout",
    "Pairs",
    "Record",
    "data_root",
    "find_layout",
    "find_pairs",
    "hold_out",
    "read_list",
    "read_parts",
    "split_records",
]

FEW = 5
MAX_LIST_BYTES = 1 << 28
MAX_PATH = 4096  # characters, of Linux's longest path


def split_records(config: Config, base: Path) -> dict[str, list[Record]]:
    """Returns the records of train, val and test, in that order and as far as there are any, each sorted by stem.

    Args:
        base: directory of the config file, which `data.root` is relative to.

    Raises:
        DataError: a folder or list that is not there, an image without a mask or the reverse, two files for one place,
            or too few pairs to hold any out; for all splits at once. With `data.split.stratify`, a mask that cannot be
            used.
        ConfigError: a split that names no folder or list.
    """
    return divide(read_parts(config.data, base), config.data, class_presence(config))


def read_parts(data: Data, base: Path) -> dict[str, list[Record]]:
    """Returns the records of each split that the config gives, before any are held out; raises as `split_records`."""
    root = data_root(data, base)
    given = [(split, part) for split in SPLITS if (part := getattr(data, split)) is not None]
    _require_places(data, given)
    problems: list[str] = []
    found: dict[str, list[Record]] = {}
    for split, part in given:
        try:
            found[split] = _read_part(data, root, split, part)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(*problems)
    return found


def data_root(data: Data, base: Path) -> Path:
    """Returns the absolute `data.root`."""
    return Path(os.path.abspath(base / Path(data.root).expanduser()))


# --- folders


def _require_places(data: Data, given: Iterable[tuple[str, Folders]]) -> None:
    needed = ("list",) if data.format == "list" else ("images", "masks")
    problems = [
        Problem(f"data.{split}.{key}", f"is not given, but data.format {data.format} needs it; add it")
        for split, part in given
        for key in needed
        if getattr(part, key) is None
    ]
    if problems:
        raise ConfigError(*problems)


def _read_part(data: Data, root: Path, split: str, part: Folders) -> list[Record]:
    if data.format == "list":
        return read_list(root / str(part.list), root)
    images, masks = root / str(part.images), root / str(part.masks)
    missing = [_missing(root, f"data.{split}.{key}", getattr(part, key)) for key in ("images", "masks")]
    if any(missing):
        raise DataError(*filter(None, missing))
    pairs = find_pairs(images, masks, data.pairing)
    if problems := [*_leftover(pairs, images, masks, split, data.pairing)]:
        raise DataError(*problems)
    return list(pairs.records)


def _missing(root: Path, key: str, name: str) -> str:
    """Returns what is wrong with a folder that the config names; "" where it is there."""
    path = root / name
    if os.path.isdir(path):  # False for a name too long
        return ""
    if os.path.exists(path):
        return f"{key}: {shown(path)} is a file, expected a folder"
    if not os.path.isdir(root):
        return f"{key}: no folder {shown(path)}; data.root itself is not there: put the data at {shown(root)}"
    parent = next(folder for folder in path.parents if os.path.isdir(folder))
    there = sorted(entry.name for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return f"{key}: no folder {shown(path)}; {shown(parent)} has {_few(there) or 'no folders'}: correct the path"


def _leftover(pairs: Pairs, images: Path, masks: Path, split: str, pairing: Pairing) -> Iterator[str]:
    """Yields what keeps two folders from being a bijection."""
    if empty := [*empty_folders(split, images, masks)]:
        yield from empty
        return
    for files in pairs.ambiguous:
        names = name_twins([shown(file) for file in files])
        yield f"data.{split}: {names} have one stem, so the pair is not certain; remove or rename all but one"
    hint = pairing_hint(pairs, images, masks, pairing)
    if pairs.images_without_mask:
        left = pairs.images_without_mask
        yield (
            f"data.{split}: {_of(len(left), len(pairs.records), 'image')} in {shown(images)} without a mask in "
            f"{shown(masks)}: {_few(stem_of(file, images) for file in left)}; {hint or 'add the masks or remove them'}"
        )
    if pairs.masks_without_image:
        left = pairs.masks_without_image
        yield (
            f"data.{split}: {_of(len(left), len(pairs.records), 'mask')} in {shown(masks)} without an image in "
            f"{shown(images)}: {_few(stem_of(file, masks) for file in left)}; {hint or 'add the images or remove them'}"
        )
    if not (pairs.records or pairs.images_without_mask or pairs.masks_without_image or pairs.ambiguous):
        yield f"data.{split}: no name in {shown(images)} fits data.pairing: {_few(map(_name, pairs.unnamed))}"


def empty_folders(split: str, images: Path, masks: Path) -> Iterator[str]:
    """Yields a sentence for each of two folders that holds no image file."""
    for key, folder, suffixes in (("images", images, IMAGE_SUFFIXES), ("masks", masks, MASK_SUFFIXES)):
        if not list_files(folder, suffixes):
            others = sorted({path.suffix.lower() for path in folder.rglob("*") if path.suffix})
            found = f"found {_few(others)}" if others else "it is empty"
            yield (
                f"data.{split}.{key}: no image file in {shown(folder)} ({found}); "
                f"expected {', '.join(sorted(suffixes))}"
            )


def pairing_hint(pairs: Pairs, images: Path, masks: Path, pairing: Pairing) -> str:
    """Returns the remedy where other prefixes or suffixes, or another case, would pair more."""
    folded = {stem_of(file, images).casefold() for file in pairs.images_without_mask}
    if folded & {stem_of(file, masks).casefold() for file in pairs.masks_without_image}:
        return "some names differ by upper and lower case only: make them equal"
    if images == masks:
        return ""
    better, count = guess_pairing(
        [stem_of(file, images) for file in list_files(images, IMAGE_SUFFIXES, without=(masks,))],
        [stem_of(file, masks) for file in list_files(masks, MASK_SUFFIXES, without=(images,))],
    )
    if count <= max(1, len(pairs.records)) or better == pairing:
        return ""
    keys = [f"{key}: '{shown(value)}'" for key, value in vars(better).items() if value]
    what = f"data.pairing: {{{', '.join(keys)}}}" if keys else "leaving out data.pairing"
    return f"{what} would make {count} pairs"


# --- lists


@dataclass(frozen=True)
class _Row:
    number: int
    cells: list[str]


def read_list(path: Path, root: Path) -> list[Record]:
    """Returns the pairs that a file names, sorted by stem.

    An image and its mask a line, separated by a comma, semicolon, tab or blanks; empty lines and lines that begin with
    `#` are passed over. A first line in which no cell is the name of an image file is a header: its columns named
    image… and mask… (or label…, annotation…, gt…) are taken, else the first two. Paths are relative to `root`.

    Raises:
        DataError: the list is not there, or lines that name no pair or files that are not there, each with its number.
    """
    rows = _parse_rows(_list_text(path))
    header = rows.pop(0).cells if rows and not any(map(_is_image_name, rows[0].cells)) else []
    columns = _columns(header)
    records: list[Record] = []
    problems: list[str] = []
    lines: dict[Path, int] = {}
    for row in rows:
        result = _parse_row(row, columns, len(header) or 2, root)
        if isinstance(result, Record) and result.image in lines:
            result = f"{shown(result.image)} is listed in line {lines[result.image]} already; keep one of them"
        if isinstance(result, Record):
            records.append(result)
            lines[result.image] = row.number
        else:
            problems.append(f"{shown(path)}:{row.number}: {result}")
    if not rows:
        problems.append(f"{shown(path)}: names no pair; expected an image and a mask a line")
    if problems:
        raise DataError(*problems[:20], *([f"… and {len(problems) - 20} more lines"] if len(problems) > 20 else []))
    return sorted(records, key=lambda record: record.stem)


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


def _parse_rows(text: str) -> list[_Row]:
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    delimiter = next((mark for mark in "\t,;" if lines and mark in lines[0][1]), None)
    if delimiter is None:
        return [_Row(number, line.split()) for number, line in lines]
    return [_Row(number, _cells(line, delimiter)) for number, line in lines]


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
    except csv.Error:  # a cell of 128 KiB, or a carriage return within the line: no path, which the caller tells
        return [line]


def _is_image_name(cell: str) -> bool:
    return os.path.splitext(cell)[1].lower() in MASK_SUFFIXES


def _columns(header: Sequence[str]) -> tuple[int, int]:
    names = [name.lower() for name in header]
    image = next((i for i, name in enumerate(names) if name.startswith(("image", "img", "file"))), None)
    mask = next((i for i, name in enumerate(names) if name.startswith(("mask", "label", "annot", "gt", "seg"))), None)
    return (0, 1) if image is None or mask is None else (image, mask)


def _parse_row(row: _Row, columns: tuple[int, int], width: int, root: Path) -> Record | str:
    """Returns the record of a line, or what is wrong with it."""
    if len(row.cells) != width or width < 2:
        return (
            f"expected {'an image and a mask' if width == 2 else f'{max(width, 2)} cells'}, found {len(row.cells)} "
            f"({_few(row.cells)}); put names that hold blanks or commas into a CSV with quotes"
        )
    if max(map(len, row.cells)) > MAX_PATH:
        return f"a cell of {max(map(len, row.cells)):,} characters, which is no path; correct the line"
    if not all(row.cells[column] for column in columns):
        return "an empty cell, expected an image and a mask; complete the line or remove it"
    image, mask = (_locate(row.cells[column], root) for column in columns)
    missing = [shown(path) for path in (image, mask) if not os.path.exists(path)]  # False for a name too long
    if missing:
        return f"no such file: {', '.join(missing)}; paths are relative to data.root"
    return Record(image, mask, _listed_stem(image, root))


def _locate(cell: str, root: Path) -> Path:
    path = root / cell
    if "\\" in cell and not os.path.exists(path):  # a list written on Windows
        path = root / cell.replace("\\", "/")
    return Path(os.path.abspath(path))


def _listed_stem(image: Path, root: Path) -> str:
    """Returns a stem that stays within any folder it is appended to, also for an image outside of `root`."""
    if image.is_relative_to(root):
        return stem_of(image, root)
    return PurePath(*image.with_suffix("").parts[1:]).as_posix()


# --- words


def _few(names: Iterable[str]) -> str:
    known = list(names)
    return ", ".join(map(shown, known[:FEW])) + (f" and {len(known) - FEW} more" if len(known) > FEW else "")


def _name(path: Path) -> str:
    return path.name


def _of(left: int, paired: int, what: str) -> str:
    return f"{left} of {left + paired} {what}s" if left + paired != 1 else f"the only {what}"
