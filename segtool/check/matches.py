"""Which masks fit which images of a set, by small maps: where the edges of both lie, and what the classes explain.

Told is what stands out among the fits of all masks to all images. Measured on CamVid, an EM stack and photographs of
cracks, own fits by edges lie 4 to 7 standard deviations above those to other images. Where edges are soft, as of spots
on skin, and in print, what the classes explain of the pictures lies 5 above them, and edges tell nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from segtool.check.areas import fits_of_areas
from segtool.check.exchange import maps_of
from segtool.check.fit import KEEPING_SHAPE, MIN_PAIRS, TURNS, outlines_of, telling
from segtool.check.likeness import standing_out
from segtool.data.facts import ImageFacts, MaskFacts
from segtool.data.outline import SIDE
from segtool.system.pools import in_threads

BLOCK = 500  # most pairs, in the order of their names, that are compared with each other
TELLING = 2.0  # deviations that the median own fit must lie above the others for fits to tell anything
LEAST_WEIGHT = 0.5  # of what does not tell, where what does weighs as many as its fits lie above the others
SWAP_GAIN = 4.5  # deviations that two masks win together by an exchange; right pairs of CamVid reach 0.4
CHAIN_GAIN = 2.5  # mean gain of the masks of a chain, each of which fits the next one's image best
LINK_GAIN = 1.0  # least gain of one of them
SHIFT_GAIN = 1.5  # mean gain of masks that are all off by as many places
LOW, LOW_SHARE = 1.65, 0.25  # deviations, and share of the usual fit, up to which a mask fits as others do
TURN_GAIN, TURN_SURE = 0.2, 1.5  # of a mask that is turned, also in deviations; right ones gain 0.14 at most
STRANGE_AMONG = 20  # pairs, below which one low fit among others is a chance
STRANGE_MOST = 0.1  # of the masks
STRANGE_GAP, GAP_SHARE = 1.0, 0.25  # deviations, and share of the usual fit, from a stranger to the least of all others
STRANGE_EDGES = 0.5  # of the usual length of edges, below which a low fit says little
SHIFTS = (1, -1, 2, -2, 3, -3)  # places by which all masks of a set, or of one of its folders, may be off
CLEAR = 3.5  # deviations that a mask fits one image better than others, where no others of both fit as well
MOST_CLEAR = 0.4  # share of the masks that do so where their own images do not; by chance 0.23 at most, in disorder 0.5


class Matches(NamedTuple):
    """Which masks fit which images, of pairs in the order of their names."""

    wrong: list[tuple[int, int]]
    """Places (i, j) of masks i that fit image j, and not image i that they are paired with."""
    own: dict[int, float]
    """Deviations by which masks fit their own images better than others, by edges alone where that is more; of those
    where both have edges, and none where few have."""
    turned: dict[int, str]
    """Masks that fit their own image only when they are turned, among others that lie right, and how, as in `TURNS`."""


def match(images: Sequence[ImageFacts], masks: Sequence[MaskFacts], classes: np.ndarray, num_classes: int) -> Matches:
    """Returns which masks fit which images.

    Args:
        images: Readable, sorted by name; `masks[i]` is the mask of `images[i]`.
        classes: Of each mask at SIDE x SIDE pixels, N SIDE SIDE; from `num_classes` on none.
    """
    ends = np.linspace(0, len(images), -(-len(images) // BLOCK) + 1).astype(int).tolist()
    blocks = [slice(*block) for block in pairwise(ends)]

    def look(block: slice) -> Matches:
        return _match(images[block], masks[block], classes[block], num_classes)

    found = list(zip(blocks, in_threads(look, blocks), strict=True))
    return Matches(
        [(block.start + i, block.start + j) for block, matches in found for i, j in matches.wrong],
        {block.start + i: fit for block, matches in found for i, fit in matches.own.items()},
        {block.start + i: how for block, matches in found for i, how in matches.turned.items()},
    )


def strangers(own: Mapping[int, float], masks: Sequence[MaskFacts]) -> list[int]:
    """Returns the places of masks that fit their own image no better than others do, where all the rest fit clearly.

    Of foreign masks among 20 to 60 pairs of CamVid, an EM stack and photographs of cracks 5 in 6 are told, and one mask
    in 60 such sets that are right: it is for a closer look to deny.

    Args:
        own: Of `Matches`.
    """
    places, fits = list(own), np.array(list(own.values()))
    if len(fits) < STRANGE_AMONG or not tell(own):
        return []
    usual = float(np.median(fits))
    low = fits <= highest_low(own)
    gap = max(STRANGE_GAP, GAP_SHARE * usual)
    if not 0 < low.sum() <= max(1, STRANGE_MOST * len(fits)) or fits[~low].min() - fits[low].max() < gap:
        return []
    length = np.array([int(masks[place].outline.sum(dtype=np.int64)) for place in places])
    return [places[place] for place in np.flatnonzero(low & (length >= STRANGE_EDGES * np.median(length)))]


def tell(own: Mapping[int, float]) -> bool:
    """Whether the small maps of a set of such own fits tell anything."""
    return float(np.median(list(own.values()))) >= TELLING


def highest_low(own: Mapping[int, float]) -> float:
    """Returns the fit up to which a mask fits its image as the masks of others do, in a set of such own fits."""
    return max(LOW, LOW_SHARE * float(np.median(list(own.values()))))


def gain_of_turn(images: Sequence[ImageFacts], masks: Sequence[MaskFacts], place: int, how: str) -> float:
    """Returns how much better a mask fits its image when it is turned, as in `TURNS`, among the pairs around it."""
    block = slice(max(0, place - BLOCK // 2), place + BLOCK // 2)
    outlines, edges = _apart(outlines_of(masks[block])), _apart(np.stack([image.edges for image in images[block]]))
    outline, edge = outlines[place - block.start], edges[place - block.start]
    turned = TURNS[how](outline.reshape(2, SIDE, SIDE)).ravel()
    return float((turned - outline) @ edge)


def _match(images: Sequence[ImageFacts], masks: Sequence[MaskFacts], classes: np.ndarray, num_classes: int) -> Matches:
    places = telling(images, masks)
    if len(places) < MIN_PAIRS:
        return Matches([], {}, {})
    images, masks = [images[place] for place in places], [masks[place] for place in places]
    outlines, edges = _apart(outlines_of(masks)), _apart(np.stack([image.edges for image in images]))
    by_edges, deviation = _in_deviations(outlines @ edges.T)  # of mask i to image j
    of_areas = fits_of_areas(classes[places], maps_of(images), num_classes)
    by_areas, _ = _in_deviations(_centered(of_areas))
    both = _together(by_edges, by_areas)
    sizes = {size: number for number, size in enumerate({file.size for file in (*images, *masks)})}
    of_image, of_mask = (np.array([sizes[file.size] for file in files]) for files in (images, masks))
    folders = defaultdict(list)
    for place, mask in enumerate(masks):
        folders[mask.path.parent].append(place)
    groups = [np.array(among) for among in (*folders.values(), [*range(len(masks))])]
    possible = (of_mask[:, None] == of_image) | np.eye(len(masks), dtype=bool)
    by_edges, both = (np.where(possible, fits, -np.inf) for fits in (by_edges, both))
    pairs = _links(by_edges, groups)  # first: edges differ more from those of the next frame of a video than areas do
    pairs |= _without(pairs, _links(both, groups))
    turned: dict[int, str] = {}
    if np.median(np.diag(by_edges)) >= TELLING:
        square = np.array([image.size[0] == image.size[1] for image in images])
        turned = _turned(outlines, edges, square, least=max(TURN_GAIN, TURN_SURE * deviation))
    else:
        pairs |= _without(pairs, _in_disorder(by_edges))
    return Matches(
        sorted((places[i], places[j]) for i, j in pairs),
        dict(zip(places, np.maximum(np.diag(by_edges), np.diag(both)).tolist(), strict=True)),
        {places[i]: how for i, how in turned.items()},
    )


def _in_deviations(fits: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns fits N N in deviations of those of masks to the images of others, and what one is."""
    others = fits[~np.eye(len(fits), dtype=bool)]
    deviation = max(float(others.std(dtype=np.float64)), 1e-6)
    return (fits - others.mean(dtype=np.float64)) / deviation, deviation


def _centered(fits: np.ndarray) -> np.ndarray:
    """Returns fits N N without what is of the mask or of the image alone: some fit well anywhere, some have all fit."""
    others = np.where(np.eye(len(fits), dtype=bool), np.nan, fits)
    of_masks, of_images = np.nanmean(others, 1, keepdims=True), np.nanmean(others, 0, keepdims=True)
    return fits - of_masks - of_images


def _together(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns fits N N of two kinds as one, in deviations; each weighs as much as it tells of this set."""
    both = max(LEAST_WEIGHT, _standing(one)) * one + max(LEAST_WEIGHT, _standing(other)) * other
    return _in_deviations(both)[0]


def _standing(fits: np.ndarray) -> float:
    """Returns how far fits N N of masks to their images stand out, all of which may be off by some places."""
    shifts = [shift for shift in (0, *SHIFTS) if len(fits) - abs(shift) >= MIN_PAIRS]
    return max(float(np.median(np.diagonal(fits, shift))) for shift in shifts)


def _links(fits: np.ndarray, groups: Sequence[np.ndarray]) -> set[tuple[int, int]]:
    """Returns the masks that are exchanged or moved on, as `Matches.wrong`, by fits N N in deviations.

    Args:
        groups: Places of masks that may all be off by some places.
    """
    own, others = np.diag(fits), np.where(np.eye(len(fits), dtype=bool), -np.inf, fits)
    pairs = _shifts(others, own, groups)
    if np.median(own) >= TELLING:
        pairs |= _without(pairs, _chains(others, own))
        pairs |= _without(pairs, _swaps(others, own))
    return pairs


def _turned(outlines: np.ndarray, edges: np.ndarray, square: np.ndarray, *, least: float) -> dict[int, str]:
    """Returns the masks that fit their own image so much better when they are turned, of maps N D as of `_apart`.

    Of masks of the whole of CamVid turned alone 19 of 20 gain as much, of photographs of cracks 4 of 5, of its small
    objects hardly any.
    """
    own = np.einsum("nd,nd->n", outlines, edges)
    maps = outlines.reshape(len(outlines), 2, SIDE, SIDE)
    gains = np.full((len(TURNS), len(own)), -np.inf)
    for row, turn in enumerate(TURNS.values()):
        among = np.flatnonzero(square | (row < KEEPING_SHAPE))
        turned = turn(maps[among]).reshape(len(among), outlines.shape[1])
        gains[row, among] = np.einsum("nd,nd->n", turned, edges[among]) - own[among]
    ways = list(TURNS)
    return {int(place): ways[gains[:, place].argmax()] for place in np.flatnonzero(gains.max(0) >= least)}


def _apart(maps: np.ndarray) -> np.ndarray:
    """Returns what sets N maps apart from their mean, as they are and without what changes slowly, N D of norm 1.

    Right masks of CamVid fit their images 2.9 deviations better than others as the maps are, 6.4 without their slow
    changes; its cars, which are few cells, 1.9 and 2.0. Both together do well in all sets: 4.9 and 2.3.
    """
    every = np.ones(len(maps), bool)
    return np.concatenate([standing_out(maps, every), standing_out(maps - _blurred(maps), every)], 1) * 0.5**0.5


def _blurred(maps: np.ndarray) -> np.ndarray:
    """Returns the mean of 3x3 cells around each, of maps N H W."""
    padded = np.pad(maps.astype(np.float32), ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9


def _swaps(fits: np.ndarray, own: np.ndarray) -> set[tuple[int, int]]:
    """Returns the pairs of masks that fit better when they are exchanged, both ways."""
    usual = float(np.median(own))
    least = max(SWAP_GAIN + max(0.0, 0.5 * float(np.log10(len(own) / 300))), 1.5 * usual)
    gains = fits - own[:, None]
    together = gains + gains.T
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


def _shifts(fits: np.ndarray, own: np.ndarray, groups: Sequence[np.ndarray]) -> set[tuple[int, int]]:
    """Returns all pairs of those groups of places in which every mask is that of the image some places further on.

    Only groups whose masks do not fit their own images are looked at; a mask that does is left out.
    """
    found: set[tuple[int, int]] = set()
    for places in groups:
        if len(places) < MIN_PAIRS or np.median(own[places]) >= TELLING:
            continue
        for shift in SHIFTS:
            within = np.arange(max(0, -shift), len(places) - max(0, shift))
            here, there = places[within], places[within + shift]
            least = max(TELLING, own[places].mean() + SHIFT_GAIN)
            if len(within) >= MIN_PAIRS and fits[here, there].mean() >= least:
                off = own[here] - fits[here, there] < LINK_GAIN  # others of the group may lie right
                found |= _without(found, {*zip(here[off].tolist(), there[off].tolist(), strict=True)})
                break
    return found


def _in_disorder(fits: np.ndarray) -> set[tuple[int, int]]:
    """Returns the masks that belong to other images, where of those that fit others best many clearly belong there."""
    every = np.arange(len(fits))
    fits, own = fits.copy(), np.diag(fits)
    best, claimed = fits.argmax(axis=1), fits.argmax(axis=0)
    top = fits[every, best]
    fits[every, best] = -np.inf
    others = fits[np.isfinite(fits)]  # of which the deviation was, but for those that fit
    clear = (claimed[best] == every) & (top - others.mean() >= CLEAR * others.std())
    lost = best != every
    if not lost.any() or clear[lost].mean() < MOST_CLEAR:
        return set()
    return {(int(i), int(best[i])) for i in np.flatnonzero(clear & lost & (top - own >= CHAIN_GAIN))}


def _without(known: set[tuple[int, int]], links: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Returns the links between places of which none is known."""
    taken = {place for link in known for place in link}
    return {link for link in links if not taken & {*link}}
