"""The folders of a data set that may hold images or masks, read by their names, with the stems of their files."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import NamedTuple

import numpy as np

from segtool.config import Limits
from segtool.data.facts import look_at_images
from segtool.data.files import JPEG_SUFFIXES, MASK_SUFFIXES, stem_of
from segtool.data.pairs import without_folder
from segtool.data.words import CAMERA, Meaning, mask_rank, meaning_of, roles_in, words_of

MAX_UNKNOWN = 24
ALIKE = 16  # grey levels by which one picture in two formats may differ in the mean
FEW_PLACES = 4  # so many folders of one name may be two versions of the masks, and each is tried alone


_FORMAT = re.compile(rf"(?<![a-z])({'|'.join(suffix[1:] for suffix in sorted(MASK_SUFFIXES))})(?![a-z])")
_NAMED = re.compile(r"[^\W\d_]")
_NUMBER = re.compile(r"\d")


class Place(NamedTuple):
    """A folder that may hold the images or masks of a split."""

    path: str
    """Relative to the root, with `/`."""
    inner: str
    """Where images and masks lie in folders of their own further down: the name of those folders, else ""."""
    role: str | None
    split: str | None
    rest: tuple[str, ...]
    """What its path says beyond role and split."""
    kind: str
    """The words of the part that tells the role: `manual` of `test/1st_manual`."""
    rank: int
    """How likely it holds the class masks, where several kinds do."""

    @property
    def name(self) -> str:
        """Returns its own name, the last part of its path."""
        return _name(self.inner or self.path)

    @property
    def shown(self) -> str:
        """Returns its path for people."""
        return f"{self.path}/*/{self.inner}" if self.inner else self.path


class Tree:
    """The folders below a root with their image files."""

    def __init__(self, root: Path, files: Iterable[Path]) -> None:
        self.root = root
        self.files: dict[str, list[Path]] = defaultdict(list)
        self._stems: dict[tuple[Place, Place | None], list[str]] = {}
        for path in files:
            self.files[PurePosixPath(stem_of(path, root)).parent.as_posix()].append(path)
        again = _in_other_formats(self.files, root)
        for folder in [folder for folder in self.files if any(within(folder, copy) for copy in again)]:
            del self.files[folder]
        copies = _copies(self.files)
        for folder in [folder for folder in self.files if any(within(folder, copy) for copy in copies)]:
            del self.files[folder]
        self.copies = [*again, *copies]
        self.hollow = _hollow(self.files)
        plain = {place for folder in self.files for place in _plain_places(folder, self.hollow)}
        plain |= {_place(folder, hollow=self.hollow) for folder in _only_below(self.files, self.hollow)}
        plain |= set(_silent_in_splits(self.files, self.hollow))
        inner = _inner_places(self.files, self.hollow)
        many = [place for place, count in inner.items() if count > FEW_PLACES]
        covered = {folder for place in many for folder in self.files if holds(place, folder)}
        self.places = sorted({place for place in plain if place.path not in covered} | inner.keys(), key=repr)

    def unknown(self) -> list[Place]:
        """Returns the folders whose names say nothing, and the root; the root alone where they are many."""
        silent = {path for path in self.files if path != "." and not _tells(path, self.hollow)}
        known = _with_tops(silent, self.hollow, around=len(self._around()))
        return [_place(path, hollow=self.hollow) for path in (".", *known)]

    def kinds(self) -> list[Place]:
        """Returns the folders of silent names within one that says images or masks, which its place holds as one."""
        known = {place.path for place in self.places}
        inner = [_place(path, hollow=self.hollow) for path in self.files if path not in known]
        silent = [place for place in inner if place.role and _is_silent(place.path)]
        return silent if len(silent) <= MAX_UNKNOWN else []

    def around(self) -> Place:
        """Returns the innermost folder that holds all files."""
        return _place("/".join(self._around()) or ".", hollow=self.hollow)._replace(rank=0)

    def _around(self) -> list[str]:
        parts = zip(*(_parts(folder) for folder in self.files), strict=False)
        return [names[0] for names in takewhile(lambda names: len(set(names)) == 1, parts)]

    def files_of(self, place: Place) -> list[Path]:
        """Returns the files of a place."""
        return [file for folder, files in self.files.items() if holds(place, folder) for file in files]

    def stems(self, place: Place, *, without: Place | None = None) -> list[str]:
        """Returns the stems of a place's files, those of another place within it left out."""
        key = (place, without)
        if key not in self._stems:
            nested = without if without and not place.inner and within(without.path, place.path) else None
            stems = [
                stem_of(path, self.root / place.path)
                for folder, files in self.files.items()
                if holds(place, folder) and not (nested and holds(nested, folder))
                for path in files
            ]
            self._stems[key] = [without_folder(stem, place.inner) for stem in stems] if place.inner else stems
        return self._stems[key]


def within(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies in it."""
    return folder == "." or path == folder or path.startswith(f"{folder}/")


def share(one: Place, other: Place) -> bool:
    """Whether a folder may be part of two places; two kinds of folders below one, `*/T1` and `*/T2`, are apart."""
    if one.inner and other.inner and one.inner != other.inner:
        return False
    return within(one.path, other.path) or within(other.path, one.path)


def holds(place: Place, folder: str) -> bool:
    """Whether a folder is part of a place."""
    if not within(folder, place.path):
        return False
    return not place.inner or place.inner in _parts(folder)[len(_parts(place.path)) :]


def is_camera(name: str) -> bool:
    """Whether a folder `color` or `color_left` beside `depth` and `label` holds the pictures, for all its name says."""
    return not set(CAMERA).isdisjoint(words_of(name))


# --- names


def _parts(path: str) -> list[str]:
    return [] if path == "." else path.split("/")


def _name(path: str) -> str:
    return PurePosixPath(path).name


def _is_silent(path: str) -> bool:
    """Whether a folder's own name says neither images or masks nor a split."""
    return not any(meaning_of(_name(path))[:2])


def _held(folders: Iterable[str]) -> Counter[str]:
    """Returns how many of some folders each path holds, itself counted."""
    return Counter("/".join(parts[:end]) for parts in map(_parts, folders) for end in range(1, len(parts) + 1))


def _meanings(path: str, hollow: Mapping[str, Meaning]) -> list[Meaning]:
    """Returns what each part of a path tells."""
    parts = _parts(path)
    return [hollow.get("/".join(parts[: end + 1])) or meaning_of(part) for end, part in enumerate(parts)]


def _hollow(folders: Collection[str]) -> dict[str, Meaning]:
    """Returns what folders tell whose names say more: no role, and a split only as one word beside that of a role.

    Numbered ones tell no split either.
    """
    numbered = _numbered(folders)
    told = {path: meaning_of(_name(path)) for path in _around_others(folders) | _no_splits(folders) | numbered}
    kept = {path: meaning.split if meaning.role and path not in numbered else None for path, meaning in told.items()}
    return {path: meaning._replace(role=None, split=kept[path]) for path, meaning in told.items()}


def _no_splits(folders: Collection[str]) -> set[str]:
    """Returns the folders of things that are called by a split's word among others, beside things that are not.

    `static tests` and `creep`, `test site` and `harbour`. Of splits two stand beside each other, or images and masks.
    """
    beside: dict[str, dict[str, Meaning]] = defaultdict(dict)
    for path in _held(folders):
        beside[parent_of(path)][path] = meaning_of(_name(path))
    found: set[str] = set()
    for named in beside.values():
        told = [meaning for meaning in named.values() if meaning.split]
        others = any(meaning.rest and not (meaning.split or meaning.role) for meaning in named.values())
        if others and len({meaning.split for meaning in told}) == 1 and not any(meaning.role for meaning in told):
            found |= {path for path, meaning in named.items() if meaning.split and meaning.rest}
    return found


def _numbered(folders: Collection[str]) -> set[str]:
    """Returns the folders that number things: many beside each other, `train_0001` or `mask_0001`, say one thing."""
    beside: dict[tuple[str, Meaning], list[str]] = defaultdict(list)
    for path in _held(folders):
        meaning = meaning_of(_name(path))
        if (meaning.role or meaning.split) and _NUMBER.search(_name(path)):
            beside[parent_of(path), meaning].append(path)
    return {path for paths in beside.values() if len(paths) > MAX_UNKNOWN for path in paths}


def _around_others(folders: Collection[str]) -> set[str]:
    """Returns the folders whose name has a word for images or masks that stands for what lies further down.

    `frames` around `frames/rgb` and `frames/label`; `Lung Segmentation` around `masks` and `CXR_png`. So is a word for
    images within masks, `gt/gt_photos`, and what is called as one of more than that: `frames_23` of `labels/frames_23`.
    """
    below: dict[str, set[str | None]] = defaultdict(set)
    for folder in folders:
        parts = _parts(folder)
        for end in range(1, len(parts)):
            roles = {role for part in parts[end:] if (role := meaning_of(part).role)}
            below["/".join(parts[:end])] |= roles or {None}
    named = {path: meaning_of(_name(path)) for path in {*below, *folders}}
    around = {
        path
        for path, roles in below.items()
        if named[path].role and ({"images", "masks"} <= roles or (named[path].rest and {"masks", None} <= roles))
    }
    images = [path for path in named if named[path].role == "images"]
    more = {_name(path) for path in images if named[path].rest or re.search(r"\d", _name(path))}
    again = more & {_name(path) for path in images if _lies_in_masks(path)}
    return around | {path for path in images if _lies_in_masks(path, but=around) or _name(path) in again}


def _lies_in_masks(path: str, *, but: Collection[str] = ()) -> bool:
    """Whether a folder around one says masks, some folders aside."""
    outer = ["/".join(_parts(path)[:end]) for end in range(1, len(_parts(path)))]
    return any(meaning_of(_name(folder)).role == "masks" and folder not in but for folder in outer)


def _tells(path: str, hollow: Mapping[str, Meaning]) -> bool:
    return any(meaning.role or meaning.split for meaning in _meanings(path, hollow))


def _place(path: str, inner: str = "", hollow: Mapping[str, Meaning] = {}) -> Place:
    role = split = None
    rest: list[str] = []
    kind = ""
    rank = 0
    parts = [*_parts(path), *([inner] if inner else [])]
    meanings = [*_meanings(path, hollow), *([meaning_of(inner)] if inner else [])]
    for part, meaning in zip(parts, meanings, strict=True):
        split = meaning.split or split
        if meaning.role:
            role, kind, rank = meaning.role, meaning.kind, mask_rank(part)
            if role == "images" and "rgb" in kind.split():  # of images the first choice
                rank = 1
        elif mask_rank(part) < 0:
            rank = -1
        if (meaning.rest and not meaning.role) or not (meaning.role or meaning.split or meaning.rest):
            rest.append(part)
    if role is None and is_camera(inner):
        role = "images"
    return Place(path, inner, role, split, tuple(rest), kind, rank)


def _plain_places(folder: str, hollow: Mapping[str, Meaning]) -> Iterator[Place]:
    """Yields a folder and those around it that say its split, from the last one that says images or masks."""
    parts = _parts(folder)
    meanings = _meanings(folder, hollow)
    roles = [place for place, meaning in enumerate(meanings) if meaning.role]
    for end in range(1, len(parts) + 1):
        told = meanings[end - 1].role or meanings[end - 1].split
        if told and end > (roles[-1] if roles else -1):
            yield _place("/".join(parts[:end]), hollow=hollow)


def _only_below(folders: Collection[str], hollow: Mapping[str, Meaning]) -> Iterator[str]:
    """Yields the folders of silent names that hold all files of one that says images or masks: `masks/0`."""
    held = _held(folders)
    for folder in folders:
        meanings = _meanings(folder, hollow)
        roles = [end for end, meaning in enumerate(meanings, 1) if meaning.role]
        silent = bool(roles) and not any(meaning.split for meaning in meanings[roles[-1] :])
        if silent and roles[-1] < len(meanings) and held["/".join(_parts(folder)[: roles[-1]])] == 1:
            yield folder


def _silent_in_splits(folders: Iterable[str], hollow: Mapping[str, Meaning]) -> list[Place]:
    """Returns the folders below one of a split whose own names say nothing, such as `train/A`; none where many are."""
    places = [_place(folder, hollow=hollow) for folder in folders if not meaning_of(_name(folder)).split]
    silent = [place.path for place in places if place.split and not place.role]
    return [_place(folder, hollow=hollow) for folder in _with_tops(silent, hollow)]


def _with_tops(silent: Collection[str], hollow: Mapping[str, Meaning], *, around: int = 0) -> list[str]:
    """Returns folders of silent names and those around several, `cls` of `cls/001`; of many these alone, or none.

    Args:
        around: How many folders lie around all files.
    """
    tops: Counter[str] = Counter()
    for folder in silent:
        told = [end for end, meaning in enumerate(_meanings(folder, hollow), 1) if meaning.split]
        ends = {max(told, default=0), max(told, default=around)}
        tops.update("/".join(_parts(folder)[: end + 1]) for end in ends)
    several = [top for top, count in tops.items() if count > 1]
    few = [folders for folders in ({*silent, *several}, several) if len(folders) <= MAX_UNKNOWN]
    return sorted(few[0]) if few else []


def _inner_places(folders: Iterable[str], hollow: Mapping[str, Meaning]) -> dict[Place, int]:
    """Returns the folders below which several others, so many, hold folders of one name that says images or masks.

    Or a split, where one further out says images or masks: `gt/fog/train`, `gt/night/train`. Or nothing, where they are
    the innermost ones, few, and no numbers: `00000/camera` and `00001/camera`, `oslo/atlas` and `rome/atlas`.
    """
    middles: dict[tuple[str, str], set[str]] = defaultdict(set)
    for folder in folders:
        parts, meanings = _parts(folder), _meanings(folder, hollow)
        roles = [place for place, meaning in enumerate(meanings) if meaning.role]
        splits = [place for place, meaning in enumerate(meanings) if meaning.split and roles and place > roles[-1]]
        kind = [len(parts) - 1] if parts and not splits and _is_silent(folder) and _NAMED.search(parts[-1]) else []
        for last in {*roles[-1:], *splits[:1], *kind}:
            start = max(
                (i + 1 for i, meaning in enumerate(meanings[:last]) if meaning.role or meaning.split), default=0
            )
            if start < last:
                outer = "/".join(parts[:start]) or "."
                middles[outer, parts[last]].add("/".join(parts[start:last]))
    several = {key: len(found) for key, found in middles.items() if len(found) > 1}
    silent = Counter(outer for outer, inner in several if _is_silent(inner))
    return {
        _place(outer, inner, hollow): count
        for (outer, inner), count in several.items()
        if not _is_silent(inner) or silent[outer] <= MAX_UNKNOWN
    }


def parent_of(path: str) -> str:
    """Returns the folder around one; "." around the outermost."""
    return PurePosixPath(path).parent.as_posix()


def _in_other_formats(files: dict[str, list[Path]], root: Path) -> list[str]:
    """Returns the folders named after a file format that hold what a lossless one beside them does: `tiff`, `png`."""
    named = {path: found for path in _held(files) if (found := _FORMAT.search(_name(path).lower()))}
    first: dict[tuple[str, ...], Path] = {}
    again = []
    for top in sorted(named, key=lambda path: (f".{named[path][0]}" in JPEG_SUFFIXES, path)):
        held = [file for folder in files if within(folder, top) for file in files[folder]]
        rest = named[top].string.replace(named[top][0], "", 1)
        key = (parent_of(top), rest, *(stem_of(file, root / top) for file in held))
        if first.setdefault(key, held[0]) != held[0] and _look_alike(first[key], held[0]):
            again.append(top)
    return sorted(again)


def _look_alike(one: Path, other: Path) -> bool:
    """Whether two files may show one picture; photographs and masks of the same names do not."""
    seen = look_at_images([one, other], max_pixels=Limits().max_pixels).values()
    if any(facts.error for facts in seen):
        return True
    first, second = (facts.thumbnail.astype(int) for facts in seen)
    return bool(np.abs(first - second).mean() < ALIKE)


def _copies(files: dict[str, list[Path]]) -> list[str]:
    """Returns the folders that hold the same files as another one, the deeper or later of each two.

    However they are divided further down, as by the folds of a cross-validation; one that divides them comes first.
    """
    held: dict[str, list[Path]] = defaultdict(list)
    for folder, paths in files.items():
        for place in _held([folder]):
            held[place] += paths
    named: dict[str, tuple[object, ...]] = {}
    for folder, paths in held.items():
        place, names = _place(folder), sorted(path.name for path in paths)
        named[folder] = (place.role, place.split, folder in files, *names)  # a split that copies another is for check
    several = Counter(named.values())
    divided = {parent_of(folder) for folder in held if meaning_of(_name(folder)).split}
    seen: dict[tuple[object, ...], tuple[str, list[Path]]] = {}
    copies: list[str] = []
    rivals = [folder for folder in held if several[named[folder]] > 1]  # no file of the others is asked for its size
    for folder in sorted(rivals, key=lambda folder: (folder not in divided, folder.count("/"), folder)):
        stamps = sorted((*stamp(path), path) for path in held[folder])
        sizes = tuple(stamp[:2] for stamp in stamps)
        if len(sizes) < 2 or not any(size for _, size in sizes) or any(within(folder, copy) for copy in copies):
            continue
        paths = [path for *_, path in stamps]
        first, others = seen.setdefault((named[folder], sizes), (folder, paths))
        apart = not (within(folder, first) or within(first, folder))
        if apart and are_same(paths, others):
            copies.append(folder)
    return copies


def stamp(path: Path) -> tuple[str, int]:
    """Returns name and size of a file; a link to nothing has none."""
    try:
        status = os.stat(path)
    except OSError:
        return path.name, 0
    return path.name, status.st_size if S_ISREG(status.st_mode) else 0


def are_same(paths: Sequence[Path], others: Sequence[Path]) -> bool:
    """Whether the first, the middle and the last of two lists of files hold the same bytes."""
    places = {0, len(paths) // 2, len(paths) - 1}
    return all(paths[place].read_bytes() == others[place].read_bytes() for place in places)


def looks_like_masks(path: str) -> bool:
    """Whether a folder's own name has a word for masks."""
    return "masks" in roles_in(_name(path))
