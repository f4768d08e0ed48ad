"""Where miniatures of published sets are entered with what is right about them, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scenes import Pair, Scene

SIZE = (64, 96)
VOC_COLORS = [
    (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128),
]  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A set and what is right about it."""

    name: str
    make: Callable[[Path], None]
    pairs: dict[str, int]
    encoding: str
    classes: Sequence[int | str]
    """The first stored value or `#rrggbb` of each class, in any order."""
    ignore: Sequence[int | str] = ()
    names: Sequence[str] = ()
    """Names of classes that the set's own files tell."""
    nearest: bool = False
    masks: str = ""
    """What the path of every mask holds, where several folders offer themselves."""
    images: str = ""
    """The same of every image."""
    exif: str = "apply"
    warns: str = ""
    """A pattern of what is rightly warned of."""
    apart: str = ""
    """A pattern on stems whose first group is a video, a patient or a picture: it must not be cut by a split."""


PUBLISHED: dict[str, Published] = {}
UNSUPPORTED: dict[str, tuple[Callable[[Path], None], str]] = {}
"""Sets that hold no semantic masks as they are, and a pattern of the words that say so."""


def published(
    pairs: int | dict[str, int], encoding: str, classes: Iterable[int | str], **more: Any
) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Enters a maker into `PUBLISHED` with what `init` should find, and `more` of it."""

    def enter(make: Callable[[Path], None]) -> Callable[[Path], None]:
        parts = {"train": pairs} if isinstance(pairs, int) else pairs
        PUBLISHED[make.__name__] = Published(make.__name__, make, parts, encoding, tuple(classes), **more)
        return make

    return enter


def unsupported(words: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Enters a maker into `UNSUPPORTED`."""

    def enter(make: Callable[[Path], None]) -> Callable[[Path], None]:
        UNSUPPORTED[make.__name__] = (make, words)
        return make

    return enter


# ------------------------------------------------------------------------------------------------- writing


def pairs(scene: Scene, num: int, *, seed: int = 0, size: tuple[int, int] = SIZE) -> list[Pair]:
    """Returns pictures of a scene, each another."""
    return [scene(np.random.default_rng([seed, index]), size) for index in range(num)]


def save(path: Path, array: np.ndarray | Image.Image, **options: object) -> None:
    """Writes an array, or a picture, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    if path.suffix.lower() in (".jpg", ".jpeg"):
        options = {"quality": 92, **options}
    picture.save(path, **options)


def text(path: Path, content: str | Iterable[str]) -> None:
    """Writes a text, or lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else "".join(f"{line}\n" for line in content))


def binary(mask: np.ndarray) -> np.ndarray:
    """Returns 255 where there is something."""
    return ((mask > 0) * 255).astype(np.uint8)


def colored(mask: np.ndarray, colors: Iterable[tuple[int, int, int]]) -> np.ndarray:
    """Returns H W 3."""
    return np.array(list(colors), np.uint8)[mask]


def with_palette(mask: np.ndarray, colors: Iterable[tuple[int, int, int]]) -> Image.Image:
    """Returns a palette picture."""
    picture = Image.fromarray(mask.astype(np.uint8), "P")
    picture.putpalette([channel for color in colors for channel in color])
    return picture


def rim(mask: np.ndarray, value: int) -> np.ndarray:
    """Returns a mask whose borders between classes hold another value."""
    edge = np.zeros(mask.shape, bool)
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    edge[1:] |= mask[1:] != mask[:-1]
    return np.where(edge, value, mask).astype(np.uint8)


def hexes(colors: Iterable[tuple[int, int, int]]) -> list[str]:
    """Returns `#rrggbb` of each."""
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colors]
