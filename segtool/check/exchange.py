"""Masks of two classes in which these are exchanged: what others call the object is the background here.

First by shares: a mask is suspected whose share of the object no other mask comes near, and all is usual once the
classes are exchanged. Then by the picture: the colours of the two classes must lie the other way round than in the
other images; or, where colours do not tell, the background must be cut off from the frame that it fills in all others.
Large objects and close-ups pass neither. Where shares tell nothing, colours alone must be the same way in all others.
On the classes of CamVid, an EM stack and photographs of cracks, each taken as the object, nothing is told where all is
right; of two masks exchanged, about five of six are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from segtool.check.shift import slopes_of

SIDE = 256  # pixels of the shorter side, of which about so many are looked at
MIN_MASKS = 8
MOST = 0.2  # of the masks, from which on it is no mistake of a few
FARTHER = 0.25  # by how much nearer the usual share the exchanged one must be
APART = 0.1  # least distance of the share from all other masks' shares
AGREEING = 0.9  # share of the other images in which the colours lie the same way, where they tell anything
CLEARLY = 0.5  # of the usual difference in colour, the other way round
LEAST_USUAL = 0.2  # of the usual difference in colour that all others must have where it tells alone
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


def contrast_of(image: np.ndarray, classes: np.ndarray) -> Contrast:
    """Returns the contrast of an image H W C and a mask H W that holds both 0 and 1; what else it holds is ignored."""
    step = max(1, min(classes.shape) // SIDE)
    pixels, classes = image[::step, ::step].astype(np.float32), classes[::step, ::step]
    features = np.concatenate([pixels, slopes_of(pixels)[..., None]], -1)
    deviation = np.maximum(features.std((0, 1)), 1e-6)
    parts = [features[classes == index] for index in (0, 1)]
    means = [part.mean(0) if len(part) else features.mean((0, 1)) for part in parts]
    frame = np.concatenate([classes[0], classes[-1], classes[:, 0], classes[:, -1]])
    return Contrast((means[1] - means[0]) / deviation, float((frame == 1).mean()))


def is_exchanged(one: Contrast, others: Sequence[Contrast]) -> bool:
    """Whether the classes of a suspected mask lie the other way round than in the other images."""
    if len(others) < MIN_MASKS // 2:
        return False
    colors = np.stack([other.colors for other in others])
    way = colors.mean(0) / np.maximum(colors.var(0), 0.01)
    usual = colors @ way
    here = float(one.colors @ way)
    telling = (usual > 0).mean() >= AGREEING
    if telling and (here > 0 or here <= -CLEARLY * float(np.median(usual))):
        return here < 0
    frames = np.array([other.frame for other in others])
    behind, cut = (1 - frames, 1 - one.frame) if np.median(frames) < 0.5 else (frames, one.frame)
    return bool(np.quantile(behind, 1 - AGREEING) >= FRAME_USUAL and cut <= FRAME_CUT)


def exchanged_by_colors(contrasts: Sequence[Contrast], shares: np.ndarray) -> np.ndarray:
    """Returns the places of images whose two classes lie the other way round than in nearly all, by colour alone.

    Args:
        shares: Of class 1 in each mask; an exchange must bring it among those of the others, as it does not where a
            small object looks like what others have around it.
    """
    if len(contrasts) < MIN_MASKS:
        return np.zeros(0, int)
    colors = np.stack([contrast.colors for contrast in contrasts])
    usual = colors @ (np.median(colors, 0) / np.maximum(colors.var(0), 0.01))
    middle = float(np.median(usual))
    found = np.flatnonzero(usual <= -CLEARLY * middle)
    if middle <= 0 or len(found) > max(1, MOST * len(usual)):
        return np.zeros(0, int)
    others, known = np.delete(usual, found), np.delete(shares, found)
    likely = (1 - shares >= known.min() - APART / 2) & (1 - shares <= known.max() + APART / 2)
    return found[likely[found]] if others.min() >= LEAST_USUAL * middle else np.zeros(0, int)
