"""What `init` proposes to hold out where no folder does: by group, by class, and with no picture on two sides."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segtool.check.likeness import Looks, looks_of, near_duplicates
from segtool.config import Limits, Split
from segtool.data.facts import MaskFacts, look_at_images
from segtool.data.opening import shown
from segtool.data.outline import SIDE
from segtool.data.pairs import Record
from segtool.data.splits import Presence, hold_out
from segtool.init.evidence import Guess
from segtool.init.sequences import Sequences, find_sequences, group_stems
from segtool.init.shapes import labels_of

MANY_PAIRS = 50
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
class _Divided:
    """What a seed makes of the pairs."""

    parts: dict[str, list[Record]]
    leaks: int
    """Pairs of equal pictures with one in each of two parts."""
    classes: tuple[int, int]
    """Classes that occur in train, and in the other parts together."""
    leak: tuple[int, int] | None
    """One of them."""


def choose_split(
    records: Sequence[Record], given: Collection[str], masks: dict[Path, MaskFacts], guess: Guess
) -> SplitChoice:
    """Returns what is held out where folders or lists do not do it: a fifth; of many 15 %, and 15 % for a test.

    Args:
        records: The training pairs.
        given: Splits that the data set has itself.
    """
    num = len(records)
    if "val" in given:
        return SplitChoice(num)
    if num == 1:
        return SplitChoice(1, {"val": 0.0}, "One pair only: nothing can be held out, so nothing is measured.")
    shares = {"val": 0.2}
    if num >= MANY_PAIRS and "test" not in given:
        shares = {"val": 0.15, "test": 0.15}
    looks = _looks(records)
    pictures = np.where(looks.usable[:, None], looks.thumbnails, 0)
    stems = [record.stem for record in records]
    sequences = find_sequences(stems, pictures, parts=len(shares) + 1)
    group = sequences.pattern if sequences else None
    every = np.arange(num)
    twins = near_duplicates(looks, every, every)
    presence = _presence(masks, guess)
    rows = presence(records)
    stratify = bool((rows.mean(0) < 0.98).any() and rows.any(0).sum() > 1)
    split, divided, tried = _divide(records, shares, group, presence if stratify else None, rows, twins)
    if divided.leak and not sequences:
        for blocks in _blocks(stems, len(shares) + 1):
            other = _divide(records, shares, blocks.pattern, presence if stratify else None, rows, twins)
            if _rank(other[1]) > _rank(divided) and other[1].leaks <= divided.leaks / 2:
                sequences, (split, divided, tried) = blocks, other
    chosen: dict[str, float | int | str | bool] = {**shares, "seed": split.seed}
    if split.group:
        chosen["group"] = split.group
    if split.stratify:
        chosen["stratify"] = True
    reason = _reason(records, divided, sequences, split, tried=tried, twins=twins)
    return SplitChoice(len(divided.parts["train"]), chosen, reason, len(divided.parts["val"]))


def _blocks(stems: Sequence[str], parts: int) -> Iterator[Sequences]:
    """Yields blocks of 10, 100 and 1000 consecutive numbers, for images whose equal neighbours no name tells."""
    for digits in (1, 2, 3):
        pattern = r"^(.*?)\d$" if digits == 1 else rf"^(.*?)\d{{1,{digits}}}$"
        groups = group_stems(stems, pattern)
        if groups and len(groups) > parts and max(map(len, groups.values())) <= 0.7 * len(stems):
            yield Sequences(pattern, len(groups), "consecutive numbers, since neighbours show nearly the same")


def _looks(records: Sequence[Record]) -> Looks:
    facts = look_at_images([record.image for record in records], max_pixels=Limits().max_pixels)
    blank = np.zeros((SIDE, SIDE), np.uint8)
    known = [facts[record.image] for record in records]
    return looks_of([replace(one, thumbnail=blank, edges=blank) if one.error else one for one in known])


def _presence(masks: dict[Path, MaskFacts], guess: Guess) -> Presence:
    """Returns what tells which classes occur in masks, by the facts that are known of them."""
    labels = labels_of(guess)

    def look(record: Record) -> NDArray[np.bool_]:
        facts = masks[record.mask].seen_by(guess.encoding) if record.mask else None
        if facts is None or facts.error or labels.misfit(stored := facts.stored(facts.values)):
            return np.zeros(labels.num_classes, bool)
        indices = labels.look_up(stored)
        return np.bincount(indices[indices >= 0].ravel(), minlength=256)[: labels.num_classes] > 0

    known = {}

    def presence(records: Sequence[Record]) -> NDArray[np.bool_]:
        for record in records:
            if record not in known:
                known[record] = look(record)
        return np.stack([known[record] for record in records])

    return presence


def _divide(
    records: Sequence[Record],
    shares: dict[str, float],
    group: str | None,
    presence: Presence | None,
    rows: NDArray[np.bool_],
    twins: NDArray[np.intp],
) -> tuple[Split, _Divided, int]:
    """Returns the first division that puts the most classes into train, the fewest equal pictures on two sides, and
    the most classes into the other parts; without `stratify` only where that is better, as with two images of a class.
    """
    places = {record: place for place, record in enumerate(records)}
    possible = int(rows.any(0).sum())
    ways = [Split(seed=seed, group=group) for seed in range(NUM_SEEDS)]
    if presence:
        ways = [replace(way, stratify=True) for way in ways[:NUM_STRATIFIED]] + ways
    best: tuple[Split, _Divided] | None = None
    tried = 0
    for split in ways:
        divided = _divided(hold_out(records, shares, split, presence), places, rows, twins)
        tried += 1
        if best is None or _rank(divided) > _rank(best[1]):
            best = split, divided
        if not best[1].leaks and best[1].classes == (possible, possible * len(shares)):
            break
    assert best is not None
    return *best, tried


def _rank(divided: _Divided) -> tuple[int, int, int]:
    return divided.classes[0], -divided.leaks, divided.classes[1]


def _divided(
    parts: dict[str, list[Record]],
    places: dict[Record, int],
    rows: NDArray[np.bool_],
    twins: NDArray[np.intp],
) -> _Divided:
    part_of = np.zeros(len(places), int)
    for index, part in enumerate(parts.values()):
        part_of[[places[record] for record in part]] = index
    crossing = twins[part_of[twins[:, 0]] != part_of[twins[:, 1]]]
    seen = [int(rows[part_of == index].any(0).sum()) for index in range(len(parts))]
    return _Divided(
        parts,
        len(crossing),
        (seen[0], sum(seen[1:])),
        (int(crossing[0, 0]), int(crossing[0, 1])) if len(crossing) else None,
    )


def _reason(
    records: Sequence[Record],
    divided: _Divided,
    sequences: Sequences | None,
    split: Split,
    *,
    tried: int,
    twins: NDArray[np.intp],
) -> str:
    counts = ", ".join(f"{len(part)} to {name}" for name, part in divided.parts.items())
    told = [f"No folder for validation: {counts}."]
    if sequences:
        stems = [record.stem for record in records]
        groups = group_stems(stems, sequences.pattern) or {}
        example = next(iter(groups))
        told.append(
            f"What `group` matches stays together, {sequences.num_groups} groups such as {shown(example)}: "
            f"{sequences.reason}. Apart, they would let the scores know what was trained on."
        )
    else:
        told.append("Where several images show one thing (a video, a patient), `group` keeps them together.")
    if split.stratify:
        told.append("`stratify` gives each part its share of the images with each class.")
    if split.seed:
        told.append(f"Seed {split.seed} is the best of {tried} tries, by the classes in each part.")
    if divided.leak:
        one, other = divided.leak
        told.append(
            f"LOOK: {divided.leaks} pairs of nearly equal pictures are in two parts, such as "
            f"{shown(records[one].stem)} and {shown(records[other].stem)}; give such images names that `group` can "
            "hold together."
        )
    elif len(twins) and not sequences:
        told.append(f"{len(twins)} pairs of nearly equal pictures are in one part each.")
    return " ".join(told)
