"""Which folders of a data set hold images and masks, told by the names in use and proved by the pairs they give.

A folder's name is read as words: a role (images or masks), a split, or neither. `train_images`, `imagesTr` and
`trainannot` are two words. What is no such word is part of the data set's own tree: `seq1` below `images`, or the
folder around everything.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from segtool.config import Pairing
from segtool.data.affixes import count_pairs, guess_apart, guess_pairing, length_of
from segtool.data.pairs import MASK_SUFFIXES, list_files, stem_of, tell_apart
from segtool.data.words import SPLITS, parts_of, roles_in

_MAX_UNKNOWN = 24


@dataclass(frozen=True)
class Layout:
    """Where the images and masks of each split are."""

    splits: dict[str, tuple[str, str]]
    """Split -> folder of images, folder of masks, relative to the root with `/`; among train, val, test."""
    pairing: Pairing
    unused: tuple[str, ...] = ()
    """Other folders that look like masks."""
    notes: tuple[str, ...] = ()
    """What a person should know: splits left out, data sets beside this one."""


class _Folder(NamedTuple):
    """A folder that may hold the images or masks of a split."""

    path: str
    role: str | None
    split: str | None
    scope: str
    """What its path says beyond role and split: the data set it belongs to."""


class _Match(NamedTuple):
    pairs: int
    exact: bool
    images: str
    masks: str


def find_layout(root: Path) -> Layout | None:
    """Returns the layout that pairs the most files, or None where nothing pairs.

    Known are `images` + `masks`, `{train,val,test}/{images,masks}`, `{images,masks}/{train,val,test}`,
    `train_images` + `train_masks`, `train` + `trainannot`, each with the usual other names, one folder further down
    too, and images and masks side by side in one folder, told apart by a prefix or suffix (`a.jpg`, `a_mask.png`).
    """
    finder = _Finder(root)
    layouts = [layout for scope in finder.scopes() if (layout := finder.layout(scope))]
    if not layouts:
        return None
    (best, pairs), *others = sorted(layouts, key=lambda item: -item[1])
    beside = [f"{item.splits['train'][0]} ({count} pairs)" for item, count in others if not _overlap(item, best)]
    notes = [*best.notes, *finder.unlabelled(best)]
    if beside:
        notes.append(f"other data sets below this folder are left out: {'; '.join(beside)}")
    return replace(best, notes=tuple(notes)) if pairs else None


class _Finder:
    """The folders below a root with the stems of their files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stems: dict[str, list[str]] = defaultdict(list)
        self.files: dict[str, list[Path]] = defaultdict(list)
        self.folders: list[_Folder] = []
        for path in list_files(root, MASK_SUFFIXES):
            folder = PurePosixPath(stem_of(path, root)).parent.as_posix()
            self.files[folder].append(path)
        known = {folder for direct in self.files for folder in _candidates(direct)}
        self.folders = sorted(map(_read_name, known))

    def scopes(self) -> list[str]:
        """Returns the data sets below the root: what its folders' names share beyond role and split."""
        return sorted({folder.scope for folder in self.folders if folder.role or folder.split} | {""})

    def layout(self, scope: str) -> tuple[Layout, int] | None:
        """Returns the layout of one data set and its number of pairs."""
        inside = [folder for folder in self.folders if folder.scope == scope]
        by_split: dict[str, list[_Folder]] = defaultdict(list)
        for folder in inside:
            if folder.role or folder.split:
                by_split[folder.split or ""].append(folder)
        if "" not in by_split and not set(by_split) & {"train"}:
            by_split[""] = []
        two_folders = {split: [*self._combinations(split, own, scope)] for split, own in by_split.items()}
        one_folder = {split: [*self._single(split, own, scope)] for split, own in by_split.items()}
        for combinations in (two_folders, one_folder):
            pairing = self._guess(combinations)
            matches = {split: self._match(pairs, pairing) for split, pairs in combinations.items()}
            found = {split: match for split, match in matches.items() if match and match.pairs}
            if found:
                return self._assemble(found, pairing)
        return None

    def _assemble(self, found: Mapping[str, _Match], pairing: Pairing) -> tuple[Layout, int]:
        named = {split: match for split, match in found.items() if split}
        notes: list[str] = []
        if "train" not in named and "" in found:
            named["train"] = found[""]
        if "train" not in named:
            only = next(iter(named))
            notes.append(f"{named[only].images}: the only labelled part, so it is the training set")
            named["train"] = named.pop(only)
        splits = {split: (named[split].images, named[split].masks) for split in SPLITS if split in named}
        used = {path for pair in splits.values() for path in pair}
        unused = tuple(path for path in self._mask_like() if not any(_within(path, other) for other in used))
        notes += [f"{path}: looks like masks too, but is not used" for path in unused]
        return Layout(splits, pairing, unused, tuple(notes)), sum(match.pairs for match in named.values())

    def unlabelled(self, layout: Layout) -> list[str]:
        """Returns a note for each folder of images in a place of its own that no split uses."""
        used = [path for pair in layout.splits.values() for path in pair]
        spare = [
            folder.path
            for folder in self.folders
            if folder.role != "masks" and not any(_within(folder.path, p) or _within(p, folder.path) for p in used)
        ]
        innermost = [path for path in spare if not any(path != other and _within(other, path) for other in spare)]
        return [f"{path}: {len(self._own_stems(path))} images without masks, left out" for path in innermost]

    def _mask_like(self) -> list[str]:
        """Returns the folders whose name has a word for masks, those without readable files included."""
        found = []
        for path, folders, _ in os.walk(self.root):
            relative = PurePosixPath(os.path.relpath(path, self.root)).as_posix()
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
            if relative.count("/") >= 4:
                folders.clear()
            if relative != "." and "masks" in roles_in(PurePosixPath(relative).name):
                found.append(relative)
        return found

    def _guess(self, combinations: Mapping[str, Sequence[tuple[str, str]]]) -> Pairing:
        """Returns the pairing that makes the most pairs over all splits."""
        counts: Counter[Pairing] = Counter()
        for pairs in combinations.values():
            best: Counter[Pairing] = Counter()
            for images, masks in pairs:
                pairing, count = self._guess_folders(images, masks)
                best[pairing] = max(best[pairing], count)
            counts += best
        return max(counts, key=lambda pairing: (counts[pairing], -length_of(pairing)), default=Pairing())

    def _guess_folders(self, images: str, masks: str) -> tuple[Pairing, int]:
        if images == masks:
            return guess_apart([*self._files(images)], self.root / images)
        return guess_pairing(self._own_stems(images, without=masks), self._own_stems(masks, without=images))

    def _match(self, combinations: Sequence[tuple[str, str]], pairing: Pairing) -> _Match | None:
        matches = [
            _Match(self._count(images, masks, pairing), _is_plain(masks), images, masks)
            for images, masks in combinations
        ]
        return max(matches, key=lambda match: (match.pairs, match.exact, -len(match.masks)), default=None)

    def _count(self, images: str, masks: str, pairing: Pairing) -> int:
        if images != masks:
            own, others = self._own_stems(images, without=masks), self._own_stems(masks, without=images)
            return count_pairs(own, others, pairing)
        folder = self.root / images
        one, other = tell_apart(self._files(images), pairing)
        return count_pairs([stem_of(p, folder) for p in one], [stem_of(p, folder) for p in other], pairing)

    def _combinations(self, split: str, folders: Sequence[_Folder], scope: str) -> Iterator[tuple[str, str]]:
        """Yields the folders of images and masks that may belong together."""
        masks = [folder.path for folder in folders if folder.role == "masks"]
        images = [folder.path for folder in folders if folder.role == "images"]
        loose = [folder.path for folder in folders if folder.role is None]
        if not split:
            loose += self._unknown(scope)
        yield from product(images, masks)
        yield from product(loose, masks)
        if not masks:
            yield from ((one, other) for one, other in product(images, loose) if not _within(one, other))

    def _single(self, split: str, folders: Sequence[_Folder], scope: str) -> Iterator[tuple[str, str]]:
        """Yields the folders that may hold images and masks side by side."""
        for path in [*(folder.path for folder in folders), *(self._unknown(scope) if not split else ())]:
            yield path, path

    def _unknown(self, scope: str) -> list[str]:
        """Returns folders whose names say nothing, within a data set: its own folder, and those directly in it."""
        prefix = f"{scope}/" if scope else ""
        inside = {path[len(prefix) :].split("/")[0] for path in self.files if path.startswith(prefix) and path != "."}
        unknown = [prefix + name for name in inside if name and not any(parts_of(name))]
        own = scope or "."
        return [own, *sorted(unknown)] if len(unknown) <= _MAX_UNKNOWN else [own]

    def _files(self, folder: str) -> list[Path]:
        return [path for direct, files in self.files.items() if _within(direct, folder) for path in files]

    def _own_stems(self, folder: str, *, without: str | None = None) -> list[str]:
        """Returns the stems of a folder's files, those of the other folder within it left out."""
        key = f"{folder}\0{without}"
        if key not in self.stems:
            nested = without if without and without != folder and _within(without, folder) else None
            self.stems[key] = [
                stem_of(path, self.root / folder)
                for direct, files in self.files.items()
                if _within(direct, folder) and not (nested and _within(direct, nested))
                for path in files
            ]
        return self.stems[key]


# --- names


def _candidates(direct: str) -> Iterator[str]:
    """Yields a folder and those around it that a role or a split is named by."""
    parts = [] if direct == "." else direct.split("/")
    for end in range(1, len(parts) + 1):
        if any(parts_of(parts[end - 1])):
            yield "/".join(parts[:end])


def _read_name(path: str) -> _Folder:
    role = split = None
    rest = []
    for part in path.split("/"):
        here_role, here_split = parts_of(part)
        role, split = here_role or role, here_split or split
        if not (here_role or here_split):
            rest.append(part)
    return _Folder(path, role, split, "/".join(rest))


def _is_plain(path: str) -> bool:
    return parts_of(PurePosixPath(path).name)[0] == "masks" or path == "."


def _within(path: str, folder: str) -> bool:
    return folder == "." or path == folder or path.startswith(f"{folder}/")


def _overlap(one: Layout, other: Layout) -> bool:
    pairs = product(sum(one.splits.values(), ()), sum(other.splits.values(), ()))
    return any(_within(a, b) or _within(b, a) for a, b in pairs)
