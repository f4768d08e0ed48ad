"""How much of an image the classes of masks explain: what areas tell, where edges are faint, or too many.

Where the classes of a set differ in colour or texture, as spots from skin and print from paper, the mask of an image
explains more of it than the masks of other images do. So it is in whole sets or not at all: of CamVid, an EM stack and
photographs of cracks all but a few masks of each do, of the cars of CamVid one in ten.

This share of the variance is the correlation ratio by which Roche and others register pictures of two kinds ("The
Correlation Ratio as a New Similarity Measure for Multimodal Image Registration", MICCAI 1998).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from segtool.check.shift import slopes_of
from segtool.data.outline import PictureMaps

MOST_EXPLAINED = 0.999  # of a map, beyond which more says no more
SIDE = 96  # rows and columns of each image that are looked at
LEAST = 8  # images, below which nothing stands out
OWN = 0.05  # most of the other masks (or one) that may explain an image better than its own
LOST = 0.25  # least of them that do where the mask is of another image: 3 in 4 foreign masks
CLEARLY = 3.0  # deviations above the others at least, of a mask that is said to be an image's
LOST_MOST = 0.25  # of the images
DOUBTFUL = 0.05  # most of the images (or one) of which neither can be said


class Areas(NamedTuple):
    """What the areas of masks tell, in a set where they tell anything."""

    places: list[int]
    """Of the pairs, in the order of what follows."""
    values: list[np.ndarray]
    """Of each image, as of `_values_of`."""
    shares: np.ndarray
    """N N, how much mask i explains of image j."""
    own: set[int]
    """Masks that explain their image as hardly any other mask does."""
    lost: set[int]
    """Masks of images that many other masks explain better."""
    usual: float
    """Deviations by which masks explain their images better than other masks do, the median."""

    def explained(self, place: int, mask: np.ndarray) -> bool:
        """Whether a mask H W explains an image as clearly as its own would, and better than the one that it has."""
        image = self.places.index(place)
        share = float(_shares(mask, self.values[image], [0])[0])
        others = np.delete(self.shares[:, image], image)
        if share <= self.shares[image, image] or (others > share).sum() > _few(OWN, len(others)):
            return False
        return _deviations(share, others[others < share]) >= max(CLEARLY, self.usual / 2)


def areas_of(pairs: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> Areas | None:
    """Returns what the areas of some masks H W tell of their images H W C; None where they tell nothing."""
    if len(pairs) < LEAST:
        return None
    values = [_values_of(image) for image, _ in pairs.values()]
    firsts = [0, *np.cumsum([one.shape[1] for one in values[:-1]])]
    together = np.concatenate(values, axis=1)
    shares = np.array([_shares(mask, together, firsts) for _, mask in pairs.values()])
    better = (shares > np.diag(shares)).sum(0)
    others = len(pairs) - 1
    lost, own = better >= LOST * others, better <= _few(OWN, others)
    if lost.sum() > LOST_MOST * len(pairs) or (~lost & ~own).sum() > _few(DOUBTFUL, len(pairs)):
        return None
    usual = np.median([_deviations(row[place], np.delete(row, place)) for place, row in enumerate(shares.T)])
    places = list(pairs)
    explaining, foreign = ({places[place] for place in np.flatnonzero(which)} for which in (own, lost))
    return Areas(places, values, shares, explaining, foreign, float(usual))


def fits_of_areas(classes: np.ndarray, pictures: PictureMaps, num_classes: int, *, own: bool = False) -> np.ndarray:
    """Returns how much of the small maps of each of N images the classes of N masks explain, N N, mask by image.

    It is the root of -ln(1 - share of the variance), which is added up over the maps of brightness, edges and colours.

    Args:
        classes: The index of the class at SIDE x SIDE pixels of the masks, N SIDE SIDE; from `num_classes` on nothing.
        pictures: Of the images.
        own: Of each mask with its own image only, N.
    """
    maps = [_quarters(pictures.thumbnails), _quarters(pictures.edges), *np.moveaxis(pictures.tints, -1, 0)]
    values = [_normed(one.reshape(len(one), -1)) for one in maps if one.size]  # of each map N P
    left = np.ones((len(classes),) if own else (len(classes), len(classes)), np.float32)
    present = np.flatnonzero(np.bincount(classes.ravel())[:num_classes])
    members = [_shares_of_pixels(classes == label) for label in present.tolist()]
    for some in values:
        shares = np.zeros_like(left)
        for held, pixels in members:
            sums = np.einsum("np,np->n", pixels, some[held]) if own else pixels @ some.T
            np.square(sums, out=sums)
            shares[held] += sums
        left *= 1 - np.minimum(shares, MOST_EXPLAINED, out=shares)
    return np.sqrt(-np.log(left))


def _shares_of_pixels(held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns which of N masks hold a class at all, and what weighs their pixels, P each: the square of such a sum of
    normed values is the share of the variance that lies between this class and the rest.

    Args:
        held: Where they hold it, N SIDE SIDE.
    """
    pixels = _quarters(held).reshape(len(held), -1)
    areas = pixels.sum(1)
    some = np.flatnonzero(areas)
    return some, pixels[some] / np.sqrt(areas[some, None] * pixels.shape[1])


def _quarters(maps: np.ndarray) -> np.ndarray:
    """Returns the means of 2x2 cells of maps N SIDE SIDE, N TINTS TINTS."""
    rows = np.add(maps[:, ::2], maps[:, 1::2], dtype=np.float32)
    return (rows[..., ::2] + rows[..., 1::2]) / 4


def _normed(values: np.ndarray) -> np.ndarray:
    """Returns values N P, each row of mean 0 and deviation 1; 0 where all are equal."""
    values = values - values.mean(1, keepdims=True, dtype=np.float32)
    return values / np.maximum(values.std(1, keepdims=True), 1e-6)


def _few(share: float, count: int) -> float:
    return max(1, share * count)


def _deviations(value: float, others: np.ndarray) -> float:
    return float((value - others.mean()) / max(others.std(), 1e-6)) if len(others) else 0.0


def _shares(mask: np.ndarray, values: np.ndarray, firsts: Sequence[int]) -> np.ndarray:
    """Returns the share of the variance of each image's values that lies between the classes of a mask.

    Args:
        values: Of all images side by side, as of `_values_of`: one product of matrices instead of many small ones.
        firsts: The first column of each image.
    """
    _, classes, counts = np.unique(_some_of(mask), return_inverse=True, return_counts=True)
    members = (np.arange(len(counts))[:, None] == classes.ravel()).astype(np.float32)
    columns = (np.square(members @ values) / counts[:, None]).sum(0) / len(values)
    return np.add.reduceat(columns, firsts) / np.diff([*firsts, len(columns)])


def _values_of(image: np.ndarray) -> np.ndarray:
    """Returns colours and slopes of an image H W C at some pixels, D C+1, each of mean 0 and deviation 1."""
    values = np.concatenate([_some_of(image), _some_of(slopes_of(image))[..., None]], -1).astype(np.float32)
    return _normed(values.reshape(SIDE**2, -1).T).T


def _some_of(array: np.ndarray) -> np.ndarray:
    """Returns SIDE rows and columns of an array H W or H W C."""
    rows, columns = (((np.arange(SIDE) + 0.5) * length / SIDE).astype(int) for length in array.shape[:2])
    return array[rows[:, None], columns]
