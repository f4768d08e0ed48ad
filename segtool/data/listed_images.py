"""Lists of images: which of the pairs and files of two folders a list names.

It names them by stem, file name or path, however its author's folders were called: what counts is that a name fits one
image only.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segtool.config import Folders, Pairing
from segtool.data.files import MASK_SUFFIXES, stem_of
from segtool.data.lists import MAX_PATH, read_rows, says_image
from segtool.data.pairs import Pairs, image_key
from segtool.errors import shown

MAX_DIGITS = 18


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
    names = ImageNames(found, root / str(part.images), pairing, root)
    _, rows = read_rows(path, part=part.part, header=says_image)
    column = names.column([row.cells for row in rows])
    files: set[Path] = set()
    unknown: list[str] = []
    for row in rows:
        cell = row.cells[column] if column < len(row.cells) else row.cells[0]
        named = names.all_of(cell)
        files |= named
        if not named:
            unknown.append(
                f"{shown(path)}:{row.number}: '{shown(cell)}' names no image in {shown(root / str(part.images))}"
            )
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


class ImageNames:
    """By which names a list may call the images of a folder."""

    def __init__(self, found: Pairs, images: Path, pairing: Pairing, root: Path) -> None:
        self._files: dict[str, set[Path]] = {}
        self._by_path: dict[Path, Path] = {}
        self._by_real_path: dict[Path, Path] | None = None
        self._by_number: dict[int, set[Path]] = {}
        self._by_folder: dict[str, list[tuple[tuple[str, ...], set[Path]]]] | None = None
        self._pairing = pairing
        self._bases = (root, images)
        for record in found.records:
            self._add(record.image, record.image)
            self._add(record.truth, record.image)
        for file in (*found.images_without_mask, *found.masks_without_image, *(f for t in found.ambiguous for f in t)):
            self._add(file, file)

    def _add(self, file: Path, image: Path) -> None:
        self._by_path[file] = image
        for folder in self._bases:
            stem = unicodedata.normalize("NFC", stem_of(file, folder))
            forms = {stem, stem.rpartition("/")[2]}
            if file == image and (key := image_key(stem, self._pairing)):
                forms |= {key, key.rpartition("/")[2]}
            for form in forms:
                self._files.setdefault(form, set()).add(image)
                if form.isdecimal() and len(form) <= MAX_DIGITS:
                    self._by_number.setdefault(int(form), set()).add(image)

    def find(self, cell: str) -> Path | None:
        """Returns the one image that a cell of a list names; None where there is none or more than one.

        A path to a file that is there names that file, not another one of its name. A number that is no name is that of
        a name which is a number: tables that programs wrote have 7 for 0007.
        """
        return self._called(cell) or self._numbered(cell)

    def all_of(self, cell: str) -> set[Path]:
        """Returns the images that a cell stands for: the one it names, or those in a folder that it names."""
        if file := self.find(cell):
            return {file}
        if self._by_folder is None:
            self._by_folder = _by_folders(self._by_path, self._bases[0])
        parts = tuple(part for part in cell.replace("\\", "/")[:MAX_PATH].split("/") if part.strip("."))
        for start in range(len(parts)):
            end = parts[start:]
            held = [images for folder, images in self._by_folder.get(end[-1], ()) if folder[-len(end) :] == end]
            if held:
                return set().union(*held)
        return set()

    def _numbered(self, cell: str) -> Path | None:
        is_number = cell.isdecimal() and len(cell) <= MAX_DIGITS
        files = self._by_number.get(int(cell), ()) if is_number else ()
        return next(iter(files)) if len(files) == 1 else None

    def _called(self, cell: str) -> Path | None:
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
        """Returns the column whose cells name the most images; of equal ones the first that has whole names.

        Where a column holds paths to files that are there, it is that one: numbers in others may be of other images.
        Where none names an image, it may be one of folders.
        """
        sample = rows[:: len(rows) // 50 + 1]
        there = Counter(place for cells in sample for place, cell in enumerate(cells) if self._is_path(cell))
        if there and 2 * max(there.values()) > len(sample):
            return min(there, key=lambda place: (-there[place], place))
        images: dict[int, set[Path]] = defaultdict(set)
        called: Counter[int] = Counter()
        for cells in rows:
            for place, cell in enumerate(cells):
                if file := self.find(cell):
                    images[place].add(file)
                    called[place] += self._called(cell) is not None
        if not images:
            for place, cell in ((place, cell) for cells in sample for place, cell in enumerate(cells)):
                images[place] |= self.all_of(cell)
        return min(images, key=lambda place: (-len(images[place]), -called[place], place), default=0)


def _by_folders(by_path: dict[Path, Path], root: Path) -> dict[str, list[tuple[tuple[str, ...], set[Path]]]]:
    """Returns the folders around files below the root, as the parts of their paths, with the images, by their names."""
    held: dict[tuple[str, ...], set[Path]] = defaultdict(set)
    for file, image in by_path.items():
        parts = tuple(stem_of(file, root).split("/")[:-1])
        for end in range(1, len(parts) + 1):
            held[parts[:end]].add(image)
    found: dict[str, list[tuple[tuple[str, ...], set[Path]]]] = defaultdict(list)
    for parts, images in held.items():
        found[parts[-1]].append((parts, images))
    return dict(found)


def _real(path: Path) -> Path:
    """Returns a file's path without links in its folders; the file itself may be one, to a store of files."""
    return Path(os.path.realpath(path.parent), path.name)
