"""How well masks fit images: the edges of what was labelled lie, for a good part, on edges of the picture.

One fit says little, as pictures have many edges that no mask follows; told is only what stands out among the fits of
masks to images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from segtool.check.likeness import normed
from segtool.data.facts import ImageFacts, MaskFacts
from segtool.data.images import INVERSE_ORIENTATION, apply_orientation

MIN_PAIRS = 8  # below which nothing stands out

GRID_SPREAD = 0.15  # least deviation assumed of the difference between two fits of one mask
GRID_SURE = 3.0  # standard errors of the mean difference from which on the grid is certain
GRID_LEAST = 0.05  # least mean difference that tells a grid, however many there are
GRID_TELLING = 0.2  # root mean square of the differences where fits tell anything; of right masks of CamVid 0.24 to 0.4
GRID_ONE = 0.25  # difference from which on a mask is against the others; 1 of 5,000 right ones is
GRID_WITH_OTHERS = 0.12  # the same beside a mask that is surely against the others

TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mirrored left to right": lambda maps: maps[..., ::-1],
    "mirrored top to bottom": lambda maps: maps[..., ::-1, :],
    "upside down": lambda maps: maps[..., ::-1, ::-1],
    "transposed": lambda maps: maps.swapaxes(-1, -2),
    "turned to the left": lambda maps: maps.swapaxes(-1, -2)[..., ::-1],
    "turned to the right": lambda maps: maps.swapaxes(-1, -2)[..., ::-1, :],
    "transposed and upside down": lambda maps: maps.swapaxes(-1, -2)[..., ::-1, ::-1],
}
"""What undoes each, of maps ... H W; all but the first three for square pictures."""
KEEPING_SHAPE = 3  # of these
TOGETHER = 256  # pairs that are looked at in all ways at a time
TURN_SURE = 4.0  # standard errors by which masks of a whole set must fit better when they are turned


# ------------------------------------------------------------------------------------------------- turns


def turned_masks(images: Sequence[ImageFacts], masks: Sequence[MaskFacts]) -> list[tuple[int, str]]:
    """Returns the places of masks and how they lie, as in `TURNS`, where the set as a whole lies so; else none.

    All masks must fit better when they are turned, by more than the turned masks of other images do: all roads lie at
    the bottom, where pictures have fewer edges than at the top.
    """
    usable = telling(images, masks)
    if len(usable) < MIN_PAIRS:
        return []
    images, masks = [images[place] for place in usable], [masks[place] for place in usable]
    outlines, edges = outlines_of(masks), np.stack([image.edges for image in images])
    square = [place for place, image in enumerate(images) if image.size[0] == image.size[1]]
    ways = [("upright", lambda maps: maps), *TURNS.items()]
    fits: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for among, some in ((range(len(usable)), ways[: KEEPING_SHAPE + 1]), (square, ways[KEEPING_SHAPE + 1 :])):
        if len(among) >= MIN_PAIRS:
            places = np.array(among)
            found = fits_of_turns(outlines, edges, places, [turn for _, turn in some])
            fits |= {how: (places, own, others) for (how, _), (own, others) in zip(some, found, strict=True)}
    _, own, others = fits.pop("upright")
    own_alone = own - others
    lying: dict[int, tuple[float, str]] = {}
    for how, (places, turned, others) in fits.items():
        alone = turned - others - own_alone[places]
        error = max(GRID_SPREAD, float(alone.std())) / len(alone) ** 0.5
        if alone.mean() >= TURN_SURE * error:
            for place, gain in zip(places.tolist(), (turned - own[places]).tolist(), strict=True):
                lying[place] = max(lying.get(place, (-np.inf, "")), (gain, how))
    return [(usable[place], lying[place][1]) for place in sorted(lying)]


def own_fits(images: Sequence[ImageFacts], masks: Sequence[MaskFacts]) -> np.ndarray:
    """Returns how well each mask fits its image, N within -1 and 1; of right ones of CamVid the mean is 0.39."""
    return _overlap(outlines_of(masks), _normed(np.stack([image.edges for image in images])))


def telling(images: Sequence[ImageFacts], masks: Sequence[MaskFacts]) -> list[int]:
    """Returns the places of pairs where both have edges."""
    if not len(images):
        return []
    edges, outlines = np.stack([image.edges for image in images]), np.stack([mask.outline for mask in masks])
    return np.flatnonzero(edges.any(axis=(1, 2)) & outlines.any(axis=(1, 2))).tolist()


def outlines_of(masks: Sequence[MaskFacts]) -> np.ndarray:
    return _normed(np.sqrt(np.stack([mask.outline for mask in masks]), dtype=np.float32))


def _normed(maps: np.ndarray) -> np.ndarray:
    """Returns each of N maps, N H W, without its mean and of norm 1; in its place where they are float32."""
    return normed(maps.astype(np.float32, copy=False).reshape(len(maps), -1)).reshape(maps.shape)


def _overlap(outlines: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Returns how well each of N outlines lies on the edges of its image, N within -1 and 1, both normed N H W."""
    return np.einsum("nhw,nhw->n", outlines, edges)


def fits_of_turns(
    outlines: np.ndarray, edges: np.ndarray, among: np.ndarray, ways: Sequence[Callable[[np.ndarray], np.ndarray]]
) -> np.ndarray:
    """Returns how well masks fit their images when they are turned in some ways, and in the mean three others, W 2 M.

    As many at a time as stay in the processor's cache: for 10,000 pairs at once, half the time went into new memory.

    Args:
        outlines: N H W, normed.
        edges: N H W.
        among: The places that are looked at, M.
        ways: What turns maps.
    """
    count, found = len(among), []
    for first in range(0, count, TOGETHER):
        places = np.arange(first, min(first + TOGETHER, count))
        below = _normed(edges[among[places]])
        shifts = (0, count // 4, count // 2, 3 * count // 4)
        own, *others = (outlines[among[places - shift]] for shift in shifts)
        fits = [[_overlap(turn(maps), below) for maps in (own, *others)] for turn in ways]
        found.append([[one, np.mean(rest, axis=0)] for one, *rest in fits])
    return np.concatenate(found, axis=2)


# ------------------------------------------------------------------------------------------------- EXIF


def votes_for_upright(images: Sequence[ImageFacts], masks: Sequence[MaskFacts]) -> np.ndarray:
    """Returns how much better each mask fits the upright picture than the stored one, N, within -2 and 2.

    Args:
        images: Readable, with an EXIF orientation; `masks[i]` is the mask of `images[i]`.
    """
    votes = []
    for image, mask in zip(images, masks, strict=True):
        back = INVERSE_ORIENTATION.get(image.orientation, image.orientation)
        maps = np.stack([image.edges, apply_orientation(image.edges, back)])
        upright, stored = _overlap(_normed(maps), outlines_of([mask]))
        votes.append(float(upright - stored))
    return np.array(votes)


def choose_grid(votes: np.ndarray) -> Literal["apply", "ignore"] | None:
    """Returns which `data.exif` the votes of `votes_for_upright` ask for; None where they do not tell."""
    if not len(votes):
        return None
    error = max(GRID_SPREAD, float(votes.std())) / len(votes) ** 0.5
    if abs(votes.mean()) < max(GRID_LEAST, GRID_SURE * error):
        return None
    return "apply" if votes.mean() > 0 else "ignore"


def contrary(votes: np.ndarray) -> list[int]:
    """Returns the places of votes that are clearly below zero, where the votes of the set tell anything at all."""
    if not len(votes) or float(np.square(votes).mean()) ** 0.5 < GRID_TELLING:
        return []
    against = [int(place) for place in np.flatnonzero(votes <= -GRID_ONE)]
    error = GRID_SPREAD / max(1, len(against)) ** 0.5
    if not against or float(-votes[against].mean()) < GRID_SURE * error:
        return []
    return [int(place) for place in np.flatnonzero(votes <= -GRID_WITH_OTHERS)]
