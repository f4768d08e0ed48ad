"""Masks of two classes in which these are exchanged: what others call the object is the background here.

First by shares: a mask is suspected whose share of the object no other mask comes near, and all is usual once the
classes are exchanged. Then by the picture: the colours of the two classes must lie the other way round than in the
other images; or, where colours do not tell, the classes must lie in each other's places, or the background must be as
thin as the objects of others, or cut off from the frame that it fills in all others. Large objects and close-ups pass
none of these. Where shares tell nothing, colours or places must be the same way in all others. A picture of the night
has dark sky, but it has it above: where places tell, they must not speak against an exchange.
On the classes of CamVid, an EM stack and photographs of cracks, each taken as the object, nothing is told where all is
right; of two masks exchanged, 19 of 20 are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from segtool.check.likeness import standing_out
from segtool.check.shift import slopes_of

SIDE = 256  # pixels of the shorter side, of which about so many are looked at
MIN_MASKS = 8
MOST = 0.2  # of the masks, from which on it is no mistake of a few
FARTHER = 0.25  # by how much nearer the usual share the exchanged one must be
APART = 0.1  # least distance of the share from all other masks' shares
AGREEING = 0.9  # share of the other images in which the colours lie the same way, where they tell anything
CLEARLY = 0.5  # of the usual difference in colour, the other way round
LEAST_USUAL = 0.2  # of the usual difference in colour that all others must have where it tells alone
CELLS = 8  # to a side, of the map of where a class lies
PLACES_TELL = 0.4  # least usual likeness of where the object lies in one mask and in the others
THIN = 0.25  # least edges of a mask for each pixel of its smaller class, where its objects are thin or tiny
FRAME_USUAL = 0.4  # least share of the frame that the background has in the other masks, for the frame to tell
FRAME_CUT = 0.003  # most of it where it is exchanged: a corner beside a large object is more


def suspects(shares: np.ndarray) -> np.ndarray:
    """Returns the places of masks whose classes may be exchanged, from the share of one class in each, N."""
    if len(shares) < MIN_MASKS:
        return np.zeros(0, int)
    usual = float(np.median(shares))
    suspected = np.abs(shares - usual) > np.abs(1 - shares - usual) + FARTHER
    others = shares[~suspected]
    low, high = float(others.min()), float(others.max())
    alone = (shares < low - APART) | (shares > high + APART)
    usual_else = (1 - shares >= low - APART / 2) & (1 - shares <= high + APART / 2)
    found = np.flatnonzero(suspected & alone & usual_else)
    return found if suspected.sum() == len(found) <= max(1, MOST * len(shares)) else np.zeros(0, int)


class Contrast(NamedTuple):
    """How an image tells the two classes of its mask apart."""

    colors: np.ndarray
    """Mean of class 1 less that of class 0 in each channel, and of the slopes, in deviations of the image."""
    frame: float
    """Share of class 1 along the frame."""
    places: np.ndarray
    """Share of class 1 in each of `CELLS` x `CELLS` cells of the mask."""
    thinness: float
    """Edges of the mask for each pixel of its smaller class."""


def contrast_of(image: np.ndarray, classes: np.ndarray) -> Contrast:
    """Returns the contrast of an image H W C and a mask H W that holds both 0 and 1; what else it holds is ignored."""
    step = max(1, min(classes.shape) // SIDE)
    pixels, classes = image[::step, ::step].astype(np.float32), classes[::step, ::step]
    features = np.concatenate([pixels, slopes_of(pixels)[..., None]], -1)
    deviation = np.maximum(features.std((0, 1)), 1e-6)
    parts = [features[classes == index] for index in (0, 1)]
    means = [part.mean(0) if len(part) else features.mean((0, 1)) for part in parts]
    frame = np.concatenate([classes[0], classes[-1], classes[:, 0], classes[:, -1]])
    one = classes == 1
    cells = Image.fromarray(np.uint8(255) * one).resize((CELLS, CELLS), Image.Resampling.BOX)
    edges = (one[1:] != one[:-1]).sum() + (one[:, 1:] != one[:, :-1]).sum()
    thinness = float(edges / max(1, min(map(len, parts))))
    return Contrast(
        (means[1] - means[0]) / deviation, float((frame == 1).mean()), np.asarray(cells).ravel() / 255, thinness
    )


def is_exchanged(one: Contrast, others: Sequence[Contrast]) -> bool:
    """Whether the classes of a suspected mask lie the other way round than in the other images."""
    if len(others) < MIN_MASKS // 2:
        return False
    colors = np.stack([other.colors for other in others])
    way = colors.mean(0) / np.maximum(colors.var(0), 0.01)
    usual = colors @ way
    here = float(one.colors @ way)
    *likeness, place = _likeness_of_places([*others, one])
    placed = _tells(likeness) and np.median(likeness) >= PLACES_TELL
    if placed and place > 0:
        return False
    if _tells(usual) and (here > 0 or here <= -CLEARLY * float(np.median(usual))):
        return here < 0
    if placed and place <= -CLEARLY * np.median(likeness):
        return True
    if min(one.thinness, np.quantile([other.thinness for other in others], 1 - AGREEING)) >= THIN:
        return True
    frames = np.array([other.frame for other in others])
    behind, cut = (1 - frames, 1 - one.frame) if np.median(frames) < 0.5 else (frames, one.frame)
    return bool(np.quantile(behind, 1 - AGREEING) >= FRAME_USUAL and cut <= FRAME_CUT)


def exchanged_by_pictures(contrasts: Sequence[Contrast], shares: np.ndarray) -> np.ndarray:
    """Returns the places of images whose two classes lie the other way round than in nearly all, whatever their shares.

    Args:
        shares: Of class 1 in each mask; an exchange must bring it among those of the others, as it does not where a
            small object looks like what others have around it.
    """
    if len(contrasts) < MIN_MASKS:
        return np.zeros(0, int)
    colors = np.stack([contrast.colors for contrast in contrasts])
    usual = colors @ (np.median(colors, 0) / np.maximum(colors.var(0), 0.01))
    likeness = _likeness_of_places(contrasts)
    placed = np.median(likeness) >= PLACES_TELL
    by_color, by_place = _other_way_round(usual), _other_way_round(likeness) & placed
    if placed and _tells(likeness):
        by_color &= likeness < 0
    if _tells(usual):
        by_place &= usual < 0
    found = by_color | by_place
    if not found.any():
        return np.zeros(0, int)
    known = shares[~found]
    likely = (1 - shares >= known.min() - APART / 2) & (1 - shares <= known.max() + APART / 2)
    return np.flatnonzero(found & likely)


def _likeness_of_places(contrasts: Sequence[Contrast]) -> np.ndarray:
    """Returns how much each mask has the object where the others have it, N within -1 and 1."""
    maps = standing_out(np.stack([contrast.places for contrast in contrasts]), np.zeros(0))
    others = standing_out(maps.sum(0) - maps, np.zeros(0))
    return np.einsum("nd,nd->n", maps, others)


def _tells(values: Sequence[float] | np.ndarray) -> bool:
    """Whether nearly all values lie the same way."""
    return bool((np.asarray(values) > 0).mean() >= AGREEING)


def _other_way_round(values: np.ndarray) -> np.ndarray:
    """Returns which of N values are clearly contrary to all others, N bool; none where these do not agree."""
    middle = float(np.median(values))
    found = values <= -CLEARLY * middle
    if middle <= 0 or found.sum() > max(1, MOST * len(values)) or values[~found].min() < LEAST_USUAL * middle:
        return np.zeros(len(values), bool)
    return found
