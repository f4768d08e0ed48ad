"""From a config to records: which pairs train, validate and test.

Pairs come from two folders (`data.format: folders`, see `pairs`), all of them or those that a list names, or from a
file that lists the pairs (`list`, see `lists`). A split that the config does not name is a share of the training pairs
(see `splits`).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from segtool.config import Config, Data, Folders, Pairing
from segtool.config.yaml_io import flow
from segtool.data.affixes import guess_pairing
from segtool.data.files import MASK_SUFFIXES, list_files, stem_of
from segtool.data.images import IMAGE_SUFFIXES
from segtool.data.listed_images import Listed, limit, pick
from segtool.data.lists import read_list
from segtool.data.pairs import Pairs, Record, find_pairs, name_twins
from segtool.data.splits import class_presence, divide
from segtool.errors import ConfigError, DataError, Problem, few, shown
from segtool.system.terminal import counted

MOST_UNKNOWN = 5  # names of a list that are no images, each of which is told
MOST_AMBIGUOUS = 5  # names that several files share, likewise: predictions among the images make thousands


def split_records(config: Config, base: Path, places: Places | None = None) -> dict[str, list[Record]]:
    """Returns the records of train, val and test, in that order and as far as there are any, each sorted by stem.

    Args:
        base: Directory of the config file, which `data.root` is relative to.
        places: Of this config, where they have been searched.

    Raises:
        DataError: a folder or list that is not there, an image without a mask or the reverse, two files for one place,
            or too few pairs to hold any out; for all splits at once. With `data.split.stratify`, a mask that cannot be
            used.
        ConfigError: a split that names no folder or list.
    """
    return divide(read_parts(config.data, base, places), config.data, class_presence(config))


def records_to_score(config: Config, base: Path, split: str | None) -> dict[str, list[Record]]:
    """Returns the records of a split (None: test, else val), or of all splits where it has no files of its own.

    So the data that a network was trained on need not be there. Raises as `split_records`.
    """
    data = config.data
    name = split or ("test" if data.test is not None or data.split.test > 0 else "val")
    own = getattr(data, name) is not None and (name == "test" or (name == "val" and data.fold is None))
    return read_parts(data, base, only=name) if own else split_records(config, base)


def read_parts(
    data: Data, base: Path, places: Places | None = None, *, only: str | None = None
) -> dict[str, list[Record]]:
    """Returns the records of each split that the config gives, before any are held out; raises as `split_records`.

    Args:
        places: Of this config, where they have been searched.
        only: The split that is read; None: all.
    """
    given = [(split, part) for split, part in data.parts.items() if only in (None, split)]
    _require_places(data, given)
    problems: list[str] = []
    found: dict[str, list[Record]] = {}
    places = places or Places(data, data_root(data, base))
    for split, part in given:
        try:
            found[split] = _read_part(places, split, part)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(*dict.fromkeys(problems))
    unknown = [] if only else [name for name in data.exclude if not os.path.lexists(places.root / name)]
    if unknown:
        message = f"no file {few(unknown)} in {shown(places.root)}; correct the name, or take it out"
        raise ConfigError(Problem("data.exclude", message))
    return found


class Places:
    """What the folders and lists of a config hold; each folder is searched once.

    Every method raises DataError where a folder or list is not there.
    """

    def __init__(self, data: Data, root: Path) -> None:
        self.data = data
        self.root = root
        self._excluded = frozenset(os.path.abspath(root / name) for name in data.exclude)
        self._found: dict[tuple[Path, Path, Pairing], Pairs] = {}

    def of(self, split: str) -> Listed:
        """Returns the pairs of a split, its list or those of others and `data.exclude` taken into account."""
        listed = self._listed(split)
        return replace(listed, pairs=_leave_out(listed.pairs, self._excluded)) if self._excluded else listed

    def _listed(self, split: str) -> Listed:
        part = getattr(self.data, split)
        if self.data.format == "list":
            return Listed(Pairs(tuple(read_list(part, self.root)), (), (), ()))
        found = self.search(part)
        if part.list is not None:
            return pick(part, found, self.pairing(part), self.root)
        listed = [name for name, other in self.data.parts.items() if other.list is not None and _share(part, other)]
        taken = [self._listed(name).files for name in listed]
        return Listed(limit(found, frozenset().union(*taken), out=True) if taken else found)

    def left_out(self) -> frozenset[str]:
        """Returns the real paths of the masks that `data.exclude` leaves out, by their names or their images."""
        if not self._excluded:
            return frozenset()
        records = [record for part in self._folders() for record in self.search(part).records]
        partners = [r.mask for r in records if r.mask and os.path.abspath(r.image) in self._excluded]
        return frozenset(os.path.realpath(path) for path in (*self._excluded, *partners))

    def skipped_masks(self) -> frozenset[str]:
        """Returns the real paths of the masks without an image, where `data.unpaired` is skip."""
        parts = self._folders() if self.data.unpaired == "skip" else []
        return frozenset(os.path.realpath(mask) for part in parts for mask in self.search(part).masks_without_image)

    def _folders(self) -> list[Folders]:
        """Returns the splits whose two folders are there."""
        given = self.data.parts.values()
        return [part for part in given if all(n and os.path.isdir(self.root / n) for n in (part.images, part.masks))]

    def hold_both(self, folder: Path) -> bool:
        """Whether a split has both its images and its masks in this folder."""
        both = [{os.path.realpath(self.root / str(name)) for name in (p.images, p.masks)} for p in self._folders()]
        return {os.path.realpath(folder)} in both

    def search(self, part: Folders) -> Pairs:
        """Returns the pairs of a split's two folders, whatever is listed."""
        images, masks = self.root / str(part.images), self.root / str(part.masks)
        key = (images, masks, self.pairing(part))
        if key not in self._found:
            self._found[key] = find_pairs(*key)
        return self._found[key]

    def pairing(self, part: Folders) -> Pairing:
        """Returns how the images of a split find their masks."""
        return part.pairing or self.data.pairing


def data_root(data: Data, base: Path) -> Path:
    """Returns the absolute `data.root`; `..` means the folder above the real `base`, where that is behind a link."""
    return Path(os.path.abspath(base.resolve() / os.path.expanduser(data.root)))


# --- folders


def _share(one: Folders, other: Folders) -> bool:
    """Whether two splits have one folder of images."""
    return os.path.normpath(str(one.images)) == os.path.normpath(str(other.images))


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


def _read_part(places: Places, split: str, part: Folders) -> list[Record]:
    if places.data.format == "list":
        return list(places.of(split).pairs.records)
    root = places.root
    images, masks = root / str(part.images), root / str(part.masks)
    missing = [_missing(root, f"data.{split}.{key}", getattr(part, key)) for key in ("images", "masks")]
    if any(missing):
        raise DataError(*filter(None, missing))
    listed = places.of(split)
    kept = skip_unpaired(listed.pairs) if places.data.unpaired == "skip" else listed.pairs
    unlisted = part.list is not None and not listed.files
    problems = [] if unlisted else [*_leftover(kept, images, masks, split, places.pairing(part))]
    if part.list and not listed.pairs.records and not problems:
        problems = list(listed.unknown[:MOST_UNKNOWN]) or [f"{shown(root / part.list)}: names no image of data.{split}"]
    if problems:
        raise DataError(*problems)
    return list(listed.pairs.records)


def skip_unpaired(pairs: Pairs) -> Pairs:
    """Returns the pairs without the files that have no partner, where there are pairs."""
    return replace(pairs, images_without_mask=(), masks_without_image=()) if pairs.records else pairs


def _leave_out(pairs: Pairs, files: Collection[str]) -> Pairs:
    """Returns the pairs without those, and without the lone files, of which one of some absolute paths is part."""

    def kept(*paths: Path | None) -> bool:
        return not any(path and os.path.abspath(path) in files for path in paths)

    return replace(
        pairs,
        records=tuple(record for record in pairs.records if kept(record.image, record.mask)),
        images_without_mask=tuple(filter(kept, pairs.images_without_mask)),
        masks_without_image=tuple(filter(kept, pairs.masks_without_image)),
    )


def _missing(root: Path, key: str, name: str) -> str:
    """Returns what is wrong with a folder that the config names, or with the root; "" where it is there."""
    path = root / name
    if os.path.isdir(path):  # False for a name too long
        return ""
    if os.path.exists(path):
        return f"{key}: {shown(path)} is a file, expected a folder"
    if not os.path.isdir(root):
        return f"data.root: no folder {shown(root)}; put the data there, or say where it is: --set data.root=DIR"
    parent = next(folder for folder in path.parents if os.path.isdir(folder))
    there = sorted(entry.name for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return f"{key}: no folder {shown(path)}; {shown(parent)} has {few(there) or 'no folders'}: correct the path"


def _leftover(pairs: Pairs, images: Path, masks: Path, split: str, pairing: Pairing) -> Iterator[str]:
    """Yields what keeps two folders from being a bijection."""
    if pairs.records and not (pairs.images_without_mask or pairs.masks_without_image or pairs.ambiguous):
        return
    if empty := [*empty_folders(split, images, masks)]:
        yield from empty
        return
    for files in pairs.ambiguous[:MOST_AMBIGUOUS]:
        names = name_twins([shown(file) for file in files])
        yield f"data.{split}: {names} have one stem, so the pair is not certain; remove or rename all but one"
    if (more := len(pairs.ambiguous) - MOST_AMBIGUOUS) > 0:
        yield f"data.{split}: and so have the files of {more} more names; `segtool check` names them"
    hint = pairing_hint(pairs, images, masks, pairing)
    if pairs.images_without_mask:
        left = pairs.images_without_mask
        yield (
            f"data.{split}: {_of(len(left), len(pairs.records), 'image')} in {shown(images)} without a mask in "
            f"{shown(masks)}: {few(stem_of(file, images) for file in left)}; {hint or 'add the masks or remove them'}"
        )
    if pairs.masks_without_image:
        left = pairs.masks_without_image
        yield (
            f"data.{split}: {_of(len(left), len(pairs.records), 'mask')} in {shown(masks)} without an image in "
            f"{shown(images)}: {few(stem_of(file, masks) for file in left)}; {hint or 'add the images or remove them'}"
        )
    if not (pairs.records or pairs.images_without_mask or pairs.masks_without_image or pairs.ambiguous):
        yield f"data.{split}: no name in {shown(images)} fits data.pairing: {few(path.name for path in pairs.unnamed)}"


def empty_folders(split: str, images: Path, masks: Path) -> Iterator[str]:
    """Yields a sentence for each of two folders that holds no image file."""
    for key, folder, suffixes in (("images", images, IMAGE_SUFFIXES), ("masks", masks, MASK_SUFFIXES)):
        if not list_files(folder, suffixes):
            others = sorted({path.suffix.lower() for path in folder.rglob("*") if path.suffix})
            found = f"found {few(others)}" if others else "it is empty"
            yield (
                f"data.{split}.{key}: no image file in {shown(folder)} ({found}); "
                f"expected {', '.join(sorted(suffixes))}"
            )


def pairing_hint(pairs: Pairs, images: Path, masks: Path, pairing: Pairing) -> str:
    """Returns the remedy where other prefixes or suffixes, or another case, would pair more."""
    left = {stem_of(file, images) for file in pairs.images_without_mask}
    other = {stem_of(file, masks) for file in pairs.masks_without_image}
    if set(map(str.casefold, left - other)) & set(map(str.casefold, other - left)):
        return "some names differ by upper and lower case only: make them equal"
    if images == masks:
        return ""
    better, count = guess_pairing(
        [stem_of(file, images) for file in list_files(images, IMAGE_SUFFIXES, without=(masks,))],
        [stem_of(file, masks) for file in list_files(masks, MASK_SUFFIXES, without=(images,))],
    )
    if count <= max(1, len(pairs.records)) or better == pairing:
        return ""
    keys = {key: value for key, value in vars(better).items() if value}
    what = f"data.pairing: {shown(flow(keys))}" if keys else "leaving out data.pairing"
    return f"{what} would make {counted(count, 'pair')}"


# --- words


def _of(left: int, paired: int, what: str) -> str:
    return f"{left} of {left + paired} {what}s" if left + paired != 1 else f"the only {what}"
