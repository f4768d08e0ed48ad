"""How well masks fit images: the edges of what was labelled lie, for a good part, on edges of the picture.

One fit says little, as pictures have many edges that no mask follows; told is only what stands out among the fits of
masks to images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from segtool.check.likeness import standing_out
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
    edges = _edges([images[place] for place in usable])
    outlines = outlines_of([masks[place] for place in usable])
    square = np.array([images[place].size[0] == images[place].size[1] for place in usable])
    own = _overlap(outlines, edges)
    own_alone = own - _overlaps_of_others(outlines, edges).mean(0)
    all_of_them = np.arange(len(usable))
    lying: dict[int, tuple[float, str]] = {}
    for how in list(TURNS)[: None if square.sum() >= MIN_PAIRS else KEEPING_SHAPE]:
        among = all_of_them if how in list(TURNS)[:KEEPING_SHAPE] else np.flatnonzero(square)
        maps = TURNS[how](outlines[among])
        turned = _overlap(maps, edges[among])
        alone = turned - _overlaps_of_others(maps, edges[among]).mean(0) - own_alone[among]
        error = max(GRID_SPREAD, float(alone.std())) / len(alone) ** 0.5
        if alone.mean() >= TURN_SURE * error:
            for place, gain in zip(among.tolist(), (turned - own[among]).tolist(), strict=True):
                lying[place] = max(lying.get(place, (-np.inf, "")), (gain, how))
    return [(usable[place], lying[place][1]) for place in sorted(lying)]


def own_fits(images: Sequence[ImageFacts], masks: Sequence[MaskFacts]) -> np.ndarray:
    """Returns how well each mask fits its image, N within -1 and 1; of right ones of CamVid the mean is 0.39."""
    return _overlap(outlines_of(masks), _edges(images))


def telling(images: Sequence[ImageFacts], masks: Sequence[MaskFacts]) -> list[int]:
    """Returns the places of pairs where both have edges."""
    if not len(images):
        return []
    edges, outlines = np.stack([image.edges for image in images]), np.stack([mask.outline for mask in masks])
    return np.flatnonzero(edges.any(axis=(1, 2)) & outlines.any(axis=(1, 2))).tolist()


def _edges(images: Sequence[ImageFacts]) -> np.ndarray:
    return _normed(np.stack([image.edges for image in images]))


def outlines_of(masks: Sequence[MaskFacts]) -> np.ndarray:
    return _normed(np.sqrt(np.stack([mask.outline for mask in masks]), dtype=np.float32))


def _normed(maps: np.ndarray) -> np.ndarray:
    """Returns each of N maps, N H W, without its mean and of norm 1."""
    return standing_out(maps, np.zeros(0)).reshape(maps.shape)


def _overlap(outlines: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Returns how well each of N outlines lies on the edges of its image, N within -1 and 1, both normed N H W."""
    return np.einsum("nhw,nhw->n", outlines, edges)


def _overlaps_of_others(outlines: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Returns how well three outlines of other images lie on the edges of each, 3 N, both normed N H W."""
    count = len(edges)
    rows = []
    for shift in (count // 4, count // 2, 3 * count // 4):
        # In two parts, as a set that is rolled is copied: of 100,000 pairs 400 MB.
        last, first = _overlap(outlines[-shift:], edges[:shift]), _overlap(outlines[:-shift], edges[shift:])
        rows.append(np.concatenate([last, first]))
    return np.stack(rows)


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
