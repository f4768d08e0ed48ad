"""Tables of class names with their values or colours, in lines of text: `0 sky`, `sky,128,128,128`, `sky:#aabbcc`."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from typing import Any

_NUMBER = re.compile(r"-?\d{1,10}")
_HEX = re.compile(r"#?([0-9a-fA-F]{6})")
_IN_BRACKETS = re.compile(r"[(\[]\s*(\d{1,3})\s*[,;\s]\s*(\d{1,3})\s*[,;\s]\s*(\d{1,3})\s*[)\]]")
_HEX_AND_MARKS = re.compile(r"\s*[:=-]?\s*(?:rgb)?\s*(#[0-9a-f]{6})\s*[:=-]?\s*", re.IGNORECASE)
_TRIPLE = re.compile(r"\D{0,4}(\d{1,3})\D{1,3}(\d{1,3})\D{1,3}(\d{1,3})\D{0,2}")
_NAME_COLUMN = re.compile(r"name|class|label|title|categor|object", re.IGNORECASE)
_VALUE_COLUMN = re.compile(r"id$|idx|value|index|code|^id|number", re.IGNORECASE)


def color_of(value: Any) -> int | None:
    """Returns the packed colour that a value is: `#aabbcc`, `[170, 187, 204]` or `170, 187, 204`."""
    if isinstance(value, str):
        if match := _HEX.fullmatch(value.strip()):
            return int(match[1], 16) if value.strip().startswith("#") or re.search("[a-fA-F]", value) else None
        match = _TRIPLE.fullmatch(value.strip())
        return _packed([int(part) for part in match.groups()]) if match else None
    if isinstance(value, Sequence) and len(value) in (3, 4) and all(type(part) is int for part in value):
        return _packed(value[:3])
    return None


def _packed(channels: Sequence[int]) -> int | None:
    if len(channels) != 3 or not all(0 <= channel <= 255 for channel in channels):
        return None
    return channels[0] << 16 | channels[1] << 8 | channels[2]


def read_table(lines: Sequence[str]) -> tuple[dict[int, str], dict[int, str]]:
    """Returns names by packed colour and by stored value, as far as the lines are rows of one table that gives them."""
    rows = [_cells(line) for line in lines]
    if len({len(row) for row in rows}) > 1:  # as where tabs fill up to a column
        rows = [_cells(re.sub(r"\t+", "\t", line)) for line in lines]
    has_header = len(rows) > 1 and not any(map(_is_figure, rows[0])) and any(map(_is_figure, rows[1]))
    header = rows.pop(0) if has_header else []
    widths = {len(row) for row in rows}
    if not rows or len(widths) != 1 or widths == {1}:
        return {}, {}
    columns = list(zip(*rows, strict=True))
    if len(header) != len(columns):
        header = [""] * len(columns)
    names = _names(columns, header)
    if names is None:
        return {}, {}
    numbers = [place for place, column in enumerate(columns) if all(map(_NUMBER.fullmatch, column))]
    colors, channels = _colors(columns, header, numbers)
    by_color = {color: name for color, name in zip(colors, names, strict=True) if color is not None} if colors else {}
    values = _values(columns, header, [place for place in numbers if place not in channels])
    return by_color, dict(zip(values, names, strict=True)) if values else {}


def _cells(line: str) -> list[str]:
    """Returns the cells of a line; of one separated by blanks, the words between numbers are one."""
    line = _IN_BRACKETS.sub(_in_hex, line).rstrip(",")
    if not any(mark in line for mark in "\t;,"):  # name: (r, g, b)
        line = _HEX_AND_MARKS.sub(r",\1,", line).strip(",")
    line = re.sub(r"^(\d+)\s*[.)-]\s+(?=\D)", r"\1,", line)  # 1. name
    if re.match(r"[^:=,]+[:=]\s*#?\d", line) or re.match(r"\d+\s*:", line):  # name:r,g,b:: and 0: name
        line = re.sub("[:=]", ",", line)
    mark = next((mark for mark in "\t;," if mark in line), None)
    if mark is not None:
        try:
            cells = [cell.strip() for cell in next(csv.reader([line], delimiter=mark, skipinitialspace=True))]
        except (csv.Error, StopIteration):
            return [line]
        while len(cells) > 1 and not cells[-1]:
            cells.pop()
        return cells
    words = line.split()
    plain = [place for place, word in enumerate(words) if not _NUMBER.fullmatch(word) and not _HEX.fullmatch(word)]
    if not plain:
        return words
    first, last = plain[0], plain[-1]
    return [*words[:first], " ".join(words[first : last + 1]), *words[last + 1 :]]


def _in_hex(triple: re.Match[str]) -> str:
    color = _packed([int(channel) for channel in triple.groups()])
    return triple[0] if color is None else f"#{color:06x}"


def _is_figure(cell: str) -> bool:
    return bool(re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell)) or color_of(cell) is not None


def _names(columns: Sequence[Sequence[str]], header: Sequence[str]) -> Sequence[str] | None:
    """Returns the column of names: of words, all different, by its header where there are several."""
    able = [
        place
        for place, column in enumerate(columns)
        if all(column) and len(set(column)) == len(column) and not all(map(_is_figure, column))
    ]
    best = max(able, key=lambda place: (bool(_NAME_COLUMN.search(header[place])), -place), default=None)
    return None if best is None else columns[best]


def _colors(
    columns: Sequence[Sequence[str]], header: Sequence[str], numbers: Sequence[int]
) -> tuple[list[int | None], set[int]]:
    """Returns the packed colours, and the columns that they are taken from."""
    for place, column in enumerate(columns):
        colors = [color_of(cell) for cell in column]
        if place not in numbers and None not in colors:
            return colors, {place}
    triples = [start for start in numbers if {start + 1, start + 2} <= set(numbers)]
    named = [start for start in triples if [name[:1].lower() for name in header[start : start + 3]] == list("rgb")]
    if not named and len(numbers) > 4:
        return [], set()
    for start in named or triples[-1:]:
        rows = zip(*columns[start : start + 3], strict=True)
        colors = [_packed([int(cell) for cell in row]) for row in rows]
        if None not in colors:
            return colors, {start, start + 1, start + 2}
    return [], set()


def _values(columns: Sequence[Sequence[str]], header: Sequence[str], able: Sequence[int]) -> list[int]:
    """Returns the stored values: a column of different whole numbers, the one whose header says so, else the first."""
    unique = [place for place in able if len(set(columns[place])) == len(columns[place])]
    best = max(unique, key=lambda place: (bool(_VALUE_COLUMN.search(header[place])), -place), default=None)
    return [] if best is None else [int(cell) for cell in columns[best]]
