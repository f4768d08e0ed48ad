"""Small pictures with their truth, drawn so that the edges of a mask are edges of its image, as in photographs.

Each kind of scene returns an image (H W 3, uint8) and a mask (H W, uint8, 0 is the ground); the same generator state
gives the same picture. They are drawn to look alike where real ones do: all retinas are orange discs on black.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Rng = np.random.Generator
Size = tuple[int, int]
Pair = tuple[np.ndarray, np.ndarray]
Scene = Callable[[Rng, Size], Pair]

PAINTS = np.array(
    [[205, 70, 50], [60, 110, 215], [240, 205, 70], [95, 40, 120], [245, 245, 235], [20, 120, 110], [150, 90, 45]]
)


def texture(rng: Rng, size: Size, cell: int) -> np.ndarray:
    """Returns H W smooth noise of about -1 to 1, whose patches are `cell` pixels wide."""
    small = rng.normal(0, 0.5, (size[0] // cell + 2, size[1] // cell + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


def ground(rng: Rng, size: Size, color: tuple[int, int, int] | None = None, *, rough: float = 25) -> np.ndarray:
    """Returns H W 3 floats: a colour that changes slowly over the picture, with grain."""
    base = np.array(color if color else rng.integers(60, 180, 3), float)
    slow = np.stack([texture(rng, size, max(size) // 3) for _ in range(3)], -1)
    fine = texture(rng, size, 6)[..., None] * rough * 0.6 + rng.normal(0, 4, (*size, 1))
    return base + slow * rough + fine


def finish(image: np.ndarray) -> np.ndarray:
    """Returns floats as a camera stores them."""
    return image.clip(0, 255).astype(np.uint8)


def paint(image: np.ndarray, mask: np.ndarray, value: int, color: np.ndarray, rng: Rng, *, rough: float = 12) -> None:
    """Gives the area of a mask's value its colour and its own texture."""
    area = mask == value
    image[area] = (color + texture(rng, mask.shape, 5)[..., None] * rough)[area]


def ellipse(rng: Rng, size: Size, radius: tuple[float, float]) -> np.ndarray:
    """Returns H W, whether a pixel lies in an ellipse somewhere in the picture; radii are shares of the short side."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    y, x = rng.uniform(0.15, 0.85, 2) * size
    angle = rng.uniform(0, np.pi)
    a, b = rng.uniform(*radius, 2) * min(size)
    along = (rows - y) * np.sin(angle) + (columns - x) * np.cos(angle)
    across = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
    return (along / a) ** 2 + (across / b) ** 2 < 1


def objects(num_classes: int = 1, *, least: int = 1, most: int = 4, color: tuple[int, int, int] | None = None) -> Scene:
    """Returns a scene of ellipses on a ground, of classes 1 to `num_classes`."""

    def draw(rng: Rng, size: Size) -> Pair:
        image, mask = ground(rng, size, color), np.zeros(size, np.uint8)
        for _ in range(int(rng.integers(least, most + 1))):
            mask[ellipse(rng, size, (0.1, 0.25))] = rng.integers(1, num_classes + 1)
        for value in range(1, num_classes + 1):
            paint(image, mask, value, PAINTS[(value - 1) % len(PAINTS)], rng)
        return finish(image), mask

    return draw


def lesion(rng: Rng, size: Size) -> Pair:
    """One dark spot on skin."""
    image, mask = ground(rng, size, (215, 170, 150), rough=10), np.zeros(size, np.uint8)
    mask[ellipse(rng, size, (0.15, 0.35))] = 1
    paint(image, mask, 1, np.array([120, 70, 55]) + rng.integers(-20, 20, 3), rng)
    return finish(image), mask


def polyp(rng: Rng, size: Size) -> Pair:
    """One bulge in a red tube with black corners."""
    image, mask = ground(rng, size, (170, 75, 60), rough=22), np.zeros(size, np.uint8)
    mask[ellipse(rng, size, (0.12, 0.3))] = 1
    paint(image, mask, 1, np.array([215, 130, 110]) + rng.integers(-15, 15, 3), rng)
    rows, columns = np.mgrid[: size[0], : size[1]]
    corner = np.hypot(rows - size[0] / 2, columns - size[1] / 2) > 0.62 * max(size)
    image[corner], mask[corner] = 4, 0
    return finish(image), mask


def retina(rng: Rng, size: Size) -> Pair:
    """Dark vessels on an orange disc, black around: all such pictures look alike."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    disc = np.hypot(rows - size[0] / 2, columns - size[1] / 2) < 0.47 * min(size)
    image = ground(rng, size, (200, 105, 50), rough=9)
    nerve = np.array([size[0] / 2, size[1] * (0.3 if rng.random() < 0.5 else 0.7)])
    image[np.hypot(rows - nerve[0], columns - nerve[1]) < 0.07 * min(size)] = (245, 220, 150)
    lines = Image.new("L", size[::-1])
    draw = ImageDraw.Draw(lines)
    for start in rng.uniform(0, 2 * np.pi, 7):
        place, angle = nerve[::-1].copy(), start
        for step in range(14):
            angle += rng.normal(0, 0.25)
            end = place + np.array([np.cos(angle), np.sin(angle)]) * size[1] / 22
            draw.line([*place, *end], fill=1, width=3 if step < 5 else 2 if step < 9 else 1)
            place = end
    mask = (np.asarray(lines) * disc).astype(np.uint8)
    image[mask > 0] *= 0.6
    image[~disc] = rng.normal(3, 1, (int((~disc).sum()), 1))
    return finish(image), mask


def membranes(rng: Rng, size: Size) -> Pair:
    """Cells of a stained tissue, 1, between dark membranes, 0."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    seeds = rng.uniform(0, 1, (40, 2)) * size
    distances = np.sort(np.hypot(rows[..., None] - seeds[:, 0], columns[..., None] - seeds[:, 1]), -1)
    mask = (distances[..., 1] - distances[..., 0] > 3).astype(np.uint8)
    image = 165 + texture(rng, size, 5)[..., None] * 25 + rng.normal(0, 8, (*size, 1))
    image[mask == 0] -= 90
    return finish(np.repeat(image, 3, -1)), mask


def nuclei(rng: Rng, size: Size, *, num: int = 14) -> Pair:
    """Stained nuclei with ids 1, 2, 3, …"""
    image, mask = ground(rng, size, (225, 190, 215), rough=10), np.zeros(size, np.uint8)
    for number in range(1, int(rng.integers(num // 2, num + 1)) + 1):
        mask[ellipse(rng, size, (0.05, 0.09))] = number
    present = np.unique(mask[mask > 0])
    mask = np.searchsorted(np.concatenate([[0], present]), mask).astype(np.uint8)
    inside = (mask > 0).astype(np.uint8)
    paint(image, inside, 1, np.array([105, 60, 140]), rng)
    return finish(image), mask


def street(rng: Rng, size: Size) -> Pair:
    """0 sky, 1 building, 2 road, 3 car, 4 person, 5 tree."""
    height, width = size
    mask = np.zeros(size, np.uint8)
    horizon = int(height * rng.uniform(0.4, 0.55))
    left = 0
    while left < width:
        wide = int(rng.integers(width // 10, width // 4))
        top = int(horizon * rng.uniform(0.25, 0.9))
        mask[top:horizon, left : left + wide] = 1
        left += wide + int(rng.integers(0, width // 12))
    mask[horizon:] = 2
    for value, least, share in ((5, 1, (0.06, 0.14)), (3, 2, (0.07, 0.16)), (4, 1, (0.03, 0.05))):
        for _ in range(int(rng.integers(least, least + 3)) * max(1, width // (2 * height))):
            wide, tall = (rng.uniform(*share, 2) * height).astype(int) + 2
            tall = tall * (3 if value == 4 else 1)
            x, y = int(rng.integers(0, width - wide)), horizon + int(rng.integers(0, height // 5))
            mask[max(0, y - tall) : y + 2, x : x + wide] = value
    for x in range(4, width, height):  # every picture of a wide street shows a tree
        mask[horizon - 6 : horizon + 2, x : x + 7] = 5
    image = ground(rng, size, (150, 180, 215), rough=10)
    for value, color in (
        (1, (130, 100, 90)),
        (2, (85, 85, 92)),
        (3, (190, 40, 40)),
        (4, (235, 190, 60)),
        (5, (50, 110, 50)),
    ):
        paint(image, mask, value, np.array(color) + rng.integers(-15, 15, 3), rng)
    return finish(image), mask


def drive_along(scene: Scene, *, wide: int = 3) -> Callable[[Rng, Size, int], list[Pair]]:
    """Returns a maker of the frames of a video that pans over one long scene."""

    def frames(rng: Rng, size: Size, num: int) -> list[Pair]:
        image, mask = scene(rng, (size[0], size[1] * wide))
        step = max(1, size[1] * (wide - 1) // max(1, num * 2))
        return [
            (
                finish(image[:, x : x + size[1]] + rng.normal(0, 3, (*size, 1))),
                mask[:, x : x + size[1]].copy(),
            )
            for x in range(0, step * num, step)
        ]

    return frames


def aerial(rng: Rng, size: Size) -> Pair:
    """From above: 0 land, 1 building, 2 road, 3 water, 4 vegetation."""
    image, mask = ground(rng, size, (165, 145, 115), rough=14), np.zeros(size, np.uint8)
    mask[ellipse(rng, size, (0.15, 0.4))] = 4
    if rng.random() < 0.6:
        mask[ellipse(rng, size, (0.1, 0.3))] = 3
    lines = Image.new("L", size[::-1])
    for _ in range(int(rng.integers(1, 4))):
        ends = rng.uniform(0, 1, 4) * [size[1], size[0], size[1], size[0]]
        ImageDraw.Draw(lines).line(ends.tolist(), fill=1, width=5)
    mask[np.asarray(lines) > 0] = 2
    for _ in range(int(rng.integers(2, 7))):
        tall, wide = rng.integers(8, 20, 2)
        y, x = (rng.uniform(0, 0.85, 2) * size).astype(int)
        mask[y : y + tall, x : x + wide] = 1
    for value, color in ((1, (205, 90, 70)), (2, (110, 110, 115)), (3, (40, 70, 130)), (4, (60, 105, 55))):
        paint(image, mask, value, np.array(color), rng)
    return finish(image), mask


def roads(rng: Rng, size: Size) -> Pair:
    """From above, only the road is labelled, 1."""
    image, mask = aerial(rng, size)
    return image, (mask == 2).astype(np.uint8)


def crack(rng: Rng, size: Size) -> Pair:
    """A dark line on grey concrete: all such pictures look alike."""
    image = ground(rng, size, (140, 138, 134), rough=8)
    lines = Image.new("L", size[::-1])
    x, points = rng.uniform(0.2, 0.8) * size[1], []
    for y in np.linspace(0, size[0], 14):
        points.append((x, y))
        x += rng.normal(0, size[1] / 16)
    ImageDraw.Draw(lines).line(points, fill=1, width=int(rng.integers(2, 5)))
    mask = np.asarray(lines).copy()
    image[mask > 0] -= 75
    return finish(image), mask


def portrait(rng: Rng, size: Size) -> Pair:
    """Head and shoulders in the middle."""
    image, mask = ground(rng, size), np.zeros(size, np.uint8)
    rows, columns = np.mgrid[: size[0], : size[1]]
    y, x = size[0] * rng.uniform(0.3, 0.42), size[1] * rng.uniform(0.4, 0.6)
    tall, wide = size[0] * rng.uniform(0.17, 0.24), size[1] * rng.uniform(0.13, 0.2)
    body = ((rows - size[0]) / (size[0] - y - 0.6 * tall)) ** 2 + ((columns - x) / (2.2 * wide)) ** 2 < 1
    head = ((rows - y) / tall) ** 2 + ((columns - x) / wide) ** 2 < 1
    mask[body] = 2
    mask[head] = 1
    paint(image, mask, 2, rng.integers(30, 220, 3).astype(float), rng)
    paint(image, mask, 1, np.array([220, 175, 145]), rng)
    return finish(image), mask


def skyline(rng: Rng, size: Size) -> Pair:
    """Sky, 1, above hills."""
    line = size[0] * (0.5 + 0.3 * texture(rng, (1, size[1]), size[1] // 4)[0])
    mask = (np.mgrid[: size[0], : size[1]][0] < line).astype(np.uint8)
    image = ground(rng, size, (75, 95, 55))
    paint(image, mask, 1, np.array([160, 190, 230]) + rng.integers(-25, 25, 3), rng, rough=6)
    return finish(image), mask


def field(rng: Rng, size: Size) -> Pair:
    """Soil, 0, with a row of crop, 1, and weeds, 2."""
    image, mask = ground(rng, size, (110, 85, 70), rough=12), np.zeros(size, np.uint8)
    for place in rng.uniform(0.1, 0.9, (5, 2)) * size:
        mask[np.hypot(*(np.mgrid[: size[0], : size[1]] - place[:, None, None])) < rng.uniform(4, 8)] = 2
    for x in np.arange(10, size[1], 26) + rng.integers(0, 10):
        rows, columns = np.mgrid[: size[0], : size[1]]
        mask[np.hypot(rows - size[0] * 0.5 - rng.normal(0, 3), columns - x) < rng.uniform(6, 9)] = 1
    paint(image, mask, 1, np.array([70, 150, 60]), rng)
    paint(image, mask, 2, np.array([120, 165, 70]), rng)
    return finish(image), mask


def soft(mask: np.ndarray, radius: float = 1.0) -> np.ndarray:
    """Returns a mask of 0 and 255 with anti-aliased edges, from one of 0 and 1."""
    return np.asarray(Image.fromarray(mask * 255).filter(ImageFilter.GaussianBlur(radius)))
