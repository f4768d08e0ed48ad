"""Which images `predict` tells of as unlike those of the training, by hand and on real sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segtool.config import Augment, ClassSpec, Config, Data
from segtool.config.sections import Seen
from segtool.data.images import read_image
from segtool.data.pairs import Record
from segtool.data.statistics import measure_images
from segtool.prediction.unlike import Unlike, unlike_in_size, unlike_in_values

GREY = Seen(mean=((0.4, 0.6),), std=((0.1, 0.2),), size=((100, 200), (100, 300)))


def grey(mean: float, std: float, size: tuple[int, int] = (100, 100)) -> np.ndarray:
    """Returns an image of two grey values, as many pixels of each."""
    image = np.full((*size, 1), 255 * (mean - std), np.float32)
    image[::2] = 255 * (mean + std)
    return image


@pytest.mark.parametrize(
    ("mean", "std", "told"),
    [
        (0.5, 0.15, ""),
        (0.31, 0.15, ""),  # by less than half of the range's length below it
        (0.29, 0.15, "mean brightness 0.29, there 0.40 to 0.60"),
        (0.71, 0.15, "mean brightness 0.71, there 0.40 to 0.60"),
        (0.5, 0.07, ""),
        (0.5, 0.05, "deviation of brightness 0.05, there 0.10 to 0.20"),
        (0.5, 0.33, "deviation of brightness 0.33, there 0.10 to 0.20"),
    ],
)
def test_an_image_is_told_by_the_first_range_that_it_is_far_outside_of(mean, std, told):
    assert unlike_in_values(GREY, grey(mean, std)) == told


def test_a_channel_is_named():
    seen = Seen(mean=((0.5, 0.5),) * 3, std=((0.0, 0.2),) * 3, size=GREY.size)
    image = np.full((8, 8, 3), 127, np.uint8)
    assert unlike_in_values(seen, image) == ""
    image[..., 2] = 0
    assert unlike_in_values(seen, image).startswith("mean blue 0.00")
    many = replace(seen, mean=seen.mean * 3, std=seen.std * 3)
    assert unlike_in_values(many, image[..., [0, 0, 0, 0, 0, 0, 2, 0, 0]]).startswith("mean channel 7 0.00")


def test_of_a_large_image_every_part_is_looked_at():
    image = np.full((3000, 3000, 1), 127, np.uint8)
    assert unlike_in_values(replace(GREY, std=((0.0, 0.2),)), image) == ""
    image[2000:] = 255
    assert "deviation" in unlike_in_values(replace(GREY, mean=((0.4, 0.7),), std=((0.0, 0.1),)), image)


@pytest.mark.parametrize(
    ("size", "zoom", "told"),
    [
        ((400, 600), (1, 1), ""),
        ((410, 610), (1, 1), "610x410, the largest there 300x200"),
        ((410, 610), (0.5, 1.1), ""),
        ((49, 50), (1, 1), "50x49, the smallest there 100x100"),
        ((49, 50), (0.9, 2), ""),
        ((610, 410), (1, 1), "410x610, the largest there 300x200"),
    ],
)
def test_a_size_is_told_beyond_twice_what_the_zoom_has_shown(size, zoom, told):
    assert unlike_in_size(GREY, np.empty((*size, 1)), zoom) == told


def test_nothing_is_told_where_nothing_is_known():
    noted = []
    for data in (Data(channels=1), Data(channels=3, seen=GREY)):
        unlike = Unlike(Config(data=data, augment=Augment()))
        unlike.look(None, grey(0.9, 0.05, (9, 9)))
        noted += unlike._in_values + unlike._in_size
    assert noted == []


REAL = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.parametrize(("name", "channels"), [("crackforest", 3), ("em_membrane", 1)])
def test_of_real_images_hardly_one_is_told_and_those_that_are_far_too_dark_all_are(tmp_path, name, channels):
    if not (REAL / name).is_dir():
        pytest.skip(f"no {name} here")
    records = [Record(path, None, path.stem) for path in sorted((REAL / name / "images").iterdir())]
    known, others = records[::2], records[1::2]
    config = Config(data=Data(channels=channels, classes=(ClassSpec("all", values=(0,)),)))
    *_, seen = measure_images(config, known)
    images = [read_image(record.image, channels=channels, exif="apply", max_pixels=10**8) for record in others]
    assert sum(bool(unlike_in_values(seen, image)) for image in images) <= len(images) // 50
    assert not any(unlike_in_size(seen, image, (1, 1)) for image in images)
    assert all(unlike_in_values(seen, image // 3) for image in images)
