"""Classes and splits as a training meets them, and settings that the files do not bear. Codes 4xx to 6xx."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from segtool.check.findings import (
    NAMED,
    Finding,
    Severity,
    a_check,
    counted,
    few_names,
    first_of,
    num,
    share_text,
    size_text,
)
from segtool.check.survey import Survey
from segtool.data.labels import resolve
from segtool.data.specks import SLIP_MASKS
from segtool.errors import ConfigError, shown

FEW_PAIRS = 5
RARE_SHARE = 1e-3
MOST_NAMED = 8  # classes of a finding
NUMBERED = 3  # names that differ in their digits alone, from which on they are numbers
AGAIN = 0.5  # share of a split's numbers that another has too where numbering starts again
HELD_BY_FEW = 0.1  # share of the masks that alone hold a class, which may be a slip there
SCARCE = 3  # images with a class, below which no split by chance can be blamed
APART = 0.75  # greatest distance of two cumulative distributions (Kolmogorov, Smirnov)
APART_SURE = 1.8  # of it, times the root of n m / (n + m): one in a thousand by chance
APART_SHARE = 0.15  # difference of the mean shares that matters
APART_FACTOR = 3  # or their ratio, for a class of a thousandth of the pixels and more


# ------------------------------------------------------------------------------------------------- 4 classes


@a_check
def classes_occur(survey: Survey) -> Iterator[Finding]:
    """SEG401, SEG402: classes that never occur in the training, validation or test masks."""
    train = survey.class_pixels("train")
    if train.any() and _all_known(survey, "train"):
        remedy = "the network cannot learn them; label some, or remove the classes"
        yield from _absent(survey, "SEG401", "train", np.flatnonzero(train == 0).tolist(), remedy)
    for split in ("val", "test"):
        here = survey.class_pixels(split)
        if here.any() and _all_known(survey, split):
            absent = np.flatnonzero((here == 0) & (train > 0)).tolist()
            excused = [index for index in absent if split == "test" or _is_scarce(survey, index)]
            remedy = "their scores are null there; another split may hold them"
            yield from _absent(survey, "SEG402", split, [index for index in absent if index not in excused], remedy)
            yield from _absent(survey, "SEG402", split, excused, remedy, "note")


def _all_known(survey: Survey, split: str) -> bool:
    """Whether no mask of a split has values of no class, which may be those of a class that seems absent."""
    return not any(use.unknown for use in survey.uses_of(split))


def _is_scarce(survey: Survey, index: int) -> bool:
    """Whether a split by chance cannot be blamed: few images have the class, or few validate."""
    having = sum(bool(use.pixels[index]) for use in survey.uses_of("train"))
    return survey.data.val is None and (having < SCARCE or len(survey.records["val"]) < FEW_PAIRS)


def _absent(
    survey: Survey, code: str, split: str, absent: list[int], remedy: str, severity: Severity = "warning"
) -> Iterator[Finding]:
    if absent:
        names = [shown(survey.labels.names[index]) for index in absent]
        what = num(absent, "class", "classes")
        verb = "occurs" if len(absent) == 1 else "occur"
        message = f"{what} never {verb} in the {split} masks: {first_of(names, MOST_NAMED)}"
        files, alone = _holders(survey, absent)
        example = f"{names[0]}: 0 pixels in {split}{alone}"
        yield Finding(code, severity, message, len(absent), files, example, remedy)


def _holders(survey: Survey, classes: list[int]) -> tuple[tuple[str, ...], str]:
    """Returns the few masks that alone hold one of these classes, as slips do, and a clause of the first class."""
    most = max(1, round(len(survey.uses) * HELD_BY_FEW)) if len(survey.uses) >= SLIP_MASKS else 0
    holders = {index: [path for path, use in survey.uses.items() if use.pixels[index]] for index in classes}
    few = {index: paths for index, paths in holders.items() if len(paths) <= most}
    alone = ""
    if paths := few.get(classes[0]):
        others = f" and {num(paths[1:], 'other')}" if paths[1:] else ""
        alone = f", and all that there are in {survey.name(paths[0])}{others}"
    return few_names(survey, list(dict.fromkeys(path for paths in few.values() for path in paths))), alone


@a_check
def classes_not_rare(survey: Survey) -> Iterator[Finding]:
    """SEG403: classes that cover hardly anything of the training masks."""
    train = survey.class_pixels("train")
    shares = train / max(1, int(train.sum()))
    rare = [index for index in np.argsort(shares, kind="stable").tolist() if 0 < shares[index] < RARE_SHARE]
    if rare:
        parts = [f"{shown(survey.labels.names[index])} {100 * shares[index]:.2g} %" for index in rare]
        files, alone = _holders(survey, rare)
        yield Finding(
            "SEG403",
            "note",
            f"{num(rare, 'class', 'classes')} under 0.1 % of the training pixels: {first_of(parts, MOST_NAMED)}",
            len(rare),
            files,
            f"{shown(survey.labels.names[rare[0]])}: {num(int(train[rare[0]]), 'pixel')}{alone}",
            "class_weights of the cross_entropy loss and a dice loss help; more such images help most",
        )


# ------------------------------------------------------------------------------------------------- 5 splits


@a_check
def stems_apart(survey: Survey) -> Iterator[Finding]:
    """SEG502: one name in two splits with different pictures, unless it is a number, and numbers start again."""
    pictures: dict[str, dict[str, str]] = defaultdict(dict)
    for split, records in survey.records.items():
        for record in records:
            pictures[record.stem][split] = survey.images[record.image].digest
    forms: dict[str, list[str]] = defaultdict(list)
    for stem in pictures:
        forms[_form(stem)].append(stem)
    shared = []
    for stems in forms.values():
        twice = [stem for stem in stems if len(set(pictures[stem].values())) > 1]
        numbered = Counter(split for stem in stems for split in pictures[stem])
        fewest = min((numbered[split] for stem in twice for split in pictures[stem]), default=0)
        if len(stems) < NUMBERED or len(twice) < AGAIN * fewest:
            shared += twice
    if shared:
        splits = " and ".join(pictures[shared[0]])
        yield Finding(
            "SEG502",
            "note",
            f"{num(shared, 'name')} in two splits, with different pictures",
            len(shared),
            tuple(shown(stem) for stem in shared[:NAMED]),
            f"{shown(shared[0])} is in {splits}",
            "nothing, where numbering starts again in each split; else see that no scene is in both",
        )


@a_check
def splits_alike(survey: Survey) -> Iterator[Finding]:
    """SEG507: classes in both splits that fill another share of the pictures of one than of the training's."""
    train = _shares(survey, "train")
    for split in ("val", "test"):
        here = _shares(survey, split)
        rows = [(index, *_apart(train[:, index], here[:, index])) for index in range(survey.labels.num_classes)]
        apart = [(index, before, now) for index, differs, before, now in rows if differs]
        if apart:
            parts = [
                f"{shown(survey.labels.names[index])} {share_text(before)} in train, {share_text(now)} in {split}"
                for index, before, now in apart
            ]
            yield Finding(
                "SEG507",
                "note",
                f"{split} differs from train in {num(apart, 'class', 'classes')}: {'; '.join(parts[:4])}",
                len(apart),
                (),
                f"{shown(survey.labels.names[apart[0][0]])}: mean share of a picture {share_text(apart[0][1])} in "
                f"train, {share_text(apart[0][2])} in {split}",
                f"see that {split} shows what the network is meant for: its score tells little of other pictures",
            )


def _shares(survey: Survey, split: str) -> np.ndarray:
    """Returns the share of each class in each mask of a split, N K, without masks that are ignored as a whole."""
    pixels = [use.pixels for use in survey.uses_of(split) if use.pixels.any()]
    counts = np.array(pixels, float).reshape(-1, survey.labels.num_classes)
    return counts / counts.sum(axis=1, keepdims=True)


def _apart(one: np.ndarray, other: np.ndarray) -> tuple[bool, float, float]:
    """Whether the shares of a class are of clearly different distributions, and their means."""
    if not len(one) or not len(other):
        return False, 0.0, 0.0
    every = np.concatenate([one, other])
    below = [np.searchsorted(np.sort(part), every, side="right") / len(part) for part in (one, other)]
    distance = float(np.abs(below[0] - below[1]).max())
    sure = distance * (len(one) * len(other) / len(every)) ** 0.5 >= APART_SURE
    before, now = float(one.mean()), float(other.mean())
    rare, often = sorted((before, now))
    matters = often - rare >= APART_SHARE or (often >= RARE_SHARE and often >= APART_FACTOR * rare)
    return rare > 0 and distance >= APART and sure and matters, before, now


def _form(stem: str) -> str:
    return re.sub("[0-9]+", "0", stem)


@a_check
def enough_pairs(survey: Survey) -> Iterator[Finding]:
    """SEG503: too few training pairs to learn from."""
    count = len(survey.records.get("train", ()))
    if 0 < count < FEW_PAIRS:
        message = f"{num(count, 'training pair')}: too few for a network that works on other images"
        yield Finding(
            "SEG503",
            "warning",
            message,
            count,
            (),
            f"train: {num(count, 'pair')}",
            "label more images, or hold out fewer",
        )


# ------------------------------------------------------------------------------------------------- 6 settings


@a_check
def crop_fits(survey: Survey) -> Iterator[Finding]:
    """SEG601: a training crop larger than the training images, by more than their rounding up to 32."""
    crop = survey.augment.crop
    if crop is None:
        return
    facts = [survey.images[record.image] for record in survey.records.get("train", ())]
    sizes = {image.path: image.size for image in facts if not image.error}
    small = [path for path, size in sizes.items() if any(crop[axis] > -(-size[axis] // 32) * 32 for axis in (0, 1))]
    if len(small) * 2 > len(sizes):
        yield Finding(
            "SEG601",
            "note",
            f"augment.crop {size_text(crop)} is larger than {len(small)} of {num(sizes, 'training image')}",
            *counted(survey, small),
            f"{survey.name(small[0])}: {size_text(sizes[small[0]])}",
            "a smaller crop: what lies outside of an image is ignored, and costs time",
        )


@a_check
def jpeg_holds_the_bits(survey: Survey) -> Iterator[Finding]:
    """SEG602: JPEG artefacts asked for in images of 16 bits a pixel, which no JPEG file holds."""
    if survey.augment.jpeg is None:
        return
    facts = [survey.images[record.image] for record in survey.records.get("train", ())]
    deep = [image.path for image in facts if image.deep]
    if deep:
        yield Finding(
            "SEG602",
            "error",
            f"augment.jpeg is given, but {num(deep, 'training image')} of {len(facts)} have 16 bits a pixel",
            *counted(survey, deep),
            f"{survey.name(deep[0])}: 16 bits a sample, which no JPEG file holds",
            "set augment.jpeg: null, or train on 8-bit copies",
        )


@a_check
def predictions_can_be_written(survey: Survey) -> Iterator[Finding]:
    """SEG603: classes whose first value no mask of a prediction can hold, such as one above 65535."""
    records = survey.records.get("train", ())
    first = next((survey.masks[record.mask] for record in records if record.mask in survey.uses), None)
    if first is None:
        return
    try:
        resolve(survey.data, first.stored(first.values))
    except ConfigError as error:
        told, _, remedy = error.problems[0].partition("; ")
        yield Finding(
            "SEG603",
            "error",
            "the classes cannot be written as the training masks are, with their first values",
            len(error.problems),
            (),
            told,
            remedy,
        )
