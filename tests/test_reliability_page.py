"""docs/reliability.md names tests that exist, and leaves no promise out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reliability.md"
ROWS = range(1, 86)
LATER = {64}  # waits for the boundary scores


def numbers(cell: str) -> set[int]:
    """Returns the rows that a first cell such as "12", "1-3" or "4, 6" stands for."""
    found = set()
    for part in cell.split(","):
        first, _, last = part.strip().partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def rows(text: str) -> list[list[str]]:
    """Returns the cells of all lines of a table that begin with a number."""
    lines = [line.strip().strip("|").split(" | ") for line in text.splitlines() if re.match(r"\| *\d", line)]
    return [[cell.strip() for cell in line] for line in lines]


def named_tests(text: str) -> set[tuple[str, str]]:
    """Returns file and function of all the tests that are named."""
    return set(re.findall(r"(test_\w+\.py)::(test_\w+)", text))


def missing(named: set[tuple[str, str]]) -> list[str]:
    """Returns those that are not there."""
    files = {file for file, _ in named}
    there = {(file, node.name) for file in files if (TESTS / file).is_file() for node in functions(TESTS / file)}
    return sorted(f"{file}::{name}" for file, name in named - there)


def functions(path: Path) -> list[ast.FunctionDef]:
    """Returns the functions at the top of a module."""
    return [node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)]


def test_every_test_that_the_page_names_is_there():
    named = named_tests(PAGE.read_text("utf-8"))
    assert len(named) > 85
    assert missing(named) == []


def test_a_test_that_is_not_there_is_found():
    page = PAGE.read_text("utf-8") + "`test_reliability_page.py::test_none` `test_none.py::test_none`"
    assert missing(named_tests(page)) == ["test_none.py::test_none", "test_reliability_page.py::test_none"]


def test_every_promise_has_a_row_and_every_row_a_test():
    found = rows(PAGE.read_text("utf-8"))
    assert set().union(*(numbers(row[0]) for row in found)) == set(ROWS)
    for row in found:
        assert len(row) == 5, row
        assert named_tests(row[4]) or numbers(row[0]) <= LATER, row


@pytest.mark.parametrize(("cell", "expected"), [("3", {3}), ("1-3", {1, 2, 3}), ("4, 6", {4, 6})])
def test_numbers_of_rows_are_read(cell, expected):
    assert numbers(cell) == expected
