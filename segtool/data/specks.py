"""Regions of a few pixels in a mask: what stray clicks and noise leave."""

from __future__ import annotations

import numpy as np

SPECK_PIXELS = 6
"""Pixels of the largest region that is a speck."""
SLIP_PIXELS = 16
"""Pixels that a value has in all, in one mask alone, where it is a slip of the pen, which no network learns."""
SLIP_MASKS = 5
"""Masks that there are at least, where a value of one of them alone may be one."""
FEW = 20
"""Runs that might be specks, below which none are counted: they are no label noise, and it takes time."""
AROUND = (np.arange(-2, 5), np.arange(-3, 6))  # rows and columns that are looked at from the first pixel of a speck
TOGETHER = 1 << 12  # specks that are looked at at a time, as each takes 63 pixels of memory
MAX_SHARE = 0.1  # of the pixels that begin a short run, beyond which a mask is noise or a soft edge and nothing is told


def find_specks(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Returns the first run of each speck of N masks: of each region of up to 6 pixels, diagonals connected.

    Args:
        values: Of the runs of equal pixels, mask by mask and row by row; no two masks have one in common.
        starts: Where these begin, counted on through all masks; the first of each row included.
        lengths: Of the runs.
        lower: N H W bool, whether a pixel differs from the one below; so do all of the last row.
    """
    num_masks, height, width = lower.shape

    def in_many(runs: np.ndarray, most: float = np.inf) -> np.ndarray:
        """Returns the runs of the masks that have neither few of them nor too many."""
        masks = starts[runs] // (height * width)
        number = np.bincount(masks, minlength=num_masks)
        return runs[((number >= FEW) & (number <= most))[masks]]

    short = in_many(np.flatnonzero(lengths <= SPECK_PIXELS), MAX_SHARE * height * width)
    if len(short):
        short = in_many(short[~_stand_in_column(starts[short], lower.reshape(-1, width))])
    if not len(short):
        return short
    one, other = _touching(values, starts, lengths, short, width)
    label = np.arange(1, len(short) + 1)
    label[one[other < 0]] = 0  # part of a region with a long run
    one, other = one[other >= 0], other[other >= 0]
    for _ in range(SPECK_PIXELS):  # a speck has no more rows; what is not of one label by then is larger
        np.minimum.at(label, one, label[other])
    sizes = np.bincount(label, lengths[short])
    sizes[0] = sizes[label[one[label[one] != label[other]]]] = np.inf
    specks = np.flatnonzero((sizes > 0) & (sizes <= SPECK_PIXELS)) - 1  # the first run of each
    return short[specks]


def are_alone(masks: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """Returns of each speck whether it lies within one other value, with nothing else two pixels around it.

    So do stray pixels; fragments of poles and signs mostly have an edge beside them.

    Args:
        masks: N H W.
        firsts: Of the specks, the first pixel, counted on through all masks.
    """
    parts = np.split(firsts, range(TOGETHER, len(firsts), TOGETHER))
    return np.concatenate([_are_alone(masks, part) for part in parts])


def _are_alone(masks: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    _, height, width = masks.shape
    mask, place = np.divmod(firsts, height * width)
    row, column = np.divmod(place, width)
    rows = (row[:, None] + AROUND[0]).clip(0, height - 1)
    columns = (column[:, None] + AROUND[1]).clip(0, width - 1)
    seen = masks[mask[:, None, None], rows[:, :, None], columns[:, None, :]]
    seen = seen.reshape(len(firsts), seen.shape[1] * seen.shape[2])
    own = seen == masks.ravel()[firsts][:, None]
    other = seen[:, :1]  # two rows above the speck
    alone: np.ndarray = (own | (seen == other)).all(1) & (own.sum(1) <= SPECK_PIXELS) & ~own[:, 0]
    return alone


def _stand_in_column(pixels: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Returns for each of the pixels whether more of its value stand above and below it than a speck has.

    All columns are looked at, eight in a byte: places where none of `SPECK_PIXELS` borders in a column divides pixels.
    """
    packed = np.packbits(lower, axis=1)
    borders = np.full((len(packed) + 2 * SPECK_PIXELS, packed.shape[1]), 255, np.uint8)  # beyond all rows too
    borders[SPECK_PIXELS:-SPECK_PIXELS] = packed
    for step in (1, 2, 2):  # 2, 4, 6 borders, of which any divides
        borders = borders[:-step] | borders[step:]
    for step in (1, 2, 3):  # 2, 4, 7 places of so many borders around a pixel, which all do
        borders = borders[:-step] & borders[step:]
    row, column = np.divmod(pixels, lower.shape[1])
    return borders[row, column >> 3] << (column & 7).astype(np.uint8) < 128


def _touching(
    values: np.ndarray, starts: np.ndarray, lengths: np.ndarray, short: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns pairs of runs of one value that touch, one above the other, in both orders.

    The first is a short run, its place among them; the second too, or -1 where it is any other run.
    """
    first, size = starts[short], lengths[short]
    column = first % width
    left, right = first - (column > 0), first + size - (column + size == width)  # with the pixels beside it
    one, row = np.tile(np.arange(len(short)), 2), np.repeat([-width, width], len(short))
    left, right = left[one] + row, right[one] + row
    within = np.flatnonzero((left >= 0) & (right < starts[-1] + lengths[-1]))
    begin = np.searchsorted(starts, left[within], side="right") - 1
    count = np.searchsorted(starts, right[within], side="right") - begin
    one = np.repeat(one[within], count)
    run = np.arange(len(one)) + np.repeat(begin + count - np.cumsum(count), count)
    alike = np.flatnonzero(values[run] == values[short[one]])
    place = np.full(len(starts), -1)
    place[short] = np.arange(len(short))
    return one[alike], place[run[alike]]
