"""Masks whose ids stand for other classes than in the rest of their set: exchanged, all off by one, of another list.

Small maps tell of each class that a mask holds how its image looks there, where it lies and which form it has, and all
masks together what is usual of a class. Masks are suspected whose classes are more usual as others, by one permutation;
the rest then tells anew what is usual, so that even half of a set may have another list. It is told where the suspected
win much by it, become usual, and nobody is in doubt, as of classes that look alike, close-ups or streets at night.

Measured on 224 right sets of CamVid, an EM stack, cracks, divers, nuclei and their crops, of 8 to 701 masks: the most
that any masks win is 16 where nine tenths of them and of all others are clear; on 520 of 12 to 100 crops, most with
classes merged by chance, it is 24. Of two classes exchanged or three and more permuted, in one mask or in up to half of
them, 3 in 4 are told; of parts of CamVid with classes merged by chance 54 %, and 46 % without colours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from segtool.data.facts import ImageFacts
from segtool.data.outline import NO_TINT, SIDE, TINTS, PictureMaps

MIN_MASKS = 8
TOGETHER = 256  # masks that are looked at at a time, which stay in the processor's cache
LEAST = 3  # samples that a mask has of a class, below which nothing is said of it
KNOWN = 4  # masks with a class, below which nothing is usual of it
COLORED = 1.5  # levels of deviation within images from which on a set has colours; the mean
POOLED = 10.0  # masks that the spread of all classes counts for in that of one
FLOOR = 0.05  # of the variance of all, below which none is taken
TAILS = 4.0  # degrees of freedom: a class that looks unlike all says little
NEVER = -1e3  # gain of being a class of which nothing is usual
SEEDS = 12  # suspected masks that a permutation is looked for in
ROUNDS = 5  # after which masks that are suspected now and then are left
WON = 28.0  # least that masks win by another reading (the median), as natural logarithms of odds
AS_CLEAR = 0.5  # of what the other masks would lose by it (the median)
SURE = 0.4  # of either median, that nine tenths of the masks reach
ODD = 4.0  # most by which even a quarter of their classes is less usual then than 19 of 20 of others; of close-ups 13
AS_WELL = 0.4  # of what a permutation wins, that turning wins of a mask that is turned; of exchanged ones less


class Regions(NamedTuple):
    """The classes that N masks hold, R in all."""

    masks: np.ndarray
    """Place of the mask, R."""
    labels: np.ndarray
    """Index of the class, R."""
    looks: tuple[np.ndarray, ...]
    """What is seen of it, R D each: the image there, its place, its form."""
    num_masks: int
    num_classes: int


class Reading(NamedTuple):
    """Masks in which classes stand for others."""

    masks: np.ndarray
    """Their places, ascending."""
    meant: dict[int, int]
    """The class that the other masks have for each that stands for another one here."""


def maps_of(images: Sequence[ImageFacts]) -> PictureMaps:
    """Returns the maps of images, those of colours for none where hardly any image has colours."""
    thumbnails, edges = np.stack([image.thumbnail for image in images]), np.stack([image.edges for image in images])
    grey = np.full((TINTS, TINTS, 2), NO_TINT, np.uint8)
    tints = np.stack([image.tints if image.tints.size else grey for image in images])
    if tints.std(axis=(1, 2), dtype=np.float32).mean() < COLORED:
        tints = tints[:, :0, :0]
    return PictureMaps(thumbnails, edges, tints)


def regions_of(classes: np.ndarray, pictures: PictureMaps, num_classes: int) -> Regions:
    """Returns the classes of N masks, and what is seen of them.

    Args:
        classes: The index of the class at SIDE x SIDE pixels, N SIDE SIDE; from `num_classes` on what counts nowhere.
        pictures: Of the images.
    """
    parts = []
    for first in range(0, len(classes), TOGETHER):
        some = slice(first, first + TOGETHER)
        parts.append(_seen(first, classes[some], pictures.some(some), num_classes))
    of_labels = [seen for label in zip(*parts, strict=True) for seen in label]
    masks, labels, *looks = (np.concatenate(columns) for columns in zip(*of_labels, strict=True))
    return Regions(masks, labels, tuple(part.astype(np.float64) for part in looks), len(classes), num_classes)


def _seen(first: int, classes: np.ndarray, pictures: PictureMaps, num_classes: int) -> list[tuple[Any, ...]]:
    """Returns for each class the masks that hold it, the first of which has this place, and what is seen of it."""
    rows, columns = np.indices((SIDE, SIDE)).reshape(2, -1) * (2 / (SIDE - 1)) - 1
    frame = np.maximum(abs(rows), abs(columns)) == 1
    places = np.stack([np.ones(SIDE**2), rows, abs(columns), rows**2 + columns**2, frame], 1).astype(np.float32)
    differs = np.zeros(classes.shape, bool)
    for one, other in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[:, :, 1:], np.s_[:, :, :-1])):
        apart = classes[one] != classes[other]
        differs[one] |= apart
        differs[other] |= apart
    tints = np.moveaxis(pictures.tints, -1, 0).repeat(SIDE // TINTS, 2).repeat(SIDE // TINTS, 3)
    looks = [_standard(values) for values in (pictures.thumbnails, pictures.edges, *(tints if tints.size else ()))]
    maps = [values.reshape(len(classes), -1) for values in (*looks, differs.astype(np.float32))]
    flat = classes.reshape(len(classes), -1)
    counted = np.count_nonzero(flat < num_classes, axis=1)
    found = []
    for label in range(num_classes):
        held = flat == label
        masks = np.flatnonzero(np.count_nonzero(held, axis=1) >= LEAST)
        held = held[masks].astype(np.float32)
        sums = held @ places
        pixels, share = sums[:, 0], sums[:, 0] / counted[masks]
        *seen, border = (np.einsum("nd,nd->n", held, values[masks]) / pixels for values in maps)
        image = np.stack(seen, 1) / np.maximum(1 - share, 0.01)[:, None]
        form = np.stack([np.log(share), border, np.sqrt(sums[:, 4] / frame.sum())], 1)
        found.append((first + masks, np.full(len(masks), label), image, sums[:, 1:4] / pixels[:, None], form))
    return found


def misread_masks(regions: Regions) -> list[Reading]:
    """Returns masks whose classes stand for others, those of one permutation together, the most certain first."""
    found = []
    while reading := _reading(regions):
        found.append(reading)
        regions = _without(regions, reading.masks)
    return found


def turned_instead(regions: Regions, reading: Reading, turned: Mapping[str, Regions]) -> dict[int, str]:
    """Returns which masks of a reading rather lie otherwise, and how, as they win about as much so.

    Args:
        turned: The regions of these masks alone, in their order, for each way to turn them.
    """
    parts, start = [regions, *turned.values()], len(regions.labels)
    looks = tuple(np.concatenate(same) for same in zip(*(part.looks for part in parts), strict=True))
    every = regions._replace(labels=np.concatenate([part.labels for part in parts]), looks=looks)
    usual = np.arange(len(every.labels)) < start
    usual[:start] = ~np.isin(regions.masks, reading.masks)
    fits = _fits(every, usual)
    permutation = np.array([reading.meant.get(label, label) for label in range(regions.num_classes)])
    exchanged = _won(regions, _gains(regions, fits[:start]), permutation)[reading.masks]
    own = np.maximum(fits[np.arange(len(fits)), every.labels], NEVER / 2)
    as_it_is = np.bincount(regions.masks, own[:start], regions.num_masks)[reading.masks]
    found = {}
    for how, part in turned.items():
        stop = start + len(part.labels)
        won = np.bincount(part.masks, own[start:stop], len(reading.masks)) - as_it_is
        found |= {int(place): how for place in reading.masks[won >= AS_WELL * exchanged]}
        start = stop
    return found


def _reading(regions: Regions) -> Reading | None:
    """Returns the permutation by which most is won, with its masks; None where there is none that stands out."""
    settled = [_settle(regions, *guess) for guess in _guesses(regions)]
    judged = [found for one in settled if one and (found := _judge(regions, *one))]
    return max(judged, key=lambda found: found[1])[0] if judged else None


def _guesses(regions: Regions) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields permutations that may hold of some masks, each with gains as of `_gains`.

    These are what the masks suspected most tell, and how one kind of masks is read by the other, as if the set had two.
    """
    if len(np.unique(regions.masks)) < MIN_MASKS:
        return
    gains = _gains(regions, _fits(regions, np.ones(len(regions.masks), bool)))
    most = np.bincount(regions.masks, gains.max(1), minlength=regions.num_masks)
    won: dict[tuple[int, ...], float] = {}
    for place in np.argsort(-most)[:SEEDS]:
        permutation = _best(regions, gains, regions.masks == place)
        for _ in range(3):
            permutation = _best(regions, gains, (_won(regions, gains, permutation) > 0)[regions.masks])
        won[tuple(permutation.tolist())] = float(np.maximum(_won(regions, gains, permutation), 0).sum())
    yield from ((np.array(permutation), gains) for permutation in sorted(won, key=lambda one: -won[one])[:2])
    usual = _larger_kind(regions)[regions.masks]
    gains = _gains(regions, _fits(regions, usual))
    yield _best(regions, gains, ~usual), gains


def _settle(regions: Regions, permutation: np.ndarray, gains: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns a permutation, and the fits when those masks alone that win nothing by it tell what is usual.

    Where more than half would win, it is the rest that is to be read by the inverse. None where nothing is left of it.
    """
    fits, before = gains, None
    for _ in range(ROUNDS):
        concerned = _concerned(regions, permutation)
        mended = concerned & (_won(regions, gains, permutation) > 0)
        if 2 * mended.sum() > concerned.sum():
            mended, permutation = concerned & ~mended, np.argsort(permutation)
        if not mended.any():
            return None
        if before is not None and (mended == before).all():
            break
        before = mended
        fits = _fits(regions, ~mended[regions.masks])
        gains = _gains(regions, fits)
        permutation = _best(regions, gains, mended[regions.masks])
    return permutation, fits


def _judge(regions: Regions, permutation: np.ndarray, fits: np.ndarray) -> tuple[Reading, float] | None:
    """Returns the masks that win by a permutation, and what they win in all.

    None where they win little or become nothing usual, or where others are in doubt.
    """
    won, concerned = _won(regions, _gains(regions, fits), permutation), _concerned(regions, permutation)
    mended = concerned & (won > 0)
    few, others = won[mended], -won[concerned & ~mended]
    if not len(few) or not len(others):
        return None
    wins, loses = float(np.median(few)), float(np.median(others))
    sure = np.quantile(few, 0.1) >= SURE * wins and np.quantile(others, 0.1) >= SURE * loses
    if not sure or wins < max(WON, AS_CLEAR * loses):
        return None
    read = mended[regions.masks]
    fit = fits[np.arange(len(fits)), np.where(read, permutation[regions.labels], regions.labels)]
    known = fit > NEVER
    if np.quantile(fit[known & read], 0.25) < np.quantile(fit[known & ~read], 0.05) - ODD:
        return None
    held = np.unique(regions.labels[mended[regions.masks]]).tolist()
    meant = {label: int(permutation[label]) for label in held if permutation[label] != label}
    return Reading(np.flatnonzero(mended), meant), float(few.sum())


def _fits(regions: Regions, usual: np.ndarray) -> np.ndarray:
    """Returns how usual each region is as each class, R K, as logarithms of densities; `NEVER` where that is not known.

    Args:
        usual: Which regions tell what is usual, R bool; each of all but itself.
    """
    labels = regions.labels
    counts = np.bincount(labels[usual], minlength=regions.num_classes)
    fits = np.where(counts >= KNOWN, 0.0, NEVER) + np.zeros((len(labels), 1))
    members = {label: usual & (labels == label) for label in np.flatnonzero(counts >= KNOWN).tolist()}
    for looks in regions.looks:
        values = looks / np.maximum(looks[usual].std(0), 1e-3)
        off = {label: values - values[own].mean(0) for label, own in members.items()}
        squares = {label: off[label][own].T @ off[label][own] for label, own in members.items()}
        freedom = max(1, sum(counts[label] - 1 for label in members))
        common = FLOOR * np.eye(values.shape[1]) + sum(squares.values()) / freedom
        for label, own in members.items():
            off[label][own] *= counts[label] / (counts[label] - 1)
            spread = (squares[label] + POOLED * common) / (counts[label] - 1 + POOLED)
            distance = np.einsum("rd,rd->r", off[label] @ np.linalg.inv(spread), off[label])
            unlikely = (TAILS + values.shape[1]) * np.log1p(distance / TAILS) + np.linalg.slogdet(spread)[1]
            fits[:, label] -= unlikely / 2
    return fits


def _larger_kind(regions: Regions) -> np.ndarray:
    """Returns which masks are of the larger of two kinds, by what sets them apart most, N bool."""
    parts = []
    for looks in regions.looks:
        spread = np.zeros((regions.num_masks, regions.num_classes, looks.shape[1]))
        apart = looks.copy()
        for label in np.unique(regions.labels):
            apart[regions.labels == label] -= looks[regions.labels == label].mean(0)
        spread[regions.masks, regions.labels] = apart / np.maximum(apart.std(0), 1e-3)
        parts.append(spread.reshape(regions.num_masks, -1))
    values = np.concatenate(parts, 1)
    along = values @ np.linalg.eigh(values.T @ values)[1][:, -1]
    order = np.sort(along)
    sums, below = np.cumsum(order)[:-1], np.arange(1, len(order))
    between = sums**2 / below + (order.sum() - sums) ** 2 / (len(order) - below)
    lower = along <= order[between.argmax()]
    return lower if 2 * lower.sum() >= len(lower) else ~lower


def _gains(regions: Regions, fits: np.ndarray) -> np.ndarray:
    """Returns by how much more usual each region is as each class than as its own, R K; 0 where that is not known."""
    own = fits[np.arange(len(fits)), regions.labels][:, None]
    return np.where(own > NEVER, fits - own, 0)


def _won(regions: Regions, gains: np.ndarray, permutation: np.ndarray) -> np.ndarray:
    """Returns what each mask wins where its classes are read by a permutation, N."""
    read = gains[np.arange(len(gains)), permutation[regions.labels]]
    return np.bincount(regions.masks, read, minlength=regions.num_masks)


def _best(regions: Regions, gains: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Returns the permutation by which some regions win most, as far as exchanges of two classes at a time lead, K."""
    classes = np.arange(regions.num_classes)
    totals = (regions.labels[chosen] == classes[:, None]).astype(float) @ gains[chosen]
    permutation = classes.copy()
    while True:
        read = totals[:, permutation]
        own = np.diag(read)
        wins = read + read.T - own - own[:, None]
        one, other = np.unravel_index(wins.argmax(), wins.shape)
        if wins[one, other] <= 1e-9:
            return permutation
        permutation[[one, other]] = permutation[[other, one]]


def _concerned(regions: Regions, permutation: np.ndarray) -> np.ndarray:
    """Returns which masks hold a class that a permutation changes, N bool."""
    changed = permutation[regions.labels] != regions.labels
    return np.bincount(regions.masks, changed, regions.num_masks) > 0


def _without(regions: Regions, masks: np.ndarray) -> Regions:
    kept = ~np.isin(regions.masks, masks)
    looks = tuple(looks[kept] for looks in regions.looks)
    return regions._replace(masks=regions.masks[kept], labels=regions.labels[kept], looks=looks)


def _standard(maps: np.ndarray) -> np.ndarray:
    """Returns maps N H W with mean 0 and deviation 1 each; plain ones with less."""
    values = maps - maps.mean((1, 2), keepdims=True, dtype=np.float32)
    return values / np.maximum(values.std((1, 2), keepdims=True), 4)
