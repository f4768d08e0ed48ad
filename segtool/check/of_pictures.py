"""Checks that compare pictures: masks with images, and images with each other. To add one, write it below the
decorator."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from segtool.check.findings import SHOWN_BROKEN, Finding, a_check, few_names, num, percent
from segtool.check.fit import choose_grid, contrary, own_fits, turned_masks, votes_for_upright, wrong_pairs
from segtool.check.likeness import looks_of, near_duplicates, standing_out
from segtool.check.survey import Survey
from segtool.data.facts import ImageFacts, MaskFacts
from segtool.errors import DataError

Pair = tuple[ImageFacts, MaskFacts]
COMPARED = 20  # pairs of masks that are read again to see where they disagree
COPIED = 0.05  # share of the masks from which on copies are how a set is made, and no mistake
OWN_FIT = 0.15  # by which a mask fits one image better than another where it is that one's
SAME_SCENE = 0.7  # correlation of thumbnails from which on two pictures may have one mask
SLIP = 1e-3  # share of pixels up to which two masks of one picture are taken to agree

# ------------------------------------------------------------------------------------------------- 1 pairs


@a_check
def masks_fit_their_images(survey: Survey) -> Iterator[Finding]:
    """SEG109: masks whose outlines follow the edges of another image, and not those of their own."""
    upright = survey.data.exif == "apply"
    pairs = [(image, mask) for image, mask in _fitting(survey) if upright or image.orientation == 1]
    images, masks = [image for image, _ in pairs], [mask for _, mask in pairs]
    wrong = wrong_pairs(images, masks)
    if wrong:
        mask, fitting, own = masks[wrong[0][0]], images[wrong[0][1]], images[wrong[0][0]]
        yield Finding(
            "SEG109",
            "warning",
            f"{num(wrong, 'mask')} of {len(masks)} fit another image better than their own: is the pairing right?",
            len(wrong),
            few_names(survey, [masks[i].path for i, _ in wrong], SHOWN_BROKEN),
            f"{survey.name(mask.path)} follows the edges of {survey.name(fitting.path)}, not those of "
            f"{survey.name(own.path)}",
            "look at these images and masks together, and give each mask the name of the image that it was drawn on",
        )


def _fitting(survey: Survey) -> list[Pair]:
    """Returns the readable pairs of one size."""
    return [(image, mask) for image, mask in survey.readable_pairs() if image.size == mask.size]


# ------------------------------------------------------------------------------------------------- 2 grids


@a_check
def orientation_right(survey: Survey) -> Iterator[Finding]:
    """SEG205, SEG206: photographs that EXIF turns, where no size tells for which grid their masks were drawn.

    The edges do, for most; where they do not, and no other photograph's size does, that is a note.
    """
    turned = [(image, mask) for image, mask in _fitting(survey) if image.orientation != 1]
    lying = [image for image, _ in turned if image.orientation >= 5 and image.size[0] != image.size[1]]
    doubtful = [(image, mask) for image, mask in turned if image.orientation < 5 or image.size[0] == image.size[1]]
    if not doubtful:
        return
    applied = survey.data.exif == "apply"
    grid, other, setting = ("upright", "stored", "ignore") if applied else ("stored", "upright", "apply")
    votes = votes_for_upright([image for image, _ in doubtful], [mask for _, mask in doubtful])
    votes = votes if applied else -votes
    chosen = choose_grid(votes)  # apply: the grid of the config
    wrong = [pair for pair, vote in zip(doubtful, votes, strict=True) if vote < 0] if chosen == "ignore" else []
    if not wrong:
        wrong = [doubtful[place] for place in contrary(votes)]
    if wrong:
        image, mask = wrong[0]
        all_wrong = chosen == "ignore" and not lying
        yield Finding(
            "SEG206",
            "error",
            f"{num(wrong, 'mask')} of {num(turned, 'photograph')} with an EXIF orientation fit the {other} picture, "
            f"but data.exif is {survey.data.exif}",
            len(wrong),
            few_names(survey, [image.path for image, _ in wrong], SHOWN_BROKEN),
            f"{survey.name(mask.path)} follows the edges of {survey.name(image.path)} as it is "
            f"{'stored' if applied else 'shown by viewers'} (EXIF orientation {image.orientation})",
            f"set data.exif to {setting}"
            if all_wrong
            else f"turn these masks to the {grid} picture: no data.exif is right for all",
        )
    elif not lying and chosen is None:
        image, _ = doubtful[0]
        yield Finding(
            "SEG205",
            "note",
            f"{num(doubtful, 'image')} with an EXIF orientation, of one size turned or not",
            len(doubtful),
            few_names(survey, [image.path for image, _ in doubtful]),
            f"{survey.name(image.path)}: EXIF orientation {image.orientation}; its mask is taken to be "
            f"drawn on the {grid} picture",
            f"look at one beside its mask; where the mask lies the other way up, set data.exif to {setting}",
        )


@a_check
def masks_not_turned(survey: Survey) -> Iterator[Finding]:
    """SEG209: masks that fit their image only when they are mirrored or turned."""
    pairs = [(image, mask) for image, mask in _fitting(survey) if image.orientation == 1]
    turned = turned_masks([image for image, _ in pairs], [mask for _, mask in pairs])
    if turned:
        place, how = turned[0]
        yield Finding(
            "SEG209",
            "warning",
            f"{num(turned, 'mask')} of {len(pairs)} fit their image only when they are turned: another origin?",
            len(turned),
            few_names(survey, [pairs[place][1].path for place, _ in turned], SHOWN_BROKEN),
            f"{survey.name(pairs[place][1].path)}: {how}, by the edges of {survey.name(pairs[place][0].path)}",
            "look at these images and masks together, and mirror or turn the masks back",
        )


@a_check
def masks_not_copied(survey: Survey) -> Iterator[Finding]:
    """SEG309: one mask under the names of two images that do not look alike."""
    known: dict[str, dict[str, Pair]] = defaultdict(dict)
    for image, mask in _fitting(survey):
        if mask.outline.any() and not image.plain:
            known[mask.digest].setdefault(image.digest, (image, mask))
    shared = [list(pairs.values()) for pairs in known.values() if len(pairs) > 1]
    copied = [pairs for pairs in shared if not _any_alike([image for image, _ in pairs])]
    if copied and sum(map(len, copied)) <= max(2, COPIED * len(known)):
        fits = own_fits([image for image, _ in copied[0]], [mask for _, mask in copied[0]])
        (one, other), order = copied[0][:2], np.argsort(-fits)
        owner = survey.name(copied[0][order[0]][0].path)
        told = f"; it follows the edges of {owner}" if fits[order[0]] - fits[order[1]] >= OWN_FIT else ""
        yield Finding(
            "SEG309",
            "warning",
            f"{num(copied, 'mask')} under the names of several images that do not look alike: one is another's",
            len(copied),
            few_names(survey, [mask.path for pairs in copied for _, mask in pairs], SHOWN_BROKEN),
            f"{survey.name(one[1].path)} = {survey.name(other[1].path)}, equal in every pixel{told}",
            "look at which image it was drawn on, and give the others masks of their own",
        )


def _any_alike(images: list[ImageFacts]) -> bool:
    """Whether two pictures look alike, as frames of a fixed camera do, which share a mask with reason."""
    flat = standing_out(np.stack([image.thumbnail for image in images]), np.zeros(0))
    alike = flat @ flat.T
    np.fill_diagonal(alike, -1)
    return bool(alike.max() >= SAME_SCENE)


@a_check
def images_show_something(survey: Survey) -> Iterator[Finding]:
    """SEG208: images of one constant colour, with a mask that tells several classes or with one that does not."""
    plain = [(image, mask) for image, mask in survey.readable_pairs() if image.plain]
    for several in (True, False):
        found = [
            image
            for image, mask in plain
            if several == ((survey.uses[mask.path].pixels > 0).sum() > 1 if mask.path in survey.uses else False)
        ]
        if found:
            yield Finding(
                "SEG208",
                "warning" if several else "note",
                f"{num(found, 'image')} of one constant colour"
                + (", with several classes in the mask" if several else ""),
                len(found),
                few_names(survey, [image.path for image in found]),
                f"{survey.name(found[0].path)}: all pixels are equal",
                "export these images again, or take them out with their masks"
                if several
                else "take them out, unless pictures without content are to be known as such",
            )


# ------------------------------------------------------------------------------------------------- 3 masks


@a_check
def equal_pictures_agree(survey: Survey) -> Iterator[Finding]:
    """SEG307: pictures that stand twice, with masks that disagree."""
    twice: dict[str, dict[Path, Pair]] = defaultdict(dict)
    for image, mask in _fitting(survey):
        if not image.plain:
            twice[image.digest][mask.path] = image, mask
    doubtful = [
        (one, other)
        for pairs in twice.values()
        if len(pairs) > 1
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
        yield Finding(
            "SEG307",
            "warning",
            f"{num(found, 'picture')} that {'stands' if len(found) == 1 else 'stand'} twice, with masks that disagree",
            len(found),
            few_names(survey, [pair[1].path for row in found for pair in row[:2]]),
            f"{survey.name(one[1].path)} and {survey.name(other[1].path)} differ in {percent(share)} of the pixels, "
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
def files_apart(survey: Survey) -> Iterator[Finding]:
    """SEG504: one image file in two splits, as where lists overlap."""
    where: dict[Path, list[str]] = defaultdict(list)
    for split, records in survey.records.items():
        for path in dict.fromkeys(record.image for record in records):
            where[path].append(split)
    shared = [path for path, splits in where.items() if len(splits) > 1]
    if shared:
        yield Finding(
            "SEG504",
            "warning",
            f"{num(shared, 'image')} in two splits",
            len(shared),
            few_names(survey, shared),
            f"{survey.name(shared[0])} is in {' and in '.join(where[shared[0]])}",
            "take them out of all splits but one: scores on known pictures are too high",
        )


@a_check
def splits_apart(survey: Survey) -> Iterator[Finding]:
    """SEG501: the same picture in two splits, so that a score tells what was learned by heart."""
    where: dict[str, dict[str, Path]] = defaultdict(dict)
    for split, records in survey.records.items():
        for record in records:
            facts = survey.images[record.image]
            if not facts.error and not facts.plain:
                where[facts.digest].setdefault(split, record.image)
    leaks = [places for places in where.values() if len(set(places.values())) > 1]
    if leaks:
        first = leaks[0]
        yield Finding(
            "SEG501",
            "warning",
            f"{num(leaks, 'picture')} in two splits, equal in every pixel",
            len(leaks),
            few_names(survey, [path for places in leaks for path in places.values()], SHOWN_BROKEN),
            " = ".join(f"{survey.name(path)} ({split})" for split, path in first.items()),
            "remove them from all splits but one: scores on known pictures are too high",
        )


@a_check
def pictures_apart(survey: Survey) -> Iterator[Finding]:
    """SEG506: nearly the same picture in two splits, such as a scaled copy or the next frame of a video."""
    rows = [
        (split, survey.images[record.image])
        for split, records in survey.records.items()
        for record in records
        if not survey.images[record.image].error
    ]
    splits = np.array([split for split, _ in rows])
    if len(set(splits.tolist())) < 2:
        return
    looks = looks_of([image for _, image in rows])
    found: dict[int, int] = {}  # the held out, and what it is like
    for one, other in combinations(dict.fromkeys(splits.tolist()), 2):
        for known, held in near_duplicates(looks, np.flatnonzero(splits == one), np.flatnonzero(splits == other)):
            if rows[known][1].digest != rows[held][1].digest:
                found.setdefault(int(held), int(known))
    if found:
        held, known = next(iter(found.items()))
        yield Finding(
            "SEG506",
            "warning",
            f"{num(found, 'picture')} nearly the same as one of another split",
            len(found),
            few_names(survey, [rows[place][1].path for pair in found.items() for place in pair], SHOWN_BROKEN),
            f"{survey.name(rows[held][1].path)} ({splits[held]}) is almost {survey.name(rows[known][1].path)} "
            f"({splits[known]})",
            "keep copies and neighbouring frames of a video in one split (data.split.group does it by name): scores on "
            "what is nearly known are too high",
        )


@a_check
def pictures_once(survey: Survey) -> Iterator[Finding]:
    """SEG505: the same picture twice in one split, with masks that agree."""
    where: dict[tuple[str, str, str], list[Path]] = defaultdict(list)
    for split, records in survey.records.items():
        for record in {record.image: record for record in records}.values():
            image, mask = survey.images[record.image], survey.masks.get(record.mask) if record.mask else None
            if not image.error and not image.plain:
                where[split, image.digest, mask.digest if mask else ""].append(record.image)
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
