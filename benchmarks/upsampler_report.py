"""The table and the pictures of a sweep over upsamplers."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from benchmarks.upsampler_runs import logits, read_pixels, trained, untrained
from benchmarks.upsampler_scores import checkerboard, pattern_energy, thin_pixels
from segtool.commands.demo import CLASSES, ROAD
from segtool.data.draw import contact_sheet

Row = dict[str, Any]
REFERENCE = "nearest"
BEGIN, END = "<!-- upsamplers: begin -->", "<!-- upsamplers: end -->"
WINDOW = 32  # pixels of an image that the zoom shows
CAPTIONS = {
    "upsamplers-predictions": "Predictions of seed 0: above with skips, below without",
    "upsamplers-thin": f"The window of {WINDOW}x{WINDOW} pixels with the most thin road of all test images",
    "upsamplers-logits": "The logit of road in that window, black at its smallest value, white at its largest",
}
COLUMNS = (
    "decoder",
    "upsampler",
    "parameters",
    "mIoU",
    "thin-structure IoU",
    "checkerboard",
    "untrained",
    "training, images/s",
    f"of {REFERENCE}",
    "prediction, ms",
    f"of {REFERENCE}",
)
COLORS = np.array([ImageColor.getrgb(color) for _, color in CLASSES], np.uint8)


class Place(NamedTuple):
    """A window of a test image, by its upper left corner."""

    stem: str
    top: int
    left: int

    def cut(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Returns the window of H W or H W 3."""
        return pixels[self.top : self.top + WINDOW, self.left : self.left + WINDOW]


def table(rows: Sequence[Row], extras: Sequence[str] = ()) -> str:
    """Returns the Markdown table of all rows: mean and standard deviation (n - 1) over the seeds.

    Shares are in percent. Times are also given as a ratio to the reference with the same decoder and seed.
    """
    seeds = len({row["seed"] for row in rows})
    lines = [_line(COLUMNS), _line(["---"] * len(COLUMNS))]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["decoder"] == "fcn"):
        groups.setdefault((row["decoder"], row["upsampler"]), []).append(row)
    for (decoder, upsampler), found in groups.items():
        name = upsampler + (" (extra)" if upsampler in extras else "")
        if len(found) < seeds:
            name += f", {len(found)} of {seeds} seeds"
        cells = [decoder, name, f"{found[0]['parameters']:,}"]
        for key in ("miou", "thin_iou"):
            cells.append(_spread([100 * row[key] for row in found], 1))
        for key in ("checkerboard", "checkerboard_untrained"):
            cells.append(_spread([100 * row[key] for row in found], 2))
        for key in ("train_images_per_second", "predict_ms"):
            cells += [_spread([row[key] for row in found], 1), _spread(_ratios(found, rows, key), 2)]
        lines.append(_line(cells))
    return "\n".join(lines)


def write_table(rows: Sequence[Row], extras: Sequence[str], out: Path) -> str:
    """Writes OUT/table.md, with what the table's numbers are to be compared with, and returns it."""
    floor = truth_score(out / "data" / "test" / "masks")
    text = f"{table(rows, extras)}\n\nThe truth itself, one-hot, has a checkerboard score of {100 * floor:.2f}.\n"
    (out / "table.md").write_text(text, encoding="utf-8")
    return text


def publish(text: str, pictures: Sequence[Path], docs: Path) -> None:
    """Puts table and pictures between the two marks of DOCS/results.md, and the pictures into DOCS/images."""
    for path in pictures:
        shutil.copy(path, docs / "images" / path.name)
        text += f"\n![{CAPTIONS[path.stem]}](images/{path.name})\n\n{CAPTIONS[path.stem]}.\n"
    page = docs / "results.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")


def truth_score(masks: Path) -> float:
    """Returns the checkerboard score of masks, which know nothing of any grid."""
    classes = np.arange(len(CLASSES))[:, None, None]
    return checkerboard(
        [pattern_energy((read_pixels(path) == classes).astype(float)) for path in sorted(masks.iterdir())]
    )


def write_pictures(out: Path, decoders: Sequence[str], upsamplers: Sequence[str]) -> list[Path]:
    """Writes the pictures of `CAPTIONS` to OUT, from the runs of seed 0, and returns their paths."""
    test = out / "data" / "test"
    place = thinnest(test / "masks")
    name = f"{place.stem}.png"
    image = read_pixels(test / "images" / name)
    shown = {"image": image, "truth": COLORS[read_pixels(test / "masks" / name)]}
    whole: list[Image.Image] = []
    zoom: list[Image.Image] = []
    grey: list[Image.Image] = []
    for decoder, (caption, picture) in zip(decoders, shown.items(), strict=True):
        panels = {caption: picture}
        for upsampler in upsamplers:
            prediction = read_pixels(out / f"{decoder}-{upsampler}-0" / "predictions" / name)
            panels[f"{decoder}, {upsampler}"] = COLORS[prediction]
        whole += [_panel(pixels, text, scale=2) for text, pixels in panels.items()]
        zoom += [_panel(place.cut(pixels), text, scale=8) for text, pixels in panels.items()]
        for load, state in ((untrained, "untrained"), (trained, "trained")):
            for upsampler in upsamplers:
                road = logits(load(out / f"{decoder}-{upsampler}-0"), image)[ROAD]
                grey.append(_panel(_grey(place.cut(road)), f"{decoder}, {upsampler}, {state}", scale=8))
    columns = len(upsamplers)
    paths = []
    for stem, panels, width in zip(CAPTIONS, (whole, zoom, grey), (columns + 1, columns + 1, columns), strict=True):
        paths.append(out / f"{stem}.png")
        contact_sheet(panels, width, gap=8).save(paths[-1], optimize=True)
    return paths


def thinnest(masks: Path) -> Place:
    """Returns the window with the most pixels of thin road, the first among equal ones."""
    best, place = -1, None
    for path in sorted(masks.iterdir()):
        counts = sliding_window_view(thin_pixels(read_pixels(path), ROAD), (WINDOW, WINDOW)).sum((-2, -1))
        if counts.max() > best:
            top, left = np.unravel_index(counts.argmax(), counts.shape)
            best, place = int(counts.max()), Place(path.stem, int(top), int(left))
    assert place is not None, "no masks"
    return place


def _ratios(found: Sequence[Row], rows: Sequence[Row], key: str) -> list[float]:
    reference = {(row["decoder"], row["seed"]): row[key] for row in rows if row["upsampler"] == REFERENCE}
    at = [(row[key], (row["decoder"], row["seed"])) for row in found]
    return [value / reference[place] for value, place in at if place in reference]


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _grey(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Returns H W 3 from black at the smallest value to white at the largest."""
    low, high = values.min(), values.max()
    scaled = np.rint(255 * (values - low) / max(high - low, 1e-12)).astype(np.uint8)
    return scaled[..., None].repeat(3, axis=2)


def _panel(pixels: NDArray[np.uint8], caption: str, *, scale: int) -> Image.Image:
    """Returns pixels H W 3 enlarged, each to a square, with a caption below."""
    picture = Image.fromarray(pixels.repeat(scale, axis=0).repeat(scale, axis=1))
    panel = Image.new("RGB", (picture.width, picture.height + 24), "white")
    panel.paste(picture)
    pen = ImageDraw.Draw(panel)
    pen.text((2, picture.height + 12), caption, fill="black", font=ImageFont.load_default(size=16), anchor="lm")
    return panel
