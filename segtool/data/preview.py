"""What augmentation makes of training images, as pictures: a sheet for each option that is on, and one of them all.

Each picture is drawn from the generator of its (seed, epoch, index), as training draws it. So the sheet of them all has
the very crops of the first epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from segtool.config import Augment, Config, Data, located, plain
from segtool.config.yaml_io import flow
from segtool.data import draw
from segtool.data.augment import augment_pair, cut
from segtool.data.formats import data_root, split_records
from segtool.data.geometry import draw_geometry
from segtool.data.labels import Labels
from segtool.data.pairs import Record
from segtool.data.photometry import require_jpeg_holds
from segtool.data.reader import Reader
from segtool.data.statistics import class_frequencies, evenly
from segtool.errors import DataError, SegtoolError
from segtool.system.disk import make_folder, write_atomically

IMAGES = 4  # rows of a sheet
COLUMNS = 4
MAX_PIXELS = 16_000_000  # of a sheet, about: of large crops there are fewer rows
SMALLEST = 160  # pixels of a sheet that the longer side of a crop has at least
COLORS_ONLY = ("color", "gamma", "blur", "noise", "jpeg")
"""Options that leave the mask alone, which is not shown then."""


class Crop(NamedTuple):
    """A crop as training sees it."""

    caption: str
    image: np.ndarray
    target: np.ndarray
    shown: draw.Window
    """What is black and white in the picture: as in the image that it is of, so that brightness can be compared."""


@dataclass(frozen=True)
class Source:
    """A training image with its mask and its index, and what is drawn of it."""

    number: int
    stem: str
    image: np.ndarray
    target: np.ndarray
    seed: int
    crop: tuple[int, int]
    class_pixels: tuple[int, ...] | None

    def crops(self, augment: Augment) -> list[Crop]:
        """Returns the crops of the first epochs."""
        shown = draw.window(self.image)
        return [Crop(f"epoch {epoch}: {self.stem}", *self._drawn(augment, epoch), shown) for epoch in range(COLUMNS)]

    def with_and_without(self, augment: Augment) -> list[Crop]:
        """Returns a random crop with nothing changed, and draws about the same centre with all that `augment` has."""
        size = (self.target.shape[0], self.target.shape[1])
        geometry = draw_geometry(self._generator(0), size, self.crop, Augment())
        unchanged = cut(self.image, self.target, self._generator(0), geometry, Augment())
        x, y = geometry.matrix @ (self.crop[1] / 2, self.crop[0] / 2, 1)
        shown = draw.window(self.image)
        crops = [Crop(f"without: {self.stem}", *unchanged, shown)]
        for epoch in range(COLUMNS - 1):
            crops.append(Crop(f"draw {epoch + 1}", *self._drawn(augment, epoch, centre=(y, x)), shown))
        return crops

    def _drawn(
        self, augment: Augment, epoch: int, *, centre: tuple[float, float] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        rng = self._generator(epoch)
        return augment_pair(
            self.image, self.target, rng, crop=self.crop, augment=augment, class_pixels=self.class_pixels, centre=centre
        )

    def _generator(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, self.number])


def options_on(augment: Augment) -> dict[str, Any]:
    """Returns the options that change a crop, by name, in the order of the config."""
    values = {f.name: getattr(augment, f.name) for f in fields(augment) if f.name != "crop"}
    return {name: value for name, value in values.items() if value != getattr(Augment(), name)}


def in_words(augment: Augment) -> str:
    """Returns those options with their values, in words: `flip horizontal, rotate 10`; "" where none is on."""
    return ", ".join(f"{name} {flow(plain(value))}" for name, value in options_on(augment).items())


def write_previews(config: Config, base: Path, directory: Path) -> list[Path]:
    """Writes the sheets into a folder, which is made where there is none, and returns their paths.

    `augment-crop.png` shows the crops alone, `augment-NAME.png` each option that is on at work alone beside the crop
    without it, and `augment-all.png` what training sees with all of them. A file of the same name is replaced.

    Raises:
        DataError: there is no training pair, or a file cannot be used.
        SegtoolError: the folder lies among the images or masks, which the pictures would join.
    """
    _require_apart(config.data, data_root(config.data, base), directory)
    with located(config):
        records = split_records(config, base).get("train")
    if not records:
        raise DataError("data.train: has no pairs to show; --augment draws crops of training images, add some")
    sources = _sources(config, records)
    on = options_on(config.augment)
    sheets: dict[str, tuple[str, str, Callable[[Source], list[Crop]]]] = {
        "crop": (_title("crop", sources[0].crop), f"{COLUMNS} draws with nothing else", lambda s: s.crops(Augment()))
    }
    for name, value in on.items():
        alone = Augment(**{name: value})
        note = f"left: without it; right: {COLUMNS - 1} draws with it alone"
        sheets[name] = (_title(name, value), note, lambda s, alone=alone: s.with_and_without(alone))
    if on:
        sheets["all"] = ("as training sees it", in_words(config.augment), lambda s: s.crops(config.augment))
    make_folder(directory)
    labels, paths = Labels.from_config(config.data), []
    for name, (title, note, crops) in sheets.items():
        picture = _sheet(title, note, [crops(s) for s in sources], labels, with_masks=name not in COLORS_ONLY)
        paths.append(directory / f"augment-{name}.png")
        write_atomically(paths[-1], draw.png(picture))
    return paths


def _require_apart(data: Data, root: Path, directory: Path) -> None:
    """Raises SegtoolError where a folder is one that images or masks are searched in, or lies within one."""
    names = [name for part in data.parts.values() for name in (part.images, part.masks) if name is not None]
    for folder in [root / name for name in names]:
        if directory.resolve().is_relative_to(folder.resolve()):
            raise SegtoolError(f"{directory}: lies in {folder}, whose pictures are data; choose another --augment")


def _sources(config: Config, records: Sequence[Record]) -> list[Source]:
    reader = Reader.of(config)
    first = reader.pair(records[0])
    crop = config.augment.crop or (first[1].shape[0], first[1].shape[1])
    count = min(IMAGES, max(1, MAX_PIXELS // (2 * COLUMNS * crop[0] * crop[1])))
    class_pixels = class_frequencies(config, records).pixels if config.augment.rare else None
    sources = []
    for number in evenly(len(records), count):
        image, target = reader.pair(records[number])
        require_jpeg_holds(image, records[number].image, config.augment)
        sources.append(Source(number, records[number].stem, image, target, config.train.seed, crop, class_pixels))
    return sources


def _sheet(title: str, note: str, rows: list[list[Crop]], labels: Labels, *, with_masks: bool) -> Image.Image:
    height, width = rows[0][0].target.shape
    scale = max(1, SMALLEST // max(height, width))
    present = np.concatenate([np.unique(crop.target) for row in rows for crop in row])
    entries = draw.entries(present, labels.colors, labels.names)

    def panel(crop: Crop) -> Image.Image:
        target = crop.target if with_masks else None
        return draw.panel(crop.image, target, labels.colors, scale=scale, shown=crop.shown)

    cells = [[(crop.caption, panel(crop)) for crop in row] for row in rows]
    return draw.gallery(title, note, cells, classes=entries if with_masks else ())


def _title(name: str, value: Any) -> str:
    return f"augment.{name}: {flow(plain(value))}"
