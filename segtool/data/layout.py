"""Which folders of a data set hold images and masks, told by the names in use and proved by the pairs they give.

A folder's name is read as words: a role (images or masks), a split, or neither. `train_images`, `imagesTr` and
`trainannot` are two words. What is no such word is part of the data set's own tree: `seq1` below `images`, or the
folder around everything. Where several kinds of masks lie side by side, words say which is the truth.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product, takewhile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from segtool.config import Folders, Pairing
from segtool.data.affixes import NEARLY, count_pairs, guess_apart, guess_by_name, guess_pairing, length_of
from segtool.data.candidates import Candidates, are_apart, is_one_of_several
from segtool.data.files import MASK_SUFFIXES, list_files, stem_of
from segtool.data.folders import Place, Tree, holds, is_camera, parent_of, share, within
from segtool.data.leftovers import listed_folders, meet, unlabelled_images, unused_by_words, unused_masks
from segtool.data.pairs import tell_apart
from segtool.data.predictions import without_predictions
from segtool.data.wording import further_kinds, guess_words
from segtool.data.words import SPLITS, meaning_of, says_predicted, words_of

MORE = 1.5
"""Words in the midst of names are believed where they give so many times the pairs that beginnings and ends do."""
SECOND = 0.1
"""What a pair with a mask of second choice is worth: markers and overlays of all images, truth of a tenth of them."""
FEW_PAIRED = 0.25  # of the files in pairs are so few that kinds of images and masks within them may give more
FEW = 2
MANY = 4  # so many masks for each of a few that find an image are more than a mistake
CHANCE = 2.5
"""Some pairs of two folders are a chance where so many times more lie side by side in one."""


PairingGuess = Callable[[Sequence[str], Sequence[str]], tuple[Pairing, int]]
"""How the stems of images and masks are paired, and the number of pairs that gives."""


@dataclass(frozen=True)
class Layout:
    """Where the images and masks of each split are."""

    splits: dict[str, Folders]
    """Among train, val, test; with a pairing where names are not as that of all says."""
    pairing: Pairing
    unused: tuple[str, ...]
    """Other folders that look like masks."""
    notes: tuple[str, ...]
    """What a person should know: splits left out, data sets beside this one."""


class _Match(NamedTuple):
    """Images and masks that may belong together."""

    images: Place
    masks: Place
    pairing: Pairing
    pairs: int


def find_layout(root: Path, *, without: Collection[str] = ()) -> Layout | None:
    """Returns the layout that pairs the most files, or None where nothing pairs.

    Known are `images` + `masks`, `{train,val,test}/{images,masks}`, `{images,masks}/{train,val,test}`,
    `train_images` + `train_masks`, `train` + `trainannot`, each with the usual other names, one folder further down
    too, `seq1/images` + `seq1/masks` for many `seq1`, and images and masks side by side in one folder, told apart by a
    prefix or suffix (`a.jpg`, `a_mask.png`).

    Folders that segtool has predicted, or whose names say so, are looked at only where the others give no layout.

    Args:
        without: Folders of masks that are none, as their pixels say.
    """
    files = list_files(root, MASK_SUFFIXES)
    folders = [stem_of(file, root).rpartition("/")[0] for file in files]
    predicted = _predicted(Counter(folders))
    named = [file for file, folder in zip(files, folders, strict=True) if folder not in predicted]
    others = without_predictions(named)
    layout = _layout_of(root, others, without)
    return _layout_of(root, files, without) if layout is None and len(others) < len(files) else layout


def _predicted(folders: Counter[str]) -> set[str]:
    """Returns the folders within one whose name says that it holds predictions, by the number of files in each.

    But not those of images and masks that are most of all files: `crack prediction/images`, `crack prediction/masks`.
    """
    tops: dict[str, list[str]] = defaultdict(list)
    for folder in folders:
        parts = folder.split("/")
        if end := next((end for end, part in enumerate(parts, 1) if says_predicted(part)), 0):
            tops["/".join(parts[:end])].append(folder)
    found: set[str] = set()
    for top, held in tops.items():
        roles = {meaning_of(part).role for folder in held for part in folder[len(top) :].split("/")}
        if not {"images", "masks"} <= roles or 2 * sum(folders[folder] for folder in held) < folders.total():
            found.update(held)
    return found


def _layout_of(root: Path, files: Collection[Path], without: Collection[str]) -> Layout | None:
    """Returns the layout of some files below a root, as `find_layout`."""
    finder = first = _Finder(Candidates(Tree(root, files), without))
    two_folders = finder.choose(finder.candidates.pairs_of_folders)
    if not two_folders or two_folders["train"].images.role is None:
        across = finder.across_splits()
        told = bool(across) and across["train"].images.role == "images"
        two_folders = across if told or not two_folders else two_folders
    known = sum(map(len, finder.tree.files.values()))
    whole = bool(two_folders) and 2 * _total(two_folders) >= 0.6 * known and not finder.leaves_masks(two_folders)
    second = bool(two_folders) and two_folders["train"].masks.rank < 0  # edges, instances: the truth may lie elsewhere
    one_folder = finder.choose(finder.candidates.single_folders) if second or not whole else {}
    chance = NEARLY if second else CHANCE
    best = one_folder if _total(one_folder) > chance * _total(two_folders) else two_folders
    if whole:
        return finder.layout(best)
    if not best or (2 * _total(best) < 0.6 * known and (finder.may_have_more(best) or finder.leaves_masks(best))):
        by_words = finder.by_words()
        best = by_words if _total(by_words) > MORE * _total(best) else best
    of_folders = one_folder or two_folders
    if not of_folders or 2 * _total(best) < FEW_PAIRED * known:
        other = _Finder(Candidates(Tree(root, files), without))  # which makes places of its own
        kinds = other.of_kinds()
        finder, best = (other, kinds) if _total(kinds) > _total(best) else (finder, best)
    if not best or finder.leaves_masks(best):
        other = _Finder(first.candidates, guess_by_name)
        by_name = other.choose(other.candidates.pairs_of_folders)
        if NEARLY * _total(by_name) > _total(best) and not other.doubles(by_name):
            finder, best = other, by_name
    return finder.layout(best) if best and not finder.is_chance(best) else None


def _total(found: dict[str, _Match]) -> int:
    return sum(match.pairs for match in found.values())


class _Finder:
    """The choice among what may belong together below a root."""

    def __init__(self, candidates: Candidates, guess: PairingGuess = guess_pairing) -> None:
        """Chooses among the candidates, whose names are compared by `guess`."""
        self.tree = candidates.tree
        self.candidates = candidates
        self._guess = guess

    def _match(self, images: Place, masks: Place) -> _Match:
        if images == masks:
            pairing, pairs = guess_apart(self.tree.files_of(images), self.tree.root / images.path)
        else:
            pairing, pairs = self._guess(*self._stems(images, masks))
        return _Match(images, masks, replace(pairing, image_folder=images.inner, mask_folder=masks.inner), pairs)

    def _count(self, match: _Match, pairing: Pairing) -> int:
        images, masks = match.images, match.masks
        if images != masks:
            return count_pairs(*self._stems(images, masks), pairing)
        folder = self.tree.root / images.path
        one, other = tell_apart(self.tree.files_of(images), pairing)
        return count_pairs([stem_of(p, folder) for p in one], [stem_of(p, folder) for p in other], pairing)

    def _stems(self, images: Place, masks: Place) -> tuple[list[str], list[str]]:
        return self.tree.stems(images, without=masks), self.tree.stems(masks, without=images)

    # --- the choice

    def choose(self, combinations: Callable[[str], Iterable[tuple[Place, Place]]]) -> dict[str, _Match]:
        """Returns the best match of each split; `train` is among them where anything pairs."""
        return self._by_split(
            {
                split: [match for pair in combinations(split) if (match := self._match(*pair)).pairs]
                for split in ("", *SPLITS)
            }
        )

    def _by_split(self, matches: Mapping[str, list[_Match]]) -> dict[str, _Match]:
        """Returns the best match of each split among those whose names tell it, or the best of those that tell none."""
        whole = self._best(matches[""])
        first = self._best(matches["train"])
        named = {"train": first} if first else {}
        like = first or whole
        for split in ("val", "test"):
            if best := self._best(self._alike(matches[split], like, matches["train"] + matches[""])):
                named[split] = best
        held = [match for split, match in named.items() if split != "train"]
        apart = [match for match in matches["train"] if not any(_contains(match, other) for other in held)]
        if first and (around := self._best(apart)):
            named["train"] = around  # train/images/training, where train/images holds validation too
        if whole and (not first or 2 * _total(named) <= whole.pairs):
            others = {s: m for s, m in named.items() if s != "train" and not _overlap(m, whole)}
            return {"train": whole, **others}
        if named and not first:
            roles = {place.role for place in self.candidates.places["train"]}
            if {"images", "masks"} <= roles:  # which do not pair: what is held out is no training set
                return {}
            only = max(named, key=lambda split: named[split].pairs)
            named["train"] = named.pop(only)
        return {split: named[split] for split in SPLITS if split in named}

    def across_splits(self) -> dict[str, _Match]:
        """Returns the best match of the images of one split with masks whose place tells no split, or of the reverse.

        `images` beside `labels/train` and `labels/val` is the reverse: the masks of a split tell which images are its.
        Where no name says masks, files that hold areas do.
        """
        masks = self.candidates.masks()
        images = [place for split in SPLITS for place in self.candidates.places[split] if place.role != "masks"]
        if best := self._best_of(product(images, masks[""])):
            beside = {place.split: place for place in images if place.rest == best.images.rest}
            held = {split: self._match(beside[split], best.masks) for split in ("val", "test") if split in beside}
            told = {split: match for split, match in held.items() if match.pairs and best.images.split == "train"}
            return {"train": best, **told}
        images = [place for place in self.candidates.places[""] if place.role != "masks"]
        found = {split: best for split in SPLITS if (best := self._best_of(product(images, masks.get(split, ()))))}
        return found if "train" in found else {}

    def _best_of(self, pairs: Iterable[tuple[Place, Place]]) -> _Match | None:
        return self._best([match for pair in pairs if are_apart(*pair) and (match := self._match(*pair)).pairs])

    def of_kinds(self) -> dict[str, _Match]:
        """Returns the best matches where folders of silent names within images or masks are kinds of those.

        `images/camera` and `images/range`; `labels/test/one_annotator` and `labels/test/three_annotators`.
        """
        kinds = self.tree.kinds()
        self.tree.places += kinds
        self.candidates.add(kinds)
        found = (self.choose(self.candidates.pairs_of_folders) or self.across_splits()) if kinds else {}
        return {} if found and is_one_of_several(found["train"].masks, kinds) else found

    def may_have_more(self, found: dict[str, _Match]) -> bool:
        """Whether images lie anywhere, or several places have the same splits, each with masks in a folder of its own.

        So do `masks_1` and `masks_2` beside each other, `oslo/oslo_masks` and `rome/rome_masks`. Other data sets beside
        the chosen one have other splits.
        """
        chosen = found["train"].masks
        kind = _kind_within(chosen)
        same = [place for place in self.candidates.places[chosen.split or ""] if place.role == "masks"]
        beside = [place for place in same if _kind_within(place) == kind and place.path != chosen.path]
        if any(parent_of(place.path) == parent_of(chosen.path) for place in beside):
            return True
        splits: dict[str, set[str]] = defaultdict(set)
        for split, places in self.candidates.places.items():
            for place in places:
                if place.role == "masks" and _kind_within(place) == kind:
                    splits[_site(place.path) if split else parent_of(place.path)].add(split)
        alike = len({frozenset(held) for held in splits.values()}) == 1
        return found["train"].images.role is None or (bool(beside) and alike)

    def leaves_masks(self, found: dict[str, _Match]) -> bool:
        """Whether masks in the chosen folders find no image."""
        places = {match.masks for match in found.values() if match.images != match.masks}
        return _total(found) < NEARLY * sum(len(self.tree.files_of(place)) for place in places)

    def doubles(self, found: dict[str, _Match]) -> bool:
        """Whether the chosen folders hold copies that were left out, whose names stand twice there."""
        places = [place for match in found.values() for place in (match.images, match.masks)]
        return any(holds(place, copy) for place in places for copy in self.tree.copies)

    def is_chance(self, found: dict[str, _Match]) -> bool:
        """Whether a pair or two stand for the many masks that find no image, or lie in folders of other names."""
        images, masks, _, pairs = found["train"]
        if images == masks or pairs > FEW:
            return False
        beside = len(list(unused_masks(self.tree, [images, masks])))
        return len(self.tree.files_of(masks)) - pairs + beside >= MANY * pairs

    def by_words(self) -> dict[str, _Match]:
        """Returns the best matches of images and masks whose names differ by words in their midst, the same in all."""
        matches: dict[str, list[_Match]] = defaultdict(list)
        for split in ("", *SPLITS):
            for images, masks in self.candidates.pairs_of_folders(split):
                if not (images.inner or masks.inner):
                    matches[split].append(_Match(images, masks, *guess_words(*self._stems(images, masks))))
        around = self.tree.around()
        stems = self.tree.stems(around)
        matches[""].append(_Match(around, around, *guess_words(stems, stems)))
        found = self._by_split({split: [m for m in matches[split] if m.pairs] for split in ("", *SPLITS)})
        return {split: match for split, match in found.items() if match.pairing == found["train"].pairing}

    def _alike(self, matches: list[_Match], like: _Match | None, seen: list[_Match]) -> list[_Match]:
        """Returns the matches whose masks are of the kind that was chosen, or of a kind that was not there to choose.

        `test/mask` beside `train/1st_manual` is no truth where train has a `mask` too; nor is the `test` of another
        set, with a training set of its own, that of the set that was chosen.
        """
        if like is None:
            return matches
        others = {match.masks.rest for match in seen} - {like.masks.rest}
        matches = [match for match in matches if match.masks.rest not in others]
        same = [match for match in matches if match.masks.kind == like.masks.kind]
        kinds = {match.masks.kind for match in seen}
        return same or [match for match in matches if match.masks.kind not in kinds]

    def _best(self, matches: Sequence[_Match]) -> _Match | None:
        worth = [match.pairs * (1 if match.masks.rank >= 0 else SECOND) for match in matches]
        most = max(worth, default=0)
        good = [match for match, pairs in zip(matches, worth, strict=True) if pairs >= NEARLY * most]
        return max(good, key=self._rank, default=None)

    def _rank(self, match: _Match) -> tuple[object, ...]:
        images, masks = match.images, match.masks
        told = images.role == "images" and not is_camera(images.inner)  # `color` may hold masks in colour
        return (
            not any(within(copy, place.path) for copy in self.tree.copies for place in (images, masks)),
            images.rest == masks.rest,
            masks.rank,
            told or not self.candidates.is_flat(images),
            re.findall(r"\d+", images.shown) == re.findall(r"\d+", masks.shown),  # images_448 of masks_448
            images.role == "images",
            self.candidates.in_color(images),
            is_camera(PurePosixPath(images.path).name),
            images.rank >= 0,
            match.pairs,
            -length_of(match.pairing),
            self.candidates.classes_in(masks) if masks.role == "masks" else 0,  # all, beside a folder for each
            -len(masks.path),
            images.rank,
            -len(images.path),
            [-ord(letter) for letter in masks.path],  # the first of two by name
        )

    # --- what is said

    def layout(self, found: dict[str, _Match]) -> Layout:
        """Returns the layout of the chosen matches, with notes on what is left out."""
        pairing = self._common(found)
        own = {split: match.pairing for split, match in found.items() if self._told_apart(match, pairing)}
        splits = {split: Folders(m.images.path, m.masks.path, pairing=own.get(split)) for split, m in found.items()}
        notes: list[str] = []
        only = found["train"].images
        if only.split and only.split != "train":
            notes.append(f"{only.shown}: the only labelled part, so it is the training set")
        used = [place for match in found.values() for place in (match.images, match.masks)]
        by_words = found["train"].masks if pairing.mask_words else None
        unused = tuple(unused_masks(self.tree, used, apart_from=by_words.path if by_words else None))
        if by_words:
            unused = (*unused, *unused_by_words(self.tree, by_words, pairing))
        by_files = [
            match.masks
            for match in found.values()
            if match.masks.role != "masks"
            and match.images.path != match.masks.path
            and self.candidates.is_flat(match.masks)
        ]
        if by_files:
            taken, whose = ", ".join(dict.fromkeys(p.shown for p in by_files)), "their" if by_files[1:] else "its"
            notes.append(f"{taken}: no name says masks; taken for them, as {whose} files hold a few values in areas")
        parts = [(match.images, match.masks, match.pairing) for match in found.values()]
        flat = self._flat_places(used, [] if by_files else parts)
        if unused := tuple(dict.fromkeys((*unused, *flat))):
            they_look = "look like masks too, but are" if unused[1:] else "looks like masks too, but is"
            notes.append(f"{listed_folders(unused)}: {they_look} not used")
        notes += unlabelled_images(self.tree, parts, without=unused)
        if pairing.image_words and (kinds := further_kinds(self.tree.stems(only), pairing)):
            notes.append(f"files with {', '.join(kinds)} in their paths: further ones of the images, not used")
        apart = [path for path in self.tree.copies if not any(holds(place, path) for place in used)]
        notes += [f"{path}: a copy of other files here, left out" for path in apart[:4]]
        return Layout(splits, pairing, unused, tuple(notes))

    def _flat_places(self, used: Sequence[Place], parts: Sequence[tuple[Place, Place, Pairing]]) -> list[str]:
        """Returns the innermost places apart from those in use whose files hold values in areas, as masks do.

        Args:
            parts: Images, masks and pairing of each split; where there are some, a place bears their names too.
        """
        known = [place for places in self.candidates.places.values() for place in places if place.role != "images"]
        apart = [p for p in known if not any(within(p.path, u.path) or within(u.path, p.path) for u in used)]
        if parts:
            apart = [p for p in apart if any(meet(self.tree, images, p, pairing) for images, _, pairing in parts)]
        flat = [place for place in apart if self.candidates.is_flat(place)]
        return sorted(p.shown for p in flat if not any(p != o and within(o.path, p.path) for o in flat))

    def _common(self, found: dict[str, _Match]) -> Pairing:
        """Returns the pairing that makes the most pairs over all splits."""
        counts: Counter[Pairing] = Counter()
        for pairing in dict.fromkeys(match.pairing for match in found.values()):
            counts[pairing] = sum(self._count(match, pairing) for match in found.values())
        return max(counts, key=lambda pairing: (counts[pairing], pairing == found["train"].pairing))

    def _told_apart(self, match: _Match, pairing: Pairing) -> bool:
        """Whether a split needs a pairing of its own."""
        if pairing.image_words or pairing.mask_words:
            return False
        inner = (match.images.inner, match.masks.inner)
        return inner != (pairing.image_folder, pairing.mask_folder) or self._count(match, pairing) < match.pairs


def _kind_within(place: Place) -> list[str]:
    """Returns the words of a place's kind but those of the folder around it: `masks` of `oslo/oslo_masks`."""
    around = words_of(parent_of(place.path))
    return [word for word in place.kind.split() if word not in around]


def _site(path: str) -> str:
    """Returns the folder around all that tell a split or a role: `north` of `north/train/annos/masks`."""
    return "/".join(takewhile(lambda part: not any(meaning_of(part)[:2]), path.split("/")))


def _contains(one: _Match, other: _Match) -> bool:
    """Whether the folders of one match lie around those of another one."""
    pairs = ((one.images, other.images), (one.masks, other.masks))
    return all(a.path != b.path and within(b.path, a.path) for a, b in pairs)


def _overlap(one: _Match, other: _Match) -> bool:
    return any(share(a, b) for a, b in product((one.images, one.masks), (other.images, other.masks)))
