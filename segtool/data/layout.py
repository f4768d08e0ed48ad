"""Which folders of a data set hold images and masks, told by the names in use and proved by the pairs they give.

A folder's name is read as words: a role (images or masks), a split, or neither. `train_images`, `imagesTr` and
`trainannot` are two words. What is no such word is part of the data set's own tree: `seq1` below `images`, or the
folder around everything.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from segtool.config import Pairing
from segtool.data.pairs import MASK_SUFFIXES, list_files, stem_of, strip, tell_apart

SPLITS = ("train", "val", "test")
_WORDS = {
    "images": "images image img imgs imagery jpegimages pngimages inputs input photos photo pictures pics frames frame "
    "scans slices raw rgb x leftimg8bit original originals source",
    "masks": "masks mask maskes labels label labeled labelled annotations annotation annots annot annotated gt gts "
    "groundtruth groundtruths truth truths segmentation segmentations segmentationclass segmentationclassaug seg segs "
    "segmaps targets target y gtfine gtcoarse trimaps trimap manual labelids semantic",
    "train": "train training tr trn trainval",
    "val": "val valid validation dev eval vl",
    "test": "test testing tests ts te tst",
}
_MEANING = {word: meaning for meaning, words in _WORDS.items() for word in words.split()}
_MASK_AFFIXES = (
    "_mask",
    "_masks",
    "_Mask",
    "-mask",
    "_GT",
    "_gt",
    "_annotation",
    "_annotations",
    "_label",
    "_labels",
    "_labelIds",
    "_seg",
    "_segmentation",
    "_manual",
    "_trimap",
    "_target",
    "_truth",
    "_L",
    "_color",
    "_matte",
    "_binary",
)
_LAST_CHOICE = re.compile(r"colou?r|instance|rgb|overlay|vis|preview|edge", re.IGNORECASE)
_CONTAINERS = frozenset(("data", "dataset", "datasets"))
_MAX_UNKNOWN = 24
_SAMPLE = 400
_LIKELY = 12


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
            if relative != "." and "masks" in _roles(PurePosixPath(relative).name):
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
        return max(counts, key=lambda pairing: (counts[pairing], -_length(pairing)), default=Pairing())

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
        unknown = [prefix + name for name in inside if name and not any(_parts(name))]
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
        if any(_parts(parts[end - 1])):
            yield "/".join(parts[:end])


def _read_name(path: str) -> _Folder:
    role = split = None
    rest = []
    for part in path.split("/"):
        here_role, here_split = _parts(part)
        role, split = here_role or role, here_split or split
        if not (here_role or here_split):
            rest.append(part)
    return _Folder(path, role, split, "/".join(rest))


def _parts(name: str) -> tuple[str | None, str | None]:
    """Returns the role and the split that a folder's name tells; (None, None) where a word of it is neither."""
    words = _words(name)
    meanings = [_MEANING.get(word) for word in words]
    if not words or None in meanings:
        return None, None
    splits = [meaning for meaning in meanings if meaning in SPLITS]
    roles = [meaning for meaning in meanings if meaning not in SPLITS]
    role = "masks" if "masks" in roles else roles[0] if roles else None
    return role, splits[0] if splits else None


def _roles(name: str) -> set[str]:
    return {_MEANING[word] for word in _words(name) if word in _MEANING}


def _words(name: str) -> list[str]:
    """Returns a name's words in lower case, `trainannot` and `imagesTr` as two, years and versions left out."""
    whole = re.sub(r"[^a-z]", "", name.lower())
    if whole in _MEANING:
        return [whole]
    words = []
    for word in re.findall(r"[a-z]+", name.lower()):
        cut = next((i for i in range(2, len(word) - 1) if {word[:i], word[i:]} <= set(_MEANING)), None)
        words += [word] if word in _MEANING or cut is None else [word[:cut], word[cut:]]
    return words


def _is_plain(path: str) -> bool:
    return _parts(PurePosixPath(path).name)[0] == "masks" or path == "."


def _within(path: str, folder: str) -> bool:
    return folder == "." or path == folder or path.startswith(f"{folder}/")


def _overlap(one: Layout, other: Layout) -> bool:
    pairs = product(sum(one.splits.values(), ()), sum(other.splits.values(), ()))
    return any(_within(a, b) or _within(b, a) for a, b in pairs)


# --- prefixes and suffixes


def guess_pairing(images: Sequence[str], masks: Sequence[str]) -> tuple[Pairing, int]:
    """Returns what to take off the stems of images and masks so that most pair, and the number of pairs.

    Of equal numbers the least that is taken off wins; nothing is taken off where that pairs no more.
    """
    if not images or not masks or count_pairs(images, masks, Pairing()) == min(len(images), len(masks)):
        return Pairing(), count_pairs(images, masks, Pairing())
    candidates = {Pairing(), *_contained(images, masks), *_both_sided(images, masks)}
    known = {unicodedata.normalize("NFC", stem) for stem in masks}
    sampled = {pairing: _count_sample(images, known, pairing) for pairing in candidates}
    likely = sorted(candidates, key=lambda pairing: (-sampled[pairing], _length(pairing)))[:_LIKELY]
    return _best(likely, {pairing: count_pairs(images, masks, pairing) for pairing in likely})


def guess_apart(files: Sequence[Path], folder: Path) -> tuple[Pairing, int]:
    """Returns what tells images and masks in one folder apart, and the number of pairs that gives."""
    stems = [stem_of(file, folder) for file in files]
    candidates = {Pairing(), *(Pairing(mask_suffix=affix) for affix in _MASK_AFFIXES)}
    candidates |= {Pairing(mask_prefix=affix.strip("_-") + "_") for affix in _MASK_AFFIXES}
    tails, heads = _affixes(stems, end=True, least=0.2), _affixes(stems, end=False, least=0.2)
    candidates |= {Pairing(image_suffix=a, mask_suffix=b) for a, b in product(tails, tails) if a != b}
    candidates |= {Pairing(image_prefix=a, mask_prefix=b) for a, b in product(heads, heads) if a != b}
    counts = {}
    for pairing in candidates:
        images, masks = tell_apart(files, pairing)
        counts[pairing] = count_pairs(
            [stem_of(path, folder) for path in images], [stem_of(path, folder) for path in masks], pairing
        )
    return _best([pairing for pairing in candidates if _sounds_like_masks(pairing)], counts)


def count_pairs(images: Iterable[str], masks: Iterable[str], pairing: Pairing) -> int:
    """Returns how many stems pair one to one."""
    one = Counter(strip(stem, pairing.image_prefix, pairing.image_suffix) for stem in images)
    other = Counter(strip(stem, pairing.mask_prefix, pairing.mask_suffix) for stem in masks)
    return sum(1 for stem, count in one.items() if stem is not None and count == 1 and other[stem] == 1)


def _count_sample(images: Sequence[str], masks: set[str], pairing: Pairing) -> int:
    """Returns how many of some images have a mask, without a pass over all masks."""
    count = 0
    for stem in images[:: len(images) // _SAMPLE + 1]:
        if key := strip(stem, pairing.image_prefix, pairing.image_suffix):
            folder, slash, name = key.rpartition("/")
            count += f"{folder}{slash}{pairing.mask_prefix}{name}{pairing.mask_suffix}" in masks
    return count


def _best(candidates: Iterable[Pairing], counts: Mapping[Pairing, int]) -> tuple[Pairing, int]:
    def rank(pairing: Pairing) -> tuple[object, ...]:
        values = tuple(vars(pairing).values())
        telling = not any(map(_LAST_CHOICE.search, values)), _words_fit(pairing)
        return counts[pairing], *telling, -_length(pairing), values

    best = max(candidates, key=rank)
    return best, counts[best]


def _words_fit(pairing: Pairing) -> int:
    """Returns how well the words taken off each side speak of that side."""
    image = _roles(f"{pairing.image_prefix} {pairing.image_suffix}")
    mask = _roles(f"{pairing.mask_prefix} {pairing.mask_suffix}")
    return ("images" in image and "masks" not in image) + ("masks" in mask)


def _sounds_like_masks(pairing: Pairing) -> bool:
    """Returns whether of two kinds of file in one folder the chosen one is that of the masks, by its words."""
    image = _roles(f"{pairing.image_prefix} {pairing.image_suffix}")
    mask = _roles(f"{pairing.mask_prefix} {pairing.mask_suffix}")
    some = bool(pairing.mask_prefix + pairing.mask_suffix) or "images" in image or pairing == Pairing()
    return some and "masks" not in image and not ("images" in mask and "masks" not in mask)


def _contained(images: Sequence[str], masks: Sequence[str]) -> set[Pairing]:
    """Returns the differences between names where one stem contains the other: `a` and `a_mask`."""
    found: set[Pairing] = set()
    own, others = set(images[:_SAMPLE]), set(masks[:_SAMPLE])
    for stem in list(others)[:40]:
        found |= {Pairing(mask_prefix=head, mask_suffix=tail) for head, tail in _around(stem, own)}
    for stem in list(own)[:40]:
        found |= {Pairing(image_prefix=head, image_suffix=tail) for head, tail in _around(stem, others)}
    return found


def _around(stem: str, shorter: set[str]) -> Iterator[tuple[str, str]]:
    """Yields what stands before and behind each of the shorter stems within one."""
    folder, slash, name = stem.rpartition("/")
    for start in range(len(name)):
        for end in range(start + 1, len(name) + 1):
            inner = folder + slash + name[start:end]
            if end - start < len(name) and inner in shorter and _is_joint(name, start) and _is_joint(name, end):
                yield name[:start], name[end:]


def _is_joint(name: str, place: int) -> bool:
    """Returns whether two words of a name meet there, or it ends."""
    if place in (0, len(name)):
        return True
    left, right = name[place - 1], name[place]
    return not (left.isalpha() and right.isalpha() and left.isupper() == right.isupper()) and not (
        left.isdigit() and right.isdigit()
    )


def _both_sided(images: Sequence[str], masks: Sequence[str]) -> set[Pairing]:
    """Returns pairings by frequent ends of both names, `_leftImg8bit` and `_gtFine_labelIds`, or beginnings."""
    tails = product(_affixes(images, end=True, least=0.9), _affixes(masks, end=True, least=0.15))
    heads = product(_affixes(images, end=False, least=0.9), _affixes(masks, end=False, least=0.15))
    found = {Pairing(image_suffix=a, mask_suffix=b) for a, b in tails}
    return found | {Pairing(image_prefix=a, mask_prefix=b) for a, b in heads}


def _affixes(stems: Sequence[str], *, end: bool, least: float) -> list[str]:
    """Returns the ends (or beginnings) at a boundary of words that at least that share of the stems has, and ""."""
    names = [stem.rpartition("/")[2] for stem in stems[:_SAMPLE]]
    counts: Counter[str] = Counter()
    for name in names:
        cuts = [match.start() for match in re.finditer(r"(?<=[^\W_])(?=[\W_])|(?<=\d)(?=[^\W\d_])", name)]
        if not end:
            cuts = [match.end() for match in re.finditer(r"[\W_]+|(?<=[^\W\d_])(?=\d)", name)]
        counts.update({name[cut:] if end else name[:cut] for cut in cuts})
    frequent = [affix for affix, count in counts.items() if count >= max(least * len(names), min(2, len(names)))]
    return ["", *sorted(frequent, key=lambda affix: -counts[affix])[:8]]


def _length(pairing: Pairing) -> int:
    return sum(map(len, vars(pairing).values()))
