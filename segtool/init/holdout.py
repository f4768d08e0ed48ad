"""What `init` proposes to hold out where no folder does: by group, by class, and with no picture on two sides."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segtool.check.findings import num
from segtool.check.likeness import Looks, looks_of, near_duplicates
from segtool.config import Split
from segtool.data.facts import ImageFacts, MaskFacts
from segtool.data.outline import SIDE
from segtool.data.pairs import Record
from segtool.data.splits import hold_out
from segtool.data.uses import Decoder
from segtool.errors import shown
from segtool.init.evidence import Guess
from segtool.init.sequences import Sequences, find_sequences, group_stems
from segtool.init.shapes import labels_of

MANY_PAIRS = 50
MOST = 0.7  # share of the pairs that one group may hold
SMALLER = 2 / 3  # times the usual shares, where groups are large
NUM_SEEDS = 32
NUM_STRATIFIED = 8  # seeds with `stratify`, which differ little


@dataclass(frozen=True)
class SplitChoice:
    """How pairs are held out, and what is left to train on."""

    num_train: int
    split: dict[str, float | int | str | bool] | None = None
    """As `data.split`; None where folders divide the pairs."""
    reason: str = ""
    num_val: int = 0


@dataclass(frozen=True)
class _Division:
    """One way to divide the pairs."""

    split: Split
    sequences: Sequences | None
    """What stays together."""
    parts: dict[str, list[Record]]
    leaks: NDArray[np.intp]
    """Pairs of equal pictures with one in each of two parts, by the places of their records, n 2."""
    classes: tuple[int, int]
    """Classes that occur in train, and in the other parts together."""
    tried: int = 1
    """Divisions of which this is the best."""

    @property
    def rank(self) -> tuple[int, int, int]:
        """The better division has the higher one."""
        return self.classes[0], -len(self.leaks), self.classes[1]


@dataclass(frozen=True)
class _Pool:
    """The pairs that are divided, and what their divisions are judged by."""

    records: Sequence[Record]
    shares: dict[str, float]
    """Of what is held out, by the name of its part."""
    rows: NDArray[np.bool_]
    """Whether each class occurs in the mask of each record, N K."""
    twins: NDArray[np.intp]
    """Places of two records with nearly equal pictures, T 2."""

    @cached_property
    def _places(self) -> dict[Record, int]:
        return {record: place for place, record in enumerate(self.records)}

    def presence(self, records: Sequence[Record]) -> NDArray[np.bool_]:
        """Returns which classes occur in the masks of some of them, n K."""
        return self.rows[[self._places[record] for record in records]]

    def best(self, sequences: Sequences | None) -> _Division:
        """Returns the first division that puts the most classes into train, the fewest equal pictures on two sides, and
        the most classes into the other parts.

        Those with `stratify` come first, if classes are rare; one without has to be better, as with two images of a
        class.
        """
        num_classes = int(self.rows.any(0).sum())
        most = num_classes, num_classes * len(self.shares)
        ways = [Split(seed=seed, group=sequences.pattern if sequences else None) for seed in range(NUM_SEEDS)]
        if (self.rows.mean(0) < 0.98).any() and num_classes > 1:
            ways = [replace(way, stratify=True) for way in ways[:NUM_STRATIFIED]] + ways
        best, tried = self._divided(ways[0], sequences), 1
        while (len(best.leaks) or best.classes != most) and tried < len(ways):
            best = max(best, self._divided(ways[tried], sequences), key=lambda division: division.rank)
            tried += 1
        return replace(best, tried=tried)

    def misses(self, division: _Division) -> float:
        """Returns by how many pairs in all the parts that are held out miss their shares."""
        wanted = {name: share * len(self.records) for name, share in self.shares.items()}
        return sum(abs(len(division.parts[name]) - count) for name, count in wanted.items())

    def _divided(self, split: Split, sequences: Sequences | None) -> _Division:
        parts = hold_out(self.records, self.shares, split, self.presence)
        part_of = np.zeros(len(self.records), int)
        for index, part in enumerate(parts.values()):
            part_of[[self._places[record] for record in part]] = index
        crossing = self.twins[part_of[self.twins[:, 0]] != part_of[self.twins[:, 1]]]
        seen = [int(self.rows[part_of == index].any(0).sum()) for index in range(len(parts))]
        return _Division(split, sequences, parts, crossing, (seen[0], sum(seen[1:])))


def choose_split(
    records: Sequence[Record],
    given: Collection[str],
    images: Mapping[Path, ImageFacts],
    masks: Mapping[Path, MaskFacts],
    guess: Guess,
) -> SplitChoice:
    """Returns what is held out where folders or lists do not do it: a fifth; of many 15 %, and 15 % for a test.

    Args:
        records: The training pairs.
        given: Splits that the data set has itself.
    """
    count = len(records)
    if "val" in given:
        return SplitChoice(count)
    if count == 1:
        return SplitChoice(1, {"val": 0.0}, "One pair only: nothing can be held out, so nothing is measured.")
    shares = {"val": 0.2}
    if count >= MANY_PAIRS and "test" not in given:
        shares = {"val": 0.15, "test": 0.15}
    seen = [_blank_if_broken(images[record.image]) for record in records]
    stems = [record.stem for record in records]
    looks = looks_of(seen)
    pictures = np.where(looks.usable[:, None], looks.thumbnails, 0)
    sequences = find_sequences(stems, pictures, parts=len(shares) + 1)
    pool = _Pool(records, shares, _rows(records, masks, guess), _twins(seen, looks))
    best = pool.best(sequences)
    if len(best.leaks):
        for way in _of_like_pictures(stems, len(shares) + 1, blocks=sequences is None):
            other = pool.best(way)
            if other.rank > best.rank and 2 * len(other.leaks) <= len(best.leaks):
                best = other
    if best.sequences:  # whole groups overshoot: of 8 patients 15 % are two
        smaller = {name: round(share * SMALLER, 2) for name, share in shares.items()}
        other = replace(pool, shares=smaller).best(best.sequences)
        if other.rank >= best.rank and pool.misses(other) < pool.misses(best):
            shares, best = smaller, other
    chosen: dict[str, float | int | str | bool] = {**shares, "seed": best.split.seed}
    if best.split.group:
        chosen["group"] = best.split.group
    if best.split.stratify:
        chosen["stratify"] = True
    return SplitChoice(len(best.parts["train"]), chosen, _reason(pool, best), len(best.parts["val"]))


def _of_like_pictures(stems: Sequence[str], parts: int, *, blocks: bool) -> Iterator[Sequences]:
    """Yields groups that may hold pictures which are nearly equal.

    The images of one name in any folder, as they are and with a number behind it or more than that.

    Args:
        blocks: Also blocks of 10, 100 and 1000 consecutive numbers.
    """
    ways = dict.fromkeys(
        (r"([^/]+)$", r"([^/]+?)(?:[_\-. ]\d+)?$", r"([^/\d]*\d+)[^/]*$"),
        "copies of one image, by their names and their looks",
    )
    if blocks:
        numbers = (r"^(.*?)\d$", r"^(.*?)\d{1,2}$", r"^(.*?)\d{1,3}$")
        ways |= dict.fromkeys(numbers, "consecutive numbers, since neighbours show nearly the same")
    for pattern, reason in ways.items():
        groups = group_stems(stems, pattern)
        if groups and parts < len(groups) < len(stems) and max(map(len, groups.values())) <= MOST * len(stems):
            yield Sequences(pattern, reason)


def _twins(images: Sequence[ImageFacts], looks: Looks) -> NDArray[np.intp]:
    """Returns the places of two near-equal pictures each, those that are mirrored or turned too, T 2."""
    every = np.arange(len(images))
    ways = (looks, looks_of(images, turned=True))
    return np.unique(np.concatenate([near_duplicates(each, every, every) for each in ways]), axis=0)


def _blank_if_broken(facts: ImageFacts) -> ImageFacts:
    blank = np.zeros((SIDE, SIDE), np.uint8)
    return replace(facts, thumbnail=blank, edges=blank) if facts.error else facts


def _rows(records: Sequence[Record], masks: Mapping[Path, MaskFacts], guess: Guess) -> NDArray[np.bool_]:
    """Returns which classes occur in the mask of each record, N K; none in one that cannot be read."""
    decoder = Decoder(labels_of(guess))
    none = np.zeros(len(guess.codes), bool)
    known = (masks[record.truth] for record in records)
    return np.stack([none if facts.error else decoder.use(facts).pixels > 0 for facts in known])


def _reason(pool: _Pool, best: _Division) -> str:
    stems = [record.stem for record in pool.records]
    counts = ", ".join(f"{len(part)} to {name}" for name, part in best.parts.items())
    told = [f"No folder for validation: {counts}."]
    if best.sequences:
        groups = group_stems(stems, best.sequences.pattern) or {}
        told.append(
            f"What `group` matches stays together, {len(groups)} groups such as {shown(next(iter(groups)))}: "
            f"{best.sequences.reason}. Apart, they would let the scores know what was trained on."
        )
    else:
        told.append("Where several images show one thing (a video, a patient), `group` keeps them together.")
    if best.split.stratify:
        told.append("`stratify` gives each part its share of the images with each class.")
    if best.split.seed:
        told.append(f"Seed {best.split.seed} is the best of {best.tried} tries, by the classes in each part.")
    if len(best.leaks):
        one, other = best.leaks[0]
        told.append(
            f"LOOK: {num(best.leaks, 'pair')} of nearly equal pictures in two parts, such as "
            f"{shown(stems[one])} and {shown(stems[other])}; give such images names that `group` can hold together."
        )
    elif len(pool.twins) and not best.sequences:
        told.append(f"{num(pool.twins, 'pair')} of nearly equal pictures: each is in one part.")
    return " ".join(told)
