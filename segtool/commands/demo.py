"""A synthetic data set: a countryside from above, drawn with numpy, for trying segtool where no data is at hand.

What makes it a test of a network, and not of a colour table:

* roads are 2 to 3 pixels wide, and small crowns stand in groups: without skips they cannot be localised;
* a field has the meadow's colour, and differs by its furrows alone;
* roofs and roads share colours, and differ by shape;
* trees hide roads, roofs and shores; shadows, clouds, exposure and sensor noise change every colour.

Shapes are signed distances in pixels, negative inside. A pixel takes the colour of a shape by the share of it that the
shape covers, and its class where the shape covers its centre, so the masks are exact where the images are smooth.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segtool.data.draw import png
from segtool.system.disk import make_folder, write_atomically

Floats: TypeAlias = NDArray[np.float64]

CLASSES: tuple[tuple[str, str], ...] = (
    ("meadow", "#009e73"),
    ("field", "#f0e442"),
    ("water", "#0072b2"),
    ("road", "#f2f2f2"),
    ("building", "#d55e00"),
    ("tree", "#12432f"),
)
"""Name and display colour of each class; the position is the value in the masks."""

TRAINING = (
    "model.encoder.channels=[16, 32, 64, 128]",
    "augment.crop=[96, 128]",
    "augment.scale=[1, 1]",
    "augment.flip=both",
    "augment.rotate=0",
    "optim.lr=3e-3",
    "optim.warmup=10",
    "train.steps=140",
    "train.batch_size=8",
    "train.eval_every=2.5",
    "train.ema=0.95",
)
"""What `segtool demo` changes in the config that init writes: a short training of a small network."""

MEADOW, FIELD, WATER, ROAD, BUILDING, TREE = range(len(CLASSES))
SIZES: Mapping[str, int] = MappingProxyType({"train": 160, "val": 32, "test": 48})
"""Images of each split, where `make_dataset` is given none."""

_ROOFS = ((0.69, 0.33, 0.23), (0.58, 0.30, 0.24), (0.40, 0.42, 0.47), (0.74, 0.70, 0.63), (0.50, 0.40, 0.31))


def make_dataset(
    root: Path, *, seed: int = 0, sizes: Mapping[str, int] = SIZES, height: int = 96, width: int = 128
) -> None:
    """Writes `root/SPLIT/images/NNNN.png` (RGB), `root/SPLIT/masks/NNNN.png` (L, 0 to 5) and `root/classes.txt`.

    Files of the same name are replaced. The pixels of a pair depend on (seed, split, number, height, width) alone.

    Args:
        seed: Not negative. Another seed is another set of places.
        sizes: Number of images of each split.
    """
    for split, count in sizes.items():
        images, masks = root / split / "images", root / split / "masks"
        make_folder(images)
        make_folder(masks)
        for index in range(count):
            image, mask = draw_scene(seed, split, index, height=height, width=width)
            write_atomically(images / f"{index:04d}.png", png(Image.fromarray(image)))
            write_atomically(masks / f"{index:04d}.png", png(Image.fromarray(mask)))
    write_atomically(root / "classes.txt", "".join(f"{name}\n" for name, _ in CLASSES).encode())


def draw_scene(
    seed: int, split: str, index: int, *, height: int = 96, width: int = 128
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns one image (H W 3) and its mask (H W, values 0 to 5)."""
    # The split enters by its checksum: str hashes differ between processes. Generator.random is the one method used,
    # since the streams of others may change between numpy releases.
    rng = np.random.Generator(np.random.PCG64([seed, zlib.crc32(split.encode()), index]))
    scene = _Scene.empty(rng, height, width)
    scene.draw_meadow()
    for _ in range(scene.count(1, 3)):
        scene.draw_field()
    if rng.random() < 0.8:
        scene.draw_river() if rng.random() < 0.4 else scene.draw_lake()
    for turn in range(scene.count(1, 2, dimension=1)):
        scene.draw_road(crossing=turn % 2 == 1)
    for _ in range(scene.count(3, 5)):
        scene.draw_building()
    for _ in range(scene.count(3, 5)):
        scene.draw_grove()
    return scene.photograph(), scene.canvas.labels


@dataclass(frozen=True)
class _Canvas:
    """A picture or a window of one: what is painted on a window is painted on the picture."""

    y: Floats  # H 1, of pixel centres
    x: Floats  # 1 W
    color: Floats  # H W 3, 0 to 1
    labels: NDArray[np.uint8]  # H W

    def window(self, y: float, x: float, reach: float) -> _Canvas:
        rows = slice(max(0, math.floor(y - reach)), max(0, math.ceil(y + reach)))
        columns = slice(max(0, math.floor(x - reach)), max(0, math.ceil(x + reach)))
        return _Canvas(self.y[rows], self.x[:, columns], self.color[rows, columns], self.labels[rows, columns])

    def paint(self, distance: Floats, color: Floats, label: int) -> None:
        """Puts a shape on top: its colour by coverage, its class where it holds the pixel's centre."""
        cover = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
        self.color[...] += cover * (color - self.color)
        self.labels[distance < 0] = label

    def darken(self, distance: Floats, strength: float, *, softness: float = 1.5) -> None:
        self.color[...] *= 1.0 - strength * np.clip(0.5 - distance / softness, 0.0, 1.0)[..., None]


@dataclass(frozen=True)
class _Scene:
    """One place, one time of day. The order of drawing is the order in depth."""

    rng: np.random.Generator
    canvas: _Canvas
    grass: Floats  # 3, colour that meadow and fields share here
    heading: float  # radians; roads, fields and houses keep to it
    sun: tuple[float, float]  # y, x of the unit vector towards the light

    @classmethod
    def empty(cls, rng: np.random.Generator, height: int, width: int) -> _Scene:
        y, x = np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64)
        labels = np.zeros((height, width), np.uint8)
        canvas = _Canvas(y[:, None] + 0.5, x[None] + 0.5, np.zeros((height, width, 3)), labels)
        dryness = rng.random()
        grass = np.array([0.37 + 0.19 * dryness, 0.54 + 0.01 * dryness, 0.24 + 0.03 * dryness])
        light = _between(rng, -0.9, 0.6) - math.pi / 2
        return cls(rng, canvas, grass, _between(rng, 0, math.pi), (math.sin(light), math.cos(light)))

    def count(self, low: int, high: int, *, dimension: int = 2) -> int:
        """Returns a number of things for a picture of 96x128, and more for a larger one.

        By its area where things have a place, by its side (dimension 1) where they cross it from end to end.
        """
        growth = (self.canvas.labels.size / (96 * 128)) ** (dimension / 2)
        return max(low, round((low + math.floor(self.rng.random() * (high - low + 1))) * growth))

    def place(self, *forbidden: int, margin: float = 6.0) -> tuple[float, float]:
        """Returns a random y and x whose class so far is none of the forbidden ones, where that is soon found."""
        height, width = self.canvas.labels.shape
        y = x = 0.0
        for _ in range(24):
            y = _between(self.rng, min(margin, height / 2), max(height - margin, height / 2))
            x = _between(self.rng, min(margin, width / 2), max(width - margin, width / 2))
            if self.canvas.labels[min(int(y), height - 1), min(int(x), width - 1)] not in forbidden:
                break
        return y, x

    def noise(self, *cells: float) -> Floats:
        """Returns smooth noise over the whole picture, H W, about -1 to 1, with features of these sizes in pixels."""
        height, width = self.canvas.labels.shape
        octaves = [_value_noise(self.rng, height, width, cell) * 0.6**order for order, cell in enumerate(cells)]
        return np.sum(octaves, axis=0) / sum(0.6**order for order in range(len(cells)))

    def draw_meadow(self) -> None:
        patches = self.noise(40, 18)[..., None] * np.array([0.060, 0.025, 0.030])
        blades = self.noise(5, 2.5)[..., None] * 0.075
        self.canvas.color[...] = self.grass + patches + blades

    def draw_field(self) -> None:
        y, x = self.place(margin=16)
        along, across = _between(self.rng, 17, 30), _between(self.rng, 12, 20)
        canvas = self.canvas.window(y, x, along + across)
        u, v = _turned(canvas, y, x, self.heading)
        period, phase = _between(self.rng, 3.6, 5.2), self.rng.random()
        furrows = 0.10 * np.sin(2 * math.pi * ((v if self.rng.random() < 0.6 else u) / period + phase))
        # A furrow is as much darker than the meadow as a ridge is lighter: the mean colour does not tell them apart.
        distance = _box(u, v, along, across)
        distance = np.maximum(distance, np.where(canvas.labels == FIELD, 1.0, -1.0))  # fields meet, and do not overlap
        canvas.paint(distance, canvas.color + furrows[..., None], FIELD)

    def draw_lake(self) -> None:
        y, x = self.place(margin=10)
        radius = _between(self.rng, 13, 23)
        canvas = self.canvas.window(y, x, 2 * radius)
        angle = np.arctan2(canvas.y - y, canvas.x - x)
        shore = np.full(angle.shape, radius)
        for waves, size in ((2, 0.22), (3, 0.12), (5, 0.05)):
            shore += radius * size * np.sin(waves * angle + _between(self.rng, 0, 2 * math.pi))
        self.draw_water(canvas, np.hypot(canvas.y - y, canvas.x - x) - shore)

    def draw_river(self) -> None:
        y, x = self.place(margin=24)
        line = self.meander(y, x, self.heading + _between(self.rng, 0.9, 2.2), sway=9)
        self.draw_water(self.canvas, np.abs(line) - _between(self.rng, 5, 8))

    def draw_water(self, canvas: _Canvas, distance: Floats) -> None:
        canvas.darken(distance - 2.0, 0.22, softness=3)  # wet ground
        deep, shallow = np.array([0.10, 0.25, 0.36]), np.array([0.25, 0.42, 0.45])
        depth = np.clip(-distance / 9, 0.0, 1.0)[..., None]
        ripples = np.sin((canvas.y * 1.3 + canvas.x * 0.35) + 2 * np.sin(canvas.x * 0.21)) * 0.018
        canvas.paint(distance, shallow + depth * (deep - shallow) + ripples[..., None], WATER)

    def draw_road(self, *, crossing: bool) -> None:
        y, x = self.place(margin=20)
        heading = self.heading + _between(self.rng, -0.15, 0.15) + (math.pi / 2 if crossing else 0.0)
        distance = np.abs(self.meander(y, x, heading, sway=7)) - _between(self.rng, 1.1, 1.7)
        asphalt, gravel = np.array([0.57, 0.56, 0.57]), np.array([0.80, 0.73, 0.61])
        surface = gravel + self.rng.random() * (asphalt - gravel) + self.noise(4)[..., None] * 0.03
        self.canvas.darken(distance - 0.8, 0.12)
        self.canvas.paint(distance, surface, ROAD)

    def meander(self, y: float, x: float, heading: float, *, sway: float) -> Floats:
        """Returns the signed distance, in pixels and to first order, from a winding line through a point."""
        u, v = _turned(self.canvas, y, x, heading)
        line, slope = np.zeros(u.shape), np.zeros(u.shape)
        for length, size in ((_between(self.rng, 90, 150), sway), (_between(self.rng, 40, 60), sway / 4)):
            phase = 2 * math.pi * (u / length + self.rng.random())
            line += size * np.sin(phase)
            slope += size * 2 * math.pi / length * np.cos(phase)
        return (v - line) / np.sqrt(1 + slope**2)

    def draw_building(self) -> None:
        y, x = self.place(WATER, ROAD, BUILDING)
        along, across = _between(self.rng, 5.5, 9), _between(self.rng, 4, 6)
        angle = self.heading + (math.pi / 2 if self.rng.random() < 0.3 else 0.0) + _between(self.rng, -0.12, 0.12)
        canvas = self.canvas.window(y, x, along + across + 8)
        for step in (1.5, 3.0, 4.5):  # a wall's shadow is the union of its copies down the light
            shifted = _turned(canvas, y - step * self.sun[0], x - step * self.sun[1], angle)
            canvas.darken(_box(*shifted, along, across), 0.22)
        u, v = _turned(canvas, y, x, angle)
        facing = -math.sin(angle) * self.sun[1] + math.cos(angle) * self.sun[0]
        light = 0.95 + 0.22 * facing * np.tanh(v * 2) + 0.05 * np.sin(2 * math.pi * u / 2.9)
        tone = np.array(_ROOFS[int(self.rng.random() * len(_ROOFS))]) * _between(self.rng, 0.9, 1.1)
        canvas.paint(_box(u, v, along, across), light[..., None] * tone, BUILDING)

    def draw_grove(self) -> None:
        y, x = self.place(WATER)
        spread = _between(self.rng, 4, 11)
        for _ in range(1 + int(self.rng.random() * 5)):
            # The sum of two uniform numbers is dense in the middle, as groves are.
            dy, dx = (2 * spread * (self.rng.random(2) + self.rng.random(2) - 1)).tolist()
            self.draw_tree(y + dy, x + dx)

    def draw_tree(self, y: float, x: float) -> None:
        radius = _between(self.rng, 3.4, 6.5)
        canvas = self.canvas.window(y, x, 2.2 * radius + 2)
        reach = 0.75 * radius
        canvas.darken(np.hypot(canvas.y - y + reach * self.sun[0], canvas.x - x + reach * self.sun[1]) - radius, 0.33)
        dy, dx = (canvas.y - y) / radius, (canvas.x - x) / radius
        dome = np.sqrt(np.clip(1 - dy**2 - dx**2, 0, 1))
        light = 0.55 + 0.42 * (dy * self.sun[0] + dx * self.sun[1]) + 0.35 * dome
        light += 0.28 * (self.rng.random(light.shape) - 0.5)
        green = np.array([0.16, 0.36, 0.16]) + self.rng.random() * np.array([0.10, 0.03, 0.00])
        canvas.paint(np.hypot(canvas.y - y, canvas.x - x) - radius, light[..., None] * green, TREE)

    def photograph(self) -> NDArray[np.uint8]:
        """Returns the picture under clouds and a slope of light, by a camera with its own exposure, tint and noise."""
        height, width = self.canvas.labels.shape
        slope = (self.canvas.y / height - 0.5) * self.sun[0] + (self.canvas.x / width - 0.5) * self.sun[1]
        clouds = np.clip(2.2 * self.noise(70, 30) - 0.35, 0, 1)
        light = _between(self.rng, 1.05, 1.3) * (1 + 0.24 * slope) * (1 - 0.35 * clouds)
        tint = 1 + 0.05 * (2 * self.rng.random(3) - 1)
        grain = (self.rng.random((2, height, width, 3)).sum(0) - 1) * _between(self.rng, 0.015, 0.035)
        return np.rint(255 * np.clip(self.canvas.color * light[..., None] * tint + grain, 0, 1)).astype(np.uint8)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _turned(canvas: _Canvas, y: float, x: float, angle: float) -> tuple[Floats, Floats]:
    """Returns each pixel's coordinates along and across an axis through (y, x), H W each."""
    cos, sin = math.cos(angle), math.sin(angle)
    dy, dx = canvas.y - y, canvas.x - x
    return dx * cos + dy * sin, dy * cos - dx * sin


def _box(u: Floats, v: Floats, along: float, across: float) -> Floats:
    """Returns the signed distance from a rectangle of these half sides; corners are square inside, round outside."""
    du, dv = np.abs(u) - along, np.abs(v) - across
    return np.minimum(np.maximum(du, dv), 0) + np.hypot(np.maximum(du, 0), np.maximum(dv, 0))


def _value_noise(rng: np.random.Generator, height: int, width: int, cell: float) -> Floats:
    """Returns random values of a lattice, -1 to 1, blended by smoothstep between its points; H W."""
    top, down = _lattice_position(height, cell, rng.random())
    left, right = _lattice_position(width, cell, rng.random())
    lattice = 2 * rng.random((int(top[-1]) + 2, int(left[-1]) + 2)) - 1
    # Written out: a product of matrices adds up in an order that differs between machines.
    rows = lattice[top] + down[:, None] * (lattice[top + 1] - lattice[top])
    return rows[:, left] + right * (rows[:, left + 1] - rows[:, left])


def _lattice_position(length: int, cell: float, phase: float) -> tuple[NDArray[np.intp], Floats]:
    """Returns the lattice point before each pixel, and the weight of the next one."""
    position = np.arange(length) / cell + phase
    before = np.floor(position)
    share = position - before
    return before.astype(np.intp), share * share * (3 - 2 * share)
