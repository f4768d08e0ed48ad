"""Which pairs train, validate and test where no folder says it: seeded, by group, by class, or by folds.

Everything here is a function of the records, the config and what the masks hold; no order of files is relied on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from segtool.config import Config, Data, Split
from segtool.data.pairs import Record
from segtool.data.uses import class_pixels
from segtool.data.words import SPLITS
from segtool.errors import DataError, few, shown
from segtool.system.signals import TimeUpError, time_limit
from segtool.system.terminal import counted

Group: TypeAlias = list[Record]
Presence: TypeAlias = Callable[[Sequence[Record]], NDArray[np.bool_]]
"""From U records to whether each of K classes occurs in their masks, U K."""

GROUP_SECONDS = 10
"""Processor time that `data.split.group` may take for all stems; a sound pattern takes microseconds for each."""


def divide(found: Mapping[str, list[Record]], data: Data, presence: Presence) -> dict[str, list[Record]]:
    """Returns the records of train, val and test, each sorted by stem, in that order and as far as there are any.

    A split that is not among `found` is a share of train (`hold_out`). With `data.fold`, what would then train or
    validate is divided anew (`into_folds`), so that the test is the same in all folds, and the same as without.

    Args:
        found: What the folders or lists of the config hold; train at least.
        presence: Called where `data.split.stratify` asks for it.

    Raises:
        DataError: too few records, or a stem that `data.split.group` does not match.
    """
    shares = {"val": data.split.val, "test": data.split.test}
    shares = {name: share for name, share in shares.items() if share > 0 and getattr(data, name) is None}
    parts = {**found, **hold_out(found["train"], shares, data.split, presence)}
    if data.fold is not None:
        number, count = map(int, data.fold.split("/"))
        named = _told_apart(parts["train"], parts.get("val", []))
        folds = into_folds(list(named), count, data.split, presence)
        held_out = folds.pop(number - 1)
        parts["val"] = _sorted(named[record] for record in held_out)
        parts["train"] = _sorted(named[record] for fold in folds for record in fold)
    return {name: parts[name] for name in SPLITS if name in parts}


def hold_out(
    records: Sequence[Record], shares: Mapping[str, float], split: Split, presence: Presence | None = None
) -> dict[str, list[Record]]:
    """Returns the records divided into train and the named shares, by a seeded permutation of the sorted stems.

    `numpy.random.default_rng(seed).permutation` orders them; the first `round(share * n)`, at least one, go to the
    first name, the next to the second, the rest to train, which keeps at least one. With `split.group` whole groups
    are permuted, and each name takes groups until it has at least that many records. Thus a `test` share leaves
    the `val` share as it was. With `split.stratify` and `presence`, `stratify` deals the same numbers.

    Raises:
        DataError: fewer records (or groups) than there are parts, or a stem that `split.group` does not match.
    """
    if not shares:
        return {}
    groups = _groups(records, split.group)
    if len(groups) <= len(shares):
        raise DataError(
            f"data.train: {_count(groups, split)}, too few to hold out "
            f"{' and '.join(shares)}; add some, name folders for data.{next(iter(shares))}, or set "
            f"{', '.join(f'data.split.{name}: 0' for name in shares)}"
        )
    order = _permuted(groups, split.seed)
    wanted = [max(1, round(share * len(records))) for share in shares.values()]
    if split.stratify and presence is not None:
        *held_out, rest = stratify(order, [*wanted, max(0, len(records) - sum(wanted))], presence)
    else:
        *held_out, rest = _taken(order, wanted)
    return {name: _sorted(part) for name, part in zip(["train", *shares], [rest, *held_out], strict=True)}


def into_folds(
    records: Sequence[Record], count: int, split: Split, presence: Presence | None = None
) -> list[list[Record]]:
    """Returns the records divided into `count` parts, none empty, whose sizes differ by at most one.

    In the order of the seeded permutation of `hold_out`, each goes to the part that has the fewest. With
    `split.group` whole groups do, the largest first, and the sizes differ as the groups do. With `split.stratify`
    and `presence`, `stratify` deals parts of the same sizes.

    Raises:
        DataError: fewer records (or groups) than folds, or a stem that `split.group` does not match.
    """
    groups = _groups(records, split.group)
    if len(groups) < count:
        remedy = f"set data.fold (or --folds) to at most {len(groups)} folds" if len(groups) > 1 else "add some"
        raise DataError(f"data.fold: {_count(groups, split)} for {count} folds; {remedy}")
    order = sorted(_permuted(groups, split.seed), key=len, reverse=True)
    if split.stratify and presence is not None:
        sizes = [len(records) // count + (place < len(records) % count) for place in range(count)]
        folds = stratify(order, sizes, presence)
    else:
        folds = [[] for _ in range(count)]
        for group in order:
            min(folds, key=len).extend(group)
    return [_sorted(fold) for fold in folds]


def stratify(groups: Sequence[Group], sizes: Sequence[int], presence: Presence) -> list[list[Record]]:
    """Returns the records divided into parts that each have their share of the groups in which each class occurs.

    The rarest class among the groups that are left is dealt first, each of its groups to the part that still lacks
    most groups of that class; among equals, to the one that lacks most records, then to the first. Unlike in the
    source, a part that has its size takes no more, so that groups of one record give exactly `sizes`; and what would
    leave a part empty is not done.

    Source: Sechidis, Tsoumakas, Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011, algorithm 1.

    Args:
        groups: In the order in which they are dealt within a class; at least as many as parts.
        sizes: The number of records of each part; their sum is at least that of all records.
        presence: Tells which classes occur in the records.
    """
    flat = presence([record for group in groups for record in group])
    starts = np.cumsum([0, *(len(group) for group in groups[:-1])])
    occurs = np.logical_or.reduceat(flat, starts, axis=0)  # groups K
    shares = np.array(sizes) / sum(sizes)
    lacking = occurs.sum(0)[:, None] * shares  # K parts: groups of each class that each part should still get
    room = np.array(sizes)
    parts: list[list[Record]] = [[] for _ in sizes]
    left = list(range(len(groups)))
    while left:
        counts = occurs[left].sum(0)
        present = np.flatnonzero(counts)
        rarest = present[counts[present].argmin()] if len(present) else None
        dealt = [index for index in left if rarest is None or occurs[index, rarest]]
        for done, index in enumerate(dealt):
            part = _place(parts, room, None if rarest is None else lacking[rarest], len(left) - done)
            parts[part] += groups[index]
            room[part] -= len(groups[index])
            lacking[occurs[index], part] -= 1
        left = [index for index in left if rarest is not None and not occurs[index, rarest]]
    return parts


def class_presence(config: Config) -> Presence:
    """Returns what reads masks for `divide`.

    It raises DataError for a mask that cannot be read, or holds what is no class.
    """

    def presence(records: Sequence[Record]) -> NDArray[np.bool_]:
        masks = [record.truth for record in records]
        pixels = class_pixels(config, masks)
        return np.stack([pixels[mask] > 0 for mask in masks])

    return presence


def _taken(order: list[Group], wanted: Sequence[int]) -> list[list[Record]]:
    """Returns the parts that take groups from the front until each has what it wants, and then the rest."""
    order = list(order)
    parts: list[list[Record]] = []
    for place, size in enumerate(wanted):
        part: list[Record] = []
        while len(part) < size and len(order) > len(wanted) - place:
            part += order.pop(0)
        parts.append(part)
    return [*parts, [record for group in order for record in group]]


def _place(parts: Sequence[list[Record]], room: NDArray, lacking: NDArray | None, left: int) -> int:
    """Returns the part that takes the next group, of the `left` ones that are to be dealt."""
    empty = [part for part, records in enumerate(parts) if not records]
    able = empty if len(empty) == left else [part for part in range(len(parts)) if room[part] > 0]
    return max(able, key=lambda part: (0.0 if lacking is None else lacking[part], room[part]))


def _told_apart(train: Sequence[Record], val: Sequence[Record]) -> dict[Record, Record]:
    """Returns each record as it is called where both are one pool: by its split and stem if the two share a stem."""
    if not {record.stem for record in train} & {record.stem for record in val}:
        return {record: record for record in (*train, *val)}
    pools = (("train", train), ("val", val))
    return {record: replace(record, stem=f"{name}/{record.stem}") for name, pool in pools for record in pool}


def _permuted(groups: Sequence[Group], seed: int) -> list[Group]:
    return [groups[place] for place in np.random.default_rng(seed).permutation(len(groups))]


def _sorted(records: Iterable[Record]) -> list[Record]:
    return sorted(records, key=lambda record: record.stem)


def _groups(records: Sequence[Record], pattern: str | None) -> list[Group]:
    """Returns the records by what the pattern's first group matches, sorted; each on its own without a pattern."""
    ordered = _sorted(records)
    if pattern is None:
        return [[record] for record in ordered]
    groups: dict[str, Group] = {}
    unmatched = []
    keys = _keys([record.stem for record in ordered], pattern)
    for record, key in zip(ordered, keys, strict=True):
        if key is None:
            unmatched.append(record.stem)
        else:
            groups.setdefault(key, []).append(record)
    if unmatched:
        raise DataError(
            f"data.split.group: '{pattern}' matches no part of {len(unmatched)} of {len(records)} stems: "
            f"{few(unmatched)}; correct the pattern so that its first group names what belongs together"
        )
    return [groups[key] for key in sorted(groups)]


def _keys(stems: Sequence[str], pattern: str) -> list[str | None]:
    """Returns what names the group of each stem; None where the pattern does not match it."""
    keys: list[str | None] = []
    try:
        with time_limit(GROUP_SECONDS):
            for stem in stems:
                match = re.search(pattern, stem)
                keys.append(match and match.group(1))
    except TimeUpError as error:
        last = stems[min(len(keys), len(stems) - 1)]
        raise DataError(
            f"data.split.group: '{pattern}' took more than {GROUP_SECONDS} s, the last of them for {shown(last)}; "
            "remove what repeats a repetition, such as (a+)+ or (a|a)*"
        ) from error
    return keys


def _count(groups: Sequence[Group], split: Split) -> str:
    return counted(len(groups), "pair" if split.group is None else "group")
