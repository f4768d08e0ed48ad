"""Scores over folds: each fold's, their mean and spread, and those of all validation parts together. No torch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from segtool.errors import shown
from segtool.scoring.metrics import SUMMARY, Scores, iou
from segtool.system.terminal import percent

DEFINITIONS = {
    "mean": "Mean over the folds in which the score is defined; null where it is in none.",
    "std": "Standard deviation over these folds, with n - 1; null where there are fewer than two.",
    "pooled": "Scores of one confusion matrix over the validation parts of all folds: every image once, by a network "
    "that was not trained on it.",
    "val": "Each fold's own part, which also chose its checkpoint, so these scores flatter.",
    "test": "The test split, which is the same for all folds and chose nothing.",
}


@dataclass(frozen=True)
class FoldScore:
    """What one fold's network scores."""

    fold: str
    """`k/n`, as `data.fold`."""
    run: str
    """Its run, relative to the directory of all folds."""
    step: int
    """Of the checkpoint that is scored."""
    val: Scores
    test: Scores | None


Values = tuple[float | None, ...]
"""One score over folds; None where it is undefined."""


def summary_values(scores: Sequence[Scores]) -> dict[str, Values]:
    """Returns each score of the whole over the folds, by the name that `eval --json` gives it."""
    return {name: tuple(one.summary[name] for one in scores) for name in SUMMARY}


def class_values(scores: Sequence[Scores]) -> list[tuple[str, Values]]:
    """Returns the name of each class and its IoU over the folds."""
    columns = zip(*(iou(one.confusion) for one in scores), strict=True)
    return list(zip(scores[0].names, columns, strict=True))


def spread(values: Values) -> tuple[float | None, float | None]:
    """Returns mean and standard deviation (n - 1) of the defined values; None of none, or of fewer than two."""
    defined = [value for value in values if value is not None]
    return statistics.fmean(defined) if defined else None, statistics.stdev(defined) if len(defined) > 1 else None


def pooled(folds: Sequence[FoldScore]) -> Scores:
    """Returns the scores over the images of all validation parts."""
    return Scores.of(folds[0].val.names, [image for fold in folds for image in fold.val.images])


def to_json(folds: Sequence[FoldScore]) -> dict[str, Any]:
    """Returns what `folds.json` holds."""
    tests = _tests(folds)
    return {
        "definitions": DEFINITIONS,
        "folds": [
            {
                "fold": fold.fold,
                "run": fold.run,
                "step": fold.step,
                "val": fold.val.to_json(),
                "test": fold.test.to_json() if fold.test else None,
            }
            for fold in folds
        ],
        "val": {**_spread_json([fold.val for fold in folds]), "pooled": pooled(folds).to_json()},
        "test": _spread_json(tests) if tests else None,
    }


def fold_tables(folds: Sequence[FoldScore]) -> list[Table]:
    """Returns the table of the validation parts, and that of the test split where there is one."""
    tests = _tests(folds)
    tables = [_table("each fold's validation part", [fold.val for fold in folds], pooled(folds))]
    return tables + ([_table("test split", tests, None)] if tests else [])


def definition(folds: Sequence[FoldScore]) -> str:
    """Returns what the numbers of the tables are, a line each."""
    images = len(pooled(folds).images)
    lines = [
        "In %: mean and standard deviation (n - 1) over the folds in which a score is defined; 1 to n are the folds.",
        f"pooled: one confusion matrix over the validation parts of all folds ({images} images), each image predicted "
        "by a network that was not trained on it.",
        "A validation part also chose its fold's checkpoint, so its scores flatter"
        + ("; the test split chose nothing." if _tests(folds) else "; there is no test split."),
    ]
    return "\n".join(lines)


def _tests(folds: Sequence[FoldScore]) -> list[Scores]:
    return [fold.test for fold in folds if fold.test is not None]


def _spread_json(scores: Sequence[Scores]) -> dict[str, Any]:
    whole = {name: spread(values) for name, values in summary_values(scores).items()}
    classes = [(name, *spread(values), list(values)) for name, values in class_values(scores)]
    return {
        "mean": {name: mean for name, (mean, _) in whole.items()},
        "std": {name: std for name, (_, std) in whole.items()},
        "classes": [dict(zip(("name", "mean", "std", "iou"), row, strict=True)) for row in classes],
    }


def _table(title: str, scores: Sequence[Scores], together: Scores | None) -> Table:
    table = Table(title=Text(shown(title)), title_justify="left")
    table.add_column("score", overflow="fold")
    for name in ("mean", "std", *(["pooled"] if together else []), *map(str, range(1, len(scores) + 1))):
        table.add_column(name, justify="right")

    def add(label: str, values: Values, whole: float | None) -> None:
        # Names go in as Text: as strings they would be read as markup and emoji codes.
        row = (*spread(values), *([whole] if together else []), *values)
        table.add_row(Text(shown(label)), *map(percent, row))

    for label, name in (("mIoU", "miou"), ("pixel accuracy", "pixel_accuracy")):
        add(label, summary_values(scores)[name], together.summary[name] if together else None)
    table.add_section()
    wholes = iou(together.confusion) if together else [None] * len(scores[0].names)
    for (name, values), whole in zip(class_values(scores), wholes, strict=True):
        add(f"IoU {name}", values, whole)
    return table
