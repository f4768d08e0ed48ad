"""How well masks fit images: the edges of what was labelled lie, for a good part, on edges of the picture.

One fit says little, as pictures have many edges that no mask follows; told is only what stands out among the fits of
masks to images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from segtool.check.areas import fits_of_areas
from segtool.check.exchange import maps_of
from segtool.check.likeness import normed
from segtool.data.facts import ImageFacts, MaskFacts
from segtool.data.images import INVERSE_ORIENTATION, apply_orientation
from segtool.data.outline import SIDE, PictureMaps

MIN_PAIRS = 8  # below which nothing stands out

GRID_SPREAD = 0.15  # least deviation assumed of the difference between two fits of one mask
GRID_SURE = 3.0  # standard errors of the mean difference from which on the grid is certain
GRID_LEAST = 0.05  # least mean difference that tells a grid, however many there are
GRID_TELLING = 0.2  # root mean square of the differences where fits tell anything; of right masks of CamVid 0.24 to 0.4
GRID_ONE = 0.25  # difference from which on a mask is against the others; 1 of 5,000 right ones is
GRID_WITH_OTHERS = 0.12  # the same beside a mask that is surely against the others

AREAS_PART = 0.25  # of a vote that is by areas
MOST_VALUES = 32  # of a mask; of more, as where it was saved as JPEG, areas tell nothing

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
AREAS_SURE = 6.0  # the same where areas alone tell
AREAS_CLEAR = 1.0  # deviations by which turned masks must then explain more of their images than others do, in the mean


# ------------------------------------------------------------------------------------------------- turns


def turned_masks(
    images: Sequence[ImageFacts], masks: Sequence[MaskFacts], classes: np.ndarray, num_classes: int
) -> list[tuple[int, str]]:
    """Returns the places of masks and how they lie, as in `TURNS`, where the set as a whole lies so; else none.

    All masks must fit better when they are turned, by more than the turned masks of other images do: all roads lie at
    the bottom, where pictures have fewer edges than at the top. Their edges tell, or else the areas of their classes,
    which turn all in one way; neither may clearly speak against the other.

    Args:
        classes: Of each mask on small maps, as of `fits_of_areas`.
    """
    usable = telling(images, masks)
    if len(usable) < MIN_PAIRS:
        return []
    images, masks = [images[place] for place in usable], [masks[place] for place in usable]
    outlines, edges = outlines_of(masks), np.stack([image.edges for image in images])
    classes = classes[usable]
    square = [place for place, image in enumerate(images) if image.size[0] == image.size[1]]
    ways = list(TURNS)
    by_edges: dict[int, tuple[float, str]] = {}
    by_areas: tuple[float, str, Sequence[int]] = (0.0, "", ())
    for among, some in ((range(len(usable)), ways[:KEEPING_SHAPE]), (square, ways[KEEPING_SHAPE:])):
        if len(among) < MIN_PAIRS:
            continue
        places = np.array(among)
        turns = [lambda maps: maps, *(TURNS[how] for how in some)]
        fits, others = fits_of_turns(outlines, edges, places, turns).swapaxes(0, 1)
        few = places[:: -(-len(places) // TOGETHER)]
        pictures = maps_of([images[place] for place in few])
        areas = [_areas_alone(turn(classes[few]), pictures, num_classes) for turn in turns]
        for row, how in enumerate(some, 1):
            gains, gains_of_areas = fits[row] - fits[0], areas[row] - areas[0]
            sure = _sureness(gains - (others[row] - others[0]), GRID_SPREAD)
            sure_of_areas, clear = _sureness(gains_of_areas), float(areas[row].mean() / max(areas[row].std(), 1e-6))
            if sure >= TURN_SURE and sure_of_areas > -TURN_SURE:
                for place, gain in zip(among, gains.tolist(), strict=True):
                    by_edges[place] = max(by_edges.get(place, (-np.inf, "")), (gain, how))
            elif sure > -TURN_SURE and sure_of_areas >= AREAS_SURE and clear >= AREAS_CLEAR:
                by_areas = max(by_areas, (clear, how, among), key=lambda told: told[0])
    _, how, lying = by_areas
    found = {place: how for place, (_, how) in by_edges.items()} or dict.fromkeys(lying, how)
    return [(usable[place], found[place]) for place in sorted(found)]


def _sureness(gains: np.ndarray, least: float = 1e-6) -> float:
    """Returns the standard errors by which the mean of gains lies above zero, for such a deviation at least."""
    return float(gains.mean()) * len(gains) ** 0.5 / max(least, float(gains.std()))


def _areas_alone(classes: np.ndarray, pictures: PictureMaps, num_classes: int) -> np.ndarray:
    """Returns how much more N masks explain of their images than three others do, N."""
    places, count = np.arange(len(classes)), len(classes)
    own, *others = (
        fits_of_areas(classes[places - shift], pictures, num_classes, own=True)
        for shift in (0, count // 4, count // 2, 3 * count // 4)
    )
    return own - np.mean(others, axis=0)


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
    """Returns how much better each mask fits the upright picture than the stored one, N; right ones of CamVid 0.4.

    That is by their edges, and for a part by what the areas of its values explain beyond those of other masks: all
    roads lie at the bottom.

    Args:
        images: Readable, with an EXIF orientation; `masks[i]` is the mask of `images[i]`.
    """
    if not len(images):
        return np.empty(0)
    upright = maps_of(images)
    stored = PictureMaps(*(_as_stored(maps, images) for maps in upright))
    outlines, values, count = outlines_of(masks), *_ranks_of(masks)

    def fits(pictures: PictureMaps) -> np.ndarray:
        areas = _areas_alone(values, pictures, count)
        return _overlap(outlines, _normed(pictures.edges)) + AREAS_PART * areas

    return fits(upright) - fits(stored)


def _as_stored(maps: np.ndarray, images: Sequence[ImageFacts]) -> np.ndarray:
    """Returns maps N H H ... of upright pictures as they are stored; empty ones as they are."""
    if not maps.size:
        return maps
    ways = [INVERSE_ORIENTATION.get(image.orientation, image.orientation) for image in images]
    return np.stack([apply_orientation(one, way) for one, way in zip(maps, ways, strict=True)])


def _ranks_of(masks: Sequence[MaskFacts]) -> tuple[np.ndarray, int]:
    """Returns the values of each mask on small maps counted up from 0, N SIDE SIDE, and the most that one has, which
    stands for none: in masks of more than `MOST_VALUES`."""
    found = [np.unique(mask.sample, return_inverse=True) for mask in masks]
    most = max((len(values) for values, _ in found if len(values) <= MOST_VALUES), default=0)
    ranks = np.full((len(masks), SIDE, SIDE), most, np.int16)
    for place, (values, which) in enumerate(found):
        if 0 < len(values) <= most:
            ranks[place] = which.reshape(SIDE, SIDE)
    return ranks, most


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
