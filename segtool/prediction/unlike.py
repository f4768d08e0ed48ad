"""Which images are unlike all that a network was trained on: its masks of them are guesses."""

from __future__ import annotations

import math

import numpy as np

from segtool.config import Config
from segtool.config.sections import Seen
from segtool.errors import few
from segtool.prediction.predicted_files import Job
from segtool.system.distributed import World
from segtool.system.terminal import Reporter

SAMPLE = 1 << 14  # pixels of an image, evenly spaced, that are looked at
# What is outside of a range by less counts as within. Of the other images of CamVid, of cracks and of membranes no more
# than one in fifty is further out; of those at a third of their brightness all are.
MEAN_MARGIN, LEAST_MARGIN = 0.5, 0.05  # of the range's length, and in 0..1
STD_RATIO, STD_MARGIN = 1.5, 0.01
SIZE_RATIO = 2.0
CHANNELS = {1: ("brightness",), 3: ("red", "green", "blue"), 4: ("red", "green", "blue", "opacity")}


class Unlike:
    """Notes images that are unlike those of the training, and tells of them; of no image where these are not known."""

    def __init__(self, config: Config) -> None:
        seen = config.data.seen
        self._seen = seen if seen and len(seen.mean) == config.data.channels else None
        self._zoom = config.augment.scale
        self._in_values: list[tuple[str, str]] = []
        self._in_size: list[tuple[str, str]] = []

    def look(self, job: Job, image: np.ndarray) -> None:
        """Looks at an image H W C, in 0..255."""
        if self._seen is None:
            return
        if found := unlike_in_values(self._seen, image):
            self._in_values.append((str(job.image), found))
        if found := unlike_in_size(self._seen, image, self._zoom):
            self._in_size.append((str(job.image), found))

    def tell(self, world: World, reporter: Reporter) -> None:
        """Says what was found by all processes: a warning of values, and a line of sizes, which may be meant so."""
        for found, say, what, then in (
            (self._in_values, reporter.warn, "unlike all images of the training", "the masks are guesses"),
            (
                self._in_size,
                reporter.say,
                "of another size than the images of the training",
                "where they show the same nearer or further away, scale them first",
            ),
        ):
            if found := sorted(world.gather_json(found)):
                paths, differences = zip(*found, strict=True)
                say(f"{few(paths, 3)}: {what} ({differences[0]}); {then}")


def unlike_in_values(seen: Seen, image: np.ndarray) -> str:
    """Returns in what an image H W C, in 0..255, is unlike all training images; empty where in nothing."""
    height, width, channels = image.shape
    step = max(1, math.isqrt(height * width // SAMPLE))
    some = image[::step, ::step].reshape(-1, channels) / np.float32(255)
    names = CHANNELS.get(channels) or [f"channel {number}" for number in range(1, channels + 1)]
    for name, mean, (low, high) in zip(names, some.mean(0), seen.mean, strict=True):
        margin = max(MEAN_MARGIN * (high - low), LEAST_MARGIN)
        if not low - margin <= mean <= high + margin:
            return f"mean {name} {mean:.2f}, there {low:.2f} to {high:.2f}"
    for name, std, (low, high) in zip(names, some.std(0), seen.std, strict=True):
        if not low / STD_RATIO - STD_MARGIN <= std <= high * STD_RATIO + STD_MARGIN:
            return f"deviation of {name} {std:.2f}, there {low:.2f} to {high:.2f}"
    return ""


def unlike_in_size(seen: Seen, image: np.ndarray, zoom: tuple[float, float]) -> str:
    """Returns how much larger or smaller an image H W C is than all training images, zoomed as they were; or nothing.

    Args:
        zoom: Range of `augment.scale`.
    """
    height, width = image.shape[:2]
    (least_high, most_high), (least_wide, most_wide) = seen.size
    larger = math.sqrt(height * width / (most_high * most_wide))
    smaller = math.sqrt(least_high * least_wide / (height * width))
    if larger > SIZE_RATIO * max(1, zoom[1]):
        return f"{width}x{height}, the largest there {most_wide}x{most_high}"
    if smaller > SIZE_RATIO / min(1, zoom[0]):
        return f"{width}x{height}, the smallest there {least_wide}x{least_high}"
    return ""
