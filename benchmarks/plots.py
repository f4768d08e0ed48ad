"""The plots of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.harness import Row

INK, BLUE = "#333333", "#0072b2"
GROWTH = {"bench-growth-of-time.png": "seconds", "bench-growth-of-memory.png": "MB"}
"""File of each picture, and what the vertical axes of its panels begin with."""


def draw(rows: Sequence[Row], directory: Path) -> list[Path]:
    """Writes the pictures of the rows that have points, one panel a row, and returns their paths."""
    pictures = []
    for name, unit in GROWTH.items():
        mine = [row for row in rows if row.points and row.axes[1].startswith(unit)]
        if mine:
            directory.mkdir(parents=True, exist_ok=True)
            pictures.append(draw_growth(mine, directory / name))
    return pictures


def draw_growth(rows: Sequence[Row], path: Path) -> Path:
    """Writes one picture: each row's points, and the straight line that fits them best; both axes begin at zero."""
    figure, axes = plt.subplots(1, len(rows), figsize=(4.6 * len(rows), 3.8), layout="constrained", squeeze=False)
    for axis, row in zip(axes[0], rows, strict=True):
        x, y = np.array(row.points, float).T
        slope, start = np.polyfit(x, y, 1)
        axis.plot(x, start + slope * x, color=INK, linewidth=1, linestyle="--", label="straight line")
        axis.plot(x, y, "o", color=BLUE, markersize=5, label="measured")
        axis.set(
            xlabel=row.axes[0], ylabel=row.axes[1], title=fill(row.what, 44), xlim=(0, None), ylim=(0, 1.15 * y.max())
        )
        axis.title.set_fontsize(10)
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
