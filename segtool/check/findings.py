"""What a check finds, and how checks are entered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segtool.check.survey import Summary, Survey

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
NAMED = 100  # most files of a finding, as many are mended one by one


@dataclass(frozen=True)
class Finding:
    """One kind of problem, over all files that have it."""

    code: str
    severity: Severity
    message: str
    count: int
    """How many files, pairs or classes are concerned."""
    files: tuple[str, ...]
    """The first ones, relative to the data's root."""
    example: str
    """One of them in a sentence: file, pixel, value."""
    remedy: str


@dataclass(frozen=True)
class Report:
    """What one pass found, and the figures of the data set."""

    findings: list[Finding]
    """The gravest first."""
    summary: Summary


Check = Callable[[Survey], Iterator[Finding]]
CHECKS: list[Check] = []


def a_check(function: Check) -> Check:
    """Enters a function among the checks; they run in the order of their definition."""
    CHECKS.append(function)
    return function


def num(count: int | Sized, one: str, many: str = "") -> str:
    """Returns a number, or that of some things, with the word for one or for several: `1 mask`, `7 classes`."""
    number = count if isinstance(count, int) else len(count)
    return f"{number} {one if number == 1 else many or one + 's'}"


def few_names(survey: Survey, paths: Iterable[Path]) -> tuple[str, ...]:
    """Returns the first of some paths as people read them."""
    return tuple(survey.name(path) for path in list(paths)[:NAMED])


def counted(survey: Survey, paths: Collection[Path]) -> tuple[int, tuple[str, ...]]:
    """Returns the number of some files, and the names of the first, as a finding has them."""
    return len(paths), few_names(survey, paths)


def first_of(words: Sequence[str], most: int) -> str:
    """Returns the first of some words, and an ellipsis for the others, whose number the message tells."""
    return ", ".join(words[:most]) + (", …" if len(words) > most else "")


def share_text(share: float) -> str:
    """Returns a share for people: `12.3 %`; of one below a thousandth two digits, `0.042 %`."""
    return f"{100 * share:.1f} %" if share >= 1e-3 or not share else f"{100 * share:.2g} %"


def size_text(size: tuple[int, int]) -> str:
    """Returns H, W as width x height, the order in which image viewers tell it."""
    return f"{size[1]}x{size[0]}"
