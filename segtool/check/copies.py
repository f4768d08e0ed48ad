"""Pictures of which one shows nearly all of the other: copies whose margins were cut off, and a closer look at copies.

Small maps of each picture, cut as a copy may be, are laid over those of the others; the most alike of them is then
laid exactly. What is left is read again, at `FINE` pixels a side: in a copy most parts agree in what no thumbnail has,
the grain and the fine lines. Two drawn boxes on white, two spots on skin or two bodies in a scanner may lie alike, but
hardly any of their parts agrees.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from PIL import Image

from segtool.check.likeness import FEW, normed, slopes_of_maps, turn, turned_alike
from segtool.data.facts import ImageFacts
from segtool.data.outline import SIDE, as_picture

CUTS = (0.06, 0.12)  # of a side, that are tried; copies that lack 0.03 to 0.15 come near enough to one of them
POOLED = 4  # cells a side of a thumbnail that are one where all pictures are compared
MOST_COMPARED = 20_000_000  # pairs of pictures, above which no cropped copies are looked for: 2 seconds
PIXELS = 10  # of all pictures for each such pair, at least: comparing more of them takes as long as reading them
LIKELY = 0.75  # least correlation of what is cut with the other picture, for laying it exactly: of copies 0.83
ALIKE, ALIKE_SLOPES = 0.8, 0.5  # the same of the thumbnails laid exactly, and of their slopes: cracks have 0.83, 0.59
BEYOND = 0.02  # of a side, by which a part may seem to lie beyond the whole
LACKING = 0.02  # of a side, least that it lacks; frames of a moving camera lack nothing, but show something new
STEPS = 5  # of laying exactly
TOGETHER = 256  # pictures that are laid at a time, which stay in the processor's cache
FINE = 128  # pixels a side of pictures that are read again
PARTS = 8  # to a side, which are compared one by one
DETAIL = 5  # pixels, the mean of which is no detail
GRAIN = 0.5  # grey levels of deviation from which on a part has detail
SAME = 0.3  # least correlation of detail, in the median part of copies; JPEG of quality 85 has 0.38, others 0.09
MORE = 0.12  # by how much more copies agree than others of their set: next frames of streets 0.3, of cells 0.1 to 0.5
OTHER_COLORS = 0.5  # correlation of colours up to which pictures are others, as boxes on white are
SURE = 0.95  # correlation of detail from which on they are copies all the same, in another light

Box = tuple[float, float, float, float]
"""Top, bottom, left and right of what is cut out, in shares of the whole."""
Way = tuple[bool, bool, bool]


class Part(NamedTuple):
    """A picture that may be a part of another one, by their places."""

    whole: int
    part: int
    box: Box = (0, 1, 0, 1)
    alike: float = 1.0
    """Correlation of their thumbnails."""
    way: Way = (False, False, False)
    """How the part is turned to lie as the whole does, as of `turn`."""

    @property
    def lacks_margins(self) -> bool:
        """Whether it is clearly less than the whole."""
        top, bottom, left, right = self.box
        return min(bottom - top, right - left) <= 1 - LACKING

    def turned(self, part: np.ndarray) -> np.ndarray:
        """Returns the part's picture H W C as it lies in the whole."""
        aside, over, transposed = self.way
        part = part[:: -1 if over else 1, :: -1 if aside else 1]
        return np.ascontiguousarray(part.swapaxes(0, 1) if transposed else part)


class SecondLook(NamedTuple):
    """How two pictures agree, of which one is cut out of the other."""

    everywhere: float
    """Correlation of their detail in the median of all parts, 0 in parts without any."""
    where_any: float
    """The same of those parts that have detail in both; nan where none has."""
    colors: float
    """Correlation of where which colour lies; 1 where one has no colours."""

    @property
    def is_copy(self) -> bool:
        """Whether one surely is cut out of the other."""
        return self.everywhere >= SAME and not self._has_other_colors

    def is_nearer(self, than: SecondLook) -> bool:
        """Whether they are more alike than one of them and another picture of the set, or nothing tells."""
        return not self._has_other_colors and not self.where_any < than.where_any + MORE

    @property
    def _has_other_colors(self) -> bool:
        return self.colors <= OTHER_COLORS and self.everywhere < SURE


def likely_parts(
    images: Sequence[ImageFacts], usable: np.ndarray, groups: Sequence[np.ndarray], *, turned: bool = False
) -> list[Part]:
    """Returns the pictures that may be parts of one of another group: of each picture and group, one whole at most.

    Args:
        usable: Of each picture, whether there is something to compare.
        groups: The places of the pictures of each.
        turned: Of those that were mirrored or turned, whole ones too, in place of parts that lie as they did.
    """
    groups = [group[usable[group]] for group in groups]
    pairs = [(one, other) for one, other in permutations(groups, 2) if len(one) and len(other)]
    most = min(MOST_COMPARED, sum(image.size[0] * image.size[1] for image in images) // PIXELS)
    if not pairs or sum(len(one) * len(other) for one, other in pairs) > 2 * most:
        return []
    thumbnails = np.stack([image.thumbnail for image in images]).astype(np.float32)
    wholes, parts, lines, ways = _best_boxes(thumbnails, usable, pairs, turned=turned)
    usual = _Usual(thumbnails[usable])
    laid = []
    for first in range(0, len(parts), TOGETHER):
        some = slice(first, first + TOGETHER)
        laid += _laid(usual, thumbnails, wholes[some], parts[some], lines[some], ways[:, some])
    return [part for part in laid if _lies_within(part.box) and (turned or part.lacks_margins)]


def look_again(whole: np.ndarray, part: np.ndarray, box: Box = (0, 1, 0, 1)) -> SecondLook:
    """Returns how two pictures H W C agree, of which the second may be the first within a box, as of `Part`."""
    first, second = _fine(whole, box), _fine(part)
    grey = [pixels.mean(2) for pixels in (first, second)]
    lines = _lines(((0, 1), (0, 1)), FINE)[None]
    lines = _lay(grey[0][None], grey[1][None], lines)
    laid = _cut(grey[0][None], lines)[0]
    details = [_parts(pixels - _blurred(pixels)) for pixels in (laid, grey[1])]
    grain = np.minimum(*(detail.std(1) for detail in details)) >= GRAIN
    agreeing = np.einsum("nd,nd->n", *(normed(detail) for detail in details))
    where_any = float(np.median(agreeing[grain])) if grain.any() else float("nan")
    return SecondLook(float(np.median(np.where(grain, agreeing, 0))), where_any, _colors_alike(first, second))


# ------------------------------------------------------------------------------------------------- thumbnails


class _Usual:
    """What maps N H W of a set have in common, which is taken away before they are compared."""

    def __init__(self, maps: np.ndarray) -> None:
        self.mean = normed(maps.reshape(len(maps), -1).copy()).mean(0) if len(maps) >= FEW else np.float32(0)

    def standing_out(self, maps: np.ndarray) -> np.ndarray:
        """Returns what sets each of N maps apart, N D of norm 1."""
        return normed(normed(maps.reshape(len(maps), maps.shape[1] * maps.shape[2]).copy()) - self.mean)


def _best_boxes(
    thumbnails: np.ndarray, usable: np.ndarray, pairs: Sequence[tuple[np.ndarray, np.ndarray]], *, turned: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns for each picture of the second of two groups that of the first which, cut as a copy may be, is most like
    it, by small maps: the places of both, lines as of `_lines`, and how the part is turned to lie as the whole does, as
    of `turn`; those that are likely."""

    def lying_alike(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return turned_alike(maps) if turned else (maps, np.zeros((3, len(maps)), bool))

    pooled, ways = lying_alike(_pooled(thumbnails))
    usual = _Usual(pooled[usable])
    aims = usual.standing_out(pooled)
    boxes = np.stack([_lines(box, SIDE) for box in _boxes()])
    best = [(np.full(len(parts), -1, np.float32), *np.zeros((2, len(parts)), int)) for _, parts in pairs]
    ways_of_best = [np.zeros((3, len(parts)), bool) for _, parts in pairs]
    for number, lines in enumerate(boxes):
        maps, ways_of_cut = lying_alike(_pooled_cut(thumbnails, lines))
        cut = usual.standing_out(maps)
        for (wholes, parts), (fits, tops, numbers), found in zip(pairs, best, ways_of_best, strict=True):
            every = aims[parts] @ cut[wholes].T
            top = every.argmax(1)
            fit = every[np.arange(len(parts)), top]
            better = fit > fits
            fits[better], tops[better], numbers[better] = fit[better], wholes[top[better]], number
            found[:, better] = _way_between(ways[:, parts[better]], ways_of_cut[:, tops[better]])
    parts = np.concatenate([parts for _, parts in pairs])
    fits, tops, numbers = (np.concatenate(column) for column in zip(*best, strict=True))
    between = np.concatenate(ways_of_best, 1)
    likely = (fits >= LIKELY) & (between.any(0) == turned)
    return tops[likely], parts[likely], boxes[numbers[likely]], between[:, likely]


def _way_between(ways: np.ndarray, of_others: np.ndarray) -> np.ndarray:
    """Returns how pictures are turned to lie as others do, all as of `turn`, where both were turned to lie alike."""
    (aside, over, transposed), (others_aside, others_over, others_transposed) = ways, of_others
    across = transposed != others_transposed  # what mirrors the other's rows mirrors this one's columns
    others_aside, others_over = np.where(across, [others_over, others_aside], [others_aside, others_over])
    return np.stack([aside != others_aside, over != others_over, across])


def _boxes() -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Returns the boxes that are tried, rows and columns in shares: cut at an edge, at a corner, all around."""
    found = []
    for cut in CUTS:
        ends = ((0.0, 1.0), (cut, 1.0), (0.0, 1 - cut))
        found += [(rows, columns) for rows in ends for columns in ends][1:]
        found.append(((cut / 2, 1 - cut / 2),) * 2)
    return found


def _pooled(maps: np.ndarray) -> np.ndarray:
    count, side = maps.shape[0], maps.shape[1] // POOLED
    return maps.reshape(count, side, POOLED, side, POOLED).mean((2, 4))


def _pooled_cut(maps: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Returns `_pooled` of what lies in one box of N maps, in two products of matrices."""
    rows, columns = (weights[0].reshape(-1, POOLED, maps.shape[1]).mean(1) for weights in _weights(lines[None], SIDE))
    return np.tensordot(maps @ columns.T, rows, axes=(1, 1)).swapaxes(1, 2)


def _alike(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", one, other)


# ------------------------------------------------------------------------------------------------- laying exactly


def _laid(
    usual: _Usual, thumbnails: np.ndarray, wholes: np.ndarray, parts: np.ndarray, lines: np.ndarray, ways: np.ndarray
) -> list[Part]:
    """Returns those of some pictures, as of `_best_boxes`, that are parts of others once they are laid exactly."""
    aims = turn(thumbnails[parts], ways)
    fits = _alike(usual.standing_out(_cut(thumbnails[wholes], lines)), usual.standing_out(aims))
    likely = fits >= LIKELY
    wholes, parts, lines, aims, ways = wholes[likely], parts[likely], lines[likely], aims[likely], ways[:, likely]
    lines = _lay(thumbnails[wholes], aims, lines)
    cut, aims = usual.standing_out(_cut(thumbnails[wholes], lines)), usual.standing_out(aims)
    alike = _alike(cut, aims)
    found = (alike >= ALIKE) & (_alike(slopes_of_maps(cut), slopes_of_maps(aims)) >= ALIKE_SLOPES)
    rows = zip(wholes[found].tolist(), parts[found].tolist(), lines[found], alike[found], ways.T[found], strict=True)
    return [Part(whole, part, _box(line), float(fit), tuple(way.tolist())) for whole, part, line, fit, way in rows]


def _lines(box: tuple[tuple[float, float], tuple[float, float]], side: int) -> np.ndarray:
    """Returns the middle of the rows of a box in cells, and how far the outmost ones are from it; so of its columns."""
    ends = np.array(box, np.float32)
    middles, reaches = ends.mean(1) * side - 0.5, (ends[:, 1] - ends[:, 0]) * (side - 1) / 2
    return np.stack([middles, reaches], 1).ravel()


def _box(lines: np.ndarray) -> Box:
    """Returns top, bottom, left and right of what `_lines` gives of a thumbnail."""
    middles, reaches = (lines[::2] + 0.5) / SIDE, lines[1::2] / (SIDE - 1)
    top, left = (middles - reaches).tolist()
    bottom, right = (middles + reaches).tolist()
    return top, bottom, left, right


def _lies_within(box: Box) -> bool:
    return min(box) >= -BEYOND and max(box) <= 1 + BEYOND


def _cut(maps: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Returns what lies in a box of each of N maps H H, as of `_lines`, at the size of the map."""
    rows, columns = _weights(lines, maps.shape[-1])
    return rows @ maps @ columns.swapaxes(1, 2)


def _weights(lines: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights of the cells of a map in the rows, and in the columns, of each of N boxes: N H H."""
    lean, cells = np.linspace(-1, 1, side, dtype=np.float32), np.arange(side, dtype=np.float32)
    places = (np.clip(lines[:, i, None] + lines[:, i + 1, None] * lean, 0, side - 1) for i in (0, 2))
    rows, columns = (np.maximum(0, 1 - abs(place[..., None] - cells)) for place in places)
    return rows, columns


def _lay(wholes: np.ndarray, parts: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Returns the boxes, as of `_lines`, in which N maps H H look most like N others, from boxes near to them.

    Source: Lucas and Kanade, An Iterative Image Registration Technique, 1981; here with a place and a length an axis.
    """
    side = wholes.shape[-1]
    lean = np.linspace(-1, 1, side, dtype=np.float32)
    aims = normed(parts.reshape(-1, side**2).copy())
    for _ in range(STEPS):
        now = normed(_cut(wholes, lines).reshape(-1, side**2))
        down, across = np.gradient(now.reshape(wholes.shape), axis=(1, 2))
        ways = np.stack([down, down * lean[:, None], across, across * lean], 1).reshape(-1, 4, side**2)
        square = ways @ ways.swapaxes(1, 2) + 1e-4 * np.eye(4, dtype=np.float32)
        wanted = ways @ (aims - now)[..., None]
        lines = lines + np.clip(np.linalg.solve(square, wanted)[..., 0], -1, 1)
    return lines


# ------------------------------------------------------------------------------------------------- pictures


def _fine(pixels: np.ndarray, box: Box = (0, 1, 0, 1)) -> np.ndarray:
    """Returns what lies in a box of an image, FINE FINE C float32 of 1 or 3 channels."""
    picture = as_picture(pixels)
    top, bottom, left, right = np.clip(box, 0, 1)
    inside = (left * picture.width, top * picture.height, right * picture.width, bottom * picture.height)
    small = picture.resize((FINE, FINE), Image.Resampling.BILINEAR, box=inside)
    return np.atleast_3d(np.asarray(small, np.float32))


def _blurred(pixels: np.ndarray) -> np.ndarray:
    """Returns the mean of `DETAIL` x `DETAIL` pixels around each of H W."""
    padded, (height, width) = np.pad(pixels, DETAIL // 2, mode="edge"), pixels.shape
    rows = np.add.reduce([padded[first : first + height] for first in range(DETAIL)])
    return np.add.reduce([rows[:, first : first + width] for first in range(DETAIL)]) / DETAIL**2


def _parts(pixels: np.ndarray) -> np.ndarray:
    """Returns the squares of a map FINE FINE, each as a row."""
    side = FINE // PARTS
    return pixels.reshape(PARTS, side, PARTS, side).swapaxes(1, 2).reshape(PARTS**2, -1)


def _colors_alike(first: np.ndarray, second: np.ndarray) -> float:
    if min(first.shape[2], second.shape[2]) < 3:
        return 1.0
    hues = [
        np.stack([pixels[..., 0] - pixels[..., 1], pixels[..., 2] - pixels[..., 1]]).reshape(2, -1)
        for pixels in (first, second)
    ]
    hues = [hue - hue.mean(1, keepdims=True) for hue in hues]
    if min(hue.std() for hue in hues) < 2:
        return 1.0
    return float(np.corrcoef(hues[0].ravel(), hues[1].ravel())[0, 1])
