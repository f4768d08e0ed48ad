"""Checks that lay masks over their images: on which grid, shifted, copied, exchanged. Those of whose: `of_matches`.

To add one, write it below the decorator.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from segtool.check.exchange import MIN_MASKS, maps_of, misread_masks, regions_of, turned_instead
from segtool.check.findings import Finding, a_check, counted, few_names, first_of, num
from segtool.check.fit import KEEPING_SHAPE, TURNS, choose_grid, contrary, own_fits, votes_for_upright
from segtool.check.likeness import standing_out
from segtool.check.shift import MIN_PAIRS, REACH, common_shift, shift_surface, way_of
from segtool.check.survey import Pair, Survey, read_pair
from segtool.data.facts import ImageFacts, MaskFacts
from segtool.errors import shown
from segtool.system.pools import in_threads

COPIED = 0.05  # share of the masks from which on copies are how a set is made, and no mistake
OWN_FIT = 0.15  # by which a mask fits one image better than another where it is that one's
LAID_OVER = 16  # pairs that are read again to see whether masks are shifted
MOST_PIXELS = 40_000_000  # of all of them
MOST_COMPARED = 4_000_000  # masks times classes squared, beyond which only every n-th mask is looked at
MOST_NAMED = 6  # classes of a finding
UPSIDE_DOWN = ("mirrored top to bottom", "upside down")  # what moves classes to the places of others
RAISED = 0.25  # share of the masks up to which ids that are one too high are a slip
SAME_SCENE, SAME_APART = 0.7, 0.5  # correlation of thumbnails from which on two pictures may have one mask
SAME_SURELY = 0.97  # the same where only the grain may differ

# ------------------------------------------------------------------------------------------------- 2 grids


@a_check
def orientation_right(survey: Survey) -> Iterator[Finding]:
    """SEG205, SEG206: photographs that EXIF turns, where no size tells for which grid their masks were drawn.

    The edges do, for most; where they do not, and no other photograph's size does, that is a note.
    """
    turned = [(image, mask) for image, mask in survey.fitting_pairs if image.orientation != 1]
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
            f"{num(wrong, 'mask')} of {num(turned, 'photograph')} with an EXIF orientation "
            f"{'fits' if len(wrong) == 1 else 'fit'} the {other} picture, but data.exif is {survey.data.exif}",
            *counted(survey, [image.path for image, _ in wrong]),
            f"{survey.name(mask.path)} fits {survey.name(image.path)} as it is "
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
            *counted(survey, [image.path for image, _ in doubtful]),
            f"{survey.name(image.path)}: EXIF orientation {image.orientation}; its mask is taken to be "
            f"drawn on the {grid} picture",
            f"look at one beside its mask; where the mask lies the other way up, set data.exif to {setting}",
        )


@a_check
def masks_not_shifted(survey: Survey) -> Iterator[Finding]:
    """SEG210: masks that all lie some pixels beside what they outline, as some pairs read again tell."""
    chosen, pixels = [], 0
    pairs = [
        (image, mask)
        for image, mask in survey.fitting_pairs
        if mask.outline.any() and image.channels in (1, 3) and not survey.holds_one_class(mask.path)
    ]
    for image, mask in pairs[:: max(1, len(pairs) // LAID_OVER)][:LAID_OVER]:
        if min(image.size) < 4 * REACH:
            continue
        pixels += image.size[0] * image.size[1]
        if pixels > MOST_PIXELS:
            break
        chosen.append((image, mask))
    if len(chosen) < MIN_PAIRS:  # as of photographs of 12 megapixels
        return
    read = in_threads(lambda pair: _surface(survey, *pair), chosen)
    found = {mask.path: surface for (_, mask), surface in zip(chosen, read, strict=True) if surface is not None}
    if shift := common_shift(list(found.values())):
        yield Finding(
            "SEG210",
            "warning",
            f"the masks lie beside what they outline: the {len(found)} looked at fit better in the mean when moved",
            *counted(survey, found),
            f"{survey.name(next(iter(found)))}: pixels to move by, {way_of(shift)}",
            "look at an image with its mask laid over it, and export the masks again, or move them by as much",
        )


def _surface(survey: Survey, image: ImageFacts, mask: MaskFacts) -> np.ndarray | None:
    read = read_pair(survey, image, mask, channels=image.channels)
    return shift_surface(*read) if read else None


# ------------------------------------------------------------------------------------------------- 3 masks


@a_check
def masks_not_copied(survey: Survey) -> Iterator[Finding]:
    """SEG309: one mask under the names of two images that do not look alike."""
    pairs = survey.fitting_pairs
    known: dict[str, dict[str, int]] = defaultdict(dict)
    for place, (image, mask) in enumerate(pairs):
        if mask.outline.any() and not image.plain and not survey.holds_one_class(mask.path):
            known[mask.digest].setdefault(image.digest, place)
    shared = [list(places.values()) for places in known.values() if len(places) > 1]
    if not shared:
        return
    looks = np.stack([image.thumbnail for image, _ in pairs])
    apart = standing_out(looks, np.ones(len(looks), bool))
    copied = [[pairs[place] for place in places] for places in shared if not _any_alike(looks[places], apart[places])]
    copies = sum(len(pairs) - 1 for pairs in copied)  # one of each is the owner's
    if copied and copies <= max(2, COPIED * sum(map(len, known.values()))):
        fits = own_fits([image for image, _ in copied[0]], [mask for _, mask in copied[0]])
        (one, other), order = copied[0][:2], np.argsort(-fits)
        owner = survey.name(copied[0][order[0]][0].path)
        told = f"; it follows the edges of {owner}" if fits[order[0]] - fits[order[1]] >= OWN_FIT else ""
        yield Finding(
            "SEG309",
            "warning",
            f"{num(copied, 'mask')} under the names of several images that do not look alike: one is another's",
            len(copied),
            few_names(survey, [mask.path for pairs in copied for _, mask in pairs]),
            f"{survey.name(one[1].path)} = {survey.name(other[1].path)}, equal in every pixel{told}",
            "look at which image it was drawn on, and give the others masks of their own",
        )


def _any_alike(looks: np.ndarray, apart: np.ndarray) -> bool:
    """Whether two of N pictures look alike, as frames of a fixed camera do, which share a mask with reason.

    Args:
        looks: Their thumbnails, N H H.
        apart: What sets these apart from the mean of their set, N D: all bodies in a scanner look alike else.
    """
    flat = standing_out(looks, np.zeros(0))
    alike, alike_apart = flat @ flat.T, apart @ apart.T
    np.fill_diagonal(alike, -1)
    return bool(((alike >= SAME_SCENE) & (alike_apart >= SAME_APART) | (alike >= SAME_SURELY)).any())


@a_check
def classes_not_exchanged(survey: Survey) -> Iterator[Finding]:
    """SEG311: masks in which ids stand for other classes than in the others; SEG212: that lie upside down instead."""
    if raised := _raised_masks(survey):
        yield _one_too_high(survey, raised)
    num_classes = survey.labels.num_classes
    upright = survey.data.exif == "apply"
    pairs = [pair for pair in survey.fitting_pairs if upright or pair[0].orientation == 1]
    pairs = [pair for pair in pairs if pair[1].path not in raised]
    pairs = pairs[:: 1 + len(pairs) * num_classes**2 // MOST_COMPARED]
    pairs = [pair for pair in pairs if pair[1].path in survey.samples]
    if len(pairs) < MIN_MASKS:
        return
    classes = np.stack([survey.samples[mask.path] for _, mask in pairs])
    pictures = maps_of([image for image, _ in pairs])
    regions = regions_of(classes, pictures, num_classes)
    for reading in misread_masks(regions):
        some = reading.masks
        ways = {how: regions_of(TURNS[how](classes[some]), pictures.some(some), num_classes) for how in UPSIDE_DOWN}
        lying = turned_instead(regions, reading, ways)
        exchanged, turned = [], []
        for place in some.tolist():
            gains = _gains_of_turns(*pairs[place])
            if place in lying and gains.get(lying[place], -1) > -OWN_FIT:
                turned.append((pairs[place], lying[place]))
            elif max(gains.values(), default=0) < OWN_FIT:
                exchanged.append(pairs[place])
        if exchanged:
            yield _exchange(survey, exchanged, len(pairs), reading.meant)
        if turned:
            yield _upside_down(survey, turned, len(pairs))


def _raised_masks(survey: Survey) -> list[Path]:
    """Returns few masks that alone lack the first class and alone have the last, as where all ids are one too high.

    The first class must be what covers most in the others, and the second in these.
    """
    firsts = [value for spec in survey.data.classes for value in spec.values[:1]]
    masks = [path for path, use in survey.uses.items() if use.pixels.any()]
    if survey.data.encoding != "index" or len(firsts) < 3 or len(masks) < MIN_MASKS:
        return []
    pixels = np.stack([survey.uses[path].pixels for path in masks])
    raised, most = pixels[:, 0] == 0, pixels.argmax(1)
    is_few = raised.any() and raised.mean() <= RAISED
    if not is_few or (raised != (pixels[:, -1] > 0)).any() or (np.diff(firsts) != 1).any():
        return []
    is_usual = (most[~raised] == 0).mean() > 0.5 and (most[raised] == 1).mean() > 0.5
    return [path for path, high in zip(masks, raised, strict=True) if high] if is_usual else []


def _one_too_high(survey: Survey, raised: list[Path]) -> Finding:
    names = survey.labels.names
    return Finding(
        "SEG311",
        "warning",
        f"{num(raised, 'mask')} of {len(survey.uses)} with ids that look one too high",
        *counted(survey, raised),
        f"{survey.name(raised[0])}: has {shown(names[-1])}, which only these masks have, and not {shown(names[0])}, "
        "which all others have",
        "look at these images and masks together, and give the values the meaning that they have in the other masks",
    )


def _exchange(survey: Survey, found: list[Pair], among: int, meant: dict[int, int]) -> Finding:
    names = {label: shown(survey.labels.names[label]) for both in meant.items() for label in both}
    (own, other), *_ = meant.items()
    listed = [f"{names[label]} for {names[real]}" for label, real in meant.items()]
    return Finding(
        "SEG311",
        "warning",
        f"{num(found, 'mask')} of {among} in which classes look exchanged: {first_of(listed, MOST_NAMED)}",
        *counted(survey, [mask.path for _, mask in found]),
        f"{survey.name(found[0][1].path)}: {names[own]} lies and looks like what the others have as {names[other]}",
        "look at these images and masks together, and give the values the meaning that they have in the other masks",
    )


def _upside_down(survey: Survey, turned: list[tuple[Pair, str]], among: int) -> Finding:
    (image, mask), how = turned[0]
    return Finding(
        "SEG212",
        "warning",
        f"{num(turned, 'mask')} of {among} with classes where others have them only when turned: another origin?",
        *counted(survey, [mask.path for (_, mask), _ in turned]),
        f"{survey.name(mask.path)}: {how}, by the places of its classes in {survey.name(image.path)}",
        "look at these images and masks together, and mirror or turn the masks back",
    )


def _gains_of_turns(image: ImageFacts, mask: MaskFacts) -> dict[str, float]:
    """Returns how much better a mask fits its image for each way to turn it, by edges; none where EXIF turns that."""
    if image.orientation != 1:
        return {}
    ways = list(TURNS)[: None if image.size[0] == image.size[1] else KEEPING_SHAPE]
    outlines = [replace(mask, outline=TURNS[how](mask.outline)) for how in ways]
    as_it_is, *turned = own_fits([image] * (len(ways) + 1), [mask, *outlines]).tolist()
    return {how: fit - as_it_is for how, fit in zip(ways, turned, strict=True)}
