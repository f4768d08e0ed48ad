"""How well masks fit images: the edges of what was labelled lie, for a good part, on edges of the picture.

One fit says little, as pictures have many edges that no mask follows; told is only what stands out among the fits of
all masks to all images. Measured on CamVid, an EM stack and photographs of cracks, own fits lie 2.5 to 7 standard
deviations above those to other images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from segtool.check.likeness import standing_out
from segtool.data.facts import ImageFacts, MaskFacts
from segtool.data.images import INVERSE_ORIENTATION, apply_orientation
from segtool.data.pools import in_threads

MIN_PAIRS = 8  # below which nothing stands out
BLOCK = 500  # pairs, in the order of their names, that are compared with each other
TELLING = 2.0  # deviations that the median own fit must lie above the others for fits to tell anything
SWAP_GAIN = 4.5  # deviations that two masks win together by an exchange; right pairs of CamVid reach 2.8
CHAIN_GAIN = 2.5  # mean gain of the masks of a chain, each of which fits the next one's image best
LINK_GAIN = 1.0  # least gain of one of them
SHIFTS = (1, -1, 2, -2, 3, -3)  # places by which all masks of a set may be off

GRID_SPREAD = 0.15  # least deviation assumed of the difference between two fits of one mask
GRID_SURE = 3.0  # standard errors of the mean difference from which on the grid is certain
GRID_LEAST = 0.05  # least mean difference that tells a grid, however many there are
GRID_TELLING = 0.2  # root mean square of the differences where fits tell anything; of right masks of CamVid 0.24 to 0.4
GRID_ONE = 0.25  # difference from which on a mask is against the others; 1 of 5,000 right ones is
GRID_WITH_OTHERS = 0.12  # the same beside a mask that is surely against the others

_ROOTS = np.sqrt(np.arange(256, dtype=np.float32))  # of the shares of an outline

STRANGE_AMONG = 20  # pairs, below which one low fit among others is a chance
STRANGE_MOST = 0.1  # of the masks
STRANGE_GAP = 0.2  # between the best fit of a stranger and the least of all others
STRANGE_EDGES = 0.5  # of the usual length of edges, below which a low fit says little

TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mirrored left to right": lambda maps: maps[..., ::-1],
    "mirrored top to bottom": lambda maps: maps[..., ::-1, :],
    "upside down": lambda maps: maps[..., ::-1, ::-1],
    "transposed": lambda maps: maps.swapaxes(-1, -2),
    "turned to the right": lambda maps: maps.swapaxes(-1, -2)[..., ::-1],
    "turned to the left": lambda maps: maps.swapaxes(-1, -2)[..., ::-1, :],
    "transposed and upside down": lambda maps: maps.swapaxes(-1, -2)[..., ::-1, ::-1],
}
"""What undoes each, of maps ... H W; all but the first three for square pictures."""
TURN_SURE = 4.0  # standard errors by which masks of a whole set must fit better when they are turned
TURN_ONE = 0.35  # gain of one mask among others that lie right; of 700 masks of CamVid none gains more than 0.31
TURN_ALONE = 4.5  # deviations of the gains of all that it lies above their median; right tiles of CamVid reach 3.7


def wrong_pairs(images: Sequence[ImageFacts], masks: Sequence[MaskFacts]) -> list[tuple[int, int]]:
    """Returns the places (i, j) of masks i that fit image j, and not image i that they are paired with.

    Args:
        images: Readable, sorted by name; `masks[i]` is the mask of `images[i]`.
    """
    blocks = [slice(start, start + BLOCK) for start in range(0, len(images), BLOCK)]
    found = in_threads(lambda block: _wrong_pairs(images[block], masks[block]), blocks)
    return [(block.start + i, block.start + j) for block, pairs in zip(blocks, found, strict=True) for i, j in pairs]


def _wrong_pairs(images: Sequence[ImageFacts], masks: Sequence[MaskFacts]) -> list[tuple[int, int]]:
    places = _telling(images, masks)
    if len(places) < MIN_PAIRS:
        return []
    images, masks = [images[place] for place in places], [masks[place] for place in places]
    every = np.ones(len(places), bool)
    outlines = standing_out(_outlines(masks), every)
    fits = outlines @ standing_out(np.stack([image.edges for image in images]), every).T  # of mask i to image j
    own = np.diag(fits).copy()
    np.fill_diagonal(fits, 0)
    num_others = fits.size - len(fits)
    mean = fits.sum(dtype=np.float64) / num_others
    deviation = (np.square(fits).sum(dtype=np.float64) / num_others - mean**2) ** 0.5
    fits -= mean
    fits /= max(deviation, 1e-6)
    own = (own - mean) / max(deviation, 1e-6)
    sizes = {size: number for number, size in enumerate({file.size for file in (*images, *masks)})}
    of_image, of_mask = (np.array([sizes[file.size] for file in files]) for files in (images, masks))
    if len(sizes) > 1:
        fits[of_mask[:, None] != of_image] = -np.inf
    np.fill_diagonal(fits, -np.inf)
    if np.median(own) >= TELLING:
        pairs = _chains(fits, own)
        pairs |= {(i, j) for i, j in _swaps(fits, own) if not {i, j} & {i for link in pairs for i in link}}
    else:
        pairs = _shift(fits, own)
    return sorted((places[i], places[j]) for i, j in pairs)


def _swaps(fits: np.ndarray, own: np.ndarray) -> set[tuple[int, int]]:
    """Returns the pairs of masks that fit better when they are exchanged, both ways."""
    usual = float(np.median(own))
    least = max(SWAP_GAIN + max(0.0, 0.5 * float(np.log10(len(own) / 300))), 1.5 * usual)
    gains = fits - own[:, None]
    together = gains + gains.T
    if together.max() < least:
        return set()
    clear = (together >= least) & (np.minimum(gains, gains.T) >= LINK_GAIN) & (fits + fits.T >= 1.2 * usual)
    clear &= together >= together.max(axis=1, keepdims=True)
    clear &= together >= together.max(axis=0, keepdims=True)
    return {(int(i), int(j)) for i, j in np.argwhere(clear)}


def _chains(fits: np.ndarray, own: np.ndarray) -> set[tuple[int, int]]:
    """Returns the links of chains and rings of three and more masks, each of which fits the next one's image best."""
    best, claimed = fits.argmax(axis=1), fits.argmax(axis=0)
    every = np.arange(len(own))
    top = fits[every, best]
    linked = (claimed[best] == every) & (top - own >= LINK_GAIN) & (top - own[best] >= LINK_GAIN)
    following = {int(i): int(best[i]) for i in every[linked]}
    found: set[tuple[int, int]] = set()
    starts = sorted(following, key=lambda i: i in following.values())  # the beginnings of open chains first
    while starts:
        chain, place = [], starts[0]
        while place in following:
            chain.append((place, following[place]))
            place = following.pop(place)
        starts = [start for start in starts if start in following]
        gains = [float(fits[i, j] - own[i]) for i, j in chain]
        if len(chain) >= 3 and np.mean(gains) >= max(CHAIN_GAIN, 0.75 * float(np.median(own))):
            found |= set(chain)
    return found


def _shift(fits: np.ndarray, own: np.ndarray) -> set[tuple[int, int]]:
    """Returns all pairs where every mask is that of the image some places further on."""
    count = len(own)
    for shift in SHIFTS:
        places = np.arange(max(0, -shift), min(count, count - shift))
        moved = fits[places, places + shift]
        if len(places) >= MIN_PAIRS and moved.mean() >= max(TELLING, own.mean() + 1.5):
            return {(int(i), int(i + shift)) for i in places}
    return set()


# ------------------------------------------------------------------------------------------------- turns


def turned_masks(images: Sequence[ImageFacts], masks: Sequence[MaskFacts]) -> list[tuple[int, str]]:
    """Returns the places of masks that fit their own image when they are turned, and how they lie, as in `TURNS`.

    All masks, where the set as a whole fits better so, by more than the turned masks of other images do: all roads lie
    at the bottom, where pictures have fewer edges than at the top. Else those that gain much, where others lie right.
    """
    usable = _telling(images, masks)
    if len(usable) < MIN_PAIRS:
        return []
    edges = _edges([images[place] for place in usable])
    outlines = _outlines([masks[place] for place in usable])
    square = np.array([images[place].size[0] == images[place].size[1] for place in usable])
    own = _overlap(outlines, edges)
    own_alone = own - _overlaps_of_others(outlines, edges).mean(0)
    all_of_them = np.arange(len(usable))
    lying: dict[int, tuple[float, str]] = {}
    for how in list(TURNS)[: None if square.sum() >= MIN_PAIRS else 3]:
        among = all_of_them if how in list(TURNS)[:3] else np.flatnonzero(square)
        maps = TURNS[how](outlines[among])
        turned = _overlap(maps, edges[among])
        gains = turned - own[among]
        usual, alone = (
            float(np.median(gains)),
            turned - _overlaps_of_others(maps, edges[among]).mean(0) - own_alone[among],
        )
        error = max(GRID_SPREAD, float(alone.std())) / len(alone) ** 0.5
        if alone.mean() >= TURN_SURE * error:
            found = np.arange(len(gains))
        elif usual <= -GRID_TELLING / 2:
            least = max(TURN_ONE, usual + TURN_ALONE * 1.48 * float(np.median(np.abs(gains - usual))))
            found = np.flatnonzero((gains >= least) & (turned >= np.quantile(own[among], 0.25)))
        else:
            continue
        for place, gain in zip(among[found].tolist(), gains[found].tolist(), strict=True):
            lying[place] = max(lying.get(place, (0.0, "")), (gain, how))
    return [(usable[place], lying[place][1]) for place in sorted(lying)]


class Fits(NamedTuple):
    """How masks fit their own images and others."""

    places: list[int]
    """Of the pairs where both have edges, N of them; none where there are too few to compare."""
    order: np.ndarray
    """N, the mask first that fits least for its image."""
    own: np.ndarray
    """How well each lies on its image, N."""
    low: np.ndarray
    """N, whether it lies there no better than most masks of other images do."""


def fits_of(images: Sequence[ImageFacts], masks: Sequence[MaskFacts]) -> Fits:
    """Returns how masks fit their own images, beside what masks of other images give."""
    places = _telling(images, masks)
    if len(places) < MIN_PAIRS:
        return Fits([], np.zeros(0, int), np.zeros(0), np.zeros(0, bool))
    edges = _edges([images[place] for place in places])
    outlines = _outlines([masks[place] for place in places])
    own, others = _overlap(outlines, edges), _overlaps_of_others(outlines, edges)
    order = np.argsort(own - others.mean(0), kind="stable")
    return Fits(places, order, own, own <= np.quantile(others, 0.95))


def strangers(fits: Fits, masks: Sequence[MaskFacts]) -> list[int]:
    """Returns the places of masks that fit their own image no better than others do, where all the rest fit clearly.

    Of 900 sets of 20 to 60 pairs drawn from CamVid, an EM stack and photographs of cracks none gives an alarm.
    """
    places, _, own, low = fits
    count = len(places)
    if count < STRANGE_AMONG:
        return []
    if not 0 < low.sum() <= max(1, STRANGE_MOST * count) or own[~low].min() - own[low].max() < STRANGE_GAP:
        return []
    length = np.array([int(masks[place].outline.sum(dtype=np.int64)) for place in places])
    return [places[place] for place in np.flatnonzero(low & (length >= STRANGE_EDGES * np.median(length)))]


def own_fits(images: Sequence[ImageFacts], masks: Sequence[MaskFacts]) -> np.ndarray:
    """Returns how well each mask fits its image, N within -1 and 1; of right ones of CamVid the mean is 0.39."""
    return _overlap(_outlines(masks), _edges(images))


def _telling(images: Sequence[ImageFacts], masks: Sequence[MaskFacts]) -> list[int]:
    """Returns the places of pairs where both have edges."""
    if not len(images):
        return []
    edges, outlines = np.stack([image.edges for image in images]), np.stack([mask.outline for mask in masks])
    return np.flatnonzero(edges.any(axis=(1, 2)) & outlines.any(axis=(1, 2))).tolist()


def _edges(images: Sequence[ImageFacts]) -> np.ndarray:
    return _normed(np.stack([image.edges for image in images]))


def _outlines(masks: Sequence[MaskFacts]) -> np.ndarray:
    return _normed(_ROOTS[np.stack([mask.outline for mask in masks])])


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
        upright, stored = _overlap(_normed(maps), _outlines([mask]))
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
