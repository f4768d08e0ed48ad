"""Checks that compare pictures with each other. To add one, write it below the decorator."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from segtool.check.copies import Part, likely_parts, look_again
from segtool.check.findings import Finding, a_check, counted, few_names, num, share_text
from segtool.check.likeness import looks_of, near_duplicates
from segtool.check.survey import Pair, Survey, read_pair
from segtool.data.facts import ImageFacts, MaskFacts
from segtool.data.images import read_image
from segtool.errors import DataError
from segtool.system.pools import in_threads

LOOKED_AT = 24  # pairs of pictures that are read again to see whether they are copies
MOST_PIXELS = 40_000_000  # of all of them, where an eighth of all pictures is less
COMPARED = 20  # pairs of masks that are read again to see where they disagree
HARDLY = 0.05  # of the edges of an image lie apart from those of its mask: a mask in its place
SOME = 0.25  # of the pairs: more are what the set is made of
MOST_FLAT = 256  # of them that are read again
ENOUGH = 256  # rows and columns of each
NEAR, STEPS = 16, 8  # by which JPEG moves a channel at most, and the part of the way between two colours
NEARLY_ALL = 0.8  # of the pixels of each class, but for those less than APART from its edges
APART = 3
SECOND = 0.05  # least share of the second class, where colours vary: a white sky with the tip of a roof has one as well
AT_ONCE = 4096  # small maps that lie in memory together
SLIP = 1e-3  # share of pixels up to which two masks of one picture are taken to agree


@a_check
def images_show_something(survey: Survey) -> Iterator[Finding]:
    """SEG208: images of one constant colour, with a mask that tells several classes or with one that does not."""
    plain = [(image, mask) for image, mask in survey.readable_pairs if image.plain]
    for several in (True, False):
        found = [image for image, mask in plain if several == ((survey.uses[mask.path].pixels > 0).sum() > 1)]
        if found:
            yield Finding(
                "SEG208",
                "warning" if several else "note",
                f"{num(found, 'image')} of one constant colour"
                + (", with several classes in the mask" if several else ""),
                *counted(survey, [image.path for image in found]),
                f"{survey.name(found[0].path)}: all pixels are equal",
                "export these images again, or take them out with their masks"
                if several
                else "take them out, unless pictures without content are to be known as such",
            )


@a_check
def images_are_no_masks(survey: Survey) -> Iterator[Finding]:
    """SEG211: images that hold nothing but the areas of their mask, in a set of pictures that hold more.

    Those are read again of which hardly any edge lies apart from the edges of the mask.
    """
    pairs = survey.fitting_pairs
    apart = zip(pairs, _shares_apart(pairs), strict=True)
    flat = [pair for pair, share in apart if share < HARDLY][:MOST_FLAT]
    many = np.cumsum([image.size[0] * image.size[1] for image, _ in flat]) <= MOST_PIXELS
    looked_at = flat[: max(LOOKED_AT, int(many.sum()))]
    drawn = in_threads(lambda pair: _is_drawn_of(survey, *pair), looked_at)
    found = [image for (image, _), is_drawn in zip(looked_at, drawn, strict=True) if is_drawn]
    if found and len(found) <= SOME * len(pairs):
        first = survey.name(found[0].path)
        yield Finding(
            "SEG211",
            "warning",
            f"{num(found, 'image')} with nothing but the areas of the mask",
            *counted(survey, [image.path for image in found]),
            f"{first}: each class of its mask has one colour, as where the mask was saved in the place of the image",
            "put the pictures back in their places, or take them out with their masks",
        )


def _shares_apart(pairs: Sequence[Pair]) -> Iterator[float]:
    """Yields how much of the edges of each image lies apart from those of its mask; 1 where the mask has none."""
    for start in range(0, len(pairs), AT_ONCE):
        some = pairs[start : start + AT_ONCE]
        padded = np.pad(np.stack([mask.outline for _, mask in some]) > 0, ((0, 0), (1, 1), (1, 1)))
        height, width = padded.shape[1] - 2, padded.shape[2] - 2
        shifts = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
        near = np.logical_or.reduce(shifts)
        energy = np.stack([image.edges for image, _ in some]).astype(np.float32) ** 2
        whole, apart = energy.sum((1, 2)), np.where(near, 0, energy).sum((1, 2))
        yield from np.where(near.any((1, 2)), apart / np.maximum(whole, 1), 1).tolist()


def _is_drawn_of(survey: Survey, image: ImageFacts, mask: MaskFacts) -> bool:
    """Whether each class has one colour of its own in an image, but for what JPEG adds, mostly near edges.

    Areas that are black, white or flat in a photograph have one too, so several classes must be large, or exact. Where
    all but one are too thin to have pixels far from edges, such as scratches, all pixels must be exact.
    """
    read = read_pair(survey, image, mask, channels=image.channels)
    if read is None:
        return False
    picture, classes = read
    inside = _far_from_edges(classes)
    if is_thin := len(np.unique(classes[inside])) < 2:
        inside[:] = True
    step = max(1, min(image.size) // ENOUGH)
    picture, classes = picture[::step, ::step][inside[::step, ::step]], classes[::step, ::step][inside[::step, ::step]]
    present = np.unique(classes)
    if len(present) < 2:
        return False
    colors = np.array([np.median(picture[classes == index], axis=0) for index in present])
    moved = np.abs(picture - colors[np.searchsorted(present, classes)]).max(1)
    apart = np.ptp(colors, axis=0).max()
    near = moved <= min(NEAR, apart / STEPS)
    second = np.sort(np.bincount(classes))[-2] / classes.size
    if moved.any() and (is_thin or second < SECOND):
        return False
    return bool(apart and min(near[classes == index].mean() for index in present) >= NEARLY_ALL)


def _far_from_edges(classes: np.ndarray) -> np.ndarray:
    """Returns which pixels have the class of those a few pixels on, in their row and in their column."""
    inside = np.ones(classes.shape, bool)
    for one, other in ((np.s_[:, APART:], np.s_[:, :-APART]), (np.s_[APART:], np.s_[:-APART])):
        differ = classes[one] != classes[other]
        inside[one] &= ~differ
        inside[other] &= ~differ
    return inside


# ------------------------------------------------------------------------------------------------- 3 masks


@a_check
def equal_pictures_agree(survey: Survey) -> Iterator[Finding]:
    """SEG307: pictures that stand more than once, with masks that disagree."""
    twice: dict[str, dict[Path, Pair]] = defaultdict(dict)
    for image, mask in survey.fitting_pairs:
        if not image.plain:
            twice[image.digest][mask.path] = image, mask
    doubtful = [
        (one, other)
        for pairs in twice.values()
        for one, other in combinations(list(pairs.values())[:5], 2)
        if one[1].digest != other[1].digest
    ]
    found = []
    for one, other in doubtful[:COMPARED]:
        share, place = _disagreement(survey, one[1], other[1])
        if share > SLIP:
            found.append((one, other, share, place))
    if found:
        one, other, share, place = found[0]
        pictures = {known[0].digest for known, *_ in found}
        yield Finding(
            "SEG307",
            "warning",
            f"{num(pictures, 'picture')} that {'stands' if len(pictures) == 1 else 'stand'} more than once, with masks "
            "that disagree",
            len(pictures),
            few_names(survey, dict.fromkeys(pair[1].path for row in found for pair in row[:2])),
            f"{survey.name(one[1].path)} and {survey.name(other[1].path)} differ in {share_text(share)} of the pixels, "
            f"first at {place}; {survey.name(one[0].path)} = {survey.name(other[0].path)}",
            "keep the mask that is right, and each picture once",
        )


def _disagreement(survey: Survey, one: MaskFacts, other: MaskFacts) -> tuple[float, tuple[int, int]]:
    """Returns the share of pixels in which two masks mean different things, and the first as (x, y)."""
    try:
        limit = survey.limits.max_pixels
        first, second = (survey.labels.read(mask.path, max_pixels=limit) for mask in (one, other))
    except DataError:  # told elsewhere
        return 0.0, (0, 0)
    differing = first != second
    place = int(differing.argmax())
    return float(differing.mean()), (place % differing.shape[1], place // differing.shape[1])


# ------------------------------------------------------------------------------------------------- 5 splits


@a_check
def splits_apart(survey: Survey) -> Iterator[Finding]:
    """SEG501: the same picture in two splits, so that a score tells what was learned by heart; SEG504: as one file."""
    files: dict[Path, list[str]] = defaultdict(list)
    pictures: dict[str, dict[str, Path]] = defaultdict(dict)
    for split, records in survey.records.items():
        for path in dict.fromkeys(record.image for record in records):
            files[path].append(split)
            facts = survey.images[path]
            if not facts.error and not facts.plain:
                pictures[facts.digest].setdefault(split, path)
    shared = [path for path, splits in files.items() if len(splits) > 1]
    leaks = [places for places in pictures.values() if len(set(places.values())) > 1]
    if shared:
        yield Finding(
            "SEG504",
            "warning",
            f"{num(shared, 'image')} in two splits",
            *counted(survey, shared),
            f"{survey.name(shared[0])} is in {' and in '.join(files[shared[0]])}",
            "take them out of all splits but one: scores on known pictures are too high",
        )
    if leaks:
        yield Finding(
            "SEG501",
            "warning",
            f"{num(leaks, 'picture')} in two splits, equal in every pixel",
            len(leaks),
            few_names(survey, [path for places in leaks for path in places.values()]),
            " = ".join(f"{survey.name(path)} ({split})" for split, path in leaks[0].items()),
            "remove them from all splits but one: scores on known pictures are too high",
        )


@a_check
def pictures_apart(survey: Survey) -> Iterator[Finding]:
    """SEG506: nearly the same picture in two splits: a scaled, cropped or mirrored copy, the next frame of a video.

    Of pictures of a split that are equal in every pixel the first stands for all.
    """
    rows: list[tuple[str, ImageFacts]] = []
    for split, records in survey.records.items():
        firsts: dict[str, ImageFacts] = {}
        for record in records:
            image = survey.images[record.image]
            if not image.error:
                firsts.setdefault(image.digest, image)
        rows += [(split, image) for image in firsts.values()]
    splits = np.array([split for split, _ in rows])
    if len(set(splits.tolist())) < 2:
        return
    images = [image for _, image in rows]
    upright, turned = looks_of(images), looks_of(images, turned=True)
    near, mirrored = [], []  # places, that of the known picture first, as those of later splits are higher
    groups = [np.flatnonzero(splits == split) for split in dict.fromkeys(splits.tolist())]
    for two in combinations(groups, 2):
        near += [Part(*pair, alike=upright.alike(*pair)) for pair in near_duplicates(upright, *two).tolist()]
        mirrored += [tuple(pair) for pair in near_duplicates(turned, *two).tolist()]
    found: dict[int, tuple[int, str]] = {}  # the held out, what it is like, and how

    def enter(pairs: Iterable[tuple[int, int]], how: str) -> None:
        for known, held in pairs:
            if images[known].digest != images[held].digest:
                found.setdefault(held, (known, how))

    def is_near(part: Part, known: np.ndarray, held: np.ndarray) -> bool:
        among = np.flatnonzero(splits == splits[part.whole])
        order = among[np.argsort(upright.thumbnails[among] @ upright.thumbnails[part.part])]
        usual = _read(survey, images[order[len(order) // 2]])
        return usual is None or look_again(known, held).is_nearer(look_again(usual, held))

    def is_cut_out(part: Part, whole: np.ndarray, cut: np.ndarray) -> bool:
        return look_again(whole, part.turned(cut), part.box).is_copy

    enter(_looked_at(survey, images, near, is_near), "")
    enter(mirrored, ", mirrored or turned")
    for lying, how in ((False, ""), (True, ", mirrored or turned")):
        likely = likely_parts(images, upright.usable, groups, turned=lying)
        unknown = [part for part in likely if max(part.whole, part.part) not in found]
        cut = [part for part in unknown if part.lacks_margins]
        enter(_looked_at(survey, images, [part for part in unknown if not part.lacks_margins], is_cut_out), how)
        enter(_looked_at(survey, images, cut, is_cut_out), f"{how}, but for margins that were cut off")
    if found:
        held, (known, how) = next(iter(found.items()))
        yield Finding(
            "SEG506",
            "warning",
            f"{num(found, 'picture')} nearly the same as one of another split",
            len(found),
            few_names(survey, [images[place].path for held, (known, _) in found.items() for place in (held, known)]),
            f"{survey.name(images[held].path)} ({splits[held]}) is almost {survey.name(images[known].path)} "
            f"({splits[known]}){how}",
            "keep copies and neighbouring frames of a video in one split (data.split.group does it by name): scores on "
            "what is nearly known are too high",
        )


def _looked_at(
    survey: Survey,
    images: Sequence[ImageFacts],
    parts: Iterable[Part],
    holds: Callable[[Part, np.ndarray, np.ndarray], bool],
) -> list[tuple[int, int]]:
    """Returns the pairs of places for which a closer look holds, of each picture that is held out the most alike one.

    So many as may be read again are; the others are taken as most of these are.
    """
    of_held: dict[int, Part] = {}
    for part in sorted(parts, key=lambda part: -part.alike):
        of_held.setdefault(max(part[:2]), part)
    pixels = [image.size[0] * image.size[1] for image in images]
    left, chosen = max(MOST_PIXELS, sum(pixels) // 8), []
    for part in of_held.values():
        left -= pixels[part.whole] + pixels[part.part]
        if chosen and (left < 0 or len(chosen) == LOOKED_AT):
            break
        chosen.append(part)

    def look(part: Part) -> bool:
        whole, cut = (_read(survey, images[place]) for place in (part.whole, part.part))
        return whole is not None and cut is not None and holds(part, whole, cut)

    told = [part for part, held in zip(chosen, in_threads(look, chosen), strict=True) if held]
    if 2 * len(told) > len(chosen):
        told += list(of_held.values())[len(chosen) :]
    return [(min(part[:2]), max(part[:2])) for part in told]


def _read(survey: Survey, image: ImageFacts) -> np.ndarray | None:
    """Returns an image upright, as its thumbnail is."""
    try:
        return read_image(image.path, channels=image.channels, max_pixels=survey.limits.max_pixels)
    except DataError:  # changed since the pass
        return None


@a_check
def pictures_once(survey: Survey) -> Iterator[Finding]:
    """SEG505: the same picture twice in one split, with masks that agree."""
    where: dict[tuple[str, str, str], list[Path]] = defaultdict(list)
    for split, records in survey.records.items():
        for record in {record.image: record for record in records}.values():
            image, mask = survey.images[record.image], survey.masks[record.truth]
            if not image.error and not image.plain:
                where[split, image.digest, mask.digest].append(record.image)
    twins = [paths for paths in where.values() if len(paths) > 1]
    if twins:
        yield Finding(
            "SEG505",
            "note",
            f"{num(twins, 'picture')} more than once in one split, equal in every pixel",
            len(twins),
            few_names(survey, [path for paths in twins for path in paths]),
            " = ".join(survey.name(path) for path in twins[0][:5]),
            "keep one of each, unless they are meant to count more",
        )
