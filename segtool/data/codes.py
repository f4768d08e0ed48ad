"""Stored codes of classes: single values, ranges and colours, parsed from a config and looked up in arrays.

A colour is packed into an integer, 0xRRGGBB, so that grey values, palette indices and colours are looked up alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from segtool.config import Data
from segtool.errors import ConfigError, Problem

IGNORE = 255
"""Index of pixels that are neither trained on nor scored; so there are at most 255 classes."""
UNKNOWN = -1
"""Index of stored values that are neither a class nor ignored."""

_RANGE = re.compile(r"\s*(-?\d+)\s*\.\.\s*(-?\d+)\s*")


@dataclass(frozen=True, eq=False)
class Codes:
    """Disjoint intervals of stored integers, ascending, and the index that each means."""

    lowest: np.ndarray
    highest: np.ndarray
    indices: np.ndarray

    def exact(self, values: np.ndarray) -> np.ndarray:
        """Returns the int16 index of each value, UNKNOWN outside of all intervals."""
        place = np.searchsorted(self.lowest, values, side="right") - 1
        inside = (place >= 0) & (values <= self.highest[place])
        return np.where(inside, self.indices[place], UNKNOWN).astype(np.int16)

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """Returns the int16 index of the interval nearest to each value; halfway between two, the upper one."""
        wide = values.astype(np.int64)
        below = np.clip(np.searchsorted(self.lowest, wide, side="right") - 1, 0, None)
        above = np.clip(below + 1, None, len(self.lowest) - 1)
        beyond = wide - self.highest[below]
        up = (beyond > 0) & (self.lowest[above] - wide <= beyond)
        return self.indices[np.where(up, above, below)].astype(np.int16)

    def nearest_color(self, colors: np.ndarray, order: Sequence[int]) -> np.ndarray:
        """Returns the int16 index of the packed colour nearest to each; see `Labels.decode`.

        Args:
            order: packed colours in the order in which they win ties.
        """
        distinct, inverse = np.unique(colors, return_inverse=True)
        known = np.array(order)
        best = np.zeros(len(distinct), np.intp)
        least = np.full(len(distinct), np.iinfo(np.int32).max, np.int32)
        for place, color in enumerate(known):
            distance = ((unpack(distinct).astype(np.int32) - unpack(color)) ** 2).sum(-1)
            best[distance < least] = place
            least = np.minimum(least, distance)
        return self.exact(known[best])[inverse].reshape(colors.shape)


def pack(colors: np.ndarray) -> np.ndarray:
    """Returns ... 3 uint8 colours as ... int32, 0xRRGGBB."""
    packed = colors[..., 0].astype(np.int32)
    for channel in (1, 2):
        packed <<= 8
        packed |= colors[..., channel]
    return packed


def unpack(packed: np.ndarray | np.integer) -> np.ndarray:
    """Returns ... integers 0xRRGGBB as ... 3 uint8 colours."""
    wide = np.asarray(packed)
    return np.stack([(wide >> shift) & 255 for shift in (16, 8, 0)], axis=-1).astype(np.uint8)


def is_color(text: str) -> bool:
    """Whether a text is `#rrggbb`."""
    return bool(re.fullmatch(r"#[0-9a-fA-F]{6}", text))


def parse_classes(data: Data) -> tuple[list[list[tuple[int, int]]], list[str | Problem]]:
    """Returns each class's codes as intervals, and what is wrong with them."""
    problems: list[str | Problem] = []
    key, other = ("colors", "values") if data.encoding in ("palette", "rgb") else ("values", "colors")
    if not 1 <= len(data.classes) <= 255:
        problems.append(Problem("data.classes", f"expected 1 to 255 classes, found {len(data.classes)}"))
    ranges = []
    for index, item in enumerate(data.classes):
        path = f"data.classes.{index}.{key}"
        codes = getattr(item, key)
        if not codes:
            found = f", found {other}" if getattr(item, other) else ""
            problems.append(Problem(path, f"class '{item.name}' needs {key} with data.encoding {data.encoding}{found}"))
        ranges.append([parse_code(data, code, path, problems) for code in codes])
    return ranges, problems


def parse_code(data: Data, code: int | str, path: str, problems: list[str | Problem]) -> tuple[int, int]:
    """Returns lowest and highest of a value, a range or a colour; on failure adds to `problems`."""
    text = str(code)
    if data.encoding in ("palette", "rgb"):
        if is_color(text):
            return int(text[1:], 16), int(text[1:], 16)
        problems.append(Problem(path, f"expected a colour such as '#ff0000', found {code!r}"))
        return 0, 0
    match = _RANGE.fullmatch(text) or re.fullmatch(r"\s*(-?\d+)\s*", text)
    bounds = [int(group) for group in match.groups()] if match else []
    if bounds and bounds[0] <= bounds[-1] and max(map(abs, bounds)) < 2**31:
        return bounds[0], bounds[-1]
    problems.append(Problem(path, f"expected an integer or a range such as 1..9, found {code!r}"))
    return 0, 0


def overlaps(data: Data, owned: Iterable[tuple[int, int, int]]) -> Iterator[Problem]:
    """Yields a problem for each code that two owners claim; `owned` are lowest, highest and index."""
    reach, owner = None, 0
    for low, high, index in sorted(owned):
        if reach is not None and low <= reach:
            last = min(high, reach)
            colored = data.encoding in ("palette", "rgb")
            what = f"#{low:06x}" if colored else str(low) if low == last else f"{low}..{last}"
            whose = [f"class '{data.classes[i].name}'" if i != IGNORE else "data.ignore" for i in (owner, index)]
            yield Problem("data.classes", f"{what} is listed by {whose[0]} and by {whose[1]}; leave it in one")
        if reach is None or high > reach:
            reach, owner = high, index


def unpack_palette(text: str) -> list[int]:
    """Returns the packed colours of `data.palette`. Raises ConfigError where it is none."""
    if len(text) % 6 or len(text) > 256 * 6 or not re.fullmatch(r"[0-9a-fA-F]+", text):
        raise ConfigError(Problem("data.palette", "expected up to 256 hexadecimal RGB triples without separators"))
    return [int(text[start : start + 6], 16) for start in range(0, len(text), 6)]
