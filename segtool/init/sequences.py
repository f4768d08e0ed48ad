"""Which images belong together by name: frames of a video, slices of a patient, tiles of a picture.

A name is only taken as a sequence's where something speaks for it: a word that says so, places on a grid, numbers that
begin again in each group or go on in equal steps, or pictures that resemble their neighbours more than others.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd

import numpy as np

FRAME_WORDS = "frame|frm|slice|layer|f|z|t"
PART_WORDS = "tile|patch|crop|chip"
GROUP_WORDS = (
    "patient|pat|subject|subj|sub|case|video|vid|clip|seq|sequence|scene|volume|vol|scan|slide|wsi|stack|series|session"
    "|flight|plot|plant|site|tile|mosaic|area|city"
)
VIEW_WORDS = "pre|post|before|after|left|right"
STEPS = 0.8  # least share of the numbers that follow the one before them by the step of their group
MAX_NEIGHBOURS = 2000  # pairs of pictures that are compared
MAX_OTHERS = 1000


@dataclass(frozen=True)
class Sequences:
    """A regular expression for `data.split.group`, and what speaks for it."""

    pattern: str
    reason: str
    """A clause: `frames of one scene each, by their names`."""


_PATTERNS = (
    ("named", rf"(?i)^(.*?(?:{GROUP_WORDS})[_\-. ]?\d+)/.+/"),
    ("folder", r"^(.+)/"),
    ("copies", r"^(.+?)(?:_jpe?g|_png)?\.rf\.[0-9A-Za-z]+$"),
    ("views", rf"(?i)^(.*\d)[_\-. ](?:{VIEW_WORDS})(?![^\W_])"),
    ("frames", rf"(?i)^(.*?)[_\-. ]+(?:{FRAME_WORDS})[_\-. ]?\d+$"),
    ("tiles", rf"(?i)^[a-z]{{0,4}}\d+[_\-. ,x]+[a-z]{{0,4}}\d+[_\-. ]+((?:{GROUP_WORDS})[_\-. ]?\d+)$"),
    ("tiles", r"^(.+?)[_\-. ,x]+[a-zA-Z]{0,4}\d+[_\-. ,x]+[a-zA-Z]{0,4}\d+$"),
    ("numbered", r"^(.+?)[_\-. ]*\d+$"),
    ("named", rf"(?i)^((?:{GROUP_WORDS})[_\-. ]?\d+)[_\-. ]"),
)
_TOLD = {
    "copies": "copies that an export made of one image, by their names",
    "views": "one place or subject at two times or from two sides, by their names",
    "frames": "frames or slices, numbered behind the name of what they show",
    "named": "one subject or scene each, by their names",
}
"""Kinds of patterns that need no more than the names."""


def find_sequences(stems: Sequence[str], pictures: np.ndarray | None, *, parts: int) -> Sequences | None:
    """Returns how the images are kept together, or None where each stands alone.

    Args:
        stems: Of all images.
        pictures: N D, each picture with mean 0 and length 1, all zero where it shows nothing; None: not known.
        parts: Number of splits that the groups are to be divided among.
    """
    for kind, pattern in _PATTERNS:
        groups = group_stems(stems, pattern)
        if groups is None or not _is_divisible(groups, len(stems), parts):
            continue
        if reason := _evidence(kind, groups, stems, pictures):
            return Sequences(_simplified(pattern, groups, stems), reason)
    return _blocks(stems, pictures, parts)


def group_stems(stems: Sequence[str], pattern: str) -> dict[str, list[int]] | None:
    """Returns the places of the stems by what the pattern's first group matches; None where it misses one."""
    groups: dict[str, list[int]] = defaultdict(list)
    compiled = re.compile(pattern)
    for place, stem in enumerate(stems):
        match = compiled.search(stem)
        if match is None:
            return None
        groups[match[1]].append(place)
    return groups


def _simplified(pattern: str, groups: Mapping[str, Sequence[int]], stems: Sequence[str]) -> str:
    """Returns the simplest pattern that makes the same groups, such as `^([^_]+)_`."""
    wanted = sorted(map(list, groups.values()))
    if "/" in pattern:
        folders = ("^([^/]+)/", "^([^/]+/[^/]+)/")
        simple = ((text, group_stems(stems, text)) for text in folders if len(text) < len(pattern))
        return next((text for text, found in simple if found and sorted(found.values()) == wanted), pattern)
    for mark in "_-. ":
        other = re.escape(mark) if mark != " " else " "
        begins = (f"^([^{other}]+){other}", f"^(.+){other}", f"^(.+){other}[^{other}]*{other}")
        for simple in (*begins, f"{other}([^{other}]+)$"):
            found = group_stems(stems, simple)
            if found and sorted(found.values()) == wanted:
                return simple
    return pattern


def _is_divisible(groups: Mapping[str, Sequence[int]], num: int, parts: int) -> bool:
    largest = max(map(len, groups.values()))
    return parts < len(groups) < num * 2 / 3 and largest <= num * 0.7


def _evidence(
    kind: str, groups: Mapping[str, list[int]], stems: Sequence[str], pictures: np.ndarray | None
) -> str | None:
    """Returns what speaks for a pattern, or None."""
    if kind in _TOLD:
        return _TOLD[kind]
    if kind == "tiles":
        return "tiles of one picture, by the places in their names" if _on_grid(groups, stems) else None
    words = sum(bool(re.search(rf"(?i)(?:{GROUP_WORDS})[_\-. ]?\d+(?:_\d+)*$", name)) for name in groups)
    code = re.compile(rf"\d|(?i:{GROUP_WORDS})(?:[_\-. ][a-zA-Z]|[A-Z])$")  # siteA, plot_b
    coded = sum(bool(code.search(name)) and not re.fullmatch(r"(19|20)\d\d", name) for name in groups)
    if kind == "folder" and words > len(groups) / 2:
        return "one scene or subject to a folder"
    if coded > len(groups) / 2 and len(stems) >= 3 * len(groups) and _begins_again(groups, stems):
        return f"images numbered anew {'in each folder' if kind == 'folder' else 'behind each name'}"
    if (coded > len(groups) / 2 or kind == "folder") and _go_in_steps(list(groups.values()), stems):
        return "numbered in equal steps, as frames of a recording and tiles of a picture are"
    if pictures is not None and (figures := _resemble(list(groups.values()), stems, pictures)):
        return f"neighbours in name resemble each other: {figures}"
    return None


def _numbers(stem: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", stem)]


def _on_grid(groups: Mapping[str, list[int]], stems: Sequence[str]) -> bool:
    """Whether the last two numbers of the names, the group's aside, are places that come again in most groups."""
    places = {
        name: [tuple(_numbers(stems[place].replace(name, "", 1))[-2:]) for place in own] for name, own in groups.items()
    }
    every = {pair for own in places.values() for pair in own}
    if any(len(pair) < 2 for pair in every) or any(len(set(own)) < len(own) for own in places.values()):
        return False
    for axis in (0, 1):
        values = sorted({pair[axis] for pair in every})
        step = reduce(gcd, [above - below for below, above in itertools.pairwise(values)], 0)
        if len(values) < 2 or not (step >= 8 or values[-1] - values[0] < 2 * len(values)):
            return False
    return len(stems) >= 2 * len(groups) and len(every) <= 4 * max(map(len, places.values()))


def _begins_again(groups: Mapping[str, list[int]], stems: Sequence[str]) -> bool:
    """Whether most groups count from one number on without large gaps."""
    names = [_numbers(stem.rpartition("/")[2]) for stem in stems]  # the number of a folder counts no images
    several = [[names[place] for place in own] for own in groups.values() if len(own) > 1]
    counted = [sorted(numbers[-1] for numbers in own) for own in several if all(own)]
    if len(counted) < max(3, len(groups) / 2):
        return False
    starts = [own[0] for own in counted]
    common = max(set(starts), key=starts.count)
    alike = sum(
        abs(own[0] - common) <= 1 and own[-1] - own[0] < 2 * len(own) * max(1, min(np.diff(own))) for own in counted
    )
    return bool(alike >= 0.8 * len(several))


def _go_in_steps(groups: Sequence[Sequence[int]], stems: Sequence[str]) -> bool:
    """Whether numbers go on in equal steps of two and more in each group: every 30th frame of a video."""
    kept = total = 0
    for own in groups:
        numbers = [_numbers(stems[place].rpartition("/")[2]) for place in own]
        steps = np.diff(sorted(some[-1] for some in numbers if some))
        usual = int(np.median(steps)) if len(steps) else 1
        kept += int((steps == usual).sum()) * (usual > 1)
        total += len(own) - 1
    return kept >= max(3, STEPS * total)


def _resemble(groups: Sequence[Sequence[int]], stems: Sequence[str], pictures: np.ndarray) -> str:
    """Returns how much more pictures resemble their neighbours in a group than others, or "" where they hardly do."""
    near = []
    for own in groups:
        ordered = sorted(own, key=lambda place: (_numbers(stems[place]), stems[place]))
        near += itertools.pairwise(ordered)
    if len(near) < 8:
        return ""
    rng = np.random.default_rng(0)
    near = [near[index] for index in rng.permutation(len(near))[:MAX_NEIGHBOURS]]
    far = rng.integers(0, len(stems), (MAX_OTHERS, 2))
    close, other = (_likeness(pictures, np.array(pairs)) for pairs in (near, far[far[:, 0] != far[:, 1]]))
    if close < 0.5 or 1 - close > 0.5 * (1 - other):
        return ""
    return f"correlation {close:.2f} against {other:.2f}"


def _likeness(pictures: np.ndarray, pairs: np.ndarray) -> float:
    """Returns the median correlation of pairs of pictures, those that show something."""
    values = (pictures[pairs[:, 0]] * pictures[pairs[:, 1]]).sum(1)
    shown = pictures.any(1)
    kept = values[shown[pairs].all(1)]
    return float(np.median(kept)) if len(kept) else 0.0


def _blocks(stems: Sequence[str], pictures: np.ndarray | None, parts: int) -> Sequences | None:
    """Returns blocks of consecutive numbers where the images follow each other and nothing names their sequences."""
    if not all(re.search(r"\d$", stem) for stem in stems):
        return None
    evidence = _resemble([range(len(stems))], stems, pictures) if pictures is not None else ""
    if not evidence and _go_in_steps(list((group_stems(stems, r"^(.*?)\d+$") or {}).values()), stems):
        evidence = "numbered in equal steps"
    words = re.compile(rf"(?i)(?:^|[^a-z])(?:{FRAME_WORDS}|{PART_WORDS})[^a-z]?\d+$")
    if not evidence and all(map(words.search, stems)):
        evidence = "by their names"
    if not evidence:
        return None
    for digits in (3, 2, 1):
        pattern = rf"^(.*?)\d{{1,{digits}}}$"
        groups = group_stems(stems, pattern)
        if groups and len(groups) >= max(2 * parts, 6) and len(groups) < len(stems) / 2:
            size = len(stems) // len(groups)
            reason = f"consecutive images ({evidence}), cut into {len(groups)} blocks of about {size} in a row"
            return Sequences(pattern, reason)
    return None
