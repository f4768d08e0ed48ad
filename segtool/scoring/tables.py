"""Scores as a table for people, the definition that stands under it, and a CSV with a row an image."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from segtool.errors import shown
from segtool.scoring.metrics import (
    Scores,
    dice,
    iou,
    majority_baseline,
    mean,
    pixel_accuracy,
    precision,
    recall,
    standard_errors,
)
from segtool.system.terminal import counted, percent

if TYPE_CHECKING:
    from rich.table import Table

FIRST_COLUMNS = ("image", "pixel_accuracy", "miou")
TABLE_BEGINS = ",".join(FIRST_COLUMNS).encode() + b","
"""What tells a per-image table, which alone is replaced by another."""


def score_table(scores: Scores, title: str) -> Table:
    """Returns the scores by class, their means, and what answering the most frequent class everywhere would score.

    Beside an IoU stands its standard error.
    """
    from rich.table import Table
    from rich.text import Text

    matrix = scores.confusion
    total = max(int(matrix.sum()), 1)
    columns = [iou(matrix), dice(matrix), precision(matrix), recall(matrix)]
    errors = standard_errors(scores)
    # Names go in as Text: as strings they would be read as markup and emoji codes.
    table = Table(title=Text(shown(title)), title_justify="left")
    table.add_column("class", overflow="fold")
    for name in ("IoU %", "±", "Dice %", "precision %", "recall %", "pixels %"):
        table.add_column(name, justify="right")
    pixels = matrix.sum(1).tolist()
    rows = zip(*columns, strict=True)
    for name, (overlap, *others), error, count in zip(scores.names, rows, errors.iou, pixels, strict=True):
        table.add_row(Text(shown(name)), *map(percent, (overlap, error, *others)), percent(count / total))
    table.add_section()
    overlap, *others = map(mean, columns)
    table.add_row("mean", *map(percent, (overlap, errors.miou, *others)), "")
    base, majority = majority_baseline(scores)
    if majority is not None:
        baseline = [percent(base["miou"]), "", percent(base["mean_dice"]), "", percent(base["mean_accuracy"]), ""]
        table.add_row(Text(f"all {shown(majority)}"), *baseline, style="dim")
    return table


def definition(scores: Scores) -> str:
    """Returns the scores of the whole, what the numbers are, and what they leave out; a line each."""
    absent = [shown(name) for name, value in zip(scores.names, iou(scores.confusion), strict=True) if value is None]
    summary, errors = scores.summary, standard_errors(scores)
    defined = len(scores.names) - len(absent)
    predicted, true = (sum(bool(pixels) for pixels in scores.confusion.sum(axis)) for axis in (0, 1))
    fewer = (
        f"; those of precision over the {predicted} that are predicted, those of recall and accuracy over the {true} "
        "in truth"
    )
    scored = int(scores.confusion.sum())
    left_out = percent(scores.ignored / max(scores.ignored + scored, 1))
    _, majority = majority_baseline(scores)
    lines = [
        f"mIoU {_with_error(summary['miou'], errors.miou)}  "
        f"pixel accuracy {_with_error(summary['pixel_accuracy'], errors.pixel_accuracy)}  "
        f"mean accuracy {percent(summary['mean_accuracy'])}  mean Dice {percent(summary['mean_dice'])}  "
        f"frequency-weighted IoU {percent(summary['fw_iou'])}",
        f"From one confusion matrix over {counted(len(scores.images), 'image')} ({counted(scored, 'pixel')}), not a "
        f"mean over images. Means are over the {defined} of {len(scores.names)} classes in truth or prediction"
        + (fewer if min(predicted, true) < defined else "")
        + (f"; absent: {', '.join(absent)}." if absent else "."),
        f"{counted(scores.ignored, 'pixel')} with ignored truth ({left_out} %) are left out.",
    ]
    if errors.miou is not None:
        lines.append(
            "± is the standard error over the images: how far other images of the kind, as many, would typically move "
            "the number. Frames of one video and tiles of one picture move it further; so may another seed of the "
            "training, of which it knows nothing."
        )
    if majority is not None:
        lines.append(f"The row 'all {shown(majority)}' is what that answer everywhere would score.")
    return "\n".join(lines)


def _with_error(score: float | None, error: float | None) -> str:
    return percent(score) if error is None else f"{percent(score)} ± {percent(error)}"


def per_image_csv(scores: Scores) -> str:
    """Returns a CSV with each image's stem, pixel accuracy, mIoU, IoU by class, and its ignored pixels.

    A cell is empty where a score is undefined. An image's mIoU is over the classes in its own truth or prediction.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [_inert(f"iou {name}") for name in scores.names]
    writer.writerow([*FIRST_COLUMNS, *names, "pixels", "ignored_pixels"])
    for image in scores.images:
        ious = iou(image.confusion)
        values = [pixel_accuracy(image.confusion), mean(ious), *ious]
        cells = ["" if value is None else f"{value:.6f}" for value in values]
        writer.writerow([_inert(image.stem), *cells, int(image.confusion.sum()), image.ignored])
    return text.getvalue()


def _inert(text: str) -> str:
    # A spreadsheet runs a cell that begins like a formula; the apostrophe makes it text.
    text = shown(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
