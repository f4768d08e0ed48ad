"""Checks of what the files hold: mask values, classes, splits, and the settings that depend on them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segtool.check.findings import SHOWN_FILES, Finding, Severity, a_check, few_names, num, percent, size_text
from segtool.check.survey import Survey
from segtool.data.codes import pack
from segtool.data.facts import MaskFacts
from segtool.data.masks import read_mask
from segtool.data.opening import shown
from segtool.data.specks import SPECK_PIXELS
from segtool.errors import DataError

FEW_PAIRS = 5
RARE_SHARE = 1e-3
NUMBERED = 3  # names that differ in their digits alone, from which on they are numbers
SCARCE = 3  # images with a class, below which no split by chance can be blamed
NOISE_SPECKS = 20  # of a mask, from which on they may be noise
NOISE_CLASSES = 2  # that have specks in each other, where they are no small objects of one class
NOISE_FEW = 0.1  # share of the masks, up to which specks of one class are no small objects, if others have none
NOISE_EDGE = 0.1  # specks for each pixel at an edge; in CamVid, with poles of one pixel, up to 0.04
APART = 0.75  # greatest distance of two cumulative distributions (Kolmogorov, Smirnov)
APART_SURE = 1.8  # of it, times the root of n m / (n + m): one in a thousand by chance
APART_SHARE = 0.15  # difference of the mean shares that matters
APART_FACTOR = 3  # or their ratio, for a class of a thousandth of the pixels and more

# ------------------------------------------------------------------------------------------------- 3 mask values


@a_check
def kind_fits(survey: Survey) -> Iterator[Finding]:
    """SEG301: masks of a kind that the encoding does not read, such as RGB with `index`, or JPEG."""
    wrong = [(path, use.error) for path, use in survey.uses.items() if use.error]
    if wrong:
        path, error = wrong[0]
        yield Finding(
            "SEG301",
            "error",
            f"{num(wrong, 'mask')} cannot be read with data.encoding: {survey.data.encoding}",
            len(wrong),
            few_names(survey, [path for path, _ in wrong]),
            f"{survey.name(path)}: {error.partition('; ')[0]}",
            _kind_remedy(survey, survey.masks[path]),
        )


def _kind_remedy(survey: Survey, mask: MaskFacts) -> str:
    if mask.lossy:
        return "export the masks as PNG; or let `segtool init` write a config that takes the nearest class"
    if mask.colored:
        return "set data.encoding to rgb and give each class its colors; `segtool init` writes them"
    return "set data.encoding to index and give each class its values; `segtool init` writes them"


@a_check
def values_known(survey: Survey) -> Iterator[Finding]:
    """SEG302: stored values or colours that no class and no `ignore` lists."""
    pixels: Counter[int] = Counter()
    files: dict[int, list[Path]] = defaultdict(list)
    for path, use in survey.uses.items():
        for value, count in use.unknown.items():
            pixels[value] += count
            files[value].append(path)
    if not pixels:
        return
    concerned = [path for path, use in survey.uses.items() if use.unknown]
    colored = survey.data.encoding in ("rgb", "palette")
    value, _ = pixels.most_common(1)[0]
    path = files[value][0]
    count = num(survey.uses[path].unknown[value], "pixel")
    yield Finding(
        "SEG302",
        "error",
        f"{num(concerned, 'mask')} with {'colours' if colored else 'values'} that are no class: "
        + _table(survey, pixels, files, colored),
        len(concerned),
        few_names(survey, concerned),
        f"{survey.name(path)}: {_value(value, colored)} at {_first_pixel(survey, path, value)}, {count} in this file",
        _value_remedy(survey, pixels, colored),
    )


def _table(survey: Survey, pixels: Counter[int], files: dict[int, list[Path]], colored: bool) -> str:
    rows = [
        f"{_value(value, colored)} ({num(count, 'pixel')} in {num(files[value], 'file')}, "
        f"{'first ' if len(files[value]) > 1 else ''}{survey.name(files[value][0])})"
        for value, count in pixels.most_common(8)
    ]
    return ", ".join(rows) + (f" and {len(pixels) - 8} more" if len(pixels) > 8 else "")


def _value(value: int, colored: bool) -> str:
    if colored and value < 0:
        return f"palette index {-1 - value}, which has no colour,"
    return f"#{value:06x}" if colored else str(value)


def _first_pixel(survey: Survey, path: Path, value: int) -> str:
    """Returns where the value first stands, as `(x, y)`; the file is read once more for it."""
    try:
        stored = read_mask(path, max_pixels=survey.limits.max_pixels)
    except DataError:  # changed since the pass
        return "(?, ?)"
    _, place = survey.labels.unknown(stored).get(value, (0, ("?", "?")))
    return f"({place[0]}, {place[1]})"


def _value_remedy(survey: Survey, pixels: Counter[int], colored: bool) -> str:
    if colored:
        close = len(pixels) > 16
        near = "; or set data.nearest: true, which takes each colour as the nearest class" if close else ""
        return f"add a class with the colour, or put it in data.ignore{near}"
    of_masks = [set(mask.values.tolist()) for mask in survey.masks.values()]
    known = set().union(*of_masks)
    if known == {0, 255}:
        return "the masks are 0/255: give the second class `values: [255]`"
    if known == {0, 1, 255} and set(pixels) == {255} and not any({1, 255} <= values for values in of_masks):
        return (
            "masks of 0 and 255 beside others of 0 and 1: give the second class `values: [1, 255]`; or put 255 in "
            "data.ignore, where it marks what nobody labelled"
        )
    if set(pixels) == {255}:
        return "255 often marks what nobody labelled: put it in data.ignore, or add a class with `values: [255]`"
    if len(pixels) > 64 and max(pixels) > 255:
        return "these look like instance ids: give the object class a range, `values: [1..65535]`"
    if len(pixels) > 16:
        return (
            "many stray values: soft edges or lossy compression need data.encoding: threshold; instance ids a range, "
            "`values: [1..255]`"
        )
    return "add a class with the value, or put it in data.ignore"


@a_check
def masks_lossless(survey: Survey) -> Iterator[Finding]:
    """SEG303: JPEG masks under an encoding that takes what is near (others refuse them, SEG301)."""
    lossy = [path for path, mask in survey.masks.items() if mask.lossy and not survey.uses[path].error]
    if lossy:
        yield Finding(
            "SEG303",
            "note",
            f"{num(lossy, 'mask')} stored as JPEG, which is lossy: pixels near edges may count for a wrong class",
            len(lossy),
            few_names(survey, lossy),
            f"{survey.name(lossy[0])}: {len(survey.masks[lossy[0]].values)} distinct values",
            "export the masks as PNG where the originals exist",
        )


@a_check
def masks_tell_something(survey: Survey) -> Iterator[Finding]:
    """SEG304, SEG305: masks that are ignored as a whole, or hold one class only."""
    ignored = [path for path, use in survey.uses.items() if use.ignored and not use.pixels.any() and not use.unknown]
    if ignored:
        yield Finding(
            "SEG304",
            "warning",
            f"{num(ignored, 'mask')} ignored in every pixel",
            len(ignored),
            few_names(survey, ignored),
            f"{survey.name(ignored[0])}: all of its {survey.uses[ignored[0]].ignored} pixels are in data.ignore",
            "label these images or take them out: they teach nothing",
        )
    blank = [path for path, use in survey.uses.items() if (use.pixels > 0).sum() == 1 and not use.unknown]
    if blank:
        only = survey.labels.names[int(survey.uses[blank[0]].pixels.argmax())]
        yield Finding(
            "SEG305",
            "note",
            f"{num(blank, 'mask')} of {len(survey.uses)} with one class only",
            len(blank),
            few_names(survey, blank),
            f"{survey.name(blank[0])}: nothing but {shown(only)}",
            "nothing, where these images really show nothing else",
        )


@a_check
def palettes_agree(survey: Survey) -> Iterator[Finding]:
    """SEG306: palette masks that are read by index, while a colour stands at another index in some of them."""
    if survey.data.encoding != "index":
        return
    where: dict[int, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for mask in survey.masks.values():
        for color, index in _used_colors(mask).items():
            where[color][index].append(mask.path)
    torn = {color: places for color, places in where.items() if len(places) > 1}
    if torn:
        color, places = max(torn.items(), key=lambda item: sum(map(len, item[1].values())))
        usual = max(places, key=lambda index: len(places[index]))
        odd = [path for index, paths in places.items() if index != usual for path in paths]
        other = next(index for index in places if index != usual)
        yield Finding(
            "SEG306",
            "warning",
            f"{num(torn, 'colour')} at different indices in different palettes: one index may mean different classes",
            len(odd),
            few_names(survey, odd),
            f"#{color:06x} is index {other} in {survey.name(places[other][0])}, but {usual} in "
            f"{survey.name(places[usual][0])}",
            "set data.encoding to palette, and give each class its colors; `segtool init` writes them",
        )


def _used_colors(mask: MaskFacts) -> dict[int, int]:
    """Returns the index of each colour that a palette mask shows, without those that it has at several indices."""
    if mask.error or mask.mode != "P" or not mask.palette:
        return {}
    colors = pack(np.frombuffer(mask.palette, np.uint8).reshape(-1, 3)).tolist()
    used = [(colors[index], index) for index in mask.values.tolist() if index < len(colors)]
    often = Counter(color for color, _ in used)
    return {color: index for color, index in used if often[color] == 1}


@a_check
def masks_without_specks(survey: Survey) -> Iterator[Finding]:
    """SEG308: masks strewn with regions of a few pixels: label noise."""
    if survey.data.nearest or survey.data.encoding not in ("index", "rgb"):
        return
    read = [survey.masks[path] for path, use in survey.uses.items() if not use.error and not use.unknown]
    noisy = [mask for mask in read if _is_strewn(mask) and np.sort(mask.specks)[-NOISE_CLASSES] >= NOISE_SPECKS / 2]
    noisy = noisy or _strewn_alone(read)
    if noisy:
        mask = noisy[0]
        yield Finding(
            "SEG308",
            "warning",
            f"{num(noisy, 'mask')} of {len(survey.uses)} strewn with tiny regions, as of label noise",
            len(noisy),
            few_names(survey, [mask.path for mask in noisy]),
            f"{survey.name(mask.path)}: {int(mask.specks.sum())} regions of up to {SPECK_PIXELS} pixels, of "
            f"{num(int((mask.specks > 0).sum()), 'value')}",
            "look at these masks; a median filter or an export without scaling may mend them",
        )


def _is_strewn(mask: MaskFacts) -> bool:
    """Whether a mask has many specks, for the length of the edges in it; they may be small objects of one class."""
    if len(mask.specks) < NOISE_CLASSES or mask.specks.sum() < NOISE_SPECKS:
        return False
    return float(mask.specks.sum()) >= NOISE_EDGE * float(mask.outline.mean()) / 255 * mask.size[0] * mask.size[1]


def _strewn_alone(masks: list[MaskFacts]) -> list[MaskFacts]:
    """Returns the masks that are strewn, where they are few and hardly any other has a speck."""
    strewn = [mask for mask in masks if _is_strewn(mask) and mask.specks.sum() >= 2 * NOISE_SPECKS]
    if not strewn or len(strewn) > NOISE_FEW * len(masks):
        return []
    others = [int(mask.specks.sum()) for mask in masks if not _is_strewn(mask)]
    return strewn if sum(count > 0 for count in others) <= NOISE_FEW / 2 * len(masks) else []


# ------------------------------------------------------------------------------------------------- 4 classes


@a_check
def classes_occur(survey: Survey) -> Iterator[Finding]:
    """SEG401, SEG402: classes that never occur in the training, validation or test masks."""
    train = survey.class_pixels("train")
    if train.any():
        absent = [name for name, pixels in zip(survey.labels.names, train, strict=True) if not pixels]
        yield from _absent(
            "SEG401", "train", absent, "the network cannot learn them; label some, or remove the classes"
        )
    for split in ("val", "test"):
        here = survey.class_pixels(split)
        if here.any():
            rows = zip(survey.labels.names, here, train, strict=True)
            absent = [name for name, pixels, taught in rows if taught and not pixels]
            excused = [name for name in absent if split == "test" or _is_scarce(survey, name)]
            remedy = "their scores are null there; another split may hold them"
            yield from _absent("SEG402", split, [name for name in absent if name not in excused], remedy)
            yield from _absent("SEG402", split, excused, remedy, "note")


def _is_scarce(survey: Survey, name: str) -> bool:
    """Whether a split by chance cannot be blamed: few images have the class, or few validate."""
    index = survey.labels.names.index(name)
    having = sum(bool(use.pixels[index]) for use in survey.uses_of("train"))
    return survey.data.val is None and (having < SCARCE or len(survey.records["val"]) < FEW_PAIRS)


def _absent(code: str, split: str, absent: list[str], remedy: str, severity: Severity = "warning") -> Iterator[Finding]:
    if absent:
        listed = ", ".join(shown(name) for name in absent[:8]) + (", …" if len(absent) > 8 else "")
        what = num(absent, "class", "classes")
        verb = "occurs" if len(absent) == 1 else "occur"
        message = f"{what} never {verb} in the {split} masks: {listed}"
        yield Finding(code, severity, message, len(absent), (), f"{shown(absent[0])}: 0 pixels in {split}", remedy)


@a_check
def classes_not_rare(survey: Survey) -> Iterator[Finding]:
    """SEG403: classes that cover hardly anything of the training masks."""
    train = survey.class_pixels("train")
    shares = train / max(1, int(train.sum()))
    rare = [index for index in range(len(shares)) if 0 < shares[index] < RARE_SHARE]
    if rare:
        parts = [f"{shown(survey.labels.names[index])} {100 * shares[index]:.2g} %" for index in rare]
        yield Finding(
            "SEG403",
            "note",
            f"{num(rare, 'class', 'classes')} under 0.1 % of the training pixels: {', '.join(parts[:8])}",
            len(rare),
            (),
            f"{shown(survey.labels.names[rare[0]])}: {int(train[rare[0]])} pixels",
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
    forms = Counter(map(_form, pictures))
    shared = [
        stem
        for stem, seen in pictures.items()
        if len(set(seen.values())) > 1 and (not re.search("[0-9]", stem) or forms[_form(stem)] < NUMBERED)
    ]
    if shared:
        splits = " and ".join(pictures[shared[0]])
        yield Finding(
            "SEG502",
            "note",
            f"{num(shared, 'name')} in two splits, with different pictures",
            len(shared),
            tuple(shown(stem) for stem in shared[:SHOWN_FILES]),
            f"{shown(shared[0])} is in {splits}",
            "nothing, where numbering starts again in each split; else see that no scene is in both",
        )


@a_check
def splits_alike(survey: Survey) -> Iterator[Finding]:
    """SEG507: classes that fill another share of the pictures of one split than of the training's."""
    train = _shares(survey, "train")
    for split in ("val", "test"):
        here = _shares(survey, split)
        rows = [(index, *_apart(train[:, index], here[:, index])) for index in range(survey.labels.num_classes)]
        apart = [(index, before, now) for index, differs, before, now in rows if differs]
        if apart:
            parts = [
                f"{shown(survey.labels.names[index])} {percent(before)} in train, {percent(now)} in {split}"
                for index, before, now in apart
            ]
            yield Finding(
                "SEG507",
                "note",
                f"{split} differs from train in {num(apart, 'class', 'classes')}: {'; '.join(parts[:4])}",
                len(apart),
                (),
                f"{shown(survey.labels.names[apart[0][0]])}: mean share of a picture {percent(apart[0][1])} in train, "
                f"{percent(apart[0][2])} in {split}",
                f"see that {split} shows what the network is meant for: its score tells little of other pictures",
            )


def _shares(survey: Survey, split: str) -> np.ndarray:
    """Returns the share of each class in each mask of a split, N K, without masks that are ignored as a whole."""
    pixels = [use.pixels for use in survey.uses_of(split) if use.pixels.any()]
    counts = np.array(pixels, float).reshape(-1, survey.labels.num_classes)
    return counts / counts.sum(axis=1, keepdims=True)


def _apart(one: np.ndarray, other: np.ndarray) -> tuple[bool, float, float]:
    """Returns whether the shares of a class are of clearly different distributions, and their means."""
    if not len(one) or not len(other):
        return False, 0.0, 0.0
    every = np.concatenate([one, other])
    below = [np.searchsorted(np.sort(part), every, side="right") / len(part) for part in (one, other)]
    distance = float(np.abs(below[0] - below[1]).max())
    sure = distance * (len(one) * len(other) / len(every)) ** 0.5 >= APART_SURE
    before, now = float(one.mean()), float(other.mean())
    rare, often = sorted((before, now))
    matters = often - rare >= APART_SHARE or (often >= RARE_SHARE and often >= APART_FACTOR * rare)
    return distance >= APART and sure and matters, before, now


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
    facts = [survey.images[record.image] for record in survey.records.get("train", ())]
    sizes = [image.size for image in facts if not image.error]
    if crop is None or not sizes:
        return
    small = [
        image.path
        for image in facts
        if not image.error and any(side > -(-length // 32) * 32 for side, length in zip(crop, image.size, strict=True))
    ]
    if len(small) * 2 > len(sizes):
        yield Finding(
            "SEG601",
            "note",
            f"augment.crop {size_text(crop)} is larger than {len(small)} of {num(sizes, 'training image')}",
            len(small),
            few_names(survey, small),
            f"{survey.name(small[0])}: {size_text(survey.images[small[0]].size)}",
            "a smaller crop: what lies outside of an image is ignored, and costs time",
        )


@a_check
def jpeg_holds_the_bits(survey: Survey) -> Iterator[Finding]:
    """SEG602: JPEG artefacts asked for in images of 16 bits a pixel, which no JPEG file holds."""
    if survey.augment.jpeg is None:
        return
    facts = [survey.images[record.image] for record in survey.records.get("train", ())]
    deep = [image.path for image in facts if image.mode.startswith("I;16")]
    if deep:
        yield Finding(
            "SEG602",
            "error",
            f"augment.jpeg is given, but {num(deep, 'training image')} of {len(facts)} have 16 bits a pixel",
            len(deep),
            few_names(survey, deep),
            f"{survey.name(deep[0])}: mode {survey.images[deep[0]].mode}, which no JPEG file holds",
            "set augment.jpeg: null, or train on 8-bit copies",
        )
