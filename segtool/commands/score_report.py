"""What `eval` tells of scores: as a table or as JSON, image by image in a file, and which of them are too low."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

from segtool.errors import CheckpointError, SegtoolError
from segtool.scoring.metrics import SUMMARY, Scores
from segtool.scoring.tables import TABLE_BEGINS, definition, per_image_csv, score_table
from segtool.system.disk import require_folder, require_plain, write_atomically
from segtool.system.terminal import print_errors

NARROWEST = 80  # columns of the table: in fewer its numbers would be cut short
FLATTERED = {
    "train": "The network was trained on these images, so the scores flatter.",
    "val": "The val split chose the checkpoint, so the scores flatter; those of a test split (data.split.test) do not.",
}
"""What is said under the scores of a split that the training has seen."""


class Scored(NamedTuple):
    """Scores, and what is told beside them."""

    scores: Scores
    title: str
    """What stands over the table of scores."""
    facts: dict[str, Any]
    """What `--json` tells beside the scores."""
    table: Path
    """Where the per-image table goes if --csv does not say."""
    is_main: bool = True
    """Whether this process tells it; of several one does."""


def require_place(csv: Path) -> None:
    """Raises CheckpointError where the per-image table cannot be written to the place that the user names."""
    if not csv.parent.is_dir():
        raise CheckpointError(f"{csv}: its folder is not there; make it, or choose another place")
    require_folder(csv.parent)
    _require_replaceable(csv)


def _require_replaceable(table: Path) -> None:
    """Raises CheckpointError where something else lies than an earlier table or a file with nothing in it."""
    require_plain(table)
    with contextlib.suppress(OSError), open(table, "rb") as file:
        if file.read(len(TABLE_BEGINS)) in (b"", TABLE_BEGINS):
            return
    if table.exists():
        raise CheckpointError(f"{table}: is no table of scores, and is not replaced; choose another place")


def write_table(found: Scored, csv: Path | None) -> Path | None:
    """Returns where the per-image table was written; None, and says why, where it could not be."""
    table = csv or found.table
    try:
        _require_replaceable(table)
        write_atomically(table, per_image_csv(found.scores).encode("utf-8", "surrogateescape"))
    except CheckpointError as error:
        print_errors([f"the per-image table was not written: {error}; --csv FILE puts it elsewhere"])
        return None
    return table


def show(found: Scored, table: Path | None, *, as_json: bool) -> None:
    """Prints the scores and where the per-image table is."""
    if as_json:
        written = None if table is None else str(table)
        print(json.dumps({**found.facts, **found.scores.to_json(), "per_image": written}, indent=1))
        return
    from rich.console import Console
    from rich.text import Text

    is_terminal = sys.stdout.isatty()
    console = Console(highlight=False, width=None if is_terminal else 110)
    columns, console.width = console.width, max(console.width, NARROWEST)
    console.print(score_table(found.scores, found.title))
    console.width = columns
    lines = [definition(found.scores), FLATTERED.get(found.facts["split"], "")]
    console.print(Text("\n".join(filter(None, lines))), soft_wrap=not is_terminal)
    if table is not None:
        print(f"per image: {table}", file=sys.stderr)


def parse_limits(text: str | None) -> dict[str, float]:
    """Returns the scores that --fail-under asks for, by name.

    Raises:
        SegtoolError: a part is no score and number, or a number that no score can be.
    """
    limits = {}
    for part in text.split(",") if text is not None else []:
        name, _, value = part.partition("=")
        try:
            limits[name.strip()] = float(value)
        except ValueError:
            raise SegtoolError(f"--fail-under {part}: expected a score and a number, such as miou=0.8") from None
        if name.strip() not in SUMMARY:
            raise SegtoolError(f"--fail-under {part}: unknown score; expected one of {', '.join(SUMMARY)}")
        if not 0 <= limits[name.strip()] <= 1:
            raise SegtoolError(f"--fail-under {part}: expected a score from 0 to 1, such as miou=0.8")
    return limits


def missed(scores: Scores, limits: dict[str, float]) -> list[str]:
    """Returns a line for each score that is undefined or below its limit."""
    return [
        f"--fail-under: {name} is {'undefined' if value is None else _rounded_down(value)}, below {limit}"
        for name, limit in limits.items()
        if (value := scores.summary[name]) is None or value < limit
    ]


def _rounded_down(value: float) -> str:
    """Returns a score with six decimals that is below every limit that it is below."""
    return str(math.floor(1e6 * value) / 1e6)
