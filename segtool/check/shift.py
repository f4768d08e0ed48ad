"""Whether all masks of a set lie some pixels beside what they outline.

The edges of each mask are laid over the slopes of its image at every shift; what counts is the shift at which most
images of the set have their steepest slopes. On CamVid, an EM stack, photographs of cracks and seven kinds of drawn
scenes it is exactly none, and 3 pixels to the side are seen in nearly all. Masks that are drawn loosely around what
they outline, or within it, fit better at shifts to all sides, and are left.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segtool.data.outline import distance

REACH = 8  # pixels to each side
LEAST = 2  # pixels, below which borders are a matter of taste
MIN_PAIRS = 8
MIN_EDGES = 50
MAX_EDGES = 2000
SURE = 5.0  # standard errors by which the slopes at the shift are steeper than at none
AGREEING = 0.9  # share of the images in which they are
STANDS_OUT = 0.2  # deviations by which the slopes at the shift are above those at most shifts: EM 0.33, noise 0.12
FALLS = 0.85  # most of the mean slope at the shift that may be left without it
OPPOSITE = 0.25  # most of the gain that the opposite shift may have; around loose or tight masks it has 0.36 and more
STEEP = 0.98  # quantile of the slopes, beyond which all are taken as equal
ENOUGH = 25_000  # slopes that it is worked out from


def shift_surface(image: np.ndarray, classes: np.ndarray, *, reach: int = REACH) -> np.ndarray | None:
    """Returns the mean slope of an image H W C under the edges of its mask H W at each shift, in deviations.

    None where there are too few edges; the shift (y, x) of the mask stands at (reach + y, reach + x).
    """
    slopes = slopes_of(image)
    some = slopes.ravel()[:: slopes.size // ENOUGH | 1]  # an odd step, as JPEG has its own slopes at each eighth pixel
    slopes = np.minimum(slopes, np.float32(np.quantile(some, STEEP)))
    edges = np.zeros(classes.shape, bool)
    edges[:, 1:] = classes[:, 1:] != classes[:, :-1]
    edges[1:] |= classes[1:] != classes[:-1]
    edges[:reach] = edges[-reach:] = edges[:, :reach] = edges[:, -reach:] = False
    pixels = np.flatnonzero(edges)
    deviation = slopes.std()
    if len(pixels) < MIN_EDGES or deviation == 0:
        return None
    rows, columns = np.divmod(np.random.default_rng(0).permutation(pixels)[:MAX_EDGES], edges.shape[1])
    windows = np.lib.stride_tricks.sliding_window_view(slopes, (2 * reach + 1, 2 * reach + 1))
    surface = windows[rows - reach, columns - reach].mean(axis=0)
    return (surface - slopes.mean()) / deviation


def common_shift(surfaces: Sequence[np.ndarray]) -> tuple[int, int] | None:
    """Returns the shift (y, x) that all masks need; None where they lie right, or nothing is certain."""
    if len(surfaces) < MIN_PAIRS:
        return None
    found = np.stack(surfaces)
    mean = found.mean(0)
    row, column = divmod(int(mean.argmax()), mean.shape[1])
    y, x = row - REACH, column - REACH
    gains = found[:, row, column] - found[:, REACH, REACH]
    sure = gains.mean() >= SURE * max(float(gains.std()), 1e-6) / len(gains) ** 0.5
    clear = max(abs(y), abs(x)) >= LEAST and mean[REACH, REACH] <= FALLS * mean[row, column]
    seen = mean[row, column] - np.median(mean) >= STANDS_OUT
    one_way = mean[REACH - y, REACH - x] - mean[REACH, REACH] <= OPPOSITE * gains.mean()
    return (y, x) if sure and clear and seen and one_way and (gains > 0).mean() >= AGREEING else None


def way_of(shift: tuple[int, int]) -> str:
    """Returns a shift (y, x) in words: `3 up and 5 to the right`."""
    y, x = shift
    down = f"{abs(y)} {'down' if y > 0 else 'up'}"
    aside = f"{abs(x)} to the {'right' if x > 0 else 'left'}"
    return " and ".join(text for text, value in ((down, y), (aside, x)) if value)


def slopes_of(pixels: np.ndarray) -> np.ndarray:
    """Returns how far each pixel of H W C is from those to the left and above, H W: uint16 of bytes, else float32."""
    kind = np.uint8 if pixels.dtype == np.uint8 else np.float32
    across, down = np.zeros((2, *pixels.shape[:2]), kind)
    for band in np.moveaxis(pixels, -1, 0):  # to take the largest along an axis of three is ten times as slow
        values = np.ascontiguousarray(band, kind)
        np.maximum(across[:, 1:], distance(values[:, 1:], values[:, :-1]), out=across[:, 1:])
        np.maximum(down[1:], distance(values[1:], values[:-1]), out=down[1:])
    return np.add(across, down, dtype=np.uint16 if kind == np.uint8 else kind)
