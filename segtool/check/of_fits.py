"""Checks that lay masks over their images: on which grid, shifted, copied, exchanged. Those of whose: `of_matches`.

To add one, write it below the decorator.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from segtool.check.exchange import Contrast, contrast_of, exchanged_by_pictures, is_exchanged, suspects
from segtool.check.findings import Finding, a_check, few_names, num, share_text
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
LOOKED_AT = 16  # suspected masks that are read again
COMPARED_WITH = 24  # other pairs that they are compared with
FEW_PAIRS = 64  # up to so many are all read again, where they are small, as shares do not suspect any
FEW_PIXELS = 20_000_000
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
            len(wrong),
            few_names(survey, [image.path for image, _ in wrong]),
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
def masks_not_shifted(survey: Survey) -> Iterator[Finding]:
    """SEG210: masks that all lie some pixels beside what they outline, as some pairs read again tell."""
    chosen, pixels = [], 0
    pairs = [(image, mask) for image, mask in survey.fitting_pairs if mask.outline.any() and image.channels in (1, 3)]
    for image, mask in pairs[:: max(1, len(pairs) // LAID_OVER)][:LAID_OVER]:
        if min(image.size) < 4 * REACH:
            continue
        pixels += image.size[0] * image.size[1]
        if pixels > MOST_PIXELS:
            break
        chosen.append((image, mask))
    if len(chosen) < MIN_PAIRS:  # as of photographs of 12 megapixels
        return
    found = in_threads(lambda pair: _surface(survey, *pair), chosen)
    surfaces = [surface for surface in found if surface is not None]
    names = [mask.path for (_, mask), surface in zip(chosen, found, strict=True) if surface is not None]
    if shift := common_shift(surfaces):
        yield Finding(
            "SEG210",
            "warning",
            f"the masks lie beside what they outline: the {len(surfaces)} looked at fit better in the mean when moved",
            len(surfaces),
            few_names(survey, names),
            f"{survey.name(names[0])}: pixels to move by, {way_of(shift)}",
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
        if mask.outline.any() and not image.plain:
            known[mask.digest].setdefault(image.digest, place)
    shared = [list(places.values()) for places in known.values() if len(places) > 1]
    if not shared:
        return
    looks = np.stack([image.thumbnail for image, _ in pairs])
    apart = standing_out(looks, np.ones(len(looks), bool))
    copied = [[pairs[place] for place in places] for places in shared if not _any_alike(looks[places], apart[places])]
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
    """SEG311: masks of two classes in which these lie the other way round than in the others."""
    if survey.labels.num_classes != 2:
        return
    uses = survey.uses
    pairs = [
        (image, mask) for image, mask in survey.fitting_pairs if mask.path in uses and uses[mask.path].pixels.all()
    ]
    shares = np.array([uses[mask.path].pixels[1] / uses[mask.path].pixels.sum() for _, mask in pairs])
    found = [place for place in _exchanged(survey, pairs, shares) if not _is_turned(*pairs[place])]
    if found:
        name = shown(survey.labels.names[1])
        usual = np.median(np.delete(shares, found))
        yield Finding(
            "SEG311",
            "warning",
            f"{num(found, 'mask')} of {len(pairs)} in which the two classes look exchanged: object for background",
            len(found),
            few_names(survey, [pairs[place][1].path for place in found]),
            f"{survey.name(pairs[found[0]][1].path)}: {name} is {share_text(shares[found[0]])} of the pixels, in the "
            f"others {share_text(float(usual))} (the median), and looks like what the others have as "
            f"{shown(survey.labels.names[0])}",
            "look at these images and masks together, and exchange the two values in the masks",
        )


def _is_turned(image: ImageFacts, mask: MaskFacts) -> bool:
    """Whether a mask fits its image clearly better when it is turned: a sky that lies below is not exchanged."""
    if image.orientation != 1:
        return False
    ways = [
        TURNS[how](mask.outline) for how in list(TURNS)[: None if image.size[0] == image.size[1] else KEEPING_SHAPE]
    ]
    fits = own_fits([image] * (len(ways) + 1), [mask, *(replace(mask, outline=outline) for outline in ways)])
    return bool(fits[1:].max() - fits[0] >= OWN_FIT)


def _exchanged(survey: Survey, pairs: list[Pair], shares: np.ndarray) -> list[int]:
    """Returns the places of the masks in which the two classes are exchanged."""

    def contrasts(places: Iterable[int]) -> dict[int, Contrast]:
        read = {place: read_pair(survey, *pairs[place], channels=survey.data.channels) for place in places}
        return {place: contrast_of(*both) for place, both in read.items() if both}

    suspected = suspects(shares).tolist()
    if suspected:
        others = np.setdiff1d(np.arange(len(pairs)), suspected)
        usual = list(contrasts(others[:: max(1, len(others) // COMPARED_WITH)][:COMPARED_WITH].tolist()).values())
        return [place for place, one in contrasts(suspected[:LOOKED_AT]).items() if is_exchanged(one, usual)]
    if len(pairs) <= FEW_PAIRS and sum(image.size[0] * image.size[1] for image, _ in pairs) <= FEW_PIXELS:
        every = contrasts(range(len(pairs)))
        places = np.array(list(every), int)
        return places[exchanged_by_pictures(list(every.values()), shares[places])].tolist()
    return []
