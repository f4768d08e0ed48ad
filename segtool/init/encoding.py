"""The encoding that fits a data set's masks, from the evidence of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segtool.check.findings import num
from segtool.data.codes import unpack
from segtool.data.facts import MaskFacts
from segtool.data.labels import MANY
from segtool.errors import DataError, shown
from segtool.init.encoding_of_colors import CLOSE, guess_colors, in_colors, palettes_disagree
from segtool.init.encoding_of_values import guess_values
from segtool.init.evidence import SOFT, Guess, Totals, modes, total
from segtool.init.numbered import guess_numbered_colors

ODD_SHARE = 0.1  # so few masks of another kind do not decide the encoding of all
FAR_MORE = 8  # times the values of the median mask, as a picture among masks has


def guess_encoding(masks: Sequence[MaskFacts]) -> Guess:
    """Returns the encoding that fits all readable masks, or all but a few of another kind, which `check` then names.

    Raises:
        DataError: no mask can be read, or they hold one value only or a continuous picture; says how to go on.
    """
    readable = [mask for mask in masks if not mask.error]
    if not readable:
        raise DataError(*(f"{shown(mask.path)}: {mask.error}" for mask in masks[:5]))
    if guess := _guess_alpha(readable):
        return guess
    for few, what in ((_pictures_among(readable), "picture"), (_of_another_kind(readable), "mask")):
        left_out = {mask.path for mask in few}
        most = [mask for mask in readable if mask.path not in left_out]
        if 0 < len(few) <= max(1, ODD_SHARE * len(readable)) and len(most) > 2:
            guess = guess_encoding(most)
            told = f"{num(few, what)} of mode {modes(few)} among them cannot be read so: see `segtool check`"
            return replace(guess, notes=(*guess.notes, told))
    return _guess_of_one_kind(readable)


def _pictures_among(masks: Sequence[MaskFacts]) -> list[MaskFacts]:
    """Returns the masks that hold far more values than others, most pixels of which have what no other mask holds, and
    that not in areas."""
    counts = np.array([len(mask.values) for mask in masks])
    many = (counts > MANY) & (counts >= FAR_MORE * np.median(counts))
    if not many.any() or many.all():
        return []
    known = np.unique(np.concatenate([mask.values for mask, has_many in zip(masks, many, strict=True) if not has_many]))
    found = []
    for mask in (masks[place] for place in np.flatnonzero(many).tolist()):
        strange = ~np.isin(mask.values, known)
        pixels = int(mask.counts[strange].sum())
        if 2 * pixels >= mask.counts.sum() and mask.solid[strange].sum() < SOFT * pixels:
            found.append(mask)
    return found


def _of_another_kind(masks: Sequence[MaskFacts]) -> Sequence[MaskFacts]:
    """Returns the masks in colour among those without, or these among those, whichever are fewer; none where both mean
    the same."""
    colored = [mask for mask in masks if mask.colored]
    plain = [mask for mask in masks if not mask.colored]
    return min(colored, plain, key=len) if colored and plain and not _share_colors(colored, plain) else []


def _guess_of_one_kind(masks: Sequence[MaskFacts]) -> Guess:
    if any(mask.colored for mask in masks):
        return guess_numbered_colors(masks) or guess_colors(masks, "rgb", f"masks of mode {modes(masks)}")
    if palettes_disagree(masks):
        encoding = "palette" if all(mask.mode == "P" for mask in masks) else "rgb"
        return guess_colors(masks, encoding, "the same index has different colours in different masks' palettes")
    return guess_values(masks)


def _guess_alpha(masks: Sequence[MaskFacts]) -> Guess | None:
    """Returns what the opacity of masks means, where it varies and tells more than the colours do."""
    varied = [mask for mask in masks if len(mask.alpha_values) > 1]
    veiled = [mask for mask in varied if mask.veiled]
    if not veiled or 2 * len(veiled) < len(varied) or any(not len(mask.alpha_values) for mask in masks):
        return None
    guess = guess_values([mask.as_alpha() for mask in masks])
    reason = (
        f"in {len(veiled)} of {num(masks, 'mask')} the same colour is opaque in places only: the opacity is the mask"
    )
    return replace(guess, encoding="alpha", reason=f"{reason}; {guess.reason}", colors={})


def _share_colors(colored: Sequence[MaskFacts], plain: Sequence[MaskFacts]) -> bool:
    """Whether masks without colours of their own, read by palette or as grey, hold what the coloured ones hold."""
    if any(mask.mode.startswith("I") for mask in plain):
        return False
    ours, theirs = total(colored), total([in_colors(mask) for mask in plain])
    known, points = _areas(ours), _areas(theirs)
    if not len(known) or not len(points):
        return False
    gaps = np.linalg.norm(points[:, None] - known[None], axis=-1)
    if gaps.min(1).max() > CLOSE:
        return False
    lossy = any(mask.lossy for mask in (*colored, *plain))
    return lossy or len(set(gaps.argmin(1).tolist())) == len(points)


def _areas(totals: Totals) -> np.ndarray:
    """Returns the colours that form areas, n 3; the 255 most frequent ones."""
    order = np.argsort(-totals.pixels, kind="stable")
    return unpack(totals.values[order[totals.solidity[order] > SOFT][:255]]).astype(float)
