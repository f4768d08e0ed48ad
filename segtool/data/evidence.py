"""What the pixels of all masks say about their encoding, for `init`.

The histograms decide, over every mask: how many values there are, how much area each covers, in how many files it
occurs, and whether it forms areas at all (2x2 blocks) or only the soft edges between areas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from segtool.data.codes import pack, unpack
from segtool.data.facts import MaskFacts
from segtool.data.opening import shown
from segtool.errors import DataError

VOID = 255
RARE_SHARE = 1e-3  # a class of an inexact mask covers at least this share of all pixels
COMMON_SHARE = 0.05  # no single grey of a soft edge covers as much
SOFT = 0.25  # values with fewer 2x2 blocks per pixel than this form no areas
MANY_VALUES = 64
SNAP = 6  # JPEG moves a flat 0 or 255 by less
ROUNDING = 3  # and its change of colour space alone by less: PNGs that once were JPEGs


@dataclass(frozen=True)
class Totals:
    """Histogram over a set of masks: one entry for each distinct stored value (or packed colour), ascending."""

    values: np.ndarray
    pixels: np.ndarray
    solid: np.ndarray
    files: np.ndarray
    """In how many masks each value occurs."""
    num_files: int

    @property
    def shares(self) -> np.ndarray:
        """Share of all pixels, of each value."""
        return self.pixels / max(1, int(self.pixels.sum()))

    @property
    def solidity(self) -> np.ndarray:
        """2x2 blocks per pixel, of each value."""
        return self.solid / np.maximum(1, self.pixels)

    def share(self, values: Sequence[int] | np.ndarray) -> float:
        """Returns the share of all pixels that some of the values hold."""
        return float(self.shares[np.isin(self.values, list(values))].sum())


@dataclass(frozen=True)
class Guess:
    """An encoding and the classes that the masks hold."""

    encoding: str
    """As in `data.encoding`."""
    reason: str
    """The figures behind it, for a comment."""
    codes: tuple[tuple[int, ...], ...]
    """Of each class, the stored values or packed colours that mean it."""
    shares: tuple[float, ...]
    """Of all pixels, by class, as the encoding reads them."""
    totals: Totals
    nearest: bool = False
    ignore: tuple[int, ...] = ()
    ignore_reason: str = ""
    colors: dict[int, int] = field(default_factory=dict)
    """Packed colour of a stored value, where a palette gives one."""
    notes: tuple[str, ...] = ()
    """What the user should look at."""


def guess_encoding(masks: Sequence[MaskFacts], *, place: Sequence[str] = ()) -> Guess:
    """Returns the encoding that fits all readable masks.

    Args:
        place: lines of YAML under `data:` that say where the masks are, for the config that an error proposes.

    Raises:
        DataError: no mask can be read, or they hold instance ids or a continuous picture; says how to go on.
    """
    readable = [mask for mask in masks if not mask.error]
    if not readable:
        raise DataError(*(f"{shown(mask.path)}: {mask.error}" for mask in masks[:5]))
    if any(mask.colored for mask in readable):
        return _guess_colors(readable, "rgb", f"masks of mode {_modes(readable)}")
    if _palettes_disagree(readable):
        encoding = "palette" if all(mask.mode == "P" for mask in readable) else "rgb"
        return _guess_colors(readable, encoding, "the same index has different colours in different masks' palettes")
    return _guess_values(readable, place)


def total(masks: Sequence[MaskFacts]) -> Totals:
    """Returns the histogram over several masks."""
    values, inverse = np.unique(np.concatenate([mask.values for mask in masks]), return_inverse=True)
    size = len(values)
    pixels = np.bincount(inverse, np.concatenate([mask.counts for mask in masks]), size).astype(np.int64)
    solid = np.bincount(inverse, np.concatenate([mask.solid for mask in masks]), size).astype(np.int64)
    return Totals(values, pixels, solid, np.bincount(inverse, minlength=size), len(masks))


def percent(share: float) -> str:
    """Returns a share for people: `5.2 %`, `0.03 %`, `<0.001 %`."""
    if share <= 0:
        return "0 %"
    if share < 1e-5:
        return "<0.001 %"
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.1f} %"


# ------------------------------------------------------------------------------------------------- grey and index


def _guess_values(masks: Sequence[MaskFacts], place: Sequence[str]) -> Guess:
    totals = total(masks)
    _refuse_instances(masks, totals, place)
    _refuse_one_value(totals)
    if any(mask.lossy for mask in masks) or _has_soft_edges(totals):
        palettes = any(mask.mode == "P" for mask in masks)
        return _guess_colors(masks, "rgb", "soft-edged masks") if palettes else _guess_threshold(masks, totals)
    if _is_blur(totals):
        return _guess_blurred(masks, totals)
    void, why = _find_void(masks, totals)
    codes, note = _merge_binary(masks, totals, [int(v) for v in totals.values if v not in void])
    reason = f"{len(totals.values)} distinct values in {_num(masks)} of mode {_modes(masks)}"
    shares = tuple(map(totals.share, codes))
    return Guess(
        "index", reason, codes, shares, totals, ignore=void, ignore_reason=why, colors=_palette(masks), notes=note
    )


def _guess_threshold(masks: Sequence[MaskFacts], totals: Totals) -> Guess:
    lossy = any(mask.lossy for mask in masks)
    kept = _dominant(totals, totals.values[:, None].astype(float), distance=32 if lossy else 16)
    if len(kept) < 2 or totals.share(kept) < 0.3:
        _refuse_picture(masks, totals)
    moved = percent(1 - totals.share(kept))
    what = "JPEG" if lossy else "soft-edged"
    reason = f"{what} masks: {_listed(kept)} hold all but {moved} of the pixels; each of those counts as the nearest"
    codes = _snapped(kept) if lossy else kept
    shares = _nearest_shares(totals, totals.values[:, None], np.array(codes)[:, None])
    return Guess("threshold", reason, tuple((int(code),) for code in codes), shares, totals)


def _is_blur(totals: Totals) -> bool:
    """Whether there are many values, and all but the frequent ones form no areas."""
    few = totals.shares < COMMON_SHARE
    return len(totals.values) > MANY_VALUES and totals.solid[few].sum() < SOFT * totals.pixels[few].sum()


def _guess_blurred(masks: Sequence[MaskFacts], totals: Totals) -> Guess:
    """Returns 0 and 255 where one of them is the background of thin things whose soft edges meet in the middle."""
    low, high = int(totals.values.min()), int(totals.values.max())
    background = totals.share([value for value in totals.values if value < SNAP or value > 255 - SNAP])
    if low >= SNAP or not 192 <= high <= 255 or background < 0.5 or any(mask.mode == "P" for mask in masks):
        _refuse_picture(masks, totals)
    reason = (
        f"values {low} to {high}, all but {percent(1 - background)} of the pixels near 0 or 255: taken as masks of 0 "
        "and 255 with soft edges, each pixel as the nearer of the two; look at a mask to see that it is so"
    )
    shares = _nearest_shares(totals, totals.values[:, None], np.array([[0], [255]]))
    return Guess("threshold", reason, ((0,), (255,)), shares, totals)


def _has_soft_edges(totals: Totals) -> bool:
    """Whether most values form no areas and lie between few that do, far apart: an anti-aliased or rescaled mask."""
    stray = (totals.shares < COMMON_SHARE) & (totals.solidity < SOFT)
    if _has_specks(totals, stray):
        return True
    kept = totals.values[~stray]
    if stray.sum() < max(4, len(stray) / 2) or len(kept) < 2 or kept.max() - kept.min() < 32:
        return False
    between = (totals.values[stray] > kept.min() - 32) & (totals.values[stray] < kept.max() + 32)
    return bool(between.all()) and float(totals.shares[~stray].sum()) > 0.5


def _has_specks(totals: Totals, stray: np.ndarray) -> bool:
    """Whether a few values of hardly any pixels stand close to others, which are far apart: 3 or 254 beside 0, 255."""
    kept = totals.values[~stray]
    if not stray.any() or len(kept) < 2 or np.diff(kept).min() < 64 or (totals.shares[stray] > RARE_SHARE).any():
        return False
    gaps = np.abs(totals.values[stray][:, None] - kept[None]).min(1)
    return bool((gaps <= 16).all()) and not bool((totals.files[stray] * 2 > totals.num_files).any())


def _dominant(totals: Totals, points: np.ndarray, *, distance: float, noisy: bool = False) -> list[int]:
    """Returns the values that hold area and are no mixture, the most frequent of each neighbourhood, ascending.

    Args:
        points: n d, what distances are measured between.
        noisy: what forms no areas is noise, be it on the way between others or not.
    """
    frequent = (totals.shares >= RARE_SHARE) | ((totals.solidity > 0.5) & (totals.files * 2 >= totals.num_files))
    order = [int(index) for index in np.argsort(-totals.pixels, kind="stable") if frequent[index]]
    ends = points[order[:64]]
    kept: list[int] = []
    for index in order:
        near = kept and np.linalg.norm(points[kept] - points[index], axis=1).min() < distance
        soft = totals.solidity[index] < SOFT
        if not near and not (soft and (noisy or _is_mixture(points[index], ends))):
            kept.append(index)
    return sorted(int(totals.values[index]) for index in kept)


def _is_mixture(point: np.ndarray, ends: np.ndarray) -> bool:
    """Whether a point lies on the way between two of the ends, as the colours of a soft edge do."""
    starts, ways = ends[:, None], ends[None] - ends[:, None]  # n 1 d, n n d
    lengths = (ways**2).sum(-1)
    place = ((point - starts) * ways).sum(-1) / np.maximum(lengths, 1)
    gaps = np.linalg.norm(starts + place[..., None] * ways - point, axis=-1)
    return bool(((place > 0.05) & (place < 0.95) & (gaps < 12)).any())


def _find_void(masks: Sequence[MaskFacts], totals: Totals) -> tuple[tuple[int, ...], str]:
    """Returns 255 where it stands beside a small set of class values, as VOC and Cityscapes write what is not labelled.

    Pure {0, 255} is a binary mask; {0, 1} in some files and {0, 255} in others is one too, in two spellings.
    """
    negative = tuple(int(value) for value in totals.values if value < 0)
    if negative and len(totals.values) - len(negative) >= 2:
        return negative, f"negative values cover {percent(totals.share(negative))} of the pixels: taken as void"
    others = totals.values[totals.values != VOID]
    if VOID not in totals.values or len(others) < 2 or others.max() >= MANY_VALUES or _two_spellings(masks, totals):
        return (), ""
    files = sum(VOID in mask.values for mask in masks)
    share = percent(totals.share([VOID]))
    return (VOID,), (
        f"255 covers {share} of the pixels in {files} of {_num(masks)} beside values {_listed(others)}: taken as void"
    )


def _two_spellings(masks: Sequence[MaskFacts], totals: Totals) -> bool:
    together = any(VOID in mask.values and 1 in mask.values for mask in masks)
    return totals.values.tolist() == [0, 1, VOID] and not together


def _merge_binary(
    masks: Sequence[MaskFacts], totals: Totals, values: list[int]
) -> tuple[tuple[tuple[int, ...], ...], tuple[str, ...]]:
    """Returns each class's values: one each, but 1 and 255 together where no mask holds both."""
    if values == [0, 1, VOID] and _two_spellings(masks, totals):
        return ((0,), (1, VOID)), ("some masks write the object as 1, others as 255: both are one class",)
    return tuple((value,) for value in values), ()


def _refuse_one_value(totals: Totals) -> None:
    if len(totals.values) == 1:
        raise DataError(
            f"all masks hold the one value {totals.values[0]}: there is nothing to tell apart; "
            "expected at least two values. Is this the right folder of masks?"
        )


# ------------------------------------------------------------------------------------------------- instances


def _refuse_instances(masks: Sequence[MaskFacts], totals: Totals, place: Sequence[str]) -> None:
    """Raises DataError, with the classes to write, where values count objects instead of naming classes."""
    evidence = _instance_evidence(masks, totals)
    if evidence is None:
        return
    wide = any(mask.mode.startswith("I") for mask in masks)
    top = max(65535, int(totals.values.max())) if wide else 255
    rows = [
        "data:",
        *(f"  {row}" for row in place),
        "  encoding: index",
        "  classes:",
        "    - {name: background, values: [0]}",
        f"    - {{name: object, values: [1..{top}]}}",
    ]
    raise DataError(
        f"{_num(masks)}: the values look like instance ids ({evidence}), but classes are expected. Where every id is "
        "an object of one class, this is a whole config:\n" + "\n".join(rows)
    )


def _instance_evidence(masks: Sequence[MaskFacts], totals: Totals) -> str | None:
    ids = totals.values[totals.values != 0]
    num = len(ids)
    what = f"{num} distinct values besides 0, up to {ids.max()}" if num else ""
    wide = bool(num) and (ids.max() > 255 or any(mask.mode.startswith("I") for mask in masks))
    if num > MANY_VALUES and wide:
        return what
    lone = float((totals.files[totals.values != 0] == 1).mean()) if num else 0.0
    if num > 16 and len(masks) >= (3 if wide else 8) and lone > 0.8:
        return f"{what}, {percent(lone)} of them in one file only"
    if num >= 10 and _counts_up(masks):
        return f"{what}; each mask holds 1, 2, 3, … without a gap, up to another number"
    return None


def _counts_up(masks: Sequence[MaskFacts]) -> bool:
    """Whether each mask holds exactly 1..n (and 0), n differing in most masks: objects were counted."""
    tops = []
    for mask in masks:
        ids = mask.values[mask.values != 0]
        if len(ids) and (ids[0] != 1 or ids[-1] != len(ids)):
            return False
        tops.append(len(ids))
    return len(set(tops)) >= max(2, len(tops) / 2) or (len(tops) == 1 and tops[0] > MANY_VALUES)


def _refuse_picture(masks: Sequence[MaskFacts], totals: Totals) -> None:
    kind, given = "values", "values, with data.encoding: threshold"
    if any(mask.colored for mask in masks):
        kind, given = "colours", "colors, with data.encoding: rgb and data.nearest: true"
    raise DataError(
        f"{_num(masks)}: {len(totals.values)} distinct {kind} without a few that hold most pixels, as in photographs "
        f"or probability maps; expected a few values that stand for classes. First: {shown(masks[0].path)}. Is this "
        f"the right folder of masks? If it is, give each class its {given} in a config by hand"
    )


# ------------------------------------------------------------------------------------------------- colours


def _guess_colors(masks: Sequence[MaskFacts], encoding: str, what: str) -> Guess:
    colored = [_in_colors(mask) for mask in masks]
    totals = total(colored)
    lossy = any(mask.lossy for mask in masks)
    noisy = lossy or _is_noisy(totals)
    exact = np.setdiff1d(totals.values, _stray_colors(totals, noisy=noisy, lossy=lossy))
    if len(totals.values) == 1:
        raise DataError(
            f"all masks hold the one colour {hex_color(int(totals.values[0]))}: there is nothing to tell apart; "
            "expected at least two colours. Is this the right folder of masks?"
        )
    if len(exact) < 2 or len(exact) > 256 or totals.share(exact) < 0.3:
        _refuse_picture(masks, totals)
    nearest = len(exact) < len(totals.values) or lossy
    reason = f"{what}: {len(totals.values)} distinct colours in {_num(masks)}"
    notes: tuple[str, ...] = ()
    if nearest:
        moved = percent(1 - totals.share(exact))
        reason = (
            f"{what}: {len(totals.values)} distinct colours, {len(exact)} of which hold all but {moved} of the pixels"
        )
        notes = (f"{moved} of the mask pixels have a colour of no class and count as the nearest one",)
        exact = pack(_snapped(unpack(exact), SNAP if lossy else ROUNDING)) if noisy else exact
    shares = _nearest_shares(totals, unpack(totals.values), unpack(exact))
    codes = tuple((int(color),) for color in exact)
    return Guess(encoding, reason, codes, shares, totals, nearest=nearest, notes=notes)


def _is_noisy(totals: Totals) -> bool:
    stray = (totals.shares < RARE_SHARE) & (totals.solidity < SOFT)
    many = len(stray) > 32 and stray.sum() > len(stray) / 2
    return many or len(stray) > 256


def _stray_colors(totals: Totals, *, noisy: bool, lossy: bool) -> np.ndarray:
    """Returns the colours that stand for no class: noise around the frequent ones, or mixtures on soft edges."""
    points = unpack(totals.values).astype(float)
    if noisy:
        return np.setdiff1d(totals.values, _dominant(totals, points, distance=24 if lossy else 16, noisy=True))
    doubtful = (totals.shares < RARE_SHARE) & (totals.solidity < SOFT)
    everywhere = totals.files * 2 >= totals.num_files
    mixtures = doubtful.sum() >= max(4, (~doubtful).sum())
    sure = points[~doubtful]
    stray = [
        index
        for index in doubtful.nonzero()[0]
        if len(sure) and (mixtures or (_gap(points[index], sure) <= 48 and not everywhere[index]))
    ]
    return totals.values[stray]


def _gap(point: np.ndarray, others: np.ndarray) -> float:
    return float(np.linalg.norm(others - point, axis=1).min())


def _in_colors(mask: MaskFacts) -> MaskFacts:
    """Returns the mask's facts with its values as packed colours."""
    if mask.colored:
        return mask
    steps = np.arange(256) * (255 if mask.mode == "1" else 1)
    table = pack(_table(mask.palette)) if mask.palette else steps * 0x010101
    values, inverse = np.unique(table[np.minimum(mask.values, len(table) - 1)], return_inverse=True)
    counts = np.bincount(inverse, mask.counts, len(values)).astype(np.int64)
    solid = np.bincount(inverse, mask.solid, len(values)).astype(np.int64)
    return MaskFacts(
        mask.path, None, mask.size, mask.mode, mask.lossy, True, None, values.astype(np.int64), counts, solid
    )


def _snapped(values: Sequence[int] | np.ndarray, reach: int = SNAP) -> np.ndarray:
    """Returns values with those that JPEG has moved off 0 or 255, by less than `reach`, put back."""
    numbers = np.asarray(values)
    return np.where(numbers < reach, 0, np.where(numbers > 255 - reach, 255, numbers)).astype(numbers.dtype)


def _nearest_shares(totals: Totals, points: np.ndarray, centres: np.ndarray) -> tuple[float, ...]:
    """Returns the share of all pixels that is nearest to each centre, K d, among the totals' points, n d."""
    best = np.full(len(points), np.inf)
    owner = np.zeros(len(points), np.intp)
    for index, centre in enumerate(centres.astype(float)):
        distance = ((points - centre) ** 2).sum(-1)
        owner[distance < best] = index
        best = np.minimum(best, distance)
    return tuple(np.bincount(owner, totals.shares, len(centres)).tolist())


def _palettes_disagree(masks: Sequence[MaskFacts]) -> bool:
    """Whether one index that several masks use has two colours."""
    seen: dict[int, int] = {}
    for mask in masks:
        for value, color in _palette([mask]).items():
            if value in mask.values and seen.setdefault(value, color) != color:
                return True
    return False


def _palette(masks: Sequence[MaskFacts]) -> dict[int, int]:
    """Returns the packed colour of each index in the palettes of the masks."""
    colors: dict[int, int] = {}
    for mask in masks:
        if mask.palette:
            colors.update(enumerate(pack(_table(mask.palette)).tolist()))
    return colors


def _table(palette: bytes) -> np.ndarray:
    return np.frombuffer(palette[: len(palette) // 3 * 3], np.uint8).reshape(-1, 3)


# ------------------------------------------------------------------------------------------------- words


def hex_color(packed: int) -> str:
    """Returns a packed colour as `#rrggbb`."""
    return f"#{packed:06x}"


def _num(masks: Sequence[MaskFacts]) -> str:
    return f"{len(masks)} mask{'s' if len(masks) != 1 else ''}"


def _modes(masks: Sequence[MaskFacts]) -> str:
    return " and ".join(sorted({mask.mode for mask in masks}))


def _listed(values: Sequence[int] | np.ndarray) -> str:
    """Returns values as `0..20` where they have no gap, else one by one, shortened."""
    numbers = [int(value) for value in values]
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]}..{numbers[-1]}"
    return ", ".join(map(str, numbers[:12])) + (", …" if len(numbers) > 12 else "")
